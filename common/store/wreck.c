#include "common/store/wreck.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/store/tree.h"

#define PAGE     ((size_t)4096) /* LMDB's on this machine */
#define RUN_HEAD 16u            /* in front of the value in an overflow run */

/* An append as the tree has it, before the schema is known. */
struct leaf_item {
    struct open_key key;
    uint64_t at, size;
    bool older; /* known before the last transaction only */
    bool scanned; /* found without the tree: perhaps of long ago */
};

struct reader {
    struct wreck *wreck;
    const char *bytes;
    size_t length;
    size_t stream_capacity, record_capacity, item_count, item_capacity, former_count, former_capacity;
    struct leaf_item *items;
    struct wreck_stream *former; /* streams as the tree names them, hash or none; next 1: before the last transaction */
    bool older;                  /* that is what is being walked */
    bool counts_live;            /* the newest state's counts, and so many of its streams, hold */
    uint64_t streams_live;
    bool no_memory;
};

/* One more in a growing list. */
static void *grow(struct reader *reader, void *list, size_t count, size_t *capacity, size_t each)
{
    void *grown;

    if (count < *capacity)
        return list;
    grown = realloc(list, (*capacity == 0 ? 256 : *capacity * 2) * each);
    if (grown == NULL) {
        reader->no_memory = true;
        return list;
    }
    *capacity = *capacity == 0 ? 256 : *capacity * 2;
    return grown;
}

static bool inside(const struct reader *reader, uint64_t at, uint64_t size)
{
    return at <= reader->length && size <= reader->length - at;
}

/* --- small values, by their hash -------------------------------------------- */

static bool is_newer(const struct counts_value *counts, const struct counts_value *than)
{
    if (counts->generation != than->generation)
        return counts->generation > than->generation;
    return counts->rows != than->rows ? counts->rows > than->rows : counts->sealed > than->sealed;
}

static void take_counts(struct wreck *wreck, const char *value)
{
    struct counts_value counts, *known = &wreck->counts;
    uint32_t epoch = known->learner_epoch, slots = known->slots;

    memcpy(&counts, value, sizeof(counts));
    if (counts.hash != value_hash("counts", 6, value, offsetof(struct counts_value, hash)))
        return;
    epoch = counts.learner_epoch > epoch ? counts.learner_epoch : epoch; /* these never go back */
    slots = counts.slots > slots ? counts.slots : slots;
    if (!wreck->has_counts || is_newer(&counts, known))
        *known = counts;
    known->learner_epoch = epoch;
    known->slots = slots;
    wreck->has_counts = true;
}

static void take_manifest(struct wreck *wreck, const char *value)
{
    struct manifest_value manifest;

    memcpy(&manifest, value, sizeof(manifest));
    if (memcmp(manifest.magic, STORE_MAGIC, sizeof(manifest.magic)) != 0 ||
        manifest.hash != XXH3_64bits(value, offsetof(struct manifest_value, hash)) ||
        row_schema_check(&manifest.schema) != NULL)
        return;
    wreck->manifest = manifest;
    wreck->has_manifest = true;
}

static void take_stream(struct reader *reader, const char *key, const char *value)
{
    struct wreck *wreck = reader->wreck;
    struct stream_value found;
    struct stream_key name;
    struct wreck_stream *stream;

    memcpy(&found, value, sizeof(found));
    if (found.hash != value_hash(key, sizeof(name), value, offsetof(struct stream_value, hash)))
        return;
    memcpy(&name, key, sizeof(name));
    wreck->streams = grow(reader, wreck->streams, wreck->stream_count, &reader->stream_capacity, sizeof(*stream));
    if (reader->no_memory)
        return;
    wreck->streams[wreck->stream_count++] = (struct wreck_stream){
        .slot = be32toh(name.slot), .env = be32toh(name.env), .epoch = found.epoch, .next = found.next,
        .open_rows = found.open_rows};
}

/* From version 3 on rows under way say themselves whose they are, and when. */
static void scan_append(struct reader *reader, const char *key, bool big, uint32_t size)
{
    struct leaf_item item = {.at = (uint64_t)(key + sizeof(item.key) - reader->bytes), .size = size, .older = true,
                             .scanned = true};
    uint64_t run;

    memcpy(&item.key, key, sizeof(item.key));
    if (big) {
        memcpy(&run, key + sizeof(item.key), sizeof(run));
        if (run > reader->length / PAGE)
            return;
        item.at = run * PAGE + RUN_HEAD;
    }
    if (size <= sizeof(struct open_value) || !inside(reader, item.at, size))
        return;
    reader->items = grow(reader, reader->items, reader->item_count, &reader->item_capacity, sizeof(item));
    if (!reader->no_memory)
        reader->items[reader->item_count++] = item;
}

