/*
 * message.h - every message between the parts of a run, decoded: plain structs of bounded size.
 *
 * The state machines read and write these; codec.h turns them into frames and back and checks every
 * field that comes from outside. proto/README.md says who sends what to whom, when, and what each
 * exchange guarantees. Field comments here give meaning and units.
 *
 * Counting: sequences, episodes, steps and updates start at 0; `next`, `last`, `limit` name the first
 * one NOT included, so "nothing yet" is 0 everywhere.
 */
#ifndef TD_WIRE_MESSAGE_H
#define TD_WIRE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/store/row.h"

#define PROTOCOL_VERSION 1u

#define WIRE_ADDRESS_MAX 256            /* bytes with the NUL */
#define WIRE_TEXT_MAX    256            /* of a sentence, with the NUL */
#define WIRE_STREAMS_MAX 64             /* environments of one actor */
#define WIRE_BULK_MAX    2              /* raw frames behind a header */
#define WIRE_HEADER_MAX  (16u << 10)    /* bytes of a header frame */
#define WIRE_ROWS_MAX    (256u << 10)   /* bytes of the frames of one Rows message */
#define WIRE_CHUNK_BYTES (1u << 20)     /* of parameters */
#define WIRE_STATE_MAX   (1u << 20)     /* an environment's state */
#define WIRE_OPTIONS_MAX (64u << 10)    /* the options, as YAML */
#define WIRE_SLICES_MAX  (1u << 30)     /* one batch */
#define WIRE_SHARDS_MAX  64
#define WIRE_SLOT_MAX    65535u

#define LIMIT_NONE UINT64_MAX           /* credits and limits: as many steps as you like */

/* Where a message came from or goes to. */
enum port {
    PORT_CONTROL = 1,  /* learner ROUTER - DEALER of actors, evaluators, shards, tools */
    PORT_INGEST = 2,   /* shard ROUTER - DEALER of actors */
    PORT_SAMPLE = 3,   /* shard ROUTER - DEALER of the learner */
    PORT_PARAMS = 4,   /* learner ROUTER - DEALER of actors */
    PORT_ANNOUNCE = 5, /* learner PUB - SUB of actors; sends go to everyone */
};

/*
 * One end of a socket. On a ROUTER `id` is the routing identity, as a number; on one's own DEALERs it
 * is the number named in the OUTPUT_CONNECT that opened it (actors: 0; the learner: the shard's).
 */
struct peer {
    uint32_t port; /* enum port */
    bool local;    /* the host says: it came over ipc */
    uint64_t id;
};

enum role {
    ROLE_ACTOR = 1,
    ROLE_EVALUATOR = 2,
    ROLE_SHARD = 3,
    ROLE_LEARNER = 4,
    ROLE_TOOL = 5,
};

enum phase {
    PHASE_STARTING = 1, /* shards or parameters are not there yet */
    PHASE_SEEDING = 2,  /* random actions, no updates */
    PHASE_BURST = 3,    /* the updates of the seeding phase; inserting is frozen */
    PHASE_RUNNING = 4,
    PHASE_FINISHING = 5, /* all steps are in: last updates, final evaluation, checkpoint */
};

enum refusal {
    REFUSED_PROTOCOL = 1, /* another protocol version */
    REFUSED_RUN = 2,      /* another run */
    REFUSED_SPEC = 3,     /* other observations or actions */
    REFUSED_FENCED = 4,   /* a newer process or learner took this place */
    REFUSED_FULL = 5,     /* no place left: too many actors, or lock-step has its one */
    REFUSED_ROWS = 6,     /* rows that cannot be stored (not finite, misshaped) */
    REFUSED_CONFIG = 7,   /* a shard number twice, an evaluator nobody asked for, ... */
    REFUSED_LAST = REFUSED_CONFIG,
};

/* What an actor waits for; heartbeats carry it, waiting_name() words it. */
enum waiting {
    WAITING_NOTHING = 0,
    WAITING_LEARNER,    /* the control address does not answer */
    WAITING_SHARD,      /* the shard does not answer */
    WAITING_LIMIT,      /* the limiter: the learner is behind */
    WAITING_BURST,      /* pretraining */
    WAITING_PARAMETERS, /* none yet, or a pull is under way */
    WAITING_ACKS,       /* the outbox is full */
    WAITING_TURN,       /* lock-step: the learner's Turn */
    WAITING_WORK,       /* an evaluator without an order */
    WAITING_ENVIRONMENT, /* it was lost, and is started again after a while */
    WAITING_TASK,       /* the learner's word which task comes next */
    WAITING_LAST = WAITING_TASK,
};

