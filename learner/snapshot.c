#include "learner/snapshot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX 2  /* "m." */
#define LEFTOVER "leftover._task_emb.weight"
#define LANES  16 /* sums side by side */

struct snapshot {
    world_model_t *model;
    update_t *update;
    enum snapshot_copy kind;
    float *copy;          /* parameters, then m, then v */
    spill_t *file;        /* or here, in the same order */
    uint64_t steps;
    float scale;
    float *leftover; /* always a copy: it is small */
    struct safetensors_tensor *tensors;
    char (*names)[MODEL_NAME_MAX + PREFIX]; /* of the moments */
    struct checkpoint_group groups[SNAPSHOT_GROUPS];
};

/* An array laid out like the model's: its floats, live or copied, or from which float on it lies in the file. */
struct array {
    const float *floats;
    const spill_t *file;
    size_t from;
};

static struct safetensors_tensor describe(const struct model_tensor *tensor, const char *name, const struct array *array)
{
    struct safetensors_tensor out = {.name = name, .type = SAFETENSORS_F32, .dims = tensor->dims, .file = array->file};

    if (array->file != NULL)
        out.offset = (array->from + tensor->offset) * sizeof(float);
    else
        out.data = array->floats + tensor->offset;
    memcpy(out.shape, tensor->shape, (size_t)tensor->dims * sizeof(out.shape[0]));
    return out;
}

/* Where the array that begins with float `from` of the copy is read from. */
static struct array array_at(const snapshot_t *snapshot, const float *live, size_t from)
{
    return (struct array){snapshot->copy != NULL ? snapshot->copy + from : live, snapshot->file, from};
}

static bool is_trained(const struct model_tensor *tensor)
{
    return tensor->part != MODEL_TARGET_Q;
}

/* Name every tensor and where it is read from. */
static void list_tensors(snapshot_t *snapshot)
{
    const struct model_layout *layout = &snapshot->model->layout;
    struct update_state state = update_state(snapshot->update);
    size_t all = model_all_floats(layout);
    struct array parameters = array_at(snapshot, snapshot->model->parameters, 0), m = array_at(snapshot, state.m, all);
    struct array v = array_at(snapshot, state.v, all + state.floats), leftover = {.floats = snapshot->leftover};
    struct safetensors_tensor *next = snapshot->tensors;
    int name = 0;

    for (int i = 0; i < layout->tensors; i++)
        *next++ = describe(&layout->tensor[i], layout->tensor[i].name, &parameters);
    snapshot->groups[0] = (struct checkpoint_group){SNAPSHOT_PARAMETERS, snapshot->tensors, layout->tensors};
    snapshot->groups[1] = (struct checkpoint_group){SNAPSHOT_OPTIMIZER, next, 0};
    for (int i = 0; i < 2 * layout->tensors; i++) {
        const struct model_tensor *tensor = &layout->tensor[i / 2];

        if (!is_trained(tensor))
            continue;
        snprintf(snapshot->names[name], sizeof(snapshot->names[name]), "%s%s", i % 2 == 0 ? "m." : "v.", tensor->name);
        *next++ = describe(tensor, snapshot->names[name++], i % 2 == 0 ? &m : &v);
    }
    *next++ = (struct safetensors_tensor){.name = "steps", .type = SAFETENSORS_U64, .data = &snapshot->steps};
    *next++ = (struct safetensors_tensor){.name = "scale", .type = SAFETENSORS_F32, .data = &snapshot->scale};
    if (state.leftovers > 0) {
        *next = describe(&layout->tensor[0], LEFTOVER, &leftover);
        TD_ASSERT(layout->tensor[0].part == MODEL_TASK && layout->tensor[0].count == state.leftovers);
        next++;
    }
    snapshot->groups[1].count = (int)(next - snapshot->groups[1].tensors);
}

