/* The file ahead of what is written: room for it on the disk, and zeros where it comes next. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/store/store_parts.h"

#define AHEAD_BYTES ((uint64_t)8 << 20) /* prepared at a time, */
#define AHEAD_SHARE 64                  /* and of a small map this part */
#define AHEAD_SMALL 32                  /* a commit that grew the file by this part of it takes its time anyway */
#define ROOM_PAGES  64                  /* for the trees and the free list of a transaction */
#define ROOM_BYTES  ((uint64_t)1 << 20) /* and taken beyond, so that few commits must ask */

/* --- room on the disk ------------------------------------------------------ */

/* Where a page that is written anew lies elsewhere than before, having room says nothing. */
static bool copies_on_write(int fd)
{
    static const unsigned long magics[] = {0x9123683e /* btrfs */, 0x2fc12fc1 /* zfs */, 0xca451a4e /* bcachefs */};
    struct statfs info;

    if (fstatfs(fd, &info) != 0)
        return false;
    for (size_t i = 0; i < TD_LEN(magics); i++)
        if (magics[i] == ((unsigned long)info.f_type & 0xfffffffful))
            return true;
    return false;
}

static uint64_t free_bytes(int fd)
{
    struct statvfs info;

    return fstatvfs(fd, &info) == 0 ? (uint64_t)info.f_bavail * info.f_frsize : UINT64_MAX;
}

/* What the user may write into one file. */
static bool over_limit(uint64_t end)
{
    struct rlimit most;

    return getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur != RLIM_INFINITY && end > most.rlim_cur;
}

/* Make the disk keep room for the file's bytes up to `end`. 0 or an errno. */
static int take_room(const struct store *store, int fd, uint64_t end, uint64_t needed)
{
    int rc;

    if (copies_on_write(fd))
        return free_bytes(fd) < needed ? ENOSPC : 0;
    do
        rc = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)store->taken, (off_t)(end - store->taken)) == 0 ? 0 : errno;
    while (rc == EINTR);
    if (rc == EOPNOTSUPP || rc == ENOSYS)
        return free_bytes(fd) < needed ? ENOSPC : 0;
    return rc;
}

/*
 * A disk that is full must be found so before LMDB writes: it takes a short write for a broken disk, and
 * whether a write or a sync had failed it does not tell. The first time holes among the pages are filled,
 * too. How far the transaction reaches is known from above only.
 */
int store_take_room(struct store *store, struct error *err)
{
    uint64_t map = store->identity.map_bytes, needed = store->spent + ROOM_PAGES * store->page, end, more;
    MDB_envinfo info;
    int fd, rc;

    mdb_env_info(store->env, &info);
    end = ((uint64_t)info.me_last_pgno + 1) * store->page + needed;
    end = end < map ? end : map;
    if (over_limit(end))
        return error_set(err, TD_EFULL, "the replay store in %s needs a file of %.1f MB, more than its limit (ulimit -f)",
                         store->dir, (double)end * 1e-6);
    if (end <= store->taken)
        return TD_OK;
    if ((rc = mdb_env_get_fd(store->env, &fd)) != MDB_SUCCESS)
        return store_check(store, rc, "write to", err);
    more = end + ROOM_BYTES < map ? end + ROOM_BYTES : map;
    if ((rc = take_room(store, fd, more, needed)) == 0)
        end = more;
    else if (rc == ENOSPC || rc == EDQUOT)
        rc = take_room(store, fd, end, needed);
    if (rc == ENOSPC || rc == EDQUOT)
        return error_set(err, TD_EFULL,
                         "the disk of the replay store in %s is full: %.1f MB more are needed, %.1f MB are free (%s)",
                         store->dir, (double)needed * 1e-6, (double)free_bytes(fd) * 1e-6,
                         rc == ENOSPC ? "no space left" : "over its quota");
    if (rc != 0)
        return store_check(store, rc, "take room for", err);
    store->taken = end;
    return TD_OK;
}

/* --- zeros ----------------------------------------------------------------- */

/* Write zeros from `from` to `to`; true when all were written. */
static bool write_zeros(int fd, uint64_t from, uint64_t to)
{
    static const char zeros[65536];

    while (from < to) {
        size_t length = to - from < sizeof(zeros) ? (size_t)(to - from) : sizeof(zeros);
        ssize_t wrote = pwrite(fd, zeros, length, (off_t)from);

        if (wrote <= 0)
            return false;
        from += (uint64_t)wrote;
    }
    return true;
}

/*
 * A sync that must also record new blocks waits for the file system's journal, and with it for whatever
 * else the machine writes: tens of milliseconds where overwriting takes one or two. So the file is kept
 * ahead of its pages: while commits are small, what comes next is written with zeros before it is
 * needed: several megabytes at once, since the sync after them does wait. Large commits are left alone:
 * they would write all twice.
 *
 * Only between transactions: then no page behind the last belongs to anyone. Zeros that cannot be
 * written are no harm; what is wrong with the disk the next commit will say.
 */
void store_prepare_file(struct store *store)
{
    uint64_t step = store->identity.map_bytes / AHEAD_SHARE / store->page * store->page;
    uint64_t end, to, used;
    struct stat file;
    MDB_envinfo info;
    int fd;

    mdb_env_info(store->env, &info);
    used = ((uint64_t)info.me_last_pgno + 1) * store->page;
    if (store->used == 0 && mdb_env_get_fd(store->env, &fd) == MDB_SUCCESS && fstat(fd, &file) == 0)
        store->ahead = (uint64_t)file.st_size; /* the first time */
    end = store->used == 0 ? used : store->used;
    store->used = used;
    if (store->ahead < used)
        store->ahead = used;
    step = step < AHEAD_BYTES ? step : AHEAD_BYTES;
    if (used > end + step / AHEAD_SMALL || store->ahead >= used + step / AHEAD_SMALL)
        return;
    to = used + step < store->identity.map_bytes ? used + step : store->identity.map_bytes;
    if (to <= store->ahead || mdb_env_get_fd(store->env, &fd) != MDB_SUCCESS)
        return;
    if (write_zeros(fd, store->ahead, to)) { /* begin now what the next sync would wait for */
        (void)sync_file_range(fd, (off_t)store->ahead, (off_t)(to - store->ahead), SYNC_FILE_RANGE_WRITE);
        if (store->taken >= store->ahead && store->taken < to)
            store->taken = to;
    }
    store->ahead = to;
}
