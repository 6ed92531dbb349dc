/* Clock, events and lives of the simulated cluster; its connections: cluster_net.c. */
#include "tests/support/cluster.h"

#include <inttypes.h>
#include <unistd.h>

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
void cluster_postpone(struct cluster *cluster, const struct event *event, uint64_t until)
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
        cluster_reconnect(cluster, node);
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
        cluster_deliver(cluster, event);
        return;
    }
    if (node->alive && node->life == event->life) {
        if (cluster->now < node->stopped_until) {
            cluster_postpone(cluster, event, node->stopped_until);
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
