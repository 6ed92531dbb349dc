#include "tests/support/test.h"

#include <ctype.h>
#include <math.h>

#include "common/metrics/prometheus.h"
#include "common/util/clock.h"

static metrics_t *make(const char *role, unsigned roles, int id)
{
    struct metrics_owner owner = {role, roles, id, 0xabcdef, 0x1234};
    metrics_t *metrics;

    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    return metrics;
}

static char *text_of(metrics_t *metrics)
{
    static char text[PROMETHEUS_TEXT_MAX];
    size_t length = metrics_prometheus(metrics, clock_ms(), text, sizeof(text));

    assert_int_equal(length, strlen(text));
    return text;
}

/* The number behind this series, NAN when there is none. */
static double series(const char *text, const char *name)
{
    size_t length = strlen(name);

    for (const char *line = text; line != NULL; line = strchr(line, '\n') != NULL ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ' ')
            return strtod(line + length, NULL);
    return NAN;
}

static void units_are_base_units_and_counters_end_with_total(void **state)
{
    metrics_t *metrics = make("learner", METRIC_LEARNER, 0);
    const char *text;

    (void)state;
    metrics_add(metrics, METRIC_updates, 12345678901ull);
    metrics_add(metrics, METRIC_wait_steps_ms, 1500);
    metrics_add(metrics, METRIC_wait_checkpoint_ms, 250);
    metrics_set(metrics, METRIC_time_left, 90.5);
    metrics_set(metrics, METRIC_resident_bytes, 1e9);
    metrics_record(metrics, METRIC_update_ms, 200);
    text = text_of(metrics);
    assert_float_equal(series(text, "tdmpc2_updates_total{role=\"learner\"}"), 12345678901.0, 0);
    assert_float_equal(series(text, "tdmpc2_wait_seconds_total{role=\"learner\",reason=\"steps\"}"), 1.5, 1e-12);
    assert_float_equal(series(text, "tdmpc2_wait_seconds_total{role=\"learner\",reason=\"checkpoint\"}"), 0.25, 1e-12);
    assert_float_equal(series(text, "tdmpc2_time_left_seconds{role=\"learner\"}"), 90.5, 0);
    assert_float_equal(series(text, "tdmpc2_resident_bytes{role=\"learner\"}"), 1e9, 0);
    assert_float_equal(series(text, "tdmpc2_update_seconds{role=\"learner\",quantile=\"1\"}"), 0.2, 1e-9);
    assert_float_equal(series(text, "tdmpc2_update_seconds_sum{role=\"learner\"}"), 0.2, 1e-9);
    assert_float_equal(series(text, "tdmpc2_update_seconds_count{role=\"learner\"}"), 1, 0);
    assert_true(isnan(series(text, "tdmpc2_ratio{role=\"learner\"}"))); /* never set */
    assert_null(strstr(text, "_ms"));
    metrics_destroy(&metrics);
}

static void a_shard_is_named_by_its_number(void **state)
{
    metrics_t *metrics = make("replay", METRIC_SHARD, 3);

    (void)state;
    metrics_add(metrics, METRIC_rows_stored, 7);
    assert_float_equal(series(text_of(metrics), "tdmpc2_rows_stored_total{role=\"shard\",shard=\"3\"}"), 7, 0);
    metrics_destroy(&metrics);
}

static void waiting_is_told_without_its_words(void **state)
{
    metrics_t *metrics = make("actor", METRIC_ACTOR, 0);

    (void)state;
    assert_float_equal(series(text_of(metrics), "tdmpc2_is_waiting{role=\"actor\"}"), 0, 0);
    metrics_text(metrics, METRIC_waiting, "parameters \"of\" \\ the\nlearner");
    assert_float_equal(series(text_of(metrics), "tdmpc2_is_waiting{role=\"actor\"}"), 1, 0);
    assert_null(strstr(text_of(metrics), "the\nlearner"));
    metrics_destroy(&metrics);
}

/* Prometheus takes rates of _sum and _count: they may never fall, though the window forgets. */
static void sums_outlive_the_window(void **state)
{
    metrics_t *metrics = make("actor", METRIC_ACTOR, 0);
    uint64_t now = clock_ms();
    double last = 0;

    (void)state;
    for (unsigned second = 1; second <= 200; second++) {
        const char *text;
        double count;

        if (second <= 50)
            metrics_record(metrics, METRIC_plan_ms, 10);
        metrics_tick(metrics, now + 1000u * second);
        text = text_of(metrics);
        count = series(text, "tdmpc2_plan_seconds_count{role=\"actor\"}");
        assert_true(count >= last);
        last = count;
    }
    assert_float_equal(last, 50, 0);
    assert_float_equal(series(text_of(metrics), "tdmpc2_plan_seconds_sum{role=\"actor\"}"), 0.5, 1e-9);
    assert_true(isnan(series(text_of(metrics), "tdmpc2_plan_seconds{role=\"actor\",quantile=\"0.5\"}")));
    metrics_destroy(&metrics);
}

