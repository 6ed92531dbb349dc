/*
 * What comes over the sockets of a live run is not to be trusted: bytes that are no messages, messages
 * of another version or run, rows that no store may hold. Nothing crashes, nothing is restarted, who
 * spoke is told, training goes on, and the store holds what the actors sent and nothing else.
 */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <zmq.h>

#include "common/store/row.h"
#include "common/util/clock.h"
#include "common/wire/codec.h"
#include "tests/support/live.h"
#include "tests/support/messages.h"
#include "tests/support/raw_peer.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define GO_ON_MS  30000
#define ANSWER_MS 3000

static void *context;
static codec_t *codec;

/* --- a peer of no good ------------------------------------------------------- */

/* With a name as our parts have one; without, the other side cannot even answer. */
static void *open_nameless(const char *address, bool named)
{
    unsigned char identity[9] = {'P'};
    int none = 0, wait = 50;
    void *socket = zmq_socket(context, ZMQ_DEALER);
    uint64_t id = rng_u64(test_rng());

    assert_non_null(socket);
    memcpy(identity + 1, &id, sizeof(id));
    if (named)
        zmq_setsockopt(socket, ZMQ_ROUTING_ID, identity, sizeof(identity));
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait, sizeof(wait));
    zmq_setsockopt(socket, ZMQ_SNDTIMEO, &wait, sizeof(wait));
    assert_int_equal(zmq_connect(socket, address), 0);
    return socket;
}

static void *open_dealer(const char *address)
{
    return open_nameless(address, true);
}

static void say(void *socket, const struct message *message)
{
    raw_say(codec, socket, message);
}

static bool hear(void *socket, uint32_t kind, struct message *message, int ms)
{
    return raw_hear(codec, socket, kind, message, ms);
}

/* --- a run to annoy ---------------------------------------------------------- */

struct scene {
    struct live live;
    char notes[500];
    uint64_t run;
    char control[256], params[256], announce[256], ingest[256], sample[256];
    pid_t pids[5];
};

static const char *const roles[] = {"learner", "replay", "evaluator", "actor", "actor"};
static const int ids[] = {0, 0, 0, 0, 1};

/* The address that stands behind `key` in a part's log. */
static void address_of(const struct live *live, const char *file, const char *key, char out[256])
{
    char path[FS_PATH_MAX], *bytes, *at;
    struct error err;
    size_t length;

    snprintf(path, sizeof(path), "%s/%s", live->dir, file);
    assert_ok(fs_read_file(path, 1u << 20, &bytes, &length, &err), err);
    at = strstr(bytes, key);
    assert_non_null(at);
    at += strlen(key);
    snprintf(out, 256, "%.*s", (int)strcspn(at, " \"\n"), at);
    free(bytes);
}

static void start(struct scene *scene, const char *name)
{
    struct live *live = &scene->live;
    struct message hello = {.kind = MESSAGE_HELLO}, *answer = calloc(1, sizeof(*answer));
    struct rundir_part part;
    void *socket;

    live_init(live, name, false);
    snprintf(scene->notes, sizeof(scene->notes), "%s.notes", live->dir);
    tap_start(scene->notes);
    live_train(live, "task=toy", "steps=100000000", "seed_steps=200", "eval_freq=1000", "heartbeat=0.25", NULL);
    live_await(live, "learner", 0, "updates", 220, LIVE_START_MS);
    for (int i = 0; i < 5; i++)
        scene->pids[i] = live_part(live, roles[i], ids[i], 0);
    assert_true(live_find(live, "learner", 0, &part));
    scene->run = part.run_id;
    snprintf(scene->control, sizeof(scene->control), "%s", part.control);
    address_of(live, "replay.log", "ingest=", scene->ingest);
    address_of(live, "replay.log", "sample=", scene->sample);
    /* a part without a spec is told the options and addresses */
    socket = open_dealer(scene->control);
    hello.hello = (struct hello){.role = ROLE_ACTOR, .process = 4711};
    say(socket, &hello);
    assert_true(hear(socket, MESSAGE_WELCOME, answer, ANSWER_MS));
    assert_true(answer->run == scene->run && !answer->welcome.has_slot && answer->bulks > 0);
    snprintf(scene->params, sizeof(scene->params), "%s", answer->welcome.params);
    snprintf(scene->announce, sizeof(scene->announce), "%s", answer->welcome.announce);
    zmq_close(socket);
    free(answer);
}

