#include "tests/support/test.h"

#include <math.h>

#include "common/util/clock.h"
#include "learner/snapshot.h"

static world_model_t *model;
static update_t *update;
static pool_t *pool;
static char folder[FS_PATH_MAX];

static struct config tiny(void)
{
    struct config config;

    config_init(&config);
    config.enc_dim = config.mlp_dim = 32;
    config.latent_dim = 16;
    config.num_bins = 11;
    config.batch_size = 4;
    return config;
}

static void make(const struct config *config, world_model_t **a_model, update_t **an_update)
{
    struct update_config options;
    struct model_dims dims;
    struct error err = {0};

    struct task_set tasks = {0};

    if (task_set_named(config->task) > 0) {
        assert_ok(task_set_init(&tasks, config, NULL, &err), err);
        assert_ok(model_dims_init_tasks(&dims, config, &tasks, &err), err);
    } else {
        assert_ok(model_dims_init(&dims, config, strcmp(config->obs, "rgb") == 0 ? PIXEL_FRAME_BYTES : 5, 2, &err), err);
    }
    assert_ok(world_model_create(a_model, &dims, true, &err), err);
    world_model_set_tasks(*a_model, &tasks);
    task_set_release(&tasks);
    update_config_init(&options, config, 100);
    assert_ok(update_create(an_update, *a_model, &options, pool, &err), err);
}

/* As tiny, of pixels. */
static struct config tiny_pixels(void)
{
    struct config config = tiny();

    snprintf(config.obs, sizeof(config.obs), "rgb");
    config.num_channels = 1;
    return config;
}

static struct config tiny_tasks(void)
{
    struct config config = tiny();

    snprintf(config.task, sizeof(config.task), "mt30");
    return config;
}

static char many; /* what a test of several tasks is given */
static struct config chosen; /* what model and update were made from */

static int set_up(void **state)
{
    struct config config = chosen = *state == &many ? tiny_tasks() : *state != NULL ? tiny_pixels() : tiny();
    struct update_state moments;

    (void)state;
    struct error err = {0};

    assert_ok(pool_create(&pool, 1, &err), err);
    make(&config, &model, &update);
    world_model_init(model, 3);
    moments = update_state(update);
    for (int i = 0; i < model->layout.tensors; i++) { /* the gaps between tensors are zero, always */
        const struct model_tensor *tensor = &model->layout.tensor[i];

        if (tensor->part == MODEL_TARGET_Q)
            continue;
        rng_normal(test_rng(), moments.m + tensor->offset, tensor->count);
        rng_normal(test_rng(), moments.v + tensor->offset, tensor->count);
    }
    rng_normal(test_rng(), moments.leftover, moments.leftovers);
    *moments.steps = 12345678901ull;
    moments.scale->value = 2.5f;
    model->parameters[model->layout.part[MODEL_TARGET_Q]] = 7; /* targets differ from what they follow */
    assert_int_equal(fs_join(folder, test_folder(), "checkpoints", NULL), TD_OK);
    return fs_remove_tree(folder, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    update_destroy(&update);
    world_model_destroy(&model);
    pool_destroy(&pool);
    return 0;
}

static void write_checkpoint(snapshot_t *snapshot)
{
    struct checkpoint_parts parts = {.groups = snapshot_groups(snapshot), .group_count = SNAPSHOT_GROUPS};
    struct manifest manifest;
    struct error err = {0};

    assert_int_equal(manifest_init(&manifest), TD_OK);
    assert_ok(checkpoint_write(folder, "one", &manifest, &parts, &err), err);
    manifest_release(&manifest);
}

static int load(world_model_t *a_model, update_t *an_update, struct error *err)
{
    checkpoint_t *checkpoint;
    int rc;

    assert_ok(checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ANY, NULL, NULL, err), *err);
    rc = snapshot_load(checkpoint, a_model, an_update, err);
    checkpoint_close(&checkpoint);
    return rc;
}

static void everything_comes_back(void **state)
{
    struct config config = chosen;
    size_t floats = model_all_floats(&model->layout);

    for (int copy = SNAPSHOT_LIVE; copy <= SNAPSHOT_IN_FILE; copy++) {
        struct update_state before = update_state(update), after;
        float first = model->parameters[0];
        world_model_t *other;
        snapshot_t *snapshot;
        update_t *optimiser;
        struct error err = {0};

        assert_ok(snapshot_create(&snapshot, model, update, (enum snapshot_copy)copy, folder, &err), err);
        assert_int_equal(snapshot_take(snapshot, &err), TD_OK);
        if (copy != SNAPSHOT_LIVE) /* what comes later is not in it */
            model->parameters[0] = first + 1;
        write_checkpoint(snapshot);
        model->parameters[0] = first;
        make(&config, &other, &optimiser);
        assert_ok(load(other, optimiser, &err), err);
        after = update_state(optimiser);
        assert_memory_equal(other->parameters, model->parameters, floats * sizeof(float));
        assert_memory_equal(after.m, before.m, before.floats * sizeof(float));
        assert_memory_equal(after.v, before.v, before.floats * sizeof(float));
        assert_int_equal(after.leftovers, *state == &many ? 30 * 64 : 0);
        assert_memory_equal(after.leftover, before.leftover, before.leftovers * sizeof(float));
        assert_true(*after.steps == 12345678901ull);
        assert_true(after.scale->value == 2.5f);
        update_destroy(&optimiser);
        world_model_destroy(&other);
        snapshot_destroy(&snapshot);
    }
}

