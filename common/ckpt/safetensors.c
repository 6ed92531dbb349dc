#include "common/ckpt/safetensors.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "common/util/json.h"

#define PIECE ((size_t)1 << 20) /* bytes per write */

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [SAFETENSORS_BOOL] = {"BOOL", 1}, [SAFETENSORS_U8] = {"U8", 1},
    [SAFETENSORS_I8] = {"I8", 1},     [SAFETENSORS_U16] = {"U16", 2},
    [SAFETENSORS_I16] = {"I16", 2},   [SAFETENSORS_F16] = {"F16", 2},
    [SAFETENSORS_BF16] = {"BF16", 2}, [SAFETENSORS_U32] = {"U32", 4},
    [SAFETENSORS_I32] = {"I32", 4},   [SAFETENSORS_F32] = {"F32", 4},
    [SAFETENSORS_U64] = {"U64", 8},   [SAFETENSORS_I64] = {"I64", 8},
    [SAFETENSORS_F64] = {"F64", 8},
};

struct safetensors {
    int fd;
    uint64_t data_start; /* file offset of the data section */
    uint64_t data_bytes;
    cJSON *header; /* owns every name and note */
    int count, notes;
    struct safetensors_tensor *tensors;  /* [count], by offset */
    struct safetensors_tensor **by_name; /* [count], sorted */
    struct safetensors_note *note;       /* [notes] */
    char *path;
};

size_t safetensors_type_size(enum safetensors_type type)
{
    TD_ASSERT((size_t)type < TD_LEN(types), "type %d", (int)type);
    return types[type].size;
}

const char *safetensors_type_name(enum safetensors_type type)
{
    TD_ASSERT((size_t)type < TD_LEN(types), "type %d", (int)type);
    return types[type].name;
}

uint64_t safetensors_elements(const struct safetensors_tensor *tensor)
{
    uint64_t count = 1;

    for (int i = 0; i < tensor->dims; i++)
        count *= tensor->shape[i];
    return count;
}

/* --- reading ----------------------------------------------------------------------------------- */

static int corrupt(const safetensors_t *file, struct error *err, const char *name, const char *why)
{
    if (name == NULL)
        return error_set(err, TD_ECORRUPT, "%s is not a valid safetensors file: %s", file->path, why);
    return error_set(err, TD_ECORRUPT, "%s is not a valid safetensors file: tensor %.100s: %s",
                     file->path, name, why);
}

/* Exactly `length` bytes at `offset`; a short file is corrupt. */
static int read_at(const safetensors_t *file, void *out, uint64_t length, uint64_t offset,
                   struct error *err)
{
    char *next = out;

    while (length > 0) {
        size_t want = length < ((uint64_t)1 << 30) ? (size_t)length : (size_t)1 << 30;
        ssize_t got = pread(file->fd, next, want, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(err, TD_EIO, errno, "cannot read %s", file->path);
        if (got == 0)
            return corrupt(file, err, NULL, "it ends in the middle of its data");
        next += got;
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
    return TD_OK;
}

/* A JSON number as a count that a double holds exactly. */
static int json_count(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > 0x1p53 ||
        item->valuedouble != floor(item->valuedouble))
        return TD_ECORRUPT;
    *out = (uint64_t)item->valuedouble;
    return TD_OK;
}

static int parse_type(const cJSON *item, enum safetensors_type *type)
{
    if (!cJSON_IsString(item))
        return TD_ECORRUPT;
    for (size_t i = 0; i < TD_LEN(types); i++)
        if (strcmp(item->valuestring, types[i].name) == 0) {
            *type = (enum safetensors_type)i;
            return TD_OK;
        }
    return TD_ECORRUPT;
}

/* Reads the dimensions and leaves in *bytes what they take; refuses what would overflow. */
static int parse_shape(const cJSON *item, struct safetensors_tensor *tensor, uint64_t *bytes)
{
    const cJSON *dim;

    *bytes = safetensors_type_size(tensor->type);
    if (!cJSON_IsArray(item))
        return TD_ECORRUPT;
    cJSON_ArrayForEach(dim, item)
    {
        if (tensor->dims == SAFETENSORS_DIMS_MAX ||
            json_count(dim, &tensor->shape[tensor->dims]) != TD_OK)
            return TD_ECORRUPT;
        if (__builtin_mul_overflow(*bytes, tensor->shape[tensor->dims], bytes))
            return TD_ECORRUPT;
        tensor->dims++;
    }
    return TD_OK;
}

static int parse_tensor(const safetensors_t *file, const cJSON *item,
                        struct safetensors_tensor *tensor, struct error *err)
{
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    uint64_t bytes, end;

