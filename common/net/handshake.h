/*
 * handshake.h - what becomes of the handshakes of a socket that connects over tcp, and why one comes to nothing.
 *
 * ZeroMQ tries again for ever and says nothing: who waits at a learner that does not want his key would not learn
 * of it. The socket's monitor tells how far each try came; how long the other side kept it open tells the rest,
 * since a guard that does not let a key in leaves it waiting (guard.h), and one that cannot read the first
 * message breaks off at once.
 *
 * Owns:    the monitor's other end.
 * Borrows: the socket, ZeroMQ's context.
 * Thread:  the loop's.
 */
#ifndef TD_NET_HANDSHAKE_H
#define TD_NET_HANDSHAKE_H

#include <stdbool.h>
#include <stdint.h>

#define HANDSHAKE_BROKEN  1    /* the other side left */
#define HANDSHAKE_MUTE_MS 5000 /* for so long no word came: no part of ours is there */
#define HANDSHAKE_LONG_MS 1500 /* kept open for so long, it was left waiting */

struct handshake {
    void *monitor;
    bool done;             /* it once succeeded, and no other began since */
    bool mismatch;         /* one side speaks with keys, the other without */
    uint64_t since_ms;     /* a connection that has not shaken hands: when it was first looked at; 0: there is none */
    unsigned failures;     /* one after the other */
    bool slow;             /* the last one was left waiting */
};

/* Begin to watch a socket, before it connects; another one's story goes on. False: no memory, nothing is watched. */
bool handshake_watch(struct handshake *handshake, void *context, void *socket);

/* Before the socket is closed. */
void handshake_leave(struct handshake *handshake, void *socket);

/*
 * Look at what has happened: to be called every 500 ms or so. NULL: nothing is wrong, as far as is known. Else why
 * hands are not shaken, as the end of a sentence; with_keys: this side has some.
 */
const char *handshake_trouble(struct handshake *handshake, bool with_keys, uint64_t now_ms);

/* Why one that came in failed, for the log of the side that listens: a ZMQ_PROTOCOL_ERROR_..., or HANDSHAKE_BROKEN. */
const char *handshake_refusal(uint32_t error, bool with_keys);

#endif
