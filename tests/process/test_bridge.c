/* Runs of the real programs on environments in Python that die, hang and return nonsense. */
#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/processes.h"
#include "tests/support/test.h"

#define TOY(name) "task=python:tests/support/python/toys.py:" name

/* The process that starts an actor's children for it. */
static pid_t spawner_of(pid_t actor)
{
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    pid_t found = 0;

    while (found == 0 && (entry = readdir(folder)) != NULL) {
        char path[300], name[64] = "";
        int pid = atoi(entry->d_name), parent = 0;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        if (pid <= 0 || (file = fopen(path, "r")) == NULL)
            continue;
        if (fscanf(file, "%*d (%63[^)]) %*c %d", name, &parent) == 2 && parent == actor &&
            strcmp(name, "tdmpc2-spawner") == 0)
            found = pid;
        fclose(file);
    }
    closedir(folder);
    return found;
}

/* Processes of bridges that were started by this one: two for each environment, its own and what tidies up after it. */
static int bridges_of(pid_t owner)
{
    char word[64];

    snprintf(word, sizeof(word), "run.py 3 %d ", (int)owner);
    return processes_with(word);
}

static void await_no_bridges(const struct live *live, pid_t owner)
{
    for (int left = 3000; bridges_of(owner) > 0; left--, live_sleep(10))
        live_check(live, left > 0, "a bridge outlives its owner %d", (int)owner);
}

static void a_run_goes_on_when_environments_are_lost(void **state)
{
    struct live live;
    double lost;
    pid_t actor, spawner;
    int many;

    (void)state;
    live_env("TDMPC2_ENV_TIMEOUT", "3");
    live_init(&live, "flaky", false);
    live_train(&live, TOY("Flaky"), "steps=100000", "seed_steps=300", "actors=2", "evaluator=off", "heartbeat=0.5", NULL);
    lost = live_await(&live, "actor", 0, "env_lost", 2, 90000);
    live_await(&live, "replay", 0, "episodes_aborted", lost / 2, 30000);
    live_await(&live, "actor", 1, "env_lost", 1, 60000);
    for (int left = 3000; live_count(&live, "actor-0.log", "closed as aborted") < 2; left--, live_sleep(10))
        live_check(&live, left > 0, "no word of the loss"); /* which is counted before the loop hears of it */

    actor = live_part(&live, "actor", 0, 0);
    spawner = spawner_of(actor);
    live_check(&live, spawner > 0, "no spawner");
    for (int left = 3000; bridges_of(spawner) == 0; left--, live_sleep(10)) /* there is none between two of them */
        live_check(&live, left > 0, "no bridge");
    many = bridges_of(spawner); /* one may be going while the next comes, which is three before it is two */
    live_check(&live, many <= 5, "%d processes of one environment", many);
    kill(actor, SIGKILL);
    live_part(&live, "actor", 0, actor);
    await_no_bridges(&live, spawner);
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 60000);
    live_no_orphans(&live, 10000);
    live_env("TDMPC2_ENV_TIMEOUT", NULL);
}

/* Until one of the environments hangs: it makes this file. */
static void await_hang(const struct live *live, const char *path, int ms)
{
    for (; access(path, F_OK) != 0; ms -= 10, live_sleep(10))
        live_check(live, ms > 0, "no environment hangs");
}

/* One of an actor's three hangs: the others go on, it is noticed and begins anew; nor does leaving wait for it. */
static void one_that_hangs_keeps_no_other_waiting(void **state)
{
    struct live live;
    char path[600];
    uint64_t begun;

    (void)state;
    live_init(&live, "hangs", false);
    snprintf(path, sizeof(path), "%s.hung", live.dir);
    unlink(path);
    live_env("TDMPC2_ENV_TIMEOUT", "20");
    live_env("TOY_HANG", path);
    live_train(&live, TOY("HangsOnce"), "steps=1000000", "seed_steps=900000", "buffer_size=1000000", "actors=1", "envs=3",
               "evaluator=off", "heartbeat=0.5", NULL);
    await_hang(&live, path, 90000);
    live_rises(&live, "actor", 0, "env_steps", 200, 18000);
    live_check(&live, live_metric(&live, "actor", 0, "env_lost") == 0, "it was noticed before the others went on");
    live_await(&live, "actor", 0, "env_lost", 1, 60000);
    live_await(&live, "replay", 0, "episodes_aborted", 1, 30000);
    live_check(&live, live_count(&live, "actor-0.log", "did not answer within 20 s") == 1, "no word of the loss");
    live_await(&live, "learner", 0, "streams_live", 3, 30000);
    live_rises(&live, "actor", 0, "env_steps", 200, 30000);
    unlink(path); /* and once more */
    await_hang(&live, path, 30000);
    begun = clock_ms();
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 60000);
    printf("  left after %d ms\n", (int)(clock_ms() - begun));
    live_check(&live, live_count(&live, "actor-0.log", "did not answer within 20 s") == 1 && clock_ms() - begun < 9000,
               "leaving waited for it");
    live_no_orphans(&live, 10000);
    unlink(path);
    live_env("TOY_HANG", NULL);
    live_env("TDMPC2_ENV_TIMEOUT", NULL);
}

static void an_environment_that_never_plays_an_episode_ends_the_run(void **state)
{
    struct live live;

    (void)state;
    live_init(&live, "exit", false);
    live_train(&live, TOY("Exit"), "steps=100000", "seed_steps=300", "actors=1", "evaluator=off", "heartbeat=0.5", NULL);
    live_check(&live, live_said(&live, "actor-0.log", "five times without a whole episode", 60000), "it does not give up");
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 60000);
}

static void what_cannot_be_used_ends_the_run_at_once(void **state)
{
    struct live live;

    (void)state;
    live_init(&live, "discrete", false);
    live_train(&live, TOY("Discrete"), "steps=1000", NULL);
    live_expect(&live, 2, 30000);
    live_check(&live, live_says(live.out, "plans continuous actions"), "no reason given");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_run_goes_on_when_environments_are_lost, live_cleanup),
        cmocka_unit_test_teardown(one_that_hangs_keeps_no_other_waiting, live_cleanup),
        cmocka_unit_test_teardown(an_environment_that_never_plays_an_episode_ends_the_run, live_cleanup),
        cmocka_unit_test_teardown(what_cannot_be_used_ends_the_run_at_once, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
