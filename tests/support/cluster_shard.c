/* A shard's host in the cluster: the real machine on the real store, committing after a moment. */
#include "common/util/fs.h"
#include "tests/support/cluster.h"
#include "tests/support/test.h"

struct shard_host {
    shard_t *shard;
    bool committing; /* a commit is planned */
};

void shard_host_folder(struct cluster *cluster, struct cluster_node *node, char *out, size_t size)
{
    snprintf(out, size, "%s/shard-%d", cluster->folder, node->number);
}

static void drain(struct cluster *cluster, struct cluster_node *node);

static void plan_commit(struct cluster *cluster, struct cluster_node *node)
{
    struct event event = {.kind = EVENT_COMMIT, .life = node->life,
                          .node = (int)(node - cluster->nodes)};

    if (node->shard->committing || !shard_dirty(node->shard->shard))
        return;
    node->shard->committing = true;
    event.at = cluster->now + cluster_random(cluster, cluster->options.commit_ms + 1);
    cluster_event(cluster, &event);
}

/* What the shard says is durable, the audit holds it to. */
static void note_acknowledged(struct cluster *cluster, const struct message *message)
{
    const struct ingest_welcome *welcome = &message->ingest_welcome;

    if (message->kind == MESSAGE_ACK)
        audit_acknowledged(cluster, message->ack.slot, message->ack.environment, message->ack.store,
                           message->ack.epoch, message->ack.next);
    for (uint32_t i = 0; message->kind == MESSAGE_INGEST_WELCOME && i < welcome->count; i++)
        audit_acknowledged(cluster, welcome->slot, welcome->streams[i].environment, welcome->store,
                           welcome->streams[i].epoch, welcome->streams[i].next);
    if (message->kind == MESSAGE_REWOUND && message->rewound.done)
        audit_rewound(cluster, message->rewound.status.store);
}

static void drain(struct cluster *cluster, struct cluster_node *node)
{
    struct shard_output output;

    while (shard_next(node->shard->shard, &output)) {
        switch (output.kind) {
        case OUTPUT_SEND:
            note_acknowledged(cluster, &output.message);
            cluster_send(cluster, node, &output.peer, &output.message);
            break;
        case OUTPUT_CONNECT:
            cluster_connect(cluster, node, &output.peer, output.address);
            break;
        case OUTPUT_LOG:
            cluster_say(cluster, node, output.log.text);
            break;
        case OUTPUT_EXIT:
            cluster_exited(cluster, node, &output.exit);
            return;
        }
    }
    plan_commit(cluster, node);
}

void shard_start(struct cluster *cluster, struct cluster_node *node)
{
    struct shard_config config = {.process = node->process, .shard = (uint32_t)node->number,
                                  .commit_interval_ms = 10};
    char folder[300];
    struct error err = {0};

    node->shard = calloc(1, sizeof(*node->shard));
    assert_non_null(node->shard);
    shard_host_folder(cluster, node, folder, sizeof(folder));
    config.dir = folder;
    snprintf(config.control, sizeof(config.control), "sim:0:0");
    snprintf(config.ingest_ipc, sizeof(config.ingest_ipc), "sim:%d:%u",
             (int)(node - cluster->nodes), node->starts);
    memcpy(config.ingest_tcp, config.ingest_ipc, sizeof(config.ingest_tcp));
    memcpy(config.sample, config.ingest_ipc, sizeof(config.sample));
    assert_ok(shard_create(&node->shard->shard, &config, cluster->now, &err), err);
    shard_tick(node->shard->shard, cluster->now);
    drain(cluster, node);
}

void shard_abandon(struct cluster_node *node)
{
    shard_destroy(&node->shard->shard);
    free(node->shard);
    node->shard = NULL;
}

void shard_host_receive(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                        const struct message *message)
{
    shard_receive(node->shard->shard, cluster->now, peer, message);
    drain(cluster, node);
}

void shard_host_tick(struct cluster *cluster, struct cluster_node *node)
{
    shard_tick(node->shard->shard, cluster->now);
    drain(cluster, node);
}

uint64_t shard_host_deadline(const struct cluster_node *node)
{
    return shard_deadline(node->shard->shard);
}

void shard_host_commit(struct cluster *cluster, struct cluster_node *node)
{
    node->shard->committing = false;
    cluster->commits++;
    shard_commit(node->shard->shard, cluster->now);
    drain(cluster, node);
}

void shard_host_terminate(struct cluster *cluster, struct cluster_node *node)
{
    shard_terminate(node->shard->shard, cluster->now, false);
    drain(cluster, node);
}

store_t *shard_host_store(struct cluster_node *node)
{
    return shard_store(node->shard->shard);
}

void cluster_lose_store(struct cluster *cluster, struct cluster_node *node)
{
    char folder[300];

    cluster_kill(cluster, node, 100);
    shard_host_folder(cluster, node, folder, sizeof(folder));
    assert_int_equal(fs_remove_tree(folder, NULL), TD_OK);
}
