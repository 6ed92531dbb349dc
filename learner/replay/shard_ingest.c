/* What actors say: Hello, Rows, Leave. */
#include <stdio.h>
#include <string.h>

#include "learner/replay/shard_parts.h"

/* --- Hello ----------------------------------------------------------------- */

static bool spec_fits(const struct shard *shard, const struct message_spec *spec)
{
    const struct row_schema *schema = &store_identity(shard->store)->schema;

    return spec->obs_type == schema->obs_type && spec->obs_dim == schema->obs_dim &&
           spec->action_dim == schema->action_dim;
}

static void send_fenced(struct shard *shard, const struct peer *peer, uint32_t slot, uint32_t env,
                        uint64_t holder)
{
    shard_send_synced(shard, peer, MESSAGE_FENCED)->fenced = (struct fenced){slot, env, holder};
}

/*
 * A Hello that was on the way for long: since it was said the learner has given the slot to the process
 * that holds the stream now. Its sender is gone, or will be told.
 */
static bool is_overtaken(const struct shard *shard, const struct store_stream *stream,
                         const struct live_stream *live, const struct ingest_hello *hello)
{
    if (stream == NULL || live == NULL || stream->holder == 0 || stream->holder == hello->process)
        return false;
    return hello->seating < live->seating && live->seating >> 32 <= shard->terms.learner_epoch;
}

/* One stream of a Hello: its record may change in the open transaction. Returns TD_OK or the store's. */
static int welcome_stream(struct shard *shard, const struct peer *peer, const struct ingest_hello *hello,
                          const struct stream_shown *shown, struct ingest_welcome *welcome,
                          struct error *err)
{
    const struct store_stream *stream = store_stream(shard->store, hello->slot, shown->environment);
    uint64_t store_id = store_identity(shard->store)->store_id, epoch;
    struct live_stream *live = streams_find(&shard->streams, hello->slot, shown->environment);
    enum hello_answer answer = hello_judge(stream, store_id, hello->process, shown, &epoch);
    int rc;

