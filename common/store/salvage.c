/* Saving rows from a data file by the magic of its segments alone. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/verify.h"
#include "common/util/fs.h"

#define COMMIT_BYTES ((uint64_t)16 << 20)

/* Where a segment lies, and what it is a part of. */
struct found {
    size_t offset;
    uint64_t episode, epoch, start; /* start: sequence of the episode's first row */
    uint64_t run_id, store_id;
    struct row_schema schema;
    uint32_t slot, env, index, rows, episode_rows;
    bool packed;
};

struct salvage {
    const char *bytes; /* the whole file, read-only */
    size_t length;
    struct found *found;
    size_t count, capacity;
    struct salvage_report *report;
    verify_progress *progress;
    void *context;
    store_t *out;
    packer_t *packer;
    uint64_t uncommitted;
    char *rows; /* of one episode */
    bool *good; /* which of them */
    size_t rows_capacity, stride;
};

static void say(const struct salvage *salvage, uint64_t done)
{
    if (salvage->progress != NULL)
        salvage->progress(salvage->context, done, 2 * salvage->length);
}

/* --- finding --------------------------------------------------------------- */

static int add_found(struct salvage *salvage, const struct segment_head *head, size_t offset)
{
    struct found *grown;

    if (salvage->count == salvage->capacity) {
        salvage->capacity = salvage->capacity == 0 ? 1024 : salvage->capacity * 2;
        grown = realloc(salvage->found, salvage->capacity * sizeof(*grown));
        if (grown == NULL)
            return TD_ENOMEM;
        salvage->found = grown;
    }
    salvage->found[salvage->count++] = (struct found){
        .offset = offset,
        .episode = head->episode,
        .epoch = head->epoch,
        .start = head->sequence - (uint64_t)head->index * segment_rows_max(&head->schema),
        .run_id = head->run_id,
        .store_id = head->store_id,
        .schema = head->schema,
        .slot = head->slot,
        .env = head->env,
        .index = head->index,
        .rows = head->rows,
        .episode_rows = head->episode_rows,
        .packed = head->packing != SEGMENT_PLAIN,
    };
    return TD_OK;
}

/* Does the head agree with itself and with a file of this length? */
static bool plausible(const struct segment_head *head, size_t length)
{
    uint64_t full = segment_rows_max(&head->schema), first = head->index * full;
    uint64_t left = first < head->episode_rows ? head->episode_rows - first : 0;

    return head->rows == (left < full ? left : full) && head->sequence >= first &&
           first <= length / row_stride(&head->schema);
}

static int find_all(struct salvage *salvage)
{
    size_t at = 0;

    while ((at = segment_find(salvage->bytes, salvage->length, at)) < salvage->length) {
        struct segment_head head;

        if (segment_open(&head, salvage->bytes + at, salvage->length - at) == TD_OK &&
            plausible(&head, salvage->length)) {
            int rc = add_found(salvage, &head, at);

            if (rc != TD_OK)
                return rc;
            at += head.length;
        } else {
            at++;
        }
        say(salvage, at);
    }
    salvage->report->segments = salvage->count;
    return TD_OK;
}

static bool same_table(const struct found *a, const struct found *b)
{
    return a->run_id == b->run_id && a->store_id == b->store_id &&
           memcmp(&a->schema, &b->schema, sizeof(a->schema)) == 0;
}

/* Keep the segments of the table that most belong to (majority vote; ties: the first). */
static void drop_foreign(struct salvage *salvage)
{
    const struct found *leader = &salvage->found[0];
    size_t votes = 0, kept = 0;
    struct found most;

    for (size_t i = 0; i < salvage->count; i++) {
        if (votes == 0)
            leader = &salvage->found[i];
        votes = same_table(leader, &salvage->found[i]) ? votes + 1 : votes - 1;
    }
    most = *leader;
    for (size_t i = 0; i < salvage->count; i++)
        if (same_table(&most, &salvage->found[i]))
            salvage->found[kept++] = salvage->found[i];
    salvage->report->foreign = salvage->count - kept;
    salvage->count = kept;
    salvage->report->schema = most.schema;
    salvage->report->run_id = most.run_id;
}

