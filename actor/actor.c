#include "actor/actor.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "actor/report.h"
#include "actor/worker.h"
#include "common/env/env.h"
#include "common/env/watch.h"
#include "common/net/confine.h"
#include "common/net/notify.h"
#include "common/net/post.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/net/stats.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "common/util/log.h"

#define LINGER_MS      1000 /* for the last words */
#define WORKER_STOP_MS 2000 /* for the step under way */
#define REPORT_MS      1000
#define LOOK_AFTER_MS  2500 /* of silence of a learner: see whether it is elsewhere (learner=@DIR) */

struct actor {
    struct actor_options options;
    const char *role; /* "actor" or "evaluator" */
    char learner[ADDRESS_MAX];
    loop_t *loop;
    guard_t *guard; /* or NULL */
    post_t *post;
    session_t *session;
    worker_t *worker;
    metrics_t *metrics;
    stats_t *stats;
    exporter_t *exporter;   /* or NULL */
    loop_wake_t *wake;      /* from the worker */
    loop_timer_t *deadline; /* of the session */
    loop_timer_t *beat;     /* of the report */
    struct report report;
    struct config config;   /* the run's, once known */
    uint32_t environments;
    struct rundir_part part;
    bool joined, recorded;
    bool ending;
    int exit_code;
};

static bool is_evaluator(const actor_t *actor)
{
    return strcmp(actor->options.config.role, "evaluator") == 0;
}

static uint64_t to_ms(double seconds)
{
    return (uint64_t)(seconds * 1000 + 0.5);
}

/* --- the end ---------------------------------------------------------------- */

static void finish(actor_t *actor, int code, const char *why)
{
    if (actor->ending)
        return;
    actor->ending = true;
    actor->exit_code = code;
    if (code == TD_EXIT_OK)
        log_info("leaving", "why=\"%s\"", why);
    else
        log_error("leaving", "why=\"%s\" exit=%d", why, code);
    notify_stopping(why);
    loop_stop(actor->loop);
}

static void give_up(actor_t *actor, int rc, const struct error *err)
{
    finish(actor, error_exit_code(rc), err->text);
}

/* --- what the session wants --------------------------------------------------- */

/* The options that the learner told, with what is this process's own. */
static int read_options(actor_t *actor, const struct bulk *options, struct error *err)
{
    int rc;

    config_init(&actor->config);
    if ((rc = config_read(&actor->config, options->data, options->size, "the learner's options", NULL,
                          err)) != TD_OK ||
        (rc = config_resume(&actor->config, &actor->options.config, actor->options.given, NULL, err)) !=
            TD_OK)
        return rc;
    return config_check(&actor->config, err);
}

static void configure(actor_t *actor, const struct bulk *options)
{
    struct worker_options worker = {
        .background = is_evaluator(actor),
        .metrics = actor->metrics,
        .wake = loop_wake_send,
        .context = actor->wake,
    };
    struct error err = {0};
    int rc = read_options(actor, options, &err);

    worker.config = actor->config;
    actor->environments = is_evaluator(actor) ? 1 : (uint32_t)actor->config.envs;
    worker.environments = (int)actor->environments;
    worker.threads = (int)actor->config.threads;
    if (worker.threads == 0 && !is_evaluator(actor) && !actor->config.lockstep)
        worker.threads = 1; /* the others are the learner's and other actors' */
    if (rc == TD_OK)
        rc = worker_create(&actor->worker, &worker, &err);
    if (rc != TD_OK)
        give_up(actor, rc, &err);
}

static void connect_to(actor_t *actor, const struct session_output *output)
{
    struct error err = {0};
    int rc = post_connect(actor->post, &output->peer, output->address, &err);

    log_debug("connecting", "port=%u address=%s", output->peer.port, output->address);
    if (rc != TD_OK)
        give_up(actor, rc, &err);
}

static void send_message(actor_t *actor, const struct session_output *output)
{
    if (output->message.kind == MESSAGE_ROWS)
        report_rows(&actor->report, &output->message.rows, clock_ns());
    post_send(actor->post, &output->peer, &output->message);
}

