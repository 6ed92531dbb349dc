/*
 * machine.h - the pattern of the state machines: actor/session.h, learner/coordinator.h, the shard.
 *
 * A machine is pure: no sockets, clocks, disks or threads (the shard alone calls its store). Its host
 *   - feeds it: X_receive(x, now_ms, &peer, &message), X_tick(x, now_ms) at X_deadline(x) or sooner,
 *     and the results of the commands it carried out;
 *   - after each of these drains it: while (X_next(x, &output)) carry out output.
 * now_ms never goes back. Bulk in an output is borrowed until the machine is fed again, so a send is
 * encoded while draining; bulk of a message that is fed stays valid until the outputs are drained.
 * Commands are carried out in the order they come.
 */
#ifndef TD_WIRE_MACHINE_H
#define TD_WIRE_MACHINE_H

#include "common/wire/message.h"

/* Outputs every machine may have; each role's own kinds follow from OUTPUT_ROLE. */
enum output_kind {
    OUTPUT_SEND = 1,   /* message to peer */
    OUTPUT_CONNECT,    /* open peer's DEALER (or SUB) to address, replacing an older one */
    OUTPUT_DISCONNECT, /* close it */
    OUTPUT_LOG,        /* a line for the log */
    OUTPUT_EXIT,       /* leave with this code; nothing follows */
    OUTPUT_ROLE = 16,
};

#define OUTPUT_TEXT_MAX 512

struct output_log {
    int level;                  /* enum log_level */
    char text[OUTPUT_TEXT_MAX]; /* one sentence */
};

struct output_exit {
    int code;                   /* TD_EXIT_... */
    char text[OUTPUT_TEXT_MAX]; /* why, one sentence */
};

/* A first-in first-out queue of elements of one size; grows when full (start-up sizes are ample). */
struct output_queue {
    char *items;
    size_t item_size;
    size_t capacity, head, count;
};

int output_queue_init(struct output_queue *queue, size_t item_size, size_t capacity);
void output_queue_release(struct output_queue *queue);

/* A zeroed place at the end, to be filled by the caller. */
void *output_queue_push(struct output_queue *queue);

/* Copy the first to out and drop it; false when empty. */
bool output_queue_pop(struct output_queue *queue, void *out);

#endif
