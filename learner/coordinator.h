/*
 * coordinator.h - the learner's side of the protocol: who takes part, who may go on, what comes next.
 *
 * A pure state machine (common/wire/machine.h): joining, epochs, limiter or lock-step turns, sample
 * requests, parameter snapshots and pulls, evaluation, checkpoints, completion. It decides; the host
 * computes, writes files and moves bytes.
 *
 * Owns:    roster, limiter, the two parameter snapshots, a copy of the last environment state.
 * Borrows: config->options for its life.
 * Thread:  belongs to the learner's loop thread. Snapshot memory named in COMMAND_PUBLISH is written by
 *          the compute thread until coordinator_published is called.
 *
 * Compute commands (MODEL, UPDATE, PUBLISH, the copying part of SAVE, LOAD) are carried out one after
 * another in the order given, on the compute thread; the others at once.
 */
#ifndef TD_LEARNER_COORDINATOR_H
#define TD_LEARNER_COORDINATOR_H

#include "common/util/error.h"
#include "common/wire/machine.h"
#include "learner/params.h"
#include "learner/progress.h"

typedef struct coordinator coordinator_t;

struct coordinator_config {
    uint64_t run;
    uint64_t process;       /* random, of this start */
    uint32_t epoch;         /* the learner epoch, already raised and written */
    const char *options;    /* YAML told to actors; borrowed */
    size_t options_size;
    /* addresses told to peers on this host, and to others (empty: they cannot join) */
    char params_ipc[WIRE_ADDRESS_MAX], params_tcp[WIRE_ADDRESS_MAX];
    char announce_ipc[WIRE_ADDRESS_MAX], announce_tcp[WIRE_ADDRESS_MAX];
    bool lockstep;
    bool episodic;
    bool evaluator;         /* one is expected: evaluations are ordered and waited for at the end */
    bool eval_first;
    uint64_t seed;
    uint64_t steps;
    uint64_t seed_steps;    /* 0: max(1000, 5 episodes), once the episode length is known */
    double utd, slack;
    uint32_t batch_size, horizon;
    uint64_t buffer_size;
    uint64_t eval_freq;
    uint32_t eval_episodes;
    uint32_t actors;        /* slots below this are reserved for local actors */
    uint32_t shards;
    uint64_t max_staleness;
    uint64_t heartbeat_ms, broadcast_ms, timeout_ms;
    uint64_t checkpoint_every_ms, checkpoint_steps;
    uint32_t keep_checkpoints;
    /* multi-task; 0 tasks: single-task */
    uint32_t tasks;
    uint32_t task_length[ROW_TASKS_MAX]; /* agent steps of an episode of each; 0: not known */
    bool balanced;          /* draw tasks uniformly, not episodes */
    uint64_t row_bytes;     /* of a stored row, the mean over the tasks; 0: one task */
};

enum coordinator_command {
    COMMAND_MODEL = OUTPUT_ROLE, /* the spec is known: build the model (a resumed run: load its
                                    checkpoint's tensors); then coordinator_model_ready */
    COMMAND_SLICES,   /* keep bulk 0 of the message just received: a part of a batch */
    COMMAND_UPDATE,   /* run one update on a batch; then coordinator_updated */
    COMMAND_PUBLISH,  /* copy the acting parameters to memory; then coordinator_published */
    COMMAND_SAVE,     /* write a checkpoint; when durable (or failed) coordinator_saved */
    COMMAND_LOAD,     /* lock-step: go back to the newest valid cut; then coordinator_loaded */
    COMMAND_ROLLBACK, /* remove csv lines of later steps */
    COMMAND_TRAIN_ROW,
    COMMAND_EVAL_ROW,
    COMMAND_RAISE_EPOCH, /* write a learner epoch above this one; then coordinator_epoch_raised */
};

enum save_kind {
    SAVE_CUT = 1,   /* lock-step: between two episodes, or in the burst */
    SAVE_ORDINARY,  /* asynchronous */
    SAVE_FINAL,     /* the run is complete; lock-step: beside the cuts, not to be resumed from */
};

