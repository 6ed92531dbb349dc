/* conv_kernels_plain.c - convolutions in ordinary C, sums in double: the fallback and the tests' oracle. */
#include <string.h>

#include "common/nn/conv_kernels.h"
#include "common/tensor/isa.h"

#define WIDTH 8

/* The k-th float that a pixel sees. */
static float seen(const struct conv_view *view, int row, int column, int k)
{
    size_t line = (size_t)(k / view->run), place = (size_t)(k % view->run);

    return view->x[(size_t)row * view->row + (size_t)column * view->step + line * view->line + place];
}

static float dot_one(const struct conv_dot *a, int row, int column, int channel)
{
    int depth = a->view.lines * a->view.run;
    const float *panel = a->packed + (size_t)(channel / WIDTH) * (size_t)depth * WIDTH + channel % WIDTH;
    double sum = a->bias == NULL ? 0 : (double)a->bias[channel];

    for (int k = 0; k < depth; k++)
        sum += (double)seen(&a->view, row, column, k) * (double)panel[(size_t)k * WIDTH];
    return (float)sum;
}

static void dot(const struct conv_dot *a)
{
    for (int row = 0; row < a->view.rows; row++)
        for (int column = 0; column < a->view.columns; column++) {
            float *y = a->y + (size_t)row * a->y_row + (size_t)column * a->y_step;
            const float *gate = a->gate == NULL ? NULL
                                                : a->gate + (size_t)row * a->gate_row +
                                                      (size_t)column * a->gate_step;

            for (int channel = 0; channel < a->channels; channel++) {
                float sum = dot_one(a, row, column, channel);

                if (a->relu && sum < 0.0f)
                    sum = 0.0f;
                y[channel] = gate == NULL || gate[channel] > 0.0f ? sum : 0.0f;
            }
        }
}

static void outer(const struct conv_outer *a)
{
    for (int k = 0; k < a->view.lines * a->view.run; k++)
        for (int channel = 0; channel < a->channels; channel++) {
            double sum = 0;

            for (int row = 0; row < a->view.rows; row++)
                for (int column = 0; column < a->view.columns; column++) {
                    size_t pixel = (size_t)row * a->dy_row + (size_t)column * (size_t)a->channels;

                    sum += (double)seen(&a->view, row, column, k) * (double)a->dy[pixel + (size_t)channel];
                }
            a->dpacked[(size_t)k * (size_t)a->channels + (size_t)channel] += (float)sum;
        }
}

/* The byte at a place of the padded plane. */
static double padded(const struct conv_shift *a, int row, int place)
{
    if (place == 0 || place == SHIFT_PADDED - 1)
        return 0;
    place = place < 4 ? 0 : place > SHIFT_SIDE + 3 ? SHIFT_SIDE - 1 : place - 4;
    return (double)a->plane[row * SHIFT_SIDE + place];
}

static void shift(const struct conv_shift *a)
{
    for (int r = 0; r < SHIFT_SIDE; r++)
        for (int i = 0; i < SHIFT_SIDE; i++) {
            double sum = 0;

            for (int tap = 0; tap < 3; tap++)
                for (int k = 0; k < 2; k++)
                    sum += (double)a->weight[k][r] * (double)a->taps[tap][i] *
                           padded(a, a->row[k][r], a->column + i + tap);
            a->out[(size_t)r * a->out_row + (size_t)i] = (float)(sum - 0.5);
        }
}

const struct conv_kernels conv_plain = {.width = WIDTH, .dot = dot, .outer = outer, .shift = shift};

const struct conv_kernels *conv_kernels(void)
{
    switch (isa_current()) {
#if defined(__x86_64__)
    case ISA_AVX512:
        return &conv_avx512;
    case ISA_AVX2:
        return &conv_avx2;
#elif defined(__aarch64__)
    case ISA_NEON:
        return &conv_neon;
#endif
    default:
        return &conv_plain;
    }
}
