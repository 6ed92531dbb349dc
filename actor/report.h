/*
 * report.h - what an actor says of itself: its session and its episodes as metrics.
 *
 * Borrows: the metrics.
 * Thread:  the loop's.
 */
#ifndef TD_ACTOR_REPORT_H
#define TD_ACTOR_REPORT_H

#include "actor/session.h"
#include "common/metrics/metrics.h"

#define REPORT_EPISODES 10 /* the mean return is taken over so many */
#define REPORT_CHUNKS   64 /* chunks of rows on their way whose time is taken */

struct report {
    metrics_t *metrics;
    uint64_t waited_ms[WAITING_LAST + 1]; /* as last reported */
    uint64_t episodes, pulls, pulled_bytes;
    /* the last episodes */
    double returns[REPORT_EPISODES];
    uint64_t returned;
    /* of each environment */
    struct report_stream {
        double reward; /* of the episode under way */
        /* chunks sent: rows before `end` of stream epoch `epoch` */
        struct report_chunk {
            uint64_t end, sent_ns;
        } chunks[REPORT_CHUNKS];
        uint64_t epoch;
        uint32_t first, count;
    } streams[WIRE_STREAMS_MAX];
};

void report_init(struct report *report, metrics_t *metrics);

/* A reset or a step of the environment was taken up; `first` for a reset. */
void report_step(struct report *report, uint32_t environment, const struct session_step *step, bool first);

/* An evaluation ended. */
void report_evaluation(struct report *report, const struct session_evaluation *evaluation);

/* Rows were sent, or acknowledged: for the time in between. */
void report_rows(struct report *report, const struct rows *rows, uint64_t now_ns);
void report_ack(struct report *report, const struct ack *ack, uint64_t now_ns);

/* Everything else, from what the session says of itself. */
void report_view(struct report *report, const struct session_view *view, uint64_t now_ms);

#endif