static int make_copy(snapshot_t *snapshot, size_t floats, const char *folder, struct error *err)
{
    if (snapshot->kind == SNAPSHOT_IN_FILE)
        return spill_open(&snapshot->file, folder, floats * sizeof(float), err);
    if (snapshot->kind == SNAPSHOT_LIVE)
        return TD_OK;
    if ((snapshot->copy = malloc(floats * sizeof(float))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a checkpoint's copy of %zu MB", floats * sizeof(float) / 1000000);
    memset(snapshot->copy, 0, floats * sizeof(float)); /* touched now: taking one later must not meet a missing page */
    return TD_OK;
}

int snapshot_create(snapshot_t **out, world_model_t *model, update_t *update, enum snapshot_copy copy, const char *folder,
                    struct error *err)
{
    snapshot_t *snapshot = calloc(1, sizeof(*snapshot));
    struct update_state state = update_state(update);
    size_t floats = model_all_floats(&model->layout) + 2 * state.floats, count = (size_t)model->layout.tensors;
    int rc;

    TD_ASSERT(model->has_targets, "a model that only acts");
    *out = NULL;
    if (snapshot == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    snapshot->model = model;
    snapshot->update = update;
    snapshot->kind = copy;
    snapshot->tensors = calloc(3 * count + 3, sizeof(*snapshot->tensors));
    snapshot->names = calloc(2 * count, sizeof(*snapshot->names));
    snapshot->leftover = calloc(state.leftovers + 1, sizeof(float));
    if (snapshot->leftover == NULL || snapshot->tensors == NULL || snapshot->names == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory for the names of tensors");
    else
        rc = make_copy(snapshot, floats, folder, err);
    if (rc != TD_OK) {
        snapshot_destroy(&snapshot);
        return rc;
    }
    list_tensors(snapshot);
    *out = snapshot;
    return TD_OK;
}

void snapshot_destroy(snapshot_t **snapshot)
{
    if (*snapshot == NULL)
        return;
    free((*snapshot)->copy);
    spill_close(&(*snapshot)->file);
    free((*snapshot)->leftover);
    free((*snapshot)->names);
    free((*snapshot)->tensors);
    free(*snapshot);
    *snapshot = NULL;
}

static bool all_finite(const float *values, size_t count)
{
    float sums[LANES] = {0}, sum = 0;
    size_t i = 0;

    /* 0 * x is 0 for finite x, NaN otherwise */
    for (; i + LANES <= count; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += 0.0f * values[i + lane];
    for (; i < count; i++)
        sum += 0.0f * values[i];
    for (int lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum == 0;
}

/* One array behind the other, into memory or the file. */
static int copy_all(snapshot_t *snapshot, const struct update_state *state, struct error *err)
{
    const float *from[] = {snapshot->model->parameters, state->m, state->v};
    const size_t floats[] = {model_all_floats(&snapshot->model->layout), state->floats, state->floats};
    size_t at = 0;
    int rc = TD_OK;

    for (size_t i = 0; i < TD_LEN(from) && rc == TD_OK; at += floats[i++])
        if (snapshot->file != NULL)
            rc = spill_write(snapshot->file, at * sizeof(float), from[i], floats[i] * sizeof(float), err);
        else
            memcpy(snapshot->copy + at, from[i], floats[i] * sizeof(float));
    return rc;
}

int snapshot_take(snapshot_t *snapshot, struct error *err)
{
    struct update_state state = update_state(snapshot->update);
    size_t all = model_all_floats(&snapshot->model->layout);

    snapshot->steps = *state.steps;
    snapshot->scale = state.scale->value;
    if (!isfinite(snapshot->scale) || !all_finite(snapshot->model->parameters, all) ||
        !all_finite(state.m, state.floats) || !all_finite(state.v, state.floats) ||
        !all_finite(state.leftover, state.leftovers))
        return error_set(err, TD_EDIVERGED, "its numbers are not all finite");
    memcpy(snapshot->leftover, state.leftover, state.leftovers * sizeof(float));
    return snapshot->kind == SNAPSHOT_LIVE ? TD_OK : copy_all(snapshot, &state, err);
}

const struct checkpoint_group *snapshot_groups(const snapshot_t *snapshot)
{
    return snapshot->groups;
}

/* --- loading --- */

static int load_tensor(const safetensors_t *file, const struct model_tensor *tensor, const char *name, float *base,
                       struct error *err)
{
    float *to = base + tensor->offset;
    int rc = safetensors_get(file, name, SAFETENSORS_F32, tensor->dims, tensor->shape, to, err);

    if (rc == TD_OK && !all_finite(to, tensor->count))
        rc = error_set(err, TD_ECORRUPT, "tensor %s holds values that are not finite", name);
    return rc;
}

int snapshot_read_parameters(const safetensors_t *file, const struct model_layout *layout, bool targets,
                             float *parameters, struct error *err)
{
    for (int i = 0; i < layout->tensors; i++) {
        const struct model_tensor *tensor = &layout->tensor[i];
        int rc = TD_OK;

        if (targets || is_trained(tensor))
            rc = load_tensor(file, tensor, tensor->name, parameters, err);
        if (rc != TD_OK)
            return rc;
    }
    return TD_OK;
}

int snapshot_load_parameters(const safetensors_t *file, world_model_t *model, struct error *err)
{
    return snapshot_read_parameters(file, &model->layout, model->has_targets, model->parameters, err);
}

int snapshot_read_optimizer(const safetensors_t *file, const struct model_layout *layout,
                            const struct snapshot_optimizer *to, struct error *err)
{
    char name[MODEL_NAME_MAX + PREFIX];
    int rc;

    for (int i = 0; i < layout->tensors; i++) {
        const struct model_tensor *tensor = &layout->tensor[i];

        if (!is_trained(tensor))
            continue;
        snprintf(name, sizeof(name), "m.%s", tensor->name);
        if ((rc = load_tensor(file, tensor, name, to->m, err)) != TD_OK)
            return rc;
        snprintf(name, sizeof(name), "v.%s", tensor->name);
        if ((rc = load_tensor(file, tensor, name, to->v, err)) != TD_OK)
            return rc;
    }
    if ((rc = safetensors_get(file, "steps", SAFETENSORS_U64, 0, NULL, to->steps, err)) != TD_OK ||
        (rc = safetensors_get(file, "scale", SAFETENSORS_F32, 0, NULL, to->scale, err)) != TD_OK)
        return rc;
    if (!isfinite(*to->scale) || *to->scale <= 0)
        return error_set(err, TD_ECORRUPT, "the running scale of a checkpoint cannot be %g", (double)*to->scale);
    return TD_OK;
}

static int load_optimizer(const safetensors_t *file, const struct model_layout *layout, update_t *update, struct error *err)
{
    struct update_state state = update_state(update);
    struct snapshot_optimizer to = {state.m, state.v, state.steps, &state.scale->value};
    int rc = snapshot_read_optimizer(file, layout, &to, err);

    if (rc == TD_OK && state.leftovers > 0)
        rc = load_tensor(file, &layout->tensor[0], LEFTOVER, state.leftover, err);
    return rc;
}

int snapshot_load(const checkpoint_t *checkpoint, world_model_t *model, update_t *update, struct error *err)
{
    safetensors_t *file = NULL;
    int rc = checkpoint_open_tensors(checkpoint, SNAPSHOT_PARAMETERS, &file, err);

    if (rc == TD_OK)
        rc = snapshot_load_parameters(file, model, err);
    safetensors_close(&file);
    if (rc == TD_OK)
        rc = checkpoint_open_tensors(checkpoint, SNAPSHOT_OPTIMIZER, &file, err);
    if (rc == TD_OK)
        rc = load_optimizer(file, &model->layout, update, err);
    safetensors_close(&file);
    return rc;
}
