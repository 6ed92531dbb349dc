/*
 * mlp.h - chains of layers: NormedLinear ..., the last one may be a plain Linear.
 *
 * Acting:   mlp_forward, one thread, any number of rows.
 * Training: rows are cut into tiles of MLP_TILE rows; the steps of an update are independent tasks
 *           for pool_run, each named by a number, so results do not depend on the thread count:
 *
 *             mlp_tape_forward(tile)       all layers of one tile
 *             mlp_tape_backward(tile)      down through all layers of one tile, to dx
 *             mlp_tape_gradient(part)      a block of one layer's parameter gradient, over all rows
 *
 *           All tiles' backward come before the first gradient part. Policy losses that go through
 *           a frozen net simply leave the last step out.
 *
 * An ensemble (the Q heads) is the same chain with parameters stacked on a leading axis; mlp_head
 * makes the view of one member.
 */
#ifndef TD_NN_MLP_H
#define TD_NN_MLP_H

#include <stdbool.h>

#include "common/nn/layer.h"
#include "common/util/arena.h"

#define MLP_LAYERS_MAX 16
#define MLP_ACT_TILE 256 /* rows at a time in mlp_forward */
#define MLP_TILE 128     /* rows at a time in training */

struct mlp {
    int layers;
    struct nn_layer layer[MLP_LAYERS_MAX];
};

struct mlp_grad {
    struct nn_layer_grad layer[MLP_LAYERS_MAX];
};

static inline int mlp_in(const struct mlp *mlp)
{
    return mlp->layer[0].in;
}

static inline int mlp_out(const struct mlp *mlp)
{
    return mlp->layer[mlp->layers - 1].out;
}

/* Member `head` of an ensemble: every parameter moved on by head times its size. */
void mlp_head(struct mlp *out, const struct mlp *ensemble, int head);
void mlp_head_grad(struct mlp_grad *out, const struct mlp_grad *grad, const struct mlp *ensemble,
                   int head);

/*
 * The chain for rows whose first `count` inputs are all equal to x: out takes only the remaining
 * in - count inputs, the shared product is added to its first bias.
 *
 *   bias  [layer[0].out]  out  memory for that bias; lives as long as `out`
 */
void mlp_share(struct mlp *out, const struct mlp *mlp, const float *x, int count, float *bias);

/*
 * Packed copies of a chain's weights. Every product packs its weights on the way; where many products
 * follow with the same weights (a plan, an update) it pays to do it once:
 *
 *   mlp_panels_init    lay out memory                     once
 *   mlp_panels_pack    copy, a list of tasks              whenever weights have changed
 *   mlp_panels_use     let a view of the chain use them
 *
 * Results have the same bits with and without. `what` says which copies; those not made are packed
 * on the way as ever.
 */
enum mlp_pack {
    MLP_PACK_FORWARD = 1,  /* for forward passes */
    MLP_PACK_BACKWARD = 2, /* for gradients between layers */
    MLP_PACK_INPUT = 4,    /* for the gradient at the chain's input */
    MLP_PACK_HALF = 8,     /* as FORWARD, of weights stored as bfloat16 stored so */
};

struct mlp_panels {
    int heads;                        /* members of the ensemble, 1 for a single chain */
    float *forward[MLP_LAYERS_MAX];   /* [heads, packed weight] or NULL */
    float *backward[MLP_LAYERS_MAX];
    uint16_t *half[MLP_LAYERS_MAX];
};

void mlp_panels_init(struct mlp_panels *panels, const struct mlp *mlp, int heads, int what,
                     struct arena *arena);
int mlp_panels_tasks(const struct mlp_panels *panels, const struct mlp *mlp);
void mlp_panels_pack(const struct mlp_panels *panels, const struct mlp *mlp, int task);

/* Call before mlp_head; isa_force between packing and use is an error. */
void mlp_panels_use(struct mlp *mlp, const struct mlp_panels *panels);

/* Floats of scratch that mlp_forward and mlp_tape_backward need, one per worker. */
size_t mlp_scratch(const struct mlp *mlp);

/*
 * y [rows, out] = mlp(x [rows, in]) in evaluation mode, MLP_ACT_TILE rows at a time. y may lie in
 * the same rows as x when it starts after it or when it is exactly x's place (written last).
 */
void mlp_forward(const struct mlp *mlp, const float *x, size_t ldx, int rows, float *y, size_t ldy,
                 float *scratch);

/* What forward leaves for backward. */
struct mlp_tape {
    int groups, group_rows; /* tiles never straddle two groups (time steps) */
    int group_tiles;
    const float *x; /* [groups * group_rows, in] */
    size_t ldx;
    float *y; /* [groups * group_rows, out] */
    size_t ldy;
    struct {
        float *normal;       /* [rows, out] */
        float *rstd;         /* [rows] */
        float *y;            /* [rows, out] of hidden layers */
        float *column;       /* [tiles, 3, out] */
        const uint8_t *mask; /* [rows, out] or NULL */
    } layer[MLP_LAYERS_MAX];
};

/*
 * Lay the tape out for groups x group_rows rows (time step major), memory from the arena (measure
 * first, see arena.h).
 */
void mlp_tape_init(struct mlp_tape *tape, const struct mlp *mlp, int groups, int group_rows,
                   struct arena *arena);

/* The rows to read and write from now on. Borrowed until the gradient is done. */
void mlp_tape_bind(struct mlp_tape *tape, const float *x, size_t ldx, float *y, size_t ldy);

/* Use this dropout mask in this layer [rows, out], 1 = kept; NULL = evaluation mode. */
void mlp_tape_mask(struct mlp_tape *tape, int layer, const uint8_t *mask);

/* Tiles in all and of one group; group g's are g*group_tiles .. (g+1)*group_tiles-1. */
int mlp_tape_tiles(const struct mlp_tape *tape);

/* The first row of a tile; returns how many rows it has. */
int mlp_tape_span(const struct mlp_tape *tape, int tile, int *row);

/* y rows of this tile from x rows of this tile. */
void mlp_tape_forward(struct mlp_tape *tape, const struct mlp *mlp, int tile);

/*
 * From the gradient at y to the gradient at x, for one tile. Once per forward.
 *
 *   dy  [rows, out]  in   whole array, lddy; stays untouched until the gradient is done
 *   dx  [rows, in]   out  whole array, lddx; columns from .. in-1 are overwritten, or added to when
 *                         `add`; NULL = not wanted
 */
void mlp_tape_backward(struct mlp_tape *tape, const struct mlp *mlp, int tile, const float *dy,
                       size_t lddy, float *dx, size_t lddx, int from, bool add, float *scratch);

/* Number of gradient parts; part by part they add the whole gradient to `grad`. dy as above. */
int mlp_gradient_parts(const struct mlp *mlp);
void mlp_tape_gradient(const struct mlp_tape *tape, const struct mlp *mlp, const float *dy,
                       size_t lddy, const struct mlp_grad *grad, int part);

#endif
