/* tests/support/disk.c: what it calls possible after power loss is just that, no less and no more. */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "tests/support/disk.h"
#include "tests/support/test.h"

#define BYTES 8192u
#define TRIES 400u

static const char *self;
static char dir[512], log_path[512], image[512];

/* --- the life that is recorded ------------------------------------------------- */

static int open_at(const char *folder, const char *name, int flags)
{
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, flags, 0644);
    TD_ASSERT(fd >= 0, "%s", path);
    return fd;
}

static void put(int fd, char letter, size_t length, off_t offset)
{
    char bytes[BYTES];

    memset(bytes, letter, length);
    TD_ASSERT(pwrite(fd, bytes, length, offset) == (ssize_t)length);
}

/* Marks stand where the tests look. */
static int record(const char *folder)
{
    int parent = open(folder, O_RDONLY | O_DIRECTORY), one, other;
    void (*mark)(const char *text);
    char from[PATH_MAX], to[PATH_MAX];

    *(void **)&mark = dlsym(RTLD_DEFAULT, "record_mark");
    TD_ASSERT(mark != NULL && parent >= 0);
    one = open_at(folder, "one", O_RDWR | O_CREAT);
    put(one, 'a', BYTES, 0);
    TD_ASSERT(fsync(one) == 0);
    mark("named?");
    TD_ASSERT(fsync(parent) == 0);
    mark("a");
    put(one, 'b', BYTES, 0);
    mark("a or b");
    TD_ASSERT(fdatasync(one) == 0);
    mark("b");
    put(one, 'c', BYTES, 0);
    other = open_at(folder, "one", O_WRONLY | O_DSYNC);
    put(other, 'd', 512, 0);
    mark("d, then b or c");
    TD_ASSERT(fsync(one) == 0);
    TD_ASSERT(ftruncate(one, 512) == 0);
    mark("cut?");
    TD_ASSERT(fsync(one) == 0);
    snprintf(from, sizeof(from), "%s/one", folder);
    snprintf(to, sizeof(to), "%s/two", folder);
    TD_ASSERT(rename(from, to) == 0);
    mark("one or two");
    TD_ASSERT(fsync(parent) == 0);
    mark("two");
    TD_ASSERT(unlink(to) == 0);
    mark("two?");
    return 0;
}

/* --- looking ------------------------------------------------------------------- */

static size_t after_mark(const disk_t *disk, const char *text)
{
    for (size_t i = 0; i < disk_events(disk); i++)
        if (disk_event(disk, i)->kind == RECORD_MARK && strcmp(disk_payload(disk, i), text) == 0)
            return i + 1;
    fail_msg("no mark '%s'", text);
    return 0;
}

/* A file of the image; its length, or -1 when there is none. */
static long look(const char *name, char bytes[BYTES])
{
    char path[600];
    struct stat file;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", image, name);
    if ((fd = open(path, O_RDONLY)) < 0)
        return -1;
    assert_int_equal(fstat(fd, &file), 0);
    assert_true(file.st_size <= (off_t)BYTES && read(fd, bytes, BYTES) == file.st_size);
    close(fd);
    return file.st_size;
}

/* What was seen in TRIES images at one mark. */
struct seen {
    unsigned whole[128]; /* files all of this letter */
    unsigned mixed, other_length, one, two, none;
    bool first_is_d;     /* in all */
};

static struct seen see(disk_t *disk, const char *text, enum disk_loss first, enum disk_loss last)
{
    struct seen seen = {.first_is_d = true};
    char bytes[BYTES];

    for (uint64_t i = 0; i < TRIES; i++) {
        long length, from = 0;
        bool same = true;

        disk_image(disk, after_mark(disk, text), (enum disk_loss)(first + i % (last - first + 1)), i, image);
        seen.one += look("one", bytes) >= 0;
        seen.two += look("two", bytes) >= 0;
        length = look("one", bytes) >= 0 ? look("one", bytes) : look("two", bytes);
        seen.none += length < 0;
        seen.other_length += length >= 0 && length != (long)BYTES;
        if (length != (long)BYTES)
            continue;
        if (bytes[0] == 'd')
            from = 512;
        seen.first_is_d &= bytes[0] == 'd' && bytes[511] == 'd';
        for (long k = from; k < length; k++) {
            if (k % 512 != 0 && bytes[k] != bytes[k / 512 * 512])
                fail_msg("a sector is torn at %ld", k);
            same &= bytes[k] == bytes[from];
        }
        if (same)
            seen.whole[(unsigned char)bytes[from]]++;
        seen.mixed += !same;
    }
    return seen;
}

