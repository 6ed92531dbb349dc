#include "learner/replay/daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/metrics/metrics.h"
#include "common/net/notify.h"
#include "common/net/post.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/net/stats.h"
#include "common/util/clock.h"
#include "common/util/log.h"

#define WAIT_LINE_MS 5000u /* a wait longer than this is a line in the log */
#define LINGER_MS    1000  /* for the last words */

struct daemon {
    struct daemon_config config;
    pid_t parent; /* at the start */
    loop_t *loop;
    guard_t *guard; /* or NULL */
    post_t *post;
    shard_t *shard;
    metrics_t *metrics;
    stats_t *stats;
    loop_timer_t *timer, *second;
    loop_wake_t *wake;
    uint64_t timer_at;

    uint64_t received, seen; /* messages, now and when the loop last came round */
    struct shard_view told;  /* counters as last added to the metrics */
    char waiting[OUTPUT_TEXT_MAX];
    uint64_t waiting_since_ms;
    bool waiting_told;
    struct rundir_part part;
    struct shard_output output; /* being carried out; large */
    int code;
};

/* --- the machine's words --------------------------------------------------- */

static void carry_out(struct daemon *daemon, const struct shard_output *output)
{
    struct error err = {0};

    switch (output->kind) {
    case OUTPUT_SEND:
        post_send(daemon->post, &output->peer, &output->message);
        break;
    case OUTPUT_CONNECT:
        if (post_connect(daemon->post, &output->peer, output->address, &err) != TD_OK) {
            log_error("cannot connect", "to=%s why=\"%s\"", output->address, err.text);
            daemon->code = error_exit_code(err.code);
            loop_stop(daemon->loop);
        }
        break;
    case OUTPUT_DISCONNECT:
        post_disconnect(daemon->post, &output->peer);
        break;
    case OUTPUT_LOG:
        log_write((enum log_level)output->log.level, output->log.text, "");
        break;
    case OUTPUT_EXIT:
        log_write(output->exit.code == TD_EXIT_OK ? LOG_INFO : LOG_ERROR, "exit", "code=%d why=\"%s\"",
                  output->exit.code, output->exit.text);
        notify_stopping(output->exit.text);
        daemon->code = output->exit.code;
        loop_stop(daemon->loop);
        break;
    default:
        TD_ASSERT(false, "output %u", output->kind);
    }
}

/* Set the timer to the machine's next deadline, if that moved. */
static void set_timer(struct daemon *daemon)
{
    uint64_t at = shard_deadline(daemon->shard), now = loop_now_ms(daemon->loop);

    if (at == daemon->timer_at || at == UINT64_MAX)
        return;
    daemon->timer_at = at;
    loop_timer_again(daemon->timer, at > now ? at - now : 0, 0);
}

/* Carry out everything; then sync what waits for it when the loop comes round. */
static void drain(struct daemon *daemon)
{
    for (;;) {
        uint64_t start = clock_ns();

        if (!shard_next(daemon->shard, &daemon->output))
            break;
        if (daemon->output.kind == OUTPUT_SEND && daemon->output.message.kind == MESSAGE_SLICES)
            metrics_record(daemon->metrics, METRIC_sample_ms, (double)(clock_ns() - start) * 1e-6);
        carry_out(daemon, &daemon->output);
    }
    if (shard_dirty(daemon->shard))
        loop_wake_send(daemon->wake);
    set_timer(daemon);
}

static void commit(struct daemon *daemon)
{
    uint64_t start = clock_ns();

    shard_commit(daemon->shard, loop_now_ms(daemon->loop));
    metrics_record(daemon->metrics, METRIC_commit_ms, (double)(clock_ns() - start) * 1e-6);
    drain(daemon);
}

/* The loop came round: commit, unless messages are still coming and the batch is young. */
static void on_round(void *context)
{
    struct daemon *daemon = context;
    bool more = daemon->received != daemon->seen;

    daemon->seen = daemon->received;
    if (!shard_dirty(daemon->shard))
        return;
    if (more && loop_now_ms(daemon->loop) < shard_commit_due(daemon->shard))
        loop_wake_send(daemon->wake);
    else
        commit(daemon);
}

static void on_message(void *context, const struct peer *peer, const struct message *message)
{
    struct daemon *daemon = context;

    daemon->received++;
    shard_receive(daemon->shard, loop_now_ms(daemon->loop), peer, message);
    drain(daemon);
}

static void on_timer(void *context)
{
    struct daemon *daemon = context;

    daemon->timer_at = 0;
    shard_tick(daemon->shard, loop_now_ms(daemon->loop));
    drain(daemon);
}

