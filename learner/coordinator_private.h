/*
 * coordinator_private.h - the inside of the coordinator, shared by its files:
 *   coordinator.c           entries, time, checkpoints, the end
 *   coordinator_roster.c    actors, evaluators, tools: joining, heartbeats, pulls
 *   coordinator_shards.c    shards: joining, counts, credit, gathering batches
 *   coordinator_async.c     limiter, publications, evaluation by the evaluator
 *   coordinator_lockstep.c  the reference's schedule, turn by turn; cuts and going back to them
 *   coordinator_tasks.c     which task an environment's next episode is of; slices by task
 */
#ifndef TD_LEARNER_COORDINATOR_PRIVATE_H
#define TD_LEARNER_COORDINATOR_PRIVATE_H

#include "common/util/log.h"
#include "learner/coordinator.h"
#include "learner/limiter.h"
#include "learner/params.h"
#include "learner/schedule.h"

#define COORDINATOR_MEMBERS   1024
#define COORDINATOR_FENCED    16
#define COORDINATOR_HELD      64
#define COORDINATOR_HOLD_MS   1000 /* an EpisodeEnd waits for newer counts at most */
#define COORDINATOR_RESEND_MS 1000 /* of what has not been answered */
#define COORDINATOR_HELLO_MS  500  /* of SampleHello */
#define COORDINATOR_BEATS     5    /* heartbeats of silence that mean gone */
#define COORDINATOR_RETRY_MS  10000 /* after a checkpoint that could not be written, whoever asks for one */
#define COORDINATOR_LAST_MS   30000 /* the last checkpoint is tried for so long, */
#define COORDINATOR_AGAIN_MS  3000  /* with such pauses */
#define COORDINATOR_SAY_MS    5000 /* a wait longer than this is a log line */

/* Multi-task: what one environment plays, and what it was told to play next. */
struct assigned {
    uint64_t number; /* of that next episode */
    bool has_next, has_playing;
    uint16_t next, playing;
};

/* An actor, evaluator or tool on the control socket. */
struct member {
    bool used, seated;
    struct peer peer;
    uint32_t role, slot, shard;
    uint64_t process;
    uint64_t seating; /* when it was seated: who shows a lower one spoke before that */
    uint64_t heard_ms, seated_ms;
    uint32_t waiting, computing;
    uint64_t steps;
    uint32_t version_epoch;
    uint64_t version;
    bool gone_said;
    uint32_t environments; /* that have asked for a task are below this */
    struct {
        uint64_t epoch, next; /* of the last EpisodeEnd logged */
    } ends[WIRE_STREAMS_MAX];
    struct assigned assigned[WIRE_STREAMS_MAX];
};

/* A shard's place. */
struct seat {
    bool known;    /* said Hello on control; its addresses are below */
    bool welcomed; /* answered our SampleHello */
    bool local;
    uint64_t process;
    char ingest_ipc[WIRE_ADDRESS_MAX], ingest_tcp[WIRE_ADDRESS_MAX], sample[WIRE_ADDRESS_MAX];
    bool has_status;
    struct status status;
    uint32_t statuses; /* heard so far */
    uint64_t damage_said; /* of the present process */
    uint64_t heard_ms, hello_ms, beat_ms;
    uint64_t credit;
    bool gone_said;
    bool rehello; /* say SampleHello again although it answered once */
    bool moved;   /* its actors are to be told the ingest address once it has answered */
    /* the open request */
    bool asked;
    uint64_t asked_ms;
    struct sample_request request;
    uint32_t buffer, part;
};

enum batch_state { BATCH_FREE = 0, BATCH_GATHERING, BATCH_READY, BATCH_RUNNING };

struct gathering {
    enum batch_state state;
    uint64_t update;
    uint32_t parts, have;
    uint64_t since_ms;
};

/* Evaluations: one ordered, one pending. */
struct orders {
    bool running, pending, pending_final;
    uint64_t pending_step;
    struct evaluate order;
    uint64_t send_ms;
    uint64_t ids;
    uint64_t next; /* agent steps at which the next is due */
    bool final_done;
};

/* An EpisodeEnd whose line waits for counts that hold its steps. */
struct held_end {
    struct peer peer;
    uint32_t shard, statuses; /* heard from it when the message came */
    uint64_t since_ms;
    struct episode_end end;
};

enum stage {
    STAGE_IDLE = 0,  /* no actor, model or shard yet */
    STAGE_LOADING,   /* COMMAND_LOAD */
    STAGE_REWINDING, /* Rewind */
    STAGE_FRESH,     /* the actor reports its environment's first state */
    STAGE_RUNNING,   /* the schedule */
};

