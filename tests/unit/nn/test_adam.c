#include "tests/unit/nn/nn_support.h"

#include <math.h>

#include "common/nn/adam.h"
#include "common/nn/init.h"

enum { COUNT = 3 * ADAM_BLOCK + 77 };

static float parameter[COUNT], gradient[COUNT], m[COUNT], v[COUNT], target[COUNT];
static double partial[8];

static pool_t *make_pool(int threads)
{
    struct error err = {0};
    pool_t *pool = NULL;

    assert_ok(pool_create(&pool, threads, &err), err);
    return pool;
}

/* torch.optim.Adam in double for one element. */
static void reference_step(double *p, double g, double *m1, double *v1, int t, double lr, double eps)
{
    *m1 = 0.9 * *m1 + 0.1 * g;
    *v1 = 0.999 * *v1 + 0.001 * g * g;
    *p -= lr / (1 - pow(0.9, t)) * *m1 / (sqrt(*v1) / sqrt(1 - pow(0.999, t)) + eps);
}

static void steps_match_the_formula(void **state)
{
    static const float gradients[] = {1, -1, 1e-3f, 1e-9f, 3e4f, 0, -2.5f};
    struct adam adam = {0.9, 0.999, 1e-8};

    (void)state;
    ON_EVERY_PATH for (size_t i = 0; i < TD_LEN(gradients); i++)
    {
        double p = 0.5, m1 = 0, v1 = 0;

        for (int j = 0; j < 40; j++) {
            parameter[j] = 0.5f;
            m[j] = v[j] = 0;
        }
        for (int t = 1; t <= 30; t++) {
            float expected;

            for (int j = 0; j < 40; j++)
                gradient[j] = gradients[i] * (float)(t % 3 + 1);
            reference_step(&p, 0.5 * (double)gradient[0], &m1, &v1, t, 3e-4, 1e-8);
            adam_step(&adam, (uint64_t)t, 3e-4, 0.5f, NULL, parameter, gradient, m, v, 39);
            expected = (float)p;
            for (int j = 0; j < 39; j++) {
                assert_close(&parameter[j], &expected, 1, 2e-6, 0);
                assert_true(gradient[j] == 0.0f);
            }
            assert_true(parameter[39] == 0.5f && m[39] == 0.0f);
        }
    }
}

static void the_first_step_has_the_size_of_the_rate(void **state)
{
    struct adam adam = {0.9, 0.999, 1e-8};
    float p[2] = {1, 1}, g[2] = {123, -0.01f}, m2[2] = {0}, v2[2] = {0};
    float expected[2] = {1 - 3e-4f, 1 + 3e-4f};

    (void)state;
    adam_step(&adam, 1, 3e-4, 1, NULL, p, g, m2, v2, 2);
    assert_close(p, expected, 2, 1e-7, 0);
}

static void norm_and_clipping(void **state)
{
    double sum = 0, norm;

    (void)state;
    random_floats(gradient, COUNT, 2);
    for (int i = 0; i < COUNT; i++)
        sum += (double)gradient[i] * (double)gradient[i];
    assert_int_equal(adam_blocks(COUNT), 4);
    ON_EVERY_PATH
    {
        norm = grad_norm(NULL, gradient, COUNT, partial);
        assert_true(fabs(norm / sqrt(sum) - 1) < 1e-7);
    }
    gradient[COUNT - 1] = NAN;
    norm = grad_norm(NULL, gradient, COUNT, partial);
    assert_true(isnan(norm) && isnan(grad_clip_factor(norm, 20)));
    assert_true(grad_clip_factor(19.9, 20) == 1.0f);
    assert_true(grad_clip_factor(0, 20) == 1.0f);
    assert_close(&(float){grad_clip_factor(40, 20)}, &(float){(float)(20 / (40 + 1e-6))}, 1, 0, 0);
    assert_true(grad_clip_factor(INFINITY, 20) == 0.0f);
}

static void threads_do_not_change_the_bits(void **state)
{
    static float first[COUNT], first_target[COUNT];
    struct adam adam = {0.9, 0.999, 1e-5};
    double norm = 0;

    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        struct rng_key key = {.seed = 4, .purpose = RNG_TEST};
        struct rng rng;
        pool_t *pool = make_pool(threads);

        rng_init(&rng, &key);
        rng_normal(&rng, parameter, COUNT);
        rng_normal(&rng, gradient, COUNT);
        rng_normal(&rng, target, COUNT);
        memset(m, 0, sizeof(m));
        memset(v, 0, sizeof(v));
        if (threads == 1)
            norm = grad_norm(pool, gradient, COUNT, partial);
        assert_true(grad_norm(pool, gradient, COUNT, partial) == norm);
        adam_step(&adam, 3, 1e-3, 0.7f, pool, parameter, gradient, m, v, COUNT);
        soft_update(pool, target, parameter, 0.01f, COUNT);
        if (threads == 1) {
            memcpy(first, parameter, sizeof(first));
            memcpy(first_target, target, sizeof(first_target));
        }
        assert_memory_equal(parameter, first, sizeof(first));
        assert_memory_equal(target, first_target, sizeof(first_target));
        pool_destroy(&pool);
    }
}

static void soft_update_moves_by_the_rate(void **state)
{
    float t[3] = {0, 1, -4}, online[3] = {1, 1, 4}, expected[3] = {0.25f, 1, -2};

    (void)state;
    soft_update(NULL, t, online, 0.25f, 3);
    assert_close(t, expected, 3, 1e-7, 0);
}

static void initialisation_has_the_right_moments(void **state)
{
    double mean = 0, square = 0;

    (void)state;
    init_truncated_normal(test_rng(), parameter, COUNT, 0.02f);
    for (int i = 0; i < COUNT; i++) {
        mean += (double)parameter[i] / COUNT;
        square += (double)parameter[i] * (double)parameter[i] / COUNT;
    }
    assert_true(fabs(mean) < 5 * 0.02 / sqrt(COUNT));
    assert_true(fabs(sqrt(square) - 0.02) < 5 * 0.02 / sqrt(2.0 * COUNT));
    init_truncated_normal(test_rng(), parameter, COUNT, 3.0f); /* here the cut matters */
    for (int i = 0; i < COUNT; i++)
        assert_true(fabsf(parameter[i]) <= 2.0f);
    init_constant(parameter, 9, 1.0f);
    for (int i = 0; i < 9; i++)
        assert_true(parameter[i] == 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(steps_match_the_formula, back_to_best),
        cmocka_unit_test(the_first_step_has_the_size_of_the_rate),
        cmocka_unit_test_teardown(norm_and_clipping, back_to_best),
        cmocka_unit_test(threads_do_not_change_the_bits),
        cmocka_unit_test(soft_update_moves_by_the_rate),
        cmocka_unit_test(initialisation_has_the_right_moments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
