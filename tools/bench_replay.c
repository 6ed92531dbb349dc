/*
 * bench_replay.c - a real replay shard: synced rows in, acknowledgement times, slices out.
 *
 *   insert  4 writers, chunks of 128 walker rows, as fast as they are acknowledged
 *   ack     64 slow streams, a row at a time, 25 a second each: time to the synced acknowledgement
 *   slices  batches of `batch_size` slices of H+1 rows over ipc, from a table of a million rows
 *
 * The store lies in replay_dir=, by default a folder beside the working directory's build/.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/fs.h"
#include "tools/bench.h"
#include "tools/straw.h"

#define TABLE_ROWS   1000000u
#define EPISODE_ROWS 501u
#define ROUNDS       5
#define LATENCY_MAX  65536

static const struct row_schema walker = {OBS_STATE, 24, 6};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static struct straw_config straw_for(const char *dir, const struct config *config)
{
    return (struct straw_config){
        .dir = dir,
        .program = "tdmpc2-replay",
        .schema = walker,
        .episode = EPISODE_ROWS,
        .horizon = (uint32_t)config->horizon,
        .batch = (uint32_t)config->batch_size,
        .capacity = TABLE_ROWS,
        .map_rows = TABLE_ROWS + TABLE_ROWS / 4,
    };
}

/* Rows acknowledged per second: the median over rounds of a few seconds in all. */
static int bench_insert(const struct bench_options *options, const char *dir, struct error *err)
{
    struct straw_config config = straw_for(dir, &options->config);
    struct bench_result result = {.name = "replay", .variant = "insert", .unit = "rows/s",
                                  .count = ROUNDS};
    double rates[ROUNDS];
    straw_t *straw;
    int rc;

    config.writers = 4;
    config.chunk = 128;
    config.window = 32;
    if ((rc = straw_start(&straw, &config, err)) != TD_OK)
        return rc;
    straw_write(straw, true);
    straw_run(straw, 500);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = clock_ns(), before = straw_counts(straw)->acked;

        straw_run(straw, (uint64_t)(options->seconds * 1000 / ROUNDS));
        rates[i] = (double)(straw_counts(straw)->acked - before) / ((double)(clock_ns() - start) * 1e-9);
    }
    straw_stop(&straw);
    qsort(rates, ROUNDS, sizeof(*rates), by_value);
    result.rate = rates[ROUNDS / 2];
    bench_report(options, &result);
    return TD_OK;
}

static int bench_ack(const struct bench_options *options, const char *dir, struct error *err)
{
    struct straw_config config = straw_for(dir, &options->config);
    struct bench_result result = {.name = "replay", .variant = "ack"};
    double *ms = malloc(LATENCY_MAX * sizeof(*ms));
    straw_t *straw = NULL;
    int rc, count;

    config.writers = 64;
    config.chunk = 1;
    config.window = 64;
    config.pace_us = 40000;
    rc = ms == NULL ? TD_ENOMEM : straw_start(&straw, &config, err);
    if (rc == TD_OK) {
        straw_write(straw, true);
        straw_run(straw, 500);
        (void)straw_latencies(straw, ms, LATENCY_MAX);
        straw_run(straw, (uint64_t)(options->seconds * 1000));
        count = straw_latencies(straw, ms, LATENCY_MAX);
        straw_stop(&straw);
        if (count == 0)
            rc = error_set(err, TD_ETIMEOUT, "no row was acknowledged");
        qsort(ms, (size_t)count, sizeof(*ms), by_value);
        result.count = count;
        result.median_ms = count > 0 ? ms[count / 2] : 0;
        result.p99_ms = count > 0 ? ms[count * 99 / 100] : 0;
        bench_report(options, &result);
    }
    free(ms);
    return rc;
}

static int bench_slices(const struct bench_options *options, const char *dir, struct error *err)
{
    struct straw_config config = straw_for(dir, &options->config);
    struct bench_result result = {.name = "replay", .variant = "slices", .unit = "slices/s",
                                  .count = ROUNDS};
    double rates[ROUNDS];
    straw_t *straw;
    int rc;

    config.chunk = 1;
    if ((rc = straw_fill(dir, &walker, STRAW_RUN, TABLE_ROWS, EPISODE_ROWS, err)) != TD_OK ||
        (rc = straw_start(&straw, &config, err)) != TD_OK)
        return rc;
    straw_sample(straw, 2);
    straw_run(straw, 500);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = clock_ns(), before = straw_counts(straw)->slices;

        straw_run(straw, (uint64_t)(options->seconds * 1000 / ROUNDS));
        rates[i] = (double)(straw_counts(straw)->slices - before) / ((double)(clock_ns() - start) * 1e-9);
    }
    straw_stop(&straw);
    qsort(rates, ROUNDS, sizeof(*rates), by_value);
    result.rate = rates[ROUNDS / 2];
    bench_report(options, &result);
    return TD_OK;
}

int bench_replay(const struct bench_options *options, struct error *err)
{
    static int (*const parts[])(const struct bench_options *, const char *, struct error *) = {
        bench_insert, bench_ack, bench_slices};
    char root[FS_PATH_MAX], dir[FS_PATH_MAX + 16];
    int rc = TD_OK;

    if (options->config.replay_dir[0] != '\0')
        snprintf(root, sizeof(root), "%s", options->config.replay_dir);
    else
        snprintf(root, sizeof(root), "build/bench-replay-%d", (int)getpid());
    if (options->config.replay_dir[0] != '\0' && access(root, F_OK) == 0)
        return error_set(err, TD_EINVAL, "%s exists: the benchmark needs a folder of its own", root);
    for (size_t i = 0; i < TD_LEN(parts) && rc == TD_OK; i++) {
        snprintf(dir, sizeof(dir), "%s/%zu", root, i);
        rc = parts[i](options, dir, err);
    }
    (void)fs_remove_tree(root, NULL);
    return rc;
}
