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
    uint64_t whole, whole_rows; /* episodes without a fault, what an export writes; and their rows */
    uint64_t open_rows; /* of `rows`: of episodes under way */
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

#define SALVAGE_STREAMS 16 /* named in a report */

/* What a stream has lost; of rows under way those that no episode holds yet. */
struct salvage_loss {
    uint32_t slot, env;
    uint64_t rows, episodes;
};

struct salvage_report {
    uint64_t segments;         /* whole heads found */
    uint64_t bad_blocks;       /* blocks of theirs that fail their hash */
    uint64_t foreign;          /* heads of another run or schema than most */
    uint64_t episodes, whole;  /* saved; of them without a missing row */
    uint64_t rows;             /* saved */
    uint64_t open_rows;        /* of them of episodes that were under way */
    struct row_schema schema;
    uint64_t run_id;
    /* lost, as far as index, streams and the parts that were found tell */
    uint64_t lost_rows, lost_episodes; /* episodes: with a row missing */
    uint64_t unknown_episodes;         /* of which nothing was found */
    struct salvage_loss losses[SALVAGE_STREAMS];
    int loss_count;
    bool more_losses; /* of other streams */
    bool uncertain;   /* the newest state of the file is not known: more than that may be lost */
};

/*
 * Find segments in dir's data file by their magic, without LMDB, and put the rows whose hashes hold into
 * a new store in `out`: whole episodes, and runs of rows of those with gaps (marked aborted). Episodes
 * that had been evicted or rewound and not yet been overwritten come back too. Rows of episodes that
 * were under way follow as aborted ones, where the tree still leads to them. The store's id is a new one, its counts of rows and
 * steps taken in begin at 0, as after a rescue. `out` must be a new or an empty folder.
 * TD_OK; TD_ENOTFOUND when there is no file or no segment in it; TD_ELOCKED; what store_open says of `out`,
 * which must not hold a store yet.
 */
int store_salvage(const char *dir, const char *out, bool force, uint64_t lock_wait_ms,
                  struct salvage_report *report, verify_progress *progress, void *context,
                  struct error *err);

struct rescue_report {
    char aside[512];  /* the damaged file's new name, in the store's folder */
    uint64_t store_id; /* of the new store */
    struct salvage_report salvaged;
};

/*
 * The data file of config->dir is damaged: put what is whole of its episodes and of rows under way into a new
 * file in its place, and set it aside under a name with the time. Epochs of streams and of the learner go on
 * above what was known, nobody holds a stream, the store has a new id: rows of the old one are neither asked
 * for again nor stored twice, its writers say Hello and go on in a new epoch. Counts of rows and steps taken
 * in begin at 0, since those saved were counted under the old id.
 *
 * Either all of it is done or nothing is changed, whenever the process ends. TD_OK; TD_EFULL: no room for
 * both files, with a sentence; TD_ENOTFOUND: nothing can be told of it; TD_ELOCKED; TD_EIO; TD_ENOMEM.
 */
int store_rescue(const struct store_config *config, struct rescue_report *report, struct error *err);

#endif
