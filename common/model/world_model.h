/*
 * world_model.h - the latent world model: encoder, dynamics, reward, termination, Q ensemble, policy.
 *
 * All parameters lie in one float array, described by a table of named tensors (the official
 * state-dict names, Q tensors stacked over heads). Order: [task embeddings], encoder, dynamics, reward,
 * [termination], Qs, policy | target Qs. What acting needs is a prefix: that prefix is the broadcast snapshot.
 * What the model optimiser trains (all but the policy) is a prefix of that. Tensors begin at
 * multiples of 16 floats; the gaps are zero and stay zero.
 *
 * Owns:    its parameters.
 * Thread:  read by many, or written by one.
 * Source:  TD-MPC2 reference, `world_model.py`, `layers.py`, `init.py`.
 */
#ifndef TD_MODEL_WORLD_MODEL_H
#define TD_MODEL_WORLD_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/model/dims.h"
#include "common/model/policy_head.h"
#include "common/model/task_set.h"
#include "common/model/two_hot.h"
#include "common/nn/mlp.h"
#include "common/nn/pixels.h"

#define MODEL_TENSORS_MAX 128
#define MODEL_NAME_MAX    48

enum model_part {
    MODEL_TASK, /* the table of task embeddings: one tensor, no chain; nothing in single-task runs */
    MODEL_ENCODER,
    MODEL_DYNAMICS,
    MODEL_REWARD,
    MODEL_TERMINATION,
    MODEL_Q,
    MODEL_PI,
    MODEL_TARGET_Q,
    MODEL_PARTS,
};

/* One named tensor. */
struct model_tensor {
    char name[MODEL_NAME_MAX]; /* "_Qs.params.0.ln.weight" */
    enum model_part part;
    int dims;
    uint64_t shape[4];
    size_t offset, count; /* floats */
    bool matrix;          /* a large weight of Linears: a bfloat16 in half storage */
    size_t half;          /* its offset there: among the bfloat16s, or among the floats */
};

/* Where everything lies, a function of the dims alone. */
struct model_layout {
    struct model_dims dims;
    int tensors;
    struct model_tensor tensor[MODEL_TENSORS_MAX]; /* by offset */
    size_t part[MODEL_PARTS + 1];                  /* first float of each part; the last is the end */
    size_t half_floats, half_matrices; /* half storage of what acting needs: floats, then so many bfloat16s */
    uint64_t parameters;                           /* as the reference counts: without targets and gaps */
};

static inline size_t model_trained_floats(const struct model_layout *layout)
{
    return layout->part[MODEL_PI];
}

static inline size_t model_acting_floats(const struct model_layout *layout)
{
    return layout->part[MODEL_TARGET_Q];
}

static inline size_t model_all_floats(const struct model_layout *layout)
{
    return layout->part[MODEL_PARTS];
}

/*
 * Half storage: what acting needs with the weight of every large Linear as bfloat16, and all that is small (biases,
 * LayerNorms, embeddings, convolutions, Linears of fewer weights than MODEL_HALF_LEAST) as float; first the floats, then
 * the bfloat16s. 0.504 times as large at size 5. An error of rounding is averaged over a row's inputs: in the small
 * Linears, the encoder's first above all, it would be largest, and they take 0.3 % of the memory.
 */
#define MODEL_HALF_LEAST 16384
extern size_t model_half_least; /* MODEL_HALF_LEAST; a test may lower it before it makes a model, for small ones */

static inline size_t model_half_bytes(const struct model_layout *layout)
{
    return layout->half_floats * sizeof(float) + layout->half_matrices * sizeof(uint16_t);
}

/* From parameters to half storage [model_half_bytes], the nearest bfloat16s; and back, for what is acting. */
void model_to_half(const struct model_layout *layout, const float *parameters, void *half);
/* Bytes from .. from + length - 1 of it, multiples of 4. */
void model_to_half_part(const struct model_layout *layout, const float *parameters, size_t from, size_t length, void *out);
void model_from_half(const struct model_layout *layout, const void *half, float *parameters);

/* dims must have passed model_dims_check. Never allocates. */
void model_layout_init(struct model_layout *layout, const struct model_dims *dims);

