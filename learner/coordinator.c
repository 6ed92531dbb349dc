/* Entries, time, publications, checkpoints and the end of the coordinator. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learner/coordinator_private.h"

/* --- outputs ---------------------------------------------------------------- */

struct coordinator_output *coordinator_command(struct coordinator *c, uint32_t kind)
{
    struct coordinator_output *output = output_queue_push(&c->outputs);

    output->kind = kind;
    return output;
}

struct message *coordinator_send(struct coordinator *c, const struct peer *peer, uint32_t kind)
{
    struct coordinator_output *output = coordinator_command(c, OUTPUT_SEND);

    output->peer = *peer;
    output->message.kind = kind;
    output->message.run = c->config.run;
    return &output->message;
}

void coordinator_log(struct coordinator *c, int level, const char *format, ...)
{
    struct coordinator_output *output = coordinator_command(c, OUTPUT_LOG);
    va_list args;

    output->log.level = level;
    va_start(args, format);
    vsnprintf(output->log.text, sizeof(output->log.text), format, args);
    va_end(args);
}

void coordinator_exit(struct coordinator *c, int code, const char *format, ...)
{
    struct coordinator_output *output;
    va_list args;

    if (c->exited)
        return;
    output = coordinator_command(c, OUTPUT_EXIT);
    output->exit.code = code;
    va_start(args, format);
    vsnprintf(output->exit.text, sizeof(output->exit.text), format, args);
    va_end(args);
    c->exited = true;
}

/* What is waited for at this moment; the first of a pass counts. */
void coordinator_wait(struct coordinator *c, enum wait_kind kind, const char *format, ...)
{
    va_list args;

    if (c->wait_next != NULL)
        return;
    c->wait_next = format;
    c->wait_kind = kind;
    va_start(args, format);
    vsnprintf(c->wait, sizeof(c->wait), format, args);
    va_end(args);
}

/* Begin to end; a worse reason replaces a better one, never the other way round. */
void coordinator_end(struct coordinator *c, enum ending ending, int code, const char *format, ...)
{
    va_list args;

    if (c->ending != ENDING_NOT && code <= c->code)
        return;
    c->ending = ending;
    c->code = code;
    va_start(args, format);
    vsnprintf(c->why, sizeof(c->why), format, args);
    va_end(args);
}

/* --- numbers ---------------------------------------------------------------- */

uint64_t coordinator_gone_ms(const struct coordinator *c)
{
    return COORDINATOR_BEATS * c->config.heartbeat_ms;
}

bool coordinator_updating(const struct coordinator *c)
{
    return batch_in(c, BATCH_RUNNING) >= 0;
}

uint64_t coordinator_updates(const struct coordinator *c)
{
    return c->config.lockstep ? c->run.schedule.updates : c->limiter.updates;
}

uint64_t coordinator_steps(const struct coordinator *c)
{
    return c->config.lockstep ? c->run.schedule.step : shards_steps(c);
}

uint32_t coordinator_phase(const struct coordinator *c)
{
    const struct schedule *schedule = &c->run.schedule;

    if (!c->model_ready)
        return PHASE_STARTING;
    if (!c->config.lockstep) {
        if (!async_finished(c))
            return c->limiter.phase;
        return PHASE_FINISHING;
    }
    if (c->run.stage != STAGE_RUNNING)
        return PHASE_STARTING;
    if (schedule->next == SCHEDULE_FINISH)
        return PHASE_FINISHING;
    if (schedule->next == SCHEDULE_UPDATE && schedule->step == c->seed_steps)
        return PHASE_BURST;
    return schedule->step <= c->seed_steps ? PHASE_SEEDING : PHASE_RUNNING;
}

/* --- the model -------------------------------------------------------------- */

/* The first spec decides what the run is about. */
void coordinator_set_spec(struct coordinator *c, const struct message_spec *spec)
{
    c->spec = *spec;
    c->seed_steps = c->config.seed_steps;
    if (c->seed_steps == 0)
        c->seed_steps = tasks_seed_steps(c, spec->episode_length > 200 ? 5 * (uint64_t)spec->episode_length : 1000);
    if (c->config.lockstep)
        lockstep_resume(c, NULL, 0);
    else
        async_resume(c);
}

