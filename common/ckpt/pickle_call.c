/* pickle_call.c - what the names on the list build when a pickle calls them: data, each argument checked. */
#include <string.h>

#include "common/ckpt/pickle_parts.h"

static bool is_global(const struct pickle_value *value, enum pickle_role role)
{
    return value->kind == PICKLE_GLOBAL && value->global->role == role;
}

/* The arguments' shape is the name's own affair: it is told by its name. */
static struct pickle_value *bad_call(pickle_t *pickle, const struct pickle_global *global)
{
    return pickle_fail(pickle, "%s.%s is called with arguments that it does not take", global->module, global->name);
}

static struct pickle_value *make_object(pickle_t *pickle, struct pickle_value *class, struct pickle_value *arguments,
                                        struct pickle_value *state)
{
    struct pickle_value *object = pickle_make(pickle, PICKLE_OBJECT);

    if (object == NULL)
        return NULL;
    pickle_push_item(pickle, object, class);
    pickle_push_item(pickle, object, arguments);
    pickle_push_item(pickle, object, state);
    return pickle->rc == TD_OK ? object : NULL;
}

/* --- tensors -------------------------------------------------------------------- */

static bool get_size(const struct pickle_value *value, uint64_t *out)
{
    if (value->kind != PICKLE_INT || value->integer < 0)
        return false;
    *out = (uint64_t)value->integer;
    return true;
}

static bool get_sizes(const struct pickle_value *value, uint64_t *out, uint32_t count)
{
    if (value->kind != PICKLE_LIST || value->count != count)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!get_size(value->item[i], &out[i]))
            return false;
    return true;
}

/* storage, offset, size, stride, ..., [6] dtype */
static struct pickle_value *make_tensor(pickle_t *pickle, const struct pickle_global *global,
                                        const struct pickle_value *arguments)
{
    struct pickle_value *const *item = arguments->item, *value = pickle_make(pickle, PICKLE_TENSOR);
    struct pickle_tensor *tensor = pickle_memory(pickle, sizeof(*tensor));

    if (value == NULL || tensor == NULL)
        return NULL;
    if (arguments->count < 4 || item[0]->kind != PICKLE_STORAGE || item[2]->kind != PICKLE_LIST)
        return bad_call(pickle, global);
    if (item[2]->count > SAFETENSORS_DIMS_MAX)
        return pickle_fail(pickle, "a tensor of it has %u dimensions: at most %d", item[2]->count, SAFETENSORS_DIMS_MAX);
    *tensor = (struct pickle_tensor){
        .storage = item[0]->storage, .type = item[0]->storage->kind->type, .dims = (int)item[2]->count};
    if (!get_size(item[1], &tensor->offset) || !get_sizes(item[2], tensor->shape, item[2]->count) ||
        !get_sizes(item[3], tensor->stride, item[2]->count))
        return bad_call(pickle, global);
    if (global->role == PICKLE_TENSOR_V3) {
        if (arguments->count < 7 || !is_global(item[6], PICKLE_DTYPE))
            return bad_call(pickle, global);
        tensor->type = item[6]->global->type;
    } else if (tensor->storage->kind->untyped) {
        return bad_call(pickle, global);
    }
    value->tensor = tensor;
    return value;
}

/* function, type, arguments, state: of a tensor with attributes. */
static struct pickle_value *make_rebuilt(pickle_t *pickle, const struct pickle_global *global,
                                         const struct pickle_value *arguments)
{
    struct pickle_value *const *item = arguments->item;

    if (arguments->count < 3 || item[0]->kind != PICKLE_GLOBAL || item[2]->kind != PICKLE_LIST ||
        !is_global(item[1], PICKLE_TENSOR_CLASS) ||
        (item[0]->global->role != PICKLE_TENSOR_V1 && item[0]->global->role != PICKLE_TENSOR_V3))
        return bad_call(pickle, global);
    return make_tensor(pickle, item[0]->global, item[2]);
}

struct pickle_value *pickle_persistent(pickle_t *pickle, const struct pickle_value *id)
{
    struct pickle_value *const *item = id->item, *value = pickle_make(pickle, PICKLE_STORAGE);
    struct pickle_storage *storage = pickle_memory(pickle, sizeof(*storage));

