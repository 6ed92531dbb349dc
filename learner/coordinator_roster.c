/* Actors, evaluators and tools: joining, heartbeats, parameter pulls. */
#include <stdio.h>
#include <string.h>

#include "learner/coordinator_private.h"

bool member_live(const struct coordinator *c, const struct member *member)
{
    return member->used && member->seated && c->now < member->heard_ms + coordinator_gone_ms(c);
}

struct member *roster_find(struct coordinator *c, uint64_t process)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].used && c->members[i].process == process)
            return &c->members[i];
    return NULL;
}

struct member *roster_evaluator(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].role == ROLE_EVALUATOR && member_live(c, &c->members[i]))
            return &c->members[i];
    return NULL;
}

uint32_t roster_live(const struct coordinator *c, uint32_t role)
{
    uint32_t live = 0;

    for (uint32_t i = 0; i < c->member_count; i++)
        live += c->members[i].role == role && member_live(c, &c->members[i]);
    return live;
}

uint32_t roster_computing(const struct coordinator *c)
{
    uint32_t computing = 0;

    for (uint32_t i = 0; i < c->member_count; i++)
        if (member_live(c, &c->members[i]) && c->members[i].peer.local)
            computing += c->members[i].computing;
    return computing;
}

/* A place for a process: its own, a free one, or that of the member silent for longest. */
static struct member *member_place(struct coordinator *c, uint64_t process)
{
    struct member *found = roster_find(c, process), *oldest = NULL;

    if (found != NULL)
        return found;
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct member *member = &c->members[i];

        if (!member->used) {
            found = member;
            break;
        }
        if (!member_live(c, member) && (oldest == NULL || member->heard_ms < oldest->heard_ms))
            oldest = member;
    }
    if (found == NULL && c->member_count < COORDINATOR_MEMBERS)
        found = &c->members[c->member_count++];
    if (found == NULL)
        found = oldest;
    if (found != NULL) {
        memset(found, 0, sizeof(*found));
        found->used = true;
        found->process = process;
    }
    return found;
}

static void refuse(struct coordinator *c, const struct peer *peer, uint32_t code, const char *text)
{
    struct refused *refused = &coordinator_send(c, peer, MESSAGE_REFUSED)->refused;

    refused->code = code;
    refused->epoch = c->config.epoch;
    snprintf(refused->text, sizeof(refused->text), "%s", text);
}

/* --- joining ---------------------------------------------------------------- */

static void fill_welcome(struct coordinator *c, const struct peer *peer, uint32_t role,
                         struct message *message)
{
    struct welcome *welcome = &message->welcome;

    welcome->learner_epoch = c->config.epoch;
    welcome->learner_process = c->config.process;
    welcome->role = role;
    welcome->phase = coordinator_phase(c);
    welcome->lockstep = c->config.lockstep;
    welcome->updates = coordinator_updates(c);
    welcome->target = c->config.lockstep ? c->seed_steps : c->limiter.burst_target;
    snprintf(welcome->params, sizeof(welcome->params), "%s",
             peer->local ? c->config.params_ipc : c->config.params_tcp);
    snprintf(welcome->announce, sizeof(welcome->announce), "%s",
             peer->local ? c->config.announce_ipc : c->config.announce_tcp);
    if (c->params != NULL)
        welcome->newest = *params_newest(c->params);
    message->bulks = 1;
    message->bulk[0] = (struct bulk){c->config.options, c->config.options_size};
}

uint64_t roster_seating(struct coordinator *c)
{
    return (uint64_t)c->config.epoch << 32 | ++c->seatings;
}

/* Only the options: it must come back with its spec, or wait for the model or a shard. */
void roster_welcome_options(struct coordinator *c, const struct peer *peer, uint32_t role)
{
    struct message *message = coordinator_send(c, peer, MESSAGE_WELCOME);

    fill_welcome(c, peer, role, message);
    message->welcome.seating = roster_seating(c);
}

/* The whole Welcome: slot, shard, addresses; in lock-step where the run stands. */
void roster_welcome(struct coordinator *c, const struct member *member)
{
    const struct seat *seat = &c->seats[member->shard];
    struct message *message = coordinator_send(c, &member->peer, MESSAGE_WELCOME);
    struct welcome *welcome = &message->welcome;
    const struct lockstep_run *run = &c->run;

    fill_welcome(c, &member->peer, member->role, message);
    welcome->has_slot = true;
    welcome->slot = member->slot;
    welcome->seating = member->seating;
    welcome->shard = member->shard;
    if (seat->known && member->role == ROLE_ACTOR)
        snprintf(welcome->ingest, sizeof(welcome->ingest), "%s",
                 member->peer.local && seat->local ? seat->ingest_ipc : seat->ingest_tcp);
    if (!c->config.lockstep)
        return;
    welcome->restore = true;
    welcome->generation = run->generation;
    welcome->step = run->go.step;
    welcome->episode = run->go.episode;
    message->bulks = 2;
    message->bulk[1] = (struct bulk){run->go_state, run->go_state_size};
}

