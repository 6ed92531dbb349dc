/*
 * store.h - the durable replay table of one shard, on LMDB: rows in, sealed episodes out.
 *
 * A stream is (slot, environment); its rows come in order, numbered from 0 in each epoch. Rows of an
 * episode under way lie in small appends; the row that ends it, or the closing of its stream, seals
 * it into segments (segment.h) in the same transaction. Episodes are numbered in the order of their
 * sealing. A sealed episode is *published* - free to be drawn - when the reset row of its successor
 * arrives or its stream closes.
 *
 * Everything that changes the store belongs to one open transaction, begun by the first change and
 * ended by store_commit (synced: what it said is durable) or store_abort. The counts, streams and
 * episodes read back here include the open transaction's changes; rows are read from the last
 * committed state. When a transaction fails or is aborted, all of it is as before.
 *
 * Owns:    the LMDB environment, the directory's lock, the table of streams and 8 bytes per episode.
 * Thread:  one.
 */
#ifndef TD_STORE_STORE_H
#define TD_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/store/row.h"
#include "common/store/segment.h"
#include "common/util/error.h"

#define STORE_NONE        UINT64_MAX /* no episode */
#define STORE_STREAMS_MAX 65536u     /* streams a store remembers */
#define STORE_LOCK_WAIT_MS 15000u    /* a start, verify or export waits so long for the owner to go */

typedef struct store store_t;

/* Called now and then with how much is done and in all. */
typedef void store_progress(void *context, uint64_t done, uint64_t total);

struct store_config {
    const char *dir;          /* created, with its parents, when a schema is given */
    struct row_schema schema; /* obs_type 0: take an existing store as it is */
    uint64_t run_id;          /* 0: any */
    uint32_t shard;           /* its number; asked for at creation, checked unless any_shard */
    bool any_shard;
    uint64_t rows;            /* that a new store's map must have room for; half as much is added */
    uint64_t used;            /* of them so many are expected to come: the disk must have room for these; 0: all */
    uint64_t row_bytes;       /* of a row in the mean, where `narrow` makes them shorter; 0: as the schema has them */
    uint64_t map_bytes;       /* of a new store, instead of the above; 0: from rows */
    uint64_t bytes_limit;     /* largest map of a new store (`disk_limit`); 0: none */
    uint64_t lock_wait_ms;    /* how long to wait for the owner to go */
    bool compress_frames;     /* of segments made from now on; those that are there are read either way */
    bool narrow;              /* leave zero columns at the end of states and actions out, the same way */
    bool force;               /* go on where the file system is unsafe */
    bool reading;             /* nothing will be changed: open also where nothing may be written */
    bool check;               /* walk the tree even after a clean close, and every run's header */
    store_progress *progress; /* of that walk, past 2 s; may be NULL */
    void *context;
};

/* What was fixed at creation. */
struct store_identity {
    uint64_t run_id;
    uint64_t store_id; /* random, never 0 */
    uint32_t shard;
    struct row_schema schema;
    uint64_t map_bytes;
    bool created; /* by this opening */
};

/*
 * Open or create. Prints nothing; store_counts tells the room. A store that was not closed cleanly has its
 * tree checked first, in a child process (tree.h). Errors, each with a sentence:
 * TD_ENOTFOUND no store there and no schema given, TD_ELOCKED its owner's pid and state, TD_EFOREIGN
 * another run, schema, shard or version (both named), TD_EFULL not enough disk or over bytes_limit,
 * TD_EINVAL an unsafe file system, TD_ECORRUPT, TD_EIO, TD_ENOMEM.
 */
int store_open(store_t **out, const struct store_config *config, struct error *err);

/*
 * Rows are read in place: where the disk cannot read them, or the file was cut short under us, the kernel
 * says SIGBUS. From now on that ends the process with a sentence about `dir` on stderr and TD_EXIT_GAVE_UP.
 */
void store_guard(const char *dir);

/*
 * Something failed as damaged while the store was in use: from now on whoever would write to it is refused,
 * TD_ECORRUPT with this sentence, until it was rescued (verify.h).
 */
void store_condemn(store_t *store, const struct error *why);

/*
 * As store_config.narrow, of a store that was opened without: segments made from now on are narrow. Nothing where rows
 * are frames, or the store is of a format before 4. TD_OK, TD_ENOMEM.
 */
