#include "common/net/exporter.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/metrics/prometheus.h"
#include "common/net/http.h"
#include "common/util/clock.h"

#define AGE_MAX 256 /* bytes of the lines that tell the snapshot's age */

struct exporter {
    struct http_socket socket;
    char address[ADDRESS_MAX];
    http_t *http;
    char text[PROMETHEUS_TEXT_MAX]; /* the loop's, being written */
    /* the snapshot, under the lock */
    pthread_mutex_t lock;
    char snapshot[PROMETHEUS_TEXT_MAX];
    size_t length;
    uint64_t taken_ms; /* 0: none yet */
};

/* --- the server's thread -------------------------------------------------------- */

static void answer_metrics(exporter_t *exporter, struct http_answer *out)
{
    uint64_t now = clock_ms(), taken;

    out->body = malloc(PROMETHEUS_TEXT_MAX + AGE_MAX);
    if (out->body == NULL)
        return;
    pthread_mutex_lock(&exporter->lock);
    memcpy(out->body, exporter->snapshot, exporter->length);
    out->length = exporter->length;
    taken = exporter->taken_ms;
    pthread_mutex_unlock(&exporter->lock);
    out->status = taken != 0 ? 200 : 503;
    out->length += (size_t)snprintf(out->body + out->length, AGE_MAX,
                                    "# HELP tdmpc2_snapshot_age_seconds time since the loop of this process left these values\n"
                                    "# TYPE tdmpc2_snapshot_age_seconds gauge\ntdmpc2_snapshot_age_seconds %.3f\n",
                                    now > taken ? (double)(now - taken) / 1000.0 : 0.0);
    out->type = PROMETHEUS_CONTENT_TYPE;
}

static void answer_health(exporter_t *exporter, struct http_answer *out)
{
    uint64_t taken;
    bool good;

    pthread_mutex_lock(&exporter->lock);
    taken = exporter->taken_ms;
    pthread_mutex_unlock(&exporter->lock);
    good = taken != 0 && clock_ms() - taken < EXPORTER_STALE_MS;
    out->status = good ? 200 : 503;
    out->type = "text/plain; charset=utf-8";
    out->body = strdup(good ? "ok\n" : "its loop does not turn\n");
    out->length = out->body != NULL ? strlen(out->body) : 0;
}

static void answer(void *context, const char *path, struct http_answer *out)
{
    if (strcmp(path, "/metrics") == 0)
        answer_metrics(context, out);
    else if (strcmp(path, "/healthz") == 0)
        answer_health(context, out);
}

/* --- the loop's -------------------------------------------------------------------- */

int exporter_open(exporter_t **out, const struct config *config, struct error *err)
{
    exporter_t *exporter;
    int rc;

    *out = NULL;
    if (config->metrics[0] == '\0')
        return TD_OK;
    exporter = calloc(1, sizeof(*exporter));
    if (exporter == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    pthread_mutex_init(&exporter->lock, NULL);
    rc = http_listen(&exporter->socket, config->metrics, config->insecure, config->metrics_token, err);
    if (rc != TD_OK) {
        exporter_close(&exporter);
        return rc;
    }
    snprintf(exporter->address, sizeof(exporter->address), "%s", exporter->socket.address);
    *out = exporter;
    return TD_OK;
}

int exporter_start(exporter_t *exporter, struct error *err)
{
    return exporter == NULL ? TD_OK : http_start(&exporter->http, &exporter->socket, answer, exporter, err);
}

void exporter_close(exporter_t **out)
{
    exporter_t *exporter = *out;

    if (exporter == NULL)
        return;
    http_stop(&exporter->http);
    http_unlisten(&exporter->socket);
    pthread_mutex_destroy(&exporter->lock);
    free(exporter);
    *out = NULL;
}

void exporter_update(exporter_t *exporter, metrics_t *metrics, uint64_t now_ms)
{
    size_t length;

    if (exporter == NULL)
        return;
    length = metrics_prometheus(metrics, now_ms, exporter->text, sizeof(exporter->text));
    pthread_mutex_lock(&exporter->lock); /* held by the other side for one memcpy */
    memcpy(exporter->snapshot, exporter->text, length);
    exporter->length = length;
    exporter->taken_ms = clock_ms();
    pthread_mutex_unlock(&exporter->lock);
}

const char *exporter_address(const exporter_t *exporter)
{
    return exporter == NULL ? "" : exporter->address;
}

void exporter_target(const exporter_t *exporter, const char *advertise, char out[ADDRESS_MAX])
{
    out[0] = '\0';
    if (exporter != NULL)
        http_target(exporter->address, advertise, out);
}

void exporter_for_child(const char *metrics, char out[ADDRESS_MAX])
{
    const char *colon = strrchr(metrics, ':');

    if (colon != NULL)
        snprintf(out, ADDRESS_MAX, "%.*s:0", (int)(colon - metrics), metrics);
    else
        snprintf(out, ADDRESS_MAX, "%s", metrics[0] != '\0' ? "0" : "");
}
