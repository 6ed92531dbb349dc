/* update_tasks.c - several tasks: embeddings into every net's input, their gradient, masks. */
#include <string.h>

#include "common/tensor/vec.h"
#include "learner/update_internal.h"

void update_lay_out_tasks(struct update *update, struct arena *arena)
{
    const struct model_dims *dims = &update->model->layout.dims;
    size_t width = (size_t)(dims->obs_dim + dims->task_dim), batch = (size_t)update->batch;

    if (update->task_dim == 0)
        return;
    update->seen = arena_floats(arena, (size_t)(update->horizon + 1) * batch * width);
    update->dseen = arena_floats(arena, batch * width);
    update->renormed = arena_alloc(arena, (size_t)dims->num_tasks, 1);
}

/* The row of the table that slice b looks up. */
static float *embedding(const struct update *update, int b)
{
    return model_embeddings(&update->model->layout, update->model->parameters) +
           (size_t)update->data->task[b] * (size_t)update->task_dim;
}

/* As the reference's every lookup: rows in use that are longer than 1 are made 1 long, in place. */
static void renorm(struct update *update)
{
    int tasks = update->model->layout.dims.num_tasks;

    memset(update->renormed, 0, (size_t)tasks);
    for (int b = 0; b < update->batch; b++) {
        uint32_t task = update->data->task[b];

        TD_ASSERT(task < (uint32_t)tasks, "task %u of %d in slice %d", task, tasks, b);
        if (!update->renormed[task])
            embedding_renorm(embedding(update, b), update->task_dim);
        update->renormed[task] = 1;
    }
}

void update_embed(struct update *update, bool observations)
{
    size_t obs = (size_t)update->model->layout.dims.obs_dim, e = (size_t)update->task_dim, width = update->width;
    size_t bytes = e * sizeof(float), latent = (size_t)update->latent - e;

    if (e == 0)
        return;
    TD_ASSERT(update->data->task != NULL, "a batch without tasks");
    renorm(update);
    for (int row = 0; row < (update->horizon + 1) * update->batch; row++) {
        const float *from = embedding(update, row % update->batch);
        float *seen = update->seen + (size_t)row * (obs + e);

        memcpy(update->za + (size_t)row * width + latent, from, bytes);
        if (!observations)
            continue;
        memcpy(seen, update->data->obs + (size_t)row * obs, obs * sizeof(float));
        memcpy(seen + obs, from, bytes);
        if (row < update->horizon * update->batch)
            memcpy(update->next_za + (size_t)row * width + latent, from, bytes);
    }
}

const float *update_observed(const struct update *update, int t, size_t *width)
{
    const struct model_dims *dims = &update->model->layout.dims;

    *width = (size_t)(dims->obs_dim + update->task_dim);
    if (dims->rgb)
        return NULL;
    return (update->task_dim > 0 ? update->seen : update->data->obs) + (size_t)t * (size_t)update->batch * *width;
}

void update_embedding_gradient(struct update *update, bool observations)
{
    size_t obs = (size_t)update->model->layout.dims.obs_dim, e = (size_t)update->task_dim;
    size_t latent = (size_t)update->latent - e;
    float *table = model_embeddings(&update->model->layout, update->gradient);

    for (int b = 0; e > 0 && b < update->batch; b++) {
        float *sum = table + (size_t)update->data->task[b] * e;

        for (int t = 0; t <= update->horizon; t++)
            vec_add(sum, update->dz + (size_t)(t * update->batch + b) * update->width + latent, e);
        if (observations)
            vec_add(sum, update->dseen + (size_t)b * (obs + e) + obs, e);
    }
}

struct policy_head update_policy_head(const struct update *update, int row)
{
    struct policy_head head = update->model->head;

    if (update->task_dim > 0)
        head.padding = head.action_dim - update->model->task[update->data->task[row % update->batch]].action_dim;
    return head;
}
