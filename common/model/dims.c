#include "common/model/dims.h"

#include <math.h>
#include <string.h>

#include "common/model/task_set.h"
#include "common/nn/layer.h"
#include "common/nn/pixels.h"

#define INPUTS_MAX   65536 /* observations; everything else is some layer's output */
#define TASK_DIM_MAX 4096

struct model_size {
    int size, enc_dim, mlp_dim, latent_dim, enc_layers, num_q; /* num_q 0: the option's */
};

static const struct model_size sizes[] = {
    {1, 256, 384, 128, 2, 2},         {5, 256, 512, 512, 2, 0},
    {19, 1024, 1024, 768, 3, 0},      {48, 1792, 1792, 768, 4, 0},
    {317, 4096, 4096, 1376, 5, 8},
};

int model_dims_check(const struct model_dims *dims, struct error *err)
{
    if (dims->obs_dim < 1 || dims->action_dim < 1)
        return error_set(err, TD_EINVAL, "a model needs observations and actions, got %d and %d values",
                         dims->obs_dim, dims->action_dim);
    if (dims->enc_dim < 1 || dims->mlp_dim < 1 || dims->latent_dim < 1 || dims->enc_layers < 1)
        return error_set(err, TD_EINVAL, "enc_dim %d, mlp_dim %d, latent_dim %d and num_enc_layers %d "
                                         "must be positive",
                         dims->enc_dim, dims->mlp_dim, dims->latent_dim, dims->enc_layers);
    if (dims->obs_dim > INPUTS_MAX)
        return error_set(err, TD_EINVAL, "observations of %d values: at most %d", dims->obs_dim, INPUTS_MAX);
    if (dims->action_dim > NN_DIM_MAX / 2 || dims->enc_dim > NN_DIM_MAX || dims->mlp_dim > NN_DIM_MAX ||
        dims->latent_dim > NN_DIM_MAX || dims->num_bins > NN_DIM_MAX || dims->num_q > 64)
        return error_set(err, TD_EINVAL,
                         "enc_dim, mlp_dim, latent_dim, num_bins: at most %d; num_q: at most 64", NN_DIM_MAX);
    if (dims->enc_layers > 16)
        return error_set(err, TD_EINVAL, "num_enc_layers=%d: at most 16", dims->enc_layers);
    if (dims->num_tasks < 0 || dims->num_tasks > TASKS_MAX || dims->task_dim < 0 || dims->task_dim > TASK_DIM_MAX ||
        (dims->num_tasks == 0) != (dims->task_dim == 0))
        return error_set(err, TD_EINVAL, "%d tasks with embeddings of task_dim=%d values: up to %d tasks and %d values, "
                                         "or none of both", dims->num_tasks, dims->task_dim, TASKS_MAX, TASK_DIM_MAX);
    if (dims->num_tasks > 0 && dims->episodic)
        return error_set(err, TD_EINVAL, "episodic=true: terminations are not learned for several tasks together");
    if (dims->rgb && dims->num_tasks > 0)
        return error_set(err, TD_EINVAL, "obs=rgb: several tasks are learned together from states only");
    if (dims->rgb && dims->obs_dim != PIXEL_FRAME_BYTES)
        return error_set(err, TD_EINVAL, "obs=rgb: frames are 3 x 64 x 64 = %d bytes, not %d", PIXEL_FRAME_BYTES,
                         dims->obs_dim);
    if (dims->rgb && (dims->num_channels < 1 || dims->latent_dim != PIXEL_CELLS * dims->num_channels))
        return error_set(err, TD_EINVAL, "obs=rgb: the convolutions give 16 x num_channels=%d values, "
                                         "latent_dim=%d must be just that (512 with 32 channels)",
                         dims->num_channels, dims->latent_dim);
    if (dims->simnorm_dim < 1 || dims->latent_dim % dims->simnorm_dim != 0)
        return error_set(err, TD_EINVAL, "latent_dim=%d is not a multiple of simnorm_dim=%d",
                         dims->latent_dim, dims->simnorm_dim);
    if (dims->num_q < 2)
        return error_set(err, TD_EINVAL, "num_q=%d: targets need two Q networks", dims->num_q);
    if (dims->num_bins < 2 || !(dims->vmin < dims->vmax))
        return error_set(err, TD_EINVAL, "num_bins=%d, vmin=%g, vmax=%g: at least 2 bins from vmin up "
                                         "to vmax are needed",
                         dims->num_bins, (double)dims->vmin, (double)dims->vmax);
    if (!(dims->log_std_min <= dims->log_std_max))
        return error_set(err, TD_EINVAL, "log_std_min=%g is above log_std_max=%g",
                         (double)dims->log_std_min, (double)dims->log_std_max);
    if (!(dims->dropout >= 0 && dims->dropout < 1))
        return error_set(err, TD_EINVAL, "dropout=%g is not in [0, 1)", (double)dims->dropout);
    return TD_OK;
}

