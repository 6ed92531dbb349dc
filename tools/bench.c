/* bench.c - `tdmpc2 bench`: options, timing, printing; the benchmarks themselves are bench_*.c. */
#include "tools/bench.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"
#include "common/tensor/pool.h"
#include "common/util/clock.h"
#include "common/util/cores.h"
#include "tools/commands.h"
#include "tools/options.h"

#define TIMINGS_MAX 20000
#define TIMINGS_MIN 5
#define PAIRS_MAX 2000
#define FLOPS_ROUNDS 15 /* peak and work take turns this often, */
#define FLOPS_ROUNDS_MIN 3 /* or this often where one call takes its time */

struct bench {
    const char *name;
    int (*run)(const struct bench_options *options, struct error *err);
    const char *sentence;
};

static const struct bench benches[] = {
#define BENCH(name, sentence) {#name, bench_##name, sentence},
#include "tools/bench.def"
#undef BENCH
};

/* --- timing --- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double time_ms(void (*run)(void *context), void *context)
{
    uint64_t start = clock_ns();

    run(context);
    return (double)(clock_ns() - start) * 1e-6;
}

/* Time until `seconds` have gone by, `least` times at least; returns how many timings were added. */
static int collect(void (*run)(void *context), void *context, double seconds, int least, double *timings,
                   int room)
{
    uint64_t end = clock_ns() + (uint64_t)(seconds * 1e9);
    int count = 0;

    while (count < room && (count < least || clock_ns() < end))
        timings[count++] = time_ms(run, context);
    return count;
}

static void summarise(double *timings, int count, struct bench_result *result)
{
    qsort(timings, (size_t)count, sizeof(*timings), compare_doubles);
    result->count = count;
    result->median_ms = count % 2 ? timings[count / 2]
                                  : (timings[count / 2 - 1] + timings[count / 2]) / 2;
    result->p99_ms = timings[(int)ceil(0.99 * count) - 1];
}

void bench_time(const struct bench_options *options, void (*run)(void *context), void *context,
                struct bench_result *result)
{
    double *timings = malloc(TIMINGS_MAX * sizeof(*timings));
    int least;

    TD_ASSERT(timings != NULL, "no memory for timings");
    least = time_ms(run, context) > options->seconds * 1e3 ? 1 : TIMINGS_MIN;
    summarise(timings, collect(run, context, options->seconds, least, timings, TIMINGS_MAX), result);
    free(timings);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(*values), compare_doubles);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

void bench_pairs(const struct bench_options *options, void (*run)(void *context), void (*beside)(void *context),
                 void *context, struct bench_result *result)
{
    double *timings = malloc(3 * PAIRS_MAX * sizeof(*timings));
    double *other = timings + PAIRS_MAX, *fractions = other + PAIRS_MAX;
    uint64_t end;
    int count = 0;

    TD_ASSERT(timings != NULL, "no memory for timings");
    run(context);
    beside(context);
    end = clock_ns() + (uint64_t)(options->seconds * 1e9);
    while (count < PAIRS_MAX && (count < TIMINGS_MIN || clock_ns() < end)) {
        bool first = count % 2 == 0;

        if (first)
            timings[count] = time_ms(run, context);
        other[count] = time_ms(beside, context);
        if (!first)
            timings[count] = time_ms(run, context);
        fractions[count] = timings[count] / other[count];
        count++;
    }
    result->beside_ms = median(other, count);
    result->beside_fraction = median(fractions, count);
    summarise(timings, count, result);
    free(timings);
}

