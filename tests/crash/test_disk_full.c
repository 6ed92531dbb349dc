/*
 * The disk of a real replay shard fills up: it takes no more rows and says so, naming the disk and what is
 * needed; it serves its learner, survives being killed meanwhile, and goes on within five seconds of there
 * being room. Nothing acknowledged is lost.
 */
#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "common/store/store.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "tests/support/live.h"
#include "tests/support/promise.h"
#include "tests/support/small_disk.h"
#include "tests/support/test.h"
#include "tools/straw.h"

#define WRITERS 4u
#define EPISODE 40u
#define CHUNK   20u
#define WINDOW  4u

static const struct row_schema schema = {OBS_STATE, 100, 2};

static void fill_row(void *row, const struct row_schema *of, uint32_t slot, uint64_t epoch, uint64_t sequence,
                     uint32_t flags)
{
    (void)flags;
    straw_row(row, of, slot, epoch, sequence, EPISODE);
}

/* Let it run until nothing has been acknowledged for half a second. */
static bool stalls(straw_t *straw, uint64_t most_ms)
{
    uint64_t end = clock_ms() + most_ms;

    while (clock_ms() < end) {
        uint64_t acked = straw_counts(straw)->acked;

        straw_run(straw, 500);
        if (straw_counts(straw)->acked == acked)
            return true;
    }
    return false;
}

/* Milliseconds until something is acknowledged; UINT64_MAX: nothing was. */
static uint64_t resumes(straw_t *straw, uint64_t most_ms)
{
    uint64_t start = clock_ms(), acked = straw_counts(straw)->acked;

    while (clock_ms() - start < most_ms) {
        straw_run(straw, 10);
        if (straw_counts(straw)->acked > acked)
            return clock_ms() - start;
    }
    return UINT64_MAX;
}

/* How often the log says this. */
static int says(const char *log, const char *words)
{
    char *text;
    struct error err = {0};
    int count = 0;

    assert_ok(fs_read_file(log, 1 << 24, &text, NULL, &err), err);
    for (const char *at = text; (at = strstr(at, words)) != NULL; at++)
        count++;
    free(text);
    return count;
}

static void expect_whole(straw_t *straw, const char *dir)
{
    struct promise promise = {.schema = schema, .row = fill_row, .run = STRAW_RUN};

    for (uint32_t slot = 0; slot < WRITERS; slot++) {
        uint64_t epoch, acked;

        straw_writer(straw, slot, &epoch, &acked);
        assert_true(epoch < PROMISE_EPOCHS);
        promise.acked[slot][epoch] = acked;
        promise.sent[slot][epoch] = acked + WINDOW * CHUNK;
    }
    straw_stop(&straw);
    promise_audit(dir, &promise, "after a full disk");
}

static void a_full_disk_is_waited_for(void **state)
{
    char dir[512], log[520], program[FS_PATH_MAX];
    struct straw_config config = {.dir = dir, .program = live_program("tdmpc2-replay", program), .schema = schema,
                                  .writers = WRITERS, .chunk = CHUNK, .window = WINDOW, .pace_us = 8000,
                                  .episode = EPISODE, .horizon = 3, .batch = 8, .capacity = 100000, .map_rows = 40000};
    uint64_t batches, ms, start;
    struct error err = {0};
    const char *why;
    straw_t *straw;
    pid_t pid;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/replay", test_folder());
    snprintf(log, sizeof(log), "%s.log", dir);
    if ((why = small_disk_mount(dir, 48 << 20)) != NULL) {
        print_message("%s\n", why);
        skip();
    }
    assert_ok(straw_start(&straw, &config, &err), err);
    straw_sample(straw, 1);
    straw_write(straw, true);
    straw_run(straw, 200);
    pid = straw_pid(straw);
    for (int round = 0; round < (test_long() ? 10 : 2); round++) {
        small_disk_fill(dir, round == 0 ? 0 : 300000);
        start = clock_ms();
        assert_true(stalls(straw, 30000)); /* what it had taken in advance is used first */
        batches = straw_counts(straw)->batches;
        straw_run(straw, 1500);
        assert_true(straw_counts(straw)->batches > batches); /* its learner is served */
        assert_int_equal(straw_pid(straw), pid);
        assert_true(says(log, "MB more are needed") > 0 && says(log, dir) > 0);
        assert_true(says(log, "inserting is paused") <= (round + 1) * 2 + (int)((clock_ms() - start) / 4000));
        if (round == 1) { /* a start on a full disk is one, too */
            assert_ok(straw_kill(straw, &err), err);
            pid = straw_pid(straw);
            assert_true(stalls(straw, 5000));
        }
        small_disk_empty(dir);
        ms = resumes(straw, 20000);
        print_message("goes on %" PRIu64 " ms after there is room\n", ms);
        assert_true(ms < 5000);
        assert_int_equal(straw_pid(straw), pid);
    }
    assert_int_equal(straw_counts(straw)->refused, 0);
    straw_write(straw, false);
    straw_run(straw, 300);
    expect_whole(straw, dir);
}

/* --- a whole run ------------------------------------------------------------------ */

#define SENTENCE "the last checkpoint could not be written" /* over a socket: the log is on that disk, too */

/* Its folder on a disk that is full: it trains on, keeps its checkpoint, says why, and writes the next one. */
static void training_goes_on_beside_a_full_disk(void **state)
{
    const char *why;
    struct live live;
    uint64_t start;
    int written, said;

    (void)state;
    live_init(&live, "run", false);
    if ((why = small_disk_mount(live.dir, 48 << 20)) != NULL) {
        print_message("%s\n", why);
        skip();
    }
    live_train(&live, "task=toy", "heartbeat=0.25", "steps=100000000", "seed_steps=200", "buffer_size=20000",
               "checkpoint_every=1", "actors=1", NULL);
    live_check(&live, live_said(&live, "learner.log", "checkpoint written", 30000), "no first checkpoint");
    live_rises(&live, "learner", 0, "updates", 50, 20000);
    small_disk_fill(live.dir, 0);
    start = clock_ms();
    while (!live_says(live.out, SENTENCE) && clock_ms() < start + 15000)
        live_sleep(50);
    live_check(&live, live_says(live.out, SENTENCE) && live_says(live.out, "No space left"), "nobody says what is wrong");
    live_rises(&live, "learner", 0, "updates", 50, 20000);
    live_checkpoint(&live); /* the old one stands */
    written = live_count(&live, "learner.log", "checkpoint written");
    said = live_count(&live, "../run.out", "checkpoint could not be written");
    live_check(&live, said <= 2 + (int)((clock_ms() - start) / 9000), "it is said %d times", said);
    small_disk_empty(live.dir);
    for (start = clock_ms(); live_count(&live, "learner.log", "checkpoint written") == written;) {
        live_check(&live, clock_ms() < start + 15000, "no checkpoint after there was room");
        live_sleep(50);
    }
    kill(live.pid, SIGINT);
    live_expect(&live, 0, 20000);
    live_no_orphans(&live, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_is_waited_for),
        cmocka_unit_test_teardown(training_goes_on_beside_a_full_disk, live_cleanup),
    };

    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
