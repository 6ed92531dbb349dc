/* Hopper: a planar one-legged robot. suite/hopper.py */
#include "common/env/dm/dm.h"

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
    double sum = 0;

    for (int i = 0; i < dm->model->nu; i++)
        sum += dm_quadratic(dm->data->ctrl[i]);
    return standing(dm) * ((sum / dm->model->nu + 4) / 5);
}

/* standing * tol(vx; [v, inf), v/2, linear to .5) with v = 2 */
static double reward_hop(const struct dm *dm)
{
    double speed = dm->task->value;

    return standing(dm) * dm_linear(dm_sensor(dm, dm->id[VELOCITY])[0], speed, INFINITY, speed / 2, .5);
}

static const struct dm_task tasks[] = {
    {"hopper-stand", 15, 0, reset, observe, reward_stand},
    {"hopper-hop", 15, 2, reset, observe, reward_hop},
    {.name = NULL},
};

const struct dm_domain dm_hopper = {
    .file = "hopper.xml",
    .substeps = 4,
    .nq = 7, .nv = 7, .nu = 4, .nbody = 6, .nsensordata = 5,
    .names = names,
    .tasks = tasks,
};
