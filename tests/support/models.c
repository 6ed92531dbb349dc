#include "tests/support/models.h"

#include <math.h>

#include "tests/support/test.h"

struct model_dims test_dims(bool episodic, float dropout)
{
    return (struct model_dims){
        .obs_dim = 7, .action_dim = 3, .enc_dim = 13, .enc_layers = 3, .mlp_dim = 21, .latent_dim = 24,
        .simnorm_dim = 8, .num_q = 3, .num_bins = 31, .episodic = episodic, .dropout = dropout,
        .vmin = -10, .vmax = 10, .log_std_min = -10, .log_std_max = 2,
    };
}

struct model_dims test_pixel_dims(float dropout)
{
    struct model_dims dims = test_dims(false, dropout);

    dims.rgb = true;
    dims.obs_dim = PIXEL_FRAME_BYTES;
    dims.num_channels = 2;
    dims.latent_dim = 2 * PIXEL_CELLS;
    return dims;
}

struct model_dims test_task_dims(float dropout)
{
    struct model_dims dims = test_dims(false, dropout);

    dims.num_tasks = 3;
    dims.task_dim = 5;
    return dims;
}

static void set_tasks(world_model_t *model)
{
    static const int actions[] = {3, 1, 2};
    static const double discounts[] = {0.99, 0.9, 0.95};
    struct task task[3] = {{.name = ""}};
    struct task_set set = {.count = 3, .task = task, .obs_dim = 7, .action_dim = 3, .multitask = true};

    for (int i = 0; i < 3; i++) {
        task[i].action_dim = actions[i];
        task[i].discount = discounts[i];
    }
    world_model_set_tasks(model, &set);
}

world_model_t *test_model(const struct model_dims *dims, uint64_t seed)
{
    struct rng rng = test_stream(seed, 0);
    world_model_t *model;
    struct error err;

    assert_ok(world_model_create(&model, dims, true, &err), err);
    world_model_init(model, seed);
    set_tasks(model);
    for (int i = 0; i < model->layout.tensors; i++) {
        const struct model_tensor *tensor = &model->layout.tensor[i];
        float *x = model->parameters + tensor->offset;
        float spread = tensor->dims >= 2 && strstr(tensor->name, ".ln.") == NULL ? 0.3f : 0.1f;
        float centre = strstr(tensor->name, "ln.weight") != NULL ? 1.0f : 0.0f;

        if (tensor->dims == 4) /* convolutions, or SimNorm saturates */
            spread = 1.0f / sqrtf((float)(tensor->count / tensor->shape[0]));
        for (size_t j = 0; j < tensor->count; j++) {
            rng_normal(&rng, &x[j], 1);
            x[j] = centre + spread * x[j];
        }
    }
    return model;
}

struct update_config test_update_config(int batch, int horizon)
{
    return (struct update_config){
        .batch_size = batch, .horizon = horizon, .consistency_coef = 20, .reward_coef = 0.1,
        .value_coef = 0.1, .termination_coef = 1, .entropy_coef = 1e-4, .rho = 0.5, .discount = 0.99,
        .lr = 3e-4, .enc_lr_scale = 0.3, .grad_clip_norm = 20, .tau = 0.01,
        .lr_scale = {1, 1, 1, 1, 1, 1, 1},
    };
}

struct batch test_batch(const struct model_dims *dims, const struct update_config *config, uint64_t seed)
{
    size_t rows = (size_t)config->horizon * (size_t)config->batch_size;
    size_t obs = dims->rgb ? 0 : (rows + (size_t)config->batch_size) * (size_t)dims->obs_dim;
    size_t bytes = dims->rgb ? (rows + 3 * (size_t)config->batch_size) * PIXEL_FRAME_BYTES : 0;
    size_t action = rows * (size_t)dims->action_dim;
    struct rng rng = test_stream(seed, 1);
    float *data = malloc((obs + action + 2 * rows) * sizeof(float) + bytes +
                         (size_t)config->batch_size * sizeof(uint32_t));
    uint32_t *task = (uint32_t *)(void *)((char *)(data + obs + action + 2 * rows) + bytes);
    uint8_t *frames = (uint8_t *)(data + obs + action + 2 * rows);

    assert_non_null(data);
    for (size_t i = 0; i < bytes; i++)
        frames[i] = (uint8_t)rng_below(&rng, 256);
    rng_normal(&rng, data, obs);
    rng_uniform(&rng, data + obs, action, -1, 1);
    rng_normal(&rng, data + obs + action, rows);
    for (size_t i = 0; i < rows; i++)
        data[obs + action + rows + i] = dims->episodic && rng_below(&rng, 4) == 0;
    for (int i = 0; i < config->batch_size; i++)
        task[i] = dims->num_tasks > 0 ? rng_below(&rng, (uint32_t)dims->num_tasks) : 0;
    return (struct batch){.obs = data,
                          .task = task,
                          .action = data + obs,
                          .reward = data + obs + action,
                          .terminated = data + obs + action + rows,
                          .frames = dims->rgb ? frames : NULL,
                          .frame_step = 1};
}

void test_batch_free(struct batch *batch)
{
    free((void *)(uintptr_t)batch->obs);
    *batch = (struct batch){0};
}

struct rng test_stream(uint64_t seed, uint64_t step)
{
    struct rng_key key = {.seed = seed, .purpose = RNG_TEST, .step = step};
    struct rng rng;

    rng_init(&rng, &key);
    return rng;
}
