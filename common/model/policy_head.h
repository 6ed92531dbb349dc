/*
 * policy_head.h - the squashed Gaussian policy: from the net's output to actions and entropies.
 *
 *   (mean, s) = halves of the net's output      log_std = min + dif/2 (tanh s + 1)
 *   action = tanh(mean + noise exp(log_std))
 *   l  = sum_i (-noise_i^2/2 - log_std_i - ln(2 pi)/2)       the Gaussian's log density
 *   l' = l - sum_i ln(relu(1 - action_i^2) + 1e-6)            the squashed one's
 *   entropy = -l'      scaled_entropy = -l' (A l) / (l' + 1e-8)
 *
 * A task with fewer actions than the widest masks the last `padding` components: mean, log_std and noise are 0
 * there, so the action is 0 and l has -ln(2 pi)/2 of each; A in scaled_entropy counts the others alone.
 *
 * Rows of net hold 2A values, of noise A (contiguous), ld.. floats from row to row elsewhere.
 * Source: TD-MPC2 reference, `world_model.py` (pi), `math.py` (log_std, gaussian_logprob, squash).
 */
#ifndef TD_MODEL_POLICY_HEAD_H
#define TD_MODEL_POLICY_HEAD_H

#include <stddef.h>

struct policy_head {
    int action_dim;
    float log_std_min, log_std_dif; /* dif = max - min */
    int padding;                    /* trailing components that the task does not have */
};

/* action [rows, A]: sampled with this noise [rows, A]. */
void policy_sample(const struct policy_head *head, const float *net, size_t ldn, const float *noise,
                   int rows, float *action, size_t lda);

/* action [rows, A]: tanh of the mean. */
void policy_mean(const struct policy_head *head, const float *net, size_t ldn, int rows,
                 float *action, size_t lda);

/* As policy_sample, and entropy [rows], scaled_entropy [rows]. */
void policy_forward(const struct policy_head *head, const float *net, size_t ldn, const float *noise,
                    int rows, float *action, size_t lda, float *entropy, float *scaled_entropy);

/*
 * dnet [rows, 2A] (overwritten) from the gradient at the sampled actions and the gradient dscaled,
 * the same for every row, at scaled_entropy.
 *
 * With u = mean + noise e, e = exp(log_std):  du = daction (1 - action^2)
 *   dmean = du,  dlog_std = du noise e + (entropy's part),  ds = dlog_std dif/2 (1 - tanh^2 s)
 * The entropy's part: S = -A l R with R = l'/(l' + d), d = 1e-8, so
 *   dS/dl = -A R,  dS/dl' = -A l d / (l' + d)^2,  dl/dlog_std_i = dl'/dlog_std_i|direct = -1,
 *   dl'/daction_i = 2 action_i / (1 - action_i^2 + 1e-6) where 1 - action_i^2 > 0, else 0.
 */
void policy_backward(const struct policy_head *head, const float *net, size_t ldn, const float *noise,
                     int rows, const float *action, size_t lda, const float *daction, size_t ldda,
                     float dscaled, float *dnet, size_t lddn);

#endif
