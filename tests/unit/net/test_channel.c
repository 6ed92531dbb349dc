#include "tests/support/test.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zmq.h>

#include "common/net/channel.h"
#include "common/net/process.h"
#include "common/util/clock.h"
#include "tests/support/loops.h"

#define LIMIT (64u << 10)

static int no_room; /* calls of bind that find the folder full */

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    if (no_room > 0 && address->sa_family == AF_UNIX) {
        no_room--;
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_bind, fd, address, length);
}

/* --- one end of a wire ------------------------------------------------------ */

struct end {
    channel_t *channel;
    bool echo;
    int received, frames, writable, dropped;
    uint64_t peer;         /* of the last message */
    size_t length;         /* of its last frame */
    char text[64];         /* its first frame */
    int next;              /* in-order check: the int that the first frame must hold */
    bool ordered, close_on_message;
    channel_blob_t *blob;  /* the last frame of the last message, when keep is set */
    bool keep, aligned;
    const char *move_to;   /* reconnect there on the next message */
};

static void on_message(void *context, uint64_t peer, const struct channel_frame *frames, int count)
{
    struct end *end = context;
    struct channel_part parts[CHANNEL_FRAMES];
    struct error err;
    int number;

    end->received++;
    end->frames = count;
    end->peer = peer;
    end->length = frames[count - 1].length;
    end->aligned = true;
    for (int i = 0; i < count; i++)
        end->aligned &= ((uintptr_t)frames[i].bytes & 7) == 0;
    snprintf(end->text, sizeof(end->text), "%.*s", (int)frames[0].length, (const char *)frames[0].bytes);
    if (end->ordered) {
        memcpy(&number, frames[0].bytes, sizeof(number));
        assert_int_equal(number, end->next++);
    }
    if (end->echo) {
        for (int i = 0; i < count; i++)
            parts[i] = (struct channel_part){.bytes = frames[i].bytes, .length = frames[i].length};
        assert_int_equal(channel_send(end->channel, peer, parts, count), TD_OK);
    }
    if (end->keep)
        end->blob = channel_take(end->channel, count - 1);
    if (end->move_to != NULL)
        assert_ok(channel_reconnect(end->channel, end->move_to, &err), err);
    end->move_to = NULL;
    if (end->close_on_message)
        channel_close(&end->channel);
}

static void on_writable(void *context)
{
    ((struct end *)context)->writable++;
}

static void on_dropped(void *context)
{
    struct end *end = context;

    end->dropped++;
}

static struct channel_options options_of(struct end *end, enum channel_pattern pattern, uint64_t identity)
{
    return (struct channel_options){
        .name = "test",
        .pattern = pattern,
        .identity = identity,
        .max_message = LIMIT,
        .on_message = on_message,
        .on_writable = on_writable,
        .on_dropped = on_dropped,
        .context = end,
    };
}

static void open_end(struct end *end, loop_t *loop, enum channel_pattern pattern, uint64_t identity)
{
    struct channel_options options = options_of(end, pattern, identity);
    struct error err;

    assert_ok(channel_open(&end->channel, loop, &options, &err), err);
}

static loop_t *make_loop(void)
{
    struct error err;
    loop_t *loop;

    assert_ok(loop_create(&loop, &err), err);
    return loop;
}

/* A bound ROUTER or REP and a DEALER or REQ connected to it. */
static void open_pair(loop_t *loop, struct end *server, enum channel_pattern bound, struct end *client,
                      enum channel_pattern connected, const char *address)
{
    struct error err;

    open_end(server, loop, bound, 0);
    open_end(client, loop, connected, 77);
    assert_ok(channel_bind(server->channel, address, &err), err);
    assert_ok(channel_connect(client->channel, channel_address(server->channel), &err), err);
}

/* The folder of the sockets is full for a while. */
static void listening_waits_for_room(void **state)
{
    loop_t *loop = make_loop();
    struct end server = {0}, client = {.received = 0};

    (void)state;
    no_room = 2;
    open_pair(loop, &server, CHANNEL_ROUTER, &client, CHANNEL_DEALER, loops_ipc_address());
    assert_int_equal(no_room, 0);
    channel_close(&client.channel);
    channel_close(&server.channel);
    loop_destroy(&loop);
}

