/* The learner's host in the cluster: parameters are a hash; checkpoints and csv lines survive it. */
#include <cjson/cJSON.h>
#include <xxhash.h>

#include "learner/settings.h"
#include "tests/support/cluster.h"
#include "tests/support/cluster_real.h"
#include "tests/support/test.h"

struct part {
    void *bytes;
    size_t size;
    uint32_t count;
};

struct learner_host {
    coordinator_t *coordinator;
    struct real_learner *real; /* or NULL */
    uint64_t hash, version;  /* the model */
    uint64_t busy_until;     /* of the compute thread */
    struct part parts[2][WIRE_SHARDS_MAX];
    const struct message *message; /* being fed */
};

coordinator_t *learner_coordinator(struct cluster_node *node)
{
    return node->learner->coordinator;
}

/* --- the compute thread ----------------------------------------------------- */

struct job {
    uint64_t id, version;
    struct message_spec spec;
    struct command_update update;
    struct command_publish publish;
    struct durable durable;
};

/* Carried out in order, each taking its time; then `call`. */
static void compute(struct cluster *cluster, struct cluster_node *node, uint64_t takes_ms,
                    void (*call)(struct cluster *, struct cluster_node *, void *),
                    const struct job *job)
{
    struct learner_host *host = node->learner;
    struct job *copy = malloc(sizeof(*copy));

    assert_non_null(copy);
    *copy = *job;
    if (host->busy_until < cluster->now)
        host->busy_until = cluster->now;
    host->busy_until += takes_ms;
    cluster_call(cluster, node, host->busy_until - cluster->now, call, copy);
}

static void drain(struct cluster *cluster, struct cluster_node *node);

/* The learner cannot go on. */
static void refuse(struct cluster *cluster, struct cluster_node *node, const struct error *err)
{
    struct output_exit exit = {.code = TD_EXIT_BAD_INPUT};

    snprintf(exit.text, sizeof(exit.text), "%.200s", err->text);
    cluster_exited(cluster, node, &exit);
}

static void model_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct durable *durable = cluster_durable(cluster);
    struct learner_host *host = node->learner;

    if (host->real != NULL) {
        struct error err = {0};
        const spill_t *file = NULL;
        size_t bytes = real_model(host->real, &((const struct job *)argument)->spec, &file, &err);

        if (bytes == 0) {
            refuse(cluster, node, &err);
            return;
        }
        coordinator_model_ready(host->coordinator, cluster->now, bytes, file);
        drain(cluster, node);
        return;
    }
    node->learner->hash = durable != NULL ? durable->hash : 5;
    node->learner->version = durable != NULL ? durable->version : 0;
    coordinator_model_ready(node->learner->coordinator, cluster->now, cluster->options.snapshot, NULL);
    drain(cluster, node);
}

/* The tasks of a part's slices are its last bytes. */
static void count_tasks(struct cluster *cluster, const struct part *part)
{
    const char *tasks = (const char *)part->bytes + part->size - part->count * sizeof(uint32_t);

    for (uint32_t i = 0; i < part->count; i++) {
        uint32_t task;

        memcpy(&task, tasks + i * sizeof(task), sizeof(task));
        assert_true(task < (cluster->options.tasks > 0 ? cluster->options.tasks : 1));
        cluster->task_slices[task]++;
    }
}

static void update_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;
    struct learner_host *host = node->learner;
    struct compute_batch batch = {0};
    uint32_t slices = 0;

    assert_true(host->real != NULL || job->update.update == host->version);
    for (uint32_t i = 0; i < job->update.parts; i++) {
        struct part *part = &host->parts[job->update.buffer][i];

        slices += part->count;
        batch.part[i] = (struct compute_part){part->bytes, part->size, part->count};
        host->hash = cluster_mix(host->hash, part->bytes, part->size);
        count_tasks(cluster, part);
    }
    assert_int_equal(slices, cluster->options.batch);
    host->hash = cluster_mix(host->hash, &job->update.update, sizeof(job->update.update));
    if (host->real != NULL)
        real_update(host->real, job->update.update, &batch, job->update.parts);
    host->version++;
    cluster->updates_run++;
    coordinator_updated(host->coordinator, cluster->now, job->update.update, true);
    drain(cluster, node);
}

static void publish_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;
    struct learner_host *host = node->learner;
    uint64_t *memory = (uint64_t *)(void *)job->publish.room.memory;

    if (host->real != NULL) {
        uint64_t hash = real_publish(host->real, &job->publish);

        coordinator_published(host->coordinator, cluster->now, job->publish.version, hash, true);
        drain(cluster, node);
        return;
    }
    assert_true(job->publish.version == host->version);
    memset(memory, (int)host->version, job->publish.size);
    memory[0] = host->hash;
    memory[1] = host->version;
    coordinator_published(host->coordinator, cluster->now, job->publish.version,
                          XXH3_64bits(memory, job->publish.size), true);
    drain(cluster, node);
}

