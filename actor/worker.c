#include "actor/worker.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "common/env/stack.h"
#include "common/plan/mppi.h"
#include "common/tensor/gemm.h"
#include "common/util/clock.h"
#include "common/util/log.h"
#include "common/util/queue.h"

/* What an environment says of itself goes into rows and onto the wire as it is. */
_Static_assert(ENV_OBS_STATE == (int)OBS_STATE && ENV_OBS_RGB == (int)OBS_RGB, "kinds of observations");
_Static_assert(STACK_FRAMES == ROW_STACK, "frames in an observation");

#define BACKGROUND_NICE   10
#define EVALUATION_LOSSES 5 /* of its environment, in one evaluation */

/* A command on its way to the thread. `state` is the loop's memory, lent until the result. */
struct work {
    uint32_t kind;
    uint64_t abandoned; /* abandonments when it was given */
    void *state;
    size_t state_size;
    union {
        struct command_restore restore;
        struct command_reset reset;
        struct command_step step;
        struct command_capture capture;
        struct command_evaluate evaluate;
        struct command_adopt adopt;
    };
};

/* A result on its way back; behind it in the queue's item lie the observation and the action. */
struct answer {
    struct worker_result result;
    void *state; /* of struct work */
    size_t state_size;
};

struct worker {
    struct worker_options options;
    struct env_spec spec;
    size_t state_size;  /* of the environment; set before WORKER_READY is sent */
    queue_t *commands, *results;
    pthread_t thread;
    bool started, joined;
    atomic_bool stopping;
    _Atomic uint64_t abandoned;
    /* the loop's */
    struct answer *popped; /* with its observation and action */
    /* the thread's */
    struct answer *answer; /* likewise; made here, then pushed */
    void *obs;             /* behind answer: what the environment said last */
    float *action;         /* behind that */
    void *seen;            /* what the planner sees: the state, or the last frames */
    env_t *env;
    uint32_t env_seed;
    bool env_untouched;    /* made with that seed and not used since */
    bool failed;           /* WORKER_FAILED was the last word */
    world_model_t *acting, *spare;
    pool_t *pool;
    mppi_t *planner;
};

static size_t obs_bytes(const struct worker *worker)
{
    return (env_obs_bytes(&worker->spec) + 7) & ~(size_t)7;
}

static size_t answer_bytes(const struct worker *worker)
{
    return sizeof(struct answer) + obs_bytes(worker) + worker->spec.action_dim * sizeof(float);
}

/* --- the thread: answers ---------------------------------------------------- */

static void send_answer(worker_t *worker)
{
    int rc = queue_push(worker->results, worker->answer);

    TD_ASSERT(rc == TD_OK, "more results than commands");
}

static void begin_answer(worker_t *worker, uint32_t kind, uint64_t token)
{
    memset(worker->answer, 0, sizeof(*worker->answer));
    worker->answer->result.kind = kind;
    worker->answer->result.token = token;
}

/* The environment is gone, and a reset may bring another. False: it is another kind of failure. */
static bool lose(worker_t *worker, int rc, const struct error *err)
{
    struct worker_result *result = &worker->answer->result;

    if (rc != TD_ELOST)
        return false;
    metrics_add(worker->options.metrics, METRIC_env_lost, 1);
    result->err = *err;
    result->lost = true;
    return true;
}

/* The command could not be carried out, and no other will be. */
static void fail(worker_t *worker, int rc, const struct error *err)
{
    worker->answer->result.kind = WORKER_FAILED;
    worker->answer->result.err = *err;
    worker->answer->result.err.code = rc;
    worker->failed = true;
}

/* --- the thread: environment ------------------------------------------------- */

static struct env_options options_of(const worker_t *worker)
{
    return env_options(worker->options.config.obs, worker->options.config.render);
}

/* An environment whose random state begins with this seed. */
static int make_env(worker_t *worker, uint64_t seed, struct error *err)
{
    struct env_options options = options_of(worker);
    int rc;

    if (worker->env != NULL && worker->env_untouched && worker->env_seed == (uint32_t)seed)
        return TD_OK;
    env_close(&worker->env);
    rc = env_create_with(&worker->env, worker->options.config.task, &options, (uint32_t)seed, err);
    worker->env_seed = (uint32_t)seed;
    worker->env_untouched = true;
    return rc;
}

