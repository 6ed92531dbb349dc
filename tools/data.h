/* data.h - what the files of `tdmpc2 data` share: importing data sets, and making up one. */
#ifndef TD_TOOLS_DATA_H
#define TD_TOOLS_DATA_H

#include <stdbool.h>

#include "common/store/store.h"
#include "learner/dataset.h"
#include "tools/replay.h"

struct data_import {
    const char *dir;        /* of *.pt and *.safetensors, or one such file */
    const char *out;        /* the store's folder; NULL: `store` in dir */
    uint32_t episode_rows;  /* that every episode of *.pt must have; 0: 101 or 501, as the official sets */
    uint32_t tasks;         /* 0: as many as the set has that this looks like */
    uint64_t commit_bytes;  /* of rows in a transaction; 0: 64 MiB */
    bool force;
    struct replay_progress *progress; /* may be NULL */
};

struct data_report {
    char out[FS_PATH_MAX];
    const struct dataset_set *set; /* that it looks like, or NULL */
    uint64_t chunks, episodes, rows; /* in the store now */
    uint64_t found;         /* of these episodes in the store before */
    uint64_t beyond;        /* actions outside [-1, 1] among those read now */
};

/*
 * Put all chunks of a folder, in lexicographic order, into one replay store; goes on where an import into that store
 * stopped. Memory does not depend on the chunks' size. A transaction says in its last episode how far it came, so
 * that nothing is there twice and nothing is missing, whenever the process ends.
 */
int data_import(const struct data_import *import, struct data_report *report, struct error *err);

struct data_synth {
    const char *dir;      /* of the chunks, or the store */
    const char *task;     /* mt30, mt80 */
    uint64_t rows, seed;
    uint32_t episode_rows; /* 0: the set's */
    uint32_t chunks;
    bool store;           /* write a replay store instead of chunks */
    struct replay_progress *progress;
};

/* Make up a data set in the layout of mt30 or mt80, the same for the same arguments. */
int data_synth(const struct data_synth *synth, uint64_t *episodes, struct error *err);

/* Draw from a store as a shard does and say how fast, and in how much memory; to stdout, as text or JSON. */
int data_sample(const char *dir, uint32_t batch, uint32_t horizon, double seconds, bool json, struct error *err);

#endif
