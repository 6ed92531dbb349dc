#include "tests/support/segments.h"

#include <stdbool.h>
#include <string.h>

#include <xxhash.h>

#include "common/store/segment.h"

bool test_segment_rehash(char *bytes, size_t length)
{
    struct segment_head head;
    size_t blocks, hashes = sizeof(head), ends, tables, rows, stride;
    uint32_t widths[2];
    uint64_t hash;

    if (length < sizeof(head))
        return false;
    memcpy(&head, bytes, sizeof(head));
    if (row_schema_check(&head.schema) != NULL || head.rows > length)
        return false;
    blocks = (head.rows + segment_block_rows(&head.schema) - 1) / segment_block_rows(&head.schema);
    ends = hashes + blocks * sizeof(hash);
    tables = blocks * (sizeof(hash) + (head.packing == SEGMENT_ZSTD ? sizeof(uint32_t) : 0)) +
             (head.packing == SEGMENT_NARROW ? sizeof(widths) : 0);
    if (hashes + tables > length)
        return false;
    rows = hashes + tables;
    stride = row_stride(&head.schema);
    if (head.packing == SEGMENT_NARROW) { /* whatever they claim */
        memcpy(widths, bytes + ends, sizeof(widths));
        stride = sizeof(struct row_head) + ((size_t)widths[0] + widths[1]) * sizeof(float);
    }
    for (size_t block = 0; block < blocks; block++) {
        size_t each = segment_block_rows(&head.schema) * stride, from = rows + block * each;
        size_t to = from + each < rows + head.rows * stride ? from + each : rows + head.rows * stride;
        uint32_t end;

        if (head.packing == SEGMENT_ZSTD) {
            from = rows;
            if (block > 0) {
                memcpy(&end, bytes + ends + (block - 1) * sizeof(end), sizeof(end));
                from = end;
            }
            memcpy(&end, bytes + ends + block * sizeof(end), sizeof(end));
            to = end;
        }
        if (from > to || to > length)
            continue; /* there is nothing to hash */
        hash = XXH3_64bits(bytes + from, to - from);
        memcpy(bytes + hashes + block * sizeof(hash), &hash, sizeof(hash));
    }
    hash = XXH3_64bits_withSeed(bytes, offsetof(struct segment_head, hash), XXH3_64bits(bytes + hashes, tables));
    memcpy(bytes + offsetof(struct segment_head, hash), &hash, sizeof(hash));
    return true;
}
