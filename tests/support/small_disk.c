#include "tests/support/small_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/support/test.h"

#define HOG "somebody-elses-file"

static int put_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int rc = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;

    if (fd >= 0)
        close(fd);
    return rc;
}

/* Once per process: a place where mounting concerns nobody else. */
static int own_namespace(void)
{
    static int entered;
    unsigned uid = getuid(), gid = getgid();
    char map[64];

    if (entered)
        return 0;
    if (unshare(CLONE_NEWNS) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
            return -1;
        snprintf(map, sizeof(map), "%u %u 1", uid, uid);
        if (put_file("/proc/self/uid_map", map) != 0 || put_file("/proc/self/setgroups", "deny") != 0)
            return -1;
        snprintf(map, sizeof(map), "%u %u 1", gid, gid);
        if (put_file("/proc/self/gid_map", map) != 0)
            return -1;
    }
    entered = mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return entered ? 0 : -1;
}

static char mounted[4][512];
static int mounts;

static void unmount(void)
{
    while (mounts > 0)
        if (umount2(mounted[--mounts], MNT_DETACH) != 0)
            perror(mounted[mounts]);
}

const char *small_disk_mount(const char *dir, uint64_t bytes)
{
    static char why[128];
    char options[64];

    snprintf(options, sizeof(options), "size=%llu,mode=755", (unsigned long long)bytes);
    if (own_namespace() == 0 && (mkdir(dir, 0755) == 0 || errno == EEXIST) &&
        mount("tmpfs", dir, "tmpfs", MS_NOSUID | MS_NODEV, options) == 0) {
        assert_true(mounts < 4);
        if (mounts == 0)
            atexit(unmount); /* before the test's folder is removed */
        snprintf(mounted[mounts++], sizeof(mounted[0]), "%s", dir);
        return NULL;
    }
    snprintf(why, sizeof(why), "a small disk cannot be mounted here: %s", strerror(errno));
    return why;
}

static void hog_path(const char *dir, char path[600])
{
    snprintf(path, 600, "%s/" HOG, dir);
}

void small_disk_fill(const char *dir, uint64_t leave)
{
    static const char zeros[4096];
    char path[600];
    struct statvfs info;
    int fd;

    hog_path(dir, path);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    for (;;) {
        assert_int_equal(fstatvfs(fd, &info), 0);
        if ((uint64_t)info.f_bavail * info.f_frsize <= leave || write(fd, zeros, sizeof(zeros)) != (ssize_t)sizeof(zeros))
            break;
    }
    close(fd);
}

void small_disk_empty(const char *dir)
{
    char path[600];

    hog_path(dir, path);
    assert_int_equal(unlink(path), 0);
}
