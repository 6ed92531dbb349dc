#include "learner/run.h"
#include "learner/finetune.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "common/ckpt/checkpoint.h"
#include "common/util/json.h"

#define RUN_FORMAT   1
#define RUN_FILE_MAX 65536u

int run_path(const struct run *run, const char *name, char out[FS_PATH_MAX], struct error *err)
{
    return fs_join(out, run->dir, name, err);
}

/* --- run.json --- */

static int read_identity(struct run *run, uint64_t *run_id, uint32_t *epoch, struct error *err)
{
    char path[FS_PATH_MAX], *text;
    const cJSON *id;
    uint64_t format = 0, value = 0;
    bool starved;
    size_t length;
    cJSON *root;
    int rc;

    if ((rc = run_path(run, "run.json", path, err)) != TD_OK ||
        (rc = fs_read_file(path, RUN_FILE_MAX, &text, &length, err)) != TD_OK)
        return rc;
    rc = json_parse(&root, text, length, false);
    free(text);
    starved = rc == TD_ENOMEM;
    rc = TD_OK;
    id = cJSON_GetObjectItemCaseSensitive(root, "run_id");
    if (starved)
        rc = error_set(err, TD_ENOMEM, "out of memory reading %s", path);
    else if (manifest_get_u64(root, "format", &format, NULL) == TD_OK && format != RUN_FORMAT)
        rc = error_set(err, TD_EFOREIGN, "%s has format %" PRIu64 ", this program knows %d", path, format, RUN_FORMAT);
    else if (format != RUN_FORMAT || !cJSON_IsString(id) || strlen(id->valuestring) != 16 ||
             strspn(id->valuestring, "0123456789abcdef") != 16 ||
             manifest_get_u64(root, "learner_epoch", &value, NULL) != TD_OK || value > UINT32_MAX)
        rc = error_set(err, TD_ECORRUPT, "%s is damaged: restore it or choose another exp_name", path);
    if (rc == TD_OK) {
        *run_id = strtoull(id->valuestring, NULL, 16);
        *epoch = (uint32_t)value;
    }
    cJSON_Delete(root);
    return rc;
}

static int write_identity(const struct run *run, struct error *err)
{
    char path[FS_PATH_MAX], text[160];
    int length, rc = run_path(run, "run.json", path, err);

    if (rc != TD_OK)
        return rc;
    length = snprintf(text, sizeof(text), "{\"format\": %d, \"run_id\": \"%016" PRIx64 "\", \"learner_epoch\": %" PRIu32 "}\n",
                      RUN_FORMAT, run->run_id, run->epoch);
    return fs_write_file(path, text, (size_t)length, err);
}

static int make_identity(struct run *run, struct error *err)
{
    while (run->run_id == 0)
        if (getrandom(&run->run_id, sizeof(run->run_id), 0) != (ssize_t)sizeof(run->run_id))
            return error_set(err, TD_EIO, "the system gives no random numbers");
    run->epoch = 0;
    return TD_OK;
}

/* --- looking --- */

/* Does the final checkpoint have all the steps that are wanted? */
static int find_final(struct run *run, struct error *err)
{
    struct checkpoint_entry *entries;
    char folder[FS_PATH_MAX];
    int count, rc = run_path(run, "checkpoints", folder, err);

    if (rc == TD_OK)
        rc = checkpoint_list(folder, &entries, &count, err);
    if (rc != TD_OK)
        return rc;
    for (int i = 0; i < count; i++) {
        if (entries[i].kind != CHECKPOINT_FINAL || entries[i].code != TD_OK)
            continue;
        if (entries[i].step > run->finished_steps)
            run->finished_steps = entries[i].step;
        run->finished |= entries[i].step >= (uint64_t)run->config.steps;
    }
    free(entries);
    return TD_OK;
}

