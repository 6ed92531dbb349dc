#include "tests/support/test.h"

#include <math.h>
#include <semaphore.h>
#include <time.h>
#include <unistd.h>

#include "actor/worker.h"
#include "common/env/env.h"
#include "common/plan/mppi.h"
#include "common/util/clock.h"
#include "tests/support/count_allocations.h"

#define OBS    4 /* of the toy task */
#define ACTION 2
#define MEAN_BYTES (3 * ACTION * sizeof(float)) /* of the plan, behind the environment's state: horizon 3 */

static sem_t answered;

static void wake(void *context)
{
    (void)context;
    sem_post(&answered);
}

static void set(struct config *config, const char *word)
{
    struct error err = {0};

    assert_ok(config_set(config, word, &err), err);
}

static struct worker_options tiny(const char *task)
{
    struct worker_options options = {.threads = 2, .wake = wake};
    static const char *const words[] = {"enc_dim=16",      "mlp_dim=16",      "latent_dim=16",
                                        "num_samples=32",  "num_elites=4",    "num_pi_trajs=4",
                                        "iterations=2",    "num_bins=11",     "seed=7"};

    config_init(&options.config);
    for (size_t i = 0; i < TD_LEN(words); i++)
        set(&options.config, words[i]);
    snprintf(options.config.task, sizeof(options.config.task), "%s", task);
    sem_init(&answered, 0, 0);
    return options;
}

/* The next result, 10 s at most. */
static const struct worker_result *await(worker_t *worker)
{
    const struct worker_result *result;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    while ((result = worker_next(worker)) == NULL)
        assert_int_equal(sem_timedwait(&answered, &until), 0);
    return result;
}

static worker_t *start(const struct worker_options *options, size_t *snapshot_bytes)
{
    const struct worker_result *result;
    struct error err = {0};
    worker_t *worker;

    assert_ok(worker_create(&worker, options, &err), err);
    result = await(worker);
    if (result->kind != WORKER_READY)
        fail_msg("%s", result->err.text);
    if (snapshot_bytes != NULL)
        *snapshot_bytes = result->snapshot_bytes;
    return worker;
}

static void end(worker_t **worker)
{
    assert_true(worker_stop(*worker, 10000));
    worker_destroy(worker);
    assert_null(*worker);
}

static const struct worker_result *ask(worker_t *worker, const struct session_output *output)
{
    const struct worker_result *result;
    struct error err = {0};

    assert_ok(worker_command(worker, output, &err), err);
    result = await(worker);
    if (result->kind == WORKER_FAILED)
        fail_msg("%s", result->err.text);
    assert_int_equal(result->kind, output->kind);
    return result;
}

static struct session_output reset_command(uint64_t token)
{
    return (struct session_output){.kind = COMMAND_RESET, .reset = {.token = token}};
}

static struct session_output step_command(uint64_t token, bool random, bool first)
{
    return (struct session_output){
        .kind = COMMAND_STEP,
        .step = {.token = token,
                 .random = random,
                 .first = first,
                 .key = {.seed = 7, .purpose = random ? RNG_SEED_ACTION : RNG_PLAN, .step = token}}};
}

static const struct worker_result *reset(worker_t *worker)
{
    struct session_output output = reset_command(1);

    return ask(worker, &output);
}

static const struct worker_result *step(worker_t *worker, uint64_t token, bool random, bool first)
{
    struct session_output output = step_command(token, random, first);

    return ask(worker, &output);
}

/* A model of the worker's sizes, with parameters of its own. */
static world_model_t *some_model(const struct worker_options *options, uint64_t seed)
{
    struct model_dims dims;
    struct error err = {0};
    world_model_t *model;

    assert_ok(model_dims_init(&dims, &options->config, OBS, ACTION, &err), err);
    assert_ok(world_model_create(&model, &dims, false, &err), err);
    world_model_init(model, seed);
    return model;
}

static bool adopt(worker_t *worker, const world_model_t *model)
{
    struct session_output output = {.kind = COMMAND_ADOPT,
                                    .adopt = {.token = 9,
                                              .data = model->parameters,
                                              .size = world_model_bytes(model),
                                              .epoch = 1,
                                              .version = 3}};

    return ask(worker, &output)->ok;
}

/* --- tests ------------------------------------------------------------------ */

static void it_reports_its_sizes(void **state)
{
    struct worker_options options = tiny("toy:20");
    const struct worker_result *result;
    struct error err = {0};
    world_model_t *model = some_model(&options, 1);
    worker_t *worker;

    (void)state;
    assert_ok(worker_create(&worker, &options, &err), err);
    result = await(worker);
    assert_int_equal(result->kind, WORKER_READY);
    assert_int_equal(result->spec.obs_type, OBS_STATE);
    assert_int_equal(result->spec.obs_dim, OBS);
    assert_int_equal(result->spec.action_dim, ACTION);
    assert_int_equal(result->spec.episode_length, 20);
    assert_true(result->spec.saves_state);
    assert_int_equal(result->snapshot_bytes, model_acting_floats(&model->layout) * sizeof(float));
    assert_null(worker_next(worker));
    end(&worker);
    world_model_destroy(&model);
}

