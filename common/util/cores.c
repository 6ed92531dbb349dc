#include "common/util/cores.h"

#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 4096

/* --- one folder -------------------------------------------------------------- */

static bool read_line(const char *folder, const char *name, char *line, int size)
{
    char path[PATH_BYTES + 64];
    bool got = false;
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    if ((file = fopen(path, "r")) == NULL)
        return false;
    got = fgets(line, size, file) != NULL;
    fclose(file);
    return got;
}

static double ratio(double quota, double period)
{
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* cpu.max: "200000 100000", or "max 100000". */
static double quota_v2(const char *folder)
{
    char line[128];
    double quota, period;

    if (!read_line(folder, "cpu.max", line, sizeof(line)) || sscanf(line, "%lf %lf", &quota, &period) != 2)
        return 0;
    return ratio(quota, period);
}

/* Two files; the quota is -1 where there is none. */
static double quota_v1(const char *folder)
{
    char line[128];
    double quota, period;

    if (!read_line(folder, "cpu.cfs_quota_us", line, sizeof(line)) || sscanf(line, "%lf", &quota) != 1 ||
        !read_line(folder, "cpu.cfs_period_us", line, sizeof(line)) || sscanf(line, "%lf", &period) != 1)
        return 0;
    return ratio(quota, period);
}

/* --- the way up -------------------------------------------------------------- */

static double tighter(double a, double b)
{
    return a <= 0 ? b : b <= 0 || a < b ? a : b;
}

/* The tightest of top/path, its parents, and top itself. */
static double quota_upwards(const char *top, const char *path, double (*quota)(const char *folder))
{
    char folder[PATH_BYTES];
    double least = 0;
    size_t base;
    int length = snprintf(folder, sizeof(folder), "%s%s", top, path);

    if (length < 0 || (size_t)length >= sizeof(folder))
        return quota(top);
    base = strlen(top);
    for (;;) {
        char *slash;

        least = tighter(least, quota(folder));
        slash = strrchr(folder + base, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

/* Is `cpu` among the comma-separated names? */
static bool has_cpu(const char *names)
{
    for (const char *at = names; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || at[3] == '\0'))
            return true;
    }
    return false;
}

/* "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1, mounted in a folder named as the list or `cpu`. */
static double quota_of_line(char *line, const char *root)
{
    char *names = strchr(line, ':'), *path = names == NULL ? NULL : strchr(names + 1, ':');
    char top[PATH_BYTES];
    double found;

    if (path == NULL || path[1] != '/')
        return 0;
    *names++ = *path++ = '\0';
    path[strcspn(path, "\n")] = '\0';
    if (*names == '\0')
        return tighter(quota_upwards(root, path, quota_v2), 0);
    if (!has_cpu(names))
        return 0;
    snprintf(top, sizeof(top), "%s/cpu", root);
    found = quota_upwards(top, path, quota_v1);
    snprintf(top, sizeof(top), "%s/%s", root, names);
    return tighter(found, quota_upwards(top, path, quota_v1));
}

double cores_quota(const char *membership, const char *root)
{
    char line[PATH_BYTES];
    double least = 0;
    FILE *file = fopen(membership, "r");

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL)
        least = tighter(least, quota_of_line(line, root));
    fclose(file);
    return least;
}

/* A quota of 1.5 cores is worth two threads. */
int cores_available(void)
{
    double quota = cores_quota("/proc/self/cgroup", "/sys/fs/cgroup");
    cpu_set_t set;
    int cores = 1;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        cores = CPU_COUNT(&set);
    return quota > 0 && ceil(quota) < cores ? (int)ceil(quota) : cores;
}
