/* stack.c: states pass through, frames queue up as in the reference's wrapper. */
#include "common/env/stack.h"
#include "tests/support/test.h"

static void a_state_is_seen_as_it_is(void **state)
{
    struct env_spec spec = {.obs_type = ENV_OBS_STATE, .obs_dim = 3};
    float seen[3], first[3] = {1, 2, 3}, next[3] = {4, 5, 6};

    (void)state;
    assert_int_equal(env_obs_bytes(&spec), sizeof(seen));
    assert_int_equal(stack_bytes(&spec), sizeof(seen));
    stack_push(&spec, seen, first, true);
    assert_memory_equal(seen, first, sizeof(seen));
    stack_push(&spec, seen, next, false);
    assert_memory_equal(seen, next, sizeof(seen));
}

static void frames_are_seen_three_at_a_time(void **state)
{
    struct env_spec spec = {.obs_type = ENV_OBS_RGB, .obs_dim = 2};
    static const char *const expected[] = {"aaaaaa", "aaaabb", "aabbcc", "bbccdd", "eeeeee", "eeeeff"};
    char seen[6];

    (void)state;
    assert_int_equal(env_obs_bytes(&spec), 2);
    assert_int_equal(stack_bytes(&spec), 6);
    for (int i = 0; i < 6; i++) {
        char frame[2] = {(char)('a' + i), (char)('a' + i)};

        stack_push(&spec, seen, frame, i == 0 || i == 4);
        assert_memory_equal(seen, expected[i], sizeof(seen));
    }
}

static void a_frame_of_the_toy_is_what_its_spec_says(void **state)
{
    struct env_options options = env_options("rgb", "exact");
    struct env_spec spec;
    struct error err;
    env_t *env;
    uint8_t *frame, *seen;
    float action[2] = {1, -1};
    struct env_result result;

    (void)state;
    assert_ok(env_find_with("toy:20", &options, &spec, &err), err);
    assert_int_equal(env_obs_bytes(&spec), 3 * 64 * 64);
    assert_ok(env_create_with(&env, "toy:20", &options, 1, &err), err);
    frame = malloc(env_obs_bytes(&spec));
    seen = malloc(stack_bytes(&spec));
    assert_ok(env_reset(env, frame, &err), err);
    stack_push(&spec, seen, frame, true);
    assert_ok(env_step(env, action, frame, &result, &err), err);
    stack_push(&spec, seen, frame, false);
    assert_memory_equal(seen, seen + spec.obs_dim, spec.obs_dim);
    assert_memory_not_equal(seen, seen + 2 * spec.obs_dim, spec.obs_dim); /* it moved */
    free(frame);
    free(seen);
    env_close(&env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_is_seen_as_it_is),
        cmocka_unit_test(frames_are_seen_three_at_a_time),
        cmocka_unit_test(a_frame_of_the_toy_is_what_its_spec_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
