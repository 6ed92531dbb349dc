/* A worker of several tasks: padding, whose random stream goes on, what a full cache closes, evaluations of all. */
#include "tests/support/test.h"

#include <semaphore.h>
#include <time.h>

#include "actor/worker.h"
#include "common/env/env.h"
#include "common/model/world_model.h"

static const char *const names[] = {"toy:6", "toy-oppose:4", "toy-copy:5"};
enum { TASKS = 3, OBS = 4, ACTION = 2 };
static const uint32_t widths[TASKS] = {4, 1, 2}, actions[TASKS] = {2, 1, 2}, lengths[TASKS] = {6, 4, 5};

static sem_t answered;
static uint64_t tokens;

static void wake(void *context)
{
    (void)context;
    sem_post(&answered);
}

static const struct worker_result *await(worker_t *worker)
{
    const struct worker_result *result;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    while ((result = worker_next(worker)) == NULL)
        assert_int_equal(sem_timedwait(&answered, &until), 0);
    if (result->kind == WORKER_FAILED)
        fail_msg("%s", result->err.text);
    return result;
}

static worker_t *start(const char *more)
{
    static const char *const words[] = {"enc_dim=16", "mlp_dim=16", "latent_dim=16", "num_samples=32", "num_elites=4",
                                        "num_pi_trajs=4", "iterations=2", "num_bins=11", "seed=7", "task_dim=4",
                                        "tasks=toy:6,toy-oppose:4,toy-copy:5"};
    struct worker_options options = {.threads = 1, .wake = wake};
    const struct worker_result *result;
    struct error err = {0};
    worker_t *worker;

    config_init(&options.config);
    for (size_t i = 0; i < TD_LEN(words); i++)
        assert_ok(config_set(&options.config, words[i], &err), err);
    assert_ok(config_set(&options.config, more, &err), err);
    sem_init(&answered, 0, 0);
    assert_ok(worker_create(&worker, &options, &err), err);
    result = await(worker);
    assert_int_equal(result->kind, WORKER_READY);
    assert_true(result->spec.obs_dim == OBS && result->spec.action_dim == ACTION && result->spec.tasks == TASKS);
    assert_int_equal(result->spec.saves_state, options.config.lockstep);
    return worker;
}

static void end(worker_t **worker)
{
    assert_true(worker_stop(*worker, 10000));
    worker_destroy(worker);
}

static const struct worker_result *ask(worker_t *worker, struct session_output *output)
{
    struct error err = {0};

    assert_ok(worker_command(worker, output, &err), err);
    return await(worker);
}

static void reset(worker_t *worker, uint32_t task, bool reseed, float obs[OBS])
{
    struct session_output output = {.kind = COMMAND_RESET,
                                    .reset = {.token = ++tokens, .task = task, .reseed = reseed, .seed = 7}};

    memcpy(obs, ask(worker, &output)->step.obs, OBS * sizeof(*obs));
    for (uint32_t i = widths[task]; i < OBS; i++)
        assert_true(obs[i] == 0);
}

static const struct session_step *step(worker_t *worker, uint32_t task, bool random, uint32_t t)
{
    struct session_output output = {.kind = COMMAND_STEP,
                                    .step = {.token = ++tokens, .random = random, .first = t == 0,
                                             .key = {.seed = 7, .purpose = RNG_PLAN, .step = tokens}}};
    const struct session_step *result = &ask(worker, &output)->step;

    for (uint32_t i = actions[task]; i < ACTION; i++)
        assert_true(result->action[i] == 0);
    for (uint32_t i = widths[task]; i < OBS; i++)
        assert_true(((const float *)result->obs)[i] == 0);
    return result;
}

/* The first observation of the k-th episode of an environment of this task, seeded with 7. */
static void expected(uint32_t task, int k, float obs[OBS])
{
    struct error err = {0};
    env_t *env;

    memset(obs, 0, OBS * sizeof(*obs));
    assert_ok(env_create(&env, names[task], 7, &err), err);
    for (int i = 0; i <= k; i++)
        assert_ok(env_reset(env, obs, &err), err);
    env_close(&env);
}

