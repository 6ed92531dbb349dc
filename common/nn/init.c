#include "common/nn/init.h"

#include <math.h>

void init_truncated_normal(struct rng *rng, float *out, size_t count, float deviation)
{
    rng_normal(rng, out, count);
    for (size_t i = 0; i < count; i++) {
        out[i] *= deviation;
        while (!(fabsf(out[i]) <= 2.0f)) {
            rng_normal(rng, &out[i], 1);
            out[i] *= deviation;
        }
    }
}

void init_constant(float *out, size_t count, float value)
{
    for (size_t i = 0; i < count; i++)
        out[i] = value;
}
