/*
 * preload.h - what the preloaded libraries (bin_*.c) that watch files share: which descriptors and paths
 * lie under one directory, and the real functions.
 */
#ifndef TD_TEST_PRELOAD_H
#define TD_TEST_PRELOAD_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The function that this one stands in front of. */
#define NEXT(function)                                                                             \
    static __typeof__(&function) next;                                                             \
    if (next == NULL)                                                                              \
        *(void **)&next = dlsym(RTLD_NEXT, #function)

static inline bool path_is_under(const char *path, const char *root)
{
    size_t length = strlen(root);

    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* Where an open descriptor leads; false when nowhere. */
static inline bool descriptor_path(int fd, char path[PATH_MAX])
{
    char link[64];
    ssize_t length;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = '\0';
    return length > 0;
}

static inline bool descriptor_is_under(int fd, const char *root)
{
    char path[PATH_MAX];
    int saved = errno;
    bool under = root != NULL && descriptor_path(fd, path) && path_is_under(path, root);

    errno = saved;
    return under;
}

#endif
