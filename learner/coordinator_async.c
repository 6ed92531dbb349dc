/* Asynchronous runs: the limiter, publications, evaluation by the evaluator. */
#include <stdio.h>
#include <string.h>

#include "learner/coordinator_private.h"

void async_resume(struct coordinator *c)
{
    const struct coordinator_config *config = &c->config;
    struct limiter_config limits = {config->steps, c->seed_steps, config->utd, config->slack,
                                    c->spec.episode_length};

    if (!c->resumed) {
        limiter_init(&c->limiter, &limits);
        if (!config->eval_first)
            c->orders.next = config->eval_freq;
        return;
    }
    limiter_resume(&c->limiter, &limits, c->restored.phase, c->restored.updates,
                   c->restored.excess, c->restored.burst_target);
    c->orders.next = c->restored.next_eval;
}

/* Every shard has reported: the counts are whole. */
static bool counts_known(const struct coordinator *c)
{
    bool known;

    shards_highest_slot(c, &known);
    return known;
}

/* From the first moment that all is in; rows that were on the way then are owed nothing any more. */
bool async_finished(const struct coordinator *c)
{
    return c->finished;
}

/* --- evaluation ------------------------------------------------------------- */

/*
 * Evaluations that the steps so far make due; of several only the newest is wanted. That of the last
 * step is the final one, once all updates are done.
 */
static void order_due(struct coordinator *c)
{
    uint64_t steps = shards_steps(c), freq = c->config.eval_freq;

    if (!c->config.evaluator || steps < c->orders.next || steps > c->config.steps)
        return;
    c->orders.next = steps / freq * freq + freq;
    if (c->orders.next - freq == c->config.steps)
        return;
    c->orders.pending = true;
    c->orders.pending_step = c->orders.next - freq;
}

static void send_order(struct coordinator *c, const struct member *evaluator)
{
    coordinator_send(c, &evaluator->peer, MESSAGE_EVALUATE)->evaluate = c->orders.order;
    c->orders.send_ms = c->now + 2 * COORDINATOR_RESEND_MS;
}

/* Give the pending order to the evaluator, or repeat the one under way. */
static void orders_advance(struct coordinator *c)
{
    struct orders *orders = &c->orders;
    const struct member *evaluator = roster_evaluator(c);
    const struct announcement *newest = params_newest(c->params);

    if (!orders->pending && !orders->running)
        return;
    if (evaluator == NULL) {
        if (orders->pending)
            orders->running = false; /* nobody runs it; the newest wins */
        coordinator_wait(c, WAIT_SHARDS, "an evaluator");
        return;
    }
    if (orders->running) {
        if (c->now >= orders->send_ms)
            send_order(c, evaluator);
        return;
    }
    if (newest->epoch != c->config.epoch ||
        (orders->pending_final && newest->version != c->limiter.updates))
        return;
    orders->running = true;
    orders->pending = false;
    orders->order = (struct evaluate){
        .learner_epoch = c->config.epoch,
        .id = (uint64_t)c->config.epoch << 32 | ++orders->ids,
        .step = orders->pending_step,
        .parameters = *newest,
        .episodes = c->config.eval_episodes,
        .final = orders->pending_final,
    };
    orders->pending_final = false;
    send_order(c, evaluator);
}

void async_evaluated(struct coordinator *c, const struct peer *peer,
                     const struct evaluated *evaluated)
{
    struct evaluated_ack *ack = &coordinator_send(c, peer, MESSAGE_EVALUATED_ACK)->evaluated_ack;
    struct orders *orders = &c->orders;
    struct command_eval_row *row;

    ack->id = evaluated->id;
    if (!orders->running || evaluated->id != orders->order.id)
        return;
    orders->running = false;
    orders->final_done |= orders->order.final;
    c->save_due = true;
    row = &coordinator_command(c, COMMAND_EVAL_ROW)->eval;
    *row = (struct command_eval_row){
        .step = orders->order.step,
        .episode = c->episodes,
        .version = evaluated->version,
        .episodes = evaluated->episodes,
        .reward = evaluated->reward,
        .length = evaluated->length,
        .has_success = evaluated->has_success,
        .success = evaluated->success,
        .final = orders->order.final,
    };
    coordinator_scores(row, evaluated);
}

/* --- training episodes ------------------------------------------------------ */

static void acknowledge_end(struct coordinator *c, const struct peer *peer, const struct episode_end *end)
{
    struct episode_ack *ack = &coordinator_send(c, peer, MESSAGE_EPISODE_ACK)->episode_ack;

    *ack = (struct episode_ack){end->slot, end->environment, end->stream_epoch, end->episode, 0};
}

