/* shard.c and its parts: what is answered to whom, and only after what is durable. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "learner/replay/shard.h"
#include "learner/replay/streams.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define RUN     77u
#define LEARNER 500u
#define ACTOR   1000u /* process of the actor in slot s: ACTOR + s */
#define HORIZON 3u
#define STRIDE  row_stride(&schema)

static const struct row_schema schema = {OBS_STATE, 5, 2};

static int sync_failures; /* of the next calls of fdatasync, which LMDB syncs its file with */

int fdatasync(int fd)
{
    if (sync_failures > 0) {
        sync_failures--;
        errno = EIO;
        return -1;
    }
    return fsync(fd);
}

/* One shard under test and everything it said since the last look. */
struct rig {
    shard_t *shard;
    char dir[512];
    uint64_t now;
    struct shard_output out[256];
    char bulk[1 << 16]; /* of the last Slices */
    int count;
};

static void drain(struct rig *rig)
{
    while (rig->count < (int)TD_LEN(rig->out) && shard_next(rig->shard, &rig->out[rig->count])) {
        const struct message *message = &rig->out[rig->count].message;

        if (rig->out[rig->count].kind == OUTPUT_SEND && message->bulks == 1) {
            assert_true(message->bulk[0].size <= sizeof(rig->bulk));
            memcpy(rig->bulk, message->bulk[0].data, message->bulk[0].size);
        }
        rig->count++;
    }
}

static void start(struct rig *rig)
{
    struct shard_config config = {.run = RUN, .process = 900, .dir = rig->dir,
                                  .control = "ipc:///control", .sample = "ipc:///sample",
                                  .ingest_ipc = "ipc:///ingest", .commit_interval_ms = 10};
    struct error err = {0};

    assert_ok(shard_create(&rig->shard, &config, rig->now, &err), err);
    drain(rig);
}

static void kill_and_restart(struct rig *rig)
{
    shard_destroy(&rig->shard);
    start(rig);
}

static void feed(struct rig *rig, uint32_t port, uint64_t from, const struct message *message)
{
    struct peer peer = {.port = port, .id = from};

    rig->count = 0;
    shard_receive(rig->shard, rig->now, &peer, message);
    drain(rig);
}

static void commit(struct rig *rig)
{
    rig->count = 0;
    shard_commit(rig->shard, rig->now);
    drain(rig);
}

static void pass(struct rig *rig, uint64_t ms)
{
    rig->count = 0;
    for (uint64_t end = rig->now + ms; rig->now < end;) {
        uint64_t next = shard_deadline(rig->shard);

        rig->now = next > rig->now && next < end ? next : rig->now + 1;
        shard_tick(rig->shard, rig->now);
        shard_commit(rig->shard, rig->now);
        drain(rig);
    }
}

/* The nth output of this message kind since the last look, or NULL. */
static const struct message *said(const struct rig *rig, uint32_t kind, int nth)
{
    for (int i = 0; i < rig->count; i++)
        if (rig->out[i].kind == OUTPUT_SEND && rig->out[i].message.kind == kind && nth-- == 0)
            return &rig->out[i].message;
    return NULL;
}

static const struct output_exit *exited(const struct rig *rig)
{
    for (int i = 0; i < rig->count; i++)
        if (rig->out[i].kind == OUTPUT_EXIT)
            return &rig->out[i].exit;
    return NULL;
}

static struct message learner_hello(uint32_t epoch, bool lockstep)
{
    return (struct message){
        .kind = MESSAGE_SAMPLE_HELLO,
        .run = RUN,
        .sample_hello = {.learner_epoch = epoch, .process = LEARNER,
                         .spec = {schema.obs_type, schema.obs_dim, schema.action_dim, 0, false},
                         .shards = 1, .horizon = HORIZON, .batch_size = 32, .seed = 4,
                         .lockstep = lockstep, .capacity = 1000, .map_rows = 5000,
                         .heartbeat_ms = 2000, .timeout_ms = 60000},
    };
}

static void join_learner(struct rig *rig, uint32_t epoch, bool lockstep)
{
    struct message message = learner_hello(epoch, lockstep);

    feed(rig, PORT_SAMPLE, LEARNER, &message);
    if (shard_dirty(rig->shard)) {
        assert_null(said(rig, MESSAGE_SAMPLE_WELCOME, 0)); /* the epoch is not durable yet */
        commit(rig);
    }
    assert_non_null(said(rig, MESSAGE_SAMPLE_WELCOME, 0));
}

static struct message credit(uint32_t epoch, uint64_t steps)
{
    return (struct message){.kind = MESSAGE_CREDIT, .run = RUN,
                            .credit = {.learner_epoch = epoch, .steps = steps}};
}

static struct rig *rig_with_learner(bool lockstep)
{
    static struct rig rig;
    static int count;
    struct message all = credit(1, LIMIT_NONE);

    shard_destroy(&rig.shard);
    rig = (struct rig){.now = 1000};
    snprintf(rig.dir, sizeof(rig.dir), "%s/shard%d", test_folder(), count++);
    start(&rig);
    join_learner(&rig, 1, lockstep);
    feed(&rig, PORT_SAMPLE, LEARNER, &all);
    return &rig;
}

static struct message actor_hello(uint32_t slot, uint64_t process)
{
    return (struct message){
        .kind = MESSAGE_INGEST_HELLO,
        .run = RUN,
        .ingest_hello = {.slot = slot, .process = process,
                         .spec = {schema.obs_type, schema.obs_dim, schema.action_dim, 0, false},
                         .count = 1},
    };
}

static struct stream_granted join_actor(struct rig *rig, uint32_t slot)
{
    struct message hello = actor_hello(slot, ACTOR + slot);

    feed(rig, PORT_INGEST, ACTOR + slot, &hello);
    assert_null(said(rig, MESSAGE_INGEST_WELCOME, 0)); /* its epoch is not durable yet */
    commit(rig);
    assert_non_null(said(rig, MESSAGE_INGEST_WELCOME, 0));
    assert_int_equal(said(rig, MESSAGE_INGEST_WELCOME, 0)->ingest_welcome.count, 1);
    return said(rig, MESSAGE_INGEST_WELCOME, 0)->ingest_welcome.streams[0];
}

