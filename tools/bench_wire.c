/*
 * bench_wire.c - messages between two loops, over ipc and over tcp on this machine's loopback.
 *
 *   round trip   one small message there and one back, one at a time
 *   rows         chunks of rows, acknowledged one by one, a few under way
 *   slices       requests for a batch of slices, two under way
 *
 * Nothing is stored or computed: this is what codec and sockets allow.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/net/post.h"
#include "common/net/process.h"
#include "common/store/row.h"
#include "common/util/clock.h"
#include "tools/bench.h"

#define OBS        24 /* walker */
#define ACTION     6
#define HORIZON    3
#define CHUNK_ROWS 64
#define TIMES_MAX  200000
#define STUCK_MS   10000u

static const struct row_schema schema = {OBS_STATE, OBS, ACTION};

/* The other end, on its own thread: answers everything. */
struct answerer {
    pthread_t thread;
    atomic_int ready, stop;
    char address[ADDRESS_MAX];
    post_t *post;
    enum port port;
    void *slices;      /* a batch of them */
    uint32_t batch;
    struct error err;
    int rc;
};

struct asker {
    loop_t *loop;
    post_t *post;
    struct peer peer;
    struct message message;
    int under_way;     /* messages sent and not answered */
    uint64_t answers, answered_ms;
    uint64_t sent_ns[8];
    double *times_ms;
    int times;
};

/* --- answering ---------------------------------------------------------------- */

static void answer(void *context, const struct peer *peer, const struct message *message)
{
    struct answerer *answerer = context;
    struct message reply = {.kind = message->kind, .run = message->run};

    switch (message->kind) {
    case MESSAGE_ROWS:
        reply.kind = MESSAGE_ACK;
        reply.ack.store = message->rows.store;
        reply.ack.epoch = message->rows.epoch;
        reply.ack.next = message->rows.first + message->rows.count;
        break;
    case MESSAGE_SAMPLE_REQUEST:
        reply.kind = MESSAGE_SLICES;
        reply.slices.id = message->sample_request.id;
        reply.slices.learner_epoch = message->sample_request.learner_epoch;
        reply.slices.count = message->sample_request.count;
        reply.slices.status.store = 1;
        reply.bulks = 1;
        reply.bulk[0] = (struct bulk){answerer->slices, row_slices_bytes(&schema, HORIZON, answerer->batch)};
        break;
    default:
        reply = *message;
    }
    post_send(answerer->post, peer, &reply);
}

static void *answer_all(void *context)
{
    struct answerer *answerer = context;
    struct post_options options = {
        .process = process_random_id(), .on_message = answer, .context = answerer};
    loop_t *loop = NULL;

    answerer->rc = loop_create(&loop, &answerer->err);
    if (answerer->rc == TD_OK)
        answerer->rc = post_open(&answerer->post, loop, &options, &answerer->err);
    if (answerer->rc == TD_OK)
        answerer->rc = post_bind(answerer->post, answerer->port, answerer->address, &answerer->err);
    if (answerer->rc == TD_OK)
        snprintf(answerer->address, sizeof(answerer->address), "%s",
                 post_address(answerer->post, answerer->port, address_is_ipc(answerer->address)));
    atomic_store(&answerer->ready, 1);
    while (answerer->rc == TD_OK && !atomic_load(&answerer->stop))
        loop_run_for(loop, 50);
    post_close(&answerer->post, 0);
    loop_destroy(&loop);
    return NULL;
}

