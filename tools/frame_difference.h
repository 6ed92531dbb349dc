/*
 * frame_difference.h - how far two renderers' frames are apart, and what may pass.
 *
 * Through the same library the bytes are equal. Elsewhere a frame passes when its values differ by
 * less than 0.5 grey levels on average and at most 1 % of them by more than 8; every frame is judged
 * by itself, so a wrong one does not hide among right ones.
 */
#ifndef TD_TOOLS_FRAME_DIFFERENCE_H
#define TD_TOOLS_FRAME_DIFFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MEAN_MAX 0.5  /* grey levels */
#define FRAME_FAR      8    /* grey levels: farther apart is far */
#define FRAME_FAR_MAX  0.01 /* of the values */

/* Over the frames added so far; all 0 to begin with. */
struct frame_difference {
    uint64_t frames, unequal; /* frames, and those not equal byte for byte */
    uint64_t outside;         /* frames that do not pass */
    double worst_mean;        /* of a frame, grey levels */
    double worst_far;         /* of a frame, share of its values */
    double mean;              /* of all */
    int most;                 /* the largest difference of two values */
};

/* Compare one frame of `count` values; true when it passes. */
bool frame_difference_add(struct frame_difference *difference, const uint8_t *ours,
                          const uint8_t *theirs, size_t count);

#endif
