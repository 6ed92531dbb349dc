/* bench_model.h - the models that bench plan and bench update measure, and how much work they take. */
#ifndef TD_TOOLS_BENCH_MODEL_H
#define TD_TOOLS_BENCH_MODEL_H

#include "common/model/world_model.h"
#include "tools/bench.h"

#define BENCH_OBS     24 /* walker */
#define BENCH_ACTION  6
#define BENCH_EPISODE 500

/*
 * Weights of the matrix products of each part, without biases: multiply-adds of one row. The pixel
 * encoder's are the convolutions' (weights times pixels of the output; shifting and scaling not counted),
 * 16.7 million with 32 channels.
 */
struct bench_weights {
    double encoder, dynamics, reward, pi, q, termination;
    double encoder_trained; /* forward and backward: 3 times; pixels: without the first layer's input gradient */
    double shared; /* latent x mlp: what all candidates of the first step have in common */
};

/*
 * Call run(options with this model_size) for the size given, or for 5 and 1 when none was (pixels: 5).
 */
int bench_each_size(const struct bench_options *options,
                    int (*run)(const struct bench_options *options, struct error *err),
                    struct error *err);

/* "model_size=5", "model_size=5 obs=rgb" */
const char *bench_variant(const struct bench_options *options);

/* Floats of a state, or bytes of a frame. */
int bench_obs(const struct bench_options *options);

/* The sizes of that model. */
int bench_dims(const struct bench_options *options, struct model_dims *dims, struct error *err);

/* What some memory is for. */
struct bench_memory {
    const char *what;
    size_t bytes;
};

/*
 * Print what will be taken (beside results in JSON: to stderr). TD_OK, or TD_EINVAL when the machine has less, with
 * what is needed.
 */
int bench_plan_memory(const struct bench_options *options, const char *what, const struct bench_memory *memory, int count,
                      struct error *err);

/* What this process has in memory, MiB, or the most that it has had. */
double bench_resident_mib(bool most);

/* A model of the options' size, randomly initialised, its last layers too. */
int bench_model(const struct bench_options *options, bool targets, world_model_t **out,
                struct error *err);

void bench_weights(struct bench_weights *weights, const world_model_t *model);

#endif
