/* What the learner says: Hello, requests, credit, Rewind. */
#include <stdlib.h>
#include <string.h>

#include "common/util/fs.h"
#include "learner/replay/shard_parts.h"

/* --- status ---------------------------------------------------------------- */

bool sample_wants_checkpoint(const struct shard *shard)
{
    return shard->terms.lockstep && shard->store != NULL &&
           store_room(shard->store) < store_identity(shard->store)->map_bytes / 4;
}

static uint32_t count_live(const struct shard *shard)
{
    uint32_t live = 0;

    for (size_t i = 0; i < shard->streams.count; i++) {
        const struct live_stream *stream = &shard->streams.list[i];
        const struct store_stream *stored = store_stream(shard->store, stream->slot, stream->env);

        live += stored != NULL && stored->holder != 0 && stream_live(shard, stream);
    }
    return live;
}

static void count_tasks(const struct shard *shard, struct status *status)
{
    struct sampler_task tasks[ROW_TASKS_MAX];

    sampler_tasks(shard->sampler, tasks);
    status->task_count = shard->terms.spec.tasks;
    for (uint32_t i = 0; i < status->task_count; i++)
        status->tasks[i] = (struct task_count){tasks[i].rows, tasks[i].episodes};
}

void sample_status(struct shard *shard, struct status *status)
{
    const struct sampler_window *window;

    if (shard->store == NULL)
        return;
    window = shard->sampler == NULL ? NULL : sampler_window(shard->sampler, SAMPLER_NEWEST);
    *status = (struct status){
        .store = store_identity(shard->store)->store_id,
        .learner_epoch = store_counts(shard->store)->learner_epoch,
        .rows = shard->synced.rows,
        .steps = shard->synced.steps,
        .sealed = shard->synced.sealed,
        .episodes = window == NULL ? 0 : window->episodes,
        .episode_steps = window == NULL ? 0 : window->steps,
        .streams = count_live(shard),
        .has_slot = shard->synced.has_slot,
        .slot = shard->synced.slot,
        .asks_checkpoint = sample_wants_checkpoint(shard),
        .full = shard_paused(shard),
        .bytes = shard->synced.bytes,
        .aborted = shard->synced.aborted,
        .refused = shard->tally.rows_refused,
        .rescued = shard->tally.rescued,
        .lost_rows = shard->tally.rows_lost,
        .lost_episodes = shard->tally.episodes_lost,
        .lost_uncertain = shard->tally.lost_uncertain,
        .bad_segments = store_counts(shard->store)->bad,
    };
    if (window != NULL && shard->terms.spec.tasks > 0)
        count_tasks(shard, status);
    if (window != NULL) {
        shard->tally.episodes = window->episodes;
        shard->tally.episode_steps = window->steps;
        shard->tally.window_first = window->first;
        shard->tally.window_last = window->last;
        shard->tally.episode_rows = shard->tally.window_rows = window->rows;
    }
}

/* --- what is committed, and what may go ------------------------------------ */

void sample_committed(struct shard *shard)
{
    shard->tally.counts = NULL;
    if (shard->sampler == NULL)
        return;
    if (sampler_update(shard->sampler) != TD_OK)
        shard_exit(shard, TD_EXIT_GAVE_UP, "out of memory for the index of episodes");
}

/* Nothing may be let go and no row be taken: the window gives way, the newest of it apart. */
static uint64_t squeeze(struct shard *shard, const struct sampler_window *window)
{
    uint64_t first = store_counts(shard->store)->first;
    uint64_t before = first + (window->last - first) / 4;

    if (window->episodes < 2 || before == first)
        return first;
    shard_line(shard, LINE_SQUEEZE, LOG_WARN,
               "the store is full before its %llu rows are in (short episodes, or long ones still "
               "open): letting go of the oldest quarter",
               (unsigned long long)shard->terms.capacity);
    return before;
}

