#include "common/net/post.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/net/admission.h"
#include "common/util/clock.h"
#include "common/util/log.h"
#include "common/wire/codec.h"

#define PORTS 6      /* enum port begins at 1 */
#define LINES_MAX 72 /* a learner has one to each of its shards */
#define QUEUE_IN 16  /* messages of one peer that wait to be read: what is beyond them waits at the peer */
#define SLACK 4096   /* bytes that ZeroMQ's limit allows beyond the message's own */
#define LOOK_MS 500      /* between two looks at handshakes */
#define SAY_MS 30000     /* between two lines about the same one */
#define SILENCE_MS 10000 /* a question unanswered for so long is asked over a new connection */

/* One socket: bound (a port, over ipc or tcp) or connected (a port and an id). */
struct line {
    post_t *post;
    channel_t *channel;
    struct peer peer;            /* bound: port and local */
    char address[ADDRESS_MAX];
    uint64_t asked_ms;           /* connected: when the first message unanswered so far was sent; 0: none is */
    struct log_limit log_refused;
    bool dropped;                /* while a message that came over it was handled */
};

struct post {
    loop_t *loop;
    struct post_options options;
    codec_t *codec;
    struct line bound[PORTS][2]; /* [port][over ipc] */
    struct line *connected[LINES_MAX];
    int count;
    struct line *speaking;       /* while on_message runs: the line it came over */
    loop_timer_t *look;          /* from the first connection over tcp on */
    uint64_t unsent;
    uint32_t shard;              /* whose key must answer at ingest ports */
    struct log_limit log_malformed;
    uint8_t header[WIRE_HEADER_MAX];
};

static const char *port_name(uint32_t port)
{
    static const char *const names[PORTS] = {"?", "control", "ingest", "sample", "params", "announce"};

    return port < PORTS ? names[port] : names[0];
}

/* The longest frame that may arrive over this port. */
static size_t port_limit(uint32_t port, bool bound)
{
    switch (port) {
    case PORT_CONTROL:
        return WIRE_STATE_MAX + SLACK;
    case PORT_INGEST:
        return bound ? WIRE_ROWS_MAX + SLACK : WIRE_HEADER_MAX + SLACK;
    case PORT_SAMPLE:
        return bound ? WIRE_HEADER_MAX + SLACK : WIRE_SLICES_MAX + SLACK;
    case PORT_PARAMS:
        return bound ? WIRE_HEADER_MAX + SLACK : WIRE_CHUNK_BYTES + SLACK;
    default:
        return WIRE_HEADER_MAX + SLACK;
    }
}

/* Messages that wait for a peer that reads slowly: a chunk of parameters has 1 MiB, a Welcome the options. */
static int queue_out(uint32_t port, bool bound)
{
    if (!bound)
        return 256;
    return port == PORT_PARAMS ? 6 : port == PORT_CONTROL ? 64 : 256;
}

static void count(post_t *post, enum metric metric, uint64_t by)
{
    metrics_add(post->options.metrics, metric, by);
}

/* --- receiving --------------------------------------------------------------- */

/* A peer of another version is answered in a form that every version reads. */
static void refuse(struct line *line, const struct peer *peer, int code, const char *why)
{
    post_t *post = line->post;
    struct message answer;

    count(post, METRIC_messages_dropped, 1);
    if (log_allow(&post->log_malformed, 5000))
        log_warn("message dropped", "port=%s from=%016llx why=\"%s\" repeats=%u", port_name(peer->port),
                 (unsigned long long)peer->id, why, post->log_malformed.suppressed_last);
    if (code != TD_EFOREIGN || line != &post->bound[peer->port][peer->local])
        return;
    codec_refuse_version(&answer, post->options.run);
    post_send(post, peer, &answer);
}

/* What a key does not allow is not heard, and not answered. */
static bool admitted(struct line *line, const struct peer *peer, const struct message *message)
{
    post_t *post = line->post;
    char name[IDENTITY_NAME_MAX];
    struct identity who;
    const char *why;

    if (line != &post->bound[peer->port][peer->local] || !channel_speaker(line->channel, &who) ||
        (why = admission_refusal(&who, peer, message, post->options.lockstep)) == NULL)
        return true;
    count(post, METRIC_messages_dropped, 1);
    if (log_allow(&post->log_malformed, 5000))
        log_warn("message refused", "kind=%s port=%s from=%s why=\"%s\" repeats=%u", message_name(message->kind),
                 port_name(peer->port), identity_name(name, &who), why, post->log_malformed.suppressed_last);
    return false;
}

