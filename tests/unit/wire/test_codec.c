/* Messages survive the wire; nothing hostile survives decoding. */
#include "common/wire/codec.h"
#include "tests/support/messages.h"
#include "tests/support/test.h"
#include "tdmpc2.pb-c.h"

static codec_t *codec;
static uint8_t header[WIRE_HEADER_MAX];

static int setup(void **state)
{
    (void)state;
    return codec_create(&codec);
}

static int teardown(void **state)
{
    (void)state;
    codec_destroy(&codec);
    return 0;
}

static int decode(const struct message *message, size_t length, struct message *out,
                  struct error *err)
{
    struct bulk frames[1 + WIRE_BULK_MAX] = {{header, length}};

    for (uint32_t i = 0; i < message->bulks; i++)
        frames[1 + i] = message->bulk[i];
    return codec_decode(codec, frames, 1 + message->bulks, out, err);
}

static void every_message_comes_back_as_it_was(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++)
        for (int i = 0; i < messages_kinds(); i++) {
            struct message in, out;
            struct error err = {0};

            messages_random(test_rng(), messages_kind(i), &in);
            assert_ok(decode(&in, codec_encode(codec, &in, header), &out, &err), err);
            if (!messages_equal(&in, &out))
                fail_msg("%s changed on the wire", message_name(in.kind));
        }
}

static void every_kind_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < messages_kinds(); i++) {
        assert_string_not_equal(message_name(messages_kind(i)), "unknown");
        for (int j = 0; j < i; j++)
            assert_string_not_equal(message_name(messages_kind(i)), message_name(messages_kind(j)));
    }
    assert_string_equal(message_name(9999), "unknown");
    assert_string_not_equal(waiting_name(WAITING_LAST), "unknown");
    assert_string_equal(waiting_name(WAITING_LAST + 1), "unknown");
    assert_string_not_equal(phase_name(PHASE_FINISHING), "unknown");
}

/* Pack a protobuf that our encoder would refuse to make, then decode it. */
static int decode_envelope(Td__Envelope *envelope, size_t bulk, struct error *err)
{
    static uint8_t bytes[1 << 20];
    struct bulk frames[2] = {{header, td__envelope__pack(envelope, header)}, {bytes, bulk}};
    struct message out;

    return codec_decode(codec, frames, bulk > 0 ? 2 : 1, &out, err);
}

static void another_version_is_told_apart_from_noise(void **state)
{
    Td__Envelope envelope = TD__ENVELOPE__INIT;
    Td__Leaving leaving = TD__LEAVING__INIT;
    struct error err = {0};
    struct message out;
    struct bulk noise[3] = {{"\x07nonsense", 9}, {"", 0}, {"", 0}};

    (void)state;
    envelope.protocol = PROTOCOL_VERSION + 1;
    envelope.body_case = TD__ENVELOPE__BODY_LEAVING;
    envelope.leaving = &leaving;
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_EFOREIGN);
    assert_non_null(strstr(err.text, "version 2"));
    assert_int_equal(codec_decode(codec, noise, 1, &out, &err), TD_ECORRUPT);
    assert_int_equal(codec_decode(codec, noise, 3, &out, &err), TD_ECORRUPT);
    assert_int_equal(codec_decode(codec, noise, 0, &out, &err), TD_ECORRUPT);
    assert_int_equal(codec_decode(codec, noise, 4, &out, &err), TD_ECORRUPT);
    noise[0] = (struct bulk){"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11};
    assert_int_equal(codec_decode(codec, noise, 1, &out, &err), TD_ECORRUPT);
    noise[0] = (struct bulk){"\x08\x01", 2};
    assert_int_equal(codec_decode(codec, noise, 1, &out, &err), TD_ECORRUPT);
}

