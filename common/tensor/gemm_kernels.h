/*
 * gemm_kernels.h - matrix product kernels, one table per instruction set. Internal to tensor.
 *
 * B is read in panels: `width` columns side by side, depth-major, [k][width], zero in columns that
 * do not exist. A is read where it lies. Every element of C is a chain of fused multiply-adds in the order
 * of k, cut only where k exceeds the depth of a block, whatever m and n are: a row's bits do not depend
 * on its neighbours.
 */
#ifndef TD_TENSOR_GEMM_KERNELS_H
#define TD_TENSOR_GEMM_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gemm_kernels {
    int width; /* columns of a panel */

    /* C = A op(B) + beta C, element (i, p) of A at a[i * row + p * column]; B packed on the way. */
    void (*multiply)(int m, int n, int k, const float *a, size_t row, size_t column, const float *b,
                     size_t ldb, bool transposed, float beta, float *c, size_t ldc);

    /* The same with panels made by pack, `depth` deep each, of which rows 0 .. k-1 are used. */
    void (*multiply_packed)(int m, int n, int k, const float *a, size_t row, const float *packed,
                            size_t depth, float beta, float *c, size_t ldc);

    /* Panels first .. first + count - 1 of op(B) [k, n]. */
    void (*pack)(int n, int k, const float *b, size_t ldb, bool transposed, int first, int count,
                 float *packed);

    /* As these three for B stored as bfloat16, lying as [n, k]. */
    void (*multiply_half)(int m, int n, int k, const float *a, size_t row, const uint16_t *b, size_t ldb,
                          float beta, float *c, size_t ldc);
    void (*multiply_packed_half)(int m, int n, int k, const float *a, size_t row, const uint16_t *packed,
                                 size_t depth, float beta, float *c, size_t ldc);
    void (*pack_half)(int n, int k, const uint16_t *b, size_t ldb, int first, int count, uint16_t *packed);
};

#if defined(__x86_64__)
extern const struct gemm_kernels gemm_avx2, gemm_avx512;
#elif defined(__aarch64__)
extern const struct gemm_kernels gemm_neon;
#endif

/* The same promises by OpenBLAS, for machines without vectors; panels are 1 column wide. */
extern const struct gemm_kernels gemm_blas;

/* Check OpenBLAS and map its buffers; see gemm_start. */
struct error;
int gemm_blas_start(int threads, struct error *err);

#endif
