/*
 * kill -9 of a real replay shard at random moments, with writers at full speed and a full table: no
 * acknowledged row is lost, none is stored twice, and the shard comes back every time.
 */
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include "common/store/store.h"
#include "common/util/clock.h"
#include "tests/support/test.h"
#include "tools/straw.h"

#define WRITERS 4u
#define EPISODE 23u
#define CAPACITY 4000u
#define TASKS    2u /* of the test with wide rows: half of its writers send narrower ones */

static const struct row_schema states = {OBS_STATE, 5, 2}, many = {OBS_STATE, 12, 4}, frames = {OBS_RGB, 700, 2};
static struct row_schema schema; /* of the test under way */
static uint32_t tasks;           /* and how many; 0: one */

static const char *program(void)
{
    static char path[512], whole[PATH_MAX];
    const char *build = getenv("TD_BUILD");

    snprintf(path, sizeof(path), "%s/bin/tdmpc2-replay", build == NULL ? "build/release" : build);
    if (realpath(path, whole) == NULL)
        fail_msg("%s is not there: run make first", path);
    return whole;
}

/* Rows first..first+count-1 of an episode are what writer `record->slot` sent. */
static void expect_rows(const char *rows, const struct store_record *record, uint32_t first,
                        uint32_t count)
{
    char expected[1024];

    for (uint32_t i = 0; i < count; i++) {
        straw_row(expected, &schema, record->slot, record->epoch, record->sequence + first + i, EPISODE);
        if (tasks > 0)
            straw_task_row(expected, &schema, record->slot, tasks);
        assert_memory_equal(rows + i * row_stride(&schema), expected, row_stride(&schema));
    }
}

static uint32_t packing_of(store_t *store, uint64_t id)
{
    struct segment_head head;
    size_t length;
    const void *bytes = store_segment(store, id, 0, &length);

    assert_non_null(bytes);
    assert_int_equal(segment_open(&head, bytes, length), TD_OK);
    return head.packing;
}

/*
 * Each stream's kept episodes follow each other without gap or overlap up to its open rows, and its
 * mark is no lower than what its writer was promised.
 */
static void audit(const char *dir, const uint64_t *epoch, const uint64_t *acked)
{
    struct store_config config = {.dir = dir, .any_shard = true, .lock_wait_ms = 15000};
    uint64_t next[WRITERS], total = 0;
    struct error err = {0};
    store_t *store;

    memset(next, 0xff, sizeof(next));
    assert_ok(store_open(&store, &config, &err), err);
    for (uint64_t id = store_counts(store)->first; id < store_counts(store)->sealed; id++) {
        struct store_record record;

        assert_ok(store_record(store, id, &record, &err), err);
        assert_true(record.slot < WRITERS && record.rows == EPISODE && record.sequence % EPISODE == 0);
        assert_int_equal(record.epoch, epoch[record.slot]);
        assert_true(next[record.slot] == UINT64_MAX || next[record.slot] == record.sequence);
        next[record.slot] = record.sequence + record.rows;
        assert_int_equal(packing_of(store, id), schema.obs_type == OBS_RGB              ? SEGMENT_ZSTD
                                                : tasks > 0 && record.slot % tasks > 0 ? SEGMENT_NARROW
                                                                                       : SEGMENT_PLAIN);
        for (uint32_t row = 0; row < record.rows;) {
            uint32_t count = record.rows - row;
            const char *rows = store_rows(store, id, row, &count);

            assert_non_null(rows);
            expect_rows(rows, &record, row, count);
            row += count;
        }
    }
    store_rows_end(store);
    for (uint32_t slot = 0; slot < WRITERS; slot++) {
        const struct store_stream *stream = store_stream(store, slot, 0);

        assert_non_null(stream);
        assert_int_equal(stream->epoch, epoch[slot]);
        assert_true(stream->next >= acked[slot]);
        assert_int_equal(stream->open_rows, stream->next % EPISODE);
        assert_true(next[slot] == UINT64_MAX || next[slot] == stream->next - stream->open_rows);
        total += stream->next;
    }
    assert_int_equal(store_counts(store)->rows, total); /* none twice */
    assert_int_equal(store_counts(store)->damaged, 0);
    assert_true(store_counts(store)->first > 0); /* the table was full: eviction took part */
    store_close(&store);
}

