/* keys.h - making the keys of a run's parts, for the commands that start them. */
#ifndef TD_TOOLS_KEYS_H
#define TD_TOOLS_KEYS_H

#include "common/util/error.h"

/*
 * See to it that `dir` holds keys of a learner, an evaluator, a viewer, actors 0 to actors-1 and shards 0 to
 * shards-1, and that they are on its list; what is there stays. Prints nothing.
 */
int keys_ensure(const char *dir, int actors, int shards, struct error *err);

#endif
