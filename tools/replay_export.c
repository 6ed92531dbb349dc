/*
 * Export: the columns are laid out in a file mapped beside the target, which the kernel may write and
 * drop as it likes, and then written as safetensors.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/ckpt/safetensors.h"
#include "common/util/fs.h"
#include "tools/replay.h"

enum column {
    OBS, ACTION, REWARD, FIRST, TERMINATED, TRUNCATED, TASK, PARAM_EPOCH, PARAM_VERSION, EPISODE,
    EPISODE_ID, EPISODE_START, EPISODE_ROWS, EPISODE_CUT, EPISODE_SLOT, EPISODE_ENVIRONMENT, COLUMNS
};

struct export {
    store_t *store;
    struct row_schema schema;
    size_t stride;
    bool *good; /* of episodes first.. */
    uint64_t episodes, rows, skipped;
    char *map;
    size_t map_bytes;
    struct safetensors_tensor columns[COLUMNS];
    struct replay_progress *progress;
};

/* Every row of an episode in place, run by run. `take` may be NULL: only the hashes count. */
static bool read_episode(struct export *export, uint64_t id,
                         void (*take)(struct export *, const char *rows, uint32_t count, uint64_t at,
                                      uint64_t id), uint64_t at)
{
    uint32_t rows = store_episode(export->store, id)->rows;
    bool whole = true;

    for (uint32_t row = 0; row < rows && whole;) {
        uint32_t count = rows - row;
        const char *bytes = store_rows(export->store, id, row, &count);

        whole = bytes != NULL;
        if (whole && take != NULL)
            take(export, bytes, count, at + row, id);
        row += count;
    }
    store_rows_end(export->store);
    return whole;
}

