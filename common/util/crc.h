/*
 * crc.h - checksums of other people's file formats: CRC-32 (zip) and CRC-32C (TFRecord).
 *
 * Source:  PKWARE APPNOTE 6.3.10, 4.4.7 (polynomial 0x04c11db7, reflected); RFC 3720, appendix B.4 (Castagnoli, 0x1edc6f41,
 *          reflected); tables of eight bytes at a time as Kounavis and Berry, 2005.
 */
#ifndef TD_UTIL_CRC_H
#define TD_UTIL_CRC_H

#include <stddef.h>
#include <stdint.h>

/* The CRC-32 of what `crc` is of, followed by bytes [length]; of nothing it is 0. */
uint32_t crc32_add(uint32_t crc, const void *bytes, size_t length);

uint32_t crc32c(const void *bytes, size_t length);

/* A checksum of bytes that hold checksums is kept masked, so that it is none of itself (TFRecord). */
uint32_t crc32c_mask(uint32_t crc);

#endif
