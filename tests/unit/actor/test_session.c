/* The session by itself: what it refuses, whom it waits for, what it does when it is told nonsense. */
#include "actor/session.h"

#include <math.h>

#include <xxhash.h>

#include "tests/support/test.h"

enum { OBS = 3, ACTION = 2, OUTBOX = 16, RUN = 77, SNAPSHOT = 64, BEAT = 2000 };

static struct {
    session_t *session;
    uint64_t now;
    struct session_output exit;  /* kind 0: none */
    struct session_output last[128]; /* by kind of message or command */
    int logs, sent;
    char said[OUTPUT_TEXT_MAX];
} at;

/* Drain; remember the last output of every kind. */
static void drain(void)
{
    struct session_output output;

    while (session_next(at.session, &output)) {
        if (output.kind == OUTPUT_EXIT) {
            at.exit = output;
        } else if (output.kind == OUTPUT_LOG) {
            at.logs++;
            memcpy(at.said, output.log.text, sizeof(at.said));
        } else if (output.kind == OUTPUT_SEND) {
            at.last[output.message.kind] = output;
            at.sent++;
        } else {
            at.last[100 + output.kind - OUTPUT_ROLE] = output;
        }
    }
}

static struct session_output *command(uint32_t kind)
{
    return &at.last[100 + kind - OUTPUT_ROLE];
}

static bool take(struct session_output *output, struct session_output *into)
{
    bool there = output->kind != 0;

    if (into != NULL)
        *into = *output;
    memset(output, 0, sizeof(*output));
    return there;
}

static void tick(uint64_t ms)
{
    uint64_t end = at.now + ms;

    while (at.now < end && at.exit.kind == 0) {
        uint64_t next = session_deadline(at.session);

        at.now = next > at.now ? (next < end ? next : end) : at.now + 1;
        session_tick(at.session, at.now);
        drain();
    }
}

static void feed(uint32_t port, struct message *message)
{
    struct peer peer = {.port = port};

    message->run = message->run == 0 ? RUN : message->run;
    session_receive(at.session, at.now, &peer, message);
    drain();
}

static struct message welcome(uint32_t epoch, uint32_t phase)
{
    struct message message = {.kind = MESSAGE_WELCOME};

    message.welcome = (struct welcome){.learner_epoch = epoch, .learner_process = 5 + epoch,
                                       .role = ROLE_ACTOR, .has_slot = true, .slot = 3,
                                       .phase = phase};
    strcpy(message.welcome.ingest, "ingest");
    strcpy(message.welcome.params, "params");
    strcpy(message.welcome.announce, "announce");
    return message;
}

static void heartbeat(uint32_t epoch, uint32_t phase, struct announcement newest)
{
    struct message message = {.kind = MESSAGE_HEARTBEAT};

    message.heartbeat = (struct heartbeat){.learner_epoch = epoch, .phase = phase, .newest = newest};
    feed(PORT_CONTROL, &message);
}

static void grant(uint64_t epoch, uint64_t next, uint64_t limit)
{
    struct message message = {.kind = MESSAGE_INGEST_WELCOME};

    message.ingest_welcome = (struct ingest_welcome){.slot = 3, .process = 9, .store = 4, .count = 1};
    message.ingest_welcome.streams[0] = (struct stream_granted){0, epoch, next, limit};
    feed(PORT_INGEST, &message);
}

static void acknowledge(uint64_t epoch, uint64_t next, uint64_t limit)
{
    struct message message = {.kind = MESSAGE_ACK};

    message.ack = (struct ack){3, 0, 4, epoch, next, limit};
    feed(PORT_INGEST, &message);
}

/* Answer the reset or step that was asked for. */
static bool step(float value, bool truncated)
{
    struct session_output output;
    float obs[OBS] = {value, 0, 0}, action[ACTION] = {0};
    struct session_step result = {.obs = obs, .action = action, .truncated = truncated};
    bool reset = take(command(COMMAND_RESET), &output);

    if (reset)
        result.action = NULL;
    else if (!take(command(COMMAND_STEP), &output))
        return false;
    result.truncated &= !reset;
    session_stepped(at.session, at.now, reset ? output.reset.token : output.step.token, &result);
    drain();
    return true;
}

