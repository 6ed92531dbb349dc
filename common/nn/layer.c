#include "common/nn/layer.h"

#include "common/nn/kernels.h"
#include "common/tensor/gemm.h"
#include "common/util/error.h"

static float keep_scale(const struct nn_layer *layer)
{
    return 1.0f / (1.0f - layer->dropout);
}

static void check(const struct nn_layer *layer)
{
    TD_ASSERT(layer->in > 0 && layer->out > 0 && layer->out <= NN_DIM_MAX, "in %d out %d", layer->in,
              layer->out);
    TD_ASSERT(layer->activation == NN_IDENTITY ? layer->gain == NULL : layer->gain != NULL);
    TD_ASSERT(layer->activation != NN_SIMNORM || (layer->group > 0 && layer->out % layer->group == 0),
              "out %d group %d", layer->out, layer->group);
}

void nn_layer_product(const struct nn_layer *layer, const float *x, size_t ldx, int rows, float beta,
                      float *y, size_t ldy)
{
    if (layer->packed_half != NULL)
        gemm_packed_half(rows, layer->out, layer->packed_from, layer->in, layer->packed_depth, x, ldx,
                         layer->packed_half, beta, y, ldy);
    else if (layer->weight_half != NULL)
        gemm_nt_half(rows, layer->out, layer->in, x, ldx, layer->weight_half, layer->stride, beta, y, ldy);
    else if (layer->packed != NULL)
        gemm_packed(rows, layer->out, layer->packed_from, layer->in, layer->packed_depth, x, ldx,
                    layer->packed, beta, y, ldy);
    else
        gemm_nt(rows, layer->out, layer->in, x, ldx, layer->weight, layer->stride, beta, y, ldy);
}

void nn_layer_forward(const struct nn_layer *layer, const float *x, size_t ldx, int rows,
                      const uint8_t *mask, const struct nn_layer_tape *tape, float *y, size_t ldy)
{
    check(layer);
    nn_layer_product(layer, x, ldx, rows, 0.0f, y, ldy);
    if (layer->activation == NN_IDENTITY) {
        nn_kernels()->add_bias(y, ldy, rows, layer->out, layer->bias);
        return;
    }
    nn_kernels()->forward_rows(&(struct nn_forward_rows){
        .rows = rows,
        .dim = layer->out,
        .group = layer->group,
        .activation = layer->activation,
        .bias = layer->bias,
        .gain = layer->gain,
        .shift = layer->shift,
        .mask = mask,
        .keep_scale = keep_scale(layer),
        .normal = tape == NULL ? NULL : tape->normal,
        .rstd = tape == NULL ? NULL : tape->rstd,
        .y = y,
        .ldy = ldy,
    });
}

/*
 * Let x be the Linear's output after dropout, d = dim, and
 *
 *   n_i = (x_i - mean) r,  r = 1/sqrt(var + eps),  u_i = gain_i n_i + shift_i,  y = f(u).
 *
 * Activation. Mish: du_i = dy_i f'(u_i), with u rebuilt from n. SimNorm, y = softmax(u) per group:
 *   dy_i/du_j = y_i ([i = j] - y_j), so du_i = y_i (dy_i - sum_j dy_j y_j).
 *
 * LayerNorm. dgain_i = sum_rows du_i n_i, dshift_i = sum_rows du_i, and with g_i = du_i gain_i:
 *   dn_i/dx_j = r ([i = j] - 1/d - n_i n_j / d)       (from dmean = 1/d, dr/dx_j = -r^2 n_j / d)
 *   dx_j = r (g_j - mean(g) - n_j mean(g n)).
 *
 * Dropout multiplies by mask / (1 - p), going back as going forth; Linear: dbias = sum_rows dx.
 */
void nn_layer_backward_rows(const struct nn_layer *layer, const float *y, size_t ldy, const float *dy,
                            size_t lddy, int rows, const uint8_t *mask,
                            const struct nn_layer_tape *tape, float *column)
{
    check(layer);
    if (layer->activation == NN_IDENTITY) {
        nn_kernels()->column_sum(dy, lddy, rows, layer->out, column);
        return;
    }
    nn_kernels()->backward_rows(&(struct nn_backward_rows){
        .rows = rows,
        .dim = layer->out,
        .group = layer->group,
        .activation = layer->activation,
        .gain = layer->gain,
        .shift = layer->shift,
        .mask = mask,
        .keep_scale = keep_scale(layer),
        .normal = tape->normal,
        .rstd = tape->rstd,
        .y = y,
        .ldy = ldy,
        .dy = dy,
        .lddy = lddy,
        .column = column,
    });
}

/* x enters y = x W' + b through every output: dx = dy W. */
void nn_layer_backward_input(const struct nn_layer *layer, const float *dlinear, size_t ldd, int rows,
                             int from, float beta, float *dx, size_t lddx)
{
    int width = gemm_panel_width();

    TD_ASSERT(from >= 0 && from <= layer->in, "from %d in %d", from, layer->in);
    if (layer->packed_back != NULL && from % width == 0)
        gemm_packed(rows, layer->in - from, 0, layer->out, layer->out, dlinear, ldd,
                    layer->packed_back + (size_t)from * (size_t)layer->out, beta, dx + from, lddx);
    else
        gemm_nn(rows, layer->in - from, layer->out, dlinear, ldd, layer->weight + from, layer->stride,
                beta, dx + from, lddx);
}

/* y = x W' + b: dW_oi = sum over rows of dy_o x_i. */
void nn_layer_backward_weight(const struct nn_layer *layer, const float *dlinear, size_t ldd,
                              const float *x, size_t ldx, int rows, int first, int count,
                              float *dweight)
{
    TD_ASSERT(first >= 0 && count >= 0 && first + count <= layer->out, "first %d count %d out %d",
              first, count, layer->out);
    gemm_tn(count, layer->in, rows, dlinear + first, ldd, x, ldx, 1.0f,
            dweight + (size_t)first * layer->stride, layer->stride);
}
