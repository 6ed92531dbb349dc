#include "common/net/channel.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>
#include <zmq.h>

#include "common/net/meter.h"
#include "common/util/clock.h"
#include "common/util/log.h"

/* In libzmq since 4.3, named in its public header only where drafts are built. */
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

#define BUDGET 64      /* messages read before other callbacks have their turn */
#define RETRY_MS 2     /* a ROUTER cannot say which queue has room: ask again this often */
#define IDENTITY 9     /* 'P' and the process id; ZeroMQ reserves a leading zero */
#define SILENCE_MS 15000
#define HANDSHAKE_MS 10000
#define KNOCK_MS 3000  /* the same where keys are asked for: one that is not let in knocks again after it */
#define BIND_PATIENCE_MS 60000u
#define REBIND_MS 20   /* between two tries to listen again where one just did */

/* A ZeroMQ socket and the watch on its descriptor, which is freed in its close callback. */
struct wire {
    void *socket;
    uv_poll_t *poll;
};

/* How a channel's connections are made: as they are, or with keys as the side that listens or connects. */
enum security { SECURITY_NONE, SECURITY_SERVER, SECURITY_CLIENT };

struct channel {
    loop_t *loop;
    struct channel_options options;
    struct wire wire;
    uv_async_t more;  /* there was more to read than the budget */
    uv_timer_t retry; /* runs while blocked */
    int handles;      /* of these two; the last one's close callback frees the channel */
    bool blocked;     /* a send was refused and on_writable is due */
    bool draining, closed;
    enum security security;
    char key[KEY_TEXT_MAX];   /* of the server this one is connected to; of who speaks, in on_message */
    struct identity speaker;
    unsigned removals;        /* keys gone from the list when a PUB last began to listen */
    bool rebinding;           /* a PUB: its address is not free again yet */
    struct log_limit log_unheard;
    meter_t *meter;           /* of a channel that listens on tcp, else NULL */
    char address[ADDRESS_MAX];
    dev_t device;     /* of the file that an ipc address made; ZeroMQ leaves it behind */
    ino_t inode;      /* 0: there is none */
    zmq_msg_t frames[CHANNEL_FRAMES]; /* of the message being handed over */
    int frame_count;
    struct channel_counters counters;
};

struct channel_blob {
    zmq_msg_t message;
};

/* The process's ZeroMQ context and the number of channels on it. */
static struct {
    pthread_mutex_t mutex;
    void *context;
    int channels;
} zeromq = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* --- the socket ------------------------------------------------------------ */

static void *context_enter(void)
{
    pthread_mutex_lock(&zeromq.mutex);
    if (zeromq.context == NULL)
        zeromq.context = zmq_ctx_new();
    if (zeromq.context != NULL)
        zeromq.channels++;
    pthread_mutex_unlock(&zeromq.mutex);
    return zeromq.context;
}

static void context_leave(void)
{
    pthread_mutex_lock(&zeromq.mutex);
    zeromq.channels--;
    pthread_mutex_unlock(&zeromq.mutex);
}

void channel_shutdown(void)
{
    pthread_mutex_lock(&zeromq.mutex);
    TD_ASSERT(zeromq.channels == 0, "%d channels are still open", zeromq.channels);
    while (zeromq.context != NULL && zmq_ctx_term(zeromq.context) != 0 && errno == EINTR)
        ;
    zeromq.context = NULL;
    pthread_mutex_unlock(&zeromq.mutex);
}

static int zmq_type(enum channel_pattern pattern)
{
    static const int types[] = {ZMQ_ROUTER, ZMQ_DEALER, ZMQ_PUB, ZMQ_SUB, ZMQ_REP, ZMQ_REQ};

    return types[pattern];
}

static void set_int(void *socket, int option, int value)
{
    TD_ASSERT(zmq_setsockopt(socket, option, &value, sizeof(value)) == 0, "option %d to %d: %s", option,
              value, zmq_strerror(errno));
}

static void pack_identity(unsigned char out[IDENTITY], uint64_t peer)
{
    out[0] = 'P';
    for (int i = 0; i < 8; i++)
        out[1 + i] = (unsigned char)(peer >> (8 * i));
}

