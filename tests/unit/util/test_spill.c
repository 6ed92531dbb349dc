#include "tests/support/test.h"

#include <dirent.h>
#include <errno.h>

#include "common/util/fs.h"
#include "common/util/spill.h"

#define ROOM 3000000u

static struct error err;

static int entries(const char *folder)
{
    DIR *dir = opendir(folder);
    int count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count - 2;
}

/* What is written in pieces comes back in others, from a file that no folder shows. */
static void bytes_come_back(void **state)
{
    static unsigned char bytes[ROOM], back[ROOM];
    spill_t *spill;

    (void)state;
    for (size_t i = 0; i < ROOM; i++)
        bytes[i] = (unsigned char)rng_below(test_rng(), 256);
    assert_ok(spill_open(&spill, test_folder(), ROOM, &err), err);
    assert_int_equal(entries(test_folder()), 0);
    for (size_t at = 0, length; at < ROOM; at += length) {
        length = ROOM - at < 70001 ? ROOM - at : 70001;
        assert_ok(spill_write(spill, at, bytes + at, length, &err), err);
    }
    for (size_t at = 0, length; at < ROOM; at += length) {
        length = ROOM - at < 123457 ? ROOM - at : 123457;
        assert_ok(spill_read(spill, at, back + at, length, &err), err);
    }
    assert_memory_equal(bytes, back, ROOM);
    assert_ok(spill_write(spill, 5, "other", 5, &err), err);
    assert_ok(spill_read(spill, 0, back, 16, &err), err);
    assert_memory_equal(back + 5, "other", 5);
    assert_memory_equal(back + 10, bytes + 10, 6);
    spill_close(&spill);
    assert_null(spill);
    spill_close(&spill);
}

static const char *failing;

static int fail_one(const char *operation, const char *path)
{
    (void)path;
    return strcmp(operation, failing) == 0 ? ENOSPC : 0;
}

/* Where the file system has no files without names, one is taken away at once. */
static void a_named_file_serves_too(void **state)
{
    char back[4];
    spill_t *spill;

    (void)state;
    failing = "tmpfile";
    fs_fault = fail_one;
    assert_ok(spill_open(&spill, test_folder(), 1000, &err), err);
    assert_int_equal(entries(test_folder()), 0);
    assert_ok(spill_write(spill, 996, "end", 4, &err), err);
    assert_ok(spill_read(spill, 996, back, 4, &err), err);
    assert_string_equal(back, "end");
    spill_close(&spill);
    assert_int_not_equal(spill_open(&spill, "/nowhere/at/all", 1000, &err), TD_OK);
    assert_null(spill);
    fs_fault = NULL;
}

/* Room that is not there is refused at once, not when it is written to. */
static void no_room_is_told_at_the_beginning(void **state)
{
    spill_t *spill;

    (void)state;
    assert_int_equal(spill_open(&spill, test_folder(), UINT64_C(1) << 60, &err), TD_EFULL);
    assert_null(spill);
    assert_non_null(strstr(err.text, "no room for 1152921504.6 GB"));
    failing = "write";
    fs_fault = fail_one;
    assert_int_equal(spill_open(&spill, test_folder(), 1000, &err), TD_EFULL);
    fs_fault = NULL;
    assert_ok(spill_open(&spill, test_folder(), 1000, &err), err);
    fs_fault = fail_one;
    assert_int_equal(spill_write(spill, 0, "x", 1, &err), TD_EFULL);
    fs_fault = NULL;
    spill_close(&spill);
    assert_int_not_equal(spill_open(&spill, "/nowhere/at/all", 1000, &err), TD_OK);
    assert_null(spill);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back),
        cmocka_unit_test(a_named_file_serves_too),
        cmocka_unit_test(no_room_is_told_at_the_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
