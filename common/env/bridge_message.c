#include "common/env/bridge_message.h"

#include <string.h>

#include "bridge.pb-c.h"

#define ARENA_BYTES 8192

size_t bridge_request_pack(uint8_t out[BRIDGE_REQUEST_MAX], const struct bridge_request *request, uint64_t sequence)
{
    Td__BridgeRequest message = TD__BRIDGE_REQUEST__INIT;
    size_t size;

    message.version = BRIDGE_VERSION;
    message.kind = request->kind;
    message.sequence = sequence;
    message.task = (char *)(uintptr_t)(request->task != NULL ? request->task : "");
    message.has_seed = request->has_seed;
    message.seed = request->seed;
    message.width = request->width;
    message.height = request->height;
    size = td__bridge_request__get_packed_size(&message);
    TD_ASSERT(size <= BRIDGE_REQUEST_MAX && request->bulk_size <= BRIDGE_BULK_MAX, "a request of %zu and %zu bytes", size,
              request->bulk_size);
    return td__bridge_request__pack(&message, out);
}

/* What a message is unpacked into: no allocation, and no more memory than this. */
struct arena {
    size_t used;
    _Alignas(16) char bytes[ARENA_BYTES];
};

static void *arena_take(void *user, size_t size)
{
    struct arena *arena = user;
    size_t need = (size + 15) & ~(size_t)15;

    if (size > ARENA_BYTES || need > ARENA_BYTES - arena->used)
        return NULL;
    arena->used += need;
    return arena->bytes + arena->used - need;
}

static void arena_give(void *user, void *memory)
{
    (void)user;
    (void)memory;
}

/* Its own text: printable, cut to fit, without the quotes that a line of the log is read by. */
static void copy_text(char *out, size_t size, const char *in)
{
    size_t i = 0;

    for (; in[i] != '\0' && i < size - 1; i++)
        out[i] = (unsigned char)in[i] < 0x20 || in[i] == 0x7f ? ' ' : in[i] == '"' ? '\'' : in[i];
    out[i] = '\0';
}

static int failure(const Td__BridgeReply *message, struct error *err)
{
    char text[sizeof(err->text)];

    copy_text(text, sizeof(text), message->text[0] != '\0' ? message->text : "something it does not name");
    if (message->failure == BRIDGE_SETUP)
        return error_set(err, TD_ESETUP, "%s", text);
    if (message->failure == BRIDGE_REFUSED)
        return error_set(err, TD_EINVAL, "%s", text);
    return error_set(err, TD_ELOST, "the environment raised %s", text);
}

int bridge_reply_unpack(struct bridge_reply *reply, uint32_t kind, uint64_t sequence, const void *header, size_t size,
                        struct error *err)
{
    struct arena arena;
    ProtobufCAllocator allocator = {arena_take, arena_give, &arena};
    Td__BridgeReply *message = NULL;

    arena.used = 0;
    if (size > 0 && size <= BRIDGE_HEADER_MAX)
        message = td__bridge_reply__unpack(&allocator, size, header);
    if (message == NULL || message->version != BRIDGE_VERSION)
        return error_set(err, TD_ECORRUPT, "sent something that is no message (does it write to file descriptor 3?)");
    if (message->sequence != sequence || (message->kind != kind && message->kind != BRIDGE_FAILED))
        return error_set(err, TD_ECORRUPT, "answered another request");
    if (message->kind == BRIDGE_FAILED)
        return failure(message, err);
    reply->reward = message->reward;
    reply->flags = message->flags;
    reply->env_ns = message->env_ns;
    reply->obs_dim = message->obs_dim;
    reply->action_dim = message->action_dim;
    reply->episode_length = message->episode_length;
    reply->action_repeat = message->action_repeat;
    reply->state_size = message->state_size;
    if (kind == BRIDGE_OPEN)
        copy_text(reply->name, sizeof(reply->name), message->name);
    return TD_OK;
}
