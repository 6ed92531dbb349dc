/*
 * bench_replay.c - a real replay shard: synced rows in, acknowledgement times, slices out.
 *
 *   insert  4 writers, chunks of 128 walker rows, as fast as they are acknowledged
 *   ack     64 slow streams, a row at a time, 25 a second each: time to the synced acknowledgement. And
 *           what one sync of this disk takes meanwhile, of which a commit waits for two
 *   slices  batches of `batch_size` slices of H+1 rows over ipc, from a table of a million rows
 *
 * With obs=rgb rows are frames, drawn of a walker at random: chunks of 21, a table of 40,000 (half a
 * gigabyte); slices asked for one batch after the other, first with nothing of the table in memory, and the
 * disk that a frame takes. Insert and slices again with compress_frames (zstd).
 *
 * The store lies in replay_dir=, by default a folder beside the working directory's build/.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/env/env.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "common/util/rng.h"
#include "common/wire/message.h"
#include "tools/bench.h"
#include "tools/straw.h"

#define TABLE_ROWS   1000000u
#define TABLE_FRAMES 40000u
#define COLD_BATCHES 5
#define PICTURES     96u /* different ones in the table */
#define EPISODE_ROWS 501u
#define ROUNDS       5
#define PROBES_MAX   65536
#define PROBE_EVERY_MS 5
#define LATENCY_MAX  65536

static const struct row_schema walker = {OBS_STATE, 24, 6}, walker_rgb = {OBS_RGB, 12288, 6};

static bool is_rgb(const struct config *config)
{
    return strcmp(config->obs, "rgb") == 0;
}

static const struct row_schema *schema_of(const struct config *config)
{
    return is_rgb(config) ? &walker_rgb : &walker;
}

static uint64_t table_rows(const struct config *config)
{
    return is_rgb(config) ? TABLE_FRAMES : TABLE_ROWS;
}

/* What is measured, in the result's line. */
static const char *variant(const struct config *config, const char *state, const char *rgb)
{
    return is_rgb(config) ? rgb : state;
}

/* How a part is measured. */
struct part {
    int (*run)(const struct bench_options *, const struct straw_config *, struct error *);
    bool compress; /* obs=rgb only */
};

