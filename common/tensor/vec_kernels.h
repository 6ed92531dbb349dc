/* vec_kernels.h - the functions of vec.h, one table per instruction set. Internal to tensor. */
#ifndef TD_TENSOR_VEC_KERNELS_H
#define TD_TENSOR_VEC_KERNELS_H

#include <stddef.h>

struct vec_kernels {
    void (*exp)(float *out, const float *x, size_t count);
    void (*log)(float *out, const float *x, size_t count);
    void (*tanh)(float *out, const float *x, size_t count);
    void (*axpy)(float *y, float scale, const float *x, size_t count);
    void (*scale)(float *y, float scale, size_t count);
    void (*lerp)(float *y, const float *x, float rate, size_t count);
    double (*sum)(const float *x, size_t count);
    double (*sum_squares)(const float *x, size_t count);
    int (*finite)(const float *x, size_t count);
};

extern const struct vec_kernels vec_plain;
#if defined(__x86_64__)
extern const struct vec_kernels vec_avx2, vec_avx512;
#elif defined(__aarch64__)
extern const struct vec_kernels vec_neon;
#endif

#endif
