/* Lock-step: restore, one turn at a time, the state reported after every episode. */
#include <stdlib.h>
#include <string.h>

#include "actor/session_private.h"

static void keep_state(session_t *session, struct bulk state)
{
    struct lockstep *turns = &session->turns;

    TD_ASSERT(state.size <= WIRE_STATE_MAX, "a state of %zu bytes", state.size);
    if (turns->state == NULL) {
        turns->state = malloc(WIRE_STATE_MAX);
        TD_ASSERT(turns->state != NULL, "out of memory for the environment's state");
    }
    if (state.size > 0)
        memcpy(turns->state, state.data, state.size);
    turns->state_size = state.size;
}

/*
 * The learner stands at a point between two episodes: go there, whatever was under way. The same
 * generation again only answers a repeated Hello.
 */
void turns_welcome(session_t *session, const struct welcome *welcome, const struct bulk *state)
{
    struct lockstep *turns = &session->turns;
    struct lane *lane = &session->lanes[0];
    struct session_output *output;

    if (!welcome->restore || welcome->generation <= turns->generation)
        return;
    if (turns->generation != 0)
        session_log(session, LOG_WARN, "the run went back to step %llu: dropped %llu rows",
                    (unsigned long long)welcome->step,
                    (unsigned long long)outbox_held(lane->outbox));
    streams_forget(session);
    evaluate_forget(session);
    session_command(session, COMMAND_ABANDON);
    turns->generation = welcome->generation;
    turns->lost_ms = 0;
    turns->restoring = true;
    turns->fresh = state->size == 0 && welcome->step == 0;
    turns->turn_active = turns->answered = turns->end_pending = false;
    keep_state(session, *state);
    output = session_command(session, COMMAND_RESTORE);
    output->restore.token = lane->token = session_token(session);
    output->restore.environment = 0;
    output->restore.seed = streams_seed(session, lane);
    output->restore.state = (struct bulk){turns->state, turns->state_size};
    lane->doing = COMMAND_RESTORE;
}

static void capture(session_t *session, struct lane *lane)
{
    struct command_capture *command = &session_command(session, COMMAND_CAPTURE)->capture;

    command->token = lane->token = session_token(session);
    command->environment = lane->environment;
    lane->doing = COMMAND_CAPTURE;
}

void session_restored(session_t *session, uint64_t now_ms, uint64_t token, bool ok)
{
    struct lane *lane = streams_awaiting(session, token);

    session->now = now_ms;
    if (lane != NULL && lane->doing == COMMAND_RESTORE && !session->parting) {
        lane->token = 0;
        session->turns.restoring = false;
        if (!ok)
            session_exit(session, TD_EXIT_BAD_INPUT,
                         "the environment does not take the state the checkpoint holds: was it made "
                         "by another build?");
        else if (session->turns.fresh) {
            session->turns.end = (struct episode_end){.slot = session->slot, .start = true,
                                                      .generation = session->turns.generation};
            capture(session, lane);
        }
    }
    session_tick(session, now_ms);
}

/* --- answers ---------------------------------------------------------------- */

static void send_end(session_t *session)
{
    struct lockstep *turns = &session->turns;
    struct message *message = session_send(session, PORT_CONTROL, MESSAGE_EPISODE_END);

    message->episode_end = turns->end;
    if (turns->state_size > 0) {
        message->bulks = 1;
        message->bulk[0] = (struct bulk){turns->state, turns->state_size};
    }
    turns->end_ms = session->now + SESSION_HELLO_MS;
}

static void send_turned(session_t *session)
{
    struct turned *turned = &session_send(session, PORT_CONTROL, MESSAGE_TURNED)->turned;

    turned->slot = session->slot;
    turned->generation = session->turns.generation;
    turned->step = session->turns.last_step;
}

void session_captured(session_t *session, uint64_t now_ms, uint64_t token, struct bulk state)
{
    struct lane *lane = streams_awaiting(session, token);

    session->now = now_ms;
    if (lane != NULL && lane->doing == COMMAND_CAPTURE && !session->parting) {
        lane->token = 0;
        keep_state(session, state);
        session->turns.end_pending = true;
        send_end(session);
    }
    session_tick(session, now_ms);
}

/* --- turns ------------------------------------------------------------------ */

static void receive_turn(session_t *session, const struct turn *turn)
{
    struct lockstep *turns = &session->turns;
    struct lane *lane = &session->lanes[0];

    uint32_t tasks = session->setup.spec.tasks > 1 ? session->setup.spec.tasks : 1;

    if (turn->task >= tasks || turn->generation != turns->generation || turns->restoring || turns->turn_active ||
        lane->token != 0)
        return;
    if (turns->answered && turn->step == turns->last_step) {
        if (turns->ended)
            send_end(session);
        else
            send_turned(session);
        return;
    }
    if (turns->answered && turn->step != turns->last_step + 1)
        return; /* an old one */
    if (turn->reset ? lane->state == LANE_OPEN : lane->state != LANE_OPEN)
        return;
    turns->turn = *turn;
    turns->turn_active = true;
    turns->answered = turns->end_pending = false;
    evaluate_forget(session);
}

