#include "tools/console.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "common/util/clock.h"

#define BLUE   "\033[34m"
#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define PLAIN  "\033[0m"

/* --- the stats --- */

static double number_of(const cJSON *metrics, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(metrics, name);

    return cJSON_IsNumber(item) && isfinite(item->valuedouble) ? item->valuedouble : NAN;
}

/* Nothing from another process may move the cursor. */
static void text_of(char *out, size_t size, const cJSON *metrics, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(metrics, name);

    snprintf(out, size, "%s", cJSON_IsString(item) ? item->valuestring : "");
    for (; *out != '\0'; out++)
        if ((unsigned char)*out < ' ' || *out == 127)
            *out = ' ';
}

bool status_parse(struct run_status *status, const char *json, size_t length)
{
    cJSON *root = cJSON_ParseWithLength(json, length);
    const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(root, "metrics");
    bool ok = cJSON_IsObject(metrics);

    if (ok) {
        status->agent_steps = number_of(metrics, "agent_steps");
        status->target_steps = number_of(metrics, "target_steps");
        status->progress = number_of(metrics, "progress");
        status->time_left_s = number_of(metrics, "time_left");
        status->updates = number_of(metrics, "updates");
        status->updates_per_s = number_of(metrics, "updates_per_s");
        status->steps_per_s = number_of(metrics, "env_steps_per_s");
        status->episode_return = number_of(metrics, "episode_return");
        status->eval_return = number_of(metrics, "eval_return");
        status->actors = number_of(metrics, "actors_live");
        text_of(status->phase, sizeof(status->phase), metrics, "phase");
        text_of(status->waiting, sizeof(status->waiting), metrics, "waiting");
        text_of(status->bottleneck, sizeof(status->bottleneck), metrics, "bottleneck");
    }
    cJSON_Delete(root);
    return ok;
}

/* --- numbers in words --- */

char *console_format_count(char *out, size_t size, double count)
{
    char digits[32];
    int length = snprintf(digits, sizeof(digits), "%.0f", fmin(fmax(count, 0), 1e15));
    size_t used = 0;

    for (int i = 0; i < length && used + 2 < size; i++) {
        out[used++] = digits[i];
        if ((length - i - 1) % 3 == 0 && i + 1 < length)
            out[used++] = ',';
    }
    out[used] = '\0';
    return out;
}

char *console_format_time(char *out, size_t size, double seconds)
{
    uint64_t whole = (uint64_t)fmin(fmax(seconds, 0), 1e12);
    uint64_t days = whole / 86400;
    char before[48] = "";

    if (days > 0)
        snprintf(before, sizeof(before), "%" PRIu64 " day%s, ", days, days == 1 ? "" : "s");
    snprintf(out, size, "%s%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, before, whole / 3600 % 24, whole / 60 % 60,
             whole % 60);
    return out;
}

/* --- the reference's line --- */

static const char *category_colour(const char *category)
{
    return strcmp(category, "eval") == 0 ? GREEN : strcmp(category, "train") == 0 ? BLUE : YELLOW;
}

/* Add "   " and the field, padded to 22 with the colour's bytes counted as the reference does. */
static size_t add_field(char *out, size_t used, const char *letter, const char *value, bool colour)
{
    char field[160];

    snprintf(field, sizeof(field), "%s%s:%s %s", colour ? BLUE : "", letter, colour ? PLAIN : "", value);
    used += (size_t)snprintf(out + used, CONSOLE_LINE_MAX - used, "   %-22s", field);
    return used < CONSOLE_LINE_MAX ? used : CONSOLE_LINE_MAX - 1;
}

static char *one_decimal(char *out, size_t size, double value)
{
    snprintf(out, size, fabs(value) < 1e9 ? "%.1f" : "%.3g", value);
    return out;
}

