/* Connections of the simulated cluster: order, delay, loss, copies, partitions, messages for the dead. */
#include <xxhash.h>

#include "tests/support/cluster.h"
#include "tests/support/test.h"

/* --- connections ------------------------------------------------------------ */

/* "sim:<node>:<starts>": shards have a new address in every life, the learner's control stays. */
static int resolve(struct cluster *cluster, const char *address)
{
    int node, starts;

    if (sscanf(address, "sim:%d:%d", &node, &starts) != 2)
        return -1;
    if (node == 0)
        node = (int)(cluster_learner(cluster) - cluster->nodes); /* who has the address now */
    if (starts != 0 && cluster->nodes[node].starts != (uint32_t)starts)
        return -1;
    return node;
}

void cluster_connect(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                     const char *address)
{
    struct cluster_socket *socket = NULL;

    for (int i = 0; i < CLUSTER_SOCKETS; i++) {
        struct cluster_socket *other = &node->sockets[i];

        if (other->used && other->port == peer->port && other->id == peer->id) {
            socket = other;
            break;
        }
        if (!other->used && socket == NULL)
            socket = other;
    }
    assert_non_null(socket);
    for (int i = 0; i < socket->parked_count; i++)
        free(socket->parked[i]);
    *socket = (struct cluster_socket){.used = true, .port = peer->port, .id = peer->id,
                                      .serial = ++cluster->serials};
    socket->target = resolve(cluster, address);
    snprintf(socket->address, sizeof(socket->address), "%s", address);
}

/* What a ROUTER knows this connection by. */
static uint64_t identity(const struct event *event)
{
    return (uint64_t)event->from << 48 | (uint64_t)event->socket << 40 | event->serial;
}

static struct frames *pack(struct cluster *cluster, const struct message *message)
{
    static uint8_t header[WIRE_HEADER_MAX];
    size_t length = codec_encode(cluster->codec, message, header), size = length, at = length;
    struct frames *frames;

    for (uint32_t i = 0; i < message->bulks; i++)
        size += message->bulk[i].size;
    frames = malloc(sizeof(*frames) + size);
    assert_non_null(frames);
    frames->count = 1 + message->bulks;
    frames->kind = message->kind;
    frames->size = size;
    memcpy(frames->bytes, header, length);
    frames->frame[0] = (struct bulk){frames->bytes, length};
    for (uint32_t i = 0; i < message->bulks; i++) {
        if (message->bulk[i].size > 0)
            memcpy(frames->bytes + at, message->bulk[i].data, message->bulk[i].size);
        frames->frame[1 + i] = (struct bulk){frames->bytes + at, message->bulk[i].size};
        at += message->bulk[i].size;
    }
    return frames;
}

static bool is_hello(uint32_t kind)
{
    return kind == MESSAGE_HELLO || kind == MESSAGE_INGEST_HELLO || kind == MESSAGE_SAMPLE_HELLO;
}

/* The same bytes once more. */
static struct frames *copy_frames(const struct frames *frames)
{
    struct frames *copy = malloc(sizeof(*copy) + frames->size);

    assert_non_null(copy);
    memcpy(copy, frames, sizeof(*copy) + frames->size);
    for (uint32_t i = 0; i < copy->count; i++)
        copy->frame[i].data = copy->bytes + ((const uint8_t *)frames->frame[i].data - frames->bytes);
    return copy;
}

static bool dice(struct cluster_faults *faults, double chance)
{
    uint64_t draw = rng_hash(faults->seed, ++faults->dice);

    return (double)(draw >> 11) * 0x1p-53 < chance;
}

static uint64_t dice_below(struct cluster_faults *faults, uint64_t below)
{
    return below == 0 ? 0 : rng_hash(faults->seed, ++faults->dice) % below;
}

/* Into the queue, behind what was sent before on this connection in this direction. */
static void enqueue(struct cluster *cluster, struct cluster_socket *socket, struct event *event, bool ordered)
{
    if (ordered && event->at < socket->last[event->to_dealer])
        event->at = socket->last[event->to_dealer];
    if (ordered)
        socket->last[event->to_dealer] = event->at;
    cluster_event(cluster, event);
}

