/* probe.h - what bin_probe.c found possible in a thread of a daemon. */
#ifndef TD_TEST_PROBE_H
#define TD_TEST_PROBE_H

#include <stdint.h>

enum {
    PROBE_READ = 1,       /* files outside */
    PROBE_WRITE = 2,
    PROBE_FAMILY = 4,     /* sockets of strange families */
    PROBE_INTERNET = 8,
    PROBE_EXECUTE = 16,
    PROBE_TRACE = 32,
    PROBE_NAMESPACE = 64,
    PROBE_CODE = 128,     /* new code in memory */
};

struct probe {
    int32_t thread;
    uint32_t possible;
};

#endif
