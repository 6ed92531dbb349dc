/* Frames of the DMControl tasks: as recorded, as resumed, side by side, in threads, in less time. */
#include "common/env/render.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/env/dm/dm.h"
#include "common/env/gl.h"
#include "tests/support/test.h"
#include "tools/env.h"
#include "tools/frame_difference.h"

#define FRAMES 5

static const struct env_options exact = {.obs_type = ENV_OBS_RGB};
static const struct env_options fast = {.obs_type = ENV_OBS_RGB, .drawing = ENV_DRAW_FAST};

static env_t *open_env(const char *task, const struct env_options *options, uint32_t seed)
{
    struct error err;
    env_t *env;

    assert_ok(env_create_with(&env, task, options, seed, &err), err);
    return env;
}

/* The n-th observation of an episode: the reset's, then those of the same actions in every run. */
static void observe(env_t *env, int n, uint8_t *frame)
{
    float action[64];
    struct env_result result;
    struct error err;

    for (uint32_t i = 0; i < env_spec(env)->action_dim; i++)
        action[i] = (float)((n * 7 + (int)i * 3) % 9) / 4 - 1;
    if (n == 0)
        assert_ok(env_reset(env, frame, &err), err);
    else
        assert_ok(env_step(env, action, frame, &result, &err), err);
}

static void run(const char *task, const struct env_options *options, uint8_t frames[FRAMES][ENV_FRAME_BYTES])
{
    env_t *env = open_env(task, options, 1);

    for (int i = 0; i < FRAMES; i++)
        observe(env, i, frames[i]);
    env_close(&env);
}

/* --- as recorded --------------------------------------------------------------------------- */

static void replay(const char *task, enum env_drawing drawing, const char *expected)
{
    char path[200], *printed = NULL;
    struct error err = {0};
    size_t size;
    FILE *out = open_memstream(&printed, &size);
    int rc;

    assert_non_null(out);
    snprintf(path, sizeof(path), "tests/golden/frames/%s.rgb.traj.safetensors", task);
    rc = env_replay_file(path, ENV_REPLAY_EXACT, drawing, out, &err);
    fclose(out);
    if (rc != TD_OK || strstr(printed, expected) == NULL)
        fail_msg("%s: %d %s\n%s", task, rc, err.text, printed);
    free(printed);
}

/* One of each domain. */
static const char *const recorded[] = {"acrobot-swingup", "cartpole-swingup", "cheetah-run", "cup-catch",        "dog-run",
                                       "finger-spin",     "fish-swim",        "hopper-hop",  "humanoid-walk",    "pendulum-swingup",
                                       "quadruped-walk",  "reacher-easy",     "walker-walk"};

static void recorded_frames_are_equal(void **state)
{
    (void)state;
    for (size_t i = 0; i < TD_LEN(recorded); i++)
        replay(recorded[i], ENV_DRAW_EXACT, "frames equal");
}

static void fast_frames_are_within_the_tolerance(void **state)
{
    (void)state;
    replay("walker-walk", ENV_DRAW_FAST, "ok ");
    replay("cheetah-run", ENV_DRAW_FAST, "ok ");
    replay("quadruped-walk", ENV_DRAW_FAST, "ok ");
}

/* --- as resumed ---------------------------------------------------------------------------- */

static void resumed_frames_are_equal(void **state)
{
    static uint8_t frame[ENV_FRAME_BYTES], other[ENV_FRAME_BYTES];
    env_t *a = open_env("finger-turn-hard", &fast, 1), *b = open_env("finger-turn-hard", &fast, 2);
    void *bytes = malloc(env_state_size(a));
    struct error err;

    (void)state;
    observe(b, 0, other);
    for (int i = 0; i < FRAMES; i++) {
        observe(a, i, frame);
        assert_memory_not_equal(frame, other, sizeof(frame));
        env_state_get(a, bytes);
        assert_ok(env_state_set(b, bytes, env_state_size(a), &err), err);
        env_observe(b, other);
        assert_memory_equal(frame, other, sizeof(frame));
        observe(a, i + 1, frame);
        observe(b, i + 1, other);
        assert_memory_equal(frame, other, sizeof(frame));
    }
    free(bytes);
    env_close(&a);
    env_close(&b);
}

/* --- pictures ------------------------------------------------------------------------------ */

