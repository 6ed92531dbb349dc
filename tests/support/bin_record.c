/* bin_record.c - preloaded into a program: notes all it does to one directory (record.h). */
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <zmq.h>

#include "tests/support/preload.h"
#include "tests/support/record.h"

#define FRAME_MAX 512 /* longer ones are noted without their bytes */

static atomic_uint_fast64_t calls;
static int log_fd = -1;
static const char *root;

__attribute__((constructor)) static void begin(void)
{
    const char *log = getenv("TD_RECORD_LOG");

    root = getenv("TD_RECORD_DIR");
    if (root == NULL || log == NULL)
        return;
    log_fd = open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log_fd < 0)
        _exit(99);
    log_fd = fcntl(log_fd, F_DUPFD_CLOEXEC, 700); /* out of the way of programs that count theirs */
}

static bool watched(int fd)
{
    return log_fd >= 0 && fd != log_fd && descriptor_is_under(fd, root);
}

static void note(struct record *record, const void *bytes, size_t length)
{
    static __typeof__(&writev) real;
    struct iovec parts[2] = {{record, sizeof(*record)}, {(void *)(uintptr_t)bytes, length}};
    int saved = errno;

    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "writev");
    record->pid = (uint32_t)getpid();
    record->payload = length;
    if (real(log_fd, parts, 2) != (ssize_t)(sizeof(*record) + length))
        _exit(99); /* no test without its record */
    errno = saved;
}

static uint64_t inode_of(int fd)
{
    struct stat file;

    return fstat(fd, &file) == 0 ? file.st_ino : 0;
}

/* --- marks and frames ------------------------------------------------------ */

void record_mark(const char *text);

/* Called by the program itself, if it looks for the name. */
void record_mark(const char *text)
{
    struct record record = {.kind = RECORD_MARK};

    if (log_fd >= 0)
        note(&record, text, strlen(text) + 1);
}

int zmq_msg_send(zmq_msg_t *message, void *socket, int flags)
{
    struct record record = {.kind = RECORD_FRAME, .id = (uintptr_t)socket, .offset = (flags & ZMQ_SNDMORE) != 0};

    NEXT(zmq_msg_send);
    record.length = zmq_msg_size(message);
    if (log_fd >= 0)
        note(&record, zmq_msg_data(message), record.length <= FRAME_MAX ? record.length : 0);
    return next(message, socket, flags);
}

/* --- data ------------------------------------------------------------------ */

/* Note a write; the call's id is given when it is durable once it has returned. */
static uint64_t note_write(int fd, const struct iovec *parts, int count, off_t offset)
{
    struct record record = {.kind = RECORD_WRITE, .id = ++calls, .inode = inode_of(fd)};
    int flags = fcntl(fd, F_GETFL);
    size_t length = 0;
    char *bytes;

    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    record.length = length;
    record.offset = (uint64_t)(flags & O_APPEND ? lseek(fd, 0, SEEK_END) : offset);
    if ((bytes = malloc(length + 1)) == NULL)
        _exit(99);
    length = 0;
    for (int i = 0; i < count; i++) {
        memcpy(bytes + length, parts[i].iov_base, parts[i].iov_len);
        length += parts[i].iov_len;
    }
    note(&record, bytes, length);
    free(bytes);
    return flags & O_DSYNC ? record.id : 0; /* O_SYNC has O_DSYNC's bit */
}

/* A short write would make the record a lie. */
static ssize_t noted(ssize_t wrote, size_t asked, uint64_t id)
{
    struct record record = {.kind = RECORD_SYNCED, .id = id};

    if (wrote != (ssize_t)asked)
        _exit(98);
    if (id != 0)
        note(&record, NULL, 0);
    return wrote;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    struct iovec part = {(void *)(uintptr_t)bytes, length};

    NEXT(write);
    if (!watched(fd))
        return next(fd, bytes, length);
    uint64_t id = note_write(fd, &part, 1, lseek(fd, 0, SEEK_CUR));
    return noted(next(fd, bytes, length), length, id);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    struct iovec part = {(void *)(uintptr_t)bytes, length};

    NEXT(pwrite);
    if (!watched(fd))
        return next(fd, bytes, length, offset);
    uint64_t id = note_write(fd, &part, 1, offset);
    return noted(next(fd, bytes, length, offset), length, id);
}

static size_t bytes_in(const struct iovec *parts, int count)
{
    size_t length = 0;

    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    return length;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    NEXT(writev);
    if (!watched(fd))
        return next(fd, parts, count);
    uint64_t id = note_write(fd, parts, count, lseek(fd, 0, SEEK_CUR));
    return noted(next(fd, parts, count), bytes_in(parts, count), id);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    NEXT(pwritev);
    if (!watched(fd))
        return next(fd, parts, count, offset);
    uint64_t id = note_write(fd, parts, count, offset);
    return noted(next(fd, parts, count, offset), bytes_in(parts, count), id);
}

static void note_size(uint64_t inode, off_t length)
{
    struct record record = {.kind = RECORD_SIZE, .inode = inode, .length = (uint64_t)length};

    note(&record, NULL, 0);
}

int ftruncate(int fd, off_t length)
{
    NEXT(ftruncate);
    if (watched(fd))
        note_size(inode_of(fd), length);
    return next(fd, length);
}

int truncate(const char *path, off_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return -1;
    rc = ftruncate(fd, length);
    close(fd);
    return rc;
}

