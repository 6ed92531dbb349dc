/*
 * bench_env.c - the environments' speed against bare mj_step over the same trajectory.
 *
 * An episode through env_step (actions checked and mapped, both control steps, rewards, observation)
 * and the same physics steps from the same first state with the same controls are timed in turn.
 * Both must end in the same positions, or the comparison would not be of equal work.
 */
#include <stdlib.h>
#include <string.h>

#include "common/env/dm/dm.h"
#include "common/util/clock.h"
#include "common/util/rng.h"
#include "tools/bench.h"

#define STEPS     500
#define ROUNDS    400 /* at most */
#define ROUNDS_AT_LEAST 5

struct pair {
    struct dm *dm;
    env_t *env;
    mjData *bare;    /* of the environment's model */
    double *start;   /* integration state after the reset */
    float *action;   /* [STEPS][action_dim] */
    double *control; /* [STEPS][action_dim] what the actions became */
    float obs[DM_OBS_MAX];
    uint64_t rounds;
    double ours[ROUNDS], theirs[ROUNDS], ratio[ROUNDS]; /* milliseconds per episode */
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(double *values, uint64_t count, double part)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[(uint64_t)(part * (double)(count - 1))];
}

/* --- the two sides ------------------------------------------------------------------------- */

static int run_env(struct pair *pair, double *ms, struct error *err)
{
    uint32_t dims = env_spec(pair->env)->action_dim;
    struct env_result result;
    uint64_t begun = clock_ns();
    int rc = TD_OK;

    for (int i = 0; i < STEPS && rc == TD_OK; i++)
        rc = env_step(pair->env, pair->action + (uint32_t)i * dims, pair->obs, &result, err);
    *ms = (double)(clock_ns() - begun) / 1e6;
    return rc;
}

struct bare {
    struct pair *pair;
    double ms;
};

static void run_bare(void *context)
{
    struct bare *bare = context;
    struct pair *pair = bare->pair;
    const struct dm *dm = pair->dm;
    int dims = dm->model->nu, substeps = dm->domain->substeps * (int)pair->env->spec.action_repeat;
    uint64_t begun;

    dm->mj->mj_resetData(dm->model, pair->bare);
    dm->mj->mj_setState(dm->model, pair->bare, pair->start, mjSTATE_INTEGRATION);
    begun = clock_ns();
    for (int i = 0; i < STEPS; i++) {
        memcpy(pair->bare->ctrl, pair->control + i * dims, (size_t)dims * sizeof(double));
        for (int j = 0; j < substeps; j++)
            dm->mj->mj_step(dm->model, pair->bare);
    }
    bare->ms = (double)(clock_ns() - begun) / 1e6;
}

/* One episode on both sides, the order changing from round to round. */
static int run_round(struct pair *pair, struct error *err)
{
    struct dm *dm = pair->dm;
    struct bare bare = {.pair = pair};
    double ours = 0;
    int rc;

    if ((rc = env_reset(pair->env, pair->obs, err)) != TD_OK)
        return rc;
    dm->mj->mj_getState(dm->model, dm->data, pair->start, mjSTATE_INTEGRATION);
    if (pair->rounds % 2 == 1 && (rc = mujoco_run(run_bare, &bare, err)) != TD_OK)
        return rc;
    if ((rc = run_env(pair, &ours, err)) != TD_OK)
        return rc;
    if (pair->rounds % 2 == 0 && (rc = mujoco_run(run_bare, &bare, err)) != TD_OK)
        return rc;
    if (memcmp(pair->bare->qpos, dm->data->qpos, (size_t)dm->model->nq * sizeof(double)) != 0)
        return error_set(err, TD_EIO, "bench env: bare mj_step went elsewhere than %s", dm->task->name);
    pair->ours[pair->rounds] = ours;
    pair->theirs[pair->rounds] = bare.ms;
    pair->ratio[pair->rounds] = bare.ms / ours;
    pair->rounds++;
    return TD_OK;
}

/* --- life ---------------------------------------------------------------------------------- */