static int send_text(struct end *end, uint64_t peer, const char *text)
{
    struct channel_part part = {.bytes = text, .length = strlen(text)};

    return channel_send(end->channel, peer, &part, 1);
}

static int open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static void close_all(loop_t **loop)
{
    loop_destroy(loop);
    channel_shutdown();
}

/* --- tests ------------------------------------------------------------------ */

static void messages_of_several_frames_go_both_ways(void **state)
{
    const char *addresses[] = {"tcp://127.0.0.1:*", "tcp://[::1]:*", loops_ipc_address()};

    (void)state;
    for (size_t a = 0; a < TD_LEN(addresses); a++) {
        loop_t *loop = make_loop();
        struct end server = {.echo = true}, client = {0};
        struct channel_part parts[3] = {{"header", 6, NULL, NULL}, {NULL, 0, NULL, NULL},
                                        {"12345678901", 11, NULL, NULL}};

        open_pair(loop, &server, CHANNEL_ROUTER, &client, CHANNEL_DEALER, addresses[a]);
        assert_int_equal(channel_send(client.channel, 0, parts, 3), TD_OK);
        loops_pump(loop, &client.received, 1);
        assert_int_equal(server.peer, 77);
        assert_int_equal(server.frames, 3);
        assert_int_equal(client.frames, 3);
        assert_int_equal(client.length, 11);
        assert_string_equal(client.text, "header");
        assert_true(server.aligned && client.aligned);
        channel_close(&server.channel);
        channel_close(&client.channel);
        assert_null(client.channel);
        channel_close(&client.channel);
        close_all(&loop);
        assert_int_not_equal(access(addresses[a] + strlen("ipc://"), F_OK), 0);
    }
}

/* Two lives of one address: the first one's end takes nothing from the second. */
static void a_late_end_leaves_the_successor_alone(void **state)
{
    const char *address = loops_ipc_address();
    loop_t *loop = make_loop();
    struct end first = {0}, second = {.echo = true}, client = {0};
    struct error err;

    (void)state;
    open_end(&first, loop, CHANNEL_ROUTER, 0);
    assert_ok(channel_bind(first.channel, address, &err), err);
    assert_int_equal(unlink(address + strlen("ipc://")), 0);
    open_pair(loop, &second, CHANNEL_ROUTER, &client, CHANNEL_DEALER, address);
    channel_close(&first.channel);
    assert_int_equal(access(address + strlen("ipc://"), F_OK), 0);
    assert_int_equal(send_text(&client, 0, "still there"), TD_OK);
    loops_pump(loop, &client.received, 1);
    channel_close(&second.channel);
    channel_close(&client.channel);
    close_all(&loop);
}

static void count_release(void *bytes, void *context)
{
    (void)bytes;
    atomic_fetch_add((atomic_int *)context, 1);
}

static void big_frames_leave_from_where_they_lie(void **state)
{
    enum { SIZE = 8 << 20, TIMES = 5 };
    loop_t *loop = make_loop();
    struct end server = {.keep = true}, client = {0};
    struct channel_options options = options_of(&server, CHANNEL_ROUTER, 0);
    char *bytes = malloc(SIZE);
    atomic_int released;
    struct error err;

    (void)state;
    atomic_init(&released, 0);
    for (int i = 0; i < SIZE; i++)
        bytes[i] = (char)(i * 31 + (i >> 8));
    options.max_message = SIZE;
    assert_ok(channel_open(&server.channel, loop, &options, &err), err);
    open_end(&client, loop, CHANNEL_DEALER, 1);
    assert_ok(channel_bind(server.channel, loops_ipc_address(), &err), err);
    assert_ok(channel_connect(client.channel, channel_address(server.channel), &err), err);
    for (int i = 1; i <= TIMES; i++) {
        struct channel_part parts[2] = {{"slices", 6, NULL, NULL}, {bytes, SIZE, count_release, &released}};

        assert_int_equal(channel_send(client.channel, 0, parts, 2), TD_OK);
        loops_pump(loop, &server.received, i);
        assert_int_equal(channel_blob_length(server.blob), SIZE);
        assert_memory_equal(channel_blob_bytes(server.blob), bytes, SIZE);
        if (i < TIMES)
            channel_blob_release(&server.blob);
    }
    channel_close(&server.channel);
    channel_close(&client.channel);
    loop_destroy(&loop);
    assert_memory_equal(channel_blob_bytes(server.blob), bytes, SIZE); /* outlives its channel */
    channel_blob_release(&server.blob);
    assert_null(server.blob);
    channel_shutdown();
    assert_int_equal(atomic_load(&released), TIMES);
    free(bytes);
}

