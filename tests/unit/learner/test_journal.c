#include "tests/support/test.h"

#include <math.h>
#include <unistd.h>

#include "learner/csv.h"
#include "learner/journal.h"

static struct run run_in(const char *name)
{
    struct run run = {.lock = -1};
    struct error err;

    snprintf(run.dir, sizeof(run.dir), "%s/%s", test_folder(), name);
    assert_ok(fs_mkdirs(run.dir, 0755, &err), err);
    config_init(&run.config);
    return run;
}

static struct csv_data load(const struct run *run, const char *name)
{
    struct csv_data data;
    char path[FS_PATH_MAX];
    struct error err;

    assert_ok(run_path(run, name, path, &err), err);
    assert_ok(csv_load(&data, path, &err), err);
    return data;
}

static double cell(const struct csv_data *data, int row, int column)
{
    return data->values[(size_t)row * (size_t)data->columns + (size_t)column];
}

static void write_episodes(journal_t *journal, int from, int to)
{
    struct update_stats stats = {.total_loss = 3};

    for (int i = from; i < to; i++) {
        struct command_train_row train = {.step = 100u * (unsigned)i, .episode = (unsigned)i, .reward = i + 0.5,
                                          .length = 100, .updates = 7};
        struct command_eval_row eval = {.step = 100u * (unsigned)i, .version = 6, .episodes = 10, .reward = 200 + i,
                                        .length = 500, .has_success = true, .success = 0.25};

        journal_train(journal, &train, i == 0 ? NULL : &stats, 12.5);
        journal_eval(journal, &eval);
    }
}

static void rows_are_written_as_given(void **state)
{
    struct run run = run_in("a");
    struct csv_data data;
    struct error err;
    journal_t *journal;

    (void)state;
    assert_ok(journal_open(&journal, &run, 2, NULL, &err), err);
    write_episodes(journal, 0, 3);
    journal_sync(journal);
    journal_close(&journal);
    assert_null(journal);
    data = load(&run, "train.csv");
    assert_int_equal(data.rows, 3);
    assert_true(cell(&data, 2, CSV_TRAIN_STEP) == 200 && cell(&data, 2, CSV_TRAIN_REWARD) == 2.5);
    assert_true(isnan(cell(&data, 2, CSV_TRAIN_SUCCESS)));
    assert_true(isnan(cell(&data, 0, csv_column(&data, "total_loss"))));
    assert_true(cell(&data, 1, csv_column(&data, "total_loss")) == 3);
    csv_release(&data);
    data = load(&run, "eval.csv");
    assert_true(cell(&data, 1, CSV_EVAL_REWARD) == 201 && cell(&data, 1, CSV_EVAL_ENV_STEP) == 200);
    assert_true(cell(&data, 1, CSV_EVAL_SUCCESS) == 0.25 && cell(&data, 1, CSV_EVAL_UPDATES) == 6);
    csv_release(&data);
}

static void a_rollback_removes_what_will_come_again(void **state)
{
    struct command_rollback some = {.eval_below = 201, .train_below = 200}, all = {0, 0};
    struct command_rollback none = {UINT64_MAX, UINT64_MAX};
    struct run run = run_in("b");
    struct csv_data data;
    struct error err;
    journal_t *journal;

    (void)state;
    assert_ok(journal_open(&journal, &run, 2, NULL, &err), err);
    write_episodes(journal, 0, 5);
    assert_ok(journal_rollback(journal, &none, &err), err);
    assert_ok(journal_rollback(journal, &some, &err), err);
    data = load(&run, "train.csv");
    assert_int_equal(data.rows, 2);
    csv_release(&data);
    data = load(&run, "eval.csv");
    assert_int_equal(data.rows, 3);
    csv_release(&data);
    write_episodes(journal, 2, 3);
    data = load(&run, "train.csv");
    assert_int_equal(data.rows, 3);
    assert_true(cell(&data, 2, CSV_TRAIN_STEP) == 200);
    csv_release(&data);
    assert_ok(journal_rollback(journal, &all, &err), err); /* step 0 too */
    write_episodes(journal, 0, 1);
    data = load(&run, "eval.csv");
    assert_int_equal(data.rows, 1);
    csv_release(&data);
    journal_close(&journal);
}