static uint64_t store_id(struct rig *rig)
{
    return store_identity(shard_store(rig->shard))->store_id;
}

/* Rows first..first+count-1 of a stream whose episodes all have `length` rows. */
static struct message chunk(struct rig *rig, uint32_t slot, uint64_t epoch, uint64_t first,
                            uint32_t count, uint32_t length)
{
    static char bytes[1 << 17];
    struct message message = {
        .kind = MESSAGE_ROWS,
        .run = RUN,
        .bulks = 1,
        .rows = {.slot = slot, .process = ACTOR + slot, .store = store_id(rig), .epoch = epoch,
                 .first = first, .count = count, .stride = (uint32_t)STRIDE},
    };

    assert_true(count * STRIDE <= sizeof(bytes));
    for (uint32_t i = 0; i < count; i++) {
        uint64_t sequence = first + i;
        struct test_row_id id = {slot, 0, epoch, sequence};
        uint32_t flags = sequence % length == 0            ? (uint32_t)ROW_FIRST
                         : sequence % length == length - 1 ? (uint32_t)ROW_TRUNCATED
                                                           : 0u;

        test_row_fill(bytes + i * STRIDE, &schema, &id, flags);
    }
    message.bulk[0] = (struct bulk){bytes, count * STRIDE};
    return message;
}

static void send_rows(struct rig *rig, uint32_t slot, uint64_t first, uint32_t count, uint32_t length)
{
    struct message message = chunk(rig, slot, 1, first, count, length);

    feed(rig, PORT_INGEST, ACTOR + slot, &message);
}

static const struct ack *ack_of(const struct rig *rig, uint32_t slot)
{
    const struct ack *last = NULL;

    for (int i = 0; i < rig->count; i++)
        if (rig->out[i].kind == OUTPUT_SEND && rig->out[i].message.kind == MESSAGE_ACK &&
            rig->out[i].message.ack.slot == slot)
            last = &rig->out[i].message.ack;
    return last;
}

static struct message request(uint64_t id, uint32_t count, uint64_t after)
{
    return (struct message){.kind = MESSAGE_SAMPLE_REQUEST, .run = RUN,
                            .sample_request = {.learner_epoch = 1, .id = id, .update = id,
                                               .count = count, .after = after,
                                               .credit = LIMIT_NONE}};
}

/* --- ingest ---------------------------------------------------------------- */

static void a_new_shard_says_where_it_is_until_a_learner_comes(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct rig bare = {.now = 50};
    const struct message *hello;

    (void)state;
    snprintf(bare.dir, sizeof(bare.dir), "%s/bare", test_folder());
    start(&bare);
    assert_int_equal(bare.out[0].kind, OUTPUT_CONNECT);
    assert_string_equal(bare.out[0].address, "ipc:///control");
    assert_null(shard_store(bare.shard));
    pass(&bare, 1200);
    hello = said(&bare, MESSAGE_HELLO, 0);
    assert_non_null(hello);
    assert_non_null(said(&bare, MESSAGE_HELLO, 1));
    assert_int_equal(hello->hello.role, ROLE_SHARD);
    assert_string_equal(hello->hello.sample, "ipc:///sample");
    assert_int_not_equal(access(bare.dir, F_OK), 0); /* nothing is made before it is known what */
    shard_destroy(&bare.shard);

    pass(rig, 5000); /* a learner that speaks is not told again */
    assert_null(said(rig, MESSAGE_HELLO, 0));
    assert_non_null(said(rig, MESSAGE_STATUS, 0));
    pass(rig, 10000);
    hello = said(rig, MESSAGE_HELLO, 0);
    assert_non_null(hello); /* a silent one is */
    assert_true(hello->hello.store == store_id(rig));
    assert_int_equal(hello->hello.learner_epoch, 1);
}

static void rows_are_acknowledged_after_the_commit_only(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct stream_granted granted = join_actor(rig, 2);

    (void)state;
    assert_int_equal(granted.epoch, 1);
    assert_int_equal(granted.next, 0);
    assert_true(granted.limit == LIMIT_NONE);
    send_rows(rig, 2, 0, 5, 10);
    assert_int_equal(rig->count, 0);
    assert_true(shard_dirty(rig->shard));
    assert_true(shard_commit_due(rig->shard) == rig->now + 10);
    commit(rig);
    assert_false(shard_dirty(rig->shard));
    assert_int_equal(ack_of(rig, 2)->next, 5);
    send_rows(rig, 2, 0, 5, 10); /* again: answered at once, nothing to sync */
    assert_int_equal(ack_of(rig, 2)->next, 5);
    assert_false(shard_dirty(rig->shard));
    send_rows(rig, 2, 3, 4, 10); /* the tail is stored */
    send_rows(rig, 2, 5, 1, 10); /* a repeat of what is not synced yet waits too */
    assert_int_equal(rig->count, 0);
    commit(rig);
    assert_int_equal(ack_of(rig, 2)->next, 7);
    send_rows(rig, 2, 9, 2, 10); /* a gap; one Nack for many chunks behind it */
    assert_int_equal(said(rig, MESSAGE_NACK, 0)->nack.next, 7);
    send_rows(rig, 2, 11, 2, 10);
    assert_int_equal(rig->count, 0);
    rig->now += 200;
    send_rows(rig, 2, 13, 2, 10);
    assert_non_null(said(rig, MESSAGE_NACK, 0));
    assert_int_equal(store_counts(shard_store(rig->shard))->rows, 7);
}

