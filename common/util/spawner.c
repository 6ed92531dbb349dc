#include "common/util/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT_MAX (8u << 20) /* bytes of words and environment: more than the kernel takes */
#define HIGH_FD  16         /* descriptors that came lie above those of a child */

extern char **environ;

enum { ORDER_SPAWN = 1, ORDER_ENDED };

struct order {
    int32_t kind, pid;      /* pid: ORDER_ENDED */
    uint32_t words, variables, bytes;
    int32_t fd_count;
    uint32_t null_fds;      /* bit i: descriptor i is /dev/null */
};

struct answer {
    int32_t code, pid, status;
};

static struct {
    pthread_mutex_t lock;
    pid_t pid;              /* 0: not running */
    int socket;
    bool lost;              /* it does not answer any more */
} spawner = {.lock = PTHREAD_MUTEX_INITIALIZER, .socket = -1};

/* --- doing it ------------------------------------------------------------------ */

static int set_actions(posix_spawn_file_actions_t *actions, const struct spawn *spawn)
{
    int rc = 0;

    for (int i = 0; i < spawn->fd_count && rc == 0; i++)
        rc = spawn->fds[i] < 0 ? posix_spawn_file_actions_addopen(actions, i, "/dev/null", i == 0 ? O_RDONLY : O_WRONLY, 0)
                               : posix_spawn_file_actions_adddup2(actions, spawn->fds[i], i);
    return rc != 0 ? rc : posix_spawn_file_actions_addclosefrom_np(actions, spawn->fd_count);
}

/* Of the spawner: who may have to be continued. Grows as needed; a child too many is not. */
static struct {
    pid_t *list;
    int count, room;
} children;

static void child_started(pid_t pid)
{
    if (children.count == children.room) {
        int room = 2 * children.room + 16;
        pid_t *grown = realloc(children.list, (size_t)room * sizeof(*grown));

        if (grown == NULL)
            return;
        children.list = grown;
        children.room = room;
    }
    children.list[children.count++] = pid;
}

static void child_reaped(pid_t pid)
{
    for (int i = 0; i < children.count; i++)
        if (children.list[i] == pid)
            children.list[i--] = children.list[--children.count];
}

/* posix_spawn: no copy of this process's memory, whatever its size. */
static int spawn_here(pid_t *pid, const struct spawn *spawn)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int rc;

    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    rc = set_actions(&actions, spawn);
    if (rc == 0)
        rc = posix_spawnp(pid, spawn->program, &actions, &attributes, spawn->argv, spawn->env);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return rc;
}

static bool ended_here(pid_t pid, int *status)
{
    siginfo_t info = {0};
    int rc = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);

    *status = 0;
    if (rc != 0)
        return errno == ECHILD;
    if (info.si_pid != pid)
        return false;
    kill(-pid, SIGKILL); /* what it started in its session, while the number is still its own */
    waitpid(pid, status, WNOHANG);
    return true;
}

/* --- bytes and descriptors over the socket ---------------------------------------- */

static bool put(int socket, const void *bytes, size_t size, const int *fds, int fd_count)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int) * SPAWNER_FDS)];
    } control = {.room = {0}};
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (fd_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_count);
        control.head = (struct cmsghdr){CMSG_LEN(sizeof(int) * (size_t)fd_count), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * (size_t)fd_count);
    }
    while (part.iov_len > 0) {
        ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        part.iov_base = (char *)part.iov_base + sent;
        part.iov_len -= (size_t)sent;
        message.msg_control = NULL;
        message.msg_controllen = 0;
    }
    return true;
}

/* Descriptors, if any came, go to fds; *fd_count is how many. */
static bool take(int socket, void *bytes, size_t size, int *fds, int *fd_count)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int) * SPAWNER_FDS)];
    } control;
    struct iovec part = {bytes, size};

    while (part.iov_len > 0) {
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                 .msg_controllen = sizeof(control)};
        ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        const struct cmsghdr *head;

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        head = CMSG_FIRSTHDR(&message);
        if (head != NULL && head->cmsg_type == SCM_RIGHTS && fds != NULL) {
            *fd_count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(head), sizeof(int) * (size_t)*fd_count);
        }
        part.iov_base = (char *)part.iov_base + got;
        part.iov_len -= (size_t)got;
    }
    return true;
}

/* --- the spawner ------------------------------------------------------------------ */

