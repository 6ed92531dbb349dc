#include "common/model/policy_head.h"

#include <math.h>

#define HALF_LOG_TWO_PI 0.9189385175704956f
#define SQUASH_EPS      1e-6f
#define ENTROPY_EPS     1e-8f

/* Components that the task has. */
static int actions(const struct policy_head *head)
{
    return head->action_dim - head->padding;
}

static float log_std_of(const struct policy_head *head, float s)
{
    return head->log_std_min + 0.5f * head->log_std_dif * (tanhf(s) + 1.0f);
}

static void clear(float *x, int first, int end)
{
    for (int i = first; i < end; i++)
        x[i] = 0.0f;
}

void policy_sample(const struct policy_head *head, const float *net, size_t ldn, const float *noise,
                   int rows, float *action, size_t lda)
{
    int dim = head->action_dim;

    for (int row = 0; row < rows; row++) {
        const float *mean = net + (size_t)row * ldn, *s = mean + dim;
        const float *draw = noise + (size_t)row * (size_t)dim;

        for (int i = 0; i < actions(head); i++)
            action[(size_t)row * lda + (size_t)i] =
                tanhf(mean[i] + draw[i] * expf(log_std_of(head, s[i])));
        clear(action + (size_t)row * lda, actions(head), dim);
    }
}

void policy_mean(const struct policy_head *head, const float *net, size_t ldn, int rows,
                 float *action, size_t lda)
{
    for (int row = 0; row < rows; row++) {
        for (int i = 0; i < actions(head); i++)
            action[(size_t)row * lda + (size_t)i] = tanhf(net[(size_t)row * ldn + (size_t)i]);
        clear(action + (size_t)row * lda, actions(head), head->action_dim);
    }
}

static float room_of(float action)
{
    float room = 1.0f - action * action;

    return room > 0.0f ? room : 0.0f;
}

/* The two log densities of one row: *gaussian = l, returns l'. */
static float log_density(const struct policy_head *head, const float *s, const float *draw,
                         const float *action, float *gaussian)
{
    float plain = 0.0f, squash = 0.0f;

    for (int i = 0; i < actions(head); i++) {
        plain += -0.5f * draw[i] * draw[i] - log_std_of(head, s[i]) - HALF_LOG_TWO_PI;
        squash += logf(room_of(action[i]) + SQUASH_EPS);
    }
    for (int i = actions(head); i < head->action_dim; i++) {
        plain -= HALF_LOG_TWO_PI;
        squash += logf(1.0f + SQUASH_EPS);
    }
    *gaussian = plain;
    return plain - squash;
}

void policy_forward(const struct policy_head *head, const float *net, size_t ldn, const float *noise,
                    int rows, float *action, size_t lda, float *entropy, float *scaled_entropy)
{
    int dim = head->action_dim;

    policy_sample(head, net, ldn, noise, rows, action, lda);
    for (int row = 0; row < rows; row++) {
        float plain;
        float squashed = log_density(head, net + (size_t)row * ldn + dim, noise + (size_t)row * (size_t)dim,
                                     action + (size_t)row * lda, &plain);

        entropy[row] = -squashed;
        scaled_entropy[row] = -squashed * ((float)actions(head) * plain) / (squashed + ENTROPY_EPS);
    }
}

void policy_backward(const struct policy_head *head, const float *net, size_t ldn, const float *noise,
                     int rows, const float *action, size_t lda, const float *daction, size_t ldda,
                     float dscaled, float *dnet, size_t lddn)
{
    int dim = head->action_dim;

    for (int row = 0; row < rows; row++) {
        const float *s = net + (size_t)row * ldn + dim, *draw = noise + (size_t)row * (size_t)dim;
        const float *act = action + (size_t)row * lda, *dact = daction + (size_t)row * ldda;
        float *dmean = dnet + (size_t)row * lddn, *ds = dmean + dim;
        float plain, squashed = log_density(head, s, draw, act, &plain);
        float below = squashed + ENTROPY_EPS;
        float dplain = -dscaled * (float)actions(head) * (squashed / below);
        float dsquashed = -dscaled * (float)actions(head) * plain * (ENTROPY_EPS / (below * below));

        clear(dmean, actions(head), dim);
        clear(ds, actions(head), dim);
        for (int i = 0; i < actions(head); i++) {
            float t = tanhf(s[i]);
            float std = expf(head->log_std_min + 0.5f * head->log_std_dif * (t + 1.0f));
            float room = room_of(act[i]);
            float da = dact[i] + (room > 0.0f ? dsquashed * 2.0f * act[i] / (room + SQUASH_EPS) : 0.0f);
            float du = da * (1.0f - act[i] * act[i]);
            float dlog_std = du * draw[i] * std - dplain - dsquashed;

            dmean[i] = du;
            ds[i] = dlog_std * 0.5f * head->log_std_dif * (1.0f - t * t);
        }
    }
}
