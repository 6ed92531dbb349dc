/* Parameters are pulled whole or not at all: order, loss, repetition, wrong bytes, the two snapshots. */
#include <errno.h>
#include <pthread.h>
#include <xxhash.h>

#include "actor/puller.h"
#include "common/util/fs.h"
#include "learner/params.h"
#include "tests/support/test.h"

enum { SIZE = 5 * WIRE_CHUNK_BYTES + 12345, PIECE = 100000 };

static spill_t *in_file; /* the tests run twice: with snapshots in memory, and in a file */
static struct error err;

static params_t *make_params(void)
{
    params_t *params;

    assert_int_equal(params_create(&params, SIZE, in_file), TD_OK);
    return params;
}

/* A snapshot's bytes. */
static char *content(uint64_t version)
{
    static uint32_t bytes[SIZE / 4 + 1];

    for (size_t i = 0; i < TD_LEN(bytes); i++)
        bytes[i] = (uint32_t)(i * 2654435761u + version);
    return (char *)bytes;
}

static void fill(params_t *params, uint64_t now, uint32_t epoch, uint64_t version)
{
    struct params_room room;
    uint64_t again;

    assert_true(params_fill(params, now, &again, &room));
    assert_ok(params_room_write(&room, 0, content(version), SIZE, &err), err);
    params_filled(params, epoch, version, XXH3_64bits(content(version), SIZE));
}

/* Answer a pull; a chunk may be lost, repeated or spoilt. Returns what the puller said. */
static int answer(params_t *params, puller_t *puller, uint64_t now, const struct pull *pull,
                  bool spoil)
{
    struct chunk chunk = {pull->epoch, pull->version, pull->offset};
    static char spoilt[WIRE_CHUNK_BYTES];
    struct bulk bytes;

    assert_int_equal(params_pull(params, now, 9, pull, &bytes, &err), TD_OK);
    if (spoil) {
        memcpy(spoilt, bytes.data, bytes.size);
        spoilt[17] ^= 1;
        bytes.data = spoilt;
    }
    return puller_chunk(puller, now, &chunk, &bytes);
}

static void pull_all(params_t *params, puller_t *puller, uint64_t *now, uint32_t loss)
{
    while (puller_active(puller)) {
        struct pull pull;
        uint32_t open = 0;

        while (puller_next(puller, *now, &pull)) {
            assert_true(++open <= PULLER_WINDOW + 6);
            if (rng_below(test_rng(), 100) < loss)
                continue;
            assert_int_equal(answer(params, puller, *now, &pull, false), TD_OK);
            if (rng_below(test_rng(), 4) == 0 && puller_active(puller))
                answer(params, puller, *now, &pull, false);
        }
        *now = puller_active(puller) ? puller_deadline(puller) : *now + 1;
    }
}

static void whole_and_checked_whatever_is_lost(void **state)
{
    params_t *params = make_params();
    puller_t *puller = NULL;
    uint64_t now = 1000;

    (void)state;
    assert_int_equal(puller_create(&puller, SIZE), TD_OK);
    assert_int_equal(params_newest(params)->epoch, 0);
    for (uint64_t version = 0; version < 12; version++) {
        struct bulk first;
        struct pull pull = {1, version, 0};

        now += 10000;
        fill(params, now, 1, version);
        assert_true(puller_start(puller, now, params_newest(params)));
        assert_null(puller_ready(puller));
        pull_all(params, puller, &now, (uint32_t)(version * 5));
        assert_int_equal(params_pull(params, now, 3, &pull, &first, &err), TD_OK);
        assert_non_null(puller_ready(puller));
        assert_memory_equal(puller_ready(puller), first.data, first.size);
    }
    puller_destroy(&puller);
    params_destroy(&params);
}

static void spoilt_bytes_start_over(void **state)
{
    params_t *params = make_params();
    puller_t *puller = NULL;
    uint64_t now = 1000;
    struct pull pull;
    int chunks = 0, rc = TD_OK;

    (void)state;
    assert_int_equal(puller_create(&puller, SIZE), TD_OK);
    fill(params, now, 1, 7);
    assert_true(puller_start(puller, now, params_newest(params)));
    while (rc == TD_OK && puller_next(puller, now, &pull))
        rc = answer(params, puller, now, &pull, chunks++ == 2);
    assert_int_equal(rc, TD_EAGAIN);
    assert_null(puller_ready(puller));
    pull_all(params, puller, &now, 0);
    assert_non_null(puller_ready(puller));
    puller_destroy(&puller);
    params_destroy(&params);
}

static void only_snapshots_of_our_size(void **state)
{
    struct announcement other = {1, 1, SIZE + 1, 0};
    puller_t *puller = NULL;

    (void)state;
    assert_int_equal(puller_create(&puller, SIZE), TD_OK);
    assert_false(puller_start(puller, 0, &other));
    assert_false(puller_active(puller));
    puller_destroy(&puller);
}

