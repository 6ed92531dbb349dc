/* bench_peak.c - the machine's float32 FMA rate, in registers only. */
#include "common/tensor/isa.h"
#include "common/tensor/pool.h"
#include "common/util/clock.h"
#include "tools/bench.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define CHAINS 16 /* independent sums: more than latency times throughput anywhere */
#define LOOPS 400000
#define PROBE_NS 60000000u /* of one measurement */

/* Every variant does CHAINS * LOOPS vector FMAs; the sum that comes back keeps them from vanishing. */
#define FMA_LOOP(vector, set, fma)                                                                 \
    vector sums[CHAINS], a = set(0.999f), b = set(0.001f);                                         \
    _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) sums[i] = set((float)i);             \
    for (int loop = 0; loop < LOOPS; loop++) {                                                     \
        _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) sums[i] = fma(sums[i], a, b);    \
    }

#if defined(__x86_64__)
__attribute__((noinline, target("avx512f"))) static float fma_avx512(void)
{
    FMA_LOOP(__m512, _mm512_set1_ps, _mm512_fmadd_ps)
    for (int i = 1; i < CHAINS; i++)
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    return _mm512_cvtss_f32(sums[0]);
}

__attribute__((noinline, target("avx2,fma"))) static float fma_avx2(void)
{
    FMA_LOOP(__m256, _mm256_set1_ps, _mm256_fmadd_ps)
    for (int i = 1; i < CHAINS; i++)
        sums[0] = _mm256_add_ps(sums[0], sums[i]);
    return _mm256_cvtss_f32(sums[0]);
}
#elif defined(__aarch64__)
#define FMA_NEON(sum, a, b) vfmaq_f32(b, sum, a)
__attribute__((noinline)) static float fma_neon(void)
{
    FMA_LOOP(float32x4_t, vdupq_n_f32, FMA_NEON)
    for (int i = 1; i < CHAINS; i++)
        sums[0] = vaddq_f32(sums[0], sums[i]);
    return vgetq_lane_f32(sums[0], 0);
}
#endif

__attribute__((noinline)) static float fma_plain(void)
{
#define FMA_PLAIN(sum, a, b) ((sum) * (a) + (b))
#define SET_PLAIN(x) (x)
    FMA_LOOP(float, SET_PLAIN, FMA_PLAIN)
    for (int i = 1; i < CHAINS; i++)
        sums[0] += sums[i];
    return sums[0];
}

static int lanes(void)
{
    static const int width[ISA_COUNT] = {[ISA_PLAIN] = 1, [ISA_NEON] = 4, [ISA_AVX2] = 8, [ISA_AVX512] = 16};

    return width[isa_current()];
}

static float fma_loop(void)
{
    switch (isa_current()) {
#if defined(__x86_64__)
    case ISA_AVX512:
        return fma_avx512();
    case ISA_AVX2:
        return fma_avx2();
#elif defined(__aarch64__)
    case ISA_NEON:
        return fma_neon();
#endif
    default:
        return fma_plain();
    }
}

struct peak {
    pool_t *pool;
    int threads;
    float sink[POOL_THREADS_MAX];
};

static void one_thread(void *context, int task, int worker)
{
    struct peak *peak = context;

    (void)worker;
    for (int i = 0; i < 4; i++)
        peak->sink[task] += fma_loop();
}

/* A task per thread and quarter, so that a thread which starts late costs little. */
static void all_threads(void *context)
{
    struct peak *peak = context;

    pool_run(peak->pool, one_thread, peak, peak->threads);
}

double bench_peak_gflops(const struct bench_options *options)
{
    static struct peak peak;
    struct error err = {0};
    uint64_t start, now;
    int runs = 0;

    peak.threads = options->threads;
    if (pool_create(&peak.pool, options->threads, &err) != TD_OK)
        return 0;
    all_threads(&peak); /* wakes the threads */
    start = now = clock_ns();
    while (now - start < PROBE_NS) {
        all_threads(&peak);
        now = clock_ns();
        runs++;
    }
    pool_destroy(&peak.pool);
    return 4.0 * CHAINS * LOOPS * 2.0 * lanes() * options->threads * runs / (double)(now - start);
}

int bench_peak(const struct bench_options *options, struct error *err)
{
    struct bench_result result = {.name = "peak", .variant = "float32 FMA", .peak_fraction = 1};
    uint64_t end = clock_ms() + (uint64_t)(options->seconds * 1000);

    (void)err;
    do {
        double gflops = bench_peak_gflops(options);

        if (gflops > result.gflops)
            result.gflops = gflops;
        result.count++;
    } while (clock_ms() < end);
    result.rate = result.gflops * 1e9;
    result.unit = "FLOP/s";
    bench_report(options, &result);
    return TD_OK;
}
