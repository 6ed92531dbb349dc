#include "tests/support/promise.h"

#include <inttypes.h>

#include "common/store/store.h"
#include "tests/support/test.h"

struct audit {
    const struct promise *promise;
    const char *where;
    uint8_t *seen[PROMISE_SLOTS][PROMISE_EPOCHS]; /* [sent] */
    uint64_t rows;
};

static void see_row(struct audit *audit, const struct store_record *record, uint32_t row, const char *bytes)
{
    const struct promise *promise = audit->promise;
    uint64_t sequence = record->sequence + row, epoch = record->epoch;
    uint32_t slot = record->slot;
    struct row_head head;
    char expected[512];

    if (slot >= PROMISE_SLOTS || epoch >= PROMISE_EPOCHS || sequence >= promise->sent[slot][epoch])
        fail_msg("%s: row %" PRIu64 " of stream %u epoch %" PRIu64 " was never sent", audit->where, sequence, slot, epoch);
    memcpy(&head, bytes, sizeof(head));
    promise->row(expected, &promise->schema, slot, epoch, sequence, head.flags);
    if (memcmp(expected, bytes, row_stride(&promise->schema)) != 0 || ((head.flags & ROW_FIRST) != 0) != (row == 0))
        fail_msg("%s: row %" PRIu64 " of stream %u is not what was sent", audit->where, sequence, slot);
    if (audit->seen[slot][epoch][sequence]++ != 0)
        fail_msg("%s: row %" PRIu64 " of stream %u is there twice", audit->where, sequence, slot);
    audit->rows++;
}

static void see_episodes(struct audit *audit, store_t *store)
{
    size_t stride = row_stride(&audit->promise->schema);
    struct error err = {0};

    for (uint64_t id = store_counts(store)->first; id < store_counts(store)->sealed; id++) {
        struct store_record record;

        assert_ok(store_record(store, id, &record, &err), err);
        for (uint32_t row = 0; row < record.rows;) {
            uint32_t count = record.rows - row;
            const char *rows = store_rows(store, id, row, &count);

            if (rows == NULL)
                fail_msg("%s: episode %" PRIu64 " is damaged", audit->where, id);
            for (uint32_t i = 0; i < count; i++)
                see_row(audit, &record, row + i, rows + i * stride);
            row += count;
        }
    }
    store_rows_end(store);
}

/* Acknowledged rows that are not there: all older than what their stream has of that epoch. */
static uint64_t missing_rows(const struct audit *audit)
{
    uint64_t missing = 0;

    for (uint32_t slot = 0; slot < PROMISE_SLOTS; slot++)
        for (uint32_t epoch = 0; epoch < PROMISE_EPOCHS; epoch++) {
            bool present = false;

            for (uint64_t i = 0; i < audit->promise->acked[slot][epoch]; i++) {
                bool here = audit->seen[slot][epoch][i] != 0;

                if (!here && present)
                    fail_msg("%s: acknowledged row %" PRIu64 " of stream %u epoch %u is gone", audit->where, i, slot,
                             epoch);
                missing += !here;
                present |= here;
            }
        }
    return missing;
}

static void seal_streams(const struct audit *audit, store_t *store)
{
    struct error err = {0};

    for (uint32_t slot = 0; slot < PROMISE_SLOTS; slot++) {
        const struct store_stream *stream = store_stream(store, slot, 0);

        if (stream != NULL && stream->epoch < PROMISE_EPOCHS && stream->next < audit->promise->acked[slot][stream->epoch])
            fail_msg("%s: stream %u is at row %" PRIu64 ", %" PRIu64 " were acknowledged", audit->where, slot,
                     stream->next, audit->promise->acked[slot][stream->epoch]);
        if (stream != NULL)
            assert_ok(store_close_stream(store, slot, 0, &err), err);
    }
    assert_ok(store_commit(store, &err), err);
}

struct promise_found promise_audit(const char *dir, const struct promise *promise, const char *where)
{
    struct store_config config = {.dir = dir, .schema = promise->schema, .run_id = promise->run, .rows = 1000,
                                  .force = true};
    struct audit audit = {.promise = promise, .where = where};
    const struct store_counts *counts;
    struct promise_found found;
    struct error err = {0};
    uint64_t missing;
    store_t *store;

    if (store_open(&store, &config, &err) != TD_OK)
        fail_msg("%s: the store does not open: %s", where, err.text);
    for (uint32_t slot = 0; slot < PROMISE_SLOTS; slot++)
        for (uint32_t epoch = 0; epoch < PROMISE_EPOCHS; epoch++)
            audit.seen[slot][epoch] = calloc(promise->sent[slot][epoch] + 1, 1);
    seal_streams(&audit, store);
    counts = store_counts(store);
    see_episodes(&audit, store);
    missing = missing_rows(&audit);
    assert_true(counts->rows >= counts->held_rows);
    found = (struct promise_found){counts->held_rows, counts->rows - counts->held_rows, counts->rows, counts->damaged};
    if (found.damaged != 0 || counts->open_rows != 0 || audit.rows != found.kept || counts->first > promise->evicting ||
        missing > found.evicted || (found.evicted > 0 && counts->first == 0) ||
        (found.evicted > 0 && found.kept < promise->kept))
        fail_msg("%s: %" PRIu64 " rows seen, %" PRIu64 " held of %" PRIu64 " taken in, %" PRIu64
                 " acknowledged ones missing, first episode %" PRIu64 " of %" PRIu64 " let go, %" PRIu64 " damaged",
                 where, audit.rows, found.kept, found.taken, missing, counts->first, promise->evicting, found.damaged);
    store_close(&store);
    for (uint32_t slot = 0; slot < PROMISE_SLOTS; slot++)
        for (uint32_t epoch = 0; epoch < PROMISE_EPOCHS; epoch++)
            free(audit.seen[slot][epoch]);
    return found;
}
