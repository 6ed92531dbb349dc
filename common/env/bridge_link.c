#include "common/env/bridge_link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bridge.pb-c.h"
#include "common/util/clock.h"
#include "common/util/log.h"
#include "common/util/spawner.h"

#define CHILD_SOCKET  3
#define FRAME_HEAD    8
#define ARENA_BYTES   8192
#define REQUEST_MAX   1024    /* a packed request header: a task's name and numbers */
#define CLOSE_MS      2000    /* for the environment's own close */
#define WORDS_MAX     4096    /* of what the child printed last */
#define LINE_MAX_TEXT 200
#define LINES_PER_SECOND 20

extern char **environ;

struct bridge_link {
    pid_t pid;    /* 0: reaped */
    int socket;
    int printed;  /* the reading end of its stdout and stderr; -1: closed */
    uint64_t sequence;
    bool dead, silent;
    /* the request under way */
    uint32_t asked;          /* its kind; 0: none is */
    uint64_t timeout_ms, until_ms;
    struct iovec unsent[2];  /* of its head, header and small bulk; of a large bulk */
    uint8_t *frame; /* the reply as it comes in: head, header, bulk */
    size_t frame_size, frame_have;
    uint8_t request[FRAME_HEAD + REQUEST_MAX];
    /* what it prints */
    char words[WORDS_MAX];
    size_t words_used;
    char line[LINE_MAX_TEXT + 1];
    size_t line_used;
    char escape;    /* within a terminal's sequence: its first byte or two, ESC or [ */
    uint64_t lines_since_ms;
    unsigned lines, lines_dropped;
    size_t arena_used;
    _Alignas(16) char arena[ARENA_BYTES];
};

/* --- what it prints -------------------------------------------------------------------------- */

static void say_line(bridge_link_t *link)
{
    uint64_t now = clock_ms();

    link->line[link->line_used] = '\0';
    if (link->line_used == 0)
        return;
    link->line_used = 0;
    if (now >= link->lines_since_ms + 1000) {
        if (link->lines_dropped > 0)
            log_info("the environment printed more", "pid=%d lines=%u", (int)link->pid, link->lines_dropped);
        link->lines_since_ms = now;
        link->lines = link->lines_dropped = 0;
    }
    if (++link->lines > LINES_PER_SECOND)
        link->lines_dropped++;
    else
        log_info("the environment printed", "pid=%d text=\"%s\"", (int)link->pid, link->line);
}

/* Colours and the like, ESC [ ... letter, are for terminals. */
static bool in_escape(char *escape, unsigned char c)
{
    char before = *escape;

    if (c == '\n' || (before == 0 && c != 0x1b))
        *escape = 0;
    else if (before == 0)
        *escape = 0x1b;
    else if (before == 0x1b)
        *escape = c == '[' ? '[' : 0;
    else if (c >= 0x40 && c < 0x7f)
        *escape = 0;
    return c != '\n' && (before != 0 || *escape != 0);
}

static void hear(bridge_link_t *link, const char *text, size_t size)
{
    size_t keep = size < WORDS_MAX ? size : WORDS_MAX;

    if (keep > WORDS_MAX - link->words_used) {
        size_t drop = keep - (WORDS_MAX - link->words_used);

        memmove(link->words, link->words + drop, link->words_used - drop);
        link->words_used -= drop;
    }
    memcpy(link->words + link->words_used, text + size - keep, keep);
    link->words_used += keep;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];

        if (in_escape(&link->escape, c))
            continue;
        if (c == '\n')
            say_line(link);
        else if (link->line_used < LINE_MAX_TEXT)
            link->line[link->line_used++] = c < 0x20 || c == 0x7f ? ' ' : c == '"' ? '\'' : (char)c;
    }
}

/* Take what is there; a child that prints without end gets no more than a share of the time. */
static void listen_to_it(bridge_link_t *link)
{
    char text[4096];

    for (int i = 0; i < 64 && link->printed >= 0; i++) {
        ssize_t got = read(link->printed, text, sizeof(text));

        if (got > 0) {
            hear(link, text, (size_t)got);
        } else {
            if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
                close(link->printed);
                link->printed = -1;
            }
            return;
        }
    }
}

/* Where a line of Python's own last report begins; what follows it lists modules. NULL: there is none. */
static const char *fatal_line(const bridge_link_t *link)
{
    static const char sign[] = "Fatal Python error: ";

    return memmem(link->words, link->words_used, sign, sizeof(sign) - 1);
}

