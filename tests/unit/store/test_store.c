/* store.c and its parts: what is committed stays, what is not never was, and damage is contained. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/store/store.h"
#include "common/util/fs.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

static const struct row_schema schema = {OBS_STATE, 6, 2};
static int sync_failures; /* of the next calls of fdatasync */

/* LMDB syncs its file through here. */
int fdatasync(int fd)
{
    if (sync_failures > 0) {
        sync_failures--;
        errno = EIO;
        return -1;
    }
    return fsync(fd);
}

static int room_failures, room_errno; /* of the next calls of fallocate */

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    (void)fd;
    assert_int_equal(mode, FALLOC_FL_KEEP_SIZE);
    assert_true(offset >= 0 && length > 0);
    if (room_failures-- > 0) {
        errno = room_errno;
        return -1;
    }
    return 0;
}

static const char *fresh(void)
{
    static char path[512];
    static int count;

    snprintf(path, sizeof(path), "%s/store%d/replay", test_folder(), count++);
    return path;
}

static struct store_config config_for(const char *dir)
{
    return (struct store_config){.dir = dir, .schema = schema, .run_id = 77, .rows = 20000};
}

static store_t *open_store(const char *dir)
{
    struct store_config config = config_for(dir);
    struct error err = {0};
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

static store_t *reopen(store_t *store, const char *dir)
{
    store_close(&store);
    return open_store(dir);
}

static void commit(store_t *store)
{
    struct error err = {0};

    assert_ok(store_commit(store, &err), err);
    assert_false(store_dirty(store));
}

static off_t file_bytes(const char *dir)
{
    struct stat file;
    char path[600];

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    assert_int_equal(stat(path, &file), 0);
    return file.st_size;
}

static void grant(store_t *store, uint32_t slot, uint64_t epoch)
{
    struct error err = {0};

    assert_ok(store_grant(store, slot, 0, epoch, 1000 + slot, &err), err);
}

/* Append `count` rows, the first a reset row when the stream has none open, the last with `ends`. */
static int append(store_t *store, uint32_t slot, uint32_t count, uint32_t ends)
{
    const struct store_stream *stream = store_stream(store, slot, 0);
    size_t stride = row_stride(&schema);
    char *rows = malloc(count * stride);
    struct error err = {0};
    uint32_t which;
    int rc;

    for (uint32_t i = 0; i < count; i++) {
        struct test_row_id id = {slot, 0, stream->epoch, stream->next + i};
        uint32_t flags = (i == 0 && stream->open_rows == 0 ? (uint32_t)ROW_FIRST : 0u) |
                         (i + 1 == count ? ends : 0u);

        test_row_fill(rows + i * stride, &schema, &id, flags);
        assert_null(row_check(rows + i * stride, &schema));
    }
    assert_null(store_rows_check(store, stream, rows, count, &which));
    rc = store_append(store, slot, 0, rows, count, &err);
    free(rows);
    return rc;
}

static void append_ok(store_t *store, uint32_t slot, uint32_t count, uint32_t ends)
{
    assert_int_equal(append(store, slot, count, ends), TD_OK);
}

/* Every row of a committed episode is what was appended; `ends` are the flags of its last row. */
static void expect_episode(store_t *store, uint64_t id, uint32_t rows, uint32_t ends)
{
    struct store_record record;
    struct error err = {0};

    assert_ok(store_record(store, id, &record, &err), err);
    assert_int_equal(record.rows, rows);
    assert_int_equal(store_episode(store, id)->rows, rows);
    for (uint32_t row = 0; row < rows;) {
        uint32_t count = rows - row;
        const char *bytes = store_rows(store, id, row, &count);

        assert_non_null(bytes);
        for (uint32_t i = 0; i < count; i++, row++) {
            struct test_row_id name = {record.slot, record.env, record.epoch, record.sequence + row};
            uint32_t flags = (row == 0 ? (uint32_t)ROW_FIRST : 0u) | (row + 1 == rows ? ends : 0u);

            test_row_expect(bytes + i * row_stride(&schema), &schema, &name, flags);
        }
    }
    store_rows_end(store);
}

static bool published(const store_t *store, uint64_t id)
{
    return (store_episode(store, id)->flags & STORE_PUBLISHED) != 0;
}

/* --- tests ----------------------------------------------------------------- */

static void a_new_store_is_empty_and_stays_itself(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    uint64_t id = store_identity(store)->store_id;

    (void)state;
    assert_true(store_identity(store)->created);
    assert_int_not_equal(id, 0);
    assert_int_equal(store_counts(store)->sealed, 0);
    assert_int_equal(store_counts(store)->rows, 0);
    assert_false(store_counts(store)->has_slot);
    assert_false(store_full(store));
    store = reopen(store, dir);
    assert_false(store_identity(store)->created);
    assert_true(store_identity(store)->store_id == id);
    assert_int_equal(store_identity(store)->run_id, 77);
    store_close(&store);
    store_close(&store);
}

static void foreign_stores_are_named_and_refused(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir), *other;
    struct store_config config = config_for(dir);
    struct error err = {0};

    (void)state;
    assert_int_equal(store_open(&other, &config, &err), TD_ELOCKED);
    assert_null(other);
    assert_non_null(strstr(err.text, "locked by process"));
    store_close(&store);

    config.run_id = 78;
    assert_int_equal(store_open(&other, &config, &err), TD_EFOREIGN);
    assert_non_null(strstr(err.text, "000000000000004d"));
    assert_non_null(strstr(err.text, "000000000000004e"));
    config = config_for(dir);
    config.schema.obs_dim = 7;
    assert_int_equal(store_open(&other, &config, &err), TD_EFOREIGN);
    assert_non_null(strstr(err.text, "6 observations"));
    assert_non_null(strstr(err.text, "7"));
    config = config_for(dir);
    config.shard = 3;
    assert_int_equal(store_open(&other, &config, &err), TD_EFOREIGN);
    config.any_shard = true;
    config.run_id = 0;
    config.schema.obs_type = 0;
    assert_ok(store_open(&other, &config, &err), err);
    assert_int_equal(store_identity(other)->schema.obs_dim, 6);
    store_close(&other);

    config.dir = fresh();
    assert_int_equal(store_open(&other, &config, &err), TD_ENOTFOUND);
    assert_int_not_equal(access(config.dir, F_OK), 0); /* nothing was made */
    config = config_for(fresh());
    config.rows = 1000000000000ull;
    assert_int_equal(store_open(&other, &config, &err), TD_EFULL);
    assert_non_null(strstr(err.text, "GB free"));
    config.rows = 1000000;
    config.bytes_limit = 1000000;
    assert_int_equal(store_open(&other, &config, &err), TD_EFULL);
    assert_non_null(strstr(err.text, "disk_limit"));
    config.schema.action_dim = 0;
    assert_int_equal(store_open(&other, &config, &err), TD_EINVAL);
}

