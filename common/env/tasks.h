/*
 * tasks.h - the task set of a run, its sizes asked of the environments (see common/model/task_set.h).
 */
#ifndef TD_ENV_TASKS_H
#define TD_ENV_TASKS_H

#include "common/model/task_set.h"

/* As task_set_init, with the options obs and render. Opens nothing but what env_find_with opens. */
int env_task_set(struct task_set *set, const struct config *config, struct error *err);

#endif
