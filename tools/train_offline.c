#include "tools/train_offline.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/env/tasks.h"
#include "common/metrics/tensorboard.h"
#include "common/model/dims.h"
#include "common/tensor/gemm.h"
#include "common/util/clock.h"
#include "common/util/cores.h"
#include "learner/csv.h"
#include "learner/dataset.h"
#include "learner/replay/sampler.h"
#include "learner/resume.h"
#include "learner/training_memory.h"
#include "tools/console.h"
#include "tools/evaluation.h"

#define LOG_EVERY 10000u /* iterations, as the reference */
#define EVAL_FRONT 6     /* columns of eval.csv before those of the tasks */
#define NAME_BYTES (TASK_NAME_MAX + 24)

struct offline {
    struct run run;
    struct task_set tasks;
    char dir[FS_PATH_MAX]; /* of the store */
    store_t *store;
    sampler_t *sampler;
    struct row_schema schema;
    char *slices; /* of a batch */
    pool_t *pool;
    world_model_t *model;
    update_t *update;
    snapshot_t *numbers;
    struct progress *progress;
    csv_t *train, *eval;
    tensorboard_t *events; /* or NULL */
    char (*names)[NAME_BYTES]; /* of eval.csv's columns */
    double *values;
    struct evaluation_episode *episodes;
    bool *skip;            /* tasks whose environment is not here */
    uint64_t iteration;    /* the next; so many updates are done */
    uint64_t start_ms, saved_ms;
    uint64_t diverged;
};

static volatile sig_atomic_t asked_to_stop;

static void on_signal(int number)
{
    (void)number;
    asked_to_stop = 1;
}

/* --- the data -------------------------------------------------------------- */

static int check_schema(const struct offline *offline, struct error *err)
{
    const struct task_set *tasks = &offline->tasks;

    if (offline->schema.obs_type != OBS_STATE)
        return error_set(err, TD_EINVAL, "%s holds frames: offline training is of states", offline->dir);
    if ((int)offline->schema.obs_dim == tasks->obs_dim && (int)offline->schema.action_dim == tasks->action_dim)
        return TD_OK;
    return error_set(err, TD_EINVAL, "%s holds %u observations and %u actions, the tasks of this run have %d and %d: name "
                     "the set's tasks, task=mt80 or tasks=...", offline->dir, offline->schema.obs_dim,
                     offline->schema.action_dim, tasks->obs_dim, tasks->action_dim);
}

/* Every episode is of a task that this run has. */
static int check_tasks(const struct offline *offline, struct error *err)
{
    const struct store_counts *counts = store_counts(offline->store);

    for (uint64_t id = counts->first; id < store_committed(offline->store); id++) {
        uint32_t task = episode_task(store_episode(offline->store, id)->flags);

        if (task >= (uint32_t)offline->tasks.count)
            return error_set(err, TD_EINVAL, "%s has episodes of task %u, this run has %d tasks: name the set's tasks",
                             offline->dir, task, offline->tasks.count);
    }
    return TD_OK;
}

static int check_whole(const struct offline *offline, struct error *err)
{
    const struct dataset_set *set;
    struct dataset dataset;
    int rc = dataset_read(&dataset, offline->dir, err);

    if (rc == TD_OK && (rc = dataset_complete(&dataset, offline->store, offline->dir, err)) == TD_OK &&
        (set = dataset_set_like(&dataset.schema, dataset.episode_rows)) != NULL &&
        store_committed(offline->store) < set->episodes)
        printf("warning: %s has %" PRIu64 " episodes of %" PRIu64 "\n", set->name, store_committed(offline->store),
               set->episodes);
    dataset_release(&dataset);
    return rc;
}

