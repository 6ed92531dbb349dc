/* gemm_blas.c - products by the serial OpenBLAS, and what makes it safe to call from many threads. */
#include "common/tensor/gemm.h"

#include <cblas.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "common/tensor/bf16.h"
#include "common/tensor/gemm_kernels.h"

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

/* BLAS wants strides at least as wide as a row, even where there is one row or none. */
static int stride(size_t ld, int width)
{
    return (int)ld > width ? (int)ld : width > 1 ? width : 1;
}

static void blas_multiply(int m, int n, int k, const float *a, size_t row, size_t column, const float *b,
                          size_t ldb, bool transposed, float beta, float *c, size_t ldc)
{
    bool far = column != 1;

    /* One row of a wider array, or one column of a narrow one: the row's stride means nothing. */
    if (!far && m == 1 && row < (size_t)k)
        row = (size_t)k;
    cblas_sgemm(CblasRowMajor, far ? CblasTrans : CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, m,
                n, k, 1.0f, a, far ? stride(column, m) : stride(row, k), b, stride(ldb, transposed ? k : n), beta,
                c, stride(ldc, n));
}

/* A panel is one column, [n][depth]: B' as it would lie transposed. */
static void blas_multiply_packed(int m, int n, int k, const float *a, size_t row, const float *packed,
                                 size_t depth, float beta, float *c, size_t ldc)
{
    blas_multiply(m, n, k, a, row, 1, packed, depth, true, beta, c, ldc);
}

static void blas_pack(int n, int k, const float *b, size_t ldb, bool transposed, int first, int count,
                      float *packed)
{
    (void)n;
    for (int j = first; j < first + count; j++)
        for (int p = 0; p < k; p++)
            packed[(size_t)j * (size_t)k + (size_t)p] =
                transposed ? b[(size_t)j * ldb + (size_t)p] : b[(size_t)p * ldb + (size_t)j];
}

#define HALF_FLOATS 65536 /* of B at a time, expanded */

/* Some rows of B at a time; a row that is longer is refused, as no layer has one. */
static void blas_multiply_half(int m, int n, int k, const float *a, size_t row, const uint16_t *b, size_t ldb,
                               float beta, float *c, size_t ldc)
{
    float rows[HALF_FLOATS] __attribute__((aligned(64)));
    int most = k > 0 ? HALF_FLOATS / k : n;

    TD_ASSERT(most > 0, "k %d", k);
    for (int j = 0; j < n; j += most) {
        int count = n - j < most ? n - j : most;

        for (int i = 0; i < count; i++)
            bf16_to_floats(rows + (size_t)i * (size_t)k, b + (size_t)(j + i) * ldb, (size_t)k);
        blas_multiply(m, count, k, a, row, 1, rows, (size_t)k, true, beta, c + j, ldc);
    }
}

static void blas_pack_half(int n, int k, const uint16_t *b, size_t ldb, int first, int count, uint16_t *packed)
{
    (void)n;
    for (int j = first; j < first + count; j++)
        memcpy(packed + (size_t)j * (size_t)k, b + (size_t)j * ldb, (size_t)k * sizeof(*packed));
}

int gemm_blas_start(int threads, struct error *err)
{
    int parallel = openblas_get_parallel();
    unsigned long before = atomic_load(&claims);
    float one[2] = {1.0f, 1.0f}, two[4];
    int rc;

    TD_ASSERT(threads >= 1, "threads %d", threads);
    if (parallel != 0)
        return error_set(err, TD_ESETUP,
                         "the OpenBLAS found at run time starts threads of its own (%s, %s): run "
                         "`make setup && make` so that libopenblas0-serial is linked, and unset "
                         "LD_LIBRARY_PATH and LD_PRELOAD",
                         openblas_get_config(), parallel == 1 ? "pthreads" : "OpenMP");
    if ((rc = map_buffers(threads, err)) != TD_OK) /* before a product that could not say so */
        return rc;
    blas_multiply(2, 2, 1, one, 1, 1, one, 1, true, 0.0f, two, 2);
    if (atomic_load(&claims) == before)
        return error_set(err, TD_ESETUP,
                         "the OpenBLAS found at run time (%s) keeps its buffers to itself, so it cannot "
                         "be used from several threads: link Debian's libopenblas0-serial 0.3",
                         openblas_get_config());
    return TD_OK;
}

const char *gemm_core(void)
{
    return openblas_get_corename();
}

const char *gemm_library(void)
{
    return openblas_get_config();
}

const struct gemm_kernels gemm_blas = {
    .width = 1,
    .multiply = blas_multiply,
    .multiply_packed = blas_multiply_packed,
    .pack = blas_pack,
    .multiply_half = blas_multiply_half,
    .multiply_packed_half = blas_multiply_half, /* a panel is a row of B */
    .pack_half = blas_pack_half,
};
