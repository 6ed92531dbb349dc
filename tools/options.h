/* options.h - what the subcommands share in reading and handing on options. */
#ifndef TD_TOOLS_OPTIONS_H
#define TD_TOOLS_OPTIONS_H

#include <stdbool.h>

#include "common/util/config.h"

/* Is --help or -h among the words? */
bool options_help(int argc, char **argv);

/* The exit code when all is printed: `code`, or 1 after saying that standard output took no more. */
int options_flushed(int code);

/* One flag per option, all false; the caller frees it. NULL when out of memory. */
bool *options_given(void);

/*
 * The options that were given as key=value words for another program, without config= and work_dir=,
 * then `last`; NULL-terminated. NULL when out of memory.
 */
char **options_words(const struct config *config, const bool *given, const char *last);
void options_words_free(char **words);

#endif