/* Whatever looks like the records of a leaf page: only a hash decides. */
static void scan_page(struct reader *reader, const char *page)
{
    uint16_t lower, flags, at, node[4];

    memcpy(&flags, page + 10, sizeof(flags));
    memcpy(&lower, page + 12, sizeof(lower));
    if (flags == 2) /* a leaf, whatever its bounds say */
        lower = (uint16_t)PAGE;
    for (size_t pointer = 16; pointer + 2 <= PAGE && pointer < lower; pointer += 2) {
        const char *key;
        uint32_t size;
        bool big;

        memcpy(&at, page + pointer, sizeof(at));
        if (at < 16 || at > PAGE - sizeof(node))
            continue;
        memcpy(node, page + at, sizeof(node));
        size = (uint32_t)node[0] | (uint32_t)node[1] << 16;
        key = page + at + sizeof(node);
        big = (node[2] & 1) != 0;
        if (node[3] > sizeof(struct open_key) || at + sizeof(node) + node[3] + (big ? sizeof(uint64_t) : size) > PAGE)
            continue;
        if (node[3] == sizeof(struct open_key))
            scan_append(reader, key, big, size);
        else if (big)
            continue;
        else if (node[3] == 6 && size == sizeof(struct counts_value) && memcmp(key, "counts", 6) == 0)
            take_counts(reader->wreck, key + 6);
        else if (node[3] == 8 && size == sizeof(struct manifest_value) && memcmp(key, "manifest", 8) == 0)
            take_manifest(reader->wreck, key + 8);
        else if (node[3] == sizeof(struct stream_key) && size == sizeof(struct stream_value))
            take_stream(reader, key, key + 8);
    }
}

/* By name, the furthest first. */
static int by_stream(const void *x, const void *y)
{
    const struct wreck_stream *a = x, *b = y;

    if (a->slot != b->slot)
        return a->slot < b->slot ? -1 : 1;
    if (a->env != b->env)
        return a->env < b->env ? -1 : 1;
    if (a->epoch != b->epoch)
        return a->epoch > b->epoch ? -1 : 1;
    if (a->next != b->next)
        return a->next > b->next ? -1 : 1;
    return (a->open_rows > b->open_rows) - (a->open_rows < b->open_rows);
}

static void newest_streams(struct wreck *wreck)
{
    size_t kept = 0;

    if (wreck->stream_count > 0)
        qsort(wreck->streams, wreck->stream_count, sizeof(*wreck->streams), by_stream);
    for (size_t i = 0; i < wreck->stream_count; i++)
        if (kept == 0 || wreck->streams[kept - 1].slot != wreck->streams[i].slot ||
            wreck->streams[kept - 1].env != wreck->streams[i].env)
            wreck->streams[kept++] = wreck->streams[i];
    wreck->stream_count = kept;
}

/* --- what the tree leads to ------------------------------------------------- */

enum { TABLE_META = 0, TABLE_STREAMS = 1, TABLE_OPEN = 2, TABLE_EPISODES = 3 };

static void on_record(struct reader *reader, const void *key, uint64_t at)
{
    struct wreck *wreck = reader->wreck;
    struct wreck_record found;

    memcpy(&found.id, key, sizeof(found.id));
    memcpy(&found.record, reader->bytes + at, sizeof(found.record));
    wreck->records = grow(reader, wreck->records, wreck->record_count, &reader->record_capacity, sizeof(found));
    if (!reader->no_memory)
        wreck->records[wreck->record_count++] = found;
}

static void on_append(struct reader *reader, const void *key, uint64_t at, uint64_t size)
{
    struct leaf_item item = {.at = at, .size = size, .older = reader->older};

    memcpy(&item.key, key, sizeof(item.key));
    reader->items = grow(reader, reader->items, reader->item_count, &reader->item_capacity, sizeof(item));
    if (!reader->no_memory)
        reader->items[reader->item_count++] = item;
}

static void on_former(struct reader *reader, const void *key, uint64_t at)
{
    struct stream_value found = {0};
    struct stream_key name;

    memcpy(&name, key, sizeof(name));
    memcpy(&found, reader->bytes + at, offsetof(struct stream_value, hash));
    reader->former = grow(reader, reader->former, reader->former_count, &reader->former_capacity, sizeof(*reader->former));
    if (!reader->no_memory)
        reader->former[reader->former_count++] = (struct wreck_stream){
            .slot = be32toh(name.slot), .env = be32toh(name.env), .epoch = found.epoch, .next = reader->older};
}

