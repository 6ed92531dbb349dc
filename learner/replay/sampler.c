#include "learner/replay/sampler.h"

#include <stdlib.h>
#include <string.h>

#include "common/util/error.h"

struct sampler {
    store_t *store;
    struct sampler_config config;
    struct row_schema schema;
    struct sampler_window window;  /* by rows alone */
    struct sampler_window visible; /* stretched to hold an episode that may be drawn */

    uint32_t *fit; /* ids less base of the episodes that may be drawn, ascending */
    size_t begin, end, capacity;
    uint64_t base;
    uint64_t known; /* lock-step: episodes below this are in the list */
};

int sampler_create(sampler_t **out, store_t *store, const struct sampler_config *config)
{
    struct sampler *sampler = calloc(1, sizeof(*sampler));

    *out = sampler;
    if (sampler == NULL)
        return TD_ENOMEM;
    sampler->store = store;
    sampler->config = *config;
    sampler->schema = store_identity(store)->schema;
    (void)store_news(store);
    sampler->known = STORE_NONE; /* read all */
    return sampler_update(sampler);
}

void sampler_destroy(sampler_t **sampler)
{
    if (*sampler == NULL)
        return;
    free((*sampler)->fit);
    free(*sampler);
    *sampler = NULL;
}

/* --- the list of episodes that may be drawn -------------------------------- */

static bool may_draw(const struct sampler *sampler, uint64_t id)
{
    const struct store_episode *episode = store_episode(sampler->store, id);

    if (episode->rows < sampler->config.horizon + 1)
        return false;
    if (episode->flags & (EPISODE_DAMAGED | STORE_QUARANTINED))
        return false;
    return sampler->config.lockstep || (episode->flags & STORE_PUBLISHED);
}

