#include "learner/limiter.h"

#include <math.h>
#include <string.h>

#include "common/util/error.h"

void limiter_init(struct limiter *limiter, const struct limiter_config *config)
{
    TD_ASSERT(config->utd > 0 && config->slack >= 1, "utd %g slack %g", config->utd, config->slack);
    *limiter = (struct limiter){.config = *config, .phase = PHASE_SEEDING};
}

void limiter_resume(struct limiter *limiter, const struct limiter_config *config, uint32_t phase,
                    uint64_t updates, uint64_t excess, uint64_t burst_target)
{
    limiter_init(limiter, config);
    if (phase == PHASE_BURST || phase == PHASE_RUNNING)
        limiter->phase = phase;
    limiter->updates = updates;
    limiter->excess = excess;
    limiter->burst_target = burst_target;
    limiter->granted = UINT64_MAX; /* what was granted before is not known: all that comes is owed */
}

static int64_t cursor_at(const struct limiter *limiter, uint64_t steps)
{
    double owed = 0;

    if (steps > 1 + limiter->excess)
        owed = floor((double)(steps - 1 - limiter->excess) * limiter->config.utd);
    return (int64_t)owed - (int64_t)limiter->updates;
}

int64_t limiter_cursor(const struct limiter *limiter)
{
    return cursor_at(limiter, limiter->steps);
}

/* A run that ends before its seeding does never trains. */
static bool never_trains(const struct limiter *limiter)
{
    return limiter->config.seed_steps > limiter->config.steps;
}

/* Enough is samplable: the updates of the seeding phase are owed. */
static void begin_burst(struct limiter *limiter)
{
    limiter->phase = PHASE_BURST;
    limiter->burst_target = (uint64_t)floor((double)limiter->config.seed_steps * limiter->config.utd);
}

uint64_t limiter_left(const struct limiter *limiter)
{
    uint64_t end = limiter->config.steps + 1;
    int64_t left;

    if (never_trains(limiter))
        return 0;
    left = cursor_at(limiter, limiter->steps > end ? limiter->steps : end);
    return left > 0 ? (uint64_t)left : 0;
}

static void end_burst_if_done(struct limiter *limiter)
{
    if (limiter->phase == PHASE_BURST && limiter->updates >= limiter->burst_target)
        limiter->phase = PHASE_RUNNING;
}

/*
 * Nothing is granted in the burst: what is in beyond the seeding was under way from it and is not owed.
 * After it (and after a spell with nothing samplable) steps beyond every limit granted since were.
 */
static void count_excess(struct limiter *limiter)
{
    uint64_t due = limiter->config.seed_steps + 1, steps = limiter->steps;

    if (limiter->phase == PHASE_BURST) {
        limiter->excess = steps > due ? steps - due : 0;
        limiter->granted = steps;
    } else if (limiter->phase == PHASE_RUNNING && steps > limiter->granted) {
        limiter->excess += steps - limiter->granted;
        limiter->granted = steps;
    }
}

void limiter_observe(struct limiter *limiter, uint64_t steps, uint64_t episodes,
                     uint64_t episode_steps, uint32_t streams, bool saturated)
{
    uint64_t limit = limiter_limit(limiter); /* as it was granted since the last time */
    bool enough = episode_steps >= limiter->config.seed_steps ||
                  (saturated && steps > limiter->config.seed_steps);

    limiter->steps = steps;
    limiter->episodes = episodes;
    limiter->episode_steps = episode_steps;
    limiter->streams = streams;
    if (limit > limiter->granted)
        limiter->granted = limit;
    if (limiter->phase == PHASE_SEEDING) {
        if (!never_trains(limiter) && episodes > 0 && enough)
            begin_burst(limiter);
    } else if (episodes == 0 && !limiter->dry) {
        limiter->dry = true;
        limiter->dry_from = steps;
    } else if (episodes > 0 && limiter->dry) {
        limiter->dry = false;
        limiter->excess += steps > limiter->dry_from ? steps - limiter->dry_from : 0;
        limiter->granted = steps;
        limiter->frozen = 0;
    }
    count_excess(limiter);
    if (limiter->phase == PHASE_BURST && limiter->frozen == 0)
        limiter->frozen = steps;
    end_burst_if_done(limiter);
}