static void on_frames(void *context, uint64_t id, const struct channel_frame *frames, int count_)
{
    struct line *line = context;
    post_t *post = line->post;
    struct bulk bulks[CHANNEL_FRAMES];
    struct peer peer = line->peer;
    struct message message;
    struct error err = {0};
    uint64_t bytes = 0;
    int rc;

    if (id != 0) /* a ROUTER's; a DEALER's line has its own */
        peer.id = id;
    for (int i = 0; i < count_; i++) {
        bulks[i] = (struct bulk){frames[i].bytes, frames[i].length};
        bytes += frames[i].length;
    }
    count(post, METRIC_received_bytes, bytes);
    line->asked_ms = 0;
    rc = codec_decode(post->codec, bulks, (size_t)count_, &message, &err);
    if (rc != TD_OK) {
        refuse(line, &peer, rc, err.text);
        return;
    }
    if (!admitted(line, &peer, &message))
        return;
    post->speaking = line;
    post->options.on_message(post->options.context, &peer, &message);
    post->speaking = NULL;
    if (line->dropped)
        free(line);
}

channel_blob_t *post_take(post_t *post, int bulk)
{
    TD_ASSERT(post->speaking != NULL && post->speaking->channel != NULL, "only inside on_message");
    return channel_take(post->speaking->channel, 1 + bulk);
}

/* What the channel threw away before it was a message: no identity, too many frames, no key that is allowed. */
static void on_dropped(void *context)
{
    struct line *line = context;

    count(line->post, METRIC_messages_dropped, 1);
}

/* --- lines ------------------------------------------------------------------- */

static int line_open(struct line *line, post_t *post, enum channel_pattern pattern,
                     const struct peer *peer, struct error *err)
{
    bool bound = pattern == CHANNEL_ROUTER || pattern == CHANNEL_PUB;
    struct channel_options options = {
        .name = port_name(peer->port),
        .pattern = pattern,
        .identity = post->options.process,
        .max_message = port_limit(peer->port, bound),
        .max_frames = 1 + WIRE_BULK_MAX,
        .queue = queue_out(peer->port, bound),
        .queue_in = bound ? QUEUE_IN : 0,
        .insecure = post->options.insecure,
        .guard = post->options.guard,
        .server = {.role = ROLE_LEARNER},
        .on_message = on_frames,
        .on_dropped = on_dropped,
        .context = line,
    };

    if (peer->port == PORT_INGEST || peer->port == PORT_SAMPLE)
        options.server =
            (struct identity){ROLE_SHARD, peer->port == PORT_INGEST ? post->shard : (uint32_t)peer->id};
    line->post = post;
    line->peer = *peer;
    return channel_open(&line->channel, post->loop, &options, err);
}

int post_bind(post_t *post, enum port port, const char *address, struct error *err)
{
    struct peer peer = {.port = port, .local = address_is_ipc(address)};
    struct line *line = &post->bound[port][peer.local];
    int rc;

    TD_ASSERT(port > 0 && port < PORTS && line->channel == NULL, "port %d", (int)port);
    rc = line_open(line, post, port == PORT_ANNOUNCE ? CHANNEL_PUB : CHANNEL_ROUTER, &peer, err);
    if (rc == TD_OK)
        rc = channel_bind(line->channel, address, err);
    if (rc != TD_OK) {
        channel_close(&line->channel);
        return rc;
    }
    snprintf(line->address, sizeof(line->address), "%s", channel_address(line->channel));
    return TD_OK;
}

const char *post_address(const post_t *post, enum port port, bool ipc)
{
    return post->bound[port][ipc].address;
}

static int find_line(const post_t *post, const struct peer *peer)
{
    for (int i = 0; i < post->count; i++)
        if (post->connected[i]->peer.port == peer->port && post->connected[i]->peer.id == peer->id)
            return i;
    return -1;
}

static void line_drop(post_t *post, struct line **line, int linger_ms)
{
    channel_close_linger(&(*line)->channel, linger_ms);
    (*line)->dropped = true;
    if (post->speaking != *line) /* else on_frames frees it */
        free(*line);
    *line = NULL;
}

static void drop_connected(post_t *post, int index, int linger_ms)
{
    line_drop(post, &post->connected[index], linger_ms);
    post->connected[index] = post->connected[--post->count];
}

void post_disconnect(post_t *post, const struct peer *peer)
{
    int index = find_line(post, peer);

    if (index >= 0)
        drop_connected(post, index, 0);
}

void post_expect_shard(post_t *post, uint32_t shard)
{
    post->shard = shard;
}

/* Who is not let in learns why. */
static void look(void *context)
{
    post_t *post = context;

    for (int i = 0; i < post->count; i++) {
        struct line *line = post->connected[i];
        const char *why = channel_trouble(line->channel);

        if (why != NULL && log_allow(&line->log_refused, SAY_MS))
            log_warn("no handshake", "with=%s why=\"%s\" port=%s", line->address, why, port_name(line->peer.port));
    }
}

const char *post_trouble(post_t *post)
{
    const char *why = NULL;

    for (int i = 0; why == NULL && i < post->count; i++)
        why = channel_trouble(post->connected[i]->channel);
    return why;
}

