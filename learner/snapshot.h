/*
 * snapshot.h - what a checkpoint keeps of the model and its optimiser, as safetensors groups.
 *
 *   parameters.safetensors   every tensor of the layout by its official name, target Qs included
 *   optimizer.safetensors    m.<name> and v.<name> of what is trained, steps, scale; with several tasks leftover.<name>,
 *                            the gradient that waits at the task embeddings for the next update
 *
 * Random numbers need no state: they are keyed by the seed and the number of updates.
 *
 * Owns:    the copy, when it makes one: in memory, or in a file (util/spill.h).
 * Borrows: the model and the update.
 * Thread:  snapshot_take and snapshot_load on the compute thread; the groups may be read on another one
 *          until the next take. Without a copy the model must not change while the groups are read.
 */
#ifndef TD_LEARNER_SNAPSHOT_H
#define TD_LEARNER_SNAPSHOT_H

#include "common/ckpt/checkpoint.h"
#include "common/model/world_model.h"
#include "learner/update.h"

#define SNAPSHOT_PARAMETERS "parameters.safetensors"
#define SNAPSHOT_OPTIMIZER  "optimizer.safetensors"
#define SNAPSHOT_GROUPS     2

/* Models of more parameters are written from where they lie (see checkpoint_parts.progress). */
#define SNAPSHOT_COPY_MAX 64000000u

typedef struct snapshot snapshot_t;

enum snapshot_copy { SNAPSHOT_LIVE, SNAPSHOT_IN_MEMORY, SNAPSHOT_IN_FILE };

/*
 * Room for a copy of everything is taken now, unless what lives is written; folder: where the file goes, or NULL. The
 * model has targets. TD_OK, TD_ENOMEM, or as spill_open.
 */
int snapshot_create(snapshot_t **out, world_model_t *model, update_t *update, enum snapshot_copy copy, const char *folder,
                    struct error *err);
void snapshot_destroy(snapshot_t **snapshot);

/* Copy what is to be written. Never allocates. TD_OK; TD_EDIVERGED: not all is finite; TD_EIO: the file. */
int snapshot_take(snapshot_t *snapshot, struct error *err);

/* SNAPSHOT_GROUPS groups, for checkpoint_write. */
const struct checkpoint_group *snapshot_groups(const snapshot_t *snapshot);

/*
 * Fill model and optimiser from a checkpoint. TD_OK; TD_ENOTFOUND, TD_EINVAL (shapes), TD_ECORRUPT
 * (not finite), TD_EIO, TD_ENOMEM: model and optimiser are then unusable.
 */
int snapshot_load(const checkpoint_t *checkpoint, world_model_t *model, update_t *update,
                  struct error *err);

/* The same by layout: parameters [all floats, or without targets the acting ones]. */
int snapshot_read_parameters(const safetensors_t *file, const struct model_layout *layout, bool targets,
                             float *parameters, struct error *err);

/* What an optimiser's file holds of a model's: moments laid out like its acting floats. Leftovers are not read. */
struct snapshot_optimizer {
    float *m, *v;
    uint64_t *steps;
    float *scale;
};
int snapshot_read_optimizer(const safetensors_t *file, const struct model_layout *layout,
                            const struct snapshot_optimizer *to, struct error *err);

/* Fill a model's tensors, and its targets if it has them, from any safetensors file of their names. */
int snapshot_load_parameters(const safetensors_t *file, world_model_t *model, struct error *err);

#endif
