/* The store on rows of frames: what they take of the disk, each kept whole, damage told and salvaged. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/verify.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define FRAME   12288u
#define EPISODE 501u /* of DMControl: 500 steps and the reset */

static const struct row_schema schema = {OBS_RGB, FRAME, 6};

static store_t *open_either(const char *dir, bool compress)
{
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 4, .rows = 20000,
                                  .compress_frames = compress};
    struct error err = {0};
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

static store_t *open_store(const char *dir)
{
    return open_either(dir, false);
}

static void fill_row(void *row, uint64_t sequence, uint32_t rows)
{
    uint64_t place = sequence % rows;
    struct test_row_id id = {1, 0, 1, sequence};

    test_row_fill(row, &schema, &id, place == 0 ? ROW_FIRST : place == rows - 1 ? ROW_TRUNCATED : 0);
}

/* `count` rows of episodes of `rows`, one append and one commit at a time, as slow actors send them. */
static void append(store_t *store, uint64_t first, uint64_t count, uint32_t rows)
{
    char *row = malloc(row_stride(&schema));
    struct error err = {0};

    for (uint64_t i = first; i < first + count; i++) {
        fill_row(row, i, rows);
        assert_ok(store_append(store, 1, 0, row, 1, &err), err);
        assert_ok(store_commit(store, &err), err);
    }
    free(row);
}

static uint64_t disk_of(const char *dir)
{
    char path[600];
    struct stat info;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    assert_int_equal(stat(path, &info), 0);
    return (uint64_t)info.st_blocks * 512;
}

static void a_million_frames_fit_in_13_gigabytes(void **state)
{
    char dir[512];
    store_t *store;
    struct error err = {0};
    char *rows = malloc(EPISODE * row_stride(&schema));
    uint64_t used;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/disk", test_folder());
    store = open_store(dir);
    for (uint32_t i = 0; i < EPISODE; i++)
        fill_row(rows + i * row_stride(&schema), i, EPISODE);
    for (uint64_t k = 0; k < 10; k++) {
        struct store_record record = {.epoch = 1, .sequence = k * EPISODE, .rows = EPISODE,
                                      .flags = EPISODE_TRUNCATED};

        assert_ok(store_insert(store, &record, rows, &err), err);
    }
    assert_ok(store_commit(store, &err), err);
    used = test_used_bytes(dir);
    print_message("%.0f bytes of disk per frame of %u, and %.1f MB taken for the next commit\n",
                  (double)used / (10.0 * EPISODE), FRAME, ((double)disk_of(dir) - (double)used) * 1e-6);
    assert_true(used < 12600 * 10 * EPISODE);
    assert_true(disk_of(dir) < used + (4 << 20)); /* however large the store: of one commit, and zeros ahead */
    assert_true(store_bytes_needed(&schema, 1000000, 0) < UINT64_C(13000000000));
    store_close(&store);
    free(rows);
}

static void rows_come_back_as_they_were_sent(void **state)
{
    enum { ROWS = 50, EPISODES = 30 };
    char dir[512];
    store_t *store;
    struct error err = {0};
    struct verify_report report;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/append", test_folder());
    store = open_store(dir);
    assert_ok(store_grant(store, 1, 0, 1, 9, &err), err);
    append(store, 0, ROWS * EPISODES + 7, ROWS);
    store_close(&store);
    store = open_store(dir); /* an episode is still open */
    assert_int_equal(store_counts(store)->open_rows, 7);
    append(store, ROWS * EPISODES + 7, ROWS - 7, ROWS);
    for (uint64_t id = 0; id <= EPISODES; id++)
        for (uint32_t row = 0; row < ROWS;) {
            uint32_t count = ROWS - row;
            const char *rows = store_rows(store, id, row, &count);

            assert_non_null(rows);
            for (uint32_t i = 0; i < count; i++, row++) {
                char *expected = malloc(row_stride(&schema));

                fill_row(expected, id * ROWS + row, ROWS);
                assert_memory_equal(rows + i * row_stride(&schema), expected, row_stride(&schema));
                free(expected);
            }
        }
    store_rows_end(store);
    /* pages of appends are used again: two episodes' worth lies idle, beside what the file is ahead */
    assert_true(disk_of(dir) < (uint64_t)(EPISODES + 1) * ROWS * 12600 + 2 * ROWS * 4 * 4096 + (9 << 20));
    assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
    assert_true(verify_clean(&report));
    assert_int_equal(report.rows, ROWS * (EPISODES + 1));
    store_close(&store);
}