/* Durable from here on. */
static void save_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    struct job *job = argument;

    if (node != cluster_learner(cluster))
        return; /* one that was replaced finds the epoch's file changed (learner/run.h) */
    if (cluster->durable_count == cluster->durable_capacity) {
        cluster->durable_capacity = 2 * cluster->durable_capacity + 16;
        cluster->durable = realloc(cluster->durable, (size_t)cluster->durable_capacity *
                                                         sizeof(*cluster->durable));
        assert_non_null(cluster->durable);
    }
    cluster->durable[cluster->durable_count++] = job->durable;
    coordinator_saved(node->learner->coordinator, cluster->now, job->id, NULL);
    drain(cluster, node);
}

/* A real checkpoint lies on the disk some time before the learner hears of it. */
static void save_written(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    coordinator_saved(node->learner->coordinator, cluster->now, ((struct job *)argument)->id, NULL);
    drain(cluster, node);
}

static void save_failed(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    coordinator_saved(node->learner->coordinator, cluster->now, ((struct job *)argument)->id, "the disk failed");
    drain(cluster, node);
}

/* Its writing fails only where the test stops the disk in the middle of it. */
static void write_real(struct cluster *cluster, struct cluster_node *node, struct job *job)
{
    struct error err = {0};
    bool written;

    written = real_write(node->learner->real, &err);
    if (!written && cluster->on_save_failed == NULL)
        fail_msg("a checkpoint was not written: %s", err.text);
    cluster_call(cluster, node, cluster->options.save_ms, written ? save_written : save_failed, job);
    if (!written)
        cluster->on_save_failed(cluster, cluster->context);
    else if (cluster->on_saved != NULL)
        cluster->on_saved(cluster, cluster->context);
}

/* The tensors are copied; the writing goes on behind. */
static void save_copied(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    struct job *job = malloc(sizeof(*job));

    assert_non_null(job);
    *job = *(struct job *)argument;
    if (node->learner->real != NULL) {
        write_real(cluster, node, job);
        return;
    }
    job->durable.hash = node->learner->hash;
    assert_true(job->durable.version == node->learner->version);
    cluster_call(cluster, node, cluster->options.save_ms, save_done, job);
}

static void save(struct cluster *cluster, struct cluster_node *node,
                 const struct command_save *command)
{
    cJSON *json = progress_to_json(command->progress);
    struct job job = {.id = command->id};

    assert_non_null(json);
    job.durable.progress = cluster_keep(cluster, cJSON_PrintUnformatted(json));
    cJSON_Delete(json);
    job.durable.version = command->progress->updates;
    job.durable.kind = command->kind;
    job.durable.state_size = command->state.size;
    job.durable.state = cluster_keep(cluster, malloc(command->state.size + 1));
    if (command->state.size > 0)
        memcpy(job.durable.state, command->state.data, command->state.size);
    if (node->learner->real != NULL)
        real_save(node->learner->real, command);
    compute(cluster, node, 0, save_copied, &job);
}

static const struct durable *read_progress(struct cluster *cluster, struct progress *progress)
{
    const struct durable *durable = cluster_durable(cluster);
    struct error err = {0};
    cJSON *json;

    if (durable == NULL)
        return NULL;
    json = cJSON_Parse(durable->progress);
    assert_ok(progress_from_json(progress, json, &err), err);
    cJSON_Delete(json);
    return durable;
}

static void load_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    struct progress progress;
    const struct durable *durable = read_progress(cluster, &progress);
    struct learner_host *host = node->learner;

    (void)argument;
    if (host->real != NULL) {
        real_load(host->real);
        coordinator_loaded(host->coordinator, cluster->now, &host->real->progress, host->real->state,
                           host->real->state_size);
        drain(cluster, node);
        return;
    }
    host->hash = durable != NULL ? durable->hash : 5;
    host->version = durable != NULL ? durable->version : 0;
    coordinator_loaded(host->coordinator, cluster->now, durable != NULL ? &progress : NULL,
                       durable != NULL ? durable->state : NULL,
                       durable != NULL ? durable->state_size : 0);
    drain(cluster, node);
}

static void raise_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;

    cluster->epoch_file = (uint32_t)job->version + 1;
    if (node->learner->real != NULL) {
        struct error err = {0};

        assert_ok(run_raise_epoch(&node->learner->real->run, (uint32_t)job->version, &err), err);
        cluster->epoch_file = node->learner->real->run.epoch;
    }
    coordinator_epoch_raised(node->learner->coordinator, cluster->now, cluster->epoch_file);
    drain(cluster, node);
}