/* Whatever was accepted arrives, once and in order; whatever was not is the sender's still. */
static void a_full_queue_is_reported_and_loses_nothing(void **state)
{
    static char frame[8192];
    loop_t *loop = make_loop(), *asleep = make_loop();
    struct end server = {.ordered = true}, client = {0};
    struct channel_part part = {frame, sizeof(frame), NULL, NULL};
    struct channel_options options = options_of(&client, CHANNEL_DEALER, 5);
    struct error err;
    int sent = 0, rc;

    (void)state;
    options.queue = 8;
    open_end(&server, asleep, CHANNEL_ROUTER, 0); /* its loop does not run: nobody reads */
    assert_ok(channel_open(&client.channel, loop, &options, &err), err);
    assert_ok(channel_bind(server.channel, loops_ipc_address(), &err), err);
    assert_ok(channel_connect(client.channel, channel_address(server.channel), &err), err);
    for (uint64_t start = clock_ms(); clock_ms() - start < 500;) { /* until it stays full */
        memcpy(frame, &sent, sizeof(sent));
        rc = channel_send(client.channel, 0, &part, 1);
        assert_true(rc == TD_OK || rc == TD_EAGAIN);
        sent += rc == TD_OK;
        if (rc == TD_EAGAIN)
            loop_run_for(loop, 5);
    }
    assert_in_range(sent, 8, 1000);
    assert_int_equal(channel_send(client.channel, 0, &part, 1), TD_EAGAIN);
    assert_true(channel_counters(client.channel).blocked > 0);
    client.writable = 0;
    loops_pump(asleep, &server.received, sent / 2);
    loops_pump(loop, &client.writable, 1);
    memcpy(frame, &sent, sizeof(sent));
    assert_int_equal(channel_send(client.channel, 0, &part, 1), TD_OK);
    loops_pump(asleep, &server.received, ++sent);
    loop_run_for(asleep, 50);
    assert_int_equal(server.received, sent);
    channel_close(&server.channel);
    channel_close(&client.channel);
    loop_destroy(&asleep);
    close_all(&loop);
}

static void a_router_knows_who_is_away_or_slow(void **state)
{
    static char frame[8192];
    loop_t *loop = make_loop(), *asleep = make_loop();
    struct end server = {0}, client = {0};
    struct channel_part part = {frame, sizeof(frame), NULL, NULL};
    struct error err;
    int rc = TD_OK, sent = 0;

    (void)state;
    open_end(&server, loop, CHANNEL_ROUTER, 0);
    open_end(&client, asleep, CHANNEL_DEALER, 9);
    assert_ok(channel_bind(server.channel, loops_ipc_address(), &err), err);
    assert_int_equal(send_text(&server, 9, "too early"), TD_ENOTFOUND);
    assert_int_equal(channel_counters(server.channel).unroutable, 1);
    assert_ok(channel_connect(client.channel, channel_address(server.channel), &err), err);
    assert_int_equal(send_text(&client, 0, "here I am"), TD_OK);
    loops_pump(loop, &server.received, 1);
    while (rc == TD_OK && sent < 100000) {
        rc = channel_send(server.channel, 9, &part, 1);
        sent += rc == TD_OK;
    }
    assert_int_equal(rc, TD_EAGAIN);
    loops_pump(loop, &server.writable, 1); /* asked again soon, and without spinning */
    loops_pump(asleep, &client.received, sent);
    assert_int_equal(channel_send(server.channel, 9, &part, 1), TD_OK);
    channel_close(&client.channel);
    loop_destroy(&asleep);
    for (uint64_t start = clock_ms(); send_text(&server, 9, "gone?") != TD_ENOTFOUND;) {
        assert_true(clock_ms() - start < LOOPS_DEADLINE_MS);
        loop_run_for(loop, 5);
    }
    channel_close(&server.channel);
    close_all(&loop);
}

