#include "tests/support/test.h"

#include <math.h>

#include "common/ckpt/safetensors.h"
#include "common/model/world_model.h"

static struct model_dims dims_of(int size, bool episodic)
{
    struct model_dims dims;
    struct config config;
    struct error err;

    config_init(&config);
    config.model_size = size;
    config.episodic = episodic;
    assert_ok(model_dims_init(&dims, &config, 24, 6, &err), err);
    return dims;
}

static void parameter_counts_are_the_references(void **state)
{
    static const struct {
        int size;
        bool episodic;
        uint64_t parameters;
    } cases[] = {
        {1, false, 1214651},   {5, false, 4960618},    {0, false, 4960618},    {19, false, 18062442},
        {48, false, 47208298}, {317, false, 312595417}, {5, true, 5488491},
    };
    static struct model_layout layout;

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        struct model_dims dims = dims_of(cases[i].size, cases[i].episodic);

        model_layout_init(&layout, &dims);
        assert_int_equal(layout.parameters, cases[i].parameters);
    }
}

static struct model_dims pixel_dims(int channels)
{
    struct model_dims dims;
    struct config config;
    struct error err;

    config_init(&config);
    snprintf(config.obs, sizeof(config.obs), "rgb");
    config.num_channels = channels;
    config.latent_dim = 16 * channels;
    assert_ok(model_dims_init(&dims, &config, PIXEL_FRAME_BYTES, 6, &err), err);
    return dims;
}

static void pixels_are_counted(void **state)
{
    static struct model_layout layout;
    struct model_dims dims = pixel_dims(32);

    (void)state;
    model_layout_init(&layout, &dims);
    /* The encoder of states has 139,520 of 4,960,618. */
    assert_int_equal(layout.parameters, 4960618 - 139520 + 58272);
    assert_int_equal(layout.part[MODEL_DYNAMICS], 58272); /* every tensor is a multiple of 16 */
    dims.episodic = true;
    model_layout_init(&layout, &dims);
    assert_int_equal(layout.parameters, 5488491 - 139520 + 58272);
}

/* All that fit in memory here are really made; the largest in `make test-long`. */
static void every_size_can_be_made(void **state)
{
    static const int sizes[] = {1, 5, 19, 48, 317};

    (void)state;
    for (size_t i = 0; i < TD_LEN(sizes) - (test_long() ? 0 : 1); i++) {
        struct model_dims dims = dims_of(sizes[i], false);
        world_model_t *model;
        struct error err;

        assert_ok(world_model_create(&model, &dims, true, &err), err);
        assert_int_equal(mlp_out(&model->part[MODEL_Q]), 101);
        world_model_destroy(&model);
    }
}

/* Names and shapes are those of the official state dict. */
static void names_and_shapes_are_the_references(void **state)
{
    static const char *const paths[] = {"tests/golden/tiny-state.update.safetensors",
                                        "tests/golden/tiny-episodic.update.safetensors",
                                        "tests/golden/tiny-rgb.update.safetensors"};
    static struct model_layout layout;
    struct model_dims dims = {.obs_dim = 9, .action_dim = 3, .enc_dim = 32, .enc_layers = 2, .mlp_dim = 48,
                              .latent_dim = 64, .simnorm_dim = 8, .num_q = 5, .num_bins = 101};

    (void)state;
    for (int path = 0; path < 3; path++) {
        safetensors_t *file;
        struct error err;
        int found = 0;

        dims.episodic = path == 1;
        dims.rgb = path == 2;
        dims.num_channels = 8;
        dims.latent_dim = dims.rgb ? 128 : 64;
        model_layout_init(&layout, &dims);
        assert_ok(safetensors_open(&file, paths[path], &err), err);
        for (int i = 0; i < safetensors_count(file); i++) {
            const struct safetensors_tensor *theirs = safetensors_at(file, i);
            const struct model_tensor *ours;

            if (strncmp(theirs->name, "param.", 6) != 0 || strstr(theirs->name, "log_std") != NULL)
                continue;
            ours = model_layout_find(&layout, theirs->name + 6);
            assert_non_null(ours);
            assert_int_equal(ours->dims, theirs->dims);
            for (int d = 0; d < ours->dims; d++)
                assert_int_equal(ours->shape[d], theirs->shape[d]);
            found++;
        }
        assert_int_equal(found, layout.tensors);
        assert_null(model_layout_find(&layout, "_pi.3.weight"));
        safetensors_close(&file);
    }
}

/* Tensors follow each other without overlap; prefixes hold what they should. */
static void prefixes_hold_what_they_should(void **state)
{
    static struct model_layout layout;
    struct model_dims dims = dims_of(1, true);
    size_t end = 0;

    (void)state;
    model_layout_init(&layout, &dims);
    for (int i = 0; i < layout.tensors; i++) {
        const struct model_tensor *tensor = &layout.tensor[i];

        assert_true(tensor->offset >= end && tensor->offset < end + 16);
        assert_int_equal(tensor->offset % 16, 0);
        end = tensor->offset + tensor->count;
        assert_int_equal(tensor->offset < model_trained_floats(&layout),
                         tensor->part != MODEL_PI && tensor->part != MODEL_TARGET_Q);
        assert_int_equal(tensor->offset < model_acting_floats(&layout), tensor->part != MODEL_TARGET_Q);
    }
    assert_true(end <= model_all_floats(&layout));
}

