/*
 * pickle.h - a pickle of PyTorch's as data: a machine that builds values and executes nothing.
 *
 * It knows the opcodes of protocols 2 to 5 that tensors, TensorDicts and plain data are made of. A global
 * is only a name, looked up in the table of pickle_globals.c: a call of one of those builds a value (an
 * ordered dict, a tensor's description); any other name is refused. What an object's class would do is not
 * done: its state is kept as data.
 *
 * Owns:    all values, until released. Values may be shared, and hold themselves: bound your walks.
 * Thread:  one at a time.
 * Source:  pickletools.py; torch/_utils.py; torch/serialization.py (persistent_load).
 */
#ifndef TD_CKPT_PICKLE_H
#define TD_CKPT_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/ckpt/safetensors.h"
#include "common/util/error.h"

#define PICKLE_VALUES_MAX (1u << 21) /* values, memo places, height of the stack */

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_REAL,
    PICKLE_TEXT,
    PICKLE_BYTES,
    PICKLE_LIST,    /* also tuples, sets, torch.Size */
    PICKLE_DICT,    /* item: key, value, key, value ... */
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR,
    PICKLE_OBJECT,  /* item: class, arguments, state or NULL */
};

enum pickle_role {
    PICKLE_ORDERED_DICT,
    PICKLE_SEQUENCE,      /* one argument, a list: torch.Size, set, deque */
    PICKLE_WORD,          /* torch.device: its first argument stands for it */
    PICKLE_TENSOR_V1,     /* _rebuild_tensor and _v2: storage, offset, size, stride, ... */
    PICKLE_TENSOR_V3,     /* the same with a dtype at 6 */
    PICKLE_WRAPPED,       /* _rebuild_parameter: its first argument stands for it */
    PICKLE_REBUILT,       /* _rebuild_from_type_v2: function, type, arguments, state */
    PICKLE_STORAGE_TYPE,
    PICKLE_DTYPE,
    PICKLE_TENSOR_CLASS,  /* the plain ones that _rebuild_from_type_v2 may name */
    PICKLE_TENSORDICT,
    PICKLE_LAZY_STACK,
    PICKLE_PARAMETERS,    /* TensorDictParams: _param_td */
    PICKLE_NON_TENSOR,    /* NonTensorData: non_tensordict["data"] */
    PICKLE_STRING_DICT,   /* a dict class */
    PICKLE_MAKE_TD,       /* class, state */
    PICKLE_OPAQUE,        /* allowed where nothing looks at it */
    PICKLE_RECONSTRUCTOR, /* copyreg: class, object, None */
    PICKLE_ENCODE,        /* _codecs.encode: text, "latin1" */
    PICKLE_NUMPY_DTYPE,
    PICKLE_NUMPY_SCALAR,
    PICKLE_ELSEWHERE,     /* refused: tensors that lie in other files */
};

struct pickle_global {
    const char *module, *name;
    enum pickle_role role;
    enum safetensors_type type; /* of storages and dtypes */
    bool untyped;
};

struct pickle_value;

struct pickle_storage {
    const char *key;
    const struct pickle_global *kind;
    uint64_t elements; /* bytes when untyped */
};

struct pickle_tensor {
    const struct pickle_storage *storage;
    enum safetensors_type type;
    int dims;
    uint64_t offset, shape[SAFETENSORS_DIMS_MAX], stride[SAFETENSORS_DIMS_MAX];
};

struct pickle_value {
    enum pickle_kind kind;
    uint32_t count, room; /* items; bytes of a text */
    union {
        int64_t integer;
        double real;
        const char *text; /* [count] and a NUL */
        struct pickle_value **item;
        const struct pickle_global *global;
        const struct pickle_storage *storage;
        const struct pickle_tensor *tensor;
    };
};

typedef struct pickle pickle_t;

/*
 * Run the machine over bytes [length]. `path` is for the message. TD_OK, TD_ENOMEM, or TD_ECORRUPT with a
 * sentence. *root lives until the pickle is released.
 */
int pickle_load(pickle_t **out, const struct pickle_value **root, const void *bytes, size_t length, const char *path,
                struct error *err);
void pickle_release(pickle_t **pickle);

/* Memory that lives as long as the pickle; NULL when there is none. */
void *pickle_memory(pickle_t *pickle, size_t bytes);

/* The value of a text key; NULL when there is none. */
const struct pickle_value *pickle_dict_find(const struct pickle_value *dict, const char *key);

/* On the list, or NULL. */
const struct pickle_global *pickle_global_find(const char *module, const char *name);

#endif
