#include "common/util/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/util/clock.h"

static struct {
    char role[24];
    int id;
    uint64_t run_id;
    int fd;
    enum log_level level;
    bool json;
    char host[64];
} state = {.role = "tdmpc2", .id = -1, .fd = STDERR_FILENO, .level = LOG_INFO};

void log_init(const char *role, int id, uint64_t run_id, int fd)
{
    snprintf(state.role, sizeof(state.role), "%s", role);
    state.id = id;
    state.run_id = run_id;
    state.fd = fd;
    if (gethostname(state.host, sizeof(state.host) - 1) != 0)
        state.host[0] = '\0';
    for (char *c = state.host; *c != '\0'; c++) /* it stands without quotes */
        if (*c <= ' ' || *c == '"' || *c == '\\' || *c > '~')
            *c = '?';
}

void log_set_format(const char *format)
{
    state.json = strcmp(format, "json") == 0;
}

void log_set_level(enum log_level level)
{
    state.level = level;
}

/* --- repeats ----------------------------------------------------------------- */

#define KINDS 256 /* messages counted apart; others share a place */

static struct {
    pthread_mutex_t lock;
    struct {
        uint64_t since_ms;
        unsigned lines, left_out;
    } kind[KINDS];
} repeats = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* May one more line of this message be written? *left_out: how many were not in the window before. */
static bool is_allowed(const char *message, unsigned *left_out)
{
    uint64_t now = clock_ms();
    unsigned place = 0;
    bool allowed;

    for (const char *c = message; *c != '\0'; c++)
        place = place * 31 + (unsigned char)*c;
    place %= KINDS;
    *left_out = 0;
    pthread_mutex_lock(&repeats.lock);
    if (repeats.kind[place].since_ms == 0 || now - repeats.kind[place].since_ms >= LOG_WINDOW_MS) {
        *left_out = repeats.kind[place].left_out;
        repeats.kind[place].since_ms = now;
        repeats.kind[place].lines = repeats.kind[place].left_out = 0;
    }
    allowed = ++repeats.kind[place].lines <= LOG_BURST;
    repeats.kind[place].left_out += !allowed;
    pthread_mutex_unlock(&repeats.lock);
    return allowed;
}

/* --- lines ------------------------------------------------------------------- */

#define LINE_MAX_BYTES    4096
#define DETAILS_MAX_BYTES 1536

struct line {
    char text[LINE_MAX_BYTES];
    int used; /* at most LINE_MAX_BYTES - RESERVE */
};

#define RESERVE 8 /* for what closes a line */

static void put(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct line *line, const char *format, ...)
{
    int room = LINE_MAX_BYTES - RESERVE - line->used, length;
    va_list args;

    va_start(args, format);
    length = vsnprintf(line->text + line->used, (size_t)room, format, args);
    va_end(args);
    line->used += length < room ? length : room - 1;
}

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static char *format_time(char out[40])
{
    uint64_t now = clock_wall_ms();
    time_t seconds = (time_t)(now / 1000);
    char stamp[32];
    struct tm utc;

    gmtime_r(&seconds, &utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out, 40, "%s.%03uZ", stamp, (unsigned)(now % 1000));
    return out;
}

static void put_plain(struct line *line, enum log_level level, const char *message, const char *details)
{
    char stamp[40];

    put(line, "%s level=%s role=%s", format_time(stamp), level_names[level], state.role);
    if (state.host[0] != '\0')
        put(line, " host=%s", state.host);
    if (state.id >= 0)
        put(line, " id=%d", state.id);
    put(line, " run=%08x msg=\"%s\"", (unsigned)(state.run_id & 0xffffffffu), message);
    if (details[0] != '\0')
        put(line, " %s", details);
    /* Nothing from outside may forge a second line. */
    for (int i = 0; i < line->used; i++)
        if ((unsigned char)line->text[i] < ' ')
            line->text[i] = ' ';
}

/* --- json -------------------------------------------------------------------- */

