/*
 * limiter.h - how many agent steps may be inserted and whether an update may run, in asynchronous runs.
 *
 * cursor = floor((steps - 1 - excess) * utd) - updates is what the learner owes. An update needs
 * cursor >= 1; inserting needs cursor < slack for every live stream. Both can never wait at once,
 * because slack >= 1. Around this: seeding and its burst of updates, spells with nothing samplable,
 * and the end. Seeding is limited to seed_steps and one open episode for each live stream: random
 * actions are cheap, and without a limit thousands were taken before the first count arrived. What is
 * under way when a limit comes back (rows that actors sent before they heard of it) is excess too,
 * however late it arrives: else inserting would stand still while updates are made up for it. Pure
 * arithmetic: what was inserted is told to it, nothing is kept but plain data.
 */
#ifndef TD_LEARNER_LIMITER_H
#define TD_LEARNER_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/message.h"

struct limiter_config {
    uint64_t steps;      /* the last step; steps + 1 are inserted, as in the reference */
    uint64_t seed_steps; /* > steps: nothing is ever trained */
    double utd;          /* updates per agent step, > 0 */
    double slack;        /* steps a live stream may run ahead, >= 1 */
    uint64_t episode;    /* longest episode in agent steps; 0: not known, seeding is not limited */
};

struct limiter {
    struct limiter_config config;
    uint32_t phase;        /* PHASE_SEEDING, PHASE_BURST, PHASE_RUNNING */
    uint64_t updates;      /* done */
    uint64_t excess;       /* steps no update is owed for */
    uint64_t burst_target; /* updates that end the burst */
    /* as last observed */
    uint64_t steps;
    uint64_t episodes, episode_steps; /* samplable */
    uint32_t streams;
    uint64_t frozen;   /* the limit while the burst lasts */
    uint64_t granted;  /* the highest limit since seeding or a dry spell; steps beyond are excess */
    bool dry;          /* seeding is over but nothing is samplable */
    uint64_t dry_from; /* steps when that began */
};

/* A new run. Asserts utd > 0 and slack >= 1. */
void limiter_init(struct limiter *limiter, const struct limiter_config *config);

/* Go on from a checkpoint; call limiter_observe before asking anything. */
void limiter_resume(struct limiter *limiter, const struct limiter_config *config, uint32_t phase,
                    uint64_t updates, uint64_t excess, uint64_t burst_target);

/*
 * What all shards hold now: agent steps ever inserted, samplable episodes and theirs, live streams.
 * saturated: the shards that are fed let go of old episodes already, so more will not become samplable;
 * seeding then ends although fewer than seed_steps are.
 */
void limiter_observe(struct limiter *limiter, uint64_t steps, uint64_t episodes,
                     uint64_t episode_steps, uint32_t streams, bool saturated);

/* Updates owed; negative: ahead. Meaningless while seeding. */
int64_t limiter_cursor(const struct limiter *limiter);

/* Updates still to be done in the whole run, as far as is known. */
uint64_t limiter_left(const struct limiter *limiter);

/* May update number updates + ahead start? */
bool limiter_may_update(const struct limiter *limiter, uint64_t ahead);

/* One more update is done. */
void limiter_updated(struct limiter *limiter);

/* Agent steps that may be held in all; LIMIT_NONE. */
uint64_t limiter_limit(const struct limiter *limiter);

/* All steps are in and no update is due. */
bool limiter_complete(const struct limiter *limiter);

/*
 * Deal what `limit` leaves over `shards` shards in proportion to their live streams.
 *
 *   total    agent steps ever inserted, those of lost shards included
 *   steps    [shards]  in   held by each
 *   streams  [shards]  in   live ones
 *   credit   [shards]  out  steps each may hold in all
 */
void limiter_deal(uint64_t limit, uint64_t total, uint32_t shards, const uint64_t *steps,
                  const uint32_t *streams, uint64_t *credit);

#endif
