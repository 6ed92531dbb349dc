/* Clock, connections and lives of the simulated cluster. */
#include "tests/support/cluster.h"

#include <inttypes.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/util/fs.h"
#include "tests/support/test.h"

void cluster_defaults(struct cluster_options *options)
{
    *options = (struct cluster_options){
        .seed = 1, .steps = 120, .seed_steps = 30, .eval_freq = 50, .eval_episodes = 2,
        .actors = 2, .shards = 1, .batch = 4, .horizon = 2, .utd = 1, .slack = 8,
        .buffer_size = 100000, .checkpoint_steps = 20, .checkpoint_every_ms = 3000,
        .outbox = 64, .max_staleness = 1000, .length_count = 3, .lengths = {5, 3, 7},
        .truncates = true, .snapshot = 100, .delay_ms = 3, .step_ms = 1, .plan_ms = 4,
        .update_ms = 5, .save_ms = 10, .commit_ms = 2, .restart_actors = true, .eval_first = true,
    };
}

uint64_t cluster_mix(uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 29;
}

uint64_t cluster_random(struct cluster *cluster, uint64_t below)
{
    return below == 0 ? 0 : rng_u64(&cluster->rng) % below;
}

void cluster_say(struct cluster *cluster, const struct cluster_node *node, const char *text)
{
    static const char *const kinds[] = {"learner", "shard", "actor", "evaluator"};

    if (cluster->options.verbose)
        fprintf(stderr, "%8" PRIu64 " #%" PRIu64 " %s %d: %s\n", cluster->now, cluster->delivered,
                kinds[node->kind], node->number, text);
}

void cluster_trace(struct cluster *cluster, struct trace trace)
{
    if (!cluster->options.trace)
        return;
    assert_true(cluster->trace_count < CLUSTER_EVENTS_MAX);
    cluster->trace[cluster->trace_count++] = trace;
}

void *cluster_keep(struct cluster *cluster, void *memory)
{
    cluster->scraps = realloc(cluster->scraps,
                              ((size_t)cluster->scrap_count + 1) * sizeof(*cluster->scraps));
    assert_non_null(cluster->scraps);
    assert_non_null(memory);
    return cluster->scraps[cluster->scrap_count++] = memory;
}

/* --- events ----------------------------------------------------------------- */

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->id < b->id;
}

void cluster_event(struct cluster *cluster, const struct event *event)
{
    size_t at = cluster->event_count++;

    if (cluster->event_count > cluster->event_capacity) {
        cluster->event_capacity = cluster->event_capacity * 2 + 64;
        cluster->events = realloc(cluster->events,
                                  cluster->event_capacity * sizeof(*cluster->events));
        assert_non_null(cluster->events);
    }
    cluster->events[at] = *event;
    if (event->id == 0)
        cluster->events[at].id = ++cluster->event_ids;
    while (at > 0 && earlier(&cluster->events[at], &cluster->events[(at - 1) / 2])) {
        struct event other = cluster->events[at];

        cluster->events[at] = cluster->events[(at - 1) / 2];
        cluster->events[(at - 1) / 2] = other;
        at = (at - 1) / 2;
    }
}

/* Something for a stopped part: it waits in the socket, in its old order. */
static void postpone(struct cluster *cluster, const struct event *event, uint64_t until)
{
    struct event later = *event;

    later.at = until;
    cluster_event(cluster, &later);
}

static struct event event_pop(struct cluster *cluster)
{
    struct event first = cluster->events[0], last = cluster->events[--cluster->event_count];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < cluster->event_count) {
        if (child + 1 < cluster->event_count &&
            earlier(&cluster->events[child + 1], &cluster->events[child]))
            child++;
        if (!earlier(&cluster->events[child], &last))
            break;
        cluster->events[at] = cluster->events[child];
        at = child;
    }
    cluster->events[at] = last;
    return first;
}

void cluster_call(struct cluster *cluster, struct cluster_node *node, uint64_t delay_ms,
                  void (*call)(struct cluster *, struct cluster_node *, void *), void *argument)
{
    struct event event = {.at = cluster->now + delay_ms, .kind = EVENT_CALL, .life = node->life,
                          .node = (int)(node - cluster->nodes), .call = call,
                          .argument = argument};

    cluster_event(cluster, &event);
}

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

