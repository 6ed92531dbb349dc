/* Means over seeds, and the picture that the command makes of run directories and published files. */
#include "tests/support/test.h"

#include <math.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "tools/commands.h"
#include "tools/plot.h"

static void means_are_taken_where_seeds_are(void **state)
{
    double a_steps[] = {0, 100, 200}, a[] = {0, 10, 20}, b_steps[] = {0, 50, 100}, b[] = {4, 4, 4};
    struct curve_series series[] = {{.steps = a_steps, .values = a, .count = 3}, {.steps = b_steps, .values = b, .count = 3},
                                    {.count = 0}};
    struct plot_point points[8];

    (void)state;
    assert_int_equal(plot_mean(series, 3, points, 8), 4); /* 0, 50, 100, 200 */
    assert_true(points[0].mean == 2 && points[0].seeds == 2);
    assert_true(points[1].step == 50 && points[1].mean == 4.5); /* 5 on the line, 4 */
    assert_true(points[2].mean == 7);
    assert_true(points[3].step == 200 && points[3].mean == 20 && points[3].seeds == 1);
    /* two values 10 and 4: s = 4.2426, t(1) = 12.706, so 12.706 * 3 */
    assert_float_equal(points[2].high - points[2].mean, 38.118, 1e-6);
    assert_float_equal(points[2].mean - points[2].low, 38.118, 1e-6);
    assert_true(points[3].low == 20 && points[3].high == 20);
    assert_int_equal(plot_mean(series, 3, points, 2), 2);
    assert_int_equal(plot_mean(series, 0, points, 2), 0);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[FS_PATH_MAX];
    struct error err = {0};

    assert_ok(fs_mkdirs(folder, 0755, &err), err);
    assert_ok(fs_join(path, folder, name, &err), err);
    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
}

static char *folder_of(const char *name)
{
    static char paths[8][512];
    static int used;

    snprintf(paths[used], sizeof(paths[0]), "%s/%s", test_folder(), name);
    return paths[used++];
}

/* The words of the command, the picture's text. */
static char *draw(char **words, int count, const char *picture, int expected)
{
    struct error err = {0};
    char *text = NULL;
    size_t length;

    assert_int_equal(cmd_plot(count, words), expected);
    if (expected == TD_EXIT_OK)
        assert_ok(fs_read_file(picture, 10u << 20, &text, &length, &err), err);
    return text;
}

static void a_picture_has_every_line(void **state)
{
    char *one = folder_of("one"), *two = folder_of("two"), *mw = folder_of("mw"), *official = folder_of("official");
    char *svg = folder_of("out.svg"), *png = folder_of("out.png"), *text;
    char *words[] = {"plot", one, two, mw, "--official", official, "--out", svg};
    char *bad[] = {"plot", one, "--out", "picture.jpg"}, *none[] = {"plot", test_folder() != NULL ? official : NULL};

    (void)state;
    if (access("/usr/bin/gnuplot", X_OK) != 0)
        skip();
    put(one, "config.yaml", "task: walker-walk\nseed: 1\nexp_name: it's\n");
    put(one, "eval.csv", "step,episode_reward,env_step\n0,10,0\n500,110,1000\n");
    put(two, "config.yaml", "task: walker-walk\nseed: 2\nexp_name: it's\n");
    put(two, "eval.csv", "step,episode_reward,env_step\n0,20,0\n500,130,1000\n");
    put(mw, "config.yaml", "task: mw-hammer\n");
    put(mw, "eval.csv", "step,episode_reward,episode_success\n0,999,0.25\n500,999,0.75\n");
    put(official, "walker-walk.csv", "step,reward,seed\n0,30,1\n1000,900,1\n0,40,2\n1000,920,2\n");
    put(official, "mw-hammer.csv", "step,success,seed\n0,0,1\n1000,1,1\n");
    text = draw(words, 8, svg, TD_EXIT_OK);
    assert_non_null(strstr(text, "walker-walk"));
    assert_non_null(strstr(text, "mw-hammer"));
    assert_true(strstr(text, "it&apos;s (2 seeds)") != NULL || strstr(text, "it&#39;s (2 seeds)") != NULL ||
                strstr(text, "it's (2 seeds)") != NULL);
    assert_non_null(strstr(text, "published (2 seeds)"));
    assert_non_null(strstr(text, "published (1 seed)"));
    assert_non_null(strstr(text, "success rate"));
    assert_non_null(strstr(text, "environment steps"));
    free(text);
    words[7] = png;
    text = draw(words, 8, png, TD_EXIT_OK);
    assert_memory_equal(text, "\x89PNG", 4);
    free(text);
    draw(bad, 4, "", TD_EXIT_BAD_INPUT);
    draw(none, 2, "", TD_EXIT_BAD_INPUT); /* no run */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_are_taken_where_seeds_are),
        cmocka_unit_test(a_picture_has_every_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
