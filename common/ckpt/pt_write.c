#include "common/ckpt/pt_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/crc.h"
#include "common/util/fs.h"

#define BUFFER_BYTES ((size_t)1 << 20)
#define ALIGNMENT    64u
#define NAME_BYTES   128u
#define ROOT_BYTES   64u
#define ZIP64        UINT32_MAX /* in the place of a size: the extra field has it */

struct entry {
    char name[NAME_BYTES];
    uint64_t header, bytes; /* where its local header begins; of its data */
    uint32_t crc;
};

struct storage {
    uint64_t bytes;
};

struct pt_writer {
    char *pickle;
    size_t length, capacity;
    struct storage *storages;
    int storage_count;
    size_t storage_capacity;
    bool failed; /* out of memory, or a name that does not fit */

    /* while it is saved */
    int fd;
    char path[FS_PATH_MAX]; /* of the file beside the target */
    char root[ROOT_BYTES];
    char *buffer;
    size_t buffered;
    uint64_t at; /* bytes written, buffered ones too */
    struct entry *entries;
    int entry_count;
    uint64_t left; /* of the entry under way */
};

int pt_writer_create(pt_writer_t **out)
{
    *out = calloc(1, sizeof(**out));
    if (*out == NULL)
        return TD_ENOMEM;
    (*out)->fd = -1;
    return TD_OK;
}

void pt_writer_destroy(pt_writer_t **writer)
{
    if (*writer == NULL)
        return;
    free((*writer)->pickle);
    free((*writer)->storages);
    free(*writer);
    *writer = NULL;
}

/* --- the pickle ------------------------------------------------------------ */

static void put(pt_writer_t *writer, const void *bytes, size_t length)
{
    if (writer->length + length > writer->capacity) {
        size_t capacity = 2 * (writer->length + length) + 1024;
        char *grown = realloc(writer->pickle, capacity);

        if (grown == NULL) {
            writer->failed = true;
            return;
        }
        writer->pickle = grown;
        writer->capacity = capacity;
    }
    memcpy(writer->pickle + writer->length, bytes, length);
    writer->length += length;
}

static void put_op(pt_writer_t *writer, const char *ops)
{
    put(writer, ops, strlen(ops));
}

void pt_put_none(pt_writer_t *writer)
{
    put_op(writer, "N");
}

void pt_put_bool(pt_writer_t *writer, bool value)
{
    put_op(writer, value ? "\x88" : "\x89");
}

void pt_put_int(pt_writer_t *writer, int64_t value)
{
    if (value >= 0 && value < 256) {
        put(writer, (char[]){'K', (char)value}, 2);
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
        put_op(writer, "J");
        put(writer, &(int32_t){(int32_t)value}, 4);
    } else {
        put_op(writer, "\x8a\x08"); /* LONG1 of 8 bytes */
        put(writer, &value, 8);
    }
}

void pt_put_real(pt_writer_t *writer, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    bits = __builtin_bswap64(bits); /* the one big-endian number of a pickle */
    put_op(writer, "G");
    put(writer, &bits, sizeof(bits));
}

void pt_put_text(pt_writer_t *writer, const char *text)
{
    put_op(writer, "X");
    put(writer, &(uint32_t){(uint32_t)strlen(text)}, 4);
    put_op(writer, text);
}

void pt_put_global(pt_writer_t *writer, const char *module, const char *name)
{
    put_op(writer, "c");
    put_op(writer, module);
    put_op(writer, "\n");
    put_op(writer, name);
    put_op(writer, "\n");
}

static void put_ints(pt_writer_t *writer, int count, const int64_t *ints)
{
    pt_put_tuple_begin(writer);
    for (int i = 0; i < count; i++)
        pt_put_int(writer, ints[i]);
    pt_put_tuple_end(writer);
}

