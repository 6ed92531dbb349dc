#include "common/model/transplant.h"

#include <stdio.h>
#include <string.h>

#define GROUPS_MAX 3

/* Consecutive rows or columns of one meaning: so many in the old and in the new tensor. */
struct group {
    size_t old, new;
};

/* How a tensor is made up: heads of rows of columns. */
struct makeup {
    size_t heads;
    struct group row[GROUPS_MAX], column[GROUPS_MAX];
    int rows, columns;
};

int transplant_check(const struct model_dims *to, const struct model_dims *from, struct error *err)
{
    const struct {
        const char *option;
        double old, new;
    } sizes[] = {
        {"enc_dim", from->enc_dim, to->enc_dim},
        {"num_enc_layers", from->enc_layers, to->enc_layers},
        {"num_channels", from->rgb ? from->num_channels : 0, to->rgb ? to->num_channels : 0},
        {"mlp_dim", from->mlp_dim, to->mlp_dim},
        {"latent_dim", from->latent_dim, to->latent_dim},
        {"simnorm_dim", from->simnorm_dim, to->simnorm_dim},
        {"num_q", from->num_q, to->num_q},
        {"num_bins", from->num_bins, to->num_bins},
        {"vmin", from->vmin, to->vmin},
        {"vmax", from->vmax, to->vmax},
    };

    if (to->rgb != from->rgb)
        return error_set(err, TD_EINVAL, "the checkpoint was trained with obs=%s, this run has obs=%s",
                         from->rgb ? "rgb" : "state", to->rgb ? "rgb" : "state");
    for (size_t i = 0; i < TD_LEN(sizes); i++)
        if (sizes[i].old != sizes[i].new)
            return error_set(err, TD_EINVAL, "the checkpoint was trained with %s=%g, this run has %s=%g", sizes[i].option,
                             sizes[i].old, sizes[i].option, sizes[i].new);
    if (from->num_tasks > 0 && to->num_tasks > 0 && from->task_dim != to->task_dim)
        return error_set(err, TD_EINVAL, "the checkpoint was trained with task_dim=%d, this run has task_dim=%d",
                         from->task_dim, to->task_dim);
    return TD_OK;
}

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);

    return length >= tail && strcmp(name + length - tail, end) == 0;
}

/* Does this layer read what the widths of a task decide? */
static bool is_first(const struct model_tensor *tensor, const struct model_dims *dims)
{
    return tensor->part != MODEL_TASK && !(tensor->part == MODEL_ENCODER && dims->rgb) &&
           (ends_with(tensor->name, ".0.weight") || ends_with(tensor->name, ".0.bias"));
}

static bool has_heads(const struct model_tensor *tensor)
{
    return tensor->part == MODEL_Q || tensor->part == MODEL_TARGET_Q;
}

static bool reads_actions(enum model_part part)
{
    return part == MODEL_DYNAMICS || part == MODEL_REWARD || part == MODEL_Q || part == MODEL_TARGET_Q;
}

static struct group same(size_t count)
{
    return (struct group){count, count};
}

/* The columns of a part's first layer: observation or latent, embedding, action. */
static void group_inputs(struct makeup *makeup, enum model_part part, const struct model_dims *to,
                         const struct model_dims *from)
{
    struct group obs = {(size_t)from->obs_dim, (size_t)to->obs_dim};

    makeup->column[0] = part == MODEL_ENCODER ? obs : same((size_t)to->latent_dim);
    makeup->column[1] = (struct group){(size_t)from->task_dim, (size_t)to->task_dim};
    makeup->column[2] = (struct group){(size_t)from->action_dim, (size_t)to->action_dim};
    makeup->columns = reads_actions(part) ? 3 : 2;
}

/* Of a tensor that both models have. */
static struct makeup makeup_of(const struct model_tensor *tensor, const struct model_dims *to,
                               const struct model_dims *from)
{
    size_t heads = has_heads(tensor) ? (size_t)to->num_q : 1;
    int axis = has_heads(tensor) ? 1 : 0;
    size_t rows = (size_t)tensor->shape[axis];
    struct makeup makeup = {.heads = heads, .row = {same(rows)}, .rows = 1, .columns = 1};

    makeup.column[0] = same(tensor->count / (heads * rows));
    if (is_first(tensor, to) && ends_with(tensor->name, "weight"))
        group_inputs(&makeup, tensor->part, to, from);
    if (tensor->part == MODEL_PI && strncmp(tensor->name, "_pi.2.", 6) == 0) { /* means, then log standard deviations */
        makeup.row[0] = makeup.row[1] = (struct group){(size_t)from->action_dim, (size_t)to->action_dim};
        makeup.rows = 2;
    }
    return makeup;
}

