#include "actor/worker.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "actor/worker_private.h"
#include "common/env/stack.h"
#include "common/tensor/gemm.h"
#include "common/util/clock.h"

/* What an environment says of itself goes into rows and onto the wire as it is. */
_Static_assert(ENV_OBS_STATE == (int)OBS_STATE && ENV_OBS_RGB == (int)OBS_RGB, "kinds of observations");
_Static_assert(STACK_FRAMES == ROW_STACK, "frames in an observation");

#define BACKGROUND_NICE 10

static size_t obs_bytes(const struct worker *worker)
{
    return (env_obs_bytes(&worker->spec) + 7) & ~(size_t)7;
}

static size_t answer_bytes(const struct worker *worker)
{
    return sizeof(struct answer) + obs_bytes(worker) + worker->spec.action_dim * sizeof(float);
}

/* --- the thread: answers ---------------------------------------------------- */

uint64_t work_token(const struct work *work)
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

void worker_hold_answer(worker_t *worker, const struct seat *seat)
{
    int rc = TD_OK;

    if (worker->has_held) {
        worker->held->result.more = true;
        rc = queue_push(worker->results, worker->held);
    }
    TD_ASSERT(rc == TD_OK, "more results than commands");
    memcpy(worker->held, seat->answer, answer_bytes(worker));
    worker->has_held = true;
    if (worker->told_ms == 0)
        worker->told_ms = clock_ms();
}

void worker_begin_answer(struct seat *seat, uint32_t kind, uint64_t token)
{
    memset(seat->answer, 0, sizeof(*seat->answer));
    seat->answer->result.environment = seat->number;
    seat->answer->result.kind = kind;
    seat->answer->result.token = token;
}

/* The command could not be carried out, and no other will be. */
void worker_fail(worker_t *worker, struct seat *seat, int rc, const struct error *err)
{
    seat->answer->result.kind = WORKER_FAILED;
    seat->answer->result.err = *err;
    seat->answer->result.err.code = rc;
    worker->failed = true;
}

/* --- the thread: environment ------------------------------------------------- */

struct seat *worker_seat(worker_t *worker, uint32_t environment)
{
    TD_ASSERT(environment < (uint32_t)worker->seat_count, "environment %u of %d", environment, worker->seat_count);
    return &worker->seats[environment];
}

static void restore(worker_t *worker, struct seat *seat, const struct work *work)
{
    struct worker_result *result = &seat->answer->result;
    struct error err = {0};
    int rc = envs_restore(worker, seat, work, &err);

    result->ok = rc == TD_OK;
    result->err = err;
    if (rc != TD_OK && work->state_size == 0) /* it could not be made anew */
        worker_fail(worker, seat, rc, &err);
}

/* --- the thread: life -------------------------------------------------------- */

/* Those it was given; the evaluator, beside whom others compute, one. */
void worker_usual_threads(worker_t *worker)
{
    pool_set_active(worker->pool, worker->options.background ? 1 : pool_threads(worker->pool));
}

/* Copy, check, and change places with what is acted with now. */
static void adopt(worker_t *worker, struct seat *seat, const struct command_adopt *command)
{
    world_model_t *next = worker->spare;

    TD_ASSERT(command->size == world_model_bytes(next), "a snapshot of %zu", command->size);
    memcpy(next->parameters, command->data, command->size);
    if (!world_model_finite(next))
        return;
    worker->spare = worker->acting;
    worker->acting = next;
    seat->answer->result.ok = true;
}

static bool is_move(const struct work *work)
{
    return work->kind == COMMAND_RESET || work->kind == COMMAND_STEP;
}

/* The environment of a command that is no move; parameters are nobody's, and told from the first seat. */
static struct seat *seat_at(worker_t *worker, const struct work *work)
{
    if (work->kind == COMMAND_RESTORE)
        return worker_seat(worker, work->restore.environment);
    if (work->kind == COMMAND_CAPTURE)
        return worker_seat(worker, work->capture.environment);
    return &worker->seats[0];
}

/* A command that is carried out by itself. */
static void carry_out(worker_t *worker, const struct work *work)
{
    struct seat *seat = seat_at(worker, work);

    moves_tell(worker);
    if (work->kind != COMMAND_ADOPT && !moves_settle(worker, seat)) {
        free(work->state);
        return;
    }
    worker_begin_answer(seat, work->kind, work_token(work));
    seat->answer->state = work->state;
    seat->answer->state_size = work->state_size;
    switch (work->kind) {
    case COMMAND_RESTORE:
        restore(worker, seat, work);
        break;
    case COMMAND_CAPTURE:
        envs_capture(worker, seat, work);
        break;
    case COMMAND_EVALUATE:
        worker_evaluate(worker, seat, work);
        break;
    default:
        adopt(worker, seat, &work->adopt);
        break;
    }
    worker_hold_answer(worker, seat);
}