    *tensor = (struct safetensors_tensor){.name = item->string};
    if (!cJSON_IsObject(item))
        return corrupt(file, err, item->string, "its entry is not an object");
    if (parse_type(cJSON_GetObjectItemCaseSensitive(item, "dtype"), &tensor->type))
        return corrupt(file, err, item->string, "its dtype is missing or unknown");
    if (parse_shape(cJSON_GetObjectItemCaseSensitive(item, "shape"), tensor, &bytes))
        return corrupt(file, err, item->string, "its shape is missing or impossible");
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        json_count(offsets->child, &tensor->offset) || json_count(offsets->child->next, &end))
        return corrupt(file, err, item->string, "its data_offsets are missing or impossible");
    if (tensor->offset > end || end > file->data_bytes)
        return corrupt(file, err, item->string, "its data lies outside the file");
    tensor->bytes = end - tensor->offset;
    if (tensor->bytes != bytes)
        return corrupt(file, err, item->string, "its shape and its data_offsets disagree");
    return TD_OK;
}

static int parse_notes(safetensors_t *file, const cJSON *object, struct error *err)
{
    const cJSON *item;

    if (object == NULL)
        return TD_OK;
    if (!cJSON_IsObject(object))
        return corrupt(file, err, NULL, "__metadata__ is not an object");
    if (file->note != NULL)
        return corrupt(file, err, NULL, "__metadata__ appears twice");
    file->note = calloc((size_t)cJSON_GetArraySize(object) + 1, sizeof(*file->note));
    if (file->note == NULL)
        return TD_ENOMEM;
    cJSON_ArrayForEach(item, object)
    {
        if (!cJSON_IsString(item))
            return corrupt(file, err, NULL, "__metadata__ holds something other than strings");
        file->note[file->notes++] =
            (struct safetensors_note){.key = item->string, .value = item->valuestring};
    }
    return TD_OK;
}

static int order_by_offset(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors first */
}

