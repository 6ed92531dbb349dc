#include "tools/evaluation.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/env/stack.h"
#include "common/env/video.h"
#include "common/util/rng.h"

#define THREADS_MAX 256

struct shared {
    const struct evaluation_options *options;
    struct evaluation_episode *episode;
    void (*finished)(void *context, int index);
    void *context;
    pthread_mutex_t lock; /* of what follows */
    int next;
    int rc;
    struct error err;
};

/* What one thread works with. */
struct worker {
    struct shared *shared;
    mppi_t *mppi;
    void *obs, *seen; /* as the environment said, as the planner sees */
    float *action;
};

static int random_action(const struct evaluation_options *options, int index, int step, float *action, int count)
{
    struct rng_key key = {.seed = options->seed,
                          .purpose = RNG_SEED_ACTION,
                          .slot = 0xffffffffu, /* no actor's */
                          .step = (uint64_t)index << 32 | (uint32_t)step};
    struct rng rng;

    rng_init(&rng, &key);
    rng_uniform(&rng, action, (size_t)count, -1, 1);
    return TD_OK;
}

static int planned_action(struct worker *worker, int index, int step, struct error *err)
{
    const struct evaluation_options *options = worker->shared->options;
    struct rng_key key = {.seed = options->seed,
                          .purpose = RNG_EVAL,
                          .slot = 0xffffffffu,
                          .step = (uint64_t)index << 32 | (uint32_t)step};
    struct mppi_request request = {.obs = worker->seen, .first = step == 0, .eval = !options->noisy,
                                   .task = options->index, .action = worker->action};
    struct rng rng;
    int rc;

    rng_init(&rng, &key);
    request.draws = mppi_draws_rng(&rng);
    rc = mppi_plan_batch(worker->mppi, options->model, &request, 1);
    if (rc != TD_OK)
        error_set(err, rc, "the planner's action at step %d of episode %d is not finite", step, index + 1);
    return rc;
}

/* The next frame; a video that fails is given up, the episode goes on. */
static void film(video_t **video, env_t *env)
{
    struct error why = {0};

    if (*video == NULL || video_frame(*video, env, &why) == TD_OK)
        return;
    fprintf(stderr, "tdmpc2 eval: %s\n", why.text);
    video_close(video, false, NULL);
}

static video_t *start_film(const struct evaluation_options *options, int index)
{
    struct error why = {0};
    video_t *video = NULL;

    if (options->video != NULL && index == 0 && video_open(&video, options->video, NULL, &why) != TD_OK)
        fprintf(stderr, "tdmpc2 eval: %s\n", why.text);
    return video;
}

static void end_film(video_t **video, bool keep, const char *path)
{
    struct error why = {0};

    if (*video == NULL)
        return;
    if (video_close(video, keep, &why) != TD_OK)
        fprintf(stderr, "tdmpc2 eval: %s\n", why.text);
    else if (keep)
        fprintf(stderr, "tdmpc2 eval: the first episode is in %s\n", path);
}

static int play(struct worker *worker, env_t *env, int index, struct error *err)
{
    const struct evaluation_options *options = worker->shared->options;
    struct evaluation_episode *episode = &worker->shared->episode[index];
    video_t *video = start_film(options, index);
    struct env_result result = {0};
    int rc = TD_OK;

    *episode = (struct evaluation_episode){0};
    for (int i = 0; i <= index && rc == TD_OK; i++)
        rc = env_reset(env, worker->obs, err);
    if (rc == TD_OK)
        stack_push(env_spec(env), worker->seen, worker->obs, true);
    if (rc == TD_OK)
        film(&video, env);
    while (rc == TD_OK && !result.terminated && !result.truncated) {
        rc = options->model == NULL ? random_action(options, index, episode->length, worker->action,
                                                    (int)env_spec(env)->action_dim)
                                    : planned_action(worker, index, episode->length, err);
        if (rc == TD_OK)
            rc = env_step(env, worker->action, worker->obs, &result, err);
        if (rc == TD_OK) {
            stack_push(env_spec(env), worker->seen, worker->obs, false);
            film(&video, env);
            episode->reward += result.reward;
            episode->length++;
            episode->success = result.success;
        }
    }
    end_film(&video, rc == TD_OK, options->video);
    episode->done = rc == TD_OK;
    return rc;
}

