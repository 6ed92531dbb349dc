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

/* Not a command: the loop has dealt with all results of a round. */
#define WORK_DEALT UINT32_MAX

/* A result on its way back; behind it in the queue's item lie the observation and the action. */
struct answer {
    struct worker_result result;
    void *state; /* of struct work */
    size_t state_size;
};

/* One environment. */
struct seat {
    struct answer *answer; /* made here, then pushed; with its observation and action */
    void *obs;             /* behind answer: what the environment said last */
    float *action;         /* behind that */
    void *seen;            /* what the planner sees: the state, or the last frames */
    uint32_t number;
    env_t *env;            /* NULL: not made yet */
    uint32_t env_seed;
    bool env_untouched;    /* made with that seed and not used since */
    /* of the reset or step under way */
    const struct work *work;
    int rc;
    struct error err;
    struct env_result result;
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
    bool round_ended;      /* popped is the last result of a round */
    /* the thread's */
    struct seat *seats;
    int seat_count;
    struct work *works;    /* [WORKER_PENDING] of the round under way */
    struct seat **group;   /* [seat_count] that move together */
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

static void send_answer(worker_t *worker, struct seat *seat, bool more)
{
    int rc;

    seat->answer->result.more = more;
    rc = queue_push(worker->results, seat->answer);
    TD_ASSERT(rc == TD_OK, "more results than commands");
}

static void begin_answer(struct seat *seat, uint32_t kind, uint64_t token)
{
    memset(seat->answer, 0, sizeof(*seat->answer));
    seat->answer->result.environment = seat->number;
    seat->answer->result.kind = kind;
    seat->answer->result.token = token;
}

/* The environment is gone, and a reset may bring another. False: it is another kind of failure. */
static bool lose(worker_t *worker, struct seat *seat, int rc, const struct error *err)
{
    struct worker_result *result = &seat->answer->result;

    if (rc != TD_ELOST)
        return false;
    metrics_add(worker->options.metrics, METRIC_env_lost, 1);
    result->err = *err;
    result->lost = true;
    return true;
}

/* The command could not be carried out, and no other will be. */
static void fail(worker_t *worker, struct seat *seat, int rc, const struct error *err)
{
    seat->answer->result.kind = WORKER_FAILED;
    seat->answer->result.err = *err;
    seat->answer->result.err.code = rc;
    worker->failed = true;
}

/* --- the thread: environment ------------------------------------------------- */

static struct env_options options_of(const worker_t *worker)
{
    return env_options(worker->options.config.obs, worker->options.config.render);
}

static struct seat *seat_of(worker_t *worker, uint32_t environment)
{
    TD_ASSERT(environment < (uint32_t)worker->seat_count, "environment %u of %d", environment, worker->seat_count);
    return &worker->seats[environment];
}

/* An environment whose random state begins with this seed. */
static int make_env(worker_t *worker, struct seat *seat, uint64_t seed, struct error *err)
{
    struct env_options options = options_of(worker);
    int rc;

    if (seat->env != NULL && seat->env_untouched && seat->env_seed == (uint32_t)seed)
        return TD_OK;
    env_close(&seat->env);
    rc = env_create_with(&seat->env, worker->options.config.task, &options, (uint32_t)seed, err);
    seat->env_seed = (uint32_t)seed;
    seat->env_untouched = true;
    return rc;
}

static int reset_env(worker_t *worker, struct seat *seat, struct error *err)
{
    int rc = env_reset(seat->env, seat->obs, err);

    seat->env_untouched = false;
    if (rc == TD_OK)
        stack_push(&worker->spec, seat->seen, seat->obs, true);
    return rc;
}

static int step_env(worker_t *worker, struct seat *seat, struct env_result *result, struct error *err)
{
    uint64_t begun = clock_ns();
    int rc = env_step(seat->env, seat->action, seat->obs, result, err);

    metrics_record(worker->options.metrics, METRIC_env_ms, (double)(clock_ns() - begun) / 1e6);
    if (rc == TD_OK)
        stack_push(&worker->spec, seat->seen, seat->obs, false);
    return rc;
}

static void restore(worker_t *worker, struct seat *seat, const struct work *work)
{
    struct worker_result *result = &seat->answer->result;
    struct error err = {0};
    int rc;

    if (work->state_size == 0) {
        rc = make_env(worker, seat, work->restore.seed, &err);
        if (rc != TD_OK)
            fail(worker, seat, rc, &err);
    } else {
        rc = env_state_set(seat->env, work->state, work->state_size, &result->err);
        seat->env_untouched = false;
    }
    result->ok = rc == TD_OK;
}

static void capture(struct seat *seat, const struct work *work)
{
    if (work->state_size == 0)
        return;
    env_state_get(seat->env, work->state);
    seat->answer->result.state = (struct bulk){work->state, work->state_size};
}

/* --- the thread: acting ------------------------------------------------------ */

/* Those it was given; the evaluator, beside whom others compute, one. */
static void use_usual_threads(worker_t *worker)
{
    pool_set_active(worker->pool, worker->options.background ? 1 : pool_threads(worker->pool));
}

/* For all of these at once. Those whose action is not finite have their rc set. */
static void plan(worker_t *worker, struct mppi_request *requests, int count)
{
    uint64_t begun = clock_ns();

    if (count == 0)
        return;
    mppi_plan_batch(worker->planner, worker->acting, requests, count);
    metrics_record(worker->options.metrics, METRIC_plan_ms, (double)(clock_ns() - begun) / 1e6);
    metrics_record(worker->options.metrics, METRIC_plan_batch, count);
    for (int i = 0; i < count; i++) {
        struct seat *seat = seat_of(worker, (uint32_t)requests[i].environment);

        seat->rc = requests[i].status;
        if (seat->rc != TD_OK)
            error_set(&seat->err, seat->rc,
                      "planning gave an action that is not finite: the parameters have diverged");
    }
}

/* The draws of a step; rng is its memory. */
static struct mppi_request request_of(struct seat *seat, const struct rng_key *key, struct rng *rng)
{
    rng_init(rng, key);
    return (struct mppi_request){.environment = (int)seat->number, .obs = seat->seen,
                                 .draws = mppi_draws_rng(rng), .action = seat->action};
}

/* The actions of all that step: drawn, or planned in one batch. */
static void choose_actions(worker_t *worker, int count)
{
    struct mppi_request requests[MPPI_ENVIRONMENTS_MAX];
    struct rng rng[MPPI_ENVIRONMENTS_MAX];
    int planned = 0;

    for (int i = 0; i < count; i++) {
        struct seat *seat = worker->group[i];
        const struct command_step *command = &seat->work->step;

        if (seat->work->kind != COMMAND_STEP)
            continue;
        if (command->random) {
            rng_init(&rng[planned], &command->key);
            rng_uniform(&rng[planned], seat->action, worker->spec.action_dim, -1, 1);
            continue;
        }
        requests[planned] = request_of(seat, &command->key, &rng[planned]);
        requests[planned++].first = command->first;
    }
    plan(worker, requests, planned);
}

/* Pool task: one environment's reset or step. */
static void move_task(void *context, int task, int thread)
{
    worker_t *worker = context;
    struct seat *seat = worker->group[task];

    (void)thread;
    if (seat->rc != TD_OK)
        return;
    if (seat->work->kind == COMMAND_RESET)
        seat->rc = reset_env(worker, seat, &seat->err);
    else
        seat->rc = step_env(worker, seat, &seat->result, &seat->err);
}

static void answer_move(worker_t *worker, struct seat *seat)
{
    struct session_step *out = &seat->answer->result.step;

    if (seat->rc != TD_OK) {
        if (!lose(worker, seat, seat->rc, &seat->err))
            fail(worker, seat, seat->rc, &seat->err);
        return;
    }
    if (seat->work->kind == COMMAND_RESET)
        return;
    metrics_add(worker->options.metrics, METRIC_env_steps, worker->spec.action_repeat);
    out->action = seat->action;
    out->reward = (float)seat->result.reward;
    out->terminated = seat->result.terminated;
    out->truncated = seat->result.truncated;
    out->has_success = seat->result.has_success;
    out->success = seat->result.success;
}

/* Reset or step those in worker->group: plan for them together, then move them, on all threads there are. */
static void move_group(worker_t *worker, int count, bool more)
{
    for (int i = 0; i < count; i++) {
        struct seat *seat = worker->group[i];

        begin_answer(seat, seat->work->kind, token_of(seat->work));
        memset(&seat->err, 0, sizeof(seat->err));
        memset(&seat->result, 0, sizeof(seat->result));
        seat->rc = TD_OK;
        if (seat->work->kind == COMMAND_RESET && (seat->work->reset.reseed || seat->env == NULL))
            seat->rc = make_env(worker, seat, seat->work->reset.seed, &seat->err);
    }
    choose_actions(worker, count);
    pool_run(worker->pool, move_task, worker, count);
    for (int i = 0; i < count; i++)
        answer_move(worker, worker->group[i]);
    for (int i = 0; i < count; i++)
        send_answer(worker, worker->group[i], more || i < count - 1);
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
    struct seat *seat = &worker->seats[0];
    struct env_result result = {0};

    *score = (struct score){0};

    *rc = reset_env(worker, seat, err);
    for (uint32_t t = 0; *rc == TD_OK && !result.terminated && !result.truncated; t++) {
        struct rng_key key = session_eval_key(&work->evaluate.key, episode, t);
        struct rng rng;
        struct mppi_request request = request_of(seat, &key, &rng);

        if (is_abandoned(worker, work))
            return false;
        request.first = t == 0;
        request.eval = true;
        plan(worker, &request, 1);
        if ((*rc = seat->rc) != TD_OK)
            *err = seat->err;
        else
            *rc = step_env(worker, seat, &result, err);
        if (*rc != TD_OK)
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

static void evaluate(worker_t *worker, struct seat *seat, const struct work *work)
{
    struct worker_result *result = &seat->answer->result;
    uint32_t episodes = work->evaluate.episodes;
    struct score sum = {0};
    struct error err = {0};
    bool going = false;
    int rc = TD_OK;

    if (!work->evaluate.in_place)
        rc = make_env(worker, seat, work->evaluate.seed, &err);
    if (work->evaluate.alone)
        pool_set_active(worker->pool, pool_threads(worker->pool));
    if (rc == TD_OK)
        going = evaluate_episodes(worker, work, &sum, &rc, &err);
    use_usual_threads(worker);
    if (rc != TD_OK) {
        fail(worker, seat, rc, &err);
        return;
    }
    result->ended = going;
    result->evaluation.episodes = episodes;
    result->evaluation.reward = episodes > 0 ? sum.reward / episodes : 0;
    result->evaluation.length = episodes > 0 ? sum.length / episodes : 0;
    result->evaluation.has_success = sum.has_success;
    result->evaluation.success = episodes > 0 ? sum.success / episodes : 0;
    if (going && work->evaluate.in_place) {
        capture(seat, work);
        result->evaluation.state = result->state;
    }
}

/* Copy, check, and change places with what is acted with now. */
static void adopt(worker_t *worker, struct seat *seat, const struct command_adopt *command)
{
    world_model_t *next = worker->spare;

    TD_ASSERT(command->size == model_acting_floats(&next->layout) * sizeof(float), "a snapshot of %zu",
              command->size);
    memcpy(next->parameters, command->data, command->size);
    if (!world_model_finite(next))
        return;
    worker->spare = worker->acting;
    worker->acting = next;
    seat->answer->result.ok = true;
}

/* --- the thread: life -------------------------------------------------------- */

static bool is_move(const struct work *work)
{
    return work->kind == COMMAND_RESET || work->kind == COMMAND_STEP;
}

/* A command that is carried out by itself. */
static void carry_out(worker_t *worker, const struct work *work, bool more)
{
    struct seat *seat = &worker->seats[0];

    if (work->kind == COMMAND_RESTORE)
        seat = seat_of(worker, work->restore.environment);
    else if (work->kind == COMMAND_CAPTURE)
        seat = seat_of(worker, work->capture.environment);
    begin_answer(seat, work->kind, token_of(work));
    seat->answer->state = work->state;
    seat->answer->state_size = work->state_size;
    switch (work->kind) {
    case COMMAND_RESTORE:
        restore(worker, seat, work);
        break;
    case COMMAND_CAPTURE:
        capture(seat, work);
        break;
    case COMMAND_EVALUATE:
        evaluate(worker, seat, work);
        break;
    default:
        adopt(worker, seat, &work->adopt);
        break;
    }
    send_answer(worker, seat, more);
}

/* Resets and steps in a row, each of another environment, from works[from] on; returns how many. */
static int gather_group(worker_t *worker, int from, int count)
{
    int size = 0;

    for (int i = from; i < count && is_move(&worker->works[i]); i++) {
        const struct work *work = &worker->works[i];
        struct seat *seat = seat_of(worker, work->kind == COMMAND_RESET ? work->reset.environment
                                                                        : work->step.environment);

        for (int j = 0; j < size; j++)
            if (worker->group[j] == seat)
                return size;
        seat->work = work;
        worker->group[size++] = seat;
    }
    return size;
}

/* In the order they were given in; those after a failure are dropped. */
static void carry_out_round(worker_t *worker, int count)
{
    for (int i = 0; i < count;) {
        int size = gather_group(worker, i, count);

        if (worker->failed || atomic_load(&worker->stopping)) {
            free(worker->works[i++].state);
        } else if (size > 0) {
            move_group(worker, size, i + size < count);
            i += size;
        } else {
            carry_out(worker, &worker->works[i], i + 1 < count);
            i++;
        }
    }
}

/*
 * Wait for commands; returns how many, 0: the thread shall end. With several environments, those that one
 * round's results led to are taken together, so that what was planned in one batch stays in one: the loop
 * says when it has dealt with all of them.
 */
static int take_round(worker_t *worker)
{
    int count = 0;
    bool dealt = worker->seat_count == 1;

    while (count < WORKER_PENDING && (!dealt || count == 0 || queue_length(worker->commands) > 0)) {
        if (queue_wait(worker->commands, &worker->works[count], -1) != TD_OK)
            break;
        if (worker->works[count].kind == WORK_DEALT)
            dealt = true;
        else if (++count == 1 && worker->seat_count == 1)
            break;
    }
    return count;
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
    return mppi_create(&worker->planner, &plan_config, &dims, worker->seat_count, worker->pool, err);
}

static bool make_everything(worker_t *worker)
{
    struct seat *seat = &worker->seats[0];
    struct worker_result *result = &seat->answer->result;
    struct error err = {0};
    int rc;

    begin_answer(seat, WORKER_READY, 0);
    rc = make_env(worker, seat, (uint64_t)worker->options.config.seed, &err);
    if (rc == TD_OK)
        rc = make_agent(worker, &err);
    if (rc != TD_OK) {
        fail(worker, seat, rc, &err);
        send_answer(worker, seat, false);
        return false;
    }
    TD_ASSERT(worker->spec.obs_dim == env_spec(seat->env)->obs_dim &&
                  worker->spec.action_dim == env_spec(seat->env)->action_dim,
              "env_find and env_create differ on %s", worker->spec.task);
    worker->state_size = env_state_size(seat->env);
    result->snapshot_bytes = model_acting_floats(&worker->acting->layout) * sizeof(float);
    result->spec = (struct message_spec){
        .obs_type = worker->spec.obs_type,
        .obs_dim = worker->spec.obs_dim,
        .action_dim = worker->spec.action_dim,
        .episode_length = worker->spec.episode_length,
        .saves_state = worker->state_size > 0,
    };
    send_answer(worker, seat, false);
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
    int count;

    pthread_setname_np(pthread_self(), "worker");
    if (worker->options.background)
        give_way();
    if (!make_everything(worker))
        return NULL;
    while (!worker->failed && !atomic_load(&worker->stopping) && (count = take_round(worker)) > 0)
        carry_out_round(worker, count);
    return NULL;
}

/* --- the loop's side --------------------------------------------------------- */

static int create_queues(worker_t *worker)
{
    size_t bytes = answer_bytes(worker);
    int rc = queue_create(&worker->commands, WORKER_PENDING, sizeof(struct work), NULL, NULL);

    if (rc != TD_OK)
        return rc;
    /* one result to each command, the round under way and the first: a push always finds room */
    rc = queue_create(&worker->results, 2 * WORKER_PENDING, bytes, worker->options.wake,
                      worker->options.context);
    worker->popped = calloc(1, bytes);
    worker->works = calloc(WORKER_PENDING, sizeof(*worker->works));
    return rc != TD_OK || worker->popped == NULL || worker->works == NULL ? TD_ENOMEM : TD_OK;
}

static int create_seats(worker_t *worker)
{
    worker->seats = calloc((size_t)worker->seat_count, sizeof(*worker->seats));
    worker->group = calloc((size_t)worker->seat_count, sizeof(*worker->group));
    if (worker->seats == NULL || worker->group == NULL)
        return TD_ENOMEM;
    for (int i = 0; i < worker->seat_count; i++) {
        struct seat *seat = &worker->seats[i];

        seat->number = (uint32_t)i;
        seat->answer = calloc(1, answer_bytes(worker));
        seat->seen = calloc(1, stack_bytes(&worker->spec));
        if (seat->answer == NULL || seat->seen == NULL)
            return TD_ENOMEM;
        seat->obs = seat->answer + 1;
        seat->action = (float *)((char *)seat->obs + obs_bytes(worker));
    }
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
    worker->seat_count = options->environments > 1 ? options->environments : 1;
    seen = options_of(worker);
    rc = env_find_with(options->config.task, &seen, &worker->spec, err);
    if (rc == TD_OK && ((rc = create_queues(worker)) != TD_OK || (rc = create_seats(worker)) != TD_OK))
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

/* What the results of a round led to has been commanded. */
static void end_round(worker_t *worker)
{
    struct work work = {.kind = WORK_DEALT};

    worker->round_ended = false;
    if (!worker->joined)
        queue_push(worker->commands, &work); /* refused only when all is being stopped */
}

const struct worker_result *worker_next(worker_t *worker)
{
    struct worker_result *result = &worker->popped->result;

    free(worker->popped->state);
    worker->popped->state = NULL;
    if (worker->round_ended)
        end_round(worker);
    if (queue_pop(worker->results, worker->popped) != TD_OK)
        return NULL;
    worker->round_ended = worker->seat_count > 1 && !result->more;
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
    for (int i = 0; worker->seats != NULL && i < worker->seat_count; i++) {
        env_close(&worker->seats[i].env); /* while the threads are there that may have started its process */
        free(worker->seats[i].answer);
        free(worker->seats[i].seen);
    }
    pool_destroy(&worker->pool);
    world_model_destroy(&worker->acting);
    world_model_destroy(&worker->spare);
    free(worker->seats);
    free(worker->group);
    free(worker->works);
    free(worker->popped);
    free(worker);
    *out = NULL;
}
