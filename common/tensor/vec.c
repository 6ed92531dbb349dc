#include "common/tensor/vec.h"

#include "common/tensor/isa.h"
#include "common/tensor/vec_kernels.h"

static const struct vec_kernels *kernels(void)
{
    switch (isa_current()) {
#if defined(__x86_64__)
    case ISA_AVX512:
        return &vec_avx512;
    case ISA_AVX2:
        return &vec_avx2;
#elif defined(__aarch64__)
    case ISA_NEON:
        return &vec_neon;
#endif
    default:
        return &vec_plain;
    }
}

void vec_exp(float *out, const float *x, size_t count)
{
    kernels()->exp(out, x, count);
}

void vec_log(float *out, const float *x, size_t count)
{
    kernels()->log(out, x, count);
}

void vec_tanh(float *out, const float *x, size_t count)
{
    kernels()->tanh(out, x, count);
}

void vec_add(float *y, const float *x, size_t count)
{
    kernels()->axpy(y, 1.0f, x, count);
}

void vec_axpy(float *y, float scale, const float *x, size_t count)
{
    kernels()->axpy(y, scale, x, count);
}

void vec_scale(float *y, float scale, size_t count)
{
    kernels()->scale(y, scale, count);
}

void vec_lerp(float *y, const float *x, float rate, size_t count)
{
    kernels()->lerp(y, x, rate, count);
}

double vec_sum(const float *x, size_t count)
{
    return kernels()->sum(x, count);
}

double vec_sum_squares(const float *x, size_t count)
{
    return kernels()->sum_squares(x, count);
}

int vec_finite(const float *x, size_t count)
{
    return kernels()->finite(x, count);
}
