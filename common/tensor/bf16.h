/*
 * bf16.h - bfloat16, the upper half of a float: 8 bits of exponent, 8 of precision. For storage alone:
 * whatever is computed is computed in float.
 */
#ifndef TD_TENSOR_BF16_H
#define TD_TENSOR_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Exact. */
static inline float bf16_float(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* The nearest, of two equally near the even one; NaN stays NaN, what is too large becomes infinite. */
static inline uint16_t bf16_nearest(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void bf16_from_floats(uint16_t *out, const float *x, size_t count);
void bf16_to_floats(float *out, const uint16_t *x, size_t count);

/* Neither NaN nor infinity among them. */
bool bf16_finite(const uint16_t *x, size_t count);

#endif
