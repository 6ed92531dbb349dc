/*
 * A run put together by hand over tcp on the loopback, as over two machines: actors join and leave, the
 * learner is killed and started again, a second shard runs by itself.
 */
#include <signal.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define GO_ON_MS 30000

static pid_t start_learner(const struct live *live, int port, const char *more)
{
    char place[500], listen[64];

    snprintf(place, sizeof(place), "work_dir=%s", live->dir);
    snprintf(listen, sizeof(listen), "bind=tcp://127.0.0.1:%d", port);
    return live_spawn("tdmpc2-learner", live->out, live_tiny, "task=toy", "seed_steps=200", "heartbeat=0.25",
                      "steps=100000000", "eval_freq=1000", "checkpoint_every=1", place, listen, more, NULL);
}

/* An actor as on another machine: it knows the learner's address and nothing else, but for `stats`. */
static pid_t start_actor(const struct live *live, int port, const char *more)
{
    char place[500], learner[64];

    snprintf(place, sizeof(place), "work_dir=%s", live->dir);
    snprintf(learner, sizeof(learner), "learner=tcp://127.0.0.1:%d", port);
    return live_spawn("tdmpc2-actor", live->out, NULL, learner, place, more, NULL);
}

static void rises(const struct live *live, const char *role, int id, const char *metric)
{
    live_rises(live, role, id, metric, 30, GO_ON_MS);
}

static void stop(const struct live *live, pid_t pid, const char *what)
{
    kill(pid, SIGTERM);
    live_check(live, live_wait(pid, 15000) == 0, "%s does not end with 0", what);
}

static void audit(const struct live *live, const char *notes, const char *folder)
{
    char store[500];
    struct tap tap;

    snprintf(store, sizeof(store), "%s/%s", live->dir, folder);
    tap_load(&tap, notes);
    tap_audit(&tap, store, 0);
    tap_release(&tap);
}

static void actors_come_and_go_and_the_learner_comes_back(void **state)
{
    pid_t learner, first, second, late;
    char notes[500];
    struct live live;
    int port = live_free_port();

    (void)state;
    live_init(&live, "net", false);
    snprintf(notes, sizeof(notes), "%s.notes", live.dir);
    tap_start(notes);
    learner = start_learner(&live, port, NULL);
    first = start_actor(&live, port, "actor=0");
    second = start_actor(&live, port, "actor=1");
    live_await(&live, "learner", 0, "updates", 250, LIVE_START_MS);

    /* one more, which is granted a slot of its own above those there are; one less */
    late = start_actor(&live, port, NULL);
    live_check(&live, live_part(&live, "actor", 2, 0) == late, "the late actor has another slot");
    rises(&live, "actor", 2, "env_steps");
    stop(&live, first, "the first actor");
    live_check(&live, live_said(&live, "../net.out", "slot 0 left", 3000), "the learner did not hear the first one leave");
    rises(&live, "learner", 0, "agent_steps");

    /* the learner dies; its shard goes with it, the actors wait and join the next one by themselves */
    kill(learner, SIGKILL);
    live_wait(learner, 5000);
    live_sleep(500);
    learner = start_learner(&live, port, NULL);
    live_part(&live, "learner", 0, 0);
    rises(&live, "learner", 0, "updates");
    live_await(&live, "learner", 0, "actors_live", 2, GO_ON_MS);
    rises(&live, "actor", 1, "env_steps");
    rises(&live, "actor", 2, "env_steps");

    stop(&live, second, "the second actor");
    stop(&live, late, "the late actor");
    stop(&live, learner, "the learner");
    live_no_orphans(&live, 1000);
    live_checkpoint(&live);
    audit(&live, notes, "replay");
    tap_start(NULL);
}

/* A second shard with a directory of its own; it outlives the learner, and is killed and started again. */
static void a_second_shard_runs_by_itself(void **state)
{
    char control[64], place[500], folder[500], notes[500];
    pid_t learner, shard, actors[2];
    struct live live;
    int port = live_free_port();

    (void)state;
    live_init(&live, "shards", false);
    snprintf(notes, sizeof(notes), "%s.notes", live.dir);
    snprintf(control, sizeof(control), "learner=tcp://127.0.0.1:%d", port);
    snprintf(place, sizeof(place), "work_dir=%s", live.dir);
    snprintf(folder, sizeof(folder), "replay_dir=%s/elsewhere", live.dir);
    tap_start(notes);
    learner = start_learner(&live, port, "shards=2");
    live_part(&live, "learner", 0, 0);
    shard = live_spawn("tdmpc2-replay", live.out, NULL, control, "shard=1", "shards=2", "bind=tcp://127.0.0.1:*", place,
                       folder, NULL);
    actors[0] = start_actor(&live, port, "actor=0");
    actors[1] = start_actor(&live, port, "actor=1");
    live_await(&live, "learner", 0, "updates", 250, LIVE_START_MS);
    live_await(&live, "replay", 0, "rows_stored", 50, GO_ON_MS);
    live_await(&live, "replay", 1, "rows_stored", 50, GO_ON_MS);
    live_await(&live, "replay", 1, "slices", 50, GO_ON_MS);

    kill(shard, SIGKILL); /* the other one serves meanwhile; its actor finds the next one's address */
    live_wait(shard, 5000);
    rises(&live, "learner", 0, "updates");
    shard = live_spawn("tdmpc2-replay", live.out, NULL, control, "shard=1", "shards=2", "bind=tcp://127.0.0.1:*", place,
                       folder, NULL);
    live_part(&live, "replay", 1, 0);
    rises(&live, "replay", 1, "rows_stored");
    rises(&live, "replay", 1, "slices");

    kill(learner, SIGKILL);
    live_wait(learner, 5000);
    live_sleep(500);
    live_check(&live, live_state(shard) != 0 && live_state(shard) != 'Z', "the remote shard went with the learner");
    learner = start_learner(&live, port, NULL);
    live_part(&live, "learner", 0, 0);
    rises(&live, "learner", 0, "updates");
    rises(&live, "replay", 1, "slices");

    stop(&live, actors[0], "the first actor");
    stop(&live, actors[1], "the second actor");
    stop(&live, learner, "the learner");
    stop(&live, shard, "the second shard");
    live_no_orphans(&live, 1000);
    tap_start(NULL);
    live_checkpoint(&live);
    audit(&live, notes, "replay");
    audit(&live, notes, "elsewhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(actors_come_and_go_and_the_learner_comes_back, live_cleanup),
        cmocka_unit_test_teardown(a_second_shard_runs_by_itself, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