static void log_episode(struct coordinator *c, const struct held_end *held)
{
    const struct episode_end *end = &held->end;
    struct command_train_row *row;

    acknowledge_end(c, &held->peer, end);
    row = &coordinator_command(c, COMMAND_TRAIN_ROW)->train;
    *row = (struct command_train_row){
        .step = shards_steps(c),
        .episode = c->episodes++,
        .updates = c->limiter.updates,
        .reward = end->reward,
        .length = end->length,
        .has_success = end->has_success,
        .success = end->success,
        .terminated = end->terminated,
        .slot = end->slot,
        .task = end->task,
    };
}

/* Its rows are stored; do our counts hold them? The shard's next word does. */
static bool end_is_counted(const struct coordinator *c, const struct held_end *held)
{
    return c->seats[held->shard].statuses != held->statuses ||
           c->now >= held->since_ms + COORDINATOR_HOLD_MS;
}

/* Write the lines of episodes whose steps are counted; all: of every one. */
static void log_episodes(struct coordinator *c, bool all)
{
    uint32_t done = 0;

    while (done < c->held_count && (all || end_is_counted(c, &c->held[done])))
        log_episode(c, &c->held[done++]);
    c->held_count -= done;
    memmove(c->held, c->held + done, c->held_count * sizeof(*c->held));
}

void async_flush_ends(struct coordinator *c)
{
    log_episodes(c, true);
}

static bool is_held(const struct coordinator *c, const struct episode_end *end)
{
    for (uint32_t i = 0; i < c->held_count; i++)
        if (c->held[i].end.slot == end->slot && c->held[i].end.environment == end->environment &&
            c->held[i].end.stream_epoch == end->stream_epoch && c->held[i].end.episode == end->episode)
            return true;
    return false;
}

void async_episode_end(struct coordinator *c, const struct peer *peer, struct member *member,
                       const struct episode_end *end)
{
    uint64_t *epoch = &member->ends[end->environment].epoch;
    uint64_t *next = &member->ends[end->environment].next;

    if (end->stream_epoch < *epoch || (end->stream_epoch == *epoch && end->episode < *next)) {
        if (!is_held(c, end))
            acknowledge_end(c, peer, end);
        return;
    }
    *epoch = end->stream_epoch;
    *next = end->episode + 1;
    if (c->held_count == COORDINATOR_HELD)
        log_episodes(c, true);
    c->held[c->held_count++] = (struct held_end){
        .peer = *peer,
        .shard = member->shard,
        .statuses = c->seats[member->shard].statuses,
        .since_ms = c->now,
        .end = *end,
    };
}

/* --- updates ---------------------------------------------------------------- */

void async_updated(struct coordinator *c)
{
    limiter_updated(&c->limiter);
}

/*
 * Publications: at once when there are none, then every broadcast_interval, or ten times what the last one took, in the
 * burst at its end.
 */
static void publish_when_due(struct coordinator *c)
{
    const struct announcement *newest = params_newest(c->params);
    uint64_t updates = c->limiter.updates;
    bool burst_over = c->limiter.phase == PHASE_RUNNING && updates >= c->limiter.burst_target &&
                      newest->version < c->limiter.burst_target;

    if (newest->epoch != c->config.epoch || burst_over || c->finished ||
        (c->limiter.phase != PHASE_BURST && c->now >= c->publish_due_ms))
        coordinator_publish(c, updates);
}

static void save_when_due(struct coordinator *c)
{
    struct bulk none = {NULL, 0};
    struct progress progress;

    c->save_due |= c->now >= c->saved_ms + c->config.checkpoint_every_ms;
    if (!c->save_due || c->saving != 0 || c->now < c->save_again_ms)
        return;
    coordinator_progress(c, &progress);
    coordinator_save(c, SAVE_ORDINARY, &progress, none);
}

/* Ask for the next batch as soon as its update may run, one ahead of the one that runs. */
static void gather(struct coordinator *c)
{
    uint64_t ahead = coordinator_updating(c) + (batch_in(c, BATCH_READY) >= 0);
    struct sample_request like = {0};

    if (c->finished || batch_in(c, BATCH_GATHERING) >= 0 || batch_free(c) < 0 || c->now < c->gather_again_ms ||
        !limiter_may_update(&c->limiter, ahead))
        return;
    if (!batch_request(c, c->limiter.updates + ahead, &like) && ahead == 0)
        coordinator_wait(c, WAIT_SHARDS, "a shard with samplable episodes: all that have some are away");
}

