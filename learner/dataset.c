#include "learner/dataset.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#define FORMAT    "tdmpc2-import-1"
#define LIST_BYTES ((size_t)4 << 20)

/* REFERENCE, section 6: capacities of the official trainer in episodes. */
static const struct dataset_set sets[] = {
    {"mt30", 24, 6, 30, 501, 690000},
    {"mt80", 39, 6, 80, 101, 5450000},
};

const struct dataset_set *dataset_set_named(const char *name)
{
    for (size_t i = 0; i < TD_LEN(sets); i++)
        if (strcmp(sets[i].name, name) == 0)
            return &sets[i];
    return NULL;
}

/* mt80: more of the thirty tasks of dm_control than of the fifty of Meta-World. */
uint64_t dataset_set_episodes(const struct dataset_set *set, int task)
{
    if (set->tasks == 30)
        return set->episodes / 30;
    return task < 30 ? 115000 : 40000;
}

const struct dataset_set *dataset_set_like(const struct row_schema *schema, uint32_t episode_rows)
{
    for (size_t i = 0; i < TD_LEN(sets); i++)
        if (schema->obs_type == OBS_STATE && sets[i].obs_dim == schema->obs_dim &&
            sets[i].action_dim == schema->action_dim && sets[i].episode_rows == episode_rows)
            return &sets[i];
    return NULL;
}

int dataset_find(char out[FS_PATH_MAX], const char *data_dir, struct error *err)
{
    char store[FS_PATH_MAX], path[FS_PATH_MAX];
    int rc;

    if ((rc = fs_join(store, data_dir, "store", err)) != TD_OK || (rc = fs_join(path, store, "data.mdb", err)) != TD_OK)
        return rc;
    if (access(path, F_OK) == 0) {
        memcpy(out, store, sizeof(store));
        return TD_OK;
    }
    if ((rc = fs_join(path, data_dir, "data.mdb", err)) != TD_OK)
        return rc;
    if (access(path, F_OK) != 0)
        return error_set(err, TD_ENOTFOUND, "%s has no imported data set: `tdmpc2 data import %s` makes one of its chunks",
                         data_dir, data_dir);
    snprintf(out, FS_PATH_MAX, "%s", data_dir);
    return TD_OK;
}

/* --- the list -------------------------------------------------------------- */

struct dataset_chunk *dataset_add(struct dataset *dataset)
{
    size_t count = (size_t)dataset->count + 1;
    struct dataset_chunk *grown;

    if (dataset->count == DATASET_CHUNKS_MAX)
        return NULL;
    if ((grown = realloc(dataset->chunks, count * sizeof(*grown))) == NULL)
        return NULL;
    dataset->chunks = grown;
    memset(&grown[count - 1], 0, sizeof(*grown));
    return &grown[dataset->count++];
}

void dataset_release(struct dataset *dataset)
{
    free(dataset->chunks);
    memset(dataset, 0, sizeof(*dataset));
}

/* A whole number of the object, at most `most`. */
static bool take(const cJSON *object, const char *name, uint64_t most, uint64_t *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble > (double)most ||
        item->valuedouble != floor(item->valuedouble))
        return false;
    *out = (uint64_t)item->valuedouble;
    return true;
}

#define COUNT_MAX ((uint64_t)1 << 50)

static bool take_chunk(struct dataset *dataset, const cJSON *item)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
    struct dataset_chunk *chunk;

    if (!cJSON_IsString(name) || strlen(name->valuestring) >= DATASET_NAME_MAX || strchr(name->valuestring, '/') != NULL ||
        (chunk = dataset_add(dataset)) == NULL)
        return false;
    memcpy(chunk->name, name->valuestring, strlen(name->valuestring) + 1);
    return take(item, "bytes", COUNT_MAX, &chunk->bytes) && take(item, "episodes", COUNT_MAX, &chunk->episodes) &&
           take(item, "rows", COUNT_MAX, &chunk->rows);
}

static bool take_all(struct dataset *dataset, const cJSON *json)
{
    const cJSON *chunks = cJSON_GetObjectItemCaseSensitive(json, "chunks"), *item;
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(json, "format");
    uint64_t type, obs_dim, action_dim, tasks, rows;

    if (!cJSON_IsString(format) || strcmp(format->valuestring, FORMAT) != 0 || !cJSON_IsArray(chunks) ||
        !take(json, "obs_type", 2, &type) || !take(json, "obs_dim", ROW_BYTES_MAX, &obs_dim) ||
        !take(json, "action_dim", ROW_ACTION_MAX, &action_dim) || !take(json, "tasks", ROW_TASKS_MAX, &tasks) ||
        !take(json, "episode_rows", UINT32_MAX, &rows))
        return false;
    dataset->schema = (struct row_schema){(uint32_t)type, (uint32_t)obs_dim, (uint32_t)action_dim};
    dataset->tasks = (uint32_t)tasks;
    dataset->episode_rows = (uint32_t)rows;
    cJSON_ArrayForEach(item, chunks)
        if (!take_chunk(dataset, item))
            return false;
    return row_schema_check(&dataset->schema) == NULL;
}

