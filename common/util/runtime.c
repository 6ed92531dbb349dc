#include "common/util/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/util/fs.h"

/*
 * Younger ones may be between bind and listen. Ages are by the wall clock, since file systems stamp with no other:
 * a jump makes what is there old or young, but only what nobody listens on, or is empty, goes.
 */
#define OLD_SOCKET_S 60

static int make_private(const char *path, struct error *err)
{
    struct stat info;

    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return error_set_errno(err, TD_EIO, errno, "cannot make the folder %s for sockets", path);
    if (lstat(path, &info) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot read the folder %s", path);
    if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0)
        return error_set(err, TD_EINVAL,
                         "%s must be a folder of yours that nobody else may enter (mode 0700); "
                         "remove it or set TDMPC2_RUNTIME_DIR to another",
                         path);
    return TD_OK;
}

/* True when nobody listens on this socket any more. */
static bool socket_dead(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, rc;

    if (strlen(path) >= sizeof(address.sun_path))
        return false;
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    rc = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;
    close(fd);
    return rc == ECONNREFUSED;
}

static void remove_dead_sockets(const char *folder)
{
    char path[FS_PATH_MAX + 300];
    struct dirent *entry;
    struct stat info;
    DIR *dir = opendir(folder);

    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (lstat(path, &info) == 0 && S_ISSOCK(info.st_mode) &&
            time(NULL) - info.st_mtime > OLD_SOCKET_S && socket_dead(path))
            unlink(path);
    }
    closedir(dir);
}

/* Folders of runs that are over; a young one may be about to be used. */
static void sweep(const char *base)
{
    char path[FS_PATH_MAX];
    struct dirent *entry;
    struct stat info;
    DIR *dir = opendir(base);

    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        if (strlen(entry->d_name) != 16 || strspn(entry->d_name, "0123456789abcdef") != 16)
            continue;
        snprintf(path, sizeof(path), "%s/%s", base, entry->d_name);
        remove_dead_sockets(path);
        if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode) && time(NULL) - info.st_mtime > OLD_SOCKET_S)
            rmdir(path); /* fails unless it is empty */
    }
    closedir(dir);
}

/* Not $XDG_RUNTIME_DIR: that folder goes when its user logs out, and runs outlive a login. */
void runtime_base(char out[RUNTIME_BASE_MAX])
{
    const char *own = getenv("TDMPC2_RUNTIME_DIR");

    if (own != NULL && own[0] == '/')
        snprintf(out, RUNTIME_BASE_MAX, "%s", own);
    else
        snprintf(out, RUNTIME_BASE_MAX, "/tmp/tdmpc2-%u", (unsigned)geteuid());
}

static int private_base(char base[RUNTIME_BASE_MAX], struct error *err)
{
    runtime_base(base);
    if (strlen(base) + 1 + 16 >= RUNTIME_PATH_MAX - 20)
        return error_set(err, TD_EINVAL,
                         "the folder %s is too long for sockets; set TDMPC2_RUNTIME_DIR to a shorter "
                         "one", base);
    return make_private(base, err);
}

int runtime_check(struct error *err)
{
    char base[RUNTIME_BASE_MAX], folder[RUNTIME_BASE_MAX + 24];
    int rc = private_base(base, err);

    if (rc != TD_OK)
        return rc == TD_EIO ? TD_EINVAL : rc;
    snprintf(folder, sizeof(folder), "%s/%08x", base, (unsigned)getpid()); /* no name of a run's: nobody sweeps it */
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return error_set_errno(err, TD_EINVAL, errno,
                               "cannot make a folder for sockets in %s: make room, or set TDMPC2_RUNTIME_DIR to another", base);
    (void)rmdir(folder);
    return TD_OK;
}

int runtime_folder(char out[RUNTIME_PATH_MAX], uint64_t key, struct error *err)
{
    char base[RUNTIME_BASE_MAX];
    int rc;

    if ((rc = private_base(base, err)) != TD_OK)
        return rc;
    snprintf(out, RUNTIME_PATH_MAX, "%.75s/%016" PRIx64, base, key);
    if ((rc = make_private(out, err)) != TD_OK)
        return rc;
    utimensat(AT_FDCWD, out, NULL, 0); /* young again: nobody sweeps it now */
    sweep(base);
    return TD_OK;
}

uint64_t runtime_key(const char *run_dir)
{
    char path[FS_PATH_MAX];
    char *real = realpath(run_dir, NULL);
    uint64_t key;

    snprintf(path, sizeof(path), "%s", real != NULL ? real : run_dir);
    free(real);
    key = XXH64(path, strlen(path), 0);
    return key;
}
