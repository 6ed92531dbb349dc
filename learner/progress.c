#include "learner/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers beyond 2^53 would lose bits as JSON numbers, so all are decimal strings. */
static bool put(cJSON *json, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    return cJSON_AddStringToObject(json, name, text) != NULL;
}

static bool put_list(cJSON *json, const char *name, const uint64_t *values, uint32_t count)
{
    cJSON *list = cJSON_AddArrayToObject(json, name);

    for (uint32_t i = 0; list != NULL && i < count; i++) {
        char text[24];
        cJSON *item;

        snprintf(text, sizeof(text), "%" PRIu64, values[i]);
        item = cJSON_CreateString(text);
        if (item == NULL || !cJSON_AddItemToArray(list, item)) {
            cJSON_Delete(item);
            return false;
        }
    }
    return list != NULL;
}

/* One list of the plain fields, for both directions. */
#define PROGRESS_FIELDS(F)                                                                         \
    F(spec.obs_type, UINT32_MAX)                                                                   \
    F(spec.obs_dim, UINT32_MAX)                                                                    \
    F(spec.action_dim, UINT32_MAX)                                                                 \
    F(spec.episode_length, UINT32_MAX)                                                             \
    F(spec.saves_state, 1)                                                                         \
    F(seed_steps, UINT64_MAX)                                                                      \
    F(updates, UINT64_MAX)                                                                         \
    F(learner_epoch, UINT64_MAX)                                                                   \
    F(next_eval, UINT64_MAX)                                                                       \
    F(episodes, UINT64_MAX)                                                                        \
    F(phase, PHASE_FINISHING)                                                                      \
    F(excess, UINT64_MAX)                                                                          \
    F(burst_target, UINT64_MAX)                                                                    \
    F(lockstep, 1)                                                                                 \
    F(evaluate_first, 1)                                                                           \
    F(step, UINT64_MAX)                                                                            \
    F(episode, UINT64_MAX)                                                                         \
    F(rows, UINT64_MAX)                                                                            \
    F(window, UINT64_MAX)                                                                          \
    F(state_size, WIRE_STATE_MAX)

cJSON *progress_to_json(const struct progress *progress)
{
    cJSON *json = cJSON_CreateObject();
    uint64_t stores[PROGRESS_STORES], steps[PROGRESS_STORES];
    bool ok = json != NULL;

#define F(field, max) ok = ok && put(json, #field, progress->field);
    PROGRESS_FIELDS(F)
#undef F
    ok = ok && put(json, "spec.tasks", progress->spec.tasks);
    for (uint32_t i = 0; i < progress->stores; i++) {
        stores[i] = progress->store[i].store;
        steps[i] = progress->store[i].steps;
    }
    ok = ok && put_list(json, "store", stores, progress->stores) &&
         put_list(json, "store_steps", steps, progress->stores) &&
         put_list(json, "kept_window", progress->kept_window, progress->kept);
    if (ok)
        return json;
    cJSON_Delete(json);
    return NULL;
}

static bool number(const cJSON *item, uint64_t max, uint64_t *out)
{
    const char *text = cJSON_GetStringValue(item);
    char *end = NULL;

    if (text == NULL || text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *out <= max;
}

static int list(const cJSON *json, const char *name, uint64_t *out, uint32_t most)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(json, name), *item;
    int count = 0;

    if (!cJSON_IsArray(array))
        return -1;
    cJSON_ArrayForEach(item, array) {
        if (count == (int)most || !number(item, UINT64_MAX, &out[count++]))
            return -1;
    }
    return count;
}

int progress_from_json(struct progress *progress, const cJSON *json, struct error *err)
{
    uint64_t stores[PROGRESS_STORES], steps[PROGRESS_STORES], value;
    int count, counted, kept;
    const cJSON *item;

    memset(progress, 0, sizeof(*progress));
#define F(field, max)                                                                              \
    if (!number(cJSON_GetObjectItemCaseSensitive(json, #field), (max), &value))                    \
        return error_set(err, TD_ECORRUPT, "the checkpoint's progress has no sound " #field);      \
    progress->field = (__typeof__(progress->field))value;
    PROGRESS_FIELDS(F)
#undef F
    item = cJSON_GetObjectItemCaseSensitive(json, "spec.tasks"); /* older ones have none */
    if (item != NULL && !number(item, ROW_TASKS_MAX, &value))
        return error_set(err, TD_ECORRUPT, "the checkpoint's progress has no sound spec.tasks");
    progress->spec.tasks = item != NULL ? (uint32_t)value : 0;
    count = list(json, "store", stores, PROGRESS_STORES);
    counted = list(json, "store_steps", steps, PROGRESS_STORES);
    kept = list(json, "kept_window", progress->kept_window, PROGRESS_KEPT);
    if (count < 0 || counted != count || kept < 0)
        return error_set(err, TD_ECORRUPT, "the checkpoint's progress lists no sound stores");
    progress->stores = (uint32_t)count;
    progress->kept = (uint32_t)kept;
    for (int i = 0; i < count; i++)
        progress->store[i] = (struct progress_store){stores[i], steps[i]};
    return TD_OK;
}
