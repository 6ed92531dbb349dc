/*
 * Lock-step runs of the real programs: the same seed gives the same bits, with any number of threads,
 * and also when parts are killed anywhere, the burst and evaluations included, and the run is resumed.
 */
#include <signal.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/test.h"

#define RUN_MS     90000
#define STEPS      700
#define SEED_STEPS 200

/* What the run without interruption ended in. */
static char expected_hashes[512];
static char *expected_eval, *expected_train;

static void start(struct live *live, const char *more)
{
    live_train(live, "task=toy-episodic:40", "episodic=true", "lockstep=true", "actors=1", "steps=700", "seed_steps=200",
               "eval_freq=150", "checkpoint_steps=100", "heartbeat=0.25", "eval_episodes=5", more, NULL);
}

/* Fails at the first line that differs. */
static void compare_lines(const struct live *live, const char *file, const char *expected)
{
    char *got = live_lines(live, file), *at = got;

    while (*at != '\0' || *expected != '\0') {
        size_t length = strcspn(at, "\n"), wanted = strcspn(expected, "\n");

        live_check(live, length == wanted && strncmp(at, expected, length) == 0, "%s: %s has\n  %.*s\nexpected\n  %.*s",
                   live->name, file, (int)length, at, (int)wanted, expected);
        at += length + (at[length] != '\0');
        expected += wanted + (expected[wanted] != '\0');
    }
    free(got);
}

static void compare(const struct live *live)
{
    char hashes[512];

    live_hashes(live, "final", hashes, sizeof(hashes));
    if (expected_eval == NULL) {
        memcpy(expected_hashes, hashes, sizeof(hashes));
        expected_eval = live_lines(live, "eval.csv");
        expected_train = live_lines(live, "train.csv");
        printf("  %s\n%s", hashes, expected_eval);
        return;
    }
    live_check(live, strcmp(hashes, expected_hashes) == 0, "%s: final bits\n  %s\nexpected\n  %s", live->name, hashes,
               expected_hashes);
    compare_lines(live, "eval.csv", expected_eval);
    compare_lines(live, "train.csv", expected_train);
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

/* Wait for a moment of the run. False when it is over already. */
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

/*
 * A random moment in part `which` of `of` parts of the run: a step of seeding, an update of the burst, a
 * step after it; evaluations lie between.
 */
static bool reach_any(struct live *live, int which, int of)
{
    double moment = 0.95 * (which + rng_double(test_rng())) / of;
    bool there;

    if (moment < 0.2)
        there = reach(live, "agent_steps", moment / 0.2 * SEED_STEPS);
    else if (moment < 0.4)
        there = reach(live, "updates", (moment - 0.2) / 0.2 * SEED_STEPS);
    else
        there = reach(live, "agent_steps", SEED_STEPS + (moment - 0.4) / 0.6 * (STEPS - SEED_STEPS));
    live_sleep((int)rng_below(test_rng(), 20));
    return there;
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

        snprintf(name, sizeof(name), "killed-%d", run);
        live_init(&live, name, false);
        start(&live, NULL);
        for (int kills = 0; kills < 4 && reach_any(&live, kills, 4); kills++) {
            const char *part = parts[rng_below(test_rng(), 3)];
            struct rundir_part record;

            printf("  %s: %s at step %g, update %g\n", name, part, live_metric(&live, "learner", 0, "agent_steps"),
                   live_metric(&live, "learner", 0, "updates"));
            if (live_find(&live, part, 0, &record))
                kill(record.pid, SIGKILL);
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
    for (int round = 0; round < 3; round++) {
        start(&live, NULL);
        if (!reach_any(&live, round, 3))
            break;
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
    for (int round = 0; round < 3; round++) {
        start(&live, NULL);
        if (!reach_any(&live, round, 3))
            break;
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
