/* sampler.c: the reference's distribution, the window's rule, repeatable draws, damage. */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "learner/replay/sampler.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define HORIZON 3u

static const struct row_schema schema = {OBS_STATE, 5, 2};

static store_t *fresh(char dir[512])
{
    static int count;
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 1, .rows = 100000};
    struct error err = {0};
    store_t *store;

    snprintf(dir, 512, "%s/sampler%d", test_folder(), count++);
    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

static sampler_t *sampler_on(store_t *store, uint64_t capacity, bool lockstep)
{
    struct sampler_config config = {.horizon = HORIZON, .capacity = capacity, .seed = 9,
                                    .lockstep = lockstep};
    sampler_t *sampler;

    assert_int_equal(sampler_create(&sampler, store, &config), TD_OK);
    return sampler;
}

/* A whole published episode; its epoch is its id + 1, so rows tell where they come from. */
static void insert(store_t *store, uint32_t rows, uint32_t ends)
{
    struct store_record record = {.epoch = store_counts(store)->sealed + 1, .rows = rows,
                                  .flags = ends & ROW_TERMINATED ? EPISODE_TERMINATED
                                                                 : EPISODE_TRUNCATED};
    size_t stride = row_stride(&schema);
    char *bytes = malloc(rows * stride);
    struct error err = {0};

    for (uint32_t i = 0; i < rows; i++) {
        struct test_row_id id = {0, 0, record.epoch, i};

        test_row_fill(bytes + i * stride, &schema, &id,
                      (i == 0 ? (uint32_t)ROW_FIRST : 0u) | (i + 1 == rows ? ends : 0u));
    }
    assert_ok(store_insert(store, &record, bytes, &err), err);
    free(bytes);
}

static void commit(store_t *store, sampler_t *sampler)
{
    struct error err = {0};

    assert_ok(store_commit(store, &err), err);
    if (sampler != NULL)
        assert_int_equal(sampler_update(sampler), TD_OK);
}

/* Episode and start of slice b, read from its first observation. */
static void origin(const float *out, uint32_t b, uint64_t *id, uint32_t *start)
{
    *id = (uint64_t)out[b * schema.obs_dim + 2] - 1;
    *start = (uint32_t)out[b * schema.obs_dim + 3];
}

/* --- tests ----------------------------------------------------------------- */

/* Uniform over episodes of at least H+1 rows, then over starts: chi-square over every valid start. */
static void draws_have_the_references_distribution(void **state)
{
    static const uint32_t lengths[] = {1, 4, 3, 5, 7, 2, 40, 12, 200, 4};
    char dir[512];
    store_t *store = fresh(dir);
    sampler_t *sampler;
    enum { BATCH = 256, UPDATES = 1200 };
    static unsigned seen[10][256];
    size_t degrees = 0, eligible = 0;
    double chi = 0, draws = (double)BATCH * UPDATES, bound;
    float *out;

    (void)state;
    for (size_t i = 0; i < TD_LEN(lengths); i++) {
        insert(store, lengths[i], i % 2 ? ROW_TERMINATED : ROW_TRUNCATED);
        eligible += lengths[i] >= HORIZON + 1;
    }
    commit(store, NULL);
    sampler = sampler_on(store, 100000, false);
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->episodes, eligible);
    out = malloc(sampler_bytes(sampler, BATCH));
    for (uint64_t update = 0; update < UPDATES; update++) {
        assert_int_equal(sampler_draw(sampler, update, BATCH, out), TD_OK);
        for (uint32_t b = 0; b < BATCH; b++) {
            uint64_t id;
            uint32_t start;

            origin(out, b, &id, &start);
            assert_true(id < TD_LEN(lengths) && start + HORIZON + 1 <= lengths[id]);
            seen[id][start]++;
        }
    }
    for (size_t id = 0; id < TD_LEN(lengths); id++)
        for (uint32_t start = 0; start + HORIZON < lengths[id]; start++, degrees++) {
            double expected = draws / (double)eligible / (lengths[id] - HORIZON);

            chi += (seen[id][start] - expected) * (seen[id][start] - expected) / expected;
        }
    degrees--;
    bound = (double)degrees + 5 * sqrt(2.0 * (double)degrees); /* five sigma, either side */
    assert_true(chi < bound && chi > 2 * (double)degrees - bound);
    free(out);
    sampler_destroy(&sampler);
    store_close(&store);
}

