/*
 * arena.h - one block of memory for everything that lives equally long.
 *
 * Sized once, handed out from the front in 64-byte-aligned pieces, released whole. A first pass with
 * a measuring arena (arena_measure) finds the size: the same layout code runs twice.
 */
#ifndef TD_UTIL_ARENA_H
#define TD_UTIL_ARENA_H

#include <stddef.h>

#define ARENA_ALIGN 64u

struct arena {
    char *base;      /* NULL while measuring */
    size_t capacity; /* bytes */
    size_t used;     /* bytes, a multiple of ARENA_ALIGN */
};

/* An arena that only adds up: arena_alloc returns NULL and `used` grows. */
void arena_measure(struct arena *arena);

/* Own `capacity` zeroed bytes. Returns TD_OK or TD_ENOMEM. */
int arena_init(struct arena *arena, size_t capacity);

/* Give everything back; accepts a zeroed struct. */
void arena_release(struct arena *arena);

/* The next `count` elements of `size` bytes; asserts that they fit. */
void *arena_alloc(struct arena *arena, size_t count, size_t size);

#define arena_floats(arena, count) ((float *)arena_alloc((arena), (count), sizeof(float)))

#endif
