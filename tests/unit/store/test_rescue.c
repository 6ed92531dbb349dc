/* rescue.c, wreck.c: a damaged file makes way for what is whole of it, and is kept. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/store/verify.h"
#include "common/util/fs.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

static const struct row_schema schema = {OBS_STATE, 6, 2};
#define STRIDE row_stride(&schema)
#define EPISODE 100u /* rows of each sealed one */

static bool disk_full;

/* What fs_free_bytes asks. */
int statvfs(const char *path, struct statvfs *out)
{
    struct stat info;

    if (stat(path, &info) != 0)
        return -1;
    memset(out, 0, sizeof(*out));
    out->f_bsize = out->f_frsize = 4096;
    out->f_blocks = out->f_bavail = out->f_bfree = disk_full ? 10 : 1 << 24;
    return 0;
}

/* --- a kill before the k-th call that changes a disk --------------------------- */

static long calls_left = -1; /* -1: nobody is killed */

static void step(void)
{
    if (calls_left >= 0 && calls_left-- == 0)
        _exit(99); /* what was done stays, as after kill -9 */
}

#define STEP(type, name, number, parameters, ...)          \
    type name parameters                                   \
    {                                                      \
        step();                                            \
        return (type)syscall(number, __VA_ARGS__);         \
    }

STEP(int, rename, SYS_rename, (const char *from, const char *to), from, to)
STEP(int, link, SYS_link, (const char *from, const char *to), from, to)
STEP(int, unlink, SYS_unlink, (const char *path), path)
STEP(int, mkdir, SYS_mkdir, (const char *path, mode_t mode), path, mode)
STEP(int, rmdir, SYS_rmdir, (const char *path), path)
STEP(int, fsync, SYS_fsync, (int fd), fd)
STEP(int, fdatasync, SYS_fdatasync, (int fd), fd)
STEP(int, ftruncate, SYS_ftruncate, (int fd, off_t length), fd, length)
STEP(ssize_t, pwrite, SYS_pwrite64, (int fd, const void *bytes, size_t size, off_t at), fd, bytes, size, at)
STEP(ssize_t, writev, SYS_writev, (int fd, const struct iovec *parts, int count), fd, parts, count)
STEP(ssize_t, pwritev, SYS_pwritev, (int fd, const struct iovec *parts, int count, off_t at), fd, parts, count, at, 0L)

static const char *fresh(void)
{
    static char path[512];
    static int count;

    snprintf(path, sizeof(path), "%s/rescue%d", test_folder(), count++);
    return path;
}

static struct store_config config_of(const char *dir)
{
    return (struct store_config){.dir = dir, .schema = schema, .run_id = 5, .shard = 2, .rows = 30000};
}

static void append(store_t *store, uint32_t slot, uint32_t count, uint32_t ends)
{
    test_rows_append(store, &schema, slot, count, ends);
}

/* Slots 0..2 in epoch 3: 20 episodes each; 30 rows under way. What was evicted is gone. As a kill leaves it. */
static uint64_t fill(const char *dir)
{
    struct store_config config = config_of(dir);
    struct error err = {0};
    store_t *store;
    uint64_t id;
    char mark[600];

    assert_ok(store_open(&store, &config, &err), err);
    id = store_identity(store)->store_id;
    assert_ok(store_learner_epoch(store, 6, &err), err);
    for (uint32_t slot = 0; slot < 3; slot++)
        assert_ok(store_grant(store, slot, 0, 3, 9, &err), err);
    for (int i = 0; i < 60; i++) {
        append(store, (uint32_t)i % 3, EPISODE, ROW_TRUNCATED);
        assert_ok(store_commit(store, &err), err);
    }
    assert_ok(store_evict(store, 9, 100, &err), err);
    for (uint32_t slot = 0; slot < 3; slot++) {
        append(store, slot, 10, 0);
        append(store, slot, 20, 0);
        assert_ok(store_commit(store, &err), err);
    }
    assert_ok(store_learner_epoch(store, 7, &err), err); /* the last transaction: its own rows a bad meta may cost */
    assert_ok(store_commit(store, &err), err);
    store_close(&store);
    snprintf(mark, sizeof(mark), "%s/closed", dir);
    assert_int_equal(unlink(mark), 0);
    return id;
}

