/*
 * shard_parts.h - what the files of the shard's machine share; nobody else includes it.
 *
 *   shard.c         life, dispatch, time, commits, answers
 *   shard_ingest.c  what actors say: Hello, Rows, Leave
 *   shard_open.c    its store: opened, or rescued when it is damaged
 *   shard_sample.c  what the learner says: Hello, requests, credit, Rewind
 */
#ifndef TD_SHARD_PARTS_H
#define TD_SHARD_PARTS_H

#include "common/util/log.h"
#include "learner/replay/sampler.h"
#include "learner/replay/shard.h"
#include "learner/replay/streams.h"

#define SHARD_REQUESTS     4     /* open sample requests; the learner has at most two */
#define SHARD_HEARTBEAT_MS 2000u /* until the learner says otherwise */
#define SHARD_TIMEOUT_MS   3600000u
#define SHARD_STATUS_MS    5u    /* between two Status messages after commits */
#define SHARD_RETRY_MS     1000u /* after a full disk */
#define SHARD_NACK_MS      100u  /* before the same Nack is sent again */
#define SHARD_TXN_BYTES    ((uint64_t)8 << 20) /* a transaction is committed at this size, busy or not */
#define SHARD_EVICT_MOST   64u   /* episodes evicted per transaction, and two for each new one */
#define SHARD_LEAVE_MS     10000u
#define SHARD_ROWS_MAX     (UINT64_C(1) << 36) /* of a store; bounds what a learner may ask for */
#define SHARD_CREDIT_MAX   (UINT64_C(1) << 40) /* steps dealt at a time */

struct open_request {
    bool open;
    struct peer peer;
    struct sample_request request;
};

/* Lines that may repeat, each at most every five seconds. */
enum shard_line { LINE_REFUSED, LINE_FULL, LINE_BEYOND, LINE_FOREIGN, LINE_SQUEEZE, LINE_QUARANTINE, LINE_COUNT };

struct shard {
    struct shard_config config;
    char dir[4096];
    store_t *store;     /* NULL until it is made */
    sampler_t *sampler; /* NULL until the learner has said how to sample */
    uint64_t run;
    uint64_t now_ms;

    /* the learner */
    bool joined;
    struct peer learner;
    uint64_t learner_heard_ms;
    struct sample_hello terms; /* of its SampleHello */
    bool left;                 /* it said Leaving or Stop */
    uint64_t retain;           /* lock-step: first episode that a checkpoint needs */
    uint64_t credit;           /* agent steps the store may hold in all */
    uint32_t credit_epoch;     /* 0: none given yet */
    struct open_request requests[SHARD_REQUESTS];

    struct streams streams;
    struct share *shares; /* scratch for dealing, as many as streams */
    size_t share_capacity;

    struct output_queue outputs;
    struct output_queue held; /* go out after the commit */
    void *slices;             /* the buffer that Slices are drawn into */
    size_t slices_size;

    uint64_t dirty_since_ms, dirty_bytes;
    struct store_counts synced; /* as of the last commit */
    uint64_t full_until_ms;
    uint64_t bad_reported;
    bool status_wanted;
    uint64_t status_ms, hello_ms, heartbeat_ms, swept_ms;
    uint64_t line_ms[LINE_COUNT];
    unsigned line_repeats[LINE_COUNT];

    bool terminating, exited;
    uint64_t terminate_ms;

    struct shard_view tally; /* its counters */
};

/* shard.c */
struct shard_output *shard_push(struct shard *shard, uint32_t kind);

/* A message of this kind to peer, to be filled; at once, or when what is open now is synced. */
struct message *shard_send(struct shard *shard, const struct peer *peer, uint32_t kind);
struct message *shard_send_synced(struct shard *shard, const struct peer *peer, uint32_t kind);
void shard_log(struct shard *shard, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, at most once in five seconds; what was passed over is counted in the next. */
void shard_line(struct shard *shard, enum shard_line line, int level, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void shard_exit(struct shard *shard, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void shard_refuse(struct shard *shard, const struct peer *peer, uint32_t code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Something was added to the open transaction. */
void shard_touched(struct shard *shard, uint64_t bytes);

/* A store operation failed: back-pressure for a full disk, the end for anything else. */
void shard_store_failed(struct shard *shard, int rc, const struct error *err);
void shard_forget_open(struct shard *shard);
bool shard_paused(const struct shard *shard); /* no rows are taken now */

/* Open or make it, as `config` says; shard->store. */
int shard_open_store(struct shard *shard, const struct store_config *config, struct error *err);

/* Tell streams what was committed, and their limits where these changed. */
void shard_tell_streams(struct shard *shard);

/* Deal the credit over the live streams. */
void shard_deal(struct shard *shard);
bool stream_live(const struct shard *shard, const struct live_stream *stream);

/* shard_ingest.c */
void ingest_receive(struct shard *shard, const struct peer *peer, const struct message *message);

/* shard_sample.c */
void sample_receive(struct shard *shard, const struct peer *peer, const struct message *message);
void sample_status(struct shard *shard, struct status *status);

/* Is this open request due? And its answer, into `output`. */
bool sample_ready(const struct shard *shard, const struct open_request *open);
void sample_answer(struct shard *shard, struct open_request *open, struct shard_output *output);

/* Let the sampler see what was committed; free what no window needs. */
void sample_committed(struct shard *shard);
void sample_evict(struct shard *shard);
bool sample_wants_checkpoint(const struct shard *shard);

#endif
