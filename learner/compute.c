#include "learner/compute.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/env/tasks.h"
#include "common/tensor/gemm.h"
#include "common/tensor/pool.h"
#include "common/util/clock.h"
#include "common/util/log.h"
#include "common/util/queue.h"
#include "common/util/rng.h"
#include "learner/training_memory.h"

#define JOBS_MAX 16
#define SAY_MS   5000u        /* between lines on a long write */
#define PIECE    ((size_t)256 << 10) /* of a snapshot, hashed and written while the cache has it */

struct compute {
    const struct run *run;
    int threads;
    queue_t *jobs, *results;       /* struct compute_job, struct compute_result */
    queue_t *writes, *copies;      /* struct resume_save * to the writer; a token while the copy is free */
    pthread_t worker, writer;
    bool worker_running, writer_running;
    /* the worker's */
    struct task_set tasks;         /* of a multi-task run */
    pool_t *pool;
    world_model_t *model;
    update_t *update;
    void *gather;                  /* a batch of several parts, put together; NULL with one shard */
    struct row_schema schema;
    bool copied;                   /* numbers are a copy: the writer's while the token is out */
    snapshot_t *numbers;
    spill_t *snapshots;            /* of large models */
    XXH3_state_t *hash;
    char *piece;                   /* in half storage */
};

/* --- batches ----------------------------------------------------------------- */

/* The fields of one message of `count` slices, in the order of row.h's row_slices_bytes. */
static struct batch split(const struct compute *compute, const void *slices, size_t count)
{
    const struct row_schema *schema = &compute->schema;
    uint32_t horizon = (uint32_t)compute->run->config.horizon;
    size_t steps = (size_t)horizon * count;
    const char *at = slices;
    struct batch batch = {0};

    if (schema->obs_type == OBS_RGB) {
        batch.frames = slices;
        batch.frame_step = 1;
    } else {
        batch.obs = slices;
    }
    at += row_slices_obs_bytes(schema, horizon, (uint32_t)count);
    batch.action = (const float *)at;
    batch.reward = batch.action + steps * schema->action_dim;
    batch.terminated = batch.reward + steps;
    batch.task = (const uint32_t *)(batch.terminated + steps);
    return batch;
}

/* Copy [steps][count][bytes] of one part to slices first.. of [steps][total][bytes]. */
static void place(const void *to, const void *from, size_t steps, size_t count, size_t total, size_t first,
                  size_t bytes)
{
    for (size_t t = 0; t < steps; t++)
        memcpy((char *)(uintptr_t)to + (t * total + first) * bytes, (const char *)from + t * count * bytes,
               count * bytes);
}

static void place_part(struct compute *compute, const struct batch *whole, const struct compute_part *in,
                       size_t total, size_t first)
{
    const struct row_schema *schema = &compute->schema;
    size_t h = (size_t)compute->run->config.horizon, n = in->count;
    struct batch part = split(compute, in->slices, n);

    if (schema->obs_type == OBS_RGB)
        place(whole->frames, part.frames, h + 1 + row_history(schema), n, total, first, schema->obs_dim);
    else
        place(whole->obs, part.obs, h + 1, n, total, first, schema->obs_dim * sizeof(float));
    place(whole->action, part.action, h, n, total, first, schema->action_dim * sizeof(float));
    place(whole->reward, part.reward, h, n, total, first, sizeof(float));
    place(whole->terminated, part.terminated, h, n, total, first, sizeof(float));
    place(whole->task, part.task, 1, n, total, first, sizeof(uint32_t));
}

static size_t batch_bytes(const struct compute *compute)
{
    const struct config *config = &compute->run->config;

    return row_slices_bytes(&compute->schema, (uint32_t)config->horizon, (uint32_t)config->batch_size);
}

