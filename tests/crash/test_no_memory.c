/*
 * The k-th allocation finds no memory, for every k until a program is ready or has done its work; and few
 * descriptors, little address space: it ends with one sentence and a code, or goes on without. No signal,
 * no hang.
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/fs.h"
#include "tests/support/live.h"
#include "tests/support/test.h"

#define WORDS_MAX 20
#define HANG_MS   30000

struct job {
    const char *program;
    const char *words[WORDS_MAX]; /* %s stands for the scratch folder */
    const char *ready;            /* it is up when it says so; NULL: it ends by itself */
};

static const struct job jobs[] = {
    {"tdmpc2-replay", {"learner=ipc://%s/nobody", "replay_dir=%s/run/replay"}, "serving"},
    {"tdmpc2-actor", {"learner=ipc://%s/nobody", "task=toy"}, "starting"},
    {"tdmpc2-learner", {"task=toy", "work_dir=%s/learner", "buffer_size=5000", "enc_dim=16", "mlp_dim=16",
                        "latent_dim=16", "num_q=2", "batch_size=16", "actors=0"}, "an evaluator joined"},
    {"tdmpc2", {"replay", "verify", "%s/run/replay"}, NULL},
    {"tdmpc2", {"replay", "export", "%s/run/replay", "%s/export"}, NULL},
    {"tdmpc2", {"checkpoint", "show", "%s/run"}, NULL},
    {"tdmpc2", {"eval", "checkpoint=%s/run", "eval_episodes=1"}, NULL},
    {"tdmpc2", {"curve", "%s/run"}, NULL},
    {"tdmpc2", {"keys", "%s/keys"}, NULL},
    {"tdmpc2", {"stats", "%s/run"}, NULL},
    {"tdmpc2", {"stop", "%s/run"}, NULL},
    {"tdmpc2", {"env", "list"}, NULL},
};

static char out[512], report[512];
static __rlimit_resource_t limit_of; /* of what is started, when limit_value is not 0 */
static rlim_t limit_value;

/* --- one run of a program --------------------------------------------------------- */

struct result {
    int code; /* as live_wait's */
    bool ready;
    char text[4096];
};

static void read_text(char *text, size_t size)
{
    char *bytes;

    text[0] = '\0';
    if (fs_read_file(out, 1 << 24, &bytes, NULL, NULL) != TD_OK)
        return;
    snprintf(text, size, "%s", bytes);
    free(bytes);
}

/* What it leaves behind is not for the next one to find. */
static void clear(void)
{
    static const char *const names[] = {"export", "keys", "learner", "out"};
    char path[600];

    for (size_t i = 0; i < TD_LEN(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", test_folder(), names[i]);
        assert_int_equal(fs_remove_tree(path, NULL), TD_OK);
    }
}

/* A program with its words in `words` [NULL]; with a limit of its own, which can't be raised again. */
static pid_t start(const char *program, const char *const *words)
{
    const char *argv[WORDS_MAX + 2] = {program};
    struct rlimit tight = {limit_value, limit_value};
    char path[FS_PATH_MAX];
    pid_t pid;

    for (int i = 0; words[i] != NULL; i++)
        argv[i + 1] = words[i];
    live_program(program, path);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = open(out, O_WRONLY | O_CREAT | O_APPEND, 0644), none = open("/dev/null", O_RDONLY);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(none, 0);
        dup2(fd, 1);
        dup2(fd, 2);
        close(fd);
        close(none);
        if (limit_value == 0 || setrlimit(limit_of, &tight) == 0)
            execv(path, (char *const *)(uintptr_t)argv);
        _exit(126);
    }
    return pid;
}

/* The exit code, 128 + the signal, or LIVE_TIMEOUT. */
static int wait_for(pid_t pid, int ms)
{
    uint64_t end = clock_ms() + (uint64_t)ms;
    int status;

    while (waitpid(pid, &status, WNOHANG) != pid) {
        if (clock_ms() >= end)
            return LIVE_TIMEOUT;
        live_sleep(1);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static struct result run(const struct job *job)
{
    static char words[WORDS_MAX][1200];
    const char *argv[WORDS_MAX + 1] = {NULL};
    uint64_t end = clock_ms() + HANG_MS;
    struct result result = {.code = LIVE_TIMEOUT};
    pid_t pid;

    clear();
    for (int i = 0; i < WORDS_MAX && job->words[i] != NULL; i++) {
        const char *place = strstr(job->words[i], "%s");

        snprintf(words[i], sizeof(words[i]), "%.*s%s%s", place == NULL ? (int)strlen(job->words[i]) : (int)(place - job->words[i]),
                 job->words[i], place == NULL ? "" : test_folder(), place == NULL ? "" : place + 2);
        argv[i] = words[i];
    }
    pid = start(job->program, argv);
    while (result.code == LIVE_TIMEOUT && !result.ready && clock_ms() < end) {
        result.code = wait_for(pid, 5);
        read_text(result.text, sizeof(result.text));
        result.ready = job->ready != NULL && strstr(result.text, job->ready) != NULL;
    }
    if (result.code != LIVE_TIMEOUT)
        return result;
    kill(pid, SIGKILL);
    wait_for(pid, 5000);
    if (!result.ready)
        fail_msg("%s %s hangs: %s", job->program, argv[0], result.text);
    return result;
}

/* Ends well, or with a sentence that has one of these words in it. */
static void expect_sentence(const struct job *job, const struct result *result, const char *what, const char *const *words)
{
    bool said = false;

    if (result->code == LIVE_TIMEOUT || result->code == 0)
        return;
    if (result->code != TD_EXIT_GAVE_UP && result->code != TD_EXIT_BAD_INPUT)
        fail_msg("%s %s, %s: ends with %d: %s", job->program, job->words[0], what, result->code, result->text);
    for (; *words != NULL && !said; words++)
        said = strcasestr(result->text, *words) != NULL;
    if (!said)
        fail_msg("%s %s, %s: ends with %d and no sentence: %s", job->program, job->words[0], what, result->code,
                 result->text);
}

/* --- no memory --------------------------------------------------------------------- */

static void plan(const char *program, uint64_t k, bool forever)
{
    const char *build = getenv("TD_BUILD");
    char path[PATH_MAX], full[PATH_MAX], number[32];

    snprintf(path, sizeof(path), "%s/tests/support/bin_nomem.so", build == NULL ? "build/release" : build);
    if (realpath(path, full) == NULL)
        fail_msg("%s is missing: run 'make tests'", path);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)k);
    unlink(report);
    live_env("TD_NOMEM_PROGRAM", program);
    live_env("TD_NOMEM_AT", number);
    live_env("TD_NOMEM_FOREVER", forever ? "1" : NULL);
    live_env("TD_NOMEM_REPORT", report);
    live_env("LD_PRELOAD", full);
}

