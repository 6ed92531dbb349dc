#include "common/nn/pixels.h"

#include <math.h>

#include "common/nn/conv_kernels.h"
#include "tests/unit/nn/nn_support.h"

#define CHANNELS 3
#define FEATURES (CHANNELS * PIXEL_CELLS)

static uint8_t frames[PIXEL_FRAMES][PIXEL_FRAME_BYTES];

/* The encoder with everything it needs, in one arena. */
struct fixture {
    struct arena arena;
    struct pixel_net net;
    struct pixel_panels panels;
    struct pixel_scratch scratch;
    struct pixel_net_grad grad;
    float *weight[PIXEL_LAYERS], *bias[PIXEL_LAYERS], *tape, *partials;
    struct pixel_obs obs;
    float z[FEATURES], dz[FEATURES];
};

static void lay_out(struct fixture *f, struct arena *arena)
{
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        size_t weights = (size_t)(conv_depth(&f->net.layer[l]) * CHANNELS);

        f->net.layer[l].weight = f->weight[l] = arena_floats(arena, weights);
        f->net.layer[l].bias = f->bias[l] = arena_floats(arena, CHANNELS);
        f->grad.weight[l] = arena_floats(arena, weights);
        f->grad.bias[l] = arena_floats(arena, CHANNELS);
    }
    pixel_panels_init(&f->panels, &f->net, true, arena);
    pixel_scratch_init(&f->scratch, &f->net, true, arena);
    f->tape = arena_floats(arena, pixel_tape_floats(&f->net));
    f->partials = arena_floats(arena, 2 * pixel_partial_floats(&f->net));
}

static void pack(struct fixture *f)
{
    for (int l = 0; l < PIXEL_LAYERS; l++)
        pixel_panels_pack(&f->panels, &f->net, l);
}

static struct fixture *open_fixture(void)
{
    static struct fixture f;
    struct arena measure;

    pixel_net_init(&f.net, CHANNELS, 8);
    arena_measure(&measure);
    lay_out(&f, &measure);
    assert_int_equal(arena_init(&f.arena, measure.used), TD_OK);
    lay_out(&f, &f.arena);
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        int depth = conv_depth(&f.net.layer[l]);

        random_floats(f.weight[l], (size_t)(depth * CHANNELS), 2.0f / sqrtf((float)depth));
        random_floats(f.bias[l], CHANNELS, 0.1f);
    }
    for (int k = 0; k < PIXEL_FRAMES; k++)
        for (int i = 0; i < PIXEL_FRAME_BYTES; i++)
            frames[k][i] = (uint8_t)rng_below(test_rng(), 256);
    f.obs = (struct pixel_obs){{frames[0], frames[1], frames[2]}, 2, 5};
    random_floats(f.dz, FEATURES, 1);
    pack(&f);
    return &f;
}

static void close_fixture(struct fixture *f)
{
    arena_release(&f->arena);
}

/* --- shift ------------------------------------------------------------------------------------- */

/* A byte of the padded image. */
static double padded(const uint8_t *plane, int row, int column)
{
    row = row < 3 ? 0 : row > 66 ? 63 : row - 3;
    column = column < 3 ? 0 : column > 66 ? 63 : column - 3;
    return (double)plane[row * 64 + column];
}

/* Every crop is the exact one within a few thousandths of a grey level, and not quite: by sampling. */
static void every_crop_is_nearly_exact(void **state)
{
    struct fixture *f = open_fixture();
    double worst;

    (void)state;
    ON_EVERY_PATH
    {
        worst = 0;
        pack(f);
        for (int shift = 0; shift < PIXEL_SHIFTS * PIXEL_SHIFTS; shift++) {
            f->obs.column = shift % PIXEL_SHIFTS;
            f->obs.row = shift / PIXEL_SHIFTS;
            test_poison(f->scratch.image, PIXEL_PLANES * 64 * 64 * sizeof(float));
            pixel_forward(&f->net, &f->panels, &f->obs, &f->scratch, NULL, f->z);
            for (int plane = 0; plane < PIXEL_PLANES; plane++)
                for (int i = 0; i < 64 * 64; i++) {
                    double exact = padded(frames[plane / 3] + plane % 3 * 4096, i / 64 + f->obs.row, i % 64 + f->obs.column);
                    double ours = (double)f->scratch.image[(i / 64 * PIXEL_PLANES + plane) * 64 + i % 64];
                    double off = fabs((ours + 0.5) * 255 - exact);

                    assert_true(off < 4e-3); /* NaN fails */
                    worst = fmax(worst, off);
                }
        }
        assert_true(worst > 2e-4);
    }
    close_fixture(f);
}

static void shifts_are_uniform(void **state)
{
    int seen[PIXEL_SHIFTS] = {0};
    float draws[7000];

    (void)state;
    pixels_draw_shifts(test_rng(), draws, TD_LEN(draws));
    for (size_t i = 0; i < TD_LEN(draws); i++) {
        assert_true(draws[i] == floorf(draws[i]) && draws[i] >= 0 && draws[i] < PIXEL_SHIFTS);
        seen[(int)draws[i]]++;
    }
    for (int i = 0; i < PIXEL_SHIFTS; i++)
        assert_in_range(seen[i], 1000 - 150, 1000 + 150);
}

