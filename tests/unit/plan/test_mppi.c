#include "tests/support/test.h"

#include <math.h>

#include "common/nn/init.h"
#include "common/plan/mppi.h"
#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"
#include "tests/support/models.h"

static struct mppi_config small(void)
{
    return (struct mppi_config){.mpc = true, .horizon = 3, .iterations = 4, .num_samples = 50,
                                .num_elites = 9, .num_pi_trajs = 7, .min_std = 0.05f, .max_std = 2,
                                .temperature = 0.5f, .discount = 0.99};
}

static uint8_t frames[PIXEL_FRAMES * PIXEL_FRAME_BYTES];
static const float obs[7] = {0.3f, -1, 0.5f, 2, 0, -0.2f, 1};

/* One plan by a planner of its own. */
static int plan_once(const struct mppi_config *config, const world_model_t *model, int threads, bool eval,
                     uint64_t step, float *action, float *mean)
{
    struct rng rng = test_stream(4, step);
    struct mppi_draws draws = mppi_draws_rng(&rng);
    struct error err;
    pool_t *pool;
    mppi_t *mppi;
    int rc;

    assert_ok(pool_create(&pool, threads, &err), err);
    assert_ok(mppi_create(&mppi, config, &model->layout.dims, 1, pool, &err), err);
    rc = mppi_plan(mppi, model, model->layout.dims.rgb ? (const void *)frames : obs, true, eval, &draws, action);
    if (mean != NULL)
        memcpy(mean, mppi_previous_mean(mppi, 0),
               (size_t)(config->horizon * model->layout.dims.action_dim) * sizeof(float));
    mppi_destroy(&mppi);
    pool_destroy(&pool);
    return rc;
}

static void threads_do_not_change_a_bit(void **state)
{
    struct model_dims dims = test_dims(true, 0);
    world_model_t *model = test_model(&dims, 2);
    struct mppi_config config = small();
    float action[3][3], mean[3][9];

    (void)state;
    config.num_samples = 700; /* three tiles */
    config.num_pi_trajs = 24;
    for (int i = 0; i < 3; i++)
        assert_int_equal(plan_once(&config, model, i + 1, false, 0, action[i], mean[i]), TD_OK);
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(action[0], action[i], sizeof(action[0]));
        assert_memory_equal(mean[0], mean[i], sizeof(mean[0]));
    }
    world_model_destroy(&model);
}

/* Pixels: the same bits with any number of threads, every frame and the crop matter, to the policy too. */
static void pixels_are_planned_for(void **state)
{
    struct model_dims dims = test_pixel_dims(0);
    world_model_t *model = test_model(&dims, 3); /* one whose ReLUs are not all shut */
    struct mppi_config config = small();
    float action[6][3], mean[6][9];

    (void)state;
    for (size_t i = 0; i < sizeof(frames); i++)
        frames[i] = (uint8_t)rng_below(test_rng(), 256);
    for (int planned = 0; planned < 2; planned++) {
        config.mpc = planned == 1;
        for (int run = 0; run < 5; run++) {
            if (run >= 2)
                frames[(run - 2) * PIXEL_FRAME_BYTES + 9000] ^= 128;
            assert_int_equal(plan_once(&config, model, 1 + run % 2, true, 0, action[run], mean[run]), TD_OK);
        }
        assert_memory_equal(action[0], action[1], sizeof(action[0]));
        assert_true(!planned || memcmp(mean[0], mean[1], sizeof(mean[0])) == 0);
        for (int run = 2; run < 5; run++)
            assert_memory_not_equal(action[run], action[run - 1], sizeof(action[0]));
    }
    /* The mean of the policy draws nothing but the crop. */
    config.mpc = false;
    assert_int_equal(plan_once(&config, model, 1, true, 0, action[0], NULL), TD_OK);
    assert_int_equal(plan_once(&config, model, 1, true, 1, action[1], NULL), TD_OK);
    assert_memory_not_equal(action[0], action[1], sizeof(action[0]));
    world_model_destroy(&model);
}

/* --- against a planner written without any of the savings -------------------------------------- */

struct seen {
    const world_model_t *model;
    const struct mppi_config *config;
    const struct mppi_draws *draws;
    int iterations;
    float largest; /* Q: values are sums of numbers of this size */
};

