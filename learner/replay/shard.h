/*
 * shard.h - one replay shard: the machine between the actors' rows, the store and the learner.
 *
 * A state machine (common/wire/machine.h) that calls its store directly; everything else - sockets,
 * clock, signals - is the host's. What it promises (PROTOCOL, sections 2, 3, 5, 6): a row is
 * acknowledged only after the transaction that holds it is synced; none is stored twice; a request
 * with a window gets the same slices however often it is repeated.
 *
 * Group commit: receiving opens a transaction, shard_commit syncs it and lets go what waited for it
 * (acknowledgements, Welcomes, slices). The host calls shard_commit as soon as it has no more messages
 * to feed, and while busy at shard_commit_due at the latest.
 *
 * Owns:    the store, the table of streams, one buffer for slices.
 * Thread:  one, the loop's.
 */
#ifndef TD_REPLAY_SHARD_H
#define TD_REPLAY_SHARD_H

#include "common/store/store.h"
#include "common/store/store.h"
#include "common/util/error.h"
#include "common/wire/machine.h"

typedef struct shard shard_t;

struct shard_config {
    uint64_t run;     /* 0: that of the store or of the first learner */
    uint64_t process; /* random, of this start */
    uint32_t shard;   /* its number */
    const char *dir;  /* of the store; copied */
    /* addresses told to the learner in Hello; control may be empty: nobody is told */
    char control[WIRE_ADDRESS_MAX];
    char ingest_ipc[WIRE_ADDRESS_MAX], ingest_tcp[WIRE_ADDRESS_MAX];
    char sample[WIRE_ADDRESS_MAX];
    uint64_t commit_interval_ms;
    uint64_t lock_wait_ms; /* for the store's last owner */
    uint64_t bytes_limit;  /* of a new store's map; 0: none */
    bool compress_frames;  /* of segments made from now on */
    bool force;            /* an unsafe file system is fine */
    store_progress *progress; /* of checking the store before it is opened; may be NULL */
};

struct shard_output {
    uint32_t kind; /* enum output_kind */
    struct peer peer;
    union {
        struct message message;         /* OUTPUT_SEND */
        char address[WIRE_ADDRESS_MAX]; /* OUTPUT_CONNECT: the learner's control, peer.id 0 */
        struct output_log log;
        struct output_exit exit;
    };
};

/*
 * Open the store if there is one, else it is made at the learner's first SampleHello. One that is damaged is
 * set aside, what is whole of it served from a new file (store_rescue), and said line by line. Fails as
 * store_open and store_rescue do (but for TD_ENOTFOUND).
 */
int shard_create(shard_t **out, const struct shard_config *config, uint64_t now_ms,
                 struct error *err);

/* Abandon: what is not committed is lost, as in a kill. */
void shard_destroy(shard_t **shard);

void shard_receive(shard_t *shard, uint64_t now_ms, const struct peer *peer,
                   const struct message *message);
void shard_tick(shard_t *shard, uint64_t now_ms);

/* When shard_tick wants to be called at the latest. */
uint64_t shard_deadline(const shard_t *shard);
bool shard_next(shard_t *shard, struct shard_output *output);

/* True when something waits for shard_commit; and when it must be called even while busy. */
bool shard_dirty(const shard_t *shard);
uint64_t shard_commit_due(const shard_t *shard);

/* Sync what was received and let its answers go. */
void shard_commit(shard_t *shard, uint64_t now_ms);

/*
 * SIGTERM. At once (the learner whose child it is has died): sync, OUTPUT_EXIT. Else acknowledge until
 * learner and actors have left, 10 s at most.
 */
void shard_terminate(shard_t *shard, uint64_t now_ms, bool at_once);

/* For stats and tests. */
struct shard_view {
    const struct store_counts *counts; /* NULL: no store yet */
    uint64_t episodes, episode_steps, episode_rows; /* that may be drawn now */
    uint64_t window_first, window_last, window_rows;
    uint64_t rows_stored, rows_repeated, rows_refused, rows_delayed; /* in this process's life */
    uint64_t slices, commits, evicted, rewinds, aborted, sealed, segments_bad;
    bool rescued;       /* its file was damaged; what was whole of it is served from a new one */
    uint64_t rows_lost; /* acknowledged ones, to that; and episodes of which nothing is known */
    uint64_t episodes_lost;
    bool lost_uncertain; /* perhaps more than that */
    uint64_t streams_live;
    uint64_t credit; /* LIMIT_NONE: no limit */
    uint32_t learner_epoch;
    uint64_t learner_heard_ms;
    double room; /* share of the map that is free */
    uint64_t used; /* bytes of it that are not */
    bool full, asks_checkpoint, learner_away;
    char wait[OUTPUT_TEXT_MAX]; /* what is waited for, in words; empty: nothing */
};
void shard_view(const shard_t *shard, uint64_t now_ms, struct shard_view *view);

/* The store, for tests and audits; NULL before it is made. */
store_t *shard_store(shard_t *shard);

#endif
