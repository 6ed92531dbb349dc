/*
 * Runs of the real programs on pixels, on the toy that draws itself: parts killed at random moments lose
 * no acknowledged frame; lock-step ends in the same bits, killed or not; evaluation by hand.
 */
#include <signal.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define RUN_MS   90000
#define GO_ON_MS 60000

/* live_tiny's latent_dim is 16 */
#define PIXELS "obs=rgb", "num_channels=1"

static void audit(const struct live *live, const char *notes)
{
    struct tap_result result;
    char store[500];
    struct tap tap;

    snprintf(store, sizeof(store), "%s/replay", live->dir);
    tap_load(&tap, notes);
    result = tap_audit(&tap, store, 300);
    printf("  %llu frames kept, %llu evicted, %llu acknowledged, %llu sent\n", (unsigned long long)result.kept,
           (unsigned long long)result.evicted, (unsigned long long)result.acked, (unsigned long long)result.sent);
    tap_release(&tap);
}

static void no_acknowledged_frame_is_lost(void **state)
{
    static const struct { const char *role; int id; } victims[] = {
        {"replay", 0}, {"actor", 0}, {"learner", 0}, {"replay", 0}, {"actor", 1}};
    struct live live;
    char notes[500];

    (void)state;
    live_init(&live, "frames", false);
    snprintf(notes, sizeof(notes), "%s.notes", live.dir);
    tap_start(notes);
    live_train(&live, "task=toy", PIXELS, "compress_frames=true", "steps=100000000", "seed_steps=200", "buffer_size=400", "eval_freq=1000000",
               "eval_first=false", "evaluator=off", "heartbeat=0.25", "checkpoint_every=1", NULL);
    live_await(&live, "learner", 0, "agent_steps", 300, RUN_MS);
    for (size_t i = 0; i < TD_LEN(victims); i++) {
        pid_t pid = live_part(&live, victims[i].role, victims[i].id, 0);

        live_sleep((int)rng_below(test_rng(), 200));
        kill(pid, SIGKILL);
        live_rises(&live, "learner", 0, "agent_steps", 10, GO_ON_MS);
        live_rises(&live, "learner", 0, "updates", 10, GO_ON_MS);
        live_part(&live, victims[i].role, victims[i].id, pid);
    }
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 30000);
    live_no_orphans(&live, 2000);
    live_checkpoint(&live);
    audit(&live, notes);
    tap_start(NULL);
}

/* --- lock-step -------------------------------------------------------------- */

static char expected_hashes[512];
static char *expected_eval;

static void start_lockstep(struct live *live, const char *more)
{
    live_train(live, "task=toy-episodic:30", PIXELS, "episodic=true", "lockstep=true", "actors=1", "steps=160",
               "seed_steps=80", "eval_freq=50", "checkpoint_steps=30", "heartbeat=0.25", "eval_episodes=2",
               "buffer_size=100", more, NULL);
}

static void compare(const struct live *live)
{
    char hashes[512], *eval = live_lines(live, "eval.csv");

    live_hashes(live, "final", hashes, sizeof(hashes));
    if (expected_eval == NULL) {
        memcpy(expected_hashes, hashes, sizeof(hashes));
        expected_eval = eval;
        printf("  %s\n%s", hashes, eval);
        return;
    }
    live_check(live, strcmp(hashes, expected_hashes) == 0, "final bits\n  %s\nexpected\n  %s", hashes, expected_hashes);
    live_check(live, strcmp(eval, expected_eval) == 0, "eval.csv has\n%sexpected\n%s", eval, expected_eval);
    free(eval);
}

static void run_whole(const char *name, const char *more)
{
    struct live live;

    live_init(&live, name, false);
    start_lockstep(&live, more);
    live_expect(&live, 0, RUN_MS);
    compare(&live);
}

/* One part dies when the metric has come so far; the run goes back to a cut and ends as if nothing had. */
static void run_killed(const char *part, const char *metric, double value)
{
    struct live live;
    char name[32];
    uint64_t end = clock_ms() + RUN_MS;

    snprintf(name, sizeof(name), "killed-%s", part);
    live_init(&live, name, false);
    start_lockstep(&live, NULL);
    while (!(live_metric(&live, "learner", 0, metric) >= value) && !live_says(live.out, "is finished")) {
        live_check(&live, clock_ms() < end, "%s never came to %g", metric, value);
        live_sleep(1);
    }
    if (!live_says(live.out, "is finished"))
        kill(live_part(&live, part, 0, 0), SIGKILL);
    live_expect(&live, 0, RUN_MS);
    compare(&live);
}

static void lockstep_ends_in_the_same_bits(void **state)
{
    (void)state;
    run_whole("lockstep", "threads=1");
    run_whole("lockstep-again", "threads=2");
    run_killed("actor", "agent_steps", 100);
    run_killed("replay", "updates", 40);
    run_killed("learner", "agent_steps", 130);
}

static void a_checkpoint_of_pixels_is_evaluated(void **state)
{
    struct live live;
    char text[4096], word[600];

    (void)state;
    live_init(&live, "evaluated", false);
    live_train(&live, "task=toy:20", PIXELS, "steps=120", "seed_steps=80", "buffer_size=100", "evaluator=off", NULL);
    live_expect(&live, 0, RUN_MS);
    snprintf(word, sizeof(word), "checkpoint=%s", live.dir);
    live_check(&live, live_run("tdmpc2", text, sizeof(text), RUN_MS, "eval", word, "eval_episodes=2", NULL) == 0,
               "eval: %s", text);
    live_check(&live, strstr(text, "mean return") != NULL, "eval: %s", text);
    snprintf(word, sizeof(word), "%s/checkpoints/final", live.dir);
    live_check(&live, live_run("tdmpc2", text, sizeof(text), RUN_MS, "checkpoint", "show", word, NULL) == 0,
               "checkpoint show: %s", text);
    live_check(&live, live_run("tdmpc2", text, sizeof(text), RUN_MS, "replay", "verify", live.dir, NULL) == 0,
               "replay verify: %s", text);
}

static void widths_that_do_not_fit_are_said(void **state)
{
    char text[4096], dir[500], word[520];

    (void)state;
    snprintf(dir, sizeof(dir), "%s/never-made", test_folder());
    snprintf(word, sizeof(word), "work_dir=%s", dir);
    assert_int_equal(live_run("tdmpc2", text, sizeof(text), 20000, "train", "task=toy", "obs=rgb", "model_size=1",
                              word, NULL), 2);
    assert_non_null(strstr(text, "latent_dim"));
    assert_int_not_equal(access(dir, F_OK), 0); /* nothing was begun */
    assert_int_equal(live_run("tdmpc2", text, sizeof(text), 20000, "train", "task=toy", "obs=pixels", NULL), 2);
    assert_non_null(strstr(text, "rgb"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(no_acknowledged_frame_is_lost, live_cleanup),
        cmocka_unit_test_teardown(lockstep_ends_in_the_same_bits, live_cleanup),
        cmocka_unit_test_teardown(a_checkpoint_of_pixels_is_evaluated, live_cleanup),
        cmocka_unit_test_teardown(widths_that_do_not_fit_are_said, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