/* _estimate_value for one candidate, step by step, one row at a time. */
static float plain_value(struct seen *seen, const float *actions, int s, int iteration)
{
    const world_model_t *model = seen->model;
    const struct mppi_config *config = seen->config;
    int a = model->layout.dims.action_dim, latent = model->layout.dims.latent_dim, two[2];
    float za[64], next[64], logits[64], net[16], noise[2048], reward, q[2], flag, done = 0, value = 0;
    float scratch[2 * MLP_ACT_TILE * 64];
    double discount = 1;
    struct mlp head;

    mlp_forward(&model->part[MODEL_ENCODER], obs, 7, 1, za, 64, scratch);
    for (int t = 0; t < config->horizon; t++) {
        memcpy(za + latent, actions + (t * config->num_samples + s) * a, (size_t)a * sizeof(float));
        mlp_forward(&model->part[MODEL_REWARD], za, 64, 1, logits, 64, scratch);
        two_hot_decode(&model->two_hot, logits, 64, 1, &reward, NULL);
        mlp_forward(&model->part[MODEL_DYNAMICS], za, 64, 1, next, 64, scratch);
        memcpy(za, next, (size_t)latent * sizeof(float));
        value += (float)discount * (1 - done) * reward;
        discount *= config->discount;
        if (model->layout.dims.episodic) {
            mlp_forward(&model->part[MODEL_TERMINATION], za, 64, 1, &flag, 1, scratch);
            done = fminf(1, done + (flag > 0 ? 1.0f : 0.0f));
        }
    }
    seen->draws->fill(seen->draws->context, MPPI_TERMINAL_NOISE, iteration, noise,
                      (size_t)(config->num_samples * a));
    mlp_forward(&model->part[MODEL_PI], za, 64, 1, net, 16, scratch);
    policy_sample(&model->head, net, 16, noise + s * a, 1, za + latent, 64);
    seen->draws->heads(seen->draws->context, iteration, model->layout.dims.num_q, two);
    for (int i = 0; i < 2; i++) {
        mlp_head(&head, &model->part[MODEL_Q], two[i]);
        mlp_forward(&head, za, 64, 1, logits, 64, scratch);
        two_hot_decode(&model->two_hot, logits, 64, 1, &q[i], NULL);
        seen->largest = fmaxf(seen->largest, fabsf(q[i]));
    }
    return value + (float)discount * (1 - done) * (q[0] + q[1]) / 2;
}

static void check_iteration(void *context, int environment, int iteration, const float *value, const float *actions)
{
    struct seen *seen = context;
    int differ = 0;

    assert_int_equal(environment, 0);
    assert_int_equal(iteration, seen->iterations++);
    for (int s = 0; s < seen->config->num_samples; s++) {
        float wanted = plain_value(seen, actions, s, iteration);

        assert_close(&value[s], &wanted, 1, 1e-5 * (double)seen->largest, 2e-5);
        differ += value[s] != value[0];
    }
    assert_true(differ > seen->config->num_samples / 2);
}

static void values_are_those_of_single_rollouts(void **state)
{
    static const struct {
        int horizon, samples, pi, episodic;
    } cases[] = {{3, 50, 7, 0}, {3, 50, 7, 1}, {1, 30, 4, 0}, {2, 33, 0, 1}, {4, 21, 21, 1}, {2, 530, 19, 0}};

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        struct model_dims dims = test_dims(cases[i].episodic, 0.3f);
        world_model_t *model = test_model(&dims, 3 + i);
        struct mppi_config config = small();
        struct rng rng = test_stream(6, i);
        struct mppi_draws draws = mppi_draws_rng(&rng);
        struct seen seen = {.model = model, .config = &config, .draws = &draws};
        struct mppi_watch watch = {.context = &seen, .iteration = check_iteration};
        struct error err;
        float action[3];
        mppi_t *mppi;

        config.horizon = cases[i].horizon;
        config.num_samples = cases[i].samples;
        config.num_pi_trajs = cases[i].pi;
        assert_ok(mppi_create(&mppi, &config, &dims, 1, NULL, &err), err);
        mppi_set_watch(mppi, &watch);
        assert_int_equal(mppi_plan(mppi, model, obs, true, false, &draws, action), TD_OK);
        assert_int_equal(seen.iterations, config.iterations);
        mppi_destroy(&mppi);
        world_model_destroy(&model);
    }
}

