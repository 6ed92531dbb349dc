/* handshake.c - why hands are not shaken, as both sides say it; over real channels with and without keys. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zmq.h>

#include "common/net/channel.h"
#include "common/net/handshake.h"
#include "common/util/clock.h"
#include "common/util/log.h"
#include "common/wire/message.h"
#include "tests/support/test.h"

static const struct identity learner = {ROLE_LEARNER, 0}, actor = {ROLE_ACTOR, 3};

/* DIR with the secret of `self` and a list of these two. */
static void make_folder(const char *dir, const struct identity *self, const struct key_pair *own,
                        const struct key_pair *learners, const struct key_pair *actors)
{
    struct allowed_keys list = {0};
    struct error err;

    assert_int_equal(mkdir(dir, 0700), 0);
    assert_ok(keys_save(own, dir, self, &err), err);
    assert_ok(allowed_add(&list, &learner, learners->public_key, &err), err);
    assert_ok(allowed_add(&list, &actor, actors->public_key, &err), err);
    assert_ok(allowed_save(&list, dir, &err), err);
    allowed_release(&list);
}

static channel_t *open_end(loop_t *loop, enum channel_pattern pattern, guard_t *guard)
{
    struct channel_options options = {.name = "control", .pattern = pattern, .max_message = 4096, .identity = 77,
                                      .guard = guard, .insecure = true, .server = learner};
    channel_t *channel;
    struct error err;

    assert_ok(channel_open(&channel, loop, &options, &err), err);
    return channel;
}

static void turn(loop_t *loop, uint64_t ms)
{
    for (uint64_t now, end = clock_ms() + ms; (now = clock_ms()) < end;)
        loop_run_for(loop, end - now);
}

/* What it says within `ms`, looked at as post.c does; NULL: nothing. */
static const char *says(loop_t *loop, channel_t *client, uint64_t ms)
{
    const char *why = NULL;

    for (uint64_t end = clock_ms() + ms; why == NULL && clock_ms() < end; why = channel_trouble(client))
        turn(loop, 100);
    return why;
}

static void assert_trouble(loop_t *loop, channel_t *server, guard_t *guard, const char *expected)
{
    channel_t *client = open_end(loop, CHANNEL_DEALER, guard);
    const char *why;
    struct error err;

    assert_ok(channel_connect(client, channel_address(server), &err), err);
    why = says(loop, client, expected == NULL ? 500 : 12000);
    if (expected == NULL ? why != NULL : why == NULL || strstr(why, expected) == NULL)
        fail_msg("says \"%s\", expected \"%s\"", why, expected);
    channel_close(&client);
}

static void assert_logged(loop_t *loop, const char *path, const char *expected)
{
    struct error err;
    size_t length;
    char *text;

    turn(loop, 100);
    assert_ok(fs_read_file(path, 1u << 20, &text, &length, &err), err);
    if (strstr(text, expected) == NULL)
        fail_msg("not in the log: %s\n%s", expected, text);
    free(text);
}

static void both_sides_say_why(void **state)
{
    char dirs[4][300], log[300];
    struct key_pair learners, others, actors, strangers;
    guard_t *serving, *listed, *unlisted, *foreign;
    channel_t *keyed, *plain;
    struct error err;
    loop_t *loop;
    int fd;

    (void)state;
    for (int i = 0; i < 4; i++)
        snprintf(dirs[i], sizeof(dirs[i]), "%s/handshake-%d", test_folder(), i);
    snprintf(log, sizeof(log), "%s/handshake.log", test_folder());
    fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0600);
    assert_true(fd >= 0);
    log_init("test", 0, 0, fd);
    assert_ok(keys_make(&learners, &err), err);
    assert_ok(keys_make(&others, &err), err);
    assert_ok(keys_make(&actors, &err), err);
    assert_ok(keys_make(&strangers, &err), err);
    make_folder(dirs[0], &learner, &learners, &learners, &actors);
    make_folder(dirs[1], &actor, &actors, &learners, &actors);
    make_folder(dirs[2], &actor, &strangers, &learners, &strangers); /* its list names it, the learner's does not */
    make_folder(dirs[3], &actor, &actors, &others, &actors);         /* of another run */
    assert_ok(loop_create(&loop, &err), err);
    assert_ok(guard_open(&serving, loop, dirs[0], &learner, &err), err);
    assert_ok(guard_open(&listed, loop, dirs[1], &actor, &err), err);
    assert_ok(guard_open(&unlisted, loop, dirs[2], &actor, &err), err);
    assert_ok(guard_open(&foreign, loop, dirs[3], &actor, &err), err);
    keyed = open_end(loop, CHANNEL_ROUTER, serving);
    plain = open_end(loop, CHANNEL_ROUTER, NULL);
    assert_ok(channel_bind(keyed, "tcp://127.0.0.1:*", &err), err);
    assert_ok(channel_bind(plain, "tcp://127.0.0.1:*", &err), err);

    assert_trouble(loop, keyed, listed, NULL);
    assert_trouble(loop, plain, NULL, NULL);
    assert_trouble(loop, keyed, NULL, "it asks for keys");
    assert_logged(loop, log, "it has no key");
    assert_trouble(loop, keyed, unlisted, "does not let this part's key in");
    assert_logged(loop, log, "a key was not let in");
    assert_logged(loop, log, strangers.public_key);
    assert_trouble(loop, plain, listed, "speaks without keys");
    assert_logged(loop, log, "started without");
    assert_trouble(loop, keyed, foreign, "keys of another run");
    channel_close(&keyed);
    channel_close(&plain);
    guard_close(&foreign);
    guard_close(&unlisted);
    guard_close(&listed);
    guard_close(&serving);
    loop_destroy(&loop);
    channel_shutdown();
    log_init("test", 0, 0, STDERR_FILENO);
    close(fd);
}

