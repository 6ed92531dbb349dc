/*
 * Frames of a message: refused with a sentence, or a message that is encoded and decoded again the same.
 *
 * Input: pieces of u16 length and bytes, the first the header frame, then up to three raw frames.
 */
#include "common/wire/codec.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(1000000, 4096);

#define FRAMES 4

static size_t cut(const uint8_t *data, size_t size, struct bulk frames[FRAMES])
{
    size_t count = 0;

    while (count < FRAMES && size >= 2) {
        size_t length = data[0] | (size_t)data[1] << 8;

        data += 2;
        size -= 2;
        if (length > size)
            length = size;
        frames[count++] = (struct bulk){data, length};
        data += length;
        size -= length;
    }
    return count;
}

static void same_again(codec_t *codec, const struct message *message, struct bulk frames[FRAMES])
{
    static uint8_t first[WIRE_HEADER_MAX], second[WIRE_HEADER_MAX];
    static struct message back;
    struct error err = {0};
    int rc;

    frames[0] = (struct bulk){first, codec_encode(codec, message, first)};
    rc = codec_decode(codec, frames, 1 + message->bulks, &back, &err);
    TD_ASSERT(rc == TD_OK, "kind %d does not decode again: %s", (int)message->kind, err.text);
    TD_ASSERT(back.kind == message->kind && back.run == message->run && back.bulks == message->bulks);
    TD_ASSERT(codec_encode(codec, &back, second) == frames[0].size && memcmp(first, second, frames[0].size) == 0,
              "kind %d changes when it is encoded twice", (int)message->kind);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct message message;
    static codec_t *codec;
    struct bulk frames[FRAMES];
    size_t count = cut(data, size, frames);
    struct error err = {0};

    if (codec == NULL)
        TD_ASSERT(codec_create(&codec) == TD_OK);
    if (count == 0)
        return 0;
    if (codec_decode(codec, frames, count, &message, &err) == TD_OK)
        same_again(codec, &message, frames);
    else
        TD_ASSERT(err.text[0] != '\0', "refused without a sentence");
    return 0;
}
