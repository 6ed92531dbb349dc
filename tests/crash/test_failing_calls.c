/*
 * The k-th system call of a kind fails, once or from then on, for every k: nothing is acknowledged that
 * is not durable, no sync is asked for again after one has failed, the message names the place and the
 * cause, and what was acknowledged is whole afterwards.
 *
 * The program runs itself again with bin_fail.so preloaded; each case is a child.
 */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/store/store.h"
#include "common/util/fs.h"
#include "tests/support/fail.h"
#include "tests/support/promise.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define SLOTS   2u
#define COMMITS 8
#define RUN     77u

static const struct row_schema schema = {OBS_STATE, 6, 2};
static fail_plan_fn *plan;
static fail_report_fn *report;

/* What a child tells, in memory shared with it. */
struct told {
    struct promise promise;
    uint64_t begun, written; /* checkpoints */
    int code;                /* of the first failure, TD_OK: none */
    uint64_t waits;          /* commits that found the disk full */
    struct error err;
};
static struct told *told;

struct failure {
    const char *call;
    int errnum;
    bool forever;
};

static const char *describe(const struct failure *failure, uint64_t k)
{
    static char text[128];

    snprintf(text, sizeof(text), "%s %" PRIu64 "%s: %s", failure->call, k, failure->forever ? " and after" : "",
             failure->errnum == FAIL_SHORT ? "short" : strerror(failure->errnum));
    return text;
}

#define LEAKS 77

/* The sanitizer's, where there is one. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static int leak_checked(int code)
{
    return __lsan_do_recoverable_leak_check != NULL && __lsan_do_recoverable_leak_check() != 0 ? LEAKS : code;
}

/* Run a life in a child with this plan; false when it came to its end before call k. */
static bool live(int (*life)(const char *dir), const char *dir, const struct failure *failure, uint64_t k)
{
    int status;
    pid_t child;

    assert_int_equal(fs_remove_tree(dir, NULL), TD_OK);
    memset(told, 0, sizeof(*told));
    plan(dir, failure->call, k, failure->errnum, failure->forever);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        _exit(leak_checked(life(dir)));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    uint64_t hits = report()->hits, syncs_after = report()->syncs_after;

    plan(dir, "none", 0, 0, false);
    if (!WIFEXITED(status))
        fail_msg("%s: ended by signal %d", describe(failure, k), WTERMSIG(status));
    if (syncs_after != 0)
        fail_msg("%s: the data was synced again", describe(failure, k));
    if (WEXITSTATUS(status) == LEAKS)
        fail_msg("%s: memory was lost", describe(failure, k));
    if (WEXITSTATUS(status) != 0 && hits == 0)
        fail_msg("%s: failed without a reason: %s", describe(failure, k), told->err.text);
    return hits > 0;
}

/* The message of a failure says where and why. */
static void expect_message(const struct failure *failure, uint64_t k, const char *dir)
{
    if (told->code == TD_OK)
        return;
    if (strstr(told->err.text, dir) == NULL || (failure->errnum != FAIL_SHORT && failure->errnum != ENOSPC &&
                                               strstr(told->err.text, strerror(failure->errnum)) == NULL))
        fail_msg("%s: says only '%s'", describe(failure, k), told->err.text);
}

/* --- the store ----------------------------------------------------------------- */

static void fill_row(void *row, const struct row_schema *of, uint32_t slot, uint64_t epoch, uint64_t sequence,
                     uint32_t flags)
{
    struct test_row_id id = {slot, 0, epoch, sequence};

    test_row_fill(row, of, &id, flags);
}

/* Chunks of 30 rows, every third one ends its episode. */
static int append(store_t *store, uint32_t slot, bool ends, struct error *err)
{
    const struct store_stream *stream = store_stream(store, slot, 0);
    size_t stride = row_stride(&schema);
    char rows[30 * 256];

    for (uint32_t i = 0; i < 30; i++)
        fill_row(rows + i * stride, &schema, slot, stream->epoch, stream->next + i,
                 (i == 0 && stream->open_rows == 0 ? ROW_FIRST : 0u) | (i == 29 && ends ? ROW_TRUNCATED : 0u));
    return store_append(store, slot, 0, rows, 30, err);
}

/* One transaction; what is in it might be there from here on. */
static int transaction(store_t *store, int number, struct error *err)
{
    struct promise *promise = &told->promise;
    uint64_t first = store_counts(store)->first;
    int rc;

    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        const struct store_stream *stream = store_stream(store, slot, 0);

        if (stream == NULL || stream->holder == 0) {
            if ((rc = store_grant(store, slot, 0, 1, 1000, err)) != TD_OK)
                return rc;
            continue;
        }
        promise->sent[slot][1] = stream->next + 30 > promise->sent[slot][1] ? stream->next + 30 : promise->sent[slot][1];
        if ((rc = append(store, slot, number % 3 == 2, err)) != TD_OK)
            return rc;
    }
    if (number == COMMITS - 2) {
        promise->evicting = first + 1;
        if ((rc = store_evict(store, first + 1, 10, err)) != TD_OK)
            return rc;
    }
    return store_commit(store, err);
}

