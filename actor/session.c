#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actor/session_private.h"

/* --- outputs ---------------------------------------------------------------- */

struct session_output *session_command(session_t *session, uint32_t kind)
{
    struct session_output *output = output_queue_push(&session->outputs);

    output->kind = kind;
    return output;
}

struct message *session_send(session_t *session, uint32_t port, uint32_t kind)
{
    struct session_output *output = session_command(session, OUTPUT_SEND);

    output->peer.port = port;
    output->message.kind = kind;
    output->message.run = session->run;
    return &output->message;
}

void session_log(session_t *session, int level, const char *format, ...)
{
    struct session_output *output = session_command(session, OUTPUT_LOG);
    va_list args;

    output->log.level = level;
    va_start(args, format);
    vsnprintf(output->log.text, sizeof(output->log.text), format, args);
    va_end(args);
}

void session_exit(session_t *session, int code, const char *format, ...)
{
    struct session_output *output;
    va_list args;

    if (session->exited)
        return;
    output = session_command(session, OUTPUT_EXIT);
    output->exit.code = code;
    va_start(args, format);
    vsnprintf(output->exit.text, sizeof(output->exit.text), format, args);
    va_end(args);
    session->exited = true;
}

/* True: this is another address than the one known so far. */
static bool connect_to(session_t *session, uint32_t port, char *known, const char *address)
{
    struct session_output *output;

    if (address[0] == '\0' || strcmp(known, address) == 0)
        return false;
    snprintf(known, WIRE_ADDRESS_MAX, "%s", address);
    output = session_command(session, OUTPUT_CONNECT);
    output->peer.port = port;
    snprintf(output->address, sizeof(output->address), "%s", address);
    return true;
}

uint64_t session_token(session_t *session)
{
    return ++session->tokens;
}

struct rng_key session_key(const session_t *session, uint32_t purpose, uint32_t environment,
                           uint32_t epoch, uint64_t step)
{
    return (struct rng_key){session->setup.seed, purpose, session->slot, environment, epoch, step};
}

struct rng_key session_eval_key(const struct rng_key *base, uint32_t episode, uint32_t step)
{
    struct rng_key key = *base;

    key.step = (uint64_t)episode << 32 | step;
    return key;
}

/* --- the learner ------------------------------------------------------------ */

uint64_t session_gone_ms(const session_t *session)
{
    return SESSION_GONE_BEATS * session->setup.heartbeat_ms;
}

bool session_learner_alive(const session_t *session)
{
    return session->welcomed && !session->leaving &&
           session->now < session->heard_ms + session_gone_ms(session);
}

void session_hello_soon(session_t *session)
{
    session->hello_ms = session->now;
}

static void say_hello(session_t *session)
{
    struct hello *hello = &session_send(session, PORT_CONTROL, MESSAGE_HELLO)->hello;

    hello->role = session->config.role;
    hello->process = session->config.process;
    hello->has_slot = session->seated || session->config.slot >= 0;
    hello->slot = session->slot;
    hello->granted = session->config.slot < 0;
    hello->seating = session->seating;
    hello->environments = session->setup.environments;
    if (session->configured)
        hello->spec = session->setup.spec;
    session->hello_ms = session->now + SESSION_HELLO_MS;
}

/* Lanes are planned for together, on the threads there are. */
static uint32_t cores_computing(const session_t *session)
{
    uint32_t most = session->setup.threads > 1 ? session->setup.threads : 1, planning = 0;

    for (uint32_t i = 0; i < session->lane_count; i++)
        planning += session->lanes[i].token != 0 && session->lanes[i].planned;
    return planning < most ? planning : most;
}

static void beat(session_t *session)
{
    struct heartbeat *heartbeat = &session_send(session, PORT_CONTROL, MESSAGE_HEARTBEAT)->heartbeat;

    heartbeat->learner_epoch = session->learner_epoch;
    heartbeat->process = session->config.process;
    heartbeat->role = session->config.role;
    heartbeat->slot = session->slot;
    heartbeat->steps = session->steps;
    heartbeat->waiting = session->waiting;
    heartbeat->version_epoch = session->adopted.epoch;
    heartbeat->version = session->adopted.version;
    heartbeat->computing = cores_computing(session);
    session->beat_ms = session->now + session->setup.heartbeat_ms;
}

