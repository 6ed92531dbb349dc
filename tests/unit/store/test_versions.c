/*
 * Stores of version 1, which had no hashes in counts, streams and index, and of version 2, whose appends' hashes
 * did not cover their keys: read, served, written on as they are, verified and salvaged. The fixture is written
 * here with LMDB, byte by byte as they did.
 */
#include <endian.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>
#include <xxhash.h>

#include "common/store/verify.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

static const struct row_schema schema = {OBS_STATE, 6, 2};
#define STRIDE   row_stride(&schema)
#define EPISODES 5u
#define ROWS     40u
#define UNDER_WAY 7u

struct manifest1 {
    char magic[8];
    uint32_t version, shard;
    struct row_schema schema;
    uint32_t reserved;
    uint64_t run_id, store_id, map_bytes, hash;
};
struct counts1 {
    uint64_t rows, steps, sealed, aborted, generation;
    uint32_t learner_epoch, slots;
};
struct stream1 {
    uint64_t epoch, next, steps, holder, open_rows, waiting;
};
struct counts2 {
    struct counts1 counts;
    uint64_t hash;
};
struct stream2 {
    struct stream1 stream;
    uint64_t hash;
};

static uint64_t named_hash(const void *key, size_t key_size, const void *value, size_t size)
{
    return XXH3_64bits_withSeed(value, size, XXH3_64bits(key, key_size));
}

static void put(MDB_txn *txn, const char *table, unsigned flags, const void *key, size_t key_size, const void *value,
                size_t size)
{
    MDB_val name = {key_size, (void *)(uintptr_t)key}, data = {size, (void *)(uintptr_t)value};
    MDB_dbi dbi;

    assert_int_equal(mdb_dbi_open(txn, table, MDB_CREATE | flags, &dbi), 0);
    if (key != NULL)
        assert_int_equal(mdb_put(txn, dbi, &name, &data, 0), 0);
}

static void fill_rows(char *rows, uint64_t first, uint32_t count, bool ends)
{
    for (uint32_t i = 0; i < count; i++) {
        struct test_row_id id = {4, 0, 2, first + i};

        test_row_fill(rows + i * STRIDE, &schema, &id,
                      (i == 0 ? (uint32_t)ROW_FIRST : 0u) | (ends && i + 1 == count ? (uint32_t)ROW_TRUNCATED : 0u));
    }
}

static void put_episode(MDB_txn *txn, uint64_t id, uint32_t version)
{
    struct segment_head head = {.schema = schema, .rows = ROWS, .slot = 4, .flags = EPISODE_TRUNCATED,
                                .episode_rows = ROWS, .run_id = 6, .store_id = 12, .epoch = 2, .episode = id,
                                .sequence = id * ROWS};
    struct store_record record = {.slot = 4, .epoch = 2, .sequence = id * ROWS, .rows = ROWS, .steps = ROWS - 1,
                                  .flags = EPISODE_TRUNCATED};
    size_t size = segment_bytes(&schema, ROWS);
    uint64_t name = id << 16;
    char *bytes = calloc(1, size);

    if (version == 2)
        record.check = (uint32_t)named_hash(&id, sizeof(id), &record, offsetof(struct store_record, check)) | 3u;
    fill_rows(segment_begin(bytes, &head), id * ROWS, ROWS, true);
    segment_finish(bytes, &head);
    put(txn, "segments", MDB_INTEGERKEY, &name, sizeof(name), bytes, size);
    put(txn, "episodes", MDB_INTEGERKEY, &id, sizeof(id), &record, sizeof(record));
    free(bytes);
}

static void put_open(MDB_txn *txn)
{
    struct {
        uint32_t slot, env;
        uint64_t sequence;
    } name = {htobe32(4), 0, htobe64(EPISODES * ROWS)};
    struct {
        uint64_t hash;
        uint32_t rows, reserved;
        char bytes[UNDER_WAY * 256];
    } value = {.rows = UNDER_WAY};

    fill_rows(value.bytes, EPISODES * ROWS, UNDER_WAY, false);
    value.hash = XXH3_64bits(value.bytes, UNDER_WAY * STRIDE);
    put(txn, "open", 0, &name, sizeof(name), &value, 16 + UNDER_WAY * STRIDE);
}

