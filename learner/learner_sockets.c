#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/util/log.h"
#include "common/util/spawner.h"
#include "learner/learner_private.h"

#define EVALUATOR_PATIENCE_MS 12000
#define SHARD_PATIENCE_MS     15000

/* --- sockets ----------------------------------------------------------------- */

/* A port over ipc. `process` 0: an address that stays put for every life of this run. */
static int bind_ipc(learner_t *learner, enum port port, const char *name, uint64_t process, struct error *err)
{
    char address[ADDRESS_MAX];
    int rc = rundir_address(address, learner->folder, name, process, err);

    return rc != TD_OK ? rc : post_bind(learner->post, port, address, err);
}

/* What others are told of an address this learner listens on. */
static int tell_host(const learner_t *learner, const char *bound, char told[ADDRESS_MAX], struct error *err)
{
    if (learner->run.config.advertise[0] != '\0')
        return address_with_host(told, bound, learner->run.config.advertise, err);
    snprintf(told, ADDRESS_MAX, "%s", bound);
    return TD_OK;
}

/* A port over tcp beside bind='s, and what others are told to connect to. */
static int bind_tcp(learner_t *learner, enum port port, const char *address, char told[ADDRESS_MAX],
                    struct error *err)
{
    int rc = post_bind(learner->post, port, address, err);

    return rc != TD_OK ? rc : tell_host(learner, post_address(learner->post, port, false), told, err);
}

static int bind_network(learner_t *learner, struct error *err)
{
    const struct config *config = &learner->run.config;
    struct coordinator_config *settings = &learner->settings;
    char any[ADDRESS_MAX], control[ADDRESS_MAX];
    int rc;

    if ((rc = address_with_port(any, config->bind, "*", err)) != TD_OK ||
        (rc = bind_tcp(learner, PORT_CONTROL, config->bind, control, err)) != TD_OK ||
        (rc = bind_tcp(learner, PORT_PARAMS, any, settings->params_tcp, err)) != TD_OK ||
        (rc = bind_tcp(learner, PORT_ANNOUNCE, any, settings->announce_tcp, err)) != TD_OK)
        return rc;
    memcpy(learner->network, control, sizeof(learner->network));
    log_info("listening", "actors_join_with=learner=%s encrypted=%s", control, learner->guard != NULL ? "yes" : "no");
    if (!address_is_local(config->bind) && learner->guard == NULL)
        log_warn("insecure=true: whoever reaches this address can join, read and stop the run",
                 "bind=%s", config->bind);
    return TD_OK;
}

static int open_stats(learner_t *learner, struct error *err)
{
    char address[ADDRESS_MAX], publish[ADDRESS_MAX];
    struct stats_options options = {
        .address = address, .publish_address = publish, .refresh = status_refresh, .context = learner,
        .guard = learner->guard, .exporter = learner->exporter};
    char network[ADDRESS_MAX], told[ADDRESS_MAX];
    const struct config *config = &learner->run.config;
    int rc;

    if (learner->guard != NULL && config->bind[0] != '\0') {
        if ((rc = address_with_port(network, config->bind, "*", err)) != TD_OK)
            return rc;
        options.network_address = network;
    }
    if ((rc = rundir_address(address, learner->folder, "lstat", learner->process, err)) != TD_OK ||
        (rc = rundir_address(publish, learner->folder, "lpub", learner->process, err)) != TD_OK)
        return rc;
    if ((rc = stats_open(&learner->stats, learner->loop, learner->metrics, &options, err)) != TD_OK ||
        (rc = exporter_start(learner->exporter, err)) != TD_OK)
        return rc;
    if (options.network_address == NULL)
        return TD_OK;
    if ((rc = tell_host(learner, stats_network_address(learner->stats), told, err)) == TD_OK)
        log_info("statistics for the viewer's key", "stats=%s", told);
    return rc;
}

/* Say in the run directory where this learner is found. */
static int record(learner_t *learner, struct error *err)
{
    struct rundir_part *part = &learner->record;
    int rc;

    *part = (struct rundir_part){
        .role = "learner",
        .pid = getpid(),
        .process = learner->process,
        .run_id = learner->run.run_id,
    };
    snprintf(part->stats, sizeof(part->stats), "%s", stats_address(learner->stats));
    snprintf(part->control, sizeof(part->control), "%s", post_address(learner->post, PORT_CONTROL, true));
    snprintf(part->network, sizeof(part->network), "%s", learner->network);
    exporter_target(learner->exporter, learner->run.config.advertise, part->metrics);
    if (part->metrics[0] != '\0')
        log_info("metrics", "address=http://%s/metrics", part->metrics);
    dashboard_target(learner->dashboard, learner->run.config.advertise, part->dashboard);
    rc = rundir_record(learner->run.dir, part, err);
    learner->recorded = rc == TD_OK;
    return rc;
}

