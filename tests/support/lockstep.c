#include "tests/support/lockstep.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/env/env.h"
#include "common/plan/mppi.h"
#include "common/tensor/gemm.h"
#include "learner/schedule.h"

/* One finished episode; row 0 has no action. */
struct episode {
    int rows;
    char *obs;         /* [rows, O] floats, or frames of O bytes */
    float *action;     /* [rows, A] that led to the row */
    float *reward;     /* [rows] */
    float *terminated; /* [rows] */
};

struct run {
    const struct config *config;
    struct env_spec spec;
    size_t width; /* bytes of an observation */
    bool rgb;
    struct model_dims dims;
    env_t *env;
    world_model_t *model;
    mppi_t *mppi;
    update_t *update;
    pool_t *pool;
    struct schedule schedule;
    bool verbose;

    struct episode *stored; /* [episodes] */
    uint64_t episodes;
    struct episode open; /* with room for a whole episode */
    char *batch;
    char *trial;   /* [rows] observations of an evaluation's episode */
    uint8_t *seen; /* three frames */
    double evaluation, random_sum, episode_return;
    uint64_t random_episodes, evaluations;
    struct lockstep_result *result;
    struct error *err;
};

static struct rng stream(const struct run *run, enum rng_purpose purpose, uint32_t env, uint64_t step)
{
    struct rng_key key = {.seed = (uint64_t)run->config->seed, .purpose = purpose, .env = env, .step = step};
    struct rng rng;

    rng_init(&rng, &key);
    return rng;
}

/* --- replay ------------------------------------------------------------------------------------ */

static bool make_episode(struct episode *episode, const struct run *run, int rows)
{
    const struct env_spec *spec = &run->spec;
    size_t n = (size_t)rows;

    *episode = (struct episode){.obs = calloc(n, run->width),
                                .action = calloc(n * spec->action_dim, sizeof(float)),
                                .reward = calloc(n, sizeof(float)),
                                .terminated = calloc(n, sizeof(float))};
    return episode->obs != NULL && episode->action != NULL && episode->reward != NULL &&
           episode->terminated != NULL;
}

static void free_episode(struct episode *episode)
{
    free(episode->obs);
    free(episode->action);
    free(episode->reward);
    free(episode->terminated);
}

/* The open episode becomes samplable. */
static int store(struct run *run)
{
    struct episode *more = realloc(run->stored, (run->episodes + 1) * sizeof(*more));
    const struct episode *open = &run->open;
    size_t rows = (size_t)open->rows;
    struct episode *into;

    if (more == NULL)
        return error_set(run->err, TD_ENOMEM, "out of memory");
    run->stored = more;
    into = &more[run->episodes];
    if (!make_episode(into, run, open->rows))
        return error_set(run->err, TD_ENOMEM, "out of memory");
    run->episodes++;
    into->rows = open->rows;
    memcpy(into->obs, open->obs, rows * run->width);
    memcpy(into->action, open->action, rows * run->spec.action_dim * sizeof(float));
    memcpy(into->reward, open->reward, rows * sizeof(float));
    memcpy(into->terminated, open->terminated, rows * sizeof(float));
    return TD_OK;
}

/* An episode uniformly from the long enough ones, then its start uniformly. */
static const struct episode *draw_slice(const struct run *run, struct rng *rng, int *start)
{
    int horizon = (int)run->config->horizon;
    const struct episode *episode;

    do
        episode = &run->stored[rng_below(rng, (uint32_t)run->episodes)];
    while (episode->rows < horizon + 1);
    *start = (int)rng_below(rng, (uint32_t)(episode->rows - horizon));
    return episode;
}

static struct batch sample(struct run *run, uint64_t update)
{
    size_t b = (size_t)run->config->batch_size, h = (size_t)run->config->horizon;
    size_t w = run->width, a = run->spec.action_dim, before = run->rgb ? 2 : 0;
    char *obs = run->batch;
    float *action = (float *)(obs + (h + 1 + before) * b * w), *reward = action + h * b * a;
    float *terminated = reward + h * b;
    struct batch batch = {.action = action, .reward = reward, .terminated = terminated};
    struct rng rng = stream(run, RNG_SAMPLE, 0, update);

    for (size_t i = 0; i < b; i++) {
        int start;
        const struct episode *episode = draw_slice(run, &rng, &start);

        for (size_t k = 0; k <= h + before; k++) {
            size_t row = (size_t)start + k < before ? 0 : (size_t)start + k - before;

            memcpy(obs + (k * b + i) * w, episode->obs + row * w, w);
        }
        for (size_t t = 1; t <= h; t++) {
            size_t row = (size_t)start + t;

            memcpy(action + ((t - 1) * b + i) * a, episode->action + row * a, a * sizeof(float));
            reward[(t - 1) * b + i] = episode->reward[row];
            terminated[(t - 1) * b + i] = episode->terminated[row];
        }
    }
    batch.obs = run->rgb ? NULL : (const float *)(const void *)obs;
    batch.frames = run->rgb ? (const uint8_t *)obs : NULL;
    batch.frame_step = 1;
    return batch;
}

