#include "tools/frame_difference.h"

#include "common/util/error.h"

bool frame_difference_add(struct frame_difference *difference, const uint8_t *ours,
                          const uint8_t *theirs, size_t count)
{
    uint64_t sum = 0, far = 0;
    double mean, share;
    bool passes;

    TD_ASSERT(count > 0, "an empty frame");
    for (size_t i = 0; i < count; i++) {
        int apart = ours[i] > theirs[i] ? ours[i] - theirs[i] : theirs[i] - ours[i];

        sum += (uint64_t)apart;
        far += apart > FRAME_FAR;
        difference->most = apart > difference->most ? apart : difference->most;
    }
    mean = (double)sum / (double)count;
    share = (double)far / (double)count;
    passes = mean < FRAME_MEAN_MAX && share <= FRAME_FAR_MAX;

    difference->mean = (difference->mean * (double)difference->frames + mean) /
                       (double)(difference->frames + 1);
    difference->frames++;
    difference->unequal += sum != 0;
    difference->outside += !passes;
    if (mean > difference->worst_mean)
        difference->worst_mean = mean;
    if (share > difference->worst_far)
        difference->worst_far = share;
    return passes;
}
