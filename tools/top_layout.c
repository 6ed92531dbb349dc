/* top_layout.c - what `tdmpc2 top` knows, as lines of a screen of some size. Pure. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "tools/console.h"
#include "tools/top.h"

/* --- pieces of text ------------------------------------------------------------ */

static void add(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void add(char *out, size_t size, const char *format, ...)
{
    size_t used = strlen(out);
    va_list args;

    va_start(args, format);
    vsnprintf(out + used, size - used, format, args);
    va_end(args);
}

static char *number(char out[32], double value)
{
    if (fabs(value) >= 10000)
        snprintf(out, 32, "%.0f", value);
    else
        snprintf(out, 32, fabs(value) >= 100 ? "%.0f" : fabs(value) >= 10 ? "%.1f" : "%.2f", value);
    return out;
}

static char *bytes(char out[32], double value)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;

    while (fabs(value) >= 999.5 && unit + 1 < TD_LEN(units)) {
        value /= 1000;
        unit++;
    }
    snprintf(out, 32, "%.*f %s", fabs(value) < 10 && unit > 0 ? 1 : 0, value, units[unit]);
    return out;
}

/* "12 s", "3 min", "2 h", "4 days" */
static char *span(char out[32], uint64_t ms)
{
    uint64_t s = ms / 1000;

    if (s < 120)
        snprintf(out, 32, "%llu s", (unsigned long long)s);
    else if (s < 7200)
        snprintf(out, 32, "%llu min", (unsigned long long)(s / 60));
    else if (s < 172800)
        snprintf(out, 32, "%llu h", (unsigned long long)(s / 3600));
    else
        snprintf(out, 32, "%llu days", (unsigned long long)(s / 86400));
    return out;
}

static uint64_t since(const struct top_part *part, uint64_t now_ms)
{
    return now_ms > part->since_ms ? now_ms - part->since_ms : 0;
}

/* --- curves ------------------------------------------------------------------- */

/* The mean of the values that fall into column c of `columns`. */
static double column_mean(const struct top_history *history, int c, int columns)
{
    int from = (int)((int64_t)c * history->count / columns), to = (int)((int64_t)(c + 1) * history->count / columns);
    double sum = 0;

    for (int i = from; i < to; i++)
        sum += history->values[i] / (to - from);
    return sum;
}

char *top_sparkline(char *out, size_t size, const struct top_history *history, int width, bool unicode)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const plain[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
    int columns = history->count < width ? history->count : width;
    double low = INFINITY, high = -INFINITY;

    out[0] = '\0';
    for (int c = 0; c < columns; c++) {
        double value = column_mean(history, c, columns);

        low = fmin(low, value);
        high = fmax(high, value);
    }
    for (int c = 0; c < columns && strlen(out) + 4 < size; c++) {
        double range = high - low, at = range > 0 ? (column_mean(history, c, columns) - low) / range : 0.5;
        int level = (int)fmin(fmax(at * 8, 0), 7);

        add(out, size, "%s", unicode ? blocks[level] : plain[level]);
    }
    return out;
}

/* --- lines ------------------------------------------------------------------- */

/* ASCII text cut to the screen's width. */
static void put(struct top_screen *screen, const struct top_view *view, enum top_tone tone, const char *text)
{
    int height = view->height < TOP_HEIGHT_MAX ? view->height : TOP_HEIGHT_MAX;
    int width = view->width < TOP_WIDTH_MAX ? view->width : TOP_WIDTH_MAX;
    struct top_line *line = &screen->lines[screen->count];

    if (screen->count >= height)
        return;
    snprintf(line->text, sizeof(line->text), "%.*s", width, text);
    line->tone = tone;
    screen->count++;
}

static void put_name(struct top_screen *screen, const struct top_view *view, const struct top *top)
{
    char text[FS_PATH_MAX + 64], up[64] = "";
    int room;

    if (isfinite(top->run.uptime_s))
        console_format_time(up, sizeof(up), top->run.uptime_s);
    snprintf(text, sizeof(text), "tdmpc2 top  %s", top->name);
    room = view->width - (int)strlen(text) - (int)strlen(up);
    if (up[0] != '\0' && room > 4)
        add(text, sizeof(text), "%*s%s", room - 3, "up ", up);
    put(screen, view, TOP_TITLE, text);
}

static void add_bar(char *out, size_t size, double progress, bool unicode)
{
    enum { CELLS = 24 };
    int full = (int)(progress * CELLS);

    for (int i = 0; i < CELLS; i++)
        add(out, size, "%s", i < full ? (unicode ? "█" : "#") : (unicode ? "░" : "."));
}

