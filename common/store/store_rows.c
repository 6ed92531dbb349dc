/* Rows in: small appends while an episode is open, segments when it ends. */
#include <endian.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "common/store/store_parts.h"

#define EPISODE_SEGMENTS_MAX 65535u

int id_list_push(struct id_list *list, uint64_t id)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        uint64_t *grown = realloc(list->ids, capacity * sizeof(*grown));

        if (grown == NULL)
            return TD_ENOMEM;
        list->ids = grown;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return TD_OK;
}

void rows_publish(struct store *store, uint64_t id)
{
    if (id < store->counts.first)
        return; /* evicted meanwhile */
    store->episodes[id - store->base].flags |= STORE_PUBLISHED;
    if (id_list_push(&store->staged, id) != TD_OK)
        store->staged_rebuilt = true; /* no memory for the list: it will be read anew */
}

static struct open_key open_key(const struct store_stream *stream, uint64_t sequence)
{
    return (struct open_key){htobe32(stream->slot), htobe32(stream->env), htobe64(sequence)};
}

static uint32_t flags_of(const void *row)
{
    struct row_head head;

    memcpy(&head, row, sizeof(head));
    return head.flags;
}

static uint32_t task_of(const void *row)
{
    struct row_head head;

    memcpy(&head, row, sizeof(head));
    return head.task;
}

/* --- appending ------------------------------------------------------------- */

static uint64_t append_hash(uint32_t version, const struct open_key *name, const void *value, size_t size)
{
    size_t front = version >= 3 ? offsetof(struct open_value, rows) : sizeof(struct open_value);
    const char *bytes = (const char *)value + front;

    return version >= 3 ? value_hash(name, sizeof(*name), bytes, size - front) : XXH3_64bits(bytes, size - front);
}

/* Of how many rows, by its head and its size? 0: it makes no sense. */
static uint32_t append_rows(size_t stride, const void *value, size_t size, struct open_value *head)
{
    if (size < sizeof(*head))
        return 0;
    memcpy(head, value, sizeof(*head));
    return size == sizeof(*head) + head->rows * (uint64_t)stride ? head->rows : 0;
}

bool append_holds(uint32_t version, size_t stride, const struct open_key *name, const void *value, size_t size,
                  struct open_value *head)
{
    return append_rows(stride, value, size, head) != 0 && append_hash(version, name, value, size) == head->hash;
}

static int append_open(struct store *store, struct store_stream *stream, const void *rows,
                       uint32_t count, struct error *err)
{
    struct open_key name = open_key(stream, stream->next);
    size_t length = count * store->stride;
    struct open_value head = {.rows = count, .epoch = store->version >= 3 ? (uint32_t)stream->epoch : 0};
    MDB_val key = {sizeof(name), &name}, value = {sizeof(head) + length, NULL};
    int rc = mdb_put(store->txn, store->open, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE);

    if (rc == MDB_KEYEXIST)
        rc = MDB_CORRUPTED;
    if (rc != MDB_SUCCESS)
        return store_check(store, rc, "write to", err);
    memcpy(value.mv_data, &head, sizeof(head));
    memcpy((char *)value.mv_data + sizeof(head), rows, length);
    head.hash = append_hash(store->version, &name, value.mv_data, value.mv_size);
    memcpy(value.mv_data, &head.hash, sizeof(head.hash));
    stream->open_rows += count;
    store->counts.open_rows += count;
    store->spent += value.mv_size + 2 * store->page;
    return TD_OK;
}

/* --- sealing --------------------------------------------------------------- */

/* The rows of an episode in order: its appends, then the rows just arrived. */
struct gather {
    struct store *store;
    MDB_cursor *cursor;
    struct open_key prefix; /* the stream's */
    uint32_t epoch;
    uint64_t sequence;      /* of the next row */
    uint64_t open_left;     /* rows still among the appends */
    const char *rows;       /* what is at hand; NULL: zeros */
    uint32_t count;
    uint32_t taken; /* rows taken from the append under the cursor */
    bool appended;  /* `rows` lie in it */
    const void *tail;
    uint32_t tail_count;
    bool damaged;
};

