#include "tests/support/raw_peer.h"

#include <zmq.h>

#include "common/util/clock.h"
#include "common/wire/message.h"

void raw_say(codec_t *codec, void *socket, const struct message *message)
{
    uint8_t header[WIRE_HEADER_MAX];
    size_t length = codec_encode(codec, message, header);

    zmq_send(socket, header, length, message->bulks > 0 ? ZMQ_SNDMORE : 0);
    for (uint32_t i = 0; i < message->bulks; i++)
        zmq_send(socket, message->bulk[i].data, message->bulk[i].size, i + 1 < message->bulks ? ZMQ_SNDMORE : 0);
}

bool raw_hear(codec_t *codec, void *socket, uint32_t kind, struct message *message, int ms)
{
    static uint64_t frames[1 + WIRE_BULK_MAX][WIRE_STATE_MAX / 8];
    uint64_t end = clock_ms() + (uint64_t)ms;

    while (clock_ms() < end) {
        struct bulk bulks[1 + WIRE_BULK_MAX];
        size_t count = 0;
        struct error err;
        int more = 1;

        while (more && count <= WIRE_BULK_MAX) {
            size_t size = sizeof(more);
            int length = zmq_recv(socket, frames[count], sizeof(frames[count]), 0);

            if (length < 0)
                break;
            bulks[count] = (struct bulk){frames[count], (size_t)length};
            count++;
            zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
        }
        if (count > 0 && codec_decode(codec, bulks, count, message, &err) == TD_OK &&
            (kind == 0 || message->kind == kind))
            return true;
    }
    return false;
}