int store_narrow(store_t *store, struct error *err);

/* What store_open would find. */
struct store_outlook {
    bool exists;
    uint64_t run_id;                   /* whose it is; 0: there is none, or it cannot be read yet */
    uint64_t needed_bytes, free_bytes; /* for config->used rows (rows), and on the disk */
};

/*
 * Would store_open succeed, and make or find what? Leaves nothing behind. Errors as store_open's; a
 * missing store is none. The schema must be given.
 */
int store_look(struct store_outlook *outlook, const struct store_config *config, struct error *err);

/* Drop the open transaction and let go; what was committed stays. Accepts NULL and half-built ones. */
void store_close(store_t **store);

/* Disk that so many rows take, episodes of common lengths assumed; row_bytes: as in store_config. */
uint64_t store_bytes_needed(const struct row_schema *schema, uint64_t rows, uint64_t row_bytes);

/* row_bytes of rows with so many observations and actions. */
uint64_t store_row_bytes(uint32_t obs_dim, uint32_t action_dim);

const struct store_identity *store_identity(const store_t *store);

/* --- counts ---------------------------------------------------------------- */

struct store_counts {
    /* durable, rewound by store_rewind */
    uint64_t rows;   /* taken in, in all */
    uint64_t steps;  /* of them agent steps: reset rows apart */
    uint64_t sealed; /* episodes in all: the id of the next */
    /* durable, never rewound */
    uint64_t aborted;    /* episodes cut short */
    uint64_t generation; /* of the last rewind */
    uint32_t learner_epoch;
    bool has_slot;
    uint32_t slot; /* highest known */
    /* of now */
    uint64_t first;       /* oldest episode whose pages are kept */
    uint64_t held_rows;   /* in sealed episodes that are kept */
    uint64_t open_rows;   /* in episodes under way */
    uint64_t bytes;       /* of segments kept, as if none were compressed */
    uint64_t streams;     /* known */
    uint64_t damaged;     /* episodes kept that must not be drawn: failed their hash */
    uint64_t bad;         /* segments that failed their hash since opening */
};
const struct store_counts *store_counts(const store_t *store);

/* Of the map: bytes in all and bytes free (an estimate from below; after commits only). */
uint64_t store_room(const store_t *store);

/*
 * True when nothing more may be inserted until episodes are evicted. A part of the map stays free for
 * what must still be possible: sealing what is open, evicting.
 */
bool store_full(const store_t *store);

/* --- the transaction ------------------------------------------------------- */

/* True when a transaction is open: something waits to be committed. */
bool store_dirty(const store_t *store);

/*
 * Make everything since the last commit durable. TD_OK also when there was nothing. TD_EFULL: disk or
 * map full, all undone, nothing was written, try again later; TD_EIO: the disk failed, all undone, the store
 * must be closed.
 */
int store_commit(store_t *store, struct error *err);

/* Undo everything since the last commit. */
void store_abort(store_t *store);

/*
 * Episodes published by the last commit, for samplers; when `rebuilt` is not 0 the table changed
 * otherwise too (abort, rewind) and must be read anew. Ids need not be in order.
 */
struct store_news {
    const uint64_t *published;
    size_t count;
    bool rebuilt;
};
struct store_news store_news(store_t *store); /* reading it takes it */

/* --- streams --------------------------------------------------------------- */

struct store_stream {
    uint32_t slot, env;
    uint64_t epoch;     /* 0: never granted */
    uint64_t next;      /* sequence expected */
    uint64_t steps;     /* agent steps of this epoch */
    uint64_t holder;    /* process id; 0: closed */
    uint64_t open_rows; /* of the episode under way */
    uint64_t waiting;   /* sealed episode not yet published, or STORE_NONE */
    uint32_t task;      /* of the episode under way and one; 0: not known since opening */
};

/* Known streams in order of (slot, env); pointers are good until the next change. */
size_t store_stream_count(const store_t *store);
const struct store_stream *store_stream_at(const store_t *store, size_t index);
const struct store_stream *store_stream(const store_t *store, uint32_t slot, uint32_t env);

/*
 * Close the stream's epoch, if any, and begin `epoch` (above the last) for `holder` (not 0). TD_OK;
 * TD_EFULL when the table is full; as in all changes, LMDB's failures undo the whole transaction.
 */
