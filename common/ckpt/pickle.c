#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ckpt/pickle_parts.h"

#define BLOCK_BYTES ((size_t)64 << 10)
#define NAME_MAX_   128 /* bytes of a module's or a global's name */

/* Values and arrays live in blocks that are given back together. */
struct block {
    struct block *before;
    size_t used, room;
    _Alignas(16) char bytes[];
};

struct pickle_value *pickle_fail(pickle_t *pickle, const char *format, ...)
{
    char why[256];
    va_list arguments;

    if (pickle->rc != TD_OK)
        return NULL;
    va_start(arguments, format);
    vsnprintf(why, sizeof(why), format, arguments);
    va_end(arguments);
    for (char *c = why; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c >= 127)
            *c = '?';
    pickle->rc = error_set(pickle->err, TD_ECORRUPT, "%s cannot be read: %s", pickle->path, why);
    return NULL;
}

void *pickle_memory(pickle_t *pickle, size_t bytes)
{
    struct block *block = pickle->blocks;
    void *out;

    bytes = (bytes + 15) / 16 * 16;
    if (block == NULL || block->room - block->used < bytes) {
        size_t room = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;

        block = malloc(sizeof(*block) + room);
        if (block == NULL) {
            if (pickle->rc == TD_OK)
                pickle->rc = error_set(pickle->err, TD_ENOMEM, "out of memory reading %s", pickle->path);
            return NULL;
        }
        *block = (struct block){.before = pickle->blocks, .room = room};
        pickle->blocks = block;
    }
    out = block->bytes + block->used;
    block->used += bytes;
    return out;
}

struct pickle_value *pickle_make(pickle_t *pickle, enum pickle_kind kind)
{
    struct pickle_value *value;

    if (pickle->rc != TD_OK)
        return NULL;
    if (pickle->values == PICKLE_VALUES_MAX)
        return pickle_fail(pickle, "it holds more than %u values", PICKLE_VALUES_MAX);
    pickle->values++;
    value = pickle_memory(pickle, sizeof(*value));
    if (value != NULL)
        *value = (struct pickle_value){.kind = kind};
    return value;
}

void pickle_push_item(pickle_t *pickle, struct pickle_value *list, struct pickle_value *item)
{
    if (pickle->rc != TD_OK)
        return;
    if (list->count == list->room) {
        uint32_t room = list->room == 0 ? 4 : 2 * list->room;
        struct pickle_value **grown;

        if (room > 2 * PICKLE_VALUES_MAX) {
            pickle_fail(pickle, "a list of it is impossibly long");
            return;
        }
        grown = pickle_memory(pickle, room * sizeof(struct pickle_value *));
        if (grown == NULL)
            return;
        if (list->count > 0)
            memcpy(grown, list->item, list->count * sizeof(*grown));
        list->item = grown;
        list->room = room;
    }
    list->item[list->count++] = item;
}

const struct pickle_value *pickle_dict_find(const struct pickle_value *dict, const char *key)
{
    for (uint32_t i = 0; dict->kind == PICKLE_DICT && i + 1 < dict->count; i += 2)
        if (dict->item[i]->kind == PICKLE_TEXT && strcmp(dict->item[i]->text, key) == 0)
            return dict->item[i + 1];
    return NULL;
}

/* --- bytes, stack, memo ---------------------------------------------------------- */

static const uint8_t *take(pickle_t *pickle, uint64_t length)
{
    const uint8_t *at = pickle->next;

    if (length > (uint64_t)(pickle->end - pickle->next)) {
        pickle_fail(pickle, "its pickle ends in the middle of a value");
        return NULL;
    }
    pickle->next += length;
    return at;
}