static size_t total(const struct group *group, int count, bool old)
{
    size_t sum = 0;

    for (int i = 0; i < count; i++)
        sum += old ? group[i].old : group[i].new;
    return sum;
}

static void copy_row(float *to, const float *from, const struct makeup *makeup)
{
    for (int c = 0; c < makeup->columns; c++) {
        const struct group *group = &makeup->column[c];

        memcpy(to, from, (group->old < group->new ? group->old : group->new) * sizeof(float));
        to += group->new;
        from += group->old;
    }
}

static void copy_tensor(float *to, const float *from, const struct makeup *makeup)
{
    size_t wide = total(makeup->column, makeup->columns, false), was = total(makeup->column, makeup->columns, true);

    for (size_t head = 0; head < makeup->heads; head++)
        for (int r = 0; r < makeup->rows; r++) {
            const struct group *group = &makeup->row[r];

            for (size_t i = 0; i < group->new && i < group->old; i++)
                copy_row(to + i * wide, from + i * was, makeup);
            to += group->new * wide;
            from += group->old * was;
        }
}

/* --- embeddings ------------------------------------------------------------------ */

/* One value of the embedding that a new task begins with; `which` is not TRANSPLANT_FRESH. */
static float embedding_value(const float *table, const struct model_dims *from, int which, int i)
{
    double sum = 0;

    if (which >= 0)
        return table[(size_t)which * (size_t)from->task_dim + (size_t)i];
    for (int task = 0; task < from->num_tasks; task++)
        sum += table[(size_t)task * (size_t)from->task_dim + (size_t)i];
    return (float)(sum / from->num_tasks);
}

static void copy_embeddings(const struct model_layout *to, float *memory, const struct model_layout *from,
                            const float *old, const int *embedding, bool moments)
{
    const float *table = old + from->part[MODEL_TASK];
    int width = to->dims.task_dim;

    for (int task = 0; task < to->dims.num_tasks; task++) {
        float *row = model_embeddings(to, memory) + (size_t)task * (size_t)width;

        for (int i = 0; i < width && embedding[task] != TRANSPLANT_FRESH; i++)
            if (!moments || embedding[task] >= 0)
                row[i] = embedding_value(table, &from->dims, embedding[task], i);
    }
}

/* bias += W e, of the columns of W that read the embedding. */
static void fold(float *bias, const float *weight, const struct makeup *makeup, size_t rows, const float *e, int width)
{
    size_t was = total(makeup->column, makeup->columns, true), at = makeup->column[0].old;

    for (size_t row = 0; row < makeup->heads * rows; row++) {
        double sum = 0;

        for (int i = 0; i < width; i++)
            sum += (double)weight[row * was + at + (size_t)i] * e[i];
        bias[row] = (float)(bias[row] + sum);
    }
}

/* The old task's embedding goes into the biases that follow the first layers' products. */
static void fold_embedding(const struct model_layout *to, float *parameters, const struct model_layout *from,
                           const float *old, int which)
{
    int width = from->dims.task_dim;
    float e[4096]; /* TASK_DIM_MAX of model_dims_check */

    TD_ASSERT(width <= (int)TD_LEN(e), "%d", width);
    for (int i = 0; i < width; i++)
        e[i] = embedding_value(old + from->part[MODEL_TASK], &from->dims, which, i);
    if (which >= 0)
        embedding_renorm(e, width); /* as every lookup leaves it */
    for (int i = 0; i + 1 < to->tensors; i++) {
        const struct model_tensor *weight = &to->tensor[i], *bias = &to->tensor[i + 1];
        const struct model_tensor *before = model_layout_find(from, weight->name);
        struct makeup makeup;

        if (before == NULL || !is_first(weight, &to->dims) || !ends_with(weight->name, "weight"))
            continue;
        makeup = makeup_of(weight, &to->dims, &from->dims);
        fold(parameters + bias->offset, old + before->offset, &makeup, total(makeup.row, makeup.rows, false), e, width);
    }
}