/* Is it lost, by a partition or by itself? What a partition holds up comes after it. */
static bool is_lost(struct cluster *cluster, struct event *event, int other)
{
    struct cluster_faults *faults = &cluster->faults;

    if (event->node < 0 || other < 0)
        return false;
    if (cluster->now < faults->cut_until[other][event->node]) {
        if (!faults->held[other][event->node])
            return true;
        event->at += faults->cut_until[other][event->node] - cluster->now;
    }
    return cluster->now < faults->until && dice(faults, faults->loss);
}

/* In order per connection and direction, after a random delay; unless faults have it otherwise. */
static void send_over(struct cluster *cluster, struct cluster_node *dealer,
                      struct cluster_socket *socket, bool to_dealer, struct frames *frames)
{
    struct cluster_faults *faults = &cluster->faults;
    int target = socket->target, from = (int)(dealer - cluster->nodes);
    bool ordered = true;
    struct event event = {
        .kind = EVENT_DELIVER,
        .at = cluster->now + 1 + cluster_random(cluster, cluster->options.delay_ms),
        .node = to_dealer ? from : target,
        .from = from,
        .socket = (int)(socket - dealer->sockets),
        .from_life = dealer->life,
        .serial = socket->serial,
        .port = socket->port,
        .to_dealer = to_dealer,
        .frames = frames,
        .node_life = target >= 0 ? cluster->nodes[target].life : 0,
    };

    if (is_lost(cluster, &event, to_dealer ? target : from)) {
        faults->lost++;
        free(frames);
        return;
    }
    if (cluster->now < faults->until && dice(faults, faults->late)) {
        faults->delayed++;
        event.at += dice_below(faults, faults->late_ms);
        ordered = !faults->wild;
    }
    enqueue(cluster, socket, &event, ordered);
    if (cluster->now < faults->until && dice(faults, faults->twice)) {
        faults->doubled++;
        event.frames = copy_frames(frames);
        if (faults->wild)
            event.at += dice_below(faults, faults->late_ms);
        enqueue(cluster, socket, &event, !faults->wild);
    }
}

static void publish(struct cluster *cluster, const struct cluster_node *node,
                    const struct message *message)
{
    for (int i = 0; i < cluster->node_count; i++)
        for (int s = 0; s < CLUSTER_SOCKETS; s++) {
            struct cluster_socket *socket = &cluster->nodes[i].sockets[s];

            if (cluster->nodes[i].alive && socket->used && socket->port == PORT_ANNOUNCE &&
                socket->target == (int)(node - cluster->nodes))
                send_over(cluster, &cluster->nodes[i], socket, true, pack(cluster, message));
        }
}

static bool is_router(const struct cluster_node *node, uint32_t port)
{
    if (node->kind == NODE_LEARNER)
        return port == PORT_CONTROL || port == PORT_PARAMS;
    return node->kind == NODE_SHARD && (port == PORT_INGEST || port == PORT_SAMPLE);
}

void cluster_send(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                  const struct message *message)
{
    if (is_hello(message->kind) && cluster->lose_hellos > 0) {
        cluster->lose_hellos--;
        return;
    }
    if (message->kind == MESSAGE_LEAVE && cluster->lose_leaves > 0) {
        cluster->lose_leaves--;
        return;
    }
    if (message->kind == MESSAGE_ROWS)
        audit_sent(cluster, message);
    if (peer->port == PORT_ANNOUNCE) {
        publish(cluster, node, message);
    } else if (is_router(node, peer->port)) {
        struct cluster_node *dealer = &cluster->nodes[peer->id >> 48];
        struct cluster_socket *socket = &dealer->sockets[peer->id >> 40 & 0xff];

        if (socket->used && socket->serial == (uint32_t)peer->id)
            send_over(cluster, dealer, socket, true, pack(cluster, message));
    } else {
        for (int i = 0; i < CLUSTER_SOCKETS; i++) {
            struct cluster_socket *socket = &node->sockets[i];

            if (socket->used && socket->port == peer->port && socket->id == peer->id)
                send_over(cluster, node, socket, false, pack(cluster, message));
        }
    }
}

static void feed(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                 const struct frames *frames)
{
    struct message message;
    struct error err = {0};

    assert_ok(codec_decode(cluster->codec, frames->frame, frames->count, &message, &err), err);
    if (cluster->options.verbose) {
        char text[200];

        snprintf(text, sizeof(text), "<- %s", message_name(message.kind));
        cluster_say(cluster, node, text);
    }
    if (node->kind == NODE_LEARNER)
        learner_receive(cluster, node, peer, &message);
    else if (node->kind == NODE_SHARD)
        shard_host_receive(cluster, node, peer, &message);
    else
        actor_receive(cluster, node, peer, &message);
}

