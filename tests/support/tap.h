/*
 * tap.h - what actors sent and what was acknowledged to them, and whether a store agrees.
 *
 * bin_tap.c, preloaded into the actors, notes every frame; tap_load decodes rows, acknowledgements and
 * welcomes. tap_audit reads a copy of the store and compares it, row by row.
 *
 * A row is named by (store, slot, environment, epoch, sequence). What must hold:
 *   - a row sent twice has the same bytes both times;
 *   - every row in the store was sent, has those bytes, and is there once;
 *   - every acknowledged row is in the store, or was evicted: it is older than all its stream still has,
 *     and the store's own count of what it took in agrees.
 */
#ifndef TD_TEST_TAP_H
#define TD_TEST_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tap_kind { TAP_SENT = 1, TAP_UNSENT, TAP_RECEIVED };

#define TAP_HEARD_MAX 4096 /* of longer frames heard (parameters) only the head is noted */

/* In front of a frame's bytes. TAP_UNSENT: the frame noted before did not go out. */
struct tap_head {
    uint64_t socket;
    uint64_t length;
    uint32_t kind;
    uint32_t more;
};

/* A stream's epoch: what was sent of it, and how far it was acknowledged. */
struct tap_stream {
    uint64_t store, epoch;
    uint32_t slot, env;
    uint64_t sent, acked;       /* rows; sequences begin at 0 */
    uint64_t *hash;             /* [sent]; 0: never seen */
    uint8_t *seen;              /* [sent] of the audit */
    uint64_t capacity;
};

struct tap {
    struct tap_stream *streams;
    size_t count;
    uint64_t messages, rows, resent;
    uint64_t said[64]; /* by kind of message: sent by actors */
    uint64_t files;
};

struct tap_result {
    uint64_t kept;    /* rows found in the store */
    uint64_t evicted; /* that the store has let go of */
    uint64_t acked;   /* acknowledged in all */
    uint64_t sent;    /* distinct rows that were sent */
};

/* Where the preloaded library lies; NULL when this build has none. */
const char *tap_library(void);

/* Preload another bin_NAME.so as well, after tap_start and until it ends. */
void tap_preload(const char *name);

/* Preload it into what is started from now on, noting into `folder` (made); NULL: no more. */
void tap_start(const char *folder);

/* Read all notes. Fails the test when two rows of one name differ. */
void tap_load(struct tap *tap, const char *folder);
void tap_release(struct tap *tap);

/*
 * Compare with the store in `dir`, which nobody may be writing: a copy is read. Fails the test with a
 * sentence. `buffer`: rows that must not have been evicted (0: none may have been).
 */
struct tap_result tap_audit(struct tap *tap, const char *dir, uint64_t buffer);

#endif
