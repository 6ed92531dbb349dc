#include "common/store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/store/store_parts.h"
#include "common/util/fs.h"

_Static_assert(sizeof(struct manifest_value) == 64, "a disk format");
_Static_assert(sizeof(struct counts_value) == 48, "a disk format");
_Static_assert(sizeof(struct stream_value) == 48, "a disk format");
_Static_assert(sizeof(struct open_value) == 16, "a disk format");
_Static_assert(sizeof(struct store_record) == 40, "a disk format");

#define MAP_BYTES_MIN ((uint64_t)1 << 20)

/* --- errors ---------------------------------------------------------------- */

int store_check(struct store *store, int rc, const char *verb, struct error *err)
{
    int code;

    switch (rc) {
    case MDB_SUCCESS: return TD_OK;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG: code = TD_EFULL; break;
    case ENOMEM: code = TD_ENOMEM; break;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID: code = TD_ECORRUPT; break;
    case MDB_VERSION_MISMATCH: code = TD_EFOREIGN; break;
    default: code = TD_EIO;
    }
    if (code == TD_EIO)
        store->failed = true;
    return error_set(err, code, "cannot %s the replay store in %s: %s%s", verb, store->dir,
                     mdb_strerror(rc),
                     code == TD_ECORRUPT ? "; `tdmpc2 replay salvage` may save its rows" : "");
}

/* --- the transaction ------------------------------------------------------- */

int store_begin(struct store *store, struct error *err)
{
    if (store->failed)
        return error_set(err, TD_EIO, "the replay store in %s failed before and must be reopened",
                         store->dir);
    if (store->txn != NULL)
        return TD_OK;
    return store_check(store, mdb_txn_begin(store->env, NULL, 0, &store->txn), "write to", err);
}

int store_reader(struct store *store, struct error *err)
{
    int rc;

    if (store->reading)
        return TD_OK;
    rc = store->reader == NULL ? mdb_txn_begin(store->env, NULL, MDB_RDONLY, &store->reader)
                               : mdb_txn_renew(store->reader);
    store->reading = rc == MDB_SUCCESS;
    return store_check(store, rc, "read", err);
}

void store_rows_end(store_t *store)
{
    if (store->reading)
        mdb_txn_reset(store->reader);
    store->reading = false;
}

bool store_dirty(const store_t *store)
{
    return store->txn != NULL;
}

/* The committed state is the truth: memory is made from it again. */
void store_abort(store_t *store)
{
    struct error err;

    if (store->txn == NULL)
        return;
    mdb_txn_abort(store->txn);
    store->txn = NULL;
    store_rows_end(store);
    store->spent = 0;
    if (store_load(store, &err) != TD_OK)
        store->failed = true;
}

int store_undo(struct store *store, int rc)
{
    if (rc != TD_OK)
        store_abort(store);
    return rc;
}

static int put(struct store *store, MDB_dbi dbi, const char *name, const void *bytes, size_t length,
               struct error *err)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name};
    MDB_val value = {length, (void *)(uintptr_t)bytes};

    return store_check(store, mdb_put(store->txn, dbi, &key, &value, 0), "write to", err);
}

static int counts_write(struct store *store, struct error *err)
{
    const struct store_counts *counts = &store->counts;
    struct counts_value value = {
        .rows = counts->rows,
        .steps = counts->steps,
        .sealed = counts->sealed,
        .aborted = counts->aborted,
        .generation = counts->generation,
        .learner_epoch = counts->learner_epoch,
        .slots = counts->has_slot ? counts->slot + 1 : 0,
    };

    return put(store, store->meta, "counts", &value, sizeof(value), err);
}

/* Pages on the free list, by walking it. */
static uint64_t free_pages(struct store *store)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t pages = 0;
    struct error err;

    if (store_reader(store, &err) != TD_OK)
        return 0;
    if (mdb_cursor_open(store->reader, 0, &cursor) == MDB_SUCCESS) {
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == MDB_SUCCESS) {
            size_t count = 0;

            if (value.mv_size >= sizeof(count))
                memcpy(&count, value.mv_data, sizeof(count));
            pages += count;
        }
        mdb_cursor_close(cursor);
    }
    store_rows_end(store);
    return pages;
}