/* --- whole models ------------------------------------------------------------------ */

static void copy_tensors(const struct model_layout *to, float *memory, const struct model_layout *from,
                         const float *old, bool moments)
{
    for (int i = 0; i < to->tensors; i++) {
        const struct model_tensor *tensor = &to->tensor[i], *before = model_layout_find(from, tensor->name);
        struct makeup makeup;

        if (before == NULL || tensor->part == MODEL_TASK || (moments && tensor->part == MODEL_TARGET_Q))
            continue;
        makeup = makeup_of(tensor, &to->dims, &from->dims);
        TD_ASSERT(makeup.heads * total(makeup.row, makeup.rows, true) * total(makeup.column, makeup.columns, true) ==
                  before->count, "%s", tensor->name);
        copy_tensor(memory + tensor->offset, old + before->offset, &makeup);
    }
}

void transplant_parameters(const struct model_layout *to, float *parameters, const struct model_layout *from,
                           const float *old, const int *embedding)
{
    copy_tensors(to, parameters, from, old, false);
    if (from->dims.num_tasks == 0)
        return;
    if (to->dims.num_tasks > 0)
        copy_embeddings(to, parameters, from, old, embedding, false);
    else if (embedding[0] != TRANSPLANT_FRESH)
        fold_embedding(to, parameters, from, old, embedding[0]);
}

void transplant_moments(const struct model_layout *to, float *moments, const struct model_layout *from,
                        const float *old, const int *embedding)
{
    memset(moments, 0, model_acting_floats(to) * sizeof(float));
    copy_tensors(to, moments, from, old, true);
    if (from->dims.num_tasks > 0 && to->dims.num_tasks > 0)
        copy_embeddings(to, moments, from, old, embedding, true);
}

/* --- telling ----------------------------------------------------------------------- */

static void tell_width(const char *what, const char *where, int old, int new, transplant_say *say, void *context)
{
    char line[TRANSPLANT_LINE_MAX];

    if (old == new)
        return;
    if (new > old)
        snprintf(line, sizeof(line), "%s: %d components, the checkpoint has %d: %d to %d begin fresh in %s", what, new, old,
                 old + 1, new, where);
    else
        snprintf(line, sizeof(line), "%s: %d components, the checkpoint has %d: %d to %d are left out of %s", what, new, old,
                 new + 1, old, where);
    say(context, line);
}

static void tell_embedding(const struct model_dims *to, const struct model_dims *from, int which, const char *name,
                           const char *const *old_names, transplant_say *say, void *context)
{
    char line[TRANSPLANT_LINE_MAX], source[120];

    if (which == TRANSPLANT_FRESH)
        snprintf(source, sizeof(source), "nothing");
    else if (which == TRANSPLANT_MEAN)
        snprintf(source, sizeof(source), "the mean of %d embeddings", from->num_tasks);
    else if (old_names != NULL)
        snprintf(source, sizeof(source), "the embedding of %.80s", old_names[which]);
    else
        snprintf(source, sizeof(source), "embedding %d", which);
    if (to->num_tasks > 0)
        snprintf(line, sizeof(line), "%.80s begins with %s", name, which == TRANSPLANT_FRESH ? "a fresh embedding" : source);
    else
        snprintf(line, sizeof(line), "%.80s, a single task, has no embedding: %s is added to the first layers' biases", name,
                 source);
    say(context, line);
}

void transplant_tell(const struct model_dims *to, const struct model_dims *from, const int *embedding,
                     const char *const *names, const char *const *old_names, transplant_say *say, void *context)
{
    if (!to->rgb)
        tell_width("observations", "the encoder", from->obs_dim, to->obs_dim, say, context);
    tell_width("actions", "dynamics, reward, Qs and policy", from->action_dim, to->action_dim, say, context);
    for (int i = 0; from->num_tasks > 0 && i < (to->num_tasks > 0 ? to->num_tasks : 1); i++)
        tell_embedding(to, from, embedding[i], names[i], old_names, say, context);
    if (from->num_tasks == 0 && to->num_tasks > 0)
        say(context, "the checkpoint is of a single task: all embeddings, and what reads them, begin fresh");
    if (to->episodic && !from->episodic)
        say(context, "the checkpoint has no termination head: it begins fresh");
    if (!to->episodic && from->episodic)
        say(context, "the checkpoint's termination head is left out: this run is not episodic");
}
