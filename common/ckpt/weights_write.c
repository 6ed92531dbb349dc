/* weights_write.c - a model as the reference saves it: the pickle of {"model": state dict} in a zip of stored entries. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/weights.h"
#include "common/util/crc.h"
#include "common/util/fs.h"

#define ENTRIES_MAX (3 * MODEL_TENSORS_MAX)
#define ALIGNMENT   64
#define FOLDER      "archive"

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

/* --- the pickle ------------------------------------------------------------------ */

struct text {
    uint8_t *bytes;
    size_t length, room;
    bool failed;
};

static void put(struct text *text, const void *bytes, size_t length)
{
    if (text->length + length > text->room) {
        size_t room = 2 * (text->room + length) + 4096;
        uint8_t *grown = realloc(text->bytes, room);

        if (grown == NULL) {
            text->failed = true;
            return;
        }
        text->bytes = grown;
        text->room = room;
    }
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

static void put_number(struct text *text, uint64_t value, int width)
{
    uint8_t bytes[8];

    for (int i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    put(text, bytes, (size_t)width);
}

static void put_opcode(struct text *text, char opcode)
{
    put(text, &opcode, 1);
}

static void put_word(struct text *text, const char *word)
{
    put_opcode(text, 'X');
    put_number(text, strlen(word), 4);
    put(text, word, strlen(word));
}

static void put_int(struct text *text, uint64_t value)
{
    if (value < 0x80000000u) {
        put_opcode(text, 'J');
        put_number(text, value, 4);
    } else {
        put(text, "\x8a\x08", 2);
        put_number(text, value, 8);
    }
}

static void put_tuple(struct text *text, const uint64_t *values, int count)
{
    put_opcode(text, '(');
    for (int i = 0; i < count; i++)
        put_int(text, values[i]);
    put_opcode(text, 't');
}

static void put_global(struct text *text, const char *lines)
{
    put_opcode(text, 'c');
    put(text, lines, strlen(lines));
}

static void put_tensor(struct text *text, const struct item *item, int number)
{
    uint64_t stride[4], packed = 1;
    char key[16];

    for (int i = item->dims - 1; i >= 0; i--) {
        stride[i] = packed;
        packed *= item->shape[i];
    }
    snprintf(key, sizeof(key), "%d", number);
    put_global(text, "torch._utils\n_rebuild_tensor_v2\n");
    put(text, "((", 2);
    put_word(text, "storage");
    put_global(text, item->type == SAFETENSORS_I64 ? "torch\nLongStorage\n" : "torch\nFloatStorage\n");
    put_word(text, key);
    put_word(text, "cpu");
    put_int(text, item->elements);
    put(text, "tQ", 2);
    put_int(text, 0);
    put_tuple(text, item->shape, item->dims);
    put_tuple(text, stride, item->dims);
    put_opcode(text, (char)0x89);
    put_global(text, "collections\nOrderedDict\n");
    put(text, ")RtR", 4);
}

/* Behind a set of Qs: the batch size and device that tensordict keeps there. */
static void put_set_end(struct text *text, const struct item *last)
{
    char name[MODEL_NAME_MAX + 32];
    const char *end = strstr(last->name, "2.bias");
    int length = (int)(end - last->name);

    snprintf(name, sizeof(name), "%.*s__batch_size", length, last->name);
    put_word(text, name);
    put_global(text, "torch\nSize\n");
    put_opcode(text, '(');
    put_tuple(text, last->shape, 1);
    put(text, "tR", 2);
    snprintf(name, sizeof(name), "%.*s__device", length, last->name);
    put_word(text, name);
    put_opcode(text, 'N');
}

static void put_pickle(struct text *text, const struct items *items)
{
    put(text, "\x80\x02}", 3);
    put_word(text, "model");
    put_global(text, "collections\nOrderedDict\n");
    put(text, ")R(", 3);
    for (int i = 0; i < items->count; i++) {
        put_word(text, items->item[i].name);
        put_tensor(text, &items->item[i], i);
        if (items->item[i].ends_set)
            put_set_end(text, &items->item[i]);
    }
    put(text, "us.", 3);
}

/* --- the zip --------------------------------------------------------------------- */

struct archive {
    int fd;
    const char *path;
    uint64_t at;
    struct text directory;
    int entries;
};

static int write_bytes(struct archive *archive, const void *bytes, uint64_t length, struct error *err)
{
    int rc = fs_write_all(archive->fd, bytes, (size_t)length, archive->path, err);

    archive->at += length;
    return rc;
}

/* Contents begin at a multiple of 64, as torch.save has it, by a field of padding. */
static int write_entry(struct archive *archive, const char *name, const void *bytes, uint64_t length, struct error *err)
{
    char path[128];
    size_t name_bytes = (size_t)snprintf(path, sizeof(path), FOLDER "/%s", name);
    uint64_t begin = archive->at, body = begin + 30 + name_bytes + 4;
    size_t padding = (size_t)((ALIGNMENT - body % ALIGNMENT) % ALIGNMENT);
    uint32_t crc = crc32_add(0, bytes, (size_t)length);
    struct text header = {0};
    int rc;

    if (begin + length > 0xf0000000u)
        return error_set(err, TD_EINVAL, "%s would be larger than 4 GB, which is not written as *.pt: write *.safetensors",
                         archive->path);
    for (int central = 0; central < 2; central++) {
        struct text *to = central ? &archive->directory : &header;

        put(to, central ? "PK\1\2" : "PK\3\4", 4);
        if (central)
            put_number(to, 0, 2);
        put_number(to, 0, 2);
        put_number(to, 0x0800, 2); /* names in UTF-8 */
        put_number(to, 0, 6);      /* stored; no time */
        put_number(to, crc, 4);
        put_number(to, length, 4);
        put_number(to, length, 4);
        put_number(to, name_bytes, 2);
        put_number(to, central ? 0 : 4 + padding, 2);
        if (central) {
            put_number(to, 0, 8);
            put_number(to, 0, 2);
            put_number(to, begin, 4);
        }
        put(to, path, name_bytes);
    }
    put(&header, "FB", 2);
    put_number(&header, padding, 2);
    for (size_t i = 0; i < padding; i++)
        put(&header, "Z", 1);
    archive->entries++;
    rc = header.failed || archive->directory.failed ? error_set(err, TD_ENOMEM, "out of memory")
                                                    : write_bytes(archive, header.bytes, header.length, err);
    free(header.bytes);
    return rc == TD_OK ? write_bytes(archive, bytes, length, err) : rc;
}

static int write_directory(struct archive *archive, struct error *err)
{
    struct text *to = &archive->directory;
    uint64_t begin = archive->at, length = to->length;

    put(to, "PK\5\6\0\0\0\0", 8);
    put_number(to, (uint64_t)archive->entries, 2);
    put_number(to, (uint64_t)archive->entries, 2);
    put_number(to, length, 4);
    put_number(to, begin, 4);
    put_number(to, 0, 2);
    return to->failed ? error_set(err, TD_ENOMEM, "out of memory") : write_bytes(archive, to->bytes, to->length, err);
}

static int write_archive(struct archive *archive, const struct items *items, struct error *err)
{
    struct text pickle = {0};
    char name[64];
    int rc;

    put_pickle(&pickle, items);
    rc = pickle.failed ? error_set(err, TD_ENOMEM, "out of memory")
                       : write_entry(archive, "data.pkl", pickle.bytes, pickle.length, err);
    free(pickle.bytes);
    if (rc == TD_OK)
        rc = write_entry(archive, "byteorder", "little", 6, err);
    for (int i = 0; rc == TD_OK && i < items->count; i++) {
        const struct item *item = &items->item[i];

        snprintf(name, sizeof(name), "data/%d", i);
        rc = write_entry(archive, name, item->data, item->elements * safetensors_type_size(item->type), err);
    }
    if (rc == TD_OK)
        rc = write_entry(archive, "version", "3\n", 2, err);
    return rc == TD_OK ? write_directory(archive, err) : rc;
}

int weights_write_pt(const char *path, const struct model_layout *layout, const float *parameters, const int *actions,
                     struct error *err)
{
    struct items *items = calloc(1, sizeof(*items));
    char beside[FS_PATH_MAX];
    struct archive archive = {.fd = -1, .path = path};
    int rc;

    if (items == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    rc = gather(items, layout, parameters, actions, true, err);
    if (rc == TD_OK && snprintf(beside, sizeof(beside), "%s.XXXXXX", path) >= (int)sizeof(beside))
        rc = error_set(err, TD_EINVAL, "the name %.100s... is too long", path);
    if (rc == TD_OK && (archive.fd = mkostemp(beside, O_CLOEXEC)) < 0)
        rc = error_set_errno(err, TD_EIO, errno, "cannot create a file beside %s", path);
    if (archive.fd >= 0) {
        (void)fchmod(archive.fd, 0644);
        rc = write_archive(&archive, items, err);
        if (rc == TD_OK && fsync(archive.fd) != 0)
            rc = error_set_errno(err, TD_EIO, errno, "cannot sync %s", path);
        if (close(archive.fd) != 0 && rc == TD_OK)
            rc = error_set_errno(err, TD_EIO, errno, "cannot close %s", path);
        if (rc == TD_OK)
            rc = fs_rename(beside, path, err);
        if (rc != TD_OK)
            unlink(beside);
    }
    free(archive.directory.bytes);
    free(items->masks);
    free(items);
    return rc;
}