/* --- commands --------------------------------------------------------------- */

static void keep_slices(struct learner_host *host, const struct command_slices *command)
{
    struct part *part = &host->parts[command->buffer][command->part];

    assert_non_null(host->message);
    part->count = command->count;
    part->size = host->message->bulk[0].size;
    part->bytes = realloc(part->bytes, part->size);
    memcpy(part->bytes, host->message->bulk[0].data, part->size);
}

static void add_row(struct cluster_row **rows, int *count, struct cluster_row row)
{
    *rows = realloc(*rows, ((size_t)*count + 1) * sizeof(**rows));
    assert_non_null(*rows);
    (*rows)[(*count)++] = row;
}

static void rollback(struct cluster *cluster, const struct command_rollback *command)
{
    while (cluster->train_count > 0 &&
           cluster->train[cluster->train_count - 1].step >= command->train_below)
        cluster->train_count--;
    while (cluster->eval_count > 0 &&
           cluster->eval[cluster->eval_count - 1].step >= command->eval_below)
        cluster->eval_count--;
}

static void carry_out(struct cluster *cluster, struct cluster_node *node,
                      struct coordinator_output *output)
{
    const struct cluster_options *options = &cluster->options;
    struct job job = {0};

    switch (output->kind) {
    case OUTPUT_SEND:
        cluster_send(cluster, node, &output->peer, &output->message);
        break;
    case OUTPUT_CONNECT:
        cluster_connect(cluster, node, &output->peer, output->address);
        break;
    case OUTPUT_LOG:
        cluster_say(cluster, node, output->log.text);
        break;
    case COMMAND_MODEL:
        job.spec = output->spec;
        compute(cluster, node, 2, model_done, &job);
        break;
    case COMMAND_SLICES:
        keep_slices(node->learner, &output->slices);
        break;
    case COMMAND_UPDATE:
        job.update = output->update;
        compute(cluster, node, options->update_ms, update_done, &job);
        break;
    case COMMAND_PUBLISH:
        job.publish = output->publish;
        compute(cluster, node, 1, publish_done, &job);
        break;
    case COMMAND_SAVE:
        save(cluster, node, &output->save);
        break;
    case COMMAND_LOAD:
        compute(cluster, node, 3, load_done, &job);
        break;
    case COMMAND_ROLLBACK:
        rollback(cluster, &output->rollback);
        break;
    case COMMAND_TRAIN_ROW:
        cluster_trace(cluster, (struct trace){TRACE_TRAIN, .episodes = output->train.episode,
                                              .rows = output->train.step});
        add_row(&cluster->train, &cluster->train_count,
                (struct cluster_row){output->train.step, output->train.episode, 0,
                                     output->train.reward, false, output->train.length, output->train.task, 0, {0}});
        break;
    case COMMAND_EVAL_ROW:
        cluster_trace(cluster, (struct trace){TRACE_EVAL, .episodes = output->eval.episode,
                                              .rows = output->eval.step});
        add_row(&cluster->eval, &cluster->eval_count,
                (struct cluster_row){output->eval.step, output->eval.episode,
                                     output->eval.version, output->eval.reward,
                                     output->eval.final, 0, 0, output->eval.score_count, {0}});
        for (uint32_t i = 0; i < output->eval.score_count && i < CLUSTER_TASKS; i++)
            cluster->eval[cluster->eval_count - 1].score[i] = output->eval.scores[i].reward;
        break;
    case COMMAND_RAISE_EPOCH:
        job.version = output->epoch;
        compute(cluster, node, 1, raise_done, &job);
        break;
    }
}

static void drain(struct cluster *cluster, struct cluster_node *node)
{
    struct coordinator_output output;

    while (coordinator_next(node->learner->coordinator, &output)) {
        if (output.kind == OUTPUT_EXIT) {
            cluster_exited(cluster, node, &output.exit);
            return;
        }
        carry_out(cluster, node, &output);
    }
}

/* --- life ------------------------------------------------------------------- */

static void fill_config(struct cluster *cluster, struct cluster_node *node,
                        struct coordinator_config *config)
{
    const struct cluster_options *options = &cluster->options;
    static const char yaml[] = "toy: true\n";

