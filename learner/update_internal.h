/*
 * update_internal.h - the inside of one update, shared by its files:
 *
 *   update.c         creation, the order of things, optimisers, statistics
 *   update_model.c   targets, latent rollout, losses of the world model and their gradients
 *   update_tasks.c   task embeddings: into every net's input, and the gradient out of it
 *   update_pixels.c  observations of pixels through the encoder and back
 *   update_policy.c  the policy's loss and its gradient
 *
 * Every stage is a list of independent tasks for the pool; what a task computes depends on its
 * number alone, and sums over tasks are taken in task order.
 */
#ifndef TD_LEARNER_UPDATE_INTERNAL_H
#define TD_LEARNER_UPDATE_INTERNAL_H

#include "common/util/arena.h"
#include "learner/update.h"

/* A net that takes [z | a] (termination: z) and has a loss of its own on every row. */
struct update_head {
    struct mlp net;
    struct mlp_grad grad;
    struct mlp_tape tape;
    float *out;  /* [H * B, net out] logits, then their gradient */
    float *loss; /* [H * B] */
    float *dx;   /* [H * B, width] gradient at its input */
};

/* Memory of one worker thread. */
struct update_scratch {
    float *net;     /* [MLP_TILE, 2A] */
    float *logits;  /* [MLP_TILE, bins] */
    float *q[2];    /* [MLP_TILE] */
    float *mlp;     /* of mlp_forward and mlp_tape_backward */
    struct pixel_scratch pixels;
};

/* With pixels: the encoder's side of a step. */
struct update_pixels {
    struct pixel_panels panels;
    struct pixel_net_grad grad;
    float *shift;    /* [H + 1, B, 2] */
    float *tape;     /* [B, pixel_tape_floats] of obs[0] */
    float *partials; /* [tiles, pixel_partial_floats] */
};

struct update {
    struct update_config config;
    world_model_t *model;
    pool_t *pool;
    int threads; /* of it */
    const struct update_watch *watch;
    struct arena arena;

    int batch, horizon, num_q, action_dim;
    int latent; /* floats of a row before the action */
    size_t width; /* latent + action_dim */
    bool dropout;
    int task_dim;
    float *seen;      /* with tasks: [(H + 1) * B, obs_dim + task_dim] the encoder's input, */
    float *dseen;     /* [B, obs_dim + task_dim] the gradient there, of obs[0] */
    uint8_t *renormed; /* [num_tasks] */

    struct mlp part[MODEL_PARTS]; /* the model's nets */

    /* Optimiser: laid out as the model's acting floats. */
    float *gradient, *m, *v;
    double *partial; /* of grad_norm */
    uint64_t steps;
    struct running_scale scale;

    /* The world model's loss. */
    struct mlp_grad grad[MODEL_PARTS];
    struct mlp_tape encoder, dynamics;
    struct update_head *head; /* [heads]: Q 0 .. num_q - 1, reward, termination when episodic */
    int heads;
    float *next_za;          /* [H * B, width] z', then the policy's action there */
    float *za;               /* [(H + 1) * B, width] latents; actions of the data, then the policy's */
    float *dz;               /* [(H + 1) * B, width] gradient at za */
    float *targets;          /* [H * B] */
    float *target_noise;     /* [H * B, A] */
    int *bin[2];             /* [H * B] two-hot place of the TD target (0), the reward (1) */
    float *bin_weight[2];    /* [H * B] */
    double *consistency;     /* [H * tiles of a step] partial sums of squares */
    uint8_t *value_mask;     /* [num_q, H * B, M] */

    /* The policy's loss. */
    struct mlp_tape pi, pi_q[2];
    struct mlp pi_head[2];  /* the two drawn Qs */
    float *pi_net;          /* [(H + 1) * B, 2A] */
    float *dpi_net;         /* [(H + 1) * B, 2A] */
    float *pi_logits[2];    /* [(H + 1) * B, bins] */
    float *pi_value[2];     /* [(H + 1) * B] */
    float *pi_expect[2];    /* [(H + 1) * B] */
    float *dvalue[2];       /* [(H + 1) * B] */
    float *pi_noise;        /* [(H + 1) * B, A] */
    float *entropy, *scaled_entropy; /* [(H + 1) * B] */
    uint8_t *pi_mask[2];    /* [(H + 1) * B, M] */
    float *sorted;          /* [2 * B] */
    double pi_terms;        /* see update_view */

    struct update_pixels pixels;
    struct update_scratch *scratch; /* [threads] */

    /* Of the step under way. */
    const struct batch *data;
    const struct update_draws *draws;
    struct mlp target_head[2];
    int target_two[2], pi_two[2];
};

/*
 * Task embeddings, and doing nothing without: memory; their rows, rescaled where they are too long, into every
 * input of a step (also the encoder's, with observations, when `observations`); the gradient at their columns of
 * dz (and dseen), summed into the gradient of the table.
 */
void update_lay_out_tasks(struct update *update, struct arena *arena);
void update_embed(struct update *update, bool observations);
void update_embedding_gradient(struct update *update, bool observations);

/* Observations of time t as the encoder takes them, `*width` floats from row to row. */
const float *update_observed(const struct update *update, int t, size_t *width);

/* The policy head of row `row` of [.., B]. */
struct policy_head update_policy_head(const struct update *update, int row);

/* rho^t */
double update_rho(const struct update *update, int t);

/* Losses and gradients of everything but the policy; the gradient is then in update->gradient. */
void update_model_gradient(struct update *update);

/*
 * With pixels, and doing nothing without: memory; convolutions packed as they are; shifts; latents of all observations, into za and
 * next_za; then, given the gradient at za, tasks that sum it by tiles, and their sum into the gradient.
 */
void update_lay_out_pixels(struct update *update, struct arena *arena);
void update_pack_pixels(struct update *update);
void update_draw_shifts(struct update *update);
void update_encode_pixels(struct update *update);
int update_pixel_tasks(const struct update *update);
void update_pixel_backward(struct update *update, int task, int worker);
void update_pixel_gradient(struct update *update);

/* Statistics of that loss. */
void update_model_stats(const struct update *update, struct update_stats *stats);

/* The policy's loss, running scale and gradient, with the Qs as they now are. */
void update_policy_gradient(struct update *update);
void update_policy_stats(struct update *update, struct update_stats *stats);

#endif
