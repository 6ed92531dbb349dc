/*
 * mppi_internal.h - the planner's inside, shared by mppi.c (memory and the loop), rollout.c
 * (candidates through the model) and elites.c (from values to an action).
 */
#ifndef TD_PLAN_MPPI_INTERNAL_H
#define TD_PLAN_MPPI_INTERNAL_H

#include "common/plan/mppi.h"
#include "common/util/arena.h"

/*
 * Candidates rolled out together. `rows` of them are sampled ones; `extra` are policy candidates, which a
 * tile only values at the horizon. Every environment's candidates are cut in the same way.
 */
struct tile {
    int first, rows; /* candidates first .. first + rows - 1 */
    int pi, extra;   /* candidates pi .. pi + extra - 1 */
};

/* Memory for the task under way: nothing in it outlives the task. */
struct scratch {
    float *za;        /* [rows, width] latent, then action; rows of the largest tile */
    float *logits;    /* [rows, bins] */
    float *net;       /* [rows, 2A] the policy's output */
    float *number[2]; /* [rows] rewards, Q values */
    float *mlp;       /* of mlp_forward */
    struct pixel_scratch pixels;
};

/* What each environment has of its own. */
struct plan {
    const struct mppi *mppi;
    float *mean, *std, *previous;       /* [H, A] */
    float *actions;                     /* [H, S, A], the policy's candidates first */
    float *value;                       /* [S] */
    float *gain;                        /* [S] discounted rewards */
    float *done;                        /* [S] termination flag, 0 or 1 */
    float *latent;                      /* [width] of the observation; with tasks, the embedding behind it */
    float *seen;                        /* with tasks: [obs_dim + task_dim] the encoder's input */
    double *power;                      /* [H + 1] powers of the discount */
    float *policy_za;                   /* [P, width] of the policy's candidates at the horizon */
    float *pi_noise;                    /* [H, P, A] */
    float *candidate_noise;             /* [H, S - P, A] of the iteration under way, or the next */
    float *terminal_noise;              /* [S, A] likewise */
    float *bias_dynamics, *bias_reward; /* [mlp_dim] shared first-layer products */
    float *score, *gumbel;              /* [elites] */
    int *order;                         /* [S] candidates, best first */
    /* Of the plan under way. */
    struct mppi_request *request;
    struct mlp dynamics0, reward0; /* at the first step: the latent's part is in the bias */
    struct mlp q[2];
    struct policy_head head; /* with the task's mask */
};

struct mppi {
    struct mppi_config config;
    struct model_dims dims;
    pool_t *pool;
    int threads;   /* of it */
    bool measured; /* made to know its size, without its memory */
    struct arena arena;
    const struct mppi_watch *watch;
    int width; /* floats of a [z | a] row */
    int tiles; /* of one environment */
    struct tile *tile; /* [tiles] */
    int environments;
    struct plan *plan; /* [environments] */
    int scratches;
    bool by_worker;          /* a scratch for every thread of the pool; else one for every task */
    struct scratch *scratch; /* [scratches] */

    /* Of the batch under way. */
    const world_model_t *model;
    struct mlp part[MODEL_PARTS];          /* the model's nets, reading packed weights */
    struct pixel_panels pixel_panels;      /* of the pixel encoder, if that is what it has */
    struct mlp_panels panels[MODEL_PARTS]; /* packed anew for every batch */
    struct mppi_request *requests;
    int count;
    int iteration;
};

/* The policy's candidates: actions, rewards, and latents at the horizon. */
void rollout_policy(struct plan *plan, struct scratch *scratch);

/* Draw, roll out and value one tile's candidates. */
void rollout_tile(struct plan *plan, const struct tile *tile, struct scratch *scratch);

/* The next mean and std from the candidates' values. */
void plan_refit(struct plan *plan);

/* The first action of one elite. */
void plan_pick_action(struct plan *plan);

#endif
