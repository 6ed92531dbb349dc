/* Streams: rows out, acknowledgements in, epochs; and stepping in asynchronous runs. */
#include <stdlib.h>
#include <string.h>

#include "actor/session_private.h"

#define CHUNK_ROWS   32 /* so many unsent rows are sent although others are in flight */
#define CHUNKS_AHEAD 4  /* and fewer than that, while so few chunks are in flight */

int streams_create(session_t *session)
{
    uint32_t count = session->setup.environments;

    session->lanes = calloc(count, sizeof(*session->lanes));
    if (session->lanes == NULL)
        return TD_ENOMEM;
    session->lane_count = count;
    for (uint32_t i = 0; i < count; i++) {
        session->lanes[i].environment = i;
        if (outbox_create(&session->lanes[i].outbox, session->setup.outbox, session->stride) != TD_OK)
            return TD_ENOMEM;
    }
    return TD_OK;
}

void streams_destroy(session_t *session)
{
    for (uint32_t i = 0; i < session->lane_count; i++)
        outbox_destroy(&session->lanes[i].outbox);
    free(session->lanes);
    session->lanes = NULL;
    session->lane_count = 0;
}

uint64_t streams_unacknowledged(const session_t *session)
{
    uint64_t held = 0;

    for (uint32_t i = 0; i < session->lane_count; i++)
        held += outbox_held(session->lanes[i].outbox);
    return held;
}

bool streams_shard_alive(const session_t *session)
{
    return session->shard_joined &&
           session->now < session->shard_heard_ms + session_gone_ms(session);
}

/*
 * The environment's own seed (PROTOCOL): the run's for the first stream's first epoch and in
 * lock-step, else a hash, so that no two epochs see the same episodes.
 */
uint64_t streams_seed(const session_t *session, const struct lane *lane)
{
    uint64_t where = (uint64_t)session->config.role << 32 | session->slot;

    if (session->slot == 0 && lane->environment == 0 &&
        (session->lockstep || lane->epoch <= 1))
        return session->setup.seed & UINT32_MAX;
    where = rng_hash(rng_hash(session->setup.seed, where), lane->environment);
    return rng_hash(where, lane->epoch) & UINT32_MAX;
}

/* --- joining the shard ------------------------------------------------------ */

/*
 * Hello to the shard, with every heartbeat: it keeps the streams live and heals what was lost. The
 * Welcome comes after everything sent before it on this connection was stored, so rows sent before the
 * Hello that its mark does not cover are lost and sent again.
 */
void streams_hello(session_t *session)
{
    struct ingest_hello *hello;

    if (session->config.role != ROLE_ACTOR || session->ingest[0] == '\0' || !session->seated)
        return;
    hello = &session_send(session, PORT_INGEST, MESSAGE_INGEST_HELLO)->ingest_hello;
    hello->slot = session->slot;
    hello->seating = session->seating;
    hello->process = session->config.process;
    hello->spec = session->setup.spec;
    hello->count = session->lane_count;
    for (uint32_t i = 0; i < session->lane_count; i++) {
        struct lane *lane = &session->lanes[i];

        hello->streams[i] = (struct stream_shown){lane->environment, lane->store, lane->epoch,
                                                  lane->renew};
        lane->said = outbox_next(lane->outbox) - outbox_unsent(lane->outbox);
    }
    session->ingest_hello_ms =
        session->now + (streams_shard_alive(session) ? session->setup.heartbeat_ms
                                                     : SESSION_HELLO_MS);
}

/* Drop the lane's rows and unfinished episode; counts what is lost. */
static void lane_forget(session_t *session, struct lane *lane)
{
    if (lane->state == LANE_OPEN)
        session->dropped_episodes++;
    session->dropped_rows += outbox_clear(lane->outbox);
    lane->state = lane->epoch != 0 ? LANE_RESTING : LANE_CLOSED;
    if (lane->doing == COMMAND_RESET || lane->doing == COMMAND_STEP)
        lane->token = 0;
    lane->chunks = lane->said = 0;
    lane->lost = false;
    lane->steps = lane->episode = lane->episode_steps = 0;
    lane->episode_reward = 0;
}

