#include "common/util/arena.h"

#include <stdlib.h>
#include <string.h>

#include "common/util/error.h"

void arena_measure(struct arena *arena)
{
    *arena = (struct arena){.capacity = (size_t)-1};
}

int arena_init(struct arena *arena, size_t capacity)
{
    size_t rounded = (capacity + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;

    *arena = (struct arena){0};
    if (rounded == 0)
        rounded = ARENA_ALIGN;
    arena->base = aligned_alloc(ARENA_ALIGN, rounded);
    if (arena->base == NULL)
        return TD_ENOMEM;
    memset(arena->base, 0, rounded);
    arena->capacity = rounded;
    return TD_OK;
}

void arena_release(struct arena *arena)
{
    free(arena->base);
    *arena = (struct arena){0};
}

void *arena_alloc(struct arena *arena, size_t count, size_t size)
{
    size_t bytes = (count * size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    char *piece = arena->base == NULL ? NULL : arena->base + arena->used;

    TD_ASSERT(size == 0 || count <= (size_t)-1 / 2 / size, "count %zu size %zu", count, size);
    TD_ASSERT(bytes <= arena->capacity - arena->used, "need %zu, have %zu of %zu", bytes,
              arena->capacity - arena->used, arena->capacity);
    arena->used += bytes;
    return piece;
}