static bool unpack_identity(const unsigned char *in, size_t length, uint64_t *peer)
{
    if (length != IDENTITY || in[0] != 'P')
        return false;
    *peer = 0;
    for (int i = 0; i < 8; i++)
        *peer |= (uint64_t)in[1 + i] << (8 * i);
    return *peer != 0;
}

static void set_limits(void *socket, const struct channel_options *options)
{
    int64_t largest = (int64_t)options->max_message;
    int queue = options->queue > 0 ? options->queue : 64;

    TD_ASSERT(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof(largest)) == 0);
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_SNDHWM, queue);
    set_int(socket, ZMQ_RCVHWM, options->queue_in > 0 ? options->queue_in : queue);
    /* not ZMQ_HEARTBEAT_IVL: libzmq 4.3.4 aborts when it is due on a line whose peer went while input waited */
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, 5);
    set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, 5);
    set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, 2);
    set_int(socket, ZMQ_TCP_MAXRT, SILENCE_MS);
    set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(socket, ZMQ_CONNECT_TIMEOUT, 5000);
    set_int(socket, ZMQ_RECONNECT_IVL, 50);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, 2000);
}

static void set_pattern(void *socket, const struct channel_options *options)
{
    unsigned char identity[IDENTITY];

    switch (options->pattern) {
    case CHANNEL_ROUTER:
        set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
        set_int(socket, ZMQ_ROUTER_HANDOVER, 1);
        break;
    case CHANNEL_DEALER:
        pack_identity(identity, options->identity);
        TD_ASSERT(zmq_setsockopt(socket, ZMQ_ROUTING_ID, identity, sizeof(identity)) == 0);
        break;
    case CHANNEL_SUB:
        TD_ASSERT(zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0) == 0);
        break;
    case CHANNEL_REQ:
        set_int(socket, ZMQ_REQ_RELAXED, 1);
        set_int(socket, ZMQ_REQ_CORRELATE, 1);
        break;
    case CHANNEL_PUB:
    case CHANNEL_REP:
        break;
    }
}

static void socket_ready(uv_poll_t *uv, int status, int events);

static void wire_close(struct wire *wire, int linger_ms);

static int wire_open(struct wire *out, channel_t *channel, struct error *err)
{
    struct wire wire = {0};
    size_t size = sizeof(int);
    int fd, rc;

    wire.socket = zmq_socket(zeromq.context, zmq_type(channel->options.pattern));
    if (wire.socket == NULL)
        return error_set(err, TD_EIO, "cannot open the %s socket: %s", channel->options.name,
                         zmq_strerror(errno));
    set_limits(wire.socket, &channel->options);
    set_pattern(wire.socket, &channel->options);
    TD_ASSERT(zmq_getsockopt(wire.socket, ZMQ_FD, &fd, &size) == 0);
    wire.poll = calloc(1, sizeof(*wire.poll));
    rc = wire.poll == NULL ? UV_ENOMEM : uv_poll_init(loop_uv(channel->loop), wire.poll, fd);
    if (rc != 0) {
        free(wire.poll);
        wire.poll = NULL;
        wire_close(&wire, 0);
        return error_set(err, TD_EIO, "cannot watch the %s socket: %s", channel->options.name,
                         uv_strerror(rc));
    }
    wire.poll->data = channel;
    uv_poll_start(wire.poll, UV_READABLE, socket_ready);
    *out = wire;
    return TD_OK;
}

/* The descriptor leaves the loop before ZeroMQ may close it. */
static void wire_close(struct wire *wire, int linger_ms)
{
    if (wire->poll != NULL)
        uv_close((uv_handle_t *)wire->poll, (uv_close_cb)free);
    if (wire->socket != NULL) {
        set_int(wire->socket, ZMQ_LINGER, linger_ms);
        zmq_close(wire->socket);
    }
    memset(wire, 0, sizeof(*wire));
}

static int channel_events(channel_t *channel)
{
    int events = 0, rc;
    size_t size = sizeof(events);

    do
        rc = zmq_getsockopt(channel->wire.socket, ZMQ_EVENTS, &events, &size);
    while (rc != 0 && errno == EINTR);
    TD_ASSERT(rc == 0, "%s", zmq_strerror(errno));
    return events;
}