static void rises(const struct live *live, const char *metric)
{
    live_rises(live, "learner", 0, metric, 30, GO_ON_MS);
}

/* The same processes, still training. */
static void goes_on(const struct scene *scene)
{
    for (int i = 0; i < 5; i++)
        live_check(&scene->live, live_part(&scene->live, roles[i], ids[i], 0) == scene->pids[i], "%s-%d was replaced",
                   roles[i], ids[i]);
    rises(&scene->live, "updates");
    rises(&scene->live, "agent_steps");
}

static void end(struct scene *scene)
{
    char store[500];
    struct tap tap;

    goes_on(scene);
    kill(scene->live.pid, SIGTERM);
    live_expect(&scene->live, 0, 30000);
    live_no_orphans(&scene->live, 1000);
    tap_start(NULL);
    snprintf(store, sizeof(store), "%s/replay", scene->live.dir);
    tap_load(&tap, scene->notes);
    tap_audit(&tap, store, 0);
    tap_release(&tap);
}

/* --- bytes ------------------------------------------------------------------- */

/* Frames of random bytes, some of them damaged messages. */
static void send_garbage(void *socket, int count)
{
    static uint8_t bytes[300000];
    struct rng *rng = test_rng();

    for (int i = 0; i < count; i++) {
        int frames = 1 + (int)rng_below(rng, 5);

        for (int k = 0; k < frames; k++) {
            size_t length = rng_below(rng, 8) == 0 ? rng_below(rng, sizeof(bytes)) : rng_below(rng, 200);

            for (size_t b = 0; b < length; b++)
                bytes[b] = (uint8_t)rng_u32(rng);
            if (length > 2 && rng_below(rng, 2)) { /* as if it were of our version */
                bytes[0] = 0x08;
                bytes[1] = PROTOCOL_VERSION;
            }
            zmq_send(socket, bytes, length, k + 1 < frames ? ZMQ_SNDMORE : 0);
        }
    }
}

/* Real messages with some bytes changed, or of another run. */
static void send_damaged(void *socket, uint64_t run, int count)
{
    struct message *message = calloc(1, sizeof(*message));
    struct rng *rng = test_rng();

    for (int i = 0; i < count; i++) {
        uint8_t header[WIRE_HEADER_MAX];
        size_t length;

        messages_random(rng, messages_kind((int)rng_below(rng, (uint32_t)messages_kinds())), message);
        message->run = rng_below(rng, 2) ? run : rng_u64(rng);
        length = codec_encode(codec, message, header);
        if (message->run == run) /* else it would be a message like any other */
            for (int k = 0; k < 3; k++)
                header[rng_below(rng, (uint32_t)length)] ^= (uint8_t)(1 + rng_below(rng, 255));
        if (message->run == run && (message->kind == MESSAGE_STOP || message->kind == MESSAGE_LEAVE))
            continue;
        zmq_send(socket, header, length, message->bulks > 0 ? ZMQ_SNDMORE : 0);
        for (uint32_t k = 0; k < message->bulks; k++)
            zmq_send(socket, message->bulk[k].data, message->bulk[k].size / (1 + rng_below(rng, 2)),
                     k + 1 < message->bulks ? ZMQ_SNDMORE : 0);
    }
    free(message);
}

/* Not even ZeroMQ: bytes straight into the socket. */
static void send_raw(const char *address)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct rng *rng = test_rng();
    uint8_t bytes[4096];

    snprintf(to.sun_path, sizeof(to.sun_path), "%s", address + strlen("ipc://"));
    for (int i = 0; i < 5; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
        for (size_t b = 0; b < sizeof(bytes); b++)
            bytes[b] = i == 0 ? 0 : (uint8_t)rng_u32(rng);
        if (send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) < 0)
            printf("  closed at once\n");
        close(fd);
    }
}

static void garbage_on_every_socket(void **state)
{
    struct rundir_part part;
    struct scene scene;
    double dropped;

    (void)state;
    start(&scene, "garbage");
    assert_true(live_find(&scene.live, "learner", 0, &part));
    const char *const sockets[] = {scene.control, scene.params, scene.ingest, scene.sample, part.stats};

    dropped = live_metric(&scene.live, "learner", 0, "messages_dropped");
    send_raw(scene.announce);
    for (int i = 0; i < 5; i++) {
        for (int named = 0; named < 2; named++) {
            void *socket = open_nameless(sockets[i], named);

            send_garbage(socket, test_long() ? 2000 : 150);
            live_sleep(100);
            zmq_close(socket);
        }
        send_raw(sockets[i]);
    }
    goes_on(&scene);
    assert_true(live_metric(&scene.live, "learner", 0, "messages_dropped") > dropped);
    for (int i = 0; i < 4; i++) {
        void *socket = open_dealer(sockets[i]);

        send_damaged(socket, scene.run, test_long() ? 5000 : 500);
        live_sleep(100);
        zmq_close(socket);
    }
    end(&scene);
}

