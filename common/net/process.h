/*
 * process.h - starting, following and restarting the parts of a run.
 *
 * Owns:    the handle of a child; its log file's descriptor.
 * Thread:  the loop's, which must be the main thread: the kernel ties a child's death signal to the
 *          thread that started it.
 */
#ifndef TD_NET_PROCESS_H
#define TD_NET_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/net/loop.h"
#include "common/util/error.h"

typedef struct process process_t;

/* code is the exit code, or -1 when signal (not 0) killed it. The process may be closed in here. */
typedef void process_exit_fn(void *context, int code, int signal);

struct process_options {
    const char *program;     /* "tdmpc2-replay" is looked for beside this executable; or a path */
    const char *const *args; /* without the program's name, NULL-terminated; copied */
    const char *log_path;    /* stdout and stderr are appended here; NULL: inherited */
    process_exit_fn *on_exit;
    void *context;
};

/*
 * Start a child in its own session, with stdin from /dev/null. Returns TD_OK; TD_ENOTFOUND when the
 * program is not there; TD_EIO when it cannot be started or the log not opened.
 */
int process_spawn(process_t **out, loop_t *loop, const struct process_options *options,
                  struct error *err);

pid_t process_pid(const process_t *process);

/* False once on_exit has been called. */
bool process_running(const process_t *process);

/* Send a signal; nothing happens when the child is gone. */
void process_signal(process_t *process, int signum);

/* Milliseconds since it was started. */
uint64_t process_age_ms(const process_t *process);

/* Let go of the handle, without a signal and without a call of on_exit. */
void process_close(process_t **process);

/*
 * First thing in main of every daemon: if it was started by process_spawn, ask the kernel for SIGTERM
 * when the parent dies. TD_OK, also when started by hand; TD_ENOTFOUND when the parent is gone
 * already: main returns 0.
 */
int process_follow_parent(void);

/*
 * Before that: until loop_signals watches SIGTERM and SIGINT they end this process at once with exit
 * code 0. It was asked to stop, and has begun nothing yet.
 */
void process_leave_if_asked(void);

/* True if this process was started by process_spawn (call after process_follow_parent). */
bool process_is_child(void);

/*
 * Descriptors and address space (threads want stacks) for what a daemon opens by itself: libzmq ends a
 * process that has none left for a socket. A low limit on descriptors is raised as far as the system lets
 * us. TD_EINVAL: that is not far enough; TD_ENOMEM.
 */
#define PROCESS_DESCRIPTORS 64u
#define PROCESS_SPACE       ((size_t)96 << 20)
int process_check_limits(struct error *err);

/* A random number that names this process, never 0. */
uint64_t process_random_id(void);

/* Bytes resident, as the kernel counts them; 0 if it will not say. */
uint64_t process_resident_bytes(void);

/*
 * The last `lines` lines of a file, at most size - 1 bytes (whole lines, if one fits). Returns the
 * length; 0, and an empty text, for a missing or empty file.
 */
size_t process_log_tail(const char *path, int lines, char *out, size_t size);

/* "exit code 2", "killed by signal 9 (Killed)". Returns out. */
char *process_describe_exit(int code, int signal, char *out, size_t size);

/*
 * When to start a part again that died: 250 ms after the first death, doubling, until it died
 * RESTART_LIMIT times in a row within RESTART_YOUNG_MS of its start. A longer life starts afresh.
 */
#define RESTART_LIMIT 5
#define RESTART_YOUNG_MS 30000u

struct restart {
    int deaths; /* in a row, young */
};

/* Milliseconds until the next start, or -1: give up. */
int64_t restart_after(struct restart *restart, uint64_t lived_ms);

#endif