static void initialisation_is_the_references(void **state)
{
    struct model_dims dims = dims_of(1, true);
    world_model_t *model, *same, *other;
    const struct model_layout *layout;
    struct error err;

    (void)state;
    assert_ok(world_model_create(&model, &dims, true, &err), err);
    assert_ok(world_model_create(&same, &dims, true, &err), err);
    assert_ok(world_model_create(&other, &dims, true, &err), err);
    layout = &model->layout;
    world_model_init(model, 7);
    world_model_init(same, 7);
    world_model_init(other, 8);
    assert_memory_equal(model->parameters, same->parameters, model_all_floats(layout) * sizeof(float));
    for (int i = 0; i < layout->tensors; i++) {
        const struct model_tensor *tensor = &layout->tensor[i];
        const float *x = model->parameters + tensor->offset;
        double mean = 0, square = 0, n = (double)tensor->count;
        bool norm = strstr(tensor->name, "ln.weight") != NULL;
        bool weight = !norm && strstr(tensor->name, "weight") != NULL;
        bool zero = strstr(tensor->name, "_reward.2") != NULL || strstr(tensor->name, "Qs.params.2") != NULL ||
                    strstr(tensor->name, "Qs_params.2") != NULL;

        for (size_t j = 0; j < tensor->count; j++) {
            mean += (double)x[j] / n;
            square += (double)x[j] * (double)x[j] / n;
        }
        if (weight && !zero) {
            assert_true(fabs(mean) < 5 * 0.02 / sqrt(n));
            assert_true(fabs(sqrt(square) - 0.02) < 5 * 0.02 / sqrt(2 * n));
            assert_true(memcmp(x, other->parameters + tensor->offset, tensor->count * sizeof(float)) != 0);
        } else {
            for (size_t j = 0; j < tensor->count; j++)
                assert_true(x[j] == (norm ? 1.0f : 0.0f));
        }
    }
    /* The heads differ, the targets are copies. */
    assert_true(model->part[MODEL_Q].layer[0].weight[0] !=
                model->part[MODEL_Q].layer[0].weight[384 * (128 + 6)]);
    assert_memory_equal(model->part[MODEL_Q].layer[0].weight, model->part[MODEL_TARGET_Q].layer[0].weight,
                        2 * 384 * (128 + 6) * sizeof(float));
    assert_true(world_model_finite(model));
    model->parameters[model_all_floats(layout) - 20] = NAN;
    assert_false(world_model_finite(model));
    world_model_destroy(&model);
    world_model_destroy(&same);
    world_model_destroy(&other);
}

/* PyTorch's default: uniform within 1/sqrt(inputs of one output), biases too. */
static void convolutions_begin_as_the_references(void **state)
{
    struct model_dims dims = pixel_dims(16);
    world_model_t *model;
    struct error err;

    (void)state;
    assert_ok(world_model_create(&model, &dims, true, &err), err);
    world_model_init(model, 7);
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        const struct conv *conv = &model->pixels.layer[l];
        double bound = 1 / sqrt(conv_depth(conv)), largest = 0, square = 0, bias = 0;
        int weights = conv_depth(conv) * conv->out;

        for (int i = 0; i < weights; i++) {
            if (fabs((double)conv->weight[i]) > largest) /* fmax here trips over a bug of gcc 12 for aarch64 */
                largest = fabs((double)conv->weight[i]);
            square += (double)conv->weight[i] * (double)conv->weight[i] / weights;
        }
        for (int i = 0; i < conv->out; i++)
            if (fabs((double)conv->bias[i]) > bias) /* fmax here trips over a bug of gcc 12 for aarch64 */
                bias = fabs((double)conv->bias[i]);
        assert_true(largest <= bound * 1.000001 && largest > 0.99 * bound);
        assert_true(fabs(sqrt(3 * square) - bound) < 0.05 * bound);
        assert_true(bias <= bound * 1.000001 && bias > 0.5 * bound);
    }
    world_model_destroy(&model);
}

