#include "learner/params.h"

#include <stdlib.h>
#include <string.h>

#include "common/util/error.h"

#define PULLS_MAX 256

/* Someone who pulls; more than PULLS_MAX at a time are served but not waited for. */
struct puller_seen {
    uint64_t peer;
    int buffer;
    uint64_t began_ms, heard_ms; /* heard_ms 0: free */
};

struct params {
    size_t size;
    char *memory[2];
    const spill_t *file; /* or they lie here, one behind the other, and a chunk is read into piece */
    char *piece;
    struct announcement held[2]; /* epoch 0: empty */
    int newest;                  /* -1: none */
    bool filling;
    uint64_t wanted_ms; /* since when filling waits; 0: it does not */
    uint64_t last_pull_ms; /* how long the last complete pull took */
    struct puller_seen pulls[PULLS_MAX];
};

static const struct announcement nothing;

int params_room_write(const struct params_room *room, size_t offset, const void *bytes, size_t length, struct error *err)
{
    if (room->file != NULL)
        return spill_write(room->file, room->at + offset, bytes, length, err);
    memcpy(room->memory + offset, bytes, length);
    return TD_OK;
}

int params_create(params_t **out, size_t size, const spill_t *file)
{
    params_t *params = calloc(1, sizeof(*params));

    *out = params;
    if (params == NULL)
        return TD_ENOMEM;
    params->size = size;
    params->newest = -1;
    params->file = file;
    if (file != NULL)
        params->piece = malloc(WIRE_CHUNK_BYTES);
    for (int i = 0; i < 2 && file == NULL; i++)
        params->memory[i] = malloc(size > 0 ? size : 1);
    if (file != NULL ? params->piece != NULL : params->memory[0] != NULL && params->memory[1] != NULL)
        return TD_OK;
    params_destroy(out);
    return TD_ENOMEM;
}

void params_destroy(params_t **params)
{
    if (*params == NULL)
        return;
    free((*params)->memory[0]);
    free((*params)->memory[1]);
    free((*params)->piece);
    free(*params);
    *params = NULL;
}

static int next_buffer(const params_t *params)
{
    return params->newest == 0 ? 1 : 0;
}

/* Is anybody pulling from this buffer? Silent ones are dropped. */
static bool being_pulled(params_t *params, int buffer, uint64_t now_ms)
{
    bool busy = false;

    for (int i = 0; i < PULLS_MAX; i++) {
        struct puller_seen *pull = &params->pulls[i];

        if (pull->heard_ms == 0)
            continue;
        if (now_ms >= pull->heard_ms + PARAMS_SILENCE_MS)
            pull->heard_ms = 0;
        else
            busy |= pull->buffer == buffer;
    }
    return busy;
}

bool params_fill(params_t *params, uint64_t now_ms, uint64_t *again_ms, struct params_room *room)
{
    int buffer = next_buffer(params);
    uint64_t patience = 2 * params->last_pull_ms;

    if (patience < PARAMS_PATIENCE_MS)
        patience = PARAMS_PATIENCE_MS;
    *again_ms = UINT64_MAX;
    if (params->filling)
        return false;
    if (params->held[buffer].epoch != 0 && being_pulled(params, buffer, now_ms)) {
        if (params->wanted_ms == 0)
            params->wanted_ms = now_ms + 1;
        if (now_ms + 1 < params->wanted_ms + patience) {
            *again_ms = now_ms + 20;
            return false;
        }
    }
    params->wanted_ms = 0;
    params->filling = true;
    params->held[buffer].epoch = 0;
    for (int i = 0; i < PULLS_MAX; i++)
        if (params->pulls[i].buffer == buffer)
            params->pulls[i].heard_ms = 0;
    *room = (struct params_room){params->memory[buffer], params->file, (uint64_t)buffer * params->size};
    return true;
}

void params_filled(params_t *params, uint32_t epoch, uint64_t version, uint64_t hash)
{
    int buffer = next_buffer(params);

    TD_ASSERT(params->filling, "nothing is being filled");
    params->held[buffer] = (struct announcement){epoch, version, params->size, hash};
    params->newest = buffer;
    params->filling = false;
}

void params_dropped(params_t *params)
{
    params->filling = false;
}

bool params_filling(const params_t *params)
{
    return params->filling;
}

size_t params_size(const params_t *params)
{
    return params->size;
}

void params_forget(params_t *params)
{
    params->held[0] = params->held[1] = nothing;
    params->newest = -1;
    memset(params->pulls, 0, sizeof(params->pulls));
}

void params_set_epoch(params_t *params, uint32_t epoch)
{
    for (int i = 0; i < 2; i++)
        if (params->held[i].epoch != 0)
            params->held[i].epoch = epoch;
}

const struct announcement *params_newest(const params_t *params)
{
    return params->newest < 0 ? &nothing : &params->held[params->newest];
}

/* Note that this peer pulls from this buffer; the last chunk ends its pull. */
static void pull_seen(params_t *params, uint64_t now_ms, uint64_t peer, int buffer, bool last)
{
    struct puller_seen *found = NULL, *unused = NULL;

    for (int i = 0; i < PULLS_MAX; i++) {
        struct puller_seen *pull = &params->pulls[i];

        if (pull->heard_ms != 0 && pull->peer == peer)
            found = pull;
        else if (pull->heard_ms == 0)
            unused = pull;
    }
    if (found == NULL && (found = unused) != NULL)
        *found = (struct puller_seen){.peer = peer, .buffer = -1};
    if (found == NULL)
        return;
    if (found->buffer != buffer) {
        found->buffer = buffer;
        found->began_ms = now_ms;
    }
    found->heard_ms = now_ms > 0 ? now_ms : 1;
    if (last) {
        params->last_pull_ms = now_ms - found->began_ms;
        found->heard_ms = 0;
    }
}

/* A chunk of a snapshot, read when it lies in the file. */
static int bytes_of(params_t *params, int buffer, uint64_t offset, struct bulk *out, struct error *err)
{
    size_t rest = params->size - offset, length = rest < WIRE_CHUNK_BYTES ? rest : WIRE_CHUNK_BYTES;

    *out = (struct bulk){params->piece, length};
    if (params->file != NULL)
        return spill_read(params->file, (uint64_t)buffer * params->size + offset, params->piece, length, err);
    out->data = params->memory[buffer] + offset;
    return TD_OK;
}

int params_pull(params_t *params, uint64_t now_ms, uint64_t peer, const struct pull *pull,
                struct bulk *out, struct error *err)
{
    for (int i = 0; i < 2; i++) {
        const struct announcement *held = &params->held[i];

        if (held->epoch == 0 || held->epoch != pull->epoch || held->version != pull->version ||
            pull->offset >= params->size)
            continue;
        pull_seen(params, now_ms, peer, i, params->size - pull->offset <= WIRE_CHUNK_BYTES);
        return bytes_of(params, i, pull->offset, out, err);
    }
    return TD_ENOTFOUND;
}
