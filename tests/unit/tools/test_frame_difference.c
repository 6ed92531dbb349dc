/* The tolerance between two renderers: what passes and what does not. */
#include "tools/frame_difference.h"

#include "tests/support/test.h"

#define COUNT 12288

static uint8_t theirs[COUNT], ours[COUNT];

static int make_frame(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT; i++)
        theirs[i] = (uint8_t)(20 + 200 * rng_float(test_rng()));
    memcpy(ours, theirs, sizeof(ours));
    return 0;
}

static bool passes(void)
{
    struct frame_difference difference = {0};
    bool good = frame_difference_add(&difference, ours, theirs, COUNT);

    assert_int_equal(difference.outside, good ? 0 : 1);
    return good;
}

static void equal_frames_pass(void **state)
{
    struct frame_difference difference = {0};

    (void)state;
    assert_true(frame_difference_add(&difference, ours, theirs, COUNT));
    assert_int_equal(difference.frames, 1);
    assert_int_equal(difference.unequal, 0);
    assert_int_equal(difference.most, 0);
}

static void half_a_grey_level_fails(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT / 2 - 1; i++)
        ours[i] += i % 2 == 0 ? 1 : -1;
    assert_true(passes());
    ours[COUNT - 1]++;
    assert_false(passes());
}

static void one_percent_far_off_is_the_most(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT / 100; i++)
        ours[i] += i % 2 == 0 ? FRAME_FAR + 1 : -FRAME_FAR - 1;
    assert_true(passes());
    ours[COUNT / 100] += FRAME_FAR;
    assert_true(passes()); /* not yet far */
    ours[COUNT / 100]++;
    assert_false(passes());
}

/* What a wrong renderer does: another camera, rows upside down, channels last, red for blue, black. */
static void altered_frames_fail(void **state)
{
    (void)state;
    memmove(ours + 1, ours, COUNT - 1);
    assert_false(passes());
    for (int i = 0; i < 192; i++)
        memcpy(ours + 64 * i, theirs + 64 * (64 * (i / 64) + 63 - i % 64), 64);
    assert_false(passes());
    for (int i = 0; i < COUNT; i++)
        ours[i] = theirs[i % 3 * 4096 + i / 3];
    assert_false(passes());
    memcpy(ours, theirs + 8192, 4096);
    memcpy(ours + 4096, theirs + 4096, 4096);
    memcpy(ours + 8192, theirs, 4096);
    assert_false(passes());
    memset(ours, 0, COUNT);
    assert_false(passes());
}

/* One wrong frame among a thousand right ones is counted, and the worst is remembered. */
static void every_frame_counts(void **state)
{
    struct frame_difference difference = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_true(frame_difference_add(&difference, ours, theirs, COUNT));
    memset(ours, 0, 200);
    assert_false(frame_difference_add(&difference, ours, theirs, COUNT));
    assert_int_equal(difference.frames, 1001);
    assert_int_equal(difference.unequal, 1);
    assert_int_equal(difference.outside, 1);
    assert_true(difference.worst_far > 0.016 && difference.worst_far < 0.017);
    assert_true(difference.worst_mean > 0.5);
    assert_true(difference.mean < difference.worst_mean / 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(equal_frames_pass, make_frame),
        cmocka_unit_test_setup(half_a_grey_level_fails, make_frame),
        cmocka_unit_test_setup(one_percent_far_off_is_the_most, make_frame),
        cmocka_unit_test_setup(altered_frames_fail, make_frame),
        cmocka_unit_test_setup(every_frame_counts, make_frame),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
