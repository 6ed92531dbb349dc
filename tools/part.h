/*
 * part.h - a part of a launched run on its host: what it left in DIR/run/NAME.pid, and whether that is true.
 *
 * A part is followed by a keeper, a process of `tdmpc2 part` without a terminal: it starts the part again when that
 * dies (net/process.h, restart), hands SIGTERM on, and notes the end. A pid counts only with its start time, the
 * machine and the boot it was noted on.
 */
#ifndef TD_TOOLS_PART_H
#define TD_TOOLS_PART_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "common/util/error.h"
#include "common/util/fs.h"

#define PART_NAME_MAX 32

struct part_note {
    char name[PART_NAME_MAX]; /* "learner", "actor-3", "replay-1" */
    pid_t keeper, child;      /* child 0: between two starts */
    unsigned long long keeper_start, child_start; /* in clock ticks since boot */
    int restarts;
    int code;                 /* -1: it runs; else what it ended with */
    char host[128];           /* rundir_here() */
};

/* Clock ticks from boot to the start of this process; 0: there is none. */
unsigned long long part_start_time(pid_t pid);

/* "learner", "actor-12" or "replay-1"? */
bool part_name_valid(const char *name);

/* Write and read DIR/run/NAME.pid. TD_OK, TD_ENOTFOUND, TD_ECORRUPT, or what writing says. */
int part_note_write(const char *dir, const struct part_note *note, struct error *err);
int part_note_read(const char *dir, const char *name, struct part_note *note, struct error *err);

/* A line of `part status`, as it is read back by launch. */
void part_note_print(const struct part_note *note, FILE *out);
bool part_note_parse(const char *line, struct part_note *note);

/* Is its keeper there, on this machine, and still the process that was noted? */
bool part_alive(const struct part_note *note);

#endif
