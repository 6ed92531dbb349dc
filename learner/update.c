#include "learner/update.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/memory.h"
#include "common/nn/adam.h"
#include "common/util/lr_scale.h"
#include "common/nn/pixels.h"
#include "learner/update_internal.h"

static const struct adam model_adam = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
static const struct adam policy_adam = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-5};

void update_config_init(struct update_config *update, const struct config *config,
                        uint64_t episode_length)
{
    struct error err;

    *update = (struct update_config){
        .batch_size = (int)config->batch_size,
        .horizon = (int)config->horizon,
        .consistency_coef = config->consistency_coef,
        .reward_coef = config->reward_coef,
        .value_coef = config->value_coef,
        .termination_coef = config->termination_coef,
        .entropy_coef = config->entropy_coef,
        .rho = config->rho,
        .discount = derive_discount(config, episode_length),
        .lr = config->lr,
        .enc_lr_scale = config->enc_lr_scale,
        .grad_clip_norm = config->grad_clip_norm,
        .tau = config->tau,
    };
    _Static_assert(LR_SCALE_PARTS == (int)MODEL_TARGET_Q, "the parts that are trained");
    if (lr_scale_parse(config->lr_scale, update->lr_scale, &err) != TD_OK)
        TD_ASSERT(false, "%s", err.text);
}

double update_rho(const struct update *update, int t)
{
    double rho = 1.0;

    while (t-- > 0)
        rho *= update->config.rho;
    return rho;
}

/* --- random numbers ---------------------------------------------------------------------------- */

static void rng_draw(struct rng *out, const void *context, enum update_draw kind, int index)
{
    rng_fork(out, context, (uint64_t)kind << 32 | (uint32_t)index);
}

static void rng_noise(const void *context, enum update_draw kind, float *out, size_t count)
{
    struct rng rng;

    rng_draw(&rng, context, kind, 0);
    if (kind == UPDATE_SHIFT || kind == UPDATE_NEXT_SHIFT)
        pixels_draw_shifts(&rng, out, count);
    else
        rng_normal(&rng, out, count);
}

static void rng_dropout(const void *context, enum update_draw kind, int head, uint8_t *out, size_t count,
                        float keep)
{
    struct rng rng;

    rng_draw(&rng, context, kind, head);
    rng_mask(&rng, out, count, keep);
}

static void rng_heads(const void *context, enum update_draw kind, int num_q, int two[2])
{
    struct rng rng;

    rng_draw(&rng, context, kind, 0);
    two[0] = (int)rng_below(&rng, (uint32_t)num_q);
    two[1] = (int)rng_below(&rng, (uint32_t)num_q - 1);
    two[1] += two[1] >= two[0];
}

struct update_draws update_draws_rng(const struct rng *rng)
{
    return (struct update_draws){
        .context = rng, .noise = rng_noise, .mask = rng_dropout, .heads = rng_heads};
}

/* Pool task: noises first, then a mask for every head and one for each of the policy's two. */
static void draw_task(void *context, int task, int worker)
{
    struct update *update = context;
    const struct update_draws *draws = update->draws;
    size_t rows = (size_t)update->horizon * (size_t)update->batch, more = rows + (size_t)update->batch;
    size_t a = (size_t)update->action_dim, units = (size_t)update->model->layout.dims.mlp_dim;
    float keep = 1.0f - update->model->layout.dims.dropout;

    (void)worker;
    if (task == 0) {
        draws->noise(draws->context, UPDATE_TARGET_NOISE, update->target_noise, rows * a);
    } else if (task == 1) {
        draws->noise(draws->context, UPDATE_POLICY_NOISE, update->pi_noise, more * a);
    } else if (task - 2 < update->num_q) {
        int head = task - 2;

        draws->mask(draws->context, UPDATE_VALUE_MASK, head,
                    update->value_mask + (size_t)head * rows * units, rows * units, keep);
    } else {
        int i = task - 2 - update->num_q;

        draws->mask(draws->context, UPDATE_POLICY_MASK, update->pi_two[i], update->pi_mask[i],
                    more * units, keep);
    }
}

