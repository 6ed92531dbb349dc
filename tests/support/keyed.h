/*
 * keyed.h - a run with keys over tcp on the loopback, and plain ZeroMQ sockets that speak to its daemons with
 * any key: what the tests of strangers and of hostile actors share. Included by a test program once.
 */
#ifndef TD_TEST_KEYED_H
#define TD_TEST_KEYED_H

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zmq.h>

#include "common/net/keys.h"
#include "common/store/row.h"
#include "common/util/clock.h"
#include "common/wire/codec.h"
#include "tests/support/live.h"
#include "tests/support/raw_peer.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define MAYBE __attribute__((unused))

#define GO_ON_MS  30000
#define ANSWER_MS 5000
#define SILENT_MS 700  /* long enough for an answer: those that come take a few ms */

static void *context;
static codec_t *codec;

/* --- sockets of strangers ----------------------------------------------------- */

/* Who an intruder is. No pair: it speaks without a key (NULL mechanism). */
struct intruder {
    const struct key_pair *pair;
    char server[KEY_TEXT_MAX]; /* whose key it expects to answer */
    uint64_t id;               /* of its routing; 0: a random one */
};

/* A socket, and what ZeroMQ says of its handshakes. */
struct line {
    void *socket, *monitor;
    uint64_t id;
};

