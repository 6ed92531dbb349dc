/* bench_update.c - one update: the work it must do (DESIGN's count) per second of its median time. */
#include <stdlib.h>
#include <string.h>

#include "learner/update.h"
#include "tools/bench_model.h"

struct work {
    update_t *update;
    world_model_t *model;
    struct batch batch;
    float *data;
    uint8_t *frames;
    uint64_t step;
};

static void update_once(void *context)
{
    struct work *work = context;
    struct rng_key key = {.seed = 1, .purpose = RNG_UPDATE, .step = work->step++};
    struct update_draws draws;
    struct rng rng;
    int rc;

    rng_init(&rng, &key);
    draws = update_draws_rng(&rng);
    rc = update_step(work->update, &work->batch, &draws, NULL);
    TD_ASSERT(rc == TD_OK, "update %d", rc);
}

/*
 * Two flops per weight and row: forward for targets (encoder, policy, two Qs), forward and twice as
 * much backward (pixels: without a gradient at the image) for encoder, dynamics, reward, termination and all Qs, the same for the policy, whose
 * loss goes through two Qs to the action alone.
 */
static double update_gflop(const struct update_config *config, const world_model_t *model)
{
    struct bench_weights w;
    double b = config->batch_size, hb = config->horizon * b, q = model->layout.dims.num_q;

    bench_weights(&w, model);
    return 2e-9 * (hb * (w.encoder + w.pi + 2 * w.q) + b * w.encoder_trained +
                   3 * hb * (w.dynamics + w.reward + w.termination + q * w.q) +
                   (hb + b) * (3 * w.pi + 4 * w.q - 2 * w.shared));
}

/* A batch of made-up rows, small rewards, no terminations. */
static int make_batch(struct work *work, const struct update_config *config, struct error *err)
{
    struct rng_key key = {.seed = 2, .purpose = RNG_TEST};
    size_t rows = (size_t)config->horizon * (size_t)config->batch_size;
    size_t obs = (rows + (size_t)config->batch_size) * BENCH_OBS, action = rows * BENCH_ACTION;
    struct rng rng;

    work->data = calloc(obs + action + 2 * rows, sizeof(float));
    if (work->data == NULL)
        return error_set(err, TD_ENOMEM, "no memory for a batch");
    rng_init(&rng, &key);
    rng_normal(&rng, work->data, obs);
    rng_uniform(&rng, work->data + obs, action, -1, 1);
    rng_uniform(&rng, work->data + obs + action, rows, 0, 2);
    work->batch = (struct batch){.obs = work->data,
                                 .action = work->data + obs,
                                 .reward = work->data + obs + action,
                                 .terminated = work->data + obs + action + rows};
    return TD_OK;
}

/* H + 3 frames of each slice, as replay sends them. */
static int make_frames(struct work *work, const struct update_config *config, struct error *err)
{
    struct rng_key key = {.seed = 3, .purpose = RNG_TEST};
    size_t bytes = ((size_t)config->horizon + 3) * (size_t)config->batch_size * PIXEL_FRAME_BYTES;
    struct rng rng;

    if (!work->model->layout.dims.rgb)
        return TD_OK;
    work->frames = malloc(bytes);
    if (work->frames == NULL)
        return error_set(err, TD_ENOMEM, "no memory for a batch");
    rng_init(&rng, &key);
    for (size_t i = 0; i < bytes; i += 4) {
        uint32_t four = rng_u32(&rng);

        memcpy(work->frames + i, &four, 4);
    }
    work->batch.obs = NULL;
    work->batch.frames = work->frames;
    work->batch.frame_step = 1;
    return TD_OK;
}

/* Say what will be taken, before it is. */
static int plan_memory(const struct bench_options *options, const struct update_config *config, struct error *err)
{
    struct update_memory memory;
    struct model_dims dims;
    int rc;

    if ((rc = bench_dims(options, &dims, err)) != TD_OK ||
        (rc = update_measure(&memory, &dims, config, options->threads, err)) != TD_OK)
        return rc;
    const struct bench_memory parts[] = {
        {"parameters", memory.parameters},   {"targets", memory.targets},
        {"moments", memory.moments},         {"gradients", memory.gradients},
        {"activations", memory.activations}, {"scratch", memory.working},
    };
    return bench_plan_memory(options, "an update of this size", parts, TD_LEN(parts), err);
}

static int run(const struct bench_options *options, struct error *err)
{
    struct bench_result result = {.name = "update", .variant = bench_variant(options)};
    struct update_config config;
    struct work work = {0};
    pool_t *pool = NULL;
    int rc;

    update_config_init(&config, &options->config, BENCH_EPISODE);
    if ((rc = plan_memory(options, &config, err)) || (rc = bench_model(options, true, &work.model, err)) ||
        (rc = pool_create(&pool, options->threads, err)) ||
        (rc = update_create(&work.update, work.model, &config, pool, err)) ||
        (rc = make_batch(&work, &config, err)) || (rc = make_frames(&work, &config, err)))
        goto done;
    bench_flops(options, update_once, &work, update_gflop(&config, work.model), &result);
    result.rate = 1e3 / result.median_ms;
    result.unit = "updates/s";
    result.mib = bench_resident_mib(true);
    bench_report(options, &result);

done:
    update_destroy(&work.update);
    pool_destroy(&pool);
    world_model_destroy(&work.model);
    free(work.data);
    free(work.frames);
    return rc;
}

int bench_update(const struct bench_options *options, struct error *err)
{
    return bench_each_size(options, run, err);
}
