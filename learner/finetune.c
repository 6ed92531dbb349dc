#include "learner/finetune.h"

#include <stdlib.h>
#include <string.h>

#include "learner/pretrained.h"
#include "learner/snapshot.h"

struct finetune {
    struct model_layout layout;
    struct task_set tasks;       /* of the checkpoint */
    char (*name)[TASK_NAME_MAX]; /* of the new tasks */
    int names;
    float *parameters;           /* all floats */
    float *m, *v;                /* acting floats; NULL: the optimiser begins anew */
    uint64_t steps;
    float scale;
    int embedding[TASKS_MAX];    /* which of them each new task begins with */
    char path[FS_PATH_MAX];
};

/* --- embeddings ------------------------------------------------------------------- */

static int find_embedding(const struct task_set *old, int count, const char *word, int *out, struct error *err)
{
    char *end;
    long index = strtol(word, &end, 10);

    *out = strcmp(word, "fresh") == 0 ? TRANSPLANT_FRESH : TRANSPLANT_MEAN;
    if (strcmp(word, "fresh") == 0 || strcmp(word, "mean") == 0)
        return TD_OK;
    if ((*out = task_set_find(old, word)) >= 0)
        return TD_OK;
    if ((end == word || *end != '\0') && old->count == 0)
        return error_set(err, TD_EINVAL, "finetune_task=%s: the file does not name its tasks; give one of 0 to %d, mean, fresh",
                         word, count - 1);
    if (end == word || *end != '\0' || index < 0 || index >= count)
        return error_set(err, TD_EINVAL, "finetune_task=%s is none of the checkpoint's tasks, nor one of 0 to %d, mean, fresh",
                         word, count - 1);
    *out = (int)index;
    return TD_OK;
}

/* A task that the checkpoint knows begins with its own embedding, another one as finetune_task says. */
static int choose_embeddings(int embedding[TASKS_MAX], const struct task_set *tasks, const struct task_set *old,
                             int count, const struct config *config, struct error *err)
{
    int other = TRANSPLANT_MEAN;
    int rc = config->finetune_task[0] == '\0' || count == 0
                 ? TD_OK : find_embedding(old, count, config->finetune_task, &other, err);

    for (int i = 0; rc == TD_OK && i < tasks->count; i++) {
        int known = task_set_find(old, tasks->task[i].name);

        embedding[i] = known >= 0 && known < count ? known : other;
    }
    return rc;
}

/* --- reading ---------------------------------------------------------------------- */