static void what_is_not_finite_is_neither_kept_nor_taken(void **state)
{
    struct update_state moments = update_state(update);
    snapshot_t *snapshot;
    struct error err = {0};

    (void)state;
    assert_ok(snapshot_create(&snapshot, model, update, SNAPSHOT_IN_MEMORY, NULL, &err), err);
    moments.m[3] = INFINITY;
    assert_int_equal(snapshot_take(snapshot, &err), TD_EDIVERGED);
    moments.m[3] = 0;
    model->parameters[5] = NAN;
    assert_int_equal(snapshot_take(snapshot, &err), TD_EDIVERGED);
    snapshot_destroy(&snapshot);
    assert_ok(snapshot_create(&snapshot, model, update, SNAPSHOT_LIVE, NULL, &err), err);
    write_checkpoint(snapshot); /* written all the same: as a damaged or foreign file would be */
    assert_int_equal(load(model, update, &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "not finite"));
    snapshot_destroy(&snapshot);
}

static void another_architecture_is_refused(void **state)
{
    struct config config = tiny();
    world_model_t *other;
    update_t *optimiser;
    snapshot_t *snapshot;
    struct error err = {0};

    (void)state;
    assert_ok(snapshot_create(&snapshot, model, update, SNAPSHOT_IN_MEMORY, NULL, &err), err);
    assert_int_equal(snapshot_take(snapshot, &err), TD_OK);
    write_checkpoint(snapshot);
    snapshot_destroy(&snapshot);
    config.mlp_dim = 40;
    make(&config, &other, &optimiser);
    assert_int_equal(load(other, optimiser, &err), TD_EINVAL);
    update_destroy(&optimiser);
    world_model_destroy(&other);
    config = tiny();
    config.num_enc_layers = 5;
    make(&config, &other, &optimiser);
    assert_int_not_equal(load(other, optimiser, &err), TD_OK);
    update_destroy(&optimiser);
    world_model_destroy(&other);
    config = tiny_pixels();
    make(&config, &other, &optimiser);
    assert_int_not_equal(load(other, optimiser, &err), TD_OK);
    update_destroy(&optimiser);
    world_model_destroy(&other);
}

/* What updates wait for when a run of the usual size is saved: promised are 200 ms. */
static void five_million_parameters_are_copied_at_once(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const double limit_ms = 4000;
#else
    const double limit_ms = 200;
#endif
    double best_ms = INFINITY;
    struct update_config update_config;
    struct config config;
    struct model_dims dims;
    world_model_t *big_model;
    snapshot_t *snapshot;
    update_t *big_update;
    pool_t *big_pool;
    struct error err;

    (void)state;
    config_init(&config);
    config.model_size = 5;
    config.batch_size = 4;
    update_config_init(&update_config, &config, 500);
    assert_ok(model_dims_init(&dims, &config, 24, 6, &err), err);
    assert_ok(world_model_create(&big_model, &dims, true, &err), err);
    assert_true(big_model->layout.parameters > 4000000 && big_model->layout.parameters <= SNAPSHOT_COPY_MAX);
    world_model_init(big_model, 1);
    assert_ok(pool_create(&big_pool, 1, &err), err);
    assert_ok(update_create(&big_update, big_model, &update_config, big_pool, &err), err);
    assert_ok(snapshot_create(&snapshot, big_model, big_update, SNAPSHOT_IN_FILE, folder, &err), err);
    for (int i = 0; i < 5; i++) {
        uint64_t start = clock_ns();

        assert_int_equal(snapshot_take(snapshot, &err), TD_OK);
        best_ms = fmin(best_ms, (double)(clock_ns() - start) * 1e-6);
    }
    if (best_ms > limit_ms)
        fail_msg("copying took %.1f ms", best_ms);
    snapshot_destroy(&snapshot);
    update_destroy(&big_update);
    pool_destroy(&big_pool);
    world_model_destroy(&big_model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_comes_back, set_up, tear_down),
        cmocka_unit_test(five_million_parameters_are_copied_at_once),
        {"everything_of_pixels_comes_back", everything_comes_back, set_up, tear_down, &chosen},
        {"everything_of_many_tasks_comes_back", everything_comes_back, set_up, tear_down, &many},
        cmocka_unit_test_setup_teardown(what_is_not_finite_is_neither_kept_nor_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_architecture_is_refused, set_up, tear_down),
    };

    setenv("TMPDIR", "/dev/shm", 0); /* nothing here is about a real disk, which may be slow to sync */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
