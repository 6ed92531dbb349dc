/* Resets and steps: rounds, and environments that keep them waiting. */
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "actor/worker_private.h"
#include "common/env/stack.h"
#include "common/util/clock.h"

/*
 * A round ends when all that began to move have answered, or some time after the first has: a few times what
 * an answer usually takes. Who is later is not waited for any more, and is in step again when its answer falls
 * into a round of the others.
 */
#define GRACE_TIMES  4
#define GRACE_MIN_MS 5
#define GRACE_MAX_MS 250
#define USUAL_WEIGHT 16 /* of one answer in the average: one in so many */

/* --- actions ------------------------------------------------------------------ */

void moves_plan(worker_t *worker, struct mppi_request *requests, int count)
{
    uint64_t begun = clock_ns();

    if (count == 0)
        return;
    mppi_plan_batch(worker->planner, worker->acting, requests, count);
    metrics_record(worker->options.metrics, METRIC_plan_ms, (double)(clock_ns() - begun) / 1e6);
    metrics_record(worker->options.metrics, METRIC_plan_batch, count);
    for (int i = 0; i < count; i++) {
        struct seat *seat = worker_seat(worker, (uint32_t)requests[i].environment);

        seat->rc = requests[i].status;
        if (seat->rc != TD_OK)
            error_set(&seat->err, seat->rc,
                      "planning gave an action that is not finite: the parameters have diverged");
    }
}

struct mppi_request moves_request(struct seat *seat, const struct rng_key *key, struct rng *rng)
{
    rng_init(rng, key);
    return (struct mppi_request){.environment = (int)seat->number, .task = seat->task, .obs = seat->seen,
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
        const struct command_step *command = &seat->work.step;

        if (seat->work.kind != COMMAND_STEP || seat->rc != TD_OK)
            continue;
        if (command->random) {
            rng_init(&rng[planned], &command->key);
            rng_uniform(&rng[planned], seat->action, seat_spec(worker, seat)->action_dim, -1, 1);
            continue;
        }
        requests[planned] = moves_request(seat, &command->key, &rng[planned]);
        requests[planned++].first = command->first;
    }
    moves_plan(worker, requests, planned);
}

/* --- begin ---------------------------------------------------------------------- */

static bool has_news(const worker_t *worker)
{
    for (int i = 0; i < worker->moving_count; i++)
        if (worker->moving[i]->state == SEAT_MOVED)
            return true;
    return worker->has_held;
}

/* There are results to tell from now on. */
static void note_news(worker_t *worker)
{
    if (worker->told_ms == 0)
        worker->told_ms = clock_ms();
}

/* Take the answer if it is there. May run on a thread of the pool. */
static void take_answer(worker_t *worker, struct seat *seat)
{
    struct error err = {0};
    int rc = env_finish(seat->env, seat->obs, &seat->result, &err);

    if (rc == TD_EAGAIN)
        return;
    seat->rc = rc;
    seat->err = err;
    seat->state = SEAT_MOVED;
    if (rc == TD_OK)
        stack_push(&worker->spec, seat->seen, seat->obs, seat->work.kind == COMMAND_RESET);
    if (seat->work.kind == COMMAND_STEP)
        metrics_record(worker->options.metrics, METRIC_env_ms, (double)(clock_ns() - seat->begun_ns) / 1e6);
}

/* Pool task: one environment's reset or step; where it lives elsewhere, it is asked. */
static void begin_task(void *context, int task, int thread)
{
    worker_t *worker = context;
    struct seat *seat = worker->group[task];

    (void)thread;
    seat->begun_ns = clock_ns();
    envs_touch(seat);
    if (seat->rc == TD_OK && seat->work.kind == COMMAND_RESET)
        seat->rc = env_reset_begin(seat->env, &seat->err);
    else if (seat->rc == TD_OK)
        seat->rc = env_step_begin(seat->env, seat->action, &seat->err);
    if (seat->rc != TD_OK)
        seat->state = SEAT_MOVED;
    else
        take_answer(worker, seat);
}

