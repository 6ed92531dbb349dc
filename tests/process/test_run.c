/* A run of the real programs from start to end, finished, extended; what is in its directory. */
#include <signal.h>
#include <unistd.h>

#include "tests/support/live.h"
#include "tests/support/test.h"

#define STEPS "steps=1500"

static void init(struct live *live, const char *name)
{
    live_init(live, name, false);
}

static void run_to_the_end(struct live *live, const char *steps)
{
    live_train(live, "task=toy", steps, "seed_steps=300", "eval_freq=400", "heartbeat=0.5", NULL);
    live_expect(live, 0, 60000);
    live_no_orphans(live, 1000);
}

/* Every column of a csv file but the first rises or stays; the last step is `last`. */
static void check_csv(const struct live *live, const char *file, int least)
{
    char path[FS_PATH_MAX];
    struct csv_data data;
    struct error err;

    snprintf(path, sizeof(path), "%s/%s", live->dir, file);
    assert_ok(csv_load(&data, path, &err), err);
    live_check(live, data.rows >= least, "%s has %d lines, expected %d", file, data.rows, least);
    for (int row = 1; row < data.rows; row++)
        assert_true(data.values[row * data.columns] >= data.values[(row - 1) * data.columns]);
    csv_release(&data);
}

static void runs_to_the_end_is_finished_and_is_extended(void **state)
{
    char text[65536], replay[FS_PATH_MAX], final[FS_PATH_MAX];
    struct live live;
    int code;

    (void)state;
    init(&live, "run");
    run_to_the_end(&live, STEPS);
    assert_true(live_says(live.out, "is finished: 1,50"));
    assert_true(live_says(live.out, "to extend it give more steps"));
    assert_true(live_checkpoint(&live) >= 1500);
    check_csv(&live, "eval.csv", 2);
    check_csv(&live, "train.csv", 24);
    snprintf(final, sizeof(final), "%s/checkpoints/final", live.dir);
    code = live_run("tdmpc2", text, sizeof(text), 10000, "checkpoint", "show", final, NULL);
    live_check(&live, code == 0, "checkpoint show: %d: %s", code, text);

    snprintf(replay, sizeof(replay), "%s/replay", live.dir);
    code = live_run("tdmpc2", text, sizeof(text), 10000, "replay", "verify", replay, NULL);
    live_check(&live, code == 0, "replay verify: %d: %s", code, text);
    code = live_run("tdmpc2", text, sizeof(text), 10000, "replay", "info", replay, NULL);
    live_check(&live, code == 0, "replay info: %d: %s", code, text);

    /* a second start says so and changes nothing */
    int rows = live_rows(&live, "train.csv"), written = live_count(&live, "learner.log", "checkpoint written");
    unlink(live.out);
    run_to_the_end(&live, STEPS);
    assert_true(live_says(live.out, "is finished: 1,50"));
    assert_true(live_says(live.out, "give more steps"));
    assert_int_equal(live_rows(&live, "train.csv"), rows);
    assert_int_equal(live_count(&live, "learner.log", "checkpoint written"), written);

    /* more steps extend it */
    run_to_the_end(&live, "steps=2200");
    assert_true(live_checkpoint(&live) >= 2200);
    check_csv(&live, "train.csv", rows + 10);

    /* the result can be evaluated */
    char word[FS_PATH_MAX + 16];
    snprintf(word, sizeof(word), "checkpoint=%s", final);
    code = live_run("tdmpc2", text, sizeof(text), 30000, "eval", "task=toy", word, "eval_episodes=2", NULL);
    live_check(&live, code == 0, "eval: %d: %s", code, text);
}

static void episodic_runs_to_the_end(void **state)
{
    struct live live;

    (void)state;
    init(&live, "episodic");
    live_train(&live, "task=toy-episodic", "episodic=true", "steps=800", "seed_steps=200", "eval_freq=400", NULL);
    live_expect(&live, 0, 60000);
    live_no_orphans(&live, 1000);
    assert_true(live_checkpoint(&live) >= 800);
}

static void statistics_of_every_part(void **state)
{
    static const char *const parts[] = {"learner", "replay", "actor", "actor", "evaluator"};
    static const int ids[] = {0, 0, 0, 1, 0};
    char text[65536];
    struct live live;
    int code;

    (void)state;
    init(&live, "stats");
    live_train(&live, "task=toy", "steps=1000000", "seed_steps=200", "eval_freq=300", NULL);
    live_await(&live, "learner", 0, "updates", 400, 60000);
    for (int i = 0; i < 5; i++)
        live_await(&live, parts[i], ids[i], "resident_bytes", 1e6, 30000);
    /* a part that is busy for a moment may miss the deadline of one look */
    for (int look = 0; look < 5; look++) {
        code = live_run("tdmpc2", text, sizeof(text), 10000, "stats", live.dir, "--json", NULL);
        if (strstr(text, "\"reachable\":false") == NULL)
            break;
    }
    live_check(&live, code == 0 && strstr(text, "\"evaluator\"") != NULL, "stats: %d: %s", code, text);
    assert_null(strstr(text, "\"reachable\":false"));
    /* the limiter: from here on no more steps than updates, but for the slack and what lies between */
    double steps = live_await(&live, "learner", 0, "agent_steps", 1, 30000);
    live_await(&live, "learner", 0, "agent_steps", steps + 300, 30000);
    live_await(&live, "learner", 0, "updates", 600, 30000);
    assert_true(live_await(&live, "learner", 0, "limiter_cursor", -1e9, 30000) <= 2 * 8);

    code = live_run("tdmpc2", text, sizeof(text), 30000, "stop", live.dir, NULL);
    live_check(&live, code == 0, "stop: %d: %s", code, text);
    live_expect(&live, 0, 30000);
    live_no_orphans(&live, 1000);
    assert_true(live_checkpoint(&live) > 0);
}

/* The learner's own parts are not `train`'s children, yet their death is said where one looks. */
static void the_death_of_a_learners_part_is_told(void **state)
{
    struct live live;
    pid_t pid;

    (void)state;
    live_init(&live, "aloud", false);
    live_train(&live, "task=toy", "steps=1000000", "seed_steps=200", NULL);
    live_await(&live, "learner", 0, "updates", 220, LIVE_START_MS);
    pid = live_part(&live, "replay", 0, 0);
    kill(pid, SIGKILL);
    live_part(&live, "replay", 0, pid);
    live_rises(&live, "learner", 0, "agent_steps", 20, 6000); /* heartbeats have two seconds: not five of them */
    for (int i = 0; i < 50 && !live_says(live.out, "replay: killed by signal 9"); i++)
        live_sleep(100);
    live_check(&live, live_says(live.out, "replay: killed by signal 9"), "train does not tell of the shard's death");
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 15000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(runs_to_the_end_is_finished_and_is_extended, live_cleanup),
        cmocka_unit_test_teardown(episodic_runs_to_the_end, live_cleanup),
        cmocka_unit_test_teardown(statistics_of_every_part, live_cleanup),
        cmocka_unit_test_teardown(the_death_of_a_learners_part_is_told, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