/* Keep a message for a part that is down: it arrives when that is back, as ZeroMQ's queues do. */
static bool park(struct cluster_socket *socket, struct frames *frames)
{
    if (socket->parked_count == CLUSTER_PARKED)
        return false;
    socket->parked[socket->parked_count++] = frames;
    return true;
}

/* Same seed, same trace: every delivery counts, with its bytes. */
static void trace_event(struct cluster *cluster, const struct event *event)
{
    const uint64_t what[] = {cluster->now, (uint64_t)event->node, (uint64_t)event->from, event->frames->kind};

    cluster->trace_hash = cluster_mix(cluster->trace_hash, what, sizeof(what));
    cluster->trace_hash = rng_hash(cluster->trace_hash, XXH3_64bits(event->frames->bytes, event->frames->size));
}

void cluster_deliver(struct cluster *cluster, const struct event *event)
{
    struct cluster_node *dealer = &cluster->nodes[event->from], *node;
    struct cluster_socket *socket = &dealer->sockets[event->socket];
    bool same = dealer->alive && dealer->life == event->from_life && socket->used &&
                socket->serial == event->serial;
    struct peer peer = {.local = true};

    node = &cluster->nodes[event->node < 0 ? 0 : event->node];
    if (event->frames == NULL)
        return; /* lost on the way */
    if (event->node < 0 || (event->to_dealer && !same) ||
        (!event->to_dealer && !same && dealer->alive &&
         !(cluster->faults.ghosts && dealer->life != event->from_life && event->node_life == node->life))) {
        free(event->frames);
        return;
    }
    if (!event->to_dealer && same && node->alive && resolve(cluster, socket->address) != event->node) {
        free(event->frames); /* the address was that of an earlier life */
        return;
    }
    if (!event->to_dealer && !node->alive) {
        if (!same || !park(socket, event->frames))
            free(event->frames);
        return;
    }
    if (cluster->now < node->stopped_until) {
        cluster_postpone(cluster, event, node->stopped_until);
        return;
    }
    if (event->to_dealer)
        peer = (struct peer){.port = socket->port, .local = true, .id = socket->id};
    else
        peer = (struct peer){.port = event->port, .local = true, .id = identity(event)};
    cluster->delivered++;
    trace_event(cluster, event);
    feed(cluster, node, &peer, event->frames);
    free(event->frames);
    if (cluster->on_delivered != NULL)
        cluster->on_delivered(cluster, cluster->context);
}

/* A part is (back) at its address: those who wait for it connect anew, what they queued arrives. */
void cluster_reconnect(struct cluster *cluster, const struct cluster_node *node)
{
    int number = (int)(node - cluster->nodes);

    for (int i = 0; i < cluster->node_count; i++)
        for (int s = 0; s < CLUSTER_SOCKETS; s++) {
            struct cluster_socket *socket = &cluster->nodes[i].sockets[s];
            int parked = socket->parked_count;

            if (!cluster->nodes[i].alive || !socket->used ||
                resolve(cluster, socket->address) != number)
                continue;
            socket->target = number;
            socket->serial = ++cluster->serials;
            socket->parked_count = 0;
            for (int p = 0; p < parked; p++)
                send_over(cluster, &cluster->nodes[i], socket, false, socket->parked[p]);
        }
}

void cluster_cut(struct cluster *cluster, struct cluster_node *node)
{
    cluster_say(cluster, node, "connections cut");
    for (int i = 0; i < cluster->node_count; i++)
        for (int s = 0; s < CLUSTER_SOCKETS; s++) {
            struct cluster_socket *socket = &cluster->nodes[i].sockets[s];

            if (socket->used && (&cluster->nodes[i] == node ||
                                 socket->target == (int)(node - cluster->nodes)))
                socket->serial = ++cluster->serials;
        }
}

void cluster_lose(struct cluster *cluster, struct cluster_node *node)
{
    int number = (int)(node - cluster->nodes);

    cluster_say(cluster, node, "all under way is lost");
    for (size_t i = 0; i < cluster->event_count; i++) {
        struct event *event = &cluster->events[i];

        if (event->kind == EVENT_DELIVER && (event->node == number || event->from == number)) {
            free(event->frames);
            event->frames = NULL;
        }
    }
}
