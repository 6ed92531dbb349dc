#include "learner/replay/sampler.h"

#include <stdlib.h>
#include <string.h>

#include "common/util/error.h"

/* The episodes of one task that may be drawn. */
struct list {
    uint32_t *fit; /* ids less base, ascending */
    size_t begin, end, capacity;
    size_t low, high; /* of the draw under way: those in the window */
    uint64_t rows;    /* in the window, of episodes that are too short as well */
};

struct sampler {
    store_t *store;
    struct sampler_config config;
    struct row_schema schema;
    struct sampler_window window;  /* by rows alone */
    struct sampler_window visible; /* stretched to hold an episode that may be drawn */

    struct list *lists; /* [tasks] */
    uint32_t tasks;
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
    sampler->tasks = config->tasks > 1 ? config->tasks : 1;
    sampler->lists = calloc(sampler->tasks, sizeof(*sampler->lists));
    if (sampler->lists == NULL) {
        free(sampler);
        *out = NULL;
        return TD_ENOMEM;
    }
    sampler->schema = store_identity(store)->schema;
    (void)store_news(store);
    sampler->known = STORE_NONE; /* read all */
    return sampler_update(sampler);
}

void sampler_destroy(sampler_t **sampler)
{
    if (*sampler == NULL)
        return;
    for (uint32_t task = 0; task < (*sampler)->tasks; task++)
        free((*sampler)->lists[task].fit);
    free((*sampler)->lists);
    free(*sampler);
    *sampler = NULL;
}

/* --- the list of episodes that may be drawn -------------------------------- */

static bool may_draw(const struct sampler *sampler, uint64_t id)
{
    const struct store_episode *episode = store_episode(sampler->store, id);

    if (episode->rows < sampler->config.horizon + 1)
        return false;
    if ((episode->flags & (EPISODE_DAMAGED | STORE_QUARANTINED)) || episode_task(episode->flags) >= sampler->tasks)
        return false;
    return sampler->config.lockstep || (episode->flags & STORE_PUBLISHED);
}

/* That of this episode; the first for a task that this run does not have. */
static struct list *list_of(const struct sampler *sampler, uint64_t id)
{
    uint32_t task = episode_task(store_episode(sampler->store, id)->flags);

    return &sampler->lists[task < sampler->tasks ? task : 0];
}