void streams_forget(session_t *session)
{
    for (uint32_t i = 0; i < session->lane_count; i++) {
        struct lane *lane = &session->lanes[i];

        lane_forget(session, lane);
        lane->renew = lane->epoch != 0; /* its numbers are used up */
    }
}

/* A stream epoch that is not the one we had: begin anew in it. */
static void lane_new_epoch(session_t *session, struct lane *lane, uint64_t store,
                           const struct stream_granted *granted)
{
    uint64_t held = outbox_held(lane->outbox);

    if (lane->epoch != 0)
        session_log(session, LOG_WARN,
                    "the shard gave a new epoch (%llu): dropped %llu unacknowledged rows%s",
                    (unsigned long long)granted->epoch, (unsigned long long)held,
                    lane->state == LANE_OPEN ? " and the unfinished episode" : "");
    if (session->lockstep)
        turns_epoch_lost(session, lane);
    lane->store = store;
    lane->epoch = granted->epoch;
    lane_forget(session, lane);
    lane->limit = granted->limit;
    lane->reseed = true;
    lane->renew = false;
}

/* Ask for a new epoch: the shard and we no longer agree on what was sent. */
static void lane_renew(session_t *session, struct lane *lane, const char *why)
{
    session_log(session, LOG_WARN, "asking for a new stream epoch: %s", why);
    lane->renew = true;
    streams_hello(session);
}

static void lane_acknowledged(session_t *session, struct lane *lane, uint64_t next, uint64_t limit)
{
    uint64_t held = outbox_held(lane->outbox);

    lane->limit = limit;
    if (!outbox_ack(lane->outbox, next)) {
        lane_renew(session, lane, "the shard holds rows this process never made");
        return;
    }
    if (outbox_held(lane->outbox) < held)
        lane->sent_ms = session->now;
    if (outbox_inflight(lane->outbox) == 0)
        lane->chunks = 0;
    else if (lane->chunks > 0)
        lane->chunks--;
    if (next > lane->refused_at)
        lane->streak = 0;
}

static struct lane *lane_of(session_t *session, uint32_t environment)
{
    return environment < session->lane_count ? &session->lanes[environment] : NULL;
}

static void receive_ingest_welcome(session_t *session, const struct ingest_welcome *welcome)
{
    if (welcome->slot != session->slot || welcome->process != session->config.process)
        return;
    session->shard_joined = true;
    for (uint32_t i = 0; i < welcome->count; i++) {
        const struct stream_granted *granted = &welcome->streams[i];
        struct lane *lane = lane_of(session, granted->environment);

        if (lane == NULL || granted->epoch == 0)
            continue;
        if (lane->store == welcome->store && granted->epoch < lane->epoch)
            continue; /* an old answer: in that epoch its numbers are used up */
        if (lane->store != welcome->store || lane->epoch != granted->epoch)
            lane_new_epoch(session, lane, welcome->store, granted);
        lane_acknowledged(session, lane, granted->next, granted->limit);
        if (granted->next < lane->said && outbox_resend(lane->outbox, granted->next)) {
            session->resent += lane->said - granted->next;
            lane->chunks = 0;
        }
        lane->said = 0;
    }
}

/* Rows the shard will not take: the episode is given up, and after a few in a row the actor. */
static void receive_rows_refused(session_t *session, const struct refused *refused)
{
    struct lane *lane = lane_of(session, refused->environment);

    if (lane == NULL || refused->stream_epoch != lane->epoch || lane->renew)
        return;
    lane->refused_at = refused->sequence;
    if (++lane->streak >= SESSION_STREAK || session->lockstep) {
        session_exit(session, TD_EXIT_BAD_INPUT, "the shard refuses this actor's rows: %s",
                     refused->text);
        return;
    }
    lane_renew(session, lane, refused->text);
}

