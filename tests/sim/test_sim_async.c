/*
 * Asynchronous runs in the simulated cluster: whatever happens, the run goes on to its end, what was
 * acknowledged is in the stores once and unaltered, and the counts are right.
 */
#include "learner/limiter.h"
#include "tests/support/cluster.h"
#include "tests/support/test.h"

#define HOUR_MS (3600ull * 1000)

/* Run to the end; it ended well and the stores agree with what was acknowledged. */
static void run_to_end(struct cluster *cluster, const char *what)
{
    if (!cluster_run(cluster, 20 * HOUR_MS))
        cluster_fail_stuck(cluster, what);
    if (cluster_learner(cluster)->exit_code != TD_EXIT_OK)
        fail_msg("%s: the learner left with %d: %s", what, cluster_learner(cluster)->exit_code,
                 cluster_learner(cluster)->exit_text);
    assert_true(audit_check(cluster) > 0);
}

/* An episode's line says at least the steps of all episodes that had ended, and no future ones. */
static void check_train_rows(const struct cluster *cluster)
{
    uint64_t ended = 0;

    assert_true(cluster->train_count > 5);
    for (int i = 0; i < cluster->train_count; i++) {
        uint64_t open = (uint64_t)cluster->options.actors * (7 + (uint64_t)cluster->options.slack);

        ended += cluster->train[i].length;
        if (cluster->train[i].step < ended || cluster->train[i].step > ended + 2 * open)
            fail_msg("line %d: step %llu, yet %llu steps were in ended episodes", i,
                     (unsigned long long)cluster->train[i].step, (unsigned long long)ended);
    }
}

static void a_quiet_run(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;
    struct progress progress;

    (void)state;
    cluster_defaults(&options);
    options.evaluator = true;
    cluster = cluster_create(&options);
    run_to_end(cluster, "quiet");
    cluster_check_counts(cluster);
    progress = cluster_progress(cluster);
    assert_true(cluster_steps(&progress) == options.steps + 1);
    check_train_rows(cluster);
    cluster_destroy(&cluster);
}

static void the_final_evaluation_is_that_of_the_last_step(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;

    (void)state;
    cluster_defaults(&options);
    options.evaluator = true;
    options.steps = 4 * options.eval_freq;
    cluster = cluster_create(&options);
    run_to_end(cluster, "last evaluation");
    cluster_check_counts(cluster);
    assert_true(cluster->eval[cluster->eval_count - 1].step == options.steps);
    for (int i = 1; i < cluster->eval_count; i++)
        assert_true(cluster->eval[i].step > cluster->eval[i - 1].step);
    assert_true(cluster_view(cluster).left == 0);
    cluster_destroy(&cluster);
}

/* --- random troubles --------------------------------------------------------- */

struct torture {
    uint64_t next; /* after this message */
    uint32_t mean; /* messages between troubles */
    int left;      /* troubles to come */
};

static void trouble(struct cluster *cluster, struct torture *torture)
{
    struct cluster_node *node =
        &cluster->nodes[cluster_random(cluster, (uint64_t)cluster->node_count)];
    uint64_t down = cluster_random(cluster, 5) == 0 ? 11000 : cluster_random(cluster, 400);

    switch (cluster_random(cluster, 10)) {
    case 0: case 1: case 2: case 3:
        cluster_kill(cluster, node, down);
        break;
    case 4:
        cluster_terminate(cluster, node, down);
        break;
    case 5: case 6:
        cluster_cut(cluster, node);
        break;
    case 7:
        cluster->lose_hellos = (int)cluster_random(cluster, 6);
        break;
    case 8:
        if (node->alive && node->kind != NODE_LEARNER)
            node->stopped_until = cluster->now + cluster_random(cluster, 15000);
        break;
    default:
        for (int i = 0; i < cluster->node_count; i++)
            if (cluster_random(cluster, 2) == 0)
                cluster_kill(cluster, &cluster->nodes[i], cluster_random(cluster, 200));
    }
    torture->left--;
}

