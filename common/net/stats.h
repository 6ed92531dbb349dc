/*
 * stats.h - the stats socket of a daemon: a REP that answers anything with the metrics as JSON, and a
 * PUB that sends them every second to whoever listens.
 *
 * Owns:    its channels and timer; it turns the window of the rates (metrics_tick).
 * Borrows: the metrics.
 * Thread:  the loop's.
 */
#ifndef TD_NET_STATS_H
#define TD_NET_STATS_H

#include "common/metrics/metrics.h"
#include "common/net/channel.h"
#include "common/net/exporter.h"
#include "common/net/loop.h"

typedef struct stats stats_t;

struct stats_options {
    const char *address;         /* where REP binds */
    const char *publish_address; /* where PUB binds; NULL: none */
    bool insecure;
    const char *network_address; /* with a guard: where another REP binds over tcp, for the viewer's key; or NULL */
    guard_t *guard;              /* borrowed */
    exporter_t *exporter;        /* borrowed: left a snapshot every second; or NULL */
    void (*refresh)(void *context); /* before each answer: set the gauges that are costly; or NULL */
    void *context;
};

int stats_open(stats_t **out, loop_t *loop, metrics_t *metrics, const struct stats_options *options,
               struct error *err);
void stats_close(stats_t **stats);

/* The address REP is bound to. */
const char *stats_address(const stats_t *stats);

/* The one over tcp, "" when there is none. */
const char *stats_network_address(const stats_t *stats);

#endif
