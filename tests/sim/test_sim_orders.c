/*
 * No order of starting and stopping the parts hangs a run: every permutation of starts, with short and long
 * pauses between them; every permutation of stops (SIGTERM or kill -9) and starting again in every other.
 */
#include "tests/support/cluster.h"
#include "tests/support/test.h"

#define HOUR_MS (3600ull * 1000)

enum { PARTS = 5 }; /* learner, shard, evaluator, two actors: the cluster's nodes in their order */

static uint64_t rows_audited, runs;

/* The n-th permutation of the parts. */
static void permute(int n, int order[PARTS])
{
    int left[PARTS] = {0, 1, 2, 3, 4};

    for (int i = 0, count = PARTS; i < PARTS; i++, count--) {
        int at = n % count;

        n /= count;
        order[i] = left[at];
        for (; at + 1 < count; at++)
            left[at] = left[at + 1];
    }
}

enum { PERMUTATIONS = 120 };

static struct cluster *create(uint64_t seed, bool lockstep)
{
    struct cluster_options options;

    cluster_defaults(&options);
    options.seed = seed;
    options.steps = lockstep ? 50 : 70;
    options.seed_steps = 20;
    options.evaluator = !lockstep;
    options.lockstep = lockstep;
    options.actors = lockstep ? 1 : 2;
    options.restart_fenced = true;
    return cluster_create(&options);
}

static void finish(struct cluster *cluster, const char *what, int a, int b)
{
    char text[96];

    snprintf(text, sizeof(text), "%s %d, %d", what, a, b);
    if (!cluster_run(cluster, HOUR_MS))
        cluster_fail_stuck(cluster, text);
    if (cluster_learner(cluster)->exit_code != TD_EXIT_OK)
        fail_msg("%s: the learner left with %d: %s", text, cluster_learner(cluster)->exit_code,
                 cluster_learner(cluster)->exit_text);
    rows_audited += audit_check(cluster);
    if (!cluster->options.lockstep)
        cluster_check_counts(cluster);
    runs++;
    cluster_destroy(&cluster);
}

/* Next to no pause, some, and one in which whoever is there gives others up for gone. */
static const uint64_t pauses[] = {1, 700, 11000};

static void any_order_of_starts(void **state)
{
    (void)state;
    for (int n = 0; n < PERMUTATIONS; n++)
        for (size_t p = 0; p < TD_LEN(pauses); p++) {
            struct cluster *cluster = create((uint64_t)n, false);
            int order[PARTS];

            permute(n, order);
            for (int i = 0; i < PARTS; i++)
                cluster->nodes[order[i]].start_at = cluster->now + (uint64_t)i * pauses[p];
            finish(cluster, "starts", n, (int)p);
        }
}

static void any_order_of_starts_in_lockstep(void **state)
{
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

    (void)state;
    for (int n = 0; n < 6; n++)
        for (size_t p = 0; p < TD_LEN(pauses); p++) {
            struct cluster *cluster = create((uint64_t)n, true);

            for (int i = 0; i < 3; i++)
                cluster->nodes[orders[n][i]].start_at = cluster->now + (uint64_t)i * pauses[p];
            finish(cluster, "lock-step starts", n, (int)p);
        }
}

/* All are stopped in one order and started again in another, once or twice, then left alone. */
static void stop_and_start(int stops, int starts, bool kill, int rounds)
{
    struct cluster *cluster = create((uint64_t)(stops * PERMUTATIONS + starts), false);
    int down[PARTS], up[PARTS];

    permute(stops, down);
    permute(starts, up);
    for (int round = 0; round < rounds; round++) {
        uint64_t pause = pauses[cluster_random(cluster, TD_LEN(pauses))];

        cluster_run(cluster, 100 + cluster_random(cluster, 600));
        for (int i = 0; i < PARTS; i++) {
            if (kill)
                cluster_kill(cluster, &cluster->nodes[down[i]], 10 * HOUR_MS);
            else
                cluster_terminate(cluster, &cluster->nodes[down[i]], 10 * HOUR_MS);
            cluster_run(cluster, pauses[cluster_random(cluster, TD_LEN(pauses))]);
        }
        cluster_run(cluster, 15000); /* whoever leaves in good order has left */
        for (int i = 0; i < PARTS; i++) {
            struct cluster_node *node = &cluster->nodes[up[i]];

            if (!node->alive)
                node->start_at = cluster->now + (uint64_t)i * pause;
            else if (node->kind == NODE_LEARNER || node->start_at != UINT64_MAX)
                node->start_at = 100;
        }
    }
    finish(cluster, kill ? "kill and start" : "stop and start", stops, starts);
}

static void any_order_of_stops_and_starts(void **state)
{
    int stride = test_long() ? 1 : 13; /* prime to 120: all stops and all starts come up */

    (void)state;
    for (int n = 0, other = 0; n < PERMUTATIONS; n++)
        for (int k = 0; k < (test_long() ? PERMUTATIONS : 3); k++) {
            other = (other + stride) % PERMUTATIONS;
            stop_and_start(n, other, (n + k) % 2 == 0, 1 + (n + k) % 3 / 2);
        }
    print_message("%llu runs, %llu rows audited\n", (unsigned long long)runs, (unsigned long long)rows_audited);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_of_starts),
        cmocka_unit_test(any_order_of_starts_in_lockstep),
        cmocka_unit_test(any_order_of_stops_and_starts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
