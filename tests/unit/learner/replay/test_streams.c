/* streams.c: PROTOCOL section 2 row by row, and the dealing of credit. */
#include "learner/replay/streams.h"
#include "tests/support/test.h"

#define STORE_ID 50u
#define ME       7u
#define OTHER    8u

static struct store_stream held(uint64_t epoch, uint64_t next, uint64_t holder)
{
    return (struct store_stream){.epoch = epoch, .next = next, .holder = holder,
                                 .waiting = STORE_NONE};
}

static struct rows rows(uint64_t process, uint64_t epoch, uint64_t first, uint32_t count)
{
    return (struct rows){.process = process, .store = STORE_ID, .epoch = epoch, .first = first,
                         .count = count};
}

static void rows_are_judged_by_the_table(void **state)
{
    static const struct {
        uint64_t process, epoch, first;
        uint32_t count;
        enum rows_answer answer;
        uint32_t skip;
    } table[] = {
        /* up to the mark: acknowledged again */
        {ME, 3, 0, 10, ROWS_REPEAT, 0},
        {ME, 3, 5, 5, ROWS_REPEAT, 0},
        {ME, 3, 0, 1, ROWS_REPEAT, 0},
        /* of a chunk across the mark the tail is stored */
        {ME, 3, 5, 6, ROWS_STORE, 5},
        {ME, 3, 0, 11, ROWS_STORE, 10},
        /* mark + 1 */
        {ME, 3, 10, 1, ROWS_STORE, 0},
        {ME, 3, 10, 100, ROWS_STORE, 0},
        /* beyond */
        {ME, 3, 11, 1, ROWS_GAP, 0},
        {ME, 3, UINT64_MAX - 5, 3, ROWS_GAP, 0},
        /* older epoch: another process holds the slot; the holder's own late rows */
        {OTHER, 2, 0, 1, ROWS_FENCED, 0},
        {ME, 2, 0, 1, ROWS_LATE, 0},
        {ME, 2, 999, 1, ROWS_LATE, 0},
        /* another process cannot use the holder's epoch either */
        {OTHER, 3, 10, 1, ROWS_FENCED, 0},
        /* newer epoch */
        {ME, 4, 0, 1, ROWS_REJOIN, 0},
        {OTHER, 4, 10, 1, ROWS_REJOIN, 0},
    };
    struct store_stream stream = held(3, 10, ME), closed = held(3, 10, 0);
    struct rows message;
    uint32_t skip;

    (void)state;
    for (size_t i = 0; i < TD_LEN(table); i++) {
        message = rows(table[i].process, table[i].epoch, table[i].first, table[i].count);
        assert_int_equal(rows_judge(&stream, STORE_ID, &message, &skip), table[i].answer);
        assert_int_equal(skip, table[i].skip);
    }
    message = rows(ME, 3, 10, 1);
    assert_int_equal(rows_judge(&stream, STORE_ID + 1, &message, &skip), ROWS_REJOIN);
    assert_int_equal(rows_judge(NULL, STORE_ID, &message, &skip), ROWS_REJOIN);
    assert_int_equal(rows_judge(&closed, STORE_ID, &message, &skip), ROWS_REJOIN);
}

