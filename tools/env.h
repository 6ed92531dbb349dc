/*
 * env.h - the parts of `tdmpc2 env`.
 */
#ifndef TD_TOOLS_ENV_H
#define TD_TOOLS_ENV_H

#include <stdbool.h>
#include <stdio.h>

#include "common/env/env.h"

/*
 * Replay one file of recorded trajectories and print one line. Returns TD_OK when the observations
 * are equal and the rewards within 1e-9, TD_EAGAIN when they differ, or the error (in err) that made
 * the file unusable. `exact` false: judge only what one step from a known state allows (1e-6).
 */
int env_replay_file(const char *path, bool exact, FILE *out, struct error *err);

/*
 * Check a task: shapes, bounds, finiteness, determinism, exactness of saved states; measure its rate.
 * Prints what it found. TD_OK, TD_EAGAIN when a check failed, or an error.
 */
int env_check_task(const char *task, const struct env_options *options, FILE *out, struct error *err);

#endif
