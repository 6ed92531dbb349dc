/*
 * worker.h - the compute thread of an actor: its environments, world model and planner.
 *
 * Commands of the session go in, results come out, by a queue each, so the event loop never waits for a
 * plan. Those of one environment are answered in their order. Two models lie side by side: the planner acts with one, new
 * parameters are copied into the other and checked, and between two commands they change places.
 *
 * Environments that are due at the same time move in one round: a batch of plans, then their steps and
 * resets, side by side when there are threads for it. The loop deals with all results of a round (worker_next
 * returns NULL or asks for more) before the next one begins, so environments in step stay in step.
 *
 * An environment that is a process of its own is asked, and answers when it likes: all of a round at the same
 * time. The round ends when all have answered, or a little after the first did; who is later takes no part in
 * rounds until it answers, or its deadline passes. A reset with a new seed does not wait for it: it is given up.
 *
 * Owns:    the thread, the environments, both models, the planner, the queues.
 * Borrows: the metrics.
 * Thread:  all functions on the thread that created it; `wake` is called on the worker's.
 *
 * After the result WORKER_READY, resets, steps, plans and adoptions allocate nothing on the worker's
 * thread; making an environment anew (another seed) does.
 */
#ifndef TD_ACTOR_WORKER_H
#define TD_ACTOR_WORKER_H

#include "actor/session.h"
#include "common/metrics/metrics.h"
#include "common/util/config.h"

#define WORKER_PENDING 160 /* commands that may wait: one of each environment, and a few more */

typedef struct worker worker_t;

struct worker_options {
    struct config config;  /* the run's; copied */
    bool background;       /* the evaluator: run when nothing else wants the processor */
    int threads;           /* to plan and step with, in the background only in the final evaluation;
                              0: one per core */
    int environments;      /* 0 is 1 */
    metrics_t *metrics;    /* or NULL */
    void (*wake)(void *context); /* a result is there */
    void *context;
};

/* Kinds of results beside the session's commands that have one. */
enum worker_result_kind {
    WORKER_READY = 1, /* everything is made: spec and snapshot_bytes */
    WORKER_FAILED,    /* the part cannot go on: err says why, its code how it ends */
};

/* What a command led to; pointers are valid until the next worker_next. */
struct worker_result {
    uint32_t kind;  /* enum worker_result_kind, or the session_command it answers */
    uint64_t token; /* of that command */
    uint32_t environment;
    struct error err;
    struct message_spec spec;
    size_t snapshot_bytes; /* of the acting parameters */
    bool ok;               /* RESTORE: taken; ADOPT: finite */
    bool more;             /* others of the same round follow at once: command when they are here, too */
    bool lost;             /* RESET, STEP: the environment is gone; err and step.lost say why */
    bool ended;            /* EVALUATE: to its end, not abandoned */
    struct session_step step;
    struct session_evaluation evaluation;
    struct bulk state; /* CAPTURE, and EVALUATE in place */
};

/*
 * Start the thread; it makes environment, models and planner and reports WORKER_READY or
 * WORKER_FAILED. Returns TD_OK, what env_find says of the task, TD_EINVAL (options that contradict
 * the task), TD_ENOMEM or TD_EIO.
 */
int worker_create(worker_t **out, const struct worker_options *options, struct error *err);

/*
 * Carry out a command of the session that has a result, or COMMAND_ABANDON. What it borrows is
 * copied, but for the parameters of COMMAND_ADOPT. Returns TD_OK, TD_EFULL or TD_ENOMEM.
 */
int worker_command(worker_t *worker, const struct session_output *output, struct error *err);

/* The next result, or NULL when there is none now. */
const struct worker_result *worker_next(worker_t *worker);

/* Ask the thread to end at the next step and wait for it; false when it has not by then. */
bool worker_stop(worker_t *worker, uint64_t wait_ms);

/* It has been stopped, or was never started. Accepts NULL. */
void worker_destroy(worker_t **worker);

#endif
