/*
 * actor.h - an actor or evaluator as a process: sockets and clock around the session, a worker behind it.
 *
 * Owns:    the loop, sockets, session, worker, metrics and stats socket.
 * Thread:  the main thread's; the worker has its own.
 */
#ifndef TD_ACTOR_ACTOR_H
#define TD_ACTOR_ACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/config.h"

typedef struct actor actor_t;

struct actor_options {
    struct config config; /* as given on the command line */
    const bool *given;    /* one per option, as config_parse left it; borrowed */
    uint64_t run;         /* the run id that is expected, 0: any */
    uint64_t process;     /* random, of this start */
};

/*
 * Check the options and set everything up; nothing is sent yet. Returns TD_OK, TD_EINVAL (options,
 * addresses), TD_ENOTFOUND (no run to join in work_dir), TD_ESETUP, TD_ENOMEM, TD_EIO.
 */
int actor_create(actor_t **out, const struct actor_options *options, struct error *err);

/* Join, act until the run or this part ends; returns the exit code (PROTOCOL, section 7). */
int actor_run(actor_t *actor);

/*
 * Close everything. False when the worker is still in a long step: nothing was freed, and the process
 * must end by _exit.
 */
bool actor_destroy(actor_t **actor);

#endif
