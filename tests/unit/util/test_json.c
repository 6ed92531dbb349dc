#include "common/util/json.h"

#include "tests/support/test.h"

static int left = -1; /* allocations that are granted; below 0: all */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* its allocator stands in front */
#else
#define SANITIZED 0

/* In front of the C library's, for the program and so for json.c. */
void *__libc_malloc(size_t size);
void *malloc(size_t size)
{
    if (left == 0)
        return NULL;
    left -= left > 0;
    return __libc_malloc(size);
}
#endif

static int parse(const char *text, bool whole)
{
    cJSON *json;
    int rc = json_parse(&json, text, strlen(text), whole);

    assert_int_equal(json != NULL, rc == TD_OK);
    cJSON_Delete(json);
    return rc;
}

static void what_is_no_json_is_corrupt(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"a\": [1, 2, \"x\"]}", true), TD_OK);
    assert_int_equal(parse("{} \n", true), TD_OK);
    assert_int_equal(parse("{} x", false), TD_OK);
    assert_int_equal(parse("{} x", true), TD_ECORRUPT);
    assert_int_equal(parse("{\"a\": ", false), TD_ECORRUPT);
    assert_int_equal(parse("", false), TD_ECORRUPT);
}

static void want_of_memory_is_not_damage(void **state)
{
    int refused = 0, rc;

    (void)state;
    if (SANITIZED)
        skip();
    do {
        left = refused;
        rc = parse("{\"a\": [1, 2, \"x\"]}", true);
        left = -1;
        assert_true(rc == TD_OK || rc == TD_ENOMEM);
        refused += rc == TD_ENOMEM;
    } while (rc != TD_OK);
    assert_true(refused > 4);
    assert_int_equal(parse("{\"a\": ", false), TD_ECORRUPT); /* the last time is forgotten */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_json_is_corrupt),
        cmocka_unit_test(want_of_memory_is_not_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
