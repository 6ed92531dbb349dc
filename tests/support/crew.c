/* crew.c - parts of a run, started by hand, killed, and started again. */
#include "tests/support/crew.h"

#include <signal.h>
#include <unistd.h>

#include "common/net/process.h"
#include "common/util/clock.h"
#include "tests/support/test.h"

static void start_learner(struct crew *crew)
{
    crew->children = 0;
    crew->learner = live_spawn("tdmpc2-learner", crew->live.out, live_tiny, "task=toy", "seed_steps=300",
                               "eval_freq=500", "heartbeat=0.25", "steps=1000000000", "checkpoint_every=1",
                               crew->words[0], crew->words[1], crew->words[2], NULL);
}

static void start_actor(struct crew *crew, int which)
{
    char slot[32];

    snprintf(slot, sizeof(slot), "actor=%d", which);
    crew->actors[which] = live_spawn("tdmpc2-actor", crew->live.out, NULL, crew->words[3], slot, crew->words[0], NULL);
}

void crew_start(struct crew *crew, const char *name, int buffer, int slow_disk_ms, bool noted)
{
    int port = live_free_port();
    char slow[16];

    memset(crew, 0, sizeof(*crew));
    live_init(&crew->live, name, false);
    snprintf(crew->notes, sizeof(crew->notes), "%s.notes", crew->live.dir);
    snprintf(crew->words[0], sizeof(crew->words[0]), "work_dir=%s", crew->live.dir);
    snprintf(crew->words[1], sizeof(crew->words[1]), "bind=tcp://127.0.0.1:%d", port);
    snprintf(crew->words[2], sizeof(crew->words[2]), "buffer_size=%d", buffer);
    snprintf(crew->words[3], sizeof(crew->words[3]), "learner=tcp://127.0.0.1:%d", port);
    tap_start(crew->notes);
    if (!noted)
        unsetenv("TD_TAP");
    if (slow_disk_ms > 0) {
        snprintf(slow, sizeof(slow), "%d", slow_disk_ms);
        setenv("TD_SYNC_MS", slow, 1);
        tap_preload("sync");
    }
    start_learner(crew);
    for (int i = 0; i < CREW_ACTORS; i++)
        start_actor(crew, i);
    live_await(&crew->live, "learner", 0, "agent_steps", buffer * 1.5, LIVE_START_MS);
}

const char *crew_name(enum crew_part part)
{
    static const char *const names[] = {"learner", "shard", "evaluator", "actor-0", "actor-1"};

    return names[part];
}

pid_t crew_find(const struct crew *crew, enum crew_part part)
{
    struct rundir_part record;

    if (part == CREW_LEARNER)
        return crew->learner;
    if (part >= CREW_ACTOR)
        return crew->actors[part - CREW_ACTOR];
    return live_find(&crew->live, part == CREW_SHARD ? "replay" : "evaluator", 0, &record) ? record.pid : 0;
}

enum crew_part crew_choose(const struct crew *crew)
{
    enum crew_part part;

    do
        part = (enum crew_part)rng_below(test_rng(), CREW_PARTS);
    while ((part == CREW_SHARD || part == CREW_EVALUATOR) && crew->children + 1 >= RESTART_LIMIT);
    return part;
}

static void await_end(pid_t pid)
{
    for (int i = 0; i < 2000 && live_state(pid) != 'Z' && live_state(pid) != 0; i++)
        live_sleep(2);
}

bool crew_kill(struct crew *crew, enum crew_part part)
{
    pid_t pid = crew_find(crew, part);

    if (pid <= 0)
        return false;
    kill(pid, SIGKILL);
    if (part == CREW_LEARNER) {
        live_wait(pid, 5000);
        crew->learner = 0;
    } else if (part >= CREW_ACTOR) {
        live_wait(pid, 5000);
        crew->actors[part - CREW_ACTOR] = 0;
    } else {
        crew->children++;
    }
    return true;
}

bool crew_signal(struct crew *crew, enum crew_part part, int number)
{
    pid_t pid = crew_find(crew, part);

    return pid > 0 && kill(pid, number) == 0;
}

/* Nobody ends by himself. */
static void check_alive(const struct crew *crew, pid_t pid, const char *name)
{
    int code = live_wait(pid, 0);

    if (code != LIVE_TIMEOUT)
        live_fail(&crew->live, "the %s ended with %d", name, code);
}

void crew_tend(struct crew *crew)
{
    if (crew->learner != 0)
        check_alive(crew, crew->learner, "learner");
    else
        start_learner(crew);
    for (int i = 0; i < CREW_ACTORS; i++)
        if (crew->actors[i] != 0)
            check_alive(crew, crew->actors[i], "actor");
        else
            start_actor(crew, i);
}

void crew_goes_on(struct crew *crew, int ms)
{
    live_rises(&crew->live, "learner", 0, "agent_steps", 20, ms);
    live_rises(&crew->live, "learner", 0, "updates", 20, ms);
    crew_tend(crew);
}

struct tap_result crew_audit(struct crew *crew, int kept, bool kill_shard)
{
    pid_t shard = kill_shard ? live_part(&crew->live, "replay", 0, 0) : 0;
    struct tap_result result;
    char store[500];
    struct tap tap;

    if (kill_shard) {
        kill(crew->learner, SIGSTOP); /* or it starts the next one */
        kill(shard, SIGKILL);
        crew->children++;
        await_end(shard);
    }
    snprintf(store, sizeof(store), "%s/replay", crew->live.dir);
    tap_load(&tap, crew->notes);
    result = tap_audit(&tap, store, (uint64_t)kept);
    tap_release(&tap);
    if (kill_shard)
        kill(crew->learner, SIGCONT);
    return result;
}

void crew_stop(struct crew *crew)
{
    for (int i = 0; i < CREW_ACTORS; i++)
        kill(crew->actors[i], SIGTERM);
    for (int i = 0; i < CREW_ACTORS; i++)
        live_check(&crew->live, live_wait(crew->actors[i], 15000) == 0, "actor %d does not end with 0", i);
    kill(crew->learner, SIGTERM);
    live_check(&crew->live, live_wait(crew->learner, 15000) == 0, "the learner does not end with 0");
    live_no_orphans(&crew->live, 2000);
    live_checkpoint(&crew->live);
    tap_start(NULL);
}