/* --- behaviour --------------------------------------------------------------------------------- */

static void the_previous_plan_matters_unless_first(void **state)
{
    struct model_dims dims = test_dims(false, 0);
    world_model_t *model = test_model(&dims, 2);
    struct mppi_config config = small();
    struct rng rng = test_stream(7, 0);
    struct mppi_draws draws = mppi_draws_rng(&rng);
    float fresh[3], forgot[3], kept[3], mean[9];
    struct error err;
    mppi_t *mppi;

    (void)state;
    config.iterations = 1;
    assert_ok(mppi_create(&mppi, &config, &dims, 1, NULL, &err), err);
    assert_int_equal(mppi_plan(mppi, model, obs, true, false, &draws, fresh), TD_OK);
    memcpy(mean, mppi_previous_mean(mppi, 0), sizeof(mean));
    assert_int_equal(mppi_plan(mppi, model, obs, true, false, &draws, forgot), TD_OK);
    assert_memory_equal(fresh, forgot, sizeof(fresh));
    assert_memory_equal(mean, mppi_previous_mean(mppi, 0), sizeof(mean));
    assert_int_equal(mppi_plan(mppi, model, obs, false, false, &draws, kept), TD_OK);
    assert_memory_not_equal(mean, mppi_previous_mean(mppi, 0), sizeof(mean));
    mppi_destroy(&mppi);
    world_model_destroy(&model);
}

static void actions_stay_in_range_and_eval_drops_the_noise(void **state)
{
    struct model_dims dims = test_dims(false, 0);
    world_model_t *model = test_model(&dims, 2);
    struct mppi_config config = small();
    float noisy[3], eval[3], again[3];
    int different = 0;

    (void)state;
    for (uint64_t step = 0; step < 20; step++) {
        assert_int_equal(plan_once(&config, model, 1, false, step, noisy, NULL), TD_OK);
        assert_int_equal(plan_once(&config, model, 1, true, step, eval, NULL), TD_OK);
        assert_int_equal(plan_once(&config, model, 1, true, step, again, NULL), TD_OK);
        assert_memory_equal(eval, again, sizeof(eval));
        for (int j = 0; j < 3; j++) {
            assert_true(fabsf(noisy[j]) <= 1 && fabsf(eval[j]) <= 1);
            different += noisy[j] != eval[j];
        }
    }
    assert_true(different > 30);
    world_model_destroy(&model);
}

static void without_planning_the_policy_acts(void **state)
{
    struct model_dims dims = test_dims(false, 0);
    world_model_t *model = test_model(&dims, 2);
    struct mppi_config config = small();
    float mean[3], sampled[3], z[24], net[6], scratch[2 * MLP_ACT_TILE * 32];

    (void)state;
    config.mpc = false;
    assert_int_equal(plan_once(&config, model, 1, true, 0, mean, NULL), TD_OK);
    assert_int_equal(plan_once(&config, model, 1, false, 0, sampled, NULL), TD_OK);
    mlp_forward(&model->part[MODEL_ENCODER], obs, 7, 1, z, 24, scratch);
    mlp_forward(&model->part[MODEL_PI], z, 24, 1, net, 6, scratch);
    for (int j = 0; j < 3; j++) {
        assert_true(fabsf(mean[j] - tanhf(net[j])) < 1e-6f);
        assert_true(sampled[j] != mean[j] && fabsf(sampled[j]) <= 1);
    }
    world_model_destroy(&model);
}

