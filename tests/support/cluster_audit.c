/*
 * What was sent and what was acknowledged, logged apart from the machines; compared with the stores.
 */
#include <math.h>

#include "common/store/store.h"
#include "tests/support/cluster.h"
#include "tests/support/test.h"

struct audit_stream {
    uint32_t slot, env;
    uint64_t store, epoch, next; /* next: acknowledged rows */
    uint64_t *hashes;            /* of the rows sent, by sequence */
    uint64_t *times;             /* when they were acknowledged */
    uint64_t count, capacity;
    uint64_t found;              /* while checking */
};

struct audit {
    struct audit_stream *streams;
    int count;
};

struct audit *audit_create(void)
{
    return calloc(1, sizeof(struct audit));
}

void audit_destroy(struct audit **audit)
{
    for (int i = 0; i < (*audit)->count; i++) {
        free((*audit)->streams[i].hashes);
        free((*audit)->streams[i].times);
    }
    free((*audit)->streams);
    free(*audit);
    *audit = NULL;
}

static struct audit_stream *stream_of(struct audit *audit, uint32_t slot, uint32_t env,
                                      uint64_t store, uint64_t epoch)
{
    for (int i = audit->count - 1; i >= 0; i--) {
        struct audit_stream *stream = &audit->streams[i];

        if (stream->slot == slot && stream->env == env && stream->store == store &&
            stream->epoch == epoch)
            return stream;
    }
    audit->streams = realloc(audit->streams, ((size_t)audit->count + 1) * sizeof(*audit->streams));
    assert_non_null(audit->streams);
    audit->streams[audit->count] = (struct audit_stream){.slot = slot, .env = env, .store = store,
                                                         .epoch = epoch};
    return &audit->streams[audit->count++];
}

/* A row resent under the same number must be the same row. */
void audit_sent(struct cluster *cluster, const struct message *message)
{
    const struct rows *rows = &message->rows;
    struct audit_stream *stream = stream_of(cluster->audit, rows->slot, rows->environment,
                                            rows->store, rows->epoch);

    assert_true(rows->first <= stream->count);
    for (uint32_t i = 0; i < rows->count; i++) {
        const char *row = (const char *)message->bulk[0].data + (size_t)i * rows->stride;
        uint64_t hash = cluster_mix(1, row, rows->stride);

        if (rows->first + i < stream->count) {
            assert_true(stream->hashes[rows->first + i] == hash);
            continue;
        }
        if (stream->count == stream->capacity) {
            stream->capacity = stream->capacity * 2 + 64;
            stream->hashes = realloc(stream->hashes, stream->capacity * sizeof(*stream->hashes));
            stream->times = realloc(stream->times, stream->capacity * sizeof(*stream->times));
            assert_true(stream->hashes != NULL && stream->times != NULL);
        }
        stream->hashes[stream->count++] = hash;
    }
}

void audit_acknowledged(struct cluster *cluster, uint32_t slot, uint32_t env, uint64_t store,
                        uint64_t epoch, uint64_t next)
{
    struct audit_stream *stream = stream_of(cluster->audit, slot, env, store, epoch);

    assert_true(next <= stream->count); /* nothing nobody sent */
    for (; stream->next < next; stream->next++)
        stream->times[stream->next] = cluster->now;
}

void audit_rewound(struct cluster *cluster, uint64_t store)
{
    for (int i = 0; i < cluster->audit->count; i++)
        if (cluster->audit->streams[i].store == store)
            cluster->audit->streams[i].next = 0;
}

/* One sealed episode: its rows are those sent, none of them seen in another episode. */
static uint64_t check_episode(struct cluster *cluster, store_t *store, uint64_t id)
{
    const struct store_identity *identity = store_identity(store);
    size_t stride = row_stride(&identity->schema);
    struct store_record record;
    struct audit_stream *stream;
    struct error err = {0};

    assert_ok(store_record(store, id, &record, &err), err);
    stream = stream_of(cluster->audit, record.slot, record.env, identity->store_id, record.epoch);
    /* in order, none twice, none left out; only before a stream's oldest kept one some were evicted */
    if (record.sequence != stream->found)
        assert_true(stream->found == 0 && record.sequence > 0 && store_counts(store)->first > 0);
    for (uint32_t row = 0; row < record.rows;) {
        uint32_t count = record.rows - row;
        const char *rows = store_rows(store, id, row, &count);

        assert_non_null(rows);
        assert_true(count > 0);
        for (uint32_t i = 0; i < count; i++) {
            uint64_t sequence = record.sequence + row + i;

            if (sequence >= stream->count)
                fail_msg("slot %u.%u epoch %llu of store %llx: row %llu was never sent", record.slot, record.env,
                         (unsigned long long)record.epoch, (unsigned long long)identity->store_id,
                         (unsigned long long)sequence);
            assert_true(stream->hashes[sequence] == cluster_mix(1, rows + i * stride, stride));
        }
        row += count;
    }
    store_rows_end(store);
    stream->found = record.sequence + record.rows;
    return record.rows;
}

