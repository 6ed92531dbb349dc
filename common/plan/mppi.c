#include "common/plan/mppi.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/pixels.h"
#include "common/plan/mppi_internal.h"

#define TILE 256 /* candidates rolled out together; fixed, so that threads do not change the bits */
#define PACK_FLOATS_MAX ((size_t)64 << 20) /* 256 MB: models above are packed product by product */

/* --- options and draws ------------------------------------------------------------------------- */

void mppi_config_init(struct mppi_config *plan, const struct config *config, int action_dim,
                      uint64_t episode_length)
{
    *plan = (struct mppi_config){
        .mpc = config->mpc,
        .horizon = (int)config->horizon,
        .iterations = derive_iterations(config, action_dim),
        .num_samples = (int)config->num_samples,
        .num_elites = (int)config->num_elites,
        .num_pi_trajs = (int)config->num_pi_trajs,
        .min_std = (float)config->min_std,
        .max_std = (float)config->max_std,
        .temperature = (float)config->temperature,
        .discount = derive_discount(config, episode_length),
    };
}

int mppi_config_check(const struct mppi_config *plan, struct error *err)
{
    if (plan->horizon < 1 || plan->iterations < 1 || plan->num_elites < 1 || plan->num_pi_trajs < 0)
        return error_set(err, TD_EINVAL, "horizon=%d, iterations=%d and num_elites=%d must be positive, "
                                         "num_pi_trajs=%d not negative",
                         plan->horizon, plan->iterations, plan->num_elites, plan->num_pi_trajs);
    if (plan->num_elites > plan->num_samples)
        return error_set(err, TD_EINVAL, "num_elites=%d is more than num_samples=%d", plan->num_elites,
                         plan->num_samples);
    if (plan->num_pi_trajs > plan->num_samples)
        return error_set(err, TD_EINVAL, "num_pi_trajs=%d is more than num_samples=%d",
                         plan->num_pi_trajs, plan->num_samples);
    if (!(plan->min_std <= plan->max_std))
        return error_set(err, TD_EINVAL, "min_std=%g is above max_std=%g", (double)plan->min_std,
                         (double)plan->max_std);
    return TD_OK;
}

static void rng_draw(struct rng *out, const void *context, enum mppi_draw kind, int index)
{
    rng_fork(out, context, (uint64_t)kind << 32 | (uint32_t)index);
}

static void rng_fill(const void *context, enum mppi_draw kind, int index, float *out, size_t count)
{
    struct rng rng;

    rng_draw(&rng, context, kind, index);
    if (kind == MPPI_GUMBEL)
        rng_exponential(&rng, out, count);
    else if (kind == MPPI_SHIFT)
        pixels_draw_shifts(&rng, out, count);
    else
        rng_normal(&rng, out, count);
}

/* The first two of a uniform permutation. */
static void rng_heads(const void *context, int index, int num_q, int two[2])
{
    struct rng rng;

    rng_draw(&rng, context, MPPI_HEADS, index);
    two[0] = (int)rng_below(&rng, (uint32_t)num_q);
    two[1] = (int)rng_below(&rng, (uint32_t)num_q - 1);
    two[1] += two[1] >= two[0];
}

struct mppi_draws mppi_draws_rng(const struct rng *rng)
{
    return (struct mppi_draws){.context = rng, .fill = rng_fill, .heads = rng_heads};
}

/* --- memory ------------------------------------------------------------------------------------ */

/* Packed weights: for every net that many candidates go through, unless that takes too much memory. */
static void lay_out_panels(struct mppi *mppi, struct arena *arena, size_t model_floats)
{
    int what = mppi->config.half ? MLP_PACK_HALF : MLP_PACK_FORWARD;

    if (!mppi->config.mpc || model_floats > PACK_FLOATS_MAX)
        what = 0;
    for (int i = MODEL_DYNAMICS; i <= MODEL_PI; i++)
        mlp_panels_init(&mppi->panels[i], &mppi->part[i], i == MODEL_Q ? mppi->dims.num_q : 1, what, arena);
}

