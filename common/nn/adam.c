#include "common/nn/adam.h"

#include <math.h>

#include "common/nn/kernels.h"
#include "common/tensor/vec.h"

static size_t block_length(size_t count, int block)
{
    size_t start = (size_t)block * ADAM_BLOCK;

    return count - start < ADAM_BLOCK ? count - start : ADAM_BLOCK;
}

size_t adam_blocks(size_t count)
{
    return (count + ADAM_BLOCK - 1) / ADAM_BLOCK;
}

struct norm_job {
    const float *gradient;
    size_t count;
    double *partial;
};

static void norm_block(void *context, int block, int worker)
{
    struct norm_job *job = context;

    (void)worker;
    job->partial[block] = vec_sum_squares(job->gradient + (size_t)block * ADAM_BLOCK,
                                          block_length(job->count, block));
}

double grad_norm(pool_t *pool, const float *gradient, size_t count, double *partial)
{
    struct norm_job job = {gradient, count, partial};
    size_t blocks = adam_blocks(count);
    double sum = 0;

    pool_run(pool, norm_block, &job, (int)blocks);
    for (size_t i = 0; i < blocks; i++)
        sum += partial[i];
    return sqrt(sum);
}

float grad_clip_factor(double norm, double limit)
{
    double factor = limit / (norm + 1e-6);

    return factor > 1.0 ? 1.0f : (float)factor;
}

struct adam_job {
    struct nn_adam args;
    float *parameter, *gradient, *m, *v;
    size_t count;
};

static void adam_block(void *context, int block, int worker)
{
    struct adam_job *job = context;
    size_t start = (size_t)block * ADAM_BLOCK;

    (void)worker;
    nn_kernels()->adam(&job->args, job->parameter + start, job->gradient + start, job->m + start,
                       job->v + start, block_length(job->count, block));
}

void adam_step(const struct adam *adam, uint64_t step, double lr, float factor, pool_t *pool,
               float *parameter, float *gradient, float *m, float *v, size_t count)
{
    struct adam_job job = {
        .args = {
            .beta2 = (float)adam->beta2,
            .one_minus_beta1 = (float)(1.0 - adam->beta1),
            .one_minus_beta2 = (float)(1.0 - adam->beta2),
            .step_size = (float)(lr / (1.0 - pow(adam->beta1, (double)step))),
            .inverse_root = (float)(1.0 / sqrt(1.0 - pow(adam->beta2, (double)step))),
            .eps = (float)adam->eps,
            .factor = factor,
        },
        .parameter = parameter,
        .gradient = gradient,
        .m = m,
        .v = v,
        .count = count,
    };

    TD_ASSERT(step >= 1, "step %llu", (unsigned long long)step);
    pool_run(pool, adam_block, &job, (int)adam_blocks(count));
}

struct soft_job {
    float *target;
    const float *online;
    float rate;
    size_t count;
};

static void soft_block(void *context, int block, int worker)
{
    struct soft_job *job = context;
    size_t start = (size_t)block * ADAM_BLOCK;

    (void)worker;
    vec_lerp(job->target + start, job->online + start, job->rate, block_length(job->count, block));
}

void soft_update(pool_t *pool, float *target, const float *online, float rate, size_t count)
{
    struct soft_job job = {target, online, rate, count};

    pool_run(pool, soft_block, &job, (int)adam_blocks(count));
}
