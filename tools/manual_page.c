/* manual_page.c - a help text as man(7) source. */
#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "common/util/error.h"
#include "common/util/version.h"
#include "tools/manual.h"

#define SOURCE_WIDTH 68           /* with room for escapes */
#define DATE         "2026-11-24" /* of what these pages say beside the tables */

/* --- lines ------------------------------------------------------------------ */

struct line {
    const char *text; /* behind the blanks it begins with */
    int length, indent;
};

static const char *next_line(const char *at, struct line *line)
{
    const char *end = strchr(at, '\n'), *stop = end != NULL ? end : at + strlen(at);

    line->indent = (int)strspn(at, " ");
    if (line->indent > stop - at)
        line->indent = (int)(stop - at);
    line->text = at + line->indent;
    line->length = (int)(stop - line->text);
    return end != NULL ? end + 1 : stop;
}

/* Of "word   sentence": where the sentence begins, behind two blanks or more; 0: there is none. */
static int sentence_at(const struct line *line)
{
    for (int i = 0; i + 2 < line->length; i++)
        if (line->text[i] == ' ' && line->text[i + 1] == ' ')
            return i + (int)strspn(line->text + i, " ");
    return 0;
}

/* --- roff ------------------------------------------------------------------- */

/* Text that no line of which is taken for a request. */
static void put_text(FILE *out, const char *text, int length)
{
    if (length > 0 && (text[0] == '.' || text[0] == '\''))
        fputs("\\&", out);
    for (int i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '\\')
            fputs("\\e", out);
        else if (c == '-')
            fputs("\\-", out);
        else if (c == '~')
            fputs("\\(ti", out);
        else if (c == '^')
            fputs("\\(ha", out);
        else if (c == '`')
            fputs("\\(ga", out);
        else if (c == '\'')
            fputs("\\(aq", out);
        else
            fputc(isprint(c) ? c : '?', out);
    }
}

/* Filled text: source lines of at most SOURCE_WIDTH characters, broken at blanks. */
static void put_line(FILE *out, const char *text, int length)
{
    while (length > SOURCE_WIDTH) {
        int at = SOURCE_WIDTH;

        while (at > 0 && text[at] != ' ')
            at--;
        if (at == 0)
            break;
        put_text(out, text, at);
        fputc('\n', out);
        text += at + 1;
        length -= at + 1;
    }
    put_text(out, text, length);
    fputc('\n', out);
}

static void put_bold(FILE *out, const char *text, int length)
{
    fputs("\\fB", out);
    put_text(out, text, length);
    fputs("\\fR\n", out);
}

/* --- the page --------------------------------------------------------------- */

/* "usage: a" and "       b" below it. */
static const char *put_synopsis(const char *help, FILE *out)
{
    struct line line;
    const char *at = help, *next;

    fputs(".SH SYNOPSIS\n.nf\n", out);
    while ((next = next_line(at, &line)) > at && line.length > 0) {
        if (strncmp(line.text, "usage: ", 7) == 0) {
            line.text += 7;
            line.length -= 7;
        }
        if (line.indent > 12) { /* a word about the line above */
            fputs("        ", out);
            put_text(out, line.text, line.length);
            fputc('\n', out);
        } else {
            put_bold(out, line.text, line.length);
        }
        at = next;
    }
    fputs(".fi\n", out);
    return at;
}

enum within { PARAGRAPH, TAGGED, BETWEEN };

/* A heading stands alone above indented lines, and is no sentence. */
static bool is_heading(const struct line *line, const char *next)
{
    struct line below;

    next_line(next, &below);
    return line->indent == 0 && line->length < 40 && strchr(".:,;", line->text[line->length - 1]) == NULL &&
           below.indent > 0 && below.length > 0;
}