/* A model with higher reward for larger first actions: the plan goes there. */
static void plans_follow_the_reward(void **state)
{
    struct model_dims dims = test_dims(false, 0);
    world_model_t *model = test_model(&dims, 2);
    struct mppi_config config = small();
    const struct model_tensor *weight = model_layout_find(&model->layout, "_reward.0.weight");
    float up[3], mean[9];

    (void)state;
    /* reward.0 sees the first action only; reward.2 turns its units into a high or a low bin. */
    memset(model->parameters + weight->offset, 0, weight->count * sizeof(float));
    for (int unit = 0; unit < 21; unit++)
        model->parameters[weight->offset + (size_t)unit * 27 + 24] = unit % 2 ? 1.0f : -1.0f;
    weight = model_layout_find(&model->layout, "_reward.1.weight");
    memset(model->parameters + weight->offset, 0, weight->count * sizeof(float));
    for (int unit = 0; unit < 21; unit++)
        model->parameters[weight->offset + (size_t)unit * 21 + (size_t)unit] = 1;
    weight = model_layout_find(&model->layout, "_reward.2.weight");
    memset(model->parameters + weight->offset, 0, weight->count * sizeof(float));
    for (size_t unit = 1; unit < 21; unit += 2)
        model->parameters[weight->offset + 25 * 21 + unit] = 3; /* bin 25 of 31: symexp(6.7) */
    for (int part = 0; part < 2; part++) { /* values know nothing */
        weight = model_layout_find(&model->layout, part ? "_Qs.params.2.weight" : "_Qs.params.2.bias");
        memset(model->parameters + weight->offset, 0, weight->count * sizeof(float));
    }
    config.num_samples = 300;
    config.num_elites = 30;
    config.iterations = 6;
    assert_int_equal(plan_once(&config, model, 1, true, 0, up, mean), TD_OK);
    assert_true(mean[0] > 0.3f);
    world_model_destroy(&model);
}

static void broken_parameters_are_reported(void **state)
{
    struct model_dims dims = test_dims(false, 0);
    world_model_t *model = test_model(&dims, 2);
    struct mppi_config config = small();
    float action[3];

    (void)state;
    /* Values that are not finite score 0; the action is still one of the candidates. */
    model->parameters[model_layout_find(&model->layout, "_reward.1.bias")->offset] = NAN;
    assert_int_equal(plan_once(&config, model, 1, false, 0, action, NULL), TD_OK);
    for (int j = 0; j < 3; j++)
        assert_true(isfinite(action[j]));
    config.mpc = false;
    model->parameters[model_layout_find(&model->layout, "_pi.1.bias")->offset] = NAN;
    assert_int_equal(plan_once(&config, model, 1, false, 0, action, NULL), TD_EDIVERGED);
    world_model_destroy(&model);
}

/* Two models in turn through one planner give what two planners give. */
static void the_model_may_change_between_plans(void **state)
{
    struct model_dims dims = test_dims(false, 0);
    world_model_t *models[2] = {test_model(&dims, 2), test_model(&dims, 9)};
    struct mppi_config config = small();
    struct error err;
    mppi_t *mppi;

    (void)state;
    assert_ok(mppi_create(&mppi, &config, &dims, 1, NULL, &err), err);
    for (uint64_t i = 0; i < 4; i++) {
        struct rng rng = test_stream(4, i);
        struct mppi_draws draws = mppi_draws_rng(&rng);
        float one[3], own[3];

        assert_int_equal(mppi_plan(mppi, models[i % 2], obs, true, false, &draws, one), TD_OK);
        assert_int_equal(plan_once(&config, models[i % 2], 1, false, i, own, NULL), TD_OK);
        assert_memory_equal(one, own, sizeof(one));
    }
    mppi_destroy(&mppi);
    world_model_destroy(&models[0]);
    world_model_destroy(&models[1]);
}

/* --- batches ----------------------------------------------------------------------------------- */

enum { ENVS = 5, BATCHES = 6 };

/* What environment e sees, and draws with, at its step t: of its own. */
static void fill_request(struct mppi_request *request, struct rng *rng, float *seen, uint8_t *pixels, bool rgb,
                         int e, int t, float *action)
{
    *rng = test_stream(40 + (uint64_t)e, (uint64_t)t);
    rng_normal(rng, seen, 7);
    for (size_t i = 0; rgb && i < PIXEL_FRAMES * PIXEL_FRAME_BYTES; i++)
        pixels[i] = (uint8_t)(i * (size_t)(2 * e + 3) + (size_t)t * 77 + (i >> 7));
    *request = (struct mppi_request){.environment = e, .obs = rgb ? (const void *)pixels : seen,
                                     .first = t == e % 2, .eval = (e + t) % 3 == 0, .task = (uint32_t)e % 3,
                                     .draws = mppi_draws_rng(rng), .action = action, .status = -1};
}

