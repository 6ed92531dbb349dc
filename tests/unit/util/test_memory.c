#include "tests/support/test.h"

#include "common/util/fs.h"
#include "common/util/memory.h"

static void put(const char *name, const char *text)
{
    char path[FS_PATH_MAX];
    struct error err = {0};

    assert_int_equal(fs_join(path, test_folder(), name, NULL), TD_OK);
    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
}

static void the_tighter_limit_counts(void **state)
{
    char meminfo[FS_PATH_MAX];

    (void)state;
    assert_int_equal(fs_join(meminfo, test_folder(), "meminfo", NULL), TD_OK);
    assert_true(memory_available_from(meminfo, test_folder()) == UINT64_MAX);
    put("meminfo", "MemTotal:  2000 kB\nMemAvailable:    1000 kB\n");
    assert_int_equal(memory_available_from(meminfo, test_folder()), 1000 * 1024);
    put("memory.current", "5000\n");
    put("memory.max", "max\n");
    assert_int_equal(memory_available_from(meminfo, test_folder()), 1000 * 1024);
    put("memory.max", "6000\n");
    assert_int_equal(memory_available_from(meminfo, test_folder()), 1000);
    put("memory.max", "4000\n");
    assert_int_equal(memory_available_from(meminfo, test_folder()), 0);
}

static void both_figures_are_said(void **state)
{
    struct error err = {0};

    (void)state;
    assert_int_equal(memory_check(1, "it", "less", &err), TD_OK);
    assert_int_equal(memory_check((uint64_t)1 << 60, "a model", "make it smaller", &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "a model needs 1152921504.6 GB of memory, "));
    assert_non_null(strstr(err.text, " GB are available: make it smaller"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tighter_limit_counts),
        cmocka_unit_test(both_figures_are_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
