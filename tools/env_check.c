/* env_check.c - is a task what its spec says, deterministic, resumable, and how fast is it? */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/env/stack.h"
#include "common/util/clock.h"
#include "common/util/rng.h"
#include "tools/env.h"

#define SEED      1
#define STEPS_MAX 2000 /* followed at most, whatever the time limit */
#define FRAMES_MAX 100 /* the same where each is drawn */
#define RATE_MS   500  /* how long the rate is measured */
#define RATE_STEPS 32  /* between two looks at the clock */

struct check {
    struct env_spec spec;
    FILE *out;
    struct trial *trial;
    bool failed;
    struct env_options options;
    float *action;
    void *obs, *other;
    void *state;

    /* what was seen while following */
    uint64_t episodes, steps, not_finite, wrong_end, early, ended;
    double least, most;             /* reward of a step */
    double total, least_return, most_return;
    float obs_least, obs_most;
};

static void __attribute__((format(printf, 4, 5)))
verdict(struct check *check, bool good, const char *name, const char *format, ...)
{
    va_list arguments;

    fprintf(check->out, "%-6s  %-12s  ", good ? "ok" : "FAILED", name);
    va_start(arguments, format);
    vfprintf(check->out, format, arguments);
    va_end(arguments);
    fputc('\n', check->out);
    check->failed |= !good;
}

/* Worth knowing, no fault. */
static void __attribute__((format(printf, 3, 4))) note(struct check *check, const char *name, const char *format, ...)
{
    va_list arguments;

    fprintf(check->out, "note    %-12s  ", name);
    va_start(arguments, format);
    vfprintf(check->out, format, arguments);
    va_end(arguments);
    fputc('\n', check->out);
}

/* The action of the n-th step: random, the same in every run, now and then at the bounds. */
static void choose_action(struct check *check, uint64_t n)
{
    struct rng_key key = {.seed = SEED, .purpose = RNG_TEST, .step = n};
    struct rng rng;

    rng_init(&rng, &key);
    rng_uniform(&rng, check->action, check->spec.action_dim, -1, 1);
    if (n % 7 == 0)
        for (uint32_t i = 0; i < check->spec.action_dim; i++)
            check->action[i] = check->action[i] < 0 ? -1 : 1;
}

/* --- what is seen -------------------------------------------------------------------------- */

static void see_obs(struct check *check)
{
    bool frame = check->spec.obs_type == ENV_OBS_RGB;

    for (uint32_t i = 0; i < check->spec.obs_dim; i++) {
        float value = frame ? ((const uint8_t *)check->obs)[i] : ((const float *)check->obs)[i];

        check->not_finite += !isfinite(value);
        check->obs_least = fminf(check->obs_least, value);
        check->obs_most = fmaxf(check->obs_most, value);
    }
}

/* `length` steps of the episode are taken, the last with this result. */
static void see_result(struct check *check, const struct env_result *result, uint32_t length)
{
    bool over = result->terminated || result->truncated;

    check->steps++;
    check->not_finite += !isfinite(result->reward);
    check->least = fmin(check->least, result->reward);
    check->most = fmax(check->most, result->reward);
    check->total += result->reward;
    if (!check->spec.may_truncate || length == check->spec.episode_length)
        check->wrong_end += result->truncated != (length == check->spec.episode_length && !result->terminated);
    check->ended += result->terminated;
    check->early += over && length < check->spec.episode_length;
    check->wrong_end += result->terminated && !check->spec.terminates;
    if (over) {
        check->episodes++;
        check->least_return = fmin(check->least_return, check->total);
        check->most_return = fmax(check->most_return, check->total);
        check->total = 0;
    }
}

/* --- following ----------------------------------------------------------------------------- */

static int create(struct check *check, env_t **env, const char *task, uint32_t seed, struct error *err)
{
    trial_enter(check->trial, "create", env_start_timeout_ms());
    return env_create_with(env, task, &check->options, seed, err);
}

static void close_it(struct check *check, env_t **env)
{
    trial_enter(check->trial, "close", env_timeout_ms());
    env_close(env);
}

/* The n-th step, or a reset when the episode is over. */
static int advance(struct check *check, env_t *env, uint64_t n, void *obs,
                   struct env_result *result, struct error *err)
{
    memset(result, 0, sizeof(*result));
    trial_enter(check->trial, env_steps(env) < 0 ? "reset" : "step", env_timeout_ms());
    if (env_steps(env) < 0)
        return env_reset(env, obs, err);
    choose_action(check, n);
    return env_step(env, check->action, obs, result, err);
}