void streams_receive(session_t *session, const struct message *message)
{
    struct lane *lane;

    session->shard_heard_ms = session->now;
    switch (message->kind) {
    case MESSAGE_INGEST_WELCOME:
        receive_ingest_welcome(session, &message->ingest_welcome);
        break;
    case MESSAGE_ACK:
        lane = lane_of(session, message->ack.environment);
        if (lane != NULL && message->ack.slot == session->slot &&
            message->ack.store == lane->store && message->ack.epoch == lane->epoch)
            lane_acknowledged(session, lane, message->ack.next, message->ack.limit);
        break;
    case MESSAGE_NACK:
        lane = lane_of(session, message->nack.environment);
        if (lane == NULL || message->nack.slot != session->slot || lane->renew ||
            message->nack.store != lane->store || message->nack.epoch != lane->epoch)
            break;
        if (!outbox_resend(lane->outbox, message->nack.next))
            lane_renew(session, lane, "it misses rows that are no longer here");
        else
            session->resent += outbox_unsent(lane->outbox);
        lane->chunks = 0;
        break;
    case MESSAGE_REJOIN:
        if (message->rejoin.slot != session->slot)
            break;
        if (session->shard_joined || session->now >= session->ingest_hello_ms) {
            session->shard_joined = false;
            streams_hello(session);
        }
        break;
    case MESSAGE_FENCED:
        if (message->fenced.slot == session->slot &&
            message->fenced.holder != session->config.process)
            session_exit(session, TD_EXIT_FENCED, "another process took slot %u", session->slot);
        break;
    case MESSAGE_REFUSED:
        if (message->refused.code == REFUSED_ROWS)
            receive_rows_refused(session, &message->refused);
        else
            session_exit(session, TD_EXIT_BAD_INPUT, "the shard refused: %s",
                         message->refused.text);
        break;
    default:
        break;
    }
}

/* --- rows ------------------------------------------------------------------- */

/* Send what may be sent: at once when nothing is in flight, in chunks when rows come fast. */
void streams_flush(session_t *session, struct lane *lane)
{
    uint32_t most = WIRE_ROWS_MAX / session->stride;

    while (session->shard_joined && lane->epoch != 0 && !lane->renew) {
        uint64_t unsent = outbox_unsent(lane->outbox), inflight = outbox_inflight(lane->outbox);
        struct message *message;
        uint64_t first;
        const void *rows;
        uint32_t count;

        if (unsent == 0 || inflight >= SESSION_INFLIGHT ||
            (unsent < CHUNK_ROWS && lane->chunks >= CHUNKS_AHEAD))
            return;
        count = outbox_chunk(lane->outbox, most, &first, &rows);
        message = session_send(session, PORT_INGEST, MESSAGE_ROWS);
        message->rows = (struct rows){session->slot, lane->environment, session->config.process,
                                      lane->store, lane->epoch, first, count, session->stride};
        message->bulks = 1;
        message->bulk[0] = (struct bulk){rows, (size_t)count * session->stride};
        if (inflight == 0)
            lane->sent_ms = session->now;
        lane->chunks++;
        outbox_sent(lane->outbox, count);
    }
}

/* The environment made something no row may hold. */
static void lane_broken(session_t *session, struct lane *lane, const char *why)
{
    if (++lane->streak >= SESSION_STREAK || session->lockstep) {
        session_exit(session, TD_EXIT_BAD_INPUT,
                     "the environment returned a step that cannot be stored: %s", why);
        return;
    }
    session_log(session, LOG_ERROR, "gave up the episode: %s", why);
    lane->refused_at = outbox_next(lane->outbox);
    lane_renew(session, lane, why);
}

/*
 * The environment is gone in the middle of an episode, or would not begin one. What it did so far is
 * good: it goes out, then a new stream epoch closes the episode as aborted and brings another seed.
 */