static int choose_episodes(struct export *export, struct error *err)
{
    const struct store_counts *counts = store_counts(export->store);
    uint64_t held = counts->sealed - counts->first;

    if ((export->good = calloc(held + 1, sizeof(*export->good))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for %llu episodes", (unsigned long long)held);
    for (uint64_t i = 0; i < held; i++) {
        const struct store_episode *episode = store_episode(export->store, counts->first + i);

        export->good[i] = !(episode->flags & EPISODE_DAMAGED) &&
                          read_episode(export, counts->first + i, NULL, 0);
        export->episodes += export->good[i];
        export->rows += export->good[i] ? episode->rows : 0;
        export->skipped += !export->good[i];
        replay_progress(export->progress, i, 3 * held);
    }
    if (export->rows == 0)
        return error_set(err, TD_ENOTFOUND, "no whole episode to export");
    return TD_OK;
}

static void set_column(struct export *export, enum column column, const char *name,
                       enum safetensors_type type, uint64_t length, uint64_t width)
{
    struct safetensors_tensor *tensor = &export->columns[column];

    tensor->name = name;
    tensor->type = type;
    tensor->dims = width == 0 ? 1 : 2;
    tensor->shape[0] = length;
    tensor->shape[1] = width;
    tensor->offset = export->map_bytes;
    tensor->bytes = length * (width == 0 ? 1 : width) * safetensors_type_size(type);
    export->map_bytes += (tensor->bytes + 63) / 64 * 64;
}

static void lay_out(struct export *export)
{
    bool state = export->schema.obs_type == OBS_STATE;
    uint64_t n = export->rows, e = export->episodes;

    set_column(export, OBS, "obs", state ? SAFETENSORS_F32 : SAFETENSORS_U8, n, export->schema.obs_dim);
    set_column(export, ACTION, "action", SAFETENSORS_F32, n, export->schema.action_dim);
    set_column(export, REWARD, "reward", SAFETENSORS_F32, n, 0);
    set_column(export, FIRST, "first", SAFETENSORS_BOOL, n, 0);
    set_column(export, TERMINATED, "terminated", SAFETENSORS_BOOL, n, 0);
    set_column(export, TRUNCATED, "truncated", SAFETENSORS_BOOL, n, 0);
    set_column(export, TASK, "task", SAFETENSORS_I32, n, 0);
    set_column(export, PARAM_EPOCH, "param_epoch", SAFETENSORS_I32, n, 0);
    set_column(export, PARAM_VERSION, "param_version", SAFETENSORS_I64, n, 0);
    set_column(export, EPISODE, "episode", SAFETENSORS_I64, n, 0);
    set_column(export, EPISODE_ID, "episode_id", SAFETENSORS_I64, e, 0);
    set_column(export, EPISODE_START, "episode_start", SAFETENSORS_I64, e, 0);
    set_column(export, EPISODE_ROWS, "episode_rows", SAFETENSORS_I64, e, 0);
    set_column(export, EPISODE_CUT, "episode_aborted", SAFETENSORS_I64, e, 0);
    set_column(export, EPISODE_SLOT, "episode_slot", SAFETENSORS_I64, e, 0);
    set_column(export, EPISODE_ENVIRONMENT, "episode_environment", SAFETENSORS_I64, e, 0);
}

/* Memory for the columns, in a nameless file of the target's folder; a full disk is said at once. */
static int map_columns(struct export *export, const char *path, struct error *err)
{
    char folder[FS_PATH_MAX];
    int fd, rc = fs_parent(path, folder, err);

    if (rc != TD_OK)
        return rc;
    if ((fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)) < 0)
        return error_set_errno(err, errno == ENOMEM || errno == EIO ? TD_EIO : TD_EINVAL, errno, "cannot make a file in %s", folder);
    if ((rc = posix_fallocate(fd, 0, (off_t)export->map_bytes)) != 0) {
        close(fd);
        return error_set_errno(err, rc == ENOSPC ? TD_EFULL : TD_EIO, rc, "cannot take %zu bytes in %s",
                               export->map_bytes, folder);
    }
    export->map = mmap(NULL, export->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (export->map == MAP_FAILED) {
        export->map = NULL;
        return error_set_errno(err, TD_ENOMEM, errno, "cannot map %zu bytes", export->map_bytes);
    }
    for (int i = 0; i < COLUMNS; i++)
        export->columns[i].data = export->map + export->columns[i].offset;
    return TD_OK;
}

static void put(struct export *export, enum column column, uint64_t at, const void *value)
{
    const struct safetensors_tensor *tensor = &export->columns[column];
    size_t bytes = tensor->bytes / tensor->shape[0];

    memcpy(export->map + tensor->offset + at * bytes, value, bytes);
}

static void put_number(struct export *export, enum column column, uint64_t at, uint64_t number)
{
    put(export, column, at, &number); /* little-endian: the low bytes of it */
}

static void take_rows(struct export *export, const char *rows, uint32_t count, uint64_t at, uint64_t id)
{
    size_t action = sizeof(struct row_head) + row_obs_bytes(&export->schema);

    for (uint32_t i = 0; i < count; i++, at++, rows += export->stride) {
        struct row_head head;

        memcpy(&head, rows, sizeof(head));
        put(export, OBS, at, rows + sizeof(head));
        put(export, ACTION, at, rows + action);
        put(export, REWARD, at, &head.reward);
        put_number(export, FIRST, at, (head.flags & ROW_FIRST) != 0);
        put_number(export, TERMINATED, at, (head.flags & ROW_TERMINATED) != 0);
        put_number(export, TRUNCATED, at, (head.flags & ROW_TRUNCATED) != 0);
        put(export, TASK, at, &head.task);
        put(export, PARAM_EPOCH, at, &head.param_epoch);
        put(export, PARAM_VERSION, at, &head.param_version);
        put_number(export, EPISODE, at, id);
    }
}

static int fill_columns(struct export *export, struct error *err)
{
    const struct store_counts *counts = store_counts(export->store);
    uint64_t held = counts->sealed - counts->first, at = 0, place = 0;

    for (uint64_t i = 0; i < held; i++) {
        uint64_t id = counts->first + i;
        struct store_record record;
        int rc;

        if (!export->good[i])
            continue;
        if ((rc = store_record(export->store, id, &record, err)) != TD_OK)
            return rc;
        if (!read_episode(export, id, take_rows, at))
            return error_set(err, TD_EIO, "episode %llu changed while it was read",
                             (unsigned long long)id);
        put_number(export, EPISODE_ID, place, id);
        put_number(export, EPISODE_START, place, at);
        put_number(export, EPISODE_ROWS, place, record.rows);
        put_number(export, EPISODE_CUT, place, (record.flags & EPISODE_ABORTED) != 0);
        put_number(export, EPISODE_SLOT, place, record.slot);
        put_number(export, EPISODE_ENVIRONMENT, place++, record.env);
        at += record.rows;
        replay_progress(export->progress, held + i, 3 * held);
    }
    return TD_OK;
}

static int on_written(void *context, uint64_t done, uint64_t total)
{
    replay_progress(context, 2 * total + done, 3 * total);
    return 0;
}

int replay_export(store_t *store, const char *path, struct replay_progress *progress,
                  uint64_t *episodes, uint64_t *rows, uint64_t *skipped, struct error *err)
{
    const struct store_identity *identity = store_identity(store);
    struct export export = {.store = store, .schema = identity->schema,
                            .stride = row_stride(&identity->schema), .progress = progress};
    char run[24], shard[24];
    struct safetensors_note notes[] = {{"format", "tdmpc2-replay-1"}, {"run", run}, {"shard", shard}};
    int rc;

    snprintf(run, sizeof(run), "%016llx", (unsigned long long)identity->run_id);
    snprintf(shard, sizeof(shard), "%u", identity->shard);
    if ((rc = choose_episodes(&export, err)) == TD_OK) {
        lay_out(&export);
        if ((rc = map_columns(&export, path, err)) == TD_OK &&
            (rc = fill_columns(&export, err)) == TD_OK)
            rc = safetensors_write(path, export.columns, COLUMNS, notes, (int)TD_LEN(notes), on_written,
                                   progress, err);
    }
    if (export.map != NULL)
        munmap(export.map, export.map_bytes);
    free(export.good);
    *episodes = export.episodes;
    *rows = export.rows;
    *skipped = export.skipped;
    return rc;
}
