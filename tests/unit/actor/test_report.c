#include "tests/support/test.h"

#include <math.h>

#include "actor/report.h"

static metrics_t *metrics;
static struct report report;

static int start(void **state)
{
    struct metrics_owner owner = {.role = "actor", .roles = METRIC_ACTOR, .process = 1};

    (void)state;
    report_init(&report, NULL);
    if (metrics_create(&metrics, &owner) != TD_OK)
        return -1;
    report_init(&report, metrics);
    return 0;
}

static int end(void **state)
{
    (void)state;
    metrics_destroy(&metrics);
    return 0;
}

static void episode(int steps, float reward)
{
    struct session_step step = {.reward = 100};

    report_step(&report, 0, &step, true);
    for (int i = 1; i <= steps; i++) {
        step = (struct session_step){.reward = reward, .truncated = i == steps};
        report_step(&report, 0, &step, false);
    }
}

static void returns_are_averaged_over_the_last_ten(void **state)
{
    (void)state;
    assert_true(isnan(metrics_value(metrics, METRIC_episode_return)));
    episode(4, 2);
    assert_true(metrics_value(metrics, METRIC_episode_return) == 8);
    episode(2, 1);
    assert_true(metrics_value(metrics, METRIC_episode_return) == 5);
    for (int i = 0; i < 10; i++)
        episode(3, 1);
    assert_true(metrics_value(metrics, METRIC_episode_return) == 3);
}

static void an_episode_that_was_dropped_does_not_count(void **state)
{
    struct session_step step = {.reward = 50};

    (void)state;
    report_step(&report, 0, &step, true);
    report_step(&report, 0, &step, false);
    episode(2, 1);
    assert_true(metrics_value(metrics, METRIC_episode_return) == 2);
}

static void acknowledgements_are_timed_from_their_rows(void **state)
{
    struct rows rows = {.epoch = 2, .first = 0, .count = 3};
    struct ack ack = {.epoch = 2, .next = 4};
    struct metrics_summary summary;

    (void)state;
    report_rows(&report, &rows, 1000000);
    rows.first = 3;
    report_rows(&report, &rows, 2000000);
    report_ack(&report, &ack, 5000000); /* the first chunk, not all of the second */
    metrics_summary(metrics, METRIC_ack_ms, &summary);
    assert_true(summary.count == 1 && fabs(summary.max - 4) < 0.4);
    ack.next = 6;
    report_ack(&report, &ack, 12000000);
    report_ack(&report, &ack, 90000000); /* said again */
    metrics_summary(metrics, METRIC_ack_ms, &summary);
    assert_true(summary.count == 2 && fabs(summary.max - 10) < 1);

    rows.first = 6; /* of an epoch that is over: never timed */
    report_rows(&report, &rows, 12000000);
    rows = (struct rows){.epoch = 3, .first = 0, .count = 1};
    report_rows(&report, &rows, 13000000);
    ack = (struct ack){.epoch = 3, .next = 1};
    report_ack(&report, &ack, 14000000);
    metrics_summary(metrics, METRIC_ack_ms, &summary);
    assert_int_equal(summary.count, 3);
}

static void more_chunks_than_places_lose_the_oldest(void **state)
{
    struct ack ack = {.epoch = 1, .next = 1000000};
    struct metrics_summary summary;

    (void)state;
    for (uint64_t i = 0; i < 3 * REPORT_CHUNKS; i++) {
        struct rows rows = {.epoch = 1, .first = i, .count = 1};

        report_rows(&report, &rows, i);
    }
    report_ack(&report, &ack, 1000000);
    metrics_summary(metrics, METRIC_ack_ms, &summary);
    assert_int_equal(summary.count, REPORT_CHUNKS);
}

static void waits_are_counted_by_reason_and_never_twice(void **state)
{
    struct session_view view = {.phase = PHASE_RUNNING, .waiting = WAITING_LIMIT, .waiting_since_ms = 4000};

    (void)state;
    view.waited_ms[WAITING_NOTHING] = 9;
    view.waited_ms[WAITING_LIMIT] = 100;
    view.waited_ms[WAITING_BURST] = 30;
    view.waited_ms[WAITING_ACKS] = 7;
    view.waited_ms[WAITING_TURN] = 2;
    view.waited_ms[WAITING_WORK] = 3;
    report_view(&report, &view, 10000);
    report_view(&report, &view, 11000);
    assert_int_equal(metrics_total(metrics, METRIC_wait_credit_ms), 130);
    assert_int_equal(metrics_total(metrics, METRIC_wait_outbox_ms), 7);
    assert_int_equal(metrics_total(metrics, METRIC_wait_turn_ms), 5);
    assert_int_equal(metrics_total(metrics, METRIC_wait_shard_ms), 0);
    view.waited_ms[WAITING_LIMIT] = 90; /* the estimate of a wait under way was too high */
    report_view(&report, &view, 12000);
    view.waited_ms[WAITING_LIMIT] = 110;
    report_view(&report, &view, 13000);
    assert_int_equal(metrics_total(metrics, METRIC_wait_credit_ms), 140);
}

static void it_says_what_is_waited_for(void **state)
{
    struct session_view view = {.phase = PHASE_RUNNING, .waiting = WAITING_LIMIT, .waiting_since_ms = 4000,
                                .version_epoch = 2, .version = 40, .lag = 3, .learner_epoch = 2,
                                .episodes = 5, .outbox_rows = 6};
    char json[METRICS_JSON_MAX];

    (void)state;
    report_view(&report, &view, 16500);
    metrics_json(metrics, 16500, json, sizeof(json));
    assert_non_null(strstr(json, "\"waiting\":\"the learner's updates for 12 s\""));
    assert_non_null(strstr(json, "\"phase\":\"running\""));
    assert_true(metrics_value(metrics, METRIC_parameter_version) == 40);
    assert_true(metrics_value(metrics, METRIC_parameter_lag) == 3);
    assert_true(metrics_value(metrics, METRIC_outbox_rows) == 6);
    assert_int_equal(metrics_total(metrics, METRIC_episodes), 5);
    view.waiting = WAITING_NOTHING;
    report_view(&report, &view, 17000);
    metrics_json(metrics, 17000, json, sizeof(json));
    assert_non_null(strstr(json, "\"waiting\":\"\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(returns_are_averaged_over_the_last_ten, start, end),
        cmocka_unit_test_setup_teardown(an_episode_that_was_dropped_does_not_count, start, end),
        cmocka_unit_test_setup_teardown(acknowledgements_are_timed_from_their_rows, start, end),
        cmocka_unit_test_setup_teardown(more_chunks_than_places_lose_the_oldest, start, end),
        cmocka_unit_test_setup_teardown(waits_are_counted_by_reason_and_never_twice, start, end),
        cmocka_unit_test_setup_teardown(it_says_what_is_waited_for, start, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
