/*
 * Plans of faults against whole runs in the simulated cluster: lost, doubled, late messages, partitions,
 * resets, kills, stops, several at once. Once all is healed the run completes; nothing acknowledged is
 * missing, double, altered or out of order; counts are the limiter's; lock-step ends in the same bits.
 *
 * Each seed runs in a process of its own, so that an assertion or a signal in the machines is told with
 * its seed and the smallest plan that still shows it. TD_SEED=n begins with seed n.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "tests/support/cluster_faults.h"
#include "tests/support/test.h"

#define HOUR_MS (3600ull * 1000)

/* What a run says of itself, shared with the process that waits for it. */
struct outcome {
    uint64_t trace, result, rows, delivered, lost, doubled, delayed, checks, healed_ms;
    bool ended;
};

static uint64_t store_ids; /* the stores' names must not differ from run to run */

ssize_t getrandom(void *buffer, size_t size, unsigned flags)
{
    uint8_t *at = buffer;

    (void)flags;
    for (size_t i = 0; i < size; i++)
        at[i] = (uint8_t)rng_hash(77, ++store_ids);
    return (ssize_t)size;
}

/* --- one run ---------------------------------------------------------------- */

/* Whatever comes over the network, it is no reason for an actor to leave for good. */
static void check_exits(const struct cluster *cluster, const struct fault_plan *plan)
{
    for (int i = 0; i < cluster->node_count; i++) {
        const struct cluster_node *node = &cluster->nodes[i];

        if (node->kind == NODE_ACTOR && node->exit_code == TD_EXIT_BAD_INPUT)
            fail_msg("seed %llu: actor %d left with %d: %s", (unsigned long long)plan->seed, node->number,
                     node->exit_code, node->exit_text);
    }
}

static void run_plan(struct fault_plan *plan, struct outcome *outcome)
{
    struct cluster *cluster;
    bool ended;
    char what[64];

    store_ids = plan->seed << 32;
    cluster = cluster_create(&plan->options);
    plan_attach(plan, cluster);
    snprintf(what, sizeof(what), "seed %llu", (unsigned long long)plan->seed);
    ended = cluster_run(cluster, plan_end_ms(plan));
    outcome->healed_ms = cluster->now;
    if (!ended && !cluster_run(cluster, 2 * HOUR_MS))
        cluster_fail_stuck(cluster, what);
    check_exits(cluster, plan);
    if (cluster_learner(cluster)->exit_code != TD_EXIT_OK)
        fail_msg("%s: the learner left with %d: %s", what, cluster_learner(cluster)->exit_code,
                 cluster_learner(cluster)->exit_text);
    outcome->rows = audit_check(cluster);
    assert_true(outcome->rows > 0);
    if (!plan->options.lockstep && !plan->wild)
        cluster_check_counts(cluster);
    outcome->trace = cluster->trace_hash;
    outcome->result = cluster_hash(cluster);
    outcome->delivered = cluster->delivered;
    outcome->lost = cluster->faults.lost;
    outcome->doubled = cluster->faults.doubled;
    outcome->delayed = cluster->faults.delayed;
    outcome->checks = plan->checks;
    cluster_destroy(&cluster);
    outcome->ended = true;
}

/* In a process of its own; false: it failed, and said why on `out`. */
static bool run_apart(const struct fault_plan *plan, struct outcome *result, FILE *out)
{
    struct outcome *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char folder[256];
    int status = 0;
    pid_t pid;

    assert_true(shared != MAP_FAILED);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct fault_plan mine = *plan;

        dup2(fileno(out), 1);
        dup2(fileno(out), 2);
        setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failed assertion ends the process */
        signal(SIGABRT, SIG_DFL);
        alarm(test_long() ? 600 : 60);
        run_plan(&mine, shared);
        fflush(NULL);
        _exit(0);
    }
    assert_true(waitpid(pid, &status, 0) == pid);
    cluster_folder(folder, sizeof(folder), pid, 0);
    fs_remove_tree(folder, NULL);
    *result = *shared;
    munmap(shared, sizeof(*shared));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 && result->ended;
}

/* --- making a failure small ------------------------------------------------- */

static bool still_fails(const struct fault_plan *plan)
{
    FILE *none = fopen("/dev/null", "w");
    struct outcome outcome;
    bool failed;

    assert_non_null(none);
    failed = !run_apart(plan, &outcome, none);
    fclose(none);
    return failed;
}

