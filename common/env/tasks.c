#include "common/env/tasks.h"

#include "common/env/env.h"

static int ask(const void *context, struct task *task, struct error *err)
{
    const struct env_options *options = context;
    struct env_spec spec;
    int rc;

    if ((rc = env_find_with(task->name, options, &spec, err)) != TD_OK)
        return rc;
    task->obs_dim = (int)spec.obs_dim;
    task->action_dim = (int)spec.action_dim;
    task->episode_length = spec.episode_length;
    return TD_OK;
}

int env_task_set(struct task_set *set, const struct config *config, struct error *err)
{
    struct env_options options = env_options(config->obs, config->render);
    struct task_source source = {.context = &options, .ask = ask};

    return task_set_init(set, config, &source, err);
}

static void widen(struct env_spec *wide, const struct env_spec *spec)
{
    wide->obs_dim = spec->obs_dim > wide->obs_dim ? spec->obs_dim : wide->obs_dim;
    wide->action_dim = spec->action_dim > wide->action_dim ? spec->action_dim : wide->action_dim;
    wide->episode_length = spec->episode_length > wide->episode_length ? spec->episode_length : wide->episode_length;
    wide->exact_state = wide->exact_state && spec->exact_state;
    wide->may_truncate = wide->may_truncate || spec->may_truncate;
    wide->terminates = wide->terminates || spec->terminates;
}

int env_task_specs(struct env_spec *specs, struct env_spec *wide, const struct task_set *set,
                   const struct config *config, struct error *err)
{
    struct env_options options = env_options(config->obs, config->render);

    for (int i = 0; i < set->count; i++) {
        const struct task *task = &set->task[i];
        struct env_spec spec;
        int rc = env_find_with(task->name, &options, &spec, err);

        if (rc != TD_OK)
            return rc;
        if ((int)spec.obs_dim != task->obs_dim || (int)spec.action_dim != task->action_dim)
            return error_set(err, TD_EINVAL, "%s has %u observations and %u actions here, %d and %d are written down",
                             task->name, spec.obs_dim, spec.action_dim, task->obs_dim, task->action_dim);
        if (i == 0)
            *wide = spec;
        widen(wide, &spec);
        if (specs != NULL)
            specs[i] = spec;
    }
    return TD_OK;
}

double env_mean_repeat(const struct env_spec *specs, int count)
{
    double sum = 0;

    for (int i = 0; i < count; i++)
        sum += specs[i].action_repeat;
    return sum / count;
}
