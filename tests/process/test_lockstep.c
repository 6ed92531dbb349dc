/*
 * Lock-step runs of the real programs: the same seed gives the same bits, with any number of threads,
 * and also when parts are killed anywhere, the burst and evaluations included, and the run is resumed.
 */
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/test.h"

#define RUN_MS     90000
#define STEPS      700
#define SEED_STEPS 200

/* What the run without interruption ended in. */
static char expected_hashes[4096];
static char *expected_eval, *expected_train;

static void start(struct live *live, const char *more)
{
    live_train(live, "task=toy-episodic:40", "episodic=true", "lockstep=true", "actors=1", "steps=700", "seed_steps=200",
               "eval_freq=150", "checkpoint_steps=100", "heartbeat=0.25", "eval_episodes=5", "buffer_size=300", more, NULL);
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

/* Each part of the last checkpoint and each column of the replay window, as a user would compare them. */
static void read_hashes(const struct live *live, char *text, size_t size)
{
    size_t used;

    live_check(live, live_run("tdmpc2", text, size, 20000, "checkpoint", "hash", live->dir, NULL) == 0, "%s", text);
    used = strlen(text);
    live_check(live, live_run("tdmpc2", text + used, size - used, 20000, "replay", "hash", live->dir, NULL) == 0, "%s",
               text + used);
    for (char *at = text; (at = strstr(at, live->dir)) != NULL;) /* the lines say of what they are */
        memset(at, '.', strlen(live->dir));
}

/* Line by line, but for those that say of what the others are. */
static bool same_hashes(const char *got, const char *expected)
{
    while (*got != '\0' && *expected != '\0') {
        size_t length = strcspn(got, "\n"), wanted = strcspn(expected, "\n");

        if (got[0] != '.' && (length != wanted || strncmp(got, expected, length) != 0))
            return false;
        got += length + (got[length] != '\0');
        expected += wanted + (expected[wanted] != '\0');
    }
    return *got == *expected;
}

static void compare(const struct live *live)
{
    char hashes[sizeof(expected_hashes)];

    read_hashes(live, hashes, sizeof(hashes));
    if (expected_eval == NULL) {
        memcpy(expected_hashes, hashes, sizeof(hashes));
        expected_eval = live_lines(live, "eval.csv");
        expected_train = live_lines(live, "train.csv");
        printf("  %s\n%s", hashes, expected_eval);
        return;
    }
    live_check(live, same_hashes(hashes, expected_hashes), "%s: final bits\n  %s\nexpected\n  %s", live->name, hashes,
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

/* A new folder for a checkpoint has just been made. False: the run is over. */
static bool wait_for_write(const char *folder, const struct live *live)
{
    char events[4096];
    int fd = inotify_init1(IN_CLOEXEC);
    struct pollfd ready = {fd, POLLIN, 0};
    bool there = false;
    ssize_t size = 0;

    assert_true(fd >= 0);
    while (access(folder, F_OK) != 0)
        live_sleep(1);
    assert_true(inotify_add_watch(fd, folder, IN_CREATE) >= 0);
    while (!there && poll(&ready, 1, 200) >= 0 && !live_says(live->out, "is finished"))
        if ((ready.revents & POLLIN) != 0 && (size = read(fd, events, sizeof(events))) > 0)
            there = memmem(events, (size_t)size, ".new-", 5) != NULL;
    close(fd);
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

/* The learner dies while a checkpoint is being written: its folder beside the others is there. */
static void killed_while_a_checkpoint_is_published(void **state)
{
    struct live live;
    char folder[FS_PATH_MAX];

    (void)state;
    live_init(&live, "publishing", false);
    snprintf(folder, sizeof(folder), "%s/checkpoints", live.dir);
    start(&live, NULL);
    for (int kills = 0; kills < 4; kills++) {
        pid_t learner = live_part(&live, "learner", 0, 0);

        if (!wait_for_write(folder, &live))
            break;
        kill(learner, SIGKILL);
        live_part(&live, "learner", 0, learner);
    }
    live_expect(&live, 0, RUN_MS);
    live_no_orphans(&live, 1000);
    compare(&live);
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
        cmocka_unit_test_teardown(killed_while_a_checkpoint_is_published, live_cleanup),
        cmocka_unit_test_teardown(everything_killed_and_started_again, live_cleanup),
        cmocka_unit_test_teardown(stopped_and_started_again, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
