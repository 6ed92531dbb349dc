/*
 * promise.h - what was promised about a replay store, noted outside of it, and whether a store keeps it.
 *
 * Whatever befell the disk: the store opens, every acknowledged row is there as it was sent or was let go
 * of, each row once, nothing that was never sent.
 */
#ifndef TD_TEST_PROMISE_H
#define TD_TEST_PROMISE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/store/row.h"

#define PROMISE_SLOTS  4u
#define PROMISE_EPOCHS 32u

/* Make the row of this name with these flags. */
typedef void promise_row_fn(void *row, const struct row_schema *schema, uint32_t slot, uint64_t epoch,
                            uint64_t sequence, uint32_t flags);

struct promise {
    struct row_schema schema;
    promise_row_fn *row;
    uint64_t run;
    uint64_t sent[PROMISE_SLOTS][PROMISE_EPOCHS];  /* rows that might be there */
    uint64_t acked[PROMISE_SLOTS][PROMISE_EPOCHS]; /* of them must be, or have been let go of */
    uint64_t evicting;                             /* episodes below this might have been let go of */
    uint64_t kept;                                 /* as many rows, if ever taken in, were not let go of */
};

struct promise_found {
    uint64_t kept, evicted, taken; /* rows */
    uint64_t damaged;              /* episodes set aside; the audit lets none pass */
};

/* Fail the test, naming `where`, unless the store in `dir` keeps the promise. It is opened and sealed. */
struct promise_found promise_audit(const char *dir, const struct promise *promise, const char *where);

#endif
