/* The connection to an environment's process: a real ZeroMQ socket here, bytes written by hand at the other end. */
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/env/bridge_socket.h"
#include "common/util/clock.h"
#include "common/util/runtime.h"
#include "tests/support/test.h"

#define FRAME_MAX 100000
#define WAIT_MS   10000

/* ZMTP 3.0: 64 bytes, then READY. */
struct greeting {
    char signature[10], version[2], mechanism[20], zeros[32], ready[28];
};

static const struct greeting greeting = {"\xff\0\0\0\0\0\0\0\0\x7f", "\3", "NULL", "",
                                         "\4\x1a\5READY\13Socket-Type\0\0\0\4PAIR"};

static void write_all(int fd, const void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t put = send(fd, (const char *)bytes + done, size - done, MSG_NOSIGNAL);

        assert_true(put > 0);
        done += (size_t)put;
    }
}

static void read_all(int fd, void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        ssize_t got;

        assert_int_equal(poll(&ready, 1, WAIT_MS), 1);
        got = recv(fd, (char *)bytes + done, size - done, 0);
        assert_true(got > 0);
        done += (size_t)got;
    }
}

static bridge_socket_t *open_one(int *theirs)
{
    struct error err = {0};
    bridge_socket_t *socket;

    assert_ok(bridge_socket_open(&socket, FRAME_MAX, theirs, &err), err);
    return socket;
}

static void greet(int fd)
{
    char theirs[64];
    unsigned char head[2], ready[255];

    write_all(fd, &greeting, sizeof(greeting));
    read_all(fd, theirs, sizeof(theirs));
    assert_memory_equal(theirs + 10, "\3", 1);
    read_all(fd, head, sizeof(head));
    assert_int_equal(head[0], 4);
    read_all(fd, ready, head[1]);
    assert_memory_equal(ready, "\5READY", 6);
}

/* As the bridge does it: receive until there is nothing, ask, wait on the descriptor. */
static int receive(bridge_socket_t *socket, struct bridge_frames *frames)
{
    uint64_t until = clock_ms() + WAIT_MS;
    int rc;

    while ((rc = bridge_socket_receive(socket, frames)) == TD_EAGAIN) {
        struct pollfd fd = {.fd = bridge_socket_fd(socket), .events = POLLIN};

        assert_true(clock_ms() < until);
        if (!bridge_socket_ready(socket, false))
            assert_int_equal(poll(&fd, 1, WAIT_MS), 1); /* a lost wake-up would end here */
    }
    return rc;
}

static void send_frames(bridge_socket_t *socket, const struct bridge_frames *frames)
{
    uint64_t until = clock_ms() + WAIT_MS;
    int rc;

    while ((rc = bridge_socket_send(socket, frames)) == TD_EAGAIN) {
        struct pollfd fd = {.fd = bridge_socket_fd(socket), .events = POLLIN};

        assert_true(clock_ms() < until);
        if (!bridge_socket_ready(socket, true))
            assert_int_equal(poll(&fd, 1, WAIT_MS), 1);
    }
    assert_int_equal(rc, TD_OK);
}

static int files_in_runtime_folders(void)
{
    char base[RUNTIME_BASE_MAX], command[RUNTIME_BASE_MAX + 64];
    FILE *pipe;
    int count = -1;

    runtime_base(base);
    snprintf(command, sizeof(command), "find '%s' ! -type d | wc -l", base);
    pipe = popen(command, "r");
    assert_int_equal(fscanf(pipe, "%d", &count), 1);
    pclose(pipe);
    return count;
}

