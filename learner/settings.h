/*
 * settings.h - a run's options as the coordinator takes them.
 */
#ifndef TD_LEARNER_SETTINGS_H
#define TD_LEARNER_SETTINGS_H

#include "common/model/task_set.h"
#include "common/util/config.h"
#include "learner/coordinator.h"

/*
 * All that follows from the options and the tasks they name (NULL: one task); who the run, the process and its epoch
 * are is left as it is.
 */
void settings_fill(struct coordinator_config *settings, const struct config *config, const struct task_set *tasks);

/*
 * Bytes of a row in the replay, the mean over tasks that get as many steps each; 0 where all rows are as the schema has
 * them: of one task, or frames.
 */
uint64_t settings_row_bytes(const struct config *config, const struct task_set *tasks);

#endif
