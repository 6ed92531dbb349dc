/* The DMControl tasks: recorded trajectories, saved states, limits, broken physics, threads. */
#include "common/env/dm/dm.h"

#include <pthread.h>
#include <unistd.h>

#include "common/env/probe.h"
#include "tests/support/test.h"
#include "tools/env.h"

#define OBS_MAX    256
#define ACTION_MAX 64
#define HEAVY      100 /* observations of more values are the dog's: some 300 steps per second */

static env_t *open_env(const char *task, uint32_t seed)
{
    struct error err;
    env_t *env;

    assert_ok(env_create(&env, task, seed, &err), err);
    return env;
}

/* The DMControl tasks are the first of all. */
static int task_count(void)
{
    int count = 0;

    while (dm_class.name(count) != NULL) {
        assert_string_equal(dm_class.name(count), env_task_name(count));
        count++;
    }
    return count;
}

/* The action of the n-th step, the same for every environment. */
static void choose(uint64_t n, float *action)
{
    struct rng_key key = {.seed = 1, .purpose = RNG_TEST, .step = n};
    struct rng rng;

    rng_init(&rng, &key);
    rng_uniform(&rng, action, ACTION_MAX, -1, 1);
}

/* The n-th step, or the next episode's reset; returns the reward. */
static double advance(env_t *env, uint64_t n, float *obs)
{
    struct env_result result = {0};
    float action[ACTION_MAX];
    struct error err;

    if (env_steps(env) < 0) {
        assert_ok(env_reset(env, obs, &err), err);
        return 0;
    }
    choose(n, action);
    assert_ok(env_step(env, action, obs, &result, &err), err);
    assert_false(result.terminated);
    assert_false(result.success);
    return result.reward;
}

/* Two episodes of the official wrappers: equal observations where this machine can, see probe.h. */
static void recorded_trajectories(void **state)
{
    struct error err = {0};
    bool exact = probe_exact(&err);

    (void)state;
    if (!exact)
        printf("%s\n", err.text);
    for (int i = 0; i < task_count(); i++) {
        char path[200];
        int rc;

        snprintf(path, sizeof(path), "tests/golden/trajectories/%s.traj.safetensors", env_task_name(i));
        rc = env_replay_file(path, exact ? ENV_REPLAY_EXACT : ENV_REPLAY_STEP, ENV_DRAW_EXACT, stdout, &err);
        if (rc != TD_OK)
            fail_msg("%s: %s", path, rc == TD_EAGAIN ? "differs" : err.text);
    }
}

/* A domain's first or last task; they differ most in their resets. */
static bool at_an_edge(int index)
{
    struct env_about here, before, after;

    if (index == 0 || index == task_count() - 1)
        return true;
    env_describe(env_task_name(index), &here);
    env_describe(env_task_name(index - 1), &before);
    env_describe(env_task_name(index + 1), &after);
    return strcmp(here.domain, before.domain) != 0 || strcmp(here.domain, after.domain) != 0;
}

/* Saved in the middle of an episode, continued in an environment with another history. */
static void saved_states_continue_bit_by_bit(void **state)
{
    (void)state;
    for (int i = 0; i < task_count(); i++) {
        if (!at_an_edge(i) && !test_long())
            continue;

        env_t *a = open_env(env_task_name(i), 5), *b = open_env(env_task_name(i), 6);
        float obs[OBS_MAX], other[OBS_MAX];
        size_t bytes = env_spec(a)->obs_dim * sizeof(float);
        void *saved = malloc(env_state_size(a));
        bool heavy = env_spec(a)->obs_dim > HEAVY;
        struct error err;

        assert_non_null(saved);
        if (i % 2 == 0) /* else b never saw a reset */
            for (uint64_t n = 0; n < 30; n++)
                advance(b, n + 1000, other);
        for (uint64_t n = 0; n < (heavy ? 30 : 470); n++)
            advance(a, n, obs);
        env_state_get(a, saved);
        assert_ok(env_state_set(b, saved, env_state_size(a), &err), err);
        assert_int_equal(env_steps(a), env_steps(b));
        env_observe(b, other);
        assert_memory_equal(obs, other, bytes);
        for (uint64_t n = 0; n < (heavy ? 40 : 80); n++) { /* most into the next episode */
            double reward = advance(a, n, obs), same = advance(b, n, other);

            assert_memory_equal(&reward, &same, sizeof(reward));
            assert_memory_equal(obs, other, bytes);
        }
        free(saved);
        env_close(&a);
        env_close(&b);
    }
}