static void adopt_something(worker_t *worker)
{
    struct config config;
    struct session_output output = {.kind = COMMAND_ADOPT, .adopt = {.token = ++tokens, .epoch = 1}};
    struct model_dims dims = {0};
    world_model_t *model;
    struct error err = {0};

    config_init(&config);
    config.enc_dim = config.mlp_dim = config.latent_dim = 16;
    config.num_bins = 11;
    assert_ok(model_dims_init(&dims, &config, OBS, ACTION, &err), err);
    dims.num_tasks = TASKS;
    dims.task_dim = 4;
    assert_ok(world_model_create(&model, &dims, false, &err), err);
    world_model_init(model, 3);
    output.adopt.data = model->parameters;
    output.adopt.size = world_model_bytes(model);
    assert_true(ask(worker, &output)->ok);
    world_model_destroy(&model);
}

static void each_task_goes_on_where_it_was(void **state)
{
    static const uint32_t order[] = {0, 1, 2, 1, 0, 2};
    worker_t *worker = start("env_cache=16");
    int played[TASKS] = {0};

    (void)state;
    adopt_something(worker);
    for (size_t i = 0; i < TD_LEN(order); i++) {
        uint32_t task = order[i];
        float obs[OBS], want[OBS];

        reset(worker, task, false, obs);
        expected(task, played[task]++, want);
        assert_memory_equal(obs, want, sizeof(obs));
        for (uint32_t t = 0; t < lengths[task]; t++) {
            const struct session_step *result = step(worker, task, i % 2 == 0, t);

            assert_int_equal(result->truncated, t + 1 == lengths[task]);
        }
    }
    reset(worker, 1, true, (float[OBS]){0}); /* another epoch: all begin with the seed again */
    for (uint32_t task = 0; task < TASKS; task++) {
        float obs[OBS], want[OBS];

        reset(worker, task, false, obs);
        expected(task, task == 1, want);
        assert_memory_equal(obs, want, sizeof(obs));
    }
    end(&worker);
}

/* One environment at a time: a task's episodes are other ones each time, not the first again. */
static void a_full_cache_repeats_nothing(void **state)
{
    worker_t *worker = start("env_cache=1");
    float obs[8][OBS];

    (void)state;
    for (int i = 0; i < 8; i++) {
        reset(worker, i % 2, false, obs[i]);
        step(worker, i % 2, true, 0);
        for (int j = i % 2; j < i; j += 2)
            assert_memory_not_equal(obs[i], obs[j], sizeof(float));
    }
    reset(worker, 0, true, obs[1]);
    assert_memory_equal(obs[0], obs[1], sizeof(obs[0]));
    end(&worker);
}

static void evaluations_play_every_task(void **state)
{
    (void)state;
    for (int lockstep = 0; lockstep < 2; lockstep++) {
        worker_t *worker = start(lockstep ? "lockstep=true" : "lockstep=false");
        struct session_output output = {.kind = COMMAND_EVALUATE,
                                        .evaluate = {.token = ++tokens, .episodes = 2, .in_place = lockstep, .seed = 7,
                                                     .key = {.seed = 1, .purpose = RNG_EVAL}}};
        const struct session_evaluation *got;
        float obs[OBS], want[OBS];
        double sum = 0;

        adopt_something(worker);
        got = &ask(worker, &output)->evaluation;
        assert_true(got->episodes == 2 && got->score_count == TASKS && !got->has_success);
        for (int task = 0; task < TASKS; task++) {
            assert_true(got->scores[task].length == lengths[task]);
            sum += got->scores[task].reward / TASKS;
        }
        assert_true(got->reward > sum - 1e-9 && got->reward < sum + 1e-9 && got->length == 5);
        assert_int_equal(got->state.size > 0, lockstep);
        if (lockstep) { /* on the training environments, whose streams have gone on */
            reset(worker, 2, false, obs);
            expected(2, 2, want);
            assert_memory_equal(obs, want, sizeof(obs));
        }
        end(&worker);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_task_goes_on_where_it_was),
        cmocka_unit_test(a_full_cache_repeats_nothing),
        cmocka_unit_test(evaluations_play_every_task),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
