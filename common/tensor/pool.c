#include "common/tensor/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/util/cores.h"

/*
 * The work is one 64-bit ticket: run number, tasks in the run, next task. A thread claims a task by
 * moving `next` on with a compare-and-swap, which succeeds only while the run it looked at is still
 * the current one; so a worker that wakes late can never touch a later run's tasks by mistake, and
 * the caller waits for tasks, not for workers: a worker that the system has not scheduled costs
 * nothing.
 */
#define TICKET(run, count, next) ((uint64_t)(run) << 32 | (uint64_t)(count) << 16 | (uint64_t)(next))
#define TICKET_RUN(ticket) ((uint32_t)((ticket) >> 32))
#define TICKET_COUNT(ticket) ((int)((ticket) >> 16 & 0xffff))
#define TICKET_NEXT(ticket) ((int)((ticket)&0xffff))
#define RUN_TASKS_MAX 0xffff
#define SPINS 400 /* some 10 microseconds before going to sleep */

struct worker {
    _Alignas(64) atomic_uint wake; /* futex: changes whenever there may be something to do */
    atomic_uint asleep;
    pool_t *pool;
    pthread_t thread;
    int index;
};

struct pool {
    _Alignas(64) atomic_uint_fast64_t ticket;
    _Atomic(pool_fn) fn;
    _Atomic(void *) context;
    _Alignas(64) atomic_uint done; /* futex: tasks of this run that are finished */
    atomic_uint waiting;           /* the caller sleeps on done */
    _Alignas(64) atomic_int active;
    atomic_bool stopping;
    int threads;
    int started; /* workers with a thread */
    struct worker *workers;
};

static void futex_wait(atomic_uint *word, unsigned seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Claim and run tasks until the current run has none left. */
static void work(pool_t *pool, int worker)
{
    uint64_t ticket = atomic_load(&pool->ticket);

    for (;;) {
        int count = TICKET_COUNT(ticket), task = TICKET_NEXT(ticket);
        pool_fn fn = atomic_load_explicit(&pool->fn, memory_order_relaxed);
        void *context = atomic_load_explicit(&pool->context, memory_order_relaxed);

        if (task >= count)
            return;
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1))
            continue;
        fn(context, task, worker);
        if (atomic_fetch_add(&pool->done, 1) + 1 == (unsigned)count && atomic_load(&pool->waiting))
            futex_wake(&pool->done);
        ticket = atomic_load(&pool->ticket);
    }
}

/* True when there is a task this worker may take. */
static bool has_work(pool_t *pool, int index)
{
    uint64_t ticket = atomic_load(&pool->ticket);

    return TICKET_NEXT(ticket) < TICKET_COUNT(ticket) && index < atomic_load(&pool->active);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    pool_t *pool = worker->pool;

    while (!atomic_load(&pool->stopping)) {
        unsigned seen = atomic_load(&worker->wake);

        if (has_work(pool, worker->index)) {
            work(pool, worker->index);
            continue;
        }
        for (int i = 0; i < SPINS && atomic_load(&worker->wake) == seen; i++)
            pause_briefly();
        /* The kernel sleeps only if wake is still what it was before we looked for work. */
        if (atomic_load(&worker->wake) == seen) {
            atomic_store(&worker->asleep, 1);
            futex_wait(&worker->wake, seen);
            atomic_store(&worker->asleep, 0);
        }
    }
    return NULL;
}

static void wake(struct worker *worker)
{
    atomic_fetch_add(&worker->wake, 1);
    if (atomic_load(&worker->asleep))
        futex_wake(&worker->wake);
}

