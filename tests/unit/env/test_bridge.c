/* The bridge: good environments in Python, and everything that can go wrong with bad ones. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/env/bridge.h"
#include "common/env/bridge_link.h"
#include "common/util/clock.h"
#include "common/util/log.h"
#include "tests/support/processes.h"
#include "tests/support/test.h"

#define TOY(name) "python:tests/support/python/toys.py:" name

static env_t *make(const char *task, uint32_t seed)
{
    struct error err = {0};
    env_t *env;

    assert_ok(env_create(&env, task, seed, &err), err);
    return env;
}

static bool alive(int pid)
{
    return kill(pid, 0) == 0 || errno != ESRCH;
}

static const float middle[2] = {0.25f, -0.5f};

/* Steps until the episode ends or is lost; *rc says how. */
static int run_episode(env_t *env, int *rc, struct env_result *result, struct error *err)
{
    float obs[3];
    int steps = 0;

    memset(result, 0, sizeof(*result));
    *rc = env_reset(env, obs, err);
    while (*rc == TD_OK && !result->terminated && !result->truncated)
        if ((*rc = env_step(env, middle, obs, result, err)) == TD_OK)
            steps++;
    return steps;
}

static void a_good_one_steps_and_maps_its_actions(void **state)
{
    env_t *env = make(TOY("Good"), 3);
    const struct env_spec *spec = env_spec(env);
    struct env_result result = {0};
    struct error err = {0};
    float obs[3], next[3], edge[2] = {1, -1};

    (void)state;
    assert_int_equal(spec->obs_dim, 3);
    assert_int_equal(spec->action_dim, 2);
    assert_int_equal(spec->episode_length, 20);
    assert_true(spec->exact_state);
    assert_ok(env_reset(env, obs, &err), err);
    assert_ok(env_step(env, middle, next, &result, &err), err);
    /* the box is [-2, 2] x [0, 1]: 0.25 becomes 0.5, -0.5 becomes 0.25 */
    assert_float_equal(next[0], 0.9f * obs[0] + 0.05f, 1e-6);
    assert_float_equal(next[1], 0.9f * obs[1] + 0.025f, 1e-6);
    assert_float_equal(result.reward, 1 - fabsf(next[0]), 1e-6);
    assert_true(result.success == (fabsf(next[0]) < 0.1f));
    assert_ok(env_step(env, edge, next, &result, &err), err); /* the toy asserts that it is in the box */
    for (int i = 2; i < 20; i++) {
        assert_false(result.truncated);
        assert_ok(env_step(env, middle, next, &result, &err), err);
    }
    assert_true(result.truncated);
    assert_false(result.terminated);
    env_close(&env);
}

static void seeds_name_sequences_of_episodes(void **state)
{
    env_t *a = make(TOY("Good"), 3), *b = make(TOY("Good"), 3), *c = make(TOY("Good"), 4);
    float x[3], y[3], z[3], first[3];
    struct error err = {0};

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_ok(env_reset(a, x, &err), err);
        assert_ok(env_reset(b, y, &err), err);
        assert_ok(env_reset(c, z, &err), err);
        assert_memory_equal(x, y, sizeof(x));
        assert_memory_not_equal(x, z, sizeof(x));
        if (i == 0)
            memcpy(first, x, sizeof(x));
        else
            assert_memory_not_equal(first, x, sizeof(x)); /* the stream goes on */
    }
    env_close(&a);
    env_close(&b);
    env_close(&c);
}

static void saved_state_continues(const char *task)
{
    env_t *a = make(task, 3), *b = make(task, 99);
    size_t size = env_state_size(a);
    unsigned char *bytes = malloc(size);
    float x[3], y[3];
    struct env_result result;
    struct error err = {0};

    assert_true(env_spec(a)->exact_state);
    for (int moment = 0; moment < 3; moment++) { /* before the first reset, within an episode, again */
        if (moment == 2) { /* into one that has not begun */
            env_close(&b);
            b = make(task, 98);
        }
        env_state_get(a, bytes);
        assert_ok(env_state_set(b, bytes, size, &err), err);
        for (int i = 0; i < 7; i++) {
            if (env_steps(a) < 0) {
                assert_ok(env_reset(a, x, &err), err);
                assert_ok(env_reset(b, y, &err), err);
            } else {
                assert_ok(env_step(a, middle, x, &result, &err), err);
                assert_ok(env_step(b, middle, y, &result, &err), err);
            }
            assert_memory_equal(x, y, sizeof(x));
        }
    }
    bytes[size - 1] ^= 1;
    assert_int_equal(env_state_set(b, bytes, size, &err), TD_ECORRUPT);
    free(bytes);
    env_close(&a);
    env_close(&b);
}

static void a_saved_state_continues_elsewhere(void **state)
{
    (void)state;
    saved_state_continues(TOY("Good"));
    saved_state_continues(TOY("LateFields"));
    saved_state_continues(TOY("Wrapped"));
}