static void random_episodes_are_those_of_the_seed(void **state)
{
    struct worker_options options = tiny("toy:20");
    worker_t *worker = start(&options, NULL);
    struct error err = {0};
    float obs[OBS], action[ACTION];
    env_t *env;

    (void)state;
    assert_ok(env_create(&env, "toy:20", 7, &err), err);
    for (int episode = 0; episode < 2; episode++) {
        const struct worker_result *result = reset(worker);

        assert_null(result->step.action);
        assert_ok(env_reset(env, obs, &err), err);
        assert_memory_equal(result->step.obs, obs, sizeof(obs));
        for (uint64_t t = 1; t <= 20; t++) {
            struct session_output output = step_command(t, true, t == 1);
            struct env_result expected;
            struct rng rng;

            rng_init(&rng, &output.step.key);
            rng_uniform(&rng, action, ACTION, -1, 1);
            assert_ok(env_step(env, action, obs, &expected, &err), err);
            result = ask(worker, &output);
            assert_int_equal(result->token, t);
            assert_memory_equal(result->step.action, action, sizeof(action));
            assert_memory_equal(result->step.obs, obs, sizeof(obs));
            assert_true(result->step.reward == (float)expected.reward);
            assert_int_equal(result->step.truncated, t == 20);
            assert_false(result->step.terminated || result->step.has_success);
        }
    }
    env_close(&env);
    end(&worker);
}

static void another_seed_begins_another_stream(void **state)
{
    struct worker_options options = tiny("toy:20");
    worker_t *worker = start(&options, NULL);
    struct session_output output = reset_command(1);
    struct error err = {0};
    float first[OBS], obs[OBS];
    env_t *env;

    (void)state;
    output.reset.reseed = true;
    output.reset.seed = 12345;
    assert_ok(env_create(&env, "toy:20", 12345, &err), err);
    assert_ok(env_reset(env, first, &err), err);
    assert_ok(env_reset(env, obs, &err), err);
    assert_memory_equal(ask(worker, &output)->step.obs, first, sizeof(first));
    assert_memory_equal(reset(worker)->step.obs, obs, sizeof(obs));
    assert_memory_equal(ask(worker, &output)->step.obs, first, sizeof(first)); /* begins anew */
    env_close(&env);
    end(&worker);
}

static void check_planning(struct worker_options options)
{
    worker_t *worker = start(&options, NULL);
    world_model_t *models[2] = {some_model(&options, 1), some_model(&options, 2)};
    struct mppi_config config;
    struct error err = {0};
    mppi_t *planner;
    float obs[OBS], action[ACTION];

    mppi_config_init(&config, &options.config, ACTION, 20);
    config.half = derive_half(&options.config);
    for (int i = 0; config.half && i < 2; i++)
        assert_ok(world_model_halve(&models[i], &err), err);
    assert_ok(mppi_create(&planner, &config, &models[0]->layout.dims, 1, NULL, &err), err);
    memcpy(obs, reset(worker)->step.obs, sizeof(obs));
    for (uint64_t t = 1; t <= 6; t++) {
        struct session_output output = step_command(t, false, t == 1);
        const struct worker_result *result;
        const world_model_t *model = models[t > 3];
        struct mppi_draws draws;
        struct rng rng;

        if (t == 1 || t == 4)
            assert_true(adopt(worker, model));
        rng_init(&rng, &output.step.key);
        draws = mppi_draws_rng(&rng);
        assert_int_equal(mppi_plan(planner, model, obs, t == 1, false, &draws, action), TD_OK);
        result = ask(worker, &output);
        assert_memory_equal(result->step.action, action, sizeof(action));
        memcpy(obs, result->step.obs, sizeof(obs));
    }
    mppi_destroy(&planner);
    world_model_destroy(&models[0]);
    world_model_destroy(&models[1]);
    end(&worker);
}

static void it_plans_with_the_parameters_adopted_last(void **state)
{
    struct worker_options options = tiny("toy:20");

    (void)state;
    check_planning(options);
    set(&options.config, "actor_dtype=bf16");
    check_planning(options);
}

