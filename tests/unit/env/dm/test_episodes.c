/*
 * Whole episodes of every task: 500 steps, twice, against what dm_control 1.0.16 on MuJoCo 3.1.2 and
 * NumPy 1.26.4 gave. Actions are uniform draws of RandomState(seed ^ 1), every other 50 steps their
 * signs alone; kept are a hash of all observations and the two returns. A machine that rounds
 * otherwise (probe.h) only plays them.
 */
#include <math.h>
#include <xxhash.h>

#include "common/env/env.h"
#include "common/env/probe.h"
#include "common/env/random_state.h"
#include "tests/support/test.h"

#define OBS_MAX    64
#define ACTION_MAX 16

struct reference {
    const char *task;
    uint32_t seed;
    uint64_t hash; /* XXH64 of the float32 observations in order, resets included */
    double returns[2];
};

static const struct reference references[] = {
    {"walker-stand", 2u, 0xb679f80bb60ca709ull, {179.03435596217, 175.799401900875}},
    {"walker-walk", 5u, 0x4e8a940a95b2d0ccull, {41.9896202495254, 98.0438030158498}},
    {"walker-run", 2024u, 0x296f5d9f0d24e20dull, {31.6245736582207, 37.417594612275}},
    {"cheetah-run", 4000000000u, 0x3722e8fffe932be2ull, {11.1284681418706, 8.28086264218656}},
    {"reacher-easy", 2u, 0x85fb5b07e705eaecull, {83, 10}},
    {"reacher-hard", 5u, 0x3018a1165a3cdb1cull, {2, 12}},
    {"acrobot-swingup", 2024u, 0x450826459b031fa2ull, {2.40683737746634, 0.00454082353131739}},
    {"pendulum-swingup", 4000000000u, 0xc0084f0ca4b8dd4aull, {0, 0}},
    {"cartpole-balance", 2u, 0xe42320569771938full, {250.638097222179, 339.378407163953}},
    {"cartpole-balance-sparse", 5u, 0x1a70d09477489f5eull, {27, 17}},
    {"cartpole-swingup", 2024u, 0x3c916ffd4c596493ull, {27.3317027065108, 43.8474187153288}},
    {"cartpole-swingup-sparse", 4000000000u, 0x93b20c95a284a758ull, {0, 0}},
    {"cup-catch", 2u, 0x571dbb3cc23c68e8ull, {0, 20}},
    {"finger-spin", 5u, 0xf43b85fb8eaab0b6ull, {20, 2}},
    {"finger-turn-easy", 2024u, 0x9b692598c870bc3eull, {0, 0}},
    {"finger-turn-hard", 4000000000u, 0x477862b05aaf4d66ull, {0, 4}},
    {"fish-swim", 2u, 0x7013ba96698fb408ull, {10.6289400316549, 73.8734124913631}},
    {"hopper-stand", 5u, 0x03601c6ca1203522ull, {0, 13.9548425277757}},
    {"hopper-hop", 2024u, 0xff2dceceb5e3382cull, {0, 0}},
};

static void choose(struct random_state *random, int step, uint32_t dims, float *action)
{
    for (uint32_t i = 0; i < dims; i++) {
        action[i] = (float)random_state_uniform(random, -1, 1);
        if (step / 50 % 2 == 1)
            action[i] = action[i] < 0 ? -1 : 1;
    }
}

static double play(env_t *env, struct random_state *random, XXH64_state_t *hash)
{
    size_t bytes = env_spec(env)->obs_dim * sizeof(float);
    float obs[OBS_MAX], action[ACTION_MAX];
    struct env_result result;
    struct error err;
    double total = 0;

    assert_ok(env_reset(env, obs, &err), err);
    XXH64_update(hash, obs, bytes);
    for (int step = 0; step < 500; step++) {
        choose(random, step, env_spec(env)->action_dim, action);
        assert_ok(env_step(env, action, obs, &result, &err), err);
        XXH64_update(hash, obs, bytes);
        total += result.reward;
    }
    assert_true(result.truncated);
    return total;
}

static void whole_episodes_of_every_task(void **state)
{
    XXH64_state_t *hash = XXH64_createState();
    struct error err = {0};
    bool exact = probe_exact(&err);

    (void)state;
    assert_non_null(hash);
    assert_int_equal(TD_LEN(references), env_task_count());
    if (!exact)
        printf("%s\n", err.text);
    for (size_t i = 0; i < TD_LEN(references); i++) {
        const struct reference *reference = &references[i];
        struct random_state random;
        env_t *env;

        random_state_seed(&random, reference->seed ^ 1);
        XXH64_reset(hash, 0);
        assert_ok(env_create(&env, reference->task, reference->seed, &err), err);
        for (int episode = 0; episode < 2; episode++) {
            double total = play(env, &random, hash);

            assert_true(total >= 0 && total <= 1000);
            if (exact && !(fabs(total - reference->returns[episode]) <= 1e-9))
                fail_msg("%s, episode %d: return %.15g, expected %.15g", reference->task, episode, total,
                         reference->returns[episode]);
        }
        if (exact && XXH64_digest(hash) != reference->hash)
            fail_msg("%s: the observations differ", reference->task);
        env_close(&env);
    }
    XXH64_freeState(hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_episodes_of_every_task),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
