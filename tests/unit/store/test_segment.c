/* segment.c: whole segments are read back; torn, flipped and cut ones never are. */
#include "common/store/segment.h"
#include <stddef.h>

#include <xxhash.h>
#include <zstd.h>

#include "tests/support/segments.h"
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

/* Frames as pictures are, every fifth of noise, in a packed segment of malloc'd memory of exactly its length. */
static char *make_packed(uint32_t rows, size_t *length, char **frames, packer_t *packer)
{
    struct segment_head head = {.schema = frame_schema, .rows = rows, .slot = 3, .index = 2, .episode_rows = rows,
                                .epoch = 13, .episode = 14};
    size_t stride = row_stride(&frame_schema);
    char *bytes = malloc(SEGMENT_BYTES_MAX), *exact;

    *frames = malloc(rows * stride);
    for (size_t i = 0; i < rows * stride; i++)
        (*frames)[i] = (char)(i / stride % 5 == 4 ? rng_u32(test_rng()) : i / 64 + (rng_u32(test_rng()) % 8 == 0));
    *length = segment_pack(bytes, &head, *frames, packer);
    assert_true(*length > 0 && *length < segment_bytes(&frame_schema, rows));
    exact = malloc(*length);
    memcpy(exact, bytes, *length);
    free(bytes);
    return exact;
}

static packer_t *new_packer(void)
{
    packer_t *packer;

    assert_int_equal(packer_create(&packer), TD_OK);
    return packer;
}

/* Rows of states of which only the first columns, `obs` and `action`, are not zero in all rows. */
static char *make_narrow(uint32_t rows, uint32_t obs, uint32_t action, size_t *length, char **wide)
{
    struct segment_head head = {.schema = state_schema, .rows = rows, .slot = 3, .index = 2, .episode_rows = rows,
                                .epoch = 13, .episode = 14};
    size_t stride = row_stride(&state_schema);
    char *bytes = malloc(SEGMENT_BYTES_MAX), *exact;

    *wide = calloc(rows, stride);
    for (uint32_t i = 0; i < rows; i++) {
        char *row = *wide + i * stride;

        for (size_t k = 0; k < 24 + 4 * obs; k++)
            row[k] = (char)rng_u32(test_rng());
        for (size_t k = 0; k < 4 * action; k++)
            row[24 + 20 + k] = (char)(rng_u32(test_rng()) | (i == rows / 2 && k == 4 * action - 1));
    }
    if (obs > 0)
        (*wide)[(rows - 1) * stride + 24 + 4 * obs - 1] = (char)0x80; /* minus zero is not left out */
    *length = segment_narrow(bytes, &head, *wide);
    exact = malloc(*length + 1);
    memcpy(exact, bytes, *length);
    free(bytes);
    return exact;
}

static void narrow_rows_come_back(void **state)
{
    static const uint32_t counts[] = {1, 16, 17, 101};
    size_t stride = row_stride(&state_schema);
    packer_t *packer = new_packer();

    (void)state;
    for (uint32_t i = 0; i < TD_LEN(counts) * 18; i++) {
        uint32_t rows = counts[i / 18], obs = i % 6, action = i / 6 % 3;
        struct segment_head head;
        size_t length;
        char *wide, *bytes = make_narrow(rows, obs, action, &length, &wide);

        if (length == 0) { /* the widths would take as much as they save */
            assert_true((7 - obs - action) * 4 * rows <= 8);
        } else {
            assert_int_equal(length, segment_bytes(&state_schema, rows) - (7 - obs - action) * 4 * rows + 8);
            assert_int_equal(segment_open(&head, bytes, length), TD_OK);
            for (uint32_t first = 0; first < rows; first++)
                assert_memory_equal(segment_rows(&head, bytes, first, rows - first, packer), wide + first * stride,
                                    (rows - first) * stride);
        }
        free(bytes);
        free(wide);
    }
    packer_destroy(&packer);
}

