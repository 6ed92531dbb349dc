#include "common/tensor/bf16.h"

void bf16_from_floats(uint16_t *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = bf16_nearest(x[i]);
}

void bf16_to_floats(float *out, const uint16_t *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = bf16_float(x[i]);
}

bool bf16_finite(const uint16_t *x, size_t count)
{
    int bad = 0;

    for (size_t i = 0; i < count; i++)
        bad |= (x[i] & 0x7f80) == 0x7f80;
    return bad == 0;
}