static void a_killed_shard_loses_nothing_acknowledged_and_takes_nothing_twice(void **state)
{
    struct rig *rig = rig_with_learner(false);
    uint64_t acked = 0;

    (void)state;
    (void)join_actor(rig, 0);
    for (int round = 0; round < 40; round++) {
        uint32_t count = 1 + rng_below(test_rng(), 12);

        send_rows(rig, 0, acked, count, 7); /* the actor keeps all rows from `acked` on */
        if (rng_below(test_rng(), 2) == 0) {
            commit(rig);
            assert_non_null(ack_of(rig, 0));
            acked = ack_of(rig, 0)->next;
        }
        if (rng_below(test_rng(), 3) == 0) {
            uint64_t next;

            kill_and_restart(rig);
            next = store_stream(shard_store(rig->shard), 0, 0)->next;
            assert_true(next >= acked);
            assert_int_equal(store_counts(shard_store(rig->shard))->rows, next);
        }
    }
    send_rows(rig, 0, acked, 1, 7);
    commit(rig);
    for (uint64_t id = 0; id < store_committed(shard_store(rig->shard)); id++) {
        uint32_t count = 7;
        const char *rows = store_rows(shard_store(rig->shard), id, 0, &count);

        assert_non_null(rows);
        for (uint32_t i = 0; i < 7; i++)
            test_row_expect(rows + i * STRIDE, &schema,
                            &(struct test_row_id){0, 0, 1, id * 7 + i},
                            i == 0 ? ROW_FIRST : i == 6 ? ROW_TRUNCATED : 0);
    }
    store_rows_end(shard_store(rig->shard));
}

static void bad_rows_are_refused_counted_and_told(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message message;
    struct shard_view view;
    float nan_value = NAN;
    char copy[20 * 64];

    (void)state;
    (void)join_actor(rig, 3);
    message = chunk(rig, 3, 1, 0, 4, 10);
    memcpy(copy, message.bulk[0].data, message.bulk[0].size);
    memcpy(copy + 2 * STRIDE + sizeof(struct row_head), &nan_value, sizeof(nan_value));
    message.bulk[0].data = copy;
    feed(rig, PORT_INGEST, ACTOR + 3, &message);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.code, REFUSED_ROWS);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.sequence, 2);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.slot, 3);
    assert_non_null(strstr(said(rig, MESSAGE_REFUSED, 0)->refused.text, "not finite"));
    assert_false(shard_dirty(rig->shard)); /* none of the chunk is stored */

    message = chunk(rig, 3, 1, 0, 4, 10); /* misshaped */
    message.rows.stride -= 4;
    message.bulk[0].size -= 16;
    feed(rig, PORT_INGEST, ACTOR + 3, &message);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.code, REFUSED_ROWS);
    message = chunk(rig, 3, 1, 10, 4, 10); /* an episode that starts in the middle */
    message.rows.first = 0;
    message.bulk[0].data = (const char *)message.bulk[0].data + STRIDE;
    message.rows.count = 3;
    message.bulk[0].size = 3 * STRIDE;
    feed(rig, PORT_INGEST, ACTOR + 3, &message);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.sequence, 0);
    shard_view(rig->shard, rig->now, &view);
    assert_int_equal(view.rows_refused, 3);
    send_rows(rig, 3, 0, 4, 10); /* good ones go on */
    commit(rig);
    assert_int_equal(ack_of(rig, 3)->next, 4);
    pass(rig, 2100);
    assert_int_equal(said(rig, MESSAGE_STATUS, 0)->status.refused, 3);
}

static void foreign_parts_are_refused(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message message = actor_hello(1, 5);

    (void)state;
    message.run = RUN + 1;
    feed(rig, PORT_INGEST, 5, &message);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.code, REFUSED_RUN);
    message = actor_hello(1, 5);
    message.ingest_hello.spec.obs_dim = 99;
    feed(rig, PORT_INGEST, 5, &message);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.code, REFUSED_SPEC);
    assert_null(store_stream(shard_store(rig->shard), 1, 0));

    message = learner_hello(2, false); /* this run has other observations: the shard cannot serve it */
    message.sample_hello.spec.obs_dim = 9;
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.code, REFUSED_SPEC);
    assert_int_equal(exited(rig)->code, TD_EXIT_BAD_INPUT);
    assert_non_null(strstr(exited(rig)->text, "5 observations"));
}

/* It shows nothing, as a first Hello does; but the learner seated its process before the holder. */
static void a_first_hello_that_was_long_on_the_way_takes_no_stream(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message old = actor_hello(0, 1111), hello = actor_hello(0, 2222);

    (void)state;
    old.ingest_hello.seating = UINT64_C(1) << 32 | 7;
    hello.ingest_hello.seating = UINT64_C(1) << 32 | 8;
    feed(rig, PORT_INGEST, 2222, &hello);
    commit(rig);
    assert_int_equal(said(rig, MESSAGE_INGEST_WELCOME, 0)->ingest_welcome.streams[0].epoch, 1);
    feed(rig, PORT_INGEST, 1111, &old);
    assert_non_null(said(rig, MESSAGE_FENCED, 0));
    assert_true(store_stream(shard_store(rig->shard), 0, 0)->holder == 2222);
    old.ingest_hello.seating += 2; /* seated again: what it shows decides */
    feed(rig, PORT_INGEST, 1111, &old);
    commit(rig);
    assert_true(store_stream(shard_store(rig->shard), 0, 0)->holder == 1111);
    hello.ingest_hello.seating = UINT64_C(9) << 32; /* of a learner this shard has never seen: not believed */
    feed(rig, PORT_INGEST, 2222, &hello);
    commit(rig);
    feed(rig, PORT_INGEST, 1111, &old);
    commit(rig);
    assert_true(store_stream(shard_store(rig->shard), 0, 0)->holder == 1111);
}

