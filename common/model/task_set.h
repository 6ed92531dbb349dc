/*
 * task_set.h - the tasks of a run: one, or many that one agent learns together.
 *
 * A multi-task agent sees every task through the widest sizes: observations are padded with zeros at their
 * end, actions likewise, and a task's action mask is 1 for its first action_dim components. A task is
 * known by its index in this list: in rows, batches, plans, and in the table of embeddings.
 *
 * Owns:   its list.
 * Source: TD-MPC2 reference, `common/__init__.py` (TASK_SET), `parser.py`, `envs/wrappers/multitask.py`.
 */
#ifndef TD_MODEL_TASK_SET_H
#define TD_MODEL_TASK_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/config.h"
#include "common/util/error.h"

#define TASK_NAME_MAX 192 /* as ENV_TASK_MAX */
#define TASKS_MAX     256

struct task {
    char name[TASK_NAME_MAX];
    int obs_dim, action_dim;
    uint64_t episode_length; /* agent steps */
    double discount;         /* as derive_discount has it */
};

struct task_set {
    int count;
    struct task *task;       /* [count] */
    int obs_dim, action_dim; /* the widest */
    bool multitask;          /* more than one task, or mt30, mt80: there are embeddings and masks */
};

/*
 * Where the sizes of a task come from that is not of mt30 or mt80: fills obs_dim, action_dim and
 * episode_length of task, whose name is set. Returns TD_OK or what went wrong.
 */
struct task_source {
    const void *context;
    int (*ask)(const void *context, struct task *task, struct error *err);
};

/* mt30 or mt80: the name of a set, not of a task. Its tasks' number, 0 for any other word. */
int task_set_named(const char *name);

/*
 * From the options: `tasks` (names and sets, separated by commas) if given, else `task`. Tasks of mt30 and
 * mt80 are known without `source` when they come as such a set; it is asked for all others.
 * Returns TD_OK; TD_EINVAL: an empty or repeated name, too many tasks; TD_ENOMEM; or what source returns.
 */
int task_set_init(struct task_set *set, const struct config *config, const struct task_source *source,
                  struct error *err);
void task_set_release(struct task_set *set);

/* The index of a task, -1 when it is not in the list. */
int task_set_find(const struct task_set *set, const char *name);

/* 1.0 for the components of an action that the task has, 0.0 for the padding: mask [action_dim]. */
void task_set_mask(const struct task_set *set, int task, float *mask);

#endif
