#include "tests/support/test.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "learner/csv.h"

static const char *const columns[] = {"step", "reward", "loss"};
static char path[FS_PATH_MAX];
static int writes_left;

static int fresh_file(void **state)
{
    (void)state;
    return fs_join(path, test_folder(), "log.csv", NULL) == TD_OK ? fs_remove_tree(path, NULL) : -1;
}

static void assert_text(const char *expected)
{
    struct error err = {0};
    char *text;

    assert_ok(fs_read_file(path, 1 << 20, &text, NULL, &err), err);
    assert_string_equal(text, expected);
    free(text);
}

static void put(const char *text)
{
    struct error err = {0};

    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
}

static void append(csv_t *csv, double step, double reward, double loss)
{
    struct error err = {0};

    assert_ok(csv_append(csv, (double[]){step, reward, loss}, &err), err);
}

static csv_t *open_to(uint64_t last_step, struct csv_cut *cut)
{
    struct error err = {0};
    csv_t *csv;

    assert_ok(csv_open(&csv, path, columns, 3, last_step, cut, &err), err);
    return csv;
}

static void lines_read_back_exactly(void **state)
{
    struct csv_data data;
    struct error err = {0};
    csv_t *csv = open_to(UINT64_MAX, NULL);

    (void)state;
    append(csv, 0, 12.5, NAN);
    append(csv, 1000000, 0.1, -1e-30);
    append(csv, 1000500, 1.0 / 3.0, INFINITY);
    assert_ok(csv_sync(csv, &err), err);
    csv_close(&csv);
    assert_text("step,reward,loss\n0,12.5,\n1000000,0.1,-1e-30\n1000500,0.3333333333333333,inf\n");
    assert_ok(csv_load(&data, path, &err), err);
    assert_int_equal(data.columns, 3);
    assert_int_equal(data.rows, 3);
    assert_int_equal(csv_column(&data, "loss"), 2);
    assert_int_equal(csv_column(&data, "lose"), -1);
    assert_true(data.values[0] == 0 && data.values[1] == 12.5 && isnan(data.values[2]));
    assert_true(data.values[7] == 1.0 / 3.0 && isinf(data.values[8]));
    csv_release(&data);
    csv_release(&data);
}

static void opening_again_goes_on_and_cuts_back(void **state)
{
    struct csv_cut cut;
    struct error err = {0};
    csv_t *csv = open_to(UINT64_MAX, &cut);

    (void)state;
    assert_int_equal(cut.later + cut.damaged, 0);
    append(csv, 10, 1, 1);
    append(csv, 20, 2, 2);
    append(csv, 30, 3, 3);
    csv_close(&csv);
    csv = open_to(20, &cut);
    assert_int_equal(cut.later, 1);
    append(csv, 25, 2.5, 0);
    assert_text("step,reward,loss\n10,1,1\n20,2,2\n25,2.5,0\n");
    assert_ok(csv_cut(csv, 15, &err), err);
    append(csv, 16, 4, 4);
    assert_text("step,reward,loss\n10,1,1\n16,4,4\n");
    assert_ok(csv_cut(csv, 100, &err), err);
    assert_text("step,reward,loss\n10,1,1\n16,4,4\n");
    csv_close(&csv);
}

static void torn_and_damaged_lines_do_not_stop_a_run(void **state)
{
    static const char spoilt[] = "step,reward,loss\n1,1,1\n2,x,2\n3,3\n4,4,4,4\n-5,1,1\n6.5,1,1\n\n7,,7\n8,8,";
    char aside[FS_PATH_MAX], *text;
    struct csv_cut cut;
    struct error err = {0};
    csv_t *csv;

    (void)state;
    put(spoilt);
    csv = open_to(UINT64_MAX, &cut);
    assert_int_equal(cut.damaged, 6);
    append(csv, 9, 9, 9);
    csv_close(&csv);
    assert_text("step,reward,loss\n1,1,1\n7,,7\n9,9,9\n");
    snprintf(aside, sizeof(aside), "%.4000s.damaged", path);
    assert_ok(fs_read_file(aside, 1000, &text, NULL, &err), err);
    assert_string_equal(text, spoilt);
    free(text);

    put("step,reward,loss\n1,1,1\n2,2"); /* torn only: nothing to keep */
    unlink(aside);
    csv = open_to(UINT64_MAX, &cut);
    csv_close(&csv);
    assert_int_equal(cut.damaged, 0);
    assert_text("step,reward,loss\n1,1,1\n");
    assert_int_not_equal(access(aside, F_OK), 0);

    put("step,rew"); /* killed while it was made */
    csv = open_to(UINT64_MAX, &cut);
    csv_close(&csv);
    assert_text("step,reward,loss\n");
}

