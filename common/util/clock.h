/*
 * clock.h - monotonic and wall time. State machines never call these: they are handed the time.
 */
#ifndef TD_UTIL_CLOCK_H
#define TD_UTIL_CLOCK_H

#include <stdint.h>

/* Nanoseconds, milliseconds since an arbitrary start; never goes back; counts no suspended time. */
uint64_t clock_ns(void);
uint64_t clock_ms(void);

/* Milliseconds since 1970, UTC. */
uint64_t clock_wall_ms(void);

/* Sleep this long, resuming after signals. */
void clock_sleep_ms(uint64_t ms);

#endif
