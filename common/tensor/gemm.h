/*
 * gemm.h - row-major float32 matrix products.
 *
 * Every product in the system goes through here, in the calling thread: parallelism comes from
 * common/tensor/pool.h. On AVX-512, AVX2 and NEON the kernels are our own: every element is a chain
 * of fused multiply-adds in the order of k, so neither the number of threads nor the rows computed
 * together change a bit. Elsewhere, and as the tests' oracle (ISA_PLAIN), the serial OpenBLAS.
 */
#ifndef TD_TENSOR_GEMM_H
#define TD_TENSOR_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/*
 * Packing B once for many products: op(B) is [k, n], `transposed` when B lies as [n, k] (a weight used
 * in y = x W'). Panels are independent pieces of work; the layout belongs to the current isa.
 *
 *   packed  [gemm_packed_floats(n, k)]  out  64-byte aligned
 */
int gemm_panels(int n);
int gemm_panel_width(void);
size_t gemm_packed_floats(int n, int k); /* enough for any isa */
void gemm_pack(int n, int k, const float *b, size_t ldb, bool transposed, int first, int count,
               float *packed);

/*
 * C [m,n] = A op(B)[from .. from + k - 1, :] + beta C for B packed with `depth` rows: the same bits as
 * gemm_nt or gemm_nn.
 */
void gemm_packed(int m, int n, int from, int k, int depth, const float *a, size_t lda,
                 const float *packed, float beta, float *c, size_t ldc);

/*
 * The same for weights stored as bfloat16 (bf16.h), B [n,k] in y = x W': expanded to floats on the way, so
 * the bits are those of a float B of the same values.
 *
 *   packed  [gemm_packed_floats(n, k)]  out  64-byte aligned
 */
void gemm_nt_half(int m, int n, int k, const float *a, size_t lda, const uint16_t *b, size_t ldb, float beta,
                  float *c, size_t ldc);
void gemm_pack_half(int n, int k, const uint16_t *b, size_t ldb, int first, int count, uint16_t *packed);
void gemm_packed_half(int m, int n, int from, int k, int depth, const float *a, size_t lda,
                      const uint16_t *packed, float beta, float *c, size_t ldc);

#endif
