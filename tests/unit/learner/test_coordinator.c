/* The coordinator by itself: who may join, who fences whom, how it ends. The rest: tests/sim. */
#include "learner/coordinator.h"

#include "common/store/row.h"
#include "tests/support/test.h"

enum { OBS = 3, ACTION = 2, RUN = 77, SNAPSHOT = 64, SHARD = 50, ACTOR = 60 };

static uint64_t shown;  /* the seating number Hellos show */
static bool granted;    /* the slot was granted before */

static struct {
    coordinator_t *coordinator;
    uint64_t now;
    struct coordinator_output exit;
    struct coordinator_output last[128]; /* by kind of message, or 100 + command */
    int stops;
    char said[OUTPUT_TEXT_MAX];
} at;

static void drain(void)
{
    struct coordinator_output output;

    while (coordinator_next(at.coordinator, &output)) {
        if (output.kind == OUTPUT_EXIT)
            at.exit = output;
        else if (output.kind == OUTPUT_LOG)
            memcpy(at.said, output.log.text, sizeof(at.said));
        else if (output.kind == OUTPUT_SEND) {
            at.last[output.message.kind] = output;
            at.stops += output.message.kind == MESSAGE_STOP;
        } else if (output.kind >= OUTPUT_ROLE) {
            at.last[100 + output.kind - OUTPUT_ROLE] = output;
        }
    }
}

static struct coordinator_output *command(uint32_t kind)
{
    return &at.last[100 + kind - OUTPUT_ROLE];
}

static struct message *sent(uint32_t kind)
{
    assert_int_equal(at.last[kind].kind, OUTPUT_SEND);
    return &at.last[kind].message;
}

static void feed(uint32_t port, uint64_t id, struct message *message)
{
    struct peer peer = {.port = port, .local = true, .id = id};

    if (message->run == 0)
        message->run = RUN;
    coordinator_receive(at.coordinator, at.now, &peer, message);
    drain();
}

static struct coordinator_config config_of(bool lockstep)
{
    return (struct coordinator_config){
        .run = RUN, .process = 9, .epoch = 3, .options = "", .lockstep = lockstep, .seed = 1,
        .steps = 100, .seed_steps = 10, .utd = 1, .slack = 8, .batch_size = 4, .horizon = 2,
        .buffer_size = 1000, .eval_freq = 50, .eval_episodes = 1, .actors = lockstep ? 1 : 2,
        .shards = 1, .max_staleness = 10, .heartbeat_ms = 2000, .broadcast_ms = 50,
        .timeout_ms = 60000, .checkpoint_every_ms = 100000, .checkpoint_steps = 50,
        .keep_checkpoints = 3};
}

static void start_as(const struct coordinator_config *config)
{
    struct error err;

    memset(&at, 0, sizeof(at));
    shown = 0;
    granted = false;
    at.now = 5000;
    assert_ok(coordinator_create(&at.coordinator, config, NULL, NULL, 0, &err), err);
    coordinator_tick(at.coordinator, at.now);
    drain();
}

static void start(bool lockstep)
{
    struct coordinator_config config = config_of(lockstep);

    start_as(&config);
}

static void start_with_evaluator(void)
{
    struct coordinator_config config = config_of(false);

    config.evaluator = true;
    start_as(&config);
}

static int finish(void **state)
{
    (void)state;
    coordinator_destroy(&at.coordinator);
    return 0;
}

static void actor_hello(uint64_t process, int64_t slot, uint32_t obs_dim)
{
    struct message message = {.kind = MESSAGE_HELLO};

    message.hello = (struct hello){.role = ROLE_ACTOR, .process = process, .has_slot = slot >= 0,
                                   .slot = slot >= 0 ? (uint32_t)slot : 0, .environments = 1,
                                   .seating = shown, .granted = granted};
    if (obs_dim > 0)
        message.hello.spec = (struct message_spec){OBS_STATE, obs_dim, ACTION, 0, true, 0};
    feed(PORT_CONTROL, process, &message);
}

static void shard_hello_by(uint32_t shard, uint64_t process)
{
    struct message message = {.kind = MESSAGE_HELLO};

    message.hello = (struct hello){.role = ROLE_SHARD, .process = process, .shard = shard};
    strcpy(message.hello.sample, "sample");
    strcpy(message.hello.ingest_ipc, "ingest");
    feed(PORT_CONTROL, process, &message);
}

static void shard_hello(uint32_t shard)
{
    shard_hello_by(shard, SHARD);
}

static void shard_welcome(uint32_t epoch, uint32_t highest_slot)
{
    struct message message = {.kind = MESSAGE_SAMPLE_WELCOME};

    message.sample_welcome.learner_epoch = epoch;
    message.sample_welcome.status = (struct status){.store = 4, .has_slot = true,
                                                    .slot = highest_slot};
    feed(PORT_SAMPLE, 0, &message);
}

