/*
 * puller.h - fetch one parameter snapshot in chunks, a few requested at a time.
 *
 * Owns:    memory for one snapshot.
 * Thread:  the owner's.
 *
 * The owner sends the requests puller_next asks for, feeds the chunks that come, and takes the whole
 * snapshot when puller_ready; it lies still until the next puller_start.
 */
#ifndef TD_ACTOR_PULLER_H
#define TD_ACTOR_PULLER_H

#include "common/wire/message.h"

#define PULLER_WINDOW     4    /* chunks requested at a time */
#define PULLER_SILENCE_MS 2000 /* without a chunk: what is missing is requested again */

typedef struct puller puller_t;

/* For snapshots of exactly `size` bytes. Returns TD_OK or TD_ENOMEM. */
int puller_create(puller_t **out, size_t size);
void puller_destroy(puller_t **puller);

/* Begin with this snapshot, dropping another. False when its size is not ours. */
bool puller_start(puller_t *puller, uint64_t now_ms, const struct announcement *announcement);
void puller_cancel(puller_t *puller);

bool puller_active(const puller_t *puller);
const struct announcement *puller_target(const puller_t *puller);

/* The next request to send now; false: none. Call until false after start, chunk and timeouts. */
bool puller_next(puller_t *puller, uint64_t now_ms, struct pull *out);

/* When to call puller_next again although nothing came. */
uint64_t puller_deadline(const puller_t *puller);

/*
 * A chunk came. TD_OK: used or none of ours; TD_EAGAIN: that was the last one, but the hash of the
 * whole is wrong: started over.
 */
int puller_chunk(puller_t *puller, uint64_t now_ms, const struct chunk *chunk,
                 const struct bulk *bytes);

/* The whole snapshot, or NULL while it is incomplete. */
const void *puller_ready(const puller_t *puller);

#endif
