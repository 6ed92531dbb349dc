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