static void status(uint64_t steps, uint64_t episodes, uint64_t episode_steps)
{
    struct message message = {.kind = MESSAGE_STATUS};

    message.status = (struct status){.store = 4, .rows = steps, .steps = steps,
                                     .episodes = episodes, .episode_steps = episode_steps,
                                     .streams = 1};
    feed(PORT_SAMPLE, 0, &message);
}

/* Model built, version 0 published, shard and one actor there. */
static void get_going(void)
{
    actor_hello(ACTOR, 0, OBS);
    assert_int_equal(command(COMMAND_MODEL)->kind, COMMAND_MODEL);
    coordinator_model_ready(at.coordinator, at.now, SNAPSHOT, NULL);
    drain();
    shard_hello(0);
    assert_true(sent(MESSAGE_SAMPLE_HELLO)->sample_hello.spec.obs_dim == OBS);
    shard_welcome(3, 0);
    actor_hello(ACTOR, 0, OBS);
    assert_true(sent(MESSAGE_WELCOME)->welcome.has_slot);
    assert_int_equal(command(COMMAND_PUBLISH)->kind, COMMAND_PUBLISH);
    assert_int_equal(command(COMMAND_PUBLISH)->publish.size, SNAPSHOT);
    coordinator_published(at.coordinator, at.now, 0, 1, true);
    drain();
}

/* Slices for the request that is open. */
static void answer_request(size_t size)
{
    static char bytes[1 << 16];
    struct sample_request request = sent(MESSAGE_SAMPLE_REQUEST)->sample_request;
    struct message message = {.kind = MESSAGE_SLICES, .bulks = 1, .bulk = {{bytes, size}}};

    message.slices = (struct slices){.learner_epoch = 3, .id = request.id,
                                     .update = request.update, .count = request.count};
    message.slices.status = (struct status){.store = 4, .steps = 30, .rows = 30, .episodes = 3,
                                            .episode_steps = 20, .streams = 1};
    feed(PORT_SAMPLE, 0, &message);
}

/* --- tests ------------------------------------------------------------------- */

static void who_may_join(void **state)
{
    struct message other = {.kind = MESSAGE_HELLO, .run = RUN + 1};

    (void)state;
    start(false);
    actor_hello(ACTOR, 0, 0); /* no spec yet: the options */
    assert_false(sent(MESSAGE_WELCOME)->welcome.has_slot);
    get_going();
    actor_hello(ACTOR + 1, 1, OBS + 1);
    assert_int_equal(sent(MESSAGE_REFUSED)->refused.code, REFUSED_SPEC);
    other.hello.role = ROLE_ACTOR;
    feed(PORT_CONTROL, 1, &other);
    assert_int_equal(sent(MESSAGE_REFUSED)->refused.code, REFUSED_RUN);
    shard_hello(5);
    assert_int_equal(sent(MESSAGE_REFUSED)->refused.code, REFUSED_CONFIG);
    other = (struct message){.kind = MESSAGE_HELLO};
    other.hello = (struct hello){.role = ROLE_EVALUATOR, .process = 8};
    feed(PORT_CONTROL, 1, &other); /* evaluator=off */
    assert_int_equal(sent(MESSAGE_REFUSED)->refused.code, REFUSED_CONFIG);
}

static void evaluator_hello(uint64_t process)
{
    struct message message = {.kind = MESSAGE_HELLO};

    message.hello = (struct hello){.role = ROLE_EVALUATOR, .process = process, .environments = 1,
                                   .spec = {OBS_STATE, OBS, ACTION, 0, true, 0}};
    memset(&at.last[MESSAGE_REFUSED], 0, sizeof(at.last[0]));
    memset(&at.last[MESSAGE_WELCOME], 0, sizeof(at.last[0]));
    feed(PORT_CONTROL, process, &message);
}

static void one_evaluator_is_enough(void **state)
{
    (void)state;
    start_with_evaluator();
    get_going();
    evaluator_hello(70);
    assert_true(sent(MESSAGE_WELCOME)->welcome.has_slot);
    evaluator_hello(71);
    assert_int_equal(sent(MESSAGE_REFUSED)->refused.code, REFUSED_FENCED);
    assert_non_null(strstr(sent(MESSAGE_REFUSED)->refused.text, "evaluator already"));
    evaluator_hello(70); /* the first keeps its place */
    assert_true(sent(MESSAGE_WELCOME)->welcome.has_slot);
    coordinator_evaluator_died(at.coordinator, at.now);
    drain();
    evaluator_hello(72); /* known to be dead: at once */
    assert_true(sent(MESSAGE_WELCOME)->welcome.has_slot);
    at.now += 10001; /* silent for five heartbeats */
    evaluator_hello(73);
    assert_true(sent(MESSAGE_WELCOME)->welcome.has_slot);
}