static void torture_now(struct cluster *cluster, void *context)
{
    struct torture *torture = context;

    if (torture->left <= 0 || cluster->delivered < torture->next)
        return;
    torture->next = cluster->delivered + 1 + cluster_random(cluster, 2 * torture->mean);
    trouble(cluster, torture);
}

static void random_options(struct cluster_options *options, uint64_t seed)
{
    struct rng_key key = {seed, RNG_TEST, 1, 0, 0, 0};
    struct rng rng;

    rng_init(&rng, &key);
    cluster_defaults(options);
    options->seed = seed;
    options->actors = 1 + rng_below(&rng, 4);
    options->shards = 1 + (rng_below(&rng, 3) == 0) * rng_below(&rng, 3);
    options->evaluator = rng_below(&rng, 2);
    options->granted_slots = rng_below(&rng, 3) == 0;
    options->steps = 50 + rng_below(&rng, 400);
    options->seed_steps = 5 + rng_below(&rng, 60);
    options->eval_freq = 10 + rng_below(&rng, 100);
    options->utd = (const double[]){1, 1, 0.5, 2}[rng_below(&rng, 4)];
    options->delay_ms = 1 + rng_below(&rng, 30);
    options->checkpoint_every_ms = 50 + rng_below(&rng, 3000);
    options->save_ms = 1 + rng_below(&rng, 300);
    options->outbox = 16 + rng_below(&rng, 40);
    options->truncates = rng_below(&rng, 2);
    options->episodic = !options->truncates;
    if (rng_below(&rng, 4) == 0) /* much is evicted */
        options->buffer_size = 60 + rng_below(&rng, 300);
    options->snapshot = rng_below(&rng, 8) == 0 ? 2 * WIRE_CHUNK_BYTES + 5 : 100;
    options->envs = rng_below(&rng, 3) == 0 ? 2 + rng_below(&rng, 4) : 1;
    options->tasks = rng_below(&rng, 3) == 0 && !options->episodic ? 2 + rng_below(&rng, 3) : 0;
    options->balanced = rng_below(&rng, 2);
    for (uint32_t task = 0; task < options->tasks; task++)
        options->task_lengths[task] = 4 + rng_below(&rng, 12);
}

static uint64_t last_seed; /* of the torture under way, told when it fails */

static int tell_seed(void **state)
{
    (void)state;
    if (last_seed != 0)
        print_message("failed with TD_SIM_SEED=%llu\n", (unsigned long long)last_seed);
    return 0;
}

static void torture_once(uint64_t seed)
{
    struct torture torture = {.left = 12, .mean = 10 + (uint32_t)(seed % 7) * 40};
    struct cluster_options options;
    struct cluster *cluster;
    char what[64];

    last_seed = seed;
    random_options(&options, seed);
    cluster = cluster_create(&options);
    cluster->on_delivered = torture_now;
    cluster->context = &torture;
    snprintf(what, sizeof(what), "TD_SIM_SEED=%llu", (unsigned long long)seed);
    run_to_end(cluster, what);
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
    last_seed = 0;
}

/* Kills, SIGTERMs, cuts, lost Hellos and SIGSTOPs of random parts at random moments. */
static void random_troubles(void **state)
{
    const char *text = getenv("TD_SIM_SEED");
    int rounds = test_long() ? 1500 : 120;

    (void)state;
    if (text != NULL) {
        torture_once(strtoull(text, NULL, 10));
        return;
    }
    for (int round = 0; round < rounds; round++)
        torture_once(rng_u64(test_rng()) % 1000000);
}

/* --- one thing at a time ------------------------------------------------------ */

static struct cluster *small(struct cluster_options *options)
{
    cluster_defaults(options);
    options->steps = 200;
    options->evaluator = true;
    return cluster_create(options);
}

/* Run until this is so; fails when it is not after an hour. */
static void run_until(struct cluster *cluster, bool (*so)(struct cluster *), const char *what)
{
    for (int i = 0; !so(cluster); i++) {
        if (i > 360000)
            cluster_fail_stuck(cluster, what);
        if (cluster_run(cluster, 1) && !so(cluster))
            fail_msg("%s: the run ended before: %d %s", what, cluster_learner(cluster)->exit_code,
                     cluster_learner(cluster)->exit_text);
    }
}

