/* Shards: joining, counts, credit, and gathering batches from them. */
#include <stdio.h>
#include <string.h>

#include "common/util/rng.h"
#include "learner/coordinator_private.h"

bool seat_live(const struct coordinator *c, const struct seat *seat)
{
    return seat->welcomed && c->now < seat->heard_ms + coordinator_gone_ms(c);
}

uint32_t shards_live(const struct coordinator *c)
{
    uint32_t live = 0;

    for (uint32_t i = 0; i < c->config.shards; i++)
        live += seat_live(c, &c->seats[i]);
    return live;
}

static struct peer seat_peer(const struct coordinator *c, const struct seat *seat)
{
    return (struct peer){.port = PORT_SAMPLE, .local = seat->local, .id = (uint64_t)(seat - c->seats)};
}

/* --- joining ---------------------------------------------------------------- */

static void refuse_shard(struct coordinator *c, const struct peer *peer, const char *text)
{
    struct refused *refused = &coordinator_send(c, peer, MESSAGE_REFUSED)->refused;

    refused->code = REFUSED_CONFIG;
    snprintf(refused->text, sizeof(refused->text), "%s", text);
}

/* The request it may have had is lost with it; in lock-step the same one is sent again. */
static void seat_anew(struct coordinator *c, struct seat *seat)
{
    seat->welcomed = false;
    seat->hello_ms = c->now;
    if (seat->asked && !c->config.lockstep && seat->request.count > 0)
        batch_cancel(c, (int)seat->buffer);
}

void shards_hello(struct coordinator *c, const struct peer *peer, const struct message *message)
{
    const struct hello *hello = &message->hello;
    struct coordinator_output *output;
    struct message *answer;
    struct seat *seat;

    if (hello->shard >= c->config.shards || hello->sample[0] == '\0') {
        refuse_shard(c, peer, "no place for a shard of this number: shards= says how many there are");
        return;
    }
    seat = &c->seats[hello->shard];
    if (!seat->known || seat->process != hello->process ||
        strcmp(seat->sample, hello->sample) != 0) {
        coordinator_log(c, LOG_INFO, "shard %u joined at %s", hello->shard, hello->sample);
        seat->known = seat->moved = true;
        seat->damage_said = seat->process == hello->process ? seat->damage_said : 0;
        seat->process = hello->process;
        seat->local = peer->local;
        memcpy(seat->sample, hello->sample, sizeof(seat->sample));
        output = coordinator_command(c, OUTPUT_CONNECT);
        output->peer = seat_peer(c, seat);
        memcpy(output->address, hello->sample, sizeof(output->address));
        seat_anew(c, seat);
    } else if (seat->welcomed) {
        seat->hello_ms = c->now; /* it has not heard us: the same words again */
        seat->rehello = true;
    }
    memcpy(seat->ingest_ipc, hello->ingest_ipc, sizeof(seat->ingest_ipc));
    memcpy(seat->ingest_tcp, hello->ingest_tcp, sizeof(seat->ingest_tcp));
    answer = coordinator_send(c, peer, MESSAGE_WELCOME);
    answer->welcome.learner_epoch = c->config.epoch;
    answer->welcome.learner_process = c->config.process;
    answer->welcome.role = ROLE_SHARD;
    answer->welcome.shard = hello->shard;
}

/* Rows a shard's window holds. */
static uint64_t seat_capacity(const struct coordinator *c)
{
    uint64_t rows = c->config.buffer_size;

    if (c->config.lockstep && rows > c->config.steps)
        rows = c->config.steps; /* as in the reference */
    return (rows + c->config.shards - 1) / c->config.shards;
}

uint64_t coordinator_map_rows(uint64_t buffer_size, uint64_t keep_checkpoints, uint64_t checkpoint_steps,
                              uint32_t shards, uint32_t episode_length)
{
    uint64_t kept = (keep_checkpoints + 2) * checkpoint_steps;

    return (buffer_size + kept) / shards + (episode_length > 0 ? episode_length : 1000) + 1;
}

uint64_t coordinator_used_rows(uint64_t map_rows, uint64_t steps, uint32_t shards, uint32_t episode_length)
{
    uint64_t length = episode_length > 0 ? episode_length : 1000, rows = (steps + steps / length) / shards + length + 1;

    return rows < map_rows ? rows : map_rows;
}

