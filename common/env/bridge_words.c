#include "common/env/bridge_words.h"

#include <stdbool.h>
#include <string.h>

#include "common/util/clock.h"
#include "common/util/log.h"

#define LINES_PER_SECOND 20

static void say_line(struct bridge_words *words, pid_t pid)
{
    uint64_t now = clock_ms();

    words->line[words->line_used] = '\0';
    if (words->line_used == 0)
        return;
    words->line_used = 0;
    if (now >= words->lines_since_ms + 1000) {
        if (words->lines_dropped > 0)
            log_info("the environment printed more", "pid=%d lines=%u", (int)pid, words->lines_dropped);
        words->lines_since_ms = now;
        words->lines = words->lines_dropped = 0;
    }
    if (++words->lines > LINES_PER_SECOND)
        words->lines_dropped++;
    else
        log_info("the environment printed", "pid=%d text=\"%s\"", (int)pid, words->line);
}

/* Colours and the like, ESC [ ... letter, are for terminals. */
static bool in_escape(char *escape, unsigned char c)
{
    char before = *escape;

    if (c == '\n' || (before == 0 && c != 0x1b))
        *escape = 0;
    else if (before == 0)
        *escape = 0x1b;
    else if (before == 0x1b)
        *escape = c == '[' ? '[' : 0;
    else if (c >= 0x40 && c < 0x7f)
        *escape = 0;
    return c != '\n' && (before != 0 || *escape != 0);
}

void bridge_words_hear(struct bridge_words *words, pid_t pid, const char *text, size_t size)
{
    size_t keep = size < BRIDGE_WORDS_MAX ? size : BRIDGE_WORDS_MAX;

    if (keep > BRIDGE_WORDS_MAX - words->used) {
        size_t drop = keep - (BRIDGE_WORDS_MAX - words->used);

        memmove(words->text, words->text + drop, words->used - drop);
        words->used -= drop;
    }
    memcpy(words->text + words->used, text + size - keep, keep);
    words->used += keep;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];

        if (in_escape(&words->escape, c))
            continue;
        if (c == '\n')
            say_line(words, pid);
        else if (words->line_used < BRIDGE_WORDS_LINE)
            words->line[words->line_used++] = c < 0x20 || c == 0x7f ? ' ' : c == '"' ? '\'' : (char)c;
    }
}

/* Where a line of Python's own last report begins; what follows it lists modules. NULL: there is none. */
static const char *fatal_line(const struct bridge_words *words)
{
    static const char sign[] = "Fatal Python error: ";

    return memmem(words->text, words->used, sign, sizeof(sign) - 1);
}

const char *bridge_words_last(const struct bridge_words *words, char out[BRIDGE_WORDS_LINE])
{
    const char *fatal = fatal_line(words), *stop;
    size_t end = words->used, start, length = 0;
    char escape = 0;

    if (fatal != NULL && (stop = memchr(fatal, '\n', (size_t)(words->text + end - fatal))) != NULL)
        end = (size_t)(stop - words->text);
    while (end > 0 && (unsigned char)words->text[end - 1] <= ' ')
        end--;
    start = end;
    while (start > 0 && words->text[start - 1] != '\n')
        start--;
    for (size_t i = start; i < end && length < BRIDGE_WORDS_LINE - 1; i++) {
        unsigned char c = (unsigned char)words->text[i];

        if (!in_escape(&escape, c))
            out[length++] = c < 0x20 || c == 0x7f ? ' ' : c == '"' ? '\'' : (char)c;
    }
    out[length] = '\0';
    return out;
}
