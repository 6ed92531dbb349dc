#include "tools/stats.h"

#include <math.h>
#include <string.h>

#include "common/metrics/metrics.h"

#define NAME_WIDTH 30
#define CELL_WIDTH 21
#define CELL_MAX   48

/* --- cells ------------------------------------------------------------------- */

/* 1,234,567 for whole numbers, three or four significant digits for others. */
static void format_number(char *out, size_t size, double value)
{
    char digits[40];
    size_t length, used = 0;

    if (value != floor(value) || fabs(value) >= 1e15) {
        snprintf(out, size, fabs(value) >= 1000 ? "%.0f" : "%.4g", value);
        return;
    }
    snprintf(digits, sizeof(digits), "%.0f", fabs(value));
    length = strlen(digits);
    if (value < 0 && size > 1)
        out[used++] = '-';
    for (size_t i = 0; i < length && used + 2 < size; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
}

static void format_bytes(char *out, size_t size, double value)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;

    while (fabs(value) >= 1000 && unit + 1 < TD_LEN(units)) {
        value /= 1000;
        unit++;
    }
    snprintf(out, size, unit == 0 ? "%.0f %s" : "%.3g %s", value, units[unit]);
}

static void format_value(char *out, size_t size, const char *unit, double value)
{
    if (strcmp(unit, "B") == 0)
        format_bytes(out, size, value);
    else
        format_number(out, size, value);
}

static double member(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static void counter_cell(char *out, const struct metric_info *info, const cJSON *values, double total)
{
    char name[64], text[24], rate[20];
    double per_s;

    snprintf(name, sizeof(name), "%s_per_s", info->name);
    per_s = member(values, name);
    format_value(text, sizeof(text), info->unit, total);
    if (isfinite(per_s) && per_s > 0) {
        format_value(rate, sizeof(rate), info->unit, per_s >= 100 ? floor(per_s) : per_s);
        snprintf(out, CELL_MAX, "%s (%s/s)", text, rate);
    } else {
        snprintf(out, CELL_MAX, "%s", text);
    }
}

/* The text for a metric of one part; "" when it has none. */
static void metric_cell(char *out, const struct metric_info *info, const cJSON *values)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(values, info->name);

    out[0] = '\0';
    if (info->kind == METRIC_HISTOGRAM && cJSON_IsObject(item)) {
        double p50 = member(item, "p50"), p99 = member(item, "p99");

        if (isfinite(p50) && isfinite(p99))
            snprintf(out, CELL_MAX, "%.3g / %.3g", p50, p99);
    } else if (info->kind == METRIC_COUNTER && cJSON_IsNumber(item)) {
        counter_cell(out, info, values, item->valuedouble);
    } else if (info->kind == METRIC_GAUGE && cJSON_IsNumber(item)) {
        format_value(out, CELL_MAX, info->unit, item->valuedouble);
    }
}

/* --- the table ---------------------------------------------------------------- */

static const cJSON *values_of(const struct stats_part *part)
{
    return cJSON_GetObjectItemCaseSensitive(part->json, "metrics");
}

void stats_printable(char *text)
{
    for (; *text != '\0'; text++)
        if (*text < ' ' || *text > '~')
            *text = '?';
}

static void title_of(const struct stats_part *part, char *out, size_t size)
{
    const char *role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(part->json, "role"));
    double id = member(part->json, "id");

    if (role == NULL)
        role = part->where.role;
    if (!isfinite(id))
        id = part->where.id;
    if (strcmp(role, "learner") == 0 || id < 0)
        snprintf(out, size, "%.30s", role);
    else
        snprintf(out, size, "%.30s-%.0f", role, id);
    stats_printable(out);
}

/* Is there anything but absent values and zeros in this row? */
static bool row_worth_showing(const struct stats_run *run, const struct metric_info *info)
{
    for (int i = 0; i < run->count; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(values_of(&run->parts[i]), info->name);

        if (cJSON_IsObject(item) || (cJSON_IsNumber(item) && item->valuedouble != 0) ||
            (cJSON_IsNumber(item) && info->kind == METRIC_GAUGE))
            return true;
    }
    return false;
}

