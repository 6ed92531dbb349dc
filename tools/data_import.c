/* Import: chunk by chunk, in transactions of whole episodes that say by themselves how far they came. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/model/task_set.h"
#include "tools/chunk.h"
#include "tools/data.h"

#define COMMIT_BYTES ((uint64_t)64 << 20)
#define BATCH_BYTES  ((uint64_t)16 << 20)  /* of rows read at a time, but at least one episode */
#define EPISODE_BYTES_MAX ((uint64_t)128 << 20)
#define MAP_BYTES_MIN ((uint64_t)16 << 20)

struct import {
    const struct data_import *given;
    struct data_report *report;
    char dir[FS_PATH_MAX]; /* of the chunks */
    char **names;          /* of the files, in lexicographic order */
    int *places;           /* of each in the data set's list */
    int name_count;
    struct dataset dataset;
    uint32_t longest;
    bool fresh; /* there was no list */
    store_t *store;
    char *rows;
    uint64_t rows_bytes, uncommitted;
    uint64_t done, total; /* bytes of chunks, read twice: checked, then imported */
};

/* --- the files ------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);

    return length > tail && strcmp(name + length - tail, end) == 0;
}

static int add_name(struct import *import, const char *name, struct error *err)
{
    char **grown;

    if (strlen(name) >= DATASET_NAME_MAX || import->name_count == DATASET_CHUNKS_MAX)
        return error_set(err, TD_EINVAL, "%s has too many chunks, or one with too long a name", import->dir);
    grown = realloc(import->names, ((size_t)import->name_count + 1) * sizeof(*grown));
    if (grown != NULL)
        import->names = grown;
    if (grown == NULL || (import->names[import->name_count] = strdup(name)) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the names of chunks");
    import->name_count++;
    return TD_OK;
}

/* All *.pt of the folder; *.safetensors where there are none. */
static int list_folder(struct import *import, const char *end, struct error *err)
{
    struct dirent *entry;
    DIR *folder = opendir(import->dir);
    int rc = TD_OK;

    if (folder == NULL)
        return error_set_errno(err, TD_EINVAL, errno, "cannot look into %s", import->dir);
    while (rc == TD_OK && (entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.' && ends_with(entry->d_name, end))
            rc = add_name(import, entry->d_name, err);
    closedir(folder);
    if (import->name_count > 0)
        qsort(import->names, (size_t)import->name_count, sizeof(*import->names), by_name);
    return rc;
}

static int list_files(struct import *import, struct error *err)
{
    const char *given = import->given->dir, *last = strrchr(given, '/');
    struct stat info;
    int rc;

    if (stat(given, &info) != 0)
        return error_set_errno(err, TD_EINVAL, errno, "cannot look into %s", given);
    if (S_ISREG(info.st_mode)) {
        if ((rc = fs_parent(given, import->dir, err)) != TD_OK)
            return rc;
        return add_name(import, last == NULL ? given : last + 1, err);
    }
    if (snprintf(import->dir, sizeof(import->dir), "%s", given) >= (int)sizeof(import->dir))
        return error_set(err, TD_EINVAL, "the path of the data set is too long");
    if ((rc = list_folder(import, ".pt", err)) != TD_OK ||
        (import->name_count == 0 && (rc = list_folder(import, ".safetensors", err)) != TD_OK))
        return rc;
    if (import->name_count == 0)
        return error_set(err, TD_EINVAL, "%s has no chunks of a data set: no *.pt, no *.safetensors", given);
    return TD_OK;
}

static int open_chunk(struct import *import, const char *name, chunk_t **chunk, struct error *err)
{
    char path[FS_PATH_MAX];
    struct chunk_config config = {.path = path, .tasks = import->dataset.tasks};
    int rc = fs_join(path, import->dir, name, err);

    return rc != TD_OK ? rc : chunk_open(chunk, &config, err);
}

static int file_bytes(struct import *import, const char *name, uint64_t *bytes, struct error *err)
{
    char path[FS_PATH_MAX];
    struct stat info;
    int rc = fs_join(path, import->dir, name, err);

    if (rc != TD_OK)
        return rc;
    if (stat(path, &info) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot look at %s", path);
    *bytes = (uint64_t)info.st_size;
    return TD_OK;
}

/* --- the list -------------------------------------------------------------- */

/* Lengths that the reference insists on, unless another was asked for; our own exports have any. */
static int check_length(const struct import *import, const char *name, const struct chunk_shape *shape,
                        struct error *err)
{
    uint32_t want = import->given->episode_rows;

    if (shape->episode_rows == 0 || ends_with(name, ".safetensors"))
        return TD_OK;
    if (want != 0 ? shape->episode_rows == want : shape->episode_rows == 101 || shape->episode_rows == 501)
        return TD_OK;
    return error_set(err, TD_EINVAL, "%s/%s has episodes of %u rows, %s: episode_rows=%u takes them as they are",
                     import->dir, name, shape->episode_rows,
                     want != 0 ? "not those asked for" : "mt80 has 101 and mt30 has 501", shape->episode_rows);
}

/* The first chunk says what the others must be. */
static void take_layout(struct import *import, const struct chunk_shape *shape)
{
    const struct dataset_set *set = dataset_set_like(&shape->schema, shape->episode_rows);

    import->dataset.schema = shape->schema;
    import->dataset.episode_rows = shape->episode_rows;
    if (import->dataset.tasks == 0)
        import->dataset.tasks = set != NULL ? set->tasks : ROW_TASKS_MAX;
}

static int check_layout(const struct import *import, const char *name, const struct chunk_shape *shape,
                        struct error *err)
{
    const struct row_schema *ours = &import->dataset.schema, *its = &shape->schema;

    if (memcmp(ours, its, sizeof(*ours)) != 0)
        return error_set(err, TD_EINVAL, "%s/%s has %u observations and %u actions, the chunks before it %u and %u",
                         import->dir, name, its->obs_dim, its->action_dim, ours->obs_dim, ours->action_dim);
    if (shape->episode_rows != import->dataset.episode_rows && !ends_with(name, ".safetensors"))
        return error_set(err, TD_EINVAL, "%s/%s has episodes of %u rows, the chunks before it of %u", import->dir, name,
                         shape->episode_rows, import->dataset.episode_rows);
    if (shape->longest * row_stride(its) > EPISODE_BYTES_MAX)
        return error_set(err, TD_EINVAL, "%s/%s has an episode of %u rows, too many to be read at once", import->dir,
                         name, shape->longest);
    return TD_OK;
}

static int find_listed(const struct import *import, const char *name)
{
    for (int i = 0; i < import->dataset.count; i++)
        if (strcmp(import->dataset.chunks[i].name, name) == 0)
            return i;
    return -1;
}

/* Know a file: new at the end of the list, or the one that is there. */
static int enlist(struct import *import, int which, const struct chunk_shape *shape, uint64_t bytes, struct error *err)
{
    const char *name = import->names[which];
    struct dataset_chunk *chunk;

    import->places[which] = find_listed(import, name);
    if (import->places[which] >= 0) {
        chunk = &import->dataset.chunks[import->places[which]];
        if (chunk->bytes != bytes || chunk->episodes != shape->episodes || chunk->rows != shape->rows)
            return error_set(err, TD_EINVAL, "%s/%s is not what it was when its import began: import into another folder",
                             import->dir, name);
        return TD_OK;
    }
    if ((chunk = dataset_add(&import->dataset)) == NULL)
        return error_set(err, TD_ENOMEM, "too many chunks for one store");
    memcpy(chunk->name, name, strlen(name) + 1);
    chunk->bytes = bytes;
    chunk->episodes = shape->episodes;
    chunk->rows = shape->rows;
    import->places[which] = import->dataset.count - 1;
    return TD_OK;
}

static int look_at(struct import *import, int which, struct error *err)
{
    const char *name = import->names[which];
    const struct chunk_shape *shape;
    uint64_t bytes = 0;
    chunk_t *chunk = NULL;
    int rc;

    if ((rc = open_chunk(import, name, &chunk, err)) != TD_OK)
        return rc;
    shape = chunk_shape(chunk);
    if (import->dataset.count == 0)
        take_layout(import, shape);
    if ((rc = check_length(import, name, shape, err)) == TD_OK && (rc = check_layout(import, name, shape, err)) == TD_OK &&
        (rc = file_bytes(import, name, &bytes, err)) == TD_OK)
        rc = enlist(import, which, shape, bytes, err);
    import->longest = shape->longest > import->longest ? shape->longest : import->longest;
    import->total += 2 * shape->bytes;
    chunk_close(&chunk);
    return rc;
}

static int find_out(struct import *import, struct error *err)
{
    struct data_report *report = import->report;

    if (import->given->out == NULL)
        return fs_join(report->out, import->dir, "store", err);
    if (snprintf(report->out, sizeof(report->out), "%s", import->given->out) >= (int)sizeof(report->out))
        return error_set(err, TD_EINVAL, "the path of the store is too long");
    return TD_OK;
}

/* What is in the folder, and what was there when an import into this store stopped. */
static int make_list(struct import *import, struct error *err)
{
    int rc = dataset_read(&import->dataset, import->report->out, err);

    if (rc != TD_OK && rc != TD_ENOTFOUND)
        return rc;
    import->fresh = rc == TD_ENOTFOUND;
    if (import->fresh)
        import->dataset.tasks = import->given->tasks;
    if ((import->places = calloc((size_t)import->name_count, sizeof(*import->places))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the list of chunks");
    for (int i = 0; i < import->name_count; i++)
        if ((rc = look_at(import, i, err)) != TD_OK)
            return rc;
    return TD_OK;
}

/* --- the store ------------------------------------------------------------- */

/* Bytes of a stored row, the mean over the set: its tasks have sizes and shares of their own. 0: not known. */
static uint64_t row_bytes_of(const struct dataset_set *set)
{
    struct task_set tasks = {0};
    struct config config;
    uint64_t bytes = 0;

    config_init(&config);
    snprintf(config.task, sizeof(config.task), "%s", set->name);
    if (task_set_init(&tasks, &config, NULL, NULL) == TD_OK)
        for (int i = 0; i < tasks.count; i++)
            bytes += store_row_bytes((uint32_t)tasks.task[i].obs_dim, (uint32_t)tasks.task[i].action_dim) *
                     dataset_set_episodes(set, i);
    task_set_release(&tasks);
    return bytes / set->episodes;
}

/* The map is sparse, and never grows: of a real set it has room for all chunks, though not all are here yet. */
static void size_store(const struct import *import, struct store_config *config)
{
    const struct dataset_set *set = dataset_set_like(&import->dataset.schema, import->dataset.episode_rows);
    uint64_t stride = row_stride(&import->dataset.schema), rows = 0, episodes = 0, room;

    for (int i = 0; i < import->dataset.count; i++) {
        rows += import->dataset.chunks[i].rows;
        episodes += import->dataset.chunks[i].episodes;
    }
    room = 2 * rows;
    if (set != NULL && episodes > set->episodes / 100 && room < set->episodes * set->episode_rows)
        room = set->episodes * set->episode_rows;
    config->rows = rows;
    config->row_bytes = set != NULL ? row_bytes_of(set) : 0;
    config->map_bytes = room * (2 * stride + 256) + 8 * import->longest * stride;
    if (config->map_bytes < MAP_BYTES_MIN)
        config->map_bytes = MAP_BYTES_MIN;
}

static int open_store(struct import *import, struct error *err)
{
    struct store_config config = {.dir = import->report->out, .schema = import->dataset.schema,
                                  .any_shard = true, .lock_wait_ms = 2000, .force = import->given->force};
    int rc;

    config.narrow = config.schema.obs_type == OBS_STATE;
    size_store(import, &config);
    if ((rc = store_open(&import->store, &config, err)) != TD_OK)
        return rc;
    if (import->fresh && store_counts(import->store)->sealed + store_counts(import->store)->rows > 0)
        return error_set(err, TD_EINVAL, "%s is the replay of a run, not an imported data set: choose another folder",
                         import->report->out);
    return dataset_write(&import->dataset, import->report->out, err);
}

static void say(struct import *import, uint64_t within)
{
    if (import->given->progress != NULL)
        replay_progress(import->given->progress, import->done + within, import->total);
}

static void say_verified(void *context, uint64_t done, uint64_t total)
{
    (void)total;
    say(context, done);
}

static int commit(struct import *import, struct error *err)
{
    import->uncommitted = 0;
    return store_commit(import->store, err);
}

static uint32_t flags_of_last(const char *rows, uint32_t count, size_t stride)
{
    struct row_head last;

    memcpy(&last, rows + (count - 1) * stride, sizeof(last));
    if (last.flags & ROW_TERMINATED)
        return EPISODE_TERMINATED;
    return last.flags & ROW_TRUNCATED ? EPISODE_TRUNCATED : EPISODE_ABORTED;
}

/* Episodes first..first+count-1, which lie in import->rows. */
static int insert(struct import *import, const chunk_t *chunk, int place, uint64_t first, uint64_t count,
                  struct error *err)
{
    size_t stride = row_stride(&import->dataset.schema);
    const char *rows = import->rows;
    int rc;

    for (uint64_t i = 0; i < count; i++) {
        uint32_t length = chunk_episode_rows(chunk, first + i);
        struct store_record record = {.slot = (uint32_t)place, .epoch = first + i, .rows = length,
                                      .flags = flags_of_last(rows, length, stride)};

        if ((rc = store_insert(import->store, &record, rows, err)) != TD_OK)
            return rc;
        rows += length * stride;
        import->uncommitted += length * stride;
    }
    if (import->uncommitted >= (import->given->commit_bytes != 0 ? import->given->commit_bytes : COMMIT_BYTES))
        return commit(import, err);
    return TD_OK;
}

/* How many episodes from `first` on are read at once. */
static uint64_t batch_of(const struct import *import, const chunk_t *chunk, uint64_t first)
{
    uint64_t rows = 0, count = 0, left = chunk_shape(chunk)->episodes - first;
    size_t stride = row_stride(&import->dataset.schema);

    while (count < left && (count == 0 || (rows + chunk_episode_rows(chunk, first + count)) * stride <= BATCH_BYTES))
        rows += chunk_episode_rows(chunk, first + count++);
    return count;
}

static int import_episodes(struct import *import, chunk_t *chunk, int place, uint64_t from, struct error *err)
{
    const struct chunk_shape *shape = chunk_shape(chunk);
    int rc;

    for (uint64_t first = from, count; first < shape->episodes; first += count) {
        say(import, shape->bytes + shape->bytes / shape->episodes * first);
        count = batch_of(import, chunk, first);
        if ((rc = chunk_read(chunk, first, count, import->rows, &import->report->beyond, err)) != TD_OK ||
            (rc = insert(import, chunk, place, first, count, err)) != TD_OK)
            return rc;
    }
    return commit(import, err);
}

/* One file: checksums first, so that nothing of a damaged one gets in. */
static int import_file(struct import *import, int which, uint64_t from, struct error *err)
{
    chunk_t *chunk = NULL;
    int rc = open_chunk(import, import->names[which], &chunk, err);

    if (rc != TD_OK)
        return rc;
    if (from < chunk_shape(chunk)->episodes && (rc = chunk_verify(chunk, say_verified, import, err)) == TD_OK)
        rc = import_episodes(import, chunk, import->places[which], from, err);
    import->done += 2 * chunk_shape(chunk)->bytes;
    chunk_close(&chunk);
    return rc;
}

static int find_file(const struct import *import, int place)
{
    for (int i = 0; i < import->name_count; i++)
        if (import->places[i] == place)
            return i;
    return -1;
}

static int import_all(struct import *import, struct error *err)
{
    const struct dataset *dataset = &import->dataset;
    uint64_t stride = row_stride(&dataset->schema), episodes;
    int chunk, rc;

    import->rows_bytes = import->longest * stride > BATCH_BYTES ? import->longest * stride : BATCH_BYTES;
    if ((import->rows = malloc(import->rows_bytes)) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for rows");
    if ((rc = dataset_position(dataset, import->store, &chunk, &episodes, err)) != TD_OK)
        return rc;
    import->report->found = store_committed(import->store);
    for (int place = 0; place < dataset->count; place++) {
        uint64_t from = place < chunk ? dataset->chunks[place].episodes : place == chunk ? episodes : 0;
        int which = find_file(import, place);

        if (which < 0 && from < dataset->chunks[place].episodes)
            return error_set(err, TD_EINVAL, "%s is not in %s any more, and only %" PRIu64 " of its %" PRIu64
                             " episodes were imported", dataset->chunks[place].name, import->dir, from,
                             dataset->chunks[place].episodes);
        if (which >= 0 && (rc = import_file(import, which, from, err)) != TD_OK)
            return rc;
    }
    return TD_OK;
}

int data_import(const struct data_import *given, struct data_report *report, struct error *err)
{
    struct import import = {.given = given, .report = report};
    int rc;

    memset(report, 0, sizeof(*report));
    if ((rc = list_files(&import, err)) == TD_OK && (rc = find_out(&import, err)) == TD_OK &&
        (rc = make_list(&import, err)) == TD_OK && (rc = open_store(&import, err)) == TD_OK &&
        (rc = import_all(&import, err)) == TD_OK)
        rc = dataset_complete(&import.dataset, import.store, report->out, err);
    report->set = dataset_set_like(&import.dataset.schema, import.dataset.episode_rows);
    report->chunks = (uint64_t)import.dataset.count;
    if (import.store != NULL) {
        report->episodes = store_committed(import.store);
        report->rows = store_counts(import.store)->held_rows;
    }
    store_close(&import.store);
    dataset_release(&import.dataset);
    for (int i = 0; i < import.name_count; i++)
        free(import.names[i]);
    free(import.names);
    free(import.places);
    free(import.rows);
    return rc;
}