/* A Hello that was on the way while its sender died and the next process was seated. */
static void an_old_hello_takes_nobodys_place(void **state)
{
    uint64_t first;

    (void)state;
    start(false);
    get_going();
    first = sent(MESSAGE_WELCOME)->welcome.seating;
    assert_true(first >> 32 == 3);
    actor_hello(ACTOR + 1, 0, 0);
    shown = sent(MESSAGE_WELCOME)->welcome.seating;
    assert_true(shown > first);
    actor_hello(ACTOR + 1, 0, OBS); /* the newer process has slot 0 */
    assert_true(sent(MESSAGE_WELCOME)->welcome.has_slot && sent(MESSAGE_WELCOME)->welcome.seating > shown);
    shown = first;
    actor_hello(ACTOR, 0, OBS); /* not if this was said before; should its sender be there, it may come again */
    assert_false(sent(MESSAGE_WELCOME)->welcome.has_slot);
    assert_true(sent(MESSAGE_WELCOME)->welcome.seating > first);
    shown = sent(MESSAGE_WELCOME)->welcome.seating;
    actor_hello(ACTOR, 0, OBS); /* it is: between the two the shard judges */
    assert_true(sent(MESSAGE_WELCOME)->welcome.has_slot);
}

/* A learner that started again may grant a slot that is granted already, to one it has not heard of yet. */
static void of_two_with_one_granted_slot_one_gets_another(void **state)
{
    (void)state;
    start(false);
    get_going();
    granted = true;
    actor_hello(ACTOR + 1, -1, OBS);
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 2);
    shown = UINT64_MAX;
    actor_hello(ACTOR + 2, 2, OBS);
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 3);
    actor_hello(ACTOR + 2, 3, OBS); /* and keeps it */
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 3);
    actor_hello(ACTOR + 1, 2, OBS);
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 2);
    granted = false;
    actor_hello(ACTOR + 3, 2, OBS); /* given by hand: that one, and the shard judges */
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 2);
}

static void slots_are_granted_above_all_that_is_known(void **state)
{
    (void)state;
    start(false);
    get_going();
    actor_hello(ACTOR + 1, -1, OBS);
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 2); /* 0 and 1 are for local actors */
    actor_hello(ACTOR + 2, 7, OBS);
    actor_hello(ACTOR + 3, -1, OBS);
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 8);
    actor_hello(ACTOR + 3, -1, OBS); /* again: the same */
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 8);
    shard_hello(0);
    shard_welcome(3, 40);
    actor_hello(ACTOR + 4, -1, OBS);
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.slot, 41);
}

static void strangers_are_told_to_say_hello(void **state)
{
    struct message message = {.kind = MESSAGE_HEARTBEAT};

    (void)state;
    start(false);
    message.heartbeat.process = 12345;
    feed(PORT_CONTROL, 1, &message);
    assert_int_equal(sent(MESSAGE_SAY_HELLO)->say_hello.learner_epoch, 3);
}

static void a_shard_that_knows_a_later_learner_raises_the_epoch(void **state)
{
    (void)state;
    start(false);
    actor_hello(ACTOR, 0, OBS);
    coordinator_model_ready(at.coordinator, at.now, SNAPSHOT, NULL);
    drain();
    shard_hello(0);
    shard_welcome(8, 0);
    assert_int_equal(command(COMMAND_RAISE_EPOCH)->epoch, 8);
    assert_int_equal(at.exit.kind, 0);
    coordinator_epoch_raised(at.coordinator, at.now, 9);
    drain();
    assert_int_equal(sent(MESSAGE_SAMPLE_HELLO)->sample_hello.learner_epoch, 9);
    shard_welcome(9, 0);
    assert_true(sent(MESSAGE_CREDIT)->credit.learner_epoch == 9);
}

static void a_later_learner_fences_this_one(void **state)
{
    struct message message = {.kind = MESSAGE_REFUSED};

    (void)state;
    start(false);
    get_going();
    message.refused.code = REFUSED_FENCED;
    message.refused.epoch = 4;
    feed(PORT_SAMPLE, 0, &message);
    assert_int_equal(at.exit.exit.code, TD_EXIT_FENCED);
}

static void actors_are_told_where_their_shard_went(void **state)
{
    struct message message = {.kind = MESSAGE_HELLO};

    (void)state;
    start(false);
    get_going();
    coordinator_shard_died(at.coordinator, at.now += 100, 0);
    coordinator_tick(at.coordinator, at.now += 6000);
    drain();
    assert_non_null(strstr(at.said, "shard"));
    memset(&at.last[MESSAGE_WELCOME], 0, sizeof(at.last[0]));
    message.hello = (struct hello){.role = ROLE_SHARD, .process = SHARD + 1, .shard = 0};
    strcpy(message.hello.sample, "sample-2");
    strcpy(message.hello.ingest_ipc, "ingest-2");
    feed(PORT_CONTROL, SHARD, &message);
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.role, ROLE_SHARD);
    shard_welcome(3, 0); /* its store is open: now rows are welcome */
    assert_int_equal(sent(MESSAGE_WELCOME)->welcome.role, ROLE_ACTOR);
    assert_int_equal(at.last[MESSAGE_WELCOME].peer.id, ACTOR);
    assert_string_equal(sent(MESSAGE_WELCOME)->welcome.ingest, "ingest-2");
}

