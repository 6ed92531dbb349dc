#include "tests/support/test.h"

#include "common/util/version.h"
#include "tools/manual.h"

static const char help[] = "usage: tdmpc2 thing WORD\n"
                           "       tdmpc2 thing --other\n"
                           "                            what the other does\n"
                           "\n"
                           "Does it.\n"
                           ".hidden requests, 'quotes' and back\\slashes are text; a long line is broken at its blanks, so that it is short.\n"
                           "\n"
                           "  WORD        what it is\n"
                           "              and more of it\n"
                           "  --a-b=C     another\n"
                           "\n"
                           "Section\n"
                           "  name=1      its sentence (1 to 2)\n"
                           "\n"
                           "The end: it is no heading.\n";

static const char *page(const char *text)
{
    static char out[65536];
    FILE *file = fmemopen(out, sizeof(out), "w");

    manual_page("tdmpc2-thing", "does a thing", text, file);
    fclose(file);
    return out;
}

static void shows(const char *text, const char *what)
{
    if (strstr(text, what) == NULL)
        fail_msg("no '%s' in:\n%s", what, text);
}

static void a_help_text_becomes_a_page(void **state)
{
    const char *text = page(help);

    (void)state;
    shows(text, ".TH TDMPC2-THING 1 \"");
    shows(text, "\"tdmpc2 " TD_VERSION "\"");
    shows(text, ".SH NAME\ntdmpc2\\-thing \\- does a thing\n");
    shows(text, ".nf\n\\fBtdmpc2 thing WORD\\fR\n\\fBtdmpc2 thing \\-\\-other\\fR\n        what the other does\n.fi\n");
    shows(text, ".SH DESCRIPTION\nDoes it.\n\\&.hidden requests, \\(aqquotes\\(aq and back\\eslashes are text;");
    shows(text, ".TP\n\\fBWORD\\fR\nwhat it is\nand more of it\n.TP\n\\fB\\-\\-a\\-b=C\\fR\nanother\n");
    shows(text, ".SS Section\n.TP\n\\fBname=1\\fR\nits sentence (1 to 2)\n.PP\nThe end: it is no heading.\n");
    shows(text, ".SH EXIT STATUS\n");
}

/* No line of the source is long, whatever the help holds. */
static void lines_of_the_source_are_short(void **state)
{
    const char *text = page(help);

    (void)state;
    for (const char *end; (end = strchr(text, '\n')) != NULL; text = end + 1)
        assert_true(end - text <= 90);
}

static void odd_texts_make_pages_too(void **state)
{
    static const char *const odd[] = {"", "usage: x", "usage: x\n\n", "\n\n\n", "  a  b", "usage: x\n\nHeading\n  a  b", "\377\n\n'\n"};

    (void)state;
    for (size_t i = 0; i < TD_LEN(odd); i++)
        shows(page(odd[i]), ".SH SEE ALSO\n");
}

static void tables_are_cut_off(void **state)
{
    static const char options[] = "usage: x\n\nWords.\n\nTask\n  task=a   b\n", none[] = "usage: x\n\nTask\nwords\n";

    (void)state;
    assert_int_equal(manual_before_tables(options), strlen("usage: x\n\nWords.\n"));
    assert_int_equal(manual_before_tables(none), strlen(none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_help_text_becomes_a_page),
        cmocka_unit_test(lines_of_the_source_are_short),
        cmocka_unit_test(odd_texts_make_pages_too),
        cmocka_unit_test(tables_are_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