/* Room behind the last page is known for nothing; the free list is walked only when that is short. */
static void measure_room(struct store *store)
{
    uint64_t map = store->identity.map_bytes, tail, step = map / 256;
    MDB_envinfo info;

    mdb_env_info(store->env, &info);
    tail = map / store->page - 1;
    tail = tail > info.me_last_pgno ? (tail - info.me_last_pgno) * store->page : 0;
    store->unwalked += store->spent;
    if (tail >= map / 2) {
        store->room = tail;
    } else if (store->room == 0 || store->unwalked >= step || store_full(store)) {
        store->room = tail + free_pages(store) * store->page;
        store->unwalked = 0;
    } else {
        store->room -= store->spent < store->room ? store->spent : store->room;
    }
    store->spent = 0;
}

/* What the transaction published becomes news. */
static int staged_to_news(struct store *store)
{
    int rc = TD_OK;

    if (store->staged_rebuilt) {
        store->news.count = 0;
        store->news_rebuilt = true;
    }
    for (size_t i = 0; i < store->staged.count && !store->news_rebuilt && rc == TD_OK; i++)
        rc = id_list_push(&store->news, store->staged.ids[i]);
    store->staged.count = 0;
    store->staged_rebuilt = false;
    if (rc != TD_OK)
        store->news_rebuilt = true; /* no memory for the list: read all anew */
    return TD_OK;
}

int store_commit(store_t *store, struct error *err)
{
    int rc;

    if (store->txn == NULL)
        return TD_OK;
    store_rows_end(store);
    if ((rc = streams_write(store, err)) != TD_OK || (rc = counts_write(store, err)) != TD_OK)
        return store_undo(store, rc);
    rc = store_check(store, mdb_txn_commit(store->txn), "commit to", err);
    if (rc != TD_OK) { /* LMDB has freed the transaction; nothing of it is on disk */
        store->txn = NULL;
        store->spent = 0;
        if (store_load(store, NULL) != TD_OK)
            store->failed = true;
        return rc;
    }
    store->txn = NULL;
    store->committed = store->counts.sealed;
    measure_room(store);
    return staged_to_news(store);
}

struct store_news store_news(store_t *store)
{
    struct store_news news = {store->news.ids, store->news.count, store->news_rebuilt};

    store->news.count = 0;
    store->news_rebuilt = false;
    return news;
}

/* --- counts ---------------------------------------------------------------- */

const struct store_identity *store_identity(const store_t *store)
{
    return &store->identity;
}

const struct store_counts *store_counts(const store_t *store)
{
    return &store->counts;
}

uint64_t store_committed(const store_t *store)
{
    return store->committed;
}

uint64_t store_room(const store_t *store)
{
    return store->room > store->spent ? store->room - store->spent : 0;
}

/* A sixteenth of the map stays free for sealing what is open and for evicting. */
bool store_full(const store_t *store)
{
    uint64_t reserve = store->identity.map_bytes / 16 + 2 * store->counts.open_rows * store->stride;

    return store_room(store) < reserve + 64 * store->page;
}

/* --- opening --------------------------------------------------------------- */

static int open_tables(struct store *store, MDB_txn *txn, unsigned create)
{
    int rc;

    if ((rc = mdb_dbi_open(txn, "meta", create, &store->meta)) ||
        (rc = mdb_dbi_open(txn, "streams", create, &store->streams_dbi)) ||
        (rc = mdb_dbi_open(txn, "open", create, &store->open)) ||
        (rc = mdb_dbi_open(txn, "episodes", create | MDB_INTEGERKEY, &store->episodes_dbi)) ||
        (rc = mdb_dbi_open(txn, "segments", create | MDB_INTEGERKEY, &store->segments)))
        return rc;
    return MDB_SUCCESS;
}

static int env_open(struct store *store, uint64_t map_bytes, struct error *err)
{
    MDB_stat stat;
    int rc;

    if ((rc = mdb_env_create(&store->env)) || (rc = mdb_env_set_maxdbs(store->env, 8)) ||
        (map_bytes != 0 && (rc = mdb_env_set_mapsize(store->env, map_bytes))) ||
        (rc = mdb_env_open(store->env, store->dir, MDB_NOTLS | MDB_NORDAHEAD, 0644)) ||
        (rc = mdb_env_stat(store->env, &stat)))
        return store_check(store, rc, "open", err);
    store->page = stat.ms_psize;
    return TD_OK;
}