static void on_signal(void *context, int signum, int count)
{
    struct daemon *daemon = context;
    bool orphan = daemon->config.child && getppid() != daemon->parent;

    if (count > 1)
        _exit(TD_EXIT_INTERRUPTED);
    log_info("signal", "number=%d orphan=%d", signum, orphan);
    notify_stopping("asked to");
    shard_terminate(daemon->shard, loop_now_ms(daemon->loop), orphan);
    drain(daemon);
}

/* --- statistics ------------------------------------------------------------ */

static void add(struct daemon *daemon, enum metric metric, uint64_t now, uint64_t *told)
{
    metrics_add(daemon->metrics, metric, now - *told);
    *told = now;
}

static void add_counters(struct daemon *daemon, const struct shard_view *view)
{
    struct shard_view *told = &daemon->told;

    add(daemon, METRIC_rows_stored, view->rows_stored, &told->rows_stored);
    add(daemon, METRIC_rows_repeated, view->rows_repeated, &told->rows_repeated);
    add(daemon, METRIC_rows_refused, view->rows_refused, &told->rows_refused);
    add(daemon, METRIC_slices, view->slices, &told->slices);
    add(daemon, METRIC_commits, view->commits, &told->commits);
    add(daemon, METRIC_segments_bad, view->segments_bad, &told->segments_bad);
    add(daemon, METRIC_rows_lost, view->rows_lost, &told->rows_lost);
    add(daemon, METRIC_episodes_aborted, view->aborted, &told->aborted);
    add(daemon, METRIC_episodes, view->sealed, &told->sealed);
}

static void refresh(void *context)
{
    struct daemon *daemon = context;
    struct shard_view view;
    char damage[METRICS_TEXT_MAX];

    shard_view(daemon->shard, loop_now_ms(daemon->loop), &view);
    add_counters(daemon, &view);
    metrics_set(daemon->metrics, METRIC_streams_live, (double)view.streams_live);
    metrics_set(daemon->metrics, METRIC_learner_epoch, view.learner_epoch);
    metrics_set(daemon->metrics, METRIC_resident_bytes, (double)process_resident_bytes());
    metrics_text(daemon->metrics, METRIC_waiting, "%s", view.wait);
    metrics_text(daemon->metrics, METRIC_damage, "%s", status_damage(&(struct status){
        .rescued = view.rescued, .lost_rows = view.rows_lost, .lost_episodes = view.episodes_lost,
        .lost_uncertain = view.lost_uncertain, .bad_segments = view.segments_bad}, damage, sizeof(damage)));
    if (view.counts == NULL)
        return;
    metrics_set(daemon->metrics, METRIC_agent_steps, (double)view.counts->steps);
    metrics_set(daemon->metrics, METRIC_replay_rows, (double)view.episode_rows);
    metrics_set(daemon->metrics, METRIC_replay_episodes, (double)view.episodes);
    metrics_set(daemon->metrics, METRIC_replay_bytes, (double)view.used);
    metrics_set(daemon->metrics, METRIC_replay_room, view.room);
}

/* It listens and has its folder for itself; the store is opened at the learner's first word. */
static void tell_systemd(const struct shard_view *view, uint64_t now_ms)
{
    notify_ready();
    if (view->counts != NULL)
        notify_status("%llu rows, %llu episodes, %llu streams%s%s", (unsigned long long)view->episode_rows,
                      (unsigned long long)view->episodes, (unsigned long long)view->streams_live,
                      view->wait[0] != '\0' ? ", " : "", view->wait);
    else
        notify_status("%s", view->wait);
    notify_beat(now_ms);
}

/* Once a second: waits that take long are said, and counted. */
static void on_second(void *context)
{
    struct daemon *daemon = context;
    uint64_t now = loop_now_ms(daemon->loop);
    struct shard_view view;

    refresh(daemon);
    shard_view(daemon->shard, now, &view);
    tell_systemd(&view, now);
    if (strcmp(view.wait, daemon->waiting) != 0) {
        if (daemon->waiting_told)
            log_info("wait over", "what=\"%s\" seconds=%llu", daemon->waiting,
                     (unsigned long long)((now - daemon->waiting_since_ms) / 1000));
        memcpy(daemon->waiting, view.wait, sizeof(daemon->waiting));
        daemon->waiting_since_ms = now;
        daemon->waiting_told = false;
    }
    if (view.wait[0] == '\0')
        return;
    if (view.learner_away)
        metrics_add(daemon->metrics, METRIC_wait_learner_ms, 1000);
    if (!daemon->waiting_told && now - daemon->waiting_since_ms >= WAIT_LINE_MS) {
        log_warn(view.wait, "seconds=%llu",
                 (unsigned long long)((now - daemon->waiting_since_ms) / 1000));
        daemon->waiting_told = true;
    }
}

