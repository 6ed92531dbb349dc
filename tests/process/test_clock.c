/*
 * The clock of the wall jumps by ten years, forth and back, while the real programs run, start, die and
 * leave: nothing waits, nothing is given up, no checkpoint is taken for another. Only the times in the logs
 * are what the clock said (bin_clock.c).
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/live.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define TEN_YEARS (INT64_C(10) * 31556952)
#define GO_ON_MS  20000

static volatile int64_t *shift;

/* Programs started from now on read their clock's error from a file that this maps. */
static void clock_start(const struct live *live)
{
    char path[500];
    int fd;

    snprintf(path, sizeof(path), "%s.clock", live->dir);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, sizeof(*shift)) == 0);
    shift = mmap(NULL, sizeof(*shift), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(shift != MAP_FAILED);
    close(fd);
    setenv("TD_CLOCK", path, 1);
    tap_preload("clock");
}

static void clock_stop(void)
{
    munmap((void *)(uintptr_t)shift, sizeof(*shift));
    unsetenv("TD_CLOCK");
    tap_start(NULL);
}

static void goes_on(const struct live *live)
{
    live_rises(live, "learner", 0, "agent_steps", 30, GO_ON_MS);
    live_rises(live, "learner", 0, "updates", 30, GO_ON_MS);
}

static void train(struct live *live)
{
    live_train(live, "task=toy", "steps=100000000", "seed_steps=200", "eval_freq=500", "heartbeat=0.25",
               "checkpoint_every=1", NULL);
}

/* The year stands in some log of the run: the clock really was there. */
static bool year_logged(const struct live *live, int64_t off)
{
    time_t then = (time_t)(clock_wall_ms() / 1000) + (time_t)off;
    char stamp[32];
    struct tm utc;

    strftime(stamp, sizeof(stamp), "%Y-%m-", gmtime_r(&then, &utc));
    return live_count(live, "learner.log", stamp) > 0 || live_count(live, "actor-0.log", stamp) > 0;
}

/* A SIGTERM is over as soon as always. */
static void stop(struct live *live)
{
    uint64_t start = clock_ms();

    kill(live->pid, SIGTERM);
    live_expect(live, 0, 20000);
    live_check(live, clock_ms() - start < 10000, "stopping took %llu ms", (unsigned long long)(clock_ms() - start));
    live_no_orphans(live, 1000);
}

static void jumps_of_ten_years_change_nothing(void **state)
{
    static const int64_t jumps[] = {TEN_YEARS, -TEN_YEARS, 0, TEN_YEARS};
    static const char *const roles[] = {"actor", "replay", "learner", "evaluator"};
    char notes[500], store[500];
    uint64_t step, later;
    struct live live;
    struct tap tap;

    (void)state;
    live_init(&live, "clock", false);
    snprintf(notes, sizeof(notes), "%s.notes", live.dir);
    tap_start(notes);
    clock_start(&live);
    train(&live);
    live_await(&live, "learner", 0, "updates", 250, LIVE_START_MS);
    for (size_t i = 0; i < TD_LEN(jumps); i++) {
        pid_t pid;

        *shift = jumps[i];
        live_sleep(300);
        goes_on(&live);
        pid = live_part(&live, roles[i], 0, 0);
        kill(pid, SIGKILL); /* and the next one begins in that year */
        live_part(&live, roles[i], 0, pid);
        goes_on(&live);
    }
    assert_true(live_metric(&live, "learner", 0, "actors_live") == 2);
    *shift = -TEN_YEARS; /* the last checkpoint is older than all others, by the clock */
    live_sleep(1200);
    stop(&live);
    live_check(&live, year_logged(&live, TEN_YEARS) && year_logged(&live, -TEN_YEARS), "the clock did not jump");
    step = live_checkpoint(&live);

    train(&live); /* goes on from it, in the year 10 before */
    goes_on(&live);
    *shift = TEN_YEARS;
    goes_on(&live);
    stop(&live);
    later = live_checkpoint(&live);
    live_check(&live, later > step + 30, "from step %llu to %llu", (unsigned long long)step, (unsigned long long)later);
    clock_stop();
    snprintf(store, sizeof(store), "%s/replay", live.dir);
    tap_load(&tap, notes);
    tap_audit(&tap, store, 0);
    tap_release(&tap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(jumps_of_ten_years_change_nothing, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
