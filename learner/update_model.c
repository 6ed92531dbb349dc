/* update_model.c - TD targets, latent rollout, and the world model's losses with their gradients. */
#include <math.h>
#include <string.h>

#include "common/nn/softmax.h"
#include "common/tensor/vec.h"
#include "learner/update_internal.h"

static int tiles_of(int rows)
{
    return (rows + MLP_TILE - 1) / MLP_TILE;
}

/* --- targets ----------------------------------------------------------------------------------- */

static float discount_of(const struct update *update, int row)
{
    return update->task_dim > 0 ? update->model->task[update->data->task[row % update->batch]].discount
                                : (float)update->config.discount;
}

/* Policy actions of `rows` rows from the net's output, behind their latents; a row has its task's mask. */
static void target_actions(const struct update *update, int row, int rows, const float *net, float *za)
{
    size_t a = (size_t)update->action_dim;
    int step = update->task_dim > 0 ? 1 : rows;

    for (int i = 0; i < rows; i += step) {
        struct policy_head head = update_policy_head(update, row + i);

        policy_sample(&head, net + (size_t)i * 2 * a, 2 * a, update->target_noise + (size_t)(row + i) * a, step,
                      za + (size_t)i * update->width + update->latent, update->width);
    }
}

/*
 * One tile of rows of the flattened [H, B]: z' = encode(obs[t+1]) (with pixels it is there already), a
 * policy action there, and y = r + discount (1 - terminated) min of the two drawn target Qs.
 */
static void target_tile(struct update *update, int tile, struct update_scratch *scratch)
{
    const world_model_t *model = update->model;
    const struct batch *data = update->data;
    size_t width = update->width, a = (size_t)update->action_dim, bins = (size_t)model->two_hot.bins;
    size_t obs;
    const float *next = update_observed(update, 1, &obs);
    int row = tile * MLP_TILE, all = update->horizon * update->batch;
    int rows = row + MLP_TILE < all ? MLP_TILE : all - row;
    float *za = update->next_za + (size_t)row * width;

    if (!model->layout.dims.rgb)
        mlp_forward(&update->part[MODEL_ENCODER], next + (size_t)row * obs, obs, rows, za, width, scratch->mlp);
    mlp_forward(&update->part[MODEL_PI], za, width, rows, scratch->net, 2 * a, scratch->mlp);
    target_actions(update, row, rows, scratch->net, za);
    for (int i = 0; i < 2; i++) {
        mlp_forward(&update->target_head[i], za, width, rows, scratch->logits, bins, scratch->mlp);
        two_hot_decode(&model->two_hot, scratch->logits, bins, rows, scratch->q[i], NULL);
    }
    for (int i = 0; i < rows; i++) {
        float q = scratch->q[0][i], other = scratch->q[1][i];
        float left = discount_of(update, row + i) * (1.0f - data->terminated[row + i]);

        q = q < other || isnan(q) ? q : other;
        update->targets[row + i] = data->reward[row + i] + left * q;
    }
    two_hot_encode(&model->two_hot, update->targets + row, rows, update->bin[0] + row,
                   update->bin_weight[0] + row);
    two_hot_encode(&model->two_hot, data->reward + row, rows, update->bin[1] + row,
                   update->bin_weight[1] + row);
}

/* --- rollout ----------------------------------------------------------------------------------- */

/*
 * Tile `tile` of the batch through time: z_0 = encode(obs[0]), z_{t+1} = next(z_t, a_t). With pixels z_0 is
 * there already, and the encoder's chain here and in backward is one of no layers.
 */
static void rollout_tile(struct update *update, int tile)
{
    int row, rows = mlp_tape_span(&update->encoder, tile, &row);
    size_t a = (size_t)update->action_dim;

    for (int t = 0; t < update->horizon; t++)
        for (int i = 0; i < rows; i++) {
            size_t at = (size_t)(t * update->batch + row + i);

            memcpy(update->za + at * update->width + update->latent, update->data->action + at * a,
                   a * sizeof(float));
        }
    mlp_tape_forward(&update->encoder, &update->part[MODEL_ENCODER], tile);
    for (int t = 0; t < update->horizon; t++)
        mlp_tape_forward(&update->dynamics, &update->part[MODEL_DYNAMICS],
                         t * update->dynamics.group_tiles + tile);
}