/* Nobody awaits its answer any more: the environment is given up. */
static void abandon(worker_t *worker, struct seat *seat)
{
    int kept = 0;

    for (int i = 0; i < worker->moving_count; i++)
        if (worker->moving[i] != seat)
            worker->moving[kept++] = worker->moving[i];
    worker->moving_count = kept;
    seat->state = SEAT_IDLE;
    envs_drop(seat);
}

/* What this seat was doing is over: its results told, or not wanted any more. False: the thread shall end. */
static bool make_free(worker_t *worker, struct seat *seat)
{
    if (seat->state == SEAT_MOVING && seat->next->kind == COMMAND_RESET && seat->next->reset.reseed)
        abandon(worker, seat);
    return moves_settle(worker, seat);
}

/* The environment of the task that the reset names; with reseed, one whose random stream begins anew. */
static int take_env(worker_t *worker, struct seat *seat)
{
    const struct command_reset *reset = &seat->work.reset;
    struct env_wish wish = {.task = reset->task, .seed = reset->seed, .anew = reset->reseed, .later = true};

    return envs_take(worker, seat, &wish, &seat->err);
}

void moves_begin(worker_t *worker, int count)
{
    for (int i = 0; i < count; i++)
        if (!make_free(worker, worker->group[i]))
            return;
    for (int i = 0; i < count; i++) {
        struct seat *seat = worker->group[i];

        seat->work = *seat->next;
        memset(&seat->err, 0, sizeof(seat->err));
        memset(&seat->result, 0, sizeof(seat->result));
        seat->rc = TD_OK;
        seat->state = SEAT_MOVING;
        seat->late = seat->ready = false;
        worker->moving[worker->moving_count++] = seat;
        if (seat->work.kind == COMMAND_RESET)
            seat->rc = take_env(worker, seat);
    }
    choose_actions(worker, count);
    pool_run(worker->pool, begin_task, worker, count);
    if (has_news(worker))
        worker->told_ms = clock_ms();
}

/* --- answers ------------------------------------------------------------------------ */

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

static void answer_move(worker_t *worker, struct seat *seat)
{
    struct session_step *out = &seat->answer->result.step;

    if (seat->rc != TD_OK) {
        if (!lose(worker, seat, seat->rc, &seat->err))
            worker_fail(worker, seat, seat->rc, &seat->err);
        return;
    }
    if (seat->work.kind == COMMAND_RESET)
        return;
    metrics_add(worker->options.metrics, METRIC_env_steps, seat_spec(worker, seat)->action_repeat);
    out->action = seat->action;
    out->reward = (float)seat->result.reward;
    out->terminated = seat->result.terminated;
    out->truncated = seat->result.truncated;
    out->has_success = seat->result.has_success;
    out->success = seat->result.success;
}

void moves_tell(worker_t *worker)
{
    int kept = 0;

    for (int i = 0; i < worker->moving_count; i++) {
        struct seat *seat = worker->moving[i];

        if (seat->state == SEAT_MOVING) {
            worker->moving[kept++] = seat;
            continue;
        }
        worker_begin_answer(seat, seat->work.kind, work_token(&seat->work));
        answer_move(worker, seat);
        worker_hold_answer(worker, seat);
        seat->state = SEAT_IDLE;
    }
    worker->moving_count = kept;
}

/* How long answers usually take; one that is very late says nothing of the others. */
static void learn_time(worker_t *worker, const struct seat *seat)
{
    uint64_t us = (clock_ns() - seat->begun_ns) / 1000;
    uint64_t old = worker->usual_us;

    if (seat->rc != TD_OK || seat->late || seat->work.kind != COMMAND_STEP)
        return;
    worker->usual_us = old == 0 ? us : old + us / USUAL_WEIGHT - old / USUAL_WEIGHT;
}

void moves_collect(worker_t *worker)
{
    for (int i = 0; i < worker->moving_count; i++) {
        struct seat *seat = worker->moving[i];

        if (seat->state != SEAT_MOVING || !seat->ready)
            continue;
        seat->ready = false;
        take_answer(worker, seat);
        if (seat->state == SEAT_MOVED) {
            learn_time(worker, seat);
            note_news(worker);
        }
    }
}