static void messages_go_both_ways_and_nothing_lies_about(void **state)
{
    const struct bridge_frames small = {"ask", "12345678", 3, 8}, bare = {"bye", NULL, 3, 0};
    static char large[FRAME_MAX];
    struct bridge_frames frames, big = {"big", large, 3, sizeof(large)};
    unsigned char head[9], size[9] = {2, 0, 0, 0, 0, 0, 1, 0x86, 0xa0};
    char bytes[64];
    int theirs;
    bridge_socket_t *socket = open_one(&theirs);

    (void)state;
    assert_int_equal(files_in_runtime_folders(), 0);
    assert_int_equal(bridge_socket_send(socket, &small), TD_EAGAIN); /* to nobody yet */
    assert_int_equal(bridge_socket_receive(socket, &frames), TD_EAGAIN);
    greet(theirs);
    send_frames(socket, &small);
    read_all(theirs, bytes, 15);
    assert_memory_equal(bytes, "\1\3ask\0\10" "12345678", 15);
    write_all(theirs, "\1\2ok\0\4data", 10);
    assert_int_equal(receive(socket, &frames), TD_OK);
    assert_int_equal(frames.header_size, 2);
    assert_memory_equal(frames.header, "ok", 2);
    assert_int_equal(frames.bulk_size, 4);
    assert_memory_equal(frames.bulk, "data", 4);

    memset(large, 'x', sizeof(large));
    send_frames(socket, &big);
    memset(large, 'y', sizeof(large)); /* it was copied */
    read_all(theirs, bytes, 5);
    read_all(theirs, head, sizeof(head));
    assert_memory_equal(head, size, sizeof(head));
    read_all(theirs, large, sizeof(large));
    assert_int_equal(large[0], 'x');
    assert_int_equal(large[FRAME_MAX - 1], 'x');
    write_all(theirs, "\1\1k", 3);
    write_all(theirs, size, sizeof(size));
    write_all(theirs, large, sizeof(large));
    assert_int_equal(receive(socket, &frames), TD_OK);
    assert_int_equal(frames.bulk_size, sizeof(large));
    assert_memory_equal(frames.bulk, large, sizeof(large));

    send_frames(socket, &bare);
    read_all(theirs, bytes, 5);
    assert_memory_equal(bytes, "\0\3bye", 5);
    bridge_socket_close(&socket);
    assert_int_equal(recv(theirs, bytes, 1, 0), 0);
    assert_int_equal(files_in_runtime_folders(), 0);
    close(theirs);
}

/* ZeroMQ's descriptor tells of a change once: what came with something else must be asked for. */
static void of_two_at_once_none_is_missed(void **state)
{
    struct bridge_frames frames;
    int theirs;
    bridge_socket_t *socket = open_one(&theirs);

    (void)state;
    greet(theirs);
    for (int i = 0; i < 200; i++) {
        write_all(theirs, "\0\1a\0\1b", 6);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(receive(socket, &frames), TD_OK);
            assert_int_equal(*(const char *)frames.header, "ab"[k]);
        }
        if (i % 2 == 0) /* or is asked */
            assert_false(bridge_socket_ready(socket, false));
        write_all(theirs, "\0\1c", 3);
        assert_int_equal(receive(socket, &frames), TD_OK);
        assert_int_equal(*(const char *)frames.header, 'c');
    }
    bridge_socket_close(&socket);
    close(theirs);
}

static void what_is_no_message_ends_there(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {{"\2\0\0\0\0\0\1\x86\xa1", 9}, {"\2\x7f\xff\xff\xff\xff\xff\xff\xff", 9}, {"not a message, certainly", 24}};
    struct bridge_frames frames;
    char byte;
    int theirs;
    bridge_socket_t *socket;

    (void)state;
    for (size_t i = 0; i < TD_LEN(bad); i++) { /* ZeroMQ hangs up */
        socket = open_one(&theirs);
        greet(theirs);
        write_all(theirs, bad[i].bytes, bad[i].size);
        assert_int_equal(poll(&(struct pollfd){.fd = theirs, .events = POLLIN}, 1, WAIT_MS), 1);
        assert_true(recv(theirs, &byte, 1, 0) <= 0);
        assert_int_equal(bridge_socket_receive(socket, &frames), TD_EAGAIN);
        bridge_socket_close(&socket);
        close(theirs);
    }
    socket = open_one(&theirs);
    greet(theirs);
    write_all(theirs, "\1\1a\1\1b\1\1c\0\1d\0\1e", 15);
    assert_int_equal(receive(socket, &frames), TD_ECORRUPT);
    assert_int_equal(receive(socket, &frames), TD_OK); /* the next one begins where it begins */
    assert_int_equal(*(const char *)frames.header, 'e');
    bridge_socket_close(&socket);
    close(theirs);
}

/* Who waits for a name to appear and connects to it is turned away, whoever is first. */
static void watch_and_connect(int hits)
{
    char base[RUNTIME_BASE_MAX], folder[RUNTIME_BASE_MAX + 32];
    struct dirent *entry;

    runtime_base(base);
    snprintf(folder, sizeof(folder), "%s/b41d6e0000000000", base);
    for (int connected = 0; connected < hits;) {
        DIR *dir = opendir(folder);

        while (dir != NULL && (entry = readdir(dir)) != NULL) {
            struct sockaddr_un address = {.sun_family = AF_UNIX};
            int fd = socket(AF_UNIX, SOCK_STREAM, 0);

            snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/%.20s", folder, entry->d_name);
            if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
                (void)!send(fd, &greeting, sizeof(greeting), MSG_NOSIGNAL);
                connected++;
            } else {
                close(fd);
            }
        }
        if (dir != NULL)
            closedir(dir);
    }
}

