#include "common/net/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <uv.h>

#include "common/util/clock.h"

struct loop {
    uv_loop_t uv;
    pthread_t owner;
    uv_timer_t breath; /* bounds loop_run_for */
    uv_signal_t signals[2];
    bool signals_open;
    int signal_count;
    void (*on_signal)(void *context, int signum, int count);
    void *signal_context;
};

struct loop_timer {
    uv_timer_t uv;
    loop_fn *callback;
    void *context;
};

struct loop_wake {
    uv_async_t uv;
    loop_fn *callback;
    void *context;
};

int loop_create(loop_t **out, struct error *err)
{
    loop_t *loop = calloc(1, sizeof(*loop));
    int rc;

    *out = NULL;
    if (loop == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the event loop");
    if ((rc = uv_loop_init(&loop->uv)) != 0) {
        free(loop);
        return error_set(err, TD_EIO, "cannot create the event loop: %s", uv_strerror(rc));
    }
    loop->owner = pthread_self();
    uv_timer_init(&loop->uv, &loop->breath);
    uv_unref((uv_handle_t *)&loop->breath);
    signal(SIGPIPE, SIG_IGN);
    *out = loop;
    return TD_OK;
}

/* Handles of this file that their owners left open; the others are gone by promise. */
static void close_handle(uv_handle_t *handle, void *context)
{
    loop_t *loop = context;

    if (uv_is_closing(handle))
        return;
    TD_ASSERT(handle == (uv_handle_t *)&loop->breath || handle->type == UV_SIGNAL ||
                  handle->type == UV_TIMER || handle->type == UV_ASYNC,
              "a %s handle is still open", uv_handle_type_name(handle->type));
    /* data holds the memory to free: NULL for handles inside struct loop */
    uv_close(handle, handle->data == NULL ? NULL : (uv_close_cb)free);
}

void loop_destroy(loop_t **out)
{
    loop_t *loop = *out;

    if (loop == NULL)
        return;
    loop_assert_owner(loop);
    uv_walk(&loop->uv, close_handle, loop);
    while (uv_loop_close(&loop->uv) == UV_EBUSY)
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    free(loop);
    *out = NULL;
}

void loop_run(loop_t *loop)
{
    loop_assert_owner(loop);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

static void breathe(uv_timer_t *timer)
{
    uv_timer_stop(timer);
}

void loop_run_for(loop_t *loop, uint64_t wait_ms)
{
    loop_assert_owner(loop);
    uv_update_time(&loop->uv);
    if (wait_ms == 0) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        return;
    }
    /* The timer is referenced while it bounds the wait, or an idle loop would return at once. */
    uv_timer_start(&loop->breath, breathe, wait_ms, 0);
    uv_ref((uv_handle_t *)&loop->breath);
    uv_run(&loop->uv, UV_RUN_ONCE);
    uv_timer_stop(&loop->breath);
    uv_unref((uv_handle_t *)&loop->breath);
}

void loop_stop(loop_t *loop)
{
    loop_assert_owner(loop);
    uv_stop(&loop->uv);
}

uint64_t loop_now_ms(const loop_t *loop)
{
    (void)loop;
    return clock_ms();
}

void loop_assert_owner(const loop_t *loop)
{
    TD_ASSERT(pthread_equal(loop->owner, pthread_self()), "not the loop's thread");
}

struct uv_loop_s *loop_uv(loop_t *loop)
{
    return &loop->uv;
}

/* --- timers ---------------------------------------------------------------- */

static void timer_fired(uv_timer_t *uv)
{
    loop_timer_t *timer = uv->data;

    timer->callback(timer->context);
}

int loop_timer_start(loop_timer_t **out, loop_t *loop, uint64_t first_ms, uint64_t every_ms,
                     loop_fn *callback, void *context)
{
    loop_timer_t *timer = calloc(1, sizeof(*timer));

    loop_assert_owner(loop);
    *out = NULL;
    if (timer == NULL)
        return TD_ENOMEM;
    timer->callback = callback;
    timer->context = context;
    uv_timer_init(&loop->uv, &timer->uv);
    timer->uv.data = timer;
    *out = timer;
    loop_timer_again(timer, first_ms, every_ms);
    return TD_OK;
}

void loop_timer_again(loop_timer_t *timer, uint64_t first_ms, uint64_t every_ms)
{
    uv_update_time(timer->uv.loop); /* a long callback must not shorten the wait */
    uv_timer_start(&timer->uv, timer_fired, first_ms, every_ms);
}

void loop_timer_pause(loop_timer_t *timer)
{
    uv_timer_stop(&timer->uv);
}

void loop_timer_close(loop_timer_t **timer)
{
    if (*timer == NULL)
        return;
    uv_close((uv_handle_t *)&(*timer)->uv, (uv_close_cb)free); /* the handle is the first member */
    *timer = NULL;
}

/* --- signals --------------------------------------------------------------- */

static void signal_came(uv_signal_t *uv, int signum)
{
    loop_t *loop = uv->loop->data;

    loop->signal_count++;
    loop->on_signal(loop->signal_context, signum, loop->signal_count);
}

int loop_signals(loop_t *loop, void (*callback)(void *context, int signum, int count),
                 void *context, struct error *err)
{
    static const int signums[2] = {SIGTERM, SIGINT};
    int rc;

    loop_assert_owner(loop);
    TD_ASSERT(!loop->signals_open);
    loop->on_signal = callback;
    loop->signal_context = context;
    loop->uv.data = loop;
    loop->signals_open = true;
    for (int i = 0; i < 2; i++) {
        uv_signal_init(&loop->uv, &loop->signals[i]);
        uv_unref((uv_handle_t *)&loop->signals[i]);
        if ((rc = uv_signal_start(&loop->signals[i], signal_came, signums[i])) != 0)
            return error_set(err, TD_EIO, "cannot watch signal %d: %s", signums[i], uv_strerror(rc));
    }
    return TD_OK;
}

/* --- wake-ups -------------------------------------------------------------- */

static void wake_came(uv_async_t *uv)
{
    loop_wake_t *wake = uv->data;

    wake->callback(wake->context);
}

int loop_wake_create(loop_wake_t **out, loop_t *loop, loop_fn *callback, void *context)
{
    loop_wake_t *wake = calloc(1, sizeof(*wake));

    loop_assert_owner(loop);
    *out = NULL;
    if (wake == NULL)
        return TD_ENOMEM;
    wake->callback = callback;
    wake->context = context;
    if (uv_async_init(&loop->uv, &wake->uv, wake_came) != 0) {
        free(wake);
        return TD_ENOMEM;
    }
    wake->uv.data = wake;
    *out = wake;
    return TD_OK;
}

void loop_wake_send(void *wake)
{
    uv_async_send(&((loop_wake_t *)wake)->uv);
}

void loop_wake_close(loop_wake_t **wake)
{
    if (*wake == NULL)
        return;
    uv_close((uv_handle_t *)&(*wake)->uv, (uv_close_cb)free);
    *wake = NULL;
}
