/*
 * kill -9 of a random part at a random moment, again and again, with a full buffer: no acknowledged row
 * lost, none twice, none altered; training goes on after each; nobody hangs.
 *
 * What was sent and acknowledged is noted outside the code under test (tap.h). The shard's store is
 * compared with it at the end, and each time the shard is killed, before the learner sees its end.
 */
#include <signal.h>

#include "common/net/process.h"
#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define BUFFER  1000
#define EPISODE 50
#define GO_ON_MS 30000 /* until updates and steps rise again after a kill */

struct victim {
    const char *role;
    int id;
};

static const struct victim victims[] = {{"learner", 0}, {"replay", 0}, {"actor", 0}, {"actor", 1}, {"evaluator", 0}};
enum { VICTIMS = 5, PER_VICTIM = RESTART_LIMIT - 1 };

/* Five young deaths of one part end the run, as they should: at most four each. */
static int choose(int deaths[VICTIMS])
{
    int which;

    do
        which = (int)rng_below(test_rng(), VICTIMS);
    while (deaths[which] >= PER_VICTIM);
    deaths[which]++;
    return which;
}

/* Rows kept at the least: the window begins with a whole episode. */
static void audit(const struct live *live, const char *notes, int round)
{
    struct tap_result result;
    char store[500];
    struct tap tap;

    snprintf(store, sizeof(store), "%s/replay", live->dir);
    tap_load(&tap, notes);
    result = tap_audit(&tap, store, BUFFER - EPISODE - 1);
    printf("  round %d: %llu rows kept, %llu evicted, %llu acknowledged, %llu sent, %llu resent by %llu actors\n", round,
           (unsigned long long)result.kept, (unsigned long long)result.evicted, (unsigned long long)result.acked,
           (unsigned long long)result.sent, (unsigned long long)tap.resent, (unsigned long long)tap.files);
    tap_release(&tap);
}

static void kill_and_audit_shard(struct live *live, pid_t pid, const char *notes, int round)
{
    pid_t learner = live_part(live, "learner", 0, 0);

    kill(learner, SIGSTOP); /* or it starts the next one */
    kill(pid, SIGKILL);
    for (int i = 0; i < 1000 && live_state(pid) != 'Z' && live_state(pid) != 0; i++)
        live_sleep(5);
    audit(live, notes, round);
    kill(learner, SIGCONT);
}

/* Both counters rise, whatever they are at now. */
static void goes_on(const struct live *live)
{
    live_rises(live, "learner", 0, "agent_steps", 20, GO_ON_MS);
    live_rises(live, "learner", 0, "updates", 20, GO_ON_MS);
}

static void kill_rounds(int run, int rounds)
{
    int deaths[VICTIMS] = {0};
    char name[32], notes[500];
    struct live live;

    snprintf(name, sizeof(name), "kill-%d", run);
    live_init(&live, name, false);
    snprintf(notes, sizeof(notes), "%s.notes", live.dir);
    tap_start(notes);
    live_train(&live, "task=toy", "steps=100000000", "seed_steps=300", "buffer_size=1000", "eval_freq=500",
               "heartbeat=0.25", "checkpoint_every=1", NULL);
    live_await(&live, "learner", 0, "agent_steps", BUFFER + 500, 60000);
    for (int round = 0; round < rounds; round++) {
        int which = choose(deaths);
        pid_t pid = live_part(&live, victims[which].role, victims[which].id, 0);

        live_sleep((int)rng_below(test_rng(), 250));
        printf("run %d round %d: %s-%d\n", run, round, victims[which].role, victims[which].id);
        if (strcmp(victims[which].role, "replay") == 0)
            kill_and_audit_shard(&live, pid, notes, round);
        else
            kill(pid, SIGKILL);
        goes_on(&live);
        live_part(&live, victims[which].role, victims[which].id, pid);
    }
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 30000);
    live_no_orphans(&live, 2000);
    live_check(&live, live_checkpoint(&live) > BUFFER, "the last checkpoint is not the last");
    audit(&live, notes, rounds);
    tap_start(NULL);
}

static void nothing_acknowledged_is_lost(void **state)
{
    int runs = test_long() ? 50 : 5;

    (void)state;
    for (int run = 0; run < runs; run++)
        kill_rounds(run, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(nothing_acknowledged_is_lost, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
