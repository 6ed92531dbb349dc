#include "learner/pretrained.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/json.h"
#include "common/util/log.h"
#include "learner/snapshot.h"

static void say_passed_over(void *context, const char *name, const char *why)
{
    (void)context;
    log_warn("passing over a checkpoint", "name=%s why=\"%s\"", name, why);
}

/* Only the names matter: the widths are the tensors'. */
static int any_size(const void *context, struct task *task, struct error *err)
{
    (void)context;
    (void)err;
    task->obs_dim = task->action_dim = 1;
    task->episode_length = 1;
    return TD_OK;
}

static const struct task_source names_alone = {.ask = any_size};

/* --- a checkpoint ------------------------------------------------------------------ */

/* A tensor's size along one axis, counted from the end; 0 when there is no such tensor. */
static int size_of(const safetensors_t *file, const char *name, int from_end)
{
    const struct safetensors_tensor *tensor = safetensors_find(file, name);

    if (tensor == NULL || tensor->dims < from_end || tensor->shape[tensor->dims - from_end] > 1u << 24)
        return 0;
    return (int)tensor->shape[tensor->dims - from_end];
}

/* Sizes as its options and the shapes of its tensors say them. */
static int checkpoint_dims(struct pretrained *from, struct error *err)
{
    const safetensors_t *file = from->file;
    struct model_dims *dims = &from->dims;
    int task_dim = size_of(file, "_task_emb.weight", 1), action = size_of(file, "_pi.2.bias", 1) / 2;
    bool rgb = strcmp(from->config.obs, "rgb") == 0;
    int obs = rgb ? PIXEL_FRAME_BYTES : size_of(file, "_encoder.state.0.weight", 1) - task_dim;
    struct error why = {0};
    int rc;

    if (obs < 1 || action < 1)
        return error_set(err, TD_ECORRUPT, "%s does not hold a world model's tensors", from->path);
    if ((rc = model_dims_init(dims, &from->config, obs, action, &why)) != TD_OK)
        return error_set(err, rc, "%s: %s", from->path, why.text);
    dims->num_tasks = size_of(file, "_task_emb.weight", 2);
    dims->task_dim = task_dim;
    dims->latent_dim = size_of(file, "_dynamics.2.bias", 1); /* of mt30 the reference has another one */
    if ((rc = model_dims_check(dims, &why)) != TD_OK)
        return error_set(err, rc, "%s: %s", from->path, why.text);
    return TD_OK;
}

static int open_checkpoint(struct pretrained *from, const char *path, struct error *err)
{
    int rc = checkpoint_open_in(&from->checkpoint, path, say_passed_over, NULL, err);

    if (rc != TD_OK)
        return rc;
    snprintf(from->path, sizeof(from->path), "%s", checkpoint_path(from->checkpoint));
    from->config = checkpoint_manifest(from->checkpoint)->config;
    if ((rc = checkpoint_open_tensors(from->checkpoint, SNAPSHOT_PARAMETERS, &from->file, err)) != TD_OK ||
        (rc = checkpoint_dims(from, err)) != TD_OK)
        return rc;
    return task_set_init(&from->tasks, &from->config, &names_alone, err);
}

/* --- a file ------------------------------------------------------------------------ */

/* What shapes do not tell: from the note of our own export, else the defaults, which all published models have. */
static int read_note(struct config *config, const char *note, const char *path, struct error *err)
{
    static const char *const wanted[] = {"simnorm_dim", "vmin", "vmax"};
    cJSON *json = note != NULL ? cJSON_Parse(note) : NULL;
    const cJSON *tasks = json != NULL ? cJSON_GetObjectItemCaseSensitive(json, "tasks") : NULL;
    struct error why = {0};
    int rc = TD_OK;

    for (size_t i = 0; json != NULL && i < TD_LEN(wanted) && rc == TD_OK; i++) {
        const cJSON *number = cJSON_GetObjectItemCaseSensitive(json, wanted[i]);
        char word[96];

        if (!cJSON_IsNumber(number))
            continue;
        snprintf(word, sizeof(word), "%s=%.17g", wanted[i], number->valuedouble);
        rc = config_set(config, word, &why);
    }
    if (rc == TD_OK && cJSON_IsString(tasks) && strlen(tasks->valuestring) < sizeof(config->tasks))
        snprintf(config->tasks, sizeof(config->tasks), "%s", tasks->valuestring);
    cJSON_Delete(json);
    return rc == TD_OK ? rc : error_set(err, TD_ECORRUPT, "%s: its note says %s", path, why.text);
}