/* Rows of the largest tile, and of the policy's candidates before they are valued. */
static size_t scratch_rows(const struct mppi *mppi)
{
    int most = mppi->config.num_pi_trajs;

    for (int i = 0; i < mppi->tiles; i++)
        if (mppi->tile[i].rows + mppi->tile[i].extra > most)
            most = mppi->tile[i].rows + mppi->tile[i].extra;
    return (size_t)most;
}

static void lay_out_scratch(struct mppi *mppi, struct arena *arena, size_t mlp_floats,
                            const struct pixel_net *pixels)
{
    size_t rows = scratch_rows(mppi);

    for (int i = 0; i < mppi->scratches; i++) {
        struct scratch *scratch = &mppi->scratch[i];

        scratch->za = arena_floats(arena, rows * (size_t)mppi->width);
        scratch->logits = arena_floats(arena, rows * (size_t)mppi->dims.num_bins);
        scratch->net = arena_floats(arena, rows * 2 * (size_t)mppi->dims.action_dim);
        scratch->number[0] = arena_floats(arena, rows);
        scratch->number[1] = arena_floats(arena, rows);
        scratch->mlp = arena_floats(arena, mlp_floats);
        if (mppi->dims.rgb)
            pixel_scratch_init(&scratch->pixels, pixels, false, arena);
    }
}

static void lay_out_plan(const struct mppi *mppi, struct plan *plan, struct arena *arena)
{
    const struct mppi_config *config = &mppi->config;
    size_t h = (size_t)config->horizon, s = (size_t)config->num_samples, p = (size_t)config->num_pi_trajs;
    size_t a = (size_t)mppi->dims.action_dim, width = (size_t)mppi->width;

    plan->mppi = mppi;
    plan->mean = arena_floats(arena, h * a);
    plan->std = arena_floats(arena, h * a);
    plan->previous = arena_floats(arena, h * a);
    plan->actions = arena_floats(arena, h * s * a);
    plan->value = arena_floats(arena, s);
    plan->gain = arena_floats(arena, s);
    plan->done = arena_floats(arena, s);
    plan->latent = arena_floats(arena, width);
    if (mppi->dims.task_dim > 0)
        plan->seen = arena_floats(arena, (size_t)(mppi->dims.obs_dim + mppi->dims.task_dim));
    plan->power = arena_alloc(arena, h + 1, sizeof(double));
    plan->policy_za = arena_floats(arena, p * width);
    plan->pi_noise = arena_floats(arena, h * p * a);
    plan->candidate_noise = arena_floats(arena, h * (s - p) * a);
    plan->terminal_noise = arena_floats(arena, s * a);
    plan->bias_dynamics = arena_floats(arena, (size_t)mppi->dims.mlp_dim);
    plan->bias_reward = arena_floats(arena, (size_t)mppi->dims.mlp_dim);
    plan->score = arena_floats(arena, (size_t)config->num_elites);
    plan->gumbel = arena_floats(arena, (size_t)config->num_elites);
    plan->order = arena_alloc(arena, s, sizeof(int));
}

/* Run twice: once to measure, once over real memory. */
static void lay_out(struct mppi *mppi, struct arena *arena, const struct model_layout *layout, size_t mlp_floats)
{
    struct pixel_net pixels;

    if (mppi->dims.rgb) { /* the convolutions only know packed weights */
        pixel_net_init(&pixels, mppi->dims.num_channels, mppi->dims.simnorm_dim);
        pixel_panels_init(&mppi->pixel_panels, &pixels, false, arena);
    }
    lay_out_panels(mppi, arena, model_acting_floats(layout));
    lay_out_scratch(mppi, arena, mlp_floats, &pixels);
    for (int i = 0; i < mppi->environments; i++)
        lay_out_plan(mppi, &mppi->plan[i], arena);
}

