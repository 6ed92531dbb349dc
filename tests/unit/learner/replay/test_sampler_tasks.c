/* sampler.c with several tasks: who is drawn how often, by episode, by task, by share; counts by task. */
#include <math.h>
#include <unistd.h>

#include "learner/replay/sampler.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define HORIZON 3u
#define TASKS   4u

enum { BATCH = 256, UPDATES = 400 };

static const struct row_schema schema = {OBS_STATE, 5, 2};

static store_t *fresh(void)
{
    static int count;
    char dir[512];
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 1, .rows = 100000};
    struct error err = {0};
    store_t *store;

    snprintf(dir, sizeof(dir), "%s/tasks%d", test_folder(), count++);
    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

static void insert(store_t *store, uint32_t task, uint32_t rows)
{
    struct store_record record = {.epoch = store_counts(store)->sealed + 1, .rows = rows, .flags = EPISODE_TRUNCATED};
    size_t stride = row_stride(&schema);
    char *bytes = malloc(rows * stride);
    struct error err = {0};

    for (uint32_t i = 0; i < rows; i++) {
        struct test_row_id id = {0, 0, record.epoch, i};

        test_row_fill(bytes + i * stride, &schema, &id, i == 0 ? ROW_FIRST : i + 1 == rows ? ROW_TRUNCATED : 0);
        memcpy(bytes + i * stride + offsetof(struct row_head, task), &task, sizeof(task)); /* rows are aligned to 4 */
    }
    assert_ok(store_insert(store, &record, bytes, &err), err);
    free(bytes);
}

static sampler_t *sampler_on(store_t *store, uint64_t capacity, bool balanced)
{
    struct sampler_config config = {.horizon = HORIZON, .capacity = capacity, .seed = 9, .tasks = TASKS,
                                    .balanced = balanced};
    struct error err = {0};
    sampler_t *sampler;

    assert_ok(store_commit(store, &err), err);
    assert_int_equal(sampler_create(&sampler, store, &config), TD_OK);
    sampler_window(sampler, SAMPLER_NEWEST);
    return sampler;
}

/* The tasks of a batch's slices, behind its floats. */
static const uint32_t *tasks_of(const char *out)
{
    size_t floats = (HORIZON + 1) * schema.obs_dim + HORIZON * schema.action_dim + 2 * HORIZON;

    return (const uint32_t *)(out + floats * BATCH * sizeof(float));
}

/* 30 episodes of task 0, 10 of task 1, none of task 2 that can be drawn, one of task 3. */
static void fill(store_t *store)
{
    for (int i = 0; i < 30; i++) {
        insert(store, 0, 10);
        if (i % 3 == 0)
            insert(store, 1, 7);
        if (i == 4)
            insert(store, 3, 20);
        if (i % 7 == 0)
            insert(store, 2, HORIZON);
    }
}

/* Is `seen` of `draws` what one expects with this chance? Five sigma. */
static bool about(double seen, double draws, double chance)
{
    return fabs(seen - draws * chance) < 5 * sqrt(draws * chance * (1 - chance));
}

static void tasks_are_drawn_by_episode_or_evenly(void **state)
{
    static const double chance[2][TASKS] = {{30. / 41, 10. / 41, 0, 1. / 41}, {1. / 3, 1. / 3, 0, 1. / 3}};
    store_t *store = fresh();

    (void)state;
    fill(store);
    for (int balanced = 0; balanced < 2; balanced++) {
        sampler_t *sampler = sampler_on(store, 100000, balanced);
        char *out = malloc(sampler_bytes(sampler, BATCH)), *again = malloc(sampler_bytes(sampler, BATCH));
        double seen[TASKS] = {0}, first[64] = {0}, draws = 0;

        for (uint64_t update = 0; update < UPDATES; update++) {
            assert_int_equal(sampler_draw(sampler, update, BATCH, out), TD_OK);
            for (int b = 0; b < BATCH; b++) {
                uint32_t task = tasks_of(out)[b], epoch = (uint32_t)((const float *)out)[b * 5 + 2];

                assert_true(task < TASKS);
                assert_int_equal(task, episode_task(store_episode(store, epoch - 1)->flags));
                seen[task]++;
                first[epoch % 64] += task == 0;
            }
            draws += BATCH;
        }
        for (uint32_t task = 0; task < TASKS; task++)
            assert_true(task == 2 ? seen[task] == 0 : about(seen[task], draws, chance[balanced][task]));
        assert_true(about(first[1], draws, chance[balanced][0] / 30)); /* within a task every episode alike */
        assert_int_equal(sampler_draw(sampler, UPDATES - 1, BATCH, again), TD_OK);
        assert_memory_equal(out, again, sampler_bytes(sampler, BATCH));
        free(out);
        free(again);
        sampler_destroy(&sampler);
    }
    store_close(&store);
}

