/*
 * env.h - the environments, behind one small table: find, create, reset, step, state, close.
 *
 * Owns:    the simulator, its random state, the edits a task makes to its model, what it draws with.
 * Thread:  each env belongs to one thread at a time; several may live in several threads, and one may
 *          move between calls: what it draws with is bound to a thread only while it draws.
 * Source:  TD-MPC2, reference tdmpc2/envs; dm_control 1.0.16 (REFERENCE, sections 7, 7b, 8).
 *
 * An episode is env_reset, then env_step until a result says terminated or truncated. The random
 * state is seeded once, by env_create; resets continue one stream, so a seed names a whole sequence
 * of episodes. The same seed and actions give the same observations, to the bit.
 */
#ifndef TD_ENV_ENV_H
#define TD_ENV_ENV_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/error.h"

#define ENV_TASK_MAX 192

#define ENV_FRAME_SIDE  64
#define ENV_FRAME_BYTES (3 * ENV_FRAME_SIDE * ENV_FRAME_SIDE)

/* What an observation is; the numbers are those of the row schema. */
enum env_obs { ENV_OBS_STATE = 1, ENV_OBS_RGB = 2 };

/* How frames are drawn: as dm_control draws them, or in less time and almost the same. */
enum env_drawing { ENV_DRAW_EXACT = 0, ENV_DRAW_FAST = 1 };

/* What may be asked of an environment beside its task; all 0 is a state, drawn exactly if at all. */
struct env_options {
    uint32_t obs_type; /* enum env_obs, 0: state */
    uint32_t drawing;  /* enum env_drawing */
};

/* The options named as on the command line, obs=state|rgb and render=exact|fast. */
struct env_options env_options(const char *obs, const char *render);

struct env_spec {
    char task[ENV_TASK_MAX];
    uint32_t obs_type;       /* enum env_obs */
    uint32_t obs_dim;        /* floats of a state, bytes of one unstacked frame: ENV_FRAME_BYTES */
    uint32_t action_dim;     /* each component lies in [-1, 1] */
    uint32_t episode_length; /* agent steps after which an episode is truncated */
    uint32_t action_repeat;  /* environment steps per agent step; their rewards are summed */
    bool terminates;         /* episodes may end in a terminal state (episodic=true is wanted) */
    bool exact_state;        /* env_state_get is possible: a resumed run continues bit by bit */
    bool may_truncate;       /* episodes may be truncated before episode_length too */
};

/* What one agent step led to, beside the observation. */
struct env_result {
    double reward;   /* summed over the action repeat; rows keep it as a float */
    bool terminated; /* a terminal state: nothing to bootstrap from */
    bool truncated;  /* the time limit; never set together with terminated */
    bool has_success; /* the task has a notion of success, */
    bool success;    /* and this is it */
};

typedef struct env env_t;

/*
 * Look a task up without opening anything (no library or model file is touched); only a task that
 * tells its sizes itself (gym:, python:) is asked, once per process.
 * Returns TD_OK, TD_ENOTFOUND with the nearest name and how to list them, or for such a task what
 * env_create returns.
 */
int env_find(const char *task, struct env_spec *spec, struct error *err);

/* As env_find, for these options; TD_EINVAL when the task can't be observed so. */
int env_find_with(const char *task, const struct env_options *options, struct env_spec *spec,
                  struct error *err);

/* The public tasks, 0 <= index < env_task_count(), in a fixed order: those of a suite in a row. */
int env_task_count(void);
const char *env_task_name(int index);

/* What a list of the tasks shows beside the spec. */
struct env_about {
    const char *suite;      /* "DMControl" */
    const char *suite_note; /* what a user should know of the suite, or NULL */
    const char *domain;     /* "walker" */
    const char *note;       /* what a user should know of the task, or NULL */
    bool rgb;               /* obs=rgb is offered */
    bool available;         /* what it needs is set up here */
    struct error why;       /* when not: the sentence with the command to run */
};

/* Describe a task that env_find finds. Looks for files, opens nothing. */
void env_describe(const char *task, struct env_about *about);

/*
 * Open a task with a seeded random state. env_reset comes next.
 * Returns TD_OK, TD_ENOTFOUND (as env_find), TD_ESETUP (library or model files missing: what to
 * run), TD_EFOREIGN (another MuJoCo version), TD_ECORRUPT (a model file that does not fit), TD_EINVAL (an
 * environment that can't be used: discrete actions) or TD_ELOST (its process failed to start).
 */
int env_create(env_t **out, const char *task, uint32_t seed, struct error *err);

/*
 * As env_create, for these options. With obs=rgb, what is needed to draw is opened too: TD_EINVAL as
 * env_find_with, TD_ESETUP when this machine can't draw (which package to install).
 */
int env_create_with(env_t **out, const char *task, const struct env_options *options, uint32_t seed,
                    struct error *err);

