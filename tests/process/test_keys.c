/*
 * A run with keys over tcp on the loopback, as over several machines, and who must not get in: no key, an
 * unknown one, one of another role, one that was revoked, a dead handler, another's slot, another's routing
 * id. The intruders are plain ZeroMQ sockets, so that nothing of ours is between them and the daemons; at
 * the end the store holds what the real actors sent and nothing else.
 */
#include "tests/support/keyed.h"

#define PAUSE_MAX_MS 800 /* of the others when a key is revoked; 30 to 150 were seen */

/* Attempts under way. */
static struct attempt {
    struct line line;
    enum door door;
    const char *what;
} attempts[32];
static int attempt_count;

/* --- who does not get in ----------------------------------------------------------- */

static int forget_attempts(void **state)
{
    attempt_count = 0; /* of a test that failed */
    return live_cleanup(state);
}

static void attempt(struct scene *scene, enum door door, const struct intruder *who, const char *what)
{
    struct attempt *attempt = &attempts[attempt_count++];
    struct message hello;

    assert_true(attempt_count <= (int)TD_LEN(attempts));
    *attempt = (struct attempt){knock(scene, door, who), door, what};
    hello = hello_of(scene, &attempt->line, 1);
    if (door == STATS)
        zmq_send(attempt->line.socket, "?", 1, 0);
    else if (door != ANNOUNCE)
        say(&attempt->line, &hello);
}

/* No handshake has succeeded, though connections were made, and no message is answered. */
static void all_were_kept_out(struct scene *scene)
{
    live_sleep(SILENT_MS);
    for (; attempt_count > 0; attempt_count--) {
        struct attempt *attempt = &attempts[attempt_count - 1];
        const char *door = door_names[attempt->door];
        int tried;

        live_check(&scene->live, !shakes_hands(&attempt->line, 60, &tried), "%s: let in at %s", attempt->what, door);
        live_check(&scene->live, tried > 0, "%s: it never reached %s", attempt->what, door);
        live_check(&scene->live, !hear(&attempt->line, 0, scene->answer, 10), "%s: answered at %s", attempt->what, door);
        close_line(&attempt->line);
    }
}

/* A handshake alone, of a key that is on the list. */
static void a_dead_handler_lets_nobody_in(void **state)
{
    const char *build = getenv("TD_BUILD");
    char library[FS_PATH_MAX], path[FS_PATH_MAX];
    struct intruder who;
    struct scene scene;

    (void)state;
    prepare(&scene, "dead");
    snprintf(path, sizeof(path), "%s/tests/support/bin_nozap.so", build == NULL ? "build/release" : build);
    assert_non_null(realpath(path, library));
    live_env("LD_PRELOAD", library);
    live_env("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0");
    start_learner(&scene);
    live_env("LD_PRELOAD", NULL);
    live_env("ASAN_OPTIONS", NULL);
    address_of(&scene, "replay.log", "tcp=", scene.doors[INGEST]); /* its child's is dead as well */
    who = with_key(&scene, &scene.actor_keys[1], CONTROL);
    attempt(&scene, CONTROL, &who, "an allowed key, a dead handler");
    who = with_key(&scene, &scene.actor_keys[1], INGEST);
    attempt(&scene, INGEST, &who, "an allowed key, a dead handler");
    who = with_key(&scene, &scene.viewer_key, STATS);
    attempt(&scene, STATS, &who, "an allowed key, a dead handler");
    all_were_kept_out(&scene);
    kill(scene.learner, SIGTERM);
    live_check(&scene.live, live_wait(scene.learner, 20000) == 0, "the learner does not end with 0");
    free(scene.answer);
}

/* --- who gets in, but is not heard ---------------------------------------------------- */

/* A message on an open connection is not answered. */
static void is_silent(struct scene *scene, struct line *line, const struct message *message, const char *what)
{
    say(line, message);
    live_check(&scene->live, !hear(line, 0, scene->answer, SILENT_MS), "%s is answered with %s", what,
               message_name(scene->answer->kind));
}