/* --- keys ------------------------------------------------------------------ */

static void set_text(void *socket, int option, const char *text)
{
    TD_ASSERT(zmq_setsockopt(socket, option, text, strlen(text)) == 0, "option %d: %s", option, zmq_strerror(errno));
}

static bool guarded(const channel_t *channel, const char *address)
{
    return channel->options.guard != NULL && !address_is_ipc(address);
}

/* Both options: without a domain ZeroMQ asks nobody and lets any key in, without enforcement a dead handler does. */
static int secure_server(channel_t *channel, const char *address, struct error *err)
{
    const struct channel_options *options = &channel->options;
    int enforce = 1, rc;

    if (!guarded(channel, address))
        return TD_OK;
    if ((rc = guard_serve(options->guard, err)) != TD_OK)
        return rc;
    set_int(channel->wire.socket, ZMQ_CURVE_SERVER, 1);
    set_int(channel->wire.socket, ZMQ_HANDSHAKE_IVL, KNOCK_MS);
    set_text(channel->wire.socket, ZMQ_CURVE_SECRETKEY, guard_self(options->guard)->secret_key);
    set_text(channel->wire.socket, ZMQ_ZAP_DOMAIN, options->name);
    if (zmq_setsockopt(channel->wire.socket, ZMQ_ZAP_ENFORCE_DOMAIN, &enforce, sizeof(enforce)) != 0)
        return error_set(err, TD_ESETUP, "this ZeroMQ library cannot be told to let nobody in without asking "
                                         "(ZMQ_ZAP_ENFORCE_DOMAIN): install libzmq 4.3 or newer");
    channel->security = SECURITY_SERVER;
    channel->removals = guard_removals(options->guard);
    return TD_OK;
}

static int secure_client(channel_t *channel, const char *address, struct error *err)
{
    const struct channel_options *options = &channel->options;
    const char *key;
    char name[IDENTITY_NAME_MAX];

    channel->security = SECURITY_NONE;
    if (!guarded(channel, address))
        return TD_OK;
    key = guard_key_of(options->guard, &options->server);
    if (key == NULL)
        return error_set(err, TD_EINVAL, "cannot connect to %s: the list of allowed keys has none of %s", address,
                         identity_name(name, &options->server));
    memcpy(channel->key, key, KEY_TEXT_MAX);
    set_text(channel->wire.socket, ZMQ_CURVE_SERVERKEY, key);
    set_text(channel->wire.socket, ZMQ_CURVE_PUBLICKEY, guard_self(options->guard)->public_key);
    set_text(channel->wire.socket, ZMQ_CURVE_SECRETKEY, guard_self(options->guard)->secret_key);
    channel->security = SECURITY_CLIENT;
    return TD_OK;
}

/* May this frame be heard? Its key is what the handshake was made with; the list is asked as it is now. */
static bool frame_allowed(channel_t *channel, zmq_msg_t *frame, bool first)
{
    const struct channel_options *options = &channel->options;
    const char *key;

    if (channel->security == SECURITY_NONE)
        return true;
    if (channel->security == SECURITY_CLIENT)
        return guard_who(options->guard, channel->key, &channel->speaker) &&
               identity_same(&channel->speaker, &options->server);
    key = zmq_msg_gets(frame, "User-Id");
    if (key == NULL || strlen(key) >= sizeof(channel->key)) {
        channel->key[0] = '\0';
        return false;
    }
    if (!first)
        return strcmp(key, channel->key) == 0;
    strcpy(channel->key, key);
    return guard_who(options->guard, key, &channel->speaker) && guard_may_enter(channel->speaker.role, options->name);
}

/* May this message be heard from a ROUTER's peer of that name? */
static bool peer_allowed(channel_t *channel, uint64_t peer)
{
    return channel->security != SECURITY_SERVER || channel->options.pattern != CHANNEL_ROUTER ||
           guard_claim(channel->options.guard, channel->key, peer);
}

