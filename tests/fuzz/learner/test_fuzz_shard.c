/*
 * A shard that is told anything by anyone, in any order, between kills: it never falls, what it has
 * acknowledged stays, and its store is sound at the end.
 */
#include <unistd.h>

#include "common/store/verify.h"
#include "learner/replay/shard.h"
#include "tests/support/messages.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define RUN   9u
#define SLOTS 3u

static struct row_schema states = {OBS_STATE, 4, 1}, frames = {OBS_RGB, 21, 1};
static struct row_schema schema; /* of the test under way */

struct rig {
    shard_t *shard;
    char dir[512];
    uint64_t now;
    uint64_t acked[SLOTS], epoch[SLOTS]; /* the last promise about each stream */
    uint64_t rewinds;
};

static uint32_t below(uint32_t n)
{
    return rng_below(test_rng(), n);
}

static uint64_t small(void)
{
    return below(20) == 0 ? rng_u64(test_rng()) : below(40);
}

static void listen(struct rig *rig)
{
    struct shard_output output;

    while (shard_next(rig->shard, &output)) {
        const struct ack *ack = &output.message.ack;

        if (output.kind == OUTPUT_SEND && output.message.kind == MESSAGE_ACK && ack->slot < SLOTS &&
            ack->environment == 0) {
            assert_true(rig->epoch[ack->slot] != ack->epoch || ack->next >= rig->acked[ack->slot]);
            rig->acked[ack->slot] = ack->next;
            rig->epoch[ack->slot] = ack->epoch;
        }
        if (output.kind == OUTPUT_SEND && output.message.kind == MESSAGE_REWOUND)
            memset(rig->epoch, 0, sizeof(rig->epoch)); /* promises of before are taken back */
        if (output.kind == OUTPUT_SEND && output.message.bulks == 1)
            for (size_t i = 0; i < output.message.bulk[0].size; i += 64)
                (void)*(volatile const char *)((const char *)output.message.bulk[0].data + i);
    }
}

static void start(struct rig *rig)
{
    struct shard_config config = {.run = RUN, .process = 77, .dir = rig->dir, .control = "ipc:///c",
                                  .sample = "ipc:///s", .ingest_ipc = "ipc:///i"};
    struct error err = {0};

    shard_destroy(&rig->shard);
    assert_ok(shard_create(&rig->shard, &config, rig->now, &err), err);
    listen(rig);
    for (uint32_t slot = 0; slot < SLOTS && shard_store(rig->shard) != NULL; slot++) {
        const struct store_stream *stream = store_stream(shard_store(rig->shard), slot, 0);

        if (rig->epoch[slot] != 0 && stream != NULL && stream->epoch == rig->epoch[slot])
            assert_true(stream->next >= rig->acked[slot]);
    }
}

