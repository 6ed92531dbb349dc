/*
 * Ctrl-C in every phase of a run: exit 0 soon, a checkpoint that loads, nothing left behind, and the
 * same command goes on. A second Ctrl-C ends it at once with 130.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/store/segment.h"
#include "common/util/clock.h"
#include "learner/progress.h"
#include "tests/support/live.h"
#include "tests/support/test.h"

#define STOP_MS 12000 /* an actor's patience is ten seconds; none of these runs should need it */

struct moment {
    const char *name;
    const char *task, *words[8];
    const char *text;       /* to wait for in the learner's `phase` or `waiting`, or NULL */
    const char *role;       /* else a metric of this part ... */
    const char *metric;
    double value;           /* ... to come to this value */
    bool checkpoint;        /* there is a model already */
    const char *on;         /* words that a resumed run is given */
};

static const struct moment phases[] = {
    {.name = "seeding", .task = "task=toy:1000", .words = {"steps=10000000", "seed_steps=5000000"},
     .role = "learner", .metric = "agent_steps", .value = 3000, .checkpoint = true},
    {.name = "burst", .task = "task=toy", .words = {"steps=1000000", "seed_steps=5000", "mlp_dim=256", "batch_size=256"},
     .text = "pretraining", .checkpoint = true},
    {.name = "running", .task = "task=toy", .words = {"steps=1000000", "seed_steps=200"},
     .role = "learner", .metric = "updates", .value = 250, .checkpoint = true},
    {.name = "evaluation", .task = "task=toy:20000",
     .words = {"steps=1000000", "seed_steps=20000", "eval_freq=100", "eval_episodes=1000"},
     .role = "evaluator", .metric = "env_steps", .value = 100, .checkpoint = true},
    {.name = "no-actors", .task = "task=toy", .words = {"steps=1000000", "actors=0"},
     .role = "learner", .metric = "resident_bytes", .value = 1},
    {.name = "lockstep-burst", .task = "task=toy",
     .words = {"steps=100000", "seed_steps=3000", "lockstep=true", "actors=1", "mlp_dim=256", "batch_size=256"},
     .text = "pretraining", .checkpoint = true},
    {.name = "lockstep-evaluation", .task = "task=toy:20000",
     .words = {"steps=100000", "seed_steps=1000", "lockstep=true", "actors=1", "eval_episodes=1000"},
     .text = "the evaluation at step 0", .checkpoint = true},
    {.name = "final-evaluation", .task = "task=toy", .words = {"steps=600", "seed_steps=300", "eval_episodes=10000"},
     .text = "finishing", .checkpoint = true},
};

static void start(struct live *live, const struct moment *phase)
{
    const char *const *w = phase->words;

    live_train(live, phase->task, "heartbeat=0.25", w[0], w[1], w[2], w[3], w[4], w[5], w[6], NULL);
}

static void await_phase(const struct live *live, const struct moment *phase)
{
    uint64_t end = clock_ms() + LIVE_START_MS;
    char doing[200] = "", waiting[200] = "";

    if (phase->text == NULL) {
        live_await(live, phase->role, 0, phase->metric, phase->value, LIVE_START_MS);
        return;
    }
    while (strstr(doing, phase->text) == NULL && strstr(waiting, phase->text) == NULL) {
        live_check(live, clock_ms() < end, "%s: never %s, but \"%s\" \"%s\"", live->name, phase->text, doing, waiting);
        live_text(live, "learner", 0, "phase", doing, sizeof(doing));
        live_text(live, "learner", 0, "waiting", waiting, sizeof(waiting));
        live_sleep(2);
    }
}

static void stop_in(const struct moment *phase)
{
    struct live live;
    uint64_t begun, step = 0;

    live_init(&live, phase->name, false);
    start(&live, phase);
    await_phase(&live, phase);
    begun = clock_ms();
    kill(live.pid, SIGINT);
    live_expect(&live, 0, STOP_MS);
    printf("  %s: stopped in %llu ms\n", phase->name, (unsigned long long)(clock_ms() - begun));
    live_no_orphans(&live, 500);
    if (phase->checkpoint)
        step = live_checkpoint(&live);
    assert_int_equal(live_count(&live, "learner.log", "died"), 0);

    /* the same command goes on */
    start(&live, phase);
    await_phase(&live, phase);
    if (phase->checkpoint)
        live_check(&live, live_said(&live, "learner.log", "going on", 1000), "%s is not resumed", phase->name);
    if (step > 0)
        live_await(&live, "learner", 0, "agent_steps", (double)step * 0.5, 10000);
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, STOP_MS);
    live_no_orphans(&live, 500);
}

