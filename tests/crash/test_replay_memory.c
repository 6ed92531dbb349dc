/* Slices and rows by the hundred thousand leave no memory behind in a real shard process. */
#include <unistd.h>

#include "common/util/clock.h"
#include "tests/support/test.h"
#include "tools/straw.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 20
#else
#define SLOW 1
#endif

static const struct row_schema walker = {OBS_STATE, 24, 6};

static const char *program(void)
{
    static char path[512];
    const char *build = getenv("TD_BUILD");

    snprintf(path, sizeof(path), "%s/bin/tdmpc2-replay", build == NULL ? "build/release" : build);
    if (access(path, X_OK) != 0)
        fail_msg("%s is not there: run make first", path);
    return path;
}

/* What the kernel cannot drop: kB of the process's own memory, the mapped store apart. */
static long own_memory(pid_t pid)
{
    char path[64], line[256];
    long kb = -1;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "Anonymous: %ld", &kb) == 1)
            break;
    fclose(file);
    assert_true(kb > 0);
    return kb;
}

static void work(straw_t *straw, uint64_t rows, uint64_t slices)
{
    uint64_t end = clock_ms() + 100000; /* for a machine that does much else */
    uint64_t rows_end = straw_counts(straw)->acked + rows, slices_end = straw_counts(straw)->slices + slices;

    while (straw_counts(straw)->acked < rows_end || straw_counts(straw)->slices < slices_end) {
        assert_true(clock_ms() < end);
        straw_run(straw, 50);
    }
}

static void slices_and_rows_leave_nothing_behind(void **state)
{
    struct straw_config config = {.program = program(), .schema = walker, .writers = 4, .chunk = 64,
                                  .window = 4, .episode = 100, .horizon = 3, .batch = 256,
                                  .capacity = 20000, .map_rows = 40000};
    struct error err = {0};
    long before, after;
    char dir[512];
    straw_t *straw;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/replay", test_folder());
    config.dir = dir;
    assert_ok(straw_start(&straw, &config, &err), err);
    straw_write(straw, true);
    straw_sample(straw, 2);
    work(straw, 100000 / SLOW, 100000 / SLOW); /* the buffer is full, every queue has had its length */
    before = own_memory(straw_pid(straw));
    work(straw, (test_long() ? 5000000 : 200000) / SLOW, (test_long() ? 5000000 : 300000) / SLOW);
    after = own_memory(straw_pid(straw));
    printf("own memory %ld kB, then %ld kB\n", before, after);
    if (SLOW == 1) { /* the sanitizers keep freed memory; what they see is what counts there */
        assert_true(after < before + 4096); /* one transaction's pages more or less; leaking rows are 28 MB */
        assert_true(after < 64 * 1024);
    }
    straw_stop(&straw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_and_rows_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