static int create(void **state)
{
    struct session_config config = {.run = 0, .process = 9, .role = ROLE_ACTOR, .slot = 3,
                                    .heartbeat_ms = BEAT, .timeout_ms = 60000};
    struct error err;

    (void)state;
    memset(&at, 0, sizeof(at));
    at.now = 5000;
    strcpy(config.control, "tcp://learner");
    assert_ok(session_create(&at.session, &config, &err), err);
    session_tick(at.session, at.now);
    drain();
    return 0;
}

static int destroy(void **state)
{
    (void)state;
    session_destroy(&at.session);
    return 0;
}

/* Seated, with a stream of epoch 1 and no limit. */
static void seat(uint32_t phase)
{
    struct session_setup setup = {.spec = {OBS_STATE, OBS, ACTION, 0, true, 0}, .environments = 1,
                                  .seed = 1, .outbox = OUTBOX, .max_staleness = 10,
                                  .heartbeat_ms = BEAT, .timeout_ms = 60000,
                                  .snapshot_bytes = SNAPSHOT};
    struct message message = welcome(1, phase);

    assert_true(at.last[MESSAGE_HELLO].kind != 0);
    assert_int_equal(at.last[MESSAGE_HELLO].message.hello.spec.obs_type, 0);
    feed(PORT_CONTROL, &message);
    assert_true(take(command(COMMAND_CONFIGURE), NULL));
    session_configured(at.session, at.now, &setup);
    drain();
    assert_int_equal(at.last[MESSAGE_HELLO].message.hello.spec.obs_dim, OBS);
    message = welcome(1, phase);
    feed(PORT_CONTROL, &message);
    assert_true(at.last[MESSAGE_INGEST_HELLO].kind != 0);
    grant(1, 0, LIMIT_NONE);
}

/* --- tests ------------------------------------------------------------------- */

static void it_joins_and_steps(void **state)
{
    (void)state;
    seat(PHASE_SEEDING);
    assert_true(step(1, false)); /* the reset */
    assert_true(command(COMMAND_STEP)->step.random && command(COMMAND_STEP)->step.first);
    assert_int_equal(at.last[MESSAGE_ROWS].message.rows.count, 1);
    assert_true(step(2, false));
    assert_false(command(COMMAND_STEP)->step.first);
    assert_true(step(3, true));
    acknowledge(1, 2, LIMIT_NONE);
    assert_int_equal(at.last[MESSAGE_EPISODE_END].kind, 0); /* its last row is still on the way */
    acknowledge(1, 3, LIMIT_NONE);
    assert_true(at.last[MESSAGE_EPISODE_END].message.episode_end.length == 2);
    assert_true(command(COMMAND_RESET)->kind != 0);
    assert_int_equal(at.exit.kind, 0);
}

static void limits_bind_the_next_step(void **state)
{
    (void)state;
    seat(PHASE_SEEDING);
    assert_true(step(1, false));
    assert_true(step(2, false));
    acknowledge(1, 2, 1); /* one agent step is in: no more */
    assert_true(step(3, false)); /* was under way */
    assert_false(step(4, false));
    acknowledge(1, 3, 3);
    assert_true(step(4, false));
    assert_false(step(5, false));
}

static void a_full_outbox_pauses(void **state)
{
    struct session_view view;
    int steps = 0;

    (void)state;
    seat(PHASE_SEEDING);
    while (step(1, false))
        steps++;
    assert_int_equal(steps, OUTBOX);
    session_view(at.session, at.now, &view);
    assert_int_equal(view.waiting, WAITING_ACKS);
    acknowledge(1, 5, LIMIT_NONE);
    assert_true(step(1, false));
}

