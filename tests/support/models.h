/* models.h - small world models, batches and draws for tests. */
#ifndef TD_TEST_MODELS_H
#define TD_TEST_MODELS_H

#include "common/model/world_model.h"
#include "common/tensor/pool.h"
#include "learner/update.h"

/* Odd sizes wherever the model allows them. */
struct model_dims test_dims(bool episodic, float dropout);

/* The same of pixels, with two channels. */
struct model_dims test_pixel_dims(float dropout);

/* Three tasks with 3, 1 and 2 actions and embeddings of 5; test_model and test_batch know them. */
struct model_dims test_task_dims(float dropout);

/* A model with targets whose every tensor is random, last layers and targets too. */
world_model_t *test_model(const struct model_dims *dims, uint64_t seed);

/* Coefficients of the reference, this batch and horizon. */
struct update_config test_update_config(int batch, int horizon);

/* A random batch, pixels as [H+3] frames of each slice; free with test_batch_free. Some rows terminate when episodic. */
struct batch test_batch(const struct model_dims *dims, const struct update_config *config, uint64_t seed);
void test_batch_free(struct batch *batch);

/* The stream (seed, step); the draws borrow it. */
struct rng test_stream(uint64_t seed, uint64_t step);

#endif
