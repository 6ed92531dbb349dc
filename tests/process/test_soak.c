/*
 * Two minutes at full rate with a fault every few seconds: resident memory, descriptors and the store stay as
 * they are. Learner, shard and one actor live through it all (stopped now and then); the other actor and the
 * evaluator are killed.
 *
 * TD_TIME: seconds, 120 unless given (3,600 in `make soak`). Up to 300 s all acknowledged rows are audited.
 */
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/crew.h"
#include "tests/support/test.h"

#define BUFFER     2000
#define GO_ON_MS   30000
#define SAMPLES    100000
#define AUDIT_MOST 300 /* seconds whose notes are read at the end */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = true }; /* what is freed stays in quarantine: memory says nothing */
#else
enum { SANITIZED = false };
#endif

enum { SEEN_LEARNER, SEEN_SHARD, SEEN_ACTOR, SEEN };
static const char *const seen_names[] = {"learner", "shard", "actor-1"};

struct sample {
    double memory[SEEN]; /* MB resident, not counting what files in memory hold */
    double files[SEEN];  /* descriptors */
    double store;        /* MB on disk */
};

static struct sample samples[SAMPLES];
static int count;

static double memory_of(pid_t pid)
{
    char path[64], line[256];
    double kilobytes = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
    file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0)
            kilobytes = strtod(line + 8, NULL);
    fclose(file);
    assert_true(kilobytes > 0);
    return kilobytes / 1024;
}

static double files_of(pid_t pid)
{
    char path[64];
    int entries = 0;
    DIR *folder;

    snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
    folder = opendir(path);
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        entries++;
    closedir(folder);
    return entries - 2;
}

static double store_of(const struct crew *crew)
{
    char path[FS_PATH_MAX];
    struct stat info;

    snprintf(path, sizeof(path), "%s/replay/data.mdb", crew->live.dir);
    if (stat(path, &info) != 0)
        fail_msg("%s is not there", path);
    return (double)info.st_blocks * 512 / (1 << 20);
}

static void take_sample(const struct crew *crew, const pid_t pids[SEEN])
{
    struct sample *sample = &samples[count < SAMPLES ? count++ : count - 1];

    for (int i = 0; i < SEEN; i++) {
        sample->memory[i] = memory_of(pids[i]);
        sample->files[i] = files_of(pids[i]);
    }
    sample->store = store_of(crew);
}

/* --- faults ------------------------------------------------------------------- */

static void fault(struct crew *crew)
{
    enum crew_part part = (enum crew_part)rng_below(test_rng(), CREW_PARTS);
    enum crew_part victim = rng_below(test_rng(), 3) == 0 ? CREW_EVALUATOR : CREW_ACTOR;

    switch (rng_below(test_rng(), 3)) {
    case 0: /* anybody stands still; longer than after which he counts as gone */
        if (crew_signal(crew, part, SIGSTOP)) {
            live_sleep((int)rng_below(test_rng(), 1800));
            crew_signal(crew, part, SIGCONT);
        }
        break;
    case 1:
        if (victim != CREW_EVALUATOR || crew->children < 4)
            crew_kill(crew, victim);
        break;
    default: /* an actor leaves in good order and another comes */
        crew_signal(crew, CREW_ACTOR, SIGTERM);
        live_check(&crew->live, live_wait(crew->actors[0], 15000) == 0, "the actor does not leave");
        crew->actors[0] = 0;
    }
    crew_tend(crew);
}

/* --- flat? -------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;

    return one < other ? -1 : one > other;
}

/* The median of one number of the samples from..to. */
static double median(size_t offset, int from, int to)
{
    double values[SAMPLES / 4];
    int n = 0;

    for (int i = from; i < to && n < SAMPLES / 4; i++)
        values[n++] = *(const double *)((const char *)&samples[i] + offset);
    assert_true(n > 0);
    qsort(values, (size_t)n, sizeof(values[0]), by_size);
    return values[n / 2];
}

/* From the second quarter to the last: no more than `more` and a twentieth. */
static void check_flat(const struct crew *crew, const char *name, const char *what, size_t offset, double more)
{
    double before = median(offset, count / 4, count / 2), after = median(offset, count - count / 4, count);

    print_message("  %s of %s: %.1f, then %.1f\n", what, name, before, after);
    live_check(&crew->live, after <= before * 1.05 + more, "%s of %s grows from %.1f to %.1f", what, name, before, after);
}

static void nothing_grows(void **state)
{
    const char *text = getenv("TD_TIME");
    int seconds = text != NULL ? atoi(text) : SANITIZED ? 40 : 120, faults = 0;
    uint64_t start, next_fault, next_sample;
    double steps, rate;
    pid_t pids[SEEN];
    struct crew crew;

    (void)state;
    crew_start(&crew, "soak", BUFFER, 0, seconds <= AUDIT_MOST);
    pids[SEEN_LEARNER] = crew.learner;
    pids[SEEN_SHARD] = live_part(&crew.live, "replay", 0, 0);
    pids[SEEN_ACTOR] = crew.actors[1];
    steps = live_await(&crew.live, "learner", 0, "agent_steps", BUFFER * 2, LIVE_START_MS);
    start = next_fault = next_sample = clock_ms();
    while (clock_ms() < start + (uint64_t)seconds * 1000) {
        if (clock_ms() >= next_fault) {
            fault(&crew);
            faults++;
            if (faults % 4 == 0)
                crew_goes_on(&crew, GO_ON_MS);
            next_fault = clock_ms() + 1000 + rng_below(test_rng(), 3000);
        }
        if (clock_ms() >= next_sample) {
            take_sample(&crew, pids);
            next_sample = clock_ms() + (seconds > 600 ? 1000 : 250);
        }
        live_sleep(20);
    }
    rate = (live_await(&crew.live, "learner", 0, "agent_steps", steps, GO_ON_MS) - steps) / seconds;
    crew_goes_on(&crew, GO_ON_MS);
    print_message("%d s, %d faults, %.0f steps/s, %d samples\n", seconds, faults, rate, count);
    for (int i = 0; i < SEEN; i++) {
        if (!SANITIZED)
            check_flat(&crew, seen_names[i], "memory (MB)", offsetof(struct sample, memory) + (size_t)i * sizeof(double), 1.5);
        check_flat(&crew, seen_names[i], "descriptors", offsetof(struct sample, files) + (size_t)i * sizeof(double), 2);
    }
    check_flat(&crew, "the store", "size (MB)", offsetof(struct sample, store), 0.25);
    crew_stop(&crew);
    if (seconds <= AUDIT_MOST) {
        struct tap_result result = crew_audit(&crew, BUFFER - 60, false);

        print_message("%llu rows acknowledged, %llu kept\n", (unsigned long long)result.acked,
                      (unsigned long long)result.kept);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(nothing_grows, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
