#include "tests/support/test.h"

#include <math.h>

#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"
#include "tests/support/update_fixture.h"

/* --- the same bits with any number of threads -------------------------------------------------- */

static void threads_do_not_change_a_bit(void **state)
{
    static const int batches[] = {5, 300}; /* less than a tile, and several with a short last one */
    struct update_stats stats[3];
    struct fixture f[3];

    (void)state;
    for (size_t b = 0; b < TD_LEN(batches); b++) {
        for (int i = 0; i < 3; i++) {
            open_fixture(&f[i], test_dims(true, 0.2f), test_update_config(batches[b], 2), i + 1);
            for (uint64_t number = 0; number < 3; number++)
                assert_int_equal(step_fixture(&f[i], number, &stats[i]), TD_OK);
        }
        for (int i = 1; i < 3; i++) {
            size_t bytes = model_all_floats(&f[0].model->layout) * sizeof(float);
            struct update_state a = update_state(f[0].update), z = update_state(f[i].update);

            assert_memory_equal(f[0].model->parameters, f[i].model->parameters, bytes);
            assert_memory_equal(a.m, z.m, a.floats * sizeof(float));
            assert_memory_equal(a.v, z.v, a.floats * sizeof(float));
            assert_memory_equal(&stats[0], &stats[i], sizeof(stats[0]));
            assert_true(a.scale->value == z.scale->value && *a.steps == 3 && *z.steps == 3);
        }
        for (int i = 0; i < 3; i++)
            close_fixture(&f[i]);
    }
}

/* --- learning rates of the parts --------------------------------------------------------------- */

/* A part at 0 keeps its bits, the others change. */
static void a_scale_of_0_freezes_a_part(void **state)
{
    struct update_config config = test_update_config(6, 2);
    struct update_stats stats;
    struct fixture f;

    (void)state;
    for (int frozen = MODEL_ENCODER; frozen <= MODEL_PI; frozen++) {
        config.lr_scale[frozen] = 0;
        open_fixture(&f, test_dims(true, 0.2f), config, 1);
        for (uint64_t number = 0; number < 3; number++)
            assert_int_equal(step_fixture(&f, number, &stats), TD_OK);
        for (int part = MODEL_ENCODER; part <= MODEL_PI; part++) {
            const size_t *at = f.model->layout.part;

            assert_true((memcmp(f.kept + at[part], f.model->parameters + at[part],
                                (at[part + 1] - at[part]) * sizeof(float)) == 0) == (part == frozen));
        }
        config.lr_scale[frozen] = 1;
        close_fixture(&f);
    }
}

/* Every part at s is what lr times s is; one at s moves as far with its moments as s says. */
static void a_scale_multiplies_the_learning_rate(void **state)
{
    struct update_config config[3] = {test_update_config(6, 2), test_update_config(6, 2), test_update_config(6, 2)};
    struct fixture f[3];
    struct update_stats stats;
    size_t bytes;

    (void)state;
    for (int part = 0; part < MODEL_TARGET_Q; part++)
        config[0].lr_scale[part] = 0.3;
    config[1].lr *= 0.3;
    config[2].lr_scale[MODEL_DYNAMICS] = 0.3;
    for (int i = 0; i < 3; i++) {
        open_fixture(&f[i], test_dims(true, 0.2f), config[i], 1);
        assert_int_equal(step_fixture(&f[i], 0, &stats), TD_OK);
    }
    bytes = model_all_floats(&f[0].model->layout) * sizeof(float);
    assert_memory_equal(f[0].model->parameters, f[1].model->parameters, bytes);
    for (int part = MODEL_ENCODER; part < MODEL_PI; part++) { /* the policy's gradient is of the changed model */
        const size_t *at = f[0].model->layout.part;

        assert_true((memcmp(f[1].model->parameters + at[part], f[2].model->parameters + at[part],
                            (at[part + 1] - at[part]) * sizeof(float)) == 0) == (part == MODEL_DYNAMICS));
    }
    for (int i = 0; i < 3; i++)
        close_fixture(&f[i]);
}

