/*
 * gemm.h - row-major float32 matrix products.
 *
 * Every product in the system goes through here. OpenBLAS runs single-threaded in the calling
 * thread: parallelism comes from common/tensor/pool.h, over tiles whose size never depends on the
 * number of threads, so the same call gives the same bits wherever it runs.
 */
#ifndef TD_TENSOR_GEMM_H
#define TD_TENSOR_GEMM_H

#include <stddef.h>

#include "common/util/error.h"

/*
 * Check the linear algebra library once, at start-up, and map the memory `threads` threads will use.
 * Returns TD_OK; TD_ESETUP when the library linked at run time is a multi-threaded variant or cannot
 * be called from several threads; TD_ENOMEM.
 */
int gemm_start(int threads, struct error *err);

/* The kernel set OpenBLAS chose ("Haswell", "SkylakeX", ...), and its version line, for manifests. */
const char *gemm_core(void);
const char *gemm_library(void);

/*
 * C = A B' + beta C        A [m,k] lda   B [n,k] ldb   C [m,n] ldc      (y = x W')
 * C = A B  + beta C        A [m,k] lda   B [k,n] ldb   C [m,n] ldc      (dx = dy W)
 * C = A' B + beta C        A [k,m] lda   B [k,n] ldb   C [m,n] ldc      (dW = dy' x)
 *
 * ld.. are floats from one row to the next. beta = 0 overwrites C, even where it holds NaN.
 * C overlaps neither input. Any of m, n, k may be 0. Never allocates after gemm_start.
 */
void gemm_nt(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc);
void gemm_nn(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc);
void gemm_tn(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc);

#endif