static bool samplable(const struct run *run)
{
    for (uint64_t i = 0; i < run->episodes; i++)
        if (run->stored[i].rows >= run->config->horizon + 1)
            return true;
    return false;
}

/* --- acting ------------------------------------------------------------------------------------ */

static int plan(struct run *run, enum rng_purpose purpose, uint32_t env, uint64_t step, const void *obs,
                bool first, bool eval, float *action)
{
    struct rng rng = stream(run, purpose, env, step);
    struct mppi_draws draws = mppi_draws_rng(&rng);

    if (mppi_plan(run->mppi, run->model, obs, first, eval, &draws, action) != TD_OK)
        return error_set(run->err, TD_EDIVERGED, "the planner's action is not finite");
    return TD_OK;
}

/* What is seen at a row: itself, or it and the two before, the first again where there is none. */
static const void *seen_at(const struct run *run, const char *rows, int row)
{
    if (!run->rgb)
        return rows + (size_t)row * run->width;
    for (int k = 0; k < 3; k++) {
        int from = row - 2 + k > 0 ? row - 2 + k : 0;

        memcpy(run->seen + (size_t)k * run->width, rows + (size_t)from * run->width, run->width);
    }
    return run->seen;
}

/* Mean return of whole episodes in place, with the machine that evaluators use. */
static int evaluate(struct run *run, uint64_t step, double *mean)
{
    struct evaluation evaluation;
    struct env_result result;
    enum evaluation_kind kind;
    char *rows = run->trial;
    float action[64];
    double sum = 0;
    int row = 0;
    bool first;
    int rc;

    evaluation_init(&evaluation, (uint32_t)run->config->eval_episodes);
    while ((kind = evaluation_next(&evaluation, &first)) != EVALUATION_FINISH) {
        if (kind == EVALUATION_RESET) {
            row = 0;
            if ((rc = env_reset(run->env, rows, run->err)))
                return rc;
            evaluation_reset_done(&evaluation);
            continue;
        }
        if ((rc = plan(run, RNG_EVAL, evaluation.finished, step << 20 | evaluation.episode_steps,
                       seen_at(run, rows, row), first, true, action)) ||
            (rc = env_step(run->env, action, rows + (size_t)(row + 1) * run->width, &result, run->err)))
            return rc;
        row++;
        sum += result.reward;
        evaluation_stepped(&evaluation, result.terminated || result.truncated);
    }
    *mean = sum / (double)run->config->eval_episodes;
    if (run->verbose)
        printf("step %6llu  return %8.2f  updates %llu  consistency %.4f  reward %.3f  value %.3f  pi %.3f\n",
               (unsigned long long)step, *mean, (unsigned long long)run->schedule.updates,
               (double)run->result->stats.consistency_loss, (double)run->result->stats.reward_loss,
               (double)run->result->stats.value_loss, (double)run->result->stats.pi_loss);
    return TD_OK;
}

static int reset(struct run *run)
{
    run->open.rows = 1;
    run->episode_return = 0;
    return env_reset(run->env, run->open.obs, run->err);
}

static int take_step(struct run *run, const struct schedule_event *event)
{
    struct episode *open = &run->open;
    size_t row = (size_t)open->rows, a = run->spec.action_dim;
    float *action = open->action + row * a;
    struct env_result result;
    int rc;

    if (event->random) {
        struct rng rng = stream(run, RNG_SEED_ACTION, 0, event->step);

        rng_uniform(&rng, action, a, -1, 1);
    } else if ((rc = plan(run, RNG_PLAN, 0, event->step, seen_at(run, open->obs, open->rows - 1),
                          event->first, false, action))) {
        return rc;
    }
    if ((rc = env_step(run->env, action, open->obs + row * run->width, &result, run->err)))
        return rc;
    open->reward[row] = (float)result.reward;
    open->terminated[row] = result.terminated;
    open->rows++;
    run->episode_return += result.reward;
    if (event->random && (result.terminated || result.truncated)) {
        run->random_sum += run->episode_return;
        run->random_episodes++;
    }
    return schedule_stepped(&run->schedule, result.terminated || result.truncated, result.terminated,
                            run->err);
}

static int update(struct run *run, const struct schedule_event *event)
{
    struct rng rng = stream(run, RNG_UPDATE, 0, event->update);
    struct update_draws draws = update_draws_rng(&rng);
    struct batch batch;

    if (!samplable(run))
        return error_set(run->err, TD_EINVAL, "an update is due and no episode is long enough");
    batch = sample(run, event->update);
    if (update_step(run->update, &batch, &draws, &run->result->stats) != TD_OK)
        return error_set(run->err, TD_EDIVERGED, "update %llu diverges", (unsigned long long)event->update);
    return TD_OK;
}