void turns_receive(session_t *session, const struct message *message)
{
    struct lockstep *turns = &session->turns;

    if (!session->lockstep || !session->configured || session->config.role != ROLE_ACTOR)
        return;
    if (message->kind == MESSAGE_TURN) {
        if (message->turn.learner_epoch == session->learner_epoch)
            receive_turn(session, &message->turn);
    } else if (message->kind == MESSAGE_EPISODE_ACK) {
        if (message->episode_ack.generation == turns->generation &&
            message->episode_ack.episode == turns->end.episode)
            turns->end_pending = false;
    }
}

/* The step of the turn, with its parameters or at random. */
static void take_step(session_t *session, struct lane *lane)
{
    const struct turn *turn = &session->turns.turn;
    struct rng_key key = session_key(session, turn->random ? RNG_SEED_ACTION : RNG_PLAN,
                                     lane->environment, 0, turn->step);

    lane_step(session, lane, turn->random, &key);
}

void turns_stepped(session_t *session, struct lane *lane, const struct session_step *step)
{
    struct lockstep *turns = &session->turns;
    bool reset = lane->doing == COMMAND_RESET;

    if (!lane_push(session, lane, step))
        return;
    if (reset)
        return; /* turns_advance goes on with the step */
    turns->turn_active = false;
    turns->answered = true;
    turns->last_step = turns->turn.step;
    turns->ended = step->terminated || step->truncated;
    if (!turns->ended) {
        send_turned(session);
        return;
    }
    lane->state = LANE_RESTING;
    session->episodes++;
    turns->end = (struct episode_end){
        .slot = session->slot,
        .stream_epoch = lane->epoch,
        .episode = turns->turn.episode,
        .length = lane->episode_steps,
        .reward = lane->episode_reward,
        .has_success = step->has_success,
        .success = step->success,
        .terminated = step->terminated,
        .task = lane->task,
        .step = turns->turn.step,
        .generation = turns->generation,
        .version_epoch = session->adopted.epoch,
        .version = session->adopted.version,
    };
    capture(session, lane);
}

static uint32_t turn_waits_for(session_t *session, const struct lane *lane)
{
    const struct turn *turn = &session->turns.turn;

    if (!session_learner_alive(session))
        return WAITING_LEARNER;
    if (!session->turns.turn_active)
        return WAITING_TURN;
    if (lane->epoch == 0 || lane->renew || !session->shard_joined)
        return WAITING_SHARD;
    if (outbox_full(lane->outbox))
        return WAITING_ACKS;
    if (!turn->random && !session_has_parameters(session, &turn->parameters)) {
        session_pull(session, &turn->parameters);
        return WAITING_PARAMETERS;
    }
    return WAITING_NOTHING;
}

void turns_advance(session_t *session)
{
    struct lane *lane = &session->lanes[0];
    uint32_t waiting;

    if (lane->epoch != 0)
        streams_flush(session, lane);
    if (lane->token != 0 || session->turns.restoring || session->terminating)
        return;
    if (session->evaluating.ordered && !session->turns.turn_active) {
        evaluate_advance(session);
        return;
    }
    waiting = turn_waits_for(session, lane);
    if (waiting != WAITING_NOTHING) {
        session->waiting = waiting;
        return;
    }
    if (session->turns.turn.reset && lane->state != LANE_OPEN)
        lane_reset(session, lane);
    else
        take_step(session, lane);
}

/*
 * A new epoch in the middle of an episode: usually the shard was rewound and the learner's Welcome is on
 * its way. If none comes the rows are lost to this run, and only a new process makes the learner go
 * back to a cut.
 */
void turns_epoch_lost(session_t *session, const struct lane *lane)
{
    if (lane->epoch != 0 && session->turns.lost_ms == 0 &&
        (lane->state == LANE_OPEN || outbox_held(lane->outbox) > 0))
        session->turns.lost_ms = session->now + SESSION_LOST_MS;
}

static bool lost_for_good(const session_t *session)
{
    return session->turns.lost_ms != 0 && session_learner_alive(session) &&
           session->now >= session->turns.lost_ms;
}

void turns_tick(session_t *session)
{
    if (lost_for_good(session))
        session_exit(session, TD_EXIT_GAVE_UP,
                     "the shard closed this actor's stream in the middle of an episode: start it "
                     "again, the run goes back to the last cut");
    if (session->turns.end_pending && session->welcomed && session->now >= session->turns.end_ms)
        send_end(session);
}

uint64_t turns_deadline(const session_t *session)
{
    uint64_t at = UINT64_MAX;

    if (session->turns.end_pending && session->welcomed)
        at = session->turns.end_ms;
    if (session->turns.lost_ms != 0 && session_learner_alive(session) && session->turns.lost_ms < at)
        at = session->turns.lost_ms;
    return at;
}
