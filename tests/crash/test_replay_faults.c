/*
 * Faults of the disk under the real tdmpc2-replay: the k-th call of a kind fails, once or from then on.
 * It ends with a sentence that names the place and the cause, or waits; what it acknowledged is there when
 * it is started again; after a sync that failed it never asks for another.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "common/store/store.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "tests/support/fail.h"
#include "tests/support/live.h"
#include "tests/support/promise.h"
#include "tests/support/test.h"
#include "tools/straw.h"

#define WRITERS 2u
#define EPISODE 23u
#define CHUNK   7u
#define WINDOW  4u

static const struct row_schema schema = {OBS_STATE, 5, 2};

struct fault {
    const char *call;
    uint64_t k;
    int errnum;
    bool forever;
    bool ends; /* it must end; otherwise it must not */
};

static char dir[512], log_path[520], report_path[520], program[FS_PATH_MAX];

static void begin(const char *name)
{
    struct error err = {0};

    snprintf(dir, sizeof(dir), "%s/%s/replay", test_folder(), name);
    snprintf(log_path, sizeof(log_path), "%s.log", dir);
    snprintf(report_path, sizeof(report_path), "%s/report", test_folder());
    live_program("tdmpc2-replay", program);
    assert_ok(fs_remove_tree(dir, &err), err);
    assert_ok(fs_remove_tree(log_path, &err), err);
    assert_ok(fs_mkdirs(dir, 0755, &err), err);
}

static char *read_log(const char *path)
{
    struct error err = {0};
    char *text;

    assert_ok(fs_read_file(path, 1 << 24, &text, NULL, &err), err);
    return text;
}

static const char *describe(const struct fault *fault)
{
    static char text[160];

    snprintf(text, sizeof(text), "%s %" PRIu64 "%s: %s", fault->call, fault->k, fault->forever ? " and after" : "",
             fault->errnum == FAIL_SHORT ? "short" : strerror(fault->errnum));
    return text;
}

/* The last words name the directory and the cause. */
static void expect_sentence(const struct fault *fault, const char *path)
{
    char *text = read_log(path);
    const char *line = strstr(text, "level=error");

    if (line == NULL || strstr(line, dir) == NULL ||
        (fault->errnum != FAIL_SHORT && fault->errnum != ENOMEM && strstr(line, strerror(fault->errnum)) == NULL))
        fail_msg("%s: no sentence in:\n%s", describe(fault), text);
    free(text);
}

/* --- while it serves ------------------------------------------------------------ */

static void fill_row(void *row, const struct row_schema *of, uint32_t slot, uint64_t epoch, uint64_t sequence,
                     uint32_t flags)
{
    (void)flags;
    straw_row(row, of, slot, epoch, sequence, EPISODE);
}

static void expect_whole(straw_t **straw, const char *where)
{
    struct promise promise = {.schema = schema, .row = fill_row, .run = STRAW_RUN, .evicting = UINT64_MAX};

    for (uint32_t slot = 0; slot < WRITERS; slot++) {
        uint64_t epoch, acked;

        straw_writer(*straw, slot, &epoch, &acked);
        assert_true(epoch < PROMISE_EPOCHS && acked > 0);
        promise.acked[slot][epoch] = acked;
        promise.sent[slot][epoch] = acked + WINDOW * CHUNK;
    }
    straw_stop(straw);
    promise_audit(dir, &promise, where);
}

static void serve(const struct fault *fault)
{
    struct straw_config config = {.dir = dir, .program = program, .schema = schema, .writers = WRITERS,
                                  .chunk = CHUNK, .window = WINDOW, .episode = EPISODE, .horizon = 3, .batch = 8,
                                  .capacity = 400, .map_rows = 4000, .pace_us = 2000};
    struct fail_report report;
    struct error err = {0};
    straw_t *straw;
    uint64_t end = clock_ms() + 10000;

    begin("serving");
    fail_preload(dir, fault->call, fault->k, fault->errnum, fault->forever, report_path);
    if (straw_start(&straw, &config, &err) != TD_OK)
        fail_msg("%s: %s", describe(fault), err.text);
    fail_preload(NULL, NULL, 0, 0, false, NULL);
    straw_sample(straw, 1);
    straw_write(straw, true);
    do
        straw_run(straw, 50);
    while (clock_ms() < end && fail_read(report_path).hits == 0);
    straw_run(straw, 150);
    report = fail_read(report_path);
    if (report.hits == 0)
        fail_msg("%s: only %" PRIu64 " calls came", describe(fault), report.calls);
    if ((straw_counts(straw)->refused != 0) != fault->ends)
        fail_msg("%s: %s", describe(fault), fault->ends ? "it goes on" : read_log(log_path));
    if (fault->ends)
        expect_sentence(fault, log_path);
    if (report.syncs_after != 0)
        fail_msg("%s: synced %" PRIu64 " times after that", describe(fault), report.syncs_after);
    if (straw_kill(straw, &err) != TD_OK)
        fail_msg("%s: %s: %s", describe(fault), err.text, read_log(log_path));
    straw_run(straw, 60);
    straw_write(straw, false);
    straw_run(straw, 40);
    expect_whole(&straw, describe(fault));
}

