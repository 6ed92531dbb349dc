/*
 * meter.h - how much each connection of a listening tcp socket has sent, and an end to those that send too much.
 *
 * ZeroMQ's own limits (frame size, queue length) count frames and whole messages: a message whose frames never
 * end is read into memory without any, and connections that say nothing are as many as there are descriptors.
 * The kernel knows what came in over each connection (TCP_INFO), ZeroMQ marks each frame with the connection
 * it came over, so the difference is what lies in between, in ZeroMQ's memory and the kernel's.
 *
 * A connection is cut (shutdown of its descriptor; ZeroMQ sees its peer gone) when
 *   - more than METER_CONNECTION bytes of it lie in between; of a key's connections together METER_KEY, of those
 *     that never said a whole message METER_UNHEARD; of a socket that expects nothing (PUB) METER_QUIET each;
 *   - more than METER_STRANGERS connections have said nothing yet: the oldest of these;
 *   - its key has more than METER_CONNECTIONS: the oldest;
 *   - its key, or it when there are no keys, says more than METER_MESSAGES or METER_BYTES a second, beyond a burst
 *     of two seconds' worth. Such a key stays out for METER_PENALTY_MS (guard.h).
 * Whose key a connection was made with shows with its first whole message. Of those cut before it, keys that
 * shook hands of late and have not been heard since are suspected; the second time they stay out, too.
 * Peers of ours that are cut connect again and repeat what was not answered.
 *
 * Owns:    the table of connections, the socket's monitor, a timer.
 * Borrows: socket and guard.
 * Thread:  the loop's.
 */
#ifndef TD_NET_METER_H
#define TD_NET_METER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/net/guard.h"
#include "common/net/loop.h"

#define METER_CONNECTION  ((uint64_t)16 << 20)
#define METER_KEY         ((uint64_t)24 << 20)
#define METER_UNHEARD     ((uint64_t)24 << 20)
#define METER_QUIET       ((uint64_t)64 << 10)
#define METER_CONNECTIONS 3
#define METER_STRANGERS   128
#define METER_MESSAGES    5000.0
#define METER_BYTES       (32.0 * (1 << 20))
#define METER_PENALTY_MS  10000
#define METER_TICK_MS     20

typedef struct meter meter_t;

struct meter_options {
    const char *name;   /* of the socket: for logs; a literal */
    void *context;      /* ZeroMQ's */
    void *socket;       /* before it listens */
    guard_t *guard;     /* or NULL */
    bool quiet;         /* it expects nothing from its peers */
};

/* TD_OK, TD_ENOMEM or TD_EIO. */
int meter_open(meter_t **out, loop_t *loop, const struct meter_options *options, struct error *err);

/* Before the socket is closed. */
void meter_close(meter_t **meter);

/* A frame of so many bytes was taken from the connection with this descriptor. */
void meter_frame(meter_t *meter, int fd, size_t length);

/*
 * It was a message's last one; key is "" without keys. False: this is too much, the message is not to be
 * heard and the connection has been cut.
 */
bool meter_message(meter_t *meter, int fd, const char *key, size_t bytes);

/* Connections cut so far. */
uint64_t meter_cut(const meter_t *meter);

#endif
