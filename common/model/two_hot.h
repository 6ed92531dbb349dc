/*
 * two_hot.h - discrete regression in symlog space: scalars as weights on two neighbouring bins.
 *
 * Source: TD-MPC2 reference, `math.py` (symlog, symexp, two_hot, two_hot_inv, soft_ce).
 */
#ifndef TD_MODEL_TWO_HOT_H
#define TD_MODEL_TWO_HOT_H

#include <stddef.h>

struct two_hot {
    int bins; /* at least 2 */
    float vmin, vmax;
    float bin;            /* distance of neighbouring bins */
    const float *support; /* [bins], borrowed */
};

/* sgn(x) ln(1 + |x|) and its inverse, by plain log and exp as in the reference. */
float symlog(float x);
float symexp(float x);

/* Fills support [bins] as float32 linspace does (fused products from both ends), and keeps it. */
void two_hot_init(struct two_hot *two_hot, int bins, float vmin, float vmax, float *support);

/*
 * Scalars x [count] as bins: 1 - weight at index, weight at (index + 1) mod bins. Clipped to
 * [vmin, vmax] in symlog space. NaN gives index 0 and weight NaN, so that a loss shows it.
 */
void two_hot_encode(const struct two_hot *two_hot, const float *x, int count, int *index,
                    float *weight);

/*
 * out [rows] = symexp(expect), expect [rows] = sum of softmax(logits) times support.
 * logits [rows, bins], ld floats from row to row. expect may be NULL.
 */
void two_hot_decode(const struct two_hot *two_hot, const float *logits, size_t ld, int rows,
                    float *out, float *expect);

/*
 * The gradient at the logits from dout [rows] at two_hot_decode's out:
 *
 *   out = symexp(e), d out / d e = exp(|e|);   e = sum_j p_j b_j, d e / d logit_j = p_j (b_j - e)
 *
 *   expect   [rows]        in       from two_hot_decode
 *   dout     [rows]        in, out  becomes the gradient at expect
 *   dlogits  [rows, bins]  out      overwritten; may be logits
 */
void two_hot_decode_backward(const struct two_hot *two_hot, const float *logits, size_t ld, int rows,
                             const float *expect, float *dout, float *dlogits, size_t ldd);

#endif
