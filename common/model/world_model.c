#include "common/model/world_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/init.h"
#include "common/tensor/bf16.h"
#include "common/tensor/vec.h"
#include "common/util/rng.h"

#define INIT_DEVIATION 0.02f

size_t model_snapshot_bytes(const struct model_layout *layout, bool half)
{
    return half ? model_half_bytes(layout) : model_acting_floats(layout) * sizeof(float);
}

size_t world_model_bytes(const world_model_t *model)
{
    return model_snapshot_bytes(&model->layout, model->half);
}

static int create(world_model_t **out, const struct model_dims *dims, bool targets, bool half, struct error *err)
{
    world_model_t *model;
    size_t bytes;
    int rc;

    *out = NULL;
    if ((rc = model_dims_check(dims, err)))
        return rc;
    model = calloc(1, sizeof(*model));
    if (model == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a world model");
    model_layout_init(&model->layout, dims);
    model->has_targets = targets;
    model->half = half;
    bytes = targets ? model_all_floats(&model->layout) * sizeof(float) : world_model_bytes(model);
    bytes = (bytes + 63) / 64 * 64;
    model->parameters = aligned_alloc(64, bytes);
    model->task = calloc((size_t)dims->num_tasks + 1, sizeof(*model->task));
    model->support = calloc((size_t)dims->num_bins, sizeof(float));
    if (model->parameters == NULL || model->support == NULL || model->task == NULL) {
        world_model_destroy(&model);
        return error_set(err, TD_ENOMEM, "no memory for the %zu MB of a model's parameters", bytes >> 20);
    }
    memset(model->parameters, 0, bytes);
    two_hot_init(&model->two_hot, dims->num_bins, dims->vmin, dims->vmax, model->support);
    model->head = (struct policy_head){
        .action_dim = dims->action_dim,
        .log_std_min = dims->log_std_min,
        .log_std_dif = dims->log_std_max - dims->log_std_min,
    };
    if (half)
        model_half_views(&model->layout, model->parameters, model->part);
    else
        model_views(&model->layout, model->parameters, model->part);
    if (dims->rgb && half)
        model_half_pixels(&model->layout, model->parameters, &model->pixels);
    else if (dims->rgb)
        model_pixels(&model->layout, model->parameters, &model->pixels);
    *out = model;
    return TD_OK;
}

int world_model_create(world_model_t **out, const struct model_dims *dims, bool targets, struct error *err)
{
    return create(out, dims, targets, false, err);
}

int world_model_create_half(world_model_t **out, const struct model_dims *dims, struct error *err)
{
    return create(out, dims, false, true, err);
}

int world_model_create_acting(world_model_t **out, const struct model_dims *dims, bool half, struct error *err)
{
    return create(out, dims, false, half, err);
}

int world_model_halve(world_model_t **model, struct error *err)
{
    const struct model_dims *dims = &(*model)->layout.dims;
    world_model_t *half;
    int rc = create(&half, dims, false, true, err);

    if (rc != TD_OK)
        return rc;
    model_to_half(&half->layout, (*model)->parameters, half->parameters);
    memcpy(half->task, (*model)->task, (size_t)dims->num_tasks * sizeof(*half->task));
    world_model_destroy(model);
    *model = half;
    return TD_OK;
}

void world_model_destroy(world_model_t **pointer)
{
    world_model_t *model = *pointer;

    *pointer = NULL;
    if (model == NULL)
        return;
    free(model->parameters);
    free(model->support);
    free(model->task);
    free(model);
}

void world_model_set_tasks(world_model_t *model, const struct task_set *set)
{
    const struct model_dims *dims = &model->layout.dims;

    if (dims->num_tasks == 0)
        return;
    TD_ASSERT(set->count == dims->num_tasks && set->action_dim == dims->action_dim, "%d tasks for a model of %d",
              set->count, dims->num_tasks);
    for (int i = 0; i < set->count; i++)
        model->task[i] = (struct model_task){.action_dim = set->task[i].action_dim,
                                             .discount = (float)set->task[i].discount};
}

bool embedding_renorm(float *row, int task_dim)
{
    double squares = 0;
    float norm, factor; /* in PyTorch the norm is a float, the factor worked out in double */

    for (int i = 0; i < task_dim; i++)
        squares += (double)row[i] * (double)row[i];
    norm = (float)sqrt(squares);
    if (!(norm > 1.0f))
        return false;
    factor = (float)(1.0 / ((double)norm + 1e-7));
    for (int i = 0; i < task_dim; i++)
        row[i] *= factor;
    return true;
}

/* Reward and Q end in zero weights: "_reward.2.weight", "_Qs.params.2.weight". */
static bool starts_at_zero(const struct model_tensor *tensor)
{
    return (tensor->part == MODEL_REWARD || tensor->part == MODEL_Q) && strstr(tensor->name, ".2.") != NULL;
}

/* Inputs of one output of the convolution that this weight or bias belongs to; 0 for other tensors. */
static int convolution_inputs(const world_model_t *model, const struct model_tensor *tensor)
{
    const float *values = model->parameters + tensor->offset;

    for (int l = 0; model->layout.dims.rgb && l < PIXEL_LAYERS; l++) {
        const struct conv *conv = &model->pixels.layer[l];

        if (values == conv->weight || values == conv->bias)
            return conv_depth(conv);
    }
    return 0;
}

void world_model_init(world_model_t *model, uint64_t seed)
{
    struct rng_key key = {.seed = seed, .purpose = RNG_INIT};
    struct rng whole, rng;

    TD_ASSERT(!model->half, "a model that only acts");
    rng_init(&whole, &key);
    for (int i = 0; i < model->layout.tensors; i++) {
        const struct model_tensor *tensor = &model->layout.tensor[i];
        float *values = model->parameters + tensor->offset;
        bool weight = strstr(tensor->name, "weight") != NULL;
        int inputs = convolution_inputs(model, tensor);

        if (tensor->part == MODEL_TARGET_Q)
            continue;
        rng_fork(&rng, &whole, (uint64_t)i);
        if (tensor->part == MODEL_TASK)
            rng_uniform(&rng, values, tensor->count, -INIT_DEVIATION, INIT_DEVIATION);
        else if (inputs > 0)
            rng_uniform(&rng, values, tensor->count, -1.0f / sqrtf((float)inputs), 1.0f / sqrtf((float)inputs));
        else if (weight && strstr(tensor->name, ".ln.") != NULL)
            init_constant(values, tensor->count, 1.0f);
        else if (!weight || starts_at_zero(tensor))
            init_constant(values, tensor->count, 0.0f);
        else
            init_truncated_normal(&rng, values, tensor->count, INIT_DEVIATION);
    }
    if (model->has_targets)
        world_model_copy_targets(model);
}

void world_model_copy_targets(world_model_t *model)
{
    const size_t *part = model->layout.part;

    TD_ASSERT(model->has_targets && part[MODEL_PI] - part[MODEL_Q] == part[MODEL_PARTS] - part[MODEL_TARGET_Q]);
    memcpy(model->parameters + part[MODEL_TARGET_Q], model->parameters + part[MODEL_Q],
           (part[MODEL_PI] - part[MODEL_Q]) * sizeof(float));
}

int world_model_finite(const world_model_t *model)
{
    const struct model_layout *layout = &model->layout;

    if (model->half)
        return vec_finite(model->parameters, layout->half_floats) &&
               bf16_finite((const uint16_t *)(const void *)(model->parameters + layout->half_floats),
                           layout->half_matrices);
    return vec_finite(model->parameters, model->has_targets ? model_all_floats(&model->layout)
                                                            : model_acting_floats(&model->layout));
}