void coordinator_model_ready(coordinator_t *c, uint64_t now_ms, size_t snapshot_bytes, const spill_t *file)
{
    c->now = now_ms;
    TD_ASSERT(c->model_asked && !c->model_ready, "model ready twice");
    if (params_create(&c->params, snapshot_bytes, file) != TD_OK) {
        coordinator_exit(c, TD_EXIT_GAVE_UP, "out of memory for two snapshots of %zu bytes",
                         snapshot_bytes);
        return;
    }
    c->model_ready = true;
    coordinator_tick(c, now_ms);
}

/* --- publications ----------------------------------------------------------- */

/*
 * See that these parameters are the newest published; only while no update runs, as the compute
 * thread copies what it has. True once they are.
 */
bool coordinator_publish(struct coordinator *c, uint64_t version)
{
    const struct announcement *newest = params_newest(c->params);
    struct command_publish *command;
    struct params_room room;

    if (newest->epoch == c->config.epoch && newest->version == version)
        return true;
    if (c->publishing != 0 || coordinator_updating(c))
        return false;
    if (!params_fill(c->params, c->now, &c->publish_again_ms, &room))
        return false;
    command = &coordinator_command(c, COMMAND_PUBLISH)->publish;
    command->room = room;
    command->version = version;
    c->publishing = version + 1;
    c->published_ms = c->now;
    return false;
}

void coordinator_published(coordinator_t *c, uint64_t now_ms, uint64_t version, uint64_t hash,
                           bool finite)
{
    struct peer everyone = {.port = PORT_ANNOUNCE};

    c->now = now_ms;
    TD_ASSERT(c->publishing == version + 1, "published %llu", (unsigned long long)version);
    c->publishing = 0;
    c->publish_again_ms = UINT64_MAX;
    /* a large model takes long to copy: no more than a tenth of the time goes into it */
    if (10 * (now_ms - c->published_ms) > c->config.broadcast_ms)
        c->publish_due_ms = now_ms + 9 * (now_ms - c->published_ms);
    else
        c->publish_due_ms = c->published_ms + c->config.broadcast_ms;
    if (!finite) {
        params_dropped(c->params);
        coordinator_end(c, ENDING_STOP, TD_EXIT_DIVERGED,
                        "training diverged: parameters after %llu updates are not finite; "
                        "the checkpoints are from before: try a lower lr",
                        (unsigned long long)version);
    } else {
        params_filled(c->params, c->config.epoch, version, hash);
        coordinator_send(c, &everyone, MESSAGE_ANNOUNCE)->announce = *params_newest(c->params);
    }
    coordinator_tick(c, now_ms);
}

/* --- checkpoints ------------------------------------------------------------ */

/* The step from which an evaluation is owed: one that has not come back counts. */
static uint64_t next_eval(const struct orders *orders)
{
    uint64_t next = orders->next;

    if (orders->pending && !orders->pending_final && orders->pending_step < next)
        next = orders->pending_step;
    if (orders->running && !orders->order.final && orders->order.step < next)
        next = orders->order.step;
    return next;
}

/* What both kinds of run write. */
void coordinator_progress(const struct coordinator *c, struct progress *progress)
{
    *progress = (struct progress){
        .spec = c->spec,
        .seed_steps = c->seed_steps,
        .updates = coordinator_updates(c),
        .learner_epoch = c->config.epoch,
        .next_eval = next_eval(&c->orders),
        .episodes = c->episodes,
        .phase = coordinator_phase(c),
        .excess = c->limiter.excess,
        .burst_target = c->limiter.burst_target,
        .stores = c->stores,
        .lockstep = c->config.lockstep,
    };
    if (!c->config.lockstep)
        progress->phase = c->limiter.phase;
    memcpy(progress->store, c->store, sizeof(progress->store));
    progress->kept = c->kept;
    memcpy(progress->kept_window, c->kept_window, sizeof(progress->kept_window));
}

/* One more cut is kept: its window's first is what the store must not let go of. */
void coordinator_keep_window(struct coordinator *c, uint64_t window)
{
    uint32_t most = c->config.keep_checkpoints < PROGRESS_KEPT ? c->config.keep_checkpoints
                                                               : PROGRESS_KEPT;

    if (c->kept >= most) {
        memmove(c->kept_window, c->kept_window + c->kept + 1 - most,
                (most - 1) * sizeof(*c->kept_window));
        c->kept = most - 1;
    }
    c->kept_window[c->kept++] = window;
}

