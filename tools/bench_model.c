#include "tools/bench_model.h"

#include <stdio.h>
#include <string.h>

#include "common/nn/init.h"
#include "common/util/memory.h"

static bool rgb(const struct bench_options *options)
{
    return strcmp(options->config.obs, "rgb") == 0;
}

int bench_obs(const struct bench_options *options)
{
    return rgb(options) ? PIXEL_FRAME_BYTES : BENCH_OBS;
}

int bench_each_size(const struct bench_options *options,
                    int (*run)(const struct bench_options *options, struct error *err),
                    struct error *err)
{
    static struct bench_options one;
    static const int sizes[] = {5, 1};
    int rc = TD_OK;

    if (options->config.model_size != 0)
        return run(options, err);
    /* A latent of size 1 takes 8 channels. */
    for (size_t i = 0; i < (rgb(options) ? 1 : TD_LEN(sizes)) && rc == TD_OK; i++) {
        one = *options;
        one.config.model_size = sizes[i];
        rc = run(&one, err);
    }
    return rc;
}

const char *bench_variant(const struct bench_options *options)
{
    static char text[80];

    snprintf(text, sizeof(text), "model_size=%lld%s%s", (long long)options->config.model_size,
             rgb(options) ? " obs=rgb" : "", derive_half(&options->config) ? " actor_dtype=bf16" : "");
    return text;
}

int bench_dims(const struct bench_options *options, struct model_dims *dims, struct error *err)
{
    return model_dims_init(dims, &options->config, bench_obs(options), BENCH_ACTION, err);
}

double bench_resident_mib(bool most)
{
    const char *name = most ? "VmHWM:" : "VmRSS:";
    char line[256];
    double kib = 0;
    FILE *file = fopen("/proc/self/status", "re");

    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), "%lf", &kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return kib / 1024;
}

int bench_plan_memory(const struct bench_options *options, const char *what, const struct bench_memory *memory, int count,
                      struct error *err)
{
    FILE *out = options->json ? stderr : stdout;
    size_t total = 0;

    fprintf(out, "memory   %s:", bench_variant(options));
    for (int i = 0; i < count; i++) {
        fprintf(out, "%s %s %.1f", i > 0 ? "," : "", memory[i].what, (double)memory[i].bytes / (1 << 20));
        total += memory[i].bytes;
    }
    fprintf(out, "; in all %.1f MiB, of which there are %.1f MiB\n", (double)total / (1 << 20),
            (double)memory_available() / (1 << 20));
    fflush(out);
    return memory_check(total, what, "choose a smaller model_size or batch_size", err);
}

int bench_model(const struct bench_options *options, bool targets, world_model_t **out,
                struct error *err)
{
    struct rng_key key = {.seed = 1, .purpose = RNG_TEST};
    const struct model_layout *layout;
    struct model_dims dims;
    struct rng rng;
    int rc;

    if ((rc = bench_dims(options, &dims, err)) || (rc = world_model_create(out, &dims, targets, err)))
        return rc;
    world_model_init(*out, 1);
    /* Zeros would give every candidate the same value. */
    layout = &(*out)->layout;
    rng_init(&rng, &key);
    for (int i = 0; i < layout->tensors; i++)
        if (layout->tensor[i].dims >= 2 && layout->tensor[i].part < MODEL_TARGET_Q)
            init_truncated_normal(&rng, (*out)->parameters + layout->tensor[i].offset,
                                  layout->tensor[i].count, 0.02f);
    if (targets)
        world_model_copy_targets(*out);
    return TD_OK;
}

static double count(const struct mlp *mlp)
{
    double sum = 0;

    for (int i = 0; i < mlp->layers; i++)
        sum += (double)mlp->layer[i].in * mlp->layer[i].out;
    return sum;
}

void bench_weights(struct bench_weights *weights, const world_model_t *model)
{
    const struct model_dims *dims = &model->layout.dims;

    *weights = (struct bench_weights){
        .encoder = count(&model->part[MODEL_ENCODER]),
        .dynamics = count(&model->part[MODEL_DYNAMICS]),
        .reward = count(&model->part[MODEL_REWARD]),
        .pi = count(&model->part[MODEL_PI]),
        .q = count(&model->part[MODEL_Q]),
        .termination = count(&model->part[MODEL_TERMINATION]),
        .shared = (double)dims->latent_dim * dims->mlp_dim,
    };
    weights->encoder_trained = 3 * weights->encoder;
    if (dims->rgb) {
        weights->encoder = pixel_forward_products(&model->pixels);
        weights->encoder_trained = weights->encoder + pixel_backward_products(&model->pixels);
    }
}
