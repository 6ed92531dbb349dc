#include "actor/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "common/util/error.h"

struct outbox {
    uint64_t capacity;
    uint32_t stride;
    uint64_t acked; /* rows before it are safe */
    uint64_t sent;  /* rows before it were sent */
    uint64_t next;  /* rows before it were appended */
    char rows[];
};

int outbox_create(outbox_t **out, uint64_t capacity, uint32_t stride)
{
    TD_ASSERT(capacity > 0 && stride > 0, "capacity %llu", (unsigned long long)capacity);
    *out = NULL;
    if (capacity > (SIZE_MAX - sizeof(**out)) / stride)
        return TD_ENOMEM;
    *out = calloc(1, sizeof(**out) + capacity * stride);
    if (*out == NULL)
        return TD_ENOMEM;
    (*out)->capacity = capacity;
    (*out)->stride = stride;
    return TD_OK;
}

void outbox_destroy(outbox_t **outbox)
{
    free(*outbox);
    *outbox = NULL;
}

uint64_t outbox_clear(outbox_t *outbox)
{
    uint64_t dropped = outbox->next - outbox->acked;

    outbox->acked = outbox->sent = outbox->next = 0;
    return dropped;
}

static char *row_at(const outbox_t *outbox, uint64_t sequence)
{
    return (char *)outbox->rows + sequence % outbox->capacity * outbox->stride;
}

void *outbox_reserve(outbox_t *outbox)
{
    if (outbox_full(outbox))
        return NULL;
    return memset(row_at(outbox, outbox->next), 0, outbox->stride);
}

void outbox_append(outbox_t *outbox)
{
    TD_ASSERT(!outbox_full(outbox), "full");
    outbox->next++;
}

bool outbox_ack(outbox_t *outbox, uint64_t next)
{
    if (next > outbox->next)
        return false;
    if (next > outbox->acked)
        outbox->acked = next;
    if (outbox->sent < outbox->acked)
        outbox->sent = outbox->acked;
    return true;
}

bool outbox_resend(outbox_t *outbox, uint64_t from)
{
    if (from < outbox->acked || from > outbox->next)
        return false;
    outbox->sent = from;
    return true;
}

uint32_t outbox_chunk(const outbox_t *outbox, uint32_t most, uint64_t *first, const void **rows)
{
    uint64_t count = outbox->next - outbox->sent;
    uint64_t straight = outbox->capacity - outbox->sent % outbox->capacity;

    if (count > most)
        count = most;
    if (count > straight)
        count = straight;
    *first = outbox->sent;
    *rows = row_at(outbox, outbox->sent);
    return (uint32_t)count;
}

void outbox_sent(outbox_t *outbox, uint32_t count)
{
    TD_ASSERT(count <= outbox->next - outbox->sent, "%u", count);
    outbox->sent += count;
}

uint64_t outbox_next(const outbox_t *outbox)
{
    return outbox->next;
}

uint64_t outbox_held(const outbox_t *outbox)
{
    return outbox->next - outbox->acked;
}

uint64_t outbox_unsent(const outbox_t *outbox)
{
    return outbox->next - outbox->sent;
}

uint64_t outbox_inflight(const outbox_t *outbox)
{
    return outbox->sent - outbox->acked;
}

bool outbox_full(const outbox_t *outbox)
{
    return outbox->next - outbox->acked == outbox->capacity;
}
