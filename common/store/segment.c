#include "common/store/segment.h"

#include <string.h>

#include <xxhash.h>

#include "common/util/error.h"

_Static_assert(sizeof(struct segment_head) == 104, "the layout is a disk format");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows and segments are little-endian");

uint32_t segment_block_rows(const struct row_schema *schema)
{
    return schema->obs_type == OBS_STATE ? SEGMENT_BLOCK_ROWS : 1;
}

static size_t blocks_of(const struct row_schema *schema, uint32_t rows)
{
    uint32_t per_block = segment_block_rows(schema);

    return ((size_t)rows + per_block - 1) / per_block;
}

size_t segment_bytes(const struct row_schema *schema, uint32_t rows)
{
    return sizeof(struct segment_head) + blocks_of(schema, rows) * sizeof(uint64_t) +
           rows * row_stride(schema);
}

uint32_t segment_rows_max(const struct row_schema *schema)
{
    uint32_t per_block = segment_block_rows(schema);
    size_t block = sizeof(uint64_t) + per_block * row_stride(schema);
    size_t room = SEGMENT_BYTES_MAX - sizeof(struct segment_head);
    size_t rows = room / block * per_block;
    size_t rest = room % block;

    if (rest > sizeof(uint64_t)) /* a last block that is not whole */
        rows += (rest - sizeof(uint64_t)) / row_stride(schema);
    return (uint32_t)rows;
}

static size_t rows_offset(const struct row_schema *schema, uint32_t rows)
{
    return sizeof(struct segment_head) + blocks_of(schema, rows) * sizeof(uint64_t);
}

/* Rows are not hashed by struct but by byte, so that a segment is the same wherever it lies. */
static uint64_t block_hash(const struct segment_head *head, const char *rows, size_t block)
{
    uint32_t per_block = segment_block_rows(&head->schema);
    size_t stride = row_stride(&head->schema);
    uint32_t first = (uint32_t)(block * per_block);
    uint32_t count = head->rows - first < per_block ? head->rows - first : per_block;

    return XXH3_64bits(rows + first * stride, count * stride);
}

static uint64_t head_hash(const struct segment_head *head, const char *table, size_t blocks)
{
    uint64_t seed = XXH3_64bits(table, blocks * sizeof(uint64_t));

    return XXH3_64bits_withSeed(head, offsetof(struct segment_head, hash), seed);
}

void *segment_begin(void *out, const struct segment_head *head)
{
    return (char *)out + rows_offset(&head->schema, head->rows);
}

void segment_finish(void *out, const struct segment_head *head)
{
    struct segment_head full = *head;
    size_t blocks = blocks_of(&head->schema, head->rows);
    char *table = (char *)out + sizeof(full);
    char *rows = (char *)out + rows_offset(&head->schema, head->rows);

    memcpy(full.magic, SEGMENT_MAGIC, sizeof(full.magic));
    full.version = SEGMENT_VERSION;
    full.length = (uint32_t)segment_bytes(&head->schema, head->rows);
    full.reserved = 0;
    TD_ASSERT(full.length <= SEGMENT_BYTES_MAX, "segment of %u bytes", full.length);
    for (size_t block = 0; block < blocks; block++) {
        uint64_t hash = block_hash(head, rows, block);

        memcpy(table + block * sizeof(hash), &hash, sizeof(hash));
    }
    full.hash = head_hash(&full, table, blocks);
    memcpy(out, &full, sizeof(full));
}

int segment_open(struct segment_head *head, const void *bytes, size_t length)
{
    const struct row_schema *schema = &head->schema;

    if (length < sizeof(*head))
        return TD_ECORRUPT;
    memcpy(head, bytes, sizeof(*head));
    if (memcmp(head->magic, SEGMENT_MAGIC, sizeof(head->magic)) != 0 ||
        head->version != SEGMENT_VERSION || head->reserved != 0)
        return TD_ECORRUPT;
    if (row_schema_check(schema) != NULL || head->rows == 0 ||
        head->rows > segment_rows_max(schema))
        return TD_ECORRUPT;
    if (head->length != segment_bytes(schema, head->rows) || head->length > length)
        return TD_ECORRUPT;
    if (head->hash != head_hash(head, (const char *)bytes + sizeof(*head),
                                blocks_of(schema, head->rows)))
        return TD_ECORRUPT;
    if ((head->flags & ~EPISODE_FLAGS_KNOWN) || head->rows > head->episode_rows)
        return TD_ECORRUPT;
    return TD_OK;
}

const void *segment_rows(const struct segment_head *head, const void *bytes, uint32_t first,
                         uint32_t count)
{
    uint32_t per_block = segment_block_rows(&head->schema);
    const char *table = (const char *)bytes + sizeof(*head);
    const char *rows = (const char *)bytes + rows_offset(&head->schema, head->rows);

    TD_ASSERT(count > 0 && first < head->rows && count <= head->rows - first,
              "rows %u+%u of %u", first, count, head->rows);
    for (size_t block = first / per_block; block <= (first + count - 1) / per_block; block++) {
        uint64_t expected;

        memcpy(&expected, table + block * sizeof(expected), sizeof(expected));
        if (block_hash(head, rows, block) != expected)
            return NULL;
    }
    return rows + first * row_stride(&head->schema);
}

size_t segment_find(const void *bytes, size_t length, size_t from)
{
    const char *found = from >= length ? NULL
                                       : memmem((const char *)bytes + from, length - from,
                                                SEGMENT_MAGIC, sizeof(SEGMENT_MAGIC) - 1);

    return found == NULL ? length : (size_t)(found - (const char *)bytes);
}
