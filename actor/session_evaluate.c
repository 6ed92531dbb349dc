/* Evaluations: one at a time, ordered by the learner; on the evaluator or, in lock-step, in place. */
#include <string.h>

#include "actor/session_private.h"

void evaluate_forget(session_t *session)
{
    if (session->evaluating.token != 0)
        session_command(session, COMMAND_ABANDON);
    memset(&session->evaluating, 0, sizeof(session->evaluating));
}

static void send_result(session_t *session)
{
    struct evaluating *evaluating = &session->evaluating;
    struct message *message = session_send(session, PORT_CONTROL, MESSAGE_EVALUATED);

    message->evaluated = evaluating->result;
    if (evaluating->order.in_place && session->turns.state_size > 0) {
        message->bulks = 1;
        message->bulk[0] = (struct bulk){session->turns.state, session->turns.state_size};
    }
    evaluating->send_ms = session->now + SESSION_RESEND_MS;
}

static bool same_order(const struct evaluate *a, const struct evaluate *b)
{
    return a->id == b->id && a->learner_epoch == b->learner_epoch && a->generation == b->generation;
}

void evaluate_order(session_t *session, const struct evaluate *order)
{
    struct evaluating *evaluating = &session->evaluating;

    if (order->in_place != (session->config.role == ROLE_ACTOR))
        return;
    if (order->in_place && (!session->lockstep || session->turns.restoring ||
                            order->generation != session->turns.generation ||
                            session->turns.turn_active || session->lanes[0].state == LANE_OPEN))
        return;
    if (same_order(order, &evaluating->order) && (evaluating->ordered || evaluating->finished)) {
        if (evaluating->finished)
            send_result(session);
        return;
    }
    evaluate_forget(session);
    evaluating->ordered = true;
    evaluating->order = *order;
}

void evaluate_acknowledged(session_t *session, const struct evaluated_ack *ack)
{
    if (session->evaluating.finished && session->evaluating.order.id == ack->id &&
        session->evaluating.order.generation == ack->generation)
        session->evaluating.send_ms = UINT64_MAX;
}

/* In place exactly the parameters named; an evaluator takes the newest that are not older. */
static bool parameters_here(session_t *session, const struct evaluate *order)
{
    const struct announcement *wanted = &order->parameters;

    if (!order->in_place && session->adopted.epoch == wanted->epoch &&
        announcement_compare(&session->adopted, wanted) >= 0 && wanted->epoch != 0)
        return true;
    if (session_has_parameters(session, wanted))
        return true;
    if (!order->in_place && session->newest.epoch == wanted->epoch &&
        announcement_compare(&session->newest, wanted) > 0)
        wanted = &session->newest;
    session_pull(session, wanted);
    return false;
}

void evaluate_advance(session_t *session)
{
    struct evaluating *evaluating = &session->evaluating;
    const struct evaluate *order = &evaluating->order;
    struct command_evaluate *command;

    if (!evaluating->ordered || evaluating->token != 0 || session->terminating)
        return;
    if (!parameters_here(session, order)) {
        session->waiting = WAITING_PARAMETERS;
        return;
    }
    command = &session_command(session, COMMAND_EVALUATE)->evaluate;
    command->token = evaluating->token = session_token(session);
    command->episodes = order->episodes;
    command->in_place = order->in_place;
    command->alone = order->final || order->in_place;
    command->step = order->step;
    command->seed = rng_hash(rng_hash(session->setup.seed, ROLE_EVALUATOR), order->step) & UINT32_MAX;
    command->key = session_key(session, RNG_EVAL, 0, (uint32_t)order->step, 0);
    evaluating->result = (struct evaluated){
        .learner_epoch = order->learner_epoch,
        .id = order->id,
        .step = order->step,
        .version_epoch = session->adopted.epoch,
        .version = session->adopted.version,
        .generation = order->generation,
    };
}

void session_evaluated(session_t *session, uint64_t now_ms, uint64_t token,
                       const struct session_evaluation *result)
{
    struct evaluating *evaluating = &session->evaluating;

    session->now = now_ms;
    if (token != 0 && token == evaluating->token && !session->parting) {
        evaluating->token = 0;
        evaluating->ordered = false;
        evaluating->finished = true;
        evaluating->result.episodes = result->episodes;
        evaluating->result.reward = result->reward;
        evaluating->result.length = result->length;
        evaluating->result.has_success = result->has_success;
        evaluating->result.success = result->success;
        TD_ASSERT(result->score_count <= ROW_TASKS_MAX, "%u scores", result->score_count);
        evaluating->result.score_count = result->score_count;
        for (uint32_t i = 0; i < result->score_count; i++)
            evaluating->result.scores[i] = result->scores[i];
        if (evaluating->order.in_place) {
            TD_ASSERT(result->state.size <= WIRE_STATE_MAX, "a state of %zu", result->state.size);
            if (result->state.size > 0)
                memcpy(session->turns.state, result->state.data, result->state.size);
            session->turns.state_size = result->state.size;
        }
        send_result(session);
    }
    session_tick(session, now_ms);
}

void evaluate_tick(session_t *session)
{
    if (session->evaluating.finished && session->welcomed &&
        session->now >= session->evaluating.send_ms)
        send_result(session);
}

uint64_t evaluate_deadline(const session_t *session)
{
    if (session->evaluating.finished && session->welcomed)
        return session->evaluating.send_ms;
    return UINT64_MAX;
}
