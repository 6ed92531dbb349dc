#include "tests/support/test.h"

#include <math.h>

#include "common/model/running_scale.h"

/* 0, 1, ..., 256 - 1 shuffled: P95 - P5 = 242.25 - 12.75. */
static void percentiles_are_interpolated(void **state)
{
    struct running_scale scale;
    float q[256], sorted[256];
    int order[256];

    (void)state;
    rng_permutation(test_rng(), order, 256);
    for (int i = 0; i < 256; i++)
        q[i] = (float)order[i];
    running_scale_init(&scale, 1.0f);
    assert_true(scale.value == 1.0f);
    running_scale_update(&scale, q, 256, sorted);
    assert_true(fabsf(scale.value - 229.5f) < 1e-4f);
    assert_true(q[0] == (float)order[0]); /* the input stays as it was */
    for (int i = 0; i < 256; i++)
        assert_true(sorted[i] == (float)i);
}

static void it_moves_by_tau_and_never_aims_below_one(void **state)
{
    struct running_scale scale;
    float q[4] = {0, 0, 0, 0}, wide[2] = {-50, 50}, sorted[4];

    (void)state;
    running_scale_init(&scale, 0.01f);
    running_scale_update(&scale, q, 4, sorted);
    assert_true(scale.value == 1.0f);
    running_scale_update(&scale, wide, 2, sorted);
    assert_true(fabsf(scale.value - (1.0f + 0.01f * 89.0f)) < 1e-5f);
    running_scale_update(&scale, wide, 1, sorted);
    assert_true(isfinite(scale.value));
}

static void nan_is_passed_on(void **state)
{
    struct running_scale scale;
    float q[3] = {1, NAN, 2}, sorted[3];

    (void)state;
    running_scale_init(&scale, 0.01f);
    running_scale_update(&scale, q, 3, sorted);
    assert_true(isnan(scale.value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_interpolated),
        cmocka_unit_test(it_moves_by_tau_and_never_aims_below_one),
        cmocka_unit_test(nan_is_passed_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
