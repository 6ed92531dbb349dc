/*
 * Several tasks in the simulated cluster: every task gets its rows, however long its episodes, slow its steps,
 * few or many the actors, and whoever comes, goes or dies; batches have the shares that were asked for; lock-step
 * takes the tasks in turn and ends in the same bits.
 */
#include "tests/support/cluster.h"
#include "tests/support/test.h"

#define HOUR_MS (3600ull * 1000)

static void task_options(struct cluster_options *options, uint32_t tasks)
{
    cluster_defaults(options);
    options->tasks = tasks;
    options->truncates = true;
    options->steps = 3000;
    options->seed_steps = 100;
    options->update_ms = 1;
    options->buffer_size = 100000;
    for (uint32_t task = 0; task < tasks; task++) {
        options->task_lengths[task] = 6 + 9 * task;
        options->task_ms[task] = task == 1 ? 60 : 0; /* much slower than the others */
    }
}

/* Rows of each task in all stores. Their parts are killed. */
static void count_rows(struct cluster *cluster, uint64_t rows[CLUSTER_TASKS])
{
    memset(rows, 0, CLUSTER_TASKS * sizeof(*rows));
    for (int i = 0; i < cluster->node_count; i++) {
        struct store_config config = {.any_shard = true};
        char folder[300];
        struct error err = {0};
        store_t *store;

        if (cluster->nodes[i].kind != NODE_SHARD)
            continue;
        cluster_kill(cluster, &cluster->nodes[i], UINT64_MAX);
        shard_host_folder(cluster, &cluster->nodes[i], folder, sizeof(folder));
        config.dir = folder;
        assert_ok(store_open(&store, &config, &err), err);
        for (uint64_t id = store_counts(store)->first; id < store_counts(store)->sealed; id++) {
            const struct store_episode *episode = store_episode(store, id);

            rows[episode_task(episode->flags)] += episode->rows;
        }
        store_close(&store);
    }
}

static void run_to_end(struct cluster *cluster, const char *what)
{
    if (!cluster_run(cluster, 40 * HOUR_MS))
        cluster_fail_stuck(cluster, what);
    if (cluster_learner(cluster)->exit_code != TD_EXIT_OK)
        fail_msg("%s: the learner left with %d: %s", what, cluster_learner(cluster)->exit_code,
                 cluster_learner(cluster)->exit_text);
}

/* No task has more than `most` episodes of the longest above its share, nor below. */
static void expect_even(struct cluster *cluster, double most, const char *what)
{
    uint64_t rows[CLUSTER_TASKS], sum = 0, longest = 0;
    uint32_t tasks = cluster->options.tasks;

    count_rows(cluster, rows);
    for (uint32_t task = 0; task < tasks; task++) {
        sum += rows[task];
        longest = cluster->options.task_lengths[task] > longest ? cluster->options.task_lengths[task] : longest;
    }
    for (uint32_t task = 0; task < tasks; task++) {
        double off = (double)rows[task] - (double)sum / tasks;

        if (off > most * (double)longest || -off > most * (double)longest)
            fail_msg("%s: task %u has %llu of %llu rows of %u tasks", what, task, (unsigned long long)rows[task],
                     (unsigned long long)sum, tasks);
    }
    assert_true(audit_check(cluster) >= sum);
}

/* Fewer environments than tasks, as many, more; one actor or several, one shard or several. */
static void tasks_get_equal_rows(void **state)
{
    static const struct { uint32_t actors, envs, tasks, shards; } cases[] = {
        {1, 1, 3, 1}, {1, 1, 2, 1}, {2, 1, 5, 1}, {3, 1, 3, 2}, {1, 4, 3, 1}, {4, 2, 3, 3}, {2, 4, 2, 1},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        struct cluster_options options;
        struct cluster *cluster;
        char what[64];

        task_options(&options, cases[i].tasks);
        options.actors = cases[i].actors;
        options.envs = cases[i].envs;
        options.shards = cases[i].shards;
        options.evaluator = true;
        snprintf(what, sizeof(what), "%u actors of %u environments, %u tasks", cases[i].actors, cases[i].envs,
                 cases[i].tasks);
        cluster = cluster_create(&options);
        run_to_end(cluster, what);
        cluster_check_counts(cluster);
        assert_true(cluster->eval_count > 0);
        for (int row = 0; row < cluster->eval_count; row++)
            assert_int_equal(cluster->eval[row].scores, cases[i].tasks);
        expect_even(cluster, 2 + cases[i].actors * cases[i].envs, what);
        cluster_destroy(&cluster);
    }
}

