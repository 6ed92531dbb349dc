/*
 * spawner.h - a small process that starts a daemon's children for it.
 *
 * What a daemon gives up (files, execve: sandbox.h) its children inherit, and an environment in Python or a
 * replay shard needs more than a learner does. So a daemon forks this process as its first act, before it
 * gives anything up, reads a message or has a second thread; from then on children are started there, by its
 * orders, over a socket that nobody else has. It holds nothing of the daemon's memory and reads nothing else.
 *
 * The children's parent is the spawner. It ends at once when the daemon does, and they with it, if they asked
 * to follow their parent (PR_SET_PDEATHSIG), as all of ours do. A process that is stopped (SIGSTOP, Ctrl-Z) hears no
 * signal of its parent's death: so the spawner continues its children before it ends, and continues the daemon when
 * the daemon's own parent, if it follows that, has died.
 *
 * Without spawner_start the same functions work in this process.
 *
 * Thread:  any, one order at a time; spawner_start while there is one.
 */
#ifndef TD_UTIL_SPAWNER_H
#define TD_UTIL_SPAWNER_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/util/error.h"

#define SPAWNER_FDS 4

/* A child in a session of its own, with every signal at its default and no other descriptors than these. */
struct spawn {
    const char *program;     /* a path, or a name to be looked for in $PATH */
    char *const *argv, *const *env;
    int fds[SPAWNER_FDS];    /* becomes its descriptor i; -1: /dev/null */
    int fd_count;
};

/* argc, argv: main's; the spawner shows a name of its own in them. TD_OK or TD_EIO. */
int spawner_start(int argc, char **argv, struct error *err);

bool spawner_running(void);

/* What a child sees as its parent. */
pid_t spawner_parent(void);

/* 0 and its pid, or an errno; EOWNERDEAD: the spawner was killed, and all that it had started went with it. */
int spawner_spawn(pid_t *pid, const struct spawn *spawn);

/* Was it killed? Nothing can be started any more; as far as it was noticed, when something was to be. */
bool spawner_lost(void);

/* What spawner_spawn's errno means, in words. */
const char *spawner_explain(int code);

/*
 * Has it ended? Never waits. What is left of its session is killed, its status (waitpid's) handed over and
 * its pid free for others from then on. True, with status 0, for a pid that is no child's.
 */
bool spawner_ended(pid_t pid, int *status);

#endif
