/*
 * weights.h - a trained model's parameters in a file: the reference's *.pt, or safetensors of the same names.
 *
 * Both key formats of the reference are read: the older one numbers the Q tensors (`_Qs.params.7`), the newer one
 * names them and stores them thrice. As in the reference's load, `_detach_Qs_params` wins over `_Qs.params`,
 * whose memory it is. All sizes of the model are told by the tensors' shapes.
 *
 * Owns:    the open file.
 * Thread:  one at a time.
 * Source:  TD-MPC2 reference, `tdmpc2.py` (save, load), `common/layers.py` (api_model_conversion).
 */
#ifndef TD_CKPT_WEIGHTS_H
#define TD_CKPT_WEIGHTS_H

#include <stdbool.h>

#include "common/ckpt/pt.h"
#include "common/model/task_set.h"
#include "common/model/world_model.h"

typedef struct weights weights_t;

/* TD_OK; TD_EINVAL: it holds no world model; or as pt_open, safetensors_open. */
int weights_open(weights_t **out, const char *path, struct error *err);
void weights_close(weights_t **weights);

/*
 * The sizes that the tensors have, into *dims, which comes with what they do not tell (simnorm_dim, dropout,
 * vmin, vmax; log_std_min and _max are taken from the file where it has them). TD_OK or TD_EINVAL.
 */
int weights_dims(const weights_t *weights, struct model_dims *dims, struct error *err);

/* The model_size whose layers these are, 0 when they are none's. */
int weights_model_size(const struct model_dims *dims);

/* Components of a task's actions by the file's masks; 0 when it has none. */
int weights_task_action(const weights_t *weights, int task);

/* The note "config" of safetensors, JSON of the sizes as options and of the tasks; NULL when the file has none. */
const char *weights_note(const weights_t *weights);

/*
 * Fill `parameters`, laid out like this, with or without targets (without: acting floats). Every tensor must be
 * there in its shape, and finite; others are not looked at. TD_OK, TD_EINVAL, TD_ECORRUPT, TD_EIO.
 */
int weights_read(const weights_t *weights, const struct model_layout *layout, bool targets, float *parameters,
                 struct error *err);

/*
 * Write a model (with targets) as the reference saves one, or as safetensors of the same names. actions
 * [num_tasks] are the components of each task's actions. The file is whole or absent.
 * TD_OK, TD_EIO, TD_EFULL, TD_ENOMEM, TD_EINVAL.
 */
int weights_write_pt(const char *path, const struct model_layout *layout, const float *parameters,
                     const int *actions, struct error *err);
int weights_write_safetensors(const char *path, const struct model_layout *layout, const float *parameters,
                              const int *actions, const struct safetensors_note *notes, int note_count,
                              struct error *err);

#endif