/* Room is kept for the quote and the brace that close the object. */
static void put_string(struct line *line, const char *text, size_t length)
{
    put(line, "\"");
    for (size_t i = 0; i < length && line->used < LINE_MAX_BYTES - RESERVE - 16; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '"' || c == '\\')
            put(line, "\\%c", c);
        else
            put(line, "%c", c >= ' ' && c <= '~' ? c : c < ' ' ? ' ' : '?');
    }
    put(line, "\"");
}

static bool is_number(const char *text, size_t length)
{
    size_t digits = strspn(text + (text[0] == '-'), "0123456789"), sign = text[0] == '-';

    if (digits == 0 || digits > 15 || (digits > 1 && text[sign] == '0'))
        return false;
    if (sign + digits < length && text[sign + digits] == '.') {
        size_t more = strspn(text + sign + digits + 1, "0123456789");

        digits = more > 0 ? digits + 1 + more : 0;
    }
    return digits > 0 && sign + digits == length;
}

static size_t key_length(const char *text)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

    return text[length] == '=' ? length : 0;
}

/* Where a quoted value ends: texts may hold quotes, so at one behind which comes another key, or nothing. */
static const char *closing_quote(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text == '"' && (text[1] == '\0' || (text[1] == ' ' && key_length(text + 2) > 0)))
            return text;
    return text;
}

/* key=value key="words" ... as members. What is not of that form is the member "details". */
static void put_members(struct line *line, const char *details)
{
    while (*details != '\0' && line->used < LINE_MAX_BYTES - RESERVE - 200) {
        size_t key = key_length(details), length;
        const char *value = details + key + 1, *end;

        if (key == 0) {
            put(line, ",\"details\":");
            put_string(line, details, strlen(details));
            return;
        }
        if (value[0] == '"') {
            end = closing_quote(value + 1);
            put(line, ",\"%.*s\":", (int)key, details);
            put_string(line, value + 1, (size_t)(end - value - 1));
            end += *end == '"';
        } else {
            length = strcspn(value, " ");
            end = value + length;
            put(line, ",\"%.*s\":", (int)key, details);
            if (is_number(value, length))
                put(line, "%.*s", (int)length, value);
            else
                put_string(line, value, length);
        }
        details = end + strspn(end, " ");
    }
}

static void put_json(struct line *line, enum log_level level, const char *message, const char *details)
{
    char stamp[40];

    put(line, "{\"time\":\"%s\",\"level\":\"%s\",\"role\":\"%s\",\"host\":\"%s\"", format_time(stamp), level_names[level],
        state.role, state.host);
    if (state.id >= 0)
        put(line, ",\"id\":%d", state.id);
    put(line, ",\"run\":\"%08x\",\"msg\":", (unsigned)(state.run_id & 0xffffffffu));
    put_string(line, message, strlen(message) < 512 ? strlen(message) : 512);
    put_members(line, details);
    line->text[line->used++] = '}';
}

/* --- writing ----------------------------------------------------------------- */

void log_write(enum log_level level, const char *message, const char *format, ...)
{
    char details[DETAILS_MAX_BYTES];
    struct line line = {.used = 0};
    unsigned left_out;
    va_list args;
    int length;

    if (level < state.level || !is_allowed(message, &left_out))
        return;
    va_start(args, format);
    length = vsnprintf(details, sizeof(details), format, args);
    va_end(args);
    if (length < 0)
        details[0] = '\0';
    if (left_out > 0 && strlen(details) + 32 < sizeof(details))
        snprintf(details + strlen(details), 32, "%srepeats=%u", details[0] != '\0' ? " " : "", left_out);
    if (state.json)
        put_json(&line, level, message, details);
    else
        put_plain(&line, level, message, details);
    line.text[line.used++] = '\n';
    if (write(state.fd, line.text, (size_t)line.used) < 0)
        return; /* a full disk must not stop the part that complains of it */
}

int log_allow(struct log_limit *limit, uint64_t every_ms)
{
    uint64_t now = clock_ms();

    if (now < limit->next_ms) {
        limit->suppressed++;
        return 0;
    }
    limit->next_ms = now + every_ms;
    limit->suppressed_last = limit->suppressed;
    limit->suppressed = 0;
    return 1;
}