/* It says why in the log; what it left is refused. */
static void a_state_that_cannot_be_had_is_explained(void **state)
{
    static const char *const tasks[] = {TOY("BadState"), TOY("TextState")};
    static const char *const why[] = {"KeyError: 'no 'state' today'", "TypeError: get_state returned str, not bytes"};

    (void)state;
    for (size_t i = 0; i < TD_LEN(tasks); i++) {
        env_t *env = make(tasks[i], 1);
        size_t size = env_state_size(env);
        unsigned char *bytes = malloc(size);
        char said[4096];
        struct error err = {0};
        float obs[3];
        int pipes[2];
        ssize_t got;

        assert_ok(env_reset(env, obs, &err), err);
        assert_int_equal(pipe(pipes), 0);
        log_set_level(LOG_ERROR);
        log_init("tdmpc2", -1, 0, pipes[1]);
        env_state_get(env, bytes);
        log_init("tdmpc2", -1, 0, STDERR_FILENO);
        log_set_level(LOG_INFO);
        got = read(pipes[0], said, sizeof(said) - 1);
        said[got > 0 ? got : 0] = '\0';
        if (strstr(said, why[i]) == NULL)
            fail_msg("%s: %s", tasks[i], said);
        assert_int_equal(env_state_set(env, bytes, size, &err), TD_ECORRUPT);
        assert_non_null(strstr(err.text, "its get_state failed"));
        close(pipes[0]);
        close(pipes[1]);
        free(bytes);
        env_close(&env);
    }
}

static void a_file_may_have_the_name_of_a_module(void **state)
{
    env_t *env = make("python:tests/support/python/shadow/random.py:Shadow", 1);
    struct error err = {0};
    float obs[2];

    (void)state;
    assert_ok(env_reset(env, obs, &err), err);
    assert_true(obs[0] > 0 && obs[0] < 1);
    env_close(&env);
}

struct fault {
    const char *task, *says;
};

#define SILENT "did not answer within" /* found by the deadline, and by nothing else */

/* What the toys' own children are told: the word to find them by, and nobody else's. */
static const char *sleeper(void)
{
    static char word[32];

    snprintf(word, sizeof(word), "31536000.%d", (int)getpid());
    setenv("TOY_SLEEP", word, 1);
    return word;
}

/* Each goes wrong at its fifth step: it is lost, explained, and the next reset brings a new process. */
static void faults_are_noticed_and_survived(void **state)
{
    static const struct fault faults[] = {
        {TOY("Sleep"), SILENT},
        {TOY("HoldsGil"), SILENT},
        {TOY("Exit"), "exit code 7; it said: 'going away'"},
        {TOY("Abort"), "signal 6 (Aborted); it said: 'Fatal Python error: Aborted'"},
        {TOY("Raise"), "raised RuntimeError: the robot fell over (toys.py line"},
        {TOY("NanObs"), "component 1 of the observation is nan"},
        {TOY("InfReward"), "the reward is inf"},
        {TOY("BadShape"), "the observation has 2 numbers, its space 3"},
        {TOY("BadType"), "ValueError"},
        {TOY("BadReward"), "TypeError"},
        {TOY("TextReward"), "the reward is '1.0', not a number"},
        {TOY("HugeReward"), "the reward is 1e+300, beyond a float32"},
        {TOY("Colours"), "exit code 9; it said: 'the 'motor' is hot'"},
        {TOY("BadFlag"), "terminated is 'no', not a truth value"},
        {TOY("FourValues"), "step returned 4 values"},
        {TOY("Garbage"), "no message"},
        {TOY("WrongMessage"), "no message"},
        {TOY("HalfMessage"), SILENT},
        {TOY("ClosesSocket"), "the environment's process"},
        {TOY("Children"), "exit code 7"},
    };
    const char *word = sleeper();

    (void)state;
    for (size_t i = 0; i < TD_LEN(faults); i++) {
        bool silent = strcmp(faults[i].says, SILENT) == 0;
        struct error err = {0};
        struct env_result result;
        uint64_t begun;
        int rc, steps, pid;
        env_t *env;

        setenv("TDMPC2_ENV_TIMEOUT", silent ? "1.5" : "60", 1);
        env = make(faults[i].task, 1);
        pid = bridge_env_pid(env);
        begun = clock_ms();
        steps = run_episode(env, &rc, &result, &err);
        /* on a busy machine an innocent step may be later than the short deadline */
        if (rc != TD_ELOST || steps > 4 || (steps < 4 && !silent) || strstr(err.text, faults[i].says) == NULL)
            fail_msg("%s: after %d steps %d: %s", faults[i].task, steps, rc, err.text);
        assert_true(clock_ms() - begun < 20000);
        assert_non_null(strstr(err.text, faults[i].task));
        assert_int_equal(env_steps(env), -1);
        assert_int_equal(bridge_env_pid(env), 0);
        assert_false(alive(pid));
        if (i % 4 == 0) { /* starting takes long on a busy machine */
            steps = run_episode(env, &rc, &result, &err);
            assert_true(steps == 4 || (steps < 4 && silent));
            assert_int_equal(rc, TD_ELOST);
        }
        env_close(&env);
        for (int left = 1000; processes_with(word) > 0; left--, usleep(10000))
            assert_int_not_equal(left, 0);
    }
    unsetenv("TOY_SLEEP");
    unsetenv("TDMPC2_ENV_TIMEOUT");
}

