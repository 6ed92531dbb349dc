/* tree_child.c - the walk in a process of its own: whatever it meets, the caller lives to say so. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/store/tree.h"
#include "common/util/clock.h"

#define BEAT_MS   100u    /* between signs of life */
#define PATIENCE_MS 120000 /* without one the disk, or the child, is stuck */
#define QUIET_MS  2000u   /* no progress is told before */

/* From the child: progress while code is 1, then the result. Small enough to be written whole. */
struct word {
    int code;
    uint64_t done, total;
    struct error err;
};

/* --- the child ------------------------------------------------------------- */

struct beat {
    int out;
    uint64_t next_ms;
};

static void tell(int out, const struct word *word)
{
    while (write(out, word, sizeof(*word)) < 0 && errno == EINTR)
        ;
}

static void on_progress(void *context, uint64_t done, uint64_t total)
{
    struct beat *beat = context;
    struct word word = {.code = 1, .done = done, .total = total};
    uint64_t now = clock_ms();

    if (now < beat->next_ms)
        return;
    beat->next_ms = now + BEAT_MS;
    tell(beat->out, &word);
}

/* Only what may be called after a fork beside threads: no allocation, no stdio. */
static void be_child(int fd, const char *path, const struct tree_options *options, int out)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGBUS, SIGSEGV, SIGABRT, SIGPIPE};
    struct beat beat = {.out = out, .next_ms = clock_ms() + BEAT_MS};
    struct tree_options mine = *options;
    struct word word = {0};

    for (size_t i = 0; i < TD_LEN(signals); i++)
        signal(signals[i], SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it shares the lock: it must not outlive the owner */
    mine.progress = on_progress;
    mine.context = &beat;
    word.code = tree_walk(fd, path, &mine, &word.err);
    tell(out, &word);
    _exit(0);
}

/* --- the parent ------------------------------------------------------------ */

/* Wait for the result. False when the child is gone or stuck without one. */
static bool listen_to(int in, const struct tree_options *options, struct word *word, bool *stuck)
{
    uint64_t start = clock_ms();

    for (;;) {
        struct pollfd wait = {.fd = in, .events = POLLIN};
        int ready = poll(&wait, 1, PATIENCE_MS);
        ssize_t got;

        if (ready < 0 && errno == EINTR)
            continue;
        *stuck = ready == 0;
        if (ready <= 0 || ((got = read(in, word, sizeof(*word))) < 0 && errno != EINTR))
            return false;
        if (got < 0)
            continue;
        if (got != sizeof(*word))
            return false;
        if (word->code != 1)
            return true;
        if (options->progress != NULL && clock_ms() - start >= QUIET_MS)
            options->progress(options->context, word->done, word->total);
    }
}

static int result_of(int in, pid_t child, const char *path, const struct tree_options *options,
                     struct error *err)
{
    struct word word;
    bool stuck = false, heard = listen_to(in, options, &word, &stuck);
    int status = 0;

    if (!heard)
        kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (heard) {
        if (err != NULL && word.code != TD_OK)
            *err = word.err;
        return word.code;
    }
    if (stuck)
        return error_set(err, TD_EIO, "checking %s is stuck: its disk has not answered for %d s", path,
                         PATIENCE_MS / 1000);
    return error_set(err, TD_EIO, "checking %s ended by signal %d (%s)", path,
                     WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                     WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "no result");
}

int tree_check(const char *path, const struct tree_options *options, struct error *err)
{
    int ends[2], rc, fd = open(path, O_RDONLY | O_CLOEXEC);
    pid_t child;

    if (fd < 0)
        return error_set_errno(err, errno == ENOENT ? TD_ENOTFOUND : errno == EACCES ? TD_EINVAL : TD_EIO, errno,
                               "cannot open %s", path);
    if (pipe2(ends, O_CLOEXEC) != 0) {
        rc = error_set_errno(err, TD_EIO, errno, "cannot check %s", path);
        close(fd);
        return rc;
    }
    child = fork();
    if (child == 0)
        be_child(fd, path, options, ends[1]);
    close(ends[1]);
    rc = child > 0 ? result_of(ends[0], child, path, options, err)
                   : error_set_errno(err, TD_EIO, errno, "cannot start a process to check %s", path);
    close(ends[0]);
    close(fd);
    return rc;
}
