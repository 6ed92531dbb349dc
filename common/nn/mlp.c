#include "common/nn/mlp.h"

#include <string.h>

#include "common/tensor/gemm.h"
#include "common/tensor/vec.h"
#include "common/util/error.h"

#define GRADIENT_ROWS 256 /* rows of a weight gradient in one part */

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* The widest tensor between two layers. */
static int width(const struct mlp *mlp)
{
    int widest = 1;

    for (int l = 0; l < mlp->layers; l++)
        widest = mlp->layer[l].out > widest ? mlp->layer[l].out : widest;
    return widest;
}

void mlp_head(struct mlp *out, const struct mlp *ensemble, int head)
{
    *out = *ensemble;
    for (int l = 0; l < out->layers; l++) {
        struct nn_layer *layer = &out->layer[l];
        size_t dim = (size_t)layer->out, h = (size_t)head;

        if (layer->weight != NULL)
            layer->weight += h * dim * layer->stride;
        if (layer->weight_half != NULL)
            layer->weight_half += h * dim * layer->stride;
        layer->bias += h * dim;
        if (layer->gain != NULL) {
            layer->gain += h * dim;
            layer->shift += h * dim;
        }
        if (layer->packed != NULL)
            layer->packed += h * gemm_packed_floats(layer->out, layer->in);
        if (layer->packed_half != NULL)
            layer->packed_half += h * gemm_packed_floats(layer->out, layer->in);
        if (layer->packed_back != NULL)
            layer->packed_back += h * gemm_packed_floats(layer->in, layer->out);
    }
}

void mlp_head_grad(struct mlp_grad *out, const struct mlp_grad *grad, const struct mlp *ensemble,
                   int head)
{
    *out = *grad;
    for (int l = 0; l < ensemble->layers; l++) {
        struct nn_layer_grad *layer = &out->layer[l];
        size_t dim = (size_t)ensemble->layer[l].out, h = (size_t)head;

        layer->weight += h * dim * ensemble->layer[l].stride;
        layer->bias += h * dim;
        if (ensemble->layer[l].gain != NULL) {
            layer->gain += h * dim;
            layer->shift += h * dim;
        }
    }
}

void mlp_share(struct mlp *out, const struct mlp *mlp, const float *x, int count, float *bias)
{
    const struct nn_layer *whole = &mlp->layer[0];
    struct nn_layer shared = *whole, *first;

    TD_ASSERT(count > 0 && count < whole->in, "count %d in %d", count, whole->in);
    shared.in = count;
    memcpy(bias, whole->bias, (size_t)whole->out * sizeof(float));
    nn_layer_product(&shared, x, (size_t)count, 1, 1.0f, bias, (size_t)whole->out);
    *out = *mlp;
    first = &out->layer[0];
    first->bias = bias;
    if (first->weight != NULL)
        first->weight += count;
    if (first->weight_half != NULL)
        first->weight_half += count;
    first->packed_from += count;
    first->in -= count;
    first->packed_back = NULL; /* its columns have moved */
}

void mlp_panels_init(struct mlp_panels *panels, const struct mlp *mlp, int heads, int what,
                     struct arena *arena)
{
    *panels = (struct mlp_panels){.heads = heads};
    for (int l = 0; l < mlp->layers; l++) {
        const struct nn_layer *layer = &mlp->layer[l];
        int back = l == 0 ? MLP_PACK_INPUT : MLP_PACK_BACKWARD;

        bool half = (what & MLP_PACK_HALF) && layer->weight_half != NULL;

        if ((what & MLP_PACK_FORWARD) || ((what & MLP_PACK_HALF) && !half))
            panels->forward[l] =
                arena_floats(arena, (size_t)heads * gemm_packed_floats(layer->out, layer->in));
        if (half)
            panels->half[l] =
                arena_alloc(arena, (size_t)heads * gemm_packed_floats(layer->out, layer->in), sizeof(uint16_t));
        if (what & back)
            panels->backward[l] =
                arena_floats(arena, (size_t)heads * gemm_packed_floats(layer->in, layer->out));
    }
}

int mlp_panels_tasks(const struct mlp_panels *panels, const struct mlp *mlp)
{
    return 2 * panels->heads * mlp->layers;
}

/* Task: one layer of one head in one direction, whether it is wanted or not. */
void mlp_panels_pack(const struct mlp_panels *panels, const struct mlp *mlp, int task)
{
    bool back = task % 2;
    int l = task / 2 % mlp->layers, head = task / 2 / mlp->layers;
    const struct nn_layer *layer = &mlp->layer[l];
    float *memory = back ? panels->backward[l] : panels->forward[l];
    size_t at = (size_t)head * (size_t)layer->out * layer->stride;
    int n = back ? layer->in : layer->out, k = back ? layer->out : layer->in;

    TD_ASSERT(task >= 0 && head < panels->heads, "task %d", task);
    if (memory != NULL)
        gemm_pack(n, k, layer->weight + at, layer->stride, !back, 0, gemm_panels(n),
                  memory + (size_t)head * gemm_packed_floats(n, k));
    if (!back && panels->half[l] != NULL)
        gemm_pack_half(n, k, layer->weight_half + at, layer->stride, 0, gemm_panels(n),
                       panels->half[l] + (size_t)head * gemm_packed_floats(n, k));
}

