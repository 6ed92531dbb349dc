#include "common/util/queue.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/util/error.h"

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled; /* on CLOCK_MONOTONIC */
    size_t capacity, item_size;
    size_t first, length; /* the ring: items first .. first + length - 1 */
    bool closed;
    void (*wake)(void *context);
    void *context;
    char *items;
};

int queue_create(queue_t **out, size_t capacity, size_t item_size, void (*wake)(void *context),
                 void *context)
{
    pthread_condattr_t attributes;
    queue_t *queue;

    TD_ASSERT(capacity > 0 && item_size > 0, "capacity %zu, item_size %zu", capacity, item_size);
    *out = NULL;
    queue = calloc(1, sizeof(*queue));
    if (queue == NULL)
        return TD_ENOMEM;
    queue->items = calloc(capacity, item_size);
    if (queue->items == NULL) {
        free(queue);
        return TD_ENOMEM;
    }
    queue->capacity = capacity;
    queue->item_size = item_size;
    queue->wake = wake;
    queue->context = context;
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    *out = queue;
    return TD_OK;
}

void queue_destroy(queue_t **queue)
{
    if (*queue == NULL)
        return;
    pthread_cond_destroy(&(*queue)->filled);
    pthread_mutex_destroy(&(*queue)->mutex);
    free((*queue)->items);
    free(*queue);
    *queue = NULL;
}

int queue_push(queue_t *queue, const void *item)
{
    int rc = TD_OK;

    pthread_mutex_lock(&queue->mutex);
    if (queue->closed) {
        rc = TD_EINVAL;
    } else if (queue->length == queue->capacity) {
        rc = TD_EFULL;
    } else {
        size_t slot = (queue->first + queue->length) % queue->capacity;

        memcpy(queue->items + slot * queue->item_size, item, queue->item_size);
        queue->length++;
        pthread_cond_signal(&queue->filled);
    }
    pthread_mutex_unlock(&queue->mutex);
    if (rc == TD_OK && queue->wake != NULL)
        queue->wake(queue->context);
    return rc;
}

/* The lock is held and the queue is not empty. */
static void take_first(queue_t *queue, void *item)
{
    memcpy(item, queue->items + queue->first * queue->item_size, queue->item_size);
    queue->first = (queue->first + 1) % queue->capacity;
    queue->length--;
}

int queue_pop(queue_t *queue, void *item)
{
    int rc = TD_EAGAIN;

    pthread_mutex_lock(&queue->mutex);
    if (queue->length > 0) {
        take_first(queue, item);
        rc = TD_OK;
    }
    pthread_mutex_unlock(&queue->mutex);
    return rc;
}

static struct timespec deadline_after(int64_t ms)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(ms / 1000);
    at.tv_nsec += (long)(ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

int queue_wait(queue_t *queue, void *item, int64_t timeout_ms)
{
    struct timespec deadline = deadline_after(timeout_ms < 0 ? 0 : timeout_ms);
    int rc = TD_OK;

    pthread_mutex_lock(&queue->mutex);
    while (queue->length == 0 && !queue->closed && rc == TD_OK) {
        if (timeout_ms < 0)
            pthread_cond_wait(&queue->filled, &queue->mutex);
        else if (pthread_cond_timedwait(&queue->filled, &queue->mutex, &deadline) != 0)
            rc = TD_ETIMEOUT;
    }
    if (queue->length > 0) {
        take_first(queue, item);
        rc = TD_OK;
    } else if (queue->closed) {
        rc = TD_ENOTFOUND;
    }
    pthread_mutex_unlock(&queue->mutex);
    return rc;
}

void queue_close(queue_t *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->closed = true;
    pthread_cond_broadcast(&queue->filled);
    pthread_mutex_unlock(&queue->mutex);
}

size_t queue_length(queue_t *queue)
{
    size_t length;

    pthread_mutex_lock(&queue->mutex);
    length = queue->length;
    pthread_mutex_unlock(&queue->mutex);
    return length;
}
