/* rollout.c - candidates of action sequences through the model: rewards, terminations, value. */
#include <math.h>
#include <string.h>

#include "common/plan/mppi_internal.h"

/* Row s of step t of the candidates' actions. */
static float *action_at(const struct mppi *mppi, int t, int s)
{
    size_t a = (size_t)mppi->dims.action_dim;

    return mppi->actions + ((size_t)t * (size_t)mppi->config.num_samples + (size_t)s) * a;
}

/* gain += discount^t (1 - done) reward. */
static void add_rewards(struct mppi *mppi, int t, int s, int rows, const float *reward)
{
    float discount = (float)mppi->power[t];

    for (int i = 0; i < rows; i++)
        mppi->gain[s + i] += discount * (1.0f - mppi->done[s + i]) * reward[i];
}

static void add_terminations(struct mppi *mppi, int s, int rows, const float *logit)
{
    for (int i = 0; i < rows; i++)
        if (1.0f / (1.0f + expf(-logit[i])) > 0.5f)
            mppi->done[s + i] = 1.0f;
}

/*
 * One step of candidates s .. s + rows - 1: rewards of (z, a), then z <- next(z, a) in place. At the
 * first step all latents are the observation's, folded into biases: only actions are multiplied.
 */
static void step(struct mppi *mppi, struct tile *tile, int t, int s, int rows)
{
    const world_model_t *model = mppi->model;
    size_t width = (size_t)mppi->width, bins = (size_t)mppi->dims.num_bins;
    size_t a = (size_t)mppi->dims.action_dim;
    const float *x = t == 0 ? action_at(mppi, 0, s) : tile->za;
    size_t ldx = t == 0 ? a : width;

    for (int i = 0; t > 0 && i < rows; i++)
        memcpy(tile->za + (size_t)(i + 1) * width - a, action_at(mppi, t, s + i), a * sizeof(float));
    mlp_forward(t == 0 ? &mppi->reward0 : &mppi->part[MODEL_REWARD], x, ldx, rows, tile->logits, bins,
                tile->mlp);
    two_hot_decode(&model->two_hot, tile->logits, bins, rows, tile->number[0], NULL);
    add_rewards(mppi, t, s, rows, tile->number[0]);
    mlp_forward(t == 0 ? &mppi->dynamics0 : &mppi->part[MODEL_DYNAMICS], x, ldx, rows, tile->za, width,
                tile->mlp);
    if (mppi->dims.episodic) {
        mlp_forward(&mppi->part[MODEL_TERMINATION], tile->za, width, rows, tile->number[0], 1, tile->mlp);
        add_terminations(mppi, s, rows, tile->number[0]);
    }
}

static void forget(struct mppi *mppi, int s, int rows)
{
    memset(mppi->gain + s, 0, (size_t)rows * sizeof(float));
    memset(mppi->done + s, 0, (size_t)rows * sizeof(float));
}

void rollout_policy(struct mppi *mppi)
{
    struct tile *tile = &mppi->policy;
    const struct mlp *pi = &mppi->part[MODEL_PI];
    size_t a = (size_t)mppi->dims.action_dim, width = (size_t)mppi->width;

    if (tile->rows == 0)
        return;
    forget(mppi, 0, tile->rows);
    for (int t = 0; t < mppi->config.horizon; t++) {
        /* At the first step one row of the net serves all: a leading dimension of 0 repeats it. */
        mlp_forward(pi, t == 0 ? mppi->latent : tile->za, width, t == 0 ? 1 : tile->rows, tile->net, 2 * a,
                    tile->mlp);
        policy_sample(&mppi->model->head, tile->net, t == 0 ? 0 : 2 * a,
                      mppi->pi_noise + (size_t)t * (size_t)tile->rows * a, tile->rows,
                      action_at(mppi, t, 0), a);
        step(mppi, tile, t, 0, tile->rows);
    }
}