/* The message is not answered, but the allowed one that follows it over the same connection is, once. */
static void is_not_heard(struct scene *scene, struct line *line, const struct message *message,
                         const struct message *allowed, const char *what)
{
    uint32_t welcome = allowed->kind == MESSAGE_HELLO ? MESSAGE_WELCOME : MESSAGE_INGEST_WELCOME, kind;

    say(line, message);
    say(line, allowed);
    do { /* a stream's limit (Ack) may come at any time */
        live_check(&scene->live, hear(line, 0, scene->answer, ANSWER_MS), "after %s nothing is answered", what);
        kind = scene->answer->kind;
        live_check(&scene->live, kind == welcome || kind == MESSAGE_ACK, "%s is answered with %s", what, message_name(kind));
    } while (kind != welcome);
    live_check(&scene->live, !hear(line, welcome, scene->answer, 100), "%s is answered", what);
}

/* Said again until it is answered, as our parts do. */
static void hears_welcome(struct scene *scene, struct line *line, uint32_t slot, const char *what)
{
    struct message hello = hello_of(scene, line, slot);
    uint64_t end = clock_ms() + ANSWER_MS;
    bool heard = false;

    while (!heard && clock_ms() < end) {
        say(line, &hello);
        heard = hear(line, MESSAGE_WELCOME, scene->answer, 300);
    }
    live_check(&scene->live, heard, "%s", what);
    while (hear(line, 0, scene->answer, 60))
        ;
}

static void a_key_speaks_for_its_own_slot_alone(struct scene *scene)
{
    struct intruder who;
    struct message message, allowed;
    struct line line;

    /* the learner: other slots, other processes, other roles, and words of others */
    who = with_key(scene, &scene->actor_keys[1], CONTROL);
    line = knock(scene, CONTROL, &who);
    hears_welcome(scene, &line, 1, "its own slot is not answered");
    allowed = hello_of(scene, &line, 1);
    message = hello_of(scene, &line, 0);
    is_not_heard(scene, &line, &message, &allowed, "a Hello for slot 0");
    message = hello_of(scene, &line, 1);
    message.hello.process = scene->actor_process;
    is_not_heard(scene, &line, &message, &allowed, "a Hello for another process");
    message = hello_of(scene, &line, 1);
    message.hello.has_slot = false;
    is_not_heard(scene, &line, &message, &allowed, "a Hello for any slot");
    message.hello = (struct hello){.role = ROLE_EVALUATOR, .process = line.id};
    is_not_heard(scene, &line, &message, &allowed, "a Hello of an evaluator");
    message.kind = MESSAGE_HEARTBEAT;
    message.heartbeat = (struct heartbeat){.role = ROLE_ACTOR, .slot = 1, .process = scene->actor_process};
    is_not_heard(scene, &line, &message, &allowed, "a heartbeat of another process");
    message.kind = MESSAGE_STOP;
    memset(&message.stop, 0, sizeof(message.stop));
    is_not_heard(scene, &line, &message, &allowed, "a stop");
    close_line(&line);

    /* the shard: to take another's stream over, or to write into it */
    who = with_key(scene, &scene->actor_keys[1], INGEST);
    line = knock(scene, INGEST, &who);
    allowed = ingest_hello_of(scene, 1, line.id);
    message = ingest_hello_of(scene, 0, line.id);
    is_not_heard(scene, &line, &message, &allowed, "an IngestHello for slot 0");
    message = ingest_hello_of(scene, 1, scene->actor_process);
    is_not_heard(scene, &line, &message, &allowed, "an IngestHello for another process");
    message.kind = MESSAGE_ROWS;
    message.bulks = 1;
    message.bulk[0] = (struct bulk){"0123456789012345678901234567890123456789012345678901234567890123", 64};
    message.rows = (struct rows){.slot = 0, .process = line.id, .store = 1, .epoch = 1, .count = 1, .stride = 64};
    is_not_heard(scene, &line, &message, &allowed, "rows for slot 0");
    close_line(&line);
    live_check(&scene->live, live_count(&scene->live, "../strangers.out", "message refused") > 0, "the learner does not say so");
    live_check(&scene->live, live_count(&scene->live, "replay.log", "message refused") > 0, "the shard does not say so");
}

