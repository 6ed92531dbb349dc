/*
 * bench_memory.c - resident memory of a real learner and its real shard over a million rows.
 *
 * A run directory of walker-walk with a replay store of a million rows is made by hand; the learner
 * goes on from it with an actor, and trains. What counts is resident memory beyond what the kernel may
 * drop: all but the clean pages of mapped files (the store's, the programs'). It is read again and again
 * while updates run and a checkpoint is written; the largest counts.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "learner/run.h"
#include "learner/update.h"
#include "tools/bench.h"
#include "tools/stats.h"
#include "tools/straw.h"

#define TABLE_ROWS    1000000
#define EPISODE_ROWS  501u
#define UPDATES       20     /* at least, before it ends */
#define PATIENCE_MS   600000u
#define LEAVE_MS      30000u
#define ASK_MS        2000
#define CHECKPOINT_S  4
#define SLOW_S        60     /* between checkpoints of models that are written from where they lie */

static const struct row_schema walker = {OBS_STATE, 24, 6};

struct usage {
    double resident, kept; /* MiB; kept: what the kernel cannot drop */
};

struct setting {
    const struct bench_options *options;
    struct config config; /* of the run */
    struct run run;
    loop_t *loop;
    process_t *learner, *actor;
    struct usage of_learner, of_shard;
    struct stats_run stats;
    double sum; /* largest at one moment */
    int looks;
};

/* --- reading --- */

/* From /proc/PID/smaps_rollup; false when the process is not there. */
static bool look(pid_t pid, struct usage *usage)
{
    char path[64], line[256];
    double resident = 0, clean = 0, kib;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%ld/smaps_rollup", (long)pid);
    if ((file = fopen(path, "r")) == NULL)
        return false;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "Rss: %lf", &kib) == 1)
            resident = kib;
        else if (sscanf(line, "Private_Clean: %lf", &kib) == 1 || sscanf(line, "Shared_Clean: %lf", &kib) == 1)
            clean += kib;
    }
    fclose(file);
    *usage = (struct usage){resident / 1024, (resident - clean) / 1024};
    return resident > 0;
}

static void keep_larger(struct usage *largest, const struct usage *now)
{
    if (now->kept > largest->kept)
        *largest = *now;
}

/* Both at one moment. */
static void look_at_both(struct setting *setting)
{
    struct rundir_part shard;
    struct usage of_learner, of_shard;
    struct error err;

    if (rundir_find(setting->run.dir, "replay", 0, &shard, &err) != TD_OK ||
        !look(process_pid(setting->learner), &of_learner) || !look(shard.pid, &of_shard))
        return;
    keep_larger(&setting->of_learner, &of_learner);
    keep_larger(&setting->of_shard, &of_shard);
    if (of_learner.kept + of_shard.kept > setting->sum)
        setting->sum = of_learner.kept + of_shard.kept;
    setting->looks++;
}

/* Updates the learner says it has done; 0 while it says nothing. */
static double updates_done(struct setting *setting)
{
    double updates = 0;
    struct error err;

    if (stats_find(&setting->stats, setting->run.dir, &err) != TD_OK ||
        stats_ask(&setting->stats, false, "", ASK_MS, &err) < 0)
        return 0;
    for (int i = 0; i < setting->stats.count; i++) {
        const struct stats_part *part = &setting->stats.parts[i];
        const cJSON *metrics, *item;

        if (part->json == NULL || strcmp(part->where.role, "learner") != 0)
            continue;
        metrics = cJSON_GetObjectItemCaseSensitive(part->json, "metrics");
        item = cJSON_GetObjectItemCaseSensitive(metrics, "updates");
        if (cJSON_IsNumber(item))
            updates = item->valuedouble;
    }
    stats_forget(&setting->stats);
    return updates;
}

/* --- the run --- */

/* Options of the run: those given, with what makes it train on the table that is there. */
static int make_run(struct setting *setting, const char *root, struct error *err)
{
    struct config *config = &setting->config;
    char replay[FS_PATH_MAX];
    struct straw_config straw = {.dir = replay, .schema = walker, .episode = EPISODE_ROWS};
    int rc;

    *config = setting->options->config;
    config->replay_dir[0] = '\0';
    memcpy(config->work_dir, root, sizeof(config->work_dir));
    snprintf(config->task, sizeof(config->task), "walker-walk");
    snprintf(config->evaluator, sizeof(config->evaluator), "off");
    if (config->model_size == 0)
        config->model_size = 5;
    config->buffer_size = TABLE_ROWS;
    config->steps = 3 * TABLE_ROWS;
    config->checkpoint_every = config->model_size > 48 ? SLOW_S : CHECKPOINT_S;
    config->threads = setting->options->threads;
    config->actors = 1;
    if ((rc = run_open(&setting->run, config, NULL, 0, NULL, err)) != TD_OK)
        return rc;
    if ((rc = run_path(&setting->run, "replay", replay, err)) == TD_OK)
        rc = straw_fill(&straw, setting->run.run_id, TABLE_ROWS, err);
    run_close(&setting->run);
    return rc;
}

static int spawn(process_t **out, struct setting *setting, const char *program, const char *const *args,
                 struct error *err)
{
    char log[FS_PATH_MAX];
    struct process_options options = {.program = program, .args = args, .log_path = log};

    snprintf(log, sizeof(log), "%.*s/%s.out", FS_PATH_MAX - 32, setting->run.dir, program);
    return process_spawn(out, setting->loop, &options, err);
}

