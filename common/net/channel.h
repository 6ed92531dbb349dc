/*
 * channel.h - a ZeroMQ socket on the event loop: whole messages in, whole messages out.
 *
 * Owns:    the socket and what is queued in it.
 * Thread:  the loop's, except what is said of release callbacks and blobs.
 *
 * A message is 1 to CHANNEL_FRAMES frames, delivered whole or not at all. Nothing here ever blocks:
 * a full queue is TD_EAGAIN and a call of on_writable later. The queues are small on purpose; what
 * must not be lost is kept by the protocol until it is answered.
 *
 * A ROUTER's peers are known by the 64-bit identity their DEALER was opened with (the process id); a
 * peer that comes back, from a new connection too, is the same peer, and one that shows no such
 * identity is not heard. Contents are the business of common/wire; here a frame is bytes.
 *
 * With a guard every tcp connection is encrypted and authenticated (CURVE): a message is heard only if
 * its connection's key is on the list now and has business at a socket of this name, and, on a ROUTER,
 * holds the routing id it shows; nothing is sent to one whose key is not. ipc stays as it is.
 */
#ifndef TD_NET_CHANNEL_H
#define TD_NET_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/net/address.h"
#include "common/net/guard.h"
#include "common/net/loop.h"
#include "common/util/error.h"

#define CHANNEL_FRAMES 8         /* most frames of a message */
#define CHANNEL_ADDRESS_MAX ADDRESS_MAX
#define CHANNEL_INGEST_MAX (256u << 10)
#define CHANNEL_CHUNK_MAX  ((1u << 20) + (16u << 10)) /* a parameter chunk with its header */

typedef struct channel channel_t;
typedef struct channel_blob channel_blob_t;

enum channel_pattern {
    CHANNEL_ROUTER, /* binds; sends to a named peer */
    CHANNEL_DEALER, /* connects to one ROUTER */
    CHANNEL_PUB,    /* binds; sending never fails, slow readers lose */
    CHANNEL_SUB,    /* connects; hears everything */
    CHANNEL_REP,    /* binds; answers each message with exactly one send, inside on_message */
    CHANNEL_REQ,    /* connects; asks again without an answer (relaxed, correlated) */
};

/* A received frame: borrowed until on_message returns, at an address divisible by 8. */
struct channel_frame {
    const void *bytes;
    size_t length;
};

/*
 * A frame to send. Without `release` the bytes are copied before channel_send returns. With it they
 * are sent from where they lie: they must not change until release(bytes, context) is called, once,
 * on *any thread* and at the latest in channel_shutdown. On any return but TD_OK nothing was taken
 * and release is not called. The first frame, the header, is always copied.
 */
struct channel_part {
    const void *bytes;
    size_t length;
    void (*release)(void *bytes, void *context);
    void *context;
};

/* peer is 0 for patterns without peers. */
typedef void channel_message_fn(void *context, uint64_t peer, const struct channel_frame *frames,
                                int count);

struct channel_options {
    const char *name;             /* "control": for logs and errors; borrowed, a literal */
    enum channel_pattern pattern;
    uint64_t identity;            /* DEALER: this process's id, not 0 */
    size_t max_message;           /* bytes of a received frame; a peer sending more is cut off */
    int max_frames;               /* of a received message, 0: CHANNEL_FRAMES; longer ones are dropped */
    int queue;                    /* messages queued per peer and direction, 0: 64 */
    int queue_in;                 /* of those that come in, 0: as `queue` */
    bool insecure;                /* allow addresses beyond loopback and ipc */
    guard_t *guard;               /* keys for tcp, which also allow addresses beyond loopback; borrowed, or NULL */
    struct identity server;       /* with a guard: whose key must answer where this channel connects to */
    channel_message_fn *on_message;        /* may be NULL for PUB */
    void (*on_dropped)(void *context);     /* one more is counted as dropped; must not close the channel; or NULL */
    void (*on_writable)(void *context);    /* after TD_EAGAIN, when some queue has room again; or NULL */
    void *context;
};

struct channel_counters {
    uint64_t received, received_bytes;
    uint64_t sent, sent_bytes;
    uint64_t dropped;  /* received and thrown away: too many frames, no identity, no key that is allowed */
    uint64_t blocked;  /* sends answered by TD_EAGAIN */
    uint64_t unroutable; /* sends to a peer that is not connected */
};

/* Returns TD_OK, TD_ENOMEM or TD_EIO (out of sockets). */
int channel_open(channel_t **out, loop_t *loop, const struct channel_options *options,
                 struct error *err);

/* Close at once; what is queued is dropped. May be called inside a callback of this channel. */
void channel_close(channel_t **channel);

/*
 * Close, giving what is queued up to linger_ms to leave (in the background; channel_shutdown waits).
 */
void channel_close_linger(channel_t **channel, int linger_ms);

/*
 * Listen on address: tcp://HOST:PORT, a PORT of * picks a free one, or ipc:///PATH, whose file
 * goes when the channel is closed. Returns TD_OK; TD_ELOCKED when the port is in use; TD_EINVAL for a malformed address, one
 * beyond loopback without `insecure`, or one that is not this machine's. Where the folder of an ipc socket is full it
 * waits for room up to a minute, and says so.
 */
int channel_bind(channel_t *channel, const char *address, struct error *err);

/* Listen within this process: for the handler that handshakes ask (guard.h). TD_OK or TD_EIO. */
int channel_bind_inside(channel_t *channel, const char *address, struct error *err);

/* Could that address be listened on now? Tries it and lets go. Returns as channel_bind. */
int channel_probe(const char *address, bool insecure, struct error *err);

/* The address of the last bind, with the port that was picked. */
const char *channel_address(const channel_t *channel);

/*
 * Connect to address. The peer need not be there yet, and may go and come back at this address:
 * ZeroMQ connects again by itself. Returns TD_OK or TD_EINVAL as channel_bind.
 */
int channel_connect(channel_t *channel, const char *address, struct error *err);

/*
 * Forget every connection and all that is queued, and connect to address (a peer that moved, or one
 * that must not see old messages). May be called inside a callback of this channel.
 */
int channel_reconnect(channel_t *channel, const char *address, struct error *err);

/*
 * Send one message of count frames. TD_OK: queued; TD_EAGAIN: the peer's queue is full, nothing was
 * taken; TD_ENOTFOUND: that peer is not connected (ROUTER).
 */
int channel_send(channel_t *channel, uint64_t peer, const struct channel_part *parts, int count);

/*
 * Inside on_message: keep the memory of frame `index` beyond the callback; ask the blob for the bytes,
 * a short frame has moved. It may be used and released on any thread, at the latest before
 * channel_shutdown. Returns NULL when out of memory.
 */
channel_blob_t *channel_take(channel_t *channel, int index);
const void *channel_blob_bytes(const channel_blob_t *blob);
size_t channel_blob_length(const channel_blob_t *blob);
void channel_blob_release(channel_blob_t **blob);

/* Inside on_message: whose key the message came with. False: over ipc, or without keys. */
bool channel_speaker(const channel_t *channel, struct identity *who);

/*
 * Why the other side of a channel that connects over tcp does not shake hands (handshake.h); NULL: it does, or is not
 * there. To be asked every 500 ms.
 */
const char *channel_trouble(channel_t *channel);

struct channel_counters channel_counters(const channel_t *channel);

/*
 * Terminate the process's ZeroMQ context once all channels are closed: afterwards every release
 * callback has been called. Call it before main returns.
 */
void channel_shutdown(void);

#endif
