#include "common/util/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/util/clock.h"

#define LOCK_POLL_MS 50

fs_fault_fn *fs_fault;

/* Ask the tests' hook, if any, whether this step shall fail. */
static int fault(const char *operation, const char *path)
{
    int errnum = fs_fault != NULL ? fs_fault(operation, path) : 0;

    if (errnum == 0)
        return 0;
    errno = errnum;
    return -1;
}

/* A path that the person who named it may not use, or that cannot be one. */
static bool is_bad_path(int errnum)
{
    return errnum == EACCES || errnum == EPERM || errnum == EROFS || errnum == ENAMETOOLONG ||
           errnum == ENOTDIR || errnum == ELOOP;
}

static int io_error(struct error *err, const char *verb, const char *path)
{
    int errnum = errno;
    int code = errnum == ENOENT                         ? TD_ENOTFOUND
               : is_bad_path(errnum)                    ? TD_EINVAL
               : errnum == ENOSPC || errnum == EDQUOT   ? TD_EFULL
               : errnum == ENOMEM                       ? TD_ENOMEM
                                                        : TD_EIO;

    return error_set_errno(err, code, errnum, "cannot %s %s", verb, path);
}

int fs_fail(const char *operation, const char *path, struct error *err)
{
    return fault(operation, path) == 0 ? TD_OK : io_error(err, operation, path);
}

int fs_parent(const char *path, char out[FS_PATH_MAX], struct error *err)
{
    size_t length = strlen(path);

    if (length >= FS_PATH_MAX)
        return error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s...", FS_PATH_MAX - 1, path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length == 0) {
        memcpy(out, ".", 2);
        return TD_OK;
    }
    memcpy(out, path, length);
    out[length] = '\0';
    return TD_OK;
}

int fs_join(char out[FS_PATH_MAX], const char *folder, const char *name, struct error *err)
{
    int length = snprintf(out, FS_PATH_MAX, "%s/%s", folder, name);

    if (length < 0 || length >= FS_PATH_MAX)
        return error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s.../%.60s", FS_PATH_MAX - 1,
                         folder, name);
    return TD_OK;
}

bool fs_has(const char *folder, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_join(path, folder, name, NULL) == TD_OK && access(path, F_OK) == 0;
}

bool fs_is_folder(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int fs_sync(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = TD_OK;

    if (fd < 0)
        return io_error(err, "open", path);
    if (fault("sync", path) != 0 || fsync(fd) != 0)
        rc = io_error(err, "sync", path);
    close(fd);
    return rc;
}

static int sync_parent(const char *path, struct error *err)
{
    char folder[FS_PATH_MAX];
    int rc = fs_parent(path, folder, err);

    return rc != TD_OK ? rc : fs_sync(folder, err);
}

static int make_one(const char *path, unsigned mode, struct error *err)
{
    struct stat info;

    if (fault("mkdir", path) != 0)
        return io_error(err, "create folder", path);
    if (mkdir(path, mode) == 0)
        return sync_parent(path, err);
    if (errno != EEXIST)
        return io_error(err, "create folder", path);
    if (stat(path, &info) != 0)
        return io_error(err, "look at", path);
    if (!S_ISDIR(info.st_mode))
        return error_set(err, TD_EINVAL, "%s is in the way: it is not a folder", path);
    return TD_OK;
}

int fs_mkdirs(const char *path, unsigned mode, struct error *err)
{
    char part[FS_PATH_MAX];
    struct stat info;
    size_t length = strlen(path);

    if (length == 0 || length >= sizeof(part))
        return error_set(err, TD_EINVAL, "cannot create a folder named by %zu bytes", length);
    memcpy(part, path, length + 1);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        int rc = TD_OK;

        *slash = '\0';
        /* parents that exist need not be writable, nor even readable */
        if (stat(part, &info) != 0)
            rc = make_one(part, 0755, err);
        *slash = '/';
        if (rc != TD_OK)
            return rc;
    }
    return make_one(part, mode, err);
}

int fs_write_all(int fd, const void *bytes, size_t length, const char *path, struct error *err)
{
    const char *at = bytes;

    while (length > 0) {
        ssize_t wrote;

        if (fault("write", path) != 0)
            return io_error(err, "write", path);
        wrote = write(fd, at, length < (1u << 30) ? length : (1u << 30));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return io_error(err, "write", path);
        at += wrote;
        length -= (size_t)wrote;
    }
    return TD_OK;
}

int fs_rename(const char *from, const char *to, struct error *err)
{
    if (fault("rename", to) != 0 || rename(from, to) != 0)
        return io_error(err, "replace", to);
    return sync_parent(to, err);
}