void mlp_panels_use(struct mlp *mlp, const struct mlp_panels *panels)
{
    for (int l = 0; l < mlp->layers; l++) {
        struct nn_layer *layer = &mlp->layer[l];

        layer->packed = panels->forward[l];
        layer->packed_back = panels->backward[l];
        layer->packed_half = panels->half[l];
        layer->packed_from = 0;
        layer->packed_depth = layer->in;
    }
}

size_t mlp_scratch(const struct mlp *mlp)
{
    return 2 * (size_t)MLP_ACT_TILE * (size_t)width(mlp);
}

void mlp_forward(const struct mlp *mlp, const float *x, size_t ldx, int rows, float *y, size_t ldy,
                 float *scratch)
{
    size_t half = mlp_scratch(mlp) / 2;

    for (int row = 0; row < rows; row += MLP_ACT_TILE) {
        int count = smaller(rows - row, MLP_ACT_TILE);
        const float *in = x + (size_t)row * ldx;
        size_t ldin = ldx;

        for (int l = 0; l < mlp->layers; l++) {
            bool last = l == mlp->layers - 1;
            float *out = last ? y + (size_t)row * ldy : scratch + (size_t)(l % 2) * half;
            size_t ldout = last ? ldy : (size_t)mlp->layer[l].out;

            nn_layer_forward(&mlp->layer[l], in, ldin, count, NULL, NULL, out, ldout);
            in = out;
            ldin = ldout;
        }
    }
}

void mlp_tape_init(struct mlp_tape *tape, const struct mlp *mlp, int groups, int group_rows,
                   struct arena *arena)
{
    size_t rows = (size_t)groups * (size_t)group_rows;

    TD_ASSERT(groups > 0 && group_rows > 0, "groups %d rows %d", groups, group_rows);
    *tape = (struct mlp_tape){
        .groups = groups,
        .group_rows = group_rows,
        .group_tiles = (group_rows + MLP_TILE - 1) / MLP_TILE,
    };
    for (int l = 0; l < mlp->layers; l++) {
        size_t out = (size_t)mlp->layer[l].out;

        TD_ASSERT(l == mlp->layers - 1 || mlp->layer[l].activation != NN_IDENTITY, "layer %d", l);
        tape->layer[l].column = arena_floats(arena, (size_t)mlp_tape_tiles(tape) * 3 * out);
        if (mlp->layer[l].activation != NN_IDENTITY) {
            tape->layer[l].normal = arena_floats(arena, rows * out);
            tape->layer[l].rstd = arena_floats(arena, rows);
        }
        if (l < mlp->layers - 1)
            tape->layer[l].y = arena_floats(arena, rows * out);
    }
}

void mlp_tape_bind(struct mlp_tape *tape, const float *x, size_t ldx, float *y, size_t ldy)
{
    tape->x = x;
    tape->ldx = ldx;
    tape->y = y;
    tape->ldy = ldy;
}

void mlp_tape_mask(struct mlp_tape *tape, int layer, const uint8_t *mask)
{
    tape->layer[layer].mask = mask;
}

int mlp_tape_tiles(const struct mlp_tape *tape)
{
    return tape->groups * tape->group_tiles;
}

int mlp_tape_span(const struct mlp_tape *tape, int tile, int *row)
{
    int within = tile % tape->group_tiles * MLP_TILE;

    TD_ASSERT(tile >= 0 && tile < mlp_tape_tiles(tape), "tile %d of %d", tile, mlp_tape_tiles(tape));
    *row = tile / tape->group_tiles * tape->group_rows + within;
    return smaller(tape->group_rows - within, MLP_TILE);
}

/* What layer l reads and writes, from row `row` on. */
static const float *layer_in(const struct mlp_tape *tape, const struct mlp *mlp, int l, int row,
                             size_t *ld)
{
    const float *base = l == 0 ? tape->x : tape->layer[l - 1].y;

    *ld = l == 0 ? tape->ldx : (size_t)mlp->layer[l - 1].out;
    return base + (size_t)row * *ld;
}

static float *layer_out(const struct mlp_tape *tape, const struct mlp *mlp, int l, int row, size_t *ld)
{
    bool last = l == mlp->layers - 1;
    float *base = last ? tape->y : tape->layer[l].y;

    *ld = last ? tape->ldy : (size_t)mlp->layer[l].out;
    return base + (size_t)row * *ld;
}

static const uint8_t *layer_mask(const struct mlp_tape *tape, const struct mlp *mlp, int l, int row)
{
    const uint8_t *mask = tape->layer[l].mask;

    return mask == NULL ? NULL : mask + (size_t)row * (size_t)mlp->layer[l].out;
}

