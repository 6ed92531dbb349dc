/*
 * vec.h - vectorised functions over arrays of floats.
 *
 * On the path of isa.h. Accurate to about 2 units in the last place; NaN in gives NaN out, exp
 * overflows to infinity. out may be the same array as the input (not shifted).
 */
#ifndef TD_TENSOR_VEC_H
#define TD_TENSOR_VEC_H

#include <stddef.h>

void vec_exp(float *out, const float *x, size_t count);
void vec_log(float *out, const float *x, size_t count);
void vec_tanh(float *out, const float *x, size_t count);

/* y += x */
void vec_add(float *y, const float *x, size_t count);

/* y += scale * x */
void vec_axpy(float *y, float scale, const float *x, size_t count);

/* y *= scale */
void vec_scale(float *y, float scale, size_t count);

/* y += rate * (x - y): soft target update. */
void vec_lerp(float *y, const float *x, float rate, size_t count);

/* Sum of x and of x squared, in double, in a fixed order. */
double vec_sum(const float *x, size_t count);
double vec_sum_squares(const float *x, size_t count);

/* 1 when every element is finite. */
int vec_finite(const float *x, size_t count);

#endif
