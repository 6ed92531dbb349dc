#include "tests/support/test.h"

#include <math.h>

#include "common/model/two_hot.h"

enum { BINS = 101, ROWS = 5 };

static struct two_hot make(float support[BINS])
{
    struct two_hot two_hot;

    two_hot_init(&two_hot, BINS, -10, 10, support);
    return two_hot;
}

static void support_is_float32_linspace(void **state)
{
    float support[BINS], small[4];
    struct two_hot two_hot = make(support), other;

    (void)state;
    assert_true(support[0] == -10.0f && support[100] == 10.0f);
    assert_true(fabsf(support[50] - -1.49e-7f) < 1e-9f); /* not 0: the product is fused */
    assert_true(two_hot.bin == 0.2f);
    for (int i = 0; i < BINS; i++)
        assert_true(fabsf(support[i] - (-10.0f + 0.2f * (float)i)) < 2e-6f);
    two_hot_init(&other, 4, 0, 3, small);
    for (int i = 0; i < 4; i++)
        assert_true(small[i] == (float)i);
}

static void symlog_and_symexp_are_inverse(void **state)
{
    static const float x[] = {0, 1e-3f, -1e-3f, 1, -1, 20, -300, 3e5f, -3e5f};

    (void)state;
    for (size_t i = 0; i < TD_LEN(x); i++)
        assert_true(fabsf(symexp(symlog(x[i])) - x[i]) <= 2e-6f * fabsf(x[i]) + 1e-7f);
    assert_true(symlog(-2) == -symlog(2));
    assert_true(fabsf(symlog(2) - 1.0986123f) < 1e-6f);
    assert_true(isnan(symlog(NAN)) && isnan(symexp(NAN)));
}

static void encoding_has_known_places(void **state)
{
    float support[BINS], weight[8];
    struct two_hot two_hot = make(support);
    const float x[8] = {0, 3e5f, -3e5f, INFINITY, -INFINITY, 1, -1, NAN};
    int index[8];

    (void)state;
    two_hot_encode(&two_hot, x, 8, index, weight);
    assert_true(index[0] == 50 || index[0] == 49);
    assert_true(fabsf((float)index[0] + weight[0] - 50.0f) < 1e-4f);
    assert_true(index[1] == 100 && weight[1] == 0);
    assert_true(index[2] == 0 && weight[2] == 0);
    assert_true(index[3] == 100 && weight[3] == 0);
    assert_true(index[4] == 0 && weight[4] == 0);
    assert_int_equal(index[5], 53); /* ln 2 = .693: 50 + 3.4657 */
    assert_true(fabsf(weight[5] - 0.4657f) < 1e-3f);
    assert_int_equal(index[6], 46);
    assert_true(fabsf(weight[6] - 0.5343f) < 1e-3f);
    assert_int_equal(index[7], 0);
    assert_true(isnan(weight[7]));
}

/* Any place is inside the bins, even one rounding step past the ends. */
static void every_index_is_a_bin(void **state)
{
    static const int bins[] = {2, 3, 7, 50, 101, 255, 1001};
    float support[1001], x[4000], weight[4000];
    int index[4000];
    struct two_hot two_hot;

    (void)state;
    for (size_t b = 0; b < TD_LEN(bins); b++) {
        two_hot_init(&two_hot, bins[b], -3.3f, 9.7f, support);
        rng_normal(test_rng(), x, TD_LEN(x));
        for (size_t i = 0; i < TD_LEN(x); i++)
            x[i] = symexp(x[i] * 6);
        x[0] = symexp(9.7f);
        x[1] = symexp(-3.3f);
        two_hot_encode(&two_hot, x, TD_LEN(x), index, weight);
        for (size_t i = 0; i < TD_LEN(x); i++) {
            assert_in_range(index[i], 0, bins[b] - 1);
            assert_true(weight[i] >= 0 && weight[i] < 1);
        }
    }
}

/* Logits that put all weight on the two bins of x decode to x. */
static void decoding_inverts_encoding(void **state)
{
    static const float x[] = {0.01f, 0.3f, 7, 100, 9000, -0.2f, -55};
    float support[BINS], logits[BINS], weight, out;
    struct two_hot two_hot = make(support);

    (void)state;
    for (size_t i = 0; i < TD_LEN(x); i++) {
        int index;

        two_hot_encode(&two_hot, &x[i], 1, &index, &weight);
        for (int j = 0; j < BINS; j++)
            logits[j] = -200;
        logits[index] = logf(1 - weight);
        logits[(index + 1) % BINS] = logf(weight);
        two_hot_decode(&two_hot, logits, BINS, 1, &out, NULL);
        assert_true(fabsf(out - x[i]) < 2e-4f * fabsf(x[i]) + 1e-5f);
    }
}

struct problem {
    struct two_hot two_hot;
    float pull[ROWS];
};

static double loss(const float *logits, void *context)
{
    const struct problem *problem = context;
    float out[ROWS];
    double sum = 0;

    two_hot_decode(&problem->two_hot, logits, BINS, ROWS, out, NULL);
    for (int i = 0; i < ROWS; i++)
        sum += (double)out[i] * (double)problem->pull[i];
    return sum;
}

static void backward_matches_central_differences(void **state)
{
    float support[BINS], logits[ROWS * BINS], dlogits[ROWS * BINS], out[ROWS], expect[ROWS], dout[ROWS];
    struct problem problem = {.two_hot = make(support)};

    (void)state;
    rng_normal(test_rng(), logits, ROWS * BINS);
    for (int i = 0; i < ROWS; i++)
        logits[i * BINS + 10 + 20 * i] += 5; /* values of both signs and several sizes */
    rng_normal(test_rng(), problem.pull, ROWS);
    memcpy(dout, problem.pull, sizeof(dout));
    two_hot_decode(&problem.two_hot, logits, BINS, ROWS, out, expect);
    test_poison(dlogits, sizeof(dlogits));
    two_hot_decode_backward(&problem.two_hot, logits, BINS, ROWS, expect, dout, dlogits, BINS);
    assert_gradient(loss, &problem, logits, dlogits, ROWS * BINS, 1e-2, 2e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(support_is_float32_linspace),
        cmocka_unit_test(symlog_and_symexp_are_inverse),
        cmocka_unit_test(encoding_has_known_places),
        cmocka_unit_test(every_index_is_a_bin),
        cmocka_unit_test(decoding_inverts_encoding),
        cmocka_unit_test(backward_matches_central_differences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
