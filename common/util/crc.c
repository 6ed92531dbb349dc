#include "common/util/crc.h"

#include <pthread.h>
#include <string.h>

/* at[k][b]: byte b followed by k zero bytes. */
struct table {
    uint32_t at[8][256];
};

static struct table zip, castagnoli;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_table(struct table *table, uint32_t polynomial)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;

        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
        table->at[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++)
            table->at[k][b] = table->at[k - 1][b] >> 8 ^ table->at[0][table->at[k - 1][b] & 255];
}

static void make_tables(void)
{
    make_table(&zip, 0xedb88320u);
    make_table(&castagnoli, 0x82f63b78u);
}

static uint32_t add(const struct table *table, uint32_t crc, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;

    crc = ~crc;
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word;

        memcpy(&word, at, sizeof(word)); /* little-endian, as all our files */
        word ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= table->at[7 - k][word >> 8 * k & 255];
    }
    for (; length > 0; at++, length--)
        crc = crc >> 8 ^ table->at[0][(crc ^ *at) & 255];
    return ~crc;
}

uint32_t crc32_add(uint32_t crc, const void *bytes, size_t length)
{
    pthread_once(&once, make_tables);
    return add(&zip, crc, bytes, length);
}

uint32_t crc32c(const void *bytes, size_t length)
{
    pthread_once(&once, make_tables);
    return add(&castagnoli, 0, bytes, length);
}

uint32_t crc32c_mask(uint32_t crc)
{
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}
