/*
 * session_private.h - the inside of the session, shared by its files:
 *   session.c           joining, the learner, parameters
 *   session_stream.c    streams: rows, acknowledgements, epochs; asynchronous stepping
 *   session_lockstep.c  turns and evaluation in place
 *   session_evaluate.c  the evaluator
 *   session_leave.c     the end: handing over, saying goodbye
 */
#ifndef TD_ACTOR_SESSION_PRIVATE_H
#define TD_ACTOR_SESSION_PRIVATE_H

#include "actor/outbox.h"
#include "actor/puller.h"
#include "actor/session.h"
#include "common/util/log.h"

#define SESSION_HELLO_MS   500  /* between Hellos that are not answered */
#define SESSION_AGAIN_MS   100   /* when the learner answered that it is not ready */
#define SESSION_RESEND_MS  2000  /* of an EpisodeEnd or Evaluated */
#define SESSION_FLUSH_MS   10000 /* SIGTERM: for the last acknowledgements */
#define SESSION_STEP_MS    2000  /* SIGTERM: for a step under way; without it an episode that is cut short misses a row */
#define SESSION_PART_MS    1000  /* for learner and shard to answer Leave, */
#define SESSION_PART_AGAIN_MS 100 /* which is repeated so often */
#define SESSION_GONE_BEATS 5     /* heartbeats of silence that mean gone */
#define SESSION_LOST_MS    5000  /* lock-step: for the learner to order a restore */
#define SESSION_SAY_MS     5000  /* a wait longer than this is a log line */
#define SESSION_ENDS       256   /* finished episodes the learner has not acknowledged */
#define SESSION_INFLIGHT   2048  /* rows sent and not acknowledged, per stream */
#define SESSION_STREAK     3     /* refused in a row: the environment is broken */
#define SESSION_LOSSES     5     /* environments lost in a row without a whole episode: give up */
#define SESSION_ALIVE      1000  /* so many steps count as much as a whole episode */
#define SESSION_RESTART_MS 250   /* before the first restart; doubles */

enum lane_state {
    LANE_CLOSED = 0, /* no stream epoch */
    LANE_RESTING,    /* between two episodes */
    LANE_OPEN,       /* an episode is under way */
};

/* One environment and its stream. */
struct lane {
    uint32_t environment;
    enum lane_state state;
    uint64_t token;       /* of the command whose result is awaited; 0: idle */
    uint32_t doing;       /* that command */
    bool planned;         /* that step is planned, not random, */
    struct announcement with; /* with these parameters */
    bool reseed;          /* the next reset begins a new epoch's random stream */
    outbox_t *outbox;
    uint64_t store, epoch, limit;
    uint64_t steps;       /* agent steps of this epoch, appended */
    uint64_t episode;     /* of this epoch */
    uint64_t episode_steps;
    double episode_reward;
    uint64_t chunks;      /* in flight */
    uint64_t sent_ms;     /* since when something is in flight without an answer */
    uint64_t said;        /* rows sent before the last Hello; 0: it was answered */
    uint64_t refused_at;  /* sequence of the last refusal */
    uint32_t streak;      /* epochs renewed in a row because rows were refused */
    bool renew;
    bool lost;            /* the environment is: its rows go out, then a new epoch begins */
    uint32_t losses;      /* in a row */
    uint64_t again_ms;    /* not before then */
    /* multi-task */
    uint32_t task;        /* of the episode under way, or the last */
    bool has_next;        /* the learner said which comes next: */
    uint32_t next_task;
    uint64_t begun;       /* episodes, in this process's life: the number of the next */
    uint64_t ask_ms;      /* when to ask for it (again) */
};

/* Sent once its rows are acknowledged: the learner's count of steps then holds them. */
struct pending_end {
    bool used;
    uint64_t send_ms;
    uint64_t after; /* its rows are those before this sequence */
    struct episode_end end;
};

/* Lock-step: the turn under way, the last answer, evaluation in place. */
struct lockstep {
    uint64_t generation; /* of the last restore; 0: none yet */
    bool restoring;
    bool fresh;          /* nothing has run: report the state after restoring */
    bool turn_active;
    struct turn turn;
    bool answered;       /* `last_step` is done and its answer is below */
    uint64_t last_step;
    bool ended;          /* the answer is `end`, else Turned */
    struct episode_end end;
    bool end_pending;
    uint64_t end_ms;     /* when to send it again */
    uint64_t lost_ms;    /* rows of this episode are gone: a restore must come by then; 0: all is well */
    void *state;         /* the environment's, behind `end` and `evaluated`; kept for RESTORE too */
    size_t state_size;
};

/* The evaluation ordered last, in place or on the evaluator. */
struct evaluating {
    bool ordered;  /* wanted, not finished */
    bool finished; /* result awaits its acknowledgement */
    uint64_t token;
    uint64_t send_ms;
    struct evaluate order;
    struct evaluated result;
};

