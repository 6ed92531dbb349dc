/*
 * softmax.h - rows of logits over bins: expectation and two-hot cross-entropy, with gradients.
 *
 * Logits are [rows, bins] with ld floats from row to row. One pass each, maximum subtracted.
 */
#ifndef TD_NN_SOFTMAX_H
#define TD_NN_SOFTMAX_H

#include <stddef.h>

/* out [rows] = sum_j softmax(logits)_j support_j. */
void softmax_expect(const float *logits, size_t ld, int rows, int bins, const float *support,
                    float *out);

/* dlogits_j = dout p_j (support_j - out): overwrites dlogits [rows, bins], which may be logits. */
void softmax_expect_backward(const float *logits, size_t ld, int rows, int bins,
                             const float *support, const float *out, const float *dout,
                             float *dlogits, size_t ldd);

/*
 * loss [rows] = -sum_j target_j log softmax(logits)_j for the two-hot target that has 1 - weight at
 * bin index and weight at (index + 1) mod bins. dlogits = scale (softmax - target), overwritten,
 * may be logits; NULL = not wanted.
 */
void softmax_two_hot(const float *logits, size_t ld, int rows, int bins, const int *index,
                     const float *weight, float *loss, float scale, float *dlogits, size_t ldd);

#endif
