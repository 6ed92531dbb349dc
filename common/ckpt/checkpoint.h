/*
 * checkpoint.h - checkpoint directories: all of a run's state at one moment, whole or absent.
 *
 *   checkpoints/step-5000/manifest.json           see manifest.h
 *                         manifest.sha256         its hash, as `sha256sum -c` reads it
 *                         parameters.safetensors  ... and whatever else the learner puts there
 *
 * A checkpoint is written in a folder beside the others, synced, and published by one rename. The
 * newest valid one always loads: what fails its hashes is passed over, and said. Pruning deletes only
 * what enough newer, complete ones stand for.
 *
 * Thread:  any, one at a time per folder; several may read.
 */
#ifndef TD_CKPT_CHECKPOINT_H
#define TD_CKPT_CHECKPOINT_H

#include "common/ckpt/manifest.h"
#include "common/ckpt/safetensors.h"

/* A safetensors file; its tensors and their data are borrowed, and streamed in pieces. */
struct checkpoint_group {
    const char *name; /* "parameters.safetensors" */
    const struct safetensors_tensor *tensors;
    int count;
};

/* Any other bytes: an environment's state. */
struct checkpoint_blob {
    const char *name; /* "environment.bin" */
    const void *bytes;
    size_t length;
};

struct checkpoint_parts {
    const struct checkpoint_group *groups;
    int group_count;
    const struct checkpoint_blob *blobs;
    int blob_count;
    safetensors_progress *progress; /* of the group being written; nonzero cancels; may be NULL */
    void *context;
};

/*
 * Write folder/name (a missing folder is made). The manifest's sequence, time and files are filled in
 * here. An older checkpoint of that name is replaced once the new one is durable.
 * Returns TD_OK, TD_EIO, TD_EFULL, TD_ENOMEM, TD_EAGAIN (cancelled); after an error the older
 * checkpoints stand as they were.
 */
int checkpoint_write(const char *folder, const char *name, struct manifest *manifest,
                     const struct checkpoint_parts *parts, struct error *err);

/*
 * Delete the oldest checkpoints whose kind is in `kinds` so that `keep` complete ones remain, and what
 * an interrupted write left behind. Damaged ones are neither counted nor deleted. keep >= 1.
 */
int checkpoint_prune(const char *folder, int keep, unsigned kinds, struct error *err);

typedef struct checkpoint checkpoint_t;

/*
 * Open one checkpoint directory; every file is read and compared with its hash.
 * TD_OK, TD_ENOTFOUND, TD_ECORRUPT, TD_EFOREIGN, TD_EIO, TD_ENOMEM.
 */
int checkpoint_open(checkpoint_t **out, const char *path, struct error *err);

/*
 * Open the newest valid one whose kind is in `kinds`. passed_over(context, name, why) is called for
 * each damaged one met on the way (of any kind, when it cannot be told). TD_ENOTFOUND when there is
 * none at all; TD_ECORRUPT when all there are were passed over; TD_EFOREIGN for one of a later format.
 */
int checkpoint_open_newest(checkpoint_t **out, const char *folder, unsigned kinds,
                           void (*passed_over)(void *context, const char *name, const char *why),
                           void *context, struct error *err);

/* What `path` is or holds: a checkpoint, or of a run or a folder of checkpoints the newest valid one. As above. */
int checkpoint_open_in(checkpoint_t **out, const char *path,
                       void (*passed_over)(void *context, const char *name, const char *why), void *context,
                       struct error *err);

void checkpoint_close(checkpoint_t **checkpoint);

/* Borrowed until close. */
const struct manifest *checkpoint_manifest(const checkpoint_t *checkpoint);
const char *checkpoint_path(const checkpoint_t *checkpoint);

/* One of its files: as tensors, or as bytes (malloc'd, the caller's). TD_ENOTFOUND when it has none. */
int checkpoint_open_tensors(const checkpoint_t *checkpoint, const char *name, safetensors_t **out,
                            struct error *err);
int checkpoint_read_blob(const checkpoint_t *checkpoint, const char *name, size_t limit, char **bytes,
                         size_t *length, struct error *err);

/* A name and what its manifest says, for listings. */
struct checkpoint_entry {
    char name[MANIFEST_NAME_MAX];
    enum checkpoint_kind kind;
    uint64_t sequence, created_ms, step, updates, bytes;
    int code;               /* TD_OK: its manifest and file sizes fit; or why not */
    char why[256];
};

/*
 * The folder's checkpoints, newest first, unreadable ones last; *entries is malloc'd, the caller's.
 * Hashes of the big files are not computed. TD_OK (an absent folder has none), TD_EIO, TD_ENOMEM.
 */
int checkpoint_list(const char *folder, struct checkpoint_entry **entries, int *count,
                    struct error *err);

#endif
