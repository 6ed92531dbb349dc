/* weights_write.c - a model as the reference saves it: the pickle of {"model": state dict} in a zip of stored entries. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ckpt/pt_write.h"
#include "common/ckpt/weights.h"

#define ENTRIES_MAX (3 * MODEL_TENSORS_MAX)

/* One tensor of the file, in the order of the reference's state dict. */
struct item {
    char name[MODEL_NAME_MAX + 16];
    enum safetensors_type type;
    int dims;
    uint64_t shape[4];
    const void *data;
    uint64_t elements;
    bool ends_set; /* the last of a set of Qs: what is no tensor follows it */
};

struct items {
    int count;
    struct item item[ENTRIES_MAX];
    int64_t log_std_min, log_std_dif;
    float *masks;
};

static struct item *add(struct items *items, const char *name, enum safetensors_type type, int dims,
                        const uint64_t *shape, const void *data)
{
    struct item *item = &items->item[items->count++];

    TD_ASSERT(items->count <= ENTRIES_MAX, "%d", items->count);
    *item = (struct item){.type = type, .dims = dims, .data = data, .elements = 1};
    snprintf(item->name, sizeof(item->name), "%s", name);
    for (int i = 0; i < dims; i++) {
        item->shape[i] = shape[i];
        item->elements *= shape[i];
    }
    return item;
}

static void add_part(struct items *items, const struct model_layout *layout, const float *parameters,
                     enum model_part part, const char *prefix)
{
    static const char q[] = "_Qs.params.";
    char name[MODEL_NAME_MAX + 16];
    struct item *last = NULL;

    for (int i = 0; i < layout->tensors; i++) {
        const struct model_tensor *tensor = &layout->tensor[i];

        if (tensor->part != part || strcmp(tensor->name, "_task_emb.weight") == 0)
            continue;
        if (prefix != NULL)
            snprintf(name, sizeof(name), "%s%s", prefix, tensor->name + sizeof(q) - 1);
        else
            snprintf(name, sizeof(name), "%s", tensor->name);
        last = add(items, name, SAFETENSORS_F32, tensor->dims, tensor->shape, parameters + tensor->offset);
    }
    if (last != NULL && (part == MODEL_Q || part == MODEL_TARGET_Q))
        last->ends_set = true;
}

static int gather(struct items *items, const struct model_layout *layout, const float *parameters, const int *actions,
                  bool detached, struct error *err)
{
    const struct model_dims *dims = &layout->dims;
    const struct model_tensor *embedding = model_layout_find(layout, "_task_emb.weight");
    uint64_t masks[2] = {(uint64_t)dims->num_tasks, (uint64_t)dims->action_dim};

    items->log_std_min = (int64_t)dims->log_std_min;
    items->log_std_dif = (int64_t)(dims->log_std_max - dims->log_std_min);
    if (dims->num_tasks > 0) {
        items->masks = calloc((size_t)(masks[0] * masks[1]), sizeof(float));
        if (items->masks == NULL)
            return error_set(err, TD_ENOMEM, "out of memory");
        for (int t = 0; t < dims->num_tasks; t++)
            for (int i = 0; i < dims->action_dim; i++)
                items->masks[t * dims->action_dim + i] = i < actions[t];
        add(items, "_action_masks", SAFETENSORS_F32, 2, masks, items->masks);
    }
    add(items, "log_std_min", SAFETENSORS_I64, 0, NULL, &items->log_std_min);
    add(items, "log_std_dif", SAFETENSORS_I64, 0, NULL, &items->log_std_dif);
    if (embedding != NULL)
        add(items, embedding->name, SAFETENSORS_F32, embedding->dims, embedding->shape, parameters + embedding->offset);
    add_part(items, layout, parameters, MODEL_ENCODER, NULL);
    add_part(items, layout, parameters, MODEL_DYNAMICS, NULL);
    add_part(items, layout, parameters, MODEL_REWARD, NULL);
    add_part(items, layout, parameters, MODEL_TERMINATION, NULL);
    add_part(items, layout, parameters, MODEL_PI, NULL);
    add_part(items, layout, parameters, MODEL_Q, NULL);
    if (detached)
        add_part(items, layout, parameters, MODEL_Q, "_detach_Qs_params.");
    add_part(items, layout, parameters, MODEL_TARGET_Q, NULL);
    return TD_OK;
}