/* kill -9 from outside; the new process plays other episodes than the old one. */
static void a_killed_process_is_replaced(void **state)
{
    env_t *env = make(TOY("Good"), 5);
    float first[3], obs[3];
    struct env_result result;
    struct error err = {0};
    int pid = bridge_env_pid(env);

    (void)state;
    assert_ok(env_reset(env, first, &err), err);
    kill(pid, SIGKILL);
    assert_int_equal(env_step(env, middle, obs, &result, &err), TD_ELOST);
    assert_non_null(strstr(err.text, "signal 9"));
    assert_ok(env_reset(env, obs, &err), err);
    assert_int_not_equal(bridge_env_pid(env), pid);
    assert_memory_not_equal(obs, first, sizeof(obs));
    assert_ok(env_step(env, middle, obs, &result, &err), err);
    kill(bridge_env_pid(env), SIGKILL);
    assert_int_equal(env_reset(env, obs, &err), TD_ELOST); /* between two episodes: the same */
    assert_ok(env_reset(env, obs, &err), err);
    env_close(&env);
}

static void numbers_come_in_many_kinds(void **state)
{
    env_t *plain = make(TOY("Good"), 1), *scalars = make(TOY("Scalars"), 1), *odd = make(TOY("OddSuccess"), 1);
    struct env_result expected, result;
    struct error err = {0};
    float obs[3];

    (void)state;
    assert_ok(env_reset(plain, obs, &err), err);
    assert_ok(env_reset(scalars, obs, &err), err);
    assert_ok(env_reset(odd, obs, &err), err);
    for (int i = 0; i < 20; i++) {
        assert_ok(env_step(plain, middle, obs, &expected, &err), err);
        assert_ok(env_step(scalars, middle, obs, &result, &err), err);
        assert_memory_equal(&result, &expected, sizeof(result));
        assert_ok(env_step(odd, middle, obs, &result, &err), err);
        assert_true(result.reward == expected.reward);
        assert_true(!result.success);
    }
    env_close(&plain);
    env_close(&scalars);
    env_close(&odd);
}

static void await_nothing_left(pid_t owner, const char *its_children)
{
    char word[64];

    snprintf(word, sizeof(word), "run.py 3 %d ", (int)owner);
    for (int left = 1000; processes_with(its_children) + processes_with(word) > 0; left--, usleep(10000))
        assert_int_not_equal(left, 0);
}

/* The process is killed, or closed in order, or its owner is killed: nothing is left of its session. */
static void what_an_environment_started_ends_with_it(void **state)
{
    const char *word = sleeper();
    pid_t owner;
    env_t *env;
    int status;

    (void)state;
    env = make(TOY("Leaves"), 1);
    for (int left = 1000; processes_with(word) != 1; left--, usleep(10000)) /* it has no words before its exec is over */
        assert_int_not_equal(left, 0);
    kill(bridge_env_pid(env), SIGKILL);
    await_nothing_left(getpid(), word);
    env_close(&env);
    env = make(TOY("Leaves"), 1);
    env_close(&env);
    await_nothing_left(getpid(), word);
    if ((owner = fork()) == 0) {
        make(TOY("Leaves"), 1);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(owner, &status, 0), owner);
    assert_true(WIFSIGNALED(status));
    await_nothing_left(owner, word);
    unsetenv("TOY_SLEEP");
}

static void printing_is_no_fault(void **state)
{
    env_t *env = make(TOY("Prints"), 1);
    struct env_result result;
    struct error err = {0};
    int rc;

    (void)state;
    log_set_level(LOG_ERROR);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(run_episode(env, &rc, &result, &err), 20);
        assert_ok(rc, err);
    }
    env_close(&env);
    log_set_level(LOG_INFO);
}

static void terminations_and_truncations_are_kept_apart(void **state)
{
    env_t *env = make(TOY("Ends"), 1);
    struct env_result result;
    struct error err = {0};
    int rc;

    (void)state;
    assert_false(env_spec(env)->exact_state);
    assert_int_equal(env_state_size(env), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(run_episode(env, &rc, &result, &err), i % 2 == 0 ? 3 : 4);
        assert_ok(rc, err);
        assert_true(result.terminated == (i % 2 == 0));
        assert_true(result.truncated == (i % 2 == 1));
    }
    env_close(&env);
}

