#include "learner/replay/shard.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learner/replay/shard_parts.h"

/* --- outputs --------------------------------------------------------------- */

struct shard_output *shard_push(struct shard *shard, uint32_t kind)
{
    struct shard_output *output = output_queue_push(&shard->outputs);

    output->kind = kind;
    return output;
}

static struct message *fill_send(struct shard *shard, struct shard_output *output,
                                 const struct peer *peer, uint32_t kind)
{
    output->kind = OUTPUT_SEND;
    output->peer = *peer;
    output->message.kind = kind;
    output->message.run = shard->run;
    return &output->message;
}

struct message *shard_send(struct shard *shard, const struct peer *peer, uint32_t kind)
{
    return fill_send(shard, output_queue_push(&shard->outputs), peer, kind);
}

struct message *shard_send_synced(struct shard *shard, const struct peer *peer, uint32_t kind)
{
    bool dirty = shard->store != NULL && store_dirty(shard->store);

    return fill_send(shard, output_queue_push(dirty ? &shard->held : &shard->outputs), peer, kind);
}

static void push_log(struct shard *shard, int level, const char *format, va_list args)
{
    struct shard_output *output = shard_push(shard, OUTPUT_LOG);

    output->log.level = level;
    vsnprintf(output->log.text, sizeof(output->log.text), format, args);
}

void shard_log(struct shard *shard, int level, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    push_log(shard, level, format, args);
    va_end(args);
}

void shard_line(struct shard *shard, enum shard_line line, int level, const char *format, ...)
{
    va_list args;

    if (shard->line_ms[line] != 0 && shard->now_ms < shard->line_ms[line] + 5000) {
        shard->line_repeats[line]++;
        return;
    }
    shard->line_ms[line] = shard->now_ms + 1; /* never 0 */
    if (shard->line_repeats[line] != 0)
        shard_log(shard, level, "the next line stands for %u more", shard->line_repeats[line]);
    shard->line_repeats[line] = 0;
    va_start(args, format);
    push_log(shard, level, format, args);
    va_end(args);
}

void shard_exit(struct shard *shard, int code, const char *format, ...)
{
    struct shard_output *output;
    va_list args;

    if (shard->exited)
        return;
    output = shard_push(shard, OUTPUT_EXIT);
    output->exit.code = code;
    va_start(args, format);
    vsnprintf(output->exit.text, sizeof(output->exit.text), format, args);
    va_end(args);
    shard->exited = true;
}

void shard_refuse(struct shard *shard, const struct peer *peer, uint32_t code, const char *format, ...)
{
    struct message *message = shard_send(shard, peer, MESSAGE_REFUSED);
    va_list args;

    message->refused.code = code;
    va_start(args, format);
    vsnprintf(message->refused.text, sizeof(message->refused.text), format, args);
    va_end(args);
}

bool shard_next(shard_t *shard, struct shard_output *output)
{
    if (output_queue_pop(&shard->outputs, output))
        return true;
    for (int i = 0; i < SHARD_REQUESTS && !shard->exited; i++) {
        struct open_request *open = &shard->requests[i];

        if (open->open && sample_ready(shard, open)) {
            sample_answer(shard, open, output);
            return true;
        }
    }
    return false;
}

/* --- life ------------------------------------------------------------------ */

int shard_create(shard_t **out, const struct shard_config *config, uint64_t now_ms,
                 struct error *err)
{
    struct store_config stored = {
        .dir = config->dir,
        .run_id = config->run,
        .shard = config->shard,
        .lock_wait_ms = config->lock_wait_ms,
        .compress_frames = config->compress_frames,
        .force = config->force,
        .progress = config->progress,
    };
    struct shard *shard = calloc(1, sizeof(*shard));
    int rc;