/*
 * As env_create_with, but what takes long is left to the first reset, which then may return what env_create
 * returns too: a process is started there. Before it, there is no state to be saved or set.
 */
int env_create_later(env_t **out, const char *task, const struct env_options *options, uint32_t seed,
                     struct error *err);

/* The task's sizes; lives as long as env. */
const struct env_spec *env_spec(const env_t *env);

/*
 * Start the next episode.
 *
 *   obs  [obs_dim]  out  float (state) or uint8 (rgb: one frame [3][64][64], rows from the top)
 *
 * Returns TD_OK; TD_EIO when the simulator gives up: the env can then only be closed; or TD_ELOST when
 * the environment's process was lost (it died, raised, was silent too long, returned what is no
 * observation): the next env_reset starts another, with another seed, and may succeed.
 */
int env_reset(env_t *env, void *obs, struct error *err);

/*
 * One agent step. May be called only between env_reset and the end of the episode.
 *
 *   action  [action_dim]  in   in [-1, 1]; outside or NaN is TD_EINVAL and nothing happens
 *   obs     [obs_dim]     out  what the step led to
 *
 * Never allocates (the graphics library may). Returns TD_OK, TD_EINVAL, or TD_EIO and
 * TD_ELOST as env_reset; an episode that is lost has no end, and its steps so far are good.
 */
int env_step(env_t *env, const float *action, void *obs, struct env_result *result,
             struct error *err);

/*
 * A reset or step in two halves, so that several environments that are processes of their own move at the
 * same time: begin asks, env_finish takes the answer. Where an environment lives in this process, begin does
 * all of it. The blocking calls above are these two with a wait between them, and no others but env_poll,
 * env_due_ms, env_finish and env_close may be called in between.
 *
 *   action  [action_dim]  in   as env_step; borrowed until the answer
 *
 * Returns TD_OK: env_finish follows; or what env_reset and env_step return, and nothing has begun.
 */
int env_reset_begin(env_t *env, struct error *err);
int env_step_begin(env_t *env, const float *action, struct error *err);

/*
 * Take the answer if it is there; never waits for it.
 *
 *   obs     [obs_dim]  out  what the reset or step led to
 *   result             out  of a step; NULL after a reset
 *
 * Returns TD_EAGAIN: not yet, ask again when env_poll's descriptors are ready or the deadline is over; else
 * what env_reset and env_step return.
 */
int env_finish(env_t *env, void *obs, struct env_result *result, struct error *err);

/*
 * How long a reset or step of the user's code may take: $TDMPC2_ENV_TIMEOUT in seconds, 60 if it is not given. To
 * start, with its imports and files, it has twice that, and 20 s at least.
 */
uint64_t env_timeout_ms(void);
uint64_t env_start_timeout_ms(void);

/* The descriptors to wait on while env_finish says TD_EAGAIN; returns how many. */
#define ENV_POLL_MAX 3
int env_poll(const env_t *env, struct pollfd fds[ENV_POLL_MAX]);

/* By then (clock_ms) env_finish has an answer, if only that the environment is lost. UINT64_MAX: it has one. */
uint64_t env_due_ms(const env_t *env);

/* Agent steps taken in this episode; -1 before the first reset and after an episode's end. */
int env_steps(const env_t *env);

/* Bytes of a saved state; fixed for a task. 0 when the state can't be had (spec's exact_state). */
size_t env_state_size(const env_t *env);

/*
 * Save everything the future depends on: simulator, random state, model edits, step counter. Taken
 * after env_create, between two steps or after an episode's end. The bytes are versioned and fit
 * any env of the same task on the same kind of machine.
 */
void env_state_get(env_t *env, void *bytes);

/*
 * Continue where the bytes were taken, bit by bit. Checked first: a foreign, truncated or altered
 * state is TD_EFOREIGN or TD_ECORRUPT and changes nothing.
 */
int env_state_set(env_t *env, const void *bytes, size_t size, struct error *err);

/* The observation of the present state, as the last reset or step gave it (also after state_set). */
void env_observe(env_t *env, void *obs);

/* A picture of the present state, of any task and observation type. */
struct env_view {
    int width, height; /* 1 to 4096 */
    int camera;        /* of the model, by index; -1: the one that observations are drawn from */
};

/*
 * Draw the present state: after a reset, a step or env_state_set.
 *
 *   pixels  [height][width][3]  out  red, green, blue; rows from the top
 *
 * Changes nothing that the future depends on. Returns TD_OK, TD_EINVAL (no such camera or size, or a
 * task that can't be drawn), TD_ESETUP as env_create_with, TD_EIO when drawing fails.
 */
int env_render(env_t *env, const struct env_view *view, uint8_t *pixels, struct error *err);

/* Accepts NULL, a half-built env, and one whose answer is awaited: its process is killed. */
void env_close(env_t **env);

#endif
