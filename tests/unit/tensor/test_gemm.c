#include "tests/support/test.h"

#include "common/tensor/bf16.h"
#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"

enum { SIDE = 70, ROOM = SIDE * (SIDE + 5) };

/* Run the next statement on every path this machine has. */
#define ON_EVERY_PATH                                                                              \
    for (int path = 0; path < ISA_COUNT; path++)                                                   \
        if (isa_force((enum isa)path) == TD_OK)

static int back_to_best(void **state)
{
    (void)state;
    return isa_force(isa_best());
}

struct shape {
    int m, n, k;
};

static const struct shape shapes[] = {
    {1, 1, 1},   {1, 17, 9},  {3, 5, 7},   {64, 64, 64}, {65, 33, 70}, {7, 1, 70}, {70, 70, 1},
    {16, 12, 0}, {0, 4, 4},   {4, 0, 4},   {14, 32, 16}, {15, 31, 17}, {28, 48, 33}, {13, 16, 16},
    {12, 8, 8},  {6, 16, 24}, {29, 63, 47},
};

/* C by the definition, in double. pick(matrix, row, column) reads op(matrix). */
static void reference(const struct shape *s, const float *a, size_t lda, int ta, const float *b,
                      size_t ldb, int tb, float beta, const float *before, size_t ldc, float *c)
{
    for (int i = 0; i < s->m; i++) {
        for (int j = 0; j < s->n; j++) {
            size_t at = (size_t)i * ldc + (size_t)j;
            double sum = beta == 0 ? 0 : (double)beta * (double)before[at];

            for (int l = 0; l < s->k; l++) {
                size_t ia = ta ? (size_t)l * lda + (size_t)i : (size_t)i * lda + (size_t)l;
                size_t ib = tb ? (size_t)j * ldb + (size_t)l : (size_t)l * ldb + (size_t)j;

                sum += (double)a[ia] * (double)b[ib];
            }
            c[at] = (float)sum;
        }
    }
}

typedef void (*gemm_fn)(int, int, int, const float *, size_t, const float *, size_t, float, float *,
                        size_t);

static void check_variant(gemm_fn gemm, int ta, int tb, float beta)
{
    static float a[ROOM], b[ROOM], before[ROOM], c[ROOM], expected[ROOM];

    rng_uniform(test_rng(), a, ROOM, -1, 1);
    rng_uniform(test_rng(), b, ROOM, -1, 1);
    rng_uniform(test_rng(), before, ROOM, -1, 1);
    for (size_t i = 0; i < TD_LEN(shapes); i++) {
        const struct shape *s = &shapes[i];
        size_t lda = (size_t)(ta ? s->m : s->k) + 3, ldb = (size_t)(tb ? s->k : s->n) + 5;
        size_t ldc = (size_t)s->n + 2;

        /* Poison shows elements left unwritten, and writes between the rows. */
        test_poison(c, sizeof(c));
        test_poison(expected, sizeof(expected));
        for (int r = 0; beta != 0 && r < s->m; r++)
            memcpy(c + (size_t)r * ldc, before + (size_t)r * ldc, (size_t)s->n * sizeof(float));
        reference(s, a, lda, ta, b, ldb, tb, beta, before, ldc, expected);
        gemm(s->m, s->n, s->k, a, lda, b, ldb, beta, c, ldc);
        for (int r = 0; r < s->m; r++) {
            assert_close(c + (size_t)r * ldc, expected + (size_t)r * ldc, (size_t)s->n, 2e-5, 1e-5);
            assert_memory_equal(c + (size_t)r * ldc + s->n, expected + (size_t)r * ldc + s->n, 8);
        }
    }
}

static void products_match_the_definition(void **state)
{
    (void)state;
    ON_EVERY_PATH for (int step = 0; step < 3; step++)
    {
        float beta = (float)step * 0.5f;

        check_variant(gemm_nt, 0, 1, beta);
        check_variant(gemm_nn, 0, 0, beta);
        check_variant(gemm_tn, 1, 0, beta);
    }
}

