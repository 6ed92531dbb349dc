/* golden_update.c - recorded updates through learner/update.c. */
#include <stdlib.h>
#include <string.h>

#include "tools/golden.h"

/* Everything recorded of one update. */
struct draws {
    float *target_noise, *policy_noise;
    uint8_t *value_mask, *policy_mask; /* [num_q, rows, M], NULL without dropout */
    size_t value_rows, policy_rows;    /* bytes of one head's mask */
    int target_heads[2], policy_heads[2];
    float *next_shift, *shift; /* [H, B, 2] and [B, 2]; NULL without pixels */
};

struct watch {
    const struct golden_case *recorded;
    const world_model_t *model;
    struct golden_report *report;
    struct golden_quantity *quantity;
    struct error *err;
    int rc;
};

/* --- draws ------------------------------------------------------------------------------------- */

static void give_noise(const void *context, enum update_draw kind, float *out, size_t count)
{
    const struct draws *draws = context;

    const float *from = kind == UPDATE_TARGET_NOISE   ? draws->target_noise
                        : kind == UPDATE_POLICY_NOISE ? draws->policy_noise
                        : kind == UPDATE_NEXT_SHIFT   ? draws->next_shift
                                                      : draws->shift;

    memcpy(out, from, count * sizeof(float));
}

static void give_mask(const void *context, enum update_draw kind, int head, uint8_t *out, size_t count,
                      float keep)
{
    const struct draws *draws = context;
    const uint8_t *mask = kind == UPDATE_VALUE_MASK ? draws->value_mask : draws->policy_mask;

    (void)keep;
    memcpy(out, mask + (size_t)head * count, count);
}

static void give_heads(const void *context, enum update_draw kind, int num_q, int two[2])
{
    const struct draws *draws = context;

    (void)num_q;
    memcpy(two, kind == UPDATE_TARGET_HEADS ? draws->target_heads : draws->policy_heads, 2 * sizeof(int));
}

static int read_masks(const struct golden_case *recorded, int step, int *draw, int horizon, uint8_t **out,
                      struct error *err)
{
    uint64_t shape[3] = {(uint64_t)horizon, (uint64_t)recorded->update.batch_size,
                         (uint64_t)recorded->dims.mlp_dim};
    size_t each = (size_t)(shape[0] * shape[1] * shape[2]);
    char name[64];
    int rc = TD_OK;

    *out = NULL;
    for (int head = 0; head < recorded->dims.num_q && rc == TD_OK; head++) {
        const struct safetensors_tensor *tensor;

        snprintf(name, sizeof(name), "step%d.draw%02d.dropout", step, (*draw)++);
        tensor = safetensors_find(recorded->file, name);
        if (*out == NULL && (tensor == NULL || tensor->bytes != each))
            return error_set(err, TD_EINVAL, "%s: %s is missing or not [%d, batch, mlp_dim] bytes",
                             recorded->path, name, horizon);
        if (*out == NULL && (*out = malloc(each * (size_t)recorded->dims.num_q)) == NULL)
            return error_set(err, TD_ENOMEM, "out of memory");
        rc = safetensors_get(recorded->file, name, SAFETENSORS_U8, 3, shape, *out + (size_t)head * each, err);
    }
    for (size_t i = 0; rc == TD_OK && i < each * (size_t)recorded->dims.num_q; i++)
        if ((*out)[i] > 1)
            return error_set(err, TD_EINVAL, "%s: a dropout mask of step %d holds more than 0 and 1",
                             recorded->path, step);
    return rc;
}

static void free_draws(struct draws *draws)
{
    free(draws->target_noise);
    free(draws->policy_noise);
    free(draws->value_mask);
    free(draws->policy_mask);
    free(draws->next_shift);
    free(draws->shift);
    *draws = (struct draws){0};
}

/* Crops of `steps` observations from draw *draw on, one batch at a time; none without pixels. */
static int read_shifts(const struct golden_case *recorded, int step, int *draw, int steps, float **out,
                       struct error *err)
{
    int batch = recorded->update.batch_size, rc = TD_OK;