static void in_every_phase(void **state)
{
    (void)state;
    for (size_t i = 0; i < TD_LEN(phases); i++)
        stop_in(&phases[i]);
}

/* What the newest checkpoint says. */
static struct progress read_progress(const struct live *live, uint64_t *step)
{
    char folder[FS_PATH_MAX];
    struct progress progress;
    checkpoint_t *checkpoint;
    struct error err;

    snprintf(folder, sizeof(folder), "%s/checkpoints", live->dir);
    assert_ok(checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ASYNC, NULL, NULL, &err), err);
    assert_ok(progress_from_json(&progress, checkpoint_manifest(checkpoint)->progress, &err), err);
    *step = checkpoint_manifest(checkpoint)->step;
    checkpoint_close(&checkpoint);
    return progress;
}

/* Asynchronous: what is printed and logged is what was stored, and the parts go on from there. */
static void a_resumed_run_tells_what_it_has_and_has_it(void **state)
{
    const struct moment phase = {.name = "told", .task = "task=toy", .words = {"steps=1000000", "seed_steps=200", "actors=2"},
                                .role = "learner", .metric = "updates", .value = 150};
    static const char parts[] = "restored  parameters, target Qs, Adam's moments and step, running scale, counters";
    char line[300], limiter[300];
    struct progress before;
    struct live live;
    double steps, rows;
    uint64_t step;

    (void)state;
    live_init(&live, phase.name, false);
    start(&live, &phase);
    await_phase(&live, &phase);
    kill(live.pid, SIGINT);
    live_expect(&live, 0, STOP_MS);
    before = read_progress(&live, &step);
    assert_true(before.updates >= 150 && step >= 200);
    snprintf(line, sizeof(line), "restored  step-%llu: %llu agent steps, %llu updates", (unsigned long long)step,
             (unsigned long long)step, (unsigned long long)before.updates);
    snprintf(limiter, sizeof(limiter), "limiter: phase %u, %llu steps not owed; evaluation due at step %llu; rows beyond it are kept",
             before.phase, (unsigned long long)before.excess, (unsigned long long)before.next_eval);

    start(&live, &phase);
    rows = live_await(&live, "learner", 0, "replay_rows", 1, LIVE_START_MS);
    steps = live_metric(&live, "learner", 0, "agent_steps");
    live_check(&live, steps >= (double)step, "%g agent steps of %llu are left", steps, (unsigned long long)step);
    live_check(&live, rows >= (double)step, "%g rows of %llu steps are left", rows, (unsigned long long)step);
    live_check(&live, live_await(&live, "learner", 0, "parameter_version", 1, LIVE_START_MS) >= (double)before.updates,
               "the first parameters are older than the checkpoint's");
    for (size_t i = 0; i < 3; i++) {
        const char *said[] = {line, parts, limiter};

        live_check(&live, live_says(live.out, said[i]), "not printed: %s", said[i]);
        live_check(&live, live_said(&live, "learner.log", said[i], 1000), "not logged: %s", said[i]);
    }
    live_check(&live, !live_says(live.out, "differs"), "the same programs differ");
    live_rises(&live, "learner", 0, "updates", 20, LIVE_START_MS);
    live_await(&live, "learner", 0, "agent_steps", steps + 20, LIVE_START_MS);
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, STOP_MS);
    live_no_orphans(&live, 500);
    assert_true(read_progress(&live, &step).updates > before.updates);
}

static void a_second_one_ends_it_at_once(void **state)
{
    const struct moment *phase = &phases[2];
    struct live live;

    (void)state;
    live_init(&live, "twice", false);
    start(&live, phase);
    await_phase(&live, phase);
    kill(live_part(&live, "actor", 0, 0), SIGSTOP); /* so that stopping takes its time */
    kill(live.pid, SIGINT);
    live_sleep(300);
    kill(live.pid, SIGINT);
    live_expect(&live, 130, 2000);
    live_no_orphans(&live, 3000);
}

