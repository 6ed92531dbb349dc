#include "tests/support/test.h"

#include <math.h>
#include <unistd.h>

#include "tools/top.h"

static const char learner_json[] =
    "{\"role\":\"learner\",\"id\":0,\"uptime_s\":3723.5,\"metrics\":{\"agent_steps\":43210,\"target_steps\":100000,"
    "\"progress\":0.4321,\"time_left\":2112,\"updates\":40000,\"updates_per_s\":12.34,\"env_steps_per_s\":26.4,"
    "\"ratio\":0.98,\"target_ratio\":1,\"episode_return\":436.3,\"eval_return\":401.2,\"actors_live\":2,"
    "\"parameter_lag\":3,\"phase\":\"running\",\"waiting\":\"waiting for agent steps\","
    "\"bottleneck\":\"the actors bound the run\",\"wait_steps_ms\":5000,\"wait_steps_ms_per_s\":340,"
    "\"wait_samples_ms_per_s\":20,\"update_ms\":{\"count\":700,\"mean\":84,\"p50\":84.2,\"p99\":91.0,\"max\":95},"
    "\"resident_bytes\":311000000}}";

static const char actor_json[] =
    "{\"role\":\"actor\",\"id\":1,\"metrics\":{\"env_steps_per_s\":13.2,\"parameter_lag\":7,\"phase\":\"running\","
    "\"waiting\":\"parameters for 3 s\",\"plan_ms\":{\"count\":9,\"mean\":37,\"p50\":37,\"p99\":41,\"max\":41},"
    "\"resident_bytes\":52000000}}";

/* A run of these parts; NULL: it does not answer. */
static struct stats_run *make_run(const char *learner, const char *actor)
{
    struct stats_run *run = calloc(1, sizeof(*run));

    assert_non_null(run);
    snprintf(run->parts[0].where.role, sizeof(run->parts[0].where.role), "learner");
    snprintf(run->parts[1].where.role, sizeof(run->parts[1].where.role), "actor");
    run->parts[1].where.id = 1;
    run->parts[1].where.pid = 4242;
    run->count = 2;
    if (learner != NULL)
        assert_non_null(run->parts[0].json = stats_read(learner, strlen(learner)));
    if (actor != NULL)
        assert_non_null(run->parts[1].json = stats_read(actor, strlen(actor)));
    return run;
}

static void take(struct top *top, const char *learner, const char *actor, uint64_t now_ms)
{
    struct stats_run *run = make_run(learner, actor);

    top_take(top, run, now_ms);
    stats_forget(run);
    free(run);
}

static void take_nobody(struct top *top, uint64_t now_ms)
{
    struct stats_run *run = calloc(1, sizeof(*run));

    assert_non_null(run);
    top_take(top, run, now_ms);
    free(run);
}

static struct top *make_top(void)
{
    struct top *top = calloc(1, sizeof(*top));

    assert_non_null(top);
    top_init(top, "logs/walker-walk/1/default");
    return top;
}

/* All lines, one behind the other; valid until the next call. */
static const char *laid_out(const struct top *top, int width, int height, bool unicode, uint64_t now_ms)
{
    static char text[TOP_HEIGHT_MAX * sizeof(((struct top_line *)0)->text)];
    static struct top_screen screen;
    struct top_view view = {.width = width, .height = height, .unicode = unicode};
    size_t used = 0;

    top_layout(top, &view, now_ms, &screen);
    assert_true(screen.count <= height);
    for (int i = 0; i < screen.count; i++) {
        int columns = 0;

        for (const char *c = screen.lines[i].text; *c != '\0'; c++) {
            if (!unicode && ((unsigned char)*c < ' ' || (unsigned char)*c > '~'))
                fail_msg("byte %d in line %d", (unsigned char)*c, i);
            columns += ((unsigned char)*c & 0xc0) != 0x80;
        }
        if (columns > width)
            fail_msg("line %d of a screen of %d x %d takes %d columns", i, width, height, columns);
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s\n", screen.lines[i].text);
    }
    return text;
}

