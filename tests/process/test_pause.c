/*
 * SIGSTOP: a part that stands still for long blocks nobody it need not block; when it goes on nothing is
 * lost. One whose place was taken meanwhile is fenced.
 */
#include <signal.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define GO_ON_MS 30000

/* Twice the five heartbeats after which a part counts as gone; anything up to two minutes in the long mode. */
static int pause_ms(void)
{
    return test_long() ? 1000 + (int)rng_below(test_rng(), 119000) : 2500;
}

static void start(struct live *live, const char *name, char notes[500], const char *actors)
{
    live_init(live, name, false);
    snprintf(notes, 500, "%s.notes", live->dir);
    tap_start(notes);
    live_train(live, "task=toy", "steps=100000000", "seed_steps=200", "eval_freq=1000", "heartbeat=0.25", actors, NULL);
    live_await(live, "learner", 0, "updates", 250, LIVE_START_MS);
}

static void rises(const struct live *live, const char *role, int id, const char *metric)
{
    live_rises(live, role, id, metric, 30, GO_ON_MS);
}

/* Everything that was acknowledged is there, nothing was dropped: each stream kept its first epoch. */
static void end(struct live *live, const char *notes, bool one_epoch)
{
    char store[500];
    struct tap tap;

    kill(live->pid, SIGTERM);
    live_expect(live, 0, 30000);
    live_no_orphans(live, 1000);
    tap_start(NULL);
    snprintf(store, sizeof(store), "%s/replay", live->dir);
    tap_load(&tap, notes);
    tap_audit(&tap, store, 0);
    for (size_t i = 0; i < tap.count && one_epoch; i++)
        live_check(live, tap.streams[i].epoch == 1, "%s: stream %u.%u began epoch %llu", live->name, tap.streams[i].slot,
                   tap.streams[i].env, (unsigned long long)tap.streams[i].epoch);
    tap_release(&tap);
}

static void an_actor_blocks_nobody(void **state)
{
    struct live live;
    char notes[500];
    pid_t actor;

    (void)state;
    start(&live, "actor", notes, NULL);
    actor = live_part(&live, "actor", 0, 0);
    kill(actor, SIGSTOP);
    live_sleep(pause_ms());
    rises(&live, "learner", 0, "updates");
    rises(&live, "actor", 1, "env_steps");
    live_await(&live, "learner", 0, "actors_live", 1, 5000);
    kill(actor, SIGCONT);
    rises(&live, "actor", 0, "env_steps");
    assert_int_equal(live_part(&live, "actor", 0, 0), actor);
    live_await(&live, "learner", 0, "actors_live", 2, 5000);
    end(&live, notes, true);
}

static void an_evaluator_blocks_nobody(void **state)
{
    struct live live;
    char notes[500];
    pid_t evaluator;

    (void)state;
    start(&live, "evaluator", notes, NULL);
    evaluator = live_part(&live, "evaluator", 0, 0);
    kill(evaluator, SIGSTOP);
    live_sleep(pause_ms());
    rises(&live, "learner", 0, "updates");
    kill(evaluator, SIGCONT);
    rises(&live, "evaluator", 0, "env_steps");
    end(&live, notes, true);
}

/* What hangs on it stands still and goes on afterwards. */
static void stop_and_go(const char *role)
{
    struct live live;
    char notes[500];
    pid_t pid;

    start(&live, role, notes, NULL);
    pid = live_part(&live, role, 0, 0);
    for (int round = 0; round < 2; round++) {
        kill(pid, SIGSTOP);
        live_sleep(round == 0 ? 300 : pause_ms());
        kill(pid, SIGCONT);
        rises(&live, "learner", 0, "updates");
        rises(&live, "learner", 0, "agent_steps");
        assert_int_equal(live_part(&live, role, 0, 0), pid);
    }
    end(&live, notes, true);
}

static void the_shard_goes_on(void **state)
{
    (void)state;
    stop_and_go("replay");
}

static void the_learner_goes_on(void **state)
{
    (void)state;
    stop_and_go("learner");
}

/* While the shard stands still the learner says for whom it waits. */
static void whoever_waits_says_for_whom(void **state)
{
    char waiting[200] = "";
    struct live live;
    char notes[500];
    pid_t shard;

    (void)state;
    start(&live, "says", notes, NULL);
    shard = live_part(&live, "replay", 0, 0);
    kill(shard, SIGSTOP);
    live_check(&live, live_said(&live, "learner.log", "waiting for", 15000), "the learner does not say why it waits");
    live_text(&live, "learner", 0, "waiting", waiting, sizeof(waiting));
    live_check(&live, strstr(waiting, "shard") != NULL, "the learner waits for \"%s\"", waiting);
    live_check(&live, live_said(&live, "actor-0.log", "waiting for", 15000), "an actor does not say why it waits");
    kill(shard, SIGCONT);
    rises(&live, "learner", 0, "updates");
    end(&live, notes, true);
}

/* Another process takes the place of a stopped one, which is fenced when it wakes up. */
static void who_was_replaced_is_fenced(void **state)
{
    char learner[500], place[500], notes[500];
    struct rundir_part record;
    pid_t old, newer;
    struct live live;

    (void)state;
    start(&live, "fenced", notes, "actors=1");
    old = live_part(&live, "actor", 0, 0);
    kill(old, SIGSTOP);
    assert_true(live_find(&live, "learner", 0, &record));
    snprintf(learner, sizeof(learner), "learner=%s", record.control);
    snprintf(place, sizeof(place), "work_dir=%s", live.dir);
    newer = live_spawn("tdmpc2-actor", live.out, NULL, learner, place, "actor=0", NULL);
    assert_int_equal(live_part(&live, "actor", 0, old), newer);
    rises(&live, "actor", 0, "env_steps");
    kill(old, SIGCONT);
    live_check(&live, live_said(&live, "../fenced.out", "another process took the place of actor-0", 10000),
               "the old one was not fenced");
    rises(&live, "actor", 0, "env_steps");
    rises(&live, "learner", 0, "updates");
    kill(newer, SIGTERM);
    live_check(&live, live_wait(newer, 15000) == 0, "the newer one does not leave");
    live_check(&live, live_said(&live, "../fenced.out", "the place of actor-0 is free again", 10000),
               "nobody takes the place that is free");
    live_part(&live, "actor", 0, newer);
    rises(&live, "learner", 0, "agent_steps");
    end(&live, notes, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(an_actor_blocks_nobody, live_cleanup),
        cmocka_unit_test_teardown(an_evaluator_blocks_nobody, live_cleanup),
        cmocka_unit_test_teardown(the_shard_goes_on, live_cleanup),
        cmocka_unit_test_teardown(the_learner_goes_on, live_cleanup),
        cmocka_unit_test_teardown(whoever_waits_says_for_whom, live_cleanup),
        cmocka_unit_test_teardown(who_was_replaced_is_fenced, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
