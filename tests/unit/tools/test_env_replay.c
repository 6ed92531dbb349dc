/* `tdmpc2 env replay` and `check`: what passes, what differs, what is refused. */
#include <math.h>

#include "common/ckpt/safetensors.h"
#include "common/env/env.h"
#include "tests/support/test.h"
#include "tools/env.h"

#define EPISODES 2
#define STEPS    9
#define OBS      4
#define ACTION   2

/* A recording of the toy, to be altered. */
struct recording {
    float action[EPISODES][STEPS][ACTION];
    float obs[EPISODES][STEPS + 1][OBS];
    double reward[EPISODES][STEPS];
    const char *task, *seed, *obs_type;
    uint64_t action_dims, action_shape[3], steps;
};

static struct recording good;

static int make_recording(void **state)
{
    struct env_result result;
    struct error err;
    env_t *env;

    (void)state;
    good.task = "toy:9";
    good.seed = "42";
    good.action_dims = 3;
    good.action_shape[0] = EPISODES;
    good.action_shape[1] = good.steps = STEPS;
    good.action_shape[2] = ACTION;
    assert_ok(env_create(&env, good.task, 42, &err), err);
    for (int i = 0; i < EPISODES; i++) {
        rng_uniform(test_rng(), good.action[i][0], STEPS * ACTION, -1, 1);
        assert_ok(env_reset(env, good.obs[i][0], &err), err);
        for (int j = 0; j < STEPS; j++) {
            assert_ok(env_step(env, good.action[i][j], good.obs[i][j + 1], &result, &err), err);
            good.reward[i][j] = result.reward;
        }
    }
    env_close(&env);
    return 0;
}

/* Write it, replay it; the sentence is in err. */
static int replay(const struct recording *recording, bool exact, struct error *err)
{
    const struct safetensors_tensor tensors[] = {
        {.name = "action", .type = SAFETENSORS_F32, .dims = (int)recording->action_dims,
         .shape = {recording->action_shape[0], recording->action_shape[1], recording->action_shape[2]},
         .data = recording->action},
        {.name = "obs", .type = SAFETENSORS_F32, .dims = 3,
         .shape = {EPISODES, recording->steps + 1, OBS}, .data = recording->obs},
        {.name = "reward", .type = SAFETENSORS_F64, .dims = 2, .shape = {EPISODES, recording->steps},
         .data = recording->reward},
    };
    struct safetensors_note notes[3];
    char path[300], printed[1000] = "";
    FILE *out = fmemopen(printed, sizeof(printed), "w");
    int count = 0, rc;

    if (recording->task != NULL)
        notes[count++] = (struct safetensors_note){"task", recording->task};
    if (recording->seed != NULL)
        notes[count++] = (struct safetensors_note){"seed", recording->seed};
    if (recording->obs_type != NULL)
        notes[count++] = (struct safetensors_note){"obs", recording->obs_type};
    snprintf(path, sizeof(path), "%s/toy.safetensors", test_folder());
    assert_ok(safetensors_write(path, tensors, 3, notes, count, NULL, NULL, err), *err);
    assert_non_null(out);
    rc = env_replay_file(path, exact ? ENV_REPLAY_EXACT : ENV_REPLAY_STEP, ENV_DRAW_EXACT, out, err);
    fclose(out);
    if (rc == TD_OK)
        assert_non_null(strstr(printed, "ok     toy:9"));
    if (rc == TD_EAGAIN)
        assert_non_null(strstr(printed, "DIFFER toy:9"));
    return rc;
}

static void what_was_recorded_passes(void **state)
{
    struct recording same = good;
    struct error err;

    (void)state;
    assert_ok(replay(&same, true, &err), err);
    same.obs_type = "state";
    assert_ok(replay(&same, true, &err), err);
    same.reward[1][STEPS - 1] += 0.9e-9;
    assert_ok(replay(&same, true, &err), err);
}

static void any_difference_is_seen(void **state)
{
    struct error err;

    (void)state;
    for (int i = 0; i < EPISODES; i++)
        for (int j = 0; j <= STEPS; j++)
            for (int k = 0; k < OBS; k++) {
                struct recording other = good;

                other.obs[i][j][k] = nextafterf(other.obs[i][j][k], 10);
                assert_int_equal(replay(&other, true, &err), TD_EAGAIN);
                other.obs[i][j][k] = NAN;
                assert_int_equal(replay(&other, true, &err), TD_EAGAIN);
            }
    for (int i = 0; i < EPISODES; i++)
        for (int j = 0; j < STEPS; j++) {
            struct recording other = good;

            other.reward[i][j] -= 2e-9;
            assert_int_equal(replay(&other, true, &err), TD_EAGAIN);
            other.reward[i][j] = NAN;
            assert_int_equal(replay(&other, true, &err), TD_EAGAIN);
        }
}