bool limiter_may_update(const struct limiter *limiter, uint64_t ahead)
{
    if (limiter->episodes == 0)
        return false;
    if (limiter->phase == PHASE_BURST)
        return limiter->updates + ahead < limiter->burst_target;
    return limiter->phase == PHASE_RUNNING && limiter_cursor(limiter) >= 1 + (int64_t)ahead;
}

void limiter_updated(struct limiter *limiter)
{
    limiter->updates++;
    end_burst_if_done(limiter);
}

/* One more than the most steps whose cursor is still below the slack. */
static uint64_t running_limit(const struct limiter *limiter)
{
    double streams = limiter->streams > 0 ? limiter->streams : 1;
    int64_t slack = (int64_t)ceil(limiter->config.slack * streams);
    double guess = ((double)limiter->updates + (double)slack) / limiter->config.utd;
    uint64_t most = 1 + limiter->excess + (uint64_t)guess;

    while (cursor_at(limiter, most) < slack)
        most++;
    while (most > 0 && cursor_at(limiter, most) >= slack)
        most--;
    return most + 1;
}

/*
 * While fewer than seed_steps steps are samplable: when this many are in, all but one open episode of
 * each live stream are. What else is not samplable (episodes of streams that went away, too short
 * ones) comes on top, so the limit always lies beyond the steps.
 */
static uint64_t seeding_limit(const struct limiter *limiter)
{
    uint64_t seed = limiter->config.seed_steps > 0 ? limiter->config.seed_steps : 1;
    uint64_t open = limiter->streams * limiter->config.episode;
    uint64_t unsamplable = limiter->steps > limiter->episode_steps ? limiter->steps - limiter->episode_steps : 0;

    if (limiter->config.episode == 0)
        return LIMIT_NONE;
    return seed + (open > unsamplable ? open : unsamplable);
}

uint64_t limiter_limit(const struct limiter *limiter)
{
    uint64_t end = limiter->config.steps + 1, limit;

    if (limiter->phase == PHASE_SEEDING)
        return never_trains(limiter) ? end : seeding_limit(limiter);
    if (limiter->dry)
        return LIMIT_NONE;
    limit = limiter->phase == PHASE_BURST ? limiter->frozen : running_limit(limiter);
    return limit < end ? limit : end;
}

bool limiter_complete(const struct limiter *limiter)
{
    if (limiter->steps < limiter->config.steps + 1)
        return false;
    if (limiter->phase == PHASE_SEEDING)
        return never_trains(limiter);
    return limiter->phase == PHASE_RUNNING && limiter_cursor(limiter) < 1;
}

void limiter_deal(uint64_t limit, uint64_t total, uint32_t shards, const uint64_t *steps,
                  const uint32_t *streams, uint64_t *credit)
{
    uint64_t left = limit > total ? limit - total : 0, weights = 0, dealt = 0;

    for (uint32_t i = 0; i < shards; i++)
        weights += streams[i];
    for (uint32_t i = 0; i < shards; i++) {
        uint64_t weight = weights > 0 ? streams[i] : 1, all = weights > 0 ? weights : shards;
        uint64_t share = left / all * weight + left % all * weight / all;

        credit[i] = limit == LIMIT_NONE ? LIMIT_NONE : steps[i] + share;
        dealt += share;
    }
    for (uint32_t i = 0; limit != LIMIT_NONE && i < shards && dealt < left; i++)
        if (weights == 0 || streams[i] > 0) {
            credit[i]++;
            dealt++;
        }
}
