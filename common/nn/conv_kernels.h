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

/*
 * One plane of bytes, padded by its edges, three neighbours weighed along rows, then two rows:
 *
 *   across[r][i] = sum over t = 0, 1, 2 of taps[t][i] * padded[r][column + i + t]
 *   out[r][i]    = weight[0][r] * across[row[0][r]][i] + weight[1][r] * across[row[1][r]][i] - 0.5
 */
#define SHIFT_SIDE   64
#define SHIFT_PADDED 72 /* 0, three times the first, all, three times the last, 0 */
struct conv_shift {
    const uint8_t *plane; /* [SHIFT_SIDE][SHIFT_SIDE] */
    int column;           /* 0 .. 6 */
    float taps[3][SHIFT_SIDE];
    int row[2][SHIFT_SIDE];
    float weight[2][SHIFT_SIDE];
    uint8_t *padded; /* [SHIFT_SIDE][SHIFT_PADDED] scratch */
    float *across;   /* [SHIFT_SIDE][SHIFT_SIDE] scratch */
    float *out;
    size_t out_row;
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
