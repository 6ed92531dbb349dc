#include "tests/support/test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "common/util/clock.h"
#include "common/util/queue.h"

static void items_leave_in_the_order_they_came(void **state)
{
    queue_t *queue;
    int item;

    (void)state;
    assert_int_equal(queue_create(&queue, 3, sizeof(int), NULL, NULL), TD_OK);
    assert_int_equal(queue_pop(queue, &item), TD_EAGAIN);
    for (int round = 0; round < 5; round++) { /* the ring goes round */
        for (int i = 0; i < 3; i++)
            assert_int_equal(queue_push(queue, &i), TD_OK);
        item = 9;
        assert_int_equal(queue_push(queue, &item), TD_EFULL);
        assert_int_equal(queue_length(queue), 3);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(queue_pop(queue, &item), TD_OK);
            assert_int_equal(item, i);
        }
        item = round; /* shift the start of the next round */
        assert_int_equal(queue_push(queue, &item), TD_OK);
        assert_int_equal(queue_pop(queue, &item), TD_OK);
        assert_int_equal(item, round);
    }
    queue_destroy(&queue);
    assert_null(queue);
    queue_destroy(&queue);
}

static void waiting_has_a_deadline_and_an_end(void **state)
{
    queue_t *queue;
    uint64_t start = clock_ms();
    int item = 7;

    (void)state;
    assert_int_equal(queue_create(&queue, 1, sizeof(int), NULL, NULL), TD_OK);
    assert_int_equal(queue_wait(queue, &item, 20), TD_ETIMEOUT);
    assert_true(clock_ms() - start >= 19);
    assert_int_equal(queue_push(queue, &item), TD_OK);
    queue_close(queue);
    assert_int_equal(queue_push(queue, &item), TD_EINVAL);
    item = 0;
    assert_int_equal(queue_wait(queue, &item, -1), TD_OK); /* what was inside still comes out */
    assert_int_equal(item, 7);
    assert_int_equal(queue_wait(queue, &item, -1), TD_ENOTFOUND);
    queue_destroy(&queue);
}

#define WRITERS 3
#define EACH 3000

struct flow {
    queue_t *queue;
    atomic_int wakes;
    int writer;
};

static void count_wake(void *context)
{
    struct flow *flow = context;

    atomic_fetch_add(&flow->wakes, 1);
}

static void *write_items(void *context)
{
    struct flow *flow = context;

    for (int i = 0; i < EACH; i++) {
        int item[2] = {flow->writer, i};

        while (queue_push(flow->queue, item) == TD_EFULL)
            clock_sleep_ms(0);
    }
    return NULL;
}

static void threads_lose_and_repeat_nothing(void **state)
{
    struct flow shared = {0}, flows[WRITERS];
    pthread_t threads[WRITERS];
    int next[WRITERS] = {0}, item[2];

    (void)state;
    atomic_init(&shared.wakes, 0);
    assert_int_equal(queue_create(&shared.queue, 16, sizeof(item), count_wake, &shared), TD_OK);
    for (int w = 0; w < WRITERS; w++) {
        flows[w].queue = shared.queue;
        flows[w].writer = w;
        assert_int_equal(pthread_create(&threads[w], NULL, write_items, &flows[w]), 0);
    }
    for (int i = 0; i < WRITERS * EACH; i++) {
        assert_int_equal(queue_wait(shared.queue, item, 20000), TD_OK);
        assert_in_range(item[0], 0, WRITERS - 1);
        assert_int_equal(item[1], next[item[0]]++); /* each writer's own order holds */
    }
    for (int w = 0; w < WRITERS; w++)
        pthread_join(threads[w], NULL);
    assert_int_equal(queue_pop(shared.queue, item), TD_EAGAIN);
    assert_int_equal(atomic_load(&shared.wakes), WRITERS * EACH);
    queue_destroy(&shared.queue);
}

static void *close_later(void *context)
{
    clock_sleep_ms(20);
    queue_close(context);
    return NULL;
}

static void closing_wakes_the_reader(void **state)
{
    queue_t *queue;
    pthread_t thread;
    int item;

    (void)state;
    assert_int_equal(queue_create(&queue, 1, sizeof(int), NULL, NULL), TD_OK);
    assert_int_equal(pthread_create(&thread, NULL, close_later, queue), 0);
    assert_int_equal(queue_wait(queue, &item, 20000), TD_ENOTFOUND);
    pthread_join(thread, NULL);
    queue_destroy(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_leave_in_the_order_they_came),
        cmocka_unit_test(waiting_has_a_deadline_and_an_end),
        cmocka_unit_test(threads_lose_and_repeat_nothing),
        cmocka_unit_test(closing_wakes_the_reader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
