/*
 * pt.h - read *.pt as torch.save writes it: a zip of one pickle and the bytes of the tensors' storages.
 *
 * The pickle runs on a machine of our own that knows the opcodes and names such files need and executes
 * nothing: what it builds is data (numbers, texts, lists, dicts, tensors as views of storages). TensorDicts,
 * modules' state dicts, parameters and NumPy scalars come out as the dicts, tensors and numbers they hold.
 *
 * The file is hostile until checked: stored zip entries only, inside the file, without overlap or doubtful
 * names; every length is compared with the file before memory is taken for it; views must lie inside their
 * storage; depth, nodes and repetitions are bounded. Only the pickle (at most PT_PICKLE_MAX bytes) is read at
 * opening: storages stay in the file and are read in ranges, whatever their size. Bytes are read, never
 * mapped: a file that shrinks is an error, not a signal.
 *
 * Owns:    the open file, the tree, the tables.
 * Thread:  one at a time; pt_read and pt_verify may be called from several (they only pread).
 * Source:  torch/serialization.py, torch/_utils.py; pickletools.py; PKWARE APPNOTE 6.3.10.
 */
#ifndef TD_CKPT_PT_H
#define TD_CKPT_PT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/ckpt/safetensors.h"
#include "common/util/error.h"

#define PT_DIMS_MAX   SAFETENSORS_DIMS_MAX
#define PT_PICKLE_MAX ((size_t)16 << 20) /* bytes of data.pkl that are accepted */
#define PT_DEPTH_MAX  32                 /* dicts and lists within each other */
#define PT_LEAVES_MAX (1 << 18)

/*
 * A view of a storage. Its name is its path: the keys (or list indices) on the way to it, joined by '/':
 * "model/_pi.0.weight" of a checkpoint, "obs" of a TensorDict, "[0]" of a list.
 */
struct pt_tensor {
    const char *name; /* the file's, while it is open */
    enum safetensors_type type;
    int dims;                     /* 0 for a scalar */
    uint64_t shape[PT_DIMS_MAX];
    uint64_t stride[PT_DIMS_MAX]; /* elements, any order; 0 repeats */
    uint64_t elements;            /* product of shape: at most its storage's, or 16 million where a view repeats */
    bool contiguous;              /* row-major without gaps: its bytes lie at `offset` in the file, elements x size */
    uint64_t offset;              /* bytes in the file of its first element */
    int storage;                  /* tensors of equal number share one */
};

enum pt_kind {
    PT_NONE,
    PT_BOOL,   /* .integer */
    PT_INT,    /* .integer */
    PT_REAL,   /* .real */
    PT_TEXT,   /* .text; also the name of a dtype or device */
    PT_INTS,   /* .ints [count]: a tuple, list or torch.Size of whole numbers */
    PT_TEXTS,  /* .texts [count]: a tuple or list of texts */
    PT_EMPTY,  /* an empty dict */
};

/* What is no tensor: "_batch_size" of a TensorDict, "model/_Qs.params.__device". Borrowed until close. */
struct pt_leaf {
    const char *name;
    enum pt_kind kind;
    int64_t integer;
    double real;
    const char *text; /* UTF-8 as the file has it: may hold control characters */
    int count;
    const int64_t *ints;
    const char *const *texts;
};

typedef struct pt pt_t;

/*
 * To tell *.pt from *.safetensors: it begins as a file of PyTorch does, old or new, whatever the name says, or it is
 * called *.pt and does not begin as safetensors do. Then pt_open has the better words for what is wrong with it.
 */
bool pt_looks_like(const char *path);

/*
 * Open a file and check all of it but the storages' contents.
 * Returns TD_OK, TD_ENOTFOUND, TD_EIO, TD_ENOMEM, or TD_ECORRUPT with a sentence naming file and fault, also
 * for what is valid but not accepted (compressed entries, a class that is not on the list).
 */
int pt_open(pt_t **out, const char *path, struct error *err);
void pt_close(pt_t **file);

/* Tensors and leaves in the order of the file; names are distinct. */
int pt_count(const pt_t *file);
const struct pt_tensor *pt_at(const pt_t *file, int index);
int pt_leaves(const pt_t *file);
const struct pt_leaf *pt_leaf_at(const pt_t *file, int index);

/* By name; NULL when there is none. */
const struct pt_tensor *pt_find(const pt_t *file, const char *name);
const struct pt_leaf *pt_leaf(const pt_t *file, const char *name);

/*
 * Copy elements first .. first + count - 1, in row-major order of the view, to out [count x element size].
 * Reads what lies between the view's elements too, in pieces of at most 64 KiB; allocates nothing.
 * TD_OK, TD_EIO, TD_ECORRUPT (the file shrank).
 */
int pt_read(const pt_t *file, const struct pt_tensor *tensor, uint64_t first, uint64_t count, void *out,
            struct error *err);

/* Compare the storage's bytes with the checksum in the file; reads all of it. TD_OK, TD_EIO, TD_ECORRUPT. */
int pt_verify(const pt_t *file, const struct pt_tensor *tensor, struct error *err);

/* Of the storage, and of all storages together: bytes in the file. */
uint64_t pt_storage_bytes(const pt_t *file, int storage);
uint64_t pt_bytes(const pt_t *file);

#endif
