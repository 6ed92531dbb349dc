/*
 * rewrite.h - a learner's checkpoint read whole, changed in memory, and written again in its place with sound
 * hashes: what the state would be if a part had been left out.
 *
 * Thread:  one.
 */
#ifndef TD_TEST_REWRITE_H
#define TD_TEST_REWRITE_H

#include "common/ckpt/checkpoint.h"
#include "common/model/world_model.h"

struct rewrite {
    char folder[FS_PATH_MAX], name[MANIFEST_NAME_MAX]; /* of all checkpoints, and of this one */
    struct manifest manifest;
    struct safetensors_tensor *tensors[2]; /* parameters, optimizer; their data and names are owned */
    int counts[2];
    char *state; /* environment.bin */
    size_t state_size;
};

/* Read checkpoint folder/name; the newest that may be resumed from when name is NULL. Fails the test. */
void rewrite_open(struct rewrite *rewrite, const char *folder, const char *name);

/* Write it in its place and release everything. */
void rewrite_close(struct rewrite *rewrite);

/* Set all tensors whose name begins so to what they were at the run's start. Returns how many there were. */
int rewrite_forget(struct rewrite *rewrite, const char *prefix);

void rewrite_set_scale(struct rewrite *rewrite, float scale);

/* Set a counter of the manifest's progress, to the text of a number, or to an empty list. */
void rewrite_counter(struct rewrite *rewrite, const char *name, const char *value);

/* The environment's state as it is before the first reset. */
void rewrite_environment(struct rewrite *rewrite);

/* Forget the plan that the next one would start from. */
void rewrite_plan(struct rewrite *rewrite);

#endif