static int reset_env(worker_t *worker, struct error *err)
{
    int rc = env_reset(worker->env, worker->obs, err);

    worker->env_untouched = false;
    if (rc == TD_OK)
        stack_push(&worker->spec, worker->seen, worker->obs, true);
    return rc;
}

static int step_env(worker_t *worker, struct env_result *result, struct error *err)
{
    uint64_t begun = clock_ns();
    int rc = env_step(worker->env, worker->action, worker->obs, result, err);

    metrics_record(worker->options.metrics, METRIC_env_ms, (double)(clock_ns() - begun) / 1e6);
    if (rc == TD_OK)
        stack_push(&worker->spec, worker->seen, worker->obs, false);
    return rc;
}

static void restore(worker_t *worker, const struct work *work)
{
    struct worker_result *result = &worker->answer->result;
    struct error err = {0};
    int rc;

    if (work->state_size == 0) {
        rc = make_env(worker, work->restore.seed, &err);
        if (rc != TD_OK)
            fail(worker, rc, &err);
    } else {
        rc = env_state_set(worker->env, work->state, work->state_size, &result->err);
        worker->env_untouched = false;
    }
    result->ok = rc == TD_OK;
}

static void reset(worker_t *worker, const struct work *work)
{
    struct error err = {0};
    int rc = TD_OK;

    if (work->reset.reseed)
        rc = make_env(worker, work->reset.seed, &err);
    if (rc == TD_OK)
        rc = reset_env(worker, &err);
    if (rc != TD_OK && !lose(worker, rc, &err))
        fail(worker, rc, &err);
}

static void capture(worker_t *worker, const struct work *work)
{
    if (work->state_size == 0)
        return;
    env_state_get(worker->env, work->state);
    worker->answer->result.state = (struct bulk){work->state, work->state_size};
}

/* --- the thread: acting ------------------------------------------------------ */

/* One, but in lock-step, where the learner waits for this step, all. */
static void use_usual_threads(worker_t *worker)
{
    pool_set_active(worker->pool, worker->options.config.lockstep ? pool_threads(worker->pool) : 1);
}

static int plan(worker_t *worker, const struct rng_key *key, bool first, bool eval, struct error *err)
{
    uint64_t begun = clock_ns();
    struct mppi_draws draws;
    struct rng rng;
    int rc;

    rng_init(&rng, key);
    draws = mppi_draws_rng(&rng);
    rc = mppi_plan(worker->planner, worker->acting, worker->seen, first, eval, &draws, worker->action);
    metrics_record(worker->options.metrics, METRIC_plan_ms, (double)(clock_ns() - begun) / 1e6);
    if (rc != TD_OK)
        error_set(err, rc, "planning gave an action that is not finite: the parameters have diverged");
    return rc;
}

static void step(worker_t *worker, const struct command_step *command)
{
    struct session_step *out = &worker->answer->result.step;
    struct env_result result;
    struct error err = {0};
    struct rng rng;
    int rc = TD_OK;

    if (command->random) {
        rng_init(&rng, &command->key);
        rng_uniform(&rng, worker->action, worker->spec.action_dim, -1, 1);
    } else {
        rc = plan(worker, &command->key, command->first, false, &err);
    }
    if (rc == TD_OK)
        rc = step_env(worker, &result, &err);
    if (rc != TD_OK) {
        if (!lose(worker, rc, &err))
            fail(worker, rc, &err);
        return;
    }
    metrics_add(worker->options.metrics, METRIC_env_steps, worker->spec.action_repeat);
    out->action = worker->action;
    out->reward = (float)result.reward;
    out->terminated = result.terminated;
    out->truncated = result.truncated;
    out->has_success = result.has_success;
    out->success = result.success;
}

static bool is_abandoned(worker_t *worker, const struct work *work)
{
    return atomic_load(&worker->stopping) || atomic_load(&worker->abandoned) != work->abandoned;
}

struct score {
    double reward, length, success; /* success: of the last step */
    bool has_success;
};

/* One episode without exploration noise. False: abandoned, or rc says. */
static bool evaluate_episode(worker_t *worker, const struct work *work, uint32_t episode,
                             struct score *score, int *rc, struct error *err)
{
    struct env_result result = {0};

    *score = (struct score){0};

