#include "common/metrics/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/metrics/prometheus.h"
#include "common/util/clock.h"

#define TICKS 11                 /* snapshots of the counters: ten seconds between first and last */
#define TURN_MS 30000u           /* a histogram shows this half minute and the one before */
#define PARTS 8u                 /* buckets per doubling */
#define BUCKETS (62u * PARTS)
#define RESOLUTION 1e6           /* bucket steps per unit: nanoseconds for milliseconds */

static const struct metric_info table[METRIC_COUNT] = {
#define LEARNER METRIC_LEARNER
#define SHARD METRIC_SHARD
#define ACTOR METRIC_ACTOR
#define EVERY METRIC_EVERY
#define GROUP(title)
#define COUNTER(name, unit, roles, sentence)                                                       \
    [METRIC_##name] = {#name, unit, sentence, METRIC_COUNTER, roles},
#define GAUGE(name, unit, roles, sentence)                                                         \
    [METRIC_##name] = {#name, unit, sentence, METRIC_GAUGE, roles},
#define HISTOGRAM(name, unit, roles, sentence)                                                     \
    [METRIC_##name] = {#name, unit, sentence, METRIC_HISTOGRAM, roles},
#define TEXT(name, roles, sentence) [METRIC_##name] = {#name, "", sentence, METRIC_TEXT, roles},
#include "common/metrics/metrics.def"
#undef GROUP
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
#undef TEXT
};

/* The group headings and the first metric after each. */
static const struct {
    const char *title;
    int before; /* the number of rows above */
} groups[] = {
#define GROUP(title) {title, -1},
#define COUNTER(name, unit, roles, sentence) {NULL, METRIC_##name},
#define GAUGE(name, unit, roles, sentence) {NULL, METRIC_##name},
#define HISTOGRAM(name, unit, roles, sentence) {NULL, METRIC_##name},
#define TEXT(name, roles, sentence) {NULL, METRIC_##name},
#include "common/metrics/metrics.def"
#undef GROUP
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
#undef TEXT
};

struct window {
    atomic_ullong buckets[BUCKETS];
    atomic_ullong count, sum, max; /* in steps of 1 / RESOLUTION */
};

struct histogram {
    atomic_uint turn; /* windows[turn & 1] is being filled, the other is the one before */
    struct window windows[2];
    atomic_ullong past_count, past_sum; /* of windows that were emptied */
};

struct metrics {
    struct metrics_owner owner;
    char role[16];
    uint64_t started_ms, turned_ms;
    atomic_ullong cells[METRIC_COUNT]; /* a counter's total; a gauge's bits, 0 is +0.0 */
    atomic_bool set[METRIC_COUNT];
    struct histogram *histograms[METRIC_COUNT];
    pthread_mutex_t text_mutex;
    char *texts[METRIC_COUNT];
    uint64_t tick_ms[TICKS]; /* a ring; ticks - 1 is the newest */
    uint64_t tick_totals[TICKS][METRIC_COUNT];
    unsigned ticks;
};

/* --- the table ------------------------------------------------------------ */

static const char *group_of(int metric)
{
    const char *title = "";

    for (size_t i = 0; i < TD_LEN(groups); i++) {
        if (groups[i].title != NULL)
            title = groups[i].title;
        else if (groups[i].before == metric)
            break;
    }
    return title;
}

const struct metric_info *metric_info(enum metric metric)
{
    TD_ASSERT((int)metric >= 0 && metric < METRIC_COUNT, "metric %d", (int)metric);
    return &table[metric];
}

const char *metric_group(enum metric metric)
{
    TD_ASSERT((int)metric >= 0 && metric < METRIC_COUNT, "metric %d", (int)metric);
    return group_of((int)metric);
}

int metric_find(const char *name)
{
    for (int i = 0; i < METRIC_COUNT; i++)
        if (strcmp(table[i].name, name) == 0)
            return i;
    return -1;
}

static size_t text_max(enum metric metric)
{
    return metric == METRIC_tasks ? METRICS_LONG_MAX : METRICS_TEXT_MAX;
}

/* --- life ------------------------------------------------------------------ */

int metrics_create(metrics_t **out, const struct metrics_owner *owner)
{
    metrics_t *metrics = calloc(1, sizeof(*metrics));

    *out = NULL;
    if (metrics == NULL)
        return TD_ENOMEM;
    pthread_mutex_init(&metrics->text_mutex, NULL);
    metrics->owner = *owner;
    snprintf(metrics->role, sizeof(metrics->role), "%s", owner->role);
    metrics->owner.role = metrics->role;
    metrics->started_ms = metrics->turned_ms = clock_ms();
    metrics->tick_ms[0] = metrics->started_ms;
    metrics->ticks = 1;
    for (int i = 0; i < METRIC_COUNT; i++) {
        if ((table[i].roles & owner->roles) == 0)
            continue;
        if (table[i].kind == METRIC_HISTOGRAM)
            metrics->histograms[i] = calloc(1, sizeof(*metrics->histograms[i]));
        else if (table[i].kind == METRIC_TEXT)
            metrics->texts[i] = calloc(1, text_max((enum metric)i));
        else
            continue;
        if (metrics->histograms[i] == NULL && metrics->texts[i] == NULL) {
            metrics_destroy(&metrics);
            return TD_ENOMEM;
        }
    }
    *out = metrics;
    return TD_OK;
}

void metrics_destroy(metrics_t **out)
{
    metrics_t *metrics = *out;

    if (metrics == NULL)
        return;
    for (int i = 0; i < METRIC_COUNT; i++) {
        free(metrics->histograms[i]);
        free(metrics->texts[i]);
    }
    pthread_mutex_destroy(&metrics->text_mutex);
    free(metrics);
    *out = NULL;
}

void metrics_set_owner(metrics_t *metrics, int id, uint64_t run_id)
{
    if (metrics == NULL)
        return;
    metrics->owner.id = id;
    metrics->owner.run_id = run_id;
}

/* --- updates --------------------------------------------------------------- */

static void check(const metrics_t *metrics, enum metric metric, enum metric_kind kind)
{
    TD_ASSERT((int)metric >= 0 && metric < METRIC_COUNT, "metric %d", (int)metric);
    TD_ASSERT(table[metric].kind == kind, "%s is not of kind %d", table[metric].name, (int)kind);
    TD_ASSERT((table[metric].roles & metrics->owner.roles) != 0, "%s is not a metric of role %s",
              table[metric].name, metrics->role);
}

void metrics_add(metrics_t *metrics, enum metric metric, uint64_t count)
{
    if (metrics == NULL)
        return;
    check(metrics, metric, METRIC_COUNTER);
    atomic_fetch_add_explicit(&metrics->cells[metric], count, memory_order_relaxed);
}

void metrics_set(metrics_t *metrics, enum metric metric, double value)
{
    uint64_t bits;

    if (metrics == NULL)
        return;
    check(metrics, metric, METRIC_GAUGE);
    memcpy(&bits, &value, sizeof(bits));
    atomic_store_explicit(&metrics->cells[metric], bits, memory_order_relaxed);
    atomic_store_explicit(&metrics->set[metric], true, memory_order_release);
}

/* Buckets 0..7 hold one step each; from there on eight share a doubling. */
static unsigned bucket_of(uint64_t steps)
{
    unsigned top, bucket;

    if (steps < PARTS)
        return (unsigned)steps;
    top = 63u - (unsigned)__builtin_clzll(steps);
    bucket = (top - 2) * PARTS + (unsigned)((steps >> (top - 3)) & (PARTS - 1));
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The middle of a bucket, in steps. */
static double bucket_middle(unsigned bucket)
{
    unsigned shift;

    if (bucket < PARTS)
        return bucket;
    shift = bucket / PARTS - 1;
    return ldexp((double)(PARTS + bucket % PARTS) + 0.5, (int)shift);
}

void metrics_record(metrics_t *metrics, enum metric metric, double value)
{
    struct histogram *histogram;
    struct window *window;
    unsigned long long steps, seen;

    if (metrics == NULL)
        return;
    check(metrics, metric, METRIC_HISTOGRAM);
    if (!(value >= 0)) /* a clock that went back, or NaN */
        value = 0;
    steps = value < 1e12 ? (unsigned long long)(value * RESOLUTION) : (unsigned long long)1e18;
    histogram = metrics->histograms[metric];
    window = &histogram->windows[atomic_load_explicit(&histogram->turn, memory_order_relaxed) & 1];
    atomic_fetch_add_explicit(&window->buckets[bucket_of(steps)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&window->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&window->sum, steps, memory_order_relaxed);
    seen = atomic_load_explicit(&window->max, memory_order_relaxed);
    while (seen < steps && !atomic_compare_exchange_weak_explicit(
                               &window->max, &seen, steps, memory_order_relaxed, memory_order_relaxed))
        ;
}

void metrics_text(metrics_t *metrics, enum metric metric, const char *format, ...)
{
    char text[METRICS_LONG_MAX];
    va_list args;

    if (metrics == NULL)
        return;
    check(metrics, metric, METRIC_TEXT);
    va_start(args, format);
    vsnprintf(text, text_max(metric), format, args);
    va_end(args);
    pthread_mutex_lock(&metrics->text_mutex);
    memcpy(metrics->texts[metric], text, strlen(text) + 1);
    pthread_mutex_unlock(&metrics->text_mutex);
}

/* --- windows --------------------------------------------------------------- */

static void turn_histogram(struct histogram *histogram)
{
    unsigned turn = atomic_load_explicit(&histogram->turn, memory_order_relaxed) + 1;
    struct window *window = &histogram->windows[turn & 1];

    for (unsigned i = 0; i < BUCKETS; i++)
        atomic_store_explicit(&window->buckets[i], 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->past_count, atomic_exchange_explicit(&window->count, 0, memory_order_relaxed),
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->past_sum, atomic_exchange_explicit(&window->sum, 0, memory_order_relaxed),
                              memory_order_relaxed);
    atomic_store_explicit(&window->max, 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->turn, turn, memory_order_relaxed);
}

void metrics_tick(metrics_t *metrics, uint64_t now_ms)
{
    unsigned slot = metrics->ticks++ % TICKS;

    metrics->tick_ms[slot] = now_ms;
    for (int i = 0; i < METRIC_COUNT; i++)
        if (table[i].kind == METRIC_COUNTER)
            metrics->tick_totals[slot][i] =
                atomic_load_explicit(&metrics->cells[i], memory_order_relaxed);
    if (now_ms - metrics->turned_ms < TURN_MS)
        return;
    metrics->turned_ms = now_ms;
    for (int i = 0; i < METRIC_COUNT; i++)
        if (metrics->histograms[i] != NULL)
            turn_histogram(metrics->histograms[i]);
}

uint64_t metrics_total(metrics_t *metrics, enum metric metric)
{
    check(metrics, metric, METRIC_COUNTER);
    return atomic_load_explicit(&metrics->cells[metric], memory_order_relaxed);
}

double metrics_rate(metrics_t *metrics, enum metric metric, uint64_t now_ms)
{
    unsigned oldest = metrics->ticks < TICKS ? 0 : metrics->ticks % TICKS;
    uint64_t then = metrics->tick_ms[oldest], total = metrics_total(metrics, metric);

    if (now_ms <= then)
        return 0;
    return (double)(total - metrics->tick_totals[oldest][metric]) * 1000.0 / (double)(now_ms - then);
}

double metrics_value(metrics_t *metrics, enum metric metric)
{
    uint64_t bits;
    double value;

    check(metrics, metric, METRIC_GAUGE);
    if (!atomic_load_explicit(&metrics->set[metric], memory_order_acquire))
        return NAN;
    bits = atomic_load_explicit(&metrics->cells[metric], memory_order_relaxed);
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* The value below which `share` of the `count` recorded ones lie. */
static double quantile(const uint64_t *buckets, uint64_t count, double share)
{
    uint64_t wanted = (uint64_t)ceil(share * (double)count), below = 0;

    for (unsigned i = 0; i < BUCKETS; i++)
        if ((below += buckets[i]) >= wanted && below > 0)
            return bucket_middle(i) / RESOLUTION;
    return NAN;
}

void metrics_summary(metrics_t *metrics, enum metric metric, struct metrics_summary *out)
{
    uint64_t buckets[BUCKETS], count = 0, max = 0;
    double sum = 0;
    struct histogram *histogram;

    check(metrics, metric, METRIC_HISTOGRAM);
    histogram = metrics->histograms[metric];
    memset(buckets, 0, sizeof(buckets));
    for (int w = 0; w < 2; w++) {
        struct window *window = &histogram->windows[w];
        uint64_t most = atomic_load_explicit(&window->max, memory_order_relaxed);

        for (unsigned i = 0; i < BUCKETS; i++)
            buckets[i] += atomic_load_explicit(&window->buckets[i], memory_order_relaxed);
        sum += (double)atomic_load_explicit(&window->sum, memory_order_relaxed);
        max = most > max ? most : max;
    }
    for (unsigned i = 0; i < BUCKETS; i++)
        count += buckets[i];
    *out = (struct metrics_summary){count, NAN, NAN, NAN, NAN};
    if (count == 0)
        return;
    out->mean = sum / (double)count / RESOLUTION;
    out->max = (double)max / RESOLUTION;
    out->p50 = fmin(quantile(buckets, count, 0.5), out->max);
    out->p99 = fmin(quantile(buckets, count, 0.99), out->max);
}

void metrics_recorded(metrics_t *metrics, enum metric metric, uint64_t *count, double *sum)
{
    const struct histogram *histogram;
    unsigned long long total, steps;

    check(metrics, metric, METRIC_HISTOGRAM);
    histogram = metrics->histograms[metric];
    total = atomic_load_explicit(&histogram->past_count, memory_order_relaxed);
    steps = atomic_load_explicit(&histogram->past_sum, memory_order_relaxed);
    for (int w = 0; w < 2; w++) {
        total += atomic_load_explicit(&histogram->windows[w].count, memory_order_relaxed);
        steps += atomic_load_explicit(&histogram->windows[w].sum, memory_order_relaxed);
    }
    *count = total;
    *sum = (double)steps / RESOLUTION;
}

char *metrics_read_text(metrics_t *metrics, enum metric metric, char *out)
{
    check(metrics, metric, METRIC_TEXT);
    pthread_mutex_lock(&metrics->text_mutex);
    memcpy(out, metrics->texts[metric], strlen(metrics->texts[metric]) + 1);
    pthread_mutex_unlock(&metrics->text_mutex);
    return out;
}

const struct metrics_owner *metrics_owner(const metrics_t *metrics)
{
    return &metrics->owner;
}

uint64_t metrics_started_ms(const metrics_t *metrics)
{
    return metrics->started_ms;
}

/* --- JSON ------------------------------------------------------------------ */

struct writer {
    char *out;
    size_t size, used;
    const char *comma;
};

static void put(struct writer *writer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void put(struct writer *writer, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(writer->out + writer->used, writer->size - writer->used, format, args);
    va_end(args);
    TD_ASSERT(length >= 0 && (size_t)length < writer->size - writer->used,
              "a snapshot needs more than %zu bytes", writer->size);
    writer->used += (size_t)length;
}

static void put_name(struct writer *writer, const char *name, const char *suffix)
{
    put(writer, "%s\"%s%s\":", writer->comma, name, suffix);
    writer->comma = ",";
}

/* Texts may quote what peers said: anything but plain ASCII becomes a question mark. */
static void put_text(struct writer *writer, const char *text)
{
    put(writer, "\"");
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            put(writer, "\\%c", *text);
        else
            put(writer, "%c", *text >= ' ' && *text <= '~' ? *text : '?');
    }
    put(writer, "\"");
}

static void put_histogram(struct writer *writer, metrics_t *metrics, enum metric metric)
{
    struct metrics_summary s;

    metrics_summary(metrics, metric, &s);
    if (s.count == 0)
        return;
    put_name(writer, table[metric].name, "");
    put(writer, "{\"count\":%llu,\"mean\":%.6g,\"p50\":%.6g,\"p99\":%.6g,\"max\":%.6g}",
        (unsigned long long)s.count, s.mean, s.p50, s.p99, s.max);
}

static void put_metric(struct writer *writer, metrics_t *metrics, enum metric metric, uint64_t now_ms)
{
    const char *name = table[metric].name;
    char text[METRICS_LONG_MAX];
    double value;

    switch (table[metric].kind) {
    case METRIC_COUNTER:
        put_name(writer, name, "");
        put(writer, "%llu", (unsigned long long)metrics_total(metrics, metric));
        put_name(writer, name, "_per_s");
        put(writer, "%.6g", metrics_rate(metrics, metric, now_ms));
        return;
    case METRIC_GAUGE:
        value = metrics_value(metrics, metric);
        if (!isfinite(value))
            return;
        put_name(writer, name, "");
        put(writer, "%.12g", value);
        return;
    case METRIC_HISTOGRAM:
        put_histogram(writer, metrics, metric);
        return;
    case METRIC_TEXT:
        put_name(writer, name, "");
        put_text(writer, metrics_read_text(metrics, metric, text));
        return;
    }
}

size_t metrics_json(metrics_t *metrics, uint64_t now_ms, char *out, size_t size)
{
    struct writer writer = {.out = out, .size = size, .comma = ""};
    const struct metrics_owner *owner = &metrics->owner;

    put(&writer, "{\"role\":\"%s\",\"id\":%d,\"run\":\"%016llx\",\"process\":\"%016llx\",\"pid\":%d,",
        owner->role, owner->id, (unsigned long long)owner->run_id, (unsigned long long)owner->process,
        (int)getpid());
    put(&writer, "\"time_ms\":%llu,\"uptime_s\":%.1f,\"metrics\":{", (unsigned long long)clock_wall_ms(),
        now_ms > metrics->started_ms ? (double)(now_ms - metrics->started_ms) / 1000.0 : 0.0);
    for (int i = 0; i < METRIC_COUNT; i++)
        if (table[i].roles & owner->roles)
            put_metric(&writer, metrics, (enum metric)i, now_ms);
    put(&writer, "}}");
    return writer.used;
}

/* --- documentation --------------------------------------------------------- */

static const char *kind_name(enum metric_kind kind)
{
    static const char *const names[] = {"counter", "gauge", "histogram", "text"};

    return names[kind];
}

static const char *roles_name(unsigned roles)
{
    static const char *const names[] = {"",      "learner",        "shard",        "learner, shard",
                                        "actor", "learner, actor", "shard, actor", "every part"};

    return names[roles & METRIC_EVERY];
}

void metrics_help(FILE *out)
{
    const char *last = "";

    for (int i = 0; i < METRIC_COUNT; i++) {
        const char *group = group_of(i);

        if (strcmp(group, last) != 0)
            fprintf(out, "%s%s\n", i == 0 ? "" : "\n", group);
        last = group;
        fprintf(out, "  %-20s %-9s %s\n", table[i].name, table[i].unit, table[i].sentence);
    }
}

void metrics_markdown(FILE *out)
{
    char prometheus[PROMETHEUS_NAME_MAX];

    fputs("| name | Prometheus | kind | unit | of | what it is |\n|---|---|---|---|---|---|\n", out);
    for (int i = 0; i < METRIC_COUNT; i++)
        fprintf(out, "| `%s` | %s%s%s | %s | %s | %s | %s |\n", table[i].name, table[i].kind == METRIC_TEXT ? "" : "`",
                prometheus_name((enum metric)i, prometheus), table[i].kind == METRIC_TEXT ? "" : "`",
                kind_name(table[i].kind), table[i].unit, roles_name(table[i].roles), table[i].sentence);
}
