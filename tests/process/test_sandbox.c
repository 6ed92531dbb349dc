/*
 * What the daemons have given up (sandbox=), tried from every one of their threads, and what happens where
 * the kernel offers nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/sandbox.h"
#include "tests/support/live.h"
#include "tests/support/probe.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define THREADS_MAX 128
#define ANSWER_MS   5000

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OURS PROBE_TRACE /* the leak sanitizer's, see sandbox.c */
#else
#define OURS 0
#endif

static void skip_without_kernel(void)
{
    if (sandbox_landlock() != 0 && sandbox_seccomp())
        return;
    printf("  skipped: this kernel offers no Landlock, or no seccomp\n");
    skip();
}

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[FS_PATH_MAX];
    struct error err = {0};

    assert_ok(fs_join(path, folder, name, &err), err);
    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
}

/* --- every thread -------------------------------------------------------------- */

/* bin_probe.so lies where bin_tap.so does. */
static void preload_probe(const char *folder)
{
    char path[FS_PATH_MAX], *at;

    assert_non_null(tap_library());
    snprintf(path, sizeof(path), "%s", tap_library());
    at = strstr(path, "bin_tap");
    assert_non_null(at);
    strcpy(at, "bin_probe.so");
    live_env("LD_PRELOAD", path);
    live_env("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0");
    live_env("TD_PROBE", folder);
}

static int list_threads(pid_t pid, pid_t threads[THREADS_MAX])
{
    char path[64];
    struct dirent *entry;
    int count = 0;
    DIR *folder;

    snprintf(path, sizeof(path), "/proc/%ld/task", (long)pid);
    folder = opendir(path);
    while (folder != NULL && (entry = readdir(folder)) != NULL && count < THREADS_MAX)
        if (entry->d_name[0] != '.')
            threads[count++] = (pid_t)strtol(entry->d_name, NULL, 10);
    if (folder != NULL)
        closedir(folder);
    return count;
}

/* What that thread has reported since byte *at; false: nothing. */
static bool reported(const char *path, pid_t thread, struct probe *out)
{
    FILE *in = fopen(path, "rb");
    bool found = false;

    while (in != NULL && !found && fread(out, sizeof(*out), 1, in) == 1)
        found = out->thread == thread;
    if (in != NULL)
        fclose(in);
    return found;
}

static void try_from_every_thread(const struct live *live, const char *folder, const char *role, uint32_t may)
{
    pid_t pid = live_part(live, role, 0, 0), threads[THREADS_MAX];
    int count = list_threads(pid, threads);
    char path[FS_PATH_MAX];

    live_check(live, count > 1, "%s has %d threads", role, count);
    snprintf(path, sizeof(path), "%s/%ld.probe", folder, (long)pid);
    for (int i = 0; i < count; i++) {
        uint64_t end = clock_ms() + ANSWER_MS;
        struct probe probe = {0};

        if (syscall(SYS_tgkill, pid, threads[i], SIGUSR2) != 0)
            continue; /* it has ended */
        while (!reported(path, threads[i], &probe)) {
            live_check(live, clock_ms() < end, "thread %d of %d of the %s does not answer", i, count, role);
            live_sleep(5);
        }
        live_check(live, (probe.possible & ~(may | OURS)) == 0, "thread %d of %d of the %s can still do %#x", i, count, role,
                   probe.possible & ~may);
    }
    printf("  %s: %d threads\n", role, count);
}