    *rc = reset_env(worker, err);
    for (uint32_t t = 0; *rc == TD_OK && !result.terminated && !result.truncated; t++) {
        struct rng_key key = session_eval_key(&work->evaluate.key, episode, t);

        if (is_abandoned(worker, work))
            return false;
        if ((*rc = plan(worker, &key, t == 0, true, err)) != TD_OK ||
            (*rc = step_env(worker, &result, err)) != TD_OK)
            break;
        if (!work->evaluate.in_place)
            metrics_add(worker->options.metrics, METRIC_env_steps, worker->spec.action_repeat);
        score->reward += (double)(float)result.reward;
        score->length += 1;
    }
    score->success = result.success;
    score->has_success = result.has_success;
    return *rc == TD_OK;
}

/* All of them, added up; an episode whose environment is lost is played again, a few times in all. */
static bool evaluate_episodes(worker_t *worker, const struct work *work, struct score *sum, int *rc, struct error *err)
{
    int losses = 0;

    for (uint32_t i = 0; i < work->evaluate.episodes; i++) {
        struct score score;

        while (!evaluate_episode(worker, work, i, &score, rc, err)) {
            if (*rc != TD_ELOST || work->evaluate.in_place || ++losses > EVALUATION_LOSSES)
                return false;
            metrics_add(worker->options.metrics, METRIC_env_lost, 1);
            log_error("an episode of the evaluation is played again", "why=\"%s\"", err->text);
        }
        sum->reward += score.reward;
        sum->length += score.length;
        sum->success += score.success;
        sum->has_success |= score.has_success;
    }
    return true;
}

static void evaluate(worker_t *worker, const struct work *work)
{
    struct worker_result *result = &worker->answer->result;
    uint32_t episodes = work->evaluate.episodes;
    struct score sum = {0};
    struct error err = {0};
    bool going = false;
    int rc = TD_OK;

    if (!work->evaluate.in_place)
        rc = make_env(worker, work->evaluate.seed, &err);
    if (work->evaluate.alone)
        pool_set_active(worker->pool, pool_threads(worker->pool));
    if (rc == TD_OK)
        going = evaluate_episodes(worker, work, &sum, &rc, &err);
    use_usual_threads(worker);
    if (rc != TD_OK) {
        fail(worker, rc, &err);
        return;
    }
    result->ended = going;
    result->evaluation.episodes = episodes;
    result->evaluation.reward = episodes > 0 ? sum.reward / episodes : 0;
    result->evaluation.length = episodes > 0 ? sum.length / episodes : 0;
    result->evaluation.has_success = sum.has_success;
    result->evaluation.success = episodes > 0 ? sum.success / episodes : 0;
    if (going && work->evaluate.in_place) {
        capture(worker, work);
        result->evaluation.state = result->state;
    }
}

/* Copy, check, and change places with what is acted with now. */
static void adopt(worker_t *worker, const struct command_adopt *command)
{
    world_model_t *next = worker->spare;

    TD_ASSERT(command->size == model_acting_floats(&next->layout) * sizeof(float), "a snapshot of %zu",
              command->size);
    memcpy(next->parameters, command->data, command->size);
    if (!world_model_finite(next))
        return;
    worker->spare = worker->acting;
    worker->acting = next;
    worker->answer->result.ok = true;
}

/* --- the thread: life -------------------------------------------------------- */

static uint64_t token_of(const struct work *work)
{
    switch (work->kind) {
    case COMMAND_RESTORE:
        return work->restore.token;
    case COMMAND_RESET:
        return work->reset.token;
    case COMMAND_STEP:
        return work->step.token;
    case COMMAND_CAPTURE:
        return work->capture.token;
    case COMMAND_EVALUATE:
        return work->evaluate.token;
    default:
        return work->adopt.token;
    }
}

static void carry_out(worker_t *worker, const struct work *work)
{
    begin_answer(worker, work->kind, token_of(work));
    worker->answer->state = work->state;
    worker->answer->state_size = work->state_size;
    switch (work->kind) {
    case COMMAND_RESTORE:
        restore(worker, work);
        break;
    case COMMAND_RESET:
        reset(worker, work);
        break;
    case COMMAND_STEP:
        step(worker, &work->step);
        break;
    case COMMAND_CAPTURE:
        capture(worker, work);
        break;
    case COMMAND_EVALUATE:
        evaluate(worker, work);
        break;
    default:
        adopt(worker, &work->adopt);
        break;
    }
    send_answer(worker);
}

