/*
 * safetensors.h - read and write *.safetensors: a JSON header of named tensors, then their bytes.
 *
 * The reader treats the file as hostile: every length, shape, type and offset is checked against the
 * file before use, the tensors must tile the data exactly, names must be distinct, and tensor bytes
 * are read (never mapped) into the caller's memory, so a file that shrinks is an error, not a signal.
 * The writer makes files that are whole or absent: written beside the target, synced, renamed,
 * directory synced.
 *
 * Owns:    the open file and the parsed table.
 * Thread:  one at a time; safetensors_read may be called from several (it only preads).
 * Source:  the safetensors format, huggingface/safetensors README ("Format").
 */
#ifndef TD_CKPT_SAFETENSORS_H
#define TD_CKPT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/util/error.h"
#include "common/util/spill.h"

#define SAFETENSORS_DIMS_MAX   8
#define SAFETENSORS_HEADER_MAX (16u << 20) /* bytes of JSON that are accepted */

enum safetensors_type {
    SAFETENSORS_BOOL,
    SAFETENSORS_U8,
    SAFETENSORS_I8,
    SAFETENSORS_U16,
    SAFETENSORS_I16,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_U32,
    SAFETENSORS_I32,
    SAFETENSORS_F32,
    SAFETENSORS_U64,
    SAFETENSORS_I64,
    SAFETENSORS_F64,
};

/* One tensor: of an open file (data NULL), or to be written. */
struct safetensors_tensor {
    const char *name; /* the file's, while it is open */
    enum safetensors_type type;
    int dims;                             /* 0 for a scalar */
    uint64_t shape[SAFETENSORS_DIMS_MAX]; /* row-major */
    const void *data;                     /* writing: shape x element size bytes, borrowed */
    const spill_t *file;                  /* writing: or they lie there, from offset on */
    uint64_t offset, bytes;               /* reading: within the data section */
};

/* One entry of __metadata__: a string for a string. */
struct safetensors_note {
    const char *key;
    const char *value;
};

typedef struct safetensors safetensors_t;

/*
 * Open a file and check all of its header.
 * Returns TD_OK, TD_ENOTFOUND, TD_EIO, TD_ENOMEM, or TD_ECORRUPT with a sentence naming file and fault.
 */
int safetensors_open(safetensors_t **out, const char *path, struct error *err);
void safetensors_close(safetensors_t **file);

/* The tensors in file order, and the notes. */
int safetensors_count(const safetensors_t *file);
const struct safetensors_tensor *safetensors_at(const safetensors_t *file, int index);
int safetensors_notes(const safetensors_t *file);
const struct safetensors_note *safetensors_note_at(const safetensors_t *file, int index);

/* By name; NULL when there is none. */
const struct safetensors_tensor *safetensors_find(const safetensors_t *file, const char *name);
const char *safetensors_note(const safetensors_t *file, const char *key);

/* Copy all of a tensor's bytes to out [tensor->bytes]. TD_OK, TD_EIO, TD_ECORRUPT (file shrank). */
int safetensors_read(const safetensors_t *file, const struct safetensors_tensor *tensor, void *out,
                     struct error *err);

/* Copy bytes from .. from + length - 1 of a tensor, which must exist, to out. As safetensors_read. */
int safetensors_read_part(const safetensors_t *file, const struct safetensors_tensor *tensor, uint64_t from,
                          uint64_t length, void *out, struct error *err);

/*
 * Read the named tensor, which must have this type and shape. Pass dims -1 to accept any shape of
 * `shape[0]` elements in all. TD_ENOTFOUND when missing, TD_EINVAL (both shapes named) on a mismatch.
 */
int safetensors_get(const safetensors_t *file, const char *name, enum safetensors_type type, int dims,
                    const uint64_t *shape, void *out, struct error *err);

/* The number of elements; of an open file's tensor, never overflows. */
uint64_t safetensors_elements(const struct safetensors_tensor *tensor);
size_t safetensors_type_size(enum safetensors_type type);
const char *safetensors_type_name(enum safetensors_type type); /* "F32" */

/* Called after each piece written; a nonzero return cancels with TD_EAGAIN and leaves no file. */
typedef int safetensors_progress(void *context, uint64_t done, uint64_t total);

/*
 * Replace `path` by a file of these tensors, in this order. Names must be distinct and not
 * "__metadata__". progress may be NULL. Returns TD_OK, TD_EIO, TD_EFULL, TD_ENOMEM, TD_EAGAIN;
 * after an error `path` is what it was.
 */
int safetensors_write(const char *path, const struct safetensors_tensor *tensors, int count,
                      const struct safetensors_note *notes, int note_count,
                      safetensors_progress *progress, void *context, struct error *err);

#endif
