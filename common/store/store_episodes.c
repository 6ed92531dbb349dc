/* The index of sealed episodes: rows out, eviction, rewinding. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/store/store_parts.h"

uint32_t episode_segments(const struct store *store, uint32_t rows)
{
    return (uint32_t)(((uint64_t)rows + store->segment_rows - 1) / store->segment_rows);
}

uint64_t episode_bytes(const struct store *store, uint32_t rows)
{
    const struct row_schema *schema = &store->identity.schema;
    uint32_t rest = rows % store->segment_rows;
    uint64_t bytes = (uint64_t)(rows / store->segment_rows) * segment_bytes(schema, store->segment_rows);

    return bytes + (rest != 0 ? segment_bytes(schema, rest) : 0);
}

static bool unfit(const struct store_episode *episode)
{
    return (episode->flags & (EPISODE_DAMAGED | STORE_QUARANTINED)) != 0;
}

/* Count an episode in (+1) or out (-1). */
static void count_episode(struct store *store, const struct store_episode *episode, int sign)
{
    struct store_counts *counts = &store->counts;
    uint64_t bytes = episode_bytes(store, episode->rows);

    counts->held_rows += (uint64_t)sign * episode->rows;
    counts->bytes += (uint64_t)sign * bytes;
    counts->damaged += (uint64_t)(sign * unfit(episode));
}

/* Room for one more; those below counts.first make way when they are half of all. */
static int make_room(struct store *store, uint64_t count)
{
    uint64_t gone = store->counts.first - store->base;
    struct store_episode *grown;
    size_t capacity;

    if (gone > 1024 && gone > count / 2) {
        memmove(store->episodes, store->episodes + gone, (count - gone) * sizeof(*store->episodes));
        store->base += gone;
        count -= gone;
    }
    if (count < store->episode_capacity)
        return TD_OK;
    capacity = store->episode_capacity == 0 ? 1024 : store->episode_capacity * 2;
    if ((grown = realloc(store->episodes, capacity * sizeof(*grown))) == NULL)
        return TD_ENOMEM;
    store->episodes = grown;
    store->episode_capacity = capacity;
    return TD_OK;
}

/* Half a hash; never 0 nor a bit from it. */
static uint32_t record_check(uint64_t id, const struct store_record *record)
{
    return (uint32_t)value_hash(&id, sizeof(id), record, offsetof(struct store_record, check)) | 3u;
}

bool record_holds(uint64_t id, const struct store_record *record)
{
    return record->check == record_check(id, record);
}

/* An episode's first segment says all that its index record does. */
static int record_mend(struct store *store, MDB_txn *txn, uint64_t id, struct store_record *record)
{
    uint64_t name = segment_key(id, 0);
    MDB_val key = {sizeof(name), &name}, value;
    struct segment_head head;
    struct row_head first;
    const void *row;

    if (mdb_get(txn, store->segments, &key, &value) != MDB_SUCCESS ||
        segment_open(&head, value.mv_data, value.mv_size) != TD_OK ||
        !segment_fits(store, &head, id, 0, head.episode_rows) ||
        (row = segment_rows(&head, value.mv_data, 0, 1, store->packer)) == NULL)
        return MDB_CORRUPTED;
    memcpy(&first, row, sizeof(first));
    *record = (struct store_record){.slot = head.slot, .env = head.env, .epoch = head.epoch,
                                    .sequence = head.sequence, .rows = head.episode_rows,
                                    .steps = head.episode_rows - ((first.flags & ROW_FIRST) != 0),
                                    .flags = head.flags};
    return MDB_SUCCESS;
}

int record_take(struct store *store, MDB_txn *txn, uint64_t id, const MDB_val *value,
                struct store_record *record, bool *mended)
{
    int rc = MDB_SUCCESS;
    bool bad;

    if (value->mv_size != sizeof(*record))
        return MDB_CORRUPTED;
    memcpy(record, value->mv_data, sizeof(*record));
    bad = store->version >= 2 && record->check != record_check(id, record);
    if (bad)
        rc = record_mend(store, txn, id, record);
    if (mended != NULL)
        *mended = bad;
    record->check = 0;
    return rc;
}