static void shrink(struct fault_plan *plan)
{
    double *const rates[] = {&plan->loss, &plan->twice, &plan->late};
    uint64_t *const times[] = {&plan->late_ms, &plan->until_ms};

    for (int i = 0; i < plan->count; i++) {
        plan->skip |= UINT64_C(1) << i;
        if (!still_fails(plan))
            plan->skip &= ~(UINT64_C(1) << i);
    }
    for (size_t i = 0; i < TD_LEN(rates); i++) {
        double was = *rates[i];

        *rates[i] = 0;
        if (!still_fails(plan))
            *rates[i] = was;
    }
    for (size_t i = 0; i < TD_LEN(times); i++)
        for (int halves = 0; halves < 6 && *times[i] > 1; halves++) {
            uint64_t was = *times[i];

            *times[i] /= 2;
            if (!still_fails(plan)) {
                *times[i] = was;
                break;
            }
        }
}

/* The last lines of a file. */
static void print_tail(FILE *file, int lines)
{
    static char text[1 << 20];
    long size = (fseek(file, 0, SEEK_END), ftell(file)), from = size < (long)sizeof(text) ? 0 : size - (long)sizeof(text) + 1;
    size_t got;
    char *at;

    fseek(file, from, SEEK_SET);
    got = fread(text, 1, sizeof(text) - 1, file);
    text[got] = '\0';
    for (at = text + got; at > text && lines >= 0; at--)
        lines -= at[-1] == '\n';
    fprintf(stderr, "%s\n", at);
}

static void explain(struct fault_plan *plan)
{
    struct outcome outcome;
    FILE *trace = tmpfile();

    assert_non_null(trace);
    fprintf(stderr, "TD_SEED=%llu fails; the smallest plan that still does:\n", (unsigned long long)plan->seed);
    shrink(plan);
    plan_print(plan);
    plan->options.verbose = true;
    run_apart(plan, &outcome, trace);
    fprintf(stderr, "the end of its trace:\n");
    print_tail(trace, 60);
    fclose(trace);
}

/* --- many runs -------------------------------------------------------------- */

static void must_hold(struct fault_plan *plan, struct outcome *outcome)
{
    FILE *out = tmpfile();

    assert_non_null(out);
    if (!run_apart(plan, outcome, out)) {
        print_tail(out, 30);
        explain(plan);
        fail_msg("seed %llu fails", (unsigned long long)plan->seed);
    }
    fclose(out);
}

/* The run without any trouble: lock-step must end in the same bits. */
static void compare_quiet(const struct fault_plan *plan, uint64_t result)
{
    struct fault_plan quiet = *plan;
    struct outcome outcome;

    quiet.loss = quiet.twice = quiet.late = 0;
    quiet.count = 0;
    must_hold(&quiet, &outcome);
    if (outcome.result != result) {
        plan_print(plan);
        fail_msg("TD_SEED=%llu: lock-step ends elsewhere", (unsigned long long)plan->seed);
    }
}

static uint64_t first_seed(void)
{
    const char *text = getenv("TD_SEED");

    return text == NULL ? 1 : strtoull(text, NULL, 10);
}

static void seeds_of_trouble(void **state)
{
    uint64_t first = first_seed(), count = test_long() ? 5000 : 300;
    struct outcome sum = {0}, outcome, again;
    uint64_t lockstep = 0;

    (void)state;
    if (getenv("TD_SEEDS") != NULL)
        count = strtoull(getenv("TD_SEEDS"), NULL, 10);
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct fault_plan plan;

        plan_draw(&plan, seed);
        must_hold(&plan, &outcome);
        if (plan.options.lockstep)
            compare_quiet(&plan, outcome.result);
        lockstep += plan.options.lockstep;
        if (seed % 10 == 0) { /* the same seed, the same run */
            must_hold(&plan, &again);
            if (again.trace != outcome.trace || again.delivered != outcome.delivered)
                fail_msg("seed %llu is not the same twice", (unsigned long long)seed);
        }
        sum.rows += outcome.rows;
        sum.delivered += outcome.delivered;
        sum.lost += outcome.lost;
        sum.doubled += outcome.doubled;
        sum.delayed += outcome.delayed;
        sum.checks += outcome.checks;
    }
    print_message("%llu seeds from %llu (%llu in lock-step): %llu messages, %llu lost, %llu twice, %llu late; "
                  "%llu rows audited\n", (unsigned long long)count, (unsigned long long)first,
                  (unsigned long long)lockstep, (unsigned long long)sum.delivered, (unsigned long long)sum.lost,
                  (unsigned long long)sum.doubled, (unsigned long long)sum.delayed, (unsigned long long)sum.rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_of_trouble),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
