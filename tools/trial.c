#include "tools/trial.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/clock.h"

#define QUIET_MS 2000 /* before the first word of progress */
#define SAY_MS   5000
#define LOOK_MS  2
#define GRACE_MS 1000 /* what has a deadline of its own speaks first */

void trial_enter(struct trial *trial, const char *phase, uint64_t limit_ms)
{
    trial->phase = phase;
    trial->limit_ms = limit_ms;
    trial->beats++;
}

static void __attribute__((noreturn)) child(struct trial *trial, pid_t parent,
                                            int (*work)(void *context, struct trial *trial), void *context)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(TD_EXIT_GAVE_UP);
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was found before a crash is worth reading */
    trial->rc = work(context, trial);
    fflush(stdout);
    trial->finished = true;
    _exit(TD_EXIT_OK);
}

/* A call of its own that takes long, or how far the stage has come. */
static void say_progress(const char *name, const struct trial *trial)
{
    const char *phase = trial->phase, *stage = trial->stage;

    if (stage == NULL || (strcmp(phase, "step") != 0 && strcmp(phase, "reset") != 0))
        fprintf(stderr, "%s: in %s\n", name, phase);
    else
        fprintf(stderr, "%s: %s, %llu of %llu steps\n", name, stage, (unsigned long long)trial->done,
                (unsigned long long)trial->total);
}

/* Until it has ended: its status. False: the call under way takes too long. */
static bool await(const char *name, pid_t pid, const struct trial *trial, int *status)
{
    uint64_t now = clock_ms(), say = now + QUIET_MS, since = now, beats = 0;

    for (;; clock_sleep_ms(LOOK_MS), now = clock_ms()) {
        pid_t got = waitpid(pid, status, WNOHANG);

        if (got == pid || (got < 0 && errno != EINTR))
            return true;
        if (trial->beats != beats) {
            beats = trial->beats;
            since = now;
        }
        if (now - since > trial->limit_ms + GRACE_MS)
            return false;
        if (now >= say) {
            say_progress(name, trial);
            say = now + SAY_MS;
        }
    }
}

static int explain(const char *name, const struct trial *trial, bool ended, int status, struct error *err)
{
    const char *phase = trial->phase;

    if (!ended)
        return error_set(err, TD_ELOST, "%s: %s did not come back within %.3g s: it hangs, or TDMPC2_ENV_TIMEOUT must be "
                                        "longer", name, phase, (double)trial->limit_ms / 1000);
    if (WIFSIGNALED(status))
        return error_set(err, TD_ELOST, "%s: killed by signal %d (%s) in %s", name, WTERMSIG(status),
                         strsignal(WTERMSIG(status)), phase);
    return error_set(err, TD_ELOST, "%s: it ended the process, with exit code %d, in %s", name, WEXITSTATUS(status),
                     phase);
}

int trial_run(const char *name, int (*work)(void *context, struct trial *trial), void *context, struct error *err)
{
    struct trial *trial = mmap(NULL, sizeof(*trial), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t parent = getpid(), pid;
    int status = 0, rc;
    bool ended;

    if (trial == MAP_FAILED)
        return error_set_errno(err, TD_EIO, errno, "no memory for a process");
    trial_enter(trial, "start", 60000);
    fflush(NULL);
    pid = fork();
    if (pid == 0)
        child(trial, parent, work, context);
    if (pid < 0) {
        rc = error_set_errno(err, TD_EIO, errno, "cannot start a process");
    } else {
        ended = await(name, pid, trial, &status);
        if (!ended) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
        }
        rc = trial->rc;
        if (!trial->finished)
            rc = explain(name, trial, ended, status, err);
        else if (rc != TD_OK)
            *err = trial->err;
    }
    munmap(trial, sizeof(*trial));
    return rc;
}
