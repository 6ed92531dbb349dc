/*
 * bridge_socket.h - the two ends of an ipc:// connection between this process and one that it starts.
 *
 * This end is a libzmq PAIR that listens in the private folder (util/runtime.h) for as long as it takes to connect to
 * it from this very process; then the name is gone from the file system. The connected descriptor, on which nothing
 * has been said yet, is what the child inherits and speaks ZMTP 3 on, with libzmq or without. So nobody else can be on
 * the line: the folder is this user's alone, its name is random and lives for microseconds, the kernel says of who
 * connects that it is this process (ZMQ_IPC_FILTER_PID), and a PAIR has one peer. And nothing is left behind, however
 * either end dies.
 *
 * ZeroMQ's thread writes and reads; it is one for all of a process's environments, there while any is open, and apart
 * from that of net/channel.c, so that a snapshot on its way does not hold up a step.
 *
 * Thread:  belongs to one thread at a time. After a fork the child makes sockets of its own.
 */
#ifndef TD_ENV_BRIDGE_SOCKET_H
#define TD_ENV_BRIDGE_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

#include "common/util/error.h"

typedef struct bridge_socket bridge_socket_t;

/* A message's frames, as they came; a bulk of no bytes is none. */
struct bridge_frames {
    const void *header, *bulk;
    size_t header_size, bulk_size;
};

/*
 * frame_max: a larger frame ends the connection. *theirs is the other end, for the caller to hand over and close.
 * Returns TD_OK, TD_ENOMEM, or TD_EIO and TD_EINVAL with a sentence.
 */
int bridge_socket_open(bridge_socket_t **out, size_t frame_max, int *theirs, struct error *err);

/* A descriptor that becomes readable when something has changed, once: ask bridge_socket_ready before waiting on it. */
int bridge_socket_fd(const bridge_socket_t *socket);

/* Is there a message to be received? With to_send also: could one be sent? */
bool bridge_socket_ready(bridge_socket_t *socket, bool to_send);

/* Send a message, copied. TD_OK; TD_EAGAIN: the other end has not said who it is yet, or is gone; TD_ENOMEM. */
int bridge_socket_send(bridge_socket_t *socket, const struct bridge_frames *frames);

/* The next message, valid until the one after it. TD_OK; TD_EAGAIN: none is there; TD_ECORRUPT: of three frames or more. */
int bridge_socket_receive(bridge_socket_t *socket, struct bridge_frames *frames);

/* What was not sent yet is dropped. Accepts NULL. */
void bridge_socket_close(bridge_socket_t **socket);

#endif
