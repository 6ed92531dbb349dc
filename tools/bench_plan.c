/* bench_plan.c - one MPPI plan: the work it must do (DESIGN's count) per second of its median time. */
#include <stdlib.h>

#include "common/plan/mppi.h"
#include "tools/bench_model.h"

struct plan {
    mppi_t *mppi;
    world_model_t *model;
    void *obs;
    float action[BENCH_ACTION];
    uint64_t step;
};

static void plan_once(void *context)
{
    struct plan *plan = context;
    struct rng_key key = {.seed = 1, .purpose = RNG_PLAN, .step = plan->step};
    struct rng rng;
    struct mppi_draws draws;
    int rc;

    rng_init(&rng, &key);
    draws = mppi_draws_rng(&rng);
    rc = mppi_plan(plan->mppi, plan->model, plan->obs, plan->step == 0, false, &draws, plan->action);
    TD_ASSERT(rc == TD_OK, "plan %d", rc);
    plan->step++;
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

static int run(const struct bench_options *options, struct error *err)
{
    struct bench_result result = {.name = "plan", .variant = bench_variant(options)};
    struct mppi_config config;
    struct plan plan = {0};
    pool_t *pool = NULL;
    int rc;

    mppi_config_init(&config, &options->config, BENCH_ACTION, BENCH_EPISODE);
    if ((rc = bench_model(options, false, &plan.model, err)) ||
        (rc = make_obs(&plan, err)) || (rc = pool_create(&pool, options->threads, err)) ||
        (rc = mppi_create(&plan.mppi, &config, &plan.model->layout.dims, 1, pool, err)))
        goto done;
    bench_flops(options, plan_once, &plan, plan_gflop(&config, plan.model), &result);
    result.rate = 1e3 / result.median_ms;
    result.unit = "plans/s";
    bench_report(options, &result);

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