/* Pool task: the rollouts first, being longest, then the targets. */
static void forward_task(void *context, int task, int worker)
{
    struct update *update = context;
    int rollouts = mlp_tape_tiles(&update->encoder);

    if (task < rollouts)
        rollout_tile(update, task);
    else
        target_tile(update, task - rollouts, &update->scratch[worker]);
}

/* --- losses of the heads ----------------------------------------------------------------------- */

/*
 * Cross-entropy of rows of one time step against two-hot targets (which 0: TD target, 1: reward), and
 * its gradient at the logits: coef rho^t / (H B) for each row.
 */
static void regression_loss(struct update *update, struct update_head *head, int which, int row, int rows,
                            double coef)
{
    size_t bins = (size_t)update->model->two_hot.bins;
    double scale = coef * update_rho(update, row / update->batch) / (update->horizon * update->batch);
    float *logits = head->out + (size_t)row * bins;

    softmax_two_hot(logits, bins, rows, (int)bins, update->bin[which] + row,
                    update->bin_weight[which] + row, head->loss + row, (float)scale, logits, bins);
}

/* Binary cross-entropy on logits: max(x, 0) - x y + ln(1 + e^-|x|); gradient sigmoid(x) - y. */
static void termination_loss(struct update *update, struct update_head *head, int row, int rows)
{
    float scale = (float)(update->config.termination_coef / (update->horizon * update->batch));

    for (int i = row; i < row + rows; i++) {
        float x = head->out[i], y = update->data->terminated[i];

        head->loss[i] = (x > 0.0f ? x : 0.0f) - x * y + log1pf(expf(-fabsf(x)));
        head->out[i] = scale * (1.0f / (1.0f + expf(-x)) - y);
    }
}

/* Kept for the statistics: the last step's termination logits, before they become gradients. */
static void keep_last_logits(struct update *update, const struct update_head *head, int row, int rows)
{
    int last = (update->horizon - 1) * update->batch;

    for (int i = row; i < row + rows; i++)
        if (i >= last)
            update->sorted[i - last] = head->out[i];
}

/*
 * Pool task: one head on one tile, forward, loss, backward to its input. Head by head, so that the
 * last heads' tapes are still in the cache when gradients begin with them.
 */
static void head_task(void *context, int task, int worker)
{
    struct update *update = context;
    int tiles = mlp_tape_tiles(&update->head[0].tape), index = task / tiles, tile = task % tiles;
    struct update_head *head = &update->head[index];
    int row, rows = mlp_tape_span(&head->tape, tile, &row);
    size_t out = (size_t)mlp_out(&head->net);

    mlp_tape_forward(&head->tape, &head->net, tile);
    if (index < update->num_q) {
        regression_loss(update, head, 0, row, rows, update->config.value_coef / update->num_q);
    } else if (index == update->num_q) {
        regression_loss(update, head, 1, row, rows, update->config.reward_coef);
    } else {
        keep_last_logits(update, head, row, rows);
        termination_loss(update, head, row, rows);
    }
    mlp_tape_backward(&head->tape, &head->net, tile, head->out, out, head->dx, update->width, 0, false,
                      update->scratch[worker].mlp);
}

/* --- backward through time --------------------------------------------------------------------- */

/* dz rows += the heads' gradients at z_t; termination looks at z_{t+1}, its row is one step back. */
static void add_head_gradients(struct update *update, int t, int row, int rows)
{
    for (int h = 0; h < update->heads; h++) {
        int step = h > update->num_q ? t - 1 : t;

        if (step < 0 || step >= update->horizon)
            continue;
        for (int i = 0; i < rows; i++)
            vec_add(update->dz + (size_t)(t * update->batch + row + i) * update->width,
                    update->head[h].dx + (size_t)(step * update->batch + row + i) * update->width,
                    (size_t)update->latent);
    }
}

