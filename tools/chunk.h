/*
 * chunk.h - one file of a data set, read as rows: *.pt as the official chunks are (a saved TensorDict [N, T]), or
 * *.safetensors as `tdmpc2 replay export` writes them.
 *
 * A chunk has gigabytes: columns are read in ranges, memory is that of CHUNK_BYTES and the rows asked for. The file
 * is hostile until checked: shapes agree with each other, tasks are in range and one in an episode; values are
 * finite but for the action and the reward of an episode's first row, which led to nothing and become zeros.
 *
 *   obs [N, T, O], action [N, T, A], reward, task and, where there are any, terminated [N, T]
 *
 * Owns:    the open file, scratch.
 * Thread:  one.
 * Source:  TD-MPC2 reference, trainer/offline_trainer.py, common/buffer.py (`load`).
 */
#ifndef TD_TOOLS_CHUNK_H
#define TD_TOOLS_CHUNK_H

#include "common/store/store.h"

#define CHUNK_BYTES ((size_t)4 << 20) /* of a column are read at a time */

typedef struct chunk chunk_t;

struct chunk_shape {
    struct row_schema schema;
    uint64_t episodes;
    uint64_t rows;         /* in all */
    uint32_t episode_rows; /* of each; 0: they differ (safetensors only) */
    uint32_t longest;      /* rows of the longest episode */
    uint64_t bytes;        /* of the columns, in the file */
};

struct chunk_config {
    const char *path;
    uint32_t tasks; /* tasks are 0 .. tasks-1 */
};

/* TD_OK, or what is wrong with it, in a sentence that names the file: TD_ENOTFOUND, TD_EIO, TD_ECORRUPT, TD_ENOMEM. */
int chunk_open(chunk_t **out, const struct chunk_config *config, struct error *err);
void chunk_close(chunk_t **chunk);

const struct chunk_shape *chunk_shape(const chunk_t *chunk);

/* Rows of an episode. */
uint32_t chunk_episode_rows(const chunk_t *chunk, uint64_t episode);

/* Compare the columns with the file's checksums, where it has any. Reads them all. */
int chunk_verify(const chunk_t *chunk, store_progress *progress, void *context, struct error *err);

/*
 * Rows of whole episodes first .. first + count - 1, in the store's layout, to out. Adds to *beyond the actions
 * outside [-1, 1]. TD_OK, TD_EIO, TD_ECORRUPT with the first row that is not as it must be.
 */
int chunk_read(chunk_t *chunk, uint64_t first, uint64_t count, void *out, uint64_t *beyond, struct error *err);

#endif
