#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/fs.h"

static char path_text[FS_PATH_MAX];
static int fault_at; /* steps until every later one fails */

static const char *in_folder(const char *name)
{
    assert_int_equal(fs_join(path_text, test_folder(), name, NULL), TD_OK);
    return path_text;
}

static int fail_from_k(const char *operation, const char *path)
{
    (void)operation;
    (void)path;
    return fault_at-- > 0 ? 0 : EIO;
}

static int fail_sync(const char *operation, const char *path)
{
    (void)path;
    return strcmp(operation, "sync") == 0 ? ENOSPC : 0;
}

static void assert_holds(const char *path, const char *text)
{
    struct error err = {0};
    size_t length;
    char *bytes;

    assert_ok(fs_read_file(path, 1000, &bytes, &length, &err), err);
    assert_string_equal(bytes, text);
    assert_int_equal(length, strlen(text));
    free(bytes);
}

static void parents_and_joins(void **state)
{
    static const char *const cases[][2] = {{"a/b", "a"}, {"a", "."}, {"/a", "/"}, {"/", "/"},
                                           {"a/b/", "a"}, {"a//b", "a"}, {"/a/b/c", "/a/b"}, {"", "."}};
    char out[FS_PATH_MAX], *longer = malloc(FS_PATH_MAX + 1);

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        assert_int_equal(fs_parent(cases[i][0], out, NULL), TD_OK);
        assert_string_equal(out, cases[i][1]);
    }
    assert_int_equal(fs_join(out, "a", "b", NULL), TD_OK);
    assert_string_equal(out, "a/b");
    memset(longer, 'x', FS_PATH_MAX);
    longer[FS_PATH_MAX] = '\0';
    assert_int_equal(fs_join(out, longer, "b", NULL), TD_EINVAL);
    assert_int_equal(fs_parent(longer, out, NULL), TD_EINVAL);
    free(longer);
}

static void what_is_there_is_told(void **state)
{
    struct error err = {0};
    char longer[FS_PATH_MAX];

    (void)state;
    assert_ok(fs_mkdirs(in_folder("there"), 0700, &err), err);
    assert_ok(fs_write_file(in_folder("there/file"), "x", 1, &err), err);
    assert_true(fs_is_folder(in_folder("there")));
    assert_false(fs_is_folder(in_folder("there/file")));
    assert_false(fs_is_folder(in_folder("nowhere")));
    assert_true(fs_has(in_folder("there"), "file"));
    assert_true(fs_has(test_folder(), "there"));
    assert_false(fs_has(in_folder("there"), "other"));
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_false(fs_has(in_folder("there"), longer));
}