static void deliver(struct cluster *cluster, const struct event *event)
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
        postpone(cluster, event, node->stopped_until);
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
static void reconnect(struct cluster *cluster, const struct cluster_node *node)
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

/* --- lives ------------------------------------------------------------------ */

static void start(struct cluster *cluster, struct cluster_node *node)
{
    node->alive = true;
    node->stopped_until = 0;
    node->life++;
    node->starts++;
    node->start_at = UINT64_MAX;
    node->exit_code = -1;
    node->process = rng_u64(&cluster->rng) | 1;
    cluster->trace_hash = rng_hash(cluster->trace_hash, node->process ^ cluster->now);
    cluster_say(cluster, node, "starts");
    if (node->kind == NODE_LEARNER)
        learner_start(cluster, node);
    else if (node->kind == NODE_SHARD)
        shard_start(cluster, node);
    else
        actor_start(cluster, node);
    if (node->alive)
        reconnect(cluster, node);
}

static void drop(struct cluster *cluster, struct cluster_node *node)
{
    if (!node->alive)
        return;
    for (int i = 0; i < CLUSTER_SOCKETS; i++) {
        for (int p = 0; p < node->sockets[i].parked_count; p++)
            free(node->sockets[i].parked[p]);
        memset(&node->sockets[i], 0, sizeof(node->sockets[i]));
    }
    if (node->kind == NODE_LEARNER)
        learner_abandon(node);
    else if (node->kind == NODE_SHARD)
        shard_abandon(node);
    else
        actor_abandon(node);
    node->alive = false;
    node->life++;
    (void)cluster;
}

void cluster_kill(struct cluster *cluster, struct cluster_node *node, uint64_t delay_ms)
{
    if (!node->alive)
        return;
    cluster_say(cluster, node, "killed");
    drop(cluster, node);
    node->start_at = delay_ms == UINT64_MAX ? UINT64_MAX : cluster->now + delay_ms;
}

void cluster_terminate(struct cluster *cluster, struct cluster_node *node, uint64_t restart_ms)
{
    if (!node->alive)
        return;
    cluster_say(cluster, node, "SIGTERM");
    node->start_at = restart_ms;
    if (node->kind == NODE_LEARNER)
        learner_terminate(cluster, node);
    else if (node->kind == NODE_SHARD)
        shard_host_terminate(cluster, node);
    else
        actor_terminate(cluster, node);
}

/* A part left by itself: as `train` and the learner do, it is started again unless it is over. */
void cluster_exited(struct cluster *cluster, struct cluster_node *node,
                    const struct output_exit *exit)
{
    char text[OUTPUT_TEXT_MAX + 32];
    uint64_t again = node->start_at;

    snprintf(text, sizeof(text), "exits %d: %s", exit->code, exit->text);
    cluster_say(cluster, node, text);
    drop(cluster, node);
    node->exit_code = exit->code;
    snprintf(node->exit_text, sizeof(node->exit_text), "%s", exit->text);
    node->start_at = UINT64_MAX;
    if (again != UINT64_MAX)
        node->start_at = cluster->now + again; /* asked for with the SIGTERM */
    else if (exit->code == TD_EXIT_GAVE_UP && cluster->options.restart_actors)
        node->start_at = cluster->now + 100;
    else if (exit->code == TD_EXIT_FENCED && node->kind == NODE_EVALUATOR)
        node->start_at = cluster->now + 10000; /* as the learner does with its own */
    else if (exit->code == TD_EXIT_FENCED && node->kind == NODE_ACTOR && cluster->options.restart_fenced)
        node->start_at = cluster->now + 1000;
    cluster->fenced += exit->code == TD_EXIT_FENCED && node->kind == NODE_ACTOR;
}

static struct cluster_node *add(struct cluster *cluster, enum node_kind kind, int number,
                                uint64_t delay_ms)
{
    struct cluster_node *node = &cluster->nodes[cluster->node_count++];

    assert_true(cluster->node_count <= CLUSTER_NODES);
    node->kind = kind;
    node->number = number;
    node->exit_code = -1;
    node->start_at = cluster->now + delay_ms;
    return node;
}