static void no_thread_can_do_more_than_its_role(void **state)
{
    char folder[FS_PATH_MAX];
    struct live live;
    struct error err = {0};

    (void)state;
    skip_without_kernel();
    live_init(&live, "sandbox", false);
    snprintf(folder, sizeof(folder), "%s-outside", live.dir);
    assert_ok(fs_mkdirs(folder, 0700, &err), err);
    write_text(folder, "secret", "as a key is");
    preload_probe(folder);
    live_train(&live, "task=toy", "steps=100000000", "seed_steps=200", "eval_freq=1000", "sandbox=require", "actors=1",
               NULL);
    live_await(&live, "learner", 0, "updates", 220, LIVE_START_MS);
    try_from_every_thread(&live, folder, "learner", 0);
    try_from_every_thread(&live, folder, "replay", 0);
    try_from_every_thread(&live, folder, "evaluator", PROBE_INTERNET | PROBE_CODE);
    try_from_every_thread(&live, folder, "actor", PROBE_INTERNET | PROBE_CODE);
    live_rises(&live, "learner", 0, "updates", 30, 20000); /* and none minds having been asked */
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 30000);
    live_no_orphans(&live, 2000);
}

static int clean_up(void **state)
{
    live_env("LD_PRELOAD", NULL);
    live_env("ASAN_OPTIONS", NULL);
    live_env("TD_PROBE", NULL);
    live_env("TDMPC2_RUNTIME_DIR", NULL);
    return live_cleanup(state);
}

/* --- without a kernel that helps ------------------------------------------------- */

/* As on a kernel without Landlock and without filters: both calls answer ENOSYS. */
static void take_away(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 444, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = TD_LEN(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        _exit(97);
}

/* Runs in a child of the test, which exits with the number of the line that failed, or 0. */
static int old_kernel(const char *name, const char *sandbox, bool runs, const char *says)
{
    char word[64];
    struct live live;

    take_away();
    live_init(&live, name, false);
    snprintf(word, sizeof(word), "sandbox=%s", sandbox);
    live_train(&live, "task=toy", "steps=100000000", "seed_steps=200", "evaluator=off", "actors=1", word, NULL);
    if (runs) {
        /* its log tells: ZeroMQ's context of the test is not this child's to use */
        if (!live_said(&live, "learner.log", "msg=\"train\"", LIVE_START_MS) || live_count(&live, "learner.log", says) != 1)
            return __LINE__;
        kill(live.pid, SIGTERM);
        live_expect(&live, 0, 30000);
        return 0;
    }
    live_expect(&live, 2, 30000);
    return live_said(&live, "learner.log", says, 1000) ? 0 : __LINE__;
}

static void expect_in_child(const char *name, const char *sandbox, bool runs, const char *says)
{
    pid_t child;
    int status;

    fflush(stdout);
    child = fork();
    if (child == 0)
        _exit(old_kernel(name, sandbox, runs, says) & 0xff);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void a_kernel_without_it_is_told_of_in_a_line(void **state)
{
    (void)state;
    if (!sandbox_seccomp())
        skip();
    expect_in_child("old-auto", "auto", true, "offers no");
    expect_in_child("old-require", "require", false, "sandbox=require, but this kernel offers no");
}

/* --- where nothing ran before ---------------------------------------------------- */

static void a_first_run_makes_the_folder_of_its_sockets(void **state)
{
    char folder[] = "/tmp/tdmpc2-new-XXXXXX", base[sizeof(folder) + 8];
    struct error err = {0};
    struct live live;

    (void)state;
    skip_without_kernel();
    assert_non_null(mkdtemp(folder));
    snprintf(base, sizeof(base), "%s/sockets", folder);
    live_init(&live, "first", false);
    live_env("TDMPC2_RUNTIME_DIR", base);
    live_train(&live, "task=toy", "steps=100000000", "seed_steps=200", "evaluator=off", "actors=1", "sandbox=require",
               NULL);
    live_await(&live, "learner", 0, "updates", 220, LIVE_START_MS);
    assert_int_equal(access(base, F_OK), 0);
    kill(live.pid, SIGTERM);
    live_expect(&live, 0, 30000);
    live_no_orphans(&live, 2000);
    assert_ok(fs_remove_tree(folder, &err), err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(no_thread_can_do_more_than_its_role, clean_up),
        cmocka_unit_test_teardown(a_first_run_makes_the_folder_of_its_sockets, clean_up),
        cmocka_unit_test_teardown(a_kernel_without_it_is_told_of_in_a_line, clean_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
