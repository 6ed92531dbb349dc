#include "learner/settings.h"

#include <string.h>

#include "common/store/store.h"

static uint64_t ms_of(double seconds)
{
    return (uint64_t)(seconds * 1000.0 + 0.5);
}

_Static_assert(TASKS_MAX == ROW_TASKS_MAX, "rows name the tasks of a set");

uint64_t settings_row_bytes(const struct config *config, const struct task_set *tasks)
{
    uint64_t sum = 0;

    if (tasks == NULL || tasks->count < 2 || strcmp(config->obs, "rgb") == 0)
        return 0;
    for (int i = 0; i < tasks->count; i++)
        sum += store_row_bytes((uint32_t)tasks->task[i].obs_dim, (uint32_t)tasks->task[i].action_dim);
    return sum / (uint64_t)tasks->count;
}

static void fill_tasks(struct coordinator_config *settings, const struct config *config, const struct task_set *tasks)
{
    settings->balanced = strcmp(config->task_sampling, "balanced") == 0;
    settings->row_bytes = settings_row_bytes(config, tasks);
    settings->tasks = tasks != NULL && tasks->multitask ? (uint32_t)tasks->count : 0;
    for (uint32_t i = 0; i < settings->tasks; i++)
        settings->task_length[i] = (uint32_t)tasks->task[i].episode_length;
}

void settings_fill(struct coordinator_config *settings, const struct config *config, const struct task_set *tasks)
{
    fill_tasks(settings, config, tasks);
    settings->lockstep = config->lockstep;
    settings->episodic = config->episodic;
    settings->evaluator = strcmp(config->evaluator, "off") != 0;
    settings->eval_first = config->eval_first;
    settings->seed = (uint64_t)config->seed;
    settings->steps = (uint64_t)config->steps;
    settings->seed_steps = (uint64_t)config->seed_steps;
    settings->utd = config->utd;
    settings->slack = config->slack;
    settings->batch_size = (uint32_t)config->batch_size;
    settings->horizon = (uint32_t)config->horizon;
    settings->buffer_size = (uint64_t)config->buffer_size;
    settings->eval_freq = (uint64_t)config->eval_freq;
    settings->eval_episodes = (uint32_t)config->eval_episodes;
    settings->actors = (uint32_t)config->actors;
    settings->shards = (uint32_t)config->shards;
    settings->max_staleness = (uint64_t)config->max_staleness;
    settings->heartbeat_ms = ms_of(config->heartbeat);
    settings->broadcast_ms = ms_of(config->broadcast_interval);
    settings->timeout_ms = ms_of(config->learner_timeout);
    settings->checkpoint_every_ms = ms_of(config->checkpoint_every);
    settings->checkpoint_steps = (uint64_t)config->checkpoint_steps;
    settings->keep_checkpoints = (uint32_t)config->keep_checkpoints;
}