/* A daemon started by hand obeys it too, and goes at once when told twice. */
static void parts_by_themselves(void **state)
{
    char place[500], word[500];
    struct rundir_part record;
    pid_t learner, actor;
    struct live live;

    (void)state;
    live_init(&live, "parts", false);
    snprintf(place, sizeof(place), "work_dir=%s", live.dir);
    learner = live_spawn("tdmpc2-learner", live.out, live_tiny, "task=toy", "seed_steps=200", "heartbeat=0.25", place, NULL);
    live_part(&live, "learner", 0, 0);
    assert_true(live_find(&live, "learner", 0, &record));
    snprintf(word, sizeof(word), "learner=%s", record.control);
    actor = live_spawn("tdmpc2-actor", live.out, NULL, word, place, NULL);
    live_await(&live, "learner", 0, "updates", 220, LIVE_START_MS);
    kill(actor, SIGINT);
    live_check(&live, live_wait(actor, STOP_MS) == 0, "the actor did not leave");
    live_check(&live, live_said(&live, "../parts.out", "left: asked to stop", 3000), "the learner did not hear it");
    kill(learner, SIGINT);
    live_check(&live, live_wait(learner, STOP_MS) == 0, "the learner did not leave");
    live_no_orphans(&live, 500);
    live_checkpoint(&live);
}

/* Before there is a learner, while it starts, before any of them listens to signals. */
static void in_the_first_moments(void **state)
{
    (void)state;
    for (int i = 1; i <= 12; i++) {
        char name[32];
        struct live live;

        snprintf(name, sizeof(name), "early-%d", i);
        live_init(&live, name, false);
        start(&live, &phases[2]);
        live_sleep(20 + 25 * i);
        kill(live.pid, SIGINT);
        live_expect(&live, 0, STOP_MS);
        live_no_orphans(&live, 500);
        live_check(&live, !live_says(live.out, "killed by"), "stopped after %d ms: it tells of a death", 20 + 25 * i);
    }
}

/* Instead of a full disk, something lies where checkpoints belong; `tdmpc2 stop` is under way. */
static pid_t stop_without_room(struct live *live, const char *name, char out[600])
{
    char folder[600], aside[600];
    pid_t stop;
    int fd;

    live_init(live, name, false);
    start(live, &phases[2]);
    await_phase(live, &phases[2]);
    live_check(live, live_said(live, "learner.log", "checkpoint written", 10000), "no first checkpoint");
    snprintf(folder, sizeof(folder), "%s/checkpoints", live->dir);
    snprintf(aside, sizeof(aside), "%s/aside", live->dir);
    assert_int_equal(rename(folder, aside), 0);
    fd = creat(folder, 0644);
    assert_true(fd >= 0);
    close(fd);
    snprintf(out, 600, "%s.stop", live->out);
    stop = live_spawn("tdmpc2", out, (const char *const[]){"stop", NULL}, live->dir, NULL);
    for (int i = 0; i < 100 && !live_says(live->out, "the last checkpoint could not be written, trying again"); i++)
        live_sleep(100);
    live_check(live, live_says(live->out, "the last checkpoint could not be written, trying again"),
               "train does not say that there is no room");
    return stop;
}

/* Nobody says that all is well, and nobody starts a learner for actors that were told to go. */
static void a_last_checkpoint_that_cannot_be_written(void **state)
{
    char out[600];
    struct live live;
    pid_t stop;

    (void)state;
    stop = stop_without_room(&live, "no-room", out);
    kill(live.pid, SIGINT); /* not to wait any longer */
    live_expect(&live, 1, STOP_MS);
    live_check(&live, live_says(live.out, "tdmpc2 train: the last checkpoint could not be written"), "no sentence");
    live_check(&live, live_wait(stop, STOP_MS) == 1, "stop does not fail");
    live_check(&live, live_says(out, "the last checkpoint could not be written"), "stop does not say why");
    assert_int_equal(live_count(&live, "learner.log", "started"), 1);
    live_no_orphans(&live, 500);
}

