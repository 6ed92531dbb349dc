#include "common/nn/pixels.h"

#include <math.h>
#include <string.h>

#include "common/nn/conv_kernels.h"
#include "common/nn/layer.h"
#include "common/tensor/vec.h"
#include "common/util/error.h"

#define PAD           3
#define PADDED        (PIXEL_SIDE + 2 * PAD)
#define GRADIENT_ROWS 64 /* rows of a packed gradient that one part adds up */

/* --- sizes ------------------------------------------------------------------------------------- */

void pixel_net_init(struct pixel_net *net, int channels, int group)
{
    static const struct {
        int kernel, stride;
    } shape[PIXEL_LAYERS] = {{7, 2}, {5, 2}, {3, 2}, {3, 1}};
    int side = PIXEL_SIDE, in = PIXEL_PLANES;

    *net = (struct pixel_net){.channels = channels, .group = group};
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        net->layer[l] = (struct conv){
            .in = in,
            .out = channels,
            .kernel = shape[l].kernel,
            .stride = shape[l].stride,
            .side = side,
            .planes = l == 0,
            .relu = l < PIXEL_LAYERS - 1,
        };
        side = conv_out_side(&net->layer[l]);
        in = channels;
    }
    TD_ASSERT(side * side == PIXEL_CELLS && channels * PIXEL_CELLS % group == 0, "side %d channels %d group %d",
              side, channels, group);
}

static double products(const struct conv *conv)
{
    double side = conv_out_side(conv);

    return side * side * conv->out * conv_depth(conv);
}

double pixel_forward_products(const struct pixel_net *net)
{
    double sum = 0;

    for (int l = 0; l < PIXEL_LAYERS; l++)
        sum += products(&net->layer[l]);
    return sum;
}

double pixel_backward_products(const struct pixel_net *net)
{
    return 2 * pixel_forward_products(net) - products(&net->layer[0]);
}

static size_t out_floats(const struct conv *conv)
{
    return (size_t)conv_out_side(conv) * (size_t)conv_out_side(conv) * (size_t)conv->out;
}

static size_t features_of(const struct pixel_net *net)
{
    return (size_t)net->channels * PIXEL_CELLS;
}

/* --- memory ------------------------------------------------------------------------------------ */

void pixel_panels_init(struct pixel_panels *panels, const struct pixel_net *net, bool backward,
                       struct arena *arena)
{
    *panels = (struct pixel_panels){0};
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        panels->forward[l] = arena_floats(arena, conv_packed_floats(&net->layer[l]));
        if (backward && l > 0)
            panels->backward[l] = arena_floats(arena, conv_packed_floats(&net->layer[l]));
    }
}

void pixel_panels_pack(const struct pixel_panels *panels, const struct pixel_net *net, int layer)
{
    conv_pack(&net->layer[layer], panels->forward[layer]);
    if (panels->backward[layer] != NULL)
        conv_pack_back(&net->layer[layer], panels->backward[layer]);
}

/* Zeros around the gradient at layer l's output; none at the first's, whose input needs no gradient. */
static int frame_of(const struct pixel_net *net, int l)
{
    return l == 0 ? 0 : conv_pad(&net->layer[l]);
}

static size_t gradient_row(const struct pixel_net *net, int l)
{
    return (size_t)(conv_out_side(&net->layer[l]) + 2 * frame_of(net, l)) * (size_t)net->channels;
}

void pixel_scratch_init(struct pixel_scratch *scratch, const struct pixel_net *net, bool backward,
                        struct arena *arena)
{
    *scratch = (struct pixel_scratch){0};
    scratch->padded = arena_alloc(arena, SHIFT_SIDE * SHIFT_PADDED, 1);
    scratch->plane = arena_floats(arena, PIXEL_SIDE * PIXEL_SIDE);
    scratch->image = arena_floats(arena, PIXEL_SIDE * PIXEL_PLANES * PIXEL_SIDE);
    scratch->features = arena_floats(arena, features_of(net));
    for (int l = 0; l < PIXEL_LAYERS; l++)
        scratch->y[l] = arena_floats(arena, out_floats(&net->layer[l]));
    for (int l = 0; backward && l < PIXEL_LAYERS; l++) {
        size_t frame = (size_t)frame_of(net, l), row = gradient_row(net, l);
        float *memory = arena_floats(arena, row * ((size_t)conv_out_side(&net->layer[l]) + 2 * frame));

        /* The arena's zeros stay around it: only the inside is ever written. */
        scratch->dy[l] = memory == NULL ? NULL : memory + frame * (row + (size_t)net->channels);
    }
}

