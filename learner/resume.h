/*
 * resume.h - the learner's checkpoints: what one says beside the numbers (snapshot.h), writing it, and
 * finding the one to go on from.
 *
 *   parameters.safetensors, optimizer.safetensors   see snapshot.h
 *   environment.bin                                 lock-step: the environment's state
 *
 * The manifest's "progress" is struct progress.
 *
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_RESUME_H
#define TD_LEARNER_RESUME_H

#include "common/ckpt/checkpoint.h"
#include "learner/coordinator.h"
#include "learner/progress.h"
#include "learner/run.h"
#include "learner/snapshot.h"

/* All but the numbers: filled on the loop thread, owned by whoever writes the checkpoint. */
struct resume_save {
    uint64_t id;
    uint32_t kind; /* enum save_kind */
    char name[MANIFEST_NAME_MAX];
    struct manifest manifest;
    void *state; /* malloc'd, or NULL */
    size_t state_size;
    double stall_ms; /* that taking it kept updates waiting */
};

/* From COMMAND_SAVE; `steps` agent steps. NULL when out of memory. */
struct resume_save *resume_save_create(const struct run *run, const struct command_save *command,
                                       uint64_t steps);
void resume_save_destroy(struct resume_save **save);

/* Write it durably into folder, then delete what newer ones stand for. */
int resume_write(const char *folder, struct resume_save *save, const snapshot_t *numbers, int keep,
                 safetensors_progress *progress, void *context, struct error *err);

/* The kinds that a run may go on from. */
unsigned resume_kinds(bool lockstep);

/*
 * The newest valid checkpoint of this run's folder. Damaged ones are passed over and logged. *out is
 * NULL and TD_OK when there is none; a folder in which all are damaged is TD_ECORRUPT, another run's is
 * TD_EFOREIGN, and one trained with other options that fix the run is TD_EINVAL.
 */
int resume_open(checkpoint_t **out, const struct run *run, struct error *err);

/*
 * Say, a line each, what is restored, what of build, machine and options differs from what the checkpoint was
 * written with, and whether a lock-step run is still exact. `build` is that of the learner's program (build_of).
 */
#define RESUME_LINE_MAX 400
typedef void resume_line(void *context, bool warning, const char *line);
void resume_tell(const checkpoint_t *checkpoint, const struct run *run, const char *build, resume_line *say,
                 void *context);

/* Is it this run's, and trained with what fixes the run? TD_OK, TD_EFOREIGN, TD_EINVAL. */
int resume_check(const checkpoint_t *checkpoint, const struct run *run, struct error *err);

/* Its counters and environment state; *state is malloc'd (NULL: none), the caller's. */
int resume_progress(const checkpoint_t *checkpoint, struct progress *progress, void **state,
                    size_t *state_size, struct error *err);

#endif