static disk_t *load(void)
{
    static disk_t *disk;
    char command[2048];

    if (disk != NULL)
        return disk;
    snprintf(dir, sizeof(dir), "%s/disk", test_folder());
    snprintf(log_path, sizeof(log_path), "%s/record", test_folder());
    snprintf(image, sizeof(image), "%s/image", test_folder());
    assert_int_equal(mkdir(dir, 0755), 0);
    snprintf(command, sizeof(command), "'%s' record '%s'", self, dir);
    disk_record(dir, log_path);
    assert_int_equal(system(command), 0);
    disk_record(NULL, NULL);
    disk = disk_load(dir, log_path);
    disk_expect_whole(disk, dir, image, "nothing");
    return disk;
}

static void what_was_synced_is_there(void **state)
{
    struct seen seen;

    (void)state;
    seen = see(load(), "a", DISK_KEPT, DISK_TORN);
    assert_int_equal(seen.whole['a'], TRIES);
    seen = see(load(), "b", DISK_KEPT, DISK_TORN);
    assert_int_equal(seen.whole['b'], TRIES);
}

static void a_file_without_its_folder_synced_may_have_no_name(void **state)
{
    struct seen seen = see(load(), "named?", DISK_KEPT, DISK_TORN);

    (void)state;
    assert_true(seen.none > 0 && seen.whole['a'] > 0);
    assert_int_equal(seen.none + seen.whole['a'], TRIES);
}

static void what_was_not_synced_may_be_there_in_parts(void **state)
{
    struct seen seen = see(load(), "a or b", DISK_KEPT, DISK_LOST);

    (void)state;
    assert_int_equal(seen.whole['a'], TRIES / 2);
    assert_int_equal(seen.whole['b'], TRIES / 2);
    seen = see(load(), "a or b", DISK_WRITES, DISK_WRITES);
    assert_true(seen.whole['a'] > 0 && seen.whole['b'] > 0 && seen.mixed == 0);
    for (enum disk_loss loss = DISK_PAGES; loss <= DISK_TORN; loss++) {
        seen = see(load(), "a or b", loss, loss);
        assert_true(seen.mixed > 0);
    }
}

static void a_synchronous_write_is_durable_and_no_other(void **state)
{
    struct seen seen = see(load(), "d, then b or c", DISK_KEPT, DISK_TORN);

    (void)state;
    assert_true(seen.first_is_d);
    assert_true(seen.whole['b'] > 0 && seen.whole['c'] > 0 && seen.mixed > 0);
}

static void a_new_length_is_like_a_write(void **state)
{
    struct seen seen = see(load(), "cut?", DISK_WRITES, DISK_SECTORS);

    (void)state;
    assert_true(seen.other_length > 0 && seen.other_length < TRIES);
}

static void a_name_is_durable_with_its_folder(void **state)
{
    struct seen seen = see(load(), "one or two", DISK_KEPT, DISK_TORN);

    (void)state;
    assert_true(seen.one > 0 && seen.two > 0);
    assert_int_equal(seen.one + seen.two, TRIES); /* a rename is one step */
    seen = see(load(), "two", DISK_KEPT, DISK_TORN);
    assert_int_equal(seen.two, TRIES);
    seen = see(load(), "two?", DISK_KEPT, DISK_TORN);
    assert_true(seen.two > 0 && seen.none > 0);
}

static int forget(void **state)
{
    disk_t *disk = load();

    (void)state;
    disk_destroy(&disk);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_synced_is_there),
        cmocka_unit_test(a_file_without_its_folder_synced_may_have_no_name),
        cmocka_unit_test(what_was_not_synced_may_be_there_in_parts),
        cmocka_unit_test(a_synchronous_write_is_durable_and_no_other),
        cmocka_unit_test(a_new_length_is_like_a_write),
        cmocka_unit_test(a_name_is_durable_with_its_folder),
    };
    static char path[PATH_MAX];

    if (argc == 3 && strcmp(argv[1], "record") == 0)
        return record(argv[2]);
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    self = realpath("/proc/self/exe", path);
    return cmocka_run_group_tests(tests, NULL, forget);
}
