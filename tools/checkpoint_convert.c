/* checkpoint_convert.c - `tdmpc2 checkpoint import|export`: between the reference's *.pt and our files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/ckpt/weights.h"
#include "common/env/tasks.h"
#include "common/util/json.h"
#include "learner/snapshot.h"
#include "tools/checkpoint.h"

/* A trained model in memory, and what its file said of it. */
struct trained {
    struct model_layout layout;
    float *parameters;
    int actions[TASKS_MAX];
    struct config config; /* a checkpoint's */
    bool has_config;
};

static bool ends_with(const char *path, const char *end)
{
    size_t length = strlen(path), tail = strlen(end);

    return length > tail && strcmp(path + length - tail, end) == 0;
}

static void say_passed_over(void *context, const char *name, const char *why)
{
    (void)context;
    fprintf(stderr, "tdmpc2 checkpoint: passing over %s: %s\n", name, why);
}

/* What shapes do not tell: the defaults, which all published models have. */
static void dims_of_config(struct model_dims *dims, const struct config *config)
{
    *dims = (struct model_dims){
        .simnorm_dim = (int)config->simnorm_dim,
        .dropout = (float)config->dropout,
        .vmin = (float)config->vmin,
        .vmax = (float)config->vmax,
        .log_std_min = (float)config->log_std_min,
        .log_std_max = (float)config->log_std_max,
    };
}

static int read_all(struct trained *trained, const weights_t *weights, const struct config *config, struct error *err)
{
    struct model_dims dims;
    int rc;

    dims_of_config(&dims, config);
    if ((rc = weights_dims(weights, &dims, err)) != TD_OK)
        return rc;
    if (dims.num_tasks > TASKS_MAX)
        return error_set(err, TD_EINVAL, "%d tasks: at most %d", dims.num_tasks, TASKS_MAX);
    model_layout_init(&trained->layout, &dims);
    trained->parameters = calloc(model_all_floats(&trained->layout), sizeof(float));
    if (trained->parameters == NULL)
        return error_set(err, TD_ENOMEM, "no memory for the %zu MB of its parameters",
                         model_all_floats(&trained->layout) >> 18);
    for (int i = 0; i < dims.num_tasks; i++)
        trained->actions[i] = weights_task_action(weights, i);
    return weights_read(weights, &trained->layout, true, trained->parameters, err);
}

/* A file of ours has no masks when it is a checkpoint's: its options name the tasks, the environments their sizes. */
static int ask_tasks(struct trained *trained, const struct config *config, struct error *err)
{
    struct task_set set = {0};
    int rc = TD_OK;

    if (trained->layout.dims.num_tasks == 0 || trained->actions[0] > 0)
        return TD_OK;
    if (config == NULL)
        return error_set(err, TD_EINVAL, "the file has no action masks: export the checkpoint directory that it is of");
    rc = env_task_set(&set, config, err);
    if (rc == TD_OK && set.count != trained->layout.dims.num_tasks)
        rc = error_set(err, TD_EINVAL, "the options name %d tasks, the model has %d", set.count,
                       trained->layout.dims.num_tasks);
    for (int i = 0; rc == TD_OK && i < set.count; i++)
        trained->actions[i] = set.task[i].action_dim;
    task_set_release(&set);
    return rc;
}

static int read_source(struct trained *trained, const char *path, struct error *err)
{
    checkpoint_t *checkpoint = NULL;
    weights_t *weights = NULL;
    char inside[FS_PATH_MAX];
    struct config defaults, *config = &defaults;
    struct stat info;
    int rc = TD_OK;

    config_init(&defaults);
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        rc = checkpoint_open_in(&checkpoint, path, say_passed_over, NULL, err);
        if (rc == TD_OK)
            rc = fs_join(inside, checkpoint_path(checkpoint), SNAPSHOT_PARAMETERS, err);
        path = inside;
    }
    if (rc == TD_OK && checkpoint != NULL)
        *config = checkpoint_manifest(checkpoint)->config;
    if (rc == TD_OK)
        rc = weights_open(&weights, path, err);
    if (rc == TD_OK)
        rc = read_all(trained, weights, config, err);
    if (rc == TD_OK)
        rc = ask_tasks(trained, checkpoint != NULL ? config : NULL, err);
    trained->has_config = checkpoint != NULL;
    if (checkpoint != NULL)
        trained->config = *config;
    weights_close(&weights);
    checkpoint_close(&checkpoint);
    return rc;
}