/* What the next steps are for, and how many they are. */
static void begin_stage(struct check *check, const char *stage, uint64_t total)
{
    check->trial->done = 0;
    check->trial->total = total;
    check->trial->stage = stage;
}

static bool same_result(const struct env_result *a, const struct env_result *b)
{
    return memcmp(&a->reward, &b->reward, sizeof(a->reward)) == 0 && a->terminated == b->terminated &&
           a->truncated == b->truncated && a->success == b->success;
}

/*
 * Take the same `count` steps (resets count) in both, comparing every bit; *differ becomes the first
 * step that differs, or -1. What a does is seen when `see` says so.
 */
static int follow(struct check *check, env_t *a, env_t *b, uint64_t count, bool see, int64_t *differ,
                  struct error *err)
{
    struct env_result result, other;
    int rc;

    *differ = -1;
    for (uint64_t n = 0; n < count; n++) {
        int length = env_steps(a) + 1;

        check->trial->done++;
        if ((rc = advance(check, a, n, check->obs, &result, err)) != TD_OK ||
            (rc = advance(check, b, n, check->other, &other, err)) != TD_OK)
            return rc;
        if (*differ < 0 && (!same_result(&result, &other) ||
                            memcmp(check->obs, check->other, env_obs_bytes(&check->spec)) != 0))
            *differ = (int64_t)n;
        if (!see)
            continue;
        see_obs(check);
        if (length > 0)
            see_result(check, &result, (uint32_t)length);
    }
    return TD_OK;
}

/* --- the checks ---------------------------------------------------------------------------- */

static uint64_t two_episodes(const struct check *check)
{
    uint64_t steps = 2 * ((uint64_t)check->spec.episode_length + 1);
    uint64_t most = check->spec.obs_type == ENV_OBS_RGB ? FRAMES_MAX : STEPS_MAX;

    return steps < most ? steps : most;
}

static int check_behaviour(struct check *check, struct error *err)
{
    env_t *a = NULL, *b = NULL;
    int64_t differ = -1;
    int rc;

    begin_stage(check, "two runs of one seed", two_episodes(check));
    if ((rc = create(check, &a, check->spec.task, SEED, err)) == TD_OK &&
        (rc = create(check, &b, check->spec.task, SEED, err)) == TD_OK &&
        (rc = follow(check, a, b, two_episodes(check), true, &differ, err)) == TD_OK) {
        verdict(check, true, "shapes", "obs [%u] %s, action [%u] in [-1, 1], repeat %u, limit %u",
                check->spec.obs_dim, check->spec.obs_type == ENV_OBS_RGB ? "bytes" : "float32", check->spec.action_dim,
                check->spec.action_repeat, check->spec.episode_length);
        verdict(check, check->not_finite == 0, "finite", "%llu of the values seen are not finite",
                (unsigned long long)check->not_finite);
        verdict(check, check->wrong_end == 0, "limit", "%llu steps ended, or did not end, an episode wrongly%s",
                (unsigned long long)check->wrong_end,
                check->episodes == 0 ? "; no episode was played to its end" : "");
        verdict(check, true, "bounds", "obs in [%.3g, %.3g], reward of a step in [%.3g, %.3g]",
                (double)check->obs_least, (double)check->obs_most, check->least, check->most);
        if (check->episodes > 0)
            verdict(check, true, "returns", "%llu episodes of random actions earn %.2f to %.2f",
                    (unsigned long long)check->episodes, check->least_return, check->most_return);
        if (check->early > 0)
            note(check, "ends", "%llu episodes ended before the limit%s", (unsigned long long)check->early,
                 check->ended > 0 ? ", some in a terminal state: train with episodic=true" : ", truncated");
        if (differ >= 0 && !check->spec.exact_state)
            note(check, "determinism", "two runs of one seed differ from step %lld on: runs can't be repeated exactly",
                 (long long)differ);
        else
            verdict(check, differ < 0, "determinism",
                    differ < 0 ? "two runs of one seed agree in every bit"
                               : "two runs of one seed differ from step %lld on",
                    (long long)differ);
    }
    close_it(check, &a);
    close_it(check, &b);
    return rc;
}

