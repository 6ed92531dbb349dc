#include "common/metrics/prometheus.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "common/util/clock.h"
#include "common/util/version.h"

struct writer {
    char *out;
    size_t size, used;
    char labels[64]; /* role="shard",shard="0" */
};

static void put(struct writer *writer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct writer *writer, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(writer->out + writer->used, writer->size - writer->used, format, args);
    va_end(args);
    TD_ASSERT(length >= 0 && (size_t)length < writer->size - writer->used, "a snapshot needs more than %zu bytes",
              writer->size);
    writer->used += (size_t)length;
}

static void put_family(struct writer *writer, const char *name, const char *type, const char *sentence)
{
    /* Sentences are our own: neither backslash nor newline is in them (tested). */
    put(writer, "# HELP %s %s\n# TYPE %s %s\n", name, sentence, name, type);
}

static void put_value(struct writer *writer, const char *name, const char *label, double value)
{
    put(writer, "%s{%s%s} %.12g\n", name, writer->labels, label, value);
}

/* --- names --------------------------------------------------------------- */

static bool in_ms(enum metric metric)
{
    return strcmp(metric_info(metric)->unit, "ms") == 0;
}

/* Waiting times, wait_<reason>_ms: the length of the reason, 0 for other metrics. */
static int wait_reason(enum metric metric, const char **reason)
{
    const struct metric_info *info = metric_info(metric);
    size_t length = strlen(info->name);

    if (info->kind != METRIC_COUNTER || strncmp(info->name, "wait_", 5) != 0 || !in_ms(metric) || length <= 8)
        return 0;
    *reason = info->name + 5;
    return (int)length - 8; /* "wait_", "_ms" */
}

char *prometheus_name(enum metric metric, char out[PROMETHEUS_NAME_MAX])
{
    const struct metric_info *info = metric_info(metric);
    const char *unit = "", *total = info->kind == METRIC_COUNTER ? "_total" : "", *reason;
    int length = (int)strlen(info->name);

    out[0] = '\0';
    if (info->kind == METRIC_TEXT)
        return out;
    if (wait_reason(metric, &reason) > 0)
        length = 4;
    else if (length > 3 && strcmp(info->name + length - 3, "_ms") == 0)
        length -= 3;
    if (in_ms(metric) || strcmp(info->unit, "s") == 0)
        unit = "_seconds";
    snprintf(out, PROMETHEUS_NAME_MAX, "tdmpc2_%.*s%s%s", length, info->name, unit, total);
    return out;
}

/* --- families ------------------------------------------------------------- */

static void put_summary(struct writer *writer, metrics_t *metrics, enum metric metric, const char *name)
{
    double scale = in_ms(metric) ? 1e-3 : 1, sum;
    struct metrics_summary window;
    uint64_t count;

    metrics_summary(metrics, metric, &window);
    metrics_recorded(metrics, metric, &count, &sum);
    if (window.count > 0) {
        put_value(writer, name, ",quantile=\"0.5\"", window.p50 * scale);
        put_value(writer, name, ",quantile=\"0.99\"", window.p99 * scale);
        put_value(writer, name, ",quantile=\"1\"", window.max * scale);
    }
    put(writer, "%s_sum{%s} %.12g\n%s_count{%s} %llu\n", name, writer->labels, sum * scale, name, writer->labels,
        (unsigned long long)count);
}

/* All reasons of one part are one family, wherever they stand in the table. */
static void put_waits(struct writer *writer, metrics_t *metrics, const char *name)
{
    unsigned roles = metrics_owner(metrics)->roles;

    put_family(writer, name, "counter", "time this part waited, by reason");
    for (int i = 0; i < METRIC_COUNT; i++) {
        char label[64];
        const char *reason;
        int length = wait_reason((enum metric)i, &reason);

        if (length == 0 || (metric_info((enum metric)i)->roles & roles) == 0)
            continue;
        snprintf(label, sizeof(label), ",reason=\"%.*s\"", length, reason);
        put_value(writer, name, label, (double)metrics_total(metrics, (enum metric)i) * 1e-3);
    }
}

static void put_metric(struct writer *writer, metrics_t *metrics, enum metric metric)
{
    const struct metric_info *info = metric_info(metric);
    char name[PROMETHEUS_NAME_MAX];
    double scale = in_ms(metric) ? 1e-3 : 1, value;

    prometheus_name(metric, name);
    switch (info->kind) {
    case METRIC_COUNTER:
        put_family(writer, name, "counter", info->sentence);
        if (scale == 1)
            put(writer, "%s{%s} %llu\n", name, writer->labels, (unsigned long long)metrics_total(metrics, metric));
        else
            put_value(writer, name, "", (double)metrics_total(metrics, metric) * scale);
        return;
    case METRIC_GAUGE:
        value = metrics_value(metrics, metric);
        if (!isfinite(value))
            return;
        put_family(writer, name, "gauge", info->sentence);
        put_value(writer, name, "", value * scale);
        return;
    case METRIC_HISTOGRAM:
        put_family(writer, name, "summary", info->sentence);
        put_summary(writer, metrics, metric, name);
        return;
    case METRIC_TEXT:
        return;
    }
}

static void put_own(struct writer *writer, metrics_t *metrics, uint64_t now_ms)
{
    uint64_t started = metrics_started_ms(metrics);
    double up = now_ms > started ? (double)(now_ms - started) / 1000.0 : 0;
    char text[METRICS_TEXT_MAX];
    struct timespec cpu;

    put_family(writer, "tdmpc2_build_info", "gauge", "1, with the version of the program");
    put_value(writer, "tdmpc2_build_info", ",version=\"" TD_VERSION "\"", 1);
    put_family(writer, "tdmpc2_uptime_seconds", "gauge", "time since this process began");
    put_value(writer, "tdmpc2_uptime_seconds", "", up);
    put_family(writer, "tdmpc2_is_waiting", "gauge", "1 while this part waits for another, 0 while it works");
    put_value(writer, "tdmpc2_is_waiting", "", metrics_read_text(metrics, METRIC_waiting, text)[0] != '\0');
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0) {
        put_family(writer, "tdmpc2_cpu_seconds_total", "counter", "processor time of this process");
        put_value(writer, "tdmpc2_cpu_seconds_total", "", (double)cpu.tv_sec + (double)cpu.tv_nsec * 1e-9);
    }
}

size_t metrics_prometheus(metrics_t *metrics, uint64_t now_ms, char *out, size_t size)
{
    const struct metrics_owner *owner = metrics_owner(metrics);
    struct writer writer = {.out = out, .size = size};
    bool waits_done = false;
    const char *reason;

    if (owner->roles == METRIC_SHARD)
        snprintf(writer.labels, sizeof(writer.labels), "role=\"shard\",shard=\"%d\"", owner->id);
    else
        snprintf(writer.labels, sizeof(writer.labels), "role=\"%s\"", owner->role);
    put_own(&writer, metrics, now_ms);
    for (int i = 0; i < METRIC_COUNT; i++) {
        enum metric metric = (enum metric)i;
        char name[PROMETHEUS_NAME_MAX];

        if ((metric_info(metric)->roles & owner->roles) == 0)
            continue;
        if (wait_reason(metric, &reason) == 0) {
            put_metric(&writer, metrics, metric);
        } else if (!waits_done) {
            waits_done = true;
            put_waits(&writer, metrics, prometheus_name(metric, name));
        }
    }
    return writer.used;
}
