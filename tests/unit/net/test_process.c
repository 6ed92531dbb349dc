#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/net/process.h"
#include "common/util/clock.h"

#define DEADLINE_MS 20000

struct child {
    process_t *process;
    int exits, code, signum;
};

static void on_exit_of(void *context, int code, int signum)
{
    struct child *child = context;

    child->exits++;
    child->code = code;
    child->signum = signum;
    process_close(&child->process);
}

static loop_t *make_loop(void)
{
    struct error err;
    loop_t *loop;

    assert_ok(loop_create(&loop, &err), err);
    return loop;
}

/* Start this very program in one of the modes at the end of the file. */
static void start(struct child *child, loop_t *loop, const char *mode, const char *argument,
                  const char *log)
{
    const char *args[] = {mode, argument, NULL};
    struct process_options options = {
        .program = "/proc/self/exe",
        .args = args,
        .log_path = log,
        .on_exit = on_exit_of,
        .context = child,
    };
    struct error err;

    memset(child, 0, sizeof(*child));
    assert_ok(process_spawn(&child->process, loop, &options, &err), err);
    assert_true(process_pid(child->process) > 0);
    assert_true(process_running(child->process));
}

static void wait_exit(loop_t *loop, struct child *child)
{
    uint64_t begin = clock_ms();

    while (child->exits == 0) {
        assert_true(clock_ms() - begin < DEADLINE_MS);
        loop_run_for(loop, 50);
    }
    assert_int_equal(child->exits, 1);
}

static const char *file_in_folder(const char *name)
{
    static char path[512];

    snprintf(path, sizeof(path), "%s/%s", test_folder(), name);
    return path;
}

static void exit_codes_and_signals_are_told_apart(void **state)
{
    loop_t *loop = make_loop();
    struct child child;
    char text[64];

    (void)state;
    start(&child, loop, "exit", "3", NULL);
    wait_exit(loop, &child);
    assert_int_equal(child.code, 3);
    assert_int_equal(child.signum, 0);
    assert_string_equal(process_describe_exit(child.code, child.signum, text, sizeof(text)), "exit code 3");
    start(&child, loop, "sleep", "", NULL);
    assert_true(process_age_ms(child.process) < DEADLINE_MS);
    process_signal(child.process, SIGKILL);
    wait_exit(loop, &child);
    assert_int_equal(child.code, -1);
    assert_int_equal(child.signum, SIGKILL);
    assert_string_equal(process_describe_exit(child.code, child.signum, text, sizeof(text)),
                        "killed by signal 9 (Killed)");
    loop_destroy(&loop);
}

static void output_goes_to_the_log(void **state)
{
    const char *log = file_in_folder("child.log");
    loop_t *loop = make_loop();
    struct child child;
    char tail[256];

    (void)state;
    for (int i = 0; i < 2; i++) { /* appended, not overwritten */
        start(&child, loop, "print", i == 0 ? "first" : "second", log);
        wait_exit(loop, &child);
    }
    assert_int_equal(process_log_tail(log, 10, tail, sizeof(tail)), strlen("out first\nerr first\nout second\nerr second\n"));
    assert_string_equal(tail, "out first\nerr first\nout second\nerr second\n");
    loop_destroy(&loop);
}

static void a_child_has_its_own_session_and_no_input(void **state)
{
    const char *log = file_in_folder("session.log");
    loop_t *loop = make_loop();
    struct child child;
    char tail[256];

    (void)state;
    start(&child, loop, "session", "", log);
    wait_exit(loop, &child);
    process_log_tail(log, 1, tail, sizeof(tail));
    assert_string_equal(tail, "leader=1 input=0 child=1 variable=0\n");
    assert_false(process_is_child());
    loop_destroy(&loop);
}

static void missing_programs_and_logs_have_a_sentence(void **state)
{
    struct process_options options = {.program = "/no/such/program"};
    loop_t *loop = make_loop();
    process_t *process;
    struct error err;

    (void)state;
    assert_int_equal(process_spawn(&process, loop, &options, &err), TD_ENOTFOUND);
    assert_non_null(strstr(err.text, "no such program"));
    assert_null(process);
    options.program = "tdmpc2-nonsense"; /* looked for beside this test */
    assert_int_equal(process_spawn(&process, loop, &options, &err), TD_ENOTFOUND);
    options.program = "/proc/self/exe";
    options.log_path = "/no/such/folder/log";
    assert_int_equal(process_spawn(&process, loop, &options, &err), TD_EIO);
    options.log_path = NULL;
    options.program = "/proc/version"; /* not a program */
    assert_int_not_equal(process_spawn(&process, loop, &options, &err), TD_OK);
    loop_destroy(&loop);
}

