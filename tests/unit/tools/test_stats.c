#include "tests/support/test.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/net/stats.h"
#include "learner/task_line.h"
#include "tools/commands.h"
#include "tools/stats.h"

/* Two parts that answer until told to stop; their loops have a thread of their own. */
struct parts {
    pthread_t thread;
    atomic_int ready, stop;
    char run_dir[512];
};

static void record(const char *run_dir, const char *role, int id, const char *address)
{
    struct rundir_part part = {.id = id, .pid = 4242};
    struct error err;

    snprintf(part.role, sizeof(part.role), "%s", role);
    snprintf(part.stats, sizeof(part.stats), "%s", address);
    assert_ok(rundir_record(run_dir, &part, &err), err);
}

static void serve(loop_t *loop, metrics_t **metrics, stats_t **stats, const char *role, unsigned roles,
                  const char *run_dir)
{
    struct metrics_owner owner = {role, roles, 0, 1, 2};
    char address[ADDRESS_MAX];
    struct stats_options options = {.address = address};
    struct error err;

    snprintf(address, sizeof(address), "ipc://%s/stats-%s", test_folder(), role);
    assert_int_equal(metrics_create(metrics, &owner), TD_OK);
    assert_ok(stats_open(stats, loop, *metrics, &options, &err), err);
    record(run_dir, role, 0, address);
}

/* Of all of mt80 what a learner says late in a run. */
static void say_tasks(metrics_t *learner)
{
    struct coordinator_task tasks[80];
    char text[METRICS_LONG_MAX];
    struct config config;
    struct task_set set;
    double returns[80];
    struct error err;

    config_init(&config);
    snprintf(config.task, sizeof(config.task), "mt80");
    assert_ok(task_set_init(&set, &config, NULL, &err), err);
    for (int i = 0; i < 80; i++) {
        tasks[i] = (struct coordinator_task){.rows = 6812500, .episodes = 13625, .playing = 3};
        returns[i] = 987.6;
    }
    assert_in_range(task_line(text, sizeof(text), &set, tasks, returns, 80), 4000, 8000);
    metrics_text(learner, METRIC_tasks, "%s", text);
    task_set_release(&set);
}

static void *run_parts(void *context)
{
    struct parts *parts = context;
    metrics_t *learner, *shard;
    stats_t *of_learner, *of_shard;
    struct error err;
    loop_t *loop;

    assert_ok(loop_create(&loop, &err), err);
    serve(loop, &learner, &of_learner, "learner", METRIC_LEARNER, parts->run_dir);
    serve(loop, &shard, &of_shard, "replay", METRIC_SHARD, parts->run_dir);
    metrics_add(learner, METRIC_updates, 1234567);
    metrics_set(learner, METRIC_ratio, 0.98);
    metrics_text(learner, METRIC_waiting, "the actors");
    say_tasks(learner);
    metrics_record(shard, METRIC_commit_ms, 3.5);
    metrics_set(shard, METRIC_replay_bytes, 12.5e6);
    atomic_store(&parts->ready, 1);
    while (!atomic_load(&parts->stop))
        loop_run_for(loop, 20);
    stats_close(&of_learner);
    stats_close(&of_shard);
    metrics_destroy(&learner);
    metrics_destroy(&shard);
    loop_destroy(&loop);
    return NULL;
}

/* Valid until the next call. */
static const char *captured(void (*print)(const struct stats_run *run, FILE *out),
                            const struct stats_run *run)
{
    static char text[65536];
    FILE *out = fmemopen(text, sizeof(text), "w");

    print(run, out);
    fclose(out);
    return text;
}

static void print_table(const struct stats_run *run, FILE *out)
{
    stats_print_table(run, 100, out);
}

static void print_json(const struct stats_run *run, FILE *out)
{
    assert_int_equal(stats_print_json(run, out), TD_OK);
}

static void check_table(const struct stats_run *run)
{
    const char *text = captured(print_table, run);

    assert_non_null(strstr(text, "learner"));
    assert_non_null(strstr(text, "replay-0"));
    assert_non_null(strstr(text, "1,234,567"));
    assert_non_null(strstr(text, "12.5 MB"));
    assert_non_null(strstr(text, "learner waits for: the actors"));
    assert_non_null(strstr(text, "actor-3 does not answer"));
    assert_null(strstr(text, "segments_bad")); /* nothing to say: left out */
    assert_non_null(strstr(text, "learner has tasks:\n  walker-stand 6812500 rows 13625 episodes 3 playing R 987.6\n  walker-walk "));
    assert_non_null(strstr(text, "\n  mw-hand-insert 6812500 rows 13625 episodes 3 playing R 987.6\n")); /* the last of 80 */
    assert_null(strstr(text, "more tasks"));
}

