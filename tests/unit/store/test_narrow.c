/* Narrow segments in a store: rows of many tasks come back as they were, from less disk. */
#include "tests/support/test.h"

#include <string.h>

#include "common/store/store.h"
#include "common/store/verify.h"
#include "common/util/fs.h"

#define EPISODES 12u
#define ROWS     2500u /* more than one segment of the widest */
#define TASKS    4u

static const struct row_schema schema = {OBS_STATE, 39, 6};
static const uint32_t obs_dims[TASKS] = {39, 24, 3, 5}, action_dims[TASKS] = {4, 6, 1, 1};

static const char *fresh(void)
{
    static char dir[256];

    snprintf(dir, sizeof(dir), "%s/narrow", test_folder());
    (void)fs_remove_tree(dir, NULL);
    return dir;
}

/* Row `row` of episode `id`: as padded as the rows of its task are. */
static void fill_row(void *out, uint64_t id, uint32_t row)
{
    uint32_t task = (uint32_t)(id % TASKS);
    struct rng_key key = {.seed = id, .step = row};
    struct row_head head = {.task = task, .reward = (float)row,
                            .flags = row == 0 ? ROW_FIRST : row == ROWS - 1 ? ROW_TRUNCATED : 0u};
    struct rng rng;

    rng_init(&rng, &key);
    memset(out, 0, row_stride(&schema));
    rng_normal(&rng, row_obs(out), obs_dims[task]);
    if (row > 0)
        rng_uniform(&rng, row_action(out, &schema), action_dims[task], -1, 1);
    memcpy(out, &head, sizeof(head)); /* rows are aligned to 4 bytes only */
}

static void fill(const char *dir, bool narrow)
{
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 5, .rows = EPISODES * ROWS, .narrow = narrow};
    static char rows[ROWS * 208];
    struct error err = {0};
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    assert_ok(store_grant(store, 1, 0, 1, 7, &err), err);
    for (uint64_t id = 0; id < EPISODES; id++) {
        struct store_record record = {.slot = 9, .sequence = id, .rows = ROWS, .flags = EPISODE_TRUNCATED};

        for (uint32_t row = 0; row < ROWS; row++)
            fill_row(rows + row * row_stride(&schema), id, row);
        if (id % 2 == 0) {
            assert_ok(store_insert(store, &record, rows, &err), err);
            continue;
        }
        for (uint32_t row = 0; row < ROWS; row += 125)
            assert_ok(store_append(store, 1, 0, rows + row * row_stride(&schema), 125, &err), err);
    }
    assert_ok(store_commit(store, &err), err);
    store_close(&store);
}

/* Every row, asked for in pieces of `piece`, by an opening that does not say narrow. */
static void expect(const char *dir, uint32_t piece)
{
    struct store_config config = {.dir = dir, .any_shard = true, .reading = true};
    struct error err = {0};
    char row[256];
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    assert_int_equal(store_committed(store), EPISODES);
    for (uint64_t id = 0; id < EPISODES; id++)
        for (uint32_t at = 0, count; at < ROWS; at += count) {
            count = piece < ROWS - at ? piece : ROWS - at;
            const char *rows = store_rows(store, id, at, &count);

            assert_non_null(rows);
            for (uint32_t i = 0; i < count; i++) {
                fill_row(row, id, at + i);
                assert_memory_equal(rows + i * row_stride(&schema), row, row_stride(&schema));
            }
        }
    store_rows_end(store);
    store_close(&store);
}

static uint64_t segment_bytes_of(const char *dir)
{
    struct store_config config = {.dir = dir, .any_shard = true, .reading = true};
    struct verify_report report;
    struct error err = {0};
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
    assert_true(verify_clean(&report));
    store_close(&store);
    return report.bytes;
}

static void rows_of_many_tasks_come_back(void **state)
{
    const char *dir = fresh();
    uint64_t wide, narrow;

    (void)state;
    fill(dir, false);
    wide = segment_bytes_of(dir);
    (void)fs_remove_tree(dir, NULL);
    fill(dir, true);
    narrow = segment_bytes_of(dir);
    expect(dir, 4);
    expect(dir, ROWS);
    assert_true(wide > EPISODES * ROWS * row_stride(&schema));
    assert_true(narrow < EPISODES / TASKS * ROWS * (196 + 144 + 40 + 48) * 21 / 20);
}

static void a_narrow_store_is_salvaged(void **state)
{
    const char *dir = fresh();
    struct salvage_report report;
    struct error err = {0};
    char out[300];

    (void)state;
    fill(dir, true);
    snprintf(out, sizeof(out), "%s-out", dir);
    (void)fs_remove_tree(out, NULL);
    assert_ok(store_salvage(dir, out, false, 0, &report, NULL, NULL, &err), err);
    assert_int_equal(report.whole, EPISODES);
    expect(out, 100);
    assert_true(segment_bytes_of(out) == segment_bytes_of(dir));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_many_tasks_come_back),
        cmocka_unit_test(a_narrow_store_is_salvaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
