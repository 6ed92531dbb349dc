#include "common/store/segment.h"

#include <stdbool.h>
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

/* Columns that a narrow segment keeps. */
struct widths {
    uint32_t obs, action;
};

/* Bytes of the hashes and of what stands behind them: a packed segment's ends, a narrow one's widths. */
static size_t tables_bytes(const struct segment_head *head)
{
    size_t each = sizeof(uint64_t) + (head->packing == SEGMENT_ZSTD ? sizeof(uint32_t) : 0);
    size_t widths = head->packing == SEGMENT_NARROW ? sizeof(struct widths) : 0;

    return blocks_of(&head->schema, head->rows) * each + widths;
}

static struct widths widths_of(const struct segment_head *head, const char *bytes)
{
    struct widths widths;

    memcpy(&widths, bytes + rows_offset(&head->schema, head->rows), sizeof(widths));
    return widths;
}

static size_t narrow_stride(const struct widths *widths)
{
    return sizeof(struct row_head) + ((size_t)widths->obs + widths->action) * sizeof(float);
}

/* Where packed block `block` begins in the segment; of the one behind the last: where that ends. */
static uint32_t packed_start(const struct segment_head *head, const char *bytes, size_t block)
{
    uint32_t start = (uint32_t)(sizeof(*head) + tables_bytes(head));

    if (block > 0)
        memcpy(&start, bytes + rows_offset(&head->schema, head->rows) + (block - 1) * sizeof(start), sizeof(start));
    return start;
}

/* Rows are not hashed by struct but by byte, so that a segment is the same wherever it lies. */
static uint64_t block_hash(const struct segment_head *head, const char *bytes, size_t block)
{
    uint32_t per_block = segment_block_rows(&head->schema);
    size_t stride = row_stride(&head->schema), offset = sizeof(*head) + tables_bytes(head);
    uint32_t first = (uint32_t)(block * per_block);
    uint32_t count = head->rows - first < per_block ? head->rows - first : per_block;
    struct widths widths;
    uint32_t start;

    if (head->packing == SEGMENT_NARROW) {
        widths = widths_of(head, bytes);
        stride = narrow_stride(&widths);
    }
    if (head->packing != SEGMENT_ZSTD)
        return XXH3_64bits(bytes + offset + first * stride, count * stride);
    start = packed_start(head, bytes, block);
    return XXH3_64bits(bytes + start, packed_start(head, bytes, block + 1) - start);
}

static bool block_holds(const struct segment_head *head, const char *bytes, size_t block)
{
    uint64_t expected;

    memcpy(&expected, bytes + sizeof(*head) + block * sizeof(expected), sizeof(expected));
    return block_hash(head, bytes, block) == expected;
}

static uint64_t head_hash(const struct segment_head *head, const char *tables)
{
    uint64_t seed = XXH3_64bits(tables, tables_bytes(head));

    return XXH3_64bits_withSeed(head, offsetof(struct segment_head, hash), seed);
}

void *segment_begin(void *out, const struct segment_head *head)
{
    return (char *)out + rows_offset(&head->schema, head->rows);
}

/* Head and hashes of a segment whose rows, and their ends, are in place. */
static void finish(char *out, const struct segment_head *head, enum segment_packing packing, size_t length)
{
    struct segment_head full = *head;

    memcpy(full.magic, SEGMENT_MAGIC, sizeof(full.magic));
    full.version = SEGMENT_VERSION;
    full.packing = packing;
    full.length = (uint32_t)length;
    TD_ASSERT(length <= SEGMENT_BYTES_MAX, "segment of %zu bytes", length);
    for (size_t block = 0; block < blocks_of(&head->schema, head->rows); block++) {
        uint64_t hash = block_hash(&full, out, block);

        memcpy(out + sizeof(full) + block * sizeof(hash), &hash, sizeof(hash));
    }
    full.hash = head_hash(&full, out + sizeof(full));
    memcpy(out, &full, sizeof(full));
}

void segment_finish(void *out, const struct segment_head *head)
{
    finish(out, head, SEGMENT_PLAIN, segment_bytes(&head->schema, head->rows));
}

