#include "learner/seed.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/json.h"
#include "learner/coordinator.h"
#include "learner/dataset.h"
#include "learner/preflight.h"

#define COMMIT_BYTES ((uint64_t)64 << 20)
#define SAY_MS       5000u
#define FILE_LIMIT   65536u
#define UNKNOWN      UINT32_MAX
#define EPISODE_ENDS (EPISODE_TERMINATED | EPISODE_TRUNCATED | EPISODE_ABORTED)

/* What stands in seed.json. */
struct plan {
    uint64_t store_id;       /* of the source */
    uint64_t from, to;       /* its episodes from .. to - 1, those of the run's tasks */
    uint64_t episodes, rows; /* so many */
    bool done;
};

struct seed {
    const struct run *run;
    const struct env_spec *env;
    const struct task_set *tasks;
    seed_say *say;
    void *context;
    char source_dir[FS_PATH_MAX];
    store_t *source, *target;
    struct row_schema has, wants;
    uint32_t task_of[ROW_TASKS_MAX]; /* a task of the source: which of the run's, or UNKNOWN */
    struct plan plan;
    char *rows;        /* of an episode, in our layout */
    size_t rows_bytes;
    uint64_t uncommitted, said_ms;
};

/* --- where it is --------------------------------------------------------------------- */

static bool there(char out[FS_PATH_MAX], const char *folder, const char *name)
{
    return fs_join(out, folder, name, NULL) == TD_OK && access(out, F_OK) == 0;
}

static bool holds_store(const char *folder)
{
    char file[FS_PATH_MAX];

    return there(file, folder, "data.mdb");
}

/* The options of the run whose directory, or whose replay, this is. */
static bool run_of(const char *folder, struct config *config)
{
    static const char *const places[] = {"config.yaml", "../config.yaml"};
    char path[FS_PATH_MAX];

    for (size_t i = 0; i < TD_LEN(places); i++) {
        config_init(config);
        if (there(path, folder, places[i]) && config_load(config, path, NULL, NULL) == TD_OK)
            return true;
    }
    return false;
}

/* A store, a run's directory, or the folder of a data set's chunks with its store in it. */
static int find_store(struct seed *seed, const struct config *trained, bool is_run, struct error *err)
{
    static const char *const inside[] = {"store", "replay"};
    const char *given = seed->run->config.seed_data;

    if (snprintf(seed->source_dir, sizeof(seed->source_dir), "%s", given) >= (int)sizeof(seed->source_dir))
        return error_set(err, TD_EINVAL, "seed_data: the path is too long");
    if (holds_store(seed->source_dir))
        return TD_OK;
    for (size_t i = 0; i < TD_LEN(inside); i++)
        if (there(seed->source_dir, given, inside[i]) && holds_store(seed->source_dir))
            return TD_OK;
    if (is_run && trained->replay_dir[0] != '\0')
        return error_set(err, TD_ENOTFOUND, "the replay of seed_data=%s is elsewhere: give seed_data=%s seed_tasks=%.200s", given,
                         trained->replay_dir, config_tasks(trained));
    return error_set(err, TD_ENOTFOUND, "seed_data=%s holds no rows: give the directory of a run, of a replay, or of a data "
                     "set that `tdmpc2 data import` has read", given);
}

/* --- which of its tasks are ours ------------------------------------------------------ */

/* Only the names matter. */
static int any_size(const void *context, struct task *task, struct error *err)
{
    (void)context;
    (void)err;
    task->obs_dim = task->action_dim = 1;
    task->episode_length = 1;
    return TD_OK;
}

/* Who made it says whose episodes they are; seed_tasks where nobody does. */
static int name_tasks(struct task_set *names, const struct seed *seed, const struct config *trained, bool is_run,
                      struct error *err)
{
    const struct task_source source = {.ask = any_size};
    struct config listed;
    struct dataset dataset;
    int rc;

    config_init(&listed);
    if (seed->run->config.seed_tasks[0] != '\0') {
        snprintf(listed.tasks, sizeof(listed.tasks), "%s", seed->run->config.seed_tasks);
        return task_set_init(names, &listed, &source, err);
    }
    if (is_run)
        return task_set_init(names, trained, &source, err);
    rc = dataset_read(&dataset, seed->source_dir, err);
    if (rc == TD_OK)
        rc = dataset_complete(&dataset, seed->source, seed->source_dir, err);
    if (rc == TD_OK && (dataset.tasks == 30 || dataset.tasks == 80)) {
        snprintf(listed.tasks, sizeof(listed.tasks), "%s", dataset.tasks == 30 ? "mt30" : "mt80");
        rc = task_set_init(names, &listed, &source, err);
    } else if (rc == TD_OK) {
        *names = (struct task_set){0};
    }
    dataset_release(&dataset);
    return rc;
}