static void command(actor_t *actor, const struct session_output *output)
{
    struct error err = {0};
    int rc;

    if (actor->worker == NULL) /* an abandonment before there is anything */
        return;
    rc = worker_command(actor->worker, output, &err);
    if (rc != TD_OK)
        give_up(actor, rc, &err);
}

static bool may_use(const actor_t *actor, const char *address, struct error *err)
{
    const struct config *config = &actor->options.config;

    return address_check(address, config->insecure || config->keys[0] != '\0', err) == TD_OK;
}

static void carry_out(actor_t *actor, const struct session_output *output)
{
    switch (output->kind) {
    case OUTPUT_SEND:
        send_message(actor, output);
        break;
    case OUTPUT_CONNECT:
        connect_to(actor, output);
        break;
    case OUTPUT_DISCONNECT:
        post_disconnect(actor->post, &output->peer);
        break;
    case OUTPUT_LOG:
        log_write((enum log_level)output->log.level, output->log.text, "%s", "");
        break;
    case OUTPUT_EXIT:
        finish(actor, output->exit.code, output->exit.text);
        break;
    case COMMAND_CONFIGURE:
        configure(actor, &output->configure.options);
        break;
    default:
        command(actor, output);
        break;
    }
}

/* Carry out all it wants, and come back when it asks to. Every feeding of the session ends here. */
static void drain(actor_t *actor)
{
    struct session_output output;
    uint64_t at, now;

    while (!actor->ending && session_next(actor->session, &output))
        carry_out(actor, &output);
    if (actor->ending)
        return;
    at = session_deadline(actor->session);
    now = loop_now_ms(actor->loop);
    if (at == UINT64_MAX)
        loop_timer_pause(actor->deadline);
    else
        loop_timer_again(actor->deadline, at > now ? at - now : 1, 0);
}

static void on_deadline(void *context)
{
    actor_t *actor = context;

    session_tick(actor->session, loop_now_ms(actor->loop));
    drain(actor);
}

static void on_signal(void *context, int signum, int count)
{
    actor_t *actor = context;

    if (count > 1) {
        log_warn("told a second time: leaving at once", "signal=%d", signum);
        _exit(TD_EXIT_INTERRUPTED);
    }
    log_info("told to leave", "signal=%d", signum);
    notify_stopping("handing over what is not acknowledged");
    session_terminate(actor->session, loop_now_ms(actor->loop));
    drain(actor);
}

/* --- what the worker did ------------------------------------------------------ */

static void ready(actor_t *actor, const struct worker_result *result)
{
    struct session_setup setup = {
        .spec = result->spec,
        .environments = actor->environments,
        .threads = actor->config.threads > 1 ? (uint32_t)actor->config.threads : 1,
        .seed = (uint64_t)actor->config.seed,
        .outbox = (uint64_t)actor->config.outbox,
        .max_staleness = (uint64_t)actor->config.max_staleness,
        .heartbeat_ms = to_ms(actor->config.heartbeat),
        .timeout_ms = to_ms(actor->config.learner_timeout),
        .snapshot_bytes = result->snapshot_bytes,
    };

    log_info("ready", "task=%s obs=%u action=%u parameters_bytes=%zu", actor->config.task,
             result->spec.obs_dim, result->spec.action_dim, result->snapshot_bytes);
    session_configured(actor->session, loop_now_ms(actor->loop), &setup);
}

static void hand_over(actor_t *actor, const struct worker_result *result)
{
    uint64_t now = loop_now_ms(actor->loop);

    switch (result->kind) {
    case WORKER_READY:
        ready(actor, result);
        break;
    case WORKER_FAILED:
        give_up(actor, result->err.code, &result->err);
        break;
    case COMMAND_RESTORE:
        if (!result->ok)
            log_error("the environment's state was refused", "why=\"%s\"", result->err.text);
        session_restored(actor->session, now, result->token, result->ok);
        break;
    case COMMAND_RESET:
    case COMMAND_STEP:
        if (!result->lost)
            report_step(&actor->report, result->environment, &result->step, result->kind == COMMAND_RESET);
        session_stepped(actor->session, now, result->token, &result->step);
        break;
    case COMMAND_CAPTURE:
        session_captured(actor->session, now, result->token, result->state);
        break;
    case COMMAND_EVALUATE:
        if (!result->ended)
            break;
        report_evaluation(&actor->report, &result->evaluation);
        session_evaluated(actor->session, now, result->token, &result->evaluation);
        break;
    default:
        session_adopted(actor->session, now, result->token, result->ok);
        break;
    }
}

