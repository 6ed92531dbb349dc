#include "tests/support/test.h"

#include <math.h>

#include "common/model/policy_head.h"

enum { ROWS = 6, DIM = 3 };

static const struct policy_head head = {.action_dim = DIM, .log_std_min = -10, .log_std_dif = 12};

static void samples_have_known_values(void **state)
{
    /* tanh s = 0 gives log_std = -4. */
    float net[2 * DIM] = {0.5f, -1, 20, 0, 0, 30}, noise[DIM] = {0, 1, 0}, action[DIM], mean[DIM];
    float entropy, scaled;
    double gaussian;

    (void)state;
    policy_forward(&head, net, 2 * DIM, noise, 1, action, DIM, &entropy, &scaled);
    policy_mean(&head, net, 2 * DIM, 1, mean, DIM);
    assert_true(fabsf(action[0] - tanhf(0.5f)) < 1e-6f && mean[0] == action[0]);
    assert_true(fabsf(action[1] - tanhf(-1 + expf(-4))) < 1e-6f);
    assert_true(action[2] == 1.0f);
    gaussian = -0.5 + 4 + 4 - 2 - 3 * 0.9189385175704956;
    assert_true(fabs((double)scaled - -DIM * gaussian) < 1e-4);
    assert_true(fabs((double)entropy - -(gaussian - log(1 - pow(tanh(0.5), 2) + 1e-6) -
                                         log(1 - pow(tanh(-1 + exp(-4)), 2) + 1e-6) - log(1e-6))) < 1e-3);
}

/* A leading dimension of 0 serves one row of the net to every sample. */
static void rows_may_share_the_net(void **state)
{
    float net[2 * DIM], many[ROWS * 2 * DIM], noise[ROWS * DIM], a[ROWS * DIM], b[ROWS * DIM];

    (void)state;
    rng_normal(test_rng(), net, 2 * DIM);
    rng_normal(test_rng(), noise, ROWS * DIM);
    for (int i = 0; i < ROWS; i++)
        memcpy(many + i * 2 * DIM, net, sizeof(net));
    policy_sample(&head, net, 0, noise, ROWS, a, DIM);
    policy_sample(&head, many, 2 * DIM, noise, ROWS, b, DIM);
    assert_memory_equal(a, b, sizeof(a));
}

struct problem {
    float noise[ROWS * DIM], pull[ROWS * DIM];
    float dscaled;
};

static double loss(const float *net, void *context)
{
    const struct problem *problem = context;
    float action[ROWS * DIM], entropy[ROWS], scaled[ROWS];
    double sum = 0;

    policy_forward(&head, net, 2 * DIM, problem->noise, ROWS, action, DIM, entropy, scaled);
    for (int i = 0; i < ROWS * DIM; i++)
        sum += (double)action[i] * (double)problem->pull[i];
    for (int i = 0; i < ROWS; i++)
        sum += (double)scaled[i] * (double)problem->dscaled;
    return sum;
}

static void backward_matches_central_differences(void **state)
{
    float net[ROWS * 2 * DIM], dnet[ROWS * 2 * DIM], action[ROWS * DIM], entropy[ROWS], scaled[ROWS];
    struct problem problem;

    (void)state;
    for (int round = 0; round < 3; round++) {
        problem.dscaled = (float)round * 0.05f;
        rng_normal(test_rng(), net, TD_LEN(net));
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < DIM; j++)
                net[i * 2 * DIM + DIM + j] = 0.5f + 0.3f * net[i * 2 * DIM + DIM + j]; /* std near .4 */
        rng_normal(test_rng(), problem.noise, ROWS * DIM);
        rng_normal(test_rng(), problem.pull, ROWS * DIM);
        policy_forward(&head, net, 2 * DIM, problem.noise, ROWS, action, DIM, entropy, scaled);
        test_poison(dnet, sizeof(dnet));
        policy_backward(&head, net, 2 * DIM, problem.noise, ROWS, action, DIM, problem.pull, DIM,
                        problem.dscaled, dnet, 2 * DIM);
        assert_gradient(loss, &problem, net, dnet, TD_LEN(net), 2e-3, 3e-3);
    }
}

/* At the squash's edge the logarithm's gradient is cut off, as relu does. */
static void saturated_actions_give_finite_gradients(void **state)
{
    float net[2 * DIM] = {50, -50, 0, 2, 2, -30}, noise[DIM] = {1, -1, 0}, action[DIM], dnet[2 * DIM];
    float daction[DIM] = {1, 1, 1};

    (void)state;
    policy_sample(&head, net, 2 * DIM, noise, 1, action, DIM);
    test_poison(dnet, sizeof(dnet));
    policy_backward(&head, net, 2 * DIM, noise, 1, action, DIM, daction, DIM, -1e-4f, dnet, 2 * DIM);
    for (int i = 0; i < 2 * DIM; i++)
        assert_true(isfinite(dnet[i]));
    assert_true(dnet[0] == 0 && dnet[1] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_have_known_values),
        cmocka_unit_test(rows_may_share_the_net),
        cmocka_unit_test(backward_matches_central_differences),
        cmocka_unit_test(saturated_actions_give_finite_gradients),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