int weights_write_safetensors(const char *path, const struct model_layout *layout, const float *parameters,
                              const int *actions, const struct safetensors_note *notes, int note_count,
                              struct error *err)
{
    struct items *items = calloc(1, sizeof(*items));
    struct safetensors_tensor *tensors = calloc(ENTRIES_MAX, sizeof(*tensors));
    float low = layout->dims.log_std_min, difference = layout->dims.log_std_max - low;
    int rc = items == NULL || tensors == NULL ? error_set(err, TD_ENOMEM, "out of memory")
                                              : gather(items, layout, parameters, actions, false, err);

    for (int i = 0; rc == TD_OK && i < items->count; i++) {
        const struct item *item = &items->item[i];

        tensors[i] = (struct safetensors_tensor){
            .name = item->name, .type = item->type, .dims = item->dims, .data = item->data};
        memcpy(tensors[i].shape, item->shape, sizeof(item->shape));
        if (item->type == SAFETENSORS_I64) { /* floats in all our files */
            tensors[i].type = SAFETENSORS_F32;
            tensors[i].data = item->data == &items->log_std_min ? &low : &difference;
        }
    }
    if (rc == TD_OK)
        rc = safetensors_write(path, tensors, items->count, notes, note_count, NULL, NULL, err);
    if (items != NULL)
        free(items->masks);
    free(items);
    free(tensors);
    return rc;
}

/* --- *.pt ------------------------------------------------------------------------ */

/* Behind a set of Qs: the batch size and device that tensordict keeps there. */
static void put_set_end(pt_writer_t *writer, const struct item *last)
{
    char name[MODEL_NAME_MAX + 32];
    const char *end = strstr(last->name, "2.bias");
    int length = (int)(end - last->name);

    snprintf(name, sizeof(name), "%.*s__batch_size", length, last->name);
    pt_put_text(writer, name);
    pt_put_size(writer, 1, &(int64_t){(int64_t)last->shape[0]});
    snprintf(name, sizeof(name), "%.*s__device", length, last->name);
    pt_put_text(writer, name);
    pt_put_none(writer);
}

/* {"model": state dict}; tensor i is of storage i. */
static void put_model(pt_writer_t *writer, const struct items *items)
{
    pt_put_dict_begin(writer);
    pt_put_text(writer, "model");
    pt_put_ordered_begin(writer);
    for (int i = 0; i < items->count; i++) {
        const struct item *item = &items->item[i];

        pt_put_text(writer, item->name);
        pt_put_tensor(writer, item->type, item->dims, item->shape);
        if (item->ends_set)
            put_set_end(writer, item);
    }
    pt_put_dict_end(writer);
    pt_put_dict_end(writer);
}

static int put_storage(void *context, pt_writer_t *writer, int storage, struct error *err)
{
    const struct item *item = &((const struct items *)context)->item[storage];

    return pt_writer_bytes(writer, item->data, item->elements * safetensors_type_size(item->type), err);
}

int weights_write_pt(const char *path, const struct model_layout *layout, const float *parameters, const int *actions,
                     struct error *err)
{
    struct items *items = calloc(1, sizeof(*items));
    pt_writer_t *writer = NULL;
    int rc;

    if (items == NULL || pt_writer_create(&writer) != TD_OK)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    else
        rc = gather(items, layout, parameters, actions, true, err);
    if (rc == TD_OK) {
        put_model(writer, items);
        rc = pt_writer_save(writer, path, "archive", put_storage, items, err);
    }
    pt_writer_destroy(&writer);
    if (items != NULL)
        free(items->masks);
    free(items);
    return rc;
}