static void on_worker(void *context)
{
    actor_t *actor = context;
    const struct worker_result *result;

    while (!actor->ending && actor->worker != NULL && (result = worker_next(actor->worker)) != NULL) {
        hand_over(actor, result);
        if (!result->more) /* what follows from all of them is commanded together */
            drain(actor);
    }
}

/* --- what others say ------------------------------------------------------------ */

/* The address file in the run directory, if this machine has it. */
static void record(actor_t *actor)
{
    struct error err = {0};

    if (actor->options.config.work_dir[0] == '\0')
        return;
    if (rundir_record(actor->options.config.work_dir, &actor->part, &err) == TD_OK)
        actor->recorded = true;
    else
        log_warn("`tdmpc2 stats` will not find this part", "why=\"%s\"", err.text);
}

/* A place was given: from now on this part has a number. */
static void joined(actor_t *actor, const struct message *message)
{
    const struct welcome *welcome = &message->welcome;

    if (actor->joined && actor->part.id == (int)welcome->slot)
        return;
    if (actor->recorded)
        rundir_forget(actor->options.config.work_dir, &actor->part);
    actor->joined = true;
    actor->recorded = false;
    actor->part.id = (int)welcome->slot;
    actor->part.run_id = message->run;
    log_init(actor->role, actor->part.id, message->run, STDERR_FILENO);
    metrics_set_owner(actor->metrics, actor->part.id, message->run);
    record(actor);
    log_info("joined", "learner=%s epoch=%u phase=%s", actor->learner, welcome->learner_epoch,
             phase_name(welcome->phase));
}

static void on_message(void *context, const struct peer *peer, const struct message *message)
{
    actor_t *actor = context;
    struct session_view view;

    if (actor->ending)
        return;
    if (message->kind == MESSAGE_WELCOME && message->welcome.has_slot)
        post_expect_shard(actor->post, message->welcome.shard);
    if (message->kind == MESSAGE_ACK)
        report_ack(&actor->report, &message->ack, clock_ns());
    session_receive(actor->session, loop_now_ms(actor->loop), peer, message);
    if (message->kind == MESSAGE_WELCOME && message->welcome.has_slot) {
        session_view(actor->session, loop_now_ms(actor->loop), &view);
        if (view.seated && view.slot == message->welcome.slot)
            joined(actor, message);
    }
    drain(actor);
}

/* learner=@DIR: a learner that came back elsewhere has said there where it is now. */
static void look_for_learner(actor_t *actor)
{
    const char *given = actor->options.config.learner;
    const struct peer control = {.port = PORT_CONTROL};
    char found[ADDRESS_MAX];
    struct session_view view;
    uint64_t now = loop_now_ms(actor->loop);
    struct error err;

    session_view(actor->session, now, &view);
    if (given[0] != '@' || actor->ending || now < view.learner_heard_ms + LOOK_AFTER_MS ||
        rundir_learner(given + 1, found, &err) != TD_OK || strcmp(found, actor->learner) == 0 || !may_use(actor, found, &err))
        return;
    log_info("the learner is elsewhere", "learner=%s before=%s", found, actor->learner);
    memcpy(actor->learner, found, sizeof(actor->learner));
    if (post_connect(actor->post, &control, found, &err) != TD_OK)
        give_up(actor, err.code, &err);
}

static void refresh(void *context)
{
    actor_t *actor = context;
    struct session_view view;

    session_view(actor->session, loop_now_ms(actor->loop), &view);
    report_view(&actor->report, &view, loop_now_ms(actor->loop));
}

/* It does its work once it has a seat. */
static void tell_systemd(actor_t *actor)
{
    uint64_t now = loop_now_ms(actor->loop);
    struct session_view view;

    session_view(actor->session, now, &view);
    if (view.seated)
        notify_ready();
    notify_status("%s, %llu agent steps%s%s", view.seated ? "seated" : "not yet seated", (unsigned long long)view.steps,
                  view.waiting != WAITING_NOTHING ? ", waits for " : "",
                  view.waiting != WAITING_NOTHING ? waiting_name(view.waiting) : "");
    notify_beat(now);
}