/* Another learner than the one we knew: what it does not know of is forgotten. */
static void new_learner(session_t *session, const struct welcome *welcome)
{
    if (session->learner_process != 0)
        session_log(session, LOG_INFO, "the learner is back, with epoch %u", welcome->learner_epoch);
    session->learner_process = welcome->learner_process;
    evaluate_forget(session);
}

static void learner_news(session_t *session, uint32_t phase, uint64_t updates, uint64_t target,
                         const struct announcement *newest)
{
    session->phase = phase;
    session->updates = updates;
    session->target = target;
    if (announcement_compare(newest, &session->newest) > 0)
        session->newest = *newest;
}

static void receive_welcome(session_t *session, const struct message *message)
{
    const struct welcome *welcome = &message->welcome;
    struct bulk none = {NULL, 0};

    if (welcome->learner_epoch < session->learner_epoch || welcome->role != session->config.role)
        return;
    if (session->run != 0 && message->run != session->run) {
        session_exit(session, TD_EXIT_BAD_INPUT,
                     "the learner at %s belongs to run %016llx, not to %016llx: start this part anew",
                     session->config.control, (unsigned long long)message->run,
                     (unsigned long long)session->run);
        return;
    }
    session->run = message->run;
    session->learner_epoch = welcome->learner_epoch;
    session->heard_ms = session->now;
    session->leaving = false;
    if (welcome->seating > session->seating)
        session->seating = welcome->seating;
    if (welcome->learner_process != session->learner_process)
        new_learner(session, welcome);
    if (!session->configuring) {
        session->configuring = true;
        session_command(session, COMMAND_CONFIGURE)->configure.options =
            message->bulks > 0 ? message->bulk[0] : none;
    }
    if (!session->configured || !welcome->has_slot) { /* not yet: ask again soon */
        session->hello_ms = session->now + SESSION_AGAIN_MS;
        return;
    }
    session->welcomed = session->seated = true;
    session->slot = welcome->slot;
    session->shard = welcome->shard;
    session->lockstep = welcome->lockstep;
    learner_news(session, welcome->phase, welcome->updates, welcome->target, &welcome->newest);
    connect_to(session, PORT_PARAMS, session->params, welcome->params);
    connect_to(session, PORT_ANNOUNCE, session->announce, welcome->announce);
    if (connect_to(session, PORT_INGEST, session->ingest, welcome->ingest))
        session->shard_joined = false; /* a new life of the shard: rows wait for its Welcome */
    if (session->lockstep && session->config.role == ROLE_ACTOR)
        turns_welcome(session, welcome, message->bulks > 1 ? &message->bulk[1] : &none);
    streams_hello(session);
}

static void receive_refused(session_t *session, const struct refused *refused)
{
    if (refused->code == REFUSED_FENCED && session->config.role == ROLE_EVALUATOR)
        session_exit(session, TD_EXIT_FENCED, "the learner refused: %s", refused->text);
    else if (refused->code == REFUSED_FENCED)
        session_exit(session, TD_EXIT_FENCED, "another process took slot %u: %s", session->slot,
                     refused->text);
    else
        session_exit(session, TD_EXIT_BAD_INPUT, "the learner refused: %s", refused->text);
}

