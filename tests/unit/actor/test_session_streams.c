/* An actor with three environments: each stream goes on, waits and ends by itself. */
#include "actor/session.h"

#include "tests/support/test.h"

enum { OBS = 3, ACTION = 2, OUTBOX = 16, BEAT = 2000, LANES = 3 };

static struct {
    session_t *session;
    uint64_t now;
    struct session_output move[LANES]; /* the reset or step asked for; kind 0: none */
    struct rows sent[LANES];           /* the last rows */
    struct ingest_hello hello;         /* the last */
    int ends[LANES];
    uint32_t length[LANES];
    uint32_t exit_code;
    bool exited;
} at;

static void sent(const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_ROWS:
        at.sent[message->rows.environment] = message->rows;
        break;
    case MESSAGE_INGEST_HELLO:
        at.hello = message->ingest_hello;
        break;
    case MESSAGE_EPISODE_END:
        at.ends[message->episode_end.environment]++;
        at.length[message->episode_end.environment] = (uint32_t)message->episode_end.length;
        break;
    default:
        break;
    }
}

static void drain(void)
{
    struct session_output output;

    while (session_next(at.session, &output)) {
        if (output.kind == OUTPUT_SEND) {
            sent(&output.message);
        } else if (output.kind == OUTPUT_EXIT) {
            at.exited = true;
            at.exit_code = (uint32_t)output.exit.code;
        } else if (output.kind == COMMAND_RESET || output.kind == COMMAND_STEP) {
            uint32_t lane = output.kind == COMMAND_RESET ? output.reset.environment : output.step.environment;

            assert_in_range(lane, 0, LANES - 1);
            assert_int_equal(at.move[lane].kind, 0); /* one at a time */
            at.move[lane] = output;
        }
    }
}

static void feed(uint32_t port, struct message *message)
{
    struct peer peer = {.port = port};

    message->run = 77;
    session_receive(at.session, at.now, &peer, message);
    drain();
}

static void grant(int lane, uint64_t epoch, uint64_t next, uint64_t limit)
{
    struct message message = {.kind = MESSAGE_INGEST_WELCOME};

    message.ingest_welcome = (struct ingest_welcome){.slot = 3, .process = 9, .store = 4, .count = 1};
    message.ingest_welcome.streams[0] = (struct stream_granted){(uint32_t)lane, epoch, next, limit};
    feed(PORT_INGEST, &message);
}

static void acknowledge(int lane, uint64_t epoch, uint64_t next, uint64_t limit)
{
    struct message message = {.kind = MESSAGE_ACK};

    message.ack = (struct ack){3, (uint32_t)lane, 4, epoch, next, limit};
    feed(PORT_INGEST, &message);
}

static void welcome(void)
{
    struct message message = {.kind = MESSAGE_WELCOME};

    message.welcome = (struct welcome){.learner_epoch = 1, .learner_process = 6, .role = ROLE_ACTOR,
                                       .has_slot = true, .slot = 3, .phase = PHASE_SEEDING};
    strcpy(message.welcome.ingest, "ingest");
    strcpy(message.welcome.params, "params");
    strcpy(message.welcome.announce, "announce");
    feed(PORT_CONTROL, &message);
}

/* Answer what was asked of this environment. False: nothing was. */
static bool answer(int lane, bool truncated, const char *lost)
{
    struct session_output output = at.move[lane];
    bool reset = output.kind == COMMAND_RESET;
    float obs[OBS] = {(float)lane, 0, 0}, action[ACTION] = {0};
    struct session_step result = {.obs = obs, .action = reset ? NULL : action, .reward = 1,
                                  .truncated = truncated && !reset, .lost = lost};

    if (output.kind == 0)
        return false;
    at.move[lane].kind = 0;
    session_stepped(at.session, at.now, reset ? output.reset.token : output.step.token, &result);
    drain();
    return true;
}

static bool step(int lane)
{
    return answer(lane, false, NULL);
}

static uint32_t waiting(void)
{
    struct session_view view;

    session_view(at.session, at.now, &view);
    return view.waiting;
}

static int create(void **state)
{
    struct session_config config = {.process = 9, .role = ROLE_ACTOR, .slot = 3, .heartbeat_ms = BEAT,
                                    .timeout_ms = 60000};
    struct session_setup setup = {.spec = {OBS_STATE, OBS, ACTION, 0, true, 0}, .environments = LANES, .seed = 1,
                                  .outbox = OUTBOX, .max_staleness = 10, .heartbeat_ms = BEAT,
                                  .timeout_ms = 60000, .snapshot_bytes = 64};
    struct error err;

    (void)state;
    memset(&at, 0, sizeof(at));
    at.now = 5000;
    strcpy(config.control, "tcp://learner");
    assert_ok(session_create(&at.session, &config, &err), err);
    session_tick(at.session, at.now);
    drain();
    welcome();
    session_configured(at.session, at.now, &setup);
    drain();
    welcome();
    assert_int_equal(at.hello.count, LANES);
    for (int lane = 0; lane < LANES; lane++)
        assert_int_equal(at.hello.streams[lane].environment, lane);
    return 0;
}

