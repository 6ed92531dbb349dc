#include "common/nn/softmax.h"

#include "common/nn/kernels.h"
#include "common/util/error.h"

void softmax_expect(const float *logits, size_t ld, int rows, int bins, const float *support,
                    float *out)
{
    nn_kernels()->softmax_expect(logits, ld, rows, bins, support, out);
}

/* out = sum_k p_k s_k and dp_k/dx_j = p_k ([j = k] - p_j), so dout/dx_j = p_j (s_j - out). */
void softmax_expect_backward(const float *logits, size_t ld, int rows, int bins,
                             const float *support, const float *out, const float *dout,
                             float *dlogits, size_t ldd)
{
    nn_kernels()->softmax_expect_backward(logits, ld, rows, bins, support, out, dout, dlogits, ldd);
}

/* -sum_k t_k (x_k - ln sum_j e^x_j) with sum_k t_k = 1: the slope in x_j is p_j - t_j. */
void softmax_two_hot(const float *logits, size_t ld, int rows, int bins, const int *index,
                     const float *weight, float *loss, float scale, float *dlogits, size_t ldd)
{
    for (int r = 0; r < rows; r++)
        TD_ASSERT(index[r] >= 0 && index[r] < bins, "row %d index %d bins %d", r, index[r], bins);
    nn_kernels()->softmax_two_hot(logits, ld, rows, bins, index, weight, loss, scale, dlogits, ldd);
}