static uint32_t packing_of(store_t *store, uint64_t id, uint32_t index, size_t *length)
{
    struct segment_head head;
    const void *bytes = store_segment(store, id, index, length);

    assert_non_null(bytes);
    assert_int_equal(segment_open(&head, bytes, *length), TD_OK);
    return head.packing;
}

/* Each row alone, all of an episode, and across segments: what was sent, however it lies there. */
static void expect_all(store_t *store, uint64_t episodes, uint32_t rows)
{
    size_t stride = row_stride(&schema);
    char *expected = malloc(stride);

    for (uint64_t id = 0; id < episodes; id++)
        for (uint32_t step = 1; step <= rows; step += rows - 1)
            for (uint32_t row = 0; row < rows;) {
                uint32_t count = step < rows - row ? step : rows - row;
                const char *bytes;

                store_prefetch(store, id, row, count);
                bytes = store_rows(store, id, row, &count);
                assert_non_null(bytes);
                for (uint32_t i = 0; i < count; i++, row++) {
                    fill_row(expected, id * rows + row, rows);
                    assert_memory_equal(bytes + i * stride, expected, stride);
                }
            }
    store_rows_end(store);
    free(expected);
}

/* Plain and packed segments in one store: the option says only how the next ones are made. */
static void plain_and_packed_segments_live_together(void **state)
{
    enum { ROWS = 50, EACH = 3 };
    char dir[512], out[512];
    struct salvage_report salvaged;
    struct verify_report report;
    struct error err = {0};
    size_t length;
    store_t *store;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/mixed", test_folder());
    snprintf(out, sizeof(out), "%s/mixed-saved", test_folder());
    store = open_store(dir);
    assert_ok(store_grant(store, 1, 0, 1, 9, &err), err);
    append(store, 0, EACH * ROWS + 7, ROWS);
    store_close(&store);
    store = open_either(dir, true); /* in the middle of an episode */
    append(store, EACH * ROWS + 7, EACH * ROWS - 7, ROWS);
    store_close(&store);
    store = open_store(dir);
    append(store, 2 * EACH * ROWS, EACH * ROWS, ROWS);
    for (uint64_t id = 0; id < 3 * EACH; id++)
        for (uint32_t index = 0; index < 3; index++) {
            bool packed = packing_of(store, id, index, &length) == SEGMENT_ZSTD;

            assert_int_equal(packed, id >= EACH && id < 2 * EACH);
            assert_int_equal(length < 8 * FRAME, packed); /* these frames are all but empty */
        }
    expect_all(store, 3 * EACH, ROWS);
    assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
    assert_true(verify_clean(&report));
    assert_int_equal(report.rows, 3 * EACH * ROWS);
    assert_ok(store_evict(store, 1, 1, &err), err); /* room and index are the same as ever */
    assert_ok(store_commit(store, &err), err);
    assert_int_equal(store_counts(store)->first, 1);
    store_close(&store);
    assert_ok(store_salvage(dir, out, false, 0, &salvaged, NULL, NULL, &err), err);
    assert_int_equal(salvaged.bad_blocks, 0);
    assert_true(salvaged.whole >= 3 * EACH - 1); /* the evicted one may still be there */
    store = open_store(out);
    assert_int_equal(packing_of(store, 0, 0, &length), SEGMENT_ZSTD);
    assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
    assert_true(verify_clean(&report));
    store_close(&store);
}

