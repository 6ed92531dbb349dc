/*
 * curve.h - learning curves as text and as PNG.
 *
 * A curve is a run directory's eval.csv, or a csv file with the columns step and reward (or
 * episode_reward, success), where a column seed makes one curve of each seed.
 */
#ifndef TD_TOOLS_CURVE_H
#define TD_TOOLS_CURVE_H

#include <stdbool.h>
#include <stdio.h>

#include "common/util/error.h"

#define CURVE_SERIES_MAX 16

struct curve_series {
    char name[256];
    double *steps, *values; /* in the order of the steps */
    int count;
};

struct curve {
    struct curve_series series[CURVE_SERIES_MAX];
    int count;
    bool success;   /* set before curve_add: of success rates, where a file has both */
    bool env_steps; /* the horizontal axis counts environment steps, not agent steps */
};

/* Add a run directory or csv file. TD_OK, TD_ENOTFOUND, TD_ECORRUPT, TD_EINVAL (too many), TD_ENOMEM. */
int curve_add(struct curve *curve, const char *path, bool env_steps, struct error *err);
void curve_release(struct curve *curve);

/* Is it a csv file that counts environment steps (one with a seed column)? */
bool curve_counts_env_steps(const char *path);

/* Is it a published file of success rates, not of returns? */
bool curve_counts_success(const char *path);

/* width x height characters, axes included; height is at least 5 and width 30. */
void curve_draw(const struct curve *curve, FILE *out, int width, int height);

/* By gnuplot, as a child. TD_ENOTFOUND when there is no gnuplot, TD_EIO when it fails. */
int curve_png(const struct curve *curve, const char *path, struct error *err);

/*
 * Run gnuplot with the script that `write` makes, which writes `picture`; that takes the place of `path` only when it
 * is whole. Errors as curve_png.
 */
typedef void curve_script_fn(FILE *out, const void *context, const char *picture);
int curve_gnuplot(curve_script_fn *write, const void *context, const char *path, struct error *err);

/* A text between gnuplot's single quotes. */
void curve_quote(FILE *out, const char *text);

#endif