static void a_peer_that_comes_back_is_the_same_peer(void **state)
{
    loop_t *loop = make_loop();
    struct end server = {.echo = true}, first = {0}, second = {0};
    struct error err;

    (void)state;
    open_pair(loop, &server, CHANNEL_ROUTER, &first, CHANNEL_DEALER, loops_ipc_address());
    assert_int_equal(send_text(&first, 0, "one"), TD_OK);
    loops_pump(loop, &first.received, 1);
    open_end(&second, loop, CHANNEL_DEALER, 77); /* the same identity, while the first still lives */
    assert_ok(channel_connect(second.channel, channel_address(server.channel), &err), err);
    assert_int_equal(send_text(&second, 0, "two"), TD_OK);
    loops_pump(loop, &second.received, 1);
    assert_int_equal(server.peer, 77);
    assert_string_equal(second.text, "two");
    channel_close(&first.channel);
    for (int i = 2; i < 20; i++) { /* moving to the same place many times, in and out of callbacks */
        char text[16];

        snprintf(text, sizeof(text), "%d", i);
        if (i % 2 == 0)
            assert_ok(channel_reconnect(second.channel, channel_address(server.channel), &err), err);
        else
            second.move_to = channel_address(server.channel);
        assert_int_equal(send_text(&second, 0, text), TD_OK);
        loops_pump(loop, &second.received, i);
        assert_string_equal(second.text, text);
    }
    channel_close(&server.channel);
    channel_close(&second.channel);
    close_all(&loop);
}

/* Ask again until an answer comes, as the protocol does. */
static void ask_until_answered(loop_t *loop, struct end *client, const char *text)
{
    uint64_t start = clock_ms();
    int before = client->received;

    while (client->received == before || strcmp(client->text, text) != 0) {
        assert_true(clock_ms() - start < LOOPS_DEADLINE_MS);
        send_text(client, 0, text);
        loop_run_for(loop, 20);
    }
}

static void spawn_echo(process_t **out, loop_t *loop, const char *address)
{
    const char *args[] = {"echo", address, NULL};
    struct process_options options = {.program = "/proc/self/exe", .args = args};
    struct error err;

    assert_ok(process_spawn(out, loop, &options, &err), err);
}

static void a_killed_peer_is_found_again(void **state)
{
    const char *addresses[2] = {loops_ipc_address(), "tcp://127.0.0.1:*"};

    (void)state;
    for (int a = 0; a < 2; a++) {
        loop_t *loop = make_loop();
        struct end probe = {0}, client = {0};
        char address[ADDRESS_MAX], text[16];
        process_t *process;
        struct error err;

        open_end(&probe, loop, CHANNEL_ROUTER, 0); /* a port that is free */
        assert_ok(channel_bind(probe.channel, addresses[a], &err), err);
        snprintf(address, sizeof(address), "%s", channel_address(probe.channel));
        channel_close(&probe.channel);
        open_end(&client, loop, CHANNEL_DEALER, 3);
        assert_ok(channel_connect(client.channel, address, &err), err);
        for (int life = 0; life < 3; life++) {
            snprintf(text, sizeof(text), "life %d", life);
            spawn_echo(&process, loop, address);
            ask_until_answered(loop, &client, text);
            process_signal(process, SIGKILL);
            while (process_running(process))
                loop_run_for(loop, 20);
            process_close(&process);
        }
        channel_close(&client.channel);
        close_all(&loop);
    }
}

static void sixty_four_clients_leave_nothing_behind(void **state)
{
    enum { CLIENTS = 64, EACH = 20 };
    struct end server = {.echo = true}, clients[CLIENTS];
    const char *address = loops_ipc_address();
    struct error err;
    loop_t *loop;
    int before = 0;

    (void)state;
    for (int round = 0; round < 3; round++) {
        memset(clients, 0, sizeof(clients));
        server.received = 0;
        loop = make_loop();
        open_end(&server, loop, CHANNEL_ROUTER, 0);
        assert_ok(channel_bind(server.channel, address, &err), err);
        for (int c = 0; c < CLIENTS; c++) {
            open_end(&clients[c], loop, CHANNEL_DEALER, 1000u + (unsigned)c);
            assert_ok(channel_connect(clients[c].channel, address, &err), err);
        }
        for (int i = 0; i < EACH; i++)
            for (int c = 0; c < CLIENTS; c++) {
                char text[16];

                snprintf(text, sizeof(text), "%d", c);
                assert_int_equal(send_text(&clients[c], 0, text), TD_OK);
            }
        loops_pump(loop, &server.received, CLIENTS * EACH);
        for (int c = 0; c < CLIENTS; c++) {
            loops_pump(loop, &clients[c].received, EACH);
            assert_int_equal(atoi(clients[c].text), c); /* everyone got the own answers */
            channel_close(&clients[c].channel);
        }
        channel_close(&server.channel);
        close_all(&loop);
        if (round == 0)
            before = open_descriptors();
    }
    assert_int_equal(open_descriptors(), before);
}

