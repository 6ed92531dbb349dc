/* follow.h - the lines of a csv file (learner/csv.h) or a log as they are appended, across its cutting back. */
#ifndef TD_TOOLS_FOLLOW_H
#define TD_TOOLS_FOLLOW_H

#include <stdint.h>

#include "common/util/fs.h"

struct follow {
    char path[FS_PATH_MAX];
    int columns;    /* of a csv file */
    uint64_t inode; /* 0: not there yet */
    int64_t offset; /* bytes seen */
};

/* Start behind what is there now. The path must fit. */
void follow_init(struct follow *follow, const char *path, int columns);

/*
 * Call row(context, values [columns]) for each whole line that is new. A file that was replaced by a
 * shorter one is followed from its end: what it kept has been seen.
 */
void follow_poll(struct follow *follow, void (*row)(void *context, const double *values), void *context);

/* The same for any text: its whole lines, without their ends, for the time of the call. */
void follow_lines(struct follow *follow, void (*line)(void *context, const char *text, const char *end), void *context);

#endif
