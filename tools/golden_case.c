/* golden_case.c - the config that a recorded file carries. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/golden.h"

/* Reads numbers out of a JSON object; the first one that is missing or out of range is the error. */
struct reader {
    const char *path;
    const cJSON *object;
    struct error *err;
    int rc;
};

static double number(struct reader *reader, const char *key, double min, double max)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(reader->object, key);

    if (reader->rc != TD_OK)
        return min;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max)) {
        reader->rc = error_set(reader->err, TD_EINVAL,
                               "%s: config.%s is missing or not a number from %g to %g", reader->path, key,
                               min, max);
        return min;
    }
    return item->valuedouble;
}

static int whole(struct reader *reader, const char *key, double min, double max)
{
    double value = number(reader, key, min, max);

    if (reader->rc == TD_OK && value != floor(value))
        reader->rc = error_set(reader->err, TD_EINVAL, "%s: config.%s is not a whole number", reader->path,
                               key);
    return (int)value;
}

static bool is_stack_of_frames(const cJSON *rgb)
{
    static const int sizes[] = {PIXEL_PLANES, PIXEL_SIDE, PIXEL_SIDE};

    for (int i = 0; i < 3; i++) {
        const cJSON *size = cJSON_GetArrayItem(rgb, i);

        if (!cJSON_IsNumber(size) || size->valuedouble != sizes[i])
            return false;
    }
    return cJSON_GetArraySize(rgb) == 3;
}

/* What is known but not built must be said, not misread. */
static int refuse_unsupported(struct reader *reader)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(reader->object, "obs_shape");
    const cJSON *state = cJSON_GetObjectItemCaseSensitive(shape, "state");
    const cJSON *rgb = cJSON_GetObjectItemCaseSensitive(shape, "rgb");

    if (rgb != NULL && !is_stack_of_frames(rgb))
        return error_set(reader->err, TD_EINVAL, "%s: config.obs_shape.rgb is not [9, 64, 64]", reader->path);
    if (rgb != NULL)
        return TD_OK;
    if (!cJSON_IsArray(state) || cJSON_GetArraySize(state) != 1)
        return error_set(reader->err, TD_EINVAL, "%s: config.obs_shape.state is not one dimension",
                         reader->path);
    return TD_OK;
}

static void read_dims(struct reader *reader, struct model_dims *dims)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(reader->object, "obs_shape");
    const cJSON *state = cJSON_GetObjectItemCaseSensitive(shape, "state");
    const cJSON *obs = state == NULL ? NULL : state->child;

    *dims = (struct model_dims){
        .rgb = cJSON_GetObjectItemCaseSensitive(shape, "rgb") != NULL,
        .action_dim = whole(reader, "action_dim", 1, 65536),
        .enc_dim = whole(reader, "enc_dim", 1, 65536),
        .enc_layers = whole(reader, "num_enc_layers", 1, 16),
        .mlp_dim = whole(reader, "mlp_dim", 1, 65536),
        .latent_dim = whole(reader, "latent_dim", 1, 65536),
        .simnorm_dim = whole(reader, "simnorm_dim", 1, 65536),
        .num_q = whole(reader, "num_q", 2, 64),
        .num_bins = whole(reader, "num_bins", 2, 65536),
        .episodic = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(reader->object, "episodic")),
        .dropout = (float)number(reader, "dropout", 0, 0.999),
        .vmin = (float)number(reader, "vmin", -1000, 1000),
        .vmax = (float)number(reader, "vmax", -1000, 1000),
        .log_std_min = (float)number(reader, "log_std_min", -1000, 1000),
        .log_std_max = (float)number(reader, "log_std_max", -1000, 1000),
    };
    if (dims->rgb) {
        dims->obs_dim = PIXEL_FRAME_BYTES;
        dims->num_channels = whole(reader, "num_channels", 1, 65536);
        return;
    }
    if (reader->rc == TD_OK && (!cJSON_IsNumber(obs) || !(obs->valuedouble >= 1 && obs->valuedouble <= 65536)))
        reader->rc = error_set(reader->err, TD_EINVAL, "%s: config.obs_shape.state is not a size",
                               reader->path);
    if (reader->rc == TD_OK)
        dims->obs_dim = (int)obs->valuedouble;
}

/* Element `i` of an array of numbers. */
static double element(struct reader *reader, const char *key, int i, double min, double max)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(reader->object, key), *item = cJSON_GetArrayItem(list, i);

    if (reader->rc != TD_OK)
        return min;
    if (!cJSON_IsArray(list) || !cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max)) {
        reader->rc = error_set(reader->err, TD_EINVAL, "%s: config.%s[%d] is missing or not a number from %g to %g",
                               reader->path, key, i, min, max);
        return min;
    }
    return item->valuedouble;
}

