/*
 * conv.h - one convolution without padding: forward and backward over one image, in one thread.
 *
 *   y[r][c][o] = bias[o] + sum over (i, u, v) of weight[o][i][u][v] x[i] at (stride r + u, stride c + v)
 *
 * Images lie channels last, [row][column][channel], so that the channels of neighbouring pixels are one
 * run of memory; the first layer's instead by planes, [row][channel][column]. Either way a pixel of y
 * sees `lines` runs of `run` floats at equal distances: its product with the weights is formed from the
 * image where it lies, nothing is copied out into columns (im2col).
 *
 * Each element is one chain of fused multiply-adds in a fixed order: its bits depend on nothing else.
 * Everything works on borrowed memory and never allocates.
 */
#ifndef TD_NN_CONV_H
#define TD_NN_CONV_H

#include <stdbool.h>
#include <stddef.h>

struct conv {
    int in, out; /* channels */
    int kernel, stride, side; /* side: rows and columns of x */
    bool planes;         /* x is [row][channel][column] */
    bool relu;           /* y = max(0, ...) */
    const float *weight; /* [out, in, kernel, kernel] */
    const float *bias;   /* [out] */
};

/* Rows and columns of y. */
static inline int conv_out_side(const struct conv *conv)
{
    return (conv->side - conv->kernel) / conv->stride + 1;
}

/* Weights of one output channel. */
static inline int conv_depth(const struct conv *conv)
{
    return conv->in * conv->kernel * conv->kernel;
}

/* Rows and columns of zeros that conv_backward_input needs around dy. */
static inline int conv_pad(const struct conv *conv)
{
    return (conv->kernel + conv->stride - 2) / conv->stride;
}

/*
 * Copies of the weights in the order in which kernels read them, for forward and for backward_input.
 * Made anew whenever weights have changed; the layout belongs to the current isa. 64-byte aligned.
 */
size_t conv_packed_floats(const struct conv *conv); /* enough for either copy and any isa */
void conv_pack(const struct conv *conv, float *packed);
void conv_pack_back(const struct conv *conv, float *packed);

/* y [out_side, out_side, out] from x. */
void conv_forward(const struct conv *conv, const float *packed, const float *x, float *y);

/*
 * dx from dy, where dy is the gradient before this layer's ReLU.
 *
 *   dy    in   pixel (0, 0); rows row_dy floats apart, with conv_pad zeros around
 *   gate  in   [side, side, in] the output of the ReLU below, or NULL: dx is 0 where it is not positive
 *   dx    out  pixel (0, 0) of [side, side, in], rows row_dx floats apart
 */
void conv_backward_input(const struct conv *conv, const float *packed_back, const float *dy, size_t row_dy,
                         const float *gate, float *dx, size_t row_dx);

/* dpacked [depth, out] += the gradient at the weights, dbias [out] += the gradient at the bias. */
void conv_backward_weight(const struct conv *conv, const float *x, const float *dy, size_t row_dy,
                          float *dpacked, float *dbias);

/* dweight [out, in, kernel, kernel] += dpacked [depth, out], of which rows first .. first + count - 1. */
void conv_unpack_weight(const struct conv *conv, const float *dpacked, int first, int count, float *dweight);

#endif
