/*
 * What an environment's process sends: a reply within its bounds, or the process is given up.
 *
 * Input: the kind of the request, its sequence, then the reply's header.
 */
#include "common/env/bridge_message.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(110000, 4096);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bridge_reply reply = {0};
    struct error err = {0};
    int rc;

    if (size < 2)
        return 0;
    rc = bridge_reply_unpack(&reply, BRIDGE_OPEN + data[0] % (BRIDGE_CLOSE - BRIDGE_OPEN), data[1], data + 2, size - 2, &err);
    TD_ASSERT(rc == TD_OK || rc == TD_ECORRUPT || rc == TD_ESETUP || rc == TD_EINVAL || rc == TD_ELOST, "%d", rc);
    TD_ASSERT(rc == TD_OK || (err.text[0] != '\0' && err.code == rc));
    TD_ASSERT(memchr(reply.name, '\0', sizeof(reply.name)) != NULL);
    return 0;
}
