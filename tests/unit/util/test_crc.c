/* Known values of both checksums, that pieces give what the whole gives, and the mask. */
#include "common/util/crc.h"

#include "tests/support/test.h"

static void known_zip_values(void **state)
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

/* RFC 3720, appendix B.4, and the check value of the catalogue. */
static void known_castagnoli_values(void **state)
{
    unsigned char bytes[32];

    (void)state;
    assert_int_equal(crc32c("", 0), 0);
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(crc32c(bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(crc32c(bytes, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (unsigned char)i;
    assert_int_equal(crc32c(bytes, 32), 0x46dd794eu);
}

/* LevelDB's test of the same masking: it changes a checksum, also one that is masked already. */
static void masks(void **state)
{
    uint32_t crc = crc32c("foo", 3);

    (void)state;
    assert_int_equal(crc32c_mask(0), 0xa282ead8u);
    assert_int_equal(crc32c_mask(0x00008000u), 0xa282ead9u);
    assert_int_not_equal(crc, crc32c_mask(crc));
    assert_int_not_equal(crc, crc32c_mask(crc32c_mask(crc)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_zip_values),
        cmocka_unit_test(pieces_give_the_whole),
        cmocka_unit_test(known_castagnoli_values),
        cmocka_unit_test(masks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
