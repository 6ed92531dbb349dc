/* Model files edited in memory: what each edit does, and what files that don't fit get. */
#include "common/env/model_text.h"

#include "tests/support/test.h"

static const char *write_file(const char *text)
{
    static char path[400];
    FILE *file;

    snprintf(path, sizeof(path), "%s/model.xml", test_folder());
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

static const char sample[] =
    "<mujoco model='m'><!-- kept -->\n"
    "<worldbody><geom name='floor' size='1.10 2 .30'/><geom name='wall'/>"
    "<body name='ball'><geom name='ball' size='.1'/><body name='ball'/></body>"
    "<body name='torso'><site name='ball'/><geom name='floor'/></body></worldbody>"
    "<sensor><rangefinder name='a'/><touch name='t'/><rangefinder/><rangefinder name='c'/></sensor>"
    "</mujoco>";

/* The sample's root element after the edits; the caller's. */
static char *edited(const struct model_edit *edits)
{
    struct error err;
    size_t bytes;
    char *text;

    assert_ok(model_text_read(write_file(sample), edits, &text, &bytes, &err), err);
    assert_int_equal(bytes, strlen(text));
    assert_non_null(strstr(text, "<mujoco model="));
    return text;
}

static int count(const char *text, const char *part)
{
    int found = 0;

    for (; (text = strstr(text, part)) != NULL; text++)
        found++;
    return found;
}

static void nothing_edited_keeps_every_digit(void **state)
{
    char *text = edited(NULL);

    (void)state;
    assert_non_null(strstr(text, "size=\"1.10 2 .30\""));
    assert_int_equal(count(text, "<geom"), 4);
    assert_int_equal(count(text, "<rangefinder"), 3);
    model_text_free(&text);
    assert_null(text);
    model_text_free(&text);
}

static void set_changes_every_element_of_that_name(void **state)
{
    static const struct model_edit edits[] = {
        {MODEL_SET, "geom", "floor", "size", "10.0 10.0 .5"}, {.verb = MODEL_END},
    };
    char *text = edited(edits);

    (void)state;
    assert_int_equal(count(text, "<geom name=\"floor\" size=\"10.0 10.0 .5\"/>"), 2);
    assert_null(strstr(text, "1.10"));
    assert_non_null(strstr(text, "<geom name=\"ball\" size=\".1\"/>"));
    model_text_free(&text);
}

static void drop_takes_out_what_is_inside_too(void **state)
{
    static const struct model_edit edits[] = {
        {MODEL_DROP, "body", .name = "ball"}, {MODEL_DROP, .element = "rangefinder"},
        {.verb = MODEL_END},
    };
    char *text = edited(edits);

    (void)state;
    assert_null(strstr(text, "<body name=\"ball\""));
    assert_null(strstr(text, "<geom name=\"ball\""));
    assert_non_null(strstr(text, "<site name=\"ball\"/>"));
    assert_null(strstr(text, "rangefinder"));
    assert_non_null(strstr(text, "<touch name=\"t\"/>"));
    model_text_free(&text);
}

static void after_inserts_in_order(void **state)
{
    static const struct model_edit edits[] = {
        {MODEL_AFTER, "geom", "wall", .text = "<geom name='w0'/><geom name='w1'/><site/>"},
        {.verb = MODEL_END},
    };
    char *text = edited(edits);

    (void)state;
    assert_non_null(strstr(text, "<geom name=\"wall\"/><geom name=\"w0\"/><geom name=\"w1\"/><site/>"
                                 "<body name=\"ball\">"));
    model_text_free(&text);
}

/* An edit that finds nothing means that the file is another model. */
static void edits_that_find_nothing_are_refused(void **state)
{
    static const struct model_edit none[][2] = {
        {{MODEL_DROP, "geom", .name = "target"}, {.verb = MODEL_END}},
        {{MODEL_SET, "camera", "floor", "size", "1"}, {.verb = MODEL_END}},
        {{MODEL_DROP, .element = "hfield"}, {.verb = MODEL_END}},
        {{MODEL_AFTER, "geom", "wal", .text = "<geom/>"}, {.verb = MODEL_END}},
    };
    static const char *const named[] = {"geom named target", "camera named floor", "no hfield", "named wal:"};
    struct error err;
    size_t bytes;
    char *text;

    (void)state;
    for (size_t i = 0; i < TD_LEN(none); i++) {
        assert_int_equal(model_text_read(write_file(sample), none[i], &text, &bytes, &err), TD_ECORRUPT);
        assert_null(text);
        assert_non_null(strstr(err.text, named[i]));
    }
}

static void files_that_are_no_xml_are_refused(void **state)
{
    static const char *const texts[] = {
        "", "no xml", "<mujoco>", "<mujoco><a></b></mujoco>", "<mujoco a='1' a='2'/>", "<a/><b/>",
        "\xff\xfe<mujoco", "<mujoco>&undefined;</mujoco>",
    };
    struct error err;
    size_t bytes;
    char *text;

    (void)state;
    for (size_t i = 0; i < TD_LEN(texts); i++) {
        assert_int_equal(model_text_read(write_file(texts[i]), NULL, &text, &bytes, &err), TD_ECORRUPT);
        assert_null(text);
        assert_null(strchr(err.text, '\n'));
        assert_non_null(strstr(err.text, "model.xml: line"));
    }
    assert_int_equal(model_text_read("/nowhere/model.xml", NULL, &text, &bytes, &err), TD_ECORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_edited_keeps_every_digit),
        cmocka_unit_test(set_changes_every_element_of_that_name),
        cmocka_unit_test(drop_takes_out_what_is_inside_too),
        cmocka_unit_test(after_inserts_in_order),
        cmocka_unit_test(edits_that_find_nothing_are_refused),
        cmocka_unit_test(files_that_are_no_xml_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
