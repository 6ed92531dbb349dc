/* crc32c.h - the Castagnoli checksum (RFC 3720, appendix B.4), and the masked form of TFRecord files. */
#ifndef TD_UTIL_CRC32C_H
#define TD_UTIL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *bytes, size_t length);

/* A checksum of bytes that hold checksums is kept masked, so that it is none of itself. */
uint32_t crc32c_mask(uint32_t crc);

#endif
