#include "common/net/channel_private.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/clock.h"

/* In libzmq since 4.3, named in its public header only where drafts are built. */
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

#define SILENCE_MS 15000
#define HANDSHAKE_MS 10000
#define KNOCK_MS 3000  /* the same where keys are asked for: one that is not let in knocks again after it */
#define BIND_PATIENCE_MS 60000u
#define REBIND_MS 20   /* between two tries to listen again where one just did */

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
    unsigned char identity[CHANNEL_IDENTITY];

    switch (options->pattern) {
    case CHANNEL_ROUTER:
        set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
        set_int(socket, ZMQ_ROUTER_HANDOVER, 1);
        break;
    case CHANNEL_DEALER:
        channel_pack_identity(identity, options->identity);
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

static void wire_close(struct channel_wire *wire, int linger_ms);

static int wire_open(struct channel_wire *out, channel_t *channel, struct error *err)
{
    struct channel_wire wire = {0};
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
static void wire_close(struct channel_wire *wire, int linger_ms)
{
    if (wire->poll != NULL)
        uv_close((uv_handle_t *)wire->poll, (uv_close_cb)free);
    if (wire->socket != NULL) {
        set_int(wire->socket, ZMQ_LINGER, linger_ms);
        zmq_close(wire->socket);
    }
    memset(wire, 0, sizeof(*wire));
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

void channel_retry_due(uv_timer_t *uv)
{
    channel_t *channel = uv->data;

    if (channel->rebinding)
        channel_listen_anew(channel);
    else if (channel->blocked)
        channel_tell_writable(channel);
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
    handshake_leave(&channel->handshake, channel->wire.socket);
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

bool channel_listen_anew(channel_t *channel)
{
    struct channel_wire old = channel->wire;
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
        uv_timer_start(&channel->retry, channel_retry_due, REBIND_MS, 0);
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
    if (!address_is_ipc(address)) /* unwatched it works as well, and says less */
        handshake_watch(&channel->handshake, zeromq.context, channel->wire.socket);
    if (zmq_connect(channel->wire.socket, plain) != 0)
        return error_set(err, TD_EINVAL, "cannot connect to %s: %s", address, zmq_strerror(errno));
    return TD_OK;
}

int channel_reconnect(channel_t *channel, const char *address, struct error *err)
{
    struct channel_wire old = channel->wire;
    int rc;

    loop_assert_owner(channel->loop);
    if ((rc = check_address(channel, address, err)) != TD_OK)
        return rc;
    if ((rc = wire_open(&channel->wire, channel, err)) != TD_OK)
        return rc; /* the old one stays */
    handshake_leave(&channel->handshake, old.socket);
    wire_close(&old, 0);
    if (channel->blocked) /* the new queue is empty */
        uv_timer_start(&channel->retry, channel_retry_due, 0, 0);
    return channel_connect(channel, address, err);
}

const char *channel_trouble(channel_t *channel)
{
    loop_assert_owner(channel->loop);
    return handshake_trouble(&channel->handshake, channel->security == SECURITY_CLIENT, clock_ms());
}

struct channel_counters channel_counters(const channel_t *channel)
{
    return channel->counters;
}