static void a_last_checkpoint_that_can_be_written_later(void **state)
{
    char out[600], folder[600], aside[600];
    struct live live;
    pid_t stop;

    (void)state;
    stop = stop_without_room(&live, "room", out);
    snprintf(folder, sizeof(folder), "%s/checkpoints", live.dir);
    snprintf(aside, sizeof(aside), "%s/aside", live.dir);
    assert_int_equal(unlink(folder), 0);
    assert_int_equal(rename(aside, folder), 0);
    live_expect(&live, 0, STOP_MS);
    live_check(&live, live_wait(stop, STOP_MS) == 0, "stop fails");
    live_check(&live, live_says(out, "stopped"), "stop does not say so");
    assert_true(live_checkpoint(&live) > 250);
}

/* `train` is killed outright: its children notice. */
static void the_front_dies(void **state)
{
    struct live live;

    (void)state;
    live_init(&live, "front", false);
    start(&live, &phases[2]);
    await_phase(&live, &phases[2]);
    kill(live.pid, SIGKILL);
    assert_int_equal(live_wait(live.pid, 2000), 128 + SIGKILL);
    live_no_orphans(&live, STOP_MS);
    live_checkpoint(&live);
}

/* The learner's child that starts shard and evaluator. */
static pid_t spawner_of(const struct live *live)
{
    char path[64], text[200] = "";
    FILE *in;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)live_part(live, "learner", 0, 0),
             (int)live_part(live, "learner", 0, 0));
    in = fopen(path, "r");
    assert_non_null(in);
    assert_non_null(fgets(text, sizeof(text), in));
    fclose(in);
    return (pid_t)strtol(text, NULL, 10);
}

/*
 * Somebody kills the spawner: shard and evaluator go with it, and no other can be had from within the sandbox. The
 * learner says so, keeps what it has and is started again. Then `train` is killed while an actor is stopped.
 */
static void the_spawner_is_killed_and_a_stopped_actor_does_not_stay(void **state)
{
    struct live live;
    pid_t learner;

    (void)state;
    live_init(&live, "spawner", false);
    live_train(&live, "task=toy", "seed_steps=200", "evaluator=off", "actors=1", "steps=1000000", NULL);
    live_await(&live, "learner", 0, "updates", 250, LIVE_START_MS);
    learner = live_part(&live, "learner", 0, 0);
    kill(spawner_of(&live), SIGKILL);
    live_part(&live, "learner", 0, learner);
    live_rises(&live, "learner", 0, "updates", 50, LIVE_START_MS);
    live_check(&live, live_count(&live, "learner.log", "msg=\"tdmpc2-spawner, which starts this learner's children, was killed") == 1,
               "it is not said");
    live_check(&live, live_count(&live, "learner.log", "pipe") == 0, "a broken pipe is said");
    live_check(&live, live_says(live.out, "starting learner again"), "train does not say that it goes on");
    live_check(&live, live_count(&live, "learner.log", "msg=\"checkpoint written\"") > 0, "no checkpoint was written");
    kill(live_part(&live, "actor", 0, 0), SIGSTOP);
    kill(live.pid, SIGKILL);
    assert_int_equal(live_wait(live.pid, 2000), 128 + SIGKILL);
    live_no_orphans(&live, STOP_MS);
}

