/*
 * What an environment's process writes to its socket: a reply within its bounds, or the process is given up.
 *
 * Input: the kind of the request, then what the socket holds.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "common/env/bridge_link.h"
#include "common/util/log.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(110000, 4096);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bridge_request request = {.task = "gym-Toy-v0"};
    struct bridge_reply reply = {0};
    struct error err = {0};
    bridge_link_t *link;
    int ends[2], rc;

    if (size < 1 || size > 65536)
        return 0;
    request.kind = BRIDGE_OPEN + data[0] % (BRIDGE_CLOSE - BRIDGE_OPEN);
    TD_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    TD_ASSERT(bridge_link_adopt(&link, ends[0]) == TD_OK);
    TD_ASSERT(write(ends[1], data + 1, size - 1) == (ssize_t)size - 1);
    shutdown(ends[1], SHUT_WR);
    rc = bridge_link_call(link, &request, &reply, 1000, &err);
    TD_ASSERT(rc == TD_OK || err.text[0] != '\0');
    if (rc == TD_OK) {
        TD_ASSERT(memchr(reply.name, '\0', sizeof(reply.name)) != NULL && reply.bulk_size < size);
        for (size_t i = 0; i < reply.bulk_size; i++)
            (void)*(volatile const uint8_t *)((const uint8_t *)reply.bulk + i);
    }
    bridge_link_close(&link);
    close(ends[1]);
    return 0;
}
