#include "common/env/bridge_socket.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "common/util/runtime.h"

#define FOLDER_KEY 0xb41d6e0000000000u /* of the folder that the names are in */
#define QUEUE      2                   /* messages: one request is under way at a time */

struct bridge_socket {
    void *zmq;
    int fd;
    zmq_msg_t frames[2]; /* of the message received last */
    int count;
};

/* The process's context for its environments, and how many there are. */
static struct {
    pthread_mutex_t lock;
    void *context;
    int sockets;
    pid_t owner; /* a context's threads do not come along when a process forks */
} zeromq = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *context_enter(void)
{
    void *context;

    pthread_mutex_lock(&zeromq.lock);
    if (zeromq.owner != getpid()) {
        zeromq.context = NULL;
        zeromq.sockets = 0;
        zeromq.owner = getpid();
    }
    if (zeromq.context == NULL)
        zeromq.context = zmq_ctx_new();
    context = zeromq.context;
    zeromq.sockets += context != NULL;
    pthread_mutex_unlock(&zeromq.lock);
    return context;
}

static void context_leave(void)
{
    pthread_mutex_lock(&zeromq.lock);
    if (--zeromq.sockets == 0) {
        while (zmq_ctx_term(zeromq.context) != 0 && errno == EINTR)
            ;
        zeromq.context = NULL;
    }
    pthread_mutex_unlock(&zeromq.lock);
}

static void set(void *zmq, int option, const void *value, size_t size)
{
    TD_ASSERT(zmq_setsockopt(zmq, option, value, size) == 0, "option %d: %s", option, zmq_strerror(errno));
}

static void set_limits(void *zmq, size_t frame_max)
{
    static const int none = 0, queue = QUEUE;
    int64_t largest = (int64_t)frame_max;
    pid_t own = getpid();

    set(zmq, ZMQ_MAXMSGSIZE, &largest, sizeof(largest));
    set(zmq, ZMQ_SNDHWM, &queue, sizeof(queue));
    set(zmq, ZMQ_RCVHWM, &queue, sizeof(queue));
    set(zmq, ZMQ_LINGER, &none, sizeof(none));
    set(zmq, ZMQ_HANDSHAKE_IVL, &none, sizeof(none)); /* how long starting may take is the caller's affair */
    set(zmq, ZMQ_IPC_FILTER_PID, &own, sizeof(own));
}

/* A name that is in nobody's way. */
static int make_name(struct sockaddr_un *address, struct error *err)
{
    char folder[RUNTIME_PATH_MAX];
    uint64_t word;
    int rc, length;

    if ((rc = runtime_folder(folder, FOLDER_KEY, err)) != TD_OK)
        return rc;
    if (getrandom(&word, sizeof(word), 0) != sizeof(word))
        return error_set_errno(err, TD_EIO, errno, "no random numbers for the name of a socket");
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%014llx", folder,
                      (unsigned long long)(word >> 8));
    TD_ASSERT(length < (int)sizeof(address->sun_path), "the path %s of a socket", address->sun_path);
    return TD_OK;
}

/* Listen, connect, and let nobody find it again. */
static int meet(void *zmq, int *theirs, struct error *err)
{
    struct sockaddr_un address;
    char endpoint[sizeof(address.sun_path) + 8];
    int rc = make_name(&address, err);

    if (rc != TD_OK)
        return rc;
    snprintf(endpoint, sizeof(endpoint), "ipc://%s", address.sun_path);
    if (zmq_bind(zmq, endpoint) != 0)
        return error_set(err, TD_EIO, "cannot listen at %s: %s", endpoint, zmq_strerror(errno));
    *theirs = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*theirs < 0 || connect(*theirs, (struct sockaddr *)&address, sizeof(address)) != 0)
        rc = error_set_errno(err, TD_EIO, errno, "cannot connect to %s", endpoint);
    unlink(address.sun_path);
    return rc;
}

