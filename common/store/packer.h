/*
 * packer.h - frames compressed with zstd: contexts and room made once, so that reading allocates nothing.
 *
 * What it is given to unpack is hostile: nothing but one whole zstd frame of exactly the promised size
 * is taken, and the library is never asked for more room than there is.
 *
 * Owns:    zstd's contexts, room for the rows of one segment.
 * Thread:  one.
 */
#ifndef TD_STORE_PACKER_H
#define TD_STORE_PACKER_H

#include <stdbool.h>
#include <stddef.h>

#define PACKER_LEVEL 1

typedef struct packer packer_t;

/* TD_OK or TD_ENOMEM. destroy accepts NULL. */
int packer_create(packer_t **out);
void packer_destroy(packer_t **packer);

/*
 * Compress `length` bytes. Returns how many they became in out [length], or 0 when not fewer. The first
 * call makes zstd's own tables.
 */
size_t packer_pack(packer_t *packer, void *out, const void *in, size_t length);

/* The opposite, into exactly `length` bytes; false when it is anything else. Never allocates. */
bool packer_unpack(packer_t *packer, void *out, size_t length, const void *in, size_t packed);

/* Room of SEGMENT_BYTES_MAX for rows that were unpacked; whoever asks next has it. */
void *packer_room(packer_t *packer);

#endif
