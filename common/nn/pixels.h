/*
 * pixels.h - the pixel encoder: ShiftAug, four convolutions, SimNorm; forward and backward.
 *
 * An observation is three frames [3, 64, 64] of bytes, oldest first: nine planes. Each observation is a
 * task of its own for pool_run, each PIXEL_TILE of them one when gradients are summed, so that results
 * do not depend on the number of threads.
 *
 *   shift   replicate-pad to 70 x 70, crop 64 x 64 at (column, row), both 0 .. 6, by bilinear sampling as
 *           the reference does it (within a few thousandths of a grey level of an exact crop)
 *   then    x / 255 - 0.5; 7x7 stride 2, 5x5 stride 2, 3x3 stride 2, each with ReLU; 3x3; SimNorm
 *
 * Sides go 64, 29, 13, 6, 4. Everything works on borrowed memory and never allocates.
 * Source: TD-MPC2 reference, `layers.py` (conv, ShiftAug, PixelPreprocess).
 */
#ifndef TD_NN_PIXELS_H
#define TD_NN_PIXELS_H

#include <stddef.h>

#include "common/util/rng.h"

#define PIXEL_SIDE        64
#define PIXEL_FRAMES      3
#define PIXEL_PLANES      9
#define PIXEL_FRAME_BYTES (3 * PIXEL_SIDE * PIXEL_SIDE)
#define PIXEL_SHIFTS      7  /* of each direction: 0 .. 6 */
#define PIXEL_LAYERS      4
#define PIXEL_CELLS       16 /* pixels of the last layer's output */
#define PIXEL_TILE        8  /* observations whose gradients are summed in one task */

/* Whole numbers 0 .. 6, as floats. */
void pixels_draw_shifts(struct rng *rng, float *out, size_t count);

#endif