/* Parts of one episode together, the newest epoch of an id first, in order of their index. */
static int by_episode(const void *x, const void *y)
{
    const struct found *a = x, *b = y;

#define COMPARE(p, q)                                                                              \
    if ((p) != (q))                                                                                \
        return (p) < (q) ? -1 : 1;
    COMPARE(a->episode, b->episode)
    COMPARE(b->epoch, a->epoch)
    COMPARE(a->slot, b->slot)
    COMPARE(a->env, b->env)
    COMPARE(a->start, b->start)
    COMPARE(a->episode_rows, b->episode_rows)
    COMPARE(a->index, b->index)
    COMPARE(a->offset, b->offset)
#undef COMPARE
    return 0;
}

static bool same_episode(const struct found *a, const struct found *b)
{
    return a->episode == b->episode && a->epoch == b->epoch && a->slot == b->slot && a->env == b->env &&
           a->start == b->start && a->episode_rows == b->episode_rows;
}

/* --- saving ---------------------------------------------------------------- */

/* Copy the rows of one found segment whose blocks are whole. */
static void take_rows(struct salvage *salvage, const struct found *found)
{
    uint32_t block = segment_block_rows(&found->schema);
    uint64_t first = (uint64_t)found->index * segment_rows_max(&found->schema);
    const char *bytes = salvage->bytes + found->offset;
    struct segment_head head;

    if (segment_open(&head, bytes, salvage->length - found->offset) != TD_OK)
        return;
    for (uint32_t row = 0; row < found->rows; row += block) {
        uint32_t count = found->rows - row < block ? found->rows - row : block;
        const void *rows;

        if (salvage->good[first + row])
            continue; /* another copy had it */
        if ((rows = segment_rows(&head, bytes, row, count, salvage->packer)) == NULL) {
            salvage->report->bad_blocks++;
            continue;
        }
        memcpy(salvage->rows + (first + row) * salvage->stride, rows, count * salvage->stride);
        memset(salvage->good + first + row, true, count);
    }
}

static int insert_run(struct salvage *salvage, const struct found *found, uint64_t first, uint64_t end,
                      struct error *err)
{
    const char *rows = salvage->rows + first * salvage->stride;
    struct store_record record = {.slot = found->slot, .env = found->env, .epoch = found->epoch,
                                  .sequence = found->start + first, .rows = (uint32_t)(end - first)};
    struct row_head last;
    int rc;

    memcpy(&last, rows + (end - first - 1) * salvage->stride, sizeof(last));
    record.flags = (last.flags & ROW_TERMINATED ? EPISODE_TERMINATED : 0u) |
                   (last.flags & ROW_TRUNCATED ? EPISODE_TRUNCATED : 0u);
    if (end != found->episode_rows || !(last.flags & ROW_ENDS))
        record.flags |= EPISODE_ABORTED;
    if ((rc = store_insert(salvage->out, &record, rows, err)) != TD_OK)
        return rc;
    salvage->report->episodes++;
    salvage->report->whole += first == 0 && end == found->episode_rows;
    salvage->report->rows += end - first;
    salvage->uncommitted += (end - first) * salvage->stride;
    if (salvage->uncommitted < COMMIT_BYTES)
        return TD_OK;
    salvage->uncommitted = 0;
    return store_commit(salvage->out, err);
}

static int make_room(struct salvage *salvage, uint64_t rows, struct error *err)
{
    char *grown_rows;
    bool *grown_good;

    if (rows > salvage->rows_capacity) {
        grown_rows = realloc(salvage->rows, rows * salvage->stride);
        if (grown_rows != NULL)
            salvage->rows = grown_rows;
        grown_good = realloc(salvage->good, rows);
        if (grown_good != NULL)
            salvage->good = grown_good;
        if (grown_rows == NULL || grown_good == NULL)
            return error_set(err, TD_ENOMEM, "out of memory for an episode of %llu rows",
                             (unsigned long long)rows);
        salvage->rows_capacity = rows;
    }
    memset(salvage->good, false, rows);
    return TD_OK;
}

/* One episode from its found parts: every maximal run of good rows becomes an episode. */
static int save_episode(struct salvage *salvage, const struct found *parts, size_t count,
                        struct error *err)
{
    uint64_t rows = 0, end;
    int rc;

