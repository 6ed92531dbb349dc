/*
 * The limiter never lets both sides wait, and the counts at the end are right: actors 0 to 64 that come
 * and go, episodes of 1 to 1,600 steps, any seed_steps, any order of events.
 */
#include "learner/limiter.h"

#include <math.h>

#include "tests/support/test.h"

#define ACTORS 64
#define SHARDS 3

/* A world of actors and shards around the limiter. */
struct world {
    struct limiter limiter;
    uint32_t actors; /* alive */
    uint32_t shards;
    int horizon, shortest, longest;
    uint64_t left[ACTORS];    /* steps left in the open episode */
    uint64_t length[ACTORS];
    uint64_t waiting[ACTORS]; /* length of the sealed episode not yet published */
    uint64_t steps[SHARDS], episodes, episode_steps;
    uint64_t at_burst;        /* steps when the burst began */
    bool late;                /* shards and actors hear of their credit late */
    uint64_t told[SHARDS];    /* what they heard last */
    bool resumed;             /* late and resumed: what comes is owed, whenever it was sent */
    uint32_t most;            /* the most streams that were ever live */
};

static uint64_t steps_of(const struct world *world)
{
    return world->steps[0] + world->steps[1] + world->steps[2];
}

static void observe(struct world *world)
{
    uint32_t before = world->limiter.phase;

    limiter_observe(&world->limiter, steps_of(world), world->episodes, world->episode_steps,
                    world->actors, false);
    if (before == PHASE_SEEDING && world->limiter.phase != PHASE_SEEDING)
        world->at_burst = steps_of(world);
}

static void begin_episode(struct world *world, uint32_t actor)
{
    uint32_t span = (uint32_t)(world->longest - world->shortest + 1);

    world->length[actor] = (uint64_t)world->shortest + rng_below(test_rng(), span);
    world->left[actor] = world->length[actor];
    if (world->waiting[actor] >= (uint64_t)world->horizon) {
        world->episodes++;
        world->episode_steps += world->waiting[actor];
    }
    world->waiting[actor] = 0;
}

/* The shards hear of their credit. */
static void tell(struct world *world)
{
    uint64_t credit[SHARDS], limit = limiter_limit(&world->limiter);
    uint32_t streams[SHARDS] = {0};

    for (uint32_t i = 0; i < world->actors; i++)
        streams[i % world->shards]++;
    limiter_deal(limit, steps_of(world), world->shards, world->steps, streams, credit);
    if (limit != LIMIT_NONE) {
        uint64_t sum = 0;

        for (uint32_t i = 0; i < world->shards; i++)
            sum += credit[i];
        assert_true(sum == (limit > steps_of(world) ? limit : steps_of(world)));
    }
    memcpy(world->told, credit, world->shards * sizeof(*credit));
}

/* One agent step of this actor, if its shard's share allows as it was last heard of. */
static bool try_step(struct world *world, uint32_t actor)
{
    uint32_t shard = actor % world->shards;

    if (!world->late || rng_below(test_rng(), 50) == 0)
        tell(world);
    if (world->steps[shard] >= world->told[shard])
        return false;
    world->steps[shard]++;
    if (--world->left[actor] == 0) {
        world->waiting[actor] = world->length[actor];
        begin_episode(world, actor);
    }
    observe(world);
    return true;
}

static bool try_update(struct world *world)
{
    if (!limiter_may_update(&world->limiter, 0))
        return false;
    limiter_updated(&world->limiter);
    observe(world);
    return true;
}

/* Someone can always go on, as long as an actor lives and the run is not over. */
static void check_progress(struct world *world)
{
    bool stepped = false;

    if (limiter_may_update(&world->limiter, 0) || limiter_complete(&world->limiter))
        return;
    tell(world); /* sooner or later */
    for (uint32_t i = 0; i < world->actors && !stepped; i++)
        stepped = try_step(world, i);
    if (!stepped && world->actors > 0)
        fail_msg("both wait: phase %u steps %llu updates %llu cursor %lld limit %llu",
                 world->limiter.phase, (unsigned long long)steps_of(world),
                 (unsigned long long)world->limiter.updates,
                 (long long)limiter_cursor(&world->limiter),
                 (unsigned long long)limiter_limit(&world->limiter));
}

