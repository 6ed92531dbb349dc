/*
 * memory.h - how much memory this process may still take: what the machine has left, or its cgroup.
 */
#ifndef TD_UTIL_MEMORY_H
#define TD_UTIL_MEMORY_H

#include <stdint.h>

#include "common/util/error.h"

/* Bytes that can be taken without swapping; UINT64_MAX when the system does not tell. */
uint64_t memory_available(void);

/* As memory_available, from a file like /proc/meminfo and a folder like /sys/fs/cgroup (v2: memory.max, .current). */
uint64_t memory_available_from(const char *meminfo, const char *cgroup);

/* TD_OK when so many bytes are there, or TD_EINVAL: "<what> needs 12.3 GB of memory, 4.5 GB are available: <remedy>". */
int memory_check(uint64_t bytes, const char *what, const char *remedy, struct error *err);

#endif
