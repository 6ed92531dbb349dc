#include "common/nn/pixels.h"

void pixels_draw_shifts(struct rng *rng, float *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (float)rng_below(rng, PIXEL_SHIFTS);
}