/* Part `part` of `count` things dealt to `parts`, in multiples of 4; returns how many. */
static int share(int count, int parts, int part, int *first)
{
    int each = ((count + parts - 1) / parts + 3) / 4 * 4;
    int begin = each * part < count ? each * part : count;

    *first = begin;
    return begin + each < count ? each : count - begin;
}

static void cut_tiles(struct mppi *mppi)
{
    int pi = mppi->config.num_pi_trajs, sampled = mppi->config.num_samples - pi;

    for (int i = 0; i < mppi->tiles; i++) {
        struct tile *tile = &mppi->tile[i];

        tile->rows = share(sampled, mppi->tiles, i, &tile->first);
        tile->first += pi;
        /* In the other order: the last tile may have the fewest sampled ones. */
        tile->extra = share(pi, mppi->tiles, mppi->tiles - 1 - i, &tile->pi);
    }
}

/* The largest scratch any of the nets asks for. */
static size_t mlp_floats_of(const struct mlp part[MODEL_PARTS])
{
    size_t floats = 0;

    for (int i = 0; i < MODEL_TARGET_Q; i++)
        if (part[i].layers > 0 && mlp_scratch(&part[i]) > floats)
            floats = mlp_scratch(&part[i]);
    return floats;
}

/* A scratch for each task that can be under way at a time. */
static int count_scratches(struct mppi *mppi)
{
    int tasks = mppi->environments * mppi->tiles, threads = mppi->threads;

    mppi->by_worker = threads < tasks;
    return mppi->by_worker ? threads : tasks;
}

static int make_parts(struct mppi *mppi)
{
    int sampled = mppi->config.num_samples - mppi->config.num_pi_trajs;

    mppi->tiles = sampled > 0 ? (sampled + TILE - 1) / TILE : 1;
    mppi->scratches = count_scratches(mppi);
    mppi->tile = calloc((size_t)mppi->tiles, sizeof(*mppi->tile));
    mppi->plan = calloc((size_t)mppi->environments, sizeof(*mppi->plan));
    mppi->scratch = calloc((size_t)mppi->scratches, sizeof(*mppi->scratch));
    if (mppi->tile == NULL || mppi->plan == NULL || mppi->scratch == NULL)
        return TD_ENOMEM;
    cut_tiles(mppi);
    return TD_OK;
}

/* Lay out twice: to measure, then over real memory, unless only `*bytes` is wanted. */
static int make_memory(struct mppi *mppi, size_t *bytes)
{
    static const float nowhere[1];
    struct model_layout *layout = malloc(sizeof(*layout));
    struct arena measure;
    size_t mlp_floats;
    int rc = TD_ENOMEM;

    if (layout == NULL)
        return rc;
    model_layout_init(layout, &mppi->dims);
    if (mppi->config.half) /* for their sizes */
        model_half_views(layout, nowhere, mppi->part);
    else
        model_views(layout, nowhere, mppi->part);
    mlp_floats = mlp_floats_of(mppi->part);
    arena_measure(&measure);
    lay_out(mppi, &measure, layout, mlp_floats);
    *bytes = measure.used;
    rc = mppi->measured ? TD_OK : arena_init(&mppi->arena, measure.used);
    if (rc == TD_OK && !mppi->measured)
        lay_out(mppi, &mppi->arena, layout, mlp_floats);
    free(layout);
    return rc;
}