void sample_evict(struct shard *shard)
{
    const struct sampler_window *window;
    struct error err = {0};
    uint64_t before, first, most;
    int rc;

    if (shard->sampler == NULL || shard->exited)
        return;
    /* faster than new ones come, yet bounded: what is left over goes with the next transaction */
    most = SHARD_EVICT_MOST + 2 * (store_counts(shard->store)->sealed - store_committed(shard->store));
    window = sampler_window(shard->sampler, SAMPLER_NEWEST);
    before = shard->terms.lockstep || shard->retain < window->first ? shard->retain : window->first;
    if (!shard->terms.lockstep && before <= store_counts(shard->store)->first &&
        store_full(shard->store))
        before = squeeze(shard, window);
    first = store_counts(shard->store)->first;
    if ((rc = store_evict(shard->store, before, (uint32_t)most, &err)) != TD_OK) {
        shard_store_failed(shard, rc, &err);
        return;
    }
    if (store_counts(shard->store)->first != first)
        shard_touched(shard, 0);
    shard->tally.evicted += store_counts(shard->store)->first - first;
}

/* --- Hello ----------------------------------------------------------------- */

/* The store that is there: TD_EFOREIGN when it holds other rows. Which run it serves it was not told on opening. */
static int adopt_store(const struct shard *shard, const struct store_config *config, struct error *err)
{
    const struct row_schema *has = &store_identity(shard->store)->schema, *schema = &config->schema;

    if (memcmp(has, schema, sizeof(*has)) == 0)
        return config->narrow ? store_narrow(shard->store, err) : TD_OK;
    return error_set(err, TD_EFOREIGN,
                     "%s holds rows of type %u with %u observations and %u actions, this run has type "
                     "%u, %u and %u: choose another replay_dir",
                     shard->dir, has->obs_type, has->obs_dim, has->action_dim, schema->obs_type,
                     schema->obs_dim, schema->action_dim);
}

static int make_store(struct shard *shard, const struct sample_hello *hello, uint64_t run,
                      struct error *err)
{
    struct store_config config = {
        .dir = shard->dir,
        .schema = spec_schema(&hello->spec),
        .run_id = run,
        .shard = shard->config.shard,
        .rows = hello->map_rows,
        .used = hello->used_rows,
        .row_bytes = hello->row_bytes,
        .bytes_limit = shard->config.bytes_limit,
        .lock_wait_ms = shard->config.lock_wait_ms,
        .compress_frames = shard->config.compress_frames,
        .narrow = hello->spec.tasks > 1,
        .force = shard->config.force,
        .progress = shard->config.progress,
    };
    uint64_t free_bytes = 0, used = hello->used_rows != 0 ? hello->used_rows : hello->map_rows;
    int rc;

    if (hello->map_rows > SHARD_ROWS_MAX)
        return error_set(err, TD_EINVAL, "no store holds %llu rows", (unsigned long long)hello->map_rows);
    if (shard->store != NULL)
        return adopt_store(shard, &config, err);
    if ((rc = shard_open_store(shard, &config, err)) != TD_OK)
        return rc;
    shard->run = store_identity(shard->store)->run_id;
    shard->synced = *store_counts(shard->store);
    (void)fs_free_bytes(shard->dir, &free_bytes, NULL);
    shard_log(shard, LOG_INFO,
              "replay store made in %s: %llu rows need %.2f GB, at most %.2f GB, %.2f GB are free",
              shard->dir, (unsigned long long)used,
              (double)store_bytes_needed(&config.schema, used, config.row_bytes) * 1e-9,
              (double)store_identity(shard->store)->map_bytes * 1e-9, (double)free_bytes * 1e-9);
    return TD_OK;
}

