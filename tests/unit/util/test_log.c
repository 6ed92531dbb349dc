#include "tests/support/test.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/util/log.h"

static int ends[2];

static const char *said(void)
{
    static char text[1 << 20];
    ssize_t got = read(ends[0], text, sizeof(text) - 1);

    text[got > 0 ? got : 0] = '\0';
    return text;
}

static void lines_tell_role_host_and_run(void **state)
{
    char host[64] = "", expected[200];
    const char *text;

    (void)state;
    gethostname(host, sizeof(host) - 1);
    log_info("paused", "why=\"outbox\nfull\" rows=%d", 5);
    text = said();
    snprintf(expected, sizeof(expected), " level=info role=actor host=%s id=3 run=89abcdef msg=\"paused\" why=\"outbox full\" rows=5\n", host);
    assert_string_equal(strstr(text, " level="), expected);
}

static const char *member(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    static char number[32];

    if (cJSON_IsNumber(item)) {
        snprintf(number, sizeof(number), "#%g", item->valuedouble);
        return number;
    }
    return cJSON_GetStringValue(item) != NULL ? cJSON_GetStringValue(item) : "(none)";
}

static void json_holds_the_same(void **state)
{
    static char huge[5000];
    cJSON *json;

    (void)state;
    log_set_format("json");
    log_warn("a \"strange\" message\\", "n=%d x=-1.5 id8=00ff big=12345678901234567890 why=\"he said \"no\" twice\" path=/a/b last=\"end\"", 7);
    assert_non_null(json = cJSON_Parse(said()));
    assert_string_equal(member(json, "level"), "warn");
    assert_string_equal(member(json, "role"), "actor");
    assert_string_equal(member(json, "id"), "#3");
    assert_string_equal(member(json, "msg"), "a \"strange\" message\\");
    assert_string_equal(member(json, "n"), "#7");
    assert_string_equal(member(json, "x"), "#-1.5");
    assert_string_equal(member(json, "id8"), "00ff");
    assert_string_equal(member(json, "big"), "12345678901234567890");
    assert_string_equal(member(json, "why"), "he said \"no\" twice");
    assert_string_equal(member(json, "path"), "/a/b");
    assert_string_equal(member(json, "last"), "end");
    cJSON_Delete(json);
    log_info("words", "not of the form \xff\x01");
    assert_non_null(json = cJSON_Parse(said()));
    assert_string_equal(member(json, "details"), "not of the form ? ");
    cJSON_Delete(json);
    memset(huge, '"', sizeof(huge) - 1);
    log_info("long", "why=\"%s\" more=%s", huge, huge); /* cut off, but an object */
    assert_non_null(json = cJSON_Parse(said()));
    cJSON_Delete(json);
    for (int length = 0; length < 1800; length += 13) { /* cut anywhere */
        char text[4096], name[32];

        memset(text, '\\', sizeof(text));
        text[length] = '\0';
        snprintf(name, sizeof(name), "message %d", length);
        log_info(name, "a=\"%s\" b=%s c=1", text, text);
        assert_non_null(json = cJSON_Parse(said()));
        cJSON_Delete(json);
    }
    log_set_format("text");
}

static void repeats_are_counted(void **state)
{
    int lines = 0;

    (void)state;
    for (int i = 0; i < 3 * LOG_BURST; i++)
        log_info("the same again", "i=%d", i);
    for (const char *c = said(); *c != '\0'; c++)
        lines += *c == '\n';
    assert_int_equal(lines, LOG_BURST);
    log_info("another", "%s", "");
    assert_non_null(strstr(said(), "another"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_tell_role_host_and_run),
        cmocka_unit_test(repeats_are_counted),
        cmocka_unit_test(json_holds_the_same),
    };

    if (pipe2(ends, O_NONBLOCK) != 0)
        return 1;
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    log_init("actor", 3, 0x0123456789abcdef, ends[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
