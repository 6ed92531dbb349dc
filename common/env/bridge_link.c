#include "common/env/bridge_link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/env/bridge_socket.h"
#include "common/env/bridge_words.h"
#include "common/util/clock.h"
#include "common/util/spawner.h"

#define CHILD_SOCKET 3
#define CLOSE_MS     2000 /* for the environment's own close */

extern char **environ;

struct bridge_link {
    bridge_socket_t *socket;
    pid_t pid;    /* 0: reaped */
    int ended;    /* a pidfd, readable once it has ended */
    int printed;  /* the reading end of its stdout and stderr; -1: closed */
    bool dead, silent;
    uint64_t sequence;
    /* the request under way */
    uint32_t asked; /* its kind; 0: none is */
    bool unsent;
    bool ready;     /* ZeroMQ can go on, and its descriptor need not say so again */
    uint64_t timeout_ms, until_ms;
    struct bridge_frames frames;
    uint8_t request[BRIDGE_REQUEST_MAX];
    struct bridge_words words;
};

/* --- the child's life -------------------------------------------------------------------------- */

/* Take what it has printed; a child that prints without end gets no more than a share of the time. */
static void listen_to_it(bridge_link_t *link)
{
    char text[4096];

    for (int i = 0; i < 64 && link->printed >= 0; i++) {
        ssize_t got = read(link->printed, text, sizeof(text));

        if (got > 0) {
            bridge_words_hear(&link->words, link->pid, text, (size_t)got);
        } else {
            if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
                close(link->printed);
                link->printed = -1;
            }
            return;
        }
    }
}

/* Its exit within so many ms, kept in *status; false: it lives. */
static bool reap(bridge_link_t *link, uint64_t wait_ms, int *status)
{
    uint64_t until = clock_ms() + wait_ms;

    while (link->pid > 0) {
        if (spawner_ended(link->pid, status)) {
            link->pid = 0;
            return true;
        }
        if (clock_ms() >= until)
            return false;
        listen_to_it(link); /* a full pipe would keep it from ending */
        usleep(1000);
    }
    return true;
}

static void kill_it(bridge_link_t *link)
{
    int status;

    link->dead = true;
    if (link->pid <= 0)
        return;
    kill(-link->pid, SIGKILL);
    kill(link->pid, SIGKILL); /* it may not have become a session's leader yet */
    reap(link, CLOSE_MS, &status);
}

static int lost(bridge_link_t *link, struct error *err, const char *what)
{
    char words[BRIDGE_WORDS_LINE];

    kill_it(link);
    listen_to_it(link);
    bridge_words_last(&link->words, words);
    return error_set(err, TD_ELOST, "the environment's process %s%s%s%s", what, words[0] != '\0' ? "; it said: '" : "",
                     words, words[0] != '\0' ? "'" : "");
}

static bool has_ended(const bridge_link_t *link)
{
    struct pollfd fd = {.fd = link->ended, .events = POLLIN};

    return poll(&fd, 1, 0) > 0;
}

/* It has ended: how? */
static int lost_child(bridge_link_t *link, struct error *err)
{
    char what[96] = "ended";
    int status = 0;

    if (reap(link, CLOSE_MS, &status)) {
        if (WIFSIGNALED(status))
            snprintf(what, sizeof(what), "was killed by signal %d (%s)", WTERMSIG(status),
                     strsignal(WTERMSIG(status)));
        else
            snprintf(what, sizeof(what), "ended with exit code %d", WEXITSTATUS(status));
        listen_to_it(link);
        link->silent = WIFEXITED(status) && link->words.used == 0;
    }
    return lost(link, err, what);
}

static int spawn(bridge_link_t *link, const char *python, const char *run, int child_socket, int child_printed,
                 struct error *err)
{
    char descriptor[16], parent[16];
    char *argv[] = {(char *)(uintptr_t)python, (char *)(uintptr_t)"-u", (char *)(uintptr_t)run, descriptor, parent,
                    NULL};
    struct spawn child = {.program = python, .argv = argv, .env = environ,
                          .fds = {-1, child_printed, child_printed, child_socket}, .fd_count = CHILD_SOCKET + 1};
    int rc;

