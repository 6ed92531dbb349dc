#include "tests/support/test.h"

#include <math.h>

#include "common/model/transplant.h"
#include "tests/support/models.h"

static struct model_dims single_dims(int obs, int action)
{
    struct model_dims dims = test_dims(false, 0);

    dims.obs_dim = obs;
    dims.action_dim = action;
    return dims;
}

static struct model_dims many_dims(int obs, int action, int tasks)
{
    struct model_dims dims = single_dims(obs, action);

    dims.num_tasks = tasks;
    dims.task_dim = 5;
    return dims;
}

/* A model of these dims whose every float is random. */
static world_model_t *random_model(const struct model_dims *dims, uint64_t seed)
{
    struct rng_key key = {.seed = seed, .purpose = RNG_TEST};
    struct error err = {0};
    world_model_t *model;
    struct rng rng;

    assert_ok(world_model_create(&model, dims, true, &err), err);
    rng_init(&rng, &key);
    for (int i = 0; i < model->layout.tensors; i++)
        for (size_t k = 0; k < model->layout.tensor[i].count; k++)
            model->parameters[model->layout.tensor[i].offset + k] = rng_float(&rng) - 0.5f;
    return model;
}

static float *named(const world_model_t *model, const char *name)
{
    const struct model_tensor *tensor = model_layout_find(&model->layout, name);

    assert_non_null(tensor);
    return model->parameters + tensor->offset;
}

static void the_same_sizes_are_the_same_bits(void **state)
{
    struct model_dims dims = many_dims(6, 3, 4);
    world_model_t *old = random_model(&dims, 1), *new = random_model(&dims, 2);
    int embedding[] = {0, 1, 2, 3};

    (void)state;
    transplant_parameters(&new->layout, new->parameters, &old->layout, old->parameters, embedding);
    assert_memory_equal(new->parameters, old->parameters, model_all_floats(&old->layout) * sizeof(float));
    world_model_destroy(&old);
    world_model_destroy(&new);
}

/* sum over a row of `weight` [heads, rows, in] times x, plus the bias. */
static double product(const float *weight, const float *bias, size_t row, size_t in, const float *x)
{
    double sum = bias[row];

    for (size_t i = 0; i < in; i++)
        sum += (double)weight[row * in + i] * x[i];
    return sum;
}

/* One of several tasks, alone: its first layers give what they gave with padding and embedding. */
static void one_of_many_alone_computes_the_same(void **state)
{
    static const struct {
        const char *name;
        bool encoder, actions;
        size_t heads;
    } parts[] = {
        {"_encoder.state.0", true, false, 1}, {"_dynamics.0", false, true, 1}, {"_reward.0", false, true, 1},
        {"_pi.0", false, false, 1},           {"_Qs.params.0", false, true, 0}, {"_target_Qs_params.0", false, true, 0},
    };
    enum { OBS = 4, ACTION = 2, TASK = 1 };
    struct model_dims wide = many_dims(7, 3, 3), narrow = single_dims(OBS, ACTION);
    world_model_t *old = random_model(&wide, 3), *new = random_model(&narrow, 4);
    int embedding = TASK;
    float e[5];

    (void)state;
    memcpy(e, model_embeddings(&old->layout, old->parameters) + TASK * 5, sizeof(e));
    for (int i = 0; i < 5; i++)
        e[i] *= 4; /* its norm is above 1 */
    memcpy(model_embeddings(&old->layout, old->parameters) + TASK * 5, e, sizeof(e));
    assert_true(embedding_renorm(e, 5));
    transplant_parameters(&new->layout, new->parameters, &old->layout, old->parameters, &embedding);
    for (size_t p = 0; p < TD_LEN(parts); p++) {
        size_t z = parts[p].encoder ? OBS : (size_t)wide.latent_dim, was = parts[p].encoder ? 7 : z;
        size_t in = z + (parts[p].actions ? ACTION : 0), before = was + 5 + (parts[p].actions ? 3 : 0);
        size_t heads = parts[p].heads ? parts[p].heads : (size_t)wide.num_q;
        size_t rows = heads * (size_t)(parts[p].encoder ? wide.enc_dim : wide.mlp_dim);
        float x[256] = {0}, padded[256] = {0};
        char weight[64], bias[64];

        for (size_t i = 0; i < z; i++)
            x[i] = padded[i] = sinf((float)i);
        memcpy(padded + was, e, sizeof(e));
        for (size_t i = z; i < in; i++)
            x[i] = padded[was + 5 + i - z] = cosf((float)i);
        snprintf(weight, sizeof(weight), "%s.weight", parts[p].name);
        snprintf(bias, sizeof(bias), "%s.bias", parts[p].name);
        for (size_t row = 0; row < rows; row++)
            assert_true(fabs(product(named(new, weight), named(new, bias), row, in, x) -
                             product(named(old, weight), named(old, bias), row, before, padded)) < 1e-5);
    }
    for (int a = 0; a < ACTION; a++) { /* means, then deviations: of the first components each */
        assert_true(named(new, "_pi.2.bias")[a] == named(old, "_pi.2.bias")[a]);
        assert_true(named(new, "_pi.2.bias")[ACTION + a] == named(old, "_pi.2.bias")[3 + a]);
    }
    assert_memory_equal(named(new, "_pi.1.weight"), named(old, "_pi.1.weight"),
                        (size_t)wide.mlp_dim * (size_t)wide.mlp_dim * sizeof(float));
    world_model_destroy(&old);
    world_model_destroy(&new);
}

