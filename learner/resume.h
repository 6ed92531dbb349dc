/*
 * resume.h - what the learner keeps in a checkpoint, written and read back.
 *
 *   parameters.safetensors   every parameter, targets included, under the official names
 *   optimizer.safetensors    Adam's moments "m.<name>", "v.<name>"; "updates" (u64), "scale" (f32)
 *   environment.bin          lock-step: the environment's state
 *
 * The manifest's "progress" is struct progress. Random numbers are keyed by seed and counters, so no
 * generator has a state of its own.
 *
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_RESUME_H
#define TD_LEARNER_RESUME_H

#include "common/ckpt/checkpoint.h"
#include "common/model/world_model.h"
#include "learner/coordinator.h"
#include "learner/progress.h"
#include "learner/run.h"
#include "learner/update.h"

/* The numbers of a checkpoint: the model's and optimiser's own memory, or a copy of it. */
struct resume_numbers {
    const struct model_layout *layout; /* borrowed */
    float *parameters;                 /* [all floats] */
    float *m, *v;                      /* [acting floats] */
    uint64_t updates;
    float scale;
};

/* Views of the live ones. */
void resume_view(struct resume_numbers *out, world_model_t *model, update_t *update);

/* A copy's memory, and filling it. TD_OK or TD_ENOMEM. */
int resume_copy_init(struct resume_numbers *copy, const struct model_layout *layout);
void resume_copy_take(struct resume_numbers *copy, world_model_t *model, update_t *update);
void resume_copy_release(struct resume_numbers *copy);

/* All but the numbers: filled on the loop thread, owned by whoever writes the checkpoint. */
struct resume_save {
    uint64_t id;
    uint32_t kind; /* enum save_kind */
    char name[MANIFEST_NAME_MAX];
    struct manifest manifest;
    void *state; /* malloc'd, or NULL */
    size_t state_size;
};

/* From COMMAND_SAVE; `steps` agent steps. NULL when out of memory. */
struct resume_save *resume_save_create(const struct run *run, const struct command_save *command,
                                       uint64_t steps);
void resume_save_destroy(struct resume_save **save);

/* Write it durably into folder, then delete what newer ones stand for. */
int resume_write(const char *folder, struct resume_save *save, const struct resume_numbers *numbers,
                 int keep, safetensors_progress *progress, void *context, struct error *err);

/* The kinds that a run may go on from. */
unsigned resume_kinds(bool lockstep);

/*
 * The newest valid checkpoint of this run's folder. Damaged ones are passed over and logged. *out is
 * NULL and TD_OK when there is none; a folder in which all are damaged is TD_ECORRUPT.
 */
int resume_open(checkpoint_t **out, const struct run *run, struct error *err);

/* Its counters and environment state; *state is malloc'd (NULL: none), the caller's. */
int resume_progress(const checkpoint_t *checkpoint, struct progress *progress, void **state,
                    size_t *state_size, struct error *err);

/* Its numbers into model and optimiser. */
int resume_numbers_load(const checkpoint_t *checkpoint, world_model_t *model, update_t *update,
                        struct error *err);

#endif