char *console_format_row(char out[CONSOLE_LINE_MAX], const struct console_row *row, bool colour)
{
    char category[64], value[64];
    size_t used;

    snprintf(category, sizeof(category), "%s%.30s%s", colour ? category_colour(row->category) : "", row->category,
             colour ? PLAIN : "");
    used = (size_t)snprintf(out, CONSOLE_LINE_MAX, " %-14s", category);
    if (!isnan(row->episode))
        used = add_field(out, used, "E", console_format_count(value, sizeof(value), row->episode), colour);
    if (!isnan(row->step))
        used = add_field(out, used, "I", console_format_count(value, sizeof(value), row->step), colour);
    if (!isnan(row->reward))
        used = add_field(out, used, "R", one_decimal(value, sizeof(value), row->reward), colour);
    if (!isnan(row->success))
        used = add_field(out, used, "S", one_decimal(value, sizeof(value), row->success), colour);
    if (!isnan(row->time_s))
        used = add_field(out, used, "T", console_format_time(value, sizeof(value), row->time_s), colour);
    while (used > 0 && out[used - 1] == ' ')
        out[--used] = '\0';
    return out;
}

char *console_format_tasks(char out[CONSOLE_LINE_MAX], const struct task_set *tasks, const double *score_and_pairs)
{
    char number[32];
    size_t used = (size_t)snprintf(out, CONSOLE_LINE_MAX, " %-14s", "");

    if (!isnan(score_and_pairs[0]))
        used += (size_t)snprintf(out + used, CONSOLE_LINE_MAX - used, "   score %s of %d tasks",
                                 one_decimal(number, sizeof(number), score_and_pairs[0]), tasks->count);
    for (int i = 0; i < tasks->count; i++) {
        double reward = score_and_pairs[1 + 2 * i];

        if (isnan(reward))
            continue;
        if (used + strlen(tasks->task[i].name) + 48 >= CONSOLE_LINE_MAX) {
            snprintf(out + used, CONSOLE_LINE_MAX - used, ", ...: eval.csv has all");
            break;
        }
        used += (size_t)snprintf(out + used, CONSOLE_LINE_MAX - used, "%s %s %s", i > 0 ? "," : ":", tasks->task[i].name,
                                 one_decimal(number, sizeof(number), reward));
    }
    return out;
}

/* --- the status line --- */