static void say_unheard(channel_t *channel, const char *why)
{
    char name[IDENTITY_NAME_MAX];
    struct identity who = {0};

    if (channel->security == SECURITY_NONE || !log_allow(&channel->log_unheard, 5000))
        return;
    guard_who(channel->options.guard, channel->key, &who);
    log_warn("a message was not heard", "why=\"%s\" at=%s from=%s key=\"%s\" repeats=%u", why, channel->options.name,
             identity_name(name, &who), channel->key, channel->log_unheard.suppressed_last);
}

bool channel_speaker(const channel_t *channel, struct identity *who)
{
    if (channel->security == SECURITY_NONE)
        return false;
    *who = channel->speaker;
    return true;
}

/* --- receiving ------------------------------------------------------------- */

static void forget_frames(channel_t *channel)
{
    for (int i = 0; i < channel->frame_count; i++)
        zmq_msg_close(&channel->frames[i]);
    channel->frame_count = 0;
}

static void count_dropped(channel_t *channel)
{
    channel->counters.dropped++;
    if (channel->options.on_dropped != NULL)
        channel->options.on_dropped(channel->options.context);
}

/* ZeroMQ hands out short frames inside its read buffer, at any address. */
static bool align_frame(zmq_msg_t *frame)
{
    size_t length = zmq_msg_size(frame);
    zmq_msg_t copy;

    if (((uintptr_t)zmq_msg_data(frame) & 7) == 0)
        return true;
    if (zmq_msg_init_size(&copy, length) != 0)
        return false;
    memcpy(zmq_msg_data(&copy), zmq_msg_data(frame), length);
    zmq_msg_move(frame, &copy);
    zmq_msg_close(&copy);
    return true;
}

/* The next frame of the message; -1 when there is none. */
static int receive_frame(channel_t *channel, zmq_msg_t *frame)
{
    int rc;

    zmq_msg_init(frame);
    do
        rc = zmq_msg_recv(frame, channel->wire.socket, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc < 0)
        zmq_msg_close(frame);
    return rc;
}

/* Read one message whole into `frames`. False when there was none or it is not to be heard. */
static bool receive_message(channel_t *channel, uint64_t *peer)
{
    int most = channel->options.max_frames > 0 ? channel->options.max_frames : CHANNEL_FRAMES;
    bool good = true, heard = true, more = true, first = channel->options.pattern == CHANNEL_ROUTER;
    size_t bytes = 0;
    zmq_msg_t frame;
    int from = -1;

    *peer = 0;
    while (more) {
        if (receive_frame(channel, &frame) < 0)
            return false;
        more = zmq_msg_more(&frame) != 0;
        channel->counters.received_bytes += zmq_msg_size(&frame);
        if (first) {
            good = unpack_identity(zmq_msg_data(&frame), zmq_msg_size(&frame), peer) && more;
            first = false;
            zmq_msg_close(&frame);
            continue;
        }
        bytes += zmq_msg_size(&frame);
        if (channel->meter != NULL && (from = zmq_msg_get(&frame, ZMQ_SRCFD)) >= 0)
            meter_frame(channel->meter, from, zmq_msg_size(&frame));
        heard = heard && frame_allowed(channel, &frame, channel->frame_count == 0);
        if (good && heard && channel->frame_count < most && align_frame(&frame)) {
            zmq_msg_init(&channel->frames[channel->frame_count]);
            zmq_msg_move(&channel->frames[channel->frame_count++], &frame);
            zmq_msg_close(&frame);
        } else {
            good = false;
            zmq_msg_close(&frame);
        }
    }
    if (from >= 0 &&
        !meter_message(channel->meter, from, channel->security == SECURITY_SERVER ? channel->key : "", bytes))
        good = false;
    if (!heard)
        say_unheard(channel, "its key is not, or no longer, on the list");
    else if (good && !(heard = peer_allowed(channel, *peer)))
        say_unheard(channel, "another key holds this routing id");
    good = good && heard;
    if (!good)
        count_dropped(channel);
    else
        channel->counters.received++;
    return good;
}

/* A REP that leaves a message unanswered hears no other. */
static void refuse_question(channel_t *channel)
{
    if (channel->options.pattern == CHANNEL_REP)
        zmq_send(channel->wire.socket, "", 0, ZMQ_DONTWAIT);
}