/* The sampler and the buffer for its slices, as this learner wants them. */
static int make_sampler(struct shard *shard, const struct sample_hello *hello, struct error *err)
{
    struct sampler_config config = {
        .horizon = hello->horizon,
        .capacity = hello->capacity,
        .seed = hello->seed,
        .shard = shard->config.shard,
        .lockstep = hello->lockstep,
        .tasks = hello->spec.tasks,
        .balanced = hello->balanced,
    };
    struct row_schema schema = spec_schema(&hello->spec);
    size_t bytes = row_slices_bytes(&schema, hello->horizon, hello->batch_size);

    if (hello->horizon == 0 || hello->batch_size == 0 || hello->capacity == 0 ||
        bytes > WIRE_SLICES_MAX)
        return error_set(err, TD_EINVAL, "batches of %u slices with horizon %u cannot be drawn",
                         hello->batch_size, hello->horizon);
    memset(shard->requests, 0, sizeof(shard->requests)); /* they were of other terms */
    sampler_destroy(&shard->sampler);
    free(shard->slices);
    shard->slices_size = bytes;
    if ((shard->slices = calloc(1, bytes)) == NULL ||
        sampler_create(&shard->sampler, shard->store, &config) != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory for batches of %zu bytes", bytes);
    return TD_OK;
}

/* value where it makes sense, `normal` for 0 */
static uint64_t within(uint64_t value, uint64_t least, uint64_t most, uint64_t normal)
{
    if (value == 0)
        return normal;
    return value < least ? least : value > most ? most : value;
}

static void adopt_learner(struct shard *shard, const struct peer *peer,
                          const struct sample_hello *hello)
{
    bool changed = !shard->joined || shard->learner.id != peer->id ||
                   shard->terms.learner_epoch != hello->learner_epoch;

    if (changed) { /* what the last one asked for is not this one's business */
        memset(shard->requests, 0, sizeof(shard->requests));
        shard->retain = 0;
        shard->heartbeat_ms = shard->now_ms;
        shard_log(shard, LOG_INFO, "the learner of epoch %u joined", hello->learner_epoch);
    }
    shard->joined = true;
    shard->left = false;
    shard->learner = *peer;
    shard->learner_heard_ms = shard->now_ms;
    shard->terms = *hello;
    shard->terms.heartbeat_ms = within(hello->heartbeat_ms, 10, 3600 * 1000, SHARD_HEARTBEAT_MS);
    shard->terms.timeout_ms = within(hello->timeout_ms, 1000, UINT64_C(1) << 40, SHARD_TIMEOUT_MS);
}

static void send_welcome(struct shard *shard, const struct peer *peer)
{
    struct message *message = shard_send_synced(shard, peer, MESSAGE_SAMPLE_WELCOME);
    struct sample_welcome *welcome = &message->sample_welcome;

    welcome->learner_epoch = store_counts(shard->store)->learner_epoch;
    sample_status(shard, &welcome->status);
}

/* The same learner saying the same again? Then its sampler is the right one already. */
static bool same_terms(const struct shard *shard, const struct sample_hello *hello)
{
    const struct sample_hello *terms = &shard->terms;

    return shard->sampler != NULL && terms->horizon == hello->horizon &&
           terms->batch_size == hello->batch_size && terms->seed == hello->seed &&
           terms->lockstep == hello->lockstep && terms->capacity == hello->capacity &&
           terms->spec.tasks == hello->spec.tasks && terms->balanced == hello->balanced;
}

static void receive_hello(struct shard *shard, const struct peer *peer, const struct message *message)
{
    const struct sample_hello *hello = &message->sample_hello;
    struct error err = {0};
    int rc = TD_OK;

    if (hello->shard != shard->config.shard) {
        shard_refuse(shard, peer, REFUSED_CONFIG, "this is shard %u, not shard %u",
                     shard->config.shard, hello->shard);
        return;
    }
    if (message->run == 0) {
        shard_refuse(shard, peer, REFUSED_RUN, "a learner must name its run");
        return;
    }
    rc = make_store(shard, hello, message->run, &err);
    if (rc == TD_OK && hello->learner_epoch < store_counts(shard->store)->learner_epoch) {
        send_welcome(shard, peer); /* names the higher one */
        return;
    }
    if (rc == TD_OK && !same_terms(shard, hello))
        rc = make_sampler(shard, hello, &err);
    if (rc != TD_OK) {
        shard_refuse(shard, peer, rc == TD_EFOREIGN ? REFUSED_SPEC : REFUSED_CONFIG, "%s", err.text);
        shard_exit(shard, error_exit_code(rc), "%s", err.text);
        return;
    }
    if ((rc = store_learner_epoch(shard->store, hello->learner_epoch, &err)) != TD_OK) {
        shard_store_failed(shard, rc, &err);
        return;
    }
    if (store_dirty(shard->store))
        shard_touched(shard, 0);
    adopt_learner(shard, peer, hello);
    send_welcome(shard, peer);
}

/* --- requests -------------------------------------------------------------- */

/* Does the learner that we serve say this? An older one is told who fenced it. */
static bool from_learner(struct shard *shard, const struct peer *peer, uint32_t epoch)
{
    uint32_t known = shard->store == NULL ? 0 : store_counts(shard->store)->learner_epoch;

    if (epoch < known) {
        struct refused *refused = &shard_send(shard, peer, MESSAGE_REFUSED)->refused;

        refused->code = REFUSED_FENCED;
        refused->epoch = known;
        memcpy(refused->text, "a newer learner serves this run", 32);
        return false;
    }
    if (!shard->joined || peer->id != shard->learner.id || epoch != shard->terms.learner_epoch)
        return false; /* it must say SampleHello first, and repeats that until answered */
    shard->learner_heard_ms = shard->now_ms;
    return true;
}

static void take_credit(struct shard *shard, uint32_t epoch, uint64_t steps)
{
    shard->credit = steps;
    shard->credit_epoch = epoch;
    shard_deal(shard);
    shard_tell_streams(shard);
}

/* A place for it: that of the same request said before, a free one, or the oldest. */
static struct open_request *place_for(struct shard *shard, uint64_t id)
{
    struct open_request *place = &shard->requests[0];

    for (int i = 0; i < SHARD_REQUESTS; i++)
        if (shard->requests[i].open && shard->requests[i].request.id == id)
            return &shard->requests[i];
    for (int i = 0; i < SHARD_REQUESTS; i++) {
        if (!shard->requests[i].open)
            return &shard->requests[i];
        if (shard->requests[i].request.id < place->request.id)
            place = &shard->requests[i];
    }
    return place;
}

/* Of every task of the run how many, and all of them together what is asked for? */
static bool shares_fit(const struct shard *shard, const struct sample_request *request)
{
    uint64_t sum = 0;

    if (request->share_count == 0)
        return true;
    for (uint32_t i = 0; i < request->share_count; i++)
        sum += request->shares[i].slices;
    return request->share_count == shard->terms.spec.tasks && sum == request->count;
}

static void receive_request(struct shard *shard, const struct peer *peer,
                            const struct sample_request *request)
{
    struct open_request *open;

    if (!from_learner(shard, peer, request->learner_epoch))
        return;
    if (request->count > shard->terms.batch_size) {
        shard_refuse(shard, peer, REFUSED_CONFIG, "%u slices in one request, %u were agreed on",
                     request->count, shard->terms.batch_size);
        return;
    }
    if (!shares_fit(shard, request)) {
        shard_refuse(shard, peer, REFUSED_CONFIG, "slices of %u tasks were asked for that are not %u in all, or not of "
                     "this run's tasks", request->share_count, request->count);
        return;
    }
    open = place_for(shard, request->id);
    open->open = true;
    open->peer = *peer;
    open->request = *request;
    if (request->has_retain)
        shard->retain = request->retain;
    else if (!shard->terms.lockstep)
        shard->retain = STORE_NONE;
    take_credit(shard, request->learner_epoch, request->credit);
}

bool sample_ready(const struct shard *shard, const struct open_request *open)
{
    const struct sample_request *request = &open->request;

    return shard->synced.rows >= request->after &&
           (!request->has_window || store_committed(shard->store) >= request->last);
}

static void say_quarantine(struct shard *shard)
{
    uint64_t bad = store_counts(shard->store)->bad;

    if (bad == shard->bad_reported)
        return;
    shard_line(shard, LINE_QUARANTINE, LOG_ERROR,
               "%llu damaged segments were set aside: run `tdmpc2 replay verify %s`",
               (unsigned long long)bad, shard->dir);
    shard->bad_reported = bad;
}

static int draw_slices(struct shard *shard, const struct sample_request *request)
{
    uint32_t shares[ROW_TASKS_MAX];

    for (uint32_t i = 0; i < request->share_count; i++)
        shares[i] = request->shares[i].slices;
    return sampler_draw_shares(shard->sampler, request->update, request->share_count > 0 ? shares : NULL,
                               request->count, shard->slices);
}

void sample_answer(struct shard *shard, struct open_request *open, struct shard_output *output)
{
    const struct sample_request *request = &open->request;
    uint64_t last = request->has_window ? request->last : SAMPLER_NEWEST;
    struct slices *slices = &output->message.slices;
    struct sampler_window window;

    memset(output, 0, sizeof(*output));
    output->kind = OUTPUT_SEND;
    output->peer = open->peer;
    output->message.kind = MESSAGE_SLICES;
    output->message.run = shard->run;
    slices->learner_epoch = request->learner_epoch;
    slices->id = request->id;
    slices->update = request->update;
    window = *sampler_window(shard->sampler, last);
    if (request->count > 0 && draw_slices(shard, request) == TD_OK) {
        slices->count = request->count;
        output->message.bulks = 1;
        output->message.bulk[0].data = shard->slices;
        output->message.bulk[0].size = sampler_bytes(shard->sampler, request->count);
        shard->tally.slices += request->count;
    }
    slices->first = window.first;
    slices->last = window.last;
    slices->rows = window.rows;
    slices->episodes = window.episodes;
    say_quarantine(shard);
    sample_status(shard, &slices->status);
    shard->status_ms = shard->now_ms;
    shard->status_wanted = false;
    open->open = false;
}

/* --- Rewind ---------------------------------------------------------------- */

static void answer_rewind(struct shard *shard, const struct peer *peer,
                          const struct rewind_order *order, const struct error *err)
{
    struct rewound *rewound = &shard_send(shard, peer, MESSAGE_REWOUND)->rewound;

    rewound->learner_epoch = order->learner_epoch;
    rewound->generation = order->generation;
    rewound->done = err == NULL;
    if (err != NULL)
        memcpy(rewound->text, err->text, sizeof(rewound->text) - 1);
    sample_status(shard, &rewound->status);
}

static void receive_rewind(struct shard *shard, const struct peer *peer,
                           const struct rewind_order *order)
{
    uint64_t rows, generation;
    struct error err = {0};
    int rc;

    if (!from_learner(shard, peer, order->learner_epoch))
        return;
    generation = store_counts(shard->store)->generation;
    if (order->generation <= generation) {
        answer_rewind(shard, peer, order, NULL);
        return;
    }
    rows = shard->synced.rows;
    rc = store_rewind(shard->store, order->generation, order->rows, order->sealed, &err);
    if (rc == TD_OK)
        rc = store_commit(shard->store, &err);
    shard_forget_open(shard);
    if (rc == TD_OK)
        streams_clear(&shard->streams); /* every holder is gone: all say Hello again */
    memset(shard->requests, 0, sizeof(shard->requests));
    sample_committed(shard);
    if (rc != TD_OK && rc != TD_EINVAL) {
        shard_store_failed(shard, rc, &err);
        return;
    }
    shard->synced = *store_counts(shard->store);
    if (rc == TD_OK) {
        shard->tally.commits++;
        shard->tally.rewinds++;
        shard_log(shard, LOG_INFO, "rewound from %llu to %llu rows, %llu episodes",
                  (unsigned long long)rows, (unsigned long long)order->rows,
                  (unsigned long long)order->sealed);
    }
    answer_rewind(shard, peer, order, rc == TD_OK ? NULL : &err);
}

void sample_receive(struct shard *shard, const struct peer *peer, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_SAMPLE_HELLO:
        receive_hello(shard, peer, message);
        break;
    case MESSAGE_SAMPLE_REQUEST:
        receive_request(shard, peer, &message->sample_request);
        break;
    case MESSAGE_CREDIT:
        if (from_learner(shard, peer, message->credit.learner_epoch))
            take_credit(shard, message->credit.learner_epoch, message->credit.steps);
        break;
    case MESSAGE_REWIND:
        receive_rewind(shard, peer, &message->rewind);
        break;
    case MESSAGE_LEAVING:
        if (from_learner(shard, peer, message->leaving.learner_epoch)) {
            shard->left = true;
            shard->joined = false;
        }
        break;
    case MESSAGE_STOP:
        if (from_learner(shard, peer, message->stop.learner_epoch)) {
            shard->left = true;
            shard->joined = false;
            shard_terminate(shard, shard->now_ms, false);
        }
        break;
    default:
        break;
    }
}
