/* update_pack.c - packed copies of the weights, which all products of a step share. */
#include "learner/update_internal.h"

#define PACK_FLOATS_MAX ((size_t)64 << 20) /* 256 MB: models above are packed product by product */

/* Gradients at inputs: not of observations, and the policy's loss goes no further than its latents. */
static int wanted(enum model_part part)
{
    switch (part) {
    case MODEL_ENCODER:
    case MODEL_PI:
        return MLP_PACK_FORWARD | MLP_PACK_BACKWARD;
    default:
        return MLP_PACK_FORWARD | MLP_PACK_BACKWARD | MLP_PACK_INPUT;
    }
}

void update_lay_out_panels(struct update *update, struct arena *arena)
{
    bool fits = model_all_floats(&update->model->layout) <= PACK_FLOATS_MAX;
    struct mlp head;

    for (int i = 0; i < MODEL_TARGET_Q; i++) {
        mlp_panels_init(&update->panels[i], &update->part[i], i == MODEL_Q ? update->num_q : 1,
                        fits ? wanted((enum model_part)i) : 0, arena);
        mlp_panels_use(&update->part[i], &update->panels[i]);
    }
    mlp_head(&head, &update->part[MODEL_TARGET_Q], 0);
    for (int i = 0; i < 2; i++)
        mlp_panels_init(&update->target_panels[i], &head, 1, fits ? MLP_PACK_FORWARD : 0, arena);
}

/* Pool task: one layer of one net, head and direction; the two target heads, then convolutions come last. */
static void pack_task(void *context, int task, int worker)
{
    struct update *update = context;

    (void)worker;
    for (int i = 0; i < MODEL_TARGET_Q; i++) {
        int tasks = mlp_panels_tasks(&update->panels[i], &update->part[i]);

        if (task < tasks) {
            mlp_panels_pack(&update->panels[i], &update->part[i], task);
            return;
        }
        task -= tasks;
    }
    for (int i = 0; i < 2; i++) {
        int tasks = mlp_panels_tasks(&update->target_panels[i], &update->target_head[i]);

        if (task < tasks) {
            mlp_panels_pack(&update->target_panels[i], &update->target_head[i], task);
            return;
        }
        task -= tasks;
    }
    pixel_panels_pack(&update->pixels.panels, &update->model->pixels, task);
}

void update_pack_all(struct update *update)
{
    int tasks = update->model->layout.dims.rgb ? PIXEL_LAYERS : 0;

    for (int i = 0; i < MODEL_TARGET_Q; i++)
        tasks += mlp_panels_tasks(&update->panels[i], &update->part[i]);
    for (int i = 0; i < 2; i++) {
        mlp_panels_use(&update->target_head[i], &update->target_panels[i]);
        tasks += mlp_panels_tasks(&update->target_panels[i], &update->target_head[i]);
    }
    pool_run(update->pool, pack_task, update, tasks);
}

/* Pool task: tasks of one head follow each other. */
static void pack_head_task(void *context, int task, int worker)
{
    struct update *update = context;
    const struct mlp *q = &update->part[MODEL_Q];
    int each = mlp_panels_tasks(&update->panels[MODEL_Q], q) / update->num_q;

    (void)worker;
    mlp_panels_pack(&update->panels[MODEL_Q], q, update->pi_two[task / each] * each + task % each);
}

void update_pack_policy_heads(struct update *update)
{
    int tasks = mlp_panels_tasks(&update->panels[MODEL_Q], &update->part[MODEL_Q]);

    pool_run(update->pool, pack_head_task, update, 2 * tasks / update->num_q);
}
