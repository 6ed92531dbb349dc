/*
 * bridge_message.h - what is asked of an environment's process and what it answers: proto/bridge.proto.
 *
 * A message is one ZeroMQ message of one or two frames: a header, BridgeRequest or BridgeReply, and a bulk of raw
 * bytes if there is any: an action, an observation, a picture, a state. bridge/tdmpc2_bridge/wire.py is the other side.
 */
#ifndef TD_ENV_BRIDGE_MESSAGE_H
#define TD_ENV_BRIDGE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/error.h"

#define BRIDGE_VERSION     1
#define BRIDGE_REQUEST_MAX 1024        /* a packed request header: a task's name and numbers */
#define BRIDGE_HEADER_MAX  (64u << 10) /* of a reply */
#define BRIDGE_BULK_MAX    (64u << 20)
#define BRIDGE_TEXT_MAX    512

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

/* The request's header; returns its size. */
size_t bridge_request_pack(uint8_t out[BRIDGE_REQUEST_MAX], const struct bridge_request *request, uint64_t sequence);

/*
 * The reply to the request of this kind and sequence, from its header of any bytes; its bulk is left alone. Returns
 *   TD_OK
 *   TD_ECORRUPT                       it is none: err says what "the process" did
 *   TD_ESETUP, TD_EINVAL, TD_ELOST    it says that the request failed: enum bridge_failure
 */
int bridge_reply_unpack(struct bridge_reply *reply, uint32_t kind, uint64_t sequence, const void *header, size_t size,
                        struct error *err);

#endif