static void a_new_process_takes_the_slot_and_the_old_one_is_fenced(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message hello = actor_hello(0, 2222), late;

    (void)state;
    (void)join_actor(rig, 0);
    send_rows(rig, 0, 0, 6, 10);
    commit(rig);
    feed(rig, PORT_INGEST, 2222, &hello);
    commit(rig);
    assert_int_equal(said(rig, MESSAGE_INGEST_WELCOME, 0)->ingest_welcome.streams[0].epoch, 2);
    assert_int_equal(store_counts(shard_store(rig->shard))->aborted, 1);
    send_rows(rig, 0, 6, 1, 10); /* the old one's rows */
    assert_true(said(rig, MESSAGE_FENCED, 0)->fenced.holder == 2222);
    hello = actor_hello(0, ACTOR);
    hello.ingest_hello.streams[0] = (struct stream_shown){.store = store_id(rig), .epoch = 1};
    feed(rig, PORT_INGEST, ACTOR, &hello);
    assert_non_null(said(rig, MESSAGE_FENCED, 0));
    assert_null(said(rig, MESSAGE_INGEST_WELCOME, 0));

    hello = actor_hello(0, 2222); /* the new one renews: its own late rows are ignored */
    hello.ingest_hello.streams[0] =
        (struct stream_shown){.store = store_id(rig), .epoch = 2, .renew = true};
    feed(rig, PORT_INGEST, 2222, &hello);
    commit(rig);
    assert_int_equal(said(rig, MESSAGE_INGEST_WELCOME, 0)->ingest_welcome.streams[0].epoch, 3);
    late = chunk(rig, 0, 2, 0, 3, 10);
    late.rows.process = 2222;
    feed(rig, PORT_INGEST, 2222, &late);
    assert_int_equal(rig->count, 0);
    late.rows.epoch = 9;
    feed(rig, PORT_INGEST, 2222, &late);
    assert_non_null(said(rig, MESSAGE_REJOIN, 0));
    late.rows.epoch = 3;
    late.rows.store++;
    feed(rig, PORT_INGEST, 2222, &late);
    assert_non_null(said(rig, MESSAGE_REJOIN, 0));
}

/* The streams that a process of fewer environments does not go on with are closed when it comes. */
static void streams_nobody_goes_on_with_are_closed(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message hello = actor_hello(0, ACTOR), rows;

    (void)state;
    hello.ingest_hello.count = 3;
    for (uint32_t e = 0; e < 3; e++)
        hello.ingest_hello.streams[e] = (struct stream_shown){.environment = e};
    feed(rig, PORT_INGEST, ACTOR, &hello);
    commit(rig);
    rows = chunk(rig, 0, 1, 0, 6, 10); /* of each an episode is under way */
    for (uint32_t e = 0; e < 3; e++) {
        rows.rows.environment = e;
        feed(rig, PORT_INGEST, ACTOR, &rows);
    }
    (void)join_actor(rig, 1); /* another slot: not its business */
    send_rows(rig, 1, 0, 6, 10);
    commit(rig);
    assert_int_equal(store_counts(shard_store(rig->shard))->aborted, 0);

    hello.ingest_hello.process = 2222; /* the first two go on in new epochs */
    hello.ingest_hello.count = 2;
    feed(rig, PORT_INGEST, 2222, &hello);
    commit(rig);
    assert_int_equal(said(rig, MESSAGE_INGEST_WELCOME, 0)->ingest_welcome.count, 2);
    assert_int_equal(store_counts(shard_store(rig->shard))->aborted, 3);
    assert_int_equal(store_stream(shard_store(rig->shard), 0, 2)->holder, 0);
    assert_int_equal(store_stream(shard_store(rig->shard), 0, 1)->holder, 2222);
    assert_int_equal(store_stream(shard_store(rig->shard), 1, 0)->holder, ACTOR + 1);

    /* A process that lost its slot closes nothing: the old one, come back with one environment. */
    hello.ingest_hello.process = ACTOR;
    hello.ingest_hello.count = 1;
    hello.ingest_hello.streams[0] = (struct stream_shown){.store = store_id(rig), .epoch = 1};
    feed(rig, PORT_INGEST, ACTOR, &hello);
    assert_non_null(said(rig, MESSAGE_FENCED, 0));
    assert_int_equal(store_stream(shard_store(rig->shard), 0, 1)->holder, 2222);

    /* Nor does a Hello of its own that shows less. */
    hello.ingest_hello.process = 2222;
    hello.ingest_hello.streams[0].epoch = 2;
    feed(rig, PORT_INGEST, 2222, &hello);
    assert_int_equal(store_stream(shard_store(rig->shard), 0, 1)->holder, 2222);
    assert_int_equal(store_counts(shard_store(rig->shard))->aborted, 3);
}

static void silence_closes_nothing_until_the_timeout(void **state)
{
    struct rig *rig = rig_with_learner(false);
    const struct store_stream *stream;
    struct message leave = {.kind = MESSAGE_LEAVE, .run = RUN,
                            .leave = {.role = ROLE_ACTOR, .slot = 1, .process = ACTOR + 1}};

    (void)state;
    (void)join_actor(rig, 0);
    (void)join_actor(rig, 1);
    send_rows(rig, 0, 0, 6, 10);
    send_rows(rig, 1, 0, 6, 10);
    commit(rig);
    pass(rig, 30000);
    assert_int_equal(said(rig, MESSAGE_STATUS, 5)->status.streams, 0); /* not live any more */
    stream = store_stream(shard_store(rig->shard), 0, 0);
    assert_int_equal(stream->holder, ACTOR);
    assert_int_equal(stream->open_rows, 6);
    send_rows(rig, 0, 6, 1, 10); /* it comes back and goes on */
    commit(rig);
    assert_int_equal(ack_of(rig, 0)->next, 7);
    feed(rig, PORT_INGEST, ACTOR + 1, &leave);
    assert_null(said(rig, MESSAGE_LEAVE, 0)); /* not before the end of its stream is synced */
    commit(rig);
    assert_int_equal(said(rig, MESSAGE_LEAVE, 0)->leave.process, ACTOR + 1);
    assert_int_equal(store_stream(shard_store(rig->shard), 1, 0)->holder, 0);
    feed(rig, PORT_INGEST, ACTOR + 1, &leave); /* it did not hear that */
    assert_non_null(said(rig, MESSAGE_LEAVE, 0));
    assert_int_equal(store_counts(shard_store(rig->shard))->aborted, 1);
    pass(rig, 63000);
    stream = store_stream(shard_store(rig->shard), 0, 0);
    assert_int_equal(stream->holder, 0);
    assert_int_equal(store_counts(shard_store(rig->shard))->aborted, 2);
    assert_int_equal(store_counts(shard_store(rig->shard))->rows, 13);
    send_rows(rig, 0, 7, 1, 10);
    assert_non_null(said(rig, MESSAGE_REJOIN, 0));
}

/* --- credit ---------------------------------------------------------------- */

