#include "tests/support/cluster_real.h"

#include "tests/support/test.h"

static void set(struct config *config, const char *word)
{
    struct error err = {0};

    assert_ok(config_set(config, word, &err), err);
}

void real_run_dir(const struct cluster *cluster, char out[FS_PATH_MAX])
{
    snprintf(out, FS_PATH_MAX, "%s/run", cluster->folder);
}

struct config real_config(const struct cluster *cluster)
{
    static const char *const tiny[] = {"enc_dim=16",     "mlp_dim=16",   "latent_dim=16", "num_samples=16",
                                       "num_elites=4",   "num_pi_trajs=4", "iterations=2", "num_bins=11",
                                       "num_q=3",        "seed=5",       "keep_checkpoints=3",
                                       "lr=0.01",        "tau=0.02",     "checkpoint_every=1"};
    const struct cluster_options *options = &cluster->options;
    struct config config;
    struct error err = {0};

    config_init(&config);
    for (size_t i = 0; i < TD_LEN(tiny); i++)
        set(&config, tiny[i]);
    snprintf(strchr(options->task, ',') != NULL ? config.tasks : config.task, sizeof(config.task), "%s", options->task);
    snprintf(config.work_dir, sizeof(config.work_dir), "%s/run", cluster->folder);
    config.lockstep = options->lockstep;
    config.episodic = options->episodic;
    config.actors = options->lockstep ? 1 : options->actors;
    config.steps = (int64_t)options->steps;
    config.seed_steps = (int64_t)options->seed_steps;
    config.eval_freq = (int64_t)options->eval_freq;
    config.eval_episodes = options->eval_episodes;
    config.batch_size = options->batch;
    config.horizon = options->horizon;
    config.buffer_size = (int64_t)options->buffer_size;
    config.checkpoint_steps = (int64_t)options->checkpoint_steps;
    assert_ok(config_check(&config, &err), err);
    return config;
}

/* --- the learner ------------------------------------------------------------ */

static void wake(void *done)
{
    sem_post(done);
}

static void await(struct real_learner *real, const struct compute_job *job, struct compute_result *result)
{
    compute_push(real->compute, job);
    do
        sem_wait(&real->done);
    while (!compute_pop(real->compute, result));
    assert_int_equal(result->kind, job->kind);
}

bool real_open(struct real_learner **out, struct cluster *cluster, struct error *err)
{
    struct real_learner *real = calloc(1, sizeof(*real));
    struct config config = real_config(cluster);
    bool given[256] = {false}, open;
    int count;

    assert_non_null(real);
    config_options(&count);
    assert_true(count <= (int)TD_LEN(given));
    for (count = 0; cluster->words[count] != NULL; count++)
        ;
    assert_ok(config_parse(&config, count, (char **)(uintptr_t)cluster->words, given, err), *err);
    sem_init(&real->done, 0, 0);
    open = run_open(&real->run, &config, given, 0, NULL, err) == TD_OK;
    if (!open)
        real->run.lock = -1;
    if (open && !real->run.finished)
        open = resume_open(&real->checkpoint, &real->run, err) == TD_OK &&
               (real->checkpoint == NULL ||
                resume_progress(real->checkpoint, &real->progress, &real->state, &real->state_size, err) == TD_OK) &&
               compute_create(&real->compute, &real->run, 1, wake, &real->done, err) == TD_OK;
    if (open)
        open = env_task_set(&real->tasks, &real->run.config, err) == TD_OK;
    real->resumed = real->checkpoint != NULL;
    *out = real;
    return open;
}

void real_close(struct real_learner **out)
{
    struct real_learner *real = *out;

    if (real == NULL)
        return;
    compute_destroy(&real->compute);
    checkpoint_close(&real->checkpoint);
    resume_save_destroy(&real->save);
    task_set_release(&real->tasks);
    free(real->state);
    if (real->run.lock >= 0)
        run_close(&real->run);
    sem_destroy(&real->done);
    free(real);
    *out = NULL;
}

size_t real_model(struct real_learner *real, const struct message_spec *spec, const spill_t **file, struct error *err)
{
    struct compute_job job = {.kind = COMPUTE_MODEL};
    struct compute_result result;

    job.model.spec = *spec;
    job.model.checkpoint = real->checkpoint;
    real->checkpoint = NULL;
    await(real, &job, &result);
    *err = result.err;
    *file = result.model.snapshots;
    return result.rc == TD_OK ? result.model.snapshot_bytes : 0;
}

void real_update(struct real_learner *real, uint64_t update, const struct compute_batch *batch, uint32_t parts)
{
    struct compute_job job = {.kind = COMPUTE_UPDATE};
    struct compute_result result;

    job.update.update = update;
    job.update.batch = batch;
    job.update.parts = parts;
    job.update.active = 1;
    await(real, &job, &result);
    assert_ok(result.rc, result.err);
    assert_true(result.update.finite && result.update.update == update);
}

