/*
 * lockstep.h - a whole lock-step run in one process and one thread of control: the schedule, the
 * environment, the planner and the update are the production code; replay is a list in memory.
 */
#ifndef TD_TEST_LOCKSTEP_H
#define TD_TEST_LOCKSTEP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/config.h"
#include "learner/update.h"

struct lockstep_result {
    double random_return; /* mean over the episodes of the seeding phase */
    double first_return;  /* mean of the evaluation at step 0; 0 when there was none */
    double best_return;   /* best mean of an evaluation on the way */
    double final_return;  /* mean of a last evaluation, after the last step */
    uint64_t episodes, updates;
    uint64_t hash; /* of all parameters and moments at the end */
    struct update_stats stats; /* of the last update */
};

/*
 * Train config->task for config->steps with config->seed, `threads` compute threads; `verbose` prints
 * a line per evaluation. Returns TD_OK or what stopped it, with a sentence.
 */
int lockstep_run(const struct config *config, int threads, bool verbose, struct lockstep_result *result,
                 struct error *err);

/* When not NULL, called with the model after the last step, before it is freed. */
extern void (*lockstep_seen)(const world_model_t *model);

#endif
