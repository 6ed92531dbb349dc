/*
 * commands.h - the subcommands of tdmpc2. argv[0] is the subcommand's name; the result is the exit code.
 */
#ifndef TD_TOOLS_COMMANDS_H
#define TD_TOOLS_COMMANDS_H

#define COMMAND(name, sentence) int cmd_##name(int argc, char **argv);
#include "tools/commands.def"
#undef COMMAND

#endif