/* What they send to the old address is lost; they would notice after five heartbeats. */
void roster_moved(struct coordinator *c, uint32_t shard)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].role == ROLE_ACTOR && c->members[i].shard == shard && member_live(c, &c->members[i]))
            roster_welcome(c, &c->members[i]);
}

static bool spec_fits(struct coordinator *c, const struct peer *peer,
                      const struct message_spec *spec)
{
    const struct message_spec *ours = &c->spec;
    char text[WIRE_TEXT_MAX];

    if (spec->tasks != c->config.tasks) {
        snprintf(text, sizeof(text), "your options name %u tasks, this run has %u", spec->tasks, c->config.tasks);
        refuse(c, peer, REFUSED_SPEC, text);
        return false;
    }
    if (spec->obs_type == ours->obs_type && spec->obs_dim == ours->obs_dim &&
        spec->action_dim == ours->action_dim)
        return true;
    snprintf(text, sizeof(text),
             "your environment has %u observations and %u actions, this run %u and %u",
             spec->obs_dim, spec->action_dim, ours->obs_dim, ours->action_dim);
    refuse(c, peer, REFUSED_SPEC, text);
    return false;
}

static struct member *other_of_slot(struct coordinator *c, uint32_t role, uint32_t slot, uint64_t process)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct member *member = &c->members[i];

        if (member->used && member->seated && member->role == role && member->slot == slot &&
            member->process != process)
            return member;
    }
    return NULL;
}

/*
 * A Hello may have been on the way for long, its sender gone. It does not take the place of a process that
 * was seated after it was said; a sender that is still there comes again, with what the answer tells it.
 */
static bool is_overtaken(struct coordinator *c, const struct hello *hello)
{
    const struct member *other = other_of_slot(c, hello->role, hello->slot, hello->process);

    return hello->has_slot && other != NULL && hello->seating < other->seating;
}

/* The slot it asks for, or one above all that anybody knows. False: not known yet. */
static bool grant_slot(struct coordinator *c, const struct hello *hello, struct member *member)
{
    const struct member *other = other_of_slot(c, ROLE_ACTOR, hello->slot, hello->process);
    uint32_t next;
    bool known;

    if (hello->has_slot && !(hello->granted && other != NULL && member_live(c, other))) {
        member->slot = hello->slot;
        return true;
    }
    if (!hello->has_slot && member->seated)
        return true;
    next = shards_highest_slot(c, &known);
    if (!known)
        return false;
    if (next < c->config.actors)
        next = c->config.actors;
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].used && c->members[i].seated && c->members[i].role == ROLE_ACTOR &&
            c->members[i].slot >= next)
            next = c->members[i].slot + 1;
    if (next > WIRE_SLOT_MAX)
        return false;
    member->slot = next;
    return true;
}

/* A newer process with the same slot takes its place here; the shard judges between them. */
static void drop_slot(struct coordinator *c, const struct member *newer)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct member *member = &c->members[i];

        if (member != newer && member->used && member->role == newer->role &&
            member->slot == newer->slot && member->seated)
            member->used = false;
    }
}

/* One evaluator is enough, and two would take the orders from each other. True: there is another. */
static bool evaluator_taken(struct coordinator *c, const struct peer *peer, const struct hello *hello)
{
    const struct member *other = roster_evaluator(c);
    char text[WIRE_TEXT_MAX];

    if (hello->role != ROLE_EVALUATOR || other == NULL || other->process == hello->process)
        return false;
    snprintf(text, sizeof(text), "this run has an evaluator already; if that one is gone, its place is free %llu s after its last word",
             (unsigned long long)coordinator_gone_ms(c) / 1000);
    refuse(c, peer, REFUSED_FENCED, text);
    return true;
}

void coordinator_evaluator_died(coordinator_t *c, uint64_t now_ms)
{
    struct member *member = roster_evaluator(c);

    c->now = now_ms;
    if (member != NULL)
        member->used = false;
    coordinator_tick(c, now_ms);
}