/* Names that are ours are kept, wherever they stand; the file as it was stays beside. */
static void a_file_of_an_earlier_version_is_taken_over(void **state)
{
    static const struct {
        const char *was, *is;
        int later, damaged;
    } cases[] = {
        {"step,reward\n1,1.5\n2,\n9,7\n", "step,reward,loss\n1,1.5,\n2,,\n", 1, 0},
        {"step,loss,other,reward\n1,2,3,4\n2,5,,7\n", "step,reward,loss\n1,4,2\n2,7,5\n", 0, 0},
        {"step,reward,loss,other\n1,2,3,4\n1,2\n2,5,torn", "step,reward,loss\n1,2,3\n", 0, 1},
        {"step\n1\n2\n", "step,reward,loss\n1,,\n2,,\n", 0, 0},
        {"step,reward,losses\n", "step,reward,loss\n", 0, 0},
    };
    char beside[FS_PATH_MAX + 8];

    (void)state;
    snprintf(beside, sizeof(beside), "%s.old", path);
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        struct csv_cut cut;
        struct error err;
        csv_t *csv;
        char *old;
        size_t length;

        put(cases[i].was);
        csv = open_to(2, &cut);
        assert_true(cut.translated && cut.later == cases[i].later && cut.damaged == cases[i].damaged);
        csv_close(&csv);
        assert_text(cases[i].is);
        assert_ok(fs_read_file(beside, 1000, &old, &length, &err), err);
        assert_string_equal(old, cases[i].was);
        free(old);
        csv = open_to(2, &cut); /* once and for all */
        assert_false(cut.translated);
        csv_close(&csv);
        assert_text(cases[i].is);
    }
}

static void another_kind_of_file_is_refused(void **state)
{
    struct error err = {0};
    csv_t *csv;

    (void)state;
    put("iteration,reward,loss\n1,1,1\n");
    assert_int_equal(csv_open(&csv, path, columns, 3, 0, NULL, &err), TD_EFOREIGN);
    assert_null(csv);
    assert_text("iteration,reward,loss\n1,1,1\n");
    assert_int_equal(csv_open(&csv, "no/such/folder/x.csv", columns, 3, 0, NULL, &err), TD_ENOTFOUND);
}

static int full_disk(const char *operation, const char *name)
{
    (void)name;
    return strcmp(operation, "write") == 0 && writes_left-- <= 0 ? ENOSPC : 0;
}

static void a_full_disk_leaves_whole_lines(void **state)
{
    struct error err = {0};
    csv_t *csv = open_to(UINT64_MAX, NULL);

    (void)state;
    append(csv, 1, 1, 1);
    writes_left = 0;
    fs_fault = full_disk;
    assert_int_equal(csv_append(csv, (double[]){2, 2, 2}, &err), TD_EFULL);
    assert_int_equal(csv_cut(csv, 0, &err), TD_EFULL);
    fs_fault = NULL;
    append(csv, 3, 3, 3);
    csv_close(&csv);
    assert_text("step,reward,loss\n1,1,1\n3,3,3\n");
}

static void loading_survives_any_bytes(void **state)
{
    struct csv_data data;
    struct error err = {0};

    (void)state;
    for (int i = 0; i < 500; i++) {
        char text[200];
        FILE *file = fopen(path, "w");
        size_t length = rng_u32(test_rng()) % sizeof(text);

        for (size_t j = 0; j < length; j++)
            text[j] = "0123456789,,,\n\n.e-x step"[rng_u32(test_rng()) % 24];
        assert_int_equal(fwrite(text, 1, length, file), length);
        fclose(file);
        if (csv_load(&data, path, &err) == TD_OK)
            csv_release(&data);
    }
    put("");
    assert_int_equal(csv_load(&data, path, &err), TD_ECORRUPT);
    assert_int_equal(csv_load(&data, "none.csv", &err), TD_ENOTFOUND);
}

static void the_columns_are_those_of_the_reference_and_more(void **state)
{
    struct update_stats stats = {.consistency_loss = 1.5f, .grad_norm = 2.5f};
    double values[CSV_TRAIN_COUNT];

    (void)state;
    assert_string_equal(csv_eval_columns[0], "step");
    assert_string_equal(csv_eval_columns[1], "episode_reward");
    for (int i = 0; i < CSV_EVAL_COUNT; i++)
        assert_non_null(csv_eval_columns[i]);
    for (int i = 0; i < CSV_TRAIN_COUNT; i++)
        assert_non_null(csv_train_columns[i]);
    assert_string_equal(csv_train_columns[CSV_TRAIN_RATE], "steps_per_second");
    assert_string_equal(csv_train_columns[CSV_TRAIN_STATS], "consistency_loss");
    assert_string_equal(csv_eval_columns[CSV_EVAL_TIME], "elapsed_time");
    csv_train_stats(values, &stats);
    assert_true(values[CSV_TRAIN_STATS] == 1.5 && values[CSV_TRAIN_STATS + 5] == 2.5);
    csv_train_stats(values, NULL);
    assert_true(isnan(values[CSV_TRAIN_STATS]) && isnan(values[CSV_TRAIN_COUNT - 1]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lines_read_back_exactly, fresh_file),
        cmocka_unit_test_setup(opening_again_goes_on_and_cuts_back, fresh_file),
        cmocka_unit_test_setup(torn_and_damaged_lines_do_not_stop_a_run, fresh_file),
        cmocka_unit_test_setup(a_file_of_an_earlier_version_is_taken_over, fresh_file),
        cmocka_unit_test_setup(another_kind_of_file_is_refused, fresh_file),
        cmocka_unit_test_setup(a_full_disk_leaves_whole_lines, fresh_file),
        cmocka_unit_test_setup(loading_survives_any_bytes, fresh_file),
        cmocka_unit_test(the_columns_are_those_of_the_reference_and_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
