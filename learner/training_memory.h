/*
 * training_memory.h - what training takes, in memory and in files beside it, known and checked before any is taken.
 *
 * Parameters, targets, moments, gradients and what a batch leaves behind must be there. Beside them are the copy that
 * a checkpoint is written from while updates go on, and two snapshots of what actors are sent: in memory for small
 * models, in files without names for larger ones (util/spill.h). Above SNAPSHOT_COPY_MAX there is no copy.
 */
#ifndef TD_LEARNER_TRAINING_MEMORY_H
#define TD_LEARNER_TRAINING_MEMORY_H

#include <stdbool.h>

#include "learner/update.h"

/* Models of more parameters have copy and snapshots in files. A test may lower it. */
extern uint64_t training_in_memory_max;

struct training_memory {
    struct update_memory update;
    uint64_t copy, snapshots; /* of a checkpoint; for actors, both */
    bool in_files;            /* these two */
    uint64_t other;           /* batches, a planner: as the caller says */
    uint64_t total;           /* of memory */
};

/* What there will be beside the update. */
struct training_beside {
    bool copy, actors, half; /* checkpoints from a copy; snapshots, in half storage */
    uint64_t other;
};

/* TD_OK, or as update_measure. */
int training_memory_plan(struct training_memory *memory, const struct model_dims *dims, const struct update_config *config,
                         int threads, const struct training_beside *beside, struct error *err);

/* "mib=5588 parameters=1192 ..." */
#define TRAINING_MEMORY_TEXT 320
void training_memory_text(const struct training_memory *memory, char text[TRAINING_MEMORY_TEXT]);

/* Is there so much? TD_OK or TD_EINVAL (what is needed and what there is). */
int training_memory_check(const struct training_memory *memory, struct error *err);

#endif
