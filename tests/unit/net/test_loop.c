#include "tests/support/test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/net/loop.h"
#include "common/util/clock.h"
#include "common/util/queue.h"

static loop_t *make(void)
{
    struct error err;
    loop_t *loop;

    assert_ok(loop_create(&loop, &err), err);
    return loop;
}

struct beats {
    loop_t *loop;
    loop_timer_t *timer;
    int count, stop_at;
};

static void beat(void *context)
{
    struct beats *beats = context;

    if (++beats->count == beats->stop_at)
        loop_stop(beats->loop);
}

static void timers_repeat_pause_and_resume(void **state)
{
    struct beats beats = {.loop = make(), .stop_at = 3};
    uint64_t start = clock_ms();

    (void)state;
    assert_int_equal(loop_timer_start(&beats.timer, beats.loop, 5, 10, beat, &beats), TD_OK);
    loop_run(beats.loop);
    assert_int_equal(beats.count, 3);
    assert_true(clock_ms() - start >= 24);
    loop_timer_pause(beats.timer);
    loop_run_for(beats.loop, 30);
    assert_int_equal(beats.count, 3);
    beats.stop_at = 4;
    loop_timer_again(beats.timer, 1, 0);
    loop_run(beats.loop);
    assert_int_equal(beats.count, 4);
    loop_timer_close(&beats.timer);
    assert_null(beats.timer);
    loop_destroy(&beats.loop);
}

static void close_itself(void *context)
{
    struct beats *beats = context;

    loop_timer_close(&beats->timer);
    loop_stop(beats->loop);
}

static void a_timer_may_close_itself_and_be_left_open(void **state)
{
    struct beats beats = {.loop = make()};
    loop_timer_t *left;

    (void)state;
    assert_int_equal(loop_timer_start(&beats.timer, beats.loop, 0, 1, close_itself, &beats), TD_OK);
    assert_int_equal(loop_timer_start(&left, beats.loop, 100000, 0, close_itself, &beats), TD_OK);
    loop_run(beats.loop);
    assert_null(beats.timer);
    loop_destroy(&beats.loop); /* frees `left`: the leak check tells */
}

struct signalled {
    loop_t *loop;
    int signums[2], count;
};

static void on_signal(void *context, int signum, int count)
{
    struct signalled *seen = context;

    seen->signums[count - 1] = signum;
    seen->count = count;
    if (count == 1)
        kill(getpid(), SIGINT);
    else
        loop_stop(seen->loop);
}

static void signals_are_counted_together(void **state)
{
    struct signalled seen = {.loop = make()};
    loop_timer_t *alive;
    struct beats never = {0};
    struct error err;

    (void)state;
    assert_ok(loop_signals(seen.loop, on_signal, &seen, &err), err);
    assert_int_equal(loop_timer_start(&alive, seen.loop, 100000, 0, beat, &never), TD_OK);
    kill(getpid(), SIGTERM);
    loop_run(seen.loop);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.signums[0], SIGTERM);
    assert_int_equal(seen.signums[1], SIGINT);
    loop_destroy(&seen.loop);
}

#define ITEMS 2000

struct joint {
    loop_t *loop;
    loop_wake_t *wake;
    queue_t *queue;
    int next;
};

static void *work(void *context)
{
    struct joint *joint = context;

    for (int i = 0; i < ITEMS; i++)
        while (queue_push(joint->queue, &i) == TD_EFULL)
            clock_sleep_ms(0);
    return NULL;
}

static void results_came(void *context)
{
    struct joint *joint = context;
    int item;

    while (queue_pop(joint->queue, &item) == TD_OK)
        assert_int_equal(item, joint->next++);
    if (joint->next == ITEMS)
        loop_stop(joint->loop);
}

static void a_thread_wakes_the_loop_through_a_queue(void **state)
{
    struct joint joint = {.loop = make()};
    pthread_t thread;

    (void)state;
    assert_int_equal(loop_wake_create(&joint.wake, joint.loop, results_came, &joint), TD_OK);
    assert_int_equal(queue_create(&joint.queue, 8, sizeof(int), loop_wake_send, joint.wake), TD_OK);
    assert_int_equal(pthread_create(&thread, NULL, work, &joint), 0);
    loop_run(joint.loop);
    assert_int_equal(joint.next, ITEMS);
    pthread_join(thread, NULL);
    loop_wake_close(&joint.wake);
    queue_destroy(&joint.queue);
    loop_destroy(&joint.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_repeat_pause_and_resume),
        cmocka_unit_test(a_timer_may_close_itself_and_be_left_open),
        cmocka_unit_test(signals_are_counted_together),
        cmocka_unit_test(a_thread_wakes_the_loop_through_a_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