int dataset_read(struct dataset *dataset, const char *dir, struct error *err)
{
    char path[FS_PATH_MAX], *text;
    size_t length;
    cJSON *json;
    int rc;

    memset(dataset, 0, sizeof(*dataset));
    if ((rc = fs_join(path, dir, DATASET_LIST, err)) != TD_OK)
        return rc;
    if (access(path, F_OK) != 0)
        return error_set(err, TD_ENOTFOUND, "%s is not there: %s is no imported data set", path, dir);
    if ((rc = fs_read_file(path, LIST_BYTES, &text, &length, err)) != TD_OK)
        return rc;
    json = cJSON_ParseWithLength(text, length);
    if (json == NULL || !take_all(dataset, json))
        rc = error_set(err, TD_ECORRUPT, "%s is damaged: import the data set into another folder", path);
    cJSON_Delete(json);
    free(text);
    return rc;
}

static cJSON *to_json(const struct dataset *dataset)
{
    cJSON *json = cJSON_CreateObject(), *chunks, *item;
    bool good;

    cJSON_AddStringToObject(json, "format", FORMAT);
    cJSON_AddNumberToObject(json, "obs_type", dataset->schema.obs_type);
    cJSON_AddNumberToObject(json, "obs_dim", dataset->schema.obs_dim);
    cJSON_AddNumberToObject(json, "action_dim", dataset->schema.action_dim);
    cJSON_AddNumberToObject(json, "tasks", dataset->tasks);
    cJSON_AddNumberToObject(json, "episode_rows", dataset->episode_rows);
    chunks = cJSON_AddArrayToObject(json, "chunks");
    good = chunks != NULL;
    for (int i = 0; i < dataset->count && good; i++) {
        const struct dataset_chunk *chunk = &dataset->chunks[i];

        item = cJSON_CreateObject();
        good = cJSON_AddStringToObject(item, "name", chunk->name) != NULL &&
               cJSON_AddNumberToObject(item, "bytes", (double)chunk->bytes) != NULL &&
               cJSON_AddNumberToObject(item, "episodes", (double)chunk->episodes) != NULL &&
               cJSON_AddNumberToObject(item, "rows", (double)chunk->rows) != NULL &&
               cJSON_AddItemToArray(chunks, item);
    }
    if (good)
        return json;
    cJSON_Delete(json);
    return NULL;
}

int dataset_write(const struct dataset *dataset, const char *dir, struct error *err)
{
    cJSON *json = to_json(dataset);
    char path[FS_PATH_MAX], *text = json == NULL ? NULL : cJSON_Print(json);
    int rc = text == NULL ? error_set(err, TD_ENOMEM, "out of memory for the list of chunks")
                          : fs_join(path, dir, DATASET_LIST, err);

    if (rc == TD_OK)
        rc = fs_write_file(path, text, strlen(text), err);
    cJSON_free(text);
    cJSON_Delete(json);
    return rc;
}

/* --- the store ------------------------------------------------------------- */

int dataset_position(const struct dataset *dataset, store_t *store, int *chunk, uint64_t *episodes, struct error *err)
{
    uint64_t sealed = store_committed(store), before = 0;
    struct store_record last;
    int rc;

    *chunk = 0;
    *episodes = 0;
    if (sealed == 0)
        return TD_OK;
    if ((rc = store_record(store, sealed - 1, &last, err)) != TD_OK)
        return rc;
    store_rows_end(store);
    for (uint32_t i = 0; i < last.slot && i < (uint32_t)dataset->count; i++)
        before += dataset->chunks[i].episodes;
    if (last.slot >= (uint32_t)dataset->count || last.epoch >= dataset->chunks[last.slot].episodes ||
        before + last.epoch + 1 != sealed)
        return error_set(err, TD_ECORRUPT, "the store and its %s disagree: it is not as an import left it; import into "
                         "another folder", DATASET_LIST);
    *chunk = (int)last.slot;
    *episodes = last.epoch + 1;
    return TD_OK;
}

int dataset_complete(const struct dataset *dataset, const store_t *store, const char *dir, struct error *err)
{
    uint64_t episodes = 0;

    for (int i = 0; i < dataset->count; i++)
        episodes += dataset->chunks[i].episodes;
    if (store_committed(store) == episodes && episodes > 0)
        return TD_OK;
    return error_set(err, TD_EINVAL, "%s has %" PRIu64 " of %" PRIu64 " episodes: the import is not complete; start "
                     "`tdmpc2 data import` again, it goes on where it stopped", dir, store_committed(store), episodes);
}