static void seat_sizes(const struct coordinator *c, struct sample_hello *hello)
{
    const struct coordinator_config *config = &c->config;

    hello->capacity = seat_capacity(c);
    hello->map_rows = coordinator_map_rows(config->buffer_size, config->keep_checkpoints, config->checkpoint_steps,
                                           config->shards, c->spec.episode_length);
    hello->row_bytes = config->row_bytes;
    hello->used_rows = coordinator_used_rows(hello->map_rows, config->steps, config->shards, c->spec.episode_length);
}

static void say_hello(struct coordinator *c, struct seat *seat)
{
    struct peer peer = seat_peer(c, seat);
    struct sample_hello *hello = &coordinator_send(c, &peer, MESSAGE_SAMPLE_HELLO)->sample_hello;

    hello->learner_epoch = c->config.epoch;
    hello->process = c->config.process;
    hello->spec = c->spec;
    hello->shard = (uint32_t)peer.id;
    hello->shards = c->config.shards;
    hello->horizon = c->config.horizon;
    hello->batch_size = c->config.batch_size;
    hello->seed = c->config.seed;
    hello->lockstep = c->config.lockstep;
    hello->balanced = c->config.balanced;
    hello->heartbeat_ms = c->config.heartbeat_ms;
    hello->timeout_ms = c->config.timeout_ms;
    seat_sizes(c, hello);
    seat->hello_ms = c->now + COORDINATOR_HELLO_MS;
    seat->rehello = false;
}

/* Its process is gone: what comes next is another one's Hello, and until then it is waited for. */
void coordinator_shard_died(coordinator_t *c, uint64_t now_ms, uint32_t shard)
{
    struct seat *seat = &c->seats[shard];

    c->now = now_ms;
    TD_ASSERT(shard < c->config.shards, "shard %u", shard);
    if (seat->known) {
        seat_anew(c, seat);
        seat->known = false;
    }
    coordinator_tick(c, now_ms);
}

void shards_rehello(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->config.shards; i++)
        if (c->seats[i].known)
            seat_anew(c, &c->seats[i]);
}

/* --- counts ----------------------------------------------------------------- */

static struct progress_store *store_of(struct coordinator *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->stores; i++)
        if (c->store[i].store == id)
            return &c->store[i];
    if (c->stores == PROGRESS_STORES) { /* the two oldest lost directories become one */
        c->store[1].steps += c->store[0].steps;
        memmove(c->store, c->store + 1, --c->stores * sizeof(*c->store));
    }
    c->store[c->stores] = (struct progress_store){id, 0};
    return &c->store[c->stores++];
}

uint64_t shards_steps(const struct coordinator *c)
{
    uint64_t steps = 0;

    for (uint32_t i = 0; i < c->stores; i++)
        steps += c->store[i].steps;
    return steps;
}

/* Steps of other stores than this: a lock-step run has but one. */
static uint64_t steps_elsewhere(const struct coordinator *c, uint64_t store)
{
    uint64_t steps = 0;

    for (uint32_t i = 0; i < c->stores; i++)
        steps += c->store[i].store != store ? c->store[i].steps : 0;
    return steps;
}

/* What is lost is no reason to end, but one to be told of: once, and again whenever it has doubled. */
static void say_damage(struct coordinator *c, struct seat *seat, const struct status *status)
{
    uint64_t damage = status->rescued + status->lost_rows + status->lost_episodes + status->bad_segments;
    char sentence[200];

    if (damage == 0 || damage / 2 < seat->damage_said)
        return;
    seat->damage_said = damage;
    coordinator_log(c, LOG_ERROR, "shard %d: %s; the rest is served, its log says more", (int)(seat - c->seats),
                    status_damage(status, sentence, sizeof(sentence)));
}

