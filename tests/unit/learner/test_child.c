#include "tests/support/test.h"

#include <signal.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "learner/child.h"

#define DEADLINE_MS 30000

struct seen {
    int ends, code;
    char why[256];
};

static void on_end(void *context, child_t *child, int code, const char *why)
{
    struct seen *seen = context;

    assert_true(child_ended(child));
    seen->ends++;
    seen->code = code;
    snprintf(seen->why, sizeof(seen->why), "%s", why);
}

static const char *log_path(void)
{
    static char path[512];

    snprintf(path, sizeof(path), "%s/child.log", test_folder());
    return path;
}

static int log_lines(void)
{
    FILE *file = fopen(log_path(), "r");
    int lines = 0, c;

    if (file == NULL)
        return 0;
    while ((c = fgetc(file)) != EOF)
        lines += c == '\n';
    fclose(file);
    return lines;
}

static child_t *start(loop_t *loop, const char *mode, struct seen *seen, metrics_t *metrics)
{
    struct child_options options = {
        .name = "test",
        .program = "/proc/self/exe",
        .words = {mode, "child"},
        .log_path = log_path(),
        .metrics = metrics,
        .on_end = on_end,
        .context = seen,
    };
    struct error err;
    child_t *child;

    memset(seen, 0, sizeof(*seen));
    unlink(log_path());
    assert_ok(child_start(&child, loop, &options, &err), err);
    return child;
}

static loop_t *make_loop(void)
{
    struct error err;
    loop_t *loop;

    assert_ok(loop_create(&loop, &err), err);
    return loop;
}

static void wait_end(loop_t *loop, const struct seen *seen)
{
    uint64_t start_ms = clock_ms();

    while (seen->ends == 0) {
        assert_true(clock_ms() - start_ms < DEADLINE_MS);
        loop_run_for(loop, 50);
    }
    assert_int_equal(seen->ends, 1);
}

static void wait_lines(loop_t *loop, int lines)
{
    uint64_t start_ms = clock_ms();

    while (log_lines() < lines) {
        assert_true(clock_ms() - start_ms < DEADLINE_MS);
        loop_run_for(loop, 20);
    }
}

static void one_that_keeps_dying_is_given_up(void **state)
{
    struct metrics_owner owner = {"learner", METRIC_LEARNER, 0, 1, 2};
    loop_t *loop = make_loop();
    struct seen seen;
    metrics_t *metrics;
    child_t *child;

    (void)state;
    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    child = start(loop, "exit1", &seen, metrics);
    wait_end(loop, &seen);
    assert_int_equal(seen.code, TD_EXIT_GAVE_UP);
    assert_non_null(strstr(seen.why, "died 5 times"));
    assert_int_equal(log_lines(), RESTART_LIMIT);
    assert_int_equal(metrics_total(metrics, METRIC_restarts), RESTART_LIMIT - 1);
    child_close(&child);
    metrics_destroy(&metrics);
    loop_destroy(&loop);
}

static void one_that_was_told_may_end(void **state)
{
    loop_t *loop = make_loop();
    struct seen seen;
    child_t *child = start(loop, "exit0", &seen, NULL);

    (void)state;
    child_may_end(child);
    wait_end(loop, &seen);
    assert_int_equal(seen.code, TD_EXIT_OK);
    assert_int_equal(log_lines(), 1);
    child_close(&child);
    child = start(loop, "exit1", &seen, NULL); /* dying is no end */
    child_may_end(child);
    wait_lines(loop, 2);
    child_close(&child);
    loop_destroy(&loop);
}

static void bad_input_and_fencing_are_not_tried_again(void **state)
{
    loop_t *loop = make_loop();
    struct seen seen;
    child_t *child = start(loop, "exit2", &seen, NULL);

    (void)state;
    wait_end(loop, &seen);
    assert_int_equal(seen.code, TD_EXIT_BAD_INPUT);
    assert_int_equal(log_lines(), 1);
    child_close(&child);
    child = start(loop, "exit4", &seen, NULL);
    wait_end(loop, &seen);
    assert_int_equal(seen.code, TD_EXIT_FENCED);
    child_close(&child);
    assert_null(child);
    child_close(&child);
    loop_destroy(&loop);
}

/* Nobody but the learner may stop it: an exit code of 0 brings it back too. */
static void an_end_that_nobody_asked_for_is_mended(void **state)
{
    loop_t *loop = make_loop();
    struct seen seen;
    child_t *child = start(loop, "exit0", &seen, NULL);

    (void)state;
    wait_lines(loop, 3);
    assert_int_equal(seen.ends, 0);
    child_stop(child, 1000); /* between two lives, or in one */
    wait_end(loop, &seen);
    assert_int_equal(seen.code, TD_EXIT_OK);
    child_close(&child);
    loop_destroy(&loop);
}

static void stopping_is_polite_at_first(void **state)
{
    loop_t *loop = make_loop();
    struct seen seen;
    child_t *child = start(loop, "obey", &seen, NULL);
    uint64_t start_ms;

    (void)state;
    wait_lines(loop, 1);
    child_stop(child, 20000);
    child_stop(child, 0); /* asking again changes nothing */
    wait_end(loop, &seen);
    assert_int_equal(seen.code, TD_EXIT_OK);
    child_close(&child);

    child = start(loop, "ignore", &seen, NULL);
    wait_lines(loop, 1);
    start_ms = clock_ms();
    child_stop(child, 100);
    wait_end(loop, &seen);
    assert_true(clock_ms() - start_ms >= 99);
    assert_int_equal(seen.code, TD_EXIT_GAVE_UP);
    child_close(&child);
    loop_destroy(&loop);
}

static void a_missing_program_is_told_at_once(void **state)
{
    struct child_options options = {.name = "x", .program = "tdmpc2-no-such-part", .log_path = log_path(), .on_end = on_end};
    loop_t *loop = make_loop();
    struct error err;
    child_t *child;

    (void)state;
    assert_int_equal(child_start(&child, loop, &options, &err), TD_ENOTFOUND);
    assert_null(child);
    loop_destroy(&loop);
}

static volatile sig_atomic_t terminated;

static void on_term(int signum)
{
    (void)signum;
    terminated = 1;
}

static int be_child(const char *mode)
{
    if (process_follow_parent() != TD_OK)
        return 9;
    if (strcmp(mode, "obey") == 0)
        signal(SIGTERM, on_term);
    if (strcmp(mode, "ignore") == 0)
        signal(SIGTERM, SIG_IGN);
    printf("%s\n", mode);
    fflush(stdout);
    if (strncmp(mode, "exit", 4) == 0)
        return atoi(mode + 4);
    for (uint64_t start_ms = clock_ms(); !terminated && clock_ms() - start_ms < 60000;)
        usleep(10000);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_keeps_dying_is_given_up),
        cmocka_unit_test(one_that_was_told_may_end),
        cmocka_unit_test(bad_input_and_fencing_are_not_tried_again),
        cmocka_unit_test(an_end_that_nobody_asked_for_is_mended),
        cmocka_unit_test(stopping_is_polite_at_first),
        cmocka_unit_test(a_missing_program_is_told_at_once),
    };

    if (argc == 3)
        return be_child(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