static void what_cannot_be_used_is_refused_in_a_sentence(void **state)
{
    static const struct {
        const char *task;
        int code;
        const char *says;
    } wrong[] = {
        {TOY("Discrete"), TD_EINVAL, "continuous"},
        {TOY("Unbounded"), TD_EINVAL, "component 0 of the action box is [-inf, inf]"},
        {TOY("OnePoint"), TD_EINVAL, "component 1 of the action box is [1, 1]: low must be below high"},
        {TOY("Integers"), TD_EINVAL, "a Box of int32: TD-MPC2 plans continuous actions"},
        {TOY("EndlessLimit"), TD_EINVAL, "max_episode_steps is inf, not a number of steps"},
        {TOY("TextLimit"), TD_EINVAL, "max_episode_steps is 'x', not a number of steps"},
        {TOY("OldMethods"), TD_EINVAL, "no method step"},
        {TOY("Nothing"), TD_EINVAL, "has no class or function Nothing"},
        {TOY("FailsToStart"), TD_ELOST, "OSError: no robot is connected"},
        {"python:tests/support/python/none.py:Good", TD_EINVAL, "there is no file"},
        {"python:no_such_module:Good", TD_ESETUP, "TDMPC2_PYTHON"},
        {"python:Good", TD_ENOTFOUND, "'python:Good' is no whole name: python:MODULE:CLASS"},
        {"python::", TD_ENOTFOUND, "python:MODULE:CLASS"},
        {"python:a:", TD_ENOTFOUND, "python:MODULE:CLASS"},
        {"python::Good", TD_ENOTFOUND, "python:MODULE:CLASS"},
        {"gym:", TD_ENOTFOUND, "gym:ID or gym:MODULE:ID"},
        {"gym::", TD_ENOTFOUND, "gym:ID or gym:MODULE:ID"},
        {"gym:::", TD_ENOTFOUND, "'gym:::' is no whole name: gym:ID or gym:MODULE:ID"},
        {"gym:a:", TD_ENOTFOUND, "gym:ID or gym:MODULE:ID"},
        {"gym::a", TD_ENOTFOUND, "gym:ID or gym:MODULE:ID"},
        {"gym:a:b:c", TD_ENOTFOUND, "gym:ID or gym:MODULE:ID"},
        {"gym:a\n:", TD_ENOTFOUND, "'gym:a?:' is no whole name"},
        {"python:", TD_ENOTFOUND, "python:MODULE:CLASS"},
        {"mw-", TD_ENOTFOUND, "as mw-reach"},
        {"walker\nwalk", TD_ENOTFOUND, "'walker?walk': did you mean walker-walk"},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(wrong); i++) {
        struct error err = {0};
        struct env_spec spec;
        int rc = env_find(wrong[i].task, &spec, &err);

        if (rc != wrong[i].code || strstr(err.text, wrong[i].says) == NULL || strchr(err.text, '\n') != NULL)
            fail_msg("%s: %d %s", wrong[i].task, rc, err.text);
    }
}

static void a_bad_reset_is_lost(void **state)
{
    env_t *env = make(TOY("BadReset"), 1);
    struct error err = {0};
    float obs[3];

    (void)state;
    assert_int_equal(env_reset(env, obs, &err), TD_ELOST);
    assert_non_null(strstr(err.text, "reset did not return"));
    assert_int_equal(env_reset(env, obs, &err), TD_ELOST);
    env_close(&env);
}

static void missing_interpreters_and_suites_say_what_to_run(void **state)
{
    struct error err = {0};
    struct env_spec spec;
    env_t *env;

    (void)state;
    setenv("TDMPC2_SUITES", "/nonexistent", 1);
    assert_int_equal(env_create(&env, "mw-reach", 1, &err), TD_ESETUP);
    assert_non_null(strstr(err.text, "make setup-metaworld"));
    assert_int_equal(env_create(&env, "myo-pose-hard", 1, &err), TD_ESETUP);
    assert_non_null(strstr(err.text, "make setup-myosuite"));
    assert_int_equal(env_create(&env, "pick-ycb", 1, &err), TD_ESETUP);
    assert_non_null(strstr(err.text, "make setup-maniskill"));
    unsetenv("VIRTUAL_ENV");
    assert_int_equal(env_find("gym:Pendulum-v1", &spec, &err), TD_ESETUP);
    assert_non_null(strstr(err.text, "make setup-gym"));
    setenv("TDMPC2_PYTHON", "/nonexistent/python", 1);
    assert_int_equal(env_find("gym:Pendulum-v1", &spec, &err), TD_ESETUP);
    assert_non_null(strstr(err.text, "cannot start /nonexistent/python: No such file or directory: name another with TDMPC2_PYTHON"));
    setenv("TDMPC2_PYTHON", "/bin/true", 1); /* starts, and says nothing */
    for (int i = 0; i < 20; i++) { /* it may end before it is asked, or after */
        assert_int_equal(env_find("gym:Pendulum-v1", &spec, &err), TD_ELOST);
        assert_non_null(strstr(err.text, "exit code 0 without a word (is /bin/true a Python 3 that works?)"));
    }
    unsetenv("TDMPC2_PYTHON");
    unsetenv("TDMPC2_SUITES");
}

