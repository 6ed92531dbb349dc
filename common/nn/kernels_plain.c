/*
 * kernels_plain.c - every kernel in ordinary C, one formula at a time: the fallback, and what the
 * vector versions are tested against. Sums are taken in double.
 */
#include "common/nn/kernels.h"

#include <math.h>

#include "common/util/error.h"

/* mish(u) = u tanh(ln(1 + e^u)). */
static float mish(float u)
{
    return u * tanhf(u > 20.0f ? u : log1pf(expf(u)));
}

/* With t = tanh(softplus u): mish' = t + u (1 - t^2) sigmoid(u). */
static float mish_slope(float u)
{
    float t = tanhf(u > 20.0f ? u : log1pf(expf(u)));

    return t + u * (1.0f - t * t) / (1.0f + expf(-u));
}

static void softmax_group(const float *x, int count, float *y)
{
    float highest = x[0];
    double sum = 0;

    for (int i = 1; i < count; i++)
        highest = x[i] > highest ? x[i] : highest;
    for (int i = 0; i < count; i++) {
        y[i] = expf(x[i] - highest);
        sum += (double)y[i];
    }
    for (int i = 0; i < count; i++)
        y[i] = (float)((double)y[i] / sum);
}

/* y = softmax(x): dx_i = y_i (dy_i - sum_j dy_j y_j). */
static void softmax_group_backward(const float *y, const float *dy, int count, float *dx)
{
    double dot = 0;

    for (int i = 0; i < count; i++)
        dot += (double)y[i] * (double)dy[i];
    for (int i = 0; i < count; i++)
        dx[i] = y[i] * (dy[i] - (float)dot);
}

static void forward_rows(const struct nn_forward_rows *a)
{
    for (int r = 0; r < a->rows; r++) {
        float *y = a->y + (size_t)r * a->ldy;
        double mean = 0, variance = 0;
        float rstd;

        for (int i = 0; i < a->dim; i++) {
            y[i] += a->bias[i];
            if (a->mask != NULL)
                y[i] = a->mask[(size_t)r * (size_t)a->dim + (size_t)i] ? y[i] * a->keep_scale : 0.0f;
            mean += (double)y[i];
        }
        mean /= a->dim;
        for (int i = 0; i < a->dim; i++)
            variance += ((double)y[i] - mean) * ((double)y[i] - mean);
        rstd = (float)(1.0 / sqrt(variance / a->dim + (double)NN_LAYERNORM_EPS));
        for (int i = 0; i < a->dim; i++) {
            float normal = (float)((double)y[i] - mean) * rstd;

            if (a->normal != NULL)
                a->normal[(size_t)r * (size_t)a->dim + (size_t)i] = normal;
            y[i] = normal * a->gain[i] + a->shift[i];
            if (a->activation == NN_MISH)
                y[i] = mish(y[i]);
        }
        if (a->normal != NULL)
            a->rstd[r] = rstd;
        for (int i = 0; a->activation == NN_SIMNORM && i < a->dim; i += a->group)
            softmax_group(y + i, a->group, y + i);
    }
}

static void backward_rows(const struct nn_backward_rows *a)
{
    float du[NN_DIM_MAX];
    float *dbias = a->column, *dgain = dbias + a->dim, *dshift = dgain + a->dim;

    for (int i = 0; i < 3 * a->dim; i++)
        a->column[i] = 0;
    for (int r = 0; r < a->rows; r++) {
        float *normal = a->normal + (size_t)r * (size_t)a->dim;
        const float *dy = a->dy + (size_t)r * a->lddy, *y = a->y + (size_t)r * a->ldy;
        const uint8_t *mask = a->mask == NULL ? NULL : a->mask + (size_t)r * (size_t)a->dim;
        double mean = 0, product = 0;

        for (int i = 0; i < a->dim && a->activation == NN_MISH; i++)
            du[i] = dy[i] * mish_slope(normal[i] * a->gain[i] + a->shift[i]);
        for (int i = 0; i < a->dim && a->activation == NN_SIMNORM; i += a->group)
            softmax_group_backward(y + i, dy + i, a->group, du + i);
        for (int i = 0; i < a->dim; i++) {
            dshift[i] += du[i];
            dgain[i] += du[i] * normal[i];
            du[i] *= a->gain[i];
            mean += (double)du[i];
            product += (double)du[i] * (double)normal[i];
        }
        mean /= a->dim;
        product /= a->dim;
        for (int i = 0; i < a->dim; i++) {
            double d = (double)a->rstd[r] * ((double)du[i] - mean - (double)normal[i] * product);

            if (mask != NULL)
                d = mask[i] ? d * (double)a->keep_scale : 0.0;
            normal[i] = (float)d;
            dbias[i] += normal[i];
        }
    }
}

