/*
 * Hopper: a planar one-legged robot. suite/hopper.py; backwards and flips: TD-MPC2's
 * envs/tasks/hopper.py.
 */
#include "common/env/dm/dm.h"

#define SPIN_SPEED 5 /* kg m^2/s */

enum { TORSO, FOOT, VELOCITY, TOUCH_TOE, TOUCH_HEEL };

static const struct dm_name names[] = {
    [TORSO] = {mjOBJ_BODY, "torso"},
    [FOOT] = {mjOBJ_BODY, "foot"},
    [VELOCITY] = {mjOBJ_SENSOR, "torso_subtreelinvel"},
    [TOUCH_TOE] = {mjOBJ_SENSOR, "touch_toe"},
    [TOUCH_HEEL] = {mjOBJ_SENSOR, "touch_heel"},
    {0, NULL},
};

static void reset(struct dm *dm)
{
    dm_randomize_joints(dm);
}

/* All positions but the horizontal one; velocities; the two touch sensors on a log scale. */
static double *observe(const struct dm *dm, double *obs)
{
    obs = dm_put(obs, dm->data->qpos + 1, dm->model->nq - 1);
    obs = dm_put(obs, dm->data->qvel, dm->model->nv);
    *obs++ = log1p(*dm_sensor(dm, dm->id[TOUCH_TOE]));
    *obs++ = log1p(*dm_sensor(dm, dm->id[TOUCH_HEEL]));
    return obs;
}

/* [.6 <= h <= 2], h = height of the torso's centre of mass above the foot's */
static double standing(const struct dm *dm)
{
    double height = dm->data->xipos[3 * dm->id[TORSO] + 2] - dm->data->xipos[3 * dm->id[FOOT] + 2];

    return dm_within(height, .6, 2);
}

/* standing * (mean of q(ctrl) + 4)/5 */
static double reward_stand(const struct dm *dm)
{
    return standing(dm) * ((dm_mean_quadratic(dm) + 4) / 5);
}

/* standing * tol(vx; [v, inf), v/2, linear to .5) with v = 2 */
static double reward_hop(const struct dm *dm)
{
    double speed = dm->task->value;

    return standing(dm) * dm_linear(dm_sensor(dm, dm->id[VELOCITY])[0], speed, INFINITY, speed / 2, .5);
}

/* standing * tol(vx; (-inf, -v], v/2, linear to .5) with v = 1 */
static double reward_hop_backwards(const struct dm *dm)
{
    double speed = dm->task->value;

    return standing(dm) * dm_linear(dm_sensor(dm, dm->id[VELOCITY])[0], -INFINITY, -speed, speed / 2, .5);
}

/* tol(d L; [5, inf), 2.5, linear to 0), L = angular momentum about y, d = 1 forwards, -1 backwards */
static double reward_flip(const struct dm *dm)
{
    double momentum = dm->data->subtree_angmom[3 * dm->id[TORSO] + 1];

    return dm_linear(dm->task->value * momentum, SPIN_SPEED, INFINITY, SPIN_SPEED / 2., 0);
}

static const struct dm_task tasks[] = {
    {"hopper-stand", 15, 0, reset, observe, .reward = reward_stand},
    {"hopper-hop", 15, 2, reset, observe, .reward = reward_hop},
    {"hopper-hop-backwards", 15, 1, reset, observe, .reward = reward_hop_backwards},
    {"hopper-flip", 15, 1, reset, observe, .reward = reward_flip, .note = DM_UNLISTED},
    {"hopper-flip-backwards", 15, -1, reset, observe, .reward = reward_flip, .note = DM_UNLISTED},
    {.name = NULL},
};

const struct dm_domain dm_hopper = {
    .file = "hopper.xml",
    .title = "hopper",
    .substeps = 4,
    .nq = 7, .nv = 7, .nu = 4, .nbody = 6, .nsensordata = 5,
    .names = names,
    .tasks = tasks,
};
