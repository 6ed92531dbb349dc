/*
 * manifest.h - manifest.json of a checkpoint: what it is, whose, made how, and the hash of each file.
 *
 * The fixed part are fields here; `progress` (counters, schedule, marks) and `seeds` are open JSON
 * objects of the learner, kept as they are. The reader treats the file as hostile: size, types, ranges and names are checked,
 * options go through the same table as the command line's.
 *
 * Owns:    its JSON values.
 * Thread:  one at a time.
 */
#ifndef TD_CKPT_MANIFEST_H
#define TD_CKPT_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "common/util/config.h"
#include "common/util/fs.h"

#define MANIFEST_FORMAT     1
#define MANIFEST_FILES_MAX  16
#define MANIFEST_NAME_MAX   64
#define MANIFEST_BYTES_MAX  (1u << 20)

/* What a checkpoint may be resumed as; bits, so that a search can name several. */
enum checkpoint_kind {
    CHECKPOINT_ASYNC = 1, /* of an asynchronous run */
    CHECKPOINT_CUT = 2,   /* lock-step: just before a Go */
    CHECKPOINT_BURST = 4, /* lock-step: the last Go's state and the updates of the burst so far */
    CHECKPOINT_FINAL = 8, /* the end of a run */
    CHECKPOINT_ANY = 15,
};

struct manifest_file {
    char name[MANIFEST_NAME_MAX];
    uint64_t bytes;
    char sha256[FS_SHA256_HEX];
};

struct manifest {
    char version[32];     /* of the program that wrote it */
    enum checkpoint_kind kind;
    uint64_t sequence;    /* rises by one with each checkpoint of a run: the largest is the newest */
    uint64_t created_ms;  /* since 1970 */
    uint64_t run_id;
    uint64_t step;        /* agent steps */
    uint64_t updates;
    char blas[64];        /* the BLAS core and the SIMD path that the numbers came from */
    char simd[64];
    char build[64];       /* of the program (common/util/build.h), the C library and the machine; */
    char libc[64];        /* empty: written before these were noted */
    char machine[64];
    struct config config;
    cJSON *progress;      /* an object, see learner/progress.h */
    cJSON *seeds;         /* an object */
    struct manifest_file files[MANIFEST_FILES_MAX];
    int file_count;
};

/* An empty one: this program's version, default options, empty JSON objects. TD_OK or TD_ENOMEM. */
int manifest_init(struct manifest *manifest);

/* Accepts a zeroed or half-filled struct. */
void manifest_release(struct manifest *manifest);

/* As JSON text, malloc'd; NULL when out of memory. HERE options are left out. */
char *manifest_print(const struct manifest *manifest);

/*
 * Parse `length` bytes; `where` names them in messages. Fills a struct that is released by the caller
 * whatever is returned: TD_OK, TD_ECORRUPT, TD_EFOREIGN (a later format or an unknown option), TD_ENOMEM.
 */
int manifest_parse(struct manifest *manifest, const char *text, size_t length, const char *where,
                   struct error *err);

/* "async", "cut", "burst", "final". */
const char *manifest_kind_name(enum checkpoint_kind kind);

/* A file name that is safe inside a checkpoint: letters, digits and ._- not first. */
bool manifest_name_valid(const char *name);

/*
 * 64-bit numbers in open JSON values: a number up to 10^15, a decimal string above (cJSON prints reals
 * with 15 digits: what must be exact to the bit belongs in a tensor). put replaces;
 * TD_OK or TD_ENOMEM. get: TD_OK, TD_ENOTFOUND or TD_ECORRUPT, with a sentence naming the key.
 */
int manifest_put_u64(cJSON *object, const char *key, uint64_t value);
int manifest_get_u64(const cJSON *object, const char *key, uint64_t *value, struct error *err);

#endif