/* Nothing interrupts an environment in this process; who waits for one that hangs waits for ever. */
static void beat(void *context)
{
    actor_t *actor = context;
    char why[300];

    refresh(actor);
    tell_systemd(actor);
    look_for_learner(actor);
    if (watch_overdue(env_timeout_ms(), why, sizeof(why)))
        finish(actor, TD_EXIT_GAVE_UP, why);
}

/* --- life ------------------------------------------------------------------------- */

/* Where the learner is: as told, or as the run directory says. */
static int find_learner(actor_t *actor, struct error *err)
{
    const struct config *config = &actor->options.config;
    struct rundir_part learner;
    int rc;

    if (config->learner[0] == '\0' && config->work_dir[0] == '\0')
        return error_set(err, TD_EINVAL, "whom to join? give learner=ADDRESS as the learner printed it, "
                                         "or work_dir=DIR of a run on this machine");
    if (config->learner[0] == '@') {
        if ((rc = rundir_await_learner(config->learner + 1, actor->learner, to_ms(config->learner_timeout), err)) != TD_OK)
            return rc;
    } else if (config->learner[0] != '\0') {
        if (strlen(config->learner) >= sizeof(actor->learner))
            return error_set(err, TD_EINVAL, "learner=%.60s...: too long for an address", config->learner);
        strcpy(actor->learner, config->learner);
    } else {
        if ((rc = rundir_find(config->work_dir, "learner", 0, &learner, NULL)) != TD_OK)
            return error_set(err, rc, "no learner is known in %s: start one there, or give learner=ADDRESS",
                             config->work_dir);
        memcpy(actor->learner, learner.control, sizeof(actor->learner));
    }
    return may_use(actor, actor->learner, err) ? TD_OK : err->code;
}

/* Whose key this part has: with keys an actor's slot is that of its key. */
static int find_key(actor_t *actor, struct identity *self, struct error *err)
{
    struct config *config = &actor->options.config;
    int rc = TD_OK;

    *self = (struct identity){.role = is_evaluator(actor) ? ROLE_EVALUATOR : ROLE_ACTOR};
    if (is_evaluator(actor))
        return TD_OK;
    if (config->actor < 0 && (rc = keys_only_actor(&self->number, config->keys, err)) == TD_OK)
        config->actor = self->number;
    self->number = (uint32_t)config->actor;
    return rc;
}

static int open_stats(actor_t *actor, struct error *err)
{
    const struct config *config = &actor->options.config;
    uint64_t process = actor->options.process;
    uint64_t key = config->work_dir[0] != '\0' ? runtime_key(config->work_dir)
                                               : XXH3_64bits(actor->learner, strlen(actor->learner));
    char folder[RUNTIME_PATH_MAX], address[ADDRESS_MAX];
    struct stats_options options = {.address = address, .refresh = refresh, .context = actor,
                                    .exporter = actor->exporter};
    int rc;

    if ((rc = runtime_folder(folder, key, err)) != TD_OK ||
        (rc = rundir_address(address, folder, actor->role, process, err)) != TD_OK ||
        (rc = stats_open(&actor->stats, actor->loop, actor->metrics, &options, err)) != TD_OK ||
        (rc = exporter_start(actor->exporter, err)) != TD_OK)
        return rc;
    memcpy(actor->part.stats, address, sizeof(actor->part.stats));
    exporter_target(actor->exporter, config->advertise, actor->part.metrics);
    if (actor->part.metrics[0] != '\0')
        log_info("metrics", "address=http://%s/metrics", actor->part.metrics);
    return TD_OK;
}

static int open_session(actor_t *actor, struct error *err)
{
    const struct config *config = &actor->options.config;
    struct session_config session = {
        .run = actor->options.run,
        .process = actor->options.process,
        .role = is_evaluator(actor) ? ROLE_EVALUATOR : ROLE_ACTOR,
        .slot = is_evaluator(actor) ? -1 : config->actor,
        .heartbeat_ms = to_ms(config->heartbeat),
        .timeout_ms = to_ms(config->learner_timeout),
    };

    memcpy(session.control, actor->learner, sizeof(session.control));
    return session_create(&actor->session, &session, err);
}