static int destroy(void **state)
{
    (void)state;
    session_destroy(&at.session);
    return 0;
}

/* All seated and reset. */
static void begin(void)
{
    for (int lane = 0; lane < LANES; lane++)
        grant(lane, 1, 0, LIMIT_NONE);
    for (int lane = 0; lane < LANES; lane++)
        assert_true(step(lane));
}

/* --- tests -------------------------------------------------------------------- */

/* Seeds differ by environment, and the draws of steps do. */
static void each_has_its_own_seed_and_draws(void **state)
{
    uint64_t seeds[LANES];

    (void)state;
    for (int lane = 0; lane < LANES; lane++) {
        assert_int_equal(at.move[lane].kind, 0); /* not before its stream has an epoch */
        grant(lane, 1, 0, LIMIT_NONE);
        assert_int_equal(at.move[lane].kind, COMMAND_RESET);
        assert_true(at.move[lane].reset.reseed);
        seeds[lane] = at.move[lane].reset.seed;
    }
    assert_true(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2]);
    for (uint32_t lane = 0; lane < LANES; lane++) {
        assert_true(step((int)lane));
        assert_int_equal(at.move[lane].step.key.env, lane);
        assert_int_equal(at.move[lane].step.key.slot, 3);
    }
}

static void one_that_waits_does_not_stop_the_others(void **state)
{
    (void)state;
    begin();
    acknowledge(1, 1, 1, 0); /* no step for this one */
    assert_true(step(1));    /* was under way */
    assert_false(step(1));
    for (int i = 0; i < 5; i++)
        assert_true(step(0) && step(2));
    assert_int_equal(waiting(), WAITING_NOTHING); /* two of three are busy */
    acknowledge(0, 1, 6, 0);
    acknowledge(2, 1, 6, 0);
    assert_true(step(0) && step(2));
    assert_false(step(0) || step(1) || step(2));
    assert_int_equal(waiting(), WAITING_LIMIT);
    acknowledge(1, 1, 2, 4);
    assert_true(step(1));
    assert_false(step(0) || step(2));
}

static void one_full_outbox_stops_only_its_own(void **state)
{
    int steps = 0;

    (void)state;
    begin();
    while (step(0))
        steps++;
    assert_int_equal(steps, OUTBOX - 1); /* the reset's row is there, too */
    for (int i = 0; i < 40; i++) {
        assert_true(step(1) && step(2));
        acknowledge(1, 1, (uint64_t)i + 2, LIMIT_NONE);
        acknowledge(2, 1, (uint64_t)i + 2, LIMIT_NONE);
    }
    assert_false(step(0));
    acknowledge(0, 1, 3, LIMIT_NONE);
    assert_true(step(0));
}

static void episodes_end_each_by_itself(void **state)
{
    (void)state;
    begin();
    assert_true(step(0) && step(0) && step(2));
    assert_true(answer(1, true, NULL)); /* its first step ends it */
    assert_int_equal(at.move[1].kind, COMMAND_RESET);
    assert_int_equal(at.move[0].kind, COMMAND_STEP);
    assert_false(at.move[1].reset.reseed);
    acknowledge(1, 1, 2, LIMIT_NONE);
    assert_int_equal(at.ends[1], 1);
    assert_int_equal(at.length[1], 1);
    assert_int_equal(at.ends[0] + at.ends[2], 0);
    assert_true(answer(0, true, NULL));
    acknowledge(0, 1, 4, LIMIT_NONE);
    assert_int_equal(at.length[0], 3);
}

