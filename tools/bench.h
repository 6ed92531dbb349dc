/*
 * bench.h - what the benchmarks of `tdmpc2 bench` share: options, timing, printing.
 *
 * A benchmark is a file tools/bench_NAME.c with `int bench_NAME(const struct bench_options *,
 * struct error *)`, and a line in tools/bench.def.
 */
#ifndef TD_TOOLS_BENCH_H
#define TD_TOOLS_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/config.h"
#include "common/util/error.h"

struct bench_options {
    struct config config; /* every option of the table: model_size, batch_size, task, ... */
    int threads;          /* threads=N, at least 1 */
    const bool *given;    /* which of them were named, one flag per option */
    double seconds;       /* seconds=S: how long to measure each thing */
    bool seconds_given;
    bool json;
};

/* One result; fields left 0 (text: NULL) are not printed. */
struct bench_result {
    const char *name;   /* "plan" */
    const char *variant; /* "model_size=5", or NULL */
    double median_ms;
    double rate;        /* per second, with its unit */
    const char *unit;   /* "rows/s" */
    double gflops;      /* achieved GFLOP/s over useful work */
    double peak_fraction;
    double p99_ms;
    double best_fraction; /* of the best rate among those compared */
    double cores;         /* busy with it */
    double beside_ms;     /* median of what it is compared with, */
    double beside_fraction; /* of which it took this: median over pairs */
    int count;          /* timings taken */
    double mib;         /* memory */
};

/* Print a result as a line of text or a JSON object, adding threads, cpu, BLAS core and SIMD path. */
void bench_report(const struct bench_options *options, const struct bench_result *result);

/*
 * Time `run(context)` repeatedly for options->seconds (at least 5 times, after one unmeasured call;
 * at least once when a call takes longer than that).
 * Fills median_ms, p99_ms and count.
 */
void bench_time(const struct bench_options *options, void (*run)(void *context), void *context,
                struct bench_result *result);

/*
 * GFLOP/s of fused multiply-adds in registers with options->threads threads, widest vectors: what
 * peak_fraction divides by. Measured anew at each call, as throughput over about 60 ms: what else the
 * machine does in that time takes its share, as it does of the work beside which this is set.
 */
double bench_peak_gflops(const struct bench_options *options);

/*
 * As bench_time for numeric work of `gflop` GFLOP per call. The work is cut into rounds, with the peak
 * measured before and after each; peak_fraction is the median over rounds of the work's throughput over
 * the mean of its two peaks, so that a load that comes and goes changes both sides of each fraction.
 * gflops comes from the median time.
 */
void bench_flops(const struct bench_options *options, void (*run)(void *context), void *context,
                 double gflop, struct bench_result *result);

/*
 * Time `run` and `beside` in turns, each as often, the one first and then the other: median_ms, p99_ms and count are of
 * `run`, beside_ms of the other, beside_fraction is the median of run / beside over the pairs, so that a
 * load that comes and goes changes both sides.
 */
void bench_pairs(const struct bench_options *options, void (*run)(void *context), void (*beside)(void *context),
                 void *context, struct bench_result *result);

/* The benchmarks themselves: each prints its results and returns TD_OK, or a code and a sentence. */
#define BENCH(name, sentence) int bench_##name(const struct bench_options *options, struct error *err);
#include "tools/bench.def"
#undef BENCH

#endif