/* Steps for a shard that is silent or starts again cannot come in. True: there is one. */
static bool say_shard_away(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->config.shards; i++)
        if (!seat_live(c, &c->seats[i])) {
            coordinator_wait(c, WAIT_SHARDS, "shard %u: nothing is heard from it, and steps for it cannot come in", i);
            return true;
        }
    return false;
}

/* Why does no update run? */
static void say_why_idle(struct coordinator *c)
{
    const struct limiter *limiter = &c->limiter;
    int gathering = batch_in(c, BATCH_GATHERING);

    if (coordinator_updating(c))
        return;
    if (gathering >= 0)
        coordinator_wait(c, WAIT_SHARDS, "slices from the replay shard for update %llu",
                         (unsigned long long)c->batches[gathering].update);
    else if (roster_live(c, ROLE_ACTOR) == 0 && !c->finished)
        coordinator_wait(c, WAIT_INSERTS, "actors: none is there");
    else if (limiter->phase != PHASE_BURST && !c->finished && say_shard_away(c))
        return;
    else if (limiter->phase == PHASE_SEEDING && limiter->steps >= c->seed_steps)
        coordinator_wait(c, WAIT_INSERTS, "finished episodes of at least %u rows: %llu of %llu steps "
                         "of seeding are samplable", c->config.horizon + 1,
                         (unsigned long long)limiter->episode_steps,
                         (unsigned long long)c->seed_steps);
    else if (limiter->phase != PHASE_SEEDING && limiter->episodes == 0)
        coordinator_wait(c, WAIT_INSERTS, "samplable episodes: the replay holds none of at least %u rows",
                         c->config.horizon + 1);
    else if (limiter->phase == PHASE_RUNNING && !c->finished)
        coordinator_wait(c, WAIT_INSERTS, "agent steps: actors are behind");
}

/* All is in: final parameters, final evaluation, the end. */
static void finish(struct coordinator *c)
{
    struct orders *orders = &c->orders;
    const struct announcement *newest = params_newest(c->params);

    if (newest->version != c->limiter.updates || newest->epoch != c->config.epoch)
        return;
    if (c->config.evaluator && !orders->final_done) {
        if (!orders->pending_final && !(orders->running && orders->order.final)) {
            orders->pending = orders->pending_final = true;
            orders->pending_step = c->config.steps;
        }
        coordinator_wait(c, WAIT_SHARDS, "the final evaluation");
        return;
    }
    coordinator_end(c, ENDING_COMPLETE, TD_EXIT_OK, "complete: %llu agent steps, %llu updates",
                    (unsigned long long)shards_steps(c), (unsigned long long)c->limiter.updates);
}

void async_advance(struct coordinator *c)
{
    int ready;

    log_episodes(c, false);
    if (!counts_known(c)) {
        for (uint32_t i = 0; i < c->config.shards; i++)
            if (!c->seats[i].has_status)
                coordinator_wait(c, WAIT_SHARDS, "replay shard %u of %u to join", i,
                                 c->config.shards);
        return;
    }
    shards_observe(c);
    c->finished |= limiter_complete(&c->limiter) && !coordinator_updating(c);
    if (!coordinator_updating(c)) {
        publish_when_due(c);
        save_when_due(c);
        ready = batch_in(c, BATCH_READY);
        if (ready >= 0 && !c->finished && limiter_may_update(&c->limiter, 0))
            batch_start(c, ready);
    }
    gather(c);
    order_due(c);
    if (c->finished)
        finish(c);
    orders_advance(c);
    say_why_idle(c);
}

uint64_t async_deadline(const struct coordinator *c)
{
    uint64_t at = UINT64_MAX, save_ms = c->saved_ms + c->config.checkpoint_every_ms;

    if (c->held_count > 0)
        at = c->held[0].since_ms + COORDINATOR_HOLD_MS;
    if (!c->model_ready || !counts_known(c))
        return at;
    save_ms = save_ms < c->save_again_ms ? c->save_again_ms : save_ms;
    if (c->saving == 0 && !coordinator_updating(c) && save_ms < at)
        at = save_ms;
    if (c->orders.running && c->orders.send_ms < at && c->orders.send_ms > c->now)
        at = c->orders.send_ms;
    if (c->gather_again_ms > c->now && c->gather_again_ms < at)
        at = c->gather_again_ms;
    if (coordinator_updating(c))
        return at; /* its end wakes us */
    if (c->publishing == 0 && c->publish_due_ms > c->now && c->publish_due_ms < at)
        at = c->publish_due_ms;
    return at;
}
