/* How fast slices come from a store, and what that takes of memory: opened and drawn from as a shard does. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "learner/replay/sampler.h"
#include "tools/data.h"

#define ROUNDS 5

/* Kilobytes that a line of /proc/self/status names. */
static uint64_t status_kb(const char *name)
{
    char *text, *line;
    uint64_t kb = 0;
    size_t length;

    if (fs_read_file("/proc/self/status", 1 << 16, &text, &length, NULL) != TD_OK)
        return 0;
    if ((line = strstr(text, name)) != NULL)
        kb = strtoull(line + strlen(name) + 1, NULL, 10);
    free(text);
    return kb;
}

/* Read the file once, so that what the kernel keeps of it is there. */
static void warm(const char *dir)
{
    static char block[1 << 20];
    char path[FS_PATH_MAX];
    int fd = fs_join(path, dir, "data.mdb", NULL) == TD_OK ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    while (fd >= 0 && read(fd, block, sizeof(block)) > 0)
        ;
    if (fd >= 0)
        close(fd);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Slices per second: the median over rounds. */
static int measure(sampler_t *sampler, uint32_t batch, double seconds, double *rate, struct error *err)
{
    void *out = malloc(sampler_bytes(sampler, batch));
    double rates[ROUNDS];
    uint64_t update = 0;

    for (int i = 0; i < ROUNDS && out != NULL; i++) {
        uint64_t start = clock_ns(), slices = 0;

        while ((double)(clock_ns() - start) * 1e-9 < seconds / ROUNDS) {
            if (sampler_draw(sampler, update++, batch, out) != TD_OK) {
                free(out);
                return error_set(err, TD_ENOTFOUND, "no episode is long enough to be drawn");
            }
            slices += batch;
        }
        rates[i] = (double)slices / ((double)(clock_ns() - start) * 1e-9);
    }
    if (out == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a batch");
    free(out);
    qsort(rates, ROUNDS, sizeof(*rates), by_value);
    *rate = rates[ROUNDS / 2];
    return TD_OK;
}

int data_sample(const char *data_dir, uint32_t batch, uint32_t horizon, double seconds, bool json, struct error *err)
{
    struct store_config config = {.any_shard = true, .reading = true};
    struct sampler_config how = {.horizon = horizon, .capacity = UINT64_MAX, .seed = 1, .tasks = ROW_TASKS_MAX};
    char dir[FS_PATH_MAX];
    sampler_t *sampler = NULL;
    store_t *store = NULL;
    uint64_t start, base_kb, opened_ns = 0, ready_ns = 0;
    double rate = 0;
    int rc = dataset_find(dir, data_dir, err);

    if (rc != TD_OK)
        return rc;
    config.dir = dir;
    base_kb = status_kb("RssAnon:");
    start = clock_ns();
    if ((rc = store_open(&store, &config, err)) == TD_OK) {
        opened_ns = clock_ns() - start;
        if ((rc = sampler_create(&sampler, store, &how)) != TD_OK)
            rc = error_set(err, rc, "out of memory for the list of episodes");
    }
    if (rc == TD_OK) {
        (void)sampler_window(sampler, SAMPLER_NEWEST);
        ready_ns = clock_ns() - start;
        warm(dir);
        if ((rc = measure(sampler, batch, seconds, &rate, err)) == TD_OK) /* once for the kernel's page tables */
            rc = measure(sampler, batch, seconds, &rate, err);
    }
    if (rc == TD_OK)
        printf(json ? "{\"episodes\":%" PRIu64 ",\"rows\":%" PRIu64 ",\"open_s\":%.3f,\"ready_s\":%.3f,"
                      "\"slices_per_s\":%.0f,\"rss_anon_mb\":%.1f,\"rss_anon_before_mb\":%.1f,\"rss_file_mb\":%.1f}\n"
                    : "episodes %" PRIu64 ", rows %" PRIu64 "\nopened in %.3f s, ready to draw in %.3f s\n"
                      "%.0f slices/s\nresident: %.1f MB of its own (%.1f before opening), %.1f MB of the file\n",
               store_committed(store) - store_counts(store)->first, store_counts(store)->held_rows,
               (double)opened_ns * 1e-9, (double)ready_ns * 1e-9, rate, (double)status_kb("RssAnon:") / 1024,
               (double)base_kb / 1024, (double)status_kb("RssFile:") / 1024);
    sampler_destroy(&sampler);
    store_close(&store);
    return rc;
}