/* The lost one gets a new epoch and seed; the others' rows, epochs and episodes stay. */
static void a_lost_environment_is_only_its_own_affair(void **state)
{
    (void)state;
    begin();
    assert_true(step(0) && step(1) && step(2));
    assert_true(answer(1, false, "toy: it fell"));
    assert_int_equal(at.move[1].kind, 0);
    for (int i = 0; i < 3; i++)
        assert_true(step(0) && step(2));
    assert_int_equal(waiting(), WAITING_NOTHING);
    acknowledge(1, 1, 2, LIMIT_NONE);
    at.now += 300;
    session_tick(at.session, at.now);
    drain();
    assert_true(at.hello.streams[1].renew);
    assert_false(at.hello.streams[0].renew || at.hello.streams[2].renew);
    grant(1, 2, 0, LIMIT_NONE);
    assert_true(at.move[1].kind == COMMAND_RESET && at.move[1].reset.reseed);
    assert_true(step(0) && step(1) && step(2));
    assert_int_equal(at.sent[1].epoch, 2);
    assert_int_equal(at.sent[0].epoch, 1);
    assert_int_equal(at.sent[0].first, 3); /* the fourth row on its way: nothing was dropped */
    assert_false(at.exited);
}

/* One that does not answer: the others go on; a new epoch does not wait for it, nor, in the end, does leaving. */
static void one_that_does_not_answer_keeps_no_other(void **state)
{
    struct session_output hung;
    float obs[OBS] = {1, 0, 0}, action[ACTION] = {0};
    struct session_step late = {.obs = obs, .action = action, .reward = 1};

    (void)state;
    begin();
    assert_true(step(1));
    hung = at.move[1];
    for (uint64_t i = 0; i < 40; i++) {
        assert_true(step(0) && step(2));
        acknowledge(0, 1, i + 2, LIMIT_NONE);
        acknowledge(2, 1, i + 2, LIMIT_NONE);
    }
    assert_true(at.move[1].step.token == hung.step.token);
    assert_int_equal(waiting(), WAITING_NOTHING);

    at.move[1].kind = 0; /* the shard begins an epoch: whatever becomes of the step, its result is of the last one */
    grant(1, 2, 0, LIMIT_NONE);
    assert_true(at.move[1].kind == COMMAND_RESET && at.move[1].reset.reseed);
    session_stepped(at.session, at.now, hung.step.token, &late);
    drain();
    assert_int_equal(at.sent[1].epoch, 1);
    assert_true(step(1));
    assert_int_equal(at.sent[1].epoch, 2);
    assert_int_equal(at.sent[1].count, 1);

    session_terminate(at.session, at.now);
    drain();
    assert_true(step(0) && step(2));
    assert_false(step(0) || step(2));
    acknowledge(0, 1, 42, LIMIT_NONE);
    acknowledge(2, 1, 42, LIMIT_NONE);
    acknowledge(1, 2, 1, LIMIT_NONE);
    for (int second = 1; second <= 2; second++) { /* so long for a step that may be its last */
        assert_false(at.exited);
        assert_true(session_deadline(at.session) <= at.now + 1000 * (uint64_t)(3 - second));
        at.now += 1000;
        session_tick(at.session, at.now);
        drain();
    }
    assert_false(at.exited); /* goodbye was said, and nobody answers */
    at.now += 1000;
    session_tick(at.session, at.now);
    drain();
    assert_true(at.exited);
    assert_int_equal(at.exit_code, TD_EXIT_OK);
}

/* A stream that another process holds: this process has no business with any of them. */
static void fenced_on_one_is_fenced(void **state)
{
    struct message message = {.kind = MESSAGE_FENCED};

    (void)state;
    begin();
    message.fenced = (struct fenced){3, 2, 9}; /* itself: an echo of its own past */
    feed(PORT_INGEST, &message);
    assert_false(at.exited);
    message.fenced.holder = 10;
    feed(PORT_INGEST, &message);
    assert_true(at.exited);
    assert_int_equal(at.exit_code, TD_EXIT_FENCED);
}

/* Going back to an epoch would send other rows under the same names. */
static void an_old_welcome_does_not_bring_back_its_epoch(void **state)
{
    (void)state;
    grant(0, 2, 0, LIMIT_NONE);
    assert_true(step(0));
    assert_int_equal(at.sent[0].epoch, 2);
    grant(0, 1, 0, LIMIT_NONE);
    assert_true(step(0));
    assert_int_equal(at.sent[0].epoch, 2);
    assert_int_equal(at.sent[0].first + at.sent[0].count, 2);
}

#define SESSION_TEST(f) cmocka_unit_test_setup_teardown(f, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_TEST(each_has_its_own_seed_and_draws),
        SESSION_TEST(one_that_waits_does_not_stop_the_others),
        SESSION_TEST(one_full_outbox_stops_only_its_own),
        SESSION_TEST(episodes_end_each_by_itself),
        SESSION_TEST(a_lost_environment_is_only_its_own_affair),
        SESSION_TEST(one_that_does_not_answer_keeps_no_other),
        SESSION_TEST(fenced_on_one_is_fenced),
        SESSION_TEST(an_old_welcome_does_not_bring_back_its_epoch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
