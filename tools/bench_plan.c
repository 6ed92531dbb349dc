/*
 * bench_plan.c - MPPI plans, one or envs=N in a batch: the work they must do (DESIGN's count) per second of
 * their median time, and for a batch how long as many single plans take.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/plan/mppi.h"
#include "tools/bench_model.h"

struct plan {
    mppi_t *mppi;
    world_model_t *model;
    int environments;
    void *obs;
    float action[MPPI_ENVIRONMENTS_MAX][BENCH_ACTION];
    uint64_t step;
};

/* A step of every environment, planned for `together` at a time. */
static void plan_all(struct plan *plan, int together)
{
    struct mppi_request requests[MPPI_ENVIRONMENTS_MAX];
    struct rng rng[MPPI_ENVIRONMENTS_MAX];

    for (int e = 0; e < plan->environments; e++) {
        struct rng_key key = {.seed = 1, .purpose = RNG_PLAN, .env = (uint32_t)e, .step = plan->step};

        rng_init(&rng[e], &key);
        requests[e] = (struct mppi_request){.environment = e, .obs = plan->obs, .first = plan->step == 0,
                                            .draws = mppi_draws_rng(&rng[e]), .action = plan->action[e]};
    }
    for (int e = 0; e < plan->environments; e += together) {
        int rc = mppi_plan_batch(plan->mppi, plan->model, requests + e, together);

        TD_ASSERT(rc == TD_OK, "plan %d", rc);
    }
    plan->step++;
}

static void plan_batch(void *context)
{
    struct plan *plan = context;

    plan_all(plan, plan->environments);
}

static void plan_singly(void *context)
{
    plan_all(context, 1);
}

/*
 * Two flops for each weight that each candidate must meet: H steps of dynamics and reward (and
 * termination), less the product with the latent all share at first; a policy action and two Qs at the
 * horizon. The policy's candidates are rolled out once, not in every iteration. Of the encoder only
 * convolutions count.
 */
static double plan_gflop(const struct mppi_config *config, const world_model_t *model)
{
    struct bench_weights w;
    double h = config->horizon, n = config->iterations, rollout;

    bench_weights(&w, model);
    rollout = h * (w.dynamics + w.reward + w.termination) - 2 * w.shared;
    return 2e-9 * (n * config->num_samples * (rollout + w.pi + 2 * w.q) -
                   (n - 1) * config->num_pi_trajs * rollout + (model->layout.dims.rgb ? w.encoder : 0));
}

/* "model_size=5 envs=8" */
static const char *variant(const struct bench_options *options)
{
    static char text[96];

    if (options->config.envs == 1)
        return bench_variant(options);
    snprintf(text, sizeof(text), "%s envs=%d", bench_variant(options), (int)options->config.envs);
    return text;
}

/* A made-up state, or three frames. */
static int make_obs(struct plan *plan, struct error *err)
{
    struct rng_key key = {.seed = 2, .purpose = RNG_TEST};
    bool rgb = plan->model->layout.dims.rgb;
    size_t bytes = rgb ? PIXEL_FRAMES * PIXEL_FRAME_BYTES : BENCH_OBS * sizeof(float);
    struct rng rng;

    rng_init(&rng, &key);
    plan->obs = malloc(bytes);
    if (plan->obs == NULL)
        return error_set(err, TD_ENOMEM, "no memory for an observation");
    for (size_t i = 0; rgb && i < bytes; i++)
        ((uint8_t *)plan->obs)[i] = (uint8_t)rng_below(&rng, 256);
    if (!rgb)
        rng_normal(&rng, plan->obs, BENCH_OBS);
    return TD_OK;
}

/* The batch beside as many single plans of the same environments, in turns. */
static void report_pairs(const struct bench_options *options, struct plan *plan)
{
    struct bench_result result = {.name = "batch", .variant = variant(options)};

    bench_pairs(options, plan_batch, plan_singly, plan, &result);
    result.rate = 1e3 * plan->environments / result.median_ms;
    result.unit = "plans/s";
    result.mib = (double)mppi_bytes(plan->mppi) / (1 << 20);
    bench_report(options, &result);
}

/* Say what will be taken, before it is. */
static int plan_memory(const struct bench_options *options, const struct mppi_config *config, struct error *err)
{
    struct bench_memory parts[2] = {{.what = "parameters"}, {.what = "the planner"}};
    struct model_layout layout;
    struct model_dims dims;
    int rc;

    if ((rc = bench_dims(options, &dims, err)) != TD_OK ||
        (rc = mppi_measure(&parts[1].bytes, config, &dims, (int)options->config.envs, options->threads, err)) != TD_OK)
        return rc;
    model_layout_init(&layout, &dims);
    parts[0].bytes = model_snapshot_bytes(&layout, config->half);
    return bench_plan_memory(options, "planning at this size", parts, TD_LEN(parts), err);
}

static int run(const struct bench_options *options, struct error *err)
{
    struct bench_result result = {.name = "plan", .variant = variant(options)};
    struct mppi_config config;
    struct plan plan = {.environments = (int)options->config.envs};
    pool_t *pool = NULL;
    int rc;

    mppi_config_init(&config, &options->config, BENCH_ACTION, BENCH_EPISODE);
    config.half = derive_half(&options->config);
    if ((rc = plan_memory(options, &config, err)) || (rc = bench_model(options, false, &plan.model, err)) ||
        (config.half && (rc = world_model_halve(&plan.model, err))) ||
        (rc = make_obs(&plan, err)) || (rc = pool_create(&pool, options->threads, err)) ||
        (rc = mppi_create(&plan.mppi, &config, &plan.model->layout.dims, plan.environments, pool, err)))
        goto done;
    bench_flops(options, plan_batch, &plan, plan.environments * plan_gflop(&config, plan.model), &result);
    result.rate = 1e3 * plan.environments / result.median_ms;
    result.unit = "plans/s";
    result.mib = bench_resident_mib(false); /* half storage was made from floats */
    bench_report(options, &result);
    if (plan.environments > 1)
        report_pairs(options, &plan);

done:
    mppi_destroy(&plan.mppi);
    pool_destroy(&pool);
    world_model_destroy(&plan.model);
    free(plan.obs);
    return rc;
}

int bench_plan(const struct bench_options *options, struct error *err)
{
    return bench_each_size(options, run, err);
}