/* --- messages that are refused ------------------------------------------------- */

static void another_version_is_told(void **state)
{
    struct message hello = {.kind = MESSAGE_HELLO}, *answer = calloc(1, sizeof(*answer));
    struct scene scene;

    (void)state;
    start(&scene, "version");
    const char *const sockets[] = {scene.control, scene.params, scene.ingest, scene.sample};

    hello.hello = (struct hello){.role = ROLE_ACTOR, .process = 99};
    for (int i = 0; i < 4; i++) {
        uint8_t header[WIRE_HEADER_MAX];
        size_t length = codec_encode(codec, &hello, header);
        void *socket = open_dealer(sockets[i]);

        assert_true(header[0] == 0x08 && header[1] == PROTOCOL_VERSION);
        header[1] = PROTOCOL_VERSION + 1;
        zmq_send(socket, header, length, 0);
        live_check(&scene.live, hear(socket, MESSAGE_REFUSED, answer, ANSWER_MS), "socket %d does not refuse", i);
        assert_int_equal(answer->refused.code, REFUSED_PROTOCOL);
        assert_non_null(strstr(answer->refused.text, "version"));
        zmq_close(socket);
    }
    free(answer);
    end(&scene);
}

static void another_run_is_told(void **state)
{
    struct message hello = {.kind = MESSAGE_HELLO}, *answer = calloc(1, sizeof(*answer));
    char text[4096], learner[300];
    struct scene scene;
    void *socket;
    int code;

    (void)state;
    start(&scene, "foreign");
    hello.run = scene.run + 1;
    hello.hello = (struct hello){.role = ROLE_ACTOR, .process = 99};
    socket = open_dealer(scene.control);
    say(socket, &hello);
    assert_true(hear(socket, MESSAGE_REFUSED, answer, ANSWER_MS));
    assert_int_equal(answer->refused.code, REFUSED_RUN);
    zmq_close(socket);
    hello.kind = MESSAGE_INGEST_HELLO;
    hello.ingest_hello = (struct ingest_hello){.slot = 0, .process = 99, .count = 1};
    socket = open_dealer(scene.ingest);
    say(socket, &hello);
    assert_true(hear(socket, MESSAGE_REFUSED, answer, ANSWER_MS));
    assert_int_equal(answer->refused.code, REFUSED_RUN);
    zmq_close(socket);
    free(answer);

    /* an actor that expects another run says so and ends with 2 */
    snprintf(learner, sizeof(learner), "learner=%s", scene.control);
    code = live_run("tdmpc2-actor", text, sizeof(text), 10000, learner, "run_id=1234abcd", NULL);
    live_check(&scene.live, code == 2 && strstr(text, "1234abcd") != NULL, "%d: %s", code, text);
    end(&scene);
}

/* --- rows ---------------------------------------------------------------------- */

struct rogue {
    void *socket;
    uint64_t run, store, epoch;
    uint32_t stride;
    char rows[4096];
};

/* Rows are aligned to 4 bytes, a head in memory to 8. */
static void set_head(struct rogue *rogue, int row, struct row_head head)
{
    memcpy(rogue->rows + (size_t)row * rogue->stride, &head, sizeof(head));
}

static void rogue_hello(struct rogue *rogue, uint32_t slot, uint64_t process, struct message *answer)
{
    struct message hello = {.kind = MESSAGE_INGEST_HELLO, .run = rogue->run};

    hello.ingest_hello = (struct ingest_hello){.slot = slot, .process = process, .spec = {OBS_STATE, 4, 2, 50, true, 0},
                                                .count = 1};
    say(rogue->socket, &hello);
    assert_true(hear(rogue->socket, MESSAGE_INGEST_WELCOME, answer, ANSWER_MS));
    assert_int_equal(answer->ingest_welcome.count, 1);
    rogue->store = answer->ingest_welcome.store;
    rogue->epoch = answer->ingest_welcome.streams[0].epoch;
}

