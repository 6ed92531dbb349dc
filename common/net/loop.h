/*
 * loop.h - a daemon's one event loop (libuv): timers, signals, wake-ups from other threads.
 *
 * Owns:    every handle made here; loop_destroy closes what is still open.
 * Thread:  all calls on the thread that created the loop, except loop_wake_send.
 *
 * Callbacks run inside loop_run, one at a time, and must not block. They may close or stop anything,
 * themselves included.
 */
#ifndef TD_NET_LOOP_H
#define TD_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/error.h"

typedef struct loop loop_t;
typedef struct loop_timer loop_timer_t;
typedef struct loop_wake loop_wake_t;
struct uv_loop_s;

typedef void loop_fn(void *context);

/* Also ignores SIGPIPE for the process. Returns TD_OK, TD_ENOMEM or TD_EIO. */
int loop_create(loop_t **out, struct error *err);

/* Close every handle and run until they are gone. Channels and processes must be closed before. */
void loop_destroy(loop_t **loop);

/* Run callbacks until loop_stop. */
void loop_run(loop_t *loop);

/* Run what is due now, waiting at most `wait_ms` for something to happen. For tests and drains. */
void loop_run_for(loop_t *loop, uint64_t wait_ms);

/* Let loop_run return after this callback. */
void loop_stop(loop_t *loop);

/* clock_ms(), for the state machines this loop feeds. */
uint64_t loop_now_ms(const loop_t *loop);

/* Assert that the caller is the owning thread. */
void loop_assert_owner(const loop_t *loop);

/* For channel.c and process.c. */
struct uv_loop_s *loop_uv(loop_t *loop);

/*
 * Call `callback` after first_ms and then every every_ms (0: once). A timer that was held up fires
 * once, not once per missed beat. Returns TD_OK or TD_ENOMEM.
 */
int loop_timer_start(loop_timer_t **out, loop_t *loop, uint64_t first_ms, uint64_t every_ms,
                     loop_fn *callback, void *context);

/* Set it again: next call after first_ms, then every every_ms. */
void loop_timer_again(loop_timer_t *timer, uint64_t first_ms, uint64_t every_ms);

/* Keep it, but silent until loop_timer_again. */
void loop_timer_pause(loop_timer_t *timer);

void loop_timer_close(loop_timer_t **timer);

/*
 * SIGTERM and SIGINT, counted together: callback(context, signum, count), count = 1 for the first. At
 * the second a daemon exits at once (PROTOCOL, section 7). Returns TD_OK or TD_EIO.
 */
int loop_signals(loop_t *loop, void (*callback)(void *context, int signum, int count),
                 void *context, struct error *err);

/* A wake-up: any number of sends before the loop comes round make one call. */
int loop_wake_create(loop_wake_t **out, loop_t *loop, loop_fn *callback, void *context);

/* From any thread; never blocks. Has the shape of queue_create's `wake`. */
void loop_wake_send(void *wake);

/* No other thread may send any more. */
void loop_wake_close(loop_wake_t **wake);

#endif