static void receive_hello(struct coordinator *c, const struct peer *peer, const struct hello *hello)
{
    struct member *member;

    if ((hello->role != ROLE_ACTOR && hello->role != ROLE_EVALUATOR) || hello->process == 0) {
        refuse(c, peer, REFUSED_CONFIG, "only actors, evaluators and shards say Hello");
        return;
    }
    if (hello->role == ROLE_EVALUATOR && (c->config.lockstep || !c->config.evaluator)) {
        refuse(c, peer, REFUSED_CONFIG, "this run has no use for an evaluator");
        return;
    }
    if (evaluator_taken(c, peer, hello))
        return;
    if (hello->spec.obs_type == 0) {
        roster_welcome_options(c, peer, hello->role);
        return;
    }
    if (c->spec.obs_type == 0 && hello->spec.tasks == c->config.tasks)
        coordinator_set_spec(c, &hello->spec);
    if (!spec_fits(c, peer, &hello->spec))
        return;
    if (is_overtaken(c, hello)) {
        roster_welcome_options(c, peer, hello->role);
        return;
    }
    if (c->config.lockstep && !lockstep_hello(c, peer, hello))
        return;
    if (!c->model_ready) {
        roster_welcome_options(c, peer, hello->role);
        return;
    }
    member = member_place(c, hello->process);
    if (member == NULL) {
        refuse(c, peer, REFUSED_FULL, "too many actors");
        return;
    }
    member->peer = *peer;
    member->role = hello->role;
    member->heard_ms = c->now;
    if (hello->role == ROLE_ACTOR && !grant_slot(c, hello, member)) {
        roster_welcome_options(c, peer, hello->role);
        return;
    }
    member->shard = hello->role == ROLE_ACTOR ? member->slot % c->config.shards : 0;
    if (c->config.lockstep && !lockstep_welcoming(c, member)) {
        roster_welcome_options(c, peer, hello->role);
        return;
    }
    if (!member->seated) {
        coordinator_log(c, LOG_INFO, "%s joined with slot %u",
                        hello->role == ROLE_ACTOR ? "an actor" : "an evaluator", member->slot);
        member->seating = roster_seating(c);
        member->seated_ms = c->now;
    }
    member->seated = true;
    member->gone_said = false;
    drop_slot(c, member);
    roster_welcome(c, member);
}

/* --- the others ------------------------------------------------------------- */

static void tell_to_say_hello(struct coordinator *c, const struct peer *peer)
{
    coordinator_send(c, peer, MESSAGE_SAY_HELLO)->say_hello.learner_epoch = c->config.epoch;
}

static void receive_heartbeat(struct coordinator *c, const struct peer *peer,
                              const struct heartbeat *heartbeat)
{
    struct member *member = roster_find(c, heartbeat->process);

    if (member == NULL || !member->seated) {
        tell_to_say_hello(c, peer);
        return;
    }
    if (member->gone_said)
        coordinator_log(c, LOG_INFO, "slot %u is back", member->slot);
    member->gone_said = false;
    member->peer = *peer;
    member->heard_ms = c->now;
    member->waiting = heartbeat->waiting;
    member->steps = heartbeat->steps;
    member->version_epoch = heartbeat->version_epoch;
    member->version = heartbeat->version;
    member->computing = heartbeat->computing;
}

static struct member *member_of_slot(struct coordinator *c, uint32_t slot)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].used && c->members[i].seated && c->members[i].role == ROLE_ACTOR &&
            c->members[i].slot == slot)
            return &c->members[i];
    return NULL;
}

static void tell_stop(struct coordinator *c, const struct peer *peer)
{
    struct stop *stop = &coordinator_send(c, peer, MESSAGE_STOP)->stop;

    stop->learner_epoch = c->config.epoch;
    stop->code = (uint32_t)c->code;
    snprintf(stop->text, sizeof(stop->text), "%s", c->why);
}

/* Every Leave is answered, the first and its repetitions: whoever goes waits until it was heard. */
static void receive_leave(struct coordinator *c, const struct peer *peer, const struct leave *leave)
{
    struct member *member = roster_find(c, leave->process);

    if (member != NULL) {
        coordinator_log(c, LOG_INFO, "slot %u left: %s", member->slot, leave->text);
        member->used = false;
    }
    coordinator_send(c, peer, MESSAGE_LEAVE)->leave = *leave;
}