/* Of a multi-task run: its tasks' action sizes and discounts. */
static void read_tasks(struct reader *reader, struct golden_case *recorded)
{
    const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(reader->object, "tasks");
    struct model_dims *dims = &recorded->dims;
    int count = cJSON_GetArraySize(tasks);

    if (!recorded->multitask || reader->rc != TD_OK)
        return;
    if (!cJSON_IsArray(tasks) || count < 1 || count > TASKS_MAX) {
        reader->rc = error_set(reader->err, TD_EINVAL, "%s: config.tasks is not a list of 1 to %d tasks", reader->path,
                               TASKS_MAX);
        return;
    }
    dims->num_tasks = count;
    dims->task_dim = whole(reader, "task_dim", 1, 65536);
    recorded->tasks = (struct task_set){.count = count, .action_dim = dims->action_dim, .obs_dim = dims->obs_dim,
                                        .multitask = true};
    recorded->tasks.task = calloc((size_t)count, sizeof(*recorded->tasks.task));
    if (recorded->tasks.task == NULL) {
        reader->rc = error_set(reader->err, TD_ENOMEM, "out of memory");
        return;
    }
    for (int i = 0; i < count; i++) {
        recorded->tasks.task[i].action_dim = (int)element(reader, "action_dims", i, 1, dims->action_dim);
        recorded->tasks.task[i].discount = element(reader, "discount", i, 0, 1);
    }
}

static void read_update(struct reader *reader, const struct golden_case *recorded, struct update_config *update)
{
    *update = (struct update_config){
        .batch_size = whole(reader, "batch_size", 1, 1 << 20),
        .horizon = whole(reader, "horizon", 1, 1000),
        .consistency_coef = number(reader, "consistency_coef", -1e9, 1e9),
        .reward_coef = number(reader, "reward_coef", -1e9, 1e9),
        .value_coef = number(reader, "value_coef", -1e9, 1e9),
        .termination_coef = number(reader, "termination_coef", -1e9, 1e9),
        .entropy_coef = number(reader, "entropy_coef", -1e9, 1e9),
        .rho = number(reader, "rho", -1e9, 1e9),
        .discount = recorded->multitask ? 0 : number(reader, "discount", 0, 1),
        .lr = number(reader, "lr", 0, 1e9),
        .enc_lr_scale = number(reader, "enc_lr_scale", 0, 1e9),
        .grad_clip_norm = number(reader, "grad_clip_norm", 0, 1e30),
        .tau = number(reader, "tau", 0, 1),
        .lr_scale = {1, 1, 1, 1, 1, 1, 1},
    };
}

static void read_plan(struct reader *reader, const struct golden_case *recorded, struct mppi_config *plan)
{
    *plan = (struct mppi_config){
        .mpc = true,
        .horizon = whole(reader, "horizon", 1, 1000),
        .iterations = whole(reader, "iterations", 1, 10000),
        .num_samples = whole(reader, "num_samples", 1, 1 << 20),
        .num_elites = whole(reader, "num_elites", 1, 1 << 20),
        .num_pi_trajs = whole(reader, "num_pi_trajs", 0, 1 << 20),
        .min_std = (float)number(reader, "min_std", 0, 1e9),
        .max_std = (float)number(reader, "max_std", 0, 1e9),
        .temperature = (float)number(reader, "temperature", -1e9, 1e9),
        .discount = recorded->multitask ? 0 : number(reader, "discount", 0, 1),
    };
}

static int read_config(struct golden_case *recorded, const cJSON *config, struct error *err)
{
    struct reader reader = {.path = recorded->path, .object = config, .err = err};
    struct error why = {0};
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(config, "kind"));
    int rc;

    if (kind == NULL || (strcmp(kind, "update") != 0 && strcmp(kind, "plan") != 0))
        return error_set(err, TD_EINVAL, "%s: config.kind is neither \"update\" nor \"plan\"", recorded->path);
    if ((rc = refuse_unsupported(&reader)))
        return rc;
    recorded->is_plan = strcmp(kind, "plan") == 0;
    recorded->rounds = whole(&reader, recorded->is_plan ? "calls" : "steps", 1, 1000);
    recorded->multitask = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(config, "multitask"));
    read_dims(&reader, &recorded->dims);
    read_tasks(&reader, recorded);
    if (recorded->is_plan)
        read_plan(&reader, recorded, &recorded->plan);
    else
        read_update(&reader, recorded, &recorded->update);
    if (reader.rc != TD_OK)
        return reader.rc;
    if ((rc = model_dims_check(&recorded->dims, &why)) ||
        (recorded->is_plan && (rc = mppi_config_check(&recorded->plan, &why))))
        return error_set(err, rc, "%s: %s", recorded->path, why.text);
    return TD_OK;
}

int golden_open(struct golden_case *recorded, const char *path, const struct golden_options *options,
                struct error *err)
{
    const char *text;
    cJSON *config;
    int rc;

    *recorded = (struct golden_case){.path = path};
    if ((rc = safetensors_open(&recorded->file, path, err)))
        return rc;
    text = safetensors_note(recorded->file, "config");
    config = text == NULL ? NULL : cJSON_Parse(text);
    if (!cJSON_IsObject(config))
        rc = error_set(err, TD_EINVAL, "%s holds no recorded vectors: its __metadata__ has no config", path);
    else
        rc = read_config(recorded, config, err);
    cJSON_Delete(config);
    if (rc == TD_OK && options->checkpoint != NULL)
        rc = weights_open(&recorded->weights, options->checkpoint, err);
    if (rc != TD_OK)
        golden_close(recorded);
    return rc;
}

void golden_close(struct golden_case *recorded)
{
    weights_close(&recorded->weights);
    safetensors_close(&recorded->file);
    task_set_release(&recorded->tasks);
}
