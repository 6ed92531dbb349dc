/* digest.c: each part of the state has its own hash, and what is incidental has none. */
#include "learner/digest.h"

#include "learner/progress.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

/* --- checkpoints --------------------------------------------------------------- */

enum change { SAME, ANOTHER_START, WEIGHT, TARGET, M, V, STEPS, SCALE, COUNTER, STEP, STATE, OPTION, NAME, CHANGES };

static const struct {
    const char *first, *second; /* the parts that differ */
} changed[CHANGES] = {
    [WEIGHT] = {"parameters", NULL}, [TARGET] = {"targets", NULL},       [M] = {"adam.m", NULL},
    [V] = {"adam.v", NULL},          [STEPS] = {"adam.steps", NULL},     [SCALE] = {"scale", NULL},
    [COUNTER] = {"counters", NULL},  [STEP] = {"counters", "random numbers"},
    [STATE] = {"environment", NULL}, [OPTION] = {"options", NULL},       [NAME] = {"parameters", NULL},
};

static void fill_manifest(struct manifest *manifest, enum change change)
{
    struct progress progress = {.updates = 9, .step = change == STEP ? 8 : 7, .window = change == COUNTER ? 2 : 1,
                                .learner_epoch = change == ANOTHER_START ? 5 : 4, .stores = 1,
                                .store = {{change == ANOTHER_START ? 77 : 78, 7}}};

    assert_int_equal(manifest_init(manifest), TD_OK);
    manifest->run_id = change == ANOTHER_START ? 1 : 2;
    manifest->config.steps = change == ANOTHER_START ? 500 : 400; /* how far is no part of what was done */
    manifest->config.batch_size = change == OPTION ? 8 : 16;
    cJSON_Delete(manifest->progress);
    manifest->progress = progress_to_json(&progress);
}

static void digest_changed(struct digest *digest, enum change change)
{
    float a = change == WEIGHT ? 2 : 1, target = change == TARGET ? 2 : 1, m = change == M ? 2 : 1,
          v = change == V ? 2 : 1, scale = change == SCALE ? 2 : 1;
    uint64_t steps = change == STEPS ? 2 : 1;
    struct safetensors_tensor parameters[] = {{.name = change == NAME ? "b" : "a", .type = SAFETENSORS_F32, .data = &a},
                                              {.name = "_target_a", .type = SAFETENSORS_F32, .data = &target}};
    struct safetensors_tensor optimizer[] = {{.name = "m.a", .type = SAFETENSORS_F32, .data = &m},
                                             {.name = "v.a", .type = SAFETENSORS_F32, .data = &v},
                                             {.name = "steps", .type = SAFETENSORS_U64, .data = &steps},
                                             {.name = "scale", .type = SAFETENSORS_F32, .data = &scale}};
    struct checkpoint_group groups[] = {{"parameters.safetensors", parameters, 2}, {"optimizer.safetensors", optimizer, 4}};
    struct checkpoint_blob blob = {"environment.bin", change == STATE ? "x" : "y", 1};
    struct checkpoint_parts parts = {.groups = groups, .group_count = 2, .blobs = &blob, .blob_count = 1};
    char folder[512], path[600];
    struct manifest manifest;
    checkpoint_t *checkpoint;
    struct error err = {0};

    snprintf(folder, sizeof(folder), "%s/digest", test_folder());
    snprintf(path, sizeof(path), "%s/one", folder);
    fill_manifest(&manifest, change);
    assert_ok(checkpoint_write(folder, "one", &manifest, &parts, &err), err);
    manifest_release(&manifest);
    assert_ok(checkpoint_open(&checkpoint, path, &err), err);
    memset(digest, 0, sizeof(*digest));
    assert_ok(digest_checkpoint(digest, checkpoint, &err), err);
    checkpoint_close(&checkpoint);
}

/* All parts but these two (may be NULL) are alike. */
static void expect_difference(const struct digest *one, const struct digest *other, const char *first, const char *second)
{
    assert_int_equal(one->parts, other->parts);
    for (int i = 0; i < one->parts; i++) {
        const char *name = one->part[i].name;
        bool differs = strcmp(one->part[i].sha256, other->part[i].sha256) != 0;
        bool wanted = (first != NULL && strcmp(name, first) == 0) || (second != NULL && strcmp(name, second) == 0);

        if (differs != wanted)
            fail_msg("%s %s", name, differs ? "differs" : "is the same");
    }
    if (first == NULL)
        assert_null(digest_difference(one, other));
    else
        assert_string_equal(digest_difference(one, other), first);
}