static int start_learner(struct setting *setting, struct error *err)
{
    char work_dir[FS_PATH_MAX + 16], task[64], threads[32];
    const char *args[] = {task, work_dir, threads, NULL};

    snprintf(task, sizeof(task), "task=walker-walk");
    snprintf(work_dir, sizeof(work_dir), "work_dir=%s", setting->run.dir);
    snprintf(threads, sizeof(threads), "threads=%d", setting->options->threads);
    return spawn(&setting->learner, setting, "tdmpc2-learner", args, err);
}

static int start_actor(struct setting *setting, const char *learner, struct error *err)
{
    char address[CHANNEL_ADDRESS_MAX + 16];
    const char *args[] = {address, NULL};

    snprintf(address, sizeof(address), "learner=%s", learner);
    return spawn(&setting->actor, setting, "tdmpc2-actor", args, err);
}

/* What to say when a part is gone: its last words. */
static int ended(struct setting *setting, const char *program, struct error *err)
{
    char log[FS_PATH_MAX], tail[300];

    snprintf(log, sizeof(log), "%.*s/%s.out", FS_PATH_MAX - 32, setting->run.dir, program);
    process_log_tail(log, 2, tail, sizeof(tail));
    return error_set(err, TD_EIO, "%s ended by itself: %s", program, tail);
}

static int run_parts(struct setting *setting, struct error *err)
{
    uint64_t deadline = clock_ms() + PATIENCE_MS, end = 0;
    struct rundir_part learner;
    int rc = start_learner(setting, err);

    while (rc == TD_OK && (end == 0 || clock_ms() < end)) {
        loop_run_for(setting->loop, 250);
        if (!process_running(setting->learner))
            return ended(setting, "tdmpc2-learner", err);
        if (setting->actor != NULL && !process_running(setting->actor))
            return ended(setting, "tdmpc2-actor", err);
        if (setting->actor == NULL && rundir_find(setting->run.dir, "learner", 0, &learner, err) == TD_OK)
            rc = start_actor(setting, learner.control, err);
        look_at_both(setting);
        if (end == 0 && updates_done(setting) >= UPDATES)
            end = clock_ms() + (uint64_t)(setting->options->seconds * 1000) + 2 * CHECKPOINT_S * 1000;
        if (end == 0 && clock_ms() > deadline)
            return error_set(err, TD_ETIMEOUT, "fewer than %d updates in %u s", UPDATES, PATIENCE_MS / 1000);
    }
    return rc;
}

/* Ask it to leave; it is killed when it does not. */
static void stop(struct setting *setting, process_t **process)
{
    uint64_t end = clock_ms() + LEAVE_MS;

    if (*process == NULL)
        return;
    process_signal(*process, SIGTERM);
    while (process_running(*process) && clock_ms() < end)
        loop_run_for(setting->loop, 20);
    if (process_running(*process))
        process_signal(*process, SIGKILL);
    while (process_running(*process))
        loop_run_for(setting->loop, 20);
    process_close(process);
}

/* --- the benchmark --- */

/* Parameters, targets, moments, gradients and what a batch leaves behind, in MiB. */
static double numbers_of(const struct config *config)
{
    struct update_config update;
    struct update_memory memory;
    struct model_dims dims;
    struct error err;

    update_config_init(&update, config, EPISODE_ROWS - 1);
    if (model_dims_init(&dims, config, (int)walker.obs_dim, (int)walker.action_dim, &err) != TD_OK ||
        update_measure(&memory, &dims, &update, 1, &err) != TD_OK)
        return 0;
    return (double)(memory.total - memory.working) / (1 << 20);
}

static void report(const struct setting *setting)
{
    char variant[80];
    struct bench_result result = {.name = "memory", .variant = variant, .count = setting->looks};
    const struct usage *usage[] = {&setting->of_learner, &setting->of_shard};
    static const char *const names[] = {"learner", "shard"};

    for (int i = 0; i < 2; i++) {
        snprintf(variant, sizeof(variant), "%s", names[i]);
        result.mib = usage[i]->kept;
        bench_report(setting->options, &result);
    }
    snprintf(variant, sizeof(variant), "numbers of an update");
    result.mib = numbers_of(&setting->config);
    bench_report(setting->options, &result);
    snprintf(variant, sizeof(variant), "both, model_size=%d", (int)setting->config.model_size);
    result.mib = setting->sum;
    bench_report(setting->options, &result);
}

int bench_memory(const struct bench_options *options, struct error *err)
{
    static struct setting setting;
    static char root[sizeof(setting.config.work_dir)];
    int rc;

    setting = (struct setting){.options = options, .run = {.lock = -1}};
    if (options->config.replay_dir[0] != '\0')
        snprintf(root, sizeof(root), "%s", options->config.replay_dir);
    else
        snprintf(root, sizeof(root), "build/bench-memory-%d", (int)getpid());
    if (access(root, F_OK) == 0)
        return error_set(err, TD_EINVAL, "%s exists: the benchmark needs a folder of its own", root);
    rc = make_run(&setting, root, err);
    if (rc == TD_OK && (rc = loop_create(&setting.loop, err)) == TD_OK)
        rc = run_parts(&setting, err);
    stop(&setting, &setting.actor);
    stop(&setting, &setting.learner);
    loop_destroy(&setting.loop);
    if (rc == TD_OK)
        report(&setting);
    (void)fs_remove_tree(root, NULL);
    return rc;
}