struct bulk {
    const void *data; /* borrowed; valid until the machine that made or got the message is called again */
    size_t size;
};

struct message_spec {
    uint32_t obs_type; /* enum obs_type of store/row.h; 0: no spec */
    uint32_t obs_dim;
    uint32_t action_dim;
    uint32_t episode_length; /* agent steps; 0: not limited */
    bool saves_state;        /* state can be read and set: resuming in lock-step is exact */
    uint32_t tasks;          /* of a multi-task run, whose widest sizes are above; 0: single-task */
};

/* A shard's counts of one task. */
struct task_count {
    uint64_t rows;     /* in the window, reset rows included */
    uint64_t episodes; /* samplable */
};

/* Slices of one task to be drawn. */
struct task_share {
    uint32_t slices;
};

/* One task's means over an evaluation's episodes. */
struct task_score {
    double reward, length;
    bool has_success;
    double success;
};

/* A parameter snapshot. */
struct announcement {
    uint32_t epoch;   /* the learner's; 0: nothing announced */
    uint64_t version; /* updates done */
    uint64_t size;    /* bytes */
    uint64_t hash;    /* XXH3-64 of them */
};

/* --- control --------------------------------------------------------------- */

/* To the learner, repeated until answered: an actor without and then with its spec, a shard, ... */
struct hello {
    uint32_t role;
    uint64_t process;
    bool has_slot;
    uint32_t slot;
    uint32_t environments;
    struct message_spec spec; /* obs_type 0: tell me the options first */
    uint64_t seating; /* as the last Welcome said; 0: none yet */
    bool granted;     /* the slot was granted, not asked for: if somebody has it, another will do */
    uint32_t shard;
    uint64_t store;
    uint32_t learner_epoch; /* a shard: the highest it remembers */
    char ingest_ipc[WIRE_ADDRESS_MAX];
    char ingest_tcp[WIRE_ADDRESS_MAX]; /* empty: only ipc */
    char sample[WIRE_ADDRESS_MAX];
};

/* bulk 0: the run's options as YAML; bulk 1: the environment's state to set (lock-step). */
struct welcome {
    uint32_t learner_epoch;
    uint64_t learner_process;
    uint32_t role;
    bool has_slot; /* false: only options; say Hello again with the spec */
    uint32_t slot;
    uint32_t shard;
    char ingest[WIRE_ADDRESS_MAX];
    char params[WIRE_ADDRESS_MAX];
    char announce[WIRE_ADDRESS_MAX];
    struct announcement newest;
    uint32_t phase;
    bool lockstep;
    uint64_t generation;
    bool restore; /* lock-step: drop outbox, episode, evaluation; set the state, wait for a Turn */
    uint64_t step;
    uint64_t updates;
    uint64_t target;
    uint64_t episode;
    uint64_t seating; /* rising: learner epoch << 32 | count; shown in every Hello and IngestHello */
};

struct refused {
    uint32_t code; /* enum refusal */
    char text[WIRE_TEXT_MAX];
    uint32_t epoch; /* REFUSED_FENCED: the learner epoch that did it */
    uint32_t slot;  /* REFUSED_ROWS: which stream and row */
    uint32_t environment;
    uint64_t stream_epoch;
    uint64_t sequence;
};

struct heartbeat {
    uint32_t learner_epoch;
    uint64_t process;
    struct announcement newest;
    uint32_t phase;
    uint64_t updates;
    uint64_t target; /* updates the burst ends at */
    uint64_t steps;
    uint32_t role;
    uint32_t slot;
    uint32_t waiting; /* enum waiting */
    uint32_t version_epoch;
    uint64_t version; /* the parameters the sender acts with */
    uint32_t computing;
    char text[WIRE_TEXT_MAX];
};

/* The learner does not know you: say Hello. */
struct say_hello {
    uint32_t learner_epoch;
};

/* Resent until acknowledged. bulk 0: the environment's state (lock-step). */
struct episode_end {
    uint32_t slot;
    uint32_t environment;
    uint64_t stream_epoch;
    uint64_t episode; /* of this stream epoch; lock-step: of the run */
    uint64_t length;  /* agent steps */
    double reward;    /* their sum */
    bool has_success;
    double success;
    bool terminated;
    bool start;    /* lock-step: nothing has run yet, this only reports the state */
    uint64_t step; /* lock-step: the step that ended it */
    uint64_t generation;
    uint32_t version_epoch;
    uint64_t version;
    uint32_t task;
};

