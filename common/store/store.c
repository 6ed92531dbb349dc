#include "common/store/store.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <xxhash.h>

#include "common/store/store_parts.h"

_Static_assert(sizeof(struct manifest_value) == 64, "a disk format");
_Static_assert(sizeof(struct counts_value) == 56, "a disk format");
_Static_assert(sizeof(struct stream_value) == 56, "a disk format");
_Static_assert(sizeof(struct open_value) == 16, "a disk format");
_Static_assert(sizeof(struct store_record) == 40, "a disk format");

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
    case MDB_NOTFOUND: /* of what must be there */
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID: code = TD_ECORRUPT; break;
    case MDB_VERSION_MISMATCH: code = TD_EFOREIGN; break;
    case EACCES:
    case EROFS: code = TD_EINVAL; break;
    default: code = TD_EIO;
    }
    if (code == TD_EIO || code == TD_EINVAL)
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

int store_put(struct store *store, MDB_dbi dbi, const char *name, const void *bytes, size_t length,
              struct error *err)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name};
    MDB_val value = {length, (void *)(uintptr_t)bytes};

    return store_check(store, mdb_put(store->txn, dbi, &key, &value, 0), "write to", err);
}

int store_write_counts(struct store *store, struct error *err)
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

    value.hash = value_hash("counts", 6, &value, offsetof(struct counts_value, hash));
    return store_put(store, store->meta, "counts", &value, hashed_size(store, sizeof(value)), err);
}

uint64_t value_hash(const void *key, size_t key_size, const void *value, size_t size)
{
    return XXH3_64bits_withSeed(value, size, XXH3_64bits(key, key_size));
}

size_t hashed_size(const struct store *store, size_t size)
{
    return store->version >= 2 ? size : size - sizeof(uint64_t);
}

bool hash_holds(const struct store *store, const void *key, size_t key_size, const void *value, size_t size)
{
    uint64_t hash;

    memcpy(&hash, (const char *)value + size - sizeof(hash), sizeof(hash));
    return store->version < 2 || hash == value_hash(key, key_size, value, size - sizeof(hash));
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
void store_measure_room(struct store *store)
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

/*
 * There was room for it, and still the disk is full: it may have been the sync that said so. What it had
 * to make durable may be lost, and a second sync would not say it again: the end.
 */
static int check_commit(struct store *store, int rc, struct error *err)
{
    if (rc == ENOSPC || rc == EDQUOT || rc == EFBIG) {
        store->failed = true;
        return error_set_errno(err, TD_EIO, rc, "cannot commit to the replay store in %s", store->dir);
    }
    return store_check(store, rc, "commit to", err);
}

int store_commit(store_t *store, struct error *err)
{
    struct store_metas metas;
    int rc;

    if (store->txn == NULL)
        return TD_OK;
    store_rows_end(store);
    if ((rc = episodes_write(store, err)) != TD_OK || (rc = streams_write(store, err)) != TD_OK ||
        (rc = store_write_counts(store, err)) != TD_OK ||
        (rc = store_take_room(store, err)) != TD_OK)
        return store_undo(store, rc);
    clean_copy_metas(store, &metas);
    if ((rc = check_commit(store, mdb_txn_commit(store->txn), err)) != TD_OK) {
        clean_restore_meta(store, &metas);
        store->txn = NULL; /* LMDB has freed the transaction; nothing of it is on disk */
        store->spent = 0;
        if (store_load(store, NULL) != TD_OK)
            store->failed = true;
        return rc;
    }
    store->txn = NULL;
    store->committed = store->counts.sealed;
    store_measure_room(store);
    store_prepare_file(store);
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