/* store_look says what store_open would, and leaves nothing behind. */
static void looking_refuses_the_same_and_makes_nothing(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_for(dir);
    struct store_outlook outlook;
    struct error err = {0};
    char parent[600];
    store_t *store;

    (void)state;
    assert_ok(store_look(&outlook, &config, &err), err);
    assert_false(outlook.exists);
    assert_true(outlook.needed_bytes == store_bytes_needed(&schema, config.rows, 0) && outlook.free_bytes > 0);
    snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(dir, '/') - dir), dir);
    assert_int_not_equal(access(parent, F_OK), 0);
    config.rows = 1000000000000ull;
    assert_int_equal(store_look(&outlook, &config, &err), TD_EFULL);
    config.used = 100; /* of a map that is never full: extending the run may fill it */
    assert_ok(store_look(&outlook, &config, &err), err);
    assert_true(outlook.needed_bytes == store_bytes_needed(&schema, 100, 0));
    config = config_for(dir);
    config.bytes_limit = 1000;
    assert_int_equal(store_look(&outlook, &config, &err), TD_EFULL);

    config = config_for(dir);
    store = open_store(dir);
    assert_int_equal(store_look(&outlook, &config, &err), TD_ELOCKED);
    store_close(&store);
    for (int i = 0; i < 2; i++) { /* it is let go each time */
        assert_ok(store_look(&outlook, &config, &err), err);
        assert_true(outlook.exists && outlook.run_id == 77);
    }
    config.run_id = 78;
    assert_int_equal(store_look(&outlook, &config, &err), TD_EFOREIGN);
    config = config_for(dir);
    config.schema.obs_dim = 7;
    assert_int_equal(store_look(&outlook, &config, &err), TD_EFOREIGN);
    store = open_store(dir);
    store_close(&store);

    /* a file where the folder should be */
    snprintf(parent, sizeof(parent), "%s/data.mdb/replay", dir);
    config = config_for(parent);
    assert_int_equal(store_look(&outlook, &config, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "is a file"));
}

/* Files that are no store, cut short or damaged, are refused or left to store_open; nothing faults. */
static void looking_at_damage_is_safe(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_for(dir);
    struct store_outlook outlook;
    struct error err = {0};
    char path[600];
    store_t *store = open_store(dir);

    (void)state;
    store_close(&store);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    for (off_t length = 3 * 4096 + 100; length > 0; length -= 2000) {
        struct stat before, after;

        assert_int_equal(truncate(path, length), 0);
        assert_int_equal(stat(path, &before), 0);
        (void)store_look(&outlook, &config, &err);
        assert_int_equal(stat(path, &after), 0);
        assert_int_equal(before.st_size, after.st_size);
    }
    assert_int_equal(fs_write_file(path, dir, strlen(dir), NULL), TD_OK);
    assert_int_equal(store_look(&outlook, &config, &err), TD_ECORRUPT);
}

static void an_unfinished_creation_is_begun_again(void **state)
{
    const char *dir = fresh();
    char path[600], mark[600];
    struct error err = {0};
    struct store_config config = config_for(dir);
    store_t *store = open_store(dir);
    int fd;

    (void)state;
    store_close(&store);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(store_open(&store, &config, &err), TD_ECORRUPT); /* it was closed with something in it */
    snprintf(mark, sizeof(mark), "%s/closed", dir);
    assert_int_equal(unlink(mark), 0); /* killed right after the file came to be */
    store = open_store(dir);
    assert_true(store_identity(store)->created);
    store_close(&store);

    fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "not a database at all", 21), 21);
    close(fd);
    assert_int_equal(store_open(&store, &config, &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "salvage"));
}