static bool bursting(struct cluster *cluster)
{
    struct coordinator_view view = cluster_view(cluster);

    return view.phase == PHASE_BURST && view.updates > 5;
}

static bool running(struct cluster *cluster)
{
    struct coordinator_view view = cluster_view(cluster);

    return view.phase == PHASE_RUNNING && view.steps > 60;
}

static bool evaluating(struct cluster *cluster)
{
    struct session_view view = {0};

    if (!running(cluster) || !cluster_evaluator(cluster)->alive)
        return false;
    session_view(actor_session(cluster_evaluator(cluster)), cluster->now, &view);
    return view.waiting == WAITING_NOTHING;
}

/* SIGTERM: a checkpoint of this very moment, and the next learner goes on from it. */
static void terminate_when(bool (*so)(struct cluster *), const char *what)
{
    struct cluster_options options;
    struct cluster *cluster = small(&options);
    uint64_t updates;

    run_until(cluster, so, what);
    updates = cluster_view(cluster).updates;
    cluster_terminate(cluster, cluster_learner(cluster), UINT64_MAX);
    assert_true(cluster_run(cluster, 1000));
    assert_int_equal(cluster_learner(cluster)->exit_code, TD_EXIT_OK);
    assert_true(cluster_durable(cluster)->version >= updates);
    assert_true(cluster_durable(cluster)->version <= updates + 1);
    cluster_learner(cluster)->start_at = cluster->now + 20000;
    cluster_learner(cluster)->exit_code = -1;
    run_to_end(cluster, what);
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
}

static void sigterm_in_burst_evaluation_and_running(void **state)
{
    (void)state;
    terminate_when(bursting, "in the burst");
    terminate_when(evaluating, "in an evaluation");
    terminate_when(running, "running");
}

static void lost_and_repeated_hellos(void **state)
{
    (void)state;
    for (int lost = 1; lost < 30; lost += 4) {
        struct cluster_options options;
        struct cluster *cluster;

        cluster_defaults(&options);
        cluster = cluster_create(&options);
        cluster->lose_hellos = lost;
        cluster_run(cluster, 300);
        cluster_cut(cluster, cluster_shard(cluster, 0)); /* answers lost too: Hello is repeated */
        run_to_end(cluster, "lost Hellos");
        cluster_check_counts(cluster);
        cluster_destroy(&cluster);
    }
}

/* Whatever is lost of an actor's last words and their answers, all know at once that it is gone. */
static void lost_leaves(void **state)
{
    (void)state;
    for (int lost = 0; lost <= 21; lost += 3) {
        struct cluster_options options;
        struct cluster *cluster;
        struct cluster_node *actor;
        const struct store_stream *stream;
        bool heard = lost < 20; /* so many are said in a second when none is answered */

        cluster_defaults(&options);
        options.seed = (uint64_t)lost;
        options.update_ms = 50; /* it is not over before */
        cluster = cluster_create(&options);
        run_until(cluster, running, "lost Leaves");
        actor = cluster_actor(cluster, 0);
        cluster->lose_leaves = lost;
        cluster_terminate(cluster, actor, 60000);
        assert_false(cluster_run(cluster, 1500));
        assert_true(!actor->alive && actor->exit_code == TD_EXIT_OK);
        stream = store_stream(shard_host_store(cluster_shard(cluster, 0)), 0, 0);
        if (heard && (stream->holder != 0 || cluster_view(cluster).actors != options.actors - 1))
            fail_msg("%d lost: the stream is still held by %llx, %u actors", lost, (unsigned long long)stream->holder,
                     cluster_view(cluster).actors);
        if (!heard)
            assert_true(stream->holder == actor->process);
        cluster->lose_leaves = 0;
        run_to_end(cluster, "lost Leaves");
        cluster_check_counts(cluster);
        cluster_destroy(&cluster);
    }
}