/* Without names: a set of one task is of the one task that is trained, else they must be told. */
static int match_tasks(struct seed *seed, const struct task_set *names, struct error *err)
{
    bool one = seed->tasks->count == 1;

    for (uint32_t i = 0; i < ROW_TASKS_MAX; i++)
        seed->task_of[i] = UNKNOWN;
    for (int i = 0; i < names->count; i++) {
        int ours = task_set_find(seed->tasks, names->task[i].name);

        seed->task_of[i] = ours < 0 ? UNKNOWN : (uint32_t)ours;
    }
    if (names->count > 0)
        return TD_OK;
    for (uint64_t id = store_counts(seed->source)->first; id < store_committed(seed->source); id++)
        if (!one || episode_task(store_episode(seed->source, id)->flags) != 0)
            return error_set(err, TD_EINVAL, "nothing says which tasks the episodes in seed_data=%s are of: name them in "
                             "their order, seed_tasks=NAME,NAME,...", seed->source_dir);
    seed->task_of[0] = 0;
    return TD_OK;
}

/* Widths of the source must hold what our tasks need; what is beyond a task's own is looked at row by row. */
static int check_widths(const struct seed *seed, struct error *err)
{
    const struct row_schema *has = &seed->has;

    if (has->obs_type != seed->wants.obs_type)
        return error_set(err, TD_EINVAL, "seed_data=%s holds %s, this run has obs=%s", seed->source_dir,
                         has->obs_type == OBS_RGB ? "frames" : "states", seed->wants.obs_type == OBS_RGB ? "rgb" : "state");
    for (uint32_t i = 0; i < ROW_TASKS_MAX; i++) {
        const struct task *task = seed->task_of[i] == UNKNOWN ? NULL : &seed->tasks->task[seed->task_of[i]];

        if (task != NULL && (has->obs_dim < (uint32_t)task->obs_dim || has->action_dim < (uint32_t)task->action_dim))
            return error_set(err, TD_EINVAL, "seed_data=%s holds %u observations and %u actions, %.100s has %d and %d",
                             seed->source_dir, has->obs_dim, has->action_dim, task->name, task->obs_dim, task->action_dim);
    }
    return TD_OK;
}

/* --- what is meant to come ------------------------------------------------------------- */

/* Is this episode one of ours? */
static bool wanted(const struct seed *seed, uint64_t id)
{
    const struct store_episode *episode = store_episode(seed->source, id);

    return (episode->flags & STORE_PUBLISHED) != 0 && (episode->flags & (STORE_QUARANTINED | EPISODE_DAMAGED)) == 0 &&
           seed->task_of[episode_task(episode->flags)] != UNKNOWN;
}

/* The newest that the shard's window holds. */
static int make_plan(struct seed *seed, struct error *err)
{
    uint64_t most = (uint64_t)(seed->run->config.buffer_size / seed->run->config.shards);
    uint64_t rows[ROW_TASKS_MAX] = {0}, episodes[ROW_TASKS_MAX] = {0}, first = store_counts(seed->source)->first;
    struct plan *plan = &seed->plan;
    char line[400], names[200] = "";

    *plan = (struct plan){.store_id = store_identity(seed->source)->store_id, .to = store_committed(seed->source)};
    for (plan->from = plan->to; plan->from > first; plan->from--) {
        const struct store_episode *episode = store_episode(seed->source, plan->from - 1);
        uint32_t task = episode_task(episode->flags);

        if (!wanted(seed, plan->from - 1))
            continue;
        if (plan->rows + episode->rows > most)
            break;
        plan->rows += episode->rows;
        plan->episodes++;
        rows[seed->task_of[task]] += episode->rows;
        episodes[seed->task_of[task]]++;
    }
    for (int i = 0; i < seed->tasks->count; i++) {
        size_t at = strlen(names);

        snprintf(names + at, sizeof(names) - at, "%s%.60s", i > 0 ? ", " : "", seed->tasks->task[i].name);
        if (episodes[i] == 0 || seed->say == NULL)
            continue;
        snprintf(line, sizeof(line), "replay begins with %" PRIu64 " episodes of %.100s, %" PRIu64 " rows, from %.150s%s",
                 episodes[i], seed->tasks->task[i].name, rows[i], seed->source_dir,
                 plan->from > first ? " (the newest: buffer_size holds no more)" : "");
        seed->say(seed->context, line);
    }
    return plan->episodes > 0 ? TD_OK : error_set(err, TD_EINVAL, "seed_data=%s has no episode of %s", seed->source_dir, names);
}

