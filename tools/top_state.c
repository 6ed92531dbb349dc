/* top_state.c - what `tdmpc2 top` keeps of a run between two answers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/top.h"

void top_init(struct top *top, const char *name)
{
    memset(top, 0, sizeof(*top));
    snprintf(top->name, sizeof(top->name), "%s", name);
    stats_printable(top->name);
    for (double *value = &top->run.agent_steps; value <= &top->run.replay_episodes; value++)
        *value = NAN;
}

/* --- histories ---------------------------------------------------------------- */

/* Two neighbours become one. */
static void thin(struct top_history *history)
{
    history->count /= 2;
    for (int i = 0; i < history->count; i++)
        history->values[i] = history->values[2 * i] / 2 + history->values[2 * i + 1] / 2;
    history->each *= 2;
}

void top_history_add(struct top_history *history, double value)
{
    if (!isfinite(value))
        return;
    if (history->each == 0)
        history->each = 1;
    history->newest = value;
    history->sum += value / history->each;
    if (++history->pending < history->each)
        return;
    if (history->count == TOP_HISTORY_MAX)
        thin(history);
    history->values[history->count++] = history->sum;
    history->sum = 0;
    history->pending = 0;
}

/* --- answers ------------------------------------------------------------------ */

static double member(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsNumber(item) && isfinite(item->valuedouble) ? item->valuedouble : NAN;
}

static void text_of(const cJSON *object, const char *name, char *out, size_t size)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));

    snprintf(out, size, "%s", text != NULL ? text : "");
    stats_printable(out);
}

/* The metrics that say how fast a part works, and how long a piece of its work takes. */
static const struct {
    const char *role, *rate, *work;
} works[] = {
    {"learner", "updates_per_s", "update_ms"},
    {"replay", "rows_stored_per_s", "commit_ms"},
    {"actor", "env_steps_per_s", "plan_ms"},
    {"evaluator", "env_steps_per_s", "plan_ms"},
};

static void take_values(struct top_part *part, const cJSON *values)
{
    char waiting[sizeof(part->waiting)];
    const char *words = waiting;

    part->rate = part->work_ms = part->work_p99_ms = NAN;
    for (size_t i = 0; i < TD_LEN(works); i++) {
        const cJSON *work = cJSON_GetObjectItemCaseSensitive(values, works[i].work);

        if (strcmp(part->role, works[i].role) != 0)
            continue;
        part->rate = member(values, works[i].rate);
        part->work_ms = member(work, "p50");
        part->work_p99_ms = member(work, "p99");
    }
    part->lag = member(values, "parameter_lag");
    part->memory = member(values, "resident_bytes");
    text_of(values, "phase", part->phase, sizeof(part->phase));
    text_of(values, "damage", part->damage, sizeof(part->damage));
    text_of(values, "waiting", waiting, sizeof(waiting));
    if (strncmp(words, "waiting for ", 12) == 0) /* the column says so */
        words += 12;
    snprintf(part->waiting, sizeof(part->waiting), "%s", words);
}

/* Milliseconds in a second are a share in thousandths. */
static double share(const cJSON *values, const char *name)
{
    return fmin(fmax(member(values, name) / 1000, 0), 1);
}

static void take_run(struct top *top, const cJSON *json, const cJSON *values)
{
    struct top_run *run = &top->run;
    double before = run->episode_return, eval_before = run->eval_return;

    run->uptime_s = member(json, "uptime_s");
    run->agent_steps = member(values, "agent_steps");
    run->target_steps = member(values, "target_steps");
    run->progress = member(values, "progress");
    run->time_left_s = member(values, "time_left");
    run->updates_per_s = member(values, "updates_per_s");
    run->env_steps_per_s = member(values, "env_steps_per_s");
    run->ratio = member(values, "ratio");
    run->target_ratio = member(values, "target_ratio");
    run->episode_return = member(values, "episode_return");
    run->eval_return = member(values, "eval_return");
    run->actors = member(values, "actors_live");
    run->wait_steps = share(values, "wait_steps_ms_per_s");
    run->wait_samples = share(values, "wait_samples_ms_per_s");
    run->wait_checkpoint = share(values, "wait_checkpoint_ms_per_s");
    run->replay_rows = member(values, "replay_rows");
    run->replay_episodes = member(values, "replay_episodes");
    text_of(values, "bottleneck", run->bottleneck, sizeof(run->bottleneck));
    if (!top->curves && run->episode_return != before)
        top_history_add(&top->returns, run->episode_return);
    if (!top->curves && run->eval_return != eval_before)
        top_history_add(&top->evals, run->eval_return);
}