/* Row t's observation; the action, reward and termination of row t+1; the task of row 0. */
static void the_block_has_the_batch_layout(void **state)
{
    enum { BATCH = 50 };
    char dir[512];
    store_t *store = fresh(dir);
    sampler_t *sampler;
    const float *action, *reward, *terminated;
    size_t o = schema.obs_dim, a = schema.action_dim, ended = 0;
    float *out;

    (void)state;
    insert(store, 9, ROW_TERMINATED);
    insert(store, 6, ROW_TRUNCATED);
    commit(store, NULL);
    sampler = sampler_on(store, 1000, false);
    (void)sampler_window(sampler, SAMPLER_NEWEST);
    out = malloc(sampler_bytes(sampler, BATCH));
    test_poison(out, sampler_bytes(sampler, BATCH));
    assert_int_equal(sampler_draw(sampler, 3, BATCH, out), TD_OK);
    action = out + (HORIZON + 1) * BATCH * o;
    reward = action + HORIZON * BATCH * a;
    terminated = reward + HORIZON * BATCH;
    for (uint32_t b = 0; b < BATCH; b++) {
        uint64_t id;
        uint32_t start, task;

        origin(out, b, &id, &start);
        memcpy(&task, terminated + HORIZON * BATCH + b, sizeof(task));
        assert_int_equal(task, 0);
        for (uint32_t t = 0; t <= HORIZON; t++) {
            char row[512];
            struct test_row_id name = {0, 0, id + 1, start + t};
            bool last = start + t + 1 == (id == 0 ? 9u : 6u), end = last && id == 0;

            test_row_fill(row, &schema, &name, start + t == 0 ? (uint32_t)ROW_FIRST : 0u);
            assert_memory_equal(out + (t * BATCH + b) * o, row_obs(row), o * sizeof(float));
            if (t == 0)
                continue;
            assert_memory_equal(action + ((t - 1) * BATCH + b) * a, row_action(row, &schema),
                                a * sizeof(float));
            assert_true(reward[(t - 1) * BATCH + b] == row_head(row)->reward);
            assert_true(terminated[(t - 1) * BATCH + b] == (end ? 1.0f : 0.0f));
            ended += end;
        }
    }
    assert_true(ended > 0);
    free(out);
    sampler_destroy(&sampler);
    store_close(&store);
}

/* The rule by brute force: the newest episodes of at most `capacity` rows, one that may be drawn. */
static void expect_window(store_t *store, const struct sampler_window *window, uint64_t last,
                          uint64_t capacity)
{
    uint64_t first = last, oldest = store_counts(store)->first;
    struct sampler_window expected = {.last = last};

    while (first > oldest && expected.rows + store_episode(store, first - 1)->rows <= capacity)
        expected.rows += store_episode(store, --first)->rows;
    for (uint64_t id = first; id < last; id++)
        if (store_episode(store, id)->rows > HORIZON) {
            expected.episodes++;
            expected.steps += store_episode(store, id)->rows - 1;
        }
    for (uint64_t id = first; id > oldest && expected.episodes == 0; id--) {
        first = id - 1;
        expected.rows += store_episode(store, id - 1)->rows;
        if (store_episode(store, id - 1)->rows > HORIZON) {
            expected.episodes = 1;
            expected.steps = store_episode(store, id - 1)->rows - 1;
        }
    }
    assert_int_equal(window->last, last);
    assert_int_equal(window->episodes, expected.episodes);
    assert_int_equal(window->steps, expected.steps);
    if (expected.episodes != 0) {
        assert_int_equal(window->first, first);
        assert_int_equal(window->rows, expected.rows);
    }
}

static void the_window_follows_its_rule(void **state)
{
    char dir[512];
    store_t *store = fresh(dir);
    sampler_t *sampler = sampler_on(store, 60, true);
    struct error err = {0};

    (void)state;
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->episodes, 0);
    for (int i = 0; i < 400; i++) {
        uint64_t last, first;

        if (rng_below(test_rng(), 3) != 0)
            insert(store, 1 + (rng_below(test_rng(), 5) == 0 ? rng_below(test_rng(), 90)
                                                             : rng_below(test_rng(), 12)),
                   ROW_TRUNCATED);
        if (rng_below(test_rng(), 4) == 0 && sampler_window(sampler, SAMPLER_NEWEST)->episodes > 0) {
            first = sampler_window(sampler, SAMPLER_NEWEST)->first;
            assert_ok(store_evict(store, first, 5, &err), err);
        }
        commit(store, sampler);
        first = store_counts(store)->first;
        last = first + rng_below(test_rng(), (uint32_t)(store_counts(store)->sealed - first) + 1);
        expect_window(store, sampler_window(sampler, last), last, 60);
        last = store_counts(store)->sealed;
        expect_window(store, sampler_window(sampler, SAMPLER_NEWEST), last, 60);
        if (i % 50 == 49) { /* memory made anew says the same */
            insert(store, 5, ROW_TRUNCATED);
            store_abort(store);
            assert_int_equal(sampler_update(sampler), TD_OK);
            expect_window(store, sampler_window(sampler, SAMPLER_NEWEST), last, 60);
        }
    }
    sampler_destroy(&sampler);
    store_close(&store);
}