    if (value == NULL || storage == NULL)
        return NULL;
    if (id->kind != PICKLE_LIST || id->count != 5 || item[0]->kind != PICKLE_TEXT ||
        strcmp(item[0]->text, "storage") != 0 || !is_global(item[1], PICKLE_STORAGE_TYPE) ||
        item[2]->kind != PICKLE_TEXT || item[3]->kind != PICKLE_TEXT)
        return pickle_fail(pickle, "its pickle refers to what is no storage");
    *storage = (struct pickle_storage){.key = item[2]->text, .kind = item[1]->global};
    if (!get_size(item[4], &storage->elements))
        return pickle_fail(pickle, "a storage of it has an impossible size");
    value->storage = storage;
    return value;
}

/* --- numbers of NumPy ------------------------------------------------------------ */

/* One element of `width` little-endian bytes: "f8", "i4", "u1", "b1". */
static struct pickle_value *make_scalar(pickle_t *pickle, const struct pickle_global *global,
                                        const struct pickle_value *arguments)
{
    const struct pickle_value *type, *bytes, *state;
    const char *name;
    struct pickle_value *value;
    uint64_t bits = 0;

    if (arguments->count != 2 || arguments->item[0]->kind != PICKLE_OBJECT ||
        !is_global(arguments->item[0]->item[0], PICKLE_NUMPY_DTYPE) || arguments->item[1]->kind != PICKLE_BYTES)
        return bad_call(pickle, global);
    type = arguments->item[0]->item[1];
    state = arguments->item[0]->item[2];
    bytes = arguments->item[1];
    if (type->count < 1 || type->item[0]->kind != PICKLE_TEXT || strlen(type->item[0]->text) != 2)
        return bad_call(pickle, global);
    name = type->item[0]->text;
    if (state != NULL && state->kind == PICKLE_LIST && state->count > 1 && state->item[1]->kind == PICKLE_TEXT &&
        strcmp(state->item[1]->text, ">") == 0)
        return pickle_fail(pickle, "a NumPy number of it is big-endian");
    if (bytes->count != (uint32_t)(name[1] - '0') || bytes->count < 1 || bytes->count > 8)
        return bad_call(pickle, global);
    for (uint32_t i = 0; i < bytes->count; i++)
        bits |= (uint64_t)(uint8_t)bytes->text[i] << (8 * i);
    value = pickle_make(pickle, name[0] == 'f' ? PICKLE_REAL : name[0] == 'b' ? PICKLE_BOOL : PICKLE_INT);
    if (value == NULL)
        return NULL;
    if (name[0] == 'f' && bytes->count == 8) {
        memcpy(&value->real, &bits, 8);
    } else if (name[0] == 'f' && bytes->count == 4) {
        uint32_t low = (uint32_t)bits;
        float single;

        memcpy(&single, &low, 4);
        value->real = (double)single;
    } else if (name[0] == 'i' || name[0] == 'u' || name[0] == 'b') {
        unsigned shift = 64 - 8 * bytes->count;

        value->integer = name[0] == 'i' ? (int64_t)(bits << shift) >> shift : (int64_t)bits;
    } else {
        return bad_call(pickle, global);
    }
    return value;
}

/* Protocol 2 writes bytes as a text of latin-1 characters, which lie in UTF-8 here. */
static struct pickle_value *make_bytes(pickle_t *pickle, const struct pickle_global *global,
                                       const struct pickle_value *arguments)
{
    struct pickle_value *value = pickle_make(pickle, PICKLE_BYTES);
    const struct pickle_value *text = arguments->count > 0 ? arguments->item[0] : NULL;
    char *out = value == NULL || text == NULL || text->kind != PICKLE_TEXT ? NULL : pickle_memory(pickle, text->count + 1);

    if (out == NULL)
        return bad_call(pickle, global);
    value->text = out;
    for (uint32_t i = 0; i < text->count; i++) {
        uint8_t c = (uint8_t)text->text[i];

        if (c >= 0x80) {
            if ((c & 0xfc) != 0xc0 || i + 1 == text->count)
                return bad_call(pickle, global);
            c = (uint8_t)(c << 6 | (text->text[++i] & 0x3f));
        }
        out[value->count++] = (char)c;
    }
    out[value->count] = '\0';
    return value;
}