static struct cluster_node *find(struct cluster *cluster, enum node_kind kind, int number)
{
    for (int i = 0; i < cluster->node_count; i++)
        if (cluster->nodes[i].kind == kind && cluster->nodes[i].number == number)
            return &cluster->nodes[i];
    return NULL;
}

struct cluster_node *cluster_learner(struct cluster *cluster)
{
    return find(cluster, NODE_LEARNER, 0);
}

struct cluster_node *cluster_shard(struct cluster *cluster, int number)
{
    return find(cluster, NODE_SHARD, number);
}

struct cluster_node *cluster_actor(struct cluster *cluster, int number)
{
    return find(cluster, NODE_ACTOR, number);
}

struct cluster_node *cluster_evaluator(struct cluster *cluster)
{
    return find(cluster, NODE_EVALUATOR, 0);
}

struct cluster_node *cluster_replace_learner(struct cluster *cluster)
{
    struct cluster_node *old = cluster_learner(cluster), *newer;

    cluster_cut(cluster, old);
    old->number = -1;
    newer = add(cluster, NODE_LEARNER, 0, 0);
    for (int i = 0; i < cluster->node_count; i++)
        for (int s = 0; s < CLUSTER_SOCKETS; s++)
            if (cluster->nodes[i].sockets[s].used && strncmp(cluster->nodes[i].sockets[s].address, "sim:0:", 6) == 0)
                cluster->nodes[i].sockets[s].target = (int)(newer - cluster->nodes);
    return old;
}

struct cluster_node *cluster_add_actor(struct cluster *cluster, int slot, uint64_t delay_ms)
{
    return add(cluster, NODE_ACTOR, slot, delay_ms);
}

void cluster_folder(char *out, size_t size, pid_t pid, int count)
{
    const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : test_folder();

    snprintf(out, size, "%s/tdmpc2-sim-%d-%d", root, (int)pid, count);
}

struct cluster *cluster_create(const struct cluster_options *options)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));
    struct rng_key key = {options->seed, RNG_TEST, 0, 0, 0, 0};
    static int count;

    assert_non_null(cluster);
    cluster->options = *options;
    cluster->options.verbose |= getenv("TD_SIM_VERBOSE") != NULL;
    rng_init(&cluster->rng, &key);
    cluster->now = 1000;
    assert_int_equal(codec_create(&cluster->codec), TD_OK);
    cluster->audit = audit_create();
    if (options->trace)
        cluster->trace = calloc(CLUSTER_EVENTS_MAX, sizeof(*cluster->trace));
    cluster_folder(cluster->folder, sizeof(cluster->folder), getpid(), count++);
    fs_remove_tree(cluster->folder, NULL); /* of a process that had this number and died */
    add(cluster, NODE_LEARNER, 0, 0);
    for (uint32_t i = 0; i < options->shards; i++)
        add(cluster, NODE_SHARD, (int)i, 1);
    if (options->evaluator)
        add(cluster, NODE_EVALUATOR, 0, 2);
    for (uint32_t i = 0; i < options->actors; i++)
        add(cluster, NODE_ACTOR, (int)i, 2);
    return cluster;
}

void cluster_destroy(struct cluster **out)
{
    struct cluster *cluster = *out;

    for (int i = 0; i < cluster->node_count; i++)
        drop(cluster, &cluster->nodes[i]);
    for (size_t i = 0; i < cluster->event_count; i++) {
        free(cluster->events[i].frames);
        free(cluster->events[i].argument);
    }
    for (int i = 0; i < cluster->scrap_count; i++)
        free(cluster->scraps[i]);
    free(cluster->scraps);
    fs_remove_tree(cluster->folder, NULL);
    free(cluster->durable);
    free(cluster->train);
    free(cluster->eval);
    free(cluster->trace);
    free(cluster->events);
    audit_destroy(&cluster->audit);
    codec_destroy(&cluster->codec);
    free(cluster);
    *out = NULL;
}

