/*
 * segments.h - segments whose hashes hold over whatever else they say: what a liar may write.
 */
#ifndef TD_TEST_SEGMENTS_H
#define TD_TEST_SEGMENTS_H

#include <stddef.h>

/*
 * Make every hash of bytes [length] agree with the head, the tables and the rows as they are. False, and
 * nothing done, when even the tables do not lie within `length`.
 */
_Bool test_segment_rehash(char *bytes, size_t length);

#endif
