/* The spawner, and the same functions without one: each case both ways, in a child that may have one. */
#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/spawner.h"

extern char **environ;

#define MUST(condition)                                                                             \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            dprintf(2, "line %d: %s is not so (errno %d)\n", __LINE__, #condition, errno);          \
            _exit(1);                                                                               \
        }                                                                                           \
    } while (0)

/* Its status, once it has ended. */
static int await(pid_t pid)
{
    int status = -1;

    for (int i = 0; i < 5000; i++) {
        if (spawner_ended(pid, &status))
            return status;
        usleep(1000);
    }
    MUST(!"it does not end");
    return -1;
}

static pid_t shell(const char *script, const int *fds, int fd_count)
{
    char *argv[] = {(char *)(uintptr_t)"sh", (char *)(uintptr_t)"-c", (char *)(uintptr_t)script, NULL};
    struct spawn spawn = {.program = "sh", .argv = argv, .env = environ, .fd_count = fd_count};
    pid_t pid = 0;

    for (int i = 0; i < fd_count; i++)
        spawn.fds[i] = fds[i];
    MUST(spawner_spawn(&pid, &spawn) == 0 && pid > 0);
    return pid;
}

static void words_and_descriptors_arrive(void)
{
    int ends[2], fds[4];
    char text[64] = "";
    pid_t pid;

    MUST(pipe2(ends, O_CLOEXEC) == 0);
    for (int i = 0; i < 4; i++)
        fds[i] = i == 0 || i == 2 ? -1 : ends[1];
    setenv("SPAWNED", "a b", 1);
    /* nothing but what was given is open; stdin is empty */
    pid = shell("cat; printf '%s' \"$SPAWNED\"; printf 3 >&3; printf 4 2>/dev/null >&4; exit 7", fds, 4);
    close(ends[1]);
    MUST(WEXITSTATUS(await(pid)) == 7);
    MUST(read(ends[0], text, sizeof(text) - 1) > 0);
    MUST(strcmp(text, "a b3") == 0);
    MUST(read(ends[0], text, 1) == 0); /* nobody else holds the other end */
}

