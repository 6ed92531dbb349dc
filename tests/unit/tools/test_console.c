#include "tests/support/test.h"

#include <math.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "tools/console.h"
#include "tools/follow.h"

static void numbers_read_as_in_the_reference(void **state)
{
    static const struct {
        double value;
        const char *count;
    } counts[] = {{0, "0"}, {999, "999"}, {1000, "1,000"}, {1234567, "1,234,567"}, {-5, "0"}, {NAN, "0"}};
    static const struct {
        double seconds;
        const char *time;
    } times[] = {{0, "0:00:00"},       {61.9, "0:01:01"},         {3600, "1:00:00"}, {86399, "23:59:59"},
                 {86400, "1 day, 0:00:00"}, {200000, "2 days, 7:33:20"}, {-1, "0:00:00"}};
    char out[64];

    (void)state;
    for (size_t i = 0; i < TD_LEN(counts); i++)
        assert_string_equal(console_format_count(out, sizeof(out), counts[i].value), counts[i].count);
    for (size_t i = 0; i < TD_LEN(times); i++)
        assert_string_equal(console_format_time(out, sizeof(out), times[i].seconds), times[i].time);
    assert_true(strlen(console_format_count(out, 4, 1e15)) < 4);
}

static void rows_are_padded_as_in_the_reference(void **state)
{
    struct console_row row = {.category = "train", .episode = 12, .step = 1500, .reward = 99.96, .success = NAN, .time_s = 61};
    char out[CONSOLE_LINE_MAX];

    (void)state;
    assert_string_equal(console_format_row(out, &row, false),
                        " train            E: 12                    I: 1,500                 R: 100.0                 T: 0:01:01");
    assert_string_equal(console_format_row(out, &row, true),
                        " \033[34mtrain\033[0m   \033[34mE:\033[0m 12           \033[34mI:\033[0m 1,500     "
                        "   \033[34mR:\033[0m 100.0        \033[34mT:\033[0m 0:01:01");
    row.category = "eval";
    row.episode = row.step = row.reward = row.time_s = NAN;
    assert_string_equal(console_format_row(out, &row, false), " eval");
}

static void stats_are_read_with_care(void **state)
{
    static const char json[] =
        "{\"role\":\"learner\",\"metrics\":{\"agent_steps\":1500,\"target_steps\":6000,\"progress\":0.25,"
        "\"time_left\":125.4,\"updates\":1000,\"updates_per_s\":12.34,\"episode_return\":55.55,"
        "\"phase\":\"running\",\"waiting\":\"\",\"bottleneck\":\"the learner \\u001b[2J is slow\"}}";
    static const char *const wrong[] = {"", "{", "[]", "{}", "{\"metrics\":[]}", "\"metrics\""};
    struct run_status status;
    char out[CONSOLE_LINE_MAX];

    (void)state;
    assert_true(status_parse(&status, json, strlen(json)));
    assert_true(status.agent_steps == 1500 && status.updates_per_s == 12.34);
    assert_true(isnan(status.eval_return));
    assert_string_equal(status.bottleneck, "the learner  [2J is slow");
    assert_string_equal(console_format_status(out, "walker-walk", &status, 0),
                        "walker-walk [=====>              ] 25.0%  0:02:05 left  1,500/6,000 steps  R 55.5  "
                        "12.3 updates/s  (the learner  [2J is slow)");
    assert_string_equal(console_format_status(out, "walker-walk", &status, 40), "25.0%  (the learner  [2J is slow)");
    for (size_t i = 0; i < TD_LEN(wrong); i++)
        assert_false(status_parse(&status, wrong[i], strlen(wrong[i])));
    for (size_t i = 0; i < sizeof(json) - 1; i++)
        assert_false(status_parse(&status, json, i));
}

static void a_status_line_is_cut_between_characters(void **state)
{
    struct run_status status = {.progress = 1, .time_left_s = NAN, .agent_steps = NAN, .target_steps = NAN,
                                .episode_return = NAN, .eval_return = NAN, .updates_per_s = NAN,
                                .bottleneck = "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"};
    char out[CONSOLE_LINE_MAX];

    (void)state;
    for (int width = 2; width < 60; width++) {
        size_t length = strlen(console_format_status(out, "x", &status, width));

        assert_true((int)length < width || (int)length < 44);
        assert_true(length == 0 || (unsigned char)out[length - 1] != 0xc3);
    }
    assert_non_null(strstr(console_format_status(out, "x", &status, 0), "[====================] 100.0%"));
}

/* What is waited for is the last to go. */
static void a_narrow_terminal_keeps_the_reason(void **state)
{
    struct run_status status = {.progress = 0, .time_left_s = NAN, .agent_steps = 0, .target_steps = 300,
                                .episode_return = NAN, .eval_return = NAN, .updates_per_s = 0, .phase = "filling",
                                .waiting = "an actor: none is here"};
    char out[CONSOLE_LINE_MAX];

    (void)state;
    assert_string_equal(console_format_status(out, "toy", &status, 0),
                        "toy [>                   ] 0.0%  filling  0/300 steps  0.0 updates/s  (waits for an actor: none is here)");
    assert_string_equal(console_format_status(out, "toy", &status, 80),
                        "toy 0.0%  filling  0/300 steps  (waits for an actor: none is here)");
    assert_string_equal(console_format_status(out, "toy", &status, 60),
                        "toy 0.0%  filling  (waits for an actor: none is here)");
    assert_string_equal(console_format_status(out, "toy", &status, 40), "0.0% an actor: none is here");
    assert_string_equal(console_format_status(out, "toy", &status, 20), "0.0% an actor: none");
}

