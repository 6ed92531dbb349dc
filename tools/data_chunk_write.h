/*
 * data_chunk_write.h - write one chunk of a data set as the official ones are: a TensorDict [N, T] saved by PyTorch.
 *
 * Thread:  the caller's.
 * Source:  tensordict 0.8 (`_reductions._make_td`), TD-MPC2 reference datasets.
 */
#ifndef TD_TOOLS_DATA_CHUNK_WRITE_H
#define TD_TOOLS_DATA_CHUNK_WRITE_H

#include <stdbool.h>

#include "common/store/row.h"
#include "common/util/error.h"

enum chunk_column { CHUNK_OBS, CHUNK_ACTION, CHUNK_REWARD, CHUNK_TASK, CHUNK_TERMINATED, CHUNK_COLUMNS };

struct chunk_layout {
    struct row_schema schema;
    uint64_t episodes;
    uint32_t episode_rows;
    bool terminated; /* there is such a column */
};

/*
 * The rows [episode_rows] of an episode, in the store's layout, of which only this column will be read. Episodes
 * are asked for in order, once per column. Good until the next call; NULL after filling in err.
 */
typedef const void *chunk_rows_fn(void *context, uint64_t episode, enum chunk_column column, struct error *err);

/* Replace `path`. TD_OK, what pt_writer_save says, or TD_EIO when rows did not come. */
int chunk_write(const char *path, const struct chunk_layout *layout, chunk_rows_fn *rows, void *context,
                struct error *err);

#endif
