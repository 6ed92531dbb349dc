/*
 * sandbox.h - give up what a daemon does not need, where the kernel offers it.
 *
 * Two steps, because they bind different things. sandbox_files (Landlock) holds for the calling thread and
 * what it starts later: it must come before the first other thread. sandbox_calls (seccomp) comes after
 * start-up and holds for all threads there are (TSYNC) and for those to come. Neither can be undone, and
 * children inherit both: what must not is started by the spawner (spawner.h), forked before.
 *
 * Source:  the kernel's Documentation/userspace-api/landlock.rst and seccomp_filter.rst.
 */
#ifndef TD_UTIL_SANDBOX_H
#define TD_UTIL_SANDBOX_H

#include <stdbool.h>

#include "common/util/error.h"
#include "common/util/fs.h"

#define SANDBOX_PATHS 64

/* What stays allowed. */
struct sandbox {
    struct sandbox_path {
        char path[FS_PATH_MAX];
        bool write;   /* make, change and remove what lies below, too */
    } paths[SANDBOX_PATHS];
    int count;
    bool network;     /* sockets of the internet, not ipc alone */
    bool code;        /* new code in memory: libraries loaded late, compilers of shaders */
};

/* What this kernel has: of Landlock its ABI, 0 for none that is of use. */
int sandbox_landlock(void);
bool sandbox_seccomp(void);

/* Leave a path, and all below it, readable or writable. One that is not there is passed over. "" too. */
void sandbox_read(struct sandbox *sandbox, const char *path);
void sandbox_write(struct sandbox *sandbox, const char *path);

/* What every program reads: libraries, the linker's and the resolver's files, /proc, /sys, random numbers. */
void sandbox_system(struct sandbox *sandbox);

/* TD_OK; TD_ESETUP with a sentence when the kernel has none of it or another thread runs already. */
int sandbox_files(const struct sandbox *sandbox, struct error *err);
int sandbox_calls(const struct sandbox *sandbox, struct error *err);

#endif