static void hellos_are_judged_by_the_table(void **state)
{
    struct store_stream mine = held(3, 10, ME), closed = held(3, 10, 0);
    struct stream_shown none = {0}, same = {.store = STORE_ID, .epoch = 3};
    struct stream_shown older = {.store = STORE_ID, .epoch = 2};
    struct stream_shown foreign = {.store = 999, .epoch = 8};
    struct stream_shown renew = {.store = STORE_ID, .epoch = 3, .renew = true};
    struct stream_shown renewed = {.store = STORE_ID, .epoch = 2, .renew = true};
    struct stream_shown wild = {.store = 999, .epoch = UINT64_MAX};
    uint64_t epoch = 0;

    (void)state;
    /* the holder goes on, whatever it shows: a repeated Hello changes nothing */
    assert_int_equal(hello_judge(&mine, STORE_ID, ME, &same, &epoch), HELLO_SAME);
    assert_int_equal(hello_judge(&mine, STORE_ID, ME, &none, &epoch), HELLO_SAME);
    assert_int_equal(hello_judge(&mine, STORE_ID, ME, &older, &epoch), HELLO_SAME);
    /* unless it renews the epoch it shows; repeating that renews nothing more */
    assert_int_equal(hello_judge(&mine, STORE_ID, ME, &renew, &epoch), HELLO_GRANT);
    assert_int_equal(epoch, 4);
    assert_int_equal(hello_judge(&mine, STORE_ID, ME, &renewed, &epoch), HELLO_SAME);
    /* who shows an epoch of this store while another holds the slot is fenced */
    assert_int_equal(hello_judge(&mine, STORE_ID, OTHER, &older, &epoch), HELLO_FENCED);
    assert_int_equal(hello_judge(&mine, STORE_ID, OTHER, &renewed, &epoch), HELLO_FENCED);
    /* a new process takes the slot; epochs only grow */
    assert_int_equal(hello_judge(&mine, STORE_ID, OTHER, &none, &epoch), HELLO_GRANT);
    assert_int_equal(epoch, 4);
    assert_int_equal(hello_judge(&mine, STORE_ID, OTHER, &foreign, &epoch), HELLO_GRANT);
    assert_int_equal(epoch, 9);
    assert_int_equal(hello_judge(&closed, STORE_ID, ME, &same, &epoch), HELLO_GRANT);
    assert_int_equal(epoch, 4);
    assert_int_equal(hello_judge(&closed, STORE_ID, OTHER, &older, &epoch), HELLO_GRANT);
    assert_int_equal(hello_judge(NULL, STORE_ID, ME, &none, &epoch), HELLO_GRANT);
    assert_int_equal(epoch, 1);
    assert_int_equal(hello_judge(NULL, STORE_ID, ME, &foreign, &epoch), HELLO_GRANT);
    assert_int_equal(epoch, 9);
    assert_int_equal(hello_judge(&mine, STORE_ID, OTHER, &wild, &epoch), HELLO_GRANT);
    assert_int_equal(epoch, 4);
}

static void the_table_keeps_streams_in_order(void **state)
{
    struct streams streams = {0};

    (void)state;
    for (int i = 0; i < 500; i++) {
        uint32_t slot = rng_below(test_rng(), 40), env = rng_below(test_rng(), 4);
        struct live_stream *stream = streams_get(&streams, slot, env, 5);

        assert_non_null(stream);
        stream->peer.id = slot;
        assert_ptr_equal(streams_find(&streams, slot, env), stream);
    }
    for (size_t i = 1; i < streams.count; i++)
        assert_true(((uint64_t)streams.list[i - 1].slot << 32 | streams.list[i - 1].env) <
                    ((uint64_t)streams.list[i].slot << 32 | streams.list[i].env));
    assert_null(streams_find(&streams, 41, 0));
    streams_heard(&streams, &(struct peer){.port = PORT_INGEST, .id = 7}, 99);
    for (size_t i = 0; i < streams.count; i++)
        assert_int_equal(streams.list[i].since_ms, streams.list[i].slot == 7 ? 99 : 5);
    streams_clear(&streams);
    assert_null(streams_find(&streams, 7, 0));
    streams_release(&streams);
}

/* Whatever was dealt before: the sum is exact, growth goes to the least, cuts come from the most. */
static void credit_is_dealt_evenly(void **state)
{
    struct share shares[20];
    size_t turn = 0;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        size_t count = 1 + rng_below(test_rng(), TD_LEN(shares));
        uint64_t rest = rng_below(test_rng(), 3) == 0 ? rng_below(test_rng(), 10)
                                                       : rng_below(test_rng(), 400);
        uint64_t before[TD_LEN(shares)], sum = 0, most = 0, least = UINT64_MAX;
        bool grow;

        for (size_t i = 0; i < count; i++) {
            shares[i].steps = rng_below(test_rng(), 1000);
            shares[i].limit = shares[i].steps + rng_below(test_rng(), 30);
            if (rng_below(test_rng(), 8) == 0)
                shares[i].limit = shares[i].steps / 2; /* overtaken */
            before[i] = shares[i].limit > shares[i].steps ? shares[i].limit - shares[i].steps : 0;
            sum += before[i];
        }
        grow = sum < rest;
        credit_deal(shares, count, rest, &turn);
        sum = 0;
        for (size_t i = 0; i < count; i++) {
            uint64_t has = shares[i].limit - shares[i].steps;

            assert_true(shares[i].limit >= shares[i].steps);
            sum += has;
            most = has > most ? has : most;
            least = has < least ? has : least;
            assert_true(grow ? has >= before[i] : has <= before[i]);
        }
        assert_int_equal(sum, rest);
        for (size_t i = 0; i < count; i++) { /* only the poorest got, only the richest gave */
            uint64_t has = shares[i].limit - shares[i].steps;

            if (has != before[i])
                assert_true(grow ? has <= least + 1 : has + 1 >= most);
        }
    }
}