/* Every Leave is sent back, also one whose answer was lost, or of someone unknown; the first frees the place. */
static void whoever_leaves_is_told_that_it_was_heard(void **state)
{
    struct message leave = {.kind = MESSAGE_LEAVE, .leave = {.role = ROLE_ACTOR, .slot = 0, .process = ACTOR}};
    struct coordinator_view view;

    (void)state;
    start(false);
    get_going();
    for (int i = 0; i < 2; i++) {
        feed(PORT_CONTROL, ACTOR, &leave);
        assert_true(sent(MESSAGE_LEAVE)->leave.process == ACTOR);
        assert_int_equal(at.last[MESSAGE_LEAVE].peer.id, ACTOR);
        coordinator_view(at.coordinator, at.now, &view);
        assert_int_equal(view.actors, 0);
        memset(&at.last[MESSAGE_LEAVE], 0, sizeof(at.last[0]));
    }
}

static void slices_of_the_wrong_shape_are_asked_for_again(void **state)
{
    size_t size = row_slices_bytes(&(struct row_schema){OBS_STATE, OBS, ACTION}, 2, 4);
    uint64_t id;

    (void)state;
    start(false);
    get_going();
    status(30, 3, 20); /* enough: the burst begins */
    id = sent(MESSAGE_SAMPLE_REQUEST)->sample_request.id;
    answer_request(size - 4);
    assert_int_equal(command(COMMAND_UPDATE)->kind, 0);
    memset(&at.last[MESSAGE_SAMPLE_REQUEST], 0, sizeof(at.last[0]));
    at.now += 1500;
    coordinator_tick(at.coordinator, at.now);
    drain();
    assert_true(sent(MESSAGE_SAMPLE_REQUEST)->sample_request.id == id);
    answer_request(size);
    assert_int_equal(command(COMMAND_SLICES)->slices.count, 4);
    assert_int_equal(command(COMMAND_UPDATE)->kind, COMMAND_UPDATE);
}

static void divergence_stops_everyone_with_3(void **state)
{
    (void)state;
    start(false);
    get_going();
    status(30, 3, 20);
    answer_request(row_slices_bytes(&(struct row_schema){OBS_STATE, OBS, ACTION}, 2, 4));
    coordinator_updated(at.coordinator, at.now, 0, false);
    drain();
    assert_int_equal(at.exit.exit.code, TD_EXIT_DIVERGED);
    assert_non_null(strstr(at.exit.exit.text, "diverged"));
    assert_int_equal(at.stops, 2); /* actor and shard */
    assert_int_equal(command(COMMAND_SAVE)->kind, 0);
}

static void parameters_that_are_not_finite_are_not_announced(void **state)
{
    (void)state;
    start(false);
    actor_hello(ACTOR, 0, OBS);
    coordinator_model_ready(at.coordinator, at.now, SNAPSHOT, NULL);
    shard_hello(0);
    shard_welcome(3, 0);
    coordinator_published(at.coordinator, at.now, 0, 1, false);
    drain();
    assert_int_equal(at.last[MESSAGE_ANNOUNCE].kind, 0);
    assert_int_equal(at.exit.exit.code, TD_EXIT_DIVERGED);
}

/* Was there such a command since the last time it was asked for? */
static bool taken(uint32_t kind)
{
    bool there = command(kind)->kind == kind;

    command(kind)->kind = 0;
    return there;
}

static void answer_with(uint64_t steps)
{
    static char bytes[1 << 16];
    struct sample_request request = sent(MESSAGE_SAMPLE_REQUEST)->sample_request;
    struct message message = {.kind = MESSAGE_SLICES, .bulks = 1,
                              .bulk = {{bytes, row_slices_bytes(&(struct row_schema){OBS_STATE, OBS, ACTION}, 2, 4)}}};

    at.last[MESSAGE_SAMPLE_REQUEST].kind = 0;
    message.slices = (struct slices){.learner_epoch = 3, .id = request.id, .update = request.update, .count = request.count};
    message.slices.status = (struct status){.store = 4, .steps = steps, .rows = steps, .episodes = steps / 10,
                                            .episode_steps = steps, .streams = 1};
    feed(PORT_SAMPLE, 0, &message);
}