    snprintf(descriptor, sizeof(descriptor), "%d", CHILD_SOCKET);
    snprintf(parent, sizeof(parent), "%d", (int)spawner_parent());
    if ((rc = spawner_spawn(&link->pid, &child)) != 0) {
        link->pid = 0;
        return error_set(err, rc == ENOENT || rc == EACCES ? TD_ESETUP : TD_EIO, "cannot start %s: %s", python, spawner_explain(rc));
    }
    /* its number is its own until spawner_ended has said that it is gone */
    if ((link->ended = (int)syscall(SYS_pidfd_open, link->pid, 0)) < 0)
        return error_set_errno(err, TD_EIO, errno, "cannot watch the environment's process (Linux 5.3 or newer is needed)");
    return TD_OK;
}

/* A descriptor that dup2 in the child cannot run over. */
static int above_standard(int fd)
{
    int moved = fd >= 0 && fd <= CHILD_SOCKET ? fcntl(fd, F_DUPFD_CLOEXEC, CHILD_SOCKET + 1) : fd;

    if (moved != fd)
        close(fd);
    return moved;
}

int bridge_link_open(bridge_link_t **out, const char *python, const char *run, struct error *err)
{
    bridge_link_t *link = calloc(1, sizeof(*link));
    int theirs = -1, pipes[2] = {-1, -1}, rc;

    *out = NULL;
    if (link == NULL)
        return error_set(err, TD_ENOMEM, "no memory for an environment");
    link->printed = link->ended = -1;
    if ((rc = bridge_socket_open(&link->socket, BRIDGE_BULK_MAX, &theirs, err)) != TD_OK)
        goto out;
    if (pipe2(pipes, O_CLOEXEC) != 0) {
        rc = error_set_errno(err, TD_EIO, errno, "cannot make a pipe for the environment's process");
        goto out;
    }
    theirs = above_standard(theirs);
    for (int i = 0; i < 2; i++)
        pipes[i] = above_standard(pipes[i]);
    rc = spawn(link, python, run, theirs, pipes[1], err);
    link->printed = pipes[0];
    pipes[0] = -1;
    fcntl(link->printed, F_SETFL, O_NONBLOCK);
out:
    if (theirs >= 0)
        close(theirs);
    for (int i = 0; i < 2; i++)
        if (pipes[i] >= 0)
            close(pipes[i]);
    if (rc != TD_OK)
        bridge_link_close(&link);
    *out = link;
    return rc;
}

bool bridge_link_silent(const bridge_link_t *link)
{
    return link->silent;
}

pid_t bridge_link_pid(const bridge_link_t *link)
{
    return link->pid;
}

/* --- requests ------------------------------------------------------------------------------------ */

static int late(bridge_link_t *link, struct error *err)
{
    char what[96];

    snprintf(what, sizeof(what), "did not answer within %.3g s", (double)link->timeout_ms / 1000);
    return lost(link, err, what);
}

static void prepare(bridge_link_t *link, const struct bridge_request *request)
{
    size_t size = bridge_request_pack(link->request, request, ++link->sequence);

    link->frames = (struct bridge_frames){link->request, request->bulk, size, request->bulk_size};
    link->unsent = true;
}

/* Once the other end has said who it is, a request goes out whole. TD_OK or TD_ENOMEM. */
static int send_it(bridge_link_t *link)
{
    int rc = link->unsent ? bridge_socket_send(link->socket, &link->frames) : TD_OK;

    link->unsent = link->unsent && rc != TD_OK;
    return rc == TD_EAGAIN ? TD_OK : rc;
}

int bridge_link_begin(bridge_link_t *link, const struct bridge_request *request, uint64_t timeout_ms,
                      struct error *err)
{
    TD_ASSERT(link->asked == 0, "request %u while the reply to %u is awaited", request->kind, link->asked);
    if (link->dead)
        return error_set(err, TD_ELOST, "the environment's process was lost before");
    if (bridge_socket_ready(link->socket, false)) /* asking makes ZeroMQ's descriptor speak up at the next message */
        return lost(link, err, "sent more than one reply");
    prepare(link, request);
    link->asked = request->kind;
    link->timeout_ms = timeout_ms;
    link->until_ms = clock_ms() + timeout_ms;
    if (send_it(link) != TD_OK)
        return lost(link, err, "was to be sent a request there is no memory for");
    link->ready = bridge_socket_ready(link->socket, link->unsent);
    return TD_OK;
}