/* Only while no update runs: the compute thread copies what it has. */
void coordinator_save(struct coordinator *c, uint32_t kind, const struct progress *progress,
                      struct bulk state)
{
    struct command_save *command;

    TD_ASSERT(c->saving == 0 && !coordinator_updating(c), "a checkpoint at the wrong moment");
    c->saved = *progress;
    c->saved.state_size = (uint32_t)state.size;
    command = &coordinator_command(c, COMMAND_SAVE)->save;
    command->id = c->saving = ++c->save_id;
    command->kind = c->saving_kind = kind;
    command->progress = &c->saved;
    command->state = state;
    c->saved_ms = c->now;
    c->save_due = false;
}

/* What was learned since the one before is lost if this one is: its reason may pass. */
static void last_save_failed(struct coordinator *c)
{
    if (c->ending_over_ms == 0)
        c->ending_over_ms = c->now + COORDINATOR_LAST_MS;
    c->ending_again_ms = c->now + COORDINATOR_AGAIN_MS;
    if (c->now < c->ending_over_ms)
        coordinator_log(c, LOG_ERROR, "the last checkpoint could not be written, trying again for %llu s (Ctrl-C: no more): %s",
                        (unsigned long long)(c->ending_over_ms - c->now + 999) / 1000, c->save_why);
}

void coordinator_saved(coordinator_t *c, uint64_t now_ms, uint64_t id, const char *failed)
{
    c->now = now_ms;
    TD_ASSERT(id == c->saving, "checkpoint %llu is not under way", (unsigned long long)id);
    c->saving = 0;
    c->save_ok = failed == NULL;
    c->save_again_ms = failed == NULL ? 0 : now_ms + COORDINATOR_RETRY_MS;
    snprintf(c->save_why, sizeof(c->save_why), "%s", failed == NULL ? "" : failed);
    if (failed != NULL && c->ending_saved && c->code == TD_EXIT_OK)
        last_save_failed(c);
    else if (failed != NULL)
        coordinator_log(c, LOG_ERROR, "the checkpoint could not be written, the one before stands: %s", failed);
    else if (c->saving_kind == SAVE_CUT) {
        coordinator_keep_window(c, c->saved.window);
        c->run.retain = c->kept_window[0];
        c->run.has_cut = true;
        c->run.last_cut = c->saved.step;
    }
    coordinator_tick(c, now_ms);
}

/* --- the end ---------------------------------------------------------------- */

/* Finish the update, write what there is to write, tell all, go. */
static void ending_advance(struct coordinator *c)
{
    struct bulk none = {NULL, 0};
    struct progress progress;

    if (coordinator_updating(c) || c->publishing != 0)
        return;
    async_flush_ends(c);
    if (c->saving != 0) {
        coordinator_wait(c, WAIT_CHECKPOINT, "the checkpoint that is being written");
        return;
    }
    if (c->ending_saved && !c->save_ok && c->code == TD_EXIT_OK && c->now < c->ending_over_ms) {
        coordinator_wait(c, WAIT_CHECKPOINT, "another try at the last checkpoint: %s", c->save_why);
        if (c->now < c->ending_again_ms)
            return;
        c->ending_saved = false;
    }
    if (!c->ending_saved) {
        c->ending_saved = c->save_ok = true;
        if (c->config.lockstep) {
            lockstep_end(c);
        } else if (c->model_ready && c->code != TD_EXIT_DIVERGED) {
            coordinator_progress(c, &progress);
            coordinator_save(c, c->ending == ENDING_COMPLETE ? SAVE_FINAL : SAVE_ORDINARY,
                             &progress, none);
        }
        if (c->saving != 0)
            return;
    }
    if (!c->save_ok && c->code == TD_EXIT_OK) {
        c->code = TD_EXIT_GAVE_UP;
        snprintf(c->why, sizeof(c->why), "the last checkpoint could not be written, the run stands at the one before: %s",
                 c->save_why);
    }
    roster_tell_end(c);
    shards_tell_end(c);
    coordinator_exit(c, c->code, "%s", c->why);
}

