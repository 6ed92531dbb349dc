#include "common/ckpt/model_tensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct safetensors_tensor *add(struct model_tensors *tensors, const char *prefix, const char *name)
{
    struct safetensors_tensor *tensor = &tensors->tensors[tensors->count];
    char *text = tensors->names[tensors->count];

    TD_ASSERT((size_t)tensors->count < TD_LEN(tensors->tensors), "%d tensors", tensors->count);
    TD_ASSERT((size_t)snprintf(text, sizeof(tensors->names[0]), "%s%s", prefix, name) <
                  sizeof(tensors->names[0]), "%s%s", prefix, name);
    tensors->count++;
    memset(tensor, 0, sizeof(*tensor));
    tensor->name = text;
    return tensor;
}

void model_tensors_add(struct model_tensors *tensors, const struct model_layout *layout,
                       const float *memory, enum model_part end, const char *prefix)
{
    for (int i = 0; i < layout->tensors && layout->tensor[i].part < end; i++) {
        const struct model_tensor *from = &layout->tensor[i];
        struct safetensors_tensor *tensor = add(tensors, prefix, from->name);

        tensor->type = SAFETENSORS_F32;
        tensor->dims = from->dims;
        memcpy(tensor->shape, from->shape, sizeof(from->shape));
        tensor->data = memory + from->offset;
    }
}

void model_tensors_add_value(struct model_tensors *tensors, const char *name,
                             enum safetensors_type type, uint64_t count, const void *data)
{
    struct safetensors_tensor *tensor = add(tensors, "", name);

    tensor->type = type;
    tensor->dims = 1;
    tensor->shape[0] = count;
    tensor->data = data;
}

static bool all_finite(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

int model_tensors_load(const safetensors_t *file, const struct model_layout *layout, float *memory,
                       enum model_part end, const char *prefix, struct error *err)
{
    char name[MODEL_NAME_MAX + 8];

    for (int i = 0; i < layout->tensors && layout->tensor[i].part < end; i++) {
        const struct model_tensor *to = &layout->tensor[i];
        int rc;

        snprintf(name, sizeof(name), "%s%s", prefix, to->name);
        rc = safetensors_get(file, name, SAFETENSORS_F32, to->dims, to->shape, memory + to->offset, err);
        if (rc != TD_OK)
            return rc;
        if (!all_finite(memory + to->offset, to->count))
            return error_set(err, TD_ECORRUPT, "tensor %s holds values that are not finite", name);
    }
    return TD_OK;
}
