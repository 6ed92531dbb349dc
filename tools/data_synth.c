/*
 * A data set that was made up: the layout, the lengths and the shares of the tasks of mt30 or mt80, values in the
 * range of real ones. Every number is drawn by its place, so columns can be written one after the other.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/model/task_set.h"
#include "common/util/config.h"
#include "common/util/rng.h"
#include "tools/data.h"
#include "tools/data_chunk_write.h"

#define COMMIT_BYTES ((uint64_t)64 << 20)

struct synth {
    const struct data_synth *given;
    const struct dataset_set *set;
    struct task_set tasks;
    struct row_schema schema;
    uint32_t episode_rows;
    uint64_t episodes, first; /* first: of the chunk under way */
    char *rows;
};

/* Which task the share of the set before this episode belongs to. */
static uint32_t task_of(const struct synth *synth, uint64_t episode)
{
    uint64_t place = episode * synth->set->episodes / synth->episodes, of_task;
    int task = 0;

    for (; place >= (of_task = dataset_set_episodes(synth->set, task)); task++)
        place -= of_task;
    return (uint32_t)task;
}

static struct rng stream(const struct synth *synth, uint64_t episode, enum chunk_column column)
{
    struct rng_key key = {.seed = synth->given->seed, .purpose = RNG_TEST, .slot = (uint32_t)column, .step = episode};
    struct rng rng;

    rng_init(&rng, &key);
    return rng;
}

/* Observations wander from where they began; a row is the one before it and a step. */
static void draw_obs(struct synth *synth, uint64_t episode, const struct task *task)
{
    struct rng rng = stream(synth, episode, CHUNK_OBS);
    size_t stride = row_stride(&synth->schema);
    float *before = NULL;

    for (uint32_t i = 0; i < synth->episode_rows; i++) {
        float *obs = row_obs(synth->rows + i * stride);

        rng_uniform(&rng, obs, (size_t)task->obs_dim, -1, 1);
        for (int k = 0; k < task->obs_dim && before != NULL; k++)
            obs[k] = 0.95f * before[k] + 0.2f * obs[k];
        before = obs;
    }
}

static void draw_actions(struct synth *synth, uint64_t episode, const struct task *task)
{
    struct rng rng = stream(synth, episode, CHUNK_ACTION);
    size_t stride = row_stride(&synth->schema);

    for (uint32_t i = 1; i < synth->episode_rows; i++)
        rng_uniform(&rng, row_action(synth->rows + i * stride, &synth->schema), (size_t)task->action_dim, -1, 1);
}

/* The rows of an episode: their heads, and the columns that are asked for. */
static void draw_episode(struct synth *synth, uint64_t episode, bool obs, bool action)
{
    uint32_t index = task_of(synth, episode);
    const struct task *task = &synth->tasks.task[index];
    struct rng rng = stream(synth, episode, CHUNK_REWARD);
    size_t stride = row_stride(&synth->schema);
    float most = index < 30 ? 2.0f : 10.0f; /* two steps of dm_control; Meta-World's scale */

    memset(synth->rows, 0, synth->episode_rows * stride);
    for (uint32_t i = 0; i < synth->episode_rows; i++) {
        struct row_head head = {.task = index, .flags = i == 0 ? ROW_FIRST : 0u};

        if (i > 0)
            head.reward = most * rng_float(&rng);
        if (i > 0 && i == synth->episode_rows - 1)
            head.flags |= ROW_TRUNCATED;
        memcpy(synth->rows + i * stride, &head, sizeof(head));
    }
    if (obs)
        draw_obs(synth, episode, task);
    if (action)
        draw_actions(synth, episode, task);
}

/* --- as chunks ------------------------------------------------------------- */

static const void *rows_of(void *context, uint64_t episode, enum chunk_column column, struct error *err)
{
    struct synth *synth = context;

    (void)err;
    if (synth->given->progress != NULL)
        replay_progress(synth->given->progress, (synth->first + episode) * 4 + (uint64_t)column, synth->episodes * 4);
    draw_episode(synth, synth->first + episode, column == CHUNK_OBS, column == CHUNK_ACTION);
    return synth->rows;
}