/* The bar is the one thing beside curves that may hold wide bytes: it comes only where it fits. */
static void put_progress(struct top_screen *screen, const struct top_view *view, const struct top *top)
{
    const struct top_run *run = &top->run;
    char text[512] = "", rest[256] = "", one[64], two[64];

    if (isnan(run->progress) && isnan(run->agent_steps))
        return;
    if (isfinite(run->progress))
        add(rest, sizeof(rest), "%.1f %%  ", fmin(fmax(run->progress, 0), 1) * 100);
    if (isfinite(run->agent_steps))
        add(rest, sizeof(rest), "%s", console_format_count(one, sizeof(one), run->agent_steps));
    if (isfinite(run->agent_steps) && isfinite(run->target_steps))
        add(rest, sizeof(rest), " of %s", console_format_count(two, sizeof(two), run->target_steps));
    if (isfinite(run->agent_steps))
        add(rest, sizeof(rest), " steps");
    if (isfinite(run->time_left_s))
        add(rest, sizeof(rest), "  %s left", console_format_time(one, sizeof(one), run->time_left_s));
    if (isfinite(run->progress) && view->width >= (int)strlen(rest) + 26) {
        int before = screen->count;

        put(screen, view, TOP_PLAIN, rest);
        if (screen->count == before)
            return;
        add_bar(text, sizeof(text), fmin(fmax(run->progress, 0), 1), view->unicode);
        add(text, sizeof(text), "  %s", rest);
        snprintf(screen->lines[before].text, sizeof(screen->lines[before].text), "%s", text);
        return;
    }
    put(screen, view, TOP_PLAIN, rest);
}

/* "before VALUE behind", when there is one. */
static void add_value(char *out, size_t size, const char *before, double value, const char *behind)
{
    char text[32];

    if (isfinite(value))
        add(out, size, "%s%s%s%s", out[0] != '\0' ? "  " : "", before, number(text, value), behind);
}

static void put_rates(struct top_screen *screen, const struct top_view *view, const struct top *top)
{
    const struct top_run *run = &top->run;
    char text[512] = "", target[64] = " updates a step", value[32];

    if (isfinite(run->target_ratio))
        snprintf(target, sizeof(target), " of %s updates a step", number(value, run->target_ratio));
    add_value(text, sizeof(text), "", run->updates_per_s, " updates/s");
    add_value(text, sizeof(text), "", run->env_steps_per_s, " environment steps/s");
    add_value(text, sizeof(text), "", run->ratio, target);
    add_value(text, sizeof(text), "return ", run->episode_return, "");
    add_value(text, sizeof(text), "evaluated ", run->eval_return, "");
    if (text[0] != '\0')
        put(screen, view, TOP_PLAIN, text);
}

static void put_waits(struct top_screen *screen, const struct top_view *view, const struct top *top)
{
    const struct top_run *run = &top->run;
    char text[512] = "";

    if (isfinite(run->wait_steps))
        add(text, sizeof(text), "the learner waits %.0f %% for steps", run->wait_steps * 100);
    if (text[0] != '\0' && isfinite(run->wait_samples))
        add(text, sizeof(text), ", %.0f %% for samples", run->wait_samples * 100);
    if (text[0] != '\0' && isfinite(run->wait_checkpoint) && run->wait_checkpoint >= 0.005)
        add(text, sizeof(text), ", %.0f %% for checkpoints", run->wait_checkpoint * 100);
    if (text[0] != '\0' && (int)(strlen(text) + strlen(run->bottleneck)) + 2 > view->width) {
        put(screen, view, TOP_PLAIN, text);
        text[0] = '\0';
    }
    if (text[0] != '\0' && run->bottleneck[0] != '\0')
        add(text, sizeof(text), ": ");
    add(text, sizeof(text), "%s", run->bottleneck);
    if (text[0] != '\0')
        put(screen, view, TOP_PLAIN, text);
}

/* Who is not there, when it is the one that all others wait for. */
static void put_absence(struct top_screen *screen, const struct top_view *view, const struct top *top, uint64_t now_ms)
{
    const struct top_part *learner = top_learner(top);
    char text[256], when[32];

    if (learner == NULL || learner->health == TOP_ANSWERS)
        return;
    span(when, since(learner, now_ms));
    if (learner->health == TOP_LEFT)
        snprintf(text, sizeof(text), "the learner left %s ago", when);
    else
        snprintf(text, sizeof(text), "the learner has not answered for %s", when);
    add(text, sizeof(text), "%s", learner->heard ? ": these are its last values; it is looked for every second"
                                                 : ": it is looked for every second");
    put(screen, view, TOP_BAD, text);
}

