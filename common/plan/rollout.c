/* rollout.c - candidates of action sequences through the model: rewards, terminations, value. */
#include <math.h>
#include <string.h>

#include "common/plan/mppi_internal.h"

/* Row s of step t of the candidates' actions. */
static float *action_at(const struct plan *plan, int t, int s)
{
    size_t a = (size_t)plan->mppi->dims.action_dim;

    return plan->actions + ((size_t)t * (size_t)plan->mppi->config.num_samples + (size_t)s) * a;
}

/* gain += discount^t (1 - done) reward. */
static void add_rewards(struct plan *plan, int t, int s, int rows, const float *reward)
{
    float discount = (float)plan->power[t];

    for (int i = 0; i < rows; i++)
        plan->gain[s + i] += discount * (1.0f - plan->done[s + i]) * reward[i];
}

static void add_terminations(struct plan *plan, int s, int rows, const float *logit)
{
    for (int i = 0; i < rows; i++)
        if (1.0f / (1.0f + expf(-logit[i])) > 0.5f)
            plan->done[s + i] = 1.0f;
}

/*
 * One step of candidates s .. s + rows - 1: rewards of (z, a), then z <- next(z, a) in place. At the
 * first step all latents are the observation's, folded into biases: only actions are multiplied.
 */
static void step(struct plan *plan, struct scratch *scratch, float *za, int t, int s, int rows)
{
    const struct mppi *mppi = plan->mppi;
    const world_model_t *model = mppi->model;
    size_t width = (size_t)mppi->width, bins = (size_t)mppi->dims.num_bins;
    size_t a = (size_t)mppi->dims.action_dim;
    const float *x = t == 0 ? action_at(plan, 0, s) : za;
    size_t ldx = t == 0 ? a : width;

    for (int i = 0; t > 0 && i < rows; i++)
        memcpy(za + (size_t)(i + 1) * width - a, action_at(plan, t, s + i), a * sizeof(float));
    mlp_forward(t == 0 ? &plan->reward0 : &mppi->part[MODEL_REWARD], x, ldx, rows, scratch->logits, bins,
                scratch->mlp);
    two_hot_decode(&model->two_hot, scratch->logits, bins, rows, scratch->number[0], NULL);
    add_rewards(plan, t, s, rows, scratch->number[0]);
    mlp_forward(t == 0 ? &plan->dynamics0 : &mppi->part[MODEL_DYNAMICS], x, ldx, rows, za, width,
                scratch->mlp);
    if (mppi->dims.episodic) {
        mlp_forward(&mppi->part[MODEL_TERMINATION], za, width, rows, scratch->number[0], 1, scratch->mlp);
        add_terminations(plan, s, rows, scratch->number[0]);
    }
}

/* The task's embedding behind every latent of rows that the nets will go over. */
static void embed(const struct plan *plan, float *za, int rows)
{
    const struct model_dims *dims = &plan->mppi->dims;

    for (int i = 0; dims->task_dim > 0 && i < rows; i++)
        memcpy(za + (size_t)i * (size_t)plan->mppi->width + dims->latent_dim, plan->latent + dims->latent_dim,
               (size_t)dims->task_dim * sizeof(float));
}

static void forget(struct plan *plan, int s, int rows)
{
    memset(plan->gain + s, 0, (size_t)rows * sizeof(float));
    memset(plan->done + s, 0, (size_t)rows * sizeof(float));
}

void rollout_policy(struct plan *plan, struct scratch *scratch)
{
    const struct mppi *mppi = plan->mppi;
    int rows = mppi->config.num_pi_trajs;
    float *za = plan->policy_za;
    const struct mlp *pi = &mppi->part[MODEL_PI];
    size_t a = (size_t)mppi->dims.action_dim, width = (size_t)mppi->width;

    if (rows == 0)
        return;
    forget(plan, 0, rows);
    embed(plan, za, rows);
    for (int t = 0; t < mppi->config.horizon; t++) {
        /* At the first step one row of the net serves all: a leading dimension of 0 repeats it. */
        mlp_forward(pi, t == 0 ? plan->latent : za, width, t == 0 ? 1 : rows, scratch->net, 2 * a,
                    scratch->mlp);
        policy_sample(&plan->head, scratch->net, t == 0 ? 0 : 2 * a,
                      plan->pi_noise + (size_t)t * (size_t)rows * a, rows, action_at(plan, t, 0), a);
        step(plan, scratch, za, t, 0, rows);
    }
}