/* --- calls ---------------------------------------------------------------------- */

struct pickle_value *pickle_new_object(pickle_t *pickle, struct pickle_value *class, struct pickle_value *arguments)
{
    if (class->kind != PICKLE_GLOBAL || arguments->kind != PICKLE_LIST)
        return pickle_fail(pickle, "its pickle makes an object of what is no class");
    switch (class->global->role) {
    case PICKLE_ORDERED_DICT:
    case PICKLE_STRING_DICT:
        return arguments->count == 0 ? pickle_make(pickle, PICKLE_DICT) : bad_call(pickle, class->global);
    case PICKLE_SEQUENCE:
        return pickle_call(pickle, class, arguments);
    case PICKLE_TENSORDICT:
    case PICKLE_LAZY_STACK:
    case PICKLE_PARAMETERS:
    case PICKLE_NON_TENSOR:
    case PICKLE_OPAQUE:
        return make_object(pickle, class, arguments, NULL);
    default:
        return pickle_fail(pickle, "%s.%s is made an object of, which it is no class for", class->global->module,
                           class->global->name);
    }
}

struct pickle_value *pickle_call(pickle_t *pickle, struct pickle_value *function, struct pickle_value *arguments)
{
    const struct pickle_global *global = function->kind == PICKLE_GLOBAL ? function->global : NULL;
    struct pickle_value *const *item = arguments->item;

    if (global == NULL || arguments->kind != PICKLE_LIST)
        return pickle_fail(pickle, "its pickle calls what is no name");
    switch (global->role) {
    case PICKLE_ORDERED_DICT:
    case PICKLE_STRING_DICT:
        return arguments->count == 0 ? pickle_make(pickle, PICKLE_DICT) : bad_call(pickle, global);
    case PICKLE_SEQUENCE:
        if (arguments->count == 0)
            return pickle_make(pickle, PICKLE_LIST);
        return item[0]->kind == PICKLE_LIST ? item[0] : bad_call(pickle, global);
    case PICKLE_WORD:
        return arguments->count >= 1 && item[0]->kind == PICKLE_TEXT ? item[0] : bad_call(pickle, global);
    case PICKLE_TENSOR_V1:
    case PICKLE_TENSOR_V3:
        return make_tensor(pickle, global, arguments);
    case PICKLE_WRAPPED:
        return arguments->count >= 1 && item[0]->kind == PICKLE_TENSOR ? item[0] : bad_call(pickle, global);
    case PICKLE_REBUILT:
        return make_rebuilt(pickle, global, arguments);
    case PICKLE_MAKE_TD:
        if (arguments->count != 2 || item[0]->kind != PICKLE_GLOBAL || item[1]->kind != PICKLE_DICT)
            return bad_call(pickle, global);
        return make_object(pickle, item[0], arguments, item[1]);
    case PICKLE_RECONSTRUCTOR:
        if (arguments->count < 1)
            return bad_call(pickle, global);
        function = item[0];
        arguments = pickle_make(pickle, PICKLE_LIST);
        return arguments == NULL ? NULL : pickle_new_object(pickle, function, arguments);
    case PICKLE_ENCODE:
        return make_bytes(pickle, global, arguments);
    case PICKLE_NUMPY_DTYPE:
    case PICKLE_OPAQUE:
        return make_object(pickle, function, arguments, NULL);
    case PICKLE_NUMPY_SCALAR:
        return make_scalar(pickle, global, arguments);
    default:
        return pickle_fail(pickle, "%s.%s is called, which it is not for", global->module, global->name);
    }
}

/* Attributes of dicts and tensors say nothing that is wanted; an object's state is what it is read for. */
void pickle_set_state(pickle_t *pickle, struct pickle_value *object, struct pickle_value *state)
{
    switch (object->kind) {
    case PICKLE_OBJECT:
        object->item[2] = state;
        break;
    case PICKLE_DICT:
    case PICKLE_TENSOR:
        break;
    default:
        pickle_fail(pickle, "its pickle gives a state to what has none");
    }
}