static void shares_are_kept_and_empty_ones_pass_to_the_others(void **state)
{
    static const uint32_t shares[TASKS] = {1, 200, 0, 55}, empty[TASKS] = {0, 0, BATCH, 0};
    store_t *store = fresh();
    sampler_t *sampler;
    uint32_t seen[TASKS] = {0};
    char *out;

    (void)state;
    fill(store);
    sampler = sampler_on(store, 100000, true);
    out = malloc(sampler_bytes(sampler, BATCH));
    assert_int_equal(sampler_draw_shares(sampler, 5, shares, BATCH, out), TD_OK);
    for (int b = 0; b < BATCH; b++)
        seen[tasks_of(out)[b]]++;
    assert_memory_equal(seen, shares, sizeof(seen));
    memset(seen, 0, sizeof(seen));
    assert_int_equal(sampler_draw_shares(sampler, 5, empty, BATCH, out), TD_OK);
    for (int b = 0; b < BATCH; b++)
        seen[tasks_of(out)[b]]++;
    assert_true(seen[2] == 0 && seen[0] > 50 && seen[1] > 50 && seen[3] > 50);
    free(out);
    sampler_destroy(&sampler);
    store_close(&store);
}

static void expect_counts(sampler_t *sampler, const uint64_t rows[TASKS], const uint64_t episodes[TASKS])
{
    struct sampler_task tasks[TASKS];

    sampler_tasks(sampler, tasks);
    for (uint32_t i = 0; i < TASKS; i++) {
        assert_int_equal(tasks[i].rows, rows[i]);
        assert_int_equal(tasks[i].episodes, episodes[i]);
    }
}

/* The window moves over all tasks alike; what is evicted or came later changes the counts. */
static void counts_follow_the_window(void **state)
{
    store_t *store = fresh();
    struct error err = {0};
    sampler_t *sampler;

    (void)state;
    insert(store, 0, 50);
    insert(store, 1, 30);
    insert(store, 2, HORIZON);
    sampler = sampler_on(store, 100, false);
    expect_counts(sampler, (uint64_t[]){50, 30, 3, 0}, (uint64_t[]){1, 1, 0, 0});
    insert(store, 3, 60);
    insert(store, 3, 5);
    assert_ok(store_commit(store, &err), err);
    assert_int_equal(sampler_update(sampler), TD_OK);
    sampler_window(sampler, SAMPLER_NEWEST);
    expect_counts(sampler, (uint64_t[]){0, 30, 3, 65}, (uint64_t[]){0, 1, 0, 2});
    assert_ok(store_evict(store, 1, 10, &err), err);
    assert_ok(store_commit(store, &err), err);
    assert_int_equal(sampler_update(sampler), TD_OK);
    sampler_window(sampler, SAMPLER_NEWEST);
    expect_counts(sampler, (uint64_t[]){0, 30, 3, 65}, (uint64_t[]){0, 1, 0, 2});
    sampler_destroy(&sampler);
    store_close(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_are_drawn_by_episode_or_evenly),
        cmocka_unit_test(shares_are_kept_and_empty_ones_pass_to_the_others),
        cmocka_unit_test(counts_follow_the_window),
    };

    setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