static void folders_are_made_with_their_parents(void **state)
{
    struct error err = {0};
    struct stat info;

    (void)state;
    assert_ok(fs_mkdirs(in_folder("a/b/c"), 0700, &err), err);
    assert_ok(fs_mkdirs(in_folder("a/b/c"), 0700, &err), err);
    assert_ok(fs_mkdirs(in_folder("a/b/d/"), 0755, &err), err);
    assert_int_equal(stat(in_folder("a/b/c"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_ok(fs_write_file(in_folder("a/file"), "x", 1, &err), err);
    assert_int_equal(fs_mkdirs(in_folder("a/file"), 0755, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "not a folder"));
    assert_int_equal(fs_mkdirs(in_folder("a/file/below"), 0755, &err), TD_EINVAL);
    assert_int_equal(fs_mkdirs("", 0755, &err), TD_EINVAL);
}

static void a_file_is_replaced_whole(void **state)
{
    struct error err = {0};

    (void)state;
    assert_ok(fs_write_file(in_folder("whole"), "first", 5, &err), err);
    assert_ok(fs_write_file(in_folder("whole"), "second", 6, &err), err);
    assert_holds(in_folder("whole"), "second");
    assert_int_not_equal(access(in_folder("whole.tmp"), F_OK), 0);
    assert_ok(fs_write_file(in_folder("whole"), "", 0, &err), err);
    assert_holds(in_folder("whole"), "");
    assert_int_equal(fs_write_file(in_folder("no/such/folder"), "x", 1, &err), TD_ENOTFOUND);
    assert_non_null(strstr(err.text, "no/such/folder"));
}

/* Stopped before any of its steps, a write leaves the old bytes or the new ones. */
static void a_write_stopped_anywhere_leaves_a_whole_file(void **state)
{
    struct error err = {0};
    int rc = TD_EIO;

    (void)state;
    for (int k = 0; rc != TD_OK; k++) {
        char *bytes;

        assert_true(k < 20);
        assert_ok(fs_write_file(in_folder("stopped"), "old", 3, &err), err);
        fault_at = k;
        fs_fault = fail_from_k;
        rc = fs_write_file(in_folder("stopped"), "newer", 5, &err);
        fs_fault = NULL;
        assert_ok(fs_read_file(in_folder("stopped"), 100, &bytes, NULL, &err), err);
        assert_true(strcmp(bytes, "newer") == 0 || (rc != TD_OK && strcmp(bytes, "old") == 0));
        free(bytes);
    }
}

static void a_full_disk_is_said(void **state)
{
    struct error err = {0};

    (void)state;
    assert_ok(fs_write_file(in_folder("full"), "old", 3, &err), err);
    fs_fault = fail_sync;
    assert_int_equal(fs_write_file(in_folder("full"), "new", 3, &err), TD_EFULL);
    fs_fault = NULL;
    assert_holds(in_folder("full"), "old");
    assert_int_not_equal(access(in_folder("full.tmp"), F_OK), 0);
}

static void reading_is_bounded(void **state)
{
    struct error err = {0};
    char big[10000], *bytes;
    size_t length;

    (void)state;
    memset(big, 'y', sizeof(big));
    assert_ok(fs_write_file(in_folder("big"), big, sizeof(big), &err), err);
    assert_ok(fs_read_file(in_folder("big"), sizeof(big), &bytes, &length, &err), err);
    assert_int_equal(length, sizeof(big));
    assert_memory_equal(bytes, big, sizeof(big));
    free(bytes);
    assert_int_equal(fs_read_file(in_folder("big"), sizeof(big) - 1, &bytes, &length, &err), TD_EINVAL);
    assert_null(bytes);
    assert_int_equal(fs_read_file(in_folder("absent"), 10, &bytes, &length, &err), TD_ENOTFOUND);
    assert_int_equal(fs_read_file(test_folder(), 10, &bytes, &length, &err), TD_EINVAL);
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_int_equal(fs_read_file(in_folder("pipe"), 10, &bytes, &length, &err), TD_EINVAL);
}

static void trees_go_without_following_links(void **state)
{
    struct error err = {0};
    char kept[FS_PATH_MAX];

    (void)state;
    assert_ok(fs_mkdirs(in_folder("kept"), 0755, &err), err);
    snprintf(kept, sizeof(kept), "%s/kept/file", test_folder());
    assert_ok(fs_write_file(kept, "x", 1, &err), err);
    assert_ok(fs_mkdirs(in_folder("tree/deep/er"), 0755, &err), err);
    assert_ok(fs_write_file(in_folder("tree/deep/file"), "x", 1, &err), err);
    assert_int_equal(symlink("../kept", in_folder("tree/link")), 0);
    assert_ok(fs_remove_tree(in_folder("tree"), &err), err);
    assert_int_not_equal(access(in_folder("tree"), F_OK), 0);
    assert_int_equal(access(kept, F_OK), 0);
    assert_ok(fs_remove_tree(in_folder("tree"), &err), err);
    assert_ok(fs_remove_tree(kept, &err), err);
    assert_int_not_equal(access(kept, F_OK), 0);
}

/* A child that holds the lock until it is told to go, by a signal. */
static pid_t hold_lock(const char *path)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = -1;

        if (fs_lock(&fd, path, 0, NULL) == TD_OK && write(ready[1], "x", 1) == 1)
            pause();
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void wait_for_state(pid_t pid, const char *path, const char *word)
{
    struct error err = {0};
    int fd;

    for (int tries = 0; tries < 100; tries++) {
        assert_int_equal(fs_lock(&fd, path, 0, &err), TD_ELOCKED);
        if (strstr(err.text, word) != NULL)
            break;
        clock_sleep_ms(20);
    }
    char number[32];
    snprintf(number, sizeof(number), "process %ld", (long)pid);
    assert_non_null(strstr(err.text, number));
    assert_non_null(strstr(err.text, word));
}

static void a_lock_names_its_owner_and_waits(void **state)
{
    struct error err = {0};
    const char *path = in_folder("lock");
    int fd = -1;

    (void)state;
    assert_int_equal(fs_lock_owner(path), 0);
    pid_t pid = hold_lock(path);
    assert_int_equal(fs_lock_owner(path), pid);
    wait_for_state(pid, path, "running");
    kill(pid, SIGSTOP);
    wait_for_state(pid, path, "stopped");
    kill(pid, SIGCONT);

    /* it goes while we wait */
    kill(pid, SIGTERM);
    assert_ok(fs_lock(&fd, path, 10000, &err), err);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    fs_unlock(&fd);
    assert_int_equal(fd, -1);
    fs_unlock(&fd);
    assert_int_equal(fs_lock_owner(path), 0);
    assert_ok(fs_lock(&fd, path, 0, &err), err);
    fs_unlock(&fd);
    assert_int_equal(fs_lock(&fd, in_folder("no/lock"), 0, &err), TD_ENOTFOUND);
}

static void checksums_match_the_standard(void **state)
{
    struct error err = {0};
    char hex[FS_SHA256_HEX], other[FS_SHA256_HEX], *big = calloc(1, 1000000);

    (void)state;
    fs_sha256("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    fs_sha256("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    memset(big, 'a', 1000000);
    assert_ok(fs_write_file(in_folder("million"), big, 1000000, &err), err);
    fs_sha256(big, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_ok(fs_sha256_file(in_folder("million"), other, &err), err);
    assert_string_equal(hex, other);
    assert_int_equal(fs_sha256_file(in_folder("none"), other, &err), TD_ENOTFOUND);
    assert_int_equal(fs_sha256_file(test_folder(), other, &err), TD_EIO);
    free(big);
}

static void a_folder_that_cannot_be_is_named(void **state)
{
    struct error err = {0};
    char file[FS_PATH_MAX + 8];

    (void)state;
    assert_ok(fs_check_writable(in_folder("not/yet/there"), &err), err);
    assert_int_not_equal(access(in_folder("not"), F_OK), 0);
    assert_ok(fs_check_writable(test_folder(), &err), err);
    assert_ok(fs_write_file(in_folder("in-the-way"), "x", 1, &err), err);
    snprintf(file, sizeof(file), "%s/run", in_folder("in-the-way"));
    assert_int_equal(fs_check_writable(file, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "in-the-way is a file"));
    assert_int_equal(fs_check_writable("/proc/run", &err), TD_EINVAL); /* even root cannot */
    assert_non_null(strstr(err.text, "cannot write into /proc"));
}

static void file_systems_are_told_apart(void **state)
{
    struct error err = {0};
    uint64_t bytes = 0;
    char folder[FS_PATH_MAX];

    (void)state;
    assert_string_equal(fs_kind_of_magic(0x6969), "nfs");
    assert_string_equal(fs_kind_of_magic(0x794c7630), "overlay");
    assert_string_equal(fs_kind_of_magic(0x0bd00bd0), "lustre");
    assert_null(fs_kind_of_magic(0xef53)); /* ext4 */
    assert_null(fs_kind_of_magic(0x01021994)); /* tmpfs */
    assert_null(fs_unsafe_kind("/dev/shm/does/not/exist"));
    assert_ok(fs_free_bytes(in_folder("not/yet/there"), &bytes, &err), err);
    assert_true(bytes > 0);
    assert_ok(fs_program_dir(folder, &err), err);
    assert_non_null(strstr(folder, "tests/unit/util"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parents_and_joins),
        cmocka_unit_test(what_is_there_is_told),
        cmocka_unit_test(folders_are_made_with_their_parents),
        cmocka_unit_test(a_file_is_replaced_whole),
        cmocka_unit_test(a_write_stopped_anywhere_leaves_a_whole_file),
        cmocka_unit_test(a_full_disk_is_said),
        cmocka_unit_test(reading_is_bounded),
        cmocka_unit_test(trees_go_without_following_links),
        cmocka_unit_test(a_lock_names_its_owner_and_waits),
        cmocka_unit_test(checksums_match_the_standard),
        cmocka_unit_test(a_folder_that_cannot_be_is_named),
        cmocka_unit_test(file_systems_are_told_apart),
    };

    setenv("TMPDIR", "/dev/shm", 0); /* nothing here is about a real disk, which may be slow to sync */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