/* Resets and steps in a row, each of another environment, from works[from] on; returns how many. */
static int gather_group(worker_t *worker, int from)
{
    int size = 0;

    for (int i = from; i < worker->work_count && is_move(&worker->works[i]); i++) {
        const struct work *work = &worker->works[i];
        struct seat *seat = worker_seat(worker, work->kind == COMMAND_RESET ? work->reset.environment
                                                                            : work->step.environment);

        for (int j = 0; j < size; j++)
            if (worker->group[j] == seat)
                return size;
        seat->next = work;
        worker->group[size++] = seat;
    }
    return size;
}

/* What was taken, in the order it was given in; what comes after a failure is dropped. */
static void carry_out_works(worker_t *worker)
{
    for (int i = 0; i < worker->work_count;) {
        int size = gather_group(worker, i);

        if (worker->failed || atomic_load(&worker->stopping)) {
            free(worker->works[i++].state);
        } else if (size > 0) {
            moves_begin(worker, size);
            i += size;
        } else {
            carry_out(worker, &worker->works[i++]);
        }
    }
    worker->work_count = 0;
}

/* Room for another; one environment's commands are taken one by one. */
static bool has_room(const worker_t *worker)
{
    return worker->work_count < (worker->seat_count == 1 ? 1 : WORKER_PENDING);
}

static void take(worker_t *worker)
{
    if (worker->works[worker->work_count].kind == WORK_DEALT)
        worker->undealt = false;
    else
        worker->work_count++;
}

/*
 * Commands and answers until the end. With several environments, the commands that one round's results led to
 * are taken together, so that what was planned in one batch stays in one: the loop says when it has dealt with
 * all of them.
 */
static void act(worker_t *worker)
{
    while (!atomic_load(&worker->stopping) && !worker->failed) {
        while (has_room(worker) && queue_pop(worker->commands, &worker->works[worker->work_count]) == TD_OK)
            take(worker);
        if (worker->work_count > 0 && (!worker->undealt || !has_room(worker)))
            carry_out_works(worker);
        moves_collect(worker);
        if (worker->failed || moves_round_over(worker)) {
            moves_end_round(worker);
        } else if (!moves_wait(worker)) {
            if (queue_wait(worker->commands, &worker->works[worker->work_count], -1) != TD_OK)
                break;
            take(worker);
        }
    }
    for (int i = 0; i < worker->work_count; i++)
        free(worker->works[i].state);
}

static int make_agent(worker_t *worker, struct error *err)
{
    const struct config *config = &worker->options.config;
    struct mppi_config plan_config;
    struct model_dims dims;
    int rc;

    mppi_config_init(&plan_config, config, (int)worker->spec.action_dim, worker->spec.episode_length);
    plan_config.half = derive_half(config);
    if ((rc = model_dims_init_tasks(&dims, config, &worker->tasks, err)) != TD_OK ||
        (rc = world_model_create_acting(&worker->acting, &dims, plan_config.half, err)) != TD_OK ||
        (rc = world_model_create_acting(&worker->spare, &dims, plan_config.half, err)) != TD_OK ||
        (rc = pool_create(&worker->pool, worker->options.threads, err)) != TD_OK ||
        (rc = gemm_start(pool_threads(worker->pool), err)) != TD_OK)
        return rc;
    if (worker->tasks.multitask) {
        world_model_set_tasks(worker->acting, &worker->tasks);
        world_model_set_tasks(worker->spare, &worker->tasks);
    }
    worker_usual_threads(worker);
    worker->mean_size = (size_t)plan_config.horizon * worker->spec.action_dim * sizeof(float);
    metrics_set(worker->options.metrics, METRIC_threads, pool_active(worker->pool));
    return mppi_create(&worker->planner, &plan_config, &dims, worker->seat_count, worker->pool, err);
}

static bool make_everything(worker_t *worker)
{
    struct seat *seat = &worker->seats[0];
    struct worker_result *result = &seat->answer->result;
    struct error err = {0};
    int rc;

    worker_begin_answer(seat, WORKER_READY, 0);
    rc = make_agent(worker, &err);
    if (rc == TD_OK)
        rc = envs_open(worker, seat, &err);
    if (rc != TD_OK) {
        worker_fail(worker, seat, rc, &err);
        worker_hold_answer(worker, seat);
        return false;
    }
    result->snapshot_bytes = world_model_bytes(worker->acting);
    result->spec = (struct message_spec){
        .obs_type = worker->spec.obs_type,
        .obs_dim = worker->spec.obs_dim,
        .action_dim = worker->spec.action_dim,
        .episode_length = worker->spec.episode_length,
        .saves_state = worker->state_size > 0,
        .tasks = worker->tasks.multitask ? (uint32_t)worker->tasks.count : 0,
    };
    worker_hold_answer(worker, seat);
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
    bool made;

    pthread_setname_np(pthread_self(), "worker");
    if (worker->options.background)
        give_way();
    made = make_everything(worker);
    moves_end_round(worker);
    if (made)
        act(worker);
    return NULL;
}