int bridge_socket_open(bridge_socket_t **out, size_t frame_max, int *theirs, struct error *err)
{
    bridge_socket_t *socket = calloc(1, sizeof(*socket));
    size_t size = sizeof(socket->fd);
    void *context = socket == NULL ? NULL : context_enter();
    int rc = TD_OK;

    *out = NULL;
    *theirs = -1;
    if (context == NULL) {
        free(socket);
        return error_set(err, TD_ENOMEM, "no memory for an environment's socket");
    }
    if ((socket->zmq = zmq_socket(context, ZMQ_PAIR)) == NULL)
        rc = error_set(err, TD_EIO, "cannot open an environment's socket: %s", zmq_strerror(errno));
    if (rc == TD_OK) {
        set_limits(socket->zmq, frame_max);
        TD_ASSERT(zmq_getsockopt(socket->zmq, ZMQ_FD, &socket->fd, &size) == 0);
        rc = meet(socket->zmq, theirs, err);
    }
    if (rc != TD_OK) {
        if (*theirs >= 0)
            close(*theirs);
        *theirs = -1;
        bridge_socket_close(&socket);
    }
    *out = socket;
    return rc;
}

int bridge_socket_fd(const bridge_socket_t *socket)
{
    return socket->fd;
}

bool bridge_socket_ready(bridge_socket_t *socket, bool to_send)
{
    int events = 0;
    size_t size = sizeof(events);

    TD_ASSERT(zmq_getsockopt(socket->zmq, ZMQ_EVENTS, &events, &size) == 0, "%s", zmq_strerror(errno));
    return (events & (ZMQ_POLLIN | (to_send ? ZMQ_POLLOUT : 0))) != 0;
}

/* --- messages ------------------------------------------------------------------------------------ */

static int send_frame(bridge_socket_t *socket, const void *bytes, size_t size, int flags)
{
    zmq_msg_t frame;
    int code;

    if (zmq_msg_init_size(&frame, size) != 0)
        return TD_ENOMEM;
    if (size > 0)
        memcpy(zmq_msg_data(&frame), bytes, size);
    while (zmq_msg_send(&frame, socket->zmq, flags | ZMQ_DONTWAIT) < 0) {
        if ((code = errno) == EINTR)
            continue;
        TD_ASSERT(code == EAGAIN, "%s", zmq_strerror(code));
        zmq_msg_close(&frame);
        return TD_EAGAIN;
    }
    return TD_OK;
}

int bridge_socket_send(bridge_socket_t *socket, const struct bridge_frames *frames)
{
    int rc = send_frame(socket, frames->header, frames->header_size, frames->bulk_size > 0 ? ZMQ_SNDMORE : 0);

    return rc == TD_OK && frames->bulk_size > 0 ? send_frame(socket, frames->bulk, frames->bulk_size, 0) : rc;
}

static void let_go(bridge_socket_t *socket)
{
    while (socket->count > 0)
        zmq_msg_close(&socket->frames[--socket->count]);
}

/* One frame; a message's frames are all there when the first one is. */
static int receive_frame(bridge_socket_t *socket, zmq_msg_t *frame)
{
    zmq_msg_init(frame);
    while (zmq_msg_recv(frame, socket->zmq, ZMQ_DONTWAIT) < 0) {
        if (errno == EINTR)
            continue;
        TD_ASSERT(errno == EAGAIN, "%s", zmq_strerror(errno));
        zmq_msg_close(frame);
        return TD_EAGAIN;
    }
    return TD_OK;
}

int bridge_socket_receive(bridge_socket_t *socket, struct bridge_frames *frames)
{
    zmq_msg_t *last = NULL, more;
    int rc = TD_OK;

    let_go(socket);
    *frames = (struct bridge_frames){0};
    while (socket->count < 2 && (last == NULL || zmq_msg_more(last)) && rc == TD_OK) {
        last = &socket->frames[socket->count];
        rc = receive_frame(socket, last);
        socket->count += rc == TD_OK;
    }
    if (rc != TD_OK)
        return rc;
    if (zmq_msg_more(last)) {
        for (bool another = true; another && receive_frame(socket, &more) == TD_OK; zmq_msg_close(&more))
            another = zmq_msg_more(&more);
        return TD_ECORRUPT;
    }
    frames->header = zmq_msg_data(&socket->frames[0]);
    frames->header_size = zmq_msg_size(&socket->frames[0]);
    if (socket->count == 2) {
        frames->bulk = zmq_msg_data(&socket->frames[1]);
        frames->bulk_size = zmq_msg_size(&socket->frames[1]);
    }
    return TD_OK;
}

void bridge_socket_close(bridge_socket_t **out)
{
    bridge_socket_t *socket = *out;

    if (socket == NULL)
        return;
    let_go(socket);
    if (socket->zmq != NULL)
        zmq_close(socket->zmq);
    context_leave();
    free(socket);
    *out = NULL;
}