static int carry_out(struct run *run, const struct schedule_event *event)
{
    switch (event->kind) {
    case SCHEDULE_EVALUATE:
        return evaluate(run, event->step, &run->evaluation);
    case SCHEDULE_LOG_EVAL:
        if (run->evaluations++ == 0 || run->evaluation > run->result->best_return)
            run->result->best_return = run->evaluation;
        if (event->step == 0)
            run->result->first_return = run->evaluation;
        return TD_OK;
    case SCHEDULE_STORE:
        return store(run);
    case SCHEDULE_RESET:
        return reset(run);
    case SCHEDULE_STEP:
        return take_step(run, event);
    case SCHEDULE_UPDATE:
        return update(run, event);
    case SCHEDULE_LOG_TRAIN:
    case SCHEDULE_FINISH:
        break;
    }
    return TD_OK;
}

/* --- the run ----------------------------------------------------------------------------------- */

static int open_run(struct run *run, int threads)
{
    const struct config *config = run->config;
    struct schedule_config schedule = {.steps = (uint64_t)config->steps, .eval_freq = (uint64_t)config->eval_freq,
                                       .eval_first = config->eval_first, .episodic = config->episodic};
    struct update_config learn;
    struct mppi_config act;
    struct env_options options = env_options(config->obs, config->render);
    size_t rows = (size_t)config->horizon * (size_t)config->batch_size;
    size_t b = (size_t)config->batch_size;
    int rc;

    if ((rc = env_find_with(config->task, &options, &run->spec, run->err)) ||
        (rc = env_create_with(&run->env, config->task, &options, (uint32_t)config->seed, run->err)) ||
        (rc = model_dims_init(&run->dims, config, (int)run->spec.obs_dim, (int)run->spec.action_dim,
                              run->err)) ||
        (rc = world_model_create(&run->model, &run->dims, true, run->err)) ||
        (rc = gemm_start(threads, run->err)) || (rc = pool_create(&run->pool, threads, run->err)))
        return rc;
    TD_ASSERT(run->spec.action_dim <= 64);
    run->rgb = run->spec.obs_type == ENV_OBS_RGB;
    run->width = run->spec.obs_dim * (run->rgb ? 1 : sizeof(float));
    schedule.seed_steps = derive_seed_steps(config, run->spec.episode_length);
    schedule_init(&run->schedule, &schedule);
    update_config_init(&learn, config, run->spec.episode_length);
    mppi_config_init(&act, config, (int)run->spec.action_dim, run->spec.episode_length);
    world_model_init(run->model, (uint64_t)config->seed);
    if ((rc = update_create(&run->update, run->model, &learn, run->pool, run->err)) ||
        (rc = mppi_create(&run->mppi, &act, &run->dims, 1, run->pool, run->err)))
        return rc;
    run->batch = calloc(1, (rows + 3 * b) * run->width + rows * (run->spec.action_dim + 2) * sizeof(float));
    run->seen = calloc(3, run->width);
    run->trial = calloc(run->spec.episode_length + 1, run->width);
    if (run->batch == NULL || run->seen == NULL || run->trial == NULL ||
        !make_episode(&run->open, run, (int)run->spec.episode_length + 1))
        return error_set(run->err, TD_ENOMEM, "out of memory");
    return TD_OK;
}

static void close_run(struct run *run)
{
    for (uint64_t i = 0; i < run->episodes; i++)
        free_episode(&run->stored[i]);
    free(run->stored);
    free_episode(&run->open);
    free(run->batch);
    free(run->seen);
    free(run->trial);
    mppi_destroy(&run->mppi);
    update_destroy(&run->update);
    pool_destroy(&run->pool);
    world_model_destroy(&run->model);
    env_close(&run->env);
}

static uint64_t hash_floats(uint64_t hash, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;

        memcpy(&bits, &x[i], sizeof(bits));
        hash = rng_hash(hash, bits);
    }
    return hash;
}

static void summarise(struct run *run)
{
    struct update_state state = update_state(run->update);
    uint64_t hash = hash_floats(0, run->model->parameters, model_all_floats(&run->model->layout));

    hash = hash_floats(hash, state.m, state.floats);
    run->result->hash = hash_floats(hash, state.v, state.floats);
    run->result->episodes = run->schedule.episodes;
    run->result->updates = run->schedule.updates;
    run->result->random_return = run->random_sum / fmax(1, (double)run->random_episodes);
}

void (*lockstep_seen)(const world_model_t *model);

int lockstep_run(const struct config *config, int threads, bool verbose, struct lockstep_result *result,
                 struct error *err)
{
    struct run run = {.config = config, .verbose = verbose, .result = result, .err = err};
    struct schedule_event event = {0};
    int rc = TD_OK;

    memset(result, 0, sizeof(*result));
    rc = open_run(&run, threads);
    while (rc == TD_OK && (schedule_next(&run.schedule, &event), event.kind != SCHEDULE_FINISH)) {
        rc = carry_out(&run, &event);
        if (rc == TD_OK && event.kind != SCHEDULE_STEP)
            schedule_done(&run.schedule);
    }
    if (rc == TD_OK)
        rc = evaluate(&run, event.step, &result->final_return);
    if (rc == TD_OK)
        summarise(&run);
    if (rc == TD_OK && lockstep_seen != NULL)
        lockstep_seen(run.model);
    close_run(&run);
    return rc;
}
