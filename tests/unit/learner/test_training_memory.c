/* What training will take is planned for the reference's sizes, and refused where it is not there. */
#include "tests/support/test.h"

#include "common/util/memory.h"
#include "learner/training_memory.h"

static struct training_memory plan_of(int size, int batch, const struct training_beside *beside, struct update_config *update)
{
    struct training_memory memory;
    struct model_dims dims;
    struct config config;
    struct error err;

    config_init(&config);
    config.model_size = size;
    config.batch_size = batch;
    update_config_init(update, &config, 500);
    assert_ok(model_dims_init(&dims, &config, 24, 6, &err), err);
    assert_ok(training_memory_plan(&memory, &dims, update, 2, beside, &err), err);
    return memory;
}

static double must(const struct training_memory *memory)
{
    return (double)(memory->update.total - memory->update.working);
}

static void large_models_take_little_beside_their_numbers(void **state)
{
    static const int sizes[] = {5, 19, 48, 317};
    struct training_beside beside = {.copy = true, .actors = true, .other = 1 << 20};
    struct update_config update;

    (void)state;
    for (size_t i = 0; i < TD_LEN(sizes); i++)
        for (int batch = 32; batch <= 256; batch *= 8) {
            struct training_memory memory = plan_of(sizes[i], batch, &beside, &update);

            assert_true(memory.in_files && memory.snapshots > 0 && (memory.copy > 0) == (sizes[i] < 317));
            if ((double)memory.total >= 1.1 * must(&memory))
                fail_msg("model_size=%d batch_size=%d: %.3f", sizes[i], batch, (double)memory.total / must(&memory));
        }
}

static void what_is_beside_small_models_counts(void **state)
{
    struct training_beside beside = {.copy = true, .actors = true, .other = 5000};
    struct update_config update;
    struct training_memory whole = plan_of(1, 32, &beside, &update), half, bare;

    (void)state;
    assert_true(!whole.in_files && whole.total == whole.update.total + whole.copy + whole.snapshots + 5000);
    assert_true(whole.copy == whole.update.parameters + whole.update.targets + whole.update.moments);
    assert_true(whole.snapshots == 2 * whole.update.parameters);
    beside.half = true;
    half = plan_of(1, 32, &beside, &update);
    assert_true(half.snapshots < whole.snapshots * 11 / 20 && half.snapshots > whole.snapshots / 2);
    bare = plan_of(1, 32, &(struct training_beside){0}, &update);
    assert_true(bare.copy == 0 && bare.snapshots == 0 && bare.total == bare.update.total);
}

static void what_is_not_there_is_refused_with_the_figure(void **state)
{
    struct training_beside beside = {.actors = true};
    struct update_config update;
    struct training_memory memory = plan_of(317, 65536, &beside, &update);
    char figure[64];
    struct error err;

    (void)state;
    snprintf(figure, sizeof(figure), "needs %.1f GB of memory", (double)memory.total * 1e-9);
    assert_true(memory.total > UINT64_C(100000000000));
    if (memory_available() < memory.total) {
        assert_int_equal(training_memory_check(&memory, &err), TD_EINVAL);
        assert_non_null(strstr(err.text, figure));
    }
    memory.total = 1 << 20;
    assert_ok(training_memory_check(&memory, &err), err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_models_take_little_beside_their_numbers),
        cmocka_unit_test(what_is_beside_small_models_counts),
        cmocka_unit_test(what_is_not_there_is_refused_with_the_figure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
