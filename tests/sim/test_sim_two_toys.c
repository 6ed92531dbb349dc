/*
 * Several real tasks through real machines, planner, update and checkpoints: two toys with known optima, of other
 * widths and with opposite answers, are learned online by one agent; in lock-step a run killed anywhere ends in the
 * same bits.
 */
#include "common/util/log.h"
#include "tests/support/cluster.h"
#include "tests/support/cluster_real.h"
#include "tests/support/test.h"

#define HOUR_MS (3600ull * 1000)
#define LENGTH  20 /* and so the best return */

static void toy_options(struct cluster_options *options, bool lockstep)
{
    cluster_defaults(options);
    options->task = "toy-copy:20,toy-oppose:20";
    options->tasks = 2;
    options->lockstep = lockstep;
    options->actors = lockstep ? 1 : 2;
    options->evaluator = !lockstep;
    options->eval_episodes = 8;
    options->batch = 32;
    options->outbox = 1000;
    options->truncates = true;
}

static void run_to_end(struct cluster *cluster)
{
    if (!cluster_run(cluster, 100 * HOUR_MS))
        cluster_fail_stuck(cluster, "two toys");
    if (cluster_learner(cluster)->exit_code != TD_EXIT_OK)
        fail_msg("the learner left with %d: %s", cluster_learner(cluster)->exit_code, cluster_learner(cluster)->exit_text);
}

static void one_agent_learns_both(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;
    double random[2] = {0};
    int count[2] = {0};

    (void)state;
    toy_options(&options, false);
    options.steps = 4000;
    options.seed_steps = 600;
    options.eval_freq = 2000;
    cluster = cluster_create(&options);
    cluster->words[0] = "enc_dim=32";
    cluster->words[1] = "mlp_dim=32";
    cluster->words[2] = "lr=0.002";
    run_to_end(cluster);
    for (int i = 0; i < cluster->train_count && cluster->train[i].step <= options.seed_steps; i++) {
        random[cluster->train[i].task] += cluster->train[i].reward;
        count[cluster->train[i].task]++;
    }
    for (int task = 0; task < 2; task++) {
        const struct cluster_row *last = &cluster->eval[cluster->eval_count - 1];

        assert_int_equal(last->scores, 2);
        assert_true(count[task] >= 10);
        random[task] /= count[task];
        print_message("task %d: random %.1f, learned %.1f of %d\n", task, random[task], last->score[task], LENGTH);
        assert_true(random[task] > 0.2 * LENGTH && random[task] < 0.5 * LENGTH);
        assert_true(last->score[task] > 0.9 * LENGTH && last->score[task] <= LENGTH);
    }
    assert_true(abs(count[0] - count[1]) <= 4);
    cluster_destroy(&cluster);
}

/* --- to the bit ---------------------------------------------------------------------- */

static void start_lockstep(struct cluster **cluster, uint64_t seed)
{
    struct cluster_options options;

    toy_options(&options, true);
    options.seed = seed;
    options.task = "toy-copy:9,toy-oppose:7,toy:11";
    options.tasks = 3;
    options.eval_episodes = 1;
    options.steps = 90;
    options.seed_steps = 40;
    options.eval_freq = 30;
    options.checkpoint_steps = 20;
    options.checkpoint_every_ms = 40;
    options.batch = 8;
    *cluster = cluster_create(&options);
}

static void kill_now(struct cluster *cluster, void *context)
{
    uint64_t *at = context;

    if (cluster->delivered < *at)
        return;
    *at += 300;
    cluster_kill(cluster, &cluster->nodes[cluster_random(cluster, (uint64_t)cluster->node_count)], 10);
}

static void lockstep_ends_in_the_same_bits(void **state)
{
    struct digest expected, digest;
    struct cluster *cluster;

    (void)state;
    start_lockstep(&cluster, 1);
    run_to_end(cluster);
    real_digest(cluster, &expected);
    assert_true(cluster->eval_count >= 3 && cluster->eval[0].scores == 3);
    cluster_destroy(&cluster);
    for (uint64_t round = 0; round < (test_long() ? 100 : 6); round++) {
        uint64_t at = 30 + 61 * round;

        start_lockstep(&cluster, round);
        cluster->on_delivered = kill_now;
        cluster->context = &at;
        run_to_end(cluster);
        real_digest(cluster, &digest);
        if (digest_difference(&expected, &digest) != NULL)
            fail_msg("killed after %llu messages: other bits, first in %s", 30 + 61 * (unsigned long long)round,
                     digest_difference(&expected, &digest));
        cluster_destroy(&cluster);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_agent_learns_both),
        cmocka_unit_test(lockstep_ends_in_the_same_bits),
    };

    log_set_level(LOG_ERROR);
    setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
