/*
 * watch.h - the user's code in this process: who is in it, since when, and a last word when it takes the process along.
 *
 * An environment in C (plugin.h) cannot be interrupted. So its calls are stamped; the actor's loop asks whether one
 * has lasted too long and leaves, and a crash or an exit() inside one says where it happened.
 *
 * Thread:  a call belongs to the thread that is in it; watch_overdue may be asked on any.
 */
#ifndef TD_ENV_WATCH_H
#define TD_ENV_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/error.h"

#define WATCH_TEXT 400 /* bytes that a sentence takes at most */

struct watch_call {
    const char *task;          /* borrowed while it is on the list */
    const char *_Atomic phase; /* "create", "reset", "step" ...; borrowed */
    _Atomic uint64_t since_ms; /* 0: nobody is in it */
    struct watch_call *next;
};

/* Put it on the list, take it off. */
void watch_add(struct watch_call *call, const char *task);
void watch_remove(struct watch_call *call);

/* Around each call of the user's code. */
void watch_enter(struct watch_call *call, const char *phase);
void watch_leave(struct watch_call *call);

/* Is a call longer under way? Then text says which, and how long that is. */
bool watch_overdue(uint64_t timeout_ms, char *text, size_t size);

/*
 * For what has no loop: until the end of it SIGINT, SIGTERM, or a call longer under way than timeout_ms, ends this
 * process with a sentence, "NAME: ..." on stderr, wherever its threads are. The exit code is `asked` after a signal,
 * else TD_EXIT_GAVE_UP. One at a time; name is borrowed. watch_guard_end brings the signals' handlers before it back.
 */
int watch_guard_begin(const char *name, uint64_t timeout_ms, int asked, struct error *err);
void watch_guard_end(void);

/*
 * From now on a deadly signal, or an exit, within the user's code is told on stderr, as a line of the log; an exit
 * becomes one with TD_EXIT_GAVE_UP: nobody has asked for it. For programs; signals that something else handles are
 * left to it.
 */
void watch_deaths(void);

#endif