/* Rows of states, those of two tasks, or frames that the shard compresses. */
static void killed_at_random_moments(void **state)
{
    bool compress = *state == &frames;
    struct straw_config config = {.dir = NULL, .program = program(), .schema = *(struct row_schema *)*state,
                                  .writers = WRITERS, .chunk = 7, .window = 8, .episode = EPISODE,
                                  .horizon = 3, .batch = 16, .capacity = CAPACITY,
                                  .map_rows = CAPACITY + 2000, .compress_frames = compress,
                                  .tasks = *state == &many ? TASKS : 0};
    int rounds = test_long() ? 50 : *state == &states ? 8 : 5;
    uint64_t epoch[WRITERS], acked[WRITERS], before = 0;
    struct error err = {0};
    char dir[512];
    straw_t *straw;

    schema = config.schema;
    tasks = config.tasks;
    snprintf(dir, sizeof(dir), "%s/replay%u", test_folder(), schema.obs_dim);
    config.dir = dir;
    assert_ok(straw_start(&straw, &config, &err), err);
    straw_sample(straw, 2);
    straw_write(straw, true);
    straw_run(straw, 300);
    for (int round = 0; round < rounds; round++) {
        straw_run(straw, rng_below(test_rng(), 120));
        assert_ok(straw_kill(straw, &err), err);
        straw_run(straw, 20 + rng_below(test_rng(), 60)); /* work goes on */
    }
    for (uint64_t end = clock_ms() + 10000; clock_ms() < end && before == 0;) {
        before = straw_counts(straw)->acked;
        straw_run(straw, 200);
        before = straw_counts(straw)->acked > before ? before : 0;
    }
    assert_true(before > 0);
    assert_int_equal(straw_counts(straw)->restarts, rounds);
    assert_int_equal(straw_counts(straw)->refused, 0);
    assert_true(straw_counts(straw)->slices > 0);
    for (uint32_t slot = 0; slot < WRITERS; slot++)
        straw_writer(straw, slot, &epoch[slot], &acked[slot]);
    assert_ok(straw_kill(straw, &err), err); /* the last promises are kept by a dead shard, too */
    for (uint32_t slot = 0; slot < WRITERS; slot++) {
        uint64_t now_epoch, now_acked;

        straw_writer(straw, slot, &now_epoch, &now_acked);
        assert_int_equal(now_epoch, epoch[slot]); /* nobody lost its stream over a restart */
        assert_true(now_acked >= acked[slot]);
    }
    straw_write(straw, false);
    for (uint32_t slot = 0; slot < WRITERS; slot++)
        straw_writer(straw, slot, &epoch[slot], &acked[slot]);
    kill(straw_pid(straw), SIGKILL);
    straw_stop(&straw);
    audit(dir, epoch, acked);
}

/* kill -9 at a million rows: the shard checks what it finds, counts, and serves again within 5 s. */
static void ready_again_at_a_million_rows(void **state)
{
    struct straw_config config = {.program = program(), .schema = states, .writers = WRITERS, .chunk = 7, .window = 8,
                                  .episode = 500, .horizon = 3, .batch = 256, .capacity = 1000000, .map_rows = 1250000};
    uint64_t longest = 0, start;
    struct error err = {0};
    char dir[512];
    straw_t *straw;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/million", test_folder());
    config.dir = dir;
    assert_ok(straw_fill(&config, STRAW_RUN, 1000000, &err), err);
    assert_ok(straw_start(&straw, &config, &err), err);
    straw_sample(straw, 2);
    straw_write(straw, true);
    for (int round = 0; round < 3; round++) {
        uint64_t before;

        straw_run(straw, 200);
        start = clock_ms();
        assert_ok(straw_kill(straw, &err), err);
        for (before = straw_counts(straw)->slices; straw_counts(straw)->slices == before && clock_ms() < start + 20000;)
            straw_run(straw, 10);
        longest = clock_ms() - start > longest ? clock_ms() - start : longest;
    }
    straw_stop(&straw);
    print_message("ready again and sampled from after %llu ms at most\n", (unsigned long long)longest);
    assert_in_range(longest, 1, 5000);
}

/* What cannot work is one sentence and exit 2, and makes nothing. */
static void bad_options_are_refused(void **state)
{
    static const char *const words[] = {
        "", "learner=tcp://192.0.2.1:5000", "learner=nonsense", "learner=ipc:///x shard=64",
        "learner=ipc:///x run_id=what", "learner=ipc:///x repaly_dir=y", "learner=tcp://127.0.0.1:5000",
    };
    char command[PATH_MAX + 1200];

    (void)state;
    for (size_t i = 0; i < TD_LEN(words); i++) {
        int status;

        snprintf(command, sizeof(command), "cd '%s' && timeout 10 '%s' %s >said 2>&1; "
                 "code=$?; test $(wc -l <said) -ge 1 && exit $code", test_folder(), program(), words[i]);
        status = system(command);
        if (WEXITSTATUS(status) != TD_EXIT_BAD_INPUT)
            fail_msg("'%s' ended with %d", words[i], WEXITSTATUS(status));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test_prestate(killed_at_random_moments, (void *)(uintptr_t)&states),
        cmocka_unit_test_prestate(killed_at_random_moments, (void *)(uintptr_t)&many),
        cmocka_unit_test_prestate(killed_at_random_moments, (void *)(uintptr_t)&frames),
        cmocka_unit_test(ready_again_at_a_million_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