static void rows_survive_in_open_and_sealed_episodes(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    const struct store_stream *stream;

    (void)state;
    grant(store, 4, 1);
    append_ok(store, 4, 5, 0);
    append_ok(store, 4, 1, 0);
    commit(store);
    store = reopen(store, dir);
    stream = store_stream(store, 4, 0);
    assert_non_null(stream);
    assert_int_equal(stream->next, 6);
    assert_int_equal(stream->steps, 5);
    assert_int_equal(stream->open_rows, 6);
    assert_int_equal(stream->holder, 1004);
    assert_int_equal(store_counts(store)->steps, 5);
    assert_int_equal(store_counts(store)->rows, 6);
    assert_int_equal(store_counts(store)->open_rows, 6);
    assert_int_equal(store_counts(store)->slot, 4);

    append_ok(store, 4, 3, ROW_TRUNCATED);
    commit(store);
    store = reopen(store, dir);
    assert_int_equal(store_counts(store)->sealed, 1);
    assert_int_equal(store_counts(store)->held_rows, 9);
    assert_int_equal(store_counts(store)->open_rows, 0);
    assert_int_equal(store_episode(store, 0)->flags & EPISODE_FLAGS_KNOWN, EPISODE_TRUNCATED);
    expect_episode(store, 0, 9, ROW_TRUNCATED);
    store_close(&store);
}

static void a_chunk_may_span_episodes(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    size_t stride = row_stride(&schema);
    static const uint32_t flags[] = {ROW_FIRST, 0, ROW_TERMINATED, ROW_FIRST, ROW_TRUNCATED,
                                     ROW_FIRST, 0};
    char rows[7 * 128];
    struct error err = {0};
    uint32_t which;

    (void)state;
    grant(store, 0, 9);
    for (uint32_t i = 0; i < 7; i++) {
        struct test_row_id id = {0, 0, 9, i};

        test_row_fill(rows + i * stride, &schema, &id, flags[i]);
    }
    assert_null(store_rows_check(store, store_stream(store, 0, 0), rows, 7, &which));
    assert_non_null(store_rows_check(store, store_stream(store, 0, 0), rows + stride, 6, &which));
    assert_int_equal(which, 0);
    assert_ok(store_append(store, 0, 0, rows, 7, &err), err);
    assert_non_null(store_rows_check(store, store_stream(store, 0, 0), rows, 7, &which));
    commit(store);
    assert_int_equal(store_counts(store)->sealed, 2);
    assert_int_equal(store_counts(store)->steps, 4);
    assert_int_equal(store_counts(store)->rows, 7);
    assert_true(published(store, 0) && published(store, 1));
    expect_episode(store, 0, 3, ROW_TERMINATED);
    expect_episode(store, 1, 2, ROW_TRUNCATED);
    assert_int_equal(store_episode(store, 0)->flags & EPISODE_TERMINATED, EPISODE_TERMINATED);
    store_close(&store);
}

/* Sealed by the last row; published by the successor's reset row, or when the stream closes. */
static void publication_follows_the_rule(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct error err = {0};
    struct store_news news;

    (void)state;
    grant(store, 0, 1);
    grant(store, 1, 1);
    append_ok(store, 0, 5, ROW_TRUNCATED);
    commit(store);
    (void)store_news(store);
    assert_false(published(store, 0));
    store = reopen(store, dir);
    assert_false(published(store, 0)); /* also known after a restart */
    (void)store_news(store);

    append_ok(store, 1, 5, ROW_TRUNCATED); /* another stream's rows say nothing of it */
    append_ok(store, 1, 1, 0);
    commit(store);
    assert_false(published(store, 0));
    assert_true(published(store, 1));
    news = store_news(store);
    assert_int_equal(news.count, 1);
    assert_int_equal(news.published[0], 1);
    assert_false(news.rebuilt);

    append_ok(store, 0, 1, 0);
    commit(store);
    assert_true(published(store, 0));

    append_ok(store, 0, 3, ROW_TERMINATED); /* sealed as 2, waits */
    commit(store);
    assert_false(published(store, 2));
    assert_ok(store_close_stream(store, 0, 0, &err), err);
    commit(store);
    assert_true(published(store, 2));
    assert_int_equal(store_stream(store, 0, 0)->holder, 0);
    assert_int_equal(store_counts(store)->aborted, 0);
    store = reopen(store, dir);
    assert_true(published(store, 0) && published(store, 1) && published(store, 2));
    store_close(&store);
}

