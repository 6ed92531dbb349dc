/*
 * fail.h - make the k-th call of a kind fail: what bin_fail.c, preloaded into a program, does to the system
 * calls that concern files under one directory, or to its allocations.
 *
 * The plan comes from the environment ($TD_FAIL_DIR, _CALL, _AT, _ERRNO, _FOREVER); what happened is told in
 * the file $TD_FAIL_REPORT. A program can also find `fail_plan` and `fail_report` with dlsym and set the
 * plan for itself and for the children that it forks.
 */
#ifndef TD_TEST_FAIL_H
#define TD_TEST_FAIL_H

#include <stdbool.h>
#include <stdint.h>

#define FAIL_SHORT 1000 /* instead of an errno: half of the bytes are written */

struct fail_report {
    uint64_t calls; /* of the kind, since the plan was made */
    uint64_t hits;  /* that failed */
    uint64_t syncs_after; /* syncs of a file after one of it had failed */
};

/* `at` 0: none fails, all are counted. call: "pwrite", "writev", "fdatasync", ... or "malloc". */
typedef void fail_plan_fn(const char *dir, const char *call, uint64_t at, int errnum, bool forever);

/* In memory that parent and children share. */
typedef struct fail_report *fail_report_fn(void);

/* Preload the library into what is started from now on, with this plan; call NULL: no more. */
void fail_preload(const char *dir, const char *call, uint64_t at, int errnum, bool forever, const char *report);
struct fail_report fail_read(const char *report);

/* Run this program again with the library preloaded and no plan; never returns. */
void fail_again(char **argv) __attribute__((noreturn));

#endif
