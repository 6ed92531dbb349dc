#include "tests/support/test.h"

#include "common/util/crc32c.h"

/* RFC 3720, appendix B.4, and the check value of the catalogue. */
static void known_values(void **state)
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_values), cmocka_unit_test(masks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