    *out = NULL;
    if (shard == NULL || strlen(config->dir) >= sizeof(shard->dir) ||
        output_queue_init(&shard->outputs, sizeof(struct shard_output), 64) != TD_OK ||
        output_queue_init(&shard->held, sizeof(struct shard_output), 16) != TD_OK) {
        shard_destroy(&shard);
        return error_set(err, TD_ENOMEM, "out of memory for a replay shard");
    }
    shard->config = *config;
    memcpy(shard->dir, config->dir, strlen(config->dir) + 1);
    shard->config.dir = shard->dir;
    shard->run = config->run;
    shard->now_ms = shard->heartbeat_ms = now_ms;
    shard->terms.heartbeat_ms = SHARD_HEARTBEAT_MS;
    shard->terms.timeout_ms = SHARD_TIMEOUT_MS;
    rc = shard_open_store(shard, &stored, err);
    if (rc != TD_OK && rc != TD_ENOTFOUND) {
        shard_destroy(&shard);
        return rc;
    }
    if (shard->store != NULL) {
        shard->run = store_identity(shard->store)->run_id;
        shard->synced = *store_counts(shard->store);
        for (size_t i = 0; i < store_stream_count(shard->store); i++) {
            const struct store_stream *stream = store_stream_at(shard->store, i);

            if (stream->holder != 0) /* its silence counts from now */
                (void)streams_get(&shard->streams, stream->slot, stream->env, now_ms);
        }
    }
    if (shard->config.control[0] != '\0') {
        struct shard_output *output = shard_push(shard, OUTPUT_CONNECT);

        output->peer.port = PORT_CONTROL;
        memcpy(output->address, shard->config.control, sizeof(output->address));
    }
    *out = shard;
    return TD_OK;
}

void shard_destroy(shard_t **out)
{
    struct shard *shard = *out;

    if (shard == NULL)
        return;
    sampler_destroy(&shard->sampler);
    store_close(&shard->store);
    streams_release(&shard->streams);
    output_queue_release(&shard->outputs);
    output_queue_release(&shard->held);
    free(shard->shares);
    free(shard->slices);
    free(shard);
    *out = NULL;
}

store_t *shard_store(shard_t *shard)
{
    return shard->store;
}

/* --- the transaction ------------------------------------------------------- */

void shard_touched(struct shard *shard, uint64_t bytes)
{
    if (shard->dirty_bytes == 0)
        shard->dirty_since_ms = shard->now_ms;
    shard->dirty_bytes += bytes + 1;
}

bool shard_dirty(const shard_t *shard)
{
    return shard->store != NULL && !shard->exited && store_dirty(shard->store);
}

uint64_t shard_commit_due(const shard_t *shard)
{
    if (!shard_dirty(shard))
        return UINT64_MAX;
    if (shard->dirty_bytes >= SHARD_TXN_BYTES)
        return 0;
    return shard->dirty_since_ms + shard->config.commit_interval_ms;
}

bool shard_paused(const struct shard *shard)
{
    return store_full(shard->store) || shard->now_ms < shard->full_until_ms;
}

/* What was in the transaction never was: its rows are asked for again, its answers are not given. */
void shard_forget_open(struct shard *shard)
{
    shard->dirty_bytes = 0;
    shard->held.count = shard->held.head = 0;
    for (size_t i = 0; i < shard->streams.count; i++) {
        struct live_stream *stream = &shard->streams.list[i];

        stream->starved |= stream->ack;
        stream->ack = false;
    }
}

void shard_store_failed(struct shard *shard, int rc, const struct error *err)
{
    shard_forget_open(shard);
    if (rc == TD_ECORRUPT)
        store_condemn(shard->store, err);
    if (rc != TD_EFULL) {
        shard_exit(shard, TD_EXIT_GAVE_UP, "%s", err->text);
        return;
    }
    shard->full_until_ms = shard->now_ms + SHARD_RETRY_MS;
    shard_line(shard, LINE_FULL, LOG_WARN, "inserting is paused: %s", err->text);
    sample_committed(shard);
}

static void release_held(struct shard *shard)
{
    struct shard_output output;

    while (output_queue_pop(&shard->held, &output))
        *(struct shard_output *)output_queue_push(&shard->outputs) = output;
}

