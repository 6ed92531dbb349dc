/*
 * model_tensors.h - a world model's parameters, and arrays laid out like them, as named tensors.
 *
 * `prefix` goes before the official name: "" for parameters, "m." and "v." for Adam's moments.
 * `end` says how much of the layout there is: MODEL_TARGET_Q for what acting needs and what is
 * optimised, MODEL_PARTS for all.
 */
#ifndef TD_CKPT_MODEL_TENSORS_H
#define TD_CKPT_MODEL_TENSORS_H

#include "common/ckpt/safetensors.h"
#include "common/model/world_model.h"

/* Tensors to be written, and room for their names. */
struct model_tensors {
    struct safetensors_tensor tensors[2 * MODEL_TENSORS_MAX + 8];
    char names[2 * MODEL_TENSORS_MAX + 8][MODEL_NAME_MAX + 8];
    int count;
};

/* Add every tensor of the parts below `end`; memory is borrowed. */
void model_tensors_add(struct model_tensors *tensors, const struct model_layout *layout,
                       const float *memory, enum model_part end, const char *prefix);

/* Add one tensor of any other kind; name and data are borrowed. */
void model_tensors_add_value(struct model_tensors *tensors, const char *name,
                             enum safetensors_type type, uint64_t count, const void *data);

/*
 * Read them back into memory. Returns TD_OK, TD_ENOTFOUND or TD_EINVAL for a tensor that is missing or
 * of another shape, TD_ECORRUPT for one that is not finite; memory then holds a mixture.
 */
int model_tensors_load(const safetensors_t *file, const struct model_layout *layout, float *memory,
                       enum model_part end, const char *prefix, struct error *err);

#endif