/* Once there is a limit nobody owes more than it allows: nothing stands still to make up for more. */
static void check_owed(struct world *world)
{
    const struct limiter *limiter = &world->limiter;
    double slack;

    world->most = world->actors > world->most ? world->actors : world->most;
    slack = ceil(limiter->config.slack * (world->most > 0 ? world->most : 1));
    if (limiter->phase == PHASE_RUNNING && !limiter->dry && !world->resumed &&
        (double)limiter_cursor(limiter) > slack + limiter->config.utd)
        fail_msg("%lld updates are owed, slack %g", (long long)limiter_cursor(limiter), slack);
}

static void check_end(const struct world *world)
{
    const struct limiter *limiter = &world->limiter;
    uint64_t steps = steps_of(world), want = limiter->config.steps + 1;

    assert_true(steps >= want);
    if (limiter->config.seed_steps > limiter->config.steps) {
        assert_true(steps == want && limiter->updates == 0);
        return;
    }
    assert_true(limiter->updates ==
                (uint64_t)floor((double)(steps - 1 - limiter->excess) * limiter->config.utd));
    if (world->late)
        return; /* what was on the way when all was complete came too */
    if (world->at_burst <= want)
        assert_true(steps == want);
    else
        assert_true(steps == world->at_burst);
}

static void run_world(struct world *world)
{
    struct rng *rng = test_rng();
    uint32_t pace = rng_below(rng, 100); /* how eager actors are against the learner */

    for (uint32_t i = 0; i < ACTORS; i++)
        begin_episode(world, i);
    observe(world);
    while (!limiter_complete(&world->limiter)) {
        if (rng_below(rng, 200) == 0)
            world->actors = rng_below(rng, ACTORS + 1);
        if (rng_below(rng, 300) == 0) { /* the learner restarts from what it just saved */
            struct limiter was = world->limiter;

            world->resumed = world->late;
            limiter_resume(&world->limiter, &was.config, was.phase, was.updates, was.excess,
                           was.burst_target);
        }
        observe(world);
        if (rng_below(rng, 100) < pace && world->actors > 0)
            try_step(world, rng_below(rng, world->actors));
        else
            try_update(world);
        check_progress(world);
        check_owed(world);
    }
    check_end(world);
}

static void never_both_waiting_and_counts_right(void **state)
{
    struct rng *rng = test_rng();
    int rounds = test_long() ? 3000 : 200;

    (void)state;
    for (int round = 0; round < rounds; round++) {
        static struct world world;
        struct limiter_config config = {
            .steps = 1 + rng_below(rng, 6000),
            .seed_steps = rng_below(rng, 5) == 0 ? 0 : rng_below(rng, 4000),
            .utd = (const double[]){1, 1, 1, 0.25, 0.1, 2, 3.7, 0.013}[rng_below(rng, 8)],
            .slack = (const double[]){8, 1, 1.5, 100}[rng_below(rng, 4)],
        };

        memset(&world, 0, sizeof(world));
        world.actors = rng_below(rng, ACTORS + 1);
        world.shards = 1 + rng_below(rng, SHARDS);
        world.late = rng_below(rng, 2);
        world.horizon = 3;
        world.shortest = 1 + (int)rng_below(rng, 10);
        world.longest = world.shortest + (int)rng_below(rng, rng_below(rng, 2) ? 1590 : 20) + 3;
        config.episode = rng_below(rng, 2) ? (uint64_t)world.longest : 0;
        limiter_init(&world.limiter, &config);
        run_world(&world);
    }
}

static struct limiter limiter_of(uint64_t steps, uint64_t seed_steps, double utd, double slack)
{
    struct limiter_config config = {steps, seed_steps, utd, slack, 0};
    struct limiter limiter;

    limiter_init(&limiter, &config);
    return limiter;
}

