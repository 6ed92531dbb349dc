#include "learner/dashboard/history.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learner/csv.h"

#define VALUE_TEXT 16 /* of a number with its comma */

static const char *const names[] = {
#define RATE(name) #name "_per_s",
#define VALUE(name) #name,
    HISTORY_COLUMNS(RATE, VALUE)
#undef RATE
#undef VALUE
};

void history_init(struct history *history)
{
    memset(history, 0, sizeof(*history));
    history->interval = 1;
    history->last = -1;
}

/* --- means over intervals --------------------------------------------------------- */

static void sum_clear(struct history *history)
{
    memset(&history->sum, 0, sizeof(history->sum));
    memset(history->counts, 0, sizeof(history->counts));
    history->rows = 0;
}

static float mean_of(float a, float b)
{
    return isnan(a) ? b : isnan(b) ? a : (a + b) / 2;
}

static void merge(struct history_row *into, const struct history_row *row)
{
    for (int column = 0; column < HISTORY_COUNT; column++)
        into->value[column] = mean_of(into->value[column], row->value[column]);
}

/* Intervals of twice the length: rows that now share one become their mean. */
static void halve(struct history *history)
{
    int kept = 0;

    history->interval *= 2;
    for (int i = 0; i < history->whole_count; i++) {
        struct history_row row = history->whole[i];

        row.time = floor(row.time / history->interval) * history->interval;
        if (kept == 0 || history->whole[kept - 1].time < row.time) {
            history->whole[kept++] = row;
            continue;
        }
        merge(&history->whole[kept - 1], &row);
    }
    history->whole_count = kept;
}

static struct history_row sum_mean(const struct history *history)
{
    struct history_row row = {.time = history->sum.time};

    for (int column = 0; column < HISTORY_COUNT; column++)
        row.value[column] = history->counts[column] == 0 ? NAN : history->sum.value[column] / (float)history->counts[column];
    return row;
}

static void sum_end(struct history *history)
{
    struct history_row row;

    if (history->rows == 0)
        return;
    while (history->whole_count == HISTORY_WHOLE)
        halve(history);
    row = sum_mean(history);
    row.time = floor(row.time / history->interval) * history->interval;
    if (history->whole_count > 0 && history->whole[history->whole_count - 1].time >= row.time)
        merge(&history->whole[history->whole_count - 1], &row);
    else
        history->whole[history->whole_count++] = row;
    sum_clear(history);
}

void history_push(struct history *history, const struct history_row *row, bool recent)
{
    double start = floor(row->time / history->interval) * history->interval;

    if (!(row->time > history->last) || !isfinite(row->time))
        return;
    history->last = row->time;
    if (recent)
        history->recent[history->recent_count++ % HISTORY_RECENT] = *row;
    if (history->rows > 0 && start > history->sum.time)
        sum_end(history);
    if (history->rows++ == 0)
        history->sum.time = floor(row->time / history->interval) * history->interval;
    for (int column = 0; column < HISTORY_COUNT; column++) {
        if (!isfinite(row->value[column]))
            continue;
        history->sum.value[column] += row->value[column];
        history->counts[column]++;
    }
}

void history_add(struct history *history, metrics_t *metrics, uint64_t now_ms, double time)
{
    struct history_row row = {.time = time};

#define RATE(name) row.value[HISTORY_##name] = (float)metrics_rate(metrics, METRIC_##name, now_ms);
#define VALUE(name) row.value[HISTORY_##name] = (float)metrics_value(metrics, METRIC_##name);
    HISTORY_COLUMNS(RATE, VALUE)
#undef RATE
#undef VALUE
    history_push(history, &row, true);
}

void history_restore(struct history *history, const char *train_csv, double repeat)
{
    const double *before = NULL;
    struct csv_data data;

    if (csv_load(&data, train_csv, NULL) != TD_OK)
        return;
    for (int i = 0; i < data.rows && data.columns > CSV_TRAIN_RATE; i++) {
        const double *line = data.values + (size_t)i * (size_t)data.columns;
        struct history_row row = {.time = line[CSV_TRAIN_TIME]};
        double steps = before == NULL ? 0 : line[CSV_TRAIN_STEP] - before[CSV_TRAIN_STEP];
        double updates = before == NULL ? 0 : line[CSV_TRAIN_UPDATES] - before[CSV_TRAIN_UPDATES];
        double seconds = before == NULL ? 0 : line[CSV_TRAIN_TIME] - before[CSV_TRAIN_TIME];

        if (before != NULL && seconds < history->interval)
            continue; /* several episodes at once say little each */
        for (int column = 0; column < HISTORY_COUNT; column++)
            row.value[column] = NAN;
        row.value[HISTORY_env_steps] = (float)(line[CSV_TRAIN_RATE] * repeat);
        if (seconds > 0 && updates >= 0)
            row.value[HISTORY_updates] = (float)(updates / seconds);
        if (steps > 0 && updates >= 0)
            row.value[HISTORY_ratio] = (float)(updates / steps);
        history_push(history, &row, false);
        before = line;
    }
    csv_release(&data);
}

/* --- as JSON --------------------------------------------------------------------------- */

static size_t write_row(char *out, const struct history_row *row)
{
    size_t used = (size_t)sprintf(out, "[%.6g", row->time);

    for (int column = 0; column < HISTORY_COUNT; column++)
        used += isfinite(row->value[column]) ? (size_t)sprintf(out + used, ",%.5g", row->value[column])
                                             : (size_t)sprintf(out + used, ",null");
    return used + (size_t)sprintf(out + used, "],");
}

/* The means as far as the samples do not reach, then these. */
char *history_json(const struct history *history, size_t *length)
{
    uint64_t first = history->recent_count > HISTORY_RECENT ? history->recent_count - HISTORY_RECENT : 0;
    size_t rows = (size_t)history->whole_count + (size_t)(history->recent_count - first) + 2, used;
    double from = history->recent_count > 0 ? history->recent[first % HISTORY_RECENT].time : INFINITY;
    char *out = malloc(sizeof(names) * VALUE_TEXT + 1024 + rows * (HISTORY_COUNT + 2) * VALUE_TEXT);

    if (out == NULL)
        return NULL;
    used = (size_t)sprintf(out, "{\"columns\":[\"time\"");
    for (size_t column = 0; column < TD_LEN(names); column++)
        used += (size_t)sprintf(out + used, ",\"%s\"", names[column]);
    used += (size_t)sprintf(out + used, "],\"rows\":[");
    for (int i = 0; i < history->whole_count; i++)
        if (history->whole[i].time + history->interval <= from)
            used += write_row(out + used, &history->whole[i]);
    if (history->recent_count == 0 && history->rows > 0) {
        struct history_row row = sum_mean(history);

        used += write_row(out + used, &row);
    }
    for (uint64_t i = first; i < history->recent_count; i++)
        used += write_row(out + used, &history->recent[i % HISTORY_RECENT]);
    used -= out[used - 1] == ',';
    *length = used + (size_t)sprintf(out + used, "]}\n");
    return out;
}
