/*
 * update.h - one training step of the world model, the policy and the target networks.
 *
 * Owns:    gradients, Adam moments, running scale, every intermediate; sized at creation.
 * Borrows: the world model (which it changes) and the pool.
 * Thread:  one at a time; work is cut into tiles of fixed size for the pool, so the same inputs give
 *          the same bits with any number of threads. Never allocates after creation.
 * Source:  TD-MPC2 reference, tdmpc2.py: `_update`, `update_pi`, `_td_target`.
 */
#ifndef TD_LEARNER_UPDATE_H
#define TD_LEARNER_UPDATE_H

#include <stddef.h>
#include <stdint.h>

#include "common/model/running_scale.h"
#include "common/model/world_model.h"
#include "common/tensor/pool.h"
#include "common/util/config.h"
#include "common/util/rng.h"

struct update_config {
    int batch_size, horizon;
    double consistency_coef, reward_coef, value_coef, termination_coef, entropy_coef;
    double rho, discount; /* with several tasks, the model's table has their discounts */
    double lr, enc_lr_scale, grad_clip_norm, tau;
    double lr_scale[MODEL_TARGET_Q]; /* of each part, task embeddings first; the encoder's beside enc_lr_scale */
};

/* From the options, which have passed config_check; discount as the episode length implies (see dims.h). */
void update_config_init(struct update_config *update, const struct config *config,
                        uint64_t episode_length);

/*
 * B slices of H + 1 rows, time-major, contiguous, borrowed for the call. Observations are `obs`, or with
 * pixels `frames`: what is seen at time t of slice b are three frames, oldest first,
 * frames[((t * frame_step + k) * B + b) * PIXEL_FRAME_BYTES], k = 0, 1, 2. frame_step is 1 where each frame
 * is there once ([H+3, B, 3, 64, 64], the slices of replay), 3 where each observation has its own
 * ([H+1, 3, B, 3, 64, 64], recorded vectors).
 */
struct batch {
    const float *obs;        /* [H+1, B, obs_dim]; NULL with pixels */
    const uint8_t *frames;   /* NULL without */
    int frame_step;          /* 1 or 3 */
    const float *action;     /* [H, B, action_dim] */
    const float *reward;     /* [H, B] */
    const float *terminated; /* [H, B] 0 or 1 */
    const uint32_t *task;    /* [B] below num_tasks; not read in single-task runs, may be NULL */
};

/* Every logged statistic, in the order of the csv: UPDATE_STAT(name). */
#define UPDATE_STATS(UPDATE_STAT)                                                                  \
    UPDATE_STAT(consistency_loss)                                                                  \
    UPDATE_STAT(reward_loss)                                                                       \
    UPDATE_STAT(value_loss)                                                                        \
    UPDATE_STAT(termination_loss)                                                                  \
    UPDATE_STAT(total_loss)                                                                        \
    UPDATE_STAT(grad_norm)    /* before clipping */                                                \
    UPDATE_STAT(pi_loss)                                                                           \
    UPDATE_STAT(pi_grad_norm) /* before clipping */                                                \
    UPDATE_STAT(pi_entropy)                                                                        \
    UPDATE_STAT(pi_scaled_entropy)                                                                 \
    UPDATE_STAT(pi_scale)                                                                          \
    UPDATE_STAT(termination_rate) /* of the last step; episodic runs only, else 0 */               \
    UPDATE_STAT(termination_f1)

struct update_stats {
#define UPDATE_STAT(name) float name;
    UPDATE_STATS(UPDATE_STAT)
#undef UPDATE_STAT
};

/* Which draw of one update is wanted. */
enum update_draw {
    UPDATE_TARGET_NOISE, /* [H, B, A]    normal: policy actions of the TD targets */
    UPDATE_TARGET_HEADS, /* the two target Qs */
    UPDATE_VALUE_MASK,   /* [H, B, M]    dropout of Q head `head`, 1 = kept; only when dropout > 0 */
    UPDATE_POLICY_NOISE, /* [H+1, B, A]  normal */
    UPDATE_POLICY_MASK,  /* [H+1, B, M]  dropout of Q head `head` in the policy's loss */
    UPDATE_POLICY_HEADS, /* the two detached Qs */
    UPDATE_NEXT_SHIFT,   /* [H, B, 2]    pixels: (column, row) of obs[1..H]'s crops, whole numbers 0 .. 6 */
    UPDATE_SHIFT,        /* [B, 2]       pixels: of obs[0]'s */
};

/*
 * Where an update's random numbers come from. Asked for in any order and from several threads at
 * once, so functions must not change the context.
 */
struct update_draws {
    const void *context;
    void (*noise)(const void *context, enum update_draw kind, float *out, size_t count); /* and shifts */
    void (*mask)(const void *context, enum update_draw kind, int head, uint8_t *out, size_t count,
                 float keep);
    void (*heads)(const void *context, enum update_draw kind, int num_q, int two[2]);
};

/* Draws from a counter-based stream, keyed by the caller with (seed, update); rng is borrowed. */
struct update_draws update_draws_rng(const struct rng *rng);

typedef struct update update_t;

/* Bytes that training takes, known before any is taken. */
struct update_memory {
    size_t parameters, targets, gradients, moments;
    size_t activations; /* what the batch leaves behind in every net, and its gradients there */
    size_t working;     /* scratch of each thread, packed convolutions */
    size_t total;
};

/* For a model of these sizes with targets, and its updates with so many threads. TD_OK, TD_EINVAL, TD_ENOMEM. */
int update_measure(struct update_memory *memory, const struct model_dims *dims, const struct update_config *config,
                   int threads, struct error *err);

/*
 * An optimiser for this model, which must have targets, and its tasks set if it has any. Returns TD_OK, TD_EINVAL (memory_check too,
 * before anything is taken), TD_ENOMEM.
 */
int update_create(update_t **out, world_model_t *model, const struct update_config *config,
                  pool_t *pool, struct error *err);
void update_destroy(update_t **update);

/*
 * One update. stats (may be NULL) holds what is logged.
 *
 * Returns TD_OK; or TD_EDIVERGED when a loss or a gradient is not finite: the parameters that
 * gradient was for are then unchanged, all parameters are finite if they were, and stats shows why.
 */
int update_step(update_t *update, const struct batch *batch, const struct update_draws *draws,
                struct update_stats *stats);

/* What a checkpoint keeps beside the parameters. Pointers into the update; may be written. */
struct update_state {
    float *m, *v;   /* Adam moments, laid out as the model's acting floats */
    size_t floats;
    uint64_t *steps; /* updates done */
    float *leftover; /* gradient that the policy's loss left at the task embeddings, for the next update */
    size_t leftovers; /* [num_tasks * task_dim]; 0 in single-task runs */
    struct running_scale *scale;
};
struct update_state update_state(update_t *update);

/* Intermediates of the last update, for the replay of recorded ones. Rows `width` floats apart. */
struct update_view {
    const float *next_z; /* [H * B] rows of encoded next observations */
    const float *zs;     /* [(H + 1) * B] rows of the latent rollout */
    const float *targets; /* [H * B] TD targets, contiguous */
    size_t width;
    double pi_terms; /* mean magnitude of the terms whose mean is pi_loss */
};
struct update_view update_view(const update_t *update);

/* Called with the gradients before clipping, floats first .. first + count - 1 of the layout. */
struct update_watch {
    void *context;
    void (*gradient)(void *context, const float *gradient, size_t first, size_t count);
};

/* Watch every update from now on; borrowed, NULL ends it. */
void update_set_watch(update_t *update, const struct update_watch *watch);

#endif
