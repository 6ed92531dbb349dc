/*
 * Lock-step: the reference's schedule, turn by turn; cuts, and going back to them.
 *
 * The schedule says what comes next; here each event is carried out with the actor, the shard and the
 * host, one at a time. A new actor process, and the start, go through the same stages: load the last
 * cut, rewind the shard, welcome the actor there.
 */
#include <stdlib.h>
#include <string.h>

#include "learner/coordinator_private.h"

int lockstep_check(const struct coordinator_config *config, struct error *err)
{
    if (config->shards != 1)
        return error_set(err, TD_EINVAL, "lockstep=true needs shards=1, not %u", config->shards);
    if (config->utd != 1)
        return error_set(err, TD_EINVAL, "lockstep=true needs utd=1, not %g", config->utd);
    if (config->actors > 1)
        return error_set(err, TD_EINVAL, "lockstep=true needs actors=1, not %u", config->actors);
    return TD_OK;
}

void lockstep_release(struct coordinator *c)
{
    free(c->run.state);
    free(c->run.go_state);
}

static void keep(void **to, size_t *to_size, const void *from, size_t size)
{
    void *room = realloc(*to, size > 0 ? size : 1);

    TD_ASSERT(room != NULL, "out of memory for the environment's state");
    *to = room;
    *to_size = size;
    if (size > 0)
        memcpy(room, from, size);
}

/* Stand where `progress` does; NULL: at the very beginning. */
static void stand_at(struct coordinator *c, const struct progress *progress, const void *state,
                     size_t state_size)
{
    struct lockstep_run *run = &c->run;
    struct schedule_config config = {c->config.steps, c->seed_steps, c->config.eval_freq,
                                     c->config.eval_first, c->config.episodic};

    if (progress == NULL || (progress->step == 0 && progress->evaluate_first))
        schedule_init(&run->schedule, &config);
    else
        schedule_resume(&run->schedule, &config, progress->step, progress->updates,
                        progress->episode, progress->rows);
    run->has_cut = progress != NULL;
    run->go = progress != NULL ? *progress : (struct progress){.evaluate_first = true};
    run->last_cut = run->go.step;
    run->rows = run->go.rows;
    run->window = run->go.window;
    run->retain = 0;
    if (progress != NULL) {
        c->kept = progress->kept;
        memcpy(c->kept_window, progress->kept_window, sizeof(c->kept_window));
        run->retain = c->kept > 0 ? c->kept_window[0] : 0;
    }
    c->episodes = run->go.episode;
    keep(&run->state, &run->state_size, state, state_size);
    keep(&run->go_state, &run->go_state_size, state, state_size);
    run->sent = run->reset = run->synced = run->started = run->cutting = false;
    run->cut_saved = progress != NULL;
}

void lockstep_resume(struct coordinator *c, const void *state, size_t state_size)
{
    stand_at(c, c->resumed ? &c->restored : NULL, state, state_size);
    if (c->resumed && state_size == 0)
        coordinator_log(c, LOG_WARN, "the environment's state is not in the checkpoint: the resumed "
                        "run will not repeat the same bits");
}

/* --- the actor -------------------------------------------------------------- */

static bool is_fenced(const struct lockstep_run *run, uint64_t process)
{
    for (uint32_t i = 0; i < run->fenced_count && i < COORDINATOR_FENCED; i++)
        if (run->fenced[i] == process)
            return true;
    return false;
}

static void refuse(struct coordinator *c, const struct peer *peer, uint32_t code, const char *text)
{
    struct refused *refused = &coordinator_send(c, peer, MESSAGE_REFUSED)->refused;

    refused->code = code;
    memcpy(refused->text, text, strlen(text) + 1);
}

/* May this process play? A newer one with slot 0 takes over at once, another when it has gone. */
bool lockstep_hello(struct coordinator *c, const struct peer *peer, const struct hello *hello)
{
    struct lockstep_run *run = &c->run;
    struct member *holder = roster_find(c, run->actor);

    if (is_fenced(run, hello->process)) {
        refuse(c, peer, REFUSED_FENCED, "a newer actor plays this lock-step run");
        return false;
    }
    if (hello->has_slot && hello->slot != 0) {
        refuse(c, peer, REFUSED_CONFIG, "a lock-step run has one actor, with slot 0");
        return false;
    }
    if (hello->process == run->actor)
        return true;
    if (run->actor != 0 && hello->seating < run->seating) { /* said before that one was seated */
        roster_welcome_options(c, peer, hello->role);
        return false;
    }
    if (run->actor != 0 && !hello->has_slot && holder != NULL && member_live(c, holder)) {
        coordinator_log(c, LOG_WARN, "another actor said Hello; a lock-step run has one");
        return false;
    }
    if (run->actor != 0) {
        run->fenced[run->fenced_count++ % COORDINATOR_FENCED] = run->actor;
        if (holder != NULL)
            holder->used = false;
    }
    run->actor = hello->process;
    run->seating = roster_seating(c);
    run->restart = true;
    return true;
}

