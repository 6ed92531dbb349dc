/*
 * run.h - the run directory: whose it is, its options, its lock and the learner's epoch.
 *
 *   <run directory>/config.yaml   the options, as of the last start
 *                   run.json      run id and learner epoch
 *                   learner.lock  held for the learner's life
 *                   eval.csv train.csv checkpoints/ replay/ run/ *.log
 *
 * Owns:    the lock.
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_RUN_H
#define TD_LEARNER_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/util/build.h"
#include "common/util/config.h"
#include "common/util/fs.h"

#define RUN_LOCK_WAIT_MS 15000u /* a start waits so long for the owner to go */

struct run {
    char dir[FS_PATH_MAX];
    struct config config; /* stored options merged with the given ones */
    bool resumed;         /* the directory held a run already */
    bool finished;        /* its final checkpoint has all the steps that are wanted */
    uint64_t finished_steps;
    uint64_t run_id;      /* of a new run 0 until run_open */
    uint32_t epoch;       /* of its last learner; run_open raises it */
    int lock;             /* -1 until run_open */
    char build[BUILD_TEXT_MAX]; /* of this program; empty until run_open */
};

/*
 * What starting with these options would mean; changes nothing on disk. `given` as config_parse left
 * it. Lines on what is restored and changed go to report (may be NULL).
 * TD_OK, TD_EINVAL (options that do not fit the run, a directory that is something else), TD_ECORRUPT.
 */
int run_look(struct run *run, const struct config *fresh, const bool *given, FILE *report,
             struct error *err);

/*
 * Take the directory: make it if need be, lock it, store the options, raise the epoch. Fills *run;
 * run_close gives the lock back. As run_look, and TD_ELOCKED naming the owner, TD_EIO, TD_EFULL.
 */
int run_open(struct run *run, const struct config *fresh, const bool *given, uint64_t lock_wait_ms,
             FILE *report, struct error *err);
void run_close(struct run *run);

/* Wait up to wait_ms for the learner of this directory to go; TD_ELOCKED names its pid and state. */
int run_wait_unlocked(const char *dir, uint64_t wait_ms, struct error *err);

/* Raise the stored epoch to more than `above` and its present value; run->epoch is the new one. */
int run_raise_epoch(struct run *run, uint32_t above, struct error *err);

/* TD_OK while the stored epoch is still this learner's; TD_EFENCED when another one raised it. */
int run_check_epoch(const struct run *run, struct error *err);

/* <run directory>/name. TD_OK or TD_EINVAL (too long). */
int run_path(const struct run *run, const char *name, char out[FS_PATH_MAX], struct error *err);

#endif
