/* A curve follows its file as it grows, is cut back or replaced, and keeps its bounds. */
#include "tests/support/test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "learner/dashboard/tail.h"

static char path[FS_PATH_MAX];
static struct tail tail;

static void append(const char *text, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);

    assert_int_equal(write(fd, text, length), (ssize_t)length);
    close(fd);
}

static void begin(void)
{
    snprintf(path, sizeof(path), "%s/curve.csv", test_folder());
    unlink(path);
    tail_init(&tail, path);
}

static void is(const char *text)
{
    assert_true(tail_read(&tail));
    if (tail.used != strlen(text) || memcmp(tail.text, text, tail.used) != 0)
        fail_msg("\"%.*s\" is not \"%s\"", (int)tail.used, tail.text, text);
}

static void follows(void **state)
{
    (void)state;
    begin();
    is("");
    append("step,", 5);
    is("");
    append("reward\n1,2", 10);
    is("step,reward\n"); /* a line without its end is still being written */
    append("\n3,4\n", 5);
    is("step,reward\n1,2\n3,4\n");
    is("step,reward\n1,2\n3,4\n");
    assert_int_equal(truncate(path, 12), 0);
    is("step,reward\n");
    append("1,5\n", 4);
    is("step,reward\n1,5\n");
    assert_int_equal(rename(path, "/dev/null/nowhere"), -1);
    unlink(path);
    is("");
    append("other\n7\n", 8); /* another file, though longer or shorter */
    is("other\n7\n");
    tail_release(&tail);
}

/* 100,000 lines: evenly spread, the first and the last among them. */
static void keeps_its_bounds(void **state)
{
    char line[64], *at;
    long before = -1, gap = 0;
    int lines = 0;

    (void)state;
    begin();
    append("step\n", 5);
    for (int i = 0; i < 100000; i++) {
        int length = snprintf(line, sizeof(line), "%d\n", i);

        append(line, (size_t)length);
        if (i % 9973 == 0 || i == 99999) {
            assert_true(tail_read(&tail));
            assert_memory_equal(tail.text + tail.used - (size_t)length, line, (size_t)length);
            assert_true(tail.kept <= TAIL_LINES);
        }
    }
    at = tail.text + tail.header;
    while (at < tail.text + tail.used) {
        long step = strtol(at, &at, 10);

        at++;
        if (gap == 0 && before >= 0)
            gap = step - before;
        assert_true(before < 0 ? step == 0 : step - before == gap || step == 99999);
        before = step;
        lines++;
    }
    assert_true(lines > TAIL_LINES / 2 && lines <= TAIL_LINES + 1);
    tail_release(&tail);
}

/* Long lines are bounded in bytes; a line without end, or with a zero in it, ends the following. */
static void hostile_files(void **state)
{
    static char text[3 * TAIL_LINE];

    (void)state;
    begin();
    memset(text, '1', sizeof(text));
    append("step\n", 5);
    text[TAIL_LINE - 2] = '\n';
    for (int i = 0; i < 300; i++)
        append(text, TAIL_LINE - 1);
    assert_true(tail_read(&tail));
    assert_true(tail.used <= TAIL_BYTES + TAIL_LINE && tail.kept > 10 && !tail.broken);
    text[TAIL_LINE - 2] = '1';
    append(text, sizeof(text));
    assert_true(tail_read(&tail));
    assert_true(tail.broken);
    append("\n5\n", 3);
    assert_true(tail_read(&tail));
    assert_true(tail.text[tail.used - 2] != '5');
    unlink(path);
    append("step\n1\n\0\n2\n", 11);
    is("step\n1\n");
    assert_true(tail.broken);
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    is("");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not hang */
    is("");
    unlink(path);
    tail_release(&tail);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows),
        cmocka_unit_test(keeps_its_bounds),
        cmocka_unit_test(hostile_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
