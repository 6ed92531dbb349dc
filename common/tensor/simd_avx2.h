/* simd_avx2.h - the primitives of simd_avx512.h, 8 floats wide. */
#ifndef TD_TENSOR_SIMD_AVX2_H
#define TD_TENSOR_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define W 8
#define V_INLINE static inline __attribute__((always_inline, unused))

typedef __m256 vf;
typedef __m256 vmask;

V_INLINE __m256i v_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

V_INLINE vf v_load(const float *p, int n)
{
    return n == W ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, v_lanes(n));
}

V_INLINE void v_store(float *p, vf x, int n)
{
    if (n == W)
        _mm256_storeu_ps(p, x);
    else
        _mm256_maskstore_ps(p, v_lanes(n), x);
}

V_INLINE vf v_set(float x)
{
    return _mm256_set1_ps(x);
}

V_INLINE vf v_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

V_INLINE vf v_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

V_INLINE vf v_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

V_INLINE vf v_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

V_INLINE vf v_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}

V_INLINE vf v_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

V_INLINE vf v_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

V_INLINE vf v_min(vf limit, vf x)
{
    return _mm256_min_ps(limit, x);
}

V_INLINE vf v_max(vf limit, vf x)
{
    return _mm256_max_ps(limit, x);
}

V_INLINE vmask v_less(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}

V_INLINE vf v_select(vmask mask, vf a, vf b)
{
    return _mm256_blendv_ps(b, a, mask);
}

V_INLINE vf v_fill(vf x, int n, float fill)
{
    return n == W ? x : v_select(_mm256_castsi256_ps(v_lanes(n)), x, v_set(fill));
}

V_INLINE vf v_round(vf x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* In two halves, so that results below the normal range come out right. */
V_INLINE vf v_scale2(vf x, vf n)
{
    __m256i all = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(all, 1);
    __m256i bias = _mm256_set1_epi32(127);
    __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(all, half), bias), 23);

    return _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

V_INLINE void v_split2(vf x, vf *mantissa, vf *exponent)
{
    /* Subnormal numbers are made normal first. */
    vmask tiny = v_less(x, v_set(0x1p-126f));
    vf y = v_select(tiny, v_mul(x, v_set(0x1p24f)), x);
    __m256i bits = _mm256_castps_si256(y);
    vf e = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(126)));

    *exponent = v_sub(e, v_select(tiny, v_set(24.0f), v_set(0.0f)));
    *mantissa = _mm256_or_ps(_mm256_and_ps(y, _mm256_castsi256_ps(_mm256_set1_epi32(0x007fffff))),
                             v_set(0.5f));
}

V_INLINE vf v_abs(vf x)
{
    return _mm256_andnot_ps(v_set(-0.0f), x);
}

V_INLINE vf v_copysign(vf a, vf b)
{
    return _mm256_or_ps(v_abs(a), _mm256_and_ps(b, v_set(-0.0f)));
}

V_INLINE vf v_inverse(vf x)
{
    return _mm256_div_ps(v_set(1.0f), x);
}

V_INLINE float v_sum(vf x)
{
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

V_INLINE float v_highest(vf x)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

V_INLINE vf v_sum8(vf x)
{
    x = _mm256_add_ps(x, _mm256_permute_ps(x, 0xb1));
    x = _mm256_add_ps(x, _mm256_permute_ps(x, 0x4e));
    return _mm256_add_ps(x, _mm256_permute2f128_ps(x, x, 0x01));
}

V_INLINE vf v_max8(vf x)
{
    x = _mm256_max_ps(x, _mm256_permute_ps(x, 0xb1));
    x = _mm256_max_ps(x, _mm256_permute_ps(x, 0x4e));
    return _mm256_max_ps(x, _mm256_permute2f128_ps(x, x, 0x01));
}

V_INLINE vf v_keep(vf x, const uint8_t *mask, int n)
{
    uint64_t bytes = 0;
    __m256i wide;

    memcpy(&bytes, mask, (size_t)n);
    wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
    return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(wide, _mm256_setzero_si256())), x);
}

V_INLINE double v_sum_double(vf x)
{
    __m256d a = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)),
                              _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
    __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));

    return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}

V_INLINE int v_any_nonfinite(vf x)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(v_abs(x), v_set(__FLT_MAX__), _CMP_NLE_UQ)) != 0;
}

#endif