static int open_source(struct seed *seed, struct error *err)
{
    static struct config trained; /* large */
    struct store_config config = {.dir = seed->source_dir, .any_shard = true, .reading = true,
                                  .lock_wait_ms = STORE_LOCK_WAIT_MS, .force = seed->run->config.force};
    bool is_run = run_of(seed->run->config.seed_data, &trained);
    struct task_set names = {0};
    struct error why = {0};
    int rc;

    if ((rc = find_store(seed, &trained, is_run, err)) != TD_OK)
        return rc;
    if ((rc = store_open(&seed->source, &config, &why)) != TD_OK)
        return error_set(err, rc, "seed_data: %s", why.text);
    seed->has = store_identity(seed->source)->schema;
    seed->wants = (struct row_schema){seed->env->obs_type, seed->env->obs_dim, seed->env->action_dim};
    if ((rc = name_tasks(&names, seed, &trained, is_run, &why)) != TD_OK)
        error_set(err, rc, "seed_data: %s", why.text);
    else if ((rc = match_tasks(seed, &names, err)) == TD_OK)
        rc = check_widths(seed, err);
    task_set_release(&names);
    return rc;
}

static void seed_release(struct seed *seed)
{
    store_close(&seed->source);
    store_close(&seed->target);
    free(seed->rows);
    seed->rows = NULL;
}

int seed_check(const struct run *run, const struct env_spec *env, const struct task_set *tasks, seed_say *say,
               void *context, struct error *err)
{
    struct seed seed = {.run = run, .env = env, .tasks = tasks, .say = say, .context = context};
    int rc;

    if (run->config.seed_data[0] == '\0')
        return TD_OK;
    rc = open_source(&seed, err);
    if (rc == TD_OK)
        rc = make_plan(&seed, err);
    seed_release(&seed);
    return rc;
}

/* --- seed.json --------------------------------------------------------------------------- */

static int write_plan(const struct seed *seed, const char *path, struct error *err)
{
    char text[4 * FS_PATH_MAX];
    const struct plan *plan = &seed->plan;
    cJSON *name = cJSON_CreateString(seed->source_dir);
    char *quoted = name == NULL ? NULL : cJSON_PrintUnformatted(name);
    int rc = quoted == NULL ? error_set(err, TD_ENOMEM, "out of memory") : TD_OK;

    if (rc == TD_OK) {
        snprintf(text, sizeof(text), "{\"source\":%s,\"store_id\":\"%016" PRIx64 "\",\"from\":%" PRIu64 ",\"to\":%" PRIu64
                 ",\"episodes\":%" PRIu64 ",\"rows\":%" PRIu64 ",\"done\":%s}\n", quoted, plan->store_id, plan->from, plan->to,
                 plan->episodes, plan->rows, plan->done ? "true" : "false");
        rc = fs_write_file(path, text, strlen(text), err);
    }
    cJSON_free(quoted);
    cJSON_Delete(name);
    return rc;
}

static bool take_count(const cJSON *json, const char *name, uint64_t *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);

    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 1e15))
        return false;
    *out = (uint64_t)item->valuedouble;
    return true;
}