static void a_stolen_routing_id_is_not_heard(struct scene *scene)
{
    static const enum door doors[] = {CONTROL, INGEST};
    struct intruder who;

    for (size_t i = 0; i < TD_LEN(doors); i++) {
        struct message message;
        struct line line;

        /* the thief has an allowed key, and says what its key may say */
        who = with_key(scene, &scene->actor_keys[1], doors[i]);
        who.id = scene->actor_process;
        line = knock(scene, doors[i], &who);
        message = doors[i] == CONTROL ? hello_of(scene, &line, 1) : ingest_hello_of(scene, 1, line.id);
        say(&line, &message);
        live_check(&scene->live,
                   live_said(&scene->live, doors[i] == CONTROL ? "../strangers.out" : "replay.log",
                             "another key holds this routing id", ANSWER_MS),
                   "the thief is not noticed at %s", door_names[doors[i]]);
        close_line(&line);
    }
    live_check(&scene->live, live_count(&scene->live, "../strangers.out", "joined with slot 1") == 0, "the thief was seated");
    /* whose it is takes it back by itself */
    rises(scene, "actor", "env_steps");
}

static void strangers_do_not_get_in_and_a_key_speaks_for_its_own_slot_alone(void **state)
{
    struct intruder nobody = {0}, who;
    struct key_pair unknown;
    struct scene scene;
    struct error err;
    int tried;

    (void)state;
    start(&scene, "strangers");
    assert_ok(keys_make(&unknown, &err), err);
    for (int door = 0; door < DOORS; door++) {
        attempt(&scene, door, &nobody, "no key");
        who = with_key(&scene, &unknown, door);
        attempt(&scene, door, &who, "an unknown key");
        who = with_key(&scene, door == STATS ? &scene.actor_keys[1] : &scene.viewer_key, door);
        attempt(&scene, door, &who, "a key of another role");
        who = with_key(&scene, &scene.shard_key, door);
        if (door != CONTROL)
            attempt(&scene, door, &who, "the shard's key");
    }
    all_were_kept_out(&scene);
    /* and the right ones do, so the doors are real */
    for (int door = 0; door < DOORS; door++) {
        struct line line;

        who = with_key(&scene, door == STATS ? &scene.viewer_key : &scene.actor_keys[1], door);
        line = knock(&scene, door, &who);
        live_check(&scene.live, shakes_hands(&line, ANSWER_MS, &tried), "the right key at %s", door_names[door]);
        close_line(&line);
    }
    a_key_speaks_for_its_own_slot_alone(&scene);
    a_stolen_routing_id_is_not_heard(&scene);
    end(&scene);
}