static struct nn_layer_tape layer_tape(const struct mlp_tape *tape, const struct mlp *mlp, int l,
                                       int row)
{
    struct nn_layer_tape at = {0};

    if (mlp->layer[l].activation != NN_IDENTITY) {
        at.normal = tape->layer[l].normal + (size_t)row * (size_t)mlp->layer[l].out;
        at.rstd = tape->layer[l].rstd + row;
    }
    return at;
}

void mlp_tape_forward(struct mlp_tape *tape, const struct mlp *mlp, int tile)
{
    int row, rows = mlp_tape_span(tape, tile, &row);

    for (int l = 0; l < mlp->layers; l++) {
        struct nn_layer_tape at = layer_tape(tape, mlp, l, row);
        size_t ldx, ldy;
        const float *x = layer_in(tape, mlp, l, row, &ldx);
        float *y = layer_out(tape, mlp, l, row, &ldy);

        nn_layer_forward(&mlp->layer[l], x, ldx, rows, layer_mask(tape, mlp, l, row), &at, y, ldy);
    }
}

void mlp_tape_backward(struct mlp_tape *tape, const struct mlp *mlp, int tile, const float *dy,
                       size_t lddy, float *dx, size_t lddx, int from, bool add, float *scratch)
{
    int row, rows = mlp_tape_span(tape, tile, &row);
    size_t half = mlp_scratch(mlp) / 2;

    dy += (size_t)row * lddy;
    for (int l = mlp->layers - 1; l >= 0; l--) {
        const struct nn_layer *layer = &mlp->layer[l];
        struct nn_layer_tape at = layer_tape(tape, mlp, l, row);
        float *column = tape->layer[l].column + (size_t)tile * 3 * (size_t)layer->out;
        size_t ldy;
        const float *y = layer_out(tape, mlp, l, row, &ldy);

        nn_layer_backward_rows(layer, y, ldy, dy, lddy, rows, layer_mask(tape, mlp, l, row), &at,
                               column);
        if (layer->activation != NN_IDENTITY) {
            dy = at.normal;
            lddy = (size_t)layer->out;
        }
        if (l > 0) {
            float *below = scratch + (size_t)(l % 2) * half;

            nn_layer_backward_input(layer, dy, lddy, rows, 0, 0.0f, below, (size_t)layer->in);
            dy = below;
            lddy = (size_t)layer->in;
        } else if (dx != NULL) {
            nn_layer_backward_input(layer, dy, lddy, rows, from, add ? 1.0f : 0.0f,
                                    dx + (size_t)row * lddx, lddx);
        }
    }
}

int mlp_gradient_parts(const struct mlp *mlp)
{
    int parts = 0;

    for (int l = 0; l < mlp->layers; l++)
        parts += (mlp->layer[l].out + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
    return parts;
}

/* sum [count] += the tiles' partial sums in tile order. */
static void add_columns(const float *column, int tiles, size_t stride, int count, float *sum)
{
    for (int tile = 0; tile < tiles; tile++)
        vec_add(sum, column + (size_t)tile * stride, (size_t)count);
}

static void gradient_block(const struct mlp_tape *tape, const struct mlp *mlp,
                           const struct nn_layer_grad *grad, int l, int first, int count,
                           const float *dlinear, size_t ldd)
{
    const struct nn_layer *layer = &mlp->layer[l];
    const float *column = tape->layer[l].column + first;
    size_t out = (size_t)layer->out, ldx;
    const float *x = layer_in(tape, mlp, l, 0, &ldx);
    int tiles = mlp_tape_tiles(tape);

    nn_layer_backward_weight(layer, dlinear, ldd, x, ldx, tape->groups * tape->group_rows, first,
                             count, grad->weight);
    add_columns(column, tiles, 3 * out, count, grad->bias + first);
    if (layer->gain != NULL) {
        add_columns(column + out, tiles, 3 * out, count, grad->gain + first);
        add_columns(column + 2 * out, tiles, 3 * out, count, grad->shift + first);
    }
}

void mlp_tape_gradient(const struct mlp_tape *tape, const struct mlp *mlp, const float *dy,
                       size_t lddy, const struct mlp_grad *grad, int part)
{
    TD_ASSERT(part >= 0 && part < mlp_gradient_parts(mlp), "part %d", part);
    for (int l = 0; l < mlp->layers; l++) {
        int out = mlp->layer[l].out, parts = (out + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
        int first = part * GRADIENT_ROWS;

        if (part >= parts) {
            part -= parts;
            continue;
        }
        if (mlp->layer[l].activation != NN_IDENTITY) {
            dy = tape->layer[l].normal;
            lddy = (size_t)out;
        }
        gradient_block(tape, mlp, &grad->layer[l], l, first, smaller(out - first, GRADIENT_ROWS), dy,
                       lddy);
        return;
    }
}
