#include "common/model/running_scale.h"

#include <math.h>
#include <string.h>

#include "common/util/error.h"

void running_scale_init(struct running_scale *scale, float tau)
{
    *scale = (struct running_scale){.value = 1.0f, .tau = tau};
}

static void sift(float *heap, int root, int count)
{
    for (int child; (child = 2 * root + 1) < count; root = child) {
        float kept;

        if (child + 1 < count && heap[child + 1] > heap[child])
            child++;
        if (!(heap[child] > heap[root]))
            return;
        kept = heap[root];
        heap[root] = heap[child];
        heap[child] = kept;
    }
}

/* Heapsort: in place and without allocation, which qsort does not promise. */
static void sort(float *values, int count)
{
    for (int i = count / 2 - 1; i >= 0; i--)
        sift(values, i, count);
    for (int end = count - 1; end > 0; end--) {
        float kept = values[0];

        values[0] = values[end];
        values[end] = kept;
        sift(values, 0, end);
    }
}

static float percentile(const float *sorted, int count, float percent)
{
    float place = percent * (float)(count - 1) / 100.0f;
    float below = floorf(place), part = place - below;
    int first = (int)below, second = first + 1 < count ? first + 1 : count - 1;

    return sorted[first] * (1.0f - part) + sorted[second] * part;
}

void running_scale_update(struct running_scale *scale, const float *q, int count, float *sorted)
{
    float range;

    TD_ASSERT(count > 0, "count %d", count);
    for (int i = 0; i < count; i++)
        if (isnan(q[i])) {
            scale->value = NAN;
            return;
        }
    memcpy(sorted, q, (size_t)count * sizeof(*q));
    sort(sorted, count);
    range = percentile(sorted, count, 95.0f) - percentile(sorted, count, 5.0f);
    range = range < 1.0f ? 1.0f : range;
    scale->value += scale->tau * (range - scale->value);
}