/* Rows of an episode's beginning: a reset and a step. */
static void rogue_send(struct rogue *rogue, uint32_t stride, uint32_t count, uint64_t first)
{
    struct message message = {.kind = MESSAGE_ROWS, .run = rogue->run, .bulks = 1};

    message.rows = (struct rows){9, 0, 77, rogue->store, rogue->epoch, first, count, stride};
    message.bulk[0] = (struct bulk){rogue->rows, (size_t)stride * count};
    say(rogue->socket, &message);
}

static void refused(const struct scene *scene, struct rogue *rogue, struct message *answer, const char *what)
{
    live_check(&scene->live, hear(rogue->socket, MESSAGE_REFUSED, answer, ANSWER_MS), "%s is not refused", what);
    assert_int_equal(answer->refused.code, REFUSED_ROWS);
    printf("  %s: %s\n", what, answer->refused.text);
}

static void rows_that_no_store_may_hold_are_refused_and_counted(void **state)
{
    struct row_schema schema = {OBS_STATE, 4, 2};
    struct message *answer = calloc(1, sizeof(*answer));
    struct rogue rogue = {0};
    struct scene scene;
    float *obs, *action;
    double counted;

    (void)state;
    start(&scene, "rows");
    rogue.run = scene.run;
    rogue.stride = (uint32_t)row_stride(&schema);
    rogue.socket = open_dealer(scene.ingest);
    rogue_hello(&rogue, 9, 77, answer);
    set_head(&rogue, 0, (struct row_head){.flags = ROW_FIRST});
    obs = row_obs(rogue.rows + rogue.stride);
    action = row_action(rogue.rows + rogue.stride, &schema);
    counted = live_metric(&scene.live, "replay", 0, "rows_refused");

    obs[1] = NAN;
    rogue_send(&rogue, rogue.stride, 2, 0);
    refused(&scene, &rogue, answer, "an observation that is not a number");
    obs[1] = 0;
    action[0] = INFINITY;
    rogue_send(&rogue, rogue.stride, 2, 0);
    refused(&scene, &rogue, answer, "an infinite action");
    action[0] = 1.5f;
    rogue_send(&rogue, rogue.stride, 2, 0);
    refused(&scene, &rogue, answer, "an action beyond 1");
    action[0] = 0;
    set_head(&rogue, 1, (struct row_head){.reward = -NAN});
    rogue_send(&rogue, rogue.stride, 2, 0);
    refused(&scene, &rogue, answer, "a reward that is not a number");
    set_head(&rogue, 1, (struct row_head){.flags = 1u << 20});
    rogue_send(&rogue, rogue.stride, 2, 0);
    refused(&scene, &rogue, answer, "an unknown flag");
    set_head(&rogue, 1, (struct row_head){0});
    rogue_send(&rogue, rogue.stride + 8, 1, 0);
    refused(&scene, &rogue, answer, "rows of another shape");
    rogue_send(&rogue, rogue.stride, 1, 0); /* a reset ... */
    live_sleep(100);
    rogue_send(&rogue, rogue.stride, 1, 1); /* ... and another within the episode */
    refused(&scene, &rogue, answer, "a reset within an episode");
    live_await(&scene.live, "replay", 0, "rows_refused", counted + 7, 5000);

    /* the stream goes on as soon as its rows are good; from elsewhere they are asked for or sent away */
    rogue_send(&rogue, rogue.stride, 1, 5);
    live_check(&scene.live, hear(rogue.socket, MESSAGE_NACK, answer, ANSWER_MS), "no Nack");
    rogue.epoch += 7;
    rogue_send(&rogue, rogue.stride, 1, 0);
    live_check(&scene.live, hear(rogue.socket, MESSAGE_REJOIN, answer, ANSWER_MS), "no Rejoin");
    zmq_close(rogue.socket);
    free(answer);
    goes_on(&scene);
    kill(scene.live.pid, SIGTERM);
    live_expect(&scene.live, 0, 30000);
    tap_start(NULL);
}

static int setup(void **state)
{
    (void)state;
    context = zmq_ctx_new();
    return codec_create(&codec);
}

static int teardown(void **state)
{
    (void)state;
    codec_destroy(&codec);
    zmq_ctx_term(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(garbage_on_every_socket, live_cleanup),
        cmocka_unit_test_teardown(another_version_is_told, live_cleanup),
        cmocka_unit_test_teardown(another_run_is_told, live_cleanup),
        cmocka_unit_test_teardown(rows_that_no_store_may_hold_are_refused_and_counted, live_cleanup),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