/* --- pixels ------------------------------------------------------------------------------------ */

static void threads_do_not_change_a_bit_of_pixels(void **state)
{
    struct update_stats stats[3];
    struct fixture f[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        open_fixture(&f[i], test_pixel_dims(0.2f), test_update_config(19, 2), i + 1);
        for (uint64_t number = 0; number < 3; number++)
            assert_int_equal(step_fixture(&f[i], number, &stats[i]), TD_OK);
    }
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(f[0].model->parameters, f[i].model->parameters,
                            model_all_floats(&f[0].model->layout) * sizeof(float));
        assert_memory_equal(&stats[0], &stats[i], sizeof(stats[0]));
    }
    /* Every layer has learned. */
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        const float *weight = f[0].model->pixels.layer[l].weight;

        assert_true(weight[0] != f[0].kept[weight - f[0].model->parameters]);
    }
    for (int i = 0; i < 3; i++)
        close_fixture(&f[i]);
}

/* Frames that come once, and the same stacked for every observation. */
static void stacking_is_the_same_either_way(void **state)
{
    enum { BATCH = 3, STEPS = 3 };
    static uint8_t stacked[STEPS][PIXEL_FRAMES][BATCH][PIXEL_FRAME_BYTES];
    struct update_stats once, each;
    struct fixture f;

    (void)state;
    open_fixture(&f, test_pixel_dims(0), test_update_config(BATCH, STEPS - 1), 1);
    assert_int_equal(step_fixture(&f, 0, &once), TD_OK);
    for (int t = 0; t < STEPS; t++)
        for (int k = 0; k < PIXEL_FRAMES; k++)
            memcpy(stacked[t][k], f.batch.frames + (t + k) * BATCH * PIXEL_FRAME_BYTES, sizeof(stacked[t][k]));
    memcpy(f.model->parameters, f.kept, model_all_floats(&f.model->layout) * sizeof(float));
    update_destroy(&f.update);
    assert_int_equal(update_create(&f.update, f.model, &f.config, f.pool, &(struct error){0}), TD_OK);
    f.batch.frames = &stacked[0][0][0][0];
    f.batch.frame_step = PIXEL_FRAMES;
    assert_int_equal(step_fixture(&f, 0, &each), TD_OK);
    assert_memory_equal(&once, &each, sizeof(once));
    stacked[1][2][0][5000] ^= 128; /* what one slice sees at one time matters */
    memcpy(f.model->parameters, f.kept, model_all_floats(&f.model->layout) * sizeof(float));
    assert_int_equal(step_fixture(&f, 0, &each), TD_OK);
    assert_true(once.consistency_loss != each.consistency_loss);
    close_fixture(&f);
}

/* A run resumed from parameters, moments, scale and step count goes on with the same bits. */
static void saved_state_continues_alike(void **state)
{
    struct fixture whole, resumed;
    struct update_state from, to;
    struct update_stats a, b;

    (void)state;
    open_fixture(&whole, test_dims(false, 0.1f), test_update_config(9, 3), 2);
    open_fixture(&resumed, test_dims(false, 0.1f), test_update_config(9, 3), 1);
    for (uint64_t number = 0; number < 4; number++)
        assert_int_equal(step_fixture(&whole, number, NULL), TD_OK);
    from = update_state(whole.update);
    to = update_state(resumed.update);
    memcpy(resumed.model->parameters, whole.model->parameters,
           model_all_floats(&whole.model->layout) * sizeof(float));
    memcpy(to.m, from.m, from.floats * sizeof(float));
    memcpy(to.v, from.v, from.floats * sizeof(float));
    *to.steps = *from.steps;
    to.scale->value = from.scale->value;
    for (uint64_t number = 4; number < 7; number++) {
        assert_int_equal(step_fixture(&whole, number, &a), TD_OK);
        assert_int_equal(step_fixture(&resumed, number, &b), TD_OK);
        assert_memory_equal(&a, &b, sizeof(a));
    }
    assert_memory_equal(resumed.model->parameters, whole.model->parameters,
                        model_all_floats(&whole.model->layout) * sizeof(float));
    close_fixture(&whole);
    close_fixture(&resumed);
}

