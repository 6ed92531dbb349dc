/* task_line.h - what `tdmpc2 stats` says of the tasks of a run, in one line. */
#ifndef TD_LEARNER_TASK_LINE_H
#define TD_LEARNER_TASK_LINE_H

#include "common/model/task_set.h"
#include "learner/coordinator.h"

/*
 * "walker-walk 501 rows 1 episodes 2 playing R 31.4; ...": of each of `count` tasks, as many as there is room for and
 * then how many more; returns [count] are NAN where there are none. Returns the length.
 */
size_t task_line(char *out, size_t size, const struct task_set *set, const struct coordinator_task *tasks,
                 const double *returns, int count);

#endif
