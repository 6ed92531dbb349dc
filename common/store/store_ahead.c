/* The file ahead of what is written. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/store_parts.h"

#define AHEAD_BYTES ((uint64_t)8 << 20) /* prepared at a time, */
#define AHEAD_SHARE 64                  /* and of a small map this part */
#define AHEAD_SMALL 32                  /* a commit that grew the file by this part of it takes its time anyway */

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
    if (write_zeros(fd, store->ahead, to)) /* begin now what the next sync would wait for */
        (void)sync_file_range(fd, (off_t)store->ahead, (off_t)(to - store->ahead), SYNC_FILE_RANGE_WRITE);
    store->ahead = to;
}