/* As a shard does: a full disk is waited for, anything else is the end. */
static int store_life(const char *dir)
{
    struct store_config config = {.dir = dir, .schema = schema, .run_id = RUN, .rows = 1000, .map_bytes = 1 << 20,
                                  .force = true};
    store_t *store;
    int patience = 4;

    told->promise = (struct promise){.schema = schema, .row = fill_row, .run = RUN};
    if ((told->code = store_open(&store, &config, &told->err)) != TD_OK)
        return 1;
    for (int i = 0; i < COMMITS && told->code == TD_OK; i++) {
        struct error err = {0};
        int rc = transaction(store, i, &err);

        if (rc == TD_EFULL && patience-- > 0) {
            told->waits++;
            told->err = err;
            i--;
            continue;
        }
        if (rc != TD_OK) {
            told->code = rc;
            told->err = err;
        }
        for (uint32_t slot = 0; slot < SLOTS && rc == TD_OK; slot++)
            told->promise.acked[slot][1] = store_stream(store, slot, 0)->next;
        if (i != COMMITS / 2 || rc != TD_OK)
            continue;
        store_close(&store);
        if ((told->code = store_open(&store, &config, &told->err)) != TD_OK)
            return 1;
    }
    store_close(&store);
    return told->code != TD_OK;
}

static uint64_t failing_store(const struct failure *failure, uint64_t step)
{
    char dir[512];
    uint64_t cases = 0;

    snprintf(dir, sizeof(dir), "%s/store", test_folder());
    for (uint64_t k = 1; live(store_life, dir, failure, k); k += step, cases++) {
        expect_message(failure, k, dir);
        if (failure->errnum == EINTR && strcmp(failure->call, "fdatasync") != 0 && strcmp(failure->call, "open") != 0 &&
            told->code != TD_OK)
            fail_msg("%s: %s", describe(failure, k), told->err.text);
        promise_audit(dir, &told->promise, describe(failure, k));
    }
    return cases;
}

static void the_store_keeps_its_promises(void **state)
{
    static const struct failure failures[] = {
        {"fdatasync", EIO, false},    {"fdatasync", ENOSPC, false}, {"fdatasync", EIO, true},
        {"pwrite", EIO, false},       {"pwrite", ENOSPC, false},    {"pwrite", EINTR, false},
        {"pwrite", FAIL_SHORT, false}, {"pwrite", EIO, true},       {"pwrite", ENOSPC, true},
        {"pwrite", FAIL_SHORT, true}, {"writev", EIO, false},       {"writev", ENOSPC, false},
        {"writev", EINTR, false},     {"writev", FAIL_SHORT, false}, {"writev", ENOSPC, true},
        {"fsync", EIO, false},        {"fsync", EIO, true},         {"fallocate", ENOSPC, false},
        {"fallocate", ENOSPC, true},  {"fallocate", EIO, false},    {"fallocate", EOPNOTSUPP, true},
        {"ftruncate", EIO, false},    {"open", EIO, false},         {"open", EMFILE, false},
        {"open", ENOSPC, true},       {"mmap", ENOMEM, false},
        {"unlink", EIO, false},       {"pread", EIO, false},        {"rename", EIO, false},
    };
    uint64_t cases = 0;

    (void)state;
    for (size_t i = 0; i < TD_LEN(failures); i++) {
        uint64_t some = failing_store(&failures[i], failures[i].forever && !test_long() ? 3 : 1);

        if (some == 0)
            fail_msg("no %s was ever called", failures[i].call);
        cases += some;
    }
    print_message("%" PRIu64 " cases\n", cases);
}

/* Where the disk stays full nothing is lost and nothing dies; when there is room again all goes on. */
static void a_full_disk_is_waited_for(void **state)
{
    struct failure failure = {"fallocate", ENOSPC, false};
    char dir[512];

    (void)state;
    snprintf(dir, sizeof(dir), "%s/store", test_folder());
    assert_true(live(store_life, dir, &failure, 1));
    assert_int_equal(told->code, TD_OK);
    assert_int_equal(told->waits, 0); /* less was asked for */
    failure.forever = true;
    assert_true(live(store_life, dir, &failure, 1));
    assert_int_equal(told->code, TD_EFULL);
    assert_int_equal(told->waits, 4);
    assert_non_null(strstr(told->err.text, dir));
    assert_non_null(strstr(told->err.text, "MB more are needed"));
    promise_audit(dir, &told->promise, "full from the start");
}

/* --- checkpoints --------------------------------------------------------------- */

#define WEIGHTS 3000