/* Is the run ready for this member's Welcome? */
bool lockstep_welcoming(const struct coordinator *c, const struct member *member)
{
    return member->process == c->run.actor && !c->run.restart &&
           (c->run.stage == STAGE_FRESH || c->run.stage == STAGE_RUNNING);
}

static struct member *player(struct coordinator *c)
{
    struct member *member = roster_find(c, c->run.actor);

    return member != NULL && member->seated ? member : NULL;
}

/* --- going back ------------------------------------------------------------- */

/* Everything since the last cut is void: load it (unless nothing has happened), rewind, welcome. */
static void begin_restart(struct coordinator *c)
{
    struct lockstep_run *run = &c->run;

    if (coordinator_updating(c) || c->saving != 0 || c->publishing != 0)
        return;
    for (int i = 0; i < 2; i++)
        c->batches[i].state = BATCH_FREE;
    c->seats[0].asked = false;
    run->restart = false;
    run->send_ms = 0;
    run->generation = (uint64_t)c->config.epoch << 32 | ++run->restarts;
    run->stage = STAGE_REWINDING;
    if (run->started) {
        run->stage = STAGE_LOADING;
        coordinator_log(c, LOG_WARN, "going back from step %llu to the last cut",
                        (unsigned long long)run->schedule.step);
        coordinator_command(c, COMMAND_LOAD);
    }
}

void coordinator_loaded(coordinator_t *c, uint64_t now_ms, const struct progress *progress,
                        const void *state, size_t state_size)
{
    c->now = now_ms;
    TD_ASSERT(c->run.stage == STAGE_LOADING, "nothing was to be loaded");
    if (progress != NULL && progress->spec.obs_type == 0)
        progress = NULL;
    stand_at(c, progress, state, state_size);
    params_forget(c->params);
    c->run.stage = STAGE_REWINDING;
    c->run.send_ms = 0;
    coordinator_tick(c, now_ms);
}

void lockstep_rewound(struct coordinator *c, const struct rewound *rewound)
{
    struct lockstep_run *run = &c->run;
    struct command_rollback *rollback;

    if (run->stage != STAGE_REWINDING || rewound->generation != run->generation || run->restart)
        return;
    if (!rewound->done) {
        coordinator_end(c, ENDING_STOP, TD_EXIT_BAD_INPUT,
                        "the replay cannot go back to step %llu of the checkpoint: %s",
                        (unsigned long long)run->go.step, rewound->text);
        return;
    }
    rollback = &coordinator_command(c, COMMAND_ROLLBACK)->rollback;
    rollback->train_below = run->go.step + 1;
    rollback->eval_below = run->go.evaluate_first ? run->go.step : run->go.step + 1;
    run->stage = run->has_cut ? STAGE_RUNNING : STAGE_FRESH;
    run->started = true;
    run->send_ms = 0;
}

/* --- the schedule's events -------------------------------------------------- */

static void done(struct coordinator *c)
{
    schedule_done(&c->run.schedule);
    c->run.sent = false;
    c->run.send_ms = 0;
}

/* Time to send it, the first time or again? */
static bool due(struct coordinator *c)
{
    struct lockstep_run *run = &c->run;

    if (run->sent && c->now < run->send_ms)
        return false;
    run->sent = true;
    run->send_ms = c->now + COORDINATOR_RESEND_MS;
    return true;
}

static void evaluate(struct coordinator *c, const struct schedule_event *event)
{
    struct lockstep_run *run = &c->run;
    struct member *actor = player(c);

    if (!coordinator_publish(c, event->update))
        return;
    if (!run->sent) {
        run->order = (struct evaluate){
            .learner_epoch = c->config.epoch,
            .id = run->generation ^ (event->step + 1),
            .step = event->step,
            .parameters = *params_newest(c->params),
            .episodes = c->config.eval_episodes,
            .in_place = true,
            .generation = run->generation,
        };
    }
    coordinator_wait(c, WAIT_INSERTS, "the evaluation at step %llu", (unsigned long long)event->step);
    if (actor != NULL && due(c))
        coordinator_send(c, &actor->peer, MESSAGE_EVALUATE)->evaluate = run->order;
}