/* Of a state env as of one that observes frames; drawing changes neither. */
static void pictures_change_nothing(void **state)
{
    static uint8_t frame[ENV_FRAME_BYTES], picture[64 * 64 * 3], large[300 * 200 * 3], again[300 * 200 * 3];
    static float felt[2][64];
    env_t *drawn = open_env("walker-walk", &exact, 1);
    env_t *plain = open_env("walker-walk", &(struct env_options){0}, 1);
    env_t *seen = open_env("walker-walk", &(struct env_options){0}, 1);
    struct env_result result;
    struct error err;
    float action[6] = {.5f};

    (void)state;
    assert_ok(env_reset(drawn, frame, &err), err);
    assert_ok(env_reset(plain, felt[0], &err), err);
    assert_ok(env_reset(seen, felt[1], &err), err);
    for (int i = 0; i < 3; i++) {
        assert_ok(env_render(seen, &(struct env_view){64, 64, -1}, picture, &err), err);
        for (int j = 0; j < 4096; j++)
            for (int channel = 0; channel < 3; channel++)
                assert_int_equal(picture[3 * j + channel], frame[4096 * channel + j]);
        assert_ok(env_render(seen, &(struct env_view){300, 200, 0}, large, &err), err);
        assert_ok(env_render(seen, &(struct env_view){200, 300, 1}, again, &err), err);
        assert_memory_not_equal(large, again, sizeof(large));
        assert_ok(env_render(drawn, &(struct env_view){300, 200, -1}, again, &err), err);
        assert_memory_equal(large, again, sizeof(large));
        assert_ok(env_step(drawn, action, frame, &result, &err), err);
        assert_ok(env_step(plain, action, felt[0], &result, &err), err);
        assert_ok(env_step(seen, action, felt[1], &result, &err), err);
        assert_memory_equal(felt[0], felt[1], sizeof(felt[0]));
    }
    assert_int_equal(env_render(seen, &(struct env_view){64, 64, 99}, picture, &err), TD_EINVAL);
    assert_int_equal(env_render(seen, &(struct env_view){0, 64, 0}, picture, &err), TD_EINVAL);
    env_close(&drawn);
    env_close(&plain);
    env_close(&seen);
}

/* Put the walker down elsewhere on its floor, which is 496 long and ends there. */
static void picture_at(env_t *env, double x, uint8_t *picture)
{
    struct dm *dm = (struct dm *)env;
    struct error err;

    dm->data->qpos[1] = x;
    dm->mj->mj_forward(dm->model, dm->data);
    assert_ok(env_render(env, &(struct env_view){64, 64, -1}, picture, &err), err);
}

/* Tiles of the floor are made when they come into view: going there shows what being there shows. */
static void the_floor_follows_the_view(void **state)
{
    static const double places[] = {0, 1.3, 3, 30, -1.9, -3, 240, 494, 499, 3};
    static uint8_t going[64 * 64 * 3], being[64 * 64 * 3], first[64 * 64 * 3], frame[ENV_FRAME_BYTES];
    env_t *traveller = open_env("walker-walk", &exact, 1);
    int unlike = 0;

    (void)state;
    observe(traveller, 0, frame);
    for (size_t i = 0; i < TD_LEN(places); i++) {
        env_t *native = open_env("walker-walk", &exact, 1);

        observe(native, 0, frame);
        picture_at(traveller, places[i], going);
        picture_at(native, places[i], being);
        assert_memory_equal(going, being, sizeof(going));
        if (i == 0)
            memcpy(first, going, sizeof(first));
        unlike += memcmp(first, going, sizeof(first)) != 0;
        env_close(&native);
    }
    assert_true(unlike > 5);
    env_close(&traveller);
}

/* --- several ------------------------------------------------------------------------------- */

static void taking_turns_in_one_thread_changes_nothing(void **state)
{
    static const char *const tasks[] = {"walker-walk", "cartpole-swingup", "walker-walk"};
    static uint8_t alone[2][FRAMES][ENV_FRAME_BYTES], frame[ENV_FRAME_BYTES];
    env_t *env[TD_LEN(tasks)];

    (void)state;
    run(tasks[0], &exact, alone[0]);
    run(tasks[1], &fast, alone[1]);
    for (size_t i = 0; i < TD_LEN(tasks); i++)
        env[i] = open_env(tasks[i], i == 1 ? &fast : &exact, 1);
    for (int n = 0; n < FRAMES; n++)
        for (size_t i = 0; i < TD_LEN(tasks); i++) {
            observe(env[i], n, frame);
            assert_memory_equal(frame, alone[i % 2][n], sizeof(frame));
        }
    /* Closing one leaves the others. */
    env_close(&env[0]);
    observe(env[2], 0, frame);
    observe(env[1], 0, frame);
    assert_memory_not_equal(frame, alone[1][FRAMES - 1], sizeof(frame));
    for (size_t i = 0; i < TD_LEN(tasks); i++)
        env_close(&env[i]);
}

