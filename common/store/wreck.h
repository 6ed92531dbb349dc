/*
 * wreck.h - what a damaged data file still says beside its segments: who it was, how far its streams were,
 * which episodes it kept, which rows of episodes under way.
 *
 * Two ways lead there. Counts, streams and the manifest carry a hash over their name and value, so any page
 * that holds one is believed, the newest of each; nothing needs to lead to it. So have
 * rows of episodes under way from version 3 on, over stream, epoch and sequence: found anywhere they fill gaps of
 * what a stream says it had. Else index records and rows under way are taken only where a patient walk of the
 * tree (tree.h) reaches them: a page that was let go may hold others under the same name.
 *
 * Owns:    its lists. Borrows the bytes.
 * Thread:  any.
 */
#ifndef TD_STORE_WRECK_H
#define TD_STORE_WRECK_H

#include "common/store/store_parts.h"

struct wreck_stream {
    uint32_t slot, env;
    uint64_t epoch, next, open_rows; /* epoch 0: no record of it is left, only rows under way */
};

struct wreck_record {
    uint64_t id;
    struct store_record record;
};

/* An append of rows under way whose hash holds. */
struct wreck_append {
    uint32_t slot, env;
    uint64_t sequence;
    uint32_t rows, epoch; /* epoch: its low half; 0 before version 3 */
    size_t offset; /* of them, in the file */
    bool clash;    /* another claims some of its rows: none of them is believed, none is kept */
    bool live;     /* the tree has it; else only the tree before the last transaction, or a page by itself */
};

struct wreck {
    bool has_manifest, has_counts;
    struct manifest_value manifest;
    struct counts_value counts;
    uint64_t map_bytes; /* by the manifest or a meta; 0: unknown */
    struct wreck_stream *streams; /* by (slot, env) */
    size_t stream_count;
    struct wreck_record *records; /* by id */
    size_t record_count;
    struct wreck_append *appends; /* by (slot, env, sequence) */
    size_t append_count;
    uint64_t episodes; /* that the index has by its own word; 0: not known */
    struct error fault; /* of the tree; code TD_OK: it is whole */
    bool complete; /* counts and streams are those of the newest state: what is missing can be told */
};

/*
 * Read `bytes` [length] of the file at `path`; both are what is mapped of it and how to open it. TD_OK,
 * whatever was found; TD_ENOMEM, TD_EIO.
 */
int wreck_read(struct wreck *wreck, const char *path, const char *bytes, size_t length, struct error *err);
void wreck_release(struct wreck *wreck);

/* NULL when it is not known. */
const struct wreck_stream *wreck_stream(const struct wreck *wreck, uint32_t slot, uint32_t env);
const struct store_record *wreck_record(const struct wreck *wreck, uint64_t id);

#endif
