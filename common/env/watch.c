#include "common/env/watch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/error.h"

static struct {
    pthread_mutex_t lock;
    struct watch_call *first;
} calls = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct watch_call *inside; /* this thread is in its code */

void watch_add(struct watch_call *call, const char *task)
{
    call->task = task;
    pthread_mutex_lock(&calls.lock);
    call->next = calls.first;
    calls.first = call;
    pthread_mutex_unlock(&calls.lock);
}

void watch_remove(struct watch_call *call)
{
    pthread_mutex_lock(&calls.lock);
    for (struct watch_call **at = &calls.first; *at != NULL; at = &(*at)->next)
        if (*at == call) {
            *at = call->next;
            break;
        }
    pthread_mutex_unlock(&calls.lock);
}

void watch_enter(struct watch_call *call, const char *phase)
{
    inside = call;
    atomic_store_explicit(&call->phase, phase, memory_order_relaxed);
    atomic_store_explicit(&call->since_ms, clock_ms(), memory_order_release);
}

void watch_leave(struct watch_call *call)
{
    atomic_store_explicit(&call->since_ms, 0, memory_order_release);
    inside = NULL;
}

/* "step of ./x.so has taken 3 s", if one has taken longer than this. */
static bool name_call(uint64_t longer_ms, char *text, size_t size)
{
    uint64_t now = clock_ms();
    bool found = false;

    pthread_mutex_lock(&calls.lock);
    for (const struct watch_call *call = calls.first; call != NULL && !found; call = call->next) {
        uint64_t since = atomic_load_explicit(&call->since_ms, memory_order_acquire);

        found = since != 0 && now > since && now - since > longer_ms;
        if (found)
            snprintf(text, size, "%s of %s has taken %.3g s",
                     atomic_load_explicit(&call->phase, memory_order_relaxed), call->task, (double)(now - since) / 1000);
    }
    pthread_mutex_unlock(&calls.lock);
    return found;
}

bool watch_overdue(uint64_t timeout_ms, char *text, size_t size)
{
    char what[WATCH_TEXT - 64];
    bool found = name_call(timeout_ms, what, sizeof(what));

    if (found)
        snprintf(text, size, "%s: it hangs, or TDMPC2_ENV_TIMEOUT must be longer", what);
    return found;
}

/* --- a guard, where there is no loop ---------------------------------------------------------------- */

#define GUARD_LOOK_MS 200
#define GUARD_LONG_MS 1000 /* a call that lasts longer is worth a word when somebody loses patience */

static struct {
    const char *name;
    uint64_t timeout_ms;
    int asked;             /* the exit code of who was asked to end */
    int wake;
    pthread_t thread;
    _Atomic int signum;
    _Atomic bool over;
    struct sigaction before[2];
} guard;

static const int guarded[2] = {SIGINT, SIGTERM};

static void wake_guard(void)
{
    static const uint64_t one = 1;
    int kept = errno;

    if (write(guard.wake, &one, sizeof(one)) < 0)
        errno = kept; /* it looks by itself */
    errno = kept;
}

static void on_guarded_signal(int signum)
{
    atomic_store(&guard.signum, signum);
    wake_guard();
}

/* In one write: whoever hangs may hold the lock of stderr. */
static void __attribute__((noreturn)) leave_with(int code, const char *what, const char *more)
{
    char text[2 * WATCH_TEXT];
    int length = snprintf(text, sizeof(text), "%s: %s%s%s\n", guard.name, what, more[0] != '\0' ? ": " : "", more);

    if (length > 0 && write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(code); /* nobody hears it */
    _exit(code);
}

static void *stand_guard(void *context)
{
    struct pollfd fd = {.fd = guard.wake, .events = POLLIN};
    char text[WATCH_TEXT] = "";
    int signum;

    (void)context;
    while (!atomic_load(&guard.over)) {
        poll(&fd, 1, GUARD_LOOK_MS);
        if ((signum = atomic_load(&guard.signum)) != 0) {
            name_call(GUARD_LONG_MS, text, sizeof(text));
            leave_with(guard.asked, signum == SIGINT ? "interrupted" : "asked to end", text);
        }
        if (watch_overdue(guard.timeout_ms, text, sizeof(text)))
            leave_with(TD_EXIT_GAVE_UP, text, "");
    }
    return NULL;
}

int watch_guard_begin(const char *name, uint64_t timeout_ms, int asked, struct error *err)
{
    struct sigaction ours = {.sa_handler = on_guarded_signal, .sa_flags = SA_RESTART};
    int rc;

    guard.name = name;
    guard.timeout_ms = timeout_ms;
    guard.asked = asked;
    atomic_store(&guard.signum, 0);
    atomic_store(&guard.over, false);
    if ((guard.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return error_set_errno(err, TD_EIO, errno, "cannot watch for signals");
    if ((rc = pthread_create(&guard.thread, NULL, stand_guard, NULL)) != 0) {
        close(guard.wake);
        return error_set_errno(err, TD_EIO, rc, "cannot start a thread");
    }
    for (size_t i = 0; i < TD_LEN(guarded); i++)
        sigaction(guarded[i], &ours, &guard.before[i]);
    return TD_OK;
}

void watch_guard_end(void)
{
    for (size_t i = 0; i < TD_LEN(guarded); i++)
        sigaction(guarded[i], &guard.before[i], NULL);
    if (atomic_load(&guard.signum) == 0) /* else it is leaving, and with it this thread */
        atomic_store(&guard.over, true);
    wake_guard();
    pthread_join(guard.thread, NULL);
    close(guard.wake);
}

/* --- deaths ---------------------------------------------------------------------------------------- */

/* As strcat; snprintf is not for signal handlers. */
static void append(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);

    while (*more != '\0' && used + 1 < size)
        text[used++] = *more++;
    text[used] = '\0';
}

/* What is in it is lost: say so, in one write. */
static void say_death(const struct watch_call *call, const char *what, int number)
{
    char text[400] = "level=error msg=\"the environment took its process along\" why=\"", digits[3] = {0};

    digits[0] = (char)('0' + number / 10 % 10);
    digits[1] = (char)('0' + number % 10);
    append(text, sizeof(text) - 8, call->task);
    append(text, sizeof(text) - 8, what);
    append(text, sizeof(text) - 8, number < 10 ? digits + 1 : digits);
    append(text, sizeof(text) - 8, " in ");
    append(text, sizeof(text) - 8, atomic_load_explicit(&call->phase, memory_order_relaxed));
    append(text, sizeof(text), "\"\n");
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return; /* then nobody hears it */
}

/* The handler is gone by now (SA_RESETHAND): the signal comes again, and kills. */
static void on_deadly_signal(int signum)
{
    if (inside != NULL)
        say_death(inside, ": killed by signal ", signum);
    raise(signum);
}

/* On the thread that called exit. */
static void on_exit_call(void)
{
    if (inside == NULL)
        return;
    say_death(inside, ": it called exit; that becomes exit code ", TD_EXIT_GAVE_UP);
    _exit(TD_EXIT_GAVE_UP);
}

void watch_deaths(void)
{
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct sigaction ours = {.sa_handler = on_deadly_signal, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)}, old;

    for (size_t i = 0; i < TD_LEN(deadly); i++)
        if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            sigaction(deadly[i], &ours, NULL);
    atexit(on_exit_call);
}