static void bfloat16_parameters_take_half_and_must_be_finite(void **state)
{
    struct worker_options options = tiny("toy:20");
    world_model_t *model;
    struct error err = {0};
    worker_t *worker;
    size_t whole;

    (void)state;
    model_half_least = 0; /* these models are tiny */
    model = some_model(&options, 1);
    whole = world_model_bytes(model);
    set(&options.config, "actor_dtype=bf16");
    worker = start(&options, NULL);
    assert_ok(world_model_halve(&model, &err), err);
    assert_true(world_model_bytes(model) < whole * 3 / 4); /* the smaller, the more of it is biases */
    assert_true(adopt(worker, model));
    ((uint16_t *)(void *)(model->parameters + model->layout.half_floats))[model->layout.half_matrices / 2] = 0x7f80;
    assert_false(adopt(worker, model));
    end(&worker);
    world_model_destroy(&model);
    model_half_least = MODEL_HALF_LEAST;
}

static void the_policy_acts_when_it_shall_not_plan(void **state)
{
    struct worker_options options = tiny("toy:20");
    world_model_t *model = some_model(&options, 1);
    struct mppi_config config;
    struct session_output output = step_command(1, false, true);
    struct mppi_draws draws;
    struct error err = {0};
    float obs[OBS], action[ACTION];
    worker_t *worker;
    mppi_t *planner;
    struct rng rng;

    (void)state;
    set(&options.config, "mpc=false");
    worker = start(&options, NULL);
    mppi_config_init(&config, &options.config, ACTION, 20);
    assert_ok(mppi_create(&planner, &config, &model->layout.dims, 1, NULL, &err), err);
    assert_true(adopt(worker, model));
    memcpy(obs, reset(worker)->step.obs, sizeof(obs));
    rng_init(&rng, &output.step.key);
    draws = mppi_draws_rng(&rng);
    assert_int_equal(mppi_plan(planner, model, obs, true, false, &draws, action), TD_OK);
    assert_memory_equal(ask(worker, &output)->step.action, action, sizeof(action));
    mppi_destroy(&planner);
    world_model_destroy(&model);
    end(&worker);
}

static void parameters_that_are_not_finite_are_not_acted_with(void **state)
{
    struct worker_options options = tiny("toy:20");
    worker_t *workers[2] = {start(&options, NULL), NULL};
    world_model_t *model = some_model(&options, 1), *bad = some_model(&options, 2);
    float action[ACTION];

    (void)state;
    assert_true(adopt(workers[0], model));
    for (int i = 0; i < 3; i++) { /* into both places */
        bad->parameters[model_acting_floats(&bad->layout) - 1 - (size_t)i] = i == 1 ? INFINITY : NAN;
        assert_false(adopt(workers[0], bad));
    }
    reset(workers[0]);
    memcpy(action, step(workers[0], 1, false, true)->step.action, sizeof(action));
    end(&workers[0]);

    workers[1] = start(&options, NULL);
    assert_true(adopt(workers[1], model));
    reset(workers[1]);
    assert_memory_equal(step(workers[1], 1, false, true)->step.action, action, sizeof(action));
    end(&workers[1]);
    world_model_destroy(&model);
    world_model_destroy(&bad);
}

static void a_captured_state_is_gone_back_to(void **state)
{
    struct worker_options options = tiny("toy:20");
    worker_t *worker = start(&options, NULL);
    struct session_output capture = {.kind = COMMAND_CAPTURE, .capture = {.token = 5}};
    struct session_output restore = {.kind = COMMAND_RESTORE, .restore = {.token = 6, .seed = 7}};
    const struct worker_result *result;
    float first[OBS], later[OBS];
    char bytes[8192];

    (void)state;
    memcpy(first, reset(worker)->step.obs, sizeof(first));
    result = ask(worker, &capture);
    assert_in_range(result->state.size, 1, sizeof(bytes));
    memcpy(bytes, result->state.data, result->state.size);
    restore.restore.state = (struct bulk){bytes, result->state.size};
    memcpy(later, reset(worker)->step.obs, sizeof(later));
    assert_memory_not_equal(first, later, sizeof(first));

    assert_true(ask(worker, &restore)->ok);
    assert_memory_equal(reset(worker)->step.obs, later, sizeof(later));
    bytes[restore.restore.state.size / 2] ^= 1;
    result = ask(worker, &restore);
    assert_false(result->ok);
    assert_int_equal(result->err.code, TD_ECORRUPT);
    bytes[restore.restore.state.size / 2] ^= 1;
    memset(bytes + restore.restore.state.size - sizeof(float), 0xff, sizeof(float)); /* a mean that is no number */
    result = ask(worker, &restore);
    assert_false(result->ok);
    assert_int_equal(result->err.code, TD_ECORRUPT);
    restore.restore.state.size--;
    result = ask(worker, &restore);
    assert_false(result->ok);
    assert_non_null(strstr(result->err.text, "are expected"));
    restore.restore.state.size = 0; /* made anew from the seed */
    assert_true(ask(worker, &restore)->ok);
    assert_memory_equal(reset(worker)->step.obs, first, sizeof(first));
    end(&worker);
}

