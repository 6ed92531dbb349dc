/*
 * bench_run.h - a real run to measure: learner, shard and actors as processes, in a folder of its own.
 *
 * Owns:    the processes, the folder (removed at the end) and an event loop, main thread only. Whatever
 *          happens, nothing is left: a signal ends every wait with TD_EAGAIN, children follow their
 *          parent's death, and the folder of a benchmark that was killed goes at the next one's start.
 */
#ifndef TD_TOOLS_BENCH_RUN_H
#define TD_TOOLS_BENCH_RUN_H

#include "common/util/error.h"
#include "tools/console.h"

#define BENCH_ACTORS_MAX 64

typedef struct bench_run bench_run_t;

/*
 * Start a learner, which starts its shard, in a folder below build/.
 *
 *   words   key=value for the learner, NULL-terminated; work_dir= is added
 */
int bench_run_start(bench_run_t **out, const char *const *words, struct error *err);

/* Stop all, remove the folder. Accepts NULL and a half-started run. */
void bench_run_stop(bench_run_t **run);

/* Start or stop actors until there are `count`; returns when the learner knows that many. */
int bench_run_actors(bench_run_t *run, int count, struct error *err);

/* Let it run. TD_OK; TD_EAGAIN: interrupted; TD_EIO: a part died, with the last lines of its log. */
int bench_run_for(bench_run_t *run, uint64_t ms, struct error *err);

/* What the learner's stats say now. */
int bench_run_status(bench_run_t *run, struct run_status *status, struct error *err);

/* Wait until the learner's phase is this one. */
int bench_run_phase(bench_run_t *run, const char *phase, uint64_t timeout_ms, struct error *err);

/* Processor seconds used so far by learner, shard and the actors there are. */
double bench_run_cpu(const bench_run_t *run);

#endif
