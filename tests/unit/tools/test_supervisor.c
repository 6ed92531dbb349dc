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
        {"{\"level\":\"info\",\"msg\":\"fine\"}\n{\"level\":\"error\",\"msg\":\"leaving\",\"code\":2,\"why\":\"it broke\"}\n", "it broke"},
        {"{\"level\":\"warn\",\"msg\":\"from its log\",\"line\":\"{\\\"level\\\":\\\"error\\\",\\\"why\\\":\\\"no folder\\\"}\"}\n", "no folder"},
        {"{\"level\":\"error\",\"why\":\"cut o", ""},
        {"{}\n[]\n{\"level\":[{}],\"why\":1}\n", ""},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        char out[64], small[5];

        assert_string_equal(supervisor_reason(cases[i].lines, out, sizeof(out)), cases[i].reason);
        assert_true(strlen(supervisor_reason(cases[i].lines, small, sizeof(small))) < sizeof(small));
    }
}

static void trouble_of_the_learner_and_its_parts_is_shown(void **state)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"", ""},
        {"x level=info role=learner msg=\"fine\"", ""},
        {"x level=warn msg=\"waiting for actors\"", ""},
        {"x level=error msg=\"leaving\" code=1 why=\"said at the end\"", ""},
        {"x level=error msg=\"the checkpoint could not be written: no space left\"",
         "learner: the checkpoint could not be written: no space left"},
        {"x level=error msg=\"a row is lost\" why=\"no space left\"", "learner: a row is lost: no space left"},
        {"x level=warn msg=\"part died\" part=replay how=\"killed by signal 9 (Killed)\" again_ms=250",
         "replay: killed by signal 9 (Killed); the learner starts it again"},
        {"x level=warn msg=\"from its log\" part=replay line=\"y level=error msg=\"exit\" code=2\"",
         "  | y level=error msg=\"exit\" code=2"},
        {"x level=warn msg=\"from its log\" part=replay line=\"cut of", "  | cut of"},
        {"x level=warn msg=\"from its log\" part=replay line=\"", "  | "},
        {"x level=warn msg=\"part died\" part=", ""},
        {"{\"level\":\"warn\",\"msg\":\"part died\",\"part\":\"replay\",\"how\":\"exit code 1\",\"again_ms\":250}",
         "replay: exit code 1; the learner starts it again"},
        {"{\"level\":\"error\",\"msg\":\"a row is lost\",\"why\":\"no space left\"}", "learner: a row is lost: no space left"},
        {"{\"level\":\"warn\",\"msg\":\"from its log\",\"part\":\"replay\",\"line\":\"plain words\"}", "  | plain words"},
        {"{\"level\":\"error\",\"msg\":\"leaving\",\"code\":1,\"why\":\"said at the end\"}", ""},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        const char *end = cases[i].line + strlen(cases[i].line);
        char out[200], small[5];

        assert_string_equal(supervisor_trouble(cases[i].line, end, out, sizeof(out)), cases[i].text);
        assert_true(strlen(supervisor_trouble(cases[i].line, end, small, sizeof(small))) < sizeof(small));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reason_is_found_in_the_last_lines),
        cmocka_unit_test(trouble_of_the_learner_and_its_parts_is_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