/* Its last line that says something, made printable. */
static const char *last_words(bridge_link_t *link, char out[LINE_MAX_TEXT])
{
    const char *fatal = fatal_line(link), *stop;
    size_t end = link->words_used, start, length = 0;
    char escape = 0;

    if (fatal != NULL && (stop = memchr(fatal, '\n', (size_t)(link->words + end - fatal))) != NULL)
        end = (size_t)(stop - link->words);
    while (end > 0 && (unsigned char)link->words[end - 1] <= ' ')
        end--;
    start = end;
    while (start > 0 && link->words[start - 1] != '\n')
        start--;
    for (size_t i = start; i < end && length < LINE_MAX_TEXT - 1; i++) {
        unsigned char c = (unsigned char)link->words[i];

        if (!in_escape(&escape, c))
            out[length++] = c < 0x20 || c == 0x7f ? ' ' : c == '"' ? '\'' : (char)c;
    }
    out[length] = '\0';
    return out;
}

/* --- the child's life -------------------------------------------------------------------------- */

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
    char words[LINE_MAX_TEXT];

    kill_it(link);
    listen_to_it(link);
    last_words(link, words);
    return error_set(err, TD_ELOST, "the environment's process %s%s%s%s", what, words[0] != '\0' ? "; it said: '" : "",
                     words, words[0] != '\0' ? "'" : "");
}

/* The socket is closed: how did it end? */
static int lost_child(bridge_link_t *link, struct error *err)
{
    char what[96] = "closed its socket";
    int status = 0;

    if (reap(link, 500, &status)) {
        if (WIFSIGNALED(status))
            snprintf(what, sizeof(what), "was killed by signal %d (%s)", WTERMSIG(status),
                     strsignal(WTERMSIG(status)));
        else
            snprintf(what, sizeof(what), "ended with exit code %d", WEXITSTATUS(status));
        listen_to_it(link);
        link->silent = WIFEXITED(status) && link->frame_have == 0 && link->words_used == 0;
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
        return error_set_errno(err, rc == ENOENT || rc == EACCES ? TD_ESETUP : TD_EIO, rc, "cannot start %s", python);
    }
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
    int sockets[2] = {-1, -1}, pipes[2] = {-1, -1}, rc;

    *out = NULL;
    if (link == NULL)
        return error_set(err, TD_ENOMEM, "no memory for an environment");
    link->socket = link->printed = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0 || pipe2(pipes, O_CLOEXEC) != 0) {
        rc = error_set_errno(err, TD_EIO, errno, "cannot make a socket for the environment's process");
        goto out;
    }
    for (int i = 0; i < 2; i++) {
        sockets[i] = above_standard(sockets[i]);
        pipes[i] = above_standard(pipes[i]);
    }
    rc = spawn(link, python, run, sockets[1], pipes[1], err);
    link->socket = sockets[0];
    link->printed = pipes[0];
    sockets[0] = pipes[0] = -1;
    fcntl(link->socket, F_SETFL, O_NONBLOCK);
    fcntl(link->printed, F_SETFL, O_NONBLOCK);
out:
    for (int i = 0; i < 2; i++) {
        if (sockets[i] >= 0)
            close(sockets[i]);
        if (pipes[i] >= 0)
            close(pipes[i]);
    }
    if (rc != TD_OK)
        bridge_link_close(&link);
    *out = link;
    return rc;
}

int bridge_link_adopt(bridge_link_t **out, int socket)
{
    bridge_link_t *link = calloc(1, sizeof(*link));

    *out = link;
    if (link == NULL)
        return TD_ENOMEM;
    link->socket = socket;
    link->printed = -1;
    fcntl(socket, F_SETFL, O_NONBLOCK);
    return TD_OK;
}

bool bridge_link_silent(const bridge_link_t *link)
{
    return link->silent;
}

pid_t bridge_link_pid(const bridge_link_t *link)
{
    return link->pid;
}

/* --- frames -------------------------------------------------------------------------------------- */

enum { CARRY_OK, CARRY_CLOSED, CARRY_MORE };

/* What the socket takes of the request. */
static int send_some(bridge_link_t *link)
{
    for (int i = 0; i < 2; i++) {
        struct iovec *part = &link->unsent[i];

        while (part->iov_len > 0) {
            ssize_t sent = send(link->socket, part->iov_base, part->iov_len, MSG_NOSIGNAL);

            if (sent < 0 && errno == EAGAIN)
                return CARRY_MORE;
            if (sent < 0 && errno != EINTR)
                return CARRY_CLOSED;
            if (sent > 0) {
                part->iov_base = (uint8_t *)part->iov_base + sent;
                part->iov_len -= (size_t)sent;
            }
        }
    }
    return CARRY_OK;
}

