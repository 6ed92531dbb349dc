/* tdmpc2 - the front command: it starts, asks, converts and checks; it owns nothing. */
#include <stdio.h>
#include <string.h>

#include "common/util/config_words.h"
#include "common/util/error.h"
#include "tools/commands.h"
#include "tools/options.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *sentence;
};

static const struct command commands[] = {
#define COMMAND(name, sentence) {#name, cmd_##name, sentence},
#include "tools/commands.def"
#undef COMMAND
    {NULL, NULL, NULL},
};

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2 COMMAND [key=value ...]\n\n");
    for (const struct command *command = commands; command->name != NULL; command++)
        fprintf(out, "  %-12s %s\n", command->name, command->sentence);
    fprintf(out, "\ntdmpc2 COMMAND --help tells more.\n");
}

int main(int argc, char **argv)
{
    static const char *const names[] = {
#define COMMAND(name, sentence) #name,
#include "tools/commands.def"
#undef COMMAND
        NULL};

    if (argc < 2) {
        usage(stderr);
        return TD_EXIT_BAD_INPUT;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return options_flushed(TD_EXIT_OK);
    }
    for (const struct command *command = commands; command->name != NULL; command++)
        if (strcmp(argv[1], command->name) == 0)
            return options_flushed(command->run(argc - 1, argv + 1));
    fprintf(stderr, "tdmpc2: unknown command '%.60s': did you mean %s? `tdmpc2 help` lists them\n", argv[1],
            config_nearest_word(argv[1], names));
    return TD_EXIT_BAD_INPUT;
}