static void put_curve(struct top_screen *screen, const struct top_view *view, const char *name,
                      const struct top_history *history)
{
    char curve[3 * 120 + 8], limits[96], low_text[32], high_text[32];
    int width = view->width < TOP_WIDTH_MAX ? view->width : TOP_WIDTH_MAX, room, at = screen->count;
    double low = INFINITY, high = -INFINITY;

    if (history->count < 2)
        return;
    for (int i = 0; i < history->count; i++) {
        low = fmin(low, history->values[i]);
        high = fmax(high, history->values[i]);
    }
    snprintf(limits, sizeof(limits), "%s to %s, now ", number(low_text, low), number(high_text, high));
    add(limits, sizeof(limits), "%s", number(low_text, history->newest));
    room = width - 9 - (int)strlen(limits) - 2;
    if (room < 8)
        return;
    put(screen, view, TOP_GOOD, "");
    if (screen->count == at)
        return;
    top_sparkline(curve, sizeof(curve), history, room < 120 ? room : 120, view->unicode);
    snprintf(screen->lines[at].text, sizeof(screen->lines[at].text), "%-8s %s  %s", name, curve, limits);
}

/* --- parts ------------------------------------------------------------------- */

static const char *work_unit(const struct top_part *part)
{
    return strcmp(part->role, "learner") == 0  ? "updates/s"
           : strcmp(part->role, "replay") == 0 ? "rows/s"
                                               : "steps/s";
}

static const char *work_name(const struct top_part *part)
{
    return strcmp(part->role, "learner") == 0  ? "update"
           : strcmp(part->role, "replay") == 0 ? "commit"
                                               : "plan";
}

static void part_state(const struct top_part *part, uint64_t now_ms, char *out, size_t size)
{
    char when[32];

    if (part->health == TOP_ANSWERS)
        snprintf(out, size, "%s", part->phase[0] != '\0' ? part->phase : "running");
    else
        snprintf(out, size, "%s %s", part->health == TOP_LEFT ? "left" : "silent", span(when, since(part, now_ms)));
}

static void part_row(const struct top_part *part, uint64_t now_ms, char *out, size_t size)
{
    char state[80], rate[48] = "", lag[32] = "", work[96] = "", memory[32] = "", value[32], other[32];

    part_state(part, now_ms, state, sizeof(state));
    if (isfinite(part->rate))
        snprintf(rate, sizeof(rate), "%s %s", number(value, part->rate), work_unit(part));
    if (isfinite(part->lag))
        snprintf(lag, sizeof(lag), "%.0f", part->lag);
    if (isfinite(part->work_ms))
        snprintf(work, sizeof(work), "%s %s / %s ms", work_name(part), number(value, part->work_ms),
                 isfinite(part->work_p99_ms) ? number(other, part->work_p99_ms) : "-");
    if (isfinite(part->memory))
        bytes(memory, part->memory);
    snprintf(out, size, "%-13.13s %-14.14s %17.17s %6.6s %-22.22s %8.8s  %s%s%s", part->title, state, rate, lag, work,
             memory, part->damage[0] != '\0' ? "DAMAGE: " : "", part->damage[0] != '\0' ? part->damage : part->waiting,
             part->health != TOP_ANSWERS && !part->heard ? "has not answered yet" : "");
}

/* On a narrow screen: who, in what state, waiting for what. */
static void narrow_row(const struct top_part *part, uint64_t now_ms, char *out, size_t size)
{
    char state[80], rate[48] = "", value[32];

    part_state(part, now_ms, state, sizeof(state));
    if (isfinite(part->rate))
        snprintf(rate, sizeof(rate), "%s/s", number(value, part->rate));
    snprintf(out, size, "%-12.12s %-10.10s %9.9s  %s", part->title, state, rate, part->waiting);
}

static enum top_tone part_tone(const struct top_part *part)
{
    if (part->health != TOP_ANSWERS || part->damage[0] != '\0')
        return TOP_BAD;
    return part->waiting[0] != '\0' ? TOP_WARN : TOP_PLAIN;
}

#define NARROW 90

static void put_parts(struct top_screen *screen, const struct top_view *view, const struct top *top, int rows,
                      uint64_t now_ms)
{
    int first = view->scroll < top->count - rows ? view->scroll : top->count - rows;
    char text[1024];

    if (first < 0)
        first = 0;
    for (int i = first; i < top->count && i < first + rows; i++) {
        if (view->width < NARROW)
            narrow_row(&top->parts[i], now_ms, text, sizeof(text));
        else
            part_row(&top->parts[i], now_ms, text, sizeof(text));
        put(screen, view, part_tone(&top->parts[i]), text);
    }
    screen->hidden = top->count - rows > 0 ? top->count - rows : 0;
}

