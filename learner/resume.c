#include "learner/resume.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"
#include "common/util/log.h"

#define STATE "environment.bin"

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

int resume_write(const char *folder, struct resume_save *save, const snapshot_t *numbers, int keep,
                 safetensors_progress *progress, void *context, struct error *err)
{
    struct checkpoint_blob blob = {STATE, save->state, save->state_size};
    struct checkpoint_parts parts = {
        .groups = snapshot_groups(numbers),
        .group_count = SNAPSHOT_GROUPS,
        .blobs = &blob,
        .blob_count = save->state != NULL,
        .progress = progress,
        .context = context,
    };
    int rc = checkpoint_write(folder, save->name, &save->manifest, &parts, err);

    if (rc == TD_OK && save->manifest.kind != CHECKPOINT_FINAL)
        rc = checkpoint_prune(folder, keep,
                              resume_kinds(save->manifest.config.lockstep) & ~(unsigned)CHECKPOINT_FINAL, err);
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