int fs_exchange(const char *one, const char *other, struct error *err)
{
    int rc;

    if (fault("exchange", other) != 0 || renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) != 0) {
        if (errno == EINVAL || errno == ENOSYS)
            return error_set(err, TD_EINVAL, "cannot exchange %s: not on this file system", other);
        return io_error(err, "exchange", other);
    }
    if ((rc = sync_parent(other, err)) != TD_OK)
        return rc;
    return sync_parent(one, err);
}

static int write_synced(const char *path, const void *bytes, size_t length, struct error *err)
{
    int rc, fd = -1;

    if (fault("create", path) == 0)
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return io_error(err, "create", path);
    rc = fs_write_all(fd, bytes, length, path, err);
    if (rc == TD_OK && (fault("sync", path) != 0 || fsync(fd) != 0))
        rc = io_error(err, "sync", path);
    if (close(fd) != 0 && rc == TD_OK)
        rc = io_error(err, "close", path);
    return rc;
}

int fs_write_file(const char *path, const void *bytes, size_t length, struct error *err)
{
    char beside[FS_PATH_MAX];
    int rc, size = snprintf(beside, sizeof(beside), "%s.tmp", path);

    if (size < 0 || size >= (int)sizeof(beside))
        return error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s...", FS_PATH_MAX - 5, path);
    rc = write_synced(beside, bytes, length, err);
    if (rc == TD_OK)
        rc = fs_rename(beside, path, err);
    if (rc != TD_OK && fault("unlink", beside) == 0)
        unlink(beside);
    return rc;
}

/* Read until end of file or one byte past the limit. */
static int read_all(int fd, size_t limit, char **bytes, size_t *length, const char *path,
                    struct error *err)
{
    size_t capacity = 4096, used = 0;
    char *buffer = NULL;

    for (;;) {
        char *grown = realloc(buffer, capacity + 1);
        ssize_t got;

        if (grown == NULL) {
            free(buffer);
            return error_set(err, TD_ENOMEM, "out of memory reading %s", path);
        }
        buffer = grown;
        got = fault("read", path) != 0 ? -1 : read(fd, buffer + used, capacity - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int rc = io_error(err, "read", path);
            free(buffer);
            return rc;
        }
        used += (size_t)got;
        if (used > limit) {
            free(buffer);
            return error_set(err, TD_EINVAL, "%s is larger than the %zu bytes it may have", path, limit);
        }
        if (got == 0)
            break;
        if (used == capacity)
            capacity *= 2;
    }
    buffer[used] = '\0';
    *bytes = buffer;
    *length = used;
    return TD_OK;
}

int fs_open_file(int *fd, uint64_t *bytes, const char *path, struct error *err)
{
    struct stat info;
    int rc = TD_OK;

    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return io_error(err, "open", path);
    if (fstat(*fd, &info) != 0)
        rc = io_error(err, "look at", path);
    else if (!S_ISREG(info.st_mode))
        rc = error_set(err, TD_EINVAL, "%s is not a file", path);
    else
        *bytes = (uint64_t)info.st_size;
    if (rc != TD_OK) {
        close(*fd);
        *fd = -1;
    }
    return rc;
}

int fs_read_file(const char *path, size_t limit, char **bytes, size_t *length, struct error *err)
{
    uint64_t size;
    size_t ignored;
    int fd, rc;

    *bytes = NULL;
    if ((rc = fs_open_file(&fd, &size, path, err)) != TD_OK)
        return rc;
    rc = read_all(fd, limit, bytes, length != NULL ? length : &ignored, path, err);
    close(fd);
    return rc;
}

static int remove_at(int folder, const char *name, const char *path, struct error *err);