static int order_by_name(const void *a, const void *b)
{
    const struct safetensors_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* Names distinct, data tiled without hole or overlap. */
static int check_table(safetensors_t *file, struct error *err)
{
    uint64_t end = 0;

    qsort(file->tensors, (size_t)file->count, sizeof(*file->tensors), order_by_offset);
    for (int i = 0; i < file->count; i++) {
        if (file->tensors[i].offset != end)
            return corrupt(file, err, file->tensors[i].name, "its data overlaps another or leaves a hole");
        end += file->tensors[i].bytes;
        file->by_name[i] = &file->tensors[i];
    }
    if (end != file->data_bytes)
        return corrupt(file, err, NULL, "bytes follow the last tensor");
    qsort(file->by_name, (size_t)file->count, sizeof(*file->by_name), order_by_name);
    for (int i = 1; i < file->count; i++)
        if (strcmp(file->by_name[i - 1]->name, file->by_name[i]->name) == 0)
            return corrupt(file, err, file->by_name[i]->name, "the name appears twice");
    return TD_OK;
}

static int parse_header(safetensors_t *file, struct error *err)
{
    size_t entries = (size_t)cJSON_GetArraySize(file->header);
    const cJSON *item;
    int rc;

    file->tensors = calloc(entries + 1, sizeof(*file->tensors));
    file->by_name = calloc(entries + 1, sizeof(*file->by_name));
    if (file->tensors == NULL || file->by_name == NULL)
        return error_set(err, TD_ENOMEM, "out of memory reading %s", file->path);
    cJSON_ArrayForEach(item, file->header)
    {
        if (strcmp(item->string, "__metadata__") == 0)
            rc = parse_notes(file, item, err);
        else
            rc = parse_tensor(file, item, &file->tensors[file->count++], err);
        if (rc != TD_OK)
            return rc;
    }
    return check_table(file, err);
}

/* The length prefix and the JSON behind it. */
static int read_header(safetensors_t *file, uint64_t file_bytes, struct error *err)
{
    unsigned char prefix[8];
    uint64_t length = 0;
    char *text;
    int rc;

    if (file_bytes < sizeof(prefix))
        return corrupt(file, err, NULL, "it is shorter than its length prefix");
    if ((rc = read_at(file, prefix, sizeof(prefix), 0, err)))
        return rc;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | prefix[i];
    if (length > file_bytes - sizeof(prefix))
        return corrupt(file, err, NULL, "its header is longer than the file");
    if (length > SAFETENSORS_HEADER_MAX)
        return corrupt(file, err, NULL, "its header is longer than 16 MiB");
    text = malloc((size_t)length + 1);
    if (text == NULL)
        return error_set(err, TD_ENOMEM, "out of memory reading %s", file->path);
    rc = read_at(file, text, length, sizeof(prefix), err);
    text[length] = '\0';
    if (rc == TD_OK) {
        rc = json_parse(&file->header, text, (size_t)length, true);
        if (rc == TD_ENOMEM)
            error_set(err, rc, "out of memory reading %s", file->path);
        else if (!cJSON_IsObject(file->header) || text[0] != '{' || strlen(text) != length)
            rc = corrupt(file, err, NULL, "its header is not one JSON object");
    }
    free(text);
    file->data_start = sizeof(prefix) + length;
    file->data_bytes = file_bytes - file->data_start;
    return rc;
}

static int open_file(safetensors_t *file, const char *path, struct error *err)
{
    uint64_t bytes;
    int rc;

    if ((file->path = strdup(path)) == NULL)
        return TD_ENOMEM;
    if ((rc = fs_open_file(&file->fd, &bytes, path, err)) != TD_OK || (rc = read_header(file, bytes, err)) != TD_OK)
        return rc;
    return parse_header(file, err);
}

int safetensors_open(safetensors_t **out, const char *path, struct error *err)
{
    safetensors_t *file = calloc(1, sizeof(*file));
    int rc;

    *out = NULL;
    if (file == NULL)
        return error_set(err, TD_ENOMEM, "out of memory opening %s", path);
    file->fd = -1;
    if ((rc = open_file(file, path, err)) == TD_OK)
        *out = file;
    else
        safetensors_close(&file);
    return rc == TD_ENOMEM ? error_set(err, rc, "out of memory reading %s", path) : rc;
}

void safetensors_close(safetensors_t **pointer)
{
    safetensors_t *file = *pointer;

    *pointer = NULL;
    if (file == NULL)
        return;
    if (file->fd >= 0)
        close(file->fd);
    cJSON_Delete(file->header);
    free(file->tensors);
    free(file->by_name);
    free(file->note);
    free(file->path);
    free(file);
}

int safetensors_count(const safetensors_t *file)
{
    return file->count;
}

const struct safetensors_tensor *safetensors_at(const safetensors_t *file, int index)
{
    TD_ASSERT(index >= 0 && index < file->count, "%d of %d", index, file->count);
    return &file->tensors[index];
}

int safetensors_notes(const safetensors_t *file)
{
    return file->notes;
}

const struct safetensors_note *safetensors_note_at(const safetensors_t *file, int index)
{
    TD_ASSERT(index >= 0 && index < file->notes, "%d of %d", index, file->notes);
    return &file->note[index];
}

const struct safetensors_tensor *safetensors_find(const safetensors_t *file, const char *name)
{
    struct safetensors_tensor wanted = {.name = name}, *key = &wanted, **found;

    if (file->count == 0)
        return NULL;
    found = bsearch(&key, file->by_name, (size_t)file->count, sizeof(*file->by_name), order_by_name);
    return found == NULL ? NULL : *found;
}

const char *safetensors_note(const safetensors_t *file, const char *key)
{
    for (int i = 0; i < file->notes; i++)
        if (strcmp(file->note[i].key, key) == 0)
            return file->note[i].value;
    return NULL;
}

int safetensors_read(const safetensors_t *file, const struct safetensors_tensor *tensor, void *out,
                     struct error *err)
{
    return read_at(file, out, tensor->bytes, file->data_start + tensor->offset, err);
}

int safetensors_read_part(const safetensors_t *file, const struct safetensors_tensor *tensor, uint64_t from,
                          uint64_t length, void *out, struct error *err)
{
    TD_ASSERT(from <= tensor->bytes && length <= tensor->bytes - from, "bytes %llu+%llu of %llu",
              (unsigned long long)from, (unsigned long long)length, (unsigned long long)tensor->bytes);
    return read_at(file, out, length, file->data_start + tensor->offset + from, err);
}

/* "F32 [3, 4]" for messages. */
static const char *describe(char *out, size_t size, enum safetensors_type type, int dims,
                            const uint64_t *shape)
{
    int used = snprintf(out, size, "%s [", safetensors_type_name(type));

    for (int i = 0; i < dims && used < (int)size; i++)
        used += snprintf(out + used, size - (size_t)used, "%s%llu", i == 0 ? "" : ", ",
                         (unsigned long long)shape[i]);
    if (used < (int)size)
        snprintf(out + used, size - (size_t)used, "]");
    return out;
}

int safetensors_get(const safetensors_t *file, const char *name, enum safetensors_type type, int dims,
                    const uint64_t *shape, void *out, struct error *err)
{
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    int same;

    if (tensor == NULL)
        return error_set(err, TD_ENOTFOUND, "%s has no tensor %s", file->path, name);
    same = tensor->type == type;
    if (dims < 0)
        same = same && safetensors_elements(tensor) == shape[0];
    else
        same = same && tensor->dims == dims;
    for (int i = 0; same && i < dims; i++)
        same = tensor->shape[i] == shape[i];
    if (!same) {
        char found[160], wanted[160];

        return error_set(err, TD_EINVAL, "%s: tensor %s is %s, expected %s%s", file->path, name,
                         describe(found, sizeof(found), tensor->type, tensor->dims, tensor->shape),
                         describe(wanted, sizeof(wanted), type, dims < 0 ? 1 : dims, shape),
                         dims < 0 ? " in any shape" : "");
    }
    return safetensors_read(file, tensor, out, err);
}

/* --- writing ----------------------------------------------------------------------------------- */

/* The header as JSON text, padded so that the data begins at a multiple of 8. The caller frees it. */
static char *make_header(const struct safetensors_tensor *tensors, int count,
                         const struct safetensors_note *notes, int note_count, size_t *length)
{
    cJSON *header = cJSON_CreateObject(), *object;
    double offset = 0;
    char *text = NULL, *padded;
    int ok = header != NULL;

    if (ok && note_count > 0) {
        object = cJSON_AddObjectToObject(header, "__metadata__");
        ok = object != NULL;
        for (int i = 0; ok && i < note_count; i++)
            ok = cJSON_AddStringToObject(object, notes[i].key, notes[i].value) != NULL;
    }
    for (int i = 0; ok && i < count; i++) {
        double bytes = (double)(safetensors_elements(&tensors[i]) * safetensors_type_size(tensors[i].type));
        double offsets[2] = {offset, offset + bytes};
        cJSON *shape, *pair;

        object = cJSON_AddObjectToObject(header, tensors[i].name);
        ok = object != NULL && cJSON_AddStringToObject(object, "dtype", types[tensors[i].type].name) &&
             (shape = cJSON_AddArrayToObject(object, "shape")) != NULL;
        for (int j = 0; ok && j < tensors[i].dims; j++)
            ok = cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)tensors[i].shape[j]));
        ok = ok && (pair = cJSON_CreateDoubleArray(offsets, 2)) != NULL &&
             cJSON_AddItemToObject(object, "data_offsets", pair);
        offset += bytes;
    }
    if (ok)
        text = cJSON_PrintUnformatted(header);
    cJSON_Delete(header);
    if (text == NULL)
        return NULL;
    *length = (strlen(text) + 7) / 8 * 8;
    padded = malloc(*length + 1);
    if (padded != NULL)
        snprintf(padded, *length + 1, "%-*s", (int)*length, text);
    cJSON_free(text);
    return padded;
}

