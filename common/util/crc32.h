/*
 * crc32.h - the checksum of zip files (CRC-32/ISO-HDLC: polynomial 0x04c11db7 reflected).
 *
 * Source:  PKWARE APPNOTE 6.3.10, 4.4.7; tables of eight bytes at a time as Kounavis and Berry, 2005.
 */
#ifndef TD_UTIL_CRC32_H
#define TD_UTIL_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what `crc` is of, followed by bytes [length]; of nothing it is 0. */
uint32_t crc32_add(uint32_t crc, const void *bytes, size_t length);

#endif