static void seat_status(struct coordinator *c, struct seat *seat, const struct status *status)
{
    say_damage(c, seat, status);
    if (seat->has_status && seat->status.store != status->store)
        coordinator_log(c, LOG_WARN, "shard %d has another store, a new directory or what was saved of a damaged file: "
                        "of %llu steps %llu can be drawn", (int)(seat - c->seats),
                        (unsigned long long)seat->status.steps, (unsigned long long)status->episode_steps);
    if (c->config.lockstep && status->store != 0 && steps_elsewhere(c, status->store) > 0)
        coordinator_exit(c, TD_EXIT_BAD_INPUT,
                         "shard %d has another store than the one this lock-step run has used (a new directory, or what "
                         "was saved of a damaged file): it cannot go on exactly; start a new one - its "
                         "checkpoints can still be evaluated", (int)(seat - c->seats));
    seat->status = *status;
    seat->has_status = true;
    seat->statuses++;
    if (status->store != 0)
        store_of(c, status->store)->steps = status->steps;
    if (status->asks_checkpoint)
        c->save_due = true;
}

uint32_t shards_highest_slot(const struct coordinator *c, bool *known)
{
    uint32_t next = 0;

    *known = true;
    for (uint32_t i = 0; i < c->config.shards; i++) {
        const struct seat *seat = &c->seats[i];

        *known &= seat->has_status;
        if (seat->has_status && seat->status.has_slot && seat->status.slot >= next)
            next = seat->status.slot + 1;
    }
    return next;
}

/* Tell the limiter; a shard that is away keeps its last counts, its streams are not live. */
void shards_observe(struct coordinator *c)
{
    uint64_t episodes = 0, steps = 0;
    uint32_t streams = 0, fed = 0, saturated = 0;

    for (uint32_t i = 0; i < c->config.shards; i++) {
        const struct seat *seat = &c->seats[i];

        if (seat_live(c, seat) && seat->status.streams > 0) {
            fed++;
            saturated += seat->status.rows >= 2 * seat_capacity(c);
        }
        episodes += seat->status.episodes;
        steps += seat->status.episode_steps;
        streams += seat_live(c, seat) ? seat->status.streams : 0;
    }
    limiter_observe(&c->limiter, shards_steps(c), episodes, steps, streams,
                    fed > 0 && saturated == fed);
}

/* --- credit ----------------------------------------------------------------- */

static void send_credit(struct coordinator *c, struct seat *seat)
{
    struct peer peer = seat_peer(c, seat);
    struct credit *credit = &coordinator_send(c, &peer, MESSAGE_CREDIT)->credit;

    credit->learner_epoch = c->config.epoch;
    credit->steps = seat->credit;
    seat->beat_ms = c->now + c->config.heartbeat_ms;
}

/* Deal what the limiter allows; shards whose share changed are told. */
void shards_credit(struct coordinator *c)
{
    uint64_t steps[WIRE_SHARDS_MAX], credit[WIRE_SHARDS_MAX], limit = LIMIT_NONE;
    uint32_t streams[WIRE_SHARDS_MAX];
    bool known;

    shards_highest_slot(c, &known);
    if (!known || !c->model_ready)
        return;
    if (!c->config.lockstep)
        limit = limiter_limit(&c->limiter);
    for (uint32_t i = 0; i < c->config.shards; i++) {
        steps[i] = c->seats[i].status.steps;
        streams[i] = seat_live(c, &c->seats[i]) ? c->seats[i].status.streams : 0;
    }
    limiter_deal(limit, shards_steps(c), c->config.shards, steps, streams, credit);
    for (uint32_t i = 0; i < c->config.shards; i++) {
        struct seat *seat = &c->seats[i];

        if (!seat->welcomed || seat->credit == credit[i])
            continue;
        seat->credit = credit[i];
        send_credit(c, seat);
    }
}

/* --- batches ---------------------------------------------------------------- */

int batch_in(const struct coordinator *c, enum batch_state state)
{
    for (int i = 0; i < 2; i++)
        if (c->batches[i].state == state)
            return i;
    return -1;
}

int batch_free(const struct coordinator *c)
{
    return batch_in(c, BATCH_FREE);
}

static void send_request(struct coordinator *c, struct seat *seat)
{
    struct peer peer = seat_peer(c, seat);

    seat->request.learner_epoch = c->config.epoch;
    seat->request.credit = seat->credit;
    coordinator_send(c, &peer, MESSAGE_SAMPLE_REQUEST)->sample_request = seat->request;
    seat->asked_ms = c->now;
}