/* A file shorter than its pages would be a SIGBUS when read; as zeros its segments are just bad. */
static int extend_file(struct store *store, struct error *err)
{
    char path[sizeof(store->dir) + 16];
    MDB_envinfo info;
    struct stat file;
    off_t length;

    mdb_env_info(store->env, &info);
    length = (off_t)((info.me_last_pgno + 1) * store->page);
    snprintf(path, sizeof(path), "%s/data.mdb", store->dir);
    if (stat(path, &file) != 0 || (file.st_size < length && truncate(path, length) != 0))
        return error_set_errno(err, TD_EIO, errno, "cannot open %s", path);
    return TD_OK;
}

static void env_close(struct store *store)
{
    if (store->txn != NULL)
        mdb_txn_abort(store->txn);
    if (store->reader != NULL)
        mdb_txn_abort(store->reader);
    if (store->env != NULL)
        mdb_env_close(store->env);
    store->txn = NULL;
    store->reader = NULL;
    store->env = NULL;
}

static uint64_t random_id(void)
{
    uint64_t id = 0;

    while (id == 0)
        TD_ASSERT(getrandom(&id, sizeof(id), 0) == (ssize_t)sizeof(id), "getrandom failed");
    return id;
}

/*
 * A row costs at most about twice its bytes and a little, when episodes are so short that each leaves
 * most of a page empty; the file is sparse, so an ample map costs nothing.
 */
static uint64_t map_bytes_for(const struct store_config *config)
{
    uint64_t stride = row_stride(&config->schema);
    uint64_t bytes = config->map_bytes;

    if (bytes == 0)
        bytes = config->rows * (2 * stride + 256) / 2 * 3;
    if (bytes < MAP_BYTES_MIN)
        bytes = MAP_BYTES_MIN;
    if (config->bytes_limit != 0 && bytes > config->bytes_limit)
        bytes = config->bytes_limit;
    return bytes / 65536 * 65536;
}

uint64_t store_bytes_needed(const struct row_schema *schema, uint64_t rows)
{
    return rows * (row_stride(schema) + row_stride(schema) / 8 + 16);
}

/* Will it fit? Both the limit and the disk are asked before anything is written. */
static int check_space(const struct store_config *config, struct error *err)
{
    uint64_t needed = store_bytes_needed(&config->schema, config->rows), free_bytes;
    int rc;

    if (config->bytes_limit != 0 && config->bytes_limit < needed)
        return error_set(err, TD_EFULL,
                         "%llu rows need %.2f GB, disk_limit is %.2f GB: raise it or lower buffer_size",
                         (unsigned long long)config->rows, (double)needed * 1e-9,
                         (double)config->bytes_limit * 1e-9);
    if ((rc = fs_free_bytes(config->dir, &free_bytes, err)) != TD_OK)
        return rc;
    if (free_bytes < needed && !config->force)
        return error_set(err, TD_EFULL,
                         "%llu rows need %.2f GB, %s has %.2f GB free: choose another replay_dir, "
                         "lower buffer_size, or say force=true",
                         (unsigned long long)config->rows, (double)needed * 1e-9, config->dir,
                         (double)free_bytes * 1e-9);
    return TD_OK;
}

static int create(struct store *store, const struct store_config *config, struct error *err)
{
    uint64_t map_bytes = map_bytes_for(config);
    struct manifest_value manifest = {
        .version = STORE_VERSION,
        .shard = config->shard,
        .schema = config->schema,
        .run_id = config->run_id,
        .store_id = random_id(),
        .map_bytes = map_bytes,
    };
    int rc;

    if ((rc = check_space(config, err)) != TD_OK || (rc = env_open(store, map_bytes, err)) != TD_OK ||
        (rc = store_begin(store, err)) != TD_OK)
        return rc;
    memcpy(manifest.magic, STORE_MAGIC, sizeof(manifest.magic));
    manifest.hash = XXH3_64bits(&manifest, offsetof(struct manifest_value, hash));
    if ((rc = store_check(store, open_tables(store, store->txn, MDB_CREATE), "create", err)) ||
        (rc = put(store, store->meta, "manifest", &manifest, sizeof(manifest), err)) ||
        (rc = counts_write(store, err)))
        return rc;
    rc = store_check(store, mdb_txn_commit(store->txn), "create", err);
    store->txn = NULL;
    store->identity.created = rc == TD_OK;
    return rc != TD_OK ? rc : fs_sync(store->dir, err);
}