/* A directory without config.yaml must not hold what only a run leaves. */
static int check_fresh(const struct run *run, struct error *err)
{
    static const char *const traces[] = {"run.json", "checkpoints", "replay", "eval.csv", "train.csv"};

    for (size_t i = 0; i < TD_LEN(traces); i++)
        if (fs_has(run->dir, traces[i]))
            return error_set(err, TD_ECORRUPT, "%s holds %s but no config.yaml: choose another exp_name or work_dir",
                             run->dir, traces[i]);
    return TD_OK;
}

/* Paths are remembered so that they mean the same from anywhere. */
static int make_absolute(char *path, size_t size, const char *option, struct error *err)
{
    char here[FS_PATH_MAX], full[FS_PATH_MAX];
    int rc;

    if (path[0] == '\0' || path[0] == '/')
        return TD_OK;
    if (getcwd(here, sizeof(here)) == NULL)
        return error_set(err, TD_EIO, "cannot tell the working directory, to which %s=%.200s is relative", option, path);
    if ((rc = fs_join(full, here, path, err)) != TD_OK)
        return rc;
    if (strlen(full) >= size)
        return error_set(err, TD_EINVAL, "%s=%.200s is longer than %zu bytes as an absolute path", option, path, size - 1);
    memcpy(path, full, strlen(full) + 1);
    return TD_OK;
}

static int absolute_paths(struct config *config, struct error *err)
{
    int rc = make_absolute(config->replay_dir, sizeof(config->replay_dir), "replay_dir", err);

    if (rc == TD_OK)
        rc = make_absolute(config->seed_data, sizeof(config->seed_data), "seed_data", err);
    return rc != TD_OK ? rc : make_absolute(config->checkpoint, sizeof(config->checkpoint), "checkpoint", err);
}

int run_look(struct run *run, const struct config *named, const bool *given, FILE *report, struct error *err)
{
    struct config absolute = *named;
    const struct config *fresh = &absolute;
    char path[FS_PATH_MAX];
    struct stat info;
    int rc;

    memset(run, 0, sizeof(*run));
    run->lock = -1;
    if ((rc = absolute_paths(&absolute, err)) != TD_OK ||
        (rc = config_run_dir(fresh, run->dir, sizeof(run->dir), err)) != TD_OK ||
        (rc = run_path(run, "config.yaml", path, err)) != TD_OK)
        return rc;
    run->config = *fresh;
    if (access(path, F_OK) != 0) {
        if (strcmp(fresh->resume, "must") == 0)
            return error_set(err, TD_EINVAL, "resume=must: %s holds no run to go on with (no config.yaml)", run->dir);
        if ((rc = check_fresh(run, err)) != TD_OK || (rc = finetune_adopt(&run->config, given, err)) != TD_OK)
            return rc;
        return config_check(&run->config, err);
    }
    if (strcmp(fresh->resume, "never") == 0)
        return error_set(err, TD_EINVAL, "resume=never: %s holds a run already: choose another exp_name", run->dir);
    run->resumed = true;
    config_init(&run->config);
    if (stat(path, &info) == 0 && info.st_size == 0) /* as defaults it would be another run's */
        return error_set(err, TD_ECORRUPT, "%s is empty: restore it or choose another exp_name", path);
    if (!fs_has(run->dir, "run.json") && fs_has(run->dir, "checkpoints"))
        return error_set(err, TD_ECORRUPT, "%s/run.json is missing: restore it or choose another exp_name", run->dir);
    if ((rc = config_load(&run->config, path, NULL, err)) != TD_OK ||
        (rc = config_resume(&run->config, fresh, given, report, err)) != TD_OK ||
        (rc = config_check(&run->config, err)) != TD_OK ||
        (fs_has(run->dir, "run.json") && (rc = read_identity(run, &run->run_id, &run->epoch, err)) != TD_OK))
        return rc;
    return find_final(run, err);
}

