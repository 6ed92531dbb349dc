/*
 * loops.h - the event loop in tests: turned until something has come, and addresses to meet at.
 */
#ifndef TD_TEST_LOOPS_H
#define TD_TEST_LOOPS_H

#include "common/net/loop.h"

#define LOOPS_DEADLINE_MS 20000

/* Run the loop until *value reaches `wanted`; fails after the deadline. */
void loops_pump(loop_t *loop, const int *value, int wanted);

/* Another ipc address in the test's folder; valid until the next call. */
const char *loops_ipc_address(void);

#endif