/* Grammar of the format, every part with everything set: what promtool checks, without it. */
static void check_line(const char *line, size_t length, char family[PROMETHEUS_NAME_MAX])
{
    const char *brace = memchr(line, '{', length), *close = memchr(line, '}', length);
    size_t name = brace != NULL ? (size_t)(brace - line) : 0;
    char *end;

    assert_true(brace != NULL && close != NULL && close > brace && close[1] == ' ');
    assert_true(name >= strlen(family) && strncmp(line, family, strlen(family)) == 0); /* stands under its TYPE */
    for (size_t i = 0; i < name; i++)
        assert_true(islower((unsigned char)line[i]) || isdigit((unsigned char)line[i]) || line[i] == '_');
    assert_true(isfinite(strtod(close + 2, &end)));
    assert_true(end == line + length);
}

static void check_grammar(const char *text)
{
    char family[PROMETHEUS_NAME_MAX] = "", seen[16384] = " ", type[16];

    assert_true(text[strlen(text) - 1] == '\n');
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        size_t length = strcspn(line, "\n");

        if (strncmp(line, "# HELP ", 7) == 0) {
            assert_int_equal(sscanf(line, "# HELP %95s", family), 1);
            assert_null(memchr(line, '\\', length));
            strcat(family, " ");
            assert_null(strstr(seen, family)); /* a family comes once */
            assert_true(strlen(seen) + strlen(family) < sizeof(seen));
            strcat(seen, family);
            family[strlen(family) - 1] = '\0';
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            size_t tail = strlen(family);

            assert_int_equal(sscanf(line, "# TYPE %*s %15s", type), 1);
            assert_int_equal(strcmp(type, "counter") == 0, tail > 6 && strcmp(family + tail - 6, "_total") == 0);
        } else {
            check_line(line, length, family);
        }
    }
}

static void every_line_follows_the_grammar(void **state)
{
    static const struct {
        const char *role;
        unsigned roles;
    } parts[] = {{"learner", METRIC_LEARNER}, {"replay", METRIC_SHARD}, {"actor", METRIC_ACTOR}, {"evaluator", METRIC_ACTOR}};

    (void)state;
    for (size_t p = 0; p < TD_LEN(parts); p++) {
        metrics_t *metrics = make(parts[p].role, parts[p].roles, 1);

        for (int i = 0; i < METRIC_COUNT; i++) {
            const struct metric_info *info = metric_info((enum metric)i);

            if ((info->roles & parts[p].roles) == 0)
                continue;
            if (info->kind == METRIC_COUNTER)
                metrics_add(metrics, (enum metric)i, UINT64_MAX / 2);
            else if (info->kind == METRIC_GAUGE)
                metrics_set(metrics, (enum metric)i, -1.23456789012345e-200);
            else if (info->kind == METRIC_HISTOGRAM)
                metrics_record(metrics, (enum metric)i, 1e300);
        }
        check_grammar(text_of(metrics));
        assert_true(strlen(text_of(metrics)) < PROMETHEUS_TEXT_MAX / 2); /* room to grow */
        metrics_destroy(&metrics);
    }
}

/* Two metrics under one name would be one lie. */
static void names_are_distinct(void **state)
{
    char one[PROMETHEUS_NAME_MAX], other[PROMETHEUS_NAME_MAX];

    (void)state;
    for (int i = 0; i < METRIC_COUNT; i++)
        for (int j = 0; j < i; j++) {
            prometheus_name((enum metric)i, one);
            prometheus_name((enum metric)j, other);
            if (one[0] != '\0' && strcmp(one, "tdmpc2_wait_seconds_total") != 0)
                assert_string_not_equal(one, other);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_are_base_units_and_counters_end_with_total),
        cmocka_unit_test(a_shard_is_named_by_its_number),
        cmocka_unit_test(waiting_is_told_without_its_words),
        cmocka_unit_test(sums_outlive_the_window),
        cmocka_unit_test(every_line_follows_the_grammar),
        cmocka_unit_test(names_are_distinct),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
