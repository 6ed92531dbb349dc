/*
 * mppi.h - model predictive path integral planner over the latent world model.
 *
 * Owns:    per environment sampling mean and std, the previous plan, candidates; packed weights, scratch.
 * Borrows: the world model, read-only, and a pool, if any.
 * Thread:  each planner belongs to one thread; planners may share a model. With a pool, candidates
 *          are rolled out in tiles of fixed size on its threads: the same bits with any number.
 *
 * One planner may serve several environments, in batches of those that are due to act. A plan is the
 * same to the bit whatever else is in its batch: no tile holds candidates of two environments. A batch
 * packs the model's weights once, its environments' tiles fill the pool together, and what is serial in
 * one plan (the policy's few candidates, choosing elites) runs beside that of the others.
 *
 * With several tasks each request names its own: the task's embedding joins every net's input, its mask cuts
 * candidates, mean, std and the policy's actions, and its discount counts. The model stays as it is: where the
 * reference's lookup rescales a long embedding in place, the plan works with a rescaled copy.
 * Source:  TD-MPC2, Hansen et al. 2024; reference tdmpc2.py, `act`, `_plan`, `_estimate_value`.
 *
 * Only what the action depends on is computed: the two drawn Q heads; at the first step, where all
 * candidates share one latent, the first layers' product with it once; rewards and latents of the
 * policy's candidates, which do not change between iterations, once.
 */
#ifndef TD_PLAN_MPPI_H
#define TD_PLAN_MPPI_H

#include <stdbool.h>
#include <stddef.h>

#include "common/model/world_model.h"
#include "common/tensor/pool.h"
#include "common/util/config.h"
#include "common/util/rng.h"

struct mppi_config {
    bool mpc; /* false: act with the policy */
    int horizon, iterations, num_samples, num_elites, num_pi_trajs;
    float min_std, max_std, temperature;
    double discount; /* with several tasks, the model's table has theirs */
    bool half;       /* for models in half storage (world_model.h): packed weights are bfloat16 too */
};

/* From the options; iterations and discount as the task implies (see dims.h); half is left false. */
void mppi_config_init(struct mppi_config *plan, const struct config *config, int action_dim,
                      uint64_t episode_length);

/* TD_OK, or TD_EINVAL naming the option that contradicts another. */
int mppi_config_check(const struct mppi_config *plan, struct error *err);

/* Which draw of one plan is wanted; `index` beside it. */
enum mppi_draw {
    MPPI_POLICY_NOISE,    /* index = step   [num_pi_trajs, A]            normal */
    MPPI_CANDIDATE_NOISE, /* index = iter   [horizon, samples - pi, A]   normal */
    MPPI_TERMINAL_NOISE,  /* index = iter   [samples, A]                 normal */
    MPPI_HEADS,           /* index = iter   permutation of the Q heads */
    MPPI_GUMBEL,          /* [elites]  exponential */
    MPPI_ACTION_NOISE,    /* [A]  normal; also of the policy when mpc is false */
    MPPI_SHIFT,           /* [2]  pixels: (column, row) of the crop, whole numbers 0 .. 6 */
};

/*
 * Where a plan's random numbers come from. Draws differ by (kind, index) alone, are asked for in any
 * order and from several threads at once, so functions must not change the context.
 */
struct mppi_draws {
    const void *context;
    void (*fill)(const void *context, enum mppi_draw kind, int index, float *out, size_t count);
    void (*heads)(const void *context, int index, int num_q, int two[2]);
};

/* Draws from a counter-based stream, which stays as it is; the usual source. rng is borrowed. */
struct mppi_draws mppi_draws_rng(const struct rng *rng);

/* Called after each iteration's values are known, for the replay of recorded plans. */
struct mppi_watch {
    void *context;
    /* value [samples] before NaN removal, actions [horizon, samples, A]; on the caller's thread */
    void (*iteration)(void *context, int environment, int iteration, const float *value,
                      const float *actions);
};

typedef struct mppi mppi_t;

#define MPPI_ENVIRONMENTS_MAX 64

/*
 * A planner for models of these sizes and so many environments. pool may be NULL. Returns TD_OK,
 * TD_EINVAL, TD_ENOMEM.
 *
 * All memory is taken here: the packed weights (as large as the model's acting nets), scratch for each
 * task that can be under way at a time (no more than the pool has threads; about 300 rows of the widest
 * layers, 1.7 MB at 5 million parameters), and for each environment about (2H + 1) * samples * A floats.
 */
int mppi_create(mppi_t **out, const struct mppi_config *config, const struct model_dims *dims,
                int environments, pool_t *pool, struct error *err);
void mppi_destroy(mppi_t **mppi);

/*
 * Choose the action for one observation, of environment 0 (and of task 0).
 *
 *   model   of the sizes given at creation; may be another one at every call
 *   obs     [obs_dim]     in   float, environment units; pixels: uint8 [9, 64, 64], three frames,
 *                              oldest first
 *   first                 in   step 0 of an episode: forget the previous plan
 *   eval                  in   without the final noise (policy: its mean)
 *   action  [action_dim]  out  in [-1, 1]
 *
 * Non-finite values score 0, as in the reference. Never allocates.
 * Returns TD_OK, or TD_EDIVERGED when the action is not finite (the parameters are not).
 */
int mppi_plan(mppi_t *mppi, const world_model_t *model, const void *obs, bool first, bool eval,
              const struct mppi_draws *draws, float *action);

/* What one environment asks of a batch; fields as the arguments of mppi_plan. */
struct mppi_request {
    int environment; /* 0 .. environments - 1, in a batch at most once */
    const void *obs;
    bool first, eval;
    uint32_t task; /* below the model's num_tasks; not read in single-task runs */
    struct mppi_draws draws;
    float *action; /* out */
    int status;    /* out: TD_OK or TD_EDIVERGED */
};

/*
 * Plan for some of the environments, in any order: each plan is the one that mppi_plan would make.
 * Returns TD_OK, or TD_EDIVERGED when one of them is not TD_OK.
 */
int mppi_plan_batch(mppi_t *mppi, const world_model_t *model, struct mppi_request *requests, int count);

/* Bytes that a planner takes, known before any is taken. As mppi_create; threads: of the pool it will have. */
int mppi_measure(size_t *bytes, const struct mppi_config *config, const struct model_dims *dims, int environments,
                 int threads, struct error *err);

/* Bytes taken at creation. */
size_t mppi_bytes(const mppi_t *mppi);

/* The mean of the last plan [horizon, A], which the next one starts from; may be written. */
float *mppi_previous_mean(mppi_t *mppi, int environment);

/* Watch every plan from now on; watch is borrowed, NULL ends it. */
void mppi_set_watch(mppi_t *mppi, const struct mppi_watch *watch);

#endif