static int start_workers(pool_t *pool, struct error *err)
{
    sigset_t all, before;
    int rc = TD_OK;

    /* Signals belong to the event loop's thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 1; i < pool->threads && rc == TD_OK; i++) {
        struct worker *worker = &pool->workers[i];
        int code;

        worker->pool = pool;
        worker->index = i;
        code = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (code != 0)
            rc = error_set_errno(err, TD_EIO, code, "no memory for compute thread %d of %d, or too many threads (ulimit -v, -u)", i + 1,
                                 pool->threads);
        else
            pool->started = i;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int pool_create(pool_t **out, int threads, struct error *err)
{
    pool_t *pool;
    int rc;

    if (threads < 0 || threads > POOL_THREADS_MAX)
        return error_set(err, TD_EINVAL, "threads=%d: give 0 (one per core) to %d", threads,
                         POOL_THREADS_MAX);
    if (threads == 0)
        threads = cores_available() < POOL_THREADS_MAX ? cores_available() : POOL_THREADS_MAX;
    pool = aligned_alloc(64, sizeof(*pool));
    if (pool == NULL)
        return error_set(err, TD_ENOMEM, "no memory for a pool of %d threads", threads);
    memset(pool, 0, sizeof(*pool));
    pool->threads = threads;
    atomic_init(&pool->active, threads);
    pool->workers = aligned_alloc(64, (size_t)threads * sizeof(struct worker));
    rc = TD_ENOMEM;
    if (pool->workers == NULL) {
        error_set(err, rc, "no memory for a pool of %d threads", threads);
        goto fail;
    }
    memset(pool->workers, 0, (size_t)threads * sizeof(struct worker));
    if ((rc = start_workers(pool, err)))
        goto fail;
    *out = pool;
    return TD_OK;

fail:
    pool_destroy(&pool);
    return rc;
}

void pool_destroy(pool_t **out)
{
    pool_t *pool = *out;

    if (pool == NULL)
        return;
    atomic_store(&pool->stopping, true);
    for (int i = 1; i <= pool->started; i++)
        wake(&pool->workers[i]);
    for (int i = 1; i <= pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    free(pool->workers);
    free(pool);
    *out = NULL;
}

/* Sleep until every task of this run is finished. */
static void wait_done(pool_t *pool, unsigned count)
{
    for (int i = 0; i < SPINS && atomic_load(&pool->done) != count; i++)
        pause_briefly();
    if (atomic_load(&pool->done) == count)
        return;
    atomic_store(&pool->waiting, 1);
    for (unsigned done; (done = atomic_load(&pool->done)) != count;)
        futex_wait(&pool->done, done);
    atomic_store(&pool->waiting, 0);
}

struct shifted {
    pool_fn fn;
    void *context;
    int first;
};

static void run_shifted(void *argument, int task, int worker)
{
    struct shifted *shifted = argument;

    shifted->fn(shifted->context, shifted->first + task, worker);
}

static void run_here(pool_fn fn, void *context, int count)
{
    for (int task = 0; task < count; task++)
        fn(context, task, 0);
}

void pool_run(pool_t *pool, pool_fn fn, void *context, int count)
{
    int active = pool == NULL ? 1 : atomic_load(&pool->active);
    uint32_t run;

    TD_ASSERT(count >= 0, "count %d", count);
    if (active == 1 || count <= 1) {
        run_here(fn, context, count);
        return;
    }
    if (count > RUN_TASKS_MAX) {
        for (int first = 0; first < count; first += RUN_TASKS_MAX) {
            struct shifted shifted = {fn, context, first};

            pool_run(pool, run_shifted, &shifted,
                     count - first < RUN_TASKS_MAX ? count - first : RUN_TASKS_MAX);
        }
        return;
    }

    run = TICKET_RUN(atomic_load(&pool->ticket)) + 1;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->fn, fn);
    atomic_store(&pool->context, context);
    atomic_store(&pool->ticket, TICKET(run, count, 0));
    for (int i = 1; i < active && i < count; i++)
        wake(&pool->workers[i]);
    work(pool, 0);
    wait_done(pool, (unsigned)count);
}

int pool_threads(const pool_t *pool)
{
    return pool == NULL ? 1 : pool->threads;
}

void pool_set_active(pool_t *pool, int active)
{
    if (pool == NULL)
        return;
    if (active > pool->threads)
        active = pool->threads;
    atomic_store(&pool->active, active < 1 ? 1 : active);
}

int pool_active(const pool_t *pool)
{
    return pool == NULL ? 1 : atomic_load(&pool->active);
}
