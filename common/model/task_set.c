#include "common/model/task_set.h"

#include <stdlib.h>
#include <string.h>

#include "common/model/dims.h"

static const struct {
    const char *name;
    int obs_dim, action_dim;
    uint64_t episode_length;
} known[] = {
#define SET_TASK(name, obs, action, length) {name, obs, action, length},
#include "common/model/tasks.def"
#undef SET_TASK
};

int task_set_named(const char *name)
{
    return strcmp(name, "mt30") == 0 ? 30 : strcmp(name, "mt80") == 0 ? (int)TD_LEN(known) : 0;
}

int task_set_find(const struct task_set *set, const char *name)
{
    for (int i = 0; i < set->count; i++)
        if (strcmp(set->task[i].name, name) == 0)
            return i;
    return -1;
}

void task_set_mask(const struct task_set *set, int task, float *mask)
{
    TD_ASSERT(task >= 0 && task < set->count, "task %d of %d", task, set->count);
    for (int i = 0; i < set->action_dim; i++)
        mask[i] = i < set->task[task].action_dim ? 1.0f : 0.0f;
}

/* The next place of the list, named so; NULL: it was there before, or there are too many. */
static struct task *add_name(struct task_set *set, const char *name, size_t length, struct error *err)
{
    struct task *task = &set->task[set->count];

    if (length == 0 || length >= sizeof(task->name)) {
        error_set(err, TD_EINVAL, "tasks=: a task's name of %zu characters: 1 to %zu are possible", length,
                  sizeof(task->name) - 1);
        return NULL;
    }
    if (set->count == TASKS_MAX) {
        error_set(err, TD_EINVAL, "tasks=: more than %d tasks", TASKS_MAX);
        return NULL;
    }
    memcpy(task->name, name, length);
    task->name[length] = '\0';
    if (task_set_find(set, task->name) >= 0) {
        error_set(err, TD_EINVAL, "tasks=: %s is there twice", task->name);
        return NULL;
    }
    set->count++;
    return task;
}

static int add_known(struct task_set *set, int count, struct error *err)
{
    for (int i = 0; i < count; i++) {
        struct task *task = add_name(set, known[i].name, strlen(known[i].name), err);

        if (task == NULL)
            return TD_EINVAL;
        task->obs_dim = known[i].obs_dim;
        task->action_dim = known[i].action_dim;
        task->episode_length = known[i].episode_length;
    }
    set->multitask = true;
    return TD_OK;
}

static int add_word(struct task_set *set, const char *word, size_t length, const struct task_source *source,
                    struct error *err)
{
    struct task *task;
    int rc;

    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "mt30" : "mt80";

        if (length == strlen(name) && strncmp(word, name, length) == 0)
            return add_known(set, task_set_named(name), err);
    }
    if ((task = add_name(set, word, length, err)) == NULL)
        return TD_EINVAL;
    if ((rc = source->ask(source->context, task, err)) != TD_OK)
        return rc;
    if (task->obs_dim < 1 || task->action_dim < 1 || task->episode_length < 1)
        return error_set(err, TD_EINVAL, "task %s: observations of %d values, actions of %d, episodes of %llu steps "
                                         "can't be learned", task->name, task->obs_dim, task->action_dim,
                         (unsigned long long)task->episode_length);
    return TD_OK;
}

int task_set_init(struct task_set *set, const struct config *config, const struct task_source *source,
                  struct error *err)
{
    const char *word = config->tasks[0] != '\0' ? config->tasks : config->task;
    int rc;

    *set = (struct task_set){.task = calloc(TASKS_MAX + 1, sizeof(*set->task))};
    if (set->task == NULL)
        return error_set(err, TD_ENOMEM, "no memory for a list of tasks");
    /* One task may have a comma in its name (a path); a list is what `tasks` says. */
    if (config->tasks[0] == '\0') {
        rc = add_word(set, word, strlen(word), source, err);
    } else {
        do {
            size_t length = strcspn(word, ",");

            rc = add_word(set, word, length, source, err);
            word += length;
        } while (rc == TD_OK && *word++ == ',');
    }
    for (int i = 0; rc == TD_OK && i < set->count; i++) {
        struct task *task = &set->task[i];

        task->discount = derive_discount(config, task->episode_length);
        set->obs_dim = task->obs_dim > set->obs_dim ? task->obs_dim : set->obs_dim;
        set->action_dim = task->action_dim > set->action_dim ? task->action_dim : set->action_dim;
    }
    set->multitask = set->multitask || set->count > 1;
    if (rc != TD_OK)
        task_set_release(set);
    return rc;
}

void task_set_release(struct task_set *set)
{
    free(set->task);
    *set = (struct task_set){0};
}
