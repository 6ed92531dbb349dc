/* bfloat16: nearest, ties to even, and what is not finite. */
#include <math.h>

#include "common/tensor/bf16.h"
#include "tests/support/test.h"

static float of_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

static void known_values(void **state)
{
    static const struct {
        uint32_t bits;
        uint16_t half;
    } cases[] = {
        {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, /* tie, to even */
        {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x3f807fff, 0x3f80}, {0xc0490fdb, 0xc049},
        {0x7f7fffff, 0x7f80}, {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x00000001, 0x0000},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++)
        assert_int_equal(bf16_nearest(of_bits(cases[i].bits)), cases[i].half);
    assert_true(isnan(bf16_float(bf16_nearest(of_bits(0x7f800001))))); /* the payload's upper half is 0 */
    assert_true(isnan(bf16_float(bf16_nearest(NAN))));
}

static void every_bfloat16_comes_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++)
        if (!isnan(bf16_float((uint16_t)half)))
            assert_int_equal(bf16_nearest(bf16_float((uint16_t)half)), half);
}

static void what_is_not_finite_is_found_anywhere(void **state)
{
    static const uint16_t bad[] = {0x7f80, 0xff80, 0x7fc0};
    uint16_t x[67];

    (void)state;
    for (size_t i = 0; i < TD_LEN(x); i++)
        x[i] = bf16_nearest((float)i - 30);
    assert_true(bf16_finite(x, TD_LEN(x)));
    for (size_t i = 0; i < TD_LEN(x); i++) {
        uint16_t kept = x[i];

        x[i] = bad[i % TD_LEN(bad)];
        assert_false(bf16_finite(x, TD_LEN(x)));
        x[i] = kept;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(every_bfloat16_comes_back),
        cmocka_unit_test(what_is_not_finite_is_found_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
