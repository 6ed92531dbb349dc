/*
 * conv_kernels.h - what convolutions are made of, one table per instruction set. Internal to nn.
 *
 * Packed weights are panels of `width` output channels, [panel][lines * run][width], zero in channels
 * that do not exist.
 */
#ifndef TD_NN_CONV_KERNELS_H
#define TD_NN_CONV_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a pixel of the output sees: `lines` runs of `run` floats. Distances are in floats. */
struct conv_view {
    int rows, columns; /* pixels of the output */
    int lines, run;
    const float *x;
    size_t line, step, row; /* from run to run, from pixel to pixel, from row to row */
};

/* y[r][c][o] = bias[o] + sum over what it sees times packed. */
struct conv_dot {
    struct conv_view view;
    const float *packed;
    int channels;
    const float *bias; /* NULL: 0 */
    bool relu;
    const float *gate; /* y is 0 where this is not positive; NULL: nowhere */
    size_t gate_step, gate_row;
    float *y;
    size_t y_step, y_row;
};

/* dpacked[k][o] += sum over pixels of dy[o] times the k-th float they see. */
struct conv_outer {
    struct conv_view view;
    const float *dy;
    size_t dy_row; /* pixels lie `channels` apart */
    int channels;
    float *dpacked;
};

/* One row of a shifted image: bytes of two rows, weighed, then three neighbours, weighed. */
#define SHIFT_SIDE 64
#define SHIFT_PADDED 72 /* 1 + 3 + 64 + 3 + 1 */
struct conv_shift {
    const uint8_t *upper, *lower; /* [SHIFT_SIDE] */
    float upper_weight, lower_weight;
    const float *taps; /* [3][SHIFT_SIDE] */
    int column;        /* out[i] is taps 0 .. 2 times padded[column + i + 0 .. 2] */
    float *out;        /* [SHIFT_SIDE] */
};

struct conv_kernels {
    int width;
    void (*dot)(const struct conv_dot *args);
    void (*outer)(const struct conv_outer *args);
    void (*shift)(const struct conv_shift *args);
};

extern const struct conv_kernels conv_plain;
#if defined(__x86_64__)
extern const struct conv_kernels conv_avx2, conv_avx512;
#elif defined(__aarch64__)
extern const struct conv_kernels conv_neon;
#endif

/* The table of isa_current(). */
const struct conv_kernels *conv_kernels(void);

#endif
