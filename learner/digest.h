/*
 * digest.h - a run's state part by part, each as one SHA-256, to see that two runs are the same.
 *
 * Of a checkpoint: parameters, targets, Adam's moments and step, running scale, counters, what keys the
 * random numbers, the environment's state (its random stream is in it), the options that fix the run.
 * Of a replay store: observations, actions, rewards, flags, tasks, parameter versions and the episodes'
 * order, over a window of episodes.
 *
 * Left out is what two equal runs need not share: run, store and process ids, learner and stream epochs
 * (they count starts), times, the windows of the other checkpoints that happen to lie beside.
 *
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_DIGEST_H
#define TD_LEARNER_DIGEST_H

#include "common/ckpt/checkpoint.h"
#include "common/store/store.h"

#define DIGEST_NAME_MAX  32
#define DIGEST_PARTS_MAX 20

struct digest_part {
    char name[DIGEST_NAME_MAX];
    uint64_t items; /* tensors, rows, ... that went in */
    char sha256[FS_SHA256_HEX];
};

struct digest {
    struct digest_part part[DIGEST_PARTS_MAX];
    int parts;
};

/* Add the parts of a checkpoint to *digest, which may hold others. TD_OK, TD_ECORRUPT, TD_EIO, TD_ENOMEM. */
int digest_checkpoint(struct digest *digest, const checkpoint_t *checkpoint, struct error *err);

/*
 * Add the parts of the committed episodes first..end-1 of a store; end STORE_NONE: all there are.
 * TD_OK; TD_ENOTFOUND: they are not all kept; TD_ECORRUPT: one is damaged; TD_EIO, TD_ENOMEM.
 */
int digest_replay(struct digest *digest, store_t *store, uint64_t first, uint64_t end, struct error *err);

/* The first part that differs, or exists in one alone; NULL: none does. */
const char *digest_difference(const struct digest *one, const struct digest *other);

#endif
