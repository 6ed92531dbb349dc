#include "tools/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool options_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int options_flushed(int code)
{
    bool failed = ferror(stdout) != 0;
    int errnum = 0;

    errno = 0;
    if (fflush(stdout) != 0) {
        failed = true;
        errnum = errno;
    }
    if (!failed)
        return code;
    fprintf(stderr, "tdmpc2: cannot write to standard output%s%s\n", errnum != 0 ? ": " : "",
            errnum != 0 ? strerror(errnum) : "");
    return code != TD_EXIT_OK ? code : TD_EXIT_GAVE_UP;
}

bool *options_given(void)
{
    int count;

    config_options(&count);
    return calloc((size_t)count, sizeof(bool));
}

static bool handed_on(const struct config_option *option)
{
    return strcmp(option->name, "config") != 0 && strcmp(option->name, "work_dir") != 0;
}

char **options_words(const struct config *config, const bool *given, const char *last)
{
    int count, used = 0;
    const struct config_option *options = config_options(&count);
    char **words = calloc((size_t)count + 2, sizeof(*words));
    char value[CONFIG_TEXT_MAX];

    for (int i = 0; words != NULL && i <= count; i++) {
        int length = 0;

        if (i == count)
            words[used] = strdup(last);
        else if (given[i] && handed_on(&options[i]))
            length = asprintf(&words[used], "%s=%s", options[i].name,
                              config_format(config, &options[i], value, sizeof(value)));
        else
            continue;
        if (length < 0 || words[used++] == NULL) {
            words[used] = NULL;
            options_words_free(words);
            return NULL;
        }
    }
    return words;
}

void options_words_free(char **words)
{
    for (char **word = words; word != NULL && *word != NULL; word++)
        free(*word);
    free(words);
}