static void the_reference_schedule_is_its_special_case(void **state)
{
    struct limiter limiter = limiter_of(100, 10, 1, 1);

    (void)state;
    limiter_observe(&limiter, 10, 1, 5, 1, false);
    assert_int_equal(limiter.phase, PHASE_SEEDING);
    assert_true(limiter_limit(&limiter) == LIMIT_NONE);
    limiter_observe(&limiter, 11, 2, 10, 1, false);
    assert_int_equal(limiter.phase, PHASE_BURST);
    assert_true(limiter.excess == 0 && limiter_limit(&limiter) == 11);
    assert_true(limiter_left(&limiter) == 100);
    for (int i = 0; i < 10; i++) {
        assert_true(limiter_may_update(&limiter, 0));
        limiter_updated(&limiter);
    }
    assert_int_equal(limiter.phase, PHASE_RUNNING);
    assert_false(limiter_may_update(&limiter, 0));
    assert_true(limiter_limit(&limiter) == 12); /* one step, one update */
    assert_true(limiter_left(&limiter) == 90);
    limiter_observe(&limiter, 12, 2, 10, 1, false);
    assert_true(limiter_may_update(&limiter, 0) && limiter_limit(&limiter) == 12);
    assert_false(limiter_may_update(&limiter, 1));
}

static void seeding_does_not_run_away(void **state)
{
    struct limiter_config config = {5400, 1000, 1, 8, 500};
    struct limiter limiter;

    (void)state;
    limiter_init(&limiter, &config);
    limiter_observe(&limiter, 0, 0, 0, 2, false);
    assert_true(limiter_limit(&limiter) == 2000);
    limiter_observe(&limiter, 1990, 1, 500, 2, false);
    assert_true(limiter_limit(&limiter) == 1000 + 1490); /* more than two episodes are open or lost */
    limiter_observe(&limiter, 2000, 2, 1000, 2, false);
    assert_int_equal(limiter.phase, PHASE_BURST);
    assert_true(limiter_limit(&limiter) == 2000 && limiter.excess == 999);
    config.seed_steps = 0; /* one samplable episode is wanted all the same */
    limiter_init(&limiter, &config);
    limiter_observe(&limiter, 700, 0, 0, 1, false);
    assert_true(limiter_limit(&limiter) == 701);
}

static void a_flood_of_first_episodes_is_not_owed(void **state)
{
    struct limiter limiter = limiter_of(500000, 2500, 1, 8);

    (void)state;
    limiter_observe(&limiter, 32000, 64, 32000, 64, false);
    assert_true(limiter.excess == 32000 - 2501);
    assert_true(limiter_left(&limiter) == 500000 - limiter.excess);
    for (int i = 0; i < 2500; i++)
        limiter_updated(&limiter);
    assert_true(limiter_cursor(&limiter) == 0);
    assert_true(limiter_limit(&limiter) == 32000 + 64 * 8);
}

/* Actors hear late that seeding is over: what they had under way comes in burst or after it. */
static void rows_on_the_way_when_the_burst_begins_are_not_owed(void **state)
{
    struct limiter limiter = limiter_of(500000, 1000, 1, 8);

    (void)state;
    limiter_observe(&limiter, 1500, 2, 1000, 2, false);
    limiter_observe(&limiter, 1900, 2, 1000, 2, false); /* still on the way */
    for (int i = 0; i < 1000; i++)
        limiter_updated(&limiter);
    limiter_observe(&limiter, 1900, 3, 1500, 2, false);
    assert_true(limiter_cursor(&limiter) == 0);
    assert_true(limiter_limit(&limiter) == 1900 + 16);
    limiter_observe(&limiter, 2200, 4, 2000, 2, false); /* from one that was cut off all the while */
    assert_true(limiter_cursor(&limiter) == 16 && limiter.excess == 2200 - 16 - 1001);
    limiter_updated(&limiter);
    assert_true(limiter_limit(&limiter) == 2201); /* one update, one step: nothing stands still */
    limiter_observe(&limiter, 2201, 4, 2000, 0, false); /* streams gone: what they brought is owed */
    assert_true(limiter_cursor(&limiter) == 16);
}