/* A handle closed early neither calls back nor leaks. */
static void a_handle_may_be_let_go(void **state)
{
    loop_t *loop = make_loop();
    struct child child;
    pid_t pid;

    (void)state;
    start(&child, loop, "sleep", "", NULL);
    pid = process_pid(child.process);
    process_close(&child.process);
    loop_run_for(loop, 10);
    kill(pid, SIGKILL);
    loop_run_for(loop, 50);
    assert_int_equal(child.exits, 0);
    loop_destroy(&loop);
}

static pid_t read_pid(const char *path)
{
    char text[64];

    for (uint64_t begin = clock_ms(); clock_ms() - begin < DEADLINE_MS;) {
        if (process_log_tail(path, 1, text, sizeof(text)) > 0 && strchr(text, '\n') != NULL)
            return (pid_t)atoi(text);
        clock_sleep_ms(10);
    }
    fail_msg("no pid in %s", path);
    return 0;
}

/* Does it run (a zombie does not)? */
static bool alive(pid_t pid)
{
    char path[64], text[512], *mark;
    int fd;
    ssize_t length;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY);
    if (fd < 0)
        return false;
    length = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (length <= 0)
        return false;
    text[length] = '\0';
    mark = strrchr(text, ')');
    return mark != NULL && mark[2] != 'Z' && mark[2] != 'X';
}

/* A parent that is killed takes its child along: SIGTERM, which the child turns into exit code 0. */
static void children_die_with_their_parent(void **state)
{
    char path[512];
    loop_t *loop = make_loop();
    struct child child;
    pid_t grandchild;

    (void)state;
    snprintf(path, sizeof(path), "%s", file_in_folder("grandchild.pid"));
    start(&child, loop, "parent", path, NULL);
    grandchild = read_pid(path);
    assert_true(alive(grandchild));
    process_signal(child.process, SIGKILL);
    wait_exit(loop, &child);
    for (uint64_t begin = clock_ms(); alive(grandchild);) {
        assert_true(clock_ms() - begin < DEADLINE_MS);
        clock_sleep_ms(10);
    }
    loop_destroy(&loop);
}

static void a_dead_parent_is_noticed_at_the_start(void **state)
{
    (void)state;
    setenv("TDMPC2_PARENT_PID", "1999999999", 1);
    assert_int_equal(process_follow_parent(), TD_ENOTFOUND);
    assert_null(getenv("TDMPC2_PARENT_PID"));
    assert_int_equal(process_follow_parent(), TD_OK); /* by hand */
}

static void restarts_back_off_and_give_up(void **state)
{
    struct restart restart = {0};
    int64_t last = 0;

    (void)state;
    for (int i = 1; i < RESTART_LIMIT; i++) {
        int64_t wait = restart_after(&restart, RESTART_YOUNG_MS - 1);

        assert_true(wait > last);
        last = wait;
    }
    assert_int_equal(restart_after(&restart, RESTART_YOUNG_MS - 1), -1);
    restart = (struct restart){0};
    for (int i = 0; i < 50; i++) /* long lives never add up */
        assert_int_equal(restart_after(&restart, RESTART_YOUNG_MS), 250);
    for (int i = 0; i < RESTART_LIMIT - 2; i++)
        assert_true(restart_after(&restart, 10) > 0);
    assert_int_equal(restart_after(&restart, RESTART_YOUNG_MS + 1), 250);
    assert_int_equal(restart_after(&restart, 10), 500);
}