static void impossible_sizes_are_refused(void **state)
{
    struct model_dims good = dims_of(1, false), bad;
    struct config config;
    struct error err;

    (void)state;
#define REFUSED(change, says)                                                                      \
    do {                                                                                           \
        bad = good;                                                                                \
        change;                                                                                    \
        assert_int_equal(model_dims_check(&bad, &err), TD_EINVAL);                                 \
        assert_non_null(strstr(err.text, says));                                                   \
    } while (0)
    REFUSED(bad.latent_dim = 100, "simnorm_dim");
    REFUSED(bad.num_q = 1, "num_q");
    REFUSED(bad.num_bins = 1, "num_bins");
    REFUSED(bad.vmax = bad.vmin, "vmin");
    REFUSED(bad.obs_dim = 0, "observations");
    REFUSED(bad.dropout = 1, "dropout");
    REFUSED(bad.dropout = NAN, "dropout");
    REFUSED(bad.enc_layers = 17, "num_enc_layers");
    REFUSED(bad.mlp_dim = 1 << 30, "mlp_dim, latent_dim, num_bins: at most");
    good = pixel_dims(32);
    REFUSED(bad.latent_dim = 128, "latent_dim=128 must be just that (512 with 32 channels)");
    REFUSED(bad.num_channels = 8, "16 x num_channels=8 values");
    REFUSED(bad.num_channels = 0, "num_channels");
    REFUSED(bad.obs_dim = 24, "64 x 64");
    REFUSED(bad.task_dim = 96, "task_dim=96");
    config_init(&config);
    config.model_size = 7;
    assert_int_equal(model_dims_init(&bad, &config, 24, 6, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "1, 5, 19, 48 or 317"));
}

static void derived_options_are_the_references(void **state)
{
    struct config config;

    (void)state;
    config_init(&config);
    assert_true(derive_discount(&config, 100) == 0.95);
    assert_true(derive_discount(&config, 500) == 0.99);
    assert_true(derive_discount(&config, 1000) == 0.995);
    assert_true(derive_discount(&config, 25) == 0.95);
    assert_true(derive_discount(&config, 100000) == 0.995);
    assert_int_equal(derive_iterations(&config, 19), 6);
    assert_int_equal(derive_iterations(&config, 20), 8);
    assert_int_equal(derive_seed_steps(&config, 500), 2500);
    assert_int_equal(derive_seed_steps(&config, 100), 1000);
    config.seed_steps = 33;
    assert_int_equal(derive_seed_steps(&config, 500), 33);
    config.steps = 5000;
    assert_int_equal(derive_capacity(&config), 5000);
    config.steps = 20000000;
    assert_int_equal(derive_capacity(&config), 1000000);
}

/* Small Linears stay float: of the reference's sizes no more than 1 % of what acts. */
static void half_storage_is_half(void **state)
{
    static const int sizes[] = {1, 5, 19, 48, 317};
    static struct model_layout layout;

    (void)state;
    for (size_t i = 0; i < TD_LEN(sizes); i++) {
        struct model_dims dims = dims_of(sizes[i], true);
        double share;

        model_layout_init(&layout, &dims);
        share = (double)model_half_bytes(&layout) / (double)(model_acting_floats(&layout) * sizeof(float));
        print_message("model_size=%d: %.3f\n", sizes[i], share);
        assert_true(share > 0.5 && share < 0.52);
    }
    assert_false(model_layout_find(&layout, "_encoder.state.0.weight") == NULL);
    assert_true(model_layout_find(&layout, "_dynamics.1.weight")->matrix && model_layout_find(&layout, "_Qs.params.2.weight")->matrix);
    assert_false(model_layout_find(&layout, "_pi.2.bias")->matrix || model_layout_find(&layout, "_termination.2.weight")->matrix);
}

/* Half storage made in parts of any length is the one made at once, and comes back as the nearest bfloat16s. */
static void half_storage_is_made_in_parts(void **state)
{
    struct model_dims dims = dims_of(1, true);
    const struct model_layout *layout;
    world_model_t *model;
    char *whole, *parts, *piece, edge[4];
    struct error err;
    size_t bytes;

    (void)state;
    assert_ok(world_model_create(&model, &dims, true, &err), err);
    world_model_init(model, 3);
    layout = &model->layout;
    bytes = model_half_bytes(layout);
    whole = malloc(bytes);
    parts = malloc(bytes);
    model_to_half(layout, model->parameters, whole);
    for (int round = 0; round < 3; round++) {
        test_poison(parts, bytes);
        for (size_t at = 0, length; at < bytes; at += length) {
            length = 4 * (1 + rng_below(test_rng(), round == 0 ? 300000 : 3000));
            length = length < bytes - at ? length : bytes - at;
            piece = malloc(length + 8);
            test_poison(piece, length + 8);
            memcpy(edge, piece, 4);
            model_to_half_part(layout, model->parameters, at, length, piece + 4);
            assert_memory_equal(piece, edge, 4); /* nothing beside it */
            memcpy(parts + at, piece + 4, length);
            free(piece);
        }
        assert_memory_equal(whole, parts, bytes);
    }
    model_from_half(layout, whole, model->parameters);
    model_to_half(layout, model->parameters, parts);
    assert_memory_equal(whole, parts, bytes); /* once rounded, nothing changes any more */
    free(whole);
    free(parts);
    world_model_destroy(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameter_counts_are_the_references),
        cmocka_unit_test(pixels_are_counted),
        cmocka_unit_test(every_size_can_be_made),
        cmocka_unit_test(names_and_shapes_are_the_references),
        cmocka_unit_test(prefixes_hold_what_they_should),
        cmocka_unit_test(initialisation_is_the_references),
        cmocka_unit_test(convolutions_begin_as_the_references),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(derived_options_are_the_references),
        cmocka_unit_test(half_storage_is_half),
        cmocka_unit_test(half_storage_is_made_in_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