static void shows(const char *text, const char *what)
{
    if (strstr(text, what) == NULL)
        fail_msg("no '%s' in:\n%s", what, text);
}

static void hides(const char *text, const char *what)
{
    if (strstr(text, what) != NULL)
        fail_msg("'%s' in:\n%s", what, text);
}

static void a_run_is_shown_with_its_parts(void **state)
{
    struct top *top = make_top();
    const char *text;

    (void)state;
    take(top, learner_json, actor_json, 1000);
    text = laid_out(top, 120, 30, false, 1000);
    shows(text, "logs/walker-walk/1/default");
    shows(text, "up 1:02:03");
    shows(text, "##########..............  43.2 %  43,210 of 100,000 steps  0:35:12 left");
    shows(text, "12.3 updates/s  26.4 environment steps/s  0.98 of 1.00 updates a step  return 436  evaluated 401");
    shows(text, "the learner waits 34 % for steps, 2 % for samples: the actors bound the run");
    shows(text, "learner       running           12.3 updates/s      3 update 84.2 / 91.0 ms    311 MB  agent steps");
    shows(text, "actor-1       running             13.2 steps/s      7 plan 37.0 / 41.0 ms       52 MB  parameters for 3 s");
    shows(text, "q quits");
    shows(laid_out(top, 120, 30, true, 1000), "██████████░░░░");
    text = laid_out(top, 60, 20, false, 1000);
    shows(text, "actor-1      running       13.2/s  parameters for 3 s");
    hides(text, "MEMORY");
    free(top);
}

static void whoever_is_gone_keeps_its_values(void **state)
{
    struct top *top = make_top();
    const char *text;

    (void)state;
    take(top, learner_json, actor_json, 1000);
    take(top, NULL, actor_json, 2000);
    text = laid_out(top, 120, 30, false, 14000);
    shows(text, "the learner has not answered for 12 s: these are its last values");
    shows(text, "learner       silent 12 s");
    shows(text, "12.3 updates/s");
    take_nobody(top, 20000);
    text = laid_out(top, 120, 30, false, 21000);
    shows(text, "the learner left 1 s ago");
    shows(text, "actor-1       left 1 s");
    take_nobody(top, 20000 + TOP_GONE_MS);
    text = laid_out(top, 120, 30, false, 20000 + TOP_GONE_MS);
    shows(text, "learner       left 60 s");
    hides(text, "actor-1");
    take(top, learner_json, actor_json, 90000);
    text = laid_out(top, 120, 30, false, 90000);
    hides(text, "ago");
    hides(text, "silent");
    shows(text, "actor-1       running");
    free(top);
}

static void nothing_from_outside_steers_the_terminal(void **state)
{
    static const char bad[] = "{\"role\":\"actor\\u001b[2J\",\"id\":7,\"metrics\":{\"phase\":\"\\u001b]0;x\\u0007\","
                              "\"waiting\":\"a\\n\\u009b31mb\\u0000c\\r\",\"damage\":\"\\u001bP\"}}";
    static const char line[] = "2026-11-24T02:40:55.123Z level=warn role=le\033[31m id=0 msg=\"\033]52;c;x\a\"";
    struct top *top = make_top();

    (void)state;
    take(top, learner_json, bad, 1);
    top_log_add(top, line, line + sizeof(line) - 1);
    top_log_add(top, "\233\200plain\033c", "\233\200plain\033c" + 9);
    laid_out(top, 200, 40, false, 1); /* asserts that all of it is printable */
    shows(laid_out(top, 200, 40, false, 1), "DAMAGE: ?P");
    top_init(top, "/tmp/\033[2Jrun\n");
    shows(laid_out(top, 200, 40, false, 1), "/tmp/?[2Jrun?");
    free(top);
}

