/*
 * A large store is ready within five seconds: after a clean close, after a kill with the walk of its tree, and
 * with a damaged tree after being rescued, which is told but not bounded: it copies all of it.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/verify.h"
#include "common/util/clock.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define READY_MS 5000u

static void fill(const char *dir, const struct row_schema *schema, uint64_t rows, uint32_t episode)
{
    struct store_config config = {.dir = dir, .schema = *schema, .run_id = 3, .rows = rows};
    char *bytes = calloc(episode, row_stride(schema));
    struct error err = {0};
    store_t *store;

    for (uint32_t i = 0; i < episode; i++) {
        struct test_row_id id = {.sequence = i};

        test_row_fill(bytes + i * row_stride(schema), schema, &id, i == 0 ? ROW_FIRST : 0u);
    }
    assert_ok(store_open(&store, &config, &err), err);
    for (uint64_t at = 0; at < rows; at += episode) {
        struct store_record record = {.slot = (uint32_t)(at / episode % 64), .epoch = 1, .sequence = at / 64,
                                      .rows = episode};

        assert_ok(store_insert(store, &record, bytes, &err), err);
        if (at / episode % 100 == 99)
            assert_ok(store_commit(store, &err), err);
    }
    for (uint64_t rest = 0; rest < rows / 10; rest += episode) { /* a free list worth the name */
        assert_ok(store_evict(store, rest / episode, 100, &err), err);
        assert_ok(store_commit(store, &err), err);
    }
    store_close(&store);
    free(bytes);
}

/* Nothing of it in memory, where the file system keeps it elsewhere. */
static void forget(const char *dir)
{
    char path[600];
    int fd;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDONLY);
    assert_int_equal(fdatasync(fd), 0);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static uint64_t open_once(const char *dir, bool check, const char *what)
{
    struct store_config config = {.dir = dir, .check = check};
    uint64_t start, took;
    struct error err = {0};
    store_t *store;

    forget(dir);
    start = clock_ms();
    assert_ok(store_open(&store, &config, &err), err);
    took = clock_ms() - start;
    printf("%s: %llu ms (%llu episodes, %llu rows)\n", what, (unsigned long long)took,
           (unsigned long long)(store_counts(store)->sealed - store_counts(store)->first),
           (unsigned long long)store_counts(store)->held_rows);
    store_close(&store);
    return took;
}

static void rescue_it(const char *dir)
{
    struct store_config config = {.dir = dir};
    struct rescue_report report;
    uint64_t txns[2], nonsense = 3, start;
    struct error err = {0};
    char path[600];
    int fd;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDWR);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pread(fd, &txns[i], 8, i * 4096 + 144), 8);
    assert_int_equal(pwrite(fd, &nonsense, 8, (txns[1] > txns[0]) * 4096 + 128), 8);
    close(fd);
    forget(dir);
    start = clock_ms();
    assert_ok(store_rescue(&config, &report, &err), err);
    printf("rescued: %llu ms (%llu rows, %llu lost)\n", (unsigned long long)(clock_ms() - start),
           (unsigned long long)report.salvaged.rows, (unsigned long long)report.salvaged.lost_rows);
    assert_int_equal(report.salvaged.lost_rows + report.salvaged.unknown_episodes, 0);
}

static void ready(const char *name, const struct row_schema *schema, uint64_t rows, uint32_t episode)
{
    char dir[512], mark[600];

    snprintf(dir, sizeof(dir), "%s/%s", test_folder(), name);
    snprintf(mark, sizeof(mark), "%s/closed", dir);
    fill(dir, schema, rows, episode);
    assert_true(open_once(dir, false, "closed cleanly") < READY_MS);
    assert_int_equal(unlink(mark), 0);
    assert_true(open_once(dir, false, "killed") < READY_MS);
    assert_true(open_once(dir, true, "with each run's header") < 12 * READY_MS);
    rescue_it(dir);
    assert_true(open_once(dir, false, "after that") < READY_MS);
}

static void a_million_rows(void **state)
{
    static const struct row_schema walker = {OBS_STATE, 24, 6};

    (void)state;
    ready("rows", &walker, 1000000, 500);
    ready("short", &walker, 1000000, 25); /* forty thousand episodes */
}

static void a_hundred_thousand_frames(void **state)
{
    static const struct row_schema frames = {OBS_RGB, 12288, 6};

    (void)state;
    ready("frames", &frames, 100000, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_million_rows),
        cmocka_unit_test(a_hundred_thousand_frames),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
