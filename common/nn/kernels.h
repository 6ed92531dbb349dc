/*
 * kernels.h - the elementwise work of the layers, fused, one table per instruction set.
 * Internal to nn; layer.h, softmax.h and adam.h are the public faces and explain the mathematics.
 */
#ifndef TD_NN_KERNELS_H
#define TD_NN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "common/nn/layer.h"

/* A tile of rows going through everything that follows the matrix product of a NormedLinear. */
struct nn_forward_rows {
    int rows, dim, group;
    enum nn_activation activation; /* NN_MISH or NN_SIMNORM */
    const float *bias, *gain, *shift;
    const uint8_t *mask; /* [rows, dim] or NULL */
    float keep_scale;    /* 1 / (1 - dropout) */
    float *normal;       /* [rows, dim] or NULL */
    float *rstd;         /* [rows], with normal */
    float *y;            /* in: x W'; out: the activation */
    size_t ldy;
};

struct nn_backward_rows {
    int rows, dim, group;
    enum nn_activation activation;
    const float *gain, *shift;
    const uint8_t *mask;
    float keep_scale;
    float *normal; /* in: normalised values; out: gradient at the Linear's output */
    const float *rstd;
    const float *y;
    size_t ldy;
    const float *dy;
    size_t lddy;
    float *column; /* [3, dim] bias, gain, shift sums over the rows, overwritten */
};

struct nn_adam {
    float beta2;
    float one_minus_beta1, one_minus_beta2;
    float step_size;       /* lr / (1 - beta1^t) */
    float inverse_root;    /* 1 / sqrt(1 - beta2^t) */
    float eps;
    float factor; /* clipping */
};

struct nn_kernels {
    void (*forward_rows)(const struct nn_forward_rows *args);
    void (*backward_rows)(const struct nn_backward_rows *args);
    void (*add_bias)(float *y, size_t ldy, int rows, int dim, const float *bias);
    void (*column_sum)(const float *x, size_t ldx, int rows, int dim, float *sum);
    void (*mish_forward)(const float *x, size_t count, float *y);
    void (*mish_backward)(const float *x, const float *dy, size_t count, float *dx);
    void (*simnorm_forward)(const float *x, int rows, int dim, int group, float *y);
    void (*simnorm_backward)(const float *y, const float *dy, int rows, int dim, int group,
                             float *dx);
    void (*softmax_expect)(const float *logits, size_t ld, int rows, int bins,
                           const float *support, float *out);
    void (*softmax_expect_backward)(const float *logits, size_t ld, int rows, int bins,
                                    const float *support, const float *out, const float *dout,
                                    float *dlogits, size_t ldd);
    void (*softmax_two_hot)(const float *logits, size_t ld, int rows, int bins, const int *index,
                            const float *weight, float *loss, float scale, float *dlogits,
                            size_t ldd);
    void (*adam)(const struct nn_adam *args, float *parameter, float *gradient, float *m, float *v,
                 size_t count);
};

extern const struct nn_kernels nn_plain;
#if defined(__x86_64__)
extern const struct nn_kernels nn_avx2, nn_avx512;
#elif defined(__aarch64__)
extern const struct nn_kernels nn_neon;
#endif

/* The table of isa_current(). */
const struct nn_kernels *nn_kernels(void);

#endif