static void a_new_epoch_or_close_aborts_the_open_episode(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct error err = {0};

    (void)state;
    grant(store, 2, 1);
    append_ok(store, 2, 7, 0);
    commit(store);
    grant(store, 2, 5);
    commit(store);
    assert_int_equal(store_counts(store)->aborted, 1);
    assert_int_equal(store_counts(store)->sealed, 1);
    assert_int_equal(store_counts(store)->steps, 6); /* nothing acknowledged is gone */
    assert_true(store_episode(store, 0)->flags & EPISODE_ABORTED);
    assert_true(published(store, 0));
    expect_episode(store, 0, 7, 0);
    assert_int_equal(store_stream(store, 2, 0)->next, 0);
    assert_int_equal(store_stream(store, 2, 0)->epoch, 5);

    append_ok(store, 2, 3, 0);
    assert_ok(store_close_stream(store, 2, 0, &err), err);
    assert_ok(store_close_stream(store, 2, 0, &err), err);
    assert_ok(store_close_stream(store, 3, 0, &err), err); /* unknown */
    commit(store);
    store = reopen(store, dir);
    assert_int_equal(store_counts(store)->aborted, 2);
    assert_int_equal(store_counts(store)->sealed, 2);
    expect_episode(store, 1, 3, 0);
    store_close(&store);
}

static void long_episodes_take_several_segments(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    uint32_t full = segment_rows_max(&schema), rows = full * 2 + 17;
    size_t length;

    (void)state;
    grant(store, 0, 1);
    for (uint32_t left = rows; left > 0;) {
        uint32_t now = left < 1000 ? left : 1000;

        left -= now;
        append_ok(store, 0, now, left == 0 ? ROW_TERMINATED : 0);
    }
    commit(store);
    expect_episode(store, 0, rows, ROW_TERMINATED);
    assert_non_null(store_segment(store, 0, 2, &length));
    assert_int_equal(length, segment_bytes(&schema, 17));
    assert_null(store_segment(store, 0, 3, &length));
    store_rows_end(store);
    assert_int_equal(store_counts(store)->bytes, 2 * segment_bytes(&schema, full) + length);
    store_close(&store);
}

static void aborting_undoes_all_of_it(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct error err = {0};

    (void)state;
    grant(store, 0, 1);
    append_ok(store, 0, 4, ROW_TRUNCATED);
    append_ok(store, 0, 2, 0);
    commit(store);
    (void)store_news(store);
    append_ok(store, 0, 4, ROW_TRUNCATED);
    append_ok(store, 0, 1, 0);
    grant(store, 9, 3);
    assert_ok(store_evict(store, 1, 5, &err), err);
    assert_ok(store_learner_epoch(store, 8, &err), err);
    assert_true(store_dirty(store));
    assert_int_equal(store_counts(store)->sealed, 2);
    assert_int_equal(store_counts(store)->first, 1);
    store_abort(store);
    assert_false(store_dirty(store));
    assert_int_equal(store_counts(store)->sealed, 1);
    assert_int_equal(store_counts(store)->first, 0);
    assert_int_equal(store_counts(store)->learner_epoch, 0);
    assert_null(store_stream(store, 9, 0));
    assert_int_equal(store_counts(store)->slot, 0);
    assert_int_equal(store_stream(store, 0, 0)->next, 6);
    assert_true(store_news(store).rebuilt);
    expect_episode(store, 0, 4, ROW_TRUNCATED);
    append_ok(store, 0, 1, ROW_TERMINATED);
    commit(store);
    expect_episode(store, 1, 3, ROW_TERMINATED);
    store_close(&store);
}

static void eviction_frees_the_oldest(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct error err = {0};

    (void)state;
    grant(store, 0, 1);
    for (int i = 0; i < 5; i++)
        append_ok(store, 0, 10, ROW_TRUNCATED);
    assert_ok(store_evict(store, 5, 100, &err), err);
    assert_int_equal(store_counts(store)->first, 0); /* nothing of it is committed yet */
    commit(store);
    assert_ok(store_evict(store, 3, 2, &err), err);
    commit(store);
    assert_int_equal(store_counts(store)->first, 2);
    assert_int_equal(store_counts(store)->held_rows, 30);
    assert_int_equal(store_counts(store)->steps, 45);
    store = reopen(store, dir);
    assert_int_equal(store_counts(store)->first, 2);
    assert_int_equal(store_counts(store)->sealed, 5);
    expect_episode(store, 2, 10, ROW_TRUNCATED);
    assert_ok(store_evict(store, 99, 100, &err), err);
    commit(store);
    assert_int_equal(store_counts(store)->first, 5);
    assert_int_equal(store_counts(store)->held_rows, 0);
    assert_int_equal(store_counts(store)->bytes, 0);
    store = reopen(store, dir); /* an empty index keeps the numbers */
    assert_int_equal(store_counts(store)->first, 5);
    assert_int_equal(store_counts(store)->sealed, 5);
    append_ok(store, 0, 2, 0);
    append_ok(store, 0, 2, ROW_TRUNCATED);
    commit(store);
    expect_episode(store, 5, 4, ROW_TRUNCATED);
    store_close(&store);
}

