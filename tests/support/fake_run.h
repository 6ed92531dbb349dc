/*
 * fake_run.h - a scripted learner and shard for tests of the actor's process, and that process.
 *
 * Both speak through the real sockets and codec from this process's loop. They answer as the fields
 * say, and note what came; a test sets fields, then waits with fake_wait until something holds.
 */
#ifndef TD_TEST_FAKE_RUN_H
#define TD_TEST_FAKE_RUN_H

#include <stdbool.h>

#include "common/net/post.h"
#include "common/net/process.h"
#include "common/store/row.h"

#define FAKE_ROWS_MAX 400000
#define FAKE_KINDS    128
#define FAKE_WAIT_MS  30000

struct fake_run {
    loop_t *loop;
    loop_timer_t *beat;
    /* the learner */
    post_t *learner;
    uint64_t run, learner_process;
    uint32_t learner_epoch;
    bool silent;               /* hears, but says nothing */
    char options[2048];        /* YAML */
    uint32_t phase, slot;
    struct announcement newest;
    const char *snapshot;      /* its bytes */
    bool lockstep;
    uint64_t generation, step;
    struct bulk state;         /* to restore */
    char control[ADDRESS_MAX];
    /* the shard */
    post_t *shard;
    char ingest[ADDRESS_MAX];
    int shards_opened;
    uint64_t store, stream_epoch, limit;
    bool mute;                 /* takes rows, acknowledges none */
    uint32_t stride;
    struct row_schema schema;
    char *rows;
    uint64_t stored;           /* synced rows of this stream epoch */
    uint64_t repeated;         /* rows that came again */
    uint64_t gaps;             /* chunks that began beyond the next row */
    /* what came */
    int heard[FAKE_KINDS];     /* messages by kind */
    int left;                  /* Leave came: 1 to the learner, 2 to the shard */
    int deaf;                  /* so many Leaves are not answered */
    struct hello hello;
    struct heartbeat heartbeat;
    struct episode_end end;
    struct evaluated evaluated;
    struct turned turned;
    struct peer peer;          /* of the last control message */
    char captured[8192];       /* the state behind the last EpisodeEnd or Evaluated */
    size_t captured_size;
    /* the actor's process */
    process_t *process;
    char log[512];
    bool exited;
    int code, signal;
};

/* A run in its seeding phase with the toy task, heartbeats of 0.2 s and a tiny model. */
void fake_open(struct fake_run *run);
void fake_close(struct fake_run *run);

/* Add an option, later ones in front: "task: toy". */
void fake_option(struct fake_run *run, const char *line);

/* Start the actor with these words (NULL-terminated), beside learner= and run_id=. */
void fake_start(struct fake_run *run, const char *const *words);

/* A new life of the shard, at a new address, which the learner tells; its rows stay. */
void fake_restart_shard(struct fake_run *run);

/* Say to the actor, as the learner. */
void fake_say(struct fake_run *run, const struct message *message);

/* Announce this snapshot as version `version`; borrowed. */
void fake_publish(struct fake_run *run, const void *bytes, size_t size, uint64_t version);

/* Let things happen for so long. */
void fake_pass(struct fake_run *run, uint64_t ms);

/* Row `index`, checked as a shard does. */
void *fake_row(struct fake_run *run, uint64_t index);

/* Does the actor's log hold this text? */
bool fake_logged(const struct fake_run *run, const char *text);
void fake_print_log(const struct fake_run *run);

/* Let things happen until the condition holds; fails the test after FAKE_WAIT_MS. */
#define fake_wait(run, condition)                                                                  \
    do {                                                                                           \
        uint64_t until_ = clock_ms() + FAKE_WAIT_MS;                                               \
        while (!(condition)) {                                                                     \
            if (clock_ms() > until_) {                                                             \
                fake_print_log(run);                                                               \
                fail_msg("never came: %s", #condition);                                            \
            }                                                                                      \
            loop_run_for((run)->loop, 5);                                                          \
        }                                                                                          \
    } while (0)

#endif
