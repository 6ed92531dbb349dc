/*
 * child.h - a part that the learner starts, follows and starts again: its shard, its evaluator.
 *
 * Owns:    the process, its restart timer, copies of name, words and log path.
 * Thread:  the loop's, which is the main thread.
 */
#ifndef TD_LEARNER_CHILD_H
#define TD_LEARNER_CHILD_H

#include "common/metrics/metrics.h"
#include "common/net/loop.h"
#include "common/net/process.h"

#define CHILD_WORDS_MAX 24

typedef struct child child_t;

struct child_options {
    const char *name;    /* "replay": in logs, borrowed, a literal */
    const char *program; /* borrowed, a literal */
    const char *words[CHILD_WORDS_MAX]; /* key=value, NULL-terminated; copied */
    const char *log_path;               /* copied */
    metrics_t *metrics;                 /* restarts are counted; or NULL */
    /*
     * It has ended and will not be started again: as asked by child_stop, by exit code 2 or 4, or by
     * dying RESTART_LIMIT times while young (code 1). Nobody else may stop it: any other end, exit code
     * 0 too, is followed by a new start. why is a sentence.
     */
    void (*on_end)(void *context, child_t *child, int code, const char *why);
    void (*on_death)(void *context, child_t *child); /* it died and is started again after a pause; or NULL */
    void *context;
};

/* Start it. Returns TD_OK or what process_spawn says. */
int child_start(child_t **out, loop_t *loop, const struct child_options *options, struct error *err);

/* SIGTERM now and SIGKILL after patience_ms; on_end follows, at once when it does not run. */
void child_stop(child_t *child, uint64_t patience_ms);

/* It was told to end by another way: exit code 0 is an end, not a death, from now on. */
void child_may_end(child_t *child);

bool child_ended(const child_t *child);

/* Let go; a running process is killed. */
void child_close(child_t **child);

#endif