static void too_long_messages_cut_their_sender_off(void **state)
{
    loop_t *loop = make_loop();
    struct end server = {.echo = true}, good = {0}, bad = {0};
    char *big = calloc(1, LIMIT + 1);
    struct channel_part part = {big, LIMIT, NULL, NULL};
    struct error err;

    (void)state;
    open_pair(loop, &server, CHANNEL_ROUTER, &good, CHANNEL_DEALER, loops_ipc_address());
    open_end(&bad, loop, CHANNEL_DEALER, 78);
    assert_ok(channel_connect(bad.channel, channel_address(server.channel), &err), err);
    assert_int_equal(channel_send(bad.channel, 0, &part, 1), TD_OK); /* just short enough */
    loops_pump(loop, &bad.received, 1);
    part.length = LIMIT + 1;
    assert_int_equal(channel_send(bad.channel, 0, &part, 1), TD_OK);
    assert_int_equal(send_text(&good, 0, "others are heard"), TD_OK);
    loops_pump(loop, &good.received, 1);
    loop_run_for(loop, 50);
    assert_int_equal(server.received, 2);
    ask_until_answered(loop, &bad, "mended"); /* it may come back */
    free(big);
    channel_close(&server.channel);
    channel_close(&good.channel);
    channel_close(&bad.channel);
    close_all(&loop);
}

static void too_many_frames_and_nameless_peers_are_not_heard(void **state)
{
    loop_t *loop = make_loop();
    struct end server = {.echo = true}, client = {0};
    void *context = zmq_ctx_new(), *stranger = zmq_socket(context, ZMQ_DEALER);
    int linger = 0, dropped = 0;

    (void)state;
    open_pair(loop, &server, CHANNEL_ROUTER, &client, CHANNEL_DEALER, loops_ipc_address());
    zmq_setsockopt(stranger, ZMQ_LINGER, &linger, sizeof(linger));
    assert_int_equal(zmq_connect(stranger, channel_address(server.channel)), 0);
    zmq_send(stranger, "who am I", 8, 0);
    zmq_setsockopt(stranger, ZMQ_ROUTING_ID, "P12345678", 9);
    assert_int_equal(zmq_connect(stranger, channel_address(server.channel)), 0);
    for (int i = 0; i < 40; i++) /* both connections take turns: one of them has a name */
        for (int part = 0; part <= CHANNEL_FRAMES; part++)
            zmq_send(stranger, "x", 1, part < CHANNEL_FRAMES ? ZMQ_SNDMORE : 0);
    for (uint64_t start = clock_ms(); dropped < 41 && clock_ms() - start < LOOPS_DEADLINE_MS;) {
        loop_run_for(loop, 20);
        dropped = (int)channel_counters(server.channel).dropped;
    }
    assert_int_equal(dropped, 41);
    assert_int_equal(server.dropped, 41);
    assert_int_equal(server.received, 0);
    assert_int_equal(send_text(&client, 0, "a known one is"), TD_OK);
    loops_pump(loop, &client.received, 1);
    zmq_close(stranger);
    zmq_ctx_term(context);
    channel_close(&server.channel);
    channel_close(&client.channel);
    close_all(&loop);
}