static void what_was_lost_is_sent_again(void **state)
{
    struct message nack = {.kind = MESSAGE_NACK};

    (void)state;
    seat(PHASE_SEEDING);
    for (int i = 0; i < 6; i++)
        assert_true(step((float)i, false));
    nack.nack = (struct nack){3, 0, 4, 1, 2};
    memset(&at.last[MESSAGE_ROWS], 0, sizeof(at.last[0]));
    feed(PORT_INGEST, &nack);
    assert_true(at.last[MESSAGE_ROWS].message.rows.first == 2);
    acknowledge(1, 4, LIMIT_NONE);
    memset(&at.last[MESSAGE_INGEST_HELLO], 0, sizeof(at.last[0]));
    feed(PORT_INGEST, &nack); /* rows that are no longer here */
    assert_true(at.last[MESSAGE_INGEST_HELLO].message.ingest_hello.streams[0].renew);
    grant(2, 0, LIMIT_NONE);
    assert_non_null(strstr(at.said, "new epoch"));
    assert_true(command(COMMAND_RESET)->reset.reseed);
}

static void refused_rows_end_the_episode_then_the_actor(void **state)
{
    struct message refused = {.kind = MESSAGE_REFUSED};

    (void)state;
    seat(PHASE_SEEDING);
    for (uint64_t epoch = 1; epoch <= 3; epoch++) {
        assert_int_equal(at.exit.kind, 0);
        assert_true(step(1, false));
        refused.refused = (struct refused){.code = REFUSED_ROWS, .stream_epoch = epoch};
        strcpy(refused.refused.text, "too hot");
        feed(PORT_INGEST, &refused);
        if (epoch < 3)
            grant(epoch + 1, 0, LIMIT_NONE);
    }
    assert_int_equal(at.exit.exit.code, TD_EXIT_BAD_INPUT);
    assert_non_null(strstr(at.exit.exit.text, "too hot"));
}

static void an_environment_that_breaks_is_bad_input(void **state)
{
    (void)state;
    seat(PHASE_SEEDING);
    for (uint64_t epoch = 2; at.exit.kind == 0 && epoch < 10; epoch++) {
        assert_true(step(NAN, false));
        grant(epoch, 0, LIMIT_NONE);
    }
    assert_int_equal(at.exit.exit.code, TD_EXIT_BAD_INPUT);
    assert_non_null(strstr(at.exit.exit.text, "cannot be stored"));
}

/* The reset or step that was asked for found the environment gone. */
static void lose(void)
{
    struct session_step result = {.lost = "toy: it fell"};
    struct session_output output;
    bool reset = take(command(COMMAND_RESET), &output);

    assert_true(reset || take(command(COMMAND_STEP), &output));
    session_stepped(at.session, at.now, reset ? output.reset.token : output.step.token, &result);
    drain();
}

static bool renewal_asked(void)
{
    return at.last[MESSAGE_INGEST_HELLO].kind != 0 &&
           at.last[MESSAGE_INGEST_HELLO].message.ingest_hello.streams[0].renew;
}

/* Its rows go out first, then a new epoch closes the episode; the reset brings another seed. */
static void a_lost_environment_loses_no_rows(void **state)
{
    struct session_view view;

    (void)state;
    seat(PHASE_SEEDING);
    assert_true(step(1, false));
    assert_true(step(2, false));
    lose();
    assert_non_null(strstr(at.said, "it fell"));
    tick(300); /* past the pause: still rows without an answer */
    assert_false(renewal_asked());
    session_view(at.session, at.now, &view);
    assert_int_equal(view.waiting, WAITING_ACKS);
    acknowledge(1, 2, LIMIT_NONE);
    assert_true(renewal_asked());
    assert_false(take(command(COMMAND_RESET), NULL));
    grant(2, 0, LIMIT_NONE);
    assert_true(command(COMMAND_RESET)->reset.reseed);
    session_view(at.session, at.now, &view);
    assert_int_equal(view.dropped_rows, 0);
    assert_int_equal(at.exit.kind, 0);
}

static void environments_lost_again_and_again_end_the_actor(void **state)
{
    struct session_view view;

    (void)state;
    seat(PHASE_SEEDING);
    for (uint64_t i = 0; i < 4; i++) { /* a reset that fails loses no rows, but counts */
        uint64_t begun = at.now;

        lose();
        assert_int_equal(at.exit.kind, 0);
        session_view(at.session, at.now, &view);
        assert_int_equal(view.waiting, WAITING_ENVIRONMENT);
        memset(&at.last[MESSAGE_INGEST_HELLO], 0, sizeof(at.last[0]));
        while (!renewal_asked())
            tick(10);
        assert_true(at.now - begun >= (250u << i) && at.now - begun < (250u << i) + 600);
        heartbeat(1, PHASE_SEEDING, (struct announcement){0});
        grant(i + 2, 0, LIMIT_NONE);
    }
    lose();
    assert_int_equal(at.exit.exit.code, TD_EXIT_GAVE_UP);
    assert_non_null(strstr(at.exit.exit.text, "it fell"));
}