static void choose_actions(struct pair *pair)
{
    struct rng_key key = {.seed = 1, .purpose = RNG_TEST};
    const double *range = pair->dm->model->actuator_ctrlrange;
    size_t dims = env_spec(pair->env)->action_dim;
    struct rng rng;

    rng_init(&rng, &key);
    rng_uniform(&rng, pair->action, STEPS * dims, -1, 1);
    for (size_t i = 0; i < STEPS * dims; i++) {
        double low = range[2 * (i % dims)], high = range[2 * (i % dims) + 1];
        double scale = (high - low) / 2;

        pair->control[i] = low + scale * ((double)pair->action[i] + 1);
    }
}

static void pair_close(struct pair *pair)
{
    if (pair->bare != NULL)
        pair->dm->mj->mj_deleteData(pair->bare);
    env_close(&pair->env);
    free(pair->start);
    free(pair->action);
    free(pair->control);
    free(pair);
}

static int pair_open(struct pair **out, const char *task, struct error *err)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    const struct mujoco *mj;
    size_t dims;
    int rc;

    if (pair == NULL)
        return error_set(err, TD_ENOMEM, "no memory for bench env");
    if ((rc = env_create(&pair->env, task, 1, err)) != TD_OK) {
        pair_close(pair);
        return rc;
    }
    pair->dm = (struct dm *)pair->env;
    mj = pair->dm->mj;
    dims = env_spec(pair->env)->action_dim;
    pair->bare = mj->mj_makeData(pair->dm->model);
    pair->start = calloc((size_t)mj->mj_stateSize(pair->dm->model, mjSTATE_INTEGRATION), sizeof(double));
    pair->action = calloc(STEPS * dims, sizeof(float));
    pair->control = calloc(STEPS * dims, sizeof(double));
    if (pair->bare == NULL || pair->start == NULL || pair->action == NULL || pair->control == NULL) {
        pair_close(pair);
        return error_set(err, TD_ENOMEM, "no memory for bench env");
    }
    choose_actions(pair);
    *out = pair;
    return TD_OK;
}

static void report(const struct bench_options *options, struct pair *pair)
{
    char variant[2 * ENV_TASK_MAX];
    struct bench_result result = {.name = "env", .variant = variant, .unit = "agent steps/s"};

    result.count = (int)pair->rounds;
    result.peak_fraction = quantile(pair->ratio, pair->rounds, 0.5);
    result.median_ms = quantile(pair->ours, pair->rounds, 0.5) / STEPS;
    result.p99_ms = quantile(pair->ours, pair->rounds, 0.99) / STEPS;
    result.rate = 1e3 / result.median_ms;
    snprintf(variant, sizeof(variant), "task=%s", pair->env->spec.task);
    bench_report(options, &result);

    result.peak_fraction = 0;
    result.median_ms = quantile(pair->theirs, pair->rounds, 0.5) / STEPS;
    result.p99_ms = quantile(pair->theirs, pair->rounds, 0.99) / STEPS;
    result.rate = 1e3 / result.median_ms;
    snprintf(variant, sizeof(variant), "task=%s, bare mj_step", pair->env->spec.task);
    bench_report(options, &result);
}

static int bench_task(const struct bench_options *options, const char *task, struct error *err)
{
    struct pair *pair = NULL;
    uint64_t begun;
    int rc;

    if ((rc = pair_open(&pair, task, err)) != TD_OK)
        return rc;
    rc = run_round(pair, err); /* unmeasured */
    pair->rounds = 0;
    begun = clock_ns();
    while (rc == TD_OK && pair->rounds < ROUNDS &&
           (pair->rounds < ROUNDS_AT_LEAST || (double)(clock_ns() - begun) < options->seconds * 1e9))
        rc = run_round(pair, err);
    if (rc == TD_OK)
        report(options, pair);
    pair_close(pair);
    return rc;
}

int bench_env(const struct bench_options *options, struct error *err)
{
    static const char *const tasks[] = {"walker-walk", "cheetah-run"};
    int rc = TD_OK;

    for (size_t i = 0; i < TD_LEN(tasks) && rc == TD_OK; i++)
        rc = bench_task(options, tasks[i], err);
    return rc;
}
