/* The table of environments: names, steps, limits, saved states and what bad input gets. */
#include "common/env/bridge.h"
#include "common/env/env.h"
#include "common/env/tasks.h"

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
    int native = 0;

    (void)state;
    assert_null(env_task_name(env_task_count()));
    for (int i = 0; i < env_task_count(); i++) {
        struct bridge_task bridged;

        assert_ok(env_find(env_task_name(i), &spec, &err), err);
        assert_string_equal(spec.task, env_task_name(i));
        native += !bridge_task_find(env_task_name(i), &bridged);
        if (bridge_task_find(env_task_name(i), &bridged))
            continue;
        assert_int_equal(spec.obs_type, ENV_OBS_STATE);
        assert_int_equal(spec.episode_length, 500);
        assert_int_equal(spec.action_repeat, 2);
        assert_true(spec.exact_state);
        assert_false(spec.terminates);
    }
    assert_int_equal(native, 56); /* 39 of the paper's 104, and 17 more */
    assert_ok(env_find("walker-run", &spec, &err), err);
    assert_int_equal(spec.obs_dim, 24);
    assert_int_equal(spec.action_dim, 6);
}

/* Several seen as one: the widest sizes, the longest episode, environment steps in the mean. */
static void several_tasks_are_as_wide_as_the_widest(void **state)
{
    struct env_spec specs[3], wide;
    struct config config;
    struct task_set set;
    struct error err;

    (void)state;
    config_init(&config);
    snprintf(config.tasks, sizeof(config.tasks), "toy-copy:700,walker-walk,reacher-easy");
    assert_ok(env_task_set(&set, &config, &err), err);
    assert_ok(env_task_specs(specs, &wide, &set, &config, &err), err);
    assert_true(wide.obs_dim == 24 && wide.action_dim == 6 && wide.episode_length == 700);
    assert_true(specs[0].action_repeat == 1 && specs[1].action_repeat == 2 && specs[2].action_repeat == 2);
    assert_float_equal(env_mean_repeat(specs, 3), 5.0 / 3, 1e-12);
    assert_float_equal(env_mean_repeat(specs + 1, 2), 2, 0);
    set.task[1].obs_dim = 23;
    assert_int_equal(env_task_specs(specs, &wide, &set, &config, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "walker-walk has 24 observations and 6 actions here, 23 and 6 are written down"));
    task_set_release(&set);
}