    if (!recorded->dims.rgb)
        return TD_OK;
    *out = calloc((size_t)steps * (size_t)batch, 2 * sizeof(float));
    if (*out == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    for (int t = 0; t < steps && rc == TD_OK; t++)
        rc = golden_shifts(recorded, *out + (size_t)t * (size_t)batch * 2, batch, err, "step%d.draw%02d.randint",
                           step, (*draw)++);
    return rc;
}

static int read_draws(const struct golden_case *recorded, int step, struct draws *draws, struct error *err)
{
    int horizon = recorded->update.horizon, draw = 0, rc;
    uint64_t shape[3] = {(uint64_t)horizon, (uint64_t)recorded->update.batch_size,
                         (uint64_t)recorded->dims.action_dim};
    bool dropout = recorded->dims.dropout > 0;

    if ((rc = read_shifts(recorded, step, &draw, horizon, &draws->next_shift, err)) ||
        (rc = golden_floats(recorded, &draws->target_noise, 3, shape, err, "step%d.draw%02d.randn_like",
                            step, draw++)) ||
        (rc = golden_heads(recorded, draws->target_heads, err, "step%d.draw%02d.randperm", step, draw++)) ||
        (rc = read_shifts(recorded, step, &draw, 1, &draws->shift, err)) ||
        (dropout && (rc = read_masks(recorded, step, &draw, horizon, &draws->value_mask, err))))
        return rc;
    shape[0]++;
    if ((rc = golden_floats(recorded, &draws->policy_noise, 3, shape, err, "step%d.draw%02d.randn_like",
                            step, draw++)) ||
        (dropout && (rc = read_masks(recorded, step, &draw, horizon + 1, &draws->policy_mask, err))))
        return rc;
    return golden_heads(recorded, draws->policy_heads, err, "step%d.draw%02d.randperm", step, draw);
}

/* --- comparisons ------------------------------------------------------------------------------- */

/* Rows of `cols` values, `width` floats apart, against a recorded [steps, batch, cols]. */
static int compare_rows(const struct golden_case *recorded, struct golden_report *report,
                        struct golden_quantity *quantity, const float *ours, size_t width, int steps, int cols, const char *what, int step,
                        struct error *err)
{
    uint64_t shape[3] = {(uint64_t)steps, (uint64_t)recorded->update.batch_size, (uint64_t)cols};
    size_t rows = (size_t)(shape[0] * shape[1]);
    float *theirs, *dense = malloc(rows * (size_t)cols * sizeof(float));
    int rc = golden_floats(recorded, &theirs, 3, shape, err, "step%d.%s", step, what);

    if (rc == TD_OK && dense == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    if (rc == TD_OK) {
        for (size_t i = 0; i < rows; i++)
            memcpy(dense + i * (size_t)cols, ours + i * width, (size_t)cols * sizeof(float));
        golden_compare(report, quantity, dense, theirs, rows * (size_t)cols, 0);
    }
    free(dense);
    free(theirs);
    return rc;
}

static int compare_view(const struct golden_case *recorded, const update_t *update, int step,
                        struct golden_report *report, struct error *err)
{
    struct update_view view = update_view(update);
    int horizon = recorded->update.horizon, latent = recorded->dims.latent_dim, rc;

    if ((rc = compare_rows(recorded, report, golden_quantity(report, "next_z", GOLDEN_ABSOLUTE, 1e-5), view.next_z,
                           view.width, horizon, latent, "next_z", step, err)) ||
        (rc = compare_rows(recorded, report, golden_quantity(report, "zs", GOLDEN_ABSOLUTE, 1e-5), view.zs,
                           view.width, horizon + 1, latent, "zs", step, err)))
        return rc;
    return compare_rows(recorded, report, golden_quantity(report, "td_targets", GOLDEN_RELATIVE, 1e-6),
                        view.targets, 1, horizon, 1, "td_targets", step, err);
}

/* Every statistic that the file has; all but the termination ones must be there. */
static int compare_stats(const struct golden_case *recorded, const struct update_stats *stats,
                         struct update_view view, int step, struct golden_report *report,
                         struct error *err)
{
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {
#define UPDATE_STAT(name) {#name, offsetof(struct update_stats, name)},
        UPDATE_STATS(UPDATE_STAT)
#undef UPDATE_STAT
    };