static void write_fixture(const char *dir, uint32_t version)
{
    struct manifest1 manifest = {.magic = "TDSTORE1", .version = version, .shard = 1, .schema = schema, .run_id = 6,
                                 .store_id = 12, .map_bytes = 8 << 20};
    struct counts1 counts = {.rows = EPISODES * ROWS + UNDER_WAY, .steps = EPISODES * (ROWS - 1) + UNDER_WAY - 1,
                             .sealed = EPISODES, .learner_epoch = 3, .slots = 5};
    struct stream1 stream = {.epoch = 2, .next = EPISODES * ROWS + UNDER_WAY, .steps = EPISODES * (ROWS - 1) + UNDER_WAY - 1,
                             .holder = 9, .open_rows = UNDER_WAY, .waiting = UINT64_MAX};
    uint32_t name[2] = {htobe32(4), 0};
    struct counts2 counts2 = {counts, named_hash("counts", 6, &counts, sizeof(counts))};
    struct stream2 stream2 = {stream, named_hash(name, sizeof(name), &stream, sizeof(stream))};
    MDB_env *env;
    MDB_txn *txn;

    manifest.hash = XXH3_64bits(&manifest, offsetof(struct manifest1, hash));
    assert_int_equal(mkdir(dir, 0755), 0);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 8), 0);
    assert_int_equal(mdb_env_set_mapsize(env, manifest.map_bytes), 0);
    assert_int_equal(mdb_env_open(env, dir, 0, 0644), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    put(txn, "meta", 0, "manifest", 8, &manifest, sizeof(manifest));
    put(txn, "meta", 0, "counts", 6, &counts2, version == 2 ? sizeof(counts2) : sizeof(counts));
    put(txn, "streams", 0, name, sizeof(name), &stream2, version == 2 ? sizeof(stream2) : sizeof(stream));
    put_open(txn);
    for (uint64_t id = 0; id < EPISODES; id++)
        put_episode(txn, id, version);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static struct store_config config_of(const char *dir)
{
    return (struct store_config){.dir = dir, .schema = schema, .run_id = 6, .shard = 1};
}

static const char *fresh(void)
{
    static char path[512];
    static int count;

    snprintf(path, sizeof(path), "%s/v1-%d", test_folder(), count++);
    return path;
}

static void expect_episode(store_t *store, uint64_t id, uint64_t first, uint32_t rows, uint32_t last_flags)
{
    for (uint32_t row = 0; row < rows; row++) {
        struct test_row_id name = {4, 0, 2, first + row};
        uint32_t count = 1;
        const char *bytes = store_rows(store, id, row, &count);

        assert_non_null(bytes);
        test_row_expect(bytes, &schema, &name, row == 0 ? ROW_FIRST : row + 1 == rows ? last_flags : 0);
    }
    store_rows_end(store);
}

static void is_read_and_written_on(uint32_t version)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir);
    struct verify_report report;
    struct error err = {0};
    char rows[3 * 256];
    store_t *store;

    write_fixture(dir, version);
    for (int round = 0; round < 2; round++) {
        assert_ok(store_open(&store, &config, &err), err);
        assert_false(store_identity(store)->created);
        assert_int_equal(store_identity(store)->store_id, 12);
        assert_int_equal(store_counts(store)->learner_epoch, 3);
        assert_int_equal(store_stream(store, 4, 0)->holder, 9);
        for (uint64_t id = 0; id < EPISODES; id++)
            expect_episode(store, id, id * ROWS, ROWS, ROW_TRUNCATED);
        assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
        assert_true(verify_clean(&report));
        if (round == 0) { /* its episode under way goes on where it was */
            assert_int_equal(store_stream(store, 4, 0)->next, EPISODES * ROWS + UNDER_WAY);
            for (uint32_t i = 0; i < 3; i++) {
                struct test_row_id id = {4, 0, 2, EPISODES * ROWS + UNDER_WAY + i};

                test_row_fill(rows + i * STRIDE, &schema, &id, i == 2 ? ROW_TRUNCATED : 0);
            }
            assert_ok(store_append(store, 4, 0, rows, 3, &err), err);
            assert_ok(store_commit(store, &err), err);
        }
        expect_episode(store, EPISODES, EPISODES * ROWS, UNDER_WAY + 3, ROW_TRUNCATED);
        store_close(&store);
    }
}

static void version_1_is_read_and_written_on(void **state)
{
    (void)state;
    is_read_and_written_on(1);
}

static void version_2_is_read_and_written_on(void **state)
{
    (void)state;
    is_read_and_written_on(2);
}

static void is_rescued(uint32_t version)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir);
    struct rescue_report report;
    struct error err = {0};
    store_t *store;

    write_fixture(dir, version);
    assert_ok(store_rescue(&config, &report, &err), err);
    assert_int_equal(report.salvaged.lost_rows, 0);
    assert_int_equal(report.salvaged.rows, EPISODES * ROWS + UNDER_WAY);
    assert_ok(store_open(&store, &config, &err), err);
    for (uint64_t id = 0; id < EPISODES; id++)
        expect_episode(store, id, id * ROWS, ROWS, ROW_TRUNCATED);
    expect_episode(store, EPISODES, EPISODES * ROWS, UNDER_WAY, 0);
    store_close(&store);
}

static void version_1_is_rescued(void **state)
{
    (void)state;
    is_rescued(1);
}

static void version_2_is_rescued(void **state)
{
    (void)state;
    is_rescued(2);
}

static void versions_to_come_are_refused_by_name(void **state)
{
    const char *dir = fresh();
    struct store_config config = config_of(dir);
    struct error err = {0};
    store_t *store;

    (void)state;
    write_fixture(dir, 5);
    assert_int_equal(store_open(&store, &config, &err), TD_EFOREIGN);
    assert_non_null(strstr(err.text, "store version 5, this program reads up to version 4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_1_is_read_and_written_on),
        cmocka_unit_test(version_2_is_read_and_written_on),
        cmocka_unit_test(version_1_is_rescued),
        cmocka_unit_test(version_2_is_rescued),
        cmocka_unit_test(versions_to_come_are_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