static void draw_all(struct update *update)
{
    const struct update_draws *draws = update->draws;
    const struct mlp *target = &update->part[MODEL_TARGET_Q];

    draws->heads(draws->context, UPDATE_TARGET_HEADS, update->num_q, update->target_two);
    draws->heads(draws->context, UPDATE_POLICY_HEADS, update->num_q, update->pi_two);
    for (int i = 0; i < 2; i++)
        mlp_head(&update->target_head[i], target, update->target_two[i]);
    update_draw_shifts(update);
    pool_run(update->pool, draw_task, update, update->dropout ? 2 + update->num_q + 2 : 2);
}

/* --- memory ------------------------------------------------------------------------------------ */

static void lay_out_head(struct update *update, struct update_head *head, struct arena *arena)
{
    size_t rows = (size_t)update->horizon * (size_t)update->batch;

    mlp_tape_init(&head->tape, &head->net, update->horizon, update->batch, arena);
    head->out = arena_floats(arena, rows * (size_t)mlp_out(&head->net));
    head->loss = arena_floats(arena, rows);
    head->dx = arena_floats(arena, rows * update->width);
}

static void lay_out_model(struct update *update, struct arena *arena)
{
    const struct mlp *part = update->part;
    size_t rows = (size_t)update->horizon * (size_t)update->batch, more = rows + (size_t)update->batch;
    size_t a = (size_t)update->action_dim, units = (size_t)update->model->layout.dims.mlp_dim;

    mlp_tape_init(&update->encoder, &part[MODEL_ENCODER], 1, update->batch, arena);
    mlp_tape_init(&update->dynamics, &part[MODEL_DYNAMICS], update->horizon, update->batch, arena);
    for (int h = 0; h < update->heads; h++)
        lay_out_head(update, &update->head[h], arena);
    update->next_za = arena_floats(arena, rows * update->width);
    update->za = arena_floats(arena, more * update->width);
    update->dz = arena_floats(arena, more * update->width);
    update->targets = arena_floats(arena, rows);
    update->target_noise = arena_floats(arena, rows * a);
    for (int i = 0; i < 2; i++) {
        update->bin[i] = arena_alloc(arena, rows, sizeof(int));
        update->bin_weight[i] = arena_floats(arena, rows);
    }
    update->consistency = arena_alloc(arena, rows, sizeof(double));
    if (update->dropout)
        update->value_mask = arena_alloc(arena, (size_t)update->num_q * rows * units, 1);
}

static void lay_out_policy(struct update *update, struct arena *arena)
{
    const struct mlp *part = update->part;
    size_t rows = (size_t)(update->horizon + 1) * (size_t)update->batch;
    size_t a = (size_t)update->action_dim, units = (size_t)update->model->layout.dims.mlp_dim;
    size_t bins = (size_t)update->model->two_hot.bins;

    mlp_tape_init(&update->pi, &part[MODEL_PI], update->horizon + 1, update->batch, arena);
    update->pi_net = arena_floats(arena, rows * 2 * a);
    update->dpi_net = arena_floats(arena, rows * 2 * a);
    update->pi_noise = arena_floats(arena, rows * a);
    update->entropy = arena_floats(arena, rows);
    update->scaled_entropy = arena_floats(arena, rows);
    update->sorted = arena_floats(arena, 2 * (size_t)update->batch);
    for (int i = 0; i < 2; i++) {
        struct mlp head;

        mlp_head(&head, &part[MODEL_Q], 0);
        mlp_tape_init(&update->pi_q[i], &head, update->horizon + 1, update->batch, arena);
        update->pi_logits[i] = arena_floats(arena, rows * bins);
        update->pi_value[i] = arena_floats(arena, rows);
        update->pi_expect[i] = arena_floats(arena, rows);
        update->dvalue[i] = arena_floats(arena, rows);
        if (update->dropout)
            update->pi_mask[i] = arena_alloc(arena, rows * units, 1);
    }
}

