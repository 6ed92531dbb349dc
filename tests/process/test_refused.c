/*
 * What the real programs refuse once a run is alive: a directory that another process holds, and numbers
 * that are none. What needs no live run is in bad_input.sh, the wire in test_hostile.c.
 */
#include <signal.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/test.h"

#define LOCK_MS 15000 /* a start waits so long for the owner to go */

static void says(const struct live *live, const char *out, const char *lock, pid_t owner, const char *how)
{
    char text[200];

    snprintf(text, sizeof(text), "%s is locked by process %ld (%s)", lock, (long)owner, how);
    live_check(live, live_says(out, text), "%s does not say \"%s\"", out, text);
}

/* Both wait at the same time, then name the owner's pid and state; the owner goes on as if nothing was. */
static void a_held_directory_names_its_owner(void **state)
{
    char place[500], replay[500], other[500], out[2][500];
    pid_t owners[2], late[2];
    struct live live;
    uint64_t begun;

    (void)state;
    live_init(&live, "held", false);
    live_train(&live, "task=toy", "steps=100000000", "seed_steps=200", "heartbeat=0.25", NULL);
    live_await(&live, "learner", 0, "updates", 220, LIVE_START_MS);
    owners[0] = live_part(&live, "learner", 0, 0);
    owners[1] = live_part(&live, "replay", 0, 0);
    kill(owners[1], SIGSTOP);
    snprintf(place, sizeof(place), "work_dir=%s", live.dir);
    snprintf(other, sizeof(other), "work_dir=%s-other", live.dir);
    snprintf(replay, sizeof(replay), "replay_dir=%s/replay", live.dir);
    for (int i = 0; i < 2; i++)
        snprintf(out[i], sizeof(out[i]), "%s.%d", live.out, i);
    begun = clock_ms();
    late[0] = live_spawn("tdmpc2", out[0], (const char *const[]){"train", NULL}, "task=toy", place, NULL);
    late[1] = live_spawn("tdmpc2", out[1], (const char *const[]){"train", NULL}, "task=toy", other, replay, NULL);
    live_check(&live, live_wait(late[0], LOCK_MS + 10000) == 2, "a second run of the directory is not refused");
    live_check(&live, live_wait(late[1], LOCK_MS + 10000) == 2, "a second run of the replay directory is not refused");
    live_check(&live, clock_ms() - begun >= LOCK_MS - 1000, "they did not wait for the owner");
    says(&live, out[0], "learner.lock", owners[0], "running");
    says(&live, out[1], "replay/lock", owners[1], "stopped");
    live_check(&live, access(other + strlen("work_dir="), F_OK) != 0, "a run directory was begun");

    kill(owners[1], SIGCONT);
    live_rises(&live, "learner", 0, "updates", 30, 30000);
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 30000);
    live_no_orphans(&live, 1000);
}

/* An entropy that grows without bound: exit 3, a sentence, and the last good parameters still load. */
static void diverged_training_ends_with_3(void **state)
{
    struct live live;

    (void)state;
    live_init(&live, "diverged", false);
    live_train(&live, "task=toy", "steps=100000", "seed_steps=200", "eval_freq=200", "heartbeat=0.25",
               "lr=3e-5", "entropy_coef=1000", "log_std_max=100", NULL);
    live_expect(&live, 3, 60000);
    live_no_orphans(&live, 5000);
    assert_true(live_says(live.out, "tdmpc2 train: training diverged: update "));
    assert_true(live_says(live.out, "try a lower lr"));
    assert_true(live_count(&live, "learner.log", "checkpoint written") > 1);
    live_check(&live, live_checkpoint(&live) > 200, "the checkpoint is not of the training before it");
}

/* A second evaluator would take the first one's orders; the learner's own comes back when it is killed. */
static void a_second_evaluator_is_refused(void **state)
{
    char place[500], out[600];
    struct live live;
    pid_t own, other;

    (void)state;
    live_init(&live, "evaluators", false);
    live_train(&live, "task=toy", "steps=100000000", "seed_steps=200", "eval_freq=300", NULL);
    live_await(&live, "learner", 0, "updates", 220, LIVE_START_MS);
    own = live_part(&live, "evaluator", 0, 0);
    live_await(&live, "evaluator", 0, "env_steps", 1, 30000);
    snprintf(place, sizeof(place), "work_dir=%s", live.dir);
    snprintf(out, sizeof(out), "%s.second", live.out);
    for (int i = 0; i < 2; i++) {
        other = live_spawn("tdmpc2-actor", out, NULL, place, "role=evaluator", NULL);
        live_check(&live, live_wait(other, 15000) == 4, "a second evaluator is not refused");
        live_check(&live, live_says(out, "this run has an evaluator already"), "it does not say why");
        if (i == 0) {
            kill(own, SIGKILL);
            own = live_part(&live, "evaluator", 0, own);
            live_await(&live, "evaluator", 0, "env_steps", 1, 30000);
        }
    }
    assert_int_equal(live_count(&live, "learner.log", "another evaluator has"), 0);
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 15000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_held_directory_names_its_owner, live_cleanup),
        cmocka_unit_test_teardown(a_second_evaluator_is_refused, live_cleanup),
        cmocka_unit_test_teardown(diverged_training_ends_with_3, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
