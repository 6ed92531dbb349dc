#include "common/util/log.h"

#include <stdarg.h>
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
} state = {.role = "tdmpc2", .id = -1, .fd = STDERR_FILENO, .level = LOG_INFO};

void log_init(const char *role, int id, uint64_t run_id, int fd)
{
    snprintf(state.role, sizeof(state.role), "%s", role);
    state.id = id;
    state.run_id = run_id;
    state.fd = fd;
}

void log_set_level(enum log_level level)
{
    state.level = level;
}

static int append(char *line, int used, int size, const char *text, int length)
{
    if (length > size - used)
        length = size - used;
    memcpy(line + used, text, (size_t)length);
    return used + length;
}

static int write_prefix(char *line, int size, enum log_level level, const char *message)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    uint64_t now = clock_wall_ms();
    time_t seconds = (time_t)(now / 1000);
    struct tm utc;
    char stamp[32], who[64] = "";
    int used;

    gmtime_r(&seconds, &utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    if (state.id >= 0)
        snprintf(who, sizeof(who), " id=%d", state.id);
    used = snprintf(line, (size_t)size, "%s.%03uZ level=%s role=%s%s run=%08x msg=\"%s\"", stamp,
                    (unsigned)(now % 1000), names[level], state.role, who,
                    (unsigned)(state.run_id & 0xffffffffu), message);
    return used < size ? used : size - 1;
}

void log_write(enum log_level level, const char *message, const char *format, ...)
{
    char line[2048], details[1536];
    va_list args;
    int used, length;

    if (level < state.level)
        return;
    used = write_prefix(line, (int)sizeof(line) - 1, level, message);
    va_start(args, format);
    length = vsnprintf(details, sizeof(details), format, args);
    va_end(args);
    if (length > 0) {
        if (length >= (int)sizeof(details))
            length = (int)sizeof(details) - 1;
        used = append(line, used, (int)sizeof(line) - 1, " ", 1);
        used = append(line, used, (int)sizeof(line) - 1, details, length);
    }
    /* Nothing from outside may forge a second line. */
    for (int i = 0; i < used; i++)
        if ((unsigned char)line[i] < ' ')
            line[i] = ' ';
    line[used++] = '\n';
    if (write(state.fd, line, (size_t)used) < 0)
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
