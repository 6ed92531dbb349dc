/*
 * straw.h - a real replay shard among a learner and actors of straw, for benchmarks and tests.
 *
 * Starts tdmpc2-replay as a child, answers its Hello as a learner does, and lets any number of writers
 * send rows over their own connections: in chunks as fast as acknowledgements come, or one row at a
 * time at a pace. Rows say who they are, so that a store can be audited. Writers behave as actors: they
 * keep rows until acknowledged, resend after a Nack or a silence, rejoin a shard that was restarted.
 *
 * Owns:    the child, its sockets, the loop.
 * Thread:  the one that created it; the process's main thread.
 */
#ifndef TD_TOOLS_STRAW_H
#define TD_TOOLS_STRAW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/store/row.h"
#include "common/util/error.h"

typedef struct straw straw_t;

#define STRAW_RUN 0x57a0u /* the run id of all of it */

struct straw_config {
    const char *dir;     /* of the store; sockets and log beside it */
    const char *program; /* path of tdmpc2-replay, or its name beside this executable */
    struct row_schema schema;
    uint32_t writers;
    uint32_t chunk;      /* rows per message */
    uint32_t window;     /* messages a writer has unacknowledged */
    uint64_t pace_us;    /* between two messages of a writer; 0: as fast as they are acknowledged */
    uint32_t episode;    /* rows of each */
    uint32_t horizon, batch;
    uint64_t capacity, map_rows;
    uint32_t tasks;      /* 0: one; else writers are of tasks in turn, rows as straw_task_row has them */
    bool compress_frames;
    const uint8_t *frames; /* NULL, or the pictures [frame_count][obs_dim] that rows of frames show in turn */
    uint32_t frame_count;
};

struct straw_counts {
    uint64_t acked;   /* rows, over all writers */
    uint64_t sent;    /* rows, repeated ones too */
    uint64_t slices;  /* received */
    uint64_t batches;
    uint64_t restarts;
    uint64_t refused; /* Refused or Fenced: never in a healthy run */
};

/* Start the shard, join as its learner and wait until it serves. */
int straw_start(straw_t **out, const struct straw_config *config, struct error *err);

/* Ask the shard to leave and wait for it (10 s at most); accepts NULL. */
void straw_stop(straw_t **straw);

/* Turn writers and sampling on and off; requests are kept `depth` deep (0: off). */
void straw_write(straw_t *straw, bool on);
void straw_sample(straw_t *straw, uint32_t depth);

/* Let everything happen for so long. */
void straw_run(straw_t *straw, uint64_t ms);

/* kill -9 the shard; it is started again and all rejoin it. TD_OK or what starting says. */
int straw_kill(straw_t *straw, struct error *err);

const struct straw_counts *straw_counts(const straw_t *straw);
pid_t straw_pid(const straw_t *straw);

/* One writer's position: rows below `acked` of this epoch are promised. */
void straw_writer(const straw_t *straw, uint32_t writer, uint64_t *epoch, uint64_t *acked);

/* Acknowledgement times since the last call: a copy of at most `max`, in milliseconds. */
int straw_latencies(straw_t *straw, double *ms, int max);

/*
 * A store of `rows` rows as `config` has them (dir, schema, episode, compress_frames, frames) in published
 * episodes, written without a shard; its map has room for a quarter more. TD_OK or what the store says.
 */
int straw_fill(const struct straw_config *config, uint64_t run, uint64_t rows, struct error *err);

/* The row with this place in its stream, as writers send it. */
void straw_row(void *row, const struct row_schema *schema, uint32_t slot, uint64_t epoch,
               uint64_t sequence, uint32_t episode);

/* Make it one of task slot % tasks of states, the later the narrower: what is beyond its widths is zero. */
void straw_task_row(void *row, const struct row_schema *schema, uint32_t slot, uint32_t tasks);

#endif