static int open_stats(struct daemon *daemon, const char *folder, struct error *err)
{
    struct stats_options options = {.insecure = daemon->config.insecure, .refresh = refresh,
                                    .context = daemon, .exporter = daemon->config.exporter};
    char address[ADDRESS_MAX], name[32];
    int rc;

    snprintf(name, sizeof(name), "replay%u-stats", daemon->config.shard.shard);
    if ((rc = rundir_address(address, folder, name, daemon->config.shard.process, err)) != TD_OK)
        return rc;
    options.address = address;
    if ((rc = stats_open(&daemon->stats, daemon->loop, daemon->metrics, &options, err)) != TD_OK ||
        (rc = exporter_start(daemon->config.exporter, err)) != TD_OK)
        return rc;
    exporter_target(daemon->config.exporter, daemon->config.advertise, daemon->part.metrics);
    if (daemon->part.metrics[0] != '\0')
        log_info("metrics", "address=http://%s/metrics", daemon->part.metrics);
    if (daemon->config.run_dir[0] == '\0') {
        log_info("statistics", "address=%s", stats_address(daemon->stats));
        return TD_OK;
    }
    memcpy(daemon->part.role, "replay", 7);
    daemon->part.id = (int)daemon->config.shard.shard;
    daemon->part.pid = getpid();
    daemon->part.process = daemon->config.shard.process;
    daemon->part.run_id = daemon->config.shard.run;
    snprintf(daemon->part.stats, sizeof(daemon->part.stats), "%s", stats_address(daemon->stats));
    return rundir_record(daemon->config.run_dir, &daemon->part, err);
}

/* --- sockets --------------------------------------------------------------- */

/* The host to be told, when another than the one bound to. */
static int advertised(struct daemon *daemon, const char *bound, char out[ADDRESS_MAX], struct error *err)
{
    if (daemon->config.advertise[0] != '\0')
        return address_with_host(out, bound, daemon->config.advertise, err);
    if (address_is_wildcard(bound))
        return error_set(err, TD_EINVAL,
                         "bind=%s listens everywhere: say with advertise=HOST where others find it",
                         bound);
    snprintf(out, ADDRESS_MAX, "%s", bound);
    return TD_OK;
}

/*
 * Over tcp: ingest at bind's port, or any port for the learner's child (the learner itself has bind's);
 * samples at any port, when the learner is on another host.
 */
static int bind_tcp(struct daemon *daemon, struct error *err)
{
    struct shard_config *shard = &daemon->config.shard;
    char address[ADDRESS_MAX];
    int rc;

    if (daemon->config.bind[0] == '\0' || address_is_ipc(daemon->config.bind))
        return TD_OK;
    snprintf(address, sizeof(address), "%s", daemon->config.bind);
    if (daemon->config.child && (rc = address_with_port(address, daemon->config.bind, "*", err)) != TD_OK)
        return rc;
    if ((rc = post_bind(daemon->post, PORT_INGEST, address, err)) != TD_OK ||
        (rc = advertised(daemon, post_address(daemon->post, PORT_INGEST, false), shard->ingest_tcp,
                         err)) != TD_OK)
        return rc;
    if (!daemon->config.sample_tcp)
        return TD_OK;
    if ((rc = address_with_port(address, daemon->config.bind, "*", err)) != TD_OK ||
        (rc = post_bind(daemon->post, PORT_SAMPLE, address, err)) != TD_OK)
        return rc;
    return advertised(daemon, post_address(daemon->post, PORT_SAMPLE, false), shard->sample, err);
}

static int bind_ipc(struct daemon *daemon, const char *folder, struct error *err)
{
    struct shard_config *shard = &daemon->config.shard;
    char name[32];
    int rc;

    snprintf(name, sizeof(name), "replay%u-ingest", shard->shard);
    if ((rc = rundir_address(shard->ingest_ipc, folder, name, shard->process, err)) != TD_OK ||
        (rc = post_bind(daemon->post, PORT_INGEST, shard->ingest_ipc, err)) != TD_OK)
        return rc;
    snprintf(name, sizeof(name), "replay%u-sample", shard->shard);
    if ((rc = rundir_address(shard->sample, folder, name, shard->process, err)) != TD_OK)
        return rc;
    return post_bind(daemon->post, PORT_SAMPLE, shard->sample, err);
}

/* --- life ------------------------------------------------------------------ */

