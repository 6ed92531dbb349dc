#include "tests/unit/nn/nn_support.h"

#include <math.h>

#include "common/tensor/pool.h"

enum { IN = 21, HIDDEN = 40, OUT = 24, HEADS = 3, GROUPS = 2, GROUP_ROWS = 150, ROWS = 300 };
enum { FLOATS = IN * HIDDEN + HIDDEN * HIDDEN + HIDDEN * OUT + 3 * (2 * HIDDEN + OUT) };

/* Three layers, the last plain or SimNorm, parameters of HEADS members stacked. */
struct net {
    struct mlp mlp;
    struct mlp_grad grad;
    float parameter[HEADS * FLOATS], gradient[HEADS * FLOATS];
};

static void make_net(struct net *net, enum nn_activation last)
{
    static const int dims[4] = {IN, HIDDEN, HIDDEN, OUT};
    float *p = net->parameter, *g = net->gradient;

    random_floats(net->parameter, TD_LEN(net->parameter), 0.4f);
    memset(net->gradient, 0, sizeof(net->gradient));
    net->mlp.layers = 3;
    for (int l = 0; l < 3; l++) {
        struct nn_layer *layer = &net->mlp.layer[l];
        size_t in = (size_t)dims[l], out = (size_t)dims[l + 1];

        *layer = (struct nn_layer){.in = dims[l], .out = dims[l + 1], .stride = in,
                                   .activation = l < 2 ? NN_MISH : last, .group = 8,
                                   .dropout = l == 0 ? 0.2f : 0};
        layer->weight = p;
        layer->bias = p + HEADS * in * out;
        net->grad.layer[l].weight = g;
        net->grad.layer[l].bias = g + HEADS * in * out;
        if (layer->activation != NN_IDENTITY) {
            layer->gain = layer->bias + HEADS * out;
            layer->shift = layer->gain + HEADS * out;
            net->grad.layer[l].gain = net->grad.layer[l].bias + HEADS * out;
            net->grad.layer[l].shift = net->grad.layer[l].gain + HEADS * out;
        }
        p += HEADS * (in * out + 3 * out);
        g += HEADS * (in * out + 3 * out);
    }
}

struct run {
    struct net *net;
    struct mlp mlp[HEADS];
    struct mlp_grad grad[HEADS];
    struct mlp_tape tape[HEADS];
    struct arena arena;
    float x[ROWS * IN], y[HEADS][ROWS * OUT], dy[HEADS][ROWS * OUT], dx[HEADS][ROWS * IN];
    uint8_t mask[HEADS][ROWS * HIDDEN];
    float *scratch;
    bool dropout;
};

static void make_run(struct run *run, struct net *net, bool dropout)
{
    struct arena measure;

    memset(run, 0, sizeof(*run));
    run->net = net;
    run->dropout = dropout;
    arena_measure(&measure);
    for (int pass = 0; pass < 2; pass++) {
        struct arena *arena = pass ? &run->arena : &measure;

        if (pass)
            assert_int_equal(arena_init(arena, measure.used), TD_OK);
        run->scratch = arena_floats(arena, 4 * mlp_scratch(&net->mlp));
        for (int h = 0; h < HEADS; h++) {
            mlp_head(&run->mlp[h], &net->mlp, h);
            mlp_head_grad(&run->grad[h], &net->grad, &net->mlp, h);
            mlp_tape_init(&run->tape[h], &run->mlp[h], GROUPS, GROUP_ROWS, arena);
            mlp_tape_bind(&run->tape[h], run->x, IN, run->y[h], OUT);
            mlp_tape_mask(&run->tape[h], 0, dropout ? run->mask[h] : NULL);
        }
    }
    test_poison(run->arena.base, run->arena.used);
    random_floats(run->x, TD_LEN(run->x), 1);
    for (int h = 0; h < HEADS; h++) {
        random_floats(run->dy[h], ROWS * OUT, 1);
        rng_mask(test_rng(), run->mask[h], ROWS * HIDDEN, 0.8f);
    }
}

static void forward_task(void *context, int task, int worker)
{
    struct run *run = context;
    int tiles = mlp_tape_tiles(&run->tape[0]);

    (void)worker;
    mlp_tape_forward(&run->tape[task / tiles], &run->mlp[task / tiles], task % tiles);
}