static struct session_output evaluate_command(uint64_t token, uint32_t episodes, bool in_place)
{
    return (struct session_output){
        .kind = COMMAND_EVALUATE,
        .evaluate = {.token = token, .episodes = episodes, .in_place = in_place, .alone = true, .seed = 99,
                     .key = {.seed = 7, .purpose = RNG_EVAL}}};
}

/* The mean return of these episodes, played by hand. */
static double play(const struct worker_options *options, const world_model_t *model, env_t *env,
                   const struct session_output *output, double *length)
{
    struct mppi_config config;
    struct error err = {0};
    mppi_t *planner;
    double reward = 0;

    mppi_config_init(&config, &options->config, ACTION, env_spec(env)->episode_length);
    assert_ok(mppi_create(&planner, &config, &model->layout.dims, 1, NULL, &err), err);
    *length = 0;
    for (uint32_t i = 0; i < output->evaluate.episodes; i++) {
        struct env_result result = {0};
        float obs[OBS], action[ACTION];

        assert_ok(env_reset(env, obs, &err), err);
        for (uint32_t t = 0; !result.terminated && !result.truncated; t++) {
            struct rng_key key = session_eval_key(&output->evaluate.key, i, t);
            struct mppi_draws draws;
            struct rng rng;

            rng_init(&rng, &key);
            draws = mppi_draws_rng(&rng);
            assert_int_equal(mppi_plan(planner, model, obs, t == 0, true, &draws, action), TD_OK);
            assert_ok(env_step(env, action, obs, &result, &err), err);
            reward += (double)(float)result.reward;
            *length += 1;
        }
    }
    mppi_destroy(&planner);
    *length /= output->evaluate.episodes;
    return reward / output->evaluate.episodes;
}

static void evaluations_are_means_over_their_own_episodes(void **state)
{
    struct worker_options options = tiny("toy-episodic:30");
    worker_t *worker = start(&options, NULL);
    world_model_t *model = some_model(&options, 4);
    struct session_output output = evaluate_command(8, 3, false);
    struct error err = {0};
    double reward, length;
    env_t *env;

    (void)state;
    assert_true(adopt(worker, model));
    assert_ok(env_create(&env, "toy-episodic:30", 99, &err), err);
    reward = play(&options, model, env, &output, &length);
    env_close(&env);
    for (int i = 0; i < 2; i++) { /* fresh each time */
        const struct worker_result *result = ask(worker, &output);

        assert_true(result->ended);
        assert_int_equal(result->token, 8);
        assert_int_equal(result->evaluation.episodes, 3);
        assert_true(result->evaluation.reward == reward && result->evaluation.length == length);
        assert_int_equal(result->evaluation.state.size, 0);
    }
    world_model_destroy(&model);
    end(&worker);
}

static void an_evaluation_in_place_moves_the_training_environment(void **state)
{
    struct worker_options options = tiny("toy:30");
    worker_t *worker = start(&options, NULL);
    world_model_t *model = some_model(&options, 4);
    struct session_output output = evaluate_command(8, 2, true);
    const struct worker_result *result;
    struct error err = {0};
    double reward, length;
    float obs[OBS];
    char bytes[8192];
    env_t *env;

    (void)state;
    assert_true(adopt(worker, model));
    assert_ok(env_create(&env, "toy:30", 7, &err), err);
    reward = play(&options, model, env, &output, &length);
    result = ask(worker, &output);
    assert_true(result->evaluation.reward == reward && result->evaluation.length == 30);
    assert_int_equal(result->evaluation.state.size, env_state_size(env) + MEAN_BYTES);
    env_state_get(env, bytes);
    assert_memory_equal(result->evaluation.state.data, bytes, env_state_size(env));
    assert_ok(env_reset(env, obs, &err), err);
    assert_memory_equal(reset(worker)->step.obs, obs, sizeof(obs));
    env_close(&env);
    world_model_destroy(&model);
    end(&worker);
}

static void an_evaluation_can_be_abandoned(void **state)
{
    struct worker_options options = tiny("toy:1000000");
    worker_t *worker = start(&options, NULL);
    world_model_t *model = some_model(&options, 4);
    struct session_output output = evaluate_command(8, 1000, false);
    struct session_output abandon = {.kind = COMMAND_ABANDON};
    const struct worker_result *result;
    struct error err = {0};

    (void)state;
    assert_true(adopt(worker, model));
    assert_ok(worker_command(worker, &output, &err), err);
    clock_sleep_ms(20);
    assert_null(worker_next(worker));
    assert_ok(worker_command(worker, &abandon, &err), err);
    result = await(worker);
    assert_int_equal(result->kind, COMMAND_EVALUATE);
    assert_false(result->ended);
    output.evaluate.token = 9; /* one ordered afterwards is not abandoned, but can be stopped */
    assert_ok(worker_command(worker, &output, &err), err);
    clock_sleep_ms(20);
    assert_null(worker_next(worker));
    world_model_destroy(&model);
    end(&worker);
}

/* --- several environments ------------------------------------------------------ */