struct episode_ack {
    uint32_t slot;
    uint32_t environment;
    uint64_t stream_epoch;
    uint64_t episode;
    uint64_t generation;
};

/* Evaluate these parameters (or newer ones, if they are gone and it is not in place). */
struct evaluate {
    uint32_t learner_epoch;
    uint64_t id;
    uint64_t step; /* agent steps that the result is logged at */
    struct announcement parameters;
    uint32_t episodes;
    bool final;
    bool in_place; /* lock-step: on the training environment */
    uint64_t generation;
};

/*
 * Resent until acknowledged. bulk 0: the environment's state (in place). Means over the episodes; in a multi-task
 * run `episodes` are of each task, and the means those over the tasks.
 */
struct evaluated {
    uint32_t learner_epoch;
    uint64_t id;
    uint64_t step;
    uint32_t version_epoch;
    uint64_t version;
    uint32_t episodes;
    double reward;
    double length;
    bool has_success;
    double success;
    uint64_t generation;
    uint32_t score_count;
    struct task_score scores[ROW_TASKS_MAX];
};

struct evaluated_ack {
    uint64_t id;
    uint64_t generation;
};

/* Lock-step: take this one step, with these parameters. Answered by Turned or EpisodeEnd. */
struct turn {
    uint32_t learner_epoch;
    uint64_t generation;
    uint64_t step;
    struct announcement parameters; /* to plan with, and no others */
    bool random;
    bool reset;       /* Go: reset the environment first, a new episode begins */
    uint64_t episode; /* of the run */
    uint32_t task;    /* of that episode */
};

/*
 * Multi-task: which task shall this environment's episode `number` be of? Asked when the one before begins, repeated
 * until answered by Assign; the same question has the same answer.
 */
struct next_task {
    uint32_t slot;
    uint32_t environment;
    uint64_t process;
    uint64_t number; /* of the episode, in this process's life */
    bool playing;    /* the one before is under way, */
    uint32_t task;   /* of this task */
};

struct assign {
    uint32_t learner_epoch;
    uint32_t slot;
    uint32_t environment;
    uint64_t number;
    uint32_t task;
};

struct turned {
    uint32_t slot;
    uint64_t generation;
    uint64_t step;
};

/* An actor's last word, to learner and shard; they send it back, having heard it. */
struct leave {
    uint32_t role;
    uint32_t slot;
    uint64_t process;
    char text[WIRE_TEXT_MAX];
};

/* The learner goes; another may come. */
struct leaving {
    uint32_t learner_epoch;
};

/* The run is over. From a tool (learner_epoch 0): please stop it. */
struct stop {
    uint32_t learner_epoch;
    uint32_t code;
    char text[WIRE_TEXT_MAX];
};

/* --- ingest ---------------------------------------------------------------- */

struct stream_shown {
    uint32_t environment;
    uint64_t store; /* 0: this stream has no epoch yet */
    uint64_t epoch;
    bool renew; /* a new epoch, please */
};

struct ingest_hello {
    uint32_t slot;
    uint64_t process;
    struct message_spec spec;
    uint32_t count;
    struct stream_shown streams[WIRE_STREAMS_MAX];
    uint64_t seating; /* as in struct welcome; 0: not known */
};

struct stream_granted {
    uint32_t environment;
    uint64_t epoch; /* from 1 */
    uint64_t next;  /* sequence expected next: all before it are synced */
    uint64_t limit; /* as in struct ack */
};

struct ingest_welcome {
    uint32_t slot;
    uint64_t process;
    uint64_t store;
    uint32_t count;
    struct stream_granted streams[WIRE_STREAMS_MAX];
};

/* bulk 0: count rows of stride bytes (store/row.h). */
struct rows {
    uint32_t slot;
    uint32_t environment;
    uint64_t process;
    uint64_t store;
    uint64_t epoch;
    uint64_t first; /* sequence of the first row */
    uint32_t count;
    uint32_t stride;
};

/* Rows before `next` are synced; the stream epoch may hold `limit` agent steps (reset rows apart). */
struct ack {
    uint32_t slot;
    uint32_t environment;
    uint64_t store;
    uint64_t epoch;
    uint64_t next;
    uint64_t limit; /* LIMIT_NONE: no limit */
};

struct nack {
    uint32_t slot;
    uint32_t environment;
    uint64_t store;
    uint64_t epoch;
    uint64_t next; /* resend from here */
};

struct rejoin {
    uint32_t slot;
    uint32_t environment;
    uint64_t store;
};

