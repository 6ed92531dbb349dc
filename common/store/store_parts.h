/*
 * store_parts.h - what the files of the store share; nobody else includes it.
 *
 *   store.c          the transaction, counts, room
 *   store_open.c     making, finding, checking
 *   store_clean.c    was it closed cleanly, is its tree whole
 *   store_streams.c  the table of streams
 *   store_rows.c     rows in: appends, sealing, publishing
 *   store_episodes.c the index, rows out, eviction, rewinding
 *   verify.c         every hash, for verify.h
 *   wreck.c          what a damaged file says beside its segments
 *   salvage.c        its rows into a new store
 *   rescue.c         which takes its place
 *
 * Tables in LMDB (numbers little-endian, keys of the ordered ones big-endian):
 *
 *   meta      "manifest" -> struct manifest_value, "counts" -> struct counts_value
 *   streams   slot, env (big-endian) -> struct stream_value
 *   open      slot, env, sequence (big-endian) -> struct open_value, rows
 *   episodes  id (native u64) -> struct store_record
 *   segments  id << 16 | index (native u64) -> a segment
 */
#ifndef TD_STORE_PARTS_H
#define TD_STORE_PARTS_H

#include <lmdb.h>

#include "common/store/store.h"
#include "common/store/tree.h"

#define STORE_MAGIC   "TDSTORE1"
#define STORE_CONDEMNED "condemned" /* a file that says why the data file must not be written to any more */
/*
 * 1 had no hashes in counts, streams and episodes, 2 none of the keys of appends, 3 no narrow segments; all are
 * read and kept as they are
 */
#define STORE_VERSION 4u

struct manifest_value {
    char magic[8];
    uint32_t version;
    uint32_t shard;
    struct row_schema schema;
    uint32_t reserved;
    uint64_t run_id, store_id, map_bytes;
    uint64_t hash; /* of the above */
};

struct counts_value {
    uint64_t rows, steps, sealed, aborted, generation;
    uint32_t learner_epoch;
    uint32_t slots; /* highest known and one */
    uint64_t hash;  /* of the above; from version 2 on, as the next */
};

struct stream_value {
    uint64_t epoch, next, steps, holder, open_rows, waiting;
    uint64_t hash; /* of its key and the above */
};

/* In front of the rows of one append. */
struct open_value {
    uint64_t hash; /* of the key and all that follows; before version 3: of the rows */
    uint32_t rows;
    uint32_t epoch; /* of the stream, its low half; before version 3: 0 */
};

struct stream_key {
    uint32_t slot, env; /* big-endian */
};

struct open_key {
    uint32_t slot, env;
    uint64_t sequence; /* all big-endian */
};

struct stream_entry {
    struct store_stream stream;
    bool dirty; /* not yet written in the open transaction */
};

/* A growing list of episode ids. */
struct id_list {
    uint64_t *ids;
    size_t count, capacity;
};

struct store {
    char dir[4096];
    int lock_fd;
    MDB_env *env;
    MDB_dbi meta, streams_dbi, open, episodes_dbi, segments;
    MDB_txn *txn;    /* the open transaction, or NULL */
    MDB_txn *reader; /* reset between uses */
    bool reading;
    bool read_only; /* nothing may be written here */
    bool failed; /* the disk failed: nothing but closing is left */
    bool checked; /* the tree was found whole, in this opening */
    bool opened; /* wholly: closing it leaves the mark of a clean close */
    bool was_clean; /* that mark was there */
    uint32_t version; /* of the format of what is stored */

    struct store_identity identity;
    struct store_counts counts;
    uint32_t segment_rows; /* of a full segment */
    size_t stride;
    size_t page;
    packer_t *packer; /* what is packed or narrow is made whole there */
    char *scratch;  /* compress_frames, narrow: a segment plain, then packed; else NULL */

    struct stream_entry *streams; /* sorted by (slot, env) */
    size_t stream_count, stream_capacity;

    struct store_episode *episodes; /* of ids base.. ; those below counts.first are gone */
    uint64_t base;
    size_t episode_capacity;
    uint64_t committed; /* sealed at the last commit, less what was rewound since */

    struct store_record *sealed; /* in the open transaction: index records, written at its end */
    size_t sealed_count, sealed_capacity;

    struct id_list staged; /* published in the open transaction */
    struct id_list news;
    bool staged_rebuilt, news_rebuilt;

    const char *map; /* where the file's first byte lies in memory */
    uint64_t room;  /* bytes free after the last commit */
    uint64_t spent; /* and used since, from above */
    uint64_t unwalked; /* spent since the free list was last walked */
    uint64_t used;     /* bytes of the file that are pages, at the last commit; 0: none yet */
    uint64_t ahead;    /* the file's bytes before this are there, pages or zeros */
    uint64_t taken;    /* and for those before this the disk has room; 0: not asked yet */
};

/* LMDB's code as ours, with a sentence: "cannot <verb> the replay store in <dir>: <why>". */
int store_check(struct store *store, int rc, const char *verb, struct error *err);

