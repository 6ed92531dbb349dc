/*
 * Mutated messages: whatever comes out of the decoder is refused with a sentence or is a message that
 * can be encoded again and comes back the same.
 */
#include "common/util/fs.h"
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

/* A message as an input of the fuzz target: pieces of u16 length and bytes. */
static size_t put_piece(uint8_t *out, const void *bytes, size_t length)
{
    out[0] = (uint8_t)length;
    out[1] = (uint8_t)(length >> 8);
    memcpy(out + 2, bytes, length);
    return length + 2;
}

static void write_seed(codec_t *codec, const char *path, const struct message *message)
{
    static uint8_t header[WIRE_HEADER_MAX], input[200000];
    size_t size = put_piece(input, header, codec_encode(codec, message, header));
    FILE *out = fopen(path, "wb");

    for (uint32_t i = 0; i < message->bulks && message->bulk[i].size < 3000; i++)
        size += put_piece(input + size, message->bulk[i].data, message->bulk[i].size);
    assert_non_null(out);
    assert_int_equal(fwrite(input, 1, size, out), size);
    fclose(out);
}

/*
 * tests/fuzz/corpus/message begins with every kind there is; TD_FUZZ_SEEDS=FOLDER writes such seeds anew, for
 * when a kind is added or changed.
 */
static void the_corpus_knows_every_kind(void **state)
{
    const char *folder = getenv("TD_FUZZ_SEEDS");
    struct rng rng;
    codec_t *codec = NULL;

    (void)state;
    rng_init(&rng, &(struct rng_key){.seed = 1, .purpose = RNG_TEST});
    assert_int_equal(codec_create(&codec), TD_OK);
    for (int i = 0; i < messages_kinds(); i++) {
        char path[500], *bytes;
        struct message message;
        struct error err = {0};
        struct bulk header;
        size_t length;

        snprintf(path, sizeof(path), "%s/kind-%02u", folder != NULL ? folder : "tests/fuzz/corpus/message",
                 messages_kind(i));
        messages_random(&rng, messages_kind(i), &message);
        if (folder != NULL)
            write_seed(codec, path, &message);
        assert_ok(fs_read_file(path, 1u << 20, &bytes, &length, &err), err);
        assert_true(length > 2);
        header = (struct bulk){bytes + 2, (uint8_t)bytes[0] | (size_t)(uint8_t)bytes[1] << 8};
        assert_true(header.size <= length - 2);
        /* without its raw frames it may be refused, but not as something that is not known */
        if (codec_decode(codec, &header, 1, &message, &err) == TD_OK)
            assert_int_equal(message.kind, messages_kind(i));
        else
            assert_non_null(strstr(err.text, "frame"));
        free(bytes);
    }
    codec_destroy(&codec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutated_messages_are_refused_or_sound),
        cmocka_unit_test(the_corpus_knows_every_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