static void numbers_of_any_kind_fit(void **state)
{
    static const char *const values[] = {"1e308", "-1e308", "0", "null", "\"x\"", "1e-300", "[]", "123456789012"};
    char json[4096];
    struct top *top = make_top();

    (void)state;
    for (size_t i = 0; i < TD_LEN(values); i++) {
        const char *v = values[i];

        snprintf(json, sizeof(json),
                 "{\"role\":\"learner\",\"id\":%s,\"uptime_s\":%s,\"metrics\":{\"agent_steps\":%s,\"target_steps\":%s,"
                 "\"progress\":%s,\"time_left\":%s,\"updates_per_s\":%s,\"ratio\":%s,\"target_ratio\":%s,"
                 "\"episode_return\":%s,\"eval_return\":%s,\"parameter_lag\":%s,\"wait_steps_ms_per_s\":%s,"
                 "\"update_ms\":{\"p50\":%s,\"p99\":%s},\"resident_bytes\":%s,\"phase\":%s}}",
                 v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v);
        take(top, json, NULL, i + 1);
        for (int width = 1; width <= 140; width += 13)
            laid_out(top, width, 40, i % 2 == 0, 100);
    }
    free(top);
}

/* Every size from 1 x 1 on: nothing is wider or higher than the screen, the foot is there. */
static void every_size_has_its_lines(void **state)
{
    static const char line[] = "2026-11-24T02:40:55.123Z level=info role=actor host=n id=3 run=1 msg=\"paused\" why=\"outbox full\"";
    struct top *top = make_top();

    (void)state;
    take(top, learner_json, actor_json, 1000);
    for (int i = 0; i < 2 * TOP_LOG_MAX; i++)
        top_log_add(top, line, line + sizeof(line) - 1);
    for (int i = 0; i < 2000; i++)
        top_history_add(&top->returns, i);
    for (int height = 1; height < 45; height++)
        for (int width = 1; width < 200; width += width < 24 ? 1 : 7)
            laid_out(top, width, height, (height + width) % 2 == 0, 1000);
    laid_out(top, 5000, 5000, true, 1000);
    shows(laid_out(top, 120, 30, false, 1000), "\n02:40:55 actor-3 msg=\"paused\" why=\"outbox full\"\n");
    free(top);
}

static void many_parts_scroll(void **state)
{
    struct top *top = make_top();
    struct stats_run *run = make_run(learner_json, NULL);
    struct top_view view = {.width = 100, .height = 24};
    struct top_screen *screen = calloc(1, sizeof(*screen));
    bool seen[64] = {false};

    (void)state;
    run->count = 1 + 64;
    for (int i = 0; i < 64; i++) {
        snprintf(run->parts[1 + i].where.role, sizeof(run->parts[1 + i].where.role), "actor");
        run->parts[1 + i].where.id = 63 - i;
    }
    top_take(top, run, 1);
    assert_string_equal(top->parts[0].title, "learner");
    assert_string_equal(top->parts[1].title, "actor-0");
    do {
        top_layout(top, &view, 1, screen);
        for (int i = 0; i < screen->count; i++) {
            int id;

            if (sscanf(screen->lines[i].text, "actor-%d ", &id) == 1)
                seen[id] = true;
        }
    } while (view.scroll++ < screen->hidden);
    assert_true(screen->hidden > 0);
    for (int i = 0; i < 64; i++)
        assert_true(seen[i]);
    stats_forget(run);
    free(run);
    free(screen);
    free(top);
}

