#include "common/plan/mppi.h"

#include <float.h>
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

static void lay_out_tile(const struct mppi *mppi, struct tile *tile, struct arena *arena,
                         size_t mlp_floats)
{
    size_t rows = (size_t)(tile->rows + tile->extra);

    tile->za = arena_floats(arena, rows * (size_t)mppi->width);
    tile->logits = arena_floats(arena, rows * (size_t)mppi->dims.num_bins);
    tile->net = arena_floats(arena, rows * 2 * (size_t)mppi->dims.action_dim);
    tile->number[0] = arena_floats(arena, rows);
    tile->number[1] = arena_floats(arena, rows);
    tile->mlp = arena_floats(arena, mlp_floats);
}

/* The pixel encoder's, whose convolutions only know packed weights. */
static void lay_out_pixels(struct mppi *mppi, struct arena *arena)
{
    struct pixel_net net;

    if (!mppi->dims.rgb)
        return;
    pixel_net_init(&net, mppi->dims.num_channels, mppi->dims.simnorm_dim);
    pixel_panels_init(&mppi->pixel_panels, &net, false, arena);
    pixel_scratch_init(&mppi->pixel_scratch, &net, false, arena);
}

/* Packed weights: for every net that many candidates go through, unless that takes too much memory. */
static void lay_out_panels(struct mppi *mppi, struct arena *arena, size_t model_floats)
{
    int what = mppi->config.mpc && model_floats <= PACK_FLOATS_MAX ? MLP_PACK_FORWARD : 0;

    for (int i = MODEL_DYNAMICS; i <= MODEL_PI; i++)
        mlp_panels_init(&mppi->panels[i], &mppi->part[i], i == MODEL_Q ? mppi->dims.num_q : 1, what, arena);
}

