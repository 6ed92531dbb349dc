/* Updates of several tasks: the gradient of the embeddings, what the policy leaves there, masks, discounts. */
#include "tests/support/test.h"

#include <math.h>

#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"
#include "tests/support/update_fixture.h"

static void threads_do_not_change_a_bit(void **state)
{
    static const int batches[] = {5, 300};
    struct update_stats stats[3];
    struct fixture f[3];

    (void)state;
    for (size_t b = 0; b < TD_LEN(batches); b++) {
        for (int i = 0; i < 3; i++) {
            open_fixture(&f[i], test_task_dims(0.2f), test_update_config(batches[b], 2), i + 1);
            for (uint64_t number = 0; number < 3; number++)
                assert_int_equal(step_fixture(&f[i], number, &stats[i]), TD_OK);
        }
        for (int i = 1; i < 3; i++) {
            assert_memory_equal(f[0].model->parameters, f[i].model->parameters,
                                model_all_floats(&f[0].model->layout) * sizeof(float));
            assert_memory_equal(&stats[0], &stats[i], sizeof(stats[0]));
        }
        for (int i = 0; i < 3; i++)
            close_fixture(&f[i]);
    }
}

/* --- gradients --- */

struct slope {
    struct fixture *f;
    bool policy;
};

/* The loss as a function of the table of embeddings, everything else as it was. */
static double loss(const float *x, void *context)
{
    struct slope *slope = context;
    struct fixture *f = slope->f;
    struct update_stats stats;

    restore_parameters(f);
    memcpy(model_embeddings(&f->model->layout, f->model->parameters), x, 15 * sizeof(float));
    assert_int_equal(step_fixture(f, 0, &stats), TD_OK);
    return slope->policy ? (double)stats.pi_loss : (double)stats.total_loss;
}

static void catch_gradient(void *context, const float *gradient, size_t first, size_t count)
{
    (void)count;
    if (first == 0)
        memcpy(context, gradient, 15 * sizeof(float));
}

/* The embedding no longer enters this net: its columns of the first layer are 0. */
static void cut(struct fixture *f, const char *name, int from)
{
    const struct model_tensor *tensor = model_layout_find(&f->model->layout, name);
    size_t in = (size_t)tensor->shape[tensor->dims - 1];

    for (size_t row = 0; row < tensor->count / in; row++)
        memset(f->model->parameters + tensor->offset + row * in + from, 0, 5 * sizeof(float));
    keep_parameters(f);
}

/* Rates of 0 leave the parameters alone, tau 0 the scale. */
static struct update_config still(void)
{
    struct update_config config = test_update_config(7, 3);

    config.lr = 0;
    config.tau = 0;
    return config;
}

/*
 * Targets have no gradient, and the embedding enters them too. So twice: with every net that makes targets
 * blind to it, and with losses that have no such targets.
 */
static void the_models_gradient_matches_central_differences(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct update_config config = still();
        float gradient[15], x[15];
        struct update_watch watch = {.context = gradient, .gradient = catch_gradient};
        struct fixture f;
        struct slope slope = {.f = &f};

        if (kind == 1)
            config.consistency_coef = config.value_coef = 0;
        open_fixture(&f, test_task_dims(0.3f), config, 2);
        if (kind == 0) {
            cut(&f, "_encoder.state.0.weight", 7);
            cut(&f, "_pi.0.weight", 24);
            cut(&f, "_target_Qs_params.0.weight", 24);
        }
        memcpy(x, model_embeddings(&f.model->layout, f.kept), sizeof(x));
        test_poison(gradient, sizeof(gradient));
        update_set_watch(f.update, &watch);
        assert_int_equal(step_fixture(&f, 0, NULL), TD_OK);
        update_set_watch(f.update, NULL);
        for (int i = 0; i < 3; i++) /* every task is in the batch */
            assert_true(gradient[i * 5] != 0);
        /* The first step's gradient: no leftover was there yet. */
        memset(update_state(f.update).leftover, 0, sizeof(gradient));
        assert_gradient(loss, &slope, x, gradient, 15, 2e-3, 2e-2);
        close_fixture(&f);
    }
}

/* What the policy's loss leaves is its gradient through the policy's and the two Qs' inputs. */
static void the_leftover_matches_central_differences(void **state)
{
    struct fixture f;
    struct slope slope = {.f = &f, .policy = true};
    float gradient[15], x[15];

    (void)state;
    open_fixture(&f, test_task_dims(0.3f), still(), 2);
    cut(&f, "_encoder.state.0.weight", 7); /* latents are detached */
    cut(&f, "_dynamics.0.weight", 24);
    memcpy(x, model_embeddings(&f.model->layout, f.kept), sizeof(x));
    assert_int_equal(step_fixture(&f, 0, NULL), TD_OK);
    assert_int_equal(update_state(f.update).leftovers, 15);
    memcpy(gradient, update_state(f.update).leftover, sizeof(gradient));
    assert_gradient(loss, &slope, x, gradient, 15, 2e-3, 2e-2);
    close_fixture(&f);
}

