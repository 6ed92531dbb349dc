/* pickle_parts.h - what pickle.c (opcodes) and pickle_call.c (the names' meanings) share. */
#ifndef TD_CKPT_PICKLE_PARTS_H
#define TD_CKPT_PICKLE_PARTS_H

#include "common/ckpt/pickle.h"

struct pickle {
    const uint8_t *next, *end;
    const char *path;
    struct error *err;
    int rc; /* the first failure; checked after every opcode */
    struct pickle_value **stack, **memo;
    uint32_t height, stack_room, memo_room, values;
    uint32_t remembered; /* places of the memo that are taken */
    uint32_t *mark; /* heights */
    uint32_t marks, mark_room;
    struct block *blocks;
};

/* Fail with TD_ECORRUPT and "PATH cannot be read: <why>"; returns NULL. */
struct pickle_value *pickle_fail(pickle_t *pickle, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A new value; NULL after a failure. */
struct pickle_value *pickle_make(pickle_t *pickle, enum pickle_kind kind);

/* Put an item behind a list's, a dict's or an object's. */
void pickle_push_item(pickle_t *pickle, struct pickle_value *list, struct pickle_value *item);

/* What opcodes REDUCE, NEWOBJ, BUILD and BINPERSID give. */
struct pickle_value *pickle_call(pickle_t *pickle, struct pickle_value *function, struct pickle_value *arguments);
struct pickle_value *pickle_new_object(pickle_t *pickle, struct pickle_value *class, struct pickle_value *arguments);
void pickle_set_state(pickle_t *pickle, struct pickle_value *object, struct pickle_value *state);
struct pickle_value *pickle_persistent(pickle_t *pickle, const struct pickle_value *id);

#endif