/* Run twice: once to measure, once over real memory. */
static void lay_out(struct mppi *mppi, struct arena *arena, size_t mlp_floats)
{
    const struct mppi_config *config = &mppi->config;
    size_t h = (size_t)config->horizon, s = (size_t)config->num_samples, p = (size_t)config->num_pi_trajs;
    size_t n = (size_t)config->iterations, a = (size_t)mppi->dims.action_dim;

    mppi->mean = arena_floats(arena, h * a);
    mppi->std = arena_floats(arena, h * a);
    mppi->previous = arena_floats(arena, h * a);
    mppi->actions = arena_floats(arena, h * s * a);
    mppi->value = arena_floats(arena, s);
    mppi->gain = arena_floats(arena, s);
    mppi->done = arena_floats(arena, s);
    mppi->latent = arena_floats(arena, (size_t)mppi->width);
    mppi->pi_noise = arena_floats(arena, h * p * a);
    mppi->candidate_noise = arena_floats(arena, n * h * (s - p) * a);
    mppi->terminal_noise = arena_floats(arena, n * s * a);
    mppi->bias_dynamics = arena_floats(arena, (size_t)mppi->dims.mlp_dim);
    mppi->bias_reward = arena_floats(arena, (size_t)mppi->dims.mlp_dim);
    mppi->score = arena_floats(arena, (size_t)config->num_elites);
    mppi->gumbel = arena_floats(arena, (size_t)config->num_elites);
    mppi->order = arena_alloc(arena, s, sizeof(int));
    mppi->power = arena_alloc(arena, h + 1, sizeof(double));
    lay_out_tile(mppi, &mppi->policy, arena, mlp_floats);
    for (int i = 0; i < mppi->tiles; i++)
        lay_out_tile(mppi, &mppi->tile[i], arena, mlp_floats);
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

    mppi->policy.rows = pi;
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

int mppi_create(mppi_t **out, const struct mppi_config *config, const struct model_dims *dims,
                pool_t *pool, struct error *err)
{
    static const float nowhere[1];
    struct mppi *mppi = NULL;
    struct model_layout *layout = NULL;
    struct arena measure;
    size_t mlp_floats;
    int rc;

    *out = NULL;
    if ((rc = mppi_config_check(config, err)) || (rc = model_dims_check(dims, err)))
        return rc;
    mppi = calloc(1, sizeof(*mppi));
    layout = malloc(sizeof(*layout));
    if (mppi == NULL || layout == NULL)
        goto no_memory;
    mppi->config = *config;
    mppi->dims = *dims;
    mppi->pool = pool;
    mppi->width = dims->latent_dim + dims->task_dim + dims->action_dim;
    mppi->tiles = (config->num_samples - config->num_pi_trajs + TILE - 1) / TILE;
    mppi->tiles = mppi->tiles > 0 ? mppi->tiles : 1;
    mppi->tile = calloc((size_t)mppi->tiles, sizeof(*mppi->tile));
    if (mppi->tile == NULL)
        goto no_memory;
    cut_tiles(mppi);
    model_layout_init(layout, dims);
    model_views(layout, nowhere, mppi->part); /* for their sizes */
    mlp_floats = mlp_floats_of(mppi->part);
    arena_measure(&measure);
    lay_out(mppi, &measure, mlp_floats);
    lay_out_panels(mppi, &measure, model_acting_floats(layout));
    lay_out_pixels(mppi, &measure);
    if (arena_init(&mppi->arena, measure.used) != TD_OK)
        goto no_memory;
    lay_out(mppi, &mppi->arena, mlp_floats);
    lay_out_panels(mppi, &mppi->arena, model_acting_floats(layout));
    lay_out_pixels(mppi, &mppi->arena);
    mppi->power[0] = 1.0;
    for (int t = 0; t < config->horizon; t++)
        mppi->power[t + 1] = mppi->power[t] * config->discount;
    free(layout);
    *out = mppi;
    return TD_OK;

no_memory:
    free(layout);
    mppi_destroy(&mppi);
    return error_set(err, TD_ENOMEM, "out of memory for a planner of %d samples", config->num_samples);
}

void mppi_destroy(mppi_t **pointer)
{
    struct mppi *mppi = *pointer;

    *pointer = NULL;
    if (mppi == NULL)
        return;
    arena_release(&mppi->arena);
    free(mppi->tile);
    free(mppi);
}

float *mppi_previous_mean(mppi_t *mppi)
{
    return mppi->previous;
}

void mppi_set_watch(mppi_t *mppi, const struct mppi_watch *watch)
{
    mppi->watch = watch;
}

/* --- the loop ---------------------------------------------------------------------------------- */

/* Pool task: the noise of the policy's candidates (0), then of one iteration. */
static void draw_noise(void *context, int task, int worker)
{
    struct mppi *mppi = context;
    const struct mppi_draws *draws = mppi->draws;
    size_t h = (size_t)mppi->config.horizon, p = (size_t)mppi->config.num_pi_trajs;
    size_t s = (size_t)mppi->config.num_samples, a = (size_t)mppi->dims.action_dim;
    int i = (task - 1) / 2;

    (void)worker;
    if (task == 0)
        for (int t = 0; t < mppi->config.horizon; t++)
            draws->fill(draws->context, MPPI_POLICY_NOISE, t, mppi->pi_noise + (size_t)t * p * a, p * a);
    else if (task % 2 == 1)
        draws->fill(draws->context, MPPI_CANDIDATE_NOISE, i,
                    mppi->candidate_noise + (size_t)i * h * (s - p) * a, h * (s - p) * a);
    else
        draws->fill(draws->context, MPPI_TERMINAL_NOISE, i, mppi->terminal_noise + (size_t)i * s * a, s * a);
}

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

/* Views of the model's nets for this plan: its weights as they are now, packed. */
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

static void tile_task(void *context, int task, int worker)
{
    (void)worker;
    rollout_tile(context, task);
}

/* The latent of what is seen: floats, or nine stacked planes of bytes, cropped also when acting. */
static void encode(struct mppi *mppi, const void *obs)
{
    struct pixel_obs seen;
    float shift[2];

    if (!mppi->dims.rgb) {
        mlp_forward(&mppi->part[MODEL_ENCODER], obs, (size_t)mppi->dims.obs_dim, 1, mppi->latent,
                    (size_t)mppi->width, mppi->policy.mlp);
        return;
    }
    mppi->draws->fill(mppi->draws->context, MPPI_SHIFT, 0, shift, 2);
    seen = (struct pixel_obs){.column = (int)shift[0], .row = (int)shift[1]};
    for (int k = 0; k < PIXEL_FRAMES; k++)
        seen.frame[k] = (const uint8_t *)obs + (size_t)k * PIXEL_FRAME_BYTES;
    pixel_forward(&mppi->model->pixels, &mppi->pixel_panels, &seen, &mppi->pixel_scratch, NULL, mppi->latent);
}

/* Encode, fold the shared latent into first-layer biases, set mean and std to begin with. */
static void begin(struct mppi *mppi, const void *obs, bool first)
{
    const struct mlp *part = mppi->part;
    int horizon = mppi->config.horizon, dim = mppi->dims.action_dim;
    int shared = mppi->width - dim;

    encode(mppi, obs);
    if (!mppi->config.mpc)
        return;
    mlp_share(&mppi->reward0, &part[MODEL_REWARD], mppi->latent, shared, mppi->bias_reward);
    mlp_share(&mppi->dynamics0, &part[MODEL_DYNAMICS], mppi->latent, shared, mppi->bias_dynamics);
    for (int i = 0; i < horizon * dim; i++) {
        mppi->mean[i] = !first && i < (horizon - 1) * dim ? mppi->previous[i + dim] : 0.0f;
        mppi->std[i] = mppi->config.max_std;
    }
}

/* Better first; equal values in candidate order, so that the order is one whatever the sort. */
static bool better(const float *value, int a, int b)
{
    return value[a] > value[b] || (value[a] == value[b] && a < b);
}

/* Heap of the worst on top: moves order[root] down. */
static void sift(const float *value, int *order, int root, int count)
{
    for (int child; (child = 2 * root + 1) < count; root = child) {
        int kept = order[root];

        if (child + 1 < count && better(value, order[child], order[child + 1]))
            child++;
        if (better(value, order[child], kept))
            return;
        order[root] = order[child];
        order[child] = kept;
    }
}

/* order[0 .. elites - 1] = the best candidates, best first. */
static void choose_elites(struct mppi *mppi)
{
    int *order = mppi->order, elites = mppi->config.num_elites;
    const float *value = mppi->value;

    for (int i = 0; i < elites; i++)
        order[i] = i;
    for (int i = elites / 2 - 1; i >= 0; i--)
        sift(value, order, i, elites);
    for (int i = elites; i < mppi->config.num_samples; i++)
        if (better(value, i, order[0])) {
            order[0] = i;
            sift(value, order, 0, elites);
        }
    for (int end = elites - 1; end > 0; end--) {
        int kept = order[0];

        order[0] = order[end];
        order[end] = kept;
        sift(value, order, 0, end);
    }
}

/* NaN counts 0, infinities as the largest floats. */
static void remove_nan(float *value, int count)
{
    for (int i = 0; i < count; i++)
        if (isnan(value[i]))
            value[i] = 0.0f;
        else if (isinf(value[i]))
            value[i] = value[i] > 0 ? FLT_MAX : -FLT_MAX;
}

/* score_i = exp(temperature (V_i - V_max)), over their sum. Returns the new sum. */
static float score_elites(struct mppi *mppi)
{
    int elites = mppi->config.num_elites;
    float best = mppi->value[mppi->order[0]];
    double sum = 0, total = 0;

    for (int i = 0; i < elites; i++) {
        mppi->score[i] = expf(mppi->config.temperature * (mppi->value[mppi->order[i]] - best));
        sum += (double)mppi->score[i];
    }
    for (int i = 0; i < elites; i++) {
        mppi->score[i] /= (float)sum;
        total += (double)mppi->score[i];
    }
    return (float)total;
}

static float elite_action(const struct mppi *mppi, int elite, int t, int j)
{
    size_t row = (size_t)t * (size_t)mppi->config.num_samples + (size_t)mppi->order[elite];

    return mppi->actions[row * (size_t)mppi->dims.action_dim + (size_t)j];
}

/* Mean and std of the elites' actions, weighted by score. */
static void refit(struct mppi *mppi, float total)
{
    const struct mppi_config *config = &mppi->config;
    int dim = mppi->dims.action_dim;
    double below = (double)(total + 1e-9f);

    for (int t = 0; t < config->horizon; t++)
        for (int j = 0; j < dim; j++) {
            double mean = 0, square = 0;
            float std;

            for (int i = 0; i < config->num_elites; i++)
                mean += (double)mppi->score[i] * (double)elite_action(mppi, i, t, j);
            mean /= below;
            for (int i = 0; i < config->num_elites; i++) {
                double off = (double)elite_action(mppi, i, t, j) - mean;

                square += (double)mppi->score[i] * off * off;
            }
            std = (float)sqrt(square / below);
            std = std < config->min_std ? config->min_std : std;
            mppi->std[t * dim + j] = std > config->max_std ? config->max_std : std;
            mppi->mean[t * dim + j] = (float)mean;
        }
}

static void iterate(struct mppi *mppi, int iteration)
{
    int two[2];

    mppi->iteration = iteration;
    mppi->draws->heads(mppi->draws->context, iteration, mppi->dims.num_q, two);
    for (int i = 0; i < 2; i++)
        mlp_head(&mppi->q[i], &mppi->part[MODEL_Q], two[i]);
    pool_run(mppi->pool, tile_task, mppi, mppi->tiles);
    if (mppi->watch != NULL)
        mppi->watch->iteration(mppi->watch->context, iteration, mppi->value, mppi->actions);
    remove_nan(mppi->value, mppi->config.num_samples);
    choose_elites(mppi);
    refit(mppi, score_elites(mppi));
}

/* The first action of one elite, drawn by score (Gumbel), with noise unless evaluating. */
static void pick_action(struct mppi *mppi, bool eval, float *action)
{
    const struct mppi_draws *draws = mppi->draws;
    int dim = mppi->dims.action_dim, elites = mppi->config.num_elites, chosen = 0;
    float best = -INFINITY;

    draws->fill(draws->context, MPPI_GUMBEL, 0, mppi->gumbel, (size_t)elites);
    for (int i = 0; i < elites; i++) {
        float key = logf(mppi->score[i]) - logf(mppi->gumbel[i]);

        if (key > best) {
            best = key;
            chosen = i;
        }
    }
    memset(action, 0, (size_t)dim * sizeof(float));
    if (!eval)
        draws->fill(draws->context, MPPI_ACTION_NOISE, 0, action, (size_t)dim);
    for (int j = 0; j < dim; j++) {
        float x = elite_action(mppi, chosen, 0, j) + (eval ? 0.0f : mppi->std[j] * action[j]);

        action[j] = x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x;
    }
}

/* Without planning: a sample of the policy, or its mean. */
static void act_by_policy(struct mppi *mppi, bool eval, float *action)
{
    const world_model_t *model = mppi->model;
    size_t dim = (size_t)mppi->dims.action_dim;
    float *noise = mppi->mean; /* [A] of memory that planning would use */

    mlp_forward(&mppi->part[MODEL_PI], mppi->latent, (size_t)mppi->width, 1, mppi->tile[0].net, 2 * dim,
                mppi->policy.mlp);
    if (eval) {
        policy_mean(&model->head, mppi->tile[0].net, 2 * dim, 1, action, dim);
        return;
    }
    mppi->draws->fill(mppi->draws->context, MPPI_ACTION_NOISE, 0, noise, dim);
    policy_sample(&model->head, mppi->tile[0].net, 2 * dim, noise, 1, action, dim);
}

static void assert_same_sizes(const struct model_dims *a, const struct model_dims *b)
{
    TD_ASSERT(a->obs_dim == b->obs_dim && a->action_dim == b->action_dim &&
                  a->latent_dim == b->latent_dim && a->mlp_dim == b->mlp_dim &&
                  a->enc_dim == b->enc_dim && a->enc_layers == b->enc_layers && a->num_q == b->num_q &&
                  a->num_bins == b->num_bins && a->episodic == b->episodic && a->rgb == b->rgb &&
                  (!a->rgb || a->num_channels == b->num_channels),
              "planner and model differ in size");
}

int mppi_plan(mppi_t *mppi, const world_model_t *model, const void *obs, bool first, bool eval,
              const struct mppi_draws *draws, float *action)
{
    assert_same_sizes(&mppi->dims, &model->layout.dims);
    mppi->model = model;
    mppi->draws = draws;
    pack_model(mppi);
    begin(mppi, obs, first);
    if (mppi->config.mpc) {
        pool_run(mppi->pool, draw_noise, mppi, 1 + 2 * mppi->config.iterations);
        rollout_policy(mppi);
        for (int i = 0; i < mppi->config.iterations; i++)
            iterate(mppi, i);
        pick_action(mppi, eval, action);
        memcpy(mppi->previous, mppi->mean,
               (size_t)(mppi->config.horizon * mppi->dims.action_dim) * sizeof(float));
    } else {
        act_by_policy(mppi, eval, action);
    }
    for (int j = 0; j < mppi->dims.action_dim; j++)
        if (!isfinite(action[j]))
            return TD_EDIVERGED;
    return TD_OK;
}
