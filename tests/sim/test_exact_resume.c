/*
 * A lock-step run stopped anywhere and resumed ends in the bits of one never stopped: production schedule,
 * session, store, environment, planner, update and checkpoint files, in one process on a virtual clock.
 *
 * What is compared are the SHA-256 of learner/digest.h: parameters, targets, Adam's moments, running scale,
 * counters, random numbers, environment, and every column of the replay window, in order.
 */
#include <errno.h>
#include <unistd.h>

#include "common/model/world_model.h"
#include "common/util/fs.h"
#include "learner/training_memory.h"
#include "tests/support/cluster_real.h"
#include "tests/support/rewrite.h"
#include "tests/support/test.h"

#define LONG_ENOUGH_MS (40ull * 3600 * 1000)
#define STEPS          230
#define SEED_STEPS     37 /* the first planned step falls into the middle of an episode, after an evaluation */
#define BUFFER         100

static void exact_options(struct cluster_options *options)
{
    cluster_defaults(options);
    options->task = "toy-episodic:15";
    options->lockstep = options->episodic = true;
    options->actors = 1;
    options->steps = STEPS;
    options->seed_steps = SEED_STEPS;
    options->buffer_size = BUFFER;
    options->eval_freq = 45;
    options->checkpoint_steps = 30;
    options->checkpoint_every_ms = 30; /* several in the burst */
    options->batch = 4;
    options->horizon = 3;
}

/* --- a run ------------------------------------------------------------------- */

static struct digest expected;
static uint64_t expected_rows;

static void kill_all(struct cluster *cluster)
{
    cluster_kill(cluster, cluster_actor(cluster, 0), 60);
    cluster_kill(cluster, cluster_learner(cluster), 50);
    cluster_kill(cluster, cluster_shard(cluster, 0), 55);
}

/* Whatever has ended starts again. */
static void start_all(struct cluster *cluster)
{
    struct cluster_node *nodes[] = {cluster_learner(cluster), cluster_shard(cluster, 0), cluster_actor(cluster, 0)};

    for (size_t i = 0; i < TD_LEN(nodes); i++)
        if (!nodes[i]->alive)
            nodes[i]->start_at = cluster->now + 50;
}

static uint64_t hash_rows(const struct cluster *cluster)
{
    return cluster_hash(cluster); /* of the csv lines: there are no other hashes in a real run */
}

static void run_folder(struct cluster *cluster, const char *name, char path[FS_PATH_MAX])
{
    char dir[FS_PATH_MAX];

    real_run_dir(cluster, dir);
    assert_int_equal(fs_join(path, dir, name, NULL), TD_OK);
}

/*
 * So small a model never leaves the running scale's first value by itself, and what stays at its first value
 * cannot be lost: all runs here begin with a cut 0 that says 4.
 */
static void begin(struct cluster *cluster)
{
    char folder[FS_PATH_MAX], cut[FS_PATH_MAX];
    struct rewrite rewrite;

    run_folder(cluster, "checkpoints", folder);
    run_folder(cluster, "checkpoints/step-0/manifest.json", cut);
    while (access(cut, F_OK) != 0)
        cluster_run(cluster, 1);
    kill_all(cluster);
    rewrite_open(&rewrite, folder, "step-0");
    rewrite_set_scale(&rewrite, 4);
    rewrite_close(&rewrite);
}

/* To its end; the digest of what is left. NULL, or the learner's last words when it does not end well. */
static const char *finish(struct cluster *cluster, struct digest *digest)
{
    if (!cluster_run(cluster, LONG_ENOUGH_MS))
        fail_msg("no end; waiting for %s", cluster_view(cluster).wait);
    if (cluster_learner(cluster)->exit_code != TD_EXIT_OK)
        return cluster_learner(cluster)->exit_text;
    real_digest(cluster, digest);
    return NULL;
}

/* --- where and how it is stopped ----------------------------------------------- */

enum place { SEEDING, BURST, EVALUATION, EVICTING, PUBLISHING, SAVED, PLACES };
static const char *const places[] = {"seeding", "burst", "evaluation", "evicting", "publishing", "saved"};