static void log_tails_are_whole_lines(void **state)
{
    const char *path = file_in_folder("tail.log");
    FILE *file = fopen(path, "w");
    char out[64];

    (void)state;
    for (int i = 0; i < 20000; i++)
        fprintf(file, "line %d\n", i);
    fclose(file);
    process_log_tail(path, 3, out, sizeof(out));
    assert_string_equal(out, "line 19997\nline 19998\nline 19999\n");
    process_log_tail(path, 100, out, sizeof(out)); /* as many as fit */
    assert_string_equal(out, "line 19995\nline 19996\nline 19997\nline 19998\nline 19999\n");
    process_log_tail(path, 1, out, 5); /* not even one does */
    assert_string_equal(out, "999\n");
    assert_int_equal(process_log_tail(file_in_folder("missing"), 3, out, sizeof(out)), 0);
    assert_string_equal(out, "");
    file = fopen(path, "w");
    fputs("no newline", file);
    fclose(file);
    assert_int_equal(process_log_tail(path, 3, out, sizeof(out)), 10);
    assert_string_equal(out, "no newline");
}

static void processes_have_names_and_sizes(void **state)
{
    uint64_t a = process_random_id(), b = process_random_id();

    (void)state;
    assert_true(a != 0 && b != 0 && a != b);
    assert_true(process_resident_bytes() > 100000);
}

/* --- what the children do ---------------------------------------------------- */

static volatile sig_atomic_t terminated;

static void on_term(int signum)
{
    (void)signum;
    terminated = 1;
}

static int sleep_until_term(const char *pid_path)
{
    signal(SIGTERM, on_term);
    if (process_follow_parent() != TD_OK)
        return 9;
    if (pid_path[0] != '\0') {
        FILE *file = fopen(pid_path, "w");

        fprintf(file, "%d\n", (int)getpid());
        fclose(file);
    }
    for (uint64_t begin = clock_ms(); !terminated && clock_ms() - begin < 60000;)
        usleep(10000);
    return 0;
}

static int be_parent(const char *pid_path)
{
    struct child child;
    loop_t *loop = make_loop();

    if (process_follow_parent() != TD_OK)
        return 9;
    start(&child, loop, "sleep", pid_path, NULL);
    for (uint64_t begin = clock_ms(); clock_ms() - begin < 60000;)
        loop_run_for(loop, 1000);
    return 0;
}

static int describe_session(void)
{
    char byte;
    int followed = process_follow_parent();

    printf("leader=%d input=%d child=%d variable=%d\n", getsid(0) == getpid(),
           (int)read(STDIN_FILENO, &byte, 1), followed == TD_OK && process_is_child(),
           getenv("TDMPC2_PARENT_PID") != NULL);
    return 0;
}

static int child_main(const char *mode, const char *argument)
{
    if (strcmp(mode, "exit") == 0)
        return atoi(argument);
    if (strcmp(mode, "sleep") == 0)
        return sleep_until_term(argument);
    if (strcmp(mode, "parent") == 0)
        return be_parent(argument);
    if (strcmp(mode, "session") == 0)
        return describe_session();
    printf("out %s\n", argument);
    fflush(stdout);
    fprintf(stderr, "err %s\n", argument);
    return 0;
}

static void too_few_descriptors_are_refused(void **state)
{
    struct rlimit low;
    struct error err = {0};
    pid_t child;
    int status;

    (void)state;
    assert_ok(process_check_limits(&err), err);
    for (rlim_t most = PROCESS_DESCRIPTORS - 1; most <= PROCESS_DESCRIPTORS; most++) {
        child = fork();
        assert_true(child >= 0);
        if (child == 0) { /* a hard limit can't be raised again */
            low = (struct rlimit){20, most};
            if (setrlimit(RLIMIT_NOFILE, &low) != 0)
                _exit(9);
            _exit(process_check_limits(&err) == TD_OK ? 0 : strstr(err.text, "ulimit -n") != NULL ? 2 : 3);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), most < PROCESS_DESCRIPTORS ? 2 : 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_and_signals_are_told_apart),
        cmocka_unit_test(output_goes_to_the_log),
        cmocka_unit_test(a_child_has_its_own_session_and_no_input),
        cmocka_unit_test(missing_programs_and_logs_have_a_sentence),
        cmocka_unit_test(a_handle_may_be_let_go),
        cmocka_unit_test(children_die_with_their_parent),
        cmocka_unit_test(a_dead_parent_is_noticed_at_the_start),
        cmocka_unit_test(restarts_back_off_and_give_up),
        cmocka_unit_test(log_tails_are_whole_lines),
        cmocka_unit_test(processes_have_names_and_sizes),
        cmocka_unit_test(too_few_descriptors_are_refused),
    };

    if (argc == 3)
        return child_main(argv[1], argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
