/* bin_fail.c - preloaded into a program: its k-th call of a kind fails (fail.h). */
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "tests/support/fail.h"
#include "tests/support/preload.h"

static char planned_dir[PATH_MAX], planned_call[32];
static uint64_t planned_at;
static int planned_errno;
static bool planned_forever;
static struct fail_report *report, unseen;
static uint64_t failed_inode; /* of the file whose sync failed */

fail_plan_fn fail_plan;
fail_report_fn fail_report;

/* One that is on its own may have a file for its report; it is shared with what it forks in any case. */
static void *map_report(void)
{
    const char *path = getenv("TD_FAIL_REPORT");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    void *map = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, sizeof(*report)) == 0)
        map = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    else if (path == NULL)
        map = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fd >= 0)
        close(fd);
    return map == MAP_FAILED ? &unseen : map;
}

void fail_plan(const char *dir, const char *call, uint64_t at, int errnum, bool forever)
{
    snprintf(planned_dir, sizeof(planned_dir), "%s", dir);
    snprintf(planned_call, sizeof(planned_call), "%s", call);
    planned_errno = errnum;
    planned_forever = forever;
    failed_inode = 0;
    memset(report, 0, sizeof(*report));
    planned_at = at;
}

struct fail_report *fail_report(void)
{
    return report;
}

__attribute__((constructor)) static void begin(void)
{
    const char *dir = getenv("TD_FAIL_DIR"), *call = getenv("TD_FAIL_CALL"), *at = getenv("TD_FAIL_AT");
    const char *errnum = getenv("TD_FAIL_ERRNO"), *forever = getenv("TD_FAIL_FOREVER");

    report = map_report();
    if (call != NULL)
        fail_plan(dir == NULL ? "/" : dir, call, at == NULL ? 0 : strtoull(at, NULL, 10),
                  errnum == NULL ? EIO : atoi(errnum), forever != NULL);
}

/* A call of the planned kind: 0, or how it fails. */
static int fate(void)
{
    uint64_t call = __atomic_add_fetch(&report->calls, 1, __ATOMIC_RELAXED);

    if (planned_at == 0 || call < planned_at || (call > planned_at && !planned_forever))
        return 0;
    __atomic_add_fetch(&report->hits, 1, __ATOMIC_RELAXED);
    return planned_errno;
}

static int fate_of(const char *call, int fd)
{
    if (report == NULL || strcmp(call, planned_call) != 0 || !descriptor_is_under(fd, planned_dir))
        return 0;
    return fate();
}

static int fate_at(const char *call, int at, const char *path)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int fd, how, saved = errno;

    if (report == NULL || strcmp(call, planned_call) != 0 || strlen(path) >= sizeof(parent))
        return 0;
    snprintf(parent, sizeof(parent), "%.*s", slash == NULL ? 1 : (int)(slash - path + 1), slash == NULL ? "." : path);
    fd = (int)((__typeof__(&openat))dlsym(RTLD_NEXT, "openat"))(at, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    how = fd >= 0 ? fate_of(call, fd) : 0;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return how;
}

/* The planned errno as the call's own way to say it. */
#define FAIL_WITH(how, value)                                                                      \
    do {                                                                                           \
        int how_ = (how);                                                                          \
        if (how_ != 0) {                                                                           \
            errno = how_ == FAIL_SHORT ? EIO : how_;                                               \
            return (value);                                                                        \
        }                                                                                          \
    } while (0)

/* --- data ------------------------------------------------------------------ */

