/*
 * plugin.h - an environment of your own in C, loaded at run time: env=./my_env.so
 *
 * This header is all you need; it includes nothing of this project. Export one constant:
 *
 *     const struct tdmpc2_env tdmpc2_env = {.abi = TDMPC2_ENV_ABI, .size = sizeof(struct tdmpc2_env), ...};
 *
 * and compile with `cc -O2 -fPIC -shared -I common/env -o my_env.so my_env.c -lm`. tools/examples has one
 * of 87 lines. `tdmpc2 env check ./my_env.so` tries everything below; run it first.
 *
 * Several environments may live in one process, each used by one thread at a time: keep everything in what
 * create returns, nothing in globals. It runs inside the actor: what crashes or calls exit takes the actor with
 * it, and what hangs cannot be interrupted: the actor leaves when a call has taken longer than
 * $TDMPC2_ENV_TIMEOUT (60 s if it is not given). Its log names the call, and it is started again. An observation
 * or reward that is not finite, or a function that returns something other than 0, ends the episode as aborted;
 * the environment is then closed and made anew with another seed.
 */
#ifndef TDMPC2_ENV_PLUGIN_H
#define TDMPC2_ENV_PLUGIN_H

#include <stdint.h>

#define TDMPC2_ENV_ABI 1 /* of this struct; another number is refused */

/* What a step led to, beside the observation; all 0 before step is called. */
struct tdmpc2_step {
    double reward;
    uint8_t terminated;  /* a terminal state: nothing follows. Train with episodic=true */
    uint8_t truncated;   /* cut short; episode_length is looked after already */
    uint8_t has_success; /* the task has a notion of success, */
    uint8_t success;     /* and this is it */
    uint8_t unused[4];
};

struct tdmpc2_env {
    uint32_t abi;            /* TDMPC2_ENV_ABI */
    uint32_t size;           /* sizeof(struct tdmpc2_env) */
    const char *name;        /* one line, for people */
    uint32_t obs_dim;        /* floats of an observation, 1 to 2^20 */
    uint32_t action_dim;     /* components of an action, each in [-1, 1]; 1 to 2^20 */
    uint32_t episode_length; /* steps after which an episode is truncated, 1 to 10^9 */
    uint32_t terminates;     /* 1: episodes may end in a terminal state */
    uint64_t state_size;     /* bytes that state_get writes; 0: no states, both may be NULL */

    /* A new environment whose random numbers depend on the seed alone; NULL: it cannot be made. */
    void *(*create)(uint32_t seed);

    /* Begin the next episode. obs [obs_dim] out. Returns 0. */
    int (*reset)(void *env, float *obs);

    /* One step. action [action_dim] in; obs [obs_dim] out. Returns 0. */
    int (*step)(void *env, const float *action, float *obs, struct tdmpc2_step *result);

    /* Everything the future depends on, so that a resumed run continues to the bit; set returns 0. */
    void (*state_get)(void *env, void *bytes);
    int (*state_set)(void *env, const void *bytes);

    void (*close)(void *env);
};

#ifdef __cplusplus
extern "C"
#else
extern
#endif
const struct tdmpc2_env tdmpc2_env;

#endif
