/*
 * bin_nomem.c - preloaded into a program: its k-th allocation finds no memory.
 *
 * Counted are those of the program itself and of the libraries that know how to go on without memory
 * (LMDB, protobuf-c, cJSON, libyaml). libzmq, libuv and OpenBLAS end the process by themselves when they
 * find none, and the C library's own are nobody's to mend. $TD_NOMEM_AT: k; $TD_NOMEM_FOREVER: and all
 * after it; $TD_NOMEM_REPORT: a file that is told how many there were, and how many failed. Only programs
 * called $TD_NOMEM_PROGRAM are meant, across an exec of their own, not what they start.
 */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RANGES 16

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

struct range {
    uintptr_t from, to;
};

static struct range ranges[RANGES];
static int range_count;
static uint64_t fail_at, own_report[2];
static uint64_t *report = own_report; /* calls, failed */
static bool forever, ready;

static int add_ranges(struct dl_phdr_info *info, size_t size, void *context)
{
    static const char *const libraries[] = {"liblmdb", "libprotobuf-c", "libcjson", "libyaml"};
    bool *first = context, wanted = *first;

    (void)size;
    *first = false; /* the first is the program */
    for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]) && !wanted; i++)
        wanted = strstr(info->dlpi_name, libraries[i]) != NULL;
    for (int i = 0; wanted && i < info->dlpi_phnum && range_count < RANGES; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];

        if (part->p_type == PT_LOAD && (part->p_flags & PF_X))
            ranges[range_count++] = (struct range){info->dlpi_addr + part->p_vaddr,
                                                   info->dlpi_addr + part->p_vaddr + part->p_memsz};
    }
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("TD_NOMEM_AT"), *path = getenv("TD_NOMEM_REPORT"), *meant = getenv("TD_NOMEM_PROGRAM");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    bool first = true;
    void *map;

    if (at == NULL || meant == NULL || strcmp(meant, program_invocation_short_name) != 0)
        return;
    dl_iterate_phdr(add_ranges, &first);
    if (fd >= 0 && ftruncate(fd, sizeof(own_report)) == 0) {
        map = mmap(NULL, sizeof(own_report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        report = map == MAP_FAILED ? own_report : map;
    }
    if (fd >= 0)
        close(fd);
    fail_at = strtoull(at, NULL, 10);
    forever = getenv("TD_NOMEM_FOREVER") != NULL;
    ready = true;
}

static bool fails(const void *caller)
{
    uint64_t call;
    bool counted = false;

    for (int i = 0; i < range_count && ready && !counted; i++)
        counted = (uintptr_t)caller >= ranges[i].from && (uintptr_t)caller < ranges[i].to;
    if (!counted)
        return false;
    call = __atomic_add_fetch(&report[0], 1, __ATOMIC_RELAXED);
    if (call < fail_at || fail_at == 0 || (call > fail_at && !forever))
        return false;
    __atomic_add_fetch(&report[1], 1, __ATOMIC_RELAXED);
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (fails(__builtin_return_address(0)))
        return ENOMEM;
    *memory = __libc_memalign(alignment, size);
    return *memory == NULL ? ENOMEM : 0;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

/* The program's copies of strings are allocations of the program. */
char *strdup(const char *text)
{
    size_t length = strlen(text) + 1;
    char *copy = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(length);

    return copy == NULL ? NULL : memcpy(copy, text, length);
}