/* --- parts ------------------------------------------------------------------- */

static void name_part(struct top_part *part, int id)
{
    char role[sizeof(part->role)];

    stats_printable(part->role);
    memcpy(role, part->role, sizeof(role));
    if (strcmp(role, "learner") == 0 || id < 0)
        snprintf(part->title, sizeof(part->title), "%s", role);
    else
        snprintf(part->title, sizeof(part->title), "%s-%d", role, id);
}

static struct top_part *find_part(struct top *top, const struct rundir_part *where)
{
    struct top_part *part;

    for (int i = 0; i < top->count; i++)
        if (strcmp(top->parts[i].where, where->role) == 0 && top->parts[i].number == where->id)
            return &top->parts[i];
    if (top->count == STATS_PARTS_MAX)
        return NULL;
    part = &top->parts[top->count++];
    *part = (struct top_part){.number = where->id, .health = TOP_SILENT, .rate = NAN, .lag = NAN, .work_ms = NAN,
                              .work_p99_ms = NAN, .memory = NAN};
    memcpy(part->where, where->role, sizeof(part->where));
    memcpy(part->role, where->role, sizeof(part->role));
    name_part(part, where->id);
    return part;
}

static void become(struct top_part *part, enum top_health health, uint64_t now_ms)
{
    if (part->health != health || part->since_ms == 0)
        part->since_ms = now_ms;
    part->health = health;
}

static void take_part(struct top *top, const struct stats_part *from, uint64_t now_ms)
{
    struct top_part *part = find_part(top, &from->where);
    const cJSON *values = cJSON_GetObjectItemCaseSensitive(from->json, "metrics");
    double id = member(from->json, "id");

    if (part == NULL)
        return;
    become(part, from->json != NULL ? TOP_ANSWERS : TOP_SILENT, now_ms);
    if (from->where.pid > 0)
        part->pid = from->where.pid;
    if (from->json == NULL)
        return;
    part->heard = true;
    text_of(from->json, "role", part->role, sizeof(part->role));
    name_part(part, isfinite(id) && fabs(id) < 1e6 ? (int)id : part->number);
    take_values(part, values);
    if (strcmp(part->role, "learner") == 0)
        take_run(top, from->json, values);
}

static bool is_among(const struct top_part *part, const struct stats_run *run)
{
    for (int i = 0; i < run->count; i++)
        if (strcmp(part->where, run->parts[i].where.role) == 0 && part->number == run->parts[i].where.id)
            return true;
    return false;
}

/* Those that have no address any more; after a while they go. */
static void take_leave(struct top *top, const struct stats_run *run, uint64_t now_ms)
{
    int kept = 0;

    for (int i = 0; i < top->count; i++) {
        struct top_part *part = &top->parts[i];

        if (!is_among(part, run)) {
            become(part, TOP_LEFT, now_ms);
            if (strcmp(part->role, "learner") != 0 && now_ms >= part->since_ms + TOP_GONE_MS)
                continue;
        }
        if (kept != i)
            top->parts[kept] = *part;
        kept++;
    }
    top->count = kept;
}

static int rank(const char *role)
{
    static const char *const order[] = {"learner", "replay", "evaluator", "actor"};
    int i = 0;

    while (i < (int)TD_LEN(order) && strcmp(role, order[i]) != 0)
        i++;
    return i;
}

static int by_role_and_number(const void *a, const void *b)
{
    const struct top_part *one = a, *two = b;
    int difference = rank(one->role) - rank(two->role);

    return difference != 0 ? difference : one->number - two->number;
}

void top_take(struct top *top, const struct stats_run *run, uint64_t now_ms)
{
    take_leave(top, run, now_ms);
    for (int i = 0; i < run->count; i++)
        take_part(top, &run->parts[i], now_ms);
    qsort(top->parts, (size_t)top->count, sizeof(top->parts[0]), by_role_and_number);
}

const struct top_part *top_learner(const struct top *top)
{
    for (int i = 0; i < top->count; i++)
        if (strcmp(top->parts[i].role, "learner") == 0)
            return &top->parts[i];
    return NULL;
}