/* Pictures of a walker that moves at random, for rows to show. */
static int draw_pictures(uint8_t *pictures, struct error *err)
{
    struct env_options options = env_options("rgb", "exact");
    struct rng_key key = {.seed = 1};
    struct env_result result = {.reward = 0};
    struct rng rng;
    float action[6];
    env_t *env;
    int rc = env_create_with(&env, "walker-walk", &options, 1, err);

    rng_init(&rng, &key);
    for (uint32_t i = 0; i < PICTURES && rc == TD_OK; i++) {
        rng_uniform(&rng, action, TD_LEN(action), -1, 1);
        rc = i == 0 ? env_reset(env, pictures, err)
                    : env_step(env, action, pictures + (size_t)i * ENV_FRAME_BYTES, &result, err);
    }
    env_close(&env);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static struct straw_config straw_for(const char *dir, const struct config *config, bool compress,
                                     const uint8_t *pictures)
{
    return (struct straw_config){
        .dir = dir,
        .compress_frames = compress,
        .frames = pictures,
        .frame_count = pictures == NULL ? 0 : PICTURES,
        .program = "tdmpc2-replay",
        .schema = *schema_of(config),
        .episode = EPISODE_ROWS,
        .horizon = (uint32_t)config->horizon,
        .batch = (uint32_t)config->batch_size,
        .capacity = table_rows(config),
        .map_rows = TABLE_ROWS / (is_rgb(config) ? 4 : 1) + table_rows(config) / 4,
    };
}

/* Rows acknowledged per second: the median over rounds of a few seconds in all. */
static int bench_insert(const struct bench_options *options, const struct straw_config *straw_config, struct error *err)
{
    struct straw_config config = *straw_config;
    struct bench_result result = {.name = "replay", .unit = "rows/s", .count = ROUNDS,
                                  .variant = variant(&options->config, "insert", config.compress_frames ? "insert obs=rgb zstd" : "insert obs=rgb")};
    double rates[ROUNDS];
    straw_t *straw;
    int rc;

    config.writers = 4;
    config.chunk = is_rgb(&options->config) ? (uint32_t)(WIRE_ROWS_MAX / row_stride(&config.schema)) : 128;
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

/*
 * What one sync of this disk costs at the same time: a thread overwrites a page of a file of its own
 * and syncs it, 200 times a second.
 */
struct probe {
    pthread_t thread;
    atomic_bool stop;
    char path[FS_PATH_MAX + 32];
    double ms[PROBES_MAX];
    int count;
};

static void *probe_disk(void *context)
{
    static const char page[4096];
    struct probe *probe = context;
    int fd = open(probe->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    bool good = fd >= 0 && pwrite(fd, page, sizeof(page), 0) == (ssize_t)sizeof(page) && fsync(fd) == 0;

    while (good && !atomic_load(&probe->stop) && probe->count < PROBES_MAX) {
        uint64_t start = clock_ns();

        good = pwrite(fd, page, sizeof(page), 0) == (ssize_t)sizeof(page) && fdatasync(fd) == 0;
        probe->ms[probe->count++] = (double)(clock_ns() - start) * 1e-6;
        clock_sleep_ms(PROBE_EVERY_MS);
    }
    if (fd >= 0)
        close(fd);
    unlink(probe->path);
    return NULL;
}

static void report_times(const struct bench_options *options, const char *what, double *ms, int count)
{
    struct bench_result result = {.name = "replay", .variant = what, .count = count};

    qsort(ms, (size_t)count, sizeof(*ms), by_value);
    result.median_ms = ms[count / 2];
    result.p99_ms = ms[count * 99 / 100];
    bench_report(options, &result);
}

static int measure_acks(straw_t *straw, const struct bench_options *options, const char *dir, struct error *err)
{
    static double ms[LATENCY_MAX];
    static struct probe probe;
    int count;

    memset(&probe, 0, sizeof(probe));
    snprintf(probe.path, sizeof(probe.path), "%s.probe", dir);
    straw_write(straw, true);
    straw_run(straw, 500);
    (void)straw_latencies(straw, ms, LATENCY_MAX);
    if (pthread_create(&probe.thread, NULL, probe_disk, &probe) != 0)
        return error_set(err, TD_EIO, "cannot start a thread");
    straw_run(straw, (uint64_t)(options->seconds * 1000));
    count = straw_latencies(straw, ms, LATENCY_MAX);
    atomic_store(&probe.stop, true);
    pthread_join(probe.thread, NULL);
    if (count == 0)
        return error_set(err, TD_ETIMEOUT, "no row was acknowledged");
    report_times(options, variant(&options->config, "ack", "ack obs=rgb"), ms, count);
    if (probe.count > 0)
        report_times(options, "one sync beside it", probe.ms, probe.count);
    return TD_OK;
}

static int bench_ack(const struct bench_options *options, const struct straw_config *straw_config, struct error *err)
{
    struct straw_config config = *straw_config;
    straw_t *straw;
    int rc;

    config.writers = 64;
    config.chunk = 1;
    config.window = 64;
    config.pace_us = 40000;
    if ((rc = straw_start(&straw, &config, err)) != TD_OK)
        return rc;
    rc = measure_acks(straw, options, config.dir, err);
    straw_stop(&straw);
    return rc;
}

/* Have the kernel forget the table, as far as it will: nobody maps it now. Returns the disk it takes. */
static uint64_t make_cold(const char *dir)
{
    char path[FS_PATH_MAX];
    struct stat info = {0};
    int file = -1;

    if (snprintf(path, sizeof(path), "%s/data.mdb", dir) < (int)sizeof(path))
        file = open(path, O_RDONLY);
    if (file < 0)
        return 0;
    (void)fsync(file);
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    (void)fstat(file, &info);
    close(file);
    return (uint64_t)info.st_blocks * 512;
}

/* Milliseconds of the first batches, one after the other. */
static void measure_cold(const struct bench_options *options, straw_t *straw, const char *what)
{
    struct bench_result result = {.name = "replay", .variant = what, .count = COLD_BATCHES};
    double ms[COLD_BATCHES];

    for (int i = 0; i < COLD_BATCHES; i++) {
        uint64_t start = clock_ns(), before = straw_counts(straw)->batches;

        straw_sample(straw, 1);
        while (straw_counts(straw)->batches == before && clock_ns() - start < 10000000000u)
            straw_run(straw, 1);
        ms[i] = (double)(clock_ns() - start) * 1e-6;
    }
    qsort(ms, COLD_BATCHES, sizeof(*ms), by_value);
    result.median_ms = ms[COLD_BATCHES / 2];
    bench_report(options, &result);
}

static int bench_slices(const struct bench_options *options, const struct straw_config *straw_config, struct error *err)
{
    struct straw_config config = *straw_config;
    struct bench_result result = {.name = "replay", .unit = "slices/s", .count = ROUNDS,
                                  .variant = variant(&options->config, "slices", config.compress_frames ? "slices obs=rgb zstd" : "slices obs=rgb")};
    struct bench_result disk = {.name = "replay", .variant = config.compress_frames ? "disk obs=rgb zstd" : "disk obs=rgb",
                                .unit = "bytes per frame"};
    bool rgb = is_rgb(&options->config);
    double rates[ROUNDS];
    uint64_t rows = (table_rows(&options->config) + EPISODE_ROWS - 1) / EPISODE_ROWS * EPISODE_ROWS, bytes;
    straw_t *straw;
    int rc;

    config.chunk = 1;
    if ((rc = straw_fill(&config, STRAW_RUN, rows, err)) != TD_OK)
        return rc;
    bytes = make_cold(config.dir);
    if ((rc = straw_start(&straw, &config, err)) != TD_OK)
        return rc;
    if (rgb) {
        disk.rate = (double)bytes / (double)rows;
        bench_report(options, &disk);
        measure_cold(options, straw, config.compress_frames ? "slices obs=rgb zstd cold" : "slices obs=rgb cold");
    }
    straw_sample(straw, rgb ? 1 : 2);
    straw_run(straw, rgb ? 3000 : 500);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = clock_ns(), before = straw_counts(straw)->slices;

        straw_run(straw, (uint64_t)(options->seconds * 1000 / ROUNDS));
        rates[i] = (double)(straw_counts(straw)->slices - before) / ((double)(clock_ns() - start) * 1e-9);
    }
    straw_stop(&straw);
    qsort(rates, ROUNDS, sizeof(*rates), by_value);
    result.rate = rates[ROUNDS / 2];
    if (rgb && result.rate > 0)
        result.median_ms = 1000 * config.batch / result.rate;
    bench_report(options, &result);
    return TD_OK;
}

int bench_replay(const struct bench_options *options, struct error *err)
{
    static const struct part parts[] = {{bench_insert, false}, {bench_insert, true}, {bench_ack, false},
                                        {bench_slices, false}, {bench_slices, true}};
    static uint8_t pictures[PICTURES][ENV_FRAME_BYTES];
    bool rgb = is_rgb(&options->config);
    char root[FS_PATH_MAX], dir[FS_PATH_MAX + 16];
    int rc = TD_OK;

    if (options->config.replay_dir[0] != '\0')
        snprintf(root, sizeof(root), "%s", options->config.replay_dir);
    else
        snprintf(root, sizeof(root), "build/bench-replay-%d", (int)getpid());
    if (options->config.replay_dir[0] != '\0' && access(root, F_OK) == 0)
        return error_set(err, TD_EINVAL, "%s exists: the benchmark needs a folder of its own", root);
    if (rgb)
        rc = draw_pictures(pictures[0], err);
    for (size_t i = 0; i < TD_LEN(parts) && rc == TD_OK; i++) {
        struct straw_config straw = straw_for(dir, &options->config, parts[i].compress, rgb ? pictures[0] : NULL);

        if (parts[i].compress && !rgb)
            continue;
        snprintf(dir, sizeof(dir), "%s/%zu", root, i);
        rc = parts[i].run(options, &straw, err);
        (void)fs_remove_tree(dir, NULL);
    }
    (void)fs_remove_tree(root, NULL);
    return rc;
}
