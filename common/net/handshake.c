#include "common/net/handshake.h"

#include <stddef.h>
#include <stdio.h>

#include <zmq.h>

#define EVENTS                                                                                                         \
    (ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

bool handshake_watch(struct handshake *handshake, void *context, void *socket)
{
    static unsigned number;
    char address[64];
    int none = 0;

    snprintf(address, sizeof(address), "inproc://handshake-%u", __atomic_add_fetch(&number, 1, __ATOMIC_RELAXED));
    handshake->since_ms = 0;
    handshake->done = false;
    handshake->monitor = zmq_socket(context, ZMQ_PAIR);
    if (handshake->monitor != NULL &&
        zmq_setsockopt(handshake->monitor, ZMQ_RCVHWM, &none, sizeof(none)) == 0 && /* or ZeroMQ would wait for us */
        zmq_setsockopt(handshake->monitor, ZMQ_LINGER, &none, sizeof(none)) == 0 &&
        zmq_socket_monitor(socket, address, EVENTS) == 0 && zmq_connect(handshake->monitor, address) == 0)
        return true;
    handshake_leave(handshake, socket);
    return false;
}

void handshake_leave(struct handshake *handshake, void *socket)
{
    if (handshake->monitor == NULL)
        return;
    zmq_socket_monitor(socket, NULL, 0);
    zmq_close(handshake->monitor);
    handshake->monitor = NULL;
}

static void failed(struct handshake *handshake, uint64_t now_ms)
{
    if (handshake->since_ms == 0)
        return;
    handshake->failures++;
    handshake->slow = now_ms - handshake->since_ms >= HANDSHAKE_LONG_MS;
    handshake->since_ms = 0;
}

static void take(struct handshake *handshake, uint16_t kind, uint32_t value, uint64_t now_ms)
{
    switch (kind) {
    case ZMQ_EVENT_CONNECTED:
        handshake->done = false;
        handshake->since_ms = now_ms;
        break;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        *handshake = (struct handshake){.monitor = handshake->monitor, .done = true};
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        handshake->mismatch = value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH;
        failed(handshake, now_ms);
        break;
    default:
        failed(handshake, now_ms);
    }
}

const char *handshake_trouble(struct handshake *handshake, bool with_keys, uint64_t now_ms)
{
    struct {
        uint16_t kind;
        uint32_t value;
    } __attribute__((packed)) event;
    char address[256];

    while (handshake->monitor != NULL &&
           zmq_recv(handshake->monitor, &event, sizeof(event), ZMQ_DONTWAIT) == (int)sizeof(event)) {
        zmq_recv(handshake->monitor, address, sizeof(address), ZMQ_DONTWAIT);
        take(handshake, event.kind, event.value, now_ms);
    }
    if (handshake->failures > 0 && handshake->mismatch)
        return with_keys ? "it speaks without keys and this part was given keys=: give them to both, or to neither"
                         : "it asks for keys: start this part with keys=DIR, as the learner was (tdmpc2 keys)";
    if (handshake->since_ms != 0 && now_ms - handshake->since_ms >= HANDSHAKE_MUTE_MS)
        return "what listens there answers no handshake: is this the address of a learner?";
    if (handshake->failures < 2) /* one alone may be a part that just ended */
        return NULL;
    if (!with_keys) /* who refuses for want of keys may be gone before he was heard out */
        return "it breaks off the handshake: it asks for keys (start this part with keys=DIR, as the learner was) or is no part of a run";
    return handshake->slow ? "it does not let this part's key in: revoked, not on its list of allowed keys, or kept out because it "
                             "sent too much"
                           : "it breaks off the handshake: its key is not the one that the list of allowed keys here names; are these "
                             "the keys of another run?";
}

const char *handshake_refusal(uint32_t error, bool with_keys)
{
    if (error == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
        return with_keys ? "it has no key: parts that join here need keys=DIR" : "it uses keys, and this part was started without";
    if (error == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
        return "it takes this part for another one: its list of allowed keys is of another run, or old";
    if (error == HANDSHAKE_BROKEN && with_keys)
        return "it left before it was done: a part without keys or with those of another run, or no part at all";
    if (error == HANDSHAKE_BROKEN)
        return "it left before it was done: a part that was given keys=, or no part at all";
    return "it does not speak as a part of a run does";
}
