/*
 * worker_private.h - the inside of the worker, shared by its files:
 *   worker.c           life, the queues, commands that are carried out at once
 *   worker_moves.c     resets and steps: rounds, and environments that keep them waiting
 *   worker_evaluate.c  evaluations
 *   worker_envs.c      making environments, one of each task; their states
 */
#ifndef TD_ACTOR_WORKER_PRIVATE_H
#define TD_ACTOR_WORKER_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "actor/worker.h"
#include "common/env/env.h"
#include "common/model/task_set.h"
#include "common/plan/mppi.h"
#include "common/util/queue.h"

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

enum seat_state {
    SEAT_IDLE = 0,
    SEAT_MOVING, /* asked to reset or step: no answer yet */
    SEAT_MOVED,  /* the answer is there, the loop does not know */
};

/* The environment that a seat has of one task. */
struct kept {
    env_t *env;       /* NULL: not made yet, or made room for another */
    uint32_t seed;    /* it was made with */
    bool untouched;   /* since */
    uint32_t dropped; /* times it made room since the seat's seed: the next one is made with another */
    uint64_t used;    /* larger: more recently */
};

/* One environment; in a multi-task run one after the other, of each task, as the learner says. */
struct seat {
    struct answer *answer; /* made here, then held; with its observation and action */
    void *obs;             /* behind answer: what the environment said last */
    float *action;         /* behind that */
    void *seen;            /* what the planner sees: the state, or the last frames */
    uint32_t number;
    env_t *env;            /* kept[task].env: the one that is played; NULL: none is */
    uint32_t task;
    struct kept *kept;     /* [task_count] */
    /* the reset or step under way */
    enum seat_state state;
    const struct work *next; /* about to be begun, in worker->works */
    struct work work;
    uint64_t begun_ns;
    bool late;             /* a round has ended without it: others do not wait for it any more */
    bool ready;            /* its answer may be there */
    int poll_at;           /* its place in worker->fds */
    int rc;
    struct error err;
    struct env_result result;
};

struct worker {
    struct worker_options options;
    struct task_set tasks;
    struct env_spec *specs; /* [tasks.count] of each */
    struct env_spec spec;   /* of the only one; of several, their widest sizes */
    uint64_t uses;          /* of environments */
    size_t state_size;  /* of environment and planner, 0: it has none; set before WORKER_READY is sent */
    size_t mean_size;   /* of these, the planner's */
    queue_t *commands, *results;
    int wake;           /* eventfd: commands have come, or the end has */
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
    struct work *works;    /* [WORKER_PENDING] taken, not begun */
    int work_count;
    bool undealt;          /* the loop has not dealt with all results of the last round */
    struct seat **group;   /* [seat_count] that begin to move together */
    struct seat **moving;  /* [seat_count] that do not sit idle, in the order they began in */
    int moving_count;
    struct pollfd *fds;    /* [1 + ENV_POLL_MAX * seat_count] */
    struct answer *held;   /* the last result of the round so far: it says whether others follow */
    bool has_held;
    uint64_t told_ms;      /* since when there are results to tell, or the last began to move; 0: there are none */
    uint64_t usual_us;     /* an answer takes, on average */
    bool failed;           /* WORKER_FAILED was the last word */
    struct task_score scores[TASKS_MAX]; /* of the last evaluation; the next comes when the loop has dealt with it */
    world_model_t *acting, *spare;
    pool_t *pool;
    mppi_t *planner;
};

/* worker.c */
void worker_begin_answer(struct seat *seat, uint32_t kind, uint64_t token);
void worker_hold_answer(worker_t *worker, const struct seat *seat); /* tell it with this round's results */
void worker_fail(worker_t *worker, struct seat *seat, int rc, const struct error *err);
struct seat *worker_seat(worker_t *worker, uint32_t environment);
uint64_t work_token(const struct work *work);

/* worker_envs.c */

/* Task set and specs, from the options; nothing is opened. */
int envs_find(worker_t *worker, struct error *err);

/* One environment, of several tasks in lock-step all of them, and how large their state is. */
int envs_open(worker_t *worker, struct seat *seat, struct error *err);

/*
 * Let the seat play this task: an environment whose random state began with this seed, made if there is none yet.
 * anew: all that it has of whatever task begin with it again. later: what takes long is left to the reset.
 */
struct env_wish {
    uint32_t task;
    uint64_t seed;
    bool anew, later;
};
int envs_take(worker_t *worker, struct seat *seat, const struct env_wish *wish, struct error *err);
void envs_touch(struct seat *seat); /* it is used */
void envs_drop(struct seat *seat);  /* the one that is played: it is closed */
void envs_close(worker_t *worker, struct seat *seat);

static inline const struct env_spec *seat_spec(const worker_t *worker, const struct seat *seat)
{
    return &worker->specs[seat->task];
}

/* States, of lock-step: of every task's environment, then what the planner's next plan starts from. */
void envs_capture(worker_t *worker, struct seat *seat, const struct work *work);
int envs_restore(worker_t *worker, struct seat *seat, const struct work *work, struct error *err);

/* Those it was given; the evaluator, beside whom others compute, one. */
void worker_usual_threads(worker_t *worker);

/* worker_moves.c */

/* Actions for all of these at once. Those whose action is not finite have their rc set. */
void moves_plan(worker_t *worker, struct mppi_request *requests, int count);

/* The draws of a step; rng is its memory. */
struct mppi_request moves_request(struct seat *seat, const struct rng_key *key, struct rng *rng);

/* Reset or step the first `count` seats of worker->group as their `next` says. */
void moves_begin(worker_t *worker, int count);

/* Take the answers that are there. */
void moves_collect(worker_t *worker);

/* Is it time to tell what there is to tell? Then do. */
bool moves_round_over(const worker_t *worker);
void moves_end_round(worker_t *worker);

/* What has moved is told before what comes next. */
void moves_tell(worker_t *worker);

/* Wait for answers, commands or the end of the round; false at once when nobody moves. */
bool moves_wait(worker_t *worker);

/* Wait until this one has its answer and tell it; false: the thread shall end. */
bool moves_settle(worker_t *worker, struct seat *seat);

/* worker_evaluate.c */
void worker_evaluate(worker_t *worker, struct seat *seat, const struct work *work);

#endif
