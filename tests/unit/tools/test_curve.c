#include "tests/support/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "tools/curve.h"

static char path[FS_PATH_MAX];

static const char *put(const char *name, const char *text)
{
    FILE *file;

    assert_int_equal(fs_join(path, test_folder(), name, NULL), TD_OK);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

static void points_stand_where_they_belong(void **state)
{
    struct curve curve = {0};
    struct error err = {0};
    char *text = NULL, *lines[16], *rest = NULL;
    size_t size;
    int count = 0;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    assert_ok(curve_add(&curve, put("a.csv", "step,episode_reward\n0,0\n50,100\n100,100\n"), false, &err), err);
    assert_int_equal(curve.count, 1);
    assert_int_equal(curve.series[0].count, 3);
    curve_draw(&curve, out, 32, 9); /* 21 columns, 7 rows */
    fclose(out);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        lines[count++] = line;
    assert_int_equal(count, 9);
    assert_string_equal(lines[0], "    100.0 |          *.........*");
    assert_string_equal(lines[6], "      0.0 |*");
    assert_string_equal(lines[7], "          +---------------------");
    assert_non_null(strstr(lines[8], "agent steps"));
    free(text);
    curve_release(&curve);
}

static void each_seed_is_a_curve(void **state)
{
    struct curve curve = {0};
    struct error err = {0};
    const char *file = put("published.csv", "step,reward,seed\n0,1,1\n10,2,1\n0,3,2\n10,4,2\n20,5,2\n");

    (void)state;
    assert_true(curve_counts_env_steps(file));
    assert_ok(curve_add(&curve, file, true, &err), err);
    assert_int_equal(curve.count, 2);
    assert_int_equal(curve.series[0].count, 2);
    assert_int_equal(curve.series[1].count, 3);
    assert_true(curve.series[1].values[2] == 5);
    file = put("run.csv", "step,episode_reward,env_step\n5,7,10\n6,8,12\n");
    assert_false(curve_counts_env_steps(file));
    assert_ok(curve_add(&curve, file, true, &err), err);
    assert_true(curve.series[2].steps[1] == 12);
    curve_release(&curve);
}

static void little_or_nothing_is_drawn_too(void **state)
{
    static const char *const files[] = {"step,reward\n", "step,reward\n5,7\n", "step,reward\n5,-7\n5,-7\n",
                                        "step,reward\n5,\n6,inf\n", "step,reward\n1,1e300\n2,-1e300\n"};
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < TD_LEN(files); i++) {
        struct curve curve = {0};
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);

        assert_ok(curve_add(&curve, put("few.csv", files[i]), false, &err), err);
        curve_draw(&curve, out, 1, 1);
        fclose(out);
        assert_true(size > 10);
        free(text);
        curve_release(&curve);
    }
}

static void other_files_are_refused(void **state)
{
    struct curve curve = {0};
    struct error err = {0};

    (void)state;
    assert_int_equal(curve_add(&curve, put("b.csv", "a,b\n1,2\n"), false, &err), TD_ECORRUPT);
    assert_int_equal(curve_add(&curve, "no/such.csv", false, &err), TD_ENOTFOUND);
    assert_int_equal(curve_add(&curve, "tests", false, &err), TD_ENOTFOUND);
    for (int i = 0; i < CURVE_SERIES_MAX; i++)
        assert_ok(curve_add(&curve, put("c.csv", "step,reward\n1,2\n"), false, &err), err);
    assert_int_equal(curve_add(&curve, path, false, &err), TD_EINVAL);
    curve_release(&curve);
}

static void a_picture_is_written_whole(void **state)
{
    struct curve curve = {0};
    struct error err = {0};
    char picture[FS_PATH_MAX], *bytes, *places = strdup(getenv("PATH"));
    size_t length;
    int rc;

    (void)state;
    assert_int_equal(fs_join(picture, test_folder(), "it's.png", NULL), TD_OK);
    assert_int_equal(curve_png(&curve, picture, &err), TD_ENOTFOUND);
    assert_ok(curve_add(&curve, put("it's '$x' `date`.csv", "step,reward\n1,2\n2,3\n"), false, &err), err);
    rc = curve_png(&curve, picture, &err);
    assert_ok(rc, err);
    assert_ok(fs_read_file(picture, 1 << 20, &bytes, &length, &err), err);
    assert_memory_equal(bytes, "\x89PNG", 4);
    free(bytes);
    assert_int_equal(curve_png(&curve, "no/such/folder.png", &err), TD_EINVAL);
    setenv("PATH", "/nonexistent", 1);
    assert_int_equal(curve_png(&curve, picture, &err), TD_ENOTFOUND);
    setenv("PATH", places, 1);
    free(places);
    assert_non_null(strstr(err.text, "gnuplot-nox"));
    curve_release(&curve);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_stand_where_they_belong), cmocka_unit_test(each_seed_is_a_curve),
        cmocka_unit_test(little_or_nothing_is_drawn_too), cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(a_picture_is_written_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