/* A value of the table `meta`; the counts as one of them. */
int store_put(struct store *store, MDB_dbi dbi, const char *name, const void *bytes, size_t length,
              struct error *err);
int store_write_counts(struct store *store, struct error *err);

/* How much of the map is free, after a commit. */
void store_measure_room(struct store *store);

/* Begin the transaction if there is none. */
int store_begin(struct store *store, struct error *err);

/* A change failed: undo the transaction, pass the code on. */
int store_undo(struct store *store, int rc);

/* Begin or renew the read transaction. */
int store_reader(struct store *store, struct error *err);

/* Read streams and episodes from the committed state, forgetting what is in memory. */
int store_load(struct store *store, struct error *err);
int store_load_streams(struct store *store, MDB_txn *txn, struct error *err);
int store_load_episodes(struct store *store, MDB_txn *txn, struct error *err);

/* Bytes of a value with a hash at its end: of its key, then of itself. Version 1 has none. */
uint64_t value_hash(const void *key, size_t key_size, const void *value, size_t size);
size_t hashed_size(const struct store *store, size_t size);
bool hash_holds(const struct store *store, const void *key, size_t key_size, const void *value, size_t size);

/*
 * store_clean.c: the mark of a clean close, and what is done without one. TD_OK; TD_ENOTFOUND: the file's
 * creation was cut short, nothing is in it; TD_ECORRUPT and others of tree_check.
 */
int clean_check(struct store *store, const struct store_config *config, struct error *err);
int clean_missing(const struct store *store, struct error *err); /* where no data file is */
struct tree_options store_tree_options(void); /* the tables that a data file has */
int clean_forget(const struct store *store, struct error *err);
void clean_leave(const struct store *store);

/* Both metas, before a commit, to put the older one back should it fail. */
#define STORE_META_BYTES 152u
struct store_metas {
    char bytes[2][STORE_META_BYTES];
};
void clean_copy_metas(const struct store *store, struct store_metas *metas);
void clean_restore_meta(const struct store *store, const struct store_metas *metas);

/* The value's overflow run, about to be freed, must name its own pages: LMDB frees what its header says. */
int store_mend_run(struct store *store, const MDB_val *value, struct error *err);
int store_find_map(struct store *store, const MDB_val *value); /* a committed value in a leaf; an LMDB code */

/*
 * store_ahead.c: before each commit, have room for it on the disk (TD_EFULL names what is needed); after it,
 * keep the file ahead of its pages.
 */
int store_absent(const char *dir, struct error *err); /* why there is no store in dir, in a sentence: TD_ENOTFOUND, TD_EINVAL */
int store_take_room(struct store *store, struct error *err);
void store_prepare_file(struct store *store);

/* store_streams.c */
struct stream_entry *stream_find(const struct store *store, uint32_t slot, uint32_t env);
int streams_write(struct store *store, struct error *err);
struct stream_key stream_key(uint32_t slot, uint32_t env);

/* Know a stream that nobody holds, whose epochs go on above this one. In an open transaction. */
int streams_inherit(struct store *store, uint32_t slot, uint32_t env, uint64_t epoch);

/* store_rows.c: seal the stream's open rows and `count` more into the next episode. */
int rows_seal(struct store *store, struct stream_entry *entry, const void *rows, uint32_t count,
              uint32_t flags, struct error *err);
void rows_publish(struct store *store, uint64_t id);
uint64_t episode_rows_max(const struct store *store); /* of the longest */
int rows_drop_open(struct store *store, const struct store_stream *stream, struct error *err);

/*
 * One append by itself: is its value [size] whole, of whole rows, and, from version 3 on, of this key? `head`
 * gets what is in front of the rows.
 */
bool append_holds(uint32_t version, size_t stride, const struct open_key *name, const void *value, size_t size,
                  struct open_value *head);

/* Do the appends belong to their streams and follow each other, by their keys and sizes? An LMDB code. */
int rows_check_open(struct store *store, MDB_txn *txn);

/*
 * store_episodes.c. record_take: the index record that a value is; one that fails its hash is made again
 * from its episode's first segment (*mended, may be NULL). An LMDB code.
 */
int record_take(struct store *store, MDB_txn *txn, uint64_t id, const MDB_val *value,
                struct store_record *record, bool *mended);
bool record_holds(uint64_t id, const struct store_record *record); /* its check, from version 2 on */
int episodes_check_last(struct store *store, MDB_txn *txn); /* no segment is numbered like one to come? */
int episodes_push(struct store *store, const struct store_record *record, struct error *err);
int episodes_write(struct store *store, struct error *err); /* what was pushed, before a commit */
uint32_t episode_segments(const struct store *store, uint32_t rows);
uint64_t episode_bytes(const struct store *store, uint32_t rows);
bool segment_fits(const struct store *store, const struct segment_head *head, uint64_t id,
                  uint32_t index, uint32_t rows); /* what the index promises? */
int id_list_push(struct id_list *list, uint64_t id);

static inline uint64_t segment_key(uint64_t id, uint32_t index)
{
    return id << 16 | index;
}

#endif