static MAYBE struct line open_line(int type, const char *address, const struct intruder *who)
{
    static int number;
    struct line line = {.socket = zmq_socket(context, type), .monitor = zmq_socket(context, ZMQ_PAIR)};
    int none = 0, wait = 50, again = 50, events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_CONNECTED;
    unsigned char name[9] = {'P'};
    char inside[64];

    line.id = who->id != 0 ? who->id : rng_u64(test_rng()) | 1;
    for (int i = 0; i < 8; i++)
        name[1 + i] = (unsigned char)(line.id >> (8 * i));
    snprintf(inside, sizeof(inside), "inproc://monitor-%d", number++);
    assert_int_equal(zmq_socket_monitor(line.socket, inside, events), 0);
    assert_int_equal(zmq_connect(line.monitor, inside), 0);
    zmq_setsockopt(line.socket, ZMQ_ROUTING_ID, name, sizeof(name));
    zmq_setsockopt(line.socket, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(line.socket, ZMQ_RCVTIMEO, &wait, sizeof(wait));
    zmq_setsockopt(line.socket, ZMQ_SNDTIMEO, &wait, sizeof(wait));
    zmq_setsockopt(line.socket, ZMQ_RECONNECT_IVL, &again, sizeof(again));
    zmq_setsockopt(line.monitor, ZMQ_RCVTIMEO, &wait, sizeof(wait));
    if (type == ZMQ_SUB)
        zmq_setsockopt(line.socket, ZMQ_SUBSCRIBE, "", 0);
    if (who->pair != NULL) {
        assert_int_equal(zmq_setsockopt(line.socket, ZMQ_CURVE_SERVERKEY, who->server, 40), 0);
        assert_int_equal(zmq_setsockopt(line.socket, ZMQ_CURVE_PUBLICKEY, who->pair->public_key, 40), 0);
        assert_int_equal(zmq_setsockopt(line.socket, ZMQ_CURVE_SECRETKEY, who->pair->secret_key, 40), 0);
    }
    assert_int_equal(zmq_connect(line.socket, address), 0);
    return line;
}

static MAYBE void close_line(struct line *line)
{
    zmq_socket_monitor(line->socket, NULL, 0);
    zmq_close(line->monitor);
    zmq_close(line->socket);
}

/* Does a handshake succeed within so many ms? How many connections were made, to the first success. */
static MAYBE bool shakes_hands(struct line *line, int ms, int *tried)
{
    uint64_t end = clock_ms() + (uint64_t)ms;

    *tried = 0;
    while (clock_ms() < end) {
        uint8_t event[6];
        char address[256];
        uint16_t kind;

        if (zmq_recv(line->monitor, event, sizeof(event), 0) != sizeof(event))
            continue;
        zmq_recv(line->monitor, address, sizeof(address), 0);
        memcpy(&kind, event, sizeof(kind));
        if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            return true;
        (*tried)++;
    }
    return false;
}

static MAYBE void say(struct line *line, const struct message *message)
{
    raw_say(codec, line->socket, message);
}

static MAYBE bool hear(struct line *line, uint32_t kind, struct message *message, int ms)
{
    return raw_hear(codec, line->socket, kind, message, ms);
}

/* --- a run with keys ------------------------------------------------------------ */

enum door { CONTROL, PARAMS, ANNOUNCE, INGEST, STATS, DOORS };

static const char *const door_names[] = {"control", "params", "announce", "ingest", "stats"};

struct scene {
    struct live live;
    char keys[500], notes[500], keys_word[520], place[500];
    char doors[DOORS][256];
    uint64_t run, actor_process;
    pid_t learner, actor;
    struct key_pair learner_key, shard_key, viewer_key, actor_keys[3];
    struct message *answer;
    const char *extra, *extra2; /* other words for the learner, or NULL */
};

/* `tdmpc2 keys DIR word`. */
static MAYBE void run_keys(const struct scene *scene, const char *word)
{
    char text[4096];
    int code = live_run("tdmpc2", text, sizeof(text), 10000, "keys", scene->keys, word, NULL);

    if (code != 0)
        fail_msg("tdmpc2 keys %s: %d %s", word, code, text);
}

static MAYBE void load_key(const struct scene *scene, struct key_pair *pair, uint32_t role, uint32_t number)
{
    struct identity who = {role, number};
    struct error err;

    assert_ok(keys_load(pair, scene->keys, &who, &err), err);
}

/* What stands behind `key` in a file beside or in the run directory, once it does. */
static MAYBE void address_of(const struct scene *scene, const char *file, const char *key, char out[256])
{
    char path[FS_PATH_MAX], *bytes, *at;
    struct error err;
    size_t length;

    live_check(&scene->live, live_said(&scene->live, file, key, LIVE_START_MS), "no %s in %s", key, file);
    snprintf(path, sizeof(path), "%s/%s", scene->live.dir, file);
    assert_ok(fs_read_file(path, 1u << 20, &bytes, &length, &err), err);
    at = strstr(bytes, key) + strlen(key);
    snprintf(out, 256, "%.*s", (int)strcspn(at, " \"\n"), at);
    free(bytes);
}

static MAYBE pid_t start_actor(const struct scene *scene, const char *learner, const char *actor)
{
    char word[300], out[500];

    snprintf(word, sizeof(word), "learner=%s", learner);
    snprintf(out, sizeof(out), "%s.actor.out", scene->live.dir);
    return live_spawn("tdmpc2-actor", out, NULL, word, actor, scene->keys_word, scene->place, NULL);
}

static MAYBE void start_learner(struct scene *scene)
{
    char listen[64], out[80];

    snprintf(listen, sizeof(listen), "bind=tcp://127.0.0.1:%d", live_free_port());
    snprintf(out, sizeof(out), "../%s.out", scene->live.name);
    scene->learner = live_spawn("tdmpc2-learner", scene->live.out, live_tiny, "task=toy", "seed_steps=200",
                                "heartbeat=0.25", "steps=100000000", "eval_freq=1000", scene->place, listen,
                                scene->keys_word, scene->extra, scene->extra2, NULL);
    address_of(scene, out, "actors_join_with=learner=", scene->doors[CONTROL]);
    address_of(scene, out, "stats=", scene->doors[STATS]);
}

static MAYBE void prepare(struct scene *scene, const char *name)
{
    if (context == NULL) {
        context = zmq_ctx_new();
        assert_int_equal(codec_create(&codec), TD_OK);
    }
    memset(scene, 0, sizeof(*scene));
    scene->answer = calloc(1, sizeof(*scene->answer));
    live_init(&scene->live, name, false);
    snprintf(scene->keys, sizeof(scene->keys), "%s.keys", scene->live.dir);
    snprintf(scene->keys_word, sizeof(scene->keys_word), "keys=%s", scene->keys);
    snprintf(scene->place, sizeof(scene->place), "work_dir=%s", scene->live.dir);
    run_keys(scene, "actors=3");
    load_key(scene, &scene->learner_key, ROLE_LEARNER, 0);
    load_key(scene, &scene->shard_key, ROLE_SHARD, 0);
    load_key(scene, &scene->viewer_key, ROLE_TOOL, 0);
    for (uint32_t i = 0; i < 3; i++)
        load_key(scene, &scene->actor_keys[i], ROLE_ACTOR, i);
}

static MAYBE struct intruder with_key(const struct scene *scene, const struct key_pair *pair, enum door door)
{
    const struct key_pair *server = door == INGEST ? &scene->shard_key : &scene->learner_key;
    struct intruder who = {.pair = pair};

    memcpy(who.server, server->public_key, KEY_TEXT_MAX);
    return who;
}

static MAYBE struct line knock(const struct scene *scene, enum door door, const struct intruder *who)
{
    return open_line(door == ANNOUNCE ? ZMQ_SUB : door == STATS ? ZMQ_REQ : ZMQ_DEALER, scene->doors[door], who);
}

static MAYBE struct message hello_of(const struct scene *scene, const struct line *line, uint32_t slot)
{
    struct message message = {.kind = MESSAGE_HELLO, .run = scene->run};

    message.hello = (struct hello){.role = ROLE_ACTOR, .process = line->id, .has_slot = true, .slot = slot};
    return message;
}

static MAYBE struct message ingest_hello_of(const struct scene *scene, uint32_t slot, uint64_t process)
{
    struct message message = {.kind = MESSAGE_INGEST_HELLO, .run = scene->run};

    message.ingest_hello =
        (struct ingest_hello){.slot = slot, .process = process, .spec = {OBS_STATE, 4, 2, 50, true}, .count = 1};
    return message;
}

/* The learner with its shard and actor 0, training; and the addresses of all their doors. */
static MAYBE void start(struct scene *scene, const char *name)
{
    struct rundir_part part;
    struct intruder who;
    struct message hello;
    struct line line;

    prepare(scene, name);
    snprintf(scene->notes, sizeof(scene->notes), "%s.notes", scene->live.dir);
    tap_start(scene->notes);
    start_learner(scene);
    scene->actor = start_actor(scene, scene->doors[CONTROL], "actor=0");
    tap_start(NULL);
    address_of(scene, "replay.log", "tcp=", scene->doors[INGEST]);
    live_await(&scene->live, "learner", 0, "updates", 220, LIVE_START_MS);
    assert_true(live_find(&scene->live, "actor", 0, &part));
    scene->actor_process = part.process;
    scene->run = part.run_id;
    /* the key of slot 1 is answered, and told the other addresses */
    who = with_key(scene, &scene->actor_keys[1], CONTROL);
    line = knock(scene, CONTROL, &who);
    hello = hello_of(scene, &line, 1);
    say(&line, &hello);
    live_check(&scene->live, hear(&line, MESSAGE_WELCOME, scene->answer, ANSWER_MS), "an allowed key is not answered");
    assert_true(scene->answer->run == scene->run);
    snprintf(scene->doors[PARAMS], 256, "%s", scene->answer->welcome.params);
    snprintf(scene->doors[ANNOUNCE], 256, "%s", scene->answer->welcome.announce);
    close_line(&line);
}

static MAYBE void rises(const struct scene *scene, const char *role, const char *metric)
{
    live_rises(&scene->live, role, 0, metric, 30, GO_ON_MS);
}

static MAYBE void end(struct scene *scene)
{
    char store[500];
    struct tap tap;

    live_check(&scene->live, live_part(&scene->live, "actor", 0, 0) == scene->actor, "actor 0 was replaced");
    rises(scene, "learner", "updates");
    rises(scene, "learner", "agent_steps");
    kill(scene->actor, SIGTERM);
    live_check(&scene->live, live_wait(scene->actor, 15000) == 0, "the actor does not end with 0");
    kill(scene->learner, SIGTERM);
    live_check(&scene->live, live_wait(scene->learner, 20000) == 0, "the learner does not end with 0");
    live_no_orphans(&scene->live, 1000);
    snprintf(store, sizeof(store), "%s/replay", scene->live.dir);
    tap_load(&tap, scene->notes);
    tap_audit(&tap, store, 0);
    tap_release(&tap);
    free(scene->answer);
}

#endif
