/*
 * env.h - the parts of `tdmpc2 env`.
 */
#ifndef TD_TOOLS_ENV_H
#define TD_TOOLS_ENV_H

#include <stdbool.h>
#include <stdio.h>

#include "common/env/env.h"
#include "tools/trial.h"

/* How strictly a replay is judged. */
enum env_replay_bits {
    ENV_REPLAY_STEP,  /* this machine rounds otherwise: only what one step from a known state allows */
    ENV_REPLAY_EXACT, /* equal observations; frames through another renderer: within the tolerance */
    ENV_REPLAY_ALL,   /* equal observations, whatever they are drawn by */
};

/*
 * Replay one file of recorded trajectories and print one line. Returns TD_OK when the observations
 * are equal and the rewards within 1e-9, TD_EAGAIN when they differ, or the error (in err) that made
 * the file unusable. Frames (obs=rgb) are drawn as `drawing` says; they must be equal when drawn
 * exactly by the library that drew the recording, else within frame_difference.h's tolerance.
 */
int env_replay_file(const char *path, enum env_replay_bits bits, enum env_drawing drawing, FILE *out,
                    struct error *err);

/*
 * Check a task with these options: shapes, bounds, finiteness, determinism, exactness of saved states; measure its rate.
 * Prints what it found, and tells `trial`, if it is not NULL, where it is. TD_OK, TD_EAGAIN when a check failed, or an error.
 */
int env_check_task(const char *task, const struct env_options *options, FILE *out, struct trial *trial,
                   struct error *err);

#endif