static int open_sockets(actor_t *actor, struct error *err)
{
    struct post_options post = {
        .process = actor->options.process,
        .run = actor->options.run,
        .insecure = actor->options.config.insecure,
        .metrics = actor->metrics,
        .on_message = on_message,
        .context = actor,
    };
    struct identity self;
    int rc;

    if ((rc = loop_create(&actor->loop, err)) != TD_OK)
        return rc;
    if (actor->options.config.keys[0] != '\0' &&
        ((rc = find_key(actor, &self, err)) != TD_OK ||
         (rc = guard_open(&actor->guard, actor->loop, actor->options.config.keys, &self, err)) != TD_OK))
        return rc;
    post.guard = actor->guard;
    if ((rc = post_open(&actor->post, actor->loop, &post, err)) != TD_OK)
        return rc;
    if ((rc = loop_wake_create(&actor->wake, actor->loop, on_worker, actor)) != TD_OK ||
        (rc = loop_timer_start(&actor->deadline, actor->loop, 0, 0, on_deadline, actor)) != TD_OK ||
        (rc = loop_timer_start(&actor->beat, actor->loop, REPORT_MS, REPORT_MS, beat, actor)) != TD_OK)
        return error_set(err, rc, "out of memory for timers");
    return loop_signals(actor->loop, on_signal, actor, err);
}

int actor_create(actor_t **out, const struct actor_options *options, struct error *err)
{
    actor_t *actor = calloc(1, sizeof(*actor));
    static struct sandbox keep; /* large */
    struct metrics_owner owner = {.roles = METRIC_ACTOR, .process = options->process, .run_id = options->run};
    int rc;

    *out = NULL;
    if (actor == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    watch_deaths();
    actor->options = *options;
    actor->role = owner.role = is_evaluator(actor) ? "evaluator" : "actor";
    owner.id = actor->part.id = options->config.actor >= 0 ? (int)options->config.actor : 0;
    memcpy(actor->part.role, actor->role, strlen(actor->role) + 1);
    actor->part.pid = getpid();
    actor->part.process = options->process;
    log_set_format(options->config.log);
    log_init(actor->role, (int)options->config.actor, options->run, STDERR_FILENO); /* -1: not known yet */
    if ((rc = exporter_open(&actor->exporter, &options->config, err)) == TD_OK && (rc = find_learner(actor, err)) == TD_OK) {
        confine_actor(&keep, &actor->options.config);
        rc = confine_files(&keep, &actor->options.config, err);
    }
    if (rc == TD_OK && (rc = metrics_create(&actor->metrics, &owner)) != TD_OK)
        error_set(err, rc, "out of memory for metrics");
    if (rc == TD_OK)
        report_init(&actor->report, actor->metrics);
    if (rc == TD_OK && (rc = open_sockets(actor, err)) == TD_OK &&
        (rc = open_session(actor, err)) == TD_OK && (rc = open_stats(actor, err)) == TD_OK &&
        (rc = confine_calls(&keep, &actor->options.config, err)) == TD_OK) {
        *out = actor;
        return TD_OK;
    }
    actor_destroy(&actor);
    return rc;
}

int actor_run(actor_t *actor)
{
    log_info("starting", "learner=%s process=%016llx pid=%ld", actor->learner,
             (unsigned long long)actor->options.process, (long)getpid());
    loop_run(actor->loop);
    return actor->exit_code;
}

bool actor_destroy(actor_t **out)
{
    actor_t *actor = *out;

    if (actor == NULL)
        return true;
    if (actor->recorded)
        rundir_forget(actor->options.config.work_dir, &actor->part);
    stats_close(&actor->stats);
    exporter_close(&actor->exporter);
    post_close(&actor->post, LINGER_MS);
    guard_close(&actor->guard);
    if (actor->worker != NULL && !worker_stop(actor->worker, WORKER_STOP_MS)) {
        channel_shutdown();
        return false;
    }
    worker_destroy(&actor->worker);
    session_destroy(&actor->session);
    loop_destroy(&actor->loop);
    channel_shutdown();
    metrics_destroy(&actor->metrics);
    free(actor);
    *out = NULL;
    return true;
}