static void rewinding_takes_back_what_came_after(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct error err = {0};
    uint64_t rows, steps;

    (void)state;
    grant(store, 0, 1);
    append_ok(store, 0, 10, ROW_TRUNCATED);
    append_ok(store, 0, 12, ROW_TRUNCATED);
    commit(store);
    rows = store_counts(store)->rows;
    steps = store_counts(store)->steps;
    append_ok(store, 0, 5, 0);
    commit(store);
    grant(store, 0, 2); /* aborts it as episode 2 */
    append_ok(store, 0, 8, ROW_TERMINATED);
    append_ok(store, 0, 3, 0);
    commit(store);
    append_ok(store, 0, 2, 0); /* not committed */
    (void)store_news(store);

    assert_ok(store_rewind(store, 1, rows, 2, &err), err);
    commit(store);
    assert_int_equal(store_counts(store)->rows, rows);
    assert_int_equal(store_counts(store)->steps, steps);
    assert_int_equal(store_counts(store)->sealed, 2);
    assert_int_equal(store_counts(store)->generation, 1);
    assert_int_equal(store_counts(store)->open_rows, 0);
    assert_int_equal(store_stream(store, 0, 0)->holder, 0);
    assert_int_equal(store_stream(store, 0, 0)->epoch, 2); /* epochs stay */
    assert_true(published(store, 1));
    assert_true(store_news(store).rebuilt);
    expect_episode(store, 1, 12, ROW_TRUNCATED);

    /* the same numbers are given again */
    grant(store, 0, 3);
    append_ok(store, 0, 6, ROW_TRUNCATED);
    commit(store);
    store = reopen(store, dir);
    assert_int_equal(store_counts(store)->sealed, 3);
    expect_episode(store, 2, 6, ROW_TRUNCATED);

    /* a repeated order changes nothing, a wrong one is refused */
    assert_ok(store_rewind(store, 1, rows, 2, &err), err);
    assert_false(store_dirty(store));
    assert_int_equal(store_counts(store)->sealed, 3);
    assert_int_equal(store_rewind(store, 2, rows + 1, 2, &err), TD_EINVAL);
    assert_int_equal(store_rewind(store, 2, rows, 9, &err), TD_EINVAL);
    assert_ok(store_evict(store, 1, 1, &err), err);
    commit(store);
    assert_int_equal(store_rewind(store, 2, 0, 0, &err), TD_EINVAL); /* let go of */
    assert_ok(store_rewind(store, 2, 10, 1, &err), err);
    commit(store);
    assert_int_equal(store_counts(store)->rows, 10);
    store_close(&store);
}

/* --- killed anywhere ------------------------------------------------------- */

/* All that can be read back of a store, as one number. */
static uint64_t digest(store_t *store)
{
    const struct store_counts *counts = store_counts(store);
    uint64_t all[] = {counts->rows, counts->steps, counts->sealed, counts->aborted, counts->generation,
                      counts->learner_epoch, counts->first, counts->held_rows, counts->open_rows};
    uint64_t sum = XXH3_64bits(all, sizeof(all));

    for (size_t i = 0; i < store_stream_count(store); i++) {
        const struct store_stream *stream = store_stream_at(store, i);

        sum = XXH3_64bits_withSeed(stream, offsetof(struct store_stream, task), sum);
    }
    for (uint64_t id = counts->first; id < counts->sealed; id++)
        for (uint32_t row = 0; row < store_episode(store, id)->rows;) {
            uint32_t count = store_episode(store, id)->rows - row;
            const void *rows = store_rows(store, id, row, &count);

            assert_non_null(rows);
            sum = XXH3_64bits_withSeed(rows, count * row_stride(&schema),
                                       sum + store_episode(store, id)->flags);
            row += count;
        }
    store_rows_end(store);
    return sum;
}

/* The i-th thing that happens to a store, commits among them. Returns false after the last. */
static bool happen(store_t *store, int i)
{
    struct error err = {0};

    switch (i) {
    case 0: grant(store, 0, 1); break;
    case 1: append_ok(store, 0, 9, 0); break;
    case 2: commit(store); break;
    case 3: append_ok(store, 0, 3, ROW_TRUNCATED); break;
    case 4: grant(store, 1, 4); break;
    case 5: append_ok(store, 1, 7000, 0); break;
    case 6: commit(store); break;
    case 7: append_ok(store, 0, 1, 0); break;
    case 8: commit(store); break;
    case 9: append_ok(store, 1, 500, ROW_TERMINATED); break;
    case 10: assert_ok(store_learner_epoch(store, 2, &err), err); break;
    case 11: grant(store, 0, 2); break;
    case 12: commit(store); break;
    case 13: assert_ok(store_evict(store, 1, 9, &err), err); break;
    case 14: append_ok(store, 0, 20, ROW_TERMINATED); break;
    case 15: commit(store); break;
    case 16: assert_ok(store_rewind(store, 7, store_counts(store)->rows - 20, 3, &err), err); break;
    case 17: commit(store); break;
    case 18: grant(store, 0, 3); break;
    case 19: append_ok(store, 0, 6, ROW_TRUNCATED); break;
    case 20: assert_ok(store_close_stream(store, 1, 0, &err), err); break;
    case 21: commit(store); break;
    default: return false;
    }
    return true;
}

/* Let go after each step, and opened again: exactly the state of the last commit, and life goes on. */
static void killed_anywhere_it_is_as_last_committed(void **state)
{
    bool more = true;

    (void)state;
    for (int last = 0; more; last++) {
        const char *dir = fresh();
        store_t *store = open_store(dir);
        uint64_t committed = digest(store);

        for (int i = 0; i <= last && more; i++) {
            more = happen(store, i);
            if (!store_dirty(store))
                committed = digest(store);
        }
        store = reopen(store, dir);
        assert_true(digest(store) == committed);
        grant(store, 5, 1);
        append_ok(store, 5, 4, ROW_TRUNCATED);
        commit(store);
        expect_episode(store, store_counts(store)->sealed - 1, 4, ROW_TRUNCATED);
        store_close(&store);
    }
}

