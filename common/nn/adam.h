/*
 * adam.h - global-norm clipping and Adam over flat parameter ranges.
 *
 * Work is cut into blocks of ADAM_BLOCK elements whatever the number of threads; sums are added in
 * block order.
 */
#ifndef TD_NN_ADAM_H
#define TD_NN_ADAM_H

#include <stddef.h>
#include <stdint.h>

#include "common/tensor/pool.h"

#define ADAM_BLOCK 16384

/*
 * L2 norm of gradient [count]. partial: scratch of adam_blocks(count) doubles.
 * NaN or infinity in gives NaN or infinity out.
 */
double grad_norm(pool_t *pool, const float *gradient, size_t count, double *partial);
size_t adam_blocks(size_t count);

/* min(1, limit / (norm + 1e-6)), as torch's clip_grad_norm_. NaN stays NaN. */
float grad_clip_factor(double norm, double limit);

struct adam {
    double beta1, beta2; /* 0.9, 0.999 */
    double eps;          /* added outside the square root */
};

/*
 * One step on parameter [count], `step` counting from 1:
 *
 *   g = factor * gradient        m += (1 - beta1)(g - m)        v = beta2 v + (1 - beta2) g g
 *   parameter -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
 *
 * No weight decay. The gradient is zeroed afterwards, ready for the next accumulation.
 */
void adam_step(const struct adam *adam, uint64_t step, double lr, float factor, pool_t *pool,
               float *parameter, float *gradient, float *m, float *v, size_t count);

/* target += rate (online - target) over [count]. */
void soft_update(pool_t *pool, float *target, const float *online, float rate, size_t count);

#endif