/* Parameters that take 0.2 s to copy are copied every two seconds, whatever broadcast_interval says; quick ones as it says. */
static void long_publications_take_a_tenth_of_the_time(void **state)
{
    static const uint64_t takes[] = {200, 2}, between[] = {2000, 50};

    (void)state;
    for (size_t i = 0; i < TD_LEN(takes); i++) {
        uint64_t last = 0, updates = 0;
        int seen = 0;

        start(false);
        get_going();
        status(12, 2, 12);
        taken(COMMAND_PUBLISH);
        for (int round = 0; round < 3000 && seen < 3 && updates < 80; round++) {
            if (taken(COMMAND_PUBLISH)) {
                if (updates > 10) { /* that of the burst's end comes at once */
                    assert_true(seen == 0 || (at.now - last >= between[i] && at.now - last <= between[i] + 110));
                    last = at.now;
                    seen++;
                }
                at.now += takes[i];
                coordinator_published(at.coordinator, at.now, updates, 1, true);
                drain();
            } else if (taken(COMMAND_UPDATE)) {
                at.now += 100;
                coordinator_updated(at.coordinator, at.now, updates++, true);
                drain();
            } else if (at.last[MESSAGE_SAMPLE_REQUEST].kind == OUTPUT_SEND) {
                answer_with(updates < 10 ? 12 : updates + 4);
            } else {
                at.now += 10;
                status(updates < 10 ? 12 : updates + 4, 2, updates + 4);
            }
        }
        assert_int_equal(seen, 3);
        coordinator_destroy(&at.coordinator);
    }
}

static void sigterm_waits_for_update_and_checkpoint(void **state)
{
    struct message end = {.kind = MESSAGE_EPISODE_END, .episode_end = {.stream_epoch = 1, .length = 5, .reward = 1}};

    (void)state;
    start(false);
    get_going();
    status(30, 3, 20);
    answer_request(row_slices_bytes(&(struct row_schema){OBS_STATE, OBS, ACTION}, 2, 4));
    feed(PORT_CONTROL, ACTOR, &end); /* its line waits for the shard's next counts */
    coordinator_terminate(at.coordinator, at.now);
    drain();
    assert_int_equal(command(COMMAND_SAVE)->kind, 0);
    at.now += 200000; /* an update that takes long: the line and a checkpoint were due, nobody spins for them */
    coordinator_tick(at.coordinator, at.now);
    drain();
    assert_true(coordinator_deadline(at.coordinator) > at.now);
    coordinator_updated(at.coordinator, at.now, 0, true);
    drain();
    assert_int_equal(command(COMMAND_SAVE)->kind, COMMAND_SAVE);
    assert_true(command(COMMAND_SAVE)->save.progress->updates == 1);
    assert_int_equal(at.exit.kind, 0);
    coordinator_saved(at.coordinator, at.now, command(COMMAND_SAVE)->save.id, NULL);
    drain();
    assert_int_equal(sent(MESSAGE_LEAVING)->leaving.learner_epoch, 3);
    assert_int_equal(at.exit.kind, OUTPUT_EXIT);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);
}

/* What the next start is to know of an asynchronous run goes through one start unchanged. */
static void an_asynchronous_run_keeps_its_counters(void **state)
{
    static const uint32_t phases[] = {PHASE_SEEDING, PHASE_BURST, PHASE_RUNNING};
    struct coordinator_config config = config_of(false);
    struct progress before = {.spec = {OBS_STATE, OBS, ACTION, 20, true, 0}, .seed_steps = 10, .next_eval = 150,
                              .episodes = 5, .excess = 11, .burst_target = 10, .stores = 2,
                              .store = {{5, 60}, {6, 7}}}; /* shards that are gone */
    struct error err;

    (void)state;
    for (size_t i = 0; i < TD_LEN(phases); i++) {
        const struct progress *after;

        memset(&at, 0, sizeof(at));
        at.now = 5000;
        before.phase = phases[i];
        before.updates = phases[i] == PHASE_SEEDING ? 0 : phases[i] == PHASE_BURST ? 6 : 40;
        assert_ok(coordinator_create(&at.coordinator, &config, &before, NULL, 0, &err), err);
        coordinator_tick(at.coordinator, at.now);
        drain();
        coordinator_model_ready(at.coordinator, at.now, SNAPSHOT, NULL);
        drain();
        if (command(COMMAND_PUBLISH)->kind != 0)
            coordinator_published(at.coordinator, at.now, command(COMMAND_PUBLISH)->publish.version, 1, true);
        coordinator_terminate(at.coordinator, at.now); /* before any shard says what is there now */
        drain();
        assert_int_equal(command(COMMAND_SAVE)->kind, COMMAND_SAVE);
        after = command(COMMAND_SAVE)->save.progress;
        assert_memory_equal(&after->spec, &before.spec, sizeof(before.spec));
        assert_true(after->seed_steps == 10 && after->updates == before.updates && after->next_eval == 150);
        assert_true(after->episodes == 5 && after->phase == phases[i]);
        assert_true(after->excess == 11 && after->burst_target == 10);
        assert_true(after->stores == 2 && after->store[1].store == 6 && after->store[1].steps == 7);
        assert_true(after->store[0].store == 5 && after->store[0].steps == 60);
        coordinator_destroy(&at.coordinator);
    }
}

