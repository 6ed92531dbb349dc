#include "tests/unit/nn/nn_support.h"

#include <math.h>

enum { ROWS_MAX = 9, IN_MAX = 21, OUT_MAX = 72 };

struct problem {
    struct nn_layer layer;
    int rows;
    float memory[IN_MAX * OUT_MAX + 3 * OUT_MAX];
    float x[ROWS_MAX * IN_MAX], dy[ROWS_MAX * OUT_MAX];
    uint8_t mask[ROWS_MAX * OUT_MAX];
    bool dropout;
};

struct result {
    float y[ROWS_MAX * OUT_MAX], normal[ROWS_MAX * OUT_MAX], rstd[ROWS_MAX];
    float dx[ROWS_MAX * IN_MAX], column[3 * OUT_MAX], dweight[IN_MAX * OUT_MAX];
};

static void forward(const struct problem *p, struct result *r)
{
    struct nn_layer_tape tape = {r->normal, r->rstd};

    nn_layer_forward(&p->layer, p->x, (size_t)p->layer.in, p->rows, p->dropout ? p->mask : NULL, &tape,
                     r->y, (size_t)p->layer.out);
}

static void backward(const struct problem *p, struct result *r)
{
    struct nn_layer_tape tape = {r->normal, r->rstd};
    const struct nn_layer *layer = &p->layer;
    size_t in = (size_t)layer->in, out = (size_t)layer->out;
    const float *dlinear = layer->activation == NN_IDENTITY ? p->dy : r->normal;

    nn_layer_backward_rows(layer, r->y, out, p->dy, out, p->rows, p->dropout ? p->mask : NULL, &tape,
                           r->column);
    nn_layer_backward_input(layer, dlinear, out, p->rows, 0, 0, r->dx, in);
    memset(r->dweight, 0, sizeof(r->dweight));
    nn_layer_backward_weight(layer, dlinear, out, p->x, in, p->rows, 0, layer->out, r->dweight);
}

/* sum y dy, as a function of whatever was moved. */
static double loss(const float *moved, void *context)
{
    struct problem *p = context;
    static struct result r;
    double sum = 0;

    (void)moved;
    forward(p, &r);
    for (int i = 0; i < p->rows * p->layer.out; i++)
        sum += (double)r.y[i] * (double)p->dy[i];
    return sum;
}

static struct problem *make(int rows, int in, int out, enum nn_activation activation, int group,
                            bool dropout)
{
    static struct problem p;

    p.layer = random_layer(in, out, activation, group, p.memory);
    p.layer.dropout = dropout ? 0.3f : 0.0f;
    p.rows = rows;
    p.dropout = dropout;
    random_floats(p.x, TD_LEN(p.x), 1);
    random_floats(p.dy, TD_LEN(p.dy), 1);
    rng_mask(test_rng(), p.mask, TD_LEN(p.mask), 0.7f);
    return &p;
}

struct size {
    int rows, in, out, group;
};

static const struct size sizes[] = {{1, 1, 8, 8}, {9, 21, 72, 8}, {5, 16, 16, 8}, {4, 6, 24, 4},
                                    {3, 20, 40, 8}, {7, 13, 63, 7}, {2, 9, 17, 17}};

static void check_gradients(struct problem *p)
{
    static struct result r;
    int in = p->layer.in, out = p->layer.out;

    test_poison(&r, sizeof(r));
    forward(p, &r);
    backward(p, &r);
    assert_gradient(loss, p, p->x, r.dx, (size_t)(p->rows * in), 4e-3, 3e-3);
    assert_gradient(loss, p, p->memory, r.dweight, (size_t)(in * out), 4e-3, 3e-3);
    assert_gradient(loss, p, p->memory + in * out, r.column, (size_t)out, 4e-3, 3e-3);
    if (p->layer.activation == NN_IDENTITY)
        return;
    assert_gradient(loss, p, p->memory + in * out + out, r.column + out, (size_t)out, 4e-3, 3e-3);
    assert_gradient(loss, p, p->memory + in * out + 2 * out, r.column + 2 * out, (size_t)out, 4e-3,
                    3e-3);
}

static void gradients_match_central_differences(void **state)
{
    (void)state;
    ON_EVERY_PATH for (size_t i = 0; i < TD_LEN(sizes); i++)
    {
        const struct size *s = &sizes[i];

        if (s->rows * s->in > 1) {
            check_gradients(make(s->rows, s->in, s->out, NN_MISH, 0, false));
            check_gradients(make(s->rows, s->in, s->out, NN_SIMNORM, s->group, false));
        }
        check_gradients(make(s->rows, s->in, s->out, NN_IDENTITY, 0, false));
    }
}

static void dropout_gradients_match_central_differences(void **state)
{
    (void)state;
    ON_EVERY_PATH
    {
        check_gradients(make(9, 21, 72, NN_MISH, 0, true));
        check_gradients(make(5, 16, 40, NN_SIMNORM, 8, true));
        check_gradients(make(3, 7, 19, NN_MISH, 0, true));
    }
}

