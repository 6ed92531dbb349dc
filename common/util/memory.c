#include "common/util/memory.h"

#include <inttypes.h>
#include <stdio.h>

#define PATH_BYTES 4096

/* One number of a file; UINT64_MAX for "max" and for none. */
static uint64_t number_of(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    uint64_t value = UINT64_MAX;
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    if ((file = fopen(path, "re")) == NULL)
        return UINT64_MAX;
    if (fscanf(file, "%" SCNu64, &value) != 1)
        value = UINT64_MAX;
    fclose(file);
    return value;
}

static uint64_t machine_available(const char *meminfo)
{
    FILE *file = fopen(meminfo, "re");
    uint64_t kilobytes, found = UINT64_MAX;
    char line[256];

    if (file == NULL)
        return UINT64_MAX;
    while (found == UINT64_MAX && fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kilobytes) == 1)
            found = kilobytes * 1024;
    fclose(file);
    return found;
}

uint64_t memory_available_from(const char *meminfo, const char *cgroup)
{
    uint64_t machine = machine_available(meminfo), most = number_of(cgroup, "memory.max");
    uint64_t used = number_of(cgroup, "memory.current"), left;

    if (most == UINT64_MAX || used == UINT64_MAX)
        return machine;
    left = most > used ? most - used : 0;
    return left < machine ? left : machine;
}

uint64_t memory_available(void)
{
    return memory_available_from("/proc/meminfo", "/sys/fs/cgroup");
}

int memory_check(uint64_t bytes, const char *what, const char *remedy, struct error *err)
{
    uint64_t available = memory_available();

    if (bytes <= available)
        return TD_OK;
    return error_set(err, TD_EINVAL, "%s needs %.1f GB of memory, %.1f GB are available: %s", what, (double)bytes * 1e-9,
                     (double)available * 1e-9, remedy);
}