/* Ask those whose rows were turned away to send them again. */
static void feed_starved(struct shard *shard)
{
    for (size_t i = 0; i < shard->streams.count; i++) {
        struct live_stream *live = &shard->streams.list[i];
        const struct store_stream *stream = store_stream(shard->store, live->slot, live->env);
        struct nack *nack;

        if (!live->starved || (live->over && stream != NULL && shard->credit_epoch != 0 && stream_room(live, stream->steps, 1, shard->now_ms) == 0))
            continue;
        live->starved = live->over = false;
        if (stream == NULL || stream->holder == 0 || live->peer.id == 0)
            continue;
        nack = &shard_send_synced(shard, &live->peer, MESSAGE_NACK)->nack;
        *nack = (struct nack){live->slot, live->env, store_identity(shard->store)->store_id,
                              stream->epoch, stream->next};
    }
}

static void tally_commit(struct shard *shard, const struct store_counts *counts)
{
    shard->tally.commits++;
    shard->tally.rows_stored += counts->rows - shard->synced.rows;
    shard->tally.sealed += counts->sealed - shard->synced.sealed;
    shard->tally.aborted += counts->aborted - shard->synced.aborted;
}

void shard_commit(shard_t *shard, uint64_t now_ms)
{
    struct error err = {0};
    int rc;

    shard->now_ms = now_ms;
    if (shard->store == NULL || shard->exited)
        return;
    if (store_dirty(shard->store))
        sample_evict(shard);
    if (!store_dirty(shard->store))
        return;
    if ((rc = store_commit(shard->store, &err)) != TD_OK) {
        shard_store_failed(shard, rc, &err);
        return;
    }
    shard->dirty_bytes = 0;
    tally_commit(shard, store_counts(shard->store));
    shard->synced = *store_counts(shard->store);
    shard->status_wanted = true;
    sample_committed(shard);
    release_held(shard);
    shard_deal(shard);
    shard_tell_streams(shard);
    if (!shard_paused(shard))
        feed_starved(shard);
}

/* --- credit ---------------------------------------------------------------- */

bool stream_live(const struct shard *shard, const struct live_stream *stream)
{
    return stream->peer.id != 0 && shard->now_ms - stream->since_ms < 5 * shard->terms.heartbeat_ms;
}

static bool room_for_shares(struct shard *shard)
{
    struct share *grown;

    if (shard->share_capacity >= shard->streams.count)
        return true;
    grown = realloc(shard->shares, shard->streams.capacity * sizeof(*grown));
    if (grown == NULL)
        return false;
    shard->shares = grown;
    shard->share_capacity = shard->streams.capacity;
    return true;
}

/* The streams that take part: live and held. Fills shares in the order of the list. */
static size_t gather_shares(struct shard *shard)
{
    size_t count = 0;

    for (size_t i = 0; i < shard->streams.count; i++) {
        struct live_stream *live = &shard->streams.list[i];
        const struct store_stream *stream = store_stream(shard->store, live->slot, live->env);

        if (stream == NULL || stream->holder == 0) {
            live->limit = 0;
        } else if (!stream_live(shard, live) || live->limit == LIMIT_NONE ||
                   live->limit < stream->steps) {
            live->limit = stream->steps;
        }
        if (stream != NULL && stream->holder != 0 && stream_live(shard, live))
            shard->shares[count++] = (struct share){stream->steps, live->limit};
    }
    return count;
}

static void set_limits(struct shard *shard, bool none)
{
    size_t count = 0;

    for (size_t i = 0; i < shard->streams.count; i++) {
        struct live_stream *live = &shard->streams.list[i];
        const struct store_stream *stream = store_stream(shard->store, live->slot, live->env);

        if (stream != NULL && stream->holder != 0 && stream_live(shard, live))
            live->limit = none ? LIMIT_NONE : shard->shares[count++].limit;
    }
}

