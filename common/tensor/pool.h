/*
 * pool.h - worker threads for one owner's numeric work.
 *
 * Owns:    its threads; they sleep on a futex when there is nothing to do.
 * Thread:  pool_run and pool_set_active are called by one thread at a time, the owner; the caller
 *          takes part in the work. Tasks may not call pool_run.
 *
 * Which worker runs which task is not fixed; what a task computes must depend on its number only.
 * Then results do not depend on the number of threads. Allocates nothing after pool_create.
 */
#ifndef TD_TENSOR_POOL_H
#define TD_TENSOR_POOL_H

#include "common/util/error.h"

#define POOL_THREADS_MAX 256

typedef struct pool pool_t;

/* One piece of work. worker is in [0, pool_threads): an index for scratch memory, 0 is the caller. */
typedef void (*pool_fn)(void *context, int task, int worker);

/*
 * A pool that runs up to `threads` tasks at once (threads - 1 workers and the caller), all active;
 * `threads` 0 means one per core this process may use.
 * Returns TD_OK, TD_EINVAL (more than POOL_THREADS_MAX), TD_ENOMEM, TD_EIO.
 */
int pool_create(pool_t **out, int threads, struct error *err);

/* Stop and join the workers. Accepts NULL and a half-built pool. */
void pool_destroy(pool_t **pool);

/*
 * Run fn(context, task, worker) for task = 0 .. count-1 and return when all are done. Their memory
 * effects are then visible to the caller. pool may be NULL: everything runs here, as worker 0.
 */
void pool_run(pool_t *pool, pool_fn fn, void *context, int count);

/* Threads it was created with (1 for NULL): how much per-worker scratch to have. */
int pool_threads(const pool_t *pool);

/*
 * Let only `active` threads (1 .. pool_threads, clamped) take part from the next run on; any thread
 * may call this at any time. The others sleep.
 */
void pool_set_active(pool_t *pool, int active);
int pool_active(const pool_t *pool);

#endif