static void batch_of(struct compute *compute, const struct compute_job *job, struct batch *out)
{
    const struct compute_batch *batch = job->update.batch;
    size_t total = (size_t)compute->run->config.batch_size, first = 0, bytes = batch_bytes(compute);

    if (job->update.parts == 1) { /* as it came: nothing is copied */
        TD_ASSERT(batch->part[0].length == bytes, "%zu bytes, expected %zu", batch->part[0].length, bytes);
        *out = split(compute, batch->part[0].slices, total);
        return;
    }
    TD_ASSERT(compute->gather != NULL, "%u parts with one shard", job->update.parts);
    *out = split(compute, compute->gather, total);
    for (uint32_t p = 0; p < job->update.parts; first += batch->part[p++].count)
        place_part(compute, out, &batch->part[p], total, first);
    TD_ASSERT(first == total, "%zu slices of %zu", first, total);
}

/* --- jobs -------------------------------------------------------------------- */

/* Said, and checked, before it is taken. True in *in_files: copy and snapshots lie there. */
static int check_memory(const struct compute *compute, const struct model_dims *dims, const struct update_config *update,
                        bool *in_files, struct error *err)
{
    const struct config *config = &compute->run->config;
    struct training_beside beside = {.copy = true, .actors = true, .half = derive_half(config),
                                     .other = batch_bytes(compute) * (config->shards > 1 ? 3 : 2)};
    struct training_memory memory;
    char text[TRAINING_MEMORY_TEXT];
    int rc = training_memory_plan(&memory, dims, update, compute->threads, &beside, err);

    if (rc != TD_OK)
        return rc;
    training_memory_text(&memory, text);
    log_info("memory for training", "%s", text);
    *in_files = memory.in_files;
    return training_memory_check(&memory, err);
}

/* The tasks of the options must be those that the actors have; a single one's sizes are what they say. */
static int find_dims(struct compute *compute, const struct message_spec *spec, struct model_dims *dims, struct error *err)
{
    const struct config *config = &compute->run->config;
    struct task_set *tasks = &compute->tasks;
    int rc;

    if (spec->tasks == 0)
        return model_dims_init(dims, config, (int)spec->obs_dim, (int)spec->action_dim, err);
    if ((rc = env_task_set(tasks, config, err)) != TD_OK)
        return rc;
    if (tasks->count != (int)spec->tasks || tasks->obs_dim != (int)spec->obs_dim ||
        tasks->action_dim != (int)spec->action_dim)
        return error_set(err, TD_EINVAL, "the actors have %u tasks of up to %u observations and %u actions, the learner %d "
                         "of %d and %d: do both have the same environments?", spec->tasks, spec->obs_dim,
                         spec->action_dim, tasks->count, tasks->obs_dim, tasks->action_dim);
    return model_dims_init_tasks(dims, config, tasks, err);
}

/* What actors are sent. */
static size_t snapshot_bytes(const struct compute *compute)
{
    return model_snapshot_bytes(&compute->model->layout, derive_half(&compute->run->config));
}