int learner_bind(learner_t *learner, struct error *err)
{
    struct coordinator_config *settings = &learner->settings;
    int rc;

    if ((rc = runtime_folder(learner->folder, runtime_key(learner->run.dir), err)) != TD_OK ||
        (rc = bind_ipc(learner, PORT_CONTROL, "control", 0, err)) != TD_OK ||
        (rc = bind_ipc(learner, PORT_PARAMS, "params", learner->process, err)) != TD_OK ||
        (rc = bind_ipc(learner, PORT_ANNOUNCE, "announce", learner->process, err)) != TD_OK)
        return rc;
    snprintf(settings->params_ipc, ADDRESS_MAX, "%s", post_address(learner->post, PORT_PARAMS, true));
    snprintf(settings->announce_ipc, ADDRESS_MAX, "%s", post_address(learner->post, PORT_ANNOUNCE, true));
    if (learner->run.config.bind[0] != '\0' && (rc = bind_network(learner, err)) != TD_OK)
        return rc;
    if ((rc = open_stats(learner, err)) != TD_OK)
        return rc;
    return record(learner, err);
}

/* --- children ---------------------------------------------------------------- */

/* The key=value words of a child. */
struct words {
    char text[CHILD_WORDS_MAX][FS_PATH_MAX + 32];
    int count;
};