enum { ENVS = 3 };

static void command(worker_t *worker, const struct session_output *output)
{
    struct error err = {0};

    assert_ok(worker_command(worker, output, &err), err);
}

static struct session_output move(bool is_reset, uint32_t e, uint64_t t, bool random)
{
    struct session_output output;

    if (is_reset) {
        output = reset_command(100 * (e + 1));
        output.reset.environment = e;
        output.reset.reseed = true;
        output.reset.seed = 50 + e;
        return output;
    }
    output = step_command(100 * (e + 1) + t, random, t == 1);
    output.step.environment = e;
    output.step.key.env = e;
    return output;
}

/* A round's results: `count` of them, one behind the other. */
static int take(worker_t *worker, int count, float obs[ENVS][OBS], float action[ENVS][ACTION])
{
    int seen = 0;

    for (int i = 0; i < count; i++) {
        const struct worker_result *result = await(worker);
        uint32_t e = result->environment;

        if (result->kind == WORKER_FAILED)
            fail_msg("%s", result->err.text);
        assert_in_range(e, 0, ENVS - 1);
        assert_int_equal(result->token / 100, e + 1);
        assert_int_equal(result->more, i < count - 1);
        memcpy(obs[e], result->step.obs, OBS * sizeof(float));
        if (result->step.action != NULL)
            memcpy(action[e], result->step.action, ACTION * sizeof(float));
        seen |= 1 << e;
    }
    return seen;
}

/* Rounds of all, in any order, of some, and of resets beside steps: what each does alone. */
static void environments_move_together_as_they_do_alone(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) { /* one thread, two */
        struct worker_options options = tiny("toy:20");
        world_model_t *model = some_model(&options, 4);
        float obs[ENVS][OBS], action[ENVS][ACTION] = {{0}}, alone_obs[OBS], alone[ACTION];
        struct mppi_config config;
        struct error err = {0};
        mppi_t *planner[ENVS];
        env_t *env[ENVS];
        worker_t *worker;

        options.environments = ENVS;
        options.threads = 1 + wide;
        worker = start(&options, NULL);
        mppi_config_init(&config, &options.config, ACTION, 20);
        assert_true(adopt(worker, model));
        for (uint32_t e = 0; e < ENVS; e++) {
            struct session_output output = move(true, e, 0, false);

            assert_ok(mppi_create(&planner[e], &config, &model->layout.dims, 1, NULL, &err), err);
            assert_ok(env_create(&env[e], "toy:20", 50 + e, &err), err);
            command(worker, &output);
        }
        assert_int_equal(take(worker, ENVS, obs, action), 7);
        for (uint32_t e = 0; e < ENVS; e++) {
            assert_ok(env_reset(env[e], alone_obs, &err), err);
            assert_memory_equal(alone_obs, obs[e], sizeof(alone_obs));
        }
        for (uint64_t t = 1; t <= 12; t++) {
            int wanted = t % 4 == 0 ? 5 : 7, count = 0; /* sometimes the second is not there */

            for (uint32_t i = 0; i < ENVS; i++) {
                uint32_t e = t % 2 ? i : ENVS - 1 - i;
                struct session_output output = move(false, e, t, e == 2 && t < 4);

                if (!(wanted >> e & 1))
                    continue;
                command(worker, &output);
                count++;
            }
            for (uint32_t e = 0; e < ENVS; e++) {
                struct session_output output = move(false, e, t, e == 2 && t < 4);
                struct env_result result;
                struct mppi_draws draws;
                struct rng rng;

                if (!(wanted >> e & 1))
                    continue;
                rng_init(&rng, &output.step.key);
                draws = mppi_draws_rng(&rng);
                if (output.step.random)
                    rng_uniform(&rng, alone, ACTION, -1, 1);
                else
                    assert_int_equal(mppi_plan(planner[e], model, obs[e], t == 1, false, &draws, alone), TD_OK);
                assert_ok(env_step(env[e], alone, alone_obs, &result, &err), err);
                memcpy(obs[e], alone_obs, sizeof(alone_obs));
            }
            {
                float theirs[ENVS][OBS];

                memcpy(theirs, obs, sizeof(theirs));
                assert_int_equal(take(worker, count, theirs, action), wanted);
                assert_memory_equal(theirs, obs, sizeof(theirs));
            }
        }
        for (int e = 0; e < ENVS; e++) {
            mppi_destroy(&planner[e]);
            env_close(&env[e]);
        }
        world_model_destroy(&model);
        end(&worker);
    }
}

