/* Evaluations: whole episodes on one environment, one call after the other. */
#include <string.h>

#include "actor/worker_private.h"
#include "common/env/stack.h"
#include "common/env/video.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "common/util/log.h"

#define EVALUATION_LOSSES 5 /* of its environment, in one evaluation */

static int reset_env(worker_t *worker, struct seat *seat, struct error *err)
{
    int rc = env_reset(seat->env, seat->obs, err);

    envs_touch(seat);
    if (rc == TD_OK)
        stack_push(&worker->spec, seat->seen, seat->obs, true);
    return rc;
}

static int step_env(worker_t *worker, struct seat *seat, struct env_result *result, struct error *err)
{
    uint64_t begun = clock_ns();
    int rc = env_step(seat->env, seat->action, seat->obs, result, err);

    metrics_record(worker->options.metrics, METRIC_env_ms, (double)(clock_ns() - begun) / 1e6);
    if (rc == TD_OK)
        stack_push(&worker->spec, seat->seen, seat->obs, false);
    return rc;
}

static bool is_abandoned(worker_t *worker, const struct work *work)
{
    return atomic_load(&worker->stopping) || atomic_load(&worker->abandoned) != work->abandoned;
}

struct score {
    double reward, length, success; /* success: of the last step */
    bool has_success;
};

/* --- video -------------------------------------------------------------------------- */

static void give_up_video(video_t **video, const struct error *why)
{
    log_warn("the evaluation goes on without its video", "why=\"%s\"", why->text);
    video_close(video, false, NULL);
}

/* Of the first episode of an evaluator that shares the run's directory. */
static video_t *start_video(const worker_t *worker, const struct work *work)
{
    const struct config *config = &worker->options.config;
    char path[FS_PATH_MAX], gif[FS_PATH_MAX];
    struct error why = {0};
    video_t *video = NULL;
    int rc;

    if (!config->save_video || work->evaluate.in_place || !worker->options.background || config->work_dir[0] == '\0')
        return NULL;
    if (snprintf(path, sizeof(path), "%s/videos/eval-%llu.mp4", config->work_dir, (unsigned long long)work->evaluate.step) >=
        (int)sizeof(path))
        return NULL;
    memcpy(gif, path, sizeof(gif));
    strcpy(strrchr(gif, '.'), ".gif");
    rc = video_open(&video, path, config->tensorboard ? gif : NULL, &why);
    if (rc != TD_OK)
        give_up_video(&video, &why);
    return video;
}

static void film(video_t **video, env_t *env)
{
    struct error why = {0};

    if (*video != NULL && video_frame(*video, env, &why) != TD_OK)
        give_up_video(video, &why);
}

static void end_video(video_t **video, bool keep)
{
    struct error why = {0};

    if (video_close(video, keep, &why) != TD_OK)
        give_up_video(video, &why);
}

/* --- episodes ----------------------------------------------------------------------- */

/* One episode without exploration noise. False: abandoned, or rc says. */
static bool play_episode(worker_t *worker, const struct work *work, uint32_t episode, video_t **video,
                         struct score *score, int *rc, struct error *err)
{
    struct seat *seat = &worker->seats[0];
    struct env_result result = {0};

    *score = (struct score){0};

    *rc = reset_env(worker, seat, err);
    if (*rc == TD_OK)
        film(video, seat->env);
    for (uint32_t t = 0; *rc == TD_OK && !result.terminated && !result.truncated; t++) {
        struct rng_key key = session_eval_key(&work->evaluate.key, episode, t);
        struct rng rng;
        struct mppi_request request = moves_request(seat, &key, &rng);

        if (is_abandoned(worker, work))
            return false;
        request.first = t == 0;
        request.eval = true;
        moves_plan(worker, &request, 1);
        if ((*rc = seat->rc) != TD_OK)
            *err = seat->err;
        else
            *rc = step_env(worker, seat, &result, err);
        if (*rc != TD_OK)
            break;
        film(video, seat->env);
        if (!work->evaluate.in_place)
            metrics_add(worker->options.metrics, METRIC_env_steps, seat_spec(worker, seat)->action_repeat);
        score->reward += (double)(float)result.reward;
        score->length += 1;
    }
    score->success = result.success;
    score->has_success = result.has_success;
    return *rc == TD_OK;
}

