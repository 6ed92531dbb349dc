/*
 * simd_neon.h - the primitives of simd_avx512.h, 8 floats wide in two NEON registers, so that a
 * vector holds one SimNorm group as on the other paths.
 */
#ifndef TD_TENSOR_SIMD_NEON_H
#define TD_TENSOR_SIMD_NEON_H

#include <arm_neon.h>
#include <stdint.h>

#define W 8
#define V_INLINE static inline __attribute__((always_inline, unused))

typedef struct {
    float32x4_t a, b;
} vf;
typedef struct {
    uint32x4_t a, b;
} vmask;

#define V_PAIR(first, second) ((vf){(first), (second)})
#define V_BOTH(op, x) V_PAIR(op((x).a), op((x).b))
#define V_BOTH2(op, x, y) V_PAIR(op((x).a, (y).a), op((x).b, (y).b))

V_INLINE vf v_load(const float *p, int n)
{
    float lanes[W] = {0};

    if (n == W)
        return V_PAIR(vld1q_f32(p), vld1q_f32(p + 4));
    for (int i = 0; i < n && i < W; i++)
        lanes[i] = p[i];
    return V_PAIR(vld1q_f32(lanes), vld1q_f32(lanes + 4));
}

V_INLINE void v_store(float *p, vf x, int n)
{
    float lanes[W];

    if (n == W) {
        vst1q_f32(p, x.a);
        vst1q_f32(p + 4, x.b);
        return;
    }
    vst1q_f32(lanes, x.a);
    vst1q_f32(lanes + 4, x.b);
    for (int i = 0; i < n && i < W; i++)
        p[i] = lanes[i];
}

V_INLINE vf v_set(float x)
{
    return V_PAIR(vdupq_n_f32(x), vdupq_n_f32(x));
}

V_INLINE vf v_add(vf x, vf y)
{
    return V_BOTH2(vaddq_f32, x, y);
}

V_INLINE vf v_sub(vf x, vf y)
{
    return V_BOTH2(vsubq_f32, x, y);
}

V_INLINE vf v_mul(vf x, vf y)
{
    return V_BOTH2(vmulq_f32, x, y);
}

V_INLINE vf v_div(vf x, vf y)
{
    return V_BOTH2(vdivq_f32, x, y);
}

V_INLINE vf v_sqrt(vf x)
{
    return V_BOTH(vsqrtq_f32, x);
}

V_INLINE vf v_fma(vf x, vf y, vf z)
{
    return V_PAIR(vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b));
}

V_INLINE vf v_fnma(vf x, vf y, vf z)
{
    return V_PAIR(vfmsq_f32(z.a, x.a, y.a), vfmsq_f32(z.b, x.b, y.b));
}

/* vminq and vmaxq give NaN when either is NaN. */
V_INLINE vf v_min(vf limit, vf x)
{
    return V_BOTH2(vminq_f32, limit, x);
}

V_INLINE vf v_max(vf limit, vf x)
{
    return V_BOTH2(vmaxq_f32, limit, x);
}

V_INLINE vmask v_less(vf x, vf y)
{
    return (vmask){vcltq_f32(x.a, y.a), vcltq_f32(x.b, y.b)};
}

V_INLINE vf v_select(vmask mask, vf x, vf y)
{
    return V_PAIR(vbslq_f32(mask.a, x.a, y.a), vbslq_f32(mask.b, x.b, y.b));
}

V_INLINE vf v_fill(vf x, int n, float fill)
{
    static const float lane[W] = {0, 1, 2, 3, 4, 5, 6, 7};

    return n == W ? x : v_select(v_less(v_load(lane, W), v_set((float)n)), x, v_set(fill));
}

V_INLINE vf v_round(vf x)
{
    return V_BOTH(vrndnq_f32, x);
}

V_INLINE float32x4_t v_scale2_half(float32x4_t x, float32x4_t n)
{
    int32x4_t all = vcvtq_s32_f32(n), half = vshrq_n_s32(all, 1), bias = vdupq_n_s32(127);
    int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
    int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(all, half), bias), 23);

    return vmulq_f32(vmulq_f32(x, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}

V_INLINE vf v_scale2(vf x, vf n)
{
    return V_BOTH2(v_scale2_half, x, n);
}

V_INLINE float32x4_t v_exponent_half(float32x4_t x)
{
    return vcvtq_f32_s32(vsubq_s32(
        vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_f32(x), 23)), vdupq_n_s32(126)));
}

V_INLINE float32x4_t v_mantissa_half(float32x4_t x)
{
    uint32x4_t bits = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x007fffff));

    return vreinterpretq_f32_u32(vorrq_u32(bits, vdupq_n_u32(0x3f000000)));
}

V_INLINE void v_split2(vf x, vf *mantissa, vf *exponent)
{
    vmask tiny = v_less(x, v_set(0x1p-126f));
    vf y = v_select(tiny, v_mul(x, v_set(0x1p24f)), x);

    *exponent = v_sub(V_BOTH(v_exponent_half, y), v_select(tiny, v_set(24.0f), v_set(0.0f)));
    *mantissa = V_BOTH(v_mantissa_half, y);
}

V_INLINE vf v_abs(vf x)
{
    return V_BOTH(vabsq_f32, x);
}

V_INLINE vf v_copysign(vf x, vf y)
{
    uint32x4_t sign = vdupq_n_u32(0x80000000u);

    return V_PAIR(vbslq_f32(sign, y.a, x.a), vbslq_f32(sign, y.b, x.b));
}

V_INLINE vf v_inverse(vf x)
{
    return v_div(v_set(1.0f), x);
}

V_INLINE float v_sum(vf x)
{
    float32x4_t s = vaddq_f32(x.a, x.b);
    float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));

    return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}

V_INLINE float v_highest(vf x)
{
    return vmaxvq_f32(vmaxq_f32(x.a, x.b));
}

V_INLINE vf v_sum8(vf x)
{
    return v_set(v_sum(x));
}

V_INLINE vf v_max8(vf x)
{
    return v_set(v_highest(x));
}

V_INLINE vf v_keep(vf x, const uint8_t *mask, int n)
{
    uint8_t bytes[W] = {0};
    uint16x8_t wide;

    for (int i = 0; i < n && i < W; i++)
        bytes[i] = mask[i];
    wide = vmovl_u8(vld1_u8(bytes));
    return v_select((vmask){vtstq_u32(vmovl_u16(vget_low_u16(wide)), vdupq_n_u32(0xff)),
                            vtstq_u32(vmovl_u16(vget_high_u16(wide)), vdupq_n_u32(0xff))},
                    x, v_set(0.0f));
}

V_INLINE double v_sum_double(vf x)
{
    float64x2_t low = vaddq_f64(vcvt_f64_f32(vget_low_f32(x.a)), vcvt_high_f64_f32(x.a));
    float64x2_t high = vaddq_f64(vcvt_f64_f32(vget_low_f32(x.b)), vcvt_high_f64_f32(x.b));
    float64x2_t s = vaddq_f64(low, high);

    return vgetq_lane_f64(s, 0) + vgetq_lane_f64(s, 1);
}

V_INLINE int v_any_nonfinite(vf x)
{
    vmask fine = {vcleq_f32(vabsq_f32(x.a), vdupq_n_f32(__FLT_MAX__)),
                  vcleq_f32(vabsq_f32(x.b), vdupq_n_f32(__FLT_MAX__))};

    return vminvq_u32(vandq_u32(fine.a, fine.b)) == 0;
}

#endif