/* By name, NULL when there is none. */
const struct model_tensor *model_layout_find(const struct model_layout *layout, const char *name);

/*
 * Every part as a chain of layers over `memory`, an array laid out like this: parameters here,
 * gradients with model_gradients. parts[MODEL_TERMINATION].layers is 0 when there is none.
 * The target part's views are only valid when memory holds all floats. With pixels the encoder is no such
 * chain, parts[MODEL_ENCODER].layers is 0 and model_pixels gives its view.
 */
void model_views(const struct model_layout *layout, const float *memory, struct mlp parts[MODEL_PARTS]);
/* The acting parts over half storage. */
void model_half_views(const struct model_layout *layout, const void *half, struct mlp parts[MODEL_PARTS]);
void model_gradients(const struct model_layout *layout, float *memory,
                     struct mlp_grad parts[MODEL_PARTS]);

/* The convolutions over such memory, or half storage; only when dims.rgb. */
void model_half_pixels(const struct model_layout *layout, const void *half, struct pixel_net *net);
void model_pixels(const struct model_layout *layout, const float *memory, struct pixel_net *net);
void model_pixel_gradients(const struct model_layout *layout, float *memory, struct pixel_net_grad *grad);

/* What the model must know of each of several tasks. */
struct model_task {
    int action_dim; /* the others are padding: the task's action mask has so many ones, then zeros */
    float discount;
};

typedef struct world_model {
    struct model_layout layout;
    struct model_task *task; /* [num_tasks]; all of world_model_set_tasks */
    struct two_hot two_hot;
    struct policy_head head;
    float *parameters; /* [acting or all floats]; with `half`: half storage, its floats */
    bool has_targets;
    bool half;         /* Linear weights are bfloat16: it only acts */
    struct mlp part[MODEL_PARTS];
    struct pixel_net pixels; /* the encoder when dims.rgb */
    float *support; /* of two_hot */
} world_model_t;

/*
 * A model with zero parameters; `targets` tells whether it has target Qs (learner) or only acts.
 * Returns TD_OK, TD_EINVAL (sizes), TD_ENOMEM (how much was wanted).
 */
int world_model_create(world_model_t **out, const struct model_dims *dims, bool targets,
                       struct error *err);
/* As world_model_create for one that acts and keeps its parameters in half storage. */
int world_model_create_half(world_model_t **out, const struct model_dims *dims, struct error *err);
/* In half storage or not. */
int world_model_create_acting(world_model_t **out, const struct model_dims *dims, bool half, struct error *err);

/* The parameters of *model into half storage, and *model away. */
int world_model_halve(world_model_t **model, struct error *err);
void world_model_destroy(world_model_t **model);

/*
 * The parameters that act, as they are sent: bytes behind model->parameters, or of a model of these sizes with half
 * storage or not.
 */
size_t world_model_bytes(const world_model_t *model);
size_t model_snapshot_bytes(const struct model_layout *layout, bool half);

/* The tasks behind the embeddings, dims.num_tasks of them; needed before updates and plans. Copied. */
void world_model_set_tasks(world_model_t *model, const struct task_set *set);

/* The embeddings [num_tasks, task_dim] among parameters, gradients or moments. */
static inline float *model_embeddings(const struct model_layout *layout, float *memory)
{
    return memory + layout->part[MODEL_TASK];
}

/*
 * A row of the embeddings as every lookup in the reference leaves it: of an L2 norm above 1, rescaled by
 * 1 / (norm + 1e-7). Returns whether it was.
 */
bool embedding_renorm(float *row, int task_dim);

/*
 * Initialise as the reference does: Linear weights truncated normal 0.02, biases 0, LayerNorm 1 and
 * 0, last-layer weights of reward and Qs zero, targets a copy; convolutions' weights and biases uniform
 * within 1/sqrt(inputs of one output); task embeddings uniform within 0.02. Depends on the seed alone.
 */
void world_model_init(world_model_t *model, uint64_t seed);

/* target Qs = Qs. */
void world_model_copy_targets(world_model_t *model);

/* 1 when every parameter is finite. */
int world_model_finite(const world_model_t *model);

#endif
