/*
 * mppi_internal.h - the planner's inside, shared by mppi.c (the loop) and rollout.c (candidates).
 */
#ifndef TD_PLAN_MPPI_INTERNAL_H
#define TD_PLAN_MPPI_INTERNAL_H

#include "common/plan/mppi.h"
#include "common/util/arena.h"

/*
 * Candidates rolled out together and their scratch. `rows` of them are sampled ones; `extra` are
 * policy candidates, which a tile only values at the horizon. The policy's own tile has rows only.
 */
struct tile {
    int first, rows;  /* candidates first .. first + rows - 1 */
    int pi, extra;    /* candidates pi .. pi + extra - 1 */
    float *za;        /* [rows + extra, width] latent, then action */
    float *logits;    /* [rows + extra, bins] */
    float *net;       /* [rows + extra, 2A] the policy's output */
    float *number[2]; /* [rows + extra] rewards, Q values */
    float *mlp;       /* scratch of mlp_forward */
};

struct mppi {
    struct mppi_config config;
    struct model_dims dims;
    pool_t *pool;
    struct arena arena;
    const struct mppi_watch *watch;
    int width; /* floats of a [z | a] row */
    int tiles;
    struct tile *tile;  /* [tiles] */
    struct tile policy; /* the policy's candidates 0 .. P - 1; keeps their latents at the horizon */

    float *mean, *std, *previous;  /* [H, A] */
    float *actions;                /* [H, S, A], the policy's candidates first */
    float *value;                  /* [S] */
    float *gain;                   /* [S] discounted rewards */
    float *done;                   /* [S] termination flag, 0 or 1 */
    float *latent;                 /* [width] of the observation */
    float *pi_noise;               /* [H, P, A] */
    float *candidate_noise;        /* [N, H, S - P, A] */
    float *terminal_noise;         /* [N, S, A] */
    float *bias_dynamics, *bias_reward; /* [mlp_dim] shared first-layer products */
    float *score, *gumbel;         /* [elites] */
    int *order;                    /* [S] candidates, best first */
    double *power;                 /* [H + 1] powers of the discount */

    /* Of the plan under way. */
    const world_model_t *model;
    struct mlp part[MODEL_PARTS];           /* the model's nets, reading packed weights */
    struct pixel_panels pixel_panels;       /* of the pixel encoder, if that is what it has */
    struct pixel_scratch pixel_scratch;
    struct mlp_panels panels[MODEL_PARTS];  /* packed anew for every plan */
    const struct mppi_draws *draws;
    struct mlp dynamics0, reward0; /* at the first step: the latent's part is in the bias */
    struct mlp q[2];
    int iteration;
};

/* The policy's candidates: actions, rewards, and latents at the horizon (left in mppi->policy.za). */
void rollout_policy(struct mppi *mppi);

/* Task `index` of an iteration: draw, roll out and value one tile's candidates. */
void rollout_tile(struct mppi *mppi, int index);

#endif