void shard_deal(struct shard *shard)
{
    uint64_t steps, rest;
    size_t count;

    if (shard->store == NULL || !room_for_shares(shard))
        return;
    if (shard->credit_epoch != 0 && shard->credit == LIMIT_NONE) {
        set_limits(shard, true);
        return;
    }
    steps = store_counts(shard->store)->steps;
    count = gather_shares(shard);
    rest = shard->credit > steps ? shard->credit - steps : 0;
    credit_deal(shard->shares, count, rest < SHARD_CREDIT_MAX ? rest : SHARD_CREDIT_MAX,
                &shard->streams.turn);
    set_limits(shard, false);
}

/* Streams that hold unused steps but have not moved for long, while others have none, give them up. */
static void reclaim_idle(struct shard *shard)
{
    uint64_t long_ms = 2 * shard->terms.heartbeat_ms;
    bool starving = false;

    for (size_t i = 0; i < shard->streams.count && !starving; i++) {
        const struct live_stream *live = &shard->streams.list[i];
        const struct store_stream *stream = store_stream(shard->store, live->slot, live->env);

        starving = stream != NULL && stream->holder != 0 && stream_live(shard, live) &&
                   live->limit <= stream->steps;
    }
    for (size_t i = 0; i < shard->streams.count && starving; i++) {
        struct live_stream *live = &shard->streams.list[i];

        if (live->limit != LIMIT_NONE && shard->now_ms - live->active_ms > long_ms) {
            live->limit = 0;
            live->active_ms = shard->now_ms; /* keeps what it is dealt next for as long */
        }
    }
}

/* An acknowledgement says what is synced: none goes out while its rows are in the open transaction. */
void shard_tell_streams(struct shard *shard)
{
    if (store_dirty(shard->store))
        return;
    for (size_t i = 0; i < shard->streams.count; i++) {
        struct live_stream *live = &shard->streams.list[i];
        const struct store_stream *stream = store_stream(shard->store, live->slot, live->env);
        struct ack *ack;

        if (stream == NULL || stream->holder == 0 || live->peer.id == 0 ||
            (!live->ack && live->limit == live->told))
            continue;
        ack = &shard_send(shard, &live->peer, MESSAGE_ACK)->ack;
        *ack = (struct ack){live->slot, live->env, store_identity(shard->store)->store_id,
                            stream->epoch, stream->next, live->limit};
        live->told = live->limit;
        live->ack = false;
    }
}

/* --- time ------------------------------------------------------------------ */

static void say_hello(struct shard *shard)
{
    struct peer control = {.port = PORT_CONTROL};
    struct hello *hello = &shard_send(shard, &control, MESSAGE_HELLO)->hello;

    hello->role = ROLE_SHARD;
    hello->process = shard->config.process;
    hello->shard = shard->config.shard;
    if (shard->store != NULL) {
        hello->store = store_identity(shard->store)->store_id;
        hello->learner_epoch = store_counts(shard->store)->learner_epoch;
        hello->has_slot = store_counts(shard->store)->has_slot;
        hello->slot = store_counts(shard->store)->slot;
    }
    memcpy(hello->ingest_ipc, shard->config.ingest_ipc, sizeof(hello->ingest_ipc));
    memcpy(hello->ingest_tcp, shard->config.ingest_tcp, sizeof(hello->ingest_tcp));
    memcpy(hello->sample, shard->config.sample, sizeof(hello->sample));
}

static bool learner_silent(const struct shard *shard)
{
    return !shard->joined ||
           shard->now_ms - shard->learner_heard_ms >= 5 * shard->terms.heartbeat_ms;
}

/* Hello until the learner answers, and when it has been silent: quickly at first. hello_ms 0: now. */
static uint64_t hello_due(const struct shard *shard)
{
    uint64_t heartbeat = shard->terms.heartbeat_ms;

    if (shard->config.control[0] == '\0' || shard->terminating)
        return UINT64_MAX;
    if (!learner_silent(shard))
        return shard->learner_heard_ms + 5 * heartbeat;
    if (shard->hello_ms == 0)
        return 0;
    return shard->hello_ms + (shard->joined || heartbeat < 500 ? heartbeat : 500);
}