/* Candidates P.. = clip(mean + std noise) for one tile. */
static void draw_candidates(struct mppi *mppi, const struct tile *tile)
{
    int dim = mppi->dims.action_dim, sampled = mppi->config.num_samples - mppi->config.num_pi_trajs;
    int skip = tile->first - mppi->config.num_pi_trajs;

    for (int t = 0; t < mppi->config.horizon; t++) {
        const float *mean = mppi->mean + t * dim, *std = mppi->std + t * dim;
        const float *noise =
            mppi->candidate_noise +
            (((size_t)mppi->iteration * (size_t)mppi->config.horizon + (size_t)t) * (size_t)sampled +
             (size_t)skip) * (size_t)dim;
        float *action = action_at(mppi, t, tile->first);

        for (int i = 0; i < tile->rows; i++, noise += dim, action += dim)
            for (int j = 0; j < dim; j++) {
                float x = mean[j] + std[j] * noise[j];

                action[j] = x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x;
            }
    }
}

/* value = gain + discount^H (1 - done) q, for candidates s .. at rows `offset` .. of the tile. */
static void put_values(struct mppi *mppi, const struct tile *tile, int s, int rows, int offset)
{
    float discount = (float)mppi->power[mppi->config.horizon];

    for (int i = 0; i < rows; i++) {
        float q = (tile->number[0][offset + i] + tile->number[1][offset + i]) / 2.0f;

        mppi->value[s + i] = mppi->gain[s + i] + discount * (1.0f - mppi->done[s + i]) * q;
    }
}

/* A policy action at the horizon for candidates s .. at rows `offset` .. of the tile. */
static void act_at_horizon(struct mppi *mppi, const struct tile *tile, int s, int rows, int offset)
{
    size_t a = (size_t)mppi->dims.action_dim, width = (size_t)mppi->width;
    const float *noise = mppi->terminal_noise +
                         ((size_t)mppi->iteration * (size_t)mppi->config.num_samples + (size_t)s) * a;

    policy_sample(&mppi->model->head, tile->net + (size_t)offset * 2 * a, 2 * a, noise, rows,
                  tile->za + (size_t)(offset + 1) * width - a, width);
}

/* Mean of the two drawn Q heads at the horizon, for the tile's own and its policy candidates. */
static void value_tile(struct mppi *mppi, struct tile *tile)
{
    const world_model_t *model = mppi->model;
    size_t a = (size_t)mppi->dims.action_dim, width = (size_t)mppi->width;
    size_t bins = (size_t)mppi->dims.num_bins;
    int rows = tile->rows + tile->extra;

    memcpy(tile->za + (size_t)tile->rows * width, mppi->policy.za + (size_t)tile->pi * width,
           (size_t)tile->extra * width * sizeof(float));
    mlp_forward(&mppi->part[MODEL_PI], tile->za, width, rows, tile->net, 2 * a, tile->mlp);
    act_at_horizon(mppi, tile, tile->first, tile->rows, 0);
    act_at_horizon(mppi, tile, tile->pi, tile->extra, tile->rows);
    for (int i = 0; i < 2; i++) {
        mlp_forward(&mppi->q[i], tile->za, width, rows, tile->logits, bins, tile->mlp);
        two_hot_decode(&model->two_hot, tile->logits, bins, rows, tile->number[i], NULL);
    }
    put_values(mppi, tile, tile->first, tile->rows, 0);
    put_values(mppi, tile, tile->pi, tile->extra, tile->rows);
}

void rollout_tile(struct mppi *mppi, int index)
{
    struct tile *tile = &mppi->tile[index];

    if (tile->rows > 0) {
        draw_candidates(mppi, tile);
        forget(mppi, tile->first, tile->rows);
        for (int t = 0; t < mppi->config.horizon; t++)
            step(mppi, tile, t, tile->first, tile->rows);
    }
    if (tile->rows + tile->extra > 0)
        value_tile(mppi, tile);
}