/* Everything but the numbers. */
static int look(struct finetune *finetune, struct pretrained *from, const struct config *config,
                const struct task_set *tasks, struct error *err)
{
    int rc = pretrained_open(from, config->checkpoint, err);

    if (rc != TD_OK)
        return rc;
    if (from->checkpoint == NULL && config->finetune_optimizer)
        return error_set(err, TD_EINVAL, "finetune_optimizer=true: %s holds no optimiser's state; give a run's or a "
                         "checkpoint's directory", from->path);
    snprintf(finetune->path, sizeof(finetune->path), "%s", from->path);
    finetune->tasks = from->tasks; /* taken */
    from->tasks = (struct task_set){0};
    model_layout_init(&finetune->layout, &from->dims);
    finetune->names = tasks->count;
    if ((finetune->name = calloc((size_t)tasks->count + 1, sizeof(*finetune->name))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    for (int i = 0; i < tasks->count; i++)
        memcpy(finetune->name[i], tasks->task[i].name, TASK_NAME_MAX);
    return choose_embeddings(finetune->embedding, tasks, &finetune->tasks, from->dims.num_tasks, config, err);
}

static void tell(const struct finetune *finetune, const struct model_dims *dims, bool optimizer, transplant_say *say,
                 void *context)
{
    const char *names[TASKS_MAX], *old_names[TASKS_MAX];
    char line[TRANSPLANT_LINE_MAX];
    int known = finetune->tasks.count;

    for (int i = 0; i < finetune->names; i++)
        names[i] = finetune->name[i];
    for (int i = 0; i < known; i++)
        old_names[i] = finetune->tasks.task[i].name;
    snprintf(line, sizeof(line), "beginning with %.200s, its optimiser %s", finetune->path,
             optimizer ? "too" : "anew");
    say(context, line);
    transplant_tell(dims, &finetune->layout.dims, finetune->embedding, names,
                    known == finetune->layout.dims.num_tasks ? old_names : NULL, say, context);
}

int finetune_check(const struct config *config, const struct model_dims *dims, const struct task_set *tasks,
                   transplant_say *say, void *context, struct error *err)
{
    struct finetune *finetune = calloc(1, sizeof(*finetune));
    struct pretrained from = {0};
    struct error why = {0};
    int rc;

    if (finetune == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    rc = look(finetune, &from, config, tasks, err);
    if (rc == TD_OK && (rc = transplant_check(dims, &finetune->layout.dims, &why)) != TD_OK)
        error_set(err, rc, "checkpoint=%s does not fit: %s", config->checkpoint, why.text);
    if (rc == TD_OK && say != NULL)
        tell(finetune, dims, config->finetune_optimizer, say, context);
    pretrained_close(&from);
    finetune_close(&finetune);
    return rc;
}

static int read_optimizer(struct finetune *finetune, const checkpoint_t *checkpoint, struct error *err)
{
    size_t acting = model_acting_floats(&finetune->layout);
    struct snapshot_optimizer to;
    safetensors_t *file = NULL;
    int rc;

    finetune->m = calloc(acting, sizeof(float));
    finetune->v = calloc(acting, sizeof(float));
    if (finetune->m == NULL || finetune->v == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the optimiser of %s", finetune->path);
    to = (struct snapshot_optimizer){finetune->m, finetune->v, &finetune->steps, &finetune->scale};
    rc = checkpoint_open_tensors(checkpoint, SNAPSHOT_OPTIMIZER, &file, err);
    if (rc == TD_OK)
        rc = snapshot_read_optimizer(file, &finetune->layout, &to, err);
    safetensors_close(&file);
    return rc;
}

int finetune_open(finetune_t **out, const struct config *config, const struct task_set *tasks, struct error *err)
{
    struct finetune *finetune = calloc(1, sizeof(*finetune));
    struct pretrained from = {0};
    int rc;

    *out = NULL;
    if (finetune == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    rc = look(finetune, &from, config, tasks, err);
    if (rc == TD_OK) {
        finetune->parameters = calloc(model_all_floats(&finetune->layout), sizeof(float));
        rc = finetune->parameters == NULL
                 ? error_set(err, TD_ENOMEM, "out of memory for the parameters of %s", finetune->path)
                 : pretrained_read(&from, &finetune->layout, finetune->parameters, err);
    }
    if (rc == TD_OK && config->finetune_optimizer)
        rc = read_optimizer(finetune, from.checkpoint, err);
    pretrained_close(&from);
    if (rc != TD_OK)
        finetune_close(&finetune);
    *out = finetune;
    return rc;
}

void finetune_close(finetune_t **out)
{
    struct finetune *finetune = *out;

    if (finetune == NULL)
        return;
    task_set_release(&finetune->tasks);
    free(finetune->name);
    free(finetune->parameters);
    free(finetune->m);
    free(finetune->v);
    free(finetune);
    *out = NULL;
}

/* --- sizes and beginning ----------------------------------------------------------- */

int finetune_adopt(struct config *config, const bool *given, struct error *err)
{
    static const char *const sizes[] = {"model_size", "enc_dim", "num_enc_layers", "num_channels", "mlp_dim", "latent_dim",
                                        "simnorm_dim", "num_q", "num_bins", "vmin", "vmax", "task_dim"};
    int count, rc;
    const struct config_option *options = config_options(&count);
    struct pretrained from;
    char folder[FS_PATH_MAX];

    if (config->checkpoint[0] == '\0')
        return TD_OK;
    if (pretrained_folder(config->checkpoint, folder)) /* later starts find it without looking beside it */
        snprintf(config->checkpoint, sizeof(config->checkpoint), "%.*s", (int)sizeof(config->checkpoint) - 1, folder);
    rc = pretrained_open(&from, config->checkpoint, err);
    for (int i = 0; rc == TD_OK && i < count; i++)
        for (size_t j = 0; j < TD_LEN(sizes) && rc == TD_OK; j++) {
            char value[CONFIG_TEXT_MAX], word[CONFIG_TEXT_MAX + 64];

            if (given[i] || strcmp(options[i].name, sizes[j]) != 0)
                continue;
            config_format(&from.config, &options[i], value, sizeof(value));
            snprintf(word, sizeof(word), "%s=%s", options[i].name, value);
            rc = config_set(config, word, err);
        }
    pretrained_close(&from);
    return rc;
}

int finetune_apply(const finetune_t *finetune, world_model_t *model, update_t *update, transplant_say *say,
                   void *context, struct error *err)
{
    const struct model_layout *to = &model->layout, *from = &finetune->layout;
    struct update_state state = update_state(update);
    int rc = transplant_check(&to->dims, &from->dims, err);

    if (rc != TD_OK)
        return rc;
    transplant_parameters(to, model->parameters, from, finetune->parameters, finetune->embedding);
    if (finetune->m != NULL) {
        transplant_moments(to, state.m, from, finetune->m, finetune->embedding);
        transplant_moments(to, state.v, from, finetune->v, finetune->embedding);
        *state.steps = finetune->steps;
        state.scale->value = finetune->scale;
    }
    tell(finetune, &to->dims, finetune->m != NULL, say, context);
    return TD_OK;
}
