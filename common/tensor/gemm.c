#include "common/tensor/gemm.h"

#include "common/tensor/gemm_kernels.h"
#include "common/tensor/isa.h"

#define WIDEST 32 /* columns of the widest panel, AVX-512's */

static const struct gemm_kernels *kernels(void)
{
    switch (isa_current()) {
#if defined(__x86_64__)
    case ISA_AVX512:
        return &gemm_avx512;
    case ISA_AVX2:
        return &gemm_avx2;
#elif defined(__aarch64__)
    case ISA_NEON:
        return &gemm_neon;
#endif
    default:
        return &gemm_blas;
    }
}

int gemm_start(int threads, struct error *err)
{
    TD_ASSERT(threads >= 1, "threads %d", threads);
    return gemm_blas_start(threads, err);
}

static void check(int m, int n, int k, size_t lda, size_t width_a, size_t ldb, size_t width_b, size_t ldc)
{
    TD_ASSERT(m >= 0 && n >= 0 && k >= 0, "m %d n %d k %d", m, n, k);
    TD_ASSERT(lda >= width_a && ldb >= width_b && ldc >= (size_t)n,
              "m %d n %d k %d lda %zu ldb %zu ldc %zu", m, n, k, lda, ldb, ldc);
}

void gemm_nt(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc)
{
    check(m, n, k, lda, (size_t)k, ldb, (size_t)k, ldc);
    if (m > 0 && n > 0)
        kernels()->multiply(m, n, k, a, lda, 1, b, ldb, true, beta, c, ldc);
}

void gemm_nn(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc)
{
    check(m, n, k, lda, (size_t)k, ldb, (size_t)n, ldc);
    if (m > 0 && n > 0)
        kernels()->multiply(m, n, k, a, lda, 1, b, ldb, false, beta, c, ldc);
}

void gemm_tn(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc)
{
    check(m, n, k, lda, (size_t)m, ldb, (size_t)n, ldc);
    if (m > 0 && n > 0)
        kernels()->multiply(m, n, k, a, 1, lda, b, ldb, false, beta, c, ldc);
}

int gemm_panels(int n)
{
    int width = kernels()->width;

    return (n + width - 1) / width;
}

int gemm_panel_width(void)
{
    return kernels()->width;
}

size_t gemm_packed_floats(int n, int k)
{
    return (size_t)(n + WIDEST - 1) / WIDEST * WIDEST * (size_t)k;
}

void gemm_pack(int n, int k, const float *b, size_t ldb, bool transposed, int first, int count,
               float *packed)
{
    TD_ASSERT(first >= 0 && count >= 0 && first + count <= gemm_panels(n), "first %d count %d n %d", first,
              count, n);
    kernels()->pack(n, k, b, ldb, transposed, first, count, packed);
}

void gemm_packed(int m, int n, int from, int k, int depth, const float *a, size_t lda,
                 const float *packed, float beta, float *c, size_t ldc)
{
    check(m, n, k, lda, (size_t)k, 0, 0, ldc);
    TD_ASSERT(from >= 0 && from + k <= depth, "from %d k %d depth %d", from, k, depth);
    if (m > 0 && n > 0)
        kernels()->multiply_packed(m, n, k, a, lda, packed + (size_t)from * (size_t)kernels()->width,
                                   (size_t)depth, beta, c, ldc);
}

void gemm_nt_half(int m, int n, int k, const float *a, size_t lda, const uint16_t *b, size_t ldb, float beta,
                  float *c, size_t ldc)
{
    check(m, n, k, lda, (size_t)k, ldb, (size_t)k, ldc);
    if (m > 0 && n > 0)
        kernels()->multiply_half(m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void gemm_pack_half(int n, int k, const uint16_t *b, size_t ldb, int first, int count, uint16_t *packed)
{
    TD_ASSERT(first >= 0 && count >= 0 && first + count <= gemm_panels(n), "first %d count %d n %d", first,
              count, n);
    kernels()->pack_half(n, k, b, ldb, first, count, packed);
}

void gemm_packed_half(int m, int n, int from, int k, int depth, const float *a, size_t lda,
                      const uint16_t *packed, float beta, float *c, size_t ldc)
{
    check(m, n, k, lda, (size_t)k, 0, 0, ldc);
    TD_ASSERT(from >= 0 && from + k <= depth, "from %d k %d depth %d", from, k, depth);
    if (m > 0 && n > 0)
        kernels()->multiply_packed_half(m, n, k, a, lda, packed + (size_t)from * (size_t)kernels()->width,
                                        (size_t)depth, beta, c, ldc);
}
