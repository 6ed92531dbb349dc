#include "common/tensor/gemm.h"

#include <cblas.h>

char *openblas_get_config(void);
char *openblas_get_corename(void);
int openblas_get_parallel(void);

/* OpenBLAS's pool of packing buffers; exported by every build, declared in none of its headers. */
void *blas_memory_alloc(int unused) __attribute__((weak));
void blas_memory_free(void *buffer) __attribute__((weak));

#define BUFFERS_MAX 64 /* well below OpenBLAS's own limit */

/* Every concurrent product holds one buffer: have OpenBLAS map them now rather than in an update. */
static int map_buffers(int threads, struct error *err)
{
    void *buffers[BUFFERS_MAX];
    int count = threads < BUFFERS_MAX ? threads : BUFFERS_MAX, mapped = 0, rc = TD_OK;

    if (blas_memory_alloc == NULL || blas_memory_free == NULL)
        return TD_OK;
    while (mapped < count && rc == TD_OK) {
        buffers[mapped] = blas_memory_alloc(0);
        if (buffers[mapped] != NULL)
            mapped++;
        else
            rc = error_set(err, TD_ENOMEM, "no memory for the matrix product buffers of %d threads",
                           threads);
    }
    while (mapped > 0)
        blas_memory_free(buffers[--mapped]);
    return rc;
}

int gemm_start(int threads, struct error *err)
{
    int parallel = openblas_get_parallel();

    TD_ASSERT(threads >= 1, "threads %d", threads);
    if (parallel != 0)
        return error_set(err, TD_ESETUP,
                         "the OpenBLAS found at run time starts threads of its own (%s, %s): run "
                         "`make setup && make` so that libopenblas0-serial is linked, and unset "
                         "LD_LIBRARY_PATH and LD_PRELOAD",
                         openblas_get_config(), parallel == 1 ? "pthreads" : "OpenMP");
    return map_buffers(threads, err);
}

const char *gemm_core(void)
{
    return openblas_get_corename();
}

const char *gemm_library(void)
{
    return openblas_get_config();
}

/* BLAS wants strides of at least 1 and as wide as the row, even of empty matrices. */
static void product(enum CBLAS_TRANSPOSE ta, enum CBLAS_TRANSPOSE tb, int m, int n, int k,
                    const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
                    size_t ldc)
{
    size_t row_a = (size_t)(ta == CblasTrans ? m : k), row_b = (size_t)(tb == CblasTrans ? k : n);

    TD_ASSERT(m >= 0 && n >= 0 && k >= 0, "m %d n %d k %d", m, n, k);
    TD_ASSERT(lda >= row_a && ldb >= row_b && ldc >= (size_t)n,
              "m %d n %d k %d lda %zu ldb %zu ldc %zu", m, n, k, lda, ldb, ldc);
    if (m == 0 || n == 0)
        return;
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1.0f, a, lda > 0 ? (int)lda : 1, b,
                ldb > 0 ? (int)ldb : 1, beta, c, (int)ldc);
}

void gemm_nt(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc)
{
    product(CblasNoTrans, CblasTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void gemm_nn(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc)
{
    product(CblasNoTrans, CblasNoTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void gemm_tn(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb, float beta,
             float *c, size_t ldc)
{
    product(CblasTrans, CblasNoTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}
