#include "learner/resume.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tensor/gemm.h"
#include "common/tensor/isa.h"
#include "common/util/build.h"
#include "common/util/log.h"
#include "common/util/version.h"

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
    snprintf(manifest->build, sizeof(manifest->build), "%s", run->build);
    build_libc(manifest->libc);
    build_machine(manifest->machine);
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

/* What makes the run what it is must be what the checkpoint says: config.yaml has no hash. */
static int check_options(const checkpoint_t *checkpoint, const struct config *config, struct error *err)
{
    char stored[CONFIG_TEXT_MAX], wanted[CONFIG_TEXT_MAX];
    int count;
    const struct config_option *options = config_options(&count);

    for (int i = 0; i < count; i++) {
        if (options[i].change != CONFIG_FIXED)
            continue;
        config_format(&checkpoint_manifest(checkpoint)->config, &options[i], stored, sizeof(stored));
        config_format(config, &options[i], wanted, sizeof(wanted));
        if (strcmp(stored, wanted) != 0)
            return error_set(err, TD_EINVAL,
                             "config.yaml says %s=%.120s, checkpoint %s was trained with %.120s: put that back",
                             options[i].name, wanted, checkpoint_path(checkpoint), stored);
    }
    return TD_OK;
}

int resume_check(const checkpoint_t *checkpoint, const struct run *run, struct error *err)
{
    const struct manifest *manifest = checkpoint_manifest(checkpoint);

    if (manifest->run_id != run->run_id)
        return error_set(err, TD_EFOREIGN, "checkpoint %s belongs to run %016" PRIx64 ", this is run %016" PRIx64,
                         checkpoint_path(checkpoint), manifest->run_id, run->run_id);
    return check_options(checkpoint, &run->config, err);
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
    if (rc == TD_OK)
        rc = resume_check(*out, run, err);
    if (rc != TD_OK)
        checkpoint_close(out);
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

/* --- in words -------------------------------------------------------------------- */

struct telling {
    const struct manifest *manifest;
    const struct run *run;
    resume_line *say;
    void *context;
    bool exact; /* nothing was said yet that the bits may depend on */
};

static void tell(struct telling *telling, bool warning, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void tell(struct telling *telling, bool warning, const char *format, ...)
{
    char line[RESUME_LINE_MAX];
    va_list list;

    va_start(list, format);
    vsnprintf(line, sizeof(line), format, list);
    va_end(list);
    telling->say(telling->context, warning, line);
}

/* One circumstance of the numbers; it may not be known. */
static void compare(struct telling *telling, const char *what, const char *stored, const char *now)
{
    if (stored[0] == '\0' || strcmp(stored, "unknown") == 0 || strcmp(now, "unknown") == 0 || strcmp(stored, now) == 0)
        return;
    tell(telling, telling->run->config.lockstep, "differs   %s: %s, the checkpoint's %s", what, now, stored);
    telling->exact = false;
}

static void compare_circumstances(struct telling *telling, const char *build)
{
    const struct manifest *manifest = telling->manifest;
    char now[BUILD_TEXT_MAX];

    compare(telling, "version", manifest->version, TD_VERSION);
    compare(telling, "build", manifest->build, build);
    build_libc(now);
    compare(telling, "C library", manifest->libc, now);
    build_machine(now);
    compare(telling, "machine", manifest->machine, now);
    compare(telling, "BLAS core", manifest->blas, gemm_core());
    compare(telling, "SIMD path", manifest->simd, isa_name(isa_current()));
}

/* Options that were changed since the checkpoint was written; the fixed ones are not there (check_options). */
static void compare_options(struct telling *telling)
{
    char stored[CONFIG_TEXT_MAX], now[CONFIG_TEXT_MAX];
    int count;
    const struct config_option *options = config_options(&count);

    for (int i = 0; i < count; i++) {
        bool matters = options[i].change == CONFIG_BITS && telling->run->config.lockstep;

        if (options[i].change != CONFIG_SAFE && options[i].change != CONFIG_BITS)
            continue;
        config_format(&telling->manifest->config, &options[i], stored, sizeof(stored));
        config_format(&telling->run->config, &options[i], now, sizeof(now));
        if (strcmp(stored, now) == 0)
            continue;
        tell(telling, matters, "differs   option %s=%s, the checkpoint's %s", options[i].name, now, stored);
        telling->exact &= !matters;
    }
}

void resume_tell(const checkpoint_t *checkpoint, const struct run *run, const char *build, resume_line *say,
                 void *context)
{
    const struct manifest *manifest = checkpoint_manifest(checkpoint);
    struct telling telling = {manifest, run, say, context, true};
    struct progress progress;
    struct error err;
    bool knows = progress_from_json(&progress, manifest->progress, &err) == TD_OK;

    tell(&telling, false, "restored  %s: %" PRIu64 " agent steps, %" PRIu64 " updates", strrchr(checkpoint_path(checkpoint), '/') + 1,
         manifest->step, manifest->updates);
    tell(&telling, false, "restored  parameters, target Qs, Adam's moments and step, running scale, counters, keys of random numbers%s",
         knows && progress.state_size > 0 ? ", the environment's state" : "");
    if (knows && run->config.lockstep)
        tell(&telling, false, "restored  replay goes back to %" PRIu64 " rows, csv files to step %" PRIu64, progress.rows, progress.step);
    else if (knows)
        tell(&telling, false, "restored  limiter: phase %u, %" PRIu64 " steps not owed; evaluation due at step %" PRIu64 "; rows beyond it are kept",
             progress.phase, progress.excess, progress.next_eval);
    compare_circumstances(&telling, build);
    compare_options(&telling);
    if (!run->config.lockstep)
        return;
    if (knows && progress.state_size == 0)
        telling.exact = false;
    if (telling.exact)
        tell(&telling, false, "exact     the run will end in the bits of one that was never stopped");
    else
        tell(&telling, true, "exact     no: the bits of a run that was never stopped are not promised");
}