size_t pixel_tape_floats(const struct pixel_net *net)
{
    size_t floats = 0;

    for (int l = 0; l < PIXEL_LAYERS - 1; l++)
        floats += out_floats(&net->layer[l]);
    return floats;
}

/* Where layer l's output lies: on the tape if there is one, the last layer's never is. */
static float *output_of(const struct pixel_net *net, const struct pixel_scratch *scratch, float *tape, int l)
{
    if (tape == NULL || l == PIXEL_LAYERS - 1)
        return scratch->y[l];
    for (int below = 0; below < l; below++)
        tape += out_floats(&net->layer[below]);
    return tape;
}

/* --- shift ------------------------------------------------------------------------------------- */

/*
 * Where the reference's grid samples the padded image for pixel i of a crop at `shift`: base point i of
 * linspace(-1 + 1/70, 1 - 1/70, 70) plus shift 2/70, as a place in pixels ((x + 1) 70 - 1) / 2. In exact
 * arithmetic that is i + shift; in float32 it is off by some millionths, to either side. Returns the
 * pixel at or before it and how far it is past that.
 */
static int sample_place(int i, int shift, float *part)
{
    const float first = (float)(-1.0 + 1.0 / PADDED), last = (float)(1.0 - 1.0 / PADDED);
    const float step = (last - first) / (PADDED - 1);
    float base = i < PADDED / 2 ? fmaf((float)i, step, first) : fmaf(-(float)(PADDED - 1 - i), step, last);
    float at = base + (float)shift * (float)(2.0 / PADDED);
    float place = ((at + 1.0f) * PADDED - 1.0f) / 2.0f;
    float below = floorf(place);

    *part = place - below;
    return (int)below;
}

static int clamp(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}

/* The plan of a crop: pixels outside the padded image count 0. */
static void plan_shift(struct conv_shift *plan, int column, int row)
{
    *plan = (struct conv_shift){.column = column};
    for (int i = 0; i < PIXEL_SIDE; i++) {
        float part;
        int place = sample_place(i, column, &part), tap = place - (i + column - 1);

        TD_ASSERT(tap == 0 || tap == 1, "crop %d: pixel %d at %d", column, i, place);
        plan->taps[tap][i] = (1.0f - part) * (1.0f / 255.0f);
        plan->taps[tap + 1][i] = part * (1.0f / 255.0f);
        place = sample_place(i, row, &part);
        plan->weight[0][i] = place >= 0 ? 1.0f - part : 0.0f;
        plan->weight[1][i] = place + 1 < PADDED ? part : 0.0f;
        plan->row[0][i] = clamp(place - PAD, 0, PIXEL_SIDE - 1);
        plan->row[1][i] = clamp(place + 1 - PAD, 0, PIXEL_SIDE - 1);
    }
}

static void make_image(const struct pixel_obs *obs, const struct pixel_scratch *scratch)
{
    struct conv_shift plan;

    TD_ASSERT(obs->column >= 0 && obs->column < PIXEL_SHIFTS && obs->row >= 0 && obs->row < PIXEL_SHIFTS,
              "crop at %d, %d", obs->column, obs->row);
    plan_shift(&plan, obs->column, obs->row);
    plan.padded = scratch->padded;
    plan.across = scratch->plane;
    plan.out_row = PIXEL_PLANES * PIXEL_SIDE;
    for (int plane = 0; plane < PIXEL_PLANES; plane++) {
        plan.plane = obs->frame[plane / 3] + (size_t)(plane % 3) * PIXEL_SIDE * PIXEL_SIDE;
        plan.out = scratch->image + (size_t)plane * PIXEL_SIDE;
        conv_kernels()->shift(&plan);
    }
}

void pixels_draw_shifts(struct rng *rng, float *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (float)rng_below(rng, PIXEL_SHIFTS);
}

/* --- forward and backward ---------------------------------------------------------------------- */