/* Wider and of several tasks: what is new keeps what it was initialised with. */
static void what_is_new_begins_fresh(void **state)
{
    struct model_dims narrow = single_dims(3, 2), wide = many_dims(5, 4, 2);
    world_model_t *old = random_model(&narrow, 5), *new = random_model(&wide, 6), *fresh = random_model(&wide, 6);
    size_t z = (size_t)wide.latent_dim, in = z + 5 + 4, was = z + 2, mlp = (size_t)wide.mlp_dim;
    int embedding[] = {TRANSPLANT_FRESH, TRANSPLANT_FRESH};

    (void)state;
    transplant_parameters(&new->layout, new->parameters, &old->layout, old->parameters, embedding);
    for (size_t row = 0; row < mlp; row++) {
        const float *now = named(new, "_reward.0.weight") + row * in, *init = named(fresh, "_reward.0.weight") + row * in;
        const float *before = named(old, "_reward.0.weight") + row * was;

        assert_memory_equal(now, before, z * sizeof(float));
        assert_memory_equal(now + z, init + z, 5 * sizeof(float));
        assert_memory_equal(now + z + 5, before + z, 2 * sizeof(float));
        assert_memory_equal(now + z + 7, init + z + 7, 2 * sizeof(float));
    }
    for (size_t row = 0; row < 8; row++) /* policy: 4 means, 4 deviations, of which the first 2 each are old */
        assert_memory_equal(named(new, "_pi.2.weight") + row * mlp,
                            row % 4 < 2 ? named(old, "_pi.2.weight") + (row / 4 * 2 + row % 4) * mlp
                                        : named(fresh, "_pi.2.weight") + row * mlp, mlp * sizeof(float));
    assert_memory_equal(named(new, "_task_emb.weight"), named(fresh, "_task_emb.weight"), 10 * sizeof(float));
    world_model_destroy(&old);
    world_model_destroy(&new);
    world_model_destroy(&fresh);
}

static void embeddings_come_from_where_is_said(void **state)
{
    struct model_dims three = many_dims(4, 2, 3), four = many_dims(4, 2, 4);
    world_model_t *old = random_model(&three, 7), *new = random_model(&four, 8), *fresh = random_model(&four, 8);
    int embedding[] = {2, TRANSPLANT_MEAN, TRANSPLANT_FRESH, 0};
    const float *was = named(old, "_task_emb.weight"), *now;

    (void)state;
    transplant_parameters(&new->layout, new->parameters, &old->layout, old->parameters, embedding);
    now = named(new, "_task_emb.weight");
    assert_memory_equal(now, was + 10, 5 * sizeof(float));
    for (int i = 0; i < 5; i++)
        assert_true(fabsf(now[5 + i] - (was[i] + was[5 + i] + was[10 + i]) / 3) < 1e-6f);
    assert_memory_equal(now + 10, named(fresh, "_task_emb.weight") + 10, 5 * sizeof(float));
    assert_memory_equal(now + 15, was, 5 * sizeof(float));
    world_model_destroy(&old);
    world_model_destroy(&new);
    world_model_destroy(&fresh);
}

