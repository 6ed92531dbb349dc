#include "common/tensor/gemm.h"

#include <cblas.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

char *openblas_get_config(void);
char *openblas_get_corename(void);
int openblas_get_parallel(void);

/*
 * The serial OpenBLAS cannot be called from two threads at once: each product takes a packing buffer
 * from a table which, built without threads, is searched without a lock, so two products can get the
 * same buffer (seen with 0.3.21 as wrong results, tests/unit/tensor/test_pool.c). The library calls
 * these two functions through its symbol table, so the ones defined here, in the program, take the
 * place of its own: the same table with an atomic claim. gemm_start checks that they are in place.
 */
void *blas_memory_alloc(int unused);
void blas_memory_free(void *buffer);

#define BUFFERS 128
#define BUFFER_BYTES ((size_t)0x8001000) /* OpenBLAS's BUFFER_SIZE; only touched pages are backed */

static struct buffer {
    _Alignas(64) atomic_bool taken;
    _Atomic(void *) memory; /* written by whoever holds `taken` */
} buffers[BUFFERS];

static atomic_ulong claims;

static void *map_buffer(struct buffer *buffer)
{
    void *memory = atomic_load_explicit(&buffer->memory, memory_order_relaxed);

    if (memory != NULL)
        return memory;
    memory = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    atomic_store_explicit(&buffer->memory, memory, memory_order_relaxed);
    return memory;
}

void *blas_memory_alloc(int unused)
{
    (void)unused;
    atomic_fetch_add_explicit(&claims, 1, memory_order_relaxed);
    for (;;) {
        for (int i = 0; i < BUFFERS; i++) {
            bool free_one = false;

            if (atomic_load_explicit(&buffers[i].taken, memory_order_relaxed) ||
                !atomic_compare_exchange_strong(&buffers[i].taken, &free_one, true))
                continue;
            void *memory = map_buffer(&buffers[i]);

            TD_ASSERT(memory != NULL, "no address space for matrix product buffer %d", i);
            return memory;
        }
        sched_yield();
    }
}

void blas_memory_free(void *memory)
{
    for (int i = 0; i < BUFFERS; i++) {
        if (atomic_load_explicit(&buffers[i].memory, memory_order_relaxed) == memory) {
            atomic_store(&buffers[i].taken, false);
            return;
        }
    }
    TD_ASSERT(0, "not a matrix product buffer: %p", memory);
}

/* Map what `threads` concurrent products need now rather than in an update. */
static int map_buffers(int threads, struct error *err)
{
    for (int i = 0; i < threads && i < BUFFERS; i++) {
        bool free_one = false, got;

        if (!atomic_compare_exchange_strong(&buffers[i].taken, &free_one, true))
            continue;
        got = map_buffer(&buffers[i]) != NULL;
        atomic_store(&buffers[i].taken, false);
        if (!got)
            return error_set(err, TD_ENOMEM,
                             "no address space for the matrix product buffers of %d threads", threads);
    }
    return TD_OK;
}

int gemm_start(int threads, struct error *err)
{
    int parallel = openblas_get_parallel();
    unsigned long before = atomic_load(&claims);
    float one[2] = {1.0f, 1.0f}, two[4];

    TD_ASSERT(threads >= 1, "threads %d", threads);
    if (parallel != 0)
        return error_set(err, TD_ESETUP,
                         "the OpenBLAS found at run time starts threads of its own (%s, %s): run "
                         "`make setup && make` so that libopenblas0-serial is linked, and unset "
                         "LD_LIBRARY_PATH and LD_PRELOAD",
                         openblas_get_config(), parallel == 1 ? "pthreads" : "OpenMP");
    gemm_nt(2, 2, 1, one, 1, one, 1, 0.0f, two, 2);
    if (atomic_load(&claims) == before)
        return error_set(err, TD_ESETUP,
                         "the OpenBLAS found at run time (%s) keeps its buffers to itself, so it cannot "
                         "be used from several threads: link Debian's libopenblas0-serial 0.3",
                         openblas_get_config());
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
