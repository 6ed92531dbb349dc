#include "common/net/meter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <zmq.h>

#include "common/net/handshake.h"
#include "common/util/clock.h"
#include "common/util/log.h"

#define HEARTBEAT_RATE 128  /* bytes a second that are no frames: ZeroMQ's own pings, generously */
#define GREETING       8192 /* and those before the first frame */
#define BURST_S        2.0
#define SAY_REFUSED_MS 10000

struct connection {
    int fd;
    uint64_t since_ms;
    uint64_t frames;    /* bytes of frames that were taken from it, as they were on the wire */
    uint64_t between;   /* bytes that came in and were not taken yet, as of the last look */
    bool heard, cut;
    char key[KEY_TEXT_MAX];
    struct sockaddr_storage peer;
    socklen_t peer_size;
};

/* What one key, or a connection without keys, may still say. */
struct rate {
    char key[KEY_TEXT_MAX];
    int fd;             /* without keys */
    double messages, bytes;
    uint64_t filled_ms;
};

struct meter {
    struct meter_options options;
    void *monitor;
    loop_timer_t *timer;
    struct connection *list;
    int count, room;
    struct rate *rates;
    int rate_count, rate_room;
    uint64_t cuts;
    uint32_t refused; /* why the handshake failed of the connection that is closed next; 0: none did */
    struct log_limit log_cut, log_refused;
};

/* --- the table ------------------------------------------------------------------ */

static struct connection *find(meter_t *meter, int fd)
{
    for (int i = 0; i < meter->count; i++)
        if (meter->list[i].fd == fd)
            return &meter->list[i];
    return NULL;
}

static void forget(meter_t *meter, int fd)
{
    struct connection *connection = find(meter, fd);

    if (connection != NULL)
        *connection = meter->list[--meter->count];
    for (int i = 0; i < meter->rate_count; i++)
        if (meter->rates[i].key[0] == '\0' && meter->rates[i].fd == fd) {
            meter->rates[i] = meter->rates[--meter->rate_count];
            return;
        }
}

static void remember(meter_t *meter, int fd)
{
    struct connection connection = {.fd = fd, .since_ms = clock_ms(), .peer_size = sizeof(connection.peer)};

    forget(meter, fd); /* its number's last owner */
    if (getpeername(fd, (struct sockaddr *)&connection.peer, &connection.peer_size) != 0)
        return; /* gone again */
    if (meter->count == meter->room) {
        int room = meter->room == 0 ? 16 : 2 * meter->room;
        struct connection *grown = realloc(meter->list, (size_t)room * sizeof(*grown));

        if (grown == NULL)
            return;
        meter->list = grown;
        meter->room = room;
    }
    meter->list[meter->count++] = connection;
}

/* Its handshake failed: who it was, as far as the address tells. */
static void say_refused(meter_t *meter, int fd)
{
    const struct connection *connection = find(meter, fd);
    char from[INET6_ADDRSTRLEN] = "?";
    bool waited = connection != NULL && clock_ms() - connection->since_ms > HANDSHAKE_LONG_MS;

    if (meter->refused == HANDSHAKE_BROKEN && waited) { /* the guard has said why, or the loop was held up by a flood */
        meter->refused = 0;
        return;
    }
    if (connection != NULL && connection->peer.ss_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)&connection->peer)->sin_addr, from, sizeof(from));
    else if (connection != NULL && connection->peer.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)&connection->peer)->sin6_addr, from, sizeof(from));
    if (log_allow(&meter->log_refused, SAY_REFUSED_MS))
        log_warn("a handshake failed", "why=\"%s\" at=%s from=%s repeats=%u",
                 handshake_refusal(meter->refused, meter->options.guard != NULL), meter->options.name, from,
                 meter->log_refused.suppressed_last);
    meter->refused = 0;
}

/* Who came and went since the last look. ZeroMQ tells of a handshake that failed just before it closes. */
static void read_events(meter_t *meter)
{
    for (;;) {
        struct {
            uint16_t kind;
            uint32_t value;
        } __attribute__((packed)) event;
        char address[256];

        if (zmq_recv(meter->monitor, &event, sizeof(event), ZMQ_DONTWAIT) != (int)sizeof(event))
            return;
        zmq_recv(meter->monitor, address, sizeof(address), ZMQ_DONTWAIT);
        if (event.kind == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL || event.kind == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) {
            meter->refused = event.kind == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL ? event.value : HANDSHAKE_BROKEN;
            continue;
        }
        if (event.kind == ZMQ_EVENT_DISCONNECTED && meter->refused != 0)
            say_refused(meter, (int)event.value);
        if (event.kind == ZMQ_EVENT_ACCEPTED)
            remember(meter, (int)event.value);
        else
            forget(meter, (int)event.value);
    }
}

/* --- cutting ---------------------------------------------------------------------- */

