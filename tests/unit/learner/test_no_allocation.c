/*
 * Planning and updating allocate nothing once made, libraries included. This program's own malloc
 * counts; the sanitizers bring theirs, so there the test only runs the code.
 */
#include "tests/support/test.h"

#include "common/plan/mppi.h"
#include "common/tensor/gemm.h"
#include "tests/support/count_allocations.h"
#include "tests/support/models.h"

/* Does the counter count at all? Through a library too: strdup is the C library's. */
static void the_counter_counts(void **state)
{
    unsigned long before = atomic_load(&counted_allocations);
    char *copy = strdup("x");

    (void)state;
    free(copy);
    assert_true(!COUNTS_ALLOCATIONS || atomic_load(&counted_allocations) > before);
}

/* Of sizes that the larger code paths of gemm take. */
static struct model_dims wide(void)
{
    struct model_dims dims = test_dims(true, 0.01f);

    dims.mlp_dim = 192;
    dims.latent_dim = 160;
    dims.enc_dim = 256;
    dims.num_bins = 101;
    return dims;
}

static void update_repeatedly(struct model_dims dims, struct update_config config)
{
    world_model_t *model = test_model(&dims, 1);
    struct batch batch = test_batch(&dims, &config, 1);
    struct update_stats stats;
    struct error err;
    update_t *update;
    pool_t *pool;
    unsigned long before;

    assert_ok(pool_create(&pool, 3, &err), err);
    assert_ok(update_create(&update, model, &config, pool, &err), err);
    before = atomic_load(&counted_allocations);
    for (uint64_t i = 0; i < 5; i++) {
        struct rng rng = test_stream(1, i);
        struct update_draws draws = update_draws_rng(&rng);
        int rc = update_step(update, &batch, &draws, &stats);

        pool_set_active(pool, 1 + (int)(i % 3));
        if (rc != TD_OK)
            fail_msg("update %d: %d", (int)i, rc);
    }
    assert_int_equal(atomic_load(&counted_allocations), before);
    update_destroy(&update);
    pool_destroy(&pool);
    test_batch_free(&batch);
    world_model_destroy(&model);
}

static void updates_allocate_nothing(void **state)
{
    (void)state;
    update_repeatedly(wide(), test_update_config(200, 3));
    update_repeatedly(test_pixel_dims(0.2f), test_update_config(20, 3));
}

static void plan_repeatedly(struct model_dims dims)
{
    struct mppi_config config = {.mpc = true, .horizon = 3, .iterations = 3, .num_samples = 512,
                                 .num_elites = 64, .num_pi_trajs = 24, .min_std = 0.05f, .max_std = 2,
                                 .temperature = 0.5f, .discount = 0.99};
    static float obs[PIXEL_FRAMES * PIXEL_FRAME_BYTES / sizeof(float)] = {1}; /* or bytes */
    world_model_t *model = test_model(&dims, 1);
    struct mppi_request requests[2];
    float action[2][3];
    struct error err;
    mppi_t *mppi;
    pool_t *pool;
    unsigned long before;

    assert_ok(pool_create(&pool, 3, &err), err);
    assert_ok(mppi_create(&mppi, &config, &dims, 2, pool, &err), err);
    before = atomic_load(&counted_allocations);
    for (uint64_t i = 0; i < 5; i++) {
        struct rng rng = test_stream(1, i);

        for (int e = 0; e < 2; e++)
            requests[e] = (struct mppi_request){.environment = e, .obs = obs, .first = i == 0,
                                                .draws = mppi_draws_rng(&rng), .action = action[e]};
        if (mppi_plan_batch(mppi, model, requests, 1 + (int)i % 2) != TD_OK)
            fail_msg("plan %d", (int)i);
    }
    assert_int_equal(atomic_load(&counted_allocations), before);
    mppi_destroy(&mppi);
    pool_destroy(&pool);
    world_model_destroy(&model);
}

static void plans_allocate_nothing(void **state)
{
    (void)state;
    plan_repeatedly(wide());
    plan_repeatedly(test_pixel_dims(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_counter_counts),
        cmocka_unit_test(updates_allocate_nothing),
        cmocka_unit_test(plans_allocate_nothing),
    };
    struct error err;

    atomic_store(&counting_main, true);
    atomic_store(&counting_allocations, true);
    if (gemm_start(3, &err) != TD_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