static void a_stranger_is_not_heard(void **state)
{
    uint64_t until = clock_ms() + 1500;
    pid_t stranger = fork();
    struct bridge_frames frames;
    int rounds = 0, status = 0;
    bool met = false;

    (void)state;
    if (stranger == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        watch_and_connect(20);
        _exit(0);
    }
    while (!met && clock_ms() < until) {
        int theirs;
        bridge_socket_t *socket = open_one(&theirs);

        greet(theirs);
        write_all(theirs, "\0\4mine", 6);
        assert_int_equal(receive(socket, &frames), TD_OK);
        assert_memory_equal(frames.header, "mine", 4);
        bridge_socket_close(&socket);
        close(theirs);
        met = waitpid(stranger, &status, WNOHANG) == stranger;
        rounds++;
    }
    printf("  %d rounds, the stranger was %squick enough\n", rounds, met ? "" : "not ");
    if (!met) {
        kill(stranger, SIGKILL);
        waitpid(stranger, &status, 0);
    }
}

static int count_in(const char *path)
{
    DIR *folder = opendir(path);
    int count = 0;

    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static void no_thread_and_no_descriptor_stays(void **state)
{
    int files = count_in("/proc/self/fd"), threads = count_in("/proc/self/task"), theirs[3];
    bridge_socket_t *sockets[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        sockets[i] = open_one(&theirs[i]);
    assert_int_equal(count_in("/proc/self/task"), threads + 2); /* ZeroMQ's, for however many */
    for (int i = 0; i < 3; i++) {
        bridge_socket_close(&sockets[i]);
        close(theirs[i]);
    }
    assert_int_equal(count_in("/proc/self/fd"), files);
    assert_int_equal(count_in("/proc/self/task"), threads);
}

/* A process that forks while it has some: the child's own work, and the parent's go on. */
static void a_fork_has_sockets_of_its_own(void **state)
{
    struct bridge_frames frames;
    bridge_socket_t *socket;
    int theirs, status;
    pid_t child;

    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it lets nobody start a thread in the child of a process that has some */
#endif
    socket = open_one(&theirs);
    greet(theirs);
    if ((child = fork()) == 0) {
        int other;
        bridge_socket_t *own = open_one(&other);

        greet(other);
        write_all(other, "\0\5child", 7);
        assert_int_equal(receive(own, &frames), TD_OK);
        assert_memory_equal(frames.header, "child", 5);
        bridge_socket_close(&own);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    write_all(theirs, "\0\6parent", 8);
    assert_int_equal(receive(socket, &frames), TD_OK);
    assert_memory_equal(frames.header, "parent", 6);
    bridge_socket_close(&socket);
    close(theirs);
}

static void where_nothing_can_be_made_is_said(void **state)
{
    struct error err = {0};
    bridge_socket_t *socket;
    char path[600];
    int theirs;

    (void)state;
    snprintf(path, sizeof(path), "%s/none/of/it", test_folder());
    setenv("TDMPC2_RUNTIME_DIR", path, 1);
    assert_int_equal(bridge_socket_open(&socket, FRAME_MAX, &theirs, &err), TD_EIO);
    assert_non_null(strstr(err.text, "for sockets"));
    assert_null(socket);
    assert_int_equal(theirs, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_go_both_ways_and_nothing_lies_about),
        cmocka_unit_test(of_two_at_once_none_is_missed),
        cmocka_unit_test(what_is_no_message_ends_there),
        cmocka_unit_test(a_stranger_is_not_heard),
        cmocka_unit_test(no_thread_and_no_descriptor_stays),
        cmocka_unit_test(a_fork_has_sockets_of_its_own),
        cmocka_unit_test(where_nothing_can_be_made_is_said),
    };
    char folder[64] = "/tmp/tdmpc2-test-XXXXXX", command[96];

    int failed;

    setenv("TDMPC2_RUNTIME_DIR", mkdtemp(folder), 1); /* short, and nobody else's */
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command) == 0 ? failed : 1;
}