void pt_put_size(pt_writer_t *writer, int count, const int64_t *sizes)
{
    pt_put_global(writer, "torch", "Size");
    put_ints(writer, count, sizes);
    put_op(writer, "\x85"); /* TUPLE1: the tuple is the one argument */
    pt_put_reduce(writer);
}

void pt_put_dict_begin(pt_writer_t *writer)
{
    put_op(writer, "}(");
}

void pt_put_dict_end(pt_writer_t *writer)
{
    put_op(writer, "u");
}

void pt_put_ordered_begin(pt_writer_t *writer)
{
    pt_put_global(writer, "collections", "OrderedDict");
    put_op(writer, ")R(");
}

void pt_put_tuple_begin(pt_writer_t *writer)
{
    put_op(writer, "(");
}

void pt_put_tuple_end(pt_writer_t *writer)
{
    put_op(writer, "t");
}

void pt_put_reduce(pt_writer_t *writer)
{
    put_op(writer, "R");
}

static const char *storage_name(enum safetensors_type type)
{
    switch (type) {
    case SAFETENSORS_BOOL: return "BoolStorage";
    case SAFETENSORS_U8: return "ByteStorage";
    case SAFETENSORS_I8: return "CharStorage";
    case SAFETENSORS_I16: return "ShortStorage";
    case SAFETENSORS_F16: return "HalfStorage";
    case SAFETENSORS_BF16: return "BFloat16Storage";
    case SAFETENSORS_I32: return "IntStorage";
    case SAFETENSORS_F32: return "FloatStorage";
    case SAFETENSORS_I64: return "LongStorage";
    case SAFETENSORS_F64: return "DoubleStorage";
    default: return NULL;
    }
}

static int add_storage(pt_writer_t *writer, uint64_t bytes)
{
    if ((size_t)writer->storage_count == writer->storage_capacity) {
        size_t capacity = 2 * writer->storage_capacity + 16;
        struct storage *grown = realloc(writer->storages, capacity * sizeof(*grown));

        if (grown == NULL) {
            writer->failed = true;
            return 0;
        }
        writer->storages = grown;
        writer->storage_capacity = capacity;
    }
    writer->storages[writer->storage_count].bytes = bytes;
    return writer->storage_count++;
}

int pt_put_tensor(pt_writer_t *writer, enum safetensors_type type, int dims, const uint64_t *shape)
{
    int64_t sizes[SAFETENSORS_DIMS_MAX], strides[SAFETENSORS_DIMS_MAX], elements = 1;
    const char *name = storage_name(type);
    char number[16];
    int storage;

    TD_ASSERT(name != NULL && dims <= SAFETENSORS_DIMS_MAX, "a tensor of type %d with %d dimensions", (int)type, dims);
    for (int i = dims - 1; i >= 0; i--) {
        sizes[i] = (int64_t)shape[i];
        strides[i] = elements;
        elements *= sizes[i];
    }
    storage = add_storage(writer, (uint64_t)elements * safetensors_type_size(type));
    snprintf(number, sizeof(number), "%d", storage);
    pt_put_global(writer, "torch._utils", "_rebuild_tensor_v2");
    put_op(writer, "((");
    pt_put_text(writer, "storage");
    pt_put_global(writer, "torch", name);
    pt_put_text(writer, number);
    pt_put_text(writer, "cpu");
    pt_put_int(writer, elements);
    put_op(writer, "tQ"); /* the persistent id: its storage */
    pt_put_int(writer, 0);
    put_ints(writer, dims, sizes);
    put_ints(writer, dims, strides);
    pt_put_bool(writer, false);
    pt_put_global(writer, "collections", "OrderedDict");
    put_op(writer, ")RtR");
    return storage;
}

/* --- the zip --------------------------------------------------------------- */

static int flush(pt_writer_t *writer, struct error *err)
{
    int rc = fs_write_all(writer->fd, writer->buffer, writer->buffered, writer->path, err);

    writer->buffered = 0;
    return rc;
}