struct sink {
    int fd;
    const char *path;
    uint64_t done, total;
    safetensors_progress *progress;
    void *context;
};

static int sink_write(struct sink *sink, const void *bytes, uint64_t length, struct error *err)
{
    const char *next = bytes;

    while (length > 0) {
        size_t piece = length < PIECE ? (size_t)length : PIECE;
        ssize_t put = write(sink->fd, next, piece);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return error_set_errno(err, errno == ENOSPC || errno == EDQUOT ? TD_EFULL : TD_EIO, errno,
                                   "cannot write %s", sink->path);
        next += put;
        length -= (uint64_t)put;
        sink->done += (uint64_t)put;
        if (sink->progress != NULL && sink->progress(sink->context, sink->done, sink->total) != 0)
            return error_set(err, TD_EAGAIN, "writing %s was cancelled", sink->path);
    }
    return TD_OK;
}

/* From its file, piece by piece. */
static int sink_copy(struct sink *sink, const spill_t *file, uint64_t from, uint64_t length, struct error *err)
{
    char *piece = malloc(PIECE);
    int rc = piece == NULL ? error_set(err, TD_ENOMEM, "out of memory writing %s", sink->path) : TD_OK;

    while (rc == TD_OK && length > 0) {
        size_t some = length < PIECE ? (size_t)length : PIECE;

        if ((rc = spill_read(file, from, piece, some, err)) == TD_OK)
            rc = sink_write(sink, piece, some, err);
        from += some;
        length -= some;
    }
    free(piece);
    return rc;
}