/* B slices over the live shards' samplable episodes, one multinomial draw. False: there are none. */
static bool deal_slices(const struct coordinator *c, uint64_t update, uint32_t *counts)
{
    struct rng_key key = {c->config.seed, RNG_DEAL, 0, 0, 0, update};
    uint64_t weights[WIRE_SHARDS_MAX], total = 0;
    uint32_t last = 0, candidates = 0;
    struct rng rng;

    for (uint32_t i = 0; i < c->config.shards; i++) {
        const struct seat *seat = &c->seats[i];

        weights[i] = seat_live(c, seat) ? seat->status.episodes : 0;
        counts[i] = 0;
        total += weights[i];
        if (weights[i] > 0) {
            last = i;
            candidates++;
        }
    }
    if (total == 0)
        return false;
    if (candidates == 1) {
        counts[last] = c->config.batch_size;
        return true;
    }
    rng_init(&rng, &key);
    for (uint32_t slice = 0; slice < c->config.batch_size; slice++) {
        uint64_t at = rng_u64(&rng) % total;
        uint32_t i = 0;

        while (at >= weights[i])
            at -= weights[i++];
        counts[i]++;
    }
    return true;
}

/* Ask for the batch of this update; `like` holds window and mark in lock-step. */
bool batch_request(struct coordinator *c, uint64_t update, const struct sample_request *like)
{
    int buffer = batch_free(c);
    struct task_share (*shares)[ROW_TASKS_MAX] = c->shares;
    uint32_t counts[WIRE_SHARDS_MAX] = {0};
    bool by_task = c->config.balanced && c->config.shards > 1 && c->spec.tasks > 1; /* one shard draws them itself */
    struct gathering *batch;

    TD_ASSERT(buffer >= 0, "no batch is free");
    batch = &c->batches[buffer];
    if (c->config.lockstep)
        counts[0] = c->config.batch_size;
    else if (!(by_task ? tasks_deal(c, update, counts, shares) : deal_slices(c, update, counts)))
        return false;
    *batch = (struct gathering){.state = BATCH_GATHERING, .update = update, .since_ms = c->now};
    for (uint32_t i = 0; i < c->config.shards; i++) {
        struct seat *seat = &c->seats[i];

        if (counts[i] == 0)
            continue;
        seat->request = *like;
        seat->request.id = ++c->request_ids;
        seat->request.update = update;
        seat->request.count = counts[i];
        seat->request.share_count = by_task ? c->spec.tasks : 0;
        if (by_task)
            memcpy(seat->request.shares, shares[i], sizeof(seat->request.shares));
        seat->buffer = (uint32_t)buffer;
        seat->part = batch->parts++;
        seat->asked = true;
        send_request(c, seat);
    }
    return true;
}

void batch_cancel(struct coordinator *c, int buffer)
{
    for (uint32_t i = 0; i < c->config.shards; i++)
        if (c->seats[i].asked && c->seats[i].request.count > 0 &&
            c->seats[i].buffer == (uint32_t)buffer)
            c->seats[i].asked = false;
    if (c->batches[buffer].state == BATCH_GATHERING || c->batches[buffer].state == BATCH_READY)
        c->batches[buffer].state = BATCH_FREE;
}

/* The batch is whole: run its update. */
void batch_start(struct coordinator *c, int buffer)
{
    struct gathering *batch = &c->batches[buffer];
    struct command_update *command = &coordinator_command(c, COMMAND_UPDATE)->update;

    TD_ASSERT(batch->state == BATCH_READY && !coordinator_updating(c), "not the moment to update");
    batch->state = BATCH_RUNNING;
    command->update = batch->update;
    command->buffer = (uint32_t)buffer;
    command->parts = batch->parts;
    command->computing = roster_computing(c);
}

/* Ask to be told when so many rows are synced. */
void shards_barrier(struct coordinator *c, uint64_t rows)
{
    struct seat *seat = &c->seats[0];

    seat->request = (struct sample_request){.id = ++c->request_ids, .after = rows};
    seat->asked = true;
    send_request(c, seat);
}

