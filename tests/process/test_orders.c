/*
 * The real programs in any order: learner (with its shard and evaluator), a second shard, two actors are
 * started in one order and stopped (SIGTERM) in another, again and again on one run: each time it trains, each
 * time all leave with 0, nothing acknowledged is lost. All orders on the virtual clock: tests/sim.
 */
#include <signal.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

enum { LEARNER, SHARD, ACTOR_0, ACTOR_1, PARTS, ORDERS = 24 };

static const char *const names[PARTS] = {"learner", "shard 1", "actor 0", "actor 1"};

static struct live live;
static char listen_word[64], learner_word[64], place[500], folder[500];
static pid_t pids[PARTS];

static void permute(int n, int order[PARTS])
{
    int left[PARTS] = {0, 1, 2, 3};

    for (int i = 0, count = PARTS; i < PARTS; i++, count--) {
        int at = n % count;

        n /= count;
        order[i] = left[at];
        for (; at + 1 < count; at++)
            left[at] = left[at + 1];
    }
}

static void start(int part)
{
    char slot[32];

    snprintf(slot, sizeof(slot), "actor=%d", part - ACTOR_0);
    if (part == LEARNER)
        pids[part] = live_spawn("tdmpc2-learner", live.out, live_tiny, "task=toy", "seed_steps=200", "heartbeat=0.25",
                                "steps=100000000", "eval_freq=1000", "checkpoint_every=1", "shards=2", place,
                                listen_word, NULL);
    else if (part == SHARD)
        pids[part] = live_spawn("tdmpc2-replay", live.out, NULL, learner_word, "shard=1", "shards=2",
                                "bind=tcp://127.0.0.1:*", place, folder, NULL);
    else
        pids[part] = live_spawn("tdmpc2-actor", live.out, NULL, learner_word, slot, place, NULL);
}

static void start_all(int n)
{
    int order[PARTS];

    permute(n, order);
    for (int i = 0; i < PARTS; i++) {
        start(order[i]);
        live_sleep((int)rng_below(test_rng(), 300));
    }
    live_await(&live, "learner", 0, "updates", 1, LIVE_START_MS); /* this one's answer, not the last one's */
    live_rises(&live, "learner", 0, "updates", 60, 30000);
    live_rises(&live, "learner", 0, "agent_steps", 60, 30000);
}

static void stop_all(int n)
{
    uint64_t began = clock_ms();
    int order[PARTS];

    permute(n, order);
    for (int i = 0; i < PARTS; i++) {
        kill(pids[order[i]], SIGTERM);
        live_sleep((int)rng_below(test_rng(), 200));
    }
    for (int i = 0; i < PARTS; i++) {
        int code = live_wait(pids[i], 15000);

        live_check(&live, code == 0, "order %d: %s ends with %d", n, names[i], code);
    }
    live_no_orphans(&live, 2000);
    print_message("stopped in order %d: %llu ms\n", n, (unsigned long long)(clock_ms() - began));
}

static void any_order_of_starts_and_stops(void **state)
{
    static const char *const stores[] = {"replay", "elsewhere"};
    int rounds = test_long() ? ORDERS : 5, port = live_free_port();
    char notes[500], store[500];

    (void)state;
    live_init(&live, "orders", false);
    snprintf(listen_word, sizeof(listen_word), "bind=tcp://127.0.0.1:%d", port);
    snprintf(learner_word, sizeof(learner_word), "learner=tcp://127.0.0.1:%d", port);
    snprintf(place, sizeof(place), "work_dir=%s", live.dir);
    snprintf(folder, sizeof(folder), "replay_dir=%s/elsewhere", live.dir);
    snprintf(notes, sizeof(notes), "%s.notes", live.dir);
    tap_start(notes);
    for (int round = 0; round < rounds; round++) {
        int stride = ORDERS / rounds;

        start_all((ORDERS - 1 - round * stride) % ORDERS); /* the learner comes last at first */
        stop_all((round * stride + 7 * round) % ORDERS);
    }
    tap_start(NULL);
    live_checkpoint(&live);
    for (int i = 0; i < 2; i++) {
        struct tap tap;

        snprintf(store, sizeof(store), "%s/%s", live.dir, stores[i]);
        tap_load(&tap, notes);
        tap_audit(&tap, store, 0);
        tap_release(&tap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(any_order_of_starts_and_stops, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