static void plan_nothing(void)
{
    live_env("TD_NOMEM_PROGRAM", NULL);
    live_env("LD_PRELOAD", NULL);
}

/* A run that ended: its store, its checkpoints, its curves. */
static void make_run(void)
{
    static bool made;
    struct live live;

    live_init(&live, "run", false);
    snprintf(out, sizeof(out), "%s/out", test_folder());
    snprintf(report, sizeof(report), "%s/report", test_folder());
    if (made)
        return;
    live_train(&live, "task=toy", "steps=400", "seed_steps=200", "buffer_size=5000", NULL);
    live_expect(&live, 0, 60000);
    made = true;
}

static uint64_t calls(void)
{
    uint64_t counts[2] = {0};
    char *bytes;

    if (fs_read_file(report, sizeof(counts), &bytes, NULL, NULL) != TD_OK)
        return 0; /* it has none at all */
    memcpy(counts, bytes, sizeof(counts));
    free(bytes);
    return counts[0];
}

static void try_one(const struct job *job, uint64_t k, bool forever)
{
    static const char *const words[] = {"memory", "nothing runs", NULL};
    struct result result;
    char what[64];

    snprintf(what, sizeof(what), "allocation %llu%s", (unsigned long long)k, forever ? " and after" : "");
    plan(job->program, k, forever);
    result = run(job);
    plan_nothing();
    expect_sentence(job, &result, what, words);
}

/* Every allocation in the long mode; else some of them, by the seed. */
static uint64_t sweep(const struct job *job)
{
    uint64_t total, cases = 0, some = 5;

    plan(job->program, 0, false);
    run(job);
    plan_nothing();
    total = calls();
    for (uint64_t k = 1; k <= total; k++) {
        if (!test_long() && total > some && rng_below(test_rng(), total) >= some)
            continue;
        try_one(job, k, rng_below(test_rng(), 4) == 0);
        cases++;
    }
    return cases;
}

static void an_allocation_that_fails_is_a_sentence(void **state)
{
    uint64_t cases = 0;

    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its allocator stands in front */
#endif
#ifdef __SANITIZE_THREAD__
    skip();
#endif
    make_run();
    for (size_t i = 0; i < TD_LEN(jobs); i++) {
        cases += sweep(&jobs[i]);
    }
    print_message("%llu cases\n", (unsigned long long)cases);
}

/* --- limits ------------------------------------------------------------------------ */

/* The loader's own words are a sentence, too. */
static void every_daemon(const char *what)
{
    static const char *const words[] = {"ulimit", "memory", "address space", "too many open files", NULL};

    for (size_t i = 0; i < TD_LEN(jobs); i++) {
        struct result result;

        if (jobs[i].ready == NULL)
            continue;
        result = run(&jobs[i]);
        if (result.code == 127 && strstr(result.text, "error while loading shared libraries") != NULL)
            continue;
        expect_sentence(&jobs[i], &result, what, words);
    }
}

static void few_descriptors(void **state)
{
    static const struct job train = {"tdmpc2", {"train", "work_dir=%s/learner", "task=toy", "steps=400", "seed_steps=200",
                                                "buffer_size=5000", "actors=6", "enc_dim=16", "mlp_dim=16",
                                                "latent_dim=16", "num_q=2", "batch_size=16", "eval_episodes=1"}, NULL};
    static const rlim_t few[] = {63, 32, 12};
    struct result result;

    (void)state;
    make_run();
    limit_of = RLIMIT_NOFILE;
    limit_value = 64;
    result = run(&train);
    if (result.code != 0)
        fail_msg("64 descriptors: a run ends with %d: %s", result.code, result.text);
    for (size_t i = 0; i < TD_LEN(few); i++) {
        char what[64];

        limit_value = few[i];
        snprintf(what, sizeof(what), "%llu descriptors", (unsigned long long)few[i]);
        every_daemon(what);
    }
    limit_value = 0;
}

static void little_address_space(void **state)
{
    static const rlim_t megabytes[] = {800, 400, 250, 150, 90};

    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they take terabytes of it */
#endif
    make_run();
    limit_of = RLIMIT_AS;
    for (size_t i = 0; i < TD_LEN(megabytes); i++) {
        char what[64];

        limit_value = megabytes[i] << 20;
        snprintf(what, sizeof(what), "%llu MB of address space", (unsigned long long)megabytes[i]);
        every_daemon(what);
    }
    limit_value = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(an_allocation_that_fails_is_a_sentence, live_cleanup),
        cmocka_unit_test_teardown(few_descriptors, live_cleanup),
        cmocka_unit_test_teardown(little_address_space, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