    for (size_t i = 0; i < TD_LEN(fields); i++) {
        const float *ours = (const float *)(const void *)((const char *)stats + fields[i].offset);
        bool policy = strncmp(fields[i].name, "pi_", 3) == 0;
        uint64_t one = 1;
        float theirs;
        char name[96];
        int rc;

        snprintf(name, sizeof(name), "step%d.info.%s", step, fields[i].name);
        if (!recorded->dims.episodic && (strcmp(fields[i].name, "termination_rate") == 0 ||
                                         strcmp(fields[i].name, "termination_f1") == 0))
            continue;
        if ((rc = safetensors_get(recorded->file, name, SAFETENSORS_F32, -1, &one, &theirs, err)))
            return rc;
        snprintf(name, sizeof(name), "info.%s", fields[i].name);
        golden_compare(report, golden_quantity(report, name, GOLDEN_RELATIVE, policy ? 5e-5 : 2e-6), ours, &theirs,
                       1, strcmp(fields[i].name, "pi_loss") == 0 ? view.pi_terms : 0);
    }
    return TD_OK;
}

/* Called with each part of the gradient before clipping; only the first step's are recorded. */
static void compare_gradient(void *context, const float *gradient, size_t first, size_t count)
{
    struct watch *watch = context;
    const struct model_layout *layout = &watch->model->layout;

    for (int i = 0; i < layout->tensors && watch->rc == TD_OK; i++) {
        const struct model_tensor *tensor = &layout->tensor[i];
        float *theirs;

        if (tensor->offset < first || tensor->offset >= first + count)
            continue;
        watch->rc = golden_floats(watch->recorded, &theirs, tensor->dims, tensor->shape, watch->err,
                                  "step0.grad.%s", tensor->name);
        if (watch->rc == TD_OK)
            golden_compare(watch->report, watch->quantity, gradient + tensor->offset - first, theirs, tensor->count, 0);
        free(theirs);
    }
}

static int compare_after(const struct golden_case *recorded, const world_model_t *model, float scale,
                         struct golden_report *report, struct error *err)
{
    struct golden_quantity *quantity = golden_quantity(report, "parameters after", GOLDEN_ABSOLUTE, 5e-5);
    uint64_t one = 1;
    float theirs_scale;
    int rc;

    quantity->crowd = 5e-6;
    quantity->amplified = true;
    for (int i = 0; i < model->layout.tensors; i++) {
        const struct model_tensor *tensor = &model->layout.tensor[i];
        float *theirs;

        rc = golden_floats(recorded, &theirs, tensor->dims, tensor->shape, err, "after.%s", tensor->name);
        if (rc != TD_OK)
            return rc;
        golden_compare(report, quantity, model->parameters + tensor->offset, theirs, tensor->count, 0);
        free(theirs);
    }
    rc = safetensors_get(recorded->file, "after.scale", SAFETENSORS_F32, -1, &one, &theirs_scale, err);
    if (rc == TD_OK)
        golden_compare(report, golden_quantity(report, "scale after", GOLDEN_RELATIVE, 5e-5), &scale, &theirs_scale,
                       1, 0);
    return rc;
}

/* --- the replay -------------------------------------------------------------------------------- */

struct data {
    uint32_t *task;
    float *obs, *action, *reward, *terminated;
    uint8_t *frames; /* [H+1, 3, B, 3, 64, 64] */
};

/* batch.obs [H+1, B, 9, 64, 64] as frames; `steps` is H + 1. */
static int read_frames(const struct golden_case *recorded, uint64_t steps, uint64_t batch, uint8_t **out,
                       struct error *err)
{
    uint64_t shape[5] = {steps, batch, PIXEL_PLANES, PIXEL_SIDE, PIXEL_SIDE};
    uint8_t *stacked;
    int rc = golden_bytes(recorded, &stacked, 5, shape, err, "batch.obs");