/* Read the manifest. TD_ENOTFOUND: its creation was cut short, nothing is in it. */
static int read_manifest(struct store *store, struct manifest_value *manifest, struct error *err)
{
    MDB_val key = {8, (void *)(uintptr_t) "manifest"}, value;
    MDB_txn *txn;
    int rc;

    if ((rc = store_check(store, mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn), "read", err)) != TD_OK)
        return rc;
    rc = open_tables(store, txn, 0);
    if (rc == MDB_NOTFOUND) {
        mdb_txn_abort(txn);
        return error_set(err, TD_ENOTFOUND, "no replay store in %s: its creation was cut short",
                         store->dir);
    }
    if (rc == MDB_SUCCESS)
        rc = mdb_get(txn, store->meta, &key, &value);
    if (rc == MDB_SUCCESS && value.mv_size == sizeof(*manifest))
        memcpy(manifest, value.mv_data, sizeof(*manifest));
    else if (rc == MDB_SUCCESS)
        rc = MDB_CORRUPTED;
    if (rc == MDB_SUCCESS)
        rc = mdb_txn_commit(txn); /* so that the table handles stay */
    else
        mdb_txn_abort(txn);
    if ((rc = store_check(store, rc, "read", err)) != TD_OK)
        return rc;
    if (memcmp(manifest->magic, STORE_MAGIC, sizeof(manifest->magic)) != 0 ||
        manifest->hash != XXH3_64bits(manifest, offsetof(struct manifest_value, hash)))
        return error_set(err, TD_ECORRUPT, "%s is not a replay store, or its manifest is damaged",
                         store->dir);
    return TD_OK;
}

/* Is it ours? Each refusal names both sides. */
static int check_manifest(struct store *store, const struct manifest_value *manifest,
                          const struct store_config *config, struct error *err)
{
    const struct row_schema *has = &manifest->schema, *want = &config->schema;

    if (manifest->version != STORE_VERSION)
        return error_set(err, TD_EFOREIGN, "%s has store version %u, this program writes version %u",
                         store->dir, manifest->version, STORE_VERSION);
    if (row_schema_check(has) != NULL)
        return error_set(err, TD_ECORRUPT, "%s has a damaged manifest", store->dir);
    if (config->run_id != 0 && config->run_id != manifest->run_id)
        return error_set(err, TD_EFOREIGN,
                         "%s belongs to run %016llx, this is run %016llx: choose another replay_dir",
                         store->dir, (unsigned long long)manifest->run_id,
                         (unsigned long long)config->run_id);
    if (want->obs_type != 0 && memcmp(has, want, sizeof(*has)) != 0)
        return error_set(err, TD_EFOREIGN,
                         "%s holds rows of type %u with %u observations and %u actions, this run has "
                         "type %u, %u and %u: choose another replay_dir",
                         store->dir, has->obs_type, has->obs_dim, has->action_dim, want->obs_type,
                         want->obs_dim, want->action_dim);
    if (!config->any_shard && manifest->shard != config->shard)
        return error_set(err, TD_EFOREIGN, "%s belongs to shard %u, this is shard %u", store->dir,
                         manifest->shard, config->shard);
    return TD_OK;
}

static int open_existing(struct store *store, const struct store_config *config, struct error *err)
{
    struct manifest_value manifest;
    int rc;

    if ((rc = env_open(store, 0, err)) != TD_OK || (rc = extend_file(store, err)) != TD_OK)
        return rc;
    rc = read_manifest(store, &manifest, err);
    if (rc == TD_ENOTFOUND && config->schema.obs_type != 0) {
        char path[sizeof(store->dir) + 16];

        env_close(store);
        snprintf(path, sizeof(path), "%s/data.mdb", store->dir);
        if (unlink(path) != 0)
            return error_set_errno(err, TD_EIO, errno, "cannot remove the unfinished %s", path);
        return create(store, config, err);
    }
    return rc != TD_OK ? rc : check_manifest(store, &manifest, config, err);
}

static int read_counts(struct store *store, MDB_txn *txn, struct error *err)
{
    MDB_val key = {6, (void *)(uintptr_t) "counts"}, value;
    struct store_counts *counts = &store->counts;
    struct counts_value read;
    int rc = mdb_get(txn, store->meta, &key, &value);

    if (rc == MDB_SUCCESS && value.mv_size != sizeof(read))
        rc = MDB_CORRUPTED;
    if ((rc = store_check(store, rc, "read", err)) != TD_OK)
        return rc;
    memcpy(&read, value.mv_data, sizeof(read));
    counts->rows = read.rows;
    counts->steps = read.steps;
    counts->sealed = read.sealed;
    counts->aborted = read.aborted;
    counts->generation = read.generation;
    counts->learner_epoch = read.learner_epoch;
    counts->has_slot = read.slots != 0;
    counts->slot = read.slots != 0 ? read.slots - 1 : 0;
    return TD_OK;
}