static void deadlines_come_from_the_environment(void **state)
{
    (void)state;
    assert_int_equal(env_timeout_ms(), 60001);
    assert_int_equal(env_start_timeout_ms(), 120002);
    setenv("TDMPC2_ENV_TIMEOUT", "2", 1); /* starting takes long whatever a step takes */
    assert_int_equal(env_timeout_ms(), 2001);
    assert_int_equal(env_start_timeout_ms(), 20000);
    setenv("TDMPC2_ENV_TIMEOUT", "600", 1);
    assert_int_equal(env_start_timeout_ms(), 1200002);
    setenv("TDMPC2_ENV_TIMEOUT", "nonsense", 1);
    assert_int_equal(env_timeout_ms(), 60001);
    unsetenv("TDMPC2_ENV_TIMEOUT");
}

static void the_suites_have_their_tasks(void **state)
{
    static const struct {
        const char *task;
        unsigned obs, action, limit, repeat;
    } facts[] = {{"mw-reach", 39, 4, 100, 2},        {"myo-pen-twirl-hard", 83, 39, 100, 1},
                 {"stack-cube", 55, 4, 100, 2},      {"turn-faucet", 40, 7, 100, 2},
                 {"mujoco-halfcheetah", 17, 6, 1000, 1}, {"bipedal-walker", 24, 4, 1600, 1},
                 {"lunarlander-continuous", 8, 2, 500, 1}};
    int world = 0, myo = 0, all = 0;

    (void)state;
    for (size_t i = 0; i < TD_LEN(facts); i++) {
        struct env_spec spec;
        struct error err = {0};

        assert_ok(env_find(facts[i].task, &spec, &err), err);
        assert_int_equal(spec.obs_dim, facts[i].obs);
        assert_int_equal(spec.action_dim, facts[i].action);
        assert_int_equal(spec.episode_length, facts[i].limit);
        assert_int_equal(spec.action_repeat, facts[i].repeat);
        assert_false(spec.exact_state);
    }
    for (; bridge_task_name(all) != NULL; all++) {
        world += strncmp(bridge_task_name(all), "mw-", 3) == 0;
        myo += strncmp(bridge_task_name(all), "myo-", 4) == 0;
    }
    assert_int_equal(world, 50);
    assert_int_equal(myo, 10);
    assert_int_equal(all, 50 + 10 + 5 + 4);
}

/* Neither an environment that will not close nor a thread it left behind keeps its owner. */
/* --- pictures ------------------------------------------------------------------------------------------- */

static const struct env_options rgb = {.obs_type = ENV_OBS_RGB};

static env_t *make_painter(const char *task)
{
    struct error err = {0};
    env_t *env;

    assert_ok(env_create_with(&env, task, &rgb, 3, &err), err);
    assert_int_equal(env_spec(env)->obs_type, ENV_OBS_RGB);
    assert_int_equal(env_spec(env)->obs_dim, ENV_FRAME_BYTES);
    return env;
}

/* Pixel (x, y) of a channel is `value`. */
static void expect_pixel(const uint8_t *frame, int channel, int x, int y, int value)
{
    assert_int_equal(frame[(channel * ENV_FRAME_SIDE + y) * ENV_FRAME_SIDE + x], value);
}

/* 128 x 96 of ramps: every pixel is the mean of the 2 x 1.5 that it covers. */
static void expect_ramps(const uint8_t *frame, int step)
{
    for (int y = 0; y < ENV_FRAME_SIDE; y++)
        for (int x = 0; x < ENV_FRAME_SIDE; x++) {
            expect_pixel(frame, 0, x, y, 4 * x + 1);
            expect_pixel(frame, 1, x, y, y / 2 * 6 + (y % 2 == 0 ? 1 : 3));
            expect_pixel(frame, 2, x, y, 10 * step);
        }
}