void bench_flops(const struct bench_options *options, void (*run)(void *context), void *context,
                 double gflop, struct bench_result *result)
{
    double *timings = malloc(TIMINGS_MAX * sizeof(*timings));
    double fractions[FLOPS_ROUNDS], before, after;
    int count = 0, rounds;

    TD_ASSERT(timings != NULL, "no memory for timings");
    rounds = (int)fmin(options->seconds * 1e3 / time_ms(run, context), FLOPS_ROUNDS);
    rounds = rounds < FLOPS_ROUNDS_MIN ? FLOPS_ROUNDS_MIN : rounds;
    before = bench_peak_gflops(options);
    for (int round = 0; round < rounds; round++) {
        uint64_t start = clock_ns();
        int more = collect(run, context, options->seconds / rounds, 1, timings + count,
                           (TIMINGS_MAX - count) / (rounds - round));
        double seconds = (double)(clock_ns() - start) * 1e-9;

        after = bench_peak_gflops(options);
        fractions[round] = gflop * more / seconds / ((before + after) / 2);
        before = after;
        count += more;
    }
    qsort(fractions, (size_t)rounds, sizeof(*fractions), compare_doubles);
    summarise(timings, count, result);
    free(timings);
    result->gflops = gflop / result->median_ms * 1e3;
    result->peak_fraction = fractions[rounds / 2];
}

/* --- printing --- */

static const char *cpu_name(void)
{
    static char name[128];
    char line[256];
    FILE *file;

    if (name[0] != '\0')
        return name;
    snprintf(name, sizeof(name), "unknown");
    file = fopen("/proc/cpuinfo", "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "model name : %127[^\n]", name) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return name;
}

static void add_number(cJSON *json, const char *key, double value)
{
    if (value != 0)
        cJSON_AddNumberToObject(json, key, value);
}

static void report_json(const struct bench_options *options, const struct bench_result *result)
{
    cJSON *json = cJSON_CreateObject();
    char *text;

    cJSON_AddStringToObject(json, "name", result->name);
    if (result->variant != NULL)
        cJSON_AddStringToObject(json, "variant", result->variant);
    add_number(json, "median_ms", result->median_ms);
    add_number(json, "p99_ms", result->p99_ms);
    add_number(json, "rate", result->rate);
    if (result->unit != NULL)
        cJSON_AddStringToObject(json, "unit", result->unit);
    add_number(json, "mib", result->mib);
    add_number(json, "gflops", result->gflops);
    add_number(json, "peak_fraction", result->peak_fraction);
    add_number(json, "best_fraction", result->best_fraction);
    add_number(json, "cores", result->cores);
    add_number(json, "beside_ms", result->beside_ms);
    add_number(json, "beside_fraction", result->beside_fraction);
    add_number(json, "count", result->count);
    cJSON_AddNumberToObject(json, "threads", options->threads);
    cJSON_AddStringToObject(json, "cpu", cpu_name());
    cJSON_AddStringToObject(json, "blas_core", gemm_core());
    cJSON_AddStringToObject(json, "simd", isa_name(isa_current()));
    text = cJSON_PrintUnformatted(json);
    puts(text == NULL ? "{}" : text);
    cJSON_free(text);
    cJSON_Delete(json);
}

static void report_text(const struct bench_options *options, const struct bench_result *result)
{
    printf("%-8s %-22s", result->name, result->variant == NULL ? "" : result->variant);
    if (result->median_ms > 0)
        printf("  %9.3f ms", result->median_ms);
    if (result->p99_ms > 0)
        printf("  p99 %9.3f ms", result->p99_ms);
    if (result->rate > 0 && result->gflops <= 0)
        printf("  %12.*f %s", result->rate < 1000 ? 2 : 0, result->rate,
               result->unit == NULL ? "/s" : result->unit);
    if (result->mib > 0)
        printf("  %9.1f MiB", result->mib);
    if (result->gflops > 0)
        printf("  %8.1f GFLOP/s", result->gflops);
    if (result->peak_fraction > 0)
        printf("  %5.1f %% of peak", result->peak_fraction * 100);
    if (result->best_fraction > 0)
        printf("  %5.1f %% of the best", result->best_fraction * 100);
    if (result->beside_ms > 0)
        printf("  one by one %9.3f ms: %5.1f %% of that", result->beside_ms, result->beside_fraction * 100);
    if (result->cores > 0)
        printf("  %.2f cores busy", result->cores);
    printf("  threads=%d  %s, %s, %s\n", options->threads, cpu_name(), gemm_core(),
           isa_name(isa_current()));
}

void bench_report(const struct bench_options *options, const struct bench_result *result)
{
    if (options->json)
        report_json(options, result);
    else
        report_text(options, result);
    fflush(stdout);
}

/* --- the command --- */

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2 bench NAME... [--json] [threads=N] [seconds=S] [key=value ...]\n\n");
    for (size_t i = 0; i < TD_LEN(benches); i++)
        fprintf(out, "  %-8s %s\n", benches[i].name, benches[i].sentence);
    fprintf(out, "  %-8s each of them in turn\n\n", "all");
    fprintf(out, "threads: as many as cores by default. envs: plans in a batch, beside as many single ones. seconds: how long each thing is measured (3; actors: 30).\n"
                 "Other keys are those of `tdmpc2 train`; model_size and batch_size matter most.\n");
}

