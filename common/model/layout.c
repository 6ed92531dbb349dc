/* layout.c - where each tensor lies, and the layers as views over such memory. */
#include <stdio.h>
#include <string.h>

#include "common/model/world_model.h"
#include "common/tensor/bf16.h"

#define ALIGN_FLOATS 16

size_t model_half_least = MODEL_HALF_LEAST;

/* One part's chain: `hidden` NormedLinear+Mish layers, then the last layer. */
struct shape {
    const char *prefix;
    int heads; /* 0: no leading axis */
    int in, width, hidden, out;
    enum nn_activation last; /* NN_SIMNORM: NormedLinear; NN_IDENTITY: plain Linear */
};

static struct shape shape_of(const struct model_dims *dims, enum model_part part)
{
    int z = dims->latent_dim + dims->task_dim, za = z + dims->action_dim;
    int mlp = dims->mlp_dim, bins = dims->num_bins;
    int encoder = dims->enc_layers > 2 ? dims->enc_layers - 1 : 1;

    switch (part) {
    case MODEL_ENCODER:
        return (struct shape){"_encoder.state", 0, dims->obs_dim + dims->task_dim, dims->enc_dim, encoder,
                              dims->latent_dim, NN_SIMNORM};
    case MODEL_DYNAMICS:
        return (struct shape){"_dynamics", 0, za, mlp, 2, dims->latent_dim, NN_SIMNORM};
    case MODEL_REWARD:
        return (struct shape){"_reward", 0, za, mlp, 2, bins, NN_IDENTITY};
    case MODEL_TERMINATION:
        return (struct shape){"_termination", 0, z, mlp, 2, 1, NN_IDENTITY};
    case MODEL_PI:
        return (struct shape){"_pi", 0, z, mlp, 2, 2 * dims->action_dim, NN_IDENTITY};
    case MODEL_Q:
        return (struct shape){"_Qs.params", dims->num_q, za, mlp, 2, bins, NN_IDENTITY};
    case MODEL_TARGET_Q:
        return (struct shape){"_target_Qs_params", dims->num_q, za, mlp, 2, bins, NN_IDENTITY};
    case MODEL_TASK:
    case MODEL_PARTS:
        break;
    }
    TD_ASSERT(false, "part %d", (int)part);
}

static bool part_exists(const struct model_dims *dims, enum model_part part)
{
    return (part != MODEL_TERMINATION || dims->episodic) && (part != MODEL_TASK || dims->num_tasks > 0);
}

static bool is_chain(const struct model_dims *dims, enum model_part part)
{
    return part != MODEL_TASK && part_exists(dims, part) && !(part == MODEL_ENCODER && dims->rgb);
}

static size_t aligned(size_t floats)
{
    return (floats + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
}

/* One tensor at *end, which moves on; sizes 0 are left out, and a layer below 0 from the name. */
static void add_tensor(struct model_layout *layout, enum model_part part, const char *prefix, int layer,
                       const char *field, const int sizes[4], size_t *end)
{
    struct model_tensor *tensor = &layout->tensor[layout->tensors++];

    TD_ASSERT(layout->tensors <= MODEL_TENSORS_MAX, "%d", layout->tensors);
    *tensor = (struct model_tensor){.part = part, .offset = *end, .count = 1};
    if (layer < 0)
        snprintf(tensor->name, sizeof(tensor->name), "%s.%s", prefix, field);
    else
        snprintf(tensor->name, sizeof(tensor->name), "%s.%d.%s", prefix, layer, field);
    for (int i = 0; i < 4; i++)
        if (sizes[i] > 0) {
            tensor->shape[tensor->dims++] = (uint64_t)sizes[i];
            tensor->count *= (size_t)sizes[i];
        }
    *end += aligned(tensor->count);
    tensor->matrix = layer >= 0 && tensor->dims < 4 && strcmp(field, "weight") == 0 &&
                     tensor->count / (size_t)(sizes[0] > 0 ? sizes[0] : 1) >= model_half_least;
    if (part < MODEL_TARGET_Q) {
        size_t *half = tensor->matrix ? &layout->half_matrices : &layout->half_floats;

        tensor->half = *half;
        *half += 2 * aligned((tensor->count + 1) / 2); /* at least 64 bytes apart either way */
    }
    if (part != MODEL_TARGET_Q)
        layout->parameters += tensor->count;
}

static void add_part(struct model_layout *layout, enum model_part part, size_t *end)
{
    struct shape shape = shape_of(&layout->dims, part);

    for (int i = 0, in = shape.in; i <= shape.hidden; i++) {
        int out = i < shape.hidden ? shape.width : shape.out;

        int matrix[4] = {shape.heads, out, in}, vector[4] = {shape.heads, out};

        add_tensor(layout, part, shape.prefix, i, "weight", matrix, end);
        add_tensor(layout, part, shape.prefix, i, "bias", vector, end);
        if (i < shape.hidden || shape.last != NN_IDENTITY) {
            add_tensor(layout, part, shape.prefix, i, "ln.weight", vector, end);
            add_tensor(layout, part, shape.prefix, i, "ln.bias", vector, end);
        }
        in = out;
    }
}

/* The reference's sequence: shift, scaling, then convolutions at 2, 4, 6 and 8 with ReLUs between. */
static void add_pixels(struct model_layout *layout, size_t *end)
{
    struct pixel_net net;

    pixel_net_init(&net, layout->dims.num_channels, layout->dims.simnorm_dim);
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        const struct conv *conv = &net.layer[l];

        add_tensor(layout, MODEL_ENCODER, "_encoder.rgb", 2 + 2 * l, "weight",
                   (int[4]){conv->out, conv->in, conv->kernel, conv->kernel}, end);
        add_tensor(layout, MODEL_ENCODER, "_encoder.rgb", 2 + 2 * l, "bias", (int[4]){conv->out}, end);
    }
}