static void known_product(void **state)
{
    float a[4] = {1, 2, 3, 4}, b[4] = {5, 6, 7, 8}, c[4];
    float nn[4] = {19, 22, 43, 50}, nt[4] = {17, 23, 39, 53}, tn[4] = {26, 30, 38, 44};

    (void)state;
    ON_EVERY_PATH
    {
        gemm_nn(2, 2, 2, a, 2, b, 2, 0, c, 2);
        assert_close(c, nn, 4, 0, 0);
        gemm_nt(2, 2, 2, a, 2, b, 2, 0, c, 2);
        assert_close(c, nt, 4, 0, 0);
        gemm_tn(2, 2, 2, a, 2, b, 2, 0, c, 2);
        assert_close(c, tn, 4, 0, 0);
    }
}

/* A column of gradients against rows, strides as narrow as can be. */
static void single_columns(void **state)
{
    float a[5] = {1, 2, 3, 4, 5}, b[10] = {1, 0, 0, 1, 1, 1, 2, 0, 0, 2}, c[2];
    float expected[2] = {1 + 3 + 8, 2 + 3 + 10};

    (void)state;
    ON_EVERY_PATH
    {
        test_poison(c, sizeof(c));
        gemm_tn(1, 2, 5, a, 1, b, 2, 0, c, 2);
        assert_close(c, expected, 2, 0, 0);
        gemm_nn(1, 2, 5, a, 5, b, 2, 0, c, 2);
        assert_close(c, expected, 2, 0, 0);
    }
}

enum { BIG_M = 45, BIG_N = 75, BIG_K = 1500 };
static float big_a[BIG_M * BIG_K], big_b[BIG_K * BIG_N], big_c[BIG_M * BIG_N], again[BIG_M * BIG_N];
static float packed[(BIG_N + 64) * BIG_K] __attribute__((aligned(64)));

static void fill_big(void)
{
    rng_normal(test_rng(), big_a, TD_LEN(big_a));
    rng_normal(test_rng(), big_b, TD_LEN(big_b));
}

/* Deep products are cut along k: one long chain all the same. */
static void deep_products_agree_with_openblas(void **state)
{
    static float oracle[BIG_M * BIG_N];

    (void)state;
    fill_big();
    for (int variant = 0; variant < 3; variant++) {
        ON_EVERY_PATH
        {
            float *c = path == ISA_PLAIN ? oracle : big_c;

            test_poison(c, sizeof(oracle));
            if (variant == 0)
                gemm_nn(BIG_M, BIG_N, BIG_K, big_a, BIG_K, big_b, BIG_N, 0, c, BIG_N);
            else if (variant == 1)
                gemm_nt(BIG_M, BIG_N, BIG_K, big_a, BIG_K, big_b, BIG_K, 0, c, BIG_N);
            else
                gemm_tn(BIG_M, BIG_N, BIG_K, big_a, BIG_M, big_b, BIG_N, 0, c, BIG_N);
            if (c != oracle)
                assert_close(c, oracle, BIG_M * BIG_N, 3e-4, 0);
        }
    }
}

/* On the vector paths a row alone and in company has the same bits. */
static void a_row_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    fill_big();
    for (int path = ISA_PLAIN + 1; path < ISA_COUNT; path++) {
        if (isa_force((enum isa)path) != TD_OK)
            continue;
        gemm_nt(BIG_M, BIG_N, BIG_K, big_a, BIG_K, big_b, BIG_K, 0, big_c, BIG_N);
        for (int first = 0; first < BIG_M; first += 7)
            for (int rows = 1; first + rows <= BIG_M && rows < 17; rows += 3) {
                gemm_nt(rows, BIG_N, BIG_K, big_a + first * BIG_K, BIG_K, big_b, BIG_K, 0, again, BIG_N);
                assert_memory_equal(again, big_c + first * BIG_N, (size_t)rows * BIG_N * sizeof(float));
            }
    }
}