static void lane_lost(session_t *session, struct lane *lane, const char *why)
{
    bool lived = lane->episode > 0 || lane->steps >= SESSION_ALIVE;

    lane->losses = lived ? 1 : lane->losses + 1;
    if (session->lockstep || lane->losses >= SESSION_LOSSES) {
        session_exit(session, TD_EXIT_GAVE_UP, "%s%s",
                     session->lockstep ? "" : "the environment was lost five times without a whole episode; the last time: ",
                     why);
        return;
    }
    session_log(session, LOG_ERROR, "%s; the episode is closed as aborted", why);
    lane->lost = true;
    lane->state = LANE_RESTING;
    lane->again_ms = session->now + ((uint64_t)SESSION_RESTART_MS << (lane->losses - 1));
}

/* Append the row of a reset or step and send it. False: it was refused, the lane begins anew. */
bool lane_push(session_t *session, struct lane *lane, const struct session_step *step)
{
    void *row = outbox_reserve(lane->outbox);
    bool first = lane->doing == COMMAND_RESET;
    struct row_head head = {0}; /* rows are aligned to 4 bytes only: copied, not written in place */
    const char *bad;

    TD_ASSERT(row != NULL, "a command was given without room for its row");
    memcpy(row_obs(row), step->obs, session->schema.obs_type == OBS_STATE
                                        ? 4u * (size_t)session->schema.obs_dim
                                        : session->schema.obs_dim);
    if (first) {
        head.flags = ROW_FIRST;
    } else {
        memcpy(row_action(row, &session->schema), step->action, 4u * session->schema.action_dim);
        head.reward = step->reward;
        head.flags = (step->terminated ? ROW_TERMINATED : 0) | (step->truncated ? ROW_TRUNCATED : 0);
        if (lane->planned) {
            head.param_epoch = lane->with.epoch;
            head.param_version = lane->with.version;
        }
    }
    head.task = lane->task;
    memcpy(row, &head, sizeof(head));
    if ((bad = row_check(row, &session->schema)) != NULL) {
        lane_broken(session, lane, bad);
        return false;
    }
    outbox_append(lane->outbox);
    lane->state = LANE_OPEN;
    if (first) {
        lane->episode_steps = 0;
        lane->episode_reward = 0;
    } else {
        lane->steps++;
        lane->episode_steps++;
        lane->episode_reward += step->reward;
        session->steps++;
    }
    streams_flush(session, lane);
    return true;
}

/* --- tasks ------------------------------------------------------------------ */

bool session_assigned(const session_t *session)
{
    return session->setup.spec.tasks > 1 && !session->lockstep;
}

static bool lane_asks(const session_t *session, const struct lane *lane)
{
    return session_assigned(session) && !lane->has_next && session->welcomed && !session->terminating;
}

/* Ask for the next episode's task while this one is played, so that nobody waits for the answer. */
static void ask_task(session_t *session, struct lane *lane)
{
    struct next_task *next;

    if (!lane_asks(session, lane) || session->now < lane->ask_ms)
        return;
    next = &session_send(session, PORT_CONTROL, MESSAGE_NEXT_TASK)->next_task;
    next->slot = session->slot;
    next->environment = lane->environment;
    next->process = session->config.process;
    next->number = lane->begun;
    next->playing = lane->begun > 0 && lane->state == LANE_OPEN;
    next->task = lane->task;
    lane->ask_ms = session->now + SESSION_HELLO_MS;
}

void streams_assign(session_t *session, const struct assign *assign)
{
    struct lane *lane = lane_of(session, assign->environment);

    if (lane == NULL || assign->slot != session->slot || assign->number != lane->begun || lane->has_next ||
        assign->learner_epoch != session->learner_epoch || assign->task >= session->setup.spec.tasks)
        return;
    lane->has_next = true;
    lane->next_task = assign->task;
}

/* --- stepping, asynchronous ------------------------------------------------- */

/* What the episode that now begins is about; the one after it is asked for at once. */
static uint32_t next_task(session_t *session, struct lane *lane)
{
    if (session->lockstep)
        return session->turns.turn.task;
    if (!session_assigned(session))
        return 0;
    TD_ASSERT(lane->has_next, "an episode without a task");
    lane->has_next = false;
    lane->begun++;
    lane->ask_ms = 0;
    return lane->next_task;
}

