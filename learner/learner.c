#include "learner/learner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/env/tasks.h"
#include "common/model/dims.h"
#include "common/net/confine.h"
#include "common/net/notify.h"
#include "common/util/cores.h"
#include "common/util/fs.h"
#include "common/util/log.h"
#include "learner/learner_private.h"
#include "learner/preflight.h"
#include "learner/seed.h"
#include "learner/settings.h"

#define LINGER_MS 2000 /* for the last words to leave */

/* --- events ------------------------------------------------------------------ */

static void on_message(void *context, const struct peer *peer, const struct message *message)
{
    learner_t *learner = context;

    if (learner->exiting)
        return;
    coordinator_receive(learner->coordinator, loop_now_ms(learner->loop), peer, message);
    learner_drain(learner);
}

static void on_deadline(void *context)
{
    learner_t *learner = context;

    if (learner->exiting)
        return;
    coordinator_tick(learner->coordinator, loop_now_ms(learner->loop));
    learner_drain(learner);
}

static void on_signal(void *context, int signum, int count)
{
    learner_t *learner = context;

    if (count > 1) { /* the children are told by the kernel */
        log_warn("asked twice: leaving at once", "signal=%d", signum);
        _exit(TD_EXIT_INTERRUPTED);
    }
    log_info("asked to stop", "signal=%d", signum);
    notify_stopping("asked to stop, writing a checkpoint");
    if (learner->exiting)
        return;
    coordinator_terminate(learner->coordinator, loop_now_ms(learner->loop));
    learner_drain(learner);
}

void learner_exit(learner_t *learner, int code, const char *why)
{
    if (learner->exiting)
        return;
    learner->exiting = true;
    learner->code = code;
    if (code == TD_EXIT_OK)
        log_info("leaving", "why=\"%s\"", why);
    else
        log_error("leaving", "code=%d why=\"%s\"", code, why);
    notify_stopping(why);
    loop_timer_pause(learner->deadline);
    learner_stop_children(learner);
}

/* --- creation ---------------------------------------------------------------- */

static void fill_settings(learner_t *learner)
{
    struct coordinator_config *settings = &learner->settings;

    settings_fill(settings, &learner->run.config, &learner->tasks);
    settings->run = learner->run.run_id;
    settings->process = learner->process;
    settings->epoch = learner->run.epoch;
    settings->options = learner->options;
    settings->options_size = learner->options_size;
}

/* Options as the actors are told them, and the journal. */
static int open_files(learner_t *learner, struct error *err)
{
    char path[FS_PATH_MAX];
    int rc;

    if ((rc = run_path(&learner->run, "config.yaml", path, err)) != TD_OK ||
        (rc = fs_read_file(path, WIRE_OPTIONS_MAX, &learner->options, &learner->options_size, err)) != TD_OK)
        return rc;
    return journal_open(&learner->journal, &learner->run, learner->repeat, &learner->tasks, err);
}

