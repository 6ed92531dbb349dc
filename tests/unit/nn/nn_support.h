/* nn_support.h - layers with random parameters, and a loop over the instruction sets. */
#ifndef TD_TEST_NN_SUPPORT_H
#define TD_TEST_NN_SUPPORT_H

#include "common/nn/mlp.h"
#include "common/tensor/isa.h"
#include "tests/support/test.h"

/* Run the next statement on every path this machine has. */
#define ON_EVERY_PATH                                                                              \
    for (int path = 0; path < ISA_COUNT; path++)                                                   \
        if (isa_force((enum isa)path) == TD_OK)

static inline int back_to_best(void **state)
{
    (void)state;
    return isa_force(isa_best());
}

static inline void random_floats(float *out, size_t count, float scale)
{
    rng_normal(test_rng(), out, count);
    for (size_t i = 0; i < count; i++)
        out[i] *= scale;
}

/* A layer whose parameters lie in memory [out * in + 3 out], all random, gain around 1. */
static inline struct nn_layer random_layer(int in, int out, enum nn_activation activation, int group,
                                           float *memory)
{
    size_t weights = (size_t)in * (size_t)out;
    struct nn_layer layer = {
        .in = in,
        .out = out,
        .stride = (size_t)in,
        .activation = activation,
        .group = group,
        .weight = memory,
        .bias = memory + weights,
    };

    random_floats(memory, weights + 3 * (size_t)out, 0.5f);
    if (activation != NN_IDENTITY) {
        layer.gain = memory + weights + out;
        layer.shift = memory + weights + 2 * out;
        for (int i = 0; i < out; i++)
            memory[weights + (size_t)out + (size_t)i] += 1.0f;
    }
    return layer;
}

static inline size_t layer_floats(int in, int out)
{
    return (size_t)in * (size_t)out + 3 * (size_t)out;
}

/* The gradients of such a layer, laid out as random_layer's memory. */
static inline struct nn_layer_grad layer_grad(const struct nn_layer *layer, float *memory)
{
    size_t weights = (size_t)layer->in * (size_t)layer->out;

    return (struct nn_layer_grad){memory, memory + weights, memory + weights + layer->out,
                                  memory + weights + 2 * layer->out};
}

#endif