static uint64_t node_deadline(const struct cluster *cluster, const struct cluster_node *node)
{
    if (!node->alive)
        return node->start_at;
    if (cluster->now < node->stopped_until)
        return node->stopped_until;
    if (node->kind == NODE_LEARNER)
        return learner_deadline(node);
    if (node->kind == NODE_SHARD)
        return shard_host_deadline(node);
    return actor_deadline(node);
}

static void node_wake(struct cluster *cluster, struct cluster_node *node)
{
    if (!node->alive)
        start(cluster, node);
    else if (node->kind == NODE_LEARNER)
        learner_tick(cluster, node);
    else if (node->kind == NODE_SHARD)
        shard_host_tick(cluster, node);
    else
        actor_tick(cluster, node);
}

static void event_happens(struct cluster *cluster, const struct event *event)
{
    struct cluster_node *node = &cluster->nodes[event->node < 0 ? 0 : event->node];

    if (event->kind == EVENT_DELIVER) {
        deliver(cluster, event);
        return;
    }
    if (node->alive && node->life == event->life) {
        if (cluster->now < node->stopped_until) {
            postpone(cluster, event, node->stopped_until);
            return;
        }
        if (event->kind == EVENT_COMMIT)
            shard_host_commit(cluster, node);
        else
            event->call(cluster, node, event->argument);
    }
    free(event->argument);
}

/* Is anything left that can happen, apart from the passing of time? */
bool cluster_run(struct cluster *cluster, uint64_t until_ms)
{
    uint64_t end = cluster->now + until_ms, busy = 0, at_before = 0;

    while (true) {
        struct cluster_node *next = NULL, *learner = cluster_learner(cluster);
        uint64_t at = UINT64_MAX;

        if (!learner->alive && learner->start_at == UINT64_MAX && learner->exit_code >= 0)
            return true;
        for (int i = 0; i < cluster->node_count; i++) {
            uint64_t deadline = node_deadline(cluster, &cluster->nodes[i]);

            if (deadline < at) {
                at = deadline;
                next = &cluster->nodes[i];
            }
        }
        if (cluster->event_count > 0 && cluster->events[0].at <= at) {
            at = cluster->events[0].at;
            next = NULL;
        }
        if (cluster->faults.on_wake != NULL && cluster->faults.wake_at <= (at < end ? at : end)) {
            if (cluster->faults.wake_at > cluster->now)
                cluster->now = cluster->faults.wake_at;
            cluster->faults.on_wake(cluster, cluster->faults.plan);
            continue;
        }
        if (at > end) {
            cluster->now = end;
            return false;
        }
        if (at > cluster->now)
            cluster->now = at;
        cluster->fired++;
        busy = cluster->now == at_before ? busy + 1 : 0;
        at_before = cluster->now;
        if (busy > 100000)
            fail_msg("time stands still at %" PRIu64 ": node %d", cluster->now,
                     next == NULL ? -1 : (int)(next - cluster->nodes));
        if (next != NULL) {
            node_wake(cluster, next);
        } else {
            struct event event = event_pop(cluster);

            event_happens(cluster, &event);
        }
    }
}

struct coordinator_view cluster_view(struct cluster *cluster)
{
    struct coordinator_view view = {0};
    struct cluster_node *learner = cluster_learner(cluster);

    if (learner->alive)
        coordinator_view(learner_coordinator(learner), cluster->now, &view);
    return view;
}

const struct durable *cluster_durable(const struct cluster *cluster)
{
    return cluster->durable_count > 0 ? &cluster->durable[cluster->durable_count - 1] : NULL;
}

uint64_t cluster_hash(const struct cluster *cluster)
{
    const struct durable *last = cluster_durable(cluster);
    uint64_t hash = last == NULL ? 0 : last->hash;

    for (int i = 0; i < cluster->train_count; i++) {
        hash = cluster_mix(hash, &cluster->train[i].step, sizeof(uint64_t));
        hash = cluster_mix(hash, &cluster->train[i].reward, sizeof(double));
    }
    for (int i = 0; i < cluster->eval_count; i++) {
        hash = cluster_mix(hash, &cluster->eval[i].step, sizeof(uint64_t));
        hash = cluster_mix(hash, &cluster->eval[i].reward, sizeof(double));
    }
    return hash;
}