/* TD_ENOTFOUND: there is none. */
static int read_plan(struct plan *plan, const char *path, struct error *err)
{
    const cJSON *id, *done;
    size_t length;
    cJSON *json;
    char *text;
    bool good;
    int rc;

    if (access(path, F_OK) != 0)
        return TD_ENOTFOUND;
    if ((rc = fs_read_file(path, FILE_LIMIT, &text, &length, err)) != TD_OK)
        return rc;
    json = cJSON_ParseWithLength(text, length);
    id = cJSON_GetObjectItemCaseSensitive(json, "store_id");
    done = cJSON_GetObjectItemCaseSensitive(json, "done");
    good = cJSON_IsString(id) && cJSON_IsBool(done) && take_count(json, "from", &plan->from) &&
           take_count(json, "to", &plan->to) && take_count(json, "episodes", &plan->episodes) &&
           take_count(json, "rows", &plan->rows) && plan->from <= plan->to;
    if (good) {
        plan->store_id = strtoull(id->valuestring, NULL, 16);
        plan->done = cJSON_IsTrue(done);
    }
    cJSON_Delete(json);
    free(text);
    return good ? TD_OK : error_set(err, TD_ECORRUPT, "%s is damaged: remove the replay directory to begin anew", path);
}

/* --- row by row --------------------------------------------------------------------------- */