/* Every try fails, and the next one is under way when the time is over. */
static void fail_to_save_until(uint64_t until)
{
    uint64_t id = 0;
    int tries = 0;

    while (at.exit.kind != OUTPUT_EXIT && (at.now < until || command(COMMAND_SAVE)->save.id == id)) {
        if (command(COMMAND_SAVE)->save.id != id) {
            id = command(COMMAND_SAVE)->save.id;
            tries++;
            coordinator_saved(at.coordinator, at.now, id, "no space left");
            drain();
            assert_non_null(strstr(at.said, "no space left"));
        }
        at.now += 100;
        coordinator_tick(at.coordinator, at.now);
        drain();
        assert_true(at.now < until + 10000);
    }
    assert_true(tries > 2 && tries < 15);
}

static void a_last_checkpoint_that_fails_is_told(void **state)
{
    (void)state;
    start(false);
    get_going();
    coordinator_terminate(at.coordinator, at.now);
    drain();
    fail_to_save_until(at.now + 40000);
    assert_int_equal(at.exit.exit.code, TD_EXIT_GAVE_UP);
    assert_non_null(strstr(at.exit.exit.text, "no space left"));
}

/* Training goes on; the next try, whoever asks for it, comes when it may help, and is said once each. */
static void a_checkpoint_that_fails_is_tried_again_at_leisure(void **state)
{
    struct message asks = {.kind = MESSAGE_STATUS};
    struct coordinator_view view;
    uint64_t id = 0, end;
    int tries = 0;

    (void)state;
    start(false);
    get_going();
    coordinator_view(at.coordinator, at.now, &view);
    assert_string_equal(view.trouble, "");
    asks.status = (struct status){.store = 4, .rows = 60, .steps = 60, .episodes = 3, .episode_steps = 60,
                                  .streams = 1, .asks_checkpoint = true};
    for (end = at.now + 60000; at.now < end; at.now += 100) {
        feed(PORT_SAMPLE, 0, &asks); /* a shard that is full of what no checkpoint covers */
        coordinator_tick(at.coordinator, at.now);
        drain();
        if (command(COMMAND_SAVE)->save.id == id)
            continue;
        id = command(COMMAND_SAVE)->save.id;
        tries++;
        at.said[0] = '\0';
        coordinator_saved(at.coordinator, at.now, id, "no space left");
        drain();
        assert_non_null(strstr(at.said, "the one before stands: no space left"));
        assert_true(coordinator_deadline(at.coordinator) > at.now);
    }
    assert_in_range(tries, 5, 7);
    assert_int_equal(at.exit.kind, 0);
    coordinator_view(at.coordinator, at.now, &view);
    assert_non_null(strstr(view.trouble, "no space left"));
    for (end = at.now + 20000; at.now < end && command(COMMAND_SAVE)->save.id == id; at.now += 100) {
        coordinator_tick(at.coordinator, at.now);
        drain();
    }
    coordinator_saved(at.coordinator, at.now, command(COMMAND_SAVE)->save.id, NULL);
    asks.status.full = true;
    asks.status.asks_checkpoint = false;
    feed(PORT_SAMPLE, 0, &asks);
    coordinator_view(at.coordinator, at.now, &view);
    assert_non_null(strstr(view.trouble, "shard 0 takes no more rows"));
}

/* `tdmpc2 stop` waits with it: it hears the code and the reason. */
static void a_last_checkpoint_is_tried_again(void **state)
{
    struct message message = {.kind = MESSAGE_STOP};

    (void)state;
    start(false);
    get_going();
    strcpy(message.stop.text, "enough");
    feed(PORT_CONTROL, 1000, &message);
    assert_int_equal(sent(MESSAGE_STOP)->stop.code, TD_EXIT_OK);
    fail_to_save_until(at.now + 10000);
    assert_int_equal(at.exit.kind, 0);
    at.stops = 0;
    coordinator_saved(at.coordinator, at.now, command(COMMAND_SAVE)->save.id, NULL);
    drain();
    assert_int_equal(at.exit.kind, OUTPUT_EXIT);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);
    assert_int_equal(at.stops, 3); /* tool, actor, shard */
}

static void a_signal_ends_the_tries(void **state)
{
    struct message message = {.kind = MESSAGE_STOP};

    (void)state;
    start(false);
    get_going();
    strcpy(message.stop.text, "enough");
    feed(PORT_CONTROL, 1000, &message);
    fail_to_save_until(at.now + 10000);
    coordinator_terminate(at.coordinator, at.now);
    coordinator_saved(at.coordinator, at.now, command(COMMAND_SAVE)->save.id, "no space left");
    drain();
    assert_int_equal(at.exit.exit.code, TD_EXIT_GAVE_UP);
    assert_int_equal(sent(MESSAGE_STOP)->stop.code, TD_EXIT_GAVE_UP);
}

static void lockstep_refuses_what_it_cannot_be(void **state)
{
    struct coordinator_config config = config_of(true);
    struct coordinator_config many[3] = {config, config, config};
    struct progress progress = {.spec = {OBS_STATE, OBS, ACTION, 0, true, 0}};
    struct error err;

    (void)state;
    many[0].shards = 2;
    many[1].utd = 0.5;
    many[2].actors = 2;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(coordinator_create(&at.coordinator, &many[i], NULL, NULL, 0, &err),
                         TD_EINVAL);
        assert_non_null(strstr(err.text, "lockstep"));
        assert_null(at.coordinator);
    }
    assert_int_equal(coordinator_create(&at.coordinator, &config, &progress, NULL, 0, &err),
                     TD_EINVAL); /* that checkpoint was asynchronous */
}

