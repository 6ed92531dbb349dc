#include "tests/support/test.h"

#include <math.h>

#include "common/tensor/isa.h"
#include "common/tensor/vec.h"

/* Run `body` on every path this machine has. */
#define ON_EVERY_PATH                                                                              \
    for (int path = 0; path < ISA_COUNT; path++)                                                   \
        if (isa_force((enum isa)path) == TD_OK)

enum { COUNT = 4099 };

static float in[COUNT], out[COUNT], other[COUNT];

static int back_to_best(void **state)
{
    (void)state;
    return isa_force(isa_best());
}

static void check_function(void (*fn)(float *, const float *, size_t), double (*exact)(double),
                           float low, float high, double relative)
{
    rng_uniform(test_rng(), in, COUNT, low, high);
    ON_EVERY_PATH
    {
        test_poison(out, sizeof(out));
        fn(out, in, COUNT);
        for (int i = 0; i < COUNT; i++) {
            double e = exact((double)in[i]);

            if (!(fabs((double)out[i] - e) <= relative * fabs(e) + 2e-45))
                fail_msg("%s: f(%.9g) = %.9g, exactly %.9g", isa_name((enum isa)path),
                         (double)in[i], (double)out[i], e);
        }
    }
}

static void exp_log_tanh_are_accurate(void **state)
{
    (void)state;
    check_function(vec_exp, exp, -87, 88, 2.0e-7);
    check_function(vec_exp, exp, -1, 1, 2.0e-7);
    check_function(vec_log, log, 1e-30f, 1e-3f, 2.0e-7);
    check_function(vec_log, log, 0.3f, 3.0f, 2.0e-7);
    check_function(vec_log, log, 1, 1e30f, 2.0e-7);
    check_function(vec_tanh, tanh, -0.7f, 0.7f, 2.5e-7);
    check_function(vec_tanh, tanh, -12, 12, 2.5e-7);
}

static void the_edges_are_ieee(void **state)
{
    float x[7] = {0, INFINITY, -INFINITY, NAN, 100, -200, 1e-42f}, y[7];

    (void)state;
    ON_EVERY_PATH
    {
        vec_exp(y, x, 7);
        assert_true(y[0] == 1 && y[1] == INFINITY && y[2] == 0 && isnan(y[3]) && y[4] == INFINITY &&
                    y[5] == 0 && y[6] == 1);
        vec_log(y, x, 7);
        assert_true(y[0] == -INFINITY && y[1] == INFINITY && isnan(y[2]) && isnan(y[3]) &&
                    isnan(y[5]));
        assert_close(&y[6], &(float){-96.7085f}, 1, 0, 1e-5);
        vec_tanh(y, x, 7);
        assert_true(y[0] == 0 && y[1] == 1 && y[2] == -1 && isnan(y[3]) && y[4] == 1 && y[5] == -1 &&
                    y[6] == 1e-42f);
    }
}

/* Every length from 0 to beyond two vectors: nothing left out, nothing written past the end. */
static void every_length_is_exact(void **state)
{
    float expected[64];

    (void)state;
    rng_uniform(test_rng(), in, 64, -1, 1);
    rng_uniform(test_rng(), other, 64, -1, 1);
    ON_EVERY_PATH for (size_t count = 0; count <= 40; count++)
    {
        double sum = 0, squares = 0;

        memcpy(out, other, sizeof(expected));
        memcpy(expected, other, sizeof(expected));
        vec_axpy(out, 0.5f, in, count);
        for (size_t i = 0; i < count; i++)
            expected[i] += 0.5f * in[i];
        assert_close(out, expected, 64, 1e-7, 0);
        vec_lerp(out, in, 0.25f, count);
        for (size_t i = 0; i < count; i++)
            expected[i] += 0.25f * (in[i] - expected[i]);
        assert_close(out, expected, 64, 2e-7, 0);
        vec_add(out, in, count);
        vec_scale(out, 3.0f, count);
        for (size_t i = 0; i < count; i++)
            expected[i] = 3.0f * (expected[i] + in[i]);
        assert_close(out, expected, 64, 1e-6, 0);
        vec_exp(out, in, count);
        for (size_t i = 0; i < count; i++) {
            expected[i] = expf(in[i]);
            sum += (double)in[i];
            squares += (double)in[i] * (double)in[i];
        }
        assert_close(out, expected, 64, 1e-6, 1e-6);
        assert_true(fabs(vec_sum(in, count) - sum) < 1e-12);
        assert_true(fabs(vec_sum_squares(in, count) - squares) < 3e-6);
    }
}

static void sums_keep_their_precision_over_many_elements(void **state)
{
    enum { MANY = 300001 };
    static float many[MANY];
    double squares = 0;

    (void)state;
    rng_normal(test_rng(), many, MANY);
    for (int i = 0; i < MANY; i++)
        squares += (double)many[i] * (double)many[i];
    ON_EVERY_PATH
    {
        assert_true(fabs(vec_sum_squares(many, MANY) / squares - 1) < 1e-7);
    }
}

static void finite_finds_a_single_bad_element(void **state)
{
    static const float bad[3] = {NAN, INFINITY, -INFINITY};

    (void)state;
    rng_normal(test_rng(), in, COUNT);
    ON_EVERY_PATH
    {
        assert_true(vec_finite(in, COUNT));
        assert_true(vec_finite(in, 0));
        for (int i = 0; i < COUNT; i += i < 70 ? 1 : 511) {
            float kept = in[i];

            in[i] = bad[i % 3];
            assert_false(vec_finite(in, COUNT));
            in[i] = kept;
        }
    }
}

static void paths_have_names_and_unknown_ones_are_refused(void **state)
{
    (void)state;
    assert_string_equal(isa_name(ISA_PLAIN), "plain");
    assert_int_equal(isa_force(ISA_COUNT), TD_EINVAL);
    assert_int_equal(isa_force(ISA_PLAIN), TD_OK);
    assert_int_equal(isa_current(), ISA_PLAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(exp_log_tanh_are_accurate, back_to_best),
        cmocka_unit_test_teardown(the_edges_are_ieee, back_to_best),
        cmocka_unit_test_teardown(every_length_is_exact, back_to_best),
        cmocka_unit_test_teardown(sums_keep_their_precision_over_many_elements, back_to_best),
        cmocka_unit_test_teardown(finite_finds_a_single_bad_element, back_to_best),
        cmocka_unit_test_teardown(paths_have_names_and_unknown_ones_are_refused, back_to_best),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
