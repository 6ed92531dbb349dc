/*
 * bin_sync.c - preloaded into programs: the disk is slow. Every fdatasync takes $TD_SYNC_MS longer, before it
 * happens: who says something before it is durable is then mostly killed in between.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd)
{
    static int (*next)(int);
    const char *text = getenv("TD_SYNC_MS");
    long ms = text == NULL ? 0 : atol(text);
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};

    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "fdatasync");
    nanosleep(&wait, NULL);
    return next(fd);
}