enum manner { TERM_LEARNER, KILL_LEARNER, KILL_ALL, KILL_SHARD, KILL_ACTOR, STOPS };
static const char *const stops[] = {"SIGTERM", "learner killed", "all killed", "shard killed", "actor killed"};

struct stopping {
    struct cluster *cluster;
    enum place place;
    enum manner stop;
    uint64_t after; /* so many messages in that place; publishing: disk steps; saved: checkpoints */
    bool done;
    void (*between)(struct cluster *cluster, void *context); /* while it is down */
    void *context;
};

static bool is_at(struct cluster *cluster, enum place place)
{
    struct coordinator_view view = cluster_view(cluster);

    switch (place) {
    case SEEDING:
        return view.updates == 0 && view.steps > 0 && view.steps < SEED_STEPS;
    case BURST:
        return view.updates > 0 && view.updates < SEED_STEPS;
    case EVALUATION:
        return view.updates > 0 && strstr(view.wait, "the evaluation") != NULL;
    case EVICTING:
        return view.updates > SEED_STEPS && view.rows > BUFFER + 20;
    default:
        return false;
    }
}

/* So many messages are delivered in each, disk steps of checkpoints taken, checkpoints made durable. */
static uint64_t moments[PLACES];

static void count_message(struct cluster *cluster, void *context)
{
    (void)context;
    for (enum place place = 0; place < PLACES; place++)
        moments[place] += is_at(cluster, place);
}

static int count_disk(const char *operation, const char *path)
{
    (void)operation;
    (void)path;
    moments[PUBLISHING] += real_writing;
    return 0;
}

static void count_saved(struct cluster *cluster, void *context)
{
    (void)cluster;
    (void)context;
    moments[SAVED]++;
}

static void strike(struct stopping *stopping)
{
    struct cluster *cluster = stopping->cluster;
    struct cluster_node *learner = cluster_learner(cluster), *shard = cluster_shard(cluster, 0),
                        *actor = cluster_actor(cluster, 0);

    stopping->done = true;
    switch (stopping->stop) {
    case TERM_LEARNER:
        cluster_terminate(cluster, learner, 50);
        break;
    case KILL_LEARNER:
        cluster_kill(cluster, learner, 50);
        break;
    case KILL_ALL:
        kill_all(cluster);
        break;
    case KILL_SHARD:
        cluster_kill(cluster, shard, 50);
        break;
    default:
        cluster_kill(cluster, actor, 50);
        break;
    }
    if (stopping->between != NULL)
        stopping->between(cluster, stopping->context);
}

static void on_message(struct cluster *cluster, void *context)
{
    struct stopping *stopping = context;

    if (!stopping->done && is_at(cluster, stopping->place) && stopping->after-- == 0)
        strike(stopping);
}

/* Counted down over the disk steps of checkpoints; from the last on nothing is done. */
static int64_t disk_steps;

static int stop_disk(const char *operation, const char *path)
{
    (void)operation;
    (void)path;
    return real_writing && --disk_steps < 0 ? EIO : 0;
}

static void on_save_failed(struct cluster *cluster, void *context)
{
    struct stopping *stopping = context;

    (void)cluster;
    fs_fault = NULL;
    strike(stopping);
}

/* The checkpoint is durable, and what it stands on must be, too. */
static void on_saved(struct cluster *cluster, void *context)
{
    struct stopping *stopping = context;

    (void)cluster;
    if (!stopping->done && stopping->place == SAVED && stopping->after-- == 0)
        strike(stopping);
}

/* Stop a run as told and let it end. */
static const uint64_t usual_max = 4000000;

