/* A run's history keeps its bounds, its means and its order, whatever comes; and comes back from train.csv. */
#include "tests/support/test.h"

#include <cjson/cJSON.h>
#include <math.h>

#include "common/util/clock.h"
#include "common/util/fs.h"
#include "learner/csv.h"
#include "learner/dashboard/history.h"

static struct history history;

static void push(double time, float value)
{
    struct history_row row = {.time = time};

    for (int i = 0; i < HISTORY_COUNT; i++)
        row.value[i] = value;
    history_push(&history, &row, true);
}

static cJSON *told(void)
{
    size_t length;
    char *text = history_json(&history, &length);
    cJSON *json;

    assert_non_null(text);
    assert_int_equal(strlen(text), length);
    json = cJSON_Parse(text);
    free(text);
    assert_non_null(json);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "columns")), HISTORY_COUNT + 1);
    return json;
}

static double at(const cJSON *json, int row, int column)
{
    const cJSON *cell = cJSON_GetArrayItem(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "rows"), row), column);

    return cJSON_IsNumber(cell) ? cell->valuedouble : NAN;
}

/* A week of seconds: the last ten minutes to the second, the rest in means of which none is lost. */
static void a_week_is_kept_in_bounds(void **state)
{
    const int seconds = 7 * 86400;
    double before = -1;
    cJSON *json;
    int rows;

    (void)state;
    history_init(&history);
    for (int i = 0; i < seconds; i++)
        push(i, (float)i);
    assert_true(history.whole_count <= HISTORY_WHOLE && history.whole_count > HISTORY_WHOLE / 2 - 1);
    json = told();
    rows = cJSON_GetArraySize(cJSON_GetObjectItem(json, "rows"));
    assert_true(rows <= HISTORY_RECENT + HISTORY_WHOLE && rows > HISTORY_RECENT + HISTORY_WHOLE / 2 - 2);
    for (int i = 0; i < rows; i++) {
        double time = at(json, i, 0), value = at(json, i, 1);

        assert_true(time > before);
        before = time;
        if (i >= rows - HISTORY_RECENT) /* %.6g keeps six digits */
            assert_true(fabs(time - (seconds - rows + i)) <= 1 && fabs(value - time) <= 10);
        else /* the mean of an interval that starts here */
            assert_true(fabs(value - (time + (history.interval - 1) / 2)) < 12);
    }
    cJSON_Delete(json);
}

static void gaps_and_nonsense(void **state)
{
    cJSON *json;

    (void)state;
    history_init(&history);
    json = told();
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "rows")), 0);
    cJSON_Delete(json);
    push(5, 1);
    push(4, 2); /* backwards, and no time at all */
    push(NAN, 3);
    push(INFINITY, 3);
    push(6, NAN);
    push(7, INFINITY);
    push(1e9, 4); /* a machine asleep for long costs no rows */
    push(1e9 + 1, 5);
    assert_true(history.whole_count <= 4);
    json = told();
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "rows")), 5);
    assert_true(at(json, 0, 1) == 1 && isnan(at(json, 1, 1)) && isnan(at(json, 2, 1)) && at(json, 4, 1) == 5);
    cJSON_Delete(json);
}

static void the_registry_is_read(void **state)
{
    struct metrics_owner owner = {"learner", METRIC_LEARNER, 0, 1, 2};
    uint64_t now = clock_ms();
    metrics_t *metrics;
    const cJSON *columns;
    cJSON *json;
    int count;

    (void)state;
    history_init(&history);
    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    metrics_set(metrics, METRIC_ratio, 0.75);
    metrics_tick(metrics, now);
    metrics_add(metrics, METRIC_updates, 40);
    metrics_tick(metrics, now + 4000);
    history_add(&history, metrics, now + 4000, 12.5);
    json = told();
    columns = cJSON_GetObjectItem(json, "columns");
    count = cJSON_GetArraySize(columns);
    for (int i = 1; i < count; i++) {
        const char *name = cJSON_GetArrayItem(columns, i)->valuestring;

        if (strcmp(name, "ratio") == 0)
            assert_true(at(json, 0, i) == 0.75);
        else if (strcmp(name, "updates_per_s") == 0)
            assert_true(fabs(at(json, 0, i) - metrics_rate(metrics, METRIC_updates, now + 4000)) < 1e-3 && at(json, 0, i) > 0);
        else if (strcmp(name, "replay_steps") == 0)
            assert_true(isnan(at(json, 0, i)));
    }
    assert_true(at(json, 0, 0) == 12.5);
    cJSON_Delete(json);
    metrics_destroy(&metrics);
}

static void an_earlier_life_comes_back(void **state)
{
    char path[FS_PATH_MAX];
    double values[CSV_TRAIN_COUNT];
    struct error err = {0};
    csv_t *csv;

    (void)state;
    snprintf(path, sizeof(path), "%s/train.csv", test_folder());
    history_init(&history);
    history_restore(&history, path, 2); /* there is none */
    assert_true(history.rows == 0 && history.last == -1);
    assert_ok(csv_open(&csv, path, csv_train_columns, CSV_TRAIN_COUNT, UINT64_MAX, NULL, &err), err);
    for (int i = 0; i < 100; i++) {
        csv_train_stats(values, NULL);
        for (int column = 0; column < CSV_TRAIN_STATS; column++)
            values[column] = 0;
        values[CSV_TRAIN_STEP] = 500 * i;
        values[CSV_TRAIN_UPDATES] = 250 * i;
        values[CSV_TRAIN_TIME] = 10 * i + (i % 2 == 0 ? 0.5 : 0);
        values[CSV_TRAIN_RATE] = 50;
        assert_ok(csv_append(csv, values, &err), err);
    }
    csv_close(&csv);
    history_restore(&history, path, 2);
    assert_true(history.last == 990);
    assert_int_equal(history.recent_count, 0);
    assert_int_equal(history.whole_count, 99); /* and the one under way */
    assert_true(history.whole[50].value[HISTORY_env_steps] == 100);
    assert_true(fabsf(history.whole[50].value[HISTORY_ratio] - 0.5f) < 1e-6f);
    assert_true(fabsf(history.whole[50].value[HISTORY_updates] - 25) < 2);
    assert_true(isnan(history.whole[50].value[HISTORY_replay_steps]));
    push(1000, 7); /* this life goes on where that one ended */
    assert_int_equal(history.recent_count, 1);
    cJSON *json = told();
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "rows")), 101);
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_week_is_kept_in_bounds),
        cmocka_unit_test(gaps_and_nonsense),
        cmocka_unit_test(the_registry_is_read),
        cmocka_unit_test(an_earlier_life_comes_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
