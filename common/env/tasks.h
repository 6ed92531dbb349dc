/*
 * tasks.h - the task set of a run, its sizes asked of the environments (see common/model/task_set.h).
 */
#ifndef TD_ENV_TASKS_H
#define TD_ENV_TASKS_H

#include "common/env/env.h"
#include "common/model/task_set.h"

/* As task_set_init, with the options obs and render. Opens nothing but what env_find_with opens. */
int env_task_set(struct task_set *set, const struct config *config, struct error *err);

/*
 * What each of them is here, and all through one agent: the widest observations and actions, the longest episode.
 * specs [set->count] or NULL. Returns TD_OK, what env_find_with returns, or TD_EINVAL where sizes that are written
 * down are not those of the environment.
 */
int env_task_specs(struct env_spec *specs, struct env_spec *wide, const struct task_set *set,
                   const struct config *config, struct error *err);

/* Environment steps per agent step of a run that gives each of these as many agent steps. */
double env_mean_repeat(const struct env_spec *specs, int count);

#endif
