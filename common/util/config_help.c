/* The table in words: for --help, and as Markdown for the README. */
#include "common/util/config.h"

#include <string.h>

enum kind { KIND_SECTION, KIND_OPTION };

/* The table again, with its section titles, in the order of config.def. */
static const struct line {
    enum kind kind;
    const char *text;
} lines[] = {
#define SECTION(title)  {KIND_SECTION, title},
#define INT(name, ...)  {KIND_OPTION, #name},
#define REAL(name, ...) {KIND_OPTION, #name},
#define BOOL(name, ...) {KIND_OPTION, #name},
#define TEXT(name, ...) {KIND_OPTION, #name},
#include "common/util/config.def"
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
};

static char *range(const struct config_option *option, char *out, size_t size)
{
    switch (option->type) {
    case CONFIG_INT:
        snprintf(out, size, "%.0f to %.0f", option->min, option->max);
        break;
    case CONFIG_REAL:
        snprintf(out, size, "%g to %g", option->min, option->max);
        break;
    case CONFIG_BOOL:
        snprintf(out, size, "true, false");
        break;
    case CONFIG_TEXT:
        snprintf(out, size, "%s", option->choices[0] != '\0' ? option->choices : "text");
        break;
    }
    return out;
}

void config_help(FILE *out)
{
    const struct config_option *option = config_options(&(int){0});
    char text[128];

    for (size_t i = 0; i < TD_LEN(lines); i++) {
        if (lines[i].kind == KIND_SECTION) {
            fprintf(out, "%s%s\n", i > 0 ? "\n" : "", lines[i].text);
            continue;
        }
        snprintf(text, sizeof(text), "%s=%s", option->name, option->value);
        fprintf(out, "  %-28s %s", text, option->sentence);
        fprintf(out, option->type == CONFIG_TEXT && option->choices[0] == '\0' ? "\n" : " (%s)\n",
                range(option, text, sizeof(text)));
        option++;
    }
}

/* A | inside a cell would end it. */
static void cell(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|')
            fputs(" or ", out);
        else
            fputc(*text, out);
    }
}

void config_markdown(FILE *out)
{
    static const char *const changes[] = {[CONFIG_FIXED] = "kept", [CONFIG_SAFE] = "may change",
                                          [CONFIG_BITS] = "may change (lock-step: other bits)",
                                          [CONFIG_HERE] = "given anew"};
    const struct config_option *option = config_options(&(int){0});
    char text[128];

    fputs("| option | default | range | on resume | meaning |\n|---|---|---|---|---|\n", out);
    for (size_t i = 0; i < TD_LEN(lines); i++) {
        if (lines[i].kind == KIND_SECTION) {
            fprintf(out, "| **%s** | | | | |\n", lines[i].text);
            continue;
        }
        fprintf(out, "| `%s` | %s | ", option->name, option->value[0] != '\0' ? option->value : "(empty)");
        cell(out, range(option, text, sizeof(text)));
        fprintf(out, " | %s | ", changes[option->change]);
        cell(out, option->sentence);
        fputs(" |\n", out);
        option++;
    }
}