/* Filling waits for who pulls that buffer, but not for ever, and not for the silent. */
static void filling_waits_for_pulls_but_not_for_ever(void **state)
{
    params_t *params = make_params();
    uint64_t now = 1000, again;
    struct pull old = {1, 1, 0};
    struct params_room room;
    struct bulk bytes;

    (void)state;
    fill(params, now, 1, 1);
    fill(params, now, 1, 2);
    assert_int_equal(params_pull(params, now, 5, &old, &bytes, &err), TD_OK);
    assert_false(params_fill(params, now, &again, &room));
    assert_true(again > now && again < now + 100);
    for (uint64_t end = now + PARAMS_PATIENCE_MS - 100; now < end; now += 50) {
        assert_int_equal(params_pull(params, now, 5, &old, &bytes, &err), TD_OK);
        assert_false(params_fill(params, now, &again, &room));
    }
    now += 200;
    assert_int_equal(params_pull(params, now, 5, &old, &bytes, &err), TD_OK);
    assert_true(params_fill(params, now, &again, &room));
    assert_int_equal(params_pull(params, now, 5, &old, &bytes, &err), TD_ENOTFOUND);
    assert_false(params_fill(params, now, &again, &room)); /* it is being filled */
    params_dropped(params);
    assert_true(params_newest(params)->version == 2);
    fill(params, now, 1, 3);
    old.version = 2;
    assert_int_equal(params_pull(params, now, 6, &old, &bytes, &err), TD_OK);
    assert_false(params_fill(params, now, &again, &room));
    assert_true(params_fill(params, now + PARAMS_SILENCE_MS, &again, &room)); /* it fell silent */
    params_destroy(&params);
}

/* The next snapshot, written piece by piece while the newest is pulled. */
struct writing {
    struct params_room room;
    uint64_t version;
};

static void *write_pieces(void *context)
{
    const struct writing *writing = context;
    static uint32_t piece[PIECE / 4];
    struct error failed;

    for (size_t at = 0; at < SIZE; at += PIECE) {
        size_t length = SIZE - at < PIECE ? SIZE - at : PIECE;

        for (size_t i = 0; i < TD_LEN(piece); i++)
            piece[i] = (uint32_t)((at / 4 + i) * 2654435761u + writing->version);
        if (params_room_write(&writing->room, at, piece, length, &failed) != TD_OK)
            abort();
    }
    return NULL;
}

/* Who pulls while another version is written gets the whole of one version, and what was overwritten is gone. */
static void versions_are_never_mixed(void **state)
{
    params_t *params = make_params();
    puller_t *puller = NULL;
    uint64_t now = 1000, again;
    struct bulk bytes;

    (void)state;
    assert_int_equal(puller_create(&puller, SIZE), TD_OK);
    fill(params, now, 1, 1);
    for (uint64_t version = 2; version < 12; version++) {
        struct writing writing = {.version = version};
        struct pull gone = {1, version - 2, 0};
        pthread_t thread;

        now += 10000; /* nobody is waited for */
        assert_true(params_fill(params, now, &again, &writing.room));
        assert_int_equal(pthread_create(&thread, NULL, write_pieces, &writing), 0);
        assert_true(puller_start(puller, now, params_newest(params)));
        pull_all(params, puller, &now, 10); /* its hash is checked */
        assert_memory_equal(puller_ready(puller), content(version - 1), SIZE);
        assert_int_equal(params_pull(params, now, 8, &gone, &bytes, &err), TD_ENOTFOUND);
        gone.version = version; /* not yet there */
        assert_int_equal(params_pull(params, now, 8, &gone, &bytes, &err), TD_ENOTFOUND);
        pthread_join(thread, NULL);
        params_filled(params, 1, version, XXH3_64bits(content(version), SIZE));
    }
    puller_destroy(&puller);
    params_destroy(&params);
}

/* A disk that no longer gives back what was written is not taken for bytes. */
static int no_reads(const char *operation, const char *path)
{
    (void)path;
    return strcmp(operation, "read") == 0 ? EIO : 0;
}

static void what_cannot_be_read_is_told(void **state)
{
    struct pull pull = {1, 1, 0};
    params_t *params = make_params();
    struct bulk bytes;

    (void)state;
    fill(params, 0, 1, 1);
    fs_fault = no_reads;
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes, &err), in_file != NULL ? TD_EIO : TD_OK);
    fs_fault = NULL;
    params_destroy(&params);
}

static void nothing_else_can_be_pulled(void **state)
{
    params_t *params = make_params();
    struct bulk bytes;
    struct pull pull = {1, 1, (uint64_t)16 * WIRE_CHUNK_BYTES};

    (void)state;
    assert_int_equal(params_pull(params, 0, 1, &(struct pull){0, 0, 0}, &bytes, &err), TD_ENOTFOUND);
    fill(params, 0, 1, 1);
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes, &err), TD_ENOTFOUND);
    pull.offset = 0;
    pull.epoch = 2;
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes, &err), TD_ENOTFOUND);
    params_set_epoch(params, 2);
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes, &err), TD_OK);
    params_forget(params);
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes, &err), TD_ENOTFOUND);
    params_destroy(&params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_and_checked_whatever_is_lost),
        cmocka_unit_test(spoilt_bytes_start_over),
        cmocka_unit_test(only_snapshots_of_our_size),
        cmocka_unit_test(filling_waits_for_pulls_but_not_for_ever),
        cmocka_unit_test(versions_are_never_mixed),
        cmocka_unit_test(what_cannot_be_read_is_told),
        cmocka_unit_test(nothing_else_can_be_pulled),
    };
    int failed = cmocka_run_group_tests_name("in memory", tests, NULL, NULL);

    if (spill_open(&in_file, test_folder(), 2 * (uint64_t)SIZE, &err) != TD_OK)
        return 1;
    failed += cmocka_run_group_tests_name("in a file", tests, NULL, NULL);
    spill_close(&in_file);
    return failed;
}
