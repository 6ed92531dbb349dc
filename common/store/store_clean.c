/* Was the store closed cleanly, is its tree whole; what LMDB would believe without asking. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/store/store_parts.h"
#include "common/store/tree.h"
#include "common/util/fs.h"

#define MARK_NAME  "closed"
#define MARK_MAGIC "TDCLOSE1"
#define META_BYTES STORE_META_BYTES /* its last word is the number of the last transaction */
#define META_MAGIC_AT 16
#define META_MAGIC 0xBEEFC0DEu
#define FRONT      65536u /* of the file: metas and what follows */
#define BULK_SEGMENTS ((uint64_t)1 << 20) /* a table of more is not walked after a clean close */

/* The file `closed` is there while nobody has the store open, and was closed last by one who could. */
struct mark {
    char magic[8];
    uint64_t file_bytes;
    uint64_t front; /* hash of the file's first bytes, both metas among them */
    uint64_t hash;  /* of the above */
};

static int data_path(char path[FS_PATH_MAX], const struct store *store, struct error *err)
{
    return fs_join(path, store->dir, "data.mdb", err);
}

static bool make_mark(const struct store *store, struct mark *mark)
{
    char path[FS_PATH_MAX], front[FRONT];
    struct stat file;
    ssize_t got = -1;
    int fd;

    if (data_path(path, store, NULL) != TD_OK || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return false;
    if (fstat(fd, &file) == 0)
        got = pread(fd, front, sizeof(front), 0);
    close(fd);
    if (got <= 0)
        return false;
    memcpy(mark->magic, MARK_MAGIC, sizeof(mark->magic));
    mark->file_bytes = (uint64_t)file.st_size;
    mark->front = XXH3_64bits(front, (size_t)got);
    mark->hash = XXH3_64bits(mark, offsetof(struct mark, hash));
    return true;
}

static bool closed_cleanly(const struct store *store)
{
    char path[FS_PATH_MAX], *bytes = NULL;
    struct mark now;
    size_t length = 0;
    bool same;

    if (fs_join(path, store->dir, MARK_NAME, NULL) != TD_OK || access(path, F_OK) != 0 ||
        fs_read_file(path, sizeof(now), &bytes, &length, NULL) != TD_OK)
        return false;
    same = length == sizeof(now) && make_mark(store, &now) && memcmp(&now, bytes, sizeof(now)) == 0;
    free(bytes);
    return same;
}

struct tree_options store_tree_options(void)
{
    static const struct tree_table tables[] = {
        {.name = "meta", .runs_whole = true},
        {.name = "streams", .key_size = sizeof(struct stream_key), .runs_whole = true},
        {.name = "open", .key_size = sizeof(struct open_key), .runs_whole = true},
        {.name = "episodes", .flags = MDB_INTEGERKEY, .key_size = sizeof(uint64_t), .runs_whole = true, .soon = true},
        {.name = "segments", .flags = MDB_INTEGERKEY, .key_size = sizeof(uint64_t), .runs_whole = true, .bulk = true},
    };

    return (struct tree_options){.tables = tables, .table_count = TD_LEN(tables)};
}

/*
 * After a clean close nothing but rot is expected: no process of its own for that. Milliseconds at a million rows;
 * of data sets of millions of episodes only the index is read, not where all segments are.
 */
static int walk_here(const struct store *store, struct error *err)
{
    struct tree_options options = store_tree_options();
    char path[FS_PATH_MAX];
    int rc = data_path(path, store, err), fd;

    if (rc != TD_OK)
        return rc;
    options.bulk_most = BULK_SEGMENTS;
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return error_set_errno(err, errno == EACCES ? TD_EINVAL : TD_EIO, errno, "cannot open %s", path);
    rc = tree_walk(fd, path, &options, err);
    close(fd);
    return rc;
}

static int walk(const struct store *store, bool deep, store_progress *progress, void *context,
                struct error *err)
{
    struct tree_options options = store_tree_options();
    char path[FS_PATH_MAX];
    int rc = data_path(path, store, err);

    options.deep = deep;
    options.progress = progress;
    options.context = context;

    return rc != TD_OK ? rc : tree_check(path, &options, err);
}

/* Zeros, or a meta as LMDB writes it before there is any transaction. */
static bool empty_meta(const char *bytes)
{
    static const char zeros[META_BYTES];
    uint64_t transaction;
    uint32_t magic;

    memcpy(&transaction, bytes + META_BYTES - sizeof(transaction), sizeof(transaction));
    memcpy(&magic, bytes + META_MAGIC_AT, sizeof(magic));
    return transaction == 0 && (magic == META_MAGIC || memcmp(bytes, zeros, META_BYTES) == 0);
}

/*
 * LMDB writes two metas without a transaction first, and syncs them only with the pages of the first one: a
 * crash may leave any part of all that. Neither meta knows a transaction then, the file is short, holds no
 * segment, and was never closed.
 */
static bool unfinished(const struct store *store)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char path[FS_PATH_MAX], bytes[FRONT] = "";
    struct stat file;
    ssize_t got = -1;
    int fd;

    if (page > FRONT / 2 || fs_join(path, store->dir, MARK_NAME, NULL) != TD_OK || access(path, F_OK) == 0 ||
        data_path(path, store, NULL) != TD_OK || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return false;
    if (fstat(fd, &file) == 0 && file.st_size <= (off_t)FRONT)
        got = pread(fd, bytes, sizeof(bytes), 0);
    close(fd);
    return got >= 0 && empty_meta(bytes) && empty_meta(bytes + page) &&
           memmem(bytes, (size_t)got, SEGMENT_MAGIC, strlen(SEGMENT_MAGIC)) == NULL;
}

void store_condemn(store_t *store, const struct error *why)
{
    char path[FS_PATH_MAX];

    store->failed = true;
    if (!store->read_only && fs_join(path, store->dir, STORE_CONDEMNED, NULL) == TD_OK)
        (void)fs_write_file(path, why->text, strlen(why->text), NULL); /* else it fails again, and says so again */
}

static int check_condemned(const struct store *store, struct error *err)
{
    char path[FS_PATH_MAX], *text = NULL;
    size_t length = 0;
    int rc = TD_OK;

    if (fs_join(path, store->dir, STORE_CONDEMNED, NULL) != TD_OK || access(path, F_OK) != 0)
        return TD_OK;
    if (fs_read_file(path, 4096, &text, &length, NULL) == TD_OK)
        rc = error_set(err, TD_ECORRUPT, "%s was found damaged while in use: %.400s", store->dir, text);
    else
        rc = error_set(err, TD_ECORRUPT, "%s was found damaged while in use", store->dir);
    free(text);
    return rc;
}

int clean_check(struct store *store, const struct store_config *config, struct error *err)
{
    int rc = config->reading ? TD_OK : check_condemned(store, err);

    if (rc != TD_OK)
        return rc;
    store->was_clean = closed_cleanly(store);
    if (!config->check && store->was_clean)
        rc = walk_here(store, err);
    else if (unfinished(store))
        return error_set(err, TD_ENOTFOUND, "no replay store in %s: its creation was cut short", store->dir);
    else
        rc = walk(store, config->check, config->progress, config->context, err);
    store->checked = rc == TD_OK;
    return rc;
}

/* A store that was closed cannot have become an empty file, or none, but by damage. */
int clean_missing(const struct store *store, struct error *err)
{
    char path[FS_PATH_MAX];

    if (fs_join(path, store->dir, MARK_NAME, NULL) != TD_OK || access(path, F_OK) != 0)
        return TD_OK;
    return error_set(err, TD_ECORRUPT,
                     "%s/data.mdb is gone or empty, and was neither when its shard closed it: bring it "
                     "back, or remove %s to begin anew", store->dir, path);
}

int clean_forget(const struct store *store, struct error *err)
{
    char path[FS_PATH_MAX];
    int rc = fs_join(path, store->dir, MARK_NAME, err);

    if (rc != TD_OK)
        return rc;
    if (unlink(path) == 0)
        return fs_sync(store->dir, err);
    return errno == ENOENT ? TD_OK : error_set_errno(err, TD_EIO, errno, "cannot remove %s", path);
}

/* One that cannot be left costs a walk next time, no more. */
void clean_leave(const struct store *store)
{
    char path[FS_PATH_MAX];
    struct mark mark;

    if (fs_join(path, store->dir, MARK_NAME, NULL) == TD_OK && make_mark(store, &mark))
        (void)fs_write_file(path, &mark, sizeof(mark), NULL);
}

/* Through interruptions and short writes. */
static bool write_whole(int fd, const void *bytes, size_t length, off_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t wrote = pwrite(fd, (const char *)bytes + done, length - done, offset + (off_t)done);

        if (wrote == 0 || (wrote < 0 && errno != EINTR))
            return false;
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return true;
}

/* --- a commit that fails ---------------------------------------------------- */

void clean_copy_metas(const struct store *store, struct store_metas *metas)
{
    for (int i = 0; i < 2; i++)
        memcpy(metas->bytes[i], store->map + (size_t)i * store->page, META_BYTES);
}

static uint64_t meta_transaction(const char *meta)
{
    uint64_t transaction;

    memcpy(&transaction, meta + META_BYTES - sizeof(transaction), sizeof(transaction));
    return transaction;
}

/*
 * When the write of a meta fails LMDB hides what it may have left by the number of the transaction before,
 * but leaves it the new trees: a walk would find them newer than their number. The older meta is put
 * back as it was; nobody reads it unless the other is lost.
 */
void clean_restore_meta(const struct store *store, const struct store_metas *metas)
{
    int fd, older = meta_transaction(metas->bytes[0]) > meta_transaction(metas->bytes[1]);

    if (mdb_env_get_fd(store->env, &fd) == MDB_SUCCESS)
        (void)write_whole(fd, metas->bytes[older], META_BYTES, (off_t)((size_t)older * store->page));
}

/* --- reading that fails ----------------------------------------------------- */

static char last_words[FS_PATH_MAX + 256];
static size_t last_length;

static void on_bus_error(int signum)
{
    (void)signum;
    if (write(STDERR_FILENO, last_words, last_length) < 0)
        _exit(TD_EXIT_GAVE_UP);
    _exit(TD_EXIT_GAVE_UP);
}

void store_guard(const char *dir)
{
    struct sigaction action = {.sa_handler = on_bus_error};
    int length = snprintf(last_words, sizeof(last_words),
                          "tdmpc2: %s/data.mdb can't be read: its disk failed, or it was cut short while in "
                          "use; started again the shard checks it, `tdmpc2 replay verify` tells more\n",
                          dir);

    last_length = length < (int)sizeof(last_words) ? (size_t)length : sizeof(last_words) - 1;
    sigaction(SIGBUS, &action, NULL);
}

/* --- overflow runs --------------------------------------------------------- */

/* As LMDB has it in front of a run. */
struct run_head {
    uint64_t number;
    uint16_t pad, flags;
    uint32_t pages;
};
#define RUN_FLAGS 4u

/*
 * A page's header tells its number, so where it lies tells where the file begins in memory; believed
 * only if the file has the same bytes there.
 */
int store_find_map(struct store *store, const MDB_val *value)
{
    const char *page = (const char *)((uintptr_t)value->mv_data / store->page * store->page);
    char bytes[65536];
    uint64_t number;
    MDB_envinfo info;
    ssize_t got;
    int fd;

    mdb_env_info(store->env, &info);
    memcpy(&number, page, sizeof(number));
    if (store->page > sizeof(bytes) || number > info.me_last_pgno || mdb_env_get_fd(store->env, &fd) != MDB_SUCCESS)
        return MDB_CORRUPTED;
    do
        got = pread(fd, bytes, store->page, (off_t)(number * store->page));
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno;
    if (got != (ssize_t)store->page || memcmp(bytes, page, store->page) != 0)
        return MDB_CORRUPTED;
    store->map = page - number * store->page;
    return MDB_SUCCESS;
}

/*
 * Both the run's header and the node that led here name its length. They differ when one is damaged:
 * the walk of the tree tells whether it is the node.
 */
int store_mend_run(struct store *store, const MDB_val *value, struct error *err)
{
    size_t offset = (uintptr_t)value->mv_data - (uintptr_t)store->map;
    struct run_head head, want;
    int fd, rc;

    if ((const char *)value->mv_data < store->map || offset >= store->identity.map_bytes ||
        offset % store->page != sizeof(head))
        return TD_OK; /* in a leaf, or of the open transaction */
    memcpy(&head, store->map + offset - sizeof(head), sizeof(head));
    want = (struct run_head){.number = offset / store->page, .pad = head.pad, .flags = RUN_FLAGS,
                             .pages = (uint32_t)((sizeof(head) + value->mv_size + store->page - 1) / store->page)};
    if (memcmp(&head, &want, sizeof(head)) == 0)
        return TD_OK;
    if (!store->checked && (rc = walk(store, false, NULL, NULL, err)) != TD_OK) {
        store->failed = true;
        return rc;
    }
    store->checked = true;
    if (store->read_only) /* the length that matters is the node's */
        return TD_OK;
    if (mdb_env_get_fd(store->env, &fd) != MDB_SUCCESS ||
        !write_whole(fd, &want, sizeof(want), (off_t)(offset - sizeof(head)))) {
        store->failed = true;
        return error_set_errno(err, TD_EIO, errno, "cannot mend page %llu of the replay store in %s",
                               (unsigned long long)want.number, store->dir);
    }
    return TD_OK;
}