static void questions_are_answered_and_bad_ones_do_not_jam(void **state)
{
    loop_t *loop = make_loop();
    struct end server = {.echo = true}, client = {0};
    struct channel_part parts[CHANNEL_FRAMES] = {{"a", 1, NULL, NULL}};
    struct channel_options options = options_of(&server, CHANNEL_REP, 0);
    struct error err;

    (void)state;
    options.max_frames = 2;
    assert_ok(channel_open(&server.channel, loop, &options, &err), err);
    assert_ok(channel_bind(server.channel, loops_ipc_address(), &err), err);
    open_end(&client, loop, CHANNEL_REQ, 0);
    assert_ok(channel_connect(client.channel, channel_address(server.channel), &err), err);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(channel_send(client.channel, 0, parts, CHANNEL_FRAMES), TD_OK);
        loop_run_for(loop, 20);
        assert_int_equal(send_text(&client, 0, "question"), TD_OK);
        loops_pump(loop, &server.received, i);
    }
    loops_pump(loop, &client.received, 1);
    channel_close(&server.channel);
    channel_close(&client.channel);
    close_all(&loop);
}

static void what_is_published_reaches_those_who_listen(void **state)
{
    loop_t *loop = make_loop();
    struct end speaker = {0}, listeners[3];
    struct error err;

    (void)state;
    memset(listeners, 0, sizeof(listeners));
    open_end(&speaker, loop, CHANNEL_PUB, 0);
    assert_ok(channel_bind(speaker.channel, loops_ipc_address(), &err), err);
    for (int i = 0; i < 3; i++) {
        open_end(&listeners[i], loop, CHANNEL_SUB, 0);
        assert_ok(channel_connect(listeners[i].channel, channel_address(speaker.channel), &err), err);
    }
    for (int i = 0; i < 3; i++)
        for (uint64_t start = clock_ms(); listeners[i].received == 0;) {
            assert_true(clock_ms() - start < LOOPS_DEADLINE_MS);
            assert_int_equal(send_text(&speaker, 0, "news"), TD_OK);
            loop_run_for(loop, 10);
        }
    for (int i = 0; i < 3; i++)
        channel_close(&listeners[i].channel);
    channel_close(&speaker.channel);
    close_all(&loop);
}

static void a_channel_may_close_in_its_own_callback(void **state)
{
    loop_t *loop = make_loop();
    struct end server = {.close_on_message = true}, client = {0};

    (void)state;
    open_pair(loop, &server, CHANNEL_ROUTER, &client, CHANNEL_DEALER, loops_ipc_address());
    for (int i = 0; i < 5; i++)
        assert_int_equal(send_text(&client, 0, "close"), TD_OK);
    loops_pump(loop, &server.received, 1);
    loop_run_for(loop, 20);
    assert_int_equal(server.received, 1);
    assert_null(server.channel);
    channel_close(&client.channel);
    close_all(&loop);
}

static void what_lingers_still_arrives(void **state)
{
    loop_t *loop = make_loop();
    struct end server = {0}, client = {0};

    (void)state;
    open_pair(loop, &server, CHANNEL_ROUTER, &client, CHANNEL_DEALER, loops_ipc_address());
    for (int i = 0; i < 20; i++)
        assert_int_equal(send_text(&client, 0, "leaving"), TD_OK);
    channel_close_linger(&client.channel, 2000);
    loops_pump(loop, &server.received, 20);
    channel_close(&server.channel);
    close_all(&loop);
}

static void refused_addresses_have_a_sentence(void **state)
{
    loop_t *loop = make_loop();
    struct end first = {0}, second = {0};
    char address[CHANNEL_ADDRESS_MAX];
    struct error err;

    (void)state;
    open_end(&first, loop, CHANNEL_ROUTER, 0);
    open_end(&second, loop, CHANNEL_ROUTER, 0);
    assert_ok(channel_bind(first.channel, "tcp://localhost:*", &err), err);
    assert_memory_equal(channel_address(first.channel), "tcp://127.0.0.1:", 16);
    assert_int_equal(channel_bind(second.channel, channel_address(first.channel), &err), TD_ELOCKED);
    assert_non_null(strstr(err.text, "another program"));
    /* asking leaves the address free, whatever the answer */
    assert_int_equal(channel_probe(channel_address(first.channel), false, &err), TD_ELOCKED);
    assert_int_equal(channel_probe("tcp://0.0.0.0:*", false, &err), TD_EINVAL);
    snprintf(address, sizeof(address), "%s", channel_address(first.channel));
    channel_close(&first.channel);
    for (int i = 0; channel_probe(address, false, &err) != TD_OK; i++) {
        assert_true(i < 1000); /* ZeroMQ closes in the background */
        clock_sleep_ms(5);
    }
    assert_ok(channel_probe(address, false, &err), err);
    open_end(&first, loop, CHANNEL_ROUTER, 0);
    assert_ok(channel_bind(first.channel, address, &err), err);
    assert_int_equal(channel_bind(second.channel, "tcp://0.0.0.0:*", &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "insecure=true"));
    assert_int_equal(channel_bind(second.channel, "nonsense", &err), TD_EINVAL);
    assert_int_equal(channel_connect(second.channel, "tcp://10.1.2.3:5555", &err), TD_EINVAL);
    assert_int_equal(channel_connect(second.channel, "tcp://127.0.0.1:*", &err), TD_EINVAL);
    assert_int_equal(channel_bind(second.channel, "ipc:///no/such/folder/x", &err), TD_EIO);
    channel_close(&first.channel);
    channel_close(&second.channel);
    close_all(&loop);
}

