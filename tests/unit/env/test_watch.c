/* Calls of the user's code: which is overdue, and what is said when one takes its process along. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/env/watch.h"
#include "common/util/clock.h"
#include "tests/support/test.h"

static void the_call_that_takes_too_long_is_named(void **state)
{
    struct watch_call a = {0}, b = {0};
    char text[300] = "";

    (void)state;
    watch_add(&a, "./a.so");
    watch_add(&b, "./b.so");
    assert_false(watch_overdue(0, text, sizeof(text))); /* nobody is in one */
    watch_enter(&b, "step");
    clock_sleep_ms(30);
    assert_false(watch_overdue(100000, text, sizeof(text)));
    assert_true(watch_overdue(10, text, sizeof(text)));
    assert_non_null(strstr(text, "step of ./b.so has taken 0.0"));
    watch_leave(&b);
    assert_false(watch_overdue(0, text, sizeof(text)));
    watch_enter(&a, "reset");
    clock_sleep_ms(5);
    watch_remove(&a);
    assert_false(watch_overdue(0, text, sizeof(text)));
    watch_leave(&a);
    watch_remove(&b);
    watch_remove(&b); /* it is not there: no matter */
}

/* A child that does this within a call, or outside of one; what it says. */
static int dies(void (*how)(void), bool within, char *said, size_t size)
{
    int pipes[2], status = 0;
    ssize_t got;
    pid_t pid;

    assert_int_equal(pipe(pipes), 0);
    if ((pid = fork()) == 0) {
        struct watch_call call = {0};

        dup2(pipes[1], STDERR_FILENO);
        for (int signum = 1; signum < 32; signum++)
            signal(signum, SIG_DFL); /* cmocka's and the sanitizers' */
        watch_deaths();
        watch_add(&call, "./x.so");
        if (within)
            watch_enter(&call, "step");
        how();
        _exit(77);
    }
    close(pipes[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    got = read(pipes[0], said, size - 1);
    said[got > 0 ? got : 0] = '\0';
    close(pipes[0]);
    return status;
}

static void crash(void)
{
    raise(SIGSEGV);
}

static void leave(void)
{
    exit(0);
}

static void a_death_within_a_call_is_told(void **state)
{
    char said[600];
    int status;

    (void)state;
    status = dies(abort, true, said, sizeof(said));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(said, "level=error msg=\"the environment took its process along\" why=\"./x.so: killed by signal 6 in step\"\n"));
    status = dies(crash, true, said, sizeof(said));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_non_null(strstr(said, "./x.so: killed by signal 11 in step"));
    status = dies(leave, true, said, sizeof(said));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == TD_EXIT_GAVE_UP);
    assert_non_null(strstr(said, "it called exit"));
}

static void a_death_elsewhere_is_as_it_was(void **state)
{
    char said[600];
    int status;

    (void)state;
    status = dies(crash, false, said, sizeof(said));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_null(strstr(said, "x.so"));
    status = dies(leave, false, said, sizeof(said));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_null(strstr(said, "x.so"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_call_that_takes_too_long_is_named),
        cmocka_unit_test(a_death_within_a_call_is_told),
        cmocka_unit_test(a_death_elsewhere_is_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