static void packed_products_have_the_same_bits(void **state)
{
    static const int depths[] = {1, 16, 77, BIG_K};

    (void)state;
    fill_big();
    ON_EVERY_PATH for (size_t d = 0; d < TD_LEN(depths); d++)
    {
        int k = depths[d], panels = gemm_panels(BIG_N), half = panels / 2;

        assert_true(gemm_packed_floats(BIG_N, k) <= TD_LEN(packed));
        for (int transposed = 0; transposed < 2; transposed++) {
            test_poison(packed, sizeof(packed));
            gemm_pack(BIG_N, k, big_b, transposed ? BIG_K : BIG_N, transposed, half, panels - half, packed);
            gemm_pack(BIG_N, k, big_b, transposed ? BIG_K : BIG_N, transposed, 0, half, packed);
            if (transposed)
                gemm_nt(BIG_M, BIG_N, k, big_a, BIG_K, big_b, BIG_K, 0, big_c, BIG_N);
            else
                gemm_nn(BIG_M, BIG_N, k, big_a, BIG_K, big_b, BIG_N, 0, big_c, BIG_N);
            test_poison(again, sizeof(again));
            gemm_packed(BIG_M, BIG_N, 0, k, k, big_a, BIG_K, packed, 0, again, BIG_N);
            if (path == ISA_PLAIN)
                assert_close(again, big_c, BIG_M * BIG_N, 3e-4, 0);
            else
                assert_memory_equal(again, big_c, sizeof(again));
        }
        /* Only the last rows of op(B), added to what is there. */
        gemm_packed(BIG_M, BIG_N, k / 3, k - k / 3, k, big_a, BIG_K, packed, 1, again, BIG_N);
        gemm_nt(BIG_M, BIG_N, k - k / 3, big_a, BIG_K, big_b + k / 3, BIG_K, 1, big_c, BIG_N);
        assert_close(again, big_c, BIG_M * BIG_N, 6e-4, 0);
    }
}

/* From bfloat16, packed or on the way, the bits are those from floats of the same values. */
static void bfloat16_products_have_the_bits_of_floats(void **state)
{
    static uint16_t half[BIG_K * BIG_N], half_packed[(BIG_N + 64) * BIG_K] __attribute__((aligned(64)));
    static const struct shape sizes[] = {{1, 1, 1}, {1, 75, 640}, {45, 33, 641}, {14, 32, 1500}, {7, 75, 1281}};

    (void)state;
    fill_big();
    bf16_from_floats(half, big_b, TD_LEN(big_b));
    bf16_to_floats(big_b, half, TD_LEN(big_b));
    ON_EVERY_PATH for (size_t i = 0; i < TD_LEN(sizes); i++)
    {
        const struct shape *s = &sizes[i];
        size_t k = (size_t)s->k, n = (size_t)s->n, bytes = (size_t)s->m * n * sizeof(float);

        for (int from = 0; from < 2 && from < s->k; from++) {
            memset(big_c, 0, sizeof(big_c));
            gemm_nt(s->m, s->n, s->k - from, big_a, k, big_b + from, k, 0, big_c, n);
            test_poison(again, bytes);
            gemm_nt_half(s->m, s->n, s->k - from, big_a, k, half + from, k, 0, again, n);
            if (path == ISA_PLAIN) /* OpenBLAS, given fewer columns at a time, rounds as it likes */
                assert_close(big_c, again, (size_t)s->m * n, 1e-4, 1e-5);
            else
                assert_memory_equal(big_c, again, bytes);
            test_poison(half_packed, sizeof(half_packed));
            gemm_pack_half(s->n, s->k, half, k, 0, gemm_panels(s->n), half_packed);
            test_poison(again, bytes);
            gemm_packed_half(s->m, s->n, from, s->k - from, s->k, big_a, k, half_packed, 0, again, n);
            if (path == ISA_PLAIN)
                assert_close(big_c, again, (size_t)s->m * n, 1e-4, 1e-5);
            else
                assert_memory_equal(big_c, again, bytes);
        }
    }
}

static void the_library_is_serial_and_named(void **state)
{
    struct error err = {0};

    (void)state;
    assert_ok(gemm_start(3, &err), err);
    assert_true(gemm_core()[0] != '\0');
    assert_non_null(strstr(gemm_library(), "OpenBLAS"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(products_match_the_definition, back_to_best),
        cmocka_unit_test_teardown(known_product, back_to_best),
        cmocka_unit_test_teardown(single_columns, back_to_best),
        cmocka_unit_test_teardown(deep_products_agree_with_openblas, back_to_best),
        cmocka_unit_test_teardown(a_row_does_not_depend_on_its_neighbours, back_to_best),
        cmocka_unit_test_teardown(packed_products_have_the_same_bits, back_to_best),
        cmocka_unit_test_teardown(bfloat16_products_have_the_bits_of_floats, back_to_best),
        cmocka_unit_test(the_library_is_serial_and_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
