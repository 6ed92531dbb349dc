/* update_policy.c - the policy's loss on detached latents, and its gradient through two Qs. */
#include <math.h>

#include "common/tensor/vec.h"
#include "learner/update_internal.h"

/*
 * loss = 1/(H+1) sum_t rho^t mean_B -(entropy_coef S + q / scale), q the mean of two drawn Qs. Q's
 * parameters get no gradient; it flows through their input into the action, and into the task's embedding there
 * and at the policy's input.
 */

/* Pool task: one tile of [H+1, B]: actions, entropies, values. */
static void forward_task(void *context, int tile, int worker)
{
    struct update *update = context;
    const world_model_t *model = update->model;
    size_t a = (size_t)update->action_dim, bins = (size_t)model->two_hot.bins;
    int row, rows = mlp_tape_span(&update->pi, tile, &row), step = update->task_dim > 0 ? 1 : rows;

    (void)worker;
    mlp_tape_forward(&update->pi, &update->part[MODEL_PI], tile);
    for (int i = row; i < row + rows; i += step) {
        struct policy_head head = update_policy_head(update, i);

        policy_forward(&head, update->pi_net + (size_t)i * 2 * a, 2 * a, update->pi_noise + (size_t)i * a, step,
                       update->za + (size_t)i * update->width + update->latent, update->width, update->entropy + i,
                       update->scaled_entropy + i);
    }
    for (int i = 0; i < 2; i++) {
        mlp_tape_forward(&update->pi_q[i], &update->pi_head[i], tile);
        two_hot_decode(&model->two_hot, update->pi_logits[i] + (size_t)row * bins, bins, rows,
                       update->pi_value[i] + row, update->pi_expect[i] + row);
    }
}

/* rho^t / ((H+1) B) of a row: what multiplies the row's part of the loss. */
static double row_weight(const struct update *update, int row)
{
    return update_rho(update, row / update->batch) / ((update->horizon + 1) * update->batch);
}

/* Pool task: the gradient of one tile, from the values down to the policy's output and through it. */
static void backward_task(void *context, int tile, int worker)
{
    struct update *update = context;
    const world_model_t *model = update->model;
    size_t a = (size_t)update->action_dim, bins = (size_t)model->two_hot.bins;
    float *mlp = update->scratch[worker].mlp;
    int row, rows = mlp_tape_span(&update->pi, tile, &row), step = update->task_dim > 0 ? 1 : rows;
    int latent = update->latent - update->task_dim; /* the embedding gets its part; z is detached */
    double weight = row_weight(update, row);

    for (int i = 0; i < 2; i++) {
        float *logits = update->pi_logits[i] + (size_t)row * bins;

        for (int j = row; j < row + rows; j++)
            update->dvalue[i][j] = (float)(-weight / 2.0 / (double)update->scale.value);
        two_hot_decode_backward(&model->two_hot, logits, bins, rows, update->pi_expect[i] + row,
                                update->dvalue[i] + row, logits, bins);
        mlp_tape_backward(&update->pi_q[i], &update->pi_head[i], tile, update->pi_logits[i], bins,
                          update->dz, update->width, latent, i > 0, mlp);
    }
    for (int i = row; i < row + rows; i += step) {
        struct policy_head head = update_policy_head(update, i);

        policy_backward(&head, update->pi_net + (size_t)i * 2 * a, 2 * a, update->pi_noise + (size_t)i * a, step,
                        update->za + (size_t)i * update->width + update->latent, update->width,
                        update->dz + (size_t)i * update->width + update->latent, update->width,
                        (float)(-weight * update->config.entropy_coef), update->dpi_net + (size_t)i * 2 * a, 2 * a);
    }
    mlp_tape_backward(&update->pi, &update->part[MODEL_PI], tile, update->dpi_net, 2 * a,
                      update->task_dim > 0 ? update->dz : NULL, update->width, latent, true, mlp);
}

/* Pool task: one block of one layer's gradient. */
static void gradient_task(void *context, int task, int worker)
{
    struct update *update = context;

    (void)worker;
    mlp_tape_gradient(&update->pi, &update->part[MODEL_PI], update->dpi_net,
                      2 * (size_t)update->action_dim, &update->grad[MODEL_PI], task);
}

void update_policy_gradient(struct update *update)
{
    const world_model_t *model = update->model;
    size_t a = (size_t)update->action_dim, bins = (size_t)model->two_hot.bins;
    float *first = update->sorted; /* [2 * B]: q[0], and the scratch of its sorting */

    mlp_tape_bind(&update->pi, update->za, update->width, update->pi_net, 2 * a);
    for (int i = 0; i < 2; i++) {
        mlp_head(&update->pi_head[i], &update->part[MODEL_Q], update->pi_two[i]);
        mlp_tape_bind(&update->pi_q[i], update->za, update->width, update->pi_logits[i], bins);
        if (update->dropout)
            mlp_tape_mask(&update->pi_q[i], 0, update->pi_mask[i]);
    }
    pool_run(update->pool, forward_task, update, mlp_tape_tiles(&update->pi));
    for (int i = 0; i < update->batch; i++)
        first[i] = (update->pi_value[0][i] + update->pi_value[1][i]) / 2.0f;
    running_scale_update(&update->scale, first, update->batch, first + update->batch);
    pool_run(update->pool, backward_task, update, mlp_tape_tiles(&update->pi));
    pool_run(update->pool, gradient_task, update, mlp_gradient_parts(&update->part[MODEL_PI]));
    /* Nobody clears it: it adds to the next update's gradient, as in the reference. */
    update_embedding_gradient(update, false);
}

void update_policy_stats(struct update *update, struct update_stats *stats)
{
    int rows = (update->horizon + 1) * update->batch;
    double loss = 0, scale = (double)update->scale.value;

    update->pi_terms = 0;
    for (int i = 0; i < rows; i++) {
        double q[2] = {(double)update->pi_value[0][i] / scale, (double)update->pi_value[1][i] / scale};
        double weight = row_weight(update, i);

        loss -= weight * (update->config.entropy_coef * (double)update->scaled_entropy[i] + (q[0] + q[1]) / 2);
        update->pi_terms += weight * (fabs(q[0]) + fabs(q[1])) / 2;
    }
    stats->pi_loss = (float)loss;
    stats->pi_entropy = (float)(vec_sum(update->entropy, (size_t)rows) / rows);
    stats->pi_scaled_entropy = (float)(vec_sum(update->scaled_entropy, (size_t)rows) / rows);
    stats->pi_scale = update->scale.value;
}
