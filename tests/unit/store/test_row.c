/* row.c: sizes and what is refused. */
#include <math.h>

#include "common/store/row.h"
#include "tests/support/test.h"

static const struct row_schema walker = {OBS_STATE, 24, 6};

/* A good row, one byte off alignment as a message may be. */
static char *good_row(void)
{
    static char buffer[4 + 24 + 24 * 4 + 6 * 4];
    struct row_head head = {.reward = 0.5f, .param_version = 7, .param_epoch = 1};
    float value = -1.0f;

    memset(buffer, 0, sizeof(buffer));
    memcpy(buffer + 1, &head, sizeof(head));
    memcpy(buffer + 1 + sizeof(head) + sizeof(float) * 24, &value, sizeof(value));
    return buffer + 1;
}

static void put_float(char *row, size_t index, float value)
{
    memcpy(row + sizeof(struct row_head) + index * sizeof(float), &value, sizeof(value));
}

static void put_head(char *row, uint32_t flags, float reward)
{
    struct row_head head = {.flags = flags, .reward = reward};

    memcpy(row, &head, sizeof(head));
}

static void sizes(void **state)
{
    struct row_schema frame = {OBS_RGB, 64 * 64 * 3 + 1, 4};

    (void)state;
    assert_int_equal(row_stride(&walker), 24 + 24 * 4 + 6 * 4);
    assert_int_equal(row_obs_bytes(&frame), 64 * 64 * 3 + 4);
    assert_int_equal(row_stride(&frame), 24 + 64 * 64 * 3 + 4 + 16);
}

static void impossible_schemas_are_refused(void **state)
{
    static const struct row_schema bad[] = {
        {0, 24, 6},         {3, 24, 6},          {OBS_STATE, 0, 6},
        {OBS_STATE, 24, 0}, {OBS_STATE, UINT32_MAX, 6}, {OBS_STATE, 24, UINT32_MAX},
        {OBS_STATE, 50000, 6}, {OBS_RGB, 192 * 1024, 1},
    };

    (void)state;
    assert_null(row_schema_check(&walker));
    for (size_t i = 0; i < TD_LEN(bad); i++)
        assert_non_null(row_schema_check(&bad[i]));
}

static void only_good_rows_pass(void **state)
{
    static const float bad_values[] = {NAN, INFINITY, -INFINITY};
    char *row = good_row();

    (void)state;
    assert_null(row_check(row, &walker));
    for (size_t i = 0; i < 24 * TD_LEN(bad_values); i++) {
        row = good_row();
        put_float(row, i % 24, bad_values[i / 24]);
        assert_non_null(row_check(row, &walker));
    }
    for (size_t i = 24; i < 30; i++) {
        static const float bad_actions[] = {NAN, INFINITY, 1.0000001f, -1.0000001f};

        for (size_t k = 0; k < TD_LEN(bad_actions); k++) {
            row = good_row();
            put_float(row, i, bad_actions[k]);
            assert_non_null(row_check(row, &walker));
        }
    }
    for (size_t i = 0; i < TD_LEN(bad_values); i++) {
        row = good_row();
        put_head(row, 0, bad_values[i]);
        assert_non_null(row_check(row, &walker));
    }
    row = good_row();
    put_head(row, 8, 0);
    assert_non_null(row_check(row, &walker));
}

static void a_first_row_carries_nothing(void **state)
{
    char *row = good_row();

    (void)state;
    put_head(row, ROW_FIRST, 0);
    assert_non_null(row_check(row, &walker)); /* its action is not 0 */
    put_float(row, 24, 0);
    assert_null(row_check(row, &walker));
    put_head(row, ROW_FIRST, 1);
    assert_non_null(row_check(row, &walker));
    put_head(row, ROW_FIRST | ROW_TERMINATED, 0);
    assert_non_null(row_check(row, &walker));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(impossible_schemas_are_refused),
        cmocka_unit_test(only_good_rows_pass),
        cmocka_unit_test(a_first_row_carries_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
