/*
 * session_leave.c - the end: what is owed is handed over, then Leave is said until learner and shard have heard it.
 *
 * A message alone would not do: what lies in the kernel is dropped when a peer goes while the other's queue
 * is full, and who was not told waits for this process, or keeps its streams open, until a timeout.
 */
#include <stdio.h>

#include "actor/session_private.h"

static uint32_t bit(uint32_t port)
{
    return 1u << port;
}

static void say_leave(session_t *session, uint32_t port, const char *why)
{
    struct leave *leave = &session_send(session, port, MESSAGE_LEAVE)->leave;

    leave->role = session->config.role;
    leave->slot = session->slot;
    leave->process = session->config.process;
    snprintf(leave->text, sizeof(leave->text), "%s", why);
}

static bool has_shard(const session_t *session)
{
    return session->config.role == ROLE_ACTOR && session->ingest[0] != '\0';
}

void leave_run_over(session_t *session)
{
    say_leave(session, PORT_CONTROL, "the run is over");
    if (has_shard(session))
        say_leave(session, PORT_INGEST, "the run is over");
}

/* Only those that were there a moment ago are waited for; the others are told all the same. */
static void begin_parting(session_t *session)
{
    session->parting = true;
    session->part_ms = session->now + SESSION_PART_MS;
    session->part_again_ms = session->now + SESSION_PART_AGAIN_MS;
    say_leave(session, PORT_CONTROL, "asked to stop");
    if (session_learner_alive(session))
        session->unheard |= bit(PORT_CONTROL);
    if (!has_shard(session))
        return;
    say_leave(session, PORT_INGEST, "asked to stop");
    if (session->shard_joined && streams_shard_alive(session))
        session->unheard |= bit(PORT_INGEST);
}

void leave_tick(session_t *session)
{
    if (session->unheard != 0 && session->now >= session->part_ms)
        session_log(session, LOG_WARN, "%s did not answer the goodbye",
                    session->unheard & bit(PORT_CONTROL) ? "the learner" : "the replay shard");
    if (session->unheard == 0 || session->now >= session->part_ms) {
        session_exit(session, TD_EXIT_OK, "asked to stop");
        return;
    }
    if (session->now < session->part_again_ms)
        return;
    session->part_again_ms = session->now + SESSION_PART_AGAIN_MS;
    for (uint32_t port = PORT_CONTROL; port <= PORT_INGEST; port++)
        if (session->unheard & bit(port))
            say_leave(session, port, "asked to stop");
}

uint64_t leave_deadline(const session_t *session)
{
    return session->part_ms < session->part_again_ms ? session->part_ms : session->part_again_ms;
}

void leave_receive(session_t *session, const struct peer *peer, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_LEAVE:
        if (message->leave.process == session->config.process)
            session->unheard &= ~bit(peer->port);
        break;
    case MESSAGE_STOP: /* the learner goes as well, or has another in this place: it waits for nobody */
    case MESSAGE_LEAVING:
    case MESSAGE_REFUSED:
    case MESSAGE_FENCED:
        session->unheard &= ~bit(peer->port);
        break;
    default:
        break;
    }
}

/* SIGTERM: steps done, or two seconds over; all rows acknowledged, or ten seconds over. */
void leave_if_flushed(session_t *session)
{
    if (!session->terminating || session->exited)
        return;
    for (uint32_t i = 0; i < session->lane_count; i++)
        if (session->lanes[i].token != 0 && session->lanes[i].doing == COMMAND_STEP &&
            session->now < session->step_ms)
            return;
    if (streams_unacknowledged(session) > 0 && session->now < session->flush_ms)
        return;
    if (streams_unacknowledged(session) > 0)
        session_log(session, LOG_WARN, "left %llu rows behind that nobody acknowledged",
                    (unsigned long long)streams_unacknowledged(session));
    begin_parting(session);
    leave_tick(session);
}
