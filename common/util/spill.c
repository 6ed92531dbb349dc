#include "common/util/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/util/fs.h"

struct spill {
    int fd;
    uint64_t bytes;
    char folder[FS_PATH_MAX];
};

/* Where O_TMPFILE is not known the name is taken away at once. */
static int open_nameless(const char *folder, struct error *err)
{
    char path[FS_PATH_MAX];
    int fd = fs_fail("tmpfile", folder, NULL) != TD_OK ? -1 : open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 || fs_join(path, folder, "spill.XXXXXX", err) != TD_OK)
        return fd;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

int spill_open(spill_t **out, const char *folder, uint64_t bytes, struct error *err)
{
    spill_t *spill = calloc(1, sizeof(*spill));
    int rc = TD_OK;

    *out = spill;
    if (spill == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    spill->bytes = bytes;
    snprintf(spill->folder, sizeof(spill->folder), "%s", folder);
    spill->fd = open_nameless(folder, err);
    if (spill->fd < 0)
        rc = error_set_errno(err, TD_EIO, errno, "cannot make a file in %s", folder);
    else if ((rc = fs_fail("write", folder, err)) == TD_OK && fallocate(spill->fd, 0, 0, (off_t)bytes) != 0 &&
             errno != EOPNOTSUPP)
        rc = error_set_errno(err, errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? TD_EFULL : TD_EIO, errno,
                             "no room for %.1f GB in %s", (double)bytes * 1e-9, folder);
    if (rc != TD_OK)
        spill_close(out);
    return rc;
}

void spill_close(spill_t **spill)
{
    if (*spill == NULL)
        return;
    if ((*spill)->fd >= 0)
        close((*spill)->fd);
    free(*spill);
    *spill = NULL;
}

int spill_write(const spill_t *spill, uint64_t at, const void *bytes, size_t length, struct error *err)
{
    const char *next = bytes;
    int rc = fs_fail("write", spill->folder, err);

    TD_ASSERT(at <= spill->bytes && length <= spill->bytes - at, "%zu bytes at %llu", length, (unsigned long long)at);
    while (rc == TD_OK && length > 0) {
        ssize_t put = pwrite(spill->fd, next, length, (off_t)at);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return error_set_errno(err, TD_EIO, errno, "cannot write to a file in %s", spill->folder);
        next += put;
        at += (uint64_t)put;
        length -= (size_t)put;
    }
    return rc;
}

int spill_read(const spill_t *spill, uint64_t at, void *out, size_t length, struct error *err)
{
    char *next = out;
    int rc = fs_fail("read", spill->folder, err);

    TD_ASSERT(at <= spill->bytes && length <= spill->bytes - at, "%zu bytes at %llu", length, (unsigned long long)at);
    while (rc == TD_OK && length > 0) {
        ssize_t got = pread(spill->fd, next, length, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return error_set_errno(err, TD_EIO, got < 0 ? errno : EIO, "cannot read a file in %s", spill->folder);
        next += got;
        at += (uint64_t)got;
        length -= (size_t)got;
    }
    return rc;
}
