/*
 * simd_avx512.h - the vector primitives of the kernels, 16 floats wide.
 *
 * simd_avx2.h and simd_neon.h have the same names; kernel files include one of them. `n` counts the
 * lanes that exist in memory, 1 .. W: with a constant W the full-width form is chosen at compile
 * time. Partial loads read 0 in missing lanes.
 */
#ifndef TD_TENSOR_SIMD_AVX512_H
#define TD_TENSOR_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define W 16
#define V_INLINE static inline __attribute__((always_inline, unused))

typedef __m512 vf;
typedef __mmask16 vmask;

V_INLINE vmask v_lanes(int n)
{
    return (vmask)((1u << n) - 1);
}

V_INLINE vf v_load(const float *p, int n)
{
    return n == W ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(v_lanes(n), p);
}

V_INLINE void v_store(float *p, vf x, int n)
{
    if (n == W)
        _mm512_storeu_ps(p, x);
    else
        _mm512_mask_storeu_ps(p, v_lanes(n), x);
}

V_INLINE vf v_set(float x)
{
    return _mm512_set1_ps(x);
}

V_INLINE vf v_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

V_INLINE vf v_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

V_INLINE vf v_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

V_INLINE vf v_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

V_INLINE vf v_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}

/* a b + c and c - a b, rounded once. */
V_INLINE vf v_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

V_INLINE vf v_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

/* When x is NaN the result is NaN. */
V_INLINE vf v_min(vf limit, vf x)
{
    return _mm512_min_ps(limit, x);
}

V_INLINE vf v_max(vf limit, vf x)
{
    return _mm512_max_ps(limit, x);
}

V_INLINE vmask v_less(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

/* mask ? a : b */
V_INLINE vf v_select(vmask mask, vf a, vf b)
{
    return _mm512_mask_blend_ps(mask, b, a);
}

/* x in the first n lanes, fill in the others. */
V_INLINE vf v_fill(vf x, int n, float fill)
{
    return n == W ? x : v_select(v_lanes(n), x, v_set(fill));
}

/* Nearest integer, ties to even. */
V_INLINE vf v_round(vf x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* x 2^n for integral n. */
V_INLINE vf v_scale2(vf x, vf n)
{
    return _mm512_scalef_ps(x, n);
}

/* x = mantissa 2^exponent, mantissa in [0.5, 1), for positive x. */
V_INLINE void v_split2(vf x, vf *mantissa, vf *exponent)
{
    *exponent = _mm512_add_ps(_mm512_getexp_ps(x), _mm512_set1_ps(1.0f));
    *mantissa = _mm512_getmant_ps(x, _MM_MANT_NORM_p5_1, _MM_MANT_SIGN_zero);
}

V_INLINE vf v_abs(vf x)
{
    return _mm512_abs_ps(x);
}

/* |a| with the sign of b. */
V_INLINE vf v_copysign(vf a, vf b)
{
    return _mm512_or_ps(_mm512_abs_ps(a), _mm512_and_ps(b, _mm512_set1_ps(-0.0f)));
}

/* 1/x to about one unit in the last place, for normal x whose inverse is normal. */
V_INLINE vf v_inverse(vf x)
{
    vf r = _mm512_rcp14_ps(x);
    vf e = _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.0f));

    e = _mm512_fmadd_ps(e, e, e);
    return _mm512_fmadd_ps(r, e, r);
}

/* Sums and maximum over lanes: halves folded, a fixed order. */
V_INLINE float v_sum(vf x)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

V_INLINE float v_highest(vf x)
{
    return _mm512_reduce_max_ps(x);
}

/* Sum within each half: groups of 8 lanes, the result in every lane of the group. */
V_INLINE vf v_sum8(vf x)
{
    x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xb1));
    x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4e));
    return _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1));
}

V_INLINE vf v_max8(vf x)
{
    x = _mm512_max_ps(x, _mm512_permute_ps(x, 0xb1));
    x = _mm512_max_ps(x, _mm512_permute_ps(x, 0x4e));
    return _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1));
}

/* Lanes of x where the byte is not 0, else 0. */
V_INLINE vf v_keep(vf x, const uint8_t *mask, int n)
{
    __m128i bytes = n == W ? _mm_loadu_si128((const __m128i *)mask)
                           : _mm_maskz_loadu_epi8(v_lanes(n), mask);

    return _mm512_maskz_mov_ps(_mm_test_epi8_mask(bytes, bytes), x);
}

/* Sum of the lanes in double precision, low half first. */
V_INLINE double v_sum_double(vf x)
{
    __m512d s = _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                              _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)));
    __m256d a = _mm256_add_pd(_mm512_castpd512_pd256(s), _mm512_extractf64x4_pd(s, 1));
    __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));

    return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}

/* Is some lane infinite or NaN? */
V_INLINE int v_any_nonfinite(vf x)
{
    return _mm512_cmp_ps_mask(_mm512_abs_ps(x), _mm512_set1_ps(__FLT_MAX__), _CMP_NLE_UQ) != 0;
}

#endif