/* Its next life has another address, which the actors are told at once: no heartbeats are waited for. */
static void a_killed_shard_is_found_again_at_once(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;

    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct coordinator_view before;

        cluster_defaults(&options);
        options.seed = seed;
        options.steps = 20000;
        cluster = cluster_create(&options);
        assert_false(cluster_run(cluster, 2500 + 371 * seed));
        cluster_kill(cluster, cluster_shard(cluster, 0), 400);
        assert_false(cluster_run(cluster, 400));
        before = cluster_view(cluster);
        assert_false(cluster_run(cluster, 1100));
        if (cluster_view(cluster).steps < before.steps + 20)
            fail_msg("seed %llu: %llu steps, then %llu; waiting for %s", (unsigned long long)seed,
                     (unsigned long long)before.steps, (unsigned long long)cluster_view(cluster).steps,
                     cluster_view(cluster).wait);
        cluster_destroy(&cluster);
    }
}

static void a_shard_with_a_new_directory(void **state)
{
    struct cluster_options options;
    struct cluster *cluster = small(&options);
    struct progress progress;

    (void)state;
    run_until(cluster, running, "new directory");
    cluster_lose_store(cluster, cluster_shard(cluster, 0));
    run_to_end(cluster, "new directory");
    progress = cluster_progress(cluster);
    assert_int_equal(progress.stores, 2);
    assert_true(progress.excess > 0); /* what came while nothing was samplable is not owed */
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
}

/* The learner waits for steps; the only live actor dies with credit in hand; a late one joins. */
static void credit_of_a_dead_actor_and_a_late_joiner(void **state)
{
    struct cluster_options options;
    struct cluster *cluster = small(&options);
    uint64_t before;

    (void)state;
    run_until(cluster, running, "dead actor");
    cluster_kill(cluster, cluster_actor(cluster, 0), UINT64_MAX);
    cluster_kill(cluster, cluster_actor(cluster, 1), UINT64_MAX);
    cluster_run(cluster, 60000);
    before = cluster_view(cluster).steps;
    cluster_run(cluster, 60000);
    assert_true(cluster_view(cluster).steps == before);
    assert_non_null(strstr(cluster_view(cluster).wait, "actors"));
    cluster_add_actor(cluster, 7, 10);
    run_to_end(cluster, "late joiner");
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
}

static void no_actor_for_an_hour(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;

    (void)state;
    cluster_defaults(&options);
    options.actors = 0;
    options.steps = 100;
    cluster = cluster_create(&options);
    assert_false(cluster_run(cluster, HOUR_MS));
    assert_non_null(strstr(cluster_view(cluster).wait, "actor"));
    cluster_add_actor(cluster, 3, 10);
    run_to_end(cluster, "no actor");
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
}

/* One actor is stopped for long: the others are not held up. */
static void a_stopped_actor_blocks_nobody(void **state)
{
    struct cluster_options options;
    struct cluster *cluster = small(&options);

    (void)state;
    run_until(cluster, running, "stopped actor");
    cluster_actor(cluster, 0)->stopped_until = cluster->now + 2 * HOUR_MS;
    assert_true(cluster_run(cluster, 40000));
    assert_int_equal(cluster_learner(cluster)->exit_code, TD_EXIT_OK);
    assert_true(audit_check(cluster) > 0);
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
}

/* Actors with several environments: killed, cut off, stopped; every stream's rows are there once. */
static void actors_of_several_environments(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct torture torture = {.left = seed == 1 ? 0 : 15, .mean = 40}; /* the first in quiet */
        struct cluster_options options;
        struct cluster *cluster;
        char what[64];

        cluster_defaults(&options);
        options.seed = seed;
        options.actors = 1 + (uint32_t)(seed % 3);
        options.envs = 2 + (uint32_t)(seed % 4);
        options.shards = 1 + (uint32_t)(seed % 2);
        options.steps = 300;
        options.evaluator = seed % 2;
        options.outbox = 16 + seed;
        options.truncates = seed % 3 != 0;
        options.episodic = !options.truncates;
        cluster = cluster_create(&options);
        cluster->on_delivered = torture_now;
        cluster->context = &torture;
        snprintf(what, sizeof(what), "%u environments, seed %llu", options.envs, (unsigned long long)seed);
        run_to_end(cluster, what);
        cluster_check_counts(cluster);
        assert_in_range(audit_streams(cluster), seed == 1 ? options.actors * options.envs : options.envs,
                        options.actors * options.envs);
        cluster_destroy(&cluster);
    }
}

