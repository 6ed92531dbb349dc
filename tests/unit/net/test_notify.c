/* What systemd is told, heard by a socket of the test's. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/net/notify.h"
#include "tests/support/test.h"

static char heard[4096];
static char path[108];

/* Listen at a path, or at @name, and point the variable there. Few datagrams fit into it. */
static int listen_at(const char *address)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    size_t length = strlen(address);

    assert_true(fd > 0 && length < sizeof(at.sun_path));
    memcpy(at.sun_path, address, length);
    if (address[0] == '@')
        at.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&at,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (address[0] == '/'))), 0);
    setenv("NOTIFY_SOCKET", address, 1);
    return fd;
}

static int listen_in_folder(void)
{
    snprintf(path, sizeof(path), "%.90s/notify", test_folder());
    unlink(path);
    return listen_at(path);
}

/* The next datagram; "" when there is none. */
static const char *hear(int fd)
{
    ssize_t size = recv(fd, heard, sizeof(heard) - 1, 0);

    heard[size > 0 ? size : 0] = '\0';
    return heard;
}

static void clear(void)
{
    notify_close();
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

static void without_the_variable_nothing_is_said(void **state)
{
    (void)state;
    clear();
    assert_true(notify_open(false, NULL, 0));
    assert_false(notify_heard());
    notify_status("training");
    notify_ready();
    notify_beat(1000);
    notify_extend(5);
    notify_stopping("asked to");
}

static void ready_is_said_once(void **state)
{
    int fd = listen_in_folder();

    (void)state;
    assert_true(notify_open(false, NULL, 0));
    notify_beat(1000);
    assert_string_equal(hear(fd), ""); /* not before it is */
    notify_ready();
    assert_string_equal(hear(fd), ""); /* the loop says it */
    notify_beat(2000);
    assert_string_equal(hear(fd), "READY=1\n");
    notify_ready();
    notify_beat(3000);
    assert_string_equal(hear(fd), "");
    clear();
    close(fd);
}

static void an_abstract_name_works_too(void **state)
{
    char name[64];
    int fd;

    (void)state;
    snprintf(name, sizeof(name), "@tdmpc2-test-notify-%d", (int)getpid());
    fd = listen_at(name);
    assert_true(notify_open(false, NULL, 0));
    notify_ready();
    notify_beat(1);
    assert_string_equal(hear(fd), "READY=1\n");
    clear();
    close(fd);
}

static void the_watchdog_hears_each_half_of_its_interval(void **state)
{
    int fd = listen_in_folder(), beats = 0;
    char pid[32];

    (void)state;
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("WATCHDOG_USEC", "10000000", 1);
    setenv("WATCHDOG_PID", pid, 1);
    assert_true(notify_open(false, NULL, 0));
    for (uint64_t now = 50000; now < 110000; now += 1000) {
        notify_beat(now);
        if (strcmp(hear(fd), "WATCHDOG=1\n") == 0)
            beats++;
        else
            assert_string_equal(heard, "");
    }
    assert_int_equal(beats, 12); /* in 60 s, at 5 s each */
    clear();
    close(fd);
}

static void the_watchdog_of_another_is_not_ours(void **state)
{
    static const char *const usec[] = {"10000000", "", "-5", "10s", "99999999999999999999999"};
    int fd = listen_in_folder();

    (void)state;
    for (size_t i = 0; i < TD_LEN(usec); i++) {
        setenv("NOTIFY_SOCKET", path, 1);
        setenv("WATCHDOG_USEC", usec[i], 1);
        if (i == 0)
            setenv("WATCHDOG_PID", "1", 1);
        assert_true(notify_open(false, NULL, 0));
        notify_beat(100000);
        notify_beat(200000);
        assert_string_equal(hear(fd), "");
    }
    clear();
    close(fd);
}

static void status_is_said_when_it_changes(void **state)
{
    int fd = listen_in_folder();

    (void)state;
    assert_true(notify_open(false, NULL, 0));
    notify_status("step %d", 1);
    notify_beat(1000);
    assert_string_equal(hear(fd), "STATUS=step 1\n");
    notify_status("step %d", 1);
    notify_beat(2000);
    assert_string_equal(hear(fd), "");
    notify_status("a peer said\nREADY=1\nMAINPID=1"); /* no lines of its own */
    notify_beat(1000 + NOTIFY_STATUS_MS - 1); /* it may change each second */
    assert_string_equal(hear(fd), "");
    notify_beat(1000 + NOTIFY_STATUS_MS);
    assert_string_equal(hear(fd), "STATUS=a peer said READY=1 MAINPID=1\n");
    for (int i = 0; i < 3; i++)
        notify_status("%0500d", i);
    notify_beat(20000);
    assert_int_equal(strlen(hear(fd)), strlen("STATUS=\n") + NOTIFY_STATUS_MAX - 1);
    clear();
    close(fd);
}

static void what_did_not_fit_is_said_later(void **state)
{
    int fd = listen_in_folder(), filler = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    (void)state;
    strcpy(at.sun_path, path);
    assert_true(notify_open(false, NULL, 0));
    while (sendto(filler, "x", 1, 0, (struct sockaddr *)&at, sizeof(at)) == 1)
        ;
    assert_int_equal(errno, EAGAIN);
    notify_ready();
    notify_status("training");
    notify_beat(1000);
    while (hear(fd)[0] == 'x')
        ;
    assert_string_equal(heard, "");
    notify_beat(2000);
    assert_string_equal(hear(fd), "READY=1\nSTATUS=training\n");
    /* nobody there at all, and there again: as when systemd is started anew */
    close(fd);
    unlink(path);
    notify_status("on");
    notify_beat(8000);
    fd = listen_in_folder();
    notify_beat(9000);
    assert_string_equal(hear(fd), "STATUS=on\n");
    clear();
    close(fd);
    close(filler);
}

static void the_end_is_said_at_once(void **state)
{
    int fd = listen_in_folder();

    (void)state;
    setenv("WATCHDOG_USEC", "10000000", 1);
    assert_true(notify_open(false, NULL, 0));
    notify_extend(90);
    assert_string_equal(hear(fd), "EXTEND_TIMEOUT_USEC=90000000\n");
    notify_stopping("asked to");
    assert_string_equal(hear(fd), "STOPPING=1\nSTATUS=leaving: asked to\n");
    notify_stopping("again");
    assert_string_equal(hear(fd), "");
    clear();
    close(fd);
}

static void children_do_not_speak_for_it(void **state)
{
    int fd = listen_in_folder();

    (void)state;
    setenv("WATCHDOG_USEC", "10000000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    assert_true(notify_open(true, NULL, 0));
    assert_false(notify_heard());
    assert_null(getenv("NOTIFY_SOCKET"));
    assert_null(getenv("WATCHDOG_USEC"));
    assert_null(getenv("WATCHDOG_PID"));
    notify_ready();
    notify_beat(1000);
    assert_string_equal(hear(fd), "");
    clear();
    close(fd);
}

static void strange_addresses_are_named(void **state)
{
    static char long_path[200];
    const char *const bad[] = {"relative/path", "@", "/", "vsock:2:1234", long_path};
    char why[300];

    (void)state;
    memset(long_path, 'a', sizeof(long_path) - 1);
    long_path[0] = '/';
    for (size_t i = 0; i < TD_LEN(bad); i++) {
        setenv("NOTIFY_SOCKET", bad[i], 1);
        assert_false(notify_open(false, why, sizeof(why)));
        assert_non_null(strstr(why, "NOTIFY_SOCKET="));
        assert_false(notify_heard());
    }
    clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_variable_nothing_is_said),
        cmocka_unit_test(ready_is_said_once),
        cmocka_unit_test(an_abstract_name_works_too),
        cmocka_unit_test(the_watchdog_hears_each_half_of_its_interval),
        cmocka_unit_test(the_watchdog_of_another_is_not_ours),
        cmocka_unit_test(status_is_said_when_it_changes),
        cmocka_unit_test(what_did_not_fit_is_said_later),
        cmocka_unit_test(the_end_is_said_at_once),
        cmocka_unit_test(children_do_not_speak_for_it),
        cmocka_unit_test(strange_addresses_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