static void receive_control(session_t *session, const struct message *message)
{
    const struct heartbeat *heartbeat = &message->heartbeat;

    switch (message->kind) {
    case MESSAGE_WELCOME:
        receive_welcome(session, message);
        break;
    case MESSAGE_REFUSED:
        receive_refused(session, &message->refused);
        break;
    case MESSAGE_HEARTBEAT:
        if (heartbeat->learner_epoch < session->learner_epoch)
            return;
        session->learner_epoch = heartbeat->learner_epoch;
        session->heard_ms = session->now;
        learner_news(session, heartbeat->phase, heartbeat->updates, heartbeat->target,
                     &heartbeat->newest);
        break;
    case MESSAGE_SAY_HELLO:
        if (message->say_hello.learner_epoch < session->learner_epoch)
            return;
        session->welcomed = false;
        session_hello_soon(session);
        break;
    case MESSAGE_LEAVING:
        if (message->leaving.learner_epoch < session->learner_epoch)
            return;
        session_log(session, LOG_INFO, "the learner leaves; waiting for it to come back");
        session->leaving = true;
        session->welcomed = false;
        session->hello_ms = session->now + SESSION_HELLO_MS;
        break;
    case MESSAGE_STOP:
        if (message->stop.learner_epoch < session->learner_epoch)
            return;
        leave_run_over(session);
        session_exit(session, TD_EXIT_OK, "the run is over: %s", message->stop.text);
        break;
    case MESSAGE_EPISODE_ACK:
        for (int i = 0; i < SESSION_ENDS; i++) {
            struct pending_end *end = &session->ends[i];

            if (end->end.environment == message->episode_ack.environment &&
                end->end.stream_epoch == message->episode_ack.stream_epoch &&
                end->end.episode == message->episode_ack.episode)
                end->used = false;
        }
        turns_receive(session, message);
        break;
    case MESSAGE_EVALUATE:
        if (message->evaluate.learner_epoch == session->learner_epoch && session->welcomed)
            evaluate_order(session, &message->evaluate);
        break;
    case MESSAGE_EVALUATED_ACK:
        evaluate_acknowledged(session, &message->evaluated_ack);
        break;
    case MESSAGE_TURN:
        turns_receive(session, message);
        break;
    case MESSAGE_ASSIGN:
        if (session->configured)
            streams_assign(session, &message->assign);
        break;
    default:
        break;
    }
}

/* --- parameters ------------------------------------------------------------- */

static void send_pulls(session_t *session)
{
    struct pull pull;

    while (session->puller != NULL && puller_next(session->puller, session->now, &pull))
        session_send(session, PORT_PARAMS, MESSAGE_PULL)->pull = pull;
}

/* Are these being acted with? */
bool session_has_parameters(session_t *session, const struct announcement *wanted)
{
    return session->adopted.epoch == wanted->epoch && session->adopted.version == wanted->version &&
           wanted->epoch != 0;
}

static bool is_of(const struct announcement *announcement, const struct gone *gone)
{
    return announcement->epoch == gone->epoch && announcement->version == gone->version;
}

/* Begin to fetch these, unless that is already under way or something is being adopted. */
void session_pull(session_t *session, const struct announcement *wanted)
{
    if (wanted->epoch == 0 || session->adopting != 0 || session->puller == NULL ||
        is_of(wanted, &session->gone))
        return;
    if (puller_active(session->puller)) {
        if (announcement_compare(puller_target(session->puller), wanted) == 0)
            return;
        if (!session->lockstep && puller_target(session->puller)->epoch == wanted->epoch)
            return; /* the next one is fetched when this one is here, or gone */
    }
    if (!puller_start(session->puller, session->now, wanted)) {
        session_exit(session, TD_EXIT_BAD_INPUT,
                     "the learner announces parameters of %llu bytes, this part's model has %zu: "
                     "run the same build with the same options",
                     (unsigned long long)wanted->size, session->setup.snapshot_bytes);
        return;
    }
    send_pulls(session);
}

static void adopt(session_t *session)
{
    const struct announcement *target = puller_target(session->puller);
    struct command_adopt *command = &session_command(session, COMMAND_ADOPT)->adopt;

    command->token = session->adopting = session_token(session);
    command->data = puller_ready(session->puller);
    command->size = session->setup.snapshot_bytes;
    command->epoch = target->epoch;
    command->version = target->version;
    session->pulls++;
    session->pulled_bytes += command->size;
}

/* What is gone is not asked for again: only something announced later starts another pull. */
static void receive_gone(session_t *session, const struct gone *gone)
{
    if (gone->newest.epoch > session->learner_epoch)
        return;
    session->gone = *gone;
    if (puller_active(session->puller) && is_of(puller_target(session->puller), gone))
        puller_cancel(session->puller);
    if (is_of(&session->newest, gone) || announcement_compare(&gone->newest, &session->newest) > 0)
        session->newest = gone->newest;
}

