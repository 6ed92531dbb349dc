/*
 * cluster.h - a whole run in one process: real machines and codec, real stores, a virtual clock.
 *
 * Learner, shards, actors and evaluator are the production state machines. Messages pass through the
 * codec and travel first-in first-out per connection with seeded delays; a connection can be cut (what
 * is under way is lost, the identity changes). A part is killed by abandoning it: a shard keeps what
 * its store committed, the learner its durable checkpoints, an actor nothing. The environment is a
 * toy, "parameters" are a hash, an "update" hashes the batch into it.
 */
#ifndef TD_TEST_CLUSTER_H
#define TD_TEST_CLUSTER_H

#include <sys/types.h>

#include "actor/session.h"
#include "common/util/rng.h"
#include "common/wire/codec.h"
#include "learner/coordinator.h"
#include "learner/replay/shard.h"

#define CLUSTER_NODES   96
#define CLUSTER_SOCKETS 8
#define CLUSTER_PARKED  8
#define CLUSTER_ENVS    8
#define CLUSTER_TASKS   8

enum { TOY_OBS = 5, TOY_ACTION = 2, CLUSTER_LENGTHS = 8, CLUSTER_EVENTS_MAX = 4096 };

/* An environment whose episodes have given lengths; all its state is here. */
struct toy {
    uint64_t random; /* goes on over resets */
    uint64_t resets; /* chooses the length of the next episode */
    uint64_t length, step;
    float obs[TOY_OBS]; /* task t sees but TOY_OBS - t of them, zeros in the place of the rest */
};

struct cluster_options {
    uint64_t seed;        /* of delays and of everything random in the cluster */
    bool lockstep, episodic, evaluator, eval_first;
    uint64_t steps, seed_steps, eval_freq;
    uint32_t eval_episodes, actors, shards, batch, horizon;
    uint32_t envs;        /* of each actor; 0 is 1 */
    double utd, slack;
    uint64_t buffer_size, checkpoint_steps, checkpoint_every_ms;
    uint64_t outbox, max_staleness;
    uint32_t length_count;
    uint32_t lengths[CLUSTER_LENGTHS]; /* of successive episodes of one environment, cyclic */
    bool truncates;       /* episodes end by time limit, else odd ones terminate */
    uint32_t tasks;       /* of a multi-task run; 0: single-task */
    uint32_t task_lengths[CLUSTER_TASKS]; /* their episodes' */
    uint64_t task_ms[CLUSTER_TASKS];      /* more than step_ms that a step of each takes */
    bool balanced;
    size_t snapshot;      /* bytes of the parameters */
    uint64_t delay_ms;    /* longest of a message */
    uint64_t step_ms, plan_ms, update_ms, save_ms, commit_ms; /* how long things take */
    bool restart_actors;  /* as `train` does: those that gave up */
    bool restart_fenced;  /* and the fenced, when their place is free */
    bool granted_slots;   /* actors do not name their slot */
    bool remote_shards;   /* shards beyond the first live on */
    const char *task;     /* or several, by commas: the production environment, planner, update and checkpoints (cluster_real.h);
                             NULL: the toy, and hashes */
    bool trace;           /* keep the trace of events */
    bool verbose;
};

/* Something the schedule's recording also has. */
enum trace_kind { TRACE_RESET, TRACE_RANDOM, TRACE_PLAN, TRACE_STEP, TRACE_UPDATE, TRACE_EVAL,
                  TRACE_TRAIN, TRACE_FINISH };
struct trace {
    enum trace_kind kind;
    bool first, eval;      /* PLAN */
    uint64_t episodes, rows; /* UPDATE: in the window; EVAL, TRAIN: episode, step */
};

struct cluster_row {
    uint64_t step, episode, version;
    double reward;
    bool final;
    uint64_t length; /* of a training episode */
    uint32_t task;
    uint32_t scores; /* of an evaluation, */
    double score[CLUSTER_TASKS]; /* each task's return */
};

struct durable { /* a checkpoint that survived */
    char *progress;
    uint64_t hash, version;
    uint8_t *state;
    size_t state_size;
    uint32_t kind;
};

enum node_kind { NODE_LEARNER, NODE_SHARD, NODE_ACTOR, NODE_EVALUATOR };

struct cluster_socket {
    bool used;
    uint32_t port;
    uint64_t id;        /* as named in OUTPUT_CONNECT */
    int target;         /* node, -1: nobody has this address yet */
    uint32_t serial;    /* of the connection; also in the other side's peer id */
    uint64_t last[2];   /* latest delivery out and in, for order */
    char address[WIRE_ADDRESS_MAX];
    void *parked[CLUSTER_PARKED];
    int parked_count;
};