/* Candidates P.. = clip(mean + std noise) for one tile; 0 where the task has no actions. */
static void draw_candidates(struct plan *plan, const struct tile *tile)
{
    const struct mppi *mppi = plan->mppi;
    int dim = mppi->dims.action_dim, sampled = mppi->config.num_samples - mppi->config.num_pi_trajs;
    int skip = tile->first - mppi->config.num_pi_trajs, has = dim - plan->head.padding;

    for (int t = 0; t < mppi->config.horizon; t++) {
        const float *mean = plan->mean + t * dim, *std = plan->std + t * dim;
        const float *noise =
            plan->candidate_noise + ((size_t)t * (size_t)sampled + (size_t)skip) * (size_t)dim;
        float *action = action_at(plan, t, tile->first);

        for (int i = 0; i < tile->rows; i++, noise += dim, action += dim)
            for (int j = 0; j < dim; j++) {
                float x = mean[j] + std[j] * noise[j];

                action[j] = j >= has ? 0.0f : x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x;
            }
    }
}

/* value = gain + discount^H (1 - done) q, for candidates s .. at rows `offset` .. of the tile. */
static void put_values(struct plan *plan, const struct scratch *scratch, int s, int rows, int offset)
{
    float discount = (float)plan->power[plan->mppi->config.horizon];

    for (int i = 0; i < rows; i++) {
        float q = (scratch->number[0][offset + i] + scratch->number[1][offset + i]) / 2.0f;

        plan->value[s + i] = plan->gain[s + i] + discount * (1.0f - plan->done[s + i]) * q;
    }
}

/* A policy action at the horizon for candidates s .. at rows `offset` .. of the tile. */
static void act_at_horizon(struct plan *plan, const struct scratch *scratch, int s, int rows, int offset)
{
    const struct mppi *mppi = plan->mppi;
    size_t a = (size_t)mppi->dims.action_dim, width = (size_t)mppi->width;
    const float *noise = plan->terminal_noise + (size_t)s * a;

    policy_sample(&plan->head, scratch->net + (size_t)offset * 2 * a, 2 * a, noise, rows,
                  scratch->za + (size_t)(offset + 1) * width - a, width);
}

/* Mean of the two drawn Q heads at the horizon, for the tile's own and its policy candidates. */
static void value_tile(struct plan *plan, const struct tile *tile, struct scratch *scratch)
{
    const struct mppi *mppi = plan->mppi;
    const world_model_t *model = mppi->model;
    size_t a = (size_t)mppi->dims.action_dim, width = (size_t)mppi->width;
    size_t bins = (size_t)mppi->dims.num_bins;
    int rows = tile->rows + tile->extra;

    memcpy(scratch->za + (size_t)tile->rows * width, plan->policy_za + (size_t)tile->pi * width,
           (size_t)tile->extra * width * sizeof(float));
    mlp_forward(&mppi->part[MODEL_PI], scratch->za, width, rows, scratch->net, 2 * a, scratch->mlp);
    act_at_horizon(plan, scratch, tile->first, tile->rows, 0);
    act_at_horizon(plan, scratch, tile->pi, tile->extra, tile->rows);
    for (int i = 0; i < 2; i++) {
        mlp_forward(&plan->q[i], scratch->za, width, rows, scratch->logits, bins, scratch->mlp);
        two_hot_decode(&model->two_hot, scratch->logits, bins, rows, scratch->number[i], NULL);
    }
    put_values(plan, scratch, tile->first, tile->rows, 0);
    put_values(plan, scratch, tile->pi, tile->extra, tile->rows);
}

void rollout_tile(struct plan *plan, const struct tile *tile, struct scratch *scratch)
{
    if (tile->rows > 0) {
        draw_candidates(plan, tile);
        forget(plan, tile->first, tile->rows);
        embed(plan, scratch->za, tile->rows);
        for (int t = 0; t < plan->mppi->config.horizon; t++)
            step(plan, scratch, scratch->za, t, tile->first, tile->rows);
    }
    if (tile->rows + tile->extra > 0)
        value_tile(plan, tile, scratch);
}
