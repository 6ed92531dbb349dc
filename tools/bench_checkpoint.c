/* bench_checkpoint.c - saving: the copy that updates wait for, and the writing that they do not. */
#include <stdlib.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "learner/snapshot.h"
#include "learner/training_memory.h"
#include "tools/bench_model.h"

struct work {
    snapshot_t *snapshot;
    struct manifest manifest;
    char folder[FS_PATH_MAX];
    struct error *err;
    int rc;
};

static void take(void *context)
{
    struct work *work = context;

    if (work->rc == TD_OK)
        work->rc = snapshot_take(work->snapshot, work->err);
}

/* As resume_write does, onto the disk of the working directory. */
static void write_one(void *context)
{
    struct work *work = context;
    struct checkpoint_parts parts = {.groups = snapshot_groups(work->snapshot), .group_count = SNAPSHOT_GROUPS};

    work->manifest.file_count = 0;
    if (work->rc == TD_OK)
        work->rc = checkpoint_write(work->folder, "one", &work->manifest, &parts, work->err);
}

static int measure(const struct bench_options *options, world_model_t *model, struct work *work)
{
    bool copied = model->layout.parameters <= SNAPSHOT_COPY_MAX;
    struct bench_result stall = {.name = "checkpoint_stall", .variant = bench_variant(options)};
    struct bench_result writing = {.name = "checkpoint_write", .variant = bench_variant(options)};

    if (copied) {
        bench_time(options, take, work, &stall);
        if (work->rc == TD_OK)
            bench_report(options, &stall);
    }
    bench_time(options, write_one, work, &writing);
    writing.mib = bench_resident_mib(true); /* what is written is not copied above SNAPSHOT_COPY_MAX */
    if (!copied && work->rc == TD_OK) { /* written from where it lies, with progress said */
        struct bench_result whole = writing;

        whole.name = "checkpoint_stall";
        bench_report(options, &whole);
    }
    if (work->rc == TD_OK)
        bench_report(options, &writing);
    return work->rc;
}

/* As the learner does. */
static enum snapshot_copy copy_of(const world_model_t *model)
{
    if (model->layout.parameters > SNAPSHOT_COPY_MAX)
        return SNAPSHOT_LIVE;
    return model->layout.parameters > training_in_memory_max ? SNAPSHOT_IN_FILE : SNAPSHOT_IN_MEMORY;
}

static int run(const struct bench_options *options, struct error *err)
{
    struct work work = {.folder = "bench-checkpoint-XXXXXX", .err = err};
    struct update_config config;
    world_model_t *model = NULL;
    update_t *update = NULL;
    pool_t *pool = NULL;
    int rc;

    update_config_init(&config, &options->config, BENCH_EPISODE);
    if (mkdtemp(work.folder) == NULL)
        return error_set(err, TD_EIO, "cannot make a folder in the working directory");
    if ((rc = bench_model(options, true, &model, err)) == TD_OK &&
        (rc = pool_create(&pool, options->threads, err)) == TD_OK &&
        (rc = update_create(&update, model, &config, pool, err)) == TD_OK &&
        (rc = snapshot_create(&work.snapshot, model, update, copy_of(model), ".", err)) == TD_OK &&
        (rc = manifest_init(&work.manifest)) == TD_OK)
        rc = measure(options, model, &work);
    manifest_release(&work.manifest);
    snapshot_destroy(&work.snapshot);
    update_destroy(&update);
    pool_destroy(&pool);
    world_model_destroy(&model);
    fs_remove_tree(work.folder, NULL);
    return rc;
}

int bench_checkpoint(const struct bench_options *options, struct error *err)
{
    return bench_each_size(options, run, err);
}