/* Is the descriptor still this connection's? ZeroMQ closes it on a thread of its own. */
static bool still_it(const struct connection *connection)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);

    return getpeername(connection->fd, (struct sockaddr *)&peer, &size) == 0 && size == connection->peer_size &&
           memcmp(&peer, &connection->peer, size) == 0;
}

static void cut(meter_t *meter, struct connection *connection, const char *why)
{
    struct identity who = {0};
    char name[IDENTITY_NAME_MAX];

    if (connection->cut)
        return;
    connection->cut = true;
    meter->cuts++;
    if (still_it(connection))
        shutdown(connection->fd, SHUT_RDWR);
    if (meter->options.guard != NULL && !connection->heard && connection->between > METER_QUIET)
        guard_suspect(meter->options.guard, METER_PENALTY_MS);
    if (meter->options.guard != NULL && connection->key[0] != '\0')
        guard_who(meter->options.guard, connection->key, &who);
    if (log_allow(&meter->log_cut, 5000))
        log_warn("a connection was cut", "why=\"%s\" at=%s from=%s key=\"%s\" bytes=%llu repeats=%u", why,
                 meter->options.name, identity_name(name, &who), connection->key, (unsigned long long)connection->between,
                 meter->log_cut.suppressed_last);
}

/* --- what lies in between ------------------------------------------------------------- */

static uint64_t received(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
        return 0;
    return info.tcpi_bytes_received;
}

static void look_at(struct connection *connection, uint64_t now)
{
    uint64_t taken = connection->frames + GREETING + (now - connection->since_ms) * HEARTBEAT_RATE / 1000;
    uint64_t all = received(connection->fd);

    connection->between = all > taken ? all - taken : 0;
}

/* Do two connections count together? */
static bool together(const struct connection *a, const struct connection *b)
{
    return a == b || (a->heard == b->heard && (!a->heard || a->key[0] != '\0') && strcmp(a->key, b->key) == 0);
}

/* Of those that count together with this one: how much lies in between, and the one with most. */
static uint64_t sum_of(meter_t *meter, const struct connection *one, struct connection **largest)
{
    uint64_t sum = 0;

    *largest = NULL;
    for (int i = 0; i < meter->count; i++) {
        struct connection *other = &meter->list[i];

        if (other->cut || !together(one, other))
            continue;
        sum += other->between;
        if (*largest == NULL || other->between > (*largest)->between)
            *largest = other;
    }
    return sum;
}

static void bound_bytes(meter_t *meter)
{
    for (int i = 0; i < meter->count; i++) {
        struct connection *one = &meter->list[i], *largest;
        uint64_t most = meter->options.quiet ? METER_QUIET : METER_CONNECTION;

        if (one->cut || one->between < (1u << 16))
            continue;
        if (one->between > most)
            cut(meter, one, meter->options.quiet ? "it is there to listen" : "a message without end, or too many at once");
        else if (sum_of(meter, one, &largest) > (one->heard ? METER_KEY : METER_UNHEARD))
            cut(meter, largest, "too much at once over several connections");
    }
}

/* More than so many connections that count together: the oldest goes. */
static void bound_number(meter_t *meter, const struct connection *one, int most, const char *why)
{
    struct connection *oldest = NULL;
    int number = 0;

    for (int i = 0; i < meter->count; i++) {
        struct connection *other = &meter->list[i];

        if (other->cut || !together(one, other))
            continue;
        number++;
        if (oldest == NULL || other->since_ms < oldest->since_ms)
            oldest = other;
    }
    if (number > most)
        cut(meter, oldest, why);
}

static void bound_strangers(meter_t *meter)
{
    int strangers = 0;

    for (int i = 0; i < meter->count; i++)
        strangers += !meter->list[i].heard && !meter->list[i].cut;
    for (int i = 0; i < meter->count && strangers > METER_STRANGERS && !meter->options.quiet; i++)
        if (!meter->list[i].heard && !meter->list[i].cut) { /* in the order they came, mostly */
            cut(meter, &meter->list[i], "too many connections that say nothing");
            strangers--;
        }
}

static void tick(void *context)
{
    meter_t *meter = context;
    uint64_t now = clock_ms();

    read_events(meter);
    for (int i = 0; i < meter->count; i++)
        look_at(&meter->list[i], now);
    bound_bytes(meter);
    bound_strangers(meter);
}

/* --- what was heard --------------------------------------------------------------------- */

/* Bytes that a frame has on the wire: CURVE puts nonce, tag and flags around it, ZMTP a head in front. */
static uint64_t on_wire(size_t length, bool encrypted)
{
    uint64_t body = length + (encrypted ? 33 : 0);

    return body + (body > 255 ? 9 : 2);
}

void meter_frame(meter_t *meter, int fd, size_t length)
{
    struct connection *connection = find(meter, fd);

    if (connection != NULL)
        connection->frames += on_wire(length, meter->options.guard != NULL);
}