static const char *run_stopped(struct stopping *stopping, struct digest *digest, uint64_t *rows)
{
    struct cluster_options options;
    const char *refused;
    static char text[OUTPUT_TEXT_MAX];

    exact_options(&options);
    options.seed = rng_u64(test_rng()); /* of the delays */
    stopping->cluster = cluster_create(&options);
    training_in_memory_max = stopping->after % 2 == 0 ? 0 : usual_max; /* copies in files, or in memory */
    begin(stopping->cluster);
    stopping->cluster->on_delivered = on_message;
    stopping->cluster->on_saved = on_saved;
    stopping->cluster->on_save_failed = on_save_failed;
    stopping->cluster->context = stopping;
    if (stopping->place == PUBLISHING) {
        disk_steps = (int64_t)stopping->after;
        fs_fault = stop_disk;
    }
    refused = finish(stopping->cluster, digest);
    fs_fault = NULL;
    if (!stopping->done)
        fail_msg("the run never came to message %llu of %s", (unsigned long long)stopping->after,
                 places[stopping->place]);
    *rows = hash_rows(stopping->cluster);
    snprintf(text, sizeof(text), "%s", refused != NULL ? refused : "");
    cluster_destroy(&stopping->cluster);
    return refused != NULL ? text : NULL;
}

static void check(enum place place, enum manner stop, uint64_t after)
{
    struct stopping stopping = {.place = place, .stop = stop, .after = after};
    struct digest digest;
    uint64_t rows;
    const char *refused = run_stopped(&stopping, &digest, &rows), *part;

    if (refused != NULL)
        fail_msg("%s at %llu of %s: %s", stops[stop], (unsigned long long)after, places[place], refused);
    part = digest_difference(&expected, &digest);
    if (part != NULL || rows != expected_rows)
        fail_msg("%s at %llu of %s: another end: %s", stops[stop], (unsigned long long)after, places[place],
                 part != NULL ? part : "csv");
}

/* --- stopped and resumed ------------------------------------------------------- */

/* The run that nothing stops; how much happens in each place on its way. Then again, with other delays. */
static int run_whole(void **state)
{
    struct cluster_options options;
    struct cluster *cluster;
    struct digest again;

    (void)state;
    exact_options(&options);
    for (int round = 0; round < 2; round++) {
        options.seed = (uint64_t)(1 + round);
        cluster = cluster_create(&options);
        begin(cluster);
        cluster->on_delivered = round == 0 ? count_message : NULL;
        cluster->on_saved = round == 0 ? count_saved : NULL;
        fs_fault = round == 0 ? count_disk : NULL;
        assert_null(finish(cluster, round == 0 ? &expected : &again));
        fs_fault = NULL;
        if (round == 0)
            expected_rows = hash_rows(cluster);
        assert_true(hash_rows(cluster) == expected_rows);
        cluster_destroy(&cluster);
    }
    assert_null(digest_difference(&expected, &again));
    assert_int_equal(expected.parts, 17);
    for (enum place place = 0; place < PLACES; place++) {
        printf("  %llu moments of %s\n", (unsigned long long)moments[place], places[place]);
        assert_true(moments[place] > 5);
    }
    return 0;
}

static void stopped_anywhere_ends_in_the_same_bits(void **state)
{
    int each = test_long() ? 100 : 2;

    (void)state;
    for (int round = 0; round < each; round++)
        for (enum place place = 0; place < PLACES; place++)
            for (enum manner stop = 0; stop < STOPS; stop++)
                check(place, stop, rng_below(test_rng(), (uint32_t)(moments[place] * 9 / 10)));
}

/* --- each part of the state left out -------------------------------------------- */

enum part_kind { NOTHING, TENSORS, COUNTER, ENVIRONMENT, PLAN, REPLAY };
enum effect { UNTRIED, OTHER_BITS, REFUSED, NO_EFFECT };

struct part {
    enum part_kind kind;
    const char *name;        /* tensors: how their names begin */
    const char *value;       /* of a counter that was not kept */
    enum effect at[PLACES];  /* by where the run was stopped */
    const char *why;         /* where the end stays the same */
};
#define BOTH(effect) {[BURST] = effect, [EVICTING] = effect}

