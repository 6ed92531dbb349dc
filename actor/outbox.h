/*
 * outbox.h - rows of one stream that are not acknowledged yet: what an actor must be able to resend.
 *
 * A ring of rows numbered by their sequence. Appended at the end, sent in chunks, dropped from the
 * front when acknowledged; never more than its capacity, so a full outbox pauses the environment.
 *
 * Owns:    the rows.
 * Thread:  the owner's.
 */
#ifndef TD_ACTOR_OUTBOX_H
#define TD_ACTOR_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct outbox outbox_t;

int outbox_create(outbox_t **out, uint64_t capacity, uint32_t stride);
void outbox_destroy(outbox_t **outbox);

/* Forget everything; the next row is number 0. Returns how many rows were dropped. */
uint64_t outbox_clear(outbox_t *outbox);

/* Room for the next row, zeroed, or NULL when full; it counts once outbox_append is called. */
void *outbox_reserve(outbox_t *outbox);
void outbox_append(outbox_t *outbox);

/* Rows before `next` are safe. False (and nothing changes) when it names rows never appended. */
bool outbox_ack(outbox_t *outbox, uint64_t next);

/* Send again from this row on. False when it is no longer, or not yet, here. */
bool outbox_resend(outbox_t *outbox, uint64_t from);

/*
 * The next rows to send: contiguous, at most `most`. *first is the sequence of the first; returns how
 * many, 0 when all are sent. They count as sent once outbox_sent is called.
 */
uint32_t outbox_chunk(const outbox_t *outbox, uint32_t most, uint64_t *first, const void **rows);
void outbox_sent(outbox_t *outbox, uint32_t count);

uint64_t outbox_next(const outbox_t *outbox);   /* sequence of the row appended next */
uint64_t outbox_held(const outbox_t *outbox);   /* rows not acknowledged */
uint64_t outbox_unsent(const outbox_t *outbox);
uint64_t outbox_inflight(const outbox_t *outbox); /* sent, not acknowledged */
bool outbox_full(const outbox_t *outbox);

#endif
