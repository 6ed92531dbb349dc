/*
 * Actors of several environments as real programs: every environment is a stream of its own, an actor killed
 * again and again loses nothing that was acknowledged, and lock-step refuses more than one.
 */
#include <signal.h>
#include <string.h>

#include "tests/support/live.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define BUFFER  1000
#define EPISODE 50
#define ENVS    3

static void audit(const char *notes, const struct live *live, int actors)
{
    struct tap_result result;
    char store[500];
    struct tap tap;

    snprintf(store, sizeof(store), "%s/replay", live->dir);
    tap_load(&tap, notes);
    result = tap_audit(&tap, store, BUFFER - EPISODE - 1);
    assert_int_equal(tap.files, actors);
    printf("  %llu rows kept, %llu evicted, %llu acknowledged, %llu sent by %llu actors\n",
           (unsigned long long)result.kept, (unsigned long long)result.evicted, (unsigned long long)result.acked,
           (unsigned long long)result.sent, (unsigned long long)tap.files);
    tap_release(&tap);
}

static void killed_actors_of_three_environments(void **state)
{
    enum { KILLS = 4 };
    char notes[500];
    struct live live;

    (void)state;
    live_init(&live, "envs", false);
    snprintf(notes, sizeof(notes), "%s.notes", live.dir);
    tap_start(notes);
    live_train(&live, "task=toy", "actors=1", "envs=3", "steps=100000000", "seed_steps=300", "buffer_size=1000",
               "evaluator=off", "heartbeat=0.25", "checkpoint_every=1", NULL);
    live_await(&live, "learner", 0, "agent_steps", BUFFER + 200, 60000);
    live_await(&live, "learner", 0, "streams_live", ENVS, 20000);
    for (int round = 0; round < KILLS; round++) {
        pid_t pid = live_part(&live, "actor", 0, 0);

        live_sleep((int)rng_below(test_rng(), 200));
        kill(pid, SIGKILL);
        live_part(&live, "actor", 0, pid);
        live_rises(&live, "learner", 0, "agent_steps", 20, 30000);
        live_rises(&live, "learner", 0, "updates", 20, 30000);
        live_await(&live, "learner", 0, "streams_live", ENVS, 20000);
    }
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 30000);
    live_no_orphans(&live, 2000);
    audit(notes, &live, KILLS + 1);
    tap_start(NULL);
}

/* Another process that takes the slot fences all of its streams at once. */
static void a_second_process_takes_all_streams(void **state)
{
    struct live live;
    char work_dir[500], out[500];
    pid_t first, second;

    (void)state;
    live_init(&live, "envs-fence", false);
    live_train(&live, "task=toy", "actors=0", "envs=3", "steps=100000000", "seed_steps=200", "heartbeat=0.25", NULL);
    live_part(&live, "learner", 0, 0);
    snprintf(work_dir, sizeof(work_dir), "work_dir=%s", live.dir);
    snprintf(out, sizeof(out), "%s.actors", live.dir);
    first = live_spawn("tdmpc2-actor", out, (const char *const[]){NULL}, work_dir, "actor=5", NULL);
    live_await(&live, "learner", 0, "agent_steps", 50, 60000);
    live_await(&live, "learner", 0, "streams_live", ENVS, 20000);
    second = live_spawn("tdmpc2-actor", out, (const char *const[]){NULL}, work_dir, "actor=5",
                        "envs=2", "threads=2", NULL);
    live_check(&live, live_wait(first, 30000) == 4, "the first process was not fenced");
    live_rises(&live, "learner", 0, "agent_steps", 50, 30000);
    kill(second, SIGTERM);
    live_check(&live, live_wait(second, 20000) == 0, "the second process did not leave");
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 30000);
    live_no_orphans(&live, 2000);
}

static void lockstep_refuses_more_than_one(void **state)
{
    char text[4096];

    (void)state;
    assert_int_equal(live_run("tdmpc2", text, sizeof(text), 20000, "train", "task=toy",
                              "lockstep=true", "actors=1", "envs=2", NULL), 2);
    assert_non_null(strstr(text, "lockstep=true works with one environment: envs=2 is refused"));
    assert_int_equal(live_run("tdmpc2", text, sizeof(text), 20000, "train", "task=toy",
                              "envs=65", NULL), 2);
    assert_non_null(strstr(text, "envs"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(killed_actors_of_three_environments, live_cleanup),
        cmocka_unit_test_teardown(a_second_process_takes_all_streams, live_cleanup),
        cmocka_unit_test_teardown(lockstep_refuses_more_than_one, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
