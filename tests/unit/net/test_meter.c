/* meter.c - whom it cuts, and whom it leaves alone; on a bare ROUTER, without keys. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <zmq.h>

#include "common/net/meter.h"
#include "common/util/clock.h"
#include "tests/support/test.h"

#define MB (1u << 20)

struct scene {
    loop_t *loop;
    void *context, *server;
    meter_t *meter;
    char address[64];
};

static void open_scene(struct scene *scene, bool quiet)
{
    struct meter_options options = {.name = "test", .quiet = quiet};
    size_t size = sizeof(scene->address);
    struct error err;
    int all = 0;

    assert_ok(loop_create(&scene->loop, &err), err);
    options.context = scene->context = zmq_ctx_new();
    options.socket = scene->server = zmq_socket(scene->context, quiet ? ZMQ_PUB : ZMQ_ROUTER);
    zmq_setsockopt(scene->server, ZMQ_RCVHWM, &all, sizeof(all));
    assert_ok(meter_open(&scene->meter, scene->loop, &options, &err), err);
    assert_int_equal(zmq_bind(scene->server, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(scene->server, ZMQ_LAST_ENDPOINT, scene->address, &size), 0);
}

static void close_scene(struct scene *scene)
{
    meter_close(&scene->meter);
    zmq_close(scene->server);
    zmq_ctx_term(scene->context);
    loop_destroy(&scene->loop);
}

static void *connect_to(const struct scene *scene, int kind)
{
    void *client = zmq_socket(scene->context, kind);
    int none = 0;

    zmq_setsockopt(client, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(client, ZMQ_SNDHWM, &none, sizeof(none));
    assert_int_equal(zmq_connect(client, scene->address), 0);
    return client;
}

static void wait_for_cuts(const struct scene *scene, uint64_t cuts, uint64_t patience_ms)
{
    uint64_t end = clock_ms() + patience_ms;

    while (meter_cut(scene->meter) < cuts && clock_ms() < end)
        loop_run_for(scene->loop, 10);
}

static void send_messages(void *client, int count, size_t each)
{
    char *bytes = malloc(each);

    memset(bytes, 2, each); /* neither a subscription nor its end */
    for (int i = 0; i < count; i++)
        assert_int_equal(zmq_send(client, bytes, each, 0), each);
    free(bytes);
}

/* Take what has come and tell the meter of it. */
static int take_all(const struct scene *scene, int wanted)
{
    uint64_t end = clock_ms() + 10000;
    int messages = 0;

    while (messages < wanted && clock_ms() < end) {
        zmq_msg_t frame;
        int fd, length;

        zmq_msg_init(&frame);
        while ((length = zmq_msg_recv(&frame, scene->server, ZMQ_DONTWAIT)) >= 0) {
            fd = zmq_msg_get(&frame, ZMQ_SRCFD);
            if (fd >= 0)
                meter_frame(scene->meter, fd, (size_t)length);
            if (!zmq_msg_more(&frame)) {
                assert_true(meter_message(scene->meter, fd, "", (size_t)length));
                messages++;
            }
        }
        zmq_msg_close(&frame);
        loop_run_for(scene->loop, 5);
    }
    return messages;
}

/* More than may lie in between, but it is taken. */
static void whole_messages_that_are_taken_cost_nothing(void **state)
{
    struct scene scene;
    void *client;

    (void)state;
    open_scene(&scene, false);
    client = connect_to(&scene, ZMQ_DEALER);
    for (int i = 0; i < 3; i++) {
        send_messages(client, 40, 256 << 10);
        assert_int_equal(take_all(&scene, 40), 40);
    }
    wait_for_cuts(&scene, 1, 60);
    assert_int_equal(meter_cut(scene.meter), 0);
    zmq_close(client);
    close_scene(&scene);
}

static void what_nobody_takes_is_bounded(void **state)
{
    struct scene scene;
    void *client;

    (void)state;
    open_scene(&scene, false);
    client = connect_to(&scene, ZMQ_DEALER);
    send_messages(client, 12, MB);
    wait_for_cuts(&scene, 1, 300);
    assert_int_equal(meter_cut(scene.meter), 0);
    send_messages(client, 12, MB);
    wait_for_cuts(&scene, 1, 10000);
    assert_int_equal(meter_cut(scene.meter), 1);
    zmq_close(client);
    close_scene(&scene);
}

static void who_comes_to_listen_says_little(void **state)
{
    struct scene scene;
    void *client;

    (void)state;
    open_scene(&scene, true);
    client = connect_to(&scene, ZMQ_XSUB);
    send_messages(client, 1, 20 << 10);
    wait_for_cuts(&scene, 1, 100);
    assert_int_equal(meter_cut(scene.meter), 0);
    send_messages(client, 6, 20 << 10);
    wait_for_cuts(&scene, 1, 10000);
    assert_true(meter_cut(scene.meter) >= 1);
    zmq_close(client);
    close_scene(&scene);
}

static void connections_that_say_nothing_are_bounded(void **state)
{
    enum { MANY = METER_STRANGERS + 20 };
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct scene scene;
    int fds[MANY];

    (void)state;
    open_scene(&scene, false);
    to.sin_port = htons((uint16_t)atoi(strrchr(scene.address, ':') + 1));
    for (int i = 0; i < MANY; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&to, sizeof(to)), 0);
        if (i == METER_STRANGERS - 1) {
            wait_for_cuts(&scene, 1, 150);
            assert_int_equal(meter_cut(scene.meter), 0);
        }
    }
    wait_for_cuts(&scene, MANY - METER_STRANGERS, 10000);
    assert_int_equal(meter_cut(scene.meter), MANY - METER_STRANGERS);
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    close_scene(&scene);
}

/* Two seconds' worth at once, then what time brings; of each key by itself. */
static void a_key_has_a_rate(void **state)
{
    struct scene scene;
    uint64_t begun, refill;
    int said = 0;

    (void)state;
    open_scene(&scene, false);
    begun = clock_ms();
    while (said < 100000 && meter_message(scene.meter, -1, "one", 100))
        said++;
    refill = (clock_ms() - begun + 1) * (uint64_t)METER_MESSAGES / 1000;
    assert_true(said >= 2 * METER_MESSAGES - 1 && (uint64_t)said <= 2 * (uint64_t)METER_MESSAGES + refill);
    begun = clock_ms();
    for (said = 0; said < 1000 && meter_message(scene.meter, -1, "other", MB); said++)
        ;
    refill = (clock_ms() - begun + 1) * 32 / 1000 + 1;
    assert_true(said >= 63 && (uint64_t)said <= 64 + refill);
    assert_true(meter_message(scene.meter, -1, "third", MB));
    usleep(100000); /* and it may speak again */
    assert_true(meter_message(scene.meter, -1, "one", 100));
    close_scene(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_messages_that_are_taken_cost_nothing),
        cmocka_unit_test(what_nobody_takes_is_bounded),
        cmocka_unit_test(who_comes_to_listen_says_little),
        cmocka_unit_test(connections_that_say_nothing_are_bounded),
        cmocka_unit_test(a_key_has_a_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