/* Is it of the newest state, with a hash that holds? */
static void on_live(struct reader *reader, int table, const void *key, uint64_t at, uint64_t size)
{
    const char *value = reader->bytes + at;
    struct counts_value counts;
    struct stream_value stream;

    if (table == TABLE_META && size == sizeof(counts) && memcmp(key, "counts", 6) == 0) {
        memcpy(&counts, value, sizeof(counts));
        reader->counts_live = counts.hash == value_hash("counts", 6, value, offsetof(struct counts_value, hash));
    } else if (table == TABLE_STREAMS && size == sizeof(stream)) {
        memcpy(&stream, value, sizeof(stream));
        reader->streams_live +=
            stream.hash == value_hash(key, sizeof(struct stream_key), value, offsetof(struct stream_value, hash));
    }
}

static void on_leaf(void *context, int table, const void *key, uint64_t at, uint64_t size)
{
    struct reader *reader = context;

    if (!inside(reader, at, size))
        return;
    if (!reader->older)
        on_live(reader, table, key, at, size);
    if (table == TABLE_EPISODES && size == sizeof(struct store_record))
        on_record(reader, key, at);
    else if (table == TABLE_OPEN && size > sizeof(struct open_value))
        on_append(reader, key, at, size);
    else if (table == TABLE_STREAMS && size >= offsetof(struct stream_value, hash)) /* version 1 has no hash */
        on_former(reader, key, at);
}

static int walk_patiently(struct reader *reader, const char *path, bool older, struct error *err)
{
    struct tree_options options = store_tree_options();
    uint64_t entries[8] = {[TABLE_STREAMS] = UINT64_MAX};
    struct error fault = {0};
    bool newest = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return error_set_errno(err, TD_EIO, errno, "cannot open %s", path);
    options.patient = true;
    options.unordered = reader->wreck->has_manifest && reader->wreck->manifest.version >= 3;
    options.older = reader->older = older;
    options.visit = on_leaf;
    options.context = reader;
    options.entries = entries;
    options.newest = &newest;
    rc = tree_walk(fd, path, &options, &fault);
    close(fd);
    if (reader->wreck->episodes == 0)
        reader->wreck->episodes = entries[TABLE_EPISODES];
    if (!older) {
        reader->wreck->fault = fault;
        reader->wreck->complete = newest && reader->counts_live && reader->streams_live == entries[TABLE_STREAMS];
    }
    if (rc == TD_OK || rc == TD_ECORRUPT)
        return TD_OK;
    if (err != NULL)
        *err = fault;
    return rc;
}

/* The tree, and where that has faults what it was before the last transaction: its pages are still there. */
static int walk_both(struct reader *reader, const char *path, struct error *err)
{
    int rc = walk_patiently(reader, path, false, err);

    return rc != TD_OK || reader->wreck->fault.code == TD_OK ? rc : walk_patiently(reader, path, true, err);
}

static int by_id(const void *x, const void *y)
{
    const struct wreck_record *a = x, *b = y;

    return (a->id > b->id) - (a->id < b->id);
}

/* Its place among the streams; their count when it is not known. */
static size_t stream_index(const struct wreck *wreck, uint32_t slot, uint32_t env)
{
    for (size_t low = 0, high = wreck->stream_count; low < high;) {
        size_t middle = low + (high - low) / 2;
        const struct wreck_stream *stream = &wreck->streams[middle];

        if (stream->slot == slot && stream->env == env)
            return middle;
        if (stream->slot < slot || (stream->slot == slot && stream->env < env))
            low = middle + 1;
        else
            high = middle;
    }
    return wreck->stream_count;
}

/* Records whose check holds, one of each id. Version 1 has none to be checked. */
static void check_records(struct wreck *wreck)
{
    bool checked = !wreck->has_manifest || wreck->manifest.version >= 2;
    size_t kept = 0;

    if (wreck->record_count > 0)
        qsort(wreck->records, wreck->record_count, sizeof(*wreck->records), by_id);
    for (size_t i = 0; i < wreck->record_count; i++) {
        const struct wreck_record *found = &wreck->records[i];

        if (kept > 0 && wreck->records[kept - 1].id == found->id)
            continue;
        if ((!checked || record_holds(found->id, &found->record)) && found->record.rows != 0)
            wreck->records[kept++] = *found;
    }
    wreck->record_count = kept;
    if (kept > 0 && wreck->counts.sealed <= wreck->records[kept - 1].id) /* the counts found are of an earlier state */
        wreck->counts.sealed = wreck->records[kept - 1].id + 1;
}

