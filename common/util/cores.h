/*
 * cores.h - how many cores this process may use: its affinity, and the quota its cgroups set.
 *
 * A container is often limited by quota alone (`docker run --cpus=2` on a machine of 64 cores): threads
 * beyond it do not run, they throttle each other.
 */
#ifndef TD_UTIL_CORES_H
#define TD_UTIL_CORES_H

/* Cores this process may use, at least 1: those of its affinity, or fewer where a quota says so. */
int cores_available(void);

/*
 * The tightest CPU quota, in cores, from the process's cgroup up to the root; 0 when there is none.
 * cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us) alike.
 *
 *   membership  the file that names its cgroups: /proc/self/cgroup
 *   root        where the hierarchies are mounted: /sys/fs/cgroup
 *
 * Inside a container the path in `membership` is often the host's and not there: what is there counts.
 */
double cores_quota(const char *membership, const char *root);

#endif