/* Take the append at hand, or find that it is damaged. */
static void gather_open(struct gather *gather, const MDB_val *key, const MDB_val *value)
{
    struct open_key name;
    struct open_value head;
    const struct store *store = gather->store;

    if (key->mv_size != sizeof(name) || append_rows(store->stride, value->mv_data, value->mv_size, &head) == 0)
        return;
    memcpy(&name, key->mv_data, sizeof(name));
    if (name.slot != gather->prefix.slot || name.env != gather->prefix.env ||
        be64toh(name.sequence) != gather->sequence || head.rows > gather->open_left)
        return;
    gather->rows = (const char *)value->mv_data + sizeof(head);
    gather->count = head.rows;
    gather->taken = 0;
    gather->appended = true;
    gather->open_left -= head.rows;
    if (append_hash(store->version, &name, value->mv_data, value->mv_size) != head.hash ||
        (store->version >= 3 && head.epoch != gather->epoch))
        gather->damaged = true;
}

/* Appends that are missing or make no sense leave rows of zeros, and a mark. */
static void gather_nothing(struct gather *gather)
{
    gather->damaged = true;
    gather->rows = NULL;
    gather->count = (uint32_t)gather->open_left;
    gather->open_left = 0;
}

/* Have rows at hand. */
static int gather_next(struct gather *gather)
{
    MDB_val key, value;
    int rc;

    gather->appended = false;
    if (gather->open_left == 0) {
        gather->rows = gather->tail;
        gather->count = gather->tail_count;
        return MDB_SUCCESS;
    }
    rc = mdb_cursor_get(gather->cursor, &key, &value, MDB_NEXT);
    if (rc == MDB_SUCCESS)
        gather_open(gather, &key, &value);
    else if (rc != MDB_NOTFOUND)
        return rc;
    if (gather->count == 0)
        gather_nothing(gather);
    return MDB_SUCCESS;
}

/* LMDB may have moved the append under the cursor when something was written since. */
static int gather_refresh(struct gather *gather)
{
    MDB_val key, value;
    int rc;

    if (!gather->appended || gather->count == 0)
        return MDB_SUCCESS;
    if ((rc = mdb_cursor_get(gather->cursor, &key, &value, MDB_GET_CURRENT)) != MDB_SUCCESS)
        return rc;
    gather->rows = (const char *)value.mv_data + sizeof(struct open_value) +
                   gather->taken * gather->store->stride;
    return MDB_SUCCESS;
}

static int gather_copy(struct gather *gather, char *out, uint32_t count)
{
    size_t stride = gather->store->stride;

    while (count > 0) {
        uint32_t now;
        int rc;

        if (gather->count == 0 && (rc = gather_next(gather)) != MDB_SUCCESS)
            return rc;
        now = gather->count < count ? gather->count : count;
        if (gather->rows == NULL) {
            memset(out, 0, now * stride);
        } else {
            memcpy(out, gather->rows, now * stride);
            gather->rows += now * stride;
        }
        gather->sequence += now;
        gather->count -= now;
        gather->taken += now;
        out += now * stride;
        count -= now;
    }
    return MDB_SUCCESS;
}