    if (is_overtaken(shard, stream, live, hello))
        answer = HELLO_FENCED;
    switch (answer) {
    case HELLO_FENCED:
        send_fenced(shard, peer, hello->slot, shown->environment, stream->holder);
        return TD_OK;
    case HELLO_GRANT:
        if ((rc = store_grant(shard->store, hello->slot, shown->environment, epoch, hello->process,
                              err)) != TD_OK)
            return rc;
        shard_touched(shard, 64);
        break;
    case HELLO_SAME:
        break;
    }
    live = streams_get(&shard->streams, hello->slot, shown->environment, shard->now_ms);
    if (live == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a stream");
    live->peer = *peer;
    live->since_ms = live->active_ms = shard->now_ms;
    if (answer == HELLO_GRANT || hello->seating > live->seating)
        live->seating = hello->seating;
    live->starved = live->ack = false;
    live->nack_ms = 0;
    stream = store_stream(shard->store, hello->slot, shown->environment);
    welcome->streams[welcome->count++] = (struct stream_granted){
        .environment = shown->environment, .epoch = stream->epoch, .next = stream->next};
    return TD_OK;
}

static bool is_shown(const struct ingest_hello *hello, uint32_t env)
{
    for (uint32_t i = 0; i < hello->count; i++)
        if (hello->streams[i].environment == env)
            return true;
    return false;
}

/*
 * Who took the slot has fewer environments than the process before: nobody goes on with the others, so what
 * they hold is sealed now and not when their silence has become too long. Returns TD_OK or the store's.
 */
static int close_unshown(struct shard *shard, const struct ingest_hello *hello, struct error *err)
{
    int rc = TD_OK;

    for (uint32_t env = 0; env < WIRE_STREAMS_MAX && rc == TD_OK; env++) {
        const struct store_stream *stream = store_stream(shard->store, hello->slot, env);
        struct live_stream *live = streams_find(&shard->streams, hello->slot, env);

        if (stream == NULL || stream->holder == 0 || stream->holder == hello->process || is_shown(hello, env))
            continue;
        rc = store_close_stream(shard->store, hello->slot, env, err);
        if (live != NULL)
            live->peer.id = 0;
        shard_touched(shard, 0);
    }
    return rc;
}

/* Limits are dealt when all its streams are known; the Welcome waits for the commit. */
static void send_welcome(struct shard *shard, const struct peer *peer, struct ingest_welcome *welcome)
{
    shard_deal(shard);
    for (uint32_t i = 0; i < welcome->count; i++) {
        struct live_stream *live =
            streams_find(&shard->streams, welcome->slot, welcome->streams[i].environment);

        welcome->streams[i].limit = live->told = live->limit;
    }
    shard_send_synced(shard, peer, MESSAGE_INGEST_WELCOME)->ingest_welcome = *welcome;
}

static void receive_hello(struct shard *shard, const struct peer *peer, const struct message *message)
{
    const struct ingest_hello *hello = &message->ingest_hello;
    struct ingest_welcome welcome = {.slot = hello->slot, .process = hello->process};
    const struct row_schema *schema;
    struct error err = {0};
    int rc = TD_OK;

    if (shard->store == NULL || hello->process == 0 || shard->terminating)
        return; /* not yet, or no more: it asks again */
    schema = &store_identity(shard->store)->schema;
    if (!spec_fits(shard, &hello->spec)) {
        shard_refuse(shard, peer, REFUSED_SPEC,
                     "this run stores %u observations and %u actions of type %u, yours are %u, %u, %u",
                     schema->obs_dim, schema->action_dim, schema->obs_type, hello->spec.obs_dim,
                     hello->spec.action_dim, hello->spec.obs_type);
        return;
    }
    welcome.store = store_identity(shard->store)->store_id;
    for (uint32_t i = 0; i < hello->count; i++) {
        rc = welcome_stream(shard, peer, hello, &hello->streams[i], &welcome, &err);
        if (rc == TD_EFULL && store_stream_count(shard->store) >= STORE_STREAMS_MAX) {
            shard_refuse(shard, peer, REFUSED_FULL, "%s", err.text);
            return;
        }
        if (rc != TD_OK) {
            shard_store_failed(shard, rc, &err);
            return;
        }
    }
    if (welcome.count > 0 && welcome.count == hello->count && /* fenced from none: the slot is its own */
        (rc = close_unshown(shard, hello, &err)) != TD_OK) {
        shard_store_failed(shard, rc, &err);
        return;
    }
    if (welcome.count > 0)
        send_welcome(shard, peer, &welcome);
}

/* --- Rows ------------------------------------------------------------------ */

static void refuse_rows(struct shard *shard, const struct peer *peer, const struct rows *rows,
                        uint64_t sequence, const char *why)
{
    struct refused *refused = &shard_send(shard, peer, MESSAGE_REFUSED)->refused;

    refused->code = REFUSED_ROWS;
    snprintf(refused->text, sizeof(refused->text), "row %llu of stream %u.%u cannot be stored: %s",
             (unsigned long long)sequence, rows->slot, rows->environment, why);
    refused->slot = rows->slot;
    refused->environment = rows->environment;
    refused->stream_epoch = rows->epoch;
    refused->sequence = sequence;
    shard->tally.rows_refused++;
    shard_line(shard, LINE_REFUSED, LOG_WARN, "refused %s", refused->text);
}

/* A task of the run, as far as the learner has told us which these are. */
static const char *check_task(const struct shard *shard, const char *row)
{
    uint32_t tasks = shard->terms.spec.tasks;
    struct row_head head;

    memcpy(&head, row, sizeof(head));
    return shard->sampler != NULL && head.task >= (tasks > 0 ? tasks : 1) ? "it is of a task that this run does not have"
                                                                          : NULL;
}

/* Every row, before any is stored. Returns NULL, or what is wrong with the one at *which. */
static const char *check_rows(const struct shard *shard, const struct store_stream *stream,
                              const char *bytes, uint32_t count, uint32_t *which)
{
    const struct row_schema *schema = &store_identity(shard->store)->schema;
    size_t stride = row_stride(schema);

    for (*which = 0; *which < count; (*which)++) {
        const char *why = row_check(bytes + *which * stride, schema);

        if (why == NULL)
            why = check_task(shard, bytes + *which * stride);
        if (why != NULL)
            return why;
    }
    return store_rows_check(shard->store, stream, bytes, count, which);
}

static void store_them(struct shard *shard, const struct peer *peer, const struct rows *rows,
                       const char *bytes, uint32_t skip)
{
    const struct store_stream *stream = store_stream(shard->store, rows->slot, rows->environment);
    struct live_stream *live =
        streams_get(&shard->streams, rows->slot, rows->environment, shard->now_ms);
    uint32_t count = rows->count - skip, room = count, which;
    struct error err = {0};
    const char *why;
    uint64_t held;
    bool over;
    int rc;

    if (live == NULL)
        return; /* no memory: it is sent again */
    live->peer = *peer;
    if (shard_paused(shard)) {
        live->starved = true;
        shard->tally.rows_delayed += count;
        shard_line(shard, LINE_FULL, LOG_WARN, "inserting is paused: the replay store is full");
        return;
    }
    if (shard->credit_epoch != 0)
        room = stream_room(live, stream->steps, count, shard->now_ms);
    if (room < count) { /* the rest is asked for when there is room */
        shard->tally.rows_delayed += count - room;
        shard_line(shard, LINE_BEYOND, LOG_WARN, "rows of stream %u.%u wait: it has had its share (%llu steps)", rows->slot,
                   rows->environment, (unsigned long long)stream->steps);
    }
    over = room < count;
    count = room;
    if (count == 0) {
        live->starved = live->over = true;
        return;
    }
    bytes += (size_t)skip * rows->stride;
    if ((why = check_rows(shard, stream, bytes, count, &which)) != NULL) {
        refuse_rows(shard, peer, rows, rows->first + skip + which, why);
        return;
    }
    shard_touched(shard, (uint64_t)count * rows->stride);
    live->ack = true;
    held = stream->steps;
    if ((rc = store_append(shard->store, rows->slot, rows->environment, bytes, count, &err)) != TD_OK) {
        shard_store_failed(shard, rc, &err);
        return;
    }
    live->active_ms = shard->now_ms;
    if (shard->credit_epoch != 0)
        stream_took(live, held, count);
    live->starved = live->over = over;
    shard->tally.rows_repeated += skip;
}

/* Nack, but not for each of many chunks behind the same gap. */
static void ask_again(struct shard *shard, const struct peer *peer, const struct store_stream *stream)
{
    struct live_stream *live =
        streams_get(&shard->streams, stream->slot, stream->env, shard->now_ms);

    if (live == NULL)
        return;
    live->peer = *peer;
    if (live->starved || (live->nack_ms != 0 && live->nack_next == stream->next &&
                          shard->now_ms < live->nack_ms + SHARD_NACK_MS))
        return;
    live->nack_next = stream->next;
    live->nack_ms = shard->now_ms + 1; /* never 0 */
    shard_send(shard, peer, MESSAGE_NACK)->nack =
        (struct nack){stream->slot, stream->env, store_identity(shard->store)->store_id, stream->epoch,
                      stream->next};
}

/* Acknowledge again: at once when nothing is open, else with the commit. */
static void acknowledge(struct shard *shard, const struct peer *peer, const struct rows *rows)
{
    struct live_stream *live =
        streams_get(&shard->streams, rows->slot, rows->environment, shard->now_ms);

    shard->tally.rows_repeated += rows->count;
    if (live == NULL)
        return;
    live->peer = *peer;
    live->ack = true;
    shard_tell_streams(shard);
}

static void receive_rows(struct shard *shard, const struct peer *peer, const struct message *message)
{
    const struct rows *rows = &message->rows;
    const struct store_stream *stream;
    uint64_t store_id;
    uint32_t skip;

    if (shard->store == NULL)
        return;
    store_id = store_identity(shard->store)->store_id;
    stream = store_stream(shard->store, rows->slot, rows->environment);
    switch (rows_judge(stream, store_id, rows, &skip)) {
    case ROWS_REJOIN:
        shard_send(shard, peer, MESSAGE_REJOIN)->rejoin =
            (struct rejoin){rows->slot, rows->environment, store_id};
        return;
    case ROWS_FENCED:
        send_fenced(shard, peer, rows->slot, rows->environment, stream->holder);
        return;
    case ROWS_LATE:
        return;
    case ROWS_GAP:
        ask_again(shard, peer, stream);
        return;
    case ROWS_REPEAT:
        acknowledge(shard, peer, rows);
        return;
    case ROWS_STORE:
        break;
    }
    if (message->bulks != 1 ||
        rows->stride != row_stride(&store_identity(shard->store)->schema) ||
        message->bulk[0].size != (size_t)rows->count * rows->stride) {
        refuse_rows(shard, peer, rows, rows->first, "its size is not that of this run's rows");
        return;
    }
    store_them(shard, peer, rows, message->bulk[0].data, skip);
}

/* --- Leave ----------------------------------------------------------------- */

/* Every Leave is answered, the first and its repetitions, once the end of its streams is synced. */
static void receive_leave(struct shard *shard, const struct peer *peer, const struct leave *leave)
{
    struct error err = {0};
    int rc = TD_OK;

    for (size_t i = 0; shard->store != NULL && i < shard->streams.count && rc == TD_OK; i++) {
        struct live_stream *live = &shard->streams.list[i];
        const struct store_stream *stream = store_stream(shard->store, live->slot, live->env);

        if (live->slot != leave->slot || stream == NULL || stream->holder == 0 ||
            stream->holder != leave->process)
            continue;
        rc = store_close_stream(shard->store, live->slot, live->env, &err);
        live->peer.id = 0;
        shard_touched(shard, 0);
    }
    if (rc != TD_OK)
        shard_store_failed(shard, rc, &err);
    else
        shard_send_synced(shard, peer, MESSAGE_LEAVE)->leave = *leave;
}

void ingest_receive(struct shard *shard, const struct peer *peer, const struct message *message)
{
    streams_heard(&shard->streams, peer, shard->now_ms);
    switch (message->kind) {
    case MESSAGE_INGEST_HELLO:
        receive_hello(shard, peer, message);
        break;
    case MESSAGE_ROWS:
        receive_rows(shard, peer, message);
        break;
    case MESSAGE_LEAVE:
        receive_leave(shard, peer, &message->leave);
        break;
    default:
        break; /* heartbeats: heard of */
    }
}