static char *load(const char *path, size_t *length)
{
    struct stat info;
    int fd = open(path, O_RDONLY);
    char *bytes;

    assert_int_equal(fstat(fd, &info), 0);
    *length = (size_t)info.st_size;
    bytes = malloc(*length);
    assert_int_equal(read(fd, bytes, *length), *length);
    close(fd);
    return bytes;
}

/* The newer meta's page number of the main tree's root, turned into nonsense. */
static void break_root(const char *dir)
{
    uint64_t txns[2], nonsense = 3, stale;
    char path[600];
    int fd, newer;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDWR);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pread(fd, &txns[i], 8, i * 4096 + 144), 8);
    newer = txns[1] > txns[0];
    assert_int_equal(pread(fd, &stale, 8, newer * 4096 + 128), 8);
    assert_true(stale != nonsense);
    assert_int_equal(pwrite(fd, &nonsense, 8, newer * 4096 + 128), 8);
    close(fd);
}

/* One byte of this row, wherever a copy of it lies. */
static void damage_row(const char *dir, uint32_t slot, uint64_t sequence, uint32_t flags)
{
    struct test_row_id id = {slot, 0, 3, sequence};
    char row[256], path[600], *bytes, *at;
    size_t length;
    int fd;

    test_row_fill(row, &schema, &id, flags);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    bytes = load(path, &length);
    for (at = bytes; (at = memmem(at, (size_t)(bytes + length - at), row, STRIDE)) != NULL;)
        at[30] ^= 1;
    fd = open(path, O_WRONLY);
    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
    free(bytes);
}

/* How often each row of a slot's epoch is there; every one as it was written. */
static void count_rows(store_t *store, uint32_t slot, int *times, uint64_t most)
{
    struct error err = {0};

    memset(times, 0, most * sizeof(*times));
    for (uint64_t id = store_counts(store)->first; id < store_committed(store); id++) {
        struct store_record record;

        assert_ok(store_record(store, id, &record, &err), err);
        assert_int_equal(record.epoch, 3);
        for (uint32_t row = 0; record.slot == slot && row < record.rows; row++) {
            struct test_row_id name = {slot, 0, 3, record.sequence + row};
            uint32_t count = 1, place = (uint32_t)((record.sequence + row) % EPISODE);
            const char *bytes = store_rows(store, id, row, &count);

            assert_non_null(bytes);
            assert_true(record.sequence + row < most);
            test_row_expect(bytes, &schema, &name,
                            place == 0 ? (uint32_t)ROW_FIRST : place == EPISODE - 1 ? (uint32_t)ROW_TRUNCATED : 0u);
            times[record.sequence + row]++;
        }
        store_rows_end(store);
    }
}

static void everything_whole_comes_back_and_the_old_file_stays(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir);
    struct rescue_report report;
    struct error err = {0};
    char path[600], aside[1200], *before, *after;
    size_t length, kept;
    int times[2100];
    store_t *store;
    uint64_t id = fill(dir);

    (void)state;
    break_root(dir);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    before = load(path, &length);
    assert_int_equal(store_open(&store, &config, &err), TD_ECORRUPT);
    assert_ok(store_rescue(&config, &report, &err), err);
    snprintf(aside, sizeof(aside), "%s/%s", dir, report.aside);
    after = load(aside, &kept);
    assert_int_equal(kept, length);
    assert_memory_equal(before, after, length);
    free(before);
    free(after);
    assert_int_equal(report.salvaged.lost_rows + report.salvaged.unknown_episodes, 0);
    assert_int_equal(report.salvaged.open_rows, 90);
    config.check = true;
    assert_ok(store_open(&store, &config, &err), err);
    assert_true(store_identity(store)->store_id != id && store_identity(store)->store_id == report.store_id);
    assert_int_equal(store_identity(store)->shard, 2);
    assert_int_equal(store_counts(store)->rows, 0); /* they were counted under the other id */
    assert_int_equal(store_counts(store)->steps, 0);
    assert_int_equal(store_counts(store)->learner_epoch, 7);
    assert_int_equal(store_counts(store)->held_rows, 51 * EPISODE + 90);
    for (uint32_t slot = 0; slot < 3; slot++) {
        assert_int_equal(store_stream(store, slot, 0)->epoch, 3);
        assert_int_equal(store_stream(store, slot, 0)->holder, 0);
        count_rows(store, slot, times, 2030);
        for (int row = 0; row < 2030; row++)
            assert_int_equal(times[row], row >= 300); /* evicted ones do not return */
    }
    store_close(&store);
}