static bool evaluate_episode(worker_t *worker, const struct work *work, uint32_t task, uint32_t episode,
                             struct score *score, int *rc, struct error *err)
{
    video_t *video = task == 0 && episode == 0 ? start_video(worker, work) : NULL;
    bool good = play_episode(worker, work, episode, &video, score, rc, err);

    end_video(&video, good);
    return good;
}

/* All of them, added up; an episode whose environment is lost is played again, a few times in all. */
static bool evaluate_episodes(worker_t *worker, const struct work *work, uint32_t task, struct score *sum, int *rc, struct error *err)
{
    int losses = 0;

    for (uint32_t i = 0; i < work->evaluate.episodes; i++) {
        struct score score;

        while (!evaluate_episode(worker, work, task, i, &score, rc, err)) {
            if (*rc != TD_ELOST || work->evaluate.in_place || ++losses > EVALUATION_LOSSES)
                return false;
            metrics_add(worker->options.metrics, METRIC_env_lost, 1);
            log_error("an episode of the evaluation is played again", "why=\"%s\"", err->text);
        }
        sum->reward += score.reward;
        sum->length += score.length;
        sum->success += score.success;
        sum->has_success |= score.has_success;
    }
    return true;
}

/* All episodes of one task: on an environment of its own, or in place. False: abandoned, or rc says. */
static bool evaluate_task(worker_t *worker, struct seat *seat, const struct work *work, uint32_t task,
                          struct task_score *means, int *rc, struct error *err)
{
    double episodes = work->evaluate.episodes > 0 ? work->evaluate.episodes : 1;
    struct env_wish wish = {.task = task, .seed = work->evaluate.seed, .anew = !work->evaluate.in_place};
    struct score sum = {0};

    *rc = envs_take(worker, seat, &wish, err);
    if (*rc != TD_OK || !evaluate_episodes(worker, work, task, &sum, rc, err))
        return false;
    *means = (struct task_score){sum.reward / episodes, sum.length / episodes, sum.has_success, sum.success / episodes};
    return true;
}

/* Over the tasks; success over those that know it. */
static void average(struct session_evaluation *evaluation, const struct task_score *scores, int count)
{
    int successes = 0;

    for (int i = 0; i < count; i++) {
        evaluation->reward += scores[i].reward / count;
        evaluation->length += scores[i].length / count;
        evaluation->success += scores[i].has_success ? scores[i].success : 0;
        successes += scores[i].has_success;
    }
    evaluation->has_success = successes > 0;
    evaluation->success /= successes > 0 ? successes : 1;
}

void worker_evaluate(worker_t *worker, struct seat *seat, const struct work *work)
{
    struct worker_result *result = &seat->answer->result;
    struct session_evaluation *evaluation = &result->evaluation;
    struct task_score *scores = worker->scores;
    struct error err = {0};
    bool going = true;
    int rc = TD_OK;

    if (work->evaluate.alone)
        pool_set_active(worker->pool, pool_threads(worker->pool));
    for (int task = 0; task < worker->tasks.count && going; task++)
        going = evaluate_task(worker, seat, work, (uint32_t)task, &scores[task], &rc, &err);
    worker_usual_threads(worker);
    if (rc != TD_OK) {
        worker_fail(worker, seat, rc, &err);
        return;
    }
    result->ended = going;
    if (!going)
        return;
    evaluation->episodes = work->evaluate.episodes;
    average(evaluation, scores, worker->tasks.count);
    if (worker->tasks.multitask) {
        evaluation->score_count = (uint32_t)worker->tasks.count;
        evaluation->scores = scores;
    }
    if (work->evaluate.in_place) {
        envs_capture(worker, seat, work);
        evaluation->state = result->state;
    }
}
