/* live_files.c - what a run leaves: logs, csv files, checkpoints. */
#include <dirent.h>
#include <math.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/net/process.h"
#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/test.h"

#define LOG_BYTES  (16u << 20)
#define SHOW_LINES 25

bool live_says(const char *path, const char *text)
{
    struct error err;
    char *bytes;
    size_t length;
    bool found;

    if (fs_read_file(path, LOG_BYTES, &bytes, &length, &err) != TD_OK)
        return false;
    found = strstr(bytes, text) != NULL;
    free(bytes);
    return found;
}

static const char *file_of(const struct live *live, const char *name, char path[FS_PATH_MAX])
{
    snprintf(path, FS_PATH_MAX, "%s/%s", live->dir, name);
    return path;
}

bool live_said(const struct live *live, const char *file, const char *text, int ms)
{
    uint64_t end = clock_ms() + (uint64_t)ms;
    char path[FS_PATH_MAX];

    while (!live_says(file_of(live, file, path), text)) {
        if (clock_ms() >= end)
            return false;
        live_sleep(10);
    }
    return true;
}

int live_count(const struct live *live, const char *file, const char *text)
{
    char path[FS_PATH_MAX], *bytes;
    struct error err;
    size_t length;
    int count = 0;

    if (fs_read_file(file_of(live, file, path), LOG_BYTES, &bytes, &length, &err) != TD_OK)
        return 0;
    for (const char *at = bytes; (at = strstr(at, text)) != NULL; at += strlen(text))
        count++;
    free(bytes);
    return count;
}

/* --- showing ---------------------------------------------------------------- */

static void show_tail(const char *path)
{
    char text[32768];

    if (process_log_tail(path, SHOW_LINES, text, sizeof(text)) > 0)
        fprintf(stderr, "--- %s\n%s\n", path, text);
}

void live_show(const struct live *live)
{
    DIR *folder = opendir(live->dir);
    struct dirent *entry;
    char path[FS_PATH_MAX];

    show_tail(live->out);
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        size_t length = strlen(entry->d_name);

        if (length > 4 && strcmp(entry->d_name + length - 4, ".log") == 0)
            show_tail(file_of(live, entry->d_name, path));
    }
    if (folder != NULL)
        closedir(folder);
}

/* --- csv -------------------------------------------------------------------- */

int live_rows(const struct live *live, const char *file)
{
    struct csv_data data;
    char path[FS_PATH_MAX];
    int rows;

    if (csv_load(&data, file_of(live, file, path), NULL) != TD_OK)
        return 0;
    rows = data.rows;
    csv_release(&data);
    return rows;
}

char *live_lines(const struct live *live, const char *file)
{
    struct csv_data data;
    struct error err;
    char path[FS_PATH_MAX], *text, *at;
    size_t size;

    assert_ok(csv_load(&data, file_of(live, file, path), &err), err);
    size = 1 + (size_t)data.rows * (size_t)data.columns * 32;
    at = text = malloc(size);
    assert_non_null(text);
    *at = '\0';
    for (int row = 0; row < data.rows; row++)
        for (int column = 0; column < data.columns; column++) {
            bool clock = strcmp(data.names[column], csv_eval_columns[CSV_EVAL_TIME]) == 0 ||
                         strcmp(data.names[column], csv_train_columns[CSV_TRAIN_RATE]) == 0;

            if (!clock)
                at += sprintf(at, "%.17g%s", data.values[(size_t)row * (size_t)data.columns + (size_t)column],
                              column + 1 < data.columns ? "," : "");
            if (column + 1 == data.columns)
                at += sprintf(at, "\n");
        }
    csv_release(&data);
    return text;
}

/* --- checkpoints ------------------------------------------------------------ */

static void check_finite(const checkpoint_t *checkpoint, const char *file)
{
    safetensors_t *tensors;
    struct error err;

    assert_ok(checkpoint_open_tensors(checkpoint, file, &tensors, &err), err);
    assert_true(safetensors_count(tensors) > 0);
    for (int i = 0; i < safetensors_count(tensors); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(tensors, i);
        float *values;

        if (tensor->type != SAFETENSORS_F32)
            continue;
        values = malloc(tensor->bytes + 1);
        assert_non_null(values);
        assert_ok(safetensors_read(tensors, tensor, values, &err), err);
        for (size_t k = 0; k < tensor->bytes / sizeof(float); k++)
            if (!isfinite(values[k]))
                fail_msg("%s: %s holds a number that is not finite", checkpoint_path(checkpoint), tensor->name);
        free(values);
    }
    safetensors_close(&tensors);
}

static void passed_over(void *context, const char *name, const char *why)
{
    (void)context;
    fail_msg("checkpoint %s does not load: %s", name, why);
}

uint64_t live_checkpoint(const struct live *live)
{
    char path[FS_PATH_MAX];
    checkpoint_t *checkpoint;
    struct error err;
    uint64_t step;

    assert_ok(checkpoint_open_newest(&checkpoint, file_of(live, "checkpoints", path), CHECKPOINT_ANY, passed_over,
                                     NULL, &err), err);
    step = checkpoint_manifest(checkpoint)->step;
    if (checkpoint_manifest(checkpoint)->updates > 0) {
        check_finite(checkpoint, "parameters.safetensors");
        check_finite(checkpoint, "optimizer.safetensors");
    }
    checkpoint_close(&checkpoint);
    return step;
}

void live_hashes(const struct live *live, const char *name, char *out, size_t size)
{
    char path[FS_PATH_MAX];
    checkpoint_t *checkpoint;
    const struct manifest *manifest;
    struct error err;
    size_t used = 0;

    snprintf(path, sizeof(path), "%s/checkpoints/%s", live->dir, name);
    assert_ok(checkpoint_open(&checkpoint, path, &err), err);
    manifest = checkpoint_manifest(checkpoint);
    used += (size_t)snprintf(out, size, "step=%llu updates=%llu", (unsigned long long)manifest->step,
                             (unsigned long long)manifest->updates);
    for (int i = 0; i < manifest->file_count && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, " %s=%.16s", manifest->files[i].name,
                                 manifest->files[i].sha256);
    checkpoint_close(&checkpoint);
}