/* With the newest counts gone older ones are found; the index knows better what was sealed since. */
static void older_counts_cost_no_episode(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir);
    struct rescue_report report;
    struct error err = {0};
    char path[600], mark[600], *bytes, *at;
    uint64_t first[3];
    int found = 0, fd;
    size_t length;
    store_t *store;

    (void)state;
    (void)fill(dir);
    assert_ok(store_open(&store, &config, &err), err);
    append(store, 1, 50, ROW_TRUNCATED); /* in the last transaction */
    assert_ok(store_commit(store, &err), err);
    first[0] = store_counts(store)->rows;
    first[1] = store_counts(store)->steps;
    first[2] = store_counts(store)->sealed;
    store_close(&store);
    snprintf(mark, sizeof(mark), "%s/closed", dir);
    assert_int_equal(unlink(mark), 0);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    bytes = load(path, &length);
    for (at = bytes; (at = memmem(at, (size_t)(bytes + length - at), first, sizeof(first))) != NULL; found++)
        at[40] ^= 1, at++;
    assert_true(found > 0);
    fd = open(path, O_WRONLY);
    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
    free(bytes);
    assert_int_equal(store_open(&store, &config, &err), TD_ECORRUPT);
    assert_ok(store_rescue(&config, &report, &err), err);
    assert_int_equal(report.salvaged.lost_rows + report.salvaged.unknown_episodes, 0);
    assert_int_equal(report.salvaged.rows, 51 * EPISODE + 90 + 50);
}

static void what_is_lost_is_counted_by_stream(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir);
    struct rescue_report report;
    struct error err = {0};
    int times[2100], missing = 0;
    store_t *store;

    (void)state;
    (void)fill(dir);
    damage_row(dir, 1, 1850, 0);         /* a block of 16 in an episode */
    damage_row(dir, 2, 2015, 0);         /* an append of 20 rows under way */
    break_root(dir);
    assert_ok(store_rescue(&config, &report, &err), err);
    assert_int_equal(report.salvaged.lost_rows, 16 + 20);
    assert_int_equal(report.salvaged.lost_episodes, 2);
    assert_int_equal(report.salvaged.loss_count, 2);
    assert_int_equal(report.salvaged.losses[0].slot, 1);
    assert_int_equal(report.salvaged.losses[0].rows, 16);
    assert_int_equal(report.salvaged.losses[1].slot, 2);
    assert_int_equal(report.salvaged.losses[1].rows, 20);
    assert_ok(store_open(&store, &config, &err), err);
    count_rows(store, 1, times, 2030);
    for (int row = 300; row < 2030; row++)
        missing += times[row] == 0;
    assert_int_equal(missing, 16);
    store_close(&store);
}

static void without_room_nothing_changes(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir);
    struct rescue_report report;
    struct error err = {0};
    char path[600], *before, *after;
    size_t length, same;
    DIR *folder;

    (void)state;
    (void)fill(dir);
    break_root(dir);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    before = load(path, &length);
    disk_full = true;
    assert_int_equal(store_rescue(&config, &report, &err), TD_EFULL);
    disk_full = false;
    assert_non_null(strstr(err.text, "make room"));
    after = load(path, &same);
    assert_int_equal(same, length);
    assert_memory_equal(before, after, length);
    folder = opendir(dir);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        assert_null(strstr(entry->d_name, "damaged"));
        assert_string_not_equal(entry->d_name, "rescue");
    }
    closedir(folder);
    assert_ok(store_rescue(&config, &report, &err), err); /* and later it goes */
    free(before);
    free(after);
}

/* A rescue that was cut short left its folder; the next begins it anew. */
static void a_rescue_cut_short_begins_anew(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir), work = config_of(NULL);
    struct rescue_report report;
    struct error err = {0};
    char path[600];
    store_t *store;

    (void)state;
    (void)fill(dir);
    break_root(dir);
    snprintf(path, sizeof(path), "%s/rescue", dir);
    work.dir = path;
    assert_ok(store_open(&store, &work, &err), err);
    store_close(&store);
    assert_ok(store_rescue(&config, &report, &err), err);
    assert_int_equal(report.salvaged.lost_rows, 0);
    assert_ok(store_open(&store, &config, &err), err);
    assert_int_equal(store_counts(store)->held_rows, 51 * EPISODE + 90);
    store_close(&store);
}