static void add_bias(float *y, size_t ldy, int rows, int dim, const float *bias)
{
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < dim; i++)
            y[(size_t)r * ldy + (size_t)i] += bias[i];
}

static void column_sum(const float *x, size_t ldx, int rows, int dim, float *sum)
{
    for (int i = 0; i < dim; i++)
        sum[i] = 0;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < dim; i++)
            sum[i] += x[(size_t)r * ldx + (size_t)i];
}

static void mish_forward(const float *x, size_t count, float *y)
{
    for (size_t i = 0; i < count; i++)
        y[i] = mish(x[i]);
}

static void mish_backward(const float *x, const float *dy, size_t count, float *dx)
{
    for (size_t i = 0; i < count; i++)
        dx[i] = dy[i] * mish_slope(x[i]);
}

static void simnorm_forward(const float *x, int rows, int dim, int group, float *y)
{
    for (size_t i = 0; i < (size_t)rows * (size_t)dim; i += (size_t)group)
        softmax_group(x + i, group, y + i);
}

static void simnorm_backward(const float *y, const float *dy, int rows, int dim, int group, float *dx)
{
    for (size_t i = 0; i < (size_t)rows * (size_t)dim; i += (size_t)group)
        softmax_group_backward(y + i, dy + i, group, dx + i);
}

/* The largest logit and the sum of e^(logit - largest). */
static double softmax_total(const float *x, int bins, float *highest)
{
    double sum = 0;

    *highest = x[0];
    for (int j = 1; j < bins; j++)
        *highest = x[j] > *highest ? x[j] : *highest;
    for (int j = 0; j < bins; j++)
        sum += (double)expf(x[j] - *highest);
    return sum;
}

static void softmax_expect(const float *logits, size_t ld, int rows, int bins, const float *support,
                           float *out)
{
    for (int r = 0; r < rows; r++) {
        const float *x = logits + (size_t)r * ld;
        float highest;
        double total = softmax_total(x, bins, &highest), dot = 0;

        for (int j = 0; j < bins; j++)
            dot += (double)expf(x[j] - highest) * (double)support[j];
        out[r] = (float)(dot / total);
    }
}

static void softmax_expect_backward(const float *logits, size_t ld, int rows, int bins,
                                    const float *support, const float *out, const float *dout,
                                    float *dlogits, size_t ldd)
{
    for (int r = 0; r < rows; r++) {
        const float *x = logits + (size_t)r * ld;
        float highest, *dx = dlogits + (size_t)r * ldd;
        double total = softmax_total(x, bins, &highest);

        for (int j = 0; j < bins; j++) {
            double p = (double)expf(x[j] - highest) / total;

            dx[j] = (float)((double)dout[r] * p * ((double)support[j] - (double)out[r]));
        }
    }
}

static void softmax_two_hot(const float *logits, size_t ld, int rows, int bins, const int *index,
                            const float *weight, float *loss, float scale, float *dlogits, size_t ldd)
{
    for (int r = 0; r < rows; r++) {
        const float *x = logits + (size_t)r * ld;
        int low = index[r], high = (low + 1) % bins;
        float highest;
        double total = softmax_total(x, bins, &highest), w = (double)weight[r];

        loss[r] = (float)(log(total) - (1 - w) * (double)(x[low] - highest) -
                          w * (double)(x[high] - highest));
        if (dlogits == NULL)
            continue;
        float *dx = dlogits + (size_t)r * ldd;

        for (int j = 0; j < bins; j++) {
            double target = (j == low ? 1 - w : 0) + (j == high ? w : 0);

            dx[j] = (float)((double)scale * ((double)expf(x[j] - highest) / total - target));
        }
    }
}

static void adam(const struct nn_adam *a, float *parameter, float *gradient, float *m, float *v,
                 size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float g = a->factor * gradient[i];

        m[i] += a->one_minus_beta1 * (g - m[i]);
        v[i] = a->beta2 * v[i] + a->one_minus_beta2 * g * g;
        parameter[i] -= a->step_size * m[i] / (sqrtf(v[i]) * a->inverse_root + a->eps);
        gradient[i] = 0;
    }
}

const struct nn_kernels nn_plain = {
    .forward_rows = forward_rows,
    .backward_rows = backward_rows,
    .add_bias = add_bias,
    .column_sum = column_sum,
    .mish_forward = mish_forward,
    .mish_backward = mish_backward,
    .simnorm_forward = simnorm_forward,
    .simnorm_backward = simnorm_backward,
    .softmax_expect = softmax_expect,
    .softmax_expect_backward = softmax_expect_backward,
    .softmax_two_hot = softmax_two_hot,
    .adam = adam,
};
