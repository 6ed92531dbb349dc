#include "actor/puller.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "common/util/error.h"

struct puller {
    size_t size;
    uint32_t chunks;
    struct announcement target;
    bool active, ready;
    uint32_t requested; /* chunks before it were requested */
    uint32_t missing;   /* the first chunk not here */
    uint32_t have;
    uint64_t heard_ms;
    bool retry; /* request again what is missing below `requested` */
    uint32_t retry_at;
    XXH3_state_t *hash; /* of the chunks before `missing` */
    uint8_t *here;      /* [chunks] */
    char *memory;
};

int puller_create(puller_t **out, size_t size)
{
    puller_t *puller = calloc(1, sizeof(*puller));

    *out = puller;
    if (puller == NULL)
        return TD_ENOMEM;
    puller->size = size;
    puller->chunks = (uint32_t)((size + WIRE_CHUNK_BYTES - 1) / WIRE_CHUNK_BYTES);
    puller->here = calloc(puller->chunks + 1, 1);
    puller->memory = malloc(size + 1);
    puller->hash = XXH3_createState();
    if (puller->here == NULL || puller->memory == NULL || puller->hash == NULL) {
        puller_destroy(out);
        return TD_ENOMEM;
    }
    return TD_OK;
}

void puller_destroy(puller_t **puller)
{
    if (*puller == NULL)
        return;
    XXH3_freeState((*puller)->hash);
    free((*puller)->here);
    free((*puller)->memory);
    free(*puller);
    *puller = NULL;
}

static void start_over(puller_t *puller, uint64_t now_ms)
{
    puller->active = true;
    puller->ready = false;
    puller->requested = puller->missing = puller->have = 0;
    puller->retry = false;
    puller->heard_ms = now_ms;
    memset(puller->here, 0, puller->chunks);
    XXH3_64bits_reset(puller->hash);
}

bool puller_start(puller_t *puller, uint64_t now_ms, const struct announcement *announcement)
{
    puller_cancel(puller);
    if (announcement->size != puller->size || puller->size == 0)
        return false;
    puller->target = *announcement;
    start_over(puller, now_ms);
    return true;
}

void puller_cancel(puller_t *puller)
{
    puller->active = puller->ready = false;
}

bool puller_active(const puller_t *puller)
{
    return puller->active;
}

const struct announcement *puller_target(const puller_t *puller)
{
    return &puller->target;
}

/* The next chunk to ask for: after a silence those that did not come, else new ones in the window. */
static bool next_index(puller_t *puller, uint64_t now_ms, uint32_t *index)
{
    if (now_ms >= puller->heard_ms + PULLER_SILENCE_MS) {
        puller->retry = true;
        puller->retry_at = puller->missing;
        puller->heard_ms = now_ms;
    }
    while (puller->retry && puller->retry_at < puller->requested) {
        *index = puller->retry_at++;
        if (!puller->here[*index])
            return true;
    }
    puller->retry = false;
    if (puller->requested == puller->chunks ||
        puller->requested - puller->have >= PULLER_WINDOW)
        return false;
    *index = puller->requested++;
    return true;
}

bool puller_next(puller_t *puller, uint64_t now_ms, struct pull *out)
{
    uint32_t index;

    if (!puller->active || !next_index(puller, now_ms, &index))
        return false;
    *out = (struct pull){puller->target.epoch, puller->target.version,
                         (uint64_t)index * WIRE_CHUNK_BYTES};
    return true;
}

uint64_t puller_deadline(const puller_t *puller)
{
    return puller->active ? puller->heard_ms + PULLER_SILENCE_MS : UINT64_MAX;
}

static size_t chunk_size(const puller_t *puller, uint32_t index)
{
    size_t rest = puller->size - (size_t)index * WIRE_CHUNK_BYTES;

    return rest < WIRE_CHUNK_BYTES ? rest : WIRE_CHUNK_BYTES;
}

int puller_chunk(puller_t *puller, uint64_t now_ms, const struct chunk *chunk,
                 const struct bulk *bytes)
{
    uint64_t index = chunk->offset / WIRE_CHUNK_BYTES;

    if (!puller->active || chunk->epoch != puller->target.epoch ||
        chunk->version != puller->target.version || index >= puller->requested ||
        puller->here[index] || bytes->size != chunk_size(puller, (uint32_t)index))
        return TD_OK;
    memcpy(puller->memory + chunk->offset, bytes->data, bytes->size);
    puller->here[index] = 1;
    puller->have++;
    puller->heard_ms = now_ms;
    for (; puller->missing < puller->chunks && puller->here[puller->missing]; puller->missing++)
        XXH3_64bits_update(puller->hash,
                           puller->memory + (size_t)puller->missing * WIRE_CHUNK_BYTES,
                           chunk_size(puller, puller->missing));
    if (puller->missing < puller->chunks)
        return TD_OK;
    if (XXH3_64bits_digest(puller->hash) != puller->target.hash) {
        start_over(puller, now_ms);
        return TD_EAGAIN;
    }
    puller->active = false;
    puller->ready = true;
    return TD_OK;
}

const void *puller_ready(const puller_t *puller)
{
    return puller->ready ? puller->memory : NULL;
}
