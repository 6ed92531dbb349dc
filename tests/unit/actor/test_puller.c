/* Parameters are pulled whole or not at all: order, loss, repetition, wrong bytes, the two snapshots. */
#include <xxhash.h>

#include "actor/puller.h"
#include "learner/params.h"
#include "tests/support/test.h"

enum { SIZE = 5 * WIRE_CHUNK_BYTES + 12345 };

static void fill(params_t *params, uint64_t now, uint32_t epoch, uint64_t version)
{
    uint64_t again;
    uint32_t *memory = params_fill(params, now, &again);

    assert_non_null(memory);
    for (size_t i = 0; i < SIZE / 4; i++)
        memory[i] = (uint32_t)(i * 2654435761u + version);
    params_filled(params, epoch, version, XXH3_64bits(memory, SIZE));
}

/* Answer a pull; a chunk may be lost, repeated or spoilt. Returns what the puller said. */
static int answer(params_t *params, puller_t *puller, uint64_t now, const struct pull *pull,
                  bool spoil)
{
    struct chunk chunk = {pull->epoch, pull->version, pull->offset};
    static char spoilt[WIRE_CHUNK_BYTES];
    struct bulk bytes;

    assert_int_equal(params_pull(params, now, 9, pull, &bytes), TD_OK);
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
    params_t *params = NULL;
    puller_t *puller = NULL;
    uint64_t now = 1000;

    (void)state;
    assert_int_equal(params_create(&params, SIZE), TD_OK);
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
        assert_int_equal(params_pull(params, now, 3, &pull, &first), TD_OK);
        assert_non_null(puller_ready(puller));
        assert_memory_equal(puller_ready(puller), first.data, first.size);
    }
    puller_destroy(&puller);
    params_destroy(&params);
}

static void spoilt_bytes_start_over(void **state)
{
    params_t *params = NULL;
    puller_t *puller = NULL;
    uint64_t now = 1000;
    struct pull pull;
    int chunks = 0, rc = TD_OK;

    (void)state;
    assert_int_equal(params_create(&params, SIZE), TD_OK);
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
    params_t *params = NULL;
    uint64_t now = 1000, again;
    struct pull old = {1, 1, 0};
    struct bulk bytes;

    (void)state;
    assert_int_equal(params_create(&params, SIZE), TD_OK);
    fill(params, now, 1, 1);
    fill(params, now, 1, 2);
    assert_int_equal(params_pull(params, now, 5, &old, &bytes), TD_OK);
    assert_null(params_fill(params, now, &again));
    assert_true(again > now && again < now + 100);
    for (uint64_t end = now + PARAMS_PATIENCE_MS - 100; now < end; now += 50) {
        assert_int_equal(params_pull(params, now, 5, &old, &bytes), TD_OK);
        assert_null(params_fill(params, now, &again));
    }
    now += 200;
    assert_int_equal(params_pull(params, now, 5, &old, &bytes), TD_OK);
    assert_non_null(params_fill(params, now, &again));
    assert_int_equal(params_pull(params, now, 5, &old, &bytes), TD_ENOTFOUND);
    assert_null(params_fill(params, now, &again)); /* it is being filled */
    params_dropped(params);
    assert_true(params_newest(params)->version == 2);
    fill(params, now, 1, 3);
    old.version = 2;
    assert_int_equal(params_pull(params, now, 6, &old, &bytes), TD_OK);
    assert_null(params_fill(params, now, &again));
    assert_non_null(params_fill(params, now + PARAMS_SILENCE_MS, &again)); /* it fell silent */
    params_destroy(&params);
}

static void nothing_else_can_be_pulled(void **state)
{
    params_t *params = NULL;
    struct bulk bytes;
    struct pull pull = {1, 1, (uint64_t)16 * WIRE_CHUNK_BYTES};

    (void)state;
    assert_int_equal(params_create(&params, SIZE), TD_OK);
    assert_int_equal(params_pull(params, 0, 1, &(struct pull){0, 0, 0}, &bytes), TD_ENOTFOUND);
    fill(params, 0, 1, 1);
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes), TD_ENOTFOUND);
    pull.offset = 0;
    pull.epoch = 2;
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes), TD_ENOTFOUND);
    params_set_epoch(params, 2);
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes), TD_OK);
    params_forget(params);
    assert_int_equal(params_pull(params, 0, 1, &pull, &bytes), TD_ENOTFOUND);
    params_destroy(&params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_and_checked_whatever_is_lost),
        cmocka_unit_test(spoilt_bytes_start_over),
        cmocka_unit_test(only_snapshots_of_our_size),
        cmocka_unit_test(filling_waits_for_pulls_but_not_for_ever),
        cmocka_unit_test(nothing_else_can_be_pulled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