static void channel_receive(channel_t *channel)
{
    struct channel_frame frames[CHANNEL_FRAMES];
    uint64_t peer;

    if (!receive_message(channel, &peer)) {
        refuse_question(channel);
    } else if (channel->options.on_message != NULL) {
        for (int i = 0; i < channel->frame_count; i++) {
            frames[i].bytes = zmq_msg_data(&channel->frames[i]);
            frames[i].length = zmq_msg_size(&channel->frames[i]);
        }
        channel->options.on_message(channel->options.context, peer, frames, channel->frame_count);
    }
    forget_frames(channel);
}

static void tell_writable(channel_t *channel)
{
    channel->blocked = false;
    uv_timer_stop(&channel->retry);
    channel->options.on_writable(channel->options.context);
}

/*
 * The descriptor is edge-triggered: it is quiet while there are messages that were announced before.
 * So read until ZMQ_EVENTS says there are none, or come back.
 */
static void channel_drain(channel_t *channel)
{
    channel->draining = true;
    for (int left = BUDGET; left > 0 && !channel->closed; left--) {
        int events = channel_events(channel);

        if (channel->blocked && channel->options.pattern != CHANNEL_ROUTER && (events & ZMQ_POLLOUT))
            tell_writable(channel);
        else if (events & ZMQ_POLLIN)
            channel_receive(channel);
        else
            goto empty;
    }
    if (!channel->closed)
        uv_async_send(&channel->more); /* let timers run, then resume here */
empty:
    channel->draining = false;
}

static void socket_ready(uv_poll_t *uv, int status, int events)
{
    (void)status;
    (void)events;
    channel_drain(uv->data);
}

static void more_due(uv_async_t *uv)
{
    channel_drain(uv->data);
}

static bool listen_anew(channel_t *channel);

static void retry_due(uv_timer_t *uv)
{
    channel_t *channel = uv->data;

    if (channel->rebinding)
        listen_anew(channel);
    else if (channel->blocked)
        tell_writable(channel);
}

channel_blob_t *channel_take(channel_t *channel, int index)
{
    channel_blob_t *blob = malloc(sizeof(*blob));

    TD_ASSERT(index >= 0 && index < channel->frame_count, "frame %d of %d", index,
              channel->frame_count);
    if (blob == NULL)
        return NULL;
    zmq_msg_init(&blob->message);
    zmq_msg_move(&blob->message, &channel->frames[index]);
    return blob;
}

const void *channel_blob_bytes(const channel_blob_t *blob)
{
    return zmq_msg_data((zmq_msg_t *)&blob->message);
}

size_t channel_blob_length(const channel_blob_t *blob)
{
    return zmq_msg_size(&blob->message);
}

void channel_blob_release(channel_blob_t **blob)
{
    if (*blob == NULL)
        return;
    zmq_msg_close(&(*blob)->message);
    free(*blob);
    *blob = NULL;
}

/* --- sending --------------------------------------------------------------- */