void pixel_forward(const struct pixel_net *net, const struct pixel_panels *panels, const struct pixel_obs *obs,
                   const struct pixel_scratch *scratch, float *tape, float *z)
{
    const float *x = scratch->image, *last = scratch->y[PIXEL_LAYERS - 1];

    make_image(obs, scratch);
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        float *y = output_of(net, scratch, tape, l);

        conv_forward(&net->layer[l], panels->forward[l], x, y);
        x = y;
    }
    for (int c = 0; c < net->channels; c++)
        for (int i = 0; i < PIXEL_CELLS; i++)
            scratch->features[c * PIXEL_CELLS + i] = last[i * net->channels + c];
    nn_simnorm_forward(scratch->features, 1, (int)features_of(net), net->group, z);
}

/* Where layer l's sums lie in a partial: [depth, channels] weights, then biases. */
static size_t partial_offset(const struct pixel_net *net, int l)
{
    size_t offset = 0;

    for (int below = 0; below < l; below++)
        offset += (size_t)(conv_depth(&net->layer[below]) + 1) * (size_t)net->channels;
    return offset;
}

size_t pixel_partial_floats(const struct pixel_net *net)
{
    return partial_offset(net, PIXEL_LAYERS);
}

/* From dz through SimNorm to the gradient at the last convolution's output, channels last again. */
static void begin_backward(const struct pixel_net *net, const struct pixel_scratch *scratch, const float *z,
                           const float *dz)
{
    const struct conv *last = &net->layer[PIXEL_LAYERS - 1];
    size_t row = gradient_row(net, PIXEL_LAYERS - 1);
    int side = conv_out_side(last);

    nn_simnorm_backward(z, dz, 1, (int)features_of(net), net->group, scratch->features);
    for (int c = 0; c < net->channels; c++)
        for (int i = 0; i < PIXEL_CELLS; i++)
            scratch->dy[PIXEL_LAYERS - 1][(size_t)(i / side) * row + (size_t)(i % side * net->channels + c)] =
                scratch->features[c * PIXEL_CELLS + i];
}

void pixel_backward(const struct pixel_net *net, const struct pixel_panels *panels, const struct pixel_obs *obs,
                    const struct pixel_scratch *scratch, const float *tape, const float *z, const float *dz,
                    float *partial)
{
    begin_backward(net, scratch, z, dz);
    make_image(obs, scratch);
    for (int l = PIXEL_LAYERS - 1; l >= 0; l--) {
        const struct conv *conv = &net->layer[l];
        const float *x = scratch->image, *dy = scratch->dy[l];
        float *sums = partial + partial_offset(net, l);

        if (l > 0)
            x = tape + (output_of(net, scratch, (float *)(uintptr_t)tape, l - 1) - tape);
        conv_backward_weight(conv, x, dy, gradient_row(net, l), sums,
                             sums + (size_t)conv_depth(conv) * (size_t)net->channels);
        if (l > 0)
            conv_backward_input(conv, panels->backward[l], dy, gradient_row(net, l), x, scratch->dy[l - 1],
                                gradient_row(net, l - 1));
    }
}

/* --- gradients --------------------------------------------------------------------------------- */

static int parts_of(const struct conv *conv)
{
    return (conv_depth(conv) + 1 + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
}

int pixel_gradient_parts(const struct pixel_net *net)
{
    int parts = 0;

    for (int l = 0; l < PIXEL_LAYERS; l++)
        parts += parts_of(&net->layer[l]);
    return parts;
}

void pixel_gradient(const struct pixel_net *net, float *partials, int count, const struct pixel_net_grad *grad,
                    int part)
{
    size_t channels = (size_t)net->channels, stride = pixel_partial_floats(net);
    int l = 0, first, rows, depth;
    float *sum;

    while (l < PIXEL_LAYERS && part >= parts_of(&net->layer[l]))
        part -= parts_of(&net->layer[l++]);
    TD_ASSERT(l < PIXEL_LAYERS && part >= 0, "part %d", part);
    /* Row `depth` is the bias. */
    depth = conv_depth(&net->layer[l]);
    first = part * GRADIENT_ROWS;
    rows = depth + 1 - first < GRADIENT_ROWS ? depth + 1 - first : GRADIENT_ROWS;
    sum = partials + partial_offset(net, l);
    for (int i = 1; i < count; i++)
        vec_add(sum + (size_t)first * channels, sum + (size_t)i * stride + (size_t)first * channels,
                (size_t)rows * channels);
    if (first + rows > depth) {
        rows--;
        vec_add(grad->bias[l], sum + (size_t)depth * channels, channels);
    }
    conv_unpack_weight(&net->layer[l], sum, first, rows, grad->weight[l]);
}