void coordinator_terminate(coordinator_t *c, uint64_t now_ms)
{
    c->now = now_ms;
    if (c->ending_over_ms != 0)
        c->ending_over_ms = now_ms; /* told twice: without the checkpoint that cannot be written */
    coordinator_end(c, ENDING_TERMINATE, TD_EXIT_OK, "asked to stop");
    coordinator_tick(c, now_ms);
}

void coordinator_stop(coordinator_t *c, uint64_t now_ms, int code, const char *why)
{
    c->now = now_ms;
    coordinator_end(c, ENDING_STOP, code, "%s", why);
    coordinator_tick(c, now_ms);
}

/* --- epochs ----------------------------------------------------------------- */

void coordinator_epoch_raised(coordinator_t *c, uint64_t now_ms, uint32_t epoch)
{
    c->now = now_ms;
    TD_ASSERT(c->raising && epoch > c->config.epoch, "epoch %u", epoch);
    coordinator_log(c, LOG_WARN, "a shard remembers a later learner: epoch raised from %u to %u",
                    c->config.epoch, epoch);
    c->raising = false;
    c->config.epoch = epoch;
    if (c->params != NULL)
        params_set_epoch(c->params, epoch);
    if (c->config.lockstep && c->run.actor != 0)
        c->run.restart = true;
    shards_rehello(c);
    roster_beat(c);
    coordinator_tick(c, now_ms);
}

/* --- time ------------------------------------------------------------------- */

/* A wait that lasts is said, and again every minute. */
static void say_waiting(struct coordinator *c)
{
    if (c->wait_next != c->wait_format) {
        c->wait_format = c->wait_next;
        c->wait_ms = c->now;
        c->wait_say_ms = c->now + COORDINATOR_SAY_MS;
    }
    if (c->wait_format == NULL) {
        c->wait[0] = '\0';
        c->wait_say_ms = UINT64_MAX;
    } else if (c->now >= c->wait_say_ms) {
        coordinator_log(c, LOG_WARN, "waiting for %s since %llu s", c->wait,
                        (unsigned long long)((c->now - c->wait_ms) / 1000));
        c->wait_say_ms = c->now + 60000;
    }
}

/* Whatever can go on goes on. Every entry ends here. */
static void advance(struct coordinator *c)
{
    if (c->wait_format != NULL && c->now > c->counted_ms)
        c->waited[c->wait_kind] += c->now - c->counted_ms;
    c->counted_ms = c->now;
    c->wait_next = NULL;
    if (c->publish_again_ms <= c->now)
        c->publish_again_ms = UINT64_MAX;
    if (c->spec.obs_type != 0 && !c->model_asked) {
        c->model_asked = true;
        coordinator_command(c, COMMAND_MODEL)->spec = c->spec;
    }
    if (c->ending == ENDING_NOT && c->model_ready) {
        if (c->config.lockstep)
            lockstep_advance(c);
        else
            async_advance(c);
    } else if (c->ending == ENDING_NOT) {
        if (c->spec.obs_type == 0)
            coordinator_wait(c, WAIT_INSERTS, "the first actor");
        else
            coordinator_wait(c, WAIT_CHECKPOINT, "the model to be built");
    }
    if (c->ending != ENDING_NOT)
        ending_advance(c);
    if (!c->exited && c->ending == ENDING_NOT)
        shards_credit(c);
    if (!c->exited && coordinator_phase(c) != c->phase_told)
        roster_beat(c);
    say_waiting(c);
}

void coordinator_tick(coordinator_t *c, uint64_t now_ms)
{
    c->now = now_ms;
    if (c->exited)
        return;
    if (!c->begun) {
        c->begun = true;
        c->beat_ms = c->counted_ms = c->saved_ms = now_ms;
    }
    roster_tick(c);
    shards_tick(c);
    advance(c);
}

uint64_t coordinator_deadline(const coordinator_t *c)
{
    uint64_t at = c->beat_ms, other;

    if (c->exited)
        return UINT64_MAX;
    if ((other = shards_deadline(c)) < at)
        at = other;
    if (c->wait_say_ms < at)
        at = c->wait_say_ms;
    if (c->publish_again_ms < at)
        at = c->publish_again_ms;
    if (c->ending_again_ms > c->now && c->ending_again_ms < at)
        at = c->ending_again_ms;
    if (c->ending != ENDING_NOT)
        return at; /* nothing else is begun any more */
    other = c->config.lockstep ? lockstep_deadline(c) : async_deadline(c);
    return other < at ? other : at;
}