uint64_t real_publish(struct real_learner *real, const struct command_publish *publish)
{
    struct compute_job job = {.kind = COMPUTE_PUBLISH};
    struct compute_result result;

    job.publish.room = publish->room;
    job.publish.version = publish->version;
    await(real, &job, &result);
    assert_ok(result.rc, result.err);
    assert_true(result.publish.finite);
    return result.publish.hash;
}

void real_save(struct real_learner *real, const struct command_save *command)
{
    assert_null(real->save);
    real->save = resume_save_create(&real->run, command, command->progress->step);
    assert_non_null(real->save);
}

bool real_writing;

bool real_write(struct real_learner *real, struct error *err)
{
    struct compute_job job = {.kind = COMPUTE_SAVE};
    struct compute_result result;

    job.save = real->save;
    real->save = NULL;
    real_writing = true;
    await(real, &job, &result);
    real_writing = false;
    *err = result.err;
    return result.rc == TD_OK;
}

void real_load(struct real_learner *real)
{
    struct compute_job job = {.kind = COMPUTE_LOAD};
    struct compute_result result;

    await(real, &job, &result);
    assert_ok(result.rc, result.err);
    free(real->state);
    real->progress = *result.load.progress;
    real->state = result.load.state;
    real->state_size = result.load.state_size;
    free(result.load.progress);
}

/* --- what is left ----------------------------------------------------------- */

static void no_damage(void *context, const char *name, const char *why)
{
    (void)context;
    fail_msg("checkpoint %s was passed over: %s", name, why);
}

void real_digest(struct cluster *cluster, struct digest *digest)
{
    struct store_config shard = {.any_shard = true, .reading = true};
    struct cluster_node *node = cluster_shard(cluster, 0);
    char dir[FS_PATH_MAX], folder[FS_PATH_MAX];
    struct progress progress;
    checkpoint_t *checkpoint;
    struct error err = {0};
    store_t *store;

    memset(digest, 0, sizeof(*digest));
    real_run_dir(cluster, dir);
    assert_int_equal(fs_join(folder, dir, "checkpoints", NULL), TD_OK);
    assert_ok(checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ANY, no_damage, NULL, &err), err);
    assert_ok(digest_checkpoint(digest, checkpoint, &err), err);
    assert_ok(progress_from_json(&progress, checkpoint_manifest(checkpoint)->progress, &err), err);
    checkpoint_close(&checkpoint);
    cluster_kill(cluster, node, UINT64_MAX);
    shard_host_folder(cluster, node, dir, sizeof(dir));
    shard.dir = dir;
    assert_ok(store_open(&store, &shard, &err), err);
    assert_ok(digest_replay(digest, store, progress.window, progress.episode, &err), err);
    store_close(&store);
}

/* --- an actor --------------------------------------------------------------- */

static const struct worker_result *next(struct real_actor *real)
{
    const struct worker_result *result;

    while ((result = worker_next(real->worker)) == NULL)
        sem_wait(&real->done);
    if (result->kind == WORKER_FAILED)
        fail_msg("the worker failed: %s", result->err.text);
    return result;
}

struct real_actor *real_actor_open(const struct cluster *cluster, const struct worker_result **ready)
{
    struct real_actor *real = calloc(1, sizeof(*real));
    struct worker_options options = {.config = real_config(cluster), .threads = 1, .wake = wake};
    char dir[FS_PATH_MAX], path[FS_PATH_MAX];
    struct error err = {0};

    assert_non_null(real);
    real_run_dir(cluster, dir); /* what a Welcome tells */
    assert_int_equal(fs_join(path, dir, "config.yaml", NULL), TD_OK);
    assert_ok(config_load(&options.config, path, NULL, &err), err);
    sem_init(&real->done, 0, 0);
    options.context = &real->done;
    assert_ok(worker_create(&real->worker, &options, &err), err);
    *ready = next(real);
    assert_int_equal((*ready)->kind, WORKER_READY);
    return real;
}

void real_actor_close(struct real_actor **out)
{
    struct real_actor *real = *out;

    if (real == NULL)
        return;
    assert_true(worker_stop(real->worker, 20000));
    worker_destroy(&real->worker);
    sem_destroy(&real->done);
    free(real);
    *out = NULL;
}

const struct worker_result *real_actor_do(struct real_actor *real, const struct session_output *output)
{
    const struct worker_result *result;
    struct error err = {0};

    assert_ok(worker_command(real->worker, output, &err), err);
    result = next(real);
    assert_int_equal(result->kind, output->kind);
    return result;
}