static int start_answerer(struct answerer *answerer, enum port port, const char *address, uint32_t batch,
                          struct error *err)
{
    *answerer = (struct answerer){.port = port, .batch = batch};
    snprintf(answerer->address, sizeof(answerer->address), "%s", address);
    answerer->slices = calloc(1, row_slices_bytes(&schema, HORIZON, batch));
    if (answerer->slices == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (pthread_create(&answerer->thread, NULL, answer_all, answerer) != 0) {
        free(answerer->slices);
        return error_set(err, TD_EIO, "cannot start a thread");
    }
    while (!atomic_load(&answerer->ready))
        clock_sleep_ms(1);
    if (answerer->rc != TD_OK)
        *err = answerer->err;
    return answerer->rc;
}

static void stop_answerer(struct answerer *answerer)
{
    atomic_store(&answerer->stop, 1);
    pthread_join(answerer->thread, NULL);
    free(answerer->slices);
}

/* --- asking ------------------------------------------------------------------- */

/* Answers come in the order of the questions. */
static void ask(struct asker *asker)
{
    uint64_t number = asker->answers + (uint64_t)asker->under_way++;

    asker->sent_ns[number % TD_LEN(asker->sent_ns)] = clock_ns();
    post_send(asker->post, &asker->peer, &asker->message);
}

static void answered(void *context, const struct peer *peer, const struct message *message)
{
    struct asker *asker = context;
    uint64_t sent = asker->sent_ns[asker->answers % TD_LEN(asker->sent_ns)];

    (void)peer;
    (void)message;
    if (asker->times < TIMES_MAX)
        asker->times_ms[asker->times++] = (double)(clock_ns() - sent) * 1e-6;
    asker->answers++;
    asker->under_way--;
    asker->answered_ms = clock_ms();
    ask(asker);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Ask for `seconds` with `depth` questions under way; answers per second, or 0 when none came. */
static double run(struct asker *asker, int depth, double seconds)
{
    uint64_t start = clock_ns(), end = start + (uint64_t)(seconds * 1e9);

    asker->answered_ms = clock_ms();
    asker->answers = 0;
    asker->times = asker->under_way = 0;
    for (int i = 0; i < depth; i++)
        ask(asker);
    while (clock_ns() < end && clock_ms() < asker->answered_ms + STUCK_MS)
        loop_run_for(asker->loop, 50);
    return (double)asker->answers * 1e9 / (double)(clock_ns() - start);
}

static void fill_question(struct asker *asker, uint32_t kind, uint32_t batch, void *rows)
{
    size_t stride = row_stride(&schema);

    memset(&asker->message, 0, sizeof(asker->message));
    asker->message.kind = kind;
    asker->message.run = 1;
    if (kind == MESSAGE_ROWS) {
        asker->message.rows = (struct rows){.process = 1, .store = 1, .epoch = 1, .count = CHUNK_ROWS,
                                            .stride = (uint32_t)stride};
        asker->message.bulks = 1;
        asker->message.bulk[0] = (struct bulk){rows, CHUNK_ROWS * stride};
    } else if (kind == MESSAGE_SAMPLE_REQUEST) {
        asker->message.sample_request = (struct sample_request){.learner_epoch = 1, .id = 1, .count = batch};
    } else {
        asker->message.say_hello.learner_epoch = 1;
    }
}

struct measure {
    const char *variant;
    uint32_t kind;
    enum port port;
    int depth;
    double scale;     /* per answer */
    const char *unit;
};

static int measure_one(const struct bench_options *options, const struct measure *measure,
                       const char *address, struct asker *asker, struct error *err)
{
    static char rows[CHUNK_ROWS * 512];
    uint32_t batch = (uint32_t)options->config.batch_size;
    struct bench_result result = {.name = "wire", .unit = measure->unit};
    struct answerer answerer;
    char variant[64];
    double rate;
    int rc = start_answerer(&answerer, measure->port, address, batch, err);

    if (rc != TD_OK)
        return rc;
    asker->peer = (struct peer){.port = measure->port};
    fill_question(asker, measure->kind, batch, rows);
    rc = post_connect(asker->post, &asker->peer, answerer.address, err);
    if (rc == TD_OK) {
        run(asker, measure->depth, options->seconds * 0.1 + 0.05); /* connected and warm */
        post_disconnect(asker->post, &asker->peer);
        rc = post_connect(asker->post, &asker->peer, answerer.address, err);
    }
    if (rc == TD_OK) {
        rate = run(asker, measure->depth, options->seconds);
        post_disconnect(asker->post, &asker->peer);
        qsort(asker->times_ms, (size_t)asker->times, sizeof(double), compare_doubles);
        if (asker->times == 0)
            rc = error_set(err, TD_ETIMEOUT, "no answer over %s within %u s", answerer.address, STUCK_MS / 1000);
    }
    if (rc == TD_OK) {
        snprintf(variant, sizeof(variant), "%s over %s", measure->variant, address_is_ipc(address) ? "ipc" : "tcp");
        result.variant = variant;
        result.rate = rate * measure->scale;
        result.median_ms = asker->times_ms[asker->times / 2];
        result.p99_ms = asker->times_ms[(size_t)asker->times * 99 / 100];
        result.count = asker->times;
        bench_report(options, &result);
    }
    stop_answerer(&answerer);
    return rc;
}

static int measure_all(const struct bench_options *options, struct asker *asker, const char *folder,
                       struct error *err)
{
    const struct measure measures[] = {
        {"round trip", MESSAGE_SAY_HELLO, PORT_CONTROL, 1, 1, "messages/s"},
        {"rows", MESSAGE_ROWS, PORT_INGEST, 4, CHUNK_ROWS, "rows/s"},
        {"slices", MESSAGE_SAMPLE_REQUEST, PORT_SAMPLE, 2, (double)options->config.batch_size, "slices/s"},
    };
    char ipc[ADDRESS_MAX];
    int rc = TD_OK;

    for (size_t i = 0; i < TD_LEN(measures) && rc == TD_OK; i++) {
        snprintf(ipc, sizeof(ipc), "ipc://%s/%zu", folder, i);
        rc = measure_one(options, &measures[i], ipc, asker, err);
        if (rc == TD_OK)
            rc = measure_one(options, &measures[i], "tcp://127.0.0.1:*", asker, err);
    }
    return rc;
}

int bench_wire(const struct bench_options *options, struct error *err)
{
    struct post_options post = {.process = process_random_id(), .on_message = answered};
    char folder[] = "/tmp/tdmpc2-wire-XXXXXX";
    struct asker asker = {0};
    int rc = TD_ENOMEM;

    asker.times_ms = malloc(TIMES_MAX * sizeof(double));
    if (asker.times_ms == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (mkdtemp(folder) == NULL) {
        free(asker.times_ms);
        return error_set(err, TD_EIO, "cannot make a folder in /tmp");
    }
    post.context = &asker;
    rc = loop_create(&asker.loop, err);
    if (rc == TD_OK)
        rc = post_open(&asker.post, asker.loop, &post, err);
    if (rc == TD_OK)
        rc = measure_all(options, &asker, folder, err);
    post_close(&asker.post, 0);
    loop_destroy(&asker.loop);
    channel_shutdown();
    rmdir(folder);
    free(asker.times_ms);
    return rc;
}
