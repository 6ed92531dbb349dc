/*
 * bridge_words.h - what an environment's process prints: lines of this process's log, at most 20 a second, and when it
 * dies its last words.
 */
#ifndef TD_ENV_BRIDGE_WORDS_H
#define TD_ENV_BRIDGE_WORDS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BRIDGE_WORDS_MAX  4096
#define BRIDGE_WORDS_LINE 200

/* Zeros: it has said nothing. */
struct bridge_words {
    size_t used;                 /* of text: what it printed last */
    size_t line_used;
    char escape;                 /* within a terminal's sequence: its first byte or two, ESC or [ */
    uint64_t lines_since_ms;
    unsigned lines, lines_dropped;
    char text[BRIDGE_WORDS_MAX];
    char line[BRIDGE_WORDS_LINE + 1];
};

void bridge_words_hear(struct bridge_words *words, pid_t pid, const char *text, size_t size);

/* The last line that says something, made printable; of a report of Python's own on its death the line that says why. */
const char *bridge_words_last(const struct bridge_words *words, char out[BRIDGE_WORDS_LINE]);

#endif
