#include "tests/support/rewrite.h"

#include "common/env/env.h"
#include "common/wire/message.h"
#include "learner/snapshot.h"
#include "tests/support/test.h"

static const char *const files[] = {SNAPSHOT_PARAMETERS, SNAPSHOT_OPTIMIZER};

static void read_tensors(struct rewrite *rewrite, const checkpoint_t *checkpoint, int file)
{
    safetensors_t *tensors;
    struct error err = {0};

    assert_ok(checkpoint_open_tensors(checkpoint, files[file], &tensors, &err), err);
    rewrite->counts[file] = safetensors_count(tensors);
    rewrite->tensors[file] = calloc((size_t)rewrite->counts[file], sizeof(*rewrite->tensors[file]));
    for (int i = 0; i < rewrite->counts[file]; i++) {
        struct safetensors_tensor *tensor = &rewrite->tensors[file][i];
        void *data;

        *tensor = *safetensors_at(tensors, i);
        data = malloc(tensor->bytes + 1);
        assert_ok(safetensors_read(tensors, tensor, data, &err), err);
        tensor->data = data;
        tensor->name = strdup(tensor->name);
    }
    safetensors_close(&tensors);
}

/* The checkpoint is closed before it is changed; what its manifest says lives on. */
static void copy_manifest(struct manifest *to, const struct manifest *from)
{
    char *text = manifest_print(from);
    struct error err = {0};

    assert_non_null(text);
    assert_ok(manifest_parse(to, text, strlen(text), "manifest", &err), err);
    free(text);
    to->file_count = 0;
}

void rewrite_open(struct rewrite *rewrite, const char *folder, const char *name)
{
    char path[FS_PATH_MAX];
    checkpoint_t *checkpoint;
    struct error err = {0};
    int rc;

    memset(rewrite, 0, sizeof(*rewrite));
    snprintf(rewrite->folder, sizeof(rewrite->folder), "%s", folder);
    if (name != NULL) {
        assert_int_equal(fs_join(path, folder, name, NULL), TD_OK);
        rc = checkpoint_open(&checkpoint, path, &err);
    } else {
        rc = checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ANY & ~(unsigned)CHECKPOINT_FINAL, NULL, NULL, &err);
    }
    assert_ok(rc, err);
    snprintf(rewrite->name, sizeof(rewrite->name), "%.63s", strrchr(checkpoint_path(checkpoint), '/') + 1);
    copy_manifest(&rewrite->manifest, checkpoint_manifest(checkpoint));
    read_tensors(rewrite, checkpoint, 0);
    read_tensors(rewrite, checkpoint, 1);
    rc = checkpoint_read_blob(checkpoint, "environment.bin", WIRE_STATE_MAX, &rewrite->state, &rewrite->state_size, &err);
    assert_true(rc == TD_OK || rc == TD_ENOTFOUND);
    checkpoint_close(&checkpoint);
}

void rewrite_close(struct rewrite *rewrite)
{
    struct checkpoint_group groups[] = {{files[0], rewrite->tensors[0], rewrite->counts[0]},
                                        {files[1], rewrite->tensors[1], rewrite->counts[1]}};
    struct checkpoint_blob blob = {"environment.bin", rewrite->state, rewrite->state_size};
    struct checkpoint_parts parts = {.groups = groups, .group_count = 2, .blobs = &blob,
                                     .blob_count = rewrite->state != NULL};
    struct error err = {0};

    assert_ok(checkpoint_write(rewrite->folder, rewrite->name, &rewrite->manifest, &parts, &err), err);
    for (int file = 0; file < 2; file++) {
        for (int i = 0; i < rewrite->counts[file]; i++) {
            free((void *)(uintptr_t)rewrite->tensors[file][i].data);
            free((void *)(uintptr_t)rewrite->tensors[file][i].name);
        }
        free(rewrite->tensors[file]);
    }
    free(rewrite->state);
    manifest_release(&rewrite->manifest);
}

static uint64_t progress_number(const struct rewrite *rewrite, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(rewrite->manifest.progress, name));

    assert_non_null(text);
    return strtoull(text, NULL, 10);
}

/* The model as it was before the first update. */
static world_model_t *first_model(const struct rewrite *rewrite)
{
    struct model_dims dims;
    world_model_t *model;
    struct error err = {0};

    assert_ok(model_dims_init(&dims, &rewrite->manifest.config, (int)progress_number(rewrite, "spec.obs_dim"),
                              (int)progress_number(rewrite, "spec.action_dim"), &err), err);
    assert_ok(world_model_create(&model, &dims, true, &err), err);
    world_model_init(model, (uint64_t)rewrite->manifest.config.seed);
    return model;
}

static void forget(const world_model_t *model, const struct safetensors_tensor *tensor)
{
    void *data = (void *)(uintptr_t)tensor->data;
    float one = 1;

    memset(data, 0, tensor->bytes);
    if (strcmp(tensor->name, "scale") == 0)
        memcpy(data, &one, sizeof(one));
    for (int i = 0; i < model->layout.tensors; i++) {
        const struct model_tensor *first = &model->layout.tensor[i];

        if (strcmp(first->name, tensor->name) == 0)
            memcpy(data, model->parameters + first->offset, tensor->bytes);
    }
}

int rewrite_forget(struct rewrite *rewrite, const char *prefix)
{
    world_model_t *model = first_model(rewrite);
    int count = 0;

    for (int file = 0; file < 2; file++)
        for (int i = 0; i < rewrite->counts[file]; i++)
            if (strncmp(rewrite->tensors[file][i].name, prefix, strlen(prefix)) == 0) {
                forget(model, &rewrite->tensors[file][i]);
                count++;
            }
    world_model_destroy(&model);
    return count;
}

void rewrite_set_scale(struct rewrite *rewrite, float scale)
{
    for (int i = 0; i < rewrite->counts[1]; i++)
        if (strcmp(rewrite->tensors[1][i].name, "scale") == 0)
            memcpy((void *)(uintptr_t)rewrite->tensors[1][i].data, &scale, sizeof(scale));
}

void rewrite_counter(struct rewrite *rewrite, const char *name, const char *value)
{
    cJSON *item = value[0] == '[' ? cJSON_CreateArray() : cJSON_CreateString(value);

    assert_true(cJSON_HasObjectItem(rewrite->manifest.progress, name));
    assert_true(cJSON_ReplaceItemInObjectCaseSensitive(rewrite->manifest.progress, name, item));
}

/* Behind the environment's own state lies the mean of the last plan. */
static size_t mean_size(const struct rewrite *rewrite)
{
    const struct config *config = &rewrite->manifest.config;
    struct env_spec spec;
    struct error err = {0};

    assert_ok(env_find(config->task, &spec, &err), err);
    return (size_t)config->horizon * spec.action_dim * sizeof(float);
}

void rewrite_environment(struct rewrite *rewrite)
{
    struct error err = {0};
    env_t *env;

    assert_ok(env_create(&env, rewrite->manifest.config.task, (uint32_t)rewrite->manifest.config.seed, &err), err);
    assert_int_equal(env_state_size(env) + mean_size(rewrite), rewrite->state_size);
    env_state_get(env, rewrite->state);
    env_close(&env);
}

void rewrite_plan(struct rewrite *rewrite)
{
    size_t size = mean_size(rewrite);

    assert_true(size < rewrite->state_size);
    memset(rewrite->state + rewrite->state_size - size, 0, size);
}