/* All rows once, under one of the two states that there may be. */
static void check_rescued(const char *dir, bool *done)
{
    struct store_config config = config_of(dir);
    struct rescue_report report;
    struct error err = {0};
    int times[2100], rc;
    store_t *store;

    config.check = true;
    rc = store_open(&store, &config, &err);
    *done = rc == TD_OK;
    if (rc == TD_ECORRUPT) {
        assert_ok(store_rescue(&config, &report, &err), err);
        assert_int_equal(report.salvaged.lost_rows + report.salvaged.unknown_episodes, 0);
        rc = store_open(&store, &config, &err);
    }
    assert_ok(rc, err);
    assert_int_equal(store_counts(store)->held_rows, 51 * EPISODE + 90);
    assert_int_equal(store_counts(store)->learner_epoch, 7);
    for (uint32_t slot = 0; slot < 3; slot++) {
        count_rows(store, slot, times, 2030);
        for (int row = 0; row < 2030; row++)
            assert_int_equal(times[row], row >= 300);
    }
    store_close(&store);
}

/* The damaged file, byte by byte, under one of its names. */
static void check_kept(const char *dir, const char *bytes, size_t length)
{
    DIR *folder = opendir(dir);
    bool kept = false;

    for (struct dirent *entry; (entry = readdir(folder)) != NULL && !kept;) {
        char path[1200], *found;
        size_t size;

        if (strncmp(entry->d_name, "data.mdb", 8) != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        found = load(path, &size);
        kept = size == length && memcmp(found, bytes, length) == 0;
        free(found);
    }
    closedir(folder);
    assert_true(kept);
}

/* A kill before each call in turn, until one rescue comes through. */
static void a_rescue_may_be_killed_anywhere(void **state)
{
    const char *first = fresh();
    bool done = false;
    int kills = 0, after = 0, status;
    char path[600], *bytes;
    size_t length;

    (void)state;
    (void)fill(first);
    break_root(first);
    snprintf(path, sizeof(path), "%s/data.mdb", first);
    bytes = load(path, &length);
    for (long calls = 0; !done || after < 3; calls++) { /* a few beyond the swap */
        const char *dir = fresh();
        struct store_config config = config_of(dir);
        struct error err = {0};
        pid_t child;

        assert_true(calls < 2000);
        snprintf(path, sizeof(path), "%s/data.mdb", dir);
        assert_ok(fs_mkdirs(dir, 0755, &err), err);
        assert_ok(fs_write_file(path, bytes, length, &err), err);
        if ((child = fork()) == 0) {
            struct rescue_report report;

            calls_left = calls;
            _exit(store_rescue(&config, &report, NULL) == TD_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        kills += WEXITSTATUS(status) == 99;
        check_kept(dir, bytes, length);
        check_rescued(dir, &done);
        after += done;
        assert_int_equal(fs_remove_tree(dir, NULL), TD_OK);
        if (WEXITSTATUS(status) == 0)
            break;
    }
    free(bytes);
    print_message("%d kills, %d of them after the new file was in place\n", kills, after);
    assert_true(kills >= 20 && after >= 1);
}

/* Damage that was met in use: nobody writes to that file again, though its tree is whole. */
static void a_condemned_store_must_be_rescued(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir);
    struct error err = {0}, why = {TD_ECORRUPT, "a record that cannot be"};
    struct rescue_report report;
    store_t *store;

    (void)state;
    (void)fill(dir);
    assert_ok(store_open(&store, &config, &err), err);
    store_condemn(store, &why);
    store_close(&store);
    assert_int_equal(store_open(&store, &config, &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, why.text));
    config.reading = true;
    assert_ok(store_open(&store, &config, &err), err);
    store_close(&store);
    config.reading = false;
    assert_ok(store_rescue(&config, &report, &err), err);
    assert_int_equal(report.salvaged.lost_rows, 0);
    assert_ok(store_open(&store, &config, &err), err);
    store_close(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_whole_comes_back_and_the_old_file_stays),
        cmocka_unit_test(older_counts_cost_no_episode),
        cmocka_unit_test(what_is_lost_is_counted_by_stream),
        cmocka_unit_test(without_room_nothing_changes),
        cmocka_unit_test(a_rescue_cut_short_begins_anew),
        cmocka_unit_test(a_rescue_may_be_killed_anywhere),
        cmocka_unit_test(a_condemned_store_must_be_rescued),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
