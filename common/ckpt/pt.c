#include "common/ckpt/pt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/ckpt/pickle.h"
#include "common/ckpt/zip.h"
#include "common/util/crc.h"
#include "common/util/fs.h"

#define PIECE        ((size_t)64 << 10)
#define NAME_LONGEST 400
#define REPEATS_MAX  ((uint64_t)16 << 20) /* elements of a view that is larger than its storage */
#define STEPS_MAX    (4 * PT_LEAVES_MAX)  /* of the walk: shared lists may be met again and again */

struct pt {
    int fd;
    char *path;
    struct zip zip;
    char prefix[ZIP_NAME_MAX + 1]; /* "archive/" */
    pickle_t *pickle;              /* owns names and texts */
    struct pt_tensor *tensor;
    struct pt_leaf *leaf;
    const struct pt_tensor **tensor_named; /* [tensors], by name */
    const struct pt_leaf **leaf_named;
    int tensors, tensor_room, leaves, leaf_room, steps;
    struct error *err; /* while opening */
};

static int refuse(const pt_t *file, const char *name, const char *why)
{
    if (name != NULL && name[0] == '\0')
        name = "its only value";
    if (name == NULL)
        return error_set(file->err, TD_ECORRUPT, "%s cannot be read: %s", file->path, why);
    return error_set(file->err, TD_ECORRUPT, "%s cannot be read: %.100s %s", file->path, name, why);
}

static int no_memory(const pt_t *file)
{
    return error_set(file->err, TD_ENOMEM, "out of memory reading %s", file->path);
}

