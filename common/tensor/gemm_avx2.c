#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include "common/tensor/simd_avx2.h"

#define ROWS 6 /* 12 sums, 2 vectors of B, 1 broadcast: 15 of 16 registers */

/* 8 x 8: pairs of rows interleaved by floats, then by doubles, then by halves. */
V_INLINE void transpose8(const float *from, size_t ld, float *to, size_t step)
{
    __m256 r[8], t[8];

    _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(from + (size_t)i * ld);
    _Pragma("GCC unroll 4") for (int i = 0; i < 8; i += 2)
    {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    _Pragma("GCC unroll 2") for (int i = 0; i < 8; i += 4)
    {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++)
    {
        _mm256_storeu_ps(to + (size_t)c * step, _mm256_permute2f128_ps(r[c], r[4 + c], 0x20));
        _mm256_storeu_ps(to + (size_t)(4 + c) * step, _mm256_permute2f128_ps(r[c], r[4 + c], 0x31));
    }
}

#define TRANSPOSE transpose8
#define GEMM_TABLE gemm_avx2
#include "common/tensor/gemm_kernels.inc"
#else
typedef int gemm_avx2_unused;
#endif
