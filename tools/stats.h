/* stats.h - asking the parts of a run for their metrics, and showing them side by side. */
#ifndef TD_TOOLS_STATS_H
#define TD_TOOLS_STATS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>

#include "common/net/rundir.h"
#include "common/util/fs.h"

#define STATS_PARTS_MAX 256

/* One part and its answer. */
struct stats_part {
    struct rundir_part where;
    cJSON *json; /* its snapshot, checked to be an object with "role" and "metrics"; NULL: no answer */
};

struct stats_run {
    char name[FS_PATH_MAX]; /* run directory or address */
    struct stats_part parts[STATS_PARTS_MAX];
    int count;
};

/*
 * Find the parts: `where` is a run directory, an address, or "" for the newest run under logs/.
 * TD_OK, TD_ENOTFOUND, TD_EINVAL.
 */
int stats_find(struct stats_run *run, const char *where, struct error *err);

/* Over tcp with the viewer's key, if `keys` names a directory, "" none. Ask them all, waiting at most deadline_ms. Returns how many answered, or a negative code. */
int stats_ask(struct stats_run *run, bool insecure, const char *keys, int deadline_ms, struct error *err);

/* One answer: an object with "role" and "metrics", the caller's; NULL when it is none. */
cJSON *stats_read(const char *answer, size_t length);

/* Drop the answers. */
void stats_forget(struct stats_run *run);

/* Nothing from outside may steer the terminal: whatever is no printable ASCII becomes '?'. */
void stats_printable(char *text);

/* A table of metrics (rows) and parts (columns) that fit `width` characters, then what each waits for. */
void stats_print_table(const struct stats_run *run, int width, FILE *out);

/* One JSON object on one line. TD_OK or TD_ENOMEM. */
int stats_print_json(const struct stats_run *run, FILE *out);

#endif
