/* elites.c - from values to the next mean and std, and at the end to an action. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "common/plan/mppi_internal.h"

/* Better first; equal values in candidate order, so that the order is one whatever the sort. */
static bool better(const float *value, int a, int b)
{
    return value[a] > value[b] || (value[a] == value[b] && a < b);
}

/* Heap of the worst on top: moves order[root] down. */
static void sift(const float *value, int *order, int root, int count)
{
    for (int child; (child = 2 * root + 1) < count; root = child) {
        int kept = order[root];

        if (child + 1 < count && better(value, order[child], order[child + 1]))
            child++;
        if (better(value, order[child], kept))
            return;
        order[root] = order[child];
        order[child] = kept;
    }
}

/* order[0 .. elites - 1] = the best candidates, best first. */
static void choose_elites(struct plan *plan)
{
    int *order = plan->order, elites = plan->mppi->config.num_elites;
    const float *value = plan->value;

    for (int i = 0; i < elites; i++)
        order[i] = i;
    for (int i = elites / 2 - 1; i >= 0; i--)
        sift(value, order, i, elites);
    for (int i = elites; i < plan->mppi->config.num_samples; i++)
        if (better(value, i, order[0])) {
            order[0] = i;
            sift(value, order, 0, elites);
        }
    for (int end = elites - 1; end > 0; end--) {
        int kept = order[0];

        order[0] = order[end];
        order[end] = kept;
        sift(value, order, 0, end);
    }
}

/* NaN counts 0, infinities as the largest floats. */
static void remove_nan(float *value, int count)
{
    for (int i = 0; i < count; i++)
        if (isnan(value[i]))
            value[i] = 0.0f;
        else if (isinf(value[i]))
            value[i] = value[i] > 0 ? FLT_MAX : -FLT_MAX;
}

/* score_i = exp(temperature (V_i - V_max)), over their sum. Returns the new sum. */
static float score_elites(struct plan *plan)
{
    int elites = plan->mppi->config.num_elites;
    float best = plan->value[plan->order[0]];
    double sum = 0, total = 0;

    for (int i = 0; i < elites; i++) {
        plan->score[i] = expf(plan->mppi->config.temperature * (plan->value[plan->order[i]] - best));
        sum += (double)plan->score[i];
    }
    for (int i = 0; i < elites; i++) {
        plan->score[i] /= (float)sum;
        total += (double)plan->score[i];
    }
    return (float)total;
}

static float elite_action(const struct plan *plan, int elite, int t, int j)
{
    size_t row = (size_t)t * (size_t)plan->mppi->config.num_samples + (size_t)plan->order[elite];

    return plan->actions[row * (size_t)plan->mppi->dims.action_dim + (size_t)j];
}

/* Mean and std of the elites' actions, weighted by score. */
static void refit(struct plan *plan, float total)
{
    const struct mppi_config *config = &plan->mppi->config;
    int dim = plan->mppi->dims.action_dim;
    double below = (double)(total + 1e-9f);

    for (int t = 0; t < config->horizon; t++)
        for (int j = 0; j < dim; j++) {
            double mean = 0, square = 0;
            float std;

            for (int i = 0; i < config->num_elites; i++)
                mean += (double)plan->score[i] * (double)elite_action(plan, i, t, j);
            mean /= below;
            for (int i = 0; i < config->num_elites; i++) {
                double off = (double)elite_action(plan, i, t, j) - mean;

                square += (double)plan->score[i] * off * off;
            }
            std = (float)sqrt(square / below);
            std = std < config->min_std ? config->min_std : std;
            plan->std[t * dim + j] = std > config->max_std ? config->max_std : std;
            plan->mean[t * dim + j] = (float)mean;
            if (j >= dim - plan->head.padding)
                plan->mean[t * dim + j] = plan->std[t * dim + j] = 0.0f;
        }
}

void plan_refit(struct plan *plan)
{
    remove_nan(plan->value, plan->mppi->config.num_samples);
    choose_elites(plan);
    refit(plan, score_elites(plan));
}

/* The first action of one elite, drawn by score (Gumbel), with noise unless evaluating. */
void plan_pick_action(struct plan *plan)
{
    const struct mppi_draws *draws = &plan->request->draws;
    bool eval = plan->request->eval;
    float *action = plan->request->action;
    int dim = plan->mppi->dims.action_dim, elites = plan->mppi->config.num_elites, chosen = 0;
    float best = -INFINITY;

    draws->fill(draws->context, MPPI_GUMBEL, 0, plan->gumbel, (size_t)elites);
    for (int i = 0; i < elites; i++) {
        float key = logf(plan->score[i]) - logf(plan->gumbel[i]);

        if (key > best) {
            best = key;
            chosen = i;
        }
    }
    memset(action, 0, (size_t)dim * sizeof(float));
    if (!eval)
        draws->fill(draws->context, MPPI_ACTION_NOISE, 0, action, (size_t)dim);
    for (int j = 0; j < dim; j++) {
        float x = elite_action(plan, chosen, 0, j) + (eval ? 0.0f : plan->std[j] * action[j]);

        action[j] = x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x;
    }
}
