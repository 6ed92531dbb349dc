#include "learner/resume.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/ckpt/model_tensors.h"
#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"
#include "common/util/log.h"

#define PARAMETERS "parameters.safetensors"
#define OPTIMIZER  "optimizer.safetensors"
#define STATE      "environment.bin"
#define UPDATES    "updates"
#define SCALE      "scale"

/* --- numbers ----------------------------------------------------------------- */

void resume_view(struct resume_numbers *out, world_model_t *model, update_t *update)
{
    struct update_state state = update_state(update);

    *out = (struct resume_numbers){
        .layout = &model->layout,
        .parameters = model->parameters,
        .m = state.m,
        .v = state.v,
        .updates = *state.steps,
        .scale = state.scale->value,
    };
}

int resume_copy_init(struct resume_numbers *copy, const struct model_layout *layout)
{
    *copy = (struct resume_numbers){
        .layout = layout,
        .parameters = malloc(model_all_floats(layout) * sizeof(float)),
        .m = malloc(model_acting_floats(layout) * sizeof(float)),
        .v = malloc(model_acting_floats(layout) * sizeof(float)),
    };
    if (copy->parameters != NULL && copy->m != NULL && copy->v != NULL)
        return TD_OK;
    resume_copy_release(copy);
    return TD_ENOMEM;
}

void resume_copy_take(struct resume_numbers *copy, world_model_t *model, update_t *update)
{
    struct resume_numbers live;

    resume_view(&live, model, update);
    memcpy(copy->parameters, live.parameters, model_all_floats(live.layout) * sizeof(float));
    memcpy(copy->m, live.m, model_acting_floats(live.layout) * sizeof(float));
    memcpy(copy->v, live.v, model_acting_floats(live.layout) * sizeof(float));
    copy->updates = live.updates;
    copy->scale = live.scale;
}

void resume_copy_release(struct resume_numbers *copy)
{
    free(copy->parameters);
    free(copy->m);
    free(copy->v);
    memset(copy, 0, sizeof(*copy));
}

/* --- writing ----------------------------------------------------------------- */

/* A Go at or before step seed_steps has no updates behind it: what has is from inside the burst. */
static enum checkpoint_kind kind_of(const struct command_save *command)
{
    const struct progress *progress = command->progress;

    if (command->kind == SAVE_FINAL)
        return CHECKPOINT_FINAL;
    if (!progress->lockstep)
        return CHECKPOINT_ASYNC;
    return progress->updates > 0 && progress->step <= progress->seed_steps ? CHECKPOINT_BURST : CHECKPOINT_CUT;
}

static void name_of(char out[MANIFEST_NAME_MAX], enum checkpoint_kind kind, uint64_t steps, uint64_t updates)
{
    if (kind == CHECKPOINT_FINAL)
        snprintf(out, MANIFEST_NAME_MAX, "final");
    else if (kind == CHECKPOINT_BURST) /* many of the same step */
        snprintf(out, MANIFEST_NAME_MAX, "step-%" PRIu64 "-update-%" PRIu64, steps, updates);
    else
        snprintf(out, MANIFEST_NAME_MAX, "step-%" PRIu64, steps);
}

static int fill_manifest(struct manifest *manifest, const struct run *run,
                         const struct command_save *command, uint64_t steps)
{
    int rc = manifest_init(manifest);

    if (rc != TD_OK)
        return rc;
    manifest->kind = kind_of(command);
    manifest->run_id = run->run_id;
    manifest->step = steps;
    manifest->updates = command->progress->updates;
    manifest->config = run->config;
    snprintf(manifest->blas, sizeof(manifest->blas), "%s", gemm_core());
    snprintf(manifest->simd, sizeof(manifest->simd), "%s", isa_name(isa_current()));
    cJSON_Delete(manifest->progress);
    manifest->progress = progress_to_json(command->progress);
    if (manifest->progress == NULL)
        return TD_ENOMEM;
    return manifest_put_u64(manifest->seeds, "seed", (uint64_t)run->config.seed);
}

struct resume_save *resume_save_create(const struct run *run, const struct command_save *command,
                                       uint64_t steps)
{
    struct resume_save *save = calloc(1, sizeof(*save));

    if (save == NULL)
        return NULL;
    save->id = command->id;
    save->kind = command->kind;
    if (fill_manifest(&save->manifest, run, command, steps) != TD_OK)
        goto fail;
    name_of(save->name, save->manifest.kind, steps, command->progress->updates);
    if (command->state.size > 0) {
        save->state = malloc(command->state.size);
        if (save->state == NULL)
            goto fail;
        memcpy(save->state, command->state.data, command->state.size);
        save->state_size = command->state.size;
    }
    return save;

fail:
    resume_save_destroy(&save);
    return NULL;
}

void resume_save_destroy(struct resume_save **save)
{
    if (*save == NULL)
        return;
    manifest_release(&(*save)->manifest);
    free((*save)->state);
    free(*save);
    *save = NULL;
}

static void list_numbers(const struct resume_numbers *numbers, struct model_tensors *parameters,
                         struct model_tensors *optimizer)
{
    model_tensors_add(parameters, numbers->layout, numbers->parameters, MODEL_PARTS, "");
    model_tensors_add(optimizer, numbers->layout, numbers->m, MODEL_TARGET_Q, "m.");
    model_tensors_add(optimizer, numbers->layout, numbers->v, MODEL_TARGET_Q, "v.");
    model_tensors_add_value(optimizer, UPDATES, SAFETENSORS_U64, 1, &numbers->updates);
    model_tensors_add_value(optimizer, SCALE, SAFETENSORS_F32, 1, &numbers->scale);
}