static void pictures_are_made_64_by_64(void **state)
{
    static const char *const tasks[] = {TOY("Paints"), TOY("PaintsArrays")};
    static uint8_t frame[ENV_FRAME_BYTES], again[ENV_FRAME_BYTES], large[256 * 192 * 3];
    const struct env_view view = {256, 192, -1};
    struct env_result result = {0};
    struct error err = {0};
    env_t *env;

    (void)state;
    for (size_t i = 0; i < TD_LEN(tasks); i++) {
        if (i == 1 && system("python3 -c 'import numpy' 2>/dev/null") != 0) {
            print_message("no NumPy here: the half with arrays is left out\n");
            break;
        }
        env = make_painter(tasks[i]);
        assert_ok(env_reset(env, frame, &err), err);
        expect_ramps(frame, 0);
        for (int step = 1; step <= 3; step++) {
            assert_ok(env_step(env, middle, frame, &result, &err), err);
            expect_ramps(frame, step);
        }
        env_observe(env, again);
        assert_memory_equal(frame, again, sizeof(frame));
        assert_ok(env_render(env, &view, large, &err), err); /* twice as large as it draws */
        assert_int_equal(large[(100 * 256 + 201) * 3], 200);
        assert_int_equal(large[(101 * 256 + 201) * 3 + 1], 100);
        assert_int_equal(large[(101 * 256 + 201) * 3 + 2], 30);
        assert_ok(env_step(env, middle, frame, &result, &err), err); /* which disturbed nothing */
        expect_ramps(frame, 4);
        env_close(&env);
    }
    env = make_painter(TOY("PaintsSmall")); /* half as wide, made with render_mode="rgb_array" */
    assert_ok(env_reset(env, frame, &err), err);
    for (int x = 0; x < ENV_FRAME_SIDE; x++) {
        expect_pixel(frame, 0, x, 7, x / 2);
        expect_pixel(frame, 1, x, 7, 7);
    }
    env_close(&env);
}

/* A saved state brings its picture along, and its rewards are those of the numbers. */
static void a_saved_state_of_pictures_continues(void **state)
{
    static uint8_t frame[ENV_FRAME_BYTES], other[ENV_FRAME_BYTES];
    env_t *a = make_painter(TOY("Paints")), *b = make_painter(TOY("Paints")), *numbers = make(TOY("Paints"), 3);
    struct env_result x = {0}, y = {0};
    struct error err = {0};
    size_t size = env_state_size(a);
    char *saved = malloc(size);
    float obs[3];

    (void)state;
    assert_ok(env_reset(a, frame, &err), err);
    assert_ok(env_reset(numbers, obs, &err), err);
    for (int i = 0; i < 4; i++) {
        assert_ok(env_step(a, middle, frame, &x, &err), err);
        assert_ok(env_step(numbers, middle, obs, &y, &err), err);
        assert_true(x.reward == y.reward); /* trying to render at the start changed no episode */
    }
    env_state_get(a, saved);
    assert_ok(env_state_set(b, saved, size, &err), err);
    env_observe(b, other);
    assert_memory_equal(frame, other, sizeof(frame));
    assert_ok(env_step(a, middle, frame, &x, &err), err);
    assert_ok(env_step(b, middle, other, &y, &err), err);
    assert_memory_equal(frame, other, sizeof(frame));
    assert_true(x.reward == y.reward);
    free(saved);
    env_close(&a);
    env_close(&b);
    env_close(&numbers);
}

static void what_does_not_draw_is_refused_or_lost(void **state)
{
    static const struct { const char *task, *part; } refused[] = {
        {TOY("Good"), "Good has no method render"},
        {TOY("PaintsNothing"), "rgb_array"},
        {TOY("PaintsWindow"), "its render_mode is human"},
        {TOY("PaintsFlat"), "render() failed"},
        {TOY("PaintsBright"), "0 to 255"},
        {TOY("PaintsRagged"), "different lengths"},
        {"mw-reach", "states only"},
    };
    static uint8_t frame[ENV_FRAME_BYTES];
    const struct env_view view = {ENV_FRAME_SIDE, ENV_FRAME_SIDE, -1};
    struct env_result result = {0};
    struct error err = {0};
    env_t *env;
    float obs[3];
    int steps = 0, rc;

    (void)state;
    for (size_t i = 0; i < TD_LEN(refused); i++) {
        assert_int_equal(env_create_with(&env, refused[i].task, &rgb, 3, &err), TD_EINVAL);
        if (strstr(err.text, refused[i].part) == NULL)
            fail_msg("%s: %s", refused[i].task, err.text);
    }
    env = make_painter(TOY("StopsPainting"));
    assert_ok(env_reset(env, frame, &err), err);
    while ((rc = env_step(env, middle, frame, &result, &err)) == TD_OK)
        steps++;
    assert_int_equal(rc, TD_ELOST);
    assert_int_equal(steps, 4);
    assert_ok(env_reset(env, frame, &err), err); /* another process */
    expect_ramps(frame, 0);
    env_close(&env);
    env = make(TOY("Paints"), 3); /* opened for numbers, it is not asked to draw */
    assert_int_equal(env_render(env, &view, frame, &err), TD_EINVAL);
    assert_ok(env_reset(env, obs, &err), err);
    env_close(&env);
}

static void closing_has_an_end(void **state)
{
    static const char *const tasks[] = {TOY("SlowClose"), TOY("Thread")};

    (void)state;
    for (size_t i = 0; i < TD_LEN(tasks); i++) {
        env_t *env = make(tasks[i], 1);
        int pid = bridge_env_pid(env);
        uint64_t begun = clock_ms();

        env_close(&env);
        assert_true(clock_ms() - begun < 8000);
        assert_false(alive(pid));
    }
}