static void tasks_are_described(void **state)
{
    struct env_about about;

    (void)state;
    for (int i = 0; i < env_task_count(); i++) {
        env_describe(env_task_name(i), &about);
        assert_non_null(about.suite);
        assert_non_null(about.domain);
        assert_int_equal(about.available, about.why.code == TD_OK);
        if (!about.available)
            assert_non_null(strchr(about.why.text, '`')); /* the command to type: what sets it up, or names the download */
    }
    env_describe("walker-backflip", &about);
    assert_string_equal(about.suite, "DMControl");
    assert_string_equal(about.domain, "walker");
    assert_non_null(about.note);
    assert_true(about.available);
    env_describe("dog-run", &about);
    assert_string_equal(about.domain, "dog");
    assert_null(about.note);
    env_describe("toy", &about);
    assert_true(about.available);
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
        assert_non_null(strstr(err.text, "`tdmpc2 env list` names all"));
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

/* --- frames -------------------------------------------------------------------------------- */

static const struct env_options rgb = {.obs_type = ENV_OBS_RGB};

/* The disc, brighter than anything else, is where the state says. */
/* The answer that is wanted earns the most there is, each step; the other toy's earns less. */
static void the_toys_to_learn_together_have_known_optima(void **state)
{
    static const struct { const char *task; uint32_t width; float sign; } toys[] = {{"toy-copy:7", 2, 1}, {"toy-oppose:7", 1, -1}};

    (void)state;
    for (size_t i = 0; i < TD_LEN(toys); i++)
        for (int right = 0; right < 2; right++) {
            env_t *env = open_env(toys[i].task, 3);
            float obs[2], next[2], action[2];
            struct env_result result = {0};
            struct error err = {0};
            double sum = 0;
            int steps = 0;

            assert_true(env_spec(env)->obs_dim == toys[i].width && env_spec(env)->action_dim == toys[i].width);
            assert_ok(env_reset(env, obs, &err), err);
            for (; !result.truncated; steps++) {
                for (uint32_t k = 0; k < toys[i].width; k++)
                    action[k] = (right ? 1.0f : -1.0f) * toys[i].sign * obs[k];
                assert_ok(env_step(env, action, next, &result, &err), err);
                assert_memory_equal(obs, next, toys[i].width * sizeof(float));
                sum += result.reward;
            }
            assert_true(steps == 7 && !result.terminated);
            assert_true(right ? fabs(sum - 7) < 1e-6 : sum < 7 - 1e-3);
            env_close(&env);
        }
}

static void frames_show_the_toy(void **state)
{
    static uint8_t frame[3][ENV_FRAME_SIDE][ENV_FRAME_SIDE];
    env_t *drawn = NULL, *felt = open_env("toy:30", 5);
    struct env_result result, same;
    struct error err;
    float obs[OBS_MAX];

    (void)state;
    assert_ok(env_create_with(&drawn, "toy:30", &rgb, 5, &err), err);
    assert_int_equal(env_spec(drawn)->obs_type, ENV_OBS_RGB);
    assert_int_equal(env_spec(drawn)->obs_dim, sizeof(frame));
    assert_int_equal(ENV_FRAME_BYTES, sizeof(frame));
    assert_ok(env_reset(felt, obs, &err), err);
    assert_ok(env_reset(drawn, frame, &err), err);
    for (int i = 0; i < 30; i++) {
        float action[] = {i % 3 - 1.f, i % 2 - .5f};
        int column = (int)((obs[0] + 2) * 16), row = (int)((2 - obs[1]) * 16);

        for (int channel = 0; channel < 3; channel++)
            assert_true(frame[channel][row][column] > 240);
        assert_true(frame[2][0][0] < 240 || frame[2][63][63] < 240);
        assert_ok(env_step(felt, action, obs, &result, &err), err);
        assert_ok(env_step(drawn, action, frame, &same, &err), err);
        assert_true(result.reward == same.reward);
    }
    assert_true(same.truncated);
    env_close(&felt);
    env_close(&drawn);
}

/* A state set into another environment shows the frame it was taken at. */
static void frames_follow_the_state(void **state)
{
    static uint8_t frame[ENV_FRAME_BYTES], other[ENV_FRAME_BYTES];
    float action[] = {1, -1};
    env_t *a = NULL, *b = NULL;
    struct env_result result;
    struct error err;
    char bytes[8192];

    (void)state;
    assert_ok(env_create_with(&a, "toy", &rgb, 1, &err), err);
    assert_ok(env_create_with(&b, "toy", &rgb, 2, &err), err);
    assert_ok(env_reset(a, frame, &err), err);
    assert_ok(env_reset(b, other, &err), err);
    assert_memory_not_equal(frame, other, sizeof(frame));
    for (int i = 0; i < 3; i++) {
        assert_ok(env_step(a, action, frame, &result, &err), err);
        assert_true(env_state_size(a) <= sizeof(bytes));
        env_state_get(a, bytes);
        assert_ok(env_state_set(b, bytes, env_state_size(a), &err), err);
        test_poison(other, sizeof(other));
        env_observe(b, other);
        assert_memory_equal(frame, other, sizeof(frame));
    }
    env_close(&a);
    env_close(&b);
}

static void pictures_of_any_size(void **state)
{
    static const struct env_view wrong[] = {{0, 64, -1}, {64, 0, -1}, {64, 4097, -1}, {-1, 64, -1}, {64, 64, 7}};
    static uint8_t pixels[48][96][3];
    env_t *env = open_env("toy", 1);
    struct error err;
    float obs[OBS_MAX];
    int bright = 0;

    (void)state;
    assert_ok(env_reset(env, obs, &err), err);
    assert_ok(env_render(env, &(struct env_view){96, 48, -1}, pixels[0][0], &err), err);
    for (int i = 0; i < 48; i++)
        for (int j = 0; j < 96; j++)
            bright += pixels[i][j][2] > 240;
    assert_in_range(bright, 30, 100); /* of a disc of 57 pixels */
    for (size_t i = 0; i < TD_LEN(wrong); i++)
        assert_int_equal(env_render(env, &wrong[i], pixels[0][0], &err), TD_EINVAL);
    env_close(&env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_are_found_without_opening_anything),
        cmocka_unit_test(several_tasks_are_as_wide_as_the_widest),
        cmocka_unit_test(tasks_are_described),
        cmocka_unit_test(unknown_tasks_name_the_nearest_and_the_list),
        cmocka_unit_test(the_time_limit_truncates),
        cmocka_unit_test(the_toy_terminates_and_can_be_learned),
        cmocka_unit_test(a_bad_action_changes_nothing),
        cmocka_unit_test(damaged_and_foreign_states_are_refused),
        cmocka_unit_test(the_toys_to_learn_together_have_known_optima),
        cmocka_unit_test(frames_show_the_toy),
        cmocka_unit_test(frames_follow_the_state),
        cmocka_unit_test(pictures_of_any_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
