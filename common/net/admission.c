#include "common/net/admission.h"

static const char foreign[] = "not for a key of this role";
static const char other_slot[] = "the key belongs to another slot";
static const char other_process[] = "the process named is not the one that speaks";

static const char *as_actor(const struct identity *who, uint32_t slot)
{
    if (who->role != ROLE_ACTOR)
        return foreign;
    return slot == who->number ? NULL : other_slot;
}

/* Role, slot and process as the key and the connection say. */
static const char *as_member(const struct identity *who, const struct peer *peer, uint32_t role, uint32_t slot,
                             uint64_t process)
{
    if (role != who->role || (role != ROLE_ACTOR && role != ROLE_EVALUATOR))
        return foreign;
    if (process != peer->id)
        return other_process;
    return role == ROLE_ACTOR ? as_actor(who, slot) : NULL;
}

static const char *hello(const struct identity *who, const struct peer *peer, const struct hello *message)
{
    if (message->role == ROLE_SHARD) {
        if (who->role != ROLE_SHARD)
            return foreign;
        if (message->shard != who->number)
            return "the key belongs to another shard";
        return message->process == peer->id ? NULL : other_process;
    }
    if (message->role == ROLE_ACTOR && !message->has_slot)
        return "it does not name its slot";
    return as_member(who, peer, message->role, message->slot, message->process);
}

static const char *control(const struct identity *who, const struct peer *peer, const struct message *message,
                           bool lockstep)
{
    switch (message->kind) {
    case MESSAGE_HELLO:
        return hello(who, peer, &message->hello);
    case MESSAGE_HEARTBEAT:
        return as_member(who, peer, message->heartbeat.role, message->heartbeat.slot, message->heartbeat.process);
    case MESSAGE_LEAVE:
        return as_member(who, peer, message->leave.role, message->leave.slot, message->leave.process);
    case MESSAGE_EPISODE_END:
        return as_actor(who, message->episode_end.slot);
    case MESSAGE_NEXT_TASK:
        return as_member(who, peer, ROLE_ACTOR, message->next_task.slot, message->next_task.process);
    case MESSAGE_TURNED:
        return as_actor(who, message->turned.slot);
    case MESSAGE_EVALUATED:
        return who->role == ROLE_EVALUATOR || (lockstep && who->role == ROLE_ACTOR) ? NULL : foreign;
    case MESSAGE_STOP:
        return who->role == ROLE_LEARNER ? NULL : foreign;
    default:
        return foreign;
    }
}

static const char *ingest(const struct identity *who, const struct peer *peer, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_INGEST_HELLO:
        return as_member(who, peer, ROLE_ACTOR, message->ingest_hello.slot, message->ingest_hello.process);
    case MESSAGE_ROWS:
        return as_member(who, peer, ROLE_ACTOR, message->rows.slot, message->rows.process);
    case MESSAGE_LEAVE:
        return as_member(who, peer, ROLE_ACTOR, message->leave.slot, message->leave.process);
    default:
        return foreign;
    }
}

const char *admission_refusal(const struct identity *who, const struct peer *peer, const struct message *message,
                              bool lockstep)
{
    switch (peer->port) {
    case PORT_CONTROL:
        return control(who, peer, message, lockstep);
    case PORT_INGEST:
        return ingest(who, peer, message);
    case PORT_SAMPLE:
        return who->role == ROLE_LEARNER ? NULL : foreign;
    case PORT_PARAMS:
        return message->kind == MESSAGE_PULL && (who->role == ROLE_ACTOR || who->role == ROLE_EVALUATOR) ? NULL : foreign;
    default:
        return foreign;
    }
}
