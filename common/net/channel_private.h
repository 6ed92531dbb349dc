/*
 * channel_private.h - a channel inside: channel.c opens, closes and keeps its connections, channel_messages.c
 * receives and sends over them.
 */
#ifndef TD_NET_CHANNEL_PRIVATE_H
#define TD_NET_CHANNEL_PRIVATE_H

#include <sys/types.h>
#include <uv.h>
#include <zmq.h>

#include "common/net/channel.h"
#include "common/net/handshake.h"
#include "common/net/meter.h"
#include "common/util/log.h"

#define CHANNEL_RETRY_MS 2 /* a ROUTER cannot say which queue has room: ask again this often */
#define CHANNEL_IDENTITY 9 /* 'P' and the process id; ZeroMQ reserves a leading zero */

/* A ZeroMQ socket and the watch on its descriptor, which is freed in its close callback. */
struct channel_wire {
    void *socket;
    uv_poll_t *poll;
};

/* How a channel's connections are made: as they are, or with keys as the side that listens or connects. */
enum channel_security { SECURITY_NONE, SECURITY_SERVER, SECURITY_CLIENT };

struct channel {
    loop_t *loop;
    struct channel_options options;
    struct channel_wire wire;
    uv_async_t more;  /* there was more to read than the budget */
    uv_timer_t retry; /* runs while blocked */
    int handles;      /* of these two; the last one's close callback frees the channel */
    bool blocked;     /* a send was refused and on_writable is due */
    bool draining, closed;
    enum channel_security security;
    char key[KEY_TEXT_MAX];   /* of the server this one is connected to; of who speaks, in on_message */
    struct identity speaker;
    unsigned removals;        /* keys gone from the list when a PUB last began to listen */
    bool rebinding;           /* a PUB: its address is not free again yet */
    struct log_limit log_unheard;
    struct handshake handshake; /* of a channel that connects over tcp */
    meter_t *meter;           /* of a channel that listens on tcp, else NULL */
    char address[ADDRESS_MAX];
    dev_t device;     /* of the file that an ipc address made; ZeroMQ leaves it behind */
    ino_t inode;      /* 0: there is none */
    zmq_msg_t frames[CHANNEL_FRAMES]; /* of the message being handed over */
    int frame_count;
    struct channel_counters counters;
};

/* The routing id of a process. */
void channel_pack_identity(unsigned char out[CHANNEL_IDENTITY], uint64_t peer);

/* Hear what has come and tell who waits that there is room, a share of it before other callbacks have their turn. */
void channel_drain(channel_t *channel);
void channel_tell_writable(channel_t *channel);

/* The timer of a channel that is blocked, or that waits for its address. */
void channel_retry_due(uv_timer_t *uv);

/* Cut every connection of this listening channel and listen again. False: not yet, it is tried again. */
bool channel_listen_anew(channel_t *channel);

#endif