struct lockstep_run {
    enum stage stage;
    struct schedule schedule;
    uint64_t generation;
    uint32_t restarts;
    uint64_t actor;         /* the process that plays; 0: none yet */
    uint64_t seating;       /* when it was accepted */
    bool restart;           /* a new actor process: go back to the last cut */
    bool started;           /* something was done since the last load */
    uint64_t fenced[COORDINATOR_FENCED];
    uint32_t fenced_count;
    uint64_t send_ms;       /* resend what the stage or event waits for */
    bool sent;              /* the event's message went out */
    bool reset;             /* the next Turn resets */
    bool synced;            /* the rows before a cut are */
    bool cutting;           /* a cut is being written */
    bool cut_saved;         /* the cut due at this Go is written, or none is due */
    uint64_t rows;          /* taken in, open episode included */
    uint64_t window;        /* first episode of the last window */
    uint64_t last_cut;      /* step of the last cut written */
    bool has_cut;
    struct episode_end end; /* of the episode that just ended */
    struct evaluated result;
    struct evaluate order;
    struct progress go;     /* the state just before the last Go */
    void *state, *go_state; /* the environment's: as last reported; at the last Go */
    size_t state_size, go_state_size;
    uint64_t retain;
};

enum ending { ENDING_NOT = 0, ENDING_COMPLETE, ENDING_TERMINATE, ENDING_STOP };

struct coordinator {
    struct coordinator_config config;
    uint64_t now;
    bool begun, exited;
    struct output_queue outputs;
    /* the model */
    struct message_spec spec; /* obs_type 0: unknown */
    uint64_t seed_steps;
    bool model_asked, model_ready;
    bool raising;             /* COMMAND_RAISE_EPOCH under way */
    /* members and shards */
    struct member members[COORDINATOR_MEMBERS];
    uint32_t member_count;    /* places ever used */
    uint32_t seatings;        /* given so far */
    uint64_t beat_ms;
    struct seat seats[WIRE_SHARDS_MAX];
    uint32_t stores;
    struct progress_store store[PROGRESS_STORES];
    /* batches */
    struct gathering batches[2];
    uint64_t request_ids;
    struct task_share shares[WIRE_SHARDS_MAX][ROW_TASKS_MAX]; /* scratch: of the batch being asked for */
    /* parameters */
    params_t *params;
    uint64_t published_ms, publish_again_ms;
    uint64_t publish_due_ms;  /* asynchronous: not before, unless there is a reason */
    uint64_t publishing;      /* version + 1 while COMMAND_PUBLISH is under way; 0: none */
    /* progress */
    struct limiter limiter;
    uint32_t phase_told;
    uint64_t episodes;
    bool finished;            /* asynchronous: all steps are in, no update is due */
    struct orders orders;
    struct held_end held[COORDINATOR_HELD]; /* the oldest first */
    uint32_t held_count;
    struct lockstep_run run;
    struct progress restored;
    bool resumed;
    /* checkpoints */
    struct progress saved;    /* as given to the host; kept while it may be read */
    uint64_t save_id, saving; /* saving: id under way, 0: none */
    uint32_t saving_kind;
    uint64_t saved_ms;
    uint64_t save_again_ms; /* after one that failed: not before */
    bool save_due;
    bool save_ok;
    uint32_t kept;
    uint64_t kept_window[PROGRESS_KEPT];
    /* the end */
    enum ending ending;
    bool ending_saved;        /* the last checkpoint was begun */
    uint64_t ending_again_ms, ending_over_ms; /* it failed: the next try, and the end of patience; 0: it has not */
    char save_why[WIRE_TEXT_MAX / 2];         /* why the newest checkpoint was not written */
    bool has_stopper;
    struct peer stopper;      /* the tool that asked for the end: it hears how it went */
    int code;
    char why[WIRE_TEXT_MAX];
    /* what is waited for */
    char wait[OUTPUT_TEXT_MAX];
    const char *wait_format, *wait_next; /* the same wait has the same format */
    uint64_t wait_ms, wait_say_ms;
    uint32_t wait_kind;
    uint64_t gather_again_ms;
    uint64_t waited[3], counted_ms;
};

enum wait_kind { WAIT_INSERTS = 0, WAIT_SHARDS, WAIT_CHECKPOINT };