/* It counts in the next update's gradient and in its norm, and is gone with it. */
static void the_leftover_adds_to_the_next_update(void **state)
{
    float with[15], without[15], left[15];
    struct update_watch watch = {.gradient = catch_gradient};
    struct update_stats a, b;
    struct fixture f;

    (void)state;
    open_fixture(&f, test_task_dims(0), still(), 1);
    assert_int_equal(step_fixture(&f, 0, NULL), TD_OK);
    memcpy(left, update_state(f.update).leftover, sizeof(left));
    update_set_watch(f.update, &watch);
    watch.context = with;
    assert_int_equal(step_fixture(&f, 1, &a), TD_OK);
    memset(update_state(f.update).leftover, 0, sizeof(left));
    watch.context = without;
    assert_int_equal(step_fixture(&f, 1, &b), TD_OK);
    for (int i = 0; i < 15; i++)
        assert_float_equal(with[i], without[i] + left[i], 1e-5 + 1e-4 * fabs((double)left[i]));
    assert_true(a.grad_norm != b.grad_norm && a.total_loss == b.total_loss);
    close_fixture(&f);
}

static void saved_state_continues_alike(void **state)
{
    struct fixture whole, resumed;

    (void)state;
    for (int forget = 0; forget < 2; forget++) {
        struct update_state from, to;

        open_fixture(&whole, test_task_dims(0.1f), test_update_config(9, 3), 2);
        open_fixture(&resumed, test_task_dims(0.1f), test_update_config(9, 3), 1);
        for (uint64_t number = 0; number < 3; number++)
            assert_int_equal(step_fixture(&whole, number, NULL), TD_OK);
        from = update_state(whole.update);
        to = update_state(resumed.update);
        memcpy(resumed.model->parameters, whole.model->parameters,
               model_all_floats(&whole.model->layout) * sizeof(float));
        memcpy(to.m, from.m, from.floats * sizeof(float));
        memcpy(to.v, from.v, from.floats * sizeof(float));
        if (forget == 0)
            memcpy(to.leftover, from.leftover, from.leftovers * sizeof(float));
        *to.steps = *from.steps;
        to.scale->value = from.scale->value;
        assert_int_equal(step_fixture(&whole, 3, NULL), TD_OK);
        assert_int_equal(step_fixture(&resumed, 3, NULL), TD_OK);
        assert_int_equal(memcmp(resumed.model->parameters, whole.model->parameters,
                                model_all_floats(&whole.model->layout) * sizeof(float)) != 0, forget);
        close_fixture(&whole);
        close_fixture(&resumed);
    }
}

/* --- what tasks change --- */

/* A long row is rescaled in place before it is used; one that no slice looks up stays as it is. */
static void long_embeddings_are_rescaled_in_place(void **state)
{
    struct update_stats stats[2];
    struct fixture f;
    float *row;

    (void)state;
    open_fixture(&f, test_task_dims(0), still(), 1);
    for (int b = 0; b < f.config.batch_size; b++)
        ((uint32_t *)(uintptr_t)f.batch.task)[b] = b % 2 == 0 ? 0 : 2;
    for (int run = 0; run < 2; run++) {
        memcpy(f.model->parameters, f.kept, model_all_floats(&f.model->layout) * sizeof(float));
        row = model_embeddings(&f.model->layout, f.model->parameters);
        for (int i = 0; i < 15; i++)
            row[i] = (float)(i % 5) - 1.5f;
        if (run == 1) {
            embedding_renorm(row, 5);
            embedding_renorm(row + 10, 5);
        }
        memset(update_state(f.update).leftover, 0, 15 * sizeof(float));
        assert_int_equal(step_fixture(&f, 0, &stats[run]), TD_OK);
        for (int task = 0; task < 3; task++) {
            double squares = 0;

            for (int i = 0; i < 5; i++)
                squares += (double)row[task * 5 + i] * (double)row[task * 5 + i];
            assert_true(task == 1 ? squares > 8 : fabs(squares - 1) < 1e-5);
        }
    }
    assert_memory_equal(&stats[0], &stats[1], sizeof(stats[0]));
    close_fixture(&f);
}

