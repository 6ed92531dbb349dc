#include "tests/support/fake_run.h"

#include <signal.h>
#include <xxhash.h>

#include "common/util/clock.h"
#include "tests/support/test.h"

#define BEAT_MS 100

/* --- the learner ------------------------------------------------------------ */

static struct message to_actor(const struct fake_run *run, uint32_t kind)
{
    return (struct message){.kind = kind, .run = run->run};
}

void fake_say(struct fake_run *run, const struct message *message)
{
    post_send(run->learner, &run->peer, message);
}

static void welcome(struct fake_run *run, bool seat)
{
    struct message message = to_actor(run, MESSAGE_WELCOME);
    struct welcome *out = &message.welcome;

    out->learner_epoch = run->learner_epoch;
    out->learner_process = run->learner_process;
    out->role = run->hello.role;
    out->has_slot = seat;
    out->slot = run->hello.has_slot ? run->hello.slot : run->slot;
    out->newest = run->newest;
    out->phase = run->phase;
    out->lockstep = run->lockstep;
    memcpy(out->ingest, run->ingest, sizeof(out->ingest));
    snprintf(out->params, sizeof(out->params), "%s", post_address(run->learner, PORT_PARAMS, true));
    snprintf(out->announce, sizeof(out->announce), "%s", post_address(run->learner, PORT_ANNOUNCE, true));
    message.bulks = 1;
    message.bulk[0] = (struct bulk){run->options, strlen(run->options)};
    if (seat && run->lockstep) {
        out->restore = true;
        out->generation = run->generation;
        out->step = run->step;
        message.bulks = 2;
        message.bulk[1] = run->state;
    }
    fake_say(run, &message);
}

static void on_beat(void *context)
{
    struct fake_run *run = context;
    struct message message = to_actor(run, MESSAGE_HEARTBEAT);

    if (run->silent || run->peer.port == 0)
        return;
    message.heartbeat = (struct heartbeat){.learner_epoch = run->learner_epoch,
                                           .process = run->learner_process,
                                           .newest = run->newest,
                                           .phase = run->phase,
                                           .role = ROLE_LEARNER};
    fake_say(run, &message);
}

static void keep_state(struct fake_run *run, const struct message *message)
{
    run->captured_size = message->bulks > 0 ? message->bulk[0].size : 0;
    assert_in_range(run->captured_size, 0, sizeof(run->captured));
    if (run->captured_size > 0)
        memcpy(run->captured, message->bulk[0].data, run->captured_size);
}

static void answer_control(struct fake_run *run, const struct message *message)
{
    struct message answer;

    switch (message->kind) {
    case MESSAGE_HELLO:
        run->hello = message->hello;
        if (!run->silent)
            welcome(run, message->hello.spec.obs_type != 0);
        break;
    case MESSAGE_HEARTBEAT:
        run->heartbeat = message->heartbeat;
        break;
    case MESSAGE_EPISODE_END:
        run->end = message->episode_end;
        keep_state(run, message);
        answer = to_actor(run, MESSAGE_EPISODE_ACK);
        answer.episode_ack = (struct episode_ack){.slot = run->end.slot,
                                                  .stream_epoch = run->end.stream_epoch,
                                                  .episode = run->end.episode,
                                                  .generation = run->end.generation};
        if (!run->silent)
            fake_say(run, &answer);
        break;
    case MESSAGE_EVALUATED:
        run->evaluated = message->evaluated;
        keep_state(run, message);
        answer = to_actor(run, MESSAGE_EVALUATED_ACK);
        answer.evaluated_ack = (struct evaluated_ack){run->evaluated.id, run->evaluated.generation};
        fake_say(run, &answer);
        break;
    case MESSAGE_TURNED:
        run->turned = message->turned;
        break;
    case MESSAGE_LEAVE:
        run->left |= 1;
        answer = to_actor(run, MESSAGE_LEAVE);
        answer.leave = message->leave;
        if (run->heard[MESSAGE_LEAVE] > run->deaf)
            fake_say(run, &answer);
        break;
    default:
        break;
    }
}

static void answer_pull(struct fake_run *run, const struct peer *peer, const struct pull *pull)
{
    struct message answer = to_actor(run, MESSAGE_GONE);
    uint64_t rest;

    if (pull->epoch != run->newest.epoch || pull->version != run->newest.version) {
        answer.gone = (struct gone){run->newest, pull->epoch, pull->version};
        post_send(run->learner, peer, &answer);
        return;
    }
    assert_true(pull->offset < run->newest.size);
    rest = run->newest.size - pull->offset;
    answer.kind = MESSAGE_CHUNK;
    answer.chunk = (struct chunk){pull->epoch, pull->version, pull->offset};
    answer.bulks = 1;
    answer.bulk[0] = (struct bulk){run->snapshot + pull->offset, rest < WIRE_CHUNK_BYTES ? rest : WIRE_CHUNK_BYTES};
    post_send(run->learner, peer, &answer);
}