/* Put the cursor just before the stream's first append, so that MDB_NEXT finds it. */
static int gather_init(struct gather *gather, struct store *store, const struct store_stream *stream)
{
    struct open_key name = open_key(stream, stream->next - stream->open_rows);
    MDB_val key = {sizeof(name), &name}, value;
    int rc;

    gather->store = store;
    gather->prefix = name;
    gather->epoch = (uint32_t)stream->epoch;
    gather->sequence = stream->next - stream->open_rows;
    gather->open_left = stream->open_rows;
    if ((rc = mdb_cursor_open(store->txn, store->open, &gather->cursor)) != MDB_SUCCESS)
        return rc;
    if (stream->open_rows == 0)
        return MDB_SUCCESS;
    rc = mdb_cursor_get(gather->cursor, &key, &value, MDB_SET_RANGE);
    if (rc == MDB_SUCCESS)
        gather_open(gather, &key, &value);
    if (gather->count == 0)
        gather_nothing(gather);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

/* From here on its rows are not known to be those that were taken in: they get a good hash, but must say so. */
static void mark_damage(struct segment_head *head, const struct gather *gather)
{
    if (gather->damaged)
        head->flags |= EPISODE_DAMAGED;
}

/* The whole episode is of its first row's task. */
static void mark_task(struct segment_head *head, const char *rows)
{
    struct row_head first;

    if (head->index != 0)
        return;
    memcpy(&first, rows, sizeof(first));
    head->flags = (head->flags & ~(UINT32_MAX << EPISODE_TASK_SHIFT)) | first.task << EPISODE_TASK_SHIFT;
}

/* The same packed or narrow, or plain where that is not shorter. Made beside the map: its length is not known before. */
static int put_packed(struct store *store, struct segment_head *head, struct gather *gather)
{
    uint64_t name = segment_key(head->episode, head->index);
    char *plain = store->scratch, *packed = plain + SEGMENT_BYTES_MAX, *rows = segment_begin(plain, head);
    MDB_val key = {sizeof(name), &name}, value = {0, packed};
    int rc;

    if ((rc = gather_refresh(gather)) != MDB_SUCCESS ||
        (rc = gather_copy(gather, rows, head->rows)) != MDB_SUCCESS)
        return rc;
    mark_damage(head, gather);
    mark_task(head, rows);
    value.mv_size = head->schema.obs_type == OBS_RGB ? segment_pack(packed, head, rows, store->packer)
                                                     : segment_narrow(packed, head, rows);
    if (value.mv_size == 0) {
        segment_finish(plain, head);
        value = (MDB_val){segment_bytes(&head->schema, head->rows), plain};
    }
    if ((rc = mdb_put(store->txn, store->segments, &key, &value, MDB_APPEND)) != MDB_SUCCESS)
        return rc == MDB_KEYEXIST ? MDB_CORRUPTED : rc;
    store->spent += value.mv_size + 2 * store->page;
    return MDB_SUCCESS;
}

/* Write one segment from the gathered rows. */
static int put_segment(struct store *store, struct segment_head *head, struct gather *gather)
{
    uint64_t name = segment_key(head->episode, head->index);
    MDB_val key = {sizeof(name), &name};
    MDB_val value = {segment_bytes(&head->schema, head->rows), NULL};
    int rc = mdb_put(store->txn, store->segments, &key, &value, MDB_RESERVE | MDB_APPEND);
    char *rows;

    if (rc == MDB_KEYEXIST)
        return MDB_CORRUPTED;
    if (rc != MDB_SUCCESS)
        return rc;
    rows = segment_begin(value.mv_data, head);
    if ((rc = gather_refresh(gather)) != MDB_SUCCESS ||
        (rc = gather_copy(gather, rows, head->rows)) != MDB_SUCCESS)
        return rc;
    mark_damage(head, gather);
    mark_task(head, rows);
    segment_finish(value.mv_data, head);
    store->spent += value.mv_size + 2 * store->page;
    return MDB_SUCCESS;
}

/* Cut the gathered rows into segments under the next id; steps counts those without ROW_FIRST. */
static int put_segments(struct store *store, struct store_record *record, struct gather *gather)
{
    struct segment_head head = {
        .schema = store->identity.schema,
        .slot = record->slot,
        .env = record->env,
        .flags = record->flags,
        .episode_rows = record->rows,
        .run_id = store->identity.run_id,
        .store_id = store->identity.store_id,
        .epoch = record->epoch,
        .episode = store->counts.sealed,
    };

    for (uint32_t done = 0; done < record->rows; done += head.rows, head.index++) {
        uint32_t left = record->rows - done;
        int rc;

        head.rows = left < store->segment_rows ? left : store->segment_rows;
        head.sequence = record->sequence + done;
        rc = store->scratch != NULL ? put_packed(store, &head, gather) : put_segment(store, &head, gather);
        if (rc != MDB_SUCCESS)
            return rc;
    }
    record->flags = head.flags; /* with the task, and damage where there was any */
    return MDB_SUCCESS;
}

int rows_drop_open(struct store *store, const struct store_stream *stream, struct error *err)
{
    uint64_t sequence = stream->next - stream->open_rows;
    struct open_key name = open_key(stream, sequence), found;
    MDB_val key = {sizeof(name), &name}, value;
    MDB_cursor *cursor;
    int rc;

    if ((rc = mdb_cursor_open(store->txn, store->open, &cursor)) != MDB_SUCCESS)
        return store_check(store, rc, "write to", err);
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (rc == MDB_SUCCESS && key.mv_size == sizeof(found)) {
        memcpy(&found, key.mv_data, sizeof(found));
        if (found.slot != name.slot || found.env != name.env)
            break;
        int mend = store_mend_run(store, &value, err);

        if (mend != TD_OK) {
            mdb_cursor_close(cursor);
            return mend;
        }
        if ((rc = mdb_cursor_del(cursor, 0)) == MDB_SUCCESS)
            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return store_check(store, rc == MDB_NOTFOUND ? MDB_SUCCESS : rc, "write to", err);
}

/* Which stream's appends are being read, and what must come next. */
struct open_check {
    const struct store_stream *stream;
    uint64_t next, rows;
};

static bool append_follows(struct store *store, struct open_check *check, const MDB_val *key, const MDB_val *value)
{
    const struct store_stream *stream;
    struct open_key name;
    uint64_t rows;

    if (key->mv_size != sizeof(name) || value->mv_size <= sizeof(struct open_value) ||
        (value->mv_size - sizeof(struct open_value)) % store->stride != 0)
        return false;
    rows = (value->mv_size - sizeof(struct open_value)) / store->stride;
    memcpy(&name, key->mv_data, sizeof(name));
    if ((stream = store_stream(store, be32toh(name.slot), be32toh(name.env))) == NULL)
        return false;
    if (check->stream != stream)
        *check = (struct open_check){stream, stream->next - stream->open_rows, check->rows};
    if (be64toh(name.sequence) != check->next || rows > stream->next - check->next)
        return false;
    check->next += rows;
    check->rows += rows;
    return true;
}

/*
 * One under another's key would be sealed by nobody, and be in the way of rows to come. Reads leaves only:
 * a value's size stands there.
 */
int rows_check_open(struct store *store, MDB_txn *txn)
{
    struct open_check check = {0};
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, store->open, &cursor);

    if (rc != MDB_SUCCESS)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS)
        if (!append_follows(store, &check, &key, &value))
            break;
    mdb_cursor_close(cursor);
    if (rc == MDB_SUCCESS || (rc == MDB_NOTFOUND && check.rows != store->counts.open_rows))
        return MDB_CORRUPTED;
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

static uint32_t count_steps(const struct store *store, const void *rows, uint32_t count)
{
    uint32_t steps = 0;

    for (uint32_t i = 0; i < count; i++)
        steps += !(flags_of((const char *)rows + i * store->stride) & ROW_FIRST);
    return steps;
}

int rows_seal(struct store *store, struct stream_entry *entry, const void *rows, uint32_t count,
              uint32_t flags, struct error *err)
{
    struct store_stream *stream = &entry->stream;
    struct gather gather = {.tail = rows, .tail_count = count};
    struct store_record record = {
        .slot = stream->slot,
        .env = stream->env,
        .epoch = stream->epoch,
        .sequence = stream->next - stream->open_rows,
        .rows = (uint32_t)stream->open_rows + count,
        .steps = (uint32_t)stream->open_rows + count - 1, /* all but the reset row */
        .flags = flags,
    };
    int rc = gather_init(&gather, store, stream);

    if (rc == MDB_SUCCESS)
        rc = put_segments(store, &record, &gather);
    if (gather.cursor != NULL)
        mdb_cursor_close(gather.cursor);
    if ((rc = store_check(store, rc, "write to", err)) != TD_OK)
        return rc;
    if (stream->open_rows != 0 && (rc = rows_drop_open(store, stream, err)) != TD_OK)
        return rc;
    store->counts.open_rows -= stream->open_rows;
    stream->open_rows = 0;
    stream->task = 0;
    stream->waiting = store->counts.sealed;
    entry->dirty = true;
    return episodes_push(store, &record, err);
}

/* --- the public side ------------------------------------------------------- */

/* Its key has 16 bits for segments, and a quarter of the map is plenty. */
uint64_t episode_rows_max(const struct store *store)
{
    uint64_t by_key = (uint64_t)EPISODE_SEGMENTS_MAX * store->segment_rows;
    uint64_t by_map = store->identity.map_bytes / 4 / store->stride;

    by_key = by_key < UINT32_MAX ? by_key : UINT32_MAX;
    return by_key < by_map ? by_key : by_map;
}

const char *store_rows_check(const store_t *store, const struct store_stream *stream,
                             const void *rows, uint32_t count, uint32_t *which)
{
    uint64_t open = stream->open_rows;
    uint32_t task = stream->task;

    for (uint32_t i = 0; i < count; i++) {
        const char *row = (const char *)rows + i * store->stride;
        uint32_t flags = flags_of(row), own = task_of(row) + 1;

        *which = i;
        if (open == 0 && !(flags & ROW_FIRST))
            return "an episode must begin with its reset row";
        if (open != 0 && (flags & ROW_FIRST))
            return "a reset row before the episode's end";
        if (open != 0 && task != 0 && own != task)
            return "the task changes within an episode";
        task = own;
        if (++open > episode_rows_max(store))
            return "the episode is longer than the replay store can hold";
        if (flags & ROW_ENDS)
            open = 0;
    }
    return NULL;
}

/* Rows from here to the end of their episode, that row included, or to the end of the chunk. */
static uint32_t run_length(const struct store *store, const char *rows, uint32_t count, uint32_t *ends)
{
    for (uint32_t i = 0; i < count; i++)
        if ((*ends = flags_of(rows + i * store->stride) & ROW_ENDS) != 0)
            return i + 1;
    *ends = 0;
    return count;
}

static uint32_t episode_flags(uint32_t ends)
{
    return (ends & ROW_TERMINATED ? EPISODE_TERMINATED : 0u) |
           (ends & ROW_TRUNCATED ? EPISODE_TRUNCATED : 0u);
}

static int append_run(struct store *store, struct stream_entry *entry, const char *rows,
                      uint32_t count, uint32_t ends, struct error *err)
{
    struct store_stream *stream = &entry->stream;
    uint32_t steps = count_steps(store, rows, count);
    int rc;

    if (stream->open_rows == 0 && stream->waiting != STORE_NONE) {
        rows_publish(store, stream->waiting); /* this is its successor's reset row */
        stream->waiting = STORE_NONE;
    }
    rc = ends != 0 ? rows_seal(store, entry, rows, count, episode_flags(ends), err)
                   : append_open(store, stream, rows, count, err);
    if (rc != TD_OK)
        return rc;
    stream->task = ends != 0 ? 0 : task_of(rows) + 1;
    stream->next += count;
    stream->steps += steps;
    store->counts.rows += count;
    store->counts.steps += steps;
    entry->dirty = true;
    return TD_OK;
}

int store_append(store_t *store, uint32_t slot, uint32_t env, const void *rows, uint32_t count,
                 struct error *err)
{
    struct stream_entry *entry = stream_find(store, slot, env);
    const char *bytes = rows;
    int rc;

    TD_ASSERT(entry != NULL && entry->stream.holder != 0, "rows for unheld stream %u.%u", slot, env);
    if (store_full(store))
        return error_set(err, TD_EFULL, "the replay store in %s is full", store->dir);
    if ((rc = store_begin(store, err)) != TD_OK)
        return rc;
    while (count > 0) {
        uint32_t ends, run = run_length(store, bytes, count, &ends);

        if ((rc = append_run(store, entry, bytes, run, ends, err)) != TD_OK)
            return store_undo(store, rc);
        bytes += run * store->stride;
        count -= run;
    }
    return TD_OK;
}

int store_insert(store_t *store, const struct store_record *record, const void *rows,
                 struct error *err)
{
    struct gather gather = {.store = store, .rows = rows, .count = record->rows};
    struct store_record full = *record;
    int rc;

    TD_ASSERT(record->rows > 0 && record->rows <= episode_rows_max(store), "%u rows", record->rows);
    if (store_full(store))
        return error_set(err, TD_EFULL, "the replay store in %s is full", store->dir);
    if ((rc = store_begin(store, err)) != TD_OK)
        return rc;
    full.steps = count_steps(store, rows, record->rows);
    rc = store_check(store, put_segments(store, &full, &gather), "write to", err);
    if (rc == TD_OK)
        rc = episodes_push(store, &full, err);
    if (rc != TD_OK)
        return store_undo(store, rc);
    store->counts.rows += full.rows;
    store->counts.steps += full.slot == STORE_SLOT_OUTSIDE ? 0 : full.steps;
    rows_publish(store, store->counts.sealed - 1);
    return TD_OK;
}