static void time_goes_on_where_the_last_life_ended(void **state)
{
    struct run run = run_in("c");
    struct csv_data data;
    char path[FS_PATH_MAX];
    struct error err;
    journal_t *journal;
    csv_t *csv;
    double values[CSV_TRAIN_COUNT] = {[CSV_TRAIN_STEP] = 700, [CSV_TRAIN_TIME] = 5000};

    (void)state;
    assert_ok(run_path(&run, "train.csv", path, &err), err);
    assert_ok(csv_open(&csv, path, csv_train_columns, CSV_TRAIN_COUNT, UINT64_MAX, NULL, &err), err);
    assert_ok(csv_append(csv, values, &err), err);
    csv_close(&csv);
    assert_ok(journal_open(&journal, &run, 2, NULL, &err), err);
    assert_true(journal_seconds(journal) >= 5000 && journal_seconds(journal) < 5100);
    write_episodes(journal, 1, 2); /* step 100: counts of several shards may fall behind, the column not */
    data = load(&run, "train.csv");
    assert_true(cell(&data, 1, CSV_TRAIN_STEP) == 700 && cell(&data, 1, CSV_TRAIN_TIME) >= 5000);
    csv_release(&data);
    journal_close(&journal);
}

static void every_task_has_its_columns(void **state)
{
    char path[FS_PATH_MAX];
    struct task tasks[] = {{.name = "walker-walk"}, {.name = "mw-reach"}};
    struct task_set set = {.count = 2, .task = tasks, .multitask = true};
    struct command_eval_row row = {.step = 100, .reward = 360, .episodes = 2, .score_count = 2,
                                   .scores = {{700, 500, false, 0}, {20, 100, true, 0.5}}};
    struct run run = run_in("e");
    struct csv_data data;
    struct error err;
    journal_t *journal;

    (void)state;
    for (int life = 0; life < 2; life++) { /* the second goes on in the same file */
        assert_ok(journal_open(&journal, &run, 1.5, &set, &err), err);
        journal_eval(journal, &row);
        row.score_count = 0; /* an evaluator of an older build: nothing is known of the tasks */
        row.step = 200;
        journal_close(&journal);
    }
    data = load(&run, "eval.csv");
    assert_int_equal(data.rows, 2);
    assert_string_equal(data.names[0], "step");
    assert_string_equal(data.names[1], "episode_reward");
    assert_true(cell(&data, 0, 1) == 360);
    assert_true(cell(&data, 0, csv_column(&data, "env_step")) == 150 && cell(&data, 1, csv_column(&data, "env_step")) == 300);
    assert_true(cell(&data, 0, csv_column(&data, "normalized_score")) == (70 + 50) / 2.0);
    assert_true(cell(&data, 0, csv_column(&data, "episode_reward+walker-walk")) == 700);
    assert_true(isnan(cell(&data, 0, csv_column(&data, "episode_success+walker-walk"))));
    assert_true(cell(&data, 0, csv_column(&data, "episode_reward+mw-reach")) == 20);
    assert_true(cell(&data, 0, csv_column(&data, "episode_success+mw-reach")) == 0.5);
    assert_true(isnan(cell(&data, 1, csv_column(&data, "normalized_score"))));
    assert_true(isnan(cell(&data, 1, csv_column(&data, "episode_reward+walker-walk"))));
    csv_release(&data);
    set.count = 1;
    assert_ok(journal_open(&journal, &run, 2, &set, &err), err); /* columns that are no longer ours stay in the file beside */
    journal_close(&journal);
    assert_ok(run_path(&run, "eval.csv.old", path, &err), err);
    assert_int_equal(access(path, F_OK), 0);
    data = load(&run, "eval.csv");
    assert_true(data.rows == 2 && cell(&data, 0, 1) == 360);
    assert_true(csv_column(&data, "episode_reward+walker-walk") >= 0 && csv_column(&data, "episode_reward+mw-reach") < 0);
    csv_release(&data);
}

static void nothing_is_written_without_save_csv(void **state)
{
    struct command_rollback all = {0, 0};
    struct run run = run_in("d");
    char path[FS_PATH_MAX];
    struct error err;
    journal_t *journal;

    (void)state;
    run.config.save_csv = false;
    assert_ok(journal_open(&journal, &run, 2, NULL, &err), err);
    write_episodes(journal, 0, 2);
    assert_ok(journal_rollback(journal, &all, &err), err);
    journal_close(&journal);
    assert_ok(run_path(&run, "train.csv", path, &err), err);
    assert_int_not_equal(access(path, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_written_as_given),
        cmocka_unit_test(a_rollback_removes_what_will_come_again),
        cmocka_unit_test(time_goes_on_where_the_last_life_ended),
        cmocka_unit_test(every_task_has_its_columns),
        cmocka_unit_test(nothing_is_written_without_save_csv),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