/* Wait on what env_poll names, until the answer is there. */
static int await_answer(env_t *env, float *obs, struct env_result *result, struct error *err)
{
    struct pollfd fds[ENV_POLL_MAX];
    int rc;

    while ((rc = env_finish(env, obs, result, err)) == TD_EAGAIN) {
        int count = env_poll(env, fds);

        assert_in_range(count, 1, ENV_POLL_MAX);
        assert_true(env_due_ms(env) != UINT64_MAX);
        assert_true(poll(fds, (nfds_t)count, 60000) >= 0);
    }
    assert_int_equal(env_poll(env, fds), 0);
    assert_true(env_due_ms(env) == UINT64_MAX);
    return rc;
}

/* In two halves an episode is what it is in one; with processes that come at the first reset, too. */
static void moves_in_two_halves_are_the_same(void **state)
{
    const struct env_options plain = {0};
    env_t *whole = make(TOY("Good"), 3), *halves;
    struct env_result one, two;
    struct error err = {0};
    float x[3], y[3];

    (void)state;
    assert_ok(env_create_later(&halves, TOY("Good"), &plain, 3, &err), err);
    assert_int_equal(bridge_env_pid(halves), 0);
    for (int episode = 0; episode < 2; episode++) {
        assert_ok(env_reset(whole, x, &err), err);
        assert_ok(env_reset_begin(halves, &err), err);
        assert_ok(await_answer(halves, y, NULL, &err), err);
        assert_memory_equal(x, y, sizeof(x));
        for (int t = 1; t <= 20; t++) {
            assert_ok(env_step(whole, middle, x, &one, &err), err);
            assert_ok(env_step_begin(halves, middle, &err), err);
            assert_ok(await_answer(halves, y, &two, &err), err);
            assert_memory_equal(x, y, sizeof(x));
            assert_true(one.reward == two.reward && one.success == two.success);
            assert_true(two.truncated == (t == 20) && !two.terminated);
            assert_int_equal(env_steps(halves), t == 20 ? -1 : t);
        }
    }
    assert_int_equal(env_state_size(halves), env_state_size(whole));
    env_close(&whole);
    env_close(&halves);
}

/* What lives in this process is done when it has begun. */
static void native_moves_begin_and_end_at_once(void **state)
{
    struct env_result result;
    struct pollfd fds[ENV_POLL_MAX];
    struct error err = {0};
    env_t *env = make("toy:3", 1);
    float obs[4], outside[2] = {0, 2};

    (void)state;
    assert_ok(env_reset_begin(env, &err), err);
    assert_int_equal(env_poll(env, fds), 0);
    assert_ok(env_finish(env, obs, NULL, &err), err);
    assert_int_equal(env_step_begin(env, outside, &err), TD_EINVAL);
    for (int t = 1; t <= 3; t++) {
        assert_ok(env_step_begin(env, middle, &err), err);
        assert_true(env_due_ms(env) == UINT64_MAX);
        assert_ok(env_finish(env, obs, &result, &err), err);
        assert_true(result.truncated == (t == 3));
    }
    env_close(&env);
}

/* Four that sleep 20 ms do it together: a bound that a machine doing other things keeps, too. */
static void asked_together_they_move_together(void **state)
{
    enum { MANY = 4, STEPS = 15 };
    struct env_result result;
    struct error err = {0};
    uint64_t begun, alone = 0, together = 0;
    env_t *env[MANY];
    float obs[3];

    (void)state;
    for (int i = 0; i < MANY; i++) {
        env[i] = make(TOY("Slow"), (uint32_t)i);
        assert_ok(env_reset(env[i], obs, &err), err);
    }
    for (int attempt = 0; attempt == 0 || (2 * together >= 5 * alone && attempt < 5); attempt++) {
        for (int i = 0; i < MANY; i++)
            assert_ok(env_reset(env[i], obs, &err), err);
        begun = clock_ms();
        for (int t = 0; t < STEPS; t++)
            assert_ok(env_step(env[0], middle, obs, &result, &err), err);
        alone = clock_ms() - begun;
        assert_ok(env_reset(env[0], obs, &err), err);
        begun = clock_ms();
        for (int t = 0; t < STEPS; t++) {
            for (int i = 0; i < MANY; i++)
                assert_ok(env_step_begin(env[i], middle, &err), err);
            for (int i = 0; i < MANY; i++)
                assert_ok(await_answer(env[i], obs, &result, &err), err);
        }
        together = clock_ms() - begun;
        printf("  %d steps of one: %d ms; of %d: %d ms\n", STEPS, (int)alone, MANY, (int)together);
    }
    assert_true(2 * together < 5 * alone); /* one after the other: 4 times */
    for (int i = 0; i < MANY; i++)
        env_close(&env[i]);
}