/* Which environments are in which batch, and in which order; -1: no more. */
static const int who[BATCHES][ENVS] = {{0, 1, 2, 3, 4}, {4, 2, 0, 3, 1}, {3, -1}, {1, 4, -1},
                                       {2, 1, 0, -1},   {0, 3, 4, 1, 2}};

/* Every batch with one planner; what each environment did at each of its steps. */
static void plan_in_batches(const struct mppi_config *config, const world_model_t *model, int threads,
                            float action[ENVS][BATCHES][3], float mean[ENVS][9])
{
    static uint8_t pixels[ENVS][PIXEL_FRAMES * PIXEL_FRAME_BYTES];
    struct mppi_request requests[ENVS];
    struct rng rng[ENVS];
    float seen[ENVS][7];
    int steps[ENVS] = {0};
    struct error err;
    pool_t *pool = NULL;
    mppi_t *mppi;

    if (threads > 0)
        assert_ok(pool_create(&pool, threads, &err), err);
    assert_ok(mppi_create(&mppi, config, &model->layout.dims, ENVS, pool, &err), err);
    for (int b = 0; b < BATCHES; b++) {
        int count = 0;

        for (; count < ENVS && who[b][count] >= 0; count++) {
            int e = who[b][count], t = steps[e]++;

            fill_request(&requests[count], &rng[count], seen[count], pixels[count], model->layout.dims.rgb, e, t,
                         action[e][t]);
        }
        assert_int_equal(mppi_plan_batch(mppi, model, requests, count), TD_OK);
        for (int i = 0; i < count; i++)
            assert_int_equal(requests[i].status, TD_OK);
    }
    assert_int_equal(mppi_plan_batch(mppi, model, requests, 0), TD_OK);
    for (int e = 0; e < ENVS; e++)
        memcpy(mean[e], mppi_previous_mean(mppi, e), 9 * sizeof(float));
    mppi_destroy(&mppi);
    pool_destroy(&pool);
}

/* A planner of its own for this environment, one plan after the other. */
static void plan_alone(const struct mppi_config *config, const world_model_t *model, int e, int steps,
                       float action[BATCHES][3], float *mean)
{
    static uint8_t pixels[PIXEL_FRAMES * PIXEL_FRAME_BYTES];
    struct mppi_request request;
    struct rng rng;
    float seen[7];
    struct error err;
    mppi_t *mppi;

    assert_ok(mppi_create(&mppi, config, &model->layout.dims, 1, NULL, &err), err);
    for (int t = 0; t < steps; t++) {
        fill_request(&request, &rng, seen, pixels, model->layout.dims.rgb, e, t, action[t]);
        request.environment = 0;
        assert_int_equal(mppi_plan_batch(mppi, model, &request, 1), TD_OK);
    }
    memcpy(mean, mppi_previous_mean(mppi, 0), 9 * sizeof(float));
    mppi_destroy(&mppi);
}

static int steps_of(int e)
{
    int steps = 0;

    for (int b = 0; b < BATCHES; b++)
        for (int i = 0; i < ENVS && who[b][i] >= 0; i++)
            steps += who[b][i] == e;
    return steps;
}

/* Whatever else is in the batch, in any order, with any number of threads: the same bits. */
static void check_batches(const struct mppi_config *config, const world_model_t *model)
{
    float action[ENVS][BATCHES][3], mean[ENVS][9], alone[BATCHES][3], alone_mean[9];

    for (int threads = 0; threads <= 3; threads++) {
        plan_in_batches(config, model, threads, action, mean);
        for (int e = 0; e < ENVS; e++) {
            int steps = steps_of(e);

            plan_alone(config, model, e, steps, alone, alone_mean);
            assert_memory_equal(alone, action[e], (size_t)steps * sizeof(alone[0]));
            assert_memory_not_equal(action[e][0], action[(e + 1) % ENVS][0], sizeof(alone[0]));
            if (config->mpc)
                assert_memory_equal(alone_mean, mean[e], sizeof(alone_mean));
        }
    }
}

