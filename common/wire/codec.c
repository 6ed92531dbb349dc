#include "common/wire/codec.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/store/row.h"
#include "tdmpc2.pb-c.h"

/* Room for one unpacked header; a header that unpacks to more than this is not one of ours. */
#define CODEC_ARENA (128u << 10)

struct codec {
    size_t used;
    _Alignas(16) char arena[CODEC_ARENA];
};

/* Protobuf structs that a packed message points to. */
struct scratch {
    Td__Spec message_spec;
    Td__Announcement announcement;
    Td__Status status;
    Td__StreamShown stream_shown[WIRE_STREAMS_MAX], *stream_shown_at[WIRE_STREAMS_MAX];
    Td__StreamGranted stream_granted[WIRE_STREAMS_MAX], *stream_granted_at[WIRE_STREAMS_MAX];
    Td__TaskCount task_count[ROW_TASKS_MAX], *task_count_at[ROW_TASKS_MAX];
    Td__TaskShare task_share[ROW_TASKS_MAX], *task_share_at[ROW_TASKS_MAX];
    Td__TaskScore task_score[ROW_TASKS_MAX], *task_score_at[ROW_TASKS_MAX];
};

int codec_create(codec_t **out)
{
    *out = calloc(1, sizeof(**out));
    return *out == NULL ? TD_ENOMEM : TD_OK;
}

void codec_destroy(codec_t **codec)
{
    free(*codec);
    *codec = NULL;
}

static void *arena_take(void *user, size_t size)
{
    codec_t *codec = user;
    size_t need = (size + 15) & ~(size_t)15;

    if (size > CODEC_ARENA || need > CODEC_ARENA - codec->used)
        return NULL;
    codec->used += need;
    return codec->arena + codec->used - need;
}

static void arena_give(void *user, void *memory)
{
    (void)user;
    (void)memory;
}

/* --- texts ------------------------------------------------------------------ */