struct command_slices {
    uint32_t buffer; /* 0 or 1: the batch being gathered */
    uint32_t part;   /* 0.. in shard order */
    uint32_t count;  /* slices in it */
};

struct command_update {
    uint64_t update;    /* its number from 0: the key of its random numbers */
    uint32_t buffer;
    uint32_t parts;     /* batch = parts one after another along B; each of its own count */
    uint32_t computing; /* local actors that are planning: leave them their cores */
    bool want_metrics;  /* its losses go into the next train row */
};

struct command_publish {
    struct params_room room;
    size_t size;
    uint64_t version;
};

struct command_save {
    uint64_t id;
    uint32_t kind;              /* enum save_kind */
    const struct progress *progress; /* borrowed, as bulk */
    struct bulk state;          /* lock-step: the environment's state; borrowed */
};

struct command_rollback {
    uint64_t eval_below; /* keep lines of steps below these */
    uint64_t train_below;
};

/* One finished episode, for train.csv and the console. */
struct command_train_row {
    uint64_t step;     /* agent steps */
    uint64_t episode;  /* running number */
    uint64_t updates;
    double reward;
    uint64_t length;
    bool has_success;
    double success;
    bool terminated;
    uint32_t slot;
    uint32_t task;
};

struct command_eval_row {
    uint64_t step;
    uint64_t episode;  /* finished training episodes */
    uint64_t version;
    uint32_t episodes;
    double reward;
    double length;
    bool has_success;
    double success;
    bool final;
    uint32_t score_count; /* multi-task: of each task; the numbers above are means over the tasks */
    struct task_score scores[ROW_TASKS_MAX];
};

struct coordinator_output {
    uint32_t kind; /* enum output_kind or coordinator_command */
    struct peer peer;
    union {
        struct message message;              /* OUTPUT_SEND */
        char address[WIRE_ADDRESS_MAX];      /* OUTPUT_CONNECT */
        struct output_log log;
        struct output_exit exit;
        struct message_spec spec;            /* COMMAND_MODEL */
        struct command_slices slices;
        struct command_update update;
        struct command_publish publish;
        struct command_save save;
        struct command_rollback rollback;
        struct command_train_row train;
        struct command_eval_row eval;
        uint32_t epoch;                      /* COMMAND_RAISE_EPOCH */
    };
};

/*
 * Rows a shard's map must have room for: its window, what a kept cut may go back to, the open episode; and of them
 * those that a run of so many steps fills, a reset row for each episode of full length included. The map keeps its
 * size when the run is extended.
 */
uint64_t coordinator_used_rows(uint64_t map_rows, uint64_t steps, uint32_t shards, uint32_t episode_length);
uint64_t coordinator_map_rows(uint64_t buffer_size, uint64_t keep_checkpoints, uint64_t checkpoint_steps,
                              uint32_t shards, uint32_t episode_length);

/*
 * A coordinator for a new run, or for one resumed from `progress` and `state` (both copied; NULL and
 * 0 for a new run). The host has loaded the newest valid checkpoint or none.
 * Returns TD_OK, TD_ENOMEM, or TD_EINVAL for options that lock-step refuses.
 */
int coordinator_create(coordinator_t **out, const struct coordinator_config *config,
                       const struct progress *progress, const void *state, size_t state_size,
                       struct error *err);
void coordinator_destroy(coordinator_t **coordinator);

void coordinator_receive(coordinator_t *coordinator, uint64_t now_ms, const struct peer *peer,
                         const struct message *message);
void coordinator_tick(coordinator_t *coordinator, uint64_t now_ms);

/* When coordinator_tick wants to be called at the latest. */
uint64_t coordinator_deadline(const coordinator_t *coordinator);
/* Until false, after every call that feeds it: what a message points to is good until the next such call. */
bool coordinator_next(coordinator_t *coordinator, struct coordinator_output *output);

