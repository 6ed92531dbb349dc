#include "common/store/verify.h"

#include <endian.h>
#include <string.h>

#include "common/store/store_parts.h"

bool verify_clean(const struct verify_report *report)
{
    return report->bad + report->missing + report->stray + report->bad_open + report->damaged +
               report->bad_records == 0;
}

static void fault(struct verify_report *report, uint64_t *count, uint64_t id)
{
    ++*count;
    if (id < report->first_bad)
        report->first_bad = id;
}

/* Every block of one segment, and that it is the one the index record promises. */
static void verify_segment(store_t *store, struct verify_report *report,
                           const struct store_record *record, uint64_t id, uint32_t index)
{
    struct segment_head head;
    size_t length;
    const void *bytes = store_segment(store, id, index, &length);

    if (bytes == NULL) {
        fault(report, &report->missing, id);
        return;
    }
    report->segments++;
    report->bytes += length;
    if (segment_open(&head, bytes, length) != TD_OK || head.length != length ||
        !segment_fits(store, &head, id, index, record->rows) || head.slot != record->slot ||
        head.env != record->env || head.epoch != record->epoch ||
        head.sequence != record->sequence + (uint64_t)index * store->segment_rows ||
        segment_rows(&head, bytes, 0, head.rows, store->packer) == NULL)
        fault(report, &report->bad, id);
    else
        report->rows += head.rows;
}

static int read_record(store_t *store, uint64_t id, struct store_record *record, bool *mended, struct error *err)
{
    MDB_val key = {sizeof(id), &id}, value;
    int rc = store_reader(store, err);

    if (rc != TD_OK)
        return rc;
    rc = mdb_get(store->reader, store->episodes_dbi, &key, &value);
    if (rc == MDB_SUCCESS)
        rc = record_take(store, store->reader, id, &value, record, mended);
    return store_check(store, rc, "read", err);
}

static int verify_episodes(store_t *store, struct verify_report *report, verify_progress *progress,
                           void *context, struct error *err)
{
    for (uint64_t id = store->counts.first; id < store->committed; id++) {
        uint64_t faults = report->bad + report->missing;
        struct store_record record;
        bool mended = false;
        int rc = read_record(store, id, &record, &mended, err);

        if (rc != TD_OK)
            return rc;
        if (mended)
            fault(report, &report->bad_records, id);
        for (uint32_t index = 0; index < episode_segments(store, record.rows); index++)
            verify_segment(store, report, &record, id, index);
        report->damaged += (record.flags & EPISODE_DAMAGED) != 0;
        if (report->bad + report->missing == faults && (record.flags & EPISODE_DAMAGED) == 0) {
            report->whole++;
            report->whole_rows += record.rows;
        }
        report->episodes++;
        store_rows_end(store); /* lets the kernel's pages go, and reuse in a store that is written to */
        if (progress != NULL)
            progress(context, report->bytes, store->counts.bytes);
    }
    return TD_OK;
}

/* Segments whose key lies outside of what the index covers. */
static int verify_strays(store_t *store, struct verify_report *report, struct error *err)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc;

    if ((rc = store_reader(store, err)) != TD_OK)
        return rc;
    if ((rc = mdb_cursor_open(store->reader, store->segments, &cursor)) != MDB_SUCCESS)
        return store_check(store, rc, "read", err);
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
        uint64_t name = 0, id;

        if (key.mv_size == sizeof(name))
            memcpy(&name, key.mv_data, sizeof(name));
        id = name >> 16;
        if (key.mv_size != sizeof(name) || id < store->counts.first || id >= store->committed ||
            (name & 0xffff) >= episode_segments(store, store_episode(store, id)->rows))
            fault(report, &report->stray, id);
    }
    mdb_cursor_close(cursor);
    return store_check(store, rc == MDB_NOTFOUND ? MDB_SUCCESS : rc, "read", err);
}

/* Appends in order of their keys: each stream's must follow each other from its first open row on. */
struct open_check {
    const struct store_stream *stream;
    uint64_t next;
};

static bool append_good(const struct store *store, struct open_check *check, const MDB_val *key,
                        const MDB_val *value)
{
    struct open_key name;
    struct open_value head;
    const struct store_stream *stream;

    if (key->mv_size != sizeof(name))
        return false;
    memcpy(&name, key->mv_data, sizeof(name));
    if (!append_holds(store->version, store->stride, &name, value->mv_data, value->mv_size, &head))
        return false;
    stream = store_stream(store, be32toh(name.slot), be32toh(name.env));
    if (stream == NULL || (store->version >= 3 && head.epoch != (uint32_t)stream->epoch))
        return false;
    if (check->stream != stream)
        *check = (struct open_check){stream, stream->next - stream->open_rows};
    if (be64toh(name.sequence) != check->next)
        return false;
    check->next += head.rows;
    return check->next <= stream->next;
}

static int verify_open(store_t *store, struct verify_report *report, struct error *err)
{
    struct open_check check = {0};
    uint64_t rows = 0;
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc;

    if ((rc = store_reader(store, err)) != TD_OK)
        return rc;
    if ((rc = mdb_cursor_open(store->reader, store->open, &cursor)) != MDB_SUCCESS)
        return store_check(store, rc, "read", err);
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS)
        if (append_good(store, &check, &key, &value))
            rows += (value.mv_size - sizeof(struct open_value)) / store->stride;
        else
            report->bad_open++;
    mdb_cursor_close(cursor);
    if (report->bad_open == 0 && rows != store->counts.open_rows)
        report->bad_open++; /* some are missing */
    report->rows += rows;
    report->open_rows = rows;
    return store_check(store, rc == MDB_NOTFOUND ? MDB_SUCCESS : rc, "read", err);
}

int store_verify(store_t *store, struct verify_report *report, verify_progress *progress, void *context,
                 struct error *err)
{
    int rc;

    TD_ASSERT(!store_dirty(store), "a transaction is open");
    *report = (struct verify_report){.first_bad = STORE_NONE};
    if ((rc = verify_episodes(store, report, progress, context, err)) == TD_OK &&
        (rc = verify_strays(store, report, err)) == TD_OK)
        rc = verify_open(store, report, err);
    store_rows_end(store);
    return rc;
}