static void receive_slices(struct coordinator *c, struct seat *seat, const struct message *message)
{
    const struct slices *slices = &message->slices;
    struct gathering *batch = &c->batches[seat->buffer];
    struct command_slices *command;
    struct row_schema schema;
    size_t bytes;

    if (slices->learner_epoch != c->config.epoch)
        return;
    seat_status(c, seat, &slices->status);
    if (!seat->asked || slices->id != seat->request.id)
        return;
    if (seat->request.count == 0) {
        seat->asked = false;
        lockstep_synced(c);
        return;
    }
    if (slices->count == 0) {
        batch_cancel(c, (int)seat->buffer);
        c->gather_again_ms = c->now + 100;
        if (c->config.lockstep)
            coordinator_end(c, ENDING_STOP, TD_EXIT_BAD_INPUT,
                            "an update is due but no episode is as long as horizon + 1 rows: raise "
                            "seed_steps or lower horizon");
        return;
    }
    schema = spec_schema(&c->spec);
    bytes = row_slices_bytes(&schema, c->config.horizon, slices->count);
    if (slices->count != seat->request.count || message->bulk[0].size != bytes) {
        coordinator_log(c, LOG_ERROR, "shard %d sent slices of the wrong shape; asking again",
                        (int)(seat - c->seats));
        return;
    }
    seat->asked = false;
    c->run.window = slices->first;
    command = &coordinator_command(c, COMMAND_SLICES)->slices;
    command->buffer = seat->buffer;
    command->part = seat->part;
    command->count = slices->count;
    if (++batch->have == batch->parts)
        batch->state = BATCH_READY;
}

/* --- messages --------------------------------------------------------------- */

/* A shard remembers a later learner: raise our epoch, unless it took our place meanwhile. */
static void fenced_by(struct coordinator *c, const struct seat *seat, uint32_t epoch)
{
    if (epoch <= c->config.epoch)
        return;
    if (seat->welcomed) {
        coordinator_exit(c, TD_EXIT_FENCED, "another learner (epoch %u) took over from epoch %u",
                         epoch, c->config.epoch);
        return;
    }
    if (c->raising)
        return;
    c->raising = true;
    coordinator_command(c, COMMAND_RAISE_EPOCH)->epoch = epoch;
}

static void receive_sample_welcome(struct coordinator *c, struct seat *seat,
                                   const struct sample_welcome *welcome)
{
    seat->heard_ms = c->now;
    if (welcome->learner_epoch != c->config.epoch) {
        fenced_by(c, seat, welcome->learner_epoch);
        return;
    }
    seat_status(c, seat, &welcome->status);
    if (seat->welcomed)
        return;
    seat->welcomed = true;
    seat->gone_said = false;
    seat->credit = welcome->status.steps;
    if (seat->asked)
        send_request(c, seat);
    else
        send_credit(c, seat);
    if (seat->moved)
        roster_moved(c, (uint32_t)(seat - c->seats));
    seat->moved = false;
}

static void receive_refused(struct coordinator *c, struct seat *seat, const struct refused *refused)
{
    if (refused->code == REFUSED_FENCED)
        fenced_by(c, seat, refused->epoch);
    else
        coordinator_end(c, ENDING_STOP, TD_EXIT_BAD_INPUT, "shard %d refused: %s",
                        (int)(seat - c->seats), refused->text);
}

void shards_receive(struct coordinator *c, const struct peer *peer, const struct message *message)
{
    struct seat *seat;

    if (peer->id >= c->config.shards || !c->seats[peer->id].known)
        return;
    seat = &c->seats[peer->id];
    if (seat->gone_said && seat->welcomed)
        coordinator_log(c, LOG_INFO, "shard %d is back", (int)peer->id);
    if (seat->welcomed) {
        seat->heard_ms = c->now;
        seat->gone_said = false;
    }
    switch (message->kind) {
    case MESSAGE_SAMPLE_WELCOME:
        receive_sample_welcome(c, seat, &message->sample_welcome);
        break;
    case MESSAGE_STATUS:
        if (message->status.learner_epoch > c->config.epoch)
            fenced_by(c, seat, message->status.learner_epoch);
        else if (seat->welcomed)
            seat_status(c, seat, &message->status);
        break;
    case MESSAGE_SLICES:
        if (seat->welcomed)
            receive_slices(c, seat, message);
        break;
    case MESSAGE_REWOUND:
        if (c->config.lockstep && message->rewound.learner_epoch == c->config.epoch) {
            seat_status(c, seat, &message->rewound.status);
            lockstep_rewound(c, &message->rewound);
        }
        break;
    case MESSAGE_REFUSED:
        receive_refused(c, seat, &message->refused);
        break;
    default:
        break;
    }
}