static int send_frame(channel_t *channel, zmq_msg_t *frame, bool more)
{
    int rc;

    do
        rc = zmq_msg_send(frame, channel->wire.socket, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
    while (rc < 0 && errno == EINTR);
    return rc;
}

/* The frame that decides whether the message is taken: a ROUTER's peer, or the header. */
static int send_first(channel_t *channel, const void *bytes, size_t length, bool more)
{
    zmq_msg_t frame;
    int rc;

    if (zmq_msg_init_size(&frame, length) != 0)
        return TD_EAGAIN; /* out of memory: the caller tries again */
    if (length > 0)
        memcpy(zmq_msg_data(&frame), bytes, length);
    if (send_frame(channel, &frame, more) >= 0)
        return TD_OK;
    rc = errno;
    zmq_msg_close(&frame);
    if (rc == EHOSTUNREACH)
        return TD_ENOTFOUND;
    TD_ASSERT(rc == EAGAIN, "%s: %s", channel->options.name, zmq_strerror(rc));
    return TD_EAGAIN;
}

/* Once the first frame is taken the others are, or the connection died and all are dropped. */
static void send_rest(channel_t *channel, const struct channel_part *part, bool more)
{
    zmq_msg_t frame;
    int rc;

    if (part->release != NULL) {
        rc = zmq_msg_init_data(&frame, (void *)(uintptr_t)part->bytes, part->length, part->release,
                               part->context);
    } else {
        rc = zmq_msg_init_size(&frame, part->length);
        if (rc == 0 && part->length > 0)
            memcpy(zmq_msg_data(&frame), part->bytes, part->length);
    }
    TD_ASSERT(rc == 0, "out of memory for a frame of %zu bytes", part->length);
    if (send_frame(channel, &frame, more) < 0)
        zmq_msg_close(&frame); /* releases it */
}

static int send_message(channel_t *channel, uint64_t peer, const struct channel_part *parts, int count)
{
    unsigned char identity[IDENTITY];
    int rc, first = 0;

    if (channel->options.pattern == CHANNEL_ROUTER) {
        if (channel->security == SECURITY_SERVER && !guard_holds(channel->options.guard, peer))
            return TD_ENOTFOUND;
        pack_identity(identity, peer);
        rc = send_first(channel, identity, sizeof(identity), true);
    } else {
        rc = send_first(channel, parts[0].bytes, parts[0].length, count > 1);
        first = 1;
    }
    if (rc != TD_OK)
        return rc;
    for (int i = first; i < count; i++)
        send_rest(channel, &parts[i], i + 1 < count);
    for (int i = 0; i < count; i++)
        channel->counters.sent_bytes += parts[i].length;
    channel->counters.sent++;
    return TD_OK;
}

/* A PUB sends to whoever has subscribed: when a key has gone, all are to come in anew. */
static bool subscribers_outdated(const channel_t *channel)
{
    return channel->options.pattern == CHANNEL_PUB && channel->security == SECURITY_SERVER &&
           (channel->rebinding || channel->removals != guard_removals(channel->options.guard));
}

int channel_send(channel_t *channel, uint64_t peer, const struct channel_part *parts, int count)
{
    int rc, events;

    loop_assert_owner(channel->loop);
    TD_ASSERT(count >= 1 && count <= CHANNEL_FRAMES && parts[0].release == NULL, "%d frames", count);
    TD_ASSERT(!channel->closed);
    if (subscribers_outdated(channel) && !listen_anew(channel))
        return TD_ENOTFOUND;
    rc = send_message(channel, peer, parts, count);
    if (rc == TD_EAGAIN) {
        channel->counters.blocked++;
        if (channel->options.on_writable != NULL && !channel->blocked) {
            channel->blocked = true;
            if (channel->options.pattern == CHANNEL_ROUTER)
                uv_timer_start(&channel->retry, retry_due, RETRY_MS, 0);
        }
    }
    if (rc == TD_ENOTFOUND)
        channel->counters.unroutable++;
    /* Sending may have swallowed the edge that announced a message. */
    events = channel_events(channel);
    if (!channel->draining && (events & ZMQ_POLLIN))
        uv_async_send(&channel->more);
    return rc;
}

/* --- opening and closing --------------------------------------------------- */

int channel_open(channel_t **out, loop_t *loop, const struct channel_options *options,
                 struct error *err)
{
    channel_t *channel;
    int rc;

    loop_assert_owner(loop);
    TD_ASSERT(options->max_message > 0 && options->max_frames <= CHANNEL_FRAMES);
    TD_ASSERT(options->pattern != CHANNEL_DEALER || options->identity != 0);
    *out = NULL;
    if (context_enter() == NULL)
        return error_set(err, TD_ENOMEM, "cannot start ZeroMQ: %s", zmq_strerror(errno));
    channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        context_leave();
        return error_set(err, TD_ENOMEM, "out of memory for the %s socket", options->name);
    }
    channel->loop = loop;
    channel->options = *options;
    channel->retry.data = channel->more.data = channel;
    if ((rc = uv_async_init(loop_uv(loop), &channel->more, more_due)) != 0) {
        free(channel);
        context_leave();
        return error_set(err, TD_EIO, "cannot watch the %s socket: %s", options->name, uv_strerror(rc));
    }
    uv_timer_init(loop_uv(loop), &channel->retry);
    channel->handles = 2;
    if ((rc = wire_open(&channel->wire, channel, err)) != TD_OK) {
        channel_close(&channel);
        return rc;
    }
    *out = channel;
    return TD_OK;
}

