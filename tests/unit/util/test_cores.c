#include "tests/support/test.h"

#include <sched.h>

#include "common/util/cores.h"
#include "common/util/fs.h"

/* A file under the test's folder, with its parents. */
static void put(const char *name, const char *text)
{
    char path[FS_PATH_MAX], *slash;
    struct error err = {0};
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", test_folder(), name);
    slash = strrchr(path, '/');
    *slash = '\0';
    assert_ok(fs_mkdirs(path, 0755, &err), err);
    *slash = '/';
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static double quota(const char *membership, const char *root)
{
    char file[FS_PATH_MAX], folder[FS_PATH_MAX];

    put("membership", membership);
    snprintf(file, sizeof(file), "%s/membership", test_folder());
    snprintf(folder, sizeof(folder), "%s/%s", test_folder(), root);
    return cores_quota(file, folder);
}

static void version_2_counts_the_tightest_on_the_way_up(void **state)
{
    (void)state;
    put("v2/a/b/cpu.max", "max 100000\n");
    put("v2/a/cpu.max", "150000 100000\n");
    put("v2/cpu.max", "400000 100000\n"); /* a container's own root has one */
    assert_true(quota("0::/a/b\n", "v2") == 1.5);
    assert_true(quota("0::/a/b/c\n", "v2") == 1.5);
    assert_true(quota("0::/\n", "v2") == 4);
    assert_true(quota("0::/the/hosts/path\n", "v2") == 4);
    put("v2/a/b/cpu.max", "50000 100000\n");
    assert_true(quota("0::/a/b\n", "v2") == 0.5);
}

static void version_1_is_two_files(void **state)
{
    (void)state;
    put("v1/cpu/job/cpu.cfs_quota_us", "300000\n");
    put("v1/cpu/job/cpu.cfs_period_us", "100000\n");
    put("v1/cpu/cpu.cfs_quota_us", "-1\n");
    put("v1/cpu/cpu.cfs_period_us", "100000\n");
    assert_true(quota("12:memory:/job\n4:cpu:/job\n0::/\n", "v1") == 3);
    assert_true(quota("4:cpu,cpuacct:/job\n", "v1") == 3);
    assert_true(quota("4:cpuacct,cpu:/other\n", "v1") == 0);
    assert_true(quota("4:cpuacct:/job\n5:cpuset:/job\n", "v1") == 0);
    put("v1/cpu,cpuacct/job/cpu.cfs_quota_us", "200000\n");
    put("v1/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    assert_true(quota("4:cpu,cpuacct:/job\n", "v1") == 2);
}

static void what_makes_no_sense_is_no_quota(void **state)
{
    static const char *const files[] = {"", "max", "max 100000", "-5 100000", "5", "1 0", "text more"};

    (void)state;
    for (size_t i = 0; i < TD_LEN(files); i++) {
        put("odd/cpu.max", files[i]);
        assert_true(quota("0::/\n", "odd") == 0);
    }
    put("odd/cpu.max", "100000 100000\n");
    assert_true(quota("", "odd") == 0);
    assert_true(quota("0\n0:\n0::\n0::nowhere\n", "odd") == 0);
    assert_true(quota("0::/\n", "missing") == 0);
    assert_true(cores_quota("/nowhere/membership", "/nowhere") == 0);
}

static void a_process_has_at_least_one_core_and_no_more_than_its_affinity(void **state)
{
    cpu_set_t all, one;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    assert_in_range(cores_available(), 1, CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(cores_available(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_2_counts_the_tightest_on_the_way_up),
        cmocka_unit_test(version_1_is_two_files),
        cmocka_unit_test(what_makes_no_sense_is_no_quota),
        cmocka_unit_test(a_process_has_at_least_one_core_and_no_more_than_its_affinity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
