/*
 * learner.h - the learner daemon: sockets, compute thread, children and files around the coordinator.
 *
 * Everything that decides is in coordinator.h; this carries it out.
 *
 * Owns:    the run directory's lock, the loop and all that hangs on it.
 * Thread:  the main thread.
 */
#ifndef TD_LEARNER_LEARNER_H
#define TD_LEARNER_LEARNER_H

#include <stdbool.h>

#include "common/util/config.h"
#include "common/util/error.h"

typedef struct learner learner_t;

/*
 * Take the run directory, bind the sockets, start shard and evaluator. `given` tells which options
 * were named. *finished is set, and *out NULL, when the run has all its steps already.
 * Returns TD_OK or an error with a sentence; nothing then runs.
 */
int learner_create(learner_t **out, const struct config *config, const bool *given, bool *finished,
                   struct error *err);

/* Work until the run is over or stopped; returns the exit code. */
int learner_run(learner_t *learner);

void learner_destroy(learner_t **learner);

#endif