static void on_learner(void *context, const struct peer *peer, const struct message *message)
{
    struct fake_run *run = context;

    run->heard[message->kind]++;
    if (peer->port == PORT_PARAMS) {
        assert_int_equal(message->kind, MESSAGE_PULL);
        answer_pull(run, peer, &message->pull);
        return;
    }
    run->peer = *peer;
    answer_control(run, message);
}

/* --- the shard -------------------------------------------------------------- */

static void acknowledge(struct fake_run *run, const struct peer *peer, uint32_t slot)
{
    struct message answer = to_actor(run, MESSAGE_ACK);

    answer.ack = (struct ack){.slot = slot,
                              .store = run->store,
                              .epoch = run->stream_epoch,
                              .next = run->stored,
                              .limit = run->limit};
    post_send(run->shard, peer, &answer);
}

/* Welcome it back when it shows what we hold, else with a new stream epoch. */
static void answer_hello(struct fake_run *run, const struct peer *peer, const struct ingest_hello *hello)
{
    struct message answer = to_actor(run, MESSAGE_INGEST_WELCOME);

    assert_int_equal(hello->count, 1);
    if (hello->streams[0].store != run->store || hello->streams[0].epoch != run->stream_epoch ||
        hello->streams[0].renew) {
        run->stream_epoch++;
        run->stored = 0;
    }
    run->schema = (struct row_schema){hello->spec.obs_type, hello->spec.obs_dim, hello->spec.action_dim};
    run->stride = (uint32_t)row_stride(&run->schema);
    answer.ingest_welcome = (struct ingest_welcome){
        .slot = hello->slot,
        .process = hello->process,
        .store = run->store,
        .count = 1,
        .streams = {{.epoch = run->stream_epoch, .next = run->stored, .limit = run->limit}}};
    post_send(run->shard, peer, &answer);
}

static void take_rows(struct fake_run *run, const struct peer *peer, const struct message *message)
{
    const struct rows *rows = &message->rows;
    uint64_t skip;

    assert_int_equal(rows->stride, run->stride);
    assert_true(rows->store == run->store && rows->epoch == run->stream_epoch);
    if (run->mute)
        return;
    if (rows->first > run->stored) {
        run->gaps++;
        return;
    }
    skip = run->stored - rows->first;
    run->repeated += skip < rows->count ? skip : rows->count;
    for (uint64_t i = skip; i < rows->count; i++) {
        assert_true(run->stored < FAKE_ROWS_MAX);
        memcpy(run->rows + run->stored++ * run->stride,
               (const char *)message->bulk[0].data + i * run->stride, run->stride);
    }
    acknowledge(run, peer, rows->slot);
}

static void answer_leave(struct fake_run *run, const struct peer *peer, const struct leave *leave)
{
    struct message answer = to_actor(run, MESSAGE_LEAVE);

    run->left |= 2;
    answer.leave = *leave;
    if (run->heard[MESSAGE_LEAVE] > run->deaf)
        post_send(run->shard, peer, &answer);
}

static void on_shard(void *context, const struct peer *peer, const struct message *message)
{
    struct fake_run *run = context;

    run->heard[message->kind]++;
    if (message->kind == MESSAGE_INGEST_HELLO)
        answer_hello(run, peer, &message->ingest_hello);
    else if (message->kind == MESSAGE_ROWS)
        take_rows(run, peer, message);
    else if (message->kind == MESSAGE_LEAVE)
        answer_leave(run, peer, &message->leave);
}

static void open_shard(struct fake_run *run)
{
    struct post_options options = {.process = 2, .run = run->run, .on_message = on_shard, .context = run};
    struct error err = {0};

    assert_ok(post_open(&run->shard, run->loop, &options, &err), err);
    snprintf(run->ingest, sizeof(run->ingest), "ipc://%s/shard-%d", test_folder(), run->shards_opened++);
    assert_ok(post_bind(run->shard, PORT_INGEST, run->ingest, &err), err);
}

void fake_restart_shard(struct fake_run *run)
{
    post_close(&run->shard, 0);
    open_shard(run);
}

void *fake_row(struct fake_run *run, uint64_t index)
{
    void *row = run->rows + index * run->stride;
    const char *bad;

    assert_true(index < run->stored);
    bad = row_check(row, &run->schema);
    if (bad != NULL)
        fail_msg("row %llu: %s", (unsigned long long)index, bad);
    return row;
}

/* --- the actor's process ------------------------------------------------------ */