struct cluster_node {
    enum node_kind kind;
    int number;            /* shard or slot */
    bool alive;
    uint32_t life;         /* counts starts */
    uint64_t process;
    uint64_t start_at;     /* dead: when it starts again; UINT64_MAX: never */
    int exit_code;         /* -1: none yet */
    char exit_text[OUTPUT_TEXT_MAX];
    uint32_t starts;       /* for the address: valid for one life */
    struct cluster_socket sockets[CLUSTER_SOCKETS];
    uint64_t stopped_until; /* SIGSTOP: hears and does nothing until then */
    union {
        struct learner_host *learner;
        struct shard_host *shard;
        struct actor_host *actor;
    };
};

struct cluster;

/* What happens to messages under way; all zero: nothing. cluster_faults.h makes plans of it. */
struct cluster_faults {
    uint64_t seed;        /* of the dice: independent of all else that is random */
    uint64_t until;       /* no message sent from here on is touched */
    double loss, twice, late; /* of a message: lost, delivered twice, late */
    uint64_t late_ms;     /* longest that a late one takes */
    bool wild;            /* late ones and second copies come out of their order; else they hold others up */
    uint64_t cut_until[CLUSTER_NODES][CLUSTER_NODES]; /* partition: from one node to another */
    bool held[CLUSTER_NODES][CLUSTER_NODES]; /* what is sent meanwhile arrives after it, else is lost */
    bool ghosts;          /* what a dead process sent can arrive after its successor has started */
    uint64_t dice;
    uint64_t lost, doubled, delayed; /* so far */
    uint64_t wake_at;     /* when on_wake is to be called */
    void (*on_wake)(struct cluster *cluster, void *plan);
    void *plan;
};

struct cluster {
    struct cluster_options options;
    struct cluster_faults faults;
    uint64_t trace_hash;  /* of every delivery and every life */
    struct rng rng;
    uint64_t now;
    struct cluster_node nodes[CLUSTER_NODES];
    int node_count;
    char folder[256];
    codec_t *codec;
    struct event *events; /* binary heap */
    size_t event_count, event_capacity;
    uint64_t event_ids;
    uint64_t delivered;   /* messages so far */
    uint64_t commits, fired, fenced; /* fenced: actors that left so */
    uint32_t serials;
    /* what survives the learner */
    uint32_t epoch_file;
    struct durable *durable;
    int durable_count, durable_capacity;
    void **scraps; /* owned until the end: of checkpoints, durable or lost in the writing */
    int scrap_count;
    struct cluster_row *train, *eval;
    int train_count, eval_count;
    struct trace *trace;
    size_t trace_count;
    uint64_t updates_run;
    uint64_t task_slices[CLUSTER_TASKS]; /* in all batches so far */
    struct audit *audit;
    /* faults */
    int lose_hellos;      /* so many Hellos (any socket) are lost */
    int lose_leaves;      /* and so many Leaves, said or answered */
    void (*on_delivered)(struct cluster *cluster, void *context);
    void (*on_saved)(struct cluster *cluster, void *context); /* a real checkpoint is durable, nobody knows yet */
    void (*on_save_failed)(struct cluster *cluster, void *context); /* a real checkpoint, by fs_fault */
    void *context;
    const char *words[4]; /* options given to the learner at its next starts (cluster_real.h) */
};

/* Sensible options for a small run. */
void cluster_defaults(struct cluster_options *options);

/* Build and start everything; fails the test when it cannot. */
struct cluster *cluster_create(const struct cluster_options *options);
void cluster_destroy(struct cluster **cluster);

/* Where the stores of a process's count-th cluster are (from 0): to remove them when it died. */
void cluster_folder(char *out, size_t size, pid_t pid, int count);

/* Run until the learner has exited for good, or this much virtual time has passed. */
bool cluster_run(struct cluster *cluster, uint64_t until_ms);

struct cluster_node *cluster_learner(struct cluster *cluster);
struct cluster_node *cluster_shard(struct cluster *cluster, int number);
struct cluster_node *cluster_actor(struct cluster *cluster, int number);
struct cluster_node *cluster_evaluator(struct cluster *cluster);

/*
 * Another learner takes over at the same address, as on another machine that was given it: connections to the
 * old one are gone, but not its own to the shards. Returns the old one, alive or stopped as it was.
 */
struct cluster_node *cluster_replace_learner(struct cluster *cluster);

/* One more actor, started after `delay_ms`. */
struct cluster_node *cluster_add_actor(struct cluster *cluster, int slot, uint64_t delay_ms);

/* Abandon this part; it starts again after delay_ms (UINT64_MAX: never). */
void cluster_kill(struct cluster *cluster, struct cluster_node *node, uint64_t delay_ms);
void cluster_terminate(struct cluster *cluster, struct cluster_node *node, uint64_t restart_ms);
void cluster_cut(struct cluster *cluster, struct cluster_node *node); /* all its connections */
void cluster_lose(struct cluster *cluster, struct cluster_node *node); /* what is under way to and from it; its names stay */
void cluster_lose_store(struct cluster *cluster, struct cluster_node *shard); /* a new directory */

/* The final word of a run: hash of the last checkpoint's parameters and of the csv lines. */
uint64_t cluster_hash(const struct cluster *cluster);

/* The parameters' hash and version at the newest checkpoint. */
const struct durable *cluster_durable(const struct cluster *cluster);