/* Lock-step: back to the last cut, repeated until Rewound. */
void shards_rewind(struct coordinator *c)
{
    struct peer peer = seat_peer(c, &c->seats[0]);
    struct rewind_order *order = &coordinator_send(c, &peer, MESSAGE_REWIND)->rewind;

    order->learner_epoch = c->config.epoch;
    order->generation = c->run.generation;
    order->rows = c->run.go.rows;
    order->sealed = c->run.go.episode;
}

/* --- time ------------------------------------------------------------------- */

static void seat_tick(struct coordinator *c, struct seat *seat)
{
    if (!seat->known || c->spec.obs_type == 0 || c->raising)
        return;
    if ((!seat->welcomed || seat->rehello) && c->now >= seat->hello_ms)
        say_hello(c, seat);
    if (!seat->welcomed)
        return;
    if (!seat_live(c, seat)) {
        if (!seat->gone_said)
            coordinator_log(c, LOG_WARN, "nothing heard from shard %d at %s for %llu s",
                            (int)(seat - c->seats), seat->sample,
                            (unsigned long long)(c->now - seat->heard_ms) / 1000);
        if (!seat->gone_said && seat->asked && !c->config.lockstep)
            batch_cancel(c, (int)seat->buffer);
        seat->gone_said = true;
    }
    if (seat->asked && c->now >= seat->asked_ms + COORDINATOR_RESEND_MS)
        send_request(c, seat);
    if (c->now >= seat->beat_ms)
        send_credit(c, seat);
}

void shards_tick(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->config.shards; i++)
        seat_tick(c, &c->seats[i]);
}

uint64_t shards_deadline(const struct coordinator *c)
{
    uint64_t at = UINT64_MAX;

    for (uint32_t i = 0; i < c->config.shards; i++) {
        const struct seat *seat = &c->seats[i];
        uint64_t own;

        if (!seat->known || c->spec.obs_type == 0 || c->raising)
            continue;
        own = seat->welcomed ? seat->beat_ms : seat->hello_ms;
        if (seat->welcomed && seat->asked && seat->asked_ms + COORDINATOR_RESEND_MS < own)
            own = seat->asked_ms + COORDINATOR_RESEND_MS;
        if (seat_live(c, seat) && seat->heard_ms + coordinator_gone_ms(c) < own)
            own = seat->heard_ms + coordinator_gone_ms(c);
        if (own < at)
            at = own;
    }
    return at;
}

void shards_tell_end(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->config.shards; i++) {
        struct peer peer = seat_peer(c, &c->seats[i]);
        struct message *message;

        if (!c->seats[i].known)
            continue;
        message = coordinator_send(c, &peer, c->ending == ENDING_TERMINATE ? MESSAGE_LEAVING
                                                                           : MESSAGE_STOP);
        if (c->ending == ENDING_TERMINATE) {
            message->leaving.learner_epoch = c->config.epoch;
            continue;
        }
        message->stop.learner_epoch = c->config.epoch;
        message->stop.code = (uint32_t)c->code;
        snprintf(message->stop.text, sizeof(message->stop.text), "%s", c->why);
    }
}

int coordinator_shards(const coordinator_t *c, uint64_t now_ms, struct coordinator_member *members, int max)
{
    int count = 0;

    for (uint32_t i = 0; i < c->config.shards; i++) {
        const struct seat *seat = &c->seats[i];

        if (!seat->known)
            continue;
        if (count < max)
            members[count] = (struct coordinator_member){
                .role = ROLE_SHARD,
                .shard = i,
                .process = seat->process,
                .steps = seat->status.steps,
                .heard_ms = seat->heard_ms,
                .live = seat->welcomed && now_ms < seat->heard_ms + coordinator_gone_ms(c),
                .local = seat->local,
            };
        count++;
    }
    return count;
}