static struct store_record *room_for_record(struct store *store)
{
    if (store->sealed_count == store->sealed_capacity) {
        size_t capacity = store->sealed_capacity == 0 ? 64 : 2 * store->sealed_capacity;
        struct store_record *grown = realloc(store->sealed, capacity * sizeof(*grown));

        if (grown == NULL)
            return NULL;
        store->sealed = grown;
        store->sealed_capacity = capacity;
    }
    return &store->sealed[store->sealed_count];
}

/* Together, so that their pages lie together: opening reads all of them and nothing in between. */
int episodes_write(struct store *store, struct error *err)
{
    uint64_t first = store->counts.sealed - store->sealed_count;

    for (size_t i = 0; i < store->sealed_count; i++) {
        uint64_t id = first + i;
        MDB_val key = {sizeof(id), &id}, value = {sizeof(*store->sealed), &store->sealed[i]};
        int rc = mdb_put(store->txn, store->episodes_dbi, &key, &value, MDB_APPEND);

        if (rc != MDB_SUCCESS)
            return store_check(store, rc == MDB_KEYEXIST ? MDB_CORRUPTED : rc, "write to", err);
    }
    store->sealed_count = 0;
    return TD_OK;
}

int episodes_push(struct store *store, const struct store_record *record, struct error *err)
{
    uint64_t id = store->counts.sealed;
    struct store_record *full;
    struct store_episode *episode;

    if (make_room(store, id - store->base) != TD_OK || (full = room_for_record(store)) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the index of episodes");
    *full = *record;
    full->check = store->version >= 2 ? record_check(id, full) : 0;
    store->sealed_count++;
    episode = &store->episodes[id - store->base];
    episode->rows = record->rows;
    episode->flags = record->flags;
    count_episode(store, episode, 1);
    store->counts.sealed++;
    store->spent += store->page;
    return TD_OK;
}

/* --- opening --------------------------------------------------------------- */

static int take_episode(struct store *store, MDB_txn *txn, const MDB_val *key, const MDB_val *value,
                        uint64_t *next)
{
    struct store_record record;
    struct store_episode *episode;
    uint64_t id;
    int rc;

    if (key->mv_size != sizeof(id))
        return MDB_CORRUPTED;
    memcpy(&id, key->mv_data, sizeof(id));
    if ((rc = record_take(store, txn, id, value, &record, NULL)) != MDB_SUCCESS)
        return rc;
    if (*next == STORE_NONE) {
        store->base = store->counts.first = id;
        *next = id;
    }
    if (id != *next || id >= store->counts.sealed || record.rows == 0 || record.steps > record.rows ||
        record.rows > episode_rows_max(store) || (record.flags & ~EPISODE_FLAGS_KNOWN))
        return MDB_CORRUPTED;
    if (make_room(store, id - store->base) != TD_OK)
        return ENOMEM;
    episode = &store->episodes[id - store->base];
    episode->rows = record.rows;
    episode->flags = record.flags | STORE_PUBLISHED; /* unless a stream's record says otherwise */
    count_episode(store, episode, 1);
    *next = id + 1;
    return MDB_SUCCESS;
}

/* What was found bad stays known when memory is made anew. */
static void keep_quarantine(struct store *store, const struct store_episode *old, uint64_t base,
                            uint64_t first, uint64_t end)
{
    for (uint64_t id = first; id < end && id < store->counts.sealed; id++)
        if (id >= store->counts.first && (old[id - base].flags & STORE_QUARANTINED)) {
            struct store_episode *episode = &store->episodes[id - store->base];

            count_episode(store, episode, -1);
            episode->flags |= STORE_QUARANTINED;
            count_episode(store, episode, 1);
        }
}

int store_load_episodes(struct store *store, MDB_txn *txn, struct error *err)
{
    struct store_episode *old = store->episodes;
    uint64_t old_base = store->base, old_first = store->counts.first, old_end = store->committed;
    uint64_t next = STORE_NONE;
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc;

    store->episodes = NULL;
    store->episode_capacity = 0;
    store->base = store->counts.first = store->counts.sealed;
    store->counts.held_rows = store->counts.bytes = store->counts.damaged = 0;
    rc = mdb_cursor_open(txn, store->episodes_dbi, &cursor);
    if (rc == MDB_SUCCESS) {
        while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS)
            if ((rc = take_episode(store, txn, &key, &value, &next)) != MDB_SUCCESS)
                break;
        mdb_cursor_close(cursor);
    }
    if (rc == MDB_NOTFOUND)
        rc = next == STORE_NONE || next == store->counts.sealed ? MDB_SUCCESS : MDB_CORRUPTED;
    if (rc == MDB_SUCCESS && old != NULL)
        keep_quarantine(store, old, old_base, old_first, old_end);
    free(old);
    return store_check(store, rc, "read", err);
}