/* The step after this hangs. On a busy machine an innocent answer may be late, too: then once more. */
static void await_the_fifth_step(env_t *env)
{
    struct env_result result;
    struct error err = {0};
    int rc = TD_ELOST;
    float obs[3];

    for (int attempt = 0; attempt < 5 && rc == TD_ELOST; attempt++) {
        rc = env_reset(env, obs, &err);
        for (int t = 1; t < 5 && rc == TD_OK; t++)
            rc = env_step(env, middle, obs, &result, &err);
    }
    assert_ok(rc, err);
}

/* Nobody waits for one that hangs: not who asks, not who closes it. */
static void a_hung_one_is_asked_and_closed_without_waiting(void **state)
{
    const struct env_options plain = {0};
    struct env_result result;
    struct error err = {0};
    float obs[3];
    env_t *env;

    (void)state;
    for (int close_it = 0; close_it < 2; close_it++) {
        uint64_t begun;
        int pid;

        setenv("TDMPC2_ENV_TIMEOUT", close_it ? "600" : "1.5", 1);
        assert_ok(env_create_later(&env, TOY("Sleep"), &plain, 1, &err), err);
        assert_ok(env_reset_begin(env, &err), err);
        pid = bridge_env_pid(env);
        if (!close_it) {
            await_answer(env, obs, NULL, &err);
            await_the_fifth_step(env);
            pid = bridge_env_pid(env);
            begun = clock_ms();
            assert_ok(env_step_begin(env, middle, &err), err);
            assert_true(clock_ms() - begun < 1000);
            assert_true(env_due_ms(env) <= begun + 3000);
            assert_int_equal(env_finish(env, obs, &result, &err), TD_EAGAIN);
            clock_sleep_ms(1600);
            assert_int_equal(env_finish(env, obs, &result, &err), TD_ELOST);
            assert_non_null(strstr(err.text, "did not answer within 1.5 s"));
            assert_false(alive(pid));
            assert_ok(env_reset_begin(env, &err), err); /* another process */
            pid = bridge_env_pid(env);
        }
        begun = clock_ms();
        env_close(&env); /* it has not said what it is yet */
        assert_true(clock_ms() - begun < 5000);
        assert_false(alive(pid));
    }
    unsetenv("TDMPC2_ENV_TIMEOUT");
}

/* Created later, it fails later, in the same words. */
static void what_fails_later_fails_in_the_same_words(void **state)
{
    const struct env_options plain = {0};
    struct error err = {0};
    float obs[64];
    env_t *env;

    (void)state;
    setenv("TDMPC2_SUITES", "/nonexistent", 1);
    assert_ok(env_create_later(&env, "mw-reach", &plain, 1, &err), err);
    assert_int_equal(env_reset_begin(env, &err), TD_ESETUP);
    assert_non_null(strstr(err.text, "make setup-metaworld"));
    assert_int_equal(env_reset(env, obs, &err), TD_EIO);
    env_close(&env);
    unsetenv("TDMPC2_SUITES");
}

static int open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static void nothing_is_left_open(void **state)
{
    env_t *env = make(TOY("Good"), 1);
    int before;

    (void)state;
    env_close(&env);
    before = open_files();
    for (int i = 0; i < 3; i++) {
        env = make(TOY("Good"), 1);
        env_close(&env);
    }
    assert_int_equal(open_files(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_one_steps_and_maps_its_actions),
        cmocka_unit_test(seeds_name_sequences_of_episodes),
        cmocka_unit_test(a_saved_state_continues_elsewhere),
        cmocka_unit_test(a_state_that_cannot_be_had_is_explained),
        cmocka_unit_test(a_file_may_have_the_name_of_a_module),
        cmocka_unit_test(faults_are_noticed_and_survived),
        cmocka_unit_test(a_killed_process_is_replaced),
        cmocka_unit_test(numbers_come_in_many_kinds),
        cmocka_unit_test(what_an_environment_started_ends_with_it),
        cmocka_unit_test(printing_is_no_fault),
        cmocka_unit_test(terminations_and_truncations_are_kept_apart),
        cmocka_unit_test(what_cannot_be_used_is_refused_in_a_sentence),
        cmocka_unit_test(a_bad_reset_is_lost),
        cmocka_unit_test(missing_interpreters_and_suites_say_what_to_run),
        cmocka_unit_test(deadlines_come_from_the_environment),
        cmocka_unit_test(the_suites_have_their_tasks),
        cmocka_unit_test(pictures_are_made_64_by_64),
        cmocka_unit_test(a_saved_state_of_pictures_continues),
        cmocka_unit_test(what_does_not_draw_is_refused_or_lost),
        cmocka_unit_test(closing_has_an_end),
        cmocka_unit_test(moves_in_two_halves_are_the_same),
        cmocka_unit_test(native_moves_begin_and_end_at_once),
        cmocka_unit_test(asked_together_they_move_together),
        cmocka_unit_test(a_hung_one_is_asked_and_closed_without_waiting),
        cmocka_unit_test(what_fails_later_fails_in_the_same_words),
        cmocka_unit_test(nothing_is_left_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
