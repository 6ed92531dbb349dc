/*
 * segment.h - a self-describing run of rows of one finished episode, the unit in which rows rest.
 *
 *   [struct segment_head][one hash per block][rows]            little-endian, at most 256 KiB
 *
 * The head names the run, store, stream, epoch, episode and sequence its rows belong to, so that a
 * file of which nothing else is left can still be read. A block is 16 rows, or one row of frames;
 * its xxHash64 (XXH3) stands in the table, and the head's own hash covers head and table. All
 * segments of an episode but the last are full, so row r lies in segment r / segment_rows_max.
 *
 * Frames may be packed, each row by itself (packer.h). Then where each block ends, from the segment's
 * first byte, stands behind the hashes as a u32, hashes are of packed bytes, and a block as long as a
 * row is one that zstd could not make smaller. A packed segment is shorter than the plain one.
 *
 * Rows of states may be narrow: columns of observation and action that are zero (all bits) in every row from
 * some column to the last, as the padding of a task among many is, are left out. How many are there stands
 * behind the hashes as two u32; hashes are of narrow rows. The schema is the store's all the same.
 *
 * The functions are pure; bytes need no alignment and are hostile until checked.
 */
#ifndef TD_STORE_SEGMENT_H
#define TD_STORE_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "common/store/packer.h"
#include "common/store/row.h"

#define SEGMENT_MAGIC      "TDMPC2\x1a\x01"
#define SEGMENT_VERSION    1u
#define SEGMENT_BYTES_MAX  ((size_t)256 * 1024)
#define SEGMENT_BLOCK_ROWS 16u /* of states; a row of frames is a block of its own */

/* What an episode is, in segment heads and index records. */
enum episode_flags {
    EPISODE_TERMINATED = 1u << 0, /* its last row is terminal */
    EPISODE_TRUNCATED = 1u << 1,  /* its last row met a time limit */
    EPISODE_ABORTED = 1u << 2,    /* cut short by its actor's end; sampled as a time limit */
    EPISODE_DAMAGED = 1u << 3,    /* rows failed their hash before they were sealed: never sampled */
};
#define EPISODE_TASK_SHIFT  16 /* the upper half is the task's index, that of its first row */
#define EPISODE_FLAGS_KNOWN (15u | UINT32_MAX << EPISODE_TASK_SHIFT)

static inline uint32_t episode_task(uint32_t flags)
{
    return flags >> EPISODE_TASK_SHIFT;
}

/* How its rows lie there. */
enum segment_packing { SEGMENT_PLAIN = 0, SEGMENT_ZSTD = 1, SEGMENT_NARROW = 2 };

/* The bytes in front; a disk format. */
struct segment_head {
    char magic[8];
    uint32_t version;
    uint32_t length; /* bytes of the whole segment */
    struct row_schema schema;
    uint32_t rows; /* here */
    uint32_t slot; /* the stream */
    uint32_t env;
    uint32_t flags;        /* enum episode_flags */
    uint32_t index;        /* of this segment in its episode */
    uint32_t episode_rows; /* rows of the whole episode */
    uint32_t packing;      /* enum segment_packing */
    uint64_t run_id;
    uint64_t store_id;
    uint64_t epoch;    /* of the stream */
    uint64_t episode;  /* id in its store */
    uint64_t sequence; /* of the first row here */
    uint64_t hash;     /* of all the above and the table of hashes */
};

/* Rows per hash, rows of a full segment (0: one row does not fit), bytes of a plain segment of `rows`. */
uint32_t segment_block_rows(const struct row_schema *schema);
uint32_t segment_rows_max(const struct row_schema *schema);
size_t segment_bytes(const struct row_schema *schema, uint32_t rows);

/*
 * Make a plain segment in out [segment_bytes]: begin returns where its rows belong, finish hashes them.
 * `head` gives everything but magic, version, length, packing and hash.
 */
void *segment_begin(void *out, const struct segment_head *head);
void segment_finish(void *out, const struct segment_head *head);

/* Make a packed one of rows of frames in out [SEGMENT_BYTES_MAX]. Returns its length, or 0: plain is no longer. */
size_t segment_pack(void *out, const struct segment_head *head, const void *rows, packer_t *packer);

/* Make a narrow one of rows of states in out [SEGMENT_BYTES_MAX]. Returns its length, or 0: plain is no longer. */
size_t segment_narrow(void *out, const struct segment_head *head, const void *rows);

/*
 * Read the head of `bytes` and check magic, version, sizes, flags, tables and the hash of head and tables.
 * `length` may exceed the segment's own. Returns TD_OK, or TD_ECORRUPT.
 */
int segment_open(struct segment_head *head, const void *bytes, size_t length);

/*
 * The rows first..first+count-1 of an opened segment, after checking every block they touch: in place,
 * or packed and narrow ones in the packer's room, whole again. Returns NULL when a hash does not match.
 * Asserts that the rows exist. Plain segments need no packer.
 */
const void *segment_rows(const struct segment_head *head, const void *bytes, uint32_t first,
                         uint32_t count, packer_t *packer);

/* The offset of the next magic in bytes [length] at or behind `from`, or `length`. */
size_t segment_find(const void *bytes, size_t length, size_t from);

#endif