static void log_eval(struct coordinator *c, const struct schedule_event *event)
{
    const struct evaluated *result = &c->run.result;
    struct command_eval_row *row = &coordinator_command(c, COMMAND_EVAL_ROW)->eval;

    *row = (struct command_eval_row){
        .step = event->step,
        .episode = event->episode,
        .version = result->version,
        .episodes = result->episodes,
        .reward = result->reward,
        .length = result->length,
        .has_success = result->has_success,
        .success = result->success,
    };
    coordinator_scores(row, result);
    done(c);
}

static void log_train(struct coordinator *c, const struct schedule_event *event)
{
    const struct episode_end *end = &c->run.end;
    struct command_train_row *row = &coordinator_command(c, COMMAND_TRAIN_ROW)->train;

    *row = (struct command_train_row){
        .step = event->step,
        .episode = event->episode,
        .updates = event->update,
        .reward = end->reward,
        .length = end->length,
        .has_success = end->has_success,
        .success = end->success,
        .terminated = end->terminated,
        .task = end->task,
    };
    c->episodes = event->episode + 1;
    done(c);
}

/* The run as it stands between two episodes. */
static void here(struct coordinator *c, struct progress *progress)
{
    struct lockstep_run *run = &c->run;

    coordinator_progress(c, progress);
    progress->step = run->schedule.step;
    progress->episode = run->schedule.episodes;
    progress->rows = run->rows;
    progress->window = run->window;
}

/* Write a cut of the state at hand, once its rows are synced. True when that is done or not due. */
static bool cut(struct coordinator *c, bool first)
{
    struct lockstep_run *run = &c->run;
    uint64_t every = c->config.checkpoint_steps, step = run->schedule.step;
    bool crossed = (step / every > run->last_cut / every || c->save_due) && c->now >= c->save_again_ms;
    struct progress progress;

    if (c->saving != 0) {
        coordinator_wait(c, WAIT_CHECKPOINT, "the cut at step %llu", (unsigned long long)step);
        return false;
    }
    if (run->cutting) { /* it was written, or could not be */
        run->cutting = false;
        run->cut_saved = true;
        if (!run->has_cut)
            coordinator_end(c, ENDING_STOP, TD_EXIT_GAVE_UP,
                            "the first checkpoint cannot be written");
    }
    if (run->cut_saved || (!first && !crossed))
        return true;
    if (!run->synced) {
        if (!c->seats[0].asked)
            shards_barrier(c, run->rows);
        coordinator_wait(c, WAIT_SHARDS, "the replay shard to hold all rows before the cut");
        return false;
    }
    here(c, &progress);
    progress.evaluate_first = first;
    coordinator_save(c, SAVE_CUT, &progress, (struct bulk){run->state, run->state_size});
    run->cutting = true;
    return false;
}

void lockstep_synced(struct coordinator *c)
{
    c->run.synced = true;
}

/* The moment before a Go: what a burst checkpoint goes back to. */
static void go(struct coordinator *c)
{
    struct lockstep_run *run = &c->run;

    if (!cut(c, false))
        return;
    here(c, &run->go);
    keep(&run->go_state, &run->go_state_size, run->state, run->state_size);
    run->reset = true;
    done(c);
}

static void turn(struct coordinator *c, const struct schedule_event *event)
{
    struct lockstep_run *run = &c->run;
    struct member *actor = player(c);
    struct turn *order;

    if (!event->random && !coordinator_publish(c, event->update))
        return;
    if (actor == NULL || !member_live(c, actor))
        coordinator_wait(c, WAIT_INSERTS, "the actor to come back");
    else
        coordinator_wait(c, WAIT_INSERTS, "the actor to take step %llu",
                         (unsigned long long)event->step);
    if (actor == NULL || !due(c))
        return;
    order = &coordinator_send(c, &actor->peer, MESSAGE_TURN)->turn;
    order->learner_epoch = c->config.epoch;
    order->generation = run->generation;
    order->step = event->step;
    order->random = event->random;
    order->reset = run->reset;
    order->episode = event->episode;
    order->task = c->spec.tasks > 1 ? (uint32_t)(event->episode % c->spec.tasks) : 0; /* one after the other */
    if (!event->random)
        order->parameters = *params_newest(c->params);
}

