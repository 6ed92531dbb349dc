/* Saving rows from a data file by the magic of its segments alone. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/salvage.h"
#include "common/util/fs.h"

#define COMMIT_BYTES ((uint64_t)16 << 20)

/* Where a segment lies, and what it is a part of. */
struct found {
    size_t offset;
    uint64_t episode, epoch, start; /* start: sequence of the episode's first row */
    uint64_t run_id, store_id;
    struct row_schema schema;
    uint32_t slot, env, index, rows, episode_rows, flags;
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
    bool live;  /* only what the index keeps */
    struct wreck wreck;
    store_t *out;
    uint64_t saved; /* rows of the episode at hand */
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
        .flags = head->flags,
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

/*
 * Behind a head that was found: where all its blocks hold nothing else can lie in it, whatever its rows look like. Of
 * one that was let go only the first pages may be left, and live segments in the rest.
 */
static size_t behind(const struct salvage *salvage, const struct segment_head *head, size_t at)
{
    uint32_t block = segment_block_rows(&head->schema);

    for (uint32_t row = 0; row < head->rows; row += block)
        if (segment_rows(head, salvage->bytes + at, row, head->rows - row < block ? head->rows - row : block,
                         salvage->packer) == NULL)
            return at + sizeof(*head);
    return at + head->length;
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
            at = behind(salvage, &head, at);
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

/* The table that most belong to (majority vote; ties: the first). */
static struct found most_common(const struct salvage *salvage)
{
    const struct found *leader = &salvage->found[0];
    size_t votes = 0;

    for (size_t i = 0; i < salvage->count; i++) {
        if (votes == 0)
            leader = &salvage->found[i];
        votes = same_table(leader, &salvage->found[i]) ? votes + 1 : votes - 1;
    }
    return *leader;
}

/* Keep the segments of one table: the manifest's where it is known. */
static void drop_foreign(struct salvage *salvage)
{
    const struct manifest_value *manifest = &salvage->wreck.manifest;
    struct found ours = {.run_id = manifest->run_id, .store_id = manifest->store_id, .schema = manifest->schema};
    size_t kept = 0;

    if (!salvage->wreck.has_manifest)
        ours = most_common(salvage);
    for (size_t i = 0; i < salvage->count; i++)
        if (same_table(&ours, &salvage->found[i]))
            salvage->found[kept++] = salvage->found[i];
    salvage->report->foreign = salvage->count - kept;
    salvage->count = kept;
    salvage->report->schema = ours.schema;
    salvage->report->run_id = ours.run_id;
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
    salvage->saved += end - first;
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

/* Every maximal run of good rows becomes an episode. */
static int save_runs(struct salvage *salvage, const struct found *name, uint64_t rows, struct error *err)
{
    uint64_t end;
    int rc;

    salvage->saved = 0;
    for (uint64_t first = 0; first < rows; first = end) {
        for (end = first; end < rows && salvage->good[end]; end++)
            ;
        if (end > first && (rc = insert_run(salvage, name, first, end, err)) != TD_OK)
            return rc;
        if (end == first)
            end++;
    }
    return TD_OK;
}

/* One episode from its found parts. */
static int save_episode(struct salvage *salvage, const struct found *parts, size_t count,
                        struct error *err)
{
    uint64_t rows = 0;
    int rc;

    for (size_t i = 0; i < count; i++) {
        uint64_t reach = (uint64_t)parts[i].index * segment_rows_max(&parts[i].schema) + parts[i].rows;

        rows = reach > rows ? reach : rows;
    }
    if ((rc = make_room(salvage, rows, err)) != TD_OK)
        return rc;
    for (size_t i = 0; i < count; i++)
        if (!(parts[i].flags & EPISODE_DAMAGED))
            take_rows(salvage, &parts[i]);
    return save_runs(salvage, &parts[0], rows, err);
}

/* --- what is lost ----------------------------------------------------------- */

static void lose(struct salvage *salvage, uint32_t slot, uint32_t env, uint64_t rows, uint64_t saved)
{
    struct salvage_report *report = salvage->report;
    struct salvage_loss *loss = report->losses, *end = loss + report->loss_count;

    if (saved >= rows)
        return;
    report->lost_rows += rows - saved;
    report->lost_episodes++;
    while (loss < end && (loss->slot != slot || loss->env != env))
        loss++;
    if (loss == report->losses + SALVAGE_STREAMS) {
        report->more_losses = true;
        return;
    }
    if (loss == end) {
        report->loss_count++;
        *loss = (struct salvage_loss){.slot = slot, .env = env};
    }
    loss->rows += rows - saved;
    loss->episodes++;
}

/* --- episodes by their numbers ---------------------------------------------- */

/* Is it what the index says of its number? */
static bool is_recorded(const struct found *found, const struct store_record *record)
{
    return found->slot == record->slot && found->env == record->env && found->epoch == record->epoch &&
           found->start == record->sequence && found->episode_rows == record->rows;
}

/* Numbers that the index has or had; the whole of it when nothing is known. */
static bool is_live(const struct salvage *salvage, uint64_t id)
{
    const struct wreck *wreck = &salvage->wreck;
    uint64_t first = wreck->record_count > 0 ? wreck->records[0].id : 0;
    uint64_t kept = wreck->episodes;

    if (!salvage->live || wreck_record(wreck, id) != NULL) /* the counts found may be of an earlier state */
        return true;
    if (wreck->has_counts && id >= wreck->counts.sealed)
        return false; /* of a transaction that never was, or taken back */
    if (wreck->has_counts && kept != 0 && kept <= wreck->counts.sealed && wreck->counts.sealed - kept < first)
        first = wreck->counts.sealed - kept;
    return id >= first || (wreck->record_count == 0 && kept == 0);
}

/* Of all that had this number: what the index says, else the newest epoch's. NULL: none. */
static const struct found *choose(const struct salvage *salvage, const struct found *same, size_t count)
{
    const struct store_record *record = wreck_record(&salvage->wreck, same->episode);

    if (!is_live(salvage, same->episode))
        return NULL;
    for (size_t i = 0; record != NULL && i < count; i++)
        if (is_recorded(&same[i], record))
            return &same[i];
    return record == NULL || !salvage->live ? same : NULL;
}

/* All parts with one number. */
static int save_number(struct salvage *salvage, const struct found *same, size_t count, struct error *err)
{
    const struct found *chosen = choose(salvage, same, count);
    const struct store_record *record = wreck_record(&salvage->wreck, same->episode);
    size_t parts = 0;
    int rc;

    if (chosen == NULL || (record != NULL && (record->flags & EPISODE_DAMAGED)))
        return TD_OK;
    while (chosen + parts < same + count && same_episode(chosen, chosen + parts))
        parts++;
    if ((rc = save_episode(salvage, chosen, parts, err)) == TD_OK)
        lose(salvage, chosen->slot, chosen->env, chosen->episode_rows, salvage->saved);
    return rc;
}

/* Is there a part of it? Parts are in order of their numbers. */
static bool has_parts(const struct salvage *salvage, uint64_t id)
{
    size_t low = 0, high = salvage->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (salvage->found[middle].episode < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < salvage->count && salvage->found[low].episode == id;
}

/* Episodes that nothing was found of: those of the index by name, others by their missing numbers. */
static void count_missing(struct salvage *salvage)
{
    const struct wreck *wreck = &salvage->wreck;
    uint64_t kept = wreck->episodes, sealed = wreck->counts.sealed;

    salvage->report->uncertain = !wreck->complete;
    for (size_t i = 0; i < wreck->record_count; i++) {
        const struct wreck_record *found = &wreck->records[i];

        if (!has_parts(salvage, found->id) && !(found->record.flags & EPISODE_DAMAGED))
            lose(salvage, found->record.slot, found->record.env, found->record.rows, 0);
    }
    for (size_t i = 0; i < wreck->append_count; i++) {
        const struct wreck_append *append = &wreck->appends[i];

        if (append->live && wreck_stream(wreck, append->slot, append->env) == NULL)
            lose(salvage, append->slot, append->env, append->rows, 0);
    }
    if (!wreck->has_counts || kept > sealed)
        return;
    for (uint64_t id = sealed - kept; id < sealed; id++)
        salvage->report->unknown_episodes += wreck_record(wreck, id) == NULL && !has_parts(salvage, id);
}

/* --- rows under way --------------------------------------------------------- */

/* Where the stream's last episode that was found ends: rows under way begin there. Its epoch, if it has none. */
static uint64_t sealed_end(const struct salvage *salvage, const struct wreck_stream *stream, uint64_t *epoch)
{
    uint64_t end = 0;

    for (size_t i = 0; i < salvage->count; i++) {
        const struct found *found = &salvage->found[i];

        if (found->slot != stream->slot || found->env != stream->env || !is_live(salvage, found->episode))
            continue;
        if (stream->epoch == 0 && found->epoch > *epoch) {
            *epoch = found->epoch;
            end = 0;
        }
        if (found->epoch == *epoch && found->start + found->episode_rows > end)
            end = found->start + found->episode_rows;
    }
    return end;
}

/*
 * The range that the stream's record names; and since that may be of an earlier state, the appends that the tree
 * has where the last episode ends.
 */
static void open_range(const struct salvage *salvage, const struct wreck_stream *stream, struct found *name,
                       uint64_t *end)
{
    const struct wreck *wreck = &salvage->wreck;
    uint64_t least = sealed_end(salvage, stream, &name->epoch), chain = least;

    for (size_t i = 0; i < wreck->append_count; i++) /* in order */
        if (wreck->appends[i].live && wreck->appends[i].slot == stream->slot &&
            wreck->appends[i].env == stream->env && wreck->appends[i].sequence == chain)
            chain += wreck->appends[i].rows;
    name->start = stream->next - (stream->open_rows < stream->next ? stream->open_rows : stream->next);
    *end = stream->next;
    if (name->start < least || chain > least)
        name->start = least;
    if (*end < chain)
        *end = chain;
}

static int save_open(struct salvage *salvage, const struct wreck_stream *stream, struct error *err)
{
    const struct wreck *wreck = &salvage->wreck;
    struct found name = {.slot = stream->slot, .env = stream->env, .epoch = stream->epoch};
    uint64_t end;
    int rc;

    open_range(salvage, stream, &name, &end);
    name.epoch += name.epoch == 0;
    if (end <= name.start || end - name.start > 2 * salvage->length / salvage->stride) /* nonsense takes no memory */
        return TD_OK;
    name.episode_rows = (uint32_t)(end - name.start);
    if ((rc = make_room(salvage, name.episode_rows, err)) != TD_OK)
        return rc;
    for (size_t i = 0; i < wreck->append_count; i++) {
        const struct wreck_append *append = &wreck->appends[i];

        if (append->slot != stream->slot || append->env != stream->env || append->sequence < name.start ||
            append->sequence > end || append->rows > end - append->sequence)
            continue;
        memcpy(salvage->rows + (append->sequence - name.start) * salvage->stride,
               salvage->bytes + append->offset, append->rows * salvage->stride);
        memset(salvage->good + (append->sequence - name.start), true, append->rows);
    }
    if ((rc = save_runs(salvage, &name, name.episode_rows, err)) != TD_OK)
        return rc;
    salvage->report->open_rows += salvage->saved;
    lose(salvage, stream->slot, stream->env, name.episode_rows, salvage->saved);
    return TD_OK;
}

/* --- what goes on ----------------------------------------------------------- */

/* Epochs and the learner's go on above what was known. */
static int inherit(struct salvage *salvage, struct error *err)
{
    struct store *out = salvage->out;
    const struct wreck *wreck = &salvage->wreck;
    int rc = store_begin(out, err);

    for (size_t i = 0; i < wreck->stream_count && rc == TD_OK; i++)
        rc = streams_inherit(out, wreck->streams[i].slot, wreck->streams[i].env, wreck->streams[i].epoch);
    for (size_t i = 0; i < salvage->count && rc == TD_OK; i++) /* of one whose record is gone */
        rc = streams_inherit(out, salvage->found[i].slot, salvage->found[i].env, salvage->found[i].epoch);
    if (rc == TD_ENOMEM)
        return store_undo(out, error_set(err, rc, "out of memory for the streams of a replay store"));
    if (rc != TD_OK)
        return rc;
    if (!wreck->has_counts)
        return TD_OK;
    out->counts.aborted = wreck->counts.aborted;
    out->counts.generation = wreck->counts.generation;
    out->counts.learner_epoch = wreck->counts.learner_epoch;
    if (wreck->counts.slots != 0 && (!out->counts.has_slot || out->counts.slot < wreck->counts.slots - 1)) {
        out->counts.has_slot = true;
        out->counts.slot = wreck->counts.slots - 1;
    }
    return TD_OK;
}

/* --- all of it -------------------------------------------------------------- */

/* Bytes that the new file may need: what will be copied, and a little. */
static uint64_t bytes_needed(const struct salvage *salvage)
{
    uint64_t bytes = (uint64_t)4 << 20;

    for (size_t i = 0; i < salvage->count; i++)
        bytes += segment_bytes(&salvage->found[i].schema, salvage->found[i].rows) + 4096;
    for (size_t i = 0; i < salvage->wreck.append_count; i++)
        bytes += salvage->wreck.appends[i].rows * salvage->stride;
    return bytes;
}

/* The new store: as large as the old one, and large enough. */
static int make_out(struct salvage *salvage, struct store_config *config, struct error *err)
{
    const struct wreck *wreck = &salvage->wreck;
    uint64_t least = 2 * bytes_needed(salvage);

    config->schema = salvage->report->schema;
    config->run_id = salvage->report->run_id;
    config->shard = wreck->has_manifest ? wreck->manifest.shard : config->shard;
    for (size_t i = 0; i < salvage->count; i++) /* what is saved is stored as it was */
        config->compress_frames = config->narrow |= salvage->found[i].packed;
    config->map_bytes = wreck->map_bytes > least ? wreck->map_bytes : least;
    return store_open(&salvage->out, config, err);
}

static int check_room(const struct salvage *salvage, const char *dir, const char *out, struct error *err)
{
    uint64_t most = salvage->length + ((uint64_t)4 << 20), needed = bytes_needed(salvage), free_bytes;
    int rc = fs_free_bytes(out, &free_bytes, err);

    needed = needed < most ? needed : most;
    if (rc != TD_OK || free_bytes >= needed)
        return rc;
    return error_set(err, TD_EFULL,
                     "%s/data.mdb is damaged; what is whole of it needs %.3g GB beside it and %.3g GB are free: "
                     "make room, or move that file away to begin anew", dir, (double)needed * 1e-9,
                     (double)free_bytes * 1e-9);
}

/* Rows and steps were counted under the old id: a run that goes on with the new store does not owe them twice. */
static int save_all(struct salvage *salvage, struct error *err)
{
    int rc = TD_OK;

    for (size_t i = 0, next; i < salvage->count && rc == TD_OK; i = next) {
        for (next = i + 1; next < salvage->count && salvage->found[i].episode == salvage->found[next].episode; next++)
            ;
        rc = save_number(salvage, &salvage->found[i], next - i, err);
        say(salvage, salvage->length + salvage->length / salvage->count * next);
    }
    for (size_t i = 0; i < salvage->wreck.stream_count && rc == TD_OK; i++)
        rc = save_open(salvage, &salvage->wreck.streams[i], err);
    count_missing(salvage);
    if (rc == TD_OK && salvage->live)
        rc = inherit(salvage, err);
    salvage->out->counts.rows = salvage->out->counts.steps = 0;
    return rc != TD_OK ? rc : store_commit(salvage->out, err);
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
    if (stat(path, &file) != 0 || !S_ISREG(file.st_mode) || file.st_size == 0)
        return store_absent(dir, err);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &file) != 0) {
        rc = error_set_errno(err, errno == EACCES ? TD_EINVAL : TD_EIO, errno, "cannot open %s", path);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    if (file.st_size == 0) { /* cut short since */
        close(fd);
        return store_absent(dir, err);
    }
    bytes = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED)
        return error_set_errno(err, TD_EIO, errno, "cannot map %s", path);
    salvage->bytes = bytes;
    salvage->length = (size_t)file.st_size;
    return TD_OK;
}

/* Find what there is, and whose. */
static int find_rows(struct salvage *salvage, const char *dir, struct error *err)
{
    char path[FS_PATH_MAX];
    int rc;

    if ((rc = map_file(salvage, dir, err)) != TD_OK || (rc = fs_join(path, dir, "data.mdb", err)) != TD_OK)
        return rc;
    if ((rc = find_all(salvage)) != TD_OK)
        return error_set(err, rc, "out of memory for the list of segments");
    if ((rc = wreck_read(&salvage->wreck, path, salvage->bytes, salvage->length, err)) != TD_OK)
        return rc;
    if (salvage->count == 0 && !(salvage->wreck.has_manifest && (salvage->live || salvage->wreck.append_count > 0)))
        return error_set(err, TD_ENOTFOUND, "no segment in %s can be read", dir);
    drop_foreign(salvage);
    salvage->stride = row_stride(&salvage->report->schema);
    if (salvage->count > 0)
        qsort(salvage->found, salvage->count, sizeof(*salvage->found), by_episode);
    return TD_OK;
}

int salvage_into(const char *dir, struct store_config *config, bool live, struct salvage_report *report,
                 uint64_t *store_id, struct error *err)
{
    struct salvage salvage = {.report = report, .progress = config->progress, .context = config->context,
                              .live = live};
    int rc;

    memset(report, 0, sizeof(*report));
    if ((rc = packer_create(&salvage.packer)) != TD_OK) {
        error_set(err, rc, "out of memory");
        goto done;
    }
    if ((rc = find_rows(&salvage, dir, err)) != TD_OK)
        goto done;
    if ((rc = make_out(&salvage, config, err)) != TD_OK)
        goto done;
    if (!store_identity(salvage.out)->created)
        rc = error_set(err, TD_EINVAL, "%s holds a store already: name a new folder", config->dir);
    else if (live)
        rc = check_room(&salvage, dir, config->dir, err);
    if (rc == TD_OK)
        rc = save_all(&salvage, err);
    if (rc == TD_OK && store_id != NULL)
        *store_id = store_identity(salvage.out)->store_id;

done:
    store_close(&salvage.out);
    if (salvage.bytes != NULL)
        munmap((void *)(uintptr_t)salvage.bytes, salvage.length);
    packer_destroy(&salvage.packer);
    wreck_release(&salvage.wreck);
    free(salvage.found);
    free(salvage.rows);
    free(salvage.good);
    return rc;
}

/* Neither the damaged store's own folder, nor one of something else. */
static int check_empty(const char *out, struct error *err)
{
    DIR *folder = opendir(out);
    struct dirent *entry = NULL;

    if (folder == NULL)
        return errno == ENOENT ? TD_OK : error_set_errno(err, TD_EINVAL, errno, "%s cannot be the new folder", out);
    while ((entry = readdir(folder)) != NULL && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0))
        ;
    closedir(folder);
    return entry == NULL ? TD_OK : error_set(err, TD_EINVAL, "%s is not empty: name a new folder", out);
}

int store_salvage(const char *dir, const char *out, bool force, uint64_t lock_wait_ms,
                  struct salvage_report *report, verify_progress *progress, void *context,
                  struct error *err)
{
    struct store_config config = {.dir = out, .force = force, .progress = progress, .context = context};
    char path[FS_PATH_MAX];
    struct stat file;
    int fd = -1, rc;

    memset(report, 0, sizeof(*report));
    if ((rc = fs_join(path, dir, "data.mdb", err)) != TD_OK)
        return rc;
    if (stat(path, &file) != 0 || !S_ISREG(file.st_mode) || file.st_size == 0) /* no lock is left where there is nothing */
        return store_absent(dir, err);
    if ((rc = check_empty(out, err)) != TD_OK || (rc = fs_join(path, dir, "lock", err)) != TD_OK ||
        (rc = fs_lock(&fd, path, lock_wait_ms, err)) != TD_OK)
        return rc;
    rc = salvage_into(dir, &config, false, report, NULL, err);
    fs_unlock(&fd);
    return rc;
}
