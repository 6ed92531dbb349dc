/* part_keep.c - the keeper of a part: starts it, starts it again, ends it when told to. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/net/loop.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/util/log.h"
#include "tools/part_keep.h"

struct keeper {
    const struct part_order *order;
    loop_t *loop;
    loop_timer_t *timer; /* the next start, or the end of patience */
    process_t *process;
    struct restart restart;
    struct part_note note;
    bool stopping;
};

static void note(struct keeper *keeper)
{
    struct error err;

    keeper->note.child = keeper->process != NULL ? process_pid(keeper->process) : 0;
    keeper->note.child_start = part_start_time(keeper->note.child);
    if (part_note_write(keeper->order->dir, &keeper->note, &err) != TD_OK)
        log_warn("`tdmpc2 status` will not know this part", "why=\"%s\"", err.text);
}

static void end(struct keeper *keeper, int code)
{
    loop_timer_close(&keeper->timer);
    keeper->note.code = code;
    note(keeper);
    loop_stop(keeper->loop);
}

static void ended(void *context, int code, int signum);

static void start(void *context)
{
    struct keeper *keeper = context;
    struct process_options options = {
        .program = keeper->order->program, .args = keeper->order->words, .on_exit = ended, .context = keeper};
    struct error err;

    loop_timer_close(&keeper->timer);
    if (process_spawn(&keeper->process, keeper->loop, &options, &err) != TD_OK) {
        fprintf(stderr, "%s: %s\n", keeper->order->program, err.text);
        end(keeper, error_exit_code(err.code));
        return;
    }
    note(keeper);
}

static void ended(void *context, int code, int signum)
{
    struct keeper *keeper = context;
    int64_t wait_ms = -1;
    char how[64];

    process_describe_exit(code, signum, how, sizeof(how));
    if (!keeper->stopping && code != TD_EXIT_OK && code != TD_EXIT_BAD_INPUT && code != TD_EXIT_DIVERGED && code != TD_EXIT_FENCED) {
        wait_ms = restart_after(&keeper->restart, process_age_ms(keeper->process));
        log_warn("part died", "part=%s how=\"%s\" again_ms=%lld", keeper->note.name, how, (long long)wait_ms);
    }
    process_close(&keeper->process);
    if (wait_ms < 0) {
        end(keeper, code >= 0 ? code : keeper->stopping && signum == SIGTERM ? TD_EXIT_OK : TD_EXIT_GAVE_UP);
        return;
    }
    keeper->note.restarts++;
    note(keeper);
    if (loop_timer_start(&keeper->timer, keeper->loop, (uint64_t)wait_ms, 0, start, keeper) != TD_OK)
        end(keeper, TD_EXIT_GAVE_UP);
}

static void patience_over(void *context)
{
    struct keeper *keeper = context;

    log_warn("part does not stop: killed", "part=%s", keeper->note.name);
    process_signal(keeper->process, SIGKILL);
}

static void told_to_stop(void *context, int signum, int count)
{
    struct keeper *keeper = context;

    (void)signum;
    (void)count;
    if (keeper->stopping) /* an engine tells all of a job: the part too would leave at once at a second one */
        return;
    keeper->stopping = true;
    loop_timer_close(&keeper->timer);
    if (keeper->process == NULL) {
        end(keeper, TD_EXIT_OK);
        return;
    }
    process_signal(keeper->process, SIGTERM);
    if (loop_timer_start(&keeper->timer, keeper->loop, keeper->order->patience_ms, 0, patience_over, keeper) != TD_OK)
        process_signal(keeper->process, SIGKILL);
}

int part_run(const struct part_order *order)
{
    struct keeper keeper = {.order = order};
    struct error err;
    int rc;

    snprintf(keeper.note.name, sizeof(keeper.note.name), "%s", order->name);
    keeper.note.keeper = getpid();
    keeper.note.keeper_start = part_start_time(getpid());
    keeper.note.code = -1;
    snprintf(keeper.note.host, sizeof(keeper.note.host), "%s", rundir_here());
    log_init("keeper", order->number, 0, STDERR_FILENO);
    if ((rc = loop_create(&keeper.loop, &err)) == TD_OK && (rc = loop_signals(keeper.loop, told_to_stop, &keeper, &err)) == TD_OK) {
        start(&keeper);
        if (order->ready >= 0)
            close(order->ready);
        if (keeper.note.code < 0)
            loop_run(keeper.loop);
    } else {
        log_error("cannot follow its part", "why=\"%s\"", err.text);
        keeper.note.code = error_exit_code(rc);
        part_note_write(order->dir, &keeper.note, NULL);
    }
    loop_destroy(&keeper.loop);
    return keeper.note.code;
}

static int open_log(const struct part_order *order, struct error *err)
{
    char path[FS_PATH_MAX], file[PART_NAME_MAX + 8];
    int fd, rc;

    snprintf(file, sizeof(file), "%s.log", order->name);
    if ((rc = fs_join(path, order->dir, file, err)) != TD_OK)
        return -1;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        error_set_errno(err, TD_EIO, errno, "cannot open the log %s", path);
    return fd;
}

/* The keeper is its own session; when the process that started it ends, init takes it over. */
int part_keep(const struct part_order *order, struct error *err)
{
    struct part_order own = *order;
    int log = open_log(order, err), null;
    pid_t pid;

    if (log < 0)
        return err->code;
    fflush(NULL);
    pid = fork();
    if (pid < 0) {
        close(log);
        return error_set_errno(err, TD_EIO, errno, "cannot start a process for %s", order->name);
    }
    if (pid > 0) {
        close(log);
        return TD_OK;
    }
    setsid();
    if ((null = open("/dev/null", O_RDONLY)) >= 0)
        dup2(null, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    if (own.ready >= 0) {
        dup2(own.ready, STDERR_FILENO + 1);
        fcntl(own.ready = STDERR_FILENO + 1, F_SETFD, FD_CLOEXEC);
    }
    closefrom(own.ready >= 0 ? STDERR_FILENO + 2 : STDERR_FILENO + 1);
    _exit(part_run(&own));
}
