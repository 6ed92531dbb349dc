/*
 * seed.h - the replay of a new run begins with rows that are there already: `seed_data=` of train.
 *
 * They come from a data set that `tdmpc2 data import` put into a store, or from the replay of another run: the newest
 * episodes of the run's tasks, as many as buffer_size holds. They enter the learner's own shard before it starts, as
 * episodes of no stream that count as rows, not as agent steps; the seeding phase of the schedule then has what it
 * waits for.
 *
 * How far it came stands in the store itself, what was meant to come in seed.json beside it: a run killed under way
 * goes on there, one that began with them takes none again.
 *
 * Owns:    nothing; both stores are open only within a call.
 * Thread:  the learner's main thread, before its shard is started.
 */
#ifndef TD_LEARNER_SEED_H
#define TD_LEARNER_SEED_H

#include "common/env/env.h"
#include "common/model/task_set.h"
#include "common/store/store.h"
#include "learner/run.h"

#define SEED_FILE "seed.json"

typedef void seed_say(void *context, const char *line);

/*
 * Does it fit? Leaves nothing behind; nothing to do without seed_data. say (may be NULL) gets a line for each task.
 * TD_OK; TD_EINVAL: no episodes of the run's tasks, other widths, tasks that are not known by name; or as store_open.
 */
int seed_check(const struct run *run, const struct env_spec *env, const struct task_set *tasks, seed_say *say,
               void *context, struct error *err);

/*
 * Put them into the store of the run that is open, unless they are there. say gets a line now and then. As seed_check;
 * TD_ECORRUPT for rows that cannot be right.
 */
int seed_replay(const struct run *run, const struct env_spec *env, const struct task_set *tasks, seed_say *say,
                void *context, struct error *err);

#endif