static void add(char *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(char *out, const char *format, ...)
{
    size_t used = strlen(out);
    va_list args;

    va_start(args, format);
    vsnprintf(out + used, CONSOLE_LINE_MAX - used, format, args);
    va_end(args);
}

static double share_of(double progress)
{
    return fmin(fmax(isnan(progress) ? 0 : progress, 0), 1);
}

static void add_bar(char *out, double progress)
{
    enum { CELLS = 20 };
    int full = (int)(share_of(progress) * CELLS);

    add(out, "[%.*s%s%.*s] ", full, "====================", full < CELLS ? ">" : "",
        full < CELLS ? CELLS - 1 - full : 0, "                    ");
}

/* What goes, one after the other, until the line is short enough: what is waited for and the percentage last. */
enum drop {
    DROP_NOTHING, DROP_RATE, DROP_RETURNS, DROP_BAR, DROP_TIME, DROP_STEPS, DROP_PHASE, DROP_NAME, DROP_WORDS
};

static void write_status(char *out, const char *name, const struct run_status *status, enum drop drop)
{
    const char *reason = status->bottleneck[0] != '\0' ? status->bottleneck : status->waiting;
    bool waits = reason == status->waiting;
    char one[64], two[64];

    out[0] = '\0';
    if (drop < DROP_NAME)
        add(out, "%s ", name);
    if (drop < DROP_BAR)
        add_bar(out, status->progress);
    add(out, "%.1f%%", share_of(status->progress) * 100);
    if (drop < DROP_PHASE && status->phase[0] != '\0' && strcmp(status->phase, "running") != 0)
        add(out, "  %s", status->phase);
    if (drop < DROP_TIME && !isnan(status->time_left_s))
        add(out, "  %s left", console_format_time(one, sizeof(one), status->time_left_s));
    if (drop < DROP_STEPS && !isnan(status->agent_steps) && !isnan(status->target_steps))
        add(out, "  %s/%s steps", console_format_count(one, sizeof(one), status->agent_steps),
            console_format_count(two, sizeof(two), status->target_steps));
    if (drop < DROP_RETURNS && !isnan(status->episode_return))
        add(out, "  R %s", one_decimal(one, sizeof(one), status->episode_return));
    if (drop < DROP_RETURNS && !isnan(status->eval_return))
        add(out, "  eval %s", one_decimal(one, sizeof(one), status->eval_return));
    if (drop < DROP_RATE && !isnan(status->updates_per_s))
        add(out, "  %.1f updates/s", status->updates_per_s);
    if (reason[0] != '\0' && drop < DROP_WORDS)
        add(out, "  (%s%s)", waits ? "waits for " : "", reason);
    else if (reason[0] != '\0')
        add(out, " %s", reason);
}

char *console_format_status(char out[CONSOLE_LINE_MAX], const char *name, const struct run_status *status, int width)
{
    enum drop drop = DROP_NOTHING;

    if (width <= 0 || width >= CONSOLE_LINE_MAX) {
        write_status(out, name, status, drop);
        return out;
    }
    do
        write_status(out, name, status, drop);
    while (strlen(out) >= (size_t)width && drop++ < DROP_WORDS);
    if (strlen(out) >= (size_t)width) {
        /* not inside a character of more than one byte */
        int end = width - 1;

        while (end > 0 && ((unsigned char)out[end] & 0xc0) == 0x80)
            end--;
        out[end] = '\0';
    }
    return out;
}

/* --- the terminal --- */

void console_init(struct console *console, FILE *out)
{
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    bool dumb = term == NULL || strcmp(term, "dumb") == 0;

    memset(console, 0, sizeof(*console));
    console->out = out;
    console->live = isatty(fileno(out)) && !dumb;
    console->colour = console->live && (no_colour == NULL || no_colour[0] == '\0');
}

void console_clear(struct console *console)
{
    if (console->drawn)
        fputs("\r\033[K", console->out);
    console->drawn = false;
    fflush(console->out);
}

static void redraw(struct console *console)
{
    if (!console->live || console->status[0] == '\0')
        return;
    fprintf(console->out, "\r%s\033[K", console->status);
    console->drawn = true;
    fflush(console->out);
}

void console_print(struct console *console, const char *format, ...)
{
    va_list args;

    console_clear(console);
    va_start(args, format);
    vfprintf(console->out, format, args);
    va_end(args);
    fputc('\n', console->out);
    redraw(console);
    fflush(console->out);
}

void console_row(struct console *console, const struct console_row *row)
{
    char line[CONSOLE_LINE_MAX];

    console_print(console, "%s", console_format_row(line, row, console->colour));
}

void console_waiting(struct console *console, const char *waiting, uint64_t now_ms)
{
    if (waiting[0] == '\0') {
        console->waiting[0] = '\0';
        console->waiting_ms = 0;
        return;
    }
    if (console->waiting_ms == 0)
        console->waiting_ms = now_ms;
    if (now_ms - console->waiting_ms < CONSOLE_WAIT_MS || strcmp(waiting, console->waiting) == 0)
        return;
    snprintf(console->waiting, sizeof(console->waiting), "%s", waiting);
    console->waiting_ms = now_ms;
    console_print(console, "waiting for %s", waiting);
}

void console_status(struct console *console, const char *name, const struct run_status *status)
{
    struct winsize size = {0};

    if (!console->live) {
        console_waiting(console, status->waiting, clock_ms());
        return;
    }
    if (ioctl(fileno(console->out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        size.ws_col = 80;
    console_format_status(console->status, name, status, size.ws_col);
    redraw(console);
}
