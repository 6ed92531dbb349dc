/*
 * queue.h - a bounded queue of fixed-size items between threads, with a wake-up call.
 *
 * The joint between a loop thread and a compute thread: each pushes into the queue the other one
 * reads. A reader that sleeps in queue_wait is woken by the queue itself; a reader that sleeps in an
 * event loop is woken by `wake` (loop_wake_send, see common/net/loop.h).
 *
 * Owns:    room for `capacity` items, taken at creation; pushing and popping never allocate.
 * Thread:  any number of threads push and pop; items leave in the order they came.
 */
#ifndef TD_UTIL_QUEUE_H
#define TD_UTIL_QUEUE_H

#include <stddef.h>
#include <stdint.h>

typedef struct queue queue_t;

/*
 * capacity, item_size  > 0; items are copied in and out as bytes
 * wake(context)        called after every push, on the pushing thread; may be NULL
 *
 * Returns TD_OK or TD_ENOMEM.
 */
int queue_create(queue_t **out, size_t capacity, size_t item_size, void (*wake)(void *context),
                 void *context);

/* No thread may be inside. Items left are dropped. */
void queue_destroy(queue_t **queue);

/* TD_OK; TD_EFULL: try when the reader has taken one; TD_EINVAL: closed. */
int queue_push(queue_t *queue, const void *item);

/* TD_OK, or TD_EAGAIN when empty. */
int queue_pop(queue_t *queue, void *item);

/* As queue_pop, waiting up to timeout_ms (negative: forever). TD_ETIMEOUT; TD_ENOTFOUND: closed and empty. */
int queue_wait(queue_t *queue, void *item, int64_t timeout_ms);

/* Refuse further pushes and let waiting readers go once it is empty. */
void queue_close(queue_t *queue);

/* Items inside now. */
size_t queue_length(queue_t *queue);

#endif