/* Rows that nobody granted: the shard takes little of them, asks again when there is credit, and loses none. */
static void rows_beyond_the_share_wait_for_it(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message message = credit(1, 10);
    const struct store_stream *stream;
    struct stream_granted granted;

    (void)state;
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    granted = join_actor(rig, 0);
    for (int i = 0; i < 40; i++) {
        stream = store_stream(shard_store(rig->shard), 0, 0);
        message = chunk(rig, 0, granted.epoch, stream->next, 100, 10);
        feed(rig, PORT_INGEST, ACTOR, &message);
        assert_null(said(rig, MESSAGE_REFUSED, 0));
        commit(rig);
    }
    stream = store_stream(shard_store(rig->shard), 0, 0);
    assert_in_range(stream->steps, 400, 10 + (uint64_t)STREAM_BEYOND);
    message = credit(1, 5000);
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    pass(rig, 2500);
    assert_non_null(said(rig, MESSAGE_NACK, 0));
    assert_int_equal(said(rig, MESSAGE_NACK, 0)->nack.next, stream->next);
    for (int i = 0; i < 5; i++) {
        uint64_t next = store_stream(shard_store(rig->shard), 0, 0)->next;

        message = chunk(rig, 0, granted.epoch, next, 100, 10);
        feed(rig, PORT_INGEST, ACTOR, &message);
        commit(rig);
        assert_int_equal(store_stream(shard_store(rig->shard), 0, 0)->next, next + 100);
    }
}

static void credit_is_dealt_and_returns_from_the_dead(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message message = credit(1, 0);

    (void)state;
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    assert_int_equal(join_actor(rig, 0).limit, 0);
    assert_int_equal(join_actor(rig, 1).limit, 0);
    message = credit(1, 10);
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    assert_int_equal(ack_of(rig, 0)->limit, 5);
    assert_int_equal(ack_of(rig, 1)->limit, 5);
    feed(rig, PORT_SAMPLE, LEARNER, &message); /* repeating it changes nothing */
    assert_int_equal(rig->count, 0);
    send_rows(rig, 0, 0, 6, 10); /* a reset row and five steps */
    commit(rig);
    assert_int_equal(ack_of(rig, 0)->limit, 5);
    message = credit(1, 12);
    feed(rig, PORT_SAMPLE, LEARNER, &message); /* what is new goes to who has least */
    assert_int_equal(ack_of(rig, 0)->limit, 7);
    assert_null(ack_of(rig, 1));
    for (int i = 0; i < 6; i++) { /* stream 1 falls silent, stream 0 does not */
        pass(rig, 2000);
        send_rows(rig, 0, 0, 1, 10);
        feed(rig, PORT_SAMPLE, LEARNER, &message);
    }
    pass(rig, 2000);
    assert_int_equal(store_counts(shard_store(rig->shard))->steps, 5);
    send_rows(rig, 0, 0, 1, 10);
    assert_int_equal(ack_of(rig, 0)->limit, 12); /* all of it */
    message = credit(1, 6);
    feed(rig, PORT_SAMPLE, LEARNER, &message); /* a lowered one binds */
    assert_int_equal(ack_of(rig, 0)->limit, 6);
    message = credit(1, LIMIT_NONE);
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    assert_true(ack_of(rig, 0)->limit == LIMIT_NONE);
    message = credit(1, 9);
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    assert_int_equal(ack_of(rig, 0)->limit, 9);
}

/* A stream that lives but does not move must not keep the last steps of a run from the others. */
static void an_idle_stream_gives_up_its_share(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message message = credit(1, 10);
    uint64_t limit = 0, next = 6;

    (void)state;
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    (void)join_actor(rig, 0);
    (void)join_actor(rig, 1);
    feed(rig, PORT_SAMPLE, LEARNER, &message);
    send_rows(rig, 0, 0, 6, 100);
    commit(rig);
    for (int i = 0; i < 100 && limit < 10; i++) {
        struct message beat = {.kind = MESSAGE_HEARTBEAT, .run = RUN};

        feed(rig, PORT_INGEST, ACTOR + 1, &beat);
        feed(rig, PORT_INGEST, ACTOR, &beat);
        feed(rig, PORT_SAMPLE, LEARNER, &message);
        pass(rig, 1000);
        if (ack_of(rig, 0) != NULL)
            limit = ack_of(rig, 0)->limit;
        while (next - 1 < limit) {
            send_rows(rig, 0, next++, 1, 100);
            commit(rig);
        }
    }
    assert_int_equal(limit, 10);
}

/* --- sampling -------------------------------------------------------------- */

static void requests_wait_for_the_rows_they_name(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message ask = request(1, 8, 12);
    const struct slices *slices;

    (void)state;
    (void)join_actor(rig, 0);
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_null(said(rig, MESSAGE_SLICES, 0));
    send_rows(rig, 0, 0, 11, 10);
    commit(rig);
    assert_null(said(rig, MESSAGE_SLICES, 0));
    assert_null(said(rig, MESSAGE_STATUS, 0)); /* a request is open: its answer will say it */
    send_rows(rig, 0, 11, 1, 10);
    assert_null(said(rig, MESSAGE_SLICES, 0));
    commit(rig);
    assert_non_null(said(rig, MESSAGE_SLICES, 0));
    slices = &said(rig, MESSAGE_SLICES, 0)->slices;
    assert_int_equal(slices->count, 8);
    assert_int_equal(slices->id, 1);
    assert_int_equal(slices->episodes, 1);
    assert_int_equal(slices->status.rows, 12);
    assert_int_equal(slices->status.steps, 10);
    assert_int_equal(said(rig, MESSAGE_SLICES, 0)->bulk[0].size,
                     row_slices_bytes(&schema, HORIZON, 8));
    ask = request(2, 0, 3); /* only when */
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_int_equal(said(rig, MESSAGE_SLICES, 0)->slices.count, 0);
    assert_int_equal(said(rig, MESSAGE_SLICES, 0)->bulks, 0);
    send_rows(rig, 0, 12, 1, 10);
    commit(rig);
    pass(rig, 10);
    assert_non_null(said(rig, MESSAGE_STATUS, 0)); /* none is open: said by itself */
}

