/*
 * pixels.h - the pixel encoder: ShiftAug, four convolutions, SimNorm; forward and backward.
 *
 * An observation is three frames [3, 64, 64] of bytes, oldest first: nine planes.
 *
 *   shift   replicate-pad to 70 x 70, crop 64 x 64 at (column, row), both 0 .. 6, by bilinear sampling as
 *           the reference does it (within a few thousandths of a grey level of an exact crop)
 *   then    x / 255 - 0.5; 7x7 stride 2, 5x5 stride 2, 3x3 stride 2, each with ReLU; 3x3; SimNorm
 *
 * Sides go 64, 29, 13, 6, 4; features are channel-major, [channel][row][column]. Observations are
 * independent tasks for pool_run; gradients are summed over PIXEL_TILE of them in one task and then over
 * tiles in order, so that results do not depend on the number of threads. Shifted images are made anew
 * for backward: that costs a fiftieth of it and a hundredth of the memory.
 *
 * Everything works on borrowed memory and never allocates.
 * Source: TD-MPC2 reference, `layers.py` (conv, ShiftAug, PixelPreprocess).
 */
#ifndef TD_NN_PIXELS_H
#define TD_NN_PIXELS_H

#include <stddef.h>
#include <stdint.h>

#include "common/nn/conv.h"
#include "common/util/arena.h"
#include "common/util/rng.h"

#define PIXEL_SIDE        64
#define PIXEL_FRAMES      3
#define PIXEL_PLANES      9
#define PIXEL_FRAME_BYTES (3 * PIXEL_SIDE * PIXEL_SIDE)
#define PIXEL_SHIFTS      7  /* of each direction: 0 .. 6 */
#define PIXEL_LAYERS      4
#define PIXEL_CELLS       16 /* pixels of the last layer's output */
#define PIXEL_TILE        8  /* observations whose gradients are summed in one task */

/* Views of the parameters. */
struct pixel_net {
    int channels, group; /* group: SimNorm's, divides 16 channels */
    struct conv layer[PIXEL_LAYERS];
};

struct pixel_net_grad {
    float *weight[PIXEL_LAYERS], *bias[PIXEL_LAYERS];
};

/* The layers' sizes; weights and biases are the caller's to set. */
void pixel_net_init(struct pixel_net *net, int channels, int group);

/* Multiply-adds of one observation: forward, and gradients (parameters, and inputs of all but the first layer). */
double pixel_forward_products(const struct pixel_net *net);
double pixel_backward_products(const struct pixel_net *net);

/* Packed weights: laid out once, packed layer by layer whenever weights have changed. */
struct pixel_panels {
    float *forward[PIXEL_LAYERS];
    float *backward[PIXEL_LAYERS]; /* NULL: not wanted; the first layer never has one */
};
void pixel_panels_init(struct pixel_panels *panels, const struct pixel_net *net, bool backward,
                       struct arena *arena);
void pixel_panels_pack(const struct pixel_panels *panels, const struct pixel_net *net, int layer);

/* Memory of one worker. */
struct pixel_scratch {
    uint8_t *padded;
    float *plane, *image;     /* one plane, and the shifted image [row][plane][column] */
    float *y[PIXEL_LAYERS];   /* [side, side, channels] outputs */
    float *features;          /* [channels * PIXEL_CELLS] */
    float *dy[PIXEL_LAYERS];  /* gradient at pixel (0, 0) before each ReLU, in a frame of zeros; NULL: forward only */
};
void pixel_scratch_init(struct pixel_scratch *scratch, const struct pixel_net *net, bool backward,
                        struct arena *arena);

/* One observation and its crop: whole numbers 0 .. 6. */
struct pixel_obs {
    const uint8_t *frame[PIXEL_FRAMES];
    int column, row;
};

/* Floats of activations that backward needs of one observation. */
size_t pixel_tape_floats(const struct pixel_net *net);

/*
 * z [channels * PIXEL_CELLS] = features of one observation.
 *
 *   tape  [pixel_tape_floats]  out  what backward needs; NULL: none will follow
 */
void pixel_forward(const struct pixel_net *net, const struct pixel_panels *panels, const struct pixel_obs *obs,
                   const struct pixel_scratch *scratch, float *tape, float *z);

/* Floats of a partial sum of gradients. */
size_t pixel_partial_floats(const struct pixel_net *net);

/* partial += the gradient of one observation; z as forward left it, dz the gradient there. */
void pixel_backward(const struct pixel_net *net, const struct pixel_panels *panels, const struct pixel_obs *obs,
                    const struct pixel_scratch *scratch, const float *tape, const float *z, const float *dz,
                    float *partial);

/* Number of gradient parts; each adds a block of the sum of `count` partials (which it uses up) to grad. */
int pixel_gradient_parts(const struct pixel_net *net);
void pixel_gradient(const struct pixel_net *net, float *partials, int count, const struct pixel_net_grad *grad,
                    int part);

/* Whole numbers 0 .. 6, as floats. */
void pixels_draw_shifts(struct rng *rng, float *out, size_t count);

#endif