/* Something that takes connections and says nothing, and who knocks there. */
struct silent {
    void *context, *socket;
    int listener;
    struct handshake handshake;
};

static void knock(struct silent *silent)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    char address[64];
    int none = 0;

    *silent = (struct silent){.context = zmq_ctx_new(), .listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    silent->socket = zmq_socket(silent->context, ZMQ_DEALER);
    assert_int_equal(bind(silent->listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(silent->listener, 4), 0);
    assert_int_equal(getsockname(silent->listener, (struct sockaddr *)&at, &size), 0);
    snprintf(address, sizeof(address), "tcp://127.0.0.1:%d", ntohs(at.sin_port));
    zmq_setsockopt(silent->socket, ZMQ_LINGER, &none, sizeof(none));
    assert_true(handshake_watch(&silent->handshake, silent->context, silent->socket));
    assert_int_equal(zmq_connect(silent->socket, address), 0);
}

static void walk_off(struct silent *silent)
{
    handshake_leave(&silent->handshake, silent->socket);
    zmq_close(silent->socket);
    zmq_ctx_term(silent->context);
    close(silent->listener);
}

/* Time is the test's. */
static void who_says_nothing_is_told_of(void **state)
{
    uint64_t end = clock_ms() + 5000;
    struct silent silent;

    (void)state;
    knock(&silent);
    while (silent.handshake.since_ms == 0 && clock_ms() < end) {
        assert_null(handshake_trouble(&silent.handshake, true, 1000));
        usleep(2000);
    }
    assert_int_equal(silent.handshake.since_ms, 1000);
    assert_null(handshake_trouble(&silent.handshake, true, 1000 + HANDSHAKE_MUTE_MS - 1));
    assert_non_null(strstr(handshake_trouble(&silent.handshake, true, 1000 + HANDSHAKE_MUTE_MS), "answers no handshake"));
    walk_off(&silent);
}

/* A busy learner that wants keys may hang up before its refusal was read: that is not taken for a wrong address. */
static void who_hangs_up_may_want_keys(void **state)
{
    uint64_t end = clock_ms() + 5000;
    const char *why = NULL;
    struct silent silent;

    (void)state;
    knock(&silent);
    while (why == NULL && clock_ms() < end) {
        int caller = accept(silent.listener, NULL, NULL);

        if (caller >= 0)
            close(caller);
        why = handshake_trouble(&silent.handshake, false, 1000);
        usleep(2000);
    }
    assert_non_null(why);
    assert_non_null(strstr(why, "it asks for keys"));
    walk_off(&silent);
}

static void every_refusal_has_a_sentence(void **state)
{
    (void)state;
    assert_non_null(strstr(handshake_refusal(ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC, true), "another"));
    assert_non_null(strstr(handshake_refusal(ZMQ_PROTOCOL_ERROR_ZMTP_UNSPECIFIED, true), "does not speak"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_say_why),
        cmocka_unit_test(who_says_nothing_is_told_of),
        cmocka_unit_test(who_hangs_up_may_want_keys),
        cmocka_unit_test(every_refusal_has_a_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