/* Bytes 0..size-1 of the frame are there when this is CARRY_OK; it may read further, never past its room. */
static int receive_some(bridge_link_t *link, size_t size)
{
    while (link->frame_have < size) {
        ssize_t got = recv(link->socket, link->frame + link->frame_have, link->frame_size - link->frame_have, 0);

        if (got > 0)
            link->frame_have += (size_t)got;
        else if (got < 0 && errno == EAGAIN)
            return CARRY_MORE;
        else if (got == 0 || errno != EINTR)
            return CARRY_CLOSED;
    }
    return CARRY_OK;
}

static bool make_room(bridge_link_t *link, size_t size)
{
    uint8_t *more;

    if (size <= link->frame_size)
        return true;
    more = realloc(link->frame, size);
    if (more == NULL)
        return false;
    link->frame = more;
    link->frame_size = size;
    return true;
}

static uint32_t read_u32(const uint8_t *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof(value));
    return value; /* both ends are on one machine, and little-endian like all we build for */
}

static int late(bridge_link_t *link, struct error *err)
{
    char what[96];

    snprintf(what, sizeof(what), "did not answer within %.3g s", (double)link->timeout_ms / 1000);
    return lost(link, err, what);
}

/* --- messages -------------------------------------------------------------------------------------- */

static void *arena_take(void *user, size_t size)
{
    bridge_link_t *link = user;
    size_t need = (size + 15) & ~(size_t)15;

    if (size > ARENA_BYTES || need > ARENA_BYTES - link->arena_used)
        return NULL;
    link->arena_used += need;
    return link->arena + link->arena_used - need;
}

static void arena_give(void *user, void *memory)
{
    (void)user;
    (void)memory;
}

static void pack_request(bridge_link_t *link, const struct bridge_request *request)
{
    Td__BridgeRequest message = TD__BRIDGE_REQUEST__INIT;
    uint32_t sizes[2];
    size_t small;

    message.version = BRIDGE_VERSION;
    message.kind = request->kind;
    message.sequence = ++link->sequence;
    message.task = (char *)(uintptr_t)(request->task != NULL ? request->task : "");
    message.has_seed = request->has_seed;
    message.seed = request->seed;
    message.width = request->width;
    message.height = request->height;
    sizes[0] = (uint32_t)td__bridge_request__get_packed_size(&message);
    sizes[1] = (uint32_t)request->bulk_size;
    TD_ASSERT(sizes[0] <= REQUEST_MAX && request->bulk_size <= BRIDGE_BULK_MAX, "a request of %u and %zu bytes", sizes[0],
              request->bulk_size);
    memcpy(link->request, sizes, sizeof(sizes));
    td__bridge_request__pack(&message, link->request + FRAME_HEAD);
    small = FRAME_HEAD + sizes[0];
    link->unsent[1] = (struct iovec){(void *)(uintptr_t)request->bulk, sizes[1]};
    if (sizes[1] > 0 && small + sizes[1] <= sizeof(link->request)) { /* small: in one go */
        memcpy(link->request + small, request->bulk, sizes[1]);
        small += sizes[1];
        link->unsent[1].iov_len = 0;
    }
    link->unsent[0] = (struct iovec){link->request, small};
}

/* What has come of one frame; what is no frame, or more than one, is told by *bad. */
static int receive_frame(bridge_link_t *link, uint32_t *header, uint32_t *bulk, const char **bad)
{
    size_t whole;
    int rc;

    if (!make_room(link, FRAME_HEAD + 4096)) {
        *bad = "sent a reply there is no memory for";
        return CARRY_OK;
    }
    if ((rc = receive_some(link, FRAME_HEAD)) != CARRY_OK)
        return rc;
    *header = read_u32(link->frame);
    *bulk = read_u32(link->frame + 4);
    if (*header == 0 || *header > BRIDGE_HEADER_MAX || *bulk > BRIDGE_BULK_MAX) {
        *bad = "sent something that is no message (does it write to file descriptor 3?)";
        return CARRY_OK;
    }
    whole = FRAME_HEAD + (size_t)*header + *bulk;
    if (!make_room(link, whole)) {
        *bad = "sent a reply there is no memory for";
        return CARRY_OK;
    }
    if ((rc = receive_some(link, whole)) != CARRY_OK)
        return rc;
    if (link->frame_have != whole)
        *bad = "sent more than one reply";
    return CARRY_OK;
}

/* Its own text: printable, cut to fit, without the quotes that a line of the log is read by. */
static void copy_text(char *out, size_t size, const char *in)
{
    size_t i = 0;

    for (; in[i] != '\0' && i < size - 1; i++)
        out[i] = (unsigned char)in[i] < 0x20 || in[i] == 0x7f ? ' ' : in[i] == '"' ? '\'' : in[i];
    out[i] = '\0';
}

