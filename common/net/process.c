#include "common/net/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "common/util/clock.h"
#include "common/util/fs.h"
#include "common/util/spawner.h"

#define PARENT_VARIABLE "TDMPC2_PARENT_PID"
#define TAIL_BYTES 65536
#define PROCESS_RAISED 4096u /* descriptors; more where the limit is higher already */

extern char **environ;

struct process {
    union {
        uv_handle_t handle;
        uv_process_t child; /* of this process */
        uv_poll_t watch;    /* of the spawner's: its pidfd */
    } uv;
    int pidfd;              /* -1: a child of this process */
    process_exit_fn *on_exit;
    void *context;
    pid_t pid;
    uint64_t started_ms;
    bool running, closed;
};

/* --- starting -------------------------------------------------------------- */

/* A bare name means the program beside this one. */
static int find_program(const char *program, char path[FS_PATH_MAX], struct error *err)
{
    char folder[FS_PATH_MAX];
    int rc, length;

    if (strchr(program, '/') != NULL) {
        length = snprintf(path, FS_PATH_MAX, "%s", program);
    } else {
        if ((rc = fs_program_dir(folder, err)) != TD_OK)
            return rc;
        length = snprintf(path, FS_PATH_MAX, "%s/%s", folder, program);
    }
    if (length >= FS_PATH_MAX || access(path, X_OK) != 0)
        return error_set(err, TD_ENOTFOUND, "cannot start %s: no such program; build it with make",
                         program);
    return TD_OK;
}

/* [program, args..., NULL], pointers borrowed. */
static char **make_argv(char *program, const char *const *args)
{
    size_t count = 0;
    char **argv;

    while (args != NULL && args[count] != NULL)
        count++;
    argv = calloc(count + 2, sizeof(*argv));
    if (argv == NULL)
        return NULL;
    argv[0] = program;
    for (size_t i = 0; i < count; i++)
        argv[i + 1] = (char *)(uintptr_t)args[i];
    return argv;
}

/* This process's environment and the variable that names the parent. */
static char **make_environment(char *variable)
{
    size_t count = 0, used = 0;
    char **env;

    while (environ[count] != NULL)
        count++;
    env = calloc(count + 2, sizeof(*env));
    if (env == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], PARENT_VARIABLE "=", sizeof(PARENT_VARIABLE)) != 0)
            env[used++] = environ[i];
    env[used] = variable;
    return env;
}

static void process_freed(uv_handle_t *uv)
{
    process_t *process = uv->data;

    if (process->pidfd >= 0)
        close(process->pidfd);
    free(process);
}

static void process_exited(uv_process_t *uv, int64_t code, int signum)
{
    process_t *process = uv->data;

    process->running = false;
    if (!process->closed && process->on_exit != NULL)
        process->on_exit(process->context, signum != 0 ? -1 : (int)code, signum);
}

/* Its pidfd is readable: it has ended. */
static void watched_exited(uv_poll_t *uv, int status, int events)
{
    process_t *process = uv->data;

    (void)status;
    (void)events;
    if (!process->running || !spawner_ended(process->pid, &status))
        return;
    process->running = false;
    uv_poll_stop(uv);
    if (!process->closed && process->on_exit != NULL)
        process->on_exit(process->context, WIFSIGNALED(status) ? -1 : WEXITSTATUS(status),
                         WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

/* Through the spawner. Returns 0 or libuv's code; nothing is to be closed after an error. */
static int spawn_there(process_t *process, loop_t *loop, char *path, char **argv, char **env, int log)
{
    struct spawn child = {.program = path, .argv = argv, .env = env,
                          .fds = {-1, log >= 0 ? log : STDOUT_FILENO, log >= 0 ? log : STDERR_FILENO}, .fd_count = 3};
    int rc = spawner_spawn(&process->pid, &child), status;

    if (rc != 0)
        return -rc;
    process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (process->pidfd >= 0 && (rc = uv_poll_init(loop_uv(loop), &process->uv.watch, process->pidfd)) == 0)
        return uv_poll_start(&process->uv.watch, UV_READABLE, watched_exited);
    rc = process->pidfd < 0 ? -errno : rc;
    kill(process->pid, SIGKILL);
    while (!spawner_ended(process->pid, &status))
        usleep(1000);
    if (process->pidfd >= 0)
        close(process->pidfd);
    return rc;
}

static int spawn(process_t *process, loop_t *loop, char *path, char **argv, char **env, int log)
{
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = log >= 0 ? log : STDOUT_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = log >= 0 ? log : STDERR_FILENO},
    };
    uv_process_options_t options = {
        .exit_cb = process_exited,
        .file = path,
        .args = argv,
        .env = env,
        .flags = UV_PROCESS_DETACHED, /* setsid: a terminal's Ctrl-C reaches the front only */
        .stdio = stdio,
        .stdio_count = 3,
    };

    return uv_spawn(loop_uv(loop), &process->uv.child, &options);
}