static void a_revoked_key_is_out_at_once_and_a_new_list_is_read(void **state)
{
    struct intruder who, listener;
    struct line line, subscriber, late;
    char list[600], *before, text[4096];
    struct message message;
    struct scene scene;
    struct error err;
    size_t length;
    int tried, code;

    (void)state;
    start(&scene, "revoked");
    snprintf(list, sizeof(list), "%s/allowed", scene.keys);
    assert_ok(fs_read_file(list, 1u << 20, &before, &length, &err), err);
    who = with_key(&scene, &scene.actor_keys[1], CONTROL);
    line = knock(&scene, CONTROL, &who);
    hears_welcome(&scene, &line, 1, "an allowed key is not answered");
    listener = with_key(&scene, &scene.actor_keys[1], ANNOUNCE);
    subscriber = knock(&scene, ANNOUNCE, &listener);
    live_check(&scene.live, hear(&subscriber, MESSAGE_ANNOUNCE, scene.answer, GO_ON_MS), "nothing is announced");
    live_check(&scene.live, shakes_hands(&subscriber, ANSWER_MS, &tried), "without a handshake?");

    run_keys(&scene, "revoke=actor-1");
    live_check(&scene.live, live_said(&scene.live, "../revoked.out", "allowed keys was read again", ANSWER_MS), "not read");
    while (hear(&line, 0, scene.answer, 100)) /* heartbeats that were on the way */
        ;
    message = hello_of(&scene, &line, 1);
    is_silent(&scene, &line, &message, "the open connection of a revoked key");
    attempt(&scene, CONTROL, &who, "a revoked key");
    who = with_key(&scene, &scene.actor_keys[1], INGEST);
    attempt(&scene, INGEST, &who, "a revoked key");
    all_were_kept_out(&scene);
    while (hear(&subscriber, 0, scene.answer, 100))
        ;
    rises(&scene, "learner", "updates");
    live_check(&scene.live, !hear(&subscriber, 0, scene.answer, 2500), "a revoked subscriber still hears");

    /* a list that cannot be read admits nobody: not even open connections of keys that were on it */
    who = with_key(&scene, &scene.actor_keys[2], CONTROL);
    late = knock(&scene, CONTROL, &who);
    hears_welcome(&scene, &late, 2, "another key is not answered");
    assert_ok(fs_write_file(list, "nonsense\n", 9, &err), err);
    live_check(&scene.live, live_said(&scene.live, "../revoked.out", "cannot be read", ANSWER_MS), "not said");
    while (hear(&late, 0, scene.answer, 100))
        ;
    message = hello_of(&scene, &late, 2);
    is_silent(&scene, &late, &message, "a key while the list is damaged");

    /* the old list again: who was let in may speak, who tried all the while comes in without a restart */
    assert_ok(fs_write_file(list, before, length, &err), err);
    hears_welcome(&scene, &late, 2, "a key that is allowed again");
    live_check(&scene.live, shakes_hands(&subscriber, GO_ON_MS, &tried), "a key that is allowed again does not come in");
    live_check(&scene.live, hear(&subscriber, MESSAGE_ANNOUNCE, scene.answer, GO_ON_MS), "nor does it hear");
    close_line(&line);
    close_line(&late);
    close_line(&subscriber);
    free(before);

    /* an actor whose key is revoked does not start, and says why */
    run_keys(&scene, "revoke=actor-2");
    snprintf(text, sizeof(text), "learner=%s", scene.doors[CONTROL]);
    code = live_run("tdmpc2-actor", text, sizeof(text), 10000, "learner=tcp://127.0.0.1:1", "actor=2",
                    scene.keys_word, NULL);
    live_check(&scene.live, code == 2 && strstr(text, "no key of actor-2") != NULL, "%d: %s", code, text);
    end(&scene);
}

/* --- who is believed -------------------------------------------------------------------- */

/* Something that listens with a key that is on the list, but not the learner's. */
static void only_the_learners_key_is_a_learner(void **state)
{
    void *socket;
    char address[256], frame[256];
    size_t size = sizeof(address);
    int one = 1, wait = 3000, none = 0, code;
    struct scene scene;
    pid_t actor;

    (void)state;
    prepare(&scene, "false");
    socket = zmq_socket(context, ZMQ_ROUTER);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait, sizeof(wait));
    zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof(one));
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, scene.actor_keys[1].secret_key, 40);
    assert_int_equal(zmq_bind(socket, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, address, &size), 0);
    actor = start_actor(&scene, address, "actor=0");
    live_check(&scene.live, zmq_recv(socket, frame, sizeof(frame), 0) < 0, "the actor speaks to a false learner");
    kill(actor, SIGTERM);
    code = live_wait(actor, 15000);
    live_check(&scene.live, code == 0, "the actor ends with %d", code);
    live_check(&scene.live, live_count(&scene.live, "../false.actor.out", "keys of another run?") > 0, "it does not say why it waits");
    zmq_close(socket);
    free(scene.answer);
}