/* The sizes as options, so that a run of other tasks comes to the same. */
static void sizes_to_config(struct config *config, const struct model_dims *dims)
{
    if (dims->rgb) {
        config->num_channels = dims->num_channels;
    } else {
        config->enc_dim = dims->enc_dim;
        config->num_enc_layers = dims->enc_layers;
    }
    config->mlp_dim = dims->mlp_dim;
    config->latent_dim = dims->latent_dim;
    config->num_q = dims->num_q;
    config->num_bins = dims->num_bins;
    config->log_std_min = (double)dims->log_std_min;
    config->log_std_max = (double)dims->log_std_max;
    config->episodic = dims->episodic;
    snprintf(config->obs, sizeof(config->obs), "%s", dims->rgb ? "rgb" : "state");
}

/* A published model of as many tasks as a list of the reference's was trained on that list. */
static int file_tasks(struct pretrained *from, struct error *err)
{
    const char *list = from->dims.num_tasks == 30 ? "mt30" : from->dims.num_tasks == 80 ? "mt80" : "";
    struct error why = {0};
    int rc;

    if (from->config.tasks[0] == '\0')
        snprintf(from->config.tasks, sizeof(from->config.tasks), "%s", list);
    if (from->config.tasks[0] == '\0')
        return TD_OK;
    if ((rc = task_set_init(&from->tasks, &from->config, &names_alone, &why)) != TD_OK)
        return error_set(err, rc == TD_EINVAL ? TD_ECORRUPT : rc, "%s: its list of tasks: %s", from->path, why.text);
    if (from->dims.num_tasks > 0 && from->tasks.count != from->dims.num_tasks)
        return error_set(err, TD_ECORRUPT, "%s names %d tasks and holds embeddings of %d", from->path, from->tasks.count,
                         from->dims.num_tasks);
    return TD_OK;
}

static int open_file(struct pretrained *from, const char *path, struct error *err)
{
    int rc;

    snprintf(from->path, sizeof(from->path), "%s", path);
    config_init(&from->config);
    if ((rc = weights_open(&from->weights, path, err)) != TD_OK ||
        (rc = read_note(&from->config, weights_note(from->weights), path, err)) != TD_OK)
        return rc;
    from->dims = (struct model_dims){
        .simnorm_dim = (int)from->config.simnorm_dim,
        .dropout = (float)from->config.dropout,
        .vmin = (float)from->config.vmin,
        .vmax = (float)from->config.vmax,
        .log_std_min = (float)from->config.log_std_min,
        .log_std_max = (float)from->config.log_std_max,
    };
    if ((rc = weights_dims(from->weights, &from->dims, err)) != TD_OK)
        return rc;
    sizes_to_config(&from->config, &from->dims);
    return file_tasks(from, err);
}

/* --- both -------------------------------------------------------------------------- */

/* model_size where it gives a run of any tasks these widths (mt30 with 19M has another latent), else the widths. */
static void name_size(struct pretrained *from)
{
    struct config named = from->config;
    struct model_dims dims;

    sizes_to_config(&from->config, &from->dims);
    named.model_size = weights_model_size(&from->dims);
    from->config.model_size = 0;
    if (from->dims.num_tasks > 0)
        from->config.task_dim = from->dims.task_dim;
    if (named.model_size > 0 && model_dims_init(&dims, &named, 1, 1, NULL) == TD_OK && dims.latent_dim == from->dims.latent_dim)
        from->config.model_size = named.model_size;
}

int pretrained_open(struct pretrained *from, const char *path, struct error *err)
{
    struct stat info;
    char folder[FS_PATH_MAX];
    int rc;

    memset(from, 0, sizeof(*from));
    if (stat(path, &info) != 0)
        return error_set(err, TD_ENOTFOUND, "no checkpoint at %s: name a run's or a checkpoint's directory, FILE.pt or "
                         "FILE.safetensors", path);
    if (pretrained_folder(path, folder))
        path = folder;
    else if (!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode))
        return error_set(err, TD_EINVAL, "checkpoint=%s is neither a directory nor a file", path);
    rc = path != folder && S_ISREG(info.st_mode) ? open_file(from, path, err) : open_checkpoint(from, path, err);
    if (rc == TD_OK)
        name_size(from);
    return rc;
}

void pretrained_close(struct pretrained *from)
{
    safetensors_close(&from->file);
    checkpoint_close(&from->checkpoint);
    weights_close(&from->weights);
    task_set_release(&from->tasks);
}

int pretrained_read(const struct pretrained *from, const struct model_layout *layout, float *parameters, struct error *err)
{
    return from->weights != NULL ? weights_read(from->weights, layout, true, parameters, err)
                                 : snapshot_read_parameters(from->file, layout, true, parameters, err);
}

bool pretrained_folder(const char *path, char *out)
{
    char manifest[FS_PATH_MAX];
    size_t length = strlen(path), tail = strlen(SNAPSHOT_PARAMETERS);

    return length > tail && strcmp(path + length - tail, SNAPSHOT_PARAMETERS) == 0 &&
           fs_parent(path, out, NULL) == TD_OK && fs_join(manifest, out, "manifest.json", NULL) == TD_OK &&
           access(manifest, F_OK) == 0;
}