static void rows_on_the_way_after_a_dry_spell_are_not_owed(void **state)
{
    struct limiter limiter = limiter_of(500000, 10, 1, 8);

    (void)state;
    limiter_observe(&limiter, 11, 2, 10, 1, false);
    for (int i = 0; i < 10; i++)
        limiter_updated(&limiter);
    limiter_observe(&limiter, 15, 0, 0, 1, false);
    limiter_observe(&limiter, 400, 1, 200, 1, false);
    limiter_observe(&limiter, 700, 1, 200, 1, false);
    assert_true(limiter_cursor(&limiter) == 8);
}

static void nothing_samplable_lifts_the_limit_and_is_not_owed(void **state)
{
    struct limiter limiter = limiter_of(1000, 10, 1, 8);

    (void)state;
    limiter_observe(&limiter, 11, 2, 10, 1, false);
    for (int i = 0; i < 10; i++)
        limiter_updated(&limiter);
    limiter_observe(&limiter, 15, 0, 0, 1, false); /* the shard's directory was lost */
    assert_true(limiter_limit(&limiter) == LIMIT_NONE);
    assert_false(limiter_may_update(&limiter, 0));
    limiter_observe(&limiter, 400, 0, 0, 1, false);
    limiter_observe(&limiter, 415, 1, 200, 1, false);
    assert_true(limiter_cursor(&limiter) == 4 && limiter.excess == 400);
}

static void a_buffer_too_small_for_the_seed_steps_still_trains(void **state)
{
    struct limiter limiter = limiter_of(5000, 1000, 1, 8);

    (void)state;
    limiter_observe(&limiter, 1500, 20, 400, 1, false);
    assert_int_equal(limiter.phase, PHASE_SEEDING);
    limiter_observe(&limiter, 1501, 20, 400, 1, true);
    assert_int_equal(limiter.phase, PHASE_BURST);
    assert_true(limiter.burst_target == 1000);
}

static void an_older_checkpoint_owes_its_updates_again(void **state)
{
    struct limiter limiter;
    struct limiter_config config = {1000, 10, 1, 8, 0};

    (void)state;
    limiter_resume(&limiter, &config, PHASE_RUNNING, 50, 0, 10);
    limiter_observe(&limiter, 300, 5, 250, 2, false);
    assert_true(limiter_cursor(&limiter) == 249);
    assert_true(limiter_limit(&limiter) <= 300);
}

static void credit_goes_to_shards_with_live_streams(void **state)
{
    uint64_t steps[3] = {10, 20, 30}, credit[3];
    uint32_t streams[3] = {0, 2, 1};

    (void)state;
    limiter_deal(70, 60, 3, steps, streams, credit);
    assert_true(credit[0] == 10 && credit[1] + credit[2] == 60 && credit[1] >= 26);
    limiter_deal(61, 60, 3, steps, streams, credit);
    assert_true(credit[0] == 10 && credit[1] == 21 && credit[2] == 30);
    limiter_deal(50, 60, 3, steps, streams, credit);
    assert_true(credit[0] == 10 && credit[1] == 20 && credit[2] == 30);
    limiter_deal(LIMIT_NONE, 60, 3, steps, streams, credit);
    assert_true(credit[0] == LIMIT_NONE && credit[2] == LIMIT_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_both_waiting_and_counts_right),
        cmocka_unit_test(the_reference_schedule_is_its_special_case),
        cmocka_unit_test(seeding_does_not_run_away),
        cmocka_unit_test(a_flood_of_first_episodes_is_not_owed),
        cmocka_unit_test(rows_on_the_way_when_the_burst_begins_are_not_owed),
        cmocka_unit_test(rows_on_the_way_after_a_dry_spell_are_not_owed),
        cmocka_unit_test(nothing_samplable_lifts_the_limit_and_is_not_owed),
        cmocka_unit_test(a_buffer_too_small_for_the_seed_steps_still_trains),
        cmocka_unit_test(an_older_checkpoint_owes_its_updates_again),
        cmocka_unit_test(credit_goes_to_shards_with_live_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