/* Every vector path gives the plain path's numbers, to rounding. */
static void vector_paths_agree_with_the_plain_one(void **state)
{
    enum isa best = isa_current();
    struct update_stats plain, other;
    struct fixture f;

    (void)state;
    for (int isa = ISA_PLAIN; isa < ISA_COUNT; isa++) {
        struct update_stats *stats = isa == ISA_PLAIN ? &plain : &other;

        if (isa_force((enum isa)isa) != TD_OK)
            continue;
        open_fixture(&f, test_dims(true, 0.2f), test_update_config(37, 3), 2);
        assert_int_equal(step_fixture(&f, 0, stats), TD_OK);
        close_fixture(&f);
        if (isa != ISA_PLAIN)
            assert_close((const float *)&other, (const float *)&plain, sizeof(plain) / sizeof(float), 1e-6,
                         2e-5);
    }
    assert_int_equal(isa_force(best), TD_OK);
}

/* --- gradients --------------------------------------------------------------------------------- */

struct catch {
    float *gradient; /* all acting floats, before clipping */
};

static void catch_gradient(void *context, const float *gradient, size_t first, size_t count)
{
    struct catch *caught = context;

    memcpy(caught->gradient + first, gradient, count * sizeof(float));
}

struct slope {
    struct fixture *f;
    size_t offset; /* of the parameters being moved */
    size_t count;
    bool policy;
};

/* The loss as a function of some parameters, everything else as it was. */
static double loss(const float *x, void *context)
{
    struct slope *slope = context;
    struct fixture *f = slope->f;
    struct update_stats stats;

    restore_parameters(f);
    memcpy(f->model->parameters + slope->offset, x, slope->count * sizeof(float));
    assert_int_equal(step_fixture(f, 0, &stats), TD_OK);
    if (slope->policy)
        return (double)stats.pi_loss;
    return f->config.consistency_coef * (double)stats.consistency_loss +
           f->config.reward_coef * (double)stats.reward_loss +
           f->config.value_coef * (double)stats.value_loss +
           f->config.termination_coef * (double)stats.termination_loss;
}

/*
 * Rates of 0 leave the parameters alone, tau 0 the scale. Only the encoder's effect on z_0 has a
 * gradient: its first input is 0 in all later observations, so its first column moves z_0 alone.
 */
static void open_still(struct fixture *f, bool episodic, float dropout)
{
    struct update_config config = test_update_config(6, 3);

    config.lr = 0;
    config.tau = 0;
    open_fixture(f, test_dims(episodic, dropout), config, 2);
    for (size_t i = 6 * 7; i < 4 * 6 * 7; i += 7)
        ((float *)(uintptr_t)f->batch.obs)[i] = 0;
}

static void check_tensor(struct fixture *f, const float *gradient, const struct model_tensor *tensor)
{
    struct slope slope = {.f = f, .offset = tensor->offset, .count = tensor->count,
                          .policy = tensor->part == MODEL_PI};
    float *x = malloc(tensor->count * sizeof(float));

    memcpy(x, f->kept + tensor->offset, tensor->count * sizeof(float));
    assert_gradient(loss, &slope, x, gradient + tensor->offset, tensor->count, 5e-3, 2e-2);
    free(x);
}

/* The first column of the encoder's first weight. */
static void check_encoder(struct fixture *f, const float *gradient)
{
    const struct model_tensor *tensor = model_layout_find(&f->model->layout, "_encoder.state.0.weight");
    double largest = 0;

    for (uint64_t i = 0; i < tensor->shape[0]; i++)
        largest = fmax(largest, fabs((double)gradient[tensor->offset + i * tensor->shape[1]]));
    assert_true(largest > 1e-3);
    for (uint64_t i = 0; i < tensor->shape[0]; i++) {
        size_t at = tensor->offset + (size_t)(i * tensor->shape[1]);
        struct slope slope = {.f = f, .offset = at, .count = 1};
        float up = f->kept[at] + 5e-3f, down = f->kept[at] - 5e-3f;
        double difference = (loss(&up, &slope) - loss(&down, &slope)) / ((double)up - (double)down);

        assert_true(fabs(difference - (double)gradient[at]) < 2e-2 * largest);
    }
}