static int failure(bridge_link_t *link, const Td__BridgeReply *message, struct error *err)
{
    char text[sizeof(err->text)];

    copy_text(text, sizeof(text), message->text[0] != '\0' ? message->text : "something it does not name");
    kill_it(link);
    listen_to_it(link);
    if (message->failure == BRIDGE_SETUP)
        return error_set(err, TD_ESETUP, "%s", text);
    if (message->failure == BRIDGE_REFUSED)
        return error_set(err, TD_EINVAL, "%s", text);
    return error_set(err, TD_ELOST, "the environment raised %s", text);
}

static int read_reply(bridge_link_t *link, uint32_t kind, uint32_t header, uint32_t bulk, struct bridge_reply *reply,
                      struct error *err)
{
    ProtobufCAllocator allocator = {arena_take, arena_give, link};
    Td__BridgeReply *message;

    link->arena_used = 0;
    message = td__bridge_reply__unpack(&allocator, header, link->frame + FRAME_HEAD);
    if (message == NULL || message->version != BRIDGE_VERSION)
        return lost(link, err, "sent something that is no message (does it write to file descriptor 3?)");
    if (message->sequence != link->sequence || (message->kind != kind && message->kind != BRIDGE_FAILED))
        return lost(link, err, "answered another request");
    if (message->kind == BRIDGE_FAILED)
        return failure(link, message, err);
    reply->reward = message->reward;
    reply->flags = message->flags;
    reply->env_ns = message->env_ns;
    reply->obs_dim = message->obs_dim;
    reply->action_dim = message->action_dim;
    reply->episode_length = message->episode_length;
    reply->action_repeat = message->action_repeat;
    reply->state_size = message->state_size;
    if (kind == BRIDGE_OPEN)
        copy_text(reply->name, sizeof(reply->name), message->name);
    reply->bulk = link->frame + FRAME_HEAD + header;
    reply->bulk_size = bulk;
    return TD_OK;
}

int bridge_link_begin(bridge_link_t *link, const struct bridge_request *request, uint64_t timeout_ms,
                      struct error *err)
{
    TD_ASSERT(link->asked == 0, "request %u while the reply to %u is awaited", request->kind, link->asked);
    if (link->dead)
        return error_set(err, TD_ELOST, "the environment's process was lost before");
    pack_request(link, request);
    link->asked = request->kind;
    link->timeout_ms = timeout_ms;
    link->until_ms = clock_ms() + timeout_ms;
    link->frame_have = 0;
    return send_some(link) == CARRY_CLOSED ? lost_child(link, err) : TD_OK;
}

int bridge_link_finish(bridge_link_t *link, struct bridge_reply *reply, struct error *err)
{
    uint32_t header = 0, bulk = 0, asked = link->asked;
    const char *bad = NULL;
    int rc;

    TD_ASSERT(asked != 0, "no reply is awaited");
    listen_to_it(link);
    rc = send_some(link);
    if (rc == CARRY_OK)
        rc = receive_frame(link, &header, &bulk, &bad);
    if (rc == CARRY_MORE)
        return clock_ms() < link->until_ms ? TD_EAGAIN : late(link, err);
    if (rc == CARRY_CLOSED)
        return lost_child(link, err);
    if (bad != NULL)
        return lost(link, err, bad);
    link->asked = 0;
    return read_reply(link, asked, header, bulk, reply, err);
}

int bridge_link_poll(const bridge_link_t *link, struct pollfd fds[BRIDGE_POLL])
{
    bool sending = link->unsent[0].iov_len + link->unsent[1].iov_len > 0;

    fds[0] = (struct pollfd){.fd = link->socket, .events = sending ? POLLOUT : POLLIN};
    fds[1] = (struct pollfd){.fd = link->printed, .events = POLLIN}; /* -1 is passed over */
    return BRIDGE_POLL;
}

uint64_t bridge_link_due_ms(const bridge_link_t *link)
{
    return link->until_ms;
}

void bridge_link_wait(const bridge_link_t *link)
{
    struct pollfd fds[BRIDGE_POLL];
    uint64_t now = clock_ms(), left = link->until_ms > now ? link->until_ms - now : 0;

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
        pack_request(link, &close_request);
        send_some(link); /* between two requests the socket is empty: it takes all */
        shutdown(link->socket, SHUT_WR);
        reap(link, CLOSE_MS, &status);
    }
    if (link->pid > 0)
        kill_it(link);
    listen_to_it(link);
    if (link->socket >= 0)
        close(link->socket);
    if (link->printed >= 0)
        close(link->printed);
    free(link->frame);
    free(link);
    *out = NULL;
}