static const struct bench *find(const char *name)
{
    for (size_t i = 0; i < TD_LEN(benches); i++)
        if (strcmp(benches[i].name, name) == 0)
            return &benches[i];
    return NULL;
}

static int parse_seconds(const char *text, struct bench_options *options, struct error *err)
{
    char *end;

    options->seconds = strtod(text, &end);
    options->seconds_given = true;
    if (end == text || *end != '\0' || !(options->seconds > 0 && options->seconds <= 3600))
        return error_set(err, TD_EINVAL, "seconds=%.40s: give a number above 0, at most 3600", text);
    return TD_OK;
}

/* Sorts the words: names into wanted[], options into options. */
static int parse(int argc, char **argv, struct bench_options *options, bool *wanted, struct error *err)
{
    char **rest = calloc((size_t)argc, sizeof(*rest));
    bool *given = options_given();
    int count = 0, rc = TD_OK;

    if (rest == NULL || given == NULL) {
        free(rest);
        free(given);
        return error_set(err, TD_ENOMEM, "no memory for the command line");
    }
    options->given = given;
    config_init(&options->config);
    options->seconds = 3;
    for (int i = 1; i < argc && rc == TD_OK; i++) {
        if (strcmp(argv[i], "--json") == 0)
            options->json = true;
        else if (strncmp(argv[i], "--js", 4) == 0) /* no option begins so */
            rc = error_set(err, TD_EINVAL, "unknown flag '%.60s'; the nearest is '--json'", argv[i]);
        else if (strncmp(argv[i], "seconds=", 8) == 0)
            rc = parse_seconds(argv[i] + 8, options, err);
        else if (argv[i][0] == '-' || strchr(argv[i], '=') != NULL)
            rest[count++] = argv[i];
        else if (strcmp(argv[i], "all") == 0)
            memset(wanted, true, TD_LEN(benches) * sizeof(*wanted));
        else if (find(argv[i]) != NULL)
            wanted[find(argv[i]) - benches] = true;
        else
            rc = error_set(err, TD_EINVAL, "unknown benchmark '%.60s': `tdmpc2 bench` lists them",
                           argv[i]);
    }
    if (rc == TD_OK)
        rc = config_parse(&options->config, count, rest, given, err);
    if (rc == TD_OK && options->config.threads > POOL_THREADS_MAX)
        rc = error_set(err, TD_EINVAL, "threads=%lld: at most %d",
                       (long long)options->config.threads, POOL_THREADS_MAX);
    options->threads = options->config.threads > 0 ? (int)options->config.threads : cores_available();
    free(rest);
    return rc;
}

int cmd_bench(int argc, char **argv)
{
    static struct bench_options options;
    bool wanted[TD_LEN(benches)] = {false}, any = false;
    struct error err = {0};
    int rc;

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    rc = parse(argc, argv, &options, wanted, &err);
    for (size_t i = 0; i < TD_LEN(benches); i++)
        any |= wanted[i];
    if (rc == TD_OK && !any) {
        usage(stderr);
        return TD_EXIT_BAD_INPUT;
    }
    if (rc == TD_OK)
        rc = gemm_start(options.threads, &err);
    for (size_t i = 0; i < TD_LEN(benches) && rc == TD_OK; i++)
        if (wanted[i])
            rc = benches[i].run(&options, &err);
    if (rc != TD_OK)
        fprintf(stderr, "tdmpc2 bench: %s\n", err.text);
    free((bool *)(uintptr_t)options.given);
    return error_exit_code(rc);
}