static void put_parts_head(struct top_screen *screen, const struct top_view *view)
{
    char text[256];

    if (view->width < NARROW)
        snprintf(text, sizeof(text), "%-12s %-10s %9s  %s", "PART", "STATE", "RATE", "WAITS FOR");
    else
        snprintf(text, sizeof(text), "%-13s %-14s %17s %6s %-22s %8s  %s", "PART", "STATE", "RATE", "LAG",
                 "WORK: MEDIAN / P99", "MEMORY", "WAITS FOR");
    put(screen, view, TOP_HEAD, text);
}

/* --- the log ------------------------------------------------------------------ */

static enum top_tone log_tone(const char *line)
{
    const char *message = strstr(line, "msg=");

    if (message != NULL && strstr(line, "level=error") != NULL && strstr(line, "level=error") < message)
        return TOP_BAD;
    if (message != NULL && strstr(line, "level=warn") != NULL && strstr(line, "level=warn") < message)
        return TOP_WARN;
    return TOP_DIM;
}

static void put_log(struct top_screen *screen, const struct top_view *view, const struct top *top, int rows)
{
    int count = top->log_count < rows ? top->log_count : rows;

    for (int i = top->log_count - count; i < top->log_count; i++) {
        const char *line = top->log[(top->log_first + i) % TOP_LOG_MAX];

        put(screen, view, log_tone(line), line);
    }
}

/* --- the screen ----------------------------------------------------------------- */

static void put_foot(struct top_screen *screen, const struct top_view *view)
{
    char text[128] = "q quits";

    if (screen->hidden > 0)
        add(text, sizeof(text), "   up, down: %d more parts", screen->hidden);
    put(screen, view, TOP_DIM, text);
}

void top_layout(const struct top *top, const struct top_view *view, uint64_t now_ms, struct top_screen *screen)
{
    int height = view->height < TOP_HEIGHT_MAX ? view->height : TOP_HEIGHT_MAX, left, rows;

    screen->count = screen->hidden = 0;
    put_name(screen, view, top);
    put_absence(screen, view, top, now_ms);
    put_progress(screen, view, top);
    put_rates(screen, view, top);
    put_waits(screen, view, top);
    if (height >= 16) {
        put_curve(screen, view, "returns", &top->returns);
        put_curve(screen, view, "eval", &top->evals);
    }
    if (height >= 12)
        put(screen, view, TOP_PLAIN, "");
    put_parts_head(screen, view);
    left = height - screen->count - 1; /* the foot */
    rows = top->count < left ? top->count : left;
    if (top->log_count > 0 && left >= 8 && rows > left - 2 - left / 3) /* some lines of the log at least */
        rows = left - 2 - left / 3;
    if (rows < 0)
        rows = 0;
    put_parts(screen, view, top, rows, now_ms);
    left = height - screen->count - 1;
    if (left >= 3 && top->log_count > 0) {
        put(screen, view, TOP_PLAIN, "");
        put(screen, view, TOP_HEAD, "LOG");
        put_log(screen, view, top, left - 2);
    }
    while (screen->count < height - 1)
        put(screen, view, TOP_PLAIN, "");
    put_foot(screen, view);
}

/* --- lines ------------------------------------------------------------------- */

void top_plain(const struct top *top, uint64_t now_ms, FILE *out)
{
    const struct top_view wide = {.width = TOP_WIDTH_MAX, .height = TOP_HEIGHT_MAX};
    struct top_screen head;
    char text[1024];

    head.count = head.hidden = 0;
    put_absence(&head, &wide, top, now_ms);
    put_rates(&head, &wide, top);
    put_waits(&head, &wide, top);
    fprintf(out, "%s", top->name);
    if (isfinite(top->run.progress))
        fprintf(out, "  %.1f %%", fmin(fmax(top->run.progress, 0), 1) * 100);
    for (int i = 0; i < head.count; i++)
        fprintf(out, "  %s", head.lines[i].text);
    fputc('\n', out);
    for (int i = 0; i < top->count; i++) {
        size_t length;

        part_row(&top->parts[i], now_ms, text, sizeof(text));
        for (length = strlen(text); length > 0 && text[length - 1] == ' ';)
            text[--length] = '\0';
        fprintf(out, "  %s\n", text);
    }
    fflush(out);
}