static void a_plan_is_the_same_in_any_batch(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) { /* plain, with terminations, pixels, tasks */
        struct model_dims dims = kind == 3 ? test_task_dims(0) : kind == 2 ? test_pixel_dims(0) : test_dims(kind == 1, 0);
        world_model_t *model = test_model(&dims, 3);
        struct mppi_config config = small();

        config.num_samples = kind == 0 || kind == 3 ? 600 : 50; /* three tiles, or one */
        check_batches(&config, model);
        config.mpc = false;
        check_batches(&config, model);
        world_model_destroy(&model);
    }
}

/* The model in half storage, and one of floats with the same values. */
static world_model_t *halve(world_model_t *model)
{
    world_model_t *half;
    struct error err;

    assert_ok(world_model_create_half(&half, &model->layout.dims, &err), err);
    model_to_half(&model->layout, model->parameters, half->parameters);
    model_from_half(&model->layout, half->parameters, model->parameters);
    if (model->layout.dims.num_tasks > 0)
        memcpy(half->task, model->task, (size_t)model->layout.dims.num_tasks * sizeof(*model->task));
    return half;
}

/* Every plan from bfloat16 weights is the one from floats of the same values, with less memory. */
static void half_storage_plans_alike(void **state)
{
    enum isa best = isa_current();

    (void)state;
    for (int isa = ISA_PLAIN + 1; isa < ISA_COUNT; isa++) {
        if (isa_force((enum isa)isa) != TD_OK)
            continue;
        for (int kind = 0; kind < 10; kind++) {
            struct model_dims dims = kind % 4 == 3   ? test_task_dims(0)
                                     : kind % 4 == 2 ? test_pixel_dims(0)
                                                     : test_dims(kind % 4 == 1, 0);
            world_model_t *model, *half;
            struct mppi_config config = small();
            float action[2][3], mean[2][9];

            model_half_least = kind < 8 ? 0 : MODEL_HALF_LEAST; /* all, or some of the first kind's and none of the second's */
            if (kind % 4 == 0)
                dims.mlp_dim = 700; /* deeper than a block of the products */
            model = test_model(&dims, 3);
            half = halve(model);
            config.mpc = kind < 4 || kind >= 8;
            assert_int_equal(plan_once(&config, model, 2, false, 0, action[0], mean[0]), TD_OK);
            config.half = true;
            assert_int_equal(plan_once(&config, half, 2, false, 0, action[1], mean[1]), TD_OK);
            assert_memory_equal(action[0], action[1], sizeof(action[0]));
            assert_true(!config.mpc || memcmp(mean[0], mean[1], sizeof(mean[0])) == 0);
            assert_true(kind == 9 ? half->layout.half_matrices == 0 : world_model_bytes(half) < world_model_bytes(model));
            world_model_destroy(&half);
            world_model_destroy(&model);
        }
    }
    model_half_least = MODEL_HALF_LEAST;
    assert_int_equal(isa_force(best), TD_OK);
}

struct kept {
    float value[64];
};

static void keep_values(void *context, int environment, int iteration, const float *value, const float *actions)
{
    (void)environment;
    (void)actions;
    if (iteration == 0)
        memcpy(((struct kept *)context)->value, value, sizeof(((struct kept *)context)->value));
}

/*
 * Last layers that say something, as surely as learned ones do: a distribution over a few bins, moved by what
 * the layers before make of the input.
 */
static void make_sure(world_model_t *model)
{
    for (int i = 0; i < model->layout.tensors; i++) {
        const struct model_tensor *tensor = &model->layout.tensor[i];
        float *x = model->parameters + tensor->offset;
        bool last = strstr(tensor->name, ".2.") != NULL && (tensor->part == MODEL_REWARD || tensor->part == MODEL_Q);

        if (last && tensor->matrix)
            init_truncated_normal(test_rng(), x, tensor->count, 0.05f);
        for (size_t j = 0; last && !tensor->matrix && j < tensor->count; j++) {
            float bin = -10.0f + 0.2f * (float)(j % 101), centre = tensor->part == MODEL_Q ? 3.0f : 0.7f;

            x[j] = -(bin - centre) * (bin - centre) / (2 * 0.4f * 0.4f);
        }
    }
}

