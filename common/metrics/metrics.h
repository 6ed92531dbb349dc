/*
 * metrics.h - what a part counts and measures, and its JSON.
 *
 * One table, metrics.def, gives every metric; its rows become the constants METRIC_<name> below.
 *
 * Owns:    all its memory, taken at creation; updates never allocate.
 * Thread:  counters, gauges, histograms and texts may be updated from any thread (relaxed atomics, a
 *          lock for texts); rates, metrics_tick and metrics_json belong to the loop's.
 */
#ifndef TD_METRICS_METRICS_H
#define TD_METRICS_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/util/error.h"

#define METRICS_JSON_MAX 98304 /* no snapshot is longer */
#define METRICS_TEXT_MAX 2048  /* a short sentence */
#define METRICS_LONG_MAX 24576 /* `tasks`: a phrase of each */

enum metric {
#define GROUP(title)
#define COUNTER(name, unit, roles, sentence) METRIC_##name,
#define GAUGE(name, unit, roles, sentence) METRIC_##name,
#define HISTOGRAM(name, unit, roles, sentence) METRIC_##name,
#define TEXT(name, roles, sentence) METRIC_##name,
#include "common/metrics/metrics.def"
#undef GROUP
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
#undef TEXT
    METRIC_COUNT
};

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_TEXT };
enum metric_role { METRIC_LEARNER = 1, METRIC_SHARD = 2, METRIC_ACTOR = 4, METRIC_EVERY = 7 };

/* One row of the table. */
struct metric_info {
    const char *name;
    const char *unit;
    const char *sentence;
    enum metric_kind kind;
    unsigned roles; /* enum metric_role, joined */
};

const struct metric_info *metric_info(enum metric metric);

/* The heading it stands under. */
const char *metric_group(enum metric metric);

/* The metric of this name, or -1. */
int metric_find(const char *name);

typedef struct metrics metrics_t;

/* Who reports: kept in every snapshot. */
struct metrics_owner {
    const char *role;  /* "learner", "replay", "actor", "evaluator" */
    unsigned roles;    /* the metrics it has: METRIC_LEARNER, ... */
    int id;
    uint64_t process;  /* its random id */
    uint64_t run_id;
};

int metrics_create(metrics_t **out, const struct metrics_owner *owner);
void metrics_destroy(metrics_t **metrics);

/* A part learns its number and run when it joins. */
void metrics_set_owner(metrics_t *metrics, int id, uint64_t run_id);

/* Updates: of the kind that the table says, asserted; NULL metrics are allowed and do nothing. */
void metrics_add(metrics_t *metrics, enum metric metric, uint64_t count);  /* counter */
void metrics_set(metrics_t *metrics, enum metric metric, double value);    /* gauge */
void metrics_record(metrics_t *metrics, enum metric metric, double value); /* histogram */
void metrics_text(metrics_t *metrics, enum metric metric, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Once a second: turns the windows of rates (ten seconds) and histograms (a minute). */
void metrics_tick(metrics_t *metrics, uint64_t now_ms);

/* Read back, for console lines and tests. */
uint64_t metrics_total(metrics_t *metrics, enum metric metric);
double metrics_rate(metrics_t *metrics, enum metric metric, uint64_t now_ms); /* per second */
double metrics_value(metrics_t *metrics, enum metric metric);                 /* NAN when not set */

struct metrics_summary {
    uint64_t count;                /* in the window */
    double mean, p50, p99, max;    /* NAN when empty; quantiles to within 7 % */
};
void metrics_summary(metrics_t *metrics, enum metric metric, struct metrics_summary *out);

/* All that was ever recorded: how many, and their sum. Neither falls. */
void metrics_recorded(metrics_t *metrics, enum metric metric, uint64_t *count, double *sum);

/* A text as it stands; returns out [METRICS_TEXT_MAX], of the long one [METRICS_LONG_MAX]. */
char *metrics_read_text(metrics_t *metrics, enum metric metric, char *out);

/* Who reports, and since when (clock_ms). The loop's thread. */
const struct metrics_owner *metrics_owner(const metrics_t *metrics);
uint64_t metrics_started_ms(const metrics_t *metrics);

/*
 * One JSON object, one line, into out: {"role":"actor","id":3,"run":"8f2c...","process":"...",
 * "pid":123,"time_ms":1795476713123,"uptime_s":1.5,"metrics":{...}}. Gauges that were never set are left out, numbers are
 * finite. Returns the length (< METRICS_JSON_MAX).
 */
size_t metrics_json(metrics_t *metrics, uint64_t now_ms, char *out, size_t size);

/* The table for `tdmpc2 stats --help`, and as Markdown for the documentation. */
void metrics_help(FILE *out);
void metrics_markdown(FILE *out);

#endif