    *config = (struct coordinator_config){
        .run = 77, .process = node->process, .epoch = ++cluster->epoch_file, .options = yaml,
        .options_size = sizeof(yaml) - 1, .lockstep = options->lockstep,
        .episodic = options->episodic, .evaluator = options->evaluator,
        .eval_first = options->eval_first, .seed = 5, .steps = options->steps,
        .seed_steps = options->seed_steps, .utd = options->utd, .slack = options->slack,
        .batch_size = options->batch, .horizon = options->horizon,
        .buffer_size = options->buffer_size, .eval_freq = options->eval_freq,
        .eval_episodes = options->eval_episodes, .actors = options->lockstep ? 1 : options->actors,
        .shards = options->shards, .max_staleness = options->max_staleness,
        .heartbeat_ms = 2000, .broadcast_ms = 50, .timeout_ms = 3600000,
        .checkpoint_every_ms = options->checkpoint_every_ms,
        .checkpoint_steps = options->checkpoint_steps, .keep_checkpoints = 3, .tasks = options->tasks,
        .balanced = options->balanced,
    };
    for (uint32_t task = 0; task < options->tasks; task++)
        config->task_length[task] = options->task_lengths[task];
    snprintf(config->params_ipc, WIRE_ADDRESS_MAX, "sim:0:0");
    snprintf(config->announce_ipc, WIRE_ADDRESS_MAX, "sim:0:0");
}

static void start_coordinator(struct cluster *cluster, struct cluster_node *node, const struct progress *progress,
                              const void *state, size_t state_size)
{
    struct learner_host *host = node->learner;
    struct coordinator_config config;
    struct error err = {0};

    fill_config(cluster, node, &config);
    if (host->real != NULL) {
        settings_fill(&config, &host->real->run.config, &host->real->tasks);
        config.heartbeat_ms = 2000;
        config.checkpoint_every_ms = cluster->options.checkpoint_every_ms;
        config.run = host->real->run.run_id;
        config.epoch = cluster->epoch_file = host->real->run.epoch;
    }
    if (coordinator_create(&host->coordinator, &config, progress, state, state_size, &err) != TD_OK) {
        if (host->real == NULL)
            fail_msg("%s", err.text);
        refuse(cluster, node, &err);
        return;
    }
    coordinator_tick(host->coordinator, cluster->now);
    drain(cluster, node);
}

static void start_real(struct cluster *cluster, struct cluster_node *node)
{
    struct real_learner *real;
    struct error err = {0};

    if (!real_open(&real, cluster, &err)) {
        node->learner->real = real;
        refuse(cluster, node, &err);
        return;
    }
    node->learner->real = real;
    if (real->run.finished) {
        struct output_exit finished = {TD_EXIT_OK, "the run is complete already"};

        cluster_exited(cluster, node, &finished);
        return;
    }
    start_coordinator(cluster, node, real->resumed ? &real->progress : NULL, real->state, real->state_size);
}

void learner_start(struct cluster *cluster, struct cluster_node *node)
{
    struct learner_host *host = calloc(1, sizeof(*host));
    struct progress progress;
    const struct durable *durable = read_progress(cluster, &progress);

    assert_non_null(host);
    node->learner = host;
    if (cluster->options.task != NULL) {
        start_real(cluster, node);
        return;
    }
    if (durable != NULL && durable->kind == SAVE_FINAL) { /* a finished run only says so */
        struct output_exit finished = {TD_EXIT_OK, "the run is complete already"};

        cluster_exited(cluster, node, &finished);
        return;
    }
    start_coordinator(cluster, node, durable != NULL ? &progress : NULL, durable != NULL ? durable->state : NULL,
                      durable != NULL ? durable->state_size : 0);
}

void learner_abandon(struct cluster_node *node)
{
    struct learner_host *host = node->learner;

    coordinator_destroy(&host->coordinator);
    real_close(&host->real);
    for (int i = 0; i < 2; i++)
        for (int p = 0; p < WIRE_SHARDS_MAX; p++)
            free(host->parts[i][p].bytes);
    free(host);
    node->learner = NULL;
}

void learner_receive(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                     const struct message *message)
{
    if (message->kind == MESSAGE_SLICES && message->slices.count > 0)
        cluster_trace(cluster, (struct trace){TRACE_UPDATE,
                                              .episodes = message->slices.last - message->slices.first,
                                              .rows = message->slices.rows});
    node->learner->message = message;
    coordinator_receive(node->learner->coordinator, cluster->now, peer, message);
    drain(cluster, node);
    if (node->alive)
        node->learner->message = NULL;
}

void learner_tick(struct cluster *cluster, struct cluster_node *node)
{
    coordinator_tick(node->learner->coordinator, cluster->now);
    drain(cluster, node);
}

uint64_t learner_deadline(const struct cluster_node *node)
{
    return coordinator_deadline(node->learner->coordinator);
}

void learner_terminate(struct cluster *cluster, struct cluster_node *node)
{
    coordinator_terminate(node->learner->coordinator, cluster->now);
    drain(cluster, node);
}
