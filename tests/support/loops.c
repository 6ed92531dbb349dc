#include "tests/support/loops.h"

#include "common/net/address.h"
#include "common/util/clock.h"
#include "tests/support/test.h"

void loops_pump(loop_t *loop, const int *value, int wanted)
{
    uint64_t start = clock_ms();

    while (*value < wanted) {
        if (clock_ms() - start > LOOPS_DEADLINE_MS)
            fail_msg("waited %d ms: %d of %d", LOOPS_DEADLINE_MS, *value, wanted);
        loop_run_for(loop, 20);
    }
}

const char *loops_ipc_address(void)
{
    static char address[ADDRESS_MAX];
    static int number;

    snprintf(address, sizeof(address), "ipc://%s/%d", test_folder(), number++);
    return address;
}
