/*
 * bridge_link.h - one Python process that holds one environment: start it, ask it, end it.
 *
 * The messages of bridge_message.h go over an ipc:// connection (bridge_socket.h) whose other end the child inherits
 * as descriptor 3: no Python package is needed to speak on it, nobody else can. One request is under way at a time and
 * every one has a deadline; the end of the child is seen at once (a pidfd). What it prints, on stdout or stderr, comes
 * through a pipe, becomes lines of this process's log and, when it dies, its last words in the error.
 *
 * Owns:    the child (a session of its own), the socket, the pipe, the pidfd.
 * Thread:  belongs to one thread at a time. The kernel ends the child with the thread that opened it.
 */
#ifndef TD_ENV_BRIDGE_LINK_H
#define TD_ENV_BRIDGE_LINK_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/env/bridge_message.h"
#include "common/util/error.h"

typedef struct bridge_link bridge_link_t;

/*
 * Start `python run.py`. Returns TD_OK, TD_ENOMEM, TD_ESETUP (no such interpreter, no run.py) or TD_EIO.
 * Whether it works is seen by the first request.
 */
int bridge_link_open(bridge_link_t **out, const char *python, const char *run, struct error *err);

/*
 * One request and its reply. Returns
 *   TD_OK
 *   TD_ESETUP   the process says what must be installed
 *   TD_EINVAL   the process refuses the environment
 *   TD_ELOST    anything else: it died, raised, was silent for timeout_ms, sent what is no reply
 * and unless it is TD_OK the child has been killed: only bridge_link_close may follow.
 */
int bridge_link_call(bridge_link_t *link, const struct bridge_request *request, struct bridge_reply *reply,
                     uint64_t timeout_ms, struct error *err);

/*
 * The same without waiting: the request is sent once the child is there to take it, its bulk borrowed until the
 * reply. Returns TD_OK or TD_ELOST.
 */
int bridge_link_begin(bridge_link_t *link, const struct bridge_request *request, uint64_t timeout_ms,
                      struct error *err);

/* The reply, if it is there: TD_EAGAIN while it is not, else as bridge_link_call. */
int bridge_link_finish(bridge_link_t *link, struct bridge_reply *reply, struct error *err);

/* What to wait for meanwhile, and until when (clock_ms); both are new after every call. */
#define BRIDGE_POLL 3
int bridge_link_poll(const bridge_link_t *link, struct pollfd fds[BRIDGE_POLL]);
uint64_t bridge_link_due_ms(const bridge_link_t *link);

/* Wait so, once. */
void bridge_link_wait(const bridge_link_t *link);

/* It has exited without a reply to the last request, and without having printed anything ever. */
bool bridge_link_silent(const bridge_link_t *link);

pid_t bridge_link_pid(const bridge_link_t *link);

/*
 * Ask it to end, wait a moment, kill what is left of its session; at once when a reply is awaited. Accepts NULL.
 */
void bridge_link_close(bridge_link_t **link);

#endif
