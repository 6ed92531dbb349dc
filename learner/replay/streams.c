#include "learner/replay/streams.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EPOCH_MAX (UINT64_C(1) << 62)

/* --- judgements ------------------------------------------------------------ */

enum rows_answer rows_judge(const struct store_stream *stream, uint64_t store_id,
                            const struct rows *rows, uint32_t *skip)
{
    *skip = 0;
    if (rows->store != store_id || stream == NULL || rows->epoch > stream->epoch ||
        stream->holder == 0)
        return ROWS_REJOIN;
    if (stream->holder != rows->process)
        return ROWS_FENCED;
    if (rows->epoch < stream->epoch)
        return ROWS_LATE;
    if (rows->first > stream->next)
        return ROWS_GAP;
    if (rows->count <= stream->next - rows->first)
        return ROWS_REPEAT;
    *skip = (uint32_t)(stream->next - rows->first);
    return ROWS_STORE;
}

enum hello_answer hello_judge(const struct store_stream *stream, uint64_t store_id, uint64_t process,
                              const struct stream_shown *shown, uint64_t *epoch)
{
    uint64_t stored = stream == NULL ? 0 : stream->epoch;
    uint64_t above = shown->epoch < EPOCH_MAX ? shown->epoch : 0; /* nonsense is not believed */
    bool ours = shown->store == store_id;

    if (stream != NULL && stream->holder == process) {
        if (!(shown->renew && ours && shown->epoch == stored))
            return HELLO_SAME;
    } else if (stream != NULL && stream->holder != 0 && ours && shown->epoch <= stored) {
        return HELLO_FENCED; /* its place was taken */
    }
    *epoch = (above > stored ? above : stored) + 1;
    return HELLO_GRANT;
}

/* --- the table ------------------------------------------------------------- */

static size_t place_of(const struct streams *streams, uint32_t slot, uint32_t env)
{
    uint64_t wanted = (uint64_t)slot << 32 | env;
    size_t low = 0, high = streams->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct live_stream *stream = &streams->list[middle];

        if (((uint64_t)stream->slot << 32 | stream->env) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct live_stream *streams_find(const struct streams *streams, uint32_t slot, uint32_t env)
{
    size_t place = place_of(streams, slot, env);

    if (place == streams->count || streams->list[place].slot != slot ||
        streams->list[place].env != env)
        return NULL;
    return &streams->list[place];
}

struct live_stream *streams_get(struct streams *streams, uint32_t slot, uint32_t env, uint64_t now_ms)
{
    struct live_stream *stream = streams_find(streams, slot, env);
    size_t place = place_of(streams, slot, env);

    if (stream != NULL)
        return stream;
    if (streams->count == streams->capacity) {
        size_t capacity = streams->capacity == 0 ? 64 : streams->capacity * 2;
        struct live_stream *grown = realloc(streams->list, capacity * sizeof(*grown));

        if (grown == NULL)
            return NULL;
        streams->list = grown;
        streams->capacity = capacity;
    }
    stream = &streams->list[place];
    memmove(stream + 1, stream, (streams->count - place) * sizeof(*stream));
    streams->count++;
    *stream = (struct live_stream){.slot = slot, .env = env, .since_ms = now_ms};
    return stream;
}

void streams_heard(struct streams *streams, const struct peer *peer, uint64_t now_ms)
{
    for (size_t i = 0; i < streams->count; i++)
        if (streams->list[i].peer.id == peer->id)
            streams->list[i].since_ms = now_ms;
}

void streams_clear(struct streams *streams)
{
    streams->count = 0;
}

void streams_release(struct streams *streams)
{
    free(streams->list);
    memset(streams, 0, sizeof(*streams));
}

/* --- one stream's share -------------------------------------------------------- */

/* What has come beyond the limit of late fades away. */
static void fade(struct live_stream *live, uint64_t now_ms)
{
    live->beyond -= (double)(now_ms - live->beyond_ms) * 1e-3 * STREAM_BEYOND_PER_S;
    if (live->beyond < 0)
        live->beyond = 0;
    live->beyond_ms = now_ms;
}

uint32_t stream_room(struct live_stream *live, uint64_t steps, uint32_t count, uint64_t now_ms)
{
    uint64_t limit = live->limit > live->told ? live->limit : live->told, within;
    double beyond;

    if (limit == LIMIT_NONE || (steps < limit && count <= limit - steps))
        return count;
    fade(live, now_ms);
    within = steps < limit ? limit - steps : 0;
    beyond = floor(STREAM_BEYOND - live->beyond);
    return (double)(count - within) <= beyond ? count : (uint32_t)(within + (uint64_t)fmax(beyond, 0));
}

void stream_took(struct live_stream *live, uint64_t steps, uint32_t count)
{
    uint64_t limit = live->limit > live->told ? live->limit : live->told;

    if (steps + count > limit)
        live->beyond += (double)(steps >= limit ? count : steps + count - limit);
}

/* --- credit ---------------------------------------------------------------- */

static uint64_t unused(const struct share *share)
{
    return share->limit - share->steps;
}

/* What all would have unused with nobody above (below) the level; `cap`: nobody above. */
static uint64_t sum_at(const struct share *shares, size_t count, uint64_t level, bool cap)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t has = unused(&shares[i]);

        sum += cap ? (has < level ? has : level) : (has > level ? has : level);
    }
    return sum;
}

/* The highest level at which the sum is at most rest. */
static uint64_t find_level(const struct share *shares, size_t count, uint64_t rest, bool cap)
{
    uint64_t low = 0, high = rest;

    while (low < high) {
        uint64_t middle = high - (high - low) / 2;

        if (sum_at(shares, count, middle, cap) <= rest)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Has someone next to nothing of a large even share? */
static bool is_uneven(const struct share *shares, size_t count, uint64_t rest)
{
    uint64_t even = rest / count;

    for (size_t i = 0; i < count && even >= CREDIT_EVEN; i++)
        if (unused(&shares[i]) < even / 2)
            return true;
    return false;
}

void credit_deal(struct share *shares, size_t count, uint64_t rest, size_t *turn)
{
    uint64_t sum = 0, level, odd;
    bool cap;

    if (count == 0)
        return;
    for (size_t i = 0; i < count; i++)
        if (shares[i].limit < shares[i].steps)
            shares[i].limit = shares[i].steps;
    if (is_uneven(shares, count, rest))
        for (size_t i = 0; i < count; i++)
            shares[i].limit = shares[i].steps; /* all is dealt again */
    for (size_t i = 0; i < count; i++)
        sum += unused(&shares[i]);
    if (sum == rest)
        return;
    cap = sum > rest;
    level = find_level(shares, count, rest, cap);
    odd = rest - sum_at(shares, count, level, cap);
    for (size_t k = 0, start = *turn; k < count; k++) {
        struct share *share = &shares[(start + k) % count];
        uint64_t has = unused(share);
        bool at_level = cap ? has > level : has <= level;

        if (!at_level)
            continue;
        share->limit = share->steps + level;
        if (odd > 0) {
            share->limit++;
            if (--odd == 0)
                *turn = (start + k + 1) % count;
        }
    }
}