/* Only its length shows; what is reserved beyond reads as nothing. */
int fallocate(int fd, int mode, off_t offset, off_t length)
{
    struct stat file;

    NEXT(fallocate);
    if (watched(fd) && mode == 0 && fstat(fd, &file) == 0 && offset + length > file.st_size)
        note_size(inode_of(fd), offset + length);
    return next(fd, mode, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

/* --- syncs and maps -------------------------------------------------------- */

static int sync_noted(int fd, int (*real)(int))
{
    struct record record = {.kind = RECORD_SYNC};
    int rc;

    if (!watched(fd))
        return real(fd);
    record.inode = inode_of(fd);
    record.id = ++calls;
    note(&record, NULL, 0);
    rc = real(fd);
    record.kind = RECORD_SYNCED;
    if (rc == 0)
        note(&record, NULL, 0);
    return rc;
}

int fsync(int fd)
{
    NEXT(fsync);
    return sync_noted(fd, next);
}

int fdatasync(int fd)
{
    NEXT(fdatasync);
    return sync_noted(fd, next);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    struct record record = {.kind = RECORD_MAPPED};
    char path[PATH_MAX];

    NEXT(mmap);
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && watched(fd) && descriptor_path(fd, path)) {
        record.inode = inode_of(fd);
        snprintf(record.name, sizeof(record.name), "%.*s", RECORD_NAME_MAX - 1, strrchr(path, '/') + 1);
        note(&record, NULL, 0);
    }
    return next(address, length, protection, flags, fd, offset);
}

/* --- names ----------------------------------------------------------------- */

/* The folder that `path` names something in, and the name. False when it is not watched. */
static bool place_of(int at, const char *path, uint64_t *folder, char name[RECORD_NAME_MAX])
{
    char parent[PATH_MAX];
    const char *slash;
    int fd, saved = errno;
    bool under;

    if (log_fd < 0 || strlen(path) >= sizeof(parent))
        return false;
    slash = strrchr(path, '/');
    snprintf(name, RECORD_NAME_MAX, "%.*s", RECORD_NAME_MAX - 1, slash == NULL ? path : slash + 1);
    snprintf(parent, sizeof(parent), "%.*s", slash == NULL ? 1 : (int)(slash - path + 1), slash == NULL ? "." : path);
    fd = openat(at, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if ((under = fd >= 0 && descriptor_is_under(fd, root)))
        *folder = inode_of(fd);
    if (fd >= 0)
        close(fd);
    errno = saved;
    return under;
}

static int note_open(int fd, int at, const char *path, int flags, bool there)
{
    struct record record = {.kind = RECORD_CREATE};
    int saved = errno;

    if (fd >= 0 && (flags & (O_CREAT | O_TRUNC)) && place_of(at, path, &record.folder, record.name)) {
        record.inode = inode_of(fd);
        if (!there)
            note(&record, NULL, 0);
        else if (flags & O_TRUNC)
            note_size(record.inode, 0);
    }
    errno = saved;
    return fd;
}

static int open_noted(int at, const char *path, int flags, mode_t mode)
{
    static __typeof__(&openat) next;
    struct stat file;
    bool there = true;

    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "openat");
    if (flags & O_CREAT)
        there = fstatat(at, path, &file, 0) == 0;
    return note_open(next(at, path, flags, mode), at, path, flags, there);
}

static mode_t mode_of(int flags, va_list args)
{
    return flags & O_CREAT ? (mode_t)va_arg(args, int) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_noted(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_noted(at, path, flags, mode);
}

int mkostemp(char *path, int flags)
{
    NEXT(mkostemp);
    return note_open(next(path, flags), AT_FDCWD, path, O_CREAT, false);
}

static void note_folder(const char *path)
{
    struct record record = {.kind = RECORD_MKDIR};
    struct stat file;

    if (!place_of(AT_FDCWD, path, &record.folder, record.name) || stat(path, &file) != 0)
        return;
    record.inode = file.st_ino;
    note(&record, NULL, 0);
}

int mkdir(const char *path, mode_t mode)
{
    int rc;

    NEXT(mkdir);
    if ((rc = next(path, mode)) == 0)
        note_folder(path);
    return rc;
}

char *mkdtemp(char *path)
{
    char *made;

    NEXT(mkdtemp);
    if ((made = next(path)) != NULL)
        note_folder(path);
    return made;
}

static void note_gone(int at, const char *path)
{
    struct record record = {.kind = RECORD_UNLINK};

    if (place_of(at, path, &record.folder, record.name))
        note(&record, NULL, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    int rc;

    NEXT(unlinkat);
    if ((rc = next(at, path, flags)) == 0)
        note_gone(at, path);
    return rc;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int renameat2(int at, const char *path, int other_at, const char *other, unsigned flags)
{
    struct record record = {.kind = flags & RENAME_EXCHANGE ? RECORD_EXCHANGE : RECORD_RENAME};
    int rc;

    NEXT(renameat2);
    if ((flags & RENAME_EXCHANGE) && getenv("TD_RECORD_NO_EXCHANGE") != NULL) {
        errno = EINVAL; /* as a file system says that cannot */
        return -1;
    }
    if ((rc = next(at, path, other_at, other, flags)) == 0 && place_of(at, path, &record.folder, record.name) &&
        place_of(other_at, other, &record.other_folder, record.other))
        note(&record, NULL, 0);
    return rc;
}

int rename(const char *path, const char *other)
{
    return renameat2(AT_FDCWD, path, AT_FDCWD, other, 0);
}
