#include "actor/report.h"

#include <string.h>

#include "common/net/process.h"

void report_init(struct report *report, metrics_t *metrics)
{
    memset(report, 0, sizeof(*report));
    report->metrics = metrics;
}

/* --- episodes --------------------------------------------------------------- */

void report_step(struct report *report, uint32_t environment, const struct session_step *step, bool first)
{
    struct report_stream *stream = &report->streams[environment];
    double sum = 0;
    uint64_t count;

    stream->reward = first ? 0 : stream->reward + (double)step->reward;
    if (first || (!step->terminated && !step->truncated))
        return;
    report->returns[report->returned++ % REPORT_EPISODES] = stream->reward;
    count = report->returned < REPORT_EPISODES ? report->returned : REPORT_EPISODES;
    for (uint64_t i = 0; i < count; i++)
        sum += report->returns[i];
    metrics_set(report->metrics, METRIC_episode_return, sum / (double)count);
}

void report_evaluation(struct report *report, const struct session_evaluation *evaluation)
{
    metrics_set(report->metrics, METRIC_eval_return, evaluation->reward);
    metrics_add(report->metrics, METRIC_episodes, evaluation->episodes);
}

/* --- rows on their way ------------------------------------------------------ */

void report_rows(struct report *report, const struct rows *rows, uint64_t now_ns)
{
    struct report_stream *stream = &report->streams[rows->environment];
    struct report_chunk *chunk;

    if (rows->epoch != stream->epoch)
        stream->count = 0;
    stream->epoch = rows->epoch;
    if (stream->count == REPORT_CHUNKS) { /* the oldest is not timed */
        stream->first = (stream->first + 1) % REPORT_CHUNKS;
        stream->count--;
    }
    chunk = &stream->chunks[(stream->first + stream->count++) % REPORT_CHUNKS];
    *chunk = (struct report_chunk){rows->first + rows->count, now_ns};
}

void report_ack(struct report *report, const struct ack *ack, uint64_t now_ns)
{
    struct report_stream *stream;

    if (ack->environment >= WIRE_STREAMS_MAX)
        return;
    stream = &report->streams[ack->environment];
    while (stream->count > 0 && ack->epoch == stream->epoch &&
           stream->chunks[stream->first].end <= ack->next) {
        metrics_record(report->metrics, METRIC_ack_ms,
                       (double)(now_ns - stream->chunks[stream->first].sent_ns) / 1e6);
        stream->first = (stream->first + 1) % REPORT_CHUNKS;
        stream->count--;
    }
}

/* --- the session ------------------------------------------------------------ */

/* What a wait counts as; METRIC_COUNT: it is none. */
static enum metric wait_metric(uint32_t waiting)
{
    switch (waiting) {
    case WAITING_LEARNER:
        return METRIC_wait_learner_ms;
    case WAITING_SHARD:
        return METRIC_wait_shard_ms;
    case WAITING_LIMIT:
    case WAITING_BURST:
        return METRIC_wait_credit_ms;
    case WAITING_PARAMETERS:
        return METRIC_wait_parameters_ms;
    case WAITING_ACKS:
        return METRIC_wait_outbox_ms;
    case WAITING_ENVIRONMENT:
        return METRIC_wait_environment_ms;
    case WAITING_TASK:
    case WAITING_TURN:
    case WAITING_WORK:
        return METRIC_wait_turn_ms;
    default:
        return METRIC_COUNT;
    }
}

/* Add what a count of the session has grown by. */
static void grow(struct report *report, enum metric metric, uint64_t *last, uint64_t now)
{
    if (now > *last) /* a wait that is not over is an estimate, and may shrink */
        metrics_add(report->metrics, metric, now - *last);
    if (now > *last)
        *last = now;
}

void report_view(struct report *report, const struct session_view *view, uint64_t now_ms)
{
    metrics_t *metrics = report->metrics;

    for (uint32_t i = 0; i <= WAITING_LAST; i++)
        if (wait_metric(i) != METRIC_COUNT)
            grow(report, wait_metric(i), &report->waited_ms[i], view->waited_ms[i]);
    grow(report, METRIC_episodes, &report->episodes, view->episodes);
    grow(report, METRIC_snapshots, &report->pulls, view->pulls);
    grow(report, METRIC_parameter_bytes, &report->pulled_bytes, view->pulled_bytes);
    metrics_set(metrics, METRIC_outbox_rows, (double)view->outbox_rows);
    metrics_set(metrics, METRIC_learner_epoch, (double)view->learner_epoch);
    if (view->version_epoch != 0) {
        metrics_set(metrics, METRIC_parameter_version, (double)view->version);
        metrics_set(metrics, METRIC_parameter_lag, (double)view->lag);
    }
    metrics_text(metrics, METRIC_phase, "%s", phase_name(view->phase));
    if (view->waiting == WAITING_NOTHING)
        metrics_text(metrics, METRIC_waiting, "%s", "");
    else
        metrics_text(metrics, METRIC_waiting, "%s for %llu s", waiting_name(view->waiting),
                     (unsigned long long)((now_ms - view->waiting_since_ms) / 1000));
    metrics_set(metrics, METRIC_resident_bytes, (double)process_resident_bytes());
}
