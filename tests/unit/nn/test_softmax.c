#include "tests/unit/nn/nn_support.h"

#include <math.h>

#include "common/nn/softmax.h"

enum { ROWS = 7, BINS = 101, LD = 104 };

struct problem {
    float logits[ROWS * LD], support[BINS], weight[ROWS], dout[ROWS];
    int index[ROWS];
};

static struct problem *make(void)
{
    static struct problem p;

    test_poison(p.logits, sizeof(p.logits)); /* between the rows */
    for (int r = 0; r < ROWS; r++)
        random_floats(p.logits + r * LD, BINS, 2);
    for (int j = 0; j < BINS; j++)
        p.support[j] = -10.0f + 0.2f * (float)j;
    for (int r = 0; r < ROWS; r++)
        p.index[r] = (int)rng_below(test_rng(), BINS - 1);
    p.index[3] = BINS - 1; /* the second bin is then bin 0 */
    p.index[4] = 0;
    rng_uniform(test_rng(), p.weight, ROWS, 0, 1);
    p.weight[3] = 0;
    random_floats(p.dout, ROWS, 1);
    return &p;
}

static double expect_loss(const float *logits, void *context)
{
    struct problem *p = context;
    float out[ROWS];
    double sum = 0;

    softmax_expect(logits, LD, ROWS, BINS, p->support, out);
    for (int r = 0; r < ROWS; r++)
        sum += (double)out[r] * (double)p->dout[r];
    return sum;
}

static double two_hot_loss(const float *logits, void *context)
{
    struct problem *p = context;
    float loss[ROWS];
    double sum = 0;

    softmax_two_hot(logits, LD, ROWS, BINS, p->index, p->weight, loss, 1, NULL, 0);
    for (int r = 0; r < ROWS; r++)
        sum += (double)loss[r];
    return sum;
}

static void expectation_gradient(void **state)
{
    struct problem *p = make();
    static float out[ROWS], dlogits[ROWS * LD];

    (void)state;
    ON_EVERY_PATH
    {
        test_poison(dlogits, sizeof(dlogits));
        softmax_expect(p->logits, LD, ROWS, BINS, p->support, out);
        softmax_expect_backward(p->logits, LD, ROWS, BINS, p->support, out, p->dout, dlogits, LD);
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < BINS; j += 9) {
                float *at = &p->logits[r * LD + j], kept = *at;
                double slope;

                *at = kept + 0.02f;
                slope = expect_loss(p->logits, p);
                *at = kept - 0.02f;
                slope = (slope - expect_loss(p->logits, p)) / ((double)(kept + 0.02f) - (double)*at);
                *at = kept;
                assert_true(fabs(slope - (double)dlogits[r * LD + j]) < 2e-3);
            }
    }
}

static void two_hot_gradient(void **state)
{
    struct problem *p = make();
    static float loss[ROWS], dlogits[ROWS * LD];

    (void)state;
    ON_EVERY_PATH
    {
        test_poison(dlogits, sizeof(dlogits));
        softmax_two_hot(p->logits, LD, ROWS, BINS, p->index, p->weight, loss, 1, dlogits, LD);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;

            for (int j = 0; j < BINS; j++)
                sum += (double)dlogits[r * LD + j];
            assert_true(fabs(sum) < 1e-5); /* softmax and target both add up to 1 */
            for (int j = 0; j < BINS; j += j < 2 || j > BINS - 4 ? 1 : 7) {
                float *at = &p->logits[r * LD + j], kept = *at;
                double slope;

                *at = kept + 0.02f;
                slope = two_hot_loss(p->logits, p);
                *at = kept - 0.02f;
                slope = (slope - two_hot_loss(p->logits, p)) / ((double)(kept + 0.02f) - (double)*at);
                *at = kept;
                assert_true(fabs(slope - (double)dlogits[r * LD + j]) < 1e-3);
            }
        }
    }
}

static void vector_paths_agree_with_plain_c(void **state)
{
    struct problem *p = make();
    static float out[2][ROWS], loss[2][ROWS], d[2][ROWS * LD], e[2][ROWS * LD];

    (void)state;
    for (int path = 0; path < ISA_COUNT; path++) {
        int which = path != ISA_PLAIN;

        if (isa_force((enum isa)path) != TD_OK)
            continue;
        softmax_expect(p->logits, LD, ROWS, BINS, p->support, out[which]);
        softmax_expect_backward(p->logits, LD, ROWS, BINS, p->support, out[which], p->dout, d[which],
                                LD);
        softmax_two_hot(p->logits, LD, ROWS, BINS, p->index, p->weight, loss[which], 0.5f, e[which],
                        LD);
        if (which == 0)
            continue;
        assert_close(out[1], out[0], ROWS, 2e-6, 1e-6);
        assert_close(loss[1], loss[0], ROWS, 1e-6, 1e-6);
        for (int r = 0; r < ROWS; r++) {
            assert_close(d[1] + r * LD, d[0] + r * LD, BINS, 1e-6, 1e-5);
            assert_close(e[1] + r * LD, e[0] + r * LD, BINS, 1e-7, 1e-5);
        }
    }
}

static void known_values(void **state)
{
    float logits[4] = {0, 0, 0, 0}, support[4] = {1, 2, 3, 6}, out, loss, weight = 0.25f, d[4];
    float expected[4] = {0.25f, 0.25f - 0.75f, 0.25f - 0.25f, 0.25f}, three = 3, log4 = logf(4);
    int index = 1;

    (void)state;
    ON_EVERY_PATH
    {
        softmax_expect(logits, 4, 1, 4, support, &out);
        assert_close(&out, &three, 1, 1e-6, 0);
        softmax_two_hot(logits, 4, 1, 4, &index, &weight, &loss, 1, d, 4);
        assert_close(&loss, &log4, 1, 1e-6, 0);
        assert_close(d, expected, 4, 1e-6, 0);
        logits[2] = 5000; /* far apart: no overflow */
        softmax_expect(logits, 4, 1, 4, support, &out);
        assert_close(&out, &three, 1, 1e-6, 0);
        logits[2] = 0;
        softmax_two_hot(logits, 4, 1, 4, &index, &weight, &loss, 1, logits, 4); /* in place */
        assert_close(logits, expected, 4, 1e-6, 0);
        memset(logits, 0, sizeof(logits));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(expectation_gradient, back_to_best),
        cmocka_unit_test_teardown(two_hot_gradient, back_to_best),
        cmocka_unit_test_teardown(vector_paths_agree_with_plain_c, back_to_best),
        cmocka_unit_test_teardown(known_values, back_to_best),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
