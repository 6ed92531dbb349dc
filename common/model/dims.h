/*
 * dims.h - the sizes of a world model, and what the options imply.
 *
 * Source: TD-MPC2 reference, `config.yaml`, `parser.py`, `common/__init__.py` (MODEL_SIZE).
 */
#ifndef TD_MODEL_DIMS_H
#define TD_MODEL_DIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/config.h"
#include "common/util/error.h"

struct model_dims {
    int obs_dim, action_dim; /* obs_dim: floats of a state, or bytes of one frame [3, 64, 64] */
    bool rgb;                /* observations are three stacked frames, seen by convolutions */
    int num_channels;        /* of those; latent_dim is 16 times as much */
    int num_tasks; /* rows of the table of task embeddings; 0 in single-task runs */
    int task_dim;  /* width of the task embedding between z and the action; 0 in single-task runs */
    int enc_dim, enc_layers; /* enc_layers as the option num_enc_layers */
    int mlp_dim, latent_dim, simnorm_dim;
    int num_q, num_bins;
    bool episodic; /* has a termination head */
    float dropout; /* of the Q heads' first layer */
    float vmin, vmax;
    float log_std_min, log_std_max;
};

/*
 * From the options (model_size included) and what the environment says. Returns TD_OK, or TD_EINVAL
 * naming the option: an unknown model_size, a latent_dim that simnorm_dim does not divide.
 */
int model_dims_init(struct model_dims *dims, const struct config *config, int obs_dim, int action_dim,
                    struct error *err);

/*
 * As model_dims_init for a list of tasks: their widest observations and actions, and for several tasks
 * (set->multitask) their number and an embedding: option task_dim, or if that is 0 the reference's (96; 64
 * for mt30 of other sizes than 1 and 317). mt30 of size 19 has latent_dim 512, as in the reference.
 */
struct task_set;
int model_dims_init_tasks(struct model_dims *dims, const struct config *config, const struct task_set *set,
                          struct error *err);

/* The same checks on sizes that came from elsewhere (a file). */
int model_dims_check(const struct model_dims *dims, struct error *err);

/* clip(1 - denom / T, min, max) for episodes of T agent steps. */
double derive_discount(const struct config *config, uint64_t episode_length);

/* Are the parameters that act kept in half storage (world_model.h): actor_dtype=bf16. */
bool derive_half(const struct config *config);

/* Planner iterations: 2 more for 20 or more action dimensions. */
int derive_iterations(const struct config *config, int action_dim);

/* The option, or max(1000, 5 episodes) when it is 0. */
uint64_t derive_seed_steps(const struct config *config, uint64_t episode_length);

/* Rows kept: min(buffer_size, steps). */
uint64_t derive_capacity(const struct config *config);

#endif
