/* The table of environments: names, steps, limits, saved states and what bad input gets. */
#include "common/env/env.h"

#include <math.h>

#include "tests/support/test.h"

#define OBS_MAX 64

static env_t *open_env(const char *task, uint32_t seed)
{
    struct error err;
    env_t *env;

    assert_ok(env_create(&env, task, seed, &err), err);
    return env;
}

static void push(env_t *env, float x, float y, float *obs, struct env_result *result)
{
    float action[] = {x, y};
    struct error err;

    assert_ok(env_step(env, action, obs, result, &err), err);
}

static void tasks_are_found_without_opening_anything(void **state)
{
    struct env_spec spec;
    struct error err;

    (void)state;
    assert_int_equal(env_task_count(), 19);
    assert_null(env_task_name(19));
    for (int i = 0; i < env_task_count(); i++) {
        assert_ok(env_find(env_task_name(i), &spec, &err), err);
        assert_string_equal(spec.task, env_task_name(i));
        assert_int_equal(spec.obs_type, ENV_OBS_STATE);
        assert_int_equal(spec.episode_length, 500);
        assert_int_equal(spec.action_repeat, 2);
        assert_true(spec.exact_state);
        assert_false(spec.terminates);
    }
    assert_ok(env_find("walker-run", &spec, &err), err);
    assert_int_equal(spec.obs_dim, 24);
    assert_int_equal(spec.action_dim, 6);
}

static void unknown_tasks_name_the_nearest_and_the_list(void **state)
{
    static const char *const wrong[] = {
        "walker-wlak", "", "Walker-Run", "toy:", "toy:0", "toy:-1", "toy:1x", "toy:01", "toy: 5",
        "toy:1000001", "toys", "toy-episodic:99999999999999999999", "walker-walk ",
    };
    char endless[1000];
    struct env_spec spec;
    struct error err;
    env_t *env = NULL;

    (void)state;
    for (size_t i = 0; i < TD_LEN(wrong); i++) {
        assert_int_equal(env_find(wrong[i], &spec, &err), TD_ENOTFOUND);
        assert_int_equal(env_create(&env, wrong[i], 1, &err), TD_ENOTFOUND);
        assert_null(env);
        assert_non_null(strstr(err.text, "hopper-hop"));
    }
    assert_int_equal(env_find("walker-wlak", &spec, &err), TD_ENOTFOUND);
    assert_non_null(strstr(err.text, "did you mean walker-walk?"));
    assert_int_equal(env_find("cheetah", &spec, &err), TD_ENOTFOUND);
    assert_non_null(strstr(err.text, "did you mean cheetah-run?"));
    memset(endless, 'x', sizeof(endless) - 1);
    endless[sizeof(endless) - 1] = '\0';
    assert_int_equal(env_find(endless, &spec, &err), TD_ENOTFOUND);
    assert_int_equal(env_find(endless, &spec, NULL), TD_ENOTFOUND);
}

static void the_time_limit_truncates(void **state)
{
    struct env_result result;
    struct error err;
    float obs[OBS_MAX];
    env_t *env = open_env("toy:7", 1);

    (void)state;
    assert_int_equal(env_spec(env)->episode_length, 7);
    assert_int_equal(env_steps(env), -1);
    for (int episode = 0; episode < 3; episode++) {
        assert_ok(env_reset(env, obs, &err), err);
        for (int i = 0; i < 7; i++) {
            assert_int_equal(env_steps(env), i);
            push(env, 1, -1, obs, &result);
            assert_false(result.terminated);
            assert_int_equal(result.truncated, i == 6);
        }
        assert_int_equal(env_steps(env), -1);
    }
    /* A reset is possible at any time. */
    assert_ok(env_reset(env, obs, &err), err);
    push(env, 0, 0, obs, &result);
    assert_ok(env_reset(env, obs, &err), err);
    assert_int_equal(env_steps(env), 0);
    env_close(&env);
    assert_null(env);
    env_close(&env);
}