static void a_whole_episode_makes_good(void **state)
{
    (void)state;
    seat(PHASE_SEEDING);
    for (uint64_t i = 0; i < 8; i++) {
        uint64_t next = 2;

        assert_true(step(1, false));
        assert_true(step(2, true));
        if (i % 2 == 0) { /* in the middle of the next episode */
            assert_true(step(1, false));
            next++;
        }
        lose();
        acknowledge(i + 1, next, LIMIT_NONE);
        memset(&at.last[MESSAGE_INGEST_HELLO], 0, sizeof(at.last[0]));
        while (!renewal_asked())
            tick(10);
        heartbeat(1, PHASE_SEEDING, (struct announcement){0});
        grant(i + 2, 0, LIMIT_NONE);
        assert_int_equal(at.exit.kind, 0);
    }
}

static void pull_answer(uint32_t epoch, uint64_t version, const char *bytes)
{
    struct message chunk = {.kind = MESSAGE_CHUNK, .bulks = 1, .bulk = {{bytes, SNAPSHOT}}};

    chunk.chunk = (struct chunk){epoch, version, 0};
    feed(PORT_PARAMS, &chunk);
}

static void parameters_too_old_or_of_another_epoch_are_not_planned_with(void **state)
{
    static const char bytes[SNAPSHOT];
    struct announcement newest = {1, 100, SNAPSHOT, 12345};
    struct message gone = {.kind = MESSAGE_GONE};
    struct session_output output;
    struct session_view view;

    (void)state;
    seat(PHASE_RUNNING);
    assert_true(step(1, false));
    assert_false(step(1, false)); /* none yet */
    heartbeat(1, PHASE_RUNNING, newest);
    assert_true(at.last[MESSAGE_PULL].message.pull.version == 100);
    pull_answer(1, 100, bytes); /* the hash is wrong: from the start */
    assert_false(take(command(COMMAND_ADOPT), NULL));
    assert_non_null(strstr(at.said, "hash"));
    newest.version = 101;
    newest.hash = XXH3_64bits(bytes, SNAPSHOT);
    gone.gone = (struct gone){newest, 1, 100};
    feed(PORT_PARAMS, &gone);
    assert_true(at.last[MESSAGE_PULL].message.pull.version == 101);
    pull_answer(1, 101, bytes);
    assert_true(take(command(COMMAND_ADOPT), &output));
    assert_true(output.adopt.version == 101);
    session_adopted(at.session, at.now, output.adopt.token, true);
    drain();
    assert_false(command(COMMAND_STEP)->step.random);
    assert_true(step(2, false));
    assert_true(command(COMMAND_STEP)->kind != 0);
    newest.version = 111;
    heartbeat(1, PHASE_RUNNING, newest); /* ten behind is allowed */
    assert_true(step(2, false));
    newest.version = 112;
    heartbeat(1, PHASE_RUNNING, newest);
    assert_true(step(2, false)); /* was asked for before */
    assert_false(step(2, false));
    session_view(at.session, at.now, &view);
    assert_int_equal(view.waiting, WAITING_PARAMETERS);
    assert_true(view.lag == 11);
}

static void another_size_of_parameters_is_bad_input(void **state)
{
    (void)state;
    seat(PHASE_RUNNING);
    assert_true(step(1, false));
    heartbeat(1, PHASE_RUNNING, (struct announcement){1, 5, SNAPSHOT + 4, 0});
    assert_int_equal(at.exit.exit.code, TD_EXIT_BAD_INPUT);
}