/* One byte of a packed frame: its row alone is not served and not salvaged. */
static void a_damaged_packed_frame_costs_itself(void **state)
{
    enum { ROWS = 50, BAD = 30 };
    char dir[512], out[512], path[600], *file, *rows = malloc(ROWS * row_stride(&schema));
    struct store_record record = {.epoch = 1, .rows = ROWS, .flags = EPISODE_TRUNCATED};
    struct salvage_report salvaged;
    struct verify_report report;
    struct error err = {0};
    uint32_t end, count = 1;
    struct stat info;
    store_t *store;
    size_t length;
    char *segment, *found;
    int fd;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/packed", test_folder());
    snprintf(out, sizeof(out), "%s/packed-saved", test_folder());
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    store = open_either(dir, true);
    for (uint32_t i = 0; i < ROWS; i++)
        fill_row(rows + i * row_stride(&schema), i, ROWS);
    assert_ok(store_insert(store, &record, rows, &err), err);
    assert_ok(store_commit(store, &err), err);
    free(rows);
    assert_int_equal(packing_of(store, 0, 1, &length), SEGMENT_ZSTD);
    segment = malloc(length);
    memcpy(segment, store_segment(store, 0, 1, &length), length);
    store_close(&store);
    /* the last byte of row 30 of 50, in the second segment of 21 */
    memcpy(&end, segment + sizeof(struct segment_head) + 21 * 8 + (BAD - 21) * 4, sizeof(end));
    fd = open(path, O_RDWR);
    assert_int_equal(fstat(fd, &info), 0);
    file = malloc((size_t)info.st_size);
    assert_int_equal(pread(fd, file, (size_t)info.st_size, 0), info.st_size);
    found = memmem(file, (size_t)info.st_size, segment, length);
    assert_non_null(found);
    found[end - 1] ^= 1;
    assert_int_equal(pwrite(fd, found + end - 1, 1, found + end - 1 - file), 1);
    close(fd);
    free(file);
    free(segment);
    store = open_store(dir);
    assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
    assert_int_equal(report.bad, 1);
    assert_non_null(store_rows(store, 0, BAD - 1, &count));
    assert_non_null(store_rows(store, 0, BAD + 1, &count));
    assert_int_equal(store_counts(store)->bad, 0);
    assert_null(store_rows(store, 0, BAD, &count));
    assert_int_equal(store_counts(store)->bad, 1);
    store_rows_end(store);
    store_close(&store);
    assert_ok(store_salvage(dir, out, false, 0, &salvaged, NULL, NULL, &err), err);
    assert_int_equal(salvaged.bad_blocks, 1);
    assert_int_equal(salvaged.rows, ROWS - 1);
    assert_int_equal(salvaged.episodes, 2);
}

/* A damaged frame costs itself: verify names its episode, salvage saves all the others. */
static void a_damaged_frame_costs_itself(void **state)
{
    enum { ROWS = 50 };
    char dir[512], out[512], path[600], *file, *row = malloc(row_stride(&schema)), *found;
    struct salvage_report salvaged;
    struct verify_report report;
    struct error err = {0};
    struct stat info;
    store_t *store;
    int fd;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/damage", test_folder());
    snprintf(out, sizeof(out), "%s/saved", test_folder());
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    store = open_store(dir);
    for (uint64_t k = 0; k < 3; k++) {
        struct store_record record = {.epoch = 1, .sequence = k * ROWS, .rows = ROWS, .flags = EPISODE_TRUNCATED};
        char *rows = malloc(ROWS * row_stride(&schema));

        for (uint32_t i = 0; i < ROWS; i++)
            fill_row(rows + i * row_stride(&schema), k * ROWS + i, ROWS);
        assert_ok(store_insert(store, &record, rows, &err), err);
        free(rows);
    }
    assert_ok(store_commit(store, &err), err);
    store_close(&store);
    fd = open(path, O_RDWR);
    assert_int_equal(fstat(fd, &info), 0);
    file = malloc((size_t)info.st_size);
    assert_int_equal(pread(fd, file, (size_t)info.st_size, 0), info.st_size);
    fill_row(row, ROWS + 30, ROWS);
    found = memmem(file, (size_t)info.st_size, row, row_stride(&schema));
    assert_non_null(found);
    found[7000] ^= 1;
    assert_int_equal(pwrite(fd, found + 7000, 1, found + 7000 - file), 1);
    close(fd);
    free(file);
    free(row);
    store = open_store(dir);
    assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
    assert_int_equal(report.bad, 1);
    assert_int_equal(report.first_bad, 1);
    store_close(&store);
    assert_ok(store_salvage(dir, out, false, 0, &salvaged, NULL, NULL, &err), err);
    assert_int_equal(salvaged.bad_blocks, 1);
    assert_int_equal(salvaged.rows, 3 * ROWS - 1);
    assert_int_equal(salvaged.whole, 2);
    assert_int_equal(salvaged.episodes, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_million_frames_fit_in_13_gigabytes),
        cmocka_unit_test(rows_come_back_as_they_were_sent),
        cmocka_unit_test(a_damaged_frame_costs_itself),
        cmocka_unit_test(plain_and_packed_segments_live_together),
        cmocka_unit_test(a_damaged_packed_frame_costs_itself),
    };

    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
