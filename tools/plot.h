/* plot.h - curves of several seeds as one: their mean and how sure it is. */
#ifndef TD_TOOLS_PLOT_H
#define TD_TOOLS_PLOT_H

#include "tools/curve.h"

struct plot_point {
    double step, mean, low, high; /* low, high: 95 % confidence of the mean; of one seed the mean itself */
    int seeds;
};

/*
 * The mean of `count` series at every step that one of them has, of those whose curve reaches over it (between two
 * points a curve is a straight line). Writes at most `max` points; returns how many.
 */
int plot_mean(const struct curve_series *series, int count, struct plot_point *points, int max);

#endif