static void nothing_samplable_is_said(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message ask = request(1, 8, 0);

    (void)state;
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_int_equal(said(rig, MESSAGE_SLICES, 0)->slices.count, 0);
    assert_int_equal(said(rig, MESSAGE_SLICES, 0)->slices.episodes, 0);
    ask = request(2, 33, 0); /* more than was agreed on */
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.code, REFUSED_CONFIG);
}

/* A learner that agrees on other terms has no use for what it asked for before. */
static void new_terms_void_open_requests(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message ask = request(1, 32, 10), hello = learner_hello(1, false);

    (void)state;
    (void)join_actor(rig, 0);
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    hello.sample_hello.batch_size = 2;
    feed(rig, PORT_SAMPLE, LEARNER, &hello);
    send_rows(rig, 0, 0, 25, 10);
    commit(rig);
    assert_null(said(rig, MESSAGE_SLICES, 0));
}

static void lockstep_windows_and_repeats(void **state)
{
    struct rig *rig = rig_with_learner(true);
    struct message ask = request(5, 16, 20);
    char first[sizeof(rig->bulk)];
    size_t size;

    (void)state;
    (void)join_actor(rig, 0);
    send_rows(rig, 0, 0, 40, 10);
    commit(rig);
    ask.sample_request.has_window = true;
    ask.sample_request.last = 3;
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_int_equal(said(rig, MESSAGE_SLICES, 0)->slices.first, 0);
    assert_int_equal(said(rig, MESSAGE_SLICES, 0)->slices.last, 3);
    assert_int_equal(said(rig, MESSAGE_SLICES, 0)->slices.rows, 30);
    size = said(rig, MESSAGE_SLICES, 0)->bulk[0].size;
    memcpy(first, rig->bulk, size);
    send_rows(rig, 0, 40, 25, 10);
    commit(rig);
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_memory_equal(first, rig->bulk, size);
    kill_and_restart(rig);
    join_learner(rig, 1, true);
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_memory_equal(first, rig->bulk, size);
}

static void an_older_learner_is_fenced(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message ask = request(1, 1, 0), hello = learner_hello(3, false);

    (void)state;
    kill_and_restart(rig);
    hello.sample_hello.process = 600;
    feed(rig, PORT_SAMPLE, 600, &hello);
    commit(rig);
    assert_int_equal(said(rig, MESSAGE_SAMPLE_WELCOME, 0)->sample_welcome.learner_epoch, 3);
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.code, REFUSED_FENCED);
    assert_int_equal(said(rig, MESSAGE_REFUSED, 0)->refused.epoch, 3);
    hello = learner_hello(2, false); /* told which epoch to go above; the other one is still served */
    feed(rig, PORT_SAMPLE, LEARNER, &hello);
    assert_int_equal(said(rig, MESSAGE_SAMPLE_WELCOME, 0)->sample_welcome.learner_epoch, 3);
    ask.sample_request.learner_epoch = 3;
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    assert_int_equal(rig->count, 0);
    feed(rig, PORT_SAMPLE, 600, &ask);
    assert_non_null(said(rig, MESSAGE_SLICES, 0));
}

static void rewinding_voids_what_was_asked_and_held(void **state)
{
    struct rig *rig = rig_with_learner(true);
    struct message ask = request(9, 4, 100);
    struct message rewind = {.kind = MESSAGE_REWIND, .run = RUN,
                             .rewind = {.learner_epoch = 1, .generation = 44, .rows = 20,
                                        .sealed = 2}};
    const struct rewound *rewound;

    (void)state;
    (void)join_actor(rig, 0);
    send_rows(rig, 0, 0, 35, 10);
    commit(rig);
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    send_rows(rig, 0, 35, 2, 10);
    feed(rig, PORT_SAMPLE, LEARNER, &rewind);
    rewound = &said(rig, MESSAGE_REWOUND, 0)->rewound;
    assert_true(rewound->done);
    assert_int_equal(rewound->status.rows, 20);
    assert_int_equal(rewound->status.steps, 18);
    assert_int_equal(rewound->status.sealed, 2);
    assert_int_equal(rewound->status.episodes, 2);
    commit(rig);
    assert_null(ack_of(rig, 0)); /* what was open then is not acknowledged now */
    send_rows(rig, 0, 35, 2, 10);
    assert_non_null(said(rig, MESSAGE_REJOIN, 0));
    assert_int_equal(join_actor(rig, 0).epoch, 2);
    feed(rig, PORT_SAMPLE, LEARNER, &rewind); /* said twice */
    assert_true(said(rig, MESSAGE_REWOUND, 0)->rewound.done);
    assert_int_equal(store_stream(shard_store(rig->shard), 0, 0)->holder, ACTOR);
    kill_and_restart(rig);
    join_learner(rig, 1, true);
    feed(rig, PORT_SAMPLE, LEARNER, &rewind);
    assert_int_equal(store_stream(shard_store(rig->shard), 0, 0)->holder, ACTOR);
    rewind.rewind.generation = 45;
    rewind.rewind.rows = 21;
    feed(rig, PORT_SAMPLE, LEARNER, &rewind);
    assert_false(said(rig, MESSAGE_REWOUND, 0)->rewound.done);
    assert_true(strlen(said(rig, MESSAGE_REWOUND, 0)->rewound.text) > 10);
    assert_int_equal(store_counts(shard_store(rig->shard))->rows, 20);
}

/* --- room ------------------------------------------------------------------ */

/* Ten times as many rows as the table holds, into a map that is too small even for it. */
static void a_full_store_makes_room_and_asks_again(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message ask;
    uint64_t next = 0, nacks = 0;
    struct shard_view view;

    (void)state;
    for (uint64_t id = 1; next < 30000 && id < 100000; id++) {
        struct message rows;

        if (next == 0)
            (void)join_actor(rig, 0);
        rows = chunk(rig, 0, 1, next, 50, 25);
        feed(rig, PORT_INGEST, ACTOR, &rows);
        ask = request(id, 2, 0);
        feed(rig, PORT_SAMPLE, LEARNER, &ask);
        commit(rig);
        nacks += said(rig, MESSAGE_NACK, 0) != NULL;
        if (ack_of(rig, 0) != NULL)
            next = ack_of(rig, 0)->next;
    }
    assert_int_equal(next, 30000);
    shard_view(rig->shard, rig->now, &view);
    assert_true(view.evicted > 0);
    assert_true(store_counts(shard_store(rig->shard))->held_rows < 6000);
    assert_true(store_counts(shard_store(rig->shard))->held_rows >= 1000);
    assert_int_equal(store_counts(shard_store(rig->shard))->steps, 30000 / 25 * 24);
}

