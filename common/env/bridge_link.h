/*
 * bridge_link.h - one Python process that holds one environment: start it, ask it, end it.
 *
 * Messages are those of proto/bridge.proto over a Unix socket pair that the child inherits, so nothing
 * lies in the file system, nobody else can connect, no Python package is needed on the other side, and
 * the death of either end is seen at once. A frame is
 *
 *     u32 header bytes | u32 bulk bytes | header: BridgeRequest or BridgeReply | bulk
 *
 * little-endian, in both directions; observations, actions and states are the bulk. One request is under
 * way at a time and every one has a deadline. What the child prints, on stdout or stderr, comes through a
 * pipe, becomes lines of this process's log and, when it dies, its last words in the error.
 *
 * Owns:    the child (a session of its own), the socket, the pipe.
 * Thread:  belongs to one thread at a time. The kernel ends the child with the thread that opened it.
 */
#ifndef TD_ENV_BRIDGE_LINK_H
#define TD_ENV_BRIDGE_LINK_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/util/error.h"

#define BRIDGE_VERSION    1
#define BRIDGE_HEADER_MAX (64u << 10)
#define BRIDGE_BULK_MAX   (64u << 20)
#define BRIDGE_TEXT_MAX   512

enum bridge_kind {
    BRIDGE_OPEN = 1,  /* task, seed, [width, height: of pictures in the place of observations] -> spec */
    BRIDGE_RESET,     /* [seed] -> obs, or picture [height][width][3] */
    BRIDGE_STEP,      /* bulk: action -> obs or picture, reward, flags */
    BRIDGE_STATE_GET, /* -> state */
    BRIDGE_STATE_SET, /* bulk: state */
    BRIDGE_RENDER,    /* width, height -> rgb [height][width][3] */
    BRIDGE_CLOSE,     /* no reply */
    BRIDGE_FAILED,    /* a reply: what went wrong */
};

enum bridge_flag {
    BRIDGE_TERMINATED = 1,
    BRIDGE_TRUNCATED = 2,
    BRIDGE_HAS_SUCCESS = 4,
    BRIDGE_SUCCESS = 8,
};

enum bridge_failure {
    BRIDGE_LOST = 1,    /* the environment raised */
    BRIDGE_SETUP = 2,   /* a package is missing */
    BRIDGE_REFUSED = 3, /* it cannot be used: its spaces, its task */
};

struct bridge_request {
    uint32_t kind;
    const char *task;
    bool has_seed;
    uint32_t seed, width, height;
    const void *bulk;
    size_t bulk_size;
};

struct bridge_reply {
    double reward;
    uint32_t flags;
    uint64_t env_ns; /* spent in the environment itself */
    uint32_t obs_dim, action_dim, episode_length, action_repeat, state_size;
    char name[BRIDGE_TEXT_MAX];
    const void *bulk; /* valid until the next request */
    size_t bulk_size;
};

typedef struct bridge_link bridge_link_t;

/*
 * Start `python run.py`. Returns TD_OK, TD_ENOMEM, TD_ESETUP (no such interpreter, no run.py) or TD_EIO.
 * Whether it works is seen by the first request.
 */
int bridge_link_open(bridge_link_t **out, const char *python, const char *run, struct error *err);

/* The end of a socket pair whose other end answers already, without a process: for tests. TD_OK or TD_ENOMEM. */
int bridge_link_adopt(bridge_link_t **out, int socket);

/*
 * One request and its reply. Never allocates once replies have had their largest size. Returns
 *   TD_OK
 *   TD_ESETUP   the process says what must be installed
 *   TD_EINVAL   the process refuses the environment
 *   TD_ELOST    anything else: it died, raised, was silent for timeout_ms, sent what is no reply
 * and unless it is TD_OK the child has been killed: only bridge_link_close may follow.
 */
int bridge_link_call(bridge_link_t *link, const struct bridge_request *request, struct bridge_reply *reply,
                     uint64_t timeout_ms, struct error *err);

/*
 * The same without waiting: the request is sent as far as the socket takes it, its bulk borrowed until the
 * reply. Returns TD_OK or TD_ELOST.
 */
int bridge_link_begin(bridge_link_t *link, const struct bridge_request *request, uint64_t timeout_ms,
                      struct error *err);

/* The reply, if it is there: TD_EAGAIN while it is not, else as bridge_link_call. */
int bridge_link_finish(bridge_link_t *link, struct bridge_reply *reply, struct error *err);

/* What to wait for meanwhile, and until when (clock_ms). */
#define BRIDGE_POLL 2
int bridge_link_poll(const bridge_link_t *link, struct pollfd fds[BRIDGE_POLL]);
uint64_t bridge_link_due_ms(const bridge_link_t *link);

/* Wait so, once. */
void bridge_link_wait(const bridge_link_t *link);

/* It has exited without a byte of a reply to the last request, and without having printed anything ever. */
bool bridge_link_silent(const bridge_link_t *link);

pid_t bridge_link_pid(const bridge_link_t *link);

/*
 * Ask it to end, wait a moment, kill what is left of its session; at once when a reply is awaited. Accepts NULL.
 */
void bridge_link_close(bridge_link_t **link);

#endif
