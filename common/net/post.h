/*
 * post.h - a daemon's sockets as its state machine sees them: messages to and from peers.
 *
 * Joins channels (how bytes move) and the codec (what they mean): a message that arrives is decoded,
 * checked and handed over with the peer it came from; OUTPUT_SEND, OUTPUT_CONNECT and
 * OUTPUT_DISCONNECT of common/wire/machine.h are carried out by post_send, post_connect and
 * post_disconnect.
 *
 * Owns:    the channels and the codec.
 * Borrows: the metrics.
 * Thread:  the loop's.
 *
 * A message that cannot go now (no such peer, queue full) is dropped and counted, as if the line had
 * broken: the protocol repeats what matters. One that does not decode, or that the speaker's key does not
 * allow (admission.h), is dropped, counted and logged, and a peer of another protocol version is told.
 */
#ifndef TD_NET_POST_H
#define TD_NET_POST_H

#include "common/metrics/metrics.h"
#include "common/net/channel.h"
#include "common/net/loop.h"
#include "common/wire/message.h"

typedef struct post post_t;

struct post_options {
    uint64_t process;   /* this process's random id: what ROUTERs know it by */
    uint64_t run;       /* named when a peer of another version is refused; 0: not known yet */
    bool insecure;
    bool silent;        /* who asks post_trouble tells why hands are not shaken; else it is logged */
    guard_t *guard;     /* keys for everything over tcp; borrowed, or NULL */
    bool lockstep;      /* with a guard: an actor may report evaluations */
    metrics_t *metrics; /* or NULL */
    /* message and its bulk are borrowed until the call returns; it may send, connect, disconnect */
    void (*on_message)(void *context, const struct peer *peer, const struct message *message);
    void *context;
};

int post_open(post_t **out, loop_t *loop, const struct post_options *options, struct error *err);

/* Close; what is queued gets up to linger_ms to leave (see channel_shutdown). Not inside on_message. */
void post_close(post_t **post, int linger_ms);

/*
 * Listen for a port: ROUTER, or PUB for PORT_ANNOUNCE. A port has room for one ipc and one tcp
 * address. Returns what channel_bind does.
 */
int post_bind(post_t *post, enum port port, const char *address, struct error *err);

/* The address this port is bound to, over ipc (local) or tcp; "" when it is not. */
const char *post_address(const post_t *post, enum port port, bool ipc);

/*
 * Open the DEALER (SUB for PORT_ANNOUNCE) that peer->port and peer->id name, to address; an open one
 * is closed with all that is queued in it. With a guard and over tcp only the learner's key may answer
 * there; at a sample port that of shard peer->id, at an ingest port that of post_expect_shard's. Returns
 * what channel_connect does.
 */
int post_connect(post_t *post, const struct peer *peer, const char *address, struct error *err);

/* Whose key must answer at ingest ports from now on: 0, until this is called. */
void post_expect_shard(post_t *post, uint32_t shard);
void post_disconnect(post_t *post, const struct peer *peer);

/* Is there one, and to where? NULL: no. */
const char *post_connected(const post_t *post, const struct peer *peer);

/*
 * Send to a peer: to the DEALER of that port and id if there is one, else over the bound port. A DEALER that
 * was sent to and has heard nothing for 10 s gets a new connection first, and loses what waits in the old one.
 */
void post_send(post_t *post, const struct peer *peer, const struct message *message);

/* Why one of the connections over tcp does not come about (handshake.h); NULL: no reason is known. Ask every 500 ms. */
const char *post_trouble(post_t *post);

/* Inside on_message: keep the memory of bulk frame `bulk` beyond it. NULL when out of memory. */
channel_blob_t *post_take(post_t *post, int bulk);

/* Messages that could not go: peer away, queue full. */
uint64_t post_unsent(const post_t *post);

#endif