static void whole_gradient_matches_central_differences(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) { /* plain, episodic, with dropout */
        struct catch caught;
        struct update_watch watch = {.context = &caught, .gradient = catch_gradient};
        struct fixture f;

        open_still(&f, kind == 1, kind == 2 ? 0.3f : 0.0f);
        caught.gradient = malloc(model_acting_floats(&f.model->layout) * sizeof(float));
        test_poison(caught.gradient, model_acting_floats(&f.model->layout) * sizeof(float));
        update_set_watch(f.update, &watch);
        assert_int_equal(step_fixture(&f, 0, NULL), TD_OK);
        update_set_watch(f.update, NULL);
        for (int i = 0; i < f.model->layout.tensors; i++) {
            const struct model_tensor *tensor = &f.model->layout.tensor[i];

            if (tensor->part != MODEL_ENCODER && tensor->part != MODEL_TARGET_Q)
                check_tensor(&f, caught.gradient, tensor);
        }
        check_encoder(&f, caught.gradient);
        free(caught.gradient);
        close_fixture(&f);
    }
}

/* --- what an update does ----------------------------------------------------------------------- */

static void clipping_bounds_the_step(void **state)
{
    struct update_config config = test_update_config(6, 2);
    struct update_stats stats;
    struct update_state kept;
    struct fixture f;
    double norm = 0;

    (void)state;
    config.grad_clip_norm = 0.25;
    open_fixture(&f, test_dims(false, 0), config, 1);
    assert_int_equal(step_fixture(&f, 0, &stats), TD_OK);
    assert_true(stats.grad_norm > 0.5f && stats.pi_grad_norm > 0);
    kept = update_state(f.update); /* m = 0.1 g after the first step */
    for (size_t i = 0; i < model_trained_floats(&f.model->layout); i++)
        norm += 100 * (double)kept.m[i] * (double)kept.m[i];
    assert_true(fabs(sqrt(norm) - 0.25) < 1e-4);
    close_fixture(&f);
}

static void targets_follow_softly(void **state)
{
    const size_t *part;
    struct fixture f;

    (void)state;
    open_fixture(&f, test_dims(false, 0), test_update_config(6, 2), 1);
    part = f.model->layout.part;
    assert_int_equal(step_fixture(&f, 0, NULL), TD_OK);
    for (size_t i = 0; i < part[MODEL_PI] - part[MODEL_Q]; i++) {
        double online = (double)f.model->parameters[part[MODEL_Q] + i];
        double before = (double)f.kept[part[MODEL_TARGET_Q] + i];
        double after = (double)f.model->parameters[part[MODEL_TARGET_Q] + i];

        assert_true(fabs(after - (before + 0.01 * (online - before))) < 1e-6);
    }
    close_fixture(&f);
}

/* On one batch the losses of the model go down and the policy's values up; in the wrong sign neither. */
static void repeated_updates_fit_the_batch(void **state)
{
    struct update_stats first, last;
    struct fixture f;

    (void)state;
    open_fixture(&f, test_dims(true, 0.01f), test_update_config(16, 3), 1);
    assert_int_equal(step_fixture(&f, 0, &first), TD_OK);
    for (uint64_t number = 1; number < 400; number++)
        assert_int_equal(step_fixture(&f, number, &last), TD_OK);
    assert_true(last.consistency_loss < 0.5f * first.consistency_loss);
    assert_true(last.reward_loss < 0.5f * first.reward_loss);
    assert_true(last.value_loss < 0.8f * first.value_loss);
    assert_true(last.termination_loss < 0.5f * first.termination_loss);
    assert_true(last.termination_f1 > 0.9f);
    assert_true(world_model_finite(f.model));
    close_fixture(&f);
}