    for (size_t i = 0; i < count; i++) {
        uint64_t reach = (uint64_t)parts[i].index * segment_rows_max(&parts[i].schema) + parts[i].rows;

        rows = reach > rows ? reach : rows;
    }
    if ((rc = make_room(salvage, rows, err)) != TD_OK)
        return rc;
    for (size_t i = 0; i < count; i++)
        take_rows(salvage, &parts[i]);
    for (uint64_t first = 0; first < rows; first = end) {
        for (end = first; end < rows && salvage->good[end]; end++)
            ;
        if (end > first && (rc = insert_run(salvage, &parts[0], first, end, err)) != TD_OK)
            return rc;
        if (end == first)
            end++;
    }
    return TD_OK;
}

static int save_all(struct salvage *salvage, const char *out, bool force, struct error *err)
{
    struct store_config config = {.dir = out, .schema = salvage->report->schema,
                                  .run_id = salvage->report->run_id, .force = force};
    uint64_t last_id = STORE_NONE;
    int rc;

    for (size_t i = 0; i < salvage->count; i++) /* what is saved is stored as it was */
        config.compress_frames |= salvage->found[i].packed;
    salvage->stride = row_stride(&config.schema);
    config.rows = 2 * salvage->length / salvage->stride + 1000;
    if ((rc = store_open(&salvage->out, &config, err)) != TD_OK)
        return rc;
    if (!store_identity(salvage->out)->created)
        return error_set(err, TD_EINVAL, "%s holds a store already: name a new folder", out);
    for (size_t i = 0, next; i < salvage->count; i = next) {
        for (next = i + 1; next < salvage->count &&
                           same_episode(&salvage->found[i], &salvage->found[next]); next++)
            ;
        /* of several that had this number the one of the newest epoch is the last that was told */
        if (salvage->found[i].episode != last_id &&
            (rc = save_episode(salvage, &salvage->found[i], next - i, err)) != TD_OK)
            return rc;
        last_id = salvage->found[i].episode;
        say(salvage, salvage->length + salvage->length / salvage->count * next);
    }
    return store_commit(salvage->out, err);
}

/* --- the file -------------------------------------------------------------- */

static int map_file(struct salvage *salvage, const char *dir, struct error *err)
{
    char path[FS_PATH_MAX];
    struct stat file;
    void *bytes;
    int fd, rc;

    if ((rc = fs_join(path, dir, "data.mdb", err)) != TD_OK)
        return rc;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &file) != 0) {
        rc = error_set_errno(err, errno == ENOENT ? TD_ENOTFOUND : TD_EIO, errno, "cannot open %s", path);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    if (file.st_size == 0) {
        close(fd);
        return error_set(err, TD_ENOTFOUND, "%s is empty", path);
    }
    bytes = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED)
        return error_set_errno(err, TD_EIO, errno, "cannot map %s", path);
    salvage->bytes = bytes;
    salvage->length = (size_t)file.st_size;
    return TD_OK;
}

int store_salvage(const char *dir, const char *out, bool force, uint64_t lock_wait_ms,
                  struct salvage_report *report, verify_progress *progress, void *context,
                  struct error *err)
{
    struct salvage salvage = {.report = report, .progress = progress, .context = context};
    char lock[FS_PATH_MAX];
    int fd = -1, rc;

    memset(report, 0, sizeof(*report));
    if ((rc = map_file(&salvage, dir, err)) != TD_OK || (rc = fs_join(lock, dir, "lock", err)) != TD_OK ||
        (rc = fs_lock(&fd, lock, lock_wait_ms, err)) != TD_OK)
        goto done;
    if ((rc = find_all(&salvage)) != TD_OK)
        rc = error_set(err, rc, "out of memory for the list of segments");
    else if (salvage.count == 0)
        rc = error_set(err, TD_ENOTFOUND, "no segment in %s can be read", dir);
    if (rc != TD_OK)
        goto done;
    if ((rc = packer_create(&salvage.packer)) != TD_OK) {
        error_set(err, rc, "out of memory");
        goto done;
    }
    drop_foreign(&salvage);
    qsort(salvage.found, salvage.count, sizeof(*salvage.found), by_episode);
    rc = save_all(&salvage, out, force, err);

done:
    store_close(&salvage.out);
    if (fd >= 0)
        fs_unlock(&fd);
    if (salvage.bytes != NULL)
        munmap((void *)(uintptr_t)salvage.bytes, salvage.length);
    packer_destroy(&salvage.packer);
    free(salvage.found);
    free(salvage.rows);
    free(salvage.good);
    return rc;
}
