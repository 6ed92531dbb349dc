/*
 * small_disk.h - a disk of a few megabytes, made of memory, that a test can fill.
 *
 * It is mounted in a mount namespace of the test's own, so that nobody else sees it and it goes with the
 * process; who is not root takes a user namespace, where that is allowed.
 */
#ifndef TD_TEST_SMALL_DISK_H
#define TD_TEST_SMALL_DISK_H

#include <stdint.h>

/* Mount it on `dir` (made). Call before any thread is started. NULL, or why it cannot be. */
const char *small_disk_mount(const char *dir, uint64_t bytes);

/* Fill it but for `leave` bytes, or give the room back. */
void small_disk_fill(const char *dir, uint64_t leave);
void small_disk_empty(const char *dir);

#endif
