/* pickle_globals.c - the names that a *.pt file may hold, and what each stands for. */
#include <string.h>

#include "common/ckpt/pickle.h"

#define STORAGE(name, as) {"torch", name "Storage", PICKLE_STORAGE_TYPE, as, false}
#define DTYPE(name, as)   {"torch", name, PICKLE_DTYPE, as, false}
#define IS(module, name, role) {module, name, role, SAFETENSORS_U8, false}

static const struct pickle_global globals[] = {
    IS("collections", "OrderedDict", PICKLE_ORDERED_DICT),
    IS("collections", "defaultdict", PICKLE_OPAQUE),
    IS("collections", "deque", PICKLE_SEQUENCE),
    IS("__builtin__", "set", PICKLE_SEQUENCE),
    IS("builtins", "set", PICKLE_SEQUENCE),
    IS("__builtin__", "frozenset", PICKLE_SEQUENCE),
    IS("builtins", "frozenset", PICKLE_SEQUENCE),
    IS("__builtin__", "object", PICKLE_OPAQUE),
    IS("builtins", "object", PICKLE_OPAQUE),
    IS("copy_reg", "_reconstructor", PICKLE_RECONSTRUCTOR),
    IS("copyreg", "_reconstructor", PICKLE_RECONSTRUCTOR),
    IS("_codecs", "encode", PICKLE_ENCODE),
    IS("pathlib", "PosixPath", PICKLE_OPAQUE),
    IS("torch", "Size", PICKLE_SEQUENCE),
    IS("torch", "device", PICKLE_WORD),
    IS("torch", "Tensor", PICKLE_TENSOR_CLASS),
    IS("torch.nn.parameter", "Parameter", PICKLE_TENSOR_CLASS),
    IS("torch.nn.parameter", "Buffer", PICKLE_TENSOR_CLASS),
    IS("torch._utils", "_rebuild_tensor", PICKLE_TENSOR_V1),
    IS("torch._utils", "_rebuild_tensor_v2", PICKLE_TENSOR_V1),
    IS("torch._utils", "_rebuild_tensor_v3", PICKLE_TENSOR_V3),
    IS("torch._utils", "_rebuild_parameter", PICKLE_WRAPPED),
    IS("torch._utils", "_rebuild_parameter_with_state", PICKLE_WRAPPED),
    IS("torch._tensor", "_rebuild_from_type_v2", PICKLE_REBUILT),
    STORAGE("Float", SAFETENSORS_F32),
    STORAGE("Double", SAFETENSORS_F64),
    STORAGE("Half", SAFETENSORS_F16),
    STORAGE("BFloat16", SAFETENSORS_BF16),
    STORAGE("Long", SAFETENSORS_I64),
    STORAGE("Int", SAFETENSORS_I32),
    STORAGE("Short", SAFETENSORS_I16),
    STORAGE("Char", SAFETENSORS_I8),
    STORAGE("Byte", SAFETENSORS_U8),
    STORAGE("Bool", SAFETENSORS_BOOL),
    {"torch.storage", "UntypedStorage", PICKLE_STORAGE_TYPE, SAFETENSORS_U8, true},
    DTYPE("float32", SAFETENSORS_F32),
    DTYPE("float64", SAFETENSORS_F64),
    DTYPE("float16", SAFETENSORS_F16),
    DTYPE("bfloat16", SAFETENSORS_BF16),
    DTYPE("int64", SAFETENSORS_I64),
    DTYPE("int32", SAFETENSORS_I32),
    DTYPE("int16", SAFETENSORS_I16),
    DTYPE("int8", SAFETENSORS_I8),
    DTYPE("uint8", SAFETENSORS_U8),
    DTYPE("uint16", SAFETENSORS_U16),
    DTYPE("uint32", SAFETENSORS_U32),
    DTYPE("uint64", SAFETENSORS_U64),
    DTYPE("bool", SAFETENSORS_BOOL),
    IS("numpy", "dtype", PICKLE_NUMPY_DTYPE),
    IS("numpy.core.multiarray", "scalar", PICKLE_NUMPY_SCALAR),
    IS("numpy._core.multiarray", "scalar", PICKLE_NUMPY_SCALAR),
    /* tensordict 0.1 to 0.15: modules moved, names stayed */
    IS("tensordict.tensordict", "TensorDict", PICKLE_TENSORDICT),
    IS("tensordict._td", "TensorDict", PICKLE_TENSORDICT),
    IS("tensordict", "TensorDict", PICKLE_TENSORDICT),
    IS("tensordict.tensordict", "LazyStackedTensorDict", PICKLE_LAZY_STACK),
    IS("tensordict._lazy", "LazyStackedTensorDict", PICKLE_LAZY_STACK),
    IS("tensordict.nn.params", "TensorDictParams", PICKLE_PARAMETERS),
    IS("tensordict.tensorclass", "NonTensorData", PICKLE_NON_TENSOR),
    IS("tensordict._reductions", "_make_td", PICKLE_MAKE_TD),
    IS("tensordict.utils", "_StringOnlyDict", PICKLE_STRING_DICT),
    IS("tensordict.utils", "_LockedSchema", PICKLE_OPAQUE),
    IS("tensordict.utils", "_CustomOpTuple", PICKLE_OPAQUE),
    IS("tensordict._nestedkey", "_CustomOpTuple", PICKLE_OPAQUE),
    IS("tensordict.memmap", "MemmapTensor", PICKLE_ELSEWHERE),
    IS("tensordict.memmap", "MemoryMappedTensor", PICKLE_ELSEWHERE),
    IS("tensordict._reductions", "_rebuild_tensordict_files_consolidated", PICKLE_ELSEWHERE),
    IS("tensordict._reductions", "_rebuild_tensordict_files", PICKLE_ELSEWHERE),
    IS("tensordict._reductions", "_rebuild_tensordict_files_shared", PICKLE_ELSEWHERE),
};

const struct pickle_global *pickle_global_find(const char *module, const char *name)
{
    for (size_t i = 0; i < TD_LEN(globals); i++)
        if (strcmp(globals[i].name, name) == 0 && strcmp(globals[i].module, module) == 0)
            return &globals[i];
    return NULL;
}