static int write_all(struct sink *sink, const char *header, size_t header_bytes,
                     const struct safetensors_tensor *tensors, int count, struct error *err)
{
    unsigned char prefix[8];
    int rc;

    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
    if ((rc = sink_write(sink, prefix, sizeof(prefix), err)) ||
        (rc = sink_write(sink, header, header_bytes, err)))
        return rc;
    for (int i = 0; i < count; i++) {
        uint64_t bytes = safetensors_elements(&tensors[i]) * safetensors_type_size(tensors[i].type);

        rc = tensors[i].file != NULL ? sink_copy(sink, tensors[i].file, tensors[i].offset, bytes, err)
                                     : sink_write(sink, tensors[i].data, bytes, err);
        if (rc != TD_OK)
            return rc;
    }
    if (fsync(sink->fd) != 0)
        return error_set_errno(err, errno == ENOSPC || errno == EDQUOT ? TD_EFULL : TD_EIO, errno,
                               "cannot sync %s", sink->path);
    return TD_OK;
}

/* Make the rename itself durable. */
static int sync_parent(const char *path, struct error *err)
{
    char *folder = strdup(path);
    char *slash = folder == NULL ? NULL : strrchr(folder, '/');
    int fd, rc = TD_OK;

    if (folder == NULL)
        return error_set(err, TD_ENOMEM, "out of memory writing %s", path);
    if (slash != NULL)
        slash[slash == folder] = '\0';
    fd = open(slash == NULL ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        rc = error_set_errno(err, TD_EIO, errno, "cannot sync the folder of %s", path);
    if (fd >= 0)
        close(fd);
    free(folder);
    return rc;
}

int safetensors_write(const char *path, const struct safetensors_tensor *tensors, int count,
                      const struct safetensors_note *notes, int note_count,
                      safetensors_progress *progress, void *context, struct error *err)
{
    size_t header_bytes = 0;
    char *header = make_header(tensors, count, notes, note_count, &header_bytes);
    struct sink sink = {.fd = -1, .path = path, .progress = progress, .context = context};
    char *beside = NULL;
    int rc = TD_ENOMEM;

    if (header == NULL || asprintf(&beside, "%s.XXXXXX", path) < 0) {
        beside = NULL;
        error_set(err, rc, "out of memory writing %s", path);
        goto done;
    }
    sink.total = 8 + header_bytes;
    for (int i = 0; i < count; i++)
        sink.total += safetensors_elements(&tensors[i]) * safetensors_type_size(tensors[i].type);
    sink.fd = mkostemp(beside, O_CLOEXEC);
    if (sink.fd < 0) {
        rc = error_set_errno(err, TD_EIO, errno, "cannot create a file beside %s", path);
        goto done;
    }
    (void)fchmod(sink.fd, 0644);
    rc = write_all(&sink, header, header_bytes, tensors, count, err);
    if (close(sink.fd) != 0 && rc == TD_OK)
        rc = error_set_errno(err, TD_EIO, errno, "cannot close %s", path);
    if (rc == TD_OK && rename(beside, path) != 0)
        rc = error_set_errno(err, TD_EIO, errno, "cannot rename to %s", path);
    if (rc != TD_OK)
        unlink(beside);
    else
        rc = sync_parent(path, err);

done:
    free(beside);
    free(header);
    return rc;
}