/* `count` texts, one behind the other, as an array that ends with NULL. */
static char **unpack(char **text, const char *end, uint32_t count)
{
    char **list = calloc((size_t)count + 1, sizeof(*list));

    for (uint32_t i = 0; list != NULL && i < count; i++) {
        char *zero = memchr(*text, '\0', (size_t)(end - *text));

        TD_ASSERT(zero != NULL, "an order that is cut short");
        list[i] = *text;
        *text = zero + 1;
    }
    return list;
}

static void carry_out(const struct order *order, char *text, int *came, int came_count, struct answer *answer)
{
    struct spawn spawn = {.fd_count = order->fd_count};
    char *at = text, *end = text + order->bytes, **argv, **env;
    int next = 0;
    pid_t pid = 0;

    for (int i = 0; i < order->fd_count; i++)
        spawn.fds[i] = (order->null_fds >> i & 1) != 0 || next == came_count ? -1 : came[next++];
    spawn.program = at;
    at += strnlen(at, order->bytes) + 1;
    spawn.argv = argv = unpack(&at, end, order->words);
    spawn.env = env = unpack(&at, end, order->variables);
    answer->code = argv == NULL || env == NULL ? ENOMEM : spawn_here(&pid, &spawn);
    answer->pid = pid;
    free(argv);
    free(env);
}

/* Out of the way of the numbers that a child's descriptors have. */
static void raise_fds(int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        int high = fcntl(fds[i], F_DUPFD_CLOEXEC, HIGH_FD);

        close(fds[i]);
        fds[i] = high;
    }
}

static bool serve_one(int socket)
{
    struct answer answer = {0};
    int fds[SPAWNER_FDS], fd_count = 0;
    struct order order;
    char *text = NULL;
    bool good;

    if (!take(socket, &order, sizeof(order), fds, &fd_count) || order.bytes > TEXT_MAX || order.fd_count > SPAWNER_FDS)
        return false;
    raise_fds(fds, fd_count);
    if (order.kind == ORDER_ENDED) {
        answer.code = ended_here(order.pid, &answer.status);
        if (answer.code)
            child_reaped(order.pid);
    } else {
        text = malloc((size_t)order.bytes + 1);
        if (text == NULL || !take(socket, text, order.bytes, NULL, NULL))
            return false;
        text[order.bytes] = '\0';
        carry_out(&order, text, fds, fd_count, &answer);
        if (answer.code == 0)
            child_started(answer.pid);
        free(text);
    }
    good = put(socket, &answer, sizeof(answer), NULL, 0);
    for (int i = 0; i < fd_count; i++)
        close(fds[i]);
    return good;
}

/* `ps` shows what it is, and not its parent's words. */
static void rename_it(int argc, char **argv)
{
    char *end = argv[0];

    for (int i = 0; i < argc && argv[i] == end; i++) /* they lie one behind the other */
        end += strlen(argv[i]) + 1;
    memset(argv[0], 0, (size_t)(end - argv[0]));
    strncpy(argv[0], "tdmpc2-spawner", (size_t)(end - argv[0]) - 1);
    prctl(PR_SET_NAME, "tdmpc2-spawner");
}

/* Orders, until the daemon is gone. `above` is its own parent, if it follows that, else 0. */
static void serve(int socket, pid_t parent, pid_t above)
{
    struct pollfd ends[] = {
        {socket, POLLIN, 0},
        {(int)syscall(SYS_pidfd_open, parent, 0), POLLIN, 0}, /* -1 before Linux 5.3: the socket's end tells as well */
        {above == 0 ? -1 : (int)syscall(SYS_pidfd_open, above, 0), POLLIN, 0},
    };

    while (ends[1].revents == 0) {
        if (poll(ends, 3, -1) < 0 && errno != EINTR)
            return;
        if (ends[2].revents != 0 && ends[1].revents == 0) { /* the signal of that waits for it */
            kill(parent, SIGCONT);
            close(ends[2].fd);
            ends[2].fd = -1;
            ends[2].revents = 0;
        }
        if (ends[0].revents != 0 && !serve_one(socket))
            return;
    }
}