/* Input that makes a loss or gradient non-finite is reported and changes nothing. */
static void divergence_is_reported_and_undone(void **state)
{
    struct update_stats stats;
    struct fixture f;
    size_t bytes;

    (void)state;
    open_fixture(&f, test_dims(false, 0), test_update_config(6, 2), 2);
    bytes = model_all_floats(&f.model->layout) * sizeof(float);
    ((float *)(uintptr_t)f.batch.reward)[3] = NAN;
    assert_int_equal(step_fixture(&f, 0, &stats), TD_EDIVERGED);
    assert_false(isfinite(stats.total_loss));
    assert_memory_equal(f.model->parameters, f.kept, bytes);
    assert_int_equal(*update_state(f.update).steps, 0);
    ((float *)(uintptr_t)f.batch.reward)[3] = 0;
    ((float *)(uintptr_t)f.batch.obs)[0] = INFINITY;
    assert_int_equal(step_fixture(&f, 0, &stats), TD_EDIVERGED);
    assert_memory_equal(f.model->parameters, f.kept, bytes);
    /* And nothing of it is left behind. */
    ((float *)(uintptr_t)f.batch.obs)[0] = 0;
    assert_int_equal(step_fixture(&f, 0, &stats), TD_OK);
    assert_true(world_model_finite(f.model) && *update_state(f.update).steps == 1);
    /* A parameter gone wrong is seen at once. */
    f.model->parameters[model_layout_find(&f.model->layout, "_pi.1.weight")->offset] = NAN;
    assert_int_equal(step_fixture(&f, 1, &stats), TD_EDIVERGED);
    close_fixture(&f);
}

static void draws_differ_by_kind_head_and_update(void **state)
{
    struct rng one = test_stream(1, 0), two = test_stream(1, 1);
    struct update_draws a = update_draws_rng(&one), b = update_draws_rng(&two);
    float noise[3][64];
    uint8_t mask[3][256];
    int pairs[3][3] = {{0}}, heads[2];

    (void)state;
    a.noise(a.context, UPDATE_TARGET_NOISE, noise[0], 64);
    a.noise(a.context, UPDATE_POLICY_NOISE, noise[1], 64);
    b.noise(b.context, UPDATE_TARGET_NOISE, noise[2], 64);
    assert_memory_not_equal(noise[0], noise[1], sizeof(noise[0]));
    assert_memory_not_equal(noise[0], noise[2], sizeof(noise[0]));
    a.mask(a.context, UPDATE_VALUE_MASK, 0, mask[0], 256, 0.5f);
    a.mask(a.context, UPDATE_VALUE_MASK, 1, mask[1], 256, 0.5f);
    a.mask(a.context, UPDATE_POLICY_MASK, 0, mask[2], 256, 0.5f);
    assert_memory_not_equal(mask[0], mask[1], 256);
    assert_memory_not_equal(mask[0], mask[2], 256);
    for (uint64_t i = 0; i < 6000; i++) {
        struct rng rng = test_stream(2, i);
        struct update_draws c = update_draws_rng(&rng);

        c.heads(c.context, UPDATE_TARGET_HEADS, 3, heads);
        pairs[heads[0]][heads[1]]++;
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            assert_in_range(pairs[i][j], i == j ? 0 : 880, i == j ? 0 : 1120); /* 1000 +- 4 sigma */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(a_scale_of_0_freezes_a_part),
        cmocka_unit_test(a_scale_multiplies_the_learning_rate),
        cmocka_unit_test(threads_do_not_change_a_bit_of_pixels),
        cmocka_unit_test(stacking_is_the_same_either_way),
        cmocka_unit_test(saved_state_continues_alike),
        cmocka_unit_test(vector_paths_agree_with_the_plain_one),
        cmocka_unit_test(whole_gradient_matches_central_differences),
        cmocka_unit_test(clipping_bounds_the_step),
        cmocka_unit_test(targets_follow_softly),
        cmocka_unit_test(repeated_updates_fit_the_batch),
        cmocka_unit_test(divergence_is_reported_and_undone),
        cmocka_unit_test(draws_differ_by_kind_head_and_update),
    };
    struct error err;

    if (gemm_start(3, &err) != TD_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
