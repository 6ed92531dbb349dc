/*
 * Lock-step in the simulated cluster: the recorded schedule event by event, and the same final bits
 * whatever is killed, stopped or cut off, and whenever.
 */
#include <cjson/cJSON.h>

#include "common/util/clock.h"
#include "common/util/fs.h"
#include "tests/support/cluster.h"
#include "tests/support/test.h"

#define LONG_ENOUGH_MS (40ull * 3600 * 1000)

static void lockstep_options(struct cluster_options *options)
{
    cluster_defaults(options);
    options->lockstep = true;
    options->actors = 1;
    options->steps = 40;
    options->seed_steps = 13;
    options->eval_freq = 17;
    options->checkpoint_steps = 10;
    options->checkpoint_every_ms = 30;
    options->batch = 2;
}

/* --- the recording ----------------------------------------------------------- */

static bool is(const cJSON *event, const char *name)
{
    return strcmp(cJSON_GetStringValue(cJSON_GetArrayItem(event, 0)), name) == 0;
}

static uint64_t field(const cJSON *event, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(cJSON_GetArrayItem(event, 1), name);

    assert_non_null(item);
    if (cJSON_IsBool(item))
        return cJSON_IsTrue(item) != 0;
    return (uint64_t)item->valuedouble;
}

/*
 * Does what the cluster did next agree with the recorded event? `store` leaves no trace of its own.
 * The recording's buffer was larger than ours, which holds `capacity` rows in whole episodes.
 */
static void compare_event(const cJSON *event, const struct trace *trace, uint64_t capacity)
{
    if (is(event, "reset"))
        assert_int_equal(trace->kind, TRACE_RESET);
    else if (is(event, "random_action"))
        assert_int_equal(trace->kind, TRACE_RANDOM);
    else if (is(event, "env_step"))
        assert_int_equal(trace->kind, TRACE_STEP);
    else if (is(event, "plan")) {
        assert_int_equal(trace->kind, TRACE_PLAN);
        assert_true(trace->first == field(event, "t0") && trace->eval == field(event, "eval"));
    } else if (is(event, "update")) {
        assert_int_equal(trace->kind, TRACE_UPDATE);
        if (field(event, "rows") <= capacity) {
            assert_true(trace->episodes == field(event, "samplable_episodes"));
            assert_true(trace->rows == field(event, "rows"));
        } else {
            assert_true(trace->episodes < field(event, "samplable_episodes"));
            assert_true(trace->rows <= capacity && trace->rows + 8 > capacity);
        }
    } else if (is(event, "log")) {
        const char *category = cJSON_GetStringValue(
            cJSON_GetObjectItem(cJSON_GetArrayItem(event, 1), "category"));

        assert_int_equal(trace->kind, strcmp(category, "eval") == 0 ? TRACE_EVAL : TRACE_TRAIN);
        assert_true(trace->rows == field(event, "step"));
        assert_true(trace->episodes == field(event, "episode"));
    } else {
        fail_msg("unknown event");
    }
}

static void compare_recording(const cJSON *recording)
{
    const cJSON *config = cJSON_GetObjectItem(recording, "config"), *event, *length;
    struct cluster_options options;
    struct cluster *cluster;
    size_t at = 0;

    lockstep_options(&options);
    options.trace = true;
    options.steps = (uint64_t)cJSON_GetObjectItem(config, "steps")->valuedouble;
    options.seed_steps = (uint64_t)cJSON_GetObjectItem(config, "seed_steps")->valuedouble;
    options.eval_freq = (uint64_t)cJSON_GetObjectItem(config, "eval_freq")->valuedouble;
    options.eval_episodes = (uint32_t)cJSON_GetObjectItem(config, "eval_episodes")->valuedouble;
    options.episodic = cJSON_IsTrue(cJSON_GetObjectItem(config, "episodic"));
    options.truncates = !options.episodic;
    options.length_count = 0;
    cJSON_ArrayForEach(length, cJSON_GetObjectItem(config, "episode_lengths"))
        options.lengths[options.length_count++] = (uint32_t)length->valuedouble;
    cluster = cluster_create(&options);
    assert_true(cluster_run(cluster, LONG_ENOUGH_MS));
    assert_int_equal(cluster_learner(cluster)->exit_code, TD_EXIT_OK);
    cJSON_ArrayForEach(event, cJSON_GetObjectItem(recording, "events")) {
        if (is(event, "store"))
            continue;
        if (is(event, "finish"))
            break;
        assert_true(at < cluster->trace_count);
        compare_event(event, &cluster->trace[at++], options.steps);
    }
    assert_int_equal(at, cluster->trace_count);
    cluster_destroy(&cluster);
}