static int write_chunks(struct synth *synth, struct error *err)
{
    uint32_t chunks = synth->given->chunks;
    int rc = fs_mkdirs(synth->given->dir, 0755, err);

    for (uint32_t i = 0; i < chunks && rc == TD_OK; i++) {
        uint64_t end = synth->episodes * (i + 1) / chunks;
        struct chunk_layout layout = {.schema = synth->schema, .episode_rows = synth->episode_rows};
        char path[FS_PATH_MAX];

        synth->first = synth->episodes * i / chunks;
        layout.episodes = end - synth->first;
        if (snprintf(path, sizeof(path), "%s/chunk_%u.pt", synth->given->dir, i) >= (int)sizeof(path))
            return error_set(err, TD_EINVAL, "the path of the data set is too long");
        if (access(path, F_OK) == 0)
            return error_set(err, TD_EINVAL, "%s exists: choose a folder without chunks", path);
        rc = chunk_write(path, &layout, rows_of, synth, err);
    }
    return rc;
}

/* --- as a store ------------------------------------------------------------ */

static int write_store(struct synth *synth, struct error *err)
{
    size_t stride = row_stride(&synth->schema);
    struct store_config config = {.dir = synth->given->dir, .schema = synth->schema, .run_id = 1, .narrow = true,
                                  .rows = synth->given->rows / 5 * 3,
                                  .map_bytes = synth->given->rows * (2 * stride + 512) + ((uint64_t)64 << 20)};
    struct dataset dataset = {.schema = synth->schema, .tasks = synth->set->tasks, .episode_rows = synth->episode_rows};
    struct dataset_chunk *chunk = dataset_add(&dataset);
    uint64_t uncommitted = 0;
    store_t *store = NULL;
    int rc = chunk == NULL ? error_set(err, TD_ENOMEM, "out of memory") : store_open(&store, &config, err);

    if (rc == TD_OK && store_counts(store)->sealed > 0)
        rc = error_set(err, TD_EINVAL, "%s holds a replay store already", config.dir);
    for (uint64_t i = 0; i < synth->episodes && rc == TD_OK; i++) {
        struct store_record record = {.epoch = i, .rows = synth->episode_rows, .flags = EPISODE_TRUNCATED};

        if (synth->given->progress != NULL)
            replay_progress(synth->given->progress, i, synth->episodes);
        draw_episode(synth, i, true, true);
        rc = store_insert(store, &record, synth->rows, err);
        uncommitted += synth->episode_rows * stride + 256;
        if (rc == TD_OK && (uncommitted >= COMMIT_BYTES || i == synth->episodes - 1)) {
            uncommitted = 0;
            rc = store_commit(store, err);
        }
    }
    if (rc == TD_OK) {
        snprintf(chunk->name, sizeof(chunk->name), "made-up");
        chunk->episodes = synth->episodes;
        chunk->rows = synth->episodes * synth->episode_rows;
        rc = dataset_write(&dataset, config.dir, err);
    }
    store_close(&store);
    dataset_release(&dataset);
    return rc;
}

/* --- both ------------------------------------------------------------------ */

static int prepare(struct synth *synth, struct error *err)
{
    const struct data_synth *given = synth->given;
    struct config config;
    int rc;

    if ((synth->set = dataset_set_named(given->task)) == NULL)
        return error_set(err, TD_EINVAL, "task=%.60s: data are made up for mt30 and mt80", given->task);
    config_init(&config);
    snprintf(config.task, sizeof(config.task), "%s", given->task);
    if ((rc = task_set_init(&synth->tasks, &config, NULL, err)) != TD_OK)
        return rc;
    synth->schema = (struct row_schema){OBS_STATE, synth->set->obs_dim, synth->set->action_dim};
    synth->episode_rows = given->episode_rows != 0 ? given->episode_rows : synth->set->episode_rows;
    synth->episodes = given->rows / synth->episode_rows;
    if (synth->episodes < (given->chunks > 0 ? given->chunks : 1))
        return error_set(err, TD_EINVAL, "rows=%" PRIu64 " are too few for %u chunks of episodes of %u rows", given->rows,
                         given->chunks, synth->episode_rows);
    synth->rows = malloc(synth->episode_rows * row_stride(&synth->schema));
    return synth->rows != NULL ? TD_OK : error_set(err, TD_ENOMEM, "out of memory for an episode");
}

int data_synth(const struct data_synth *given, uint64_t *episodes, struct error *err)
{
    struct synth synth = {.given = given};
    int rc = prepare(&synth, err);

    if (rc == TD_OK)
        rc = given->store ? write_store(&synth, err) : write_chunks(&synth, err);
    *episodes = synth.episodes;
    task_set_release(&synth.tasks);
    free(synth.rows);
    return rc;
}
