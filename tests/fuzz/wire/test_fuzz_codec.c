/*
 * Mutated messages: whatever comes out of the decoder is refused with a sentence or is a message that
 * can be encoded again and comes back the same.
 */
#include "common/wire/codec.h"
#include "tests/support/messages.h"
#include "tests/support/test.h"

static void mutate(uint8_t *bytes, size_t *length, size_t capacity)
{
    struct rng *rng = test_rng();
    uint32_t changes = 1 + rng_below(rng, 8);

    while (changes-- > 0 && *length > 0) {
        uint32_t at = rng_below(rng, (uint32_t)*length);

        switch (rng_below(rng, 5)) {
        case 0: bytes[at] ^= (uint8_t)(1u << rng_below(rng, 8)); break;
        case 1: bytes[at] = (uint8_t)rng_u32(rng); break;
        case 2: *length = at; break;
        case 3:
            if (*length < capacity) {
                memmove(bytes + at + 1, bytes + at, *length - at);
                bytes[at] = (uint8_t)rng_u32(rng);
                ++*length;
            }
            break;
        default:
            memmove(bytes + at, bytes + at + 1, *length - at - 1);
            --*length;
        }
    }
}

static void mutated_messages_are_refused_or_sound(void **state)
{
    static uint8_t header[WIRE_HEADER_MAX], again[WIRE_HEADER_MAX];
    codec_t *codec = NULL;
    long rounds = test_long() ? 3000000 : 150000, sound = 0;

    (void)state;
    assert_int_equal(codec_create(&codec), TD_OK);
    for (long round = 0; round < rounds; round++) {
        struct message in, out, back;
        struct error err = {0};
        struct bulk frames[1 + WIRE_BULK_MAX];
        uint8_t *exact;
        size_t length;

        messages_random(test_rng(),
                        messages_kind((int)rng_below(test_rng(), (uint32_t)messages_kinds())), &in);
        length = codec_encode(codec, &in, header);
        mutate(header, &length, sizeof(header));
        exact = malloc(length > 0 ? length : 1); /* so that a sanitizer sees reads past the end */
        memcpy(exact, header, length);
        frames[0] = (struct bulk){exact, length};
        for (uint32_t i = 0; i < in.bulks; i++)
            frames[1 + i] = in.bulk[i];
        if (codec_decode(codec, frames, 1 + in.bulks, &out, &err) == TD_OK) {
            sound++;
            frames[0] = (struct bulk){again, codec_encode(codec, &out, again)};
            assert_ok(codec_decode(codec, frames, 1 + out.bulks, &back, &err), err);
            assert_true(messages_equal(&out, &back));
        } else {
            assert_true(err.text[0] != '\0');
        }
        free(exact);
    }
    assert_true(sound > 0);
    codec_destroy(&codec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mutated_messages_are_refused_or_sound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
