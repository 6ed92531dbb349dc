#include "tools/straw.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/net/post.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/store/store.h"
#include "common/util/clock.h"
#include "common/util/fs.h"

#define PATIENCE_MS  15000 /* for the shard to serve or to leave */
#define SILENCE_MS   700   /* without an answer a writer begins again */
#define LATENCIES    (1 << 16)
#define TIMES        4096 /* messages of which a writer remembers when they were sent */

struct writer {
    straw_t *straw;
    post_t *post;
    uint32_t slot;
    uint64_t process, store, epoch;
    uint64_t next;  /* row to send */
    uint64_t acked;
    bool joined;
    uint64_t heard_ms;
    uint64_t due_us; /* with a pace: when the next message goes */
    uint64_t sent_ns[TIMES];  /* by the last row's sequence */
    uint64_t sent_end[TIMES];
};

struct straw {
    struct straw_config config;
    char dir[FS_PATH_MAX], log[FS_PATH_MAX + 32];
    char control[ADDRESS_MAX], ingest[ADDRESS_MAX], sample[ADDRESS_MAX];
    loop_t *loop;
    loop_timer_t *beat;
    post_t *post; /* the learner's */
    uint64_t process;
    process_t *child;
    struct writer *writers;
    bool welcomed, writing, leaving;
    uint32_t depth;
    uint64_t next_request, hello_ms;
    struct straw_counts counts;
    double *latencies;
    int latency_count;
    char *rows; /* one message */
};

static struct peer sample_peer(void)
{
    return (struct peer){.port = PORT_SAMPLE, .local = true, .id = 0};
}

static struct peer ingest_peer(void)
{
    return (struct peer){.port = PORT_INGEST, .local = true, .id = 0};
}

static struct message_spec spec_of(const struct straw_config *config)
{
    const struct row_schema *schema = &config->schema;

    return (struct message_spec){schema->obs_type, schema->obs_dim, schema->action_dim, 0, false, config->tasks};
}

/* --- rows ------------------------------------------------------------------ */

void straw_row(void *row, const struct row_schema *schema, uint32_t slot, uint64_t epoch,
               uint64_t sequence, uint32_t episode)
{
    uint64_t place = sequence % episode;
    struct row_head head = {
        .flags = place == 0 ? ROW_FIRST : place + 1 == episode ? ROW_TRUNCATED : 0,
        .param_version = sequence,
        .param_epoch = 1,
        .reward = place == 0 ? 0 : (float)(sequence % 1024),
    };
    char *obs = (char *)row + sizeof(head), *action = obs + row_obs_bytes(schema);
    float value = (float)slot + (float)(epoch % 64) / 64;

    memcpy(row, &head, sizeof(head));
    if (schema->obs_type == OBS_RGB) {
        memset(obs, (int)(sequence * 37 + slot), schema->obs_dim);
        memcpy(obs, &value, sizeof(value));
    }
    for (uint32_t i = 0; schema->obs_type == OBS_STATE && i < schema->obs_dim; i++, value += 1)
        memcpy(obs + i * sizeof(value), &value, sizeof(value));
    value = place == 0 ? 0 : (float)(sequence % 16) / 16;
    for (uint32_t i = 0; i < schema->action_dim; i++)
        memcpy(action + i * sizeof(value), &value, sizeof(value));
}

void straw_task_row(void *row, const struct row_schema *schema, uint32_t slot, uint32_t tasks)
{
    uint32_t task = slot % tasks, obs = schema->obs_dim - schema->obs_dim * task / tasks;
    uint32_t action = schema->action_dim - schema->action_dim * task / tasks;
    float *values = row_obs(row), *actions = row_action(row, schema);

    memcpy((char *)row + offsetof(struct row_head, task), &task, sizeof(task)); /* rows are aligned to 4 bytes only */
    memset(values + obs, 0, (schema->obs_dim - obs) * sizeof(*values));
    memset(actions + action, 0, (schema->action_dim - action) * sizeof(*actions));
}

/* The same, showing a picture if there are any, or of one task of several. */
static void put_row(void *row, const struct straw_config *config, uint32_t slot, uint64_t epoch, uint64_t sequence)
{
    size_t bytes = config->schema.obs_dim;

    straw_row(row, &config->schema, slot, epoch, sequence, config->episode);
    if (config->tasks > 0)
        straw_task_row(row, &config->schema, slot, config->tasks);
    if (config->frame_count > 0)
        memcpy(row_obs(row), config->frames + sequence % config->frame_count * bytes, bytes);
}

