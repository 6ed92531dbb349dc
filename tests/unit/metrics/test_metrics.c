#include "tests/support/test.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <pthread.h>

#include "common/metrics/metrics.h"
#include "common/util/clock.h"

static metrics_t *make(unsigned roles)
{
    struct metrics_owner owner = {"learner", roles, 2, 0xabcdef, 0x1234};
    metrics_t *metrics;

    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    return metrics;
}

static void counters_have_a_rate_over_ten_seconds(void **state)
{
    metrics_t *metrics = make(METRIC_LEARNER);
    uint64_t now = clock_ms();

    (void)state;
    for (int second = 1; second <= 30; second++) {
        metrics_add(metrics, METRIC_updates, second <= 15 ? 1000 : 40);
        metrics_tick(metrics, now + 1000u * (unsigned)second);
    }
    assert_int_equal(metrics_total(metrics, METRIC_updates), 15 * 1000 + 15 * 40);
    assert_float_equal(metrics_rate(metrics, METRIC_updates, now + 30000), 40, 0.5); /* fast past forgotten */
    assert_float_equal(metrics_rate(metrics, METRIC_episodes, now + 30000), 0, 0);
    metrics_destroy(&metrics);
    assert_null(metrics);
}

static void quantiles_are_within_seven_percent(void **state)
{
    static const double scales[] = {1e-4, 0.05, 3.0, 800.0, 1e6};

    (void)state;
    for (size_t s = 0; s < TD_LEN(scales); s++) {
        metrics_t *metrics = make(METRIC_LEARNER);
        struct metrics_summary sum;

        for (int i = 1; i <= 1000; i++)
            metrics_record(metrics, METRIC_update_ms, scales[s] * i / 1000.0);
        metrics_summary(metrics, METRIC_update_ms, &sum);
        assert_int_equal(sum.count, 1000);
        assert_true(fabs(sum.p50 / (scales[s] * 0.5) - 1) < 0.07);
        assert_true(fabs(sum.p99 / (scales[s] * 0.99) - 1) < 0.07);
        assert_true(fabs(sum.mean / (scales[s] * 0.5005) - 1) < 0.02);
        assert_true(fabs(sum.max / scales[s] - 1) < 0.011);
        metrics_destroy(&metrics);
    }
}

static void histograms_forget_after_a_minute(void **state)
{
    metrics_t *metrics = make(METRIC_LEARNER);
    struct metrics_summary sum;
    uint64_t now = clock_ms();

    (void)state;
    metrics_summary(metrics, METRIC_update_ms, &sum);
    assert_int_equal(sum.count, 0);
    assert_true(isnan(sum.p99));
    metrics_record(metrics, METRIC_update_ms, 500);
    metrics_record(metrics, METRIC_update_ms, NAN); /* counted as 0, harms nothing */
    metrics_record(metrics, METRIC_update_ms, INFINITY);
    metrics_tick(metrics, now + 31000);
    metrics_summary(metrics, METRIC_update_ms, &sum);
    assert_int_equal(sum.count, 3);
    metrics_record(metrics, METRIC_update_ms, 1);
    metrics_tick(metrics, now + 62000);
    metrics_summary(metrics, METRIC_update_ms, &sum);
    assert_int_equal(sum.count, 1);
    assert_float_equal(sum.max, 1, 1e-6);
    metrics_tick(metrics, now + 93000);
    metrics_summary(metrics, METRIC_update_ms, &sum);
    assert_int_equal(sum.count, 0);
    metrics_destroy(&metrics);
}