static void the_recorded_schedule_event_by_event(void **state)
{
    struct error err = {0};
    char *text = NULL;
    size_t length;
    cJSON *recordings, *recording;

    (void)state;
    assert_ok(fs_read_file("tests/golden/schedule.json", 1 << 20, &text, &length, &err), err);
    recordings = cJSON_Parse(text);
    assert_true(cJSON_GetArraySize(recordings) >= 2);
    cJSON_ArrayForEach(recording, recordings)
        compare_recording(recording);
    cJSON_Delete(recordings);
    free(text);
}

/* --- faults ------------------------------------------------------------------ */

enum fault { FAULT_NONE, FAULT_KILL_LEARNER, FAULT_KILL_SHARD, FAULT_KILL_ACTOR, FAULT_KILL_ALL,
             FAULT_TERM_LEARNER, FAULT_TERM_ACTOR, FAULT_CUT, FAULT_STOP_ACTOR, FAULT_COUNT };

struct trouble {
    enum fault fault;
    uint64_t at;    /* after this message */
    uint64_t every; /* and again after so many; 0: once */
    uint64_t down_ms;
    int most; /* troubles in all; 0: any number */
};

static void happens(struct cluster *cluster, void *context)
{
    struct trouble *trouble = context;
    struct cluster_node *learner = cluster_learner(cluster), *shard = cluster_shard(cluster, 0),
                        *actor = cluster_actor(cluster, 0);

    if (cluster->delivered < trouble->at)
        return;
    trouble->at = trouble->every > 0 && trouble->most != 1 ? cluster->delivered + trouble->every
                                                           : UINT64_MAX;
    trouble->most--;
    switch (trouble->fault) {
    case FAULT_KILL_LEARNER:
        cluster_kill(cluster, learner, trouble->down_ms);
        break;
    case FAULT_KILL_SHARD:
        cluster_kill(cluster, shard, trouble->down_ms);
        break;
    case FAULT_KILL_ACTOR:
        cluster_kill(cluster, actor, trouble->down_ms);
        break;
    case FAULT_KILL_ALL:
        cluster_kill(cluster, actor, trouble->down_ms);
        cluster_kill(cluster, learner, trouble->down_ms);
        cluster_kill(cluster, shard, trouble->down_ms);
        break;
    case FAULT_TERM_LEARNER:
        cluster_terminate(cluster, learner, trouble->down_ms);
        break;
    case FAULT_TERM_ACTOR:
        cluster_terminate(cluster, actor, trouble->down_ms);
        break;
    case FAULT_CUT:
        cluster_cut(cluster, learner);
        cluster_cut(cluster, shard);
        break;
    case FAULT_STOP_ACTOR:
        actor->stopped_until = cluster->now + 15000; /* longer than "gone" */
        break;
    default:
        break;
    }
}

/* Run with this trouble; the hash of its end and how many messages it took. */
static uint64_t run_with(const struct cluster_options *options, const struct trouble *trouble,
                         uint64_t *messages)
{
    struct cluster *cluster = cluster_create(options);
    struct trouble own = *trouble;
    uint64_t hash;

    cluster->on_delivered = happens;
    cluster->context = &own;
    if (!cluster_run(cluster, LONG_ENOUGH_MS)) {
        struct coordinator_view view = cluster_view(cluster);

        fail_msg("TD_SIM_FAULT=%d,%llu,%llu,%llu,%llu: no end; step %llu, waiting for %s",
                 trouble->fault, (unsigned long long)trouble->at,
                 (unsigned long long)trouble->every, (unsigned long long)trouble->down_ms,
                 (unsigned long long)options->seed, (unsigned long long)view.steps, view.wait);
    }
    if (cluster_learner(cluster)->exit_code != TD_EXIT_OK)
        fail_msg("fault %d after message %llu: the learner left with %d: %s", trouble->fault,
                 (unsigned long long)trouble->at, cluster_learner(cluster)->exit_code,
                 cluster_learner(cluster)->exit_text);
    hash = cluster_hash(cluster);
    if (messages != NULL)
        *messages = cluster->delivered;
    cluster_destroy(&cluster);
    return hash;
}

