/* segment.c: whole segments are read back; torn, flipped and cut ones never are. */
#include "common/store/segment.h"
#include "tests/support/test.h"

static const struct row_schema state_schema = {OBS_STATE, 5, 2};
static const struct row_schema frame_schema = {OBS_RGB, 3001, 2};

/* A segment of random rows, not aligned, in malloc'd memory of exactly its length + 1. */
static char *make(const struct row_schema *schema, uint32_t rows, size_t *length, char **allocated)
{
    struct segment_head head = {
        .schema = *schema, .rows = rows, .slot = 3, .env = 1, .flags = EPISODE_TRUNCATED,
        .index = 2, .episode_rows = rows + 7, .run_id = 11, .store_id = 12, .epoch = 13,
        .episode = 14, .sequence = 15,
    };
    char *bytes, *out;

    *length = segment_bytes(schema, rows);
    *allocated = malloc(*length + 1);
    bytes = *allocated + 1;
    out = segment_begin(bytes, &head);
    for (size_t i = 0; i < rows * row_stride(schema); i++)
        out[i] = (char)rng_u32(test_rng());
    segment_finish(bytes, &head);
    return bytes;
}

static void sizes_fill_256_kib(void **state)
{
    const struct row_schema *schemas[] = {&state_schema, &frame_schema};
    struct row_schema widest = {OBS_RGB, ROW_BYTES_MAX - 24 - 4, 1};

    (void)state;
    for (size_t i = 0; i < TD_LEN(schemas); i++) {
        uint32_t most = segment_rows_max(schemas[i]);

        assert_true(segment_bytes(schemas[i], most) <= SEGMENT_BYTES_MAX);
        assert_true(segment_bytes(schemas[i], most + 1) > SEGMENT_BYTES_MAX);
    }
    assert_null(row_schema_check(&widest));
    assert_int_equal(segment_rows_max(&widest), 1);
}

static void rows_come_back(void **state)
{
    static const uint32_t counts[] = {1, 15, 16, 17, 100};
    const struct row_schema *schemas[] = {&state_schema, &frame_schema};

    (void)state;
    for (size_t i = 0; i < TD_LEN(counts) * TD_LEN(schemas); i++) {
        const struct row_schema *schema = schemas[i / TD_LEN(counts)];
        uint32_t rows = counts[i % TD_LEN(counts)];
        struct segment_head head;
        size_t length;
        char *allocated, *bytes;

        if (rows > segment_rows_max(schema))
            continue;
        bytes = make(schema, rows, &length, &allocated);
        assert_int_equal(segment_open(&head, bytes, length), TD_OK);
        assert_int_equal(head.rows, rows);
        assert_int_equal(head.episode, 14);
        assert_int_equal(head.sequence, 15);
        for (uint32_t first = 0; first < rows; first++)
            assert_non_null(segment_rows(&head, bytes, first, rows - first));
        assert_ptr_equal(segment_rows(&head, bytes, 0, rows),
                         bytes + length - rows * row_stride(schema));
        free(allocated);
    }
}

/* Any flipped bit is seen by open or by reading the rows of its block, and by no other block. */
static void any_flipped_bit_is_seen(void **state)
{
    struct segment_head head;
    size_t length, rows_at, stride = row_stride(&state_schema);
    char *allocated, *bytes = make(&state_schema, 40, &length, &allocated);

    (void)state;
    rows_at = length - 40 * stride;
    for (size_t bit = 0; bit < length * 8; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        if (bit / 8 < rows_at) {
            assert_int_equal(segment_open(&head, bytes, length), TD_ECORRUPT);
        } else {
            uint32_t row = (uint32_t)((bit / 8 - rows_at) / stride), block = row / 16;

            assert_int_equal(segment_open(&head, bytes, length), TD_OK);
            assert_null(segment_rows(&head, bytes, row, 1));
            assert_null(segment_rows(&head, bytes, 0, 40));
            for (uint32_t other = 0; other < 3; other++)
                assert_true((segment_rows(&head, bytes, other * 16, 1) == NULL) == (other == block));
        }
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(allocated);
}

static void any_truncation_is_seen(void **state)
{
    struct segment_head head;
    size_t length;
    char *allocated, *bytes = make(&state_schema, 40, &length, &allocated);

    (void)state;
    for (size_t shorter = 0; shorter < length; shorter++) {
        char *cut = malloc(shorter + 1); /* of its own, so that ASan sees a read beyond */

        memcpy(cut, bytes, shorter);
        assert_int_equal(segment_open(&head, cut, shorter), TD_ECORRUPT);
        free(cut);
    }
    free(allocated);
}

/* A write that only reached some 512-byte sectors. */
static void any_torn_sector_is_seen(void **state)
{
    struct segment_head head;
    size_t length;
    char *allocated, *bytes = make(&frame_schema, 20, &length, &allocated);
    char *torn = malloc(length);

    (void)state;
    for (size_t sector = 0; sector * 512 < length; sector++) {
        size_t bytes_here = length - sector * 512 < 512 ? length - sector * 512 : 512;

        memcpy(torn, bytes, length);
        memset(torn + sector * 512, 0, bytes_here);
        assert_true(segment_open(&head, torn, length) == TD_ECORRUPT ||
                    segment_rows(&head, torn, 0, 20) == NULL);
    }
    free(torn);
    free(allocated);
}

/* Heads with sizes that lie, hashed properly: what an attacker, or an older version, may write. */
static void honest_hashes_of_impossible_heads_are_refused(void **state)
{
    size_t length;
    char *allocated, *bytes = make(&state_schema, 40, &length, &allocated);
    struct segment_head good, head;

    (void)state;
    assert_int_equal(segment_open(&good, bytes, length), TD_OK);
    head = good;
    head.flags = 1u << 9;
    segment_finish(bytes, &head);
    assert_int_equal(segment_open(&head, bytes, length), TD_ECORRUPT);
    head = good;
    head.episode_rows = 39;
    segment_finish(bytes, &head);
    assert_int_equal(segment_open(&head, bytes, length), TD_ECORRUPT);
    segment_finish(bytes, &good);
    assert_int_equal(segment_open(&head, bytes, length), TD_OK);
    free(allocated);
}

static void find_walks_over_magics(void **state)
{
    char bytes[64] = {0};

    (void)state;
    assert_int_equal(segment_find(bytes, sizeof(bytes), 0), sizeof(bytes));
    memcpy(bytes + 10, SEGMENT_MAGIC, 8);
    memcpy(bytes + 56, SEGMENT_MAGIC, 8);
    assert_int_equal(segment_find(bytes, sizeof(bytes), 0), 10);
    assert_int_equal(segment_find(bytes, sizeof(bytes), 11), 56);
    assert_int_equal(segment_find(bytes, sizeof(bytes), 57), sizeof(bytes));
    assert_int_equal(segment_find(bytes, 63, 11), 63);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_fill_256_kib),
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(any_flipped_bit_is_seen),
        cmocka_unit_test(any_truncation_is_seen),
        cmocka_unit_test(any_torn_sector_is_seen),
        cmocka_unit_test(honest_hashes_of_impossible_heads_are_refused),
        cmocka_unit_test(find_walks_over_magics),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