static void receive_params(session_t *session, const struct message *message)
{
    const struct announcement *newest;

    if (message->kind == MESSAGE_CHUNK && session->puller != NULL) {
        if (!puller_active(session->puller))
            return;
        if (puller_chunk(session->puller, session->now, &message->chunk, &message->bulk[0]) != TD_OK)
            session_log(session, LOG_WARN, "pulled parameters failed their hash; pulling again");
        if (puller_ready(session->puller) != NULL)
            adopt(session);
    } else if (message->kind == MESSAGE_GONE && session->puller != NULL) {
        receive_gone(session, &message->gone);
    } else if (message->kind == MESSAGE_ANNOUNCE) {
        newest = &message->announce;
        if (newest->epoch == session->learner_epoch &&
            announcement_compare(newest, &session->newest) > 0)
            session->newest = *newest;
    }
}

void session_adopted(session_t *session, uint64_t now_ms, uint64_t token, bool finite)
{
    session->now = now_ms;
    if (token != session->adopting)
        return;
    session->adopting = 0;
    if (finite)
        session->adopted = *puller_target(session->puller);
    else
        session_log(session, LOG_ERROR, "parameters version %llu are not finite; keeping version %llu",
                    (unsigned long long)puller_target(session->puller)->version,
                    (unsigned long long)session->adopted.version);
    puller_cancel(session->puller);
    session_tick(session, now_ms);
}

/* --- time ------------------------------------------------------------------- */

/* Are its rows acknowledged (or given up with their epoch)? */
static bool end_may_go(const session_t *session, const struct pending_end *end)
{
    const struct lane *lane = &session->lanes[end->end.environment];

    return end->used && session->welcomed &&
           (lane->epoch != end->end.stream_epoch ||
            outbox_next(lane->outbox) - outbox_held(lane->outbox) >= end->after);
}

/* The earliest of those that are due: of one stream they must arrive in order. */
static struct pending_end *due_end(session_t *session)
{
    struct pending_end *first = NULL;

    for (int i = 0; i < SESSION_ENDS; i++) {
        struct pending_end *end = &session->ends[i];

        if (end_may_go(session, end) && session->now >= end->send_ms &&
            (first == NULL || end->end.stream_epoch < first->end.stream_epoch ||
             (end->end.stream_epoch == first->end.stream_epoch && end->after < first->after)))
            first = end;
    }
    return first;
}

static void resend_ends(session_t *session)
{
    struct pending_end *end;

    while ((end = due_end(session)) != NULL) {
        session_send(session, PORT_CONTROL, MESSAGE_EPISODE_END)->episode_end = end->end;
        end->send_ms = session->now + SESSION_RESEND_MS;
    }
}

/* The time since the last call went to what was waited for then. */
static void count_waiting(session_t *session)
{
    if (session->now > session->counted_ms) {
        session->waited[session->waiting] += session->now - session->counted_ms;
        session->counted_ms = session->now;
    }
}

/* A wait that lasts is said, and again every minute. */
static void say_waiting(session_t *session)
{
    const char *more = "";
    char text[96];

    if (session->waiting == WAITING_NOTHING || session->waiting == WAITING_WORK ||
        session->now < session->said_ms)
        return;
    if (session->waiting == WAITING_BURST) {
        snprintf(text, sizeof(text), " %llu/%llu", (unsigned long long)session->updates,
                 (unsigned long long)session->target);
        more = text;
    } else if (session->waiting == WAITING_LEARNER) {
        more = session->config.control;
    } else if (session->waiting == WAITING_SHARD) {
        more = session->ingest[0] != '\0' ? session->ingest : "(the learner knows no address yet)";
    }
    session_log(session, LOG_WARN, "waiting for %s%s%s since %llu s", waiting_name(session->waiting),
                *more != '\0' && *more != ' ' ? " " : "", more,
                (unsigned long long)((session->now - session->waiting_ms) / 1000));
    session->said_ms = session->now + 60000;
}

static void note_waiting(session_t *session)
{
    uint32_t waiting = session->waiting;

    if (!session_learner_alive(session))
        session->waiting = WAITING_LEARNER;
    else if (session->config.role == ROLE_EVALUATOR && !session->evaluating.ordered)
        session->waiting = WAITING_WORK;
    if (session->waiting == waiting && session->waiting_ms != 0)
        return;
    session->waiting_ms = session->now;
    session->said_ms = session->now + SESSION_SAY_MS;
}

