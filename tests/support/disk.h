/*
 * disk.h - the states that a disk may be found in, from a record of what a program did to it (record.h).
 *
 * After a power loss what was synced is there. Of the rest anything may be: each write, each page or
 * sector of one, each change of a name, a file's new length. A sync counts for what was noted before it
 * began, once it has succeeded; a file's sync says nothing of its name, which only its folder's does.
 *
 * Owns:    the record, in memory.
 * Thread:  one.
 */
#ifndef TD_TEST_DISK_H
#define TD_TEST_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/record.h"

typedef struct disk disk_t;

/* What became of what was not synced. */
enum disk_loss {
    DISK_KEPT,    /* all of it is there: a kill, or luck */
    DISK_LOST,    /* nothing of it */
    DISK_WRITES,  /* some writes and names */
    DISK_PAGES,   /* each page as it was at some moment; of the names, a beginning */
    DISK_SECTORS, /* each sector, and some names */
    DISK_TORN,    /* all but parts of the last write */
    DISK_LOSSES,
};

/* Start recording `dir` (which exists) in what is started from now on; NULL: no more. */
void disk_record(const char *dir, const char *log);

/* Read a record. Fails the test where it does not hold together. */
disk_t *disk_load(const char *dir, const char *log);
void disk_destroy(disk_t **disk);

/* Events, in order; the payload of event i and its record. */
size_t disk_events(const disk_t *disk);
const struct record *disk_event(const disk_t *disk, size_t event);
const char *disk_payload(const disk_t *disk, size_t event);

/* Make `dir` (removed first) what the disk may be after the first `events` events. */
void disk_image(disk_t *disk, size_t events, enum disk_loss loss, uint64_t seed, const char *dir);

/* Fail unless all events together make what `dir` is now: nothing went unseen but the maps of `except`. */
void disk_expect_whole(disk_t *disk, const char *dir, const char *scratch, const char *except);

/* For messages: "after event 17 of 300 (pwrite of ...), sectors". */
const char *disk_describe(const disk_t *disk, size_t events, enum disk_loss loss, uint64_t seed);

#endif
