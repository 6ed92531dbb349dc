/*
 * bin_nozap.c - preloaded into a daemon: its handler of handshakes is dead. Binding the handler's address
 * seems to work, and nobody ever listens there.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <zmq.h>

int zmq_bind(void *socket, const char *address)
{
    static int (*next)(void *, const char *);

    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "zmq_bind");
    return strcmp(address, "inproc://zeromq.zap.01") == 0 ? 0 : next(socket, address);
}