/* y = r + discount of the slice's task * Q: the same batch with other discounts, seen in the targets. */
static void targets_have_their_tasks_discount(void **state)
{
    struct update_config config = still();
    float *first;
    struct fixture f;

    (void)state;
    open_fixture(&f, test_task_dims(0), config, 1);
    first = malloc((size_t)(config.horizon * config.batch_size) * sizeof(float));
    assert_int_equal(step_fixture(&f, 0, NULL), TD_OK);
    memcpy(first, update_view(f.update).targets, (size_t)(config.horizon * config.batch_size) * sizeof(float));
    f.model->task[1].discount = 0.45f; /* half of it */
    assert_int_equal(step_fixture(&f, 0, NULL), TD_OK);
    for (int i = 0; i < config.horizon * config.batch_size; i++) {
        float reward = f.batch.reward[i], now = update_view(f.update).targets[i];

        if (f.batch.task[i % config.batch_size] == 1)
            assert_float_equal(now - reward, (first[i] - reward) / 2, 1e-4 * (1 + fabs((double)first[i])));
        else
            assert_true(now == first[i]);
    }
    free(first);
    close_fixture(&f);
}

/* Nothing of the policy's padded outputs is learned from slices that do not have them. */
static void masked_outputs_have_no_gradient(void **state)
{
    struct update_state moments;
    const struct model_tensor *bias;
    struct fixture f;

    (void)state;
    open_fixture(&f, test_task_dims(0), test_update_config(6, 2), 1);
    for (int b = 0; b < 6; b++)
        ((uint32_t *)(uintptr_t)f.batch.task)[b] = 1; /* one action of three */
    assert_int_equal(step_fixture(&f, 0, NULL), TD_OK);
    moments = update_state(f.update);
    bias = model_layout_find(&f.model->layout, "_pi.2.bias");
    for (int i = 0; i < 6; i++)
        assert_true((moments.m[bias->offset + (size_t)i] != 0) == (i % 3 == 0));
    close_fixture(&f);
}

static void vector_paths_agree_with_the_plain_one(void **state)
{
    enum isa best = isa_current();
    struct update_stats plain, other;
    struct fixture f;

    (void)state;
    for (int isa = ISA_PLAIN; isa < ISA_COUNT; isa++) {
        if (isa_force((enum isa)isa) != TD_OK)
            continue;
        open_fixture(&f, test_task_dims(0.2f), test_update_config(37, 3), 2);
        assert_int_equal(step_fixture(&f, 0, isa == ISA_PLAIN ? &plain : &other), TD_OK);
        close_fixture(&f);
        if (isa != ISA_PLAIN)
            assert_close((const float *)&other, (const float *)&plain, sizeof(plain) / sizeof(float), 1e-6, 2e-5);
    }
    assert_int_equal(isa_force(best), TD_OK);
}

/* --- memory --- */

/* The largest model keeps next to nothing but itself; nothing is taken to know it. */
static void the_largest_models_memory_is_known(void **state)
{
    static const int batches[] = {32, 256};
    struct update_config update;
    struct update_memory memory;
    struct model_dims dims;
    struct config config;
    struct task_set set;
    struct error err;

    (void)state;
    config_init(&config);
    snprintf(config.task, sizeof(config.task), "mt80");
    config.model_size = 317;
    assert_ok(task_set_init(&set, &config, NULL, &err), err);
    assert_ok(model_dims_init_tasks(&dims, &config, &set, &err), err);
    for (size_t i = 0; i < TD_LEN(batches); i++) {
        size_t needed;

        config.batch_size = batches[i];
        update_config_init(&update, &config, 500);
        assert_ok(update_measure(&memory, &dims, &update, 8, &err), err);
        assert_int_equal(memory.parameters / 4 / 1000000, 317);
        assert_int_equal(memory.gradients, memory.parameters);
        assert_int_equal(memory.moments, 2 * memory.parameters);
        needed = memory.parameters + memory.targets + memory.gradients + memory.moments + memory.activations;
        assert_int_equal(memory.total, needed + memory.working);
        assert_true(memory.activations > 0 && (double)memory.total <= 1.15 * (double)needed);
    }
    task_set_release(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(the_models_gradient_matches_central_differences),
        cmocka_unit_test(the_leftover_matches_central_differences),
        cmocka_unit_test(the_leftover_adds_to_the_next_update),
        cmocka_unit_test(saved_state_continues_alike),
        cmocka_unit_test(long_embeddings_are_rescaled_in_place),
        cmocka_unit_test(targets_have_their_tasks_discount),
        cmocka_unit_test(masked_outputs_have_no_gradient),
        cmocka_unit_test(the_largest_models_memory_is_known),
        cmocka_unit_test(vector_paths_agree_with_the_plain_one),
    };
    struct error err;

    if (gemm_start(3, &err) != TD_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