static const struct part parts[] = {
    {NOTHING, "anything", NULL, BOTH(NO_EFFECT), "the checkpoint was written again as it was"},
    {TENSORS, "_encoder", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "_dynamics", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "_reward", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "_termination", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "_pi", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "_Qs", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "_target_Qs_params", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "m.", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "v.", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "steps", NULL, BOTH(OTHER_BITS), NULL},
    {TENSORS, "scale", NULL, BOTH(OTHER_BITS), NULL},
    {COUNTER, "updates", "0", BOTH(OTHER_BITS), NULL},
    {COUNTER, "step", "0", BOTH(OTHER_BITS), NULL},
    {COUNTER, "evaluate_first", "0", {[SEEDING] = OTHER_BITS}, NULL},
    {COUNTER, "spec.obs_type", "0", BOTH(OTHER_BITS), NULL},
    {COUNTER, "spec.episode_length", "0", BOTH(OTHER_BITS), NULL},
    {COUNTER, "spec.saves_state", "0", BOTH(OTHER_BITS), NULL},
    {COUNTER, "seed_steps", "0", BOTH(OTHER_BITS), NULL},
    {COUNTER, "state_size", "0", BOTH(OTHER_BITS), NULL},
    {COUNTER, "spec.obs_dim", "0", BOTH(REFUSED), NULL},
    {COUNTER, "spec.action_dim", "0", BOTH(REFUSED), NULL},
    {COUNTER, "spec.tasks", "2", BOTH(REFUSED), NULL},
    {COUNTER, "lockstep", "0", BOTH(REFUSED), NULL},
    {COUNTER, "episode", "0", BOTH(REFUSED), NULL},
    {COUNTER, "rows", "0", BOTH(REFUSED), NULL},
    {COUNTER, "store", "[]", BOTH(REFUSED), NULL},
    {COUNTER, "store_steps", "[]", BOTH(REFUSED), NULL},
    {COUNTER, "kept_window", "[]", BOTH(NO_EFFECT), "what the shard may free: disk, not bits"},
    {COUNTER, "window", "0", BOTH(NO_EFFECT), "each request works it out anew from buffer_size"},
    {COUNTER, "learner_epoch", "0", BOTH(NO_EFFECT), "a record; run.json counts the starts"},
    {COUNTER, "next_eval", "0", BOTH(NO_EFFECT), "of asynchronous runs: tests/unit/learner/test_coordinator"},
    {COUNTER, "episodes", "0", BOTH(NO_EFFECT), "of asynchronous runs: tests/unit/learner/test_coordinator"},
    {COUNTER, "phase", "0", BOTH(NO_EFFECT), "of asynchronous runs: tests/unit/learner/test_coordinator"},
    {COUNTER, "excess", "0", BOTH(NO_EFFECT), "of asynchronous runs: tests/unit/learner/test_coordinator"},
    {COUNTER, "burst_target", "0", BOTH(NO_EFFECT), "of asynchronous runs: tests/unit/learner/test_coordinator"},
    {ENVIRONMENT, "environment", NULL, BOTH(OTHER_BITS), NULL},
    {PLAN, "plan", NULL, {[BURST] = OTHER_BITS}, NULL},
    {REPLAY, "replay", NULL, BOTH(REFUSED), NULL},
};

static void leave_out(struct cluster *cluster, void *context)
{
    const struct part *part = context;
    struct rewrite rewrite;
    char folder[FS_PATH_MAX];

    run_folder(cluster, "checkpoints", folder);
    if (part->kind == REPLAY) {
        shard_host_folder(cluster, cluster_shard(cluster, 0), folder, sizeof(folder));
        assert_int_equal(fs_remove_tree(folder, NULL), TD_OK);
        return;
    }
    rewrite_open(&rewrite, folder, NULL);
    if (part->kind == TENSORS)
        assert_true(rewrite_forget(&rewrite, part->name) > 0);
    else if (part->kind == COUNTER)
        rewrite_counter(&rewrite, part->name, part->value);
    else if (part->kind == ENVIRONMENT)
        rewrite_environment(&rewrite);
    else if (part->kind == PLAN)
        rewrite_plan(&rewrite);
    rewrite_close(&rewrite);
}