/* The next episode, or -1 when all are taken or one has failed. */
static int take(struct shared *shared)
{
    int index;

    pthread_mutex_lock(&shared->lock);
    index = shared->rc == TD_OK && shared->next < shared->options->episodes ? shared->next++ : -1;
    pthread_mutex_unlock(&shared->lock);
    return index;
}

static void give_back(struct shared *shared, int index, int rc, const struct error *err)
{
    pthread_mutex_lock(&shared->lock);
    if (rc != TD_OK && shared->rc == TD_OK) {
        shared->rc = rc;
        shared->err = *err;
    }
    if (rc == TD_OK && shared->finished != NULL)
        shared->finished(shared->context, index);
    pthread_mutex_unlock(&shared->lock);
}

static int run_one(struct worker *worker, int index, struct error *err)
{
    const struct evaluation_options *options = worker->shared->options;
    env_t *env = NULL;
    int rc = env_create_with(&env, options->task, &options->env, (uint32_t)options->seed, err);

    if (rc == TD_OK)
        rc = play(worker, env, index, err);
    env_close(&env);
    return rc;
}

static void *work(void *context)
{
    struct worker *worker = context;
    int index;

    while ((index = take(worker->shared)) >= 0) {
        struct error err = {0};
        int rc = run_one(worker, index, &err);

        give_back(worker->shared, index, rc, &err);
    }
    return NULL;
}

static int make_worker(struct worker *worker, struct shared *shared, const struct env_spec *spec, struct error *err)
{
    const struct evaluation_options *options = shared->options;

    struct env_spec seen = *spec; /* what is wider in a model of several tasks stays zero */
    uint32_t actions = spec->action_dim;

    if (options->model != NULL && options->model->layout.dims.num_tasks > 0) {
        seen.obs_dim = (uint32_t)options->model->layout.dims.obs_dim;
        actions = (uint32_t)options->model->layout.dims.action_dim;
    }
    worker->shared = shared;
    worker->obs = calloc(1, env_obs_bytes(spec));
    worker->seen = calloc(1, stack_bytes(&seen));
    worker->action = calloc(actions, sizeof(float));
    if (worker->obs == NULL || worker->seen == NULL || worker->action == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (options->model == NULL)
        return TD_OK;
    return mppi_create(&worker->mppi, &options->plan, &options->model->layout.dims, 1, NULL, err);
}

static void release_worker(struct worker *worker)
{
    mppi_destroy(&worker->mppi);
    free(worker->obs);
    free(worker->seen);
    free(worker->action);
}

int evaluation_run(const struct evaluation_options *options, struct evaluation_episode *episode,
                   void (*finished)(void *context, int index), void *context, struct error *err)
{
    struct shared shared = {.options = options, .episode = episode, .finished = finished, .context = context};
    int started = 0, threads = options->threads < options->episodes ? options->threads : options->episodes;
    pthread_t thread[THREADS_MAX];
    struct worker *workers;
    struct env_spec spec;
    int rc = env_find_with(options->task, &options->env, &spec, err);

    if (rc != TD_OK)
        return rc;
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    workers = calloc((size_t)threads, sizeof(*workers));
    if (workers == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    pthread_mutex_init(&shared.lock, NULL);
    for (int i = 0; i < threads && rc == TD_OK; i++)
        rc = make_worker(&workers[i], &shared, &spec, err);
    for (; started < threads && rc == TD_OK; started++)
        if (pthread_create(&thread[started], NULL, work, &workers[started]) != 0)
            break;
    if (rc == TD_OK && started == 0)
        work(&workers[0]); /* no thread to be had: here, then */
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    if (rc == TD_OK && (rc = shared.rc) != TD_OK)
        error_set(err, rc, "%s", shared.err.text);
    for (int i = 0; i < threads; i++)
        release_worker(&workers[i]);
    pthread_mutex_destroy(&shared.lock);
    free(workers);
    return rc;
}