/* A state that MuJoCo warns about raises an error in dm_control; ours then only closes. */
static void invalid_physics_is_an_error(void **state)
{
    float obs[OBS_MAX], action[ACTION_MAX] = {0};
    struct env_result result;
    struct error err;
    env_t *env = open_env("walker-walk", 1);
    void *saved = malloc(env_state_size(env));

    (void)state;
    assert_non_null(saved);
    assert_ok(env_reset(env, obs, &err), err);
    ((struct dm *)env)->data->qvel[0] = 1e300;
    assert_int_equal(env_step(env, action, obs, &result, &err), TD_EIO);
    assert_non_null(strstr(err.text, "walker-walk: the physics state became invalid"));
    env_state_get(env, saved);
    assert_int_equal(env_step(env, action, obs, &result, &err), TD_EIO);
    assert_int_equal(env_reset(env, obs, &err), TD_EIO);
    assert_int_equal(env_state_set(env, saved, env_state_size(env), &err), TD_EIO);
    env_close(&env);
    assert_int_not_equal(access("MUJOCO_LOG.TXT", F_OK), 0);
    free(saved);
}

/* Threads open and run environments of their own; each result is as if it were alone. */
struct runner {
    const char *task;
    float last[OBS_MAX];
    double total;
};

static void *run_alone(void *context)
{
    struct runner *runner = context;
    env_t *env = open_env(runner->task, 11);

    runner->total = 0;
    for (uint64_t n = 0; n < 120; n++)
        runner->total += advance(env, n, runner->last);
    env_close(&env);
    return NULL;
}

static void environments_do_not_meet(void **state)
{
    static const char *const tasks[] = {"walker-run", "finger-turn-easy", "reacher-hard", "walker-run"};
    struct runner alone[4] = {0}, together[4] = {0};
    pthread_t thread[4];

    (void)state;
    for (int i = 0; i < 4; i++) {
        alone[i].task = together[i].task = tasks[i];
        run_alone(&alone[i]);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run_alone, &together[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < 4; i++) {
        assert_memory_equal(alone[i].last, together[i].last, sizeof(alone[i].last));
        assert_true(alone[i].total == together[i].total);
    }
}

static void tolerances(void **state)
{
    (void)state;
    assert_true(dm_within(1, 1, 1) == 1 && dm_within(1.0000000000000002, 0, 1) == 0);
    assert_true(dm_gaussian(0, 0, 0, 5) == 1);
    assert_true(fabs(dm_gaussian(-5, 0, 0, 5) - 0.1) < 1e-15);
    assert_true(fabs(dm_gaussian(3, 0, 1, 2) - 0.1) < 1e-15);
    assert_true(fabs(dm_gaussian(2, 0, 1, 2) - pow(0.1, 0.25)) < 1e-15);
    assert_true(dm_linear(10, 10, INFINITY, 10, 0) == 1 && dm_linear(0, 10, INFINITY, 10, 0) == 0);
    assert_true(dm_linear(-5, 10, INFINITY, 10, 0) == 0 && dm_linear(4, 8, INFINITY, 4, .5) == .5);
    assert_true(dm_linear(0, 8, INFINITY, 4, .5) == 0 && dm_linear(2.5, 10, INFINITY, 10, 0) == .25);
    assert_true(dm_quadratic(0) == 1 && dm_quadratic(-.5) == .75 && dm_quadratic(1) == 0);
    assert_true(dm_quadratic(-3) == 0);
}

static void small_algebra(void **state)
{
    static const double v[3] = {3, 4, 12}, turn[9] = {0, 1, 0, -1, 0, 0, 0, 0, 1};
    static const double fused[2] = {0x1.ef2a4f7c7db80p-4, 0x1.54ae0bf2a236ep-2};
    double out[3];

    (void)state;
    assert_true(dm_norm(v, 3) == 13 && dm_norm(v, 2) == 5);
    dm_rotate(out, v, turn);
    assert_true(out[0] == -4 && out[1] == 3 && out[2] == 12);
    assert_true(dm_norm(fused, 2) == 0x1.6a7939a80e8cep-2); /* unfused: ...cd */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_trajectories),
        cmocka_unit_test(saved_states_continue_bit_by_bit),
        cmocka_unit_test(invalid_physics_is_an_error),
        cmocka_unit_test(environments_do_not_meet),
        cmocka_unit_test(tolerances),
        cmocka_unit_test(small_algebra),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
