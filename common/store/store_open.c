/* store_open.c - making, finding and checking a store; nothing is trusted before it is checked. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/store/store_parts.h"
#include "common/util/fs.h"

#define MAP_BYTES_MIN ((uint64_t)1 << 20)

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

/* LMDB's own doubt about its file: it would abort. */
static void on_assert(MDB_env *env, const char *what)
{
    const struct store *store = mdb_env_get_userctx(env);

    fprintf(stderr, "tdmpc2: %s/data.mdb is damaged (%s); started again the shard checks it, `tdmpc2 replay verify` "
            "tells more\n", store->dir, what);
    _exit(TD_EXIT_GAVE_UP);
}

static int env_open(struct store *store, uint64_t map_bytes, unsigned flags, struct error *err)
{
    MDB_stat stat;
    int rc;

    if ((rc = mdb_env_create(&store->env)) || (rc = mdb_env_set_maxdbs(store->env, 8)) ||
        (rc = mdb_env_set_userctx(store->env, store)) || (rc = mdb_env_set_assert(store->env, on_assert)) ||
        (map_bytes != 0 && (rc = mdb_env_set_mapsize(store->env, map_bytes))) ||
        (rc = mdb_env_open(store->env, store->dir, MDB_NOTLS | MDB_NORDAHEAD | flags, 0644)) ||
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

/* Where nothing may be written nothing is mended either. */
static int check_length(struct store *store, struct error *err)
{
    char path[sizeof(store->dir) + 16];
    MDB_envinfo info;
    struct stat file;

    mdb_env_info(store->env, &info);
    snprintf(path, sizeof(path), "%s/data.mdb", store->dir);
    if (stat(path, &file) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot open %s", path);
    if (file.st_size < (off_t)((info.me_last_pgno + 1) * store->page))
        return error_set(err, TD_ECORRUPT, "%s is cut short: what is left can be read by those who may write it", path);
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

#define PAGE ((uint64_t)4096) /* LMDB's, where nothing is open yet */

/* Full segments of frames fill their pages but for a percent; as much again is for an episode's last one. */
uint64_t store_row_bytes(uint32_t obs_dim, uint32_t action_dim)
{
    return row_stride(&(struct row_schema){OBS_STATE, obs_dim, action_dim});
}

uint64_t store_bytes_needed(const struct row_schema *schema, uint64_t rows, uint64_t row_bytes)
{
    uint32_t most = segment_rows_max(schema);
    uint64_t stride = row_stride(schema);

    if (schema->obs_type == OBS_RGB && most > 1) {
        uint64_t full = (segment_bytes(schema, most) + 16 + PAGE - 1) / PAGE * PAGE;

        return rows * (full / most + full / most / 64);
    }
    if (row_bytes > 0 && row_bytes < stride)
        stride = row_bytes;
    return rows * (stride + stride / 8 + 16);
}

static uint64_t used_rows(const struct store_config *config)
{
    return config->used != 0 && config->used < config->rows ? config->used : config->rows;
}

/* Will it fit? Both the limit and the disk are asked before anything is written. */
static int check_space(const struct store_config *config, struct error *err)
{
    uint64_t needed = store_bytes_needed(&config->schema, config->rows, config->row_bytes), free_bytes;
    int rc;

    if (config->bytes_limit != 0 && config->bytes_limit < needed)
        return error_set(err, TD_EFULL,
                         "%llu rows need %.3g GB, disk_limit is %.3g GB: raise it or lower buffer_size",
                         (unsigned long long)config->rows, (double)needed * 1e-9,
                         (double)config->bytes_limit * 1e-9);
    if ((rc = fs_free_bytes(config->dir, &free_bytes, err)) != TD_OK)
        return rc;
    needed = store_bytes_needed(&config->schema, used_rows(config), config->row_bytes);
    if (free_bytes < needed && !config->force)
        return error_set(err, TD_EFULL,
                         "%llu rows need %.3g GB, %s has %.3g GB free: choose another replay_dir, "
                         "lower buffer_size, or say force=true",
                         (unsigned long long)used_rows(config), (double)needed * 1e-9, config->dir,
                         (double)free_bytes * 1e-9);
    return TD_OK;
}

static int create(struct store *store, const struct store_config *config, struct error *err)
{
    char condemned[sizeof(store->dir) + 16];
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

    if ((rc = check_space(config, err)) != TD_OK || (rc = env_open(store, map_bytes, 0, err)) != TD_OK ||
        (rc = store_begin(store, err)) != TD_OK)
        return rc;
    store->version = STORE_VERSION;
    memcpy(manifest.magic, STORE_MAGIC, sizeof(manifest.magic));
    manifest.hash = XXH3_64bits(&manifest, offsetof(struct manifest_value, hash));
    if ((rc = store_check(store, open_tables(store, store->txn, MDB_CREATE), "create", err)) ||
        (rc = store_put(store, store->meta, "manifest", &manifest, sizeof(manifest), err)) ||
        (rc = store_write_counts(store, err)))
        return rc;
    rc = store_check(store, mdb_txn_commit(store->txn), "create", err);
    store->txn = NULL;
    store->identity.created = rc == TD_OK;
    snprintf(condemned, sizeof(condemned), "%s/%s", store->dir, STORE_CONDEMNED);
    (void)unlink(condemned); /* it was said of a file that is gone */
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
        rc = store_find_map(store, &value);
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

    if (manifest->version == 0 || manifest->version > STORE_VERSION)
        return error_set(err, TD_EFOREIGN, "%s has store version %u, this program reads up to version %u",
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

    rc = clean_check(store, config, err);
    if (rc == TD_OK && store->read_only) {
        if ((rc = env_open(store, 0, MDB_RDONLY | MDB_NOLOCK, err)) != TD_OK || (rc = check_length(store, err)) != TD_OK)
            return rc;
    } else if (rc == TD_OK && ((rc = env_open(store, 0, 0, err)) != TD_OK || (rc = extend_file(store, err)) != TD_OK))
        return rc;
    if (rc == TD_OK)
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
    struct counts_value read = {0};
    int rc = mdb_get(txn, store->meta, &key, &value);

    if (rc == MDB_SUCCESS && value.mv_size != hashed_size(store, sizeof(read)))
        rc = MDB_CORRUPTED;
    if (rc == MDB_SUCCESS) {
        memcpy(&read, value.mv_data, value.mv_size);
        if (!hash_holds(store, "counts", 6, &read, sizeof(read)))
            rc = MDB_CORRUPTED;
    }
    if ((rc = store_check(store, rc, "read", err)) != TD_OK)
        return rc;
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
    store->sealed_count = 0;
    store->news.count = 0;
    store->staged_rebuilt = false;
    store->news_rebuilt = true;
    return rc;
}

/* Keys that no hash covers, before anything is written beside them. */
static int check_keys(struct store *store, struct error *err)
{
    int rc = store_reader(store, err);

    if (rc != TD_OK)
        return rc;
    if ((rc = rows_check_open(store, store->reader)) == MDB_SUCCESS)
        rc = episodes_check_last(store, store->reader);
    store_rows_end(store);
    return store_check(store, rc, "open", err);
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
    store->version = manifest.version;
    if (info.me_mapsize != manifest.map_bytes)
        return store_check(store, MDB_CORRUPTED, "open", err);
    store->segment_rows = segment_rows_max(&identity->schema);
    store->stride = row_stride(&identity->schema);
    return TD_OK;
}

static int make_scratch(struct store *store, struct error *err)
{
    if (store->scratch == NULL)
        store->scratch = malloc(2 * SEGMENT_BYTES_MAX);
    return store->scratch != NULL ? TD_OK : error_set(err, TD_ENOMEM, "out of memory for a replay store");
}

int store_narrow(store_t *store, struct error *err)
{
    if (store->identity.schema.obs_type == OBS_RGB || store->version < 4)
        return TD_OK;
    return make_scratch(store, err);
}

/* Any store of frames may hold packed segments, any of states narrow ones. */
static int make_packer(struct store *store, const struct store_config *config, struct error *err)
{
    bool frames = store->identity.schema.obs_type == OBS_RGB;

    if (packer_create(&store->packer) != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory for a replay store");
    if (frames && config->compress_frames)
        return make_scratch(store, err);
    return !frames && config->narrow ? store_narrow(store, err) : TD_OK;
}

static int check_file_system(const struct store_config *config, struct error *err)
{
    const char *kind = config->force ? NULL : fs_unsafe_kind(config->dir);

    if (kind == NULL)
        return TD_OK;
    return error_set(err, TD_EINVAL,
                     "%s lies on %s, where a crash or another host can destroy a replay store: "
                     "choose a local replay_dir, or say force=true",
                     config->dir, kind);
}

/* Folder, file system, lock: what must be right before LMDB may look. */
static int prepare_folder(struct store *store, const struct store_config *config, bool exists,
                          struct error *err)
{
    char path[sizeof(store->dir) + 16];
    int rc;

    if ((!exists && (rc = fs_mkdirs(config->dir, 0755, err)) != TD_OK) ||
        (rc = check_file_system(config, err)) != TD_OK)
        return rc;
    snprintf(path, sizeof(path), "%s/lock", store->dir);
    return store->read_only ? fs_lock_reading(&store->lock_fd, path, config->lock_wait_ms, err)
                            : fs_lock(&store->lock_fd, path, config->lock_wait_ms, err);
}

/* May the directory, its lock and the data be written by this process? access() knows nothing of a sandbox. */
static bool may_write(const char *dir)
{
    static const char *const names[] = {".", "lock", "lock.mdb", "data.mdb"};
    char path[FS_PATH_MAX + 16];
    int fd;

    for (size_t i = 0; i < TD_LEN(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        if (access(path, W_OK) != 0 && errno != ENOENT)
            return false;
    }
    if ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0) /* the last: the data */
        return false;
    close(fd);
    return true;
}

static bool file_exists(const char *dir)
{
    char path[FS_PATH_MAX + 16];
    struct stat file;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    return stat(path, &file) == 0 && S_ISREG(file.st_mode) && file.st_size > 0;
}

int store_absent(const char *dir, struct error *err)
{
    char path[FS_PATH_MAX + 16], mark[FS_PATH_MAX + 16];
    struct stat file;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    snprintf(mark, sizeof(mark), "%s/lock.mdb", dir);
    if (stat(dir, &file) != 0)
        return error_set_errno(err, errno == ENOENT ? TD_ENOTFOUND : TD_EINVAL, errno, "no replay store in %s", dir);
    if (!S_ISDIR(file.st_mode))
        return error_set(err, TD_ENOTFOUND, "no replay store in %s: it is no folder", dir);
    if (stat(path, &file) == 0)
        return error_set(err, TD_ENOTFOUND,
                         S_ISREG(file.st_mode) ? "no replay store in %s: its data.mdb is empty, and no row can be had from it"
                                               : "no replay store in %s: its data.mdb is no file", dir);
    if (errno != ENOENT)
        return error_set_errno(err, TD_EINVAL, errno, "cannot look into %s", dir);
    if (access(mark, F_OK) == 0)
        return error_set(err, TD_ENOTFOUND, "no replay store in %s: its data.mdb, which held the rows, is gone", dir);
    return error_set(err, TD_ENOTFOUND, "no replay store in %s: it has no data.mdb", dir);
}

static int check_config(const struct store_config *config, struct error *err)
{
    const char *wrong = config->schema.obs_type != 0 ? row_schema_check(&config->schema) : NULL;

    if (strlen(config->dir) >= sizeof(((struct store *)NULL)->dir))
        return error_set(err, TD_EINVAL, "the replay directory's path is too long");
    if (wrong != NULL)
        return error_set(err, TD_EINVAL, "rows cannot be stored: %s", wrong);
    return TD_OK;
}

/* Who only reads leaves a clean store clean, even when it is killed. */
static bool keeps_mark(const struct store *store, const struct store_config *config)
{
    return store->read_only || (config->reading && store->was_clean);
}

int store_open(store_t **out, const struct store_config *config, struct error *err)
{
    struct store *store;
    bool exists;
    int rc;

    *out = NULL;
    if ((rc = check_config(config, err)) != TD_OK)
        return rc;
    errno = 0;
    exists = file_exists(config->dir);
    if (!exists && errno == EACCES)
        return error_set_errno(err, TD_EINVAL, errno, "cannot look into %s", config->dir);
    if (!exists && config->schema.obs_type == 0)
        return store_absent(config->dir, err);
    if ((store = calloc(1, sizeof(*store))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a replay store");
    store->lock_fd = -1;
    memcpy(store->dir, config->dir, strlen(config->dir) + 1);
    store->read_only = exists && config->reading && !may_write(config->dir);
    if ((rc = prepare_folder(store, config, exists, err)) != TD_OK)
        goto fail;
    exists = file_exists(config->dir); /* as the last owner left it */
    rc = exists                                         ? open_existing(store, config, err)
         : (rc = clean_missing(store, err)) == TD_OK ? create(store, config, err)
                                                     : rc;
    if (rc != TD_OK || (rc = adopt_identity(store, err)) != TD_OK ||
        (rc = make_packer(store, config, err)) != TD_OK ||
        (rc = store_load(store, err)) != TD_OK || (!config->reading && (rc = check_keys(store, err)) != TD_OK) ||
        (!keeps_mark(store, config) && (rc = clean_forget(store, err)) != TD_OK))
        goto fail;
    store_measure_room(store);
    if (store->identity.created)
        store_prepare_file(store);
    store->opened = !keeps_mark(store, config);
    *out = store;
    return TD_OK;

fail:
    store_close(&store);
    return rc;
}

/* Read without changing anything. A file that is cut short is left for store_open to mend. */
static int look_inside(struct store *store, struct store_outlook *outlook,
                       const struct store_config *config, struct error *err)
{
    char path[sizeof(store->dir) + 16];
    struct manifest_value manifest;
    MDB_envinfo info;
    struct stat file;
    int rc = clean_check(store, config, err);

    if (rc == TD_OK) {
        if ((rc = env_open(store, 0, MDB_RDONLY | MDB_NOLOCK, err)) != TD_OK)
            return rc;
        mdb_env_info(store->env, &info);
        snprintf(path, sizeof(path), "%s/data.mdb", store->dir);
        if (stat(path, &file) != 0 || file.st_size < (off_t)((info.me_last_pgno + 1) * store->page))
            return TD_OK;
        rc = read_manifest(store, &manifest, err);
    }
    if (rc == TD_ENOTFOUND && config->schema.obs_type != 0) {
        outlook->exists = false; /* it would be made anew */
        return check_space(config, err);
    }
    if (rc == TD_OK)
        outlook->run_id = manifest.run_id;
    return rc != TD_OK ? rc : check_manifest(store, &manifest, config, err);
}

static int look_existing(struct store_outlook *outlook, const struct store_config *config,
                         struct error *err)
{
    struct store *store = calloc(1, sizeof(*store));
    char path[sizeof(store->dir) + 16];
    int rc = TD_OK;

    if (store == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a replay store");
    store->lock_fd = -1;
    memcpy(store->dir, config->dir, strlen(config->dir) + 1);
    snprintf(path, sizeof(path), "%s/lock", store->dir);
    if (access(path, F_OK) == 0)
        rc = fs_lock(&store->lock_fd, path, config->lock_wait_ms, err);
    if (rc == TD_OK)
        rc = look_inside(store, outlook, config, err);
    store_close(&store);
    return rc;
}

int store_look(struct store_outlook *outlook, const struct store_config *config, struct error *err)
{
    int rc;

    memset(outlook, 0, sizeof(*outlook));
    if ((rc = check_config(config, err)) != TD_OK || (rc = check_file_system(config, err)) != TD_OK ||
        (rc = fs_free_bytes(config->dir, &outlook->free_bytes, err)) != TD_OK ||
        (rc = fs_check_writable(config->dir, err)) != TD_OK)
        return rc;
    outlook->needed_bytes = store_bytes_needed(&config->schema, used_rows(config), config->row_bytes);
    outlook->exists = file_exists(config->dir);
    return outlook->exists ? look_existing(outlook, config, err) : check_space(config, err);
}

void store_close(store_t **out)
{
    struct store *store = *out;

    if (store == NULL)
        return;
    env_close(store);
    if (store->opened && !store->failed)
        clean_leave(store);
    if (store->lock_fd >= 0)
        fs_unlock(&store->lock_fd);
    free(store->streams);
    free(store->episodes);
    free(store->sealed);
    free(store->staged.ids);
    free(store->news.ids);
    free(store->scratch);
    packer_destroy(&store->packer);
    free(store);
    *out = NULL;
}
