/*
 * trial.h - work that may crash, hang or leave, in a process of its own.
 *
 * A forked child does it and tells, through shared memory, where it is; the parent waits, says after a while how far
 * it has come, and explains an end that was none. The child is killed with its parent.
 */
#ifndef TD_TOOLS_TRIAL_H
#define TD_TOOLS_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/error.h"

/* The child writes, the parent reads. The texts are constants of the program: both have them at the same place. */
struct trial {
    const char *_Atomic phase;  /* what is under way: "create", "reset", "step" ... */
    const char *_Atomic stage;  /* what it is for: "saved state" */
    _Atomic uint64_t beats;     /* calls so far */
    _Atomic uint64_t done, total; /* steps of this stage */
    _Atomic uint64_t limit_ms;  /* how long the call under way may take */
    _Atomic bool finished;
    int rc;
    struct error err;
};

/* Before each call that might not come back. */
void trial_enter(struct trial *trial, const char *phase, uint64_t limit_ms);

/*
 * Run work(context, trial) in a child and return what it returned, with its error. TD_ELOST when it crashed, left or
 * took longer than it may: "NAME: killed by signal 11 (Segmentation fault) in step". TD_EIO when there is no process.
 */
int trial_run(const char *name, int (*work)(void *context, struct trial *trial), void *context, struct error *err);

#endif
