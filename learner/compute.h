/*
 * compute.h - the learner's numeric side: a thread that owns model and optimiser, and one that writes
 * checkpoints from a copy.
 *
 * Jobs are carried out in the order they are pushed; each gives one result. The loop thread pushes and
 * pops, nothing waits there.
 *
 * Owns:    world model, optimiser, worker pool, the checkpoint copy, the file of the snapshots for actors.
 * Borrows: the run (its options and directory), the batches of jobs until their result has come.
 * Thread:  the functions here belong to the loop thread.
 */
#ifndef TD_LEARNER_COMPUTE_H
#define TD_LEARNER_COMPUTE_H

#include "common/wire/message.h"
#include "learner/finetune.h"
#include "learner/params.h"
#include "learner/resume.h"
#include "learner/run.h"
#include "learner/update.h"

typedef struct compute compute_t;

/* One batch as it came: a message per shard, each of `count` slices in the layout of row.h. */
struct compute_part {
    const void *slices; /* borrowed, at an address divisible by 4 */
    size_t length;      /* row_slices_bytes of count, checked by the codec's users */
    uint32_t count;
};
struct compute_batch {
    struct compute_part part[WIRE_SHARDS_MAX];
};

enum compute_kind {
    COMPUTE_MODEL,   /* build everything; from the checkpoint if one is given */
    COMPUTE_UPDATE,
    COMPUTE_PUBLISH, /* copy the acting parameters */
    COMPUTE_SAVE,    /* copy now, write in the background (large models: write now) */
    COMPUTE_LOAD,    /* go back to the newest checkpoint */
};

struct compute_job {
    enum compute_kind kind;
    union {
        struct {
            struct message_spec spec;
            checkpoint_t *checkpoint; /* taken; NULL: a new run */
            finetune_t *finetune;     /* taken; what a new run begins with, or NULL */
        } model;
        struct {
            uint64_t update;
            const struct compute_batch *batch;
            uint32_t parts;
            int active;  /* threads */
        } update;
        struct {
            struct params_room room; /* of snapshot bytes */
            uint64_t version;
        } publish;
        struct resume_save *save; /* taken */
    };
};

struct compute_result {
    enum compute_kind kind;
    int rc;           /* TD_OK or why the learner cannot go on (SAVE: why it was not written) */
    struct error err;
    double ms;
    union {
        struct {
            size_t snapshot_bytes;
            const spill_t *snapshots; /* file for two of them, borrowed; NULL: memory does */
        } model;
        struct {
            uint64_t update;
            bool finite;
            struct update_stats stats;
        } update;
        struct {
            uint64_t version, hash;
            bool finite;
        } publish;
        struct {
            uint64_t id;
            char name[MANIFEST_NAME_MAX];
            double stall_ms; /* no update could run for so long; the rest went on beside them */
        } save;
        struct {
            struct progress *progress; /* malloc'd, the receiver's */
            void *state;               /* malloc'd or NULL, the receiver's */
            size_t state_size;
        } load;
    };
};

/* Start the threads; wake(context) is called from them when a result is ready. */
int compute_create(compute_t **out, const struct run *run, int threads, void (*wake)(void *context),
                   void *context, struct error *err);

/* Finish the jobs pushed, stop and join. */
void compute_destroy(compute_t **compute);

/* At most 16 may be under way. */
void compute_push(compute_t *compute, const struct compute_job *job);

/* The next result; false: none yet. */
bool compute_pop(compute_t *compute, struct compute_result *result);

#endif
