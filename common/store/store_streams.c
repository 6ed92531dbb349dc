/* The table of streams: in memory sorted by (slot, env), written when a transaction commits. */
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/store/store_parts.h"

struct stream_key stream_key(uint32_t slot, uint32_t env)
{
    return (struct stream_key){htobe32(slot), htobe32(env)};
}

/* Where (slot, env) is, or would be. */
static size_t place_of(const struct store *store, uint32_t slot, uint32_t env)
{
    uint64_t wanted = (uint64_t)slot << 32 | env;
    size_t low = 0, high = store->stream_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct store_stream *stream = &store->streams[middle].stream;

        if (((uint64_t)stream->slot << 32 | stream->env) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct stream_entry *stream_find(const struct store *store, uint32_t slot, uint32_t env)
{
    size_t place = place_of(store, slot, env);

    if (place == store->stream_count || store->streams[place].stream.slot != slot ||
        store->streams[place].stream.env != env)
        return NULL;
    return &store->streams[place];
}

static struct stream_entry *stream_add(struct store *store, uint32_t slot, uint32_t env)
{
    size_t place = place_of(store, slot, env);
    struct stream_entry *entry;

    if (store->stream_count == store->stream_capacity) {
        size_t capacity = store->stream_capacity == 0 ? 64 : store->stream_capacity * 2;
        struct stream_entry *grown = realloc(store->streams, capacity * sizeof(*grown));

        if (grown == NULL)
            return NULL;
        store->streams = grown;
        store->stream_capacity = capacity;
    }
    entry = &store->streams[place];
    memmove(entry + 1, entry, (store->stream_count - place) * sizeof(*entry));
    memset(entry, 0, sizeof(*entry));
    entry->stream.slot = slot;
    entry->stream.env = env;
    entry->stream.waiting = STORE_NONE;
    store->stream_count++;
    store->counts.streams = store->stream_count;
    if (!store->counts.has_slot || slot > store->counts.slot)
        store->counts.slot = slot;
    store->counts.has_slot = true;
    return entry;
}

size_t store_stream_count(const store_t *store)
{
    return store->stream_count;
}

const struct store_stream *store_stream_at(const store_t *store, size_t index)
{
    TD_ASSERT(index < store->stream_count, "stream %zu of %zu", index, store->stream_count);
    return &store->streams[index].stream;
}

const struct store_stream *store_stream(const store_t *store, uint32_t slot, uint32_t env)
{
    struct stream_entry *entry = stream_find(store, slot, env);

    return entry == NULL ? NULL : &entry->stream;
}

/* --- changes --------------------------------------------------------------- */

/* End the epoch: what is open becomes an aborted episode, what waits is published. */
static int close_entry(struct store *store, struct stream_entry *entry, struct error *err)
{
    struct store_stream *stream = &entry->stream;
    int rc;

    if (stream->waiting != STORE_NONE) {
        rows_publish(store, stream->waiting);
        stream->waiting = STORE_NONE;
    }
    if (stream->open_rows != 0) {
        if ((rc = rows_seal(store, entry, NULL, 0, EPISODE_ABORTED, err)) != TD_OK)
            return rc;
        store->counts.aborted++;
        rows_publish(store, stream->waiting);
        stream->waiting = STORE_NONE;
    }
    stream->holder = 0;
    entry->dirty = true;
    return TD_OK;
}

int store_close_stream(store_t *store, uint32_t slot, uint32_t env, struct error *err)
{
    struct stream_entry *entry = stream_find(store, slot, env);
    int rc;

    if (entry == NULL || (entry->stream.holder == 0 && entry->stream.open_rows == 0 &&
                          entry->stream.waiting == STORE_NONE))
        return TD_OK;
    if ((rc = store_begin(store, err)) != TD_OK)
        return rc;
    return store_undo(store, close_entry(store, entry, err));
}

int store_grant(store_t *store, uint32_t slot, uint32_t env, uint64_t epoch, uint64_t holder,
                struct error *err)
{
    struct stream_entry *entry = stream_find(store, slot, env);
    int rc;

    TD_ASSERT(holder != 0 && epoch > (entry == NULL ? 0 : entry->stream.epoch),
              "epoch %llu for holder %llu", (unsigned long long)epoch, (unsigned long long)holder);
    if ((rc = store_begin(store, err)) != TD_OK)
        return rc;
    if (entry == NULL) {
        if (store->stream_count >= STORE_STREAMS_MAX)
            return error_set(err, TD_EFULL, "the replay store knows %u streams and takes no more",
                             STORE_STREAMS_MAX);
        if ((entry = stream_add(store, slot, env)) == NULL)
            return store_undo(store, error_set(err, TD_ENOMEM, "out of memory for a stream"));
    }
    if ((rc = close_entry(store, entry, err)) != TD_OK)
        return store_undo(store, rc);
    entry->stream.epoch = epoch;
    entry->stream.holder = holder;
    entry->stream.next = 0;
    entry->stream.steps = 0;
    return TD_OK;
}

int streams_inherit(struct store *store, uint32_t slot, uint32_t env, uint64_t epoch)
{
    struct stream_entry *entry = stream_find(store, slot, env);

    if (entry == NULL && store->stream_count < STORE_STREAMS_MAX)
        entry = stream_add(store, slot, env);
    if (entry == NULL)
        return TD_ENOMEM;
    if (epoch > entry->stream.epoch)
        entry->stream.epoch = epoch;
    entry->dirty = true;
    return TD_OK;
}

int store_learner_epoch(store_t *store, uint32_t epoch, struct error *err)
{
    int rc;

    if (epoch <= store->counts.learner_epoch)
        return TD_OK;
    if ((rc = store_begin(store, err)) != TD_OK)
        return rc;
    store->counts.learner_epoch = epoch;
    return TD_OK;
}

/* --- on disk --------------------------------------------------------------- */

static int write_entry(struct store *store, struct stream_entry *entry, struct error *err)
{
    const struct store_stream *stream = &entry->stream;
    struct stream_key name = stream_key(stream->slot, stream->env);
    struct stream_value record = {
        .epoch = stream->epoch,
        .next = stream->next,
        .steps = stream->steps,
        .holder = stream->holder,
        .open_rows = stream->open_rows,
        .waiting = stream->waiting,
    };
    MDB_val key = {sizeof(name), &name}, value = {hashed_size(store, sizeof(record)), &record};
    int rc;

    record.hash = value_hash(&name, sizeof(name), &record, offsetof(struct stream_value, hash));
    rc = mdb_put(store->txn, store->streams_dbi, &key, &value, 0);
    store->spent += 4 * sizeof(record);
    return store_check(store, rc, "write to", err);
}

int streams_write(struct store *store, struct error *err)
{
    for (size_t i = 0; i < store->stream_count; i++) {
        int rc = store->streams[i].dirty ? write_entry(store, &store->streams[i], err) : TD_OK;

        if (rc != TD_OK)
            return rc;
    }
    for (size_t i = 0; i < store->stream_count; i++)
        store->streams[i].dirty = false;
    return TD_OK;
}

/* A record that contradicts itself or the index is not believed. */
static int take_record(struct store *store, const MDB_val *key, const MDB_val *value)
{
    struct stream_key name;
    struct stream_value record = {0};
    struct stream_entry *entry;

    if (key->mv_size != sizeof(name) || value->mv_size != hashed_size(store, sizeof(record)))
        return MDB_CORRUPTED;
    memcpy(&name, key->mv_data, sizeof(name));
    memcpy(&record, value->mv_data, value->mv_size);
    if (!hash_holds(store, &name, sizeof(name), &record, sizeof(record)) || record.open_rows > record.next || record.open_rows > episode_rows_max(store) || record.steps > record.next ||
        store->stream_count >= STORE_STREAMS_MAX ||
        (record.waiting != STORE_NONE && record.waiting >= store->counts.sealed))
        return MDB_CORRUPTED;
    entry = stream_add(store, be32toh(name.slot), be32toh(name.env));
    if (entry == NULL)
        return ENOMEM;
    entry->stream.epoch = record.epoch;
    entry->stream.next = record.next;
    entry->stream.steps = record.steps;
    entry->stream.holder = record.holder;
    entry->stream.open_rows = record.open_rows;
    entry->stream.waiting = record.waiting;
    store->counts.open_rows += record.open_rows;
    if (record.waiting != STORE_NONE && record.waiting >= store->counts.first)
        store->episodes[record.waiting - store->base].flags &= ~STORE_PUBLISHED;
    return MDB_SUCCESS;
}

int store_load_streams(struct store *store, MDB_txn *txn, struct error *err)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc;

    store->stream_count = 0;
    store->counts.streams = 0;
    store->counts.open_rows = 0;
    if ((rc = mdb_cursor_open(txn, store->streams_dbi, &cursor)) != MDB_SUCCESS)
        return store_check(store, rc, "read", err);
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS)
        if ((rc = take_record(store, &key, &value)) != MDB_SUCCESS)
            break;
    mdb_cursor_close(cursor);
    return store_check(store, rc == MDB_NOTFOUND ? MDB_SUCCESS : rc, "read", err);
}