/* What leaving the part out leads to, also in words. */
static enum effect effect_of(const struct part *part, enum place place, char *text, size_t size)
{
    static const uint64_t after[PLACES] = {[SEEDING] = 20, [BURST] = 60, [EVICTING] = 300};
    struct stopping stopping = {.place = place, .stop = KILL_ALL, .after = after[place], .between = leave_out,
                                .context = (void *)(uintptr_t)part};
    struct digest digest;
    uint64_t rows;
    const char *refused = run_stopped(&stopping, &digest, &rows), *differs;

    if (refused != NULL) {
        snprintf(text, size, "refused: %.150s", refused);
        return REFUSED;
    }
    differs = digest_difference(&expected, &digest);
    if (differs == NULL && rows == expected_rows) {
        snprintf(text, size, "no effect: %s", part->why != NULL ? part->why : "");
        return NO_EFFECT;
    }
    snprintf(text, size, "other bits, first in %s", differs != NULL ? differs : "csv lines");
    return OTHER_BITS;
}

static void every_part_matters(void **state)
{
    int wrong = 0, tried = 0;

    (void)state;
    for (size_t i = 0; i < TD_LEN(parts); i++)
        for (enum place place = 0; place < PLACES; place++) {
            char text[200];
            bool right;

            if (parts[i].at[place] == UNTRIED)
                continue;
            right = effect_of(&parts[i], place, text, sizeof(text)) == parts[i].at[place];
            printf("  without %-20s in %-9s %s%s\n", parts[i].name, places[place], text,
                   right ? "" : "   <- expected otherwise");
            wrong += !right;
            tried++;
        }
    assert_true(tried > 50);
    if (wrong > 0)
        fail_msg("%d of %d parts left out had another effect than the table says", wrong, tried);
}

/* The table knows every counter that a checkpoint holds. */
static void the_table_is_complete(void **state)
{
    struct progress *progress = calloc(1, sizeof(*progress));
    cJSON *json = progress_to_json(progress), *item;

    (void)state;
    cJSON_ArrayForEach(item, json) {
        bool known = false;

        for (size_t i = 0; i < TD_LEN(parts); i++)
            known |= parts[i].kind == COUNTER && strcmp(parts[i].name, item->string) == 0;
        if (!known)
            fail_msg("nothing says what happens when '%s' is not restored", item->string);
    }
    cJSON_Delete(json);
    free(progress);
}

/* --- options changed between stop and resume ---------------------------------------- */

/* Every option that a resumed run takes: another value, and whether the bits depend on it as its class says. */
static const struct {
    const char *word;
    const char *why; /* where it cannot be tried here */
} changes[] = {
    {"steps", "a_finished_run_is_extended_to_the_bits_of_a_longer_one"},
    {"utd", "lock-step has utd=1"},
    {"actors", "lock-step has one actor"},
    {"envs", "lock-step has one environment"},
    {"replay_dir", "a place: test_run"},
    {"data_dir", "offline training has no lock-step"},
    {"save_video", "lock-step records none"},
    {"tensorboard", "written by the journal, which the simulation has not: test_tensorboard"},
    {"actor_dtype=bf16", NULL},
    {"exp_name=other", NULL},
    {"eval_episodes=3", NULL},
    {"eval_freq=33", NULL},
    {"eval_first=false", NULL},
    {"evaluator=off", NULL},
    {"env_cache=1", NULL},
    {"slack=2", NULL},
    {"broadcast_interval=0.2", NULL},
    {"max_staleness=5", NULL},
    {"outbox=16", NULL},
    {"heartbeat=1", NULL},
    {"learner_timeout=100", NULL},
    {"checkpoint_every=2", NULL},
    {"checkpoint_steps=17", NULL},
    {"keep_checkpoints=1", NULL},
    {"commit_interval_ms=0", NULL},
    {"disk_limit=5", NULL},
    {"save_csv=false", NULL},
    {"compress_frames=false", NULL},
};