/* The place of the first listed id that is not below `id`. */
static size_t place_of(const struct sampler *sampler, const struct list *list, uint64_t id)
{
    size_t low = list->begin, high = list->end;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (sampler->base + list->fit[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool listed(const struct sampler *sampler, uint64_t id)
{
    const struct list *list = list_of(sampler, id);
    size_t place = place_of(sampler, list, id);

    return place < list->end && sampler->base + list->fit[place] == id;
}

/* Room for one more at the end; what was dropped in front is reused first. */
static int list_room(struct list *list)
{
    size_t count = list->end - list->begin, capacity;
    uint32_t *grown;

    if (list->end < list->capacity)
        return TD_OK;
    if (list->begin > count) {
        memmove(list->fit, list->fit + list->begin, count * sizeof(*list->fit));
        list->begin = 0;
        list->end = count;
        return TD_OK;
    }
    capacity = list->capacity == 0 ? 256 : list->capacity * 2;
    if ((grown = realloc(list->fit, capacity * sizeof(*grown))) == NULL)
        return TD_ENOMEM;
    list->fit = grown;
    list->capacity = capacity;
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
    struct list *list = list_of(sampler, id);
    size_t place;

    if (list_room(list) != TD_OK)
        return TD_ENOMEM;
    place = place_of(sampler, list, id);
    memmove(list->fit + place + 1, list->fit + place, (list->end - place) * sizeof(*list->fit));
    list->fit[place] = (uint32_t)(id - sampler->base);
    list->end++;
    if (in_window(sampler, id)) {
        sampler->window.episodes++;
        sampler->window.steps += steps_of(sampler, id);
    }
    return TD_OK;
}

static void list_remove(struct sampler *sampler, uint64_t id)
{
    struct list *list = list_of(sampler, id);
    size_t place = place_of(sampler, list, id);

    if (in_window(sampler, id)) {
        sampler->window.episodes--;
        sampler->window.steps -= steps_of(sampler, id);
    }
    memmove(list->fit + place, list->fit + place + 1, (list->end - place - 1) * sizeof(*list->fit));
    list->end--;
}

/* Nothing is in the window, which is at the oldest episode. */
static void empty_window(struct sampler *sampler)
{
    uint64_t first = store_counts(sampler->store)->first;

    memset(&sampler->window, 0, sizeof(sampler->window));
    sampler->window.first = sampler->window.last = first;
    for (uint32_t task = 0; task < sampler->tasks; task++)
        sampler->lists[task].rows = 0;
}

/* Read the whole table anew; the window is empty at the oldest episode until it is moved. */
static int rebuild(struct sampler *sampler)
{
    uint64_t first = store_counts(sampler->store)->first;
    uint64_t committed = store_committed(sampler->store);

    for (uint32_t task = 0; task < sampler->tasks; task++)
        sampler->lists[task].begin = sampler->lists[task].end = 0;
    sampler->base = first;
    empty_window(sampler);
    for (uint64_t id = first; id < committed; id++)
        if (may_draw(sampler, id)) {
            struct list *list = list_of(sampler, id);

            if (list_room(list) != TD_OK)
                return TD_ENOMEM;
            list->fit[list->end++] = (uint32_t)(id - first);
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

    for (uint32_t task = 0; task < sampler->tasks; task++) {
        struct list *list = &sampler->lists[task];

        while (list->begin < list->end && sampler->base + list->fit[list->begin] < first)
            list->begin++;
    }
}

/* --- the window ------------------------------------------------------------ */

/* Let an episode in or out of the window's sums. */
static void count_in(struct sampler *sampler, uint64_t id, bool in)
{
    struct sampler_window *window = &sampler->window;
    uint64_t sign = in ? 1 : UINT64_MAX; /* plus or minus one, modulo 2^64 */

    window->rows += sign * store_episode(sampler->store, id)->rows;
    list_of(sampler, id)->rows += sign * store_episode(sampler->store, id)->rows;
    if (listed(sampler, id)) {
        window->episodes += sign;
        window->steps += sign * steps_of(sampler, id);
    }
}

/* Stretch the window to the newest episode that may be drawn, if it holds none. */
static void make_visible(struct sampler *sampler)
{
    struct sampler_window *visible = &sampler->visible;
    uint64_t newest = STORE_NONE;

    *visible = sampler->window;
    if (visible->episodes != 0)
        return;
    for (uint32_t task = 0; task < sampler->tasks; task++) {
        const struct list *list = &sampler->lists[task];
        size_t place = place_of(sampler, list, visible->last);

        if (place > list->begin && (newest == STORE_NONE || sampler->base + list->fit[place - 1] > newest))
            newest = sampler->base + list->fit[place - 1];
    }
    if (newest == STORE_NONE)
        return;
    visible->first = newest;
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
    if (window->first < first || window->last > committed) /* pages are gone: count anew */
        empty_window(sampler);
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

void sampler_tasks(const sampler_t *sampler, struct sampler_task *tasks)
{
    const struct sampler_window *visible = &sampler->visible;

    for (uint32_t task = 0; task < sampler->tasks; task++) {
        const struct list *list = &sampler->lists[task];

        tasks[task].rows = list->rows;
        tasks[task].episodes = place_of(sampler, list, visible->last) - place_of(sampler, list, visible->first);
    }
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

/* How tasks are drawn, and the stream that draws. */
struct draw {
    struct rng rng;
    uint32_t episodes, tasks; /* that may be drawn, and tasks that have some */
    const uint32_t *shares;   /* slices of each task left to draw, or NULL */
    uint32_t task, left;      /* of the shares: the task at hand and how many are left of it */
};

static uint32_t length_of(const struct list *list)
{
    return (uint32_t)(list->high - list->low);
}

static struct draw draw_begin(struct sampler *sampler, uint64_t update, const uint32_t *shares)
{
    struct rng_key key = {
        .seed = sampler->config.seed,
        .purpose = RNG_SAMPLE,
        .slot = sampler->config.shard,
        .step = update,
    };
    struct draw draw = {.shares = shares, .left = shares != NULL ? shares[0] : 0};

    for (uint32_t task = 0; task < sampler->tasks; task++) {
        struct list *list = &sampler->lists[task];

        list->low = place_of(sampler, list, sampler->visible.first);
        list->high = place_of(sampler, list, sampler->visible.last);
        draw.episodes += length_of(list);
        draw.tasks += length_of(list) > 0;
    }
    rng_init(&draw.rng, &key);
    return draw;
}

/* Uniformly over episodes: of all lists, one behind the other. */
static const struct list *draw_episode(const struct sampler *sampler, struct draw *draw, uint32_t *at)
{
    const struct list *list = sampler->lists;

    *at = rng_below(&draw->rng, draw->episodes);
    for (; *at >= length_of(list); list++)
        *at -= length_of(list);
    return list;
}

/* Uniformly over the tasks that have some, then over these. */
static const struct list *draw_task(const struct sampler *sampler, struct draw *draw, uint32_t *at)
{
    const struct list *list = sampler->lists;
    uint32_t skip = rng_below(&draw->rng, draw->tasks);

    while (length_of(list) == 0 || skip-- > 0)
        list++;
    *at = rng_below(&draw->rng, length_of(list));
    return list;
}

/* The task whose share is not drawn yet; one whose episodes have gone meanwhile gives way to any. */
static const struct list *draw_share(const struct sampler *sampler, struct draw *draw, uint32_t *at)
{
    const struct list *list;

    while (draw->left == 0 && draw->task + 1 < sampler->tasks)
        draw->left = draw->shares[++draw->task];
    draw->left -= draw->left > 0;
    list = &sampler->lists[draw->task];
    if (length_of(list) == 0)
        return draw_task(sampler, draw, at);
    *at = rng_below(&draw->rng, length_of(list));
    return list;
}

/* The next slice's episode, then its first row. */
static uint64_t draw_next(const struct sampler *sampler, struct draw *draw, uint32_t *start)
{
    const struct list *list;
    uint32_t at;
    uint64_t id;

    if (draw->shares != NULL)
        list = draw_share(sampler, draw, &at);
    else if (sampler->config.balanced)
        list = draw_task(sampler, draw, &at);
    else
        list = draw_episode(sampler, draw, &at);
    id = sampler->base + list->fit[list->low + at];
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
static int draw_once(struct sampler *sampler, uint64_t update, const uint32_t *shares, const struct block *block,
                     uint64_t *bad)
{
    struct draw draw = draw_begin(sampler, update, shares);

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

int sampler_draw_shares(sampler_t *sampler, uint64_t update, const uint32_t *shares, uint32_t count, void *out)
{
    struct block block = block_of(sampler, out, count);
    uint64_t bad;
    int rc;

    while (sampler->visible.episodes > 0) {
        rc = draw_once(sampler, update, shares, &block, &bad);
        store_rows_end(sampler->store);
        if (rc == TD_OK)
            return TD_OK;
        list_remove(sampler, bad);
        make_visible(sampler);
    }
    return TD_EAGAIN;
}

int sampler_draw(sampler_t *sampler, uint64_t update, uint32_t count, void *out)
{
    return sampler_draw_shares(sampler, update, NULL, count, out);
}