static int make(struct mppi **out, const struct mppi_config *config, const struct model_dims *dims, int environments,
                int threads, size_t *bytes, bool measured, struct error *err)
{
    struct mppi *mppi;
    int rc;

    *out = NULL;
    if ((rc = mppi_config_check(config, err)) || (rc = model_dims_check(dims, err)))
        return rc;
    TD_ASSERT(environments >= 1 && environments <= MPPI_ENVIRONMENTS_MAX, "%d environments", environments);
    mppi = calloc(1, sizeof(*mppi));
    if (mppi == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a planner");
    mppi->config = *config;
    mppi->dims = *dims;
    mppi->environments = environments;
    mppi->threads = threads;
    mppi->measured = measured;
    mppi->width = dims->latent_dim + dims->task_dim + dims->action_dim;
    if (make_parts(mppi) != TD_OK || make_memory(mppi, bytes) != TD_OK) {
        mppi_destroy(&mppi);
        return error_set(err, TD_ENOMEM, "out of memory for a planner of %d samples for %d environments",
                         config->num_samples, environments);
    }
    *out = mppi;
    return TD_OK;
}

int mppi_create(mppi_t **out, const struct mppi_config *config, const struct model_dims *dims,
                int environments, pool_t *pool, struct error *err)
{
    size_t bytes;
    int rc = make(out, config, dims, environments, pool_threads(pool), &bytes, false, err);

    if (rc == TD_OK)
        (*out)->pool = pool;
    return rc;
}

int mppi_measure(size_t *bytes, const struct mppi_config *config, const struct model_dims *dims, int environments,
                 int threads, struct error *err)
{
    struct mppi *mppi;
    int rc = make(&mppi, config, dims, environments, threads, bytes, true, err);

    mppi_destroy(&mppi);
    return rc;
}

void mppi_destroy(mppi_t **pointer)
{
    struct mppi *mppi = *pointer;

    *pointer = NULL;
    if (mppi == NULL)
        return;
    arena_release(&mppi->arena);
    free(mppi->tile);
    free(mppi->plan);
    free(mppi->scratch);
    free(mppi);
}

float *mppi_previous_mean(mppi_t *mppi, int environment)
{
    TD_ASSERT(environment >= 0 && environment < mppi->environments, "environment %d", environment);
    return mppi->plan[environment].previous;
}

size_t mppi_bytes(const mppi_t *mppi)
{
    return mppi->arena.used;
}

void mppi_set_watch(mppi_t *mppi, const struct mppi_watch *watch)
{
    mppi->watch = watch;
}

/* --- the loop ---------------------------------------------------------------------------------- */

static int pixel_layers(const struct mppi *mppi)
{
    return mppi->dims.rgb ? PIXEL_LAYERS : 0;
}

/* Pool task: one layer of the pixel encoder, or of one head. */
static void pack_task(void *context, int task, int worker)
{
    struct mppi *mppi = context;

    (void)worker;
    if (task < pixel_layers(mppi)) {
        pixel_panels_pack(&mppi->pixel_panels, &mppi->model->pixels, task);
        return;
    }
    task -= pixel_layers(mppi);
    for (int i = MODEL_DYNAMICS; i <= MODEL_PI; i++) {
        int tasks = mlp_panels_tasks(&mppi->panels[i], &mppi->part[i]);

        if (task < tasks) {
            mlp_panels_pack(&mppi->panels[i], &mppi->part[i], task);
            return;
        }
        task -= tasks;
    }
}

/* Views of the model's nets for this batch: its weights as they are now, packed. */
static void pack_model(struct mppi *mppi)
{
    int tasks = 0;

    for (int i = 0; i < MODEL_TARGET_Q; i++) {
        mppi->part[i] = mppi->model->part[i];
        if (i < MODEL_DYNAMICS || !mppi->config.mpc)
            continue;
        tasks += mlp_panels_tasks(&mppi->panels[i], &mppi->part[i]);
        mlp_panels_use(&mppi->part[i], &mppi->panels[i]);
    }
    pool_run(mppi->pool, pack_task, mppi, pixel_layers(mppi) + tasks);
}

static struct plan *plan_of(struct mppi *mppi, int request)
{
    return &mppi->plan[mppi->requests[request].environment];
}

/* Of the task with this number among those under way. */
static struct scratch *scratch_of(struct mppi *mppi, int task, int worker)
{
    return &mppi->scratch[mppi->by_worker ? worker : task];
}

/* What the task of the request brings: discount, mask, and its embedding beside what is seen and behind the latent. */
static void take_task(struct plan *plan)
{
    const struct mppi *mppi = plan->mppi;
    const world_model_t *model = mppi->model;
    const struct model_task *task = mppi->dims.num_tasks > 0 ? &model->task[plan->request->task] : NULL;
    size_t obs = (size_t)mppi->dims.obs_dim, e = (size_t)mppi->dims.task_dim;
    float *embedding = plan->latent + mppi->dims.latent_dim;

    plan->head = model->head;
    plan->power[0] = 1.0;
    for (int t = 0; t < mppi->config.horizon; t++)
        plan->power[t + 1] = plan->power[t] * (task != NULL ? (double)task->discount : mppi->config.discount);
    if (task == NULL)
        return;
    plan->head.padding = plan->head.action_dim - task->action_dim;
    memcpy(embedding, model_embeddings(&model->layout, model->parameters) + (size_t)plan->request->task * e,
           e * sizeof(float));
    embedding_renorm(embedding, (int)e);
    memcpy(plan->seen, plan->request->obs, obs * sizeof(float));
    memcpy(plan->seen + obs, embedding, e * sizeof(float));
}

/* The latent of what is seen: floats, or nine stacked planes of bytes, cropped also when acting. */
static void encode(struct plan *plan, struct scratch *scratch)
{
    const struct mppi *mppi = plan->mppi;
    const struct mppi_draws *draws = &plan->request->draws;
    struct pixel_obs seen;
    float shift[2];

    if (!mppi->dims.rgb) {
        mlp_forward(&mppi->part[MODEL_ENCODER], mppi->dims.task_dim > 0 ? plan->seen : plan->request->obs,
                    (size_t)(mppi->dims.obs_dim + mppi->dims.task_dim), 1, plan->latent, (size_t)mppi->width,
                    scratch->mlp);
        return;
    }
    draws->fill(draws->context, MPPI_SHIFT, 0, shift, 2);
    seen = (struct pixel_obs){.column = (int)shift[0], .row = (int)shift[1]};
    for (int k = 0; k < PIXEL_FRAMES; k++)
        seen.frame[k] = (const uint8_t *)plan->request->obs + (size_t)k * PIXEL_FRAME_BYTES;
    pixel_forward(&mppi->model->pixels, &mppi->pixel_panels, &seen, &scratch->pixels, NULL, plan->latent);
}

/* Fold the shared latent into first-layer biases, set mean and std to begin with, roll out the policy. */
static void begin(struct plan *plan, struct scratch *scratch)
{
    const struct mppi *mppi = plan->mppi;
    const struct mppi_draws *draws = &plan->request->draws;
    int horizon = mppi->config.horizon, dim = mppi->dims.action_dim;
    int shared = mppi->width - dim;
    size_t noises = (size_t)mppi->config.num_pi_trajs * (size_t)dim;

    mlp_share(&plan->reward0, &mppi->part[MODEL_REWARD], plan->latent, shared, plan->bias_reward);
    mlp_share(&plan->dynamics0, &mppi->part[MODEL_DYNAMICS], plan->latent, shared, plan->bias_dynamics);
    for (int i = 0; i < horizon * dim; i++) {
        plan->mean[i] = !plan->request->first && i < (horizon - 1) * dim ? plan->previous[i + dim] : 0.0f;
        plan->std[i] = mppi->config.max_std;
    }
    for (int t = 0; t < horizon; t++)
        draws->fill(draws->context, MPPI_POLICY_NOISE, t, plan->pi_noise + (size_t)t * noises, noises);
    rollout_policy(plan, scratch);
}

/* Without planning: a sample of the policy, or its mean. */
static void act_by_policy(struct plan *plan, struct scratch *scratch)
{
    const struct mppi *mppi = plan->mppi;
    const struct mppi_request *request = plan->request;
    size_t dim = (size_t)mppi->dims.action_dim;
    float *noise = plan->mean; /* [A] of memory that planning would use */

    mlp_forward(&mppi->part[MODEL_PI], plan->latent, (size_t)mppi->width, 1, scratch->net, 2 * dim, scratch->mlp);
    if (request->eval) {
        policy_mean(&plan->head, scratch->net, 2 * dim, 1, request->action, dim);
        return;
    }
    request->draws.fill(request->draws.context, MPPI_ACTION_NOISE, 0, noise, dim);
    policy_sample(&plan->head, scratch->net, 2 * dim, noise, 1, request->action, dim);
}

/* The noise of one iteration: of the sampled candidates, or of all at the horizon. */
static void draw_noise(struct plan *plan, enum mppi_draw kind, int iteration)
{
    const struct mppi_config *config = &plan->mppi->config;
    const struct mppi_draws *draws = &plan->request->draws;
    size_t h = (size_t)config->horizon, p = (size_t)config->num_pi_trajs;
    size_t s = (size_t)config->num_samples, a = (size_t)plan->mppi->dims.action_dim;

    if (kind == MPPI_CANDIDATE_NOISE)
        draws->fill(draws->context, kind, iteration, plan->candidate_noise, h * (s - p) * a);
    else
        draws->fill(draws->context, kind, iteration, plan->terminal_noise, s * a);
}

/*
 * Pool tasks between two rounds of tiles. Of every request first its own part (tasks 0 .. count - 1), then
 * the noise of the coming iteration, twice as many.
 */
static void noise_task(struct mppi *mppi, int task, int iteration)
{
    draw_noise(plan_of(mppi, task % mppi->count),
               task < 2 * mppi->count ? MPPI_CANDIDATE_NOISE : MPPI_TERMINAL_NOISE, iteration);
}

static void begin_task(void *context, int task, int worker)
{
    struct mppi *mppi = context;
    struct plan *plan;
    struct scratch *scratch;

    if (task >= mppi->count) {
        noise_task(mppi, task, 0);
        return;
    }
    plan = plan_of(mppi, task);
    scratch = scratch_of(mppi, task, worker);
    take_task(plan);
    encode(plan, scratch);
    if (mppi->config.mpc)
        begin(plan, scratch);
    else
        act_by_policy(plan, scratch);
}

static void refit_task(void *context, int task, int worker)
{
    struct mppi *mppi = context;

    (void)worker;
    if (task < mppi->count)
        plan_refit(plan_of(mppi, task));
    else
        noise_task(mppi, task, mppi->iteration + 1);
}

/* The last refit, and what comes of it. */
static void finish_task(void *context, int task, int worker)
{
    struct mppi *mppi = context;
    struct plan *plan = plan_of(mppi, task);

    (void)worker;
    plan_refit(plan);
    plan_pick_action(plan);
    memcpy(plan->previous, plan->mean, (size_t)(mppi->config.horizon * mppi->dims.action_dim) * sizeof(float));
}

/* One environment's tile: tiles of all of them are dealt to the pool at once, and straddle none. */
static void tile_task(void *context, int task, int worker)
{
    struct mppi *mppi = context;

    rollout_tile(plan_of(mppi, task / mppi->tiles), &mppi->tile[task % mppi->tiles],
                 scratch_of(mppi, task, worker));
}

static void iterate(struct mppi *mppi, int iteration)
{
    bool last = iteration == mppi->config.iterations - 1;

    mppi->iteration = iteration;
    for (int i = 0; i < mppi->count; i++) {
        struct plan *plan = plan_of(mppi, i);
        const struct mppi_draws *draws = &plan->request->draws;
        int two[2];

        draws->heads(draws->context, iteration, mppi->dims.num_q, two);
        for (int k = 0; k < 2; k++)
            mlp_head(&plan->q[k], &mppi->part[MODEL_Q], two[k]);
    }
    pool_run(mppi->pool, tile_task, mppi, mppi->count * mppi->tiles);
    for (int i = 0; mppi->watch != NULL && i < mppi->count; i++)
        mppi->watch->iteration(mppi->watch->context, mppi->requests[i].environment, iteration,
                               plan_of(mppi, i)->value, plan_of(mppi, i)->actions);
    pool_run(mppi->pool, last ? finish_task : refit_task, mppi, last ? mppi->count : 3 * mppi->count);
}

static void assert_same_sizes(const struct model_dims *a, const struct model_dims *b)
{
    TD_ASSERT(a->obs_dim == b->obs_dim && a->action_dim == b->action_dim &&
                  a->latent_dim == b->latent_dim && a->mlp_dim == b->mlp_dim &&
                  a->enc_dim == b->enc_dim && a->enc_layers == b->enc_layers && a->num_q == b->num_q &&
                  a->num_bins == b->num_bins && a->episodic == b->episodic && a->rgb == b->rgb &&
                  a->num_tasks == b->num_tasks && a->task_dim == b->task_dim &&
                  (!a->rgb || a->num_channels == b->num_channels),
              "planner and model differ in size");
}

/* Every environment at most once. */
static void take_requests(struct mppi *mppi, struct mppi_request *requests, int count)
{
    TD_ASSERT(count >= 0 && count <= mppi->environments, "%d requests of %d environments", count,
              mppi->environments);
    mppi->requests = requests;
    mppi->count = count;
    for (int i = 0; i < mppi->environments; i++)
        mppi->plan[i].request = NULL;
    for (int i = 0; i < count; i++) {
        int environment = requests[i].environment;

        TD_ASSERT(environment >= 0 && environment < mppi->environments &&
                      mppi->plan[environment].request == NULL,
                  "environment %d of %d, or twice", environment, mppi->environments);
        TD_ASSERT(mppi->dims.num_tasks == 0 || requests[i].task < (uint32_t)mppi->dims.num_tasks, "task %u of %d",
                  requests[i].task, mppi->dims.num_tasks);
        mppi->plan[environment].request = &requests[i];
    }
}

static int check_action(const float *action, int dim)
{
    for (int j = 0; j < dim; j++)
        if (!isfinite(action[j]))
            return TD_EDIVERGED;
    return TD_OK;
}

int mppi_plan_batch(mppi_t *mppi, const world_model_t *model, struct mppi_request *requests, int count)
{
    int rc = TD_OK;

    assert_same_sizes(&mppi->dims, &model->layout.dims);
    TD_ASSERT(model->half == mppi->config.half, "a planner for the other storage");
    TD_ASSERT(mppi->dims.num_tasks == 0 || model->task[0].action_dim > 0, "the model's tasks are not set");
    take_requests(mppi, requests, count);
    if (count == 0)
        return TD_OK;
    mppi->model = model;
    pack_model(mppi);
    pool_run(mppi->pool, begin_task, mppi, mppi->config.mpc ? 3 * count : count);
    for (int i = 0; mppi->config.mpc && i < mppi->config.iterations; i++)
        iterate(mppi, i);
    for (int i = 0; i < count; i++) {
        requests[i].status = check_action(requests[i].action, mppi->dims.action_dim);
        if (requests[i].status != TD_OK)
            rc = requests[i].status;
    }
    return rc;
}

int mppi_plan(mppi_t *mppi, const world_model_t *model, const void *obs, bool first, bool eval,
              const struct mppi_draws *draws, float *action)
{
    struct mppi_request request = {.obs = obs, .first = first, .eval = eval, .draws = *draws, .action = action};

    return mppi_plan_batch(mppi, model, &request, 1);
}
