/* supervisor_log.c - what the logs of a run's parts say of its end and its trouble, plain or as JSON (log=json). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/json.h"
#include "tools/supervisor.h"

#define LINES_MAX 8192 /* of what is looked at */

/* --- one form ------------------------------------------------------------------ */

static bool is_word(const char *key)
{
    return strcmp(key, "level") == 0 || strcmp(key, "part") == 0 || strcmp(key, "role") == 0;
}

static void add(char *out, size_t size, size_t *used, const char *text)
{
    size_t length = strlen(text), room = size - 1 - *used;

    length = length < room ? length : room;
    memcpy(out + *used, text, length);
    *used += length;
    out[*used] = '\0';
}

/* The members of one JSON object as key="value"; a line of a part's log within it, too. False: it is none. */
static bool plain_object(const char *line, size_t length, char *out, size_t size, bool within)
{
    const cJSON *member;
    size_t used = 0;
    cJSON *root;

    if (length == 0 || line[0] != '{' || json_parse(&root, line, length, false) != TD_OK)
        return false;
    out[0] = '\0';
    cJSON_ArrayForEach(member, root) {
        char inner[LINES_MAX], number[32];
        const char *value = member->valuestring, *quote = is_word(member->string) ? "" : "\"";

        if (cJSON_IsNumber(member)) {
            snprintf(number, sizeof(number), "%.15g", member->valuedouble);
            value = number;
            quote = "";
        } else if (value == NULL) {
            continue;
        } else if (!within && strcmp(member->string, "line") == 0 &&
                   plain_object(value, strlen(value), inner, sizeof(inner), true)) {
            value = inner;
        }
        add(out, size, &used, used > 0 ? " " : "");
        add(out, size, &used, member->string);
        add(out, size, &used, "=");
        add(out, size, &used, quote);
        add(out, size, &used, value);
        add(out, size, &used, quote);
    }
    cJSON_Delete(root);
    for (size_t i = 0; i < used; i++) /* an escaped end of line begins none */
        if ((unsigned char)out[i] < ' ')
            out[i] = ' ';
    return true;
}

char *supervisor_plain(char *lines)
{
    char plain[LINES_MAX], *from = lines, *to = lines;

    while (*from != '\0') {
        size_t length = strcspn(from, "\n"), now = length;
        bool more = from[length] == '\n';

        from[length] = '\0';
        if (plain_object(from, length, plain, sizeof(plain), false) && strlen(plain) <= length) {
            now = strlen(plain);
            memcpy(to, plain, now);
        } else {
            memmove(to, from, length);
        }
        to += now;
        from += length + more;
        if (more)
            *to++ = '\n';
    }
    *to = '\0';
    return lines;
}

static const char *plain_copy(char out[LINES_MAX], const char *lines, size_t length)
{
    length = length < LINES_MAX ? length : LINES_MAX - 1;
    memcpy(out, lines, length);
    out[length] = '\0';
    return supervisor_plain(out);
}

/* --- what it says --------------------------------------------------------------- */

/* The text between quotes behind key in a log line. */
static bool quoted(const char *line, const char *end, const char *key, char *out, size_t size)
{
    const char *at = memmem(line, (size_t)(end - line), key, strlen(key)), *close;

    if (at == NULL)
        return false;
    at += strlen(key);
    close = memchr(at, '"', (size_t)(end - at));
    if (close == NULL || close == at)
        return false;
    snprintf(out, size, "%.*s", (int)(close - at), at);
    return true;
}

char *supervisor_reason(const char *given, char *out, size_t size)
{
    static const char level[] = "level=error", program[] = "tdmpc2-";
    char plain[LINES_MAX];
    const char *lines = plain_copy(plain, given, strlen(given));

    out[0] = '\0';
    while (*lines != '\0') {
        const char *end = strchrnul(lines, '\n'), *error = memmem(lines, (size_t)(end - lines), level, sizeof(level) - 1);
        const char *colon = memmem(lines, (size_t)(end - lines), ": ", 2);

        if (error != NULL && (quoted(error, end, " why=\"", out, size) || quoted(error, end, " msg=\"", out, size)))
            break;
        if (strncmp(lines, program, sizeof(program) - 1) == 0 && colon != NULL) {
            snprintf(out, size, "%.*s", (int)(end - colon - 2), colon + 2);
            break;
        }
        lines = *end == '\n' ? end + 1 : end;
    }
    return out;
}

/* Where a quoted text ends that may hold quotes itself, and may be cut off. */
static const char *last_quote(const char *text, const char *stop)
{
    return stop > text && stop[-1] == '"' ? stop - 1 : stop;
}

char *supervisor_trouble(const char *given, const char *given_end, char *out, size_t size)
{
    static const char level[] = "level=error", died[] = "msg=\"part died\"", tail[] = "msg=\"from its log\"", key[] = " line=\"";
    char part[24], how[200], plain[LINES_MAX];
    const char *line = plain_copy(plain, given, (size_t)(given_end - given)), *stop = line + strlen(line), *at;
    size_t length = (size_t)(stop - line);

    out[0] = '\0';
    if (memmem(line, length, tail, sizeof(tail) - 1) != NULL) {
        at = memmem(line, length, key, sizeof(key) - 1);
        if (at != NULL)
            snprintf(out, size, "  | %.*s", (int)(last_quote(at + sizeof(key) - 1, stop) - at - (long)sizeof(key) + 1), at + sizeof(key) - 1);
    } else if ((at = memmem(line, length, died, sizeof(died) - 1)) != NULL) {
        at = memmem(at, (size_t)(stop - at), " part=", 6);
        if (at != NULL && sscanf(at, " part=%23[a-z-]", part) == 1 && quoted(at, stop, " how=\"", how, sizeof(how)))
            snprintf(out, size, "%s: %s; the learner starts it again", part, how);
    } else if (memmem(line, length, level, sizeof(level) - 1) != NULL && memmem(line, length, "msg=\"leaving\"", 13) == NULL &&
               quoted(line, stop, " msg=\"", how, sizeof(how))) {
        snprintf(out, size, "learner: %s", how);
        if (quoted(line, stop, " why=\"", how, sizeof(how)))
            snprintf(out + strlen(out), size - strlen(out), ": %s", how);
    }
    return out;
}
