#include "tools/data_chunk_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ckpt/pt_write.h"

struct writing {
    const struct chunk_layout *layout;
    chunk_rows_fn *rows;
    void *context;
    char *piece; /* a column of one episode */
};

static const char *const names[CHUNK_COLUMNS] = {"obs", "action", "reward", "task", "terminated"};

static enum safetensors_type type_of(const struct chunk_layout *layout, enum chunk_column column)
{
    if (column == CHUNK_OBS && layout->schema.obs_type == OBS_RGB)
        return SAFETENSORS_U8;
    return column == CHUNK_TASK ? SAFETENSORS_I64 : SAFETENSORS_F32;
}

/* Numbers of the column in a row; 1 for those that have no dimension for it. */
static uint64_t width_of(const struct chunk_layout *layout, enum chunk_column column)
{
    return column == CHUNK_OBS ? layout->schema.obs_dim : column == CHUNK_ACTION ? layout->schema.action_dim : 1;
}

/* What torch.load makes a TensorDict of; keys and their order as tensordict 0.8 has them. */
static void put_tensordict(pt_writer_t *writer, const struct chunk_layout *layout)
{
    int64_t batch[2] = {(int64_t)layout->episodes, layout->episode_rows};

    pt_put_global(writer, "tensordict._reductions", "_make_td");
    pt_put_tuple_begin(writer);
    pt_put_global(writer, "tensordict._td", "TensorDict");
    pt_put_dict_begin(writer);
    pt_put_text(writer, "_tensordict");
    pt_put_dict_begin(writer);
    for (int i = 0; i < (layout->terminated ? CHUNK_COLUMNS : CHUNK_TERMINATED); i++) {
        uint64_t shape[3] = {layout->episodes, layout->episode_rows, width_of(layout, i)};

        pt_put_text(writer, names[i]);
        pt_put_tensor(writer, type_of(layout, i), i <= CHUNK_ACTION ? 3 : 2, shape);
    }
    pt_put_dict_end(writer);
    pt_put_text(writer, "_device");
    pt_put_none(writer);
    pt_put_text(writer, "_batch_size");
    pt_put_size(writer, 2, batch);
    pt_put_text(writer, "_td_dim_names");
    pt_put_none(writer);
    pt_put_dict_end(writer);
    pt_put_tuple_end(writer);
    pt_put_reduce(writer);
}

/* One number, or the numbers, of a row. The first row's action and reward are NaN: nothing led to it. */
static void put_row(const struct writing *writing, enum chunk_column column, const char *row, char *out)
{
    const struct row_schema *schema = &writing->layout->schema;
    struct row_head head;
    bool first;

    memcpy(&head, row, sizeof(head));
    first = (head.flags & ROW_FIRST) != 0;
    switch (column) {
    case CHUNK_OBS:
        memcpy(out, row + sizeof(head), schema->obs_dim * (schema->obs_type == OBS_RGB ? 1 : sizeof(float)));
        break;
    case CHUNK_ACTION:
        memcpy(out, row + sizeof(head) + row_obs_bytes(schema), schema->action_dim * sizeof(float));
        for (uint32_t i = 0; i < schema->action_dim && first; i++)
            memcpy(out + i * sizeof(float), &(float){NAN}, sizeof(float));
        break;
    case CHUNK_REWARD: memcpy(out, first ? &(float){NAN} : &head.reward, sizeof(float)); break;
    case CHUNK_TASK: memcpy(out, &(int64_t){head.task}, sizeof(int64_t)); break;
    default: memcpy(out, &(float){head.flags & ROW_TERMINATED ? 1.0f : 0.0f}, sizeof(float));
    }
}

static int write_column(void *context, pt_writer_t *writer, int storage, struct error *err)
{
    struct writing *writing = context;
    const struct chunk_layout *layout = writing->layout;
    enum chunk_column column = (enum chunk_column)storage;
    size_t size = width_of(layout, column) * safetensors_type_size(type_of(layout, column));
    size_t stride = row_stride(&layout->schema);
    int rc;

    for (uint64_t episode = 0; episode < layout->episodes; episode++) {
        const char *rows = writing->rows(writing->context, episode, column, err);

        if (rows == NULL)
            return err->code != TD_OK ? err->code : TD_EIO;
        for (uint32_t i = 0; i < layout->episode_rows; i++)
            put_row(writing, column, rows + i * stride, writing->piece + i * size);
        if ((rc = pt_writer_bytes(writer, writing->piece, layout->episode_rows * size, err)) != TD_OK)
            return rc;
    }
    return TD_OK;
}

int chunk_write(const char *path, const struct chunk_layout *layout, chunk_rows_fn *rows, void *context,
                struct error *err)
{
    struct writing writing = {layout, rows, context, malloc(layout->episode_rows * row_stride(&layout->schema))};
    const char *last = strrchr(path, '/');
    char root[256];
    pt_writer_t *writer = NULL;
    int rc = writing.piece == NULL ? TD_ENOMEM : pt_writer_create(&writer);

    if (rc != TD_OK)
        rc = error_set(err, rc, "out of memory to write %s", path);
    snprintf(root, sizeof(root), "%.200s", last == NULL ? path : last + 1);
    if (strrchr(root, '.') != NULL)
        *strrchr(root, '.') = '\0';
    if (rc == TD_OK) {
        put_tensordict(writer, layout);
        rc = pt_writer_save(writer, path, root, write_column, &writing, err);
    }
    pt_writer_destroy(&writer);
    free(writing.piece);
    return rc;
}