static void put_body(const char *help, FILE *out)
{
    enum within within = BETWEEN;
    struct line line;
    const char *at = help, *next;
    bool first = true; /* a section begins with a paragraph by itself */
    int tag_indent = 0;

    for (; *at != '\0'; at = next) {
        next = next_line(at, &line);
        if (line.length == 0) {
            within = BETWEEN;
        } else if (within == BETWEEN && is_heading(&line, next)) {
            fputs(".SS ", out);
            put_line(out, line.text, line.length);
        } else if (line.indent >= 2 && sentence_at(&line) > 0 && (within != TAGGED || line.indent <= tag_indent)) {
            int behind = sentence_at(&line), word = behind;

            while (word > 0 && line.text[word - 1] == ' ')
                word--;
            fputs(".TP\n", out);
            put_bold(out, line.text, word);
            put_line(out, line.text + behind, line.length - behind);
            within = TAGGED;
            tag_indent = line.indent;
        } else if (line.indent >= 2 && (within != TAGGED || line.indent <= tag_indent)) {
            fputs(".TP\n", out); /* a word whose sentence begins on the next line */
            put_bold(out, line.text, line.length);
            within = TAGGED;
            tag_indent = line.indent;
        } else {
            if (within == BETWEEN || (within == TAGGED && line.indent == 0)) {
                fputs(first ? "" : ".PP\n", out);
                within = PARAGRAPH;
            }
            put_line(out, line.text, line.length);
        }
        first = first && line.length == 0;
    }
}

static void put_environment(FILE *out)
{
    static const struct {
        const char *name, *meaning;
    } variables[] = {
        {"TDMPC2_ASSETS", "folder with MuJoCo's library and the model files, instead of those that belong to the program"},
        {"TDMPC2_PYTHON", "interpreter for environments in Python"},
        {"TDMPC2_ENV_TIMEOUT", "seconds that such an environment may take for an answer (60)"},
        {"TDMPC2_RUNTIME_DIR", "private folder for the sockets of this machine"},
        {"NO_COLOR", "not empty: no colours on the terminal"},
    };

    fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < TD_LEN(variables); i++) {
        fprintf(out, ".TP\n.B %s\n", variables[i].name);
        put_line(out, variables[i].meaning, (int)strlen(variables[i].meaning));
    }
}

static void put_ends(const char *name, FILE *out)
{
    static const struct {
        int code;
        const char *meaning;
    } codes[] = {
        {TD_EXIT_OK, "done, or stopped as asked"},
        {TD_EXIT_GAVE_UP, "gave up"},
        {TD_EXIT_BAD_INPUT, "bad input: what was wrong, and where, stands on standard error"},
        {TD_EXIT_DIVERGED, "training diverged"},
        {TD_EXIT_FENCED, "another process took this actor's place"},
        {TD_EXIT_INTERRUPTED, "interrupted twice"},
    };

    fputs(".SH EXIT STATUS\n", out);
    for (size_t i = 0; i < TD_LEN(codes); i++)
        fprintf(out, ".TP\n.B %d\n%s\n", codes[i].code, codes[i].meaning);
    fputs(".SH SEE ALSO\n", out);
    if (strcmp(name, "tdmpc2") != 0)
        fputs(".BR tdmpc2 (1),\n", out);
    if (strcmp(name, "tdmpc2-replay") == 0)
        fputs(".BR tdmpc2\\-replay\\-command (1),\n", out);
    fputs(".BR tdmpc2\\-learner (1),\n.BR tdmpc2\\-replay (1),\n.BR tdmpc2\\-actor (1)\n", out);
}

void manual_page(const char *name, const char *sentence, const char *help, FILE *out)
{
    char title[64], first[256];
    size_t i;

    for (i = 0; name[i] != '\0' && i + 1 < sizeof(title); i++)
        title[i] = (char)toupper((unsigned char)name[i]);
    title[i] = '\0';
    fprintf(out, ".\\\" made by `tdmpc2 manual`\n.TH %s 1 \"%s\" \"tdmpc2 %s\" \"tdmpc2\"\n.SH NAME\n", title, DATE,
            TD_VERSION);
    snprintf(first, sizeof(first), "%s - %s", name, sentence);
    put_line(out, first, (int)strlen(first));
    help = put_synopsis(help, out);
    fputs(".SH DESCRIPTION\n", out);
    put_body(help + strspn(help, "\n"), out);
    put_environment(out);
    put_ends(name, out);
}

size_t manual_before_tables(const char *help)
{
    const char *options = strstr(help, "\n\nTask\n  task="), *metrics = strstr(help, "\n\nProgress\n  agent_steps ");
    const char *end = options != NULL ? options : metrics;

    return end != NULL ? (size_t)(end - help) + 1 : strlen(help);
}
