/*
 * tail.h - one of the run's CSV files as a curve of bounded size, read as it grows.
 *
 * Of the lines after the header every n-th is kept, n twice as large whenever they are more than TAIL_LINES or
 * TAIL_BYTES; and the last. A file that is replaced or shorter than before (a learner went back) is read anew.
 *
 * Owns:    the lines.
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_DASHBOARD_TAIL_H
#define TD_LEARNER_DASHBOARD_TAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/util/fs.h"

#define TAIL_LINES 1000
#define TAIL_BYTES ((size_t)768 << 10)
#define TAIL_LINE  16384 /* the longest; a file with a longer one is no curve from there on */

struct tail {
    char path[FS_PATH_MAX];
    ino_t inode;
    uint64_t offset; /* read as far as here */
    char *text;      /* header and kept lines, each with its newline; or NULL */
    size_t used, header;
    uint64_t seen;   /* lines after the header */
    uint64_t every, kept;
    bool last_kept;  /* the last of the lines in text is one that stays */
    char line[TAIL_LINE]; /* not yet ended */
    size_t line_used;
    bool broken;     /* no longer followed */
};

void tail_init(struct tail *tail, const char *path);
void tail_release(struct tail *tail);

/* What was written since. A file that is not there (yet) is an empty curve. False: out of memory. */
bool tail_read(struct tail *tail);

#endif