/* Where there is no terminal: after a while, and when it becomes something else. */
static void waiting_is_said_in_a_pipe(void **state)
{
    char *text = NULL;
    size_t length = 0;
    struct console console = {.out = open_memstream(&text, &length)};

    (void)state;
    console_waiting(&console, "an actor", 1000);
    console_waiting(&console, "an actor", 5900);
    fflush(console.out);
    assert_int_equal(length, 0);
    console_waiting(&console, "an actor", 6100);
    console_waiting(&console, "an actor", 60000);
    console_waiting(&console, "shard 1", 70000);
    console_waiting(&console, "", 71000);
    console_waiting(&console, "shard 1", 72000);
    console_waiting(&console, "shard 1", 77500);
    fclose(console.out);
    assert_string_equal(text, "waiting for an actor\nwaiting for shard 1\nwaiting for shard 1\n");
    free(text);
}

static void huge_returns_stay_short(void **state)
{
    struct console_row row = {.category = "train", .episode = NAN, .step = 1, .reward = 1e308, .success = NAN, .time_s = NAN};
    char out[CONSOLE_LINE_MAX];

    (void)state;
    assert_non_null(strstr(console_format_row(out, &row, false), "R: 1e+308"));
}

static double seen[16];
static int seen_count;

static void note(void *context, const double *values)
{
    (void)context;
    assert_true(seen_count < 16);
    seen[seen_count++] = values[0];
}

static void put(const char *path, const char *text, const char *mode)
{
    FILE *file = fopen(path, mode);

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void new_lines_are_followed_once(void **state)
{
    char path[FS_PATH_MAX], other[FS_PATH_MAX];
    struct follow follow;

    (void)state;
    assert_int_equal(fs_join(path, test_folder(), "follow.csv", NULL), TD_OK);
    assert_int_equal(fs_join(other, test_folder(), "other.csv", NULL), TD_OK);
    follow_init(&follow, path, 2);
    follow_poll(&follow, note, NULL);
    put(path, "step,reward\n1,1\n2,", "w");
    follow_poll(&follow, note, NULL);
    follow_poll(&follow, note, NULL);
    assert_int_equal(seen_count, 1); /* the second line is not whole yet */
    put(path, "2\n3,3\n", "a");
    follow_poll(&follow, note, NULL);
    assert_int_equal(seen_count, 3);
    assert_true(seen[1] == 2 && seen[2] == 3);
    put(other, "step,reward\n1,1\n", "w"); /* cut back: line 2 will come again */
    assert_int_equal(rename(other, path), 0);
    follow_poll(&follow, note, NULL);
    assert_int_equal(seen_count, 3);
    put(path, "2,2\n", "a");
    follow_poll(&follow, note, NULL);
    assert_int_equal(seen_count, 4);
    assert_true(seen[3] == 2);

    follow_init(&follow, path, 2); /* what is there before is not new */
    follow_poll(&follow, note, NULL);
    assert_int_equal(seen_count, 4);
}

/* The line behind an eval row of several tasks; one that was not evaluated is left out, and no line is too long. */
static void several_tasks_in_a_line(void **state)
{
    struct task list[60] = {{.name = "walker-walk"}, {.name = "cup-catch"}, {.name = "mw-reach"}};
    struct task_set tasks = {.count = 3, .task = list, .multitask = true};
    double values[1 + 2 * 60] = {12.34, 154.1, NAN, NAN, NAN, 3, 1};
    char line[CONSOLE_LINE_MAX];

    (void)state;
    console_format_tasks(line, &tasks, values);
    assert_non_null(strstr(line, "score 12.3 of 3 tasks: walker-walk 154.1, mw-reach 3.0"));
    assert_null(strstr(line, "cup-catch"));
    values[0] = NAN;
    assert_null(strstr(console_format_tasks(line, &tasks, values), "score"));
    for (int i = 0; i < 60; i++) {
        memset(list[i].name, 'a', TASK_NAME_MAX - 1);
        values[1 + 2 * i] = -1e300;
    }
    tasks.count = 60;
    console_format_tasks(line, &tasks, values);
    assert_non_null(strstr(line, "eval.csv has all"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_tasks_in_a_line),
        cmocka_unit_test(numbers_read_as_in_the_reference), cmocka_unit_test(rows_are_padded_as_in_the_reference),
        cmocka_unit_test(a_narrow_terminal_keeps_the_reason), cmocka_unit_test(waiting_is_said_in_a_pipe),
        cmocka_unit_test(huge_returns_stay_short), cmocka_unit_test(stats_are_read_with_care),         cmocka_unit_test(a_status_line_is_cut_between_characters),
        cmocka_unit_test(new_lines_are_followed_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