static void give(struct cluster *cluster, void *context)
{
    cluster->words[0] = context;
}

static enum effect effect_of_option(const char *word, const struct config_option *option, const char **differs)
{
    /* whether to evaluate first only counts before the first step */
    enum place place = strcmp(option->name, "eval_first") == 0 ? SEEDING : EVICTING;
    struct stopping stopping = {.place = place, .stop = KILL_ALL, .after = place == SEEDING ? 20 : 300, .between = give,
                                .context = (void *)(uintptr_t)word};
    struct digest digest;
    uint64_t rows;

    *differs = run_stopped(&stopping, &digest, &rows);
    if (*differs != NULL)
        return REFUSED;
    *differs = digest_difference(&expected, &digest);
    return *differs != NULL || rows != expected_rows ? OTHER_BITS : NO_EFFECT;
}

static const char *change_of(const struct config_option *option, const char **why)
{
    for (size_t i = 0; i < TD_LEN(changes); i++) {
        size_t length = strcspn(changes[i].word, "=");

        *why = changes[i].why;
        if (strlen(option->name) == length && strncmp(option->name, changes[i].word, length) == 0)
            return changes[i].word;
    }
    fail_msg("%s may change on resume: say here to what, and whether lock-step stays exact", option->name);
    return NULL;
}

static void the_class_of_every_option_is_true(void **state)
{
    int count, tried = 0;
    const struct config_option *options = config_options(&count);

    (void)state;
    model_half_least = 0; /* the model here is tiny, and actor_dtype=bf16 is to show */
    for (int i = 0; i < count; i++) {
        const char *word, *why, *differs;
        enum effect effect;

        if (options[i].change != CONFIG_SAFE && options[i].change != CONFIG_BITS)
            continue;
        word = change_of(&options[i], &why);
        if (why != NULL)
            continue;
        effect = effect_of_option(word, &options[i], &differs);
        if (effect != (options[i].change == CONFIG_SAFE ? NO_EFFECT : OTHER_BITS))
            fail_msg("%s on resume: %s (%s), its class says otherwise", word,
                     effect == OTHER_BITS ? "other bits" : effect == REFUSED ? "refused" : "no effect",
                     differs != NULL ? differs : "csv");
        tried++;
    }
    assert_true(tried > 15);
}

/* A run of fewer steps, gone on with until it has as many. */
static void a_finished_run_is_extended_to_the_bits_of_a_longer_one(void **state)
{
    static const char word[] = "steps=230";
    struct cluster_options options;
    struct cluster *cluster;
    struct digest digest;

    (void)state;
    exact_options(&options);
    options.steps = 170;
    cluster = cluster_create(&options);
    begin(cluster);
    assert_true(cluster_run(cluster, LONG_ENOUGH_MS));
    assert_int_equal(cluster_learner(cluster)->exit_code, TD_EXIT_OK);
    cluster->words[0] = word;
    kill_all(cluster); /* who has not heard yet that it is over */
    start_all(cluster);
    assert_null(finish(cluster, &digest));
    assert_null(digest_difference(&expected, &digest));
    assert_true(hash_rows(cluster) == expected_rows);
    cluster_destroy(&cluster);
}

/* The rows below a checkpoint are synced before it is. */
static void all_killed_right_after_every_checkpoint(void **state)
{
    int seeds = test_long() ? 50 : 1;

    (void)state;
    for (int seed = 0; seed < seeds; seed++)
        for (uint64_t after = 0; after < moments[SAVED] - 1; after++) /* the last one is the end */
            check(SAVED, KILL_ALL, after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stopped_anywhere_ends_in_the_same_bits),
        cmocka_unit_test(all_killed_right_after_every_checkpoint),
        cmocka_unit_test(the_table_is_complete),
        cmocka_unit_test(every_part_matters),
        cmocka_unit_test(the_class_of_every_option_is_true),
        cmocka_unit_test(a_finished_run_is_extended_to_the_bits_of_a_longer_one),
    };

    return cmocka_run_group_tests(tests, run_whole, NULL);
}