void lane_reset(session_t *session, struct lane *lane)
{
    struct command_reset *command = &session_command(session, COMMAND_RESET)->reset;

    command->token = lane->token = session_token(session);
    command->environment = lane->environment;
    command->reseed = lane->reseed && !session->lockstep; /* there the restored state says all */
    command->seed = streams_seed(session, lane);
    command->task = lane->task = next_task(session, lane);
    lane->reseed = false;
    lane->planned = false;
    lane->doing = COMMAND_RESET;
}

void lane_step(session_t *session, struct lane *lane, bool random, const struct rng_key *key)
{
    struct command_step *command = &session_command(session, COMMAND_STEP)->step;

    command->token = lane->token = session_token(session);
    command->environment = lane->environment;
    command->random = random;
    command->first = lane->episode_steps == 0;
    command->key = *key;
    lane->planned = !random;
    lane->with = session->adopted;
    lane->doing = COMMAND_STEP;
}

static bool acts_at_random(const session_t *session)
{
    return session->phase < PHASE_RUNNING;
}

/* Parameters of this learner, not too old; newer ones are fetched in any case. */
static bool parameters_will_do(session_t *session)
{
    const struct announcement *newest = &session->newest;

    if (newest->epoch == session->learner_epoch &&
        announcement_compare(newest, &session->adopted) > 0)
        session_pull(session, newest);
    if (session->adopted.epoch == 0 || session->adopted.epoch != session->learner_epoch)
        return false;
    return newest->epoch != session->adopted.epoch || newest->version <= session->adopted.version ||
           newest->version - session->adopted.version <= session->setup.max_staleness;
}

/* What keeps this lane from its next step; WAITING_NOTHING: nothing does. */
static uint32_t lane_waits_for(session_t *session, const struct lane *lane)
{
    if (!session_learner_alive(session))
        return WAITING_LEARNER;
    if (lane->lost && outbox_held(lane->outbox) > 0)
        return streams_shard_alive(session) ? WAITING_ACKS : WAITING_SHARD;
    if (lane->lost && session->now < lane->again_ms)
        return WAITING_ENVIRONMENT;
    if (lane->state == LANE_CLOSED || lane->renew || !streams_shard_alive(session))
        return WAITING_SHARD;
    if (outbox_full(lane->outbox))
        return WAITING_ACKS;
    if (lane->state == LANE_RESTING)
        return session_assigned(session) && !lane->has_next ? WAITING_TASK : WAITING_NOTHING;
    if (lane->steps >= lane->limit)
        return session->phase == PHASE_BURST ? WAITING_BURST : WAITING_LIMIT;
    if (!acts_at_random(session) && !parameters_will_do(session))
        return WAITING_PARAMETERS;
    return WAITING_NOTHING;
}

/* Give the lane its next command; returns what it waits for instead. */
static uint32_t lane_advance(session_t *session, struct lane *lane)
{
    uint32_t waiting = lane_waits_for(session, lane);
    bool random = acts_at_random(session);
    struct rng_key key;

    if (waiting != WAITING_NOTHING)
        return waiting;
    if (lane->lost) {
        lane->lost = false;
        lane_renew(session, lane, "the environment is started again");
        return WAITING_SHARD;
    }
    if (lane->state == LANE_RESTING) {
        lane_reset(session, lane);
        return WAITING_NOTHING;
    }
    key = session_key(session, random ? RNG_SEED_ACTION : RNG_PLAN, lane->environment,
                      (uint32_t)lane->epoch, lane->steps);
    lane_step(session, lane, random, &key);
    return WAITING_NOTHING;
}

/* Each lane goes on by itself; the actor waits when all of them do, and names what the first waits for. */
void streams_advance(session_t *session)
{
    uint32_t waiting = WAITING_NOTHING;
    bool busy = false;

    for (uint32_t i = 0; i < session->lane_count; i++) {
        struct lane *lane = &session->lanes[i];

        streams_flush(session, lane);
        if (lane->token == 0 || lane->doing != COMMAND_RESET) /* the one before has begun */
            ask_task(session, lane);
        if (lane->token == 0 && !session->terminating) {
            uint32_t reason = lane_advance(session, lane);

            waiting = waiting == WAITING_NOTHING ? reason : waiting;
        }
        busy |= lane->token != 0;
    }
    if (!busy)
        session->waiting = waiting;
}