/* The commands: statistics with the viewer's key, the end with the learner's. */
static void commands_use_their_keys(void **state)
{
    char text[65536];
    struct scene scene;
    int code;

    (void)state;
    start(&scene, "commands");
    code = live_run("tdmpc2", text, sizeof(text), 10000, "stats", scene.doors[STATS], "--json", scene.keys_word, NULL);
    live_check(&scene.live, code == 0 && strstr(text, "\"updates\"") != NULL, "stats: %d %s", code, text);
    code = live_run("tdmpc2", text, sizeof(text), 10000, "stats", scene.doors[STATS], "--json", NULL);
    live_check(&scene.live, code == 1, "stats without keys: %d %s", code, text);
    code = live_run("tdmpc2", text, sizeof(text), 20000, "stop", scene.doors[CONTROL], NULL);
    live_check(&scene.live, code == 1, "stop without keys: %d %s", code, text);
    code = live_run("tdmpc2", text, sizeof(text), 20000, "stop", scene.doors[CONTROL], scene.keys_word, NULL);
    live_check(&scene.live, code == 0, "stop: %d %s", code, text);
    live_check(&scene.live, live_wait(scene.learner, 20000) == 0, "the learner does not end with 0");
    live_check(&scene.live, live_wait(scene.actor, 15000) == 0, "the actor does not end with 0");
    free(scene.answer);
}

/* --- all parts over tcp ------------------------------------------------------------------- */

/* The longest time without an update, from now on for so long. */
static uint64_t longest_pause(const struct scene *scene, uint64_t ms)
{
    uint64_t begin = clock_ms(), last = begin, longest = 0;
    double before = -1;

    while (clock_ms() < begin + ms) {
        double updates = live_metric(&scene->live, "learner", 0, "updates");

        if (updates > before) {
            longest = clock_ms() - last > longest ? clock_ms() - last : longest;
            last = clock_ms();
            before = updates;
        }
        live_sleep(10);
    }
    return clock_ms() - last > longest ? clock_ms() - last : longest;
}

/* A second shard and the evaluator as on other hosts, two actors; then one actor's key is revoked. */
static void remote_parts_need_keys_and_a_revoked_actor_is_out(void **state)
{
    char word[300], out[500], text[4096];
    pid_t shard, evaluator, actor;
    struct scene scene;
    uint64_t pause;
    int code;

    (void)state;
    prepare(&scene, "remote");
    run_keys(&scene, "shard=1");
    scene.extra = "shards=2";
    scene.extra2 = "evaluator=remote";
    start_learner(&scene);
    snprintf(word, sizeof(word), "learner=%s", scene.doors[CONTROL]);
    /* without keys, or with another's, a shard is not taken */
    snprintf(out, sizeof(out), "%s.stranger.out", scene.live.dir);
    shard = live_spawn("tdmpc2-replay", out, NULL, word, "shard=1", "shards=2", "bind=tcp://127.0.0.1:*", scene.place, NULL);
    live_sleep(1500);
    live_check(&scene.live, live_count(&scene.live, "../remote.out", "shard 1 joined") == 0, "a shard without a key joined");
    live_check(&scene.live, live_said(&scene.live, "../remote.stranger.out", "it asks for keys", ANSWER_MS), "the shard does not say why");
    live_check(&scene.live, live_said(&scene.live, "../remote.out", "a handshake failed", ANSWER_MS), "nor does the learner");
    kill(shard, SIGTERM);
    live_wait(shard, 20000);

    snprintf(out, sizeof(out), "%s.shard1.out", scene.live.dir);
    shard = live_spawn("tdmpc2-replay", out, NULL, word, "shard=1", "shards=2", "bind=tcp://127.0.0.1:*", scene.keys_word,
                       scene.place, NULL);
    snprintf(out, sizeof(out), "%s.evaluator.out", scene.live.dir);
    evaluator = live_spawn("tdmpc2-actor", out, NULL, word, "role=evaluator", scene.keys_word, scene.place, NULL);
    scene.actor = start_actor(&scene, scene.doors[CONTROL], "actor=0"); /* of shard 0 */
    actor = start_actor(&scene, scene.doors[CONTROL], "actor=1");       /* of shard 1 */
    live_await(&scene.live, "learner", 0, "updates", 220, LIVE_START_MS);
    live_rises(&scene.live, "replay", 0, "rows_stored", 50, GO_ON_MS);
    live_rises(&scene.live, "replay", 1, "rows_stored", 50, GO_ON_MS);
    live_check(&scene.live, live_count(&scene.live, "../remote.out", "shard 1 joined") == 1, "shard 1 did not join once");
    live_check(&scene.live, live_said(&scene.live, "../remote.out", "msg=\"eval\"", GO_ON_MS), "nothing was evaluated");

    /* the real actor is out: nothing of it is stored, the other goes on, and it cannot come back */
    run_keys(&scene, "revoke=actor-1");
    pause = longest_pause(&scene, 1500);
    live_check(&scene.live, live_said(&scene.live, "../remote.shard1.out", "allowed keys was read again", ANSWER_MS), "not read");
    live_check(&scene.live, pause < PAUSE_MAX_MS, "the others stood still for %d ms", (int)pause);
    code = (int)live_metric(&scene.live, "replay", 1, "rows_stored");
    live_rises(&scene.live, "replay", 0, "rows_stored", 50, GO_ON_MS);
    live_check(&scene.live, (int)live_metric(&scene.live, "replay", 1, "rows_stored") == code, "a revoked actor's rows are stored");
    kill(actor, SIGTERM);
    live_wait(actor, 20000); /* its last words are not answered: it gives up waiting */
    code = live_run("tdmpc2-actor", text, sizeof(text), 10000, word, "actor=1", scene.keys_word, NULL);
    live_check(&scene.live, code == 2, "a revoked actor starts: %d %s", code, text);

    kill(scene.actor, SIGTERM);
    live_check(&scene.live, live_wait(scene.actor, 15000) == 0, "the actor does not end with 0");
    kill(scene.learner, SIGTERM);
    live_check(&scene.live, live_wait(scene.learner, 25000) == 0, "the learner does not end with 0");
    kill(evaluator, SIGTERM);
    live_wait(evaluator, 15000);
    kill(shard, SIGTERM);
    live_wait(shard, 20000);
    live_no_orphans(&scene.live, 2000);
    free(scene.answer);
}

