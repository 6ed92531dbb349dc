/*
 * Several tasks: every environment asks, episode by episode, which task comes next, and gets the one of which the
 * replay will hold the fewest rows once all that is under way is in.
 */
#include <string.h>

#include "common/util/rng.h"
#include "learner/coordinator_private.h"

/* Rows of one episode: a guess where the task has no limit. */
static uint64_t episode_rows(const struct coordinator *c, uint32_t task)
{
    uint64_t length = c->config.task_length[task] > 0 ? c->config.task_length[task] : c->spec.episode_length;

    return (length > 0 ? length : 1000) + 1;
}

uint64_t tasks_seed_steps(const struct coordinator *c, uint64_t least)
{
    uint64_t sum = 0;

    for (uint32_t task = 0; task < c->config.tasks && c->config.tasks > 1; task++)
        sum += episode_rows(c, task) - 1;
    return sum > least ? sum : least;
}

/* What the windows of all shards hold, away or not; tasks [c->spec.tasks]. */
static void count_stored(const struct coordinator *c, struct coordinator_task *tasks)
{
    memset(tasks, 0, c->spec.tasks * sizeof(*tasks));
    for (uint32_t i = 0; i < c->config.shards; i++) {
        const struct status *status = &c->seats[i].status;

        for (uint32_t task = 0; task < c->spec.tasks && task < status->task_count; task++) {
            tasks[task].rows += status->tasks[task].rows;
            tasks[task].episodes += status->tasks[task].episodes;
        }
    }
}

/* And what live environments play and will play next; that of `asking` is decided now. */
static void count_under_way(const struct coordinator *c, const struct assigned *asking, uint64_t *rows)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct member *member = &c->members[i];

        if (member->environments == 0 || !member_live(c, member))
            continue;
        for (uint32_t env = 0; env < member->environments; env++) {
            const struct assigned *assigned = &member->assigned[env];

            if (assigned->has_playing)
                rows[assigned->playing] += episode_rows(c, assigned->playing);
            if (assigned->has_next && assigned != asking)
                rows[assigned->next] += episode_rows(c, assigned->next);
        }
    }
}

/* The task with the fewest rows, the first of several. */
static uint32_t choose(const struct coordinator *c, const struct assigned *asking)
{
    struct coordinator_task stored[ROW_TASKS_MAX];
    uint64_t rows[ROW_TASKS_MAX];
    uint32_t best = 0;

    count_stored(c, stored);
    for (uint32_t task = 0; task < c->spec.tasks; task++)
        rows[task] = stored[task].rows;
    count_under_way(c, asking, rows);
    for (uint32_t task = 1; task < c->spec.tasks; task++)
        if (rows[task] < rows[best])
            best = task;
    return best;
}

void tasks_next(struct coordinator *c, const struct peer *peer, struct member *member, const struct next_task *next)
{
    struct assigned *assigned = &member->assigned[next->environment];
    struct assign *answer;

    if (c->spec.tasks < 2 || next->task >= c->spec.tasks || c->config.lockstep)
        return;
    if (assigned->has_next && next->number < assigned->number)
        return; /* an old question */
    if (!assigned->has_next || next->number != assigned->number) {
        assigned->has_playing = next->playing;
        assigned->playing = (uint16_t)next->task;
        assigned->next = (uint16_t)choose(c, assigned);
        assigned->has_next = true;
        assigned->number = next->number;
        if (member->environments <= next->environment)
            member->environments = next->environment + 1;
    }
    answer = &coordinator_send(c, peer, MESSAGE_ASSIGN)->assign;
    *answer = (struct assign){c->config.epoch, next->slot, next->environment, next->number, assigned->next};
}

/* --- balanced batches over several shards ------------------------------------ */

/*
 * B slices, each of a task drawn uniformly from those that some live shard has episodes of, then of a shard by
 * its episodes of that task. False: there are none.
 */
bool tasks_deal(const struct coordinator *c, uint64_t update, uint32_t *counts,
                struct task_share (*shares)[ROW_TASKS_MAX])
{
    struct rng_key key = {c->config.seed, RNG_DEAL, 0, 0, 0, update};
    uint32_t present[ROW_TASKS_MAX], tasks = 0;
    uint64_t totals[ROW_TASKS_MAX] = {0};
    struct rng rng;

    for (uint32_t task = 0; task < c->spec.tasks; task++) {
        for (uint32_t i = 0; i < c->config.shards; i++)
            if (seat_live(c, &c->seats[i]) && task < c->seats[i].status.task_count)
                totals[task] += c->seats[i].status.tasks[task].episodes;
        if (totals[task] > 0)
            present[tasks++] = task;
    }
    memset(counts, 0, c->config.shards * sizeof(*counts));
    memset(shares, 0, c->config.shards * sizeof(*shares));
    if (tasks == 0)
        return false;
    rng_init(&rng, &key);
    for (uint32_t slice = 0; slice < c->config.batch_size; slice++) {
        uint32_t task = present[rng_u64(&rng) % tasks], i = 0;
        uint64_t at = rng_u64(&rng) % totals[task];

        for (;; i++) {
            const struct seat *seat = &c->seats[i];
            uint64_t weight = seat_live(c, seat) && task < seat->status.task_count ? seat->status.tasks[task].episodes : 0;

            if (at < weight)
                break;
            at -= weight;
        }
        counts[i]++;
        shares[i][task].slices++;
    }
    return true;
}

/* --- what they were worth ------------------------------------------------------ */

void coordinator_scores(struct command_eval_row *row, const struct evaluated *evaluated)
{
    row->score_count = evaluated->score_count;
    memcpy(row->scores, evaluated->scores, row->score_count * sizeof(*row->scores));
}

/* --- for stats ---------------------------------------------------------------- */

int coordinator_tasks(const coordinator_t *c, uint64_t now_ms, struct coordinator_task *tasks, int max)
{
    struct coordinator_task all[ROW_TASKS_MAX];

    if (c->spec.tasks == 0)
        return 0;
    count_stored(c, all);
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct member *member = &c->members[i];

        if (member->used && member->seated && now_ms < member->heard_ms + coordinator_gone_ms(c))
            for (uint32_t env = 0; env < member->environments; env++)
                if (member->assigned[env].has_playing)
                    all[member->assigned[env].playing].playing++;
    }
    for (int i = 0; i < max && i < (int)c->spec.tasks; i++)
        tasks[i] = all[i];
    return (int)c->spec.tasks;
}