/* Little-endian, `width` bytes; 0 after a failure. */
static uint64_t take_number(pickle_t *pickle, int width)
{
    const uint8_t *at = take(pickle, (uint64_t)width);
    uint64_t value = 0;

    for (int i = 0; at != NULL && i < width; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

/* An array of `size`-byte elements gets room for one at `index`. */
static bool make_room(pickle_t *pickle, void *array, uint32_t *room, uint32_t index, size_t size)
{
    void **at = array, *grown; /* of any object pointers, as realloc gives */
    uint32_t wanted = *room == 0 ? 256 : *room;

    if (pickle->rc != TD_OK)
        return false;
    if (index < *room)
        return true;
    if (index >= PICKLE_VALUES_MAX) {
        pickle_fail(pickle, "its pickle wants a stack or memo of more than %u places", PICKLE_VALUES_MAX);
        return false;
    }
    while (wanted <= index)
        wanted *= 2;
    grown = realloc(*at, wanted * size);
    if (grown == NULL) {
        pickle->rc = error_set(pickle->err, TD_ENOMEM, "out of memory reading %s", pickle->path);
        return false;
    }
    memset((char *)grown + *room * size, 0, (wanted - *room) * size);
    *at = grown;
    *room = wanted;
    return true;
}

static void push(pickle_t *pickle, struct pickle_value *value)
{
    if (value != NULL && make_room(pickle, &pickle->stack, &pickle->stack_room, pickle->height, sizeof(value)))
        pickle->stack[pickle->height++] = value;
}

static uint32_t floor_of(const pickle_t *pickle)
{
    return pickle->marks == 0 ? 0 : pickle->mark[pickle->marks - 1];
}

static struct pickle_value *pop(pickle_t *pickle)
{
    if (pickle->rc == TD_OK && pickle->height > floor_of(pickle))
        return pickle->stack[--pickle->height];
    return pickle_fail(pickle, "its pickle takes a value from an empty stack");
}

static struct pickle_value *top(pickle_t *pickle)
{
    if (pickle->rc == TD_OK && pickle->height > floor_of(pickle))
        return pickle->stack[pickle->height - 1];
    return pickle_fail(pickle, "its pickle takes a value from an empty stack");
}

/* Where the values above the last mark begin; the mark is gone. */
static uint32_t pop_mark(pickle_t *pickle)
{
    if (pickle->marks > 0)
        return pickle->mark[--pickle->marks];
    pickle_fail(pickle, "its pickle has no mark where one is wanted");
    return pickle->height;
}

static void remember(pickle_t *pickle, uint64_t index)
{
    struct pickle_value *value = top(pickle);

    if (index >= PICKLE_VALUES_MAX)
        index = PICKLE_VALUES_MAX;
    if (value != NULL && make_room(pickle, &pickle->memo, &pickle->memo_room, (uint32_t)index, sizeof(value))) {
        pickle->remembered += pickle->memo[index] == NULL;
        pickle->memo[index] = value;
    }
}

static void recall(pickle_t *pickle, uint64_t index)
{
    if (index >= pickle->memo_room || pickle->memo[index] == NULL)
        pickle_fail(pickle, "its pickle recalls a value that it never remembered");
    else
        push(pickle, pickle->memo[index]);
}

/* --- values --------------------------------------------------------------------- */

static void push_int(pickle_t *pickle, int64_t number)
{
    struct pickle_value *value = pickle_make(pickle, PICKLE_INT);

    if (value != NULL)
        value->integer = number;
    push(pickle, value);
}

static void push_bool(pickle_t *pickle, bool truth)
{
    struct pickle_value *value = pickle_make(pickle, PICKLE_BOOL);

    if (value != NULL)
        value->integer = truth;
    push(pickle, value);
}

static void push_long(pickle_t *pickle, uint64_t width)
{
    const uint8_t *at;
    uint64_t value = 0;

    if (width > 8) {
        pickle_fail(pickle, "it holds a whole number of more than 64 bits");
        return;
    }
    at = take(pickle, width);
    for (uint64_t i = 0; at != NULL && i < width; i++)
        value |= (uint64_t)at[i] << (8 * i);
    if (at != NULL && width > 0 && width < 8 && (at[width - 1] & 0x80))
        value |= ~(uint64_t)0 << (8 * width);
    push_int(pickle, (int64_t)value);
}

static void push_real(pickle_t *pickle)
{
    const uint8_t *at = take(pickle, 8);
    struct pickle_value *value = pickle_make(pickle, PICKLE_REAL);
    uint64_t bits = 0;

    if (at == NULL || value == NULL)
        return;
    for (int i = 0; i < 8; i++) /* big-endian */
        bits = bits << 8 | at[i];
    memcpy(&value->real, &bits, sizeof(bits));
    push(pickle, value);
}

static void push_text(pickle_t *pickle, enum pickle_kind kind, uint64_t length)
{
    const uint8_t *at = take(pickle, length);
    struct pickle_value *value = pickle_make(pickle, kind);
    char *copy = at == NULL || value == NULL ? NULL : pickle_memory(pickle, (size_t)length + 1);

    if (copy == NULL)
        return;
    memcpy(copy, at, (size_t)length);
    copy[length] = '\0';
    value->text = copy;
    value->count = (uint32_t)length;
    push(pickle, value);
}

/* A list of the last `count` values of the stack. */
static void push_tuple(pickle_t *pickle, uint32_t from)
{
    struct pickle_value *value = pickle_make(pickle, PICKLE_LIST);

    if (value == NULL)
        return;
    value->count = value->room = pickle->height - from;
    value->item = pickle_memory(pickle, value->count * sizeof(struct pickle_value *) + 1);
    if (value->item == NULL)
        return;
    for (uint32_t i = 0; i < value->count; i++)
        value->item[i] = pickle->stack[from + i];
    pickle->height = from;
    push(pickle, value);
}

static void push_last(pickle_t *pickle, uint32_t count)
{
    if (pickle->height - floor_of(pickle) < count)
        pickle_fail(pickle, "its pickle takes a value from an empty stack");
    else
        push_tuple(pickle, pickle->height - count);
}

/* Whatever stands above `from` goes into the list or dict below it. */
static void extend(pickle_t *pickle, uint32_t from, enum pickle_kind kind)
{
    struct pickle_value *into = from > floor_of(pickle) ? pickle->stack[from - 1] : NULL;

    if (into == NULL || into->kind != kind || (kind == PICKLE_DICT && (pickle->height - from) % 2 != 0)) {
        pickle_fail(pickle, "its pickle puts values into what is no %s", kind == PICKLE_DICT ? "dict" : "list");
        return;
    }
    for (uint32_t i = from; i < pickle->height; i++)
        pickle_push_item(pickle, into, pickle->stack[i]);
    pickle->height = from;
}

static void push_global_named(pickle_t *pickle, const char *module, const char *name)
{
    const struct pickle_global *global = pickle_global_find(module, name);
    struct pickle_value *value;

    if (global == NULL && strcmp(name, "getattr") == 0) {
        pickle_fail(pickle, "its tensors are memory-mapped and lie in other files: save a clone() of them");
        return;
    }
    if (global == NULL) {
        pickle_fail(pickle, "it names %.100s.%.100s, which is not among what such a file may hold", module, name);
        return;
    }
    if (global->role == PICKLE_ELSEWHERE) {
        pickle_fail(pickle, "%s.%s: its tensors are memory-mapped or consolidated, which is not read: save a clone()",
                    module, name);
        return;
    }
    value = pickle_make(pickle, PICKLE_GLOBAL);
    if (value != NULL)
        value->global = global;
    push(pickle, value);
}

/* Two lines of text. */
static void push_global(pickle_t *pickle)
{
    char word[2][NAME_MAX_ + 1];

    for (int i = 0; i < 2; i++) {
        size_t left = (size_t)(pickle->end - pickle->next);
        const uint8_t *end = memchr(pickle->next, '\n', left < NAME_MAX_ + 1 ? left : NAME_MAX_ + 1);

        if (end == NULL) {
            pickle_fail(pickle, "its pickle names a global without an end");
            return;
        }
        memcpy(word[i], pickle->next, (size_t)(end - pickle->next));
        word[i][end - pickle->next] = '\0';
        pickle->next = end + 1;
    }
    push_global_named(pickle, word[0], word[1]);
}

static void push_stack_global(pickle_t *pickle)
{
    const struct pickle_value *name = pop(pickle), *module = pop(pickle);

    if (pickle->rc != TD_OK)
        return;
    if (name->kind != PICKLE_TEXT || module->kind != PICKLE_TEXT)
        pickle_fail(pickle, "its pickle names a global by what is no text");
    else
        push_global_named(pickle, module->text, name->text);
}

/* --- the machine ---------------------------------------------------------------- */

static void call(pickle_t *pickle, bool new_object)
{
    struct pickle_value *arguments = pop(pickle), *function = pop(pickle);

    if (pickle->rc == TD_OK)
        push(pickle, new_object ? pickle_new_object(pickle, function, arguments) : pickle_call(pickle, function, arguments));
}

static void build(pickle_t *pickle)
{
    struct pickle_value *state = pop(pickle), *object = top(pickle);

    if (pickle->rc == TD_OK)
        pickle_set_state(pickle, object, state);
}

static void persistent(pickle_t *pickle)
{
    const struct pickle_value *id = pop(pickle);

    if (pickle->rc == TD_OK)
        push(pickle, pickle_persistent(pickle, id));
}

static void push_mark(pickle_t *pickle)
{
    if (make_room(pickle, &pickle->mark, &pickle->mark_room, pickle->marks, sizeof(uint32_t)))
        pickle->mark[pickle->marks++] = pickle->height;
}

/* Numbers, texts, and what is remembered; false for other opcodes. */
static bool step_leaf(pickle_t *pickle, uint8_t opcode)
{
    switch (opcode) {
    case 'N': push(pickle, pickle_make(pickle, PICKLE_NONE)); return true;
    case 0x88: push_bool(pickle, true); return true;
    case 0x89: push_bool(pickle, false); return true;
    case 'K': push_int(pickle, (int64_t)take_number(pickle, 1)); return true;
    case 'M': push_int(pickle, (int64_t)take_number(pickle, 2)); return true;
    case 'J': push_int(pickle, (int32_t)take_number(pickle, 4)); return true;
    case 0x8a: push_long(pickle, take_number(pickle, 1)); return true;
    case 0x8b: push_long(pickle, take_number(pickle, 4)); return true;
    case 'G': push_real(pickle); return true;
    case 'X': push_text(pickle, PICKLE_TEXT, take_number(pickle, 4)); return true;
    case 0x8c: push_text(pickle, PICKLE_TEXT, take_number(pickle, 1)); return true;
    case 0x8d: push_text(pickle, PICKLE_TEXT, take_number(pickle, 8)); return true;
    case 'C': push_text(pickle, PICKLE_BYTES, take_number(pickle, 1)); return true;
    case 'B': push_text(pickle, PICKLE_BYTES, take_number(pickle, 4)); return true;
    case 'q': remember(pickle, take_number(pickle, 1)); return true;
    case 'r': remember(pickle, take_number(pickle, 4)); return true;
    case 0x94: remember(pickle, pickle->remembered); return true;
    case 'h': recall(pickle, take_number(pickle, 1)); return true;
    case 'j': recall(pickle, take_number(pickle, 4)); return true;
    default: return false;
    }
}

/* One opcode that is not STOP. */
static void step(pickle_t *pickle, uint8_t opcode)
{
    uint32_t from;

    if (step_leaf(pickle, opcode))
        return;
    switch (opcode) {
    case 0x80: take_number(pickle, 1); break;
    case 0x95: take_number(pickle, 8); break; /* a frame's length: nothing hangs on it */
    case '(': push_mark(pickle); break;
    case '0': pop(pickle); break;
    case '1': pickle->height = pop_mark(pickle); break;
    case '}': push(pickle, pickle_make(pickle, PICKLE_DICT)); break;
    case ']': push(pickle, pickle_make(pickle, PICKLE_LIST)); break;
    case 0x8f: push(pickle, pickle_make(pickle, PICKLE_LIST)); break;
    case ')': push(pickle, pickle_make(pickle, PICKLE_LIST)); break;
    case 't': from = pop_mark(pickle); push_tuple(pickle, from); break;
    case 0x85: push_last(pickle, 1); break;
    case 0x86: push_last(pickle, 2); break;
    case 0x87: push_last(pickle, 3); break;
    case 'a': extend(pickle, pickle->height > 0 ? pickle->height - 1 : 0, PICKLE_LIST); break;
    case 'e': from = pop_mark(pickle); extend(pickle, from, PICKLE_LIST); break;
    case 0x90: from = pop_mark(pickle); extend(pickle, from, PICKLE_LIST); break;
    case 's': extend(pickle, pickle->height > 1 ? pickle->height - 2 : 0, PICKLE_DICT); break;
    case 'u': from = pop_mark(pickle); extend(pickle, from, PICKLE_DICT); break;
    case 'c': push_global(pickle); break;
    case 0x93: push_stack_global(pickle); break;
    case 'R': call(pickle, false); break;
    case 0x81: call(pickle, true); break;
    case 'b': build(pickle); break;
    case 'Q': persistent(pickle); break;
    default: pickle_fail(pickle, "its pickle uses opcode 0x%02x, which such a file has no need of", opcode);
    }
}

static const struct pickle_value *run(pickle_t *pickle)
{
    const struct pickle_value *root;

    while (pickle->rc == TD_OK) {
        const uint8_t *opcode = take(pickle, 1);

        if (opcode == NULL)
            break;
        if (*opcode == '.') {
            root = pop(pickle);
            if (pickle->rc == TD_OK && (pickle->height != 0 || pickle->marks != 0))
                pickle_fail(pickle, "its pickle leaves values behind");
            return pickle->rc == TD_OK ? root : NULL;
        }
        step(pickle, *opcode);
    }
    return NULL;
}

int pickle_load(pickle_t **out, const struct pickle_value **root, const void *bytes, size_t length, const char *path,
                struct error *err)
{
    pickle_t *pickle = calloc(1, sizeof(*pickle));
    int rc;

    *out = NULL;
    *root = NULL;
    if (pickle == NULL)
        return error_set(err, TD_ENOMEM, "out of memory reading %s", path);
    pickle->next = bytes;
    pickle->end = pickle->next + length;
    pickle->path = path;
    pickle->err = err;
    *root = run(pickle);
    rc = pickle->rc;
    free(pickle->stack);
    free(pickle->memo);
    free(pickle->mark);
    pickle->stack = pickle->memo = NULL;
    pickle->mark = NULL;
    if (rc == TD_OK)
        *out = pickle;
    else
        pickle_release(&pickle);
    return rc;
}

void pickle_release(pickle_t **pointer)
{
    pickle_t *pickle = *pointer;

    *pointer = NULL;
    while (pickle != NULL && pickle->blocks != NULL) {
        struct block *before = pickle->blocks->before;

        free(pickle->blocks);
        pickle->blocks = before;
    }
    free(pickle);
}
