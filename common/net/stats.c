#include "common/net/stats.h"

#include <stdlib.h>

#include "common/net/process.h"

#define QUESTION_MAX 1024 /* bytes; its text does not matter */
#define TICK_MS 1000

struct stats {
    loop_t *loop;
    metrics_t *metrics;
    channel_t *answer, *publish; /* REP; PUB or NULL */
    channel_t *network;          /* REP over tcp, or NULL */
    loop_timer_t *timer;
    exporter_t *exporter;        /* or NULL */
    void (*refresh)(void *context);
    void *context;
    char json[METRICS_JSON_MAX];
};

/* Gauges that are set when somebody asks. */
static void refresh(stats_t *stats)
{
    metrics_set(stats->metrics, METRIC_resident_bytes, (double)process_resident_bytes());
    if (stats->refresh != NULL)
        stats->refresh(stats->context);
}

static size_t snapshot(stats_t *stats)
{
    refresh(stats);
    return metrics_json(stats->metrics, loop_now_ms(stats->loop), stats->json, sizeof(stats->json));
}

static void answer(stats_t *stats, channel_t *channel)
{
    struct channel_part part = {.bytes = stats->json, .length = snapshot(stats)};

    channel_send(channel, 0, &part, 1);
}

static void question_came(void *context, uint64_t peer, const struct channel_frame *frames, int count)
{
    stats_t *stats = context;

    (void)peer;
    (void)frames;
    (void)count;
    answer(stats, stats->answer);
}

static void network_question_came(void *context, uint64_t peer, const struct channel_frame *frames, int count)
{
    stats_t *stats = context;

    (void)peer;
    (void)frames;
    (void)count;
    answer(stats, stats->network);
}

static void second_passed(void *context)
{
    stats_t *stats = context;
    struct channel_part part = {.bytes = stats->json};

    metrics_tick(stats->metrics, loop_now_ms(stats->loop));
    if (stats->exporter != NULL) {
        refresh(stats);
        exporter_update(stats->exporter, stats->metrics, loop_now_ms(stats->loop));
    }
    if (stats->publish == NULL)
        return;
    part.length = snapshot(stats);
    channel_send(stats->publish, 0, &part, 1);
}

static int open_channel(channel_t **out, stats_t *stats, enum channel_pattern pattern,
                        const char *address, const struct stats_options *given, struct error *err)
{
    struct channel_options options = {
        .name = "stats",
        .pattern = pattern,
        .max_message = QUESTION_MAX,
        .insecure = given->insecure,
        .guard = given->guard,
        .on_message = pattern != CHANNEL_REP ? NULL : out == &stats->network ? network_question_came : question_came,
        .context = stats,
    };
    int rc = channel_open(out, stats->loop, &options, err);

    return rc != TD_OK ? rc : channel_bind(*out, address, err);
}

int stats_open(stats_t **out, loop_t *loop, metrics_t *metrics, const struct stats_options *options,
               struct error *err)
{
    stats_t *stats = calloc(1, sizeof(*stats));
    int rc = TD_ENOMEM;

    *out = NULL;
    if (stats == NULL)
        goto fail;
    stats->loop = loop;
    stats->metrics = metrics;
    stats->refresh = options->refresh;
    stats->context = options->context;
    stats->exporter = options->exporter;
    rc = open_channel(&stats->answer, stats, CHANNEL_REP, options->address, options, err);
    if (rc == TD_OK && options->publish_address != NULL)
        rc = open_channel(&stats->publish, stats, CHANNEL_PUB, options->publish_address, options, err);
    if (rc == TD_OK && options->network_address != NULL && options->guard != NULL)
        rc = open_channel(&stats->network, stats, CHANNEL_REP, options->network_address, options, err);
    if (rc == TD_OK)
        rc = loop_timer_start(&stats->timer, loop, TICK_MS, TICK_MS, second_passed, stats);
    if (rc != TD_OK)
        goto fail;
    if (stats->exporter != NULL)
        exporter_update(stats->exporter, metrics, loop_now_ms(loop));
    *out = stats;
    return TD_OK;

fail:
    if (rc == TD_ENOMEM)
        error_set(err, rc, "out of memory for the stats socket");
    stats_close(&stats);
    return rc;
}

void stats_close(stats_t **out)
{
    stats_t *stats = *out;

    if (stats == NULL)
        return;
    loop_timer_close(&stats->timer);
    channel_close(&stats->answer);
    channel_close(&stats->publish);
    channel_close(&stats->network);
    free(stats);
    *out = NULL;
}

const char *stats_address(const stats_t *stats)
{
    return channel_address(stats->answer);
}

const char *stats_network_address(const stats_t *stats)
{
    return stats->network == NULL ? "" : channel_address(stats->network);
}