/* A window that holds but a tenth: what is in it is even too. */
static void the_window_is_even_too(void **state)
{
    struct cluster_options options;
    struct coordinator_task tasks[CLUSTER_TASKS];
    struct cluster *cluster;

    (void)state;
    task_options(&options, 3);
    options.buffer_size = 400;
    cluster = cluster_create(&options);
    while (cluster_view(cluster).steps < 2500)
        assert_false(cluster_run(cluster, 10));
    assert_int_equal(coordinator_tasks(learner_coordinator(cluster_learner(cluster)), cluster->now, tasks,
                                       CLUSTER_TASKS), 3);
    for (int task = 0; task < 3; task++)
        assert_true(tasks[task].rows > 400 / 3 - 60 && tasks[task].rows < 400 / 3 + 60 && tasks[task].episodes > 0);
    run_to_end(cluster, "a small window");
    cluster_destroy(&cluster);
}

/* --- who comes and goes ---------------------------------------------------------- */

struct comings {
    uint64_t next;
    int left;
};

/* Somebody leaves for good, dies for a while, is cut off, or one more comes: never fewer than one actor. */
static void come_and_go(struct cluster *cluster, void *context)
{
    struct comings *comings = context;
    struct cluster_node *node;

    if (comings->left <= 0 || cluster->delivered < comings->next)
        return;
    comings->next = cluster->delivered + 200 + cluster_random(cluster, 800);
    comings->left--;
    node = &cluster->nodes[cluster_random(cluster, (uint64_t)cluster->node_count)];
    switch (cluster_random(cluster, 6)) {
    case 0:
        cluster_add_actor(cluster, cluster->node_count + 10, cluster_random(cluster, 500));
        break;
    case 1: /* for good, if it is not the first */
        if (node->kind == NODE_ACTOR && node->number != 0)
            cluster_terminate(cluster, node, UINT64_MAX);
        break;
    case 2:
        if (node->alive && node->kind == NODE_ACTOR)
            node->stopped_until = cluster->now + cluster_random(cluster, 30000);
        break;
    case 3:
        cluster_cut(cluster, node);
        break;
    default:
        cluster_kill(cluster, node, cluster_random(cluster, 3000));
    }
}

static void nobody_starves_whoever_comes_and_goes(void **state)
{
    const char *text = getenv("TD_SIM_SEED");
    int rounds = text != NULL ? 1 : test_long() ? 300 : 12;

    (void)state;
    for (int round = 0; round < rounds; round++) {
        uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : rng_u64(test_rng()) % 1000000;
        struct comings comings = {.left = 25};
        struct cluster_options options;
        struct cluster *cluster;
        char what[64];

        task_options(&options, 2 + (uint32_t)(seed % 3));
        options.seed = seed;
        options.actors = 1 + (uint32_t)(seed % 4);
        options.envs = 1 + (uint32_t)(seed / 4 % 3);
        options.shards = 1 + (uint32_t)(seed / 12 % 2);
        options.balanced = seed / 24 % 2;
        options.granted_slots = seed / 48 % 2;
        snprintf(what, sizeof(what), "TD_SIM_SEED=%llu", (unsigned long long)seed);
        cluster = cluster_create(&options);
        cluster->on_delivered = come_and_go;
        cluster->context = &comings;
        run_to_end(cluster, what);
        cluster_check_counts(cluster);
        expect_even(cluster, 5 + 4 * options.actors * options.envs, what);
        cluster_destroy(&cluster);
    }
}

/* The answer is lost, or the learner that knew it: the question is asked again. */
static void lost_answers_are_asked_for_again(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;

    (void)state;
    task_options(&options, 3);
    options.actors = 2;
    cluster = cluster_create(&options);
    while (cluster_view(cluster).phase != PHASE_RUNNING) /* before that nothing bounds what a cut-off actor does */
        assert_false(cluster_run(cluster, 10));
    for (int i = 0; i < 12; i++) {
        cluster_run(cluster, 300);
        if (i % 3 == 0)
            cluster_kill(cluster, cluster_learner(cluster), 50);
        else
            cluster_lose(cluster, cluster_actor(cluster, i % 2));
    }
    run_to_end(cluster, "lost answers");
    expect_even(cluster, 6, "lost answers");
    cluster_destroy(&cluster);
}

