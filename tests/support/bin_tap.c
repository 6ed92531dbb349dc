/*
 * bin_tap.c - preloaded into tdmpc2-actor: keeps every frame its DEALERs send and receive.
 *
 * The oracle of the kill tests: what an actor really sent and what really was acknowledged, noted
 * outside the code under test. A frame goes to $TD_TAP/<pid>.tap before it is sent and after it was
 * received, in one write, so that a process killed at any moment leaves whole records but for the last.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <zmq.h>

#include "tests/support/tap.h"

static int tap = -2; /* -2: not tried yet, -1: not wanted */

static void tap_open(void)
{
    const char *folder = getenv("TD_TAP"), *name = strrchr(program_invocation_name, '/');
    char path[512];

    name = name == NULL ? program_invocation_name : name + 1;
    tap = -1;
    if (folder == NULL || strcmp(name, "tdmpc2-actor") != 0)
        return;
    snprintf(path, sizeof(path), "%s/%ld.tap", folder, (long)getpid());
    tap = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void note(void *socket, uint32_t kind, bool more, zmq_msg_t *message)
{
    struct tap_head head = {.socket = (uint64_t)(uintptr_t)socket, .kind = kind, .more = more};
    struct iovec parts[2] = {{&head, sizeof(head)}, {NULL, 0}};
    int saved = errno, type = 0;
    size_t size = sizeof(type);

    if (tap == -2)
        tap_open();
    if (tap < 0 || zmq_getsockopt(socket, ZMQ_TYPE, &type, &size) != 0 || type != ZMQ_DEALER) {
        errno = saved;
        return;
    }
    if (message != NULL && (kind == TAP_SENT || zmq_msg_size(message) <= TAP_HEARD_MAX)) {
        head.length = zmq_msg_size(message);
        parts[1] = (struct iovec){zmq_msg_data(message), head.length};
    }
    if (writev(tap, parts, 2) != (ssize_t)(sizeof(head) + head.length))
        _exit(99); /* no test without its oracle */
    errno = saved;
}

int zmq_msg_send(zmq_msg_t *message, void *socket, int flags)
{
    static int (*next)(zmq_msg_t *, void *, int);
    int rc;

    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "zmq_msg_send");
    note(socket, TAP_SENT, (flags & ZMQ_SNDMORE) != 0, message);
    rc = next(message, socket, flags);
    if (rc < 0)
        note(socket, TAP_UNSENT, false, NULL);
    return rc;
}

int zmq_msg_recv(zmq_msg_t *message, void *socket, int flags)
{
    static int (*next)(zmq_msg_t *, void *, int);
    int rc;

    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "zmq_msg_recv");
    rc = next(message, socket, flags);
    if (rc >= 0)
        note(socket, TAP_RECEIVED, zmq_msg_more(message) != 0, message);
    return rc;
}