static int open_log(const char *path, int *fd, struct error *err)
{
    *fd = -1;
    if (path == NULL)
        return TD_OK;
    *fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (*fd < 0)
        return error_set_errno(err, TD_EIO, errno, "cannot open the log %s", path);
    return TD_OK;
}

int process_spawn(process_t **out, loop_t *loop, const struct process_options *options,
                  struct error *err)
{
    char path[FS_PATH_MAX], variable[64];
    char **argv = NULL, **env = NULL;
    process_t *process = NULL;
    int rc, log = -1;

    *out = NULL;
    loop_assert_owner(loop);
    TD_ASSERT(getpid() == (pid_t)syscall(SYS_gettid), "children are started from the main thread");
    if ((rc = find_program(options->program, path, err)) != TD_OK)
        return rc;
    if ((rc = open_log(options->log_path, &log, err)) != TD_OK)
        return rc;
    snprintf(variable, sizeof(variable), PARENT_VARIABLE "=%d", (int)spawner_parent());
    process = calloc(1, sizeof(*process));
    argv = make_argv(path, options->args);
    env = make_environment(variable);
    rc = TD_ENOMEM;
    if (process == NULL || argv == NULL || env == NULL) {
        error_set(err, rc, "out of memory to start %s", options->program);
        free(process);
        goto done;
    }
    process->uv.handle.data = process;
    process->pidfd = -1;
    process->on_exit = options->on_exit;
    process->context = options->context;
    rc = spawner_running() ? spawn_there(process, loop, path, argv, env, log)
                           : spawn(process, loop, path, argv, env, log);
    if (rc != 0) {
        rc = error_set(err, TD_EIO, "cannot start %s: %s", path, rc == -EOWNERDEAD ? spawner_explain(-rc) : uv_strerror(rc));
        if (spawner_running())
            free(process);
        else
            uv_close(&process->uv.handle, process_freed);
        goto done;
    }
    if (!spawner_running())
        process->pid = process->uv.child.pid;
    process->started_ms = clock_ms();
    process->running = true;
    *out = process;
    rc = TD_OK;

done:
    free(argv);
    free(env);
    if (log >= 0)
        close(log);
    return rc;
}

/* --- following ------------------------------------------------------------- */

pid_t process_pid(const process_t *process)
{
    return process->pid;
}

bool process_running(const process_t *process)
{
    return process->running;
}

void process_signal(process_t *process, int signum)
{
    if (process->running) /* not reaped yet: the pid is still this child's */
        kill(process->pid, signum);
}

uint64_t process_age_ms(const process_t *process)
{
    return clock_ms() - process->started_ms;
}

void process_close(process_t **process)
{
    if (*process == NULL)
        return;
    (*process)->closed = true;
    uv_close(&(*process)->uv.handle, process_freed);
    *process = NULL;
}

/* --- in the child ---------------------------------------------------------- */

static bool is_child;

static void leave(int signum)
{
    (void)signum;
    _exit(TD_EXIT_OK);
}

