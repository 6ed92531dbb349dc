/*
 * Environments: the tasks of a run, an environment of each as it is needed, and their states.
 *
 * A seat keeps those that it has made, so that their random streams go on when their task comes again, but at most
 * env_cache of them: then the one not played for longest makes room, and is made later with another seed. In lock-step
 * all are made at the start and kept, each seeded alike, as in the reference's MultitaskWrapper.
 */
#include <stdlib.h>
#include <string.h>

#include "actor/worker_private.h"
#include "common/env/stack.h"
#include "common/env/tasks.h"
#include "common/util/rng.h"

static struct env_options options_of(const worker_t *worker)
{
    return env_options(worker->options.config.obs, worker->options.config.render);
}

static uint32_t task_count(const worker_t *worker)
{
    return (uint32_t)worker->tasks.count;
}

int envs_find(worker_t *worker, struct error *err)
{
    int rc = env_task_set(&worker->tasks, &worker->options.config, err);

    if (rc != TD_OK)
        return rc;
    worker->specs = calloc(task_count(worker), sizeof(*worker->specs));
    if (worker->specs == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the specs of tasks");
    return env_task_specs(worker->specs, &worker->spec, &worker->tasks, &worker->options.config, err);
}

/* --- one of each task ----------------------------------------------------------- */

void envs_close(worker_t *worker, struct seat *seat)
{
    for (uint32_t i = 0; seat->kept != NULL && i < task_count(worker); i++) {
        env_close(&seat->kept[i].env);
        seat->kept[i].dropped = 0;
    }
    seat->env = NULL;
}

void envs_drop(struct seat *seat)
{
    env_close(&seat->kept[seat->task].env);
    seat->env = NULL;
}

void envs_touch(struct seat *seat)
{
    seat->kept[seat->task].untouched = false;
}

/* How many a seat may have open. */
static uint32_t most_open(const worker_t *worker)
{
    if (worker->options.config.lockstep)
        return task_count(worker);
    if (worker->options.background) /* the evaluator makes each anew anyway */
        return 1;
    return (uint32_t)worker->options.config.env_cache;
}

/* Close those not played for longest until there is room for one more. */
static void make_room(const worker_t *worker, struct seat *seat)
{
    for (;;) {
        struct kept *oldest = NULL;
        uint32_t open = 0;

        for (uint32_t i = 0; i < task_count(worker); i++) {
            struct kept *kept = &seat->kept[i];

            open += kept->env != NULL;
            if (kept->env != NULL && (oldest == NULL || kept->used < oldest->used))
                oldest = kept;
        }
        if (open < most_open(worker))
            return;
        env_close(&oldest->env);
        oldest->dropped++;
    }
}

static int make(worker_t *worker, struct seat *seat, const struct env_wish *wish, struct error *err)
{
    struct env_options options = options_of(worker);
    struct kept *kept = &seat->kept[wish->task];
    uint32_t seed = (uint32_t)wish->seed;
    int rc;

    make_room(worker, seat);
    if (kept->dropped > 0) /* the episodes that began with the seed itself were played */
        seed = (uint32_t)rng_hash(wish->seed, kept->dropped);
    rc = (wish->later ? env_create_later : env_create_with)(&kept->env, worker->tasks.task[wish->task].name, &options,
                                                            seed, err);
    kept->seed = seed;
    kept->untouched = true;
    return rc;
}

int envs_take(worker_t *worker, struct seat *seat, const struct env_wish *wish, struct error *err)
{
    struct kept *kept;
    int rc = TD_OK;

    TD_ASSERT(wish->task < task_count(worker), "task %u of %u", wish->task, task_count(worker));
    for (uint32_t i = 0; wish->anew && i < task_count(worker); i++) {
        kept = &seat->kept[i];
        if (i != wish->task || !kept->untouched || kept->seed != (uint32_t)wish->seed)
            env_close(&kept->env);
        kept->dropped = 0;
    }
    kept = &seat->kept[wish->task];
    if (seat->task != wish->task) /* what is wider than this task's observations and actions is zero from here on */
        memset(seat->obs, 0, env_obs_bytes(&worker->spec));
    memset(seat->action, 0, worker->spec.action_dim * sizeof(float));
    if (kept->env == NULL)
        rc = make(worker, seat, wish, err);
    kept->used = ++worker->uses;
    seat->task = wish->task;
    seat->env = kept->env;
    return rc;
}

/* --- states ------------------------------------------------------------------------ */

/*
 * What a state holds: the environments', then the mean that the planner's next plan starts from, float
 * [horizon][A]. An episode's first plan forgets it, but the first plan after the random steps may fall into the
 * middle of an episode and start from what the last evaluation left.
 */
static void *mean_in(const worker_t *worker, const struct work *work)
{
    return (char *)work->state + work->state_size - worker->mean_size;
}

int envs_open(worker_t *worker, struct seat *seat, struct error *err)
{
    uint32_t count = worker->options.config.lockstep ? task_count(worker) : 1;
    size_t size = 0;

    for (uint32_t task = 0; task < count; task++) {
        struct env_wish wish = {.task = task, .seed = (uint64_t)worker->options.config.seed};
        int rc = envs_take(worker, seat, &wish, err);
        size_t own;

        if (rc != TD_OK)
            return rc;
        TD_ASSERT(worker->specs[task].obs_dim == env_spec(seat->env)->obs_dim &&
                      worker->specs[task].action_dim == env_spec(seat->env)->action_dim,
                  "env_find and env_create differ on %s", worker->specs[task].task);
        own = env_state_size(seat->env);
        if (own == 0 || (count < task_count(worker)))
            return TD_OK; /* one without a state: there is none of all */
        size += own;
    }
    if (size + worker->mean_size > WIRE_STATE_MAX)
        return error_set(err, TD_EINVAL, "the states of %u environments are %zu bytes, lock-step has room for %u: fewer "
                                         "tasks, or lockstep=false", count, size, WIRE_STATE_MAX);
    worker->state_size = size + worker->mean_size;
    return TD_OK;
}

static int restore_mean(worker_t *worker, const struct seat *seat, const struct work *work, struct error *err)
{
    float *mean = mppi_previous_mean(worker->planner, (int)seat->number);

    if (work->state_size == 0) {
        memset(mean, 0, worker->mean_size);
        return TD_OK;
    }
    memcpy(mean, mean_in(worker, work), worker->mean_size);
    for (size_t i = 0; i < worker->mean_size / sizeof(*mean); i++)
        if (!(mean[i] >= -1.0f && mean[i] <= 1.0f))
            return error_set(err, TD_ECORRUPT, "the planner's mean in the saved state is no action");
    return TD_OK;
}

/* Each of them as it is at the start of a run. */
static int make_anew(worker_t *worker, struct seat *seat, uint64_t seed, struct error *err)
{
    int rc = TD_OK;

    if (task_count(worker) > 1)
        envs_close(worker, seat);
    for (uint32_t i = task_count(worker); i-- > 0 && rc == TD_OK;) {
        struct env_wish wish = {.task = i, .seed = seed, .anew = task_count(worker) == 1};

        rc = envs_take(worker, seat, &wish, err);
    }
    return rc;
}

int envs_restore(worker_t *worker, struct seat *seat, const struct work *work, struct error *err)
{
    const char *state = work->state;
    int rc = TD_OK;

    if (work->state_size == 0) {
        rc = make_anew(worker, seat, work->restore.seed, err);
        return rc == TD_OK ? restore_mean(worker, seat, work, err) : rc;
    }
    if (work->state_size != worker->state_size)
        return error_set(err, TD_ECORRUPT, "the saved state has %zu bytes, %zu are expected", work->state_size,
                         worker->state_size);
    for (uint32_t i = 0; i < task_count(worker) && rc == TD_OK; i++) {
        struct kept *kept = &seat->kept[i];
        size_t size = env_state_size(kept->env);

        rc = env_state_set(kept->env, state, size, err);
        kept->untouched = false;
        state += size;
    }
    return rc == TD_OK ? restore_mean(worker, seat, work, err) : rc;
}

void envs_capture(worker_t *worker, struct seat *seat, const struct work *work)
{
    char *state = work->state;

    if (work->state_size == 0)
        return;
    for (uint32_t i = 0; i < task_count(worker); i++) {
        env_state_get(seat->kept[i].env, state);
        state += env_state_size(seat->kept[i].env);
    }
    memcpy(mean_in(worker, work), mppi_previous_mean(worker->planner, (int)seat->number), worker->mean_size);
    seat->answer->result.state = (struct bulk){work->state, work->state_size};
}