static void json_is_valid_and_follows_the_table(void **state)
{
    metrics_t *metrics = make(METRIC_LEARNER);
    char out[METRICS_JSON_MAX];
    size_t length;
    cJSON *json, *values;

    (void)state;
    metrics_add(metrics, METRIC_updates, 12);
    metrics_set(metrics, METRIC_ratio, 0.5);
    metrics_set(metrics, METRIC_time_left, INFINITY); /* JSON has no such number: left out */
    metrics_record(metrics, METRIC_update_ms, 3);
    metrics_text(metrics, METRIC_waiting, "for \"%s\" \\ %c\n\xff", "actors", 1);
    length = metrics_json(metrics, clock_ms() + 1500, out, sizeof(out));
    assert_int_equal(strlen(out), length);
    json = cJSON_Parse(out);
    assert_non_null(json);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "role")), "learner");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "run")), "0000000000001234");
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "uptime_s")) >= 1.4);
    values = cJSON_GetObjectItem(json, "metrics");
    assert_float_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(values, "updates")), 12, 0);
    assert_non_null(cJSON_GetObjectItem(values, "updates_per_s"));
    assert_float_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(values, "ratio")), 0.5, 0);
    assert_null(cJSON_GetObjectItem(values, "time_left"));
    assert_null(cJSON_GetObjectItem(values, "progress"));
    assert_null(cJSON_GetObjectItem(values, "commit_ms")); /* a shard's */
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(values, "waiting")),
                        "for \"actors\" \\ ???");
    assert_float_equal(
        cJSON_GetNumberValue(cJSON_GetObjectItem(cJSON_GetObjectItem(values, "update_ms"), "max")), 3,
        1e-9);
    cJSON_Delete(json);
    metrics_destroy(&metrics);
}

/* The longest values everywhere: the snapshot still fits its bound. */
static void the_largest_snapshot_fits(void **state)
{
    metrics_t *metrics = make(METRIC_EVERY);
    char out[METRICS_JSON_MAX], quotes[METRICS_LONG_MAX];
    cJSON *json;

    (void)state;
    memset(quotes, '"', sizeof(quotes) - 1);
    quotes[sizeof(quotes) - 1] = '\0';
    for (int i = 0; i < METRIC_COUNT; i++) {
        const struct metric_info *info = metric_info((enum metric)i);

        assert_int_equal(metric_find(info->name), i);
        assert_true(strlen(info->sentence) > 5 && strlen(metric_group((enum metric)i)) > 2);
        if (info->kind == METRIC_COUNTER)
            metrics_add(metrics, (enum metric)i, UINT64_MAX);
        else if (info->kind == METRIC_GAUGE)
            metrics_set(metrics, (enum metric)i, -1.23456789012345e-300);
        else if (info->kind == METRIC_HISTOGRAM)
            metrics_record(metrics, (enum metric)i, 1.2345678e11);
        else
            metrics_text(metrics, (enum metric)i, "%s", quotes);
    }
    assert_int_equal(metric_find("nonsense"), -1);
    assert_in_range(metrics_json(metrics, clock_ms() + 1, out, sizeof(out)), 1000, sizeof(out) - 1);
    json = cJSON_Parse(out);
    assert_non_null(json);
    cJSON_Delete(json);
    metrics_destroy(&metrics);
}

static void *update_all(void *context)
{
    metrics_t *metrics = context;

    for (int i = 0; i < 5000; i++) {
        metrics_add(metrics, METRIC_updates, 1);
        metrics_set(metrics, METRIC_ratio, i);
        metrics_record(metrics, METRIC_update_ms, 2.0);
        if (i % 64 == 0)
            metrics_text(metrics, METRIC_phase, "update %d", i);
    }
    return NULL;
}

static void threads_may_update_while_the_loop_reads(void **state)
{
    metrics_t *metrics = make(METRIC_LEARNER);
    pthread_t threads[3];
    char out[METRICS_JSON_MAX];
    struct metrics_summary sum;
    uint64_t now = clock_ms();

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, update_all, metrics), 0);
    for (int i = 0; i < 50; i++) {
        metrics_json(metrics, now + 100, out, sizeof(out));
        metrics_tick(metrics, now + 100);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    metrics_summary(metrics, METRIC_update_ms, &sum);
    assert_int_equal(metrics_total(metrics, METRIC_updates), 15000);
    assert_int_equal(sum.count, 15000);
    metrics_destroy(&metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_have_a_rate_over_ten_seconds),
        cmocka_unit_test(quantiles_are_within_seven_percent),
        cmocka_unit_test(histograms_forget_after_a_minute),
        cmocka_unit_test(json_is_valid_and_follows_the_table),
        cmocka_unit_test(the_largest_snapshot_fits),
        cmocka_unit_test(threads_may_update_while_the_loop_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