/* The step was taken: on with the schedule. */
static void turned(struct coordinator *c, bool over, bool terminated)
{
    struct lockstep_run *run = &c->run;
    struct error err;

    run->rows += run->reset ? 2 : 1;
    run->reset = run->sent = run->synced = run->cut_saved = false;
    run->send_ms = 0;
    if (schedule_stepped(&run->schedule, over, terminated, &err) != TD_OK)
        coordinator_end(c, ENDING_STOP, TD_EXIT_BAD_INPUT, "%s", err.text);
}

/* In the burst a checkpoint is the last Go's state with the updates done since. */
static void save_in_burst(struct coordinator *c)
{
    struct progress progress = c->run.go;

    progress.updates = c->run.schedule.updates;
    progress.learner_epoch = c->config.epoch;
    progress.kept = c->kept;
    memcpy(progress.kept_window, c->kept_window, sizeof(progress.kept_window));
    coordinator_save(c, SAVE_CUT, &progress, (struct bulk){c->run.go_state, c->run.go_state_size});
}

static bool in_burst(const struct coordinator *c)
{
    const struct schedule *schedule = &c->run.schedule;

    return c->run.stage == STAGE_RUNNING && schedule->next == SCHEDULE_UPDATE &&
           schedule->step == c->seed_steps && c->run.has_cut;
}

static void update(struct coordinator *c, const struct schedule_event *event)
{
    struct lockstep_run *run = &c->run;
    struct sample_request like = {.after = run->rows, .has_window = true, .last = event->episode,
                                  .has_retain = true, .retain = run->retain};
    int ready = batch_in(c, BATCH_READY);

    if (!coordinator_updating(c)) {
        if (in_burst(c) && c->saving == 0 && event->update > run->go.updates &&
            c->now >= c->saved_ms + c->config.checkpoint_every_ms && c->now >= c->save_again_ms)
            save_in_burst(c);
        if (ready >= 0)
            batch_start(c, ready);
        else if (batch_in(c, BATCH_GATHERING) < 0)
            batch_request(c, event->update, &like);
    }
    if (coordinator_updating(c) && in_burst(c) && event->update + 1 < c->seed_steps &&
        batch_free(c) >= 0 && batch_in(c, BATCH_GATHERING) < 0 && ready < 0)
        batch_request(c, event->update + 1, &like);
    if (!coordinator_updating(c))
        coordinator_wait(c, WAIT_SHARDS, "slices from the replay shard for update %llu",
                         (unsigned long long)event->update);
}

void lockstep_updated(struct coordinator *c)
{
    if (c->run.stage == STAGE_RUNNING && c->run.schedule.next == SCHEDULE_UPDATE)
        schedule_done(&c->run.schedule);
}

/* --- messages --------------------------------------------------------------- */

static void receive_end(struct coordinator *c, const struct peer *peer,
                        const struct message *message)
{
    const struct episode_end *end = &message->episode_end;
    struct lockstep_run *run = &c->run;
    struct episode_ack *ack;
    struct bulk none = {NULL, 0};
    struct bulk state = message->bulks > 0 ? message->bulk[0] : none;

    if (end->generation != run->generation)
        return;
    ack = &coordinator_send(c, peer, MESSAGE_EPISODE_ACK)->episode_ack;
    *ack = (struct episode_ack){end->slot, end->environment, end->stream_epoch, end->episode,
                                end->generation};
    if (run->stage == STAGE_FRESH && end->start) {
        keep(&run->state, &run->state_size, state.data, state.size);
        keep(&run->go_state, &run->go_state_size, state.data, state.size);
        run->stage = STAGE_RUNNING;
        return;
    }
    if (run->stage != STAGE_RUNNING || run->schedule.next != SCHEDULE_STEP || end->start ||
        end->step != run->schedule.step)
        return;
    keep(&run->state, &run->state_size, state.data, state.size);
    run->end = *end;
    turned(c, true, end->terminated);
}

static void receive_evaluated(struct coordinator *c, const struct peer *peer,
                              const struct message *message)
{
    const struct evaluated *evaluated = &message->evaluated;
    struct lockstep_run *run = &c->run;
    struct evaluated_ack *ack;

    if (evaluated->generation != run->generation)
        return;
    ack = &coordinator_send(c, peer, MESSAGE_EVALUATED_ACK)->evaluated_ack;
    ack->id = evaluated->id;
    ack->generation = evaluated->generation;
    if (run->stage != STAGE_RUNNING || run->schedule.next != SCHEDULE_EVALUATE || !run->sent ||
        evaluated->id != run->order.id)
        return;
    run->result = *evaluated;
    if (message->bulks > 0)
        keep(&run->state, &run->state_size, message->bulk[0].data, message->bulk[0].size);
    done(c);
}

