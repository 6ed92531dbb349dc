/* `tdmpc2 top` on a pseudo-terminal: what is drawn, a new size, q, Ctrl-C, a learner that goes and comes back. */
#include "tests/support/test.h"

#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "common/net/rundir.h"
#include "common/net/stats.h"
#include "common/util/clock.h"

#define WAIT_MS 15000

/* --- a learner that answers, as long as it is told to --------------------------- */

struct answerer {
    pthread_t thread;
    atomic_int ready, stop;
    double ratio; /* a number to tell its lives apart */
    const char *run_dir;
};

static void *answer(void *context)
{
    struct answerer *answerer = context;
    struct metrics_owner owner = {"learner", METRIC_LEARNER, 0, 1, 2};
    struct rundir_part part = {.role = "learner", .pid = getpid()};
    struct stats_options options = {.address = part.stats};
    metrics_t *metrics;
    stats_t *stats;
    struct error err;
    loop_t *loop;

    snprintf(part.stats, sizeof(part.stats), "ipc://%s/stats", test_folder());
    assert_ok(loop_create(&loop, &err), err);
    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    assert_ok(stats_open(&stats, loop, metrics, &options, &err), err);
    assert_ok(rundir_record(answerer->run_dir, &part, &err), err);
    metrics_set(metrics, METRIC_ratio, answerer->ratio);
    metrics_text(metrics, METRIC_phase, "running");
    metrics_text(metrics, METRIC_waiting, "waiting for agent\033[2Jsteps");
    atomic_store(&answerer->ready, 1);
    while (!atomic_load(&answerer->stop))
        loop_run_for(loop, 10);
    stats_close(&stats);
    metrics_destroy(&metrics);
    loop_destroy(&loop);
    return NULL;
}

static void begin(struct answerer *answerer, const char *run_dir, double ratio)
{
    *answerer = (struct answerer){.run_dir = run_dir, .ratio = ratio};
    assert_int_equal(pthread_create(&answerer->thread, NULL, answer, answerer), 0);
    while (!atomic_load(&answerer->ready))
        usleep(1000);
}

static void end(struct answerer *answerer)
{
    atomic_store(&answerer->stop, 1);
    pthread_join(answerer->thread, NULL);
}

/* --- a terminal ------------------------------------------------------------------- */

struct terminal {
    int fd;
    pid_t pid;
    char text[1 << 20]; /* all that was written since it was last forgotten */
    size_t used;
    struct termios before;
    bool ended;
    int status;
};

static void set_size(struct terminal *terminal, int columns, int rows)
{
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};

    assert_int_equal(ioctl(terminal->fd, TIOCSWINSZ, &size), 0);
}