/* The nets with losses of their own, in the order in which their gradients are added. */
static void set_head_nets(struct update *update)
{
    const struct mlp *part = update->part;

    for (int h = 0; h < update->num_q; h++)
        mlp_head(&update->head[h].net, &part[MODEL_Q], h);
    update->head[update->num_q].net = part[MODEL_REWARD];
    if (update->heads > update->num_q + 1)
        update->head[update->num_q + 1].net = part[MODEL_TERMINATION];
}

/* Of each thread, and what the optimiser sums. */
static void lay_out_scratch(struct update *update, struct arena *arena, size_t mlp_floats)
{
    size_t a = (size_t)update->action_dim, bins = (size_t)update->model->two_hot.bins;

    for (int i = 0; i < update->threads; i++) {
        struct update_scratch *scratch = &update->scratch[i];

        scratch->net = arena_floats(arena, MLP_TILE * 2 * a);
        scratch->logits = arena_floats(arena, MLP_TILE * bins);
        scratch->q[0] = arena_floats(arena, MLP_TILE);
        scratch->q[1] = arena_floats(arena, MLP_TILE);
        scratch->mlp = arena_floats(arena, mlp_floats);
    }
}

/* Run twice: once to measure, once over real memory. `memory`, if given, gets what the parts take. */
static void lay_out(struct update *update, struct arena *arena, struct update_memory *memory)
{
    const world_model_t *model = update->model;
    size_t floats = model_acting_floats(&model->layout), mlp_floats = 0, before;

    update->gradient = arena_floats(arena, floats);
    update->m = arena_floats(arena, floats);
    update->v = arena_floats(arena, floats);
    if (memory != NULL) {
        memory->gradients = arena->used / 3;
        memory->moments = arena->used / 3 * 2;
    }
    update->partial = arena_alloc(arena, adam_blocks(floats), sizeof(double));
    before = arena->used;
    update_lay_out_tasks(update, arena);
    set_head_nets(update);
    lay_out_model(update, arena);
    lay_out_policy(update, arena);
    update_lay_out_pixels(update, arena);
    if (memory != NULL)
        memory->activations = arena->used - before;
    for (int i = 0; i < MODEL_PARTS; i++)
        if (model->part[i].layers > 0 && mlp_scratch(&model->part[i]) > mlp_floats)
            mlp_floats = mlp_scratch(&model->part[i]);
    lay_out_scratch(update, arena, mlp_floats);
}

static void set_head_gradients(struct update *update)
{
    const struct mlp *part = update->part;

    model_gradients(&update->model->layout, update->gradient, update->grad);
    if (update->model->layout.dims.rgb)
        model_pixel_gradients(&update->model->layout, update->gradient, &update->pixels.grad);
    for (int h = 0; h < update->num_q; h++)
        mlp_head_grad(&update->head[h].grad, &update->grad[MODEL_Q], &part[MODEL_Q], h);
    update->head[update->num_q].grad = update->grad[MODEL_REWARD];
    if (update->heads > update->num_q + 1)
        update->head[update->num_q + 1].grad = update->grad[MODEL_TERMINATION];
}

static int out_of_memory(const struct update_config *config, struct error *err)
{
    return error_set(err, TD_ENOMEM, "out of memory for updates with batch_size=%d", config->batch_size);
}

static int check(const struct update_config *config, struct error *err)
{
    if (config->batch_size < 1 || config->horizon < 1)
        return error_set(err, TD_EINVAL, "batch_size=%d and horizon=%d must be positive", config->batch_size,
                         config->horizon);
    return TD_OK;
}

/* What is asked for, before any memory of size: `model` need not have its parameters. */
static int make(struct update **out, world_model_t *model, const struct update_config *config, int threads,
                struct error *err)
{
    const struct model_dims *dims = &model->layout.dims;
    struct update *update;
    int rc;