static void a_change_shows_in_its_own_part(void **state)
{
    struct digest digest, other;

    (void)state;
    digest_changed(&digest, SAME);
    assert_int_equal(digest.parts, 10);
    for (enum change change = SAME; change < CHANGES; change++) {
        digest_changed(&other, change);
        expect_difference(&digest, &other, changed[change].first, changed[change].second);
    }
}

/* --- replay ---------------------------------------------------------------------- */

enum { ROWS = 5, EPISODES = 3 };
static const struct row_schema schema = {OBS_STATE, 4, 2};

enum column { NONE, OBS, ACTION, REWARD, FLAGS, TASK, VERSION, RANDOM, PARAM_EPOCH, ABORTED, ORDER, COLUMNS };

static void alter(char *row, enum column column)
{
    struct row_head *head = row_head(row);

    if (column == OBS)
        ((float *)row_obs(row))[1] += 0.5f;
    else if (column == ACTION)
        row_action(row, &schema)[1] = -row_action(row, &schema)[1] / 2 + 0.125f;
    else if (column == REWARD)
        head->reward += 1;
    else if (column == FLAGS)
        head->flags ^= ROW_TERMINATED | ROW_TRUNCATED;
    else if (column == TASK)
        head->task++;
    else if (column == VERSION)
        head->param_version++;
    else if (column == RANDOM)
        head->param_epoch = 0;
    else if (column == PARAM_EPOCH)
        head->param_epoch++;
}

/* Three episodes; of the second one the last row is altered. */
static void digest_rows(struct digest *digest, enum column column)
{
    static int count;
    char dir[512], rows[ROWS * 256];
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 5, .rows = 1000};
    size_t stride = row_stride(&schema);
    struct error err = {0};
    store_t *store;

    snprintf(dir, sizeof(dir), "%s/rows-%d", test_folder(), count++);
    assert_ok(store_open(&store, &config, &err), err);
    for (uint32_t episode = 0; episode < EPISODES; episode++) {
        uint32_t from = column == ORDER ? EPISODES - 1 - episode : episode;
        struct store_record record = {.epoch = 1, .sequence = from * ROWS, .rows = ROWS, .steps = ROWS - 1};

        for (uint32_t i = 0; i < ROWS; i++) {
            struct test_row_id id = {0, 0, 1, from * ROWS + i};

            test_row_fill(rows + i * stride, &schema, &id, i == 0 ? ROW_FIRST : i + 1 == ROWS ? ROW_TRUNCATED : 0);
            if (i > 0)
                row_head(rows + i * stride)->param_epoch = 7;
        }
        if (episode == 1)
            alter(rows + (ROWS - 1) * stride, column);
        if (episode == 1 && column == ABORTED)
            record.flags = EPISODE_ABORTED;
        assert_ok(store_insert(store, &record, rows, &err), err);
    }
    assert_ok(store_commit(store, &err), err);
    memset(digest, 0, sizeof(*digest));
    assert_ok(digest_replay(digest, store, 0, STORE_NONE, &err), err);
    assert_true(digest->part[0].items == ROWS * EPISODES);
    assert_int_equal(digest_replay(digest, store, 2, 4, &err), TD_ENOTFOUND);
    store_close(&store);
}

static void every_column_of_every_row_counts(void **state)
{
    static const char *const differs[COLUMNS] = {
        [OBS] = "replay.obs",   [ACTION] = "replay.action",   [REWARD] = "replay.reward",  [FLAGS] = "replay.flags",
        [TASK] = "replay.task", [VERSION] = "replay.version", [RANDOM] = "replay.version", [ABORTED] = "replay.episodes",
    };
    struct digest digest, other;

    (void)state;
    digest_rows(&digest, NONE);
    assert_int_equal(digest.parts, 7);
    for (enum column column = NONE; column < ORDER; column++) {
        digest_rows(&other, column);
        expect_difference(&digest, &other, differs[column], NULL);
    }
    digest_rows(&other, ORDER); /* the same rows, the episodes the other way round */
    assert_string_equal(digest_difference(&digest, &other), "replay.obs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_shows_in_its_own_part),
        cmocka_unit_test(every_column_of_every_row_counts),
    };

    setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