int store_load(struct store *store, struct error *err)
{
    int rc;

    if ((rc = store_reader(store, err)) != TD_OK)
        return rc;
    if ((rc = read_counts(store, store->reader, err)) == TD_OK &&
        (rc = store_load_episodes(store, store->reader, err)) == TD_OK)
        rc = store_load_streams(store, store->reader, err);
    store_rows_end(store);
    store->committed = store->counts.sealed;
    store->staged.count = 0;
    store->news.count = 0;
    store->staged_rebuilt = false;
    store->news_rebuilt = true;
    return rc;
}

static int adopt_identity(struct store *store, struct error *err)
{
    struct store_identity *identity = &store->identity;
    struct manifest_value manifest;
    MDB_envinfo info;
    int rc = read_manifest(store, &manifest, err);

    if (rc != TD_OK)
        return rc;
    mdb_env_info(store->env, &info);
    identity->run_id = manifest.run_id;
    identity->store_id = manifest.store_id;
    identity->shard = manifest.shard;
    identity->schema = manifest.schema;
    identity->map_bytes = info.me_mapsize;
    store->segment_rows = segment_rows_max(&identity->schema);
    store->stride = row_stride(&identity->schema);
    return TD_OK;
}

/* Folder, file system, lock: what must be right before LMDB may look. */
static int prepare_folder(struct store *store, const struct store_config *config, bool exists,
                          struct error *err)
{
    char path[sizeof(store->dir) + 16];
    const char *kind;
    int rc;

    if (!exists && (rc = fs_mkdirs(config->dir, 0755, err)) != TD_OK)
        return rc;
    kind = config->force ? NULL : fs_unsafe_kind(config->dir);
    if (kind != NULL)
        return error_set(err, TD_EINVAL,
                         "%s lies on %s, where a crash or another host can destroy a replay store: "
                         "choose a local replay_dir, or say force=true",
                         config->dir, kind);
    snprintf(path, sizeof(path), "%s/lock", store->dir);
    return fs_lock(&store->lock_fd, path, config->lock_wait_ms, err);
}

static bool file_exists(const char *dir)
{
    char path[FS_PATH_MAX + 16];
    struct stat file;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    return stat(path, &file) == 0 && file.st_size > 0;
}

int store_open(store_t **out, const struct store_config *config, struct error *err)
{
    bool exists = file_exists(config->dir);
    struct store *store;
    int rc;

    *out = NULL;
    if (strlen(config->dir) >= sizeof(store->dir))
        return error_set(err, TD_EINVAL, "the replay directory's path is too long");
    if (config->schema.obs_type != 0 && row_schema_check(&config->schema) != NULL)
        return error_set(err, TD_EINVAL, "rows cannot be stored: %s",
                         row_schema_check(&config->schema));
    if (!exists && config->schema.obs_type == 0)
        return error_set(err, TD_ENOTFOUND, "no replay store in %s", config->dir);
    if ((store = calloc(1, sizeof(*store))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a replay store");
    store->lock_fd = -1;
    memcpy(store->dir, config->dir, strlen(config->dir) + 1);
    if ((rc = prepare_folder(store, config, exists, err)) != TD_OK)
        goto fail;
    exists = file_exists(config->dir); /* as the last owner left it */
    rc = exists ? open_existing(store, config, err) : create(store, config, err);
    if (rc != TD_OK || (rc = adopt_identity(store, err)) != TD_OK ||
        (rc = store_load(store, err)) != TD_OK)
        goto fail;
    measure_room(store);
    *out = store;
    return TD_OK;

fail:
    store_close(&store);
    return rc;
}

void store_close(store_t **out)
{
    struct store *store = *out;

    if (store == NULL)
        return;
    env_close(store);
    if (store->lock_fd >= 0)
        fs_unlock(&store->lock_fd);
    free(store->streams);
    free(store->episodes);
    free(store->staged.ids);
    free(store->news.ids);
    free(store);
    *out = NULL;
}