static void many_messages_leave_memory_as_it_was(void **state)
{
    enum { WARM = 2000 };
    static char row[700];
    int total = test_long() ? 300000 : 12000; /* three frames each */
    loop_t *loop = make_loop();
    struct end server = {.echo = true}, client = {0};
    struct channel_part parts[3] = {{"h", 1, NULL, NULL}, {row, sizeof(row), NULL, NULL},
                                    {row, 50, NULL, NULL}};
    uint64_t before = 0, allowed = 6u << 20;

    (void)state;
#ifdef __SANITIZE_ADDRESS__
    allowed = 1u << 30; /* it keeps freed memory aside */
#endif
    open_pair(loop, &server, CHANNEL_ROUTER, &client, CHANNEL_DEALER, loops_ipc_address());
    for (int i = 1; i <= total; i++) {
        assert_int_equal(channel_send(client.channel, 0, parts, 3), TD_OK);
        if (i % 32 == 0)
            loops_pump(loop, &client.received, i);
        if (i == WARM)
            before = process_resident_bytes();
    }
    assert_true(process_resident_bytes() < before + allowed);
    channel_close(&server.channel);
    channel_close(&client.channel);
    close_all(&loop);
}

/* The child of a_killed_peer_is_found_again. */
static int echo_forever(const char *address)
{
    struct end server = {.echo = true};
    struct error err;
    loop_t *loop;

    if (process_follow_parent() != TD_OK || loop_create(&loop, &err) != TD_OK)
        return 1;
    open_end(&server, loop, CHANNEL_ROUTER, 0);
    for (int i = 0; i < 100 && channel_bind(server.channel, address, &err) != TD_OK; i++)
        clock_sleep_ms(20);
    for (uint64_t start = clock_ms(); clock_ms() - start < 60000;)
        loop_run_for(loop, 1000);
    return 1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listening_waits_for_room),
        cmocka_unit_test(messages_of_several_frames_go_both_ways),
        cmocka_unit_test(a_late_end_leaves_the_successor_alone),
        cmocka_unit_test(big_frames_leave_from_where_they_lie),
        cmocka_unit_test(a_full_queue_is_reported_and_loses_nothing),
        cmocka_unit_test(a_router_knows_who_is_away_or_slow),
        cmocka_unit_test(a_peer_that_comes_back_is_the_same_peer),
        cmocka_unit_test(a_killed_peer_is_found_again),
        cmocka_unit_test(sixty_four_clients_leave_nothing_behind),
        cmocka_unit_test(too_long_messages_cut_their_sender_off),
        cmocka_unit_test(too_many_frames_and_nameless_peers_are_not_heard),
        cmocka_unit_test(questions_are_answered_and_bad_ones_do_not_jam),
        cmocka_unit_test(what_is_published_reaches_those_who_listen),
        cmocka_unit_test(a_channel_may_close_in_its_own_callback),
        cmocka_unit_test(what_lingers_still_arrives),
        cmocka_unit_test(refused_addresses_have_a_sentence),
        cmocka_unit_test(many_messages_leave_memory_as_it_was),
    };

    if (argc == 3 && strcmp(argv[1], "echo") == 0)
        return echo_forever(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