/* Report a finished episode; the oldest unanswered report gives way when there are too many. */
static void report_end(session_t *session, struct lane *lane, const struct session_step *step)
{
    struct pending_end *place = &session->ends[0];

    for (int i = 0; i < SESSION_ENDS; i++) {
        struct pending_end *end = &session->ends[i];

        if (!end->used) {
            place = end;
            break;
        }
        if (end->send_ms < place->send_ms)
            place = end;
    }
    place->used = true;
    place->send_ms = session->now;
    place->after = outbox_next(lane->outbox);
    place->end = (struct episode_end){
        .slot = session->slot,
        .environment = lane->environment,
        .stream_epoch = lane->epoch,
        .episode = lane->episode++,
        .length = lane->episode_steps,
        .reward = lane->episode_reward,
        .has_success = step->has_success,
        .success = step->success,
        .terminated = step->terminated,
        .task = lane->task,
        .version_epoch = session->adopted.epoch,
        .version = session->adopted.version,
    };
    session->episodes++;
}

struct lane *streams_awaiting(session_t *session, uint64_t token)
{
    for (uint32_t i = 0; token != 0 && i < session->lane_count; i++)
        if (session->lanes[i].token == token)
            return &session->lanes[i];
    return NULL;
}

void session_stepped(session_t *session, uint64_t now_ms, uint64_t token,
                     const struct session_step *step)
{
    struct lane *lane = streams_awaiting(session, token);

    session->now = now_ms;
    if (lane != NULL && !session->exited && !session->parting) {
        lane->token = 0;
        if (step->lost != NULL) {
            lane_lost(session, lane, step->lost);
        } else if (session->lockstep) {
            turns_stepped(session, lane, step);
        } else if (lane_push(session, lane, step) && (step->terminated || step->truncated)) {
            lane->state = LANE_RESTING;
            report_end(session, lane, step);
        }
    }
    session_tick(session, now_ms);
}

/* --- time ------------------------------------------------------------------- */

/* Rows without an answer for so long: ask where the shard stands. */
static uint64_t answer_ms(const session_t *session)
{
    return 2 * session->setup.heartbeat_ms;
}

void streams_tick(session_t *session)
{
    bool lost = false;

    for (uint32_t i = 0; i < session->lane_count; i++) {
        struct lane *lane = &session->lanes[i];

        if (outbox_inflight(lane->outbox) > 0 &&
            session->now >= lane->sent_ms + answer_ms(session)) {
            lane->sent_ms = session->now;
            lost = true;
        }
    }
    if (lost || session->now >= session->ingest_hello_ms)
        streams_hello(session);
}

uint64_t streams_deadline(const session_t *session)
{
    uint64_t at = UINT64_MAX;

    if (session->config.role != ROLE_ACTOR || session->ingest[0] == '\0' || !session->seated)
        return at;
    at = session->ingest_hello_ms;
    for (uint32_t i = 0; i < session->lane_count; i++) {
        const struct lane *lane = &session->lanes[i];

        if (lane->lost && lane->again_ms > session->now && lane->again_ms < at)
            at = lane->again_ms;
        if (lane_asks(session, lane) && lane->ask_ms > session->now && lane->ask_ms < at)
            at = lane->ask_ms;
        if (outbox_inflight(lane->outbox) > 0 && lane->sent_ms + answer_ms(session) < at)
            at = lane->sent_ms + answer_ms(session);
    }
    if (session->shard_joined && session->shard_heard_ms + session_gone_ms(session) > session->now &&
        session->shard_heard_ms + session_gone_ms(session) < at)
        at = session->shard_heard_ms + session_gone_ms(session);
    return at;
}