struct job {
    const char *task;
    env_t *env; /* made elsewhere, or NULL */
    int first, last;
    uint8_t frames[FRAMES][ENV_FRAME_BYTES];
};

static void *work(void *context)
{
    struct job *job = context;

    if (job->env == NULL)
        job->env = open_env(job->task, &exact, 1);
    for (int i = job->first; i < job->last; i++)
        observe(job->env, i, job->frames[i]);
    return NULL;
}

static void threads_do_not_meet(void **state)
{
    static struct job job[2] = {{.task = "walker-walk", .last = FRAMES}, {.task = "cheetah-run", .last = FRAMES}};
    static uint8_t alone[FRAMES][ENV_FRAME_BYTES];
    pthread_t thread[2];

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, work, &job[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < 2; i++) {
        run(job[i].task, &exact, alone);
        assert_memory_equal(job[i].frames, alone, sizeof(alone));
        env_close(&job[i].env); /* in another thread than it was made in */
    }
}

/* An env goes from thread to thread, each ending before the next draws, with another env between. */
static void an_env_may_move_between_threads(void **state)
{
    static struct job job = {.task = "walker-walk"};
    static uint8_t alone[FRAMES][ENV_FRAME_BYTES], other[ENV_FRAME_BYTES];
    env_t *here = open_env("cartpole-swingup", &exact, 1);
    pthread_t thread;

    (void)state;
    job.env = open_env(job.task, &exact, 1);
    for (int i = 0; i < FRAMES; i++) {
        job.first = i;
        job.last = i + 1;
        if (i % 2 == 0) {
            assert_int_equal(pthread_create(&thread, NULL, work, &job), 0);
            assert_int_equal(pthread_join(thread, NULL), 0);
        } else {
            work(&job);
        }
        observe(here, i, other);
    }
    run(job.task, &exact, alone);
    assert_memory_equal(job.frames, alone, sizeof(alone));
    env_close(&job.env);
    env_close(&here);
}

/* --- what can't be drawn ------------------------------------------------------------------- */

/* The library is chosen once per process: each choice is tried in a process of its own. */
static int create_with_gl(const char *choice, char *text, size_t size)
{
    struct error err = {0};
    int pipes[2], status;
    ssize_t got;
    pid_t child;

    assert_int_equal(pipe(pipes), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        env_t *env = NULL;
        int rc;

        setenv("MUJOCO_GL", choice, 1);
        rc = env_create_with(&env, "pendulum-swingup", &exact, 1, &err);
        if (rc == TD_OK)
            snprintf(err.text, sizeof(err.text), "%s", gl_driver());
        _exit(write(pipes[1], err.text, strlen(err.text)) < 0 ? 99 : -rc);
    }
    close(pipes[1]);
    got = read(pipes[0], text, size - 1);
    text[got < 0 ? 0 : got] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

/* Runs first, while this process has opened no library. */
static void what_cannot_draw_says_what_to_install(void **state)
{
    char text[800];
    int rc;

    (void)state;
    assert_int_equal(create_with_gl("glfw", text, sizeof(text)), TD_EINVAL);
    assert_non_null(strstr(text, "egl and osmesa are possible"));
    assert_int_equal(create_with_gl("osmesa", text, sizeof(text)), TD_OK);
    assert_non_null(strstr(text, "OSMesa, "));
    rc = create_with_gl("egl", text, sizeof(text));
    if (rc != TD_OK) {
        assert_int_equal(rc, TD_ESETUP);
        assert_non_null(strstr(text, "install"));
    } else {
        assert_non_null(strstr(text, "EGL, "));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_draw_says_what_to_install),
        cmocka_unit_test(recorded_frames_are_equal),
        cmocka_unit_test(fast_frames_are_within_the_tolerance),
        cmocka_unit_test(resumed_frames_are_equal),
        cmocka_unit_test(pictures_change_nothing),
        cmocka_unit_test(the_floor_follows_the_view),
        cmocka_unit_test(taking_turns_in_one_thread_changes_nothing),
        cmocka_unit_test(threads_do_not_meet),
        cmocka_unit_test(an_env_may_move_between_threads),
    };

    setenv("MUJOCO_GL", "osmesa", 1); /* the recordings are its */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