/* Lock-step: pages below `retain` only; with no checkpoint the store asks for one, then pauses. */
static void lockstep_keeps_what_checkpoints_need(void **state)
{
    struct rig *rig = rig_with_learner(true);
    struct message rows, ask;
    uint64_t next = 0, stuck = 0;
    bool asked = false;

    (void)state;
    (void)join_actor(rig, 0);
    while (stuck < 5) {
        rows = chunk(rig, 0, 1, next, 100, 25);
        feed(rig, PORT_INGEST, ACTOR, &rows);
        commit(rig);
        if (ack_of(rig, 0) != NULL && ack_of(rig, 0)->next > next)
            next = ack_of(rig, 0)->next;
        else
            stuck++;
        ask = request(next, 0, 0);
        feed(rig, PORT_SAMPLE, LEARNER, &ask);
        asked |= said(rig, MESSAGE_SLICES, 0)->slices.status.asks_checkpoint;
        assert_true(stuck == 0 || said(rig, MESSAGE_SLICES, 0)->slices.status.full);
    }
    assert_true(asked && next > 2000);
    assert_int_equal(store_counts(shard_store(rig->shard))->first, 0);
    ask.sample_request.id++;
    ask.sample_request.has_retain = true;
    ask.sample_request.retain = next / 25 - 40; /* a checkpoint is durable */
    feed(rig, PORT_SAMPLE, LEARNER, &ask);
    for (int i = 0; i < 50 && said(rig, MESSAGE_NACK, 0) == NULL; i++)
        pass(rig, 2000);
    assert_non_null(said(rig, MESSAGE_NACK, 0));
    assert_int_equal(said(rig, MESSAGE_NACK, 0)->nack.next, next);
    assert_true(store_counts(shard_store(rig->shard))->first > 0);
    rows = chunk(rig, 0, 1, next, 100, 25);
    feed(rig, PORT_INGEST, ACTOR, &rows);
    commit(rig);
    assert_int_equal(ack_of(rig, 0)->next, next + 100);
}

/* The disk is full when the transaction is synced: nothing is acknowledged, and asked for again later. */
static void a_full_disk_pauses_and_asks_again(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct rlimit old, tight;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    (void)join_actor(rig, 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = (rlim_t)test_used_bytes(rig->dir);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    send_rows(rig, 0, 0, 1500, 2000);
    commit(rig);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_null(ack_of(rig, 0));
    assert_null(exited(rig));
    assert_int_equal(store_counts(shard_store(rig->shard))->rows, 0);
    send_rows(rig, 0, 0, 10, 2000); /* too early: it waits a second before it tries again */
    commit(rig);
    assert_null(ack_of(rig, 0));
    pass(rig, 1100);
    assert_int_equal(said(rig, MESSAGE_NACK, 0)->nack.next, 0);
    send_rows(rig, 0, 0, 1500, 2000);
    commit(rig);
    assert_int_equal(ack_of(rig, 0)->next, 1500);
}

static void a_failed_sync_is_not_acknowledged(void **state)
{
    struct rig *rig = rig_with_learner(false);

    (void)state;
    (void)join_actor(rig, 0);
    send_rows(rig, 0, 0, 5, 10);
    commit(rig);
    send_rows(rig, 0, 5, 5, 10);
    sync_failures = 1;
    commit(rig);
    assert_null(ack_of(rig, 0));
    assert_int_equal(exited(rig)->code, TD_EXIT_GAVE_UP); /* started again, it reads what is there */
    kill_and_restart(rig);
    assert_int_equal(store_stream(shard_store(rig->shard), 0, 0)->next, 5);
    send_rows(rig, 0, 5, 5, 10);
    commit(rig);
    assert_int_equal(ack_of(rig, 0)->next, 10);
}

/* --- leaving --------------------------------------------------------------- */

/* --- damage ---------------------------------------------------------------- */

static const char *line_with(const struct rig *rig, const char *words)
{
    for (int i = 0; i < rig->count; i++)
        if (rig->out[i].kind == OUTPUT_LOG && strstr(rig->out[i].log.text, words) != NULL)
            return rig->out[i].log.text;
    return NULL;
}

/* As a kill leaves it, with nonsense where the newer meta says how the tree begins. */
static void wreck_file(const struct rig *rig)
{
    char path[600];
    uint64_t txns[2], nonsense = 3;
    int fd;

    snprintf(path, sizeof(path), "%s/closed", rig->dir);
    (void)unlink(path);
    snprintf(path, sizeof(path), "%s/data.mdb", rig->dir);
    fd = open(path, O_RDWR);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pread(fd, &txns[i], 8, i * 4096 + 144), 8);
    assert_int_equal(pwrite(fd, &nonsense, 8, (txns[1] > txns[0]) * 4096 + 128), 8);
    close(fd);
}