void model_layout_init(struct model_layout *layout, const struct model_dims *dims)
{
    size_t end = 0;

    *layout = (struct model_layout){.dims = *dims};
    for (int part = 0; part < MODEL_PARTS; part++) {
        layout->part[part] = end;
        if (part == MODEL_TASK && dims->num_tasks > 0)
            add_tensor(layout, MODEL_TASK, "_task_emb", -1, "weight", (int[4]){dims->num_tasks, dims->task_dim}, &end);
        else if (part == MODEL_ENCODER && dims->rgb)
            add_pixels(layout, &end);
        else if (part != MODEL_TASK && part_exists(dims, (enum model_part)part))
            add_part(layout, (enum model_part)part, &end);
    }
    layout->part[MODEL_PARTS] = end;
}

const struct model_tensor *model_layout_find(const struct model_layout *layout, const char *name)
{
    for (int i = 0; i < layout->tensors; i++)
        if (strcmp(layout->tensor[i].name, name) == 0)
            return &layout->tensor[i];
    return NULL;
}

/* The first tensor of a part; the others follow it in the order of add_part. */
static const struct model_tensor *first_tensor(const struct model_layout *layout, enum model_part part)
{
    const struct model_tensor *tensor = layout->tensor;

    while (tensor->part != part)
        tensor++;
    return tensor;
}

static const float *floats_at(const float *memory, bool half, const struct model_tensor *tensor)
{
    return memory + (half ? tensor->half : tensor->offset);
}

/* Where a matrix lies in half storage. */
static const uint16_t *halves_at(const struct model_layout *layout, const float *memory, const struct model_tensor *tensor)
{
    return (const uint16_t *)(const void *)(memory + layout->half_floats) + tensor->half;
}

/* Over an array laid out like the parameters, or over half storage. */
static struct mlp view_part(const struct model_layout *layout, const float *memory, bool half, enum model_part part)
{
    const struct model_dims *dims = &layout->dims;
    struct shape shape = shape_of(dims, part);
    const struct model_tensor *tensor = first_tensor(layout, part);
    struct mlp mlp = {.layers = shape.hidden + 1};

    TD_ASSERT(mlp.layers <= MLP_LAYERS_MAX, "%d layers", mlp.layers);
    for (int i = 0, in = shape.in; i <= shape.hidden; i++) {
        struct nn_layer *layer = &mlp.layer[i];

        layer->in = in;
        layer->out = in = i < shape.hidden ? shape.width : shape.out;
        layer->stride = (size_t)layer->in;
        layer->activation = i < shape.hidden ? NN_MISH : shape.last;
        layer->group = dims->simnorm_dim;
        if (half && tensor->matrix)
            layer->weight_half = halves_at(layout, memory, tensor);
        else
            layer->weight = floats_at(memory, half, tensor);
        tensor++;
        layer->bias = floats_at(memory, half, tensor++);
        if (layer->activation != NN_IDENTITY) {
            layer->gain = floats_at(memory, half, tensor++);
            layer->shift = floats_at(memory, half, tensor++);
        }
    }
    if (part == MODEL_Q || part == MODEL_TARGET_Q)
        mlp.layer[0].dropout = dims->dropout;
    return mlp;
}

void model_views(const struct model_layout *layout, const float *memory, struct mlp parts[MODEL_PARTS])
{
    for (int part = 0; part < MODEL_PARTS; part++)
        if (is_chain(&layout->dims, (enum model_part)part))
            parts[part] = view_part(layout, memory, false, (enum model_part)part);
        else
            parts[part] = (struct mlp){.layers = 0};
}