struct fenced {
    uint32_t slot;
    uint32_t environment;
    uint64_t holder; /* the process that has the slot now */
};

/* --- sample ---------------------------------------------------------------- */

/* A shard's durable counts and its momentary state. */
struct status {
    uint64_t store;
    uint32_t learner_epoch; /* highest seen */
    uint64_t rows;          /* taken in and synced, in all; a Rewind takes them back */
    uint64_t steps;         /* of them, agent steps (reset rows apart) */
    uint64_t episodes;      /* samplable now: published, in the window, H+1 rows or more */
    uint64_t episode_steps; /* agent steps in those */
    uint64_t sealed;        /* episodes ever sealed: the id of the next */
    uint32_t streams;       /* live: heard of within 10 s */
    bool has_slot;
    uint32_t slot; /* highest known */
    bool asks_checkpoint;
    bool full; /* no room left: inserting is paused */
    uint64_t bytes;
    uint64_t aborted; /* episodes cut short by their actor's end */
    uint64_t refused; /* rows refused in this process's life */
    /* damage in this process's life */
    bool rescued;           /* its file was damaged: what was whole of it is served from a new one */
    uint64_t lost_rows;     /* acknowledged ones, to that */
    uint64_t lost_episodes; /* of which nothing is known */
    uint64_t bad_segments;  /* set aside */
    bool lost_uncertain;    /* the damaged file did not tell how much it held at last: perhaps more */
    uint32_t task_count; /* of the run; 0: single-task */
    struct task_count tasks[ROW_TASKS_MAX];
};

/* The learner's first word to a shard, repeated until answered. Opens or creates the store. */
struct sample_hello {
    uint32_t learner_epoch;
    uint64_t process;
    struct message_spec spec;
    uint32_t shard;
    uint32_t shards;
    uint32_t horizon;
    uint32_t batch_size;
    uint64_t seed;
    bool lockstep;
    uint64_t capacity; /* rows its window may hold: min(buffer_size, steps) / shards */
    uint64_t map_rows; /* rows a new store's map is sized for */
    uint64_t used_rows; /* and so many of them are expected to come */
    uint64_t row_bytes; /* of one in the mean, stored without its task's padding; 0: none has any */
    uint64_t heartbeat_ms;
    uint64_t timeout_ms; /* silence that closes a stream */
    bool balanced;       /* draw tasks uniformly, then episodes; else episodes */
};

/* An epoch above the learner's own tells it to raise its own; a lower one was taken over. */
struct sample_welcome {
    uint32_t learner_epoch; /* highest the shard remembers, this Hello's included */
    struct status status;
};

struct sample_request {
    uint32_t learner_epoch;
    uint64_t id;     /* a repeated request keeps it */
    uint64_t update; /* with seed and shard: the key of the draw */
    uint32_t count;  /* slices; 0: only answer when `after` is reached */
    uint64_t after;  /* answer when status.rows is at least this */
    bool has_window; /* lock-step: draw from episodes below `last`, all sealed ones of them count */
    uint64_t last;
    bool has_retain; /* else the window's first */
    uint64_t retain;
    uint64_t credit; /* as in struct credit */
    uint32_t share_count; /* 0: the shard draws tasks itself */
    struct task_share shares[ROW_TASKS_MAX]; /* slices of each task, `count` in all */
};

/* bulk 0: obs, action, reward, terminated, task of `count` slices, time-major (learner/update.h). */
struct slices {
    uint32_t learner_epoch;
    uint64_t id;
    uint64_t update;
    uint32_t count; /* 0 to a request for more: nothing samplable */
    uint64_t first; /* the window: first..last-1, the newest episodes of at most capacity rows */
    uint64_t last;
    uint64_t rows;     /* in the window */
    uint64_t episodes; /* samplable in the window */
    struct status status;
};

/* Agent steps this shard may hold in all. Also the learner's heartbeat to a shard. */
struct credit {
    uint32_t learner_epoch;
    uint64_t steps; /* LIMIT_NONE: no limit */
};

/*
 * Lock-step: go back to the state with so many rows and sealed episodes. The shard keeps the highest
 * generation it has carried out in the same transaction; a lower or equal one changes nothing.
 */
struct rewind_order {
    uint32_t learner_epoch;
    uint64_t generation;
    uint64_t rows;
    uint64_t sealed;
};

struct rewound {
    uint32_t learner_epoch;
    uint64_t generation;
    bool done; /* false: it cannot, text says why */
    char text[WIRE_TEXT_MAX];
    struct status status;
};

/* --- params ---------------------------------------------------------------- */

