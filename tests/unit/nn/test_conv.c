#include "common/nn/conv.h"

#include <math.h>

#include "tests/unit/nn/nn_support.h"

enum { FLOATS = 30000 };

struct problem {
    struct conv conv;
    float weight[FLOATS], bias[64], x[FLOATS], y[FLOATS], gate[FLOATS];
    float packed[2 * FLOATS] __attribute__((aligned(64))), back[2 * FLOATS] __attribute__((aligned(64)));
    float dy[FLOATS], dx[FLOATS], dpacked[FLOATS], dweight[FLOATS], dbias[64];
};

/* Those of the encoder, with fewer channels; odd ones; more channels than any panel has. */
static const struct conv cases[] = {
    {.in = 9, .out = 5, .kernel = 7, .stride = 2, .side = 20, .planes = true, .relu = true},
    {.in = 5, .out = 6, .kernel = 5, .stride = 2, .side = 13, .relu = true},
    {.in = 6, .out = 3, .kernel = 3, .stride = 2, .side = 13},
    {.in = 3, .out = 3, .kernel = 3, .stride = 1, .side = 6},
    {.in = 17, .out = 35, .kernel = 3, .stride = 2, .side = 8},
    {.in = 35, .out = 17, .kernel = 2, .stride = 1, .side = 7, .relu = true},
    {.in = 2, .out = 1, .kernel = 3, .stride = 3, .side = 11},
    {.in = 1, .out = 8, .kernel = 4, .stride = 3, .side = 12, .planes = true},
    {.in = 4, .out = 16, .kernel = 1, .stride = 1, .side = 31},
    {.in = 3, .out = 32, .kernel = 7, .stride = 1, .side = 22, .planes = true},
};

static size_t floats_of(int side, int channels)
{
    return (size_t)side * (size_t)side * (size_t)channels;
}

static float *x_at(struct problem *p, float *x, int i, int row, int column)
{
    const struct conv *c = &p->conv;

    return c->planes ? x + ((row * c->in + i) * c->side + column) : x + ((row * c->side + column) * c->in + i);
}

static struct problem *make(const struct conv *shape)
{
    static struct problem p;
    struct conv *conv = &p.conv;

    *conv = *shape;
    conv->weight = p.weight;
    conv->bias = p.bias;
    random_floats(p.weight, (size_t)conv_depth(conv) * (size_t)conv->out, 0.3f);
    random_floats(p.bias, (size_t)conv->out, 0.5f);
    random_floats(p.x, floats_of(conv->side, conv->in), 1);
    assert_true(conv_packed_floats(conv) <= TD_LEN(p.packed));
    test_poison(p.packed, sizeof(p.packed));
    test_poison(p.back, sizeof(p.back));
    conv_pack(conv, p.packed);
    conv_pack_back(conv, p.back);
    return &p;
}

/* The definition, before ReLU. */
static double plain(struct problem *p, int o, int row, int column)
{
    const struct conv *c = &p->conv;
    double sum = (double)p->bias[o];

    for (int i = 0; i < c->in; i++)
        for (int u = 0; u < c->kernel; u++)
            for (int v = 0; v < c->kernel; v++)
                sum += (double)p->weight[((o * c->in + i) * c->kernel + u) * c->kernel + v] *
                       (double)*x_at(p, p->x, i, row * c->stride + u, column * c->stride + v);
    return sum;
}

static void forward_is_the_definition(void **state)
{
    (void)state;
    ON_EVERY_PATH
    for (size_t n = 0; n < TD_LEN(cases); n++) {
        struct problem *p = make(&cases[n]);
        int side = conv_out_side(&p->conv), out = p->conv.out;

        test_poison(p->y, sizeof(p->y));
        conv_forward(&p->conv, p->packed, p->x, p->y);
        for (int row = 0; row < side; row++)
            for (int column = 0; column < side; column++)
                for (int o = 0; o < out; o++) {
                    double wanted = plain(p, o, row, column);
                    float w = (float)(p->conv.relu && wanted < 0 ? 0 : wanted);

                    assert_close(&p->y[(row * side + column) * out + o], &w, 1, 2e-5, 1e-5);
                }
        assert_true(isnan(p->y[floats_of(side, out)])); /* and nothing behind it */
    }
}

/* The whole backward pass by the definition: every product's two factors get their share. */
static void plain_backward(struct problem *p, const float *dy, size_t row_dy, double *dx, double *dweight)
{
    const struct conv *c = &p->conv;
    int side = conv_out_side(c);

    memset(dx, 0, floats_of(c->side, c->in) * sizeof(*dx));
    memset(dweight, 0, (size_t)conv_depth(c) * (size_t)c->out * sizeof(*dweight));
    for (int row = 0; row < side; row++)
        for (int column = 0; column < side; column++)
            for (int o = 0; o < c->out; o++)
                for (int i = 0; i < c->in; i++)
                    for (int u = 0; u < c->kernel; u++)
                        for (int v = 0; v < c->kernel; v++) {
                            double d = (double)dy[(size_t)row * row_dy + (size_t)(column * c->out + o)];
                            int w = ((o * c->in + i) * c->kernel + u) * c->kernel + v;
                            const float *x = x_at(p, p->x, i, row * c->stride + u, column * c->stride + v);

                            dx[x - p->x] += d * (double)p->weight[w];
                            dweight[w] += d * (double)*x;
                        }
}