/* 64 actors flood the seeding phase: what they insert beyond it is not owed. */
static void sixty_four_actors_seed(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;
    struct progress progress;

    (void)state;
    cluster_defaults(&options);
    options.actors = 64;
    options.steps = 3000;
    options.seed_steps = 500;
    options.lengths[0] = 50;
    options.length_count = 1;
    options.update_ms = 1;
    cluster = cluster_create(&options);
    run_to_end(cluster, "64 actors");
    cluster_check_counts(cluster);
    progress = cluster_progress(cluster);
    assert_true(progress.excess > 1000);
    cluster_destroy(&cluster);
}

static bool burst_is_over(struct cluster *cluster)
{
    return cluster_view(cluster).phase == PHASE_RUNNING;
}

/*
 * Actors hear of the end of seeding late and have much on the way then: after the burst they go on at
 * once, nobody makes up for rows that came in meanwhile.
 */
static void inserting_goes_on_right_after_the_burst(void **state)
{
    for (uint32_t actors = 1; actors <= 16; actors *= 4) {
        struct cluster_options options;
        struct cluster *cluster;
        struct coordinator_view view;

        (void)state;
        cluster_defaults(&options);
        options.actors = actors;
        options.steps = 4000;
        options.seed_steps = 20;
        options.delay_ms = 40;
        options.lengths[0] = 30;
        options.length_count = 1;
        cluster = cluster_create(&options);
        run_until(cluster, burst_is_over, "after the burst");
        for (int i = 0; i < 200; i++) {
            view = cluster_view(cluster);
            assert_true(view.cursor <= (int64_t)(options.slack * actors));
            assert_false(cluster_run(cluster, 1));
        }
        run_to_end(cluster, "after the burst");
        cluster_check_counts(cluster);
        cluster_destroy(&cluster);
    }
}

/* The learner comes back with an older version under a newer epoch: actors take it. */
static void an_older_version_of_a_newer_epoch(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;
    struct session_view view;
    struct coordinator_view before;

    (void)state;
    cluster_defaults(&options);
    options.steps = 4000;
    options.checkpoint_every_ms = 100000;
    cluster = cluster_create(&options);
    run_until(cluster, running, "older version");
    before = cluster_view(cluster);
    cluster_kill(cluster, cluster_learner(cluster), 50);
    cluster_run(cluster, 14000);
    session_view(actor_session(cluster_actor(cluster, 0)), cluster->now, &view);
    assert_true(before.newest.epoch == 1 && cluster_view(cluster).newest.epoch == 2);
    run_to_end(cluster, "older version");
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
}

/* Two processes with one slot: the newer has it, the older leaves with 4 and is not restarted. */
static void of_two_with_one_slot_the_older_is_fenced(void **state)
{
    struct cluster_options options;
    struct cluster *cluster = small(&options);
    struct cluster_node *older, *newer;

    (void)state;
    run_until(cluster, running, "fenced");
    older = cluster_actor(cluster, 0);
    newer = cluster_add_actor(cluster, 0, 0);
    cluster_run(cluster, 5000);
    assert_true(!older->alive || !newer->alive);
    assert_true(older->exit_code == TD_EXIT_FENCED || newer->exit_code == TD_EXIT_FENCED ||
                older->exit_code == TD_EXIT_OK);
    run_to_end(cluster, "fenced");
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
}

/*
 * A learner stands still for up to two minutes. If another took its place meanwhile it is fenced when it wakes
 * up, by the first shard that hears it; else it goes on.
 */
