#include "tests/support/test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"
#include "common/tensor/pool.h"
#include "common/util/clock.h"

enum { TASKS = 3000 };

static pool_t *make_pool(int threads)
{
    struct error err = {0};
    pool_t *pool = NULL;

    assert_ok(pool_create(&pool, threads, &err), err);
    assert_int_equal(pool_threads(pool), threads);
    return pool;
}

struct counts {
    atomic_int hits[TASKS];
    atomic_int bad_worker;
    int threads;
};

static void count_task(void *context, int task, int worker)
{
    struct counts *counts = context;

    atomic_fetch_add(&counts->hits[task], 1);
    if (worker < 0 || worker >= counts->threads)
        atomic_store(&counts->bad_worker, 1);
}

static void every_task_runs_exactly_once(void **state)
{
    static struct counts counts;

    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        pool_t *pool = make_pool(threads);

        for (int round = 0; round < 40; round++) {
            int count = round < 20 ? round : TASKS - round;

            memset(&counts, 0, sizeof(counts));
            counts.threads = threads;
            pool_run(pool, count_task, &counts, count);
            for (int i = 0; i < TASKS; i++)
                assert_int_equal(counts.hits[i], i < count);
            assert_int_equal(counts.bad_worker, 0);
        }
        pool_destroy(&pool);
        assert_null(pool);
    }
}

static void add_up(void *context, int task, int worker)
{
    (void)worker;
    ((int *)context)[task] += task; /* not atomic: a race would show under TSan */
}

/* Many short runs in a row: late wakers of one run meet the next. */
static void runs_follow_each_other_closely(void **state)
{
    static int sums[64];
    pool_t *pool = make_pool(4);
    int rounds = test_long() ? 1000000 : 20000;

    (void)state;
    memset(sums, 0, sizeof(sums));
    for (int round = 0; round < rounds; round++)
        pool_run(pool, add_up, sums, 2 + round % 7);
    for (int i = 0; i < 8; i++) {
        int runs = 0;

        for (int round = 0; round < rounds; round++)
            runs += i < 2 + round % 7;
        assert_int_equal(sums[i], runs * i);
    }
    pool_destroy(&pool);
}

static void big_task(void *context, int task, int worker)
{
    (void)worker;
    ((uint8_t *)context)[task]++;
}

static void more_tasks_than_one_ticket_holds(void **state)
{
    enum { COUNT = 200001 };
    static uint8_t seen[COUNT];
    pool_t *pool = make_pool(3);

    (void)state;
    pool_run(pool, big_task, seen, COUNT);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(seen[i], 1);
    pool_destroy(&pool);
}

static void remember_worker(void *context, int task, int worker)
{
    (void)task;
    atomic_fetch_or((atomic_int *)context, 1 << worker);
    clock_sleep_ms(1);
}

static void only_active_threads_take_part(void **state)
{
    pool_t *pool = make_pool(4);
    atomic_int workers = 0;

    (void)state;
    pool_set_active(pool, 2);
    assert_int_equal(pool_active(pool), 2);
    clock_sleep_ms(20); /* those that were spinning have gone to sleep */
    pool_run(pool, remember_worker, &workers, 30);
    assert_int_equal(atomic_load(&workers) & ~3, 0);
    pool_set_active(pool, 0);
    assert_int_equal(pool_active(pool), 1);
    atomic_store(&workers, 0);
    pool_run(pool, remember_worker, &workers, 8);
    assert_int_equal(atomic_load(&workers), 1);
    pool_set_active(pool, 99);
    assert_int_equal(pool_active(pool), 4);
    atomic_store(&workers, 0);
    pool_run(pool, remember_worker, &workers, 100);
    assert_int_equal(atomic_load(&workers), 15);
    pool_destroy(&pool);
}

static void *change_active(void *argument)
{
    for (int i = 0; i < 400; i++) {
        pool_set_active(argument, 1 + i % 4);
        if (i % 16 == 0)
            clock_sleep_ms(1);
    }
    return NULL;
}

static void active_may_change_during_runs(void **state)
{
    static int sums[64];
    pool_t *pool = make_pool(4);
    pthread_t thread;

    (void)state;
    memset(sums, 0, sizeof(sums));
    assert_int_equal(pthread_create(&thread, NULL, change_active, pool), 0);
    for (int round = 0; round < 3000; round++)
        pool_run(pool, add_up, sums, 64);
    pthread_join(thread, NULL);
    for (int i = 0; i < 64; i++)
        assert_int_equal(sums[i], 3000 * i);
    pool_destroy(&pool);
}

struct product_job {
    float *a, *b, *c;
};

static void product_tile(void *context, int task, int worker)
{
    struct product_job *job = context;

    (void)worker;
    gemm_nt(32, 96, 64, job->a + task * 32 * 64, 64, job->b, 64, 0, job->c + task * 32 * 96, 96);
}

/* On our kernels and on OpenBLAS, whose serial build is only safe with our buffers (gemm_blas.c). */
static void check_bits_of_products(void)
{
    enum { TILES = 24 };
    static float a[TILES * 32 * 64], b[96 * 64], c[TILES * 32 * 96], first[TILES * 32 * 96];
    struct product_job job = {a, b, c};

    rng_normal(test_rng(), a, TD_LEN(a));
    rng_normal(test_rng(), b, TD_LEN(b));
    pool_run(NULL, product_tile, &job, TILES);
    memcpy(first, c, sizeof(c));
    for (int threads = 1; threads <= 4; threads++) {
        pool_t *pool = make_pool(threads);

        for (int round = 0; round < 100; round++) {
            test_poison(c, sizeof(c));
            pool_run(pool, product_tile, &job, TILES);
            assert_memory_equal(c, first, sizeof(c));
        }
        pool_destroy(&pool);
    }
}

static void products_have_the_same_bits_on_any_number_of_threads(void **state)
{
    (void)state;
    check_bits_of_products();
    assert_int_equal(isa_force(ISA_PLAIN), TD_OK);
    check_bits_of_products();
    assert_int_equal(isa_force(isa_best()), TD_OK);
}

static void bad_sizes_are_refused(void **state)
{
    struct error err = {0};
    pool_t *pool = NULL;

    (void)state;
    assert_int_equal(pool_create(&pool, POOL_THREADS_MAX + 1, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "threads"));
    assert_int_equal(pool_create(&pool, -1, &err), TD_EINVAL);
    assert_null(pool);
    assert_ok(pool_create(&pool, 0, &err), err);
    assert_true(pool_threads(pool) >= 1);
    pool_destroy(&pool);
    pool_destroy(&pool);
    assert_int_equal(pool_threads(NULL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_exactly_once),
        cmocka_unit_test(runs_follow_each_other_closely),
        cmocka_unit_test(more_tasks_than_one_ticket_holds),
        cmocka_unit_test(only_active_threads_take_part),
        cmocka_unit_test(active_may_change_during_runs),
        cmocka_unit_test(products_have_the_same_bits_on_any_number_of_threads),
        cmocka_unit_test(bad_sizes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