static void print_head(const struct stats_run *run, const int *columns, int count, FILE *out)
{
    char title[64];

    fprintf(out, "%-*s", NAME_WIDTH, "");
    for (int c = 0; c < count; c++) {
        title_of(&run->parts[columns[c]], title, sizeof(title));
        fprintf(out, "%*s", CELL_WIDTH, title);
    }
    fputc('\n', out);
}

static void print_row(const struct stats_run *run, const int *columns, int count,
                      const struct metric_info *info, FILE *out)
{
    char name[80], cell[CELL_MAX];

    if (strcmp(info->unit, "1") == 0 || strcmp(info->unit, "B") == 0)
        snprintf(name, sizeof(name), "  %s", info->name);
    else
        snprintf(name, sizeof(name), "  %s [%s]", info->name, info->unit);
    fprintf(out, "%-*s", NAME_WIDTH, name);
    for (int c = 0; c < count; c++) {
        metric_cell(cell, info, values_of(&run->parts[columns[c]]));
        fprintf(out, " %*s", CELL_WIDTH - 1, cell);
    }
    fputc('\n', out);
}

/* Of several tasks a line each: "; " divides what the learner says of them. */
static void print_tasks(const char *title, char *said, FILE *out)
{
    char *rest = said, *end;

    if (strstr(said, "; ") == NULL) {
        fprintf(out, "%s has tasks: %s\n", title, said);
        return;
    }
    fprintf(out, "%s has tasks:\n", title);
    for (; rest != NULL; rest = end == NULL ? NULL : end + 2) {
        if ((end = strstr(rest, "; ")) != NULL)
            *end = '\0';
        fprintf(out, "  %s\n", rest);
    }
}

/* "actor-0 waits: for parameters", for every part that says something. */
static void print_texts(const struct stats_run *run, FILE *out)
{
    static const struct {
        const char *name, *verb;
    } texts[] = {{"phase", "is"}, {"waiting", "waits for"}, {"bottleneck", "says"},
               {"damage", "met damage"}, {"tasks", "has tasks"}};
    char title[64], said[METRICS_LONG_MAX];

    for (int i = 0; i < run->count; i++) {
        title_of(&run->parts[i], title, sizeof(title));
        if (run->parts[i].json == NULL) {
            fprintf(out, "%s does not answer at %s (pid %d)\n", title, run->parts[i].where.stats,
                    (int)run->parts[i].where.pid);
            continue;
        }
        for (size_t t = 0; t < TD_LEN(texts); t++) {
            const char *text = cJSON_GetStringValue(
                cJSON_GetObjectItemCaseSensitive(values_of(&run->parts[i]), texts[t].name));

            if (text == NULL || text[0] == '\0')
                continue;
            if (strncmp(text, "waiting for ", 12) == 0) /* the verb says so */
                text += 12;
            snprintf(said, sizeof(said), "%s", text);
            stats_printable(said);
            if (strcmp(texts[t].name, "tasks") == 0)
                print_tasks(title, said, out);
            else
                fprintf(out, "%s %s: %s\n", title, texts[t].verb, said);
        }
    }
}

void stats_print_table(const struct stats_run *run, int width, FILE *out)
{
    int columns[STATS_PARTS_MAX], count = 0, answered = 0, room = (width - NAME_WIDTH) / CELL_WIDTH;
    const char *group = "";

    for (int i = 0; i < run->count; i++) {
        if (run->parts[i].json == NULL)
            continue;
        answered++;
        if (count < room)
            columns[count++] = i;
    }
    fprintf(out, "%s\n", run->name);
    if (count > 0)
        print_head(run, columns, count, out);
    for (int m = 0; count > 0 && m < METRIC_COUNT; m++) {
        const struct metric_info *info = metric_info((enum metric)m);

        if (info->kind == METRIC_TEXT || !row_worth_showing(run, info))
            continue;
        if (strcmp(group, metric_group((enum metric)m)) != 0)
            fprintf(out, "%s\n", group = metric_group((enum metric)m));
        print_row(run, columns, count, info, out);
    }
    if (answered > count)
        fprintf(out, "(%d more parts do not fit this width; --json has them all)\n", answered - count);
    print_texts(run, out);
}
