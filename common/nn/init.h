/*
 * init.h - the reference's parameter initialisation (`init.py`).
 */
#ifndef TD_NN_INIT_H
#define TD_NN_INIT_H

#include <stddef.h>

#include "common/util/rng.h"

/* Normal with mean 0 and this deviation, drawn again while outside [-2, 2] (Linear weights: 0.02). */
void init_truncated_normal(struct rng *rng, float *out, size_t count, float deviation);

/* All elements `value` (biases 0, LayerNorm gain 1). */
void init_constant(float *out, size_t count, float value);

#endif