static void backward_task(void *context, int task, int worker)
{
    struct run *run = context;
    int tiles = mlp_tape_tiles(&run->tape[0]), h = task / tiles;

    mlp_tape_backward(&run->tape[h], &run->mlp[h], task % tiles, run->dy[h], OUT, run->dx[h], IN, 0,
                      false, run->scratch + (size_t)worker * mlp_scratch(&run->net->mlp));
}

static void gradient_task(void *context, int task, int worker)
{
    struct run *run = context;
    int parts = mlp_gradient_parts(&run->net->mlp), h = task / parts;

    (void)worker;
    mlp_tape_gradient(&run->tape[h], &run->mlp[h], run->dy[h], OUT, &run->grad[h], task % parts);
}

static void forward_all(struct run *run, pool_t *pool)
{
    pool_run(pool, forward_task, run, HEADS * mlp_tape_tiles(&run->tape[0]));
}

static void backward_all(struct run *run, pool_t *pool)
{
    pool_run(pool, backward_task, run, HEADS * mlp_tape_tiles(&run->tape[0]));
    pool_run(pool, gradient_task, run, HEADS * mlp_gradient_parts(&run->net->mlp));
}

static double loss(const float *moved, void *context)
{
    struct run *run = context;
    double sum = 0;

    (void)moved;
    forward_all(run, NULL);
    for (int h = 0; h < HEADS; h++)
        for (int i = 0; i < ROWS * OUT; i++)
            sum += (double)run->y[h][i] * (double)run->dy[h][i];
    return sum;
}

static struct net net;
static struct run run;

static void check_gradients(enum nn_activation last, bool dropout)
{
    static float dx[ROWS * IN];

    make_net(&net, last);
    make_run(&run, &net, dropout);
    forward_all(&run, NULL);
    test_poison(run.dx, sizeof(run.dx));
    backward_all(&run, NULL);
    for (int i = 0; i < ROWS * IN; i++)
        dx[i] = run.dx[0][i] + run.dx[1][i] + run.dx[2][i];
    assert_gradient(loss, &run, run.x, dx, ROWS * IN, 3e-3, 5e-3);
    for (int l = 0; l < 3; l++) {
        size_t in = (size_t)net.mlp.layer[l].in, out = (size_t)net.mlp.layer[l].out;
        size_t at = (size_t)(net.mlp.layer[l].weight - net.parameter), parts = l < 2 || last ? 3 : 1;

        assert_gradient(loss, &run, net.parameter + at, net.gradient + at, HEADS * in * out, 1e-3,
                        5e-3);
        assert_gradient(loss, &run, net.parameter + at + HEADS * in * out,
                        net.gradient + at + HEADS * in * out, parts * HEADS * out, 1e-3, 5e-3);
    }
    arena_release(&run.arena);
}

static void ensemble_gradients_match_central_differences(void **state)
{
    (void)state;
    check_gradients(NN_IDENTITY, true);
    check_gradients(NN_SIMNORM, false);
}

static void acting_and_training_agree(void **state)
{
    static float y[ROWS * OUT];

    (void)state;
    ON_EVERY_PATH for (int last = 0; last < 3; last++)
    {
        make_net(&net, (enum nn_activation)last);
        make_run(&run, &net, false);
        forward_all(&run, NULL);
        for (int h = 0; h < HEADS; h++) {
            test_poison(y, sizeof(y));
            mlp_forward(&run.mlp[h], run.x, IN, ROWS, y, OUT, run.scratch);
            assert_close(y, run.y[h], ROWS * OUT, 1e-5, 1e-5);
        }
        arena_release(&run.arena);
    }
}