static void an_older_learner_is_not_heard(void **state)
{
    struct message message = welcome(2, PHASE_SEEDING), stop = {.kind = MESSAGE_STOP};

    (void)state;
    seat(PHASE_SEEDING);
    feed(PORT_CONTROL, &message); /* the newer one */
    stop.stop.learner_epoch = 1;
    feed(PORT_CONTROL, &stop);
    assert_int_equal(at.exit.kind, 0);
    stop.stop.learner_epoch = 2;
    feed(PORT_CONTROL, &stop);
    assert_int_equal(at.exit.kind, OUTPUT_EXIT);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);
}

static void another_run_is_refused(void **state)
{
    struct message message = welcome(5, PHASE_SEEDING);

    (void)state;
    seat(PHASE_SEEDING);
    message.run = RUN + 1;
    feed(PORT_CONTROL, &message);
    assert_int_equal(at.exit.exit.code, TD_EXIT_BAD_INPUT);
    assert_non_null(strstr(at.exit.exit.text, "run"));
}

static void refusals_and_fences(void **state)
{
    struct message refused = {.kind = MESSAGE_REFUSED}, fenced = {.kind = MESSAGE_FENCED};

    seat(PHASE_SEEDING);
    fenced.fenced = (struct fenced){3, 0, 9}; /* ourselves: nonsense */
    feed(PORT_INGEST, &fenced);
    assert_int_equal(at.exit.kind, 0);
    fenced.fenced.holder = 10;
    feed(PORT_INGEST, &fenced);
    assert_int_equal(at.exit.exit.code, TD_EXIT_FENCED);
    destroy(state);
    create(state);
    refused.refused.code = REFUSED_SPEC;
    feed(PORT_CONTROL, &refused);
    assert_int_equal(at.exit.exit.code, TD_EXIT_BAD_INPUT);
}

static void it_says_whom_it_waits_for_and_gives_up_in_the_end(void **state)
{
    (void)state;
    tick(4000);
    assert_int_equal(at.logs, 0);
    tick(2000);
    assert_int_equal(at.logs, 1);
    assert_non_null(strstr(at.said, "waiting for the learner tcp://learner"));
    tick(60000);
    assert_int_equal(at.exit.exit.code, TD_EXIT_GAVE_UP);
}

static void a_silent_learner_pauses_a_silent_shard_too(void **state)
{
    struct session_view view;

    (void)state;
    seat(PHASE_SEEDING);
    tick(9000);
    heartbeat(1, PHASE_SEEDING, (struct announcement){0});
    memset(&at.last[MESSAGE_HELLO], 0, sizeof(at.last[0]));
    tick(3000);
    session_view(at.session, at.now, &view);
    assert_int_equal(view.waiting, WAITING_NOTHING); /* a command is under way */
    assert_true(step(1, false));
    session_view(at.session, at.now, &view);
    assert_int_equal(view.waiting, WAITING_SHARD);
    assert_true(at.last[MESSAGE_HELLO].kind != 0); /* the learner may know another address */
    tick(9000);
    session_view(at.session, at.now, &view);
    assert_int_equal(view.waiting, WAITING_LEARNER);
    assert_false(step(1, false));
}

static void answer_leave(uint32_t port, uint64_t process)
{
    struct message message = {.kind = MESSAGE_LEAVE, .leave = {.role = ROLE_ACTOR, .slot = 3, .process = process}};

    feed(port, &message);
}

/* All is acknowledged and Leave was said. */
static void part(void)
{
    seat(PHASE_SEEDING);
    assert_true(step(1, false));
    acknowledge(1, 1, LIMIT_NONE);
    session_terminate(at.session, at.now);
    drain();
    assert_true(step(2, false));
    acknowledge(1, 2, LIMIT_NONE);
    assert_int_equal(at.exit.kind, 0);
}

static void sigterm_waits_for_acknowledgements(void **state)
{
    (void)state;
    seat(PHASE_SEEDING);
    assert_true(step(1, false));
    session_terminate(at.session, at.now);
    drain();
    assert_int_equal(at.exit.kind, 0); /* the step under way */
    assert_true(step(2, false));
    assert_false(step(3, false));
    assert_int_equal(at.exit.kind, 0);
    acknowledge(1, 2, LIMIT_NONE);
    assert_true(at.last[MESSAGE_LEAVE].kind != 0);
    assert_int_equal(at.exit.kind, 0); /* nobody has heard it yet */
    answer_leave(PORT_CONTROL, 9);
    assert_int_equal(at.exit.kind, 0);
    answer_leave(PORT_INGEST, 9);
    assert_int_equal(at.exit.kind, OUTPUT_EXIT);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);
}

