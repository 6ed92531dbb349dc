/*
 * pt_write.h - write *.pt as torch.save does: a zip of one pickle and the bytes of the tensors' storages.
 *
 * The pickle is put together value by value, in protocol 2, as Python's pickler would leave it but without
 * memo; then the file is written in one go, storages streamed from the caller piece by piece, so that a file may
 * be larger than memory. Files are whole or absent: written beside the target, synced, renamed. Entries begin at
 * multiples of 64 bytes, sizes of 4 GiB and more are written as zip64, as PyTorch does.
 *
 * A put that fails (no memory) fails the save. What torch.load makes of it:
 *
 *   pt_put_dict_begin(w); pt_put_text(w, "model"); pt_put_int(w, 3); pt_put_dict_end(w);    {"model": 3}
 *
 * Owns:    the pickle, the list of storages.
 * Thread:  one.
 * Source:  torch/serialization.py, torch/_utils.py; pickletools.py; PKWARE APPNOTE 6.3.10.
 */
#ifndef TD_CKPT_PT_WRITE_H
#define TD_CKPT_PT_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/ckpt/safetensors.h"
#include "common/util/error.h"

typedef struct pt_writer pt_writer_t;

int pt_writer_create(pt_writer_t **out); /* TD_OK or TD_ENOMEM */
void pt_writer_destroy(pt_writer_t **writer);

/* --- one value each -------------------------------------------------------- */

void pt_put_none(pt_writer_t *writer);
void pt_put_bool(pt_writer_t *writer, bool value);
void pt_put_int(pt_writer_t *writer, int64_t value);
void pt_put_real(pt_writer_t *writer, double value);
void pt_put_text(pt_writer_t *writer, const char *text); /* UTF-8 */
void pt_put_global(pt_writer_t *writer, const char *module, const char *name);
void pt_put_size(pt_writer_t *writer, int count, const int64_t *sizes); /* torch.Size */

/*
 * A tensor of its own storage, row-major. Returns the storage's number: 0, 1, ... in the order of these calls,
 * which is that of the file. Types: BOOL, U8, I8, I16, F16, BF16, I32, F32, I64, F64.
 */
int pt_put_tensor(pt_writer_t *writer, enum safetensors_type type, int dims, const uint64_t *shape);

/* --- values of values, which come in between ------------------------------- */

void pt_put_dict_begin(pt_writer_t *writer); /* key, value, key, value, ... */
void pt_put_dict_end(pt_writer_t *writer);
void pt_put_ordered_begin(pt_writer_t *writer); /* the same, collections.OrderedDict */
void pt_put_tuple_begin(pt_writer_t *writer);
void pt_put_tuple_end(pt_writer_t *writer);
void pt_put_reduce(pt_writer_t *writer); /* a callable and a tuple of its arguments: the call */

/* --- the file -------------------------------------------------------------- */

/* Write the bytes of one storage, all of them in order, with pt_writer_bytes. TD_OK or what went wrong. */
typedef int pt_storage_fn(void *context, pt_writer_t *writer, int storage, struct error *err);

/*
 * Replace `path` by the file. `root` names the folder within it (torch: the file's name without .pt). Returns
 * TD_OK, TD_EIO, TD_EFULL, TD_ENOMEM, TD_EINVAL, or what `storage` says; after an error `path` is what it was.
 */
int pt_writer_save(pt_writer_t *writer, const char *path, const char *root, pt_storage_fn *storage, void *context,
                   struct error *err);

/* The next bytes of the storage that is asked for. */
int pt_writer_bytes(pt_writer_t *writer, const void *bytes, size_t length, struct error *err);

#endif