static void threads_do_not_change_the_bits(void **state)
{
    static float y[HEADS * ROWS * OUT], dx[HEADS * ROWS * IN], gradient[HEADS * FLOATS];

    (void)state;
    make_net(&net, NN_SIMNORM);
    make_run(&run, &net, true);
    for (int threads = 1; threads <= 4; threads++) {
        struct error err = {0};
        pool_t *pool = NULL;

        assert_ok(pool_create(&pool, threads, &err), err);
        for (int round = 0; round < 5; round++) {
            memset(net.gradient, 0, sizeof(net.gradient));
            forward_all(&run, pool);
            backward_all(&run, pool);
            if (threads == 1 && round == 0) {
                memcpy(y, run.y, sizeof(y));
                memcpy(dx, run.dx, sizeof(dx));
                memcpy(gradient, net.gradient, sizeof(gradient));
            }
            assert_memory_equal(run.y, y, sizeof(y));
            assert_memory_equal(run.dx, dx, sizeof(dx));
            assert_memory_equal(net.gradient, gradient, sizeof(gradient));
        }
        pool_destroy(&pool);
    }
    arena_release(&run.arena);
}

static void gradients_add_up_over_calls(void **state)
{
    static float once[HEADS * FLOATS];

    (void)state;
    make_net(&net, NN_IDENTITY);
    make_run(&run, &net, false);
    for (int i = 0; i < 2; i++) {
        forward_all(&run, NULL);
        backward_all(&run, NULL);
        if (i == 0)
            memcpy(once, net.gradient, sizeof(once));
    }
    for (int i = 0; i < HEADS * FLOATS; i++)
        once[i] *= 2;
    assert_close(net.gradient, once, HEADS * FLOATS, 1e-4, 1e-5);
    arena_release(&run.arena);
}

/* dx from a column on, overwritten or added to; columns before it stay. */
static void part_of_the_input_gradient(void **state)
{
    enum { FROM = 15 };
    static float part[ROWS * IN];
    int tiles;

    (void)state;
    make_net(&net, NN_IDENTITY);
    make_run(&run, &net, false);
    tiles = mlp_tape_tiles(&run.tape[0]);
    for (int add = 0; add < 2; add++) {
        forward_all(&run, NULL);
        backward_all(&run, NULL);
        for (int i = 0; i < ROWS * IN; i++)
            part[i] = add ? 1.0f : NAN;
        forward_all(&run, NULL);
        for (int tile = 0; tile < tiles; tile++)
            mlp_tape_backward(&run.tape[0], &run.mlp[0], tile, run.dy[0], OUT, part, IN, FROM, add,
                              run.scratch);
        for (int r = 0; r < ROWS; r++) {
            for (int i = 0; i < IN; i++) {
                float expected = run.dx[0][r * IN + i] + (add ? 1.0f : 0.0f);

                if (i >= FROM)
                    assert_close(&part[r * IN + i], &expected, 1, 2e-5, 1e-5);
                else
                    assert_true(add ? part[r * IN + i] == 1.0f : isnan(part[r * IN + i]));
            }
        }
    }
    arena_release(&run.arena);
}

static void sharing_part_of_the_input_changes_nothing(void **state)
{
    enum { SHARED = 16 };
    static float y[ROWS * OUT], expected[ROWS * OUT], bias[HIDDEN];
    struct mlp shared;

    (void)state;
    make_net(&net, NN_IDENTITY);
    make_run(&run, &net, false);
    for (int r = 1; r < ROWS; r++)
        memcpy(run.x + r * IN, run.x, SHARED * sizeof(float));
    mlp_forward(&run.mlp[1], run.x, IN, ROWS, expected, OUT, run.scratch);
    mlp_share(&shared, &run.mlp[1], run.x, SHARED, bias);
    mlp_forward(&shared, run.x + SHARED, IN, ROWS, y, OUT, run.scratch);
    assert_close(y, expected, ROWS * OUT, 1e-5, 1e-5);
    arena_release(&run.arena);
}