/* Said again to whoever has not answered, and nothing else is; a second at most. */
static void leave_is_said_until_it_is_heard(void **state)
{
    struct message rejoin = {.kind = MESSAGE_SAY_HELLO};
    int before;

    (void)state;
    part();
    for (int i = 0; i < 3; i++) {
        assert_true(take(&at.last[MESSAGE_LEAVE], NULL));
        tick(100);
    }
    answer_leave(PORT_INGEST, 8); /* another's */
    assert_true(take(&at.last[MESSAGE_LEAVE], NULL));
    answer_leave(PORT_INGEST, 9);
    before = at.sent;
    feed(PORT_CONTROL, &rejoin);
    acknowledge(1, 2, LIMIT_NONE);
    heartbeat(1, PHASE_SEEDING, (struct announcement){0});
    assert_int_equal(at.sent, before);
    for (int i = 0; i < 5; i++) {
        tick(100);
        assert_int_equal(at.last[MESSAGE_LEAVE].peer.port, PORT_CONTROL);
        assert_int_equal(at.sent, ++before);
    }
    assert_int_equal(at.exit.kind, 0);
    tick(200);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);
    assert_non_null(strstr(at.said, "the learner did not answer"));
}

/* Who goes as well, or was not there, is not waited for. */
static void leave_waits_for_nobody_who_is_gone(void **state)
{
    struct message leaving = {.kind = MESSAGE_LEAVING, .leaving = {.learner_epoch = 1}};

    (void)state;
    part();
    feed(PORT_CONTROL, &leaving);
    assert_int_equal(at.exit.kind, 0);
    answer_leave(PORT_INGEST, 9);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);

    destroy(state);
    create(state);
    seat(PHASE_SEEDING);
    feed(PORT_CONTROL, &leaving);
    assert_true(step(1, false));
    tick(5 * BEAT + 1); /* nor was anything heard of the shard */
    session_terminate(at.session, at.now);
    drain();
    tick(10000);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);
    assert_null(strstr(at.said, "did not answer"));
}

static void sigterm_waits_ten_seconds_at_most(void **state)
{
    (void)state;
    seat(PHASE_SEEDING);
    assert_true(step(1, false));
    session_terminate(at.session, at.now);
    drain();
    tick(9000);
    assert_int_equal(at.exit.kind, 0);
    tick(1000);
    assert_non_null(strstr(at.said, "1 rows"));
    tick(1000);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);
}

#define SESSION_TEST(f) cmocka_unit_test_setup_teardown(f, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_TEST(it_joins_and_steps),
        SESSION_TEST(limits_bind_the_next_step),
        SESSION_TEST(a_full_outbox_pauses),
        SESSION_TEST(what_was_lost_is_sent_again),
        SESSION_TEST(refused_rows_end_the_episode_then_the_actor),
        SESSION_TEST(an_environment_that_breaks_is_bad_input),
        SESSION_TEST(a_lost_environment_loses_no_rows),
        SESSION_TEST(environments_lost_again_and_again_end_the_actor),
        SESSION_TEST(a_whole_episode_makes_good),
        SESSION_TEST(parameters_too_old_or_of_another_epoch_are_not_planned_with),
        SESSION_TEST(another_size_of_parameters_is_bad_input),
        SESSION_TEST(an_older_learner_is_not_heard),
        SESSION_TEST(another_run_is_refused),
        SESSION_TEST(refusals_and_fences),
        SESSION_TEST(it_says_whom_it_waits_for_and_gives_up_in_the_end),
        SESSION_TEST(a_silent_learner_pauses_a_silent_shard_too),
        SESSION_TEST(sigterm_waits_for_acknowledgements),
        SESSION_TEST(leave_is_said_until_it_is_heard),
        SESSION_TEST(leave_waits_for_nobody_who_is_gone),
        SESSION_TEST(sigterm_waits_ten_seconds_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