int run_wait_unlocked(const char *dir, uint64_t wait_ms, struct error *err)
{
    char path[FS_PATH_MAX];
    int fd, rc = fs_join(path, dir, "learner.lock", err);

    if (rc != TD_OK || access(path, F_OK) != 0)
        return rc;
    if ((rc = fs_lock(&fd, path, wait_ms, err)) == TD_OK)
        fs_unlock(&fd);
    return rc;
}

/* --- taking --- */

/* What config_run_dir named must lead to the same place wherever the process goes. */
static int absolute(char dir[FS_PATH_MAX], struct error *err)
{
    char *full = realpath(dir, NULL);

    if (full == NULL || strlen(full) >= FS_PATH_MAX) {
        free(full);
        return error_set(err, TD_EIO, "cannot resolve %.200s", dir);
    }
    memcpy(dir, full, strlen(full) + 1);
    free(full);
    return TD_OK;
}

static int take(struct run *run, struct error *err)
{
    char path[FS_PATH_MAX];
    int rc = TD_OK;

    if (fs_has(run->dir, "run.json"))
        rc = read_identity(run, &run->run_id, &run->epoch, err);
    else if (fs_has(run->dir, "checkpoints"))
        rc = error_set(err, TD_ECORRUPT, "%s/run.json is missing: restore it or choose another exp_name", run->dir);
    else
        rc = make_identity(run, err);
    /* the options first: with them it is a run, which run.json then names */
    if (rc == TD_OK)
        rc = run_path(run, "config.yaml", path, err);
    if (rc == TD_OK)
        rc = config_save(&run->config, path, err);
    if (rc != TD_OK)
        return rc;
    if (run->epoch == UINT32_MAX)
        return error_set(err, TD_EFULL, "the learner epoch of %s cannot rise any more", run->dir);
    run->epoch++;
    return write_identity(run, err);
}

int run_open(struct run *run, const struct config *fresh, const bool *given, uint64_t lock_wait_ms, FILE *report,
             struct error *err)
{
    char path[FS_PATH_MAX];
    int lock, rc;

    /* look before anything is made, and again when nobody else can change it */
    if ((rc = run_look(run, fresh, given, NULL, err)) != TD_OK || (rc = fs_mkdirs(run->dir, 0755, err)) != TD_OK ||
        (rc = run_path(run, "learner.lock", path, err)) != TD_OK ||
        (rc = fs_lock(&lock, path, lock_wait_ms, err)) != TD_OK)
        return rc;
    rc = run_look(run, fresh, given, report, err);
    run->lock = lock;
    build_of("/proc/self/exe", run->build);
    if (rc == TD_OK)
        rc = absolute(run->dir, err);
    if (rc == TD_OK)
        rc = take(run, err);
    if (rc != TD_OK)
        run_close(run);
    return rc;
}

void run_close(struct run *run)
{
    fs_unlock(&run->lock);
}

int run_raise_epoch(struct run *run, uint32_t above, struct error *err)
{
    uint64_t run_id;
    uint32_t stored;
    int rc = run_check_epoch(run, err); /* one that was replaced must not rise above its successor */

    if (rc != TD_OK || (rc = read_identity(run, &run_id, &stored, err)) != TD_OK)
        return rc;
    if (stored > above)
        above = stored;
    if (above == UINT32_MAX)
        return error_set(err, TD_EFULL, "the learner epoch of %s cannot rise any more", run->dir);
    run->epoch = above + 1;
    return write_identity(run, err);
}

int run_check_epoch(const struct run *run, struct error *err)
{
    struct run copy = *run;
    uint64_t run_id;
    uint32_t stored;
    int rc = read_identity(&copy, &run_id, &stored, err);

    if (rc != TD_OK)
        return rc;
    if (stored != run->epoch || run_id != run->run_id)
        return error_set(err, TD_EFENCED, "another learner took %s over (epoch %" PRIu32 ", this one has %" PRIu32 ")",
                         run->dir, stored, run->epoch);
    return TD_OK;
}