static void handle_closed(uv_handle_t *uv)
{
    channel_t *channel = uv->data;

    if (--channel->handles == 0)
        free(channel);
}

static const char *socket_path(const channel_t *channel)
{
    return channel->address + strlen("ipc://");
}

static void remember_file(channel_t *channel)
{
    struct stat info;

    channel->inode = 0;
    if (!address_is_ipc(channel->address) || lstat(socket_path(channel), &info) != 0)
        return;
    channel->device = info.st_dev;
    channel->inode = info.st_ino;
}

/* Unless somebody else listens at this path by now. */
static void remove_file(const channel_t *channel)
{
    struct stat info;

    if (channel->inode != 0 && lstat(socket_path(channel), &info) == 0 &&
        info.st_dev == channel->device && info.st_ino == channel->inode)
        unlink(socket_path(channel));
}

void channel_close_linger(channel_t **out, int linger_ms)
{
    channel_t *channel = *out;

    if (channel == NULL)
        return;
    loop_assert_owner(channel->loop);
    remove_file(channel);
    meter_close(&channel->meter);
    wire_close(&channel->wire, linger_ms);
    channel->closed = true;
    uv_close((uv_handle_t *)&channel->more, handle_closed);
    uv_close((uv_handle_t *)&channel->retry, handle_closed);
    context_leave();
    *out = NULL;
}

void channel_close(channel_t **channel)
{
    channel_close_linger(channel, 0);
}

static void prepare_address(channel_t *channel, const char *address, char out[ADDRESS_MAX])
{
    address_for_zmq(out, address);
    set_int(channel->wire.socket, ZMQ_IPV6, strchr(out, '[') != NULL);
}

static int explain_bind(const char *address, int code, struct error *err)
{
    switch (code) {
    case EADDRINUSE:
        return error_set(err, TD_ELOCKED,
                         "cannot listen on %s: another program does already; choose another port",
                         address);
    case EADDRNOTAVAIL:
    case ENODEV:
        return error_set(err, TD_EINVAL, "cannot listen on %s: this machine has no such address",
                         address);
    case EACCES:
    case EPERM:
        return error_set(err, TD_EINVAL, "cannot listen on %s: not permitted; choose another port or folder",
                         address);
    default:
        return error_set(err, TD_EIO, "cannot listen on %s: %s", address, zmq_strerror(code));
    }
}

static int check_address(const channel_t *channel, const char *address, struct error *err)
{
    return address_check(address, channel->options.insecure || channel->options.guard != NULL, err);
}

int channel_bind_inside(channel_t *channel, const char *address, struct error *err)
{
    loop_assert_owner(channel->loop);
    if (zmq_bind(channel->wire.socket, address) == 0)
        return TD_OK;
    return error_set(err, TD_EIO, "cannot listen on %s: %s", address, zmq_strerror(errno));
}

/* Whoever reaches a tcp port may be anyone; ipc is this user's own. */
static int watch_connections(channel_t *channel, const char *address, struct error *err)
{
    const struct meter_options options = {
        .name = channel->options.name,
        .context = zeromq.context,
        .socket = channel->wire.socket,
        .guard = channel->security == SECURITY_SERVER ? channel->options.guard : NULL,
        .quiet = channel->options.pattern == CHANNEL_PUB,
    };

    meter_close(&channel->meter);
    return address_is_ipc(address) ? TD_OK : meter_open(&channel->meter, channel->loop, &options, err);
}

/*
 * The folder of the sockets may be full for a while: whoever starts waits for room rather than die of it again and
 * again. Signals end the process, or are heard a little later.
 */
static int bind_when_room(channel_t *channel, const char *plain, const char *address)
{
    uint64_t end = clock_ms() + BIND_PATIENCE_MS;
    bool told = false;

    while (zmq_bind(channel->wire.socket, plain) != 0) {
        int code = errno;

        if ((code != ENOSPC && code != EDQUOT) || !address_is_ipc(address) || clock_ms() >= end)
            return code;
        if (!told)
            log_warn("no room for a socket: waiting for some", "address=%s seconds=%u", address, BIND_PATIENCE_MS / 1000);
        told = true;
        usleep(250000);
    }
    return 0;
}

