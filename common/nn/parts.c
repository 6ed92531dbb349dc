/* parts.c - LayerNorm, Mish and SimNorm by themselves (layer.h). */
#include <math.h>

#include "common/nn/kernels.h"
#include "common/nn/layer.h"

void nn_layernorm_forward(const float *x, const float *gain, const float *shift, int rows, int dim,
                          float *y, float *normal, float *rstd)
{
    for (int r = 0; r < rows; r++, x += dim, y += dim, normal += dim) {
        double mean = 0, variance = 0;

        for (int i = 0; i < dim; i++)
            mean += (double)x[i] / dim;
        for (int i = 0; i < dim; i++)
            variance += ((double)x[i] - mean) * ((double)x[i] - mean) / dim;
        rstd[r] = (float)(1.0 / sqrt(variance + (double)NN_LAYERNORM_EPS));
        for (int i = 0; i < dim; i++) {
            normal[i] = (float)((double)x[i] - mean) * rstd[r];
            y[i] = normal[i] * gain[i] + shift[i];
        }
    }
}

/* Derived in layer.c: dx = r (g - mean(g) - n mean(g n)) with g = dy gain. */
void nn_layernorm_backward(const float *dy, const float *gain, const float *normal,
                           const float *rstd, int rows, int dim, float *dx, float *dgain,
                           float *dshift)
{
    for (int r = 0; r < rows; r++, dy += dim, dx += dim, normal += dim) {
        double mean = 0, product = 0;

        for (int i = 0; i < dim; i++) {
            double g = (double)dy[i] * (double)gain[i];

            mean += g / dim;
            product += g * (double)normal[i] / dim;
            dgain[i] += dy[i] * normal[i];
            dshift[i] += dy[i];
        }
        for (int i = 0; i < dim; i++)
            dx[i] = (float)((double)rstd[r] * ((double)dy[i] * (double)gain[i] - mean -
                                               (double)normal[i] * product));
    }
}

void nn_mish_forward(const float *x, size_t count, float *y)
{
    nn_kernels()->mish_forward(x, count, y);
}

/* The slope of u tanh(softplus u) is derived where it is computed, kernels.inc. */
void nn_mish_backward(const float *x, const float *dy, size_t count, float *dx)
{
    nn_kernels()->mish_backward(x, dy, count, dx);
}

void nn_simnorm_forward(const float *x, int rows, int dim, int group, float *y)
{
    nn_kernels()->simnorm_forward(x, rows, dim, group, y);
}

/* Derived in layer.c: dx_i = y_i (dy_i - sum_j dy_j y_j) within each group. */
void nn_simnorm_backward(const float *y, const float *dy, int rows, int dim, int group, float *dx)
{
    nn_kernels()->simnorm_backward(y, dy, rows, dim, group, dx);
}
