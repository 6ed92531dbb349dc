/*
 * stack.h - what a policy sees: a state as it is, or the last three frames, oldest first.
 *
 * Memory is the caller's. A reset repeats the first frame; since an episode always begins with one,
 * a saved state of an environment between two episodes needs no frames.
 *
 * Source: TD-MPC2, reference tdmpc2/envs/wrappers/pixels.py.
 */
#ifndef TD_ENV_STACK_H
#define TD_ENV_STACK_H

#include "common/env/env.h"

#define STACK_FRAMES 3

/* Bytes of what env_reset and env_step write, and of what a policy sees. */
size_t env_obs_bytes(const struct env_spec *spec);
size_t stack_bytes(const struct env_spec *spec);

/*
 * Take in the observation of a reset (first) or a step.
 *
 *   seen  [stack_bytes]    in, out
 *   obs   [env_obs_bytes]  in
 */
void stack_push(const struct env_spec *spec, void *seen, const void *obs, bool first);

#endif
