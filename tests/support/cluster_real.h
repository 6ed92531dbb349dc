/*
 * cluster_real.h - in the simulated cluster, the production numbers in the place of hashes: the learner's
 * run directory, compute thread and checkpoint files (learner/run, compute, resume), the actor's worker with
 * its environment and planner.
 *
 * Their threads are waited for at once, so that all is still one thing after another on the virtual clock.
 *
 * Thread:  one.
 */
#ifndef TD_TEST_CLUSTER_REAL_H
#define TD_TEST_CLUSTER_REAL_H

#include <semaphore.h>

#include "actor/worker.h"
#include "common/env/tasks.h"
#include "learner/compute.h"
#include "learner/digest.h"
#include "tests/support/cluster.h"

/* A tiny model for options->task; the rest as in `options`. */
struct config real_config(const struct cluster *cluster);

/* --- the learner ------------------------------------------------------------ */

struct real_learner {
    struct task_set tasks;
    struct run run;
    compute_t *compute;
    sem_t done;
    checkpoint_t *checkpoint; /* to go on from, until the model is built */
    struct resume_save *save; /* that COMMAND_SAVE asked for, until it is written */
    bool resumed;
    /* of the newest checkpoint or the last real_load */
    struct progress progress;
    void *state;
    size_t state_size;
};

/*
 * Take the run directory and what its newest checkpoint says, as learner_create does. False with a sentence
 * in err: the learner would refuse to start.
 */
bool real_open(struct real_learner **out, struct cluster *cluster, struct error *err);
void real_close(struct real_learner **real);

/* Bytes of a snapshot, 0: refused; and the file for two of them, or NULL. */
size_t real_model(struct real_learner *real, const struct message_spec *spec, const spill_t **file, struct error *err);
void real_update(struct real_learner *real, uint64_t update, const struct compute_batch *batch, uint32_t parts);
uint64_t real_publish(struct real_learner *real, const struct command_publish *publish);
void real_save(struct real_learner *real, const struct command_save *command);
bool real_write(struct real_learner *real, struct error *err); /* what real_save noted; false: it failed */
extern bool real_writing; /* that is under way: for fs_fault hooks */
void real_load(struct real_learner *real);

/* The cluster's run directory, and one of its shard's. */
void real_run_dir(const struct cluster *cluster, char out[FS_PATH_MAX]);

/* The digest of the newest checkpoint and of the episodes that it may draw from; the shards are stopped. */
void real_digest(struct cluster *cluster, struct digest *digest);

/* --- an actor --------------------------------------------------------------- */

struct real_actor {
    worker_t *worker;
    sem_t done;
};

struct real_actor *real_actor_open(const struct cluster *cluster, const struct worker_result **ready);
void real_actor_close(struct real_actor **real);

/* Carry the command out; its result, good until the next one. */
const struct worker_result *real_actor_do(struct real_actor *real, const struct session_output *output);

#endif
