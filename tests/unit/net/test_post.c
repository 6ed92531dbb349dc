#include "tests/support/test.h"
#include "tests/support/messages.h"

#include <zmq.h>

#include "common/net/post.h"
#include "common/util/clock.h"
#include "tests/support/loops.h"
#include "common/wire/codec.h"


struct part {
    post_t *post;
    int received;
    struct peer peer;
    struct message expected, last;
    bool echo, check, take, drop_line;
    channel_blob_t *blob;
};

static void on_message(void *context, const struct peer *peer, const struct message *message)
{
    struct part *part = context;

    part->received++;
    part->peer = *peer;
    part->last = *message; /* bulk pointers are not used later */
    if (part->check)
        assert_true(messages_equal(message, &part->expected));
    if (part->take)
        part->blob = post_take(part->post, 0);
    if (part->echo)
        post_send(part->post, peer, message);
    if (part->drop_line)
        post_disconnect(part->post, peer);
}

static void open_part(struct part *part, loop_t *loop, uint64_t process)
{
    struct post_options options = {
        .process = process,
        .run = 99,
        .on_message = on_message,
        .context = part,
    };
    struct error err;

    assert_ok(post_open(&part->post, loop, &options, &err), err);
}

static loop_t *make_loop(void)
{
    struct error err;
    loop_t *loop;

    assert_ok(loop_create(&loop, &err), err);
    return loop;
}

static struct message beat(uint64_t run)
{
    struct message message;

    memset(&message, 0, sizeof(message));
    messages_random(test_rng(), MESSAGE_HEARTBEAT, &message);
    message.run = run;
    return message;
}

static void every_kind_arrives_as_it_was_sent(void **state)
{
    struct part server = {.echo = true, .check = true}, client = {.check = true};
    struct peer to = {.port = PORT_CONTROL, .id = 5};
    loop_t *loop = make_loop();
    struct error err;

    (void)state;
    open_part(&server, loop, 1);
    open_part(&client, loop, 2);
    assert_ok(post_bind(server.post, PORT_CONTROL, loops_ipc_address(), &err), err);
    assert_ok(post_connect(client.post, &to, post_address(server.post, PORT_CONTROL, true), &err), err);
    assert_string_equal(post_address(server.post, PORT_CONTROL, false), "");
    assert_string_equal(post_connected(client.post, &to), post_address(server.post, PORT_CONTROL, true));
    for (int i = 0; i < messages_kinds(); i++) {
        messages_random(test_rng(), messages_kind(i), &client.expected);
        server.expected = client.expected;
        post_send(client.post, &to, &client.expected);
        loops_pump(loop, &client.received, i + 1);
    }
    assert_int_equal(server.peer.port, PORT_CONTROL);
    assert_true(server.peer.local);
    assert_int_equal(server.peer.id, 2); /* a ROUTER knows the process */
    assert_int_equal(client.peer.id, 5); /* a DEALER's peer is as it was named */
    assert_int_equal(post_unsent(client.post) + post_unsent(server.post), 0);
    post_close(&client.post, 0);
    post_close(&server.post, 0);
    assert_null(server.post);
    loop_destroy(&loop);
    channel_shutdown();
}

/* The same process may come over ipc and over tcp: the answer goes the way the question came. */
static void answers_go_the_way_the_question_came(void **state)
{
    struct part server = {.echo = true}, near = {0}, far = {0};
    struct peer control = {.port = PORT_CONTROL};
    struct message message = beat(99);
    loop_t *loop = make_loop();
    struct error err;

    (void)state;
    open_part(&server, loop, 1);
    open_part(&near, loop, 7);
    open_part(&far, loop, 7);
    assert_ok(post_bind(server.post, PORT_CONTROL, loops_ipc_address(), &err), err);
    assert_ok(post_bind(server.post, PORT_CONTROL, "tcp://127.0.0.1:*", &err), err);
    assert_ok(post_connect(near.post, &control, post_address(server.post, PORT_CONTROL, true), &err), err);
    assert_ok(post_connect(far.post, &control, post_address(server.post, PORT_CONTROL, false), &err), err);
    for (int i = 1; i <= 3; i++) {
        post_send(near.post, &control, &message);
        loops_pump(loop, &near.received, i);
        assert_true(server.peer.local);
        post_send(far.post, &control, &message);
        loops_pump(loop, &far.received, i);
        assert_false(server.peer.local);
        assert_int_equal(server.peer.id, 7);
    }
    assert_int_equal(near.received, 3);
    post_close(&near.post, 0);
    post_close(&far.post, 0);
    post_close(&server.post, 0);
    loop_destroy(&loop);
    channel_shutdown();
}

static void announcements_reach_everyone(void **state)
{
    struct part server = {0}, near = {0}, far = {0};
    struct peer announce = {.port = PORT_ANNOUNCE};
    loop_t *loop = make_loop();
    struct message message;
    struct error err;

    (void)state;
    messages_random(test_rng(), MESSAGE_ANNOUNCE, &message);
    open_part(&server, loop, 1);
    open_part(&near, loop, 2);
    open_part(&far, loop, 3);
    assert_ok(post_bind(server.post, PORT_ANNOUNCE, loops_ipc_address(), &err), err);
    assert_ok(post_bind(server.post, PORT_ANNOUNCE, "tcp://127.0.0.1:*", &err), err);
    assert_ok(post_connect(near.post, &announce, post_address(server.post, PORT_ANNOUNCE, true), &err), err);
    assert_ok(post_connect(far.post, &announce, post_address(server.post, PORT_ANNOUNCE, false), &err), err);
    for (uint64_t start = clock_ms(); near.received == 0 || far.received == 0;) {
        assert_true(clock_ms() - start < LOOPS_DEADLINE_MS);
        post_send(server.post, &announce, &message);
        loop_run_for(loop, 10);
    }
    post_close(&near.post, 0);
    post_close(&far.post, 0);
    post_close(&server.post, 0);
    loop_destroy(&loop);
    channel_shutdown();
}

