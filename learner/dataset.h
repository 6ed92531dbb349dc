/*
 * dataset.h - a data set that was imported into a replay store: the list of its chunks, and whether all is there.
 *
 * Beside data.mdb lies import.json: what each chunk was when its import began. Episodes carry the number of their
 * chunk in that list as slot and their number in the chunk as epoch, so the store itself says how far an import
 * came.
 *
 * Owns:    its list.
 * Thread:  one.
 */
#ifndef TD_LEARNER_DATASET_H
#define TD_LEARNER_DATASET_H

#include "common/store/store.h"
#include "common/util/fs.h"

#define DATASET_LIST       "import.json"
#define DATASET_CHUNKS_MAX 4096
#define DATASET_NAME_MAX   256

struct dataset_chunk {
    char name[DATASET_NAME_MAX]; /* of the file, without its folder */
    uint64_t bytes, episodes, rows;
};

struct dataset {
    struct row_schema schema;
    uint32_t tasks;
    uint32_t episode_rows; /* 0: they differ */
    int count;
    struct dataset_chunk *chunks;
};

/* The official sets. */
struct dataset_set {
    const char *name;
    uint32_t obs_dim, action_dim, tasks, episode_rows;
    uint64_t episodes;
};
const struct dataset_set *dataset_set_named(const char *name); /* NULL: no such set */
uint64_t dataset_set_episodes(const struct dataset_set *set, int task); /* of each */
const struct dataset_set *dataset_set_like(const struct row_schema *schema, uint32_t episode_rows);

/* The folder of the store that data_dir means: itself, or `store` in it. */
int dataset_find(char out[FS_PATH_MAX], const char *data_dir, struct error *err);

/* Read and replace the list. TD_ENOTFOUND: there is none. Release in any case. */
int dataset_read(struct dataset *dataset, const char *dir, struct error *err);
int dataset_write(const struct dataset *dataset, const char *dir, struct error *err);
void dataset_release(struct dataset *dataset);

/* Room for one more at the end; NULL when out of memory or there are too many. */
struct dataset_chunk *dataset_add(struct dataset *dataset);

/* How far the import into this store came: all chunks before *chunk, and *episodes of that one. */
int dataset_position(const struct dataset *dataset, store_t *store, int *chunk, uint64_t *episodes, struct error *err);

/* TD_OK when every episode of the list is in the store; else a sentence with what to do. */
int dataset_complete(const struct dataset *dataset, const store_t *store, const char *dir, struct error *err);

#endif
