/* The outbox against a plain model: rows in, chunks out, acknowledgements and resends in any order. */
#include "actor/outbox.h"
#include "tests/support/test.h"

enum { CAPACITY = 37, STRIDE = 8 };

static void put(outbox_t *outbox, uint64_t value)
{
    void *row = outbox_reserve(outbox);

    assert_non_null(row);
    memcpy(row, &value, STRIDE);
    outbox_append(outbox);
}

static void rows_come_out_as_they_went_in(void **state)
{
    struct rng *rng = test_rng();
    outbox_t *outbox = NULL;
    uint64_t next = 0, sent = 0, acked = 0;

    (void)state;
    assert_int_equal(outbox_create(&outbox, CAPACITY, STRIDE), TD_OK);
    for (int round = 0; round < 200000; round++) {
        uint64_t first, value;
        const void *rows;
        uint32_t count;

        switch (rng_below(rng, 5)) {
        case 0: case 1:
            if (outbox_full(outbox)) {
                assert_null(outbox_reserve(outbox));
                break;
            }
            put(outbox, next * 7919);
            next++;
            break;
        case 2:
            count = outbox_chunk(outbox, 1 + rng_below(rng, 10), &first, &rows);
            assert_true(first == sent && (count > 0) == (sent < next));
            for (uint32_t i = 0; i < count; i++) {
                memcpy(&value, (const char *)rows + i * STRIDE, STRIDE);
                assert_true(value == (first + i) * 7919);
            }
            outbox_sent(outbox, count);
            sent += count;
            break;
        case 3:
            value = acked + rng_below(rng, CAPACITY);
            assert_int_equal(outbox_ack(outbox, value), value <= next);
            if (value <= next)
                acked = value;
            sent = sent < acked ? acked : sent;
            break;
        default:
            value = acked + rng_below(rng, CAPACITY);
            value -= value > 0 && rng_below(rng, 4) == 0;
            assert_int_equal(outbox_resend(outbox, value), value >= acked && value <= next);
            if (value >= acked && value <= next)
                sent = value;
        }
        assert_true(outbox_next(outbox) == next && outbox_held(outbox) == next - acked);
        assert_true(outbox_unsent(outbox) == next - sent && outbox_inflight(outbox) == sent - acked);
        assert_int_equal(outbox_full(outbox), next - acked == CAPACITY);
    }
    assert_true(outbox_clear(outbox) == next - acked);
    assert_true(outbox_next(outbox) == 0 && outbox_held(outbox) == 0);
    outbox_destroy(&outbox);
    assert_null(outbox);
}

static void impossible_sizes_are_out_of_memory(void **state)
{
    outbox_t *outbox = NULL;

    (void)state;
    assert_int_equal(outbox_create(&outbox, UINT64_MAX / 2, 64), TD_ENOMEM);
    assert_null(outbox);
    outbox_destroy(&outbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_out_as_they_went_in),
        cmocka_unit_test(impossible_sizes_are_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