static struct rate *rate_of(meter_t *meter, int fd, const char *key, uint64_t now)
{
    struct rate *rate;

    for (int i = 0; i < meter->rate_count; i++) {
        rate = &meter->rates[i];
        if (key[0] != '\0' ? strcmp(rate->key, key) == 0 : rate->key[0] == '\0' && rate->fd == fd)
            return rate;
    }
    if (meter->rate_count == meter->rate_room) {
        int room = meter->rate_room == 0 ? 16 : 2 * meter->rate_room;
        struct rate *grown = realloc(meter->rates, (size_t)room * sizeof(*grown));

        if (grown == NULL)
            return NULL;
        meter->rates = grown;
        meter->rate_room = room;
    }
    rate = &meter->rates[meter->rate_count++];
    *rate = (struct rate){.fd = fd, .messages = BURST_S * METER_MESSAGES, .bytes = BURST_S * METER_BYTES, .filled_ms = now};
    snprintf(rate->key, sizeof(rate->key), "%s", key);
    return rate;
}

/* Take one message out of the bucket; false: it is empty. */
static bool affordable(struct rate *rate, size_t bytes, uint64_t now)
{
    double seconds = (double)(now - rate->filled_ms) * 1e-3;

    rate->filled_ms = now;
    rate->messages += seconds * METER_MESSAGES;
    rate->bytes += seconds * METER_BYTES;
    if (rate->messages > BURST_S * METER_MESSAGES)
        rate->messages = BURST_S * METER_MESSAGES;
    if (rate->bytes > BURST_S * METER_BYTES)
        rate->bytes = BURST_S * METER_BYTES;
    if (rate->messages < 1 || rate->bytes < (double)bytes)
        return false;
    rate->messages -= 1;
    rate->bytes -= (double)bytes;
    return true;
}

bool meter_message(meter_t *meter, int fd, const char *key, size_t bytes)
{
    uint64_t now = clock_ms();
    struct rate *rate = rate_of(meter, fd, key, now);
    struct connection *connection = find(meter, fd);

    if (connection == NULL) { /* it came since the last look */
        read_events(meter);
        connection = find(meter, fd);
    }
    if (connection != NULL && !connection->heard) {
        connection->heard = true;
        snprintf(connection->key, sizeof(connection->key), "%s", key);
        if (key[0] != '\0' && meter->options.guard != NULL)
            guard_heard(meter->options.guard, key);
        if (key[0] != '\0')
            bound_number(meter, connection, METER_CONNECTIONS, "its key has too many connections");
    }
    if (connection != NULL && connection->cut)
        return false; /* what it left in the queue */
    if (rate == NULL || affordable(rate, bytes, now))
        return true;
    if (connection != NULL)
        cut(meter, connection, "too many messages, or bytes, a second");
    if (meter->options.guard != NULL && key[0] != '\0')
        guard_exclude(meter->options.guard, key, METER_PENALTY_MS);
    return false;
}

uint64_t meter_cut(const meter_t *meter)
{
    return meter->cuts;
}

/* --- life --------------------------------------------------------------------------------- */

int meter_open(meter_t **out, loop_t *loop, const struct meter_options *options, struct error *err)
{
    static unsigned number;
    meter_t *meter = calloc(1, sizeof(*meter));
    char address[64];
    int none = 0;

    *out = NULL;
    if (meter == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the %s socket", options->name);
    meter->options = *options;
    snprintf(address, sizeof(address), "inproc://meter-%u", __atomic_add_fetch(&number, 1, __ATOMIC_RELAXED));
    meter->monitor = zmq_socket(options->context, ZMQ_PAIR);
    if (meter->monitor == NULL ||
        zmq_setsockopt(meter->monitor, ZMQ_RCVHWM, &none, sizeof(none)) != 0 || /* or ZeroMQ would wait for us */
        zmq_setsockopt(meter->monitor, ZMQ_LINGER, &none, sizeof(none)) != 0 ||
        zmq_socket_monitor(options->socket, address,
                           ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) != 0 ||
        zmq_connect(meter->monitor, address) != 0) {
        error_set(err, TD_EIO, "cannot watch who connects to the %s socket: %s", options->name, zmq_strerror(errno));
        meter_close(&meter);
        return TD_EIO;
    }
    if (loop_timer_start(&meter->timer, loop, METER_TICK_MS, METER_TICK_MS, tick, meter) != TD_OK) {
        meter_close(&meter);
        return error_set(err, TD_ENOMEM, "out of memory for the %s socket", options->name);
    }
    *out = meter;
    return TD_OK;
}

void meter_close(meter_t **out)
{
    meter_t *meter = *out;

    if (meter == NULL)
        return;
    loop_timer_close(&meter->timer);
    zmq_socket_monitor(meter->options.socket, NULL, 0);
    if (meter->monitor != NULL)
        zmq_close(meter->monitor);
    free(meter->list);
    free(meter->rates);
    free(meter);
    *out = NULL;
}