    if (rc != TD_OK)
        return rc;
    *out = malloc((size_t)(steps * batch) * PIXEL_FRAMES * PIXEL_FRAME_BYTES);
    if (*out == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    for (uint64_t t = 0; rc == TD_OK && t < steps; t++)
        for (uint64_t b = 0; b < batch; b++)
            for (uint64_t k = 0; k < PIXEL_FRAMES; k++)
                memcpy(*out + ((t * PIXEL_FRAMES + k) * batch + b) * PIXEL_FRAME_BYTES,
                       stacked + ((t * batch + b) * PIXEL_FRAMES + k) * PIXEL_FRAME_BYTES, PIXEL_FRAME_BYTES);
    free(stacked);
    return rc;
}

static int read_batch(const struct golden_case *recorded, struct data *data, struct error *err)
{
    uint64_t horizon = (uint64_t)recorded->update.horizon, batch = (uint64_t)recorded->update.batch_size;
    uint64_t obs[3] = {horizon + 1, batch, (uint64_t)recorded->dims.obs_dim};
    uint64_t action[3] = {horizon, batch, (uint64_t)recorded->dims.action_dim};
    uint64_t scalar[3] = {horizon, batch, 1};
    int rc;

    if ((rc = recorded->dims.rgb ? read_frames(recorded, horizon + 1, batch, &data->frames, err)
                                 : golden_floats(recorded, &data->obs, 3, obs, err, "batch.obs")) ||
        (rc = golden_floats(recorded, &data->action, 3, action, err, "batch.action")) ||
        (rc = golden_floats(recorded, &data->reward, 3, scalar, err, "batch.reward")))
        return rc;
    data->task = calloc((size_t)batch, sizeof(*data->task));
    if (data->task == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if ((rc = golden_tasks(recorded, data->task, (int)batch, err, "batch.task")))
        return rc;
    return golden_floats(recorded, &data->terminated, 3, scalar, err, "batch.terminated");
}

static int one_step(const struct golden_case *recorded, update_t *update, const struct data *data, int step,
                    struct golden_report *report, struct error *err)
{
    struct draws draws = {0};
    struct update_draws source = {
        .context = &draws, .noise = give_noise, .mask = give_mask, .heads = give_heads};
    struct batch batch = {.obs = data->obs,
                          .frames = data->frames,
                          .frame_step = PIXEL_FRAMES,
                          .action = data->action,
                          .reward = data->reward,
                          .terminated = data->terminated,
                          .task = data->task};
    struct update_stats stats;
    int rc = read_draws(recorded, step, &draws, err);

    if (rc == TD_OK && update_step(update, &batch, &source, &stats) != TD_OK)
        rc = error_set(err, TD_EINVAL, "%s: update %d diverges", recorded->path, step);
    free_draws(&draws);
    if (rc != TD_OK || (rc = compare_view(recorded, update, step, report, err)))
        return rc;
    return compare_stats(recorded, &stats, update_view(update), step, report, err);
}

int golden_update(const struct golden_case *recorded, int threads, struct golden_report *report,
                  struct error *err)
{
    struct data data = {0};
    struct watch seen = {.recorded = recorded, .report = report, .err = err};
    struct update_watch watch = {.context = &seen, .gradient = compare_gradient};
    world_model_t *model = NULL;
    update_t *update = NULL;
    pool_t *pool = NULL;
    int rc;

    if ((rc = read_batch(recorded, &data, err)) || (rc = golden_model(recorded, report, &model, err)) ||
        (rc = pool_create(&pool, threads, err)) ||
        (rc = update_create(&update, model, &recorded->update, pool, err)))
        goto done;
    seen.model = model;
    for (int step = 0; step < recorded->rounds; step++) {
        if (step == 0) {
            seen.quantity = golden_quantity(report, "gradients", GOLDEN_RELATIVE, 5e-5);
            seen.quantity->amplified = true;
        }
        update_set_watch(update, step == 0 ? &watch : NULL);
        if ((rc = one_step(recorded, update, &data, step, report, err)) || (rc = seen.rc))
            goto done;
    }
    rc = compare_after(recorded, model, update_state(update).scale->value, report, err);

done:
    update_destroy(&update);
    pool_destroy(&pool);
    world_model_destroy(&model);
    free(data.task);
    free(data.obs);
    free(data.frames);
    free(data.action);
    free(data.reward);
    free(data.terminated);
    return rc;
}