static int fill(store_t *store, const struct straw_config *config, uint64_t rows, char *bytes, struct error *err)
{
    struct store_record record = {.epoch = 1, .rows = config->episode, .flags = EPISODE_TRUNCATED};
    size_t stride = row_stride(&config->schema);
    int rc = TD_OK;

    while (rc == TD_OK && store_counts(store)->rows < rows) {
        for (uint32_t i = 0; i < record.rows; i++)
            put_row(bytes + i * stride, config, 0, 1, record.sequence + i);
        rc = store_insert(store, &record, bytes, err);
        record.sequence += record.rows;
        if (rc == TD_OK && store_counts(store)->sealed % 64 == 0)
            rc = store_commit(store, err);
    }
    return rc != TD_OK ? rc : store_commit(store, err);
}

int straw_fill(const struct straw_config *straw, uint64_t run, uint64_t rows, struct error *err)
{
    struct store_config config = {.dir = straw->dir, .schema = straw->schema, .run_id = run,
                                  .rows = rows + rows / 4, .compress_frames = straw->compress_frames};
    char *bytes = malloc(straw->episode * row_stride(&straw->schema));
    store_t *store;
    int rc;

    if (bytes == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a table of rows");
    if ((rc = store_open(&store, &config, err)) == TD_OK) {
        rc = fill(store, straw, rows, bytes, err);
        store_close(&store);
    }
    free(bytes);
    return rc;
}

/* --- writers --------------------------------------------------------------- */

static void writer_hello(struct writer *writer)
{
    struct peer peer = ingest_peer();
    struct message message = {.kind = MESSAGE_INGEST_HELLO, .run = STRAW_RUN};

    message.ingest_hello.slot = writer->slot;
    message.ingest_hello.process = writer->process;
    message.ingest_hello.spec = spec_of(&writer->straw->config);
    message.ingest_hello.count = 1;
    message.ingest_hello.streams[0] =
        (struct stream_shown){.store = writer->store, .epoch = writer->epoch};
    post_send(writer->post, &peer, &message);
    writer->heard_ms = clock_ms();
}

static void writer_message(struct writer *writer)
{
    straw_t *straw = writer->straw;
    size_t stride = row_stride(&straw->config.schema);
    uint32_t count = straw->config.chunk;
    struct peer peer = ingest_peer();
    struct message message = {.kind = MESSAGE_ROWS, .run = STRAW_RUN, .bulks = 1};

    message.rows = (struct rows){.slot = writer->slot, .process = writer->process,
                                 .store = writer->store, .epoch = writer->epoch,
                                 .first = writer->next, .count = count, .stride = (uint32_t)stride};
    message.bulk[0] = (struct bulk){straw->rows, count * stride};
    for (uint32_t i = 0; i < count; i++)
        put_row(straw->rows + i * stride, &straw->config, writer->slot, writer->epoch, writer->next + i);
    writer->next += count;
    writer->sent_ns[writer->next / count % TIMES] = clock_ns();
    writer->sent_end[writer->next / count % TIMES] = writer->next;
    straw->counts.sent += count;
    post_send(writer->post, &peer, &message);
}

static void writer_send(struct writer *writer)
{
    const struct straw_config *config = &writer->straw->config;
    uint64_t now_us = clock_ns() / 1000;

    while (writer->straw->writing && writer->joined &&
           writer->next + config->chunk <= writer->acked + (uint64_t)config->window * config->chunk) {
        if (config->pace_us != 0 && now_us < writer->due_us)
            return;
        if (config->pace_us != 0) /* whoever was late keeps its place among the others */
            writer->due_us += ((now_us - writer->due_us) / config->pace_us + 1) * config->pace_us;
        writer_message(writer);
    }
}

static void writer_acked(struct writer *writer, uint64_t next)
{
    straw_t *straw = writer->straw;
    uint64_t now = clock_ns(), chunk = straw->config.chunk;

    if (next <= writer->acked)
        return;
    for (uint64_t end = (writer->acked / chunk + 1) * chunk; end <= next; end += chunk)
        if (writer->sent_end[end / chunk % TIMES] == end && straw->latency_count < LATENCIES)
            straw->latencies[straw->latency_count++] =
                (double)(now - writer->sent_ns[end / chunk % TIMES]) * 1e-6;
    straw->counts.acked += next - writer->acked;
    writer->acked = next;
}

static void writer_welcome(struct writer *writer, const struct ingest_welcome *welcome)
{
    const struct stream_granted *granted = &welcome->streams[0];

    if (writer->epoch != granted->epoch || writer->store != welcome->store)
        writer->acked = 0;
    writer->store = welcome->store;
    writer->epoch = granted->epoch;
    writer_acked(writer, granted->next);
    writer->next = writer->acked / writer->straw->config.chunk * writer->straw->config.chunk;
    writer->joined = true;
}

static void on_writer(void *context, const struct peer *peer, const struct message *message)
{
    struct writer *writer = context;

    (void)peer;
    writer->heard_ms = clock_ms();
    switch (message->kind) {
    case MESSAGE_INGEST_WELCOME:
        writer_welcome(writer, &message->ingest_welcome);
        break;
    case MESSAGE_ACK:
        if (message->ack.epoch == writer->epoch && message->ack.store == writer->store)
            writer_acked(writer, message->ack.next);
        break;
    case MESSAGE_NACK:
        if (message->nack.epoch == writer->epoch)
            writer->next = message->nack.next / writer->straw->config.chunk * writer->straw->config.chunk;
        break;
    case MESSAGE_REJOIN:
        writer->joined = false;
        writer_hello(writer);
        break;
    case MESSAGE_REFUSED:
    case MESSAGE_FENCED:
        writer->straw->counts.refused++;
        break;
    default:
        break;
    }
    writer_send(writer);
}

static int writer_open(straw_t *straw, uint32_t slot, struct error *err)
{
    struct writer *writer = &straw->writers[slot];
    struct post_options options = {.run = STRAW_RUN, .on_message = on_writer, .context = writer};

    writer->straw = straw;
    writer->slot = slot;
    writer->process = options.process = process_random_id();
    writer->due_us = clock_ns() / 1000 + straw->config.pace_us * slot / straw->config.writers;
    return post_open(&writer->post, straw->loop, &options, err);
}

static void writer_connect(struct writer *writer)
{
    struct peer peer = ingest_peer();
    struct error err;

    writer->joined = false;
    if (post_connect(writer->post, &peer, writer->straw->ingest, &err) == TD_OK)
        writer_hello(writer);
}

/* --- the learner ----------------------------------------------------------- */

static void learner_hello(straw_t *straw)
{
    struct peer peer = sample_peer();
    struct message message = {.kind = MESSAGE_SAMPLE_HELLO, .run = STRAW_RUN};

    message.sample_hello = (struct sample_hello){
        .learner_epoch = 1,
        .process = straw->process,
        .spec = spec_of(&straw->config),
        .shards = 1,
        .horizon = straw->config.horizon,
        .batch_size = straw->config.batch,
        .seed = 1,
        .capacity = straw->config.capacity,
        .map_rows = straw->config.map_rows,
        .heartbeat_ms = 2000,
        .timeout_ms = 3600000,
    };
    straw->hello_ms = clock_ms();
    post_send(straw->post, &peer, &message);
}

static void learner_credit(straw_t *straw)
{
    struct peer peer = sample_peer();
    struct message message = {.kind = MESSAGE_CREDIT, .run = STRAW_RUN,
                              .credit = {.learner_epoch = 1, .steps = LIMIT_NONE}};

    post_send(straw->post, &peer, &message);
}

static void learner_request(straw_t *straw)
{
    struct peer peer = sample_peer();
    struct message message = {.kind = MESSAGE_SAMPLE_REQUEST, .run = STRAW_RUN};

    message.sample_request = (struct sample_request){
        .learner_epoch = 1,
        .id = ++straw->next_request,
        .update = straw->next_request,
        .count = straw->config.batch,
        .credit = LIMIT_NONE,
    };
    post_send(straw->post, &peer, &message);
}

/* The shard is there, or there again. */
static void shard_said_hello(straw_t *straw, const struct hello *hello)
{
    struct peer peer = sample_peer();
    struct error err;

    if (strcmp(straw->sample, hello->sample) != 0) {
        memcpy(straw->sample, hello->sample, sizeof(straw->sample));
        memcpy(straw->ingest, hello->ingest_ipc, sizeof(straw->ingest));
        if (post_connect(straw->post, &peer, straw->sample, &err) != TD_OK)
            return;
        straw->welcomed = false;
    }
    if (!straw->welcomed)
        learner_hello(straw);
}

static void on_learner(void *context, const struct peer *peer, const struct message *message)
{
    straw_t *straw = context;

    (void)peer;
    switch (message->kind) {
    case MESSAGE_HELLO:
        shard_said_hello(straw, &message->hello);
        break;
    case MESSAGE_SAMPLE_WELCOME:
        if (straw->welcomed)
            break;
        straw->welcomed = true;
        learner_credit(straw);
        for (uint32_t i = 0; i < straw->config.writers; i++)
            writer_connect(&straw->writers[i]);
        for (uint32_t i = 0; i < straw->depth; i++)
            learner_request(straw);
        break;
    case MESSAGE_SLICES:
        straw->counts.slices += message->slices.count;
        straw->counts.batches++;
        if (straw->depth > 0)
            learner_request(straw);
        break;
    case MESSAGE_REFUSED:
        straw->counts.refused++;
        fprintf(stderr, "the shard refused its learner: %s\n", message->refused.text);
        break;
    default:
        break;
    }
}

/* Every few milliseconds: paces, silences, the learner's heartbeat. */
static void on_beat(void *context)
{
    straw_t *straw = context;
    uint64_t now = clock_ms();

    for (uint32_t i = 0; i < straw->config.writers; i++) {
        struct writer *writer = &straw->writers[i];

        if (straw->welcomed && now - writer->heard_ms > SILENCE_MS &&
            (!writer->joined || writer->next != writer->acked)) {
            writer->next = writer->acked / straw->config.chunk * straw->config.chunk;
            writer_hello(writer);
        }
        writer_send(writer);
    }
    if (straw->welcomed && now - straw->hello_ms > 1000) {
        straw->hello_ms = now;
        learner_credit(straw);
    }
}

/* --- the child ------------------------------------------------------------- */

static void on_exit_of_child(void *context, int code, int signum)
{
    straw_t *straw = context;
    char how[80];

    if (straw->leaving)
        return;
    fprintf(stderr, "the shard ended by itself: %s\n",
            process_describe_exit(code, signum, how, sizeof(how)));
    straw->counts.refused++;
}

static int start_child(straw_t *straw, struct error *err)
{
    char learner[ADDRESS_MAX + 16], dir[FS_PATH_MAX + 16], run[32];
    const char *args[] = {learner, dir, run, straw->config.compress_frames ? "compress_frames=true" : NULL, NULL};
    struct process_options options = {.program = straw->config.program, .args = args,
                                      .log_path = straw->log, .on_exit = on_exit_of_child,
                                      .context = straw};

    snprintf(learner, sizeof(learner), "learner=%s", straw->control);
    snprintf(dir, sizeof(dir), "replay_dir=%s", straw->dir);
    snprintf(run, sizeof(run), "run_id=%x", STRAW_RUN);
    return process_spawn(&straw->child, straw->loop, &options, err);
}

/* Until the learner is welcome and every writer has its epoch. */
static int wait_until_serving(straw_t *straw, struct error *err)
{
    uint64_t end = clock_ms() + PATIENCE_MS;
    uint32_t joined = 0;

    while (clock_ms() < end) {
        loop_run_for(straw->loop, 5);
        joined = 0;
        for (uint32_t i = 0; i < straw->config.writers; i++)
            joined += straw->writers[i].joined;
        if (straw->welcomed && joined == straw->config.writers)
            return TD_OK;
    }
    return error_set(err, TD_ETIMEOUT, "the replay shard did not serve within 15 s: see %s", straw->log);
}

static int open_all(straw_t *straw, struct error *err)
{
    struct post_options options = {.process = straw->process, .run = STRAW_RUN,
                                   .on_message = on_learner, .context = straw};
    char folder[RUNTIME_PATH_MAX];
    int rc;

    if ((rc = runtime_folder(folder, runtime_key(straw->dir), err)) != TD_OK ||
        (rc = rundir_address(straw->control, folder, "straw", straw->process, err)) != TD_OK ||
        (rc = loop_create(&straw->loop, err)) != TD_OK ||
        (rc = post_open(&straw->post, straw->loop, &options, err)) != TD_OK ||
        (rc = post_bind(straw->post, PORT_CONTROL, straw->control, err)) != TD_OK)
        return rc;
    for (uint32_t i = 0; i < straw->config.writers; i++)
        if ((rc = writer_open(straw, i, err)) != TD_OK)
            return rc;
    if (loop_timer_start(&straw->beat, straw->loop, 1, 1, on_beat, straw) != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory");
    return start_child(straw, err);
}

int straw_start(straw_t **out, const struct straw_config *config, struct error *err)
{
    straw_t *straw = calloc(1, sizeof(*straw));
    int rc = TD_ENOMEM;

    *out = straw;
    if (straw == NULL)
        return rc;
    straw->config = *config;
    straw->process = process_random_id();
    snprintf(straw->dir, sizeof(straw->dir), "%s", config->dir);
    snprintf(straw->log, sizeof(straw->log), "%s.log", config->dir);
    straw->writers = calloc(config->writers + 1, sizeof(*straw->writers));
    straw->latencies = calloc(LATENCIES, sizeof(*straw->latencies));
    straw->rows = calloc(config->chunk + 1, row_stride(&config->schema));
    if (straw->writers != NULL && straw->latencies != NULL && straw->rows != NULL &&
        (rc = fs_mkdirs(straw->dir, 0755, err)) == TD_OK && (rc = open_all(straw, err)) == TD_OK)
        rc = wait_until_serving(straw, err);
    if (rc != TD_OK)
        straw_stop(out);
    return rc;
}

/* Signal the child and wait until it is gone. */
static void end_child(straw_t *straw, int signum)
{
    uint64_t end = clock_ms() + PATIENCE_MS;

    if (straw->child == NULL)
        return;
    straw->leaving = true;
    process_signal(straw->child, signum);
    while (process_running(straw->child) && clock_ms() < end)
        loop_run_for(straw->loop, 2);
    if (process_running(straw->child))
        process_signal(straw->child, SIGKILL);
    while (process_running(straw->child))
        loop_run_for(straw->loop, 2);
    process_close(&straw->child);
    straw->leaving = false;
}

int straw_kill(straw_t *straw, struct error *err)
{
    int rc;

    end_child(straw, SIGKILL);
    straw->counts.restarts++;
    straw->welcomed = false;
    for (uint32_t i = 0; i < straw->config.writers; i++)
        straw->writers[i].joined = false;
    rc = start_child(straw, err);
    return rc != TD_OK ? rc : wait_until_serving(straw, err);
}

/* All say good-bye first, so that the shard need not wait for anyone. */
static void say_goodbye(straw_t *straw)
{
    struct peer sample = sample_peer(), ingest = ingest_peer();
    struct message message = {.kind = MESSAGE_LEAVE, .run = STRAW_RUN};

    straw->writing = false;
    straw->depth = 0;
    for (uint32_t i = 0; i < straw->config.writers; i++) {
        struct writer *writer = &straw->writers[i];

        message.leave = (struct leave){.role = ROLE_ACTOR, .slot = writer->slot,
                                       .process = writer->process};
        if (writer->post != NULL)
            post_send(writer->post, &ingest, &message);
    }
    message.kind = MESSAGE_LEAVING;
    message.leaving.learner_epoch = 1;
    post_send(straw->post, &sample, &message);
    loop_run_for(straw->loop, 20);
}

void straw_stop(straw_t **out)
{
    straw_t *straw = *out;

    if (straw == NULL)
        return;
    if (straw->child != NULL && straw->welcomed)
        say_goodbye(straw);
    end_child(straw, SIGTERM);
    for (uint32_t i = 0; straw->writers != NULL && i < straw->config.writers; i++)
        post_close(&straw->writers[i].post, 0);
    post_close(&straw->post, 0);
    loop_timer_close(&straw->beat);
    loop_destroy(&straw->loop);
    free(straw->writers);
    free(straw->latencies);
    free(straw->rows);
    free(straw);
    *out = NULL;
}

/* --- from outside ---------------------------------------------------------- */

void straw_write(straw_t *straw, bool on)
{
    straw->writing = on;
    for (uint32_t i = 0; on && i < straw->config.writers; i++)
        writer_send(&straw->writers[i]);
}

void straw_sample(straw_t *straw, uint32_t depth)
{
    straw->depth = depth;
    for (uint32_t i = 0; i < depth; i++)
        learner_request(straw);
}

void straw_run(straw_t *straw, uint64_t ms)
{
    uint64_t end = clock_ms() + ms;

    for (uint64_t now = clock_ms(); now < end; now = clock_ms())
        loop_run_for(straw->loop, end - now);
}

const struct straw_counts *straw_counts(const straw_t *straw)
{
    return &straw->counts;
}

pid_t straw_pid(const straw_t *straw)
{
    return process_pid(straw->child);
}

void straw_writer(const straw_t *straw, uint32_t writer, uint64_t *epoch, uint64_t *acked)
{
    *epoch = straw->writers[writer].epoch;
    *acked = straw->writers[writer].acked;
}

int straw_latencies(straw_t *straw, double *ms, int max)
{
    int count = straw->latency_count < max ? straw->latency_count : max;

    memcpy(ms, straw->latencies, (size_t)count * sizeof(*ms));
    straw->latency_count = 0;
    return count;
}
