/*
 * bench_render.c - frames per second of obs=rgb, drawn exactly and drawn fast.
 *
 * Two environments of a task take the same steps and draw in turn, the order changing: what else
 * the machine does falls on both. Every fast frame is compared with the exact one, for a speed gained by
 * leaving the tolerance is none.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/env/env.h"
#include "common/util/clock.h"
#include "common/util/rng.h"
#include "tools/bench.h"
#include "tools/frame_difference.h"

#define ROUNDS_MAX      2000
#define ROUNDS_AT_LEAST 10

enum { EXACT, FAST, WAYS };

static const char *const ways[WAYS] = {"exact", "fast"};

struct turns {
    env_t *env[WAYS];
    int rounds;
    double ms[WAYS][ROUNDS_MAX], ratio[ROUNDS_MAX];
    uint8_t frame[WAYS][ENV_FRAME_BYTES];
    struct frame_difference difference;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(double *values, int count, double part)
{
    qsort(values, (size_t)count, sizeof(*values), by_value);
    return values[(int)(part * (double)(count - 1))];
}

/* The same step in both, drawn once by each for the observation. */
static int step(struct turns *turns, struct rng *rng, struct error *err)
{
    struct env_result result;
    float action[64];
    int rc = TD_OK;

    TD_ASSERT(env_spec(turns->env[0])->action_dim <= TD_LEN(action), "a longer action");
    rng_uniform(rng, action, env_spec(turns->env[0])->action_dim, -1, 1);
    for (int way = 0; way < WAYS && rc == TD_OK; way++)
        rc = env_steps(turns->env[way]) < 0 ? env_reset(turns->env[way], turns->frame[way], err)
                                            : env_step(turns->env[way], action, turns->frame[way], &result, err);
    if (rc == TD_OK)
        frame_difference_add(&turns->difference, turns->frame[FAST], turns->frame[EXACT], ENV_FRAME_BYTES);
    return rc;
}

/* Draw the state they are in once more, by the clock. */
static int draw(struct turns *turns, struct error *err)
{
    static uint8_t pixels[ENV_FRAME_BYTES];
    const struct env_view view = {ENV_FRAME_SIDE, ENV_FRAME_SIDE, -1};
    int rc = TD_OK;

    for (int i = 0; i < WAYS && rc == TD_OK; i++) {
        int way = (i + turns->rounds) % WAYS;
        uint64_t begun = clock_ns();

        rc = env_render(turns->env[way], &view, pixels, err);
        turns->ms[way][turns->rounds] = (double)(clock_ns() - begun) / 1e6;
    }
    turns->ratio[turns->rounds] = turns->ms[EXACT][turns->rounds] / turns->ms[FAST][turns->rounds];
    turns->rounds++;
    return rc;
}

static void report(const struct bench_options *options, struct turns *turns, const char *task)
{
    char variant[ENV_TASK_MAX + 160];
    struct bench_result result = {.name = "render", .variant = variant, .unit = "frames/s", .count = turns->rounds};
    double ratio = quantile(turns->ratio, turns->rounds, 0.5);

    for (int way = 0; way < WAYS; way++) {
        if (way == EXACT)
            snprintf(variant, sizeof(variant), "task=%s, exact", task);
        else
            snprintf(variant, sizeof(variant),
                     "task=%s, fast: %.2f times exact, worst frame off by %.3f and %.2f %% far", task, ratio,
                     turns->difference.worst_mean, 100 * turns->difference.worst_far);
        result.median_ms = quantile(turns->ms[way], turns->rounds, 0.5);
        result.p99_ms = quantile(turns->ms[way], turns->rounds, 0.99);
        result.rate = 1e3 / result.median_ms;
        bench_report(options, &result);
    }
}

static int run(const struct bench_options *options, struct turns *turns, const char *task, struct error *err)
{
    struct rng_key key = {.seed = 1, .purpose = RNG_TEST};
    struct rng rng;
    uint64_t begun;
    int rc = TD_OK;

    rng_init(&rng, &key);
    for (int way = 0; way < WAYS && rc == TD_OK; way++) {
        struct env_options how = env_options("rgb", ways[way]);

        rc = env_create_with(&turns->env[way], task, &how, 1, err);
    }
    if (rc == TD_OK && (rc = step(turns, &rng, err)) == TD_OK)
        rc = draw(turns, err); /* unmeasured */
    turns->rounds = 0;
    begun = clock_ns();
    while (rc == TD_OK && turns->rounds < ROUNDS_MAX &&
           (turns->rounds < ROUNDS_AT_LEAST || (double)(clock_ns() - begun) < options->seconds * 1e9))
        if ((rc = step(turns, &rng, err)) == TD_OK)
            rc = draw(turns, err);
    if (rc == TD_OK)
        report(options, turns, task);
    if (rc == TD_OK && turns->difference.outside > 0)
        rc = error_set(err, TD_EIO, "bench render: %llu of %llu fast frames of %s are outside the tolerance",
                       (unsigned long long)turns->difference.outside,
                       (unsigned long long)turns->difference.frames, task);
    for (int way = 0; way < WAYS; way++)
        env_close(&turns->env[way]);
    return rc;
}

static int bench_task(const struct bench_options *options, const char *task, struct error *err)
{
    struct turns *turns = calloc(1, sizeof(*turns));
    int rc;

    if (turns == NULL)
        return error_set(err, TD_ENOMEM, "no memory for bench render");
    rc = run(options, turns, task, err);
    free(turns);
    return rc;
}

int bench_render(const struct bench_options *options, struct error *err)
{
    static const char *const tasks[] = {"walker-walk", "cheetah-run", "quadruped-walk", "quadruped-run", "humanoid-run"};
    int rc = TD_OK;

    for (size_t i = 0; i < TD_LEN(tasks) && rc == TD_OK; i++) {
        struct env_spec spec;

        if (env_find(tasks[i], &spec, NULL) == TD_OK)
            rc = bench_task(options, tasks[i], err);
    }
    return rc;
}
