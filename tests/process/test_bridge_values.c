/*
 * A chain MDP learned through the bridge, plain and in every autoreset mode, with terminations: what the
 * Q functions say of each state must be the closed form. An observation of the next episode in the place
 * of the last one, a truncation taken for an end or an end for a truncation moves values by 0.5 or more.
 */
#include <math.h>

#include "common/util/config.h"
#include "tests/support/lockstep.h"
#include "tests/support/test.h"

#define STATES    6
#define GAMMA     0.8
#define TOLERANCE 0.05


static double learned[STATES];

/* The mean of all Q functions at (state k, action 0), as the model stands. */
static void see_values(const world_model_t *model)
{
    static float scratch[1 << 20];
    const struct model_dims *dims = &model->layout.dims;
    float obs[STATES], za[512] = {0}, logits[512], value;

    assert_true(mlp_scratch(&model->part[MODEL_ENCODER]) <= TD_LEN(scratch));
    assert_true(mlp_scratch(&model->part[MODEL_Q]) <= TD_LEN(scratch));
    assert_true(dims->latent_dim + dims->action_dim <= 512 && dims->num_bins <= 512);
    for (int k = 0; k < STATES; k++) {
        memset(obs, 0, sizeof(obs));
        obs[k] = 1;
        mlp_forward(&model->part[MODEL_ENCODER], obs, STATES, 1, za, (size_t)dims->latent_dim, scratch);
        learned[k] = 0;
        for (int head = 0; head < dims->num_q; head++) {
            struct mlp q;

            mlp_head(&q, &model->part[MODEL_Q], head);
            mlp_forward(&q, za, (size_t)(dims->latent_dim + dims->action_dim), 1, logits, (size_t)dims->num_bins, scratch);
            two_hot_decode(&model->two_hot, logits, (size_t)dims->num_bins, 1, &value, NULL);
            learned[k] += (double)value / dims->num_q;
        }
    }
}

static void set(struct config *config, const char *const *words)
{
    struct error err = {0};

    config_init(config);
    for (; *words != NULL; words++)
        assert_ok(config_set(config, *words, &err), err);
}

static void learn(const char *name)
{
    static const char *const words[] = {
        "episodic=true", "steps=3000",  "seed_steps=300", "mpc=false",   "horizon=1",   "batch_size=64",
        "enc_dim=32",    "mlp_dim=32",  "latent_dim=32",  "num_q=2",     "lr=0.001",    "enc_lr_scale=1",
        "tau=0.05",      "discount_min=0.8", "discount_max=0.8", "eval_episodes=1", "eval_freq=100000",
        "eval_first=false", "dropout=0", NULL};
    double exact[STATES];
    struct lockstep_result result;
    struct config config;
    struct error err = {0};

    exact[STATES - 2] = 2;
    for (int k = STATES - 3; k >= 0; k--)
        exact[k] = 1 + GAMMA * exact[k + 1];
    set(&config, words);
    snprintf(config.task, sizeof(config.task), "python:tests/support/python/chain.py:%s", name);
    lockstep_seen = see_values;
    assert_ok(lockstep_run(&config, 1, false, &result, &err), err);
    for (int k = 0; k < STATES - 1; k++)
        printf("%s%s state %d: %.3f, exactly %.3f", k == 0 ? "" : "; ", k == 0 ? name : "", k, learned[k], exact[k]);
    printf("\n");
    for (int k = 0; k < STATES - 1; k++)
        if (!(fabs(learned[k] - exact[k]) < TOLERANCE))
            fail_msg("%s: state %d is worth %.3f, learned %.3f", name, k, exact[k], learned[k]);
}

static void plain(void **state)
{
    (void)state;
    learn("Plain");
}

static void disabled(void **state)
{
    (void)state;
    learn("Disabled");
}

static void next_step(void **state)
{
    (void)state;
    learn("NextStep");
}

static void same_step(void **state)
{
    (void)state;
    learn("SameStep");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(disabled),
        cmocka_unit_test(next_step),
        cmocka_unit_test(same_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