/*
 * Consistency: (1/H) sum_t rho^t mean_{B,L} (z_{t+1} - z'_t)^2. Adds its gradient at z_{t+1} to dz and
 * leaves the tile's sum of squares.
 */
static void add_consistency(struct update *update, int t, int tile, int row, int rows)
{
    int batch = update->batch, latent = update->model->layout.dims.latent_dim;
    double count = (double)update->horizon * batch * latent;
    float scale = (float)(update->config.consistency_coef * update_rho(update, t) * 2.0 / count);
    double sum = 0;

    for (int i = row; i < row + rows; i++) {
        const float *z = update->za + (size_t)((t + 1) * batch + i) * update->width;
        const float *wanted = update->next_za + (size_t)(t * batch + i) * update->width;
        float *dz = update->dz + (size_t)((t + 1) * batch + i) * update->width;
        float squares = 0.0f;

        for (int j = 0; j < latent; j++) {
            float off = z[j] - wanted[j];

            squares += off * off;
            dz[j] += scale * off;
        }
        sum += (double)squares;
    }
    update->consistency[t * update->encoder.group_tiles + tile] = sum;
}

/*
 * Pool task: one tile of the batch, from z_H back to the observation. dz_t is what dynamics gives
 * from dz_{t+1}, plus what looks at z_t directly: heads and, from t = 1 on, consistency.
 */
static void chain_task(void *context, int tile, int worker)
{
    struct update *update = context;
    const struct mlp *part = update->part;
    int row, rows = mlp_tape_span(&update->encoder, tile, &row);
    size_t step = (size_t)update->batch * update->width, seen;
    float *mlp = update->scratch[worker].mlp;

    memset(update->dz + (size_t)update->horizon * step + (size_t)row * update->width, 0,
           (size_t)rows * update->width * sizeof(float));
    for (int t = update->horizon;; t--) {
        add_head_gradients(update, t, row, rows);
        if (t == 0)
            break;
        add_consistency(update, t - 1, tile, row, rows);
        mlp_tape_backward(&update->dynamics, &part[MODEL_DYNAMICS],
                          (t - 1) * update->dynamics.group_tiles + tile, update->dz + step, update->width,
                          update->dz, update->width, 0, false, mlp);
    }
    update_observed(update, 0, &seen);
    mlp_tape_backward(&update->encoder, &part[MODEL_ENCODER], tile, update->dz, update->width, update->dseen, seen,
                      update->model->layout.dims.obs_dim, false, mlp);
}

/* --- parameter gradients ----------------------------------------------------------------------- */

/* Pool task: pixels of one tile, being longest, or one block of one layer's gradient. */
static void gradient_task(void *context, int task, int worker)
{
    struct update *update = context;
    const struct mlp *part = update->part;

    if (task < update_pixel_tasks(update)) {
        update_pixel_backward(update, task, worker);
        return;
    }
    task -= update_pixel_tasks(update);
    for (int h = update->heads - 1; h >= 0; h--) {
        struct update_head *head = &update->head[h];
        int parts = mlp_gradient_parts(&head->net);

        if (task < parts) {
            mlp_tape_gradient(&head->tape, &head->net, head->out, (size_t)mlp_out(&head->net), &head->grad,
                              task);
            return;
        }
        task -= parts;
    }
    if (task < mlp_gradient_parts(&part[MODEL_DYNAMICS]))
        mlp_tape_gradient(&update->dynamics, &part[MODEL_DYNAMICS],
                          update->dz + (size_t)update->batch * update->width, update->width,
                          &update->grad[MODEL_DYNAMICS], task);
    else
        mlp_tape_gradient(&update->encoder, &part[MODEL_ENCODER], update->dz, update->width,
                          &update->grad[MODEL_ENCODER],
                          task - mlp_gradient_parts(&part[MODEL_DYNAMICS]));
}

static int gradient_tasks(const struct update *update)
{
    int count = update_pixel_tasks(update) + mlp_gradient_parts(&update->part[MODEL_DYNAMICS]) +
                mlp_gradient_parts(&update->part[MODEL_ENCODER]);

    for (int h = 0; h < update->heads; h++)
        count += mlp_gradient_parts(&update->head[h].net);
    return count;
}

