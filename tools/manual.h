/*
 * manual.h - manual pages and reference pages, made from what the programs say of themselves.
 *
 * Their --help comes from the tables (config.def, metrics.def, commands.def), and all else here from --help: what
 * is documented cannot be other than what is there.
 */
#ifndef TD_TOOLS_MANUAL_H
#define TD_TOOLS_MANUAL_H

#include <stdio.h>

/*
 * A help text as man(7) source: usage becomes the SYNOPSIS; "  word   sentence" a tagged paragraph with the
 * lines that go on below it; a line alone before such ones a heading; the rest paragraphs. name: "tdmpc2-train";
 * sentence: what it does, in a few words.
 */
void manual_page(const char *name, const char *sentence, const char *help, FILE *out);

/* The text before a table of options or metrics begins, which has a page of its own; its length. */
size_t manual_before_tables(const char *help);

#endif