static int emit(pt_writer_t *writer, const void *bytes, size_t length, struct error *err)
{
    const char *from = bytes;
    int rc;

    writer->at += length;
    while (length > 0) {
        size_t room = BUFFER_BYTES - writer->buffered, now = length < room ? length : room;

        memcpy(writer->buffer + writer->buffered, from, now);
        writer->buffered += now;
        from += now;
        length -= now;
        if (writer->buffered == BUFFER_BYTES && (rc = flush(writer, err)) != TD_OK)
            return rc;
    }
    return TD_OK;
}

/* Numbers of a header, one after the other. */
struct fields {
    char bytes[256];
    size_t length;
};

static void add_field(struct fields *fields, uint64_t value, size_t width)
{
    memcpy(fields->bytes + fields->length, &value, width); /* little-endian */
    fields->length += width;
}

static uint64_t clip(uint64_t value)
{
    return value < ZIP64 ? value : ZIP64;
}

/* From "version needed" to the sizes: what local and central header share. */
static void add_common(struct fields *fields, const struct entry *entry, bool large)
{
    add_field(fields, large ? 45 : 20, 2);
    add_field(fields, 0x0800, 2); /* names are UTF-8 */
    add_field(fields, 0, 2);      /* stored */
    add_field(fields, 0, 2);      /* no time, */
    add_field(fields, 0x21, 2);   /* the first of January 1980 */
    add_field(fields, entry->crc, 4);
    add_field(fields, clip(entry->bytes), 4);
    add_field(fields, clip(entry->bytes), 4);
    add_field(fields, strlen(entry->name), 2);
}

/* The local header, as long whatever its checksum: padded so that the data begin aligned. */
static void local_header(struct fields *fields, const struct entry *entry)
{
    bool large = entry->bytes >= ZIP64;
    size_t fixed = 30 + strlen(entry->name) + (large ? 20 : 0) + 4;
    size_t pad = (ALIGNMENT - (entry->header + fixed) % ALIGNMENT) % ALIGNMENT;

    fields->length = 0;
    add_field(fields, 0x04034b50, 4);
    add_common(fields, entry, large);
    add_field(fields, (large ? 20 : 0) + 4 + pad, 2);
    memcpy(fields->bytes + fields->length, entry->name, strlen(entry->name));
    fields->length += strlen(entry->name);
    if (large) {
        add_field(fields, 1, 2);
        add_field(fields, 16, 2);
        add_field(fields, entry->bytes, 8);
        add_field(fields, entry->bytes, 8);
    }
    add_field(fields, 0x4246, 2); /* "FB": PyTorch's padding */
    add_field(fields, pad, 2);
    memset(fields->bytes + fields->length, 'Z', pad);
    fields->length += pad;
}

/* Write the header again, with the checksum of what came behind it. */
static int mend_header(pt_writer_t *writer, const struct entry *entry, struct error *err)
{
    uint64_t begun = writer->at - writer->buffered; /* of the buffer, in the file */
    struct fields fields;

    local_header(&fields, entry);
    if (entry->header >= begun) { /* it is still there */
        memcpy(writer->buffer + (entry->header - begun), fields.bytes, fields.length);
        return TD_OK;
    }
    if (entry->header + fields.length > begun) {
        int rc = flush(writer, err);

        if (rc != TD_OK)
            return rc;
    }
    if (pwrite(writer->fd, fields.bytes, fields.length, (off_t)entry->header) != (ssize_t)fields.length)
        return error_set_errno(err, TD_EIO, errno, "cannot write %s", writer->path);
    return TD_OK;
}

static int begin_entry(pt_writer_t *writer, const char *name, uint64_t bytes, struct error *err)
{
    struct entry *entry = &writer->entries[writer->entry_count++];
    struct fields fields;

    *entry = (struct entry){.header = writer->at, .bytes = bytes};
    snprintf(entry->name, sizeof(entry->name), "%s/%s", writer->root, name);
    writer->left = bytes;
    local_header(&fields, entry);
    return emit(writer, fields.bytes, fields.length, err);
}