/* At the widths of size 5, values from bfloat16 are those from floats to a hundredth of the largest. */
static void half_storage_values_are_within_a_hundredth(void **state)
{
    struct kept kept[2];
    struct config options;
    struct model_dims dims;
    world_model_t *model, *half;
    struct error err;
    double worst = 0;

    (void)state;
    config_init(&options);
    options.model_size = 5;
    assert_ok(model_dims_init(&dims, &options, 24, 6, &err), err);
    assert_ok(world_model_create(&model, &dims, true, &err), err);
    world_model_init(model, 7);
    make_sure(model);
    assert_ok(world_model_create_half(&half, &dims, &err), err);
    model_to_half(&model->layout, model->parameters, half->parameters);
    for (uint64_t seed = 0; seed < 4; seed++) {
        double largest = 0, off = 0;

        for (int i = 0; i < 2; i++) {
            struct mppi_watch watch = {.context = &kept[i], .iteration = keep_values};
            struct mppi_config config = small();
            struct rng rng = test_stream(seed, 3);
            struct mppi_draws draws = mppi_draws_rng(&rng);
            float seen[24], action[6];
            mppi_t *mppi;

            rng_normal(&rng, seen, 24);
            config.num_samples = 64;
            config.iterations = 1;
            config.half = i == 1;
            assert_ok(mppi_create(&mppi, &config, &dims, 1, NULL, &err), err);
            mppi_set_watch(mppi, &watch);
            assert_int_equal(mppi_plan(mppi, i == 1 ? half : model, seen, true, true, &draws, action), TD_OK);
            mppi_destroy(&mppi);
        }
        for (int s = 0; s < 64; s++) {
            largest = fmax(largest, fabs((double)kept[0].value[s]));
            off = fmax(off, fabs((double)kept[0].value[s] - (double)kept[1].value[s]));
        }
        print_message("largest %g off %g\n", largest, off);
        worst = fmax(worst, off / largest);
    }
    assert_true(worst > 0 && worst < 1e-2);
    world_model_destroy(&half);
    world_model_destroy(&model);
}

/* What it will take is known before. */
static void memory_is_known_before_it_is_taken(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct model_dims dims = kind == 2 ? test_task_dims(0) : kind == 1 ? test_pixel_dims(0) : test_dims(true, 0);
        struct mppi_config config = small();
        struct error err;
        size_t bytes;
        mppi_t *mppi;

        config.num_samples = 600;
        assert_ok(mppi_measure(&bytes, &config, &dims, 2, pool_threads(NULL), &err), err);
        assert_ok(mppi_create(&mppi, &config, &dims, 2, NULL, &err), err);
        assert_int_equal(mppi_bytes(mppi), bytes);
        mppi_destroy(&mppi);
    }
}

/* The mask leaves no action, mean or candidate beyond the task's; a long embedding counts as one of length 1. */
static void tasks_have_their_own_actions_and_embeddings(void **state)
{
    static const int actions[] = {3, 1, 2};
    struct model_dims dims = test_task_dims(0);
    world_model_t *model = test_model(&dims, 3);
    float *row = model_embeddings(&model->layout, model->parameters), kept[5];
    struct mppi_config config = small();
    struct error err;
    mppi_t *mppi;

    (void)state;
    for (int i = 0; i < 15; i++)
        row[i] *= 4;
    memcpy(kept, row + 10, sizeof(kept));
    for (int mpc = 0; mpc < 2; mpc++) {
        float action[4][3];

        config.mpc = mpc == 1;
        for (int run = 0; run < 4; run++) { /* tasks 0, 1, 2; 2 with an embedding already rescaled */
            struct rng rng = test_stream(4, 0);
            struct mppi_request request = {.obs = obs, .task = run < 3 ? (uint32_t)run : 2,
                                           .draws = mppi_draws_rng(&rng), .action = action[run]};

            assert_true(run < 3 || embedding_renorm(row + 10, 5));
            assert_ok(mppi_create(&mppi, &config, &dims, 1, NULL, &err), err);
            assert_int_equal(mppi_plan_batch(mppi, model, &request, 1), TD_OK);
            for (int j = 0; j < 3; j++) {
                bool has = j < actions[request.task];

                assert_true((action[run][j] != 0) == has);
                for (int t = 0; mpc == 1 && t < config.horizon; t++)
                    assert_true((mppi_previous_mean(mppi, 0)[t * 3 + j] != 0) == has);
            }
            mppi_destroy(&mppi);
        }
        assert_memory_equal(action[2], action[3], sizeof(action[2]));
        assert_true(action[0][0] != action[1][0] && action[1][0] != action[2][0]);
        memcpy(row + 10, kept, sizeof(kept));
    }
    world_model_destroy(&model);
}