/* One command for the same environment behind the other, new parameters between: in the order given. */
static void commands_keep_their_order(void **state)
{
    struct worker_options options = tiny("toy:20");
    world_model_t *model = some_model(&options, 4);
    struct session_output adoption = {.kind = COMMAND_ADOPT,
                                      .adopt = {.token = 9, .data = model->parameters,
                                                .size = model_acting_floats(&model->layout) * sizeof(float)}};
    struct session_output outputs[6] = {move(true, 1, 0, false), move(true, 0, 0, false),  move(false, 1, 1, true),
                                        adoption,                move(false, 1, 2, false), move(false, 0, 1, false)};
    worker_t *worker;

    (void)state;
    options.environments = 2;
    worker = start(&options, NULL);
    for (size_t i = 0; i < TD_LEN(outputs); i++)
        command(worker, &outputs[i]);
    for (size_t i = 0; i < TD_LEN(outputs); i++) {
        const struct worker_result *result = await(worker);

        assert_int_equal(result->kind, outputs[i].kind);
        assert_int_equal(result->environment, i == 0 || i == 2 || i == 4);
        assert_int_equal(result->more, i < TD_LEN(outputs) - 1);
    }
    world_model_destroy(&model);
    end(&worker);
}

/* --- environments in Python, which answer when they like ---------------------------- */

#define TOY(name) "python:tests/support/python/toys.py:" name

/* What drives a worker as the session does: each environment's next command follows from its last result. */
struct driver {
    worker_t *worker;
    bool planned, fresh[4]; /* the episode's first step is next */
    uint64_t tokens, awaited[4];
    uint64_t steps[4], losses[4], resets[4];
    char why[512]; /* the last loss */
};

static void drive(struct driver *driver, uint32_t e, bool is_reset, bool reseed)
{
    struct session_output output;

    if (is_reset) {
        output = reset_command(++driver->tokens);
        output.reset.environment = e;
        output.reset.reseed = reseed;
        output.reset.seed = 50 + e + 10 * driver->losses[e];
    } else {
        output = step_command(++driver->tokens, !driver->planned, driver->fresh[e]);
        output.step.environment = e;
        output.step.key.env = e;
        output.step.key.step = driver->steps[e];
    }
    driver->fresh[e] = is_reset;
    driver->awaited[e] = driver->tokens;
    command(driver->worker, &output);
}

/* One result, and what follows from it. */
static void drive_on(struct driver *driver, const struct worker_result *result)
{
    uint32_t e = result->environment;

    if (result->kind == WORKER_FAILED)
        fail_msg("%s", result->err.text);
    assert_in_range(e, 0, 3);
    assert_int_equal(result->token, driver->awaited[e]);
    if (result->lost) {
        driver->losses[e]++;
        snprintf(driver->why, sizeof(driver->why), "%s", result->step.lost);
        drive(driver, e, true, true);
    } else if (result->kind == COMMAND_RESET) {
        driver->resets[e]++;
        drive(driver, e, false, false);
    } else {
        driver->steps[e]++;
        drive(driver, e, result->step.truncated, false);
    }
}

static const struct worker_result *await_long(worker_t *worker, int seconds)
{
    const struct worker_result *result;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    while ((result = worker_next(worker)) == NULL)
        assert_int_equal(sem_timedwait(&answered, &until), 0);
    return result;
}

static worker_t *start_in_python(const char *task, int environments, int threads)
{
    struct worker_options options = tiny(task);
    struct error err = {0};
    worker_t *worker;

    options.environments = environments;
    options.threads = threads;
    assert_ok(worker_create(&worker, &options, &err), err);
    assert_int_equal(await_long(worker, 120)->kind, WORKER_READY);
    return worker;
}

/* A name that is no file yet: TOY_HANG. */
static void name_the_hang(char path[64])
{
    snprintf(path, 64, "/tmp/tdmpc2-hang-%d", (int)getpid());
    unlink(path);
    setenv("TOY_HANG", path, 1);
}

#define TRACE 45

/* What each environment did, in rounds that chance made. */
static void trace(int environments, float seen[][TRACE][5])
{
    struct driver driver = {.planned = true};
    struct worker_options options = tiny(TOY("Jitter"));
    struct error err = {0};
    struct model_dims dims;
    world_model_t *model;
    bool going = true;

    driver.worker = start_in_python(TOY("Jitter"), environments, 1);
    assert_ok(model_dims_init(&dims, &options.config, 3, ACTION, &err), err);
    assert_ok(world_model_create(&model, &dims, false, &err), err);
    world_model_init(model, 4);
    assert_true(adopt(driver.worker, model));
    for (int e = 0; e < environments; e++)
        drive(&driver, (uint32_t)e, true, true);
    while (going) {
        const struct worker_result *result = await_long(driver.worker, 120);
        uint32_t e = result->environment;
        uint64_t t = driver.steps[e];

        if (result->kind == COMMAND_STEP && t < TRACE && !result->lost) {
            memcpy(seen[e][t], result->step.obs, 3 * sizeof(float));
            memcpy(seen[e][t] + 3, result->step.action, 2 * sizeof(float));
        }
        drive_on(&driver, result);
        going = false;
        for (int i = 0; i < environments; i++)
            going |= driver.steps[i] < TRACE;
    }
    end(&driver.worker);
    world_model_destroy(&model);
}

