/*
 * verify.h - every hash of a store, and its index against its segments; and saving what can be saved of
 * a store that LMDB cannot open any more.
 *
 * Thread:  the store's.
 */
#ifndef TD_STORE_VERIFY_H
#define TD_STORE_VERIFY_H

#include "common/store/store.h"

typedef store_progress verify_progress; /* in bytes */

struct verify_report {
    uint64_t episodes, segments, rows, bytes; /* read */
    uint64_t bad;      /* segments that fail their hash or are not what the index promises */
    uint64_t missing;  /* segments that the index promises and that are not there */
    uint64_t stray;    /* segments that no index record names */
    uint64_t bad_open; /* appends of episodes under way that fail their hash or leave a gap */
    uint64_t bad_records; /* of the index, made again from their segments */
    uint64_t damaged;  /* episodes marked damaged when they were sealed */
    uint64_t first_bad; /* the first episode with a fault, or STORE_NONE */
};

/*
 * Read all of it. TD_OK when everything was read, whatever it was like; else LMDB's fault. A broken tree
 * may also kill the process: run it in a child.
 */
int store_verify(store_t *store, struct verify_report *report, verify_progress *progress, void *context,
                 struct error *err);

/* No fault in the report? */
bool verify_clean(const struct verify_report *report);

struct salvage_report {
    uint64_t segments;         /* whole heads found */
    uint64_t bad_blocks;       /* blocks of theirs that fail their hash */
    uint64_t foreign;          /* heads of another run or schema than most */
    uint64_t episodes, whole;  /* saved; of them without a missing row */
    uint64_t rows;             /* saved */
    struct row_schema schema;
    uint64_t run_id;
};

/*
 * Find segments in dir's data file by their magic, without LMDB, and put the rows whose hashes hold into
 * a new store in `out`: whole episodes, and runs of rows of those with gaps (marked aborted). Episodes
 * that had been evicted or rewound and not yet been overwritten come back too. Rows of episodes that
 * were under way cannot be found that way. TD_OK; TD_ENOTFOUND when there is no file or no segment in
 * it; TD_ELOCKED; what store_open says of `out`, which must not hold a store yet.
 */
int store_salvage(const char *dir, const char *out, bool force, uint64_t lock_wait_ms,
                  struct salvage_report *report, verify_progress *progress, void *context,
                  struct error *err);

#endif