int pt_writer_bytes(pt_writer_t *writer, const void *bytes, size_t length, struct error *err)
{
    struct entry *entry = &writer->entries[writer->entry_count - 1];

    TD_ASSERT(length <= writer->left, "%zu bytes more for %s, which has %llu left", length, entry->name,
              (unsigned long long)writer->left);
    writer->left -= length;
    entry->crc = crc32_add(entry->crc, bytes, length);
    return emit(writer, bytes, length, err);
}

static int end_entry(pt_writer_t *writer, struct error *err)
{
    const struct entry *entry = &writer->entries[writer->entry_count - 1];

    TD_ASSERT(writer->left == 0, "%s lacks %llu bytes", entry->name, (unsigned long long)writer->left);
    return mend_header(writer, entry, err);
}

static int put_entry(pt_writer_t *writer, const char *name, const void *bytes, size_t length, struct error *err)
{
    int rc;

    if ((rc = begin_entry(writer, name, length, err)) != TD_OK ||
        (rc = pt_writer_bytes(writer, bytes, length, err)) != TD_OK)
        return rc;
    return end_entry(writer, err);
}

static int put_central(pt_writer_t *writer, const struct entry *entry, struct error *err)
{
    bool large = entry->bytes >= ZIP64, far = entry->header >= ZIP64;
    size_t extra = (large ? 16 : 0) + (far ? 8 : 0);
    struct fields fields = {.length = 0};

    add_field(&fields, 0x02014b50, 4);
    add_field(&fields, 45, 2); /* made by */
    add_common(&fields, entry, large || far);
    add_field(&fields, extra != 0 ? extra + 4 : 0, 2);
    add_field(&fields, 0, 8); /* comment, disk, attributes within */
    add_field(&fields, 0, 2);
    add_field(&fields, clip(entry->header), 4);
    memcpy(fields.bytes + fields.length, entry->name, strlen(entry->name));
    fields.length += strlen(entry->name);
    if (extra != 0) {
        add_field(&fields, 1, 2);
        add_field(&fields, extra, 2);
    }
    if (large) {
        add_field(&fields, entry->bytes, 8);
        add_field(&fields, entry->bytes, 8);
    }
    if (far)
        add_field(&fields, entry->header, 8);
    return emit(writer, fields.bytes, fields.length, err);
}

/* The central directory and its end; in zip64 too where a number is too large for the plain one. */
static int put_directory(pt_writer_t *writer, struct error *err)
{
    uint64_t begin = writer->at, end, count = (uint64_t)writer->entry_count;
    struct fields fields = {.length = 0};
    int rc;

    for (int i = 0; i < writer->entry_count; i++)
        if ((rc = put_central(writer, &writer->entries[i], err)) != TD_OK)
            return rc;
    end = writer->at;
    if (begin >= ZIP64 || count >= UINT16_MAX) {
        add_field(&fields, 0x06064b50, 4);
        add_field(&fields, 44, 8);
        add_field(&fields, 45, 2);
        add_field(&fields, 45, 2);
        add_field(&fields, 0, 8); /* disks */
        add_field(&fields, count, 8);
        add_field(&fields, count, 8);
        add_field(&fields, end - begin, 8);
        add_field(&fields, begin, 8);
        add_field(&fields, 0x07064b50, 4);
        add_field(&fields, 0, 4);
        add_field(&fields, end, 8);
        add_field(&fields, 1, 4);
    }
    add_field(&fields, 0x06054b50, 4);
    add_field(&fields, 0, 4);
    add_field(&fields, count < UINT16_MAX ? count : UINT16_MAX, 2);
    add_field(&fields, count < UINT16_MAX ? count : UINT16_MAX, 2);
    add_field(&fields, clip(end - begin), 4);
    add_field(&fields, clip(begin), 4);
    add_field(&fields, 0, 2);
    return emit(writer, fields.bytes, fields.length, err);
}