static void lockstep_has_one_actor(void **state)
{
    (void)state;
    start(true);
    actor_hello(ACTOR, 1, OBS);
    assert_int_equal(sent(MESSAGE_REFUSED)->refused.code, REFUSED_CONFIG);
    actor_hello(ACTOR, 0, OBS);
    coordinator_model_ready(at.coordinator, at.now, SNAPSHOT, NULL);
    drain();
    actor_hello(ACTOR + 1, 0, OBS); /* this may have been said before the first was there: asked again */
    assert_false(sent(MESSAGE_WELCOME)->welcome.has_slot);
    shown = sent(MESSAGE_WELCOME)->welcome.seating;
    actor_hello(ACTOR + 1, 0, OBS); /* takes over */
    actor_hello(ACTOR, 0, OBS);
    assert_int_equal(sent(MESSAGE_REFUSED)->refused.code, REFUSED_FENCED);
}

static void a_replay_that_cannot_go_back_is_bad_input(void **state)
{
    struct message message = {.kind = MESSAGE_REWOUND};

    (void)state;
    start(true);
    actor_hello(ACTOR, 0, OBS);
    coordinator_model_ready(at.coordinator, at.now, SNAPSHOT, NULL);
    drain();
    shard_hello(0);
    shard_welcome(3, 0);
    message.rewound.learner_epoch = 3;
    message.rewound.generation = sent(MESSAGE_REWIND)->rewind.generation;
    strcpy(message.rewound.text, "it was emptied");
    feed(PORT_SAMPLE, 0, &message);
    assert_int_equal(at.exit.exit.code, TD_EXIT_BAD_INPUT);
    assert_non_null(strstr(at.exit.exit.text, "it was emptied"));
}

/* What was saved of a damaged store is another store: its rows are right, their numbers are not. */
static void lockstep_stops_where_its_store_was_replaced(void **state)
{
    struct message message = {.kind = MESSAGE_STATUS};

    (void)state;
    for (int lockstep = 0; lockstep < 2; lockstep++) {
        start(lockstep);
        actor_hello(ACTOR, lockstep ? 0 : -1, OBS);
        coordinator_model_ready(at.coordinator, at.now, SNAPSHOT, NULL);
        drain();
        shard_hello(0);
        shard_welcome(3, 0);
        status(40, 2, 40);
        message.status = (struct status){.store = 99, .episodes = 2, .episode_steps = 38};
        at.exit.kind = 0;
        feed(PORT_SAMPLE, 0, &message);
        assert_int_equal(at.exit.kind == OUTPUT_EXIT, lockstep);
        if (lockstep) {
            assert_int_equal(at.exit.exit.code, TD_EXIT_BAD_INPUT);
            assert_non_null(strstr(at.exit.exit.text, "cannot go on exactly"));
        }
        coordinator_destroy(&at.coordinator);
    }
}

static bool says_of_damage(uint32_t rescued, uint64_t rows, uint64_t segments, const char *sentence)
{
    struct message message = {.kind = MESSAGE_STATUS};

    message.status = (struct status){.store = 4, .rescued = rescued, .lost_rows = rows, .bad_segments = segments};
    at.said[0] = '\0';
    feed(PORT_SAMPLE, 0, &message);
    return strstr(at.said, sentence) != NULL && strncmp(at.said, "shard 0: ", 9) == 0;
}

/* Once for what is lost, again when it has doubled, and of the next process anew. */
static void what_a_shard_lost_is_said(void **state)
{
    (void)state;
    start(false);
    get_going();
    assert_false(says_of_damage(false, 0, 0, ""));
    assert_true(says_of_damage(true, 30, 0, "its file was damaged, 30 acknowledged rows were lost; the rest is served"));
    assert_false(says_of_damage(true, 30, 0, ""));
    assert_false(says_of_damage(true, 30, 1, ""));
    assert_true(says_of_damage(true, 30, 31, "30 acknowledged rows were lost; 31 damaged segments were set aside"));
    coordinator_shard_died(at.coordinator, at.now, 0);
    drain();
    shard_hello_by(0, SHARD + 1);
    shard_welcome(3, 0);
    assert_true(says_of_damage(false, 0, 1, "1 damaged segment was set aside"));
    assert_false(says_of_damage(false, 0, 1, ""));
}