/* Whatever can go on goes on. Every entry ends here. */
static void advance(session_t *session)
{
    uint32_t waiting = session->waiting;

    if (session->exited)
        return;
    if (session->configured) {
        session->waiting = WAITING_NOTHING;
        if (session->lockstep && session->config.role == ROLE_ACTOR)
            turns_advance(session);
        else if (session->config.role == ROLE_EVALUATOR)
            evaluate_advance(session);
        else
            streams_advance(session);
        send_pulls(session);
        resend_ends(session);
    }
    if (session->waiting != waiting)
        session->waiting_ms = 0;
    note_waiting(session);
    leave_if_flushed(session);
}

/* The first call of all begins the clock and opens the control connection. */
static void begin(session_t *session)
{
    char known[WIRE_ADDRESS_MAX] = "";

    if (session->began_ms != 0)
        return;
    session->began_ms = session->now + 1;
    session->heard_ms = session->hello_ms = session->beat_ms = session->now;
    session->waiting_ms = session->counted_ms = session->now;
    session->waiting = WAITING_LEARNER;
    session->said_ms = session->now + SESSION_SAY_MS;
    connect_to(session, PORT_CONTROL, known, session->config.control);
}

static void learner_tick(session_t *session)
{
    uint64_t timeout = session->setup.timeout_ms;

    if (session->now >= session->heard_ms + timeout) {
        session_exit(session, TD_EXIT_GAVE_UP, "no learner at %s for %llu s: gave up",
                     session->config.control, (unsigned long long)timeout / 1000);
        return;
    }
    if (session->now >= session->hello_ms && !session_learner_alive(session))
        say_hello(session);
    else if (session->now >= session->hello_ms && session->config.role == ROLE_ACTOR &&
             !streams_shard_alive(session))
        say_hello(session); /* its Welcome may have another address */
    if (session->welcomed && session->now >= session->beat_ms)
        beat(session);
}