static void on_exit_(void *context, int code, int signum)
{
    struct fake_run *run = context;

    run->exited = true;
    run->code = code;
    run->signal = signum;
}

void fake_start(struct fake_run *run, const char *const *words)
{
    const char *build = getenv("TD_BUILD");
    char program[512], learner[ADDRESS_MAX + 16], id[32];
    const char *args[32] = {learner, id};
    struct error err = {0};
    int count = 2;

    snprintf(program, sizeof(program), "%s/bin/tdmpc2-actor", build != NULL ? build : "build/release");
    snprintf(learner, sizeof(learner), "learner=%s", run->control);
    snprintf(id, sizeof(id), "run_id=%llx", (unsigned long long)run->run);
    for (; *words != NULL; words++)
        args[count++] = *words;
    struct process_options options = {
        .program = program, .args = args, .log_path = run->log, .on_exit = on_exit_, .context = run};

    assert_ok(process_spawn(&run->process, run->loop, &options, &err), err);
}

bool fake_logged(const struct fake_run *run, const char *text)
{
    char log[65536];

    process_log_tail(run->log, 1000, log, sizeof(log));
    return strstr(log, text) != NULL;
}

void fake_print_log(const struct fake_run *run)
{
    char log[16384];

    process_log_tail(run->log, 40, log, sizeof(log));
    print_message("%s\n", log);
}

/* --- all ---------------------------------------------------------------------- */

void fake_option(struct fake_run *run, const char *line)
{
    char rest[sizeof(run->options)];

    memcpy(rest, run->options, sizeof(rest));
    snprintf(run->options, sizeof(run->options), "%s\n%.1900s", line, rest);
}

void fake_publish(struct fake_run *run, const void *bytes, size_t size, uint64_t version)
{
    struct message message = to_actor(run, MESSAGE_ANNOUNCE);
    struct peer all = {.port = PORT_ANNOUNCE};

    run->snapshot = bytes;
    run->newest = (struct announcement){run->learner_epoch, version, size, XXH3_64bits(bytes, size)};
    message.announce = run->newest;
    post_send(run->learner, &all, &message);
}

void fake_pass(struct fake_run *run, uint64_t ms)
{
    uint64_t until = clock_ms() + ms;

    while (clock_ms() < until)
        loop_run_for(run->loop, 5);
}

void fake_open(struct fake_run *run)
{
    struct post_options options = {.process = 1, .on_message = on_learner, .context = run};
    struct error err = {0};
    char address[ADDRESS_MAX];
    static int number;

    memset(run, 0, sizeof(*run));
    run->run = options.run = 0xabc;
    run->learner_process = 77;
    run->learner_epoch = 1;
    run->phase = PHASE_SEEDING;
    run->slot = 3;
    run->store = 5;
    run->limit = LIMIT_NONE;
    run->rows = calloc(FAKE_ROWS_MAX, 128);
    assert_non_null(run->rows);
    snprintf(run->options, sizeof(run->options),
             "seed: 7\nheartbeat: 0.2\nlearner_timeout: 60\nenc_dim: 16\nmlp_dim: 16\nlatent_dim: 16\n"
             "num_samples: 32\nnum_elites: 4\nnum_pi_trajs: 4\niterations: 2\nnum_bins: 11\n");
    snprintf(run->log, sizeof(run->log), "%s/actor-%d.log", test_folder(), number++);
    assert_ok(loop_create(&run->loop, &err), err);
    assert_ok(loop_timer_start(&run->beat, run->loop, BEAT_MS, BEAT_MS, on_beat, run), err);
    assert_ok(post_open(&run->learner, run->loop, &options, &err), err);
    snprintf(run->control, sizeof(run->control), "ipc://%s/control-%d", test_folder(), number);
    assert_ok(post_bind(run->learner, PORT_CONTROL, run->control, &err), err);
    snprintf(address, sizeof(address), "ipc://%s/params-%d", test_folder(), number);
    assert_ok(post_bind(run->learner, PORT_PARAMS, address, &err), err);
    snprintf(address, sizeof(address), "ipc://%s/announce-%d", test_folder(), number);
    assert_ok(post_bind(run->learner, PORT_ANNOUNCE, address, &err), err);
    open_shard(run);
}

void fake_close(struct fake_run *run)
{
    if (run->process != NULL && !run->exited)
        process_signal(run->process, SIGKILL);
    if (run->process != NULL)
        fake_wait(run, run->exited);
    if (fake_logged(run, "Sanitizer") || fake_logged(run, "runtime error:") || fake_logged(run, "assertion")) {
        fake_print_log(run);
        fail_msg("the actor's log holds a report");
    }
    process_close(&run->process);
    post_close(&run->learner, 0);
    post_close(&run->shard, 0);
    loop_destroy(&run->loop);
    free(run->rows);
}
