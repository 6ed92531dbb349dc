/*
 * Whole episodes of every task (of the dog's, which is slow, one; the others in `make test-long`): 500
 * steps, twice, against what dm_control 1.0.16 on MuJoCo 3.1.2 and
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

#define OBS_MAX    256
#define ACTION_MAX 64

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
    {"walker-walk-backwards", 5u, 0x4e8a940a95b2d0ccull, {76.8419842164836, 44.9372872768196}},
    {"walker-run-backwards", 2024u, 0x296f5d9f0d24e20dull, {33.6550157400965, 35.6076440294639}},
    {"walker-arabesque", 2u, 0xb679f80bb60ca709ull, {279.939421039861, 260.721842091364}},
    {"walker-lie-down", 5u, 0x4e8a940a95b2d0ccull, {216.453190749507, 181.509008285032}},
    {"walker-legs-up", 2024u, 0x296f5d9f0d24e20dull, {155.30263184652, 157.098321567796}},
    {"walker-headstand", 4000000000u, 0x0fd725d99bc26ca3ull, {118.483377287017, 60.1073944181513}},
    {"walker-flip", 2u, 0xb679f80bb60ca709ull, {8.05341613611572, 12.5017190359364}},
    {"walker-backflip", 5u, 0x4e8a940a95b2d0ccull, {9.52060261882662, 14.5402779049349}},
    {"cheetah-run-backwards", 4000000000u, 0x3722e8fffe932be2ull, {46.358903889907, 32.9640497360101}},
    {"cheetah-run-front", 2u, 0x9ca914a5b6ba67e6ull, {8.63299228288887, 8.62959372186785}},
    {"cheetah-run-back", 5u, 0x42a1f18873bd8723ull, {7.26056845894445, 10.5681458750504}},
    {"cheetah-jump", 2024u, 0xe72ed4f0ecc52357ull, {164.655362552285, 162.658018124541}},
    {"cheetah-stand-front", 2024u, 0xe72ed4f0ecc52357ull, {167.121176506391, 168.461426183643}},
    {"cheetah-stand-back", 4000000000u, 0x3722e8fffe932be2ull, {140.396230038845, 168.097344323543}},
    {"cheetah-lie-down", 2u, 0x9ca914a5b6ba67e6ull, {239.421494330418, 238.683158741722}},
    {"cheetah-legs-up", 5u, 0x42a1f18873bd8723ull, {7.19336979698225, 9.51018758296938}},
    {"cheetah-flip", 2024u, 0xe72ed4f0ecc52357ull, {107.551765551489, 118.199261206354}},
    {"cheetah-flip-backwards", 4000000000u, 0x3722e8fffe932be2ull, {112.704987199518, 125.065982727938}},
    {"reacher-three-easy", 2u, 0x63638326adba9f91ull, {68, 5}},
    {"reacher-three-hard", 5u, 0x1a329c1491226b5dull, {0, 0}},
    {"reacher-four-easy", 2024u, 0x455ce51f9885af0aull, {0, 160}},
    {"reacher-four-hard", 4000000000u, 0x1fb8b79fac170e56ull, {0, 0}},
    {"pendulum-spin", 4000000000u, 0xc0084f0ca4b8dd4aull, {89.2094611341082, 185.105617515886}},
    {"cup-spin", 2024u, 0xb3eefd6ee3658166ull, {277.843826152334, 299.073219964383}},
    {"fish-obstacles", 2u, 0x375a9b521d3066e4ull, {9.12232566529693, 22.1340840197621}},
    {"hopper-hop-backwards", 4000000000u, 0xf95f5f0121fbf45eull, {0, 0}},
    {"hopper-flip", 2u, 0x2f218f31a257feaeull, {18.6542399505732, 9.59092426779046}},
    {"hopper-flip-backwards", 5u, 0x03601c6ca1203522ull, {1.25971248862678, 7.61300117583565}},
    {"humanoid-stand", 2u, 0x18a0b82c0cc2c1d2ull, {6.97397447399461, 9.46203117978043}},
    {"humanoid-walk", 5u, 0xf6196cbbd87c48edull, {0.689858695987058, 1.70587674077238}},
    {"humanoid-run", 2024u, 0xd1dc665938e035f9ull, {0.618632031814788, 1.68772913277765}},
    {"quadruped-walk", 4000000000u, 0x64ccdd6e8f309fceull, {106.544454191336, 5.00598786506219}},
    {"quadruped-run", 2u, 0x0986f737213e2128ull, {9.48793262116163, 373.416457640018}},
    {"dog-stand", 5u, 0x62bee1c5391e46bfull, {55.1568889825533, 32.4236751103254}},
    {"dog-walk", 2024u, 0xa4a6ff0a15bd115dull, {12.2094727286232, 24.4719513975259}},
    {"dog-trot", 4000000000u, 0x8fd8a9bd44c9c59cull, {12.7475916437415, 11.0001158239264}},
    {"dog-run", 2u, 0xa170e8c1779268d4ull, {9.76507432232441, 5.81007689160809}},
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
        assert_true(result.reward >= 0 && result.reward <= 2);
        assert_int_equal(result.truncated, step == 499);
        assert_false(result.terminated);
        assert_false(result.success);
        total += result.reward;
    }
    return total;
}

static void whole_episodes_of_every_task(void **state)
{
    XXH64_state_t *hash = XXH64_createState();
    struct error err = {0};
    bool exact = probe_exact(&err);

    (void)state;
    assert_non_null(hash);
    assert_int_equal(TD_LEN(references), 56); /* every DMControl task */
    if (!exact)
        printf("%s\n", err.text);
    for (size_t i = 0; i < TD_LEN(references); i++) {
        const struct reference *reference = &references[i];
        struct random_state random;
        env_t *env;

        if (strncmp(reference->task, "dog-", 4) == 0 && strcmp(reference->task, "dog-run") != 0 &&
            !test_long())
            continue;
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