/* --- the chain --------------------------------------------------------------------------------- */

static void counts_are_the_references(void **state)
{
    struct pixel_net net;
    int parameters = 0, sides[] = {29, 13, 6, 4};

    (void)state;
    pixel_net_init(&net, 32, 8);
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        parameters += (conv_depth(&net.layer[l]) + 1) * 32;
        assert_int_equal(conv_out_side(&net.layer[l]), sides[l]);
    }
    assert_int_equal(parameters, 58272);
    assert_true(pixel_forward_products(&net) == 841.0 * 32 * 441 + 169.0 * 32 * 800 + 36.0 * 32 * 288 + 16.0 * 32 * 288);
    assert_true(pixel_backward_products(&net) == 2 * pixel_forward_products(&net) - 841.0 * 32 * 441);
}

static void paths_and_tapes_agree(void **state)
{
    struct fixture *f = open_fixture();
    float plain[FEATURES], taped[FEATURES];

    (void)state;
    ON_EVERY_PATH
    {
        pack(f);
        test_poison(f->z, sizeof(f->z));
        pixel_forward(&f->net, &f->panels, &f->obs, &f->scratch, NULL, f->z);
        pixel_forward(&f->net, &f->panels, &f->obs, &f->scratch, f->tape, taped);
        assert_memory_equal(f->z, taped, sizeof(taped));
        if (path == ISA_PLAIN)
            memcpy(plain, f->z, sizeof(plain));
        assert_close(f->z, plain, FEATURES, 2e-6, 0);
    }
    for (int i = 0; i < FEATURES; i += 8) {
        float sum = 0;

        for (int j = i; j < i + 8; j++)
            sum += plain[j];
        assert_true(fabsf(sum - 1) < 1e-5f);
    }
    close_fixture(f);
}

static double loss(const float *x, void *context)
{
    struct fixture *f = context;
    double sum = 0;

    (void)x; /* moved where it lies */
    pack(f);
    pixel_forward(&f->net, &f->panels, &f->obs, &f->scratch, NULL, f->z);
    for (int i = 0; i < FEATURES; i++)
        sum += (double)f->z[i] * (double)f->dz[i];
    return sum;
}

static void backward(struct fixture *f, float *partial)
{
    pack(f);
    pixel_forward(&f->net, &f->panels, &f->obs, &f->scratch, f->tape, f->z);
    pixel_backward(&f->net, &f->panels, &f->obs, &f->scratch, f->tape, f->z, f->dz, partial);
}

static void clear_gradients(struct fixture *f)
{
    memset(f->partials, 0, 2 * pixel_partial_floats(&f->net) * sizeof(float));
    for (int l = 0; l < PIXEL_LAYERS; l++) {
        memset(f->grad.weight[l], 0, (size_t)(conv_depth(&f->net.layer[l]) * CHANNELS) * sizeof(float));
        memset(f->grad.bias[l], 0, CHANNELS * sizeof(float));
    }
}

static void add_gradients(struct fixture *f, int partials)
{
    for (int part = 0; part < pixel_gradient_parts(&f->net); part++)
        pixel_gradient(&f->net, f->partials, partials, &f->grad, part);
}

/* Short steps: ReLUs bend the loss at every turn. */
static void backward_matches_central_differences(void **state)
{
    struct fixture *f = open_fixture();

    (void)state;
    ON_EVERY_PATH
    {
        clear_gradients(f);
        backward(f, f->partials);
        add_gradients(f, 1);
        for (int l = 0; l < PIXEL_LAYERS; l++) {
            assert_gradient(loss, f, f->weight[l], f->grad.weight[l],
                            (size_t)(conv_depth(&f->net.layer[l]) * CHANNELS), 1e-4, 2e-2);
            if (l < PIXEL_LAYERS - 1)
                assert_gradient(loss, f, f->bias[l], f->grad.bias[l], CHANNELS, 1e-4, 2e-2);
        }
        /* The last bias moves whole groups of SimNorm together: no change. */
        for (int c = 0; c < CHANNELS; c++)
            assert_true(fabsf(f->grad.bias[PIXEL_LAYERS - 1][c]) < 1e-6f);
    }
    close_fixture(f);
}

/* Partials add up, and gradients are added to what is there. */
static void partials_add_up(void **state)
{
    struct fixture *f = open_fixture();
    size_t floats = pixel_partial_floats(&f->net);
    float once;

    (void)state;
    clear_gradients(f);
    backward(f, f->partials);
    add_gradients(f, 1);
    once = f->grad.weight[1][7];
    clear_gradients(f);
    f->grad.weight[1][7] = once;
    backward(f, f->partials);
    backward(f, f->partials);
    backward(f, f->partials + floats);
    add_gradients(f, 2);
    assert_true(once != 0 && fabsf(f->grad.weight[1][7] - 4 * once) < 1e-5f * fabsf(once));
    close_fixture(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_crop_is_nearly_exact, back_to_best),
        cmocka_unit_test(shifts_are_uniform),
        cmocka_unit_test(counts_are_the_references),
        cmocka_unit_test_teardown(paths_and_tapes_agree, back_to_best),
        cmocka_unit_test_teardown(backward_matches_central_differences, back_to_best),
        cmocka_unit_test(partials_add_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