static void curves_keep_their_shape_when_thinned(void **state)
{
    struct top_history *history = calloc(1, sizeof(*history));
    char curve[512];

    (void)state;
    for (int i = 0; i < 100000; i++)
        top_history_add(history, i);
    top_history_add(history, NAN);
    top_history_add(history, INFINITY);
    assert_true(history->count > TOP_HISTORY_MAX / 2 - 1 && history->count <= TOP_HISTORY_MAX);
    assert_true(history->newest == 99999);
    assert_true(history->values[0] < 300 && history->values[history->count - 1] > 99000);
    assert_string_equal(top_sparkline(curve, sizeof(curve), history, 8, false), "_.:-=+*#");
    assert_string_equal(top_sparkline(curve, sizeof(curve), history, 8, true), "▁▂▃▄▅▆▇█");
    memset(history, 0, sizeof(*history));
    top_history_add(history, 5);
    assert_string_equal(top_sparkline(curve, sizeof(curve), history, 8, false), "=");
    assert_string_equal(top_sparkline(curve, sizeof(curve), history, 0, false), "");
    free(history);
}

static void put_file(const char *folder, const char *name, const char *mode, const char *text)
{
    char path[600];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    assert_non_null(file = fopen(path, mode));
    fputs(text, file);
    fclose(file);
}

static void files_of_a_run_are_followed(void **state)
{
    struct top_files *files = calloc(1, sizeof(*files));
    struct top *top = make_top();
    const char *folder = test_folder();

    (void)state;
    put_file(folder, "learner.log", "w",
             "2026-11-24T02:00:02.000Z level=info role=learner host=h id=0 run=00000001 msg=\"second\" a=1\n");
    put_file(folder, "actor-0.log", "w",
             "{\"time\":\"2026-11-24T02:00:01.000Z\",\"level\":\"warn\",\"role\":\"actor\",\"host\":\"h\",\"id\":0,"
             "\"run\":\"00000001\",\"msg\":\"first\",\"b\":2,\"why\":\"so\"}\n");
    put_file(folder, "train.csv", "w", "step,episode,episode_reward\n10,0,1.5\n20,1,2.5\n");
    top_files_init(files, folder);
    top_files_poll(files, top);
    assert_int_equal(top->log_count, 2);
    assert_string_equal(top->log[0], "02:00:01 actor-0 level=warn msg=\"first\" b=2 why=so");
    assert_string_equal(top->log[1], "02:00:02 learner-0 msg=\"second\" a=1");
    assert_int_equal(top->returns.count, 2);
    assert_true(top->curves);
    put_file(folder, "learner.log", "a", "no stamp\nhalf a li");
    put_file(folder, "train.csv", "a", "30,2,3.5\n");
    put_file(folder, "eval.csv", "w", "step,episode_reward\n0,7\n");
    top_files_poll(files, top);
    assert_int_equal(top->log_count, 3);
    assert_string_equal(top->log[2], "no stamp");
    assert_true(top->returns.count == 3 && top->returns.newest == 3.5);
    assert_true(top->evals.count == 1 && top->evals.newest == 7);
    take(top, learner_json, NULL, 1); /* the curves are the files', the learner's mean is not mixed in */
    assert_true(top->returns.count == 3);
    free(files);
    free(top);
}

static void lines_without_a_terminal(void **state)
{
    struct top *top = make_top();
    char text[4096] = "";
    FILE *out = fmemopen(text, sizeof(text), "w");

    (void)state;
    take(top, learner_json, actor_json, 1000);
    take(top, NULL, actor_json, 2000);
    top_plain(top, 5000, out);
    fclose(out);
    shows(text, "logs/walker-walk/1/default  43.2 %  the learner has not answered for 3 s");
    shows(text, "\n  learner       silent 3 s");
    shows(text, "plan 37.0 / 41.0 ms       52 MB  parameters for 3 s\n");
    hides(text, "\033");
    free(top);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_is_shown_with_its_parts),
        cmocka_unit_test(whoever_is_gone_keeps_its_values),
        cmocka_unit_test(nothing_from_outside_steers_the_terminal),
        cmocka_unit_test(numbers_of_any_kind_fit),
        cmocka_unit_test(every_size_has_its_lines),
        cmocka_unit_test(many_parts_scroll),
        cmocka_unit_test(curves_keep_their_shape_when_thinned),
        cmocka_unit_test(files_of_a_run_are_followed),
        cmocka_unit_test(lines_without_a_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