static int open_data(struct offline *offline, struct error *err)
{
    const struct config *config = &offline->run.config;
    struct store_config stored = {.dir = offline->dir, .any_shard = true, .reading = true, .lock_wait_ms = 2000,
                                  .force = config->force};
    struct sampler_config how = {.horizon = (uint32_t)config->horizon, .capacity = UINT64_MAX,
                                 .seed = (uint64_t)config->seed, .tasks = (uint32_t)offline->tasks.count};
    int rc;

    if ((rc = dataset_find(offline->dir, config->data_dir, err)) != TD_OK ||
        (rc = store_open(&offline->store, &stored, err)) != TD_OK)
        return rc;
    offline->schema = store_identity(offline->store)->schema;
    if ((rc = check_whole(offline, err)) != TD_OK || (rc = check_schema(offline, err)) != TD_OK ||
        (rc = check_tasks(offline, err)) != TD_OK)
        return rc;
    if ((rc = sampler_create(&offline->sampler, offline->store, &how)) != TD_OK ||
        (offline->slices = malloc(sampler_bytes(offline->sampler, (uint32_t)config->batch_size))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the list of episodes");
    if (sampler_window(offline->sampler, SAMPLER_NEWEST)->episodes == 0)
        return error_set(err, TD_EINVAL, "%s has no episode of more than %d rows", offline->dir, (int)config->horizon);
    return TD_OK;
}

/* --- the model ------------------------------------------------------------- */

static uint64_t longest_episode(const struct task_set *tasks)
{
    uint64_t longest = 0;

    for (int i = 0; i < tasks->count; i++)
        if (tasks->task[i].episode_length > longest)
            longest = tasks->task[i].episode_length;
    return longest;
}

/* No actors, and checkpoints are written from where the numbers lie: the batch and a planner per thread are beside them. */
static int check_memory(const struct offline *offline, const struct model_dims *dims, const struct update_config *update,
                        int threads, struct error *err)
{
    const struct config *config = &offline->run.config;
    struct training_beside beside = {.other = sampler_bytes(offline->sampler, (uint32_t)config->batch_size)};
    struct training_memory memory;
    struct mppi_config plan;
    char text[TRAINING_MEMORY_TEXT];
    size_t bytes;
    int rc;

    mppi_config_init(&plan, config, offline->tasks.action_dim, longest_episode(&offline->tasks));
    if ((rc = mppi_measure(&bytes, &plan, dims, 1, 1, err)) != TD_OK)
        return rc;
    if (strcmp(config->evaluator, "off") != 0)
        beside.other += (uint64_t)bytes * (uint64_t)threads;
    if ((rc = training_memory_plan(&memory, dims, update, threads, &beside, err)) != TD_OK)
        return rc;
    training_memory_text(&memory, text);
    printf("memory for training, in MiB: %s\n", text);
    return training_memory_check(&memory, err);
}

static int make_model(struct offline *offline, struct error *err)
{
    const struct config *config = &offline->run.config;
    int threads = config->threads > 0 ? (int)config->threads : cores_available(), rc;
    struct update_config update;
    struct model_dims dims;

    update_config_init(&update, config, longest_episode(&offline->tasks));
    if ((rc = model_dims_init_tasks(&dims, config, &offline->tasks, err)) != TD_OK ||
        (rc = check_memory(offline, &dims, &update, threads, err)) != TD_OK ||
        (rc = gemm_start(threads + 1, err)) != TD_OK || (rc = pool_create(&offline->pool, threads, err)) != TD_OK ||
        (rc = world_model_create(&offline->model, &dims, true, err)) != TD_OK)
        return rc;
    if (offline->tasks.multitask)
        world_model_set_tasks(offline->model, &offline->tasks);
    if ((rc = update_create(&offline->update, offline->model, &update, offline->pool, err)) != TD_OK)
        return rc;
    world_model_init(offline->model, (uint64_t)config->seed);
    return snapshot_create(&offline->numbers, offline->model, offline->update, SNAPSHOT_LIVE, NULL, err);
}

static int go_on(struct offline *offline, struct error *err)
{
    checkpoint_t *checkpoint = NULL;
    int rc = resume_open(&checkpoint, &offline->run, err);

    if (rc == TD_OK && checkpoint != NULL) {
        offline->iteration = checkpoint_manifest(checkpoint)->updates;
        rc = snapshot_load(checkpoint, offline->model, offline->update, err);
        printf("going on at iteration %" PRIu64 " from %s\n", offline->iteration, checkpoint_path(checkpoint));
    }
    checkpoint_close(&checkpoint);
    return rc;
}

static int save(struct offline *offline, bool final, struct error *err)
{
    struct command_save command = {.id = offline->iteration, .kind = final ? SAVE_FINAL : SAVE_ORDINARY,
                                   .progress = offline->progress};
    struct resume_save *what;
    char folder[FS_PATH_MAX];
    int rc;

    offline->progress->updates = offline->iteration;
    offline->progress->learner_epoch = offline->run.epoch;
    offline->saved_ms = clock_ms();
    if ((rc = run_path(&offline->run, "checkpoints", folder, err)) != TD_OK)
        return rc;
    if (snapshot_take(offline->numbers, err) != TD_OK)
        return error_set(err, TD_EDIVERGED, "the parameters are not finite: the last checkpoint stays the newest");
    if ((what = resume_save_create(&offline->run, &command, offline->iteration)) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a checkpoint");
    rc = resume_write(folder, what, offline->numbers, (int)offline->run.config.keep_checkpoints, NULL, NULL, err);
    resume_save_destroy(&what);
    return rc;
}

/* --- what is written down --------------------------------------------------- */

static const char *const train_columns[] = {"step", "elapsed_time",
#define UPDATE_STAT(name) #name,
                                            UPDATE_STATS(UPDATE_STAT)
#undef UPDATE_STAT
};

/* Lines of this iteration and later ones come again. */
static int open_csv(struct offline *offline, csv_t **out, const char *name, const char *const *columns, int count,
                    struct error *err)
{
    struct csv_cut cut = {0};
    char path[FS_PATH_MAX];
    int rc = run_path(&offline->run, name, path, err);

    if (rc == TD_OK)
        rc = csv_open(out, path, columns, count, offline->iteration - 1, &cut, err);
    if (rc == TD_OK && cut.translated)
        printf("%s was begun by an earlier version with other columns: taken over, as it was it is %s.old\n", name, name);
    if (rc == TD_OK && cut.damaged > 0)
        printf("%s had %d damaged lines: as it was it is %s.damaged\n", name, cut.damaged, name);
    return rc;
}

/* What was written for this iteration and later ones, by a start that was killed, is void. */
static int open_events(struct offline *offline, struct error *err)
{
    int rc = offline->run.config.tensorboard ? tensorboard_open(&offline->events, offline->run.dir, err) : TD_OK;

    if (rc == TD_OK && offline->events != NULL && offline->iteration > 0)
        rc = tensorboard_purge(offline->events, offline->iteration, err);
    return rc;
}

/* Under the reference's keys: its category, and `iteration` where a csv file says step. */
static int write_event(struct offline *offline, const char *name, double value, struct error *err)
{
    char tag[NAME_BYTES + 16];
    struct tensorboard_scalar scalar = {tag, value};

    snprintf(tag, sizeof(tag), "pretrain/%s", strcmp(name, "step") == 0 ? "iteration" : name);
    return tensorboard_scalars(offline->events, offline->iteration, &scalar, 1, err);
}

static int open_eval(struct offline *offline, struct error *err)
{
    static const char *const front[EVAL_FRONT] = {"step", "episode_reward", "episode_reward+avg_dmcontrol",
                                                  "episode_reward+avg_metaworld", "episode_success+avg_metaworld",
                                                  "normalized_score"}; /* the last as online: the tasks follow it */
    int tasks = offline->tasks.count, count = EVAL_FRONT + 2 * tasks, rc;
    const char **columns = calloc((size_t)count, sizeof(*columns));

    offline->names = calloc((size_t)count, sizeof(*offline->names));
    offline->values = calloc((size_t)count, sizeof(*offline->values));
    offline->skip = calloc((size_t)tasks, sizeof(*offline->skip));
    offline->episodes = calloc((size_t)offline->run.config.eval_episodes, sizeof(*offline->episodes));
    if (columns == NULL || offline->names == NULL || offline->values == NULL || offline->skip == NULL ||
        offline->episodes == NULL) {
        free(columns);
        return error_set(err, TD_ENOMEM, "out of memory for evaluations");
    }
    for (int i = 0; i < count; i++) {
        const char *task = i < EVAL_FRONT ? "" : offline->tasks.task[(i - EVAL_FRONT) / 2].name;

        snprintf(offline->names[i], NAME_BYTES, "%s%s",
                 i < EVAL_FRONT ? front[i] : (i - EVAL_FRONT) % 2 == 0 ? "episode_reward+" : "episode_success+", task);
        columns[i] = offline->names[i];
    }
    rc = open_csv(offline, &offline->eval, "eval.csv", columns, count, err);
    free(columns);
    return rc;
}

static int open_files(struct offline *offline, struct error *err)
{
    int rc = TD_OK;

    if (offline->run.config.save_csv)
        rc = open_csv(offline, &offline->train, "train.csv", train_columns, (int)TD_LEN(train_columns), err);
    if (rc == TD_OK)
        rc = open_eval(offline, err);
    return rc == TD_OK ? open_events(offline, err) : rc;
}

static double seconds(const struct offline *offline)
{
    return (double)(clock_ms() - offline->start_ms) * 1e-3;
}

static int log_losses(struct offline *offline, const struct update_stats *stats, struct error *err)
{
    double values[] = {(double)offline->iteration, seconds(offline),
#define UPDATE_STAT(name) (double)stats->name,
                       UPDATE_STATS(UPDATE_STAT)
#undef UPDATE_STAT
    };
    int rc = TD_OK;

    printf(" pretrain      I: %-10" PRIu64 "   loss: %-10.4g   T: %.0f s\n", offline->iteration, (double)stats->total_loss,
           seconds(offline));
    fflush(stdout);
    for (size_t i = 0; i < TD_LEN(train_columns) && rc == TD_OK; i++)
        rc = write_event(offline, train_columns[i], values[i], err);
    return rc != TD_OK || offline->train == NULL ? rc : csv_append(offline->train, values, err);
}

/* --- evaluation ------------------------------------------------------------ */

static int evaluate_task(struct offline *offline, int index, double *reward, double *success, struct error *err)
{
    const struct config *config = &offline->run.config;
    const struct task *task = &offline->tasks.task[index];
    struct evaluation_options options = {.task = task->name, .index = (uint32_t)index,
                                         .env = env_options(config->obs, config->render), .seed = (uint64_t)config->seed,
                                         .episodes = (int)config->eval_episodes, .model = offline->model};
    struct env_spec spec;
    int rc;

    *reward = *success = NAN;
    if (offline->skip[index])
        return TD_OK;
    if (env_find_with(task->name, &options.env, &spec, err) != TD_OK) {
        printf("%s is not evaluated: %s\n", task->name, err->text);
        offline->skip[index] = true;
        return TD_OK;
    }
    options.threads = config->threads > 0 ? (int)config->threads : cores_available();
    mppi_config_init(&options.plan, config, offline->tasks.action_dim, task->episode_length);
    if ((rc = evaluation_run(&options, offline->episodes, NULL, NULL, err)) != TD_OK)
        return rc;
    *reward = *success = 0;
    for (int i = 0; i < options.episodes; i++) {
        *reward += offline->episodes[i].reward / options.episodes;
        *success += offline->episodes[i].success ? 1.0 / options.episodes : 0;
    }
    return TD_OK;
}

/* Means over the tasks that were evaluated; NaN of none. */
struct means {
    double reward, score, control, manipulation, success;
    int tasks, controls, manipulations;
};

static void add_task(struct means *means, const char *name, double reward, double success)
{
    bool manipulation = strncmp(name, "mw-", 3) == 0;

    if (isnan(reward))
        return;
    means->reward += reward;
    means->score += manipulation ? 100 * success : reward / 10;
    means->control += manipulation ? 0 : reward;
    means->manipulation += manipulation ? reward : 0;
    means->success += manipulation ? success : 0;
    means->controls += !manipulation;
    means->manipulations += manipulation;
    means->tasks++;
}

static int evaluate(struct offline *offline, struct error *err)
{
    struct means means = {0};
    double *values = offline->values;
    char line[CONSOLE_LINE_MAX];
    int rc = TD_OK;

    for (int i = 0; i < offline->tasks.count && !asked_to_stop; i++) {
        double *of = values + EVAL_FRONT + 2 * (size_t)i;

        if ((rc = evaluate_task(offline, i, &of[0], &of[1], err)) != TD_OK)
            return rc;
        add_task(&means, offline->tasks.task[i].name, of[0], of[1]);
    }
    if (asked_to_stop || means.tasks == 0)
        return TD_OK;
    values[0] = (double)offline->iteration;
    values[1] = means.reward / means.tasks;
    values[2] = means.controls > 0 ? means.control / means.controls : NAN;
    values[3] = means.manipulations > 0 ? means.manipulation / means.manipulations : NAN;
    values[4] = means.manipulations > 0 ? means.success / means.manipulations : NAN;
    values[5] = means.score / means.tasks;
    printf(" eval          I: %-10" PRIu64 "   R: %-10.1f   %d of %d tasks evaluated\n%s\n", offline->iteration, values[1],
           means.tasks, offline->tasks.count, console_format_tasks(line, &offline->tasks, values + EVAL_FRONT - 1));
    fflush(stdout);
    for (int i = 1; i < EVAL_FRONT + 2 * offline->tasks.count && rc == TD_OK; i++)
        rc = write_event(offline, offline->names[i], values[i], err);
    return rc == TD_OK && offline->run.config.save_csv ? csv_append(offline->eval, values, err) : rc;
}

/* --- the loop -------------------------------------------------------------- */

static struct batch batch_of(const struct offline *offline)
{
    size_t h = (size_t)offline->run.config.horizon, b = (size_t)offline->run.config.batch_size;
    struct batch batch = {.obs = (const float *)(const void *)offline->slices};

    batch.action = batch.obs + (h + 1) * b * offline->schema.obs_dim;
    batch.reward = batch.action + h * b * offline->schema.action_dim;
    batch.terminated = batch.reward + h * b;
    batch.task = (const uint32_t *)(const void *)(batch.terminated + h * b);
    return batch;
}

static int update_once(struct offline *offline, struct update_stats *stats, struct error *err)
{
    struct rng_key key = {.seed = (uint64_t)offline->run.config.seed, .purpose = RNG_UPDATE, .step = offline->iteration};
    struct batch batch = batch_of(offline);
    struct update_draws draws;
    struct rng rng;

    if (sampler_draw(offline->sampler, offline->iteration, (uint32_t)offline->run.config.batch_size, offline->slices) !=
        TD_OK)
        return error_set(err, TD_ECORRUPT, "no episode of %s is whole any more: `tdmpc2 replay verify` tells more",
                         offline->dir);
    rng_init(&rng, &key);
    draws = update_draws_rng(&rng);
    if (update_step(offline->update, &batch, &draws, stats) == TD_OK) {
        offline->diverged = 0;
        return TD_OK;
    }
    if (++offline->diverged < 100)
        return TD_OK;
    return error_set(err, TD_EDIVERGED, "the last 100 updates were not finite: lower lr");
}

/* The reference's iteration: an update, then what is due at its number. */
static int iterate(struct offline *offline, struct error *err)
{
    const struct config *config = &offline->run.config;
    uint64_t i = offline->iteration;
    bool due = i % (uint64_t)config->eval_freq == 0;
    struct update_stats stats;
    int rc = update_once(offline, &stats, err);

    if (rc == TD_OK && (due || i % LOG_EVERY == 0))
        rc = log_losses(offline, &stats, err);
    if (rc == TD_OK && due && strcmp(config->evaluator, "off") != 0 && (i > 0 || config->eval_first))
        rc = evaluate(offline, err);
    offline->iteration++;
    if (rc == TD_OK && ((due && i > 0) || (double)(clock_ms() - offline->saved_ms) >= 1e3 * config->checkpoint_every))
        rc = save(offline, false, err);
    return rc;
}

static int loop(struct offline *offline, struct error *err)
{
    uint64_t steps = (uint64_t)offline->run.config.steps;
    int rc = TD_OK;

    offline->start_ms = offline->saved_ms = clock_ms();
    while (rc == TD_OK && offline->iteration < steps && !asked_to_stop)
        rc = iterate(offline, err);
    if (rc != TD_OK)
        return rc;
    if ((rc = save(offline, offline->iteration >= steps, err)) == TD_OK)
        printf("%s at iteration %" PRIu64 " of %" PRIu64 ": %s\n", offline->iteration >= steps ? "finished" : "stopped",
               offline->iteration, steps, offline->run.dir);
    return rc;
}

static void release(struct offline *offline)
{
    csv_close(&offline->train);
    csv_close(&offline->eval);
    tensorboard_close(&offline->events);
    snapshot_destroy(&offline->numbers);
    update_destroy(&offline->update);
    world_model_destroy(&offline->model);
    pool_destroy(&offline->pool);
    sampler_destroy(&offline->sampler);
    store_close(&offline->store);
    task_set_release(&offline->tasks);
    free(offline->progress);
    free(offline->slices);
    free(offline->names);
    free(offline->values);
    free(offline->episodes);
    free(offline->skip);
    run_close(&offline->run);
}

static int prepare(struct offline *offline, struct error *err)
{
    struct message_spec *spec;
    int rc;

    if ((offline->progress = calloc(1, sizeof(*offline->progress))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if ((rc = env_task_set(&offline->tasks, &offline->run.config, err)) != TD_OK || (rc = open_data(offline, err)) != TD_OK)
        return rc;
    spec = &offline->progress->spec;
    *spec = (struct message_spec){.obs_type = OBS_STATE, .obs_dim = offline->schema.obs_dim,
                                  .action_dim = offline->schema.action_dim,
                                  .episode_length = (uint32_t)longest_episode(&offline->tasks),
                                  .tasks = offline->tasks.multitask ? (uint32_t)offline->tasks.count : 0};
    printf("training offline in %s: %s, %" PRIu64 " rows of %" PRIu64 " episodes in %s\n", offline->run.dir,
           config_tasks(&offline->run.config), store_counts(offline->store)->held_rows, store_committed(offline->store),
           offline->dir);
    if ((rc = make_model(offline, err)) != TD_OK || (rc = go_on(offline, err)) != TD_OK)
        return rc;
    return open_files(offline, err);
}

int train_offline(const struct config *fresh, const bool *given, struct error *err)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct offline *offline = calloc(1, sizeof(*offline));
    int rc;

    if (offline == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    offline->run.lock = -1;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if ((rc = run_open(&offline->run, fresh, given, RUN_LOCK_WAIT_MS, stdout, err)) == TD_OK &&
        (rc = prepare(offline, err)) == TD_OK)
        rc = loop(offline, err);
    release(offline);
    free(offline);
    return rc;
}
