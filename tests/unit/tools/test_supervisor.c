#include "tests/support/test.h"

#include "tools/supervisor.h"

static void the_reason_is_found_in_the_last_lines(void **state)
{
    static const struct {
        const char *lines, *reason;
    } cases[] = {
        {"", ""},
        {"nothing\nof use\n", ""},
        {"tdmpc2-learner: cannot listen\n", "cannot listen"},
        {"x level=info msg=\"fine\"\nx level=error msg=\"leaving\" code=2 why=\"it broke\"\n", "it broke"},
        {"x level=error msg=\"it broke: twice\" code=2\nx level=error why=\"a part ended\"\n", "it broke: twice"},
        {"x level=warn msg=\"from its log\" line=\"y level=error msg=\"exit\" code=2 why=\"no such folder\"\"\n"
         "x level=error why=\"the replay ended\"\n",
         "no such folder"},
        {"x level=error msg=\"", ""},
        {"x level=error why=\"\" msg=\"empty why\"", "empty why"},
        {"tdmpc2-learner: ", ""},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        char out[64], small[5];

        assert_string_equal(supervisor_reason(cases[i].lines, out, sizeof(out)), cases[i].reason);
        assert_true(strlen(supervisor_reason(cases[i].lines, small, sizeof(small))) < sizeof(small));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reason_is_found_in_the_last_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