/* A message of any kind, pulled towards what makes sense here. */
static void invent(struct rig *rig, struct message *message, struct peer *peer)
{
    static char rows[64 * 64];
    store_t *store = shard_store(rig->shard);
    uint64_t id = store == NULL ? 1 : store_identity(store)->store_id;

    messages_random(test_rng(), messages_kind((int)below((uint32_t)messages_kinds())), message);
    message->run = below(50) == 0 ? small() : RUN;
    *peer = (struct peer){.port = PORT_CONTROL + below(3), .id = 1 + below(4)};
    switch (below(8)) {
    case 0:
        message->kind = MESSAGE_SAMPLE_HELLO;
        message->bulks = 0;
        message->sample_hello = (struct sample_hello){
            .learner_epoch = 1 + below(30) / 28, .spec = {schema.obs_type, schema.obs_dim, 1, 0, false}, .horizon = 1 + below(4),
            .batch_size = 1 + below(20), .lockstep = below(3) == 0, .capacity = 20 + below(200),
            .map_rows = 2000, .heartbeat_ms = small(), .timeout_ms = small()};
        break;
    case 1:
        message->kind = MESSAGE_INGEST_HELLO;
        message->bulks = 0;
        memset(&message->ingest_hello, 0, sizeof(message->ingest_hello));
        message->ingest_hello.slot = below(SLOTS);
        message->ingest_hello.process = below(4);
        message->ingest_hello.spec = (struct message_spec){schema.obs_type, schema.obs_dim, 1, 0, false, 0};
        message->ingest_hello.count = 1 + below(2);
        for (int i = 0; i < 2; i++)
            message->ingest_hello.streams[i] = (struct stream_shown){
                below(2), below(4) ? id : small(), small(), below(4) == 0};
        break;
    case 2:
        message->kind = MESSAGE_SAMPLE_REQUEST;
        message->bulks = 0;
        message->sample_request = (struct sample_request){
            .learner_epoch = 1 + below(30) / 28, .id = small(), .count = below(24), .after = small(),
            .has_window = below(2), .last = small(), .has_retain = below(4) == 0, .retain = small(),
            .credit = below(2) ? LIMIT_NONE : small()};
        break;
    case 3:
    case 4:
    case 5: { /* good rows, or nearly */
        uint32_t slot = below(SLOTS), count = 1 + below(12);
        const struct store_stream *stream = store == NULL ? NULL : store_stream(store, slot, 0);
        uint64_t first = stream == NULL ? 0 : stream->next;

        message->kind = MESSAGE_ROWS;
        message->rows = (struct rows){.slot = slot, .process = stream == NULL ? 1 : stream->holder,
                                      .store = id, .epoch = stream == NULL ? 1 : stream->epoch,
                                      .first = first, .count = count,
                                      .stride = (uint32_t)row_stride(&schema)};
        for (uint32_t i = 0; i < count; i++) {
            struct test_row_id name = {slot, 0, message->rows.epoch, first + i};
            bool begins = (first + i) % 6 == 0, ends = (first + i) % 6 == 5;

            test_row_fill(rows + i * row_stride(&schema), &schema, &name,
                          begins ? ROW_FIRST : ends ? ROW_TRUNCATED : 0);
        }
        message->bulks = 1;
        message->bulk[0] = (struct bulk){rows, count * row_stride(&schema)};
        if (below(8) == 0)
            rows[below((uint32_t)message->bulk[0].size)] ^= (char)(1 << below(8));
        if (below(10) == 0)
            message->rows.first = small();
        if (below(10) == 0)
            message->rows.process = below(4);
        break;
    }
    case 6:
        if (below(10) != 0)
            break;
        message->kind = MESSAGE_REWIND;
        message->bulks = 0;
        message->rewind = (struct rewind_order){
            .learner_epoch = 1, .generation = ++rig->rewinds,
            .rows = store == NULL || below(3) == 0 ? small() : store_counts(store)->rows,
            .sealed = store == NULL || below(3) == 0 ? small() : store_counts(store)->sealed};
        break;
    default:
        break;
    }
    if (message->kind >= MESSAGE_SAMPLE_HELLO && message->kind <= MESSAGE_REWOUND && below(9) != 0)
        *peer = (struct peer){.port = PORT_SAMPLE, .id = 1};
    if (message->kind >= MESSAGE_INGEST_HELLO && message->kind <= MESSAGE_FENCED && below(9) != 0)
        peer->port = PORT_INGEST;
}

static void nothing_that_is_said_breaks_a_shard(void **state)
{
    static struct rig rig;
    long rounds = test_long() ? 4000000 : 120000;
    struct verify_report report;
    struct error err = {0};
    uint64_t rows = 0;

    schema = **(struct row_schema **)state;
    memset(&rig, 0, sizeof(rig));
    rig.now = 1;
    snprintf(rig.dir, sizeof(rig.dir), "%s/shard%u", test_folder(), schema.obs_type);
    start(&rig);
    for (long round = 0; round < rounds; round++) {
        struct message message;
        struct peer peer;
        struct shard_view view;

        invent(&rig, &message, &peer);
        shard_receive(rig.shard, rig.now, &peer, &message);
        listen(&rig);
        if (below(6) == 0)
            shard_commit(rig.shard, rig.now);
        if (below(8) == 0) {
            rig.now += below(4) == 0 ? below(3000) : below(20);
            shard_tick(rig.shard, rig.now);
        }
        listen(&rig);
        shard_view(rig.shard, rig.now, &view);
        if (view.counts != NULL)
            rows = view.counts->rows > rows ? view.counts->rows : rows;
        if (below(300) == 0 || shard_deadline(rig.shard) == UINT64_MAX) /* killed, or it took its leave */
            start(&rig);
    }
    assert_true(rows > 1000); /* it was not all noise */
    shard_commit(rig.shard, rig.now);
    assert_ok(store_verify(shard_store(rig.shard), &report, NULL, NULL, &err), err);
    assert_true(verify_clean(&report));
    shard_destroy(&rig.shard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(nothing_that_is_said_breaks_a_shard, &states),
        cmocka_unit_test_prestate(nothing_that_is_said_breaks_a_shard, &frames),
    };

    if (access("/dev/shm", W_OK) == 0) /* what a crash of the machine leaves is not the question here */
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