static int remove_entries(int fd, const char *path, struct error *err)
{
    DIR *list = fdopendir(fd);
    struct dirent *entry;
    int rc = TD_OK;

    if (list == NULL) {
        close(fd);
        return io_error(err, "list", path);
    }
    while (rc == TD_OK && (errno = 0, entry = readdir(list)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = remove_at(dirfd(list), entry->d_name, path, err);
    if (rc == TD_OK && errno != 0)
        rc = io_error(err, "list", path);
    closedir(list);
    return rc;
}

/* `path` only names the tree in messages. */
static int remove_at(int folder, const char *name, const char *path, struct error *err)
{
    int fd, rc;

    if (fault("unlink", name) != 0)
        return io_error(err, "remove", path);
    if (unlinkat(folder, name, 0) == 0 || errno == ENOENT)
        return TD_OK;
    if (errno != EISDIR && errno != EPERM)
        return io_error(err, "remove", path);
    fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return io_error(err, "remove", path);
    rc = remove_entries(fd, path, err);
    if (rc == TD_OK && unlinkat(folder, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        rc = io_error(err, "remove", path);
    return rc;
}

int fs_remove_tree(const char *path, struct error *err)
{
    return remove_at(AT_FDCWD, path, path, err);
}

/* "running", "sleeping", ... of a process of this machine, or NULL. */
static const char *process_state(long pid)
{
    char path[64], text[512], *close_paren;
    size_t got;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    file = fopen(path, "re");
    if (file == NULL)
        return NULL;
    got = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[got] = '\0';
    close_paren = strrchr(text, ')');
    if (close_paren == NULL || close_paren[1] == '\0')
        return NULL;
    switch (close_paren[2]) {
    case 'R':
    case 'S':
        return "running";
    case 'D':
        return "waiting for a disk";
    case 'T':
    case 't':
        return "stopped";
    case 'Z':
        return "a zombie";
    default:
        return "ending";
    }
}

static void lock_host(char out[64])
{
    if (gethostname(out, 64) != 0)
        memcpy(out, "?", 2);
    out[63] = '\0';
}

static int locked_error(int fd, const char *path, struct error *err)
{
    char text[128], host[64] = "", here[64];
    ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
    long pid = 0;

    text[got > 0 ? got : 0] = '\0';
    if (sscanf(text, "%ld %63s", &pid, host) < 1 || pid <= 0)
        return error_set(err, TD_ELOCKED, "%s is locked by another process, which left no name", path);
    lock_host(here);
    if (host[0] != '\0' && strcmp(host, here) != 0)
        return error_set(err, TD_ELOCKED, "%s is locked by process %ld on %s", path, pid, host);
    const char *how = process_state(pid);
    return error_set(err, TD_ELOCKED, "%s is locked by process %ld (%s)", path, pid,
                     how != NULL ? how : "not visible from here");
}

/* The name is for people; the lock holds without it, on a full disk too. */
static int lock_sign(int fd, const char *path, struct error *err)
{
    char text[128], host[64];
    ssize_t wrote;
    int length;

    lock_host(host);
    length = snprintf(text, sizeof(text), "%ld %s\n", (long)getpid(), host);
    if (ftruncate(fd, 0) != 0)
        return io_error(err, "write", path);
    do
        wrote = pwrite(fd, text, (size_t)length, 0);
    while (wrote < 0 && errno == EINTR);
    if (wrote < 0 && errno != ENOSPC && errno != EDQUOT)
        return io_error(err, "write", path);
    return TD_OK;
}

static int take_lock(int *fd, const char *path, int flags, uint64_t wait_ms, struct error *err)
{
    uint64_t deadline = clock_ms() + wait_ms;
    int rc;

    *fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (*fd < 0)
        return io_error(err, "open", path);
    while (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            rc = io_error(err, "lock", path);
            goto fail;
        }
        if (clock_ms() >= deadline) {
            rc = locked_error(*fd, path, err);
            goto fail;
        }
        clock_sleep_ms(LOCK_POLL_MS);
    }
    return TD_OK;
fail:
    close(*fd);
    *fd = -1;
    return rc;
}

int fs_lock(int *fd, const char *path, uint64_t wait_ms, struct error *err)
{
    int rc = take_lock(fd, path, O_RDWR | O_CREAT, wait_ms, err);

    if (rc == TD_OK && (rc = lock_sign(*fd, path, err)) != TD_OK) {
        close(*fd);
        *fd = -1;
    }
    return rc;
}

int fs_lock_reading(int *fd, const char *path, uint64_t wait_ms, struct error *err)
{
    int rc = take_lock(fd, path, O_RDONLY, wait_ms, err);

    return rc == TD_ENOTFOUND ? TD_OK : rc; /* nobody ever owned it */
}

void fs_unlock(int *fd)
{
    if (*fd < 0)
        return;
    if (ftruncate(*fd, 0) != 0)
        errno = 0; /* only the name stays behind */
    close(*fd);
    *fd = -1;
}

long fs_lock_owner(const char *path)
{
    char text[128], host[64] = "", here[64];
    long pid = 0;
    ssize_t got;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return 0;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        close(fd); /* nobody held it */
        return 0;
    }
    got = pread(fd, text, sizeof(text) - 1, 0);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    lock_host(here);
    if (sscanf(text, "%ld %63s", &pid, host) < 2 || pid <= 0 || strcmp(host, here) != 0)
        return -1;
    return pid;
}

static void hex_digits(const unsigned char *digest, char hex[FS_SHA256_HEX])
{
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void fs_sha256(const void *bytes, size_t length, char hex[FS_SHA256_HEX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    int ok = EVP_Digest(bytes, length, digest, NULL, EVP_sha256(), NULL);

    TD_ASSERT(ok == 1, "SHA-256 of %zu bytes", length);
    hex_digits(digest, hex);
}

static int digest_fd(EVP_MD_CTX *context, int fd, const char *path, struct error *err)
{
    enum { PIECE = 1 << 18 };
    char *piece = malloc(PIECE);
    int rc = piece != NULL ? TD_OK : error_set(err, TD_ENOMEM, "out of memory reading %s", path);

    while (rc == TD_OK) {
        ssize_t got = read(fd, piece, PIECE);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            rc = io_error(err, "read", path);
        else if (got > 0)
            EVP_DigestUpdate(context, piece, (size_t)got);
        else
            break;
    }
    free(piece);
    return rc;
}

int fs_sha256_file(const char *path, char hex[FS_SHA256_HEX], struct error *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *context;
    int rc, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return io_error(err, "open", path);
    context = EVP_MD_CTX_new();
    if (context == NULL || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1)
        rc = error_set(err, TD_ENOMEM, "out of memory reading %s", path);
    else
        rc = digest_fd(context, fd, path, err);
    if (rc == TD_OK) {
        EVP_DigestFinal_ex(context, digest, NULL);
        hex_digits(digest, hex);
    }
    EVP_MD_CTX_free(context);
    close(fd);
    return rc;
}

/* Climb until something exists: a folder about to be made is judged by its parent. */
static int existing_parent(const char *path, char out[FS_PATH_MAX], struct error *err)
{
    struct stat info;

    if (strlen(path) >= FS_PATH_MAX)
        return error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s...", FS_PATH_MAX - 1, path);
    snprintf(out, FS_PATH_MAX, "%s", path);
    while (stat(out, &info) != 0) {
        char folder[FS_PATH_MAX];
        int rc = errno == ENAMETOOLONG ? io_error(err, "make", path) : fs_parent(out, folder, err);

        if (rc != TD_OK)
            return rc;
        if (strcmp(folder, out) == 0)
            return io_error(err, "look at", path);
        memcpy(out, folder, FS_PATH_MAX);
    }
    return TD_OK;
}

const char *fs_kind_of_magic(unsigned long magic)
{
    static const struct {
        unsigned long magic;
        const char *name;
    } kinds[] = {
        {0x6969, "nfs"},           {0x517b, "smb"},         {0xff534d42, "cifs"},
        {0xfe534d42, "smb2"},      {0x0bd00bd0, "lustre"},  {0x794c7630, "overlay"},
        {0x65735546, "fuse"},      {0x01021997, "9p"},      {0x00c36400, "ceph"},
        {0x47504653, "gpfs"},      {0x19830326, "beegfs"},  {0x5346414f, "afs"},
        {0x6b414653, "afs"},       {0x73757245, "coda"},    {0x61756673, "aufs"},
        {0x786f4256, "vboxsf"},    {0xbacbacbc, "vmhgfs"},  {0x01161970, "gfs2"},
        {0x7461636f, "ocfs2"},     {0xaad7aaea, "panfs"},   {0x20030528, "orangefs"},
    };

    for (size_t i = 0; i < TD_LEN(kinds); i++)
        if (kinds[i].magic == magic)
            return kinds[i].name;
    return NULL;
}

const char *fs_unsafe_kind(const char *path)
{
    char exists[FS_PATH_MAX];
    struct statfs info;

    if (existing_parent(path, exists, NULL) != TD_OK || statfs(exists, &info) != 0)
        return NULL;
    return fs_kind_of_magic((unsigned long)info.f_type & 0xfffffffful);
}

int fs_free_bytes(const char *path, uint64_t *bytes, struct error *err)
{
    char exists[FS_PATH_MAX];
    struct statvfs info;
    int rc = existing_parent(path, exists, err);

    if (rc != TD_OK)
        return rc;
    if (statvfs(exists, &info) != 0)
        return io_error(err, "ask for the free space of", exists);
    *bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return TD_OK;
}

int fs_check_writable(const char *path, struct error *err)
{
    char exists[FS_PATH_MAX], probe[FS_PATH_MAX];
    struct stat info;
    int rc;

    if ((rc = existing_parent(path, exists, err)) != TD_OK || (rc = fs_join(probe, exists, ".tdmpc2-XXXXXX", err)) != TD_OK)
        return rc;
    if (stat(exists, &info) != 0 || !S_ISDIR(info.st_mode))
        return error_set(err, TD_EINVAL, "%s cannot be a folder: %s is a file", path, exists);
    if (mkdtemp(probe) == NULL)
        return error_set_errno(err, TD_EINVAL, errno, "cannot write into %s", exists);
    if (rmdir(probe) != 0)
        return io_error(err, "remove", probe);
    return TD_OK;
}

int fs_program_dir(char out[FS_PATH_MAX], struct error *err)
{
    char path[FS_PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

    if (length < 0)
        return io_error(err, "find the program behind", "/proc/self/exe");
    path[length] = '\0';
    return fs_parent(path, out, err);
}
