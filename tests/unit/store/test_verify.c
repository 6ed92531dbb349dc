/* verify.c and salvage.c: damage is found wherever it is, and what is whole is saved. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/verify.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

static const struct row_schema schema = {OBS_STATE, 6, 2};
#define STRIDE row_stride(&schema)

static const char *fresh(void)
{
    static char path[512];
    static int count;

    snprintf(path, sizeof(path), "%s/verify%d", test_folder(), count++);
    return path;
}

static store_t *open_store(const char *dir)
{
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 5, .rows = 30000};
    struct error err = {0};
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

/* `count` rows of stream (slot, 0), the next ones of its epoch. */
static void append(store_t *store, uint32_t slot, uint32_t count, uint32_t ends)
{
    const struct store_stream *stream = store_stream(store, slot, 0);
    char *rows = malloc(count * STRIDE);
    struct error err = {0};

    for (uint32_t i = 0; i < count; i++) {
        struct test_row_id id = {slot, 0, stream->epoch, stream->next + i};

        test_row_fill(rows + i * STRIDE, &schema, &id,
                      (i == 0 && stream->open_rows == 0 ? (uint32_t)ROW_FIRST : 0u) |
                          (i + 1 == count ? ends : 0u));
    }
    assert_ok(store_append(store, slot, 0, rows, count, &err), err);
    free(rows);
}

/* Episodes of 10, 30, 6000 and 40 rows, then 25 rows under way. */
static void fill(const char *dir)
{
    store_t *store = open_store(dir);
    struct error err = {0};

    assert_ok(store_grant(store, 3, 0, 2, 9, &err), err);
    append(store, 3, 10, ROW_TERMINATED);
    append(store, 3, 30, ROW_TRUNCATED);
    for (int i = 0; i < 6; i++)
        append(store, 3, 1000, i == 5 ? ROW_TRUNCATED : 0);
    append(store, 3, 40, ROW_TERMINATED);
    assert_ok(store_commit(store, &err), err);
    append(store, 3, 20, 0);
    append(store, 3, 5, 0);
    assert_ok(store_commit(store, &err), err);
    store_close(&store);
}

static struct verify_report verify(const char *dir)
{
    store_t *store = open_store(dir);
    struct verify_report report;
    struct error err = {0};

    assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
    store_close(&store);
    return report;
}

/* The data file in memory, to be looked through and written back. */
static char *load(const char *dir, size_t *length)
{
    char path[600], *bytes;
    struct stat info;
    int fd;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDONLY);
    assert_int_equal(fstat(fd, &info), 0);
    *length = (size_t)info.st_size;
    bytes = malloc(*length);
    assert_int_equal(read(fd, bytes, *length), *length);
    close(fd);
    return bytes;
}

static void save(const char *dir, const char *bytes, size_t length)
{
    char path[600];
    int fd;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
}

/* Where the newest copy of this row lies (pages that LMDB freed may hold older ones). */
static void damage_row(const char *dir, uint64_t sequence, uint32_t flags, int copies)
{
    struct test_row_id id = {3, 0, 2, sequence};
    char row[256], *bytes, *at;
    size_t length;
    int found = 0;

    test_row_fill(row, &schema, &id, flags);
    bytes = load(dir, &length);
    for (at = bytes; (at = memmem(at, (size_t)(bytes + length - at), row, STRIDE)) != NULL; found++)
        at[30] ^= 1;
    assert_true(found >= copies);
    save(dir, bytes, length);
    free(bytes);
}

/* --- tests ----------------------------------------------------------------- */

static void a_whole_store_is_clean(void **state)
{
    const char *dir = fresh();
    struct verify_report report;

    (void)state;
    fill(dir);
    report = verify(dir);
    assert_true(verify_clean(&report));
    assert_int_equal(report.episodes, 4);
    assert_int_equal(report.rows, 10 + 30 + 6000 + 40 + 25);
    assert_true(report.segments > 4);
    assert_true(report.first_bad == STORE_NONE);
}

static void damage_is_found_where_it_is(void **state)
{
    const char *dir = fresh();
    struct verify_report report;

    (void)state;
    fill(dir);
    damage_row(dir, 40 + 3333, 0, 1);
    report = verify(dir);
    assert_false(verify_clean(&report));
    assert_int_equal(report.bad, 1);
    assert_int_equal(report.first_bad, 2);
    assert_int_equal(report.bad_open, 0);
    damage_row(dir, 6080 + 22, 0, 1);
    report = verify(dir);
    assert_int_equal(report.bad, 1);
    assert_int_equal(report.bad_open, 1);
}