static void ends_are_told(void)
{
    const int fds[3] = {-1, -1, -1};
    pid_t pid = shell("sleep 60", fds, 3), parent;
    int status, ends[2];
    char text[64] = "";

    MUST(!spawner_ended(pid, &status));
    kill(pid, SIGKILL);
    status = await(pid);
    MUST(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    MUST(spawner_ended(pid, &status) && status == 0); /* no child any more */

    /* what it leaves in its session goes with it */
    MUST(pipe2(ends, O_CLOEXEC) == 0);
    pid = shell("sleep 60 & echo $PPID", (const int[3]){-1, ends[1], -1}, 3);
    close(ends[1]);
    MUST(await(pid) == 0);
    MUST(read(ends[0], text, sizeof(text) - 1) > 0);
    parent = (pid_t)strtol(text, NULL, 10);
    MUST(parent == spawner_parent());
    MUST(read(ends[0], text, 1) == 0);
}

static void what_is_not_there_is_an_errno(void)
{
    char *argv[] = {(char *)(uintptr_t)"nothing", NULL};
    struct spawn spawn = {.program = "/no/such/program", .argv = argv, .env = environ};
    pid_t pid = 1;

    MUST(spawner_spawn(&pid, &spawn) == ENOENT);
}

static void all_of_it(void)
{
    words_and_descriptors_arrive();
    ends_are_told();
    what_is_not_there_is_an_errno();
    for (int i = 0; i < 30; i++)
        MUST(await(shell("exit 3", (const int[3]){-1, -1, -1}, 3)) == 3 << 8);
}

static void in_a_child(void (*what)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void with_spawner(void)
{
    char name[64] = "test_spawner with some words", *argv[] = {name, NULL};
    struct error err = {0};

    MUST(spawner_start(1, argv, &err) == TD_OK && spawner_running());
    MUST(spawner_parent() != getpid());
    all_of_it();
}

/* Its death ends the spawner; a spawner that was killed is an error, no more. */
static void killed_spawner(void)
{
    char name[64] = "test_spawner", *argv[] = {name, NULL}, *words[] = {(char *)(uintptr_t)"true", NULL};
    struct spawn spawn = {.program = "true", .argv = words, .env = environ};
    struct error err = {0};
    pid_t pid;
    int status;

    MUST(spawner_start(1, argv, &err) == TD_OK);
    kill(spawner_parent(), SIGKILL);
    MUST(!spawner_lost());
    MUST(spawner_spawn(&pid, &spawn) == EOWNERDEAD && spawner_lost());
    MUST(strstr(spawner_explain(EOWNERDEAD), "was killed") != NULL && strcmp(spawner_explain(ENOENT), strerror(ENOENT)) == 0);
    MUST(spawner_ended(12345, &status));
}

static void dying_parent(void)
{
    char name[64] = "test_spawner", *argv[] = {name, NULL};
    struct error err = {0};
    pid_t pid;

    MUST(spawner_start(1, argv, &err) == TD_OK);
    pid = spawner_parent();
    MUST(write(9, &pid, sizeof(pid)) == (ssize_t)sizeof(pid));
    raise(SIGKILL);
}

/* A line of pids: this one follows the test's child, has a spawner, and a child of that which asked to follow. */
static void stopped_family(void)
{
    char name[64] = "test_spawner", *argv[] = {name, NULL};
    struct error err = {0};
    pid_t pids[3] = {getpid()};

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    MUST(spawner_start(1, argv, &err) == TD_OK);
    pids[1] = spawner_parent();
    pids[2] = shell("exec sleep 60", (const int[3]){-1, -1, -1}, 3);
    MUST(write(9, pids, sizeof(pids)) == (ssize_t)sizeof(pids));
    for (;;)
        pause();
}

static char state_of(pid_t pid)
{
    char path[64], text[300] = "";
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if ((fd = open(path, O_RDONLY)) < 0)
        return 0;
    if (read(fd, text, sizeof(text) - 1) <= 0)
        text[0] = 0;
    close(fd);
    return strrchr(text, ')') != NULL ? strrchr(text, ')')[2] : 0;
}

static void ends_soon(pid_t pid, int *status)
{
    for (int i = 0; i < 5000; i++) {
        if (waitpid(pid, status, WNOHANG) == pid)
            return;
        usleep(1000);
    }
    fail_msg("process %d is still there, state %c", (int)pid, state_of(pid));
}

/* Stopped, all three, when the one above is killed: none stays, and the last is not left stopped. */
static void who_is_stopped_notices_too(void **state)
{
    int ends[2], status;
    pid_t above, pids[3];

    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* the orphans are ours */
    assert_int_equal(pipe(ends), 0);
    above = fork();
    if (above == 0) {
        if (fork() == 0) {
            dup2(ends[1], 9);
            stopped_family();
        }
        for (;;)
            pause();
    }
    assert_int_equal(read(ends[0], pids, sizeof(pids)), sizeof(pids));
    kill(pids[2], SIGSTOP);
    kill(pids[0], SIGSTOP);
    while (state_of(pids[0]) != 'T' || state_of(pids[2]) != 'T')
        usleep(1000);
    kill(above, SIGKILL);
    assert_int_equal(waitpid(above, &status, 0), above);
    ends_soon(pids[0], &status);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    ends_soon(pids[1], &status);
    for (int i = 0; i < 3000 && state_of(pids[2]) == 'T'; i++)
        usleep(1000);
    assert_int_not_equal(state_of(pids[2]), 'T'); /* `sleep` does not follow its parent, but goes on */
    kill(pids[2], SIGKILL);
    assert_int_equal(waitpid(pids[2], &status, 0), pids[2]);
    close(ends[0]);
    close(ends[1]);
}

static void it_works_with_and_without(void **state)
{
    (void)state;
    in_a_child(all_of_it);
    in_a_child(with_spawner);
    in_a_child(killed_spawner);
}

static void it_goes_with_its_parent(void **state)
{
    int ends[2], status;
    pid_t child, spawned = 0;
    char rest;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        dup2(ends[1], 9);
        close(ends[1]);
        dying_parent();
        _exit(1);
    }
    close(ends[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(read(ends[0], &spawned, sizeof(spawned)), sizeof(spawned));
    assert_int_equal(read(ends[0], &rest, 1), 0); /* the spawner held the other end as long as it lived */
    close(ends[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_works_with_and_without),
        cmocka_unit_test(it_goes_with_its_parent),
        cmocka_unit_test(who_is_stopped_notices_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