static void send_status(struct shard *shard)
{
    struct message *message = shard_send(shard, &shard->learner, MESSAGE_STATUS);

    sample_status(shard, &message->status);
    shard->status_ms = shard->now_ms;
    shard->status_wanted = false;
}

static bool request_open(const struct shard *shard)
{
    for (int i = 0; i < SHARD_REQUESTS; i++)
        if (shard->requests[i].open)
            return true;
    return false;
}

/* Streams silent for `learner_timeout` are closed. */
static void sweep(struct shard *shard)
{
    struct error err = {0};
    int rc = TD_OK;

    for (size_t i = 0; i < shard->streams.count && rc == TD_OK; i++) {
        struct live_stream *live = &shard->streams.list[i];
        const struct store_stream *stream = store_stream(shard->store, live->slot, live->env);

        if (stream == NULL || stream->holder == 0 ||
            shard->now_ms - live->since_ms < shard->terms.timeout_ms)
            continue;
        shard_log(shard, LOG_WARN, "stream %u.%u was silent for %llu s: closed", live->slot, live->env,
                  (unsigned long long)(shard->terms.timeout_ms / 1000));
        rc = store_close_stream(shard->store, live->slot, live->env, &err);
        shard_touched(shard, 0);
        live->peer.id = 0;
    }
    if (rc != TD_OK)
        shard_store_failed(shard, rc, &err);
}

static void heartbeat(struct shard *shard)
{
    shard->heartbeat_ms = shard->now_ms;
    if (shard->joined)
        send_status(shard);
    if (shard->store == NULL)
        return;
    sweep(shard);
    if (shard->exited)
        return;
    sample_evict(shard);
    reclaim_idle(shard);
    shard_deal(shard);
    shard_tell_streams(shard);
    if (!shard_paused(shard))
        feed_starved(shard);
}

/* Have all left who might still send or ask? */
static bool all_left(const struct shard *shard)
{
    if (shard->joined && !shard->left)
        return false;
    for (size_t i = 0; i < shard->streams.count; i++) {
        const struct live_stream *live = &shard->streams.list[i];
        const struct store_stream *stream = store_stream(shard->store, live->slot, live->env);

        if (stream != NULL && stream->holder != 0 && stream_live(shard, live))
            return false;
    }
    return true;
}

static void tick_leaving(struct shard *shard)
{
    bool late = shard->now_ms - shard->terminate_ms >= SHARD_LEAVE_MS;

    if (!late && !all_left(shard))
        return;
    shard_commit(shard, shard->now_ms);
    shard_exit(shard, TD_EXIT_OK, late ? "not everybody left within 10 s" : "everybody has left");
}

void shard_tick(shard_t *shard, uint64_t now_ms)
{
    shard->now_ms = now_ms;
    if (shard->exited)
        return;
    if (shard->status_wanted && shard->joined && now_ms - shard->status_ms >= SHARD_STATUS_MS &&
        !request_open(shard))
        send_status(shard);
    if (now_ms >= hello_due(shard)) {
        shard->hello_ms = now_ms + 1;
        say_hello(shard);
    }
    if (now_ms - shard->heartbeat_ms >= shard->terms.heartbeat_ms)
        heartbeat(shard);
    if (shard->full_until_ms != 0 && now_ms >= shard->full_until_ms && shard->store != NULL &&
        !shard->exited) {
        shard->full_until_ms = 0;
        if (!shard_paused(shard))
            feed_starved(shard);
    }
    if (shard->terminating && !shard->exited)
        tick_leaving(shard);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t shard_deadline(const shard_t *shard)
{
    uint64_t at = shard->heartbeat_ms + shard->terms.heartbeat_ms;

    if (shard->exited)
        return UINT64_MAX;
    if (shard->status_wanted && shard->joined && !request_open(shard))
        at = earlier(at, shard->status_ms + SHARD_STATUS_MS);
    at = earlier(at, hello_due(shard));
    if (shard->full_until_ms != 0)
        at = earlier(at, shard->full_until_ms);
    if (shard->terminating)
        at = earlier(at, shard->now_ms + 100);
    return at;
}

/* --- from outside ---------------------------------------------------------- */

/* What the learner's control socket answers; its orders come over the sample socket. */
static void control_receive(struct shard *shard, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_REFUSED:
        shard_exit(shard, TD_EXIT_BAD_INPUT, "the learner refused this shard: %s",
                   message->refused.text);
        break;
    case MESSAGE_SAY_HELLO:
        shard->hello_ms = 0;
        break;
    case MESSAGE_STOP:
        shard->left = true;
        if (!shard->terminating)
            shard_terminate(shard, shard->now_ms, false);
        break;
    default:
        break; /* Welcome, heartbeats: nothing in them for a shard */
    }
}

