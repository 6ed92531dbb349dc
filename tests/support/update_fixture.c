#include "tests/support/update_fixture.h"

#include "tests/support/test.h"

static size_t parameter_bytes(const struct fixture *f)
{
    return model_all_floats(&f->model->layout) * sizeof(float);
}

void keep_parameters(struct fixture *f)
{
    memcpy(f->kept, f->model->parameters, parameter_bytes(f));
}

void restore_parameters(struct fixture *f)
{
    memcpy(f->model->parameters, f->kept, parameter_bytes(f));
}

void open_fixture(struct fixture *f, struct model_dims dims, struct update_config config, int threads)
{
    struct error err;

    *f = (struct fixture){.dims = dims, .config = config};
    f->model = test_model(&f->dims, 5);
    f->kept = malloc(parameter_bytes(f));
    assert_non_null(f->kept);
    keep_parameters(f);
    f->batch = test_batch(&f->dims, &f->config, 9);
    assert_ok(pool_create(&f->pool, threads, &err), err);
    assert_ok(update_create(&f->update, f->model, &f->config, f->pool, &err), err);
}

void close_fixture(struct fixture *f)
{
    update_destroy(&f->update);
    pool_destroy(&f->pool);
    world_model_destroy(&f->model);
    test_batch_free(&f->batch);
    free(f->kept);
}

int step_fixture(struct fixture *f, uint64_t number, struct update_stats *stats)
{
    struct rng rng = test_stream(3, number);
    struct update_draws draws = update_draws_rng(&rng);

    return update_step(f->update, &f->batch, &draws, stats);
}
