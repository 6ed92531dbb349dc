/*
 * running_scale.h - the trailing 5 to 95 percentile range of Q values that policy losses divide by.
 *
 * Source: TD-MPC2 reference, `scale.py`.
 */
#ifndef TD_MODEL_RUNNING_SCALE_H
#define TD_MODEL_RUNNING_SCALE_H

struct running_scale {
    float value; /* starts at 1 */
    float tau;
};

void running_scale_init(struct running_scale *scale, float tau);

/*
 * value += tau * (max(1, P95 - P5) - value) over q [count], count > 0; percentiles at
 * p (count - 1) / 100, linearly interpolated. sorted [count] is scratch.
 * NaN among q gives a NaN value.
 */
void running_scale_update(struct running_scale *scale, const float *q, int count, float *sorted);

#endif