void model_half_views(const struct model_layout *layout, const void *half, struct mlp parts[MODEL_PARTS])
{
    for (int part = 0; part < MODEL_PARTS; part++)
        if (part != MODEL_TARGET_Q && is_chain(&layout->dims, (enum model_part)part))
            parts[part] = view_part(layout, half, true, (enum model_part)part);
        else
            parts[part] = (struct mlp){.layers = 0};
}

/* What of this tensor lies in bytes from .. from + length - 1 of half storage, into out. */
static void halve_tensor(const struct model_layout *layout, const struct model_tensor *tensor, const float *values, size_t from,
                         size_t length, char *out)
{
    size_t each = tensor->matrix ? sizeof(uint16_t) : sizeof(float);
    size_t begin = (tensor->matrix ? layout->half_floats * sizeof(float) : 0) + tensor->half * each;
    size_t first = begin < from ? (from - begin) / each : 0, last = 0;

    if (from + length > begin)
        last = (from + length - begin) / each;
    last = last < tensor->count ? last : tensor->count;
    if (first >= last)
        return;
    out += begin + first * each - from;
    if (tensor->matrix)
        bf16_from_floats((uint16_t *)(void *)out, values + first, last - first);
    else
        memcpy(out, values + first, (last - first) * sizeof(float));
}

void model_to_half_part(const struct model_layout *layout, const float *parameters, size_t from, size_t length, void *out)
{
    TD_ASSERT(from % sizeof(float) == 0 && length % sizeof(float) == 0, "%zu bytes from %zu", length, from);
    memset(out, 0, length); /* the gaps too: all of it is hashed */
    for (int i = 0; i < layout->tensors && layout->tensor[i].part < MODEL_TARGET_Q; i++)
        halve_tensor(layout, &layout->tensor[i], parameters + layout->tensor[i].offset, from, length, out);
}

void model_to_half(const struct model_layout *layout, const float *parameters, void *half)
{
    model_to_half_part(layout, parameters, 0, model_half_bytes(layout), half);
}

void model_from_half(const struct model_layout *layout, const void *half, float *parameters)
{
    const float *floats = half;
    const uint16_t *matrices = (const uint16_t *)(const void *)(floats + layout->half_floats);

    for (int i = 0; i < layout->tensors && layout->tensor[i].part < MODEL_TARGET_Q; i++) {
        const struct model_tensor *tensor = &layout->tensor[i];
        float *to = parameters + tensor->offset;

        if (tensor->matrix)
            bf16_to_floats(to, matrices + tensor->half, tensor->count);
        else
            memcpy(to, floats + tensor->half, tensor->count * sizeof(float));
    }
}

void model_gradients(const struct model_layout *layout, float *memory,
                     struct mlp_grad parts[MODEL_PARTS])
{
    for (int part = 0; part < MODEL_PARTS; part++) {
        struct mlp view;

        parts[part] = (struct mlp_grad){0};
        if (!is_chain(&layout->dims, (enum model_part)part))
            continue;
        view = view_part(layout, memory, false, (enum model_part)part);
        for (int i = 0; i < view.layers; i++)
            parts[part].layer[i] = (struct nn_layer_grad){
                .weight = memory + (view.layer[i].weight - memory),
                .bias = memory + (view.layer[i].bias - memory),
                .gain = view.layer[i].gain == NULL ? NULL : memory + (view.layer[i].gain - memory),
                .shift = view.layer[i].shift == NULL ? NULL : memory + (view.layer[i].shift - memory),
            };
    }
}

static void view_pixels(const struct model_layout *layout, const float *memory, bool half, struct pixel_net *net)
{
    const struct model_tensor *tensor = first_tensor(layout, MODEL_ENCODER);

    TD_ASSERT(layout->dims.rgb, "a model of states");
    pixel_net_init(net, layout->dims.num_channels, layout->dims.simnorm_dim);
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        net->layer[l].weight = floats_at(memory, half, tensor++);
        net->layer[l].bias = floats_at(memory, half, tensor++);
    }
}

void model_pixels(const struct model_layout *layout, const float *memory, struct pixel_net *net)
{
    view_pixels(layout, memory, false, net);
}

void model_half_pixels(const struct model_layout *layout, const void *half, struct pixel_net *net)
{
    view_pixels(layout, half, true, net);
}

void model_pixel_gradients(const struct model_layout *layout, float *memory, struct pixel_net_grad *grad)
{
    const struct model_tensor *tensor = first_tensor(layout, MODEL_ENCODER);

    TD_ASSERT(layout->dims.rgb, "a model of states");
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        grad->weight[l] = memory + tensor++->offset;
        grad->bias[l] = memory + tensor++->offset;
    }
}