/* One environment's plan that comes to nothing is its own affair. */
static void only_the_plan_that_diverged_is_reported(void **state)
{
    struct model_dims dims = test_dims(false, 0);
    world_model_t *model = test_model(&dims, 3);
    struct mppi_config config = small();
    static const float broken[7] = {NAN};
    struct mppi_request requests[3];
    struct rng rng[3];
    float seen[3][7], action[3][3];
    struct error err;
    mppi_t *mppi;

    (void)state;
    config.mpc = false;
    assert_ok(mppi_create(&mppi, &config, &dims, 3, NULL, &err), err);
    for (int e = 0; e < 3; e++)
        fill_request(&requests[e], &rng[e], seen[e], NULL, false, e, 0, action[e]);
    requests[1].obs = broken;
    assert_int_equal(mppi_plan_batch(mppi, model, requests, 3), TD_EDIVERGED);
    assert_int_equal(requests[0].status, TD_OK);
    assert_int_equal(requests[1].status, TD_EDIVERGED);
    assert_int_equal(requests[2].status, TD_OK);
    mppi_destroy(&mppi);
    world_model_destroy(&model);
}

/* Memory is what the header says: a share for each environment, scratch for the threads only. */
static void memory_grows_by_what_an_environment_needs(void **state)
{
    struct model_dims dims = test_dims(false, 0);
    struct mppi_config config = small();
    size_t bytes[3];
    struct error err;

    (void)state;
    config.num_samples = 600;
    for (int i = 0; i < 3; i++) {
        mppi_t *mppi;

        assert_ok(mppi_create(&mppi, &config, &dims, 1 + 20 * i, NULL, &err), err);
        bytes[i] = mppi_bytes(mppi);
        mppi_destroy(&mppi);
    }
    assert_true(bytes[2] - bytes[1] == bytes[1] - bytes[0]);
    assert_in_range((bytes[1] - bytes[0]) / 20, 7 * 600 * 3 * 4, 7 * 600 * 3 * 4 * 3 / 2);
}

static void contradicting_options_are_refused(void **state)
{
    struct mppi_config config = small();
    struct error err;

    (void)state;
    assert_int_equal(mppi_config_check(&config, &err), TD_OK);
    config.num_elites = 51;
    assert_int_equal(mppi_config_check(&config, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "num_elites=51"));
    config = small();
    config.num_pi_trajs = 51;
    assert_int_equal(mppi_config_check(&config, &err), TD_EINVAL);
    config = small();
    config.min_std = 3;
    assert_int_equal(mppi_config_check(&config, &err), TD_EINVAL);
    config = small();
    config.horizon = 0;
    assert_int_equal(mppi_config_check(&config, &err), TD_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(pixels_are_planned_for),
        cmocka_unit_test(values_are_those_of_single_rollouts),
        cmocka_unit_test(the_previous_plan_matters_unless_first),
        cmocka_unit_test(actions_stay_in_range_and_eval_drops_the_noise),
        cmocka_unit_test(without_planning_the_policy_acts),
        cmocka_unit_test(plans_follow_the_reward),
        cmocka_unit_test(broken_parameters_are_reported),
        cmocka_unit_test(the_model_may_change_between_plans),
        cmocka_unit_test(a_plan_is_the_same_in_any_batch),
        cmocka_unit_test(half_storage_plans_alike),
        cmocka_unit_test(half_storage_values_are_within_a_hundredth),
        cmocka_unit_test(memory_is_known_before_it_is_taken),
        cmocka_unit_test(tasks_have_their_own_actions_and_embeddings),
        cmocka_unit_test(only_the_plan_that_diverged_is_reported),
        cmocka_unit_test(memory_grows_by_what_an_environment_needs),
        cmocka_unit_test(contradicting_options_are_refused),
    };
    struct error err;

    if (gemm_start(3, &err) != TD_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