/* One chunk, please; a puller keeps a few of these open. Answered by Chunk or Gone. */
struct pull {
    uint32_t epoch;
    uint64_t version;
    uint64_t offset; /* a multiple of WIRE_CHUNK_BYTES */
};

/* bulk 0: the bytes from offset, WIRE_CHUNK_BYTES or the rest. */
struct chunk {
    uint32_t epoch;
    uint64_t version;
    uint64_t offset;
};

/* What was asked for is no longer held. */
struct gone {
    struct announcement newest;
    uint32_t epoch;
    uint64_t version;
};

/* --- all of them ----------------------------------------------------------- */

enum message_kind {
    MESSAGE_HELLO = 10,
    MESSAGE_WELCOME = 11,
    MESSAGE_REFUSED = 12,
    MESSAGE_HEARTBEAT = 13,
    MESSAGE_SAY_HELLO = 14,
    MESSAGE_EPISODE_END = 15,
    MESSAGE_EPISODE_ACK = 16,
    MESSAGE_EVALUATE = 17,
    MESSAGE_EVALUATED = 18,
    MESSAGE_EVALUATED_ACK = 19,
    MESSAGE_TURN = 20,
    MESSAGE_TURNED = 21,
    MESSAGE_LEAVE = 23,
    MESSAGE_LEAVING = 24,
    MESSAGE_STOP = 25,
    MESSAGE_NEXT_TASK = 26,
    MESSAGE_ASSIGN = 27,
    MESSAGE_INGEST_HELLO = 40,
    MESSAGE_INGEST_WELCOME = 41,
    MESSAGE_ROWS = 42,
    MESSAGE_ACK = 43,
    MESSAGE_NACK = 44,
    MESSAGE_REJOIN = 45,
    MESSAGE_FENCED = 46,
    MESSAGE_SAMPLE_HELLO = 60,
    MESSAGE_SAMPLE_WELCOME = 61,
    MESSAGE_SAMPLE_REQUEST = 62,
    MESSAGE_SLICES = 63,
    MESSAGE_CREDIT = 64,
    MESSAGE_STATUS = 65,
    MESSAGE_REWIND = 66,
    MESSAGE_REWOUND = 67,
    MESSAGE_ANNOUNCE = 80,
    MESSAGE_PULL = 81,
    MESSAGE_CHUNK = 82,
    MESSAGE_GONE = 83,
};

struct message {
    uint32_t kind; /* enum message_kind */
    uint64_t run;  /* 0: not known yet (a first Hello) */
    uint32_t bulks;
    struct bulk bulk[WIRE_BULK_MAX];
    union {
        struct hello hello;
        struct welcome welcome;
        struct refused refused;
        struct heartbeat heartbeat;
        struct say_hello say_hello;
        struct episode_end episode_end;
        struct episode_ack episode_ack;
        struct evaluate evaluate;
        struct evaluated evaluated;
        struct evaluated_ack evaluated_ack;
        struct turn turn;
        struct turned turned;
        struct next_task next_task;
        struct assign assign;
        struct leave leave;
        struct leaving leaving;
        struct stop stop;
        struct ingest_hello ingest_hello;
        struct ingest_welcome ingest_welcome;
        struct rows rows;
        struct ack ack;
        struct nack nack;
        struct rejoin rejoin;
        struct fenced fenced;
        struct sample_hello sample_hello;
        struct sample_welcome sample_welcome;
        struct sample_request sample_request;
        struct slices slices;
        struct credit credit;
        struct status status;
        struct rewind_order rewind;
        struct rewound rewound;
        struct announcement announce;
        struct pull pull;
        struct chunk chunk;
        struct gone gone;
    };
};

/* "Hello", "SampleRequest", ...; "unknown" for anything else. */
const char *message_name(uint32_t kind);

/* "nothing", "the learner", "the limiter", ... */
const char *waiting_name(uint32_t waiting);

/* "starting", "seeding", "pretraining", "running", "finishing". */
const char *phase_name(uint32_t phase);

/* What a shard lost to damage, as a sentence; "" when it met none. */
const char *status_damage(const struct status *status, char *out, size_t size);

/* (learner epoch, version), epoch first: negative, 0, positive as a is older, same, newer. */
int announcement_compare(const struct announcement *a, const struct announcement *b);

/* What a spec says of rows. Bulk 0 of Slices has row_slices_bytes of it. */
static inline struct row_schema spec_schema(const struct message_spec *spec)
{
    return (struct row_schema){spec->obs_type, spec->obs_dim, spec->action_dim};
}

#endif