void process_leave_if_asked(void)
{
    struct sigaction action = {.sa_handler = leave};

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

int process_follow_parent(void)
{
    const char *text = getenv(PARENT_VARIABLE);
    long parent;

    if (text == NULL)
        return TD_OK;
    parent = strtol(text, NULL, 10);
    unsetenv(PARENT_VARIABLE);
    is_child = true;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    /* It may have died before the call above, then no signal will come. */
    return getppid() == (pid_t)parent ? TD_OK : TD_ENOTFOUND;
}

bool process_is_child(void)
{
    return is_child;
}

static int check_space(struct error *err)
{
    void *space = mmap(NULL, PROCESS_SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (space == MAP_FAILED)
        return error_set(err, TD_ENOMEM, "not %zu MB of address space are left: raise the limit (ulimit -v)",
                         PROCESS_SPACE >> 20);
    munmap(space, PROCESS_SPACE);
    return TD_OK;
}

int process_check_limits(struct error *err)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot ask how many files may be open");
    if (limit.rlim_cur < limit.rlim_max && limit.rlim_cur < PROCESS_RAISED) {
        limit.rlim_cur = limit.rlim_max < PROCESS_RAISED ? limit.rlim_max : PROCESS_RAISED;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* what counts is asked again */
        if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
            return error_set_errno(err, TD_EIO, errno, "cannot ask how many files may be open");
    }
    if (limit.rlim_cur >= PROCESS_DESCRIPTORS)
        return check_space(err);
    return error_set(err, TD_EINVAL, "only %llu files may be open at a time, %u are needed: raise the limit (ulimit -n)",
                     (unsigned long long)limit.rlim_cur, PROCESS_DESCRIPTORS);
}

uint64_t process_random_id(void)
{
    uint64_t id = 0;

    while (id == 0)
        if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
            id = 0;
    return id;
}

uint64_t process_resident_bytes(void)
{
    char text[128];
    unsigned long total, resident = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0)
        return 0;
    length = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    if (sscanf(text, "%lu %lu", &total, &resident) != 2)
        return 0;
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* --- what is left of it ---------------------------------------------------- */

/* Where the last `lines` lines of text[0..length-1] begin. */
static size_t tail_start(const char *text, size_t length, int lines)
{
    size_t at = length;

    if (at > 0 && text[at - 1] == '\n')
        at--;
    while (at > 0) {
        if (text[at - 1] == '\n' && --lines == 0)
            break;
        at--;
    }
    return at;
}

size_t process_log_tail(const char *path, int lines, char *out, size_t size)
{
    char *text = malloc(TAIL_BYTES);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    ssize_t length = 0;
    size_t start, kept;

    out[0] = '\0';
    if (text == NULL || fd < 0 || fstat(fd, &info) != 0)
        goto done;
    length = pread(fd, text, TAIL_BYTES, info.st_size > TAIL_BYTES ? info.st_size - TAIL_BYTES : 0);
    if (length <= 0)
        goto done;
    start = tail_start(text, (size_t)length, lines);
    kept = (size_t)length - start;
    if (kept > size - 1) { /* the newest bytes, from the beginning of a line if there is one */
        const char *line = memchr(text + length - (size - 1), '\n', size - 2);

        start = line != NULL ? (size_t)(line + 1 - text) : (size_t)length - (size - 1);
        kept = (size_t)length - start;
    }
    memcpy(out, text + start, kept);
    out[kept] = '\0';

done:
    if (fd >= 0)
        close(fd);
    free(text);
    return strlen(out);
}

char *process_describe_exit(int code, int signum, char *out, size_t size)
{
    if (signum != 0)
        snprintf(out, size, "killed by signal %d (%s)", signum, strsignal(signum));
    else
        snprintf(out, size, "exit code %d", code);
    return out;
}

int64_t restart_after(struct restart *restart, uint64_t lived_ms)
{
    if (lived_ms >= RESTART_YOUNG_MS)
        restart->deaths = 0;
    if (++restart->deaths >= RESTART_LIMIT)
        return -1;
    return (int64_t)250 << (restart->deaths - 1);
}