/* coordinator.c */
struct coordinator_output *coordinator_command(struct coordinator *c, uint32_t kind);
struct message *coordinator_send(struct coordinator *c, const struct peer *peer, uint32_t kind);
void coordinator_log(struct coordinator *c, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void coordinator_exit(struct coordinator *c, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void coordinator_wait(struct coordinator *c, enum wait_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void coordinator_end(struct coordinator *c, enum ending ending, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
uint64_t coordinator_gone_ms(const struct coordinator *c);
bool coordinator_updating(const struct coordinator *c);
void coordinator_save(struct coordinator *c, uint32_t kind, const struct progress *progress,
                      struct bulk state);
bool coordinator_publish(struct coordinator *c, uint64_t version);
void coordinator_set_spec(struct coordinator *c, const struct message_spec *spec);
uint64_t coordinator_updates(const struct coordinator *c);
uint32_t coordinator_phase(const struct coordinator *c);
uint64_t coordinator_steps(const struct coordinator *c);
void coordinator_progress(const struct coordinator *c, struct progress *progress);
void coordinator_keep_window(struct coordinator *c, uint64_t window);

/* coordinator_roster.c */
void roster_receive(struct coordinator *c, const struct peer *peer, const struct message *message);
void roster_pull(struct coordinator *c, const struct peer *peer, const struct message *message);
void roster_tick(struct coordinator *c);
void roster_beat(struct coordinator *c); /* heartbeats to all, now */
void roster_tell_end(struct coordinator *c);
struct member *roster_find(struct coordinator *c, uint64_t process);
struct member *roster_evaluator(struct coordinator *c);
bool member_live(const struct coordinator *c, const struct member *member);
void roster_welcome(struct coordinator *c, const struct member *member);
void roster_welcome_options(struct coordinator *c, const struct peer *peer, uint32_t role);
uint64_t roster_seating(struct coordinator *c); /* the next number */
void roster_moved(struct coordinator *c, uint32_t shard); /* it has other addresses: its actors hear them */
uint32_t roster_computing(const struct coordinator *c);
uint32_t roster_live(const struct coordinator *c, uint32_t role);

/* coordinator_shards.c */
void shards_hello(struct coordinator *c, const struct peer *peer, const struct message *message);
void shards_receive(struct coordinator *c, const struct peer *peer, const struct message *message);
void shards_tick(struct coordinator *c);
uint64_t shards_deadline(const struct coordinator *c);
bool seat_live(const struct coordinator *c, const struct seat *seat);
uint32_t shards_live(const struct coordinator *c);
uint64_t shards_steps(const struct coordinator *c);
void shards_observe(struct coordinator *c);
void shards_credit(struct coordinator *c);
void shards_tell_end(struct coordinator *c);
void shards_rehello(struct coordinator *c);
uint32_t shards_highest_slot(const struct coordinator *c, bool *known);
int batch_free(const struct coordinator *c);
int batch_in(const struct coordinator *c, enum batch_state state);
bool batch_request(struct coordinator *c, uint64_t update, const struct sample_request *like);
void batch_start(struct coordinator *c, int buffer);
void batch_cancel(struct coordinator *c, int buffer);
void shards_barrier(struct coordinator *c, uint64_t rows);
void shards_rewind(struct coordinator *c);

/* coordinator_tasks.c */
void tasks_next(struct coordinator *c, const struct peer *peer, struct member *member, const struct next_task *next);
void coordinator_scores(struct command_eval_row *row, const struct evaluated *evaluated);
uint64_t tasks_seed_steps(const struct coordinator *c, uint64_t least); /* one episode of each at least */
bool tasks_deal(const struct coordinator *c, uint64_t update, uint32_t *counts,
                struct task_share (*shares)[ROW_TASKS_MAX]);

/* coordinator_async.c */
void async_resume(struct coordinator *c);
void async_advance(struct coordinator *c);
uint64_t async_deadline(const struct coordinator *c);
void async_updated(struct coordinator *c);
void async_episode_end(struct coordinator *c, const struct peer *peer, struct member *member,
                       const struct episode_end *end);
void async_flush_ends(struct coordinator *c);
void async_evaluated(struct coordinator *c, const struct peer *peer,
                     const struct evaluated *evaluated);
bool async_finished(const struct coordinator *c);

/* coordinator_lockstep.c */
int lockstep_check(const struct coordinator_config *config, struct error *err);
void lockstep_resume(struct coordinator *c, const void *state, size_t state_size);
bool lockstep_hello(struct coordinator *c, const struct peer *peer, const struct hello *hello);
void lockstep_receive(struct coordinator *c, const struct peer *peer, const struct message *message);
void lockstep_rewound(struct coordinator *c, const struct rewound *rewound);
void lockstep_advance(struct coordinator *c);
uint64_t lockstep_deadline(const struct coordinator *c);
void lockstep_updated(struct coordinator *c);
void lockstep_synced(struct coordinator *c);
void lockstep_release(struct coordinator *c);
bool lockstep_welcoming(const struct coordinator *c, const struct member *member);
void lockstep_end(struct coordinator *c);

#endif