struct coordinator_view cluster_view(struct cluster *cluster);

/* --- shared by the cluster's files ------------------------------------------ */

struct frames { /* an encoded message */
    uint32_t count, kind;
    size_t size; /* of all frames */
    struct bulk frame[1 + WIRE_BULK_MAX];
    uint8_t bytes[];
};

enum event_kind { EVENT_DELIVER, EVENT_CALL, EVENT_COMMIT };
struct event {
    uint64_t at, id;
    enum event_kind kind;
    int node;           /* for whom */
    uint32_t life;      /* CALL, COMMIT: void in another life */
    /* DELIVER */
    int from, socket;   /* the dealer's node and socket */
    uint32_t from_life, serial, port;
    bool to_dealer;
    struct frames *frames;
    uint32_t node_life; /* of the router when it was sent */
    /* CALL */
    void (*call)(struct cluster *cluster, struct cluster_node *node, void *argument);
    void *argument;     /* freed after the call */
};
void cluster_event(struct cluster *cluster, const struct event *event);
void cluster_postpone(struct cluster *cluster, const struct event *event, uint64_t until);
void cluster_deliver(struct cluster *cluster, const struct event *event);
void cluster_reconnect(struct cluster *cluster, const struct cluster_node *node);
void cluster_call(struct cluster *cluster, struct cluster_node *node, uint64_t delay_ms,
                  void (*call)(struct cluster *, struct cluster_node *, void *), void *argument);
void cluster_send(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                  const struct message *message);
void cluster_connect(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                     const char *address);
void cluster_exited(struct cluster *cluster, struct cluster_node *node,
                    const struct output_exit *exit);
void cluster_trace(struct cluster *cluster, struct trace trace);
void *cluster_keep(struct cluster *cluster, void *memory); /* freed with the cluster */
uint64_t cluster_mix(uint64_t hash, const void *bytes, size_t size);
uint64_t cluster_random(struct cluster *cluster, uint64_t below);
void cluster_say(struct cluster *cluster, const struct cluster_node *node, const char *text);

void learner_start(struct cluster *cluster, struct cluster_node *node);
void learner_abandon(struct cluster_node *node);
void learner_receive(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                     const struct message *message);
void learner_tick(struct cluster *cluster, struct cluster_node *node);
uint64_t learner_deadline(const struct cluster_node *node);
void learner_terminate(struct cluster *cluster, struct cluster_node *node);
coordinator_t *learner_coordinator(struct cluster_node *node);

void shard_start(struct cluster *cluster, struct cluster_node *node);
void shard_abandon(struct cluster_node *node);
void shard_host_receive(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                        const struct message *message);
void shard_host_tick(struct cluster *cluster, struct cluster_node *node);
uint64_t shard_host_deadline(const struct cluster_node *node);
void shard_host_commit(struct cluster *cluster, struct cluster_node *node);
void shard_host_terminate(struct cluster *cluster, struct cluster_node *node);
store_t *shard_host_store(struct cluster_node *node);
void shard_host_folder(struct cluster *cluster, struct cluster_node *node, char *out, size_t size);

void actor_start(struct cluster *cluster, struct cluster_node *node);
void actor_abandon(struct cluster_node *node);
void actor_receive(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                   const struct message *message);
void actor_tick(struct cluster *cluster, struct cluster_node *node);
uint64_t actor_deadline(const struct cluster_node *node);
void actor_terminate(struct cluster *cluster, struct cluster_node *node);
session_t *actor_session(struct cluster_node *node);

void toy_init(struct toy *toy, uint64_t seed);
void toy_reset(struct toy *toy, const struct cluster_options *options, uint32_t task);
bool toy_step(struct toy *toy, const struct cluster_options *options, uint32_t task, const float *action,
              float *reward, bool *terminated);

/* cluster_audit.c: an independent log of what was sent and what was acknowledged. */
struct audit *audit_create(void);
void audit_destroy(struct audit **audit);
void audit_sent(struct cluster *cluster, const struct message *rows);
void audit_acknowledged(struct cluster *cluster, uint32_t slot, uint32_t env, uint64_t store,
                        uint64_t epoch, uint64_t next);
void audit_rewound(struct cluster *cluster, uint64_t store); /* lock-step: acknowledged rows may go */

/*
 * Read every shard's store (its part must be down or idle): every acknowledged row is there, once,
 * unaltered, in order. Fails the test otherwise. Returns the number of rows checked.
 */
uint64_t audit_check(struct cluster *cluster);

/* The counts at the end are those the limiter promises. Fails the test otherwise. */
void cluster_check_counts(const struct cluster *cluster);
struct progress cluster_progress(const struct cluster *cluster); /* of the newest checkpoint */
uint64_t cluster_steps(const struct progress *progress);

/* Fails the test, saying what the learner waits for. */
void cluster_fail_stuck(struct cluster *cluster, const char *what);

/* How many streams (slot, environment) had rows acknowledged. */
int audit_streams(const struct cluster *cluster);

#endif