/* --- entries ---------------------------------------------------------------- */

int coordinator_create(coordinator_t **out, const struct coordinator_config *config,
                       const struct progress *progress, const void *state, size_t state_size,
                       struct error *err)
{
    coordinator_t *c = calloc(1, sizeof(*c));

    *out = c;
    if (c == NULL ||
        output_queue_init(&c->outputs, sizeof(struct coordinator_output), 256) != TD_OK) {
        coordinator_destroy(out);
        return error_set(err, TD_ENOMEM, "out of memory for the coordinator");
    }
    TD_ASSERT(config->shards >= 1 && config->shards <= WIRE_SHARDS_MAX && config->epoch > 0 &&
                  config->run != 0 && config->heartbeat_ms > 0, "config");
    c->config = *config;
    c->publish_again_ms = c->wait_say_ms = UINT64_MAX;
    if (config->lockstep && lockstep_check(config, err) != TD_OK) {
        coordinator_destroy(out);
        return TD_EINVAL;
    }
    if (progress == NULL || progress->spec.obs_type == 0)
        return TD_OK;
    if (progress->lockstep != config->lockstep) {
        coordinator_destroy(out);
        return error_set(err, TD_EINVAL, "the checkpoint is of a run with lockstep=%s",
                         progress->lockstep ? "true" : "false");
    }
    if (progress->spec.tasks != config->tasks) {
        error_set(err, TD_EINVAL, "the checkpoint is of a run with %u tasks, the options name %u", progress->spec.tasks,
                  config->tasks);
        coordinator_destroy(out);
        return TD_EINVAL;
    }
    c->resumed = true;
    c->restored = *progress;
    c->spec = progress->spec;
    c->seed_steps = progress->seed_steps;
    c->episodes = progress->episodes;
    c->stores = progress->stores;
    memcpy(c->store, progress->store, sizeof(c->store));
    c->kept = progress->kept;
    memcpy(c->kept_window, progress->kept_window, sizeof(c->kept_window));
    if (config->lockstep)
        lockstep_resume(c, state, state_size);
    else
        async_resume(c);
    return TD_OK;
}

void coordinator_destroy(coordinator_t **coordinator)
{
    if (*coordinator == NULL)
        return;
    lockstep_release(*coordinator);
    params_destroy(&(*coordinator)->params);
    output_queue_release(&(*coordinator)->outputs);
    free(*coordinator);
    *coordinator = NULL;
}

void coordinator_receive(coordinator_t *c, uint64_t now_ms, const struct peer *peer,
                         const struct message *message)
{
    struct message *refusal;

    c->now = now_ms;
    if (c->exited)
        return;
    if (message->run != c->config.run &&
        !(message->run == 0 && (message->kind == MESSAGE_HELLO || message->kind == MESSAGE_STOP))) {
        if (peer->port == PORT_CONTROL && message->kind == MESSAGE_HELLO) {
            refusal = coordinator_send(c, peer, MESSAGE_REFUSED);
            refusal->refused.code = REFUSED_RUN;
            snprintf(refusal->refused.text, sizeof(refusal->refused.text),
                     "this learner runs %016llx, you belong to %016llx",
                     (unsigned long long)c->config.run, (unsigned long long)message->run);
        } else if (peer->port == PORT_SAMPLE && message->kind == MESSAGE_REFUSED) {
            shards_receive(c, peer, message);
        }
        coordinator_tick(c, now_ms);
        return;
    }
    if (peer->port == PORT_CONTROL && message->kind == MESSAGE_HELLO &&
        message->hello.role == ROLE_SHARD)
        shards_hello(c, peer, message);
    else if (peer->port == PORT_CONTROL)
        roster_receive(c, peer, message);
    else if (peer->port == PORT_SAMPLE)
        shards_receive(c, peer, message);
    else if (peer->port == PORT_PARAMS)
        roster_pull(c, peer, message);
    coordinator_tick(c, now_ms);
}

