/* A million slices drawn, a million messages coded, a million sent: no memory stays behind. */
#include <malloc.h>
#include <unistd.h>

#include "common/net/post.h"
#include "common/util/clock.h"
#include "common/wire/codec.h"
#include "learner/replay/sampler.h"
#include "tests/support/count_allocations.h"
#include "tests/support/messages.h"
#include "tests/support/test.h"
#include "tools/straw.h"

#if COUNTS_ALLOCATIONS
#define MILLION 1000000
#else
#define MILLION 50000 /* the sanitizers are slow, and count for themselves */
#endif
#define BATCH   256u

static const struct row_schema walker = {OBS_STATE, 24, 6}, pictures = {OBS_RGB, 900, 6};

/* From here on this thread's allocations count; returns those so far. */
static unsigned long count_from_here(void)
{
    atomic_store(&counting_main, true);
    atomic_store(&counting_allocations, true);
    return counted_allocations;
}

static unsigned long counted_since(unsigned long before)
{
    atomic_store(&counting_allocations, false);
    return counted_allocations - before;
}

/* Does it count at all? */
static void the_counter_counts(void **state)
{
    unsigned long before = count_from_here();

    (void)state;
    free(strdup("x"));
    assert_true(counted_since(before) > 0 || !COUNTS_ALLOCATIONS);
}

/* Slices of states, or of frames that are compressed. */
static void draw_slices(const struct row_schema *schema, uint64_t slices)
{
    struct sampler_config config = {.horizon = 3, .capacity = 200000, .seed = 1};
    struct store_config stored = {.run_id = 1};
    struct error err = {0};
    unsigned long before;
    sampler_t *sampler;
    char dir[512];
    struct straw_config filled = {.dir = dir, .schema = *schema, .episode = 501,
                                  .compress_frames = schema->obs_type == OBS_RGB};
    store_t *store;
    void *out;

    snprintf(dir, sizeof(dir), "%s/slices%u", test_folder(), schema->obs_dim);
    assert_ok(straw_fill(&filled, 1, 50000, &err), err);
    stored.dir = dir;
    assert_ok(store_open(&store, &stored, &err), err);
    assert_int_equal(sampler_create(&sampler, store, &config), TD_OK);
    assert_int_equal(sampler_window(sampler, SAMPLER_NEWEST)->episodes, 100);
    out = malloc(sampler_bytes(sampler, BATCH));
    assert_int_equal(sampler_draw(sampler, 0, BATCH, out), TD_OK);
    before = count_from_here();
    for (uint64_t drawn = 0; drawn < slices; drawn += BATCH)
        if (sampler_draw(sampler, drawn, BATCH, out) != TD_OK)
            fail_msg("draw %llu failed", (unsigned long long)drawn);
    assert_int_equal(counted_since(before), 0);
    free(out);
    sampler_destroy(&sampler);
    store_close(&store);
}

static void a_million_slices_are_drawn_without_an_allocation(void **state)
{
    (void)state;
    draw_slices(&walker, MILLION);
}

static void compressed_frames_are_drawn_without_an_allocation(void **state)
{
    (void)state;
    draw_slices(&pictures, MILLION / 50);
}

static void a_million_messages_are_coded_without_an_allocation(void **state)
{
    static struct message in[512], out;
    static uint8_t header[WIRE_HEADER_MAX];
    struct error err = {0};
    unsigned long before;
    codec_t *codec;

    (void)state;
    assert_int_equal(codec_create(&codec), TD_OK);
    for (int i = 0; i < (int)TD_LEN(in); i++)
        messages_random(test_rng(), messages_kind(i % messages_kinds()), &in[i]);
    before = count_from_here();
    for (int i = 0; i < MILLION; i++) {
        const struct message *message = &in[i % TD_LEN(in)];
        struct bulk frames[1 + WIRE_BULK_MAX] = {{header, codec_encode(codec, message, header)}};

        memcpy(frames + 1, message->bulk, message->bulks * sizeof(frames[0]));
        if (codec_decode(codec, frames, 1 + message->bulks, &out, &err) != TD_OK)
            fail_msg("%s: %s", message_name(message->kind), err.text);
    }
    assert_int_equal(counted_since(before), 0);
    codec_destroy(&codec);
}

