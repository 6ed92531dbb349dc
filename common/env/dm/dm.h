/*
 * dm.h - what the domains of the DeepMind Control Suite share; for the files in common/env/dm only.
 *
 * A domain is a model file, the names it looks up, and per task three functions: reset draws the
 * first state, observe lists the observation, reward judges the state after a control step. Their
 * order of draws and operations is dm_control's: the same seed gives the same bits.
 *
 * Source: dm_control 1.0.16, rl/control.py, mujoco/engine.py, suite/; REFERENCE, section 7b.
 */
#ifndef TD_ENV_DM_DM_H
#define TD_ENV_DM_DM_H

#include <math.h>
#include <string.h>

#include "common/env/env_class.h"
#include "common/env/mujoco.h"
#include "common/env/random_state.h"
#include "common/env/render.h"

#define DM_PI      3.14159265358979323846
#define DM_IDS     20  /* names a domain may look up */
#define DM_OBS_MAX 256 /* values of an observation */
#define DM_CONTROLS 64 /* actuators of a model */
#define DM_EDITS   16  /* model values a task may change */
#define DM_MEMORY  4   /* values a reset may leave for rewards */

/* The note of tasks that nobody published results for. */
#define DM_UNLISTED "in none of TD-MPC2's task lists"

/* Entries of a 3x3 rotation matrix, row-major. */
enum { DM_XX = 0, DM_XZ = 2, DM_ZX = 6, DM_ZY = 7, DM_ZZ = 8 };

struct dm;

struct dm_task {
    const char *name;
    uint32_t obs_dim;
    double value; /* target speed, target size, ...: the domain says */
    void (*reset)(struct dm *dm);
    double *(*observe)(const struct dm *dm, double *obs); /* returns one past the last value */
    double (*reward)(const struct dm *dm);                /* after one control step */
    const struct model_edit *edits;                       /* of the model's text, or NULL */
    const char *note;                                     /* what a user should know, or NULL */
};

struct dm_name {
    int type; /* mjtObj */
    const char *name;
};

struct dm_domain {
    const char *file;  /* in the folder suite/ or models/ */
    const char *title; /* as `env list` shows it */
    int substeps;      /* physics steps per control step */
    int nq, nv, nu, na, nbody, nsensordata; /* what the file must compile to */
    const struct dm_name *names;        /* dm->id[i] becomes the id of names[i]; ends with {0, NULL} */

    /* At creation: name the values that resets change (dm_edit). NULL when there are none. */
    void (*prepare)(struct dm *dm);

    int camera; /* that observations are drawn from */

    const struct dm_task *tasks; /* ends with a NULL name */
};

struct dm {
    struct env env;
    const struct mujoco *mj;
    const struct dm_domain *domain;
    const struct dm_task *task;
    mjModel *model;
    mjData *data;
    struct random_state random;
    int id[DM_IDS];
    double *edit[DM_EDITS]; /* into the model, or memory */
    int edit_count;
    double memory[DM_MEMORY];
    bool rk4;
    bool invalid; /* a warning was raised where dm_control raises an error */
    render_t *frames;   /* draws observations, as the options say */
    render_t *pictures; /* draws other sizes, exactly; opened by the first of them */
    const char *failed; /* a reset that found no state says why */
};

/* --- physics ------------------------------------------------------------------------------- */

/* mj_forward with actuation disabled, as dm_control does around resets. */
void dm_forward(struct dm *dm);

/* The same where dm_control lets MuJoCo's warnings pass. */
void dm_forward_anyway(struct dm *dm);

/* Back to the model's default state, and forward. */
void dm_restart(struct dm *dm);

/* One control step of n physics steps, leaving positions and velocities up to date. */
void dm_advance(struct dm *dm, int n);

/*
 * Draw every joint by index: limited ones within their range, unlimited hinges in [-pi, pi), a free
 * joint's orientation; unlimited slides and a free joint's position stay.
 */
void dm_randomize_joints(struct dm *dm);

/* The same until nothing touches, at most `tries` times; what: for the sentence when that fails. */
void dm_randomize_apart(struct dm *dm, int tries, const char *what);

/* Declare a value that the task's resets change, in the model or in memory: part of a saved state. */
void dm_edit(struct dm *dm, double *value, int count);

static inline double dm_uniform(struct dm *dm, double low, double high)
{
    return random_state_uniform(&dm->random, low, high);
}

static inline double dm_normal(struct dm *dm)
{
    return random_state_normal(&dm->random);
}

/* --- reading the state --------------------------------------------------------------------- */

static inline double dm_body_xmat(const struct dm *dm, int body, int entry)
{
    return dm->data->xmat[9 * body + entry];
}

static inline double *dm_qpos(const struct dm *dm, int joint)
{
    return &dm->data->qpos[dm->model->jnt_qposadr[joint]];
}

static inline double *dm_qvel(const struct dm *dm, int joint)
{
    return &dm->data->qvel[dm->model->jnt_dofadr[joint]];
}

static inline const double *dm_sensor(const struct dm *dm, int sensor)
{
    return &dm->data->sensordata[dm->model->sensor_adr[sensor]];
}

/* Append the angles, the velocities of all hinges; returns one past the last. */
double *dm_put_hinges(const struct dm *dm, double *obs);
double *dm_put_hinge_velocities(const struct dm *dm, double *obs);

/* Append to an observation; returns one past the last. */
static inline double *dm_put(double *obs, const double *values, int count)
{
    memcpy(obs, values, (size_t)count * sizeof(*obs));
    return obs + count;
}

/* --- small algebra, rounded as NumPy on OpenBLAS rounds it --------------------------------- */

double dm_norm(const double *v, int count);

/* v / |v|, in place */
void dm_normalize(double *v, int count);

double dm_mean(const double *v, int count);

/* The mean of dm_quadratic over all controls. */
double dm_mean_quadratic(const struct dm *dm);

/* out = v * matrix, both in 3-space, matrix row-major. */
void dm_rotate(double out[3], const double v[3], const double *matrix);

/* Append the vector between two bodies' origins, in the frame of the first. */
double *dm_put_relative(const struct dm *dm, int frame, int body, double *obs);

/* --- rewards (dm_control utils/rewards.py, tolerance) -------------------------------------- */

/* 1 inside [low, high], 0 outside. */
double dm_within(double x, double low, double high);

/* 1 inside, falling as a Gaussian to 0.1 at `margin` outside. */
double dm_gaussian(double x, double low, double high, double margin);

/* 1 inside, falling linearly to `value` at `margin` outside and on to 0. */
double dm_linear(double x, double low, double high, double margin, double value);

/* 1 at 0, falling to 0 at +-1: the price of a control. */
double dm_quadratic(double x);

/* --- the domains --------------------------------------------------------------------------- */

extern const struct dm_domain dm_acrobot, dm_ball_in_cup, dm_cartpole, dm_cheetah, dm_dog, dm_finger,
    dm_fish, dm_hopper, dm_humanoid, dm_pendulum, dm_quadruped, dm_reacher, dm_reacher_three,
    dm_reacher_four, dm_walker;

#endif