static int open_loop(learner_t *learner, struct error *err)
{
    struct metrics_owner owner = {"learner", METRIC_LEARNER, 0, learner->process, learner->run.run_id};
    struct post_options options = {
        .process = learner->process,
        .run = learner->run.run_id,
        .insecure = learner->run.config.insecure,
        .lockstep = learner->run.config.lockstep,
        .on_message = on_message,
        .context = learner,
    };
    const struct identity self = {.role = ROLE_LEARNER};
    int rc;

    if ((rc = loop_create(&learner->loop, err)) != TD_OK)
        return rc;
    if (learner->run.config.keys[0] != '\0' &&
        (rc = guard_open(&learner->guard, learner->loop, learner->run.config.keys, &self, err)) != TD_OK)
        return rc;
    options.guard = learner->guard;
    if (metrics_create(&learner->metrics, &owner) != TD_OK ||
        loop_wake_create(&learner->computed, learner->loop, learner_computed, learner) != TD_OK ||
        loop_timer_start(&learner->second, learner->loop, 1000, 1000, status_second, learner) != TD_OK ||
        loop_timer_start(&learner->deadline, learner->loop, 60000, 0, on_deadline, learner) != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory");
    options.metrics = learner->metrics;
    return post_open(&learner->post, learner->loop, &options, err);
}

static void log_line(void *context, bool warning, const char *line)
{
    (void)context;
    if (warning)
        log_warn("resuming", "what=\"%s\"", line);
    else
        log_info("resuming", "what=\"%s\"", line);
}

/* The coordinator of a new run, or of one that goes on from its newest checkpoint. */
static int open_coordinator(learner_t *learner, struct error *err)
{
    struct progress *progress = NULL;
    size_t state_size = 0;
    void *state = NULL;
    int rc = resume_open(&learner->checkpoint, &learner->run, err);

    if (rc == TD_OK && learner->checkpoint != NULL) {
        progress = calloc(1, sizeof(*progress));
        rc = progress == NULL ? error_set(err, TD_ENOMEM, "out of memory")
                              : resume_progress(learner->checkpoint, progress, &state, &state_size, err);
    }
    if (rc == TD_OK && learner->checkpoint == NULL && learner->run.config.checkpoint[0] != '\0')
        rc = finetune_open(&learner->finetune, &learner->run.config, &learner->tasks, err);
    fill_settings(learner);
    if (rc == TD_OK)
        rc = coordinator_create(&learner->coordinator, &learner->settings, progress, state, state_size, err);
    if (rc == TD_OK && progress != NULL) {
        log_info("going on", "checkpoint=%s updates=%llu", checkpoint_path(learner->checkpoint),
                 (unsigned long long)progress->updates);
        resume_tell(learner->checkpoint, &learner->run, learner->run.build, log_line, NULL);
    }
    free(progress);
    free(state);
    return rc;
}

static void log_seeding(void *context, const char *line)
{
    (void)context;
    log_info("seeding", "what=\"%s\"", line);
}

static int build(learner_t *learner, struct error *err)
{
    static struct sandbox keep; /* large */
    int rc;

    learner->process = process_random_id();
    learner->cores = cores_available();
    learner->threads = learner->run.config.threads > 0 ? (int)learner->run.config.threads : learner->cores;
    confine_learner(&keep, &learner->run.config, learner->run.dir);
    if ((rc = confine_files(&keep, &learner->run.config, err)) != TD_OK ||
        (rc = seed_replay(&learner->run, &learner->env, &learner->tasks, log_seeding, NULL, err)) != TD_OK ||
        (rc = open_loop(learner, err)) != TD_OK || (rc = learner_bind(learner, err)) != TD_OK ||
        (rc = open_files(learner, err)) != TD_OK ||
        (rc = dashboard_start(learner->dashboard, learner->run.dir, learner->options, learner->options_size,
                              learner->repeat, err)) != TD_OK ||
        (rc = open_coordinator(learner, err)) != TD_OK ||
        (rc = compute_create(&learner->compute, &learner->run, learner->threads, loop_wake_send,
                             learner->computed, err)) != TD_OK ||
        (rc = loop_signals(learner->loop, on_signal, learner, err)) != TD_OK ||
        (rc = confine_calls(&keep, &learner->run.config, err)) != TD_OK)
        return rc;
    return learner_start_children(learner, err);
}

/* Of one task what it is; of several how wide they are, and how many environment steps an agent step is in the mean. */
static int ask_environments(learner_t *learner, const struct config *config, struct error *err)
{
    struct env_spec *specs;
    int rc = env_task_set(&learner->tasks, config, err);

    if (rc != TD_OK)
        return rc;
    if ((specs = calloc((size_t)learner->tasks.count, sizeof(*specs))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a list of tasks");
    if ((rc = env_task_specs(specs, &learner->env, &learner->tasks, config, err)) == TD_OK)
        learner->repeat = env_mean_repeat(specs, learner->tasks.count);
    free(specs);
    return rc;
}

/*
 * Whatever can be known to be wrong before the run directory is touched. The shard of a run that was
 * begun waits for its store by itself.
 */
static int check(learner_t *learner, const struct config *config, const bool *given, struct error *err)
{
    struct preflight_replay replay;
    struct model_dims dims;
    struct run look;
    int rc;

    if ((rc = run_look(&look, config, given, NULL, err)) != TD_OK)
        return rc;
    if ((rc = ask_environments(learner, &look.config, err)) != TD_OK ||
        (rc = model_dims_init_tasks(&dims, &look.config, &learner->tasks, err)) != TD_OK || look.finished ||
        (rc = run_wait_unlocked(look.dir, RUN_LOCK_WAIT_MS, err)) != TD_OK ||
        (rc = preflight_address(&look.config, err)) != TD_OK || look.resumed)
        return rc;
    if (look.config.checkpoint[0] != '\0' &&
        (rc = finetune_check(&look.config, &dims, &learner->tasks, NULL, NULL, err)) != TD_OK)
        return rc;
    if ((rc = seed_check(&look, &learner->env, &learner->tasks, NULL, NULL, err)) != TD_OK)
        return rc;
    return preflight_replay(&replay, &look, &learner->env, &learner->tasks, STORE_LOCK_WAIT_MS, err);
}

int learner_create(learner_t **out, const struct config *config, const bool *given, bool *finished,
                   struct error *err)
{
    learner_t *learner = calloc(1, sizeof(*learner));
    int rc;

    *out = NULL;
    *finished = false;
    if (learner == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    learner->run.lock = -1;
    for (int i = 0; i < TASKS_MAX; i++)
        learner->status.task_return[i] = NAN;
    if ((rc = exporter_open(&learner->exporter, config, err)) == TD_OK &&
        (rc = dashboard_open(&learner->dashboard, config, err)) == TD_OK && (rc = check(learner, config, given, err)) == TD_OK)
        rc = run_open(&learner->run, config, given, RUN_LOCK_WAIT_MS, stderr, err);
    if (rc == TD_OK && learner->run.finished) {
        fprintf(stderr, "%s is finished: %llu agent steps; give more steps= to extend it, or another exp_name=\n",
                learner->run.dir, (unsigned long long)learner->run.finished_steps);
        *finished = true;
        learner_destroy(&learner);
        return TD_OK;
    }
    if (rc == TD_OK) {
        log_set_format(config->log);
        log_init("learner", -1, learner->run.run_id, STDERR_FILENO);
        rc = build(learner, err);
    }
    if (rc != TD_OK) {
        learner_destroy(&learner);
        return rc;
    }
    *out = learner;
    return TD_OK;
}

/* --- running and ending -------------------------------------------------------- */

int learner_run(learner_t *learner)
{
    if (learner->dashboard != NULL)
        log_info("dashboard", "address=http://%s/ token_file=%s", learner->record.dashboard,
                 dashboard_token_file(learner->dashboard));
    log_info("started", "dir=%s task=%s tasks=%d epoch=%u threads=%d lockstep=%d", learner->run.dir,
             config_tasks(&learner->run.config), learner->tasks.count, learner->run.epoch, learner->threads, learner->run.config.lockstep);
    if (learner->run.config.lockstep && !learner->env.exact_state)
        log_warn("the environment's state can't be saved: resuming this run is not exact");
    coordinator_tick(learner->coordinator, loop_now_ms(learner->loop));
    learner_drain(learner);
    loop_run(learner->loop);
    return learner->code;
}

static void release_batches(learner_t *learner)
{
    for (size_t buffer = 0; buffer < TD_LEN(learner->blobs); buffer++)
        for (int part = 0; part < WIRE_SHARDS_MAX; part++)
            channel_blob_release(&learner->blobs[buffer][part]);
}

void learner_destroy(learner_t **out)
{
    learner_t *learner = *out;

    if (learner == NULL)
        return;
    if (learner->recorded && (learner->over || !learner->exiting)) /* else whoever started it may do so again */
        rundir_forget(learner->run.dir, &learner->record);
    loop_timer_close(&learner->evaluator_again);
    child_close(&learner->evaluator);
    child_close(&learner->shard);
    post_close(&learner->post, LINGER_MS);
    stats_close(&learner->stats);
    exporter_close(&learner->exporter);
    dashboard_close(&learner->dashboard);
    guard_close(&learner->guard);
    compute_destroy(&learner->compute); /* before what its jobs point to */
    coordinator_destroy(&learner->coordinator);
    release_batches(learner);
    loop_timer_close(&learner->deadline);
    loop_timer_close(&learner->second);
    loop_wake_close(&learner->computed);
    loop_destroy(&learner->loop);
    checkpoint_close(&learner->checkpoint);
    finetune_close(&learner->finetune);
    journal_close(&learner->journal);
    metrics_destroy(&learner->metrics);
    free(learner->options);
    run_close(&learner->run);
    task_set_release(&learner->tasks);
    free(learner);
    *out = NULL;
}
