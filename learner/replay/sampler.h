/*
 * sampler.h - which episodes may be drawn, and the slices drawn from them.
 *
 * As in the reference (buffer.py): an episode uniformly from those of at least H+1 rows, then its start
 * uniformly, with replacement. Episodes may be drawn when they are published - in lock-step: sealed -
 * and lie in the window, the newest episodes of at most `capacity` rows in all, short ones counted; the
 * newest one that may be drawn always does.
 *
 * In a multi-task run balanced drawing takes first a task uniformly from those that have episodes to draw, then
 * one of them. The window does not look at tasks: the oldest episode leaves it, whosever it is.
 *
 * Owns:    4 bytes per episode that may be drawn.
 * Borrows: the store.
 * Thread:  one.
 */
#ifndef TD_REPLAY_SAMPLER_H
#define TD_REPLAY_SAMPLER_H

#include "common/store/store.h"
#include "common/util/rng.h"

typedef struct sampler sampler_t;

struct sampler_config {
    uint32_t horizon;
    uint64_t capacity; /* rows */
    uint64_t seed;
    uint32_t shard;
    bool lockstep; /* sealed episodes count, published or not */
    uint32_t tasks; /* of the run; 0 is 1. Episodes of others are not drawn */
    bool balanced; /* draw tasks uniformly, not episodes */
};

struct sampler_window {
    uint64_t first, last; /* episodes first..last-1 */
    uint64_t rows;        /* in them */
    uint64_t episodes;    /* of them that may be drawn */
    uint64_t steps;       /* agent steps in those */
};

int sampler_create(sampler_t **out, store_t *store, const struct sampler_config *config);
void sampler_destroy(sampler_t **sampler);

/* Take in what the store committed; call it after every commit and abort. TD_OK or TD_ENOMEM. */
int sampler_update(sampler_t *sampler);

/* Move the window to end at `last` (at most store_committed), or at the newest episode. */
const struct sampler_window *sampler_window(sampler_t *sampler, uint64_t last);
#define SAMPLER_NEWEST UINT64_MAX

/*
 * Draw `count` slices of H+1 rows from the current window, keyed by (seed, shard, update), as one block
 * (row_slices_bytes in common/store/row.h). Frames are preceded by the two that the first observation is
 * stacked from, where the episode begins by its first frame again.
 *
 *   out  [sampler_bytes(count)]
 *
 * A segment that fails its hash is quarantined by the store and the draw repeated without its episode.
 * Never allocates. TD_OK, or TD_EAGAIN when nothing may be drawn.
 */
int sampler_draw(sampler_t *sampler, uint64_t update, uint32_t count, void *out);

/*
 * The same, with so many slices of each task: shares [tasks], `count` in all. A task that has no episode to draw
 * (any more) gives its share to all. NULL: as sampler_draw.
 */
int sampler_draw_shares(sampler_t *sampler, uint64_t update, const uint32_t *shares, uint32_t count, void *out);

/* Each task's part of the window last asked for: tasks [tasks]. */
struct sampler_task {
    uint64_t rows, episodes; /* all rows; episodes that may be drawn */
};
void sampler_tasks(const sampler_t *sampler, struct sampler_task *tasks);

size_t sampler_bytes(const sampler_t *sampler, uint32_t count);

#endif