static int open_loop(struct daemon *daemon, struct error *err)
{
    struct metrics_owner owner = {.role = "replay", .roles = METRIC_SHARD,
                                  .id = (int)daemon->config.shard.shard,
                                  .process = daemon->config.shard.process,
                                  .run_id = daemon->config.shard.run};
    struct post_options options = {.process = daemon->config.shard.process,
                                   .run = daemon->config.shard.run,
                                   .insecure = daemon->config.insecure,
                                   .on_message = on_message,
                                   .context = daemon};
    struct identity self = {ROLE_SHARD, daemon->config.shard.shard};
    int rc;

    if ((rc = loop_create(&daemon->loop, err)) != TD_OK)
        return rc;
    if (daemon->config.keys[0] != '\0' &&
        (rc = guard_open(&daemon->guard, daemon->loop, daemon->config.keys, &self, err)) != TD_OK)
        return rc;
    options.guard = daemon->guard;
    if (metrics_create(&daemon->metrics, &owner) != TD_OK ||
        loop_wake_create(&daemon->wake, daemon->loop, on_round, daemon) != TD_OK ||
        loop_timer_start(&daemon->timer, daemon->loop, 0, 0, on_timer, daemon) != TD_OK ||
        loop_timer_start(&daemon->second, daemon->loop, 1000, 1000, on_second, daemon) != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory for a replay shard");
    options.metrics = daemon->metrics;
    return post_open(&daemon->post, daemon->loop, &options, err);
}

/* Reading a large store before it is opened, its tree or, when that is damaged, all of it: past two seconds. */
static void log_check(void *context, uint64_t done, uint64_t total)
{
    static uint64_t next_ms;
    uint64_t now = clock_ms();

    (void)context;
    if (next_ms == 0)
        next_ms = now + 2000;
    if (now < next_ms)
        return;
    next_ms = now + 2000;
    notify_extend(60);
    log_info("checking the replay store", "done=%llu of=%llu", (unsigned long long)done, (unsigned long long)total);
}

static int open_all(struct daemon *daemon, struct error *err)
{
    struct shard_config *shard = &daemon->config.shard;
    char folder[RUNTIME_PATH_MAX];
    const char *key = daemon->config.run_dir[0] != '\0' ? daemon->config.run_dir : shard->dir;
    int rc;

    store_guard(shard->dir);
    shard->progress = log_check;
    if ((rc = runtime_folder(folder, runtime_key(key), err)) != TD_OK ||
        (rc = open_loop(daemon, err)) != TD_OK || (rc = bind_ipc(daemon, folder, err)) != TD_OK ||
        (rc = bind_tcp(daemon, err)) != TD_OK ||
        (rc = shard_create(&daemon->shard, shard, loop_now_ms(daemon->loop), err)) != TD_OK ||
        /* only now: while it waits for the store's last owner a signal just ends the process */
        (rc = loop_signals(daemon->loop, on_signal, daemon, err)) != TD_OK)
        return rc;
    if ((rc = open_stats(daemon, folder, err)) != TD_OK)
        return rc;
    return confine_calls(daemon->config.keep, daemon->config.options, err);
}

static void close_all(struct daemon *daemon)
{
    if (daemon->part.role[0] != '\0')
        rundir_forget(daemon->config.run_dir, &daemon->part);
    stats_close(&daemon->stats);
    exporter_close(&daemon->config.exporter);
    post_close(&daemon->post, LINGER_MS);
    guard_close(&daemon->guard);
    loop_wake_close(&daemon->wake);
    loop_timer_close(&daemon->timer);
    loop_timer_close(&daemon->second);
    loop_destroy(&daemon->loop);
    shard_destroy(&daemon->shard);
    metrics_destroy(&daemon->metrics);
    channel_shutdown();
}

int daemon_run(const struct daemon_config *config)
{
    struct daemon *daemon = calloc(1, sizeof(*daemon));
    struct error err = {0};
    int rc, code;

    if (daemon == NULL) {
        log_error("out of memory for a replay shard", "code=%d", TD_EXIT_GAVE_UP);
        return TD_EXIT_GAVE_UP;
    }
    daemon->config = *config;
    daemon->parent = getppid();
    rc = open_all(daemon, &err);
    if (rc == TD_OK) {
        log_info("serving", "dir=%s ingest=%s tcp=%s sample=%s", config->shard.dir,
                 daemon->config.shard.ingest_ipc, daemon->config.shard.ingest_tcp,
                 daemon->config.shard.sample);
        drain(daemon);
        loop_run(daemon->loop);
    } else {
        log_error(err.text, "code=%d", error_exit_code(rc));
        daemon->code = error_exit_code(rc);
    }
    code = daemon->code;
    close_all(daemon);
    free(daemon);
    return code;
}