static uint64_t check_store(struct cluster *cluster, store_t *store)
{
    const struct store_counts *counts = store_counts(store);
    uint64_t id = store_identity(store)->store_id, rows = 0;
    struct audit *audit = cluster->audit;

    for (int i = 0; i < audit->count; i++)
        audit->streams[i].found = 0;
    for (uint64_t episode = counts->first; episode < counts->sealed; episode++)
        rows += check_episode(cluster, store, episode);
    for (size_t i = 0; i < store_stream_count(store); i++) {
        const struct store_stream *open = store_stream_at(store, i);
        struct audit_stream *stream = stream_of(audit, open->slot, open->env, id, open->epoch);

        if (counts->first == 0 || stream->found > 0)
            assert_true(open->epoch == 0 || stream->found + open->open_rows == open->next);
        stream->found = open->next;
        rows += open->open_rows;
    }
    for (int i = 0; i < audit->count; i++)
        if (audit->streams[i].store == id && audit->streams[i].found < audit->streams[i].next &&
            (counts->first == 0 || audit->streams[i].found > 0))
            fail_msg("slot %u.%u epoch %llu: %llu rows acknowledged (the first that is missing at %llu ms), %llu in the store",
                     audit->streams[i].slot, audit->streams[i].env, (unsigned long long)audit->streams[i].epoch,
                     (unsigned long long)audit->streams[i].next,
                     (unsigned long long)audit->streams[i].times[audit->streams[i].found],
                     (unsigned long long)audit->streams[i].found);
    assert_true(counts->first == 0 ? rows == counts->rows : rows <= counts->rows);
    return rows;
}

/* Every shard is abandoned first, so that only what is durable is read. */
uint64_t audit_check(struct cluster *cluster)
{
    uint64_t rows = 0;

    for (int i = 0; i < cluster->node_count; i++) {
        struct cluster_node *node = &cluster->nodes[i];
        struct store_config config = {.any_shard = true};
        char folder[300];
        struct error err = {0};
        store_t *store = NULL;

        if (node->kind != NODE_SHARD)
            continue;
        cluster_kill(cluster, node, UINT64_MAX);
        shard_host_folder(cluster, node, folder, sizeof(folder));
        config.dir = folder;
        assert_ok(store_open(&store, &config, &err), err);
        rows += check_store(cluster, store);
        store_close(&store);
    }
    return rows;
}

int audit_streams(const struct cluster *cluster)
{
    const struct audit *audit = cluster->audit;
    int count = 0;

    for (int i = 0; i < audit->count; i++) {
        bool again = audit->streams[i].next == 0;

        for (int j = 0; j < i && !again; j++)
            again = audit->streams[j].next > 0 && audit->streams[j].slot == audit->streams[i].slot &&
                    audit->streams[j].env == audit->streams[i].env;
        count += !again;
    }
    return count;
}

/* --- counts ------------------------------------------------------------------ */

void cluster_fail_stuck(struct cluster *cluster, const char *what)
{
    struct coordinator_view view = cluster_view(cluster);

    for (int i = 0; i < cluster->node_count; i++) {
        const struct cluster_node *node = &cluster->nodes[i];

        print_message("node %d (kind %d, %d): %s, last exit %d %s\n", i, node->kind, node->number,
                      node->alive ? "alive" : "dead", node->exit_code, node->exit_text);
    }
    fail_msg("%s: no end: phase %s, %llu steps, %llu updates, cursor %lld, limit %llu, waiting for %s",
             what, phase_name(view.phase), (unsigned long long)view.steps,
             (unsigned long long)view.updates, (long long)view.cursor,
             (unsigned long long)view.limit, view.wait);
}

struct progress cluster_progress(const struct cluster *cluster)
{
    cJSON *json = cJSON_Parse(cluster_durable(cluster)->progress);
    struct progress progress;
    struct error err = {0};

    assert_ok(progress_from_json(&progress, json, &err), err);
    cJSON_Delete(json);
    return progress;
}

uint64_t cluster_steps(const struct progress *progress)
{
    uint64_t steps = 0;

    for (uint32_t i = 0; i < progress->stores; i++)
        steps += progress->store[i].steps;
    return steps;
}

/* Steps and updates at the end are those the limiter promises; the final evaluation was of the end. */
void cluster_check_counts(const struct cluster *cluster)
{
    struct progress progress = cluster_progress(cluster);
    uint64_t steps = cluster_steps(&progress);
    double owed, late; /* late: rows that were on the way when all was complete */

    assert_int_equal(cluster_durable(cluster)->kind, SAVE_FINAL);
    assert_true(steps >= cluster->options.steps + 1);
    owed = floor((double)(steps - 1 - progress.excess) * cluster->options.utd);
    late = ceil((double)(steps - 1 - cluster->options.steps) * cluster->options.utd);
    if (cluster->options.seed_steps > cluster->options.steps)
        assert_true(progress.updates == 0);
    else if ((double)progress.updates > owed || (double)progress.updates < owed - late)
        fail_msg("TD_SIM_SEED=%llu: %llu steps, %llu excess, utd %g, yet %llu updates",
                 (unsigned long long)cluster->options.seed, (unsigned long long)steps,
                 (unsigned long long)progress.excess, cluster->options.utd,
                 (unsigned long long)progress.updates);
    assert_true(cluster_durable(cluster)->version == progress.updates);
    if (cluster->options.evaluator) {
        assert_true(cluster->eval_count > 0);
        assert_true(cluster->eval[cluster->eval_count - 1].final);
        assert_true(cluster->eval[cluster->eval_count - 1].version == progress.updates);
    }
}
