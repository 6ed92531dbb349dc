#include "common/model/two_hot.h"

#include <math.h>

#include "common/nn/softmax.h"
#include "common/util/error.h"

float symlog(float x)
{
    return copysignf(logf(1.0f + fabsf(x)), x);
}

float symexp(float x)
{
    return copysignf(expf(fabsf(x)) - 1.0f, x);
}

void two_hot_init(struct two_hot *two_hot, int bins, float vmin, float vmax, float *support)
{
    float step = (vmax - vmin) / (float)(bins - 1);

    TD_ASSERT(bins >= 2 && vmin < vmax, "bins %d vmin %g vmax %g", bins, (double)vmin, (double)vmax);
    *two_hot = (struct two_hot){
        .bins = bins,
        .vmin = vmin,
        .vmax = vmax,
        .bin = (float)(((double)vmax - (double)vmin) / (bins - 1)),
        .support = support,
    };
    for (int i = 0; i < bins; i++)
        support[i] = i < bins / 2 ? fmaf((float)i, step, vmin) : fmaf(-(float)(bins - 1 - i), step, vmax);
}

void two_hot_encode(const struct two_hot *two_hot, const float *x, int count, int *index,
                    float *weight)
{
    for (int i = 0; i < count; i++) {
        float y = symlog(x[i]);
        float place, floor_place;

        y = y < two_hot->vmin ? two_hot->vmin : y > two_hot->vmax ? two_hot->vmax : y;
        place = (y - two_hot->vmin) / two_hot->bin;
        floor_place = floorf(place);
        weight[i] = place - floor_place;
        if (floor_place >= (float)(two_hot->bins - 1)) {
            /* vmax itself, whatever the division rounds to. */
            index[i] = two_hot->bins - 1;
            weight[i] = 0.0f;
        } else {
            index[i] = floor_place >= 0.0f ? (int)floor_place : 0; /* false for NaN */
        }
    }
}

void two_hot_decode(const struct two_hot *two_hot, const float *logits, size_t ld, int rows,
                    float *out, float *expect)
{
    float *mean = expect == NULL ? out : expect;

    softmax_expect(logits, ld, rows, two_hot->bins, two_hot->support, mean);
    for (int i = 0; i < rows; i++)
        out[i] = symexp(mean[i]);
}

void two_hot_decode_backward(const struct two_hot *two_hot, const float *logits, size_t ld, int rows,
                             const float *expect, float *dout, float *dlogits, size_t ldd)
{
    /* The sign squared of the reference's product: its gradient at exactly 0 is 0. */
    for (int i = 0; i < rows; i++)
        dout[i] = expect[i] == 0.0f ? 0.0f : dout[i] * expf(fabsf(expect[i]));
    softmax_expect_backward(logits, ld, rows, two_hot->bins, two_hot->support, expect, dout, dlogits,
                            ldd);
}