static int make_agent(worker_t *worker, struct error *err)
{
    const struct config *config = &worker->options.config;
    struct mppi_config plan_config;
    struct model_dims dims;
    int rc;

    mppi_config_init(&plan_config, config, (int)worker->spec.action_dim, worker->spec.episode_length);
    if ((rc = model_dims_init(&dims, config, (int)worker->spec.obs_dim, (int)worker->spec.action_dim, err)) !=
            TD_OK ||
        (rc = world_model_create(&worker->acting, &dims, false, err)) != TD_OK ||
        (rc = world_model_create(&worker->spare, &dims, false, err)) != TD_OK ||
        (rc = pool_create(&worker->pool, worker->options.threads, err)) != TD_OK ||
        (rc = gemm_start(pool_threads(worker->pool), err)) != TD_OK)
        return rc;
    use_usual_threads(worker);
    metrics_set(worker->options.metrics, METRIC_threads, pool_active(worker->pool));
    return mppi_create(&worker->planner, &plan_config, &dims, 1, worker->pool, err);
}

static bool make_everything(worker_t *worker)
{
    struct worker_result *result = &worker->answer->result;
    struct error err = {0};
    int rc;

    begin_answer(worker, WORKER_READY, 0);
    rc = make_env(worker, (uint64_t)worker->options.config.seed, &err);
    if (rc == TD_OK)
        rc = make_agent(worker, &err);
    if (rc != TD_OK) {
        fail(worker, rc, &err);
        send_answer(worker);
        return false;
    }
    TD_ASSERT(worker->spec.obs_dim == env_spec(worker->env)->obs_dim &&
                  worker->spec.action_dim == env_spec(worker->env)->action_dim,
              "env_find and env_create differ on %s", worker->spec.task);
    worker->state_size = env_state_size(worker->env);
    result->snapshot_bytes = model_acting_floats(&worker->acting->layout) * sizeof(float);
    result->spec = (struct message_spec){
        .obs_type = worker->spec.obs_type,
        .obs_dim = worker->spec.obs_dim,
        .action_dim = worker->spec.action_dim,
        .episode_length = worker->spec.episode_length,
        .saves_state = worker->state_size > 0,
    };
    send_answer(worker);
    return true;
}

/* The thread alone gives way to others; the loop must stay quick to answer. */
static void give_way(void)
{
    struct sched_param none = {0};

    setpriority(PRIO_PROCESS, 0, BACKGROUND_NICE); /* on Linux: of this thread */
    sched_setscheduler(0, SCHED_BATCH, &none);
}

static void *run(void *context)
{
    worker_t *worker = context;
    struct work work;

    pthread_setname_np(pthread_self(), "worker");
    if (worker->options.background)
        give_way();
    if (!make_everything(worker))
        return NULL;
    while (!worker->failed && !atomic_load(&worker->stopping) && queue_wait(worker->commands, &work, -1) == TD_OK) {
        if (atomic_load(&worker->stopping)) {
            free(work.state);
            break;
        }
        carry_out(worker, &work);
    }
    return NULL;
}

/* --- the loop's side --------------------------------------------------------- */

static int create_queues(worker_t *worker)
{
    size_t bytes = answer_bytes(worker);
    int rc = queue_create(&worker->commands, WORKER_PENDING, sizeof(struct work), NULL, NULL);

    if (rc != TD_OK)
        return rc;
    /* one result to each command, the one under way and the first: a push always finds room */
    rc = queue_create(&worker->results, 2 * WORKER_PENDING, bytes, worker->options.wake,
                      worker->options.context);
    worker->answer = calloc(1, bytes);
    worker->popped = calloc(1, bytes);
    worker->seen = calloc(1, stack_bytes(&worker->spec));
    if (rc != TD_OK || worker->answer == NULL || worker->popped == NULL || worker->seen == NULL)
        return TD_ENOMEM;
    worker->obs = worker->answer + 1;
    worker->action = (float *)((char *)worker->obs + obs_bytes(worker));
    return TD_OK;
}

