/* update_fixture.h - everything that one update needs, and a copy of the parameters to go back to. */
#ifndef TD_TESTS_UPDATE_FIXTURE_H
#define TD_TESTS_UPDATE_FIXTURE_H

#include "learner/update.h"
#include "tests/support/models.h"

struct fixture {
    struct model_dims dims;
    struct update_config config;
    world_model_t *model;
    float *kept; /* the parameters as they were when last kept */
    update_t *update;
    pool_t *pool;
    struct batch batch;
};

/* Model, batch and update of these sizes; the parameters are kept. Undone by close_fixture. */
void open_fixture(struct fixture *f, struct model_dims dims, struct update_config config, int threads);
void close_fixture(struct fixture *f);

/* Copies the parameters as they are now to `kept`, and back. */
void keep_parameters(struct fixture *f);
void restore_parameters(struct fixture *f);

/* One update with the draws of this number; as update_step. */
int step_fixture(struct fixture *f, uint64_t number, struct update_stats *stats);

#endif
