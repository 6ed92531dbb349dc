/* Evaluations: whole episodes on one environment, one call after the other. */
#include <string.h>

#include "actor/worker_private.h"
#include "common/env/stack.h"
#include "common/util/clock.h"
#include "common/util/log.h"

#define EVALUATION_LOSSES 5 /* of its environment, in one evaluation */

static int reset_env(worker_t *worker, struct seat *seat, struct error *err)
{
    int rc = env_reset(seat->env, seat->obs, err);

    seat->env_untouched = false;
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

/* One episode without exploration noise. False: abandoned, or rc says. */
static bool evaluate_episode(worker_t *worker, const struct work *work, uint32_t episode,
                             struct score *score, int *rc, struct error *err)
{
    struct seat *seat = &worker->seats[0];
    struct env_result result = {0};

    *score = (struct score){0};

    *rc = reset_env(worker, seat, err);
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
        if (!work->evaluate.in_place)
            metrics_add(worker->options.metrics, METRIC_env_steps, worker->spec.action_repeat);
        score->reward += (double)(float)result.reward;
        score->length += 1;
    }
    score->success = result.success;
    score->has_success = result.has_success;
    return *rc == TD_OK;
}

/* All of them, added up; an episode whose environment is lost is played again, a few times in all. */
static bool evaluate_episodes(worker_t *worker, const struct work *work, struct score *sum, int *rc, struct error *err)
{
    int losses = 0;

    for (uint32_t i = 0; i < work->evaluate.episodes; i++) {
        struct score score;

        while (!evaluate_episode(worker, work, i, &score, rc, err)) {
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

void worker_evaluate(worker_t *worker, struct seat *seat, const struct work *work)
{
    struct worker_result *result = &seat->answer->result;
    uint32_t episodes = work->evaluate.episodes;
    struct score sum = {0};
    struct error err = {0};
    bool going = false;
    int rc = TD_OK;

    if (!work->evaluate.in_place)
        rc = worker_make_env(worker, seat, work->evaluate.seed, false, &err);
    if (work->evaluate.alone)
        pool_set_active(worker->pool, pool_threads(worker->pool));
    if (rc == TD_OK)
        going = evaluate_episodes(worker, work, &sum, &rc, &err);
    worker_usual_threads(worker);
    if (rc != TD_OK) {
        worker_fail(worker, seat, rc, &err);
        return;
    }
    result->ended = going;
    result->evaluation.episodes = episodes;
    result->evaluation.reward = episodes > 0 ? sum.reward / episodes : 0;
    result->evaluation.length = episodes > 0 ? sum.length / episodes : 0;
    result->evaluation.has_success = sum.has_success;
    result->evaluation.success = episodes > 0 ? sum.success / episodes : 0;
    if (going && work->evaluate.in_place) {
        worker_capture(worker, seat, work);
        result->evaluation.state = result->state;
    }
}