int channel_bind(channel_t *channel, const char *address, struct error *err)
{
    char plain[ADDRESS_MAX];
    size_t size = sizeof(channel->address);
    int rc;

    loop_assert_owner(channel->loop);
    if ((rc = check_address(channel, address, err)) != TD_OK || (rc = secure_server(channel, address, err)) != TD_OK)
        return rc;
    prepare_address(channel, address, plain);
    if ((rc = watch_connections(channel, address, err)) != TD_OK)
        return rc;
    if ((rc = bind_when_room(channel, plain, address)) != 0)
        return explain_bind(address, rc, err);
    TD_ASSERT(zmq_getsockopt(channel->wire.socket, ZMQ_LAST_ENDPOINT, channel->address, &size) == 0);
    remember_file(channel);
    return TD_OK;
}

/* Cut every connection of this listening channel and listen again. False: not yet, it is tried again. */
static bool listen_anew(channel_t *channel)
{
    struct wire old = channel->wire;
    char plain[ADDRESS_MAX];

    if (!channel->rebinding) {
        if (wire_open(&channel->wire, channel, NULL) != TD_OK) {
            channel->wire = old;
            return false;
        }
        meter_close(&channel->meter);
        wire_close(&old, 0);
        channel->rebinding = true;
    }
    if (secure_server(channel, channel->address, NULL) == TD_OK) {
        prepare_address(channel, channel->address, plain);
        if (channel->meter == NULL)
            watch_connections(channel, channel->address, NULL);
        channel->rebinding = zmq_bind(channel->wire.socket, plain) != 0;
    }
    if (channel->rebinding)
        uv_timer_start(&channel->retry, retry_due, REBIND_MS, 0);
    return !channel->rebinding;
}

/* In a context of its own: when that has ended the address is free again. */
int channel_probe(const char *address, bool insecure, struct error *err)
{
    char plain[ADDRESS_MAX];
    void *context, *socket;
    int rc = address_check(address, insecure, err);

    if (rc != TD_OK)
        return rc;
    address_for_zmq(plain, address);
    context = zmq_ctx_new();
    socket = context == NULL ? NULL : zmq_socket(context, ZMQ_ROUTER);
    if (socket == NULL)
        rc = error_set(err, TD_EIO, "no socket for %s: %s", address, zmq_strerror(errno));
    else {
        set_int(socket, ZMQ_IPV6, strchr(plain, '[') != NULL);
        if (zmq_bind(socket, plain) != 0)
            rc = explain_bind(address, errno, err);
        zmq_close(socket);
    }
    if (context != NULL)
        zmq_ctx_term(context);
    return rc;
}

const char *channel_address(const channel_t *channel)
{
    return channel->address;
}

int channel_connect(channel_t *channel, const char *address, struct error *err)
{
    char plain[ADDRESS_MAX];
    int rc;

    loop_assert_owner(channel->loop);
    if ((rc = check_address(channel, address, err)) != TD_OK || (rc = secure_client(channel, address, err)) != TD_OK)
        return rc;
    if (strchr(address, '*') != NULL)
        return error_set(err, TD_EINVAL, "cannot connect to %s: name the host and the port", address);
    prepare_address(channel, address, plain);
    if (zmq_connect(channel->wire.socket, plain) != 0)
        return error_set(err, TD_EINVAL, "cannot connect to %s: %s", address, zmq_strerror(errno));
    return TD_OK;
}

int channel_reconnect(channel_t *channel, const char *address, struct error *err)
{
    struct wire old = channel->wire;
    int rc;

    loop_assert_owner(channel->loop);
    if ((rc = check_address(channel, address, err)) != TD_OK)
        return rc;
    if ((rc = wire_open(&channel->wire, channel, err)) != TD_OK)
        return rc; /* the old one stays */
    wire_close(&old, 0);
    if (channel->blocked) /* the new queue is empty */
        uv_timer_start(&channel->retry, retry_due, 0, 0);
    return channel_connect(channel, address, err);
}

struct channel_counters channel_counters(const channel_t *channel)
{
    return channel->counters;
}