/* --- over a socket ------------------------------------------------------------ */

struct end {
    post_t *post;
    struct message rows;
    uint64_t received, wanted; /* answers */
};

/* Rows are acknowledged. */
static void on_rows(void *context, const struct peer *peer, const struct message *message)
{
    struct end *end = context;
    struct message ack = {.kind = MESSAGE_ACK, .run = message->run};

    ack.ack = (struct ack){.store = message->rows.store, .epoch = message->rows.epoch,
                           .next = message->rows.first + message->rows.count};
    end->received++;
    post_send(end->post, peer, &ack);
}

static void send_rows(struct end *end)
{
    struct peer peer = {.port = PORT_INGEST, .local = true};

    end->rows.rows.first++;
    post_send(end->post, &peer, &end->rows);
}

/* And each acknowledgement is answered by rows. */
static void on_ack(void *context, const struct peer *peer, const struct message *message)
{
    struct end *end = context;

    (void)peer;
    (void)message;
    if (++end->received < end->wanted)
        send_rows(end);
}

static void exchange(loop_t *loop, struct end *writer, uint64_t messages)
{
    uint64_t end = clock_ms() + 120000; /* for a machine that does much else */

    writer->wanted = writer->received + messages;
    for (int i = 0; i < 32; i++)
        send_rows(writer);
    while (writer->received < writer->wanted) {
        assert_true(clock_ms() < end);
        loop_run_for(loop, 10);
    }
    loop_run_for(loop, 20); /* what is still under way */
}

static void a_million_messages_over_ipc_leave_nothing_behind(void **state)
{
    static char bytes[8 * 256];
    uint32_t stride = (uint32_t)row_stride(&walker);
    struct end writer = {.rows = {.kind = MESSAGE_ROWS, .run = 1, .bulks = 1, .bulk = {{bytes, 8 * stride}}}};
    struct end shard = {.rows = {.run = 1}};
    struct post_options options = {.process = 1, .run = 1, .on_message = on_ack, .context = &writer};
    struct peer peer = {.port = PORT_INGEST, .local = true};
    char address[ADDRESS_MAX];
    struct mallinfo2 before, after;
    struct error err = {0};
    loop_t *loop;

    (void)state;
    assert_true(8 * stride <= sizeof(bytes));
    writer.rows.rows = (struct rows){.slot = 1, .process = 1, .store = 1, .epoch = 1, .count = 8, .stride = stride};
    snprintf(address, sizeof(address), "ipc://%s/rows", test_folder());
    assert_ok(loop_create(&loop, &err), err);
    assert_ok(post_open(&writer.post, loop, &options, &err), err);
    options = (struct post_options){.process = 2, .run = 1, .on_message = on_rows, .context = &shard};
    assert_ok(post_open(&shard.post, loop, &options, &err), err);
    assert_ok(post_bind(shard.post, PORT_INGEST, address, &err), err);
    assert_ok(post_connect(writer.post, &peer, address, &err), err);
    exchange(loop, &writer, MILLION / 50); /* every queue has had its length */
    before = mallinfo2();
    exchange(loop, &writer, MILLION / 2); /* and as many answers */
    after = mallinfo2();
    print_message("in use %zu bytes, then %zu\n", before.uordblks + before.hblkhd, after.uordblks + after.hblkhd);
    assert_true(shard.received >= MILLION / 2);
    assert_true(post_unsent(writer.post) == 0 && post_unsent(shard.post) == 0);
    /* a byte per message would be half a million */
    assert_true(after.uordblks + after.hblkhd < before.uordblks + before.hblkhd + 65536);
    post_close(&writer.post, 0);
    post_close(&shard.post, 0);
    loop_destroy(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_counter_counts),
        cmocka_unit_test(a_million_slices_are_drawn_without_an_allocation),
        cmocka_unit_test(compressed_frames_are_drawn_without_an_allocation),
        cmocka_unit_test(a_million_messages_are_coded_without_an_allocation),
        cmocka_unit_test(a_million_messages_over_ipc_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
