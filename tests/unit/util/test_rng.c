#include "tests/support/test.h"

#include <math.h>

static struct rng stream(uint64_t seed, uint64_t step)
{
    struct rng rng;
    struct rng_key key = {.seed = seed, .purpose = RNG_TEST, .step = step};

    rng_init(&rng, &key);
    return rng;
}

/* Known answers of Philox4x32-10 from the Random123 distribution (kat_vectors). */
static void philox_matches_its_known_answers(void **state)
{
    struct rng zero = {.used = 4};
    struct rng ones = {.key = {~0u, ~0u}, .counter = {~0u, ~0u, ~0u, ~0u}, .used = 4};
    struct rng pi = {.key = {0xa4093822u, 0x299f31d0u},
                     .counter = {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
                     .used = 4};
    static const uint32_t expected[3][4] = {
        {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u},
        {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu},
        {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u},
    };

    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(rng_u32(&zero), expected[0][i]);
        assert_int_equal(rng_u32(&ones), expected[1][i]);
        assert_int_equal(rng_u32(&pi), expected[2][i]);
    }
}

static void streams_depend_on_every_part_of_the_key(void **state)
{
    struct rng_key base = {.seed = 7, .purpose = RNG_PLAN, .slot = 1, .env = 2, .epoch = 3, .step = 4};
    struct rng_key keys[7] = {base, base, base, base, base, base, base};
    uint64_t first[7];
    struct rng rng;

    (void)state;
    keys[1].seed++;
    keys[2].purpose++;
    keys[3].slot++;
    keys[4].env++;
    keys[5].epoch++;
    keys[6].step++;
    for (int i = 0; i < 7; i++) {
        rng_init(&rng, &keys[i]);
        first[i] = rng_u64(&rng);
        for (int j = 0; j < i; j++)
            assert_true(first[i] != first[j]);
    }
}

static void normal_draws_have_the_right_moments(void **state)
{
    enum { COUNT = 200000 };
    static float draws[COUNT];
    struct rng rng = stream(3, 0);
    double mean = 0, square = 0, fourth = 0;

    (void)state;
    rng_normal(&rng, draws, COUNT);
    for (int i = 0; i < COUNT; i++) {
        double x = draws[i];

        mean += x / COUNT;
        square += x * x / COUNT;
        fourth += x * x * x * x / COUNT;
    }
    assert_true(fabs(mean) < 0.012);
    assert_true(fabs(square - 1) < 0.02);
    assert_true(fabs(fourth - 3) < 0.15);
}

static void permutations_are_uniform(void **state)
{
    struct rng rng = stream(5, 0);
    int counts[5][5] = {{0}}, order[5];

    (void)state;
    for (int round = 0; round < 20000; round++) {
        int seen = 0;

        rng_permutation(&rng, order, 5);
        for (int i = 0; i < 5; i++) {
            counts[i][order[i]]++;
            seen |= 1 << order[i];
        }
        assert_int_equal(seen, 31);
    }
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++)
            assert_in_range(counts[i][j], 3760, 4240); /* 4000 +- 4 sigma */
}

static void exponential_is_positive_with_mean_one(void **state)
{
    static float draws[100000];
    struct rng rng = stream(6, 0);
    double mean = 0;

    (void)state;
    rng_exponential(&rng, draws, TD_LEN(draws));
    for (size_t i = 0; i < TD_LEN(draws); i++) {
        assert_true(draws[i] > 0);
        mean += (double)draws[i] / (double)TD_LEN(draws);
    }
    assert_true(fabs(mean - 1) < 0.015);
}

/* Share of ones, and of ones followed by a zero: independent draws, whatever way they are made. */
static void masks_are_independent_draws(void **state)
{
    static const float keeps[] = {0, 0.3f, 0.7f, 0.75f, 0.9f, 0.99f, 1};
    enum { COUNT = 400000 };
    static uint8_t mask[COUNT + 1];
    struct rng rng = stream(8, 0);

    (void)state;
    for (size_t k = 0; k < TD_LEN(keeps); k++) {
        double keep = (double)keeps[k], ones = 0, ends = 0;

        memset(mask, 7, sizeof(mask));
        rng_mask(&rng, mask, COUNT, keeps[k]);
        for (int i = 0; i < COUNT; i++) {
            assert_true(mask[i] <= 1);
            ones += mask[i];
            ends += i > 0 && mask[i - 1] && !mask[i];
        }
        assert_int_equal(mask[COUNT], 7);
        assert_true(fabs(ones - keep * COUNT) <= 4.5 * sqrt(COUNT * keep * (1 - keep)));
        keep *= 1 - keep;
        assert_true(fabs(ends - keep * COUNT) <= 4.5 * sqrt(COUNT * keep));
    }
    mask[0] = 7;
    rng_mask(&rng, mask, 0, 0.99f);
    assert_int_equal(mask[0], 7);
}

static void forks_do_not_move_their_parent(void **state)
{
    struct rng a = stream(9, 1), b = stream(9, 1), fork, other;

    (void)state;
    rng_fork(&fork, &a, 0);
    rng_fork(&other, &a, 1);
    assert_true(rng_u64(&fork) != rng_u64(&other));
    assert_true(rng_u64(&a) == rng_u64(&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_matches_its_known_answers),
        cmocka_unit_test(streams_depend_on_every_part_of_the_key),
        cmocka_unit_test(normal_draws_have_the_right_moments),
        cmocka_unit_test(permutations_are_uniform),
        cmocka_unit_test(exponential_is_positive_with_mean_one),
        cmocka_unit_test(masks_are_independent_draws),
        cmocka_unit_test(forks_do_not_move_their_parent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
