/*
 * bench_bridge.c - what an environment in Python costs beyond its own time.
 *
 * Each agent step through env_step is timed; the process says how long the environment itself took, and
 * that is subtracted. What is left is the bridge: messages, socket, both codecs, two switches between
 * processes, checks. Environments that do nothing are the hardest case: nothing stays warm by itself.
 */
#include <stdlib.h>

#include "common/env/bridge.h"
#include "common/util/clock.h"
#include "tools/bench.h"

#define STEPS_MAX 200000
#define WARM      200

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int step_once(env_t *env, const float *action, float *obs, double *ms, struct error *err)
{
    struct env_result result;
    uint64_t begun;
    int rc;

    if (env_steps(env) < 0 && (rc = env_reset(env, obs, err)) != TD_OK)
        return rc;
    begun = clock_ns();
    rc = env_step(env, action, obs, &result, err);
    *ms = ((double)(clock_ns() - begun) - (double)bridge_env_ns(env)) / 1e6;
    return rc;
}

static int measure(const struct bench_options *options, env_t *env, double *ms, int *count, struct error *err)
{
    const struct env_spec *spec = env_spec(env);
    float *action = calloc(spec->action_dim, sizeof(float)), *obs = calloc(spec->obs_dim, sizeof(float));
    uint64_t end = clock_ns() + (uint64_t)(options->seconds * 1e9);
    int rc = action == NULL || obs == NULL ? error_set(err, TD_ENOMEM, "no memory for bench bridge") : TD_OK;

    for (int i = 0; i < WARM && rc == TD_OK; i++)
        rc = step_once(env, action, obs, &ms[0], err);
    *count = 0;
    while (rc == TD_OK && *count < STEPS_MAX && (*count < 100 || clock_ns() < end))
        rc = step_once(env, action, obs, &ms[(*count)++], err);
    free(action);
    free(obs);
    return rc;
}

static int bench_task(const struct bench_options *options, const char *task, const char *variant, struct error *err)
{
    struct bench_result result = {.name = "bridge", .variant = variant, .unit = "agent steps/s"};
    double *ms = calloc(STEPS_MAX, sizeof(*ms));
    env_t *env = NULL;
    int rc = ms == NULL ? error_set(err, TD_ENOMEM, "no memory for bench bridge") : env_create(&env, task, 1, err);

    if (rc == TD_OK)
        rc = measure(options, env, ms, &result.count, err);
    if (rc == TD_OK) {
        qsort(ms, (size_t)result.count, sizeof(*ms), by_value);
        result.median_ms = ms[result.count / 2];
        result.p99_ms = ms[result.count - 1 - result.count / 100];
        result.rate = 1e3 / result.median_ms;
        bench_report(options, &result);
    }
    env_close(&env);
    free(ms);
    return rc;
}

/* NumPy is where a suite is set up; without one plain lists must do. */
int bench_bridge(const struct bench_options *options, struct error *err)
{
    struct bridge_task task;
    char python[FS_PATH_MAX], run[FS_PATH_MAX];
    int rc = bench_task(options, "python:tdmpc2_bridge.null_env:Null", "overhead, lists", err);

    if (rc != TD_OK || !bridge_task_find("mujoco-walker", &task) ||
        bridge_find_python(&task, python, run, NULL) != TD_OK || getenv("TDMPC2_PYTHON") != NULL)
        return rc;
    setenv("TDMPC2_PYTHON", python, 1);
    rc = bench_task(options, "python:tdmpc2_bridge.null_env:NullArrays", "overhead, NumPy arrays", err);
    unsetenv("TDMPC2_PYTHON");
    return rc;
}