/* `tdmpc2 train keys=`: the keys go to every part that it starts, and its port asks for them. */
static void train_hands_the_keys_on(void **state)
{
    struct intruder nobody = {0}, who;
    struct scene scene;
    char listen[64];
    int tried;

    (void)state;
    prepare(&scene, "trained");
    snprintf(listen, sizeof(listen), "bind=tcp://127.0.0.1:%d", live_free_port());
    live_train(&scene.live, "task=toy", "steps=100000000", "seed_steps=200", "actors=2", "evaluator=off", listen,
               scene.keys_word, NULL);
    address_of(&scene, "learner.log", "actors_join_with=learner=", scene.doors[CONTROL]);
    live_await(&scene.live, "learner", 0, "updates", 220, LIVE_START_MS);
    attempt(&scene, CONTROL, &nobody, "no key");
    all_were_kept_out(&scene);
    who = with_key(&scene, &scene.actor_keys[2], CONTROL);
    attempts[0].line = knock(&scene, CONTROL, &who);
    live_check(&scene.live, shakes_hands(&attempts[0].line, ANSWER_MS, &tried), "the right key is kept out");
    close_line(&attempts[0].line);
    kill(scene.live.pid, SIGTERM);
    live_expect(&scene.live, 0, 30000);
    free(scene.answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(strangers_do_not_get_in_and_a_key_speaks_for_its_own_slot_alone, forget_attempts),
        cmocka_unit_test_teardown(a_dead_handler_lets_nobody_in, forget_attempts),
        cmocka_unit_test_teardown(a_revoked_key_is_out_at_once_and_a_new_list_is_read, forget_attempts),
        cmocka_unit_test_teardown(only_the_learners_key_is_a_learner, forget_attempts),
        cmocka_unit_test_teardown(commands_use_their_keys, forget_attempts),
        cmocka_unit_test_teardown(remote_parts_need_keys_and_a_revoked_actor_is_out, forget_attempts),
        cmocka_unit_test_teardown(train_hands_the_keys_on, forget_attempts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