size_t segment_pack(void *out, const struct segment_head *head, const void *rows, packer_t *packer)
{
    struct segment_head full = *head;
    size_t stride = row_stride(&head->schema);
    char *bytes = out, *ends = bytes + rows_offset(&head->schema, head->rows);
    uint32_t at;

    TD_ASSERT(head->schema.obs_type == OBS_RGB, "rows of type %u are not packed", head->schema.obs_type);
    full.packing = SEGMENT_ZSTD;
    at = packed_start(&full, bytes, 0);
    for (uint32_t i = 0; i < head->rows; i++, ends += sizeof(at)) {
        const char *row = (const char *)rows + i * stride;
        size_t packed;

        if (at + stride > SEGMENT_BYTES_MAX) /* it might not fit any more */
            return 0;
        if ((packed = packer_pack(packer, bytes + at, row, stride)) == 0) {
            memcpy(bytes + at, row, stride);
            packed = stride;
        }
        at += (uint32_t)packed;
        memcpy(ends, &at, sizeof(at));
    }
    if (at >= segment_bytes(&head->schema, head->rows))
        return 0;
    finish(bytes, head, SEGMENT_ZSTD, at);
    return at;
}

/* Of the u32 at `bytes`, those before the last that is not zero, but at least `least`. */
static uint32_t used(const char *bytes, uint32_t count, uint32_t least)
{
    for (; count > least; count--) {
        uint32_t bits;

        memcpy(&bits, bytes + (count - 1) * sizeof(bits), sizeof(bits));
        if (bits != 0)
            break;
    }
    return count;
}

static struct widths find_widths(const struct segment_head *head, const char *rows)
{
    size_t stride = row_stride(&head->schema), action = sizeof(struct row_head) + row_obs_bytes(&head->schema);
    struct widths widths = {0, 0};

    for (uint32_t i = 0; i < head->rows; i++, rows += stride) {
        widths.obs = used(rows + sizeof(struct row_head), head->schema.obs_dim, widths.obs);
        widths.action = used(rows + action, head->schema.action_dim, widths.action);
    }
    return widths;
}

size_t segment_narrow(void *out, const struct segment_head *head, const void *rows)
{
    struct segment_head full = *head;
    struct widths widths = find_widths(head, rows);
    const char *row = rows;
    size_t stride = row_stride(&head->schema), front = sizeof(struct row_head) + widths.obs * sizeof(float);
    size_t action = sizeof(struct row_head) + row_obs_bytes(&head->schema), length;
    char *at;

    TD_ASSERT(head->schema.obs_type == OBS_STATE, "rows of type %u are not made narrow", head->schema.obs_type);
    full.packing = SEGMENT_NARROW;
    length = sizeof(full) + tables_bytes(&full) + head->rows * narrow_stride(&widths);
    if (length >= segment_bytes(&head->schema, head->rows))
        return 0;
    memcpy((char *)out + rows_offset(&head->schema, head->rows), &widths, sizeof(widths));
    at = (char *)out + sizeof(full) + tables_bytes(&full);
    for (uint32_t i = 0; i < head->rows; i++, row += stride, at += narrow_stride(&widths)) {
        memcpy(at, row, front);
        memcpy(at + front, row + action, widths.action * sizeof(float));
    }
    finish(out, head, SEGMENT_NARROW, length);
    return length;
}

/* Sizes that agree with each other and with `length` bytes, before anything of the tables is read. */
static bool sizes_hold(const struct segment_head *head, size_t length)
{
    size_t plain;

    if (row_schema_check(&head->schema) != NULL || head->rows == 0 || head->rows > segment_rows_max(&head->schema) ||
        head->length > length)
        return false;
    plain = segment_bytes(&head->schema, head->rows);
    if (head->packing == SEGMENT_PLAIN)
        return head->length == plain;
    if (head->packing != (head->schema.obs_type == OBS_RGB ? SEGMENT_ZSTD : SEGMENT_NARROW))
        return false;
    return head->length < plain && head->length > sizeof(*head) + tables_bytes(head);
}

/* The widths are within the schema's, and those that the length says. */
static bool widths_hold(const struct segment_head *head, const char *bytes)
{
    struct widths widths = widths_of(head, bytes);

    return widths.obs <= head->schema.obs_dim && widths.action <= head->schema.action_dim &&
           head->length == sizeof(*head) + tables_bytes(head) + head->rows * narrow_stride(&widths);
}