static void a_repeated_request_gives_the_same_slices(void **state)
{
    enum { BATCH = 64 };
    char dir[512];
    store_t *store = fresh(dir);
    sampler_t *sampler = sampler_on(store, 100, true), *again;
    size_t bytes = sampler_bytes(sampler, BATCH);
    char *first = malloc(bytes), *second = malloc(bytes), *other = malloc(bytes);

    (void)state;
    for (int i = 0; i < 8; i++)
        insert(store, 20, ROW_TRUNCATED);
    commit(store, sampler);
    (void)sampler_window(sampler, 6);
    assert_int_equal(sampler_draw(sampler, 17, BATCH, first), TD_OK);
    assert_int_equal(sampler_draw(sampler, 18, BATCH, other), TD_OK);
    assert_memory_not_equal(first, other, bytes);
    insert(store, 20, ROW_TRUNCATED);
    commit(store, sampler);
    (void)sampler_window(sampler, SAMPLER_NEWEST);
    (void)sampler_window(sampler, 6);
    assert_int_equal(sampler_draw(sampler, 17, BATCH, second), TD_OK);
    assert_memory_equal(first, second, bytes);
    again = sampler_on(store, 100, true); /* as after a restart */
    (void)sampler_window(again, 6);
    assert_int_equal(sampler_draw(again, 17, BATCH, second), TD_OK);
    assert_memory_equal(first, second, bytes);
    sampler_destroy(&again);
    sampler_destroy(&sampler);
    store_close(&store);
    free(first);
    free(second);
    free(other);
}

/* Asynchronous: an episode counts from its publication on, even if later ones were published before. */
static void only_published_episodes_are_drawn(void **state)
{
    char dir[512];
    store_t *store = fresh(dir);
    sampler_t *sampler = sampler_on(store, 1000, false), *lockstep;
    char row[512], all[512 * 6];
    size_t stride = row_stride(&schema);
    struct error err = {0};
    float out[1024];

    (void)state;
    assert_ok(store_grant(store, 0, 0, 1, 5, &err), err);
    for (uint32_t i = 0; i < 6; i++) {
        struct test_row_id id = {0, 0, 1, i};

        test_row_fill(all + i * stride, &schema, &id, i == 0 ? ROW_FIRST : i == 5 ? ROW_TRUNCATED : 0);
    }
    assert_ok(store_append(store, 0, 0, all, 6, &err), err);
    commit(store, sampler);
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->episodes, 0);
    assert_int_equal(sampler_draw(sampler, 0, 1, out), TD_EAGAIN);
    insert(store, 9, ROW_TRUNCATED);
    commit(store, sampler);
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->episodes, 1);
    lockstep = sampler_on(store, 1000, true);
    assert_int_equal(sampler_window(lockstep, 1)->episodes, 1);
    assert_int_equal(sampler_draw(lockstep, 0, 1, out), TD_OK);
    sampler_destroy(&lockstep);
    test_row_fill(row, &schema, &(struct test_row_id){0, 0, 1, 6}, ROW_FIRST);
    assert_ok(store_append(store, 0, 0, row, 1, &err), err);
    assert_ok(store_commit(store, &err), err); /* news may gather over several commits */
    insert(store, 9, ROW_TRUNCATED);
    commit(store, sampler);
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->episodes, 3);
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->steps, 5 + 8 + 8);
    sampler_destroy(&sampler);
    store_close(&store);
}

static void damaged_episodes_are_left_out(void **state)
{
    enum { BATCH = 32 };
    char dir[512], path[600], *file, *found;
    store_t *store = fresh(dir);
    struct store_config config = {.dir = dir};
    struct error err = {0};
    struct stat info;
    sampler_t *sampler;
    float *out;
    int fd;

    (void)state;
    for (int i = 0; i < 3; i++)
        insert(store, 40, ROW_TRUNCATED);
    commit(store, NULL);
    store_close(&store);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDWR);
    assert_int_equal(fstat(fd, &info), 0);
    file = malloc((size_t)info.st_size);
    assert_int_equal(pread(fd, file, (size_t)info.st_size, 0), info.st_size);
    found = memmem(file, (size_t)info.st_size, SEGMENT_MAGIC, 8);
    assert_non_null(found);
    assert_int_equal(pwrite(fd, "damage", 6, found - file + 8), 6);
    close(fd);
    free(file);

    assert_ok(store_open(&store, &config, &err), err);
    sampler = sampler_on(store, 1000, false);
    out = malloc(sampler_bytes(sampler, BATCH));
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->episodes, 3);
    for (uint64_t update = 0; update < 20; update++) {
        assert_int_equal(sampler_draw(sampler, update, BATCH, out), TD_OK);
        for (uint32_t b = 0; b < BATCH; b++) {
            uint64_t id;
            uint32_t start;

            origin(out, b, &id, &start);
            assert_int_not_equal(id, 0);
        }
    }
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->episodes, 2);
    assert_int_equal(store_counts(store)->bad, 1);
    free(out);
    sampler_destroy(&sampler);
    store_close(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_have_the_references_distribution),
        cmocka_unit_test(the_block_has_the_batch_layout),
        cmocka_unit_test(the_window_follows_its_rule),
        cmocka_unit_test(a_repeated_request_gives_the_same_slices),
        cmocka_unit_test(only_published_episodes_are_drawn),
        cmocka_unit_test(damaged_episodes_are_left_out),
    };

    if (access("/dev/shm", W_OK) == 0) /* what a crash of the machine leaves is not the question here */
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
