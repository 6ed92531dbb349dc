/* Export as one chunk of a data set, as PyTorch's tensordict loads it: every whole episode, all of one length. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/data_chunk_write.h"
#include "tools/replay.h"

struct export {
    store_t *store;
    struct replay_progress *progress;
    uint64_t *ids; /* of the episodes that go out */
    uint64_t count;
    uint32_t length;
    size_t stride;
    bool terminated;
    char *rows; /* of one episode */
};

static bool gather(struct export *export, uint64_t id)
{
    for (uint32_t row = 0, count; row < export->length; row += count) {
        const void *rows;

        count = export->length - row;
        if ((rows = store_rows(export->store, id, row, &count)) == NULL)
            return false;
        memcpy(export->rows + row * export->stride, rows, count * export->stride);
    }
    store_rows_end(export->store);
    return true;
}

static void look_for_end(struct export *export)
{
    for (uint32_t i = 0; i < export->length; i++) {
        struct row_head head;

        memcpy(&head, export->rows + i * export->stride, sizeof(head));
        export->terminated |= (head.flags & ROW_TERMINATED) != 0;
    }
}

static int choose(struct export *export, uint64_t *skipped, struct error *err)
{
    const struct store_counts *counts = store_counts(export->store);
    uint64_t held = store_committed(export->store) - counts->first;

    if (held == 0)
        return error_set(err, TD_ENOTFOUND, "no whole episode to export");
    export->length = store_episode(export->store, counts->first)->rows;
    export->ids = calloc(held, sizeof(*export->ids));
    export->rows = malloc(export->length * export->stride);
    if (export->ids == NULL || export->rows == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for %" PRIu64 " episodes", held);
    for (uint64_t i = 0; i < held; i++) {
        const struct store_episode *episode = store_episode(export->store, counts->first + i);

        replay_progress(export->progress, i, 5 * held);
        if (episode->rows != export->length)
            return error_set(err, TD_EINVAL, "episodes of %u and of %u rows do not fit into one tensor [episodes, rows]: "
                             "export to a *.safetensors file instead", export->length, episode->rows);
        if ((episode->flags & EPISODE_DAMAGED) || !gather(export, counts->first + i)) {
            ++*skipped;
            continue;
        }
        look_for_end(export);
        export->ids[export->count++] = counts->first + i;
    }
    return export->count > 0 ? TD_OK : error_set(err, TD_ENOTFOUND, "no whole episode to export");
}

static const void *rows_of(void *context, uint64_t episode, enum chunk_column column, struct error *err)
{
    struct export *export = context;

    replay_progress(export->progress, export->count * ((uint64_t)column + 1) + episode, 6 * export->count);
    if (gather(export, export->ids[episode]))
        return export->rows;
    error_set(err, TD_EIO, "episode %" PRIu64 " changed while it was read", export->ids[episode]);
    return NULL;
}

int replay_export_pt(store_t *store, const char *path, struct replay_progress *progress, uint64_t *episodes,
                     uint64_t *rows, uint64_t *skipped, struct error *err)
{
    const struct row_schema *schema = &store_identity(store)->schema;
    struct export export = {.store = store, .progress = progress, .stride = row_stride(schema)};
    int rc;

    *skipped = 0;
    if ((rc = choose(&export, skipped, err)) == TD_OK) {
        struct chunk_layout layout = {.schema = *schema, .episodes = export.count, .episode_rows = export.length,
                                      .terminated = export.terminated};

        rc = chunk_write(path, &layout, rows_of, &export, err);
    }
    *episodes = export.count;
    *rows = export.count * export.length;
    free(export.ids);
    free(export.rows);
    return rc;
}
