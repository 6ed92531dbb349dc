#include "tests/support/test.h"

#include "common/tensor/gemm.h"

enum { SIDE = 70, ROOM = SIDE * (SIDE + 5) };

struct shape {
    int m, n, k;
};

static const struct shape shapes[] = {
    {1, 1, 1}, {1, 17, 9}, {3, 5, 7}, {64, 64, 64}, {65, 33, 70}, {7, 1, 70}, {70, 70, 1}, {16, 12, 0},
    {0, 4, 4}, {4, 0, 4},
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
    for (int step = 0; step < 3; step++) {
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
    gemm_nn(2, 2, 2, a, 2, b, 2, 0, c, 2);
    assert_close(c, nn, 4, 0, 0);
    gemm_nt(2, 2, 2, a, 2, b, 2, 0, c, 2);
    assert_close(c, nt, 4, 0, 0);
    gemm_tn(2, 2, 2, a, 2, b, 2, 0, c, 2);
    assert_close(c, tn, 4, 0, 0);
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
        cmocka_unit_test(products_match_the_definition),
        cmocka_unit_test(known_product),
        cmocka_unit_test(the_library_is_serial_and_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
