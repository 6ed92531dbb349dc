/* The checksum of zip files: known values, and that pieces give what the whole gives. */
#include "common/util/crc32.h"

#include "tests/support/test.h"

static void known_values(void **state)
{
    (void)state;
    assert_int_equal(crc32_add(0, "", 0), 0);
    assert_int_equal(crc32_add(0, "123456789", 9), 0xcbf43926u);
    assert_int_equal(crc32_add(0, "The quick brown fox jumps over the lazy dog", 43), 0x414fa339u);
}

static void pieces_give_the_whole(void **state)
{
    unsigned char bytes[257];
    uint32_t whole;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)rng_u32(test_rng());
    whole = crc32_add(0, bytes, sizeof(bytes));
    for (size_t cut = 0; cut <= sizeof(bytes); cut++)
        assert_int_equal(crc32_add(crc32_add(0, bytes, cut), bytes + cut, sizeof(bytes) - cut), whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(pieces_give_the_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