static void bulk_may_be_kept_and_lines_dropped_inside_the_call(void **state)
{
    struct part server = {.echo = true}, client = {.take = true, .drop_line = true};
    struct peer to = {.port = PORT_CONTROL};
    loop_t *loop = make_loop();
    struct message message;
    struct error err;

    (void)state;
    messages_random(test_rng(), MESSAGE_CHUNK, &message);
    open_part(&server, loop, 1);
    open_part(&client, loop, 2);
    assert_ok(post_bind(server.post, PORT_CONTROL, loops_ipc_address(), &err), err);
    for (int i = 1; i <= 3; i++) {
        assert_ok(post_connect(client.post, &to, post_address(server.post, PORT_CONTROL, true), &err), err);
        post_send(client.post, &to, &message);
        loops_pump(loop, &client.received, i);
        assert_null(post_connected(client.post, &to));
        assert_int_equal(channel_blob_length(client.blob), message.bulk[0].size);
        assert_memory_equal(channel_blob_bytes(client.blob), message.bulk[0].data, message.bulk[0].size);
        channel_blob_release(&client.blob);
    }
    post_send(client.post, &to, &message); /* nobody there: dropped and counted */
    assert_int_equal(post_unsent(client.post), 1);
    to = (struct peer){.port = PORT_CONTROL, .local = true, .id = 1234};
    post_send(server.post, &to, &message);
    assert_int_equal(post_unsent(server.post), 1);
    post_close(&client.post, 0);
    post_close(&server.post, 0);
    loop_destroy(&loop);
    channel_shutdown();
}

/* Frames made by hand: rubbish, then a header of a later protocol version. */
static void rubbish_is_dropped_and_other_versions_are_told(void **state)
{
    struct metrics_owner owner = {"learner", METRIC_LEARNER, 0, 1, 2};
    struct part server = {0};
    struct post_options options = {.process = 1, .run = 99, .on_message = on_message, .context = &server};
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_DEALER);
    unsigned char header[WIRE_HEADER_MAX], answer[WIRE_HEADER_MAX];
    struct message message = beat(99), decoded;
    loop_t *loop = make_loop();
    metrics_t *metrics;
    codec_t *codec;
    struct error err;
    struct bulk frame = {answer, 0};
    size_t length;
    int received = -1, linger = 0;

    (void)state;
    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    options.metrics = metrics;
    assert_ok(post_open(&server.post, loop, &options, &err), err);
    assert_ok(post_bind(server.post, PORT_CONTROL, loops_ipc_address(), &err), err);
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(raw, ZMQ_ROUTING_ID, "P\1\2\3\4\5\6\7\10", 9);
    assert_int_equal(zmq_connect(raw, post_address(server.post, PORT_CONTROL, true)), 0);
    zmq_send(raw, "rubbish", 7, 0);
    zmq_send(raw, "", 0, 0);
    assert_int_equal(codec_create(&codec), TD_OK);
    length = codec_encode(codec, &message, header);
    assert_int_equal(header[0], 0x08); /* field 1, the protocol version, as a varint */
    assert_int_equal(header[1], PROTOCOL_VERSION);
    header[1] = PROTOCOL_VERSION + 1;
    zmq_send(raw, header, length, 0);
    for (uint64_t start = clock_ms(); received < 0;) {
        assert_true(clock_ms() - start < LOOPS_DEADLINE_MS);
        loop_run_for(loop, 20);
        received = zmq_recv(raw, answer, sizeof(answer), ZMQ_DONTWAIT);
    }
    frame.size = (size_t)received;
    assert_ok(codec_decode(codec, &frame, 1, &decoded, &err), err);
    assert_int_equal(decoded.kind, MESSAGE_REFUSED);
    assert_int_equal(decoded.refused.code, REFUSED_PROTOCOL);
    assert_int_equal(server.received, 0);
    assert_int_equal(metrics_total(metrics, METRIC_messages_dropped), 3);
    assert_true(metrics_total(metrics, METRIC_received_bytes) >= length + 7);
    header[1] = PROTOCOL_VERSION;
    zmq_send(raw, header, length, 0); /* heard all the same afterwards */
    loops_pump(loop, &server.received, 1);
    codec_destroy(&codec);
    zmq_close(raw);
    zmq_ctx_term(context);
    post_close(&server.post, 0);
    metrics_destroy(&metrics);
    loop_destroy(&loop);
    channel_shutdown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_arrives_as_it_was_sent),
        cmocka_unit_test(answers_go_the_way_the_question_came),
        cmocka_unit_test(announcements_reach_everyone),
        cmocka_unit_test(bulk_may_be_kept_and_lines_dropped_inside_the_call),
        cmocka_unit_test(rubbish_is_dropped_and_other_versions_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