/* What an environment does is the same whichever rounds its steps fall into, and alone. */
static void rounds_change_nothing(void **state)
{
    static float seen[3][ENVS][TRACE][5];

    (void)state;
    trace(ENVS, seen[0]);
    trace(ENVS, seen[1]);
    trace(1, seen[2]);
    assert_memory_equal(seen[0], seen[1], sizeof(seen[0]));
    assert_memory_equal(seen[0][0], seen[2][0], sizeof(seen[0][0]));
    assert_memory_not_equal(seen[0][0], seen[0][1], sizeof(seen[0][0]));
}

/* One of three hangs: the others go on, it is noticed at its deadline and begins anew. */
static void one_that_hangs_keeps_nobody_waiting(void **state)
{
    (void)state;
    setenv("TDMPC2_ENV_TIMEOUT", "4", 1);
    for (int threads = 1; threads <= 2; threads++) {
        struct driver driver = {0};
        uint64_t before[ENVS] = {0}, hung_ms = 0, noticed_ms;
        int hung = -1;
        char path[64];

        name_the_hang(path);
        driver.worker = start_in_python(TOY("HangsOnce"), ENVS, threads);
        for (uint32_t e = 0; e < ENVS; e++)
            drive(&driver, e, true, true);
        while (hung < 0) {
            drive_on(&driver, await_long(driver.worker, 120));
            if (hung_ms == 0 && access(path, F_OK) == 0) {
                hung_ms = clock_ms();
                memcpy(before, driver.steps, sizeof(before));
            }
            for (int e = 0; e < ENVS; e++)
                hung = driver.losses[e] > 0 ? e : hung;
        }
        noticed_ms = clock_ms() - hung_ms;
        printf("  noticed after %d ms; steps of the others meanwhile:", (int)noticed_ms);
        assert_non_null(strstr(driver.why, "did not answer within 4 s"));
        assert_in_range(noticed_ms, 2000, 30000);
        for (int e = 0; e < ENVS; e++) {
            if (e == hung)
                continue;
            printf(" %d", (int)(driver.steps[e] - before[e]));
            assert_true(driver.steps[e] - before[e] >= 20);
            assert_int_equal(driver.losses[e], 0);
            before[e] = driver.steps[e];
        }
        printf("\n");
        before[hung] = driver.steps[hung];
        assert_int_equal(before[hung], 5); /* of its first episode: the file is made by the first to come there */
        while (driver.steps[hung] < before[hung] + 30) /* another process plays: whole episodes */
            drive_on(&driver, await_long(driver.worker, 120));
        assert_int_equal(driver.losses[hung], 1);
        for (int e = 0; e < ENVS; e++) /* while it started, too */
            assert_true(driver.steps[e] > before[e]);
        end(&driver.worker);
        unlink(path);
    }
    unsetenv("TOY_HANG");
    unsetenv("TDMPC2_ENV_TIMEOUT");
}

/* Nobody waits for a hung one when a new stream begins, nor at the end. */
static void a_hung_one_is_given_up_at_once(void **state)
{
    (void)state;
    setenv("TDMPC2_ENV_TIMEOUT", "600", 1);
    for (int environments = 1; environments <= 2; environments++) {
        struct driver driver = {0};
        const struct worker_result *result;
        uint64_t begun;

        driver.worker = start_in_python(TOY("Sleep"), environments, 1);
        drive(&driver, 0, true, true);
        for (int i = 0; i < 5; i++) /* the reset, four steps: the fifth has been asked for */
            drive_on(&driver, await_long(driver.worker, 120));
        clock_sleep_ms(300);
        assert_null(worker_next(driver.worker));
        driver.losses[0] = 1; /* another seed */
        drive(&driver, 0, true, true);
        result = await_long(driver.worker, 120);
        assert_int_equal(result->kind, COMMAND_RESET);
        assert_int_equal(result->token, driver.awaited[0]);
        assert_false(result->lost);
        for (int i = 0; i < 5; i++) {
            drive_on(&driver, result);
            if (i < 4)
                result = await_long(driver.worker, 120);
        }
        clock_sleep_ms(300);
        assert_null(worker_next(driver.worker));
        begun = clock_ms();
        assert_true(worker_stop(driver.worker, 10000));
        worker_destroy(&driver.worker);
        assert_true(clock_ms() - begun < 5000);
    }
    unsetenv("TDMPC2_ENV_TIMEOUT");
}

