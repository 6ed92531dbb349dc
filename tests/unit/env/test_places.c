#include "common/env/places.h"
#include "tests/support/test.h"

static void folders_are_joined_and_cut(void **state)
{
    char path[FS_PATH_MAX], longest[FS_PATH_MAX];

    (void)state;
    assert_true(place_join(path, "/a/b", "c/d"));
    assert_string_equal(path, "/a/b/c/d");
    assert_true(place_parent(path));
    assert_string_equal(path, "/a/b/c");
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_false(place_join(path, longest, "c"));
    strcpy(path, "/a");
    assert_false(place_parent(path));
    strcpy(path, "a");
    assert_false(place_parent(path));
}

static void a_source_tree_holds_the_innermost_build(void **state)
{
    static const char *const cases[][2] = {
        {"/home/me/project/build/release", "/home/me/project"},
        {"/home/me/project/build", "/home/me/project"},
        {"/build/project/build/release/tests/unit", "/build/project"},
        {"/home/me/building/release", NULL},
        {"/usr/bin", NULL},
        {"/build", NULL},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        char folder[FS_PATH_MAX];

        strcpy(folder, cases[i][0]);
        assert_int_equal(place_source_tree(folder), cases[i][1] != NULL);
        if (cases[i][1] != NULL)
            assert_string_equal(folder, cases[i][1]);
    }
}

static void what_cannot_be_read_is_not_there(void **state)
{
    (void)state;
    assert_true(place_exists("/"));
    assert_false(place_exists("/nonexistent/file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_are_joined_and_cut),
        cmocka_unit_test(a_source_tree_holds_the_innermost_build),
        cmocka_unit_test(what_cannot_be_read_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