void roster_receive(struct coordinator *c, const struct peer *peer, const struct message *message)
{
    struct member *member;

    switch (message->kind) {
    case MESSAGE_HELLO:
        receive_hello(c, peer, &message->hello);
        break;
    case MESSAGE_HEARTBEAT:
        receive_heartbeat(c, peer, &message->heartbeat);
        break;
    case MESSAGE_LEAVE:
        receive_leave(c, peer, &message->leave);
        break;
    case MESSAGE_STOP:
        if (message->stop.learner_epoch != 0)
            break;
        coordinator_end(c, ENDING_STOP, TD_EXIT_OK, "stopped by `tdmpc2 stop`");
        c->has_stopper = true;
        c->stopper = *peer;
        tell_stop(c, peer);
        break;
    case MESSAGE_EPISODE_END:
        if (c->config.lockstep) {
            lockstep_receive(c, peer, message);
            break;
        }
        member = member_of_slot(c, message->episode_end.slot);
        if (member == NULL)
            tell_to_say_hello(c, peer);
        else
            async_episode_end(c, peer, member, &message->episode_end);
        break;
    case MESSAGE_NEXT_TASK:
        member = roster_find(c, message->next_task.process);
        if (member == NULL || !member->seated || member->slot != message->next_task.slot)
            tell_to_say_hello(c, peer);
        else
            tasks_next(c, peer, member, &message->next_task);
        break;
    case MESSAGE_EVALUATED:
        if (c->config.lockstep)
            lockstep_receive(c, peer, message);
        else
            async_evaluated(c, peer, &message->evaluated);
        break;
    case MESSAGE_TURNED:
        if (c->config.lockstep)
            lockstep_receive(c, peer, message);
        break;
    default:
        break;
    }
}

void roster_pull(struct coordinator *c, const struct peer *peer, const struct message *message)
{
    struct bulk bytes;
    struct message *answer;
    struct error err;
    int rc;

    if (message->kind != MESSAGE_PULL || c->params == NULL)
        return;
    rc = params_pull(c->params, c->now, peer->id, &message->pull, &bytes, &err);
    if (rc == TD_EIO) {
        coordinator_end(c, ENDING_STOP, TD_EXIT_GAVE_UP, "parameters can no longer be sent: %s", err.text);
        return;
    }
    if (rc != TD_OK) {
        answer = coordinator_send(c, peer, MESSAGE_GONE);
        answer->gone.newest = *params_newest(c->params);
        answer->gone.epoch = message->pull.epoch;
        answer->gone.version = message->pull.version;
        return;
    }
    answer = coordinator_send(c, peer, MESSAGE_CHUNK);
    answer->chunk = (struct chunk){message->pull.epoch, message->pull.version,
                                   message->pull.offset};
    answer->bulks = 1;
    answer->bulk[0] = bytes;
}

void roster_beat(struct coordinator *c)
{
    c->phase_told = coordinator_phase(c);
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct heartbeat *heartbeat;

        if (!member_live(c, &c->members[i]))
            continue;
        heartbeat = &coordinator_send(c, &c->members[i].peer, MESSAGE_HEARTBEAT)->heartbeat;
        heartbeat->learner_epoch = c->config.epoch;
        heartbeat->process = c->config.process;
        heartbeat->role = ROLE_LEARNER;
        heartbeat->phase = c->phase_told;
        heartbeat->updates = coordinator_updates(c);
        heartbeat->target = c->config.lockstep ? c->seed_steps : c->limiter.burst_target;
        heartbeat->steps = coordinator_steps(c);
        if (c->params != NULL)
            heartbeat->newest = *params_newest(c->params);
    }
}

void roster_tick(struct coordinator *c)
{
    if (c->now < c->beat_ms)
        return;
    c->beat_ms = c->now + c->config.heartbeat_ms;
    roster_beat(c);
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct member *member = &c->members[i];

        if (!member->used || member_live(c, member))
            continue;
        if (member->seated && !member->gone_said)
            coordinator_log(c, LOG_WARN, "nothing heard from slot %u (%s) for %llu s",
                            member->slot, member->role == ROLE_ACTOR ? "actor" : "evaluator",
                            (unsigned long long)(c->now - member->heard_ms) / 1000);
        member->gone_said = true;
        if (c->now >= member->heard_ms + c->config.timeout_ms)
            member->used = false;
    }
}

void roster_tell_end(struct coordinator *c)
{
    if (c->has_stopper)
        tell_stop(c, &c->stopper); /* with the code it came to */
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct member *member = &c->members[i];

        if (!member->used || !member->seated)
            continue;
        if (c->ending == ENDING_TERMINATE)
            coordinator_send(c, &member->peer, MESSAGE_LEAVING)->leaving.learner_epoch = c->config.epoch;
        else
            tell_stop(c, &member->peer);
    }
}

int coordinator_members(const coordinator_t *c, uint64_t now_ms,
                        struct coordinator_member *members, int max)
{
    int count = 0;

    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct member *member = &c->members[i];

        if (!member->used || !member->seated)
            continue;
        if (count < max)
            members[count] = (struct coordinator_member){
                .role = member->role,
                .slot = member->slot,
                .shard = member->shard,
                .waiting = member->waiting,
                .process = member->process,
                .steps = member->steps,
                .version = member->version,
                .heard_ms = member->heard_ms,
                .since_ms = member->seated_ms,
                .live = now_ms < member->heard_ms + coordinator_gone_ms(c),
                .local = member->peer.local,
            };
        count++;
    }
    return count;
}