void lockstep_receive(struct coordinator *c, const struct peer *peer, const struct message *message)
{
    struct lockstep_run *run = &c->run;

    if (run->restart)
        return; /* what an older actor says no longer counts */
    if (message->kind == MESSAGE_EPISODE_END)
        receive_end(c, peer, message);
    else if (message->kind == MESSAGE_EVALUATED)
        receive_evaluated(c, peer, message);
    else if (message->kind == MESSAGE_TURNED && message->turned.generation == run->generation &&
             run->stage == STAGE_RUNNING && run->schedule.next == SCHEDULE_STEP &&
             message->turned.step == run->schedule.step)
        turned(c, false, false);
}

/* --- going on --------------------------------------------------------------- */

/* One event, as far as it goes; true when it is over and the next may begin. */
static bool event_advance(struct coordinator *c)
{
    struct lockstep_run *run = &c->run;
    struct schedule_event event;

    schedule_next(&run->schedule, &event);
    if ((!run->has_cut || run->cutting) && !cut(c, !run->has_cut))
        return false;
    switch (event.kind) {
    case SCHEDULE_EVALUATE:
        evaluate(c, &event);
        return false;
    case SCHEDULE_LOG_EVAL:
        log_eval(c, &event);
        return true;
    case SCHEDULE_LOG_TRAIN:
        log_train(c, &event);
        return true;
    case SCHEDULE_STORE:
        done(c);
        return true;
    case SCHEDULE_RESET:
        go(c);
        return run->reset;
    case SCHEDULE_STEP:
        turn(c, &event);
        return false;
    case SCHEDULE_UPDATE:
        update(c, &event);
        return false;
    case SCHEDULE_FINISH:
        coordinator_end(c, ENDING_COMPLETE, TD_EXIT_OK, "complete: %llu agent steps, %llu updates",
                        (unsigned long long)event.step, (unsigned long long)event.update);
        return false;
    }
    return false;
}

void lockstep_advance(struct coordinator *c)
{
    struct lockstep_run *run = &c->run;

    if (run->restart)
        begin_restart(c);
    switch (run->restart ? STAGE_LOADING : run->stage) {
    case STAGE_IDLE:
        coordinator_wait(c, WAIT_INSERTS, "the actor");
        break;
    case STAGE_LOADING:
        coordinator_wait(c, WAIT_CHECKPOINT, "the last cut to be loaded");
        break;
    case STAGE_REWINDING:
        coordinator_wait(c, WAIT_SHARDS, "the replay shard to go back to the cut");
        if (c->seats[0].welcomed && c->now >= run->send_ms) {
            run->send_ms = c->now + COORDINATOR_RESEND_MS;
            shards_rewind(c);
        }
        break;
    case STAGE_FRESH:
        coordinator_wait(c, WAIT_INSERTS, "the actor to make its environment");
        break;
    case STAGE_RUNNING:
        while (c->ending == ENDING_NOT && event_advance(c))
            continue;
        break;
    }
}

uint64_t lockstep_deadline(const struct coordinator *c)
{
    const struct lockstep_run *run = &c->run;

    if (run->stage == STAGE_REWINDING || (run->stage == STAGE_RUNNING && run->sent))
        return run->send_ms > c->now ? run->send_ms : c->now + COORDINATOR_RESEND_MS;
    if (in_burst(c) && !coordinator_updating(c) && c->saving == 0)
        return c->now + COORDINATOR_RESEND_MS;
    return UINT64_MAX;
}

/* The end: a final checkpoint when complete, the burst's when stopped in it, else the last cut stands. */
void lockstep_end(struct coordinator *c)
{
    struct lockstep_run *run = &c->run;
    struct progress progress;

    if (c->code == TD_EXIT_DIVERGED || !c->model_ready || run->stage != STAGE_RUNNING)
        return;
    if (c->ending == ENDING_COMPLETE) {
        here(c, &progress);
        coordinator_save(c, SAVE_FINAL, &progress, (struct bulk){run->state, run->state_size});
    } else if (in_burst(c)) {
        if (run->schedule.updates > run->go.updates)
            save_in_burst(c);
    } else if (run->has_cut && run->schedule.step > run->last_cut) {
        coordinator_log(c, LOG_INFO, "the last cut is at step %llu: a resumed run repeats %llu steps",
                        (unsigned long long)run->last_cut,
                        (unsigned long long)(run->schedule.step - run->last_cut));
    }
}
