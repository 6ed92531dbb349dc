/*
 * count_allocations.h - counts allocations, libraries' included: malloc and its kin, and mmap by hand.
 *
 * Included by one file of a test program: its definitions take the place of the C library's, and pass
 * on to them. Not under the sanitizers, which bring their own: COUNTS_ALLOCATIONS is then 0.
 */
#ifndef TD_TEST_COUNT_ALLOCATIONS_H
#define TD_TEST_COUNT_ALLOCATIONS_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 0
#else
#define COUNTS_ALLOCATIONS 1
#endif

/* Allocations while `counting_allocations` is set; the main thread's only when counting_main is, too. */
static atomic_bool counting_allocations __attribute__((unused));
static atomic_bool counting_main __attribute__((unused));
static atomic_ulong counted_allocations __attribute__((unused));

#if COUNTS_ALLOCATIONS
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static void count_allocation(void)
{
    if (atomic_load(&counting_allocations) && (atomic_load(&counting_main) || gettid() != getpid()))
        atomic_fetch_add(&counted_allocations, 1);
}

void *malloc(size_t size)
{
    count_allocation();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    count_allocation();
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    count_allocation();
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count_allocation();
    return __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    count_allocation();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    count_allocation();
    *out = __libc_memalign(alignment, size);
    return *out == NULL ? ENOMEM : 0;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    count_allocation();
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}
#endif

#endif