int resume_write(const char *folder, struct resume_save *save, const struct resume_numbers *numbers,
                 int keep, safetensors_progress *progress, void *context, struct error *err)
{
    struct model_tensors *tensors = calloc(2, sizeof(*tensors));
    struct checkpoint_group groups[2];
    struct checkpoint_blob blob = {STATE, save->state, save->state_size};
    struct checkpoint_parts parts = {
        .groups = groups,
        .group_count = 2,
        .blobs = &blob,
        .blob_count = save->state != NULL,
        .progress = progress,
        .context = context,
    };
    int rc;

    if (tensors == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for a checkpoint");
    list_numbers(numbers, &tensors[0], &tensors[1]);
    groups[0] = (struct checkpoint_group){PARAMETERS, tensors[0].tensors, tensors[0].count};
    groups[1] = (struct checkpoint_group){OPTIMIZER, tensors[1].tensors, tensors[1].count};
    rc = checkpoint_write(folder, save->name, &save->manifest, &parts, err);
    free(tensors);
    if (rc == TD_OK && save->manifest.kind != CHECKPOINT_FINAL)
        rc = checkpoint_prune(folder, keep, resume_kinds(save->manifest.config.lockstep) & ~CHECKPOINT_FINAL,
                              err);
    return rc;
}

/* --- reading ----------------------------------------------------------------- */

unsigned resume_kinds(bool lockstep)
{
    return lockstep ? CHECKPOINT_CUT | CHECKPOINT_BURST : CHECKPOINT_ASYNC | CHECKPOINT_FINAL;
}

static void log_passed_over(void *context, const char *name, const char *why)
{
    (void)context;
    log_warn("checkpoint passed over", "name=%s why=\"%s\"", name, why);
}

int resume_open(checkpoint_t **out, const struct run *run, struct error *err)
{
    char folder[FS_PATH_MAX];
    int rc = run_path(run, "checkpoints", folder, err);

    *out = NULL;
    if (rc != TD_OK)
        return rc;
    rc = checkpoint_open_newest(out, folder, resume_kinds(run->config.lockstep), log_passed_over, NULL, err);
    if (rc == TD_ENOTFOUND)
        return TD_OK;
    if (rc == TD_OK && checkpoint_manifest(*out)->run_id != run->run_id) {
        rc = error_set(err, TD_EFOREIGN, "checkpoint %s belongs to run %016" PRIx64 ", this is run %016" PRIx64,
                       checkpoint_path(*out), checkpoint_manifest(*out)->run_id, run->run_id);
        checkpoint_close(out);
    }
    return rc;
}

int resume_progress(const checkpoint_t *checkpoint, struct progress *progress, void **state,
                    size_t *state_size, struct error *err)
{
    char *bytes = NULL;
    int rc = progress_from_json(progress, checkpoint_manifest(checkpoint)->progress, err);

    *state = NULL;
    *state_size = 0;
    if (rc != TD_OK || progress->state_size == 0)
        return rc;
    rc = checkpoint_read_blob(checkpoint, STATE, WIRE_STATE_MAX, &bytes, state_size, err);
    if (rc == TD_OK && *state_size != progress->state_size) {
        rc = error_set(err, TD_ECORRUPT, "%s: " STATE " has %zu bytes, expected %" PRIu32,
                       checkpoint_path(checkpoint), *state_size, progress->state_size);
        free(bytes);
        return rc;
    }
    *state = bytes;
    return rc;
}

static int load_optimizer(const safetensors_t *file, const struct model_layout *layout,
                          struct update_state *state, struct error *err)
{
    static const uint64_t one = 1;
    float scale;
    int rc;

    if ((rc = model_tensors_load(file, layout, state->m, MODEL_TARGET_Q, "m.", err)) != TD_OK ||
        (rc = model_tensors_load(file, layout, state->v, MODEL_TARGET_Q, "v.", err)) != TD_OK ||
        (rc = safetensors_get(file, UPDATES, SAFETENSORS_U64, 1, &one, state->steps, err)) != TD_OK ||
        (rc = safetensors_get(file, SCALE, SAFETENSORS_F32, 1, &one, &scale, err)) != TD_OK)
        return rc;
    if (!isfinite(scale) || scale < 0)
        return error_set(err, TD_ECORRUPT, "the running scale %g is not a scale", (double)scale);
    state->scale->value = scale;
    return TD_OK;
}

int resume_numbers_load(const checkpoint_t *checkpoint, world_model_t *model, update_t *update,
                        struct error *err)
{
    struct update_state state = update_state(update);
    safetensors_t *parameters = NULL, *optimizer = NULL;
    int rc;

    if ((rc = checkpoint_open_tensors(checkpoint, PARAMETERS, &parameters, err)) == TD_OK)
        rc = model_tensors_load(parameters, &model->layout, model->parameters, MODEL_PARTS, "", err);
    if (rc == TD_OK && (rc = checkpoint_open_tensors(checkpoint, OPTIMIZER, &optimizer, err)) == TD_OK)
        rc = load_optimizer(optimizer, &model->layout, &state, err);
    if (rc == TD_OK && *state.steps != checkpoint_manifest(checkpoint)->updates)
        rc = error_set(err, TD_ECORRUPT, "%s: the optimiser has done %" PRIu64 " updates, the manifest says %" PRIu64,
                       checkpoint_path(checkpoint), *state.steps, checkpoint_manifest(checkpoint)->updates);
    safetensors_close(&parameters);
    safetensors_close(&optimizer);
    return rc;
}
