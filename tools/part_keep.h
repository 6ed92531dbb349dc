/* part_keep.h - starting the keeper of a part (part.h). */
#ifndef TD_TOOLS_PART_KEEP_H
#define TD_TOOLS_PART_KEEP_H

#include <stdint.h>

#include "tools/part.h"

struct part_order {
    const char *dir;          /* of the run, absolute */
    char name[PART_NAME_MAX]; /* of the part */
    int number;
    const char *program;      /* "tdmpc2-actor", beside this one */
    const char *const *words; /* key=value, NULL-terminated */
    uint64_t patience_ms;     /* from SIGTERM to SIGKILL */
    int ready;                /* closed once the part is noted; -1: nobody waits for that */
};

/*
 * Start a keeper in a session of its own, which outlives this process; its part's log is DIR/NAME.log.
 * Returns TD_OK at once; what becomes of it is noted in DIR/run/NAME.pid. Until order->ready is closed, which the
 * keeper does, that file may still tell of an earlier part of the name. The caller keeps its own descriptor.
 */
int part_keep(const struct part_order *order, struct error *err);

/* Be that keeper, with the descriptors there are, until the part has ended: its exit code. */
int part_run(const struct part_order *order);

#endif