static void a_wait_is_said_with_its_reason(void **state)
{
    struct coordinator_view view;

    (void)state;
    start(false);
    at.now += 6000;
    coordinator_tick(at.coordinator, at.now);
    drain();
    assert_non_null(strstr(at.said, "waiting for the first actor"));
    get_going();
    coordinator_view(at.coordinator, at.now, &view);
    assert_int_equal(view.phase, PHASE_SEEDING);
    assert_true(view.limit == LIMIT_NONE && view.actors == 1 && view.shards == 1);
    assert_int_equal(coordinator_members(at.coordinator, at.now, NULL, 0), 1);
}

static void a_tool_may_stop_the_run(void **state)
{
    struct message message = {.kind = MESSAGE_STOP};

    (void)state;
    start(false);
    get_going();
    feed(PORT_CONTROL, 99, &message);
    coordinator_saved(at.coordinator, at.now, command(COMMAND_SAVE)->save.id, NULL);
    drain();
    assert_int_equal(at.exit.kind, OUTPUT_EXIT);
    assert_int_equal(at.exit.exit.code, TD_EXIT_OK);
}

#define COORDINATOR_TEST(f) cmocka_unit_test_teardown(f, finish)

static void episode_end(uint64_t episode)
{
    struct message message = {.kind = MESSAGE_EPISODE_END};

    message.episode_end = (struct episode_end){.slot = 0, .stream_epoch = 1, .episode = episode,
                                               .length = 7, .reward = 3};
    feed(PORT_CONTROL, ACTOR, &message);
}

/* The line of an episode waits for counts that hold its steps; only then is it acknowledged. */
static void an_episode_is_logged_with_its_steps(void **state)
{
    (void)state;
    start(false);
    get_going();
    episode_end(0);
    episode_end(0);
    assert_true(command(COMMAND_TRAIN_ROW)->kind == 0 && at.last[MESSAGE_EPISODE_ACK].kind == 0);
    status(7, 0, 0);
    assert_true(command(COMMAND_TRAIN_ROW)->train.step == 7);
    assert_true(sent(MESSAGE_EPISODE_ACK)->episode_ack.episode == 0);
    memset(at.last, 0, sizeof(at.last));
    episode_end(0); /* the answer was lost: again, and no second line */
    assert_true(sent(MESSAGE_EPISODE_ACK)->kind != 0 && command(COMMAND_TRAIN_ROW)->kind == 0);
    episode_end(1); /* the shard is silent: not for ever */
    assert_true(command(COMMAND_TRAIN_ROW)->kind == 0);
    assert_true(coordinator_deadline(at.coordinator) <= at.now + 1000);
    at.now += 1000;
    coordinator_tick(at.coordinator, at.now);
    drain();
    assert_true(command(COMMAND_TRAIN_ROW)->train.episode == 1);
    memset(at.last, 0, sizeof(at.last));
    episode_end(2); /* and none is lost when the run ends */
    coordinator_terminate(at.coordinator, at.now);
    drain();
    assert_true(command(COMMAND_TRAIN_ROW)->train.episode == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        COORDINATOR_TEST(an_episode_is_logged_with_its_steps),
        COORDINATOR_TEST(who_may_join),
        COORDINATOR_TEST(one_evaluator_is_enough),
        COORDINATOR_TEST(slots_are_granted_above_all_that_is_known),
        COORDINATOR_TEST(an_old_hello_takes_nobodys_place),
        COORDINATOR_TEST(of_two_with_one_granted_slot_one_gets_another),
        COORDINATOR_TEST(strangers_are_told_to_say_hello),
        COORDINATOR_TEST(a_shard_that_knows_a_later_learner_raises_the_epoch),
        COORDINATOR_TEST(a_later_learner_fences_this_one),
        COORDINATOR_TEST(actors_are_told_where_their_shard_went),
        COORDINATOR_TEST(whoever_leaves_is_told_that_it_was_heard),
        COORDINATOR_TEST(slices_of_the_wrong_shape_are_asked_for_again),
        COORDINATOR_TEST(divergence_stops_everyone_with_3),
        COORDINATOR_TEST(parameters_that_are_not_finite_are_not_announced),
        COORDINATOR_TEST(long_publications_take_a_tenth_of_the_time),
        COORDINATOR_TEST(sigterm_waits_for_update_and_checkpoint),
        COORDINATOR_TEST(an_asynchronous_run_keeps_its_counters),
        COORDINATOR_TEST(a_last_checkpoint_that_fails_is_told),
        COORDINATOR_TEST(a_checkpoint_that_fails_is_tried_again_at_leisure),
        COORDINATOR_TEST(a_last_checkpoint_is_tried_again),
        COORDINATOR_TEST(a_signal_ends_the_tries),
        COORDINATOR_TEST(lockstep_refuses_what_it_cannot_be),
        COORDINATOR_TEST(lockstep_has_one_actor),
        COORDINATOR_TEST(lockstep_stops_where_its_store_was_replaced),
        COORDINATOR_TEST(what_a_shard_lost_is_said),
        COORDINATOR_TEST(a_replay_that_cannot_go_back_is_bad_input),
        COORDINATOR_TEST(a_wait_is_said_with_its_reason),
        COORDINATOR_TEST(a_tool_may_stop_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
