/* An episode's task: of its rows, in its index record and in memory, whatever happened in between. */
#include <unistd.h>

#include "common/store/store.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

static const struct row_schema schema = {OBS_STATE, 6, 2};

static store_t *open_store(void)
{
    static char dir[512];
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 77, .rows = 20000};
    struct error err = {0};
    store_t *store;

    snprintf(dir, sizeof(dir), "%s/replay", test_folder());
    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

/* `count` rows of this task; the first is a reset row where no episode is open. What is wrong with them, or NULL. */
static const char *append(store_t *store, uint32_t task, uint32_t count, uint32_t ends)
{
    const struct store_stream *stream = store_stream(store, 3, 0);
    size_t stride = row_stride(&schema);
    char *rows = calloc(count, stride);
    struct error err = {0};
    const char *why = NULL;
    uint32_t which;

    for (uint32_t i = 0; i < count; i++) {
        struct row_head head;

        test_row_fill(rows + i * stride, &schema, &(struct test_row_id){3, 0, stream->epoch, stream->next + i},
                      (i == 0 && stream->open_rows == 0 ? (uint32_t)ROW_FIRST : 0u) | (i + 1 == count ? ends : 0u));
        memcpy(&head, rows + i * stride, sizeof(head));
        head.task = task;
        memcpy(rows + i * stride, &head, sizeof(head));
        if ((why = row_check(rows + i * stride, &schema)) != NULL)
            break;
        why = NULL;
    }
    if (why == NULL && (why = store_rows_check(store, stream, rows, count, &which)) == NULL)
        assert_ok(store_append(store, 3, 0, rows, count, &err), err);
    free(rows);
    return why;
}

static void commit(store_t *store)
{
    struct error err = {0};

    assert_ok(store_commit(store, &err), err);
}

static void expect_task(store_t *store, uint64_t id, uint32_t task, uint32_t flags)
{
    struct store_record record;
    struct error err = {0};

    assert_ok(store_record(store, id, &record, &err), err);
    assert_int_equal(episode_task(record.flags), task);
    assert_int_equal(record.flags & 15u, flags);
    assert_int_equal(episode_task(store_episode(store, id)->flags), task);
}

static void an_episode_is_of_one_task(void **state)
{
    store_t *store = open_store();
    struct error err = {0};

    (void)state;
    assert_ok(store_grant(store, 3, 0, 1, 9, &err), err);
    assert_null(append(store, 7, 5, 0));
    assert_string_equal(append(store, 6, 5, ROW_TRUNCATED), "the task changes within an episode");
    assert_null(append(store, 7, 5, ROW_TRUNCATED));
    assert_null(append(store, 0, 9000, ROW_TERMINATED)); /* several segments */
    assert_null(append(store, ROW_TASKS_MAX - 1, 9000, 0));
    commit(store);
    store_close(&store);

    store = open_store();
    assert_null(append(store, ROW_TASKS_MAX - 1, 4, 0)); /* what was open goes on */
    assert_string_equal(append(store, 2, 1, 0), "the task changes within an episode");
    assert_string_equal(append(store, ROW_TASKS_MAX, 1, 0), "a task that no run has");
    assert_ok(store_close_stream(store, 3, 0, &err), err);
    commit(store);
    for (int pass = 0; pass < 2; pass++) {
        expect_task(store, 0, 7, EPISODE_TRUNCATED);
        expect_task(store, 1, 0, EPISODE_TERMINATED);
        expect_task(store, 2, ROW_TASKS_MAX - 1, EPISODE_ABORTED);
        store_close(&store);
        store = open_store();
    }
    store_close(&store);
}

static void what_is_inserted_whole_has_its_rows_task(void **state)
{
    store_t *store = open_store();
    uint64_t id = store_counts(store)->sealed;
    struct store_record record = {.slot = 8, .epoch = 1, .rows = 1, .flags = EPISODE_TRUNCATED | 5u << EPISODE_TASK_SHIFT};
    _Alignas(8) char row[256] = {0};
    struct error err = {0};

    (void)state;
    row_head(row)->flags = ROW_FIRST;
    row_head(row)->task = 11;
    assert_ok(store_insert(store, &record, row, &err), err);
    commit(store);
    expect_task(store, id, 11, EPISODE_TRUNCATED);
    store_close(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_episode_is_of_one_task),
        cmocka_unit_test(what_is_inserted_whole_has_its_rows_task),
    };

    setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