/*
 * Is the append of its stream's epoch? It says so itself. The stream's record that was found may be of an earlier
 * state: the append knows better.
 */
static bool fits_epoch(const struct wreck *wreck, const struct wreck_append *append)
{
    size_t index = stream_index(wreck, append->slot, append->env);
    struct wreck_stream *stream = &wreck->streams[index];

    if (index == wreck->stream_count)
        return append->live;
    if (append->live && (int32_t)(append->epoch - (uint32_t)stream->epoch) > 0) {
        stream->epoch += append->epoch - (uint32_t)stream->epoch;
        stream->next = stream->open_rows = 0;
    }
    return (uint32_t)stream->epoch == append->epoch;
}

/*
 * Before version 3 it does not. One from before the last transaction may be of an epoch that this transaction
 * ended.
 */
static bool same_epoch(const struct reader *reader, const struct wreck_append *append)
{
    uint32_t slot = append->slot, env = append->env;
    const struct wreck_stream *now = wreck_stream(reader->wreck, slot, env);

    if (append->live)
        return true;
    for (size_t i = 0; i < reader->former_count; i++)
        if (reader->former[i].next == 1 && reader->former[i].slot == slot && reader->former[i].env == env)
            return now != NULL && now->epoch == reader->former[i].epoch;
    return false;
}

static void take_append(struct reader *reader, const struct leaf_item *item)
{
    struct wreck *wreck = reader->wreck;
    uint32_t version = wreck->manifest.version;
    struct wreck_append append = {
        .slot = be32toh(item->key.slot), .env = be32toh(item->key.env), .sequence = be64toh(item->key.sequence),
        .offset = (size_t)(item->at + sizeof(struct open_value)), .live = !item->older};
    struct open_value head;

    if (!append_holds(version, row_stride(&wreck->manifest.schema), &item->key, reader->bytes + item->at, item->size,
                      &head))
        return;
    append.rows = head.rows;
    append.epoch = version >= 3 ? head.epoch : 0;
    if (version >= 3 ? fits_epoch(wreck, &append) : same_epoch(reader, &append))
        wreck->appends[wreck->append_count++] = append;
}

/*
 * Appends whose hash holds, the newest state's first: they know their streams' epochs. Called when the schema is
 * known.
 */
static int check_appends(struct reader *reader)
{
    struct wreck *wreck = reader->wreck;
    uint64_t budget = 4 * (uint64_t)reader->length; /* pages of nonsense may all lead to one long run */

    if (reader->item_count == 0 || !wreck->has_manifest)
        return TD_OK;
    if ((wreck->appends = calloc(reader->item_count, sizeof(*wreck->appends))) == NULL)
        return TD_ENOMEM;
    for (size_t i = 0; i < reader->item_count; i++)
        if (!reader->items[i].older)
            take_append(reader, &reader->items[i]);
    for (size_t i = 0; i < reader->item_count; i++) {
        const struct leaf_item *item = &reader->items[i];

        if (!item->older || (item->scanned && (wreck->manifest.version < 3 || item->size > budget)))
            continue;
        budget -= item->scanned ? item->size : 0;
        take_append(reader, item);
    }
    return TD_OK;
}

/* Does the tree name this stream, whatever its record is worth? From version 3 on the append's hash does. */
static bool is_named(const struct reader *reader, const struct wreck_append *append)
{
    if (reader->wreck->manifest.version >= 3)
        return true;
    for (size_t i = 0; i < reader->former_count; i++)
        if (reader->former[i].next == 0 && reader->former[i].slot == append->slot &&
            reader->former[i].env == append->env)
            return true;
    return false;
}

/* Streams of which only rows under way are left. */
static void name_nameless(struct reader *reader)
{
    struct wreck *wreck = reader->wreck;
    size_t known = wreck->stream_count;

    for (size_t i = 0; i < wreck->append_count; i++) {
        const struct wreck_append *append = &wreck->appends[i], *before = append - 1;
        bool again = i > 0 && before->slot == append->slot && before->env == append->env;

        for (size_t k = 0; k < known && !again; k++)
            again = wreck->streams[k].slot == append->slot && wreck->streams[k].env == append->env;
        if (again || !append->live || !is_named(reader, append))
            continue;
        wreck->streams = grow(reader, wreck->streams, wreck->stream_count, &reader->stream_capacity,
                              sizeof(*wreck->streams));
        if (reader->no_memory)
            return;
        wreck->streams[wreck->stream_count++] = (struct wreck_stream){
            .slot = append->slot, .env = append->env, .epoch = append->epoch};
    }
    newest_streams(wreck);
}