static bool text_printable(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

/* NULL or what is wrong. */
static const char *text_get(char *out, size_t size, const char *in)
{
    size_t length = strlen(in);

    if (length >= size)
        return "too long";
    if (!text_printable(in))
        return "not printable";
    memset(out, 0, size);
    memcpy(out, in, length);
    return NULL;
}

/* Our own text, made printable on the way out. */
static char *text_put(const char *text, size_t size)
{
    char *at = (char *)(uintptr_t)text;

    TD_ASSERT(memchr(text, '\0', size) != NULL, "text is not terminated");
    TD_ASSERT(text_printable(text), "text is not printable: %s", text);
    return at;
}

/* --- both directions of every field ----------------------------------------- */

/* clang-format off */
#define NUMBER(f)      pb->f = in->f;
#define RANGE(f, max)  TD_ASSERT((uint64_t)in->f <= (max), #f " %llu", (unsigned long long)in->f); pb->f = in->f;
#define FLAG(f)        pb->f = in->f;
#define REAL(f)        TD_ASSERT(isfinite(in->f), #f " is not finite"); pb->f = in->f;
#define TEXT(f)        pb->f = text_put(in->f, sizeof(in->f));
#define PART(f, part)  put_##part(&in->f, &scratch->part, scratch); pb->f = &scratch->part;
#define STREAMS(f, part) LIST(f, part, count, WIRE_STREAMS_MAX)
#define TASKS(f, part, total) LIST(f, part, total, ROW_TASKS_MAX)
#define LIST(f, part, total, most)                                                                 \
    TD_ASSERT(in->total <= (most), "%u of " #f, in->total);                                        \
    for (uint32_t i = 0; i < in->total; i++) {                                                     \
        put_##part(&in->f[i], &scratch->part[i], scratch);                                         \
        scratch->part##_at[i] = &scratch->part[i];                                                 \
    }                                                                                              \
    pb->n_##f = in->total;                                                                         \
    pb->f = scratch->part##_at;
#define PUT(name, ctype, Camel, UPPER, fields)                                                     \
    static void put_##name(const ctype *in, Td__##Camel *pb, struct scratch *scratch)              \
    {                                                                                              \
        (void)scratch;                                                                             \
        *pb = (Td__##Camel)TD__##UPPER##__INIT;                                                    \
        fields                                                                                     \
    }
#define PART_OF(part, Camel, UPPER, fields) PUT(part, struct part, Camel, UPPER, fields)
#define MESSAGE(KIND, name, Camel, UPPER, fields)                                                  \
    PUT(message_##name, __typeof__(((struct message *)0)->name), Camel, UPPER, fields)
#include "common/wire/fields.def"
#undef NUMBER
#undef RANGE
#undef FLAG
#undef REAL
#undef TEXT
#undef PART
#undef LIST
#undef PART_OF
#undef MESSAGE

#define BAD(f, why) return "field " #f " is " why
#define NUMBER(f)      out->f = pb->f;
#define RANGE(f, max)  if ((uint64_t)pb->f > (max)) BAD(f, "out of range"); out->f = pb->f;
#define FLAG(f)        out->f = pb->f != 0;
#define REAL(f)        if (!isfinite(pb->f)) BAD(f, "not finite"); out->f = pb->f;
#define TEXT(f)        if (text_get(out->f, sizeof(out->f), pb->f) != NULL) BAD(f, "not a text");
#define PART(f, part)                                                                              \
    if (pb->f != NULL && (bad = get_##part(pb->f, &out->f)) != NULL)                               \
        return bad;
#define LIST(f, part, total, most)                                                                 \
    if (pb->n_##f > (most))                                                                        \
        BAD(f, "too many");                                                                        \
    out->total = (uint32_t)pb->n_##f;                                                              \
    for (uint32_t i = 0; i < out->total; i++)                                                      \
        if ((bad = get_##part(pb->f[i], &out->f[i])) != NULL)                                      \
            return bad;
#define GET(name, ctype, Camel, fields)                                                            \
    static const char *get_##name(const Td__##Camel *pb, ctype *out)                               \
    {                                                                                              \
        const char *bad = NULL;                                                                    \
        fields                                                                                     \
        return bad;                                                                                \
    }
#define PART_OF(part, Camel, UPPER, fields) GET(part, struct part, Camel, fields)
#define MESSAGE(KIND, name, Camel, UPPER, fields)                                                  \
    GET(message_##name, __typeof__(((struct message *)0)->name), Camel, fields)
#include "common/wire/fields.def"
#undef MESSAGE
#undef PART_OF
/* clang-format on */

/* --- what a kind may carry behind its header -------------------------------- */

/* NULL or what is wrong with the bulk frames or with fields that only make sense together. */
static const char *bulk_check(const struct message *message)
{
    uint32_t most = 0, least = 0;
    size_t size[WIRE_BULK_MAX] = {0};
    const struct rows *rows = &message->rows;

    switch (message->kind) {
    case MESSAGE_WELCOME:
        most = 2;
        size[0] = WIRE_OPTIONS_MAX;
        size[1] = WIRE_STATE_MAX;
        break;
    case MESSAGE_EPISODE_END:
    case MESSAGE_EVALUATED:
        most = 1;
        size[0] = WIRE_STATE_MAX;
        break;
    case MESSAGE_ROWS:
        least = most = 1;
        size[0] = (size_t)rows->count * rows->stride;
        if (rows->count == 0 || rows->stride < sizeof(struct row_head) || rows->stride % 4 != 0)
            return "count or stride of the rows is impossible";
        if (size[0] > WIRE_ROWS_MAX)
            return "more rows than a message may carry";
        if (rows->first + rows->count < rows->first)
            return "the rows' sequence overflows";
        if (message->bulks == 1 && message->bulk[0].size != size[0])
            return "the rows' frame is not count times stride";
        break;
    case MESSAGE_SLICES:
        least = most = message->slices.count > 0;
        size[0] = WIRE_SLICES_MAX;
        break;
    case MESSAGE_CHUNK:
        least = most = 1;
        size[0] = WIRE_CHUNK_BYTES;
        if (message->chunk.offset % WIRE_CHUNK_BYTES != 0)
            return "the chunk's offset is not a multiple of a chunk";
        break;
    default:
        break;
    }
    if (message->kind == MESSAGE_PULL && message->pull.offset % WIRE_CHUNK_BYTES != 0)
        return "the pull's offset is not a multiple of a chunk";
    if (message->bulks < least || message->bulks > most)
        return "the number of bulk frames is wrong";
    for (uint32_t i = 0; i < message->bulks; i++)
        if (message->bulk[i].size > size[i])
            return "a bulk frame is too large";
    return NULL;
}

/* Numbers that no episode has: rows carry single precision rewards, and the logs what is made of them. */
static const char *value_check(const struct message *message)
{
    const struct episode_end *end = &message->episode_end;

    if (message->kind != MESSAGE_EPISODE_END)
        return NULL;
    if (end->length > (uint64_t)1 << 40)
        return "the episode is longer than any";
    if (fabs(end->reward) > FLT_MAX * (1 + (double)end->length) || fabs(end->success) > FLT_MAX)
        return "the episode's return or success is too large";
    return NULL;
}

/* --- whole messages --------------------------------------------------------- */

size_t codec_encode(codec_t *codec, const struct message *message, uint8_t *header)
{
    Td__Envelope envelope = TD__ENVELOPE__INIT;
    struct scratch *scratch = (struct scratch *)codec->arena;
    const char *bad = bulk_check(message);
    size_t length;

    _Static_assert(sizeof(struct scratch) <= CODEC_ARENA, "scratch fits the arena");
    TD_ASSERT(bad == NULL, "%s: %s", message_name(message->kind), bad);
    envelope.protocol = PROTOCOL_VERSION;
    envelope.run = message->run;
    switch (message->kind) {
#define PART_OF(part, Camel, UPPER, fields)
#define MESSAGE(KIND, name, Camel, UPPER, fields)                                                  \
    case MESSAGE_##KIND: {                                                                         \
        static _Thread_local Td__##Camel body;                                                     \
        put_message_##name(&message->name, &body, scratch);                                        \
        envelope.body_case = TD__ENVELOPE__BODY_##KIND;                                            \
        envelope.name = &body;                                                                     \
        break;                                                                                     \
    }
#include "common/wire/fields.def"
#undef MESSAGE
    default:
        TD_ASSERT(false, "message kind %u", message->kind);
    }
    length = td__envelope__get_packed_size(&envelope);
    TD_ASSERT(length <= WIRE_HEADER_MAX, "%s of %zu bytes", message_name(message->kind), length);
    return td__envelope__pack(&envelope, header);
}

/* The first field of every header since version 1: 0x08, the version as a varint. 0: not one. */
static uint32_t header_version(const struct bulk *header)
{
    const uint8_t *at = header->data;
    uint64_t version = 0;

    if (header->size < 2 || at[0] != 0x08)
        return 0;
    for (size_t i = 1; i < header->size && i <= 5; i++) {
        version |= (uint64_t)(at[i] & 0x7f) << (7 * (i - 1));
        if ((at[i] & 0x80) == 0)
            return version > UINT32_MAX ? 0 : (uint32_t)version;
    }
    return 0;
}

/* Fill message from an unpacked envelope. NULL or what is wrong. */
static const char *envelope_get(const Td__Envelope *envelope, struct message *message)
{
    message->run = envelope->run;
    message->kind = (uint32_t)envelope->body_case;
    switch (message->kind) {
#define MESSAGE(KIND, name, Camel, UPPER, fields)                                                  \
    case MESSAGE_##KIND: {                                                                         \
        _Static_assert((int)MESSAGE_##KIND == (int)TD__ENVELOPE__BODY_##KIND, "one numbering");    \
        return get_message_##name(envelope->name, &message->name);                                 \
    }
#include "common/wire/fields.def"
#undef MESSAGE
    default:
        return "it holds no message this version knows";
    }
}

int codec_decode(codec_t *codec, const struct bulk *frames, size_t count, struct message *message,
                 struct error *err)
{
    ProtobufCAllocator allocator = {arena_take, arena_give, codec};
    Td__Envelope *envelope;
    const char *bad;
    uint32_t version;

    memset(message, 0, sizeof(*message));
    if (count == 0 || count > 1 + WIRE_BULK_MAX)
        return error_set(err, TD_ECORRUPT, "a message of %zu frames", count);
    if (frames[0].size > WIRE_HEADER_MAX)
        return error_set(err, TD_ECORRUPT, "a header of %zu bytes", frames[0].size);
    version = header_version(&frames[0]);
    if (version == 0)
        return error_set(err, TD_ECORRUPT, "a header that is none of ours");
    if (version != PROTOCOL_VERSION)
        return error_set(err, TD_EFOREIGN,
                         "the peer speaks protocol version %u, this program %u: run the same build "
                         "everywhere", version, PROTOCOL_VERSION);
    codec->used = 0;
    envelope = td__envelope__unpack(&allocator, frames[0].size, frames[0].data);
    if (envelope == NULL)
        return error_set(err, TD_ECORRUPT, "a header that does not unpack");
    if ((bad = envelope_get(envelope, message)) == NULL) {
        message->bulks = (uint32_t)count - 1;
        memcpy(message->bulk, frames + 1, (count - 1) * sizeof(*frames));
        bad = bulk_check(message);
    }
    if (bad == NULL)
        bad = value_check(message);
    if (bad != NULL) {
        const char *name = message_name(message->kind);

        memset(message, 0, sizeof(*message));
        return error_set(err, TD_ECORRUPT, "%s: %s", name, bad);
    }
    return TD_OK;
}

void codec_refuse_version(struct message *out, uint64_t run)
{
    memset(out, 0, sizeof(*out));
    out->kind = MESSAGE_REFUSED;
    out->run = run;
    out->refused.code = REFUSED_PROTOCOL;
    snprintf(out->refused.text, sizeof(out->refused.text),
             "the other side speaks protocol version %u: run the same build everywhere",
             PROTOCOL_VERSION);
}