/* The blocks of a packed segment follow each other to its end, none longer than a row. */
static bool ends_hold(const struct segment_head *head, const char *bytes)
{
    size_t blocks = blocks_of(&head->schema, head->rows), stride = row_stride(&head->schema);

    for (size_t block = 0; block < blocks; block++) {
        uint32_t start = packed_start(head, bytes, block), end = packed_start(head, bytes, block + 1);

        if (end <= start || end - start > stride || end > head->length)
            return false;
    }
    return packed_start(head, bytes, blocks) == head->length;
}

int segment_open(struct segment_head *head, const void *bytes, size_t length)
{
    if (length < sizeof(*head))
        return TD_ECORRUPT;
    memcpy(head, bytes, sizeof(*head));
    if (memcmp(head->magic, SEGMENT_MAGIC, sizeof(head->magic)) != 0 || head->version != SEGMENT_VERSION ||
        !sizes_hold(head, length))
        return TD_ECORRUPT;
    if (head->hash != head_hash(head, (const char *)bytes + sizeof(*head)))
        return TD_ECORRUPT;
    if ((head->flags & ~EPISODE_FLAGS_KNOWN) || head->rows > head->episode_rows ||
        (head->packing == SEGMENT_ZSTD && !ends_hold(head, bytes)) ||
        (head->packing == SEGMENT_NARROW && !widths_hold(head, bytes)))
        return TD_ECORRUPT;
    return TD_OK;
}

/* Packed rows whose hashes hold, in the packer's room. */
static const void *unpack_rows(const struct segment_head *head, const char *bytes, uint32_t first,
                               uint32_t count, packer_t *packer)
{
    size_t stride = row_stride(&head->schema);
    char *rows = packer_room(packer), *row = rows;

    for (uint32_t block = first; block < first + count; block++, row += stride) {
        uint32_t start = packed_start(head, bytes, block);
        size_t packed = packed_start(head, bytes, block + 1) - start;

        if (packed == stride)
            memcpy(row, bytes + start, stride);
        else if (!packer_unpack(packer, row, stride, bytes + start, packed))
            return NULL;
    }
    return rows;
}

/* Narrow rows, whose hashes hold, with their zeros again, in the packer's room. */
static const void *widen_rows(const struct segment_head *head, const char *bytes, uint32_t first, uint32_t count,
                              packer_t *packer)
{
    struct widths widths = widths_of(head, bytes);
    size_t stride = row_stride(&head->schema), narrow = narrow_stride(&widths);
    size_t front = sizeof(struct row_head) + widths.obs * sizeof(float);
    size_t action = sizeof(struct row_head) + row_obs_bytes(&head->schema);
    const char *from = bytes + sizeof(*head) + tables_bytes(head) + first * narrow;
    char *rows = packer_room(packer), *row = rows;

    for (uint32_t i = 0; i < count; i++, row += stride, from += narrow) {
        size_t end = action + widths.action * sizeof(float);

        memcpy(row, from, front);
        memset(row + front, 0, action - front);
        memcpy(row + action, from + front, widths.action * sizeof(float));
        memset(row + end, 0, stride - end);
    }
    return rows;
}

const void *segment_rows(const struct segment_head *head, const void *bytes, uint32_t first,
                         uint32_t count, packer_t *packer)
{
    uint32_t per_block = segment_block_rows(&head->schema);

    TD_ASSERT(count > 0 && first < head->rows && count <= head->rows - first,
              "rows %u+%u of %u", first, count, head->rows);
    for (size_t block = first / per_block; block <= (first + count - 1) / per_block; block++)
        if (!block_holds(head, bytes, block))
            return NULL;
    if (head->packing == SEGMENT_ZSTD)
        return unpack_rows(head, bytes, first, count, packer);
    if (head->packing == SEGMENT_NARROW)
        return widen_rows(head, bytes, first, count, packer);
    return (const char *)bytes + rows_offset(&head->schema, head->rows) + first * row_stride(&head->schema);
}

size_t segment_find(const void *bytes, size_t length, size_t from)
{
    const char *found = from >= length ? NULL
                                       : memmem((const char *)bytes + from, length - from,
                                                SEGMENT_MAGIC, sizeof(SEGMENT_MAGIC) - 1);

    return found == NULL ? length : (size_t)(found - (const char *)bytes);
}