/* Take the state out of a run at several moments and continue it in an environment of another seed. */
static int check_state(struct check *check, struct error *err)
{
    static const uint64_t pause[] = {1, 1, 1, 137, 500, 29}; /* steps between one copy and the next */
    bool frames = check->spec.obs_type == ENV_OBS_RGB;
    uint64_t more = two_episodes(check) / 4 + 1, total = 0;
    struct env_result result;
    env_t *a = NULL, *b = NULL;
    int64_t differ = -1;
    int rc;

    if (!check->spec.exact_state) {
        note(check, "saved state", "not offered: a lock-step run can't be resumed to the bit");
        return TD_OK;
    }
    for (size_t i = 0; i < TD_LEN(pause); i++)
        total += more + (frames ? pause[i] % 20 : pause[i]);
    begin_stage(check, "saved state", total);
    if ((rc = create(check, &a, check->spec.task, SEED, err)) != TD_OK)
        goto out;
    for (size_t i = 0; i < TD_LEN(pause) && differ < 0; i++) {
        for (uint64_t n = 0; n < (frames ? pause[i] % 20 : pause[i]); n++, check->trial->done++)
            if ((rc = advance(check, a, n, check->obs, &result, err)) != TD_OK)
                goto out;
        trial_enter(check->trial, "state_get", env_timeout_ms());
        env_state_get(a, check->state);
        close_it(check, &b);
        if ((rc = create(check, &b, check->spec.task, SEED + 1, err)) != TD_OK)
            goto out;
        trial_enter(check->trial, "state_set", env_timeout_ms());
        if ((rc = env_state_set(b, check->state, env_state_size(a), err)) != TD_OK ||
            (rc = follow(check, a, b, more, false, &differ, err)) != TD_OK)
            goto out;
    }
    verdict(check, differ < 0, "saved state",
            differ < 0 ? "continued at %zu moments, equal in every bit" : "a continued run differs",
            TD_LEN(pause));
out:
    close_it(check, &a);
    close_it(check, &b);
    return rc;
}

static int check_rate(struct check *check, struct error *err)
{
    struct env_result result;
    uint64_t start, now, steps = 0;
    env_t *env;
    int rc;

    begin_stage(check, NULL, 0);
    if ((rc = create(check, &env, check->spec.task, SEED, err)) != TD_OK)
        return rc;
    start = now = clock_ns();
    while (rc == TD_OK && now - start < RATE_MS * 1000000ull) {
        for (int i = 0; i < (check->spec.obs_type == ENV_OBS_RGB ? 1 : RATE_STEPS) && rc == TD_OK; i++)
            rc = advance(check, env, steps++, check->obs, &result, err);
        now = clock_ns();
    }
    close_it(check, &env);
    if (rc == TD_OK)
        verdict(check, true, "rate", "%.0f agent steps per second on one core",
                (double)steps * 1e9 / (double)(now - start));
    return rc;
}

static int check_init(struct check *check, const char *task, struct error *err)
{
    env_t *env;
    int rc;

    if ((rc = create(check, &env, task, SEED, err)) != TD_OK)
        return rc;
    check->spec = *env_spec(env);
    check->least = check->least_return = check->obs_least = INFINITY;
    check->most = check->most_return = check->obs_most = -INFINITY;
    check->action = calloc(check->spec.action_dim, sizeof(float));
    check->obs = calloc(1, env_obs_bytes(&check->spec));
    check->other = calloc(1, env_obs_bytes(&check->spec));
    check->state = malloc(env_state_size(env) + 1);
    close_it(check, &env);
    if (check->action == NULL || check->obs == NULL || check->other == NULL || check->state == NULL)
        return error_set(err, TD_ENOMEM, "no memory to check %s", task);
    return TD_OK;
}

int env_check_task(const char *task, const struct env_options *options, FILE *out, struct trial *trial,
                   struct error *err)
{
    struct trial nobody = {0};
    struct check check = {.out = out, .options = *options, .trial = trial != NULL ? trial : &nobody};
    int rc;

    if ((rc = check_init(&check, task, err)) == TD_OK &&
        (rc = check_behaviour(&check, err)) == TD_OK && (rc = check_state(&check, err)) == TD_OK)
        rc = check_rate(&check, err);
    free(check.action);
    free(check.obs);
    free(check.other);
    free(check.state);
    return rc != TD_OK ? rc : check.failed ? TD_EAGAIN : TD_OK;
}
