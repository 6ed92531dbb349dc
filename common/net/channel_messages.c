#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/net/channel_private.h"
#include "common/util/error.h"

#define BUDGET 64 /* messages read before other callbacks have their turn */

struct channel_blob {
    zmq_msg_t message;
};

void channel_pack_identity(unsigned char out[CHANNEL_IDENTITY], uint64_t peer)
{
    out[0] = 'P';
    for (int i = 0; i < 8; i++)
        out[1 + i] = (unsigned char)(peer >> (8 * i));
}

static bool unpack_identity(const unsigned char *in, size_t length, uint64_t *peer)
{
    if (length != CHANNEL_IDENTITY || in[0] != 'P')
        return false;
    *peer = 0;
    for (int i = 0; i < 8; i++)
        *peer |= (uint64_t)in[1 + i] << (8 * i);
    return *peer != 0;
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

/* --- receiving ------------------------------------------------------------- */

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

void channel_tell_writable(channel_t *channel)
{
    channel->blocked = false;
    uv_timer_stop(&channel->retry);
    channel->options.on_writable(channel->options.context);
}

/*
 * The descriptor is edge-triggered: it is quiet while there are messages that were announced before.
 * So read until ZMQ_EVENTS says there are none, or come back.
 */
void channel_drain(channel_t *channel)
{
    channel->draining = true;
    for (int left = BUDGET; left > 0 && !channel->closed; left--) {
        int events = channel_events(channel);

        if (channel->blocked && channel->options.pattern != CHANNEL_ROUTER && (events & ZMQ_POLLOUT))
            channel_tell_writable(channel);
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
    unsigned char identity[CHANNEL_IDENTITY];
    int rc, first = 0;

    if (channel->options.pattern == CHANNEL_ROUTER) {
        if (channel->security == SECURITY_SERVER && !guard_holds(channel->options.guard, peer))
            return TD_ENOTFOUND;
        channel_pack_identity(identity, peer);
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
    if (subscribers_outdated(channel) && !channel_listen_anew(channel))
        return TD_ENOTFOUND;
    rc = send_message(channel, peer, parts, count);
    if (rc == TD_EAGAIN) {
        channel->counters.blocked++;
        if (channel->options.on_writable != NULL && !channel->blocked) {
            channel->blocked = true;
            if (channel->options.pattern == CHANNEL_ROUTER)
                uv_timer_start(&channel->retry, channel_retry_due, CHANNEL_RETRY_MS, 0);
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
