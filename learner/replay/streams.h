/*
 * streams.h - what the shard answers to a stream's rows and Hellos, and how credit is dealt.
 *
 * The judgements are the table of PROTOCOL, section 2, as pure functions of the durable record. The
 * table holds what is known of a stream in this process's life only.
 *
 * Owns:    one small record per stream heard of.
 * Thread:  one.
 */
#ifndef TD_REPLAY_STREAMS_H
#define TD_REPLAY_STREAMS_H

#include "common/store/store.h"
#include "common/wire/message.h"

/* --- judgements ------------------------------------------------------------ */

enum rows_answer {
    ROWS_STORE,  /* the next ones, from row `skip` on */
    ROWS_REPEAT, /* all stored before: acknowledge again */
    ROWS_GAP,    /* beyond the next one: Nack */
    ROWS_FENCED, /* another process holds the slot */
    ROWS_REJOIN, /* say Hello */
    ROWS_LATE,   /* the holder's own, of an epoch gone by: ignore */
};

/* stream may be NULL: unknown. */
enum rows_answer rows_judge(const struct store_stream *stream, uint64_t store_id,
                            const struct rows *rows, uint32_t *skip);

enum hello_answer {
    HELLO_SAME,   /* goes on with the epoch it has */
    HELLO_GRANT,  /* gets a new one, *epoch */
    HELLO_FENCED, /* another process holds the slot */
};

enum hello_answer hello_judge(const struct store_stream *stream, uint64_t store_id, uint64_t process,
                              const struct stream_shown *shown, uint64_t *epoch);

/* --- the table ------------------------------------------------------------- */

struct live_stream {
    uint32_t slot, env;
    struct peer peer;   /* where answers go; id 0: not heard of yet */
    uint64_t since_ms;  /* silent since */
    uint64_t active_ms; /* last rows stored */
    uint64_t limit;     /* agent steps its epoch may hold */
    uint64_t told;      /* the limit it was told last */
    bool ack;           /* its rows wait for the commit, or their sender for an answer */
    bool starved;       /* rows were turned away: ask for them when there is room */
    bool over;          /* because they were beyond its limit */
    double beyond;      /* rows that have come beyond it of late */
    uint64_t beyond_ms; /* when that was worked out */
    uint64_t nack_next, nack_ms; /* the last Nack */
    uint64_t seating;   /* of the holder, as it showed; 0: not known in this life of the shard */
};

/*
 * How many rows of `count` there is room for: what its limit leaves (it holds `steps`), and a few beyond, for
 * those that were on their way when a limit came: STREAM_BEYOND of them, and STREAM_BEYOND_PER_S as time goes
 * by. Its share of the store is its limit, and this bounds what a stream takes that heeds none.
 */
#define STREAM_BEYOND       512.0
#define STREAM_BEYOND_PER_S 8.0
uint32_t stream_room(struct live_stream *live, uint64_t steps, uint32_t count, uint64_t now_ms);

/* So many were stored. */
void stream_took(struct live_stream *live, uint64_t steps, uint32_t count);

struct streams {
    struct live_stream *list; /* sorted by (slot, env) */
    size_t count, capacity;
    size_t turn; /* who gets the next odd step of credit */
};

/* The record of this stream, made if need be; NULL when out of memory. Moves the others. */
struct live_stream *streams_get(struct streams *streams, uint32_t slot, uint32_t env, uint64_t now_ms);
struct live_stream *streams_find(const struct streams *streams, uint32_t slot, uint32_t env);

/* Everything this peer speaks for was heard of now. */
void streams_heard(struct streams *streams, const struct peer *peer, uint64_t now_ms);
void streams_clear(struct streams *streams);
void streams_release(struct streams *streams);

/* --- credit ---------------------------------------------------------------- */

/* One live stream's part: it may hold `limit` steps and holds `steps`. */
struct share {
    uint64_t steps, limit;
};

/* An even share of so many steps is taken back from others for who has less than half of it. */
#define CREDIT_EVEN 64

/*
 * Deal `rest` steps over the shares so that they differ by at most one where possible: what is not
 * used stays where it is, new steps go to who has least, and a smaller rest is taken from who has
 * most. Where shares are large, who has little is not left to wait for the others to use theirs (one
 * that joins while all seeding steps are dealt): all become even. Odd steps go round: *turn is moved.
 * Afterwards the sum of (limit - steps) is exactly rest.
 */
void credit_deal(struct share *shares, size_t count, uint64_t rest, size_t *turn);

#endif
