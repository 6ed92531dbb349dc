#include "tests/support/test.h"

#include <cjson/cJSON.h>

#include "common/net/stats.h"
#include "common/util/clock.h"

#define DEADLINE_MS 20000

struct reader {
    int received;
    char text[METRICS_JSON_MAX];
};

static void on_answer(void *context, uint64_t peer, const struct channel_frame *frames, int count)
{
    struct reader *reader = context;

    (void)peer;
    assert_int_equal(count, 1);
    snprintf(reader->text, sizeof(reader->text), "%.*s", (int)frames[0].length,
             (const char *)frames[0].bytes);
    reader->received++;
}

static void refresh(void *context)
{
    metrics_set(context, METRIC_replay_rows, 99);
}

static channel_t *listen_to(loop_t *loop, struct reader *reader, enum channel_pattern pattern,
                            const char *address)
{
    struct channel_options options = {
        .name = "reader",
        .pattern = pattern,
        .max_message = METRICS_JSON_MAX,
        .on_message = on_answer,
        .context = reader,
    };
    struct error err;
    channel_t *channel;

    assert_ok(channel_open(&channel, loop, &options, &err), err);
    assert_ok(channel_connect(channel, address, &err), err);
    return channel;
}

static void wait_for(loop_t *loop, struct reader *reader)
{
    uint64_t start = clock_ms();

    for (reader->received = 0; reader->received == 0;) {
        assert_true(clock_ms() - start < DEADLINE_MS);
        loop_run_for(loop, 50);
    }
}

static double value_of(struct reader *reader, const char *name)
{
    cJSON *json = cJSON_Parse(reader->text);
    double value;

    assert_non_null(json);
    value = cJSON_GetNumberValue(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "metrics"), name));
    cJSON_Delete(json);
    return value;
}

static void anybody_who_asks_gets_the_metrics(void **state)
{
    struct metrics_owner owner = {"replay", METRIC_SHARD, 0, 1, 2};
    struct channel_part question = {"?", 1, NULL, NULL};
    char address[ADDRESS_MAX], publish[ADDRESS_MAX];
    static struct reader asker, listener;
    struct stats_options options = {.address = address, .publish_address = publish, .refresh = refresh};
    channel_t *ask, *listening;
    metrics_t *metrics;
    struct error err;
    stats_t *stats;
    loop_t *loop;

    (void)state;
    snprintf(address, sizeof(address), "ipc://%s/stats", test_folder());
    snprintf(publish, sizeof(publish), "ipc://%s/stats-pub", test_folder());
    assert_ok(loop_create(&loop, &err), err);
    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    options.context = metrics;
    assert_ok(stats_open(&stats, loop, metrics, &options, &err), err);
    ask = listen_to(loop, &asker, CHANNEL_REQ, stats_address(stats));
    listening = listen_to(loop, &listener, CHANNEL_SUB, publish);
    metrics_add(metrics, METRIC_rows_stored, 12);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(channel_send(ask, 0, &question, 1), TD_OK);
        wait_for(loop, &asker);
        assert_true(value_of(&asker, "rows_stored") == 12);
        assert_true(value_of(&asker, "replay_rows") == 99);
        assert_true(value_of(&asker, "resident_bytes") > 100000);
    }
    wait_for(loop, &listener);
    assert_true(value_of(&listener, "rows_stored") == 12);
    channel_close(&ask);
    channel_close(&listening);
    stats_close(&stats);
    assert_null(stats);
    metrics_destroy(&metrics);
    loop_destroy(&loop);
    channel_shutdown();
}

static void a_refused_address_leaves_nothing_open(void **state)
{
    struct metrics_owner owner = {"actor", METRIC_ACTOR, 0, 1, 2};
    struct stats_options options = {.address = "tcp://0.0.0.0:*"};
    metrics_t *metrics;
    struct error err;
    stats_t *stats;
    loop_t *loop;

    (void)state;
    assert_ok(loop_create(&loop, &err), err);
    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    assert_int_equal(stats_open(&stats, loop, metrics, &options, &err), TD_EINVAL);
    assert_null(stats);
    metrics_destroy(&metrics);
    loop_destroy(&loop);
    channel_shutdown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anybody_who_asks_gets_the_metrics),
        cmocka_unit_test(a_refused_address_leaves_nothing_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