    *out = NULL;
    if ((rc = check(config, err)))
        return rc;
    update = calloc(1, sizeof(*update));
    if (update == NULL)
        return out_of_memory(config, err);
    update->config = *config;
    update->model = model;
    update->threads = threads;
    update->batch = config->batch_size;
    update->horizon = config->horizon;
    update->num_q = dims->num_q;
    update->action_dim = dims->action_dim;
    update->task_dim = dims->task_dim;
    update->latent = dims->latent_dim + dims->task_dim;
    update->width = (size_t)update->latent + (size_t)dims->action_dim;
    update->dropout = dims->dropout > 0.0f;
    update->heads = dims->num_q + 1 + (dims->episodic ? 1 : 0);
    update->head = calloc((size_t)update->heads, sizeof(*update->head));
    update->scratch = calloc((size_t)threads, sizeof(*update->scratch));
    if (update->head == NULL || update->scratch == NULL) {
        update_destroy(&update);
        return out_of_memory(config, err);
    }
    running_scale_init(&update->scale, (float)config->tau);
    memcpy(update->part, model->part, sizeof(update->part));
    *out = update;
    return TD_OK;
}

int update_create(update_t **out, world_model_t *model, const struct update_config *config,
                  pool_t *pool, struct error *err)
{
    struct update *update;
    struct arena measure;
    char what[96];
    int rc;

    *out = NULL;
    TD_ASSERT(model->has_targets, "the model only acts");
    for (int i = 0; i < model->layout.dims.num_tasks; i++)
        TD_ASSERT(model->task[i].action_dim > 0, "task %d of the model is not set", i);
    if ((rc = make(&update, model, config, pool_threads(pool), err)))
        return rc;
    update->pool = pool;
    arena_measure(&measure);
    lay_out(update, &measure, NULL);
    snprintf(what, sizeof(what), "an update with batch_size=%d and horizon=%d", config->batch_size, config->horizon);
    if ((rc = memory_check(measure.used, what, "lower batch_size, horizon, num_q or model_size", err)) != TD_OK) {
        update_destroy(&update);
        return rc;
    }
    if (arena_init(&update->arena, measure.used) != TD_OK) {
        update_destroy(&update);
        return out_of_memory(config, err);
    }
    lay_out(update, &update->arena, NULL);
    set_head_gradients(update);
    *out = update;
    return TD_OK;
}

/* A model of these sizes without parameters, for what only looks at sizes. */
static world_model_t *sizes_of(const struct model_dims *dims)
{
    static const float nowhere[1];
    world_model_t *model = calloc(1, sizeof(*model));

    if (model == NULL)
        return NULL;
    model_layout_init(&model->layout, dims);
    model_views(&model->layout, nowhere, model->part);
    if (dims->rgb)
        model_pixels(&model->layout, nowhere, &model->pixels);
    model->two_hot.bins = dims->num_bins;
    return model;
}

int update_measure(struct update_memory *memory, const struct model_dims *dims, const struct update_config *config,
                   int threads, struct error *err)
{
    struct update *update = NULL;
    const struct model_layout *layout;
    world_model_t *model;
    struct arena measure;
    int rc;

    *memory = (struct update_memory){0};
    if ((rc = model_dims_check(dims, err)) != TD_OK)
        return rc;
    if ((model = sizes_of(dims)) == NULL)
        return out_of_memory(config, err);
    rc = make(&update, model, config, threads, err);
    if (rc == TD_OK) {
        arena_measure(&measure);
        lay_out(update, &measure, memory);
        layout = &model->layout;
        memory->parameters = model_acting_floats(layout) * sizeof(float);
        memory->targets = (model_all_floats(layout) - model_acting_floats(layout)) * sizeof(float);
        memory->total = memory->parameters + memory->targets + measure.used;
        memory->working = memory->total - memory->parameters - memory->targets - memory->gradients -
                          memory->moments - memory->activations;
    }
    update_destroy(&update);
    free(model);
    return rc;
}

void update_destroy(update_t **pointer)
{
    struct update *update = *pointer;

    *pointer = NULL;
    if (update == NULL)
        return;
    arena_release(&update->arena);
    free(update->head);
    free(update->scratch);
    free(update);
}

struct update_state update_state(update_t *update)
{
    return (struct update_state){
        .m = update->m,
        .v = update->v,
        .floats = model_acting_floats(&update->model->layout),
        .steps = &update->steps,
        .scale = &update->scale,
        .leftover = model_embeddings(&update->model->layout, update->gradient),
        .leftovers = (size_t)(update->model->layout.dims.num_tasks * update->model->layout.dims.task_dim),
    };
}

