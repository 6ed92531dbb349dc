/*
 * evaluation.h - whole episodes of one policy in this process, several at a time.
 *
 * Episode i starts as the i-th reset of the seed's environment, whichever thread runs it: results do
 * not depend on the number of threads.
 */
#ifndef TD_TOOLS_EVALUATION_H
#define TD_TOOLS_EVALUATION_H

#include <stdbool.h>

#include "common/env/env.h"
#include "common/model/world_model.h"
#include "common/plan/mppi.h"

struct evaluation_options {
    const char *task;
    uint32_t index;             /* of the task, with a model of several */
    struct env_options env;
    uint64_t seed;
    int episodes;
    int threads;                /* at least 1 */
    const world_model_t *model; /* NULL: uniformly random actions */
    struct mppi_config plan;
    const char *video;          /* mp4 of the first episode, or NULL; why there is none goes to stderr */
    bool noisy;                 /* with the exploration noise, as the reference's evaluate.py */
};

struct evaluation_episode {
    double reward;
    int length;
    bool success; /* at its last step */
    bool done;
};

/*
 * Run the episodes, filling episode [episodes]. finished(context, index) is called as each ends, one
 * at a time; may be NULL. Returns TD_OK, or the first error of an environment or planner.
 */
int evaluation_run(const struct evaluation_options *options, struct evaluation_episode *episode,
                   void (*finished)(void *context, int index), void *context, struct error *err);

#endif