/* The most that there may be, of names that are too long for all to be told: it says how many are missing. */
static void what_is_cut_says_so(void **state)
{
    static const char name[] = "a-task-with-a-name-as-long-as-a-path-in-a-package/of.somebody:EnvironmentNumber";
    struct task_set set = {.count = TASKS_MAX, .task = calloc(TASKS_MAX, sizeof(*set.task))};
    struct coordinator_task tasks[TASKS_MAX];
    char text[METRICS_LONG_MAX], end[64];
    double returns[TASKS_MAX];
    int told = 0;

    (void)state;
    for (int i = 0; i < TASKS_MAX; i++) {
        snprintf(set.task[i].name, sizeof(set.task[i].name), "%s%d", name, i);
        tasks[i] = (struct coordinator_task){UINT64_MAX, UINT64_MAX, UINT32_MAX};
        returns[i] = i % 2 == 0 ? -1.23456789e-300 : NAN;
    }
    for (size_t size = 64; size <= sizeof(text); size += size < 2000 ? 1 : 997) {
        size_t length = task_line(text, size, &set, tasks, returns, TASKS_MAX);

        assert_int_equal(length, strlen(text));
        assert_true(strlen(text) < size);
        told = 0;
        for (const char *at = text; (at = strstr(at, name)) != NULL; at++)
            told++;
        snprintf(end, sizeof(end), told == 0 ? "%d tasks" : "; and %d more tasks", TASKS_MAX - told);
        assert_true(told < TASKS_MAX);
        assert_string_equal(text + strlen(text) - strlen(end), end);
    }
    assert_true(told > 100);
    free(set.task);
}

static void check_json(const struct stats_run *run)
{
    const char *text = captured(print_json, run);
    cJSON *json = cJSON_Parse(text), *parts = cJSON_GetObjectItem(json, "parts");

    assert_int_equal(cJSON_GetArraySize(parts), 3);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetArrayItem(parts, 0), "reachable")));
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(cJSON_GetArrayItem(parts, 2), "reachable")));
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(
                    cJSON_GetObjectItem(cJSON_GetArrayItem(parts, 0), "metrics"), "updates")) == 1234567);
    assert_non_null(strstr(cJSON_GetStringValue(cJSON_GetObjectItem(
                        cJSON_GetObjectItem(cJSON_GetArrayItem(parts, 0), "metrics"), "tasks")), "; mw-hand-insert "));
    cJSON_Delete(json);
}

static void parts_are_asked_and_shown(void **state)
{
    struct parts parts = {0};
    struct stats_run *run = calloc(1, sizeof(*run));
    struct error err;
    char address[ADDRESS_MAX];

    (void)state;
    snprintf(parts.run_dir, sizeof(parts.run_dir), "%s/run-a", test_folder());
    snprintf(address, sizeof(address), "ipc://%s/nobody", test_folder());
    record(parts.run_dir, "actor", 3, address);
    assert_int_equal(pthread_create(&parts.thread, NULL, run_parts, &parts), 0);
    while (!atomic_load(&parts.ready))
        usleep(1000);
    assert_ok(stats_find(run, parts.run_dir, &err), err);
    assert_int_equal(run->count, 3);
    assert_int_equal(stats_ask(run, false, "", 700, &err), 2);
    check_table(run);
    check_json(run);
    stats_forget(run);

    snprintf(address, sizeof(address), "ipc://%s/stats-learner", test_folder());
    assert_ok(stats_find(run, address, &err), err);
    assert_int_equal(stats_ask(run, false, "", 5000, &err), 1);
    stats_forget(run);
    atomic_store(&parts.stop, 1);
    pthread_join(parts.thread, NULL);
    channel_shutdown();
    free(run);
}

static void bad_words_are_refused(void **state)
{
    char *unknown[] = {"stats", "--nonsense", NULL}, *missing[] = {"stats", "/no/such/run", NULL};
    char *network[] = {"stats", "tcp://10.0.0.1:5555", NULL}, *bad[] = {"stats", "udp://x", NULL};

    (void)state;
    assert_int_equal(cmd_stats(2, unknown), TD_EXIT_BAD_INPUT);
    assert_int_equal(cmd_stats(2, missing), TD_EXIT_BAD_INPUT);
    assert_int_equal(cmd_stats(2, network), TD_EXIT_BAD_INPUT);
    assert_int_equal(cmd_stats(2, bad), TD_EXIT_BAD_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_asked_and_shown),
        cmocka_unit_test(what_is_cut_says_so),
        cmocka_unit_test(bad_words_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