static void moments_of_what_is_new_are_zero(void **state)
{
    struct model_dims narrow = single_dims(3, 2), wide = single_dims(4, 2);
    world_model_t *old = random_model(&narrow, 9), *new = random_model(&wide, 10);
    size_t acting = model_acting_floats(&new->layout), target = new->layout.part[MODEL_TARGET_Q];
    float after = new->parameters[target];
    int embedding = TRANSPLANT_FRESH;

    (void)state;
    transplant_moments(&new->layout, new->parameters, &old->layout, old->parameters, &embedding);
    for (int row = 0; row < wide.enc_dim; row++) {
        assert_memory_equal(named(new, "_encoder.state.0.weight") + row * 4, named(old, "_encoder.state.0.weight") + row * 3,
                            3 * sizeof(float));
        assert_true(named(new, "_encoder.state.0.weight")[row * 4 + 3] == 0);
    }
    assert_true(acting == target && new->parameters[target] == after); /* there is none of the targets */
    world_model_destroy(&old);
    world_model_destroy(&new);
}

static void what_does_not_fit_is_named(void **state)
{
    struct model_dims from = many_dims(4, 2, 3), to = many_dims(9, 1, 2);
    struct error err = {0};

    (void)state;
    assert_ok(transplant_check(&to, &from, &err), err);
    to.latent_dim *= 2;
    assert_int_equal(transplant_check(&to, &from, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "latent_dim="));
    to = many_dims(9, 1, 2);
    to.task_dim = 6;
    assert_int_equal(transplant_check(&to, &from, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "trained with task_dim=5, this run has task_dim=6"));
    to = from;
    to.rgb = true;
    assert_int_equal(transplant_check(&to, &from, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "obs=state"));
}

static void gather(void *context, const char *line)
{
    strncat(context, line, 400);
    strncat(context, "\n", 2);
}

static void it_says_what_becomes_of_what_differs(void **state)
{
    struct model_dims from = many_dims(24, 6, 2), to = single_dims(5, 1), wide = single_dims(5, 3);
    const char *const names[] = {"cartpole-swingup"}, *const old_names[] = {"walker-walk", "cheetah-run"};
    int mean = TRANSPLANT_MEAN, second = 1;
    char text[3000] = "";

    (void)state;
    transplant_tell(&to, &from, &mean, names, old_names, gather, text);
    assert_non_null(strstr(text, "observations: 5 components, the checkpoint has 24: 6 to 24 are left out of the encoder"));
    assert_non_null(strstr(text, "the mean of 2 embeddings is added to the first layers' biases"));
    text[0] = '\0';
    transplant_tell(&from, &from, (int[]){second, TRANSPLANT_FRESH}, (const char *const[]){"a", "b"}, old_names, gather, text);
    assert_string_equal(text, "a begins with the embedding of cheetah-run\nb begins with a fresh embedding\n");
    text[0] = '\0';
    transplant_tell(&wide, &to, &mean, names, NULL, gather, text);
    assert_string_equal(text, "actions: 3 components, the checkpoint has 1: 2 to 3 begin fresh in dynamics, reward, Qs and policy\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_sizes_are_the_same_bits),
        cmocka_unit_test(one_of_many_alone_computes_the_same),
        cmocka_unit_test(what_is_new_begins_fresh),
        cmocka_unit_test(embeddings_come_from_where_is_said),
        cmocka_unit_test(moments_of_what_is_new_are_zero),
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(it_says_what_becomes_of_what_differs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