/* The place of the first listed id that is not below `id`. */
static size_t place_of(const struct sampler *sampler, uint64_t id)
{
    size_t low = sampler->begin, high = sampler->end;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (sampler->base + sampler->fit[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool listed(const struct sampler *sampler, uint64_t id)
{
    size_t place = place_of(sampler, id);

    return place < sampler->end && sampler->base + sampler->fit[place] == id;
}

/* Room for one more at the end; what was dropped in front is reused first. */
static int list_room(struct sampler *sampler)
{
    size_t count = sampler->end - sampler->begin, capacity;
    uint32_t *grown;

    if (sampler->end < sampler->capacity)
        return TD_OK;
    if (sampler->begin > count) {
        memmove(sampler->fit, sampler->fit + sampler->begin, count * sizeof(*sampler->fit));
        sampler->begin = 0;
        sampler->end = count;
        return TD_OK;
    }
    capacity = sampler->capacity == 0 ? 1024 : sampler->capacity * 2;
    if ((grown = realloc(sampler->fit, capacity * sizeof(*grown))) == NULL)
        return TD_ENOMEM;
    sampler->fit = grown;
    sampler->capacity = capacity;
    return TD_OK;
}

static uint64_t steps_of(const struct sampler *sampler, uint64_t id)
{
    return store_episode(sampler->store, id)->rows - 1;
}

static bool in_window(const struct sampler *sampler, uint64_t id)
{
    return id >= sampler->window.first && id < sampler->window.last;
}

static int list_add(struct sampler *sampler, uint64_t id)
{
    size_t place;

    if (list_room(sampler) != TD_OK)
        return TD_ENOMEM;
    place = place_of(sampler, id);
    memmove(sampler->fit + place + 1, sampler->fit + place,
            (sampler->end - place) * sizeof(*sampler->fit));
    sampler->fit[place] = (uint32_t)(id - sampler->base);
    sampler->end++;
    if (in_window(sampler, id)) {
        sampler->window.episodes++;
        sampler->window.steps += steps_of(sampler, id);
    }
    return TD_OK;
}

static void list_remove(struct sampler *sampler, uint64_t id)
{
    size_t place = place_of(sampler, id);

    if (in_window(sampler, id)) {
        sampler->window.episodes--;
        sampler->window.steps -= steps_of(sampler, id);
    }
    memmove(sampler->fit + place, sampler->fit + place + 1,
            (sampler->end - place - 1) * sizeof(*sampler->fit));
    sampler->end--;
}

/* Read the whole table anew; the window is empty at the oldest episode until it is moved. */
static int rebuild(struct sampler *sampler)
{
    uint64_t first = store_counts(sampler->store)->first;
    uint64_t committed = store_committed(sampler->store);

    sampler->begin = sampler->end = 0;
    sampler->base = first;
    memset(&sampler->window, 0, sizeof(sampler->window));
    sampler->window.first = sampler->window.last = first;
    for (uint64_t id = first; id < committed; id++)
        if (may_draw(sampler, id)) {
            if (list_room(sampler) != TD_OK)
                return TD_ENOMEM;
            sampler->fit[sampler->end++] = (uint32_t)(id - first);
        }
    sampler->known = committed;
    return TD_OK;
}

static int take_news(struct sampler *sampler, const struct store_news *news)
{
    uint64_t first = store_counts(sampler->store)->first;
    int rc = TD_OK;

    for (size_t i = 0; i < news->count && !sampler->config.lockstep && rc == TD_OK; i++) {
        uint64_t id = news->published[i];

        if (id >= first && may_draw(sampler, id) && !listed(sampler, id))
            rc = list_add(sampler, id);
    }
    for (; sampler->config.lockstep && sampler->known < store_committed(sampler->store) && rc == TD_OK;
         sampler->known++)
        if (sampler->known >= first && may_draw(sampler, sampler->known))
            rc = list_add(sampler, sampler->known);
    return rc;
}

int sampler_update(sampler_t *sampler)
{
    struct store_news news = store_news(sampler->store);
    int rc;

    if (news.rebuilt || sampler->known == STORE_NONE ||
        store_committed(sampler->store) - sampler->base >= UINT32_MAX) {
        if ((rc = rebuild(sampler)) != TD_OK)
            sampler->known = STORE_NONE;
        return rc;
    }
    if ((rc = take_news(sampler, &news)) != TD_OK) {
        sampler->known = STORE_NONE;
        return rc;
    }
    return TD_OK;
}

/* Evicted episodes are gone at once; should that be undone, the whole list is made anew. */
static void drop_evicted(struct sampler *sampler)
{
    uint64_t first = store_counts(sampler->store)->first;

    while (sampler->begin < sampler->end && sampler->base + sampler->fit[sampler->begin] < first)
        sampler->begin++;
}

/* --- the window ------------------------------------------------------------ */

/* Let an episode in or out of the window's sums. */
static void count_in(struct sampler *sampler, uint64_t id, bool in)
{
    struct sampler_window *window = &sampler->window;
    uint64_t sign = in ? 1 : UINT64_MAX; /* plus or minus one, modulo 2^64 */

    window->rows += sign * store_episode(sampler->store, id)->rows;
    if (listed(sampler, id)) {
        window->episodes += sign;
        window->steps += sign * steps_of(sampler, id);
    }
}

/* Stretch the window to the newest episode that may be drawn, if it holds none. */
static void make_visible(struct sampler *sampler)
{
    struct sampler_window *visible = &sampler->visible;
    size_t place;

    *visible = sampler->window;
    if (visible->episodes != 0)
        return;
    place = place_of(sampler, visible->last);
    if (place == sampler->begin)
        return;
    visible->first = sampler->base + sampler->fit[place - 1];
    visible->episodes = 1;
    visible->steps = steps_of(sampler, visible->first);
    visible->rows = 0;
    for (uint64_t id = visible->first; id < visible->last; id++)
        visible->rows += store_episode(sampler->store, id)->rows;
}

const struct sampler_window *sampler_window(sampler_t *sampler, uint64_t last)
{
    struct sampler_window *window = &sampler->window;
    uint64_t first = store_counts(sampler->store)->first;
    uint64_t committed = store_committed(sampler->store);

    drop_evicted(sampler);
    last = last < committed ? last : committed;
    last = last > first ? last : first;
    if (window->first < first || window->last > committed) { /* pages are gone: count anew */
        memset(window, 0, sizeof(*window));
        window->first = window->last = first;
    }
    for (; window->last < last; window->last++)
        count_in(sampler, window->last, true);
    while (window->last > last) {
        window->last--;
        if (window->first <= window->last)
            count_in(sampler, window->last, false);
        else
            window->first = window->last;
    }
    for (; window->rows > sampler->config.capacity; window->first++)
        count_in(sampler, window->first, false);
    while (window->first > first && window->rows + store_episode(sampler->store, window->first - 1)->rows <=
                                        sampler->config.capacity)
        count_in(sampler, --window->first, true);
    make_visible(sampler);
    return &sampler->visible;
}

/* --- drawing --------------------------------------------------------------- */

size_t sampler_bytes(const sampler_t *sampler, uint32_t count)
{
    return row_slices_bytes(&sampler->schema, sampler->config.horizon, count);
}

/* The parts of the block. */
struct block {
    char *obs; /* floats, or frames of which the first `history` precede a slice */
    size_t obs_bytes;
    uint32_t history;
    float *action, *reward, *terminated;
    uint32_t *task;
    size_t count;
};

static struct block block_of(const struct sampler *sampler, void *out, uint32_t count)
{
    const struct row_schema *schema = &sampler->schema;
    size_t h = sampler->config.horizon;
    struct block block = {
        .obs = out,
        .obs_bytes = schema->obs_dim * (schema->obs_type == OBS_STATE ? sizeof(float) : 1),
        .history = row_history(schema),
        .count = count,
    };

    block.action = (float *)(block.obs + row_slices_obs_bytes(schema, sampler->config.horizon, count));
    block.reward = block.action + h * count * schema->action_dim;
    block.terminated = block.reward + h * count;
    block.task = (uint32_t *)(block.terminated + h * count);
    return block;
}

/* The i-th observation of slice b. */
static void put_obs(const struct block *block, size_t i, size_t b, const char *row)
{
    memcpy(block->obs + (i * block->count + b) * block->obs_bytes, row + sizeof(struct row_head),
           block->obs_bytes);
}

/* What row t of slice b says beside its observation: the action and the reward that led to it. */
static void put_step(const struct sampler *sampler, const struct block *block, size_t t, size_t b,
                     const char *row)
{
    size_t a = sampler->schema.action_dim;
    struct row_head head;

    memcpy(&head, row, sizeof(head));
    if (t == 0) {
        block->task[b] = head.task;
        return;
    }
    t--;
    memcpy(block->action + (t * block->count + b) * a,
           row + sizeof(head) + row_obs_bytes(&sampler->schema), a * sizeof(float));
    block->reward[t * block->count + b] = head.reward;
    block->terminated[t * block->count + b] = head.flags & ROW_TERMINATED ? 1.0f : 0.0f;
}

/*
 * Slice b, beginning at row `start`, with the rows that its first observation is stacked from; the
 * episode's first stands in for those before it. TD_ECORRUPT: a segment is bad, and the episode has
 * been quarantined.
 */
static int put_slice(struct sampler *sampler, const struct block *block, size_t b, uint64_t id,
                     uint32_t start)
{
    size_t stride = row_stride(&sampler->schema);
    uint32_t rows = sampler->config.horizon + 1 + block->history;
    uint32_t missing = start < block->history ? block->history - start : 0;

    for (uint32_t done = missing; done < rows;) {
        uint32_t count = rows - done;
        const char *row = store_rows(sampler->store, id, start + done - block->history, &count);

        if (row == NULL)
            return TD_ECORRUPT;
        for (uint32_t i = 0; done == missing && i < missing; i++)
            put_obs(block, i, b, row);
        for (uint32_t i = 0; i < count; i++, done++, row += stride) {
            put_obs(block, done, b, row);
            if (done >= block->history)
                put_step(sampler, block, done - block->history, b, row);
        }
    }
    return TD_OK;
}

/* The episodes to draw from, and the stream that draws. */
struct draw {
    struct rng rng;
    size_t low, high;
};

static struct draw draw_begin(const struct sampler *sampler, uint64_t update)
{
    struct rng_key key = {
        .seed = sampler->config.seed,
        .purpose = RNG_SAMPLE,
        .slot = sampler->config.shard,
        .step = update,
    };
    struct draw draw = {.low = place_of(sampler, sampler->visible.first),
                        .high = place_of(sampler, sampler->visible.last)};

    rng_init(&draw.rng, &key);
    return draw;
}

/* The next slice's episode, uniformly, then its first row. */
static uint64_t draw_next(const struct sampler *sampler, struct draw *draw, uint32_t *start)
{
    uint32_t episodes = (uint32_t)(draw->high - draw->low);
    uint64_t id = sampler->base + sampler->fit[draw->low + rng_below(&draw->rng, episodes)];

    *start = rng_below(&draw->rng, store_episode(sampler->store, id)->rows - sampler->config.horizon);
    return id;
}

/* Let the disk begin with all slices' rows at once: frames are many pages each. */
static void prefetch(struct sampler *sampler, struct draw draw, const struct block *block)
{
    for (size_t b = 0; b < block->count; b++) {
        uint32_t start, before;
        uint64_t id = draw_next(sampler, &draw, &start);

        before = start < block->history ? start : block->history;
        store_prefetch(sampler->store, id, start - before, before + sampler->config.horizon + 1);
    }
}

/* All slices, or the id of the episode that is bad. */
static int draw_once(struct sampler *sampler, uint64_t update, const struct block *block, uint64_t *bad)
{
    struct draw draw = draw_begin(sampler, update);

    if (sampler->schema.obs_type == OBS_RGB)
        prefetch(sampler, draw, block);
    for (size_t b = 0; b < block->count; b++) {
        uint32_t start;
        uint64_t id = draw_next(sampler, &draw, &start);

        if (put_slice(sampler, block, b, id, start) != TD_OK) {
            *bad = id;
            return TD_ECORRUPT;
        }
    }
    return TD_OK;
}

int sampler_draw(sampler_t *sampler, uint64_t update, uint32_t count, void *out)
{
    struct block block = block_of(sampler, out, count);
    uint64_t bad;
    int rc;

    while (sampler->visible.episodes > 0) {
        rc = draw_once(sampler, update, &block, &bad);
        store_rows_end(sampler->store);
        if (rc == TD_OK)
            return TD_OK;
        list_remove(sampler, bad);
        make_visible(sampler);
    }
    return TD_EAGAIN;
}