/* --- batches ------------------------------------------------------------------- */

/*
 * Short episodes are many: drawn by episode they are most of a batch, balanced each task has its share, with one
 * shard that draws tasks itself and with three that are told.
 */
static void batches_have_the_shares_asked_for(void **state)
{
    (void)state;
    for (int shards = 1; shards <= 3; shards += 2)
        for (int balanced = 0; balanced < 2; balanced++) {
            struct cluster_options options;
            struct cluster *cluster;
            double all, share;

            task_options(&options, 2);
            options.task_lengths[0] = 5;
            options.task_lengths[1] = 40;
            options.task_ms[1] = 0;
            options.actors = 3;
            options.shards = (uint32_t)shards;
            options.balanced = balanced;
            options.batch = 32;
            options.seed_steps = 500;
            cluster = cluster_create(&options);
            run_to_end(cluster, "batches");
            all = (double)(cluster->task_slices[0] + cluster->task_slices[1]);
            share = (double)cluster->task_slices[0] / all;
            assert_true(all > 50000);
            if (balanced)
                assert_true(share > 0.49 && share < 0.51);
            else
                assert_true(share > 0.8 && share < 0.95); /* 41 rows against 6 */
            cluster_destroy(&cluster);
        }
}

/* --- lock-step ------------------------------------------------------------------- */

static void lockstep_options(struct cluster_options *options, bool balanced)
{
    task_options(options, 3);
    options->lockstep = true;
    options->balanced = balanced;
    options->actors = 1;
    options->steps = 200;
    options->seed_steps = 70;
    options->eval_freq = 50;
    options->checkpoint_steps = 40;
    options->checkpoint_every_ms = 30;
    options->batch = 4;
    options->step_ms = 1;
    options->task_ms[1] = 0;
}

struct killing {
    uint64_t at, every;
};

static void kill_now(struct cluster *cluster, void *context)
{
    struct killing *killing = context;

    if (cluster->delivered < killing->at)
        return;
    killing->at += killing->every;
    cluster_kill(cluster, &cluster->nodes[cluster_random(cluster, (uint64_t)cluster->node_count)], 10);
}

static void lockstep_takes_tasks_in_turn_to_the_bit(void **state)
{
    (void)state;
    for (int balanced = 0; balanced < 2; balanced++) {
        struct cluster_options options;
        struct cluster *cluster;
        uint64_t expected;

        lockstep_options(&options, balanced);
        cluster = cluster_create(&options);
        run_to_end(cluster, "lock-step");
        expected = cluster_hash(cluster);
        assert_true(cluster->train_count > 6 && cluster->eval_count >= 4);
        for (int i = 0; i < cluster->train_count; i++) {
            assert_int_equal(cluster->train[i].task, i % 3);
            assert_int_equal(cluster->train[i].length, options.task_lengths[i % 3]);
        }
        for (int i = 0; i < cluster->eval_count; i++)
            assert_int_equal(cluster->eval[i].scores, 3);
        cluster_destroy(&cluster);
        for (uint64_t seed = 0; seed < (test_long() ? 300 : 20); seed++) {
            struct killing killing = {.at = 20 + 37 * seed, .every = 900};

            options.seed = seed;
            cluster = cluster_create(&options);
            cluster->on_delivered = kill_now;
            cluster->context = &killing;
            run_to_end(cluster, "lock-step, killed");
            if (cluster_hash(cluster) != expected)
                fail_msg("killed after %llu messages the run ended in other bits", 20 + 37 * (unsigned long long)seed);
            cluster_destroy(&cluster);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_get_equal_rows),
        cmocka_unit_test(the_window_is_even_too),
        cmocka_unit_test(nobody_starves_whoever_comes_and_goes),
        cmocka_unit_test(lost_answers_are_asked_for_again),
        cmocka_unit_test(batches_have_the_shares_asked_for),
        cmocka_unit_test(lockstep_takes_tasks_in_turn_to_the_bit),
    };

    setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