ssize_t write(int fd, const void *bytes, size_t length)
{
    int how = fate_of("write", fd);

    NEXT(write);
    if (how == FAIL_SHORT)
        return next(fd, bytes, length / 2);
    FAIL_WITH(how, -1);
    return next(fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    int how = fate_of("pwrite", fd);

    NEXT(pwrite);
    if (how == FAIL_SHORT)
        return next(fd, bytes, length / 2, offset);
    FAIL_WITH(how, -1);
    return next(fd, bytes, length, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    int how = fate_of("writev", fd);

    NEXT(writev);
    if (how == FAIL_SHORT)
        return next(fd, parts, count / 2);
    FAIL_WITH(how, -1);
    return next(fd, parts, count);
}

int ftruncate(int fd, off_t length)
{
    NEXT(ftruncate);
    FAIL_WITH(fate_of("ftruncate", fd), -1);
    return next(fd, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    NEXT(fallocate);
    FAIL_WITH(fate_of("fallocate", fd), -1);
    return next(fd, mode, offset, length);
}

ssize_t read(int fd, void *bytes, size_t length)
{
    NEXT(read);
    FAIL_WITH(fate_of("read", fd), -1);
    return next(fd, bytes, length);
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset)
{
    NEXT(pread);
    FAIL_WITH(fate_of("pread", fd), -1);
    return next(fd, bytes, length, offset);
}

ssize_t __pread_chk(int fd, void *bytes, size_t length, off_t offset, size_t room);

/* As hardened programs call it. */
ssize_t __pread_chk(int fd, void *bytes, size_t length, off_t offset, size_t room)
{
    if (length > room)
        abort();
    return pread(fd, bytes, length, offset);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    NEXT(mmap);
    FAIL_WITH(fd >= 0 ? fate_of("mmap", fd) : 0, MAP_FAILED);
    return next(address, length, protection, flags, fd, offset);
}

/* --- syncs ----------------------------------------------------------------- */

/* After a sync that failed the next one of the file may lie: nobody must ask for it. */
static int sync_or_fail(const char *call, int fd, int (*real)(int))
{
    char path[PATH_MAX];
    int how = fate_of(call, fd);

    if (report != NULL && failed_inode != 0 && descriptor_is_under(fd, planned_dir) && descriptor_path(fd, path) &&
        strstr(path, "data.mdb") != NULL)
        report->syncs_after++;
    if (how != 0 && descriptor_path(fd, path) && strstr(path, "data.mdb") != NULL)
        failed_inode = 1;
    FAIL_WITH(how, -1);
    return real(fd);
}

int fsync(int fd)
{
    NEXT(fsync);
    return sync_or_fail("fsync", fd, next);
}

int fdatasync(int fd)
{
    NEXT(fdatasync);
    return sync_or_fail("fdatasync", fd, next);
}

/* --- names ----------------------------------------------------------------- */

static int open_or_fail(int at, const char *path, int flags, mode_t mode)
{
    static __typeof__(&openat) next;

    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "openat");
    FAIL_WITH(fate_at("open", at, path), -1);
    return next(at, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    mode_t mode;

    va_start(args, flags);
    mode = flags & O_CREAT ? (mode_t)va_arg(args, int) : 0;
    va_end(args);
    return open_or_fail(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    va_list args;
    mode_t mode;

    va_start(args, flags);
    mode = flags & O_CREAT ? (mode_t)va_arg(args, int) : 0;
    va_end(args);
    return open_or_fail(at, path, flags, mode);
}

int mkostemp(char *path, int flags)
{
    NEXT(mkostemp);
    FAIL_WITH(fate_at("open", AT_FDCWD, path), -1);
    return next(path, flags);
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir);
    FAIL_WITH(fate_at("mkdir", AT_FDCWD, path), -1);
    return next(path, mode);
}

int unlinkat(int at, const char *path, int flags)
{
    NEXT(unlinkat);
    FAIL_WITH(fate_at("unlink", at, path), -1);
    return next(at, path, flags);
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int renameat2(int at, const char *path, int other_at, const char *other, unsigned flags)
{
    NEXT(renameat2);
    FAIL_WITH(fate_at("rename", other_at, other), -1);
    return next(at, path, other_at, other, flags);
}

int rename(const char *path, const char *other)
{
    return renameat2(AT_FDCWD, path, AT_FDCWD, other, 0);
}