void session_tick(session_t *session, uint64_t now_ms)
{
    session->now = now_ms;
    begin(session);
    if (session->exited)
        return;
    if (session->parting) {
        leave_tick(session);
        return;
    }
    count_waiting(session);
    learner_tick(session);
    if (session->configured) {
        if (session->config.role == ROLE_ACTOR)
            streams_tick(session);
        turns_tick(session);
        evaluate_tick(session);
    }
    advance(session);
    say_waiting(session);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t session_deadline(const session_t *session)
{
    uint64_t at = session->heard_ms + session->setup.timeout_ms;

    if (session->exited)
        return UINT64_MAX;
    if (session->parting)
        return leave_deadline(session);
    if (!session_learner_alive(session) ||
        (session->config.role == ROLE_ACTOR && !streams_shard_alive(session)))
        at = sooner(at, session->hello_ms);
    else
        at = sooner(at, session->heard_ms + session_gone_ms(session));
    if (session->welcomed)
        at = sooner(at, session->beat_ms);
    if (session->terminating)
        at = sooner(at, session->now < session->step_ms ? session->step_ms : session->flush_ms);
    if (session->waiting != WAITING_NOTHING && session->waiting != WAITING_WORK)
        at = sooner(at, session->said_ms);
    if (session->puller != NULL)
        at = sooner(at, puller_deadline(session->puller));
    for (int i = 0; i < SESSION_ENDS; i++)
        if (end_may_go(session, &session->ends[i]))
            at = sooner(at, session->ends[i].send_ms);
    at = sooner(at, streams_deadline(session));
    at = sooner(at, turns_deadline(session));
    return sooner(at, evaluate_deadline(session));
}

/* --- entries ---------------------------------------------------------------- */

int session_create(session_t **out, const struct session_config *config, struct error *err)
{
    session_t *session = calloc(1, sizeof(*session));

    *out = session;
    if (session == NULL ||
        output_queue_init(&session->outputs, sizeof(struct session_output), 64) != TD_OK) {
        session_destroy(out);
        return error_set(err, TD_ENOMEM, "out of memory for the session");
    }
    TD_ASSERT(config->process != 0 && config->heartbeat_ms > 0, "process and heartbeat");
    session->config = *config;
    session->run = config->run;
    session->slot = config->slot >= 0 ? (uint32_t)config->slot : 0;
    session->setup.heartbeat_ms = config->heartbeat_ms;
    session->setup.timeout_ms = config->timeout_ms;
    session->phase = PHASE_STARTING;
    return TD_OK;
}

void session_destroy(session_t **session)
{
    if (*session == NULL)
        return;
    streams_destroy(*session);
    puller_destroy(&(*session)->puller);
    output_queue_release(&(*session)->outputs);
    free((*session)->turns.state);
    free(*session);
    *session = NULL;
}

void session_receive(session_t *session, uint64_t now_ms, const struct peer *peer,
                     const struct message *message)
{
    session->now = now_ms;
    begin(session);
    if (session->exited)
        return;
    if (session->parting) {
        leave_receive(session, peer, message);
    } else if (peer->port == PORT_CONTROL) {
        receive_control(session, message);
    } else if (session->configured && message->run == session->run) {
        if (peer->port == PORT_INGEST && session->config.role == ROLE_ACTOR)
            streams_receive(session, message);
        else if (peer->port == PORT_PARAMS || peer->port == PORT_ANNOUNCE)
            receive_params(session, message);
    }
    session_tick(session, now_ms);
}

void session_configured(session_t *session, uint64_t now_ms, const struct session_setup *setup)
{
    session->now = now_ms;
    TD_ASSERT(!session->configured && setup->environments >= 1 &&
                  setup->environments <= WIRE_STREAMS_MAX, "configured once");
    session->setup = *setup;
    session->schema = (struct row_schema){setup->spec.obs_type, setup->spec.obs_dim,
                                          setup->spec.action_dim};
    session->stride = (uint32_t)row_stride(&session->schema);
    if (puller_create(&session->puller, setup->snapshot_bytes) != TD_OK ||
        (session->config.role == ROLE_ACTOR && streams_create(session) != TD_OK)) {
        session_exit(session, TD_EXIT_GAVE_UP, "out of memory for outbox and parameters");
        return;
    }
    session->configured = true;
    session_hello_soon(session);
    session_tick(session, now_ms);
}

void session_terminate(session_t *session, uint64_t now_ms)
{
    session->now = now_ms;
    if (session->terminating)
        return;
    session->terminating = true;
    session->flush_ms = now_ms + SESSION_FLUSH_MS;
    session->step_ms = now_ms + (session->lockstep ? SESSION_FLUSH_MS : SESSION_STEP_MS);
    if (session->evaluating.ordered)
        session_command(session, COMMAND_ABANDON);
    session_tick(session, now_ms);
}

bool session_next(session_t *session, struct session_output *output)
{
    return output_queue_pop(&session->outputs, output);
}

void session_view(const session_t *session, uint64_t now_ms, struct session_view *view)
{
    *view = (struct session_view){
        .seated = session->seated,
        .slot = session->slot,
        .learner_epoch = session->learner_epoch,
        .updates = session->updates,
        .target = session->target,
        .phase = session->phase,
        .waiting = session->waiting,
        .waiting_since_ms = session->waiting_ms,
        .steps = session->steps,
        .episodes = session->episodes,
        .outbox_rows = streams_unacknowledged(session),
        .resent_rows = session->resent,
        .dropped_rows = session->dropped_rows,
        .dropped_episodes = session->dropped_episodes,
        .version_epoch = session->adopted.epoch,
        .version = session->adopted.version,
        .learner_heard_ms = session->heard_ms,
        .shard_heard_ms = session->shard_heard_ms,
        .pulls = session->pulls,
        .pulled_bytes = session->pulled_bytes,
    };
    memcpy(view->waited_ms, session->waited, sizeof(view->waited_ms));
    if (now_ms > session->counted_ms)
        view->waited_ms[session->waiting] += now_ms - session->counted_ms;
    if (session->newest.epoch == session->adopted.epoch &&
        session->newest.version > session->adopted.version)
        view->lag = session->newest.version - session->adopted.version;
}