static void impossible_fields_are_refused(void **state)
{
    Td__Envelope envelope = TD__ENVELOPE__INIT;
    Td__Hello hello = TD__HELLO__INIT;
    Td__EpisodeEnd end = TD__EPISODE_END__INIT;
    Td__Rows rows = TD__ROWS__INIT;
    Td__IngestHello ingest = TD__INGEST_HELLO__INIT;
    Td__StreamShown shown = TD__STREAM_SHOWN__INIT, *many[WIRE_STREAMS_MAX + 1];
    Td__Pull pull = TD__PULL__INIT;
    char text[WIRE_ADDRESS_MAX + 1];
    struct error err = {0};

    (void)state;
    envelope.protocol = PROTOCOL_VERSION;
    envelope.body_case = TD__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    assert_ok(decode_envelope(&envelope, 0, &err), err);
    assert_int_equal(decode_envelope(&envelope, 1, &err), TD_ECORRUPT); /* bulk where none belongs */
    hello.slot = WIRE_SLOT_MAX + 1;
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "slot"));
    hello.slot = 0;
    hello.sample = "tcp://\n1.2.3.4:5";
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);
    memset(text, 'a', sizeof(text));
    text[WIRE_ADDRESS_MAX] = '\0';
    hello.sample = text;
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);

    envelope.body_case = TD__ENVELOPE__BODY_EPISODE_END;
    envelope.episode_end = &end;
    assert_ok(decode_envelope(&envelope, 0, &err), err);
    end.reward = __builtin_nan("");
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);
    end.reward = 1e308;
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);
    end.reward = -1e30;
    assert_ok(decode_envelope(&envelope, 0, &err), err);
    end.length = UINT64_MAX;
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);

    envelope.body_case = TD__ENVELOPE__BODY_ROWS;
    envelope.rows = &rows;
    rows.stride = 64;
    rows.count = 2;
    assert_ok(decode_envelope(&envelope, 128, &err), err);
    assert_int_equal(decode_envelope(&envelope, 127, &err), TD_ECORRUPT);
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);
    rows.first = UINT64_MAX - 1;
    assert_int_equal(decode_envelope(&envelope, 128, &err), TD_ECORRUPT);
    rows.first = 0;
    rows.count = WIRE_ROWS_MAX / 64 + 1;
    assert_int_equal(decode_envelope(&envelope, (size_t)rows.count * 64, &err), TD_ECORRUPT);
    rows.stride = 66;
    rows.count = 2;
    assert_int_equal(decode_envelope(&envelope, 132, &err), TD_ECORRUPT);
    rows.stride = 0;
    assert_int_equal(decode_envelope(&envelope, 128, &err), TD_ECORRUPT);

    for (int i = 0; i <= WIRE_STREAMS_MAX; i++)
        many[i] = &shown;
    envelope.body_case = TD__ENVELOPE__BODY_INGEST_HELLO;
    envelope.ingest_hello = &ingest;
    ingest.streams = many;
    ingest.n_streams = WIRE_STREAMS_MAX;
    assert_ok(decode_envelope(&envelope, 0, &err), err);
    ingest.n_streams++;
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);

    envelope.body_case = TD__ENVELOPE__BODY_PULL;
    envelope.pull = &pull;
    pull.offset = WIRE_CHUNK_BYTES + 1;
    assert_int_equal(decode_envelope(&envelope, 0, &err), TD_ECORRUPT);
}

static void versions_are_ordered_epoch_first(void **state)
{
    struct announcement old = {.epoch = 1, .version = 10500}, new = {.epoch = 2, .version = 10000};

    (void)state;
    assert_true(announcement_compare(&old, &new) < 0);
    assert_true(announcement_compare(&new, &old) > 0);
    assert_true(announcement_compare(&new, &new) == 0);
    old.epoch = 2;
    assert_true(announcement_compare(&old, &new) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back_as_it_was),
        cmocka_unit_test(every_kind_has_a_name_of_its_own),
        cmocka_unit_test(another_version_is_told_apart_from_noise),
        cmocka_unit_test(impossible_fields_are_refused),
        cmocka_unit_test(versions_are_ordered_epoch_first),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