/* Any flipped bit is seen; widths that lie, under good hashes, are refused before they are used. */
static void narrow_segments_are_checked(void **state)
{
    struct segment_head head;
    size_t length;
    char *wide, *bytes = make_narrow(33, 3, 1, &length, &wide);
    packer_t *packer = new_packer();

    (void)state;
    for (size_t bit = 0; bit < length * 8; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        assert_true(segment_open(&head, bytes, length) != TD_OK || segment_rows(&head, bytes, 0, 33, packer) == NULL);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (uint32_t obs = 0; obs < 9; obs++)
        for (uint32_t action = 0; action < 9; action++) {
            uint32_t lie[2] = {obs < 8 ? obs : UINT32_MAX - 3, action < 8 ? action : UINT32_MAX};
            uint64_t hash;

            assert_int_equal(segment_open(&head, bytes, length), TD_OK);
            memcpy(bytes + sizeof(head) + 3 * 8, lie, sizeof(lie));
            hash = XXH3_64bits_withSeed(bytes, offsetof(struct segment_head, hash),
                                        XXH3_64bits(bytes + sizeof(head), 3 * 8 + sizeof(lie)));
            memcpy(bytes + offsetof(struct segment_head, hash), &hash, sizeof(hash));
            if (lie[0] + lie[1] != 4 || lie[0] > 5 || lie[1] > 2)
                assert_int_equal(segment_open(&head, bytes, length), TD_ECORRUPT);
            memcpy(bytes + sizeof(head) + 3 * 8, (uint32_t[]){3, 1}, sizeof(lie));
            hash = XXH3_64bits_withSeed(bytes, offsetof(struct segment_head, hash),
                                        XXH3_64bits(bytes + sizeof(head), 3 * 8 + sizeof(lie)));
            memcpy(bytes + offsetof(struct segment_head, hash), &hash, sizeof(hash));
        }
    packer_destroy(&packer);
    free(bytes);
    free(wide);
}

static void packed_rows_come_back(void **state)
{
    static const uint32_t counts[] = {1, 2, 21, 60};
    packer_t *packer = new_packer();
    size_t stride = row_stride(&frame_schema);

    (void)state;
    for (size_t i = 0; i < TD_LEN(counts); i++) {
        struct segment_head head;
        size_t length;
        char *frames, *bytes = make_packed(counts[i], &length, &frames, packer);

        assert_int_equal(segment_open(&head, bytes, length), TD_OK);
        assert_int_equal(head.packing, SEGMENT_ZSTD);
        for (uint32_t first = 0; first < counts[i]; first++)
            for (uint32_t count = 1; count <= counts[i] - first; count += 7) {
                const char *rows = segment_rows(&head, bytes, first, count, packer);

                assert_non_null(rows);
                assert_memory_equal(rows, frames + first * stride, count * stride);
            }
        free(frames);
        free(bytes);
    }
    packer_destroy(&packer);
}

/* What zstd cannot make smaller is stored as it is, and told apart. */
static void noise_is_not_packed(void **state)
{
    struct segment_head head = {.schema = frame_schema, .rows = 20, .episode_rows = 20};
    size_t bytes = 20 * row_stride(&frame_schema);
    char *noise = malloc(bytes), *out = malloc(SEGMENT_BYTES_MAX);
    packer_t *packer = new_packer();

    (void)state;
    for (size_t i = 0; i < bytes; i++)
        noise[i] = (char)rng_u32(test_rng());
    assert_int_equal(segment_pack(out, &head, noise, packer), 0);
    packer_destroy(&packer);
    free(noise);
    free(out);
}

/* Any flipped bit of a packed segment costs at most the row that it lies in. */
static void any_flipped_bit_of_a_packed_one_is_seen(void **state)
{
    packer_t *packer = new_packer();
    size_t length, tables = sizeof(struct segment_head) + 6 * (8 + 4);
    char *frames, *bytes = make_packed(6, &length, &frames, packer);
    struct segment_head head;

    (void)state;
    for (size_t bit = 0; bit < length * 8; bit++) {
        int bad = 0;

        bytes[bit / 8] ^= (char)(1 << bit % 8);
        if (bit / 8 < tables) {
            assert_int_equal(segment_open(&head, bytes, length), TD_ECORRUPT);
        } else {
            assert_int_equal(segment_open(&head, bytes, length), TD_OK);
            for (uint32_t row = 0; row < 6; row++)
                bad += segment_rows(&head, bytes, row, 1, packer) == NULL;
            assert_int_equal(bad, 1);
        }
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(frames);
    free(bytes);
    packer_destroy(&packer);
}

static void any_truncation_of_a_packed_one_is_seen(void **state)
{
    packer_t *packer = new_packer();
    size_t length;
    char *frames, *bytes = make_packed(4, &length, &frames, packer);
    struct segment_head head;

    (void)state;
    for (size_t shorter = 0; shorter < length; shorter++) {
        char *cut = malloc(shorter + 1);

        memcpy(cut, bytes, shorter);
        assert_int_equal(segment_open(&head, cut, shorter), TD_ECORRUPT);
        free(cut);
    }
    free(frames);
    free(bytes);
    packer_destroy(&packer);
}

/* The last row's block replaced by `block`, every hash made to hold. */
static bool last_row_is_taken(const char *bytes, size_t length, uint32_t rows, const void *block, size_t size,
                              packer_t *packer)
{
    size_t ends = sizeof(struct segment_head) + rows * 8;
    uint32_t start, end;
    struct segment_head head;
    char *lie = malloc(length + size);
    bool taken;

    memcpy(&start, bytes + ends + (rows - 2) * 4, sizeof(start));
    memcpy(lie, bytes, start);
    memcpy(lie + start, block, size);
    end = start + (uint32_t)size;
    memcpy(lie + ends + (rows - 1) * 4, &end, sizeof(end));
    memcpy(&head, lie, sizeof(head));
    head.length = end;
    memcpy(lie, &head, sizeof(head));
    assert_true(test_segment_rehash(lie, end));
    taken = segment_open(&head, lie, end) == TD_OK && segment_rows(&head, lie, rows - 1, 1, packer) != NULL;
    free(lie);
    return taken;
}

/* Blocks that zstd would take, or choke on, but nobody wrote: refused though all hashes hold. */
static void honest_hashes_of_hostile_blocks_are_refused(void **state)
{
    enum { ROWS = 4 };
    packer_t *packer = new_packer();
    size_t length, stride = row_stride(&frame_schema), size, half;
    char *frames, *bytes = make_packed(ROWS, &length, &frames, packer);
    char block[4000] = {0}, zeros[8000] = {0};
    const uint32_t skippable[2] = {0x184D2A50, 8}, legacy[4] = {0xFD2FB527, 1, 2, 3};
    ZSTD_CCtx *context = ZSTD_createCCtx();

    (void)state;
    size = ZSTD_compress(block, sizeof(block), zeros, stride, 3);
    assert_true(last_row_is_taken(bytes, length, ROWS, block, size, packer)); /* the harness itself */
    block[size] = 0;
    assert_false(last_row_is_taken(bytes, length, ROWS, block, size + 1, packer));
    memcpy(block + size, skippable, sizeof(skippable)); /* a frame to skip behind it */
    assert_false(last_row_is_taken(bytes, length, ROWS, block, size + 16, packer));
    for (size_t wrong = 0; wrong < sizeof(zeros); wrong += 7) { /* longer and shorter contents */
        size = ZSTD_compress(block, sizeof(block), zeros, wrong, 1);
        assert_true(wrong == stride || !last_row_is_taken(bytes, length, ROWS, block, size, packer));
    }
    half = ZSTD_compress(block, sizeof(block), zeros, stride / 2, 1); /* two that add up */
    size = half + ZSTD_compress(block + half, sizeof(block) - half, zeros, stride - stride / 2, 1);
    assert_false(last_row_is_taken(bytes, length, ROWS, block, size, packer));
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0); /* one that does not say how long it is */
    size = ZSTD_compress2(context, block, sizeof(block), zeros, stride);
    assert_false(last_row_is_taken(bytes, length, ROWS, block, size, packer));
    memcpy(block, legacy, sizeof(legacy));
    assert_false(last_row_is_taken(bytes, length, ROWS, block, 900, packer));
    for (int i = 0; i < 2000; i++) { /* a good beginning, then anything */
        size = ZSTD_compress(block, sizeof(block), frames + 2 * stride, stride, 1);
        for (uint32_t changes = 1 + rng_below(test_rng(), 8); changes > 0; changes--)
            block[4 + rng_below(test_rng(), (uint32_t)size - 4)] = (char)rng_u32(test_rng());
        (void)last_row_is_taken(bytes, length, ROWS, block, size, packer); /* may be; must not fault */
    }
    ZSTD_freeCCtx(context);
    free(frames);
    free(bytes);
    packer_destroy(&packer);
}

/* Ends and lengths of a packed segment that lie, hashed properly. */
static void honest_hashes_of_impossible_ends_are_refused(void **state)
{
    enum { ROWS = 5 };
    static const uint32_t lies[] = {0, 1, 103, 163, 164, UINT32_MAX, UINT32_MAX - 200, 1u << 31};
    size_t length, ends = sizeof(struct segment_head) + ROWS * 8;
    packer_t *packer = new_packer();
    char *frames, *bytes = make_packed(ROWS, &length, &frames, packer), *lie = malloc(length);
    struct segment_head good, head;

    (void)state;
    for (uint32_t block = 0; block < ROWS; block++)
        for (size_t i = 0; i < TD_LEN(lies); i++) {
            memcpy(lie, bytes, length);
            memcpy(lie + ends + block * 4, &lies[i], 4);
            assert_true(test_segment_rehash(lie, length));
            assert_int_equal(segment_open(&head, lie, length), TD_ECORRUPT);
        }
    memcpy(&good, bytes, sizeof(good));
    for (int kind = 0; kind < 5; kind++) {
        head = good;
        head.packing = kind == 0 ? 2 : kind == 1 ? SEGMENT_PLAIN : SEGMENT_ZSTD;
        head.length += kind == 2 ? 1u : kind == 3 ? UINT32_MAX : 0;
        if (kind == 4)
            head.schema.obs_type = OBS_STATE;
        memcpy(lie, bytes, length);
        memcpy(lie, &head, sizeof(head));
        (void)test_segment_rehash(lie, length);
        assert_int_equal(segment_open(&head, lie, length), TD_ECORRUPT);
    }
    memcpy(lie, bytes, length);
    assert_true(test_segment_rehash(lie, length));
    assert_int_equal(segment_open(&head, lie, length), TD_OK);
    free(lie);
    free(frames);
    free(bytes);
    packer_destroy(&packer);
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
            assert_non_null(segment_rows(&head, bytes, first, rows - first, NULL));
        assert_ptr_equal(segment_rows(&head, bytes, 0, rows, NULL),
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
            assert_null(segment_rows(&head, bytes, row, 1, NULL));
            assert_null(segment_rows(&head, bytes, 0, 40, NULL));
            for (uint32_t other = 0; other < 3; other++)
                assert_true((segment_rows(&head, bytes, other * 16, 1, NULL) == NULL) == (other == block));
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
                    segment_rows(&head, torn, 0, 20, NULL) == NULL);
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
        cmocka_unit_test(narrow_rows_come_back),
        cmocka_unit_test(narrow_segments_are_checked),
        cmocka_unit_test(packed_rows_come_back),
        cmocka_unit_test(noise_is_not_packed),
        cmocka_unit_test(any_flipped_bit_of_a_packed_one_is_seen),
        cmocka_unit_test(any_truncation_of_a_packed_one_is_seen),
        cmocka_unit_test(honest_hashes_of_hostile_blocks_are_refused),
        cmocka_unit_test(honest_hashes_of_impossible_ends_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