/* Nothing has come: is there still hope? */
static int go_on(bridge_link_t *link, struct error *err)
{
    link->ready = bridge_socket_ready(link->socket, link->unsent);
    if (link->ready)
        return TD_EAGAIN;
    if (has_ended(link))
        return lost_child(link, err);
    return clock_ms() < link->until_ms ? TD_EAGAIN : late(link, err);
}

int bridge_link_finish(bridge_link_t *link, struct bridge_reply *reply, struct error *err)
{
    struct bridge_frames frames;
    uint32_t asked = link->asked;
    struct error why;
    int rc;

    TD_ASSERT(asked != 0, "no reply is awaited");
    listen_to_it(link);
    if (send_it(link) != TD_OK)
        return lost(link, err, "was to be sent a request there is no memory for");
    rc = bridge_socket_receive(link->socket, &frames);
    if (rc == TD_EAGAIN)
        return go_on(link, err);
    if (rc != TD_OK)
        return lost(link, err, "sent a message of too many frames (does it write to file descriptor 3?)");
    link->asked = 0;
    link->unsent = false;
    rc = bridge_reply_unpack(reply, asked, link->sequence, frames.header, frames.header_size, &why);
    if (rc == TD_ECORRUPT)
        return lost(link, err, why.text);
    if (rc != TD_OK) {
        kill_it(link);
        listen_to_it(link);
        *err = why;
        return rc;
    }
    reply->bulk = frames.bulk;
    reply->bulk_size = frames.bulk_size;
    return TD_OK;
}

int bridge_link_poll(const bridge_link_t *link, struct pollfd fds[BRIDGE_POLL])
{
    fds[0] = (struct pollfd){.fd = bridge_socket_fd(link->socket), .events = POLLIN}; /* of ZeroMQ: whatever changes */
    fds[1] = (struct pollfd){.fd = link->printed, .events = POLLIN};                  /* -1 is passed over */
    fds[2] = (struct pollfd){.fd = link->ended, .events = POLLIN};
    return BRIDGE_POLL;
}

uint64_t bridge_link_due_ms(const bridge_link_t *link)
{
    return link->ready ? 0 : link->until_ms;
}

void bridge_link_wait(const bridge_link_t *link)
{
    struct pollfd fds[BRIDGE_POLL];
    uint64_t now = clock_ms(), due = bridge_link_due_ms(link), left = due > now ? due - now : 0;

    bridge_link_poll(link, fds);
    poll(fds, BRIDGE_POLL, left < 60000 ? (int)left : 60000);
}

int bridge_link_call(bridge_link_t *link, const struct bridge_request *request, struct bridge_reply *reply,
                     uint64_t timeout_ms, struct error *err)
{
    int rc = bridge_link_begin(link, request, timeout_ms, err);

    if (rc != TD_OK)
        return rc;
    do {
        bridge_link_wait(link);
    } while ((rc = bridge_link_finish(link, reply, err)) == TD_EAGAIN);
    return rc;
}

void bridge_link_close(bridge_link_t **out)
{
    static const struct bridge_request close_request = {.kind = BRIDGE_CLOSE};
    bridge_link_t *link = *out;
    int status;

    if (link == NULL)
        return;
    if (link->pid > 0 && !link->dead && link->asked == 0) {
        prepare(link, &close_request);
        if (send_it(link) == TD_OK && !link->unsent)
            reap(link, CLOSE_MS, &status);
    }
    if (link->pid > 0)
        kill_it(link);
    listen_to_it(link);
    bridge_socket_close(&link->socket);
    if (link->printed >= 0)
        close(link->printed);
    if (link->ended >= 0)
        close(link->ended);
    free(link);
    *out = NULL;
}
