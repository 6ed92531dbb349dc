#include "tests/support/test.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "common/util/runtime.h"

static const char *folder_of(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", test_folder(), name);
    return path;
}

static void set_age(const char *path, int seconds)
{
    struct timeval times[2];

    gettimeofday(&times[0], NULL);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    assert_int_equal(utimes(path, times), 0);
}

static void bind_socket(const char *path, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    assert_true(strlen(path) < sizeof(address.sun_path));
    memcpy(address.sun_path, path, strlen(path) + 1);
    *fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(*fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(*fd, 1), 0);
}

static void dead_sockets_are_cleared_and_living_ones_kept(void **state)
{
    char folder[RUNTIME_PATH_MAX], again[RUNTIME_PATH_MAX], paths[3][200], old[200];
    struct error err;
    struct stat info;
    int fds[3];

    (void)state;
    setenv("TDMPC2_RUNTIME_DIR", folder_of("rt"), 1);
    assert_ok(runtime_folder(folder, 0xabc, &err), err);
    assert_int_equal(stat(folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    for (int i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s/s%d", folder, i);
        bind_socket(paths[i], &fds[i]);
        if (i != 2)
            set_age(paths[i], 1000);
    }
    close(fds[0]); /* dead and old; 1 lives; 2 is dead but young */
    close(fds[2]);
    snprintf(old, sizeof(old), "%s/../00000000000000ff", folder); /* of a run that is over */
    assert_int_equal(mkdir(old, 0700), 0);
    set_age(old, 1000);
    set_age(folder, 1000);
    assert_ok(runtime_folder(again, 0xabc, &err), err);
    assert_int_not_equal(lstat(old, &info), 0);
    assert_string_equal(again, folder);
    assert_int_not_equal(lstat(paths[0], &info), 0);
    assert_int_equal(lstat(paths[1], &info), 0);
    assert_int_equal(lstat(paths[2], &info), 0);
    close(fds[1]);
}

static void folders_of_others_are_refused(void **state)
{
    char folder[RUNTIME_PATH_MAX], path[600];
    struct error err;

    (void)state;
    snprintf(path, sizeof(path), "%s", folder_of("open"));
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 0755), 0);
    setenv("TDMPC2_RUNTIME_DIR", path, 1);
    assert_int_equal(runtime_folder(folder, 1, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "0700"));
    assert_int_equal(runtime_check(&err), TD_EINVAL);
    assert_non_null(strstr(err.text, "0700"));
    assert_int_equal(chmod(path, 0700), 0);
    assert_ok(runtime_check(&err), err);
    assert_int_not_equal(rmdir(path), -1); /* nothing was left in it */
    assert_ok(runtime_check(&err), err);
    assert_ok(runtime_folder(folder, 1, &err), err);
    assert_int_equal(symlink(path, folder_of("link")), 0);
    setenv("TDMPC2_RUNTIME_DIR", folder_of("link"), 1);
    assert_int_equal(runtime_folder(folder, 1, &err), TD_EINVAL);
    memset(path, 'x', 90);
    path[0] = '/';
    path[90] = '\0';
    setenv("TDMPC2_RUNTIME_DIR", path, 1);
    assert_int_equal(runtime_folder(folder, 1, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "shorter"));
    unsetenv("TDMPC2_RUNTIME_DIR");
}

static void one_directory_has_one_key(void **state)
{
    char path[600], twisted[700];
    struct error err;

    (void)state;
    snprintf(path, sizeof(path), "%s", folder_of("keyed"));
    assert_ok(fs_mkdirs(path, 0755, &err), err);
    snprintf(twisted, sizeof(twisted), "%s/../keyed/.", path);
    assert_true(runtime_key(path) == runtime_key(twisted));
    assert_true(runtime_key(path) != runtime_key(test_folder()));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dead_sockets_are_cleared_and_living_ones_kept),
        cmocka_unit_test(folders_of_others_are_refused),
        cmocka_unit_test(one_directory_has_one_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