/* All whole episodes come back as they were, and rows under way as one that was cut short. */
static void a_whole_store_is_salvaged_whole(void **state)
{
    const char *dir = fresh();
    static const uint32_t lengths[] = {10, 30, 6000, 40};
    struct salvage_report report;
    struct error err = {0};
    char out[600];
    store_t *store;

    (void)state;
    fill(dir);
    snprintf(out, sizeof(out), "%s-out", dir);
    assert_int_equal(store_salvage(dir, dir, false, 0, &report, NULL, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "name a new folder"));
    assert_ok(store_salvage(dir, out, false, 0, &report, NULL, NULL, &err), err);
    assert_int_equal(report.episodes, 5);
    assert_int_equal(report.whole, 5);
    assert_int_equal(report.rows, 6080 + 25);
    assert_int_equal(report.open_rows, 25);
    assert_int_equal(report.bad_blocks, 0);
    assert_int_equal(report.lost_rows + report.lost_episodes + report.unknown_episodes, 0);
    assert_int_equal(report.run_id, 5);
    store = open_store(out);
    assert_true(store_counts(store)->rows == 0 && store_counts(store)->steps == 0); /* counted under the old id */
    assert_int_equal(store_episode(store, 4)->rows, 25);
    assert_true(store_episode(store, 4)->flags & EPISODE_ABORTED);
    for (uint64_t id = 0, sequence = 0; id < 4; sequence += lengths[id++]) {
        struct store_record record;

        assert_ok(store_record(store, id, &record, &err), err);
        assert_int_equal(record.rows, lengths[id]);
        assert_int_equal(record.sequence, sequence);
        assert_int_equal(record.flags, id == 0 || id == 3 ? EPISODE_TERMINATED : EPISODE_TRUNCATED);
        assert_true(store_episode(store, id)->flags & STORE_PUBLISHED);
        for (uint32_t row = 0; row < record.rows; row++) {
            struct test_row_id name = {3, 0, 2, sequence + row};
            uint32_t count = 1;

            test_row_expect(store_rows(store, id, row, &count), &schema, &name,
                            row == 0                  ? ROW_FIRST
                            : row + 1 < record.rows   ? 0
                            : id == 0 || id == 3      ? ROW_TERMINATED
                                                      : ROW_TRUNCATED);
        }
    }
    store_close(&store);
    assert_int_equal(store_salvage(dir, out, false, 0, &report, NULL, NULL, &err), TD_EINVAL);
}

/* Without LMDB: its first pages are gone, and one block of a long episode is damaged. Rows under way say whose they are. */
static void a_wrecked_store_gives_up_its_rows(void **state)
{
    const char *dir = fresh();
    struct salvage_report report;
    struct error err = {0};
    char out[600], *bytes;
    uint64_t rows = 0;
    size_t length;
    store_t *store;

    (void)state;
    fill(dir);
    damage_row(dir, 40 + 3333, 0, 1);
    bytes = load(dir, &length);
    memset(bytes, 0x5a, 2 * 4096);
    save(dir, bytes, length);
    free(bytes);
    snprintf(out, sizeof(out), "%s-out", dir);
    assert_ok(store_salvage(dir, out, false, 0, &report, NULL, NULL, &err), err);
    assert_int_equal(report.bad_blocks, 1);
    assert_int_equal(report.whole, 4);
    assert_int_equal(report.episodes, 6);
    assert_int_equal(report.open_rows, 25);
    store = open_store(out);
    for (uint64_t id = 0; id < 6; id++) {
        struct store_record record;

        assert_ok(store_record(store, id, &record, &err), err);
        rows += record.rows;
        for (uint32_t row = 0; row < record.rows; row++) {
            uint32_t count = 1;
            const char *bytes_of = store_rows(store, id, row, &count);
            struct row_head head;

            memcpy(&head, bytes_of, sizeof(head));
            assert_int_equal(head.param_version, record.sequence + row); /* test_row_fill's */
        }
    }
    assert_int_equal(rows, 6080 - 16 + 25);
    assert_int_equal(report.rows, rows);
    assert_true(store_episode(store, 2)->flags & EPISODE_ABORTED); /* up to the gap */
    assert_false(store_episode(store, 3)->flags & EPISODE_ABORTED); /* behind it, to its end */
    store_close(&store);
}

static void nothing_to_salvage_is_said(void **state)
{
    const char *dir = fresh();
    struct salvage_report report;
    struct error err = {0};
    char out[600];
    store_t *store;

    (void)state;
    snprintf(out, sizeof(out), "%s-out", dir);
    assert_int_equal(store_salvage(dir, out, false, 0, &report, NULL, NULL, &err), TD_ENOTFOUND);
    store = open_store(dir);
    assert_int_equal(store_salvage(dir, out, false, 0, &report, NULL, NULL, &err), TD_ELOCKED);
    store_close(&store);
    assert_int_equal(store_salvage(dir, out, false, 0, &report, NULL, NULL, &err), TD_ENOTFOUND);
    assert_int_not_equal(access(out, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_store_is_clean),
        cmocka_unit_test(damage_is_found_where_it_is),
        cmocka_unit_test(a_whole_store_is_salvaged_whole),
        cmocka_unit_test(a_wrecked_store_gives_up_its_rows),
        cmocka_unit_test(nothing_to_salvage_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