static int read_at(const pt_t *file, void *out, size_t length, uint64_t offset, struct error *err)
{
    char *next = out;

    while (length > 0) {
        ssize_t got = pread(file->fd, next, length, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(err, TD_EIO, errno, "cannot read %s", file->path);
        if (got == 0)
            return error_set(err, TD_ECORRUPT, "%s became shorter while it was read", file->path);
        next += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return TD_OK;
}

/* --- names ----------------------------------------------------------------------- */

/* A key as part of a path: printable, in UTF-8 or not. */
static bool key_is_plain(const char *key)
{
    if (key[0] == '\0')
        return false;
    for (const char *c = key; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            return false;
    return true;
}

/* folder/key, of the pickle's memory. */
static int join(pt_t *file, const char **out, const char *folder, const char *key)
{
    size_t one = strlen(folder), two = strlen(key);
    char *name;

    if (!key_is_plain(key) || one + two + 2 > NAME_LONGEST)
        return refuse(file, folder, "a key of it is empty, too long or not printable");
    name = pickle_memory(file->pickle, one + two + 2);
    if (name == NULL)
        return no_memory(file);
    snprintf(name, one + two + 2, "%s%s%s", folder, one > 0 ? "/" : "", key);
    *out = name;
    return TD_OK;
}

/* --- tensors --------------------------------------------------------------------- */

/* The storage's place in the file: it must have just the bytes that the pickle tells. */
static int find_storage(pt_t *file, const char *name, const struct pickle_storage *storage, struct pt_tensor *tensor)
{
    char path[2 * ZIP_NAME_MAX];
    const struct zip_entry *entry = NULL;
    uint64_t bytes;

    if (strlen(storage->key) < 64) {
        snprintf(path, sizeof(path), "%sdata/%s", file->prefix, storage->key);
        entry = zip_find(&file->zip, path);
    }
    if (entry == NULL)
        return refuse(file, name, "has no storage in the file");
    if (__builtin_mul_overflow(storage->elements, safetensors_type_size(storage->kind->type), &bytes) ||
        bytes != entry->length)
        return refuse(file, name, "has a storage of another size than it is told to have");
    tensor->storage = (int)(entry - file->zip.entry);
    tensor->offset = entry->offset;
    return TD_OK;
}

/* Every element of the view must lie in the storage of `bytes` bytes. */
static int check_view(pt_t *file, struct pt_tensor *tensor, uint64_t offset, uint64_t bytes)
{
    uint64_t size = safetensors_type_size(tensor->type), room = bytes / size, last = offset, step, packed = 1;

    tensor->elements = 1;
    tensor->contiguous = true;
    for (int i = tensor->dims - 1; i >= 0; i--) {
        if (tensor->shape[i] > (uint64_t)1 << 48 ||
            __builtin_mul_overflow(tensor->elements, tensor->shape[i], &tensor->elements))
            return refuse(file, tensor->name, "has an impossible shape");
        if (tensor->shape[i] != 1 && tensor->stride[i] != packed)
            tensor->contiguous = false;
        if (__builtin_mul_overflow(packed, tensor->shape[i], &packed))
            return refuse(file, tensor->name, "has an impossible shape");
    }
    if (tensor->elements == 0) {
        tensor->contiguous = true;
        return TD_OK;
    }
    for (int i = 0; i < tensor->dims; i++)
        if (__builtin_mul_overflow(tensor->stride[i], tensor->shape[i] - 1, &step) ||
            __builtin_add_overflow(last, step, &last))
            return refuse(file, tensor->name, "reaches beyond its storage");
    if (last >= room)
        return refuse(file, tensor->name, "reaches beyond its storage");
    if (tensor->elements > room && tensor->elements > REPEATS_MAX)
        return refuse(file, tensor->name, "repeats a small storage too often");
    tensor->offset += offset * size;
    return TD_OK;
}

static int add_tensor(pt_t *file, const char *name, const struct pickle_tensor *from)
{
    struct pt_tensor *tensor;
    int rc;

    if (file->tensors == file->tensor_room) {
        int room = file->tensor_room == 0 ? 64 : 2 * file->tensor_room;

        tensor = reallocarray(file->tensor, (size_t)room, sizeof(*tensor));
        if (tensor == NULL)
            return no_memory(file);
        file->tensor = tensor;
        file->tensor_room = room;
    }
    tensor = &file->tensor[file->tensors];
    *tensor = (struct pt_tensor){.name = name, .type = from->type, .dims = from->dims};
    memcpy(tensor->shape, from->shape, sizeof(tensor->shape));
    memcpy(tensor->stride, from->stride, sizeof(tensor->stride));
    if ((rc = find_storage(file, name, from->storage, tensor)) != TD_OK ||
        (rc = check_view(file, tensor, from->offset, file->zip.entry[tensor->storage].length)) != TD_OK)
        return rc;
    file->tensors++;
    return TD_OK;
}

/* --- leaves ---------------------------------------------------------------------- */

static int add_leaf(pt_t *file, struct pt_leaf leaf)
{
    if (file->leaves == file->leaf_room) {
        int room = file->leaf_room == 0 ? 64 : 2 * file->leaf_room;
        struct pt_leaf *grown = reallocarray(file->leaf, (size_t)room, sizeof(*grown));

        if (grown == NULL)
            return no_memory(file);
        file->leaf = grown;
        file->leaf_room = room;
    }
    file->leaf[file->leaves++] = leaf;
    return TD_OK;
}

static bool all_are(const struct pickle_value *list, enum pickle_kind kind)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->item[i]->kind != kind)
            return false;
    return true;
}

/* A list of numbers, or of texts. */
static int add_row(pt_t *file, const char *name, const struct pickle_value *list)
{
    bool are_texts = list->count > 0 && list->item[0]->kind == PICKLE_TEXT;
    struct pt_leaf leaf = {.name = name, .kind = are_texts ? PT_TEXTS : PT_INTS, .count = (int)list->count};
    const char **texts = are_texts ? pickle_memory(file->pickle, list->count * sizeof(*texts)) : NULL;
    int64_t *ints = are_texts ? NULL : pickle_memory(file->pickle, list->count * sizeof(*ints) + 1);

    if (texts == NULL && ints == NULL)
        return no_memory(file);
    for (uint32_t i = 0; i < list->count; i++)
        if (are_texts)
            texts[i] = list->item[i]->text;
        else
            ints[i] = list->item[i]->integer;
    leaf.texts = texts;
    leaf.ints = ints;
    return add_leaf(file, leaf);
}

/* --- the walk -------------------------------------------------------------------- */

static int walk(pt_t *file, const char *name, const struct pickle_value *value, int depth);

static int walk_dict(pt_t *file, const char *name, const struct pickle_value *dict, int depth)
{
    const char *inside;
    char number[32];
    int rc = TD_OK;

    for (uint32_t i = 0; rc == TD_OK && i + 1 < dict->count; i += 2) {
        const struct pickle_value *key = dict->item[i];

        snprintf(number, sizeof(number), "%lld", key->kind == PICKLE_INT ? (long long)key->integer : 0);
        if (key->kind != PICKLE_TEXT && key->kind != PICKLE_INT)
            return refuse(file, name, "has a key that is neither text nor number");
        if (key->kind == PICKLE_TEXT && strlen(key->text) != key->count)
            return refuse(file, name, "has a key with a zero byte in it");
        rc = join(file, &inside, name, key->kind == PICKLE_TEXT ? key->text : number);
        if (rc == TD_OK)
            rc = walk(file, inside, dict->item[i + 1], depth + 1);
    }
    return rc;
}

static int walk_list(pt_t *file, const char *name, const struct pickle_value *list, int depth)
{
    const char *inside;
    char number[32];
    int rc = TD_OK;

    if (all_are(list, PICKLE_INT) || all_are(list, PICKLE_TEXT))
        return add_row(file, name, list);
    for (uint32_t i = 0; rc == TD_OK && i < list->count; i++) {
        snprintf(number, sizeof(number), "[%u]", i);
        rc = join(file, &inside, name, number);
        if (rc == TD_OK)
            rc = walk(file, inside, list->item[i], depth + 1);
    }
    return rc;
}

/* A member of an object's state that is walked as if it stood in the object's place, or below it. */
static int walk_member(pt_t *file, const char *name, const struct pickle_value *state, const char *key, bool below,
                       int depth)
{
    const struct pickle_value *member = pickle_dict_find(state, key);
    const char *inside = name;
    int rc;

    if (member == NULL)
        return TD_OK;
    if (below && (rc = join(file, &inside, name, key)) != TD_OK)
        return rc;
    return walk(file, inside, member, depth + 1);
}

static int walk_object(pt_t *file, const char *name, const struct pickle_value *object, int depth)
{
    const struct pickle_value *state = object->item[2], *inner;
    int rc;

    if (object->item[0]->kind != PICKLE_GLOBAL || state == NULL || state->kind != PICKLE_DICT)
        return refuse(file, name, "is an object without a state that is understood");
    switch (object->item[0]->global->role) {
    case PICKLE_TENSORDICT:
        inner = pickle_dict_find(state, "_tensordict");
        if (inner == NULL || inner->kind != PICKLE_DICT)
            return refuse(file, name, "is a TensorDict without its dict");
        if ((rc = walk_dict(file, name, inner, depth)) != TD_OK)
            return rc;
        return walk_member(file, name, state, "_batch_size", true, depth);
    case PICKLE_LAZY_STACK:
        inner = pickle_dict_find(state, "tensordicts");
        if (inner == NULL || inner->kind != PICKLE_LIST)
            return refuse(file, name, "is a stack without its list");
        if ((rc = walk_list(file, name, inner, depth)) != TD_OK)
            return rc;
        return walk_member(file, name, state, "stack_dim", true, depth);
    case PICKLE_PARAMETERS:
        return walk_member(file, name, state, "_param_td", false, depth);
    case PICKLE_NON_TENSOR:
        inner = pickle_dict_find(state, "non_tensordict");
        if (inner == NULL)
            inner = pickle_dict_find(state, "_non_tensordict");
        return inner == NULL ? TD_OK : walk_member(file, name, inner, "data", false, depth);
    default:
        return refuse(file, name, "is an object of a kind that is not read");
    }
}

static int walk(pt_t *file, const char *name, const struct pickle_value *value, int depth)
{
    struct pt_leaf leaf = {.name = name};

    if (depth > PT_DEPTH_MAX)
        return refuse(file, name, "is nested too deeply");
    if (++file->steps > STEPS_MAX || file->tensors + file->leaves >= PT_LEAVES_MAX)
        return refuse(file, NULL, "it holds too many values");
    switch (value->kind) {
    case PICKLE_DICT:
        if (value->count > 0)
            return walk_dict(file, name, value, depth);
        leaf.kind = PT_EMPTY;
        break;
    case PICKLE_LIST: return walk_list(file, name, value, depth);
    case PICKLE_OBJECT: return walk_object(file, name, value, depth);
    case PICKLE_TENSOR: return add_tensor(file, name, value->tensor);
    case PICKLE_NONE: leaf.kind = PT_NONE; break;
    case PICKLE_BOOL: leaf.kind = PT_BOOL, leaf.integer = value->integer; break;
    case PICKLE_INT: leaf.kind = PT_INT, leaf.integer = value->integer; break;
    case PICKLE_REAL: leaf.kind = PT_REAL, leaf.real = value->real; break;
    case PICKLE_TEXT: leaf.kind = PT_TEXT, leaf.text = value->text; break;
    case PICKLE_GLOBAL: leaf.kind = PT_TEXT, leaf.text = value->global->name; break;
    default: return refuse(file, name, "is of a kind that is not read");
    }
    return add_leaf(file, leaf);
}

/* --- by name --------------------------------------------------------------------- */

static int by_tensor(const void *a, const void *b)
{
    return strcmp((*(const struct pt_tensor *const *)a)->name, (*(const struct pt_tensor *const *)b)->name);
}

static int by_leaf(const void *a, const void *b)
{
    return strcmp((*(const struct pt_leaf *const *)a)->name, (*(const struct pt_leaf *const *)b)->name);
}

static int sort_names(pt_t *file)
{
    file->tensor_named = calloc((size_t)file->tensors + 1, sizeof(*file->tensor_named));
    file->leaf_named = calloc((size_t)file->leaves + 1, sizeof(*file->leaf_named));
    if (file->tensor_named == NULL || file->leaf_named == NULL)
        return no_memory(file);
    for (int i = 0; i < file->tensors; i++)
        file->tensor_named[i] = &file->tensor[i];
    for (int i = 0; i < file->leaves; i++)
        file->leaf_named[i] = &file->leaf[i];
    qsort(file->tensor_named, (size_t)file->tensors, sizeof(*file->tensor_named), by_tensor);
    qsort(file->leaf_named, (size_t)file->leaves, sizeof(*file->leaf_named), by_leaf);
    for (int i = 1; i < file->tensors; i++)
        if (by_tensor(&file->tensor_named[i - 1], &file->tensor_named[i]) == 0)
            return refuse(file, file->tensor_named[i]->name, "occurs twice");
    for (int i = 1; i < file->leaves; i++)
        if (by_leaf(&file->leaf_named[i - 1], &file->leaf_named[i]) == 0)
            return refuse(file, file->leaf_named[i]->name, "occurs twice");
    for (int i = 0; i < file->leaves; i++)
        if (pt_find(file, file->leaf[i].name) != NULL)
            return refuse(file, file->leaf[i].name, "occurs twice");
    return TD_OK;
}

const struct pt_tensor *pt_find(const pt_t *file, const char *name)
{
    const struct pt_tensor key = {.name = name}, *at = &key, **found;

    if (file->tensors == 0)
        return NULL;
    found = bsearch(&at, file->tensor_named, (size_t)file->tensors, sizeof(at), by_tensor);
    return found == NULL ? NULL : *found;
}

const struct pt_leaf *pt_leaf(const pt_t *file, const char *name)
{
    const struct pt_leaf key = {.name = name}, *at = &key, **found;

    if (file->leaves == 0)
        return NULL;
    found = bsearch(&at, file->leaf_named, (size_t)file->leaves, sizeof(at), by_leaf);
    return found == NULL ? NULL : *found;
}

/* --- opening --------------------------------------------------------------------- */

bool pt_looks_like(const char *path)
{
    static const char before_1_6[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46"; /* its magic number, pickled */
    const char *dot = strrchr(path, '.');
    char start[9] = {0}; /* of a safetensors file: the length of its header, then the brace that begins it */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us */
    ssize_t got = fd >= 0 ? pread(fd, start, sizeof(start), 0) : -1;

    if (fd >= 0)
        close(fd);
    return got >= 0 && (memcmp(start, "PK\3\4", 4) == 0 || memcmp(start, "PK\5\6", 4) == 0 ||
                        memcmp(start, before_1_6, 8) == 0 || (start[8] != '{' && dot != NULL && strcmp(dot, ".pt") == 0));
}

/* All entries lie in one folder: the one of data.pkl. */
static int find_pickle(pt_t *file, const struct zip_entry **entry)
{
    *entry = NULL;
    for (int i = 0; i < file->zip.count; i++) {
        const struct zip_entry *at = &file->zip.entry[i];
        const char *slash = strchr(at->name, '/');

        if (slash == NULL || strcmp(slash, "/data.pkl") != 0)
            continue;
        if (*entry != NULL)
            return refuse(file, NULL, "it holds more than one data.pkl");
        *entry = at;
        snprintf(file->prefix, sizeof(file->prefix), "%.*s", (int)(slash + 1 - at->name), at->name);
    }
    if (*entry == NULL)
        return refuse(file, NULL, "no data.pkl is in it: it was not written by torch.save, or its tensors lie elsewhere");
    for (int i = 0; i < file->zip.count; i++)
        if (strncmp(file->zip.entry[i].name, file->prefix, strlen(file->prefix)) != 0)
            return refuse(file, file->zip.entry[i].name, "does not lie beside data.pkl");
    if ((*entry)->length > PT_PICKLE_MAX)
        return refuse(file, NULL, "its data.pkl is longer than 16 MiB");
    return TD_OK;
}

static int check_byte_order(pt_t *file)
{
    char path[ZIP_NAME_MAX + 32], order[6];
    const struct zip_entry *entry;
    int rc;

    snprintf(path, sizeof(path), "%sbyteorder", file->prefix);
    entry = zip_find(&file->zip, path);
    if (entry == NULL) /* PyTorch before 2.1 */
        return TD_OK;
    if (entry->length != 6 && entry->length != 3)
        return refuse(file, NULL, "its byte order is neither little nor big");
    if ((rc = read_at(file, order, entry->length, entry->offset, file->err)) != TD_OK)
        return rc;
    if (entry->length != 6 || memcmp(order, "little", 6) != 0)
        return refuse(file, NULL, "its numbers are not little-endian");
    return TD_OK;
}

/* PyTorch can be told to leave checksums out: they are 0 then. */
static bool checksum_fits(const struct zip_entry *entry, uint32_t crc)
{
    return entry->crc == crc || entry->crc == 0;
}

static int read_pickle(pt_t *file)
{
    const struct zip_entry *entry;
    const struct pickle_value *root;
    char *bytes;
    int rc = find_pickle(file, &entry);

    if (rc != TD_OK || (rc = check_byte_order(file)) != TD_OK)
        return rc;
    bytes = malloc((size_t)entry->length + 1);
    if (bytes == NULL)
        return no_memory(file);
    rc = read_at(file, bytes, (size_t)entry->length, entry->offset, file->err);
    if (rc == TD_OK && !checksum_fits(entry, crc32_add(0, bytes, (size_t)entry->length)))
        rc = refuse(file, NULL, "its data.pkl does not fit its checksum");
    if (rc == TD_OK)
        rc = pickle_load(&file->pickle, &root, bytes, (size_t)entry->length, file->path, file->err);
    free(bytes);
    if (rc == TD_OK)
        rc = walk(file, "", root, 0);
    return rc == TD_OK ? sort_names(file) : rc;
}

static int open_file(pt_t *file, const char *path)
{
    uint64_t bytes;
    int rc;

    file->path = strdup(path);
    if (file->path == NULL)
        return error_set(file->err, TD_ENOMEM, "out of memory reading %s", path);
    if ((rc = fs_open_file(&file->fd, &bytes, path, file->err)) != TD_OK ||
        (rc = zip_read(&file->zip, file->fd, bytes, path, file->err)) != TD_OK)
        return rc;
    return read_pickle(file);
}

int pt_open(pt_t **out, const char *path, struct error *err)
{
    pt_t *file = calloc(1, sizeof(*file));
    int rc;

    *out = NULL;
    if (file == NULL)
        return error_set(err, TD_ENOMEM, "out of memory reading %s", path);
    file->fd = -1;
    file->err = err;
    rc = open_file(file, path);
    file->err = NULL;
    if (rc == TD_OK)
        *out = file;
    else
        pt_close(&file);
    return rc;
}

void pt_close(pt_t **pointer)
{
    pt_t *file = *pointer;

    *pointer = NULL;
    if (file == NULL)
        return;
    if (file->fd >= 0)
        close(file->fd);
    zip_release(&file->zip);
    pickle_release(&file->pickle);
    free(file->tensor);
    free(file->leaf);
    free(file->tensor_named);
    free(file->leaf_named);
    free(file->path);
    free(file);
}

int pt_count(const pt_t *file)
{
    return file->tensors;
}

const struct pt_tensor *pt_at(const pt_t *file, int index)
{
    TD_ASSERT(index >= 0 && index < file->tensors, "%d of %d", index, file->tensors);
    return &file->tensor[index];
}

int pt_leaves(const pt_t *file)
{
    return file->leaves;
}

const struct pt_leaf *pt_leaf_at(const pt_t *file, int index)
{
    TD_ASSERT(index >= 0 && index < file->leaves, "%d of %d", index, file->leaves);
    return &file->leaf[index];
}

uint64_t pt_storage_bytes(const pt_t *file, int storage)
{
    TD_ASSERT(storage >= 0 && storage < file->zip.count, "%d of %d", storage, file->zip.count);
    return file->zip.entry[storage].length;
}

uint64_t pt_bytes(const pt_t *file)
{
    size_t prefix = strlen(file->prefix);
    uint64_t bytes = 0;

    for (int i = 0; i < file->zip.count; i++)
        if (strncmp(file->zip.entry[i].name + prefix, "data/", 5) == 0)
            bytes += file->zip.entry[i].length;
    return bytes;
}

/* --- reading --------------------------------------------------------------------- */

/* `count` elements, `stride` apart, from `offset` on. */
static int read_run(const pt_t *file, char *out, uint64_t offset, uint64_t count, uint64_t stride, size_t size,
                    struct error *err)
{
    char piece[PIECE];
    int rc;

    if (stride == 1)
        return read_at(file, out, (size_t)(count * size), offset, err);
    while (count > 0) {
        /* As many as one piece spans; where they lie farther apart than that, one. */
        uint64_t apart = stride * size, here = apart == 0 ? count : (PIECE - size) / apart + 1;

        if (here > count)
            here = count;
        if ((rc = read_at(file, piece, (size_t)((here - 1) * apart + size), offset, err)) != TD_OK)
            return rc;
        for (uint64_t i = 0; i < here; i++, out += size)
            memcpy(out, piece + i * apart, size);
        offset += here * apart;
        count -= here;
    }
    return TD_OK;
}

int pt_read(const pt_t *file, const struct pt_tensor *tensor, uint64_t first, uint64_t count, void *out,
            struct error *err)
{
    size_t size = safetensors_type_size(tensor->type);
    uint64_t inner = tensor->dims == 0 ? 1 : tensor->shape[tensor->dims - 1];
    char *next = out;
    int rc;

    TD_ASSERT(first <= tensor->elements && count <= tensor->elements - first, "range outside %s", tensor->name);
    if (tensor->contiguous)
        return read_at(file, out, (size_t)(count * size), tensor->offset + first * size, err);
    while (count > 0) {
        uint64_t rest = first / inner, column = first % inner, offset, run = inner - column;

        offset = column * tensor->stride[tensor->dims - 1];
        for (int i = tensor->dims - 2; i >= 0; i--) {
            offset += rest % tensor->shape[i] * tensor->stride[i];
            rest /= tensor->shape[i];
        }
        if (run > count)
            run = count;
        rc = read_run(file, next, tensor->offset + offset * size, run, tensor->stride[tensor->dims - 1], size, err);
        if (rc != TD_OK)
            return rc;
        next += run * size;
        first += run;
        count -= run;
    }
    return TD_OK;
}

int pt_verify(const pt_t *file, const struct pt_tensor *tensor, struct error *err)
{
    const struct zip_entry *entry = &file->zip.entry[tensor->storage];
    char piece[PIECE];
    uint32_t crc = 0;
    int rc;

    for (uint64_t done = 0; done < entry->length;) {
        size_t here = entry->length - done < PIECE ? (size_t)(entry->length - done) : PIECE;

        if ((rc = read_at(file, piece, here, entry->offset + done, err)) != TD_OK)
            return rc;
        crc = crc32_add(crc, piece, here);
        done += here;
    }
    if (!checksum_fits(entry, crc))
        return error_set(err, TD_ECORRUPT, "%s is damaged: the storage of %.100s does not fit its checksum", file->path,
                         tensor->name);
    return TD_OK;
}
