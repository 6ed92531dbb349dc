/* Each case in a child of its own: what is given up is given up for good. */
#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/sandbox.h"

#define THREADS 3

#ifdef __SANITIZE_THREAD__
enum { WATCHED = true }; /* its own thread is there before main: a sandbox begins before the first one, or not at all */
#else
enum { WATCHED = false };
#endif

/* In a child: the line that is not so, as its exit code. */
#define MUST(condition)                                                                             \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            dprintf(2, "line %d: %s is not so (errno %d)\n", __LINE__, #condition, errno);          \
            _exit(1);                                                                               \
        }                                                                                           \
    } while (0)

static char inside[600], library[600], outside[600];

static char *at(const char *folder, const char *name)
{
    static _Thread_local char paths[4][700];
    static _Thread_local int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static int touch(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    if (fd >= 0)
        close(fd);
    return fd;
}

static bool readable(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void make_folders(void)
{
    char *const folders[] = {inside, library, outside};
    const char *const names[] = {"inside", "library", "outside"};

    for (int i = 0; i < 3; i++) {
        snprintf(folders[i], sizeof(inside), "%s/%s", test_folder(), names[i]);
        mkdir(folders[i], 0700);
        assert_true(touch(at(folders[i], "file")) >= 0);
    }
}

static void in_a_child(void (*what)(void))
{
    pid_t child;
    int status;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* --- files ------------------------------------------------------------------------ */

static void *try_files(void *unused)
{
    MUST(readable(at(library, "file")) && readable(at(inside, "file")));
    MUST(!readable(at(outside, "file")) && errno == EACCES);
    MUST(!readable("/etc/passwd") && errno == EACCES);
    MUST(touch(at(library, "new")) < 0 && errno == EACCES);
    MUST(touch(at(outside, "new")) < 0 && errno == EACCES);
    MUST(open(at(outside, "file"), O_WRONLY | O_TRUNC) < 0);
    MUST(rename(at(inside, "file"), at(outside, "moved")) != 0);
    MUST(link(at(outside, "file"), at(inside, "linked")) != 0);
    MUST(unlink(at(outside, "file")) != 0);
    MUST(symlink(at(outside, "file"), at(inside, "soft")) == 0 && !readable(at(inside, "soft")));
    MUST(unlink(at(inside, "soft")) == 0);
    return unused;
}

static void files_case(void)
{
    static struct sandbox keep = {.network = true, .code = true};
    struct error err = {0};
    pthread_t thread;

    sandbox_read(&keep, library);
    sandbox_write(&keep, inside);
    sandbox_read(&keep, "/there/is/nothing");
    sandbox_read(&keep, "");
    MUST(sandbox_files(&keep, &err) == TD_OK);
    try_files(NULL);
    MUST(mkdir(at(inside, "folder"), 0700) == 0 && touch(at(inside, "folder/a")) >= 0);
    MUST(rename(at(inside, "folder/a"), at(inside, "b")) == 0 && rmdir(at(inside, "folder")) == 0);
    MUST(truncate(at(inside, "b"), 0) == 0 && unlink(at(inside, "b")) == 0);
    MUST(pthread_create(&thread, NULL, try_files, NULL) == 0 && pthread_join(thread, NULL) == 0);
    if (fork() == 0) { /* and what it starts */
        try_files(NULL);
        _exit(0);
    }
    int status = 1;
    MUST(wait(&status) > 0 && status == 0);
}

static void files_outside_are_out_of_reach(void **state)
{
    (void)state;
    if (WATCHED)
        skip();
    if (sandbox_landlock() == 0) {
        printf("  skipped: no Landlock in this kernel\n");
        skip();
    }
    make_folders();
    in_a_child(files_case);
}

static void *wait_for_it(void *lock)
{
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return NULL;
}

static void late_case(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct sandbox keep;
    struct error err = {0};
    pthread_t thread;

    pthread_mutex_lock(&lock);
    MUST(pthread_create(&thread, NULL, wait_for_it, &lock) == 0);
    MUST(sandbox_files(&keep, &err) == TD_ESETUP && strstr(err.text, "thread") != NULL);
    MUST(readable("/etc/passwd"));
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
}

static void it_is_refused_once_another_thread_runs(void **state)
{
    (void)state;
    if (sandbox_landlock() == 0)
        skip();
    in_a_child(late_case);
}

/* --- calls ------------------------------------------------------------------------- */

static struct sandbox narrow;
static pthread_barrier_t filtered;

static bool family(int number)
{
    int fd = socket(number, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void *try_calls(void *waits)
{
    static char *const nothing[] = {NULL};
    int ends[2], status = 1;
    char *page;

    if (waits != NULL)
        pthread_barrier_wait(&filtered);
    MUST(execve("/bin/false", nothing, nothing) != 0 && errno == EPERM);
    MUST(syscall(SYS_execveat, AT_FDCWD, "/bin/false", nothing, nothing, 0) != 0 && errno == EPERM);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    MUST(ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 && errno == EPERM);
#endif
    MUST(unshare(CLONE_NEWNS) != 0 && errno == EPERM);
    MUST(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0) < 0 && errno == EPERM);
    MUST(syscall(435, NULL, 0) < 0 && errno == ENOSYS); /* clone3 */
    MUST(syscall(425, 1, NULL) < 0 && errno == ENOSYS); /* io_uring_setup */
    MUST(syscall(SYS_bpf, 0, NULL, 0) < 0 && errno == EPERM);
    MUST(!family(AF_PACKET) && !family(AF_VSOCK) && !family(AF_ALG));
    MUST(family(AF_INET) == narrow.network && family(AF_INET6) == narrow.network);
    MUST(family(AF_UNIX) && socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    close(ends[0]);
    close(ends[1]);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(page != MAP_FAILED);
    MUST((mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0) == narrow.code);
    munmap(page, 4096);
    if (waits == NULL && fork() == 0) /* a walker of the store's tree is such a child */
        _exit(0);
    MUST(waits != NULL || (wait(&status) > 0 && status == 0));
    return waits;
}

static void calls_case(void)
{
    pthread_t threads[THREADS], later;
    struct error err = {0};

    pthread_barrier_init(&filtered, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        MUST(pthread_create(&threads[i], NULL, try_calls, &filtered) == 0);
    MUST(sandbox_calls(&narrow, &err) == TD_OK);
    pthread_barrier_wait(&filtered);
    try_calls(NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    MUST(pthread_create(&later, NULL, try_calls, NULL) == 0 && pthread_join(later, NULL) == 0);
}

static void calls_are_refused_in_every_thread(void **state)
{
    (void)state;
    if (WATCHED)
        skip();
    if (!sandbox_seccomp()) {
        printf("  skipped: no seccomp filters in this kernel\n");
        skip();
    }
    for (int i = 0; i < 4; i++) {
        narrow = (struct sandbox){.network = i & 1, .code = i >> 1};
        in_a_child(calls_case);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_outside_are_out_of_reach),
        cmocka_unit_test(it_is_refused_once_another_thread_runs),
        cmocka_unit_test(calls_are_refused_in_every_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