/* The same run on other timing is the same run. */
static void delays_do_not_matter(void **state)
{
    struct trouble none = {FAULT_NONE, UINT64_MAX, 0, 0, 0};
    struct cluster_options options;
    uint64_t hash;

    (void)state;
    lockstep_options(&options);
    hash = run_with(&options, &none, NULL);
    for (uint64_t seed = 2; seed < 12; seed++) {
        options.seed = seed;
        options.delay_ms = seed * 7;
        options.checkpoint_every_ms = 10 * seed;
        assert_true(run_with(&options, &none, NULL) == hash);
    }
    options.checkpoint_steps = 1000;
    options.snapshot = 3 * WIRE_CHUNK_BYTES + 1000; /* several chunks */
    assert_true(run_with(&options, &none, NULL) == hash);
}

static void every_part_after_every_message(void **state)
{
    struct trouble none = {FAULT_NONE, UINT64_MAX, 0, 0, 0};
    struct cluster_options options;
    uint64_t hash, messages, stride = test_long() ? 1 : 2;

    (void)state;
    lockstep_options(&options);
    hash = run_with(&options, &none, &messages);
    print_message("%llu messages\n", (unsigned long long)messages);
    for (int fault = FAULT_KILL_LEARNER; fault < FAULT_COUNT; fault++)
        for (uint64_t at = 1 + rng_below(test_rng(), (uint32_t)stride); at <= messages; at += stride) {
            struct trouble trouble = {(enum fault)fault, at, 0, at % 3 == 0 ? 11000 : 20, 1};

            if (run_with(&options, &trouble, NULL) != hash)
                fail_msg("fault %d after message %llu: another end", fault, (unsigned long long)at);
        }
}

/* Again and again, every part, at random moments. */
static void troubles_without_end(void **state)
{
    struct trouble none = {FAULT_NONE, UINT64_MAX, 0, 0, 0};
    struct cluster_options options;
    int rounds = test_long() ? 400 : 30;
    uint64_t hash;

    (void)state;
    lockstep_options(&options);
    hash = run_with(&options, &none, NULL);
    for (int round = 0; round < rounds; round++) {
        struct trouble trouble = {
            (enum fault)(1 + rng_below(test_rng(), FAULT_COUNT - 1)),
            rng_below(test_rng(), 100), 20 + rng_below(test_rng(), 200), rng_below(test_rng(), 300), 15};

        options.seed = rng_u64(test_rng());
        if (run_with(&options, &trouble, NULL) != hash)
            fail_msg("round %d, fault %d: another end", round, trouble.fault);
    }
}

/* TD_SIM_FAULT=fault,at,every,down,seed replays one; with TD_SIM_VERBOSE every message is printed. */
static void one_by_hand(void **state)
{
    const char *text = getenv("TD_SIM_FAULT");
    unsigned long long at, every, down, seed;
    struct cluster_options options;
    struct trouble trouble;
    int fault;

    (void)state;
    if (text == NULL)
        skip();
    assert_int_equal(sscanf(text, "%d,%llu,%llu,%llu,%llu", &fault, &at, &every, &down, &seed), 5);
    trouble = (struct trouble){(enum fault)fault, at, every, down, 15};
    lockstep_options(&options);
    options.seed = seed;
    run_with(&options, &trouble, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_by_hand),
        cmocka_unit_test(the_recorded_schedule_event_by_event),
        cmocka_unit_test(delays_do_not_matter),
        cmocka_unit_test(every_part_after_every_message),
        cmocka_unit_test(troubles_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