int worker_create(worker_t **out, const struct worker_options *options, struct error *err)
{
    worker_t *worker = calloc(1, sizeof(*worker));
    struct env_options seen;
    int rc;

    *out = NULL;
    if (worker == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the environment");
    worker->options = *options;
    seen = options_of(worker);
    rc = env_find_with(options->config.task, &seen, &worker->spec, err);
    if (rc == TD_OK && (rc = create_queues(worker)) != TD_OK)
        error_set(err, rc, "out of memory for the environment");
    if (rc == TD_OK && pthread_create(&worker->thread, NULL, run, worker) != 0)
        rc = error_set(err, TD_EIO, "the compute thread cannot be started: too many threads");
    if (rc != TD_OK) {
        worker_destroy(&worker);
        return rc;
    }
    worker->started = true;
    *out = worker;
    return TD_OK;
}

/* Memory for a state that goes along with this command, filled for RESTORE. */
static int lend_state(worker_t *worker, const struct session_output *output, struct work *work)
{
    const struct bulk *state = &output->restore.state;

    if (output->kind == COMMAND_RESTORE)
        work->state_size = state->size;
    else if (output->kind == COMMAND_CAPTURE || (output->kind == COMMAND_EVALUATE && output->evaluate.in_place))
        work->state_size = worker->state_size;
    if (work->state_size == 0)
        return TD_OK;
    work->state = malloc(work->state_size);
    if (work->state == NULL)
        return TD_ENOMEM;
    if (output->kind == COMMAND_RESTORE)
        memcpy(work->state, state->data, state->size);
    return TD_OK;
}

int worker_command(worker_t *worker, const struct session_output *output, struct error *err)
{
    struct work work = {.kind = output->kind, .abandoned = atomic_load(&worker->abandoned)};
    int rc = TD_OK;

    switch (output->kind) {
    case COMMAND_ABANDON:
        atomic_fetch_add(&worker->abandoned, 1);
        return TD_OK;
    case COMMAND_RESTORE:
        work.restore = output->restore;
        break;
    case COMMAND_RESET:
        work.reset = output->reset;
        break;
    case COMMAND_STEP:
        work.step = output->step;
        break;
    case COMMAND_CAPTURE:
        work.capture = output->capture;
        break;
    case COMMAND_EVALUATE:
        work.evaluate = output->evaluate;
        break;
    case COMMAND_ADOPT:
        work.adopt = output->adopt;
        break;
    default:
        TD_ASSERT(0, "command %u is not the worker's", output->kind);
    }
    if (lend_state(worker, output, &work) != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory for the environment's state");
    if ((rc = queue_push(worker->commands, &work)) != TD_OK) {
        free(work.state);
        return error_set(err, rc, "the learner gives commands faster than they can be carried out");
    }
    return TD_OK;
}

const struct worker_result *worker_next(worker_t *worker)
{
    struct worker_result *result = &worker->popped->result;

    free(worker->popped->state);
    worker->popped->state = NULL;
    if (queue_pop(worker->results, worker->popped) != TD_OK)
        return NULL;
    /* the observation and the action are now in this copy */
    result->step.obs = worker->popped + 1;
    result->step.lost = result->lost ? result->err.text : NULL;
    if (result->step.action != NULL)
        result->step.action = (const float *)((const char *)result->step.obs + obs_bytes(worker));
    return result;
}

bool worker_stop(worker_t *worker, uint64_t wait_ms)
{
    struct timespec until;

    if (!worker->started || worker->joined)
        return true;
    atomic_store(&worker->stopping, true);
    queue_close(worker->commands);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(wait_ms / 1000);
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    worker->joined = pthread_timedjoin_np(worker->thread, NULL, &until) == 0;
    return worker->joined;
}

static void drop_queues(worker_t *worker)
{
    struct work work;

    while (worker->commands != NULL && queue_pop(worker->commands, &work) == TD_OK)
        free(work.state);
    while (worker->results != NULL && worker->popped != NULL && worker_next(worker) != NULL)
        continue;
    queue_destroy(&worker->commands);
    queue_destroy(&worker->results);
}

void worker_destroy(worker_t **out)
{
    worker_t *worker = *out;

    if (worker == NULL)
        return;
    TD_ASSERT(!worker->started || worker->joined, "stopped first");
    drop_queues(worker);
    mppi_destroy(&worker->planner);
    pool_destroy(&worker->pool);
    world_model_destroy(&worker->acting);
    world_model_destroy(&worker->spare);
    env_close(&worker->env);
    free(worker->answer);
    free(worker->popped);
    free(worker->seen);
    free(worker);
    *out = NULL;
}
