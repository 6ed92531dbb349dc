/* The port of NumPy's legacy RandomState against draws of numpy 1.26.4. */
#include "common/env/random_state.h"

#include "tests/support/test.h"

struct draws {
    uint32_t seed;
    uint32_t word[3];
    double sample[3];  /* of a fresh state; then uniform(-pi, pi) and uniform(.05, .2) */
    double angle, radius;
    double normal[3];  /* right after these, then a sample, then two normals (the first cached) */
    double sample_after, normal_after[2];
    double sample_1000; /* the 1001st sample of a fresh state */
    double sum;         /* of 10001 normals of a fresh state, and the sample after them */
    double sample_last;
};

static const struct draws numpy[] = {
    {0, {0x8c7f0aac, 0x97c4aa2f, 0xb716a675},
     {0x1.18fe1565f12a8p-1, 0x1.6e2d4cf608733p-1, 0x1.349d66b6e894bp-1},
     0x1.20c70f83cf090p-2, 0x1.d117f02fe3c2ep-4,
     {-0x1.af7986f57fa88p-1, 0x1.f84cf7f7312a7p+0, 0x1.4420580e99483p+0},
     0x1.0ecb509eb7f22p-1, {-0x1.03023ff42b8a9p-1, 0x1.85a6bc990ea13p-1},
     0x1.2f8e00bae5bb8p-1, -0x1.711421919e5fep+7, 0x1.0d14ebb48b809p-1},
    {1, {0x6ac1f425, 0xff4780eb, 0xb8672f8c},
     {0x1.ab07d0ffa3c06p-2, 0x1.70ce5f3baf051p-1, 0x1.dfb906661c000p-14},
     -0x1.3df278c4de70bp+0, 0x1.26f7817888192p-4,
     {-0x1.1b1e8fa6f47a2p+0, -0x1.a78e531ed0179p+0, -0x1.2e8623a553924p+1},
     0x1.5ed5172192327p-1, {0x1.22a5fe22e5972p+0, 0x1.46b22f4ed7b24p-2},
     0x1.4da120bd421dcp-2, 0x1.866a9760a7a8ap+6, 0x1.fdbd7a66eb770p-4},
    {3, {0x8d01176a, 0x121b0698, 0xb5492cf9},
     {0x1.1a022ec486c1ap-1, 0x1.6a9259f5c1b9ap-1, 0x1.29e2ee8f87b1ep-2},
     0x1.16a890a5d0dc0p-4, 0x1.78b69b1d954b4p-3,
     {-0x1.d715481c1d66bp-2, -0x1.da7cce8381bc4p-5, 0x1.09edf306f51f6p+1},
     0x1.1d2bc52d4cc2ep-2, {-0x1.33df3a97d1745p-1, 0x1.c33c1e514feadp-1},
     0x1.1fef1fdb0801cp-2, -0x1.14a05e1713e42p+8, 0x1.8e8e27f066b0cp-2},
    {4294967295u, {0x18fe69a3, 0x1c924122, 0xe991ec0c},
     {0x1.8fe69a3924820p-4, 0x1.d323d824032b1p-1, 0x1.93fc6f61af3f9p-1},
     0x1.c2626f457e634p+0, 0x1.afa4eef85ae5dp-5,
     {0x1.4d051339bc741p-4, 0x1.a3847f39c09c9p-2, 0x1.438a83ff956b5p-2},
     0x1.a83038637fdecp-2, {0x1.1f0a745bc025bp-5, -0x1.f9f94d65c3902p-1},
     0x1.f4e9151f5d2acp-1, 0x1.d5dba3e7e64b5p+5, 0x1.00d16dbeb906ep-2},
};

static void assert_double(double got, double expected)
{
    if (memcmp(&got, &expected, sizeof(got)) != 0)
        fail_msg("%a, expected %a", got, expected);
}

static void integer_seeding_and_tempering(void **state)
{
    (void)state;
    for (size_t i = 0; i < TD_LEN(numpy); i++) {
        struct random_state random;

        random_state_seed(&random, numpy[i].seed);
        for (int j = 0; j < 3; j++)
            assert_int_equal(random_state_u32(&random), numpy[i].word[j]);
    }
}

static void uniform_and_normal_draws_in_turn(void **state)
{
    (void)state;
    for (size_t i = 0; i < TD_LEN(numpy); i++) {
        struct random_state random;

        random_state_seed(&random, numpy[i].seed);
        for (int j = 0; j < 3; j++)
            assert_double(random_state_sample(&random), numpy[i].sample[j]);
        assert_double(random_state_uniform(&random, -0x1.921fb54442d18p+1, 0x1.921fb54442d18p+1),
                      numpy[i].angle);
        assert_double(random_state_uniform(&random, .05, .20), numpy[i].radius);
        for (int j = 0; j < 3; j++)
            assert_double(random_state_normal(&random), numpy[i].normal[j]);
        /* The cached normal outlives a uniform draw. */
        assert_double(random_state_sample(&random), numpy[i].sample_after);
        for (int j = 0; j < 2; j++)
            assert_double(random_state_normal(&random), numpy[i].normal_after[j]);
    }
}

static void many_draws_cross_blocks(void **state)
{
    (void)state;
    for (size_t i = 0; i < TD_LEN(numpy); i++) {
        struct random_state random;
        double sum = 0;

        random_state_seed(&random, numpy[i].seed);
        for (int j = 0; j < 1000; j++)
            random_state_sample(&random);
        assert_double(random_state_sample(&random), numpy[i].sample_1000);

        random_state_seed(&random, numpy[i].seed);
        for (int j = 0; j < 10001; j++)
            sum += random_state_normal(&random);
        assert_double(sum, numpy[i].sum);
        assert_double(random_state_sample(&random), numpy[i].sample_last);
    }
}

static void a_copy_continues_the_stream(void **state)
{
    struct random_state a, b;

    (void)state;
    random_state_seed(&a, 7);
    for (int i = 0; i < 777; i++)
        random_state_normal(&a);
    assert_int_equal(a.has_normal, 1);
    b = a;
    for (int i = 0; i < 777; i++)
        assert_double(random_state_normal(&b), random_state_normal(&a));
}

static void impossible_states_are_seen(void **state)
{
    struct random_state random;

    (void)state;
    random_state_seed(&random, 7);
    assert_true(random_state_valid(&random));
    random.used = RANDOM_STATE_WORDS + 1;
    assert_false(random_state_valid(&random));
    random.used = 3;
    random.has_normal = 2;
    assert_false(random_state_valid(&random));
    random.has_normal = 1;
    random.normal = 1.0 / 0.0;
    assert_false(random_state_valid(&random));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integer_seeding_and_tempering),
        cmocka_unit_test(uniform_and_normal_draws_in_turn),
        cmocka_unit_test(many_draws_cross_blocks),
        cmocka_unit_test(a_copy_continues_the_stream),
        cmocka_unit_test(impossible_states_are_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