/* Forward, backward from any column, and shared inputs: the same bits with packed weights. */
static void packed_weights_change_nothing(void **state)
{
    static float y[HEADS][ROWS * OUT], dx[HEADS][ROWS * IN], bias[2][HIDDEN];
    struct mlp plain[2], shared;
    struct mlp_panels panels;
    struct arena arena, measure;

    (void)state;
    ON_EVERY_PATH
    {
        make_net(&net, NN_SIMNORM);
        make_run(&run, &net, true);
        plain[0] = net.mlp;
        forward_all(&run, NULL);
        backward_all(&run, NULL);
        memcpy(y, run.y, sizeof(y));
        memcpy(dx, run.dx, sizeof(dx));
        arena_measure(&measure);
        mlp_panels_init(&panels, &net.mlp, HEADS, 7, &measure);
        assert_int_equal(arena_init(&arena, measure.used), TD_OK);
        mlp_panels_init(&panels, &net.mlp, HEADS, 7, &arena);
        test_poison(arena.base, arena.used);
        for (int task = mlp_panels_tasks(&panels, &net.mlp); task-- > 0;)
            mlp_panels_pack(&panels, &net.mlp, task);
        mlp_panels_use(&net.mlp, &panels);
        for (int h = 0; h < HEADS; h++)
            mlp_head(&run.mlp[h], &net.mlp, h);
        test_poison(run.dx, sizeof(run.dx));
        forward_all(&run, NULL);
        backward_all(&run, NULL);
        if (path == ISA_PLAIN) { /* OpenBLAS: only to rounding */
            assert_close(run.y[1], y[1], ROWS * OUT, 1e-5, 1e-5);
            assert_close(run.dx[1], dx[1], ROWS * IN, 1e-4, 1e-4);
        } else {
            assert_memory_equal(run.y, y, sizeof(y));
            assert_memory_equal(run.dx, dx, sizeof(dx));
        }
        mlp_head(&plain[1], &plain[0], 2);
        mlp_share(&shared, &plain[1], run.x, 13, bias[0]);
        mlp_forward(&shared, run.x + 13, IN, ROWS, y[0], OUT, run.scratch);
        mlp_share(&shared, &run.mlp[2], run.x, 13, bias[1]);
        mlp_forward(&shared, run.x + 13, IN, ROWS, y[1], OUT, run.scratch);
        assert_close(y[1], y[0], ROWS * OUT, path == ISA_PLAIN ? 1e-5 : 0, 0);
        arena_release(&arena);
        arena_release(&run.arena);
    }
}

static void a_net_may_write_over_its_own_input(void **state)
{
    static float x[ROWS * IN], expected[ROWS * OUT];

    (void)state;
    make_net(&net, NN_IDENTITY);
    make_run(&run, &net, false);
    net.mlp.layer[2].out = 16; /* narrower than the input */
    mlp_forward(&net.mlp, run.x, IN, ROWS, expected, 16, run.scratch);
    memcpy(x, run.x, sizeof(x));
    mlp_forward(&net.mlp, x, IN, ROWS, x, IN, run.scratch);
    for (int r = 0; r < ROWS; r++) {
        assert_memory_equal(x + r * IN, expected + r * 16, 16 * sizeof(float));
        assert_memory_equal(x + r * IN + 16, run.x + r * IN + 16, (IN - 16) * sizeof(float));
    }
    arena_release(&run.arena);
}

static void tiles_cover_every_row_once(void **state)
{
    static const int rows[] = {1, 127, 128, 129, 300};

    (void)state;
    make_net(&net, NN_IDENTITY);
    for (size_t i = 0; i < TD_LEN(rows); i++) {
        struct mlp_tape tape;
        struct arena arena;
        int next = 0;

        arena_measure(&arena);
        mlp_tape_init(&tape, &net.mlp, 3, rows[i], &arena);
        for (int tile = 0; tile < mlp_tape_tiles(&tape); tile++) {
            int row, count = mlp_tape_span(&tape, tile, &row);

            assert_int_equal(row, next);
            assert_in_range(count, 1, MLP_TILE);
            assert_int_equal(row / rows[i], (row + count - 1) / rows[i]);
            next = row + count;
        }
        assert_int_equal(next, 3 * rows[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(ensemble_gradients_match_central_differences, back_to_best),
        cmocka_unit_test_teardown(acting_and_training_agree, back_to_best),
        cmocka_unit_test_teardown(threads_do_not_change_the_bits, back_to_best),
        cmocka_unit_test(gradients_add_up_over_calls),
        cmocka_unit_test(part_of_the_input_gradient),
        cmocka_unit_test(sharing_part_of_the_input_changes_nothing),
        cmocka_unit_test_teardown(packed_weights_change_nothing, back_to_best),
        cmocka_unit_test(a_net_may_write_over_its_own_input),
        cmocka_unit_test(tiles_cover_every_row_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