/* --- rounds ------------------------------------------------------------------------- */

static uint64_t grace_ms(const worker_t *worker)
{
    uint64_t grace = worker->usual_us == 0 ? GRACE_MAX_MS : GRACE_TIMES * worker->usual_us / 1000;

    return grace < GRACE_MIN_MS ? GRACE_MIN_MS : grace > GRACE_MAX_MS ? GRACE_MAX_MS : grace;
}

/* When results are told at the latest; UINT64_MAX: nothing is to be told, or the loop is not done with the last. */
static uint64_t round_due_ms(const worker_t *worker)
{
    if (worker->told_ms == 0 || worker->undealt)
        return UINT64_MAX;
    for (int i = 0; i < worker->moving_count; i++)
        if (worker->moving[i]->state == SEAT_MOVING && !worker->moving[i]->late)
            return worker->told_ms + grace_ms(worker);
    return 0;
}

bool moves_round_over(const worker_t *worker)
{
    uint64_t due = round_due_ms(worker);

    return due != UINT64_MAX && clock_ms() >= due;
}

void moves_end_round(worker_t *worker)
{
    int rc;

    moves_tell(worker);
    for (int i = 0; i < worker->moving_count; i++) {
        metrics_add(worker->options.metrics, METRIC_env_late, !worker->moving[i]->late);
        worker->moving[i]->late = true;
    }
    worker->told_ms = 0;
    if (!worker->has_held)
        return;
    worker->has_held = false;
    worker->undealt = worker->seat_count > 1;
    worker->held->result.more = false;
    rc = queue_push(worker->results, worker->held);
    TD_ASSERT(rc == TD_OK, "more results than commands");
}

/* --- waiting ------------------------------------------------------------------------ */

static int gather_descriptors(worker_t *worker, uint64_t *until)
{
    int count = 1;

    worker->fds[0] = (struct pollfd){.fd = worker->wake, .events = POLLIN};
    for (int i = 0; i < worker->moving_count; i++) {
        struct seat *seat = worker->moving[i];
        uint64_t due;

        seat->poll_at = count;
        if (seat->state != SEAT_MOVING)
            continue;
        count += env_poll(seat->env, worker->fds + count);
        due = env_due_ms(seat->env);
        *until = due < *until ? due : *until;
    }
    return count;
}

static void note_ready(worker_t *worker, int count)
{
    uint64_t now = clock_ms();

    for (int i = worker->moving_count - 1; i >= 0; i--) {
        struct seat *seat = worker->moving[i];

        if (seat->state != SEAT_MOVING)
            continue;
        for (int k = seat->poll_at; k < count; k++)
            seat->ready |= worker->fds[k].revents != 0;
        seat->ready |= now >= env_due_ms(seat->env);
        count = seat->poll_at;
    }
}

/* Until an answer, a command or then; false at once when nobody moves. */
static bool wait_until(worker_t *worker, uint64_t until)
{
    uint64_t now, word;
    int count = gather_descriptors(worker, &until);

    if (count == 1)
        return false;
    now = clock_ms();
    until = until > now ? until - now : 0;
    if (poll(worker->fds, (nfds_t)count, until < 60000 ? (int)until : 60000) < 0)
        return true; /* a signal */
    if (worker->fds[0].revents != 0 && read(worker->wake, &word, sizeof(word)) < 0)
        word = 0; /* somebody was quicker: no matter */
    note_ready(worker, count);
    return true;
}

bool moves_wait(worker_t *worker)
{
    return wait_until(worker, round_due_ms(worker));
}

bool moves_settle(worker_t *worker, struct seat *seat)
{
    while (seat->state == SEAT_MOVING) {
        wait_until(worker, UINT64_MAX);
        moves_collect(worker);
        if (atomic_load(&worker->stopping))
            return false;
    }
    if (seat->state == SEAT_MOVED)
        moves_tell(worker);
    return true;
}