/* Worst relative difference of two arrays against the largest element. */
static void assert_same(const float *a, const float *b, int count, double tolerance)
{
    double largest = 1e-6;

    for (int i = 0; i < count; i++)
        if (fabs((double)b[i]) > largest) /* fmax here trips over a bug of gcc 12 for aarch64 */
            largest = fabs((double)b[i]);
    assert_close(a, b, (size_t)count, tolerance * largest, 0);
}

static void vector_paths_agree_with_plain_c(void **state)
{
    static struct result plain, fast;

    (void)state;
    for (size_t i = 0; i < TD_LEN(sizes); i++) {
        for (int kind = 0; kind < 6; kind++) {
            const struct size *s = &sizes[i];
            struct problem *p = make(s->rows, s->in, s->out, (enum nn_activation)(kind % 3), s->group,
                                     kind >= 3 && kind % 3 != NN_IDENTITY);
            int in = p->layer.in, out = p->layer.out;

            isa_force(ISA_PLAIN);
            forward(p, &plain);
            backward(p, &plain);
            ON_EVERY_PATH
            {
                test_poison(&fast, sizeof(fast));
                forward(p, &fast);
                assert_same(fast.y, plain.y, p->rows * out, 2e-6);
                backward(p, &fast);
                assert_same(fast.dx, plain.dx, p->rows * in, 1e-5);
                assert_same(fast.dweight, plain.dweight, in * out, 1e-5);
                assert_same(fast.column, plain.column, kind % 3 ? 3 * out : out, 1e-5);
            }
        }
    }
}

/* The same row alone and in company, in any place of the tile. */
static void a_row_does_not_depend_on_its_neighbours(void **state)
{
    static struct result all, one;

    (void)state;
    ON_EVERY_PATH for (int activation = NN_MISH; activation <= NN_SIMNORM; activation++)
    {
        struct problem *p = make(9, 21, 72, (enum nn_activation)activation, 8, false);

        forward(p, &all);
        p->rows = 1;
        for (int r = 0; r < 9; r++) {
            memmove(p->x, p->x + (r > 0 ? 21 : 0), (size_t)(9 - r) * 21 * sizeof(float));
            forward(p, &one);
            if (path == ISA_PLAIN) /* OpenBLAS: only to rounding */
                assert_close(one.y, all.y + r * 72, 72, 1e-6, 1e-6);
            else
                assert_memory_equal(one.y, all.y + r * 72, 72 * sizeof(float));
        }
    }
}

static void rows_may_be_strided(void **state)
{
    enum { ROWS = 5, IN = 10, OUT = 24, LDX = 17, LDY = 31 };
    static struct result r;
    struct problem *p = make(ROWS, IN, OUT, NN_SIMNORM, 8, false);
    static float x[ROWS * LDX], y[ROWS * LDY], y_before[ROWS * LDY];

    (void)state;
    ON_EVERY_PATH
    {
        forward(p, &r);
        test_poison(x, sizeof(x));
        test_poison(y, sizeof(y));
        test_poison(y_before, sizeof(y_before));
        for (int i = 0; i < ROWS; i++)
            memcpy(x + i * LDX, p->x + i * IN, IN * sizeof(float));
        nn_layer_forward(&p->layer, x, LDX, ROWS, NULL, NULL, y, LDY);
        for (int i = 0; i < ROWS; i++) {
            assert_memory_equal(y + i * LDY, r.y + i * OUT, OUT * sizeof(float));
            assert_memory_equal(y + i * LDY + OUT, y_before, (LDY - OUT) * sizeof(float));
        }
    }
}

/* y = Mish(LayerNorm(x W' + b)) by hand: x = (1, 2), W = ((1, 0), (0, 1)), b = 0: (-1, 1) normalised. */
static void known_values(void **state)
{
    float weight[4] = {1, 0, 0, 1}, bias[2] = {0, 0}, gain[2] = {1, 2}, shift[2] = {0, 1};
    float x[2] = {1, 2}, y[2], r = 1 / sqrtf(0.25f + 1e-5f);
    float u[2] = {-0.5f * r, 2 * 0.5f * r + 1}, expected[2];
    struct nn_layer layer = {.in = 2, .out = 2, .stride = 2, .activation = NN_MISH, .weight = weight,
                             .bias = bias, .gain = gain, .shift = shift};

    (void)state;
    for (int i = 0; i < 2; i++)
        expected[i] = u[i] * tanhf(log1pf(expf(u[i])));
    ON_EVERY_PATH
    {
        nn_layer_forward(&layer, x, 2, 1, NULL, NULL, y, 2);
        assert_close(y, expected, 2, 1e-6, 1e-6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(gradients_match_central_differences, back_to_best),
        cmocka_unit_test_teardown(dropout_gradients_match_central_differences, back_to_best),
        cmocka_unit_test_teardown(vector_paths_agree_with_plain_c, back_to_best),
        cmocka_unit_test_teardown(a_row_does_not_depend_on_its_neighbours, back_to_best),
        cmocka_unit_test_teardown(rows_may_be_strided, back_to_best),
        cmocka_unit_test_teardown(known_values, back_to_best),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