static int write_one(const char *folder, uint64_t step, struct error *err)
{
    static float weights[WEIGHTS];
    struct safetensors_tensor tensor = {.name = "a", .type = SAFETENSORS_F32, .dims = 1, .shape = {WEIGHTS}, .data = weights};
    struct checkpoint_group group = {"parameters.safetensors", &tensor, 1};
    struct checkpoint_blob blob = {"environment.bin", &step, sizeof(step)};
    struct checkpoint_parts parts = {.groups = &group, .group_count = 1, .blobs = &blob, .blob_count = 1};
    struct manifest manifest;
    char name[32];
    int rc;

    for (int i = 0; i < WEIGHTS; i++)
        weights[i] = (float)(step * 10000) + (float)i;
    snprintf(name, sizeof(name), "step-%d", step == 3 ? 2 : (int)step); /* the third takes the second's name */
    if (manifest_init(&manifest) != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory");
    manifest.kind = CHECKPOINT_ASYNC;
    manifest.step = step;
    rc = checkpoint_write(folder, name, &manifest, &parts, err);
    manifest_release(&manifest);
    if (rc == TD_OK) {
        told->written = step;
        rc = checkpoint_prune(folder, 2, CHECKPOINT_ASYNC, err);
    }
    return rc;
}

/* Training goes on after a checkpoint that failed: so does this. */
static int checkpoint_life(const char *dir)
{
    for (uint64_t step = 1; step <= 4; step++) {
        struct error err = {0};
        int rc;

        told->begun = step;
        if ((rc = write_one(dir, step, &err)) != TD_OK && told->code == TD_OK) {
            told->code = rc;
            told->err = err;
        }
    }
    return told->code != TD_OK;
}

static void expect_checkpoint(const char *dir, const char *where)
{
    static float weights[WEIGHTS];
    checkpoint_t *checkpoint;
    safetensors_t *tensors;
    struct error err = {0};
    uint64_t step;
    int rc = checkpoint_open_newest(&checkpoint, dir, CHECKPOINT_ASYNC, NULL, NULL, &err);

    if (rc != TD_OK && told->written != 0)
        fail_msg("%s: checkpoint %" PRIu64 " was written, none loads: %s", where, told->written, err.text);
    if (rc != TD_OK)
        return;
    step = checkpoint_manifest(checkpoint)->step;
    if (step < told->written || step > told->begun)
        fail_msg("%s: checkpoint %" PRIu64 " loads, %" PRIu64 " was written", where, step, told->written);
    assert_ok(checkpoint_open_tensors(checkpoint, "parameters.safetensors", &tensors, &err), err);
    assert_ok(safetensors_get(tensors, "a", SAFETENSORS_F32, 1, (uint64_t[]){WEIGHTS}, weights, &err), err);
    for (int i = 0; i < WEIGHTS; i++)
        assert_true(weights[i] == (float)(step * 10000) + (float)i);
    safetensors_close(&tensors);
    checkpoint_close(&checkpoint);
}

static void a_checkpoint_is_whole_or_absent(void **state)
{
    static const struct failure failures[] = {
        {"write", EIO, false},  {"write", ENOSPC, false}, {"write", EINTR, false},  {"write", FAIL_SHORT, false},
        {"write", ENOSPC, true}, {"write", EIO, true},    {"fsync", EIO, false},    {"fsync", ENOSPC, false},
        {"fsync", EIO, true},   {"open", EIO, false},     {"open", ENOSPC, false},  {"open", EMFILE, true},
        {"rename", EIO, false}, {"rename", EIO, true},    {"rename", ENOSPC, false}, {"unlink", EIO, false},
        {"unlink", EIO, true},  {"mkdir", ENOSPC, false}, {"mkdir", ENOSPC, true},  {"read", EIO, false},
    };
    char dir[512];
    uint64_t cases = 0;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/checkpoints", test_folder());
    for (size_t i = 0; i < TD_LEN(failures); i++) {
        for (uint64_t k = 1; live(checkpoint_life, dir, &failures[i], k); k++, cases++) {
            const char *where = describe(&failures[i], k);

            expect_message(&failures[i], k, dir);
            if ((failures[i].errnum == EINTR || failures[i].errnum == FAIL_SHORT) && told->code != TD_OK)
                fail_msg("%s: %s", where, told->err.text);
            if (!failures[i].forever && told->written < 3)
                fail_msg("%s: more than one checkpoint failed", where);
            expect_checkpoint(dir, where);
        }
    }
    print_message("%" PRIu64 " cases\n", cases);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_store_keeps_its_promises),
        cmocka_unit_test(a_full_disk_is_waited_for),
        cmocka_unit_test(a_checkpoint_is_whole_or_absent),
    };

    (void)argc;
    *(void **)&plan = dlsym(RTLD_DEFAULT, "fail_plan");
    *(void **)&report = dlsym(RTLD_DEFAULT, "fail_report");
    if (plan == NULL || report == NULL)
        fail_again(argv);
    unsetenv("LD_PRELOAD");
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0); /* a disk of its own would wait for its syncs */
    told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return told == MAP_FAILED ? 2 : cmocka_run_group_tests(tests, NULL, NULL);
}