/* Whoever joins when all is dealt gets a large share at once, not when the others have used theirs. */
static void a_newcomer_to_large_shares_does_not_wait(void **state)
{
    struct share shares[3] = {{100, 3100}, {0, 0}, {50, 50}};
    size_t turn = 0;

    (void)state;
    credit_deal(shares, 3, 3000, &turn);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(shares[i].limit - shares[i].steps, 1000);
    shares[0].steps += 400; /* a little ahead: everyone keeps what he has */
    credit_deal(shares, 3, 2600, &turn);
    assert_int_equal(shares[0].limit, 1100);
    assert_int_equal(shares[1].limit, 1000);
    shares[0] = (struct share){0, 8}; /* small shares stay where they are */
    shares[1] = (struct share){0, 0};
    credit_deal(shares, 2, 8, &turn);
    assert_int_equal(shares[0].limit, 8);
    assert_int_equal(shares[1].limit, 0);
}

/* One step at a time goes round: nobody starves. */
static void single_steps_go_round(void **state)
{
    struct share shares[5] = {{0}};
    size_t turn = 0;

    (void)state;
    for (int i = 0; i < 500; i++) {
        credit_deal(shares, 5, 1, &turn);
        for (size_t k = 0; k < 5; k++)
            shares[k].steps = shares[k].limit; /* used at once */
    }
    for (size_t k = 0; k < 5; k++)
        assert_int_equal(shares[k].steps, 100);
    credit_deal(shares, 0, 9, &turn);
}

/* What a limit leaves, and a few beyond it for a while. */
static void a_stream_that_heeds_no_limit_gets_little_more(void **state)
{
    struct live_stream live = {.limit = 100, .told = 90};
    uint64_t now = 5000, steps = 40, taken = 0;
    uint32_t most = (uint32_t)STREAM_BEYOND;

    (void)state;
    assert_int_equal(stream_room(&live, steps, 60, now), 60); /* within: nothing is counted */
    stream_took(&live, steps, 60);
    assert_int_equal(stream_room(&live, 100, 1u << 30, now), most);
    assert_int_equal(stream_room(&live, steps, 1u << 30, now), 60 + most); /* a chunk across the limit: its head */
    stream_took(&live, steps, 60 + most);
    assert_int_equal(stream_room(&live, 100 + most, 1, now), 0);
    /* an hour of trying */
    for (steps = 100 + most; now < 3605000; now += 50) {
        uint32_t room = stream_room(&live, steps, 1000, now);

        stream_took(&live, steps, room);
        steps += room;
        taken += room;
    }
    assert_in_range(taken, (uint64_t)(3500 * STREAM_BEYOND_PER_S), (uint64_t)(3600 * STREAM_BEYOND_PER_S));
    /* more is dealt: at once */
    live.limit = steps + 700;
    assert_int_equal(stream_room(&live, steps, 700, now), 700);
    live.limit = LIMIT_NONE;
    assert_int_equal(stream_room(&live, steps, UINT32_MAX, now), UINT32_MAX);
    live = (struct live_stream){.limit = 10, .told = 50}; /* what it was told last still counts */
    assert_int_equal(stream_room(&live, 20, 30, now), 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_judged_by_the_table),
        cmocka_unit_test(hellos_are_judged_by_the_table),
        cmocka_unit_test(the_table_keeps_streams_in_order),
        cmocka_unit_test(credit_is_dealt_evenly),
        cmocka_unit_test(single_steps_go_round),
        cmocka_unit_test(a_stream_that_heeds_no_limit_gets_little_more),
        cmocka_unit_test(a_newcomer_to_large_shares_does_not_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
