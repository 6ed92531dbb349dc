/* vec_plain.c - vec.h in ordinary C: the fallback, and what the vector paths are tested against. */
#include <math.h>

#include "common/tensor/vec_kernels.h"

static void plain_exp(float *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = expf(x[i]);
}

static void plain_log(float *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = logf(x[i]);
}

static void plain_tanh(float *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = tanhf(x[i]);
}

static void plain_axpy(float *y, float scale, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        y[i] += scale * x[i];
}

static void plain_scale(float *y, float scale, size_t count)
{
    for (size_t i = 0; i < count; i++)
        y[i] *= scale;
}

static void plain_lerp(float *y, const float *x, float rate, size_t count)
{
    for (size_t i = 0; i < count; i++)
        y[i] += rate * (x[i] - y[i]);
}

static double plain_sum(const float *x, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += (double)x[i];
    return sum;
}

static double plain_sum_squares(const float *x, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static int plain_finite(const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(x[i]))
            return 0;
    return 1;
}

const struct vec_kernels vec_plain = {
    .exp = plain_exp,
    .log = plain_log,
    .tanh = plain_tanh,
    .axpy = plain_axpy,
    .scale = plain_scale,
    .lerp = plain_lerp,
    .sum = plain_sum,
    .sum_squares = plain_sum_squares,
    .finite = plain_finite,
};
