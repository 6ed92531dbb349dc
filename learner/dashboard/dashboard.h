/*
 * dashboard.h - the run as a page for a browser, when `dashboard=` asks for it.
 *
 *   /             the page; its script, style, uPlot and the published curves beside it, all inside this program
 *   /events       server-sent events, one a second: the metrics as the stats socket tells them, and the parts. A
 *                 stream of http.h, with its bounds; who finds all of them taken is given one event and asks again.
 *   /history.json how rates, lags and waits went since the run began (history.h)
 *   /eval.csv, /train.csv   the run's curves (tail.h)
 *   /config.yaml  the options
 *   /video.mp4    the newest evaluation's, with ranges
 *
 * The loop leaves a snapshot once a second; everything else happens on the server's thread. No path is made
 * from what a client says. Beyond loopback whoever asks must show the token of RUN/dashboard.token, which is
 * made here, once as ?token= and then by a cookie.
 *
 * Owns:    the HTTP server, the snapshot.
 * Borrows: the options' text, until dashboard_close.
 * Thread:  the loop's.
 */
#ifndef TD_LEARNER_DASHBOARD_H
#define TD_LEARNER_DASHBOARD_H

#include "common/metrics/metrics.h"
#include "common/net/address.h"
#include "common/util/config.h"
#include "learner/coordinator.h"

#define DASHBOARD_PARTS 256  /* told of one by one */

typedef struct dashboard dashboard_t;

/*
 * Listen as config->dashboard says, before anything is given up (confine.h) and before anything else has begun;
 * *out NULL when it is empty. TD_OK; what http_listen says.
 */
int dashboard_open(dashboard_t **out, const struct config *config, struct error *err);

/*
 * Serve what is in run_dir, with the options as text; history and curves begin with what an earlier life wrote. With NULL nothing
 * happens, here and below. TD_OK, TD_ENOMEM; TD_EIO, TD_EINVAL: also when the token cannot be
 * written there, or others may read it.
 */
int dashboard_start(dashboard_t *dashboard, const char *run_dir, const char *options, size_t length, double repeat,
                    struct error *err);
void dashboard_close(dashboard_t **dashboard);

/* The next snapshot, at this second of the run. */
void dashboard_update(dashboard_t *dashboard, metrics_t *metrics, const struct coordinator_member *members, int count,
                      uint64_t now_ms, double run_s);

/* Where others find it (http_target), "" without. */
void dashboard_target(const dashboard_t *dashboard, const char *advertise, char out[ADDRESS_MAX]);

/* HOST:PORT as bound; the file with the token, "" when none is asked for. */
const char *dashboard_address(const dashboard_t *dashboard);
const char *dashboard_token_file(const dashboard_t *dashboard);

#endif