/* The same command goes on with what is whole of a file that was cut short. */
static void a_damaged_replay_does_not_end_a_run(void **state)
{
    static const char *const words[] = {"task=toy", "seed_steps=200", "evaluator=off", "actors=1"};
    char path[FS_PATH_MAX], text[8000], said[200] = "";
    struct live live;

    (void)state;
    live_init(&live, "damaged", false);
    live_train(&live, words[0], words[1], words[2], words[3], "steps=500", NULL);
    live_expect(&live, 0, 60000);
    snprintf(path, sizeof(path), "%s/replay/data.mdb", live.dir);
    assert_int_equal(truncate(path, 40960), 0);
    live_train(&live, words[0], words[1], words[2], words[3], "steps=1000000", NULL);
    live_await(&live, "learner", 0, "updates", 310, LIVE_START_MS);
    live_check(&live, live_says(live.out, "keeps the damaged file beside it"), "train does not tell of the damage");
    live_check(&live, live_count(&live, "replay.log", "the damaged file is kept as") == 1, "nothing was set aside");
    live_check(&live, live_said(&live, "../damaged.out", "learner: shard 0: its file was damaged, ", 3000),
               "train does not tell what was lost");
    live_text(&live, "replay", 0, "damage", said, sizeof(said));
    live_check(&live, strstr(said, "lost") != NULL && strstr(said, "no acknowledged row") == NULL, "the shard says \"%s\"", said);
    live_run("tdmpc2", text, sizeof(text), 10000, "stats", live.dir, NULL);
    live_check(&live, strstr(text, "replay-0 met damage: its file was damaged, ") != NULL, "stats does not tell what was lost");
    kill(live.pid, SIGINT);
    live_expect(&live, 0, STOP_MS);
}

/* A bit of each stored segment's rows, in the file that is being served. */
static int spoil(const char *path)
{
    size_t length = 0, at = 0;
    struct error err = {0};
    char *bytes = NULL;
    int fd = open(path, O_WRONLY), spoilt = 0;

    assert_true(fd >= 0);
    assert_ok(fs_read_file(path, 1u << 30, &bytes, &length, &err), err);
    while ((at = segment_find(bytes, length, at)) < length) {
        struct segment_head head;

        if (segment_open(&head, bytes + at, length - at) == TD_OK) {
            size_t place = at + head.length - 20; /* rows end there */
            char byte = (char)(bytes[place] ^ 4);

            assert_int_equal(pwrite(fd, &byte, 1, (off_t)place), 1);
            spoilt++;
        }
        at++;
    }
    close(fd);
    free(bytes);
    return spoilt;
}

/* Damage that is met while the shard serves: its episodes are set aside, and it is said; the run goes on. */
static void damage_in_use_is_told(void **state)
{
    char path[FS_PATH_MAX], text[8000];
    struct live live;
    int spoilt;

    (void)state;
    live_init(&live, "in-use", false);
    live_train(&live, "task=toy", "seed_steps=200", "evaluator=off", "actors=1", "steps=1000000", NULL);
    live_await(&live, "learner", 0, "updates", 250, LIVE_START_MS);
    snprintf(path, sizeof(path), "%s/replay/data.mdb", live.dir);
    spoilt = spoil(path);
    live_check(&live, spoilt >= 3, "%d segments were found", spoilt);
    live_await(&live, "replay", 0, "segments_bad", 1, LIVE_START_MS);
    live_check(&live, live_said(&live, "../in-use.out", "damaged segment", 5000), "train does not tell of the damage");
    live_check(&live, live_says(live.out, "learner: shard 0: "), "train does not say who met it");
    live_run("tdmpc2", text, sizeof(text), 10000, "stats", live.dir, NULL);
    live_check(&live, strstr(text, "replay-0 met damage: ") != NULL, "stats does not tell of the damage");
    live_rises(&live, "learner", 0, "updates", 200, LIVE_START_MS);
    kill(live.pid, SIGINT);
    live_expect(&live, 0, STOP_MS);
    live_no_orphans(&live, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(in_every_phase, live_cleanup),
        cmocka_unit_test_teardown(a_resumed_run_tells_what_it_has_and_has_it, live_cleanup),
        cmocka_unit_test_teardown(in_the_first_moments, live_cleanup),
        cmocka_unit_test_teardown(a_second_one_ends_it_at_once, live_cleanup),
        cmocka_unit_test_teardown(parts_by_themselves, live_cleanup),
        cmocka_unit_test_teardown(a_last_checkpoint_that_cannot_be_written, live_cleanup),
        cmocka_unit_test_teardown(a_last_checkpoint_that_can_be_written_later, live_cleanup),
        cmocka_unit_test_teardown(the_front_dies, live_cleanup),
        cmocka_unit_test_teardown(the_spawner_is_killed_and_a_stopped_actor_does_not_stay, live_cleanup),
        cmocka_unit_test_teardown(a_damaged_replay_does_not_end_a_run, live_cleanup),
        cmocka_unit_test_teardown(damage_in_use_is_told, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
