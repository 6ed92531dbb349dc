#include "tests/support/messages.h"

#include <string.h>

#include "common/store/row.h"

static uint8_t bulk_bytes[WIRE_ROWS_MAX];

static uint64_t random_number(struct rng *rng)
{
    uint64_t value = rng_u64(rng);

    switch (rng_below(rng, 4)) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return value >> rng_below(rng, 64);
    default: return value;
    }
}

static uint64_t random_below(struct rng *rng, uint64_t max)
{
    return max == UINT64_MAX ? rng_u64(rng) : random_number(rng) % (max + 1);
}

static void random_text(struct rng *rng, char *out, size_t size)
{
    size_t length = rng_below(rng, 3) == 0 ? size - 1 : rng_below(rng, (uint32_t)size);

    for (size_t i = 0; i < length; i++)
        out[i] = (char)(0x20 + rng_below(rng, 0x5f));
    out[length] = '\0';
}

/* clang-format off */
#define NUMBER(f)      out->f = (__typeof__(out->f))random_number(rng);
#define RANGE(f, max)  out->f = (__typeof__(out->f))random_below(rng, (max));
#define FLAG(f)        out->f = rng_below(rng, 2);
#define REAL(f)        out->f = (rng_double(rng) - 0.5) * 1e6;
#define TEXT(f)        random_text(rng, out->f, sizeof(out->f));
#define PART(f, part)  random_##part(rng, &out->f);
#define STREAMS(f, part) LIST(f, part, count, WIRE_STREAMS_MAX)
#define TASKS(f, part, total) LIST(f, part, total, ROW_TASKS_MAX)
#define LIST(f, part, total, most)                                                                 \
    out->total = rng_below(rng, (most) + 1);                                                       \
    for (uint32_t i = 0; i < out->total; i++)                                                      \
        random_##part(rng, &out->f[i]);
#define PART_OF(part, Camel, UPPER, fields)                                                        \
    static void random_##part(struct rng *rng, struct part *out) { fields }
#define MESSAGE(KIND, name, Camel, UPPER, fields)                                                  \
    static void random_message_##name(struct rng *rng, __typeof__(((struct message *)0)->name) *out) \
    { fields }
#include "common/wire/fields.def"
#undef MESSAGE
#undef PART_OF
#undef LIST
#undef PART
#undef TEXT
#undef REAL
#undef FLAG
#undef RANGE
#undef NUMBER

#define NUMBER(f)      equal &= a->f == b->f;
#define RANGE(f, max)  equal &= a->f == b->f;
#define FLAG(f)        equal &= a->f == b->f;
#define REAL(f)        equal &= a->f == b->f;
#define TEXT(f)        equal &= strcmp(a->f, b->f) == 0;
#define PART(f, part)  equal &= equal_##part(&a->f, &b->f);
#define LIST(f, part, total, most)                                                                 \
    equal &= a->total == b->total;                                                                 \
    for (uint32_t i = 0; equal && i < a->total; i++)                                               \
        equal &= equal_##part(&a->f[i], &b->f[i]);
#define PART_OF(part, Camel, UPPER, fields)                                                        \
    static int equal_##part(const struct part *a, const struct part *b)                            \
    { int equal = 1; fields return equal; }
#define MESSAGE(KIND, name, Camel, UPPER, fields)                                                  \
    static int equal_message_##name(const __typeof__(((struct message *)0)->name) *a,              \
                                    const __typeof__(((struct message *)0)->name) *b)              \
    { int equal = 1; fields return equal; }
#include "common/wire/fields.def"
#undef MESSAGE
#undef PART_OF
#define PART_OF(part, Camel, UPPER, fields)
/* clang-format on */

static const uint32_t kinds[] = {
#define MESSAGE(KIND, name, Camel, UPPER, fields) MESSAGE_##KIND,
#include "common/wire/fields.def"
#undef MESSAGE
};

int messages_kinds(void)
{
    return (int)(sizeof(kinds) / sizeof(kinds[0]));
}

uint32_t messages_kind(int index)
{
    return kinds[index];
}

/* Bulk frames and the fields that must fit them. */
static void random_bulk(struct rng *rng, struct message *out)
{
    for (int i = 0; i < 64; i++)
        bulk_bytes[rng_below(rng, sizeof(bulk_bytes))] = (uint8_t)rng_u32(rng);
    for (int i = 0; i < WIRE_BULK_MAX; i++)
        out->bulk[i] = (struct bulk){bulk_bytes + i, rng_below(rng, 50000)};
    switch (out->kind) {
    case MESSAGE_WELCOME:
        out->bulks = rng_below(rng, 3);
        break;
    case MESSAGE_EPISODE_END:
    case MESSAGE_EVALUATED:
        out->bulks = rng_below(rng, 2);
        break;
    case MESSAGE_ROWS:
        out->rows.stride = (uint32_t)sizeof(struct row_head) + 4 * rng_below(rng, 100);
        out->rows.count = 1 + rng_below(rng, WIRE_ROWS_MAX / out->rows.stride);
        out->rows.first >>= 1;
        out->bulks = 1;
        out->bulk[0].size = (size_t)out->rows.stride * out->rows.count;
        out->bulk[0].data = bulk_bytes;
        break;
    case MESSAGE_SLICES:
        out->bulks = out->slices.count > 0;
        break;
    case MESSAGE_CHUNK:
        out->bulks = 1;
        out->chunk.offset &= ~(uint64_t)(WIRE_CHUNK_BYTES - 1);
        break;
    case MESSAGE_PULL:
        out->pull.offset &= ~(uint64_t)(WIRE_CHUNK_BYTES - 1);
        break;
    default:
        break;
    }
    for (uint32_t i = out->bulks; i < WIRE_BULK_MAX; i++)
        out->bulk[i] = (struct bulk){NULL, 0};
}

void messages_random(struct rng *rng, uint32_t kind, struct message *out)
{
    memset(out, 0, sizeof(*out));
    out->kind = kind;
    out->run = rng_u64(rng);
    switch (kind) {
#define MESSAGE(KIND, name, Camel, UPPER, fields)                                                  \
    case MESSAGE_##KIND:                                                                           \
        random_message_##name(rng, &out->name);                                                    \
        break;
#include "common/wire/fields.def"
#undef MESSAGE
    }
    if (kind == MESSAGE_EPISODE_END)
        out->episode_end.length %= (uint64_t)1 << 40;
    random_bulk(rng, out);
}

int messages_equal(const struct message *a, const struct message *b)
{
    if (a->kind != b->kind || a->run != b->run || a->bulks != b->bulks)
        return 0;
    for (uint32_t i = 0; i < a->bulks; i++)
        if (a->bulk[i].size != b->bulk[i].size ||
            memcmp(a->bulk[i].data, b->bulk[i].data, a->bulk[i].size) != 0)
            return 0;
    switch (a->kind) {
#define MESSAGE(KIND, name, Camel, UPPER, fields)                                                  \
    case MESSAGE_##KIND:                                                                           \
        return equal_message_##name(&a->name, &b->name);
#include "common/wire/fields.def"
#undef MESSAGE
    default:
        return 0;
    }
}