/* Random actions fall soon and at different times; pushing back against the position never falls. */
static void the_toy_terminates_and_can_be_learned(void **state)
{
    struct env_result result;
    struct error err;
    float obs[OBS_MAX];
    env_t *env = open_env("toy-episodic:200", 3);
    int fell = 0, shortest = 1000, longest = 0;

    assert_true(env_spec(env)->terminates);
    for (int episode = 0; episode < 50; episode++) {
        int steps = 0;

        assert_ok(env_reset(env, obs, &err), err);
        do {
            push(env, rng_float(test_rng()) * 2 - 1, rng_float(test_rng()) * 2 - 1, obs, &result);
            steps++;
        } while (env_steps(env) >= 0);
        assert_true(result.terminated != result.truncated);
        fell += result.terminated;
        shortest = steps < shortest ? steps : shortest;
        longest = steps > longest ? steps : longest;
        if (result.terminated)
            assert_true(result.reward == 0);
    }
    assert_in_range(fell, 45, 50);
    assert_true(shortest < 20 && longest > shortest + 5);

    for (int episode = 0; episode < 10; episode++) {
        double total = 0;

        assert_ok(env_reset(env, obs, &err), err);
        do {
            push(env, fmaxf(-1, fminf(1, -2 * obs[0] - 4 * obs[2])),
                 fmaxf(-1, fminf(1, -2 * obs[1] - 4 * obs[3])), obs, &result);
            total += result.reward;
        } while (env_steps(env) >= 0);
        assert_true(result.truncated);
        assert_true(total > 180);
    }
    env_close(&env);
    (void)state;
}

static void a_bad_action_changes_nothing(void **state)
{
    static const float bad[][2] = {{NAN, 0}, {0, INFINITY}, {1.0001f, 0}, {0, -1.5f}};
    struct env_result result;
    struct error err;
    float obs[OBS_MAX], again[OBS_MAX];
    env_t *env = open_env("toy", 1);

    (void)state;
    assert_ok(env_reset(env, obs, &err), err);
    for (size_t i = 0; i < TD_LEN(bad); i++) {
        assert_int_equal(env_step(env, bad[i], obs, &result, &err), TD_EINVAL);
        assert_non_null(strstr(err.text, "outside [-1, 1]"));
        assert_int_equal(env_steps(env), 0);
        env_observe(env, again);
        assert_memory_equal(obs, again, 4 * sizeof(float));
    }
    push(env, 1, -1, obs, &result);
    env_close(&env);
}

static void damaged_and_foreign_states_are_refused(void **state)
{
    struct env_result result;
    struct error err;
    float obs[OBS_MAX], before[OBS_MAX];
    env_t *env = open_env("toy:20", 1), *other = open_env("toy:21", 1);
    size_t size = env_state_size(env);
    char *bytes = malloc(size + 1);

    (void)state;
    assert_non_null(bytes);
    assert_ok(env_reset(env, obs, &err), err);
    push(env, 1, 0, obs, &result);
    env_state_get(env, bytes);
    push(env, 1, 0, before, &result);

    assert_int_equal(env_state_set(other, bytes, size, &err), TD_EFOREIGN);
    assert_non_null(strstr(err.text, "toy:20"));
    for (size_t cut = 0; cut < size; cut += cut < 128 ? 1 : 97)
        assert_int_not_equal(env_state_set(env, bytes, cut, &err), TD_OK);
    assert_int_equal(env_state_set(env, bytes, size + 1, &err), TD_ECORRUPT);
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= 0x20;
        assert_int_not_equal(env_state_set(env, bytes, size, &err), TD_OK);
        bytes[at] ^= 0x20;
    }
    /* Nothing of all that had an effect; the whole state goes back one step. */
    env_observe(env, obs);
    assert_memory_equal(obs, before, 4 * sizeof(float));
    assert_int_equal(env_steps(env), 2);
    assert_ok(env_state_set(env, bytes, size, &err), err);
    assert_int_equal(env_steps(env), 1);
    push(env, 1, 0, obs, &result);
    assert_memory_equal(obs, before, 4 * sizeof(float));
    free(bytes);
    env_close(&env);
    env_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_are_found_without_opening_anything),
        cmocka_unit_test(unknown_tasks_name_the_nearest_and_the_list),
        cmocka_unit_test(the_time_limit_truncates),
        cmocka_unit_test(the_toy_terminates_and_can_be_learned),
        cmocka_unit_test(a_bad_action_changes_nothing),
        cmocka_unit_test(damaged_and_foreign_states_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