struct session {
    struct session_config config;
    struct session_setup setup;
    struct row_schema schema;
    uint32_t stride;
    bool configuring, configured;
    uint64_t run, now;
    uint64_t tokens;
    struct output_queue outputs;
    bool exited;
    /* the learner */
    bool welcomed;      /* it knows us, as far as we know */
    bool seated;        /* a slot is ours */
    bool leaving;
    uint32_t slot, shard;
    uint64_t seating;        /* the highest a Welcome had */
    uint32_t learner_epoch;
    uint64_t learner_process;
    uint64_t heard_ms, hello_ms, beat_ms, began_ms;
    bool lockstep;
    uint32_t phase;
    uint64_t updates, target;
    struct announcement newest;
    char ingest[WIRE_ADDRESS_MAX], params[WIRE_ADDRESS_MAX], announce[WIRE_ADDRESS_MAX];
    /* the shard */
    uint64_t shard_heard_ms, ingest_hello_ms;
    bool shard_joined;  /* it answered our Hello */
    /* parameters */
    puller_t *puller;
    struct gone gone;            /* the last that was no longer held: not asked for again */
    struct announcement adopted; /* acted with; epoch 0: none */
    uint64_t adopting;           /* token; 0: none */
    /* environments */
    struct lane *lanes;
    uint32_t lane_count;
    struct pending_end ends[SESSION_ENDS];
    struct lockstep turns;
    struct evaluating evaluating;
    /* leaving */
    bool terminating;
    uint64_t step_ms, flush_ms;
    bool parting;       /* Leave was said: nothing else is from now on */
    uint32_t unheard;   /* bit 1 << port: Leave is not answered there */
    uint64_t part_ms, part_again_ms;
    /* what is waited for, for people */
    uint32_t waiting;
    uint64_t waiting_ms, said_ms, counted_ms;
    uint64_t waited[WAITING_LAST + 1];
    uint64_t steps, episodes, resent, dropped_rows, dropped_episodes, pulls, pulled_bytes;
};

/* session.c */
void session_log(session_t *session, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void session_exit(session_t *session, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
struct message *session_send(session_t *session, uint32_t port, uint32_t kind);
struct session_output *session_command(session_t *session, uint32_t kind);
uint64_t session_token(session_t *session);
bool session_learner_alive(const session_t *session);
bool session_has_parameters(session_t *session, const struct announcement *wanted);
void session_pull(session_t *session, const struct announcement *wanted);
void session_hello_soon(session_t *session);
uint64_t session_gone_ms(const session_t *session);
struct rng_key session_key(const session_t *session, uint32_t purpose, uint32_t environment,
                           uint32_t epoch, uint64_t step);

/* session_stream.c */
int streams_create(session_t *session);
void streams_destroy(session_t *session);
void streams_receive(session_t *session, const struct message *message);
void streams_tick(session_t *session);
uint64_t streams_deadline(const session_t *session);
void streams_advance(session_t *session);
void streams_hello(session_t *session);
void streams_forget(session_t *session); /* drop rows and episodes; new epochs are asked for */
void streams_flush(session_t *session, struct lane *lane);
uint64_t streams_unacknowledged(const session_t *session);
bool streams_shard_alive(const session_t *session);
struct lane *streams_awaiting(session_t *session, uint64_t token);
uint64_t streams_seed(const session_t *session, const struct lane *lane);
bool lane_push(session_t *session, struct lane *lane, const struct session_step *step);
void lane_reset(session_t *session, struct lane *lane);
void lane_step(session_t *session, struct lane *lane, bool random, const struct rng_key *key);

bool session_assigned(const session_t *session); /* the learner says which task comes next, episode by episode */
void streams_assign(session_t *session, const struct assign *assign);

/* session_lockstep.c */
void turns_welcome(session_t *session, const struct welcome *welcome, const struct bulk *state);
void turns_receive(session_t *session, const struct message *message);
void turns_stepped(session_t *session, struct lane *lane, const struct session_step *step);
void turns_tick(session_t *session);
void turns_epoch_lost(session_t *session, const struct lane *lane);
uint64_t turns_deadline(const session_t *session);
void turns_advance(session_t *session);

/* session_evaluate.c */
void evaluate_order(session_t *session, const struct evaluate *order);
void evaluate_acknowledged(session_t *session, const struct evaluated_ack *ack);
void evaluate_tick(session_t *session);
uint64_t evaluate_deadline(const session_t *session);
void evaluate_advance(session_t *session);
void evaluate_forget(session_t *session);

/* session_leave.c */
void leave_if_flushed(session_t *session);
void leave_run_over(session_t *session); /* one word to all: they go as well */
void leave_receive(session_t *session, const struct peer *peer, const struct message *message);
void leave_tick(session_t *session);
uint64_t leave_deadline(const session_t *session);

#endif