/* --- full, failing, damaged ------------------------------------------------ */

static void a_full_map_pauses_and_eviction_makes_room(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_for(dir);
    struct error err = {0};
    store_t *store;
    uint64_t written = 0, evictions = 0;

    (void)state;
    config.map_bytes = 2 << 20;
    assert_ok(store_open(&store, &config, &err), err);
    grant(store, 0, 1);
    while (written < 20u << 20) { /* ten times the map */
        int rc = append(store, 0, 100, ROW_TRUNCATED);

        if (rc == TD_EFULL) {
            uint64_t first = store_counts(store)->first;

            commit(store);
            assert_ok(store_evict(store, first + 40, 40, &err), err);
            commit(store);
            assert_true(store_counts(store)->first > first);
            commit(store);
            assert_ok(store_learner_epoch(store, (uint32_t)++evictions, &err), err);
            commit(store); /* freed pages may be used from the next transaction on */
            continue;
        }
        assert_int_equal(rc, TD_OK);
        written += 100 * row_stride(&schema);
        if (store_counts(store)->sealed % 7 == 0)
            commit(store);
    }
    assert_true(evictions > 3);
    commit(store);
    for (uint64_t id = store_counts(store)->first; id < store_counts(store)->sealed; id++)
        expect_episode(store, id, 100, ROW_TRUNCATED);
    store_close(&store);
}

/* Nobody evicts: the store says full, keeps what it has, and can still seal what is open. */
static void a_full_map_can_still_close_its_streams(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_for(dir);
    struct error err = {0};
    store_t *store;
    uint64_t rows;
    int rc = TD_OK;

    (void)state;
    config.map_bytes = 1 << 20;
    assert_ok(store_open(&store, &config, &err), err);
    for (uint32_t slot = 0; slot < 8; slot++)
        grant(store, slot, 1);
    commit(store);
    for (uint32_t i = 0; rc == TD_OK; i++) {
        rc = append(store, i % 8, 30, 0);
        if (i % 3 == 0)
            commit(store);
    }
    assert_int_equal(rc, TD_EFULL);
    commit(store);
    rows = store_counts(store)->rows;
    assert_true(rows > 1000);
    for (uint32_t slot = 0; slot < 8; slot++) {
        assert_ok(store_close_stream(store, slot, 0, &err), err);
        commit(store);
    }
    assert_int_equal(store_counts(store)->held_rows, rows);
    for (uint64_t id = 0; id < 8; id++)
        expect_episode(store, id, store_episode(store, id)->rows, 0);
    store_close(&store);
}

/* A sync that also records new blocks waits for the journal: small commits find the file grown already. */
static void the_file_is_ahead_of_small_commits(void **state)
{
    struct store_config config = config_for(fresh());
    struct error err = {0};
    int grown = 0, commits = 200;
    store_t *store;
    off_t size;

    (void)state;
    config.map_bytes = 64 << 20; /* a megabyte ahead */
    assert_ok(store_open(&store, &config, &err), err);
    grant(store, 0, 1);
    commit(store);
    size = file_bytes(config.dir);
    assert_true(size >= (off_t)test_used_bytes(config.dir) + (1 << 20) - 65536);
    for (int i = 0; i < commits; i++) {
        append_ok(store, 0, 100, ROW_TRUNCATED);
        commit(store);
        grown += file_bytes(config.dir) != size;
        size = file_bytes(config.dir);
        assert_true(size >= (off_t)test_used_bytes(config.dir));
    }
    assert_in_range(grown, 1, 5); /* of 200: about 1.5 MB were written */
    append_ok(store, 0, 20000, ROW_TRUNCATED); /* large: no zeros behind it */
    commit(store);
    assert_true(file_bytes(config.dir) - (off_t)test_used_bytes(config.dir) < 65536);
    store_close(&store);

    config.dir = fresh();
    config.map_bytes = 1 << 20; /* it never outgrows the map */
    assert_ok(store_open(&store, &config, &err), err);
    grant(store, 0, 1);
    for (int i = 0; i < 40 && !store_full(store); i++) {
        append_ok(store, 0, 100, ROW_TRUNCATED);
        commit(store);
    }
    assert_true(file_bytes(config.dir) <= 1 << 20);
    store_close(&store);
}

