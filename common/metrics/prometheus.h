/*
 * prometheus.h - the metrics in Prometheus' text format, version 0.0.4.
 *
 * The same registry as the stats socket, under names made from metrics.def: `tdmpc2_` before, base units
 * (seconds for ms, bytes), `_total` behind counters. Waiting times are one family with a label `reason`;
 * histograms are summaries with the quantiles of the last minute and sums over the life of the process.
 * Of the texts only whether the part waits is told: sentences would be a new series each.
 *
 * Labels: role, and shard of a shard. Actors are told apart by Prometheus' own `instance`.
 *
 * Thread:  the loop's.
 * Source:  prometheus.io/docs/instrumenting/exposition_formats, practices/naming.
 */
#ifndef TD_METRICS_PROMETHEUS_H
#define TD_METRICS_PROMETHEUS_H

#include "common/metrics/metrics.h"

#define PROMETHEUS_TEXT_MAX 32768 /* no snapshot is longer */
#define PROMETHEUS_NAME_MAX 96

#define PROMETHEUS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Everything the part has, into out. Gauges that were never set are left out. Returns the length. */
size_t metrics_prometheus(metrics_t *metrics, uint64_t now_ms, char *out, size_t size);

/*
 * The name that a metric has there, the quantity's label left out: tdmpc2_update_seconds, tdmpc2_updates_total,
 * tdmpc2_wait_seconds_total. "" for texts. Returns out. For the documentation.
 */
char *prometheus_name(enum metric metric, char out[PROMETHEUS_NAME_MAX]);

#endif