static bool all_zero(const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

/* One row of theirs as one of ours; NULL or what is wrong with it. */
static const char *convert(const struct seed *seed, const char *from, char *to, uint32_t ours)
{
    const struct task *task = &seed->tasks->task[ours];
    size_t unit = seed->has.obs_type == OBS_RGB ? 1 : sizeof(float);
    size_t keep = unit * (seed->has.obs_type == OBS_RGB ? seed->wants.obs_dim : (size_t)task->obs_dim);
    size_t action = sizeof(float) * (size_t)task->action_dim, its_obs = row_obs_bytes(&seed->has);
    const char *its_action = from + sizeof(struct row_head) + its_obs;
    struct row_head head;

    memset(to, 0, row_stride(&seed->wants));
    memcpy(&head, from, sizeof(head));
    head.task = ours;
    head.param_version = 0; /* of another run's parameters */
    head.param_epoch = 0;
    memcpy(to, &head, sizeof(head));
    memcpy(to + sizeof(head), from + sizeof(head), keep);
    memcpy(to + sizeof(head) + row_obs_bytes(&seed->wants), its_action, action);
    if (!all_zero(from + sizeof(head) + keep, unit * seed->has.obs_dim - keep))
        return "an observation is wider than the task's";
    if (!all_zero(its_action + action, sizeof(float) * seed->has.action_dim - action))
        return "an action is wider than the task's";
    return row_check(to, &seed->wants);
}

static int grow_rows(struct seed *seed, uint32_t count, struct error *err)
{
    size_t bytes = count * row_stride(&seed->wants);
    char *grown;

    if (bytes <= seed->rows_bytes)
        return TD_OK;
    if ((grown = realloc(seed->rows, bytes)) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for an episode of %u rows", count);
    seed->rows = grown;
    seed->rows_bytes = bytes;
    return TD_OK;
}

static int commit(struct seed *seed, struct error *err)
{
    seed->uncommitted = 0;
    return store_commit(seed->target, err);
}

static int copy_episode(struct seed *seed, uint64_t id, uint64_t number, struct error *err)
{
    uint32_t ours = seed->task_of[episode_task(store_episode(seed->source, id)->flags)], done = 0;
    size_t its = row_stride(&seed->has), stride = row_stride(&seed->wants);
    struct store_record record;
    int rc;

    if ((rc = store_record(seed->source, id, &record, err)) != TD_OK)
        return rc;
    rc = grow_rows(seed, record.rows, err);
    while (rc == TD_OK && done < record.rows) {
        uint32_t count = record.rows - done;
        const char *rows = store_rows(seed->source, id, done, &count), *wrong = NULL;

        if (rows == NULL)
            rc = error_set(err, TD_ECORRUPT, "episode %" PRIu64 " of seed_data=%s is damaged: `tdmpc2 replay verify` says "
                           "more", id, seed->source_dir);
        for (uint32_t i = 0; rc == TD_OK && i < count; i++)
            if ((wrong = convert(seed, rows + i * its, seed->rows + (done + i) * stride, ours)) != NULL)
                rc = error_set(err, TD_EINVAL, "seed_data=%s does not fit %.100s: in episode %" PRIu64 ", row %u, %s",
                               seed->source_dir, seed->tasks->task[ours].name, id, done + i, wrong);
        done += count;
    }
    store_rows_end(seed->source);
    if (rc != TD_OK)
        return rc;
    record = (struct store_record){.slot = STORE_SLOT_OUTSIDE, .epoch = number, .rows = record.rows,
                                   .flags = record.flags & EPISODE_ENDS};
    if ((rc = store_insert(seed->target, &record, seed->rows, err)) != TD_OK)
        return rc;
    seed->uncommitted += record.rows * stride;
    return seed->uncommitted >= COMMIT_BYTES ? commit(seed, err) : TD_OK;
}

static void say_progress(struct seed *seed, uint64_t number)
{
    char line[160];

    if (seed->say == NULL || clock_ms() - seed->said_ms < SAY_MS)
        return;
    seed->said_ms = clock_ms();
    snprintf(line, sizeof(line), "seeding the replay: %.0f %%, %" PRIu64 " of %" PRIu64 " episodes",
             100.0 * (double)number / (double)seed->plan.episodes, number, seed->plan.episodes);
    seed->say(seed->context, line);
}

/* All but the first `have`, which an earlier start brought in. */
static int copy_all(struct seed *seed, uint64_t have, struct error *err)
{
    uint64_t number = 0;
    int rc = TD_OK;

    seed->said_ms = clock_ms();
    for (uint64_t id = seed->plan.from; id < seed->plan.to && rc == TD_OK; id++) {
        if (!wanted(seed, id))
            continue;
        if (number >= have)
            rc = copy_episode(seed, id, number, err);
        say_progress(seed, ++number);
    }
    return rc == TD_OK ? commit(seed, err) : rc;
}

static int open_target(struct seed *seed, char dir[FS_PATH_MAX], struct error *err)
{
    struct store_config config;
    int rc = preflight_store(&config, dir, seed->run, seed->env, seed->tasks, err);

    if (rc != TD_OK)
        return rc;
    config.run_id = seed->run->run_id;
    config.lock_wait_ms = STORE_LOCK_WAIT_MS;
    config.compress_frames = seed->run->config.compress_frames;
    config.narrow = seed->tasks->count > 1;
    return store_open(&seed->target, &config, err);
}

/* The plan of an earlier start stands, if its source is still what it was. */
static int go_on(struct seed *seed, struct error *err)
{
    if (seed->plan.store_id == store_identity(seed->source)->store_id && seed->plan.from >= store_counts(seed->source)->first &&
        seed->plan.to <= store_committed(seed->source))
        return TD_OK;
    return error_set(err, TD_EFOREIGN, "seed_data=%s is not what it was when this run began with it: remove the run's "
                     "replay directory to begin anew", seed->source_dir);
}

static int fill(struct seed *seed, const char *path, bool begun, struct error *err)
{
    uint64_t have;
    char line[160];
    int rc;

    if ((rc = open_source(seed, err)) != TD_OK || (rc = begun ? go_on(seed, err) : make_plan(seed, err)) != TD_OK ||
        (rc = begun ? TD_OK : write_plan(seed, path, err)) != TD_OK)
        return rc;
    have = store_counts(seed->target)->sealed;
    if ((rc = copy_all(seed, have, err)) != TD_OK)
        return rc;
    seed->plan.done = true;
    if ((rc = write_plan(seed, path, err)) != TD_OK)
        return rc;
    snprintf(line, sizeof(line), "the replay is seeded: %" PRIu64 " episodes, %" PRIu64 " rows", seed->plan.episodes,
             seed->plan.rows);
    if (seed->say != NULL)
        seed->say(seed->context, line);
    return TD_OK;
}

int seed_replay(const struct run *run, const struct env_spec *env, const struct task_set *tasks, seed_say *say,
                void *context, struct error *err)
{
    struct seed seed = {.run = run, .env = env, .tasks = tasks, .say = say, .context = context};
    char dir[FS_PATH_MAX], path[FS_PATH_MAX];
    struct store_config unused;
    int rc, begun;

    if (run->config.seed_data[0] == '\0')
        return TD_OK;
    if ((rc = preflight_store(&unused, dir, run, env, tasks, err)) != TD_OK || (rc = fs_join(path, dir, SEED_FILE, err)) != TD_OK)
        return rc;
    begun = read_plan(&seed.plan, path, err);
    if ((begun != TD_OK && begun != TD_ENOTFOUND) || (begun == TD_OK && seed.plan.done))
        return begun;
    rc = open_target(&seed, dir, err);
    if (rc == TD_OK && (begun == TD_OK || store_counts(seed.target)->rows == 0)) /* else rows of its own came first */
        rc = fill(&seed, path, begun == TD_OK, err);
    seed_release(&seed);
    return rc;
}