static void it_ends_or_waits_and_loses_nothing(void **state)
{
    static const struct fault faults[] = {
        {"fdatasync", 7, EIO, false, true},    {"fdatasync", 25, EIO, true, true},
        {"fdatasync", 12, ENOSPC, false, true}, {"fdatasync", 9, EINTR, false, true},
        {"writev", 9, EIO, false, true},       {"writev", 20, ENOSPC, false, true},
        {"writev", 15, FAIL_SHORT, false, true}, {"writev", 11, EINTR, false, false},
        {"pwrite", 30, EIO, false, true},      {"pwrite", 31, EIO, true, true},
        {"pwrite", 33, FAIL_SHORT, false, true}, {"pwrite", 36, EINTR, false, false},
        {"fallocate", 1, ENOSPC, false, false}, {"fallocate", 1, EOPNOTSUPP, true, false},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(faults); i++)
        serve(&faults[i]);
}

/* --- while it starts ------------------------------------------------------------- */

/* Started by hand on the store it has; true when the call came. */
static bool start(const struct fault *fault)
{
    char learner[600], replay[600], out[600];
    const char *words[] = {learner, replay, NULL};
    uint64_t end = clock_ms() + 20000;
    int code = LIVE_TIMEOUT;
    bool serving = false;
    pid_t pid;

    snprintf(out, sizeof(out), "%s/out", test_folder());
    snprintf(learner, sizeof(learner), "learner=ipc://%s/nobody", test_folder());
    snprintf(replay, sizeof(replay), "replay_dir=%s", dir);
    assert_int_equal(fs_write_file(out, "", 0, NULL), TD_OK);
    fail_preload(dir, fault->call, fault->k, fault->errnum, fault->forever, report_path);
    pid = live_spawn("tdmpc2-replay", out, words, NULL);
    fail_preload(NULL, NULL, 0, 0, false, NULL);
    while (clock_ms() < end && code == LIVE_TIMEOUT && !serving) {
        char *text;

        code = live_wait(pid, 5);
        text = read_log(out);
        serving = strstr(text, "serving") != NULL;
        free(text);
    }
    if (code == LIVE_TIMEOUT) {
        kill(pid, SIGKILL);
        live_wait(pid, 5000);
        if (!serving)
            fail_msg("%s: it hangs at its start", describe(fault));
    } else if (code != TD_EXIT_GAVE_UP && code != TD_EXIT_BAD_INPUT) {
        fail_msg("%s: its start ends with %d: %s", describe(fault), code, read_log(out));
    } else {
        expect_sentence(fault, out);
    }
    return fail_read(report_path).hits > 0;
}

static void a_start_says_what_is_wrong(void **state)
{
    static const struct fault faults[] = {
        {"open", 0, EIO, false, true},      {"open", 0, EMFILE, true, true}, {"pread", 0, EIO, false, true},
        {"read", 0, EIO, false, true},      {"mmap", 0, ENOMEM, false, true}, {"ftruncate", 0, EIO, false, true},
        {"pwrite", 0, ENOSPC, true, false}, {"unlink", 0, EIO, false, true},
    };
    struct straw_config filled = {.dir = dir, .schema = schema, .episode = EPISODE};
    struct error err = {0};
    int cases = 0;

    (void)state;
    begin("starting");
    assert_ok(straw_fill(&filled, STRAW_RUN, 600, &err), err);
    for (size_t i = 0; i < TD_LEN(faults); i++) {
        struct fault fault = faults[i];

        for (fault.k = 1; start(&fault); fault.k++, cases++)
            ;
    }
    print_message("%d cases\n", cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_ends_or_waits_and_loses_nothing),
        cmocka_unit_test(a_start_says_what_is_wrong),
    };

    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
