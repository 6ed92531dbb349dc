#include "tests/unit/nn/nn_support.h"

#include <math.h>

enum { ROWS = 3, DIM = 24, COUNT = ROWS * DIM };

struct problem {
    float dy[COUNT], gain[DIM], shift[DIM];
    int group;
};

static double dot(const float *a, const float *b, int count)
{
    double sum = 0;

    for (int i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static double mish_loss(const float *x, void *context)
{
    struct problem *p = context;
    float y[COUNT];

    nn_mish_forward(x, COUNT, y);
    return dot(y, p->dy, COUNT);
}

static double simnorm_loss(const float *x, void *context)
{
    struct problem *p = context;
    float y[COUNT];

    nn_simnorm_forward(x, ROWS, DIM, p->group, y);
    return dot(y, p->dy, COUNT);
}

static double layernorm_loss(const float *x, void *context)
{
    struct problem *p = context;
    float y[COUNT], normal[COUNT], rstd[ROWS];

    nn_layernorm_forward(x, p->gain, p->shift, ROWS, DIM, y, normal, rstd);
    return dot(y, p->dy, COUNT);
}

static void mish_gradient(void **state)
{
    struct problem p;
    float x[COUNT], dx[COUNT];

    (void)state;
    random_floats(p.dy, COUNT, 1);
    random_floats(x, COUNT, 3);
    ON_EVERY_PATH
    {
        test_poison(dx, sizeof(dx));
        nn_mish_backward(x, p.dy, COUNT, dx);
        assert_gradient(mish_loss, &p, x, dx, COUNT, 4e-3, 1e-3);
    }
}

static void simnorm_gradient(void **state)
{
    static const int groups[] = {8, 4, 6, 24, 1};
    struct problem p;
    float x[COUNT], y[COUNT], dx[COUNT];

    (void)state;
    random_floats(p.dy, COUNT, 1);
    random_floats(x, COUNT, 2);
    ON_EVERY_PATH for (size_t g = 0; g < TD_LEN(groups); g++)
    {
        p.group = groups[g];
        test_poison(dx, sizeof(dx));
        test_poison(y, sizeof(y));
        nn_simnorm_forward(x, ROWS, DIM, p.group, y);
        nn_simnorm_backward(y, p.dy, ROWS, DIM, p.group, dx);
        if (p.group > 1)
            assert_gradient(simnorm_loss, &p, x, dx, COUNT, 4e-3, 1e-3);
        else
            for (int i = 0; i < COUNT; i++)
                assert_true(y[i] == 1.0f && fabsf(dx[i]) < 1e-6f);
    }
}

static void layernorm_gradient(void **state)
{
    struct problem p;
    float x[COUNT], y[COUNT], dx[COUNT], normal[COUNT], rstd[ROWS];
    float dgain[DIM] = {0}, dshift[DIM] = {0};

    (void)state;
    random_floats(p.dy, COUNT, 1);
    random_floats(p.gain, DIM, 1);
    random_floats(p.shift, DIM, 1);
    random_floats(x, COUNT, 2);
    test_poison(dx, sizeof(dx));
    nn_layernorm_forward(x, p.gain, p.shift, ROWS, DIM, y, normal, rstd);
    nn_layernorm_backward(p.dy, p.gain, normal, rstd, ROWS, DIM, dx, dgain, dshift);
    assert_gradient(layernorm_loss, &p, x, dx, COUNT, 4e-3, 1e-3);
    for (int i = 0; i < DIM; i++) {
        float gain = 0, shift = 0;

        for (int r = 0; r < ROWS; r++) {
            gain += p.dy[r * DIM + i] * normal[r * DIM + i];
            shift += p.dy[r * DIM + i];
        }
        assert_close(&dgain[i], &gain, 1, 1e-5, 1e-5);
        assert_close(&dshift[i], &shift, 1, 1e-5, 1e-5);
    }
}

/* torch.nn.functional.mish in float64, and its derivative. */
static void mish_known_values(void **state)
{
    static const double at[] = {-100, -20, -5, -1, -0.1, 0, 1e-6, 0.5, 1, 3, 10, 19.9, 20.1, 50, 1e30};

    (void)state;
    ON_EVERY_PATH for (size_t i = 0; i < TD_LEN(at); i++)
    {
        float x = (float)at[i], one = 1, y, dy;
        double u = (double)x, softplus = u > 40 ? u : log1p(exp(u)), t = tanh(softplus);
        float exact = (float)(u * t), slope = (float)(t + u * (1 - t * t) / (1 + exp(-u)));

        nn_mish_forward(&x, 1, &y);
        nn_mish_backward(&x, &one, 1, &dy);
        assert_close(&y, &exact, 1, 1e-40, 5e-7);
        assert_close(&dy, &slope, 1, 3e-7, 5e-7);
    }
    ON_EVERY_PATH
    {
        float x = NAN, y, one = 0.865098388f;

        nn_mish_forward(&x, 1, &y);
        assert_true(isnan(y));
        x = 1;
        nn_mish_forward(&x, 1, &y);
        assert_close(&y, &one, 1, 1e-6, 0);
    }
}

static void simnorm_known_values(void **state)
{
    float x[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1000, 0, -1000, 0, 0, 0, 0, 0}, y[16];

    (void)state;
    ON_EVERY_PATH
    {
        test_poison(y, sizeof(y));
        nn_simnorm_forward(x, 1, 16, 8, y);
        for (int i = 0; i < 8; i++)
            assert_close(&y[i], &(float){0.125f}, 1, 1e-8, 0);
        for (int i = 8; i < 16; i++)
            assert_true(y[i] == (i == 8 ? 1.0f : 0.0f));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(mish_gradient, back_to_best),
        cmocka_unit_test_teardown(simnorm_gradient, back_to_best),
        cmocka_unit_test_teardown(layernorm_gradient, back_to_best),
        cmocka_unit_test_teardown(mish_known_values, back_to_best),
        cmocka_unit_test_teardown(simnorm_known_values, back_to_best),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