/* Appends in order of their names; of those that both walks found the live one. */
static int by_append(const void *x, const void *y)
{
    const struct wreck_append *a = x, *b = y;

    if (a->slot != b->slot)
        return a->slot < b->slot ? -1 : 1;
    if (a->env != b->env)
        return a->env < b->env ? -1 : 1;
    if (a->sequence != b->sequence)
        return a->sequence < b->sequence ? -1 : 1;
    return (int)b->live - (int)a->live;
}

static bool overlap(const struct wreck_append *a, const struct wreck_append *b)
{
    return a->slot == b->slot && a->env == b->env && a->sequence < b->sequence + b->rows &&
           b->sequence < a->sequence + a->rows;
}

/* Before version 3 a name carries no hash: of appends that claim the same rows none is believed. */
static void drop_overlaps(struct wreck *wreck)
{
    bool named = wreck->has_manifest && wreck->manifest.version >= 3;
    struct wreck_append *list = wreck->appends;
    size_t kept = 0, count = 0;

    if (wreck->append_count == 0)
        return;
    qsort(list, wreck->append_count, sizeof(*list), by_append);
    for (size_t i = 0; i < wreck->append_count; i++)
        if (count == 0 || list[i].live || list[count - 1].sequence != list[i].sequence ||
            !overlap(&list[count - 1], &list[i]))
            list[count++] = list[i];
    for (size_t i = 1; i < count && !named; i++)
        if (overlap(&list[i - 1], &list[i]))
            list[i - 1].clash = list[i].clash = true;
    for (size_t i = 0; i < count; i++)
        if (!list[i].clash)
            list[kept++] = list[i];
    wreck->append_count = kept;
}

/* --- all -------------------------------------------------------------------- */

/* LMDB's own word for the map's size; both metas are tried. */
static uint64_t map_bytes_of(const struct reader *reader)
{
    for (size_t at = 0; at < 2 * PAGE && inside(reader, at, 40); at += PAGE) {
        uint32_t magic;
        uint64_t bytes;

        memcpy(&magic, reader->bytes + at + 16, sizeof(magic));
        memcpy(&bytes, reader->bytes + at + 32, sizeof(bytes));
        if (magic == 0xBEEFC0DEu && bytes >= reader->length / 2 && bytes <= (uint64_t)1 << 46)
            return bytes;
    }
    return 0;
}

int wreck_read(struct wreck *wreck, const char *path, const char *bytes, size_t length, struct error *err)
{
    struct reader reader = {.wreck = wreck, .bytes = bytes, .length = length};
    int rc;

    memset(wreck, 0, sizeof(*wreck));
    for (size_t at = 0; at + PAGE <= length; at += PAGE)
        scan_page(&reader, bytes + at);
    newest_streams(wreck);
    rc = walk_both(&reader, path, err);
    if (rc == TD_OK) {
        check_records(wreck);
        rc = reader.no_memory ? TD_ENOMEM : check_appends(&reader);
        drop_overlaps(wreck);
        if (rc == TD_OK)
            name_nameless(&reader);
        rc = reader.no_memory ? TD_ENOMEM : rc;
        if (rc != TD_OK)
            error_set(err, rc, "out of memory reading %s", path);
    }
    wreck->map_bytes = wreck->has_manifest ? wreck->manifest.map_bytes : map_bytes_of(&reader);
    free(reader.items);
    free(reader.former);
    return rc;
}

void wreck_release(struct wreck *wreck)
{
    free(wreck->streams);
    free(wreck->records);
    free(wreck->appends);
    memset(wreck, 0, sizeof(*wreck));
}

const struct wreck_stream *wreck_stream(const struct wreck *wreck, uint32_t slot, uint32_t env)
{
    size_t index = stream_index(wreck, slot, env);

    return index == wreck->stream_count ? NULL : &wreck->streams[index];
}

const struct store_record *wreck_record(const struct wreck *wreck, uint64_t id)
{
    for (size_t low = 0, high = wreck->record_count; low < high;) {
        size_t middle = low + (high - low) / 2;

        if (wreck->records[middle].id == id)
            return &wreck->records[middle].record;
        if (wreck->records[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