static void a_full_disk_is_undone_and_tried_again(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct rlimit old, tight;
    struct error err = {0};

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    grant(store, 0, 1);
    append_ok(store, 0, 50, ROW_TRUNCATED);
    commit(store);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = (rlim_t)test_used_bytes(dir);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    append_ok(store, 0, 2000, ROW_TRUNCATED);
    assert_int_equal(store_commit(store, &err), TD_EFULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_false(store_dirty(store));
    assert_int_equal(store_counts(store)->sealed, 1);
    assert_int_equal(store_stream(store, 0, 0)->next, 50);
    append_ok(store, 0, 2000, ROW_TRUNCATED);
    commit(store);
    store = reopen(store, dir);
    expect_episode(store, 1, 2000, ROW_TRUNCATED);
    store_close(&store);
}

/* Room is asked for before anything is written; where it can't be, the disk is asked how much it has. */
static void room_on_the_disk_is_taken_before_a_commit(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct error err = {0};

    (void)state;
    grant(store, 0, 1);
    append_ok(store, 0, 50, ROW_TRUNCATED);
    room_failures = 2; /* with something to spare, and without */
    room_errno = ENOSPC;
    sync_failures = 1;
    assert_int_equal(store_commit(store, &err), TD_EFULL);
    assert_non_null(strstr(err.text, dir));
    assert_non_null(strstr(err.text, "MB more are needed"));
    assert_int_equal(sync_failures, 1); /* it did not come to that */
    sync_failures = 0;
    assert_false(store_dirty(store));
    assert_int_equal(store_stream_count(store), 0);

    grant(store, 0, 1);
    append_ok(store, 0, 50, ROW_TRUNCATED);
    room_failures = 1; /* there is just enough */
    commit(store);
    append_ok(store, 0, 20000, ROW_TRUNCATED);
    room_failures = 1;
    room_errno = EOPNOTSUPP;
    commit(store);
    append_ok(store, 0, 20000, ROW_TRUNCATED);
    room_failures = 1;
    room_errno = EINTR;
    commit(store);
    append_ok(store, 0, 20000, ROW_TRUNCATED);
    room_failures = 1;
    room_errno = EIO;
    assert_int_equal(store_commit(store, &err), TD_EIO);
    room_failures = 0;
    store = reopen(store, dir);
    assert_int_equal(store_counts(store)->sealed, 3);
    store_close(&store);
}

static void a_failed_sync_is_never_success(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct error err = {0};

    (void)state;
    grant(store, 0, 1);
    append_ok(store, 0, 50, ROW_TRUNCATED);
    commit(store);
    append_ok(store, 0, 20, ROW_TRUNCATED);
    sync_failures = 1;
    assert_int_equal(store_commit(store, &err), TD_EIO);
    assert_int_equal(sync_failures, 0); /* the sync was asked for */
    assert_int_equal(store_learner_epoch(store, 3, &err), TD_EIO); /* and nothing more is taken */
    store = reopen(store, dir);
    assert_int_equal(store_counts(store)->sealed, 1);
    assert_int_equal(store_stream(store, 0, 0)->next, 50);
    append_ok(store, 0, 20, ROW_TRUNCATED);
    commit(store);
    expect_episode(store, 1, 20, ROW_TRUNCATED);
    store_close(&store);
}

/* Flip one bit of the file at `offset` behind the `nth` occurrence of these bytes. */
static void flip_after(const char *dir, const void *bytes, size_t length, int nth, size_t offset)
{
    char path[600], *file, *found;
    struct stat info;
    int fd;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &info), 0);
    file = malloc((size_t)info.st_size);
    assert_int_equal(pread(fd, file, (size_t)info.st_size, 0), info.st_size);
    found = file;
    for (int i = 0; i <= nth; i++) {
        found = memmem(found + (i > 0), (size_t)(file + info.st_size - found - (i > 0)), bytes, length);
        assert_non_null(found);
    }
    found[offset] ^= 4;
    assert_int_equal(pwrite(fd, found + offset, 1, found + offset - file), 1);
    close(fd);
    free(file);
}

static void bad_segments_are_set_aside_and_the_rest_served(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    uint32_t count = 1;

    (void)state;
    grant(store, 0, 1);
    for (int i = 0; i < 3; i++)
        append_ok(store, 0, 100, ROW_TRUNCATED);
    commit(store);
    store_close(&store);
    flip_after(dir, SEGMENT_MAGIC, 8, 1, sizeof(struct segment_head) + 7 * 8 + 40 * row_stride(&schema));
    store = open_store(dir);
    expect_episode(store, 0, 100, ROW_TRUNCATED);
    expect_episode(store, 2, 100, ROW_TRUNCATED);
    count = 4;
    assert_non_null(store_rows(store, 1, 0, &count)); /* another block is whole */
    count = 4;
    assert_null(store_rows(store, 1, 40, &count));
    store_rows_end(store);
    assert_true(store_episode(store, 1)->flags & STORE_QUARANTINED);
    assert_int_equal(store_counts(store)->bad, 1);
    assert_int_equal(store_counts(store)->damaged, 1);
    append_ok(store, 0, 1, 0);
    store_abort(store); /* memory is made anew, but this is not forgotten */
    assert_true(store_episode(store, 1)->flags & STORE_QUARANTINED);
    assert_int_equal(store_counts(store)->damaged, 1);
    store_close(&store);

    flip_after(dir, SEGMENT_MAGIC, 8, 0, 20); /* a head */
    store = open_store(dir);
    count = 1;
    assert_null(store_rows(store, 0, 0, &count));
    expect_episode(store, 2, 100, ROW_TRUNCATED);
    store_close(&store);
}