/* --- the loop's side --------------------------------------------------------- */

/* It may wait for commands or for environments. */
static void wake_thread(void *context)
{
    const worker_t *worker = context;
    uint64_t one = 1;

    if (write(worker->wake, &one, sizeof(one)) < 0)
        return; /* it has been woken very often before */
}

static int create_queues(worker_t *worker)
{
    size_t bytes = answer_bytes(worker);
    int rc;

    worker->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->wake < 0)
        return TD_EIO;
    if ((rc = queue_create(&worker->commands, WORKER_PENDING, sizeof(struct work), wake_thread, worker)) != TD_OK)
        return rc;
    /* one result to each command, the round under way and the first: a push always finds room */
    rc = queue_create(&worker->results, 2 * WORKER_PENDING, bytes, worker->options.wake,
                      worker->options.context);
    worker->popped = calloc(1, bytes);
    worker->held = calloc(1, bytes);
    worker->works = calloc(WORKER_PENDING, sizeof(*worker->works));
    if (rc != TD_OK || worker->popped == NULL || worker->held == NULL || worker->works == NULL)
        return TD_ENOMEM;
    return TD_OK;
}

static int create_seats(worker_t *worker)
{
    worker->seats = calloc((size_t)worker->seat_count, sizeof(*worker->seats));
    worker->group = calloc((size_t)worker->seat_count, sizeof(*worker->group));
    worker->moving = calloc((size_t)worker->seat_count, sizeof(*worker->moving));
    worker->fds = calloc(1 + ENV_POLL_MAX * (size_t)worker->seat_count, sizeof(*worker->fds));
    if (worker->seats == NULL || worker->group == NULL || worker->moving == NULL || worker->fds == NULL)
        return TD_ENOMEM;
    for (int i = 0; i < worker->seat_count; i++) {
        struct seat *seat = &worker->seats[i];

        seat->number = (uint32_t)i;
        seat->answer = calloc(1, answer_bytes(worker));
        seat->seen = calloc(1, stack_bytes(&worker->spec));
        seat->kept = calloc((size_t)worker->tasks.count, sizeof(*seat->kept));
        if (seat->answer == NULL || seat->seen == NULL || seat->kept == NULL)
            return TD_ENOMEM;
        seat->obs = seat->answer + 1;
        seat->action = (float *)((char *)seat->obs + obs_bytes(worker));
    }
    return TD_OK;
}

int worker_create(worker_t **out, const struct worker_options *options, struct error *err)
{
    worker_t *worker = calloc(1, sizeof(*worker));
    int rc;

    *out = NULL;
    if (worker == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the environment");
    worker->options = *options;
    worker->wake = -1;
    worker->seat_count = options->environments > 1 ? options->environments : 1;
    rc = envs_find(worker, err);
    if (rc == TD_OK && ((rc = create_queues(worker)) != TD_OK || (rc = create_seats(worker)) != TD_OK))
        error_set(err, rc, rc == TD_EIO ? "too many open files" : "out of memory for the environment");
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
    uint64_t end;

    if (!worker->started || worker->joined)
        return true;
    atomic_store(&worker->stopping, true);
    queue_close(worker->commands);
    wake_thread(worker);
    end = clock_ms() + wait_ms; /* pthread_timedjoin_np would go by a clock that people set */
    while (!(worker->joined = pthread_tryjoin_np(worker->thread, NULL) == 0) && clock_ms() < end)
        clock_sleep_ms(2);
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
        envs_close(worker, &worker->seats[i]); /* while the threads are there that may have started its process */
        free(worker->seats[i].answer);
        free(worker->seats[i].seen);
        free(worker->seats[i].kept);
    }
    pool_destroy(&worker->pool);
    world_model_destroy(&worker->acting);
    world_model_destroy(&worker->spare);
    free(worker->seats);
    free(worker->specs);
    task_set_release(&worker->tasks);
    if (worker->has_held)
        free(worker->held->state);
    if (worker->wake >= 0)
        close(worker->wake);
    free(worker->group);
    free(worker->moving);
    free(worker->fds);
    free(worker->works);
    free(worker->held);
    free(worker->popped);
    free(worker);
    *out = NULL;
}
