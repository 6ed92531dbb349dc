/*
 * layer.h - Linear and NormedLinear: forward and backward over a tile of rows, in one thread.
 *
 *   NormedLinear: x -> Linear(bias) -> Dropout -> LayerNorm(gain, shift, eps 1e-5) -> Mish | SimNorm
 *
 * Source: TD-MPC2 reference, `layers.py`. Everything here works on borrowed memory and never
 * allocates. Rows of x, y and their gradients may be strided (ld.. floats from row to row), so that
 * a layer writes straight into the next input [z | a].
 */
#ifndef TD_NN_LAYER_H
#define TD_NN_LAYER_H

#include <stddef.h>
#include <stdint.h>

#define NN_LAYERNORM_EPS 1e-5f
#define NN_SIMNORM_GROUP 8
#define NN_DIM_MAX 8192 /* widest layer output: rows of scratch lie on the stack */

enum nn_activation { NN_IDENTITY, NN_MISH, NN_SIMNORM };

/* Views of one layer's parameters. */
struct nn_layer {
    int in, out;
    size_t stride;       /* floats from one row of weight to the next, at least `in` */
    enum nn_activation activation;
    float dropout;       /* probability of zeroing a linear output in training */
    int group;           /* SimNorm group size; divides out */
    const float *weight; /* [out, stride] */
    const float *bias;   /* [out] */
    const float *gain;   /* [out] LayerNorm weight; NULL in a plain Linear */
    const float *shift;  /* [out] LayerNorm bias; NULL in a plain Linear */

    /* Copies of weight made by gemm_pack, or NULL; results are the same, sooner (mlp_panels). */
    const float *packed;      /* for y = x W', packed_depth deep; its row packed_from meets x[0] */
    const float *packed_back; /* for dx = dy W */
    /* Weights stored as bfloat16, for acting alone: then `weight` and the two above are NULL. */
    const uint16_t *weight_half, *packed_half;
    int packed_from, packed_depth;
};

/* Where its gradients are added; same shapes, weight with the layer's stride. */
struct nn_layer_grad {
    float *weight, *bias, *gain, *shift;
};

/* What a NormedLinear keeps from forward for backward: normal [rows, out] and rstd [rows]. */
struct nn_layer_tape {
    float *normal; /* forward: the normalised linear output; backward turns it into dlinear */
    float *rstd;   /* one over the standard deviation of each row */
};

/*
 * y [rows, out] = layer(x [rows, in]).
 *
 *   mask  [rows, out]  1 = kept, scaled by 1/(1-dropout); NULL = no dropout (evaluation)
 *   tape               NULL when no backward will follow
 */
void nn_layer_forward(const struct nn_layer *layer, const float *x, size_t ldx, int rows,
                      const uint8_t *mask, const struct nn_layer_tape *tape, float *y, size_t ldy);

/* y [rows, out] = x W' + beta y: the product alone, without bias. */
void nn_layer_product(const struct nn_layer *layer, const float *x, size_t ldx, int rows, float beta,
                      float *y, size_t ldy);

/*
 * First half of backward, by rows: from dy to the gradient at the Linear's output.
 *
 *   y, dy    [rows, out]  in       forward's output and the gradient at it
 *   tape                  in, out  normal becomes dlinear; a plain Linear's dlinear is dy itself
 *   column   [3, out]     out      this tile's sums for bias, gain, shift (bias only when plain)
 */
void nn_layer_backward_rows(const struct nn_layer *layer, const float *y, size_t ldy, const float *dy,
                            size_t lddy, int rows, const uint8_t *mask,
                            const struct nn_layer_tape *tape, float *column);

/* dx [rows, from..in) = dlinear W + beta dx: the gradient at input columns from .. in-1. */
void nn_layer_backward_input(const struct nn_layer *layer, const float *dlinear, size_t ldd, int rows,
                             int from, float beta, float *dx, size_t lddx);

/* dW rows [first, first + count) += dlinear' x, over all rows in order. */
void nn_layer_backward_weight(const struct nn_layer *layer, const float *dlinear, size_t ldd,
                              const float *x, size_t ldx, int rows, int first, int count,
                              float *dweight);

/*
 * The parts by themselves, for tests and for nets that are not chains of NormedLinear.
 * y may be x, dx may be dy. dgain and dshift are added to.
 */
void nn_layernorm_forward(const float *x, const float *gain, const float *shift, int rows, int dim,
                          float *y, float *normal, float *rstd);
void nn_layernorm_backward(const float *dy, const float *gain, const float *normal,
                           const float *rstd, int rows, int dim, float *dx, float *dgain,
                           float *dshift);
void nn_mish_forward(const float *x, size_t count, float *y);
void nn_mish_backward(const float *x, const float *dy, size_t count, float *dx);
void nn_simnorm_forward(const float *x, int rows, int dim, int group, float *y);
void nn_simnorm_backward(const float *y, const float *dy, int rows, int dim, int group, float *dx);

#endif
