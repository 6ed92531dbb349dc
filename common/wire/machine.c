#include "common/wire/machine.h"

#include <stdlib.h>
#include <string.h>

#include "common/util/error.h"

int output_queue_init(struct output_queue *queue, size_t item_size, size_t capacity)
{
    memset(queue, 0, sizeof(*queue));
    queue->items = calloc(capacity, item_size);
    if (queue->items == NULL)
        return TD_ENOMEM;
    queue->item_size = item_size;
    queue->capacity = capacity;
    return TD_OK;
}

void output_queue_release(struct output_queue *queue)
{
    free(queue->items);
    memset(queue, 0, sizeof(*queue));
}

/* Double the room; the items move to the front in order. */
static void queue_grow(struct output_queue *queue)
{
    size_t size = queue->item_size, first = queue->capacity - queue->head;
    char *items = calloc(queue->capacity * 2, size);

    TD_ASSERT(items != NULL, "out of memory for %zu queued outputs", queue->capacity * 2);
    if (first > queue->count)
        first = queue->count;
    memcpy(items, queue->items + queue->head * size, first * size);
    memcpy(items + first * size, queue->items, (queue->count - first) * size);
    free(queue->items);
    queue->items = items;
    queue->capacity *= 2;
    queue->head = 0;
}

void *output_queue_push(struct output_queue *queue)
{
    char *item;

    if (queue->count == queue->capacity)
        queue_grow(queue);
    item = queue->items + (queue->head + queue->count) % queue->capacity * queue->item_size;
    memset(item, 0, queue->item_size);
    queue->count++;
    return item;
}

bool output_queue_pop(struct output_queue *queue, void *out)
{
    if (queue->count == 0)
        return false;
    memcpy(out, queue->items + queue->head * queue->item_size, queue->item_size);
    queue->head = (queue->head + 1) % queue->capacity;
    queue->count--;
    return true;
}