static void __attribute__((noreturn)) live(int socket, pid_t parent, pid_t above, int argc, char **argv)
{
    signal(SIGINT, SIG_IGN); /* a terminal's; it goes when its parent goes */
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGCONT); /* it may be stopped itself */
    rename_it(argc, argv);
    if (getppid() == parent)
        serve(socket, parent, above);
    for (int i = 0; i < children.count; i++)
        kill(children.list[i], SIGCONT);
    _exit(0);
}

int spawner_start(int argc, char **argv, struct error *err)
{
    int ends[2];
    pid_t parent = getpid(), above = getppid(), child;
    int follows = 0;

    if (prctl(PR_GET_PDEATHSIG, &follows) != 0 || follows == 0)
        above = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot make a socket for starting processes");
    child = fork();
    if (child == 0) {
        close(ends[0]);
        live(ends[1], parent, above, argc, argv);
    }
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return error_set_errno(err, TD_EIO, errno, "cannot start a process");
    }
    spawner.pid = child;
    spawner.socket = ends[0];
    return TD_OK;
}

/* --- giving orders ------------------------------------------------------------------ */

bool spawner_running(void)
{
    return spawner.pid != 0;
}

pid_t spawner_parent(void)
{
    return spawner.pid != 0 ? spawner.pid : getpid();
}

bool spawner_lost(void)
{
    bool lost;

    pthread_mutex_lock(&spawner.lock);
    lost = spawner.lost;
    pthread_mutex_unlock(&spawner.lock);
    return lost;
}

const char *spawner_explain(int code)
{
    return code == EOWNERDEAD ? "tdmpc2-spawner, the process that starts this one's children, was killed" : strerror(code);
}

/* False: it is gone. */
static bool ask(const struct order *order, const char *text, const int *fds, int fd_count, struct answer *answer)
{
    bool good;

    pthread_mutex_lock(&spawner.lock);
    good = put(spawner.socket, order, sizeof(*order), fds, fd_count) &&
           (order->bytes == 0 || put(spawner.socket, text, order->bytes, NULL, 0)) &&
           take(spawner.socket, answer, sizeof(*answer), NULL, NULL);
    spawner.lost |= !good;
    pthread_mutex_unlock(&spawner.lock);
    return good;
}

static size_t texts_size(char *const *texts, uint32_t *count)
{
    size_t size = 0;

    for (*count = 0; texts[*count] != NULL; (*count)++)
        size += strlen(texts[*count]) + 1;
    return size;
}

static char *texts_put(char *out, char *const *texts)
{
    for (; *texts != NULL; texts++)
        out = stpcpy(out, *texts) + 1;
    return out;
}

static int spawn_there(pid_t *pid, const struct spawn *spawn)
{
    struct order order = {.kind = ORDER_SPAWN, .fd_count = spawn->fd_count};
    size_t size = strlen(spawn->program) + 1 + texts_size(spawn->argv, &order.words) +
                  texts_size(spawn->env, &order.variables);
    int fds[SPAWNER_FDS], fd_count = 0;
    struct answer answer;
    char *text;

    if (size > TEXT_MAX)
        return E2BIG;
    if ((text = malloc(size)) == NULL)
        return ENOMEM;
    order.bytes = (uint32_t)size;
    texts_put(texts_put(stpcpy(text, spawn->program) + 1, spawn->argv), spawn->env);
    for (int i = 0; i < spawn->fd_count; i++)
        if (spawn->fds[i] < 0)
            order.null_fds |= 1u << i;
        else
            fds[fd_count++] = spawn->fds[i];
    if (!ask(&order, text, fds, fd_count, &answer))
        answer = (struct answer){.code = EOWNERDEAD};
    free(text);
    *pid = answer.pid;
    return answer.code;
}

int spawner_spawn(pid_t *pid, const struct spawn *spawn)
{
    TD_ASSERT(spawn->fd_count <= SPAWNER_FDS, "%d descriptors", spawn->fd_count);
    *pid = 0;
    return spawner.pid != 0 ? spawn_there(pid, spawn) : spawn_here(pid, spawn);
}

bool spawner_ended(pid_t pid, int *status)
{
    struct order order = {.kind = ORDER_ENDED, .pid = pid};
    struct answer answer;

    if (spawner.pid == 0)
        return ended_here(pid, status);
    if (!ask(&order, NULL, NULL, 0, &answer))
        answer = (struct answer){.code = true}; /* it was killed, and took them along */
    *status = answer.status;
    return answer.code != 0;
}