/* Steps a second of so many environments that sleep, all with one thread. */
static double rate(int environments)
{
    struct driver driver = {0};
    uint64_t begun, steps = 0;

    driver.worker = start_in_python(TOY("Slow"), environments, 1);
    for (int e = 0; e < environments; e++)
        drive(&driver, (uint32_t)e, true, true);
    for (int e = 0; e < environments; e++)
        while (driver.steps[e] < 3)
            drive_on(&driver, await_long(driver.worker, 120));
    for (int e = 0; e < environments; e++)
        steps -= driver.steps[e];
    begun = clock_ms();
    while (clock_ms() < begun + 1500)
        drive_on(&driver, await_long(driver.worker, 120));
    for (int e = 0; e < environments; e++)
        steps += driver.steps[e];
    end(&driver.worker);
    return (double)steps * 1000 / (double)(clock_ms() - begun);
}

/* With one thread, too, they sleep at the same time; the bound is one that a busy machine keeps. */
static void environments_elsewhere_step_at_the_same_time(void **state)
{
    double one = rate(1), four = rate(4);

    (void)state;
    printf("  steps of 20 ms: one environment %.1f/s, four %.1f/s, %.2f times\n", one, four, four / one);
    assert_true(four > 1.5 * one);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct worker_options options = tiny("tpy");
    const struct worker_result *result;
    struct error err = {0};
    worker_t *worker;

    (void)state;
    assert_int_equal(worker_create(&worker, &options, &err), TD_ENOTFOUND);
    assert_null(worker);
    options = tiny("toy");
    set(&options.config, "latent_dim=20"); /* no multiple of simnorm_dim */
    assert_ok(worker_create(&worker, &options, &err), err);
    result = await(worker);
    assert_int_equal(result->kind, WORKER_FAILED);
    assert_int_equal(result->err.code, TD_EINVAL);
    assert_non_null(strstr(result->err.text, "latent_dim"));
    end(&worker);
}

static void commands_that_are_too_many_are_refused(void **state)
{
    struct worker_options options = tiny("toy:1000000");
    worker_t *worker = start(&options, NULL);
    struct session_output output = evaluate_command(8, 1000, false), capture = {.kind = COMMAND_CAPTURE};
    struct error err = {0};
    int rc = TD_OK;

    (void)state;
    assert_ok(worker_command(worker, &output, &err), err);
    for (int i = 0; i < WORKER_PENDING + 1 && rc == TD_OK; i++)
        rc = worker_command(worker, &capture, &err);
    assert_int_equal(rc, TD_EFULL);
    end(&worker);
}

static void acting_allocates_nothing(void **state)
{
    struct worker_options options = tiny("walker-walk"); /* contacts take MuJoCo's memory, too */
    struct session_output restore = {.kind = COMMAND_RESTORE};
    worker_t *worker;
    float *parameters;
    size_t bytes;

    (void)state;
    if (!COUNTS_ALLOCATIONS)
        skip();
    worker = start(&options, &bytes);
    parameters = calloc(1, bytes);
    assert_non_null(parameters);
    for (uint64_t t = 0; t < 600; t++) {
        struct session_output output = {.kind = COMMAND_ADOPT,
                                        .adopt = {.data = parameters, .size = bytes}};

        atomic_store(&counting_allocations, t > 0); /* the first step of all may set things up */
        if (t % 100 == 0)
            assert_true(ask(worker, &output)->ok);
        if (t % 500 == 0)
            reset(worker);
        step(worker, t, t % 3 == 0, t % 500 == 0);
    }
    assert_int_equal(counted_allocations, 0);
    restore.restore.seed = 3; /* another environment does allocate: the count is a count */
    assert_true(ask(worker, &restore)->ok);
    assert_int_not_equal(counted_allocations, 0);
    atomic_store(&counting_allocations, false);
    free(parameters);
    end(&worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_reports_its_sizes),
        cmocka_unit_test(random_episodes_are_those_of_the_seed),
        cmocka_unit_test(another_seed_begins_another_stream),
        cmocka_unit_test(it_plans_with_the_parameters_adopted_last),
        cmocka_unit_test(bfloat16_parameters_take_half_and_must_be_finite),
        cmocka_unit_test(the_policy_acts_when_it_shall_not_plan),
        cmocka_unit_test(parameters_that_are_not_finite_are_not_acted_with),
        cmocka_unit_test(a_captured_state_is_gone_back_to),
        cmocka_unit_test(evaluations_are_means_over_their_own_episodes),
        cmocka_unit_test(an_evaluation_in_place_moves_the_training_environment),
        cmocka_unit_test(an_evaluation_can_be_abandoned),
        cmocka_unit_test(environments_move_together_as_they_do_alone),
        cmocka_unit_test(commands_keep_their_order),
        cmocka_unit_test(rounds_change_nothing),
        cmocka_unit_test(one_that_hangs_keeps_nobody_waiting),
        cmocka_unit_test(a_hung_one_is_given_up_at_once),
        cmocka_unit_test(environments_elsewhere_step_at_the_same_time),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(commands_that_are_too_many_are_refused),
        cmocka_unit_test(acting_allocates_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
