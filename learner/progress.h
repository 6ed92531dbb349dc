/*
 * progress.h - what a checkpoint says about the run apart from tensors: counters, schedule, marks.
 *
 * One flat struct: the coordinator fills it when a checkpoint is due and is handed it back when one
 * is loaded. It is stored as the JSON object "progress" of the checkpoint's manifest.
 */
#ifndef TD_LEARNER_PROGRESS_H
#define TD_LEARNER_PROGRESS_H

#include <cjson/cJSON.h>

#include "common/util/error.h"
#include "common/wire/message.h"

#define PROGRESS_STORES 128  /* store ids remembered */
#define PROGRESS_KEPT   64   /* windows of earlier cuts remembered */

/* The last count of one shard directory. */
struct progress_store {
    uint64_t store;
    uint64_t steps;
};

struct progress {
    struct message_spec spec; /* obs_type 0: no actor has said Hello yet */
    uint64_t seed_steps;      /* resolved; 0 while the spec is not known */
    uint64_t updates;
    uint64_t learner_epoch;   /* that wrote this */
    uint64_t next_eval;       /* asynchronous: agent steps at which the next evaluation is due */
    uint64_t episodes;        /* finished ones that were logged */
    uint32_t phase;           /* enum phase */
    /* asynchronous: the limiter */
    uint64_t excess;
    uint64_t burst_target;
    uint32_t stores;
    struct progress_store store[PROGRESS_STORES];
    /* lock-step: the state just before a Turn that resets */
    bool lockstep;
    bool evaluate_first; /* cut 0 and no evaluation done yet: a due one comes before the Turn */
    uint64_t step;       /* the step that Turn will take */
    uint64_t episode;    /* and its episode: so many are finished */
    uint64_t rows;       /* rows taken in so far */
    uint64_t window;     /* first episode of the window last drawn from */
    uint32_t kept;       /* windows of the cuts kept, this one's last */
    uint64_t kept_window[PROGRESS_KEPT];
    uint32_t state_size; /* of the environment's state, which lies beside (coordinator_state) */
};

/* As JSON, to be owned by the caller; NULL when out of memory. 64-bit numbers are strings. */
cJSON *progress_to_json(const struct progress *progress);

/* Back, every field checked. Returns TD_OK or TD_ECORRUPT. */
int progress_from_json(struct progress *progress, const cJSON *json, struct error *err);

#endif
