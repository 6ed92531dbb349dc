/*
 * simd_math.h - exp, log and tanh of a vector. Include after one simd_*.h.
 *
 * Source: polynomials of the Cephes library (S. Moshier), expf.c, logf.c, tanhf.c; steps by fused
 * multiply-add. Errors measured by tests/unit/tensor/test_vec.c.
 */
#ifndef TD_TENSOR_SIMD_MATH_H
#define TD_TENSOR_SIMD_MATH_H

#include <math.h>

/* e^x: x = n ln 2 + r with |r| <= ln 2 / 2, then a polynomial in r. */
V_INLINE vf v_exp(vf x)
{
    vf n, r, p;

    x = v_max(v_set(-104.0f), v_min(v_set(89.0f), x)); /* past both: 0 and infinity */
    n = v_round(v_mul(x, v_set(1.44269504088896341f)));
    r = v_fnma(n, v_set(0.693359375f), x);
    r = v_fnma(n, v_set(-2.12194440e-4f), r);
    p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_fma(p, v_mul(r, r), v_add(r, v_set(1.0f)));
    return v_scale2(p, n);
}

/* ln x; 0 gives -infinity, negative numbers NaN. */
V_INLINE vf v_log(vf x)
{
    vf m, e, z, p, y;
    vmask low;

    v_split2(x, &m, &e);
    low = v_less(m, v_set(0.70710678118654752f));
    e = v_sub(e, v_select(low, v_set(1.0f), v_set(0.0f)));
    m = v_sub(v_add(m, v_select(low, m, v_set(0.0f))), v_set(1.0f));
    z = v_mul(m, m);
    p = v_set(7.0376836292e-2f);
    p = v_fma(p, m, v_set(-1.1514610310e-1f));
    p = v_fma(p, m, v_set(1.1676998740e-1f));
    p = v_fma(p, m, v_set(-1.2420140846e-1f));
    p = v_fma(p, m, v_set(1.4249322787e-1f));
    p = v_fma(p, m, v_set(-1.6668057665e-1f));
    p = v_fma(p, m, v_set(2.0000714765e-1f));
    p = v_fma(p, m, v_set(-2.4999993993e-1f));
    p = v_fma(p, m, v_set(3.3333331174e-1f));
    y = v_mul(v_mul(p, m), z);
    y = v_fma(e, v_set(-2.12194440e-4f), y);
    y = v_fnma(v_set(0.5f), z, y);
    y = v_fma(e, v_set(0.693359375f), v_add(m, y));
    y = v_select(v_less(x, v_set(__FLT_MIN__ * 0x1p-23f)), v_set(-INFINITY), y);
    y = v_select(v_less(x, v_set(0.0f)), v_set(NAN), y);
    /* Infinity and NaN come back as they are. */
    return v_select(v_less(x, v_set(INFINITY)), y, v_add(x, v_set(0.0f)));
}

/* tanh x = 1 - 2/(e^2x + 1), by a polynomial where that would cancel. */
V_INLINE vf v_tanh(vf x)
{
    vf a = v_abs(x), z = v_mul(x, x), e, p;

    p = v_set(-5.70498872745e-3f);
    p = v_fma(p, z, v_set(2.06390887954e-2f));
    p = v_fma(p, z, v_set(-5.37397155531e-2f));
    p = v_fma(p, z, v_set(1.33314422036e-1f));
    p = v_fma(p, z, v_set(-3.33332819422e-1f));
    p = v_fma(v_mul(p, z), x, x);
    e = v_exp(v_mul(v_set(2.0f), v_min(v_set(20.0f), a)));
    e = v_sub(v_set(1.0f), v_div(v_set(2.0f), v_add(e, v_set(1.0f))));
    return v_select(v_less(a, v_set(0.625f)), p, v_copysign(e, x));
}

#endif