void update_model_gradient(struct update *update)
{
    int tiles = mlp_tape_tiles(&update->encoder);
    int rows = update->horizon * update->batch;
    size_t step = (size_t)update->batch * update->width, obs;
    const float *seen = update_observed(update, 0, &obs);

    mlp_tape_bind(&update->encoder, seen, obs, update->za, update->width);
    mlp_tape_bind(&update->dynamics, update->za, update->width, update->za + step, update->width);
    for (int h = 0; h < update->heads; h++) {
        struct update_head *head = &update->head[h];

        mlp_tape_bind(&head->tape, h > update->num_q ? update->za + step : update->za, update->width,
                      head->out, (size_t)mlp_out(&head->net));
        if (h < update->num_q && update->dropout)
            mlp_tape_mask(&head->tape, 0,
                          update->value_mask +
                              (size_t)h * (size_t)rows * (size_t)update->model->layout.dims.mlp_dim);
    }
    update_encode_pixels(update);
    pool_run(update->pool, forward_task, update, tiles + tiles_of(rows));
    pool_run(update->pool, head_task, update, mlp_tape_tiles(&update->head[0].tape) * update->heads);
    pool_run(update->pool, chain_task, update, tiles);
    pool_run(update->pool, gradient_task, update, gradient_tasks(update));
    update_embedding_gradient(update, true);
    update_pixel_gradient(update);
}

/* --- statistics -------------------------------------------------------------------------------- */

/* (1/H) sum_t rho^t mean_B loss. */
static double weighted_loss(const struct update *update, const float *loss)
{
    double sum = 0;

    for (int t = 0; t < update->horizon; t++)
        sum += update_rho(update, t) * vec_sum(loss + (size_t)t * (size_t)update->batch, (size_t)update->batch);
    return sum / update->horizon / update->batch;
}

/* Share of terminations in the last step, and how well a threshold of 0.5 finds them. */
static void termination_stats(const struct update *update, struct update_stats *stats)
{
    const float *truth = update->data->terminated + (size_t)(update->horizon - 1) * (size_t)update->batch;
    double hits = 0, missed = 0, false_alarms = 0, total = 0, recall, precision;

    for (int i = 0; i < update->batch; i++) {
        bool predicted = 1.0f / (1.0f + expf(-update->sorted[i])) > 0.5f;

        total += (double)truth[i];
        hits += predicted && truth[i] == 1.0f;
        missed += !predicted && truth[i] == 1.0f;
        false_alarms += predicted && truth[i] == 0.0f;
    }
    recall = hits / (hits + missed + 1e-9);
    precision = hits / (hits + false_alarms + 1e-9);
    stats->termination_rate = (float)(total / update->batch);
    stats->termination_f1 = (float)(2 * precision * recall / (precision + recall + 1e-9));
}

void update_model_stats(const struct update *update, struct update_stats *stats)
{
    const struct update_config *config = &update->config;
    int latent = update->model->layout.dims.latent_dim, tiles = update->encoder.group_tiles;
    double consistency = 0, value = 0, reward, termination = 0;

    for (int t = 0; t < update->horizon; t++)
        for (int i = 0; i < tiles; i++)
            consistency += update_rho(update, t) * update->consistency[t * tiles + i];
    consistency /= (double)update->horizon * update->batch * latent;
    for (int h = 0; h < update->num_q; h++)
        value += weighted_loss(update, update->head[h].loss) / update->num_q;
    reward = weighted_loss(update, update->head[update->num_q].loss);
    if (update->heads > update->num_q + 1) {
        int rows = update->horizon * update->batch;

        termination = vec_sum(update->head[update->num_q + 1].loss, (size_t)rows) / rows;
        termination_stats(update, stats);
    }
    stats->consistency_loss = (float)consistency;
    stats->value_loss = (float)value;
    stats->reward_loss = (float)reward;
    stats->termination_loss = (float)termination;
    stats->total_loss = (float)(config->consistency_coef * consistency + config->reward_coef * reward +
                                config->termination_coef * termination + config->value_coef * value);
}