static void another_seed_or_action_differs(void **state)
{
    struct recording other = good;
    struct error err;

    (void)state;
    other.seed = "43";
    assert_int_equal(replay(&other, true, &err), TD_EAGAIN);
    other = good;
    other.action[1][3][0] = -other.action[1][3][0];
    assert_int_equal(replay(&other, true, &err), TD_EAGAIN);
}

/* Where bits can't be equal, the reset and the first step are judged, within 1e-6. */
static void one_step_is_judged_on_other_machines(void **state)
{
    struct recording other = good;
    struct error err;

    (void)state;
    other.obs[1][0][0] += 5e-7f;
    other.obs[1][1][1] += 5e-7f;
    other.obs[0][5][0] += 1;
    assert_ok(replay(&other, false, &err), err);
    other.obs[1][1][1] += 5e-6f;
    assert_int_equal(replay(&other, false, &err), TD_EAGAIN);
    other = good;
    other.reward[0][0] += 1e-5;
    assert_int_equal(replay(&other, false, &err), TD_EAGAIN);
}

static void assert_refused(const struct recording *recording, const char *why)
{
    struct error err = {0};
    int rc = replay(recording, true, &err);

    assert_int_equal(error_exit_code(rc), TD_EXIT_BAD_INPUT);
    if (strstr(err.text, why) == NULL)
        fail_msg("'%s' does not say '%s'", err.text, why);
    assert_non_null(strstr(err.text, "toy.safetensors"));
}

static void unusable_files_say_why(void **state)
{
    static const char *const seeds[] = {"", "-1", "4294967296", "1.5", "x", "99999999999999999999"};
    struct recording bad = good;

    (void)state;
    bad.task = NULL;
    assert_refused(&bad, "names no task");
    bad.task = "humanoid-fly";
    assert_refused(&bad, "'humanoid-fly' is unknown");
    bad = good;
    bad.obs_type = "depth";
    assert_refused(&bad, "obs=depth");
    bad.obs_type = "rgb";
    assert_refused(&bad, "obs");
    bad = good;
    bad.seed = NULL;
    assert_refused(&bad, "no seed");
    for (size_t i = 0; i < TD_LEN(seeds); i++) {
        bad.seed = seeds[i];
        assert_refused(&bad, "not an integer");
    }
    bad = good;
    bad.task = "toy:8";
    assert_refused(&bad, "ends after 8");
    bad = good;
    bad.action_shape[2] = 1;
    assert_refused(&bad, "`action`");
    bad = good;
    bad.action_dims = 2;
    assert_refused(&bad, "`action`");
    bad = good;
    bad.action_shape[1] = STEPS - 1;
    assert_refused(&bad, "obs");
}

static void an_impossible_action_is_refused(void **state)
{
    struct recording bad = good;
    struct error err = {0};

    (void)state;
    bad.action[0][4][1] = 1.5f;
    assert_int_equal(replay(&bad, true, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "outside [-1, 1]"));
}

/* The check of a task as a person runs it, on the cheap ones. */
static void tasks_pass_their_check(void **state)
{
    static const char *const tasks[] = {"toy", "toy-episodic:30", "toy:1", "cartpole-swingup", "toy:9"};

    (void)state;
    for (size_t i = 0; i < TD_LEN(tasks); i++) {
        char *printed = NULL;
        size_t size;
        FILE *out = open_memstream(&printed, &size);
        struct env_options options = {.obs_type = i == 4 ? ENV_OBS_RGB : ENV_OBS_STATE};
        struct error err = {0};

        assert_non_null(out);
        assert_ok(env_check_task(tasks[i], &options, out, NULL, &err), err);
        fclose(out);
        assert_null(strstr(printed, "FAILED"));
        assert_non_null(strstr(printed, "steps per second"));
        free(printed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_recorded_passes),
        cmocka_unit_test(any_difference_is_seen),
        cmocka_unit_test(another_seed_or_action_differs),
        cmocka_unit_test(one_step_is_judged_on_other_machines),
        cmocka_unit_test(unusable_files_say_why),
        cmocka_unit_test(an_impossible_action_is_refused),
        cmocka_unit_test(tasks_pass_their_check),
    };

    return cmocka_run_group_tests(tests, make_recording, NULL);
}
