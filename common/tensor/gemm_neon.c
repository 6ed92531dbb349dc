#if defined(__aarch64__)
#include <stddef.h>

#include "common/tensor/simd_neon.h"

#define ROWS 6 /* 24 registers of sums, 4 of B, 1 broadcast: 29 of 32 */

V_INLINE void transpose8(const float *from, size_t ld, float *to, size_t step)
{
    for (int j = 0; j < W; j++)
        for (int p = 0; p < W; p++)
            to[(size_t)p * step + (size_t)j] = from[(size_t)j * ld + (size_t)p];
}

#define TRANSPOSE transpose8
#define GEMM_TABLE gemm_neon
#include "common/tensor/gemm_kernels.inc"
#else
typedef int gemm_neon_unused;
#endif