/* The sizes as options' names and values, for whoever reads the file. */
static char *make_note(const struct trained *trained)
{
    const struct model_dims *dims = &trained->layout.dims;
    cJSON *note = cJSON_CreateObject();
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"model_size", weights_model_size(dims)}, {"obs_dim", dims->obs_dim}, {"action_dim", dims->action_dim},
        {"num_tasks", dims->num_tasks}, {"task_dim", dims->task_dim}, {"enc_dim", dims->enc_dim},
        {"num_enc_layers", dims->enc_layers}, {"num_channels", dims->num_channels}, {"mlp_dim", dims->mlp_dim},
        {"latent_dim", dims->latent_dim}, {"simnorm_dim", dims->simnorm_dim}, {"num_q", dims->num_q},
        {"num_bins", dims->num_bins}, {"vmin", (double)dims->vmin}, {"vmax", (double)dims->vmax},
        {"log_std_min", (double)dims->log_std_min}, {"log_std_max", (double)dims->log_std_max},
    };
    char *text;
    bool ok = note != NULL;

    for (size_t i = 0; ok && i < TD_LEN(numbers); i++)
        ok = cJSON_AddNumberToObject(note, numbers[i].name, numbers[i].value) != NULL;
    ok = ok && cJSON_AddStringToObject(note, "obs", dims->rgb ? "rgb" : "state") != NULL &&
         cJSON_AddBoolToObject(note, "episodic", dims->episodic) != NULL &&
         (!trained->has_config || cJSON_AddStringToObject(note, "tasks", config_tasks(&trained->config)) != NULL);
    text = ok ? cJSON_PrintUnformatted(note) : NULL;
    cJSON_Delete(note);
    return text;
}

static int write_result(const struct trained *trained, const char *path, struct error *err)
{
    char *text;
    int rc;

    if (ends_with(path, ".pt"))
        return weights_write_pt(path, &trained->layout, trained->parameters, trained->actions, err);
    if ((text = make_note(trained)) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    rc = weights_write_safetensors(path, &trained->layout, trained->parameters, trained->actions,
                                   &(struct safetensors_note){"config", text}, 1, err);
    cJSON_free(text);
    return rc;
}

void checkpoint_describe(const struct model_dims *dims)
{
    int size = weights_model_size(dims);

    if (size > 0)
        printf("  model_size=%d, ", size);
    else
        printf("  enc_dim=%d mlp_dim=%d latent_dim=%d num_q=%d, ", dims->enc_dim, dims->mlp_dim, dims->latent_dim,
               dims->num_q);
    printf("obs=%s %d, action %d", dims->rgb ? "rgb" : "state", dims->obs_dim, dims->action_dim);
    if (dims->num_tasks > 0)
        printf(", %d tasks, task_dim=%d", dims->num_tasks, dims->task_dim);
    printf("%s\n", dims->episodic ? ", episodic" : "");
}

int checkpoint_convert(const char *from, const char *to, struct error *err)
{
    struct trained *trained = calloc(1, sizeof(*trained));
    int rc;

    if (trained == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (!ends_with(to, ".pt") && !ends_with(to, ".safetensors"))
        rc = error_set(err, TD_EINVAL, "%s: name the new file *.pt or *.safetensors", to);
    else if (access(to, F_OK) == 0)
        rc = error_set(err, TD_EINVAL, "%s is there already: name another file, or remove it", to);
    else
        rc = read_source(trained, from, err);
    if (rc == TD_OK)
        rc = write_result(trained, to, err);
    if (rc == TD_OK) {
        printf("%s: %llu parameters\n", to, (unsigned long long)trained->layout.parameters);
        checkpoint_describe(&trained->layout.dims);
    }
    free(trained->parameters);
    free(trained);
    return rc;
}