static void damaged_open_rows_are_sealed_but_never_drawn(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    char row[128];
    struct test_row_id id = {0, 0, 1, 33};

    (void)state;
    grant(store, 0, 1);
    append_ok(store, 0, 30, 0);
    append_ok(store, 0, 30, 0);
    commit(store);
    store_close(&store);
    test_row_fill(row, &schema, &id, 0);
    flip_after(dir, row, row_stride(&schema), 0, 30);
    store = open_store(dir);
    append_ok(store, 0, 10, ROW_TRUNCATED);
    commit(store);
    assert_int_equal(store_episode(store, 0)->rows, 70);
    assert_true(store_episode(store, 0)->flags & EPISODE_DAMAGED);
    assert_int_equal(store_counts(store)->damaged, 1);
    append_ok(store, 0, 10, ROW_TRUNCATED);
    commit(store);
    expect_episode(store, 1, 10, ROW_TRUNCATED);
    store = reopen(store, dir);
    assert_true(store_episode(store, 0)->flags & EPISODE_DAMAGED);
    store_close(&store);
}

/* A file that lost its end, at any page: an error or quarantine, never a crash. */
static void a_truncated_file_is_survived(void **state)
{
    const char *dir = fresh();
    store_t *store = open_store(dir);
    struct store_config config = config_for(dir);
    char path[600], copy[600], command[1300];
    int served = 0, refused = 0;

    (void)state;
    grant(store, 0, 1);
    for (int i = 0; i < 12; i++) {
        append_ok(store, 0, 200, ROW_TRUNCATED);
        commit(store);
    }
    store_close(&store);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    snprintf(copy, sizeof(copy), "%s/copy", dir);
    snprintf(command, sizeof(command), "cp '%s' '%s'", path, copy);
    assert_int_equal(system(command), 0);
    for (off_t length = (off_t)test_used_bytes(dir) - 1; length > 0; length -= 4096 * 3) {
        struct error err = {0};

        snprintf(command, sizeof(command), "cp '%s' '%s'", copy, path);
        assert_int_equal(system(command), 0);
        assert_int_equal(truncate(path, length), 0);
        if (store_open(&store, &config, &err) != TD_OK) {
            refused++;
            continue;
        }
        for (uint64_t id = store_counts(store)->first; id < store_counts(store)->sealed; id++) {
            uint32_t count = 1;

            served += store_rows(store, id, 0, &count) != NULL;
        }
        store_close(&store);
    }
    assert_true(served > 0 && refused > 0);
}

/* A page that is not there any more: a sentence and an exit code, not a signal. */
static void a_bus_error_ends_in_a_sentence(void **state)
{
    char said[600] = "", path[600];
    int ends[2], status, fd;
    ssize_t got;
    pid_t child;

    (void)state;
    snprintf(path, sizeof(path), "%s/short", test_folder());
    assert_int_equal(pipe(ends), 0);
    if ((child = fork()) == 0) {
        volatile char *bytes;

        dup2(ends[1], STDERR_FILENO);
        store_guard("/some/replay");
        fd = open(path, O_RDWR | O_CREAT, 0644);
        bytes = ftruncate(fd, 4096) == 0 ? mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
        _exit(bytes == MAP_FAILED || ftruncate(fd, 0) != 0 ? 99 : bytes[0]);
    }
    close(ends[1]);
    got = read(ends[0], said, sizeof(said) - 1);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), TD_EXIT_GAVE_UP);
    assert_true(got > 0);
    assert_non_null(strstr(said, "/some/replay/data.mdb can't be read"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_store_is_empty_and_stays_itself),
        cmocka_unit_test(foreign_stores_are_named_and_refused),
        cmocka_unit_test(looking_refuses_the_same_and_makes_nothing),
        cmocka_unit_test(looking_at_damage_is_safe),
        cmocka_unit_test(an_unfinished_creation_is_begun_again),
        cmocka_unit_test(rows_survive_in_open_and_sealed_episodes),
        cmocka_unit_test(a_chunk_may_span_episodes),
        cmocka_unit_test(publication_follows_the_rule),
        cmocka_unit_test(a_new_epoch_or_close_aborts_the_open_episode),
        cmocka_unit_test(long_episodes_take_several_segments),
        cmocka_unit_test(aborting_undoes_all_of_it),
        cmocka_unit_test(eviction_frees_the_oldest),
        cmocka_unit_test(rewinding_takes_back_what_came_after),
        cmocka_unit_test(killed_anywhere_it_is_as_last_committed),
        cmocka_unit_test(a_full_map_pauses_and_eviction_makes_room),
        cmocka_unit_test(a_full_map_can_still_close_its_streams),
        cmocka_unit_test(the_file_is_ahead_of_small_commits),
        cmocka_unit_test(a_full_disk_is_undone_and_tried_again),
        cmocka_unit_test(room_on_the_disk_is_taken_before_a_commit),
        cmocka_unit_test(a_failed_sync_is_never_success),
        cmocka_unit_test(bad_segments_are_set_aside_and_the_rest_served),
        cmocka_unit_test(damaged_open_rows_are_sealed_but_never_drawn),
        cmocka_unit_test(a_truncated_file_is_survived),
        cmocka_unit_test(a_bus_error_ends_in_a_sentence),
    };

    if (access("/dev/shm", W_OK) == 0) /* what a crash of the machine leaves is not the question here */
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