/* dy in a frame of zeros; returns pixel (0, 0). */
static float *framed_gradient(struct problem *p, size_t *row)
{
    int side = conv_out_side(&p->conv), pad = conv_pad(&p->conv);
    size_t out = (size_t)p->conv.out;
    float *first;

    *row = (size_t)(side + 2 * pad) * out;
    assert_true(*row * (size_t)(side + 2 * pad) <= TD_LEN(p->dy));
    memset(p->dy, 0, sizeof(p->dy));
    first = p->dy + (size_t)pad * (*row + out);
    for (int r = 0; r < side; r++)
        random_floats(first + (size_t)r * *row, (size_t)side * out, 1);
    return first;
}

static void backward_is_the_definition(void **state)
{
    static double dx[FLOATS], dweight[FLOATS];

    (void)state;
    ON_EVERY_PATH
    for (size_t n = 0; n < TD_LEN(cases); n++) {
        struct problem *p = make(&cases[n]);
        const struct conv *c = &p->conv;
        size_t row, inputs = floats_of(c->side, c->in), weights = (size_t)conv_depth(c) * (size_t)c->out;
        float *dy = framed_gradient(p, &row);

        plain_backward(p, dy, row, dx, dweight);
        memset(p->dpacked, 0, sizeof(p->dpacked));
        memset(p->dbias, 0, sizeof(p->dbias));
        memset(p->dweight, 0, sizeof(p->dweight));
        conv_backward_weight(c, p->x, dy, row, p->dpacked, p->dbias);
        conv_unpack_weight(c, p->dpacked, 0, 5 < conv_depth(c) ? 5 : conv_depth(c), p->dweight);
        if (conv_depth(c) > 5)
            conv_unpack_weight(c, p->dpacked, 5, conv_depth(c) - 5, p->dweight);
        for (size_t i = 0; i < weights; i++) {
            float wanted = (float)dweight[i];

            assert_close(&p->dweight[i], &wanted, 1, 1e-4, 1e-4);
        }
        for (int o = 0; o < c->out; o++) {
            double sum = 0;

            for (int r = 0; r < conv_out_side(c); r++)
                for (int k = 0; k < conv_out_side(c); k++)
                    sum += (double)dy[(size_t)r * row + (size_t)(k * c->out + o)];
            assert_true(fabs(sum - (double)p->dbias[o]) < 1e-4);
        }
        if (c->planes)
            continue;
        random_floats(p->gate, inputs, 1);
        p->gate[0] = 0;
        for (int gated = 0; gated < 2; gated++) {
            test_poison(p->dx, sizeof(p->dx));
            conv_backward_input(c, p->back, dy, row, gated ? p->gate : NULL, p->dx, (size_t)(c->side * c->in));
            for (size_t i = 0; i < inputs; i++) {
                float wanted = gated && !(p->gate[i] > 0) ? 0.0f : (float)dx[i];

                assert_close(&p->dx[i], &wanted, 1, 2e-5, 1e-5);
            }
            assert_true(isnan(p->dx[inputs]));
        }
    }
}

/* An element's bits depend on what it sees alone: here, on the same pixels further right and down. */
static void neighbours_do_not_change_a_bit(void **state)
{
    static float moved[FLOATS], y[FLOATS];

    (void)state;
    ON_EVERY_PATH
    for (size_t n = 0; n < TD_LEN(cases); n++) {
        struct problem *p = make(&cases[n]);
        const struct conv *c = &p->conv;
        int side = conv_out_side(c), out = c->out;

        conv_forward(c, p->packed, p->x, p->y);
        random_floats(moved, floats_of(c->side, c->in), 1);
        for (int i = 0; i < c->in; i++)
            for (int row = c->stride; row < c->side; row++)
                for (int column = c->stride; column < c->side; column++)
                    *x_at(p, moved, i, row, column) = *x_at(p, p->x, i, row - c->stride, column - c->stride);
        conv_forward(c, p->packed, moved, y);
        for (int row = 1; row < side; row++)
            assert_memory_equal(y + (row * side + 1) * out, p->y + (row - 1) * side * out,
                                (size_t)((side - 1) * out) * sizeof(float));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(forward_is_the_definition, back_to_best),
        cmocka_unit_test_teardown(backward_is_the_definition, back_to_best),
        cmocka_unit_test_teardown(neighbours_do_not_change_a_bit, back_to_best),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
