/*
 * exporter.h - what a daemon shows over HTTP when `metrics=` asks for it.
 *
 *   /metrics   the metrics for Prometheus (common/metrics/prometheus.h)
 *   /healthz   200 while the daemon's loop turns, 503 once it has not for EXPORTER_STALE_MS
 *
 * The loop leaves a snapshot once a second; requests are served from it, on a thread of their own, and touch
 * neither the loop nor its sockets. How old the snapshot is stands in it as tdmpc2_snapshot_age_seconds.
 *
 * Owns:    the HTTP server, the snapshot.
 * Thread:  the loop's.
 */
#ifndef TD_NET_EXPORTER_H
#define TD_NET_EXPORTER_H

#include "common/metrics/metrics.h"
#include "common/net/address.h"
#include "common/util/config.h"

#define EXPORTER_STALE_MS 10000

typedef struct exporter exporter_t;

/*
 * Listen as the options say, before anything is given up (confine.h) and before anything else has begun; *out
 * NULL when `metrics=` is empty. TD_OK; what http_listen says.
 */
int exporter_open(exporter_t **out, const struct config *config, struct error *err);

/* Serve. With NULL nothing happens, here and below. TD_OK, TD_EIO, TD_ENOMEM. */
int exporter_start(exporter_t *exporter, struct error *err);
void exporter_close(exporter_t **exporter);

/* The next snapshot. */
void exporter_update(exporter_t *exporter, metrics_t *metrics, uint64_t now_ms);

/* HOST:PORT as bound, "" without. */
const char *exporter_address(const exporter_t *exporter);

/* Where others find it (http_target), "" without. */
void exporter_target(const exporter_t *exporter, const char *advertise, char out[ADDRESS_MAX]);

/* The `metrics=` of a part started beside one with this: the same host, a port of its own. "" for "". */
void exporter_for_child(const char *metrics, char out[ADDRESS_MAX]);

#endif
