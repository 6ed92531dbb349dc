/*
 * session.h - the actor's and the evaluator's side of the protocol.
 *
 * A pure state machine (common/wire/machine.h): joins the learner and its shard, asks the host for one
 * environment step at a time as limiter, turns, parameters and outbox allow, keeps rows until they are
 * acknowledged, pulls parameters, evaluates when told to.
 *
 * Owns:    the outbox, the snapshot being pulled.
 * Thread:  belongs to the actor's loop thread; the host steps and plans on another one.
 *
 * Every command that has a result carries a token; the host hands it back with the result, and results
 * whose token is no longer awaited (the run was rewound meanwhile) change nothing.
 */
#ifndef TD_ACTOR_SESSION_H
#define TD_ACTOR_SESSION_H

#include "common/store/row.h"
#include "common/util/error.h"
#include "common/util/rng.h"
#include "common/wire/machine.h"

typedef struct session session_t;

struct session_config {
    uint64_t run;     /* 0: any */
    uint64_t process; /* random, of this start */
    uint32_t role;    /* ROLE_ACTOR or ROLE_EVALUATOR */
    int64_t slot;     /* -1: the learner grants one */
    uint64_t heartbeat_ms, timeout_ms; /* until the options are known */
    char control[WIRE_ADDRESS_MAX];
};

/* What the host knows once it has read the options. */
struct session_setup {
    struct message_spec spec;
    uint32_t environments;   /* 1 to WIRE_STREAMS_MAX, a stream each; in lock-step 1 */
    uint32_t threads;        /* that plan; 0 is 1 */
    uint64_t seed;
    uint64_t outbox;         /* rows per environment */
    uint64_t max_staleness;  /* updates */
    uint64_t heartbeat_ms;
    uint64_t timeout_ms;     /* learner_timeout */
    size_t snapshot_bytes;   /* of the acting parameters */
};

enum session_command {
    COMMAND_CONFIGURE = OUTPUT_ROLE, /* options are known; then session_configured, or exit 2 */
    COMMAND_RESTORE,  /* set the environment's state (size 0: make it anew from its seed);
                         then session_restored */
    COMMAND_RESET,    /* reset; then session_stepped with the first row */
    COMMAND_STEP,     /* choose an action and step; then session_stepped */
    COMMAND_CAPTURE,  /* read the environment's state; then session_captured */
    COMMAND_EVALUATE, /* run episodes; then session_evaluated */
    COMMAND_ABANDON,  /* stop an evaluation at its next step; nothing awaited any more counts */
    COMMAND_ADOPT,    /* check that these parameters are finite, act with them from the next plan on;
                         then session_adopted */
};

struct command_configure {
    struct bulk options; /* YAML; borrowed */
};

struct command_restore {
    uint64_t token;
    uint32_t environment;
    uint64_t seed;      /* of the environment, 32 bits used */
    struct bulk state;  /* borrowed */
};

struct command_reset {
    uint64_t token;
    uint32_t environment;
    uint32_t task;      /* of the episode that begins; 0 in single-task runs */
    bool reseed;        /* make its random stream anew from seed first */
    uint64_t seed;
};

struct command_step {
    uint64_t token;
    uint32_t environment;
    bool random;        /* a uniform action, else planned */
    bool first;         /* step 0 of an episode: the planner forgets its previous plan */
    struct rng_key key; /* of the action's random numbers (purpose included) */
};

struct command_capture {
    uint64_t token;
    uint32_t environment;
};

struct command_evaluate {
    uint64_t token;
    uint32_t episodes;
    bool in_place;      /* on environment 0, else on one of its own */
    bool alone;         /* no update and no other actor runs meanwhile: every core is free */
    uint64_t step;
    uint64_t seed;      /* of its own environment: fresh for this evaluation */
    struct rng_key key; /* .step is the episode's number times 2^32 plus the step: see session_eval_key */
};

struct command_adopt {
    uint64_t token;
    const void *data;   /* borrowed until session_adopted */
    size_t size;
    uint32_t epoch;
    uint64_t version;
};

struct session_output {
    uint32_t kind; /* enum output_kind or session_command */
    struct peer peer;
    union {
        struct message message;
        char address[WIRE_ADDRESS_MAX];
        struct output_log log;
        struct output_exit exit;
        struct command_configure configure;
        struct command_restore restore;
        struct command_reset reset;
        struct command_step step;
        struct command_capture capture;
        struct command_evaluate evaluate;
        struct command_adopt adopt;
    };
};

/* The result of COMMAND_RESET and COMMAND_STEP. */
struct session_step {
    const void *obs;     /* as in a row: floats, or bytes of a frame */
    const float *action; /* NULL after a reset */
    float reward;
    bool terminated;
    bool truncated;
    bool has_success;
    double success;      /* of the episode so far, used when it ends */
    const char *lost;    /* the environment is gone, and why; nothing else counts then. NULL: it is not */
};

/*
 * The result of COMMAND_EVALUATE: means over the episodes; in a multi-task run every task played `episodes`, its
 * means are in scores, and those here are over the tasks.
 */
struct session_evaluation {
    uint32_t episodes;
    double reward, length;
    bool has_success;
    double success;
    uint32_t score_count;
    const struct task_score *scores; /* borrowed */
    struct bulk state; /* in place: the environment's state afterwards */
};

int session_create(session_t **out, const struct session_config *config, struct error *err);
void session_destroy(session_t **session);

void session_receive(session_t *session, uint64_t now_ms, const struct peer *peer,
                     const struct message *message);
void session_tick(session_t *session, uint64_t now_ms);
uint64_t session_deadline(const session_t *session);
bool session_next(session_t *session, struct session_output *output);

void session_configured(session_t *session, uint64_t now_ms, const struct session_setup *setup);
void session_restored(session_t *session, uint64_t now_ms, uint64_t token, bool ok);
void session_stepped(session_t *session, uint64_t now_ms, uint64_t token,
                     const struct session_step *step);
void session_captured(session_t *session, uint64_t now_ms, uint64_t token, struct bulk state);
void session_evaluated(session_t *session, uint64_t now_ms, uint64_t token,
                       const struct session_evaluation *result);
void session_adopted(session_t *session, uint64_t now_ms, uint64_t token, bool finite);

/* SIGTERM: finish the step, flush up to 10 s, Leave until it is answered (1 s at most), OUTPUT_EXIT 0. */
void session_terminate(session_t *session, uint64_t now_ms);

/* The key of one planning call within an evaluation. */
struct rng_key session_eval_key(const struct rng_key *base, uint32_t episode, uint32_t step);

/* For stats. */
struct session_view {
    bool seated;          /* the learner gave us a slot */
    uint32_t slot;
    uint32_t learner_epoch;
    uint64_t updates, target; /* the learner's, as last heard; the burst's end */
    uint32_t phase;
    uint32_t waiting;     /* enum waiting */
    uint64_t waiting_since_ms;
    uint64_t waited_ms[WAITING_LAST + 1];
    uint64_t steps;       /* agent steps taken in this process's life */
    uint64_t episodes;
    uint64_t outbox_rows; /* unacknowledged */
    uint64_t resent_rows, dropped_rows, dropped_episodes;
    uint32_t version_epoch;
    uint64_t version, lag; /* parameters in use, updates behind the newest known */
    uint64_t learner_heard_ms, shard_heard_ms;
    uint64_t pulls, pulled_bytes;
};
void session_view(const session_t *session, uint64_t now_ms, struct session_view *view);

#endif