/* Sizes from the options, not yet checked. */
static int take_options(struct model_dims *dims, const struct config *config, int obs_dim, int action_dim,
                        struct error *err)
{
    *dims = (struct model_dims){
        .obs_dim = obs_dim,
        .action_dim = action_dim,
        .rgb = strcmp(config->obs, "rgb") == 0,
        .num_channels = (int)config->num_channels,
        .enc_dim = (int)config->enc_dim,
        .enc_layers = (int)config->num_enc_layers,
        .mlp_dim = (int)config->mlp_dim,
        .latent_dim = (int)config->latent_dim,
        .simnorm_dim = (int)config->simnorm_dim,
        .num_q = (int)config->num_q,
        .num_bins = (int)config->num_bins,
        .episodic = config->episodic,
        .dropout = (float)config->dropout,
        .vmin = (float)config->vmin,
        .vmax = (float)config->vmax,
        .log_std_min = (float)config->log_std_min,
        .log_std_max = (float)config->log_std_max,
    };
    for (size_t i = 0; config->model_size != 0; i++) {
        if (i == TD_LEN(sizes))
            return error_set(err, TD_EINVAL, "model_size=%lld: choose 1, 5, 19, 48 or 317",
                             (long long)config->model_size);
        if (sizes[i].size != config->model_size)
            continue;
        dims->enc_dim = sizes[i].enc_dim;
        dims->mlp_dim = sizes[i].mlp_dim;
        dims->latent_dim = sizes[i].latent_dim;
        dims->enc_layers = sizes[i].enc_layers;
        if (sizes[i].num_q != 0)
            dims->num_q = sizes[i].num_q;
        break;
    }
    return TD_OK;
}

int model_dims_init(struct model_dims *dims, const struct config *config, int obs_dim, int action_dim,
                    struct error *err)
{
    int rc = take_options(dims, config, obs_dim, action_dim, err);

    return rc != TD_OK ? rc : model_dims_check(dims, err);
}

int model_dims_init_tasks(struct model_dims *dims, const struct config *config, const struct task_set *set,
                          struct error *err)
{
    bool mt30 = strcmp(config->tasks[0] != '\0' ? config->tasks : config->task, "mt30") == 0;
    bool narrow = mt30 && config->model_size != 1 && config->model_size != 317;
    int rc = take_options(dims, config, set->obs_dim, set->action_dim, err);

    if (rc != TD_OK)
        return rc;
    if (set->multitask) {
        dims->num_tasks = set->count;
        dims->task_dim = config->task_dim > 0 ? (int)config->task_dim : narrow ? 64 : 96;
        if (mt30 && config->model_size == 19)
            dims->latent_dim = 512;
    }
    return model_dims_check(dims, err);
}

double derive_discount(const struct config *config, uint64_t episode_length)
{
    double discount = 1.0 - config->discount_denom / (double)episode_length;

    return fmin(fmax(discount, config->discount_min), config->discount_max);
}

bool derive_half(const struct config *config)
{
    return strcmp(config->actor_dtype, "bf16") == 0;
}

int derive_iterations(const struct config *config, int action_dim)
{
    return (int)config->iterations + (action_dim >= 20 ? 2 : 0);
}

uint64_t derive_seed_steps(const struct config *config, uint64_t episode_length)
{
    if (config->seed_steps > 0)
        return (uint64_t)config->seed_steps;
    return 5 * episode_length > 1000 ? 5 * episode_length : 1000;
}

uint64_t derive_capacity(const struct config *config)
{
    return (uint64_t)(config->buffer_size < config->steps ? config->buffer_size : config->steps);
}