int post_connect(post_t *post, const struct peer *peer, const char *address, struct error *err)
{
    struct peer whole = {.port = peer->port, .local = address_is_ipc(address), .id = peer->id};
    struct line *line;
    int rc;

    TD_ASSERT(peer->port > 0 && peer->port < PORTS, "port %u", peer->port);
    post_disconnect(post, peer);
    if (post->count == LINES_MAX)
        return error_set(err, TD_EFULL, "too many connections (%d)", LINES_MAX);
    line = calloc(1, sizeof(*line));
    if (line == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a connection");
    rc = line_open(line, post, peer->port == PORT_ANNOUNCE ? CHANNEL_SUB : CHANNEL_DEALER, &whole, err);
    if (rc == TD_OK)
        rc = channel_connect(line->channel, address, err);
    if (rc == TD_OK && !whole.local && !post->options.silent && post->look == NULL &&
        (rc = loop_timer_start(&post->look, post->loop, LOOK_MS, LOOK_MS, look, post)) != TD_OK)
        error_set(err, rc, "out of memory for a connection");
    if (rc != TD_OK) {
        line_drop(post, &line, 0);
        return rc;
    }
    snprintf(line->address, sizeof(line->address), "%s", address);
    post->connected[post->count++] = line;
    return TD_OK;
}

const char *post_connected(const post_t *post, const struct peer *peer)
{
    int index = find_line(post, peer);

    return index < 0 ? NULL : post->connected[index]->address;
}

/* --- sending ----------------------------------------------------------------- */

static void send_over(post_t *post, struct line *line, uint64_t id, const struct channel_part *parts,
                      int parts_count)
{
    if (channel_send(line->channel, id, parts, parts_count) != TD_OK) {
        post->unsent++;
        return;
    }
    for (int i = 0; i < parts_count; i++)
        count(post, METRIC_sent_bytes, parts[i].length);
}

/*
 * All that DEALERs say is answered, or followed by heartbeats. A connection may be dead and not know it: its
 * peer's ROUTER was told the same routing id by another, or the way is cut; so it is not trusted for ever.
 */
static void renew_silent(post_t *post, struct line *line)
{
    uint64_t now = clock_ms();
    struct error err;

    if (line->asked_ms == 0)
        line->asked_ms = now;
    if (now - line->asked_ms < SILENCE_MS || line == post->speaking)
        return;
    line->asked_ms = now;
    if (channel_reconnect(line->channel, line->address, &err) != TD_OK)
        log_warn("no new connection", "port=%s to=%s why=\"%s\"", port_name(line->peer.port), line->address, err.text);
}

void post_send(post_t *post, const struct peer *peer, const struct message *message)
{
    struct channel_part parts[1 + WIRE_BULK_MAX] = {{.bytes = post->header}};
    int parts_count = 1 + (int)message->bulks, index = find_line(post, peer);
    bool sent = false;

    parts[0].length = codec_encode(post->codec, message, post->header);
    for (uint32_t i = 0; i < message->bulks; i++)
        parts[1 + i] =
            (struct channel_part){.bytes = message->bulk[i].data, .length = message->bulk[i].size};
    if (index >= 0) {
        renew_silent(post, post->connected[index]);
        send_over(post, post->connected[index], 0, parts, parts_count);
        return;
    }
    for (int ipc = 0; ipc < 2; ipc++) { /* PUB: to everyone, whichever way they came */
        struct line *line = &post->bound[peer->port][ipc];

        if (line->channel == NULL || (peer->port != PORT_ANNOUNCE && peer->local != (ipc == 1)))
            continue;
        send_over(post, line, peer->id, parts, parts_count);
        sent = true;
    }
    post->unsent += !sent;
}

uint64_t post_unsent(const post_t *post)
{
    return post->unsent;
}

/* --- life -------------------------------------------------------------------- */

int post_open(post_t **out, loop_t *loop, const struct post_options *options, struct error *err)
{
    post_t *post = calloc(1, sizeof(*post));

    *out = NULL;
    if (post == NULL || codec_create(&post->codec) != TD_OK) {
        free(post);
        return error_set(err, TD_ENOMEM, "out of memory for sockets");
    }
    post->loop = loop;
    post->options = *options;
    *out = post;
    return TD_OK;
}

void post_close(post_t **out, int linger_ms)
{
    post_t *post = *out;

    if (post == NULL)
        return;
    TD_ASSERT(post->speaking == NULL, "not inside on_message");
    while (post->count > 0)
        drop_connected(post, post->count - 1, linger_ms);
    for (int port = 0; port < PORTS; port++)
        for (int ipc = 0; ipc < 2; ipc++)
            channel_close_linger(&post->bound[port][ipc].channel, linger_ms);
    loop_timer_close(&post->look);
    codec_destroy(&post->codec);
    free(post);
    *out = NULL;
}