/* What was acknowledged is served from a new store, once; its writers begin a new epoch there. */
static void a_damaged_store_is_rescued_and_its_writers_go_on(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message hello = actor_hello(0, ACTOR), late;
    const struct message *welcome, *status;
    struct shard_view view;
    uint64_t old;

    (void)state;
    (void)join_actor(rig, 0);
    send_rows(rig, 0, 0, 34, 10); /* three episodes, and four rows under way */
    commit(rig);
    assert_int_equal(ack_of(rig, 0)->next, 34);
    (void)join_actor(rig, 1);
    late = chunk(rig, 0, 1, 34, 4, 10); /* still in the actor's outbox */
    old = store_id(rig);
    shard_destroy(&rig->shard);
    wreck_file(rig);
    rig->count = 0;
    start(rig);
    assert_non_null(line_with(rig, "is damaged"));
    assert_non_null(line_with(rig, "34 rows of 4 episodes (4 rows of episodes under way)"));
    assert_non_null(line_with(rig, "the file does not tell how much it held at last")); /* its newest root is gone */
    assert_null(line_with(rig, "acknowledged row"));
    assert_non_null(line_with(rig, "the damaged file is kept as"));
    assert_true(store_id(rig) != old);
    join_learner(rig, 1, false); /* its epoch is known: nothing must be durable first */
    status = said(rig, MESSAGE_SAMPLE_WELCOME, 0);
    assert_int_equal(status->sample_welcome.status.steps, 0); /* the learner has counted them under the other id */
    assert_int_equal(status->sample_welcome.status.episodes, 4);
    feed(rig, PORT_INGEST, ACTOR, &late);
    assert_non_null(said(rig, MESSAGE_REJOIN, 0));
    assert_null(said(rig, MESSAGE_NACK, 0)); /* nothing is asked for again */
    hello.ingest_hello.streams[0] = (struct stream_shown){.store = old, .epoch = 1};
    feed(rig, PORT_INGEST, ACTOR, &hello);
    commit(rig);
    welcome = said(rig, MESSAGE_INGEST_WELCOME, 0);
    assert_non_null(welcome);
    assert_int_equal(welcome->ingest_welcome.streams[0].epoch, 2);
    assert_int_equal(welcome->ingest_welcome.streams[0].next, 0);
    feed(rig, PORT_INGEST, ACTOR, &late); /* late rows of the old store: not taken */
    assert_null(ack_of(rig, 0));
    assert_int_equal(store_counts(shard_store(rig->shard))->held_rows, 34);
    shard_view(rig->shard, rig->now, &view);
    assert_int_equal(view.rows_lost, 0);
    late = chunk(rig, 0, 2, 0, 12, 10);
    feed(rig, PORT_INGEST, ACTOR, &late);
    commit(rig);
    assert_int_equal(ack_of(rig, 0)->next, 12);
}

static void a_terminated_shard_serves_until_all_have_left(void **state)
{
    struct rig *rig = rig_with_learner(false);
    struct message leaving = {.kind = MESSAGE_LEAVING, .run = RUN, .leaving = {.learner_epoch = 1}};
    struct message leave = {.kind = MESSAGE_LEAVE, .run = RUN,
                            .leave = {.role = ROLE_ACTOR, .slot = 0, .process = ACTOR}};

    (void)state;
    (void)join_actor(rig, 0);
    rig->count = 0;
    shard_terminate(rig->shard, rig->now, false);
    send_rows(rig, 0, 0, 5, 10);
    commit(rig);
    assert_int_equal(ack_of(rig, 0)->next, 5);
    feed(rig, PORT_SAMPLE, LEARNER, &leaving);
    pass(rig, 500);
    assert_null(exited(rig));
    feed(rig, PORT_INGEST, ACTOR, &leave);
    pass(rig, 500);
    assert_non_null(exited(rig));
    assert_int_equal(exited(rig)->code, TD_EXIT_OK);
    kill_and_restart(rig);
    assert_int_equal(store_counts(shard_store(rig->shard))->rows, 5);
    assert_int_equal(store_stream(shard_store(rig->shard), 0, 0)->holder, 0);
}

static void nobody_is_waited_for_longer_than_ten_seconds(void **state)
{
    struct rig *rig = rig_with_learner(false);

    (void)state;
    (void)join_actor(rig, 0);
    send_rows(rig, 0, 0, 5, 10);
    shard_terminate(rig->shard, rig->now, false);
    pass(rig, 9000);
    assert_null(exited(rig));
    pass(rig, 1500);
    assert_non_null(exited(rig));
    rig = rig_with_learner(false);
    (void)join_actor(rig, 0);
    send_rows(rig, 0, 0, 5, 10);
    rig->count = 0;
    shard_terminate(rig->shard, rig->now, true); /* the learner died: sync and go */
    drain(rig);
    assert_non_null(exited(rig));
    kill_and_restart(rig);
    assert_int_equal(store_counts(shard_store(rig->shard))->rows, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_shard_says_where_it_is_until_a_learner_comes),
        cmocka_unit_test(rows_are_acknowledged_after_the_commit_only),
        cmocka_unit_test(a_killed_shard_loses_nothing_acknowledged_and_takes_nothing_twice),
        cmocka_unit_test(bad_rows_are_refused_counted_and_told),
        cmocka_unit_test(foreign_parts_are_refused),
        cmocka_unit_test(a_first_hello_that_was_long_on_the_way_takes_no_stream),
        cmocka_unit_test(a_new_process_takes_the_slot_and_the_old_one_is_fenced),
        cmocka_unit_test(streams_nobody_goes_on_with_are_closed),
        cmocka_unit_test(silence_closes_nothing_until_the_timeout),
        cmocka_unit_test(rows_beyond_the_share_wait_for_it),
        cmocka_unit_test(credit_is_dealt_and_returns_from_the_dead),
        cmocka_unit_test(an_idle_stream_gives_up_its_share),
        cmocka_unit_test(requests_wait_for_the_rows_they_name),
        cmocka_unit_test(nothing_samplable_is_said),
        cmocka_unit_test(new_terms_void_open_requests),
        cmocka_unit_test(lockstep_windows_and_repeats),
        cmocka_unit_test(an_older_learner_is_fenced),
        cmocka_unit_test(rewinding_voids_what_was_asked_and_held),
        cmocka_unit_test(a_full_store_makes_room_and_asks_again),
        cmocka_unit_test(lockstep_keeps_what_checkpoints_need),
        cmocka_unit_test(a_full_disk_pauses_and_asks_again),
        cmocka_unit_test(a_failed_sync_is_not_acknowledged),
        cmocka_unit_test(a_damaged_store_is_rescued_and_its_writers_go_on),
        cmocka_unit_test(a_terminated_shard_serves_until_all_have_left),
        cmocka_unit_test(nobody_is_waited_for_longer_than_ten_seconds),
    };

    if (access("/dev/shm", W_OK) == 0) /* what a crash of the machine leaves is not the question here */
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