void coordinator_updated(coordinator_t *c, uint64_t now_ms, uint64_t update, bool finite)
{
    int buffer = batch_in(c, BATCH_RUNNING);

    c->now = now_ms;
    TD_ASSERT(buffer >= 0 && c->batches[buffer].update == update, "update %llu is not running",
              (unsigned long long)update);
    c->batches[buffer].state = BATCH_FREE;
    if (!finite)
        coordinator_end(c, ENDING_STOP, TD_EXIT_DIVERGED,
                        "training diverged: update %llu gave losses that are not finite; "
                        "the checkpoints are from before: try a lower lr",
                        (unsigned long long)update);
    else if (c->config.lockstep)
        lockstep_updated(c);
    else
        async_updated(c);
    coordinator_tick(c, now_ms);
}

bool coordinator_next(coordinator_t *c, struct coordinator_output *output)
{
    if (!output_queue_pop(&c->outputs, output))
        return false;
    if (output->kind == COMMAND_PUBLISH)
        output->publish.size = params_size(c->params);
    return true;
}

/* Lock-step: seed_steps updates at step seed_steps, then one for each. */
static uint64_t updates_left(const struct coordinator *c)
{
    uint64_t done = c->run.schedule.updates, steps = c->config.steps;

    if (c->spec.obs_type == 0)
        return steps;
    if (!c->config.lockstep)
        return limiter_left(&c->limiter);
    return c->seed_steps <= steps && done < steps ? steps - done : 0;
}

/* Where the disk is full the log may be silent, too: this is asked for over a socket. */
static void view_trouble(const struct coordinator *c, struct coordinator_view *view)
{
    if (c->save_why[0] != '\0')
        snprintf(view->trouble, sizeof(view->trouble), "the last checkpoint could not be written: %.440s", c->save_why);
    for (uint32_t i = 0; i < c->config.shards && view->trouble[0] == '\0'; i++)
        if (c->seats[i].has_status && c->seats[i].status.full)
            snprintf(view->trouble, sizeof(view->trouble),
                     "replay shard %u takes no more rows: it is full, or its disk is (`tdmpc2 stats` tells)", i);
}

void coordinator_view(const coordinator_t *c, uint64_t now_ms, struct coordinator_view *view)
{
    *view = (struct coordinator_view){
        .phase = coordinator_phase(c),
        .steps = coordinator_steps(c),
        .updates = coordinator_updates(c),
        .target = c->config.lockstep ? c->seed_steps : c->limiter.burst_target,
        .steps_total = c->config.steps + 1,
        .left = updates_left(c),
        .episodes = c->episodes,
        .limit = c->config.lockstep || c->spec.obs_type == 0 ? LIMIT_NONE : limiter_limit(&c->limiter),
        .actors = roster_live(c, ROLE_ACTOR),
        .shards = shards_live(c),
        .updating = coordinator_updating(c),
        .waits = c->wait_format != NULL,
        .wait_since_ms = c->wait_ms,
        .oldest_version = UINT64_MAX,
    };
    if (c->spec.obs_type != 0 && !c->config.lockstep)
        view->cursor = limiter_cursor(&c->limiter);
    if (c->params != NULL)
        view->newest = *params_newest(c->params);
    for (uint32_t i = 0; i < c->config.shards; i++) {
        const struct status *status = &c->seats[i].status;

        view->shards_known += c->seats[i].known;
        view->rows += status->rows;
        view->samplable += status->episodes;
        view->drawable += status->episode_steps;
        view->retired += status->sealed > status->episodes ? status->sealed - status->episodes : 0;
        view->bytes += status->bytes;
        view->streams += status->streams;
    }
    for (uint32_t i = 0; i < c->member_count; i++)
        if (member_live(c, &c->members[i]) && c->members[i].role == ROLE_ACTOR &&
            c->members[i].version_epoch != 0 && c->members[i].version < view->oldest_version)
            view->oldest_version = c->members[i].version;
    view_trouble(c, view);
    memcpy(view->wait, c->wait, sizeof(view->wait));
    memcpy(view->wait_ms, c->waited, sizeof(view->wait_ms));
    if (c->wait_format != NULL && now_ms > c->counted_ms)
        view->wait_ms[c->wait_kind] += now_ms - c->counted_ms;
}
