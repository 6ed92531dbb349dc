/*
 * spill.h - room for large numbers outside of memory: a file without a name in a folder, gone with its owner.
 *
 * The room is there when it is opened, so a disk that fills up later takes nothing away. Nothing is synced: what is in
 * it is lost with the process. The kernel keeps what it has memory for and may drop the rest.
 *
 * Owns:    the file.
 * Thread:  reads and writes of different bytes may go on at once, on any threads.
 */
#ifndef TD_UTIL_SPILL_H
#define TD_UTIL_SPILL_H

#include <stddef.h>
#include <stdint.h>

#include "common/util/error.h"

typedef struct spill spill_t;

/* `bytes` of room in a file of `folder`. TD_OK, TD_ENOMEM, TD_EIO, TD_EFULL (what is wanted is named). */
int spill_open(spill_t **out, const char *folder, uint64_t bytes, struct error *err);
void spill_close(spill_t **spill);

/* All of it, at this offset. TD_OK, TD_EIO. */
int spill_write(const spill_t *spill, uint64_t at, const void *bytes, size_t length, struct error *err);
int spill_read(const spill_t *spill, uint64_t at, void *out, size_t length, struct error *err);

#endif