void shard_receive(shard_t *shard, uint64_t now_ms, const struct peer *peer,
                   const struct message *message)
{
    shard->now_ms = now_ms;
    if (shard->exited)
        return;
    if (shard->run != 0 && message->run != 0 && message->run != shard->run) {
        shard_refuse(shard, peer, REFUSED_RUN, "this replay shard belongs to run %016llx, not %016llx",
                     (unsigned long long)shard->run, (unsigned long long)message->run);
        shard_line(shard, LINE_FOREIGN, LOG_WARN, "a part of run %016llx knocked and was refused",
                   (unsigned long long)message->run);
        return;
    }
    switch (peer->port) {
    case PORT_CONTROL:
        control_receive(shard, message);
        break;
    case PORT_INGEST:
        ingest_receive(shard, peer, message);
        break;
    case PORT_SAMPLE:
        sample_receive(shard, peer, message);
        break;
    default:
        TD_ASSERT(false, "message on port %u", peer->port);
    }
}

void shard_terminate(shard_t *shard, uint64_t now_ms, bool at_once)
{
    shard->now_ms = now_ms;
    if (at_once) {
        shard_commit(shard, now_ms);
        shard_exit(shard, TD_EXIT_OK, "the learner is gone");
        return;
    }
    if (shard->terminating)
        return;
    shard->terminating = true;
    shard->terminate_ms = now_ms;
    if (shard->store == NULL)
        shard_exit(shard, TD_EXIT_OK, "nothing was stored");
}

/* --- what it is doing ------------------------------------------------------ */

static void view_wait(const struct shard *shard, struct shard_view *view)
{
    if (shard->store == NULL)
        snprintf(view->wait, sizeof(view->wait), "waiting for the learner's first word");
    else if (store_full(shard->store))
        snprintf(view->wait, sizeof(view->wait), "full: waiting for a checkpoint that frees room");
    else if (shard->now_ms < shard->full_until_ms)
        snprintf(view->wait, sizeof(view->wait), "the disk of %.400s is full: waiting for room", shard->dir);
    else if (learner_silent(shard))
        snprintf(view->wait, sizeof(view->wait), "waiting for the learner");
}

void shard_view(const shard_t *shard, uint64_t now_ms, struct shard_view *view)
{
    *view = shard->tally;
    view->learner_epoch = shard->terms.learner_epoch;
    view->learner_heard_ms = shard->learner_heard_ms;
    view->credit = shard->credit;
    for (size_t i = 0; i < shard->streams.count; i++)
        view->streams_live += shard->streams.list[i].peer.id != 0 &&
                              now_ms - shard->streams.list[i].since_ms < 5 * shard->terms.heartbeat_ms;
    view->learner_away = learner_silent(shard);
    view_wait(shard, view);
    if (shard->store == NULL)
        return;
    view->counts = store_counts(shard->store);
    view->segments_bad = view->counts->bad;
    view->room = (double)store_room(shard->store) / (double)store_identity(shard->store)->map_bytes;
    view->used = store_identity(shard->store)->map_bytes - store_room(shard->store);
    view->full = store_full(shard->store) || shard->now_ms < shard->full_until_ms;
    view->asks_checkpoint = sample_wants_checkpoint(shard);
}