/* Results of commands. */
/* file: as params_create's, borrowed. */
void coordinator_model_ready(coordinator_t *coordinator, uint64_t now_ms, size_t snapshot_bytes, const spill_t *file);
void coordinator_updated(coordinator_t *coordinator, uint64_t now_ms, uint64_t update, bool finite);
void coordinator_published(coordinator_t *coordinator, uint64_t now_ms, uint64_t version,
                           uint64_t hash, bool finite);
/* failed: why it was not written, NULL: it was. The last one of a run is tried again for a while. */
void coordinator_saved(coordinator_t *coordinator, uint64_t now_ms, uint64_t id, const char *failed);
void coordinator_loaded(coordinator_t *coordinator, uint64_t now_ms, const struct progress *progress,
                        const void *state, size_t state_size);
void coordinator_epoch_raised(coordinator_t *coordinator, uint64_t now_ms, uint32_t epoch);

/* The host saw the process of this shard die; its next one says Hello. */
void coordinator_shard_died(coordinator_t *coordinator, uint64_t now_ms, uint32_t shard);

/* The host saw the process of its own evaluator die: the next one may have its place at once. */
void coordinator_evaluator_died(coordinator_t *coordinator, uint64_t now_ms);

/* SIGTERM: finish the update, checkpoint, tell all, OUTPUT_EXIT. */
void coordinator_terminate(coordinator_t *coordinator, uint64_t now_ms);

/* `tdmpc2 stop`, or a part that cannot go on (code != 0): checkpoint, "stop" to all, OUTPUT_EXIT. */
void coordinator_stop(coordinator_t *coordinator, uint64_t now_ms, int code, const char *why);

/* For stats and the status line. */
struct coordinator_view {
    uint32_t phase;
    uint64_t steps, updates, target, rows, episodes, samplable, bytes;
    uint64_t steps_total; /* asked for */
    uint64_t drawable;    /* agent steps that may be drawn */
    uint64_t retired;     /* episodes stored that may not: evicted, or shorter than the horizon */
    uint64_t left;        /* updates still to be done in the whole run */
    int64_t cursor;       /* updates owed */
    uint64_t limit;       /* agent steps allowed in all; LIMIT_NONE */
    uint32_t actors, streams, shards; /* live */
    uint32_t shards_known; /* have said where they are, perhaps before there was a row to keep */
    struct announcement newest;
    uint64_t oldest_version; /* the oldest parameters a live actor acts with */
    bool updating;
    uint32_t waits;          /* things waited for now */
    char wait[OUTPUT_TEXT_MAX]; /* the oldest, in words; empty: nothing */
    uint64_t wait_since_ms;
    char trouble[OUTPUT_TEXT_MAX]; /* what somebody should see to, though the run goes on; empty: nothing */
    uint64_t wait_ms[3];     /* in all: for inserts, for shards and slices, for checkpoints */
};
void coordinator_view(const coordinator_t *coordinator, uint64_t now_ms,
                      struct coordinator_view *view);

/* The tasks of a multi-task run, for stats: fills up to `max`, returns how many there are. */
struct coordinator_task {
    uint64_t rows, episodes; /* in the replay's window: all rows; samplable episodes */
    uint32_t playing;        /* live environments that play it, as far as is known */
};
int coordinator_tasks(const coordinator_t *coordinator, uint64_t now_ms, struct coordinator_task *tasks, int max);

/* The roster, for stats: fills up to `max` entries, returns how many there are. */
struct coordinator_member {
    uint32_t role, slot, shard, waiting;
    uint64_t process, steps, version, heard_ms;
    uint64_t since_ms; /* when it joined; 0: not known */
    bool live, local;
};
int coordinator_members(const coordinator_t *coordinator, uint64_t now_ms,
                        struct coordinator_member *members, int max);

/* The shards that have said where they are, the same way; their version and what they wait for are not known. */
int coordinator_shards(const coordinator_t *coordinator, uint64_t now_ms, struct coordinator_member *members, int max);

#endif