static void add_word(struct words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_word(struct words *words, const char *format, ...)
{
    va_list args;

    TD_ASSERT(words->count + 1 < CHILD_WORDS_MAX, "%d words", words->count);
    va_start(args, format);
    vsnprintf(words->text[words->count++], sizeof(words->text[0]), format, args);
    va_end(args);
}

static void add_common(struct words *words, const learner_t *learner)
{
    add_word(words, "learner=%s", learner->record.control);
    add_word(words, "run_id=%016" PRIx64, learner->run.run_id);
    add_word(words, "work_dir=%s", learner->run.dir);
    if (strcmp(learner->run.config.log, "text") != 0)
        add_word(words, "log=%s", learner->run.config.log);
}

/* A child shows its metrics where the learner does, at a port of its own. */
static void add_metrics(struct words *words, const learner_t *learner)
{
    const struct config *config = &learner->run.config;
    char address[ADDRESS_MAX];

    exporter_for_child(config->metrics, address);
    if (address[0] == '\0')
        return;
    add_word(words, "metrics=%s", address);
    if (config->metrics_token[0] != '\0')
        add_word(words, "metrics_token=%s", config->metrics_token);
}

static int start(child_t **out, learner_t *learner, const char *name, const char *program,
                 const struct words *words, void (*on_end)(void *, child_t *, int, const char *),
                 void (*on_death)(void *, child_t *), struct error *err)
{
    struct child_options options = {
        .name = name, .program = program, .metrics = learner->metrics, .on_end = on_end,
        .on_death = on_death, .context = learner};
    char log_path[FS_PATH_MAX], file[32];
    int rc;

    snprintf(file, sizeof(file), "%s.log", name);
    if ((rc = run_path(&learner->run, file, log_path, err)) != TD_OK)
        return rc;
    options.log_path = log_path;
    for (int i = 0; i < words->count; i++)
        options.words[i] = words->text[i];
    return child_start(out, learner->loop, &options, err);
}

/*
 * Somebody killed the spawner, and with it shard and evaluator: no other can be forked from within the sandbox. What is
 * left to do is a checkpoint, and an end after which whoever started this learner starts it again.
 */
static void end_without_spawner(learner_t *learner)
{
    if (!learner->childless)
        log_error("tdmpc2-spawner, which starts this learner's children, was killed, and they with it: the learner writes a "
                  "checkpoint and ends; nothing acknowledged is lost, started again it goes on");
    learner->childless = true;
    coordinator_terminate(learner->coordinator, loop_now_ms(learner->loop));
    learner_drain(learner);
}

static void shard_ended(void *context, child_t *child, int code, const char *why)
{
    learner_t *learner = context;

    (void)child;
    if (learner->exiting) {
        learner_stop_children(learner);
        return;
    }
    if (spawner_lost()) {
        end_without_spawner(learner);
        return;
    }
    coordinator_stop(learner->coordinator, loop_now_ms(learner->loop),
                     code == TD_EXIT_OK ? TD_EXIT_GAVE_UP : code, why);
    learner_drain(learner);
}

static void shard_died(void *context, child_t *child)
{
    learner_t *learner = context;

    (void)child;
    if (learner->exiting)
        return;
    coordinator_shard_died(learner->coordinator, loop_now_ms(learner->loop), 0);
    learner_drain(learner);
}

static int start_evaluator(learner_t *learner, struct error *err);

static void evaluator_died(void *context, child_t *child)
{
    learner_t *learner = context;

    (void)child;
    if (learner->exiting)
        return;
    coordinator_evaluator_died(learner->coordinator, loop_now_ms(learner->loop));
    learner_drain(learner);
}

/* The place of the evaluator was taken by a process from elsewhere: ours tries again. */
static void evaluator_again(void *context)
{
    learner_t *learner = context;
    struct error err = {0};

    loop_timer_close(&learner->evaluator_again);
    if (learner->exiting)
        return;
    child_close(&learner->evaluator);
    if (start_evaluator(learner, &err) != TD_OK)
        learner_exit(learner, TD_EXIT_GAVE_UP, err.text);
}

static void evaluator_ended(void *context, child_t *child, int code, const char *why)
{
    learner_t *learner = context;

    (void)child;
    if (learner->exiting) {
        learner_stop_children(learner);
    } else if (spawner_lost()) {
        end_without_spawner(learner);
    } else if (code == TD_EXIT_FENCED) {
        log_warn("another evaluator has this one's place; it tries again", "why=\"%s\"", why);
        if (loop_timer_start(&learner->evaluator_again, learner->loop, 5 * learner->settings.heartbeat_ms, 0,
                             evaluator_again, learner) != TD_OK)
            learner_exit(learner, TD_EXIT_GAVE_UP, "out of memory");
    } else {
        coordinator_stop(learner->coordinator, loop_now_ms(learner->loop), code, why);
        learner_drain(learner);
    }
}

static int start_shard(learner_t *learner, struct error *err)
{
    const struct config *config = &learner->run.config;
    struct words words = {.count = 0};

    add_common(&words, learner);
    add_word(&words, "shard=0");
    add_word(&words, "sandbox=%s", config->sandbox);
    add_word(&words, "shards=%" PRId64, config->shards);
    add_word(&words, "commit_interval_ms=%.17g", config->commit_interval_ms);
    add_word(&words, "disk_limit=%.17g", config->disk_limit);
    add_word(&words, "compress_frames=%s", config->compress_frames ? "true" : "false");
    add_word(&words, "force=%s", config->force ? "true" : "false");
    if (config->replay_dir[0] != '\0')
        add_word(&words, "replay_dir=%s", config->replay_dir);
    if (config->bind[0] != '\0')
        add_word(&words, "bind=%s", config->bind);
    if (config->advertise[0] != '\0')
        add_word(&words, "advertise=%s", config->advertise);
    if (config->insecure)
        add_word(&words, "insecure=true");
    add_metrics(&words, learner);
    if (config->keys[0] != '\0')
        add_word(&words, "keys=%s", config->keys);
    return start(&learner->shard, learner, "replay", "tdmpc2-replay", &words, shard_ended, shard_died, err);
}

static int start_evaluator(learner_t *learner, struct error *err)
{
    struct words words = {.count = 0};

    add_common(&words, learner);
    add_word(&words, "role=evaluator");
    add_word(&words, "sandbox=%s", learner->run.config.sandbox);
    if (learner->run.config.save_video)
        add_word(&words, "save_video=true");
    add_metrics(&words, learner);
    if (learner->exporter != NULL && learner->run.config.insecure)
        add_word(&words, "insecure=true");
    return start(&learner->evaluator, learner, "evaluator", "tdmpc2-actor", &words, evaluator_ended,
                 evaluator_died, err);
}

int learner_start_children(learner_t *learner, struct error *err)
{
    const struct config *config = &learner->run.config;
    int rc = start_shard(learner, err);

    if (rc == TD_OK && !config->lockstep && strcmp(config->evaluator, "auto") == 0)
        rc = start_evaluator(learner, err);
    return rc;
}

/* The evaluator first, then its shard: the next one is told when the one before has ended. */
void learner_stop_children(learner_t *learner)
{
    if (learner->shard != NULL) /* it was told by the coordinator, and may be gone before its turn comes */
        child_may_end(learner->shard);
    if (learner->evaluator != NULL && !child_ended(learner->evaluator))
        child_stop(learner->evaluator, EVALUATOR_PATIENCE_MS);
    else if (learner->shard != NULL && !child_ended(learner->shard))
        child_stop(learner->shard, SHARD_PATIENCE_MS);
    else
        loop_stop(learner->loop);
}