int store_grant(store_t *store, uint32_t slot, uint32_t env, uint64_t epoch, uint64_t holder,
                struct error *err);

/* Seal the open episode as aborted, publish the waiting one, forget the holder. Unknown: TD_OK. */
int store_close_stream(store_t *store, uint32_t slot, uint32_t env, struct error *err);

/* Remember a newer learner epoch; an older one changes nothing. */
int store_learner_epoch(store_t *store, uint32_t epoch, struct error *err);

/* --- rows in --------------------------------------------------------------- */

/*
 * Would these rows continue the stream: ROW_FIRST exactly where an episode begins, one task in an episode, no
 * episode longer than the store holds? NULL, or what is wrong with row *which.
 */
const char *store_rows_check(const store_t *store, const struct store_stream *stream,
                             const void *rows, uint32_t count, uint32_t *which);

/*
 * Add `count` checked rows (row_check, store_rows_check) as the next ones of a stream that is held.
 * TD_OK; TD_EFULL at once, changing nothing, while store_full; any other failure, TD_EFULL too, has
 * undone the whole transaction.
 */
int store_append(store_t *store, uint32_t slot, uint32_t env, const void *rows, uint32_t count,
                 struct error *err);

/* What the index says of an episode; also the origin of one inserted whole. */
struct store_record {
    uint32_t slot, env;
    uint64_t epoch;
    uint64_t sequence; /* of its first row */
    uint32_t rows;
    uint32_t steps; /* rows that are agent steps */
    uint32_t flags; /* enum episode_flags, and the task: the store's, from the first row */
    uint32_t check; /* the store's */
};

/*
 * Seal and publish a whole episode that belongs to no open stream (datasets, salvage, benchmarks). In slot
 * STORE_SLOT_OUTSIDE are those that a run was given to begin with: its rows, but no agent steps of it.
 */
#define STORE_SLOT_OUTSIDE UINT32_MAX
int store_insert(store_t *store, const struct store_record *record, const void *rows,
                 struct error *err);

/* --- episodes -------------------------------------------------------------- */

/* In memory, for every episode first..sealed-1. */
struct store_episode {
    uint32_t rows;
    uint32_t flags; /* enum episode_flags, its task (episode_task) and the two below */
};
#define STORE_PUBLISHED   (1u << 8)
#define STORE_QUARANTINED (1u << 9) /* a segment failed its hash since opening */
const struct store_episode *store_episode(const store_t *store, uint64_t id);

/* Episodes below this are committed: store_rows can read them. */
uint64_t store_committed(const store_t *store);

/* The index record of a committed episode. TD_OK, TD_ENOTFOUND, TD_EIO. */
int store_record(store_t *store, uint64_t id, struct store_record *record, struct error *err);

/*
 * Rows row..row+*count-1 of a committed episode, in place; *count is cut at the segment's end. Their
 * blocks' hashes are checked each time. Good until store_rows_end, which must come before the next
 * commit, and only until the next call: they may lie in the store's room for unpacked ones. Returns NULL when
 * the segment is bad: the episode is quarantined and counted.
 */
const void *store_rows(store_t *store, uint64_t id, uint32_t row, uint32_t *count);
void store_rows_end(store_t *store);

/* These rows will be wanted soon: let the disk begin. Reads nothing itself; ends with store_rows_end. */
void store_prefetch(store_t *store, uint64_t id, uint32_t row, uint32_t count);

/* A whole segment as it lies in the store, unchecked; NULL when there is none. */
const void *store_segment(store_t *store, uint64_t id, uint32_t index, size_t *length);

/* --- room and rewinding ---------------------------------------------------- */

/* Free the pages of at most `most` committed episodes below `before`. A failure undoes the transaction. */
int store_evict(store_t *store, uint64_t before, uint32_t most, struct error *err);

/*
 * Go back to the state with so many rows taken in and episodes sealed: later ones, rows of episodes
 * under way and every holder go; epochs stay. A generation not above the last changes nothing.
 * TD_OK; TD_EINVAL: this store was never in that state, or has let go of it.
 */
int store_rewind(store_t *store, uint64_t generation, uint64_t rows, uint64_t sealed,
                 struct error *err);

#endif
