#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#include "common/tensor/simd_avx512.h"

#define ROWS 14 /* 28 sums, 2 vectors of B, 1 broadcast: 31 of 32 registers */

/* 16 x 16: pairs of rows interleaved by floats, then by doubles, then by quarters twice. */
V_INLINE void transpose16(const float *from, size_t ld, float *to, size_t step)
{
    __m512 r[16], t[16];

    _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(from + (size_t)i * ld);
    _Pragma("GCC unroll 8") for (int i = 0; i < 16; i += 2)
    {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#define JOIN(half, a, b)                                                                           \
    _mm512_castpd_ps(_mm512_unpack##half##_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
    /* r[4 g + c]: column c of every quarter, rows 4 g .. 4 g + 3. */
    _Pragma("GCC unroll 4") for (int i = 0; i < 16; i += 4)
    {
        r[i] = JOIN(lo, t[i], t[i + 2]);
        r[i + 1] = JOIN(hi, t[i], t[i + 2]);
        r[i + 2] = JOIN(lo, t[i + 1], t[i + 3]);
        r[i + 3] = JOIN(hi, t[i + 1], t[i + 3]);
    }
#undef JOIN
    _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++)
    {
        /* Quarters 0 and 2, then 1 and 3, of the upper and the lower eight rows. */
        __m512 even_top = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
        __m512 odd_top = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        __m512 even_low = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        __m512 odd_low = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);

        _mm512_storeu_ps(to + (size_t)c * step, _mm512_shuffle_f32x4(even_top, even_low, 0x88));
        _mm512_storeu_ps(to + (size_t)(8 + c) * step, _mm512_shuffle_f32x4(even_top, even_low, 0xdd));
        _mm512_storeu_ps(to + (size_t)(4 + c) * step, _mm512_shuffle_f32x4(odd_top, odd_low, 0x88));
        _mm512_storeu_ps(to + (size_t)(12 + c) * step, _mm512_shuffle_f32x4(odd_top, odd_low, 0xdd));
    }
}

#define TRANSPOSE transpose16
#define GEMM_TABLE gemm_avx512
#include "common/tensor/gemm_kernels.inc"
#else
typedef int gemm_avx512_unused;
#endif