static int put_storages(pt_writer_t *writer, pt_storage_fn *storage, void *context, struct error *err)
{
    for (int i = 0; i < writer->storage_count; i++) {
        char name[32];
        int rc;

        snprintf(name, sizeof(name), "data/%d", i);
        if ((rc = begin_entry(writer, name, writer->storages[i].bytes, err)) != TD_OK ||
            (rc = storage(context, writer, i, err)) != TD_OK || (rc = end_entry(writer, err)) != TD_OK)
            return rc;
    }
    return TD_OK;
}

/* In the order of torch.save. */
static int put_all(pt_writer_t *writer, pt_storage_fn *storage, void *context, struct error *err)
{
    static const char head[2] = "\x80\x02";
    int rc;

    if ((rc = begin_entry(writer, "data.pkl", sizeof(head) + writer->length + 1, err)) != TD_OK ||
        (rc = pt_writer_bytes(writer, head, sizeof(head), err)) != TD_OK ||
        (rc = pt_writer_bytes(writer, writer->pickle, writer->length, err)) != TD_OK ||
        (rc = pt_writer_bytes(writer, ".", 1, err)) != TD_OK || (rc = end_entry(writer, err)) != TD_OK ||
        (rc = put_entry(writer, ".format_version", "1", 1, err)) != TD_OK ||
        (rc = put_entry(writer, ".storage_alignment", "64", 2, err)) != TD_OK ||
        (rc = put_entry(writer, "byteorder", "little", 6, err)) != TD_OK ||
        (rc = put_storages(writer, storage, context, err)) != TD_OK ||
        (rc = put_entry(writer, "version", "3\n", 2, err)) != TD_OK ||
        (rc = put_directory(writer, err)) != TD_OK || (rc = flush(writer, err)) != TD_OK)
        return rc;
    if ((rc = fs_fail("sync", writer->path, err)) != TD_OK)
        return rc;
    return fsync(writer->fd) == 0 ? TD_OK : error_set_errno(err, TD_EIO, errno, "cannot sync %s", writer->path);
}

static int open_beside(pt_writer_t *writer, const char *path, struct error *err)
{
    size_t entries = (size_t)writer->storage_count + 8;

    if (snprintf(writer->path, sizeof(writer->path), "%s.partial", path) >= (int)sizeof(writer->path))
        return error_set(err, TD_EINVAL, "the path %.60s... is too long", path);
    writer->buffer = malloc(BUFFER_BYTES);
    writer->entries = calloc(entries, sizeof(*writer->entries));
    if (writer->failed || writer->buffer == NULL || writer->entries == NULL)
        return error_set(err, TD_ENOMEM, "out of memory to write %s", path);
    writer->fd = open(writer->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer->fd < 0)
        return error_set_errno(err, TD_EINVAL, errno, "cannot create %s", writer->path);
    return TD_OK;
}

int pt_writer_save(pt_writer_t *writer, const char *path, const char *root, pt_storage_fn *storage, void *context,
                   struct error *err)
{
    int rc;

    writer->at = writer->buffered = 0;
    writer->entry_count = 0;
    snprintf(writer->root, sizeof(writer->root), "%s", root);
    if ((rc = open_beside(writer, path, err)) == TD_OK)
        rc = put_all(writer, storage, context, err);
    if (writer->fd >= 0 && close(writer->fd) != 0 && rc == TD_OK)
        rc = error_set_errno(err, TD_EIO, errno, "cannot write %s", writer->path);
    if (rc == TD_OK)
        rc = fs_rename(writer->path, path, err);
    if (rc != TD_OK && writer->fd >= 0)
        (void)unlink(writer->path);
    free(writer->buffer);
    free(writer->entries);
    writer->buffer = NULL;
    writer->entries = NULL;
    writer->fd = -1;
    return rc;
}