static void a_learner_that_wakes_up_is_fenced_or_goes_on(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct cluster_options options;
        struct cluster *cluster;
        struct cluster_node *old;
        uint64_t asleep = 1000 + 5000 * seed;
        uint32_t life;

        cluster_defaults(&options);
        options.seed = seed;
        options.steps = 1500;
        options.update_ms = 150; /* it is not over before */
        options.shards = 1 + (uint32_t)seed % 2;
        options.evaluator = seed % 3 == 0;
        cluster = cluster_create(&options);
        run_until(cluster, running, "asleep");
        old = cluster_learner(cluster);
        old->stopped_until = cluster->now + asleep;
        life = old->life;
        if (seed % 4 == 3) { /* only away */
            cluster_run(cluster, asleep + 1000);
            assert_true(old->alive && old->life == life);
        } else {
            cluster_run(cluster, asleep / 2);
            cluster_replace_learner(cluster);
            cluster_run(cluster, asleep / 2 + 15000);
            if (old->alive || old->exit_code != TD_EXIT_FENCED)
                fail_msg("seed %llu: the old learner %s: %d %s", (unsigned long long)seed,
                         old->alive ? "is still there" : "left", old->exit_code, old->exit_text);
        }
        run_to_end(cluster, "asleep");
        cluster_check_counts(cluster);
        cluster_destroy(&cluster);
    }
}

/* One of three shards is away for long: the others serve; it comes back and is used again. */
static void one_of_three_shards_is_away(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;

    (void)state;
    cluster_defaults(&options);
    options.shards = 3;
    options.actors = 6;
    options.steps = 1500;
    cluster = cluster_create(&options);
    run_until(cluster, running, "three shards");
    cluster_kill(cluster, cluster_shard(cluster, 1), 30000);
    run_to_end(cluster, "three shards");
    cluster_check_counts(cluster);
    cluster_destroy(&cluster);
}

/* Diverged or stopped: everyone is told and leaves. */
static void a_stopped_run_stops_everyone(void **state)
{
    struct cluster_options options;
    struct cluster *cluster = small(&options);
    struct cluster_node *learner = cluster_learner(cluster);

    (void)state;
    run_until(cluster, running, "stop");
    coordinator_stop(learner_coordinator(learner), cluster->now, TD_EXIT_DIVERGED, "test");
    learner_tick(cluster, learner);
    assert_true(cluster_run(cluster, 5000));
    assert_int_equal(learner->exit_code, TD_EXIT_DIVERGED);
    learner->exit_code = -1; /* let the others hear it */
    cluster_run(cluster, 15000);
    for (int i = 0; i < cluster->node_count; i++) {
        assert_false(cluster->nodes[i].alive);
        if (&cluster->nodes[i] != learner)
            assert_int_equal(cluster->nodes[i].exit_code, TD_EXIT_OK);
    }
    cluster_destroy(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quiet_run),
        cmocka_unit_test(the_final_evaluation_is_that_of_the_last_step),
        cmocka_unit_test(sigterm_in_burst_evaluation_and_running),
        cmocka_unit_test(lost_and_repeated_hellos),
        cmocka_unit_test(lost_leaves),
        cmocka_unit_test(a_killed_shard_is_found_again_at_once),
        cmocka_unit_test(a_shard_with_a_new_directory),
        cmocka_unit_test(credit_of_a_dead_actor_and_a_late_joiner),
        cmocka_unit_test(no_actor_for_an_hour),
        cmocka_unit_test(a_stopped_actor_blocks_nobody),
        cmocka_unit_test(actors_of_several_environments),
        cmocka_unit_test(sixty_four_actors_seed),
        cmocka_unit_test(inserting_goes_on_right_after_the_burst),
        cmocka_unit_test(an_older_version_of_a_newer_epoch),
        cmocka_unit_test(of_two_with_one_slot_the_older_is_fenced),
        cmocka_unit_test(a_learner_that_wakes_up_is_fenced_or_goes_on),
        cmocka_unit_test(one_of_three_shards_is_away),
        cmocka_unit_test(a_stopped_run_stops_everyone),
        cmocka_unit_test_teardown(random_troubles, tell_seed),
    };
    if (getenv("TD_SIM_SEED") != NULL)
        cmocka_set_test_filter("random_troubles");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