struct update_view update_view(const update_t *update)
{
    return (struct update_view){.next_z = update->next_za,
                                .zs = update->za,
                                .targets = update->targets,
                                .width = update->width,
                                .pi_terms = update->pi_terms};
}

void update_set_watch(update_t *update, const struct update_watch *watch)
{
    update->watch = watch;
}

/* --- the step ---------------------------------------------------------------------------------- */

/* Gradient floats first .. last - 1: show, norm, and the factor that clips them. */
static double gradient_norm(struct update *update, size_t first, size_t last, float *factor)
{
    double norm;

    if (update->watch != NULL)
        update->watch->gradient(update->watch->context, update->gradient + first, first, last - first);
    norm = grad_norm(update->pool, update->gradient + first, last - first, update->partial);
    *factor = grad_clip_factor(norm, update->config.grad_clip_norm);
    return norm;
}

static double rate_of(const struct update_config *config, int part)
{
    return config->lr * config->lr_scale[part] * (part == MODEL_ENCODER ? config->enc_lr_scale : 1);
}

/* Parts first .. last - 1, those that follow each other at one rate together. */
static void descend(struct update *update, const struct adam *adam, float factor, int first, int last)
{
    const size_t *part = update->model->layout.part;

    while (first < last) {
        double lr = rate_of(&update->config, first);
        size_t from = part[first];

        do
            first++;
        while (first < last && rate_of(&update->config, first) == lr);
        adam_step(adam, update->steps, lr, factor, update->pool, update->model->parameters + from,
                  update->gradient + from, update->m + from, update->v + from, part[first] - from);
    }
}

/* Leave nothing of a refused gradient behind. */
static int diverged(struct update *update)
{
    memset(update->gradient, 0, model_acting_floats(&update->model->layout) * sizeof(float));
    update->steps--;
    return TD_EDIVERGED;
}

static int step_model(struct update *update, struct update_stats *stats)
{
    const size_t *part = update->model->layout.part;
    float factor;

    update_model_gradient(update);
    update_model_stats(update, stats);
    stats->grad_norm = (float)gradient_norm(update, 0, part[MODEL_PI], &factor);
    if (!isfinite(stats->total_loss) || !isfinite(stats->grad_norm))
        return TD_EDIVERGED;
    descend(update, &model_adam, factor, MODEL_TASK, MODEL_PI);
    return TD_OK;
}

static int step_policy(struct update *update, struct update_stats *stats)
{
    const size_t *part = update->model->layout.part;
    float before = update->scale.value, factor;

    update_embed(update, false); /* as they now are */
    update_policy_gradient(update);
    update_policy_stats(update, stats);
    stats->pi_grad_norm = (float)gradient_norm(update, part[MODEL_PI], part[MODEL_TARGET_Q], &factor);
    if (!isfinite(stats->pi_loss) || !isfinite(stats->pi_grad_norm)) {
        update->scale.value = before;
        return TD_EDIVERGED;
    }
    descend(update, &policy_adam, factor, MODEL_PI, MODEL_TARGET_Q);
    return TD_OK;
}

int update_step(update_t *update, const struct batch *batch, const struct update_draws *draws,
                struct update_stats *stats)
{
    const size_t *part = update->model->layout.part;
    struct update_stats own;

    stats = stats == NULL ? &own : stats;
    memset(stats, 0, sizeof(*stats));
    update->data = batch;
    update->draws = draws;
    update->steps++;
    draw_all(update);
    update_embed(update, true);
    update_pack_pixels(update);
    if (step_model(update, stats) != TD_OK || step_policy(update, stats) != TD_OK)
        return diverged(update);
    soft_update(update->pool, update->model->parameters + part[MODEL_TARGET_Q],
                update->model->parameters + part[MODEL_Q], (float)update->config.tau,
                part[MODEL_PI] - part[MODEL_Q]);
    return TD_OK;
}
