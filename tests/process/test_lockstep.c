/*
 * Lock-step runs of the real programs: the same seed gives the same bits, with any number of threads,
 * and also when parts are killed anywhere, the burst and evaluations included, and the run is resumed.
 */
#include <signal.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/test.h"

#define RUN_MS 60000

/* What the run without interruption ended in. */
static char expected_hashes[512];
static char *expected_eval, *expected_train;

static void start(struct live *live, const char *more)
{
    live_train(live, "task=toy-episodic:40", "episodic=true", "lockstep=true", "actors=1", "steps=1200", "seed_steps=300",
               "eval_freq=250", "checkpoint_steps=100", "heartbeat=0.25", "eval_episodes=2", more, NULL);
}

static void compare(const struct live *live)
{
    char hashes[512], *eval = live_lines(live, "eval.csv"), *train = live_lines(live, "train.csv");

    live_hashes(live, "final", hashes, sizeof(hashes));
    if (expected_eval == NULL) {
        memcpy(expected_hashes, hashes, sizeof(hashes));
        expected_eval = eval;
        expected_train = train;
        printf("  %s\n%s", hashes, eval);
        return;
    }
    live_check(live, strcmp(hashes, expected_hashes) == 0, "%s: final bits\n  %s\nexpected\n  %s", live->name, hashes,
               expected_hashes);
    live_check(live, strcmp(eval, expected_eval) == 0, "%s: eval.csv\n%s\nexpected\n%s", live->name, eval, expected_eval);
    live_check(live, strcmp(train, expected_train) == 0, "%s: train.csv\n%s\nexpected\n%s", live->name, train,
               expected_train);
    free(eval);
    free(train);
}

static void run_whole(const char *name, const char *more)
{
    struct live live;

    live_init(&live, name, false);
    start(&live, more);
    live_expect(&live, 0, RUN_MS);
    live_no_orphans(&live, 1000);
    compare(&live);
}

static void same_seed_same_bits(void **state)
{
    (void)state;
    run_whole("first", NULL);
    run_whole("again", NULL);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    run_whole("one", "threads=1");
    run_whole("two", "threads=2");
    run_whole("three", "threads=3");
}

/* --- kills ------------------------------------------------------------------ */

static const char *const parts[] = {"learner", "replay", "actor"};

/* Wait for a moment of the run: so many agent steps, or so many updates within the burst. */
static bool reach(struct live *live, const char *metric, double value)
{
    uint64_t end = clock_ms() + RUN_MS;

    while (clock_ms() < end) {
        if (live_metric(live, "learner", 0, metric) >= value)
            return true;
        if (live_says(live->out, "is finished"))
            return false;
        live_sleep(1);
    }
    live_fail(live, "%s never came to %s=%g", live->name, metric, value);
    return false;
}

/* One part dies at `value` of the metric; the run goes on by itself to the same end. */
static void dies_at(const char *name, const char *part, const char *metric, double value)
{
    struct live live;

    live_init(&live, name, false);
    start(&live, NULL);
    if (reach(&live, metric, value))
        kill(live_part(&live, part, 0, 0), SIGKILL);
    live_expect(&live, 0, RUN_MS);
    live_no_orphans(&live, 1000);
    compare(&live);
}

static void killed_in_the_burst_ends_in_the_same_bits(void **state)
{
    (void)state;
    dies_at("burst-learner", "learner", "updates", 100);
    dies_at("burst-replay", "replay", "updates", 100);
    dies_at("burst-actor", "actor", "updates", 100);
}

static void killed_anywhere_ends_in_the_same_bits(void **state)
{
    int runs = test_long() ? 60 : 3;

    (void)state;
    for (int run = 0; run < runs; run++) {
        char name[32];
        struct live live;
        int deaths[3] = {0};

        snprintf(name, sizeof(name), "killed-%d", run);
        live_init(&live, name, false);
        start(&live, NULL);
        for (int kills = 0; kills < 4; kills++) {
            int part = (int)rng_below(test_rng(), 3);
            struct rundir_part record;

            live_sleep((int)rng_below(test_rng(), 1200));
            if (live_says(live.out, "is finished"))
                break;
            if (live_find(&live, parts[part], 0, &record) && deaths[part]++ < 4) {
                printf("  %s: %s at %g steps\n", name, parts[part], live_metric(&live, "learner", 0, "agent_steps"));
                kill(record.pid, SIGKILL);
            }
        }
        live_expect(&live, 0, RUN_MS);
        live_no_orphans(&live, 1000);
        compare(&live);
    }
}

/* The whole tree dies at once, as when the machine does; the same command goes on. */
static void everything_killed_and_started_again(void **state)
{
    struct live live;

    (void)state;
    live_init(&live, "all", false);
    for (int round = 0; round < 4; round++) {
        start(&live, NULL);
        live_part(&live, "learner", 0, 0);
        live_sleep(100 + (int)rng_below(test_rng(), 900));
        kill(live.pid, SIGSTOP); /* or it restarts what dies first */
        for (int i = 0; i < 3; i++) {
            struct rundir_part record;

            if (live_find(&live, parts[i], 0, &record))
                kill(record.pid, SIGKILL);
        }
        kill(live.pid, SIGKILL);
        live_wait(live.pid, 5000);
        live_no_orphans(&live, 5000);
    }
    start(&live, NULL);
    live_expect(&live, 0, RUN_MS);
    compare(&live);
}

/* Asked to stop, at any moment, and started again. */
static void stopped_and_started_again(void **state)
{
    struct live live;

    (void)state;
    live_init(&live, "stopped", false);
    for (int round = 0; round < 4; round++) {
        start(&live, NULL);
        live_part(&live, "actor", 0, 0);
        live_sleep((int)rng_below(test_rng(), 800));
        kill(live.pid, SIGINT);
        live_expect(&live, 0, 30000);
        live_no_orphans(&live, 1000);
        live_checkpoint(&live);
    }
    start(&live, NULL);
    live_expect(&live, 0, RUN_MS);
    compare(&live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(same_seed_same_bits, live_cleanup),
        cmocka_unit_test_teardown(threads_do_not_matter, live_cleanup),
        cmocka_unit_test_teardown(killed_in_the_burst_ends_in_the_same_bits, live_cleanup),
        cmocka_unit_test_teardown(killed_anywhere_ends_in_the_same_bits, live_cleanup),
        cmocka_unit_test_teardown(everything_killed_and_started_again, live_cleanup),
        cmocka_unit_test_teardown(stopped_and_started_again, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
