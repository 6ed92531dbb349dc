#include "learner/preflight.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/net/channel.h"
#include "common/util/runtime.h"
#include "learner/coordinator.h"
#include "learner/settings.h"
#include "learner/resume.h"

static int check_words(const struct config *config, struct error *err)
{
    char told[ADDRESS_MAX];
    int rc;

    if (address_is_ipc(config->bind))
        return error_set(err, TD_EINVAL,
                         "bind=%.200s: bind= is for tcp://HOST:PORT; an ipc address is there without it",
                         config->bind);
    if ((rc = address_check(config->bind, config->insecure || config->keys[0] != '\0', err)) != TD_OK)
        return rc;
    if (config->advertise[0] != '\0')
        return address_with_host(told, config->bind, config->advertise, err);
    if (address_is_wildcard(config->bind))
        return error_set(err, TD_EINVAL,
                         "bind=%.200s listens everywhere but does not say where others connect to: add "
                         "advertise=HOST", config->bind);
    return TD_OK;
}

/* The keys of the parts that are started here: the learner and its shard. */
static int check_keys(const struct config *config, struct error *err)
{
    const struct identity parts[] = {{.role = ROLE_LEARNER}, {.role = ROLE_SHARD}};
    int rc = TD_OK;

    for (size_t i = 0; rc == TD_OK && config->keys[0] != '\0' && i < TD_LEN(parts); i++)
        rc = guard_probe(config->keys, &parts[i], err);
    return rc;
}

int preflight_address(const struct config *config, struct error *err)
{
    int rc = runtime_check(err);

    if (rc == TD_OK)
        rc = check_keys(config, err);
    if (rc != TD_OK || config->bind[0] == '\0')
        return rc;
    rc = check_words(config, err);
    return rc != TD_OK ? rc : channel_probe(config->bind, config->insecure || config->keys[0] != '\0', err);
}

/* A new run has no store yet, wherever it is told to put it. */
static int check_owner(const struct preflight_replay *replay, const struct run *look, struct error *err)
{
    if (!replay->outlook.exists || look->run_id != 0)
        return TD_OK;
    return error_set(err, TD_EFOREIGN,
                     "%s belongs to run %016" PRIx64 ", this would be a new one: choose another replay_dir",
                     replay->dir, replay->outlook.run_id);
}

int preflight_store(struct store_config *store, char dir[FS_PATH_MAX], const struct run *look, const struct env_spec *env,
                    const struct task_set *tasks, struct error *err)
{
    const struct config *config = &look->config;
    uint64_t rows = coordinator_map_rows((uint64_t)config->buffer_size, (uint64_t)config->keep_checkpoints,
                                         (uint64_t)config->checkpoint_steps, (uint32_t)config->shards, env->episode_length);

    *store = (struct store_config){
        .dir = dir,
        .schema = {env->obs_type, env->obs_dim, env->action_dim},
        .run_id = look->run_id,
        .rows = rows,
        .used = coordinator_used_rows(rows, (uint64_t)config->steps, (uint32_t)config->shards, env->episode_length),
        .row_bytes = settings_row_bytes(config, tasks),
        .bytes_limit = (uint64_t)(config->disk_limit * 1e9),
        .force = config->force,
    };
    if (config->replay_dir[0] == '\0')
        return run_path(look, "replay", dir, err);
    snprintf(dir, FS_PATH_MAX, "%s", config->replay_dir);
    return TD_OK;
}

/* Rows that a lock-step run has used cannot be had again: refused before anything is said or made. */
static int check_rows(const struct preflight_replay *replay, const struct run *look, struct error *err)
{
    checkpoint_t *checkpoint;
    struct progress progress;
    int rc;

    if (!look->resumed || !look->config.lockstep || replay->outlook.exists)
        return TD_OK;
    if ((rc = resume_open(&checkpoint, look, err)) != TD_OK || checkpoint == NULL)
        return rc;
    rc = progress_from_json(&progress, checkpoint_manifest(checkpoint)->progress, err);
    checkpoint_close(&checkpoint);
    if (rc != TD_OK || progress.rows == 0)
        return rc;
    return error_set(err, TD_EINVAL,
                     "the %" PRIu64 " rows in %.300s are gone, and a lock-step run goes on exactly or not at all: put "
                     "them back, or start a new run; its checkpoints can still be evaluated", progress.rows, replay->dir);
}

int preflight_replay(struct preflight_replay *replay, const struct run *look, const struct env_spec *env,
                     const struct task_set *tasks, uint64_t lock_wait_ms, struct error *err)
{
    struct store_config store;
    int rc;

    memset(replay, 0, sizeof(*replay));
    if (!look->resumed && (rc = fs_check_writable(look->dir, err)) != TD_OK)
        return rc;
    if ((rc = preflight_store(&store, replay->dir, look, env, tasks, err)) != TD_OK)
        return rc;
    store.lock_wait_ms = lock_wait_ms;
    replay->rows = store.used;
    rc = store_look(&replay->outlook, &store, err);
    if (rc == TD_EFULL) /* nothing has grown full: what was asked for does not fit */
        return TD_EINVAL;
    if (rc == TD_OK)
        rc = check_owner(replay, look, err);
    return rc == TD_OK ? check_rows(replay, look, err) : rc;
}