/* Segments are put behind the last: one with too high a number would be in the way of all to come. */
int episodes_check_last(struct store *store, MDB_txn *txn)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t last;
    int rc = mdb_cursor_open(txn, store->segments, &cursor);

    if (rc != MDB_SUCCESS)
        return rc;
    rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
    if (rc == MDB_SUCCESS && key.mv_size != sizeof(last)) {
        rc = MDB_CORRUPTED;
    } else if (rc == MDB_SUCCESS) {
        memcpy(&last, key.mv_data, sizeof(last));
        rc = last < segment_key(store->counts.sealed, 0) ? MDB_SUCCESS : MDB_CORRUPTED;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

/* --- reading --------------------------------------------------------------- */

const struct store_episode *store_episode(const store_t *store, uint64_t id)
{
    TD_ASSERT(id >= store->counts.first && id < store->counts.sealed, "episode %llu of %llu..%llu",
              (unsigned long long)id, (unsigned long long)store->counts.first,
              (unsigned long long)store->counts.sealed);
    return &store->episodes[id - store->base];
}

int store_record(store_t *store, uint64_t id, struct store_record *record, struct error *err)
{
    MDB_val key = {sizeof(id), &id}, value;
    int rc;

    if (id >= store->committed)
        return error_set(err, TD_ENOTFOUND, "episode %llu is not there", (unsigned long long)id);
    if ((rc = store_reader(store, err)) != TD_OK)
        return rc;
    rc = mdb_get(store->reader, store->episodes_dbi, &key, &value);
    if (rc == MDB_NOTFOUND)
        return error_set(err, TD_ENOTFOUND, "episode %llu is not there", (unsigned long long)id);
    if (rc == MDB_SUCCESS)
        rc = record_take(store, store->reader, id, &value, record, NULL);
    return store_check(store, rc, "read", err);
}

const void *store_segment(store_t *store, uint64_t id, uint32_t index, size_t *length)
{
    uint64_t name = segment_key(id, index);
    MDB_val key = {sizeof(name), &name}, value;

    if (id >= store->committed || store_reader(store, NULL) != TD_OK ||
        mdb_get(store->reader, store->segments, &key, &value) != MDB_SUCCESS)
        return NULL;
    *length = value.mv_size;
    return value.mv_data;
}

bool segment_fits(const struct store *store, const struct segment_head *head, uint64_t id,
                  uint32_t index, uint32_t rows)
{
    uint32_t first = index * store->segment_rows;
    uint32_t expected = rows - first < store->segment_rows ? rows - first : store->segment_rows;

    return head->episode == id && head->index == index && head->rows == expected &&
           head->episode_rows == rows && head->store_id == store->identity.store_id &&
           memcmp(&head->schema, &store->identity.schema, sizeof(head->schema)) == 0;
}

static void quarantine(struct store *store, struct store_episode *episode)
{
    store->counts.bad++;
    count_episode(store, episode, -1);
    episode->flags |= STORE_QUARANTINED;
    count_episode(store, episode, 1);
}

const void *store_rows(store_t *store, uint64_t id, uint32_t row, uint32_t *count)
{
    struct store_episode *episode;
    struct segment_head head;
    const void *bytes, *rows = NULL;
    uint32_t index = row / store->segment_rows, inside = row % store->segment_rows;
    size_t length;

    TD_ASSERT(id >= store->counts.first && id < store->committed, "episode %llu of %llu..%llu",
              (unsigned long long)id, (unsigned long long)store->counts.first,
              (unsigned long long)store->committed);
    episode = &store->episodes[id - store->base];
    TD_ASSERT(*count > 0 && row < episode->rows && *count <= episode->rows - row, "rows %u+%u of %u",
              row, *count, episode->rows);
    bytes = store_segment(store, id, index, &length);
    if (bytes != NULL && segment_open(&head, bytes, length) == TD_OK &&
        segment_fits(store, &head, id, index, episode->rows)) {
        if (*count > head.rows - inside)
            *count = head.rows - inside;
        rows = segment_rows(&head, bytes, inside, *count, store->packer);
    }
    if (rows == NULL)
        quarantine(store, episode);
    return rows;
}

/* Tell the kernel of the pages that hold these bytes. */
static void advise(const struct store *store, const char *bytes, size_t length)
{
    uintptr_t from = (uintptr_t)bytes / store->page * store->page;

    (void)madvise((void *)from, (uintptr_t)bytes + length - from, MADV_WILLNEED);
}

/*
 * Of a segment of `rows` rows and `length` bytes, the part with rows at..at+count-1, from its length alone:
 * its head is not read yet. One that is short for its rows is packed: its frames are taken for equally long,
 * give or take one.
 */
static void advise_rows(const struct store *store, const char *bytes, size_t length, uint32_t rows,
                        uint32_t at, uint32_t count)
{
    size_t plain = segment_bytes(&store->identity.schema, rows);
    size_t front = plain - rows * store->stride; /* head and hashes */
    size_t each = store->stride, first, end;

    if (length < plain && length > front) {
        each = (length - front) / rows;
        count += at > 0 ? 2 : 1;
        at -= at > 0;
    }
    first = sizeof(struct segment_head) + at * each;
    end = front + (at + count) * each + rows * sizeof(uint32_t);
    advise(store, bytes, front < length ? front : length);
    if (first < length)
        advise(store, bytes + first, (end < length ? end : length) - first);
}

void store_prefetch(store_t *store, uint64_t id, uint32_t row, uint32_t count)
{
    uint32_t left = store_episode(store, id)->rows - row / store->segment_rows * store->segment_rows;

    for (uint32_t inside, rows; count > 0; row += inside, count -= inside, left -= rows) {
        uint32_t at = row % store->segment_rows;
        size_t length;
        const char *bytes = store_segment(store, id, row / store->segment_rows, &length);

        rows = left < store->segment_rows ? left : store->segment_rows;
        inside = store->segment_rows - at < count ? store->segment_rows - at : count;
        if (bytes != NULL)
            advise_rows(store, bytes, length, rows, at, inside);
    }
}

/* --- going ----------------------------------------------------------------- */

/* Delete the segments and the index record of one episode. */
static int delete_episode(struct store *store, uint64_t id, struct error *err)
{
    uint32_t segments = episode_segments(store, store->episodes[id - store->base].rows);
    MDB_val key = {sizeof(id), &id};
    int rc = MDB_SUCCESS;

    for (uint32_t index = 0; index < segments && rc == MDB_SUCCESS; index++) {
        uint64_t name = segment_key(id, index);
        MDB_val segment = {sizeof(name), &name}, value;

        rc = mdb_get(store->txn, store->segments, &segment, &value);
        if (rc == MDB_SUCCESS && (rc = store_mend_run(store, &value, err)) != TD_OK)
            return rc;
        if (rc == MDB_SUCCESS)
            rc = mdb_del(store->txn, store->segments, &segment, NULL);
        if (rc == MDB_NOTFOUND)
            rc = MDB_SUCCESS; /* a damaged store may lack one */
    }
    if (rc == MDB_SUCCESS)
        rc = mdb_del(store->txn, store->episodes_dbi, &key, NULL);
    store->spent += episode_bytes(store, store->episodes[id - store->base].rows) / 256; /* the free list's */
    return store_check(store, rc, "write to", err);
}

int store_evict(store_t *store, uint64_t before, uint32_t most, struct error *err)
{
    uint64_t end = before < store->committed ? before : store->committed;
    int rc;

    for (; store->counts.first < end && most > 0; most--) {
        if ((rc = store_begin(store, err)) != TD_OK)
            return rc;
        if ((rc = delete_episode(store, store->counts.first, err)) != TD_OK)
            return store_undo(store, rc);
        count_episode(store, &store->episodes[store->counts.first - store->base], -1);
        store->counts.first++;
    }
    return TD_OK;
}

/* What a rewind would take back: rows and steps of the episodes from `sealed` on and of open ones. */
static int rewound_counts(store_t *store, uint64_t sealed, uint64_t *rows, uint64_t *steps,
                          struct error *err)
{
    *rows = *steps = 0;
    for (uint64_t id = sealed; id < store->counts.sealed; id++) {
        struct store_record record;
        int rc = store_record(store, id, &record, err);

        if (rc != TD_OK)
            return rc;
        *rows += record.rows;
        *steps += record.slot == STORE_SLOT_OUTSIDE ? 0 : record.steps;
    }
    for (size_t i = 0; i < store->stream_count; i++) {
        uint64_t open = store->streams[i].stream.open_rows;

        *rows += open;
        *steps += open != 0 ? open - 1 : 0;
    }
    return TD_OK;
}

static int rewind_streams(struct store *store, uint64_t sealed, struct error *err)
{
    for (size_t i = 0; i < store->stream_count; i++) {
        struct stream_entry *entry = &store->streams[i];
        struct store_stream *stream = &entry->stream;
        int rc = stream->open_rows != 0 ? rows_drop_open(store, stream, err) : TD_OK;

        if (rc != TD_OK)
            return rc;
        store->counts.open_rows -= stream->open_rows;
        stream->open_rows = 0;
        if (stream->waiting != STORE_NONE && stream->waiting < sealed)
            rows_publish(store, stream->waiting);
        stream->waiting = STORE_NONE;
        stream->holder = 0;
        entry->dirty = true;
    }
    return TD_OK;
}

static int rewind_episodes(struct store *store, uint64_t sealed, struct error *err)
{
    while (store->counts.sealed > sealed) {
        uint64_t id = store->counts.sealed - 1;
        int rc = delete_episode(store, id, err);

        if (rc != TD_OK)
            return rc;
        count_episode(store, &store->episodes[id - store->base], -1);
        store->counts.sealed--;
    }
    if (store->committed > sealed)
        store->committed = sealed;
    return TD_OK;
}

int store_rewind(store_t *store, uint64_t generation, uint64_t rows, uint64_t sealed,
                 struct error *err)
{
    struct store_counts *counts = &store->counts;
    uint64_t rows_gone, steps_gone;
    int rc;

    if (generation <= counts->generation)
        return TD_OK;
    store_abort(store); /* what is not committed would go anyway */
    if (sealed > counts->sealed || sealed < counts->first)
        return error_set(err, TD_EINVAL,
                         "the replay store keeps episodes %llu to %llu and cannot go back to %llu",
                         (unsigned long long)counts->first, (unsigned long long)counts->sealed,
                         (unsigned long long)sealed);
    if ((rc = rewound_counts(store, sealed, &rows_gone, &steps_gone, err)) != TD_OK)
        return rc;
    if (counts->rows - rows_gone != rows)
        return error_set(err, TD_EINVAL,
                         "the replay store had %llu rows at episode %llu, not %llu: not this run's cut",
                         (unsigned long long)(counts->rows - rows_gone), (unsigned long long)sealed,
                         (unsigned long long)rows);
    if ((rc = store_begin(store, err)) != TD_OK)
        return rc;
    if ((rc = rewind_streams(store, sealed, err)) != TD_OK ||
        (rc = rewind_episodes(store, sealed, err)) != TD_OK)
        return store_undo(store, rc);
    counts->rows -= rows_gone;
    counts->steps -= steps_gone;
    counts->generation = generation;
    store->staged.count = 0;
    store->staged_rebuilt = true;
    return TD_OK;
}