/* Room for what is copied: for checkpoints, for actors. */
static int make_copies(struct compute *compute, bool in_files, struct error *err)
{
    enum snapshot_copy copy = SNAPSHOT_LIVE;
    int rc = TD_OK;

    compute->copied = compute->model->layout.parameters <= SNAPSHOT_COPY_MAX;
    if (compute->copied)
        copy = in_files ? SNAPSHOT_IN_FILE : SNAPSHOT_IN_MEMORY;
    if (derive_half(&compute->run->config) && (compute->piece = malloc(PIECE)) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for parameters in half storage");
    if (in_files)
        rc = spill_open(&compute->snapshots, compute->run->dir, 2 * (uint64_t)snapshot_bytes(compute), err);
    return rc != TD_OK ? rc : snapshot_create(&compute->numbers, compute->model, compute->update, copy, compute->run->dir, err);
}

static int build(struct compute *compute, const struct message_spec *spec, struct error *err)
{
    const struct config *config = &compute->run->config;
    struct update_config update;
    struct model_dims dims;
    bool in_files;
    int rc;

    compute->schema = spec_schema(spec);
    update_config_init(&update, config, spec->episode_length);
    if ((rc = find_dims(compute, spec, &dims, err)) != TD_OK || (rc = gemm_start(compute->threads + 1, err)) != TD_OK ||
        (rc = pool_create(&compute->pool, compute->threads, err)) != TD_OK ||
        (rc = check_memory(compute, &dims, &update, &in_files, err)) != TD_OK ||
        (rc = world_model_create(&compute->model, &dims, true, err)) != TD_OK)
        return rc;
    if (spec->tasks > 0)
        world_model_set_tasks(compute->model, &compute->tasks);
    if (config->shards > 1 && (compute->gather = malloc(batch_bytes(compute))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a batch");
    if ((rc = update_create(&compute->update, compute->model, &update, compute->pool, err)) != TD_OK)
        return rc;
    world_model_init(compute->model, (uint64_t)config->seed);
    return make_copies(compute, in_files, err);
}

static void log_beginning(void *context, const char *line)
{
    (void)context;
    log_info("fine-tuning", "what=\"%s\"", line);
}

static void run_model(struct compute *compute, struct compute_job *job, struct compute_result *result)
{
    result->rc = build(compute, &job->model.spec, &result->err);
    if (result->rc == TD_OK && job->model.checkpoint != NULL)
        result->rc = snapshot_load(job->model.checkpoint, compute->model, compute->update, &result->err);
    else if (result->rc == TD_OK && job->model.finetune != NULL)
        result->rc = finetune_apply(job->model.finetune, compute->model, compute->update, log_beginning, NULL,
                                    &result->err);
    checkpoint_close(&job->model.checkpoint);
    finetune_close(&job->model.finetune);
    if (result->rc != TD_OK)
        return;
    result->model.snapshot_bytes = snapshot_bytes(compute);
    result->model.snapshots = compute->snapshots;
}

static void run_update(struct compute *compute, struct compute_job *job, struct compute_result *result)
{
    struct rng_key key = {
        .seed = (uint64_t)compute->run->config.seed,
        .purpose = RNG_UPDATE,
        .step = job->update.update,
    };
    struct update_draws draws;
    struct batch batch;
    struct rng rng;

    result->update.update = job->update.update;
    batch_of(compute, job, &batch);
    pool_set_active(compute->pool, job->update.active);
    rng_init(&rng, &key);
    draws = update_draws_rng(&rng);
    result->update.finite =
        update_step(compute->update, &batch, &draws, &result->update.stats) == TD_OK;
}

static void run_publish(struct compute *compute, struct compute_job *job, struct compute_result *result)
{
    const struct world_model *model = compute->model;
    size_t bytes = snapshot_bytes(compute), length;

    result->publish.version = job->publish.version;
    result->publish.finite = world_model_finite(model) != 0;
    XXH3_64bits_reset(compute->hash);
    for (size_t at = 0; at < bytes && result->rc == TD_OK; at += length) {
        const char *piece = (const char *)model->parameters + at;

        length = bytes - at < PIECE ? bytes - at : PIECE;
        if (compute->piece != NULL) {
            model_to_half_part(&model->layout, model->parameters, at, length, compute->piece);
            piece = compute->piece;
        }
        XXH3_64bits_update(compute->hash, piece, length);
        result->rc = params_room_write(&job->publish.room, at, piece, length, &result->err);
    }
    result->publish.hash = XXH3_64bits_digest(compute->hash);
}

/* A long write says how far it is. */
struct saying {
    uint64_t next_ms;
};

static int say_progress(void *context, uint64_t done, uint64_t total)
{
    struct saying *saying = context;

    if (clock_ms() >= saying->next_ms) {
        saying->next_ms = clock_ms() + SAY_MS;
        log_info("writing the checkpoint", "done=%.0f%% bytes=%" PRIu64,
                 total > 0 ? 100.0 * (double)done / (double)total : 0.0, total);
    }
    return 0;
}

static void write_save(struct compute *compute, struct resume_save *save, struct compute_result *result)
{
    struct saying saying = {clock_ms() + SAY_MS};
    char folder[FS_PATH_MAX];
    uint64_t start = clock_ns();

    result->rc = run_path(compute->run, "checkpoints", folder, &result->err);
    if (result->rc == TD_OK)
        result->rc = resume_write(folder, save, compute->numbers, (int)compute->run->config.keep_checkpoints,
                                  say_progress, &saying, &result->err);
    result->ms = (double)(clock_ns() - start) * 1e-6;
    resume_save_destroy(&save);
}

static void name_save(const struct resume_save *save, struct compute_result *result)
{
    result->kind = COMPUTE_SAVE;
    result->save.id = save->id;
    result->save.stall_ms = save->stall_ms;
    snprintf(result->save.name, sizeof(result->save.name), "%s", save->name);
}

/* True when the writer will give the result. */
static bool run_save(struct compute *compute, struct compute_job *job, struct compute_result *result)
{
    uint64_t start = clock_ns();
    char token = 0;

    queue_wait(compute->copies, &token, -1); /* the writer has done with the last one */
    name_save(job->save, result);
    result->rc = snapshot_take(compute->numbers, &result->err);
    if (result->rc == TD_OK && compute->copied) {
        job->save->stall_ms = (double)(clock_ns() - start) * 1e-6;
        TD_ASSERT(queue_push(compute->writes, &job->save) == TD_OK);
        return true;
    }
    if (result->rc == TD_OK)
        write_save(compute, job->save, result);
    else
        resume_save_destroy(&job->save);
    result->save.stall_ms = (double)(clock_ns() - start) * 1e-6;
    queue_push(compute->copies, &token);
    return false;
}

static void run_load(struct compute *compute, struct compute_result *result)
{
    checkpoint_t *checkpoint = NULL;
    int rc = TD_OK;
    char token = 0;

    queue_wait(compute->copies, &token, -1); /* what is being written comes first */
    queue_push(compute->copies, &token);
    result->load.progress = calloc(1, sizeof(*result->load.progress));
    result->load.state = NULL;
    if (result->load.progress == NULL)
        rc = error_set(&result->err, TD_ENOMEM, "out of memory to load a checkpoint");
    if (rc == TD_OK)
        rc = resume_open(&checkpoint, compute->run, &result->err);
    if (rc == TD_OK && checkpoint == NULL)
        rc = error_set(&result->err, TD_ENOTFOUND, "there is no checkpoint to go back to");
    if (rc == TD_OK)
        rc = resume_progress(checkpoint, result->load.progress, &result->load.state,
                             &result->load.state_size, &result->err);
    if (rc == TD_OK)
        rc = snapshot_load(checkpoint, compute->model, compute->update, &result->err);
    checkpoint_close(&checkpoint);
    result->rc = rc;
}

static void give(struct compute *compute, const struct compute_result *result)
{
    TD_ASSERT(queue_push(compute->results, result) == TD_OK, "more than %d results", JOBS_MAX);
}

static void *work(void *context)
{
    struct compute *compute = context;
    struct compute_job job;

    while (queue_wait(compute->jobs, &job, -1) == TD_OK) {
        struct compute_result result = {.kind = job.kind};
        uint64_t start = clock_ns();
        bool later = false;

        switch (job.kind) {
        case COMPUTE_MODEL:
            run_model(compute, &job, &result);
            break;
        case COMPUTE_UPDATE:
            run_update(compute, &job, &result);
            break;
        case COMPUTE_PUBLISH:
            run_publish(compute, &job, &result);
            break;
        case COMPUTE_SAVE:
            later = run_save(compute, &job, &result);
            break;
        case COMPUTE_LOAD:
            run_load(compute, &result);
            break;
        }
        result.ms = (double)(clock_ns() - start) * 1e-6;
        if (!later)
            give(compute, &result);
    }
    queue_close(compute->writes);
    return NULL;
}

static void *write_saves(void *context)
{
    struct compute *compute = context;
    struct resume_save *save;
    char token = 0;

    while (queue_wait(compute->writes, &save, -1) == TD_OK) {
        struct compute_result result = {0};

        name_save(save, &result);
        write_save(compute, save, &result);
        queue_push(compute->copies, &token);
        give(compute, &result);
    }
    return NULL;
}

/* --- the loop's side ---------------------------------------------------------- */

static int start_threads(struct compute *compute, struct error *err)
{
    if (pthread_create(&compute->worker, NULL, work, compute) != 0)
        return error_set(err, TD_EIO, "cannot start the compute thread: no memory for it, or too many threads (ulimit -v, -u)");
    compute->worker_running = true;
    if (pthread_create(&compute->writer, NULL, write_saves, compute) != 0)
        return error_set(err, TD_EIO, "cannot start the checkpoint thread: no memory for it, or too many threads (ulimit -v, -u)");
    compute->writer_running = true;
    return TD_OK;
}

int compute_create(compute_t **out, const struct run *run, int threads, void (*wake)(void *context),
                   void *context, struct error *err)
{
    compute_t *compute = calloc(1, sizeof(*compute));
    char token = 0;
    int rc;

    *out = NULL;
    if (compute == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    compute->run = run;
    compute->threads = threads;
    if (queue_create(&compute->jobs, JOBS_MAX, sizeof(struct compute_job), NULL, NULL) != TD_OK ||
        queue_create(&compute->results, JOBS_MAX, sizeof(struct compute_result), wake, context) != TD_OK ||
        queue_create(&compute->writes, JOBS_MAX, sizeof(struct resume_save *), NULL, NULL) != TD_OK ||
        queue_create(&compute->copies, 1, sizeof(token), NULL, NULL) != TD_OK ||
        (compute->hash = XXH3_createState()) == NULL) {
        compute_destroy(&compute);
        return error_set(err, TD_ENOMEM, "out of memory");
    }
    queue_push(compute->copies, &token);
    if ((rc = start_threads(compute, err)) != TD_OK) {
        compute_destroy(&compute);
        return rc;
    }
    *out = compute;
    return TD_OK;
}

static void drop_results(struct compute *compute)
{
    struct compute_result result;

    while (queue_pop(compute->results, &result) == TD_OK)
        if (result.kind == COMPUTE_LOAD) {
            free(result.load.progress);
            free(result.load.state);
        }
}

void compute_destroy(compute_t **out)
{
    compute_t *compute = *out;

    if (compute == NULL)
        return;
    if (compute->jobs != NULL)
        queue_close(compute->jobs);
    if (compute->worker_running)
        pthread_join(compute->worker, NULL);
    else if (compute->writes != NULL)
        queue_close(compute->writes);
    if (compute->writer_running)
        pthread_join(compute->writer, NULL);
    if (compute->results != NULL)
        drop_results(compute);
    queue_destroy(&compute->jobs);
    queue_destroy(&compute->results);
    queue_destroy(&compute->writes);
    queue_destroy(&compute->copies);
    snapshot_destroy(&compute->numbers);
    update_destroy(&compute->update);
    world_model_destroy(&compute->model);
    pool_destroy(&compute->pool);
    task_set_release(&compute->tasks);
    spill_close(&compute->snapshots);
    XXH3_freeState(compute->hash);
    free(compute->piece);
    free(compute->gather);
    free(compute);
    *out = NULL;
}

void compute_push(compute_t *compute, const struct compute_job *job)
{
    TD_ASSERT(queue_push(compute->jobs, job) == TD_OK, "more than %d jobs", JOBS_MAX);
}

bool compute_pop(compute_t *compute, struct compute_result *result)
{
    return queue_pop(compute->results, result) == TD_OK;
}