static void start(struct terminal *terminal, const char *run_dir, const char *term, const char *locale)
{
    const char *build = getenv("TD_BUILD");
    struct winsize size = {.ws_col = 110, .ws_row = 24};
    char program[512];

    memset(terminal, 0, sizeof(*terminal));
    snprintf(program, sizeof(program), "%s/bin/tdmpc2", build != NULL ? build : "build/release");
    terminal->pid = forkpty(&terminal->fd, NULL, NULL, &size);
    assert_true(terminal->pid >= 0);
    if (terminal->pid == 0) {
        setenv("TERM", term, 1);
        setenv("LC_ALL", locale, 1);
        unsetenv("NO_COLOR");
        execl(program, program, "top", run_dir, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(tcgetattr(terminal->fd, &terminal->before), 0);
}

/* What it has written by now, for at most so long. */
static void hear(struct terminal *terminal, int ms)
{
    struct pollfd ready = {.fd = terminal->fd, .events = POLLIN};
    ssize_t got;

    if (poll(&ready, 1, ms) > 0) {
        got = read(terminal->fd, terminal->text + terminal->used, sizeof(terminal->text) - 1 - terminal->used);
        if (got > 0)
            terminal->used += (size_t)got;
        else
            usleep(10000); /* the other side is closed */
    }
    terminal->text[terminal->used] = '\0';
    if (!terminal->ended && waitpid(terminal->pid, &terminal->status, WNOHANG) == terminal->pid)
        terminal->ended = true;
}

static void await(struct terminal *terminal, const char *what)
{
    uint64_t until = clock_ms() + WAIT_MS;

    while (strstr(terminal->text, what) == NULL) {
        if (clock_ms() > until)
            fail_msg("'%s' was not drawn; this was: %s", what, terminal->text);
        hear(terminal, 50);
    }
}

static void forget(struct terminal *terminal)
{
    terminal->used = 0;
    terminal->text[0] = '\0';
}

/* It ends with this code within a second or two, and leaves the terminal as it was. */
static void await_end(struct terminal *terminal, int code)
{
    uint64_t start_ms = clock_ms();
    struct termios after;

    while (!terminal->ended && clock_ms() < start_ms + WAIT_MS)
        hear(terminal, 20);
    if (!terminal->ended) {
        kill(terminal->pid, SIGKILL);
        fail_msg("it did not end; this was drawn: %s", terminal->text);
    }
    assert_true(WIFEXITED(terminal->status));
    assert_int_equal(WEXITSTATUS(terminal->status), code);
    assert_int_equal(tcgetattr(terminal->fd, &after), 0);
    assert_int_equal(after.c_lflag & (ICANON | ECHO | ISIG), terminal->before.c_lflag & (ICANON | ECHO | ISIG));
    close(terminal->fd);
}

/* --- the tests ----------------------------------------------------------------------- */

static void a_terminal_is_drawn_resized_and_given_back(void **state)
{
    struct terminal *terminal = calloc(1, sizeof(*terminal));
    struct answerer learner;
    char run_dir[512];

    (void)state;
    snprintf(run_dir, sizeof(run_dir), "%s/run-a", test_folder());
    begin(&learner, run_dir, 0.75);
    start(terminal, run_dir, "xterm", "C.UTF-8");
    await(terminal, "\033[?1049h"); /* a screen of its own */
    await(terminal, "0.75");
    await(terminal, "MEMORY");
    await(terminal, "agent?[2Jsteps"); /* what the learner says does not wipe the screen */
    forget(terminal);
    set_size(terminal, 60, 18);
    await(terminal, "WAITS FOR");
    await(terminal, "learner");
    assert_null(strstr(terminal->text, "MEMORY"));
    forget(terminal);
    set_size(terminal, 110, 24);
    await(terminal, "MEMORY");
    forget(terminal);
    end(&learner);
    await(terminal, "has not answered for");
    forget(terminal);
    begin(&learner, run_dir, 888); /* no character of 0.75: what differs alone is drawn */
    await(terminal, "888");
    forget(terminal);
    assert_int_equal(write(terminal->fd, "q", 1), 1);
    await_end(terminal, TD_EXIT_OK);
    assert_non_null(strstr(terminal->text, "\033[?1049l"));
    end(&learner);
    free(terminal);
}

static void interrupts_give_the_terminal_back(void **state)
{
    struct terminal *terminal = calloc(1, sizeof(*terminal));
    struct answerer learner;
    char run_dir[512];

    (void)state;
    snprintf(run_dir, sizeof(run_dir), "%s/run-b", test_folder());
    begin(&learner, run_dir, 0.75);
    for (int i = 0; i < 2; i++) {
        start(terminal, run_dir, i == 0 ? "vt100" : "screen", "C");
        await(terminal, "learner");
        await(terminal, "q quits");
        for (size_t at = 0; at < terminal->used; at++)
            assert_true((unsigned char)terminal->text[at] < 128); /* no UTF-8 where the locale has none */
        if (i == 0)
            assert_int_equal(write(terminal->fd, "\003", 1), 1); /* Ctrl-C */
        else
            assert_int_equal(kill(terminal->pid, SIGTERM), 0);
        await_end(terminal, TD_EXIT_OK);
    }
    end(&learner);
    free(terminal);
}

static void a_terminal_without_a_cursor_gets_lines(void **state)
{
    struct terminal *terminal = calloc(1, sizeof(*terminal));
    struct answerer learner;
    char run_dir[512];

    (void)state;
    snprintf(run_dir, sizeof(run_dir), "%s/run-c", test_folder());
    begin(&learner, run_dir, 0.75);
    for (int i = 0; i < 2; i++) {
        start(terminal, run_dir, i == 0 ? "dumb" : "no-such-terminal", "C.UTF-8");
        await(terminal, "lines of text instead");
        await(terminal, "0.75 updates a step");
        assert_null(strchr(terminal->text, '\033'));
        assert_int_equal(write(terminal->fd, "\003", 1), 1);
        await_end(terminal, TD_EXIT_OK);
    }
    end(&learner);
    free(terminal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_terminal_is_drawn_resized_and_given_back),
        cmocka_unit_test(interrupts_give_the_terminal_back),
        cmocka_unit_test(a_terminal_without_a_cursor_gets_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
